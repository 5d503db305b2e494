/* virtio_blk.h: a block device (virtio 1.2, 5.2) on a disk image. */
#ifndef TRAPLINE_DEV_VIRTIO_BLK_H
#define TRAPLINE_DEV_VIRTIO_BLK_H

#include "dev/disk.h"
#include "dev/virtio.h"

#define VIRTIO_BLK_ID_SIZE 20u

struct virtio_blk {
	struct virtio virtio;

	struct disk *disk;           /* borrowed */
	char id[VIRTIO_BLK_ID_SIZE]; /* the disk's serial number, padded with zeros */
};

extern const struct state_table virtio_blk_state;

/* As virtio_init(). @id is cut to VIRTIO_BLK_ID_SIZE bytes. */
int virtio_blk_init(struct virtio_blk *blk, struct disk *disk, const char *id, const struct dma *dma,
		    struct pci *pci);

#endif
