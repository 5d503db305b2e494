/*
 * enter.c: VMRUN's checks of what it loads (APM 2 15.5.1): a guest that is in order, the same with what the
 * row changes in its VMCB, and the first again, which must run as it did; nothing of the host changes.
 */
#include "lib/baseline.h"
#include "lib/exchange.h"
#include "lib/machine.h"
#include "lib/report.h"
#include "lib/run.h"
#include "lib/story.h"
#include "lib/svm_world.h"
#include "svm/svm.h"
#include "x86/case_layout.h"
#include "x86/vectors.h"

/* What the host had before VMRUN and must have behind it (15.5.1, 15.6). */
struct host {
	uint64_t cr0, cr3, cr4, efer, rflags;
	struct table_pointer gdtr, idtr;
	uint16_t cs, ss, ds, es;
};

static void look_at_host(struct host *host)
{
	*host = (struct host){.cr0 = machine_read_cr0(),
			      .cr3 = machine_read_cr3(),
			      .cr4 = machine_read_cr4(),
			      .efer = machine_read_msr(MSR_EFER)};
	__asm__ volatile("pushfq; pop %0" : "=r"(host->rflags));
	__asm__ volatile("sgdt %0" : "=m"(host->gdtr));
	__asm__ volatile("sidt %0" : "=m"(host->idtr));
	__asm__ volatile("mov %%cs, %0" : "=r"(host->cs));
	__asm__ volatile("mov %%ss, %0" : "=r"(host->ss));
	__asm__ volatile("mov %%ds, %0" : "=r"(host->ds));
	__asm__ volatile("mov %%es, %0" : "=r"(host->es));
}

static void report_check(const char *name, uint64_t want, uint64_t got)
{
	if (want == got)
		return;
	report_text(" ");
	report_text(name);
	report_text(":want=0x");
	report_hex(want);
	report_text(" ");
	report_text(name);
	report_text(":got=0x");
	report_hex(got);
}

static void report_host(const struct host *was)
{
	struct host is;

	look_at_host(&is);
	report_check("host_cr0", was->cr0, is.cr0);
	report_check("host_cr3", was->cr3, is.cr3);
	report_check("host_cr4", was->cr4, is.cr4);
	report_check("host_efer", was->efer, is.efer);
	report_check("host_rflags", was->rflags & (RFLAGS_IF | RFLAGS_DF | RFLAGS_TF),
		     is.rflags & (RFLAGS_IF | RFLAGS_DF | RFLAGS_TF));
	report_check("host_gdtr_base", was->gdtr.base, is.gdtr.base);
	report_check("host_gdtr_limit", was->gdtr.limit, is.gdtr.limit);
	report_check("host_idtr_base", was->idtr.base, is.idtr.base);
	report_check("host_idtr_limit", was->idtr.limit, is.idtr.limit);
	report_check("host_cs", was->cs, is.cs);
	report_check("host_ss", was->ss, is.ss);
	report_check("host_ds", was->ds, is.ds);
	report_check("host_es", was->es, is.es);
}

static void report_kind(uint64_t code)
{
	uint64_t vector = code - SVM_EXIT_EXCEPTION;

	if (vector == VECTOR_UD && svm_at_end()) {
		report_text("RUNS");
	} else if (code == SVM_EXIT_SHUTDOWN) {
		report_text("SHUTDOWN");
	} else if (vector < 32) {
		report_text("FAULT vector=");
		report_decimal(vector);
		if (vector_has_error_code((unsigned)vector) && svm_get(VMCB_CR0) & CR0_PE)
			report_field("error", svm_get(VMCB_EXITINFO1));
		if (vector == VECTOR_PF)
			report_field("cr2", svm_get(VMCB_EXITINFO2));
	} else {
		report_text("EXIT");
		report_field("code", code);
		report_field("info1", svm_get(VMCB_EXITINFO1));
		report_field("info2", svm_get(VMCB_EXITINFO2));
	}
}

/* The guest as it should be, once more. Whether it ran to its end. */
static bool run_baseline(const struct case_spec *spec)
{
	svm_load(spec->mode, spec->cpl);
	if (GIVEN(nested))
		svm_nested_use();
	return svm_run() == SVM_EXIT_EXCEPTION + VECTOR_UD && svm_at_end();
}

STORY(svm_enter)
{
	const struct case_spec *spec = run_current();
	struct host host;
	bool first;

	if (!svm_begin())
		return;
	story_reports();
	svm_prepare(spec->mode, spec->cpl);
	svm_nested_build();
	if (baseline_apply(spec, &exchange.in)) {
		svm_code(spec->bytes, spec->length);
		first = run_baseline(spec);
		svm_load(spec->mode, spec->cpl);
		svm_apply_controls(spec);
		look_at_host(&host);
		report_kind(svm_run());
		report_host(&host);
		report_check("before", true, first);
		machine_fill(svm_vmcb, 0, sizeof(svm_vmcb));
		report_check("again", true, run_baseline(spec));
	}
	svm_end();
}
