/* checks.c: breaking checks and gates by name. */
#include <stdio.h>
#include <string.h>

#include "cpu/checks.h"
#include "cpu/pattern.h"

int check_broken = -1;
bool check_reached[CHECK_COUNT];

static const char *const check_names[] = {
#define CHECK_NAME(name, what) #name,
#include "cpu/checks.def"
#undef CHECK_NAME
	NULL /* the list may be empty */
};

static const char *const gate_names[] = {
#define GATE(name) #name,
	OPCODE_GATES(GATE)
#undef GATE
		"FEATURE",
	"MODES",
	"LOCK",
};
#define GATE_NAMES (sizeof(gate_names) / sizeof(gate_names[0]))

bool check_break(const char *name)
{
	char mnemonic[32];
	const char *dot;

	check_broken = -1;
	decode_mend();
	if (!name)
		return true;
	for (unsigned i = 0; i < CHECK_COUNT; i++)
		if (!strcmp(name, check_names[i])) {
			check_broken = (int)i;
			return true;
		}
	dot = strchr(name, '.');
	if (!dot || (size_t)(dot - name) >= sizeof(mnemonic))
		return false;
	memcpy(mnemonic, name, (size_t)(dot - name));
	mnemonic[dot - name] = 0;
	return decode_break(mnemonic, dot + 1);
}

/* ---- the list of gates: a mnemonic and a column each, without repetition ---- */

/* Whether the row has the column with this index of gate_names. */
static bool row_has(const struct opcode *o, unsigned column)
{
	if (column < GATE_COUNT)
		return o->gates >> column & 1;
	switch (column - GATE_COUNT) {
	case 0: return o->feature;
	case 1: return o->modes != MODES_ANY;
	default:
		/* LOCK is breakable everywhere, but listed where the instruction is sensitive. */
		return !(o->flags & FLAG_LOCK) && (o->gates || o->svm || o->vmx);
	}
}

/* Whether an earlier row of the same mnemonic has it as well. */
static bool listed_before(size_t row, unsigned column)
{
	for (size_t i = 0; i < row; i++)
		if (!strcmp(opcode_table[i].mnemonic, opcode_table[row].mnemonic) &&
		    row_has(&opcode_table[i], column))
			return true;
	return false;
}

/* Every (row, column) that is listed, in the order of the table; made once. */
struct gate_name {
	uint16_t row;
	uint8_t column;
};
#define GATE_NAMES_MAX 4096

static unsigned list_gates(struct gate_name *names)
{
	unsigned count = 0;

	for (size_t row = 0; row < opcode_count; row++)
		for (unsigned column = 0; column < GATE_NAMES; column++)
			if (count < GATE_NAMES_MAX && row_has(&opcode_table[row], column) &&
			    !listed_before(row, column))
				names[count++] = (struct gate_name){(uint16_t)row, (uint8_t)column};
	return count;
}

const char *check_name(unsigned index)
{
	static struct gate_name gates[GATE_NAMES_MAX];
	static unsigned gate_count;
	static char name[64];

	if (index < CHECK_COUNT)
		return check_names[index];
	if (!gate_count)
		gate_count = list_gates(gates);
	index -= CHECK_COUNT;
	if (index >= gate_count)
		return NULL;
	snprintf(name, sizeof(name), "%s.%s", opcode_table[gates[index].row].mnemonic,
		 gate_names[gates[index].column]);
	return name;
}

/* ---- what was reached ---- */

static void take_row(size_t row, void (*take)(void *owner, const char *name), void *owner)
{
	char name[64];

	for (unsigned column = 0; column < GATE_NAMES; column++) {
		if (!(gates_reached[row] >> column & 1) || !row_has(&opcode_table[row], column))
			continue;
		snprintf(name, sizeof(name), "%s.%s", opcode_table[row].mnemonic, gate_names[column]);
		take(owner, name);
	}
}

void check_take_reached(void (*take)(void *owner, const char *name), void *owner)
{
	for (unsigned i = 0; i < CHECK_COUNT; i++) {
		if (check_reached[i] && take)
			take(owner, check_names[i]);
		check_reached[i] = false;
	}
	for (size_t row = 0; row < opcode_count; row++) {
		if (gates_reached[row] && take)
			take_row(row, take, owner);
		gates_reached[row] = 0;
	}
}
