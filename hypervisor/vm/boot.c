#include "vm/boot.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vm/boot_info.h"
#include "vm/boot_internal.h"
#include "x86/boot_protocol.h"
#include "x86/descriptors.h"
#include "x86/paging.h"

#define ROM_SOCKET (256u << 10)

/* Where the information goes, unless the image has the page itself. */
#define INFO_PAGE 0x9000u

int boot_bad(struct loader *loader, const char *what)
{
	snprintf(loader->why, loader->size, "%s", what);
	return -EINVAL;
}

int boot_place(struct loader *loader, uint64_t address, const void *data, uint64_t file_size, uint64_t size)
{
	uint64_t memory = memory_low(loader->machine->config.memory);

	if (address > memory || size > memory - address) {
		snprintf(loader->why, loader->size,
			 "a segment lies outside memory: 0x%" PRIx64 " bytes at 0x%" PRIx64
			 ", memory ends at 0x%" PRIx64,
			 size, address, memory);
		return -EINVAL;
	}
	/* Memory is zeros already, so that the rest of the segment needs nothing. */
	if (file_size && !machine_write(loader->machine, address, data, file_size))
		return boot_bad(loader, "a segment lies outside memory");
	if (address + size > loader->end)
		loader->end = address + size;
	if (address < INFO_PAGE + BOOT_INFO_SIZE && address + size > INFO_PAGE)
		loader->low_used = true;
	return 0;
}

/* ---- segments ---- */

static int load_segments(struct loader *loader)
{
	const struct image *image = loader->image;

	if (image->segment_count == 0)
		return boot_bad(loader, "an ELF file without segments to load");
	for (unsigned i = 0; i < image->segment_count; i++) {
		const struct image_segment *s = &image->segment[i];
		int error = boot_place(loader, s->address, image->data + s->offset, s->file_size, s->size);

		if (error)
			return error;
	}
	return 0;
}

static int check_entry(struct loader *loader, uint64_t entry)
{
	if (entry >= memory_low(loader->machine->config.memory))
		return boot_bad(loader, "its entry point lies outside memory");
	return 0;
}

/* ---- what the guest is told ---- */

static uint64_t page_up(uint64_t address) { return (address + PAGE_MASK) & ~PAGE_MASK; }

/* Where each module goes: behind @end, on a page of its own. False where memory ends before. */
static bool lay_out_modules(const struct boot_options *options, uint64_t memory, uint64_t end,
			    struct boot_info_request *request)
{
	for (unsigned i = 0; i < options->modules; i++) {
		const struct boot_module *module = &options->module[i];
		uint64_t start = page_up(end);

		if (start > memory || module->size > memory - start)
			return false;
		request->module[i].address = (uint32_t)start;
		end = start + module->size;
	}
	return end <= memory;
}

static void describe_modules(const struct boot_options *options, struct boot_info_request *request)
{
	request->modules = options->modules;
	for (unsigned i = 0; i < options->modules; i++) {
		const struct boot_module *module = &options->module[i];

		request->module[i].size = module->size;
		request->module[i].name = module->name ? module->name : "";
		request->module[i].arguments = module->arguments ? module->arguments : "";
	}
}

/* Puts information, command lines and modules into memory: the first below 1 MiB, the rest behind the image.
 */
static int place_info(struct loader *loader, bool pvh, uint32_t *address)
{
	const struct boot_options *options = loader->options;
	struct machine *machine = loader->machine;
	struct boot_info_request request = {
		.pvh = pvh,
		.image = loader->image->path,
		.append = options->append ? options->append : "",
		.memory = machine->config.memory,
		.rom = machine->rom_size,
		.rsdp = ACPI_BASE,
	};
	uint64_t base = page_up(loader->end), text = base + (loader->low_used ? BOOT_INFO_SIZE : 0);
	uint8_t info[BOOT_INFO_SIZE];
	char *lines;

	describe_modules(options, &request);
	if (!lay_out_modules(options, memory_low(request.memory), text + boot_info_text_size(&request),
			     &request))
		return boot_bad(loader,
				"command line, initrd and modules do not fit into memory behind the image");
	lines = malloc(boot_info_text_size(&request));
	if (!lines)
		return -ENOMEM;
	request.address = loader->low_used ? (uint32_t)base : INFO_PAGE;
	request.text = (uint32_t)text;
	boot_info_make(&request, info);
	boot_info_text(&request, lines);
	machine_write(machine, request.address, info, sizeof(info));
	machine_write(machine, text, lines, boot_info_text_size(&request));
	for (unsigned i = 0; i < request.modules; i++)
		machine_write(machine, request.module[i].address, options->module[i].data,
			      request.module[i].size);
	free(lines);
	*address = request.address;
	return 0;
}

/* ---- the vCPU ---- */

void boot_flat_state(struct loader *loader, struct vcpu_state *state)
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

	ops->vcpu_save(machine->vcpu, state);
	for (unsigned i = 0; i < SEGMENT_COUNT; i++)
		state->segment[i] = i == CS ? code : data;
	state->tr = task;
	state->cr0 = CR0_PE | CR0_ET;
	state->cr4 = 0;
	state->efer = 0;
	state->rflags = RFLAGS_FIXED;
	memset(state->gpr, 0, sizeof(state->gpr));
}

int boot_enter(struct loader *loader, const struct vcpu_state *state)
{
	struct engine *engine = loader->machine->engine;
	int error = engine->ops->vcpu_load(loader->machine->vcpu, state);

	return error ? boot_bad(loader, engine->ops->failure(engine)) : 0;
}

static int enter_flat(struct loader *loader, uint64_t entry, uint32_t eax, uint32_t ebx)
{
	struct vcpu_state state;

	boot_flat_state(loader, &state);
	state.gpr[RAX] = eax;
	state.gpr[RBX] = ebx;
	state.rip = entry;
	return boot_enter(loader, &state);
}

/* ---- the kinds ---- */

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
		return boot_bad(loader, "a multiboot header whose load address lies before the file");
	length = loader->image->size - start;
	if (header->load_end_addr) {
		if (header->load_end_addr < header->load_addr)
			return boot_bad(loader, "a multiboot header whose load addresses are out of order");
		if (header->load_end_addr - header->load_addr > length)
			return boot_bad(loader, "truncated: shorter than its multiboot header says");
		length = header->load_end_addr - header->load_addr;
	}
	total = length;
	if (header->bss_end_addr) {
		if (header->bss_end_addr < header->load_addr + length)
			return boot_bad(loader, "a multiboot header whose BSS ends before its data");
		total = header->bss_end_addr - header->load_addr;
	}
	return boot_place(loader, header->load_addr, loader->image->data + start, length, total);
}

static int boot_multiboot(struct loader *loader, const struct multiboot_header *header, size_t offset)
{
	bool addresses = header->flags & MULTIBOOT_ADDRESSES;
	uint64_t entry = addresses ? header->entry_addr : loader->image->entry;
	uint32_t info;
	int error;

	if (header->flags & MULTIBOOT_REQUIRED & ~(MULTIBOOT_PAGE_ALIGN | MULTIBOOT_MEMORY_INFO))
		return boot_bad(loader, "its multiboot header asks for something that is not offered");
	if (!addresses && loader->image->kind == IMAGE_FLAT)
		return boot_bad(loader, "a multiboot header without load addresses, and no ELF file");
	error = addresses ? load_by_header(loader, header, offset) : load_segments(loader);
	if (!error)
		error = check_entry(loader, entry);
	if (!error)
		error = place_info(loader, false, &info);
	return error ? error : enter_flat(loader, entry, MULTIBOOT_LOADED, info);
}

/* The socket takes at least 256 KiB: a smaller chip leaves the bottom of it empty. */
static int add_rom(struct loader *loader)
{
	const struct image *image = loader->image;
	size_t size = image->size < ROM_SOCKET ? ROM_SOCKET : image->size;
	uint8_t *whole = malloc(size);
	int error = -ENOMEM;

	if (whole) {
		memset(whole, 0xff, size - image->size);
		memcpy(whole + (size - image->size), image->data, image->size);
		error = machine_add_rom(loader->machine, whole, size);
	}
	free(whole);
	return error;
}

/* The last 128 KiB are seen below 1 MiB as well, where real mode can reach them. */
static int boot_rom(struct loader *loader)
{
	const struct image *image = loader->image;
	size_t low = image->size < 0x20000 ? image->size : 0x20000;
	int error;

	if (image->size % PAGE_SIZE || image->size > ROM_MAX)
		return boot_bad(loader,
				"no ELF file, no multiboot image, and no ROM (whole pages, at most 16 MiB)");
	if (loader->options->append || loader->options->modules)
		return boot_bad(loader, "a ROM takes no command line and no initrd");
	error = add_rom(loader);
	if (error)
		return error;
	machine_write(loader->machine, 0x100000 - low, image->data + image->size - low, low);
	return 0; /* the vCPU is in its reset state already */
}

/* What a guest finds without firmware that would have put it there. Before the image, whose own memory it is.
 */
static int place_platform(struct loader *loader)
{
	const struct boot_options *options = loader->options;
	const struct platform_boot boot = {.kernel = loader->image->data,
					   .kernel_size = loader->image->size,
					   .initrd = options->modules ? options->module[0].data : NULL,
					   .initrd_size = options->modules ? options->module[0].size : 0,
					   .append = options->append};

	platform_place_tables(&loader->machine->platform);
	boot_place_firmware(loader->machine);
	machine_firmware(loader->machine);
	return platform_describe_boot(&loader->machine->platform, &boot);
}

/* A ROM may bring a multiboot header for others to load it by, where ROMs are. */
static bool is_header_of_rom(const struct image *image, const struct multiboot_header *header)
{
	return image->kind == IMAGE_FLAT && (header->flags & MULTIBOOT_ADDRESSES) && image->size <= ROM_MAX &&
	       image->size % PAGE_SIZE == 0 && header->load_addr >= MEMORY_LOW_MAX;
}

int boot_image(struct machine *machine, const struct image *image, const struct boot_options *options,
	       char *why, size_t size)
{
	struct loader loader = {
		.machine = machine, .image = image, .options = options, .why = why, .size = size};
	struct multiboot_header header;
	size_t offset = 0;
	bool multiboot = find_multiboot(image, &header, &offset) && !is_header_of_rom(image, &header);
	bool is_linux = boot_is_linux(image);
	/* A ROM is the firmware, and finds the machine as reset leaves it. */
	bool rom = image->kind == IMAGE_FLAT && !is_linux && !multiboot && !image->has_pvh;
	int error = rom ? 0 : place_platform(&loader);

	if (error) {
		snprintf(why, size, "%s", strerror(-error));
		return error;
	}
	if (is_linux)
		error = boot_linux(&loader);
	else if (multiboot)
		error = boot_multiboot(&loader, &header, offset);
	else if (image->has_pvh)
		error = boot_pvh(&loader);
	else if (!rom)
		error = boot_bad(&loader, "an ELF file with neither a PVH note nor a multiboot header");
	else
		error = boot_rom(&loader);
	if (error && error != -EINVAL)
		snprintf(why, size, "%s", strerror(-error));
	return error;
}
