/* What a socket gives, cut into objects: whatever the pieces are, and whatever is between them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "monitor/json_split.h"
#include "vm/test.h"

/* What is found in @text when it comes @step bytes at a time: objects as they are, complaints as one letter.
 */
static void found(const char *text, size_t size, size_t step, char *to, size_t room)
{
	struct json_split split = {0};
	size_t used = 0;

	to[0] = 0;
	for (size_t at = 0; at < size; at += step) {
		const char *bytes = text + at;
		size_t left = size - at < step ? size - at : step;

		while (left) {
			enum json_split_found what = json_split(&split, &bytes, &left);

			if (what == JSON_SPLIT_OBJECT)
				used += (size_t)snprintf(to + used, room - used, "<%.*s>", (int)split.size,
							 split.text);
			else if (what != JSON_SPLIT_MORE)
				used += (size_t)snprintf(to + used, room - used, "%c", "??GLD"[what]);
		}
	}
	json_split_free(&split);
}

static void splits(void **state)
{
	static const struct {
		const char *text, *wanted;
	} rows[] = {
		{"{}", "<{}>"},
		{" \r\n\t{}{\"a\":[1,{}]}\n", "<{}><{\"a\":[1,{}]}>"},
		{"{\"a\":\"}{]\\\"\\\\\"}", "<{\"a\":\"}{]\\\"\\\\\"}>"},
		{"{\"a\"", ""},
		{"xyz {}\n{}", "G<{}>"},
		{"[]\n{}", "G<{}>"},
		{"{\"a\xff{}", "<{}>"},
		{"nonsense\xff{}", "G<{}>"},
		{"{]]}", "<{]>G"},
	};
	char to[256];

	(void)state;
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		for (size_t step = 1; step < 16; step++) {
			found(rows[i].text, strlen(rows[i].text), step, to, sizeof(to));
			assert_string_equal(to, rows[i].wanted);
		}
}

static void bounds(void **state)
{
	size_t size = JSON_SPLIT_SIZE * 3;
	char *text = malloc(size + 16), to[64];

	(void)state;
	assert_non_null(text);
	/* A line without end is told once, and what follows it is heard. */
	memset(text, ' ', size);
	text[0] = '{';
	memcpy(text + size, "\n{}", 3);
	found(text, size + 3, 4096, to, sizeof(to));
	assert_string_equal(to, "L<{}>");
	memset(text, '{', 1000);
	memcpy(text + 1000, "\n{}", 3);
	found(text, 1003, 7, to, sizeof(to));
	assert_string_equal(to, "D<{}>");
	/* One that just fits, and one that does not. */
	for (size_t more = 0; more < 2; more++) {
		struct json_split split = {0};
		const char *bytes = text;
		size_t left = JSON_SPLIT_SIZE + more;

		memset(text, ' ', left);
		text[0] = '{';
		text[left - 1] = '}';
		assert_int_equal(json_split(&split, &bytes, &left),
				 more ? JSON_SPLIT_TOO_LARGE : JSON_SPLIT_OBJECT);
		json_split_free(&split);
	}
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(splits), cmocka_unit_test(bounds)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
