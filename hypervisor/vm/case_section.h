/*
 * case_section.h: the case section of a guest's ELF file, read into memory
 * (its grammar: x86/case_section.h).
 *
 * All spans point into the text that was given to case_list_parse(), which must outlive
 * the list. Every expectation and predicate in a list has been checked to parse.
 */
#ifndef TRAPLINE_VM_CASE_SECTION_H
#define TRAPLINE_VM_CASE_SECTION_H

#include "vm/span.h"
#include "x86/case_section.h"

struct case_want {
	struct span predicate;
	unsigned first_outcome, outcome_count; /* in list->outcome: the first, and what `or` adds */
};

struct case_cite {
	struct span manual, volume, section, title;
};

struct case_entry {
	struct span id, insn, mode, class;
	unsigned cpl;
	unsigned first_want, want_count; /* in list->want */
	unsigned first_cite, cite_count; /* in list->cite */
};

struct case_cell {
	struct span insn, mode, cpl, condition;
	struct span state;  /* untested or not_encodable */
	struct span reason; /* of untested */
};

struct case_clause {
	struct span key; /* of suites/manuals.def */
	struct case_cite names;
};

/*
 * What exits where it is intercepted: under AMD-V [0] and VT-x [1], codes as the section has them; @control: the
 * secondary control of VT-x that must[1] hangs on, or 0.
 */
struct case_promise {
	struct span insn, must[2], may[2];
	uint64_t control;
};

struct case_list {
	struct span suite;
	struct case_entry *entry; /* in the order of the guest's case table */
	struct case_want *want;
	struct span *outcome;
	struct case_cite *cite;
	struct case_cell *cell;
	struct case_clause *clause;
	struct case_promise *promise;
	unsigned count, want_count, outcome_count, cite_count, cell_count, clause_count, promise_count;
	unsigned *hash; /* ids to index + 1, open addressing */
	unsigned hash_mask;
};

/* 0; -EINVAL with @why naming the line and what is wrong with it; -ENOMEM. */
int case_list_parse(struct case_list *list, struct span text, char *why, size_t size);
void case_list_free(struct case_list *list);

/* Index of the case called @id, or -1. */
int case_list_find(const struct case_list *list, struct span id);

/* What a machine says of itself: its cpuid lines. */
struct cpuid_line {
	uint32_t leaf, subleaf;
	uint32_t reg[4]; /* EAX EBX ECX EDX */
};
#define CPUID_LINES_MAX 256
struct machine_facts {
	unsigned cpuid_count;
	struct cpuid_line cpuid[CPUID_LINES_MAX];
};

/* "intel", "amd", or "other" as CPUID leaf 0 says; "" where the machine did not report it. */
const char *machine_vendor(const struct machine_facts *facts);

/*
 * Whether @predicate holds: 1 or 0; -EINVAL where it is malformed, -ENODATA where it asks for a leaf that
 * the machine has and did not report. A leaf above the highest that leaf 0 or 80000000H names is all zeros.
 */
int predicate_holds(struct span predicate, const struct machine_facts *facts);

/*
 * The expectation of @entry on this machine: the first want whose predicate holds. NULL with
 * @why where there is none.
 */
const struct case_want *case_expectation(const struct case_list *list, const struct case_entry *entry,
					 const struct machine_facts *facts, char *why, size_t size);

#endif
