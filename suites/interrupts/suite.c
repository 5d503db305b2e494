/* suite.c: the rows of the interrupt suite, family by family. */
#include "../notation.h"
#include "frames.h"
#include "ways.h"

const char suite_name[] = "interrupts";

#define FAMILY(name) static void name(struct cell *x)

FAMILY(vectors)
{
#include "vectors.def"
}

void suite_rows(struct suite *suite)
{
	static struct cell cell;

	cell.suite = suite;
	vectors(&cell);
}
