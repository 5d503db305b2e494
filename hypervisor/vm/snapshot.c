#include "vm/snapshot.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "x86/paging.h"

static size_t devices_size(struct machine *machine)
{
	const struct state_table *table;
	size_t size = 0;

	for (unsigned i = 0; machine_device(machine, i, &table); i++)
		size += state_size(table);
	return size;
}

static void save_devices(struct machine *machine, uint8_t *to)
{
	const struct state_table *table;
	void *device;

	for (unsigned i = 0; (device = machine_device(machine, i, &table)); i++) {
		state_save(table, device, to);
		to += state_size(table);
	}
}

/*
 * Memory begins as zeros, and everything written to it since was logged: the dirty pages are
 * all that the image needs.
 */
static void save_memory(struct snapshot *snapshot, struct machine *machine)
{
	const uint64_t *pages;
	size_t count;

	machine->engine->ops->dirty_pages(machine->engine, &pages, &count);
	for (size_t i = 0; i < count; i++)
		if (pages[i] < snapshot->size)
			memcpy(snapshot->image + pages[i], machine->ram + pages[i], PAGE_SIZE);
	machine->engine->ops->dirty_reset(machine->engine);
}

int snapshot_take(struct snapshot *snapshot, struct machine *machine)
{
	*snapshot = (struct snapshot){.size = machine->config.memory, .device_size = devices_size(machine)};
	snapshot->devices = malloc(snapshot->device_size);
	snapshot->image = mmap(NULL, snapshot->size, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (snapshot->image == MAP_FAILED)
		snapshot->image = NULL;
	if (!snapshot->image || !snapshot->devices) {
		snapshot_free(snapshot);
		return -ENOMEM;
	}
	save_memory(snapshot, machine);
	save_devices(machine, snapshot->devices);
	machine->engine->ops->vcpu_save(machine->vcpu, &snapshot->vcpu);
	return 0;
}

int snapshot_restore(const struct snapshot *snapshot, struct machine *machine)
{
	const struct state_table *table;
	const uint8_t *from = snapshot->devices;
	void *device;

	machine->engine->ops->dirty_restore(machine->engine, snapshot->image, snapshot->size);
	for (unsigned i = 0; (device = machine_device(machine, i, &table)); i++) {
		int error = state_load(table, device, from, state_size(table));

		if (error)
			return error;
		from += state_size(table);
	}
	return machine->engine->ops->vcpu_load(machine->vcpu, &snapshot->vcpu);
}

void snapshot_free(struct snapshot *snapshot)
{
	if (snapshot->image)
		munmap(snapshot->image, snapshot->size);
	free(snapshot->devices);
	*snapshot = (struct snapshot){0};
}
