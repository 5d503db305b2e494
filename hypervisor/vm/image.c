#include "vm/image.h"

#include <errno.h>
#include <fcntl.h>
#include <gelf.h>
#include <libelf.h>
#include <nettle/sha2.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "x86/case_section.h"

#define XEN_ELFNOTE_PHYS32_ENTRY 18

static int bad(char *why, size_t size, const char *what)
{
	snprintf(why, size, "%s", what);
	return -EINVAL;
}

/* ---- the file ---- */

static int read_all(int fd, uint8_t *data, size_t length)
{
	size_t done = 0;

	while (done < length) {
		ssize_t got = read(fd, data + done, length - done);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if (got == 0)
			return -EIO; /* it shrank */
		done += (size_t)got;
	}
	return 0;
}

static int read_open_file(int fd, size_t max, uint8_t **data, size_t *length, char *why, size_t size)
{
	struct stat status;
	int error;

	if (fstat(fd, &status))
		return -errno;
	if (!S_ISREG(status.st_mode))
		return bad(why, size, "not a file");
	if (status.st_size == 0)
		return bad(why, size, "empty");
	if ((uint64_t)status.st_size > max) {
		snprintf(why, size, "larger than %zu MiB", max >> 20);
		return -EINVAL;
	}
	*length = (size_t)status.st_size;
	*data = malloc(*length);
	if (!*data)
		return -ENOMEM;
	error = read_all(fd, *data, *length);
	if (error) {
		free(*data);
		*data = NULL;
	}
	return error;
}

int image_read_file(const char *path, size_t max, uint8_t **data, size_t *length, char *why, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	int error;

	*data = NULL;
	if (fd < 0)
		error = -errno;
	else
		error = read_open_file(fd, max, data, length, why, size);
	if (fd >= 0)
		close(fd);
	if (error && error != -EINVAL)
		snprintf(why, size, "%s", strerror(-error));
	return error;
}

static void make_digest(struct image *image)
{
	uint8_t sum[SHA256_DIGEST_SIZE];
	struct sha256_ctx context;
	char *at = image->digest;

	sha256_init(&context);
	sha256_update(&context, image->size, image->data);
	sha256_digest(&context, sizeof(sum), sum);
	at += sprintf(at, "sha256:");
	for (size_t i = 0; i < sizeof(sum); i++)
		at += sprintf(at, "%02x", sum[i]);
}

/* ---- ELF ---- */

static bool in_file(const struct image *image, uint64_t offset, uint64_t length)
{
	return offset <= image->size && length <= image->size - offset;
}

static int add_segment(struct image *image, const GElf_Phdr *header, char *why, size_t size)
{
	struct image_segment segment = {.offset = header->p_offset,
					.file_size = header->p_filesz,
					.address = header->p_paddr,
					.size = header->p_memsz};
	uint64_t end;
	unsigned place = image->segment_count;

	if (segment.size == 0 && segment.file_size == 0)
		return 0;
	if (segment.file_size > segment.size)
		return bad(why, size, "a segment with more bytes in the file than in memory");
	if (!in_file(image, segment.offset, segment.file_size))
		return bad(why, size, "truncated: a segment lies beyond the end of the file");
	if (__builtin_add_overflow(segment.address, segment.size, &end) || end > 1ull << 32)
		return bad(why, size, "a segment above 4 GiB");
	if (image->segment_count == IMAGE_SEGMENTS_MAX)
		return bad(why, size, "too many segments");
	while (place > 0 && image->segment[place - 1].address > segment.address) {
		image->segment[place] = image->segment[place - 1];
		place--;
	}
	image->segment[place] = segment;
	image->segment_count++;
	return 0;
}

static int check_overlaps(const struct image *image, char *why, size_t size)
{
	for (unsigned i = 1; i < image->segment_count; i++) {
		const struct image_segment *before = &image->segment[i - 1];

		if (before->address + before->size > image->segment[i].address)
			return bad(why, size, "segments that overlap");
	}
	return 0;
}

/* Notes are padded to four bytes whatever the class says; the bytes may be anything. */
static int scan_notes(struct image *image, uint64_t offset, uint64_t length, char *why, size_t size)
{
	if (!in_file(image, offset, length))
		return bad(why, size, "truncated: a note lies beyond the end of the file");
	while (length >= 12) {
		const uint8_t *note = image->data + offset;
		uint32_t header[3]; /* name size, descriptor size, type */
		uint64_t name_room, total;

		memcpy(header, note, sizeof(header));
		name_room = ((uint64_t)header[0] + 3) & ~3ull;
		total = 12 + name_room + (((uint64_t)header[1] + 3) & ~3ull);
		if (12 + name_room + header[1] > length)
			return bad(why, size, "a damaged note");
		if (header[0] == 4 && memcmp(note + 12, "Xen", 4) == 0 &&
		    header[2] == XEN_ELFNOTE_PHYS32_ENTRY) {
			if (header[1] != 4 && header[1] != 8)
				return bad(why, size, "a PVH note of a size that is neither 4 nor 8");
			memcpy(&image->pvh_entry, note + 12 + name_room, 4);
			image->has_pvh = true;
		}
		if (total >= length)
			break;
		offset += total;
		length -= total;
	}
	return 0;
}

/*
 * e_entry is a virtual address. Guests start without paging, so where it lies in a segment that is loaded
 * elsewhere than it is linked, the entry moves along.
 */
static void translate_entry(struct image *image, const GElf_Phdr *header)
{
	uint64_t entry = image->entry - header->p_vaddr;

	if (!image->entry_moved && entry < header->p_memsz) {
		image->entry_moved = true;
		image->entry = header->p_paddr + entry;
	}
}

static int read_program_headers(struct image *image, Elf *elf, char *why, size_t size)
{
	size_t count;

	if (elf_getphdrnum(elf, &count))
		return bad(why, size, elf_errmsg(-1));
	for (size_t i = 0; i < count; i++) {
		GElf_Phdr header;
		int error = 0;

		if (!gelf_getphdr(elf, (int)i, &header))
			return bad(why, size,
				   "truncated: its program headers lie beyond the end of the file");
		if (header.p_type == PT_LOAD) {
			translate_entry(image, &header);
			error = add_segment(image, &header, why, size);
		}
		if (header.p_type == PT_NOTE)
			error = scan_notes(image, header.p_offset, header.p_filesz, why, size);
		if (error)
			return error;
	}
	return check_overlaps(image, why, size);
}

static int read_sections(struct image *image, Elf *elf, char *why, size_t size)
{
	size_t names, count;
	Elf_Scn *section = NULL;

	if (elf_getshdrnum(elf, &count))
		return bad(why, size, "truncated: its section headers lie beyond the end of the file");
	if (count == 0)
		return 0;
	if (elf_getshdrstrndx(elf, &names))
		return bad(why, size, "damaged section names");
	while ((section = elf_nextscn(elf, section))) {
		GElf_Shdr header;
		const char *name;

		if (!gelf_getshdr(section, &header))
			return bad(why, size, "a damaged section header");
		name = elf_strptr(elf, names, header.sh_name);
		if (!name)
			return bad(why, size, "a damaged section name");
		if (strcmp(name, CASE_SECTION_NAME) != 0)
			continue;
		if (header.sh_type == SHT_NOBITS || (header.sh_flags & SHF_COMPRESSED) ||
		    !in_file(image, header.sh_offset, header.sh_size))
			return bad(why, size, "truncated: the case section is not in the file");
		if (image->cases.at)
			return bad(why, size, "two case sections");
		image->cases = (struct span){(const char *)image->data + header.sh_offset, header.sh_size};
	}
	return 0;
}

static int read_elf_header(struct image *image, Elf *elf, char *why, size_t size)
{
	GElf_Ehdr header;

	if (!gelf_getehdr(elf, &header))
		return bad(why, size, "truncated: no whole ELF header");
	if (header.e_ident[EI_DATA] != ELFDATA2LSB ||
	    (header.e_machine != EM_386 && header.e_machine != EM_X86_64))
		return bad(why, size, "an ELF file for another architecture");
	if (header.e_type != ET_EXEC)
		return bad(why, size, "an ELF file that is no executable");
	if (!in_file(image, header.e_phoff, (uint64_t)header.e_phentsize * header.e_phnum))
		return bad(why, size, "truncated: its program headers lie beyond the end of the file");
	if (!in_file(image, header.e_shoff, (uint64_t)header.e_shentsize * header.e_shnum))
		return bad(why, size, "truncated: its section headers lie beyond the end of the file");
	image->kind = header.e_ident[EI_CLASS] == ELFCLASS64 ? IMAGE_ELF64 : IMAGE_ELF32;
	image->entry = header.e_entry;
	return 0;
}

static int read_elf(struct image *image, char *why, size_t size)
{
	Elf *elf;
	int error;

	elf_version(EV_CURRENT);
	elf = elf_memory((char *)image->data, image->size);
	if (!elf || elf_kind(elf) != ELF_K_ELF) {
		elf_end(elf);
		return bad(why, size, "a damaged ELF file");
	}
	error = read_elf_header(image, elf, why, size);
	if (!error)
		error = read_program_headers(image, elf, why, size);
	if (!error)
		error = read_sections(image, elf, why, size);
	elf_end(elf);
	return error;
}

int image_open(struct image *image, const char *path, char *why, size_t size)
{
	int error;

	*image = (struct image){.path = path};
	error = image_read_file(path, IMAGE_SIZE_MAX, &image->data, &image->size, why, size);
	if (error)
		return error;
	make_digest(image);
	if (image->size >= 4 && memcmp(image->data, "\177ELF", 4) == 0)
		error = read_elf(image, why, size);
	if (error)
		image_close(image);
	return error;
}

void image_close(struct image *image)
{
	free(image->data);
	image->data = NULL;
}
