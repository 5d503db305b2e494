#include "vm/memory_map.h"

unsigned memory_map(uint64_t memory, uint64_t rom, struct memory_range range[MEMORY_RANGES_MAX])
{
	uint64_t low = memory_low(memory);
	unsigned count = 0;

	range[count++] = (struct memory_range){0, MEMORY_EBDA, MEMORY_RAM};
	range[count++] = (struct memory_range){MEMORY_EBDA, 0xa0000, MEMORY_RESERVED};
	range[count++] = (struct memory_range){MEMORY_FIRMWARE, 0x100000, MEMORY_RESERVED};
	range[count++] = (struct memory_range){0x100000, low, MEMORY_RAM};
	if (rom)
		range[count++] =
			(struct memory_range){MEMORY_HIGH_BASE - rom, MEMORY_HIGH_BASE, MEMORY_RESERVED};
	if (memory > low)
		range[count++] = (struct memory_range){MEMORY_HIGH_BASE, MEMORY_HIGH_BASE + (memory - low),
						       MEMORY_RAM};
	return count;
}
