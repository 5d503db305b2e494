#include "dev/virtio_blk.h"

#include <errno.h>
#include <string.h>

#define F_SEG_MAX      (1ull << 2)
#define F_RO           (1ull << 5)
#define F_BLK_SIZE     (1ull << 6)
#define F_FLUSH        (1ull << 9)
#define F_DISCARD      (1ull << 13)
#define F_WRITE_ZEROES (1ull << 14)

/* Requests (5.2.6). */
enum {
	TYPE_IN = 0,
	TYPE_OUT = 1,
	TYPE_FLUSH = 4,
	TYPE_GET_ID = 8,
	TYPE_DISCARD = 11,
	TYPE_WRITE_ZEROES = 13
};
enum { STATUS_OK, STATUS_IOERR, STATUS_UNSUPP };
struct request {
	uint32_t type, reserved;
	uint64_t sector;
};
struct range {
	uint64_t sector;
	uint32_t sectors, flags;
};
#define RANGE_UNMAP 1u

/* Configuration (5.2.4), as far as there are features. */
enum {
	CONFIG_CAPACITY = 0,
	CONFIG_SEG_MAX = 12,
	CONFIG_BLK_SIZE = 20,
	CONFIG_MAX_DISCARD_SECTORS = 36,
	CONFIG_MAX_DISCARD_SEG = 40,
	CONFIG_DISCARD_SECTOR_ALIGNMENT = 44,
	CONFIG_MAX_WRITE_ZEROES_SECTORS = 48,
	CONFIG_MAX_WRITE_ZEROES_SEG = 52,
	CONFIG_WRITE_ZEROES_MAY_UNMAP = 56,
	CONFIG_SIZE = 60,
};
#define SEGMENTS_MAX    126u
#define RANGE_MAX       0x3fffffu /* sectors: below 2 GiB */
#define DISCARD_ALIGNED 8u

#define BOUNCE_SIZE 65536u

static const struct state_field fields[] = {VIRTIO_STATE(struct virtio_blk, virtio)};
static void loaded(void *device) { virtio_loaded(&((struct virtio_blk *)device)->virtio); }
static const char *wrong(const void *device, const void *values)
{
	(void)device;
	return virtio_wrong(&((const struct virtio_blk *)values)->virtio);
}
STATE_TABLE(virtio_blk_state, "virtio-blk", 1, fields, loaded, wrong);

static struct virtio_blk *of(struct virtio *virtio) { return (struct virtio_blk *)virtio; }

static void config(struct virtio *virtio, uint8_t *bytes)
{
	uint64_t capacity = of(virtio)->disk->size / DISK_SECTOR;
	static const struct {
		unsigned offset;
		uint32_t value;
	} values[] = {{CONFIG_SEG_MAX, SEGMENTS_MAX},
		      {CONFIG_BLK_SIZE, DISK_SECTOR},
		      {CONFIG_MAX_DISCARD_SECTORS, RANGE_MAX},
		      {CONFIG_MAX_DISCARD_SEG, 1},
		      {CONFIG_DISCARD_SECTOR_ALIGNMENT, DISCARD_ALIGNED},
		      {CONFIG_MAX_WRITE_ZEROES_SECTORS, RANGE_MAX},
		      {CONFIG_MAX_WRITE_ZEROES_SEG, 1},
		      {CONFIG_WRITE_ZEROES_MAY_UNMAP, 1}};

	memcpy(bytes + CONFIG_CAPACITY, &capacity, sizeof(capacity));
	for (unsigned i = 0; i < sizeof(values) / sizeof(values[0]); i++)
		memcpy(bytes + values[i].offset, &values[i].value, sizeof(values[i].value));
}

static bool on_disk(const struct disk *disk, uint64_t sector, uint64_t size)
{
	return sector <= disk->size / DISK_SECTOR && size <= disk->size - sector * DISK_SECTOR;
}

/* ---- what a request does: each returns its status, and how many bytes it wrote to the guest ---- */

static uint8_t read_sectors(struct virtio_blk *blk, const struct virtqueue_chain *chain, uint64_t sector,
			    uint64_t size, uint32_t *written)
{
	static _Thread_local uint8_t bounce[BOUNCE_SIZE];

	if (size % DISK_SECTOR || !on_disk(blk->disk, sector, size))
		return STATUS_IOERR;
	for (uint64_t done = 0; done < size;) {
		size_t part = size - done < BOUNCE_SIZE ? (size_t)(size - done) : BOUNCE_SIZE;

		if (blk->disk->ops->read(blk->disk, sector * DISK_SECTOR + done, bounce, part) ||
		    !virtqueue_write(&blk->virtio.queue[0], chain, done, bounce, part))
			return STATUS_IOERR;
		done += part;
		*written = (uint32_t)done;
	}
	return STATUS_OK;
}

static uint8_t write_sectors(struct virtio_blk *blk, const struct virtqueue_chain *chain, uint64_t sector,
			     uint64_t size)
{
	static _Thread_local uint8_t bounce[BOUNCE_SIZE];

	if (blk->disk->read_only || size % DISK_SECTOR || !on_disk(blk->disk, sector, size))
		return STATUS_IOERR;
	for (uint64_t done = 0; done < size;) {
		size_t part = size - done < BOUNCE_SIZE ? (size_t)(size - done) : BOUNCE_SIZE;

		if (!virtqueue_read(&blk->virtio.queue[0], chain, sizeof(struct request) + done, bounce,
				    part) ||
		    blk->disk->ops->write(blk->disk, sector * DISK_SECTOR + done, bounce, part))
			return STATUS_IOERR;
		done += part;
	}
	return STATUS_OK;
}

static uint8_t flush(struct virtio_blk *blk)
{
	if (blk->disk->read_only)
		return STATUS_OK;
	return blk->disk->ops->flush(blk->disk) ? STATUS_IOERR : STATUS_OK;
}

static uint8_t get_id(struct virtio_blk *blk, const struct virtqueue_chain *chain, uint64_t size,
		      uint32_t *written)
{
	uint32_t part = size < VIRTIO_BLK_ID_SIZE ? (uint32_t)size : VIRTIO_BLK_ID_SIZE;

	if (!virtqueue_write(&blk->virtio.queue[0], chain, 0, blk->id, part))
		return STATUS_IOERR;
	*written = part;
	return STATUS_OK;
}

/* One range, as the configuration says (5.2.6.2). */
static uint8_t clear(struct virtio_blk *blk, const struct virtqueue_chain *chain, uint32_t type,
		     uint64_t size)
{
	uint32_t allowed = type == TYPE_WRITE_ZEROES ? RANGE_UNMAP : 0;
	struct disk *disk = blk->disk;
	struct range range;
	uint64_t bytes;
	int error;

	if (disk->read_only || size != sizeof(range) ||
	    !virtqueue_read(&blk->virtio.queue[0], chain, sizeof(struct request), &range, sizeof(range)))
		return STATUS_IOERR;
	if (range.flags & ~allowed)
		return STATUS_UNSUPP;
	bytes = (uint64_t)range.sectors * DISK_SECTOR;
	if (range.sectors > RANGE_MAX || !on_disk(disk, range.sector, bytes))
		return STATUS_IOERR;
	if (bytes == 0)
		return STATUS_OK;
	error = type == TYPE_DISCARD ? disk->ops->discard(disk, range.sector * DISK_SECTOR, bytes)
				     : disk->ops->zero(disk, range.sector * DISK_SECTOR, bytes);
	return error ? STATUS_IOERR : STATUS_OK;
}

static uint8_t perform(struct virtio_blk *blk, const struct virtqueue_chain *chain,
		       const struct request *request, uint32_t *written)
{
	uint64_t in = chain->write_size - 1, out = chain->read_size - sizeof(*request);
	uint64_t features = blk->virtio.driver_features;

	switch (request->type) {
	case TYPE_IN: return read_sectors(blk, chain, request->sector, in, written);
	case TYPE_OUT: return write_sectors(blk, chain, request->sector, out);
	case TYPE_FLUSH: return features & F_FLUSH ? flush(blk) : STATUS_UNSUPP;
	case TYPE_GET_ID: return get_id(blk, chain, in, written);
	case TYPE_DISCARD:
		return features & F_DISCARD ? clear(blk, chain, request->type, out) : STATUS_UNSUPP;
	case TYPE_WRITE_ZEROES:
		return features & F_WRITE_ZEROES ? clear(blk, chain, request->type, out) : STATUS_UNSUPP;
	default: return STATUS_UNSUPP;
	}
}

/* Without a whole header or a byte for the status there is no request (5.2.6.1). */
static int64_t request(struct virtio *virtio, unsigned index, const struct virtqueue_chain *chain)
{
	struct virtqueue *queue = &virtio->queue[index];
	struct request header;
	uint32_t written = 0;
	uint8_t status;

	if (chain->write_size == 0 || chain->write_size > UINT32_MAX ||
	    !virtqueue_read(queue, chain, 0, &header, sizeof(header)))
		return -EIO;
	status = perform(of(virtio), chain, &header, &written);
	if (!virtqueue_write(queue, chain, chain->write_size - 1, &status, 1))
		return -EIO;
	/* The status is the last byte: all before it counts as written once there is no gap. */
	return written == chain->write_size - 1 ? written + 1 : written;
}

static const struct virtio_type type = {.name = "virtio-blk",
					.id = 2,
					.class = 0x010000,
					.queues = 1,
					.config_size = CONFIG_SIZE,
					.config = config,
					.notified = virtio_work,
					.request = request};

int virtio_blk_init(struct virtio_blk *blk, struct disk *disk, const char *id, const struct dma *dma,
		    struct pci *pci)
{
	uint64_t features = F_SEG_MAX | F_BLK_SIZE | F_FLUSH;

	blk->disk = disk;
	memcpy(blk->id, id, strnlen(id, sizeof(blk->id)));
	features |= disk->read_only ? F_RO : F_DISCARD | F_WRITE_ZEROES;
	return virtio_init(&blk->virtio, &type, features, dma, pci);
}
