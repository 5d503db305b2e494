/* memory.c: the hypervisor's own memory. */
#include "l1/l1.h"
#include "x86/paging.h"

#define LARGE     0x200000ull
#define GIGABYTE  0x40000000ull
#define FOUR_GIB  0x100000000ull
#define LOW_END   0xa0000ull
#define LOW_START 0x1000ull

extern uint8_t image_start[], image_end[], boot_stack[], boot_stack_top[];
extern uint64_t boot_pml4[], boot_pdpt[], boot_pdpt_high[], boot_pd[], boot_pd_high[];
extern uint64_t pool_next, pool_end;

void l1_move(uint64_t to, const void *from, uint64_t size, uint64_t cr3);

/* The RAM that ends highest below 4 GiB. */
static uint64_t top_of_memory(const struct facts *facts)
{
	uint64_t top = 0;

	for (unsigned i = 0; i < facts->ranges; i++) {
		const struct facts_range *range = &facts->range[i];
		uint64_t end = range->end < FOUR_GIB ? range->end : FOUR_GIB;

		if (range->type == MEMORY_RAM && range->base < end && end > top)
			top = end;
	}
	return top & ~(LARGE - 1);
}

/* Pages of 1 GiB, without which only 4 GiB are mapped. */
static bool large_pages(void)
{
	uint32_t r[4];

	hw_cpuid(0x80000001u, 0, r);
	return r[3] >> 26 & 1;
}

/* The page tables for the moved image, in its own copy of the tables: identity, and the image's blocks. */
static void retarget(uint64_t hidden, uint64_t size)
{
	uint64_t moved = hidden - L1_VIRTUAL;

#define MOVED(table) ((uint64_t)(table) + moved)
	uint64_t *pml4 = (uint64_t *)MOVED(boot_pml4), *pdpt = (uint64_t *)MOVED(boot_pdpt);
	uint64_t *high = (uint64_t *)MOVED(boot_pdpt_high), *pd_high = (uint64_t *)MOVED(boot_pd_high);
	pml4[0] = MOVED(boot_pdpt) | PTE_P | PTE_W;
	pml4[511] = MOVED(boot_pdpt_high) | PTE_P | PTE_W;
	high[510] = MOVED(boot_pd_high) | PTE_P | PTE_W;
	for (unsigned i = 0; i < 4; i++)
		pdpt[i] = (MOVED(boot_pd) + i * CORE_PAGE) | PTE_P | PTE_W;
#undef MOVED
	for (unsigned i = 4; large_pages() && i < 512; i++)
		pdpt[i] = i * GIGABYTE | PTE_PS | PTE_P | PTE_W;
	for (uint64_t at = 0; at < size; at += LARGE)
		pd_high[at / LARGE] = (hidden + at) | PTE_PS | PTE_P | PTE_W;
}

/* The image, and for each processor control structures, tables, and tables for a guest's guest. */
static uint64_t wanted(unsigned cpus)
{
	uint64_t image = (uint64_t)(image_end - (uint8_t *)L1_VIRTUAL);

	return (image + cpus * 0x40000ull + 0x100000 + LARGE - 1) & ~(LARGE - 1);
}

/* What the loader has put there must not be where we go. */
static void check_clear(const struct facts *facts, uint64_t hidden)
{
	bool clear = (uint64_t)facts->line < hidden;

	for (unsigned i = 0; i < facts->modules; i++)
		clear &= facts->module[i].end <= hidden;
	if (!clear)
		l1_refuse("the loader has put modules or command line at the top of memory");
}

void memory_move(struct facts *facts, struct core_machine *machine)
{
	uint64_t size = wanted(machine->cpus), top = top_of_memory(facts), hidden = top - size;
	uint64_t image = (uint64_t)(image_end - image_start), offset = (uint64_t)image_start - L1_VIRTUAL;

	if (top < size + 4 * LARGE)
		l1_refuse("there is too little memory below 4 GiB");
	check_clear(facts, hidden);
	machine->mapped = large_pages() ? 512 * GIGABYTE : FOUR_GIB;
	machine->hidden = hidden;
	machine->hidden_size = size;
	facts_hide(facts, hidden);
	pool_next = (hidden + offset + image + CORE_PAGE - 1) & ~(uint64_t)(CORE_PAGE - 1);
	pool_end = hidden + size;
	/* The page tables are part of the image, and so is this stack, which goes last. */
	copy((void *)(hidden + offset), image_start, image);
	retarget(hidden, size);
	l1_move(hidden + (uint64_t)boot_stack - L1_VIRTUAL, boot_stack,
		(uint64_t)(boot_stack_top - boot_stack), hidden + (uint64_t)boot_pml4 - L1_VIRTUAL);
}

uint8_t memory_low_page(struct facts *facts)
{
	uint64_t page = 0;
	unsigned found = 0;

	for (unsigned i = 0; i < facts->ranges; i++) {
		const struct facts_range *range = &facts->range[i];
		uint64_t end = range->end < LOW_END ? range->end : LOW_END;

		if (range->type != MEMORY_RAM || end < range->base + 2 * CORE_PAGE || end <= page)
			continue;
		page = (end - CORE_PAGE) & ~(uint64_t)(CORE_PAGE - 1);
		found = i;
	}
	if (page < LOW_START)
		l1_refuse("there is no memory below 1 MiB for other processors to start in");
	facts->range[found].end = page;
	return (uint8_t)(page >> 12);
}
