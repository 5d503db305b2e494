#include "vm/case_section.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "vm/outcome.h"

#define CASES_MAX (1u << 20)

struct parser {
	struct case_list *list;
	unsigned line;
	char *why;
	size_t size;
	unsigned declared;
	unsigned entry_room, want_room, outcome_room, cite_room, cell_room, clause_room, promise_room;
	bool header, ended;
	struct outcome scratch;
};

static int bad(struct parser *p, const char *what)
{
	snprintf(p->why, p->size, "case section, line %u: %s", p->line, what);
	return -EINVAL;
}

/* Room for one more element in an array that doubles. False: out of memory. */
static bool grow(void **array, unsigned count, unsigned *room, size_t size)
{
	unsigned more = *room ? *room * 2 : 64;
	void *moved;

	if (count < *room)
		return true;
	moved = reallocarray(*array, more, size);
	if (!moved)
		return false;
	*array = moved;
	*room = more;
	return true;
}
#define GROW(p, name)                                                                                        \
	grow((void **)&(p)->list->name, count_of_##name((p)->list), &(p)->name##_room,                       \
	     sizeof(*(p)->list->name))
static unsigned count_of_entry(const struct case_list *l) { return l->count; }
static unsigned count_of_want(const struct case_list *l) { return l->want_count; }
static unsigned count_of_outcome(const struct case_list *l) { return l->outcome_count; }
static unsigned count_of_cite(const struct case_list *l) { return l->cite_count; }
static unsigned count_of_cell(const struct case_list *l) { return l->cell_count; }
static unsigned count_of_clause(const struct case_list *l) { return l->clause_count; }
static unsigned count_of_promise(const struct case_list *l) { return l->promise_count; }

/* ---- words ---- */

static bool is_id(struct span id)
{
	if (id.size == 0 || id.size > CASE_ID_MAX)
		return false;
	for (size_t i = 0; i < id.size; i++) {
		char c = id.at[i];

		if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '.'))
			return false;
	}
	return true;
}

static bool is_one_of(struct span word, const char *const *choices)
{
	for (; *choices; choices++)
		if (span_equals(word, *choices))
			return true;
	return false;
}

static bool is_mode(struct span word)
{
	static const char *const modes[] = {"real", "vm86", "prot16", "prot32", "compat", "long", NULL};

	return is_one_of(word, modes);
}

static bool is_class(struct span words)
{
	static const char *const classes[] = {"control", "behaviour", "privileged", "innocuous", NULL};

	if (words.size == 0 || words.at[words.size - 1] == '+')
		return false;
	while (words.size)
		if (!is_one_of(span_take(&words, '+'), classes))
			return false;
	return true;
}

static bool is_cpl(struct span word) { return word.size == 1 && word.at[0] >= '0' && word.at[0] <= '3'; }

/* ---- lines ---- */

static int parse_header(struct parser *p, struct span rest)
{
	struct span word = span_word(&rest);
	uint64_t number;

	if (!span_equals(word, "trapline-cases"))
		return bad(p, "does not begin with trapline-cases");
	word = span_word(&rest);
	if (!span_number(word, &number) || number != CASE_SECTION_VERSION)
		return bad(p, "a version that this visor does not know");
	p->list->suite = span_word(&rest);
	if (!is_id(p->list->suite))
		return bad(p, "no name of a suite");
	if (!span_number(rest, &number) || number > CASES_MAX)
		return bad(p, "no number of cases");
	p->declared = (unsigned)number;
	p->header = true;
	return 0;
}

/* What a case lacks when the next one begins. */
static int finish_case(struct parser *p)
{
	const struct case_entry *entry;

	if (p->list->count == 0)
		return 0;
	entry = &p->list->entry[p->list->count - 1];
	if (entry->want_count == 0)
		return bad(p, "the case before has no expectation");
	if (entry->cite_count == 0)
		return bad(p, "the case before has no citation");
	return 0;
}

static int parse_case(struct parser *p, struct span rest)
{
	struct case_list *list = p->list;
	struct case_entry entry = {0};
	struct span cpl;
	int error = finish_case(p);

	if (error)
		return error;
	if (list->count == p->declared)
		return bad(p, "more cases than the first line says");
	entry.id = span_word(&rest);
	entry.insn = span_word(&rest);
	entry.mode = span_word(&rest);
	cpl = span_word(&rest);
	entry.class = rest;
	if (!is_id(entry.id))
		return bad(p, "not a case's id");
	if (entry.insn.size == 0 || !is_mode(entry.mode) || !is_cpl(cpl) || !is_class(entry.class))
		return bad(p, "not `case ID INSN MODE CPL CLASS`");
	entry.cpl = (unsigned)(cpl.at[0] - '0');
	entry.first_want = list->want_count;
	entry.first_cite = list->cite_count;
	if (!GROW(p, entry))
		return -ENOMEM;
	list->entry[list->count++] = entry;
	return 0;
}

static int add_outcome(struct parser *p, struct span text)
{
	struct case_list *list = p->list;
	char why[128];

	if (outcome_parse(&p->scratch, text, OUTCOME_EXPECTED, why, sizeof(why)))
		return bad(p, why);
	if (!GROW(p, outcome))
		return -ENOMEM;
	list->outcome[list->outcome_count++] = text;
	list->want[list->want_count - 1].outcome_count++;
	return 0;
}

static int parse_want(struct parser *p, struct span rest)
{
	static const struct machine_facts none;
	struct case_list *list = p->list;
	struct span predicate = span_word(&rest);

	if (list->count == 0)
		return bad(p, "stands before the first case");
	if (predicate_holds(predicate, &none) == -EINVAL)
		return bad(p, "not a predicate");
	if (!GROW(p, want))
		return -ENOMEM;
	list->want[list->want_count++] =
		(struct case_want){.predicate = predicate, .first_outcome = list->outcome_count};
	list->entry[list->count - 1].want_count++;
	return add_outcome(p, rest);
}

static int parse_or(struct parser *p, struct span rest)
{
	if (p->list->count == 0 || p->list->entry[p->list->count - 1].want_count == 0)
		return bad(p, "`or` without a want");
	return add_outcome(p, rest);
}

/* `MANUAL VOLUME SECTION TITLE`: whether it is that. */
static bool read_cite(struct case_cite *cite, struct span rest)
{
	static const char *const manuals[] = {"SDM",    "APM",   "8259A",   "82093AA", "8254", "MC146818A",
					      "HPET",   "8237A", "82371AB", "16550",   "PS2",  "PCI",
					      "VIRTIO", "QEMU",  "KVM",     NULL};

	cite->manual = span_word(&rest);
	cite->volume = span_word(&rest);
	cite->section = span_word(&rest);
	cite->title = rest;
	return is_one_of(cite->manual, manuals) && cite->volume.size && cite->section.size;
}

static int parse_cite(struct parser *p, struct span rest)
{
	struct case_list *list = p->list;
	struct case_cite cite;

	if (list->count == 0)
		return bad(p, "stands before the first case");
	if (!read_cite(&cite, rest))
		return bad(p, "not `cite MANUAL VOLUME SECTION TITLE`");
	if (!GROW(p, cite))
		return -ENOMEM;
	list->cite[list->cite_count++] = cite;
	list->entry[list->count - 1].cite_count++;
	return 0;
}

static int parse_clause(struct parser *p, struct span rest)
{
	struct case_list *list = p->list;
	struct case_clause clause = {.key = span_word(&rest)};

	if (clause.key.size == 0 || !read_cite(&clause.names, rest))
		return bad(p, "not `clause KEY MANUAL VOLUME SECTION TITLE`");
	if (!GROW(p, clause))
		return -ENOMEM;
	list->clause[list->clause_count++] = clause;
	return 0;
}

static int parse_cell(struct parser *p, struct span rest)
{
	struct case_list *list = p->list;
	struct case_cell cell;
	bool untested;

	cell.insn = span_word(&rest);
	cell.mode = span_word(&rest);
	cell.cpl = span_word(&rest);
	cell.condition = span_word(&rest);
	cell.state = span_word(&rest);
	cell.reason = rest;
	untested = span_equals(cell.state, "untested");
	if (cell.insn.size == 0 || !is_mode(cell.mode) || !is_cpl(cell.cpl) || cell.condition.size == 0)
		return bad(p, "not `cell INSN MODE CPL CONDITION STATE`");
	if (!untested && !span_equals(cell.state, "not_encodable"))
		return bad(p, "a cell is untested or not_encodable");
	if (untested != (rest.size != 0))
		return bad(p, untested ? "untested without a reason" : "not_encodable takes no reason");
	if (!GROW(p, cell))
		return -ENOMEM;
	list->cell[list->cell_count++] = cell;
	return 0;
}

/* Hex numbers with commas between them, or `-`: whether it is that. */
static bool is_codes(struct span word)
{
	uint64_t number;

	if (span_equals(word, "-"))
		return true;
	if (word.size == 0)
		return false;
	while (word.size)
		if (!span_hex(span_take(&word, ','), &number))
			return false;
	return true;
}

static int parse_promise(struct parser *p, struct span rest)
{
	struct case_list *list = p->list;
	struct case_promise promise = {.insn = span_word(&rest)};
	struct span control;

	promise.must[0] = span_word(&rest);
	promise.may[0] = span_word(&rest);
	control = span_word(&rest);
	promise.must[1] = span_take(&control, '@');
	promise.may[1] = rest;
	if (control.size && !span_hex(control, &promise.control))
		return bad(p, "no control behind @");
	for (unsigned i = 0; i < 2; i++)
		if (!is_codes(promise.must[i]) || !is_codes(promise.may[i]))
			return bad(p, "not `promise INSN SVM SVM_MAY VMX VMX_MAY`");
	if (!GROW(p, promise))
		return -ENOMEM;
	list->promise[list->promise_count++] = promise;
	return 0;
}

static int parse_line(struct parser *p, struct span line)
{
	struct span rest = line;
	struct span word;

	if (line.size > CASE_LINE_MAX)
		return bad(p, "too long");
	if (!span_printable(line))
		return bad(p, "bytes that are not text");
	if (!p->header)
		return parse_header(p, rest);
	word = span_word(&rest);
	if (span_equals(word, "want"))
		return parse_want(p, rest);
	if (span_equals(word, "or"))
		return parse_or(p, rest);
	if (span_equals(word, "cite"))
		return parse_cite(p, rest);
	if (span_equals(word, "case"))
		return parse_case(p, rest);
	if (span_equals(word, "cell"))
		return parse_cell(p, rest);
	if (span_equals(word, "clause"))
		return parse_clause(p, rest);
	if (span_equals(word, "promise"))
		return parse_promise(p, rest);
	if (span_equals(line, "end")) {
		p->ended = true;
		return finish_case(p);
	}
	return bad(p, "begins with no word of the format");
}

/* ---- ids ---- */

static unsigned hash_of(struct span id)
{
	unsigned hash = 2166136261u;

	for (size_t i = 0; i < id.size; i++)
		hash = (hash ^ (unsigned char)id.at[i]) * 16777619u;
	return hash;
}

static int make_hash(struct parser *p)
{
	struct case_list *list = p->list;
	unsigned slots = 16;

	while (slots < list->count * 2)
		slots *= 2;
	list->hash = calloc(slots, sizeof(*list->hash));
	if (!list->hash)
		return -ENOMEM;
	list->hash_mask = slots - 1;
	for (unsigned i = 0; i < list->count; i++) {
		unsigned slot = hash_of(list->entry[i].id) & list->hash_mask;

		for (; list->hash[slot]; slot = (slot + 1) & list->hash_mask)
			if (span_same(list->entry[list->hash[slot] - 1].id, list->entry[i].id)) {
				snprintf(p->why, p->size, "case section: two cases are called %.*s",
					 SPAN_ARGS(list->entry[i].id));
				return -EINVAL;
			}
		list->hash[slot] = i + 1;
	}
	return 0;
}

int case_list_find(const struct case_list *list, struct span id)
{
	unsigned slot = hash_of(id) & list->hash_mask;

	if (!list->hash)
		return -1;
	for (; list->hash[slot]; slot = (slot + 1) & list->hash_mask)
		if (span_same(list->entry[list->hash[slot] - 1].id, id))
			return (int)(list->hash[slot] - 1);
	return -1;
}

/* ---- the whole ---- */

static int parse_all(struct parser *p, struct span text)
{
	/* A section may be padded with zeros. */
	while (text.size && text.at[text.size - 1] == 0)
		text.size--;
	if (text.size == 0) {
		snprintf(p->why, p->size, "case section: empty");
		return -EINVAL;
	}
	while (text.size) {
		int error;

		p->line++;
		if (p->ended)
			return bad(p, "stands behind the end");
		error = parse_line(p, span_take(&text, '\n'));
		if (error)
			return error;
	}
	if (!p->ended)
		return bad(p, "the section stops before its end line");
	if (p->list->count != p->declared)
		return bad(p, "fewer cases than the first line says");
	return make_hash(p);
}

int case_list_parse(struct case_list *list, struct span text, char *why, size_t size)
{
	struct parser *p = calloc(1, sizeof(*p));
	int error;

	*list = (struct case_list){0};
	if (!p)
		return -ENOMEM;
	p->list = list;
	p->why = why;
	p->size = size;
	error = parse_all(p, text);
	free(p);
	if (error) {
		case_list_free(list);
		if (error == -ENOMEM)
			snprintf(why, size, "case section: out of memory");
	}
	return error;
}

void case_list_free(struct case_list *list)
{
	free(list->entry);
	free(list->want);
	free(list->outcome);
	free(list->cite);
	free(list->cell);
	free(list->clause);
	free(list->promise);
	free(list->hash);
	*list = (struct case_list){0};
}
