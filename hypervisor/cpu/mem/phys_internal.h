/*
 * phys_internal.h: what phys.c and the rest of mem/ share beyond phys.h and mem.h.
 */
#ifndef TRAPLINE_CPU_MEM_PHYS_INTERNAL_H
#define TRAPLINE_CPU_MEM_PHYS_INTERNAL_H

#include "cpu/mem/phys.h"

/* The slot that holds @address, or NULL. Slots are few, and the first is where nearly all memory is. */
static inline struct memory_slot *phys_slot(const struct phys_memory *memory, uint64_t address)
{
	for (unsigned i = 0; i < memory->slots; i++) {
		const struct memory_slot *slot = &memory->slot[i];
		if (address - slot->base < slot->size)
			return (struct memory_slot *)slot;
	}
	return NULL;
}

/*
 * phys_write_begin() for a page whose flags the caller has at hand: @size bytes at @address
 * are about to be written.
 */
void phys_page_written(enum check log, struct phys_memory *memory, uint8_t *flags, uint64_t address, size_t size);

/* Drops the writable entries of @cpu: some page became clean or holds code (tlb.c). */
void tlb_forget_writable(struct cpu *cpu);

#endif
