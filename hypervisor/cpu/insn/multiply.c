/*
 * multiply.c: products and quotients (SDM 2A DIV IDIV IMUL, 2B MUL).
 *
 * A product sets CF and OF where its upper half is not the extension of the lower. SF, ZF, AF
 * and PF are undefined then, and all six after a division: here they stay as they are, as after
 * a multiplication on AMD's processors.
 */
#include "cpu/insn/operand.h"

typedef unsigned __int128 uint128;
typedef __int128 int128;

/* Product and quotient of a byte live in AX, of wider operands in rDX:rAX. */
HANDLER_INLINE void pair_write(struct cpu *cpu, uint64_t high, uint64_t low, unsigned width)
{
	if (width == 1) {
		reg_write(cpu, RAX, (high & 0xff) << 8 | (low & 0xff), 2);
		return;
	}
	reg_write(cpu, RAX, low, width);
	reg_write(cpu, RDX, high, width);
}

HANDLER_INLINE uint128 pair_read(const struct cpu *cpu, unsigned width)
{
	if (width == 1)
		return (uint16_t)cpu->reg[RAX];
	return (uint128)truncate(cpu->reg[RDX], width) << (8 * width) | truncate(cpu->reg[RAX], width);
}

HANDLER_INLINE void mul_e(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory)
{
	uint64_t b = rm_read(cpu, insn, width, memory);
	uint128 product = (uint128)reg_read(cpu, RAX, width) * b;
	uint64_t high = truncate((uint64_t)(product >> (8 * width)), width);

	flags_set_cf_of(&cpu->lazy, high, high);
	pair_write(cpu, high, (uint64_t)product, width);
}
DEFINE_INSN_RM(mul_e)

/* The signed product of two operands of @width; sets CF and OF. */
HANDLER_INLINE int128 signed_product(struct cpu *cpu, uint64_t a, uint64_t b, unsigned width)
{
	int128 product = (int128)(int64_t)sign_extend(a, 8 * width) * (int64_t)sign_extend(b, 8 * width);
	bool lost = product != (int64_t)sign_extend((uint64_t)product, 8 * width);

	flags_set_cf_of(&cpu->lazy, lost, lost);
	return product;
}

HANDLER_INLINE void imul_e(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory)
{
	uint64_t b = rm_read(cpu, insn, width, memory);
	int128 product = signed_product(cpu, reg_read(cpu, RAX, width), b, width);

	pair_write(cpu, truncate((uint64_t)(product >> (8 * width)), width), (uint64_t)product, width);
}
DEFINE_INSN_RM(imul_e)

HANDLER_INLINE void imul_ge(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory)
{
	uint64_t b = rm_read(cpu, insn, width, memory);

	reg_write(cpu, insn->reg, (uint64_t)signed_product(cpu, reg_read(cpu, insn->reg, width), b, width),
		  width);
}
DEFINE_INSN_RM(imul_ge)

HANDLER_INLINE void imul_gei(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory)
{
	uint64_t a = rm_read(cpu, insn, width, memory);

	reg_write(cpu, insn->reg, (uint64_t)signed_product(cpu, a, (uint64_t)insn->imm, width), width);
}
DEFINE_INSN_RM(imul_gei)

/* ---- division ---- */

HANDLER_INLINE void div_e(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory)
{
	uint64_t divisor = rm_read(cpu, insn, width, memory);
	uint128 dividend = pair_read(cpu, width);

	if (divisor == 0 || dividend >> (8 * width) >= divisor)
		cpu_raise(cpu, VECTOR_DE, 0);
	if (dividend >> 64)
		pair_write(cpu, (uint64_t)(dividend % divisor), (uint64_t)(dividend / divisor), width);
	else
		pair_write(cpu, (uint64_t)dividend % divisor, (uint64_t)dividend / divisor, width);
}
DEFINE_INSN_RM(div_e)

/* The most negative dividend over -1 has no quotient; it must not reach the host's division. */
#define QUOTIENT_OVERFLOWS(dividend, divisor, least)                                                         \
	((divisor) == 0 || ((divisor) == -1 && (dividend) == (least)))

HANDLER_INLINE void idiv_wide(struct cpu *cpu, int64_t divisor)
{
	int128 dividend = (int128)pair_read(cpu, 8);

	if (QUOTIENT_OVERFLOWS(dividend, divisor, (int128)((uint128)1 << 127)))
		cpu_raise(cpu, VECTOR_DE, 0);
	int128 quotient = dividend / divisor;

	if (quotient != (int64_t)quotient)
		cpu_raise(cpu, VECTOR_DE, 0);
	pair_write(cpu, (uint64_t)(dividend % divisor), (uint64_t)quotient, 8);
}

HANDLER_INLINE void idiv_e(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory)
{
	int64_t divisor = (int64_t)sign_extend(rm_read(cpu, insn, width, memory), 8 * width);

	if (width == 8) {
		idiv_wide(cpu, divisor);
		return;
	}
	int64_t dividend = (int64_t)sign_extend((uint64_t)pair_read(cpu, width), 16 * width);
	if (QUOTIENT_OVERFLOWS(dividend, divisor, INT64_MIN))
		cpu_raise(cpu, VECTOR_DE, 0);
	int64_t quotient = dividend / divisor;
	if (quotient != (int64_t)sign_extend((uint64_t)quotient, 8 * width))
		cpu_raise(cpu, VECTOR_DE, 0);
	pair_write(cpu, (uint64_t)(dividend % divisor), (uint64_t)quotient, width);
}
DEFINE_INSN_RM(idiv_e)
