#include "dev/pci.h"

#include <errno.h>
#include <string.h>

#define RESET_CPU       4u /* a rising edge resets */
#define ADDRESS_ENABLE  0x80000000u
#define ADDRESS_DEFINED 0x80fffffcu
#define COMMAND_DEFINED                                                                                      \
	(PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | 0x40u | 0x100u | PCI_COMMAND_INTX_DISABLE)
#define BAR_IO           1u
#define CAPABILITY_FIRST 0x40u

static const struct state_field fields[] = {STATE(struct pci, address), STATE(struct pci, reset),
					    STATE(struct pci, count)};
STATE_TABLE(pci_state, "pci", 2, fields);

static const struct state_field bridge_fields[] = {STATE(struct pci_function, config)};
STATE_TABLE(pci_host_bridge_state, "pci-host-bridge", 1, bridge_fields);
STATE_TABLE(pci_isa_bridge_state, "pci-isa-bridge", 1, bridge_fields);

/* ---- functions ---- */

static void set16(uint8_t *at, uint16_t value)
{
	at[0] = (uint8_t)value;
	at[1] = (uint8_t)(value >> 8);
}

static void set32(uint8_t *at, uint32_t value)
{
	set16(at, (uint16_t)value);
	set16(at + 2, (uint16_t)(value >> 16));
}

static uint32_t get32(const uint8_t *at)
{
	return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

void pci_function_init(struct pci_function *function, uint16_t vendor, uint16_t device, uint32_t class,
		       uint8_t revision)
{
	uint8_t *config = function->config;

	set16(config + PCI_VENDOR, vendor);
	set16(config + PCI_DEVICE, device);
	set32(config + PCI_REVISION, class << 8 | revision);
	set16(function->mask + PCI_COMMAND, COMMAND_DEFINED);
	function->mask[0x0c] = 0xff; /* cache line size: there is none, but it may be written */
	function->mask[PCI_INTERRUPT_LINE] = 0xff;
}

void pci_function_bar(struct pci_function *function, unsigned index, uint32_t size, bool port,
		      const struct bus_ops *ops, void *device)
{
	function->bar[index] = (struct pci_bar){.size = size, .port = port, .ops = ops, .device = device};
	set32(function->mask + PCI_BAR0 + 4 * index, ~(size - 1));
	set32(function->config + PCI_BAR0 + 4 * index, port ? BAR_IO : 0);
}

unsigned pci_function_capability(struct pci_function *function, uint8_t id, unsigned size)
{
	unsigned offset = function->capability_end ? function->capability_end : CAPABILITY_FIRST;
	uint8_t *link = &function->config[PCI_CAPABILITIES];

	if (offset + size > sizeof(function->config) - 4)
		return 0;
	while (*link)
		link = &function->config[*link + 1];
	*link = (uint8_t)offset;
	function->config[offset] = id;
	function->config[PCI_STATUS] |= PCI_STATUS_CAPABILITIES;
	function->capability_end = (uint8_t)((offset + size + 3) & ~3u);
	return offset;
}

static int add(struct pci *pci, struct pci_function *function, unsigned slot, unsigned number)
{
	if (pci->functions == PCI_FUNCTIONS_MAX)
		return -ENOSPC;
	function->slot = (uint8_t)slot;
	function->number = (uint8_t)number;
	function->pci = pci;
	pci->function[pci->functions++] = function;
	return 0;
}

int pci_add(struct pci *pci, struct pci_function *function)
{
	int error = add(pci, function, pci->slots, 0);

	if (error)
		return error;
	pci->slots++;
	if (function->config[PCI_INTERRUPT_PIN])
		function->config[PCI_INTERRUPT_LINE] = (uint8_t)PCI_IRQ(function->slot, 0);
	return 0;
}

int pci_add_beside(struct pci *pci, struct pci_function *function, struct pci_function *first, unsigned number)
{
	first->config[PCI_HEADER_TYPE] |= PCI_HEADER_MULTIFUNCTION;
	return add(pci, function, first->slot, number);
}

void pci_function_reset(struct pci_function *function)
{
	pci_interrupt(function, false);
	for (unsigned i = 0; i < sizeof(function->config); i++)
		if (i != PCI_INTERRUPT_LINE)
			function->config[i] &= (uint8_t)~function->mask[i];
}

/* ---- interrupts ---- */

/* Several functions share a line: it is asserted while one of them does. */
static void update_line(struct pci_function *function)
{
	bool asserted =
		function->asserted && !(pci_config16(function, PCI_COMMAND) & PCI_COMMAND_INTX_DISABLE);
	struct pci *pci = function->pci;
	unsigned irq = PCI_IRQ(function->slot, 0);

	if (asserted == function->line)
		return;
	function->line = asserted;
	pci->count[irq] = (uint8_t)(asserted ? pci->count[irq] + 1 : pci->count[irq] - 1);
	if (pci->interrupt && pci->count[irq] == asserted)
		pci->interrupt(pci->owner, irq, asserted);
}

/* The status bit tells of the device's wish, whatever the command register makes of it (6.2.3). */
void pci_interrupt(struct pci_function *function, bool asserted)
{
	function->asserted = asserted;
	if (asserted)
		function->config[PCI_STATUS] |= PCI_STATUS_INTERRUPT;
	else
		function->config[PCI_STATUS] &= (uint8_t)~PCI_STATUS_INTERRUPT;
	if (function->pci)
		update_line(function);
}

void pci_message(struct pci_function *function, uint64_t address, uint32_t data)
{
	struct pci *pci = function->pci;

	if (pci_is_master(function) && pci->msi)
		pci->msi(pci->owner, address, data);
}

/* ---- configuration ---- */

static struct pci_function *addressed(const struct pci *pci)
{
	unsigned slot = pci->address >> 11 & 31, number = pci->address >> 8 & 7;

	if (!(pci->address & ADDRESS_ENABLE) || (pci->address >> 16 & 0xff) != 0)
		return NULL;
	for (unsigned i = 0; i < pci->functions; i++)
		if (pci->function[i]->slot == slot && pci->function[i]->number == number)
			return pci->function[i];
	return NULL;
}

static uint64_t data_read(void *device, uint64_t offset, unsigned size)
{
	const struct pci *pci = device;
	struct pci_function *function = addressed(pci);
	unsigned at = (pci->address & 0xfc) + (unsigned)offset;
	uint32_t value = 0;

	if (!function)
		return ~0ull;
	if (function->config_read)
		function->config_read(function->owner, at, size);
	memcpy(&value, function->config + at, size);
	return value;
}

static void data_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
	const struct pci *pci = device;
	struct pci_function *function = addressed(pci);
	unsigned at = (pci->address & 0xfc) + (unsigned)offset;

	if (!function)
		return;
	for (unsigned i = 0; i < size; i++) {
		uint8_t mask = function->mask[at + i], byte = (uint8_t)(value >> (8 * i));

		function->config[at + i] = (uint8_t)((function->config[at + i] & ~mask) | (byte & mask));
	}
	update_line(function);
	if (function->config_written)
		function->config_written(function->owner, at, size);
}

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

/* ---- base address registers ---- */

static bool bar_decodes(const struct pci_function *function, unsigned index, const struct bus_access *access,
			struct bus_range *range)
{
	const struct pci_bar *bar = &function->bar[index];
	uint32_t base = get32(function->config + PCI_BAR0 + 4 * index) & ~(bar->size - 1);

	/* Sizing leaves an address of ones, which is none. */
	if (bar->size == 0 || bar->port != access->port || base == ~(bar->size - 1) || base == 0)
		return false;
	if (bar->port && base > 0xffff)
		return false;
	*range = (struct bus_range){base, bar->size, bar->ops, bar->device};
	return access->address - base < bar->size;
}

/* Of ranges that overlap, the lowest slot answers. */
static bool decode(void *owner, const struct bus_access *access, struct bus_range *range)
{
	const struct pci *pci = owner;
	uint16_t enable = access->port ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY;

	for (unsigned i = 0; i < pci->functions; i++) {
		const struct pci_function *function = pci->function[i];

		if (function->decode && function->decode(function->owner, access, range))
			return true;
		if (!(pci_config16(function, PCI_COMMAND) & enable))
			continue;
		for (unsigned j = 0; j < PCI_BARS; j++)
			if (bar_decodes(function, j, access, range))
				return true;
	}
	return false;
}

/* ---- the PC's bridges ---- */

#define INTEL       0x8086
#define I440FX      0x1237
#define PIIX3       0x7000
#define PAM_FIRST   0x59
#define PAM_COUNT   7
#define RED_HAT     0x1af4
#define QEMU_PC     0x1100
#define CLASS_HOST  0x060000
#define CLASS_ISA   0x060100
#define PIIX3_PIRQ  0x60
#define PIIX3_PIRQS 4

/*
 * Memory below 1 MiB is RAM, to read and to write, whatever the registers that could hide it (PAM) hold: firmware
 * that sets them to copy itself there finds what it wants.
 */
static void make_bridges(struct pci *pci)
{
	struct pci_function *host = &pci->host_bridge, *isa = &pci->isa_bridge;

	pci_function_init(host, INTEL, I440FX, CLASS_HOST, 2);
	set16(host->config + PCI_SUBSYSTEM_VENDOR, RED_HAT);
	set16(host->config + PCI_SUBSYSTEM, QEMU_PC);
	memset(host->mask + PAM_FIRST, 0x33, PAM_COUNT);
	host->mask[PAM_FIRST] = 0x30;
	pci_function_init(isa, INTEL, PIIX3, CLASS_ISA, 0);
	set16(isa->config + PCI_SUBSYSTEM_VENDOR, RED_HAT);
	set16(isa->config + PCI_SUBSYSTEM, QEMU_PC);
	/* Which interrupt each line leads to is fixed: PCI_IRQ(). */
	for (unsigned i = 0; i < PIIX3_PIRQS; i++)
		isa->config[PIIX3_PIRQ + i] = (uint8_t)PCI_IRQ(i, 0);
}

void pci_reset(struct pci *pci)
{
	pci->address = 0;
	pci->reset = 0;
	pci_function_reset(&pci->host_bridge);
	pci_function_reset(&pci->isa_bridge);
}

static const struct bus_ops address_ops = {
	.name = "PCI configuration address", .width = 4, .read = address_read, .write = address_write};
static const struct bus_ops data_ops = {
	.name = "PCI configuration data", .width = 4, .read = data_read, .write = data_write};

int pci_attach(struct pci *pci, struct bus *bus)
{
	int error = bus_claim_ports(bus, PCI_ADDRESS_PORT, 4, &address_ops, pci);

	if (!error)
		error = bus_claim_ports(bus, PCI_DATA_PORT, 4, &data_ops, pci);
	if (error)
		return error;
	bus->decode = decode;
	bus->decode_owner = pci;
	make_bridges(pci);
	error = pci_add(pci, &pci->host_bridge);
	return error ? error : pci_add(pci, &pci->isa_bridge);
}
