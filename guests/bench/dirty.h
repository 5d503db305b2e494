/* dirty.h: memory that is written to at a rate, for measuring migration. */
#ifndef TRAPLINE_GUESTS_BENCH_DIRTY_H
#define TRAPLINE_GUESTS_BENCH_DIRTY_H

#include <stdint.h>

/* Fills so many MiB of memory from 16 MiB on. */
void dirty_fill(uint64_t mebibytes);

/*
 * Writes to @pages pages of it at each of 100 ticks a second, one page after the other, round and round, and looks whether
 * what it wrote there before is still there: it says `lost ADDRESS` where not, and `beat TICK` at every @beat-th tick (0: never).
 */
_Noreturn void dirty_for_ever(uint64_t mebibytes, uint64_t pages, uint64_t beat);

#endif
