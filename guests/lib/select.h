/*
 * select.h: the guest's command line: `cases=GLOB,GLOB` (all of `*`, `?` and plain characters;
 * without it every case), `from=ID` (that case and those after it) and `index=N,N-N` (by their place
 * in the image, counted from 0, in rising order: short enough for any command line). A case runs
 * that all words on the command line select.
 */
#ifndef TRAPLINE_GUESTS_LIB_SELECT_H
#define TRAPLINE_GUESTS_LIB_SELECT_H

#include <stdbool.h>
#include <stdint.h>

/* The command line in a multiboot (1) or PVH (2) information block; "" where there is none. */
const char *select_command_line(uint32_t protocol, const void *information);

/* What is selected, and how far select_next() has come. */
struct selection {
	const char *globs, *ranges; /* NULL: the word is not there */
	uint32_t at;                /* the next index to look at */
	uint32_t first, last;       /* the range that was read last */
};

/* Begin with the first selected case; from= that names no case selects none. */
void select_start(struct selection *selection, const char *command_line);

/* The index of the next selected case, in the order of the table; case_count after the last. */
uint32_t select_next(struct selection *selection);

#endif
