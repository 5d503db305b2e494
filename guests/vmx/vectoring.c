/*
 * vectoring.c: exits while an event is being delivered: IDT-vectoring information for each type of event and each exit
 * (SDM 3C 28.2.4, 28.2.1, 28.2.5).
 */
#include "lib/apic.h"
#include "lib/exchange.h"
#include "lib/story.h"
#include "lib/vmx_world.h"
#include "lib/world.h"
#include "x86/case_layout.h"
#include "x86/vectors.h"

#define RIGHTS ((uint64_t)(EPT_READ | EPT_WRITE | EPT_EXECUTE))

/* What ends the delivery. */
enum cut {
	CUT_NOT_PRESENT, /* #NP, that exits */
	CUT_LIMIT,       /* #GP, beyond the IDT's limit */
	CUT_PAGE,        /* #PF of the IDT */
	CUT_IDT,         /* EPT violation of the IDT */
	CUT_STACK,       /* of the stack */
	CUT_TABLE,       /* of the page table that maps the IDT */
	CUT_MISCONFIGURED,
	CUT_APIC_IDT, /* the IDT is on the APIC-access page */
	CUT_APIC_STACK,
	CUT_LOG_FULL, /* the page-modification log, by the stack */
	CUT_TASK,     /* a task gate */
	CUT_SHUTDOWN  /* #NP again and again, none of which exits */
};

struct cutting {
	unsigned mode, type, vector, length, size; /* @size: of a gate */
	uint32_t info, gate, idt, stack;
	bool error;
};

static void poke(uint64_t address, uint64_t value, unsigned size) { world_poke((uint32_t)address, &value, size); }

/* From virtual-8086 mode the stack is that of the TSS. */
static struct cutting describe(unsigned mode, unsigned type, unsigned vector)
{
	struct cutting c = {.mode = mode, .type = type, .vector = vector};
	bool wide = mode == MODE_LONG || mode == MODE_COMPAT;

	c.error = type == VMX_EVENT_EXCEPTION && mode != MODE_REAL && vector_has_error_code(vector);
	c.length = type == VMX_EVENT_SOFTWARE_INTERRUPT ? 2 : type == VMX_EVENT_SOFTWARE_EXCEPTION || type == VMX_EVENT_PRIVILEGED_SOFTWARE;
	c.info = VMX_EVENT_VALID | vector | (uint32_t)type << VMX_EVENT_TYPE_SHIFT | (c.error ? VMX_EVENT_ERROR_CODE : 0);
	c.size = wide ? 16 : mode == MODE_REAL ? 4 : 8;
	c.idt = wide ? CASE_IDT64 : mode == MODE_REAL ? CASE_IVT : CASE_IDT32;
	c.gate = c.idt + c.size * vector;
	c.stack = mode == MODE_VM86 ? CASE_INNER_STACK_PAGE : CASE_STACK_PAGE;
	return c;
}

static bool begin(const struct cutting *c)
{
	unsigned with = c->mode == MODE_REAL ? VMX_EPT | VMX_UNRESTRICTED : VMX_EPT;

	if (!vmx_begin() || !vmx_needs_mode(c->mode, with))
		return false;
	vmx_world_prepare(c->mode, c->mode == MODE_VM86 ? 3 : 0);
	exchange.in.field[STATE_rflags] |= RFLAGS_IF | (c->mode == MODE_VM86 ? RFLAGS_IOPL : 0);
	vmx_load_host();
	vmx_load_controls(c->mode, with);
	vmx_load_guest(c->mode);
	if (c->mode == MODE_REAL)
		return true;
	/* Any level may call it, on the stack of its level. */
	poke(c->gate + 5, 0x8e | 3 << 5, 1);
	if (c->size == 16)
		poke(c->gate + 4, 0, 1);
	return true;
}

static bool use_apic_page(uint32_t page)
{
	if (!vmx_needs(VMCS_SECONDARY_CONTROLS, VMX2_VIRTUALIZE_APIC))
		return false;
	vmx_set(VMCS_SECONDARY_CONTROLS, VMX2_VIRTUALIZE_APIC);
	vmx_write(VMCS_APIC_ACCESS, page);
	return true;
}

static bool use_full_log(const struct cutting *c)
{
	if (!vmx_needs(VMCS_SECONDARY_CONTROLS, VMX2_PML) || !vmx_needs_bit(VMX_MSR_EPT_VPID, 21))
		return false;
	for (uint32_t page = 0; page < 0x200000; page += 4096)
		*vmx_ept_entry(1, page) |= EPT_ACCESSED | (page == c->stack ? 0 : EPT_DIRTY);
	for (unsigned level = 2; level <= 4; level++)
		*vmx_ept_entry(level, 0) |= EPT_ACCESSED;
	vmx_write(VMCS_EPTP, vmx_eptp() | EPTP_ACCESSED_DIRTY);
	vmx_set(VMCS_SECONDARY_CONTROLS, VMX2_PML);
	vmx_write(VMCS_PML_ADDRESS, vmx_page(VMX_PAGE_PML));
	vmx_write(VMCS_PML_INDEX, 0xffff);
	return true;
}

static bool cut(const struct cutting *c, enum cut how)
{
	bool wide = c->size == 16;

	switch (how) {
	case CUT_SHUTDOWN:
		for (unsigned n = 0; n < 32; n++)
			poke(c->idt + c->size * n + 5, 0x0e, 1);
		poke(c->gate + 5, 0x0e | 3 << 5, 1);
		vmx_write(VMCS_EXCEPTION_BITMAP, 0);
		return true;
	case CUT_NOT_PRESENT: poke(c->gate + 5, 0x0e | 3 << 5, 1); return true;
	case CUT_LIMIT: vmx_write(VMCS_GUEST_IDTR_LIMIT, c->size * c->vector + (c->size - 2)); return true;
	case CUT_PAGE: poke(wide ? CASE_PTE_LONG(c->idt) : CASE_PTE_32(c->idt), 0, wide ? 8 : 4); return true;
	case CUT_IDT: *vmx_ept_entry(1, c->idt) &= ~RIGHTS; return true;
	case CUT_STACK: *vmx_ept_entry(1, c->stack) &= ~(uint64_t)EPT_WRITE; return true;
	case CUT_TABLE: *vmx_ept_entry(1, wide ? CASE_PT : CASE_PT_32) &= ~RIGHTS; return true;
	case CUT_MISCONFIGURED: *vmx_ept_entry(1, c->idt) &= ~(uint64_t)(EPT_READ | EPT_EXECUTE); return true;
	case CUT_APIC_IDT: return use_apic_page(c->idt);
	case CUT_APIC_STACK: return use_apic_page(c->stack);
	case CUT_LOG_FULL: return use_full_log(c);
	default:
		poke(c->gate, (uint64_t)CASE_SEL_TSS32_SPARE << 16 | (uint64_t)(SEG_P | 3 << SEG_DPL_SHIFT | TYPE_TASK_GATE) << 40, 8);
		return true;
	}
}

/* ---- what comes ---- */

static void check_exception(const struct cutting *c, unsigned vector, uint64_t error)
{
	bool has = c->mode != MODE_REAL;

	vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_EXCEPTION_NMI);
	vmx_check_field(VMCS_EXIT_INTERRUPTION_INFO,
			VMX_EVENT_VALID | (has ? VMX_EVENT_ERROR_CODE : 0) | VMX_EVENT_EXCEPTION << VMX_EVENT_TYPE_SHIFT | vector);
	if (has)
		vmx_check_field(VMCS_EXIT_INTERRUPTION_ERROR, error);
	if (vector == VECTOR_PF)
		story_check("page", c->gate & ~0xfffu, vmx_read(VMCS_EXIT_QUALIFICATION) & ~0xfffull);
}

static void check_ept(const struct cutting *c, enum cut how)
{
	uint64_t got = vmx_read(VMCS_EXIT_QUALIFICATION);
	bool table = how == CUT_TABLE;

	vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_EPT_VIOLATION);
	story_check("access", how == CUT_STACK ? EPT_VIOLATION_WRITE : EPT_VIOLATION_READ, got & 7);
	story_check("kind", EPT_VIOLATION_LINEAR_VALID | (table ? 0 : EPT_VIOLATION_FINAL), got & (EPT_VIOLATION_LINEAR_VALID | EPT_VIOLATION_FINAL));
	story_check("linear_page", how == CUT_STACK ? c->stack : c->gate & ~0xfffu, vmx_read(VMCS_GUEST_LINEAR_ADDRESS) & ~0xfffull);
	story_check("physical_page",
		    table              ? c->size == 16 ? CASE_PT : CASE_PT_32
		    : how == CUT_STACK ? c->stack
				       : c->gate & ~0xfffu,
		    vmx_read(VMCS_GUEST_PHYSICAL_ADDRESS) & ~0xfffull);
}

static void check_apic(const struct cutting *c, enum cut how)
{
	uint64_t got = vmx_read(VMCS_EXIT_QUALIFICATION);

	vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_APIC_ACCESS);
	story_check("during_delivery", 3, got >> 12 & 15);
	if (how == CUT_APIC_IDT)
		story_check("gate", 1, (got & 0xfff) >= (c->gate & 0xfff) && (got & 0xfff) < (c->gate & 0xfff) + c->size);
}

static void check_cut(const struct cutting *c, enum cut how)
{
	bool ext = c->type != VMX_EVENT_SOFTWARE_INTERRUPT && c->type != VMX_EVENT_SOFTWARE_EXCEPTION;
	uint64_t error = c->vector << 3 | 2 | ext;

	switch (how) {
	case CUT_NOT_PRESENT: check_exception(c, VECTOR_NP, error); break;
	case CUT_LIMIT: check_exception(c, VECTOR_GP, error); break;
	case CUT_PAGE: check_exception(c, VECTOR_PF, 0); break;
	case CUT_IDT:
	case CUT_STACK:
	case CUT_TABLE: check_ept(c, how); break;
	case CUT_MISCONFIGURED: vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_EPT_MISCONFIGURATION); break;
	case CUT_APIC_IDT:
	case CUT_APIC_STACK: check_apic(c, how); break;
	case CUT_LOG_FULL: vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_PAGE_MODIFICATION_LOG_FULL); break;
	case CUT_TASK: vmx_check_exit(VMX_EXIT_TASK_SWITCH, CASE_SEL_TSS32_SPARE | 3ull << 30, 0); break;
	default: vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_TRIPLE_FAULT); break;
	}
}

/* Bit 12 of the vectoring information is undefined. A shutdown ends the delivery (28.2.4). */
static void check_vectoring(const struct cutting *c, enum cut how, uint64_t code)
{
	uint64_t got = vmx_read(VMCS_IDT_VECTORING_INFO);

	if (how == CUT_SHUTDOWN) {
		story_check("no_vectoring", 0, got >> 31);
		return;
	}
	story_check("IDT_VECTORING_INFO", c->info, got & ~(uint64_t)VMX_EVENT_NMI_UNBLOCKED);
	if (c->error)
		vmx_check_field(VMCS_IDT_VECTORING_ERROR, code);
	if (c->length)
		vmx_check_field(VMCS_EXIT_INSTRUCTION_LENGTH, c->length);
}

/* Nothing of the guest has changed but for RF (28.3.3). */
static void check_unchanged(void)
{
	vmx_check_field(VMCS_GUEST_RIP, exchange.in.field[STATE_rip]);
	vmx_check_field(VMCS_GUEST_RSP, exchange.in.field[STATE_rsp]);
	vmx_check_field(VMCS_GUEST_CS, exchange.in.field[STATE_cs]);
	vmx_check_field(VMCS_GUEST_SS, exchange.in.field[STATE_ss]);
	story_check("rflags", exchange.in.field[STATE_rflags] & ~(uint64_t)RFLAGS_RF, vmx_read(VMCS_GUEST_RFLAGS) & ~(uint64_t)RFLAGS_RF);
	vmx_check_field(VMCS_GUEST_ACTIVITY, VMX_ACTIVE);
	vmx_check_field(VMCS_GUEST_PENDING_DEBUG, 0);
}

/* An event that VM entry injects. @index: the mode; @type, @vector; @value: what ends its delivery. */
STORY(vectoring)
{
	struct cutting c = describe((unsigned)GIVEN(index), (unsigned)GIVEN(type), (unsigned)GIVEN(vector));
	enum cut how = (enum cut)GIVEN(value);
	uint64_t code = 0x1230;

	if (!begin(&c) || !cut(&c, how))
		return;
	vmx_write(VMCS_ENTRY_INTERRUPTION_INFO, c.info);
	vmx_write(VMCS_ENTRY_EXCEPTION_ERROR, code);
	vmx_write(VMCS_ENTRY_INSTRUCTION_LENGTH, c.length);
	story_check("entry", 0, vmx_run());
	vmx_check_field(VMCS_ENTRY_INTERRUPTION_INFO, c.info & ~VMX_EVENT_VALID);
	check_cut(&c, how);
	check_vectoring(&c, how, code);
	check_unchanged();
}

/* The same of events that come in the guest: @type 0: an external interrupt; 4: INT n; 5: INT1; 6: INT3 or INTO; 3: #UD or #DE. */
STORY(vectoring_own)
{
	struct cutting c = describe((unsigned)GIVEN(index), (unsigned)GIVEN(type), (unsigned)GIVEN(vector));
	enum cut how = (enum cut)GIVEN(value);
	bool external = c.type == VMX_EVENT_EXTERNAL;

	if ((external && !story_has_apic()) || !begin(&c) || !cut(&c, how))
		return;
	if (external && !vmx_needs_clear(VMCS_PIN_CONTROLS, VMX_PIN_EXTERNAL_INTERRUPT))
		return;
	vmx_write(VMCS_EXCEPTION_BITMAP, how == CUT_SHUTDOWN ? 0 : ~(1u << (c.vector & 31)));
	if (external) {
		vmx_clear(VMCS_PIN_CONTROLS, VMX_PIN_EXTERNAL_INTERRUPT);
		VMX_CODE(0x90);
		apic_pend_interrupt((uint8_t)c.vector);
	} else if (c.type == VMX_EVENT_SOFTWARE_INTERRUPT) {
		VMX_CODE(0xcd, (uint8_t)c.vector);
	} else if (c.type == VMX_EVENT_PRIVILEGED_SOFTWARE) {
		VMX_CODE(0xf1);
	} else if (c.type == VMX_EVENT_SOFTWARE_EXCEPTION && c.vector == VECTOR_BP) {
		VMX_CODE(0xcc);
	} else if (c.type == VMX_EVENT_SOFTWARE_EXCEPTION) {
		exchange.in.field[STATE_rflags] |= RFLAGS_OF;
		vmx_write(VMCS_GUEST_RFLAGS, exchange.in.field[STATE_rflags]);
		VMX_CODE(0xce);
	} else {
		VMX_CODE(0x0f, 0x0b);
	}
	story_check("entry", 0, vmx_run());
	check_cut(&c, how);
	check_vectoring(&c, how, 0);
	check_unchanged();
	if (external) { /* it was acknowledged */
		story_check("in_service", 1, apic_bit(APIC_ISR, c.vector));
		apic_write(APIC_EOI, 0);
	}
}
