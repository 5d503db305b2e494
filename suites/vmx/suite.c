/* suite.c: the rows of the suite for VT-x, family by family. */
#include <stdlib.h>
#include <string.h>

#include "../../guests/vmx/information.h"
#include "words.h"

const char suite_name[] = "vmx";

#define FAMILY(name) static void name(struct cell *x)

FAMILY(entry)
{
#include "entry.def"
#include "legacy.def"
#include "root.def"
}

FAMILY(exits)
{
#include "exits.def"
#include "cr.def"
#include "io_msr.def"
#include "exceptions.def"
#include "tasks.def"
#include "information.def"
}

FAMILY(events)
{
#include "injection.def"
#include "vectoring.def"
#include "lifecycle.def"
#include "events.def"
#include "traps.def"
#include "ept.def"
#include "mode_based.def"
#include "pae.def"
#include "time.def"
#include "virtualization.def"
#include "apic.def"
#include "apic_registers.def"
#include "shared.def"
#include "structures.def"
#include "attack.def"
#include "state.def"
}

void suite_rows(struct suite *suite)
{
	static struct cell cell;

	cell.suite = suite;
	entry(&cell);
	exits(&cell);
	events(&cell);
}
