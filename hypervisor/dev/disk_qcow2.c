/* qcow2 images: qemu-nbd knows the format, libnbd speaks to it over a socket that both inherit. */
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <libnbd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "dev/disk.h"

#define PROGRAM "qemu-nbd"
#define PART    (16u << 20) /* of one request: below what every server takes */

struct qcow2 {
	struct disk disk;
	struct nbd_handle *nbd;
};

static struct nbd_handle *nbd_of(const struct disk *disk) { return ((const struct qcow2 *)disk)->nbd; }

static int failed(void)
{
	int error = nbd_get_errno();

	return error ? -error : -EIO;
}

static int qcow2_read(struct disk *disk, uint64_t offset, void *to, size_t size)
{
	for (size_t part; size; size -= part, offset += part, to = (uint8_t *)to + part) {
		part = size < PART ? size : PART;
		if (nbd_pread(nbd_of(disk), to, part, offset, 0))
			return failed();
	}
	return 0;
}

static int qcow2_write(struct disk *disk, uint64_t offset, const void *from, size_t size)
{
	for (size_t part; size; size -= part, offset += part, from = (const uint8_t *)from + part) {
		part = size < PART ? size : PART;
		if (nbd_pwrite(nbd_of(disk), from, part, offset, 0))
			return failed();
	}
	return 0;
}

static int qcow2_flush(struct disk *disk)
{
	if (nbd_can_flush(nbd_of(disk)) <= 0)
		return 0;
	return nbd_flush(nbd_of(disk), 0) ? failed() : 0;
}

static int qcow2_discard(struct disk *disk, uint64_t offset, uint64_t size)
{
	if (nbd_can_trim(nbd_of(disk)) <= 0)
		return 0;
	for (uint64_t part; size; size -= part, offset += part) {
		part = size < PART ? size : PART;
		if (nbd_trim(nbd_of(disk), part, offset, 0))
			return failed();
	}
	return 0;
}

static int qcow2_zero(struct disk *disk, uint64_t offset, uint64_t size)
{
	if (nbd_can_zero(nbd_of(disk)) <= 0)
		return -EOPNOTSUPP;
	for (uint64_t part; size; size -= part, offset += part) {
		part = size < PART ? size : PART;
		if (nbd_zero(nbd_of(disk), part, offset, 0))
			return failed();
	}
	return 0;
}

static void qcow2_close(struct disk *disk)
{
	nbd_shutdown(nbd_of(disk), 0);
	nbd_close(nbd_of(disk));
	free(disk);
}

static const struct disk_ops qcow2_ops = {.read = qcow2_read,
					  .write = qcow2_write,
					  .flush = qcow2_flush,
					  .discard = qcow2_discard,
					  .zero = qcow2_zero,
					  .close = qcow2_close};

static bool on_path(const char *program)
{
	const char *path = getenv("PATH");
	char file[4096];

	for (; path && *path; path += strcspn(path, ":"), path += *path == ':') {
		snprintf(file, sizeof(file), "%.*s/%s", (int)strcspn(path, ":"), path, program);
		if (access(file, X_OK) == 0)
			return true;
	}
	return false;
}

/* Standard error goes to a file in memory while the program starts, which says there what it does not like.
 */
static int connect_quietly(struct nbd_handle *nbd, char **command, int report)
{
	int kept = dup(STDERR_FILENO), result;

	if (kept >= 0 && report >= 0)
		dup2(report, STDERR_FILENO);
	result = nbd_connect_systemd_socket_activation(nbd, command);
	if (kept >= 0) {
		dup2(kept, STDERR_FILENO);
		close(kept);
	}
	return result;
}

/* The program's last words, or else libnbd's. */
static void explain(int report, char *why, size_t size)
{
	ssize_t got = report >= 0 ? pread(report, why, size - 1, 0) : 0;
	char *end;

	why[got > 0 ? got : 0] = 0;
	end = strchr(why, '\n');
	if (end)
		*end = 0;
	if (!why[0])
		snprintf(why, size, "%s: %s", PROGRAM, nbd_get_error() ? nbd_get_error() : "failed");
	for (char *at = why; *at; at++)
		if (iscntrl((unsigned char)*at))
			*at = ' ';
}

static int start(struct qcow2 *qcow2, const char *path, char *why, size_t size)
{
	char file[4200];
	char *command[] = {(char *)PROGRAM,
			   (char *)"--format=qcow2",
			   (char *)"--discard=unmap",
			   (char *)"--cache=writeback",
			   NULL,
			   NULL,
			   NULL};
	int report, error = 0;
	int64_t bytes;

	/* A name is not an option, and not one of QEMU's protocols. */
	snprintf(file, sizeof(file), "%s%s", path[0] == '/' ? "" : "./", path);
	if (qcow2->disk.read_only)
		command[4] = (char *)"--read-only";
	command[qcow2->disk.read_only ? 5 : 4] = file;
	report = memfd_create("report", MFD_CLOEXEC);
	if (connect_quietly(qcow2->nbd, command, report)) {
		explain(report, why, size);
		error = -EINVAL;
	}
	if (report >= 0)
		close(report);
	if (error)
		return error;
	bytes = nbd_get_size(qcow2->nbd);
	if (bytes <= 0 || bytes % DISK_SECTOR) {
		snprintf(why, size, "a qcow2 disk of no whole sectors");
		return -EINVAL;
	}
	qcow2->disk.size = (uint64_t)bytes;
	return 0;
}

int disk_qcow2_open(struct disk **disk, const char *path, bool read_only, char *why, size_t size)
{
	struct qcow2 *qcow2 = calloc(1, sizeof(*qcow2));
	int error;

	if (qcow2)
		qcow2->nbd = nbd_create();
	if (!qcow2 || !qcow2->nbd) {
		snprintf(why, size, "%s", strerror(ENOMEM));
		free(qcow2);
		return -ENOMEM;
	}
	qcow2->disk = (struct disk){.ops = &qcow2_ops, .read_only = read_only};
	if (access(path, read_only ? R_OK : R_OK | W_OK)) {
		error = -errno;
		snprintf(why, size, "%s", strerror(errno));
	} else if (!on_path(PROGRAM)) {
		error = -ENOSYS;
		snprintf(why, size, "a qcow2 disk needs %s (Debian: qemu-utils)", PROGRAM);
	} else {
		error = start(qcow2, path, why, size);
	}
	if (error) {
		nbd_close(qcow2->nbd);
		free(qcow2);
		return error;
	}
	*disk = &qcow2->disk;
	return 0;
}
