#include <stdio.h>
#include <stdlib.h>

#include "vm/judge.h"
#include "vm/lines.h"
#include "vm/test.h"

#define INTEL "cpuid 0 0 16 756e6547 6c65746e 49656e69\ncpuid 7 0 0 0 4 0\n"
#define AMD   "cpuid 0 0 1 68747541 444d4163 69746e65\n"
#define SGDT  "demo.sgdt.long.cpl3"
#define HLT   "demo.hlt.long.cpl0"
#define NOP   "demo.nop.real.cpl0"

/* What came out, one word a case: "PASS FAIL". */
struct session {
	struct case_list list;
	struct judge judge;
	struct lines lines;
	unsigned ready, started, dirty;
	char verdicts[256];
	char why[512];
	char got[512];
};

static void on_ready(void *owner) { ((struct session *)owner)->ready++; }

static void on_started(void *owner, unsigned index)
{
	(void)index;
	((struct session *)owner)->started++;
}

static void on_ended(void *owner, const struct judge_result *result)
{
	struct session *session = owner;
	size_t used = strlen(session->verdicts);

	snprintf(session->verdicts + used, sizeof(session->verdicts) - used, "%s%s", used ? " " : "",
		 verdict_names[result->verdict]);
	snprintf(session->why, sizeof(session->why), "%s", result->why);
	snprintf(session->got, sizeof(session->got), "%.*s", SPAN_ARGS(result->got));
}

static void on_dirty(void *owner, struct span id, struct span what)
{
	(void)id;
	(void)what;
	((struct session *)owner)->dirty++;
}

static void each(void *judge, struct span line) { judge_line(judge, line); }

static void feed(struct session *session, const char *text)
{
	lines_feed(&session->lines, span_of(text), each, &session->judge);
}

static int setup(void **state)
{
	struct session *session = calloc(1, sizeof(*session));
	struct judge_events events = {.owner = session,
				      .ready = on_ready,
				      .started = on_started,
				      .ended = on_ended,
				      .dirty = on_dirty};

	case_list_parse(&session->list, test_span(), session->why, sizeof(session->why));
	judge_start(&session->judge, &session->list, &events);
	session->judge.streaming = true;
	*state = session;
	return 0;
}

static int teardown(void **state)
{
	case_list_free(&((struct session *)*state)->list);
	free(*state);
	return 0;
}

static void a_whole_report(void **state)
{
	struct session *s = *state;

	feed(s, "SeaBIOS says hello\r\nend of nothing\r\ntrapline 1 demo 3\r\n" INTEL "ready\r\n");
	assert_int_equal(s->ready, 1);
	feed(s, "start " SGDT "\r\nend " SGDT " FAULT vector=13 error=0x0\r\n");
	feed(s, "start " NOP "\nend " NOP " RUNS rax=0x1\nbye\n");
	assert_string_equal(s->verdicts, "PASS FAIL");
	assert_string_equal(s->why, "rax: wanted no change, got 0x1");
	assert_int_equal(s->started, 2);
	assert_true(judge_finish(&s->judge, ENDING_EXIT));
	assert_int_equal(judge_total(&s->judge), 2);
}

static void the_machine_chooses(void **state)
{
	struct session *s = *state;

	feed(s, "trapline 1 demo 3\n" AMD "ready\nstart " SGDT "\nend " SGDT " RUNS rax=0x2\n");
	assert_string_equal(s->verdicts, "PASS");
	feed(s, "start " SGDT "\nend " SGDT " FAULT vector=13 error=0x0\n");
	assert_string_equal(s->verdicts, "PASS FAIL");
	assert_non_null(strstr(s->why, "wanted one of 2 outcomes"));
}

static void without_cpuid_nothing_is_known(void **state)
{
	struct session *s = *state;

	feed(s, "trapline 1 demo 3\nready\nstart " SGDT "\nend " SGDT " RUNS rax=0x2\n");
	assert_string_equal(s->verdicts, "ERROR");
	assert_non_null(strstr(s->why, "did not report"));
}

static void check_open_end(struct session *s, enum ending ending, const char *id, const char *verdict)
{
	char text[64];

	s->verdicts[0] = 0;
	snprintf(text, sizeof(text), "start %s\n", id);
	feed(s, text);
	assert_true(judge_finish(&s->judge, ending));
	assert_string_equal(s->verdicts, verdict);
}

static void a_start_without_an_end(void **state)
{
	struct session *s = *state;

	feed(s, "trapline 1 demo 3\n" INTEL "ready\n");
	check_open_end(s, ENDING_EXIT, NOP, "ERROR");
	check_open_end(s, ENDING_SHUTDOWN, NOP, "FAIL");
	check_open_end(s, ENDING_TIMEOUT, NOP, "TIMEOUT");
	check_open_end(s, ENDING_CRASH, NOP, "CRASH");
	/* HANG is what an Intel machine should do here. */
	check_open_end(s, ENDING_TIMEOUT, HLT, "PASS");
	check_open_end(s, ENDING_SHUTDOWN, HLT, "FAIL");
	assert_string_equal(s->got, "SHUTDOWN");
	/* A machine that was reset begins anew in the middle of the case. */
	s->verdicts[0] = 0;
	feed(s, "start " NOP "\ntrapline 1 demo 3\n");
	assert_string_equal(s->verdicts, "FAIL");
	assert_string_equal(s->got, "SHUTDOWN");
	/* And the next start ends a case as well. */
	s->verdicts[0] = 0;
	feed(s, "start " NOP "\nstart " HLT "\n");
	assert_string_equal(s->verdicts, "ERROR");
}

static void no_bye_is_incomplete(void **state)
{
	struct session *s = *state;

	feed(s, "trapline 1 demo 3\n" INTEL "ready\nstart " NOP "\nend " NOP " RUNS\n");
	assert_false(judge_finish(&s->judge, ENDING_EXIT));
	feed(s, "bye\n");
	assert_true(judge_finish(&s->judge, ENDING_EXIT));
}

static void what_the_guest_says_of_itself(void **state)
{
	struct session *s = *state;

	feed(s, "trapline 1 demo 3\n" INTEL "ready\nstart " NOP "\nend " NOP " NOTSUP cpuid.7.0.ecx[3]=0\n");
	assert_string_equal(s->verdicts, "NOTSUP");
	feed(s, "start " NOP "\nend " NOP " NOTSUP cpuid.7.0.ecx[2]=0\n");
	assert_string_equal(s->verdicts, "NOTSUP ERROR");
	assert_non_null(strstr(s->why, "is not so"));
	feed(s, "start " NOP "\nend " NOP " ERROR no stack\n");
	assert_string_equal(s->verdicts, "NOTSUP ERROR ERROR");
	assert_string_equal(s->why, "no stack");
	feed(s, "start " NOP "\nend " NOP " JUMPS over the moon\n");
	assert_string_equal(s->verdicts, "NOTSUP ERROR ERROR ERROR");
	feed(s, "dirty " NOP " cr0=0x1\n");
	assert_int_equal(s->dirty, 1);
	feed(s, "start " NOP "\ndirty " NOP " cr0=0x1\n");
	assert_string_equal(s->verdicts, "NOTSUP ERROR ERROR ERROR ERROR");
}

/* A case that breaks the protocol costs itself and nothing else. */
static void broken_protocol(void **state)
{
	static const char *const texts[] = {
		"garbage\n", "\001\002\n",         "bye\n", "ready\n", "cpuid 1 0 0 0 0 0\n",
		"cpuid x\n", "end " HLT " HANG\n", "end\n"};
	struct session *s = *state;

	feed(s, "trapline 1 demo 3\n" INTEL "ready\n");
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		s->verdicts[0] = 0;
		feed(s, "start " NOP "\n");
		feed(s, texts[i]);
		feed(s, "end " NOP " RUNS\nstart " NOP "\nend " NOP " RUNS\n");
		assert_string_equal(s->verdicts, "ERROR PASS");
	}
	s->verdicts[0] = 0;
	feed(s, "start " NOP "\n");
	for (unsigned i = 0; i < 3 * CASE_LINE_MAX; i++)
		feed(s, "x");
	feed(s, "\nend " NOP " RUNS\nstart " NOP "\nend " NOP " RUNS\n");
	assert_string_equal(s->verdicts, "ERROR PASS");
}

static void another_images_report(void **state)
{
	static const char *const headers[] = {"trapline 2 demo 3\n", "trapline 1 other 3\n",
					      "trapline 1 demo 4\n", "trapline 1 demo\n"};
	struct session *s = *state;

	for (size_t i = 0; i < sizeof(headers) / sizeof(headers[0]); i++) {
		s->judge.fatal[0] = 0;
		feed(s, headers[i]);
		assert_true(s->judge.fatal[0]);
	}
	s->judge.fatal[0] = 0;
	feed(s, "trapline 1 demo 3\nstart demo.unknown\n");
	assert_true(s->judge.fatal[0]);
}

/* Every expectation can fail. */
static void inverted(void **state)
{
	struct session *s = *state;

	s->judge.inverted = true;
	feed(s, "trapline 1 demo 3\n" INTEL "ready\nstart " NOP "\nend " NOP " RUNS\n");
	feed(s, "start " NOP "\nend " NOP " RUNS rax=0x1\n");
	assert_string_equal(s->verdicts, "FAIL PASS");
}

/* Our own machine begins and ends cases itself. */
static void own_machine(void **state)
{
	struct session *s = *state;
	int nop = case_list_find(&s->list, span_of(NOP)), hlt = case_list_find(&s->list, span_of(HLT));

	s->judge.streaming = false;
	feed(s, "trapline 1 demo 3\n" INTEL "ready\n");
	judge_begin(&s->judge, (unsigned)nop);
	feed(s, "start " NOP "\nend " NOP " RUNS\n");
	judge_end(&s->judge, ENDING_DONE, NULL);
	judge_begin(&s->judge, (unsigned)hlt);
	feed(s, "start " HLT "\n");
	judge_end(&s->judge, ENDING_HANG, NULL);
	assert_string_equal(s->verdicts, "PASS PASS");
	/* The outcome of another case, a DONE without an outcome, two outcomes, a hang behind the outcome. */
	s->verdicts[0] = 0;
	judge_begin(&s->judge, (unsigned)nop);
	feed(s, "start " HLT "\nend " HLT " HANG\n");
	judge_end(&s->judge, ENDING_DONE, NULL);
	judge_begin(&s->judge, (unsigned)nop);
	judge_end(&s->judge, ENDING_DONE, NULL);
	judge_begin(&s->judge, (unsigned)nop);
	feed(s, "end " NOP " RUNS\nend " NOP " RUNS\n");
	judge_end(&s->judge, ENDING_DONE, NULL);
	judge_begin(&s->judge, (unsigned)nop);
	feed(s, "end " NOP " RUNS\n");
	judge_end(&s->judge, ENDING_HANG, NULL);
	assert_string_equal(s->verdicts, "ERROR ERROR ERROR ERROR");
	judge_begin(&s->judge, (unsigned)nop);
	judge_end(&s->judge, ENDING_FAILED, "not modelled: XYZ");
	assert_string_equal(s->why, "not modelled: XYZ");
	judge_begin(&s->judge, (unsigned)nop);
	feed(s, "trapline 1 demo 3\nend " NOP " RUNS\n");
	judge_end(&s->judge, ENDING_DONE, NULL);
	assert_string_equal(s->why, "the guest began its report anew");
	/* A report that is not ours, when a case prints it, costs that case alone. */
	judge_begin(&s->judge, (unsigned)nop);
	feed(s, "trapline 9 demo 3\ntrapline 1 another 1\n");
	judge_end(&s->judge, ENDING_DONE, NULL);
	assert_string_equal(s->why, "the guest began its report anew");
	judge_begin(&s->judge, (unsigned)nop);
	feed(s, "end " NOP " RUNS\n");
	judge_end(&s->judge, ENDING_DONE, NULL);
	assert_string_equal(s->why, "");
}

/* Any bytes at all: verdicts, no crash. */
static void noise(void **state)
{
	static const char *const words[] = {"start ",
					    "end ",
					    NOP,
					    HLT,
					    " RUNS",
					    "\n",
					    "bye\n",
					    "ready\n",
					    "dirty ",
					    "cpuid ",
					    " rax=0x1",
					    "trapline 1 demo 3\n",
					    " ",
					    "\r\n",
					    "\200",
					    " NOTSUP x",
					    "FAULT",
					    "msr 1 2\n",
					    "\nstart " NOP "\n",
					    "end " NOP " RUNS\n"};
	struct session *s = *state;
	uint32_t seed = 12345;

	feed(s, "trapline 1 demo 3\n" INTEL "ready\n");
	for (unsigned i = 0; i < 200000; i++) {
		seed = seed * 1664525u + 1013904223u;
		feed(s, words[(seed >> 16) % (sizeof(words) / sizeof(words[0]))]);
		s->judge.fatal[0] = 0;
	}
	judge_finish(&s->judge, ENDING_CRASH);
	assert_true(judge_total(&s->judge) > 1000);
	assert_true(s->judge.count[VERDICT_PASS] > 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_whole_report),
		TEST(the_machine_chooses),
		TEST(without_cpuid_nothing_is_known),
		TEST(a_start_without_an_end),
		TEST(no_bye_is_incomplete),
		TEST(what_the_guest_says_of_itself),
		TEST(broken_protocol),
		TEST(another_images_report),
		TEST(inverted),
		TEST(own_machine),
		TEST(noise),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
