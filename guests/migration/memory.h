/*
 * memory.h: the ways of writing memory that memory.S has: each writes the 32 bytes of four quadwords.
 */
#ifndef TRAPLINE_GUESTS_MIGRATION_MEMORY_H
#define TRAPLINE_GUESTS_MIGRATION_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

struct memory_way {
	void (*write)(uint8_t *to, const uint64_t value[4]);
	uint32_t leaf; /* 0: every processor of 64 bits has it; else the bit of CPUID that says so */
	uint8_t reg, bit;
	bool aligned; /* to 16 bytes, or it faults; locked ones too, which would be split */
	bool avx;
};

extern const struct memory_way memory_ways[];

#endif
