#include "vm/outcome.h"

#include <errno.h>
#include <stdio.h>

static const char *const kind_names[] = {
	[OUTCOME_RUNS] = "RUNS",         [OUTCOME_FAULT] = "FAULT",
	[OUTCOME_VMFAIL] = "VMFAIL",     [OUTCOME_ENTRY_FAILS] = "ENTRY_FAILS",
	[OUTCOME_SHUTDOWN] = "SHUTDOWN", [OUTCOME_HANG] = "HANG",
	[OUTCOME_EXIT] = "EXIT",
	[OUTCOME_NOTSUP] = "NOTSUP",     [OUTCOME_ERROR] = "ERROR",
};
#define KINDS (sizeof(kind_names) / sizeof(kind_names[0]))

static const struct {
	const char *name;
	size_t size;
} field_names[] = {
#define STATE_FIELD(name) {#name, sizeof(#name) - 1},
#include "x86/machine_state.def"
#undef STATE_FIELD
};

/* ---- names ---- */

static bool is_field(struct span name)
{
	for (size_t i = 0; i < sizeof(field_names) / sizeof(field_names[0]); i++)
		if (name.size == field_names[i].size && name.at[0] == field_names[i].name[0] &&
		    memcmp(name.at, field_names[i].name, name.size) == 0)
			return true;
	return false;
}

/* [0xADDRESS:SIZE] */
static bool is_memory(struct span name)
{
	struct span rest = {name.at + 1, name.size - 2};
	struct span address;
	uint64_t number;

	if (name.size < 6 || name.at[0] != '[' || name.at[name.size - 1] != ']')
		return false;
	address = span_take(&rest, ':');
	if (address.size < 3 || address.at[1] != 'x' || !span_number(address, &number))
		return false;
	return span_number(rest, &number) && number > 0 && number <= 0xffff;
}

/* NAME:want and NAME:got of a story's check that failed. */
static bool is_check(struct span name)
{
	struct span kind = name;
	struct span check = span_take(&kind, ':');

	return check.size > 0 && (span_equals(kind, "want") || span_equals(kind, "got"));
}

static bool is_argument(enum outcome_kind kind, struct span name)
{
	switch (kind) {
	case OUTCOME_RUNS: return span_equals(name, "event") || is_check(name);
	case OUTCOME_FAULT:
		return span_equals(name, "vector") || span_equals(name, "error") || span_equals(name, "rf") ||
		       span_equals(name, "intinfo") || span_equals(name, "nrip") || span_equals(name, "info");
	case OUTCOME_VMFAIL: return span_equals(name, "n");
	case OUTCOME_ENTRY_FAILS: return span_equals(name, "reason");
	case OUTCOME_EXIT:
		return span_equals(name, "code") || span_equals(name, "info1") || span_equals(name, "info2") ||
		       span_equals(name, "intinfo") || span_equals(name, "nrip") || is_check(name);
	default: return false;
	}
}

static const char *required_argument(enum outcome_kind kind)
{
	switch (kind) {
	case OUTCOME_FAULT: return "vector";
	case OUTCOME_VMFAIL: return "n";
	case OUTCOME_ENTRY_FAILS: return "reason";
	case OUTCOME_EXIT: return "code";
	default: return NULL;
	}
}

static const struct effect *find_effect(const struct outcome *outcome, struct span name)
{
	for (unsigned i = 0; i < outcome->effect_count; i++)
		if (span_same(outcome->effect[i].name, name))
			return &outcome->effect[i];
	return NULL;
}

/* ---- values: numbers of any size, compared digit by digit ---- */

struct digits {
	const char *at; /* hex, most significant first, no leading zeros */
	size_t size;
	char room[16];
};

static bool digits_of(struct digits *digits, struct span value)
{
	bool hex = value.size > 2 && value.at[0] == '0' && value.at[1] == 'x';
	uint64_t number;

	if (!hex) {
		size_t used = sizeof(digits->room);

		if (!span_number(value, &number))
			return false;
		for (; number; number >>= 4)
			digits->room[--used] = "0123456789abcdef"[number & 15];
		digits->at = digits->room + used;
		digits->size = sizeof(digits->room) - used;
		return true;
	}
	digits->at = value.at + 2;
	digits->size = value.size - 2;
	for (size_t i = 0; i < digits->size; i++)
		if (!strchr("0123456789abcdefABCDEF", digits->at[i]) || !digits->at[i])
			return false;
	while (digits->size && digits->at[0] == '0') {
		digits->at++;
		digits->size--;
	}
	return true;
}

/* The hex digit at @place, counted from the least significant. */
static unsigned digit_at(const struct digits *digits, size_t place)
{
	char c = place < digits->size ? digits->at[digits->size - 1 - place] : '0';

	return (unsigned)(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
}

static bool is_value(struct span value, enum outcome_side side)
{
	struct digits digits;

	if (side == OUTCOME_REPORTED)
		return digits_of(&digits, value);
	if (span_equals(value, "*"))
		return true;
	if (value.size == 0 || value.at[value.size - 1] == '|')
		return false;
	while (value.size) {
		struct span one = span_take(&value, '|');
		bool masked = memchr(one.at, '&', one.size) != NULL;
		struct span base = span_take(&one, '&');

		if (!digits_of(&digits, base) || (masked && !digits_of(&digits, one)))
			return false;
	}
	return true;
}

static bool one_value_matches(struct span want, struct span got)
{
	bool masked = memchr(want.at, '&', want.size) != NULL;
	struct span base = span_take(&want, '&');
	struct digits wanted, mask, came;
	size_t places;

	if (!digits_of(&wanted, base) || !digits_of(&came, got) || (masked && !digits_of(&mask, want)))
		return false;
	places = wanted.size > came.size ? wanted.size : came.size;
	for (size_t i = 0; i < places; i++) {
		unsigned bits = masked ? digit_at(&mask, i) : 15;

		if ((digit_at(&wanted, i) ^ digit_at(&came, i)) & bits)
			return false;
	}
	return true;
}

bool outcome_value_matches(struct span want, struct span got)
{
	if (span_equals(want, "*"))
		return true;
	while (want.size)
		if (one_value_matches(span_take(&want, '|'), got))
			return true;
	return false;
}

/* ---- parsing ---- */

static int wrong(char *why, size_t size, const char *what, struct span where)
{
	if (where.size > 60)
		where.size = 60;
	if (span_printable(where))
		snprintf(why, size, "%s: \"%.*s\"", what, SPAN_ARGS(where));
	else
		snprintf(why, size, "%s: bytes that are not text", what);
	return -EINVAL;
}

static int parse_effect(struct outcome *outcome, struct span word, enum outcome_side side, char *why,
			size_t size)
{
	struct span value = word;
	struct span name = span_take(&value, '=');

	if (name.size == word.size || name.size == 0)
		return wrong(why, size, "not NAME=VALUE", word);
	/* More of memory has changed than a line tells: of what came, never of what is wanted. */
	bool summary = side == OUTCOME_REPORTED && span_equals(name, "changed");

	if (!is_argument(outcome->kind, name) && !is_field(name) && !is_memory(name) && !summary)
		return wrong(why, size, "unknown name in the outcome", name);
	if (!is_value(value, side))
		return wrong(why, size, "not a value", word);
	if (find_effect(outcome, name))
		return wrong(why, size, "named twice", name);
	if (outcome->effect_count == OUTCOME_EFFECTS_MAX)
		return wrong(why, size, "too many effects", word);
	outcome->effect[outcome->effect_count++] = (struct effect){name, value};
	return 0;
}

int outcome_parse(struct outcome *outcome, struct span text, enum outcome_side side, char *why, size_t size)
{
	struct span rest = text;
	struct span kind = span_word(&rest);
	const char *required;
	unsigned i = 0;

	while (i < KINDS && !span_equals(kind, kind_names[i]))
		i++;
	if (i == KINDS)
		return wrong(why, size, "no kind of outcome", kind);
	outcome->kind = (enum outcome_kind)i;
	outcome->text = text;
	outcome->words = (struct span){NULL, 0};
	outcome->effect_count = 0;
	if (outcome->kind == OUTCOME_NOTSUP || outcome->kind == OUTCOME_ERROR) {
		if (side == OUTCOME_EXPECTED)
			return wrong(why, size, "cannot be expected", kind);
		if (!span_printable(rest) || (outcome->kind == OUTCOME_NOTSUP && rest.size == 0))
			return wrong(why, size, "without its reason", kind);
		outcome->words = rest;
		return 0;
	}
	if (text.size > kind.size && rest.size == 0)
		return wrong(why, size, "ends in a space", kind);
	while (rest.size) {
		int error = parse_effect(outcome, span_word(&rest), side, why, size);

		if (error)
			return error;
	}
	required = required_argument(outcome->kind);
	if (required && !find_effect(outcome, span_of(required)))
		return wrong(why, size, required, span_of("is missing"));
	return 0;
}

/* ---- matching ---- */

bool outcome_matches(const struct outcome *want, const struct outcome *got, char *why, size_t size)
{
	if (want->kind != got->kind) {
		snprintf(why, size, "wanted %.*s, got %.*s", SPAN_ARGS(want->text), SPAN_ARGS(got->text));
		return false;
	}
	for (unsigned i = 0; i < want->effect_count; i++) {
		const struct effect *wanted = &want->effect[i];
		const struct effect *came = find_effect(got, wanted->name);

		if (!came && span_equals(wanted->value, "*"))
			continue;
		if (!came) {
			snprintf(why, size, "%.*s: wanted %.*s, got no change or no report of it",
				 SPAN_ARGS(wanted->name), SPAN_ARGS(wanted->value));
			return false;
		}
		if (!outcome_value_matches(wanted->value, came->value)) {
			snprintf(why, size, "%.*s: wanted %.*s, got %.*s", SPAN_ARGS(wanted->name),
				 SPAN_ARGS(wanted->value), SPAN_ARGS(came->value));
			return false;
		}
	}
	for (unsigned i = 0; i < got->effect_count; i++) {
		const struct effect *came = &got->effect[i];

		if (!find_effect(want, came->name) && is_check(came->name) && i + 1 < got->effect_count) {
			struct span rest = came->name;
			struct span check = span_take(&rest, ':');

			snprintf(why, size, "%.*s: wanted %.*s, got %.*s", SPAN_ARGS(check),
				 SPAN_ARGS(came->value), SPAN_ARGS(got->effect[i + 1].value));
			return false;
		}
		if (!find_effect(want, came->name)) {
			snprintf(why, size, "%.*s: wanted no change, got %.*s", SPAN_ARGS(came->name),
				 SPAN_ARGS(came->value));
			return false;
		}
	}
	return true;
}

int outcome_differences(const struct outcome *want, const struct outcome *got, struct effect *difference)
{
	int count = 0;

	if (want->kind != got->kind)
		return -1;
	for (unsigned i = 0; i < want->effect_count; i++) {
		const struct effect *wanted = &want->effect[i];
		const struct effect *came = find_effect(got, wanted->name);

		if (!came && !span_equals(wanted->value, "*"))
			difference[count++] = (struct effect){wanted->name, {"", 0}};
		else if (came && !outcome_value_matches(wanted->value, came->value))
			difference[count++] = *came;
	}
	for (unsigned i = 0; i < got->effect_count; i++)
		if (!find_effect(want, got->effect[i].name))
			difference[count++] = got->effect[i];
	return count;
}
