/*
 * pci.h: configuration mechanism 1 (0xcf8, 0xcfc) over a bus without devices, and the
 * reset control register (0xcf9).
 */
#ifndef TRAPLINE_DEV_PCI_H
#define TRAPLINE_DEV_PCI_H

#include "dev/bus.h"
#include "dev/state.h"

#define PCI_ADDRESS_PORT 0xcf8
#define PCI_RESET_PORT   0xcf9
#define PCI_DATA_PORT    0xcfc

struct pci {
	uint32_t address; /* CONFIG_ADDRESS */
	uint8_t reset;    /* reset control */

	void *owner;
	void (*reset_asked)(void *owner);
};

extern const struct state_table pci_state;

/* As bus_claim_ports(). */
int pci_attach(struct pci *pci, struct bus *bus);

#endif
