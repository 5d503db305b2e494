/* says.c: the words of what the manuals say: outcomes, predicates, effects, citations. */
#include <stdlib.h>
#include <string.h>

#include "notation.h"

/* ---- what the manuals say ---- */

static struct want *want_add(struct cell *x)
{
	if (x->want_count == WANTS_MAX) {
		cell_error(x, "more than %u outcomes", WANTS_MAX);
		return &x->wants[0];
	}
	struct want *want = &x->wants[x->want_count++];

	memset(want, 0, sizeof(*want));
	strcpy(want->predicate, "always");
	return want;
}

static struct want *want_last(struct cell *x)
{
	return x->want_count ? &x->wants[x->want_count - 1] : want_add(x);
}

void want_kind(struct cell *x, enum outcome_kind kind)
{
	struct want *want = want_last(x);

	if (want->given)
		cell_error(x, "two outcomes without ON or OR between them");
	want->kind = kind;
	want->given = true;
}

void want_fault(struct cell *x, unsigned vector, uint32_t error)
{
	want_kind(x, OUTCOME_FAULT);
	struct want *want = want_last(x);

	want->vector = vector;
	want->has_error = vector_has_error_code(vector) && x->mode != MODE_REAL;
	want->error = error;
}

void want_interrupt(struct cell *x, unsigned vector)
{
	if (vector >= 32) {
		want_kind(x, OUTCOME_RUNS);
		effect_event(x, vector);
		return;
	}
	want_fault(x, vector, 0);
	want_last(x)->has_error = false;
}

void want_or(struct cell *x)
{
	struct want *want = want_add(x);

	if (x->want_count < 2)
		cell_error(x, "OR before the first outcome");
	want->or = true;
}

void want_on(struct cell *x, const char *predicate)
{
	snprintf(want_add(x)->predicate, sizeof(x->wants[0].predicate), "%s", predicate);
}

/* One of a few buffers that are used in turn. */
static char *scratch(void)
{
	static char buffers[8][200];
	static unsigned next;

	return buffers[next++ % 8];
}

const char *predicate_feature(const char *feature, bool present)
{
	static const char *const registers[4] = {"eax", "ebx", "ecx", "edx"};
	const struct feature_bit *bit = feature_find(feature);
	char *text = scratch();

	if (!bit) {
		fprintf(stderr, "unknown feature '%s' in a predicate\n", feature);
		exit(1);
	}
	snprintf(text, 200, "cpuid.%x.%x.%s[%u]=%d", bit->leaf, bit->subleaf, registers[bit->reg], bit->bit,
		 present);
	return text;
}

const char *predicate_width(unsigned most)
{
	char *text = scratch();

	snprintf(text, 200, "cpuid.80000008.0.eax[7:0]<%u", most + 1);
	return text;
}

const char *predicate_both(const char *a, const char *b)
{
	char *text = scratch();

	snprintf(text, 200, "%s,%s", a, b);
	return text;
}

/* ---- effects ---- */

/* The effect on this field or memory: one that was named before, or a new one. */
static struct effect *effect_get(struct cell *x, uint32_t address, uint32_t size, unsigned field)
{
	struct want *want = want_last(x);

	for (unsigned i = 0; i < want->effect_count; i++) {
		struct effect *effect = &want->effects[i];

		if (effect->address == address && effect->size == size && (address || effect->field == field))
			return effect;
	}
	if (want->effect_count == EFFECTS_MAX) {
		cell_error(x, "more than %u effects", EFFECTS_MAX);
		return &want->effects[0];
	}
	struct effect *effect = &want->effects[want->effect_count++];

	*effect = (struct effect){.address = address, .size = size, .field = field};
	return effect;
}

void watch_add(struct cell *x, uint32_t address, uint32_t size, unsigned field)
{
	for (unsigned i = 0; i < x->watch_count; i++) {
		const struct case_watch *watch = &x->watch[i];

		if (watch->address == address && watch->size == size && (address || watch->field == field))
			return;
	}
	if (x->watch_count == CASE_WATCH_MAX) {
		cell_error(x, "more than %u effects to watch", CASE_WATCH_MAX);
		return;
	}
	x->watch[x->watch_count++] =
		(struct case_watch){.address = address, .size = (uint16_t)size, .field = (uint16_t)field};
}

void effect_field(struct cell *x, enum state_field field, uint64_t value, uint64_t mask)
{
	struct effect *effect = effect_get(x, 0, 0, field);
	uint64_t all = field_value(x, field, ~0ull);

	effect->any = false;
	if ((mask & all) == all)
		snprintf(effect->value, sizeof(effect->value), "0x%llx",
			 (unsigned long long)field_value(x, field, value));
	else
		snprintf(effect->value, sizeof(effect->value), "0x%llx&0x%llx",
			 (unsigned long long)(value & mask & all), (unsigned long long)(mask & all));
}

void effect_either(struct cell *x, enum state_field field, uint64_t a, uint64_t b)
{
	struct effect *effect = effect_get(x, 0, 0, field);

	effect->any = false;
	snprintf(effect->value, sizeof(effect->value), "0x%llx|0x%llx",
		 (unsigned long long)field_value(x, field, a), (unsigned long long)field_value(x, field, b));
}

void effect_any(struct cell *x, enum state_field field)
{
	struct effect *effect = effect_get(x, 0, 0, field);

	effect->any = true;
	strcpy(effect->value, "*");
}

void effect_event(struct cell *x, unsigned vector)
{
	struct effect *effect = effect_get(x, 0, 0, EFFECT_EVENT);

	snprintf(effect->value, sizeof(effect->value), "0x%x", vector);
}

void want_exit(struct cell *x, uint64_t code)
{
	want_kind(x, OUTCOME_EXIT);
	effect_exit(x, EFFECT_CODE, code, ~0ull);
	effect_exit(x, EFFECT_INFO1, 0, 0);
	effect_exit(x, EFFECT_INFO2, 0, 0);
}

void effect_exit(struct cell *x, unsigned which, uint64_t value, uint64_t mask)
{
	struct effect *effect = effect_get(x, 0, 0, which);

	effect->any = !mask;
	if (!mask)
		strcpy(effect->value, "*");
	else if (mask == ~0ull)
		snprintf(effect->value, sizeof(effect->value), "0x%llx", (unsigned long long)value);
	else
		snprintf(effect->value, sizeof(effect->value), "0x%llx&0x%llx",
			 (unsigned long long)(value & mask), (unsigned long long)mask);
}

/* Hex of @size bytes, 128 bits of them given, zeros above. */
static void format_wide(char *text, size_t room, unsigned size, uint64_t low, uint64_t high)
{
	int length = snprintf(text, room, "0x");

	for (unsigned i = size; i-- > 0;) {
		unsigned byte =
			i >= 16 ? 0 : (unsigned)((i >= 8 ? high >> 8 * (i - 8) : low >> 8 * i) & 0xff);

		if ((size_t)length + 3 < room)
			length += snprintf(text + length, room - (size_t)length, "%02x", byte);
	}
}

void effect_memory_wide(struct cell *x, uint64_t address, unsigned size, uint64_t low, uint64_t high)
{
	struct effect *effect = effect_get(x, (uint32_t)address, size, 0);

	effect->any = false;
	format_wide(effect->value, sizeof(effect->value), size, low, high);
	watch_add(x, effect->address, size, 0);
}

void effect_memory(struct cell *x, uint64_t address, unsigned size, uint64_t value, uint64_t mask)
{
	struct effect *effect;
	char bits[40];

	if (mask == ~0ull) {
		effect_memory_wide(x, address, size, value, 0);
		return;
	}
	effect_memory_wide(x, address, size, value & mask, 0);
	effect = effect_get(x, (uint32_t)address, size, 0);
	format_wide(bits, sizeof(bits), size, mask, 0);
	snprintf(effect->value + strlen(effect->value), sizeof(effect->value) - strlen(effect->value), "&%s",
		 bits);
}

void effect_memory_any(struct cell *x, uint64_t address, unsigned size)
{
	struct effect *effect = effect_get(x, (uint32_t)address, size, 0);

	effect->any = true;
	strcpy(effect->value, "*");
	watch_add(x, effect->address, size, 0);
}

void effect_flags(struct cell *x, uint64_t set, uint64_t cleared, uint64_t undefined)
{
	uint64_t value = (x->state.field[STATE_rflags] | set) & ~cleared;

	effect_field(x, STATE_rflags, value, undefined ? 0x3fffff & ~undefined : ~0ull);
}

void cite(struct cell *x, const char *key)
{
	for (unsigned i = 0; i < manual_count; i++) {
		if (strcmp(manual_table[i].key, key))
			continue;
		manual_table[i].cases++;
		if (x->cite_count < CITES_MAX)
			x->cites[x->cite_count++] = &manual_table[i];
		return;
	}
	cell_error(x, "unknown citation %s", key);
}
