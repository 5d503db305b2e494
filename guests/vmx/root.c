/*
 * root.c: one instruction in VMX root operation, with a current VMCS that is clear, in the mode and at the
 * level of its row: what comes is told as the library tells its own cases.
 *
 * Modes that are reached by way of no paging enter VMX operation on their way (EX_VMXON). Real-address mode
 * has no VMX operation.
 */
#include "lib/baseline.h"
#include "lib/effects.h"
#include "lib/ending.h"
#include "lib/exchange.h"
#include "lib/load.h"
#include "lib/machine.h"
#include "lib/run.h"
#include "lib/story.h"
#include "lib/vmx_world.h"
#include "lib/world.h"
#include "x86/case_layout.h"

static void enter(struct exchange *x, const struct case_spec *spec)
{
	uint64_t cr4 = x->monitor_cr4;

	if (baseline_is_64(spec->mode)) {
		x->monitor_cr4 |= CR4_VMXE;
		enter_long();
		x->monitor_cr4 = cr4;
	} else {
		vmx_do(VMX_DO_VMXOFF, NULL, 0);
		x->vmxon = vmx_page(VMX_PAGE_VMXON);
		x->vmcs = vmx_page(VMX_PAGE_VMCS);
		enter_legacy();
		x->vmxon = 0;
	}
	story_begin_interrupts();
}

STORY(vmx_root)
{
	const struct case_spec *spec = run_current();
	struct exchange *x = &exchange;
	struct ending end = {0};

	story_reports();
	if (!vmx_begin())
		return;
	baseline_fill(&x->in, spec->mode, spec->cpl);
	world_prepare(spec->mode, spec->cpl);
	if (!baseline_apply(spec, &x->in))
		return;
	x->in.field[STATE_cr4] |= CR4_VMXE;
	load_case(x, spec);
	world_expect_busy((uint16_t)x->in.field[STATE_tr]);
	enter(x, spec);
	ending_capture(x, spec, &end);
	effects_report(x, spec, &end);
}
