#include "lib/run.h"

#include "lib/apic.h"
#include "lib/baseline.h"
#include "lib/effects.h"
#include "lib/load.h"
#include "lib/machine.h"
#include "lib/quiet.h"
#include "lib/report.h"
#include "lib/story.h"
#include "lib/world.h"
#include "x86/case_layout.h"

extern const uint8_t monitor_stubs[], enter_legacy_32[], image_start[], text_end[], monitor_gdt[];
extern const uint16_t monitor_gdt_limit;

static uint64_t monitor_idt[2 * 32];
static uint64_t text_sum;

static uint64_t sum_text(void)
{
	uint64_t sum = 0;

	for (const uint8_t *p = image_start; p + 8 <= text_end; p += 8)
		sum = (sum << 1 | sum >> 63) ^ *(const uint64_t *)(const void *)p;
	return sum;
}

static uint64_t monitor_apic_base;

static uint64_t apic_base(void)
{
	uint32_t r[4];

	machine_cpuid(1, 0, r);
	return r[3] >> 9 & 1 ? machine_read_msr(APIC_BASE_MSR) : 0;
}

void run_initialize(void)
{
	struct exchange *x = &exchange;
	uint64_t cr4 = CR4_PAE | (machine.xsave ? CR4_OSXSAVE : 0) | (machine.pku ? CR4_PKE : 0);

	machine_fill(x, 0, sizeof(*x));
	for (unsigned n = 0; n < 32; n++) {
		uint64_t stub = (uintptr_t)(monitor_stubs + 16 * n);

		monitor_idt[2 * n] = (stub & 0xffff) | MONITOR_CS64 << 16 |
				     (uint64_t)(SEG_P | TYPE_INTERRUPT_GATE) << 40 |
				     (stub >> 16 & 0xffff) << 48;
	}
	load_table(&x->monitor_gdtr, (uintptr_t)monitor_gdt, monitor_gdt_limit);
	load_table(&x->monitor_idtr, (uintptr_t)monitor_idt, sizeof(monitor_idt) - 1);
	load_table(&x->early_idtr, CASE_IDT32, CASE_IDT32_LIMIT);
	x->far32_offset = (uint32_t)(uintptr_t)enter_legacy_32;
	x->far32_selector = MONITOR_CS32;
	machine_write_cr4(cr4);
	x->monitor_cr0 = machine_read_cr0();
	x->monitor_cr3 = machine_read_cr3();
	x->monitor_cr4 = cr4;
	x->monitor_efer = machine_read_msr(MSR_EFER);
	__asm__ volatile("lidt %0" : : "m"(x->monitor_idtr));
	quiet_initialize(x);
	text_sum = sum_text();
	monitor_apic_base = apic_base();
}

static const struct case_spec *current;

const struct case_spec *run_current(void) { return current; }

void run_case(const struct case_spec *spec)
{
	struct exchange *x = &exchange;
	struct ending end = {0};
	bool events;

	current = spec;
	report_text("start ");
	report_text(spec->id);
	report_end_line();
	report_text("end ");
	report_text(spec->id);
	report_text(" ");
	if (spec->story) {
		story_run(spec);
		report_end_line();
		current = NULL;
		return;
	}
	baseline_fill(&x->in, spec->mode, spec->cpl);
	world_prepare(spec->mode, spec->cpl);
	if (baseline_apply(spec, &x->in)) {
		load_case(x, spec);
		events = load_events(spec);
		world_expect_busy((uint16_t)x->in.field[STATE_tr]);
		machine_tell_l1(CASE_STUB, spec->length);
		if (baseline_is_64(spec->mode)) {
			if (x->in.field[STATE_cr4] & CR4_LA57)
				enter_la57();
			enter_long();
		} else {
			enter_legacy();
		}
		machine_tell_l1(CASE_STUB, 0);
		ending_capture(x, spec, &end);
		if (events && !machine.control_device)
			apic_settle();
		effects_report(x, spec, &end);
	}
	report_end_line();
	current = NULL;
}

static bool check(const struct case_spec *spec, const char *name, uint64_t wanted, uint64_t found)
{
	if (wanted == found)
		return true;
	report_text("dirty ");
	report_text(spec->id);
	report_field(name, found);
	report_end_line();
	return false;
}

bool run_restore(const struct case_spec *spec)
{
	struct exchange *x = &exchange;

	world_restore();
	machine_write_msr(MSR_EFER, x->monitor_efer);
	return check(spec, "cr0", x->monitor_cr0, machine_read_cr0()) &&
	       check(spec, "cr3", x->monitor_cr3, machine_read_cr3()) &&
	       check(spec, "cr4", x->monitor_cr4, machine_read_cr4()) &&
	       check(spec, "efer", x->monitor_efer, machine_read_msr(MSR_EFER)) &&
	       check(spec, "apic_base", monitor_apic_base, apic_base()) &&
	       check(spec, "spoiled", 0, story_has_spoiled()) &&
	       check(spec, "text", text_sum, sum_text());
}
