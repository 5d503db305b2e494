/*
 * testdev.h: what test guests for QEMU's PC find there as pc-testdev.
 *
 *   0xe0 to 0xe3      a latch of 32 bits, read and written in any width
 *   0xe4              a 32-bit write flushes what the host caches of the page at that address
 *   0xe8 to 0xeb      the same latch, each access split into bytes
 *   0x2000 to 0x2017  a write drives interrupt line 0 to 23: 0 lowers it, anything else raises it
 *   0xff000000        64 KiB of device memory that behaves as RAM
 *
 * A byte at 0xe9 is the debug console's (dev/debug.h).
 */
#ifndef TRAPLINE_DEV_TESTDEV_H
#define TRAPLINE_DEV_TESTDEV_H

#include "dev/bus.h"
#include "dev/state.h"

#define TESTDEV_LATCH  0xe0
#define TESTDEV_FLUSH  0xe4
#define TESTDEV_BYTES  0xe8
#define TESTDEV_BYTES2 0xea
#define TESTDEV_LINES  0x2000
#define TESTDEV_INPUTS 24u
#define TESTDEV_MEMORY 0xff000000u
#define TESTDEV_SIZE   0x10000u

struct testdev {
	uint8_t latch[4];
	uint32_t lines; /* levels */
	uint8_t memory[TESTDEV_SIZE];

	void *owner;
	void (*interrupt)(void *owner, unsigned gsi, bool raised);
};

extern const struct state_table testdev_state;

/* As bus_claim_ports(). */
int testdev_attach(struct testdev *testdev, struct bus *bus);

#endif
