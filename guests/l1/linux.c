/* linux.c: Linux's 32-bit boot protocol, as Documentation/arch/x86/boot.rst of the kernel has it. */
#include "l1/l1.h"

#define HEADER         0x1f1u /* what a loader copies: from here to the end of the setup header */
#define SETUP_SECTORS  0x1f1u
#define E820_ENTRIES   0x1e8u
#define BOOT_FLAG      0x1feu
#define JUMP           0x200u /* two bytes; the second says how long the header is */
#define MAGIC          0x202u
#define VERSION        0x206u
#define LOADER         0x210u
#define LOAD_FLAGS     0x211u
#define RAMDISK        0x218u
#define RAMDISK_SIZE   0x21cu
#define COMMAND_LINE   0x228u
#define INIT_SIZE      0x260u
#define ACPI_RSDP      0x070u
#define E820_TABLE     0x2d0u
#define E820_ENTRY     20u
#define ZERO_PAGE      0x1000u
#define FIELDS_END     0x268u
#define SECTOR         512u
#define LOADED_HIGH    1u
#define VERSION_NEEDED 0x020au /* with the size that it wants */
#define OTHER_LOADER   0xffu
#define KERNEL         0x100000ull

static uint8_t get8(const uint8_t *at) { return *at; }
static uint32_t get32(const uint8_t *at) { return *(const uint32_t *)(const void *)at; }
static void put32(uint8_t *at, uint32_t value) { *(uint32_t *)(void *)at = value; }

bool linux_is(const uint8_t *file, uint64_t size)
{
	return size > FIELDS_END && file[BOOT_FLAG] == 0x55 && file[BOOT_FLAG + 1] == 0xaa &&
	       get32(file + MAGIC) == 0x53726448u;
}

struct image_entry linux_load(const uint8_t *file, uint64_t size, uint64_t top)
{
	uint64_t setup =
		(get8(file + SETUP_SECTORS) ? get8(file + SETUP_SECTORS) + 1u : 5u) * (uint64_t)SECTOR;
	uint64_t room = get32(file + INIT_SIZE);

	if ((get32(file + VERSION) & 0xffff) < VERSION_NEEDED || !(file[LOAD_FLAGS] & LOADED_HIGH))
		l1_refuse("the Linux kernel is too old");
	if (setup >= size)
		l1_refuse("the Linux kernel is cut short");
	/* It moves itself to where it wants to run, which is 16 MiB by itself, before it unpacks. */
	if (room > top || 16 * KERNEL > top - room || size - setup > top - KERNEL)
		l1_refuse("the Linux kernel does not fit into memory");
	copy((void *)KERNEL, file + setup, size - setup);
	return (struct image_entry){L1_LINUX, (uint32_t)KERNEL};
}

static void put_map(const struct facts *facts, uint8_t *page)
{
	page[E820_ENTRIES] = (uint8_t)facts->ranges;
	for (unsigned i = 0; i < facts->ranges; i++) {
		const struct facts_range *range = &facts->range[i];
		uint8_t *entry = page + E820_TABLE + i * E820_ENTRY;
		uint64_t size = range->end - range->base;

		copy(entry, &range->base, 8);
		copy(entry + 8, &size, 8);
		put32(entry + 16, range->type);
	}
}

uint64_t linux_write(const struct facts *facts, const uint8_t *file, unsigned first, uint64_t top)
{
	uint64_t header = MAGIC + get8(file + JUMP + 1) - HEADER, page_at;
	const char *line = facts_lift(facts->line, &top);
	uint8_t *page;

	page_at = (top - ZERO_PAGE) & ~(uint64_t)(CORE_PAGE - 1);
	page = (uint8_t *)page_at;
	clear(page, ZERO_PAGE);
	copy(page + HEADER, file + HEADER, header);
	page[LOADER] = OTHER_LOADER;
	put32(page + COMMAND_LINE, (uint32_t)(uint64_t)line);
	if (first < facts->modules) {
		put32(page + RAMDISK, (uint32_t)facts->module[first].start);
		put32(page + RAMDISK_SIZE, (uint32_t)(facts->module[first].end - facts->module[first].start));
	}
	copy(page + ACPI_RSDP, &facts->rsdp, 8);
	put_map(facts, page);
	return page_at;
}
