/*
 * translate.h: single pages through the TLB, for access.c and string.c.
 */
#ifndef TRAPLINE_CPU_MEM_TRANSLATE_H
#define TRAPLINE_CPU_MEM_TRANSLATE_H

#include "cpu/mem/mem.h"

/* The table for @access; its rights are those that such an access has. */
static inline struct tlb *context_of(const struct cpu *cpu, unsigned access)
{
	if (access & ACCESS_USER)
		return &cpu->tlbs[TLB_USER];
	if (cpu->cr4 & CR4_SMAP && cpu->rflags & RFLAGS_AC && !(access & ACCESS_IMPLICIT))
		return &cpu->tlbs[TLB_SUPERVISOR_AC];
	return &cpu->tlbs[TLB_SUPERVISOR];
}

/*
 * The page of @linear (canonical) for @access, from the TLB or by a walk, which sets A and D.
 * Raises #PF. The entry stays valid until the next translation or flush.
 */
const struct tlb_slow *tlb_translate(struct cpu *cpu, uint64_t linear, unsigned access);
/* Raises the #PF of such an access, and changes nothing. */
void tlb_probe(struct cpu *cpu, uint64_t linear, unsigned access);
/* After a write to the page of @linear made it dirty: lets further stores take the inline path. */
void tlb_arm_write(struct cpu *cpu, unsigned access, uint64_t linear);

/* Raises #AC(0) where alignment checks are on and @linear is no natural address for @size bytes (logical.c).
 */
void alignment_check(struct cpu *cpu, uint64_t linear, size_t size);

/* Records in cpu->dr6_pending the data breakpoints that an access hits (SDM 3B 18.2.4). */
void watch_access(struct cpu *cpu, uint64_t linear, size_t size, bool write);

#endif
