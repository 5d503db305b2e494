/* Hostile guests: whatever a case does, it gets a verdict and the next one runs unharmed. */
#include <stdio.h>
#include <stdlib.h>

#include "vm/suite.h"
#include "vm/test_machine.h"

#define PRINT(label)      "movl $" HERE(label) ", %esi\ncall print\n"
#define DONE              "movl $0x5454, %edx\nmovl $2, %eax\noutl %eax, %dx\n"
#define TEXT(label, text) #label ": .asciz \"" text "\"\n"

/* clang-format off */
TEST_IMAGE(hostile,
	   "0:\n"
	   "movl $0x180000, %esp\n" PRINT(header) "movl $0x5454, %edx\n"
	   "movl $1, %eax\n"
	   "outl %eax, %dx\n"
	   "movl $0x5458, %edx\n"
	   "inl %dx, %eax\n"
	   "jmp *" HERE(table) "(,%eax,4)\n"
	   "print:\n"
	   "movl $0xe9, %edx\n"
	   "1: lodsb\n"
	   "testb %al, %al\n"
	   "jz 2f\n"
	   "outb %al, %dx\n"
	   "jmp 1b\n"
	   "2: ret\n"
	   "good: " PRINT(good_text) DONE
	   "good2: " PRINT(good2_text) DONE
	   "shutdown: lidt " HERE(nothing) "\nint3\n"
	   "hang: jmp hang\n"
	   "halt: cli\nhlt\n"
	   "garbage: " PRINT(garbage_text) DONE
	   "endless: " PRINT(garbage_text) "jmp endless\n"
	   "noline: movb $0x41, %al\noutb %al, $0xe9\njmp noline\n"
	   "misuse: movl $0x5454, %edx\nmovb $2, %al\noutb %al, %dx\nhlt\n"
	   "twice: movl $0x5454, %edx\nmovl $1, %eax\noutl %eax, %dx\nhlt\n"
	   "port: inb $0x62, %al\n" DONE
	   "mmio: movl 0xfed80000, %eax\n" DONE
	   "scribble: movl $0x100000, %edi\nmovl $0x8000, %ecx\nxorl %eax, %eax\ncld\nrep stosl\nhlt\n"
	   "after: " PRINT(after_text) "cli\nhlt\n"
	   "exit: movb $0x10, %al\noutb %al, $0xf4\nhlt\n"
	   "reset: movl $0xcf9, %edx\nmovb $6, %al\noutb %al, %dx\nhlt\n"
	   "silent: " DONE
	   "partial: " PRINT(partial_text) DONE
	   ".balign 4\n"
	   "table: .long " HERE(good) "," HERE(shutdown) "," HERE(hang) "," HERE(halt) "," HERE(garbage) ","
	   HERE(endless) "," HERE(noline) "," HERE(misuse) "," HERE(twice) "," HERE(port) "," HERE(mmio) ","
	   HERE(scribble) "," HERE(after) "," HERE(exit) "," HERE(reset) "," HERE(silent) "," HERE(partial) ","
	   HERE(good2) "\n"
	   "nothing: .word 0\n.long 0\n"
	   TEXT(header, "trapline 1 h 18\\nready\\n")
	   TEXT(good_text, "end h.good RUNS rax=0x1\\n")
	   TEXT(good2_text, "end h.good2 RUNS rax=0x1\\n")
	   TEXT(garbage_text, "what is this\\n")
	   TEXT(after_text, "end h.after RUNS\\n")
	   TEXT(partial_text, "end h.partial RUNS\\nend h"));
/* clang-format on */

/* Cases in the order of the table, what they want, and the verdict that they get. */
static const struct {
	const char *name, *want;
	enum verdict verdict;
	const char *why;
} rows[] = {
	{"good", "RUNS rax=1", VERDICT_PASS, ""},
	{"shutdown", "SHUTDOWN", VERDICT_PASS, ""},
	{"hang", "HANG", VERDICT_PASS, ""},
	{"halt", "HANG", VERDICT_PASS, ""},
	{"garbage", "RUNS", VERDICT_ERROR, "a line that is no report: \"what is this\""},
	{"endless", "RUNS", VERDICT_ERROR, "a line that is no report"},
	{"noline", "RUNS", VERDICT_ERROR, "the guest printed without end"},
	{"misuse", "RUNS", VERDICT_ERROR, "misuse of the control device: out 0x5454 size 1 value 0x2"},
	{"twice", "RUNS", VERDICT_ERROR, "misuse of the control device"},
	{"port", "RUNS", VERDICT_ERROR, "no device answers: in 0x62 size 1"},
	{"mmio", "RUNS", VERDICT_ERROR, "no device answers: read 0xfed80000 size 4"},
	{"scribble", "RUNS", VERDICT_FAIL, "wanted RUNS, got "},
	{"after", "RUNS", VERDICT_ERROR, "did not come back"},
	{"exit", "RUNS", VERDICT_ERROR, "the guest wrote 0x10 to the debug exit"},
	{"reset", "RUNS", VERDICT_ERROR, "the guest reset the machine"},
	{"silent", "RUNS", VERDICT_ERROR, "no end line"},
	{"partial", "RUNS", VERDICT_ERROR, "in the middle of a report line"},
	{"good", "RUNS rax=2", VERDICT_FAIL, "rax: wanted 2, got 0x1"},
};
#define ROWS (sizeof(rows) / sizeof(rows[0]))

struct session {
	struct suite suite;
	struct case_list list;
	char section[8192];
	unsigned started, ended;
	bool inverted;
};

static int on_ready(void *owner)
{
	(void)owner;
	return 0;
}

static int on_started(void *owner, unsigned index)
{
	struct session *session = owner;

	assert_int_equal(index, session->started++);
	return 0;
}

static int on_ended(void *owner, const struct judge_result *result, const struct suite_cost *cost)
{
	struct session *session = owner;
	unsigned i = result->index;
	enum verdict verdict = rows[i].verdict;

	assert_int_equal(i, session->ended++);
	assert_true(cost->insns > 0);
	if (session->inverted && verdict <= VERDICT_FAIL)
		verdict = verdict == VERDICT_PASS ? VERDICT_FAIL : VERDICT_PASS;
	if (result->verdict != verdict || (!session->inverted && !strstr(result->why, rows[i].why)))
		fail_msg("%s: %s, %s", rows[i].name, verdict_names[result->verdict], result->why);
	return 0;
}

static void make_list(struct session *s)
{
	char why[256];
	int used = sprintf(s->section, "trapline-cases 1 h %zu\n", ROWS);

	for (size_t i = 0; i < ROWS; i++)
		used += sprintf(s->section + used,
				"case h.%s%s X prot32 0 control\nwant always %s\ncite SDM 1 2 x\n",
				rows[i].name, i == ROWS - 1 ? "2" : "", rows[i].want);
	sprintf(s->section + used, "end\n");
	if (case_list_parse(&s->list, span_of(s->section), why, sizeof(why)))
		fail_msg("%s", why);
}

static enum suite_end run(struct session *s, const struct suite_options *options)
{
	static const struct boot_options none;
	struct suite_events events = {
		.owner = s, .ready = on_ready, .started = on_started, .ended = on_ended};
	struct image image = {.path = "hostile",
			      .data = (uint8_t *)(uintptr_t)hostile,
			      .size = (size_t)(hostile_end - hostile)};
	struct machine_config config = {.engine = &engine_soft,
					.cpu = "intel",
					.memory = TEST_MEMORY,
					.control = true,
					.owner = &s->suite,
					.console = suite_console,
					.serial = suite_serial};
	struct machine *machine;
	enum suite_end end;
	char why[256];

	make_list(s);
	suite_init(&s->suite, &s->list, options, &events);
	assert_int_equal(machine_new(&machine, &config, why, sizeof(why)), 0);
	assert_int_equal(boot_image(machine, &image, &none, why, sizeof(why)), 0);
	end = suite_run(&s->suite, machine);
	suite_free(&s->suite);
	machine_free(machine);
	case_list_free(&s->list);
	return end;
}

static const struct suite_options options = {.max_insns = 500000, .timeout = 5000000000};

static void each_gets_its_verdict(void **state)
{
	struct session *s = calloc(1, sizeof(*s));
	enum suite_end end = run(s, &options);

	(void)state;
	if (end != SUITE_COMPLETE)
		fail_msg("%s", s->suite.why);
	assert_int_equal(s->ended, ROWS);
	free(s);
}

static void inverted(void **state)
{
	struct suite_options other = options;
	struct session *s = calloc(1, sizeof(*s));

	(void)state;
	s->inverted = other.inverted = true;
	assert_int_equal(run(s, &other), SUITE_COMPLETE);
	assert_int_equal(s->ended, ROWS);
	free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_gets_its_verdict),
		cmocka_unit_test(inverted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
