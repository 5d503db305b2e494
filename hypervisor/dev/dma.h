/* dma.h: guest memory, as a device that is a bus master sees it. */
#ifndef TRAPLINE_DEV_DMA_H
#define TRAPLINE_DEV_DMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct dma {
	void *owner;
	/* @size bytes for reading, valid until the bus call that the device is in returns; NULL where not all
	 * of it is RAM. */
	const void *(*read)(void *owner, uint64_t address, uint64_t size);
	/* False: not all of it is RAM. */
	bool (*write)(void *owner, uint64_t address, const void *from, size_t size);
};

#endif
