/* virtio_console.h: a console (virtio 1.2, 5.3) with one port. */
#ifndef TRAPLINE_DEV_VIRTIO_CONSOLE_H
#define TRAPLINE_DEV_VIRTIO_CONSOLE_H

#include "dev/virtio.h"

struct virtio_console {
	struct virtio virtio;

	void *owner;
	void (*sent)(void *owner, uint8_t byte);
	bool loop; /* what the guest prints comes back as its input, as far as there are buffers for it */
};

extern const struct state_table virtio_console_state;

/* As virtio_init(); @sent gets what the guest prints. */
int virtio_console_init(struct virtio_console *console, void (*sent)(void *owner, uint8_t byte), void *owner,
			const struct dma *dma, struct pci *pci);
/* Whether the guest has a driver that takes input. */
bool virtio_console_live(const struct virtio_console *console);
/* Input for the guest. Returns how many bytes it had buffers for. */
size_t virtio_console_receive(struct virtio_console *console, const uint8_t *bytes, size_t size);

#endif
