/*
 * line.h: one line of output being put together, and written by one write().
 * The buffer is kept from line to line, so that a line costs no allocation.
 */
#ifndef TRAPLINE_CLI_LINE_H
#define TRAPLINE_CLI_LINE_H

#include "vm/span.h"

struct line {
	char *at;
	size_t size, room;
	int error; /* the first negative errno: out of memory, or what a write said */
};

void line_add(struct line *line, struct span text);
static inline void line_text(struct line *line, const char *text) { line_add(line, span_of(text)); }
void line_format(struct line *line, const char *format, ...) __attribute__((format(printf, 2, 3)));
void line_number(struct line *line, uint64_t number);
/* A JSON string, quotes and all. Bytes that are not ASCII stand as \u00XX each. */
void line_json(struct line *line, struct span text);
/* Text for a person's terminal: bytes that are not printable ASCII become `?`. */
void line_plain(struct line *line, struct span text);

/* Adds a newline, writes the line to @fd and empties it. Returns line->error. */
int line_write(struct line *line, int fd);
void line_free(struct line *line);

#endif
