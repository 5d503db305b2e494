/* suite.c: the rows of the suite of AMD-V, family by family: the guest is the hypervisor. */
#include "words.h"

#include "../interrupts/ways.h"

const char suite_name[] = "svm";

#define FAMILY(name) static void name(struct cell *x)

FAMILY(intercepts){
#include "intercepts.def"
}

FAMILY(registers){
#include "registers.def"
}

FAMILY(maps){
#include "maps.def"
}

FAMILY(exceptions){
#include "exceptions.def"
}

FAMILY(events){
#include "events.def"
}

FAMILY(nested){
#include "nested.def"
}

FAMILY(state){
#include "state.def"
}

FAMILY(interrupts){
#include "interrupts.def"
}

FAMILY(caching){
#include "caching.def"
}

FAMILY(tasks){
#include "tasks.def"
}

FAMILY(hosts){
#include "hosts.def"
}

FAMILY(records){
#include "records.def"
}

FAMILY(virtual){
#include "virtual.def"
}

FAMILY(legacy){
#include "legacy.def"
}

FAMILY(counters){
#include "counters.def"
}

FAMILY(assists){
#include "assists.def"
}

FAMILY(order){
#include "order.def"
}

FAMILY(entry)
{
#include "entry.def"
}

void suite_rows(struct suite *suite)
{
	static struct cell cell;

	cell.suite = suite;
	intercepts(&cell);
	registers(&cell);
	maps(&cell);
	exceptions(&cell);
	entry(&cell);
	state(&cell);
	interrupts(&cell);
	caching(&cell);
	hosts(&cell);
	tasks(&cell);
	nested(&cell);
	events(&cell);
	records(&cell);
	virtual(&cell);
	legacy(&cell);
	counters(&cell);
	assists(&cell);
	order(&cell);
}
