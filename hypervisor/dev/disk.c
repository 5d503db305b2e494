#define _GNU_SOURCE
#include "dev/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- raw ---- */

struct raw {
	struct disk disk;
	int fd;
};

static int raw_fd(const struct disk *disk) { return ((const struct raw *)disk)->fd; }

static int raw_read(struct disk *disk, uint64_t offset, void *to, size_t size)
{
	while (size) {
		ssize_t got = pread(raw_fd(disk), to, size, (off_t)offset);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got ? -errno : -EIO; /* it shrank */
		to = (uint8_t *)to + got;
		offset += (uint64_t)got;
		size -= (size_t)got;
	}
	return 0;
}

static int raw_write(struct disk *disk, uint64_t offset, const void *from, size_t size)
{
	while (size) {
		ssize_t put = pwrite(raw_fd(disk), from, size, (off_t)offset);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return -errno;
		from = (const uint8_t *)from + put;
		offset += (uint64_t)put;
		size -= (size_t)put;
	}
	return 0;
}

static int raw_flush(struct disk *disk) { return fdatasync(raw_fd(disk)) ? -errno : 0; }

static int punch(struct disk *disk, uint64_t offset, uint64_t size)
{
	int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

	return fallocate(raw_fd(disk), mode, (off_t)offset, (off_t)size) ? -errno : 0;
}

static int raw_discard(struct disk *disk, uint64_t offset, uint64_t size)
{
	int error = punch(disk, offset, size);

	return error == -EOPNOTSUPP ? 0 : error;
}

static int raw_zero(struct disk *disk, uint64_t offset, uint64_t size)
{
	static const uint8_t zeros[65536];
	int error = punch(disk, offset, size);

	if (error != -EOPNOTSUPP)
		return error;
	for (error = 0; size && !error;) {
		size_t part = size < sizeof(zeros) ? (size_t)size : sizeof(zeros);

		error = raw_write(disk, offset, zeros, part);
		offset += part;
		size -= part;
	}
	return error;
}

static void raw_close(struct disk *disk)
{
	close(raw_fd(disk));
	free(disk);
}

static const struct disk_ops raw_ops = {.read = raw_read,
					.write = raw_write,
					.flush = raw_flush,
					.discard = raw_discard,
					.zero = raw_zero,
					.close = raw_close};

static int raw_check(int fd, bool read_only, uint64_t *size, char *why, size_t room)
{
	struct stat status;
	off_t end;

	if (fstat(fd, &status))
		return -errno;
	end = lseek(fd, 0, SEEK_END);
	if ((!S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode)) || end < 0) {
		snprintf(why, room, "not a file");
		return -EINVAL;
	}
	if (end == 0 || end % DISK_SECTOR) {
		snprintf(why, room, "a raw disk of no whole sectors: %lld bytes", (long long)end);
		return -EINVAL;
	}
	if (flock(fd, (read_only ? LOCK_SH : LOCK_EX) | LOCK_NB)) {
		snprintf(why, room, "in use by another process");
		return -errno;
	}
	*size = (uint64_t)end;
	return 0;
}

int disk_raw_open(struct disk **disk, const char *path, bool read_only, char *why, size_t size)
{
	struct raw *raw = calloc(1, sizeof(*raw));
	int error = raw ? 0 : -ENOMEM;

	why[0] = 0;
	if (!error) {
		raw->disk = (struct disk){.ops = &raw_ops, .read_only = read_only};
		raw->fd = open(path, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK);
		error = raw->fd < 0 ? -errno : raw_check(raw->fd, read_only, &raw->disk.size, why, size);
		if (error && raw->fd >= 0)
			close(raw->fd);
	}
	if (error) {
		if (!why[0])
			snprintf(why, size, "%s", strerror(-error));
		free(raw);
		return error;
	}
	*disk = &raw->disk;
	return 0;
}

/* ---- any ---- */

/* Whether the file's first bytes are those of a qcow2 image. Errors are left to whoever opens it. */
static bool is_qcow2(const char *path)
{
	char magic[4] = "";
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	bool is = fd >= 0 && read(fd, magic, sizeof(magic)) == sizeof(magic) &&
		  memcmp(magic, "QFI\xfb", 4) == 0;

	if (fd >= 0)
		close(fd);
	return is;
}

int disk_open(struct disk **disk, const char *name, bool read_only, char *why, size_t size)
{
	if (strncmp(name, "raw:", 4) == 0)
		return disk_raw_open(disk, name + 4, read_only, why, size);
	if (strncmp(name, "qcow2:", 6) == 0)
		return disk_qcow2_open(disk, name + 6, read_only, why, size);
	if (is_qcow2(name))
		return disk_qcow2_open(disk, name, read_only, why, size);
	return disk_raw_open(disk, name, read_only, why, size);
}

void disk_close(struct disk *disk)
{
	if (disk)
		disk->ops->close(disk);
}
