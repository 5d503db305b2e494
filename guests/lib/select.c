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

bool select_matches(const char *command_line, const char *id)
{
	const char *glob = value_of(command_line, "cases=");

	if (!glob)
		return true;
	for (;;) {
		if (glob_matches(glob, id))
			return true;
		while (!is_end(*glob))
			glob++;
		if (*glob++ != ',')
			return false;
	}
}

uint32_t select_first(const char *command_line)
{
	const char *from = value_of(command_line, "from=");
	uint32_t i = 0;

	while (from && i < case_count && !glob_matches(from, case_table[i].id))
		i++;
	return i;
}
