/*
 * placer.h: a thread that puts pages in their place while the next are read: memory that nobody has touched
 * yet takes the system about as long as the socket does.
 *
 * One thread calls all of this, the one that reads the stream. Pages of one section go to their place before
 * those of the next.
 */
#ifndef TRAPLINE_MIGRATE_PLACER_H
#define TRAPLINE_MIGRATE_PLACER_H

#include "migrate/stream.h"
#include "vm/machine.h"

struct placer;

/* 0, or a negative errno: -ENOMEM, or no thread. */
int placer_new(struct placer **placer, struct machine *machine);
/*
 * Takes the section STREAM_PAGES that @reader has just read, with the memory it lies in, for which @reader
 * gets other. Waits while too many are under way. 0, or what was wrong with this or an earlier section, which
 * placer_why() tells: as placing_take().
 */
int placer_take(struct placer *placer, struct stream_reader *reader, const struct stream_cursor *payload);
/* Waits until all that was taken is in its place. As placer_take(). */
int placer_wait(struct placer *placer);
/* Pages that are in their place; behind placer_wait(). */
uint64_t placer_pages(const struct placer *placer);
/* Behind an error: one line. */
const char *placer_why(const struct placer *placer);
/* There will be no more: memory is given back, without waiting for that. */
void placer_end(struct placer *placer);
/* What was taken and is not in its place yet is forgotten. NULL is fine. */
void placer_free(struct placer *placer);

#endif
