#include "migrate/bitmap.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "x86/paging.h"

int bitmap_init(struct bitmap *bitmap, size_t bits)
{
	bitmap->bits = bits;
	bitmap->word = calloc(bitmap_words(bitmap) + 1, sizeof(uint64_t));
	return bitmap->word ? 0 : -ENOMEM;
}

void bitmap_free(struct bitmap *bitmap)
{
	free(bitmap->word);
	*bitmap = (struct bitmap){0};
}

size_t bitmap_count(const struct bitmap *bitmap)
{
	size_t count = 0;

	for (size_t i = 0; i < bitmap_words(bitmap); i++)
		count += (size_t)__builtin_popcountll(bitmap->word[i]);
	return count;
}

/* The first bit from @bit on that is set once the words are XORed with @flip. */
static size_t next(const struct bitmap *bitmap, size_t bit, uint64_t flip)
{
	size_t at = bit / 64;
	uint64_t word;

	if (bit >= bitmap->bits)
		return bitmap->bits;
	word = (bitmap->word[at] ^ flip) & (~0ull << bit % 64);
	while (!word) {
		if (++at == bitmap_words(bitmap))
			return bitmap->bits;
		word = bitmap->word[at] ^ flip;
	}
	bit = at * 64 + (size_t)__builtin_ctzll(word);
	return bit < bitmap->bits ? bit : bitmap->bits;
}

size_t bitmap_next(const struct bitmap *bitmap, size_t bit) { return next(bitmap, bit, 0); }

size_t bitmap_next_clear(const struct bitmap *bitmap, size_t bit) { return next(bitmap, bit, ~0ull); }

void bitmap_set_row(struct bitmap *bitmap, size_t from, size_t end)
{
	for (; from < end && from % 64; from++)
		bitmap_set(bitmap, from);
	for (; from + 64 <= end; from += 64)
		bitmap->word[from / 64] = ~0ull;
	for (; from < end; from++)
		bitmap_set(bitmap, from);
}

/* Bits of an entry of /proc/self/pagemap: in memory, or swapped out. */
#define PAGEMAP_TOUCHED (3ull << 62)

/* Of Linux 6.7's ioctl PAGEMAP_SCAN, which C libraries of before do not know. */
struct pagemap_scan {
	uint64_t size, flags, start, end, walk_end, regions, regions_count, pages_most, inverted, mask,
		any_of, told;
};
struct pagemap_region {
	uint64_t start, end, is;
};
#define PAGEMAP_SCAN       _IOWR('f', 16, struct pagemap_scan)
#define PAGEMAP_IS_TOUCHED (3ull << 3)

bool bitmap_scan_pagemap(struct bitmap *bitmap, const uint8_t *at, int fd)
{
	struct pagemap_region region[256];
	uint64_t base = (uintptr_t)at;
	struct pagemap_scan scan = {.size = sizeof(scan),
				    .start = base,
				    .end = base + bitmap->bits * PAGE_SIZE,
				    .regions = (uintptr_t)region,
				    .regions_count = sizeof(region) / sizeof(region[0]),
				    .any_of = PAGEMAP_IS_TOUCHED,
				    .told = PAGEMAP_IS_TOUCHED};

	for (; scan.start < scan.end; scan.start = scan.walk_end) {
		int count = ioctl(fd, PAGEMAP_SCAN, &scan);

		if (count < 0 || scan.walk_end <= scan.start)
			return false;
		for (int i = 0; i < count; i++)
			bitmap_set_row(bitmap, (size_t)(region[i].start - base) / PAGE_SIZE,
				       (size_t)(region[i].end - base) / PAGE_SIZE);
	}
	return true;
}

bool bitmap_read_pagemap(struct bitmap *bitmap, const uint8_t *at, int fd)
{
	uint64_t entry[4096];
	size_t done = 0;

	while (done < bitmap->bits) {
		size_t want = bitmap->bits - done < 4096 ? bitmap->bits - done : 4096;
		ssize_t got = pread(fd, entry, want * sizeof(entry[0]),
				    (off_t)(((uintptr_t)at / PAGE_SIZE + done) * sizeof(entry[0])));

		if (got <= 0 || got % (ssize_t)sizeof(entry[0]))
			return false;
		for (size_t i = 0; i < (size_t)got / sizeof(entry[0]); i++)
			if (entry[i] & PAGEMAP_TOUCHED)
				bitmap_set(bitmap, done + i);
		done += (size_t)got / sizeof(entry[0]);
	}
	return true;
}

void bitmap_touched(struct bitmap *bitmap, const uint8_t *at)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	if (fd < 0 || sysconf(_SC_PAGESIZE) != PAGE_SIZE ||
	    (!bitmap_scan_pagemap(bitmap, at, fd) && !bitmap_read_pagemap(bitmap, at, fd)))
		bitmap_set_row(bitmap, 0, bitmap->bits);
	if (fd >= 0)
		close(fd);
}

/* The compiler makes vectors of this; a page that is not zero mostly tells so within its first line. */
bool page_is_zero(const void *page)
{
	const uint64_t *word = page;

	for (unsigned line = 0; line < PAGE_SIZE / 8; line += 32) {
		uint64_t any = 0;

		for (unsigned i = 0; i < 32; i++)
			any |= word[line + i];
		if (any)
			return false;
	}
	return true;
}
