#include "dev/pci.h"

#define RESET_CPU       4u /* a rising edge resets */
#define ADDRESS_DEFINED 0x80fffffcu

static const struct state_field fields[] = {STATE(struct pci, address), STATE(struct pci, reset)};
STATE_TABLE(pci_state, "pci", 1, fields);

/* Only whole doublewords reach CONFIG_ADDRESS; bytes at 0xcf9 are the reset control's. */
static uint64_t address_read(void *device, uint64_t offset, unsigned size)
{
	const struct pci *pci = device;

	if (offset == 0 && size == 4)
		return pci->address;
	if (offset == PCI_RESET_PORT - PCI_ADDRESS_PORT && size == 1)
		return pci->reset;
	return ~0ull;
}

static void address_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct pci *pci = device;

	if (offset == 0 && size == 4)
		pci->address = (uint32_t)value & ADDRESS_DEFINED;
	if (offset != PCI_RESET_PORT - PCI_ADDRESS_PORT || size != 1)
		return;
	if ((value & RESET_CPU) && !(pci->reset & RESET_CPU))
		pci->reset_asked(pci->owner);
	pci->reset = (uint8_t)value & 0x0e;
}

/* No device answers: a master abort reads as ones. */
static uint64_t data_read(void *device, uint64_t offset, unsigned size)
{
	(void)device;
	(void)offset;
	(void)size;
	return ~0ull;
}

static void data_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
	(void)device;
	(void)offset;
	(void)size;
	(void)value;
}

static const struct bus_ops address_ops = {
	.name = "PCI configuration address", .width = 4, .read = address_read, .write = address_write};
static const struct bus_ops data_ops = {
	.name = "PCI configuration data", .width = 4, .read = data_read, .write = data_write};

int pci_attach(struct pci *pci, struct bus *bus)
{
	int error = bus_claim_ports(bus, PCI_ADDRESS_PORT, 4, &address_ops, pci);

	return error ? error : bus_claim_ports(bus, PCI_DATA_PORT, 4, &data_ops, pci);
}
