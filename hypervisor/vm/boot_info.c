#include "vm/boot_info.h"

#include <stdio.h>
#include <string.h>

#include "vm/memory_map.h"
#include "x86/boot_protocol.h"

static const char loader_name[] = "visor";

/* The file's name, without its folders. */
static const char *base_name(const char *path)
{
	const char *name = strrchr(path, '/');

	return name ? name + 1 : path;
}

size_t boot_info_text_size(const struct boot_info_request *request)
{
	return strlen(base_name(request->image)) + 1 + strlen(request->append) + 1;
}

/* Multiboot: "NAME APPEND", where a name is one word; PVH: APPEND alone. */
void boot_info_text(const struct boot_info_request *request, char *to)
{
	if (!request->pvh) {
		for (const char *name = base_name(request->image); *name; name++)
			*to++ = *name == ' ' ? '_' : *name;
		if (*request->append)
			*to++ = ' ';
	}
	strcpy(to, request->append);
}

#define ADDRESS(pointer) (request->address + (uint32_t)((uint8_t *)(pointer)-info))

static void make_multiboot(uint8_t *info, const struct boot_info_request *request)
{
	struct multiboot_info *to = (struct multiboot_info *)info;
	struct multiboot_module *module = (struct multiboot_module *)(to + 1);
	struct multiboot_mmap *mmap = (struct multiboot_mmap *)(module + 2);
	char *name = (char *)(mmap + MEMORY_RANGES_MAX), *string = name + sizeof(loader_name);
	struct memory_range range[MEMORY_RANGES_MAX];
	unsigned count = memory_map(request->memory, request->rom, range);

	to->flags =
		MULTIBOOT_INFO_MEMORY | MULTIBOOT_INFO_CMDLINE | MULTIBOOT_INFO_MMAP | MULTIBOOT_INFO_LOADER;
	to->mem_lower = MEMORY_EBDA >> 10;
	to->mem_upper = (uint32_t)((memory_low(request->memory) >> 10) - 1024);
	to->cmdline = request->text;
	to->mmap_addr = ADDRESS(mmap);
	to->mmap_length = count * (uint32_t)sizeof(*mmap);
	to->boot_loader_name = ADDRESS(name);
	memcpy(name, loader_name, sizeof(loader_name));
	for (unsigned i = 0; i < count; i++)
		mmap[i] = (struct multiboot_mmap){sizeof(*mmap) - sizeof(mmap->size), range[i].base,
						  range[i].end - range[i].base, range[i].type};
	if (request->initrd_size) {
		to->flags |= MULTIBOOT_INFO_MODULES;
		to->mods_count = 1;
		to->mods_addr = ADDRESS(module);
		module->start = request->initrd;
		module->end = (uint32_t)(request->initrd + request->initrd_size);
		module->string = ADDRESS(string);
		snprintf(string, BOOT_INFO_SIZE - (size_t)((uint8_t *)string - info), "%s",
			 base_name(request->initrd_name));
	}
	if (request->second_size) {
		to->mods_count = 2;
		module[1].start = request->second;
		module[1].end = (uint32_t)(request->second + request->second_size);
	}
}

static void make_start_info(uint8_t *info, const struct boot_info_request *request)
{
	struct start_info *to = (struct start_info *)info;
	struct start_info_module *module = (struct start_info_module *)(to + 1);
	struct start_info_memmap *map = (struct start_info_memmap *)(module + 2);
	struct memory_range range[MEMORY_RANGES_MAX];

	to->magic = START_INFO_MAGIC;
	to->version = 1;
	to->cmdline = request->text;
	to->rsdp = request->rsdp;
	to->memmap = ADDRESS(map);
	to->memmap_entries = memory_map(request->memory, request->rom, range);
	for (unsigned i = 0; i < to->memmap_entries; i++)
		map[i] = (struct start_info_memmap){range[i].base, range[i].end - range[i].base,
						    range[i].type, 0};
	if (request->initrd_size) {
		to->nr_modules = 1;
		to->modlist = ADDRESS(module);
		module->address = request->initrd;
		module->size = request->initrd_size;
	}
	if (request->second_size) {
		to->nr_modules = 2;
		module[1].address = request->second;
		module[1].size = request->second_size;
	}
}

void boot_info_make(const struct boot_info_request *request, uint8_t info[BOOT_INFO_SIZE])
{
	memset(info, 0, BOOT_INFO_SIZE);
	if (request->pvh)
		make_start_info(info, request);
	else
		make_multiboot(info, request);
}
