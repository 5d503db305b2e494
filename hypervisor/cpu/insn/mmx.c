/*
 * insn/mmx.c: packed integers in MMX registers (SDM 1 chapter 9; SDM 2). An operation on 64 bits is the low half of
 * the same operation on 128 bits, which the host computes; where the upper half would mix in, the operands are put
 * together so that it does not.
 */
#include "cpu/simd.h"

#define MMX_OPERATION(symbol, bytes, combine)                                              \
	static inline void symbol(struct cpu *cpu, const struct insn *insn)                \
	{                                                                                  \
		mmx_check(cpu);                                                            \
		uint64_t b = mmx_source(cpu, insn, bytes), a = mmx_get(cpu, insn->reg);    \
		mmx_use(cpu);                                                              \
		mmx_set(cpu, insn->reg, combine);                                          \
	}                                                                                  \
	DEFINE_INSN(symbol)

/* @name of the low halves. */
#define LOW(name)                                                                          \
	static inline uint64_t low_##name(uint64_t a, uint64_t b)                          \
	{                                                                                  \
		xmm_t x = {.u64 = {a, 0}}, y = {.u64 = {b, 0}};                            \
		__asm__(#name " %1, %0" : "+x"(x.i) : "x"(y.i));                           \
		return x.u64[0];                                                           \
	}
#define MMX_LOW(name) LOW(name) MMX_OPERATION(mmx_##name, 8, low_##name(a, b))

MMX_LOW(paddb)
MMX_LOW(paddw)
MMX_LOW(paddd)
MMX_LOW(paddq)
MMX_LOW(psubb)
MMX_LOW(psubw)
MMX_LOW(psubd)
MMX_LOW(psubq)
MMX_LOW(paddsb)
MMX_LOW(paddsw)
MMX_LOW(paddusb)
MMX_LOW(paddusw)
MMX_LOW(psubsb)
MMX_LOW(psubsw)
MMX_LOW(psubusb)
MMX_LOW(psubusw)
MMX_LOW(pmullw)
MMX_LOW(pmulhw)
MMX_LOW(pmulhuw)
MMX_LOW(pmuludq)
MMX_LOW(pmaddwd)
MMX_LOW(psadbw)
MMX_LOW(pavgb)
MMX_LOW(pavgw)
MMX_LOW(pminub)
MMX_LOW(pmaxub)
MMX_LOW(pminsw)
MMX_LOW(pmaxsw)
MMX_LOW(pand)
MMX_LOW(pandn)
MMX_LOW(por)
MMX_LOW(pxor)
MMX_LOW(pcmpeqb)
MMX_LOW(pcmpeqw)
MMX_LOW(pcmpeqd)
MMX_LOW(pcmpgtb)
MMX_LOW(pcmpgtw)
MMX_LOW(pcmpgtd)
MMX_LOW(psllw)
MMX_LOW(pslld)
MMX_LOW(psllq)
MMX_LOW(psrlw)
MMX_LOW(psrld)
MMX_LOW(psrlq)
MMX_LOW(psraw)
MMX_LOW(psrad)
MMX_LOW(pmaddubsw)
MMX_LOW(pmulhrsw)
MMX_LOW(psignb)
MMX_LOW(psignw)
MMX_LOW(psignd)
MMX_LOW(pabsb)
MMX_LOW(pabsw)
MMX_LOW(pabsd)

/* PUNPCKLxx reads only 32 bits of memory; interleaved low halves of 64 bits are the low 64 of the result. */
LOW(punpcklbw)
LOW(punpcklwd)
LOW(punpckldq)
MMX_OPERATION(mmx_punpcklbw, 4, low_punpcklbw(a, b))
MMX_OPERATION(mmx_punpcklwd, 4, low_punpcklwd(a, b))
MMX_OPERATION(mmx_punpckldq, 4, low_punpckldq(a, b))
MMX_OPERATION(mmx_punpckhbw, 8, low_punpcklbw(a >> 32, b >> 32))
MMX_OPERATION(mmx_punpckhwd, 8, low_punpcklwd(a >> 32, b >> 32))
MMX_OPERATION(mmx_punpckhdq, 8, low_punpckldq(a >> 32, b >> 32))

/* Packs and horizontal operations take destination, then source: as one 128-bit operand. */
#define JOINED(name)                                                                       \
	static inline uint64_t joined_##name(uint64_t a, uint64_t b)                       \
	{                                                                                  \
		xmm_t x = {.u64 = {a, b}}, y = x;                                          \
		__asm__(#name " %1, %0" : "+x"(x.i) : "x"(y.i));                           \
		return x.u64[0];                                                           \
	}
#define MMX_JOINED(name) JOINED(name) MMX_OPERATION(mmx_##name, 8, joined_##name(a, b))

MMX_JOINED(packsswb)
MMX_JOINED(packssdw)
MMX_JOINED(packuswb)
MMX_JOINED(phaddw)
MMX_JOINED(phaddd)
MMX_JOINED(phaddsw)
MMX_JOINED(phsubw)
MMX_JOINED(phsubd)
MMX_JOINED(phsubsw)

/* Of a byte's index only bits 2:0 count, and bit 7. */
LOW(pshufb)
MMX_OPERATION(mmx_pshufb, 8, low_pshufb(a, b & 0x8787878787878787u))

/* ---- immediates ---- */

static inline uint64_t shuffle_words(uint64_t value, unsigned imm)
{
	uint64_t result = 0;
	for (unsigned i = 0; i < 4; i++)
		result |= (value >> (16 * (imm >> (2 * i) & 3)) & 0xffff) << (16 * i);
	return result;
}
MMX_OPERATION(mmx_pshufw, 8, ((void)a, shuffle_words(b, (unsigned)insn->imm)))

static inline uint64_t align_right(uint64_t high, uint64_t low, unsigned bytes)
{
	unsigned __int128 wide = (unsigned __int128)high << 64 | low;
	return bytes >= 16 ? 0 : (uint64_t)(wide >> (8 * bytes));
}
MMX_OPERATION(mmx_palignr, 8, align_right(a, b, (uint8_t)insn->imm))

#define MMX_SHIFT_IMMEDIATE(name)                                                          \
	static inline void mmx_##name##_ib(struct cpu *cpu, const struct insn *insn)       \
	{                                                                                  \
		mmx_check(cpu);                                                            \
		uint64_t value = low_##name(mmx_get(cpu, insn->rm), (uint8_t)insn->imm);   \
		mmx_use(cpu);                                                              \
		mmx_set(cpu, insn->rm, value);                                             \
	}                                                                                  \
	DEFINE_INSN(mmx_##name##_ib)

MMX_SHIFT_IMMEDIATE(psllw)
MMX_SHIFT_IMMEDIATE(pslld)
MMX_SHIFT_IMMEDIATE(psllq)
MMX_SHIFT_IMMEDIATE(psrlw)
MMX_SHIFT_IMMEDIATE(psrld)
MMX_SHIFT_IMMEDIATE(psrlq)
MMX_SHIFT_IMMEDIATE(psraw)
MMX_SHIFT_IMMEDIATE(psrad)

static inline uint64_t insert_word(uint64_t value, uint64_t word, unsigned index)
{
	return (value & ~(0xffffull << (16 * index))) | (word & 0xffff) << (16 * index);
}

static inline void mmx_pinsrw(struct cpu *cpu, const struct insn *insn)
{
	mmx_check(cpu);
	uint64_t word = insn_is_memory(insn) ? mem_read(cpu, insn->segment, insn_offset(cpu, insn), 2)
					     : cpu->reg[insn->rm];
	uint64_t value = insert_word(mmx_get(cpu, insn->reg), word, (unsigned)insn->imm & 3);
	mmx_use(cpu);
	mmx_set(cpu, insn->reg, value);
}
DEFINE_INSN(mmx_pinsrw)

static inline void mmx_pextrw(struct cpu *cpu, const struct insn *insn)
{
	mmx_check(cpu);
	uint64_t value = mmx_get(cpu, insn->rm) >> (16 * (insn->imm & 3)) & 0xffff;
	mmx_use(cpu);
	cpu->reg[insn->reg] = value;
}
DEFINE_INSN(mmx_pextrw)

static inline void mmx_pmovmskb(struct cpu *cpu, const struct insn *insn)
{
	mmx_check(cpu);
	xmm_t value = {.u64 = {mmx_get(cpu, insn->rm), 0}};
	mmx_use(cpu);
	cpu->reg[insn->reg] = (uint32_t)_mm_movemask_epi8(value.i) & 0xff;
}
DEFINE_INSN(mmx_pmovmskb)

/* ---- moves ---- */

static inline void mmx_movq(struct cpu *cpu, const struct insn *insn)
{
	mmx_check(cpu);
	uint64_t value = mmx_source(cpu, insn, 8);
	mmx_use(cpu);
	mmx_set(cpu, insn->reg, value);
}
DEFINE_INSN(mmx_movq)

static inline void mmx_movq_store(struct cpu *cpu, const struct insn *insn) /* and MOVNTQ */
{
	mmx_check(cpu);
	uint64_t value = mmx_get(cpu, insn->reg);
	if (insn_is_memory(insn))
		mem_write(cpu, insn->segment, insn_offset(cpu, insn), value, 8);
	mmx_use(cpu);
	if (!insn_is_memory(insn))
		mmx_set(cpu, insn->rm, value);
}
DEFINE_INSN(mmx_movq_store)

static inline void mmx_movd(struct cpu *cpu, const struct insn *insn) /* MOVD, MOVQ mm, r/m */
{
	unsigned bytes = insn->width == 8 ? 8 : 4;
	mmx_check(cpu);
	uint64_t value = insn_is_memory(insn) ? mem_read(cpu, insn->segment, insn_offset(cpu, insn), bytes)
					      : reg_read(cpu, insn->rm, bytes);
	mmx_use(cpu);
	mmx_set(cpu, insn->reg, value);
}
DEFINE_INSN(mmx_movd)

static inline void mmx_movd_store(struct cpu *cpu, const struct insn *insn)
{
	unsigned bytes = insn->width == 8 ? 8 : 4;
	mmx_check(cpu);
	uint64_t value = mmx_get(cpu, insn->reg);
	if (insn_is_memory(insn))
		mem_write(cpu, insn->segment, insn_offset(cpu, insn), value, bytes);
	mmx_use(cpu);
	if (!insn_is_memory(insn))
		reg_write(cpu, insn->rm, value, bytes);
}
DEFINE_INSN(mmx_movd_store)

static inline void mmx_maskmovq(struct cpu *cpu, const struct insn *insn)
{
	mmx_check(cpu);
	uint64_t value = mmx_get(cpu, insn->reg), mask = mmx_get(cpu, insn->rm) & 0x8080808080808080u;
	uint64_t offset = cpu->reg[RDI] << insn->address_shift >> insn->address_shift;
	if (mask)
		mem_check_write(cpu, insn->segment, offset, 8);
	for (unsigned i = 0; i < 8; i++)
		if (mask >> (8 * i + 7) & 1)
			mem_write(cpu, insn->segment, offset + i, value >> (8 * i) & 0xff, 1);
	mmx_use(cpu);
}
DEFINE_INSN(mmx_maskmovq)

/* EMMS: all registers empty, TOP zero (SDM 3A 13.2, table 13-2). */
static inline void mmx_emms(struct cpu *cpu, const struct insn *insn)
{
	(void)insn;
	mmx_check(cpu);
	mmx_use(cpu);
	cpu->ftw = 0xffff;
}
DEFINE_INSN(mmx_emms)
