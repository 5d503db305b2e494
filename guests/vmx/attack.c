/*
 * attack.c: a guest that does all it can to reach the state of the hypervisor above it: memory that EPT does
 * not give it, by every way there is to it; registers that exits must load again, and those that they leave
 * as the guest made them (28.5); ports, MSRs and interrupts that it was not given.
 */
#include "lib/apic.h"
#include "lib/exchange.h"
#include "lib/machine.h"
#include "lib/story.h"
#include "lib/vmx_world.h"
#include "lib/world.h"
#include "x86/case_layout.h"
#include "x86/paging.h"
#include "x86/vectors.h"

#include "vmx/vmx.h"

#define FORBIDDEN 0x600000u /* 2 MiB that nothing else needs, mapped by the guest as they are */
#define FILLED    0xccu
#define RIGHTS    ((uint64_t)(EPT_READ | EPT_WRITE | EPT_EXECUTE))

#define CODE(...) .code = {__VA_ARGS__}, .length = sizeof((const uint8_t[]){__VA_ARGS__})

static bool use_bitmaps(void)
{
	if (!vmx_needs(VMCS_PRIMARY_CONTROLS, VMX_USE_MSR_BITMAPS))
		return false;
	vmx_set(VMCS_PRIMARY_CONTROLS, VMX_USE_MSR_BITMAPS);
	vmx_write(VMCS_MSR_BITMAP, vmx_page(VMX_PAGE_MSR_BITMAP));
	return true;
}

/* ---- memory ---- */

enum reach { BY_OPERAND, BY_STACK, BY_CR3, BY_GDT, BY_IDT, BY_TSS };

/* RBX and RSI are at FORBIDDEN, RDI and RDX at the operand; accesses as the exit qualification has them. */
static const struct {
	uint8_t code[16], length;
	enum reach reach;
	uint8_t access;
} ways[] = {
	{CODE(0x8a, 0x03), .reach = BY_OPERAND, .access = EPT_VIOLATION_READ},  /* MOV AL, [RBX] */
	{CODE(0x88, 0x03), .reach = BY_OPERAND, .access = EPT_VIOLATION_WRITE}, /* MOV [RBX], AL */
	{CODE(0xff, 0xe3), .reach = BY_OPERAND, .access = EPT_VIOLATION_FETCH}, /* JMP RBX */
	{CODE(0xf3, 0xa4), .reach = BY_OPERAND, .access = EPT_VIOLATION_READ},  /* REP MOVSB */
	{CODE(0x48, 0x87, 0xf7, 0xf3, 0xaa), .reach = BY_OPERAND,
	 .access = EPT_VIOLATION_WRITE},                                       /* XCHG RSI, RDI; REP STOSB */
	{CODE(0x48, 0xa5), .reach = BY_OPERAND, .access = EPT_VIOLATION_READ}, /* MOVSQ */
	{CODE(0x0f, 0x01, 0x13), .reach = BY_OPERAND, .access = EPT_VIOLATION_READ},  /* LGDT [RBX] */
	{CODE(0x0f, 0x01, 0x03), .reach = BY_OPERAND, .access = EPT_VIOLATION_WRITE}, /* SGDT [RBX] */
	{CODE(0x0f, 0x01, 0x23), .reach = BY_OPERAND, .access = EPT_VIOLATION_WRITE}, /* SMSW [RBX] */
	{CODE(0x0f, 0x00, 0x03), .reach = BY_OPERAND, .access = EPT_VIOLATION_WRITE}, /* SLDT [RBX] */
	{CODE(0x0f, 0x00, 0x13), .reach = BY_OPERAND, .access = EPT_VIOLATION_READ},  /* LLDT [RBX] */
	{CODE(0xff, 0x2b), .reach = BY_OPERAND, .access = EPT_VIOLATION_READ},        /* JMP far [RBX] */
	{CODE(0x0f, 0xae, 0x0b), .reach = BY_OPERAND, .access = EPT_VIOLATION_READ},  /* FXRSTOR [RBX] */
	{CODE(0x0f, 0xc3, 0x03), .reach = BY_OPERAND, .access = EPT_VIOLATION_WRITE}, /* MOVNTI [RBX], EAX */
	{CODE(0x0f, 0xae, 0x3b), .reach = BY_OPERAND, .access = EPT_VIOLATION_READ},  /* CLFLUSH [RBX] */
	{CODE(0xd9, 0x33), .reach = BY_OPERAND, .access = EPT_VIOLATION_WRITE},       /* FNSTENV [RBX] */
	{CODE(0x8e, 0x03), .reach = BY_OPERAND, .access = EPT_VIOLATION_READ},        /* MOV ES, [RBX] */
	{CODE(0x50), .reach = BY_STACK, .access = EPT_VIOLATION_WRITE},               /* PUSH RAX */
	{CODE(0x58), .reach = BY_STACK, .access = EPT_VIOLATION_READ},                /* POP RAX */
	{CODE(0xe8, 0, 0, 0, 0), .reach = BY_STACK, .access = EPT_VIOLATION_WRITE},   /* CALL */
	{CODE(0xc3), .reach = BY_STACK, .access = EPT_VIOLATION_READ},                /* RET */
	{CODE(0x48, 0xcf), .reach = BY_STACK, .access = EPT_VIOLATION_READ},          /* IRETQ */
	{CODE(0xc8, 0, 0, 0), .reach = BY_STACK, .access = EPT_VIOLATION_WRITE},      /* ENTER */
	{CODE(0x0f, 0x22, 0xdb), .reach = BY_CR3, .access = EPT_VIOLATION_READ},      /* MOV CR3, RBX */
	{CODE(0x8e, 0xc0), .reach = BY_GDT, .access = EPT_VIOLATION_READ},            /* MOV ES, EAX */
	{CODE(0x0f, 0x00, 0xd8), .reach = BY_GDT, .access = EPT_VIOLATION_READ},      /* LTR AX */
	{CODE(0x0f, 0x02, 0xc8), .reach = BY_GDT, .access = EPT_VIOLATION_READ},      /* LAR ECX, EAX */
	{CODE(0x0f, 0x00, 0xe0), .reach = BY_GDT, .access = EPT_VIOLATION_READ},      /* VERR AX */
	{CODE(0xcd, 0x41), .reach = BY_IDT, .access = EPT_VIOLATION_READ},            /* INT 41H */
	{CODE(0xcc), .reach = BY_IDT, .access = EPT_VIOLATION_READ},                  /* INT3 */
	{CODE(0xcd, 0x41), .reach = BY_TSS, .access = EPT_VIOLATION_READ},            /* INT 41H */
};
#define WAYS (sizeof(ways) / sizeof(ways[0]))
_Static_assert(WAYS == 31, "as many as suites/vmx/attack.def has");

static void reach(enum reach reach)
{
	vmx_registers[RBX] = vmx_registers[RSI] = FORBIDDEN + (reach == BY_CR3 ? 0 : 0x800);
	vmx_registers[RDI] = vmx_registers[RDX] = CASE_OPERAND;
	vmx_registers[RCX] = 4;
	vmx_registers[RAX] = CASE_SEL_DS32_0;
	if (reach == BY_STACK)
		vmx_write(VMCS_GUEST_RSP, FORBIDDEN + 0x1800);
	if (reach == BY_TSS)
		vmx_write(VMCS_GUEST_TR_BASE, FORBIDDEN);
	if (reach == BY_GDT)
		vmx_write(VMCS_GUEST_GDTR_BASE, FORBIDDEN);
	if (reach == BY_IDT)
		vmx_write(VMCS_GUEST_IDTR_BASE, FORBIDDEN);
}

static void fill(void) { machine_fill((void *)(uintptr_t)FORBIDDEN, FILLED, 8192); }

static bool filled(void)
{
	for (const uint8_t *p = (const uint8_t *)(uintptr_t)FORBIDDEN;
	     p < (const uint8_t *)(uintptr_t)FORBIDDEN + 8192; p++)
		if (*p != FILLED)
			return false;
	return true;
}

/* @index: the way. Each exits by an EPT violation, and has changed nothing there. */
STORY(attack_memory)
{
	unsigned n = (unsigned)GIVEN(index) % WAYS;
	uint64_t entry = FORBIDDEN | PTE_P | PTE_W | PTE_PS | PTE_A | PTE_D, physical;

	if (!vmx_baseline(MODE_LONG, 0, VMX_EPT))
		return;
	world_poke(CASE_PD + 8 * (FORBIDDEN >> 21), &entry, 8);
	if (vmx_can(VMCS_PRIMARY_CONTROLS, VMX_CR3_LOAD) &&
	    !(vmx_must_be_1(VMCS_PRIMARY_CONTROLS) & VMX_CR3_LOAD))
		vmx_clear(VMCS_PRIMARY_CONTROLS, VMX_CR3_LOAD);
	vmx_write(VMCS_EXCEPTION_BITMAP, 0);
	*vmx_ept_entry(2, FORBIDDEN) &= ~RIGHTS;
	fill();
	reach(ways[n].reach);
	vmx_code(ways[n].code, ways[n].length);
	check_run();
	vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_EPT_VIOLATION);
	physical = vmx_read(VMCS_GUEST_PHYSICAL_ADDRESS);
	story_check("physical", FORBIDDEN, physical & ~0x1fffull);
	/* Of what is not a plain access the manual may say that it reads as well. */
	story_check("access", ways[n].access, vmx_read(VMCS_EXIT_QUALIFICATION) & ways[n].access);
	story_check("rights", 0, vmx_read(VMCS_EXIT_QUALIFICATION) >> EPT_VIOLATION_RIGHTS_SHIFT & 7);
	story_check("in_delivery", ways[n].reach == BY_IDT || ways[n].reach == BY_TSS,
		    vmx_read(VMCS_IDT_VECTORING_INFO) >> 31);
	story_check("untouched", 1, filled());
	vmx_check_host();
	machine_fill((void *)(uintptr_t)FORBIDDEN, 0, 8192);
}

/* ---- registers ---- */

enum left {
	IS_HOSTS, /* vmx_check_host() */
	IS_GUESTS /* an MSR that exits leave alone */
};

#define WRMSR_OF(which) CODE(0x0f, 0x30), .msr = (which)

/* RAX, RDX: what WRMSR or MOV takes. */
static const struct {
	uint8_t code[12], length;
	uint32_t msr;
	uint64_t value;
	enum left left;
} changes[] = {
	{WRMSR_OF(MSR_SYSENTER_CS), .value = 0x7b, .left = IS_HOSTS},
	{WRMSR_OF(MSR_SYSENTER_ESP), .value = 0x123456789000, .left = IS_HOSTS},
	{WRMSR_OF(MSR_SYSENTER_EIP), .value = 0x123456789000, .left = IS_HOSTS},
	{WRMSR_OF(MSR_FS_BASE), .value = 0x123456789000, .left = IS_HOSTS},
	{WRMSR_OF(MSR_GS_BASE), .value = 0x123456789000, .left = IS_HOSTS},
	{WRMSR_OF(MSR_DEBUGCTL), .value = 2, .left = IS_HOSTS},
	{WRMSR_OF(MSR_EFER), .value = EFER_LME | EFER_LMA | EFER_SCE, .left = IS_HOSTS},
	{WRMSR_OF(MSR_KERNEL_GS_BASE), .value = 0x123456789000, .left = IS_GUESTS},
	{WRMSR_OF(MSR_STAR), .value = 0x123456789000, .left = IS_GUESTS},
	{WRMSR_OF(MSR_LSTAR), .value = 0x123456789000, .left = IS_GUESTS},
	{WRMSR_OF(MSR_CSTAR), .value = 0x123456789000, .left = IS_GUESTS},
	{WRMSR_OF(MSR_FMASK), .value = 0x12345, .left = IS_GUESTS},
	{WRMSR_OF(MSR_PAT), .value = 0x0007040600070400, .left = IS_GUESTS},
	{CODE(0x0f, 0x22, 0xc0),
	 .value = CR0_PE | CR0_PG | CR0_NE | CR0_ET | CR0_TS | CR0_EM},          /* MOV CR0, RAX */
	{CODE(0x0f, 0x22, 0xe0), .value = CR4_PAE | CR4_TSD | CR4_DE | CR4_PCE}, /* MOV CR4, RAX */
	{CODE(0x0f, 0x23, 0xf8), .value = 0x402},                                /* MOV DR7, RAX */
	{CODE(0x50, 0x9d),
	 .value = RFLAGS_FIXED | RFLAGS_IF | RFLAGS_NT | RFLAGS_AC | RFLAGS_DF | RFLAGS_IOPL}, /* POPFQ */
	{CODE(0x0f, 0x01, 0x13), .value = 0},                               /* LGDT [RBX] */
	{CODE(0x0f, 0x01, 0x1b), .value = 0},                               /* LIDT [RBX] */
	{CODE(0x0f, 0x00, 0xd0), .value = CASE_SEL_LDT},                    /* LLDT AX */
	{CODE(0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xe0, 0x8e, 0xe8), .value = 0}, /* DS, ES, FS, GS */
};
#define CHANGES (sizeof(changes) / sizeof(changes[0]))
_Static_assert(CHANGES == 21, "as many as suites/vmx/attack.def has");

/* A breakpoint of the guest's on the host's next instruction. */
extern const uint8_t vmx_exited[];

STORY(attack_registers)
{
	unsigned n = (unsigned)GIVEN(index) % CHANGES;
	uint64_t value = changes[n].value, before = 0;
	struct table_pointer table = {.limit = 7, .base = 0x1000};

	if (!vmx_baseline(MODE_LONG, 0, VMX_BARE) || !use_bitmaps())
		return;
	if (changes[n].msr - MSR_SYSENTER_CS < 3 && !story_needs(machine.sysenter, "cpuid.1.0.edx[11]=0"))
		return;
	vmx_write(VMCS_CR4_MASK, 0);
	if (changes[n].code[1] == 0x22)
		value |= changes[n].code[2] == 0xe0 ? CR4_VMXE : 0;
	world_poke(CASE_OPERAND, &table, 10);
	exchange.in.field[STATE_dr0] = (uintptr_t)vmx_exited;
	if (changes[n].left == IS_GUESTS)
		before = machine_read_msr(changes[n].msr);
	vmx_registers[RBX] = CASE_OPERAND;
	vmx_registers[RCX] = changes[n].msr;
	vmx_registers[RAX] = changes[n].msr ? (uint32_t)value : value;
	vmx_registers[RDX] = value >> 32;
	vmx_write(VMCS_EXCEPTION_BITMAP, 0xffffffff);
	vmx_code(changes[n].code, changes[n].length);
	check_run();
	vmx_check_exit(VMX_EXIT_VMCALL, 0, 3);
	vmx_check_host();
	story_check("breakpoints", 0, story_count(VECTOR_DB));
	if (changes[n].left == IS_GUESTS) {
		story_check("left", value, machine_read_msr(changes[n].msr));
		machine_write_msr(changes[n].msr, before);
	}
}

/* What else exits leave as the guest made it: @index 0: CR2, 1: CR8, 2: DR6, 3: PKRU, 4: DR3. */
STORY(attack_left)
{
	unsigned which = (unsigned)GIVEN(index);
	uint64_t got = 0, want = 0;

	if (!vmx_baseline(MODE_LONG, 0, VMX_BARE))
		return;
	if (which == 3 && !story_needs(machine.pku, "cpuid.7.0.ecx[3]=0"))
		return;
	vmx_registers[RAX] = want = which == 1   ? 5
				    : which == 2 ? 0xffff0ff1
				    : which == 3 ? 0x55555550
						 : 0x12345678;
	vmx_registers[RCX] = vmx_registers[RDX] = 0;
	switch (which) {
	case 0: VMX_CODE(0x0f, 0x22, 0xd0); break;
	case 1: VMX_CODE(0x44, 0x0f, 0x22, 0xc0); break;
	case 2: VMX_CODE(0x0f, 0x23, 0xf0); break;
	case 3:
		vmx_write(VMCS_GUEST_CR4, vmx_read(VMCS_GUEST_CR4) | CR4_PKE);
		VMX_CODE(0x0f, 0x01, 0xef);
		break;
	default: VMX_CODE(0x0f, 0x23, 0xd8); break;
	}
	check_run();
	vmx_check_exit(VMX_EXIT_VMCALL, 0, 3);
	switch (which) {
	case 0: got = machine_read_cr2(); break;
	case 1:
		got = machine_read_cr8();
		machine_write_cr8(0);
		break;
	case 2: got = machine_read_dr6(); break;
	case 3: __asm__ volatile("rdpkru" : "=a"(got) : "c"(0) : "rdx"); break;
	default: __asm__ volatile("mov %%dr3, %0" : "=r"(got)); break;
	}
	story_check("left", want, got);
}

/* ---- what it was not given ---- */

/*
 * @index 0: OUT to the interrupt controller's mask; 1: CMOS' address; 2: PCI's; 3: WRMSR of the x2APIC's ICR;
 * 4: of the TSC's deadline; 5: of IA32_APIC_BASE; 6: of IA32_FEATURE_CONTROL, with no exit: it is locked; 7:
 * of a capability MSR, with none; 8: of IA32_TSC; 9: the APIC's page, which is virtualized.
 */
STORY(attack_devices)
{
	static const uint32_t msrs[] = {0, 0, 0, 0x830, 0x6e0, APIC_BASE_MSR, 0x3a, 0x480, 0x10};
	static const uint16_t ports[] = {0x21, 0x70, 0xcf8};
	unsigned which = (unsigned)GIVEN(index);
	uint64_t before, base;

	if (!story_has_apic() || !vmx_baseline(MODE_LONG, 0, VMX_BARE))
		return;
	apic_enable(0xff);
	before = machine_in8(0x21);
	base = machine_read_msr(APIC_BASE_MSR);
	vmx_registers[RAX] = which == 3 ? ICR_SELF | ICR_ASSERT | 0x45u : which == 5 ? 0 : 0x5a;
	vmx_registers[RDX] = which < 3 ? ports[which] : 0;
	vmx_registers[RCX] = which < 9 ? msrs[which] : 0;
	if (which < 3) {
		vmx_set(VMCS_PRIMARY_CONTROLS, VMX_UNCONDITIONAL_IO);
		if (which == 2)
			VMX_CODE(0xef); /* OUT DX, EAX */
		else
			VMX_CODE(0xee);
	} else if (which == 9) {
		if (!vmx_needs(VMCS_SECONDARY_CONTROLS, VMX2_VIRTUALIZE_APIC))
			return;
		vmx_set(VMCS_SECONDARY_CONTROLS, VMX2_VIRTUALIZE_APIC);
		vmx_write(VMCS_APIC_ACCESS, vmx_page(VMX_PAGE_APIC_ACCESS));
		vmx_registers[RBX] = vmx_page(VMX_PAGE_APIC_ACCESS) + APIC_ICR;
		vmx_registers[RAX] = ICR_SELF | ICR_ASSERT | 0x45u;
		VMX_CODE(0x89, 0x03);
	} else {
		if (which >= 6 && which < 8 && !use_bitmaps())
			return;
		VMX_CODE(0x0f, 0x30);
	}
	check_run();
	vmx_check_field(VMCS_GUEST_RIP, CASE_STUB);
	if (which == 6 || which == 7)
		story_check("vector", VECTOR_GP, vmx_read(VMCS_EXIT_INTERRUPTION_INFO) & 0xff);
	vmx_check_field(VMCS_EXIT_REASON, which < 3                  ? VMX_EXIT_IO
					  : which == 9               ? VMX_EXIT_APIC_ACCESS
					  : which == 6 || which == 7 ? VMX_EXIT_EXCEPTION_NMI
								     : VMX_EXIT_WRMSR);
	story_check("mask", before, machine_in8(0x21));
	story_check("apic_base", base, machine_read_msr(APIC_BASE_MSR));
	story_check("no_interrupt", 0, apic_bit(APIC_IRR, 0x45));
	story_check("feature_control", 5, machine_read_msr(0x3a) & 5);
}
