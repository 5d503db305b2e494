#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "vm/test_machine.h"
#include "x86/descriptors.h"

/* A flat multiboot image: header, then a few bytes. */
struct flat {
	uint32_t magic, flags, checksum, header_addr, load_addr, load_end_addr, bss_end_addr, entry_addr;
	uint8_t code[32];
};

static struct flat flat(void)
{
	struct flat f = {.magic = 0x1badb002,
			 .flags = 0x10003,
			 .header_addr = 0x100000,
			 .load_addr = 0x100000,
			 .load_end_addr = 0x100000 + sizeof(f),
			 .bss_end_addr = 0x101234,
			 .entry_addr = 0x100020};

	f.checksum = 0 - f.magic - f.flags;
	memset(f.code, 0xf4, sizeof(f.code));
	return f;
}

struct session {
	struct test_output output;
	struct machine *machine;
	char why[256];
};

static int setup(void **state)
{
	struct session *session = calloc(1, sizeof(*session));

	session->machine = test_machine(&session->output);
	*state = session;
	return 0;
}

static int teardown(void **state)
{
	struct session *session = *state;

	machine_free(session->machine);
	free(session);
	return 0;
}

static int boot(struct session *s, void *data, size_t size, const struct boot_options *options)
{
	static const struct boot_options none;
	struct image image = {.path = "some/dir/my guest.elf", .data = data, .size = size};

	s->why[0] = 0;
	return boot_image(s->machine, &image, options ? options : &none, s->why, sizeof(s->why));
}

static uint32_t word(struct session *s, uint64_t address)
{
	uint32_t value;

	assert_true(address + 4 <= TEST_MEMORY);
	memcpy(&value, s->machine->ram + address, 4);
	return value;
}

static struct vcpu_state vcpu(struct session *s)
{
	struct vcpu_state state;

	s->machine->engine->ops->vcpu_save(s->machine->vcpu, &state);
	return state;
}

static void check_flat_mode(struct session *s, uint64_t entry)
{
	struct vcpu_state state = vcpu(s);

	assert_int_equal(state.rip, entry);
	assert_int_equal(state.cr0 & (CR0_PE | CR0_PG), CR0_PE);
	assert_int_equal(state.rflags & (RFLAGS_IF | RFLAGS_VM), 0);
	assert_int_equal(state.efer, 0);
	for (unsigned i = 0; i < SEGMENT_COUNT; i++) {
		assert_int_equal(state.segment[i].base, 0);
		assert_int_equal(state.segment[i].limit, 0xffffffff);
		assert_true(state.segment[i].attributes & SEG_DB);
		assert_int_equal(!!(state.segment[i].attributes & SEG_CODE), i == CS);
	}
}

static void multiboot(void **state)
{
	struct session *s = *state;
	struct flat f = flat();
	uint8_t initrd[5000];
	struct boot_options options = {.append = "a=1 b",
				       .module = {{initrd, sizeof(initrd), "folder/the initrd", NULL}},
				       .modules = 1};
	uint32_t info, module, map, end;
	uint64_t ram = 0;

	memset(initrd, 0x77, sizeof(initrd));
	assert_int_equal(boot(s, &f, sizeof(f), &options), 0);
	check_flat_mode(s, 0x100020);
	assert_memory_equal(s->machine->ram + 0x100000, &f, sizeof(f));
	assert_int_equal(vcpu(s).gpr[RAX], 0x2badb002);
	info = (uint32_t)vcpu(s).gpr[RBX];
	assert_int_equal(info, 0x9000);
	assert_int_equal(word(s, info) & 0x4d, 0x4d);
	assert_int_equal(word(s, info + 4), 639);
	assert_int_equal(word(s, info + 8), (TEST_MEMORY >> 10) - 1024);
	/* The image's name is one word. */
	assert_string_equal((char *)s->machine->ram + word(s, info + 16), "my_guest.elf a=1 b");
	/* Behind the BSS. */
	assert_int_equal(word(s, info + 16), 0x102000);
	assert_int_equal(word(s, info + 20), 1);
	module = word(s, info + 24);
	assert_int_equal(word(s, module) % 4096, 0);
	assert_int_equal(word(s, module + 4) - word(s, module), sizeof(initrd));
	assert_memory_equal(s->machine->ram + word(s, module), initrd, sizeof(initrd));
	assert_string_equal((char *)s->machine->ram + word(s, module + 8), "the_initrd");
	map = word(s, info + 48);
	end = map + word(s, info + 44);
	for (; map < end; map += word(s, map) + 4)
		if (word(s, map + 20) == 1)
			ram += word(s, map + 12);
	assert_int_equal(map, end);
	assert_int_equal(ram, TEST_MEMORY - 0x100000 + 0x9fc00);
}

/* As of a hypervisor: the kernel of its first guest with a command line, and what that takes. */
static void several_modules(void **state)
{
	struct session *s = *state;
	struct flat f = flat();
	uint8_t first[5000], second[6000];
	struct boot_options options = {.module = {{first, sizeof(first), "a/kernel", "console=hvc0 quiet"},
						  {second, sizeof(second), "initrd", NULL},
						  {second, 1, NULL, NULL}},
				       .modules = 3};
	uint32_t info, module;

	memset(first, 0x77, sizeof(first));
	memset(second, 0x55, sizeof(second));
	assert_int_equal(boot(s, &f, sizeof(f), &options), 0);
	info = (uint32_t)vcpu(s).gpr[RBX];
	module = word(s, info + 24);
	assert_int_equal(word(s, info + 20), 3);
	assert_int_equal(word(s, module + 16) % 4096, 0);
	assert_true(word(s, module + 16) >= word(s, module + 4));
	assert_int_equal(word(s, module + 20) - word(s, module + 16), sizeof(second));
	assert_memory_equal(s->machine->ram + word(s, module), first, sizeof(first));
	assert_memory_equal(s->machine->ram + word(s, module + 16), second, sizeof(second));
	assert_string_equal((char *)s->machine->ram + word(s, module + 8), "kernel console=hvc0 quiet");
	assert_string_equal((char *)s->machine->ram + word(s, module + 24), "initrd");
	assert_true(word(s, module + 32) >= word(s, module + 20));
	assert_int_equal(word(s, module + 32) % 4096, 0);
	assert_int_equal(word(s, module + 36) - word(s, module + 32), 1);
	assert_string_equal((char *)s->machine->ram + word(s, module + 40), "");
	options.module[1].size = TEST_MEMORY;
	assert_int_equal(boot(s, &f, sizeof(f), &options), -EINVAL);
	assert_non_null(strstr(s->why, "do not fit"));
}

static void multiboot_mistakes(void **state)
{
	struct session *s = *state;
	struct flat f;

#define MISTAKE(change, reason)                                                                              \
	do {                                                                                                 \
		f = flat();                                                                                  \
		change;                                                                                      \
		f.checksum = 0 - f.magic - f.flags;                                                          \
		assert_int_equal(boot(s, &f, sizeof(f), NULL), -EINVAL);                                     \
		if (!strstr(s->why, (reason)))                                                               \
			fail_msg("\"%s\" does not say \"%s\"", s->why, (reason));                            \
	} while (0)
	MISTAKE(f.load_addr = 0x200000, "before the file");
	MISTAKE(f.load_addr = 0xf0000, "before the file");
	MISTAKE(f.load_end_addr = 0x100001 + sizeof(f), "truncated");
	MISTAKE(f.load_end_addr = 0x1000, "out of order");
	MISTAKE(f.bss_end_addr = 0x100004, "BSS");
	MISTAKE(f.bss_end_addr = 0x80000000, "outside memory");
	MISTAKE((f.header_addr = f.load_addr = 0xfff00000, f.load_end_addr = f.bss_end_addr = 0),
		"outside memory");
	MISTAKE(f.entry_addr = TEST_MEMORY, "entry point");
	MISTAKE(f.flags |= 4, "not offered");
	MISTAKE(f.flags &= ~0x10000u, "without load addresses");
	MISTAKE(f.bss_end_addr = (uint32_t)TEST_MEMORY, "do not fit");
#undef MISTAKE
	f = flat();
	f.checksum++;
	assert_int_equal(boot(s, &f, sizeof(f), NULL), -EINVAL);
	assert_non_null(strstr(s->why, "no ROM"));
}

static void elf_with_pvh(void **state)
{
	struct session *s = *state;
	uint8_t bytes[64];
	struct image image = {.path = "x",
			      .data = bytes,
			      .size = sizeof(bytes),
			      .kind = IMAGE_ELF64,
			      .segment_count = 2,
			      .segment = {{0, 16, 0x100000, 16}, {16, 16, 0x200000, 0x3000}},
			      .has_pvh = true,
			      .pvh_entry = 0x200004};
	struct boot_options options = {.append = "cases=x", .module = {{bytes, 10, "initrd", NULL}, {bytes + 10, 5, "second", "of two"}},
				       .modules = 2};
	uint32_t info, map;

	for (unsigned i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)i;
	assert_int_equal(boot_image(s->machine, &image, &options, s->why, sizeof(s->why)), 0);
	check_flat_mode(s, 0x200004);
	info = (uint32_t)vcpu(s).gpr[RBX];
	assert_int_equal(info, 0x9000);
	assert_int_equal(word(s, info + 24), 0x203000);
	assert_int_equal(s->machine->ram[0x200001], 17);
	assert_int_equal(word(s, info), 0x336ec578);
	assert_int_equal(word(s, info + 4), 1);
	assert_int_equal(word(s, info + 12), 2);
	assert_memory_equal(s->machine->ram + word(s, word(s, info + 16)), bytes, 10);
	assert_memory_equal(s->machine->ram + word(s, word(s, info + 16) + 32), bytes + 10, 5);
	assert_string_equal((char *)s->machine->ram + word(s, word(s, info + 16) + 16), "");
	assert_string_equal((char *)s->machine->ram + word(s, word(s, info + 16) + 48), "of two");
	assert_string_equal((char *)s->machine->ram + word(s, info + 24), "cases=x");
	map = word(s, info + 40);
	assert_int_equal(word(s, info + 48), 4);
	assert_int_equal(word(s, map + 3 * 24), 0x100000);
	assert_int_equal(word(s, map + 3 * 24 + 8), TEST_MEMORY - 0x100000);
}

/* Without flags the ELF headers rule; an image that has the page of the information keeps it. */
static void multiboot_elf(void **state)
{
	struct session *s = *state;
	uint32_t bytes[2048] = {0};
	struct image image = {.path = "x",
			      .data = (uint8_t *)bytes,
			      .size = sizeof(bytes),
			      .kind = IMAGE_ELF32,
			      .entry = 0x8004,
			      .segment_count = 1,
			      .segment = {{0x100, 0x10, 0x8000, 0x2000}},
			      .has_pvh = true};
	static const struct boot_options none;
	uint32_t info;

	/* The last place that counts for a header; behind it is none. */
	bytes[2045] = 0x1badb002;
	bytes[2047] = 0u - 0x1badb002;
	bytes[0x100 / 4] = 0x12345678;
	assert_int_equal(boot_image(s->machine, &image, &none, s->why, sizeof(s->why)), 0);
	check_flat_mode(s, 0x8004);
	assert_int_equal(word(s, 0x8000), 0x12345678);
	info = (uint32_t)vcpu(s).gpr[RBX];
	assert_int_equal(vcpu(s).gpr[RAX], 0x2badb002);
	assert_int_equal(info, 0xa000);
	assert_int_equal(word(s, info + 16), 0xb000);
	assert_string_equal((char *)s->machine->ram + 0xb000, "x");
}

static void elf_mistakes(void **state)
{
	struct session *s = *state;
	uint8_t bytes[64] = {0};
	struct image image = {.path = "x", .data = bytes, .size = sizeof(bytes), .kind = IMAGE_ELF64};
	static const struct boot_options none;

	assert_int_equal(boot_image(s->machine, &image, &none, s->why, sizeof(s->why)), -EINVAL);
	assert_non_null(strstr(s->why, "neither a PVH note nor"));
	image.has_pvh = true;
	assert_int_equal(boot_image(s->machine, &image, &none, s->why, sizeof(s->why)), -EINVAL);
	assert_non_null(strstr(s->why, "without segments"));
	image.segment_count = 1;
	image.segment[0] = (struct image_segment){0, 16, TEST_MEMORY - 8, 16};
	assert_int_equal(boot_image(s->machine, &image, &none, s->why, sizeof(s->why)), -EINVAL);
	assert_non_null(strstr(s->why, "outside memory"));
}

/* 16-bit code calls services that there are none of, and learns how much memory there is. */
static void firmware(void **state)
{
	struct session *s = *state;
	struct vcpu_state now;
	struct flat f = flat();
	/* MOV AH, 42H; INT 13H; SETC BL; INT 12H; INT 9; HLT */
	static const uint8_t real[] = {0xb4, 0x42, 0xcd, 0x13, 0x0f, 0x92, 0xc3, 0xcd, 0x12, 0xcd, 0x09, 0xf4};

	assert_int_equal(boot(s, &f, sizeof(f), NULL), 0);
	assert_int_equal(word(s, 0x40e) & 0xffff, 0x9fc0);
	assert_int_equal(word(s, 0x413) & 0xffff, 639);
	assert_int_equal(word(s, 0x400) & 0xffff, 0x3f8);
	assert_true(machine_write(s->machine, 0x7c00, real, sizeof(real)));
	now = vcpu(s);
	now.cr0 = CR0_ET;
	now.rip = 0x7c00;
	now.gpr[RSP] = 0x7000;
	for (unsigned i = 0; i < SEGMENT_COUNT; i++)
		now.segment[i] = (struct segment){.limit = 0xffff,
						  .attributes = SEG_WRITABLE | SEG_ACCESSED | SEG_S | SEG_P |
								(i == CS ? SEG_CODE : 0)};
	now.idtr = (struct table_register){0, 0x3ff};
	assert_int_equal(s->machine->engine->ops->vcpu_load(s->machine->vcpu, &now), 0);
	assert_int_equal(machine_run(s->machine, &test_limits)->event, MACHINE_HALTED);
	assert_int_equal(vcpu(s).rip, 0x7c00 + sizeof(real));
	assert_int_equal(vcpu(s).gpr[RAX] & 0xffff, 639);
	assert_int_equal(vcpu(s).gpr[RBX] & 0xff, 1);
	assert_int_equal(vcpu(s).gpr[RSP], 0x7000);
}

static void rom(void **state)
{
	struct session *s = *state;
	uint8_t *bytes = calloc(1, 0x40000);
	struct boot_options options = {.append = "x"};
	const uint32_t header[] = {0x1badb002, 0x10000, -(0x1badb002u + 0x10000), 0xfffc0100, 0xfffc0000, 0, 0,
				   0xfffff000};

	bytes[0x3fff0] = 0xf4;
	bytes[0x20000] = 0x11;
	assert_int_equal(boot(s, bytes, 0x40000, &options), -EINVAL);
	assert_int_equal(boot(s, bytes, 0x40001, NULL), -EINVAL);
	/* A header that says where ROMs are is for other loaders. */
	memcpy(bytes + 0x100, header, sizeof(header));
	assert_int_equal(boot(s, bytes, 0x40000, NULL), 0);
	assert_int_equal(vcpu(s).rip, 0xfff0);
	assert_int_equal(vcpu(s).segment[CS].base, 0xffff0000);
	assert_int_equal(s->machine->ram[0xffff0], 0xf4);
	assert_int_equal(s->machine->ram[0xe0000], 0x11);
	/* It runs from the reset vector, and halts there. */
	assert_int_equal(machine_run(s->machine, &test_limits)->event, MACHINE_HALTED);
	assert_int_equal(vcpu(s).rip, 0xfff1);
	free(bytes);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(multiboot),    TEST(several_modules), TEST(multiboot_mistakes), TEST(multiboot_elf),
		TEST(elf_with_pvh), TEST(elf_mistakes),       TEST(firmware), TEST(rom),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
