/* suite.c: the rows of the migration suite, family by family. */
#include "../notation.h"
#include "words.h"

const char suite_name[] = "migration";

#define FAMILY(name) static void name(struct cell *x)

FAMILY(registers)
{
#include "registers.def"
}

FAMILY(memory)
{
#include "memory.def"
}

FAMILY(events)
{
#include "events.def"
#include "timers.def"
}

FAMILY(devices)
{
#include "devices.def"
}

FAMILY(nested)
{
#include "nested.def"
}

void suite_rows(struct suite *suite)
{
	static struct cell cell;

	cell.suite = suite;
	registers(&cell);
	memory(&cell);
	events(&cell);
	devices(&cell);
	nested(&cell);
}
