/*
 * records.h: what visor prints about cases: JSON lines (JSON.md) or lines for people.
 */
#ifndef TRAPLINE_CLI_RECORDS_H
#define TRAPLINE_CLI_RECORDS_H

#include "cli/line.h"
#include "vm/image.h"
#include "vm/judge.h"

#define VISOR_VERSION "0.1"

struct run_facts {
	const char *command; /* run or judge */
	const struct image *image;
	const struct case_list *list;
	unsigned selected;
	const char *engine; /* NULL: a foreign machine */
	const char *cpu;    /* profile, as given; NULL as above */
	const char *missing; /* why nothing can run here; NULL: it can */
	const char *again;  /* options that a reproduction line needs besides --cases */
	const struct machine_facts *machine;
};

struct case_cost {
	uint64_t insns, ns;
	const char *reached; /* --coverage: names, a newline behind each; NULL: not asked for */
};

struct records {
	struct line line;
	int fd;
	bool json;
	struct run_facts facts;
};

/* Each returns 0 or the negative errno of the first write that failed. */
int records_run(struct records *records);
int records_start(struct records *records, unsigned index);
int records_end(struct records *records, const struct judge_result *result, const struct case_cost *cost);
int records_dirty(struct records *records, struct span id, struct span what);
int records_done(struct records *records, const struct judge *judge, bool complete);
int records_case(struct records *records, unsigned index);
int records_cell(struct records *records, unsigned index);
int records_clause(struct records *records, unsigned index);

#endif
