/* emit.c: writes the case table (x86/case.h) and the section's text (x86/case_section.h). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "notation.h"
#include "x86/svm.h"
#include "x86/vmx.h"

static FILE *open_output(const char *path)
{
	FILE *out = fopen(path, "w");

	if (!out)
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
	return out;
}

static int close_output(FILE *out, const char *path)
{
	if (fclose(out)) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		return -1;
	}
	return 0;
}

/*
 * Arrays that cases share: those of one product have the same settings but for one entry's bits. Each is
 * written once, as NAME_N.
 */
struct arrays {
	const char *type, *name;
	char **body; /* by number */
	size_t count, room;
	size_t *slot; /* hash table of numbers plus 1 */
	size_t slots;
};

static size_t hash_of(const char *text)
{
	size_t hash = 0xcbf29ce484222325ull;

	for (; *text; text++)
		hash = (hash ^ (unsigned char)*text) * 0x100000001b3ull;
	return hash ^ hash >> 32;
}

static void arrays_open(struct arrays *arrays, size_t cases)
{
	arrays->room = cases + 1;
	arrays->slots = 2 * cases + 1;
	arrays->body = calloc(arrays->room, sizeof(*arrays->body));
	arrays->slot = calloc(arrays->slots, sizeof(*arrays->slot));
	if (!arrays->body || !arrays->slot)
		abort();
}

static void arrays_close(struct arrays *arrays)
{
	for (size_t i = 0; i < arrays->count; i++)
		free(arrays->body[i]);
	free(arrays->body);
	free(arrays->slot);
}

/* The number of the array with this body, which it takes over; a new one is written to @out. */
static size_t arrays_number(struct arrays *arrays, FILE *out, char *body)
{
	size_t at = hash_of(body) % arrays->slots;

	for (; arrays->slot[at]; at = (at + 1) % arrays->slots) {
		if (!strcmp(arrays->body[arrays->slot[at] - 1], body)) {
			free(body);
			return arrays->slot[at] - 1;
		}
	}
	fprintf(out, "static const struct %s %s_%zu[] = {%s};\n", arrays->type, arrays->name, arrays->count,
		body);
	arrays->body[arrays->count++] = body;
	arrays->slot[at] = arrays->count;
	return arrays->count - 1;
}

static FILE *open_body(char **body, size_t *size)
{
	FILE *out = open_memstream(body, size);

	if (!out)
		abort();
	return out;
}

static size_t write_settings(FILE *out, struct arrays *arrays, const struct case_entry *entry)
{
	char *body = NULL;
	size_t size;
	FILE *text = open_body(&body, &size);

	for (unsigned i = 0; i < entry->setting_count; i++) {
		const struct case_setting *s = &entry->settings[i];

		fprintf(text, "{%u, %u, %u, 0x%x, 0x%llx}, ", s->kind, s->bit, s->field, s->address,
			(unsigned long long)s->value);
	}
	fclose(text);
	return arrays_number(arrays, out, body);
}

static size_t write_watch(FILE *out, struct arrays *arrays, const struct case_entry *entry)
{
	char *body = NULL;
	size_t size;
	FILE *text = open_body(&body, &size);

	for (unsigned i = 0; i < entry->watch_count; i++)
		fprintf(text, "{0x%x, %u, %u}, ", entry->watch[i].address, entry->watch[i].size,
			entry->watch[i].field);
	fclose(text);
	return arrays_number(arrays, out, body);
}

/* @numbers: of the case's settings and watches. */
static void write_case(FILE *out, const struct case_entry *entry, const size_t numbers[2])
{
	fprintf(out, "{\"%s\", ", entry->id);
	if (entry->setting_count)
		fprintf(out, "settings_%zu, ", numbers[0]);
	else
		fprintf(out, "0, ");
	fprintf(out, "%u, %u, %u, %u, %u, {", entry->setting_count, entry->mode, entry->cpl, entry->length,
		entry->watch_count);
	for (unsigned i = 0; i < entry->length; i++)
		fprintf(out, "0x%02x, ", entry->bytes[i]);
	if (entry->watch_count)
		fprintf(out, "}, watch_%zu, ", numbers[1]);
	else
		fprintf(out, "}, 0, ");
	if (entry->story)
		fprintf(out, "story_%s},\n", entry->story);
	else
		fprintf(out, "0},\n");
}

/* Writes the arrays; the numbers of each case's, to be freed. */
static size_t (*write_arrays(FILE *out, const struct suite *suite))[2]
{
	struct arrays settings = {.type = "case_setting", .name = "settings"};
	struct arrays watches = {.type = "case_watch", .name = "watch"};
	size_t(*numbers)[2] = calloc(suite->case_count + 1, sizeof(*numbers));

	if (!numbers)
		abort();
	arrays_open(&settings, suite->case_count);
	arrays_open(&watches, suite->case_count);
	for (size_t i = 0; i < suite->case_count; i++) {
		if (suite->cases[i].setting_count)
			numbers[i][0] = write_settings(out, &settings, &suite->cases[i]);
		if (suite->cases[i].watch_count)
			numbers[i][1] = write_watch(out, &watches, &suite->cases[i]);
	}
	arrays_close(&settings);
	arrays_close(&watches);
	return numbers;
}

int suite_write_table(const struct suite *suite, const char *path)
{
	FILE *out = open_output(path);
	size_t(*numbers)[2];

	if (!out)
		return -1;
	fprintf(out, "/* Generated from the tables of suites/%s. */\n#include \"x86/case.h\"\n\n",
		suite->name);
	numbers = write_arrays(out, suite);
	for (size_t i = 0; i < suite->case_count; i++) {
		if (suite->cases[i].story)
			fprintf(out, "extern void story_%s(void);\n", suite->cases[i].story);
	}
	fprintf(out, "\nconst char case_suite[] = \"%s\";\nconst uint32_t case_count = %zu;\n", suite->name,
		suite->case_count);
	fprintf(out, "const struct case_spec case_table[] = {\n");
	for (size_t i = 0; i < suite->case_count; i++)
		write_case(out, &suite->cases[i], numbers[i]);
	fprintf(out, "};\n");
	free(numbers);
	return close_output(out, path);
}

static const char *class_words(unsigned class, char text[64])
{
	static const struct {
		unsigned bit;
		const char *word;
	} words[] = {{CLASS_CONTROL, "control"},
		     {CLASS_BEHAVIOUR, "behaviour"},
		     {CLASS_PRIVILEGED, "privileged"},
		     {CLASS_INNOCUOUS, "innocuous"}};

	text[0] = 0;
	for (unsigned i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (!(class & words[i].bit))
			continue;
		if (text[0])
			strcat(text, "+");
		strcat(text, words[i].word);
	}
	return text;
}

/* Whether @mode can encode some form of the instruction that @name names. */
static bool encodable(const char *name, unsigned mode)
{
	for (unsigned i = INSN_NONE + 1; i < INSN_COUNT; i++) {
		const struct insn *insn = &insn_table[i];

		if (!strcmp(insn->name, name) && (!insn->modes || (insn->modes & WHERE_MODE(mode))))
			return true;
	}
	return false;
}

static bool noted(const struct suite *suite, const char *name, unsigned mode, unsigned cpl)
{
	for (size_t i = 0; i < suite->note_count; i++) {
		const struct cell_note *note = &suite->notes[i];

		if (!note->encodable && !strcmp(note->insn, name) && note->mode == mode && note->cpl == cpl)
			return true;
	}
	return false;
}

/* The modes that instructions.def gives no form of an instruction. */
static void write_not_encodable(FILE *out, const struct suite *suite)
{
	for (unsigned i = INSN_NONE + 1; i < INSN_COUNT; i++) {
		const char *name = insn_table[i].name;

		if (!suite_covers(suite, &insn_table[i]) ||
		    (i > INSN_NONE + 1 && !strcmp(insn_table[i - 1].name, name)))
			continue;
		for (unsigned mode = 0; mode < MODE_COUNT; mode++) {
			for (unsigned cpl = 0; cpl < 4 && !encodable(name, mode); cpl++) {
				if (mode_has_cpl(mode, cpl) && !noted(suite, name, mode, cpl))
					fprintf(out, "cell %s %s %u - not_encodable\n", name,
						mode_names[mode], cpl);
			}
		}
	}
}

/* ---- what a hypervisor is promised ---- */

#define PROMISE_CODES 2
static const struct promise {
	const char *insn;
	short svm[PROMISE_CODES], svm_may[PROMISE_CODES], vmx[PROMISE_CODES], vmx_may[PROMISE_CODES]; /* + 1 */
	uint32_t vmx_if; /* a secondary control, or 0 */
} promises[] = {
#define PROMISE(insn_, ...) {.insn = #insn_, __VA_ARGS__},
#include "promises.def"
#undef PROMISE
};

static void write_codes(FILE *out, const short codes[PROMISE_CODES], uint32_t control)
{
	fprintf(out, " %s", codes[0] ? "" : "-");
	for (unsigned i = 0; i < PROMISE_CODES && codes[i]; i++)
		fprintf(out, "%s%x", i ? "," : "", codes[i] - 1);
	if (control)
		fprintf(out, "@%x", control);
}

static void write_promises(FILE *out)
{
	for (size_t i = 0; i < sizeof(promises) / sizeof(promises[0]); i++) {
		fprintf(out, "promise %s", promises[i].insn);
		write_codes(out, promises[i].svm, 0);
		write_codes(out, promises[i].svm_may, 0);
		write_codes(out, promises[i].vmx, promises[i].vmx_if);
		write_codes(out, promises[i].vmx_may, 0);
		fprintf(out, "\n");
	}
}

int suite_write_section(const struct suite *suite, const char *path)
{
	FILE *out = open_output(path);
	char class[64];

	if (!out)
		return -1;
	fprintf(out, "trapline-cases %d %s %zu\n", CASE_SECTION_VERSION, suite->name, suite->case_count);
	for (size_t i = 0; i < suite->case_count; i++) {
		const struct case_entry *entry = &suite->cases[i];

		fprintf(out, "case %s %s %s %u %s\n%s", entry->id, entry->insn->name, mode_names[entry->mode],
			entry->cpl, class_words(entry->insn->class, class), entry->text);
	}
	for (size_t i = 0; i < suite->note_count; i++) {
		const struct cell_note *note = &suite->notes[i];

		fprintf(out, "cell %s %s %u %s %s%s%s\n", note->insn, mode_names[note->mode], note->cpl,
			*note->condition ? note->condition : "-",
			note->encodable ? "untested" : "not_encodable", note->encodable ? " " : "",
			note->encodable ? note->reason : "");
	}
	write_not_encodable(out, suite);
	for (unsigned i = 0; i < manual_count; i++)
		fprintf(out, "clause %s %s %s %s %s\n", manual_table[i].key, manual_table[i].manual,
			manual_table[i].volume, manual_table[i].section, manual_table[i].title);
	write_promises(out);
	fprintf(out, "end\n");
	return close_output(out, path);
}
