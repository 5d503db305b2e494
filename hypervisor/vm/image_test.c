#include <elf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "vm/image.h"
#include "vm/test.h"

/* A whole ELF64 file with two segments, a PVH note and the case section, laid out by hand. */
struct file {
	Elf64_Ehdr header;
	Elf64_Phdr program[3];
	Elf64_Shdr section[3];
	struct {
		Elf64_Nhdr header;
		char name[4];
		uint32_t entry;
	} note;
	char names[32];
	char cases[sizeof(test_section)];
	uint8_t code[64];
};

static char path[] = "/tmp/image_test.XXXXXX";
static char why[256];

static void build(struct file *f)
{
	static const char names[] = "\0.names\0" CASE_SECTION_NAME;

	*f = (struct file){.header = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
				      .e_type = ET_EXEC,
				      .e_machine = EM_X86_64,
				      .e_version = EV_CURRENT,
				      .e_entry = 0x100000,
				      .e_phoff = offsetof(struct file, program),
				      .e_shoff = offsetof(struct file, section),
				      .e_ehsize = sizeof(Elf64_Ehdr),
				      .e_phentsize = sizeof(Elf64_Phdr),
				      .e_phnum = 3,
				      .e_shentsize = sizeof(Elf64_Shdr),
				      .e_shnum = 3,
				      .e_shstrndx = 1}};
	f->program[0] = (Elf64_Phdr){.p_type = PT_LOAD,
				     .p_offset = offsetof(struct file, code),
				     .p_paddr = 0x200000,
				     .p_filesz = 32,
				     .p_memsz = 0x1000};
	f->program[1] = (Elf64_Phdr){.p_type = PT_LOAD,
				     .p_offset = offsetof(struct file, code) + 32,
				     .p_paddr = 0x100000,
				     .p_filesz = 32,
				     .p_memsz = 32};
	f->program[2] = (Elf64_Phdr){.p_type = PT_NOTE,
				     .p_offset = offsetof(struct file, note),
				     .p_filesz = sizeof(f->note),
				     .p_memsz = sizeof(f->note)};
	f->section[1] = (Elf64_Shdr){.sh_name = 1,
				     .sh_type = SHT_STRTAB,
				     .sh_offset = offsetof(struct file, names),
				     .sh_size = sizeof(f->names)};
	f->section[2] = (Elf64_Shdr){.sh_name = 8,
				     .sh_type = SHT_PROGBITS,
				     .sh_offset = offsetof(struct file, cases),
				     .sh_size = sizeof(test_section) - 1};
	f->note.header = (Elf64_Nhdr){.n_namesz = 4, .n_descsz = 4, .n_type = 18};
	memcpy(f->note.name, "Xen", 4);
	f->note.entry = 0x100010;
	memcpy(f->names, names, sizeof(names));
	memcpy(f->cases, test_section, sizeof(test_section));
	memset(f->code, 0x90, sizeof(f->code));
}

static int open_bytes(struct image *image, const void *bytes, size_t size)
{
	FILE *file = fopen(path, "w");

	assert_non_null(file);
	assert_int_equal(fwrite(bytes, 1, size, file), size);
	assert_int_equal(fclose(file), 0);
	why[0] = 0;
	return image_open(image, path, why, sizeof(why));
}

static void whole(void **state)
{
	struct image image;
	struct file f;

	(void)state;
	build(&f);
	assert_int_equal(open_bytes(&image, &f, sizeof(f)), 0);
	assert_int_equal(image.kind, IMAGE_ELF64);
	assert_int_equal(image.segment_count, 2);
	/* In the order of their addresses. */
	assert_int_equal(image.segment[0].address, 0x100000);
	assert_int_equal(image.segment[1].size, 0x1000);
	assert_true(image.has_pvh);
	assert_int_equal(image.pvh_entry, 0x100010);
	assert_true(span_same(image.cases, test_span()));
	assert_int_equal(strlen(image.digest), 7 + 64);
	image_close(&image);
}

static void the_digest_is_the_files(void **state)
{
	struct image image;

	(void)state;
	assert_int_equal(open_bytes(&image, "abc", 3), 0);
	assert_int_equal(image.kind, IMAGE_FLAT);
	assert_string_equal(image.digest,
			    "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	image_close(&image);
}

/* Each mistake in a file is named. */
static void each_mistake(void **state)
{
	struct file good, f;
	struct image image;

	(void)state;
	build(&good);
#define MISTAKE(change, reason)                                                                              \
	do {                                                                                                 \
		f = good;                                                                                    \
		change;                                                                                      \
		assert_int_equal(open_bytes(&image, &f, sizeof(f)), -EINVAL);                                \
		if (!strstr(why, (reason)))                                                                  \
			fail_msg("\"%s\" does not say \"%s\"", why, (reason));                               \
	} while (0)
	MISTAKE(f.header.e_machine = EM_AARCH64, "another architecture");
	MISTAKE(f.header.e_ident[EI_DATA] = ELFDATA2MSB, "");
	MISTAKE(f.header.e_ident[EI_CLASS] = 7, "");
	MISTAKE(f.header.e_type = ET_REL, "no executable");
	MISTAKE(f.header.e_phoff = sizeof(f), "program headers");
	MISTAKE(f.header.e_phoff = ~0ull - 8, "program headers");
	MISTAKE(f.header.e_shoff = sizeof(f) - 8, "section headers");
	MISTAKE(f.program[0].p_filesz = 0x2000, "more bytes in the file");
	MISTAKE(f.program[0].p_offset = sizeof(f) - 1, "beyond the end");
	MISTAKE(f.program[0].p_offset = ~0ull, "beyond the end");
	MISTAKE(f.program[0].p_paddr = 0xfffff800, "above 4 GiB");
	MISTAKE(f.program[0].p_paddr = ~0ull - 4, "above 4 GiB");
	MISTAKE(f.program[0].p_paddr = 0x100010, "overlap");
	MISTAKE(f.program[1].p_paddr = 0x200fff, "overlap");
	MISTAKE(f.program[2].p_offset = sizeof(f) - 4, "note");
	MISTAKE(f.note.header.n_namesz = 0xffffffff, "note");
	MISTAKE(f.note.header.n_descsz = 0x1000, "note");
	MISTAKE(f.note.header.n_descsz = 2, "PVH note");
	MISTAKE(f.section[2].sh_offset = sizeof(f) - 4, "case section");
	MISTAKE(f.section[2].sh_type = SHT_NOBITS, "case section");
	MISTAKE(f.section[2].sh_name = 5000, "section name");
	MISTAKE(f.header.e_shstrndx = 2000, "section name");
	MISTAKE((f.section[0] = f.section[1], f.section[1] = f.section[2], f.header.e_shstrndx = 0),
		"two case");
#undef MISTAKE
}

/* Cut off anywhere and with any byte changed: a reason or an image, never a crash. */
static void any_damage(void **state)
{
	struct file good, f;
	struct image image;
	size_t headers = offsetof(struct file, cases);

	(void)state;
	build(&good);
	for (size_t size = 1; size < sizeof(good); size += size < headers ? 1 : 16) {
		int error = open_bytes(&image, &good, size);

		/* Shorter than the magic number, it is no ELF file at all. */
		assert_int_equal(error, size < 4 ? 0 : -EINVAL);
		assert_true(error == 0 || why[0]);
		image_close(&image);
	}
	for (size_t at = 0; at < headers; at++)
		for (unsigned value = 0; value < 256; value += 51) {
			f = good;
			((uint8_t *)&f)[at] = (uint8_t)value;
			if (open_bytes(&image, &f, sizeof(f)) == 0)
				image_close(&image);
			else
				assert_true(why[0]);
		}
}

static void what_is_no_file(void **state)
{
	struct image image;

	(void)state;
	assert_int_equal(image_open(&image, "/nonexistent", why, sizeof(why)), -ENOENT);
	assert_string_equal(why, "No such file or directory");
	assert_int_equal(image_open(&image, "/tmp", why, sizeof(why)), -EINVAL);
	assert_string_equal(why, "not a file");
	assert_int_equal(image_open(&image, "/dev/zero", why, sizeof(why)), -EINVAL);
	assert_int_equal(open_bytes(&image, "", 0), -EINVAL);
	assert_string_equal(why, "empty");
	assert_int_equal(truncate(path, IMAGE_SIZE_MAX + 1), 0);
	assert_int_equal(image_open(&image, path, why, sizeof(why)), -EINVAL);
	assert_string_equal(why, "larger than 256 MiB");
}

static int setup(void **state)
{
	int fd = mkstemp(path);

	(void)state;
	return fd < 0 ? -1 : close(fd);
}

static int teardown(void **state)
{
	(void)state;
	return unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(whole),           cmocka_unit_test(the_digest_is_the_files),
		cmocka_unit_test(each_mistake),    cmocka_unit_test(any_damage),
		cmocka_unit_test(what_is_no_file),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
