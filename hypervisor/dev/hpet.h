/*
 * hpet.h: a high precision event timer (IA-PC HPET 1.0a): a 64-bit main counter at 100 MHz and three
 * comparators, all of which can be periodic and forced to 32 bits. Inputs of the I/O APIC: 20 to 23; legacy
 * replacement is there, FSB delivery is not and is not advertised.
 *
 * A comparator fires when the counter comes to equal it; one that is passed already waits for the counter to
 * wrap. In periodic mode a write sets the period, and with Tn_VAL_SET_CNF the comparator as well. Registers
 * are accessed by 4 or 8 aligned bytes; of another access, the bytes are those of the register.
 *
 * The line of an edge-triggered interrupt stays raised until the next one, since an 8259A forgets an edge
 * whose line falls before it is acknowledged.
 */
#ifndef TRAPLINE_DEV_HPET_H
#define TRAPLINE_DEV_HPET_H

#include "chip/clock.h"
#include "dev/bus.h"
#include "dev/state.h"

#define HPET_BASE   0xfed00000u
#define HPET_SIZE   1024u
#define HPET_TIMERS 3u
#define HPET_INPUTS 0x00f00000u
#define HPET_ID     0x8086a201u /* what ACPI's table repeats: bits 31:0 of the capabilities */
#define HPET_NS     10u         /* of a tick */

struct hpet_timer {
	uint64_t config, comparator, period;
};

struct hpet {
	uint64_t config, status;
	uint64_t counter,
		since; /* the main counter's value at the time @since; it stands still while disabled */
	struct hpet_timer timer[HPET_TIMERS];
	uint8_t edges;  /* timers whose edge-triggered line is raised */
	uint32_t lines; /* inputs that are raised */
	uint64_t matched[HPET_TIMERS]; /* count at which the timer has fired last, so that a load does not make it do so again;
					* UINT64_MAX: it has not since it was set */

	struct clock *clock;
	struct clock_timer due[HPET_TIMERS];
	struct hpet_owner {
		struct hpet *hpet;
		unsigned index;
	} self[HPET_TIMERS];
	void *owner;
	/* @input is 20 to 23, or in legacy replacement 0 for the line that is the PIT's otherwise, and 8 for
	 * the RTC's. */
	void (*interrupt)(void *owner, unsigned input, bool raised);
	void (*legacy)(void *owner, bool replaced); /* hpet_replaces_legacy() has changed; may be NULL */
};

extern const struct state_table hpet_state;

/* @hpet was zero but for owner and interrupt. False: the clock has no room. */
bool hpet_init(struct hpet *hpet, struct clock *clock);
void hpet_reset(struct hpet *hpet);
/* Whether the lines of the PIT and the RTC are cut, and the HPET's take their places. */
bool hpet_replaces_legacy(const struct hpet *hpet);
/* As bus_claim_mmio(). */
int hpet_attach(struct hpet *hpet, struct bus *bus);

#endif
