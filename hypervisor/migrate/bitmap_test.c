/* Bits of pages, and which pages were ever touched. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "migrate/bitmap.h"
#include "vm/test.h"
#include "x86/paging.h"

static void finds(void **state)
{
	struct bitmap bitmap;

	(void)state;
	assert_int_equal(bitmap_init(&bitmap, 200), 0);
	assert_int_equal(bitmap_next(&bitmap, 0), 200);
	assert_int_equal(bitmap_next_clear(&bitmap, 0), 0);
	assert_true(bitmap_set(&bitmap, 0));
	assert_false(bitmap_set(&bitmap, 0));
	assert_true(bitmap_set(&bitmap, 63));
	assert_true(bitmap_set(&bitmap, 64));
	assert_true(bitmap_set(&bitmap, 199));
	assert_int_equal(bitmap_count(&bitmap), 4);
	assert_int_equal(bitmap_next(&bitmap, 1), 63);
	assert_int_equal(bitmap_next(&bitmap, 64), 64);
	assert_int_equal(bitmap_next(&bitmap, 65), 199);
	assert_int_equal(bitmap_next(&bitmap, 200), 200);
	assert_int_equal(bitmap_next_clear(&bitmap, 63), 65);
	bitmap_clear(&bitmap, 63);
	assert_int_equal(bitmap_next(&bitmap, 1), 64);
	for (size_t i = 0; i < 200; i++)
		bitmap_set(&bitmap, i);
	assert_int_equal(bitmap_next_clear(&bitmap, 0), 200); /* not the bits behind the end */
	assert_int_equal(bitmap_count(&bitmap), 200);
	bitmap_free(&bitmap);
}

static void rows(void **state)
{
	static const size_t row[][2] = {{0, 0}, {3, 4}, {0, 64}, {60, 70}, {63, 193}, {1, 199}, {64, 128}};

	(void)state;
	for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
		struct bitmap bitmap;

		assert_int_equal(bitmap_init(&bitmap, 200), 0);
		bitmap_set_row(&bitmap, row[i][0], row[i][1]);
		for (size_t bit = 0; bit < 200; bit++)
			assert_int_equal(bitmap_get(&bitmap, bit), bit >= row[i][0] && bit < row[i][1]);
		bitmap_free(&bitmap);
	}
}

/* Those of @memory that are odd, or in the last third, of 0 to 1199; and the last of all. */
static bool is_touched(size_t page) { return (page < 1200 && (page % 2 || page >= 800)) || page == 8191; }

/* Each way, as systems have one or both. */
static void both_ways(void **state)
{
	bool (*const ways[])(struct bitmap *, const uint8_t *, int) = {bitmap_read_pagemap,
								       bitmap_scan_pagemap};
	size_t count = 8192;
	uint8_t *memory = mmap(NULL, count * PAGE_SIZE, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	int fd = open("/proc/self/pagemap", O_RDONLY);
	unsigned found = 0;

	(void)state;
	assert_ptr_not_equal(memory, MAP_FAILED);
	assert_true(fd >= 0);
	madvise(memory, count * PAGE_SIZE, MADV_NOHUGEPAGE);
	for (size_t i = 0; i < count; i++)
		if (is_touched(i))
			memory[i * PAGE_SIZE] = 1;
	for (unsigned way = 0; way < 2; way++) {
		struct bitmap bitmap;

		assert_int_equal(bitmap_init(&bitmap, count), 0);
		if (ways[way](&bitmap, memory, fd)) {
			found++;
			for (size_t i = 0; i < count; i++)
				assert_int_equal(bitmap_get(&bitmap, i), is_touched(i));
		}
		bitmap_free(&bitmap);
	}
	assert_true(found > 0);
	close(fd);
	munmap(memory, count * PAGE_SIZE);
}

static void touched(void **state)
{
	static const size_t pages[] = {0, 1, 77, 5000, 8191};
	size_t count = 8192, expected = sizeof(pages) / sizeof(pages[0]);
	uint8_t *memory = mmap(NULL, count * PAGE_SIZE, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	struct bitmap bitmap;

	(void)state;
	assert_ptr_not_equal(memory, MAP_FAILED);
	madvise(memory, count * PAGE_SIZE, MADV_NOHUGEPAGE);
	for (size_t i = 0; i < expected; i++)
		memory[pages[i] * PAGE_SIZE + 5] = 1;
	assert_int_equal(bitmap_init(&bitmap, count), 0);
	bitmap_touched(&bitmap, memory);
	assert_int_equal(bitmap_count(&bitmap), expected);
	for (size_t i = 0; i < expected; i++)
		assert_true(bitmap_get(&bitmap, pages[i]));
	bitmap_free(&bitmap);
	munmap(memory, count * PAGE_SIZE);
}

static void zeros(void **state)
{
	static _Alignas(64) uint8_t page[PAGE_SIZE];

	(void)state;
	assert_true(page_is_zero(page));
	for (size_t i = 0; i < PAGE_SIZE; i++) {
		page[i] = 0x80;
		assert_false(page_is_zero(page));
		page[i] = 0;
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(finds), cmocka_unit_test(rows),
					   cmocka_unit_test(both_ways), cmocka_unit_test(touched),
					   cmocka_unit_test(zeros)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
