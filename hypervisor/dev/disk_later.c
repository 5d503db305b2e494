#include "dev/disk_later.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

struct disk_later {
	struct disk disk;
	struct disk *image; /* NULL: not open */
	const char *name;
};

static struct disk *image_of(struct disk *disk) { return ((struct disk_later *)disk)->image; }

static int later_read(struct disk *disk, uint64_t offset, void *to, size_t size)
{
	struct disk *image = image_of(disk);

	return image ? image->ops->read(image, offset, to, size) : -EIO;
}

static int later_write(struct disk *disk, uint64_t offset, const void *from, size_t size)
{
	struct disk *image = image_of(disk);

	return image ? image->ops->write(image, offset, from, size) : -EIO;
}

static int later_flush(struct disk *disk)
{
	struct disk *image = image_of(disk);

	return image ? image->ops->flush(image) : -EIO;
}

static int later_discard(struct disk *disk, uint64_t offset, uint64_t size)
{
	struct disk *image = image_of(disk);

	return image ? image->ops->discard(image, offset, size) : -EIO;
}

static int later_zero(struct disk *disk, uint64_t offset, uint64_t size)
{
	struct disk *image = image_of(disk);

	return image ? image->ops->zero(image, offset, size) : -EIO;
}

static void later_close(struct disk *disk)
{
	disk_later_close(disk);
	free(disk);
}

static const struct disk_ops later_ops = {.read = later_read,
					  .write = later_write,
					  .flush = later_flush,
					  .discard = later_discard,
					  .zero = later_zero,
					  .close = later_close};

struct disk *disk_later_new(const char *name, uint64_t size, bool read_only)
{
	struct disk_later *later = calloc(1, sizeof(*later));

	if (!later)
		return NULL;
	later->disk = (struct disk){.ops = &later_ops, .size = size, .read_only = read_only};
	later->name = name;
	return &later->disk;
}

struct disk *disk_later_of(const char *name, struct disk *image)
{
	struct disk *disk = disk_later_new(name, image->size, image->read_only);

	if (disk)
		((struct disk_later *)disk)->image = image;
	return disk;
}

int disk_later_open(struct disk *disk, char *why, size_t size)
{
	struct disk_later *later = (struct disk_later *)disk;
	int error;

	if (later->image)
		return 0;
	error = disk_open(&later->image, later->name, disk->read_only, why, size);
	if (!error && later->image->size != disk->size) {
		snprintf(why, size, "it has %llu bytes, and the guest's disk has %llu",
			 (unsigned long long)later->image->size, (unsigned long long)disk->size);
		disk_close(later->image);
		error = -EINVAL;
	}
	if (error)
		later->image = NULL;
	return error;
}

/* The page cache is one for all processes of this system; for those of another the image was flushed. */
void disk_later_close(struct disk *disk)
{
	struct disk_later *later = (struct disk_later *)disk;

	if (later->image && !disk->read_only)
		later->image->ops->flush(later->image);
	disk_close(later->image);
	later->image = NULL;
}
