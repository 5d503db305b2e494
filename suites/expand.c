/* expand.c: rows and the cells they stand for, and the program around them. */
#include <ctype.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "notation.h"

const char *const mode_names[MODE_COUNT] = {"real", "vm86", "prot16", "prot32", "compat", "long"};

static char *error_lines[4096];
static unsigned error_line_count;

void suite_error(struct suite *suite, const char *file, int line, const char *format, ...)
{
	char text[512];
	int length = snprintf(text, sizeof(text), "%s:%d: ", file, line);
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text + length, sizeof(text) - (size_t)length, format, arguments);
	va_end(arguments);
	suite->errors++;
	for (unsigned i = 0; i < error_line_count; i++) {
		if (!strcmp(error_lines[i], text))
			return;
	}
	if (error_line_count < sizeof(error_lines) / sizeof(error_lines[0]))
		error_lines[error_line_count++] = strdup(text);
}

bool mode_has_cpl(unsigned mode, unsigned cpl)
{
	return mode == MODE_REAL ? cpl == 0 : mode == MODE_VM86 ? cpl == 3 : true;
}

bool where_holds(unsigned where, unsigned mode, unsigned cpl)
{
	unsigned modes = where & WHERE_MODES, cpls = where & WHERE_CPLS;

	return (!modes || (modes & WHERE_MODE(mode))) && (!cpls || (cpls & WHERE_CPL(cpl)));
}

unsigned where_both(unsigned a, unsigned b)
{
	unsigned modes = (a & WHERE_MODES ? a : WHERE_MODES) & (b & WHERE_MODES ? b : WHERE_MODES);
	unsigned cpls = (a & WHERE_CPLS ? a : WHERE_CPLS) & (b & WHERE_CPLS ? b : WHERE_CPLS);
	unsigned both = (modes & WHERE_MODES) | (cpls & WHERE_CPLS);

	for (unsigned mode = 0; mode < MODE_COUNT; mode++) {
		for (unsigned cpl = 0; cpl < 4; cpl++) {
			if ((both & WHERE_MODES) && (both & WHERE_CPLS) && mode_has_cpl(mode, cpl) &&
			    where_holds(both, mode, cpl))
				return both;
		}
	}
	return 0;
}

/* ---- the baseline of case_layout.h, as values ---- */

static void baseline(struct machine_state *state, unsigned mode, unsigned cpl)
{
	memset(state, 0, sizeof(*state));
#define CASE_BASELINE(name, value) state->field[STATE_##name] = (value);
#include "x86/case_baseline.def"
#undef CASE_BASELINE
}

/* ---- rows ---- */

void row_begin(struct cell *x, const enum insn_key *insns, unsigned where, const char *file, int line)
{
	x->insns = insns;
	x->file = file;
	x->line = line;
	x->where = where;
	x->story = NULL;
	x->insn_index = 0;
	x->mode = 0;
	x->cpl = 0;
	x->made = 0;
	x->active = false;
}

/* Whether @insn, @mode and @cpl belong to the row's set. */
static bool row_covers(const struct insn *insn, unsigned where, unsigned mode, unsigned cpl)
{
	return mode_has_cpl(mode, cpl) && where_holds(where, mode, cpl) &&
	       (!insn->modes || (insn->modes & WHERE_MODE(mode)));
}

static void cell_begin(struct cell *x)
{
	memset(&x->active, 0, offsetof(struct cell, wants) - offsetof(struct cell, active));
	x->active = true;
	x->operand = CASE_OPERAND;
	baseline(&x->state, x->mode, x->cpl);
}

/* Moves the cursor on by one; false past the last mode of the last instruction. */
static bool row_advance(struct cell *x)
{
	if (++x->cpl == 4) {
		x->cpl = 0;
		if (++x->mode == MODE_COUNT) {
			x->mode = 0;
			x->insn_index++;
		}
	}
	return x->insns[x->insn_index] != INSN_NONE;
}

bool row_next(struct cell *x)
{
	bool more = true;

	if (x->active) {
		if (!x->skip)
			cell_finish(x);
		x->made++;
		more = row_advance(x);
	}
	for (; more; more = row_advance(x)) {
		x->insn = &insn_table[x->insns[x->insn_index]];
		if (row_covers(x->insn, x->where, x->mode, x->cpl)) {
			cell_begin(x);
			return true;
		}
	}
	if (!x->made)
		suite_error(x->suite, x->file, x->line, "the row makes no case");
	x->active = false;
	return false;
}

void row_given(struct cell *x) { cell_encode(x); }

/* ---- stories ---- */

/* A story stands in the place of an instruction: in the ids, and in the case section. */
static const struct insn *story_insn(const char *name)
{
	static struct insn *known[STORIES_MAX];
	unsigned i = 0;

	for (; i < STORIES_MAX && known[i]; i++) {
		if (!strcmp(known[i]->name, name))
			return known[i];
	}
	if (i == STORIES_MAX)
		abort();
	known[i] = calloc(1, sizeof(*known[i]));
	if (!known[i])
		abort();
	*known[i] = (struct insn){.key = name, .name = name, .class = CLASS_CONTROL, .suite = "-"};
	return known[i];
}

void story_begin(struct cell *x, const char *name, const char *file, int line)
{
	static const enum insn_key none[] = {INSN_NONE};

	row_begin(x, none, WHERE_MODE(MODE_LONG) | WHERE_CPL(0), file, line);
	x->mode = MODE_LONG;
	x->insn = story_insn(name);
	x->story = name;
}

bool story_next(struct cell *x)
{
	if (x->active) {
		if (!x->want_count)
			want_kind(x, OUTCOME_RUNS);
		cell_finish(x);
		x->active = false;
		x->story = NULL;
		return false;
	}
	cell_begin(x);
	return true;
}

static void note_add(struct suite *suite, const struct cell_note *note)
{
	if (suite->note_count == suite->note_room) {
		suite->note_room = suite->note_room ? 2 * suite->note_room : 256;
		suite->notes = realloc(suite->notes, suite->note_room * sizeof(*suite->notes));
		if (!suite->notes)
			abort();
	}
	suite->notes[suite->note_count++] = *note;
}

void row_note(struct cell *x, const enum insn_key *insns, unsigned where, const char *condition,
	      bool encodable, const char *reason, const char *file, int line)
{
	if (encodable && (!reason || !*reason))
		suite_error(x->suite, file, line, "untested without a reason");
	for (; *insns != INSN_NONE; insns++) {
		const struct insn *insn = &insn_table[*insns];
		struct insn anywhere = {0};

		for (unsigned mode = 0; mode < MODE_COUNT; mode++) {
			for (unsigned cpl = 0; cpl < 4; cpl++) {
				struct cell_note note = {.insn = insn->name,
							 .mode = mode,
							 .cpl = cpl,
							 .encodable = encodable,
							 .reason = reason};

				if (!row_covers(encodable ? insn : &anywhere, where, mode, cpl))
					continue;
				snprintf(note.condition, sizeof(note.condition), "%s", condition);
				note_add(x->suite, &note);
			}
		}
	}
}

/* ---- the program ---- */

static int usage(void)
{
	fprintf(stderr, "usage: expand [--lint] [--table FILE.c] [--section FILE.txt] [--clauses]\n");
	return 2;
}

static int report_errors(void)
{
	for (unsigned i = 0; i < error_line_count; i++)
		fprintf(stderr, "%s\n", error_lines[i]);
	return 1;
}

static void list_clauses(void)
{
	for (unsigned i = 0; i < manual_count; i++)
		printf("%s %s %s %s %u\n", manual_table[i].key, manual_table[i].manual,
		       manual_table[i].volume, manual_table[i].section, manual_table[i].cases);
}

int main(int argc, char **argv)
{
	struct suite suite = {.name = suite_name};
	const char *table = NULL, *section = NULL;
	bool lint = false, clauses = false;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--lint"))
			lint = true;
		else if (!strcmp(argv[i], "--clauses"))
			clauses = true;
		else if (!strcmp(argv[i], "--table") && i + 1 < argc)
			table = argv[++i];
		else if (!strcmp(argv[i], "--section") && i + 1 < argc)
			section = argv[++i];
		else
			return usage();
	}
	suite_rows(&suite);
	ids_check(&suite);
	if (lint)
		inventory_check(&suite);
	if (suite.errors)
		return report_errors();
	if (lint)
		printf("%s: %zu cases, %zu cells noted\n", suite.name, suite.case_count, suite.note_count);
	if (clauses)
		list_clauses();
	if (table && suite_write_table(&suite, table))
		return 1;
	if (section && suite_write_section(&suite, section))
		return 1;
	return 0;
}
