/*
 * random.h: the random numbers of a case: a stream that its seed and number alone decide.
 */
#ifndef TRAPLINE_ORACLE_RANDOM_H
#define TRAPLINE_ORACLE_RANDOM_H

#include <stdbool.h>
#include <stdint.h>

struct random {
	uint64_t state;
};

/* splitmix64: a counter, mixed; any start is as good as another. */
static inline uint64_t random_next(struct random *r)
{
	uint64_t z = r->state += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static inline struct random random_start(uint64_t seed, uint64_t number)
{
	struct random r = {seed};

	r.state = random_next(&r) ^ number * 0xd1342543de82ef95ull;
	return r;
}

/* Below @limit. */
static inline unsigned random_below(struct random *r, unsigned limit)
{
	return (unsigned)((random_next(r) >> 32) * limit >> 32);
}

/* True once in @times. */
static inline bool random_once_in(struct random *r, unsigned times) { return !random_below(r, times); }

#endif
