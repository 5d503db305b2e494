/*
 * clock.h: the machine's time, and what is to happen when.
 *
 * One clock a machine; every timer of every chip and device is armed on it. Who runs the machine (an engine)
 * says what time it is, asks when the next timer is due, and calls clock_run() when that has come. Times are
 * nanoseconds since the machine was made. Under the software CPU they follow instructions retired, so that
 * a timer fires at the same instruction in every run; a halted machine's time jumps to the next timer.
 *
 * Calls come one at a time (an engine with threads holds its lock).
 */
#ifndef TRAPLINE_CHIP_CLOCK_H
#define TRAPLINE_CHIP_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#define CLOCK_NEVER      UINT64_MAX
#define CLOCK_TIMERS_MAX 128 /* 64 local APICs and the devices */

struct clock;

struct clock_timer {
	/* CLOCK_NEVER: not armed. Part of its device's state, whose loaded() arms the timer again. */
	uint64_t at;
	struct clock *clock;
	/* Called by clock_run() once @at has come; the timer is no longer armed then, and may be armed again
	 * from here. A periodic timer counts from the @due that it asked for, not from now. */
	void (*fired)(void *owner, uint64_t due);
	void *owner;
};

struct clock {
	/* Set by the engine. */
	void *owner;
	uint64_t (*now)(void *owner);
	/* The next timer is due earlier than it was (within a bus call too). */
	void (*changed)(void *owner);

	uint64_t fired; /* how often a timer has */
	uint64_t next;  /* when the next timer is due; CLOCK_NEVER: none is armed */
	unsigned count;
	struct clock_timer *timer[CLOCK_TIMERS_MAX];
};

/* An empty clock whose time is 0 until now() is set. */
void clock_init(struct clock *clock);
/* Adds an unarmed timer, which the caller owns and which outlives the clock's use. False: no room. */
bool clock_add(struct clock *clock, struct clock_timer *timer, void (*fired)(void *owner, uint64_t due),
	       void *owner);
/* Arms a timer, moves it, or disarms it (CLOCK_NEVER). A time that has passed fires at the next clock_run().
 */
void clock_arm(struct clock_timer *timer, uint64_t at);
uint64_t clock_now(const struct clock *clock);
/* Fires all timers that are due, the earliest first, of equal ones in the order they were added; of more than some thousand
 * the next call fires the rest. */
void clock_run(struct clock *clock);

#endif
