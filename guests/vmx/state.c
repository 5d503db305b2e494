/*
 * state.c: what VM entry loads, field by field, as the guest itself finds it (27.3.2); monitors that entries
 * and exits clear (27.3.3, 28.5.6); unrestricted guests between their modes (26.6); accesses to the APIC's
 * page in their place among faults, and those that are not of linear addresses (30.4.1, 30.4.4, 30.4.6).
 */
#include "lib/exchange.h"
#include "lib/machine.h"
#include "lib/story.h"
#include "lib/vmx_world.h"
#include "lib/world.h"
#include "x86/case_layout.h"
#include "x86/paging.h"
#include "x86/vectors.h"

#include "vmx/vmx.h"

#define TARGET    (CASE_OPERAND_PAGE2 + 0x400u)
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

/* ---- what VM entry loads ---- */

/* RAX is what the guest found; @msr: by RDMSR; @memory: bytes of the operand. */
static const struct loaded {
	uint8_t code[12], length, memory;
	uint32_t field, msr;
	uint64_t value, mask;
} loaded[] = {
	{CODE(0x0f, 0x20, 0xc0), .field = VMCS_GUEST_CR0,
	 .value = CR0_PE | CR0_PG | CR0_NE | CR0_ET | CR0_MP | CR0_WP},
	{CODE(0x0f, 0x20, 0xc0), .field = VMCS_GUEST_CR0,
	 .value = CR0_PE | CR0_PG | CR0_NE | CR0_ET | CR0_TS | CR0_AM | CR0_EM},
	{CODE(0x0f, 0x20, 0xe0), .field = VMCS_GUEST_CR4,
	 .value = CR4_PAE | CR4_VMXE | CR4_TSD | CR4_DE | CR4_PCE},
	{CODE(0x0f, 0x20, 0xd8), .field = VMCS_GUEST_CR3, .value = CASE_CR3_LONG | 0x18},
	{CODE(0x0f, 0x21, 0xf8), .field = VMCS_GUEST_DR7, .value = 0x455},
	{CODE(0x48, 0x89, 0xe0), .field = VMCS_GUEST_RSP, .value = CASE_STACK - 0x48},
	{CODE(0x9c, 0x58), .field = VMCS_GUEST_RFLAGS,
	 .value = RFLAGS_FIXED | RFLAGS_CF | RFLAGS_OF | RFLAGS_AC | RFLAGS_ID | RFLAGS_IOPL | RFLAGS_NT |
		  RFLAGS_DF},
	{CODE(0x0f, 0x01, 0x03), .field = VMCS_GUEST_GDTR_BASE, .value = CASE_GDT + 0x10, .memory = 2},
	{CODE(0x0f, 0x01, 0x0b), .field = VMCS_GUEST_IDTR_BASE, .value = 0xffff800012345678, .memory = 2},
	{CODE(0x0f, 0x01, 0x03), .field = VMCS_GUEST_GDTR_LIMIT, .value = 0x1234, .mask = 0xffff,
	 .memory = 1},
	{CODE(0x0f, 0x01, 0x0b), .field = VMCS_GUEST_IDTR_LIMIT, .value = 0xfedc, .mask = 0xffff,
	 .memory = 1},
	{CODE(0x8c, 0xc0), .field = VMCS_GUEST_ES, .value = 0x5670, .mask = 0xffff},
	{CODE(0x8c, 0xd8), .field = VMCS_GUEST_DS, .value = 0x5670, .mask = 0xffff},
	{CODE(0x8c, 0xe0), .field = VMCS_GUEST_FS, .value = 0x5670, .mask = 0xffff},
	{CODE(0x8c, 0xe8), .field = VMCS_GUEST_GS, .value = 0x5670, .mask = 0xffff},
	{CODE(0x8c, 0xc8), .field = VMCS_GUEST_CS, .value = 0x5670, .mask = 0xffff},
	{CODE(0x8c, 0xd0), .field = VMCS_GUEST_SS, .value = 0x5670, .mask = 0xffff},
	{CODE(0x0f, 0x00, 0xc8), .field = VMCS_GUEST_TR, .value = 0x5670, .mask = 0xffff},
	{CODE(0x0f, 0x00, 0xc0), .field = VMCS_GUEST_LDTR, .value = 0x5670, .mask = 0xffff},
	{CODE(0x64, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0), .field = VMCS_GUEST_FS_BASE, .value = CASE_OPERAND,
	 .memory = 3},
	{CODE(0x65, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0), .field = VMCS_GUEST_GS_BASE, .value = CASE_OPERAND,
	 .memory = 3},
	{.field = VMCS_GUEST_SYSENTER_CS, .msr = MSR_SYSENTER_CS, .value = 0x12345678},
	{.field = VMCS_GUEST_SYSENTER_ESP, .msr = MSR_SYSENTER_ESP, .value = 0xffff812345678900},
	{.field = VMCS_GUEST_SYSENTER_EIP, .msr = MSR_SYSENTER_EIP, .value = 0x00007ffffffffff0},
	{.field = VMCS_GUEST_FS_BASE, .msr = MSR_FS_BASE, .value = 0xffff812345678900},
	{.field = VMCS_GUEST_GS_BASE, .msr = MSR_GS_BASE, .value = 0x00007ffffffffff0},
	{.field = VMCS_GUEST_EFER, .msr = MSR_EFER, .value = EFER_LMA | EFER_LME | EFER_SCE},
	{.field = VMCS_GUEST_PAT, .msr = MSR_PAT, .value = 0x0007010600070406},
	{.field = VMCS_GUEST_DEBUGCTL, .msr = MSR_DEBUGCTL, .value = 2},
};
#define LOADED_FIELDS (sizeof(loaded) / sizeof(loaded[0]))
_Static_assert(LOADED_FIELDS == 29, "as many as suites/vmx/state.def has");

/* Whether the entry loads it: with its control, which @mode 1 leaves off. */
static bool has_control(uint32_t field, bool off)
{
	uint32_t bit = field == VMCS_GUEST_EFER  ? VMX_ENTRY_LOAD_EFER
		       : field == VMCS_GUEST_PAT ? VMX_ENTRY_LOAD_PAT
						 : VMX_ENTRY_LOAD_DEBUG;

	if (off) {
		if (!vmx_needs_clear(VMCS_ENTRY_CONTROLS, bit))
			return false;
		vmx_clear(VMCS_ENTRY_CONTROLS, bit);
		return true;
	}
	if (field != VMCS_GUEST_EFER && field != VMCS_GUEST_PAT)
		return true;
	if (!vmx_needs(VMCS_ENTRY_CONTROLS, bit))
		return false;
	vmx_set(VMCS_ENTRY_CONTROLS, bit);
	return true;
}

/* The value that is there without the load: the host's. */
static uint64_t without(uint32_t field)
{
	if (field == VMCS_GUEST_DR7)
		return 0x400;
	if (field == VMCS_GUEST_DEBUGCTL)
		return 0;
	return machine_read_msr(field == VMCS_GUEST_EFER ? MSR_EFER : MSR_PAT);
}

/* @index: the field; @mode 1: without the control that loads it: it stays as the host's. */
STORY(entry_loads)
{
	const struct loaded *l = &loaded[GIVEN(index) % LOADED_FIELDS];
	uint64_t want = GIVEN(mode) ? without(l->field) : l->value, got;

	if (!vmx_baseline(MODE_LONG, 0, VMX_BARE) || !has_control(l->field, GIVEN(mode)))
		return;
	if (l->msr && !use_bitmaps())
		return;
	if (l->msr - MSR_SYSENTER_CS < 3 && !story_needs(machine.sysenter, "cpuid.1.0.edx[11]=0"))
		return;
	vmx_write(VMCS_CR4_MASK, 0);
	vmx_write(l->field, l->value);
	if (l->field == VMCS_GUEST_RFLAGS || l->field == VMCS_GUEST_DR7) { /* the library's own copy */
		exchange.in.field[l->field == VMCS_GUEST_DR7 ? STATE_dr7 : STATE_rflags] = l->value;
	}
	if (l->field == VMCS_GUEST_LDTR) {
		vmx_write(VMCS_GUEST_LDTR_RIGHTS, 0x82);
		vmx_write(VMCS_GUEST_LDTR_LIMIT, 0xff);
	}
	world_poke(CASE_OPERAND, &(uint64_t){0x5aa55aa512345678}, 8);
	vmx_registers[RAX] = vmx_registers[RDX] = 0;
	vmx_registers[RBX] = CASE_OPERAND;
	vmx_registers[RCX] = l->msr;
	if (l->msr)
		VMX_CODE(0x0f, 0x32);
	else
		vmx_code(l->code, l->length);
	check_run();
	vmx_check_exit(VMX_EXIT_VMCALL, 0, 3);
	got = vmx_registers[RAX];
	if (l->msr)
		got = (uint32_t)got | vmx_registers[RDX] << 32;
	if (l->memory == 1)
		got = *(volatile uint16_t *)(uintptr_t)CASE_OPERAND;
	if (l->memory == 2)
		machine_copy(&got, (const void *)(uintptr_t)(CASE_OPERAND + 2), 8);
	if (l->memory == 3)
		want = 0x5aa55aa512345678;
	world_accept(CASE_OPERAND, 16);
	story_check("found", want, l->mask ? got & l->mask : got);
}

/* ---- PDPTEs (27.3.2.4): @mode 0: from memory; 1: with EPT from the VMCS, whatever memory holds ---- */

STORY(entry_loads_pdptes)
{
	bool ept = GIVEN(mode);
	uint64_t first = CASE_PD | PTE_P, zero = 0;
	uint64_t *in = exchange.in.field;

	if (!vmx_begin() || !vmx_needs_mode(MODE_PROT32, ept ? VMX_EPT : VMX_BARE))
		return;
	vmx_world_prepare(MODE_PROT32, 0);
	vmx_load_host();
	vmx_load_controls(MODE_PROT32, ept ? VMX_EPT : VMX_BARE);
	in[STATE_cr4] |= CR4_PAE;
	in[STATE_cr3] = CASE_CR3_PAE;
	for (unsigned n = 0; n < 4; n++)
		world_poke(CASE_CR3_PAE + 8 * n, n || ept ? &zero : &first, 8);
	if (ept) {
		vmx_write(VMCS_GUEST_PDPTE0, first);
		for (unsigned n = 1; n < 4; n++)
			vmx_write(VMCS_GUEST_PDPTE0 + 2 * n, 0);
	}
	vmx_load_guest(MODE_PROT32);
	VMX_CODE(0x90, 0x90);
	check_run();
	vmx_check_exit(VMX_EXIT_VMCALL, 0, 3);
	if (ept) {
		vmx_check_field(VMCS_GUEST_PDPTE0, first);
		/* MOV to CR3 loads them from memory, and the exit saves those. */
		if (!vmx_needs_clear(VMCS_PRIMARY_CONTROLS, VMX_CR3_LOAD))
			return;
		vmx_clear(VMCS_PRIMARY_CONTROLS, VMX_CR3_LOAD | VMX_CR3_STORE);
		world_poke(CASE_CR3_PAE, &first, 8);
		first |= 1ull << 9; /* ignored */
		world_poke(CASE_CR3_PAE, &first, 8);
		VMX_CODE(0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8); /* MOV EAX, CR3; MOV CR3, EAX */
		vmx_write(VMCS_GUEST_RIP, CASE_STUB);
		check_run();
		vmx_check_exit(VMX_EXIT_VMCALL, 0, 3);
		vmx_check_field(VMCS_GUEST_PDPTE0, first);
	}
}

/* ---- address-range monitors: MWAIT's qualification says whether one is armed ---- */

/* @mode 0: armed by the guest; 1: by the guest, and an exit and an entry; 2: by the host before the entry; 3:
 * by the guest before the exit, and the host waits, which returns at once. */
STORY(monitors)
{
	unsigned mode = (unsigned)GIVEN(mode);

	if (!vmx_baseline(MODE_LONG, 0, VMX_BARE) ||
	    !story_needs(vmx_has_cpuid(1, 2, 3), "cpuid.1.0.ecx[3]=0"))
		return;
	vmx_set(VMCS_PRIMARY_CONTROLS, VMX_MWAIT);
	vmx_registers[RAX] = CASE_OPERAND;
	vmx_registers[RCX] = vmx_registers[RDX] = 0;
	if (mode == 2) {
		__asm__ volatile("monitor" : : "a"((uintptr_t)CASE_OPERAND), "c"(0), "d"(0));
		VMX_CODE(0x0f, 0x01, 0xc9);
	} else if (mode == 1 || mode == 3) {
		VMX_CODE(0x0f, 0x01, 0xc8, 0x0f, 0x01, 0xc1, 0x0f, 0x01, 0xc9); /* MONITOR; VMCALL; MWAIT */
		check_run();
		vmx_check_exit(VMX_EXIT_VMCALL, 0, 3);
		if (mode == 3) {
			__asm__ volatile("mwait" : : "a"(0), "c"(0));
			return;
		}
		vmx_write(VMCS_GUEST_RIP, CASE_STUB + 6);
	} else {
		VMX_CODE(0x0f, 0x01, 0xc8, 0x0f, 0x01, 0xc9);
	}
	check_run();
	vmx_check_exit(VMX_EXIT_MWAIT, mode == 0, 3);
}

/* ---- unrestricted guests (26.6) ---- */

#define CR0_REST (CR0_NE | CR0_ET)

/*
 * @mode 0: CR0.PG = 0; 1: PE and PG = 0; 2: PG = 0 and 1 again; 3: into IA-32e mode, which the VM-entry
 * controls tell behind the exit; 4: a reserved combination is #GP as ever; 5: CR0.NE stays fixed. The guest
 * is in 32-bit protected mode.
 */
STORY(unrestricted)
{
	static const uint32_t ends[] = {CR0_PE,         0, CR0_PE | CR0_PG, CR0_PE | CR0_PG, CR0_PE | CR0_PG,
					CR0_PE | CR0_PG};
	unsigned mode = (unsigned)GIVEN(mode);
	uint64_t cr0;

	if (!vmx_baseline(MODE_PROT32, 0, VMX_EPT | VMX_UNRESTRICTED))
		return;
	if (mode == 3) {
		if (!vmx_needs(VMCS_ENTRY_CONTROLS, VMX_ENTRY_LOAD_EFER))
			return;
		vmx_set(VMCS_ENTRY_CONTROLS, VMX_ENTRY_LOAD_EFER);
		vmx_write(VMCS_GUEST_EFER, EFER_LME);
		vmx_write(VMCS_GUEST_CR0, vmx_read(VMCS_GUEST_CR0) & ~(uint64_t)CR0_PG);
		vmx_write(VMCS_GUEST_CR4, vmx_read(VMCS_GUEST_CR4) | CR4_PAE);
		vmx_write(VMCS_GUEST_CR3, CASE_CR3_LONG);
	}
	cr0 = vmx_read(VMCS_GUEST_CR0);
	vmx_registers[RAX] = (cr0 & ~(uint64_t)(CR0_PE | CR0_PG)) | (mode == 2 ? CR0_PE : ends[mode]);
	if (mode == 4)
		vmx_registers[RAX] &= ~(uint64_t)CR0_PE;
	if (mode == 5)
		vmx_registers[RAX] &= ~(uint64_t)CR0_NE;
	vmx_registers[RCX] = cr0;
	if (mode == 2)
		VMX_CODE(0x0f, 0x22, 0xc0, 0x0f, 0x22, 0xc1); /* MOV CR0, EAX; MOV CR0, ECX */
	else
		VMX_CODE(0x0f, 0x22, 0xc0);
	check_run();
	if (mode > 3) {
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_EXCEPTION_NMI);
		story_check("vector", VECTOR_GP, vmx_read(VMCS_EXIT_INTERRUPTION_INFO) & 0xff);
		vmx_check_field(VMCS_GUEST_CR0, cr0);
		return;
	}
	vmx_check_exit(VMX_EXIT_VMCALL, 0, 3);
	story_check("cr0", ends[mode], vmx_read(VMCS_GUEST_CR0) & (CR0_PE | CR0_PG));
	story_check("ia32e", mode == 3 ? VMX_ENTRY_IA32E : 0,
		    vmx_read(VMCS_ENTRY_CONTROLS) & VMX_ENTRY_IA32E);
	if (mode == 3)
		vmx_check_field(VMCS_GUEST_EFER, EFER_LME | EFER_LMA);
}

/* ---- accesses to the APIC's page ---- */

static bool begin_apic(unsigned with, uint64_t access)
{
	if (!vmx_baseline(MODE_LONG, 0, with) || !vmx_needs(VMCS_PRIMARY_CONTROLS, VMX_TPR_SHADOW) ||
	    !vmx_needs(VMCS_SECONDARY_CONTROLS, VMX2_VIRTUALIZE_APIC))
		return false;
	vmx_set(VMCS_PRIMARY_CONTROLS, VMX_TPR_SHADOW);
	vmx_set(VMCS_SECONDARY_CONTROLS, VMX2_VIRTUALIZE_APIC);
	vmx_write(VMCS_VIRTUAL_APIC, vmx_page(VMX_PAGE_VIRTUAL_APIC));
	vmx_write(VMCS_APIC_ACCESS, access);
	vmx_write(VMCS_TPR_THRESHOLD, 0);
	vmx_registers[RBX] = TARGET & ~0xfffu;
	vmx_registers[RAX] = 0x30;
	return true;
}

/*
 * 30.4.1: @mode 0: a page that is not present is #PF; 1: one that cannot be written is; 2: an EPT violation
 * comes first; 3: of a user-mode page that is not the exit comes; 4: a #GP of a non-canonical address. Then
 * without: the exit.
 */
STORY(apic_access_order)
{
	unsigned mode = (unsigned)GIVEN(mode);
	uint64_t pte;
	uint32_t vector = mode == 4 ? VECTOR_GP : VECTOR_PF;

	if (!begin_apic(mode == 2 ? VMX_EPT : VMX_BARE, TARGET & ~0xfffu))
		return;
	if (mode < 2) {
		pte = mode ? (*(const uint64_t *)(uintptr_t)CASE_PTE_LONG(TARGET) & ~(uint64_t)PTE_W) : 0;
		world_poke(CASE_PTE_LONG(TARGET), &pte, 8);
		vmx_write(VMCS_GUEST_CR0, vmx_read(VMCS_GUEST_CR0) | CR0_WP);
	}
	if (mode == 2)
		*vmx_ept_entry(1, TARGET) &= ~(uint64_t)EPT_WRITE;
	if (mode == 4)
		vmx_registers[RBX] = 0x800000000000;
	VMX_CODE(0x89, 0x43, 0x20); /* MOV [RBX + 20H], EAX */
	check_run();
	if (mode == 2) {
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_EPT_VIOLATION);
	} else if (mode == 3) {
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_APIC_ACCESS);
		vmx_check_field(VMCS_EXIT_QUALIFICATION, 0x20 | 1 << 12);
	} else {
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_EXCEPTION_NMI);
		story_check("vector", vector, vmx_read(VMCS_EXIT_INTERRUPTION_INFO) & 0xff);
	}
	vmx_check_field(VMCS_GUEST_RIP, CASE_STUB);
}

/* 30.4.4: PREFETCHh of the page causes no exit. @mode: T0, T1, T2, NTA. */
STORY(apic_prefetch)
{
	if (!begin_apic(VMX_BARE, TARGET & ~0xfffu))
		return;
	VMX_CODE(0x0f, 0x18, (uint8_t)(0x03 | (GIVEN(mode) & 3) << 3));
	check_run();
	vmx_check_exit(VMX_EXIT_VMCALL, 0, 3);
}

/*
 * 30.4.6.1: with EPT, an access to the guest's tables on the APIC's page exits, whatever its offset: @mode 0:
 * the page table; 1: its PML4; 2: and an EPT violation of the same comes first.
 */
STORY(apic_guest_physical)
{
	unsigned mode = (unsigned)GIVEN(mode);
	uint32_t table = mode == 1 ? CASE_CR3_LONG : CASE_PT;

	if (!begin_apic(VMX_EPT, table & ~0xfffu))
		return;
	if (mode == 2)
		*vmx_ept_entry(1, table) &= ~RIGHTS;
	VMX_CODE(0x90);
	check_run();
	if (mode == 2) {
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_EPT_VIOLATION);
		return;
	}
	vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_APIC_ACCESS);
	story_check("type", 15, vmx_read(VMCS_EXIT_QUALIFICATION) >> 12 & 15);
	vmx_check_field(VMCS_GUEST_RIP, CASE_STUB);
}
