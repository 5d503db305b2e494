/*
 * lapic_timer.c: the local APIC's timer (SDM 3A 11.5.4, APM 2 16.4.1).
 *
 * Nothing counts: the registers say since when how much is left, and the clock's timer is armed for
 * the end only where somebody would notice it. A masked timer is not armed, so that a halt which only it
 * could end is one that nothing ends.
 */
#include "chip/lapic_parts.h"

static enum lapic_timer_mode mode_of(uint32_t entry)
{
	return (enum lapic_timer_mode)((entry & LVT_TIMER_MODE) >> 17);
}

static enum lapic_timer_mode mode(const struct lapic *lapic) { return mode_of(lapic->lvt[LVT_TIMER]); }

/* Nanoseconds of a count: the divider is in bits 3, 1 and 0 of the register, 111B is 1 (SDM 3A figure 11-10).
 */
static uint64_t tick(const struct lapic *lapic)
{
	uint32_t code = (lapic->divide & 3) | (lapic->divide & 8) >> 1;

	return (uint64_t)lapic->model.timer_ns << ((code + 1) & 7);
}

static uint64_t end_of_count(const struct lapic *lapic)
{
	return lapic->timer_began + lapic->timer_count * tick(lapic);
}

/* The count has come to its end: once, or from the end on again and again. */
static void end_count(struct lapic *lapic, uint64_t now)
{
	uint64_t end = end_of_count(lapic), period = lapic->initial_count * tick(lapic);

	lapic->timer_count = 0;
	if (mode(lapic) == TIMER_PERIODIC && period) {
		lapic->timer_count = lapic->initial_count;
		lapic->timer_began = end + (now - end) / period * period;
	}
	lapic_deliver_local(lapic, LVT_TIMER);
}

static void end_deadline(struct lapic *lapic)
{
	lapic->tsc_deadline = 0;
	lapic_deliver_local(lapic, LVT_TIMER);
}

void lapic_timer_settle(struct lapic *lapic)
{
	uint64_t now = clock_now(lapic->timer.clock);

	if (lapic->tsc_deadline && lapic->cpu.tsc(lapic->cpu.owner) >= lapic->tsc_deadline)
		end_deadline(lapic);
	if (lapic->timer_count && now >= end_of_count(lapic))
		end_count(lapic, now);
}

void lapic_timer_arm(struct lapic *lapic)
{
	uint64_t at = CLOCK_NEVER;

	if (lapic->lvt[LVT_TIMER] & APIC_MASKED)
		at = CLOCK_NEVER;
	else if (lapic->tsc_deadline)
		at = lapic->cpu.tsc_time(lapic->cpu.owner, lapic->tsc_deadline);
	else if (lapic->timer_count)
		at = end_of_count(lapic);
	clock_arm(&lapic->timer, at);
}

/* The clock's word counts for the deadline: it is the TSC's time rounded up. */
void lapic_timer_fired(void *owner, uint64_t due)
{
	struct lapic *lapic = owner;

	(void)due;
	if (lapic->tsc_deadline)
		end_deadline(lapic);
	lapic_timer_settle(lapic);
	lapic_timer_arm(lapic);
}

void lapic_tsc_changed(struct lapic *lapic)
{
	lapic_timer_settle(lapic);
	lapic_timer_arm(lapic);
}

/* In TSC-deadline mode it reads 0 (SDM 3A 11.5.4.1): nothing counts. */
uint32_t lapic_timer_current(struct lapic *lapic)
{
	lapic_timer_settle(lapic);
	lapic_timer_arm(lapic);
	if (!lapic->timer_count)
		return 0;
	return lapic->timer_count -
	       (uint32_t)((clock_now(lapic->timer.clock) - lapic->timer_began) / tick(lapic));
}

/* A write restarts the count, 0 stops it; in TSC-deadline mode it is ignored. */
void lapic_timer_write_initial(struct lapic *lapic, uint32_t count)
{
	lapic_timer_settle(lapic);
	if (CHIP_CHECK(LAPIC_INITIAL_COUNT_IGNORED, mode(lapic) == TIMER_DEADLINE))
		return;
	lapic->initial_count = count;
	lapic->timer_count = mode(lapic) == TIMER_RESERVED ? 0 : count;
	lapic->timer_began = clock_now(lapic->timer.clock);
	lapic_timer_arm(lapic);
}

/* What is left counts on with the new divider. */
void lapic_timer_write_divide(struct lapic *lapic, uint32_t divide)
{
	uint32_t left = lapic_timer_current(lapic);

	lapic->divide = divide & 0xb;
	lapic->timer_count = left;
	lapic->timer_began = clock_now(lapic->timer.clock);
	lapic_timer_arm(lapic);
}

/*
 * To and from TSC-deadline mode disarms the timer (SDM 3A 11.5.4.1). Between the other two the count
 * goes on, and the mode says what happens at its end.
 */
void lapic_timer_write_lvt(struct lapic *lapic, uint32_t entry)
{
	enum lapic_timer_mode was = mode(lapic), now = mode_of(entry);

	lapic_timer_settle(lapic);
	lapic->lvt[LVT_TIMER] = entry;
	if (CHIP_CHECK(LAPIC_TIMER_DISARM, was != now && (was | now) >= TIMER_DEADLINE)) {
		lapic->timer_count = 0;
		lapic->tsc_deadline = 0;
	}
	lapic_timer_arm(lapic);
}

uint64_t lapic_timer_deadline(struct lapic *lapic)
{
	lapic_timer_settle(lapic);
	lapic_timer_arm(lapic);
	return lapic->tsc_deadline;
}

/* 0 disarms; a time that has passed is there at once; outside TSC-deadline mode a write is ignored. */
void lapic_timer_write_deadline(struct lapic *lapic, uint64_t tsc)
{
	lapic_timer_settle(lapic);
	if (CHIP_CHECK(LAPIC_DEADLINE_IGNORED, mode(lapic) != TIMER_DEADLINE))
		return;
	lapic->tsc_deadline = tsc;
	lapic_timer_settle(lapic);
	lapic_timer_arm(lapic);
}
