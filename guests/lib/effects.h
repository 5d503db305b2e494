/*
 * effects.h: from how a case ended to the words of its outcome (outcome.h).
 */
#ifndef TRAPLINE_GUESTS_LIB_EFFECTS_H
#define TRAPLINE_GUESTS_LIB_EFFECTS_H

#include "lib/ending.h"

/* Gather the outcome: its kind, then every effect and everything watched. */
void effects_report(struct exchange *x, const struct case_spec *spec, const struct ending *end);

#endif
