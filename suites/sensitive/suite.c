/* suite.c: the rows of the sensitive-instruction suite, family by family. */
#include "../notation.h"
#include "operand_faults.h"

const char suite_name[] = "sensitive";

#define FAMILY(name) static void name(struct cell *x)

FAMILY(descriptor_tables)
{
#include "descriptor_tables.def"
}

FAMILY(access_rights)
{
#include "access_rights.def"
}

FAMILY(control_registers)
{
#include "control_registers.def"
}

FAMILY(debug_registers)
{
#include "debug_registers.def"
}

FAMILY(flags)
{
#include "flags.def"
}

FAMILY(segments)
{
#include "segments.def"
}

FAMILY(far)
{
#include "far.def"
}

FAMILY(interrupts)
{
#include "interrupts.def"
}

FAMILY(io)
{
#include "io.def"
}

FAMILY(privileged)
{
#include "privileged.def"
}

FAMILY(counters)
{
#include "counters.def"
}

FAMILY(extended_state)
{
#include "extended_state.def"
}

FAMILY(vector)
{
#include "vector.def"
}

FAMILY(fsgsbase)
{
#include "fsgsbase.def"
}

FAMILY(syscall)
{
#include "syscall.def"
}

FAMILY(waiting)
{
#include "waiting.def"
}

FAMILY(virtualization)
{
#include "virtualization.def"
}

FAMILY(gates)
{
#include "gates.def"
}

FAMILY(memory)
{
#include "memory.def"
}

FAMILY(tasks)
{
#include "tasks.def"
}

FAMILY(limits)
{
#include "limits.def"
}

FAMILY(stepping)
{
#include "stepping.def"
}

void suite_rows(struct suite *suite)
{
	static struct cell cell;

	cell.suite = suite;
	descriptor_tables(&cell);
	access_rights(&cell);
	control_registers(&cell);
	debug_registers(&cell);
	flags(&cell);
	segments(&cell);
	far(&cell);
	interrupts(&cell);
	io(&cell);
	privileged(&cell);
	counters(&cell);
	extended_state(&cell);
	vector(&cell);
	fsgsbase(&cell);
	syscall(&cell);
	waiting(&cell);
	virtualization(&cell);
	gates(&cell);
	memory(&cell);
	tasks(&cell);
	limits(&cell);
	stepping(&cell);
}
