/*
 * control.h: the device of x86/control_device.h, the host's side.
 */
#ifndef TRAPLINE_DEV_CONTROL_H
#define TRAPLINE_DEV_CONTROL_H

#include "dev/bus.h"
#include "dev/state.h"

struct control {
	uint8_t present; /* 0: SIGNATURE reads as ones, and nothing else may be used */
	uint8_t ready;   /* READY was said */

	/* The host's, and not part of the machine: what CASE answers. */
	uint32_t case_index;
	void *owner;
	void (*command)(void *owner, uint32_t command);                /* CONTROL_READY or CONTROL_DONE */
	void (*misused)(void *owner, const struct bus_access *access); /* against the contract */
};

extern const struct state_table control_state;

/* As bus_claim_ports(). */
int control_attach(struct control *control, struct bus *bus);

#endif
