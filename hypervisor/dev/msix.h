/*
 * msix.h: the MSI-X capability of a PCI function (PCI 3.0, 6.8.2): table and pending bits in one page of a
 * base address register of their own.
 */
#ifndef TRAPLINE_DEV_MSIX_H
#define TRAPLINE_DEV_MSIX_H

#include "dev/pci.h"

#define MSIX_VECTORS_MAX 8u
#define MSIX_BAR_SIZE    4096u
#define MSIX_PENDING     2048u /* offset of the pending bits */

struct msix {
	uint32_t table[MSIX_VECTORS_MAX][4]; /* state: address, its upper half, data, control */
	uint64_t pending;                    /* state */

	struct pci_function *function;
	unsigned count;
	uint8_t capability; /* offset */
};

#define MSIX_STATE(type, member) STATE(type, member.table), STATE(type, member.pending)

/* Gives @function the capability with @count vectors, in base address register @bar. */
void msix_init(struct msix *msix, struct pci_function *function, unsigned bar, unsigned count);
void msix_reset(struct msix *msix);
bool msix_enabled(const struct msix *msix);
/* Sends vector @index, or remembers it while it is masked. Vectors that there are none of are nothing. */
void msix_send(struct msix *msix, unsigned index);
/* The function's configuration has been written: what is pending may go. */
void msix_config_written(struct msix *msix);

#endif
