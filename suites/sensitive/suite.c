/* suite.c: the rows of the sensitive-instruction suite, family by family. */
#include "../notation.h"
#include "operand_faults.h"

const char suite_name[] = "sensitive";

#define FAMILY(name) static void name(struct cell *x)

FAMILY(descriptor_tables)
{
#include "descriptor_tables.def"
}

void suite_rows(struct suite *suite)
{
	static struct cell cell;

	cell.suite = suite;
	descriptor_tables(&cell);
}
