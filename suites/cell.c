/* cell.c: from a finished cell to a case: its id, what is watched, and its text. */
#include <stdlib.h>
#include <string.h>

#include "notation.h"

static const char *const state_names[STATE_COUNT] = {
#define STATE_FIELD(name) #name,
#include "x86/machine_state.def"
#undef STATE_FIELD
};

/* ---- a finished cell ---- */

static unsigned condition_order(const char *tag) { return (unsigned)(condition_find(tag) - condition_table); }

static void cell_id(struct cell *x, char id[CASE_ID_MAX])
{
	int length = snprintf(id, CASE_ID_MAX, "%s.%s", x->suite->name, x->insn->name);
	const size_t room = CASE_ID_MAX;

	if (x->insn->form)
		length += snprintf(id + length, room - (size_t)length, ".%s", x->insn->form);
	length += snprintf(id + length, room - (size_t)length, ".%s.cpl%u", mode_names[x->mode], x->cpl);
	for (unsigned order = 0; order < condition_count; order++) {
		for (unsigned i = 0; i < x->tag_count; i++) {
			if (condition_order(x->tags[i]) == order && (size_t)length < room)
				length += snprintf(id + length, room - (size_t)length, ".%s", x->tags[i]);
		}
	}
	for (unsigned i = 0; i < x->variant_count && (size_t)length < room; i++)
		length += snprintf(id + length, room - (size_t)length, ".%s", x->variant[i]);
	if ((size_t)length >= room)
		cell_error(x, "the id is too long: %s", id);
}

static void want_write(const struct want *want, FILE *out)
{
	static const char *const kinds[] = {"RUNS", "FAULT", "VMFAIL", "ENTRY_FAILS", "SHUTDOWN", "HANG", "EXIT"};
	static const char *const others[] = {"event", "code", "info1", "info2", "intinfo"};

	if (want->or)
		fprintf(out, "or %s", kinds[want->kind]);
	else
		fprintf(out, "want %s %s", want->predicate, kinds[want->kind]);
	if (want->kind == OUTCOME_FAULT) {
		fprintf(out, " vector=%u", want->vector);
		if (want->has_error)
			fprintf(out, " error=0x%x", want->error);
	}
	for (unsigned i = 0; i < want->effect_count; i++) {
		const struct effect *effect = &want->effects[i];

		if (effect->address)
			fprintf(out, " [0x%x:%u]=%s", effect->address, effect->size, effect->value);
		else
			fprintf(out, " %s=%s",
				effect->field >= STATE_COUNT ? others[effect->field - STATE_COUNT]
							     : state_names[effect->field],
				effect->value);
	}
	fputc('\n', out);
}

static const struct effect *want_effect(const struct want *want, const struct case_watch *watch)
{
	for (unsigned i = 0; i < want->effect_count; i++) {
		const struct effect *effect = &want->effects[i];

		if (effect->address == watch->address && effect->size == watch->size &&
		    (effect->address || effect->field == watch->field))
			return effect;
	}
	return NULL;
}

/* Whether memory that a watch reports is as the library fills it (case_layout.h). */
static bool watch_is_fill(const struct cell *x, const struct case_watch *watch)
{
	bool filled = (watch->address >= CASE_OPERAND_PAGE && watch->address < CASE_LAND_SUPERVISOR);

	for (unsigned i = 0; i < x->setting_count; i++) {
		const struct case_setting *s = &x->settings[i];

		if (s->kind >= SETTING_POKE1 && s->kind <= SETTING_POKE8 &&
		    s->address < watch->address + watch->size && s->address + 8 > watch->address)
			filled = false;
	}
	return filled && watch->size <= 16;
}

/* What is watched is reported whatever happens: an outcome that does not name it says that it stays. */
static void want_name_unchanged(struct cell *x, struct want *want, const struct case_watch *watch)
{
	unsigned count = x->want_count;

	if (want_effect(want, watch))
		return;
	x->want_count = (unsigned)(want - x->wants) + 1; /* the effect_ functions add to the last outcome */
	if (watch->size && watch_is_fill(x, watch))
		effect_memory_wide(x, watch->address, watch->size, ~0ull / 0xff * CASE_FILL,
				   ~0ull / 0xff * CASE_FILL);
	else if (watch->size)
		effect_memory_any(x, watch->address, watch->size);
	else if (watch->field == STATE_rip && want->kind == OUTCOME_RUNS)
		effect_field(x, STATE_rip, x->state.field[STATE_rip] + x->length, ~0ull);
	else
		effect_field(x, watch->field, x->state.field[watch->field], ~0ull);
	x->want_count = count;
}

/* Reports the named fields always, so that one left as it was is seen as well. */
static void cell_watch(struct cell *x)
{
	for (unsigned i = 0; i < x->want_count; i++) {
		for (unsigned j = 0; j < x->wants[i].effect_count; j++) {
			const struct effect *effect = &x->wants[i].effects[j];

			if (!effect->address && !effect->any && effect->field < STATE_COUNT)
				watch_add(x, 0, 0, effect->field);
		}
	}
	for (unsigned i = 0; i < x->want_count; i++) {
		for (unsigned j = 0; j < x->watch_count; j++)
			want_name_unchanged(x, &x->wants[i], &x->watch[j]);
	}
}

static char *cell_text(struct cell *x)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		abort();
	for (unsigned i = 0; i < x->want_count; i++) {
		if (!x->wants[i].given)
			cell_error(x, "an outcome is missing");
		want_write(&x->wants[i], out);
	}
	for (unsigned i = 0; i < x->cite_count; i++)
		fprintf(out, "cite %s %s %s %s\n", x->cites[i]->manual, x->cites[i]->volume,
			x->cites[i]->section, x->cites[i]->title);
	fclose(out);
	return text;
}

void cell_finish(struct cell *x)
{
	struct suite *suite = x->suite;
	struct case_entry entry = {.file = x->file,
				   .line = x->line,
				   .insn = x->insn,
				   .mode = x->mode,
				   .cpl = x->cpl,
				   .story = x->story};

	if (!x->want_count)
		cell_error(x, "the row says nothing");
	if (!x->cite_count)
		cell_error(x, "the row has no citation");
	cell_id(x, entry.id);
	cell_watch(x);
	entry.text = cell_text(x);
	entry.length = x->length;
	memcpy(entry.bytes, x->bytes, sizeof(entry.bytes));
	entry.watch_count = x->watch_count;
	memcpy(entry.watch, x->watch, sizeof(entry.watch));
	entry.setting_count = x->setting_count;
	if (x->setting_count) {
		entry.settings = malloc(x->setting_count * sizeof(*entry.settings));
		if (!entry.settings)
			abort();
		memcpy(entry.settings, x->settings, x->setting_count * sizeof(*entry.settings));
	}
	for (unsigned i = 0; i < x->tag_count; i++)
		entry.conditions |= 1ull << condition_order(x->tags[i]);
	if (suite->case_count == suite->case_room) {
		suite->case_room = suite->case_room ? 2 * suite->case_room : 1024;
		suite->cases = realloc(suite->cases, suite->case_room * sizeof(*suite->cases));
		if (!suite->cases)
			abort();
	}
	suite->cases[suite->case_count++] = entry;
}
