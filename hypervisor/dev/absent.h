/*
 * absent.h: devices of a PC that this machine does not have, by name. Software looks for them at their
 * customary ports before it knows; an empty bus answers with ones and takes writes. Each such range stands in
 * absent.def with what looks there, so that every other access that nobody claims still ends the run.
 */
#ifndef TRAPLINE_DEV_ABSENT_H
#define TRAPLINE_DEV_ABSENT_H

#include "dev/bus.h"

/* Claims the ranges of absent.def. As bus_claim_ports(). */
int absent_attach(struct bus *bus);
/* The name of what is absent at @port, or NULL. */
const char *absent_name(uint16_t port);

#endif
