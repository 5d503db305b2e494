/* timer.c: stories of the APIC timer (SDM 3A 11.5.4; APM 2 16.4.1). No time is asserted but in ratios. */
#include "lib/apic.h"
#include "lib/machine.h"
#include "lib/story.h"

#define TIMER_VECTOR     0x61u
#define ONE_SHOT         0u
#define PERIODIC         (1u << 17)
#define DEADLINE         (2u << 17)
#define TSC_DEADLINE_MSR 0x6e0u
#define SHORT            2000u
#define LONG_COUNT       0xfffffff0u

static const uint8_t divides[8] = {2, 4, 8, 16, 32, 64, 128, 1}; /* by bits 3, 1 and 0 of the register */

static void set_divide(unsigned n) { apic_write(APIC_DIVIDE, (n & 4) << 1 | (n & 3)); }

static uint64_t read_tsc(void)
{
	uint32_t low, high;

	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
	return (uint64_t)high << 32 | low;
}

/* Once, then it stays at 0; again and again in periodic mode; masked it counts in silence (@value). */
STORY(timer_fires)
{
	uint32_t mode = GIVEN(mode) ? PERIODIC : ONE_SHOT;
	bool masked = GIVEN(value);

	if (!story_apic_mode())
		return;
	set_divide((unsigned)GIVEN(divide));
	apic_write(APIC_LVT_TIMER, mode | (masked ? LVT_MASKED : 0) | TIMER_VECTOR);
	story_check("idle", 0, apic_read(APIC_CURRENT_COUNT));
	apic_write(APIC_INITIAL_COUNT, SHORT);
	story_check("initial", SHORT, apic_read(APIC_INITIAL_COUNT));
	if (masked) {
		for (unsigned i = 0; i < 100000 && apic_read(APIC_CURRENT_COUNT) && mode == ONE_SHOT; i++)
			;
		story_open();
		story_check("silent", 0, story_count(TIMER_VECTOR));
		if (mode == ONE_SHOT)
			story_check("counted_down", 0, apic_read(APIC_CURRENT_COUNT));
		return;
	}
	if (mode == PERIODIC) {
		story_check("again_and_again", 1, story_wait(TIMER_VECTOR, 3));
		apic_write(APIC_INITIAL_COUNT, 0);
		story_open();
		story_forget();
		story_pause(2000);
		story_open();
		story_check("stopped", 0, story_count(TIMER_VECTOR));
		story_check("at_zero", 0, apic_read(APIC_CURRENT_COUNT));
		return;
	}
	story_check("fired", 1, story_wait(TIMER_VECTOR, 1));
	story_check("at_zero", 0, apic_read(APIC_CURRENT_COUNT));
	story_pause(2000);
	story_open();
	story_check("once", 1, story_count(TIMER_VECTOR));
}

static uint32_t counted(unsigned divide, uint64_t cycles)
{
	uint64_t end;

	set_divide(divide);
	apic_write(APIC_INITIAL_COUNT, LONG_COUNT);
	end = read_tsc() + cycles;
	while (read_tsc() < end)
		;
	return LONG_COUNT - apic_read(APIC_CURRENT_COUNT);
}

/* Each divide value against division by 1, within a factor of two. */
STORY(timer_divides)
{
	unsigned n = (unsigned)GIVEN(divide);
	uint64_t cycles = 400000, by_one, by_n;

	if (!story_apic_mode())
		return;
	apic_write(APIC_LVT_TIMER, LVT_MASKED | TIMER_VECTOR);
	story_check("register", (n & 4) << 1 | (n & 3), (set_divide(n), apic_read(APIC_DIVIDE)));
	by_one = counted(7, cycles);
	by_n = counted(n, cycles) * (uint64_t)divides[n];
	story_check("counts", 1, by_one > 0 && by_n > 0);
	story_check("ratio", 1, by_n >= by_one / 2 && by_n <= by_one * 2 + 2u * divides[n]);
}

/* A count that is written again begins again; 0 stops it (SDM 3A 11.5.4). */
STORY(timer_rewritten)
{
	uint32_t before;

	if (!story_apic_mode())
		return;
	set_divide(3);
	apic_write(APIC_LVT_TIMER, TIMER_VECTOR);
	apic_write(APIC_INITIAL_COUNT, LONG_COUNT);
	story_pause(500);
	before = apic_read(APIC_CURRENT_COUNT);
	story_check("counts", 1, before < LONG_COUNT);
	apic_write(APIC_INITIAL_COUNT, LONG_COUNT);
	story_check("again", 1, apic_read(APIC_CURRENT_COUNT) >= before);
	apic_write(APIC_INITIAL_COUNT, 0);
	story_check("stopped", 0, apic_read(APIC_CURRENT_COUNT));
	story_open();
	story_check("silent", 0, story_total());
}

static bool has_deadline(void)
{
	uint32_t r[4];

	machine_cpuid(1, 0, r);
	return story_needs(r[2] >> 24 & 1, "cpuid.1.0.ecx[24]=0");
}

/* IA32_TSC_DEADLINE: armed, fires once and reads 0; 0 disarms; a time that has passed fires at once. */
STORY(timer_deadline)
{
	uint64_t value;

	if (!story_apic_mode() || !has_deadline())
		return;
	apic_write(APIC_LVT_TIMER, DEADLINE | TIMER_VECTOR);
	apic_write(APIC_INITIAL_COUNT, 12345);
	story_check("count_ignored", 0, apic_read(APIC_CURRENT_COUNT));
	switch (GIVEN(mode)) {
	case 0:
		machine_write_msr(TSC_DEADLINE_MSR, read_tsc() + 200000);
		story_check("armed", 1, machine_read_msr(TSC_DEADLINE_MSR) != 0);
		story_check("fired", 1, story_wait(TIMER_VECTOR, 1));
		story_check("disarmed", 0, machine_read_msr(TSC_DEADLINE_MSR));
		story_check("not_early", 1, read_tsc() > 200000);
		break;
	case 1:
		machine_write_msr(TSC_DEADLINE_MSR, 1);
		story_pause(200);
		story_open();
		story_check("at_once", 1, story_count(TIMER_VECTOR));
		story_check("disarmed", 0, machine_read_msr(TSC_DEADLINE_MSR));
		break;
	case 2:
		value = read_tsc() + (1ull << 40);
		machine_write_msr(TSC_DEADLINE_MSR, value);
		story_check("armed", value, machine_read_msr(TSC_DEADLINE_MSR));
		machine_write_msr(TSC_DEADLINE_MSR, 0);
		story_check("disarmed", 0, machine_read_msr(TSC_DEADLINE_MSR));
		story_open();
		story_check("silent", 0, story_total());
		break;
	case 3: /* another mode disarms */
		machine_write_msr(TSC_DEADLINE_MSR, read_tsc() + (1ull << 40));
		apic_write(APIC_LVT_TIMER, ONE_SHOT | TIMER_VECTOR);
		story_check("disarmed", 0, machine_read_msr(TSC_DEADLINE_MSR));
		apic_write(APIC_LVT_TIMER, DEADLINE | TIMER_VECTOR);
		story_check("not_armed_again", 0, machine_read_msr(TSC_DEADLINE_MSR));
		break;
	case 4: /* outside the mode it is ignored */
		apic_write(APIC_LVT_TIMER, ONE_SHOT | TIMER_VECTOR);
		machine_write_msr(TSC_DEADLINE_MSR, 1);
		story_check("ignored", 0, machine_read_msr(TSC_DEADLINE_MSR));
		story_pause(200);
		story_open();
		story_check("silent", 0, story_total());
		break;
	}
}

/* HLT ends with the interrupt, behind itself (SDM 2A HLT). */
static volatile uint64_t halted_rip;

static void note_rip(struct story_frame *frame)
{
	halted_rip = frame->rip;
	if (frame->vector >= 32)
		apic_write(APIC_EOI, 0);
}

STORY(timer_ends_halt)
{
	uint64_t behind;

	if (!story_apic_mode())
		return;
	story_handle(note_rip);
	set_divide((unsigned)GIVEN(divide));
	apic_write(APIC_LVT_TIMER, TIMER_VECTOR);
	apic_write(APIC_INITIAL_COUNT, 50000);
	__asm__ volatile("lea 1f(%%rip), %0\n\tsti\n\thlt\n1:\tcli" : "=r"(behind) : : "memory");
	story_check("fired", 1, story_count(TIMER_VECTOR));
	story_check("rip", behind, halted_rip);
}
