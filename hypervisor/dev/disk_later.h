/*
 * disk_later.h: a disk that a machine has before, and after, this process has its image: while the machine is
 * on its way from one visor to another, only one of them may have that open.
 */
#ifndef TRAPLINE_DEV_DISK_LATER_H
#define TRAPLINE_DEV_DISK_LATER_H

#include "dev/disk.h"

struct disk_later;

/* A disk of @size bytes that is not open: requests fail with -EIO. Closing it frees it. @name is borrowed.
 * NULL: no memory. */
struct disk *disk_later_new(const char *name, uint64_t size, bool read_only);
/* One that has its image already, which it owns from now on. */
struct disk *disk_later_of(const char *name, struct disk *image);
/* Opens the image, which must have the size. 0, or as disk_open(); nothing where it is open. */
int disk_later_open(struct disk *disk, char *why, size_t size);
/* Everything that was written is there for whoever opens it next. */
void disk_later_close(struct disk *disk);

#endif
