/*
 * lines.h: a stream of bytes made into lines, in room of its own: a line without an end
 * costs no more than the longest that is allowed.
 */
#ifndef TRAPLINE_VM_LINES_H
#define TRAPLINE_VM_LINES_H

#include "vm/span.h"
#include "x86/case_section.h"

struct lines {
	size_t size;
	char room[CASE_LINE_MAX + 2]; /* one byte more than is allowed, and a CR: too long stays visible */
};

typedef void lines_function(void *owner, struct span line);

/* Hands each whole line in @bytes, and what came before it, to @each without its newline. */
static inline void lines_feed(struct lines *lines, struct span bytes, lines_function *each, void *owner)
{
	for (size_t i = 0; i < bytes.size; i++) {
		if (bytes.at[i] == '\n') {
			struct span line = {lines->room, lines->size};

			lines->size = 0;
			each(owner, line);
		} else if (lines->size < sizeof(lines->room)) {
			lines->room[lines->size++] = bytes.at[i];
		}
	}
}

#endif
