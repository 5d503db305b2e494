/*
 * generate.h: random cases: instructions from the rows of opcodes.def or from random bytes, with
 * operands that mean something to them.
 */
#ifndef TRAPLINE_ORACLE_GENERATE_H
#define TRAPLINE_ORACLE_GENERATE_H

#include "cpu/decode.h"
#include "oracle/case.h"

enum oracle_modes { MODES_BOTH, MODES_LONG, MODES_COMPATIBILITY };

struct generator {
	struct profile profile;
	enum oracle_modes modes;
	uint64_t seed;
	unsigned row_count;
	uint16_t *rows;      /* of opcode_table, that cases are made from */
	uint64_t bank[1024]; /* memory contents: page 1 begins somewhere in its first half */
	bool random_bytes;   /* some cases are random bytes, and some are sequences */
};

enum generated {
	GENERATED,
	GENERATED_LEFT_OUT,   /* the bytes are an instruction of left_out.def or outside.def */
	GENERATED_UNMODELLED, /* the software CPU has no such instruction, the host may */
	GENERATED_UNDEFINED   /* the manual leaves the whole result undefined */
};

/*
 * Makes a generator for instructions named @only (NULL: all that are not left out). 0; -ENOENT
 * where no row that is not left out has this name; -ENOMEM.
 */
int generator_open(struct generator *g, const struct profile *profile, uint64_t seed, enum oracle_modes modes,
		   const char *only);
void generator_close(struct generator *g);

/* The content of the arena's last page. */
void generator_read_only(const struct generator *g, uint8_t page[ARENA_PAGE]);
/* Makes the case @number: the same for the same generator. Only GENERATED ones may run. */
enum generated generate(struct generator *g, uint64_t number, struct oracle_case *c);
/* What the bytes at c->in.rip + @offset are; @insn is decoded as far as they go. */
enum generated classify(const struct generator *g, const struct oracle_case *c, unsigned offset,
			struct insn *insn, enum decode_result *result);

/*
 * Whether the code of @c is what it says: so many instructions, none of them left out, up to its
 * last byte, and the single step where one of them needs it. For cases that were changed by hand.
 */
bool may_run(const struct generator *g, const struct oracle_case *c);

#endif
