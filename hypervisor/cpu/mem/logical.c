/*
 * logical.c: the segment unit: from a logical address to a linear one, with every check
 * that comes before paging (SDM 3A 5.3 to 5.5, SDM 1 3.3.7; APM 2 4.12, 5.3.1).
 */
#include "cpu/checks.h"
#include "cpu/mem/mem.h"
#include "cpu/mem/translate.h"

static _Noreturn void raise_for(struct cpu *cpu, unsigned segment)
{
	cpu_raise(cpu, segment == SS ? VECTOR_SS : VECTOR_GP, 0);
}

/* 64-bit mode: neither limits nor types, but the address must be canonical (SDM 1 3.3.7.1). */
static uint64_t linear_64(struct cpu *cpu, unsigned segment, uint64_t offset, size_t size)
{
	uint64_t linear = cpu->segment[segment].linear_base + offset, last = linear + (size - 1);

	if (CHECK(CANONICAL, !linear_is_canonical(cpu, linear) || !linear_is_canonical(cpu, last)))
		raise_for(cpu, segment);
	return linear;
}

/* Whether the segment's type forbids such an access. Real-address mode has no types. */
static bool type_allows(const struct cpu *cpu, uint32_t attributes, unsigned access)
{
	if (!cpu_protected(cpu))
		return true;
	if (access & ACCESS_WRITE)
		return !CHECK(SEGMENT_WRITABLE, attributes & SEG_CODE || !(attributes & SEG_WRITABLE));
	if (access & ACCESS_EXECUTE)
		return true;
	return !CHECK(SEGMENT_READABLE, attributes & SEG_CODE && !(attributes & SEG_READABLE));
}

static bool limit_allows(const struct segment *s, uint64_t offset, size_t size)
{
	bool expand_down = (s->attributes & (SEG_CODE | SEG_EXPAND_DOWN)) == SEG_EXPAND_DOWN;
	uint64_t last = offset + (size - 1), top = s->attributes & SEG_DB ? 0xffffffff : 0xffff;

	if (expand_down)
		return !CHECK(SEGMENT_LIMIT_EXPAND_DOWN, offset <= s->limit || last > top);
	return !CHECK(SEGMENT_LIMIT, last > s->limit);
}

uint64_t segment_linear(struct cpu *cpu, unsigned segment, uint64_t offset, size_t size, unsigned access)
{
	const struct segment *s = &cpu->segment[segment].s;

	if (size == 0)
		size = 1;
	if (cpu_64bit(cpu))
		return linear_64(cpu, segment, offset, size);
	if (CHECK(SEGMENT_NULL, s->attributes & SEG_UNUSABLE && cpu_protected(cpu)))
		raise_for(cpu, segment);
	if (!type_allows(cpu, s->attributes, access) || !limit_allows(s, offset, size))
		raise_for(cpu, segment);
	return (cpu->segment[segment].linear_base + offset) & cpu->linear_mask;
}

/* ---- alignment (SDM 3A 6.15, #AC, table 6-7) ---- */

/* What an operand of @size bytes must be a multiple of; 1 where the manual demands nothing. */
static unsigned natural_alignment(size_t size)
{
	switch (size) {
	case 2: return 2;
	case 4: return 4;
	case 6: return 4; /* 48-bit pointers, pseudo-descriptors */
	case 8: return 8;
	case 10: return 8; /* double extended-precision; 80-bit pointers */
	case 14: return 2; /* 16-bit x87 environment */
	case 28: return 4; /* 32-bit x87 environment */
	case 94: return 2; /* x87 state behind them */
	case 108: return 4;
	default: return 1; /* 16 bytes and more: #AC is up to the processor */
	}
}

void alignment_check(struct cpu *cpu, uint64_t linear, size_t size)
{
	if (cpu->tlb != &cpu->tlbs[TLB_USER_ALIGNED])
		return;
	if (CHECK(ALIGNMENT, linear & (natural_alignment(size) - 1)))
		cpu_raise(cpu, VECTOR_AC, 0);
}
