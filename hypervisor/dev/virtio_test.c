/* The parts that all virtio devices share, by way of the entropy device; and rings that are no rings. */
#include "dev/test_virtio.h"
#include "dev/virtio_rng.h"
#include "fuzz/fuzz.h"

#define ALL (VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX)

static struct test_pci *test;
static struct virtio_rng rng;

static int setup(void **state)
{
	(void)state;
	test = test_pci_new();
	rng = (struct virtio_rng){0};
	assert_int_equal(virtio_rng_init(&rng, 1, &test->dma, &test->pci), 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	free(test);
	return 0;
}

static void describe(unsigned at, uint64_t address, uint32_t size, unsigned flags, unsigned next)
{
	test_table(test, 0)[at] = (struct test_descriptor){address, size, (uint16_t)flags, (uint16_t)next};
}

static bool needs_reset(void) { return test_common(test, STATUS, 1) & VIRTIO_NEEDS_RESET; }

static void capabilities(void **state)
{
	static const struct {
		unsigned type, offset;
	} wanted[] = {{1, 0}, {3, 0x1000}, {2, 0x3000}};
	unsigned at = 0;

	(void)state;
	assert_int_equal(test_config_read(test, TEST_SLOT, 0, 4), 0x10441af4);
	assert_true(test_config_read(test, TEST_SLOT, PCI_REVISION, 1) >= 1);
	for (unsigned i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
		at = test_capability(test, TEST_SLOT, 9, at);
		assert_int_not_equal(at, 0);
		assert_int_equal(test_config_read(test, TEST_SLOT, at + 3, 1), wanted[i].type);
		assert_int_equal(test_config_read(test, TEST_SLOT, at + 4, 1), 4);
		assert_int_equal(test_config_read(test, TEST_SLOT, at + 8, 4), wanted[i].offset);
	}
	/* The window in configuration space reads and writes the same registers. */
	at = test_capability(test, TEST_SLOT, 9, at);
	assert_int_equal(test_config_read(test, TEST_SLOT, at + 3, 1), 5);
	test_config_write(test, TEST_SLOT, at + 4, 1, 4);
	test_config_write(test, TEST_SLOT, at + 8, 4, STATUS);
	test_config_write(test, TEST_SLOT, at + 12, 4, 1);
	test_config_write(test, TEST_SLOT, at + 16, 1, VIRTIO_ACKNOWLEDGE);
	assert_int_equal(rng.virtio.status, VIRTIO_ACKNOWLEDGE);
	assert_int_equal(test_config_read(test, TEST_SLOT, at + 16, 1), VIRTIO_ACKNOWLEDGE);
	test_config_write(test, TEST_SLOT, at + 8, 4, 0x3fff);
	test_config_write(test, TEST_SLOT, at + 12, 4, 4); /* leads out of it */
	test_config_read(test, TEST_SLOT, at + 16, 4);
}

static void negotiation(void **state)
{
	(void)state;
	test_start(test, ALL, 1);
	assert_int_equal(test_common(test, STATUS, 1), 0x0f);
	/* Features that were not offered, and a driver of the old kind, are refused. */
	test_start(test, ALL | 1ull << 40, 1);
	assert_int_equal(test_common(test, STATUS, 1) & VIRTIO_FEATURES_OK, 0);
	test_start(test, VIRTIO_F_EVENT_IDX, 1);
	assert_int_equal(test_common(test, STATUS, 1) & (VIRTIO_FEATURES_OK | VIRTIO_DRIVER_OK), 0);
	test_start(test, ALL, 1);
	test_set(test, GFSELECT, 4, 0);
	test_set(test, GF, 4, 0);
	assert_int_equal(test_common(test, GF, 4), (uint32_t)ALL); /* too late */
	test_set(test, DFSELECT, 4, 1);
	assert_int_equal(test_common(test, DF, 4), 1);
	test_set(test, DFSELECT, 4, 2);
	assert_int_equal(test_common(test, DF, 4), 0);
	test_set(test, Q_SELECT, 2, 1);
	assert_int_equal(test_common(test, Q_SIZE, 2), 0);
	test_set(test, Q_SELECT, 2, 0);
	assert_int_equal(test_common(test, Q_SIZE, 2), TEST_SIZE);
	test_set(test, STATUS, 1, 0);
	assert_int_equal(test_common(test, STATUS, 1), 0);
	assert_int_equal(test_common(test, Q_ENABLE, 2), 0);
	assert_int_equal(test_common(test, Q_MSIX, 2), 0xffff);
}

static void numbers(void **state)
{
	uint8_t first[16];

	(void)state;
	test_start(test, ALL, 1);
	/* Two pieces, one of them in a table of its own. */
	describe(0, TEST_BUFFER, 5, WRITE | NEXT, 3);
	describe(3, TEST_BUFFER + 0x100, 16, INDIRECT, 0);
	*(struct test_descriptor *)(test->ram + TEST_BUFFER + 0x100) =
		(struct test_descriptor){TEST_BUFFER + 0x200, 11, WRITE, 0};
	test_give(test, 0, 0);
	assert_int_equal(test_used(test, 0)[1], 1);
	assert_int_equal(test_written(test, 0), 16);
	memcpy(first, test->ram + TEST_BUFFER, 5);
	memcpy(first + 5, test->ram + TEST_BUFFER + 0x200, 11);
	assert_int_equal(test->ram[TEST_BUFFER + 5], 0);
	assert_int_equal(test->ram[TEST_BUFFER + 0x20b], 0);
	/* The same seed, the same numbers. */
	rng.state = 1;
	describe(1, TEST_BUFFER + 0x300, 16, WRITE, 0);
	test_give(test, 0, 1);
	assert_int_equal(test_used(test, 0)[1], 2);
	assert_memory_equal(test->ram + TEST_BUFFER + 0x300, first, 16);
	test_give(test, 0, 1);
	assert_memory_not_equal(test->ram + TEST_BUFFER + 0x300, first, 16);
	assert_false(needs_reset());
}

static void interrupts(void **state)
{
	unsigned irq = PCI_IRQ(TEST_SLOT, 0), msix;

	(void)state;
	test_start(test, VIRTIO_F_VERSION_1, 1);
	describe(0, TEST_BUFFER, 8, WRITE, 0);
	test_give(test, 0, 0);
	assert_true(test->line[irq]);
	/* Reading why takes it back. */
	assert_int_equal(test_mmio_read(test, TEST_BASE + 0x1000, 1), 1);
	assert_false(test->line[irq]);
	assert_int_equal(test_mmio_read(test, TEST_BASE + 0x1000, 1), 0);
	test_avail(test, 0)[0] = 1; /* the driver does not want any */
	test_give(test, 0, 0);
	assert_false(test->line[irq]);
	test_avail(test, 0)[0] = 0;
	/* By message. */
	msix = test_capability(test, TEST_SLOT, 0x11, 0);
	test_mmio_write(test, TEST_MSIX, 4, 0xfee00000);
	test_mmio_write(test, TEST_MSIX + 8, 4, 0x55);
	test_mmio_write(test, TEST_MSIX + 12, 4, 0);
	test_config_write(test, TEST_SLOT, msix + 2, 2, 0x8000);
	test_give(test, 0, 0);
	assert_int_equal(test->messages, 1);
	assert_int_equal(test->message_data, 0x55);
	assert_false(test->line[irq]);
}

static void event_index(void **state)
{
	unsigned irq = PCI_IRQ(TEST_SLOT, 0);

	(void)state;
	test_start(test, ALL, 1);
	describe(0, TEST_BUFFER, 8, WRITE, 0);
	test_avail(test, 0)[2 + TEST_SIZE] = 2; /* tell me when the third has been used */
	for (unsigned i = 0; i < 4; i++) {
		test_give(test, 0, 0);
		/* The first is always told: nothing is known of the one before. */
		assert_int_equal(test->line[irq], i == 0 || i == 2);
		test_mmio_read(test, TEST_BASE + 0x1000, 1);
		/* The device asks to be told of the next. */
		assert_int_equal(test_used(test, 0)[2 + 4 * TEST_SIZE], i + 1);
	}
}

static void not_a_master(void **state)
{
	(void)state;
	test_start(test, ALL, 1);
	describe(0, TEST_BUFFER, 8, WRITE, 0);
	test_config_write(test, TEST_SLOT, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	test_give(test, 0, 0);
	assert_int_equal(test_used(test, 0)[1], 0);
	test_config_write(test, TEST_SLOT, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	test_mmio_write(test, TEST_BASE + 0x3000, 2, 0);
	assert_int_equal(test_used(test, 0)[1], 1);
}

/* Each breaks one rule, and nothing else of the device. */
static void broken_rings(void **state)
{
	struct test_descriptor *inner = (struct test_descriptor *)(test->ram + TEST_BUFFER);

	(void)state;
#define BREAKS(features, ...)                                                                                \
	do {                                                                                                 \
		test_start(test, features, 1);                                                               \
		assert_false(needs_reset());                                                                 \
		__VA_ARGS__;                                                                                 \
		test_give(test, 0, 0);                                                                       \
		assert_true(needs_reset());                                                                  \
		assert_int_equal(test_used(test, 0)[1], 0);                                                  \
		/* The driver is told, and nothing more is done. */                                          \
		assert_int_equal(test_mmio_read(test, TEST_BASE + 0x1000, 1), 2);                            \
		describe(0, TEST_BUFFER, 8, WRITE, 0);                                                       \
		test_give(test, 0, 0);                                                                       \
		assert_int_equal(test_used(test, 0)[1], 0);                                                  \
	} while (0)
	BREAKS(ALL, describe(0, TEST_BUFFER, 8, WRITE | NEXT, 1),
	       describe(1, TEST_BUFFER, 8, WRITE | NEXT, 0));
	BREAKS(ALL, describe(0, TEST_BUFFER, 8, WRITE | NEXT, TEST_SIZE));
	BREAKS(ALL, describe(0, TEST_RAM, 8, WRITE, 0));
	BREAKS(ALL, describe(0, ~0ull - 3, 8, WRITE, 0));
	BREAKS(ALL, describe(0, TEST_BUFFER, 8, WRITE | NEXT, 1), describe(1, TEST_BUFFER, 8, 0, 0));
	BREAKS(VIRTIO_F_VERSION_1, describe(0, TEST_BUFFER, 16, INDIRECT, 0),
	       *inner = (struct test_descriptor){0});
	BREAKS(ALL, describe(0, TEST_BUFFER, 16, INDIRECT | NEXT, 1));
	BREAKS(ALL, describe(0, TEST_BUFFER, 17, INDIRECT, 0));
	BREAKS(ALL, describe(0, TEST_BUFFER, 0, INDIRECT, 0));
	BREAKS(ALL, describe(0, TEST_RAM, 16, INDIRECT, 0));
	BREAKS(ALL, describe(0, TEST_BUFFER, 16, INDIRECT, 0),
	       *inner = (struct test_descriptor){TEST_BUFFER, 16, INDIRECT, 0});
	BREAKS(ALL, describe(0, TEST_BUFFER, 16, INDIRECT, 0),
	       *inner = (struct test_descriptor){TEST_BUFFER, 16, WRITE | NEXT, 1});
	BREAKS(ALL, describe(0, TEST_BUFFER, 8, WRITE, 0), test_avail(test, 0)[1] = TEST_SIZE);
	BREAKS(ALL, describe(0, TEST_BUFFER, 8, WRITE, 0),
	       (test_avail(test, 0)[2] = TEST_SIZE, test_avail(test, 0)[1] = 1));
#undef BREAKS
	/* As does a queue that is nowhere. */
	test_start(test, ALL, 0);
	test_set(test, Q_SELECT, 2, 0);
	test_set(test, Q_DESC, 4, TEST_RAM);
	test_set(test, Q_ENABLE, 2, 1);
	assert_true(needs_reset());
	assert_int_equal(test_common(test, Q_ENABLE, 2), 0);
}

/* ---- at random ---- */

static uint64_t any_address(struct fuzz *fuzz)
{
	switch (fuzz_below(fuzz, 8)) {
	case 0: return fuzz_next(fuzz);
	case 1: return TEST_RAM - fuzz_below(fuzz, 64);
	default: return fuzz_below(fuzz, TEST_RAM);
	}
}

static void any_descriptor(struct fuzz *fuzz, struct test_descriptor *to)
{
	static const uint32_t sizes[] = {0, 1, 8, 16, 48, 4096, 65536, 0xffffffff};

	*to = (struct test_descriptor){any_address(fuzz), sizes[fuzz_below(fuzz, 8)],
				       (uint16_t)fuzz_below(fuzz, fuzz_one_in(fuzz, 4) ? 8 : 4),
				       (uint16_t)fuzz_below(fuzz, TEST_SIZE + fuzz_one_in(fuzz, 16))};
}

static void round_of_rings(struct fuzz *fuzz, uint64_t round)
{
	uint64_t features = VIRTIO_F_VERSION_1 | (fuzz_next(fuzz) & ALL);

	(void)round;
	test_start(test, features, fuzz_below(fuzz, 8) ? 1 : 0);
	for (unsigned i = 0; i < TEST_SIZE; i++) {
		any_descriptor(fuzz, &test_table(test, 0)[i]);
		any_descriptor(fuzz, (struct test_descriptor *)(test->ram + TEST_BUFFER) + i);
	}
	for (unsigned i = fuzz_below(fuzz, 6); i; i--) {
		uint32_t offset = fuzz_below(fuzz, 0x4000), value = (uint32_t)fuzz_next(fuzz);

		switch (fuzz_below(fuzz, 4)) {
		case 0:
			test_mmio_write(test, TEST_BASE + offset % 0x40, 1u << fuzz_below(fuzz, 3), value);
			break;
		case 1: test_mmio_read(test, TEST_BASE + offset, 1u << fuzz_below(fuzz, 4)); break;
		case 2: test_avail(test, 0)[offset % 16] = (uint16_t)value; break;
		default: test_give(test, 0, (uint16_t)fuzz_below(fuzz, TEST_SIZE)); break;
		}
	}
	/* Whatever it was, a reset mends it. */
	test_start(test, ALL, 1);
	describe(0, TEST_BUFFER, 8, WRITE, 0);
	test_give(test, 0, 0);
	if (test_used(test, 0)[1] != 1 || needs_reset())
		fail_msg("FUZZ_ROUND=%llu: a reset does not mend the device", (unsigned long long)round);
}

static void random_rings(void **state)
{
	(void)state;
	fuzz_rounds(20000, round_of_rings);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(capabilities), TEST(negotiation),  TEST(numbers),      TEST(interrupts),
		TEST(event_index),  TEST(not_a_master), TEST(broken_rings), TEST(random_rings),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
