/*
 * i8237.h: the PC's two 8237A DMA controllers (Intel 8237A data sheet; 82371AB, section 4) with their page
 * registers.
 *
 * No device of this machine asks for a transfer: channels are programmed and read back, requests by software
 * are kept, and none is ever served. What would move memory by itself (memory to memory, which a PC does not
 * wire, or a software request in block mode on an unmasked channel of an enabled controller) is refused on
 * the bus.
 */
#ifndef TRAPLINE_DEV_I8237_H
#define TRAPLINE_DEV_I8237_H

#include "dev/bus.h"
#include "dev/state.h"

#define DMA_FIRST  0x00 /* 16 ports, a byte apart */
#define DMA_SECOND 0xc0 /* 16 registers, two bytes apart */
#define DMA_PAGES  0x84 /* page registers 0x84 to 0x8f; those at 0x80 to 0x83 are dev/debug.h's */

struct i8237_chip {
	uint16_t base_address[4], address[4], base_count[4], count[4];
	uint8_t mode[4];
	uint8_t command, mask, request, high; /* high: the flip-flop, the next byte is the upper one */
};

struct i8237 {
	struct i8237_chip chip[2];
	uint8_t pages[12];

	struct bus *bus;
};

extern const struct state_table i8237_state;

void i8237_reset(struct i8237 *controllers);
/* As bus_claim_ports(). */
int i8237_attach(struct i8237 *controllers, struct bus *bus);

#endif
