/*
 * virtqueue.h: a split virtqueue, seen from the device (virtio 1.2, 2.7), with indirect descriptors and event
 * indices.
 *
 * What the driver wrote is not trusted: whatever breaks the rules makes the queue broken, which the device
 * tells its driver with DEVICE_NEEDS_RESET, and nothing of the chain is used.
 */
#ifndef TRAPLINE_DEV_VIRTQUEUE_H
#define TRAPLINE_DEV_VIRTQUEUE_H

#include "dev/dma.h"
#include "dev/state.h"

#define VIRTQUEUE_SIZE_MAX 256u

struct virtqueue {
	/* State. */
	uint64_t descriptors, driver, device; /* guest-physical: table, available ring, used ring */
	uint16_t size;
	uint16_t enabled;
	uint16_t taken;     /* index in the available ring of what comes next */
	uint16_t used;      /* index in the used ring of what is returned next */
	uint16_t told;      /* used, when the driver was last asked to look */
	uint16_t told_once; /* told means something */
	uint16_t vector;    /* of MSI-X */

	const struct dma *dma;
	bool event_index, indirect; /* negotiated */
};

/* The queue is @member of @type: one by one, as the queues of a device differ. */
#define VIRTQUEUE_STATE(type, member)                                                                        \
	STATE(type, member.descriptors), STATE(type, member.driver), STATE(type, member.device),             \
		STATE(type, member.size), STATE(type, member.enabled), STATE(type, member.taken),            \
		STATE(type, member.used), STATE(type, member.told), STATE(type, member.told_once),           \
		STATE(type, member.vector)

struct virtqueue_piece {
	uint64_t address;
	uint32_t size;
};

/* What a driver has made available: pieces to read, then pieces to write. */
struct virtqueue_chain {
	uint16_t head;
	unsigned reads, writes;
	uint64_t read_size, write_size;
	struct virtqueue_piece read[VIRTQUEUE_SIZE_MAX], write[VIRTQUEUE_SIZE_MAX];
};

/* Whether addresses and size may be enabled: alignment (2.7), a power of two, all of it in RAM. */
bool virtqueue_valid(const struct virtqueue *queue);
/* Takes the next chain. 1; 0: there is none; -EIO: the queue is broken. */
int virtqueue_take(struct virtqueue *queue, struct virtqueue_chain *chain);
/* Gives a chain back, @written bytes of which hold something. 0, -EIO. */
int virtqueue_return(struct virtqueue *queue, const struct virtqueue_chain *chain, uint32_t written);
/* Whether the driver wants an interrupt for what was returned since the last call. 1, 0, -EIO. */
int virtqueue_wants_interrupt(struct virtqueue *queue);

/* Copies @size bytes that begin @offset bytes into what the chain has to read, or to write. False: it is
 * shorter, or not all of it is RAM. */
bool virtqueue_read(const struct virtqueue *queue, const struct virtqueue_chain *chain, uint64_t offset,
		    void *to, size_t size);
bool virtqueue_write(const struct virtqueue *queue, const struct virtqueue_chain *chain, uint64_t offset,
		     const void *from, size_t size);

#endif
