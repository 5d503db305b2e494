/* suite.c: the rows of the suite of AMD-V, family by family: the guest is the hypervisor. */
#include "words.h"

const char suite_name[] = "svm";

#define FAMILY(name) static void name(struct cell *x)

FAMILY(intercepts)
{
#include "intercepts.def"
}

void suite_rows(struct suite *suite)
{
	static struct cell cell;

	cell.suite = suite;
	intercepts(&cell);
}
