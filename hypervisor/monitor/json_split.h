/*
 * json_split.h: finds where JSON objects begin and end in what a socket gives, so that the parser sees one
 * whole object at a time and nothing has to be kept of what is none.
 *
 * An object that is not whole yet is kept, up to a size and a depth. What is neither an object nor space is
 * skipped up to the end of its line, as is an object that grew too large; a byte 0xff, which is in no JSON,
 * forgets what is not whole.
 */
#ifndef TRAPLINE_MONITOR_JSON_SPLIT_H
#define TRAPLINE_MONITOR_JSON_SPLIT_H

#include <stdbool.h>
#include <stddef.h>

#define JSON_SPLIT_SIZE  65536u /* of an object */
#define JSON_SPLIT_DEPTH 64u

enum json_split_found {
	JSON_SPLIT_MORE,    /* all bytes are taken, and no object is whole */
	JSON_SPLIT_OBJECT,  /* split->text holds one, of split->size bytes, until the next call */
	JSON_SPLIT_GARBAGE, /* something that is no object */
	JSON_SPLIT_TOO_LARGE,
	JSON_SPLIT_TOO_DEEP
};

struct json_split {
	char *text;
	size_t size, room;
	unsigned depth;
	bool in_string, escaped, skips, whole;
};

/* Takes bytes off the front of @bytes, up to the end of what it finds. */
enum json_split_found json_split(struct json_split *split, const char **bytes, size_t *size);
void json_split_free(struct json_split *split);

#endif
