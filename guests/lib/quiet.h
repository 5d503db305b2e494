/*
 * quiet.h: the fields that C loads and looks at by itself, before the case's own state is put in
 * force and after the monitor's is back: MSRs, FS and GS bases, DR0 to DR3, DR6, CR2, CR8, XCR0, PKRU.
 * What the processor holds is remembered, so that only what differs is loaded.
 */
#ifndef TRAPLINE_GUESTS_LIB_QUIET_H
#define TRAPLINE_GUESTS_LIB_QUIET_H

#include "lib/exchange.h"

/* Load all of them from exchange.in, whatever the processor holds; once, at boot. */
void quiet_initialize(struct exchange *x);

/* Load those of @x->in that the processor does not hold (FS and GS bases are the assembler's). */
void quiet_load(const struct exchange *x);

/* Fill those of @x->out, and undo what would bind the monitor too (PKRU). */
void quiet_capture(struct exchange *x);

#endif
