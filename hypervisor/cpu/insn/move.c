/*
 * move.c: data movement without flags (SDM 2A, 2B: MOV MOVZX MOVSX MOVSXD MOVBE MOVNTI CMOVcc
 * SETcc XCHG BSWAP LEA XLAT CBW CWD and their wider kin).
 */
#include "cpu/insn/operand.h"

/* ---- MOV ---- */

HANDLER_INLINE bool mov_eg(struct cpu *cpu, const struct insn *insn, unsigned width, enum place place)
{
	return rm_store(cpu, insn, reg_read(cpu, insn->reg, width), width, place);
}
DEFINE_FAST_INSN_RM(mov_eg)

HANDLER_INLINE bool mov_ge(struct cpu *cpu, const struct insn *insn, unsigned width, enum place place)
{
	uint64_t value;

	if (!rm_load(cpu, insn, width, place, &value))
		return false;
	reg_write(cpu, insn->reg, value, width);
	return true;
}
DEFINE_FAST_INSN_RM(mov_ge)

HANDLER_INLINE bool mov_ei(struct cpu *cpu, const struct insn *insn, unsigned width, enum place place)
{
	return rm_store(cpu, insn, (uint64_t)insn->imm, width, place);
}
DEFINE_FAST_INSN_RM(mov_ei)

HANDLER_INLINE void mov_zi(struct cpu *cpu, const struct insn *insn, unsigned width)
{
	reg_write(cpu, insn->reg, (uint64_t)insn->imm, width);
}
DEFINE_INSN_W(mov_zi)

/* AL/rAX from and to a memory offset. */
HANDLER_INLINE void mov_ao(struct cpu *cpu, const struct insn *insn, unsigned width)
{
	reg_write(cpu, RAX, rm_read(cpu, insn, width, true), width);
}
DEFINE_INSN_W(mov_ao)

HANDLER_INLINE void mov_oa(struct cpu *cpu, const struct insn *insn, unsigned width)
{
	rm_write(cpu, insn, reg_read(cpu, RAX, width), width, true);
}
DEFINE_INSN_W(mov_oa)

/* ---- extension ---- */

/* Reads @from bytes and extends them to @width. */
HANDLER_INLINE bool extend(struct cpu *cpu, const struct insn *insn, unsigned from, unsigned width,
			   enum place place, bool with_sign)
{
	uint64_t value;

	if (!rm_load(cpu, insn, from, place, &value))
		return false;
	reg_write(cpu, insn->reg, with_sign ? sign_extend(value, 8 * from) : value, width);
	return true;
}

HANDLER_INLINE bool movzx_b(struct cpu *cpu, const struct insn *insn, unsigned width, enum place place)
{
	return extend(cpu, insn, 1, width, place, false);
}
DEFINE_FAST_INSN_RM(movzx_b)

HANDLER_INLINE bool movzx_w(struct cpu *cpu, const struct insn *insn, unsigned width, enum place place)
{
	return extend(cpu, insn, 2, width, place, false);
}
DEFINE_FAST_INSN_RM(movzx_w)

HANDLER_INLINE bool movsx_b(struct cpu *cpu, const struct insn *insn, unsigned width, enum place place)
{
	return extend(cpu, insn, 1, width, place, true);
}
DEFINE_FAST_INSN_RM(movsx_b)

HANDLER_INLINE bool movsx_w(struct cpu *cpu, const struct insn *insn, unsigned width, enum place place)
{
	return extend(cpu, insn, 2, width, place, true);
}
DEFINE_FAST_INSN_RM(movsx_w)

/* With 16-bit operands it reads 16 bits (SDM 2B MOVSXD). */
HANDLER_INLINE bool movsxd(struct cpu *cpu, const struct insn *insn, unsigned width, enum place place)
{
	return extend(cpu, insn, width == 2 ? 2 : 4, width, place, true);
}
DEFINE_FAST_INSN_RM(movsxd)

HANDLER_INLINE void cbw(struct cpu *cpu, const struct insn *insn, unsigned width)
{
	unsigned half = width > 1 ? width / 2 : 1;

	(void)insn;
	reg_write(cpu, RAX, sign_extend(reg_read(cpu, RAX, half), 8 * half), width);
}
DEFINE_INSN_W(cbw)

HANDLER_INLINE void cwd(struct cpu *cpu, const struct insn *insn, unsigned width)
{
	uint64_t top = reg_read(cpu, RAX, width) >> (8 * width - 1);

	(void)insn;
	reg_write(cpu, RDX, 0 - top, width);
}
DEFINE_INSN_W(cwd)

/* ---- by condition ---- */

/* The source is read whatever the condition; a 32-bit destination loses its upper half likewise. */
HANDLER_INLINE void cmov(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory,
			 enum condition condition)
{
	uint64_t value = rm_read(cpu, insn, width, memory);

	if (!condition_holds(cpu, condition))
		value = reg_read(cpu, insn->reg, width);
	reg_write(cpu, insn->reg, value, width);
}

HANDLER_INLINE void set(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory,
			enum condition condition)
{
	(void)width;
	rm_write(cpu, insn, condition_holds(cpu, condition), 1, memory);
}

#define CONDITION(capitals, letters)                                                                         \
	DEFINE_INSN_RM_CC(cmov, cmov_##letters, CC_##capitals)                                               \
	DEFINE_INSN_RM_CC(set, set_##letters, CC_##capitals)
CONDITIONS(CONDITION)
#undef CONDITION

/* ---- exchange ---- */

HANDLER_INLINE void xchg_eg(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory)
{
	struct mem_modify modify;
	uint64_t a = rm_modify_begin(cpu, insn, width, memory, &modify);
	uint64_t b = reg_read(cpu, insn->reg, width);

	reg_write(cpu, insn->reg, a, width);
	rm_modify_end(cpu, insn, b, width, memory, &modify);
}
DEFINE_INSN_RM(xchg_eg)

/* 90h without REX.B is NOP: it does not clear the upper half of RAX (SDM 2B NOP). */
HANDLER_INLINE void xchg_za(struct cpu *cpu, const struct insn *insn, unsigned width)
{
	uint64_t a = reg_read(cpu, RAX, width), b = reg_read(cpu, insn->reg, width);

	if (insn->reg == RAX)
		return;
	reg_write(cpu, RAX, b, width);
	reg_write(cpu, insn->reg, a, width);
}
DEFINE_INSN_W(xchg_za)

HANDLER_INLINE uint64_t byte_swap(uint64_t value, unsigned width)
{
	switch (width) {
	case 2: return __builtin_bswap16((uint16_t)value);
	case 4: return __builtin_bswap32((uint32_t)value);
	default: return __builtin_bswap64(value);
	}
}

/* Undefined for 16 bits; processors clear the register then. */
HANDLER_INLINE void bswap(struct cpu *cpu, const struct insn *insn, unsigned width)
{
	uint64_t value = reg_read(cpu, insn->reg, width);

	reg_write(cpu, insn->reg, width == 2 ? 0 : byte_swap(value, width), width);
}
DEFINE_INSN_W(bswap)

HANDLER_INLINE void movbe_gm(struct cpu *cpu, const struct insn *insn, unsigned width)
{
	reg_write(cpu, insn->reg, byte_swap(rm_read(cpu, insn, width, true), width), width);
}
DEFINE_INSN_W(movbe_gm)

HANDLER_INLINE void movbe_mg(struct cpu *cpu, const struct insn *insn, unsigned width)
{
	rm_write(cpu, insn, byte_swap(reg_read(cpu, insn->reg, width), width), width, true);
}
DEFINE_INSN_W(movbe_mg)

/* ---- addresses ---- */

HANDLER_INLINE void lea(struct cpu *cpu, const struct insn *insn, unsigned width)
{
	reg_write(cpu, insn->reg, insn_offset(cpu, insn), width);
}
DEFINE_INSN_W(lea)

static inline void xlat(struct cpu *cpu, const struct insn *insn)
{
	uint64_t offset = cpu->reg[RBX] + (uint8_t)cpu->reg[RAX];

	offset = offset << insn->address_shift >> insn->address_shift;
	reg_write(cpu, RAX, mem_read(cpu, insn->segment, offset, 1), 1);
}
DEFINE_INSN(xlat)
