/*
 * compare.h: two outcomes of a case, and what the manuals leave undefined in them.
 */
#ifndef TRAPLINE_ORACLE_COMPARE_H
#define TRAPLINE_ORACLE_COMPARE_H

#include "oracle/generate.h"

/* What of a case's outcome is not compared. */
struct undefined {
	uint64_t rflags;
	uint16_t fsw;
	bool result; /* all of it */
};

/* What the instruction at the beginning of @c leaves undefined; of a sequence, all instructions in it. */
struct undefined undefined_of(const struct generator *g, const struct oracle_case *c);

/* Whether both outcomes are the same, but for what is undefined. */
bool outcomes_agree(const struct oracle_outcome *host, const struct oracle_outcome *model,
		    const struct undefined *undefined);

/* One line for each thing that differs: its name, before, on the host, on the software CPU. */
typedef void difference_line(void *owner, const char *line);
void outcomes_explain(const struct oracle_case *c, const struct oracle_outcome *host,
		      const struct oracle_outcome *model, const struct undefined *undefined,
		      difference_line *line, void *owner);

/* Whether the software CPU computes the result of an instruction by the host's same instruction. */
bool is_dependent(const struct opcode *row);

#endif
