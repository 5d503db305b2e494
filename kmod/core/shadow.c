/* shadow.c: see shadow.h. Entries are told apart as in tables.c. */
#include "kmod/core/shadow.h"

#define ENTRY_RIGHTS  7ull
#define ENTRY_LARGE   (1ull << 7)
#define ENTRY_ADDRESS 0x000ffffffffff000ull
#define ENTRIES       512u

uint64_t *shadow_take(struct shadow *shadow)
{
	if (shadow->used == SHADOW_PAGES)
		return NULL;
	if (shadow->used == shadow->pages) {
		shadow->page[shadow->pages] = hw_pages(1);
		if (!shadow->page[shadow->pages])
			return NULL;
		shadow->pages++;
	} else {
		hw_clear_page(shadow->page[shadow->used]);
	}
	return shadow->page[shadow->used++];
}

uint64_t *shadow_root(struct shadow *shadow)
{
	if (!shadow->used && !shadow_take(shadow))
		hw_stop("no memory for joined tables", 0);
	return shadow->page[0];
}

uint64_t *shadow_entry(struct core_vcpu *vcpu, struct shadow *shadow, uint64_t address, unsigned level)
{
	uint64_t *table = shadow_root(shadow);

	for (unsigned at = 3;; at--) {
		uint64_t *entry = &table[address >> (12 + 9 * at) & (ENTRIES - 1)];

		if (at == level)
			return entry;
		if (!(*entry & ENTRY_RIGHTS) || *entry & ENTRY_LARGE) {
			uint64_t *below = shadow_take(shadow);

			if (!below)
				return NULL;
			*entry = CORE_CALL(vcpu, table_entry, hw_physical(below));
		}
		table = hw_map(*entry & ENTRY_ADDRESS);
	}
}

bool shadow_whole_block(const struct core_vcpu *vcpu, uint64_t host)
{
	uint64_t block = host & ~(TABLES_LARGE - 1);

	return tables_guests(vcpu->machine, block, TABLES_LARGE) &&
	       (!vcpu->apic_page || (vcpu->apic_page & ~(TABLES_LARGE - 1)) != block);
}
