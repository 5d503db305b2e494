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
	uint64_t rflags_unmasked; /* where an unmasked x87 exception was found: FSW.ES */
	uint16_t fsw_unmasked;
	bool result;             /* all of it */
	bool address;            /* of a page fault */
	bool approximate;        /* x87 and XMM registers */
	bool alignment;          /* #AC may come before or behind the operand's other faults */
	bool alignment_optional; /* and of 16 bytes and more, whether there is one (SDM 3A 6.15, table 6-7) */
	bool length;             /* of undefined bytes with many prefixes: whether they are longer than 15 */
	bool stack;              /* #SS may come before or behind the #GP of a misaligned operand */
	bool fetch;   /* #UD may come before the page fault of bytes that the opcode does not need */
	bool partial; /* a fault may leave general registers but RSP loaded: they will be again */
	bool mmx;     /* a fault may leave the x87 stack as MMX instructions make it */
	bool offset; /* within FS or GS: AMD's processors want it canonical; in a sequence, it is not known */
	bool target; /* #GP of a branch's target may come before or behind its memory accesses */
};

/* What the instruction at the beginning of @c leaves undefined; of a sequence, all instructions in it. */
struct undefined undefined_of(const struct generator *g, const struct oracle_case *c);

/* Whether both outcomes are the same, but for what is undefined. */
bool outcomes_agree(const struct oracle_case *c, const struct oracle_outcome *host,
		    const struct oracle_outcome *model, const struct undefined *undefined);

/*
 * Whether the case changed its own code without stepping, so that what it ran then is not what it
 * says: anything at all, in the end.
 */
bool overwrote_code(const struct oracle_case *c, const struct oracle_outcome *outcome);

/* One line for each thing that differs: its name, before, on the host, on the software CPU. */
typedef void difference_line(void *owner, const char *line);
void outcomes_explain(const struct oracle_case *c, const struct oracle_outcome *host,
		      const struct oracle_outcome *model, const struct undefined *undefined,
		      difference_line *line, void *owner);

/* Whether the software CPU computes the result of an instruction by the host's same instruction. */
bool is_dependent(const struct opcode *row);

#endif
