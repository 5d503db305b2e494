/*
 * compress.h: pages that zstd makes smaller.
 */
#ifndef TRAPLINE_MIGRATE_COMPRESS_H
#define TRAPLINE_MIGRATE_COMPRESS_H

#include <stdbool.h>
#include <stdint.h>

struct compressor;   /* of one thread */
struct decompressor; /* likewise */

/* NULL: no memory. */
struct compressor *compressor_new(int level);
void compressor_free(struct compressor *compressor); /* NULL is fine */
/* The page's size compressed, in @to, of PAGE_SIZE bytes; 0: it does not get smaller. */
uint32_t compressor_page(struct compressor *compressor, const void *page, void *to);

struct decompressor *decompressor_new(void);
void decompressor_free(struct decompressor *decompressor); /* NULL is fine */
/* False: that is no compressed page. */
bool decompressor_page(struct decompressor *decompressor, const void *from, uint32_t size, void *page);

#endif
