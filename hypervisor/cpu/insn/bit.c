/*
 * bit.c: single bits and counts of bits (SDM 2A BT BTS BTR BTC BSF BSR CRC32 LZCNT, 2B POPCNT TZCNT).
 */
#include "cpu/insn/operand.h"

/* In the order of ModRM.reg of 0F BAh, from 4. */
enum bit_test { BT, BTS, BTR, BTC };

HANDLER_INLINE uint64_t changed(enum bit_test test, uint64_t value, unsigned index)
{
	switch (test) {
	case BTS: return value | 1ull << index;
	case BTR: return value & ~(1ull << index);
	case BTC: return value ^ 1ull << index;
	default: return value;
	}
}

/*
 * Bit @index of the operand at @offset; BT alone does not write. The other status flags, which the
 * manuals leave undefined (ZF is unchanged), stay as they are.
 */
HANDLER_INLINE void bit_at(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory,
			   enum bit_test test, uint64_t offset, unsigned index)
{
	struct mem_modify modify;
	uint64_t value;

	if (!memory)
		value = reg_read(cpu, insn->rm, width);
	else if (test == BT)
		value = mem_read(cpu, insn->segment, offset, width);
	else
		value = mem_modify_begin(cpu, insn->segment, offset, width, &modify);
	flags_set_cf(&cpu->lazy, value >> index & 1);
	if (test != BT)
		rm_modify_end(cpu, insn, changed(test, value, index), width, memory, &modify);
}

/* The index in a register is signed, and reaches beyond a memory operand (SDM 2A 3.1.1.9, bit strings). */
HANDLER_INLINE void bit_eg(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory,
			   enum bit_test test)
{
	const unsigned bits = 8 * width, shift = width == 2 ? 4 : width == 4 ? 5 : 6;
	uint64_t index = reg_read(cpu, insn->reg, width), offset = 0;

	if (memory) {
		int64_t units = (int64_t)sign_extend(index, bits) >> shift;

		offset = insn_offset(cpu, insn) + (uint64_t)units * width;
		offset = offset << insn->address_shift >> insn->address_shift;
	}
	bit_at(cpu, insn, width, memory, test, offset, (unsigned)(index & (bits - 1)));
}

HANDLER_INLINE void bit_ei(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory,
			   enum bit_test test)
{
	uint64_t offset = memory ? insn_offset(cpu, insn) : 0;

	bit_at(cpu, insn, width, memory, test, offset, (unsigned)insn->imm & (8 * width - 1));
}

#define DEFINE_BIT_TEST(name, test)                                                                          \
	HANDLER_INLINE void name##_eg(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory) \
	{                                                                                                    \
		bit_eg(cpu, insn, width, memory, test);                                                      \
	}                                                                                                    \
	HANDLER_INLINE void name##_ei(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory) \
	{                                                                                                    \
		bit_ei(cpu, insn, width, memory, test);                                                      \
	}                                                                                                    \
	DEFINE_INSN_RM(name##_eg)                                                                            \
	DEFINE_INSN_RM(name##_ei)

DEFINE_BIT_TEST(bt, BT)
DEFINE_BIT_TEST(bts, BTS)
DEFINE_BIT_TEST(btr, BTR)
DEFINE_BIT_TEST(btc, BTC)

/* ---- scans and counts ---- */

/* ZF, the other status flags left alone. */
HANDLER_INLINE void set_zf(struct cpu *cpu, bool zf) { cpu->lazy.zero = !zf; }

/*
 * A source of 0 leaves the whole destination alone: so the APM, and so Intel's processors
 * (SDM 2A BSF: undefined). Flags other than ZF are undefined, and stay as they are.
 */
HANDLER_INLINE void scan(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory, bool reverse)
{
	uint64_t value = rm_read(cpu, insn, width, memory);

	set_zf(cpu, value == 0);
	if (value == 0)
		return;
	int index = reverse ? 63 - __builtin_clzll(value) : __builtin_ctzll(value);
	reg_write(cpu, insn->reg, (uint64_t)index, width);
}

HANDLER_INLINE void bsf(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory)
{
	scan(cpu, insn, width, memory, false);
}
DEFINE_INSN_RM(bsf)

HANDLER_INLINE void bsr(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory)
{
	scan(cpu, insn, width, memory, true);
}
DEFINE_INSN_RM(bsr)

/* CF says that the source was 0, ZF that the count is. */
HANDLER_INLINE void count_zeros(struct cpu *cpu, const struct insn *insn, unsigned width, uint64_t count)
{
	flags_set_cf(&cpu->lazy, count == 8 * width);
	set_zf(cpu, count == 0);
	reg_write(cpu, insn->reg, count, width);
}

HANDLER_INLINE void tzcnt(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory)
{
	uint64_t value = rm_read(cpu, insn, width, memory);

	count_zeros(cpu, insn, width, value ? (uint64_t)__builtin_ctzll(value) : 8 * width);
}
DEFINE_INSN_RM(tzcnt)

HANDLER_INLINE void lzcnt(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory)
{
	uint64_t value = rm_read(cpu, insn, width, memory);

	count_zeros(cpu, insn, width,
		    value ? (uint64_t)__builtin_clzll(value) - (64 - 8 * width) : 8 * width);
}
DEFINE_INSN_RM(lzcnt)

HANDLER_INLINE void popcnt(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory)
{
	uint64_t value = rm_read(cpu, insn, width, memory);

	flags_set(&cpu->lazy, value ? 0 : RFLAGS_ZF);
	reg_write(cpu, insn->reg, (uint64_t)__builtin_popcountll(value), width);
}
DEFINE_INSN_RM(popcnt)

/* ---- CRC32 ---- */

/* Castagnoli's polynomial, bit-reflected: SDM 2A CRC32 gives it as 11EDC6F41H. */
#define CRC32C_REFLECTED 0x82f63b78u

HANDLER_INLINE void crc32_source(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory)
{
	uint64_t source = rm_read(cpu, insn, width, memory);
	uint32_t crc = (uint32_t)cpu->reg[insn->reg];

	for (unsigned byte = 0; byte < width; byte++) {
		crc ^= (uint8_t)(source >> (8 * byte));
		for (unsigned i = 0; i < 8; i++)
			crc = crc >> 1 ^ (crc & 1 ? CRC32C_REFLECTED : 0);
	}
	cpu->reg[insn->reg] = crc;
}

HANDLER_INLINE void crc32(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory)
{
	crc32_source(cpu, insn, width, memory);
}
DEFINE_INSN_RM(crc32)

HANDLER_INLINE void crc32_b(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory)
{
	(void)width;
	crc32_source(cpu, insn, 1, memory);
}
DEFINE_INSN_RM(crc32_b)
