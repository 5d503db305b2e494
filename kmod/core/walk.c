/* walk.c: see walk.h (SDM 3A chapter 4; APM 2 chapter 5). */
#include "kmod/core/walk.h"
#include "x86/paging.h"

#define ENTRY_ADDRESS 0x000ffffffffff000ull

static bool read_entry(const struct core_machine *machine, uint64_t at, unsigned size, uint64_t *entry)
{
	uint8_t *page;

	if (!tables_reached(machine, at, size))
		return false;
	page = hw_map(at & ~PAGE_MASK);
	*entry = size == 8 ? *(uint64_t *)(void *)(page + (at & PAGE_MASK))
			   : *(uint32_t *)(void *)(page + (at & PAGE_MASK));
	return *entry & PTE_P;
}

/* Entries of 8 bytes, from @level (3: PML4, 4: PML5) down; those of PAE begin with its PDPT. */
static bool walk_long(const struct core_machine *machine, uint64_t table, unsigned level, uint64_t linear,
		      uint64_t *physical)
{
	for (;; level--) {
		unsigned shift = 12 + 9 * level;
		uint64_t entry, size = 1ull << shift;

		if (!read_entry(machine, table + (linear >> shift & 511) * 8, 8, &entry))
			return false;
		if (level == 0 || (level < 3 && entry & PTE_PS)) {
			*physical = (entry & ENTRY_ADDRESS & ~(size - 1)) | (linear & (size - 1));
			return true;
		}
		table = entry & ENTRY_ADDRESS;
	}
}

static bool walk_32(const struct core_machine *machine, uint64_t cr3, uint64_t cr4, uint32_t linear,
		    uint64_t *physical)
{
	uint64_t entry;

	if (!read_entry(machine, (cr3 & 0xfffff000u) + (linear >> 22) * 4, 4, &entry))
		return false;
	if (entry & PTE_PS && cr4 & CR4_PSE) {
		*physical = (entry & 0xffc00000u) | (entry >> 13 & 0xff) << 32 | (linear & 0x3fffff);
		return true;
	}
	if (!read_entry(machine, (entry & 0xfffff000u) + (linear >> 12 & 1023) * 4, 4, &entry))
		return false;
	*physical = (entry & 0xfffff000u) | (linear & PAGE_MASK);
	return true;
}

bool walk_guest(const struct core_machine *machine, const struct walk_mode *mode, uint64_t linear,
		uint64_t *physical)
{
	*physical = linear;
	if (!(mode->cr0 & CR0_PG))
		return true;
	if (mode->efer & EFER_LMA)
		return walk_long(machine, mode->cr3 & ENTRY_ADDRESS, mode->cr4 & CR4_LA57 ? 4 : 3, linear,
				 physical);
	if (!(mode->cr4 & CR4_PAE))
		return walk_32(machine, mode->cr3, mode->cr4, (uint32_t)linear, physical);
	return walk_long(machine, mode->cr3 & 0xffffffe0u, 2, (uint32_t)linear, physical);
}
