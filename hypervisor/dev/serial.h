/*
 * serial.h: a 16550A UART, byte by byte: what is sent is gone at once, what is received
 * waits in the FIFO, or in the one register where FIFOs are off (National PC16550D data sheet).
 *
 * Bytes below the trigger level interrupt once nothing has come and nothing was read for four character times, at
 * the rate and format that are set; without a clock, at once. As on a PC, OUT2 gates the interrupt line.
 */
#ifndef TRAPLINE_DEV_SERIAL_H
#define TRAPLINE_DEV_SERIAL_H

#include "chip/clock.h"
#include "dev/bus.h"
#include "dev/state.h"

#define SERIAL_PORTS 8
#define SERIAL_FIFO  16

struct serial {
	/* Registers, by the datasheet's names. */
	uint8_t ier, fcr, lcr, mcr, lsr, msr, scr;
	uint16_t divisor;
	uint8_t fifo[SERIAL_FIFO]; /* received, oldest at fifo_first */
	uint8_t fifo_error[SERIAL_FIFO]; /* LSR bits that come with each byte */
	uint8_t fifo_first, fifo_count;
	uint8_t timed_out;         /* bytes have waited for the time-out */
	uint64_t times_out_at;     /* CLOCK_NEVER: they do not wait */
	uint8_t thr_empty_pending; /* the transmitter-empty interrupt has not been read from IIR */
	uint8_t line;              /* level of the interrupt line */

	struct clock *clock;       /* NULL: there is none */
	struct clock_timer timer;
	void *owner;
	void (*sent)(void *owner, uint8_t byte);
	void (*interrupt)(void *owner, bool raised); /* NULL: the line leads nowhere */
};

extern const struct state_table serial_state;

void serial_reset(struct serial *serial);
/* Gives it the clock. False: the clock has no room. */
bool serial_use_clock(struct serial *serial, struct clock *clock);
/* Claims the eight ports from @first. As bus_claim_ports(). */
int serial_attach(struct serial *serial, struct bus *bus, uint16_t first);
/* Whether a byte that comes would interrupt. */
bool serial_listens(const struct serial *serial);
/* How many bytes can be received without an overrun. */
unsigned serial_room(const struct serial *serial);
/* A byte arrives at the line; without room it is lost and the guest sees an overrun. */
void serial_receive(struct serial *serial, uint8_t byte);

#endif
