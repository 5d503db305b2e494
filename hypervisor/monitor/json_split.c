#include "monitor/json_split.h"

#include <stdlib.h>
#include <string.h>

static void forget(struct json_split *split)
{
	split->size = 0;
	split->depth = 0;
	split->in_string = split->escaped = split->skips = split->whole = false;
}

/* False: too large, or no memory. */
static bool keep(struct json_split *split, char byte)
{
	if (split->size == split->room) {
		size_t room = split->room ? split->room * 2 : 1024;
		char *text = room <= JSON_SPLIT_SIZE ? realloc(split->text, room) : NULL;

		if (!text)
			return false;
		split->text = text;
		split->room = room;
	}
	split->text[split->size++] = byte;
	return true;
}

/* Whether the object ends with @byte. */
static bool ends(struct json_split *split, char byte)
{
	if (split->in_string) {
		if (!split->escaped && byte == '"')
			split->in_string = false;
		split->escaped = !split->escaped && byte == '\\';
		return false;
	}
	switch (byte) {
	case '"': split->in_string = true; return false;
	case '{':
	case '[': split->depth++; return false;
	case '}':
	case ']': return --split->depth == 0;
	default: return false;
	}
}

static enum json_split_found skip(struct json_split *split, enum json_split_found what)
{
	forget(split);
	split->skips = true;
	return what;
}

static enum json_split_found take(struct json_split *split, char byte)
{
	if (byte == '\xff') {
		forget(split);
		return JSON_SPLIT_MORE;
	}
	if (split->skips) {
		split->skips = byte != '\n';
		return JSON_SPLIT_MORE;
	}
	if (split->depth == 0 && (byte == ' ' || byte == '\t' || byte == '\r' || byte == '\n'))
		return JSON_SPLIT_MORE;
	if (split->depth == 0 && byte != '{')
		return skip(split, JSON_SPLIT_GARBAGE);
	if (!keep(split, byte))
		return skip(split, JSON_SPLIT_TOO_LARGE);
	if (ends(split, byte)) {
		split->whole = true;
		return JSON_SPLIT_OBJECT;
	}
	return split->depth > JSON_SPLIT_DEPTH ? skip(split, JSON_SPLIT_TOO_DEEP) : JSON_SPLIT_MORE;
}

enum json_split_found json_split(struct json_split *split, const char **bytes, size_t *size)
{
	if (split->whole)
		forget(split);
	while (*size) {
		enum json_split_found found = take(split, **bytes);

		++*bytes;
		--*size;
		if (found != JSON_SPLIT_MORE)
			return found;
	}
	return JSON_SPLIT_MORE;
}

void json_split_free(struct json_split *split)
{
	free(split->text);
	*split = (struct json_split){0};
}
