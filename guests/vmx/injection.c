/*
 * injection.c: events that VM entry delivers (SDM 3C 27.2.1.3, 27.6): every type and vector, with and without
 * an error code, into every mode; and exits in the middle of a delivery (28.2.4).
 */
#include "lib/ending.h"
#include "lib/exchange.h"
#include "lib/story.h"
#include "lib/vmx_world.h"
#include "lib/world.h"
#include "x86/case_layout.h"
#include "x86/vectors.h"

#define TYPE_SOFTWARE(type)                                                                                  \
	((type) == VMX_EVENT_SOFTWARE_INTERRUPT || (type) == VMX_EVENT_PRIVILEGED_SOFTWARE ||                \
	 (type) == VMX_EVENT_SOFTWARE_EXCEPTION)

/* Whether VM entry takes it (27.2.1.3). */
static bool is_valid(unsigned mode, unsigned type, unsigned vector, bool error)
{
	bool needed = type == VMX_EVENT_EXCEPTION && mode != MODE_REAL && vector_has_error_code(vector);
	bool any = vmx_msr(VMX_MSR_BASIC) & VMX_BASIC_ANY_ERROR && type == VMX_EVENT_EXCEPTION &&
		   mode != MODE_REAL;

	if (type == 1 || (type == VMX_EVENT_NMI && vector != VECTOR_NMI) ||
	    (type == VMX_EVENT_EXCEPTION && vector > 31))
		return false;
	if (type == VMX_EVENT_OTHER && (vector || !vmx_can(VMCS_PRIMARY_CONTROLS, VMX_MONITOR_TRAP_FLAG)))
		return false;
	return error == needed || any;
}

/* The gates of case_layout.h. */
static unsigned gate_dpl(unsigned n)
{
	return n == VECTOR_BP || n == VECTOR_OF || (n >= CASE_VECTOR_DPL3 && n < 0x70) ? 3 : 0;
}
static bool gate_present(unsigned n) { return n < CASE_VECTOR_NOT_PRESENT || n >= 0x70; }

/* The exception that the delivery meets; VMX_NO_VECTOR: none. */
static unsigned meets(unsigned mode, unsigned cpl, unsigned type, unsigned vector)
{
	if (mode == MODE_REAL)
		return VMX_NO_VECTOR;
	if ((type == VMX_EVENT_SOFTWARE_INTERRUPT || type == VMX_EVENT_SOFTWARE_EXCEPTION) &&
	    gate_dpl(vector) < cpl)
		return VECTOR_GP;
	return gate_present(vector) ? VMX_NO_VECTOR : VECTOR_NP;
}

static void check_delivered(unsigned mode, unsigned type, unsigned vector, bool error, uint64_t code,
			    unsigned length)
{
	struct case_spec spec = {.mode = (uint8_t)mode};
	const uint64_t *in = exchange.in.field, *out = exchange.out.field;
	struct ending end = {0};

	vmx_check_exit(VMX_EXIT_VMCALL, 0, 3);
	story_check("vector", vector, vmx_handler_vector());
	if (vmx_handler_vector() == VMX_NO_VECTOR)
		return;
	vmx_check_field(VMCS_IDT_VECTORING_INFO, 0);
	vmx_check_field(VMCS_GUEST_INTERRUPTIBILITY, type == VMX_EVENT_NMI ? VMX_BLOCKING_NMI : 0);
	if (mode != MODE_LONG && mode != MODE_COMPAT && type == VMX_EVENT_EXCEPTION &&
	    error != vector_has_error_code(vector))
		return; /* the frame does not say which it is */
	vmx_capture_delivery(&spec, &end);
	story_check("rip", in[STATE_rip] + length, out[STATE_rip]);
	story_check("cs", in[STATE_cs], out[STATE_cs]);
	story_check("ss", in[STATE_ss], out[STATE_ss]);
	story_check("rsp", in[STATE_rsp], out[STATE_rsp]);
	story_check("rflags", in[STATE_rflags], out[STATE_rflags] & ~(uint64_t)RFLAGS_RF);
	if (mode == MODE_LONG || mode == MODE_COMPAT)
		story_check("has_error", error, end.has_error);
	if (error && end.has_error)
		story_check("error", code, end.error);
}

/*
 * @index: mode and level of the guest; @type, @vector; @value: with an error code; @count: the instruction's
 * length. The entry that delivers, and another that delivers nothing.
 */
STORY(vmx_inject)
{
	unsigned mode = GIVEN(index) & 0xff, cpl = (unsigned)GIVEN(index) >> 8, type = (unsigned)GIVEN(type);
	unsigned vector = (unsigned)GIVEN(vector), got, met, length = TYPE_SOFTWARE(type) ? 2 : 0;
	bool error = GIVEN(value);
	uint32_t info =
		vector | type << VMX_EVENT_TYPE_SHIFT | (error ? VMX_EVENT_ERROR_CODE : 0) | VMX_EVENT_VALID;
	uint64_t code = 0x5a50;

	if (!vmx_begin() || !vmx_needs_mode(mode, mode == MODE_REAL ? VMX_EPT | VMX_UNRESTRICTED : VMX_BARE))
		return;
	vmx_world_prepare(mode, cpl);
	exchange.in.field[STATE_rflags] |= RFLAGS_IF | (mode == MODE_VM86 ? RFLAGS_IOPL : 0);
	vmx_load_host();
	vmx_load_controls(mode, mode == MODE_REAL ? VMX_EPT | VMX_UNRESTRICTED : VMX_BARE);
	vmx_load_guest(mode);
	vmx_write(VMCS_ENTRY_INTERRUPTION_INFO, info);
	vmx_write(VMCS_ENTRY_EXCEPTION_ERROR, code);
	vmx_write(VMCS_ENTRY_INSTRUCTION_LENGTH, length);
	got = vmx_run();
	if (!is_valid(mode, type, vector, error)) {
		story_check("vmfail", VMX_FAIL(VMX_ERROR_ENTRY_CONTROLS), got);
		return;
	}
	story_check("entry", 0, got);
	if (got)
		return;
	vmx_check_field(VMCS_ENTRY_INTERRUPTION_INFO, info & ~VMX_EVENT_VALID);
	met = meets(mode, cpl, type, vector);
	if (type == VMX_EVENT_OTHER) {
		vmx_check_exit(VMX_EXIT_MONITOR_TRAP_FLAG, 0, 0);
		vmx_check_field(VMCS_GUEST_RIP, exchange.in.field[STATE_rip]);
	} else if (met != VMX_NO_VECTOR) {
		bool ext = type != VMX_EVENT_SOFTWARE_INTERRUPT && type != VMX_EVENT_SOFTWARE_EXCEPTION;

		vmx_check_exit(VMX_EXIT_EXCEPTION_NMI, 0, length);
		vmx_check_field(VMCS_EXIT_INTERRUPTION_INFO,
				VMX_EVENT_VALID | VMX_EVENT_ERROR_CODE |
					VMX_EVENT_EXCEPTION << VMX_EVENT_TYPE_SHIFT | met);
		vmx_check_field(VMCS_EXIT_INTERRUPTION_ERROR, vector << 3 | 2 | ext);
		story_check("IDT_VECTORING_INFO", info,
			    vmx_read(VMCS_IDT_VECTORING_INFO) & ~(uint64_t)VMX_EVENT_NMI_UNBLOCKED);
		if (error)
			vmx_check_field(VMCS_IDT_VECTORING_ERROR, code);
		vmx_check_field(VMCS_GUEST_RIP, exchange.in.field[STATE_rip]);
		vmx_check_field(VMCS_GUEST_RSP, exchange.in.field[STATE_rsp]);
	} else {
		check_delivered(mode, type, vector, error, code, length);
	}
	vmx_load_guest(mode);
	vmx_check_runs();
	story_check("not_again", VMX_NO_VECTOR, vmx_handler_vector());
}

/* ---- exits in the middle of a delivery ---- */

enum breakage {
	GATE_ABSENT,
	GATE_TYPE,
	IDT_LIMIT,
	IDT_PAGE,
	STACK_PAGE,
	CODE_NULL,
	IDT_EPT,
	STACK_EPT,
	BREAKAGES
};

/* What raises the event; and the event as IDT-vectoring information has it. */
static const struct raiser {
	uint8_t bytes[4], length;
	uint8_t vector, type;
	bool error;
	uint32_t code;
} raisers[] = {
	{{0xcd, 0x41}, 2, 0x41, VMX_EVENT_SOFTWARE_INTERRUPT, false, 0},
	{{0xcd, 0x0d}, 2, 0x0d, VMX_EVENT_SOFTWARE_INTERRUPT, false, 0},
	{{0xcc}, 1, VECTOR_BP, VMX_EVENT_SOFTWARE_EXCEPTION, false, 0},
	{{0xf1}, 1, VECTOR_DB, VMX_EVENT_PRIVILEGED_SOFTWARE, false, 0},
	{{0x0f, 0x0b}, 2, VECTOR_UD, VMX_EVENT_EXCEPTION, false, 0},
	{{0x8e, 0xd8}, 2, VECTOR_GP, VMX_EVENT_EXCEPTION, true, 0x200}, /* MOV DS, AX: past the limit */
	{{0x8a, 0x03}, 2, VECTOR_PF, VMX_EVENT_EXCEPTION, true, 0},     /* MOV AL, [RBX]: not present */
};

static void poke(uint64_t address, uint64_t value, unsigned size)
{
	world_poke((uint32_t)address, &value, size);
}

static void put_rights(uint32_t page)
{
	*vmx_ept_entry(1, page) &= ~(uint64_t)(EPT_READ | EPT_WRITE | EPT_EXECUTE);
}

static void break_delivery(enum breakage breakage, unsigned vector)
{
	uint32_t gate = CASE_IDT64 + 16 * vector;
	uint64_t stack = CASE_STACK - 8;

	if (breakage == STACK_PAGE || breakage == STACK_EPT)
		poke(gate + 4, 0, 1); /* no IST: the stack that it is on */
	switch (breakage) {
	case GATE_ABSENT: poke(gate + 5, *(const uint8_t *)(uintptr_t)(gate + 5) & 0x7f, 1); break;
	case GATE_TYPE: poke(gate + 5, 0x80 | TYPE_CALL_GATE, 1); break;
	case IDT_LIMIT: vmx_write(VMCS_GUEST_IDTR_LIMIT, 16 * vector); break;
	case IDT_PAGE: poke(CASE_PTE_LONG(CASE_IDT64), 0, 8); break;
	case STACK_PAGE: poke(CASE_PTE_LONG(stack), 0, 8); break;
	case CODE_NULL: poke(gate + 2, 0, 2); break;
	case IDT_EPT: put_rights(CASE_IDT64); break;
	default: put_rights((uint32_t)stack); break;
	}
}

/* The exit that the breakage brings: vector and error code, or reason 48. */
static unsigned broken_vector(enum breakage breakage)
{
	static const uint8_t vectors[BREAKAGES] = {VECTOR_NP, VECTOR_GP, VECTOR_GP, VECTOR_PF,
						   VECTOR_PF, VECTOR_GP, 0,         0};

	return vectors[breakage];
}

static uint64_t broken_error(enum breakage breakage, unsigned vector, bool ext)
{
	switch (breakage) {
	case IDT_PAGE: return 0;
	case STACK_PAGE: return PF_W;
	case CODE_NULL: return ext;
	default: return vector << 3 | 2 | ext;
	}
}

static uint32_t event_info(const struct raiser *r)
{
	return VMX_EVENT_VALID | r->vector | (uint32_t)r->type << VMX_EVENT_TYPE_SHIFT |
	       (r->error ? VMX_EVENT_ERROR_CODE : 0);
}

/*
 * @index: what raises; @value: what is broken; @mode: the exception bitmap has 0 all but the event's own bit,
 * 1 #DF alone.
 */
STORY(vmx_broken_delivery)
{
	const struct raiser *r = &raisers[GIVEN(index)];
	enum breakage breakage = (enum breakage)GIVEN(value);
	bool ext = r->type == VMX_EVENT_EXCEPTION || r->type == VMX_EVENT_PRIVILEGED_SOFTWARE;
	bool ept = breakage == IDT_EPT || breakage == STACK_EPT, double_only = GIVEN(mode);
	unsigned met = broken_vector(breakage);
	bool twice = r->type == VMX_EVENT_EXCEPTION &&
		     (r->vector == VECTOR_PF || (r->vector == VECTOR_GP && met != VECTOR_PF));

	if (!vmx_baseline(MODE_LONG, 0, ept ? VMX_EPT : VMX_BARE))
		return;
	vmx_code(r->bytes, r->length);
	if (r->vector == VECTOR_GP)
		vmx_registers[RAX] = r->code;
	if (r->vector == VECTOR_PF && r->type == VMX_EVENT_EXCEPTION)
		poke(CASE_PTE_LONG(CASE_OPERAND), 0, 8);
	vmx_write(VMCS_EXCEPTION_BITMAP, double_only ? 1u << VECTOR_DF : ~(1u << r->vector));
	if (r->vector == met) /* its own bit is the second one's as well */
		vmx_write(VMCS_EXCEPTION_BITMAP, double_only ? 1u << VECTOR_DF : ~0u);
	break_delivery(breakage, r->vector);
	story_check("entry", 0, vmx_run());
	if (!double_only || twice) {
		vmx_check_field(VMCS_GUEST_RIP, CASE_STUB);
		vmx_check_field(VMCS_GUEST_RSP, CASE_STACK);
	}
	if (!double_only && r->vector == met && r->type == VMX_EVENT_EXCEPTION) {
		/* Caught before it is delivered. */
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_EXCEPTION_NMI);
		vmx_check_field(VMCS_IDT_VECTORING_INFO, 0);
		return;
	}
	if (double_only && !ept) {
		/* #DF exits by itself; what is not combined goes on to other breakages, and ends in #DF or a
		 * shutdown. */
		if (twice && breakage != IDT_PAGE) {
			vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_EXCEPTION_NMI);
			vmx_check_field(VMCS_EXIT_INTERRUPTION_INFO,
					VMX_EVENT_VALID | VMX_EVENT_ERROR_CODE |
						VMX_EVENT_EXCEPTION << VMX_EVENT_TYPE_SHIFT | VECTOR_DF);
			vmx_check_field(VMCS_EXIT_INTERRUPTION_ERROR, 0);
			vmx_check_field(VMCS_IDT_VECTORING_INFO, 0);
		} else {
			story_check("no_vectoring", 0, vmx_read(VMCS_IDT_VECTORING_INFO) >> 31);
		}
		return;
	}
	story_check("IDT_VECTORING_INFO", event_info(r),
		    vmx_read(VMCS_IDT_VECTORING_INFO) & ~(uint64_t)VMX_EVENT_NMI_UNBLOCKED);
	if (r->error)
		vmx_check_field(VMCS_IDT_VECTORING_ERROR, r->code);
	if (r->type != VMX_EVENT_EXCEPTION)
		vmx_check_field(VMCS_EXIT_INSTRUCTION_LENGTH, r->length);
	if (ept) {
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_EPT_VIOLATION);
		return;
	}
	vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_EXCEPTION_NMI);
	vmx_check_field(VMCS_EXIT_INTERRUPTION_INFO, VMX_EVENT_VALID | VMX_EVENT_ERROR_CODE |
							     VMX_EVENT_EXCEPTION << VMX_EVENT_TYPE_SHIFT |
							     met);
	vmx_check_field(VMCS_EXIT_INTERRUPTION_ERROR, broken_error(breakage, r->vector, ext));
}
