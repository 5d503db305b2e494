#include "dev/virtqueue.h"

#include <errno.h>
#include <string.h>

/* Descriptors (2.7.5). */
struct descriptor {
	uint64_t address;
	uint32_t size;
	uint16_t flags, next;
};
#define DESCRIPTOR_NEXT     1u
#define DESCRIPTOR_WRITE    2u
#define DESCRIPTOR_INDIRECT 4u

#define AVAILABLE_NO_INTERRUPT 1u

/* Both rings: flags, index, then the entries, then the event index. */
#define RING_INDEX   2u
#define RING_ENTRIES 4u
#define USED_ENTRY   8u

static uint64_t driver_size(const struct virtqueue *queue) { return 6 + 2ull * queue->size; }
static uint64_t device_size(const struct virtqueue *queue) { return 6 + (uint64_t)USED_ENTRY * queue->size; }

static bool fetch(const struct virtqueue *queue, uint64_t address, void *to, size_t size)
{
	const void *from = queue->dma->read(queue->dma->owner, address, size);

	if (from)
		memcpy(to, from, size);
	return from;
}

static bool store(const struct virtqueue *queue, uint64_t address, const void *from, size_t size)
{
	return queue->dma->write(queue->dma->owner, address, from, size);
}

bool virtqueue_valid(const struct virtqueue *queue)
{
	const struct dma *dma = queue->dma;

	return queue->size && !(queue->size & (queue->size - 1)) && queue->size <= VIRTQUEUE_SIZE_MAX &&
	       queue->descriptors % 16 == 0 && queue->driver % 2 == 0 && queue->device % 4 == 0 &&
	       dma->read(dma->owner, queue->descriptors, 16ull * queue->size) &&
	       dma->read(dma->owner, queue->driver, driver_size(queue)) &&
	       dma->read(dma->owner, queue->device, device_size(queue));
}

/* ---- chains ---- */

static bool add_piece(struct virtqueue_chain *chain, const struct descriptor *descriptor)
{
	struct virtqueue_piece piece = {descriptor->address, descriptor->size};

	if (descriptor->address + descriptor->size < descriptor->address)
		return false;
	if (descriptor->flags & DESCRIPTOR_WRITE) {
		if (chain->writes == VIRTQUEUE_SIZE_MAX)
			return false;
		chain->write[chain->writes++] = piece;
		chain->write_size += piece.size;
		return true;
	}
	/* What is read comes before what is written (2.7.4.2). */
	if (chain->writes || chain->reads == VIRTQUEUE_SIZE_MAX)
		return false;
	chain->read[chain->reads++] = piece;
	chain->read_size += piece.size;
	return true;
}

/*
 * Follows a chain through a table of @count descriptors. A table within a table is none (2.7.5.3.1), and a
 * chain longer than the queue is a loop, or as bad (2.7.5.3.1 again).
 */
static int follow(struct virtqueue *queue, struct virtqueue_chain *chain, uint64_t table, uint32_t count,
		  uint16_t index, bool inner)
{
	struct descriptor descriptor;

	for (unsigned length = 0; length < queue->size; length++) {
		if (index >= count || !fetch(queue, table + 16ull * index, &descriptor, sizeof(descriptor)))
			return -EIO;
		if (descriptor.flags & DESCRIPTOR_INDIRECT) {
			if (inner || !queue->indirect || (descriptor.flags & DESCRIPTOR_NEXT) ||
			    descriptor.size % 16 || descriptor.size == 0 ||
			    descriptor.address + descriptor.size < descriptor.address)
				return -EIO;
			return follow(queue, chain, descriptor.address, descriptor.size / 16, 0, true);
		}
		if (!add_piece(chain, &descriptor))
			return -EIO;
		if (!(descriptor.flags & DESCRIPTOR_NEXT))
			return 1;
		index = descriptor.next;
	}
	return -EIO;
}

/* Asks to be notified of the next chain that is made available (2.7.10). */
static bool ask_for_notification(const struct virtqueue *queue)
{
	return !queue->event_index ||
	       store(queue, queue->device + RING_ENTRIES + (uint64_t)USED_ENTRY * queue->size, &queue->taken,
		     2);
}

int virtqueue_take(struct virtqueue *queue, struct virtqueue_chain *chain)
{
	uint16_t available, head;

	if (!fetch(queue, queue->driver + RING_INDEX, &available, 2))
		return -EIO;
	if (available == queue->taken)
		return ask_for_notification(queue) ? 0 : -EIO;
	if ((uint16_t)(available - queue->taken) > queue->size)
		return -EIO;
	if (!fetch(queue, queue->driver + RING_ENTRIES + 2ull * (queue->taken % queue->size), &head, 2) ||
	    head >= queue->size)
		return -EIO;
	queue->taken++;
	chain->head = head;
	chain->reads = chain->writes = 0;
	chain->read_size = chain->write_size = 0;
	return follow(queue, chain, queue->descriptors, queue->size, head, false);
}

int virtqueue_return(struct virtqueue *queue, const struct virtqueue_chain *chain, uint32_t written)
{
	uint32_t entry[2] = {chain->head, written};

	if (!store(queue, queue->device + RING_ENTRIES + (uint64_t)USED_ENTRY * (queue->used % queue->size),
		   entry, sizeof(entry)))
		return -EIO;
	queue->used++;
	return store(queue, queue->device + RING_INDEX, &queue->used, 2) ? 0 : -EIO;
}

int virtqueue_wants_interrupt(struct virtqueue *queue)
{
	uint16_t before = queue->told, word;
	bool known = queue->told_once;

	if (queue->used == before && known)
		return 0;
	if (!queue->event_index) {
		if (!fetch(queue, queue->driver, &word, 2))
			return -EIO;
		queue->told = queue->used;
		return !(word & AVAILABLE_NO_INTERRUPT);
	}
	if (!fetch(queue, queue->driver + RING_ENTRIES + 2ull * queue->size, &word, 2))
		return -EIO;
	queue->told = queue->used;
	queue->told_once = 1;
	/* Has the index that the driver waits for been passed (2.7.7.2)? */
	return !known || (uint16_t)(queue->used - word - 1) < (uint16_t)(queue->used - before);
}

/* ---- copying ---- */

/* Calls @copy for each part of @size bytes from @offset; false where it fails or the pieces end first. */
static bool each_part(const struct virtqueue *queue, const struct virtqueue_piece *piece, unsigned count,
		      uint64_t offset, uint8_t *bytes, size_t size,
		      bool (*copy)(const struct virtqueue *queue, uint64_t address, uint8_t *bytes,
				   size_t size))
{
	for (unsigned i = 0; i < count && size; i++) {
		size_t part;

		if (offset >= piece[i].size) {
			offset -= piece[i].size;
			continue;
		}
		part = piece[i].size - offset < size ? (size_t)(piece[i].size - offset) : size;
		if (!copy(queue, piece[i].address + offset, bytes, part))
			return false;
		offset = 0;
		bytes += part;
		size -= part;
	}
	return size == 0;
}

static bool copy_in(const struct virtqueue *queue, uint64_t address, uint8_t *bytes, size_t size)
{
	return fetch(queue, address, bytes, size);
}

static bool copy_out(const struct virtqueue *queue, uint64_t address, uint8_t *bytes, size_t size)
{
	return store(queue, address, bytes, size);
}

bool virtqueue_read(const struct virtqueue *queue, const struct virtqueue_chain *chain, uint64_t offset,
		    void *to, size_t size)
{
	return each_part(queue, chain->read, chain->reads, offset, to, size, copy_in);
}

bool virtqueue_write(const struct virtqueue *queue, const struct virtqueue_chain *chain, uint64_t offset,
		     const void *from, size_t size)
{
	return each_part(queue, chain->write, chain->writes, offset, (uint8_t *)(uintptr_t)from, size,
			 copy_out);
}
