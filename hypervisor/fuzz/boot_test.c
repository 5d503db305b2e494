/*
 * Damaged Linux kernels, multiboot images, initrds and command lines: each boots or gets a reason, and nothing is
 * read or written outside of the file and of the guest's memory.
 */
#include <errno.h>
#include <stdio.h>

#include "fuzz/fuzz.h"
#include "vm/boot.h"
#include "vm/test_machine.h"

#define SETUP 1024u
#define BODY  4096u
#define SIZE  (SETUP + BODY)

static struct machine *machine;

static void put(uint8_t *file, unsigned offset, unsigned size, uint64_t value)
{
	memcpy(file + offset, &value, size);
}

static void make_kernel(uint8_t *file)
{
	memset(file, 0xf4, SIZE);
	memset(file, 0, SETUP);
	put(file, 0x1f1, 1, 1);
	put(file, 0x1f4, 4, BODY / 16);
	put(file, 0x1fe, 2, 0xaa55);
	put(file, 0x201, 1, 0x6a);
	put(file, 0x202, 4, 0x53726448);
	put(file, 0x206, 2, 0x20f);
	put(file, 0x211, 1, 1);
	put(file, 0x22c, 4, 0x7fffffff);
	put(file, 0x230, 4, 0x200000);
	put(file, 0x234, 1, 1);
	put(file, 0x235, 1, 20);
	put(file, 0x236, 2, 1);
	put(file, 0x238, 4, 2047);
	put(file, 0x258, 8, 0x200000);
	put(file, 0x260, 4, 0x8000);
}

static void make_multiboot(uint8_t *file)
{
	static const uint32_t header[] = {0x1badb002, 0x10003,  0u - 0x1badb002 - 0x10003, 0x100100,
					  0x100000,   0x101000, 0x102000,                  0x100200};

	memset(file, 0xf4, SIZE);
	memcpy(file + 0x100, header, sizeof(header));
}

static void round_of_boots(struct fuzz *fuzz, uint64_t round)
{
	static uint8_t initrd[65536];
	char why[256] = "", append[3000];
	/* Exactly as large as it says, so that a sanitizer sees what lies behind. */
	size_t size = fuzz_one_in(fuzz, 4) ? 1 + fuzz_next(fuzz) % SIZE : SIZE;
	uint8_t whole[SIZE], *file = malloc(size);
	struct boot_options options = {.append = append, .module = {{.data = initrd, .name = "folder/initrd"}, {initrd, 1, "x", "y z"}}};
	struct image image = {.path = fuzz_one_in(fuzz, 2) ? "a b/c d" : "x", .data = file, .size = size};
	unsigned length = fuzz_one_in(fuzz, 4) ? fuzz_below(fuzz, sizeof(append)) : 10;
	int error;

	assert_non_null(file);
	memset(append, 'a', length);
	append[length] = 0;
	options.modules = fuzz_below(fuzz, 3);
	options.module[0].size = 1 + fuzz_below(fuzz, sizeof(initrd));
	if (fuzz_one_in(fuzz, 2)) {
		make_kernel(whole);
		fuzz_mutate(fuzz, whole + 0x1f1, 0x7f);
	} else {
		make_multiboot(whole);
		fuzz_mutate(fuzz, whole + 0x10c, 20);
	}
	memcpy(file, whole, size);
	error = boot_image(machine, &image, &options, why, sizeof(why));
	if (error > 0 || (error && (!why[0] || strchr(why, '\n'))))
		fail_msg("FUZZ_ROUND=%llu: %d \"%s\"", (unsigned long long)round, error, why);
	free(file);
}

static void damaged_kernels(void **state)
{
	(void)state;
	fuzz_rounds(20000, round_of_boots);
}

static int setup(void **state)
{
	static struct test_output output;

	(void)state;
	machine = test_machine(&output);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	machine_free(machine);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(damaged_kernels)};

	return cmocka_run_group_tests(tests, setup, teardown);
}
