#include "cli/select.h"

#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>

#include "vm/image.h"

static void choose(struct selection *selection, unsigned index)
{
	if (!selection->chosen[index])
		selection->count++;
	selection->chosen[index] = true;
}

static int add_word(struct selection *selection, const struct case_list *list, struct span word, char *why,
		    size_t size)
{
	char pattern[1024], id[CASE_ID_MAX + 1];
	int index = case_list_find(list, word);

	if (word.size == 0)
		return 0;
	if (index >= 0) {
		choose(selection, (unsigned)index);
		return 0;
	}
	if (word.size >= sizeof(pattern)) {
		snprintf(why, size, "a pattern that is too long");
		return -EINVAL;
	}
	memcpy(pattern, word.at, word.size);
	pattern[word.size] = 0;
	if (!strpbrk(pattern, "*?[")) {
		snprintf(why, size, "no case is called \"%s\"", pattern);
		return -EINVAL;
	}
	for (unsigned i = 0; i < list->count; i++) {
		memcpy(id, list->entry[i].id.at, list->entry[i].id.size);
		id[list->entry[i].id.size] = 0;
		if (fnmatch(pattern, id, 0) == 0)
			choose(selection, i);
	}
	return 0;
}

static int add_words(struct selection *selection, const struct case_list *list, struct span words,
		     char separator, char *why, size_t size)
{
	while (words.size) {
		struct span word = span_take(&words, separator);
		int error;

		if (word.size && word.at[word.size - 1] == '\r')
			word.size--;
		error = add_word(selection, list, word, why, size);
		if (error)
			return error;
	}
	return 0;
}

static int add_file(struct selection *selection, const struct case_list *list, const char *path, char *why,
		    size_t size)
{
	char reason[160];
	uint8_t *data;
	size_t length;
	int error = image_read_file(path, 64u << 20, &data, &length, reason, sizeof(reason));

	if (error) {
		snprintf(why, size, "%s: %s", path, reason);
		return -EINVAL;
	}
	error = add_words(selection, list, (struct span){(char *)data, length}, '\n', why, size);
	free(data);
	return error;
}

int selection_add(struct selection *selection, const struct case_list *list, const char *words, char *why,
		  size_t size)
{
	if (!selection->chosen)
		selection->chosen = calloc(list->count + 1, sizeof(*selection->chosen));
	if (!selection->chosen) {
		snprintf(why, size, "out of memory");
		return -ENOMEM;
	}
	if (words[0] == '@')
		return add_file(selection, list, words + 1, why, size);
	return add_words(selection, list, span_of(words), ',', why, size);
}

void selection_default(struct selection *selection, const struct case_list *list)
{
	if (!selection->chosen)
		selection->count = list->count;
}

void selection_free(struct selection *selection)
{
	free(selection->chosen);
	*selection = (struct selection){0};
}
