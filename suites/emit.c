/* emit.c: writes the case table (x86/case.h) and the section's text (x86/case_section.h). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "notation.h"

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

static void write_settings(FILE *out, const struct case_entry *entry, size_t index)
{
	if (!entry->setting_count)
		return;
	fprintf(out, "static const struct case_setting settings_%zu[] = {", index);
	for (unsigned i = 0; i < entry->setting_count; i++) {
		const struct case_setting *s = &entry->settings[i];

		fprintf(out, "{%u, %u, %u, 0x%x, 0x%llx}, ", s->kind, s->bit, s->field, s->address,
			(unsigned long long)s->value);
	}
	fprintf(out, "};\n");
}

static void write_watch(FILE *out, const struct case_entry *entry, size_t index)
{
	if (!entry->watch_count)
		return;
	fprintf(out, "static const struct case_watch watch_%zu[] = {", index);
	for (unsigned i = 0; i < entry->watch_count; i++)
		fprintf(out, "{0x%x, %u, %u}, ", entry->watch[i].address, entry->watch[i].size,
			entry->watch[i].field);
	fprintf(out, "};\n");
}

static void write_case(FILE *out, const struct case_entry *entry, size_t index)
{
	fprintf(out, "{\"%s\", ", entry->id);
	if (entry->setting_count)
		fprintf(out, "settings_%zu, ", index);
	else
		fprintf(out, "0, ");
	fprintf(out, "%u, %u, %u, %u, %u, {", entry->setting_count, entry->mode, entry->cpl, entry->length,
		entry->watch_count);
	for (unsigned i = 0; i < entry->length; i++)
		fprintf(out, "0x%02x, ", entry->bytes[i]);
	if (entry->watch_count)
		fprintf(out, "}, watch_%zu, ", index);
	else
		fprintf(out, "}, 0, ");
	if (entry->story)
		fprintf(out, "story_%s},\n", entry->story);
	else
		fprintf(out, "0},\n");
}

int suite_write_table(const struct suite *suite, const char *path)
{
	FILE *out = open_output(path);

	if (!out)
		return -1;
	fprintf(out, "/* Generated from the tables of suites/%s. */\n#include \"x86/case.h\"\n\n",
		suite->name);
	for (size_t i = 0; i < suite->case_count; i++) {
		write_settings(out, &suite->cases[i], i);
		write_watch(out, &suite->cases[i], i);
	}
	for (size_t i = 0; i < suite->case_count; i++) {
		if (suite->cases[i].story)
			fprintf(out, "extern void story_%s(void);\n", suite->cases[i].story);
	}
	fprintf(out, "\nconst char case_suite[] = \"%s\";\nconst uint32_t case_count = %zu;\n", suite->name,
		suite->case_count);
	fprintf(out, "const struct case_spec case_table[] = {\n");
	for (size_t i = 0; i < suite->case_count; i++)
		write_case(out, &suite->cases[i], i);
	fprintf(out, "};\n");
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
	fprintf(out, "end\n");
	return close_output(out, path);
}
