#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "vm/judge.h"
#include "vm/test.h"

#define SECTION                                                                                              \
	"trapline-cases 1 s 3\n"                                                                             \
	"case s.sgdt.long.cpl0 sgdt long 0 behaviour\nwant always RUNS\ncite SDM 3A 1 t\n"                   \
	"case s.jmp_far.long.cpl0 jmp_far long 0 innocuous\nwant always RUNS\ncite SDM 3A 1 t\n"             \
	"case s.nop.long.cpl0 nop long 0 innocuous\nwant always RUNS\nor RUNS event=0x40\ncite SDM 3A 1 t\n" \
	"promise sgdt 67 - 2e@4 -\npromise jmp_far - 7d - 9\n"

struct seen {
	enum verdict verdict;
	enum property control, efficiency;
	char why[200];
};

static void ready(void *owner) { (void)owner; }

static void ended(void *owner, const struct judge_result *result)
{
	struct seen *seen = owner;

	*seen = (struct seen){result->verdict, result->properties->control, result->properties->efficiency, ""};
	snprintf(seen->why, sizeof(seen->why), "%s", result->why);
}

/* Lines of one case, each ended by '\n'. */
static struct seen judged(unsigned index, const char *lines)
{
	struct case_list list;
	struct seen seen = {0};
	struct judge_events events = {.owner = &seen, .ready = ready, .ended = ended};
	static struct judge judge;
	struct span rest = span_of(lines);
	char why[200];

	assert_int_equal(case_list_parse(&list, span_of(SECTION "end\n"), why, sizeof(why)), 0);
	judge_start(&judge, &list, &events);
	judge_line(&judge, span_of("trapline 1 s 3"));
	judge_begin(&judge, index);
	while (rest.size)
		judge_line(&judge, span_take(&rest, '\n'));
	judge_end(&judge, ENDING_DONE, NULL);
	case_list_free(&list);
	return seen;
}

#define SGDT_ENDS "end s.sgdt.long.cpl0 RUNS\n"
#define NOP_ENDS  "end s.nop.long.cpl0 RUNS\n"

static void nothing_is_judged_without_a_hypervisor(void **state)
{
	struct seen seen = judged(0, SGDT_ENDS);

	(void)state;
	assert_int_equal(seen.verdict, VERDICT_PASS);
	assert_int_equal(seen.control, PROPERTY_NOT_JUDGED);
	assert_int_equal(seen.efficiency, PROPERTY_NOT_JUDGED);
}

static void promised_exits_must_come(void **state)
{
	struct seen seen = judged(0, "armed svm\nexit svm=0x67\n" SGDT_ENDS);

	(void)state;
	assert_int_equal(seen.verdict, VERDICT_PASS);
	assert_int_equal(seen.control, PROPERTY_HELD);
	assert_int_equal(seen.efficiency, PROPERTY_HELD);
	seen = judged(0, "armed svm\n" SGDT_ENDS);
	assert_int_equal(seen.verdict, VERDICT_FAIL);
	assert_int_equal(seen.control, PROPERTY_BROKEN);
	assert_string_equal(seen.why, "resource control: wanted an exit with 0x67, got none");
	/* Under VT-x the control is one that not every processor has. */
	/* A control that not every processor has. */
	seen = judged(0, "armed vmx controls=0x86\n" SGDT_ENDS);
	assert_int_equal(seen.control, PROPERTY_BROKEN);
	seen = judged(0, "armed vmx controls=0x86\nexit vmx=0x2e\n" SGDT_ENDS);
	assert_int_equal(seen.control, PROPERTY_HELD);
	assert_int_equal(seen.efficiency, PROPERTY_HELD);
	seen = judged(0, "armed vmx controls=0x82\nexit vmx=0x2e\n" SGDT_ENDS);
	assert_int_equal(seen.efficiency, PROPERTY_BROKEN);
	seen = judged(0, "armed vmx controls=0x82\n" SGDT_ENDS);
	assert_int_equal(seen.verdict, VERDICT_PASS);
	assert_int_equal(judged(0, "armed vmx control=0x82\n" SGDT_ENDS).verdict, VERDICT_ERROR);
	assert_int_equal(judged(0, "armed svm controls=0x82\n" SGDT_ENDS).verdict, VERDICT_ERROR);
	seen = judged(0, "armed vmx\n" SGDT_ENDS);
	assert_int_equal(seen.verdict, VERDICT_PASS);
	assert_int_equal(seen.control, PROPERTY_NOT_JUDGED);
}

static void other_exits_must_not(void **state)
{
	struct seen seen = judged(2, "armed svm\nexit svm=0x72 info1=0x1\n" NOP_ENDS);

	(void)state;
	assert_int_equal(seen.verdict, VERDICT_FAIL);
	assert_int_equal(seen.efficiency, PROPERTY_BROKEN);
	seen = judged(0, "armed svm\nexit svm=0x67\nexit svm=0x72\n" SGDT_ENDS);
	assert_int_equal(seen.verdict, VERDICT_FAIL);
	assert_int_equal(seen.control, PROPERTY_HELD);
	/* Bytes behind the instruction are another's. */
	seen = judged(2, "armed svm\nexit svm=0x72 at=0x1\n" NOP_ENDS);
	assert_int_equal(seen.verdict, VERDICT_PASS);
	assert_int_equal(judged(1, "armed svm\nexit svm=0x7d info1=0x8\nend s.jmp_far.long.cpl0 RUNS\n").verdict,
			 VERDICT_PASS);
}

/* An exception that leads to a task gate, or an interrupt in front of the instruction: it did not complete. */
static void instructions_that_did_not_complete_need_no_exit(void **state)
{
	struct seen seen = judged(0, "armed svm\nexit svm=0x7d\n" SGDT_ENDS);

	(void)state;
	assert_int_equal(seen.verdict, VERDICT_PASS);
	assert_int_equal(seen.control, PROPERTY_NOT_JUDGED);
	seen = judged(2, "armed svm\nend s.nop.long.cpl0 RUNS event=0x40\n");
	assert_int_equal(seen.verdict, VERDICT_PASS);
}

static void other_lines_are_no_report(void **state)
{
	(void)state;
	assert_int_equal(judged(0, "armed kvm\n" SGDT_ENDS).verdict, VERDICT_ERROR);
	assert_int_equal(judged(0, "armed svm\nexit svm=67\n" SGDT_ENDS).verdict, VERDICT_ERROR);
	assert_int_equal(judged(0, "armed svm\nexit 0x67\n" SGDT_ENDS).verdict, VERDICT_ERROR);
}

static void promises_are_checked(void **state)
{
	static const char *const wrong[] = {"promise sgdt 67 - -\nend\n", "promise sgdt x - - -\nend\n"};
	struct case_list list;
	char text[1000], why[200];

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		snprintf(text, sizeof(text), "%s%s", SECTION, wrong[i]);
		assert_int_equal(case_list_parse(&list, span_of(text), why, sizeof(why)), -EINVAL);
		case_list_free(&list);
	}
}

static void a_hypervisor_says_why_it_cannot_run(void **state)
{
	struct case_list list;
	struct judge_events events = {.ready = ready, .ended = ended};
	static struct judge judge;
	char why[200];

	(void)state;
	assert_int_equal(case_list_parse(&list, span_of(SECTION "end\n"), why, sizeof(why)), 0);
	judge_start(&judge, &list, &events);
	judge_line(&judge, span_of("SeaBIOS"));
	assert_int_equal(judge.fatal[0], 0);
	judge_line(&judge, span_of("l1 cannot run: no AMD-V: cpuid.80000001.0.ecx[2]=0"));
	assert_true(judge.refused);
	assert_string_equal(judge.fatal, "the hypervisor cannot run: no AMD-V: cpuid.80000001.0.ecx[2]=0");
	case_list_free(&list);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_is_judged_without_a_hypervisor),
		cmocka_unit_test(promised_exits_must_come),
		cmocka_unit_test(other_exits_must_not),
		cmocka_unit_test(instructions_that_did_not_complete_need_no_exit),
		cmocka_unit_test(other_lines_are_no_report),
		cmocka_unit_test(promises_are_checked),
		cmocka_unit_test(a_hypervisor_says_why_it_cannot_run),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
