/* virtio_rng.h: an entropy device (virtio 1.2, 5.4) whose numbers follow from a seed, so that a run can be
 * repeated. */
#ifndef TRAPLINE_DEV_VIRTIO_RNG_H
#define TRAPLINE_DEV_VIRTIO_RNG_H

#include "dev/virtio.h"

struct virtio_rng {
	struct virtio virtio;
	uint64_t state; /* state: of the generator */
};

extern const struct state_table virtio_rng_state;

/* As virtio_init(). */
int virtio_rng_init(struct virtio_rng *rng, uint64_t seed, const struct dma *dma, struct pci *pci);

#endif
