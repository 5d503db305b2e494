/*
 * span.h: pieces of text that somebody else owns, and how they are taken apart.
 *
 * Nothing here allocates, and nothing reads past the end: the text may come from a
 * hostile guest or a damaged file. A span need not end in a zero.
 */
#ifndef TRAPLINE_VM_SPAN_H
#define TRAPLINE_VM_SPAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct span {
	const char *at;
	size_t size;
};

/* For printf's "%.*s". */
#define SPAN_ARGS(span) (int)(span).size, (span).at

static inline struct span span_of(const char *text) { return (struct span){text, strlen(text)}; }

static inline bool span_equals(struct span span, const char *text)
{
	return span.size == strlen(text) && memcmp(span.at, text, span.size) == 0;
}

static inline bool span_same(struct span a, struct span b)
{
	return a.size == b.size && memcmp(a.at, b.at, a.size) == 0;
}

/* Takes what stands before @separator off the front of @rest, and the separator with it. */
static inline struct span span_take(struct span *rest, char separator)
{
	const char *end = rest->size ? memchr(rest->at, separator, rest->size) : NULL;
	struct span taken = {rest->at, end ? (size_t)(end - rest->at) : rest->size};
	size_t gone = taken.size + (end ? 1 : 0);

	rest->at = rest->at ? rest->at + gone : rest->at;
	rest->size -= gone;
	return taken;
}

/* The next word of a line whose words are separated by one space. */
static inline struct span span_word(struct span *rest) { return span_take(rest, ' '); }

/* A number: decimal, or hex behind 0x. False where it is none, or has more than 64 bits. */
bool span_number(struct span span, uint64_t *value);
/* As span_number, for hex without 0x. */
bool span_hex(struct span span, uint64_t *value);

/* Whether every byte is printable ASCII. */
bool span_printable(struct span span);

#endif
