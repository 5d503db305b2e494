/*
 * fast.h: the inline halves of mem.h: what an access costs when nothing is special.
 *
 * A segment check, an addition, one comparison with a TLB tag, and a load or store. The
 * tag is compared with the page of the access's last byte, at the index of its first, so
 * that an access which crosses a page misses; alignment checks have a context of their
 * own that never hits. Everything else is in access.c.
 *
 * Included by mem.h, and only there.
 */
#ifndef TRAPLINE_CPU_MEM_FAST_H
#define TRAPLINE_CPU_MEM_FAST_H

#include <string.h>

#include "cpu/mem/mem.h"
#include "cpu/mem/tlb.h"

#define MEM_INLINE static inline __attribute__((always_inline))

/* The slow halves (access.c): all checks, page crossings, MMIO, breakpoints; raise faults. */
uint64_t mem_read_slow(struct cpu *cpu, unsigned segment, uint64_t offset, unsigned width);
void mem_write_slow(struct cpu *cpu, unsigned segment, uint64_t offset, uint64_t value, unsigned width);
uint64_t mem_modify_slow(struct cpu *cpu, unsigned segment, uint64_t offset, unsigned width,
			 struct mem_modify *modify);
void mem_store_slow(struct cpu *cpu, uint64_t linear, uint64_t value, unsigned width);

MEM_INLINE uint64_t host_load(const void *host, unsigned width)
{
	uint64_t value = 0;

	memcpy(&value, host, width);
	return value;
}

MEM_INLINE void host_store(void *host, uint64_t value, unsigned width) { memcpy(host, &value, width); }

/* Never NULL, which saves the test for it behind each hit. */
MEM_INLINE uint8_t *host_at(const struct tlb_hot *hot, uint64_t linear)
{
	uint8_t *host = (uint8_t *)(uintptr_t)(hot->host + linear);

	if (!host)
		__builtin_unreachable();
	return host;
}

/* Where @width readable bytes at @offset lie on the host, or NULL for the slow path. */
MEM_INLINE const uint8_t *mem_fast_read(struct cpu *cpu, unsigned segment, uint64_t offset, unsigned width)
{
	const struct cpu_segment *s = &cpu->segment[segment];
	uint64_t linear = (s->linear_base + offset) & cpu->linear_mask;
	const struct tlb *tlb = cpu->tlb;
	const struct tlb_hot *hot = &tlb->hot[tlb_index(linear)];
	uint64_t tag = ((linear + (width - 1)) & ~PAGE_MASK) | tlb->generation;

	if (likely(offset + width <= s->read_end && hot->read_tag == tag))
		return host_at(hot, linear);
	return NULL;
}

/* Where @width writable bytes at @offset lie on the host, or NULL for the slow path. */
MEM_INLINE uint8_t *mem_fast_write(struct cpu *cpu, unsigned segment, uint64_t offset, unsigned width)
{
	const struct cpu_segment *s = &cpu->segment[segment];
	uint64_t linear = (s->linear_base + offset) & cpu->linear_mask;
	const struct tlb *tlb = cpu->tlb;
	const struct tlb_hot *hot = &tlb->hot[tlb_index(linear)];
	uint64_t tag = ((linear + (width - 1)) & ~PAGE_MASK) | tlb->write_generation;

	if (likely(offset + width <= s->write_end && hot->write_tag == tag))
		return host_at(hot, linear);
	return NULL;
}

MEM_INLINE uint64_t mem_read(struct cpu *cpu, unsigned segment, uint64_t offset, unsigned width)
{
	const uint8_t *host = mem_fast_read(cpu, segment, offset, width);

	if (likely(host))
		return host_load(host, width);
	return mem_read_slow(cpu, segment, offset, width);
}

MEM_INLINE void mem_write(struct cpu *cpu, unsigned segment, uint64_t offset, uint64_t value, unsigned width)
{
	uint8_t *host = mem_fast_write(cpu, segment, offset, width);

	if (likely(host))
		host_store(host, value, width);
	else
		mem_write_slow(cpu, segment, offset, value, width);
}

MEM_INLINE uint64_t mem_modify_begin(struct cpu *cpu, unsigned segment, uint64_t offset, unsigned width,
				     struct mem_modify *modify)
{
	uint8_t *host = mem_fast_write(cpu, segment, offset, width);

	if (unlikely(!host))
		return mem_modify_slow(cpu, segment, offset, width, modify);
	modify->host = host;
	return host_load(host, width);
}

MEM_INLINE void mem_modify_end(struct cpu *cpu, const struct mem_modify *modify, uint64_t value,
			       unsigned width)
{
	if (likely(modify->host))
		host_store(modify->host, value, width);
	else
		mem_store_slow(cpu, modify->linear, value, width);
}

MEM_INLINE void stack_push(struct cpu *cpu, uint64_t value, unsigned width)
{
	uint64_t old = cpu->reg[RSP], pointer = old - width;

	mem_write(cpu, SS, pointer & cpu->stack_mask, value, width);
	cpu->reg[RSP] = old ^ ((old ^ pointer) & cpu->stack_mask);
}

MEM_INLINE uint64_t stack_pop(struct cpu *cpu, unsigned width)
{
	uint64_t old = cpu->reg[RSP], pointer = old + width;
	uint64_t value = mem_read(cpu, SS, old & cpu->stack_mask, width);

	cpu->reg[RSP] = old ^ ((old ^ pointer) & cpu->stack_mask);
	return value;
}

#endif
