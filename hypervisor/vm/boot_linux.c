/*
 * Linux' x86 boot protocol (Documentation/arch/x86/boot.rst), from the point where a boot loader has read the
 * file: the kernel at its preferred address, or where it fits if it is relocatable; the zero page, a GDT, the
 * command line, and page tables for the 64-bit entry below 640 KiB; the initrd as high as the kernel
 * reaches.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "vm/boot_internal.h"
#include "x86/descriptors.h"
#include "x86/paging.h"

/* Offsets in the file's first sectors and, the same, in the zero page. */
#define SETUP_SECTS       0x1f1
#define SYSSIZE           0x1f4
#define BOOT_FLAG         0x1fe
#define JUMP_LENGTH       0x201
#define HEADER            0x202
#define VERSION           0x206
#define TYPE_OF_LOADER    0x210
#define LOADFLAGS         0x211
#define CODE32_START      0x214
#define RAMDISK_IMAGE     0x218
#define RAMDISK_SIZE      0x21c
#define HEAP_END_PTR      0x224
#define CMD_LINE_PTR      0x228
#define INITRD_ADDR_MAX   0x22c
#define KERNEL_ALIGNMENT  0x230
#define RELOCATABLE       0x234
#define MIN_ALIGNMENT     0x235
#define XLOADFLAGS        0x236
#define CMDLINE_SIZE      0x238
#define SETUP_DATA        0x250
#define PREF_ADDRESS      0x258
#define INIT_SIZE         0x260
#define HEADER_END        0x268
#define HEADER_SPACE      0x290 /* e820's neighbours begin here */
#define ZERO_EXT_MEM_K    0x002
#define ZERO_ALT_MEM_K    0x1e0
#define ZERO_E820_ENTRIES 0x1e8
#define ZERO_E820_TABLE   0x2d0

#define MAGIC               0x53726448u /* "HdrS" */
#define SECTOR              512u
#define LOADED_HIGH         0x01
#define CAN_USE_HEAP        0x80
#define XLF_KERNEL_64       0x01
#define LOADER_UNREGISTERED 0xff
#define ENTRY_64            0x200u /* behind the 32-bit entry */

/* Below 640 KiB, where neither the kernel nor its decompressor has anything. */
#define ZERO_PAGE    0x10000u
#define TABLES       0x11000u /* the GDT, then setup_data */
#define RANDOM_SEED  0x11100u
#define PAGE_TABLES  0x12000u /* PML4, PDPT, four page directories */
#define COMMAND_LINE 0x20000u

#define SETUP_RNG_SEED 9u
#define SEED_SIZE      32u
struct setup_data {
	uint64_t next;
	uint32_t type, length;
	uint8_t data[SEED_SIZE];
};

struct e820_entry {
	uint64_t base, length;
	uint32_t type;
} __attribute__((packed));

/* What the header says, checked. */
struct kernel {
	const uint8_t *header; /* the file's first sectors */
	unsigned version;
	const uint8_t *data; /* the protected-mode part */
	uint64_t size;
	uint64_t address, room; /* where it goes, and what it needs there */
	bool entry64;
};

static uint64_t field(const uint8_t *header, unsigned offset, unsigned size)
{
	uint64_t value = 0;

	memcpy(&value, header + offset, size);
	return value;
}

static void set(uint8_t *header, unsigned offset, unsigned size, uint64_t value)
{
	memcpy(header + offset, &value, size);
}

bool boot_is_linux(const struct image *image)
{
	return image->kind == IMAGE_FLAT && image->size >= HEADER_SPACE &&
	       field(image->data, BOOT_FLAG, 2) == 0xaa55 && field(image->data, HEADER, 4) == MAGIC;
}

/* ---- the header ---- */

static int read_header(struct loader *loader, struct kernel *kernel)
{
	const struct image *image = loader->image;
	unsigned sectors = image->data[SETUP_SECTS] ? image->data[SETUP_SECTS] : 4;
	uint64_t setup = (sectors + 1) * SECTOR;

	*kernel = (struct kernel){.header = image->data, .version = (unsigned)field(image->data, VERSION, 2)};
	if (kernel->version < 0x206) {
		snprintf(loader->why, loader->size,
			 "a Linux kernel of boot protocol %u.%02u; 2.06 is the oldest that works",
			 kernel->version >> 8, kernel->version & 0xff);
		return -EINVAL;
	}
	if (!(field(kernel->header, LOADFLAGS, 1) & LOADED_HIGH))
		return boot_bad(loader, "a Linux kernel that wants to be loaded below 1 MiB (zImage)");
	kernel->size = field(kernel->header, SYSSIZE, 4) * 16;
	if (setup >= image->size || kernel->size == 0)
		return boot_bad(loader, "truncated: a Linux kernel without its protected-mode part");
	/* The size counts paragraphs: the last may be cut. */
	if (kernel->size - 15 > image->size - setup)
		return boot_bad(loader, "truncated: shorter than its Linux header says");
	if (kernel->size > image->size - setup)
		kernel->size = image->size - setup;
	kernel->data = image->data + setup;
	if (kernel->version >= 0x20c)
		kernel->entry64 = field(kernel->header, XLOADFLAGS, 2) & XLF_KERNEL_64;
	return 0;
}

/* Where a relocatable kernel that does not fit at its preferred address goes. */
static uint64_t lowest_address(const struct kernel *kernel)
{
	uint64_t alignment = field(kernel->header, KERNEL_ALIGNMENT, 4);
	unsigned least = kernel->header[MIN_ALIGNMENT];

	if (kernel->version >= 0x20a && least < 32 && 1ull << least < alignment)
		alignment = 1ull << least;
	return alignment > 0x100000 ? alignment : 0x100000;
}

static int choose_address(struct loader *loader, struct kernel *kernel)
{
	uint64_t memory = memory_low(loader->machine->config.memory);
	bool new = kernel->version >= 0x20a;

	kernel->address =
		new ? field(kernel->header, PREF_ADDRESS, 8) : field(kernel->header, CODE32_START, 4);
	kernel->room = new ? field(kernel->header, INIT_SIZE, 4) : kernel->size;
	if (kernel->room < kernel->size + (kernel->entry64 ? ENTRY_64 : 0))
		kernel->room = kernel->size + (kernel->entry64 ? ENTRY_64 : 0);
	if (kernel->header[RELOCATABLE] &&
	    (kernel->address > memory || kernel->room > memory - kernel->address))
		kernel->address = lowest_address(kernel);
	if (kernel->address < 0x100000)
		return boot_bad(loader, "a Linux kernel whose address lies below 1 MiB");
	if (kernel->address > memory || kernel->room > memory - kernel->address) {
		snprintf(loader->why, loader->size,
			 "not enough memory: the Linux kernel needs 0x%" PRIx64 " bytes at 0x%" PRIx64,
			 kernel->room, kernel->address);
		return -EINVAL;
	}
	return boot_place(loader, kernel->address, kernel->data, kernel->size, kernel->room);
}

/* ---- what the kernel is told ---- */

static int place_command_line(struct loader *loader, const struct kernel *kernel, uint8_t *zero_page)
{
	const char *text = loader->options->append ? loader->options->append : "";
	uint64_t limit = field(kernel->header, CMDLINE_SIZE, 4), length = strlen(text);

	if (limit > MEMORY_EBDA - COMMAND_LINE - 1)
		limit = MEMORY_EBDA - COMMAND_LINE - 1;
	if (length > limit) {
		snprintf(loader->why, loader->size,
			 "the command line is too long for this Linux kernel: %" PRIu64
			 " bytes, it takes %" PRIu64,
			 length, limit);
		return -EINVAL;
	}
	machine_write(loader->machine, COMMAND_LINE, text, length + 1);
	set(zero_page, CMD_LINE_PTR, 4, COMMAND_LINE);
	return 0;
}

/* As high as the kernel reaches, so that it does not lie in the way of what grows behind the kernel. */
static int place_initrd(struct loader *loader, const struct kernel *kernel, uint8_t *zero_page)
{
	uint64_t end = memory_low(loader->machine->config.memory);
	uint64_t limit = field(kernel->header, INITRD_ADDR_MAX, 4) + 1; /* its last byte may lie there */
	const struct boot_module *initrd = &loader->options->module[0];
	uint64_t size = loader->options->modules ? initrd->size : 0, first;

	if (loader->options->modules > 1)
		return boot_bad(loader, "Linux takes one initrd, and no other modules");
	if (size == 0)
		return 0;
	if (limit < end)
		end = limit;
	if (size > end || (first = (end - size) & ~PAGE_MASK) < loader->end)
		return boot_bad(loader, "not enough memory: the initrd does not fit above the Linux kernel");
	machine_write(loader->machine, first, initrd->data, size);
	set(zero_page, RAMDISK_IMAGE, 4, first);
	set(zero_page, RAMDISK_SIZE, 4, size);
	return 0;
}

static void describe_memory(struct loader *loader, uint8_t *zero_page)
{
	uint64_t memory = loader->machine->config.memory, above = (memory_low(memory) >> 10) - 1024;
	struct memory_range range[MEMORY_RANGES_MAX];
	unsigned count = memory_map(memory, loader->machine->rom_size, range);

	for (unsigned i = 0; i < count; i++) {
		struct e820_entry entry = {range[i].base, range[i].end - range[i].base, range[i].type};

		memcpy(zero_page + ZERO_E820_TABLE + i * sizeof(entry), &entry, sizeof(entry));
	}
	set(zero_page, ZERO_E820_ENTRIES, 1, count);
	set(zero_page, ZERO_EXT_MEM_K, 2, above < 0xfc00 ? above : 0xfc00);
	set(zero_page, ZERO_ALT_MEM_K, 4, above);
}

/* The same numbers in every run, so that a run can be repeated; nothing here is secret. */
static void place_random_seed(struct loader *loader, const struct kernel *kernel, uint8_t *zero_page)
{
	struct setup_data data = {.type = SETUP_RNG_SEED, .length = SEED_SIZE};
	uint64_t number = loader->options->seed;

	if (kernel->version < 0x209)
		return;
	for (unsigned i = 0; i < SEED_SIZE; i++) {
		number = number * 6364136223846793005u + 1442695040888963407u;
		data.data[i] = (uint8_t)(number >> 56);
	}
	machine_write(loader->machine, RANDOM_SEED, &data, sizeof(data));
	set(zero_page, SETUP_DATA, 8, RANDOM_SEED);
}

static int place_zero_page(struct loader *loader, const struct kernel *kernel)
{
	uint8_t zero_page[PAGE_SIZE] = {0};
	unsigned end = HEADER + kernel->header[JUMP_LENGTH]; /* the header ends where its jump goes */
	int error;

	if (end > HEADER_SPACE)
		end = HEADER_SPACE;
	memcpy(zero_page + SETUP_SECTS, kernel->header + SETUP_SECTS,
	       end > SETUP_SECTS ? end - SETUP_SECTS : 0);
	set(zero_page, TYPE_OF_LOADER, 1, LOADER_UNREGISTERED);
	zero_page[LOADFLAGS] |= CAN_USE_HEAP;
	set(zero_page, HEAP_END_PTR, 2, 0xfe00);
	set(zero_page, CODE32_START, 4, kernel->address);
	set(zero_page, RAMDISK_IMAGE, 8, 0);
	set(zero_page, SETUP_DATA, 8, 0);
	describe_memory(loader, zero_page);
	error = place_command_line(loader, kernel, zero_page);
	if (!error)
		error = place_initrd(loader, kernel, zero_page);
	if (error)
		return error;
	place_random_seed(loader, kernel, zero_page);
	machine_write(loader->machine, ZERO_PAGE, zero_page, sizeof(zero_page));
	return 0;
}

/* ---- the vCPU ---- */

enum { BOOT_CS = 0x10, BOOT_DS = 0x18, BOOT_TR = 0x20 };

/* The protocol wants the descriptors to be in memory, too. */
static void place_gdt(struct loader *loader, bool wide, struct vcpu_state *state)
{
	const uint64_t gdt[] = {
		0, 0, wide ? 0x00af9b000000ffff : 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00008b0000000067,
		0};

	machine_write(loader->machine, TABLES, gdt, sizeof(gdt));
	state->gdtr = (struct table_register){TABLES, sizeof(gdt) - 1};
	for (unsigned i = 0; i < SEGMENT_COUNT; i++)
		state->segment[i].selector = i == CS ? BOOT_CS : BOOT_DS;
	state->tr.selector = BOOT_TR;
}

/* The first 4 GiB one to one, by large pages. */
static void place_page_tables(struct loader *loader)
{
	uint64_t table[PAGE_SIZE / 8] = {PAGE_TABLES + PAGE_SIZE + (PTE_P | PTE_W)};

	machine_write(loader->machine, PAGE_TABLES, table, sizeof(table));
	for (unsigned i = 0; i < 4; i++)
		table[i] = PAGE_TABLES + (2 + i) * PAGE_SIZE + (PTE_P | PTE_W);
	machine_write(loader->machine, PAGE_TABLES + PAGE_SIZE, table, sizeof(table));
	for (unsigned i = 0; i < 4; i++) {
		for (unsigned j = 0; j < PAGE_SIZE / 8; j++)
			table[j] = ((uint64_t)i << 30 | (uint64_t)j << 21) + (PTE_P | PTE_W | PTE_PS);
		machine_write(loader->machine, PAGE_TABLES + (2 + i) * PAGE_SIZE, table, sizeof(table));
	}
}

static int enter(struct loader *loader, const struct kernel *kernel)
{
	struct vcpu_state state;

	boot_flat_state(loader, &state);
	place_gdt(loader, kernel->entry64, &state);
	state.gpr[RSI] = ZERO_PAGE;
	state.rip = kernel->address;
	if (kernel->entry64) {
		place_page_tables(loader);
		state.rip += ENTRY_64;
		state.segment[CS].attributes = (state.segment[CS].attributes & ~SEG_DB) | SEG_L;
		state.cr3 = PAGE_TABLES;
		state.cr4 = CR4_PAE;
		state.efer = EFER_LME | EFER_LMA;
		state.cr0 |= CR0_PG;
	}
	return boot_enter(loader, &state);
}

int boot_linux(struct loader *loader)
{
	struct kernel kernel;
	int error = read_header(loader, &kernel);

	if (!error)
		error = choose_address(loader, &kernel);
	if (!error)
		error = place_zero_page(loader, &kernel);
	return error ? error : enter(loader, &kernel);
}
