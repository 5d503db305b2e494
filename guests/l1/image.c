/* image.c: a guest's ELF file, 32 or 64 bits, with a multiboot1 header or a PVH note. */
#include "l1/l1.h"
#include "x86/boot_protocol.h"

#define PT_LOAD           1u
#define PT_NOTE           4u
#define NOTE_PHYS32_ENTRY 18u
#define FIRST_ADDRESS     0x1000u

struct elf32 {
	uint8_t ident[16];
	uint16_t type, machine;
	uint32_t version, entry, phoff, shoff, flags;
	uint16_t ehsize, phentsize, phnum;
};
struct elf64 {
	uint8_t ident[16];
	uint16_t type, machine;
	uint32_t version;
	uint64_t entry, phoff, shoff;
	uint32_t flags;
	uint16_t ehsize, phentsize, phnum;
};
struct program32 {
	uint32_t type, offset, vaddr, paddr, filesz, memsz, flags, align;
};
struct program64 {
	uint32_t type, flags;
	uint64_t offset, vaddr, paddr, filesz, memsz, align;
};
struct segment {
	uint32_t type;
	uint64_t offset, vaddr, address, file_size, size;
};

struct image {
	const uint8_t *file;
	uint64_t size;
	bool wide;
};

static unsigned segments(const struct image *image)
{
	return image->wide ? ((const struct elf64 *)(const void *)image->file)->phnum
			   : ((const struct elf32 *)(const void *)image->file)->phnum;
}

static struct segment segment_of(const struct image *image, unsigned n)
{
	const struct elf64 *elf64 = (const void *)image->file;
	const struct elf32 *elf32 = (const void *)image->file;
	uint64_t at = image->wide ? elf64->phoff + n * (uint64_t)elf64->phentsize
				  : elf32->phoff + n * (uint64_t)elf32->phentsize;
	struct segment s;

	if (at > image->size || image->size - at < sizeof(struct program64))
		l1_refuse("the guest's program headers lie outside of its file");
	if (image->wide) {
		const struct program64 *p = (const void *)(image->file + at);

		s = (struct segment){p->type, p->offset, p->vaddr, p->paddr, p->filesz, p->memsz};
	} else {
		const struct program32 *p = (const void *)(image->file + at);

		s = (struct segment){p->type, p->offset, p->vaddr, p->paddr, p->filesz, p->memsz};
	}
	if (s.offset > image->size || s.file_size > image->size - s.offset)
		l1_refuse("a segment of the guest lies outside of its file");
	return s;
}

/* The entry that a multiboot header wants, or 0. */
static uint32_t find_multiboot(const struct image *image, uint32_t elf_entry)
{
	uint64_t limit = image->size < MULTIBOOT_SEARCH ? image->size : MULTIBOOT_SEARCH;

	for (uint64_t at = 0; at + 32 <= limit; at += 4) {
		const uint32_t *word = (const void *)(image->file + at);

		if (word[0] == MULTIBOOT_MAGIC && word[0] + word[1] + word[2] == 0)
			return word[1] & MULTIBOOT_ADDRESSES ? word[7] : elf_entry;
	}
	return 0;
}

/* The entry of a PVH note in [@note, @end), or 0. */
static uint32_t find_pvh(const uint8_t *note, const uint8_t *end)
{
	while (end - note >= 16) {
		const uint32_t *word = (const void *)note;
		uint64_t name = (word[0] + 3ull) & ~3ull, size = (word[1] + 3ull) & ~3ull;

		if (name + size > (uint64_t)(end - note) - 12)
			return 0;
		if (word[2] == NOTE_PHYS32_ENTRY && word[0] == 4 && word[3] == 0x006e6558)
			return word[3 + name / 4];
		note += 12 + name + size;
	}
	return 0;
}

static uint32_t load_segments(const struct image *image, uint64_t top)
{
	uint32_t pvh = 0;

	for (unsigned n = 0; n < segments(image); n++) {
		struct segment s = segment_of(image, n);

		if (s.type == PT_NOTE && !pvh)
			pvh = find_pvh(image->file + s.offset, image->file + s.offset + s.file_size);
		if (s.type != PT_LOAD || !s.size)
			continue;
		if (s.address < FIRST_ADDRESS || s.size > top || s.address > top - s.size ||
		    s.file_size > s.size)
			l1_refuse("a segment of the guest lies outside of memory");
		copy((void *)s.address, image->file + s.offset, s.file_size);
		clear((void *)(s.address + s.file_size), s.size - s.file_size);
	}
	return pvh;
}

/* The entry point is a virtual address where those of the segments are. */
static uint32_t entry_of(const struct image *image)
{
	uint64_t entry = image->wide ? ((const struct elf64 *)(const void *)image->file)->entry
				     : ((const struct elf32 *)(const void *)image->file)->entry;

	for (unsigned n = 0; n < segments(image); n++) {
		struct segment s = segment_of(image, n);

		if (s.type == PT_LOAD && entry >= s.vaddr && entry - s.vaddr < s.size)
			return (uint32_t)(entry - s.vaddr + s.address);
	}
	return (uint32_t)entry;
}

struct image_entry image_load(const uint8_t *file, uint64_t size, uint64_t top)
{
	struct image image = {file, size, false};
	uint32_t multiboot, pvh;

	if (size < sizeof(struct elf64) || *(const uint32_t *)(const void *)file != 0x464c457fu)
		l1_refuse("the guest is no ELF file");
	image.wide = file[4] == 2;
	multiboot = find_multiboot(&image, entry_of(&image));
	pvh = load_segments(&image, top);
	if (multiboot)
		return (struct image_entry){L1_MULTIBOOT, multiboot};
	if (!pvh)
		l1_refuse("the guest has neither a PVH note nor a multiboot header");
	return (struct image_entry){L1_PVH, pvh};
}
