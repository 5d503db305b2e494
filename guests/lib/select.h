/*
 * select.h: the guest's command line: `cases=GLOB,GLOB` (all of `*`, `?` and plain characters;
 * without it every case) and `from=ID` (that case and those after it).
 */
#ifndef TRAPLINE_GUESTS_LIB_SELECT_H
#define TRAPLINE_GUESTS_LIB_SELECT_H

#include <stdbool.h>
#include <stdint.h>

/* The command line in a multiboot (1) or PVH (2) information block; "" where there is none. */
const char *select_command_line(uint32_t protocol, const void *information);

/* The index of the case from= names: 0 without it, case_count where there is no such case. */
uint32_t select_first(const char *command_line);

/* Whether `cases=` selects @id. */
bool select_matches(const char *command_line, const char *id);

#endif
