/*
 * tables.c: the nested tables of a vCPU. An entry whose low three bits are 0 maps nothing, and bit 7 says
 * that it maps a large page, with both vendors.
 */
#include "kmod/core/core.h"

#define ENTRY_RIGHTS  7ull
#define ENTRY_LARGE   (1ull << 7)
#define ENTRY_ADDRESS 0x000ffffffffff000ull
#define ENTRIES       512u

static uint64_t *entry_of(uint64_t *table, uint64_t guest, unsigned level)
{
	return &table[guest >> (12 + 9 * level) & (ENTRIES - 1)];
}

uint64_t *tables_new(void) { return hw_pages(1); }

bool tables_guests(const struct core_machine *machine, uint64_t address, uint64_t size)
{
	return address + size >= address &&
	       (address + size <= machine->hidden || address >= machine->hidden + machine->hidden_size);
}

/* The table below @entry, which is made where there is none. */
static uint64_t *below(struct core_vcpu *vcpu, uint64_t *entry)
{
	if (!(*entry & ENTRY_RIGHTS)) {
		uint64_t *table = tables_new();

		if (!table)
			hw_stop("no memory for nested tables", 0);
		*entry = CORE_CALL(vcpu, table_entry, hw_physical(table));
	}
	return hw_map(*entry & ENTRY_ADDRESS);
}

/* The entry of the 2 MiB block of @guest. */
static uint64_t *block_of(struct core_vcpu *vcpu, uint64_t guest)
{
	uint64_t *table = vcpu->tables;

	table = below(vcpu, entry_of(table, guest, 3));
	table = below(vcpu, entry_of(table, guest, 2));
	return entry_of(table, guest, 1);
}

bool tables_fill(struct core_vcpu *vcpu, uint64_t guest)
{
	uint64_t *block = block_of(vcpu, guest), base = guest & ~(TABLES_LARGE - 1);

	if (*block & ENTRY_RIGHTS)
		return false;
	*block = CORE_CALL(vcpu, page_entry, vcpu, base, CORE_READ | CORE_WRITE | CORE_EXECUTE, true);
	return true;
}

/* Into pages of 4 KiB, each to itself. */
static void split(struct core_vcpu *vcpu, uint64_t *block, uint64_t base)
{
	uint64_t *table;

	*block = 0;
	table = below(vcpu, block);
	for (unsigned i = 0; i < ENTRIES; i++)
		table[i] = CORE_CALL(vcpu, page_entry, vcpu, base + i * (uint64_t)CORE_PAGE,
				     CORE_READ | CORE_WRITE | CORE_EXECUTE, false);
}

uint64_t *tables_entry(struct core_vcpu *vcpu, uint64_t guest)
{
	uint64_t *block = block_of(vcpu, guest);

	if (!(*block & ENTRY_RIGHTS) || *block & ENTRY_LARGE)
		split(vcpu, block, guest & ~(TABLES_LARGE - 1));
	return entry_of(below(vcpu, block), guest, 0);
}

void tables_set(struct core_vcpu *vcpu, uint64_t guest, uint64_t host, unsigned access)
{
	uint64_t *entry = tables_entry(vcpu, guest);

	*entry = CORE_CALL(vcpu, page_entry, vcpu, host & ~(uint64_t)(CORE_PAGE - 1), access, false);
}
