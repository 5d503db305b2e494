/* suite.c: the rows of the interrupt suite, family by family. */
#include "../notation.h"
#include "breakpoints.h"
#include "frames.h"
#include "ways.h"
#include "wrongs.h"

const char suite_name[] = "interrupts";

#define FAMILY(name) static void name(struct cell *x)

FAMILY(vectors)
{
#include "vectors.def"
}

FAMILY(handlers)
{
#include "handlers.def"
}

FAMILY(double_faults)
{
#include "double_faults.def"
}

FAMILY(breakpoints)
{
#include "breakpoints.def"
#include "boundaries.def"
}

FAMILY(stacks)
{
#include "stacks.def"
}

FAMILY(chips)
{
#include "chips.def"
#include "smp.def"
#include "legacy.def"
#include "smi.def"
}

void suite_rows(struct suite *suite)
{
	static struct cell cell;

	cell.suite = suite;
	vectors(&cell);
	handlers(&cell);
	double_faults(&cell);
	stacks(&cell);
	breakpoints(&cell);
	chips(&cell);
}
