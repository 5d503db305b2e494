/* dirty.h: memory that is written to at a rate, for measuring migration. */
#ifndef TRAPLINE_GUESTS_BENCH_DIRTY_H
#define TRAPLINE_GUESTS_BENCH_DIRTY_H

#include <stdint.h>

/* Fills so many MiB of memory from 16 MiB on. */
void dirty_fill(uint64_t mebibytes);

/* Writes to @pages pages of it at each of 100 ticks a second, one page after the other, round and round. */
_Noreturn void dirty_for_ever(uint64_t mebibytes, uint64_t pages);

#endif
