/*
 * insn/sse_integer.c: packed integers in XMM registers (SDM 2, SSE2 to SSE4.1). Each is a pure function of its
 * operands' bits, which the host's own instruction computes.
 */
#include "cpu/simd.h"

SSE_BITS(paddb)
SSE_BITS(paddw)
SSE_BITS(paddd)
SSE_BITS(paddq)
SSE_BITS(psubb)
SSE_BITS(psubw)
SSE_BITS(psubd)
SSE_BITS(psubq)
SSE_BITS(paddsb)
SSE_BITS(paddsw)
SSE_BITS(paddusb)
SSE_BITS(paddusw)
SSE_BITS(psubsb)
SSE_BITS(psubsw)
SSE_BITS(psubusb)
SSE_BITS(psubusw)
SSE_BITS(pmullw)
SSE_BITS(pmulhw)
SSE_BITS(pmulhuw)
SSE_BITS(pmuludq)
SSE_BITS(pmaddwd)
SSE_BITS(psadbw)
SSE_BITS(pavgb)
SSE_BITS(pavgw)
SSE_BITS(pminub)
SSE_BITS(pmaxub)
SSE_BITS(pminsw)
SSE_BITS(pmaxsw)
SSE_BITS(pand)
SSE_BITS(pandn)
SSE_BITS(por)
SSE_BITS(pxor)
SSE_BITS(pcmpeqb)
SSE_BITS(pcmpeqw)
SSE_BITS(pcmpeqd)
SSE_BITS(pcmpgtb)
SSE_BITS(pcmpgtw)
SSE_BITS(pcmpgtd)
SSE_BITS(packsswb)
SSE_BITS(packssdw)
SSE_BITS(packuswb)
SSE_BITS(punpcklbw)
SSE_BITS(punpcklwd)
SSE_BITS(punpckldq)
SSE_BITS(punpcklqdq)
SSE_BITS(punpckhbw)
SSE_BITS(punpckhwd)
SSE_BITS(punpckhdq)
SSE_BITS(punpckhqdq)
SSE_BITS(psllw)
SSE_BITS(pslld)
SSE_BITS(psllq)
SSE_BITS(psrlw)
SSE_BITS(psrld)
SSE_BITS(psrlq)
SSE_BITS(psraw)
SSE_BITS(psrad)
/* SSSE3 */
SSE_BITS(pshufb)
SSE_BITS(phaddw)
SSE_BITS(phaddd)
SSE_BITS(phaddsw)
SSE_BITS(phsubw)
SSE_BITS(phsubd)
SSE_BITS(phsubsw)
SSE_BITS(pmaddubsw)
SSE_BITS(pmulhrsw)
SSE_BITS(psignb)
SSE_BITS(psignw)
SSE_BITS(psignd)
SSE_BITS(pabsb)
SSE_BITS(pabsw)
SSE_BITS(pabsd)
/* SSE4.1, SSE4.2 */
SSE_BITS(packusdw)
SSE_BITS(pcmpeqq)
SSE_BITS(pcmpgtq)
SSE_BITS(pmuldq)
SSE_BITS(pmulld)
SSE_BITS(pminsb)
SSE_BITS(pminuw)
SSE_BITS(pminsd)
SSE_BITS(pminud)
SSE_BITS(pmaxsb)
SSE_BITS(pmaxuw)
SSE_BITS(pmaxsd)
SSE_BITS(pmaxud)
SSE_BITS(phminposuw)

/* PMOVSX, PMOVZX: half, a quarter or an eighth of the source, widened (SDM 2B PMOVSX, PMOVZX). */
#define SSE_WIDEN(name, bytes)                                                             \
	static inline void sse_##name(struct cpu *cpu, const struct insn *insn)            \
	{                                                                                  \
		xmm_t source = xmm_source(cpu, insn, bytes), value;                        \
		__asm__(#name " %1, %0" : "=x"(value.i) : "x"(source.i));                  \
		xmm_set(cpu, insn->reg, value);                                            \
	}                                                                                  \
	DEFINE_INSN(sse_##name)

SSE_WIDEN(pmovsxbw, 8)
SSE_WIDEN(pmovsxbd, 4)
SSE_WIDEN(pmovsxbq, 2)
SSE_WIDEN(pmovsxwd, 8)
SSE_WIDEN(pmovsxwq, 4)
SSE_WIDEN(pmovsxdq, 8)
SSE_WIDEN(pmovzxbw, 8)
SSE_WIDEN(pmovzxbd, 4)
SSE_WIDEN(pmovzxbq, 2)
SSE_WIDEN(pmovzxwd, 8)
SSE_WIDEN(pmovzxwq, 4)
SSE_WIDEN(pmovzxdq, 8)

/* ---- shifts by an immediate: ModRM.rm is the register (SDM 2B PSLLW and others) ---- */

#define SSE_SHIFT_IMMEDIATE(name)                                                          \
	static inline void sse_##name##_ib(struct cpu *cpu, const struct insn *insn)       \
	{                                                                                  \
		xmm_t value = xmm_get(cpu, insn->rm);                                      \
		xmm_t count = {.u64 = {(uint8_t)insn->imm, 0}};                            \
		__asm__(#name " %1, %0" : "+x"(value.i) : "x"(count.i));                   \
		xmm_set(cpu, insn->rm, value);                                             \
	}                                                                                  \
	DEFINE_INSN(sse_##name##_ib)

SSE_SHIFT_IMMEDIATE(psllw)
SSE_SHIFT_IMMEDIATE(pslld)
SSE_SHIFT_IMMEDIATE(psllq)
SSE_SHIFT_IMMEDIATE(psrlw)
SSE_SHIFT_IMMEDIATE(psrld)
SSE_SHIFT_IMMEDIATE(psrlq)
SSE_SHIFT_IMMEDIATE(psraw)
SSE_SHIFT_IMMEDIATE(psrad)

/* 16 bytes of the 48 that are: zeros, @value, zeros; from byte 16 + @by on. */
static xmm_t shift_bytes(xmm_t value, int by)
{
	uint8_t wide[48] = {0};
	xmm_t result;
	memcpy(wide + 16, &value, 16);
	memcpy(&result, wide + 16 + by, 16);
	return result;
}

static inline int byte_count(const struct insn *insn)
{
	return (uint8_t)insn->imm > 16 ? 16 : (uint8_t)insn->imm;
}

static inline void sse_pslldq(struct cpu *cpu, const struct insn *insn)
{
	xmm_set(cpu, insn->rm, shift_bytes(xmm_get(cpu, insn->rm), -byte_count(insn)));
}
DEFINE_INSN(sse_pslldq)

static inline void sse_psrldq(struct cpu *cpu, const struct insn *insn)
{
	xmm_set(cpu, insn->rm, shift_bytes(xmm_get(cpu, insn->rm), byte_count(insn)));
}
DEFINE_INSN(sse_psrldq)

static inline void sse_palignr(struct cpu *cpu, const struct insn *insn)
{
	xmm_t low = xmm_source(cpu, insn, 16), high = xmm_get(cpu, insn->reg), result;
	uint8_t wide[64] = {0};
	unsigned by = (uint8_t)insn->imm > 32 ? 32 : (uint8_t)insn->imm;
	memcpy(wide, &low, 16);
	memcpy(wide + 16, &high, 16);
	memcpy(&result, wide + by, 16);
	xmm_set(cpu, insn->reg, result);
}
DEFINE_INSN(sse_palignr)

/* ---- shuffles, blends, inserts and extracts by an immediate ---- */

static inline void sse_pshufd(struct cpu *cpu, const struct insn *insn)
{
	xmm_t source = xmm_source(cpu, insn, 16), result;
	for (unsigned i = 0; i < 4; i++)
		result.u32[i] = source.u32[insn->imm >> (2 * i) & 3];
	xmm_set(cpu, insn->reg, result);
}
DEFINE_INSN(sse_pshufd)

/* The four words from @first on, shuffled; the others copied. */
static inline void shuffle_words(struct cpu *cpu, const struct insn *insn, unsigned first)
{
	xmm_t source = xmm_source(cpu, insn, 16), result = source;
	for (unsigned i = 0; i < 4; i++)
		result.u16[first + i] = source.u16[first + (insn->imm >> (2 * i) & 3)];
	xmm_set(cpu, insn->reg, result);
}

static inline void sse_pshuflw(struct cpu *cpu, const struct insn *insn) { shuffle_words(cpu, insn, 0); }
DEFINE_INSN(sse_pshuflw)
static inline void sse_pshufhw(struct cpu *cpu, const struct insn *insn) { shuffle_words(cpu, insn, 4); }
DEFINE_INSN(sse_pshufhw)

static inline void sse_pblendw(struct cpu *cpu, const struct insn *insn)
{
	xmm_t source = xmm_source(cpu, insn, 16), result = xmm_get(cpu, insn->reg);
	for (unsigned i = 0; i < 8; i++)
		if (insn->imm >> i & 1)
			result.u16[i] = source.u16[i];
	xmm_set(cpu, insn->reg, result);
}
DEFINE_INSN(sse_pblendw)

static inline void sse_pblendvb(struct cpu *cpu, const struct insn *insn)
{
	xmm_t source = xmm_source(cpu, insn, 16), result = xmm_get(cpu, insn->reg), mask = xmm_get(cpu, 0);
	for (unsigned i = 0; i < 16; i++)
		if (mask.u8[i] & 0x80)
			result.u8[i] = source.u8[i];
	xmm_set(cpu, insn->reg, result);
}
DEFINE_INSN(sse_pblendvb)

static inline void sse_mpsadbw(struct cpu *cpu, const struct insn *insn)
{
	xmm_t source = xmm_source(cpu, insn, 16), value = xmm_get(cpu, insn->reg), result;
	unsigned block = (unsigned)(insn->imm & 3) * 4, start = insn->imm & 4 ? 4 : 0;
	for (unsigned i = 0; i < 8; i++) {
		int sum = 0;
		for (unsigned k = 0; k < 4; k++)
			sum += abs(value.u8[start + i + k] - source.u8[block + k]);
		result.u16[i] = (uint16_t)sum;
	}
	xmm_set(cpu, insn->reg, result);
}
DEFINE_INSN(sse_mpsadbw)

static inline void sse_ptest(struct cpu *cpu, const struct insn *insn)
{
	xmm_t source = xmm_source(cpu, insn, 16), value = xmm_get(cpu, insn->reg);
	bool zero = !((source.u64[0] & value.u64[0]) | (source.u64[1] & value.u64[1]));
	bool carry = !((source.u64[0] & ~value.u64[0]) | (source.u64[1] & ~value.u64[1]));
	flags_set(&cpu->lazy, (zero ? RFLAGS_ZF : 0) | (carry ? RFLAGS_CF : 0));
}
DEFINE_INSN(sse_ptest)

static inline void sse_pmovmskb(struct cpu *cpu, const struct insn *insn)
{
	cpu->reg[insn->reg] = (uint32_t)_mm_movemask_epi8(xmm_get(cpu, insn->rm).i);
}
DEFINE_INSN(sse_pmovmskb)

/* The general register or memory operand of PINSRx, @bytes wide. */
static inline uint64_t insert_source(struct cpu *cpu, const struct insn *insn, unsigned bytes)
{
	return insn_is_memory(insn) ? mem_read(cpu, insn->segment, insn_offset(cpu, insn), bytes) : cpu->reg[insn->rm];
}

/* Where PEXTRx puts its value: memory of that size, or a register, zero-extended. */
static inline void extract_to(struct cpu *cpu, const struct insn *insn, uint64_t value, unsigned bytes)
{
	if (insn_is_memory(insn))
		mem_write(cpu, insn->segment, insn_offset(cpu, insn), value, bytes);
	else
		cpu->reg[insn->rm] = value;
}

static inline void sse_pinsrw(struct cpu *cpu, const struct insn *insn)
{
	xmm_t value = xmm_get(cpu, insn->reg);
	value.u16[insn->imm & 7] = (uint16_t)insert_source(cpu, insn, 2);
	xmm_set(cpu, insn->reg, value);
}
DEFINE_INSN(sse_pinsrw)

static inline void sse_pinsrb(struct cpu *cpu, const struct insn *insn)
{
	xmm_t value = xmm_get(cpu, insn->reg);
	value.u8[insn->imm & 15] = (uint8_t)insert_source(cpu, insn, 1);
	xmm_set(cpu, insn->reg, value);
}
DEFINE_INSN(sse_pinsrb)

static inline void sse_pinsrd(struct cpu *cpu, const struct insn *insn)
{
	xmm_t value = xmm_get(cpu, insn->reg);
	if (insn->width == 8)
		value.u64[insn->imm & 1] = insert_source(cpu, insn, 8);
	else
		value.u32[insn->imm & 3] = (uint32_t)insert_source(cpu, insn, 4);
	xmm_set(cpu, insn->reg, value);
}
DEFINE_INSN(sse_pinsrd)

/* 0F C5: the XMM register is ModRM.rm, the general one ModRM.reg. */
static inline void sse_pextrw_gd(struct cpu *cpu, const struct insn *insn)
{
	cpu->reg[insn->reg] = xmm_get(cpu, insn->rm).u16[insn->imm & 7];
}
DEFINE_INSN(sse_pextrw_gd)

static inline void sse_pextrw(struct cpu *cpu, const struct insn *insn)
{
	extract_to(cpu, insn, xmm_get(cpu, insn->reg).u16[insn->imm & 7], 2);
}
DEFINE_INSN(sse_pextrw)

static inline void sse_pextrb(struct cpu *cpu, const struct insn *insn)
{
	extract_to(cpu, insn, xmm_get(cpu, insn->reg).u8[insn->imm & 15], 1);
}
DEFINE_INSN(sse_pextrb)

static inline void sse_pextrd(struct cpu *cpu, const struct insn *insn)
{
	if (insn->width == 8)
		extract_to(cpu, insn, xmm_get(cpu, insn->reg).u64[insn->imm & 1], 8);
	else
		extract_to(cpu, insn, xmm_get(cpu, insn->reg).u32[insn->imm & 3], 4);
}
DEFINE_INSN(sse_pextrd)

/* MASKMOVDQU: bytes of the register whose mask's top bit is set go to DS:rDI (SDM 2B MASKMOVDQU). */
static inline void sse_maskmovdqu(struct cpu *cpu, const struct insn *insn)
{
	xmm_t value = xmm_get(cpu, insn->reg), mask = xmm_get(cpu, insn->rm);
	uint64_t offset = cpu->reg[RDI] << insn->address_shift >> insn->address_shift;
	unsigned bits = (unsigned)_mm_movemask_epi8(mask.i);
	if (!bits)
		return;
	mem_check_write(cpu, insn->segment, offset, 16);
	for (unsigned i = 0; i < 16; i++)
		if (bits >> i & 1)
			mem_write(cpu, insn->segment, offset + i, value.u8[i], 1);
}
DEFINE_INSN(sse_maskmovdqu)
