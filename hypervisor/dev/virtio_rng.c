#include "dev/virtio_rng.h"

#include <errno.h>

#define REQUEST_MAX 65536u /* more is given in the next one (5.4.6) */

static const struct state_field fields[] = {VIRTIO_STATE(struct virtio_rng, virtio),
					    STATE(struct virtio_rng, state)};
static void loaded(void *device) { virtio_loaded(&((struct virtio_rng *)device)->virtio); }
static const char *wrong(const void *device, const void *values)
{
	(void)device;
	return virtio_wrong(&((const struct virtio_rng *)values)->virtio);
}
STATE_TABLE(virtio_rng_state, "virtio-rng", 1, fields, loaded, wrong);

/* SplitMix64: every seed is a good one. */
static uint64_t next(struct virtio_rng *rng)
{
	uint64_t z = rng->state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

static int64_t request(struct virtio *virtio, unsigned index, const struct virtqueue_chain *chain)
{
	struct virtio_rng *rng = (struct virtio_rng *)virtio;
	uint64_t size = chain->write_size < REQUEST_MAX ? chain->write_size : REQUEST_MAX;

	for (uint64_t done = 0; done < size; done += 8) {
		uint64_t number = next(rng);
		size_t part = size - done < 8 ? (size_t)(size - done) : 8;

		if (!virtqueue_write(&virtio->queue[index], chain, done, &number, part))
			return -EIO;
	}
	return (int64_t)size;
}

static const struct virtio_type type = {.name = "virtio-rng",
					.id = 4,
					.class = 0x00ff00,
					.queues = 1,
					.notified = virtio_work,
					.request = request};

int virtio_rng_init(struct virtio_rng *rng, uint64_t seed, const struct dma *dma, struct pci *pci)
{
	rng->state = seed;
	return virtio_init(&rng->virtio, &type, 0, dma, pci);
}
