#include "vm/snapshot.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "x86/paging.h"

/* Devices, or the engine's chips. */
typedef void *part_at(struct machine *machine, unsigned index, const struct state_table **table);

static void *chip_at(struct machine *machine, unsigned index, const struct state_table **table)
{
	return machine->engine->ops->chip(machine->engine, index, table);
}

static size_t parts_size(struct machine *machine, part_at *at)
{
	const struct state_table *table;
	size_t size = 0;

	for (unsigned i = 0; at(machine, i, &table); i++)
		size += state_size(table);
	return size;
}

static void save_parts(struct machine *machine, part_at *at, uint8_t *to)
{
	const struct state_table *table;
	void *part;

	for (unsigned i = 0; (part = at(machine, i, &table)); i++) {
		state_save(table, part, to);
		to += state_size(table);
	}
}

/* Those with indices from @first to @last. */
static int load_parts(struct machine *machine, part_at *at, const uint8_t *from, unsigned first,
		      unsigned last)
{
	const struct state_table *table;
	int error = 0;
	void *part;

	for (unsigned i = 0; i <= last && !error && (part = at(machine, i, &table)); i++) {
		if (i >= first)
			error = state_load(table, part, from, state_size(table));
		from += state_size(table);
	}
	return error;
}

static void save_memory(struct snapshot *snapshot, struct machine *machine, const uint64_t *pages, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		const uint8_t *page = machine_ram(machine, pages[i], PAGE_SIZE);

		if (page)
			memcpy(snapshot->image + (page - machine->ram), page, PAGE_SIZE);
	}
	machine->engine->ops->dirty_reset(machine->engine);
}

/*
 * Memory begins as zeros, and everything written to it since was logged: the dirty pages are
 * all that the image needs.
 */
int snapshot_take(struct snapshot *snapshot, struct machine *machine)
{
	const uint64_t *pages;
	size_t count;

	machine->engine->ops->dirty_pages(machine->engine, &pages, &count);
	return snapshot_take_pages(snapshot, machine, pages, count);
}

int snapshot_take_pages(struct snapshot *snapshot, struct machine *machine, const uint64_t *pages, size_t count)
{
	const struct engine_ops *ops = machine->engine->ops;
	int error = ops->chips_fetch(machine->engine);

	*snapshot = (struct snapshot){.size = machine->config.memory};
	if (error)
		return error;
	snapshot->devices = malloc(parts_size(machine, machine_device));
	snapshot->chips = malloc(parts_size(machine, chip_at) + 1);
	snapshot->vcpus = calloc(machine->vcpu_count, sizeof(*snapshot->vcpus));
	snapshot->image = mmap(NULL, snapshot->size, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (snapshot->image == MAP_FAILED)
		snapshot->image = NULL;
	if (!snapshot->image || !snapshot->devices || !snapshot->chips || !snapshot->vcpus) {
		snapshot_free(snapshot);
		return -ENOMEM;
	}
	save_memory(snapshot, machine, pages, count);
	save_parts(machine, machine_device, snapshot->devices);
	save_parts(machine, chip_at, snapshot->chips);
	for (unsigned i = 0; i < machine->vcpu_count; i++)
		ops->vcpu_save(machine->vcpus[i], &snapshot->vcpus[i]);
	machine->bus.changed = false;
	snapshot->fired = machine->clock.fired;
	return 0;
}

/* Whether a device may have changed that is not put back in any case. */
static bool devices_changed(const struct snapshot *snapshot, const struct machine *machine)
{
	return snapshot->moved || machine->bus.changed || machine->clock.fired != snapshot->fired;
}

/*
 * The time comes first, as timers are armed and TSCs set by it. The chips come last: what devices do to their
 * lines while they are loaded is put right then. Most cases touch no chip.
 */
int snapshot_restore(struct snapshot *snapshot, struct machine *machine)
{
	const struct engine_ops *ops = machine->engine->ops;
	int error;

	ops->dirty_restore(machine->engine, snapshot->image, snapshot->size);
	error = load_parts(machine, chip_at, snapshot->chips, 0, 0);
	if (!error)
		error = load_parts(machine, machine_device, snapshot->devices, 0,
				   devices_changed(snapshot, machine) ? UINT_MAX : MACHINE_APART - 1);
	for (unsigned i = 0; i < machine->vcpu_count && !error; i++)
		error = ops->vcpu_load(machine->vcpus[i], &snapshot->vcpus[i]);
	if (!error && (snapshot->moved || ops->chips_changed(machine->engine))) {
		error = load_parts(machine, chip_at, snapshot->chips, 1, UINT_MAX);
		if (!error)
			error = ops->chips_store(machine->engine);
	}
	machine->bus.changed = snapshot->moved = false;
	snapshot->fired = machine->clock.fired;
	return error;
}

void snapshot_free(struct snapshot *snapshot)
{
	if (snapshot->image)
		munmap(snapshot->image, snapshot->size);
	free(snapshot->devices);
	free(snapshot->chips);
	free(snapshot->vcpus);
	*snapshot = (struct snapshot){0};
}
