#define _GNU_SOURCE
#include "migrate/placing.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "migrate/pages.h"

__attribute__((format(printf, 2, 3))) static int refuse(struct placing *placing, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(placing->why, sizeof(placing->why), format, arguments);
	va_end(arguments);
	return -EPROTO;
}

static bool decompress(struct placing *placing, const struct stream_page *page, void *to)
{
	if (!placing->decompressor)
		placing->decompressor = decompressor_new();
	if (!placing->decompressor)
		return !refuse(placing, "no memory to decompress pages");
	if (!decompressor_page(placing->decompressor, page->content, page->size, to))
		return !refuse(placing, "the page at 0x%llx is no page compressed by zstd",
			       (unsigned long long)page->address);
	return true;
}

const void *placing_content(struct placing *placing, const struct stream_page *page, void *room)
{
	static const uint8_t zeros[PAGE_SIZE];

	switch (page->kind) {
	case STREAM_PAGE_ZERO: return zeros;
	case STREAM_PAGE_RAW: return page->content;
	case STREAM_PAGE_ZSTD: return decompress(placing, page, room) ? room : NULL;
	}
	return NULL;
}

static int place(struct placing *placing, const struct stream_page *page)
{
	uint8_t *at = machine_ram(placing->machine, page->address, PAGE_SIZE);

	if (!at)
		return refuse(placing, "a page at 0x%llx, where this machine has no RAM",
			      (unsigned long long)page->address);
	switch (page->kind) {
	case STREAM_PAGE_ZERO: memset(at, 0, PAGE_SIZE); break;
	case STREAM_PAGE_RAW: memcpy(at, page->content, PAGE_SIZE); break;
	case STREAM_PAGE_ZSTD: return decompress(placing, page, at) ? 0 : -EPROTO;
	}
	return 0;
}

/* ---- memory for them ---- */

/* What a huge page holds. */
#define BLOCK (PAGES_BLOCK * PAGE_SIZE)
/* What as much memory in small pages takes of the processor, or little more. */
#define SMALL_NS 1000000u
/* Blocks without huge pages until one is tried again. */
#define WAIT_LEAST 32u
#define WAIT_MOST  1024u

static uint64_t processor_time(void)
{
	struct timespec now;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Where a section goes that fills a block with contents; NULL: it is none. */
static uint8_t *block_of(struct placing *placing, struct stream_cursor payload, uint32_t count)
{
	uint8_t *block = NULL;

	if (count != PAGES_BLOCK)
		return NULL;
	for (uint32_t i = 0; i < count; i++) {
		struct stream_page page;
		uint8_t *at;

		if (!stream_pages_next(&payload, &page) || page.kind == STREAM_PAGE_ZERO)
			return NULL;
		at = machine_ram(placing->machine, page.address, PAGE_SIZE);
		if (i == 0)
			block = at;
		if (!at || at != block + (size_t)i * PAGE_SIZE)
			return NULL;
	}
	return (uintptr_t)block % BLOCK ? NULL : block;
}

/*
 * A block that nobody has touched gets a huge page, which costs a system an eighth of as much in small ones.
 * But not where the memory has to be made free first, or where the system is a guest itself and its host must
 * find it: small pages, of which used ones are around, cost less there, and are taken for a while.
 */
static void prepare(struct placing *placing, const struct stream_cursor *payload, uint32_t count)
{
	uint8_t *block = block_of(placing, *payload, count);
	uint64_t began;

	if (!block)
		return;
	if (placing->small) {
		placing->small--;
		return;
	}
	began = processor_time();
	/* A system that cannot do it leaves it to the faults. */
	if (madvise(block, BLOCK, MADV_HUGEPAGE) || madvise(block, BLOCK, MADV_POPULATE_WRITE))
		return;
	if (processor_time() - began <= SMALL_NS) {
		placing->wait = 0;
		return;
	}
	placing->wait = placing->wait ? placing->wait * 2 : WAIT_LEAST;
	if (placing->wait > WAIT_MOST)
		placing->wait = WAIT_MOST;
	placing->small = placing->wait;
}

int placing_take(struct placing *placing, struct stream_cursor *payload)
{
	struct stream_page page;
	uint32_t count;

	if (!stream_pages_count(payload, &count))
		return refuse(placing, "a section of more pages than there may be");
	prepare(placing, payload, count);
	for (uint32_t i = 0; i < count; i++) {
		int error;

		if (!stream_pages_next(payload, &page))
			return refuse(placing, "a section of pages that is none");
		error = place(placing, &page);
		if (error)
			return error;
	}
	placing->pages += count;
	return stream_taken(payload) ? 0 : refuse(placing, "bytes behind the last page of a section");
}

void placing_free(struct placing *placing)
{
	decompressor_free(placing->decompressor);
	placing->decompressor = NULL;
}
