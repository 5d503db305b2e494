/*
 * pages.h: pages of RAM on their way out: which are to be sent, which the destination has, and how one round
 * of them is written to one stream or spread over several.
 */
#ifndef TRAPLINE_MIGRATE_PAGES_H
#define TRAPLINE_MIGRATE_PAGES_H

#include <stdatomic.h>

#include "migrate/bitmap.h"
#include "migrate/compress.h"
#include "migrate/stream.h"
#include "vm/machine.h"

/* The page's number in bitmaps; SIZE_MAX: no RAM is there. */
size_t page_number(const struct machine *machine, uint64_t address);
uint64_t page_address(const struct machine *machine, size_t number);

struct pages {
	struct machine *machine;
	struct bitmap todo;            /* to be sent */
	struct bitmap sent;            /* the destination may have another content than zeros */
	_Atomic uint64_t zero, normal; /* pages so far */
};

/* 0, -ENOMEM. Nothing is to be sent yet. */
int pages_init(struct pages *pages, struct machine *machine);
void pages_free(struct pages *pages);
/* What the machine has written since the last time is to be sent (again): the machine's thread. How many
 * pages of that. */
size_t pages_sync(struct pages *pages);
uint64_t pages_left(const struct pages *pages);

/* Pages of a block: a section of its own where all of one is to be sent, which has a huge page at the
 * destination, perhaps. */
#define PAGES_BLOCK 512u
/* Where a section that begins at @from should end, at most: behind the block that begins there, or before the
 * next one. */
size_t pages_stop(const struct pages *pages, size_t from);

/*
 * Writes one section of pages from number *@from on, below @end, and takes them off the list; *@from is where
 * to go on, @end when there are no more. Pages of zeros that the destination has as such are left out; where
 * nothing else is found, no section is written. How many pages are in the section. The writer keeps its
 * errors.
 *
 * Several threads may do this at a time with ranges that share no word of the bitmaps.
 */
#define PAGES_WORD 64u
size_t pages_write(struct pages *pages, struct stream_writer *writer, size_t *from, size_t end, unsigned most,
		   struct compressor *compressor);

#endif
