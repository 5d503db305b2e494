/* insn/sse4a.c: fields of bits in XMM registers, and scalar stores past the caches (APM 4 EXTRQ, INSERTQ,
 * MOVNTSD, MOVNTSS). */
#include "cpu/simd.h"

/*
 * A length of 0 is 64 bits. Where a field reaches beyond bit 63, and in the upper half of the destination,
 * the APM leaves the result undefined: here the field ends at bit 63, and the upper half becomes zero.
 */
static inline uint64_t field_mask(unsigned length)
{
	return length & 63 ? (1ull << (length & 63)) - 1 : ~0ull;
}

static inline void extract(struct cpu *cpu, unsigned number, unsigned length, unsigned index)
{
	xmm_t value = xmm_get(cpu, number);
	value.u64[0] = value.u64[0] >> (index & 63) & field_mask(length);
	value.u64[1] = 0;
	xmm_set(cpu, number, value);
}

static inline void insert(struct cpu *cpu, unsigned number, uint64_t field, unsigned length, unsigned index)
{
	xmm_t value = xmm_get(cpu, number);
	uint64_t mask = field_mask(length) << (index & 63);
	value.u64[0] = (value.u64[0] & ~mask) | (field << (index & 63) & mask);
	value.u64[1] = 0;
	xmm_set(cpu, number, value);
}

static inline void sse_extrq(struct cpu *cpu, const struct insn *insn)
{
	xmm_t control = xmm_get(cpu, insn->rm);
	extract(cpu, insn->reg, control.u8[0], control.u8[1]);
}
DEFINE_INSN(sse_extrq)

static inline void sse_extrq_ib(struct cpu *cpu, const struct insn *insn)
{
	extract(cpu, insn->rm, (uint8_t)insn->imm, insn->imm2);
}
DEFINE_INSN(sse_extrq_ib)

static inline void sse_insertq(struct cpu *cpu, const struct insn *insn)
{
	xmm_t source = xmm_get(cpu, insn->rm);
	insert(cpu, insn->reg, source.u64[0], source.u8[8], source.u8[9]);
}
DEFINE_INSN(sse_insertq)

static inline void sse_insertq_ib(struct cpu *cpu, const struct insn *insn)
{
	insert(cpu, insn->reg, xmm_get(cpu, insn->rm).u64[0], (uint8_t)insn->imm, insn->imm2);
}
DEFINE_INSN(sse_insertq_ib)
