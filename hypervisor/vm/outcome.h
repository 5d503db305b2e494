/*
 * outcome.h: outcomes as text, taken apart and held against expectations
 * (the words are those of x86/outcome.h).
 */
#ifndef TRAPLINE_VM_OUTCOME_H
#define TRAPLINE_VM_OUTCOME_H

#include "vm/span.h"
#include "x86/outcome.h"

/* More effects than any case can have: fields of the machine and watched memory. */
#define OUTCOME_EFFECTS_MAX 128

struct effect {
	struct span name, value;
};

/* The spans point into the text that was parsed. */
struct outcome {
	enum outcome_kind kind;
	struct span text;  /* all of it */
	struct span words; /* NOTSUP: the probe; ERROR: what went wrong */
	unsigned effect_count;
	struct effect effect[OUTCOME_EFFECTS_MAX]; /* vector, error, n and reason among them */
};

enum outcome_side { OUTCOME_REPORTED, OUTCOME_EXPECTED };

/*
 * Parses @text. On the expected side, values may be `*`, V&M and V|W, and NOTSUP and ERROR
 * are no expectations. 0, or -EINVAL with @why (of @size bytes) saying what is wrong with it.
 */
int outcome_parse(struct outcome *outcome, struct span text, enum outcome_side side, char *why, size_t size);

/*
 * Whether @got is what @want promises. False: @why says which part differs, what was wanted
 * and what came.
 */
bool outcome_matches(const struct outcome *want, const struct outcome *got, char *why, size_t size);

/*
 * The effects in which @got is not what @want promises, in @difference (room for
 * 2 * OUTCOME_EFFECTS_MAX): as @got tells them, or with an empty value where it tells nothing.
 * Returns how many, or -1 where it is another kind of outcome.
 */
int outcome_differences(const struct outcome *want, const struct outcome *got, struct effect *difference);

/* Whether the number @got is what @want says (one of the forms of an expectation's VALUE). */
bool outcome_value_matches(struct span want, struct span got);

#endif
