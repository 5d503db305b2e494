#include "dev/virtio_console.h"
#include "dev/test_virtio.h"

#define ALL (VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC)

static struct test_pci *test;
static struct virtio_console console;
static char printed[64];
static size_t printed_size;

static void sent(void *owner, uint8_t byte)
{
	(void)owner;
	printed[printed_size++ % sizeof(printed)] = (char)byte;
}

static int setup(void **state)
{
	(void)state;
	test = test_pci_new();
	console = (struct virtio_console){0};
	printed_size = 0;
	assert_int_equal(virtio_console_init(&console, sent, NULL, &test->dma, &test->pci), 0);
	test_start(test, ALL, 2);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	free(test);
	return 0;
}

static void describe(unsigned queue, unsigned at, uint64_t address, uint32_t size, unsigned flags)
{
	test_table(test, queue)[at] =
		(struct test_descriptor){address, size, (uint16_t)flags, (uint16_t)(at + 1)};
}

static void output(void **state)
{
	(void)state;
	memcpy(test->ram + TEST_BUFFER, "Hello", 5);
	describe(1, 0, TEST_BUFFER, 3, NEXT);
	describe(1, 1, TEST_BUFFER + 3, 2, 0);
	test_give(test, 1, 0);
	assert_int_equal(printed_size, 5);
	assert_memory_equal(printed, "Hello", 5);
	assert_int_equal(test_used(test, 1)[1], 1);
	assert_int_equal(test_written(test, 1), 0);
}

/* Buffers wait for input, and input for buffers. */
static void input(void **state)
{
	unsigned irq = PCI_IRQ(TEST_SLOT, 0);

	(void)state;
	assert_int_equal(virtio_console_receive(&console, (const uint8_t *)"abc", 3), 0);
	assert_false(test->line[irq]);
	describe(0, 0, TEST_BUFFER, 4, WRITE);
	test_give(test, 0, 0);
	assert_int_equal(test_used(test, 0)[1], 0);
	assert_int_equal(virtio_console_receive(&console, (const uint8_t *)"abcdef", 6), 4);
	assert_true(test->line[irq]);
	assert_int_equal(test_written(test, 0), 4);
	assert_memory_equal(test->ram + TEST_BUFFER, "abcd", 5);
	test_give(test, 0, 0);
	assert_int_equal(virtio_console_receive(&console, (const uint8_t *)"ef", 2), 2);
	assert_int_equal(test_written(test, 0), 2);
}

static void endless_output(void **state)
{
	(void)state;
	for (unsigned i = 0; i < TEST_SIZE; i++)
		describe(1, i, 0, TEST_RAM, i + 1 < TEST_SIZE ? NEXT : 0);
	test_give(test, 1, 0);
	assert_int_equal(printed_size, 0);
	assert_true(test_common(test, STATUS, 1) & VIRTIO_NEEDS_RESET);
	assert_false(virtio_console_live(&console));
	assert_int_equal(virtio_console_receive(&console, (const uint8_t *)"a", 1), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {TEST(output), TEST(input), TEST(endless_output)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
