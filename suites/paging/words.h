/*
 * words.h: the notation's words for page tables.
 *
 *      insn         where          given                                          manual says    where it
 * says so TRAP(PAGED_READ,  LONG | CPL3,   (PATH(4L_4K), ENTRY(PDE, CLEAR_BITS(PTE_U)),    AS_RULED,     
 * SDM(…))                                   CONTROLS(.nxe = true))
 *
 * PATH(shape)            maps the access's address by a permissive path; always the first word
 * ENTRY(level, change)   changes one entry: ONLY(bits) beside its address, SET_BITS(bits), CLEAR_BITS(bits),
 * VALUE(entry) CONTROLS(fields)       struct controls of rule.h, all of them: .wp = true is the baseline's
 * POINT                  aims the access at the path: after all that changes it
 * AS_RULED               the outcome that rule.c computes, with its clauses
 *
 * PRODUCT(shape, level, bits) makes the full product at one entry, PAIRS(shape, a, b) that of two entries
 * (product.h).
 */
#ifndef TRAPLINE_SUITES_PAGING_WORDS_H
#define TRAPLINE_SUITES_PAGING_WORDS_H

#include "../notation.h"
#include "path.h"
#include "rule.h"

/* The path and the access of the cell that is being made. */
struct paging {
	struct path path;
	struct controls controls;
	uint64_t rax; /* what the code under test loads there, if it does */
	bool rax_loaded;
	uint64_t cr4; /* what it leaves there, if not what the case loads */
	bool cr4_changed;
	bool in_new_task; /* it switches to another task, whose CR3 this is */
	uint64_t task_cr3;
};

extern struct paging paging;

#define PATH(shape)          paging_path(x, SHAPE_##shape)
#define ENTRY(level, change) (paging_entry(x, LEVEL_##level)->value change)
#define ONLY(bits)           = (paging_address_bits(x) | (bits))
#define SET_BITS(bits)       |= (uint64_t)(bits)
#define CLEAR_BITS(bits)     &= ~(uint64_t)(bits)
#define VALUE(entry)         = (entry)
#define CONTROLS(...)        paging_controls(x, (struct controls){__VA_ARGS__})
#define POINT                paging_point(x)
#define AS_RULED             paging_say(x)

/* Where in the frame the accesses stand. */
#define PAGED_DATA_OFFSET 0x400u
#define PAGED_LDT_OFFSET  0x800u
#define PAGED_CODE_OFFSET 0xc00u
#define PAGED_DATA        0x1122334455667788ull /* what stands at PAGED_DATA_OFFSET */
#define PAGED_SEGMENT     0x00cff2000000ffffull /* what stands at PAGED_LDT_OFFSET + 8: data, DPL 3, A = 0 */
#define PAGED_KEY         5u                    /* the protection key of pages that have one */

/* The access that an instruction of instructions.def makes. */
enum access paging_access(const struct cell *x);

/* Where the current cell's access goes: the linear address. */
uint64_t paging_target(const struct cell *x);

void paging_path(struct cell *x, enum shape shape);
struct path_entry *paging_entry(struct cell *x, enum level level);
void paging_controls(struct cell *x, struct controls controls);
void paging_point(struct cell *x);
void paging_say(struct cell *x);

/* The settings that enter the paging mode of @shape in the cell's mode, and its CPUID bits. */
void paging_mode(struct cell *x, enum shape shape);
/* Cites the clauses of the shape's translation. */
void paging_cite_shape(struct cell *x, enum shape shape);
/* Pokes the entries of @path. */
void paging_poke(struct cell *x, const struct path *path);
/* The effects of @promise on the entries of @path: accessed and dirty flags. */
void paging_say_flags(struct cell *x, const struct path *path, const struct promise *promise, bool writes);
/* Sets A in all entries of the current path, and D in the last. */
void paging_all_flags(void);
/* Makes the page of the current path the supervisor's, below CPL 3. */
void paging_own_page(struct cell *x);
/* A of all entries of the current path may be set, none of them must: for an access that faults by rights. */
void paging_say_early(struct cell *x);
/* A is set in all entries of the current path but the last. */
void paging_say_above(struct cell *x);
/* A page fault for a reserved bit at @level. */
void paging_say_reserved(struct cell *x, enum level level);
/* "bit36": a part of an id. */
const char *paging_numbered(const char *word, unsigned number);
/* The effects of the access where it is permitted. */
void paging_say_success(struct cell *x);

#endif
