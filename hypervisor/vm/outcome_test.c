#include <errno.h>
#include <stdio.h>

#include "vm/outcome.h"
#include "vm/test.h"

static char why[256];

static int reads(const char *text, enum outcome_side side)
{
	struct outcome outcome;

	return outcome_parse(&outcome, span_of(text), side, why, sizeof(why));
}

static bool matches(const char *want, const char *got)
{
	struct outcome wanted, came;

	assert_int_equal(outcome_parse(&wanted, span_of(want), OUTCOME_EXPECTED, why, sizeof(why)), 0);
	assert_int_equal(outcome_parse(&came, span_of(got), OUTCOME_REPORTED, why, sizeof(why)), 0);
	return outcome_matches(&wanted, &came, why, sizeof(why));
}

/* The differences, one word each: NAME=VALUE or NAME; "-" for another kind. */
static const char *differences(const char *want, const char *got)
{
	static char text[256];
	struct effect difference[2 * OUTCOME_EFFECTS_MAX];
	struct outcome wanted, came;
	int count;
	assert_int_equal(outcome_parse(&wanted, span_of(want), OUTCOME_EXPECTED, why, sizeof(why)), 0);
	assert_int_equal(outcome_parse(&came, span_of(got), OUTCOME_REPORTED, why, sizeof(why)), 0);
	count = outcome_differences(&wanted, &came, difference);
	text[0] = 0;
	for (int i = 0; i < count; i++)
		snprintf(text + strlen(text), sizeof(text) - strlen(text), "%.*s%s%.*s ",
			 SPAN_ARGS(difference[i].name), difference[i].value.size ? "=" : "",
			 SPAN_ARGS(difference[i].value));
	return count < 0 ? "-" : text;
}

static void all_differences(void **state)
{
	(void)state;
	assert_string_equal(differences("RUNS rax=1", "RUNS rax=0x1"), "");
	assert_string_equal(differences("RUNS rax=1|2 rbx=* rcx=3", "RUNS rax=0x3 rdx=0x4"),
			    "rax=0x3 rcx rdx=0x4 ");
	assert_string_equal(differences("FAULT vector=13 error=0", "FAULT vector=6 rf=0x0"),
			    "vector=6 error rf=0x0 ");
	assert_string_equal(differences("FAULT vector=13", "RUNS"), "-");
	assert_string_equal(differences("RUNS", "RUNS [0x2000:8]=0x1 changed=0x40"), "[0x2000:8]=0x1 changed=0x40 ");
	assert_int_not_equal(reads("RUNS changed=0x40", OUTCOME_EXPECTED), 0);
}

static void what_is_an_outcome(void **state)
{
	static const char *const good[] = {"RUNS",
					   "RUNS rax=0x1 [0x2000:10]=0xffffffffffffffffffff",
					   "FAULT vector=13 error=0x0",
					   "FAULT vector=6",
					   "VMFAIL n=7",
					   "RUNS event=0x40",
					   "FAULT vector=1 rf=0x0",
					   "ENTRY_FAILS reason=33",
					   "SHUTDOWN",
					   "HANG"};
	static const char *const bad[] = {"",
					  "runs",
					  "RUNS ",
					  "RUNS  rax=1",
					  "RUNS rax",
					  "RUNS rax=",
					  "RUNS =1",
					  "RUNS rax=1 rax=1",
					  "RUNS zzz=1",
					  "RUNS [2000:1]=0x1",
					  "RUNS [0x2000:0]=0x1",
					  "RUNS [0x2000]=1",
					  "RUNS vector=1",
					  "RUNS rf=0x0",
					  "FAULT",
					  "FAULT error=1",
					  "VMFAIL",
					  "ENTRY_FAILS n=1",
					  "RUNS rax=0xg",
					  "RUNS rax=1 \n",
					  "RUNS rax=-1"};
	static const char *const forms[] = {"RUNS rax=*", "RUNS rax=1|2", "RUNS rax=0x1&0xff",
					    "RUNS rax=1&3|4&7"};
	static const char *const no_forms[] = {"RUNS rax=1|", "RUNS rax=|1", "RUNS rax=&1", "RUNS rax=1&",
					       "RUNS rax=**"};

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		assert_int_equal(reads(good[i], OUTCOME_REPORTED), 0);
		assert_int_equal(reads(good[i], OUTCOME_EXPECTED), 0);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		if (reads(bad[i], OUTCOME_REPORTED) != -EINVAL)
			fail_msg("\"%s\" was taken", bad[i]);
		assert_int_equal(reads(bad[i], OUTCOME_EXPECTED), -EINVAL);
	}
	for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		assert_int_equal(reads(forms[i], OUTCOME_EXPECTED), 0);
		assert_int_equal(reads(forms[i], OUTCOME_REPORTED), -EINVAL);
	}
	for (size_t i = 0; i < sizeof(no_forms) / sizeof(no_forms[0]); i++)
		assert_int_equal(reads(no_forms[i], OUTCOME_EXPECTED), -EINVAL);
	assert_int_equal(reads("NOTSUP cpuid.7.0.ebx[2]=0", OUTCOME_REPORTED), 0);
	assert_int_equal(reads("NOTSUP", OUTCOME_REPORTED), -EINVAL);
	assert_int_equal(reads("NOTSUP x", OUTCOME_EXPECTED), -EINVAL);
	assert_int_equal(reads("ERROR cannot do it", OUTCOME_REPORTED), 0);
	assert_int_equal(reads("ERROR x", OUTCOME_EXPECTED), -EINVAL);
}

static void too_many_effects(void **state)
{
	char text[16 * (OUTCOME_EFFECTS_MAX + 1) + 8] = "RUNS";
	size_t used = 4;

	(void)state;
	for (unsigned i = 0; i <= OUTCOME_EFFECTS_MAX; i++)
		used += (size_t)sprintf(text + used, " [0x%x:1]=0x1", i + 1);
	assert_int_equal(reads(text, OUTCOME_REPORTED), -EINVAL);
	assert_non_null(strstr(why, "too many"));
}

static void values(void **state)
{
	(void)state;
	assert_true(matches("RUNS rax=0x10", "RUNS rax=0x10"));
	assert_true(matches("RUNS rax=16", "RUNS rax=0x0010"));
	assert_true(matches("RUNS rax=0xAB", "RUNS rax=0xab"));
	assert_true(matches("RUNS rax=0", "RUNS rax=0x0"));
	assert_false(matches("RUNS rax=0x10", "RUNS rax=0x11"));
	assert_non_null(strstr(why, "rax: wanted 0x10, got 0x11"));
	assert_false(matches("RUNS rax=0x10", "RUNS rax=0x110"));
	assert_true(matches("RUNS rax=0x12&0xff", "RUNS rax=0xffffff12"));
	assert_false(matches("RUNS rax=0x12&0xff", "RUNS rax=0xffffff13"));
	assert_true(matches("RUNS rax=1|2|3", "RUNS rax=0x3"));
	assert_false(matches("RUNS rax=1|2", "RUNS rax=0x3"));
	assert_true(matches("RUNS [0x2000:20]=0x123456789abcdef0123456789abcdef012345678",
			    "RUNS [0x2000:20]=0x123456789abcdef0123456789abcdef012345678"));
	assert_false(matches("RUNS [0x2000:20]=0x123456789abcdef0123456789abcdef012345678",
			     "RUNS [0x2000:20]=0x023456789abcdef0123456789abcdef012345678"));
}

static void effects(void **state)
{
	(void)state;
	assert_true(matches("RUNS", "RUNS"));
	assert_true(matches("RUNS rax=* rbx=1", "RUNS rbx=0x1"));
	assert_true(matches("RUNS rax=*", "RUNS rax=0x77"));
	assert_false(matches("RUNS", "RUNS rax=0x1"));
	assert_non_null(strstr(why, "rax: wanted no change, got 0x1"));
	assert_false(matches("RUNS rax=1", "RUNS"));
	assert_non_null(strstr(why, "rax: wanted 1"));
	assert_false(matches("FAULT vector=13 error=0", "RUNS"));
	assert_non_null(strstr(why, "wanted FAULT vector=13 error=0, got RUNS"));
	assert_false(matches("FAULT vector=13 error=0", "FAULT vector=13"));
	assert_false(matches("FAULT vector=6", "FAULT vector=6 error=0x0"));
	assert_false(matches("FAULT vector=13 error=0", "FAULT vector=14 error=0x0"));
	assert_true(matches("FAULT vector=13 error=0", "FAULT vector=13 error=0x0"));
	assert_true(matches("VMFAIL n=7", "VMFAIL n=7"));
	assert_false(matches("VMFAIL n=7", "VMFAIL n=8"));
	assert_true(matches("SHUTDOWN", "SHUTDOWN"));
	assert_false(matches("SHUTDOWN", "HANG"));
}

static void checks_of_stories(void **state)
{
	(void)state;
	assert_true(matches("RUNS", "RUNS"));
	assert_false(matches("RUNS", "RUNS irr:want=0x1 irr:got=0x0"));
	assert_string_equal(why, "irr: wanted 0x1, got 0x0");
	assert_int_equal(reads("RUNS irr:have=0x1", OUTCOME_REPORTED), -EINVAL);
	assert_int_equal(reads("RUNS :want=0x1", OUTCOME_REPORTED), -EINVAL);
	assert_int_equal(reads("FAULT vector=3 irr:want=0x1 irr:got=0x0", OUTCOME_REPORTED), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_differences),
		cmocka_unit_test(what_is_an_outcome),
		cmocka_unit_test(too_many_effects),
		cmocka_unit_test(values),
		cmocka_unit_test(effects),
		cmocka_unit_test(checks_of_stories),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
