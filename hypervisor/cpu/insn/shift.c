/*
 * shift.c: shifts and rotates (SDM 2B RCL/RCR/ROL/ROR, SAL/SAR/SHL/SHR, SHLD, SHRD).
 *
 * Counts are taken modulo 32, or modulo 64 for 64-bit operands; a count that is then 0
 * changes no flag. What the manuals leave undefined is as on processors, which compute
 * the flags in one way for all counts: OF as for a count of 1, AF cleared by shifts.
 */
#include "cpu/insn/operand.h"

/* In the order of ModRM.reg of C0h, C1h, D0h to D3h; 6 is another SHL. */
enum shift { ROL, ROR, RCL, RCR, SHL, SHR, SAL, SAR };

HANDLER_INLINE bool bit(uint64_t value, unsigned index) { return value >> index & 1; }

HANDLER_INLINE uint64_t rotate(struct cpu *cpu, enum shift shift, uint64_t a, unsigned count, unsigned bits)
{
	unsigned n = count % bits;
	uint64_t left = shift == ROL ? n : (bits - n) % bits;
	uint64_t result = left ? (a << left | a >> (bits - left)) : a;

	result = truncate(result, bits / 8);
	if (shift == ROL)
		flags_set_cf_of(&cpu->lazy, bit(result, 0), bit(result, bits - 1) != bit(result, 0));
	else
		flags_set_cf_of(&cpu->lazy, bit(result, bits - 1),
				bit(result, bits - 1) != bit(result, bits - 2));
	return result;
}

/* Rotates CF and the operand together: bits + 1 places. */
HANDLER_INLINE uint64_t rotate_carry(struct cpu *cpu, enum shift shift, uint64_t a, unsigned count,
				     unsigned bits)
{
	unsigned n = count % (bits + 1);
	bool cf = flags_cf(&cpu->lazy), carry, overflow;
	uint64_t result;

	if (n == 0)
		return a;
	if (shift == RCL) {
		result =
			(n < bits ? a << n : 0) | (uint64_t)cf << (n - 1) | (n > 1 ? a >> (bits + 1 - n) : 0);
		carry = bit(a, bits - n);
		overflow = bit(result, bits - 1) != carry;
	} else {
		result = (n < bits ? a >> n : 0) | (uint64_t)cf << (bits - n) |
			 (n > 1 ? a << (bits + 1 - n) : 0);
		carry = bit(a, n - 1);
		overflow = bit(result, bits - 1) != bit(result, bits - 2);
	}
	flags_set_cf_of(&cpu->lazy, carry, overflow);
	return truncate(result, bits / 8);
}

HANDLER_INLINE uint64_t shift_plain(struct cpu *cpu, enum shift shift, uint64_t a, unsigned count,
				    unsigned bits)
{
	uint64_t result;
	bool carry, overflow;

	if (shift == SHL || shift == SAL) {
		result = truncate(a << count, bits / 8);
		carry = count <= bits && bit(a, bits - count);
		overflow = bit(result, bits - 1) != carry;
	} else if (shift == SHR) {
		result = a >> count;
		carry = bit(a, count - 1);
		overflow = bit(a, bits - 1);
	} else {
		int64_t value = (int64_t)sign_extend(a, bits);

		result = truncate((uint64_t)(value >> count), bits / 8);
		carry = bit((uint64_t)(value >> (count - 1)), 0);
		overflow = false;
	}
	flags_set_result(&cpu->lazy, result, bits);
	flags_set_cf_of(&cpu->lazy, carry, overflow);
	cpu->lazy.adjust = 0;
	return result;
}

/* @count is not 0. */
HANDLER_INLINE uint64_t shift_by(struct cpu *cpu, enum shift shift, uint64_t a, unsigned count, unsigned bits)
{
	if (shift == ROL || shift == ROR)
		return rotate(cpu, shift, a, count, bits);
	if (shift == RCL || shift == RCR)
		return rotate_carry(cpu, shift, a, count, bits);
	return shift_plain(cpu, shift, a, count, bits);
}

HANDLER_INLINE void shift_e(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory,
			    enum shift shift, unsigned count)
{
	struct mem_modify modify;
	uint64_t result = rm_modify_begin(cpu, insn, width, memory, &modify);

	count &= width == 8 ? 63 : 31;
	if (likely(count))
		result = shift_by(cpu, shift, result, count, 8 * width);
	rm_modify_end(cpu, insn, result, width, memory, &modify);
}

/* The forms by an immediate, by 1 and by CL. */
#define DEFINE_SHIFT(name, shift)                                                                            \
	HANDLER_INLINE void name##_ei(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory) \
	{                                                                                                    \
		shift_e(cpu, insn, width, memory, shift, (uint8_t)insn->imm);                                \
	}                                                                                                    \
	HANDLER_INLINE void name##_e1(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory) \
	{                                                                                                    \
		shift_e(cpu, insn, width, memory, shift, 1);                                                 \
	}                                                                                                    \
	HANDLER_INLINE void name##_ec(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory) \
	{                                                                                                    \
		shift_e(cpu, insn, width, memory, shift, (uint8_t)cpu->reg[RCX]);                            \
	}                                                                                                    \
	DEFINE_INSN_RM(name##_ei)                                                                            \
	DEFINE_INSN_RM(name##_e1)                                                                            \
	DEFINE_INSN_RM(name##_ec)

DEFINE_SHIFT(rol, ROL)
DEFINE_SHIFT(ror, ROR)
DEFINE_SHIFT(rcl, RCL)
DEFINE_SHIFT(rcr, RCR)
DEFINE_SHIFT(shl, SHL)
DEFINE_SHIFT(shr, SHR)
DEFINE_SHIFT(sar, SAR)

/* ---- double shifts ---- */

/*
 * @a : @b, taken as one operand of twice the size. Counts above 16 with 16-bit operands are
 * undefined; Intel's processors then go on with @a again, AMD's with @b.
 */
HANDLER_INLINE uint64_t shift_double(struct cpu *cpu, bool left, uint64_t a, uint64_t b, unsigned count,
				     unsigned bits)
{
	uint64_t result;
	bool carry;

	if (bits == 16) {
		uint64_t beyond = cpu->profile->vendor == VENDOR_AMD ? b : a;
		uint64_t wide = left ? a << 32 | b << 16 | beyond : beyond << 32 | b << 16 | a;

		result = truncate(left ? wide >> (32 - count) : wide >> count, 2);
		carry = left ? bit(wide, 48 - count) : bit(wide, count - 1);
	} else {
		result = left ? a << count | b >> (bits - count) : a >> count | b << (bits - count);
		result = truncate(result, bits / 8);
		carry = bit(a, left ? bits - count : count - 1);
	}
	flags_set_result(&cpu->lazy, result, bits);
	flags_set_cf_of(&cpu->lazy, carry, bit(result, bits - 1) != bit(a, bits - 1));
	cpu->lazy.adjust = 0;
	return result;
}

HANDLER_INLINE void shift_double_e(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory,
				   bool left, unsigned count)
{
	struct mem_modify modify;
	uint64_t result = rm_modify_begin(cpu, insn, width, memory, &modify);

	count &= width == 8 ? 63 : 31;
	if (count)
		result = shift_double(cpu, left, result, reg_read(cpu, insn->reg, width), count, 8 * width);
	rm_modify_end(cpu, insn, result, width, memory, &modify);
}

HANDLER_INLINE void shld_i(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory)
{
	shift_double_e(cpu, insn, width, memory, true, (uint8_t)insn->imm);
}
DEFINE_INSN_RM(shld_i)

HANDLER_INLINE void shld_c(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory)
{
	shift_double_e(cpu, insn, width, memory, true, (uint8_t)cpu->reg[RCX]);
}
DEFINE_INSN_RM(shld_c)

HANDLER_INLINE void shrd_i(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory)
{
	shift_double_e(cpu, insn, width, memory, false, (uint8_t)insn->imm);
}
DEFINE_INSN_RM(shrd_i)

HANDLER_INLINE void shrd_c(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory)
{
	shift_double_e(cpu, insn, width, memory, false, (uint8_t)cpu->reg[RCX]);
}
DEFINE_INSN_RM(shrd_c)
