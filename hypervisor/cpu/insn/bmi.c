/*
 * insn/bmi.c: BMI1 and BMI2 behind VEX prefixes (SDM 2 ANDN, BEXTR, BLSI, BZHI, MULX, PDEP, PEXT, RORX, SARX). TZCNT is in
 * bit.c. Flags that the manual leaves undefined are clear.
 */
#include "cpu/insn/operand.h"

/* The operand in VEX.vvvv. */
HANDLER_INLINE uint64_t vvvv_read(struct cpu *cpu, const struct insn *insn, unsigned width)
{
	return reg_read(cpu, insn->vvvv, width);
}

HANDLER_INLINE void set_flags(struct cpu *cpu, uint64_t result, unsigned width, bool carry)
{
	bool sign = result >> (8 * width - 1) & 1;

	flags_set(&cpu->lazy, (result ? 0 : RFLAGS_ZF) | (sign ? RFLAGS_SF : 0) | (carry ? RFLAGS_CF : 0));
}

HANDLER_INLINE void andn(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory)
{
	uint64_t result = rm_read(cpu, insn, width, memory) & ~vvvv_read(cpu, insn, width);

	set_flags(cpu, result, width, false);
	reg_write(cpu, insn->reg, result, width);
}
DEFINE_INSN_RM(andn)

/* SF is undefined. */
HANDLER_INLINE void bextr(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory)
{
	uint64_t source = rm_read(cpu, insn, width, memory), control = vvvv_read(cpu, insn, width);
	unsigned start = control & 0xff, length = control >> 8 & 0xff;
	uint64_t result = start < 8 * width ? source >> start : 0;

	if (length < 64)
		result &= (1ull << length) - 1;
	flags_set(&cpu->lazy, result ? 0 : RFLAGS_ZF);
	reg_write(cpu, insn->reg, result, width);
}
DEFINE_INSN_RM(bextr)

HANDLER_INLINE void blsr(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory)
{
	uint64_t source = rm_read(cpu, insn, width, memory), result = source & (source - 1);

	set_flags(cpu, result, width, source == 0);
	reg_write(cpu, insn->vvvv, result, width);
}
DEFINE_INSN_RM(blsr)

HANDLER_INLINE void blsmsk(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory)
{
	uint64_t source = rm_read(cpu, insn, width, memory), result = truncate(source ^ (source - 1), width);

	set_flags(cpu, result, width, source == 0);
	reg_write(cpu, insn->vvvv, result, width);
}
DEFINE_INSN_RM(blsmsk)

HANDLER_INLINE void blsi(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory)
{
	uint64_t source = rm_read(cpu, insn, width, memory), result = source & (0 - source);

	set_flags(cpu, result, width, source != 0);
	reg_write(cpu, insn->vvvv, result, width);
}
DEFINE_INSN_RM(blsi)

HANDLER_INLINE void bzhi(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory)
{
	uint64_t result = rm_read(cpu, insn, width, memory);
	unsigned count = vvvv_read(cpu, insn, width) & 0xff;

	if (count < 8 * width)
		result &= (1ull << count) - 1;
	set_flags(cpu, result, width, count >= 8 * width);
	reg_write(cpu, insn->reg, result, width);
}
DEFINE_INSN_RM(bzhi)

/* Bits of the first operand to the places that the mask has, or from them. */
HANDLER_INLINE void pdep(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory)
{
	uint64_t mask = rm_read(cpu, insn, width, memory), source = vvvv_read(cpu, insn, width), result = 0;

	for (; mask; mask &= mask - 1, source >>= 1)
		if (source & 1)
			result |= mask & (0 - mask);
	reg_write(cpu, insn->reg, result, width);
}
DEFINE_INSN_RM(pdep)

HANDLER_INLINE void pext(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory)
{
	uint64_t mask = rm_read(cpu, insn, width, memory), source = vvvv_read(cpu, insn, width), result = 0;

	for (unsigned at = 0; mask; mask &= mask - 1, at++)
		if (source & mask & (0 - mask))
			result |= 1ull << at;
	reg_write(cpu, insn->reg, result, width);
}
DEFINE_INSN_RM(pext)

/* Where both destinations are one register, it gets the upper half. */
HANDLER_INLINE void mulx(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory)
{
	unsigned __int128 product =
		(unsigned __int128)rm_read(cpu, insn, width, memory) * reg_read(cpu, RDX, width);

	reg_write(cpu, insn->vvvv, (uint64_t)product, width);
	reg_write(cpu, insn->reg, (uint64_t)(product >> (8 * width)), width);
}
DEFINE_INSN_RM(mulx)

HANDLER_INLINE void rorx(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory)
{
	uint64_t source = rm_read(cpu, insn, width, memory);
	unsigned count = (unsigned)insn->imm & (8 * width - 1);

	if (count)
		source = source >> count | source << (8 * width - count);
	reg_write(cpu, insn->reg, truncate(source, width), width);
}
DEFINE_INSN_RM(rorx)

HANDLER_INLINE void sarx(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory)
{
	unsigned shift = 64 - 8 * width;
	int64_t source = (int64_t)(rm_read(cpu, insn, width, memory) << shift) >> shift;

	reg_write(cpu, insn->reg, (uint64_t)(source >> (vvvv_read(cpu, insn, width) & (8 * width - 1))), width);
}
DEFINE_INSN_RM(sarx)

HANDLER_INLINE void shlx(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory)
{
	uint64_t source = rm_read(cpu, insn, width, memory);

	reg_write(cpu, insn->reg, source << (vvvv_read(cpu, insn, width) & (8 * width - 1)), width);
}
DEFINE_INSN_RM(shlx)

HANDLER_INLINE void shrx(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory)
{
	uint64_t source = rm_read(cpu, insn, width, memory);

	reg_write(cpu, insn->reg, source >> (vvvv_read(cpu, insn, width) & (8 * width - 1)), width);
}
DEFINE_INSN_RM(shrx)
