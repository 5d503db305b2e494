#include "dev/virtio_console.h"

#include <errno.h>

enum { RECEIVE, TRANSMIT };

/* Of one chain. Its pieces may all be the same memory, and what a guest asks for at once must end. */
#define TRANSMIT_MAX (1u << 20)

static const struct state_field fields[] = {VIRTIO_STATE(struct virtio_console, virtio)};
static void loaded(void *device) { virtio_loaded(&((struct virtio_console *)device)->virtio); }
static const char *wrong(const void *device, const void *values)
{
	(void)device;
	return virtio_wrong(&((const struct virtio_console *)values)->virtio);
}
STATE_TABLE(virtio_console_state, "virtio-console", 1, fields, loaded, wrong);

static struct virtio_console *of(struct virtio *virtio) { return (struct virtio_console *)virtio; }

static int64_t transmit(struct virtio *virtio, unsigned index, const struct virtqueue_chain *chain)
{
	struct virtio_console *console = of(virtio);
	uint8_t bytes[256];

	if (chain->read_size > TRANSMIT_MAX)
		return -EIO;
	for (uint64_t done = 0; done < chain->read_size;) {
		uint64_t left = chain->read_size - done;
		size_t part = left < sizeof(bytes) ? (size_t)left : sizeof(bytes);

		if (!virtqueue_read(&virtio->queue[index], chain, done, bytes, part))
			return -EIO;
		for (size_t i = 0; i < part; i++)
			console->sent(console->owner, bytes[i]);
		if (console->loop)
			virtio_console_receive(console, bytes, part);
		done += part;
	}
	return 0;
}

/* Buffers for input wait until there is some. */
static void notified(struct virtio *virtio, unsigned index)
{
	if (index == TRANSMIT)
		virtio_work(virtio, index);
}

static const struct virtio_type type = {.name = "virtio-console",
					.id = 3,
					.class = 0x078000,
					.queues = 2,
					.notified = notified,
					.request = transmit};

int virtio_console_init(struct virtio_console *console, void (*sent)(void *owner, uint8_t byte), void *owner,
			const struct dma *dma, struct pci *pci)
{
	console->sent = sent;
	console->owner = owner;
	return virtio_init(&console->virtio, &type, 0, dma, pci);
}

bool virtio_console_live(const struct virtio_console *console)
{
	return virtio_live(&console->virtio, RECEIVE);
}

/* Fills the next buffer. Returns how many bytes it took, 0 where there is none. */
static size_t fill(struct virtio_console *console, const uint8_t *bytes, size_t size)
{
	static _Thread_local struct virtqueue_chain chain;
	struct virtqueue *queue = &console->virtio.queue[RECEIVE];
	int got = virtqueue_take(queue, &chain);

	if (got > 0) {
		if (size > chain.write_size)
			size = (size_t)chain.write_size;
		if (!virtqueue_write(queue, &chain, 0, bytes, size) ||
		    virtqueue_return(queue, &chain, (uint32_t)size))
			got = -EIO;
	}
	if (got < 0)
		virtio_broken(&console->virtio);
	return got > 0 ? size : 0;
}

size_t virtio_console_receive(struct virtio_console *console, const uint8_t *bytes, size_t size)
{
	size_t done = 0;

	while (done < size && virtio_console_live(console)) {
		size_t part = fill(console, bytes + done, size - done);

		if (part == 0)
			break;
		done += part;
	}
	if (done && virtio_console_live(console))
		virtio_interrupt(&console->virtio, RECEIVE);
	return done;
}
