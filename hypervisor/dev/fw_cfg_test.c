#include "dev/test_bench.h"

#include <errno.h>

#include "dev/fw_cfg.h"

struct session {
	struct test_bench bench;
	struct fw_cfg fw_cfg;
	struct dma dma;
	uint8_t memory[65536];
};

static const void *memory_read(void *owner, uint64_t address, uint64_t size)
{
	struct session *s = owner;

	return address <= sizeof(s->memory) && size <= sizeof(s->memory) - address ? s->memory + address
										   : NULL;
}

static bool memory_write(void *owner, uint64_t address, const void *from, size_t size)
{
	struct session *s = owner;

	if (address > sizeof(s->memory) || size > sizeof(s->memory) - address)
		return false;
	memcpy(s->memory + address, from, size);
	return true;
}

static int setup(void **state)
{
	struct session *s = calloc(1, sizeof(*s));

	test_bench_init(&s->bench);
	s->dma = (struct dma){.owner = s, .read = memory_read, .write = memory_write};
	fw_cfg_init(&s->fw_cfg, 512ull << 20, 3, 5, &s->dma);
	assert_int_equal(fw_cfg_attach(&s->fw_cfg, &s->bench.bus), 0);
	*state = s;
	return 0;
}

static int teardown(void **state)
{
	free(*state);
	return 0;
}

static uint64_t number(struct session *s, unsigned key, unsigned size)
{
	uint64_t value = 0;

	test_out(&s->bench, 0x510, 2, key);
	for (unsigned i = 0; i < size; i++)
		value |= (uint64_t)test_in(&s->bench, 0x511, 1) << (8 * i);
	return value;
}

static void items(void **state)
{
	struct session *s = *state;

	assert_int_equal(number(s, 0, 4), 0x554d4551);
	assert_int_equal(number(s, 0, 6), 0x554d4551); /* zeros behind the end */
	assert_int_equal(number(s, 1, 4), 3);
	assert_int_equal(number(s, 3, 8), 512 << 20);
	assert_int_equal(number(s, 5, 2), 3);
	assert_int_equal(number(s, 0xf, 2), 5);
	assert_int_equal(number(s, 0x4005, 2), 3);
	assert_int_equal(number(s, 0x8002, 1), 1);
	assert_int_equal(number(s, 0x1234, 8), 0);
	assert_int_equal(number(s, 0x9234, 8), 0);
	test_out(&s->bench, 0x510, 2, 0);
	test_out(&s->bench, 0x511, 1, 'X');
	assert_int_equal(number(s, 0, 4), 0x554d4551);
	fw_cfg_set(&s->fw_cfg, FW_CFG_CMDLINE_DATA, "abc", 4);
	assert_int_equal(number(s, 0x15, 4), 0x636261);
	assert_int_equal(s->bench.unclaimed, 0);
}

static void files(void **state)
{
	struct session *s = *state;
	uint8_t directory[4 + 64 * 3];

	assert_int_equal(fw_cfg_add_file(&s->fw_cfg, "etc/b", "BBBB", 4), 0);
	assert_int_equal(fw_cfg_add_file(&s->fw_cfg, "etc/c", "C", 1), 0);
	assert_int_equal(fw_cfg_add_file(&s->fw_cfg, "etc/a", "AA", 2), 0);
	assert_int_equal(fw_cfg_add_file(&s->fw_cfg, "etc/a", "AA", 2), -EEXIST);
	assert_int_equal(fw_cfg_add_file(&s->fw_cfg,
					 "a234567890123456789012345678901234567890123456789012345x", "AA", 2),
			 -ENAMETOOLONG);
	test_out(&s->bench, 0x510, 2, 0x19);
	for (unsigned i = 0; i < sizeof(directory); i++)
		directory[i] = (uint8_t)test_in(&s->bench, 0x511, 1);
	assert_memory_equal(directory, "\0\0\0\3\0\0\0\2\0\x20\0\0etc/a", 18);
	assert_memory_equal(directory + 68, "\0\0\0\4\0\x21\0\0etc/b", 14);
	assert_memory_equal(directory + 132, "\0\0\0\1\0\x22\0\0etc/c", 14);
	assert_int_equal(number(s, 0x21, 5), 0x42424242);
}

static void request(struct session *s, uint32_t control, uint32_t length, uint32_t address)
{
	const uint8_t bytes[16] = {(uint8_t)(control >> 24),
				   (uint8_t)(control >> 16),
				   (uint8_t)(control >> 8),
				   (uint8_t)control,
				   (uint8_t)(length >> 24),
				   (uint8_t)(length >> 16),
				   (uint8_t)(length >> 8),
				   (uint8_t)length,
				   0,
				   0,
				   0,
				   0,
				   (uint8_t)(address >> 24),
				   (uint8_t)(address >> 16),
				   (uint8_t)(address >> 8),
				   (uint8_t)address};

	memcpy(s->memory + 0x100, bytes, 16);
	test_out(&s->bench, 0x514, 4, 0);
	test_out(&s->bench, 0x518, 4, 0x00010000); /* 0x100, big-endian */
}

static void dma(void **state)
{
	struct session *s = *state;

	assert_int_equal(test_in(&s->bench, 0x514, 4), 0x554d4551);
	assert_int_equal(test_in(&s->bench, 0x518, 4), 0x47464320);
	memset(s->memory + 0x200, 0xee, 16);
	request(s, 0x000a, 6, 0x200);
	assert_memory_equal(s->memory + 0x200, "QEMU\0\0\xee", 7);
	assert_memory_equal(s->memory + 0x100, "\0\0\0\0", 4);
	/* Skip two bytes, then read on without selecting. */
	request(s, 0x000c, 2, 0);
	request(s, 0x0002, 2, 0x200);
	assert_memory_equal(s->memory + 0x200, "MU", 2);
	request(s, 0x0004, 0xffffffff, 0);
	request(s, 0x0002, 2, 0x200);
	assert_memory_equal(s->memory + 0x200, "\0\0", 2);
	/* What cannot be written, and memory that is none. */
	request(s, 0x0018, 2, 0x200);
	assert_memory_equal(s->memory + 0x100, "\0\0\0\1", 4);
	request(s, 0x000a, 0xffffffff, 0xfff0);
	assert_memory_equal(s->memory + 0x100, "\0\0\0\1", 4);
	request(s, 0x000a, 4, 0xffffffff);
	assert_memory_equal(s->memory + 0x100, "\0\0\0\1", 4);
	test_out(&s->bench, 0x518, 4, 0xffffffff);
	assert_int_equal(s->bench.unclaimed, 0);
}

static void saved(void **state)
{
	struct session *s = *state;
	struct fw_cfg other = {0};

	number(s, 3, 5);
	test_out(&s->bench, 0x514, 4, 0x12345678);
	test_state(&fw_cfg_state, &s->fw_cfg, &other, offsetof(struct fw_cfg, item));
	fw_cfg_reset(&s->fw_cfg);
	assert_int_equal(test_in(&s->bench, 0x511, 1), 'Q');
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {TEST(items), TEST(files), TEST(dma), TEST(saved)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
