/*
 * effects.h: from how a case ended to the words of its outcome (outcome.h).
 */
#ifndef TRAPLINE_GUESTS_LIB_EFFECTS_H
#define TRAPLINE_GUESTS_LIB_EFFECTS_H

#include "lib/ending.h"

/* Gather the outcome: its kind, then every effect and everything watched. */
void effects_report(struct exchange *x, const struct case_spec *spec, const struct ending *end);

/*
 * The effects and everything watched alone: registers of x->out that differ from x->in (for RIP: from behind
 * the instruction where it @runs), the memory of the case's watches, and what else of its window has changed.
 */
void effects_report_changes(const struct exchange *x, const struct case_spec *spec, bool runs);

#endif
