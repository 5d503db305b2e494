/*
 * suite.h: runs the cases of a guest on our own machine: boots it until it is ready, takes
 * a snapshot, and gives each case a machine that has seen no other.
 */
#ifndef TRAPLINE_VM_SUITE_H
#define TRAPLINE_VM_SUITE_H

#include "vm/judge.h"
#include "vm/lines.h"
#include "vm/machine.h"
#include "vm/snapshot.h"

struct suite_cost {
	uint64_t insns, ns; /* of running alone; restoring and judging left out */
};

/* Each returns 0, or anything else to stop the suite. */
struct suite_events {
	void *owner;
	int (*ready)(void *owner); /* before the first case: suite->judge.facts are known */
	int (*started)(void *owner, unsigned index);
	int (*ended)(void *owner, const struct judge_result *result, const struct suite_cost *cost);
};

/*
 * How the machine runs and is put back: machine_run() and the functions of snapshot.h, unless the guest is moved between
 * machines while it runs (migrate/move.h). Each leaves in *@machine the one that has the guest from then on.
 */
struct suite_ways {
	void *owner;
	/* @spent: instructions that retired. */
	const struct machine_end *(*run)(void *owner, struct machine **machine, const struct machine_limits *limits,
					 uint64_t *spent);
	int (*take)(void *owner, struct machine **machine, struct snapshot *snapshot);
	int (*restore)(void *owner, struct machine **machine, struct snapshot *snapshot);
	/* Of take() or restore(), which has failed. */
	const char *(*why)(void *owner);
	struct machine *other; /* a machine that the guest may come to */
};

struct suite_options {
	const bool *chosen; /* one a case; NULL: all */
	bool inverted;
	uint64_t max_insns;               /* for each case */
	uint64_t timeout;                 /* nanoseconds, for each case */
	const char *break_check;          /* armed when the guest is ready; NULL for none */
	bool coverage;                    /* let take_reached() of the engine tell of each case alone */
	const struct engine_trace *trace; /* of the cases; NULL for none */
	const struct suite_ways *ways;    /* of the cases; NULL: one machine, which stays */
};

#define SUITE_INSNS_DEFAULT   2000000u
#define SUITE_TIMEOUT_DEFAULT 10000000000ull

enum suite_end {
	SUITE_COMPLETE,
	SUITE_NOT_READY, /* the guest did not get as far; suite->why */
	SUITE_STOPPED,   /* an event asked for it */
	SUITE_SIGNAL,
	SUITE_FAILED /* the harness; suite->why */
};

struct suite {
	struct machine *machine; /* the one that has the guest */
	const struct case_list *list;
	struct suite_options options;
	struct suite_events events;
	struct judge judge;
	struct snapshot snapshot;
	struct lines lines[2]; /* debug console, serial port: the guest prints the same on both */
	int source;            /* the one that began with a report's first line; -1 until then */
	struct suite_cost cost;
	int stopped; /* what an event returned */
	char why[384];
};

/* Before the machine exists, whose configuration needs suite_console() and suite_serial(). */
void suite_init(struct suite *suite, const struct case_list *list, const struct suite_options *options,
		const struct suite_events *events);
void suite_console(void *suite, uint8_t byte);
void suite_serial(void *suite, uint8_t byte);

/* @machine has its image in place. Results are in suite->judge. */
enum suite_end suite_run(struct suite *suite, struct machine *machine);
void suite_free(struct suite *suite);

#endif
