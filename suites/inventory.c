/*
 * inventory.c: each instruction × mode × CPL × relevant condition has a case, or says why
 * it has none.
 *
 * The condition "-" is a case without any condition. Others are those that one of the
 * instruction's forms lists, where they can matter (conditions.def).
 */
#include <stdlib.h>
#include <string.h>

#include "notation.h"

#define DEFAULT_SUITE "sensitive"
#define BASELINE      63 /* the bit of "-" */

struct inventory {
	const char *name;
	unsigned modes;               /* WHERE_MODE bits in which a form can be encoded */
	uint64_t conditions;          /* of any form */
	uint64_t by_mode[MODE_COUNT]; /* of the forms that the mode has */
	uint64_t seen[MODE_COUNT][4];
	uint64_t noted[MODE_COUNT][4];
	bool not_encodable[MODE_COUNT][4];
};

static struct inventory table[INSN_COUNT + STORIES_MAX];
static unsigned table_count;

static struct inventory *inventory_get(const char *name)
{
	for (unsigned i = 0; i < table_count; i++) {
		if (!strcmp(table[i].name, name))
			return &table[i];
	}
	table[table_count].name = name;
	return &table[table_count++];
}

static int condition_index(const char *name)
{
	for (unsigned i = 0; i < condition_count; i++) {
		if (!strcmp(condition_table[i].name, name))
			return (int)i;
	}
	return -1;
}

static void read_insn(struct suite *suite, const struct insn *insn)
{
	struct inventory *entry = inventory_get(insn->name);
	unsigned modes = insn->modes ? insn->modes : WHERE_MODES;
	char words[256], *state = NULL;
	uint64_t bits = 0;

	snprintf(words, sizeof(words), "%s", insn->conditions ? insn->conditions : "");
	for (char *word = strtok_r(words, " ", &state); word; word = strtok_r(NULL, " ", &state)) {
		int index = condition_index(word);

		if (index < 0)
			suite_error(suite, "instructions.def", 1, "%s: unknown condition '%s'", insn->key,
				    word);
		else
			bits |= 1ull << index;
	}
	entry->modes |= modes;
	for (unsigned mode = 0; mode < MODE_COUNT; mode++) {
		if (modes & WHERE_MODE(mode))
			entry->by_mode[mode] |= bits;
	}
}

bool suite_covers(const struct suite *suite, const struct insn *insn)
{
	return !strcmp(suite->name, insn->suite ? insn->suite : DEFAULT_SUITE);
}

static void read_case(struct suite *suite, const struct case_entry *entry)
{
	struct inventory *insn = inventory_get(entry->insn->name);

	(void)suite;
	insn->seen[entry->mode][entry->cpl] |= entry->conditions ? entry->conditions : 1ull << BASELINE;
}

static void read_note(struct suite *suite, const struct cell_note *note)
{
	struct inventory *insn = inventory_get(note->insn);
	uint64_t *noted = &insn->noted[note->mode][note->cpl];
	int index;

	if (!note->encodable) {
		insn->not_encodable[note->mode][note->cpl] = true;
	} else if (!strcmp(note->condition, "*")) {
		*noted = ~0ull;
	} else if (!strcmp(note->condition, "-")) {
		*noted |= 1ull << BASELINE;
	} else {
		index = condition_index(note->condition);
		if (index < 0)
			suite_error(suite, "(note)", 0, "%s: unknown condition '%s'", note->insn,
				    note->condition);
		else
			*noted |= 1ull << index;
	}
}

static uint64_t relevant(const struct inventory *insn, unsigned mode, unsigned cpl)
{
	uint64_t bits = 1ull << BASELINE;

	for (unsigned i = 0; i < condition_count; i++) {
		if ((insn->by_mode[mode] >> i & 1) && where_holds(condition_table[i].where, mode, cpl))
			bits |= 1ull << i;
	}
	return bits;
}

static void check_cell(struct suite *suite, const struct inventory *insn, unsigned mode, unsigned cpl)
{
	uint64_t missing;

	if (insn->not_encodable[mode][cpl]) {
		if (insn->seen[mode][cpl])
			suite_error(suite, "inventory", 0, "%s %s cpl%u: both cases and NOT_ENCODABLE",
				    insn->name, mode_names[mode], cpl);
		return;
	}
	if (!(insn->modes & WHERE_MODE(mode)))
		return; /* instructions.def says so */
	missing = relevant(insn, mode, cpl) & ~insn->seen[mode][cpl] & ~insn->noted[mode][cpl];
	for (unsigned i = 0; i < 64; i++) {
		if (missing >> i & 1)
			suite_error(suite, "inventory", 0, "%s %s cpl%u %s: no case", insn->name,
				    mode_names[mode], cpl, i == BASELINE ? "-" : condition_table[i].name);
	}
}

static int compare_ids(const void *a, const void *b)
{
	const struct case_entry *const *x = a, *const *y = b;

	return strcmp((*x)->id, (*y)->id);
}

void ids_check(struct suite *suite)
{
	const struct case_entry **sorted = malloc((suite->case_count + 1) * sizeof(*sorted));

	if (!sorted)
		abort();
	for (size_t i = 0; i < suite->case_count; i++)
		sorted[i] = &suite->cases[i];
	qsort(sorted, suite->case_count, sizeof(*sorted), compare_ids);
	for (size_t i = 1; i < suite->case_count; i++) {
		if (!strcmp(sorted[i]->id, sorted[i - 1]->id))
			suite_error(suite, sorted[i]->file, sorted[i]->line, "duplicate id %s, as from %s:%d",
				    sorted[i]->id, sorted[i - 1]->file, sorted[i - 1]->line);
	}
	free(sorted);
}

void inventory_check(struct suite *suite)
{
	for (unsigned i = INSN_NONE + 1; i < INSN_COUNT; i++) {
		if (suite_covers(suite, &insn_table[i]))
			read_insn(suite, &insn_table[i]);
	}
	for (size_t i = 0; i < suite->case_count; i++)
		read_case(suite, &suite->cases[i]);
	for (size_t i = 0; i < suite->note_count; i++)
		read_note(suite, &suite->notes[i]);
	for (unsigned i = 0; i < table_count; i++) {
		for (unsigned mode = 0; mode < MODE_COUNT; mode++) {
			for (unsigned cpl = 0; cpl < 4; cpl++) {
				if (mode_has_cpl(mode, cpl))
					check_cell(suite, &table[i], mode, cpl);
			}
		}
	}
}
