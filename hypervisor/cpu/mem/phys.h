/*
 * phys.h: the physical memory that CPUs see: slots of host memory, with three facts
 * about each 4 KiB page: does it hold decoded code, was it written since the last
 * time that someone asked, and does a CPU wait for a write.
 *
 * Every write to guest memory goes through here or through a writable TLB entry, which a
 * page gets only while it is dirty already and nothing else. So these facts are exact,
 * and a hot store pays for none.
 */
#ifndef TRAPLINE_CPU_MEM_PHYS_H
#define TRAPLINE_CPU_MEM_PHYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cpu/checks.h"

struct cpu;
struct trace_cache;

enum page_flag {
	PAGE_DIRTY = 1, /* written since phys_dirty_reset(); in the dirty list */
	PAGE_CODE = 2,  /* decoded traces came from it: writes must tell trace.c */
	PAGE_MONITORED = 4 /* a CPU's armed monitor may lie in it */
};

struct memory_slot {
	uint64_t base, size; /* guest-physical bytes, multiples of 4096 */
	uint64_t image;      /* its offset in an image of all writable slots */
	uint8_t *host;       /* borrowed */
	uint8_t *flags;      /* enum page_flag, a byte a page; owned by phys_memory */
	bool read_only;      /* writes go to the bus */
};

#define PHYS_SLOTS_MAX 32

struct phys_memory {
	struct memory_slot slot[PHYS_SLOTS_MAX];
	unsigned slots;
	uint64_t writable; /* bytes of all writable slots */
	uint64_t *dirty;   /* guest-physical addresses of dirty pages, in order of their first write */
	size_t dirty_count;
	size_t dirty_room;
	struct cpu **cpus; /* told when a page's flags change, or its content under decoded code */
	unsigned cpu_count;
};

struct phys_memory *phys_new(void);
void phys_free(struct phys_memory *memory);
/* Adds @size bytes at @host as RAM (or ROM) at guest-physical @base. 0, -EINVAL where it overlaps, -ENOSPC,
 * -ENOMEM. */
int phys_add(struct phys_memory *memory, uint64_t base, uint64_t size, void *host, bool read_only);

/* Adds and removes a CPU that runs on this memory (cpu_new(), cpu_free()). 0, -ENOMEM. */
int phys_attach(struct phys_memory *memory, struct cpu *cpu);
void phys_detach(struct phys_memory *memory, struct cpu *cpu);

/*
 * The page at @address holds decoded code from now on (trace.c, before it decodes): every write
 * to it is told to trace_written(). phys_clear_code(): no decoded code of any CPU came from it.
 * Addresses outside all slots are ignored.
 */
void phys_set_code(struct phys_memory *memory, uint64_t address);
void phys_clear_code(struct phys_memory *memory, uint64_t address);

/* The line of MONITOR_LINE bytes at cpu->wait.line of some CPU is watched from now on: a write to it disarms the
 * monitor, and ends the wait of a CPU in ACTIVITY_MWAIT. No effect outside all slots. */
#define MONITOR_LINE 64u
void phys_set_monitored(struct phys_memory *memory, uint64_t address);

/* Host address of guest-physical @address, NULL where no slot holds it. For reading only. */
const uint8_t *phys_host(const struct phys_memory *memory, uint64_t address, struct memory_slot **slot);

/*
 * Says that @size bytes at @address, within one page, are about to be written: logs the
 * page as dirty and drops decoded code that they touch. Returns where to write, or NULL
 * where no writable slot holds it. @log: who writes: broken, such a check does not log the page.
 */
uint8_t *phys_write_begin_as(enum check log, struct phys_memory *memory, uint64_t address, size_t size);
static inline uint8_t *phys_write_begin(struct phys_memory *memory, uint64_t address, size_t size)
{
	return phys_write_begin_as(CHECK_LOG_DEVICE, memory, address, size);
}

/* Copies in and out of guest memory (loaders, devices, snapshots). False: not all of it is RAM. */
bool phys_read(const struct phys_memory *memory, uint64_t address, void *to, size_t size);
bool phys_write_as(enum check log, struct phys_memory *memory, uint64_t address, const void *from, size_t size);
static inline bool phys_write(struct phys_memory *memory, uint64_t address, const void *from, size_t size)
{
	return phys_write_as(CHECK_LOG_DEVICE, memory, address, from, size);
}

/*
 * Replaces the page at @address by @page, which holds what the guest has there already, as seen by it: the page is no dirtier
 * than before, nobody's monitor hears of it, and decoded code stays where it is the same. Translations may be stale, and
 * are the caller's to drop. False: no writable slot holds it.
 */
bool phys_replace(struct phys_memory *memory, uint64_t address, const void *page);

/* Forgets all dirty pages: from here on, pages count as unwritten. Takes time in the pages that were dirty.
 */
void phys_dirty_reset(struct phys_memory *memory);

/*
 * Puts every dirty page back from @image, which holds the writable slots one behind the other in the order
 * they were added, and forgets that it was dirty. Dirty pages that @image_size bytes do not cover stay as
 * they are, and dirty. Of pages that hold code, trace.c is told only of the lines that differ.
 */
void phys_restore_dirty(struct phys_memory *memory, const uint8_t *image, uint64_t image_size);

#endif
