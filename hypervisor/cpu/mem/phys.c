/*
 * phys.c: slots of guest memory, and the dirty and code facts of their pages.
 */
#include "cpu/mem/phys.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/cpu.h"
#include "cpu/mem/phys_internal.h"
#include "cpu/mem/tlb.h"
#include "cpu/trace.h"
#include "x86/paging.h"

/* Unit in which decoded code is compared with what a restore puts back: the line of trace.h. */
#define CODE_LINE 128u

struct phys_memory *phys_new(void) { return calloc(1, sizeof(struct phys_memory)); }

void phys_free(struct phys_memory *memory)
{
	if (!memory)
		return;
	for (unsigned i = 0; i < memory->slots; i++)
		free(memory->slot[i].flags);
	free(memory->dirty);
	free(memory->cpus);
	free(memory);
}

static bool slot_fits(const struct phys_memory *memory, uint64_t base, uint64_t size)
{
	if (size == 0 || (base | size) % PAGE_SIZE || base + size - 1 < base)
		return false;
	for (unsigned i = 0; i < memory->slots; i++) {
		const struct memory_slot *slot = &memory->slot[i];
		if (base < slot->base + slot->size && slot->base < base + size)
			return false;
	}
	return true;
}

int phys_add(struct phys_memory *memory, uint64_t base, uint64_t size, void *host, bool read_only)
{
	size_t pages = size / PAGE_SIZE;
	uint64_t *dirty;
	uint8_t *flags;

	if (!slot_fits(memory, base, size))
		return -EINVAL;
	if (memory->slots == PHYS_SLOTS_MAX)
		return -ENOSPC;
	/* Room for every page, so that a guest's store never allocates. */
	dirty = realloc(memory->dirty, (memory->dirty_room + pages) * sizeof(*dirty));
	if (!dirty)
		return -ENOMEM;
	memory->dirty = dirty;
	flags = calloc(pages, 1);
	if (!flags)
		return -ENOMEM;
	memory->dirty_room += pages;
	memory->slot[memory->slots++] = (struct memory_slot){.base = base,
							     .size = size,
							     .image = memory->writable,
							     .host = host,
							     .flags = flags,
							     .read_only = read_only};
	memory->writable += read_only ? 0 : size;
	return 0;
}

int phys_attach(struct phys_memory *memory, struct cpu *cpu)
{
	struct cpu **cpus = realloc(memory->cpus, (memory->cpu_count + 1) * sizeof(*cpus));

	if (!cpus)
		return -ENOMEM;
	cpus[memory->cpu_count++] = cpu;
	memory->cpus = cpus;
	return 0;
}

void phys_detach(struct phys_memory *memory, struct cpu *cpu)
{
	for (unsigned i = 0; i < memory->cpu_count; i++) {
		if (memory->cpus[i] == cpu)
			memory->cpus[i--] = memory->cpus[--memory->cpu_count];
	}
}

const uint8_t *phys_host(const struct phys_memory *memory, uint64_t address, struct memory_slot **slot)
{
	struct memory_slot *found = phys_slot(memory, address);

	if (slot)
		*slot = found;
	return found ? found->host + (address - found->base) : NULL;
}

/* ---- what CPUs keep of a page ---- */

/* Writable TLB entries were made for pages that no longer may have one. */
static void forget_writable(struct phys_memory *memory)
{
	for (unsigned i = 0; i < memory->cpu_count; i++)
		tlb_forget_writable(memory->cpus[i]);
}

static void tell_code_written(struct phys_memory *memory, uint64_t address, size_t size)
{
	for (unsigned i = 0; i < memory->cpu_count; i++) {
		if (memory->cpus[i]->traces)
			trace_written(memory->cpus[i]->traces, address, size);
	}
}

void phys_set_code(struct phys_memory *memory, uint64_t address)
{
	struct memory_slot *slot = phys_slot(memory, address);
	uint8_t *flags = slot ? &slot->flags[(address - slot->base) / PAGE_SIZE] : NULL;

	if (!flags || *flags & PAGE_CODE)
		return;
	/* A clean page has no writable entry. */
	if (*flags & PAGE_DIRTY)
		forget_writable(memory);
	*flags |= PAGE_CODE;
}

void phys_set_monitored(struct phys_memory *memory, uint64_t address)
{
	struct memory_slot *slot = phys_slot(memory, address);
	uint8_t *flags = slot ? &slot->flags[(address - slot->base) / PAGE_SIZE] : NULL;

	if (!flags || *flags & PAGE_MONITORED)
		return;
	if (*flags == PAGE_DIRTY)
		forget_writable(memory);
	*flags |= PAGE_MONITORED;
}

/* The flag stays while a monitor is armed in the page. */
static void tell_monitors(struct phys_memory *memory, uint8_t *flags, uint64_t address, size_t size)
{
	bool armed = false;

	for (unsigned i = 0; i < memory->cpu_count; i++) {
		struct cpu *cpu = memory->cpus[i];

		if (!cpu->wait.armed)
			continue;
		if (address < cpu->wait.line + MONITOR_LINE && cpu->wait.line < address + size) {
			cpu->wait.armed = false;
			if (cpu->activity == ACTIVITY_MWAIT)
				cpu->activity = ACTIVITY_ACTIVE;
		}
		armed |= cpu->wait.armed && !((cpu->wait.line ^ address) & ~PAGE_MASK);
	}
	if (!armed)
		*flags &= (uint8_t)~PAGE_MONITORED;
}

void phys_clear_code(struct phys_memory *memory, uint64_t address)
{
	struct memory_slot *slot = phys_slot(memory, address);

	if (slot)
		slot->flags[(address - slot->base) / PAGE_SIZE] &= (uint8_t)~PAGE_CODE;
}

/* ---- writes ---- */

void phys_page_written(enum check log, struct phys_memory *memory, uint8_t *flags, uint64_t address, size_t size)
{
	if (!(*flags & PAGE_DIRTY) && check_holds(log)) {
		*flags |= PAGE_DIRTY;
		memory->dirty[memory->dirty_count++] = address & ~PAGE_MASK;
	}
	if (*flags & PAGE_CODE)
		tell_code_written(memory, address, size);
	if (*flags & PAGE_MONITORED)
		tell_monitors(memory, flags, address, size);
}

uint8_t *phys_write_begin_as(enum check log, struct phys_memory *memory, uint64_t address, size_t size)
{
	struct memory_slot *slot = phys_slot(memory, address);
	uint64_t offset;

	if (!slot || slot->read_only)
		return NULL;
	offset = address - slot->base;
	phys_page_written(log, memory, &slot->flags[offset / PAGE_SIZE], address, size);
	return slot->host + offset;
}

/* How many of @size bytes at @address lie in its page. */
static size_t page_part(uint64_t address, size_t size)
{
	size_t rest = PAGE_SIZE - (address & PAGE_MASK);
	return size < rest ? size : rest;
}

bool phys_read(const struct phys_memory *memory, uint64_t address, void *to, size_t size)
{
	uint8_t *bytes = to;

	while (size) {
		size_t part = page_part(address, size);
		const uint8_t *host = phys_host(memory, address, NULL);

		if (!host)
			return false;
		memcpy(bytes, host, part);
		bytes += part;
		address += part;
		size -= part;
	}
	return true;
}

bool phys_write_as(enum check log, struct phys_memory *memory, uint64_t address, const void *from, size_t size)
{
	const uint8_t *bytes = from;

	while (size) {
		size_t part = page_part(address, size);
		uint8_t *host = phys_write_begin_as(log, memory, address, part);

		if (!host)
			return false;
		memcpy(host, bytes, part);
		bytes += part;
		address += part;
		size -= part;
	}
	return true;
}

/* ---- clean again ---- */

void phys_dirty_reset(struct phys_memory *memory)
{
	for (size_t i = 0; i < memory->dirty_count; i++) {
		struct memory_slot *slot = phys_slot(memory, memory->dirty[i]);
		slot->flags[(memory->dirty[i] - slot->base) / PAGE_SIZE] &= (uint8_t)~PAGE_DIRTY;
	}
	if (memory->dirty_count)
		forget_writable(memory);
	memory->dirty_count = 0;
}

/* Code that a restore does not change stays decoded: most test guests never write theirs. */
static void tell_lines_that_differ(struct phys_memory *memory, uint64_t address, const uint8_t *now,
				   const uint8_t *then)
{
	for (unsigned line = 0; line < PAGE_SIZE; line += CODE_LINE) {
		if (memcmp(now + line, then + line, CODE_LINE))
			tell_code_written(memory, address + line, CODE_LINE);
	}
}

bool phys_replace(struct phys_memory *memory, uint64_t address, const void *page)
{
	struct memory_slot *slot = phys_slot(memory, address);
	uint64_t offset;

	if (!slot || slot->read_only || address % PAGE_SIZE)
		return false;
	offset = address - slot->base;
	if (slot->flags[offset / PAGE_SIZE] & PAGE_CODE)
		tell_lines_that_differ(memory, address, slot->host + offset, page);
	memcpy(slot->host + offset, page, PAGE_SIZE);
	return true;
}

void phys_restore_dirty(struct phys_memory *memory, const uint8_t *image, uint64_t image_size)
{
	size_t kept = 0;

	for (size_t i = 0; i < memory->dirty_count; i++) {
		uint64_t address = memory->dirty[i];
		struct memory_slot *slot = phys_slot(memory, address);
		uint64_t offset = address - slot->base, there = slot->image + offset;
		uint8_t *flags = &slot->flags[offset / PAGE_SIZE];

		if (there >= (image_size & ~PAGE_MASK)) {
			memory->dirty[kept++] = address;
			continue;
		}
		if (*flags & PAGE_CODE)
			tell_lines_that_differ(memory, address, slot->host + offset, image + there);
		memcpy(slot->host + offset, image + there, PAGE_SIZE);
		*flags &= (uint8_t)~PAGE_DIRTY;
	}
	if (kept != memory->dirty_count)
		forget_writable(memory);
	memory->dirty_count = kept;
}
