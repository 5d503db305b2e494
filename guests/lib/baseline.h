/*
 * baseline.h: the registers a case starts from (case_layout.h), and its settings.
 */
#ifndef TRAPLINE_GUESTS_LIB_BASELINE_H
#define TRAPLINE_GUESTS_LIB_BASELINE_H

#include <stdbool.h>

#include "x86/case.h"

/* Fill @state with the baseline of @mode and @cpl. */
void baseline_fill(struct machine_state *state, unsigned mode, unsigned cpl);

/*
 * Apply @spec's settings to @state and to memory. Returns false where a precondition does not
 * hold; a report of "NOTSUP PROBE" has then been gathered.
 */
bool baseline_apply(const struct case_spec *spec, struct machine_state *state);

/* Whether @mode is one of IA-32e mode's two. */
bool baseline_is_64(unsigned mode);

/* Whether @spec reports @field even when it has not changed. */
bool baseline_watched(const struct case_spec *spec, unsigned field);

#endif
