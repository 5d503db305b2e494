#include "chip/clock.h"

static void find_next(struct clock *clock)
{
	clock->next = CLOCK_NEVER;
	for (unsigned i = 0; i < clock->count; i++)
		if (clock->timer[i]->at < clock->next)
			clock->next = clock->timer[i]->at;
}

void clock_init(struct clock *clock) { *clock = (struct clock){.next = CLOCK_NEVER}; }

bool clock_add(struct clock *clock, struct clock_timer *timer, void (*fired)(void *owner, uint64_t due),
	       void *owner)
{
	if (clock->count == CLOCK_TIMERS_MAX)
		return false;
	*timer = (struct clock_timer){.at = CLOCK_NEVER, .clock = clock, .fired = fired, .owner = owner};
	clock->timer[clock->count++] = timer;
	return true;
}

void clock_arm(struct clock_timer *timer, uint64_t at)
{
	struct clock *clock = timer->clock;
	uint64_t was = clock->next;

	timer->at = at;
	find_next(clock);
	if (clock->next < was && clock->changed)
		clock->changed(clock->owner);
}

uint64_t clock_now(const struct clock *clock) { return clock->now ? clock->now(clock->owner) : 0; }

static void fire_one(struct clock *clock)
{
	for (unsigned i = 0; i < clock->count; i++) {
		struct clock_timer *timer = clock->timer[i];
		uint64_t due = timer->at;

		if (due != clock->next)
			continue;
		timer->at = CLOCK_NEVER;
		clock->fired++;
		find_next(clock);
		timer->fired(timer->owner, due);
		return;
	}
}

/* At once, before the machine goes on: a timer of a state that came from elsewhere may have been due for ages. */
#define BURST_MAX 4096u

void clock_run(struct clock *clock)
{
	for (unsigned i = 0; i < BURST_MAX && clock->next != CLOCK_NEVER && clock->next <= clock_now(clock); i++)
		fire_one(clock);
}
