/*
 * pci.h: PCI bus 0 behind configuration mechanism 1 (0xcf8, 0xcfc; PCI 3.0, 3.2.2.3.2), the decoding of base
 * address registers, INTx lines, and the reset control register (0xcf9).
 *
 * A device embeds a struct pci_function, says what its configuration space holds and what of it can be
 * written, and is called for accesses to its base address registers wherever the guest puts them. What is not
 * there reads as ones (a master abort).
 *
 * Interrupt lines: INTA to INTD of slot N lead to the PC's interrupts 10 and 11, which are level triggered,
 * by PCI_IRQ(). ACPI's routing tables say the same.
 */
#ifndef TRAPLINE_DEV_PCI_H
#define TRAPLINE_DEV_PCI_H

#include "dev/bus.h"
#include "dev/state.h"

#define PCI_ADDRESS_PORT 0xcf8
#define PCI_RESET_PORT   0xcf9
#define PCI_DATA_PORT    0xcfc

/* The interrupt of pin 0 (INTA) to 3 of a slot. */
#define PCI_IRQ(slot, pin) (((slot) + (pin)) % 2 ? 11u : 10u)

#define PCI_BARS          6u
#define PCI_FUNCTIONS_MAX 16u

/* Configuration space (PCI 3.0, 6.1). */
enum {
	PCI_VENDOR = 0x00,
	PCI_DEVICE = 0x02,
	PCI_COMMAND = 0x04,
	PCI_STATUS = 0x06,
	PCI_REVISION = 0x08,
	PCI_CLASS = 0x09,
	PCI_HEADER_TYPE = 0x0e,
	PCI_BAR0 = 0x10,
	PCI_SUBSYSTEM_VENDOR = 0x2c,
	PCI_SUBSYSTEM = 0x2e,
	PCI_CAPABILITIES = 0x34,
	PCI_INTERRUPT_LINE = 0x3c,
	PCI_INTERRUPT_PIN = 0x3d,
};
#define PCI_HEADER_MULTIFUNCTION 0x80u
#define PCI_COMMAND_IO           0x0001u
#define PCI_COMMAND_MEMORY       0x0002u
#define PCI_COMMAND_MASTER       0x0004u
#define PCI_COMMAND_INTX_DISABLE 0x0400u
#define PCI_STATUS_INTERRUPT     0x0008u
#define PCI_STATUS_CAPABILITIES  0x0010u

struct pci;

/* A base address register: a power of two of bytes, 16 and more in memory, 4 to 256 of ports. 0: there is
 * none. */
struct pci_bar {
	uint32_t size;
	bool port;
	const struct bus_ops *ops;
	void *device;
};

struct pci_function {
	uint8_t config[256]; /* state */
	uint8_t asserted;    /* state: the device asks for INTA */
	uint8_t line;        /* state: INTA is asserted */

	uint8_t mask[256]; /* bits that the guest can write */
	struct pci_bar bar[PCI_BARS];
	uint8_t capability_end; /* where the next capability goes; 0: there is none yet */
	uint8_t slot, number;   /* device and function */
	void *owner;
	/* Asked for accesses that no base address register takes: ranges that other registers place. May be NULL. */
	bool (*decode)(void *owner, const struct bus_access *access, struct bus_range *range);
	/* A configuration access, before a read and behind a write; may be NULL. */
	void (*config_read)(void *owner, unsigned offset, unsigned size);
	void (*config_written)(void *owner, unsigned offset, unsigned size);
	struct pci *pci;
};

/* The fields for a device's state table. */
#define PCI_FUNCTION_STATE(type, member)                                                                     \
	STATE(type, member.config), STATE(type, member.asserted), STATE(type, member.line)

struct pci {
	uint32_t address;  /* state: CONFIG_ADDRESS */
	uint8_t reset;     /* state: reset control */
	uint8_t count[24]; /* state: functions that assert each interrupt */

	struct pci_function *function[PCI_FUNCTIONS_MAX];
	unsigned functions, slots;
	struct pci_function host_bridge, isa_bridge;
	void *owner;
	void (*reset_asked)(void *owner);
	/* May be NULL: the lines and messages lead nowhere. */
	void (*interrupt)(void *owner, unsigned irq, bool raised);
	void (*msi)(void *owner, uint64_t address, uint32_t data);
};

extern const struct state_table pci_state, pci_host_bridge_state, pci_isa_bridge_state;

/* Claims the ports, becomes what the bus asks for addresses that no fixed range holds, and adds the two
 * bridges that a PC has. As bus_claim_ports(). */
int pci_attach(struct pci *pci, struct bus *bus);
/* As after RESET: bridges and CONFIG_ADDRESS; devices reset themselves with pci_function_reset(). */
void pci_reset(struct pci *pci);

/* Sets the fixed part of an empty function's configuration space. @class is class, subclass and interface. */
void pci_function_init(struct pci_function *function, uint16_t vendor, uint16_t device, uint32_t class,
		       uint8_t revision);
/* Adds a base address register. */
void pci_function_bar(struct pci_function *function, unsigned index, uint32_t size, bool port,
		      const struct bus_ops *ops, void *device);
/* Adds a capability of @size bytes, of which the first two are written here; returns its offset, or 0 where
 * there is no room. */
unsigned pci_function_capability(struct pci_function *function, uint8_t id, unsigned size);
/* Takes the next free slot. 0, -ENOSPC. */
int pci_add(struct pci *pci, struct pci_function *function);
/* Becomes function @number of the slot that @first, its function 0, has. 0, -ENOSPC. */
int pci_add_beside(struct pci *pci, struct pci_function *function, struct pci_function *first, unsigned number);
/* What RESET does to the registers that the guest can write. */
void pci_function_reset(struct pci_function *function);

/* INTA, as the device asks for it; the command register may hold it back. */
void pci_interrupt(struct pci_function *function, bool asserted);
/* Sends a message-signalled interrupt, where the function may be a bus master. */
void pci_message(struct pci_function *function, uint64_t address, uint32_t data);
static inline uint16_t pci_config16(const struct pci_function *function, unsigned offset)
{
	return (uint16_t)(function->config[offset] | function->config[offset + 1] << 8);
}
static inline bool pci_is_master(const struct pci_function *function)
{
	return pci_config16(function, PCI_COMMAND) & PCI_COMMAND_MASTER;
}

#endif
