#include "dev/pci.h"

#include "dev/msix.h"
#include "dev/test_pci.h"

#define MEMORY_BASE 0xe0000000u
#define PORT_BASE   0xc000u

struct card {
	struct pci_function function;
	struct msix msix;
	uint64_t last; /* written to it */
};

static struct test_pci *test;
static struct card card;

static uint64_t card_read(void *device, uint64_t offset, unsigned size)
{
	(void)device;
	return offset << 8 | size;
}

static void card_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
	(void)size;
	((struct card *)device)->last = offset << 32 | value;
}

static const struct bus_ops card_ops = {.name = "card", .width = 4, .read = card_read, .write = card_write};

static int setup(void **state)
{
	(void)state;
	test = test_pci_new();
	card = (struct card){0};
	pci_function_init(&card.function, 0x1234, 0x5678, 0x020304, 9);
	card.function.config[PCI_INTERRUPT_PIN] = 1;
	pci_function_bar(&card.function, 0, 0x1000, false, &card_ops, &card);
	pci_function_bar(&card.function, 2, 0x20, true, &card_ops, &card);
	msix_init(&card.msix, &card.function, 5, 2);
	assert_int_equal(pci_add(&test->pci, &card.function), 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	free(test);
	return 0;
}

static void identity(void **state)
{
	(void)state;
	assert_int_equal(test_config_read(test, 0, 0, 4), 0x12378086);
	assert_int_equal(test_config_read(test, 1, 0, 4), 0x70008086);
	assert_int_equal(test_config_read(test, 2, 0, 4), 0x56781234);
	assert_int_equal(test_config_read(test, 2, 0, 2), 0x1234);
	assert_int_equal(test_config_read(test, 2, 3, 1), 0x56);
	assert_int_equal(test_config_read(test, 2, 8, 4), 0x02030409);
	assert_int_equal(test_config_read(test, 2, PCI_INTERRUPT_LINE, 1), PCI_IRQ(2, 0));
	/* What is not there reads as ones. */
	assert_int_equal(test_config_read(test, 3, 0, 4), 0xffffffff);
	assert_int_equal(test_config_read(test, 31, 0, 2), 0xffff);
	bus_port_out(&test->bus, PCI_ADDRESS_PORT, 4, 0x80000100 | 2 << 11); /* another function */
	assert_int_equal(bus_port_in(&test->bus, PCI_DATA_PORT, 4), 0xffffffff);
	bus_port_out(&test->bus, PCI_ADDRESS_PORT, 4, 0x80010000); /* another bus */
	assert_int_equal(bus_port_in(&test->bus, PCI_DATA_PORT, 4), 0xffffffff);
	bus_port_out(&test->bus, PCI_ADDRESS_PORT, 4, 2 << 11); /* not enabled */
	assert_int_equal(bus_port_in(&test->bus, PCI_DATA_PORT, 4), 0xffffffff);
}

static void configuration_address(void **state)
{
	(void)state;
	bus_port_out(&test->bus, PCI_ADDRESS_PORT, 4, 0xffffffff);
	assert_int_equal(bus_port_in(&test->bus, PCI_ADDRESS_PORT, 4), 0x80fffffc);
	/* Bytes do not reach it, but 0xcf9 is the reset control. */
	bus_port_out(&test->bus, PCI_ADDRESS_PORT, 1, 0);
	assert_int_equal(bus_port_in(&test->bus, PCI_ADDRESS_PORT, 4), 0x80fffffc);
	bus_port_out(&test->bus, PCI_RESET_PORT, 1, 0x02);
	assert_int_equal(test->resets, 0);
	bus_port_out(&test->bus, PCI_RESET_PORT, 1, 0x06);
	assert_int_equal(test->resets, 1);
	bus_port_out(&test->bus, PCI_RESET_PORT, 1, 0x06);
	assert_int_equal(test->resets, 1);
}

static void writable_bits(void **state)
{
	(void)state;
	test_config_write(test, 2, 0, 4, 0);
	assert_int_equal(test_config_read(test, 2, 0, 4), 0x56781234);
	test_config_write(test, 2, PCI_COMMAND, 2, 0xffff);
	assert_int_equal(test_config_read(test, 2, PCI_COMMAND, 2), 0x0547);
	test_config_write(test, 2, PCI_INTERRUPT_LINE, 1, 5);
	assert_int_equal(test_config_read(test, 2, PCI_INTERRUPT_LINE, 2), 0x0105);
	pci_function_reset(&card.function);
	assert_int_equal(test_config_read(test, 2, PCI_COMMAND, 2), 0);
	assert_int_equal(test_config_read(test, 2, 0, 4), 0x56781234);
}

static void base_addresses(void **state)
{
	(void)state;
	/* Sizing. */
	test_config_write(test, 2, PCI_BAR0, 4, 0xffffffff);
	assert_int_equal(test_config_read(test, 2, PCI_BAR0, 4), 0xfffff000);
	test_config_write(test, 2, PCI_BAR0 + 8, 4, 0xffffffff);
	assert_int_equal(test_config_read(test, 2, PCI_BAR0 + 8, 4), 0xffffffe1);
	test_config_write(test, 2, PCI_BAR0 + 4, 4, 0xffffffff);
	assert_int_equal(test_config_read(test, 2, PCI_BAR0 + 4, 4), 0);
	/* Placed, but not enabled. */
	test_config_write(test, 2, PCI_BAR0, 4, MEMORY_BASE);
	test_config_write(test, 2, PCI_BAR0 + 8, 4, PORT_BASE);
	assert_int_equal(test_mmio_read(test, MEMORY_BASE + 0x10, 4), 0xffffffff);
	assert_int_equal(bus_port_in(&test->bus, PORT_BASE, 1), 0xff);
	assert_int_equal(test->unclaimed, 2);
	test_config_write(test, 2, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	assert_int_equal(test_mmio_read(test, MEMORY_BASE + 0x10, 4), 0x1004);
	assert_int_equal(bus_port_in(&test->bus, PORT_BASE, 1), 0xff);
	test_config_write(test, 2, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_IO);
	assert_int_equal(bus_port_in(&test->bus, PORT_BASE + 0x1e, 2), 0x1e02);
	bus_port_out(&test->bus, PORT_BASE + 4, 1, 0x77);
	assert_int_equal(card.last, 4ull << 32 | 0x77);
	/* Only as far as it goes. */
	assert_int_equal(test->unclaimed, 3);
	bus_port_in(&test->bus, PORT_BASE + 0x20, 1);
	test_mmio_read(test, MEMORY_BASE + 0xffe, 4);
	assert_int_equal(test->unclaimed, 5);
	/* Moved. */
	test_config_write(test, 2, PCI_BAR0, 4, MEMORY_BASE + 0x5000);
	assert_int_equal(test_mmio_read(test, MEMORY_BASE + 0x5ffc, 4), 0xffc04);
	test_mmio_read(test, MEMORY_BASE, 4);
	assert_int_equal(test->unclaimed, 6);
}

/* Two functions share an interrupt; either may be held back by its command register. */
static void interrupt_lines(void **state)
{
	struct pci_function others[2] = {0};
	unsigned irq = PCI_IRQ(2, 0);

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		others[i].config[PCI_INTERRUPT_PIN] = 1;
		assert_int_equal(pci_add(&test->pci, &others[i]), 0);
	}
	assert_int_equal(PCI_IRQ(4, 0), irq);
	pci_interrupt(&card.function, true);
	assert_true(test->line[irq]);
	assert_true(test_config_read(test, 2, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT);
	pci_interrupt(&others[1], true);
	pci_interrupt(&card.function, false);
	assert_true(test->line[irq]);
	assert_false(test->line[PCI_IRQ(3, 0)]);
	pci_interrupt(&others[1], false);
	assert_false(test->line[irq]);
	pci_interrupt(&card.function, true);
	test_config_write(test, 2, PCI_COMMAND, 2, PCI_COMMAND_INTX_DISABLE);
	assert_false(test->line[irq]);
	assert_true(test_config_read(test, 2, PCI_STATUS, 2) & PCI_STATUS_INTERRUPT);
	test_config_write(test, 2, PCI_COMMAND, 2, 0);
	assert_true(test->line[irq]);
}

static void messages(void **state)
{
	unsigned at = test_capability(test, 2, 0x11, 0);

	(void)state;
	assert_int_not_equal(at, 0);
	assert_int_equal(test_config_read(test, 2, at + 2, 2), 1); /* two vectors */
	assert_int_equal(test_config_read(test, 2, at + 4, 4), 5);
	assert_int_equal(test_config_read(test, 2, at + 8, 4), MSIX_PENDING | 5);
	test_config_write(test, 2, PCI_BAR0 + 20, 4, MEMORY_BASE);
	test_config_write(test, 2, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	test_mmio_write(test, MEMORY_BASE + 16, 4, 0xfee01000);
	test_mmio_write(test, MEMORY_BASE + 24, 4, 0x41);
	msix_send(&card.msix, 1); /* not enabled: lost */
	test_config_write(test, 2, at + 2, 2, 0x8000);
	assert_int_equal(test->messages, 0);
	msix_send(&card.msix, 1); /* masked: pending */
	assert_int_equal(test->messages, 0);
	assert_int_equal(test_mmio_read(test, MEMORY_BASE + MSIX_PENDING, 4), 2);
	test_mmio_write(test, MEMORY_BASE + 28, 4, 0);
	assert_int_equal(test->messages, 1);
	assert_int_equal(test->message_address, 0xfee01000);
	assert_int_equal(test->message_data, 0x41);
	assert_int_equal(test_mmio_read(test, MEMORY_BASE + MSIX_PENDING, 4), 0);
	/* The mask of all. */
	test_config_write(test, 2, at + 2, 2, 0xc000);
	msix_send(&card.msix, 1);
	assert_int_equal(test->messages, 1);
	test_config_write(test, 2, at + 2, 2, 0x8000);
	msix_config_written(&card.msix);
	assert_int_equal(test->messages, 2);
	msix_send(&card.msix, 2); /* there is none */
	assert_int_equal(test->messages, 2);
	/* Messages are a bus master's. */
	test_config_write(test, 2, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
	msix_send(&card.msix, 1);
	assert_int_equal(test->messages, 2);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(identity),       TEST(configuration_address), TEST(writable_bits),
		TEST(base_addresses), TEST(interrupt_lines),       TEST(messages),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
