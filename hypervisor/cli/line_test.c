#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "cli/line.h"

/* Every byte comes back from an independent reader. */
static void json_strings(void **state)
{
	struct line line = {0};
	char bytes[256];
	json_error_t error;
	json_t *value;

	(void)state;
	for (unsigned i = 0; i < sizeof(bytes); i++)
		bytes[i] = (char)i;
	line_text(&line, "[");
	line_json(&line, (struct span){bytes, sizeof(bytes)});
	line_text(&line, "]");
	for (size_t i = 0; i < line.size; i++)
		assert_true(line.at[i] >= 0x20 && line.at[i] <= 0x7e);
	value = json_loadb(line.at, line.size, JSON_ALLOW_NUL, &error);
	assert_non_null(value);
	/* Bytes above 0x7f become two in UTF-8. */
	assert_int_equal(json_string_length(json_array_get(value, 0)), 256 + 128);
	assert_memory_equal(json_string_value(json_array_get(value, 0)), bytes, 128);
	json_decref(value);
	line_free(&line);
}

static void numbers_and_growth(void **state)
{
	struct line line = {0};

	(void)state;
	line_number(&line, 0);
	line_text(&line, " ");
	line_number(&line, UINT64_MAX);
	assert_int_equal(line.size, 22);
	assert_memory_equal(line.at, "0 18446744073709551615", 22);
	for (unsigned i = 0; i < 10000; i++)
		line_text(&line, "0123456789");
	assert_int_equal(line.size, 100022);
	assert_int_equal(line.error, 0);
	line_free(&line);
}

static void plain_text_has_no_control_characters(void **state)
{
	struct line line = {0};

	(void)state;
	line_plain(&line, span_of("a\033[31m\nb\200"));
	assert_int_equal(line.size, 9);
	assert_memory_equal(line.at, "a?[31m?b?", 9);
	line_free(&line);
}

static void writing(void **state)
{
	struct line line = {0};
	char got[8];
	int ends[2], full = open("/dev/full", O_WRONLY);

	(void)state;
	assert_int_equal(pipe(ends), 0);
	line_text(&line, "one");
	assert_int_equal(line_write(&line, ends[1]), 0);
	assert_int_equal(read(ends[0], got, sizeof(got)), 4);
	assert_memory_equal(got, "one\n", 4);
	assert_int_equal(line.size, 0);
	line_text(&line, "two");
	assert_int_equal(line_write(&line, full), -ENOSPC);
	/* The first error stays. */
	assert_int_equal(line_write(&line, ends[1]), -ENOSPC);
	line_free(&line);
	close(full);
	close(ends[0]);
	close(ends[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(json_strings),
		cmocka_unit_test(numbers_and_growth),
		cmocka_unit_test(plain_text_has_no_control_characters),
		cmocka_unit_test(writing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
