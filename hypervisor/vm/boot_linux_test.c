#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "vm/test_machine.h"
#include "x86/descriptors.h"

#define SETUP 1024u /* one sector and the boot sector */
#define BODY  4096u

/* A kernel that halts, with the header of boot protocol 2.15. */
static uint8_t file[SETUP + BODY];

static void put(unsigned offset, unsigned size, uint64_t value) { memcpy(file + offset, &value, size); }

static void make_kernel(void)
{
	memset(file, 0, sizeof(file));
	memset(file + SETUP, 0xf4, BODY);
	file[SETUP] = 0x90; /* the 32-bit entry halts at the second byte, the 64-bit entry at the first */
	put(0x1f1, 1, 1);
	put(0x1f4, 4, BODY / 16);
	put(0x1fe, 2, 0xaa55);
	put(0x201, 1, 0x6a);
	put(0x202, 4, 0x53726448);
	put(0x206, 2, 0x20f);
	put(0x211, 1, 1);
	put(0x22c, 4, 0x7fffffff);
	put(0x230, 4, 0x200000);
	put(0x234, 1, 1);
	put(0x235, 1, 20);
	put(0x236, 2, 1);
	put(0x238, 4, 16);
	put(0x258, 8, 0x200000);
	put(0x260, 4, 0x8000);
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
	make_kernel();
	return 0;
}

static int teardown(void **state)
{
	struct session *session = *state;

	machine_free(session->machine);
	free(session);
	return 0;
}

static int boot(struct session *s, size_t size, const struct boot_options *options)
{
	static const struct boot_options none;
	struct image image = {.path = "vmlinuz", .data = file, .size = size};

	s->why[0] = 0;
	return boot_image(s->machine, &image, options ? options : &none, s->why, sizeof(s->why));
}

static uint64_t number(struct session *s, uint64_t address, unsigned size)
{
	uint64_t value = 0;

	assert_true(address + size <= TEST_MEMORY);
	memcpy(&value, s->machine->ram + address, size);
	return value;
}

static struct vcpu_state vcpu(struct session *s)
{
	struct vcpu_state state;

	s->machine->engine->ops->vcpu_save(s->machine->vcpu, &state);
	return state;
}

static void entry_64(void **state)
{
	struct session *s = *state;
	uint8_t initrd[5000];
	struct boot_options options = {
		.append = "console=ttyS0", .module = {{.data = initrd, .size = sizeof(initrd)}}, .modules = 1};
	uint64_t zero, data;

	memset(initrd, 0x5a, sizeof(initrd));
	assert_int_equal(boot(s, sizeof(file), &options), 0);
	assert_int_equal(vcpu(s).rip, 0x200200);
	assert_int_equal(vcpu(s).efer, EFER_LME | EFER_LMA);
	assert_true(vcpu(s).segment[CS].attributes & SEG_L);
	assert_int_equal(vcpu(s).segment[CS].selector, 0x10);
	assert_int_equal(vcpu(s).segment[DS].selector, 0x18);
	zero = vcpu(s).gpr[RSI];
	assert_memory_equal(s->machine->ram + 0x200000, file + SETUP, BODY);
	/* The header is the file's, with what the loader says. */
	assert_int_equal(number(s, zero + 0x202, 4), 0x53726448);
	assert_int_equal(number(s, zero + 0x210, 1), 0xff);
	assert_int_equal(number(s, zero + 0x211, 1), 0x81);
	assert_string_equal((char *)s->machine->ram + number(s, zero + 0x228, 4), "console=ttyS0");
	/* As high as it goes. */
	assert_int_equal(number(s, zero + 0x218, 4), TEST_MEMORY - 8192);
	assert_int_equal(number(s, zero + 0x21c, 4), sizeof(initrd));
	assert_memory_equal(s->machine->ram + TEST_MEMORY - 8192, initrd, sizeof(initrd));
	/* Memory: all RAM ranges together. */
	assert_int_equal(number(s, zero + 0x1e8, 1), 4);
	assert_int_equal(number(s, zero + 0x2d0 + 3 * 20, 8), 0x100000);
	assert_int_equal(number(s, zero + 0x2d0 + 3 * 20 + 8, 8), TEST_MEMORY - 0x100000);
	assert_int_equal(number(s, zero + 0x2d0 + 3 * 20 + 16, 4), 1);
	assert_int_equal(number(s, zero + 0x1e0, 4), (TEST_MEMORY >> 10) - 1024);
	/* One entry of setup_data: a seed. */
	data = number(s, zero + 0x250, 8);
	assert_int_equal(number(s, data, 8), 0);
	assert_int_equal(number(s, data + 8, 4), 9);
	assert_int_equal(number(s, data + 12, 4), 32);
	/* It runs: paging, descriptors and entry are right. */
	assert_int_equal(machine_run(s->machine, &test_limits)->event, MACHINE_HALTED);
	assert_int_equal(vcpu(s).rip, 0x200201);
}

static void entry_32(void **state)
{
	struct session *s = *state;

	put(0x236, 2, 0);
	assert_int_equal(boot(s, sizeof(file), NULL), 0);
	assert_int_equal(vcpu(s).rip, 0x200000);
	assert_int_equal(vcpu(s).efer, 0);
	assert_int_equal(vcpu(s).cr0 & (CR0_PE | CR0_PG), CR0_PE);
	assert_true(vcpu(s).segment[CS].attributes & SEG_DB);
	assert_int_equal(machine_run(s->machine, &test_limits)->event, MACHINE_HALTED);
	assert_int_equal(vcpu(s).rip, 0x200002);
}

static void addresses(void **state)
{
	struct session *s = *state;

	/* Too little memory at the preferred address: the lowest that is aligned. */
	put(0x258, 8, 0x1000000);
	assert_int_equal(boot(s, sizeof(file), NULL), 0);
	assert_int_equal(vcpu(s).rip, 0x100200);
	make_kernel();
	put(0x258, 8, 0x1000000);
	put(0x234, 1, 0);
	assert_int_equal(boot(s, sizeof(file), NULL), -EINVAL);
	assert_non_null(strstr(s->why, "not enough memory: the Linux kernel"));
	/* Before 2.10 there is no preferred address. */
	make_kernel();
	put(0x206, 2, 0x206);
	put(0x214, 4, 0x100000);
	put(0x258, 8, 0x1000000);
	assert_int_equal(boot(s, sizeof(file), NULL), 0);
	assert_int_equal(vcpu(s).rip, 0x100000);
}

static void initrd_limits(void **state)
{
	struct session *s = *state;
	uint8_t initrd[4096] = {1};
	struct boot_options options = {.module = {{.data = initrd, .size = sizeof(initrd)}}, .modules = 1};

	put(0x22c, 4, 0x2fffff);
	assert_int_equal(boot(s, sizeof(file), &options), 0);
	assert_int_equal(number(s, vcpu(s).gpr[RSI] + 0x218, 4), 0x2ff000);
	put(0x22c, 4, 0x207fff);
	assert_int_equal(boot(s, sizeof(file), &options), -EINVAL);
	assert_non_null(strstr(s->why, "initrd does not fit"));
	/* All of it is there to read: the board keeps a copy for who asks fw_cfg. */
	uint8_t *large = calloc(2, TEST_MEMORY);

	assert_non_null(large);
	options.modules = 2;
	assert_int_equal(boot(s, sizeof(file), &options), -EINVAL);
	assert_non_null(strstr(s->why, "no other modules"));
	options.modules = 1;
	options.module[0].data = large;
	options.module[0].size = TEST_MEMORY * 2;
	assert_int_equal(boot(s, sizeof(file), &options), -EINVAL);
	free(large);
}

static void mistakes(void **state)
{
	struct session *s = *state;
	struct boot_options options = {.append = "0123456789abcdef"};

#define MISTAKE(change, reason)                                                                              \
	do {                                                                                                 \
		make_kernel();                                                                               \
		change;                                                                                      \
		assert_int_equal(boot(s, sizeof(file), &options), -EINVAL);                                  \
		if (!strstr(s->why, (reason)))                                                               \
			fail_msg("\"%s\" does not say \"%s\"", s->why, (reason));                            \
	} while (0)
	assert_int_equal(boot(s, sizeof(file), &options), 0);
	options.append = "0123456789abcdef0";
	MISTAKE(, "command line is too long");
	options.append = NULL;
	MISTAKE(put(0x206, 2, 0x205), "protocol 2.05");
	MISTAKE(put(0x211, 1, 0), "zImage");
	MISTAKE(put(0x1f4, 4, BODY / 16 + 1), "truncated");
	MISTAKE(put(0x1f4, 4, 0), "truncated");
	MISTAKE(put(0x1f1, 1, 200), "truncated");
	MISTAKE(put(0x260, 4, 0xffffffff), "not enough memory");
	MISTAKE(put(0x258, 8, 0x8000), "below 1 MiB");
	MISTAKE((put(0x258, 8, ~0ull), put(0x234, 1, 0)), "not enough memory");
	MISTAKE(put(0x202, 4, 0), "no ROM");
#undef MISTAKE
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(entry_64), TEST(entry_32), TEST(addresses), TEST(initrd_limits), TEST(mistakes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
