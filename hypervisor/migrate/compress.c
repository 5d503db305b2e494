#include "migrate/compress.h"

#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "x86/paging.h"

struct compressor {
	ZSTD_CCtx *context;
	uint8_t page[PAGE_SIZE];
};
struct decompressor {
	ZSTD_DCtx *context;
};

struct compressor *compressor_new(int level)
{
	struct compressor *compressor = calloc(1, sizeof(*compressor));

	if (!compressor)
		return NULL;
	compressor->context = ZSTD_createCCtx();
	if (!compressor->context ||
	    ZSTD_isError(ZSTD_CCtx_setParameter(compressor->context, ZSTD_c_compressionLevel, level))) {
		compressor_free(compressor);
		return NULL;
	}
	return compressor;
}

void compressor_free(struct compressor *compressor)
{
	if (!compressor)
		return;
	ZSTD_freeCCtx(compressor->context);
	free(compressor);
}

/* Of a copy, as the guest may write to the page meanwhile, which zstd must not see. */
uint32_t compressor_page(struct compressor *compressor, const void *page, void *to)
{
	size_t size;

	memcpy(compressor->page, page, PAGE_SIZE);
	size = ZSTD_compress2(compressor->context, to, PAGE_SIZE, compressor->page, PAGE_SIZE);
	return ZSTD_isError(size) ? 0 : (uint32_t)size;
}

struct decompressor *decompressor_new(void)
{
	struct decompressor *decompressor = calloc(1, sizeof(*decompressor));

	if (!decompressor)
		return NULL;
	decompressor->context = ZSTD_createDCtx();
	if (!decompressor->context) {
		decompressor_free(decompressor);
		return NULL;
	}
	return decompressor;
}

void decompressor_free(struct decompressor *decompressor)
{
	if (!decompressor)
		return;
	ZSTD_freeDCtx(decompressor->context);
	free(decompressor);
}

bool decompressor_page(struct decompressor *decompressor, const void *from, uint32_t size, void *page)
{
	return ZSTD_decompressDCtx(decompressor->context, page, PAGE_SIZE, from, size) == PAGE_SIZE;
}
