/*
 * crossing.h: two paths beside each other, for accesses that cross from one page to the next.
 */
#ifndef TRAPLINE_SUITES_PAGING_CROSSING_H
#define TRAPLINE_SUITES_PAGING_CROSSING_H

#include "words.h"

enum defect { DEFECT_NONE, DEFECT_P0, DEFECT_W0, DEFECT_U0, DEFECT_RESERVED, DEFECT_COUNT };

struct crossing {
	enum shape shape; /* of 4-KiB pages */
	enum defect first, second;
	bool wp;
};

/* The cursor over shapes, pairs of defects and CR0.WP: false past the last. */
bool crossing_next(struct crossing *at);

/* An access of @INSN across, with every pair of defects. */
#define ACROSS(INSN, WHERE)                                                                                  \
	for (struct crossing at = {.shape = SHAPE_COUNT}; crossing_next(&at);)                               \
		TRAP(INSN, WHERE, crossing_given(x, &at), crossing_say(x, &at), SDM(PAGE_FAULTS),            \
		     APM(ACCESSED_DIRTY))

void crossing_given(struct cell *x, const struct crossing *at);
void crossing_say(struct cell *x, const struct crossing *at);

#endif
