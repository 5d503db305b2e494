#include "cli/records.h"

#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

#include "vm/outcome.h"

static struct line *begin(struct records *records, const char *type)
{
	struct line *line = &records->line;

	line_text(line, "{\"t\":\"");
	line_text(line, type);
	line_text(line, "\"");
	return line;
}

static void key(struct line *line, const char *name)
{
	line_text(line, ",\"");
	line_text(line, name);
	line_text(line, "\":");
}

static void string(struct line *line, const char *name, struct span value)
{
	key(line, name);
	line_json(line, value);
}

static void optional(struct line *line, const char *name, const char *value)
{
	if (value) {
		string(line, name, span_of(value));
		return;
	}
	key(line, name);
	line_text(line, "null");
}

static void number(struct line *line, const char *name, uint64_t value)
{
	key(line, name);
	line_number(line, value);
}

static int finish(struct records *records)
{
	line_text(&records->line, "}");
	return line_write(&records->line, records->fd);
}

/* ---- the first line ---- */

static void cpuid(struct line *line, const struct machine_facts *machine)
{
	key(line, "cpuid");
	line_text(line, "[");
	for (unsigned i = 0; i < machine->cpuid_count; i++) {
		const struct cpuid_line *c = &machine->cpuid[i];

		line_format(line, "%s[%u,%u,%u,%u,%u,%u]", i ? "," : "", c->leaf, c->subleaf, c->reg[0],
			    c->reg[1], c->reg[2], c->reg[3]);
	}
	line_text(line, "]");
}

static void host(struct line *line)
{
	struct utsname name;

	if (uname(&name))
		return;
	line_text(line, ",\"host\":{\"kernel\":");
	line_json(line, span_of(name.release));
	string(line, "machine", span_of(name.machine));
	line_text(line, "}");
}

int records_run(struct records *records)
{
	const struct run_facts *facts = &records->facts;
	struct line *line;

	if (!records->json)
		return 0;
	line = begin(records, "run");
	number(line, "schema", 1);
	string(line, "visor", span_of(VISOR_VERSION));
	string(line, "image", span_of(facts->image->path));
	string(line, "digest", span_of(facts->image->digest));
	string(line, "suite", facts->list->suite);
	number(line, "cases", facts->list->count);
	number(line, "selected", facts->selected);
	optional(line, "engine", facts->engine);
	optional(line, "cpu", facts->cpu);
	if (facts->missing)
		optional(line, "missing", facts->missing);
	string(line, "vendor", span_of(machine_vendor(facts->machine)));
	cpuid(line, facts->machine);
	host(line);
	return finish(records);
}

int records_start(struct records *records, unsigned index)
{
	if (!records->json)
		return 0;
	string(begin(records, "start"), "id", records->facts.list->entry[index].id);
	return finish(records);
}

/* ---- the end of a case ---- */

static void wanted_json(struct line *line, const struct case_list *list, const struct case_want *want)
{
	line_text(line, "[");
	for (unsigned i = 0; want && i < want->outcome_count; i++) {
		if (i)
			line_text(line, ",");
		line_json(line, list->outcome[want->first_outcome + i]);
	}
	line_text(line, "]");
}

/* The differences from the nearest of the wanted outcomes; how many, or -1 where none is of the kind. */
static int nearest(const struct case_list *list, const struct case_want *want, const struct outcome *got,
		   struct effect *best)
{
	struct effect difference[2 * OUTCOME_EFFECTS_MAX];
	struct outcome wanted;
	char unused[128];
	int fewest = -1;

	for (unsigned i = 0; i < want->outcome_count; i++) {
		int count;

		if (outcome_parse(&wanted, list->outcome[want->first_outcome + i], OUTCOME_EXPECTED, unused,
				  sizeof(unused)))
			continue;
		count = outcome_differences(&wanted, got, difference);
		if (count >= 0 && (fewest < 0 || count < fewest)) {
			fewest = count;
			memcpy(best, difference, (size_t)count * sizeof(*best));
		}
	}
	return fewest;
}

static void differences_json(struct line *line, const struct case_list *list, const struct case_want *want,
			     struct span text)
{
	struct effect difference[2 * OUTCOME_EFFECTS_MAX];
	struct outcome got;
	char unused[128];
	int count;

	if (outcome_parse(&got, text, OUTCOME_REPORTED, unused, sizeof(unused)))
		return;
	count = nearest(list, want, &got, difference);
	if (count < 0)
		return;
	key(line, "differs");
	line_text(line, "[");
	for (int i = 0; i < count; i++) {
		line_text(line, i ? ",\"" : "\"");
		line_add(line, difference[i].name);
		if (difference[i].value.size) {
			line_text(line, "=");
			line_add(line, difference[i].value);
		}
		line_text(line, "\"");
	}
	line_text(line, "]");
}

static void labelled(struct line *line, const char *label, struct span text)
{
	line_text(line, "\n  ");
	line_text(line, label);
	line_plain(line, text);
}

static void citations(struct line *line, const struct case_list *list, const struct case_entry *entry)
{
	for (unsigned i = 0; i < entry->cite_count; i++) {
		const struct case_cite *cite = &list->cite[entry->first_cite + i];

		labelled(line, "says    ", cite->manual);
		line_text(line, " ");
		line_add(line, cite->volume);
		line_text(line, " ");
		line_add(line, cite->section);
		line_text(line, " ");
		line_add(line, cite->title);
	}
}

static void reproduction(struct line *line, const struct run_facts *facts, struct span id)
{
	if (!facts->engine)
		return;
	line_text(line, "\n  again   visor run --engine ");
	line_text(line, facts->engine);
	line_text(line, " --cpu ");
	line_text(line, facts->cpu);
	line_text(line, facts->again ? facts->again : "");
	line_text(line, " --cases ");
	line_add(line, id);
	line_text(line, " --trace /dev/stderr ");
	line_text(line, facts->image->path);
}

static int end_for_people(struct records *records, const struct judge_result *result)
{
	const struct run_facts *facts = &records->facts;
	const struct case_entry *entry = &facts->list->entry[result->index];
	struct line *line = &records->line;

	if (result->verdict == VERDICT_PASS)
		return 0;
	line_text(line, verdict_names[result->verdict]);
	line_text(line, " ");
	line_add(line, entry->id);
	for (unsigned i = 0; result->want && i < result->want->outcome_count; i++)
		labelled(line, i ? "or      " : "wanted  ",
			 facts->list->outcome[result->want->first_outcome + i]);
	labelled(line, "got     ", result->got.size ? result->got : span_of("nothing"));
	labelled(line, "why     ", span_of(result->why));
	for (unsigned i = 0; result->properties && i < result->properties->count && i < PROPERTIES_EXITS_MAX; i++)
		labelled(line, "exit    ", span_of(result->properties->text[i]));
	citations(line, facts->list, entry);
	reproduction(line, facts, entry->id);
	return line_write(line, records->fd);
}

static void reached_json(struct line *line, const char *names)
{
	key(line, "reached");
	line_text(line, "[");
	for (const char *at = names; *at;) {
		size_t size = strcspn(at, "\n");

		if (at != names)
			line_text(line, ",");
		line_json(line, (struct span){at, size});
		at += size + 1;
	}
	line_text(line, "]");
}

/* What a hypervisor of ours has seen, where there is one. */
static void properties_json(struct line *line, const struct properties *properties)
{
	unsigned count = properties->count < PROPERTIES_EXITS_MAX ? properties->count : PROPERTIES_EXITS_MAX;

	key(line, "exits");
	line_text(line, "[");
	for (unsigned i = 0; i < count; i++) {
		line_text(line, i ? "," : "");
		line_json(line, span_of(properties->text[i]));
	}
	line_text(line, "]");
	string(line, "control", span_of(property_names[properties->control]));
	string(line, "efficiency", span_of(property_names[properties->efficiency]));
}

int records_end(struct records *records, const struct judge_result *result, const struct case_cost *cost)
{
	const struct case_list *list = records->facts.list;
	struct line *line;

	if (!records->json)
		return end_for_people(records, result);
	line = begin(records, "end");
	string(line, "id", list->entry[result->index].id);
	string(line, "verdict", span_of(verdict_names[result->verdict]));
	string(line, "got", result->got);
	key(line, "want");
	wanted_json(line, list, result->want);
	string(line, "why", span_of(result->why));
	if (result->verdict == VERDICT_FAIL && result->want)
		differences_json(line, list, result->want, result->got);
	if (result->properties && result->properties->armed)
		properties_json(line, result->properties);
	if (cost) {
		number(line, "insns", cost->insns);
		number(line, "ns", cost->ns);
	}
	if (cost && cost->reached)
		reached_json(line, cost->reached);
	return finish(records);
}

int records_dirty(struct records *records, struct span id, struct span what)
{
	struct line *line = &records->line;

	if (records->json) {
		begin(records, "dirty");
		string(line, "id", id);
		string(line, "what", what);
		return finish(records);
	}
	line_text(line, "dirty after ");
	line_add(line, id);
	line_text(line, ": ");
	line_plain(line, what);
	return line_write(line, records->fd);
}

int records_done(struct records *records, const struct judge *judge, bool complete)
{
	static const char *const keys[VERDICT_COUNT] = {"pass",  "fail",    "notsup",
							"error", "timeout", "crash"};
	struct line *line = &records->line;

	if (records->json) {
		begin(records, "done");
		number(line, "cases", judge_total(judge));
		for (unsigned i = 0; i < VERDICT_COUNT; i++)
			number(line, keys[i], judge->count[i]);
		key(line, "complete");
		line_text(line, complete ? "true" : "false");
		return finish(records);
	}
	line_format(line, "%u cases:", judge_total(judge));
	for (unsigned i = 0; i < VERDICT_COUNT; i++)
		if (judge->count[i] || i == VERDICT_PASS)
			line_format(line, " %u %s", judge->count[i], keys[i]);
	if (!complete)
		line_text(line, ", incomplete");
	return line_write(line, records->fd);
}

/* ---- list ---- */

static int case_for_people(struct records *records, const struct case_list *list,
			   const struct case_entry *entry)
{
	struct line *line = &records->line;

	line_add(line, entry->id);
	line_text(line, "\t");
	for (unsigned w = 0; w < entry->want_count; w++) {
		const struct case_want *want = &list->want[entry->first_want + w];

		line_text(line, w ? "; " : "");
		if (!span_equals(want->predicate, "always")) {
			line_text(line, "if ");
			line_add(line, want->predicate);
			line_text(line, ": ");
		}
		for (unsigned i = 0; i < want->outcome_count; i++) {
			line_text(line, i ? " or " : "");
			line_add(line, list->outcome[want->first_outcome + i]);
		}
	}
	line_text(line, "\t");
	for (unsigned i = 0; i < entry->cite_count; i++) {
		const struct case_cite *cite = &list->cite[entry->first_cite + i];

		line_text(line, i ? "; " : "");
		line_add(line, cite->manual);
		line_text(line, " ");
		line_add(line, cite->volume);
		line_text(line, " ");
		line_add(line, cite->section);
		line_text(line, " ");
		line_add(line, cite->title);
	}
	return line_write(line, records->fd);
}

static void wants_json(struct line *line, const struct case_list *list, const struct case_entry *entry)
{
	key(line, "want");
	line_text(line, "[");
	for (unsigned w = 0; w < entry->want_count; w++) {
		const struct case_want *want = &list->want[entry->first_want + w];

		line_text(line, w ? ",{\"when\":" : "{\"when\":");
		line_json(line, want->predicate);
		key(line, "outcome");
		wanted_json(line, list, want);
		line_text(line, "}");
	}
	line_text(line, "]");
}

static void cites_json(struct line *line, const struct case_list *list, const struct case_entry *entry)
{
	key(line, "cite");
	line_text(line, "[");
	for (unsigned i = 0; i < entry->cite_count; i++) {
		const struct case_cite *cite = &list->cite[entry->first_cite + i];

		line_text(line, i ? ",{\"manual\":" : "{\"manual\":");
		line_json(line, cite->manual);
		string(line, "volume", cite->volume);
		string(line, "section", cite->section);
		string(line, "title", cite->title);
		line_text(line, "}");
	}
	line_text(line, "]");
}

int records_case(struct records *records, unsigned index)
{
	const struct case_list *list = records->facts.list;
	const struct case_entry *entry = &list->entry[index];
	struct line *line;

	if (!records->json)
		return case_for_people(records, list, entry);
	line = begin(records, "case");
	string(line, "id", entry->id);
	string(line, "insn", entry->insn);
	string(line, "mode", entry->mode);
	number(line, "cpl", entry->cpl);
	string(line, "class", entry->class);
	wants_json(line, list, entry);
	cites_json(line, list, entry);
	return finish(records);
}

int records_clause(struct records *records, unsigned index)
{
	const struct case_clause *clause = &records->facts.list->clause[index];
	struct line *line = &records->line;

	if (!records->json)
		return 0;
	begin(records, "clause");
	string(line, "key", clause->key);
	string(line, "manual", clause->names.manual);
	string(line, "volume", clause->names.volume);
	string(line, "section", clause->names.section);
	string(line, "title", clause->names.title);
	return finish(records);
}

int records_cell(struct records *records, unsigned index)
{
	const struct case_cell *cell = &records->facts.list->cell[index];
	struct line *line = &records->line;

	if (!records->json)
		return 0;
	begin(records, "cell");
	string(line, "insn", cell->insn);
	string(line, "mode", cell->mode);
	key(line, "cpl");
	line_add(line, cell->cpl);
	string(line, "condition", cell->condition);
	string(line, "state", cell->state);
	string(line, "reason", cell->reason);
	return finish(records);
}
