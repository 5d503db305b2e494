/*
 * memory_map.h: where a PC of so much memory has it: RAM below the hole that PCI, the APICs and the
 * firmware have under 4 GiB, the rest of it above; and how that is told to guests.
 */
#ifndef TRAPLINE_VM_MEMORY_MAP_H
#define TRAPLINE_VM_MEMORY_MAP_H

#include <stdint.h>

#define MEMORY_LOW_MAX   (3072ull << 20) /* RAM below this, the hole from here to 4 GiB */
#define MEMORY_HIGH_BASE (1ull << 32)

/* Where conventional memory ends, and what of the first MiB the firmware's tables are in. */
#define MEMORY_EBDA     0x9fc00u
#define MEMORY_FIRMWARE 0xf0000u

/* The numbers of the BIOS (int 15h, E820h), multiboot, PVH and Linux. */
enum memory_type { MEMORY_RAM = 1, MEMORY_RESERVED = 2 };

struct memory_range {
	uint64_t base, end;
	enum memory_type type;
};

#define MEMORY_RANGES_MAX 6

/* Bytes of RAM of @memory that lie below 4 GiB; the rest follows at MEMORY_HIGH_BASE. */
static inline uint64_t memory_low(uint64_t memory)
{
	return memory < MEMORY_LOW_MAX ? memory : MEMORY_LOW_MAX;
}

/* The map, in order of address, of @memory bytes of RAM and @rom bytes of ROM below 4 GiB. Returns how many
 * ranges. */
unsigned memory_map(uint64_t memory, uint64_t rom, struct memory_range range[MEMORY_RANGES_MAX]);

#endif
