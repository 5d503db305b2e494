/*
 * pit.h: the PC's 8254 interval timer with port 61H, which has the gate of counter 2 and shows its output.
 *
 * Freestanding. Time is the clock's: input pulse n of the counters comes at n / 1193182 s, rounded up to
 * nanoseconds, whoever looks when. The gates of counters 0 and 1 are high.
 */
#ifndef TRAPLINE_CHIP_PIT_H
#define TRAPLINE_CHIP_PIT_H

#include <stdbool.h>
#include <stdint.h>

#include "chip/clock.h"
#include "x86/state_table.h"

#define PIT_HZ 1193182u

/* Ports that pit_read() and pit_write() take. */
enum pit_port { PIT_COUNTER0 = 0x40, PIT_COUNTER1, PIT_COUNTER2, PIT_CONTROL, PIT_PORT61 = 0x61 };

/* Without padding, as it is saved as a whole. */
struct pit_counter {
	uint64_t since;   /* input pulse at which the rest was so */
	uint64_t load_at; /* input pulse that loads CR into CE; UINT64_MAX: none */
	uint32_t reload;  /* CR: 1 to 65536, or 10000 in BCD */
	uint32_t in_use;  /* mode 3: CR as this half found it */
	uint32_t count;   /* CE, up to 65536; mode 3: pulses left of this half */
	uint16_t latch;
	uint8_t control; /* access, mode and BCD, as in the control word */
	uint8_t status;
	uint8_t gate, output;          /* levels */
	uint8_t null_count;            /* what was written is not in CE yet */
	uint8_t write_high, read_high; /* the second byte of two is next */
	uint8_t low;                   /* the first one, written */
	uint8_t latched, status_latched;
	uint8_t running; /* CE counts (but for a low gate) */
	uint8_t written; /* CR has been, since the control word */
	uint8_t armed;   /* modes 0, 1, 4, 5: the terminal count is still to come, or just now */
	uint8_t unused[3];
};

struct pit {
	struct pit_counter counter[3];
	uint8_t port61; /* bits 0 (gate of counter 2), 1 (speaker data), 2 and 3 (NMI enables) */

	struct clock_timer timer;
	/* Output of counter 0, when it changes and after a load: IRQ 0. */
	void (*output)(void *owner, bool level);
	void *owner;
};

extern const struct state_table pit_state;

/* False: the clock has no room. @pit was zero; the rest is borrowed. @output may be NULL. Resets. */
bool pit_init(struct pit *pit, struct clock *clock, void (*output)(void *owner, bool level), void *owner);
void pit_reset(struct pit *pit);
/* The ports of enum pit_port, a byte each. */
uint8_t pit_read(struct pit *pit, uint16_t port);
void pit_write(struct pit *pit, uint16_t port, uint8_t value);

#endif
