/*
 * test_cpu.h: a CPU made by hand, RAM, ROM and a logging bus, for the tests of mem/.
 *
 * RAM from 0 to 8 MiB, ROM of 64 KiB at 16 MiB; everything else is the bus. Page tables are
 * built from 1 MiB upwards.
 */
#ifndef TRAPLINE_CPU_MEM_TEST_CPU_H
#define TRAPLINE_CPU_MEM_TEST_CPU_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cpu/checks.h"
#include "cpu/mem/mem.h"
#include "cpu/mem/phys.h"
#include "cpu/mem/walk.h"

#define TEST_RAM    0x800000u
#define TEST_ROM_AT 0x1000000u
#define TEST_ROM    0x10000u
#define TEST_TABLES 0x100000u

enum test_mode { MODE_REAL, MODE_FLAT, MODE_32BIT, MODE_PAE, MODE_4LEVEL, MODE_5LEVEL };

struct test_cpu {
	struct cpu cpu;
	struct profile profile;
	uint8_t *ram, *rom;
	enum test_mode mode;
	uint64_t next_table;
	/* The last access that the bus saw, and how many. */
	uint64_t bus_address;
	unsigned bus_size, bus_reads, bus_writes;
	uint8_t bus_data[16];
};

static inline void test_bus_read(void *owner, uint64_t address, void *to, unsigned size)
{
	struct test_cpu *t = owner;

	t->bus_address = address;
	t->bus_size = size;
	t->bus_reads++;
	memset(to, 0xa5, size);
}

static inline void test_bus_write(void *owner, uint64_t address, const void *from, unsigned size)
{
	struct test_cpu *t = owner;

	t->bus_address = address;
	t->bus_size = size;
	t->bus_writes++;
	memcpy(t->bus_data, from, size);
}

static inline struct test_cpu *test_cpu_new(const char *profile)
{
	struct test_cpu *t = aligned_alloc(64, (sizeof(*t) + 63) & ~63ull);
	char why[100];

	memset(t, 0, sizeof(*t));
	assert_int_equal(profile_parse(&t->profile, profile, why, sizeof(why)), 0);
	t->ram = aligned_alloc(4096, TEST_RAM);
	t->rom = aligned_alloc(4096, TEST_ROM);
	memset(t->ram, 0, TEST_RAM);
	memset(t->rom, 0x5a, TEST_ROM);
	t->cpu.profile = &t->profile;
	t->cpu.physical_mask = (1ull << t->profile.physical_bits) - 1;
	t->cpu.memory = phys_new();
	t->cpu.bus = (struct cpu_bus){.owner = t, .mmio_read = test_bus_read, .mmio_write = test_bus_write};
	assert_int_equal(phys_add(t->cpu.memory, 0, TEST_RAM, t->ram, false), 0);
	assert_int_equal(phys_add(t->cpu.memory, TEST_ROM_AT, TEST_ROM, t->rom, true), 0);
	assert_int_equal(phys_attach(t->cpu.memory, &t->cpu), 0);
	assert_int_equal(tlb_create(&t->cpu), 0);
	t->next_table = TEST_TABLES;
	return t;
}

static inline void test_cpu_free(struct test_cpu *t)
{
	tlb_destroy(&t->cpu);
	phys_detach(t->cpu.memory, &t->cpu);
	phys_free(t->cpu.memory);
	free(t->ram);
	free(t->rom);
	free(t);
}

/* A segment with what segment.c derives from it outside 64-bit mode. */
static inline void test_segment(struct test_cpu *t, unsigned segment, uint64_t base, uint32_t limit,
				uint32_t attributes)
{
	struct cpu_segment *s = &t->cpu.segment[segment];
	bool code = attributes & SEG_CODE, usable = !(attributes & SEG_UNUSABLE);
	bool up = code || !(attributes & SEG_EXPAND_DOWN);

	s->s = (struct segment){.base = base, .limit = limit, .attributes = attributes, .selector = 0x10};
	s->linear_base = base;
	s->read_end = usable && up && (!code || attributes & SEG_READABLE) ? limit + 1ull : 0;
	s->write_end = usable && up && !code && attributes & SEG_WRITABLE ? limit + 1ull : 0;
}

#define SEG_DATA (SEG_P | SEG_S | SEG_DB | SEG_G | SEG_WRITABLE | SEG_ACCESSED)

static inline void test_flat_segments(struct test_cpu *t, bool wide)
{
	for (unsigned i = 0; i < SEGMENT_COUNT; i++) {
		test_segment(t, i, 0, 0xffffffff, SEG_DATA);
		if (wide)
			t->cpu.segment[i].read_end = t->cpu.segment[i].write_end = ~0ull;
	}
}

/* Control registers and what is derived from them; the page tables are empty. */
static inline void test_mode_set(struct test_cpu *t, enum test_mode mode)
{
	struct cpu *cpu = &t->cpu;
	bool wide = mode >= MODE_4LEVEL;

	t->mode = mode;
	cpu->cr0 = CR0_ET | (mode > MODE_REAL ? CR0_PE : 0) | (mode > MODE_FLAT ? CR0_PG : 0);
	cpu->cr4 = mode == MODE_32BIT ? CR4_PSE : mode >= MODE_PAE ? CR4_PAE : 0;
	cpu->cr4 |= mode == MODE_5LEVEL ? CR4_LA57 : 0;
	cpu->efer = wide ? EFER_LME | EFER_LMA : 0;
	cpu->linear_mask = wide ? ~0ull : 0xffffffff;
	cpu->stack_mask = wide ? ~0ull : mode == MODE_REAL ? 0xffff : 0xffffffff;
	cpu->code_mode = wide                ? CODE_64 | CODE_PE | CODE_LMA
			 : mode == MODE_REAL ? CODE_16
					     : CODE_32 | CODE_PE;
	cpu->cpl = 0;
	cpu->rflags = RFLAGS_FIXED;
	cpu->pkru = 0;
	cpu->dr7 = DR7_FIXED_1;
	cpu->dr6_pending = cpu->pending = 0;
	memset(t->ram + TEST_TABLES, 0, t->next_table - TEST_TABLES + PAGE_SIZE);
	t->next_table = TEST_TABLES + PAGE_SIZE;
	cpu->cr3 = TEST_TABLES;
	memset(cpu->pdpte, 0, sizeof(cpu->pdpte));
	test_flat_segments(t, wide);
	tlb_flush_all(cpu);
	tlb_select(cpu);
}

/* CPL 0 or 3. */
static inline void test_cpl_set(struct test_cpu *t, unsigned cpl)
{
	t->cpu.cpl = cpl;
	tlb_select(&t->cpu);
}

/* ---- page tables ---- */

static inline unsigned test_levels(const struct test_cpu *t)
{
	return t->mode == MODE_5LEVEL ? 5 : t->mode == MODE_4LEVEL ? 4 : t->mode == MODE_PAE ? 3 : 2;
}

/* The entry of @level (1: PTE) for a linear address is at .address[level]; 0: above a large page. */
struct test_path {
	uint64_t address[6];
	unsigned entry_size;
};

static inline uint64_t test_entry(const struct test_cpu *t, const struct test_path *path, unsigned level)
{
	uint64_t entry = 0;
	memcpy(&entry, t->ram + path->address[level], path->entry_size);
	return entry;
}

static inline void test_entry_set(struct test_cpu *t, const struct test_path *path, unsigned level,
				  uint64_t entry)
{
	memcpy(t->ram + path->address[level], &entry, path->entry_size);
	/* The PDPTE registers follow; this is no MOV to CR3. */
	if (t->mode == MODE_PAE && level == 3)
		t->cpu.pdpte[(path->address[3] - TEST_TABLES) / 8] = entry;
}

/* Maps @linear at @leaf_level to @entry (address and flags); upper entries allow everything. */
static inline struct test_path test_map(struct test_cpu *t, uint64_t linear, uint64_t entry,
					unsigned leaf_level)
{
	struct test_path path = {.entry_size = t->mode == MODE_32BIT ? 4 : 8};
	unsigned bits = t->mode == MODE_32BIT ? 10 : 9;
	uint64_t table = TEST_TABLES;

	for (unsigned level = test_levels(t); level >= leaf_level; level--) {
		uint64_t index = linear >> (12 + bits * (level - 1)) & ((1u << bits) - 1);

		if (t->mode == MODE_PAE && level == 3)
			index &= 3;
		path.address[level] = table + index * path.entry_size;
		if (level == leaf_level) {
			test_entry_set(t, &path, level, entry);
		} else if (!(test_entry(t, &path, level) & PTE_P)) {
			bool pdpte = t->mode == MODE_PAE && level == 3;

			test_entry_set(t, &path, level,
				       t->next_table | (pdpte ? PTE_P : PTE_P | PTE_W | PTE_U));
			t->next_table += PAGE_SIZE;
		}
		table = test_entry(t, &path, level) & 0xffffff000;
	}
	return path;
}

/* ---- faults ---- */

#define NO_FAULT (-1)

/* Runs @statement: the vector that it raised, its error code in cpu->raised, or NO_FAULT. */
#define FAULT_OF(t, statement)                                                                               \
	({                                                                                                   \
		volatile int fault_ = NO_FAULT;                                                              \
		if (setjmp((t)->cpu.unwind) == 0) {                                                          \
			statement;                                                                           \
		} else {                                                                                     \
			fault_ = (int)(t)->cpu.raised.vector;                                                \
		}                                                                                            \
		(int)fault_;                                                                                 \
	})

#endif
