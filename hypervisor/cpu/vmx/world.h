/*
 * world.h: what VM entry (entry.c) and VM exit (world.c) share.
 */
#ifndef TRAPLINE_CPU_VMX_WORLD_H
#define TRAPLINE_CPU_VMX_WORLD_H

#include "cpu/vmx/vmx.h"

/* Bits of CR0 that neither an entry nor an exit changes (27.3.2.1, 28.5.1): ET, NW, CD and the reserved ones.
 */
#define CR0_KEPT (~(uint64_t)(CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_NE | CR0_WP | CR0_AM | CR0_PG))

/* ES to GS, LDTR, TR: the order of the fields for selectors, limits, rights and bases. */
#define SEGMENTS       (SEGMENT_COUNT + 2)
#define SEGMENT_RIGHTS (SEG_TYPE | SEG_S | SEG_DPL | SEG_P | SEG_AVL | SEG_L | SEG_DB | SEG_G | SEG_UNUSABLE)

static inline struct segment *segment_at(struct cpu *cpu, unsigned index)
{
	if (index < SEGMENT_COUNT)
		return &cpu->segment[index].s;
	return index == SEGMENT_COUNT ? &cpu->ldtr.s : &cpu->tr.s;
}

/* The field @index places behind @first. */
static inline enum vmcs_field indexed(enum vmcs_field first, unsigned index)
{
	return (enum vmcs_field)((unsigned)first + 2 * index);
}

static inline bool pae_paging(const struct cpu *cpu)
{
	return cpu->cr0 & CR0_PG && cpu->cr4 & CR4_PAE && !(cpu->efer & EFER_LMA);
}

void set_flags(struct cpu *cpu, uint64_t flags);
/* IA32_EFER.LME and LMA. */
void set_long_mode(struct cpu *cpu, bool on);
/* Nothing that was derived of the other world holds. */
void world_changed(struct cpu *cpu);
/* Translations of either world go, but where a VPID keeps them apart (29.4.3.1). */
void drop_translations(struct cpu *cpu);

/* A list of MSRs: the number of the first entry that cannot be loaded, from 1; 0: all were. */
uint32_t load_msrs(struct cpu *cpu, uint64_t list, uint32_t count);
/* A longer list than IA32_VMX_MISC recommends may end in a machine check (A.6). */
bool list_too_long(uint32_t count);

/* The host's state, when the guest is out. 0, or why that aborts (28.7). */
enum vmx_abort load_host(struct cpu *cpu);
void abort_exit(struct cpu *cpu, enum vmx_abort abort);

#endif
