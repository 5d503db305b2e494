/*
 * oracle.h: the host's processor as an oracle for the software CPU.
 *
 * Random unprivileged instructions run on both, from the same state, and all that a program can
 * see is compared: general registers, RIP, RFLAGS, bases, x87, MMX and SSE state, memory, faults.
 * A case is decided by its seed and number (and by the restrictions of the run), so that any of
 * them can be had again alone.
 */
#ifndef TRAPLINE_ORACLE_ORACLE_H
#define TRAPLINE_ORACLE_ORACLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What oracle_modes says: both, 64-bit mode alone, compatibility mode alone. */
enum oracle_mode_choice { ORACLE_BOTH, ORACLE_LONG, ORACLE_COMPATIBILITY };

struct oracle_options {
	uint64_t seed, from, count; /* cases from, from + 1, … */
	enum oracle_mode_choice mode;
	const char *only; /* a mnemonic, or NULL */
	unsigned jobs;    /* processes, each with its child: 1 to ORACLE_JOBS_MAX */
	unsigned reports; /* failing cases to report for each mnemonic and job */
};
#define ORACLE_JOBS_MAX 64

struct oracle_counts {
	uint64_t agreed;       /* cases that came to the same */
	uint64_t instructions; /* in those */
	uint64_t faulted;      /* of them, those that ended in a fault of their own */
	uint64_t sequences;    /* of them, those of more than one instruction */
	uint64_t compatibility;
	uint64_t dependent; /* of them, those that the host itself computed in the software CPU */
	uint64_t differed;
	uint64_t overwrote; /* ran, but changed their own code, without a step behind it */
	uint64_t left_out, unmodelled,
		undefined; /* did not run: see left_out.def, outside.def, undefined.def */
};

/* A report of a failing case, of several lines; called in the process that found it. */
typedef void oracle_report(void *owner, const char *text);

/*
 * Runs the cases. 0, with @counts, whatever they came to; or a negative errno with @why:
 * -ENOENT where nothing is called options->only, -ENOTSUP where this host cannot be the oracle.
 */
int oracle_run(const struct oracle_options *options, oracle_report *report, void *owner,
	       struct oracle_counts *counts, char *why, size_t size);

#endif
