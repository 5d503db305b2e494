/*
 * placing.h: pages that arrive, and where they go: into the RAM of a machine that does not run yet.
 */
#ifndef TRAPLINE_MIGRATE_PLACING_H
#define TRAPLINE_MIGRATE_PLACING_H

#include "migrate/compress.h"
#include "migrate/stream.h"
#include "vm/machine.h"

struct placing {
	struct machine *machine;
	struct decompressor *decompressor; /* made when it is needed */
	uint64_t pages;                    /* so far */
	unsigned small, wait; /* blocks that get small pages, from now on; and at the last time */
	char why[STREAM_WHY];
};

/* Puts a section STREAM_PAGES in its place. 0, -ENOMEM, or -EPROTO with placing->why. */
int placing_take(struct placing *placing, struct stream_cursor *payload);
/* The content of one page: @room, of PAGE_SIZE bytes, where it had to be decompressed. NULL with
 * placing->why. */
const void *placing_content(struct placing *placing, const struct stream_page *page, void *room);
void placing_free(struct placing *placing);

#endif
