/*
 * bitmap.h: a bit for each page of a machine's RAM, in the order of machine->ram, and which of them were ever
 * touched.
 */
#ifndef TRAPLINE_MIGRATE_BITMAP_H
#define TRAPLINE_MIGRATE_BITMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bitmap {
	uint64_t *word;
	size_t bits;
};

/* All clear. 0, -ENOMEM. */
int bitmap_init(struct bitmap *bitmap, size_t bits);
void bitmap_free(struct bitmap *bitmap);

static inline size_t bitmap_words(const struct bitmap *bitmap) { return (bitmap->bits + 63) / 64; }
static inline bool bitmap_get(const struct bitmap *bitmap, size_t bit)
{
	return bitmap->word[bit / 64] >> bit % 64 & 1;
}
/* Whether that changed it. */
static inline bool bitmap_set(struct bitmap *bitmap, size_t bit)
{
	uint64_t mask = 1ull << bit % 64, old = bitmap->word[bit / 64];

	bitmap->word[bit / 64] = old | mask;
	return !(old & mask);
}
static inline void bitmap_clear(struct bitmap *bitmap, size_t bit)
{
	bitmap->word[bit / 64] &= ~(1ull << bit % 64);
}
/* Those from @from on, below @end. */
void bitmap_set_row(struct bitmap *bitmap, size_t from, size_t end);
size_t bitmap_count(const struct bitmap *bitmap);
/* The first set bit from @bit on; bitmap->bits: none. */
size_t bitmap_next(const struct bitmap *bitmap, size_t bit);
/* The same of the first clear one. */
size_t bitmap_next_clear(const struct bitmap *bitmap, size_t bit);

/*
 * Sets a bit for each page of private memory at @at that was ever touched: the others read as zeros, and need
 * not be read. Where the system does not say, all are set.
 */
void bitmap_touched(struct bitmap *bitmap, const uint8_t *at);
/* The two ways to learn that of @fd, which is /proc/self/pagemap: an ioctl, where the system has it, that
 * tells rows of pages, and a word for each page, which takes three times as long. False: not so. */
bool bitmap_scan_pagemap(struct bitmap *bitmap, const uint8_t *at, int fd);
bool bitmap_read_pagemap(struct bitmap *bitmap, const uint8_t *at, int fd);

/* Whether all of a page's 4096 bytes are zeros. */
bool page_is_zero(const void *page);

#endif
