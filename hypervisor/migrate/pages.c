#include "migrate/pages.h"

#include <errno.h>
#include <string.h>

#include "x86/paging.h"

size_t page_number(const struct machine *machine, uint64_t address)
{
	uint64_t memory = machine->config.memory, low = memory_low(memory);

	if (address < low)
		return address / PAGE_SIZE;
	if (address < MEMORY_HIGH_BASE || address - MEMORY_HIGH_BASE >= memory - low)
		return SIZE_MAX;
	return (address - MEMORY_HIGH_BASE + low) / PAGE_SIZE;
}

uint64_t page_address(const struct machine *machine, size_t number)
{
	uint64_t offset = (uint64_t)number * PAGE_SIZE, low = memory_low(machine->config.memory);

	return offset < low ? offset : offset - low + MEMORY_HIGH_BASE;
}

int pages_init(struct pages *pages, struct machine *machine)
{
	size_t bits = machine->config.memory / PAGE_SIZE;
	int error;

	*pages = (struct pages){.machine = machine};
	error = bitmap_init(&pages->todo, bits);
	return error ? error : bitmap_init(&pages->sent, bits);
}

void pages_free(struct pages *pages)
{
	bitmap_free(&pages->todo);
	bitmap_free(&pages->sent);
}

size_t pages_sync(struct pages *pages)
{
	const struct engine_ops *ops = pages->machine->engine->ops;
	const uint64_t *dirty;
	size_t count, known = 0;

	ops->dirty_pages(pages->machine->engine, &dirty, &count);
	for (size_t i = 0; i < count; i++) {
		size_t number = page_number(pages->machine, dirty[i]);

		if (number != SIZE_MAX) {
			bitmap_set(&pages->todo, number);
			known++;
		}
	}
	ops->dirty_reset(pages->machine->engine);
	return known;
}

uint64_t pages_left(const struct pages *pages) { return bitmap_count(&pages->todo); }

/* False: nothing needs to be said of it. */
static bool put(struct pages *pages, struct stream_writer *writer, size_t number,
		struct compressor *compressor)
{
	const uint8_t *page = pages->machine->ram + number * PAGE_SIZE;
	uint64_t address = page_address(pages->machine, number);
	uint8_t compressed[PAGE_SIZE];
	uint32_t size;

	if (page_is_zero(page)) {
		atomic_fetch_add_explicit(&pages->zero, 1, memory_order_relaxed);
		if (!bitmap_get(&pages->sent, number))
			return false;
	} else {
		atomic_fetch_add_explicit(&pages->normal, 1, memory_order_relaxed);
	}
	bitmap_set(&pages->sent, number);
	size = compressor ? compressor_page(compressor, page, compressed) : 0;
	if (size)
		stream_pages_add_zstd(writer, address, compressed, size);
	else
		stream_pages_add(writer, address, page);
	return true;
}

static bool is_block(const struct pages *pages, size_t at)
{
	const uint64_t *word = pages->todo.word + at / 64;

	if (at % PAGES_BLOCK || at + PAGES_BLOCK > pages->todo.bits)
		return false;
	for (unsigned i = 0; i < PAGES_BLOCK / 64; i++)
		if (word[i] != ~0ull)
			return false;
	return true;
}

size_t pages_stop(const struct pages *pages, size_t from)
{
	size_t at = from;

	if (is_block(pages, from))
		return from + PAGES_BLOCK;
	do
		at += PAGES_BLOCK - at % PAGES_BLOCK;
	while (at < pages->todo.bits && !is_block(pages, at));
	return at < pages->todo.bits ? at : pages->todo.bits;
}

size_t pages_write(struct pages *pages, struct stream_writer *writer, size_t *from, size_t end, unsigned most,
		   struct compressor *compressor)
{
	size_t at = bitmap_next(&pages->todo, *from), count = 0;

	for (; at < end && count < most; at = bitmap_next(&pages->todo, at + 1)) {
		bitmap_clear(&pages->todo, at);
		if (count == 0)
			stream_pages_begin(writer);
		count += put(pages, writer, at, compressor);
	}
	*from = at < end ? at : end;
	if (count)
		stream_pages_end(writer);
	return count;
}
