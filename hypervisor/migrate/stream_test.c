/* Sections out and in; and every way in which a stream can be another than the one that was sent. */
#include "migrate/test_stream.h"

/* Three sections: two of the same content, and one without any. */
static struct test_pipe sent(void)
{
	struct test_pipe pipe = {0};
	struct stream_writer writer = test_writer(&pipe);

	for (unsigned i = 0; i < 2; i++) {
		stream_begin(&writer, STREAM_PART);
		stream_put_u32(&writer, 0x12345678);
		stream_put_text(&writer, "twice");
		assert_int_equal(stream_end(&writer), 0);
	}
	assert_int_equal(stream_send(&writer, STREAM_HAND_OVER), 0);
	assert_int_equal(writer.bytes, pipe.size);
	stream_writer_free(&writer);
	return pipe;
}

#define PAYLOAD (4 + 2 + 5)
#define SECTION (STREAM_SECTION_HEAD + PAYLOAD + STREAM_CHECK_SIZE)
#define ALL     (STREAM_HEADER_SIZE + 2 * SECTION + STREAM_SECTION_HEAD)

/* Reads all of it: how many sections were good, and what came behind them. */
static unsigned count_good(struct test_pipe *pipe, int *end, char *why)
{
	const struct stream_input input = {pipe, test_pipe_read};
	struct stream_section section;
	struct stream_reader reader;
	unsigned count = 0;

	pipe->taken = 0;
	*end = stream_reader_init(&reader, &input, &test_session, 0, STREAM_FORWARD);
	while (!*end) {
		*end = stream_read(&reader, &section);
		count += !*end;
	}
	snprintf(why, STREAM_WHY, "%s", reader.why);
	stream_reader_free(&reader);
	return count;
}

static void expect(struct test_pipe *pipe, unsigned good, int end, const char *reason)
{
	char why[STREAM_WHY];
	int got;

	assert_int_equal(count_good(pipe, &got, why), good);
	assert_int_equal(got, end);
	if (!strstr(why, reason))
		fail_msg("\"%s\" does not say \"%s\"", why, reason);
}

static void what_is_sent_comes(void **state)
{
	struct test_pipe pipe = sent();
	struct stream_reader reader = test_reader(&pipe);
	struct stream_section section;
	char text[16];

	(void)state;
	assert_int_equal(pipe.size, ALL);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(stream_read(&reader, &section), 0);
		assert_int_equal(section.type, STREAM_PART);
		assert_int_equal(section.payload.left, PAYLOAD);
		assert_int_equal(stream_take_u32(&section.payload), 0x12345678);
		assert_false(stream_taken(&section.payload));
		stream_take_text(&section.payload, text, sizeof(text));
		assert_string_equal(text, "twice");
		assert_true(stream_taken(&section.payload));
	}
	assert_int_equal(stream_read(&reader, &section), 0);
	assert_int_equal(section.type, STREAM_HAND_OVER);
	assert_int_equal(section.payload.left, 0);
	assert_int_equal(stream_read(&reader, &section), 1);
	assert_int_equal(reader.bytes, ALL);
	stream_reader_free(&reader);
	test_pipe_free(&pipe);
}

static void cut_off_anywhere(void **state)
{
	struct test_pipe pipe = sent();

	(void)state;
	for (size_t size = 0; size < ALL; size++) {
		size_t sections = size < STREAM_HEADER_SIZE ? 0 : (size - STREAM_HEADER_SIZE) / SECTION;
		bool between = size >= STREAM_HEADER_SIZE && (size - STREAM_HEADER_SIZE) % SECTION == 0;

		pipe.size = size;
		expect(&pipe, (unsigned)sections, between ? 1 : -EPIPE, between ? "" : "ends within");
	}
	test_pipe_free(&pipe);
}

static void any_bit_flipped(void **state)
{
	struct test_pipe pipe = sent();

	(void)state;
	for (size_t bit = 0; bit < 8 * ALL; bit++) {
		size_t at = bit / 8;
		unsigned before =
			at < STREAM_HEADER_SIZE ? 0 : (unsigned)((at - STREAM_HEADER_SIZE) / SECTION);
		char why[STREAM_WHY];
		int end;

		pipe.bytes[at] ^= (uint8_t)(1u << bit % 8);
		if (count_good(&pipe, &end, why) != before || end != -EPROTO || !why[0])
			fail_msg("bit %zu: %d \"%s\"", bit, end, why);
		pipe.bytes[at] ^= (uint8_t)(1u << bit % 8);
	}
	expect(&pipe, 3, 1, "");
	test_pipe_free(&pipe);
}

/* The two sections differ in nothing but their place. */
static void in_another_order(void **state)
{
	struct test_pipe pipe = sent();
	uint8_t *first = pipe.bytes + STREAM_HEADER_SIZE, *second = first + SECTION, copy[SECTION];

	(void)state;
	memcpy(copy, first, SECTION);
	memcpy(first, second, SECTION);
	memcpy(second, copy, SECTION);
	expect(&pipe, 0, -EPROTO, "section 0");
	test_pipe_free(&pipe);
}

static void sent_again(void **state)
{
	struct test_pipe pipe = sent();
	uint8_t *first = pipe.bytes + STREAM_HEADER_SIZE;

	(void)state;
	memcpy(first + SECTION, first, SECTION);
	expect(&pipe, 1, -EPROTO, "section 1");
	test_pipe_free(&pipe);
}

static void left_out(void **state)
{
	struct test_pipe pipe = sent();
	uint8_t *first = pipe.bytes + STREAM_HEADER_SIZE;

	(void)state;
	memmove(first, first + SECTION, ALL - STREAM_HEADER_SIZE - SECTION);
	pipe.size -= SECTION;
	expect(&pipe, 0, -EPROTO, "section 0");
	test_pipe_free(&pipe);
}

/* A whole stream of another session, channel or direction behind this one's header. */
static void of_another_stream(void **state)
{
	static const struct {
		uint8_t session;
		uint16_t channel;
		enum stream_direction direction;
		const char *reason;
	} others[] = {{9, 0, STREAM_FORWARD, "another session"},
		      {1, 3, STREAM_FORWARD, "channel 3"},
		      {1, 0, STREAM_RETURN, "other direction"}};

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		struct test_pipe pipe = {0}, mine = sent();
		const struct stream_sink sink = {&pipe, test_pipe_write};
		struct stream_session session = test_session;
		struct stream_writer writer;

		session.id[0] = others[i].session;
		assert_int_equal(
			stream_writer_init(&writer, &sink, &session, others[i].channel, others[i].direction),
			0);
		stream_begin(&writer, STREAM_PART);
		stream_put_u32(&writer, 7);
		assert_int_equal(stream_end(&writer), 0);
		expect(&pipe, 0, -EPROTO, others[i].reason);
		memcpy(pipe.bytes, mine.bytes, STREAM_HEADER_SIZE);
		expect(&pipe, 0, -EPROTO, "section 0");
		stream_writer_free(&writer);
		test_pipe_free(&pipe);
		test_pipe_free(&mine);
	}
}

static void of_another_version(void **state)
{
	struct test_pipe pipe = sent();

	(void)state;
	pipe.bytes[8]++;
	expect(&pipe, 0, -EPROTO, "version 2");
	pipe.bytes[0] = 'Q';
	expect(&pipe, 0, -EPROTO, "no stream");
	test_pipe_free(&pipe);
}

/* A peer that knows the session can say any size. */
static void too_large(void **state)
{
	struct test_pipe pipe = {0};
	struct stream_writer writer = test_writer(&pipe);

	(void)state;
	writer.size = STREAM_PAYLOAD_MAX + 1;
	writer.room = realloc(writer.room, STREAM_SECTION_HEAD + STREAM_PAYLOAD_MAX + 1 + STREAM_CHECK_SIZE);
	assert_non_null(writer.room);
	writer.type = STREAM_PAGES;
	memset(writer.room, 0, STREAM_SECTION_HEAD + STREAM_PAYLOAD_MAX + 1);
	assert_int_equal(stream_end(&writer), 0);
	pipe.size = STREAM_HEADER_SIZE + STREAM_SECTION_HEAD; /* nobody waits for the rest */
	expect(&pipe, 0, -EPROTO, "more than any");
	stream_writer_free(&writer);
	test_pipe_free(&pipe);
}

static void the_writer_says_what_failed(void **state)
{
	struct test_pipe pipe = {0};
	struct stream_writer writer = test_writer(&pipe);

	(void)state;
	stream_begin(&writer, STREAM_PAGES);
	assert_non_null(stream_put_room(&writer, STREAM_PAYLOAD_MAX));
	assert_int_equal(stream_left(&writer), 0);
	stream_put_u8(&writer, 1);
	assert_int_equal(stream_end(&writer), -EMSGSIZE);
	assert_int_equal(pipe.size, STREAM_HEADER_SIZE);
	stream_writer_free(&writer);
	writer = test_writer(&pipe);
	pipe.error = -ENOSPC;
	assert_int_equal(stream_send(&writer, STREAM_READY), -ENOSPC);
	pipe.error = 0;
	assert_int_equal(stream_send(&writer, STREAM_READY), -ENOSPC);
	stream_writer_free(&writer);
	test_pipe_free(&pipe);
}

/* ---- payloads ---- */

static void text_of_others_is_harmless(void **state)
{
	struct test_pipe pipe = {0};
	struct stream_writer writer = test_writer(&pipe);
	struct stream_reader reader;
	struct stream_section section;
	char text[8];

	(void)state;
	assert_int_equal(stream_send_text(&writer, STREAM_FAILURE, "\033[2Jno\n"), 0);
	stream_begin(&writer, STREAM_PART);
	stream_put_text(&writer, "longer than eight");
	assert_int_equal(stream_end(&writer), 0);
	reader = test_reader(&pipe);
	assert_int_equal(stream_read(&reader, &section), 0);
	stream_take_reason(&section.payload, text, sizeof(text));
	assert_string_equal(text, "?[2Jno?");
	assert_int_equal(stream_read(&reader, &section), 0);
	stream_take_text(&section.payload, text, sizeof(text));
	assert_string_equal(text, "longer ");
	assert_true(stream_taken(&section.payload));
	stream_reader_free(&reader);
	stream_writer_free(&writer);
	test_pipe_free(&pipe);
}

static void nothing_is_taken_twice(void **state)
{
	const uint8_t bytes[3] = {1, 2, 3};
	struct stream_cursor cursor = {.at = bytes, .left = 3};

	(void)state;
	assert_int_equal(stream_take_u16(&cursor), 0x201);
	assert_int_equal(stream_take_u16(&cursor), 0);
	assert_true(cursor.over);
	assert_int_equal(stream_take_u8(&cursor), 0); /* though it is there */
	assert_null(stream_take(&cursor, 0));
	assert_false(stream_taken(&cursor));
}

static void totals_and_rounds(void **state)
{
	struct test_pipe pipe = {0};
	struct stream_writer writer = test_writer(&pipe);
	struct stream_totals totals = {.parts = 3, .blobs = 1, .pages = 1ull << 40, .owed = 5}, came;
	struct stream_round round = {.number = 7, .pages = 1ull << 33}, ended;
	struct stream_section section;
	struct stream_reader reader;

	(void)state;
	stream_put_totals(&writer, &totals);
	stream_put_round(&writer, &round);
	reader = test_reader(&pipe);
	assert_int_equal(stream_read(&reader, &section), 0);
	assert_true(stream_take_totals(&section.payload, &came));
	assert_memory_equal(&came, &totals, sizeof(totals));
	assert_int_equal(stream_read(&reader, &section), 0);
	assert_true(stream_take_round(&section.payload, &ended));
	assert_int_equal(ended.number, 7);
	assert_int_equal(ended.pages, round.pages);
	assert_false(stream_take_round(&section.payload, &ended));
	stream_reader_free(&reader);
	stream_writer_free(&writer);
	test_pipe_free(&pipe);
}

static void pages_of_each_kind(void **state)
{
	static uint8_t zeros[PAGE_SIZE], last[PAGE_SIZE], first[PAGE_SIZE];
	struct test_pipe pipe = {0};
	struct stream_writer writer = test_writer(&pipe);
	struct stream_section section;
	struct stream_reader reader;
	struct stream_page page;
	uint32_t count;

	(void)state;
	last[PAGE_SIZE - 1] = 1;
	first[0] = 1;
	stream_pages_begin(&writer);
	stream_pages_add(&writer, 0x1000, zeros);
	stream_pages_add(&writer, 0x2000, last);
	stream_pages_add(&writer, 1ull << 40, first);
	stream_pages_add_zstd(&writer, 0x5000, "small", 5);
	assert_int_equal(stream_pages_end(&writer), 0);
	reader = test_reader(&pipe);
	assert_int_equal(stream_read(&reader, &section), 0);
	assert_true(stream_pages_count(&section.payload, &count));
	assert_int_equal(count, 4);
	assert_true(stream_pages_next(&section.payload, &page));
	assert_true(page.address == 0x1000 && page.kind == STREAM_PAGE_ZERO && !page.content);
	assert_true(stream_pages_next(&section.payload, &page));
	assert_true(page.address == 0x2000 && page.kind == STREAM_PAGE_RAW);
	assert_memory_equal(page.content, last, PAGE_SIZE);
	assert_true(stream_pages_next(&section.payload, &page));
	assert_true(page.address == 1ull << 40);
	assert_memory_equal(page.content, first, PAGE_SIZE);
	assert_true(stream_pages_next(&section.payload, &page));
	assert_true(page.kind == STREAM_PAGE_ZSTD && page.size == 5);
	assert_memory_equal(page.content, "small", 5);
	assert_true(stream_taken(&section.payload));
	assert_false(stream_pages_next(&section.payload, &page));
	stream_reader_free(&reader);
	stream_writer_free(&writer);
	test_pipe_free(&pipe);
}

/* What a batch says of itself must hold. */
static void batches_that_are_none(void **state)
{
	static const uint8_t many[] = {1, 2, 0, 0}, kind[] = {3, 0x10, 0, 0, 0, 0, 0, 0},
			     few[] = {1, 0x10, 0, 0, 0, 0, 0, 0};
	static const uint8_t large[] = {2, 0x10, 0, 0, 0, 0, 0, 0, 1, 0x10, 0, 0};
	struct stream_cursor cursor = {.at = many, .left = sizeof(many)};
	struct stream_page page;
	uint32_t count;

	(void)state;
	assert_false(stream_pages_count(&cursor, &count)); /* 513 */
	cursor = (struct stream_cursor){.at = kind, .left = sizeof(kind)};
	assert_false(stream_pages_next(&cursor, &page));
	cursor = (struct stream_cursor){.at = few, .left = sizeof(few)};
	assert_false(stream_pages_next(&cursor, &page));
	cursor = (struct stream_cursor){.at = large, .left = sizeof(large)};
	assert_false(stream_pages_next(&cursor, &page));
}

static void a_full_batch_fits(void **state)
{
	static uint8_t content[PAGE_SIZE] = {1};
	struct test_pipe pipe = {0};
	struct stream_writer writer = test_writer(&pipe);
	unsigned count = 0;

	(void)state;
	stream_pages_begin(&writer);
	for (; !stream_pages_full(&writer); count++)
		stream_pages_add(&writer, count * (uint64_t)PAGE_SIZE, content);
	assert_int_equal(count, STREAM_PAGES_MAX);
	assert_int_equal(stream_pages_end(&writer), 0);
	stream_writer_free(&writer);
	test_pipe_free(&pipe);
}

static void sessions_are_random(void **state)
{
	struct stream_session a, b;

	(void)state;
	assert_int_equal(stream_session_new(&a), 0);
	assert_int_equal(stream_session_new(&b), 0);
	assert_memory_not_equal(&a, &b, sizeof(a));
}

static void types_have_names(void **state)
{
	(void)state;
	assert_string_equal(stream_type_name(STREAM_PART), "part");
	assert_string_equal(stream_type_name(STREAM_COMPLETE), "complete");
	assert_null(stream_type_name(0));
	assert_string_equal(stream_type_name(STREAM_CAUGHT_UP), "caught up");
	assert_null(stream_type_name(13));
	assert_null(stream_type_name(UINT32_MAX));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_sent_comes),
		cmocka_unit_test(cut_off_anywhere),
		cmocka_unit_test(any_bit_flipped),
		cmocka_unit_test(in_another_order),
		cmocka_unit_test(sent_again),
		cmocka_unit_test(left_out),
		cmocka_unit_test(of_another_stream),
		cmocka_unit_test(of_another_version),
		cmocka_unit_test(too_large),
		cmocka_unit_test(the_writer_says_what_failed),
		cmocka_unit_test(text_of_others_is_harmless),
		cmocka_unit_test(nothing_is_taken_twice),
		cmocka_unit_test(totals_and_rounds),
		cmocka_unit_test(pages_of_each_kind),
		cmocka_unit_test(batches_that_are_none),
		cmocka_unit_test(a_full_batch_fits),
		cmocka_unit_test(sessions_are_random),
		cmocka_unit_test(types_have_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
