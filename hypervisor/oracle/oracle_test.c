/* Tests of the comparison with the host's processor: that it can fail, above all. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "oracle/compare.h"
#include "oracle/oracle.h"

static struct generator g;

static int open_generator(void **state)
{
	struct profile profile;
	char why[128];

	(void)state;
	assert_int_equal(profile_parse(&profile, "amd", why, sizeof(why)), 0);
	return generator_open(&g, &profile, 7, MODES_BOTH, NULL);
}

static int close_generator(void **state)
{
	(void)state;
	generator_close(&g);
	return 0;
}

static void test_cases_follow_from_their_number(void **state)
{
	struct oracle_case *a = calloc(2, sizeof(*a));
	unsigned same = 0;

	(void)state;
	assert_non_null(a);
	for (uint64_t number = 0; number < 200; number++) {
		enum generated first = generate(&g, number, &a[0]);

		generate(&g, number + 1, &a[1]);
		same += !memcmp(a[0].in.gpr, a[1].in.gpr, sizeof(a[0].in.gpr));
		assert_int_equal(generate(&g, number, &a[1]), first);
		assert_memory_equal(&a[0], &a[1], sizeof(a[0]));
		if (first == GENERATED)
			assert_true(may_run(&g, &a[0]));
	}
	assert_int_equal(same, 0);
	free(a);
}

/* A case of these bytes. */
static struct oracle_case case_of(const uint8_t *code, uint8_t size)
{
	struct oracle_case c = {.insns = 1, .size = size};

	c.in.rip = ARENA_AT + 0x800;
	memset(c.memory, ARENA_FILL, ARENA_PAGE);
	memcpy(c.memory + 0x800, code, size);
	return c;
}
#define CASE(...) case_of((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void test_left_out(void **state)
{
	struct oracle_case cpuid = CASE(0x0f, 0xa2), system_call = CASE(0x0f, 0x05), load = CASE(0x8e, 0xd8);
	struct oracle_case far_jump = CASE(0xff, 0x2b), add = CASE(0x01, 0xc8);
	enum decode_result result;
	struct insn insn;

	(void)state;
	assert_int_equal(classify(&g, &cpuid, 0, &insn, &result), GENERATED_LEFT_OUT);
	assert_int_equal(classify(&g, &system_call, 0, &insn, &result), GENERATED_LEFT_OUT);
	assert_int_equal(classify(&g, &load, 0, &insn, &result), GENERATED_LEFT_OUT);
	assert_int_equal(classify(&g, &far_jump, 0, &insn, &result), GENERATED_LEFT_OUT);
	assert_int_equal(classify(&g, &add, 0, &insn, &result), GENERATED);
	add.size = 1; /* its code ends in the middle */
	assert_true(may_run(&g, &add));
	add.insns = 2;
	add.size = 3; /* HLT behind it */
	assert_true(may_run(&g, &add));
	add.size = 4;
	assert_false(may_run(&g, &add));
	add.memory[0x802] = 0x0f;
	add.memory[0x803] = 0x05;
	assert_false(may_run(&g, &add));
}

static void test_undefined(void **state)
{
	struct oracle_case by_one = CASE(0xd1, 0xe0), by_cl = CASE(0xd3, 0xe0),
			   wide = CASE(0x66, 0x0f, 0xa5, 0xc8);
	struct oracle_case add = CASE(0x01, 0xc8);

	(void)state;
	by_cl.in.gpr[RCX] = 2;
	wide.in.gpr[RCX] = 17;
	assert_int_equal(undefined_of(&g, &add).rflags, 0);
	assert_int_equal(undefined_of(&g, &by_one).rflags, RFLAGS_AF);
	assert_int_equal(undefined_of(&g, &by_cl).rflags, RFLAGS_AF | RFLAGS_OF);
	assert_true(undefined_of(&g, &wide).result);
	wide.in.gpr[RCX] = 16;
	assert_false(undefined_of(&g, &wide).result);
}

/* Each thing that is compared makes a difference. */
static void test_all_is_compared(void **state)
{
	struct oracle_case c = CASE(0x01, 0xc8);
	struct oracle_outcome *o = calloc(2, sizeof(*o));
	struct undefined none = {0};

	(void)state;
	assert_non_null(o);
	assert_true(outcomes_agree(&c, &o[0], &o[1], &none));
#define DIFFERS(field)                                                                                       \
	do {                                                                                                 \
		o[1].field ^= 1;                                                                             \
		assert_false(outcomes_agree(&c, &o[0], &o[1], &none));                                       \
		o[1].field ^= 1;                                                                             \
	} while (0)
	DIFFERS(out.gpr[R15]);
	DIFFERS(out.rip);
	DIFFERS(out.rflags);
	DIFFERS(out.fs_base);
	DIFFERS(out.gs_base);
	DIFFERS(out.fx.fcw);
	DIFFERS(out.fx.fsw);
	DIFFERS(out.fx.ftw);
	DIFFERS(out.fx.mxcsr);
	DIFFERS(out.fx.st[7][9]);
	DIFFERS(out.fx.xmm[15][15]);
	DIFFERS(vector);
	DIFFERS(error_code);
	DIFFERS(address);
	DIFFERS(lost);
	DIFFERS(memory[0]);
	DIFFERS(memory[ARENA_WRITABLE - 1]);
#undef DIFFERS
	free(o);
}

struct report {
	unsigned count;
	char text[4096];
};

static void take_report(void *owner, const char *text)
{
	struct report *report = owner;

	report->count++;
	snprintf(report->text, sizeof(report->text), "%s", text);
}

/* A software CPU that is broken is found out, and the case that shows it is small. */
static void test_mutant_is_found(void **state)
{
	struct oracle_options options = {.seed = 1, .count = 20000, .only = "NEG", .jobs = 1, .reports = 1};
	struct report report = {0};
	struct oracle_counts counts;
	char why[256];
	int error;

	(void)state;
	error = oracle_run(&options, take_report, &report, &counts, why, sizeof(why));
	if (error == -ENOTSUP)
		skip();
	assert_int_equal(error, 0);
	assert_int_equal(counts.differed, 0);
	assert_true(counts.agreed > options.count / 2);
	assert_true(decode_break("NEG", "LOCK"));
	error = oracle_run(&options, take_report, &report, &counts, why, sizeof(why));
	decode_mend();
	assert_int_equal(error, 0);
	assert_true(counts.differed > 0);
	assert_true(report.count > 0);
	assert_non_null(strstr(report.text, "again: visor oracle --seed 1 --from "));
	assert_non_null(strstr(report.text, "host  vector 6"));
	assert_non_null(strstr(report.text, " f0 f"));
}

static void test_unknown_name(void **state)
{
	struct oracle_options options = {.seed = 1, .count = 1, .only = "NOSUCH", .jobs = 1};
	struct oracle_counts counts;
	char why[256];

	(void)state;
	assert_int_equal(oracle_run(&options, take_report, NULL, &counts, why, sizeof(why)), -ENOENT);
	assert_non_null(strstr(why, "NOSUCH"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_cases_follow_from_their_number, open_generator,
						close_generator),
		cmocka_unit_test_setup_teardown(test_left_out, open_generator, close_generator),
		cmocka_unit_test_setup_teardown(test_undefined, open_generator, close_generator),
		cmocka_unit_test(test_all_is_compared),
		cmocka_unit_test(test_mutant_is_found),
		cmocka_unit_test(test_unknown_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
