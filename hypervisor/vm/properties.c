#include "vm/properties.h"

#include <stdio.h>
#include <string.h>

const char *const property_names[] = {
	[PROPERTY_NOT_JUDGED] = "not judged", [PROPERTY_HELD] = "held", [PROPERTY_BROKEN] = "broken"};

static bool is_vendor(struct span word, unsigned *vendor)
{
	*vendor = span_equals(word, "vmx");
	return *vendor || span_equals(word, "svm");
}

bool properties_armed(struct properties *properties, struct span words)
{
	struct span rest = words, word = span_word(&rest), name;

	if (!is_vendor(word, &properties->vendor))
		return false;
	properties->armed = true;
	if (!rest.size)
		return true;
	name = span_take(&rest, '=');
	properties->told = true;
	return properties->vendor && span_equals(name, "controls") && rest.size > 2 &&
	       memcmp(rest.at, "0x", 2) == 0 &&
	       span_hex((struct span){rest.at + 2, rest.size - 2}, &properties->controls);
}

/* The name of the next NAME=VALUE. */
static struct span span_take_name(struct span *rest)
{
	struct span word = span_word(rest);

	return span_take(&word, '=');
}

bool properties_exit(struct properties *properties, struct span words)
{
	struct span rest = words, word = span_word(&rest), vendor = span_take(&word, '=');
	unsigned number;
	uint64_t code;

	if (!is_vendor(vendor, &number) || word.size < 3 || memcmp(word.at, "0x", 2) != 0)
		return false;
	word = (struct span){word.at + 2, word.size - 2};
	if (!span_hex(word, &code) || code > UINT32_MAX || words.size >= sizeof(properties->text[0]) ||
	    !span_printable(words))
		return false;
	if (properties->count < PROPERTIES_EXITS_MAX) {
		properties->code[properties->count] = (uint32_t)code;
		while (rest.size)
			properties->behind[properties->count] |= span_equals(span_take_name(&rest), "at");
		snprintf(properties->text[properties->count], sizeof(properties->text[0]), "%.*s",
			 SPAN_ARGS(words));
	}
	properties->count++;
	return true;
}

static bool is_among(uint32_t code, struct span codes)
{
	uint64_t number;

	if (span_equals(codes, "-"))
		return false;
	while (codes.size)
		if (span_hex(span_take(&codes, ','), &number) && number == code)
			return true;
	return false;
}

static const struct case_promise *promise_of(const struct case_list *list, struct span insn)
{
	for (unsigned i = 0; i < list->promise_count; i++)
		if (span_same(list->promise[i].insn, insn))
			return &list->promise[i];
	return NULL;
}

static bool completed(struct span got)
{
	struct span rest = got, word = span_word(&rest);

	if (span_equals(word, "HANG"))
		return true;
	if (!span_equals(word, "RUNS"))
		return false;
	while (rest.size) {
		word = span_word(&rest);
		if (word.size > 6 && memcmp(word.at, "event=", 6) == 0)
			return false;
	}
	return true;
}

/* An exit that says nothing of the instruction: it is of bytes behind it, or of a gate that an exception
 * leads to. */
static bool is_elsewhere(const struct properties *properties, unsigned exit)
{
	static const uint32_t task_switch[2] = {0x7d, 9};

	return properties->behind[exit] || properties->code[exit] == task_switch[properties->vendor];
}

static bool has_come(const struct properties *properties, unsigned count, struct span codes)
{
	for (unsigned i = 0; i < count; i++)
		if (is_among(properties->code[i], codes))
			return true;
	return false;
}

static bool switched_tasks(const struct properties *properties, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		if (!properties->behind[i] && is_elsewhere(properties, i))
			return true;
	return false;
}

/* Whether what hangs on a control is asked for: it is on; where nobody has told, it may be. */
enum asked { ASKED, NOT_ASKED, PERHAPS };
static enum asked is_asked(const struct properties *properties, const struct case_promise *promise)
{
	if (!promise || !properties->vendor || !promise->control)
		return ASKED;
	if (!properties->told)
		return PERHAPS;
	return (properties->controls & promise->control) == promise->control ? ASKED : NOT_ASKED;
}

/* What was promised has come, and nothing else has. */
void properties_judge(struct properties *properties, const struct case_list *list,
		      const struct case_entry *entry, struct span got, char *why, size_t size)
{
	const struct case_promise *promise = promise_of(list, entry->insn);
	static const struct span nothing = {"-", 1};
	struct span must = promise ? promise->must[properties->vendor] : nothing;
	struct span may = promise ? promise->may[properties->vendor] : nothing;
	enum asked asked = is_asked(properties, promise);
	unsigned count = properties->count < PROPERTIES_EXITS_MAX ? properties->count : PROPERTIES_EXITS_MAX;

	if (!properties->armed)
		return;
	properties->efficiency = PROPERTY_HELD;
	if (asked == NOT_ASKED)
		must = nothing;
	if (completed(got) && asked == ASKED && !switched_tasks(properties, count) && must.size &&
	    !span_equals(must, "-")) {
		properties->control = PROPERTY_HELD;
		if (!has_come(properties, count, must)) {
			properties->control = PROPERTY_BROKEN;
			snprintf(why, size, "resource control: wanted an exit with 0x%.*s, got %s",
				 SPAN_ARGS(must), count ? properties->text[0] : "none");
		}
	}
	for (unsigned i = 0; i < count; i++)
		if (!is_elsewhere(properties, i) && !is_among(properties->code[i], must) &&
		    !is_among(properties->code[i], may)) {
			properties->efficiency = PROPERTY_BROKEN;
			if (properties->control != PROPERTY_BROKEN)
				snprintf(why, size,
					 "efficiency: nothing asks %.*s to exit, and it did with %s",
					 SPAN_ARGS(entry->insn), properties->text[i]);
			return;
		}
}
