/*
 * insn/sse_integer.c: packed integers in XMM and YMM registers (SDM 2, SSE2 to SSE4.2, AVX, AVX2). Each is a pure function
 * of its operands' bits, which the host's own instruction computes.
 */
#include "cpu/simd.h"

SIMD_BITS(paddb)
SIMD_BITS(paddw)
SIMD_BITS(paddd)
SIMD_BITS(paddq)
SIMD_BITS(psubb)
SIMD_BITS(psubw)
SIMD_BITS(psubd)
SIMD_BITS(psubq)
SIMD_BITS(paddsb)
SIMD_BITS(paddsw)
SIMD_BITS(paddusb)
SIMD_BITS(paddusw)
SIMD_BITS(psubsb)
SIMD_BITS(psubsw)
SIMD_BITS(psubusb)
SIMD_BITS(psubusw)
SIMD_BITS(pmullw)
SIMD_BITS(pmulhw)
SIMD_BITS(pmulhuw)
SIMD_BITS(pmuludq)
SIMD_BITS(pmaddwd)
SIMD_BITS(psadbw)
SIMD_BITS(pavgb)
SIMD_BITS(pavgw)
SIMD_BITS(pminub)
SIMD_BITS(pmaxub)
SIMD_BITS(pminsw)
SIMD_BITS(pmaxsw)
SIMD_BITS(pand)
SIMD_BITS(pandn)
SIMD_BITS(por)
SIMD_BITS(pxor)
SIMD_BITS(pcmpeqb)
SIMD_BITS(pcmpeqw)
SIMD_BITS(pcmpeqd)
SIMD_BITS(pcmpgtb)
SIMD_BITS(pcmpgtw)
SIMD_BITS(pcmpgtd)
SIMD_BITS(packsswb)
SIMD_BITS(packssdw)
SIMD_BITS(packuswb)
SIMD_BITS(punpcklbw)
SIMD_BITS(punpcklwd)
SIMD_BITS(punpckldq)
SIMD_BITS(punpcklqdq)
SIMD_BITS(punpckhbw)
SIMD_BITS(punpckhwd)
SIMD_BITS(punpckhdq)
SIMD_BITS(punpckhqdq)
/* SSSE3 */
SIMD_BITS(pshufb)
SIMD_BITS(phaddw)
SIMD_BITS(phaddd)
SIMD_BITS(phaddsw)
SIMD_BITS(phsubw)
SIMD_BITS(phsubd)
SIMD_BITS(phsubsw)
SIMD_BITS(pmaddubsw)
SIMD_BITS(pmulhrsw)
SIMD_BITS(psignb)
SIMD_BITS(psignw)
SIMD_BITS(psignd)
SIMD_BITS(pabsb)
SIMD_BITS(pabsw)
SIMD_BITS(pabsd)
/* SSE4.1, SSE4.2 */
SIMD_BITS(packusdw)
SIMD_BITS(pcmpeqq)
SIMD_BITS(pcmpgtq)
SIMD_BITS(pmuldq)
SIMD_BITS(pmulld)
SIMD_BITS(pminsb)
SIMD_BITS(pminuw)
SIMD_BITS(pminsd)
SIMD_BITS(pminud)
SIMD_BITS(pmaxsb)
SIMD_BITS(pmaxuw)
SIMD_BITS(pmaxsd)
SIMD_BITS(pmaxud)
SIMD_BITS(phminposuw)

/* PMOVSX, PMOVZX: half, a quarter or an eighth of the source, widened (SDM 2B PMOVSX, PMOVZX). */
#define SIMD_WIDEN(name, bytes)                                                            \
	static inline void sse_##name(struct cpu *cpu, const struct insn *insn)            \
	{                                                                                  \
		xmm_t source = xmm_source(cpu, insn, bytes), value;                        \
		__asm__(#name " %1, %0" : "=x"(value.i) : "x"(source.i));                  \
		xmm_set(cpu, insn->reg, value);                                            \
	}                                                                                  \
	DEFINE_INSN(sse_##name)                                                            \
	static inline void avx_##name(struct cpu *cpu, const struct insn *insn)            \
	{                                                                                  \
		ymm_t wide = vex_source_bytes(cpu, insn, bytes * vex_lanes(insn)), values = {0};   \
		for (unsigned lane = 0; lane < vex_lanes(insn); lane++) {                  \
			xmm_t source = {.u64 = {0, 0}};                                    \
			memcpy(&source, (const uint8_t *)&wide + bytes * lane, bytes);     \
			__asm__(#name " %1, %0" : "=x"(values.lane[lane].i) : "x"(source.i)); \
		}                                                                          \
		vex_set(cpu, insn, &values);                                               \
	}                                                                                  \
	DEFINE_INSN(avx_##name)

SIMD_WIDEN(pmovsxbw, 8)
SIMD_WIDEN(pmovsxbd, 4)
SIMD_WIDEN(pmovsxbq, 2)
SIMD_WIDEN(pmovsxwd, 8)
SIMD_WIDEN(pmovsxwq, 4)
SIMD_WIDEN(pmovsxdq, 8)
SIMD_WIDEN(pmovzxbw, 8)
SIMD_WIDEN(pmovzxbd, 4)
SIMD_WIDEN(pmovzxbq, 2)
SIMD_WIDEN(pmovzxwd, 8)
SIMD_WIDEN(pmovzxwq, 4)
SIMD_WIDEN(pmovzxdq, 8)

/* ---- shifts: by the low 64 bits of an XMM operand, or by an immediate (SDM 2B PSLLW and others) ---- */

/* Both lanes by one count; with an immediate ModRM.rm is the source, and with VEX vvvv the destination. */
#define SIMD_SHIFT(name)                                                                   \
	static inline xmm_t shift_##name(xmm_t value, xmm_t count)                         \
	{                                                                                  \
		__asm__(#name " %1, %0" : "+x"(value.i) : "x"(count.i));                   \
		return value;                                                              \
	}                                                                                  \
	static inline void sse_##name(struct cpu *cpu, const struct insn *insn)            \
	{                                                                                  \
		xmm_t count = xmm_source(cpu, insn, 16);                                   \
		xmm_set(cpu, insn->reg, shift_##name(xmm_get(cpu, insn->reg), count));     \
	}                                                                                  \
	DEFINE_INSN(sse_##name)                                                            \
	static inline void avx_##name(struct cpu *cpu, const struct insn *insn)            \
	{                                                                                  \
		xmm_t count = xmm_source(cpu, insn, 16);                                   \
		ymm_t values = ymm_get(cpu, insn->vvvv);                                   \
		for (unsigned lane = 0; lane < vex_lanes(insn); lane++)                    \
			values.lane[lane] = shift_##name(values.lane[lane], count);        \
		vex_set(cpu, insn, &values);                                               \
	}                                                                                  \
	DEFINE_INSN(avx_##name)                                                            \
	SIMD_SHIFT_IMMEDIATE(name##_ib, shift_##name(value, (xmm_t){.u64 = {imm, 0}}))

#define SIMD_SHIFT_IMMEDIATE(name, result)                                                 \
	static inline void sse_##name(struct cpu *cpu, const struct insn *insn)            \
	{                                                                                  \
		const unsigned imm = (uint8_t)insn->imm;                                   \
		xmm_t value = xmm_get(cpu, insn->rm);                                      \
		xmm_set(cpu, insn->rm, result);                                            \
	}                                                                                  \
	DEFINE_INSN(sse_##name)                                                            \
	static inline void avx_##name(struct cpu *cpu, const struct insn *insn)            \
	{                                                                                  \
		const unsigned imm = (uint8_t)insn->imm;                                   \
		xmm_t value = xmm_get(cpu, insn->rm), high;                                \
		memcpy(&high, &cpu->vector[4 * insn->rm + 2], 16);                         \
		vex_set_xmm(cpu, insn->vvvv, result);                                      \
		value = high;                                                              \
		value = result;                                                            \
		if (insn->vector_length == 32)                                             \
			memcpy(&cpu->vector[4 * insn->vvvv + 2], &value, 16);              \
	}                                                                                  \
	DEFINE_INSN(avx_##name)

SIMD_SHIFT(psllw)
SIMD_SHIFT(pslld)
SIMD_SHIFT(psllq)
SIMD_SHIFT(psrlw)
SIMD_SHIFT(psrld)
SIMD_SHIFT(psrlq)
SIMD_SHIFT(psraw)
SIMD_SHIFT(psrad)

/* 16 bytes of the 48 that are: zeros, @value, zeros; from byte 16 + @by on. */
static xmm_t shift_bytes(xmm_t value, int by)
{
	uint8_t wide[48] = {0};
	xmm_t result;
	memcpy(wide + 16, &value, 16);
	memcpy(&result, wide + 16 + by, 16);
	return result;
}

static inline int byte_count(unsigned imm) { return imm > 16 ? 16 : (int)imm; }

SIMD_SHIFT_IMMEDIATE(pslldq, shift_bytes(value, -byte_count(imm)))
SIMD_SHIFT_IMMEDIATE(psrldq, shift_bytes(value, byte_count(imm)))

static inline xmm_t align_right(xmm_t high, xmm_t low, unsigned by)
{
	uint8_t wide[64] = {0};
	xmm_t result;
	memcpy(wide, &low, 16);
	memcpy(wide + 16, &high, 16);
	memcpy(&result, wide + (by > 32 ? 32 : by), 16);
	return result;
}
SIMD_LANES(palignr, value = align_right(value, source, imm))

/* ---- shuffles, blends, inserts and extracts by an immediate ---- */

static inline xmm_t shuffle_dwords(xmm_t source, unsigned imm)
{
	xmm_t result;
	for (unsigned i = 0; i < 4; i++)
		result.u32[i] = source.u32[imm >> (2 * i) & 3];
	return result;
}
SIMD_LANES(pshufd, value = shuffle_dwords(source, imm))

/* The four words from @first on, shuffled; the others copied. */
static inline xmm_t shuffle_words(xmm_t source, unsigned imm, unsigned first)
{
	xmm_t result = source;
	for (unsigned i = 0; i < 4; i++)
		result.u16[first + i] = source.u16[first + (imm >> (2 * i) & 3)];
	return result;
}
SIMD_LANES(pshuflw, value = shuffle_words(source, imm, 0))
SIMD_LANES(pshufhw, value = shuffle_words(source, imm, 4))

static inline xmm_t blend_words(xmm_t value, xmm_t source, unsigned imm)
{
	for (unsigned i = 0; i < 8; i++)
		if (imm >> i & 1)
			value.u16[i] = source.u16[i];
	return value;
}
SIMD_LANES(pblendw, value = blend_words(value, source, imm))

static inline xmm_t blend_bytes(xmm_t value, xmm_t source, xmm_t mask)
{
	for (unsigned i = 0; i < 16; i++)
		if (mask.u8[i] & 0x80)
			value.u8[i] = source.u8[i];
	return value;
}

SIMD_BLEND(pblendvb, blend_bytes)

/* Bits 2:0 of the immediate are for the low lane, 5:3 for the high one (SDM 2B MPSADBW). */
static inline xmm_t sum_differences(xmm_t value, xmm_t source, unsigned imm)
{
	unsigned block = (imm & 3) * 4, start = imm & 4 ? 4 : 0;
	xmm_t result;
	for (unsigned i = 0; i < 8; i++) {
		int sum = 0;
		for (unsigned k = 0; k < 4; k++)
			sum += abs(value.u8[start + i + k] - source.u8[block + k]);
		result.u16[i] = (uint16_t)sum;
	}
	return result;
}
SIMD_LANES(mpsadbw, value = sum_differences(value, source, imm >> (3 * lane)))

/* ZF: the AND is zero; CF: the AND with the first complemented is. */
SIMD_BODY test_bits(struct cpu *cpu, const ymm_t *first, const ymm_t *second, unsigned lanes)
{
	uint64_t both = 0, second_alone = 0;
	for (unsigned i = 0; i < lanes; i++)
		for (unsigned half = 0; half < 2; half++) {
			both |= second->lane[i].u64[half] & first->lane[i].u64[half];
			second_alone |= second->lane[i].u64[half] & ~first->lane[i].u64[half];
		}
	flags_set(&cpu->lazy, (both ? 0 : RFLAGS_ZF) | (second_alone ? 0 : RFLAGS_CF));
}

static inline void sse_ptest(struct cpu *cpu, const struct insn *insn)
{
	ymm_t second = {.lane = {xmm_source(cpu, insn, 16)}}, first = ymm_get(cpu, insn->reg);
	test_bits(cpu, &first, &second, 1);
}
DEFINE_INSN(sse_ptest)

static inline void avx_ptest(struct cpu *cpu, const struct insn *insn)
{
	ymm_t second = vex_source(cpu, insn), first = ymm_get(cpu, insn->reg);
	test_bits(cpu, &first, &second, vex_lanes(insn));
}
DEFINE_INSN(avx_ptest)

static inline void sse_pmovmskb(struct cpu *cpu, const struct insn *insn)
{
	cpu->reg[insn->reg] = (uint32_t)_mm_movemask_epi8(xmm_get(cpu, insn->rm).i);
}
DEFINE_INSN(sse_pmovmskb)

static inline void avx_pmovmskb(struct cpu *cpu, const struct insn *insn)
{
	ymm_t source = ymm_get(cpu, insn->rm);
	uint32_t mask = (uint32_t)_mm_movemask_epi8(source.lane[0].i);
	if (insn->vector_length == 32)
		mask |= (uint32_t)_mm_movemask_epi8(source.lane[1].i) << 16;
	cpu->reg[insn->reg] = mask;
}
DEFINE_INSN(avx_pmovmskb)

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

SIMD_BODY pinsrw(struct cpu *cpu, const struct insn *insn, bool vex)
{
	xmm_t value = xmm_get(cpu, simd_first(insn, vex));
	value.u16[insn->imm & 7] = (uint16_t)insert_source(cpu, insn, 2);
	simd_set(cpu, insn->reg, value, vex);
}
DEFINE_SIMD(pinsrw)

SIMD_BODY pinsrb(struct cpu *cpu, const struct insn *insn, bool vex)
{
	xmm_t value = xmm_get(cpu, simd_first(insn, vex));
	value.u8[insn->imm & 15] = (uint8_t)insert_source(cpu, insn, 1);
	simd_set(cpu, insn->reg, value, vex);
}
DEFINE_SIMD(pinsrb)

SIMD_BODY pinsrd(struct cpu *cpu, const struct insn *insn, bool vex)
{
	xmm_t value = xmm_get(cpu, simd_first(insn, vex));
	if (insn->width == 8)
		value.u64[insn->imm & 1] = insert_source(cpu, insn, 8);
	else
		value.u32[insn->imm & 3] = (uint32_t)insert_source(cpu, insn, 4);
	simd_set(cpu, insn->reg, value, vex);
}
DEFINE_SIMD(pinsrd)

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
