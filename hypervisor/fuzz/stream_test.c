/*
 * Streams of a machine with damage that their checks do not tell, as whoever sends them makes the checks:
 * parts, pages, blobs and descriptions with any bytes. They are refused with a reason, or make a machine that
 * ends a run somehow; and nothing is read or written outside of what they are (see it with MODE=asan).
 * Streams damaged on the way are refused throughout.
 */
#include "fuzz/fuzz.h"
#include "migrate/describe.h"
#include "migrate/state.h"
#include "migrate/test_stream.h"
#include "vm/test_machine.h"

static struct machine *source, *destination;
static struct test_pipe whole; /* all of source */
static struct test_output output;
static uint8_t copy[1 << 20];
static unsigned ran; /* states that were loaded */

/* Fails a wrong reason: none, several lines, or what steers a terminal. */
static void check_reason(uint64_t round, const char *why)
{
	for (const char *at = why; *at; at++)
		if (*at < 0x20 || *at > 0x7e)
			fail_msg("FUZZ_ROUND=%llu: \"%s\"", (unsigned long long)round, why);
	if (!why[0])
		fail_msg("FUZZ_ROUND=%llu: no reason", (unsigned long long)round);
}

/* ---- on the way ---- */

static void round_of_stream(struct fuzz *fuzz, uint64_t round)
{
	const struct stream_input input = {&whole, test_pipe_read};
	struct test_pipe damaged = {.bytes = copy, .size = whole.size};
	struct stream_section section;
	struct stream_reader reader;
	int error;

	memcpy(copy, whole.bytes, whole.size);
	damaged.size = fuzz_mutate(fuzz, copy, whole.size);
	if (damaged.size == whole.size && memcmp(copy, whole.bytes, whole.size) == 0)
		return;
	error = stream_reader_init(&reader, &(struct stream_input){&damaged, input.read}, &test_session, 0,
				   STREAM_FORWARD);
	while (!error)
		error = stream_read(&reader, &section);
	/* Cut between two sections, it ends too early: that is what STREAM_STATE_END is for. */
	if (error == 1 && damaged.size < whole.size)
		error = -EPIPE;
	else
		check_reason(round, reader.why);
	if (error >= 0)
		fail_msg("FUZZ_ROUND=%llu: not refused", (unsigned long long)round);
	stream_reader_free(&reader);
}

static void damaged_streams(void **state)
{
	(void)state;
	fuzz_rounds(3000, round_of_stream);
}

/* ---- by the sender ---- */

/* Changes the bytes of fields, or anything. */
static size_t damage(struct fuzz *fuzz, const struct part *part, uint8_t *payload, size_t size)
{
	unsigned field;

	if (fuzz_one_in(fuzz, 8))
		return fuzz_mutate(fuzz, payload, size);
	for (unsigned changes = 1 + fuzz_below(fuzz, 3); changes; changes--) {
		field = fuzz_below(fuzz, part->table->count);
		fuzz_mutate(fuzz, payload + part->at[field], part->table->field[field].size);
	}
	return size;
}

/* A state of which some parts are damaged. Answers whether it was taken. */
static bool take_damaged(struct fuzz *fuzz, struct parts *parts, uint64_t round)
{
	struct stream_reader reader;
	struct stream_section section;
	int error = 0;

	whole.taken = 0;
	reader = test_reader(&whole);
	parts_begin(parts, PARTS_ALL);
	for (unsigned i = 0; !error && stream_read(&reader, &section) == 0; i++) {
		struct stream_cursor payload = section.payload;

		if (fuzz_one_in(fuzz, 6)) {
			memcpy(copy, payload.at, payload.left);
			payload.at = copy;
			payload.left = damage(fuzz, &parts->part[i], copy, payload.left);
		}
		error = parts_take(parts, &payload);
	}
	if (!error)
		error = parts_load(parts);
	if (error)
		check_reason(round, parts->why);
	stream_reader_free(&reader);
	return !error;
}

/* Loads it, and lets it run: whatever the guest is then, the run ends. */
static void round_of_state(struct fuzz *fuzz, uint64_t round)
{
	struct machine_limits limits = {.insns = 2000, .deadline = UINT64_MAX, .output = 4096};
	struct parts parts;

	output.console_size = output.serial_size = 0;
	assert_int_equal(parts_init(&parts, destination), 0);
	for (unsigned i = 0; i < 0x2000; i += 8) {
		uint64_t code = fuzz_next(fuzz); /* what it runs, and its page tables */

		machine_write(destination, i, &code, 8);
	}
	if (take_damaged(fuzz, &parts, round)) {
		machine_run(destination, &limits);
		ran++;
	}
	parts_free(&parts);
	machine_reset(destination);
}

static void damaged_states(void **state)
{
	(void)state;
	fuzz_rounds(600, round_of_state);
	if (fuzz_number("FUZZ_ROUND", UINT64_MAX) == UINT64_MAX)
		assert_true(ran > 60); /* not all are refused */
}

static void round_of_payload(struct fuzz *fuzz, uint64_t round)
{
	static struct description description;
	struct stream_cursor cursor = {.at = copy, .left = fuzz_below(fuzz, 600)};
	struct blobs blobs = {0};
	struct stream_page page;
	char why[STREAM_WHY];
	uint32_t count;

	for (size_t i = 0; i < cursor.left; i++)
		copy[i] = (uint8_t)(fuzz_one_in(fuzz, 2) ? 0 : fuzz_next(fuzz));
	if (fuzz_one_in(fuzz, 2))
		memcpy(copy, "\3\0rom\0\20", 7);
	if (describe_take(&description, &(struct stream_cursor){.at = copy, .left = cursor.left}, why,
			  sizeof(why)))
		check_reason(round, why);
	if (blobs_take(&blobs, &(struct stream_cursor){.at = copy, .left = cursor.left}))
		check_reason(round, blobs.why);
	blobs_free(&blobs);
	if (stream_pages_count(&cursor, &count))
		while (count-- && stream_pages_next(&cursor, &page))
			if (page.address % PAGE_SIZE || page.size > PAGE_SIZE)
				fail_msg("FUZZ_ROUND=%llu: a page", (unsigned long long)round);
}

static void payloads_of_any_bytes(void **state)
{
	(void)state;
	fuzz_rounds(20000, round_of_payload);
}

static struct machine *make(void)
{
	struct machine_config config = {.engine = &engine_soft,
					.cpu = "amd",
					.memory = TEST_MEMORY,
					.vcpus = 2,
					.open_bus = true,
					.owner = &output,
					.console = test_console,
					.serial = test_serial,
					.virtio = test_console,
					.peripherals = {.entropy = true, .console = true}};
	struct machine *machine;
	char why[256];

	if (machine_new(&machine, &config, why, sizeof(why)))
		fail_msg("%s", why);
	return machine;
}

static int prepare(void **state)
{
	struct stream_writer writer = test_writer(&whole);
	struct parts parts;

	(void)state;
	source = make();
	destination = make();
	assert_int_equal(parts_init(&parts, source), 0);
	assert_true(parts_write(&parts, &writer, PARTS_ALL) > 0);
	assert_true(whole.size <= sizeof(copy));
	parts_free(&parts);
	stream_writer_free(&writer);
	return 0;
}

static int clear(void **state)
{
	(void)state;
	test_pipe_free(&whole);
	machine_free(source);
	machine_free(destination);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(damaged_streams),
		cmocka_unit_test(damaged_states),
		cmocka_unit_test(payloads_of_any_bytes),
	};

	return cmocka_run_group_tests(tests, prepare, clear);
}
