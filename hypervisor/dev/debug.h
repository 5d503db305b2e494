/*
 * debug.h: the debug console (0xe9), the debug exit (0xf4) and the diagnostic port (0x80).
 */
#ifndef TRAPLINE_DEV_DEBUG_H
#define TRAPLINE_DEV_DEBUG_H

#include "dev/bus.h"
#include "dev/state.h"

struct debug {
	uint8_t post[4]; /* what was last written to ports 0x80 to 0x83; reads give it back */

	void *owner;
	void (*printed)(void *owner, uint8_t byte);
	void (*exited)(void *owner, uint32_t value); /* 1, 2 or 4 bytes */
};

#define POST_PORT 0x80

extern const struct state_table debug_state;

/* As bus_claim_ports(). */
int debug_attach(struct debug *debug, struct bus *bus);

#endif
