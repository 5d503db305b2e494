/* A driver for tests: finds a virtio device's regions, negotiates, and fills rings. */
#ifndef TRAPLINE_DEV_TEST_VIRTIO_H
#define TRAPLINE_DEV_TEST_VIRTIO_H

#include "dev/test_pci.h"
#include "dev/virtio.h"

#define TEST_BASE   0xe0000000u
#define TEST_MSIX   0xe0010000u
#define TEST_SLOT   2u
#define TEST_SIZE   8u /* of a queue */
#define TEST_RING   0x1000u
#define TEST_BUFFER 0x8000u

/* Offsets of struct virtio_pci_common_cfg. */
enum {
	DFSELECT = 0x00,
	DF = 0x04,
	GFSELECT = 0x08,
	GF = 0x0c,
	MSIX_CONFIG = 0x10,
	NUM_QUEUES = 0x12,
	STATUS = 0x14,
	Q_SELECT = 0x16,
	Q_SIZE = 0x18,
	Q_MSIX = 0x1a,
	Q_ENABLE = 0x1c,
	Q_DESC = 0x20,
	Q_AVAIL = 0x28,
	Q_USED = 0x30,
};

struct test_descriptor {
	uint64_t address;
	uint32_t size;
	uint16_t flags, next;
};

#define NEXT     1u
#define WRITE    2u
#define INDIRECT 4u

static inline unsigned test_common(struct test_pci *test, unsigned offset, unsigned size)
{
	return (unsigned)test_mmio_read(test, TEST_BASE + offset, size);
}

static inline void test_set(struct test_pci *test, unsigned offset, unsigned size, uint32_t value)
{
	test_mmio_write(test, TEST_BASE + offset, size, value);
}

/* Descriptors, available ring and used ring of queue @index. */
static inline uint32_t test_ring(unsigned index) { return TEST_RING + index * 0x1000; }
static inline struct test_descriptor *test_table(struct test_pci *test, unsigned index)
{
	return (struct test_descriptor *)(test->ram + test_ring(index));
}
static inline uint16_t *test_avail(struct test_pci *test, unsigned index)
{
	return (uint16_t *)(test->ram + test_ring(index) + 0x400);
}
static inline uint16_t *test_used(struct test_pci *test, unsigned index)
{
	return (uint16_t *)(test->ram + test_ring(index) + 0x800);
}

static inline void test_set_queue(struct test_pci *test, unsigned index)
{
	test_set(test, Q_SELECT, 2, index);
	test_set(test, Q_SIZE, 2, TEST_SIZE);
	test_set(test, Q_DESC, 4, test_ring(index));
	test_set(test, Q_AVAIL, 4, test_ring(index) + 0x400);
	test_set(test, Q_USED, 4, test_ring(index) + 0x800);
	test_set(test, Q_MSIX, 2, index);
	test_set(test, Q_ENABLE, 2, 1);
}

/* From reset to DRIVER_OK with @features taken. */
static inline void test_start(struct test_pci *test, uint64_t features, unsigned queues)
{
	test_config_write(test, TEST_SLOT, PCI_BAR0 + 16, 4, TEST_BASE);
	test_config_write(test, TEST_SLOT, PCI_BAR0 + 4, 4, TEST_MSIX);
	test_config_write(test, TEST_SLOT, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	test_set(test, STATUS, 1, 0);
	memset(test->ram, 0, sizeof(test->ram));
	test_set(test, STATUS, 1, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER);
	test_set(test, GFSELECT, 4, 0);
	test_set(test, GF, 4, (uint32_t)features);
	test_set(test, GFSELECT, 4, 1);
	test_set(test, GF, 4, (uint32_t)(features >> 32));
	test_set(test, STATUS, 1, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK);
	for (unsigned i = 0; i < queues; i++)
		test_set_queue(test, i);
	test_set(test, STATUS, 1, VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_FEATURES_OK | VIRTIO_DRIVER_OK);
}

/* Makes the chain that begins at descriptor @head available, and says so. */
static inline void test_give(struct test_pci *test, unsigned index, uint16_t head)
{
	uint16_t *avail = test_avail(test, index);

	avail[2 + avail[1] % TEST_SIZE] = head;
	avail[1]++;
	test_mmio_write(test, TEST_BASE + 0x3000 + 4 * index, 2, index);
}

/* The used ring's newest entry: its length. */
static inline uint32_t test_written(struct test_pci *test, unsigned index)
{
	uint16_t *used = test_used(test, index);
	uint32_t length;

	memcpy(&length, used + 2 + 4 * ((used[1] - 1) % TEST_SIZE) + 2, 4);
	return length;
}

#endif
