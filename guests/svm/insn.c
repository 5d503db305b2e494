/*
 * insn.c: one instruction in a guest, in the mode and at the level of its row, with the intercepts that the
 * row gives: what comes, and all that has changed, is reported as the library reports its own cases
 * (x86/outcome.h).
 *
 * The default intercepts are those of svm_baseline: an exception exits before it is delivered, so that FAULT
 * says what would have been (APM 2 15.12), and CASE_END's #UD ends the case. What is not intercepted is
 * delivered through the guest's IDT, and told from its frame as a case's own exceptions are.
 */
#include "lib/apic.h"
#include "lib/baseline.h"
#include "lib/effects.h"
#include "lib/ending.h"
#include "lib/exchange.h"
#include "lib/machine.h"
#include "lib/report.h"
#include "lib/run.h"
#include "lib/story.h"
#include "lib/svm_world.h"
#include "lib/world.h"
#include "x86/case_layout.h"
#include "x86/vectors.h"

#include "svm/svm.h"

void svm_apply_controls(const struct case_spec *spec)
{
	for (unsigned i = 0; i < spec->setting_count; i++) {
		const struct case_setting *s = &spec->settings[i];
		uint64_t old;

		if (s->kind != SETTING_CONTROL && s->kind != SETTING_CONTROL_OR &&
		    s->kind != SETTING_CONTROL_CLEAR)
			continue;
		old = svm_read(s->address, s->bit);
		svm_write(s->address, s->bit,
			  s->kind == SETTING_CONTROL      ? s->value
			  : s->kind == SETTING_CONTROL_OR ? old | s->value
							  : old & ~s->value);
	}
}

/* An intercept of an instruction, an MSR or a port, which nRIP belongs to (15.7.1). */
static bool is_instruction(uint64_t code)
{
	if (code < 0x40) /* CRn and DRn */
		return true;
	if (code == SVM_EXIT_TASK_SWITCH || code == SVM_EXIT_FERR_FREEZE || code == SVM_EXIT_SHUTDOWN)
		return false;
	return code >= SVM_EXIT_CR0_SEL_WRITE && code < 0xa8;
}

static bool nrip_is_promised(const struct case_spec *spec, uint64_t code, uint64_t *nrip)
{
	uint64_t vector = code - SVM_EXIT_EXCEPTION;

	*nrip = svm_get(VMCB_NRIP);
	if (!svm_has(SVM_HAS_NRIPS))
		return true;
	if (is_instruction(code) || vector == VECTOR_BP || vector == VECTOR_OF || vector == VECTOR_BR)
		return *nrip == exchange.in.field[STATE_rip] + spec->length;
	return *nrip == 0;
}

static bool report_kind(const struct case_spec *spec, uint64_t code)
{
	uint64_t vector = code - SVM_EXIT_EXCEPTION, info1 = svm_get(VMCB_EXITINFO1), nrip;
	uint64_t *out = exchange.out.field;
	bool moved = out[STATE_rip] != exchange.in.field[STATE_rip];

	if (vector == VECTOR_UD && moved && svm_at_end()) {
		report_text("RUNS");
		return true;
	}
	if (code == SVM_EXIT_SHUTDOWN) {
		report_text("SHUTDOWN");
		return false;
	}
	if (vector < 32) {
		report_text("FAULT vector=");
		report_decimal(vector);
		if (vector_has_error_code((unsigned)vector) && spec->mode != MODE_REAL)
			report_field("error", info1);
		if (vector == VECTOR_PF)
			out[STATE_cr2] = svm_get(VMCB_EXITINFO2);
		if (!nrip_is_promised(spec, code, &nrip))
			report_field("nrip", nrip);
	} else {
		report_text("EXIT");
		report_field("code", code);
		report_field("info1", info1);
		report_field("info2", svm_get(VMCB_EXITINFO2));
		if (!nrip_is_promised(spec, code, &nrip))
			report_field("nrip", nrip);
	}
	if (svm_get(VMCB_EXITINTINFO) & SVM_EVENT_VALID)
		report_field("intinfo", svm_get(VMCB_EXITINTINFO));
	return false;
}

static void report_effects(const struct case_spec *spec, bool runs)
{
	uint64_t *flags = &exchange.out.field[STATE_rflags];

	/* Nothing is said of RF in the VMCB (15.7.1). */
	*flags = (*flags & ~(uint64_t)RFLAGS_RF) | (exchange.in.field[STATE_rflags] & RFLAGS_RF);
	effects_report_changes(&exchange, spec, runs);
}

void apic_send_nmi(void); /* apic.c; enter.S calls it too */

/* What is pending when the guest begins: an interrupt waits for its IF, an NMI for GIF. */
static void pend_events(const struct case_spec *spec)
{
	for (unsigned i = 0; i < spec->setting_count; i++) {
		if (spec->settings[i].kind == SETTING_INTERRUPT)
			apic_pend_interrupt((uint8_t)spec->settings[i].value);
		else if (spec->settings[i].kind == SETTING_NMI)
			svm_prelude(apic_send_nmi);
	}
}

STORY(svm_insn)
{
	const struct case_spec *spec = run_current();
	uint64_t code;
	bool runs;

	if (!svm_begin())
		return;
	story_reports();
	svm_prepare(spec->mode, spec->cpl);
	svm_nested_build();
	if (GIVEN(host_nxe))
		machine_write_msr(MSR_EFER, machine_read_msr(MSR_EFER) | EFER_NXE);
	if (baseline_apply(spec, &exchange.in)) {
		svm_load(spec->mode, spec->cpl);
		if (GIVEN(nested))
			svm_nested_use();
		svm_apply_controls(spec);
		svm_host_if = GIVEN(host_if) != 0;
		svm_code(spec->bytes, spec->length);
		pend_events(spec);
		code = svm_run();
		if (code == SVM_EXIT_VMMCALL && svm_handler_vector() != SVM_VECTOR_NONE) {
			struct ending end = {0};

			svm_capture_delivery(spec, &end);
			effects_report(&exchange, spec, &end);
		} else {
			svm_capture();
			runs = report_kind(spec, code);
			report_effects(spec, runs);
		}
	}
	svm_end();
}
