/*
 * run.h: one case from its settings to its report lines.
 */
#ifndef TRAPLINE_GUESTS_LIB_RUN_H
#define TRAPLINE_GUESTS_LIB_RUN_H

#include <stdbool.h>

#include "x86/case.h"

/* Set up what all cases need, once, after machine_probe and world_build. */
void run_initialize(void);

/* Run @spec: prints its start and end lines. The machine is not put back. */
void run_case(const struct case_spec *spec);

/* The case that is running, or NULL. */
const struct case_spec *run_current(void);

/*
 * Put the machine back and compare it with what the monitor expects of itself. Prints a
 * dirty line and returns false where it differs.
 */
bool run_restore(const struct case_spec *spec);

#endif
