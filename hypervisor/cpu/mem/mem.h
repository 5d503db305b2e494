/*
 * mem.h: memory as instructions see it: through segments, paging and the TLB.
 *
 * A logical address is a segment and an offset; its checks are SDM 3A chapter 5 and APM 2
 * chapter 4 (limit, type, null selector, canonical form, #AC), a linear address is
 * translated as in SDM 3A chapter 4. All functions raise the fault that the manuals
 * promise and then do not return. Sizes are in bytes; values are little endian.
 *
 * An access that crosses a page checks both pages before it writes to either.
 */
#ifndef TRAPLINE_CPU_MEM_MEM_H
#define TRAPLINE_CPU_MEM_MEM_H

#include "cpu/checks.h"
#include "cpu/cpu.h"

/* Kinds of access, for walks. */
enum access {
	ACCESS_READ = 0,
	ACCESS_WRITE = 1,
	ACCESS_EXECUTE = 2,
	ACCESS_USER = 4, /* at CPL 3; without it, supervisor-mode */
	ACCESS_IMPLICIT =
		8 /* descriptor tables, TSS, IDT: supervisor-mode whatever the CPL; SMAP ignores EFLAGS.AC */
};

/* ---- data, through a segment, at the current privilege ---- */

/* @width 1, 2, 4 or 8, a constant where it is hot. Inline fast paths in mem/fast.h. */
static inline uint64_t mem_read(struct cpu *cpu, unsigned segment, uint64_t offset, unsigned width);
static inline void mem_write(struct cpu *cpu, unsigned segment, uint64_t offset, uint64_t value,
			     unsigned width);

/* Any size up to a page (SSE, x87, FXSAVE, descriptors). @alignment: #GP(0) where the linear address is not a
 * multiple; 1 for none. */
void mem_read_bytes(struct cpu *cpu, unsigned segment, uint64_t offset, void *to, size_t size,
		    unsigned alignment);
void mem_write_bytes(struct cpu *cpu, unsigned segment, uint64_t offset, const void *from, size_t size,
		     unsigned alignment);
/* Raises what a write of @size bytes would raise, and writes nothing. */
void mem_check_write(struct cpu *cpu, unsigned segment, uint64_t offset, size_t size);
void mem_check_read(struct cpu *cpu, unsigned segment, uint64_t offset, size_t size);
/* The same for one byte, and its physical address. */
uint64_t mem_check_physical(struct cpu *cpu, unsigned segment, uint64_t offset);

/*
 * Read-modify-write: translates once, for writing. mem_modify_begin() returns the old value,
 * mem_modify_end() stores the new one; nothing may fault between them.
 */
struct mem_modify {
	uint8_t *host; /* NULL: page-crossing, MMIO or watched; then the slow path stores */
	uint64_t linear;
};
static inline uint64_t mem_modify_begin(struct cpu *cpu, unsigned segment, uint64_t offset, unsigned width,
					struct mem_modify *modify);
static inline void mem_modify_end(struct cpu *cpu, const struct mem_modify *modify, uint64_t value,
				  unsigned width);

/*
 * A page-wise run for string instructions: host pointer for up to *@size bytes at this offset that lie in one
 * page and inside the segment, of which all are then read, or written; NULL where only element by element will
 * do. Raises what an access to the first element would raise.
 */
const uint8_t *mem_run_read(struct cpu *cpu, unsigned segment, uint64_t offset, size_t *size);
uint8_t *mem_run_write(struct cpu *cpu, unsigned segment, uint64_t offset, size_t *size);

/*
 * ---- linear addresses, with explicit rights (enum access bits) ----
 * A read with ACCESS_WRITE is the first half of a read-modify-write: it faults as the write does.
 */

uint64_t linear_read(struct cpu *cpu, uint64_t linear, unsigned width, unsigned access);
void linear_write(struct cpu *cpu, uint64_t linear, uint64_t value, unsigned width, unsigned access);
void linear_read_bytes(struct cpu *cpu, uint64_t linear, void *to, size_t size, unsigned access);
void linear_write_bytes(struct cpu *cpu, uint64_t linear, const void *from, size_t size, unsigned access);
/* Raises what such an access would raise. */
void linear_check(struct cpu *cpu, uint64_t linear, size_t size, unsigned access);

/*
 * The logical address made linear for an access of @size bytes by @access with the checks of the
 * segment unit: #GP(0), or #SS(0) for SS; non-canonical addresses; no paging.
 */
uint64_t segment_linear(struct cpu *cpu, unsigned segment, uint64_t offset, size_t size, unsigned access);

static inline bool linear_is_canonical(const struct cpu *cpu, uint64_t linear)
{
	unsigned shift = cpu->cr4 & CR4_LA57 ? 7 : 16;
	return (uint64_t)((int64_t)(linear << shift) >> shift) == linear;
}

/* ---- stack ---- */

/* Pushes and pops of @width bytes through SS at cpu->stack_mask, at the current privilege. RSP changes only
 * on success. */
static inline void stack_push(struct cpu *cpu, uint64_t value, unsigned width);
static inline uint64_t stack_pop(struct cpu *cpu, unsigned width);

/* ---- code ---- */

/*
 * Physical address for fetching at linear address @linear, with the checks of an instruction
 * fetch; raises #PF, #GP. Used by trace.c.
 */
uint64_t fetch_translate(struct cpu *cpu, uint64_t linear);

/* ---- translations (tlb.c) ---- */

/* Makes cpu->tlbs and cpu->tlb (0, -ENOMEM), and frees them. Called by cpu_new() and cpu_free(). */
int tlb_create(struct cpu *cpu);
void tlb_destroy(struct cpu *cpu);

/*
 * Translations belong to a space: the host's, an ASID's, a VPID's with an EPTP. tlb_select() goes to the one that
 * runs and keeps the others; the next three are about that one.
 */
void tlb_flush_all(struct cpu *cpu);                   /* everything, globals too */
void tlb_flush_non_global(struct cpu *cpu);            /* MOV to CR3 */
void tlb_flush_page(struct cpu *cpu, uint64_t linear); /* INVLPG */

/* The same of all spaces that are @space in the bits of @mask; mask 0: of all. */
void tlb_flush_spaces(struct cpu *cpu, uint64_t space, uint64_t mask);
void tlb_flush_spaces_page(struct cpu *cpu, uint64_t space, uint64_t mask, uint64_t linear);

/*
 * Sets cpu->tlb after a change of world, CPL, EFLAGS.AC, CR0, CR4, EFER, PKRU or a debug register, and
 * forgets translations whose rights depended on what changed. Part of cpu_mode_changed();
 * WRPKRU, XRSTOR and MOV to DR call it themselves where nothing else has changed.
 */
void tlb_select(struct cpu *cpu);

/* ---- physical ---- */

uint64_t physical_read(struct cpu *cpu, uint64_t address, unsigned width);
/* @log: who writes (phys.h). */
void physical_write_as(enum check log, struct cpu *cpu, uint64_t address, uint64_t value, unsigned width);
static inline void physical_write(struct cpu *cpu, uint64_t address, uint64_t value, unsigned width)
{
	physical_write_as(CHECK_LOG_STORE, cpu, address, value, width);
}

/* PAE: loads the four PDPTE registers from CR3. False where a reserved bit is set: #GP(0) (SDM 3A 4.4.1). */
bool pdptes_load(struct cpu *cpu, uint64_t cr3);
bool pdpte_valid(const struct cpu *cpu, uint64_t pdpte); /* what that checks of each */

#include "cpu/mem/fast.h"

#endif
