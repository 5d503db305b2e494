/*
 * check.h: named checks of the chips that a run can be told to break (mutants).
 *
 * As cpu/checks.h, for what is freestanding: a check is an expression that is true where a chip refuses,
 * holds back or does something special. It is listed once in chip/checks.def and written at its place as `if
 * (CHIP_CHECK(NAME, expression)) …`. Broken, it is never true. Who shows names to users shows these and the
 * CPU's as one list.
 */
#ifndef TRAPLINE_CHIP_CHECK_H
#define TRAPLINE_CHIP_CHECK_H

#include <stdbool.h>

enum chip_check {
#define CHIP_CHECK_NAME(name, what) CHIP_CHECK_##name,
#include "chip/checks.def"
#undef CHIP_CHECK_NAME
	CHIP_CHECK_COUNT
};

extern int chip_check_broken; /* the enum chip_check that is broken, or -1 */

extern bool chip_check_reached[CHIP_CHECK_COUNT];

static inline bool chip_check_holds(enum chip_check check)
{
	chip_check_reached[check] = true;
	return chip_check_broken != (int)check;
}

#define CHIP_CHECK(name, expression) ((expression) && chip_check_holds(CHIP_CHECK_##name))

/* Breaks the check called @name from now on; NULL mends it. False: there is none of that name, and all is
 * mended. */
bool chip_check_break(const char *name);
/* The name of the check with this index (0, 1, … CHIP_CHECK_COUNT - 1). */
const char *chip_check_name(unsigned index);
/* Calls @take (or nothing) with the name of each check whose expression was true since the last call. */
void chip_check_take_reached(void (*take)(void *owner, const char *name), void *owner);

#endif
