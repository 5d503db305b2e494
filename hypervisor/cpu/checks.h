/*
 * checks.h: named checks that a run can be told to break (mutants).
 *
 * A check is an expression that is true where the architecture raises a fault or takes a
 * special path. It is listed once in checks.def and written at its place as
 * `if (CHECK(NAME, expression)) cpu_raise(…)`. Broken, it is never true. Only on slow paths.
 *
 * A check whose expression was true is noted as reached: breaking it can change nothing before that.
 */
#ifndef TRAPLINE_CPU_CHECKS_H
#define TRAPLINE_CPU_CHECKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum check {
#define CHECK_NAME(name, what) CHECK_##name,
#include "cpu/checks.def"
#undef CHECK_NAME
	CHECK_COUNT
};

extern int check_broken; /* the enum check that is broken, or -1 */
extern bool check_reached[CHECK_COUNT];

static inline bool check_holds(enum check check)
{
	check_reached[check] = true;
	return check_broken != (int)check;
}

#define CHECK(name, expression) ((expression) && check_holds(CHECK_##name))

/*
 * Breaks the check or the gate called @name ("SEGMENT_LIMIT", "SGDT.UMIP") from now on; NULL mends
 * it. False: there is none of that name.
 */
bool check_break(const char *name);
/* The name of the check or gate with this index (0, 1, …), or NULL past the last. */
const char *check_name(unsigned index);
/*
 * Calls @take with the name of each check and listed gate that was reached since the last call, and forgets
 * them. A gate of several rows with one mnemonic may come more than once. @take may be NULL.
 */
void check_take_reached(void (*take)(void *owner, const char *name), void *owner);

#endif
