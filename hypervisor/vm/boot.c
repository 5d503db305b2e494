#include "vm/boot.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vm/boot_info.h"
#include "x86/descriptors.h"
#include "x86/paging.h"

#define MULTIBOOT_SEARCH      8192u
#define MULTIBOOT_MAGIC       0x1badb002u
#define MULTIBOOT_LOADED      0x2badb002u
#define MULTIBOOT_PAGE_ALIGN  (1u << 0)
#define MULTIBOOT_MEMORY_INFO (1u << 1)
#define MULTIBOOT_ADDRESSES   (1u << 16)
#define MULTIBOOT_REQUIRED    0xffffu

struct multiboot_header {
	uint32_t magic, flags, checksum;
	uint32_t header_addr, load_addr, load_end_addr, bss_end_addr, entry_addr;
};

struct loader {
	struct machine *machine;
	const struct image *image;
	const struct boot_options *options;
	uint64_t end; /* of what has been loaded */
	char *why;
	size_t size;
};

static int bad(struct loader *loader, const char *what)
{
	snprintf(loader->why, loader->size, "%s", what);
	return -EINVAL;
}

/* ---- segments ---- */

static int load(struct loader *loader, uint64_t address, uint64_t offset, uint64_t file_size, uint64_t size)
{
	uint64_t memory = loader->machine->config.memory;

	if (address > memory || size > memory - address) {
		snprintf(loader->why, loader->size,
			 "a segment lies outside memory: 0x%" PRIx64 " bytes at 0x%" PRIx64
			 ", memory ends at 0x%" PRIx64,
			 size, address, memory);
		return -EINVAL;
	}
	/* Memory is zeros already, so that the rest of the segment needs nothing. */
	if (file_size && !machine_write(loader->machine, address, loader->image->data + offset, file_size))
		return bad(loader, "a segment lies outside memory");
	if (address + size > loader->end)
		loader->end = address + size;
	return 0;
}

static int load_segments(struct loader *loader)
{
	const struct image *image = loader->image;

	if (image->segment_count == 0)
		return bad(loader, "an ELF file without segments to load");
	for (unsigned i = 0; i < image->segment_count; i++) {
		const struct image_segment *s = &image->segment[i];
		int error = load(loader, s->address, s->offset, s->file_size, s->size);

		if (error)
			return error;
	}
	return 0;
}

static int check_entry(struct loader *loader, uint64_t entry)
{
	if (entry >= loader->machine->config.memory)
		return bad(loader, "its entry point lies outside memory");
	return 0;
}

/* ---- what the guest is told ---- */

/* Puts @info, made for an address behind the image, and the initrd into memory. */
static int place_info(struct loader *loader, bool pvh, uint32_t *address)
{
	struct boot_info_request request = {
		.pvh = pvh,
		.image = loader->image->path,
		.append = loader->options->append ? loader->options->append : "",
		.memory = loader->machine->config.memory,
		.rom = loader->machine->rom_size,
		.initrd_size = loader->options->initrd_size,
	};
	uint64_t base = (loader->end + PAGE_MASK) & ~PAGE_MASK;
	struct boot_info info;
	int error;

	if (base + boot_info_room(&request) > request.memory ||
	    request.initrd_size > request.memory - base - boot_info_room(&request))
		return bad(loader, "command line and initrd do not fit into memory behind the image");
	request.address = (uint32_t)base;
	error = boot_info_make(&info, &request);
	if (error)
		return error;
	machine_write(loader->machine, base, info.data, info.size);
	free(info.data);
	if (request.initrd_size)
		machine_write(loader->machine, info.initrd, loader->options->initrd, request.initrd_size);
	*address = (uint32_t)base;
	return 0;
}

/* ---- the vCPU ---- */

/* 32-bit flat protected mode, paging off, as both contracts say. */
static int enter_flat(struct loader *loader, uint64_t entry, uint32_t eax, uint32_t ebx)
{
	static const struct segment code = {.limit = UINT32_MAX,
					    .selector = 0x08,
					    .attributes = SEG_CODE | SEG_READABLE | SEG_ACCESSED | SEG_S |
							  SEG_P | SEG_DB | SEG_G};
	static const struct segment data = {.limit = UINT32_MAX,
					    .selector = 0x10,
					    .attributes = SEG_WRITABLE | SEG_ACCESSED | SEG_S | SEG_P |
							  SEG_DB | SEG_G};
	static const struct segment task = {.limit = TSS32_SIZE - 1, .attributes = TYPE_TSS_BUSY | SEG_P};
	struct machine *machine = loader->machine;
	const struct engine_ops *ops = machine->engine->ops;
	struct vcpu_state state;

	ops->vcpu_save(machine->vcpu, &state);
	for (unsigned i = 0; i < SEGMENT_COUNT; i++)
		state.segment[i] = i == CS ? code : data;
	state.tr = task;
	state.cr0 = CR0_PE | CR0_ET;
	state.cr4 = 0;
	state.rflags = RFLAGS_FIXED;
	memset(state.gpr, 0, sizeof(state.gpr));
	state.gpr[RAX] = eax;
	state.gpr[RBX] = ebx;
	state.rip = entry;
	return ops->vcpu_load(machine->vcpu, &state);
}

/* ---- the three kinds ---- */

static int boot_pvh(struct loader *loader)
{
	uint32_t info;
	int error = load_segments(loader);

	if (!error)
		error = check_entry(loader, loader->image->pvh_entry);
	if (!error)
		error = place_info(loader, true, &info);
	return error ? error : enter_flat(loader, loader->image->pvh_entry, 0, info);
}

static bool find_multiboot(const struct image *image, struct multiboot_header *header, size_t *offset)
{
	size_t limit = image->size < MULTIBOOT_SEARCH ? image->size : MULTIBOOT_SEARCH;

	for (size_t at = 0; at + 12 <= limit; at += 4) {
		size_t whole = image->size - at < sizeof(*header) ? image->size - at : sizeof(*header);

		*header = (struct multiboot_header){0};
		memcpy(header, image->data + at, whole);
		if (header->magic != MULTIBOOT_MAGIC || header->magic + header->flags + header->checksum != 0)
			continue;
		/* The address fields, where the flags promise them, must be in the file as well. */
		if ((header->flags & MULTIBOOT_ADDRESSES) && whole < sizeof(*header))
			continue;
		*offset = at;
		return true;
	}
	return false;
}

static int load_by_header(struct loader *loader, const struct multiboot_header *header, size_t offset)
{
	uint64_t before = header->header_addr - header->load_addr;
	uint64_t start = offset - before, length, total;

	if (header->load_addr > header->header_addr || before > offset)
		return bad(loader, "a multiboot header whose load address lies before the file");
	length = loader->image->size - start;
	if (header->load_end_addr) {
		if (header->load_end_addr < header->load_addr)
			return bad(loader, "a multiboot header whose load addresses are out of order");
		if (header->load_end_addr - header->load_addr > length)
			return bad(loader, "truncated: shorter than its multiboot header says");
		length = header->load_end_addr - header->load_addr;
	}
	total = length;
	if (header->bss_end_addr) {
		if (header->bss_end_addr < header->load_addr + length)
			return bad(loader, "a multiboot header whose BSS ends before its data");
		total = header->bss_end_addr - header->load_addr;
	}
	return load(loader, header->load_addr, start, length, total);
}

static int boot_multiboot(struct loader *loader, const struct multiboot_header *header, size_t offset)
{
	bool addresses = header->flags & MULTIBOOT_ADDRESSES;
	uint64_t entry = addresses ? header->entry_addr : loader->image->entry;
	uint32_t info;
	int error;

	if (header->flags & MULTIBOOT_REQUIRED & ~(MULTIBOOT_PAGE_ALIGN | MULTIBOOT_MEMORY_INFO))
		return bad(loader, "its multiboot header asks for something that is not offered");
	if (!addresses && loader->image->kind == IMAGE_FLAT)
		return bad(loader, "a multiboot header without load addresses, and no ELF file");
	error = addresses ? load_by_header(loader, header, offset) : load_segments(loader);
	if (!error)
		error = check_entry(loader, entry);
	if (!error)
		error = place_info(loader, false, &info);
	return error ? error : enter_flat(loader, entry, MULTIBOOT_LOADED, info);
}

/* The last 128 KiB are seen below 1 MiB as well, where real mode can reach them. */
static int boot_rom(struct loader *loader)
{
	const struct image *image = loader->image;
	size_t low = image->size < 0x20000 ? image->size : 0x20000;
	int error;

	if (image->size % PAGE_SIZE || image->size > ROM_MAX)
		return bad(loader,
			   "no ELF file, no multiboot image, and no ROM (whole pages, at most 16 MiB)");
	if (loader->options->append || loader->options->initrd_size)
		return bad(loader, "a ROM takes no command line and no initrd");
	error = machine_add_rom(loader->machine, image->data, image->size);
	if (error)
		return error;
	machine_write(loader->machine, 0x100000 - low, image->data + image->size - low, low);
	return 0; /* the vCPU is in its reset state already */
}

int boot_image(struct machine *machine, const struct image *image, const struct boot_options *options,
	       char *why, size_t size)
{
	struct loader loader = {
		.machine = machine, .image = image, .options = options, .why = why, .size = size};
	struct multiboot_header header;
	size_t offset;
	int error;

	if (image->has_pvh)
		error = boot_pvh(&loader);
	else if (find_multiboot(image, &header, &offset))
		error = boot_multiboot(&loader, &header, offset);
	else if (image->kind != IMAGE_FLAT)
		error = bad(&loader, "an ELF file with neither a PVH note nor a multiboot header");
	else
		error = boot_rom(&loader);
	if (error && error != -EINVAL)
		snprintf(why, size, "%s", strerror(-error));
	return error;
}
