/*
 * peripherals.h: the virtio devices of a machine, as its configuration wants them, in the order of their
 * slots: entropy, disks, console.
 */
#ifndef TRAPLINE_VM_PERIPHERALS_H
#define TRAPLINE_VM_PERIPHERALS_H

#include "dev/virtio_blk.h"
#include "dev/virtio_console.h"
#include "dev/virtio_rng.h"

#define DISKS_MAX 8u

struct peripherals_config {
	struct disk *disk[DISKS_MAX]; /* borrowed */
	unsigned disks;
	bool entropy, console;
	bool loop; /* the console's output is its input */
	uint64_t seed; /* of the entropy */
	void *owner;
	void (*sent)(void *owner, uint8_t byte); /* what the guest prints on the virtio console */
};

struct peripherals {
	struct virtio_rng rng;
	struct virtio_blk blk[DISKS_MAX];
	struct virtio_console console;
	unsigned disks;
	bool has_entropy, has_console;
};

/* Makes the devices and puts them on the bus. 0, -ENOSPC. */
int peripherals_attach(struct peripherals *peripherals, const struct peripherals_config *config,
		       const struct dma *dma, struct pci *pci);
/* RESET. */
void peripherals_reset(struct peripherals *peripherals);
/* Each device with its table: NULL past the last. */
void *peripherals_device(struct peripherals *peripherals, unsigned index, const struct state_table **table);

#endif
