/*
 * fuzz.h: random input that is the same in every run, for tests that throw it at whatever reads a file,
 * a socket or a guest's bytes.
 *
 * FUZZ=N in the environment makes each test N times as long (`make fuzz`); FUZZ_SEED=N starts elsewhere.
 * What a failing round needs is printed as `FUZZ_ROUND=…`: with that in the environment, that round
 * alone is run; with FUZZ_FROM=N, all from that one on, where it takes others to set the stage.
 */
#ifndef TRAPLINE_FUZZ_FUZZ_H
#define TRAPLINE_FUZZ_FUZZ_H

#include <stdint.h>
#include <stdlib.h>

#include "vm/test.h"

struct fuzz {
	uint64_t state;
};

static inline uint64_t fuzz_number(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text && *text ? strtoull(text, NULL, 0) : otherwise;
}

/* Each round has a seed of its own, so that it can be run alone. */
static inline struct fuzz fuzz_round(uint64_t round)
{
	struct fuzz fuzz = {(round + 1) * 0x9e3779b97f4a7c15ull ^ fuzz_number("FUZZ_SEED", 0)};

	if (!fuzz.state)
		fuzz.state = 1;
	return fuzz;
}

static inline uint64_t fuzz_next(struct fuzz *fuzz)
{
	fuzz->state ^= fuzz->state << 13;
	fuzz->state ^= fuzz->state >> 7;
	fuzz->state ^= fuzz->state << 17;
	return fuzz->state * 0x2545f4914f6cdd1dull;
}

/* From 0 to @limit - 1. */
static inline unsigned fuzz_below(struct fuzz *fuzz, unsigned limit)
{
	return (unsigned)((fuzz_next(fuzz) >> 32) % limit);
}

static inline bool fuzz_one_in(struct fuzz *fuzz, unsigned n) { return fuzz_below(fuzz, n) == 0; }

/* Calls @one for each round: @rounds of them, times FUZZ. */
static inline void fuzz_rounds(uint64_t rounds, void (*one)(struct fuzz *fuzz, uint64_t round))
{
	uint64_t end = rounds * fuzz_number("FUZZ", 1), first = fuzz_number("FUZZ_ROUND", UINT64_MAX);

	if (first != UINT64_MAX)
		end = first + 1;
	else
		first = fuzz_number("FUZZ_FROM", 0);
	for (uint64_t round = first; round < end; round++) {
		struct fuzz fuzz = fuzz_round(round);

		one(&fuzz, round);
	}
}

/* Changes @bytes in up to four places: a bit, a byte, a run, a number at its limits; or cuts them off. */
static inline size_t fuzz_mutate(struct fuzz *fuzz, uint8_t *bytes, size_t size)
{
	static const uint64_t limits[] = {0,      1,          0x7f,       0xff,       0x7fff,        0xffff,
					  0x1000, 0x7fffffff, 0x80000000, 0xffffffff, 0x7ffffffffff, ~0ull};

	for (unsigned changes = 1 + fuzz_below(fuzz, 4); changes && size; changes--) {
		size_t at = fuzz_next(fuzz) % size, room = size - at;
		uint64_t number = limits[fuzz_below(fuzz, sizeof(limits) / sizeof(limits[0]))];
		size_t length = 1u << fuzz_below(fuzz, 4);

		switch (fuzz_below(fuzz, 6)) {
		case 0: bytes[at] ^= (uint8_t)(1u << fuzz_below(fuzz, 8)); break;
		case 1: bytes[at] = (uint8_t)fuzz_next(fuzz); break;
		case 2: memcpy(bytes + at, &number, length < room ? length : room); break;
		case 3: memset(bytes + at, (int)(number & 0xff), length < room ? length : room); break;
		case 4:
			memmove(bytes + at, bytes + fuzz_next(fuzz) % size % (size - room + 1),
				length < room ? length : room);
			break;
		default:
			if (fuzz_one_in(fuzz, 4))
				size = at + 1;
			break;
		}
	}
	return size;
}

#endif
