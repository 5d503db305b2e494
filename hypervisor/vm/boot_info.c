#include "vm/boot_info.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "x86/paging.h"

/* Multiboot 0.6.96, section 3.3. */
struct multiboot_info {
	uint32_t flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods_addr;
	uint32_t syms[4], mmap_length, mmap_addr, drives_length, drives_addr, config_table, boot_loader_name;
	uint32_t apm_table, vbe[4];
};
#define INFO_MEMORY  (1u << 0)
#define INFO_CMDLINE (1u << 2)
#define INFO_MODULES (1u << 3)
#define INFO_MMAP    (1u << 6)
#define INFO_LOADER  (1u << 9)
struct multiboot_module {
	uint32_t start, end, string, reserved;
};
struct multiboot_mmap {
	uint32_t size; /* of the rest */
	uint64_t base, length;
	uint32_t type;
} __attribute__((packed));

/* Xen's public/arch-x86/hvm/start_info.h, version 1. */
struct start_info {
	uint32_t magic, version, flags, nr_modules;
	uint64_t modlist, cmdline, rsdp, memmap;
	uint32_t memmap_entries, reserved;
};
#define START_INFO_MAGIC 0x336ec578u
struct start_info_module {
	uint64_t address, size, cmdline, reserved;
};
struct start_info_memmap {
	uint64_t base, length;
	uint32_t type, reserved;
};

/* The same numbers in both. */
enum { MEMORY_RAM = 1, MEMORY_RESERVED = 2 };

#define RANGES_MAX 5
struct range {
	uint64_t base, end;
	uint32_t type;
};

/* A PC's memory: the last KiB below 640 KiB and the last 64 KiB below 1 MiB are the firmware's. */
static unsigned memory_map(const struct boot_info_request *request, struct range range[RANGES_MAX])
{
	unsigned count = 0;

	range[count++] = (struct range){0, 0x9fc00, MEMORY_RAM};
	range[count++] = (struct range){0x9fc00, 0xa0000, MEMORY_RESERVED};
	range[count++] = (struct range){0xf0000, 0x100000, MEMORY_RESERVED};
	range[count++] = (struct range){0x100000, request->memory, MEMORY_RAM};
	if (request->rom)
		range[count++] = (struct range){(1ull << 32) - request->rom, 1ull << 32, MEMORY_RESERVED};
	return count;
}

/* One page for the structures, then the text. */
#define TEXT_OFFSET PAGE_SIZE
static const char loader_name[] = "visor";

static size_t text_size(const struct boot_info_request *request)
{
	const char *name = strrchr(request->image, '/');

	name = name ? name + 1 : request->image;
	return strlen(name) + 1 + strlen(request->append) + 1;
}

uint64_t boot_info_room(const struct boot_info_request *request)
{
	return (TEXT_OFFSET + text_size(request) + PAGE_MASK) & ~PAGE_MASK;
}

/* Multiboot: "NAME APPEND", where a name is one word; PVH: APPEND alone. */
static void write_text(char *to, const struct boot_info_request *request)
{
	const char *name = strrchr(request->image, '/');

	if (request->pvh) {
		strcpy(to, request->append);
		return;
	}
	for (name = name ? name + 1 : request->image; *name; name++)
		*to++ = *name == ' ' ? '_' : *name;
	if (*request->append)
		*to++ = ' ';
	strcpy(to, request->append);
}

static void make_multiboot(struct boot_info *info, const struct boot_info_request *request)
{
	struct multiboot_info *to = (struct multiboot_info *)info->data;
	struct multiboot_module *module = (struct multiboot_module *)(to + 1);
	struct multiboot_mmap *mmap = (struct multiboot_mmap *)(module + 1);
	struct range range[RANGES_MAX];
	unsigned count = memory_map(request, range);
	char *name = (char *)(mmap + RANGES_MAX);

#define ADDRESS(pointer) (request->address + (uint32_t)((uint8_t *)(pointer)-info->data))
	to->flags = INFO_MEMORY | INFO_CMDLINE | INFO_MMAP | INFO_LOADER;
	to->mem_lower = 639;
	to->mem_upper = (uint32_t)((request->memory >> 10) - 1024);
	to->cmdline = request->address + TEXT_OFFSET;
	to->mmap_addr = ADDRESS(mmap);
	to->mmap_length = count * (uint32_t)sizeof(*mmap);
	to->boot_loader_name = ADDRESS(name);
	memcpy(name, loader_name, sizeof(loader_name));
	for (unsigned i = 0; i < count; i++)
		mmap[i] = (struct multiboot_mmap){sizeof(*mmap) - sizeof(mmap->size), range[i].base,
						  range[i].end - range[i].base, range[i].type};
	if (request->initrd_size) {
		to->flags |= INFO_MODULES;
		to->mods_count = 1;
		to->mods_addr = ADDRESS(module);
		module->start = (uint32_t)info->initrd;
		module->end = (uint32_t)(info->initrd + request->initrd_size);
		module->string = ADDRESS(name);
	}
}

static void make_start_info(struct boot_info *info, const struct boot_info_request *request)
{
	struct start_info *to = (struct start_info *)info->data;
	struct start_info_module *module = (struct start_info_module *)(to + 1);
	struct start_info_memmap *map = (struct start_info_memmap *)(module + 1);
	struct range range[RANGES_MAX];

	to->magic = START_INFO_MAGIC;
	to->version = 1;
	to->cmdline = request->address + TEXT_OFFSET;
	to->memmap = ADDRESS(map);
	to->memmap_entries = memory_map(request, range);
	for (unsigned i = 0; i < to->memmap_entries; i++)
		map[i] = (struct start_info_memmap){range[i].base, range[i].end - range[i].base,
						    range[i].type, 0};
	if (request->initrd_size) {
		to->nr_modules = 1;
		to->modlist = ADDRESS(module);
		module->address = info->initrd;
		module->size = request->initrd_size;
	}
#undef ADDRESS
}

int boot_info_make(struct boot_info *info, const struct boot_info_request *request)
{
	info->size = boot_info_room(request);
	info->initrd = request->address + info->size;
	info->data = calloc(1, info->size);
	if (!info->data)
		return -ENOMEM;
	write_text((char *)info->data + TEXT_OFFSET, request);
	if (request->pvh)
		make_start_info(info, request);
	else
		make_multiboot(info, request);
	return 0;
}
