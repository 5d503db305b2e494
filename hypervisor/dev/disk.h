/*
 * disk.h: a disk image on the host: raw, or qcow2 by way of qemu-nbd, which is started for it and spoken to
 * with libnbd.
 */
#ifndef TRAPLINE_DEV_DISK_H
#define TRAPLINE_DEV_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct disk;

/* Offsets and sizes in bytes; all return 0 or a negative errno. */
struct disk_ops {
	int (*read)(struct disk *disk, uint64_t offset, void *to, size_t size);
	int (*write)(struct disk *disk, uint64_t offset, const void *from, size_t size);
	int (*flush)(struct disk *disk);
	int (*discard)(struct disk *disk, uint64_t offset, uint64_t size); /* may do nothing */
	int (*zero)(struct disk *disk, uint64_t offset, uint64_t size);
	void (*close)(struct disk *disk);
};

struct disk {
	const struct disk_ops *ops;
	uint64_t size; /* a multiple of DISK_SECTOR */
	bool read_only;
};

#define DISK_SECTOR 512u

/*
 * Opens @name: a path, which is a qcow2 image where its first bytes say so, or raw:PATH or qcow2:PATH. Nobody
 * else may have it open for writing. 0, or a negative errno with @why, one line without the name: -EINVAL for
 * what is in the file, -ENOENT, -EACCES and others for what the system said, -ENOSYS where a program is
 * missing.
 */
int disk_open(struct disk **disk, const char *name, bool read_only, char *why, size_t size);
void disk_close(struct disk *disk); /* NULL is fine */

/* Both take a path; @why as above. disk_open() calls them. */
int disk_raw_open(struct disk **disk, const char *path, bool read_only, char *why, size_t size);
int disk_qcow2_open(struct disk **disk, const char *path, bool read_only, char *why, size_t size);

#endif
