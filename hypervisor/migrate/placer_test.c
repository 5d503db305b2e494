/* Pages that another thread puts in their place, and how they were cut into sections. */
#include "migrate/pages.h"
#include "migrate/placer.h"
#include "migrate/test_stream.h"
#include "vm/test_machine.h"

#define SECTIONS 20u
#define PAGES    (TEST_MEMORY / PAGE_SIZE)

static struct test_output output;

/* A section of @count pages from @first on, each full of @content. */
static void write_section(struct stream_writer *writer, uint64_t first, uint32_t count, uint8_t content)
{
	uint8_t page[PAGE_SIZE];

	memset(page, content, sizeof(page));
	stream_pages_begin(writer);
	for (uint32_t i = 0; i < count; i++)
		stream_pages_add(writer, (first + i) * PAGE_SIZE, page);
	assert_int_equal(stream_pages_end(writer), 0);
}

/* All that is in the pipe, through a placer: what the last of its calls has returned. */
static int place_all(struct machine *machine, struct test_pipe *pipe, uint64_t *pages, char *why, size_t size)
{
	struct stream_reader reader = test_reader(pipe);
	struct stream_section section;
	struct placer *placer;
	int error = 0;

	assert_int_equal(placer_new(&placer, machine), 0);
	while (!error && stream_read(&reader, &section) == 0)
		error = placer_take(placer, &reader, &section.payload);
	if (error) /* stays */
		assert_int_equal(placer_wait(placer), error);
	else
		error = placer_wait(placer);
	*pages = placer_pages(placer);
	snprintf(why, size, "%s", error ? placer_why(placer) : "");
	placer_free(placer);
	stream_reader_free(&reader);
	return error;
}

static void holds(struct machine *machine, uint64_t page, uint8_t content)
{
	const uint8_t *at = machine_ram(machine, page * PAGE_SIZE, PAGE_SIZE);

	assert_non_null(at);
	for (unsigned i = 0; i < PAGE_SIZE; i++)
		assert_int_equal(at[i], content);
}

/* One page is in each section, and keeps what came last. */
static void sections_keep_their_order(void **state)
{
	struct machine *machine = test_machine(&output);
	struct test_pipe pipe = {0};
	struct stream_writer writer = test_writer(&pipe);
	uint64_t pages;
	char why[256];

	(void)state;
	/* Small ones behind small ones, small behind large, large behind each. */
	for (uint8_t i = 0; i < SECTIONS; i++) {
		write_section(&writer, 1, 1, (uint8_t)(i + 1));
		write_section(&writer, 2 + i, i % 3 ? 100 : 3, (uint8_t)(i + 1));
		write_section(&writer, 200, 1, (uint8_t)(i + 1));
	}
	assert_int_equal(place_all(machine, &pipe, &pages, why, sizeof(why)), 0);
	assert_int_equal(pages, SECTIONS * 2 + 7 * 3 + 13 * 100);
	holds(machine, 1, SECTIONS);
	for (uint8_t i = 0; i < SECTIONS; i++)
		holds(machine, 2 + i, (uint8_t)(i + 1));
	holds(machine, SECTIONS + 100, SECTIONS);
	holds(machine, SECTIONS + 101, 0);
	holds(machine, 200, SECTIONS);
	stream_writer_free(&writer);
	test_pipe_free(&pipe);
	machine_free(machine);
}

static void a_whole_block(void **state)
{
	struct machine *machine = test_machine(&output);
	struct test_pipe pipe = {0};
	struct stream_writer writer = test_writer(&pipe);
	uint64_t pages;
	char why[256];

	(void)state;
	write_section(&writer, PAGES_BLOCK, PAGES_BLOCK, 7);
	write_section(&writer, PAGES_BLOCK + 5, 1, 0);
	assert_int_equal(place_all(machine, &pipe, &pages, why, sizeof(why)), 0);
	assert_int_equal(pages, PAGES_BLOCK + 1);
	holds(machine, PAGES_BLOCK - 1, 0);
	for (uint64_t page = PAGES_BLOCK; page < 2 * PAGES_BLOCK; page++)
		holds(machine, page, page == PAGES_BLOCK + 5 ? 0 : 7);
	stream_writer_free(&writer);
	test_pipe_free(&pipe);
	machine_free(machine);
}

/* Whatever came with it: the first that is wrong is told, and nothing behind it has any effect. */
static void what_is_wrong_is_told(void **state)
{
	struct machine *machine = test_machine(&output);
	struct test_pipe pipe = {0};
	struct stream_writer writer = test_writer(&pipe);
	uint64_t pages;
	char why[256];

	(void)state;
	write_section(&writer, 1, 1, 1);
	write_section(&writer, PAGES - 1, 2, 2);
	for (unsigned i = 0; i < SECTIONS; i++)
		write_section(&writer, 3, 1, 3);
	assert_int_equal(place_all(machine, &pipe, &pages, why, sizeof(why)), -EPROTO);
	assert_string_equal(why, "a page at 0x400000, where this machine has no RAM");
	holds(machine, 1, 1);
	holds(machine, 3, 0);
	stream_writer_free(&writer);
	test_pipe_free(&pipe);
	machine_free(machine);
}

/* A block of which all is to be sent has a section of its own. */
static void where_sections_end(void **state)
{
	struct machine *machine = test_machine(&output);
	struct pages pages;

	(void)state;
	assert_int_equal(pages_init(&pages, machine), 0);
	bitmap_set(&pages.todo, 3);
	bitmap_set(&pages.todo, PAGES - 1);
	assert_int_equal(pages_stop(&pages, 3), PAGES);
	for (size_t page = PAGES_BLOCK - 1; page < 2 * PAGES_BLOCK; page++)
		bitmap_set(&pages.todo, page);
	assert_int_equal(pages_stop(&pages, 3), PAGES_BLOCK);
	assert_int_equal(pages_stop(&pages, PAGES_BLOCK), 2 * PAGES_BLOCK);
	bitmap_clear(&pages.todo, PAGES_BLOCK + 70);
	assert_int_equal(pages_stop(&pages, 3), PAGES);
	assert_int_equal(pages_stop(&pages, PAGES), PAGES);
	pages_free(&pages);
	machine_free(machine);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sections_keep_their_order),
		cmocka_unit_test(a_whole_block),
		cmocka_unit_test(what_is_wrong_is_told),
		cmocka_unit_test(where_sections_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
