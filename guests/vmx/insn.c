/*
 * insn.c: one instruction in a guest, in the mode and at the level of its row, with the controls that the row
 * gives: what comes, and all that has changed, is reported as the library reports its own cases
 * (x86/outcome.h).
 *
 * All exceptions exit, so that FAULT says what would have been delivered, and VMCALL ends the case. What is
 * not intercepted is delivered through the guest's IDT, and told from its frame as a case's own exceptions
 * are.
 */
#include "lib/baseline.h"
#include "lib/effects.h"
#include "lib/ending.h"
#include "lib/exchange.h"
#include "lib/report.h"
#include "lib/run.h"
#include "lib/story.h"
#include "lib/vmx_world.h"
#include "lib/world.h"
#include "x86/case_layout.h"
#include "x86/vectors.h"

/* Reasons that have an instruction length (28.2.5). */
static bool has_length(uint32_t reason)
{
	switch (reason) {
	case VMX_EXIT_EXCEPTION_NMI:
	case VMX_EXIT_EXTERNAL_INTERRUPT:
	case VMX_EXIT_TRIPLE_FAULT:
	case VMX_EXIT_INTERRUPT_WINDOW:
	case VMX_EXIT_NMI_WINDOW:
	case VMX_EXIT_TASK_SWITCH:
	case VMX_EXIT_MONITOR_TRAP_FLAG:
	case VMX_EXIT_EPT_VIOLATION:
	case VMX_EXIT_EPT_MISCONFIGURATION:
	case VMX_EXIT_PREEMPTION_TIMER:
	case VMX_EXIT_TPR_BELOW_THRESHOLD:
	case VMX_EXIT_VIRTUALIZED_EOI:
	case VMX_EXIT_APIC_WRITE:
	case VMX_EXIT_APIC_ACCESS: return false;
	default: return true;
	}
}

static bool at_end(void)
{
	uint64_t address = vmx_guest_address();

	if (address >= CASE_PATH_LINEAR)
		return true; /* nothing is mapped there but frames full of CASE_END */
	return address >= CASE_WINDOW && address < CASE_PATH_END &&
	       *(const uint16_t *)(uintptr_t)address == CASE_END;
}

/* Bits of interruption information besides vector and validity (28.2.2). */
static unsigned promised_type(const struct case_spec *spec, unsigned vector, bool error)
{
	unsigned type = vector == VECTOR_BP || vector == VECTOR_OF ? VMX_EVENT_SOFTWARE_EXCEPTION
								   : VMX_EVENT_EXCEPTION;

	if (vector == VECTOR_DB && spec->bytes[spec->length - 1] == 0xf1)
		type = VMX_EVENT_PRIVILEGED_SOFTWARE;
	return type << VMX_EVENT_TYPE_SHIFT | (error ? VMX_EVENT_ERROR_CODE : 0);
}

static void report_fault(const struct case_spec *spec)
{
	uint32_t info = (uint32_t)vmx_read(VMCS_EXIT_INTERRUPTION_INFO);
	unsigned vector = info & VMX_EVENT_VECTOR;
	bool error = vector_has_error_code(vector) && spec->mode != MODE_REAL;
	uint64_t *out = exchange.out.field;

	report_text("FAULT vector=");
	report_decimal(vector);
	if (error)
		report_field("error", vmx_read(VMCS_EXIT_INTERRUPTION_ERROR));
	if (vector == VECTOR_PF)
		out[STATE_cr2] = vmx_read(VMCS_EXIT_QUALIFICATION);
	if (vector == VECTOR_DB)
		out[STATE_dr6] |= vmx_read(VMCS_EXIT_QUALIFICATION);
	if (info != (VMX_EVENT_VALID | promised_type(spec, vector, error) | vector))
		report_field("info", info);
}

/* An exit by an exception as what it is (VMX_WORLD_RAW). */
static void report_raw(const struct case_spec *spec)
{
	uint64_t info = vmx_read(VMCS_EXIT_INTERRUPTION_INFO);
	unsigned type = (unsigned)VMX_EVENT_TYPE(info);
	bool software = type == VMX_EVENT_SOFTWARE_EXCEPTION || type == VMX_EVENT_PRIVILEGED_SOFTWARE;

	if (info & VMX_EVENT_ERROR_CODE)
		info |= vmx_read(VMCS_EXIT_INTERRUPTION_ERROR) << 32;
	report_text("EXIT");
	report_field("code", VMX_EXIT_EXCEPTION_NMI);
	report_field("info1", vmx_read(VMCS_EXIT_QUALIFICATION));
	report_field("info2", info);
	if (software && vmx_read(VMCS_EXIT_INSTRUCTION_LENGTH) != spec->length)
		report_field("nrip", exchange.out.field[STATE_rip] + vmx_read(VMCS_EXIT_INSTRUCTION_LENGTH));
}

static bool is_raw(const struct case_spec *spec)
{
	for (unsigned i = 0; i < spec->setting_count; i++)
		if (spec->settings[i].kind == SETTING_CONTROL && spec->settings[i].address == VMX_WORLD_RAW)
			return true;
	return false;
}

static void report_exit(const struct case_spec *spec, uint32_t reason)
{
	report_text("EXIT");
	report_field("code", reason);
	report_field("info1", vmx_read(VMCS_EXIT_QUALIFICATION));
	report_field("info2", vmx_read(VMCS_EXIT_INSTRUCTION_INFO));
	if (has_length(reason) && vmx_read(VMCS_EXIT_INSTRUCTION_LENGTH) != spec->length)
		report_field("nrip", exchange.out.field[STATE_rip] + vmx_read(VMCS_EXIT_INSTRUCTION_LENGTH));
}

/* Whether the instruction ran to its end. */
static bool report_kind(const struct case_spec *spec)
{
	uint32_t reason = vmx_reason(), vectoring = (uint32_t)vmx_read(VMCS_IDT_VECTORING_INFO);
	bool moved = exchange.out.field[STATE_rip] != exchange.in.field[STATE_rip];
	bool undefined = reason == VMX_EXIT_EXCEPTION_NMI &&
			 (vmx_read(VMCS_EXIT_INTERRUPTION_INFO) & VMX_EVENT_VECTOR) == VECTOR_UD;

	if (moved && (reason == VMX_EXIT_VMCALL || (undefined && at_end()))) {
		report_text("RUNS");
		return true;
	}
	if (reason == VMX_EXIT_TRIPLE_FAULT)
		report_text("SHUTDOWN");
	else if (reason == VMX_EXIT_EXCEPTION_NMI && is_raw(spec))
		report_raw(spec);
	else if (reason == VMX_EXIT_EXCEPTION_NMI)
		report_fault(spec);
	else
		report_exit(spec, reason);
	if (vectoring & VMX_EVENT_VALID)
		report_field("intinfo", vectoring & ~(uint64_t)VMX_EVENT_NMI_UNBLOCKED); /* undefined there */
	return false;
}

static void report_effects(const struct case_spec *spec, bool runs)
{
	uint64_t *flags = &exchange.out.field[STATE_rflags];

	/* RF in the VMCS has stories of its own. */
	*flags = (*flags & ~(uint64_t)RFLAGS_RF) | (exchange.in.field[STATE_rflags] & RFLAGS_RF);
	effects_report_changes(&exchange, spec, runs);
}

static void report_result(const struct case_spec *spec)
{
	if (vmx_reason() == VMX_EXIT_VMCALL && vmx_handler_vector() != VMX_NO_VECTOR) {
		struct ending end = {0};

		vmx_capture_delivery(spec, &end);
		effects_report(&exchange, spec, &end);
	} else {
		vmx_capture(spec->mode);
		report_effects(spec, report_kind(spec));
	}
}

STORY(vmx_insn)
{
	const struct case_spec *spec = run_current();
	unsigned with = spec->mode == MODE_REAL ? VMX_EPT | VMX_UNRESTRICTED : VMX_BARE, failed;

	story_reports();
	if (!vmx_begin() || !vmx_needs_mode(spec->mode, with))
		return;
	vmx_world_prepare(spec->mode, spec->cpl);
	if (!baseline_apply(spec, &exchange.in))
		return;
	vmx_load_host();
	vmx_load_controls(spec->mode, with);
	vmx_load_guest(spec->mode);
	vmx_code(spec->bytes, spec->length);
	if (!vmx_apply_controls(spec))
		return;
	failed = vmx_run();
	if (failed) {
		report_text("ERROR entry");
		report_field("result", failed);
		return;
	}
	report_result(spec);
}
