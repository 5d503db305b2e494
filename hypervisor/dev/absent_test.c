#include "dev/test_bench.h"

#include "dev/absent.h"

static void answers_as_an_empty_bus(void **state)
{
	struct test_bench *bench = calloc(1, sizeof(*bench));

	(void)state;
	test_bench_init(bench);
	assert_int_equal(absent_attach(&bench->bus), 0);
	for (unsigned port = 0; port < 65536; port++) {
		bench->unclaimed = 0;
		test_out(bench, port, 1, 0x5a);
		assert_int_equal(test_in(bench, port, 1), 0xff);
		assert_int_equal(bench->unclaimed, absent_name((uint16_t)port) ? 0 : 2);
	}
	assert_string_equal(absent_name(0x2f8), "second serial port");
	assert_null(absent_name(0x3f8));
	assert_null(absent_name(0x61));
	free(bench);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(answers_as_an_empty_bus)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
