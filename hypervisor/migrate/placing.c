#include "migrate/placing.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

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

int placing_take(struct placing *placing, struct stream_cursor *payload)
{
	struct stream_page page;
	uint32_t count;

	if (!stream_pages_count(payload, &count))
		return refuse(placing, "a section of more pages than there may be");
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
