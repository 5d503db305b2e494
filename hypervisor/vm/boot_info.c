#include "vm/boot_info.h"

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

/* Multiboot: "NAME ARGUMENTS", where a name is one word; PVH: ARGUMENTS alone. */
static size_t line_size(bool pvh, const char *path, const char *arguments)
{
	size_t name = pvh ? 0 : strlen(base_name(path));

	return name + (name && *arguments) + strlen(arguments) + 1;
}

static char *make_line(char *to, bool pvh, const char *path, const char *arguments)
{
	if (!pvh) {
		for (const char *name = base_name(path); *name; name++)
			*to++ = *name == ' ' ? '_' : *name;
		if (*base_name(path) && *arguments)
			*to++ = ' ';
	}
	return stpcpy(to, arguments) + 1;
}

size_t boot_info_text_size(const struct boot_info_request *request)
{
	size_t size = line_size(request->pvh, request->image, request->append);

	for (unsigned i = 0; i < request->modules; i++)
		size += line_size(request->pvh, request->module[i].name, request->module[i].arguments);
	return size;
}

void boot_info_text(const struct boot_info_request *request, char *to)
{
	to = make_line(to, request->pvh, request->image, request->append);
	for (unsigned i = 0; i < request->modules; i++)
		to = make_line(to, request->pvh, request->module[i].name, request->module[i].arguments);
}

/* Where the line of module @index lies; that of the image lies before them all. */
static uint32_t line_of(const struct boot_info_request *request, unsigned index)
{
	struct boot_info_request before = *request;

	before.modules = index;
	return request->text + (uint32_t)boot_info_text_size(&before);
}

#define ADDRESS(pointer) (request->address + (uint32_t)((uint8_t *)(pointer)-info))

static void make_multiboot(uint8_t *info, const struct boot_info_request *request)
{
	struct multiboot_info *to = (struct multiboot_info *)info;
	struct multiboot_module *module = (struct multiboot_module *)(to + 1);
	struct multiboot_mmap *mmap = (struct multiboot_mmap *)(module + BOOT_MODULES_MAX);
	char *name = (char *)(mmap + MEMORY_RANGES_MAX);
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
	if (request->modules == 0)
		return;
	to->flags |= MULTIBOOT_INFO_MODULES;
	to->mods_count = request->modules;
	to->mods_addr = ADDRESS(module);
	for (unsigned i = 0; i < request->modules; i++) {
		const struct boot_info_module *from = &request->module[i];

		module[i].start = from->address;
		module[i].end = (uint32_t)(from->address + from->size);
		module[i].string = line_of(request, i);
	}
}

static void make_start_info(uint8_t *info, const struct boot_info_request *request)
{
	struct start_info *to = (struct start_info *)info;
	struct start_info_module *module = (struct start_info_module *)(to + 1);
	struct start_info_memmap *map = (struct start_info_memmap *)(module + BOOT_MODULES_MAX);
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
	if (request->modules == 0)
		return;
	to->nr_modules = request->modules;
	to->modlist = ADDRESS(module);
	for (unsigned i = 0; i < request->modules; i++) {
		module[i].address = request->module[i].address;
		module[i].size = request->module[i].size;
		module[i].cmdline = line_of(request, i);
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
