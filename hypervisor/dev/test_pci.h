/* A PCI bus for tests: memory, and what its functions sent. */
#ifndef TRAPLINE_DEV_TEST_PCI_H
#define TRAPLINE_DEV_TEST_PCI_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "dev/dma.h"
#include "dev/pci.h"

#define TEST_RAM 0x40000u

struct test_pci {
	struct bus bus;
	struct pci pci;
	struct dma dma;
	uint8_t ram[TEST_RAM];
	unsigned resets, messages, unclaimed;
	uint64_t message_address;
	uint32_t message_data;
	bool line[24];
};

static inline const void *test_dma_read(void *owner, uint64_t address, uint64_t size)
{
	struct test_pci *test = owner;

	return address <= TEST_RAM && size <= TEST_RAM - address ? test->ram + address : NULL;
}

static inline bool test_dma_write(void *owner, uint64_t address, const void *from, size_t size)
{
	struct test_pci *test = owner;

	if (address > TEST_RAM || size > TEST_RAM - address)
		return false;
	memcpy(test->ram + address, from, size);
	return true;
}

static inline void test_reset_asked(void *owner) { ((struct test_pci *)owner)->resets++; }

static inline void test_interrupt(void *owner, unsigned irq, bool raised)
{
	((struct test_pci *)owner)->line[irq] = raised;
}

static inline void test_msi(void *owner, uint64_t address, uint32_t data)
{
	struct test_pci *test = owner;

	test->messages++;
	test->message_address = address;
	test->message_data = data;
}

static inline void test_unclaimed(void *owner, const struct bus_access *access)
{
	(void)access;
	((struct test_pci *)owner)->unclaimed++;
}

static inline struct test_pci *test_pci_new(void)
{
	struct test_pci *test = calloc(1, sizeof(*test));

	assert_non_null(test);
	test->bus.owner = test;
	test->bus.unclaimed = test_unclaimed;
	test->pci.owner = test;
	test->pci.reset_asked = test_reset_asked;
	test->pci.interrupt = test_interrupt;
	test->pci.msi = test_msi;
	test->dma = (struct dma){test, test_dma_read, test_dma_write};
	assert_int_equal(pci_attach(&test->pci, &test->bus), 0);
	return test;
}

static inline uint32_t test_config_read(struct test_pci *test, unsigned slot, unsigned offset, unsigned size)
{
	bus_port_out(&test->bus, PCI_ADDRESS_PORT, 4, 0x80000000u | slot << 11 | (offset & 0xfc));
	return bus_port_in(&test->bus, (uint16_t)(PCI_DATA_PORT + offset % 4), size);
}

static inline void test_config_write(struct test_pci *test, unsigned slot, unsigned offset, unsigned size,
				     uint32_t value)
{
	bus_port_out(&test->bus, PCI_ADDRESS_PORT, 4, 0x80000000u | slot << 11 | (offset & 0xfc));
	bus_port_out(&test->bus, (uint16_t)(PCI_DATA_PORT + offset % 4), size, value);
}

/* Offset of the first capability @id behind @after (0: from the start); 0 where there is none. */
static inline unsigned test_capability(struct test_pci *test, unsigned slot, unsigned id, unsigned after)
{
	unsigned at = test_config_read(test, slot, after ? after + 1 : PCI_CAPABILITIES, 1);

	while (at && test_config_read(test, slot, at, 1) != id)
		at = test_config_read(test, slot, at + 1, 1);
	return at;
}

static inline uint64_t test_mmio_read(struct test_pci *test, uint64_t address, unsigned size)
{
	uint64_t value = 0;

	bus_mmio_read(&test->bus, address, &value, size);
	return value;
}

static inline void test_mmio_write(struct test_pci *test, uint64_t address, unsigned size, uint64_t value)
{
	bus_mmio_write(&test->bus, address, &value, size);
}

#endif
