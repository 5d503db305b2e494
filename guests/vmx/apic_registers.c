/*
 * apic_registers.c: each register of the APIC-access page by each form of access and under each set of controls, the TPR threshold by each
 * way to write it, and virtual interrupts in each state of the guest (SDM 3C 30.1, 30.2, 30.4).
 */
#include "lib/apic.h"
#include "lib/exchange.h"
#include "lib/machine.h"
#include "lib/story.h"
#include "lib/vmx_world.h"
#include "lib/world.h"
#include "x86/case_layout.h"
#include "x86/vectors.h"

static uint32_t *reg(unsigned offset) { return vmx_at(VMX_PAGE_VIRTUAL_APIC, offset); }
static void set_bit(unsigned first, unsigned vector) { *reg(first + vector / 32 * 16) |= 1u << vector % 32; }
static bool bit(unsigned first, unsigned vector) { return *reg(first + vector / 32 * 16) >> vector % 32 & 1; }

static bool begin(uint32_t secondary)
{
	if (!vmx_baseline(MODE_LONG, 0, VMX_BARE) || !vmx_needs(VMCS_PRIMARY_CONTROLS, VMX_TPR_SHADOW) || !vmx_needs(VMCS_SECONDARY_CONTROLS, secondary))
		return false;
	vmx_set(VMCS_PRIMARY_CONTROLS, VMX_TPR_SHADOW);
	vmx_set(VMCS_SECONDARY_CONTROLS, secondary);
	if (secondary & VMX2_VIRTUAL_INTERRUPTS) {
		vmx_write(VMCS_GUEST_INTERRUPT_STATUS, 0);
		for (unsigned i = 0; i < 4; i++)
			vmx_write(VMCS_EOI_EXIT_0 + 2 * i, 0);
	}
	vmx_write(VMCS_VIRTUAL_APIC, vmx_page(VMX_PAGE_VIRTUAL_APIC));
	vmx_write(VMCS_APIC_ACCESS, vmx_page(VMX_PAGE_APIC_ACCESS));
	vmx_write(VMCS_TPR_THRESHOLD, 0);
	vmx_set(VMCS_PRIMARY_CONTROLS, VMX_USE_MSR_BITMAPS);
	vmx_write(VMCS_MSR_BITMAP, vmx_page(VMX_PAGE_MSR_BITMAP));
	return true;
}

/* ---- each register ---- */

enum { SHADOW, REGISTERS = 1, VIRTUAL = 2 }; /* bits of the controls */

/* 30.4.2, 30.4.3.1. */
static bool is_listed(unsigned base, bool write)
{
	switch (base) {
	case 0x020:
	case 0x080:
	case 0x0b0:
	case 0x0d0:
	case 0x0e0:
	case 0x0f0:
	case 0x280:
	case 0x300:
	case 0x310:
	case 0x320:
	case 0x330:
	case 0x340:
	case 0x350:
	case 0x360:
	case 0x370:
	case 0x380:
	case 0x3e0: return true;
	default: return !write && (base == 0x030 || (base >= 0x100 && base < 0x280));
	}
}

static bool is_virtualized(unsigned base, unsigned at, unsigned size, bool write, unsigned with)
{
	if (at + size > 4)
		return false;
	if (with & REGISTERS)
		return is_listed(base, write);
	if (at)
		return false;
	return base == 0x080 || (write && with & VIRTUAL && (base == 0x0b0 || base == 0x300));
}

/* [RBX], and what it does. RAX holds a value without bits where they matter. */
static const struct form {
	uint8_t code[5], length, at, size;
	bool reads, writes;
} forms[] = {
	{{0x8b, 0x03}, 2, 0, 4, true, false},                    /* MOV EAX, [RBX] */
	{{0x66, 0x8b, 0x03}, 3, 0, 2, true, false},
	{{0x8a, 0x03}, 2, 0, 1, true, false},
	{{0x8a, 0x43, 0x01}, 3, 1, 1, true, false},
	{{0x8a, 0x43, 0x03}, 3, 3, 1, true, false},
	{{0x66, 0x8b, 0x43, 0x02}, 4, 2, 2, true, false},
	{{0x66, 0x8b, 0x43, 0x03}, 4, 3, 2, true, false},
	{{0x8b, 0x43, 0x04}, 3, 4, 4, true, false},
	{{0x48, 0x8b, 0x03}, 3, 0, 8, true, false},
	{{0x85, 0x03}, 2, 0, 4, true, false},                    /* TEST [RBX], EAX */
	{{0x0f, 0xb6, 0x03}, 3, 0, 1, true, false},              /* MOVZX EAX, [RBX] */
	{{0x89, 0x03}, 2, 0, 4, false, true},                    /* MOV [RBX], EAX */
	{{0x66, 0x89, 0x03}, 3, 0, 2, false, true},
	{{0x88, 0x03}, 2, 0, 1, false, true},
	{{0x88, 0x43, 0x01}, 3, 1, 1, false, true},
	{{0x66, 0x89, 0x43, 0x03}, 4, 3, 2, false, true},
	{{0x89, 0x43, 0x0c}, 3, 12, 4, false, true},
	{{0x48, 0x89, 0x03}, 3, 0, 8, false, true},
	{{0x09, 0x03}, 2, 0, 4, true, true},                     /* OR [RBX], EAX */
	{{0x87, 0x03}, 2, 0, 4, true, true},                     /* XCHG [RBX], EAX */
	{{0xf0, 0x09, 0x03}, 3, 0, 4, true, true},               /* LOCK OR */
};
#define FORMS (sizeof(forms) / sizeof(forms[0]))

#define OLD 0x11223344u

/* The write is emulated behind the instruction: by TPR, EOI or self-IPI virtualization, or an exit. */
static bool write_exits(unsigned base, unsigned at, unsigned with)
{
	if (base == 0x310) /* and its bytes */
		return false;
	return at || !(base == 0x080 || (base == 0x0b0 && with & VIRTUAL));
}

static void check_form(const struct form *f, unsigned form, unsigned base, unsigned with)
{
	bool runs = (!f->reads || is_virtualized(base, f->at, f->size, false, with)) && (!f->writes || is_virtualized(base, f->at, f->size, true, with));

	if (!runs) {
		story_check_at("reason", form, VMX_EXIT_APIC_ACCESS, vmx_reason());
		story_check_at("qualification", form, (base + f->at) | (f->writes ? 1u << 12 : 0), vmx_read(VMCS_EXIT_QUALIFICATION));
		story_check_at("rip", form, CASE_STUB, vmx_read(VMCS_GUEST_RIP));
		if (base != 0x0a0) /* VPPR is the processor's */
			story_check_at("unchanged", form, OLD, *reg(base));
	} else if (f->writes && write_exits(base, f->at, with)) {
		story_check_at("reason", form, VMX_EXIT_APIC_WRITE, vmx_reason());
		story_check_at("qualification", form, base + f->at, vmx_read(VMCS_EXIT_QUALIFICATION));
		story_check_at("rip", form, CASE_STUB + f->length, vmx_read(VMCS_GUEST_RIP));
	} else {
		story_check_at("reason", form, VMX_EXIT_VMCALL, vmx_reason());
		if (f->reads && !f->writes && form < 5)
			story_check_at("read", form, OLD >> 8 * f->at & (f->size == 4 ? ~0u : (1u << 8 * f->size) - 1),
				       vmx_registers[RAX] & (f->size == 4 ? ~0u : (1u << 8 * f->size) - 1));
		if (f->writes && base == 0x080)
			story_check_at("bytes_3_to_1", form, 0, *reg(base) >> 8);
		if (f->writes && base == 0x310)
			story_check_at("bytes_2_to_0", form, 0, *reg(base) << 8);
		if (f->writes && base == 0x0b0)
			story_check_at("eoi", form, 0, *reg(base));
	}
}

/* @index: the register, a multiple of 16; @mode: controls besides the TPR shadow and the page itself. */
STORY(vapic_register)
{
	static const uint32_t controls[] = {0, VMX2_APIC_REGISTERS, VMX2_VIRTUAL_INTERRUPTS, VMX2_APIC_REGISTERS | VMX2_VIRTUAL_INTERRUPTS};
	unsigned base = (unsigned)GIVEN(index), with = (unsigned)GIVEN(mode);

	if (!begin(VMX2_VIRTUALIZE_APIC | controls[with]))
		return;
	for (unsigned form = 0; form < FORMS; form++) {
		*reg(base) = OLD;
		vmx_code(forms[form].code, forms[form].length);
		vmx_registers[RBX] = vmx_page(VMX_PAGE_APIC_ACCESS) + base;
		vmx_registers[RAX] = 0;
		vmx_write(VMCS_GUEST_RIP, CASE_STUB);
		story_check_at("entry", form, 0, vmx_run());
		check_form(&forms[form], form, base, with);
		*reg(base) = 0;
		if (with & VIRTUAL)
			vmx_write(VMCS_GUEST_INTERRUPT_STATUS, 0);
	}
}

/* ---- the TPR threshold ---- */

/* @index: what is written; @value: the threshold; @mode 0: by the page, 1: by the page's byte, 2: by the MSR. */
STORY(vapic_threshold)
{
	unsigned value = (unsigned)GIVEN(index), threshold = (unsigned)GIVEN(value), mode = (unsigned)GIVEN(mode);
	unsigned length = 2;

	if (!begin(mode == 2 ? VMX2_VIRTUALIZE_X2APIC : VMX2_VIRTUALIZE_APIC))
		return;
	*reg(0x80) = 0xf0;
	vmx_write(VMCS_TPR_THRESHOLD, threshold);
	if (mode == 2)
		VMX_CODE(0x0f, 0x30);
	else
		VMX_CODE(mode ? 0x88 : 0x89, 0x03);
	vmx_registers[RBX] = vmx_page(VMX_PAGE_APIC_ACCESS) + 0x80;
	vmx_registers[RCX] = 0x808;
	vmx_registers[RAX] = value;
	vmx_registers[RDX] = 0;
	story_check("entry", 0, vmx_run());
	story_check("vtpr", value, *reg(0x80));
	if (value >> 4 < threshold) {
		vmx_check_exit(VMX_EXIT_TPR_BELOW_THRESHOLD, 0, 0);
		vmx_check_field(VMCS_GUEST_RIP, CASE_STUB + length);
		vmx_check_field(VMCS_IDT_VECTORING_INFO, 0);
	} else {
		vmx_check_exit(VMX_EXIT_VMCALL, 0, 3);
	}
}

/* ---- virtual interrupts and the guest's state ---- */

#define VECTOR 0x81u

enum state {
	IN_HLT,
	IN_SHUTDOWN,
	BEFORE_EXTERNAL, /* it comes in front of an external interrupt that exits */
	BEHIND_TIMER,
	BEHIND_MOV_SS,
	BEHIND_NMI_WINDOW,
	WITH_NMI_BLOCKED,
	BEHIND_INJECTION, /* whose gate clears IF */
	BY_CR8,           /* the TPR is lowered */
	BY_EOI,           /* what is in service ends */
	BY_STI,           /* one instruction behind */
	BEHIND_MTF
};

static bool prepare(enum state state)
{
	switch (state) {
	case IN_HLT: vmx_write(VMCS_GUEST_ACTIVITY, VMX_HALTED); return vmx_needs_bit(VMX_MSR_MISC, 6);
	case IN_SHUTDOWN:
		vmx_write(VMCS_GUEST_ACTIVITY, VMX_SHUTDOWN);
		vmx_set(VMCS_PIN_CONTROLS, VMX_PIN_PREEMPTION_TIMER);
		vmx_write(VMCS_PREEMPTION_TIMER, 20);
		return vmx_needs_bit(VMX_MSR_MISC, 7);
	case BEFORE_EXTERNAL: apic_pend_interrupt(0x45); return true;
	case BEHIND_TIMER:
		vmx_set(VMCS_PIN_CONTROLS, VMX_PIN_PREEMPTION_TIMER);
		vmx_write(VMCS_PREEMPTION_TIMER, 0);
		return true;
	case BEHIND_MOV_SS: vmx_write(VMCS_GUEST_INTERRUPTIBILITY, VMX_BLOCKING_MOV_SS); return true;
	case BEHIND_NMI_WINDOW:
		vmx_set(VMCS_PIN_CONTROLS, VMX_PIN_VIRTUAL_NMIS);
		vmx_set(VMCS_PRIMARY_CONTROLS, VMX_NMI_WINDOW);
		return true;
	case WITH_NMI_BLOCKED: vmx_write(VMCS_GUEST_INTERRUPTIBILITY, VMX_BLOCKING_NMI); return true;
	case BEHIND_INJECTION: vmx_write(VMCS_ENTRY_INTERRUPTION_INFO, VMX_EVENT_VALID | 0x45); return true;
	case BY_CR8:
		*reg(0x80) = 0xf0;
		VMX_CODE(0x44, 0x0f, 0x22, 0xc0, 0x90, 0x90); /* MOV CR8, RAX */
		vmx_registers[RAX] = 0;
		return true;
	case BY_EOI:
		set_bit(APIC_ISR, 0x92);
		vmx_write(VMCS_GUEST_INTERRUPT_STATUS, VECTOR | 0x92u << 8);
		VMX_CODE(0x0f, 0x30, 0x90, 0x90);
		vmx_registers[RCX] = 0x80b;
		vmx_registers[RAX] = vmx_registers[RDX] = 0;
		return true;
	case BY_STI:
		exchange.in.field[STATE_rflags] &= ~(uint64_t)RFLAGS_IF;
		vmx_write(VMCS_GUEST_RFLAGS, exchange.in.field[STATE_rflags]);
		VMX_CODE(0xfb, 0x90, 0x90, 0x90);
		return true;
	default: vmx_set(VMCS_PRIMARY_CONTROLS, VMX_MONITOR_TRAP_FLAG); return true;
	}
}

static bool can(enum state state)
{
	switch (state) {
	case IN_SHUTDOWN:
	case BEHIND_TIMER: return vmx_needs(VMCS_PIN_CONTROLS, VMX_PIN_PREEMPTION_TIMER);
	case BEFORE_EXTERNAL: return story_has_apic();
	case BEHIND_NMI_WINDOW: return vmx_needs(VMCS_PIN_CONTROLS, VMX_PIN_VIRTUAL_NMIS) && vmx_needs(VMCS_PRIMARY_CONTROLS, VMX_NMI_WINDOW);
	case BEHIND_MTF: return vmx_needs(VMCS_PRIMARY_CONTROLS, VMX_MONITOR_TRAP_FLAG);
	default: return true;
	}
}

/* Delivered: where it returns to; the handler's first instruction is next. */
static void check_delivered(uint64_t rip)
{
	story_check("vector", VECTOR, vmx_handler_vector());
	story_check("return", rip, *(const uint64_t *)(uintptr_t)vmx_read(VMCS_GUEST_RSP));
	vmx_check_field(VMCS_GUEST_INTERRUPT_STATUS, VECTOR << 8);
	story_check("irr", 0, bit(APIC_IRR, VECTOR));
	story_check("isr", 1, bit(APIC_ISR, VECTOR));
	story_check("ppr", VECTOR & 0xf0, *reg(0xa0));
}

static void check_waits(void)
{
	vmx_check_field(VMCS_GUEST_INTERRUPT_STATUS, VECTOR);
	story_check("irr", 1, bit(APIC_IRR, VECTOR));
	story_check("isr", 0, bit(APIC_ISR, VECTOR));
}

/* @index: enum state. */
STORY(virtual_interrupt_state)
{
	static const uint8_t returns[] = {[IN_HLT] = 0, [BEFORE_EXTERNAL] = 0, [BEHIND_MOV_SS] = 1, [WITH_NMI_BLOCKED] = 0, [BY_CR8] = 4, [BY_EOI] = 2, [BY_STI] = 2, [BEHIND_MTF] = 0};
	enum state state = (enum state)GIVEN(index);

	if (!begin(VMX2_VIRTUALIZE_X2APIC | VMX2_VIRTUAL_INTERRUPTS) || !can(state))
		return;
	exchange.in.field[STATE_rflags] |= RFLAGS_IF;
	vmx_write(VMCS_GUEST_RFLAGS, exchange.in.field[STATE_rflags]);
	set_bit(APIC_IRR, VECTOR);
	vmx_write(VMCS_GUEST_INTERRUPT_STATUS, VECTOR);
	VMX_CODE(0x90, 0x90);
	if (!prepare(state))
		return;
	story_check("entry", 0, vmx_run());
	switch (state) {
	case IN_SHUTDOWN:
		vmx_check_exit(VMX_EXIT_PREEMPTION_TIMER, 0, 0);
		vmx_check_field(VMCS_GUEST_ACTIVITY, VMX_SHUTDOWN);
		check_waits();
		return;
	case BEHIND_TIMER:
		vmx_check_exit(VMX_EXIT_PREEMPTION_TIMER, 0, 0);
		check_waits();
		return;
	case BEHIND_NMI_WINDOW:
		vmx_check_exit(VMX_EXIT_NMI_WINDOW, 0, 0);
		check_waits();
		return;
	case BEHIND_INJECTION:
		vmx_check_exit(VMX_EXIT_VMCALL, 0, 3);
		story_check("vector", 0x45, vmx_handler_vector());
		check_waits();
		return;
	case BEFORE_EXTERNAL:
		vmx_check_exit(VMX_EXIT_EXTERNAL_INTERRUPT, 0, 0);
		story_open();
		break;
	case BEHIND_MTF: vmx_check_exit(VMX_EXIT_MONITOR_TRAP_FLAG, 0, 0); break;
	default: vmx_check_exit(VMX_EXIT_VMCALL, 0, 3); break;
	}
	check_delivered(CASE_STUB + returns[state]);
	vmx_check_field(VMCS_GUEST_ACTIVITY, VMX_ACTIVE);
	if (state == WITH_NMI_BLOCKED)
		vmx_check_field(VMCS_GUEST_INTERRUPTIBILITY, VMX_BLOCKING_NMI);
	if (state == BY_EOI)
		story_check("ended", 0, bit(APIC_ISR, 0x92));
}

/* EOI by the page: @index: SVI; @mode: its EOI-exit bit. */
STORY(virtual_eoi_page)
{
	unsigned vector = (unsigned)GIVEN(index), next = vector > 0x21 ? 0x21 : 0;
	bool exits = GIVEN(mode);

	if (!begin(VMX2_VIRTUALIZE_APIC | VMX2_VIRTUAL_INTERRUPTS))
		return;
	set_bit(APIC_ISR, vector);
	if (next)
		set_bit(APIC_ISR, next);
	vmx_write(VMCS_GUEST_INTERRUPT_STATUS, vector << 8);
	for (unsigned i = 0; i < 4; i++) /* all others, or this one alone */
		vmx_write(VMCS_EOI_EXIT_0 + 2 * i, (exits ? 0 : ~0ull) ^ (i == vector / 64 ? 1ull << vector % 64 : 0));
	VMX_CODE(0x89, 0x03);
	vmx_registers[RBX] = vmx_page(VMX_PAGE_APIC_ACCESS) + 0xb0;
	vmx_registers[RAX] = 0x5a5a5a5a;
	story_check("entry", 0, vmx_run());
	if (exits) {
		vmx_check_exit(VMX_EXIT_VIRTUALIZED_EOI, vector, 0);
		vmx_check_field(VMCS_GUEST_RIP, CASE_STUB + 2);
	} else {
		vmx_check_exit(VMX_EXIT_VMCALL, 0, 3);
	}
	story_check("isr", 0, bit(APIC_ISR, vector));
	story_check("eoi", 0, *reg(0xb0));
	vmx_check_field(VMCS_GUEST_INTERRUPT_STATUS, next << 8);
	story_check("ppr", next & 0xf0, *reg(0xa0));
}
