/*
 * load.h: from a case's state in exchange.in to everything that enter_long or enter_legacy loads.
 */
#ifndef TRAPLINE_GUESTS_LIB_LOAD_H
#define TRAPLINE_GUESTS_LIB_LOAD_H

#include <stdbool.h>

#include "lib/exchange.h"

/* Write the bytes under test and the frame into memory, fill the rest of @x, load what C can. */
void load_case(struct exchange *x, const struct case_spec *spec);

/* Have the interrupts and the NMI that the case begins with pending. Whether there are any. */
bool load_events(const struct case_spec *spec);

/* Whether PUSHFD stands between the bytes under test and the end (load.c says why). */
bool load_pushes_flags(const struct case_spec *spec);

/* For LGDT, LIDT and their kin. */
void load_table(struct table_pointer *table, uint64_t base, uint64_t limit);

#endif
