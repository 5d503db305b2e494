/*
 * Damaged files, case sections and reports: whatever they hold, there is a reason or a result, and
 * nothing that is read from them leads outside of them.
 */
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fuzz/fuzz.h"
#include "vm/boot.h"
#include "vm/case_section.h"
#include "vm/image.h"
#include "vm/judge.h"
#include "vm/lines.h"
#include "vm/test_machine.h"

#define GUEST "build/hostile/hostile.elf"

static char path[] = "/tmp/fuzz_test.XXXXXX";
static struct image whole;    /* the guest */
static struct case_list list; /* its cases */
static uint8_t *bytes;        /* of the guest, to be damaged */
static struct machine *machine;

static void check_reason(uint64_t round, int error, const char *why)
{
	if (error > 0 || (error && (!why[0] || strchr(why, '\n'))))
		fail_msg("FUZZ_ROUND=%llu: %d \"%s\"", (unsigned long long)round, error, why);
}

/* ---- images ---- */

static void write_image(size_t size)
{
	FILE *file = fopen(path, "w");

	assert_non_null(file);
	assert_int_equal(fwrite(bytes, 1, size, file), size);
	assert_int_equal(fclose(file), 0);
}

/* What an image says of itself lies in it, and in a machine. */
static void check_image(uint64_t round, const struct image *image)
{
	const uint8_t *end = image->data + image->size;

	for (unsigned i = 0; i < image->segment_count; i++) {
		const struct image_segment *s = &image->segment[i];

		if (s->offset > image->size || s->file_size > image->size - s->offset ||
		    s->file_size > s->size || s->address + s->size > 1ull << 32)
			fail_msg("FUZZ_ROUND=%llu: segment %u", (unsigned long long)round, i);
	}
	if (image->cases.at)
		assert_true((const uint8_t *)image->cases.at >= image->data &&
			    (const uint8_t *)image->cases.at + image->cases.size <= end);
}

static void round_of_image(struct fuzz *fuzz, uint64_t round)
{
	struct boot_options options = {0};
	struct image image;
	char why[300] = "";
	size_t size = whole.size, section = whole.size - 4096;
	int error;

	memcpy(bytes, whole.data, size);
	/* The headers: of the file and of the program in front, of sections at the end. */
	if (fuzz_one_in(fuzz, 2))
		fuzz_mutate(fuzz, bytes, 512);
	else
		fuzz_mutate(fuzz, bytes + section, 4096);
	if (fuzz_one_in(fuzz, 8))
		fuzz_mutate(fuzz, bytes + 4096, 8192); /* multiboot's header and the notes */
	if (fuzz_one_in(fuzz, 8))
		size = 1 + fuzz_next(fuzz) % size;
	write_image(size);
	error = image_open(&image, path, why, sizeof(why));
	check_reason(round, error, why);
	if (error)
		return;
	check_image(round, &image);
	why[0] = 0;
	check_reason(round, boot_image(machine, &image, &options, why, sizeof(why)), why);
	image_close(&image);
}

static void damaged_images(void **state)
{
	(void)state;
	fuzz_rounds(2500, round_of_image);
}

/* ---- case sections ---- */

static void round_of_section(struct fuzz *fuzz, uint64_t round)
{
	static const char *const words[] = {"case ",
					    "want ",
					    "or ",
					    "cite ",
					    "cell ",
					    "end\n",
					    "always ",
					    "RUNS ",
					    "FAULT ",
					    "\n",
					    "vector=",
					    "0x",
					    "|",
					    "&",
					    ",",
					    "vendor=",
					    "cpuid.",
					    "[",
					    "]",
					    ":",
					    "*",
					    "untested ",
					    "99999999999999999999"};
	struct case_list parsed;
	char why[300] = "";
	size_t size = whole.cases.size < 6000 ? whole.cases.size : 6000;
	char *text = malloc(size + 64);
	int error;

	memcpy(text, whole.cases.at, size);
	if (fuzz_one_in(fuzz, 2)) {
		/* A whole small section, so that what is damaged is not always cut off. */
		size = (size_t)snprintf(
			text, size,
			"trapline-cases 1 demo 1\ncase demo.a X long 0 privileged\n"
			"want vendor=amd FAULT vector=13 error=0x0 [0x14400:8]=0x5&0xf rax=1|2\n"
			"want cpuid.7.0.ebx[3]=1 RUNS\nor NOTSUP\nwant always HANG\n"
			"cite SDM 2B X X\ncell X real 0 - not_encodable\nend\n");
	}
	for (unsigned n = fuzz_below(fuzz, 3); n; n--) {
		const char *word = words[fuzz_below(fuzz, sizeof(words) / sizeof(words[0]))];
		size_t at = fuzz_next(fuzz) % (size - 20), length = strlen(word);

		memmove(text + at + length, text + at, size - at);
		memcpy(text + at, word, length);
		size += length;
		if (size > 5900)
			size = 5900;
	}
	if (fuzz_one_in(fuzz, 2))
		size = fuzz_mutate(fuzz, (uint8_t *)text, size);
	/* Exactly as long as it is, so that ASan sees a byte too many. */
	text = realloc(text, size ? size : 1);
	error = case_list_parse(&parsed, (struct span){text, size}, why, sizeof(why));
	check_reason(round, error, why);
	if (!error) {
		struct machine_facts facts = {0};

		for (unsigned i = 0; i < parsed.count; i++) {
			assert_int_equal(case_list_find(&parsed, parsed.entry[i].id), i);
			case_expectation(&parsed, &parsed.entry[i], &facts, why, sizeof(why));
		}
		case_list_free(&parsed);
	}
	free(text);
}

static void damaged_sections(void **state)
{
	(void)state;
	fuzz_rounds(40000, round_of_section);
}

/* ---- reports ---- */

struct account {
	uint64_t round;
	struct judge judge;
	unsigned begun, ended;
};

static void on_ready(void *owner) { (void)owner; }

static void on_started(void *owner, unsigned index)
{
	struct account *account = owner;

	assert_true(index < list.count);
	account->begun++;
}

static void on_ended(void *owner, const struct judge_result *result)
{
	struct account *account = owner;

	account->ended++;
	if (result->index >= list.count || (unsigned)result->verdict >= VERDICT_COUNT || !result->why ||
	    strchr(result->why, '\n') || (result->verdict != VERDICT_PASS && !result->why[0]))
		fail_msg("FUZZ_ROUND=%llu: a result that is none", (unsigned long long)account->round);
}

static void on_dirty(void *owner, struct span id, struct span what)
{
	(void)owner;
	assert_true(id.size <= CASE_LINE_MAX && what.size <= CASE_LINE_MAX);
}

static void feed_line(void *owner, struct span line) { judge_line(&((struct account *)owner)->judge, line); }

static size_t make_report(struct fuzz *fuzz, char *text, size_t room)
{
	static const char *const tails[] = {"RUNS",
					    "RUNS rax=0x1",
					    "FAULT vector=13 error=0x0",
					    "HANG",
					    "SHUTDOWN",
					    "NOTSUP cpuid.0.0.ebx[0]=0",
					    "ERROR words",
					    "WALKS",
					    "FAULT vector=999",
					    "RUNS [0x14c00:8]=0xa5",
					    "RUNS =",
					    "RUNS a=b=c",
					    "NOTSUP",
					    ""};
	size_t used = (size_t)snprintf(
		text, room, "trapline 1 hostile %u\ncpuid 0 0 1 68747541 444d4163 69746e65\nready\n",
		list.count);

	for (unsigned n = fuzz_below(fuzz, 12); n; n--) {
		struct span id = list.entry[fuzz_below(fuzz, list.count)].id;

		used += (size_t)snprintf(text + used, room - used, "start %.*s\nend %.*s %s\n%s",
					 SPAN_ARGS(id), SPAN_ARGS(id),
					 tails[fuzz_below(fuzz, sizeof(tails) / sizeof(tails[0]))],
					 fuzz_one_in(fuzz, 8) ? "dirty x cr0=0x1\n" : "");
	}
	used += (size_t)snprintf(text + used, room - used, "bye\n");
	return used;
}

static void round_of_report(struct fuzz *fuzz, uint64_t round)
{
	static struct account account;
	static struct lines lines;
	struct judge_events events = {.owner = &account,
				      .ready = on_ready,
				      .started = on_started,
				      .ended = on_ended,
				      .dirty = on_dirty};
	static char text[8192];
	size_t size = make_report(fuzz, text, sizeof(text));

	account.round = round;
	account.begun = account.ended = 0;
	judge_start(&account.judge, &list, &events);
	account.judge.streaming = fuzz_one_in(fuzz, 2);
	account.judge.inverted = fuzz_one_in(fuzz, 2);
	if (!account.judge.streaming)
		judge_begin(&account.judge, fuzz_below(fuzz, list.count));
	if (!fuzz_one_in(fuzz, 4))
		size = fuzz_mutate(fuzz, (uint8_t *)text, size);
	lines.size = 0;
	lines_feed(&lines, (struct span){text, size}, feed_line, &account);
	judge_finish(&account.judge, (enum ending)fuzz_below(fuzz, ENDING_FAILED + 1));
	/* No case is lost, and none is judged twice. */
	assert_int_equal(account.ended, account.judge.streaming ? account.begun : 1);
	assert_int_equal(judge_total(&account.judge), account.ended);
}

static void damaged_reports(void **state)
{
	(void)state;
	fuzz_rounds(40000, round_of_report);
}

static int setup(void **state)
{
	static struct test_output output;
	char why[300];
	int fd = mkstemp(path);

	(void)state;
	if (fd < 0 || close(fd))
		return -1;
	if (image_open(&whole, GUEST, why, sizeof(why)) ||
	    case_list_parse(&list, whole.cases, why, sizeof(why))) {
		print_error("%s: %s\n", GUEST, why);
		return -1;
	}
	bytes = malloc(whole.size);
	machine = test_machine(&output);
	return bytes ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	machine_free(machine);
	case_list_free(&list);
	image_close(&whole);
	free(bytes);
	return unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(damaged_images),
		cmocka_unit_test(damaged_sections),
		cmocka_unit_test(damaged_reports),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
