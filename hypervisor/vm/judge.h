/*
 * judge.h: report lines in, verdicts out. The only place where outcomes are compared with
 * expectations, for our own machines and for foreign ones.
 *
 * Our own machine begins and ends each case itself (judge_begin(), judge_end()); the lines between
 * must be that case's. A foreign machine's lines begin and end the cases (judge->streaming).
 * Lines come from a guest and may be anything.
 */
#ifndef TRAPLINE_VM_JUDGE_H
#define TRAPLINE_VM_JUDGE_H

#include "vm/case_section.h"
#include "vm/properties.h"

enum verdict {
	VERDICT_PASS,
	VERDICT_FAIL,
	VERDICT_NOTSUP,
	VERDICT_ERROR,
	VERDICT_TIMEOUT,
	VERDICT_CRASH,
	VERDICT_COUNT
};
extern const char *const verdict_names[VERDICT_COUNT]; /* "PASS" … */

/* How a case, or the machine in the middle of one, came to its end. */
enum ending {
	ENDING_DONE,     /* by its own word: the control device, or an end line */
	ENDING_EXIT,     /* the machine was switched off */
	ENDING_SHUTDOWN, /* triple fault */
	ENDING_HANG,     /* instruction budget spent, or a halt that nothing can end */
	ENDING_TIMEOUT,  /* the harness's wall clock */
	ENDING_CRASH,    /* what ran the machine died */
	ENDING_FAILED    /* the harness could not go on; a reason is given */
};

struct judge_result {
	unsigned index; /* in the list */
	enum verdict verdict;
	struct span got;              /* the outcome's words, or empty */
	const struct case_want *want; /* NULL where none is for this machine */
	const char *why;              /* one line; empty on PASS */
	const struct properties *properties;
};

struct judge_events {
	void *owner;
	void (*ready)(void *owner);                   /* the machine has said what it is */
	void (*started)(void *owner, unsigned index); /* streaming only */
	void (*ended)(void *owner, const struct judge_result *result);
	void (*dirty)(void *owner, struct span id, struct span what); /* streaming only; a note */
};

struct judge {
	const struct case_list *list;
	struct judge_events events;
	bool streaming, inverted;
	struct machine_facts facts;
	bool header, ready, bye;
	bool refused; /* a hypervisor of ours cannot run here; fatal says why */
	int current; /* index of the case being run, or -1 */
	bool has_outcome;
	size_t outcome_size;
	char outcome[CASE_LINE_MAX + 1]; /* of the end line */
	struct properties properties;    /* of the case that is being run */
	char broken[160];                /* how the case broke the protocol; empty: it did not */
	char fatal[160];                 /* why nothing of the report can be judged; empty: it can */
	unsigned count[VERDICT_COUNT];
};

/* @list is borrowed, @events copied. */
void judge_start(struct judge *judge, const struct case_list *list, const struct judge_events *events);
/* One line, without its end; a CR before it is taken off. */
void judge_line(struct judge *judge, struct span line);
/* Our own machine runs case @index now. */
void judge_begin(struct judge *judge, unsigned index);
/* The case is over; @reason for ENDING_FAILED, else NULL. Calls events.ended. */
void judge_end(struct judge *judge, enum ending ending, const char *reason);
/* No more lines. Ends a case that is open as the machine ended. False: the report stops before its bye. */
bool judge_finish(struct judge *judge, enum ending ending);
/* The case breaks the protocol; it gets ERROR with this reason. */
void judge_break(struct judge *judge, const char *how);

unsigned judge_total(const struct judge *judge);

#endif
