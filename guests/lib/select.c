#include "lib/select.h"

#include <stddef.h>

#include "x86/case.h"

#define MULTIBOOT_HAS_COMMAND_LINE (1u << 2)

const char *select_command_line(uint32_t protocol, const void *information)
{
	const uint32_t *word = information;
	uint64_t address = 0;

	if (protocol == 1 && word[0] & MULTIBOOT_HAS_COMMAND_LINE)
		address = word[4];
	else if (protocol == 2)
		address = word[6] | (uint64_t)word[7] << 32;
	return address ? (const char *)address : "";
}

/* The value of @name (with its `=`) on the command line, or NULL. */
static const char *value_of(const char *line, const char *name)
{
	while (*line) {
		const char *n = name;

		while (*line == ' ')
			line++;
		while (*n && *line == *n) {
			line++;
			n++;
		}
		if (!*n)
			return line;
		while (*line && *line != ' ')
			line++;
	}
	return NULL;
}

static bool is_end(char c) { return !c || c == ' ' || c == ','; }

/* Match @id against the glob that ends at a space, a comma or the line's end. */
static bool glob_matches(const char *glob, const char *id)
{
	const char *star = NULL, *resume = NULL;

	for (;;) {
		if (*glob == '*') {
			star = ++glob;
			resume = id;
		} else if (*id && (*glob == '?' || (*glob == *id && !is_end(*glob)))) {
			glob++;
			id++;
		} else if (!*id && is_end(*glob)) {
			return true;
		} else if (star && *resume) {
			glob = star;
			id = ++resume;
		} else {
			return false;
		}
	}
}

static bool globs_match(const char *glob, const char *id)
{
	for (;;) {
		if (glob_matches(glob, id))
			return true;
		while (!is_end(*glob))
			glob++;
		if (*glob++ != ',')
			return false;
	}
}

static uint32_t take_number(const char **text)
{
	uint32_t number = 0;

	while (**text >= '0' && **text <= '9')
		number = number * 10 + (uint32_t)(*(*text)++ - '0');
	return number;
}

/* Read the next `N` or `N-N` of index=, or an empty range behind the last. */
static bool take_range(struct selection *selection)
{
	const char **text = &selection->ranges;

	if (**text < '0' || **text > '9')
		return false;
	selection->first = selection->last = take_number(text);
	if (**text == '-') {
		++*text;
		selection->last = take_number(text);
	}
	if (**text == ',')
		++*text;
	return true;
}

static bool index_matches(struct selection *selection, uint32_t index)
{
	if (!selection->ranges)
		return true;
	while (index > selection->last || selection->first > selection->last)
		if (!take_range(selection))
			return false;
	return index >= selection->first;
}

void select_start(struct selection *selection, const char *command_line)
{
	const char *from = value_of(command_line, "from=");
	uint32_t i = 0;

	while (from && i < case_count && !glob_matches(from, case_table[i].id))
		i++;
	*selection = (struct selection){.globs = value_of(command_line, "cases="),
					.ranges = value_of(command_line, "index="),
					.at = i,
					.first = 1};
}

uint32_t select_next(struct selection *selection)
{
	for (; selection->at < case_count; selection->at++)
		if (index_matches(selection, selection->at) &&
		    (!selection->globs || globs_match(selection->globs, case_table[selection->at].id)))
			return selection->at++;
	return case_count;
}
