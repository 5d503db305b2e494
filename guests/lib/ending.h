/*
 * ending.h: how a case ended, read from the frame that was pushed and from what the assembler stored.
 */
#ifndef TRAPLINE_GUESTS_LIB_ENDING_H
#define TRAPLINE_GUESTS_LIB_ENDING_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/exchange.h"

struct ending {
	unsigned vector;
	bool has_error;
	uint64_t error;
};

/* Complete @x->out and fill @end. Takes the frame on the case's stack for unchanged memory. */
void ending_capture(struct exchange *x, const struct case_spec *spec, struct ending *end);

#endif
