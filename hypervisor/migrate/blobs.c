/* blobs.c: what a machine has besides RAM and tables: its ROM, and what fw_cfg holds of a loaded kernel. */
#include "migrate/state.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Bytes of a section, so that others have room between two. */
#define PIECE (1u << 20)

/* More than any has: a kernel and an initrd below 3 GiB. */
#define BLOB_MAX (3ull << 30)

/* ---- writing ---- */

static int write_blob(struct stream_writer *writer, const char *name, const uint8_t *data, uint64_t size)
{
	uint64_t done = 0;
	int count = 0;

	do {
		uint64_t part = size - done < PIECE ? size - done : PIECE;
		int error;

		stream_begin(writer, STREAM_BLOB);
		stream_put_text(writer, name);
		stream_put_u64(writer, size);
		stream_put_u64(writer, done);
		stream_put(writer, data ? data + done : NULL, (size_t)part);
		error = stream_end(writer);
		if (error)
			return error;
		done += part;
		count++;
	} while (done < size);
	return count;
}

int blobs_write(struct machine *machine, struct stream_writer *writer)
{
	const struct fw_cfg_item *item = machine->platform.fw_cfg.item;
	const struct {
		const char *name;
		const uint8_t *data;
		uint64_t size;
		bool there;
	} blobs[] = {
		{"rom", machine->rom, machine->rom_size, machine->rom},
		{"kernel", item[FW_CFG_KERNEL_DATA].data, item[FW_CFG_KERNEL_DATA].size,
		 machine->platform.boot},
		{"initrd", item[FW_CFG_INITRD_DATA].data, item[FW_CFG_INITRD_DATA].size,
		 machine->platform.boot},
		{"append", item[FW_CFG_CMDLINE_DATA].data, item[FW_CFG_CMDLINE_DATA].size,
		 machine->platform.boot},
	};
	int count = 0;

	for (unsigned i = 0; i < sizeof(blobs) / sizeof(blobs[0]); i++) {
		int written =
			blobs[i].there ? write_blob(writer, blobs[i].name, blobs[i].data, blobs[i].size) : 0;

		if (written < 0)
			return written;
		count += written;
	}
	return count;
}

/* ---- reading ---- */

__attribute__((format(printf, 3, 4))) static int refuse(struct blobs *blobs, int error, const char *format,
							...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(blobs->why, sizeof(blobs->why), format, arguments);
	va_end(arguments);
	return error;
}

static struct blob *find(struct blobs *blobs, const char *name)
{
	for (unsigned i = 0; i < blobs->count; i++)
		if (strcmp(blobs->blob[i].name, name) == 0)
			return &blobs->blob[i];
	return NULL;
}

static bool is_known(const char *name)
{
	static const char *const names[] = {"rom", "kernel", "initrd", "append"};

	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strcmp(names[i], name) == 0)
			return true;
	return false;
}

/* The first piece says how much there will be. */
static int begin(struct blobs *blobs, const char *name, uint64_t size)
{
	struct blob *blob = &blobs->blob[blobs->count];

	if (size > (strcmp(name, "rom") == 0 ? ROM_MAX : BLOB_MAX))
		return refuse(blobs, -EPROTO, "%s: it is too large", name);
	blob->data = malloc(size + 1);
	if (!blob->data)
		return refuse(blobs, -ENOMEM, "%s: no memory", name);
	snprintf(blob->name, sizeof(blob->name), "%s", name);
	blob->size = size;
	blobs->count++;
	return 0;
}

int blobs_take(struct blobs *blobs, struct stream_cursor *payload)
{
	char name[sizeof(blobs->blob[0].name)];
	uint64_t size, offset;
	struct blob *blob;
	size_t part;
	int error;

	stream_take_text(payload, name, sizeof(name));
	size = stream_take_u64(payload);
	offset = stream_take_u64(payload);
	if (payload->over || !is_known(name))
		return refuse(blobs, -EPROTO, "a blob of no kind that is known here");
	if (!find(blobs, name) && (error = begin(blobs, name, size)))
		return error;
	blob = find(blobs, name);
	part = payload->left;
	if (size != blob->size || offset != blob->have || part > size - offset || (part == 0 && size))
		return refuse(blobs, -EPROTO, "%s: its pieces do not fit", name);
	memcpy(blob->data + offset, stream_take(payload, part), part);
	blob->have += part;
	return 0;
}

static int load_boot(struct blobs *blobs, struct machine *machine)
{
	struct blob *kernel = find(blobs, "kernel"), *initrd = find(blobs, "initrd"),
		    *append = find(blobs, "append");
	struct platform_boot boot;

	if (!kernel && !initrd && !append)
		return 0;
	if (!kernel || !initrd || !append || !append->size || append->data[append->size - 1])
		return refuse(blobs, -EPROTO, "what fw_cfg holds of a kernel is not whole");
	boot = (struct platform_boot){.kernel = kernel->data,
				      .kernel_size = kernel->size,
				      .initrd = initrd->data,
				      .initrd_size = initrd->size,
				      .append = (const char *)append->data};
	return platform_describe_boot(&machine->platform, &boot);
}

int blobs_load(struct blobs *blobs, struct machine *machine)
{
	struct blob *rom = find(blobs, "rom");
	int error = 0;

	for (unsigned i = 0; i < blobs->count; i++)
		if (blobs->blob[i].have != blobs->blob[i].size)
			return refuse(blobs, -EPROTO, "%s: not all of it has come", blobs->blob[i].name);
	if (rom)
		error = machine_add_rom(machine, rom->data, rom->size);
	if (error)
		return refuse(blobs, error, "rom: this machine cannot take it");
	error = load_boot(blobs, machine);
	if (error && !blobs->why[0])
		refuse(blobs, error, "%s", strerror(-error));
	return error;
}

void blobs_free(struct blobs *blobs)
{
	for (unsigned i = 0; i < blobs->count; i++)
		free(blobs->blob[i].data);
	*blobs = (struct blobs){0};
}
