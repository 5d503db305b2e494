/*
 * select.h: which cases of an image a command line means.
 */
#ifndef TRAPLINE_CLI_SELECT_H
#define TRAPLINE_CLI_SELECT_H

#include "vm/case_section.h"

struct selection {
	bool *chosen; /* one a case; NULL: all of them */
	unsigned count;
};

/*
 * Adds what @words names: ids and globs, separated by commas, or @FILE with one a line. 0, -ENOMEM, or
 * -EINVAL with @why: an id that the image does not hold, or a file that cannot be read.
 */
int selection_add(struct selection *selection, const struct case_list *list, const char *words, char *why,
		  size_t size);
/* Everything, where nothing was added. */
void selection_default(struct selection *selection, const struct case_list *list);
static inline bool selection_has(const struct selection *selection, unsigned index)
{
	return !selection->chosen || selection->chosen[index];
}
void selection_free(struct selection *selection);

#endif
