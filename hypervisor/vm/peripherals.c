#include "vm/peripherals.h"

#include <stdio.h>

int peripherals_attach(struct peripherals *peripherals, const struct peripherals_config *config,
		       const struct dma *dma, struct pci *pci)
{
	char id[VIRTIO_BLK_ID_SIZE + 1];
	int error = 0;

	peripherals->has_entropy = config->entropy;
	peripherals->has_console = config->console;
	if (config->entropy)
		error = virtio_rng_init(&peripherals->rng, config->seed, dma, pci);
	for (; !error && peripherals->disks < config->disks; peripherals->disks++) {
		snprintf(id, sizeof(id), "disk%u", peripherals->disks);
		error = virtio_blk_init(&peripherals->blk[peripherals->disks],
					config->disk[peripherals->disks], id, dma, pci);
	}
	peripherals->console.loop = config->loop;
	if (!error && config->console)
		error = virtio_console_init(&peripherals->console, config->sent, config->owner, dma, pci);
	return error;
}

void peripherals_reset(struct peripherals *peripherals)
{
	if (peripherals->has_entropy)
		virtio_reset(&peripherals->rng.virtio);
	for (unsigned i = 0; i < peripherals->disks; i++)
		virtio_reset(&peripherals->blk[i].virtio);
	if (peripherals->has_console)
		virtio_reset(&peripherals->console.virtio);
}

void *peripherals_device(struct peripherals *peripherals, unsigned index, const struct state_table **table)
{
	if (peripherals->has_entropy && index-- == 0) {
		*table = &virtio_rng_state;
		return &peripherals->rng;
	}
	if (index < peripherals->disks) {
		*table = &virtio_blk_state;
		return &peripherals->blk[index];
	}
	*table = &virtio_console_state;
	return peripherals->has_console && index == peripherals->disks ? &peripherals->console : NULL;
}
