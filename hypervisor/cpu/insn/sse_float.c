/*
 * insn/sse_float.c: floating-point arithmetic, comparison and conversion in XMM registers (SDM 2, SSE to SSE4.1).
 * What IEEE 754 fixes is computed by the host's own instruction (simd.h); the approximations are own code.
 */
#include "cpu/simd.h"

#include <math.h>

/* ---- arithmetic: destination op= source ---- */

#define SSE_FP(name, bytes, kind)                                                                            \
	static inline void sse_##name(struct cpu *cpu, const struct insn *insn)                              \
	{                                                                                                    \
		xmm_t source = xmm_source(cpu, insn, bytes);                                                 \
		xmm_t value = xmm_get(cpu, insn->reg);                                                       \
		SIMD_FP(cpu, __asm__ volatile(#name " %1, %0" : "+x"(value.i) : "x"(source.i)), value, kind); \
		xmm_set(cpu, insn->reg, value);                                                              \
	}                                                                                                    \
	DEFINE_INSN(sse_##name)
/* The low @from bytes of the source, the low @to of the destination. */
#define SSE_FP_SCALAR(name, from, to, kind)                                                                  \
	static inline void sse_##name(struct cpu *cpu, const struct insn *insn)                              \
	{                                                                                                    \
		xmm_t source = xmm_source_low(cpu, insn, from);                                              \
		xmm_t value = xmm_get_low(cpu, insn->reg, to);                                               \
		SIMD_FP(cpu, __asm__ volatile(#name " %1, %0" : "+x"(value.i) : "x"(source.i)), value, kind); \
		xmm_set_low(cpu, insn->reg, value, to);                                                      \
	}                                                                                                    \
	DEFINE_INSN(sse_##name)
#define SSE_FP_FOUR(name)                        \
	SSE_FP(name##ps, 16, RESULT_PS)          \
	SSE_FP_SCALAR(name##ss, 4, 4, RESULT_SS) \
	SSE_FP(name##pd, 16, RESULT_PD)          \
	SSE_FP_SCALAR(name##sd, 8, 8, RESULT_SD)

SSE_FP_FOUR(add)
SSE_FP_FOUR(sub)
SSE_FP_FOUR(mul)
SSE_FP_FOUR(div)
/* One of the operands, as it is: never an underflow. */
#define SSE_FP_CHOICE(name)                         \
	SSE_FP(name##ps, 16, RESULT_OTHER)          \
	SSE_FP_SCALAR(name##ss, 4, 4, RESULT_OTHER) \
	SSE_FP(name##pd, 16, RESULT_OTHER)          \
	SSE_FP_SCALAR(name##sd, 8, 8, RESULT_OTHER)
SSE_FP_CHOICE(min)
SSE_FP_CHOICE(max)
SSE_FP(addsubps, 16, RESULT_PS)
SSE_FP(addsubpd, 16, RESULT_PD)
SSE_FP(haddps, 16, RESULT_PS)
SSE_FP(haddpd, 16, RESULT_PD)
SSE_FP(hsubps, 16, RESULT_PS)
SSE_FP(hsubpd, 16, RESULT_PD)
/* A square root is never tiny unless it is exact zero; scalars keep the destination's upper part. */
SSE_FP_FOUR(sqrt)

/* ---- logic on bits: no exceptions ---- */

SSE_BITS(andps)
SSE_BITS(andnps)
SSE_BITS(orps)
SSE_BITS(xorps)
SSE_BITS(unpcklps)
SSE_BITS(unpckhps)
SSE_BITS(unpcklpd)
SSE_BITS(unpckhpd)

static inline void sse_shufps(struct cpu *cpu, const struct insn *insn)
{
	xmm_t source = xmm_source(cpu, insn, 16), value = xmm_get(cpu, insn->reg), result;
	for (unsigned i = 0; i < 4; i++)
		result.u32[i] = (i < 2 ? value : source).u32[insn->imm >> (2 * i) & 3];
	xmm_set(cpu, insn->reg, result);
}
DEFINE_INSN(sse_shufps)

static inline void sse_shufpd(struct cpu *cpu, const struct insn *insn)
{
	xmm_t source = xmm_source(cpu, insn, 16), value = xmm_get(cpu, insn->reg), result;
	result.u64[0] = value.u64[insn->imm & 1];
	result.u64[1] = source.u64[insn->imm >> 1 & 1];
	xmm_set(cpu, insn->reg, result);
}
DEFINE_INSN(sse_shufpd)

/* ---- comparison ---- */

/* CMPccPS and others: eight predicates, in bits 2:0 of the immediate (SDM 2A CMPPD, table 3-1). */
#define COMPARE_CASE(name, n)                                                                              \
	case n: __asm__ volatile(#name " $" #n ", %1, %0" : "+x"(value.i) : "x"(source.i)); break;
#define SSE_COMPARE(name, bytes)                                                                           \
	static inline xmm_t compare_##name(xmm_t value, xmm_t source, unsigned predicate)                  \
	{                                                                                                  \
		switch (predicate) {                                                                       \
			COMPARE_CASE(name, 0)                                                              \
			COMPARE_CASE(name, 1)                                                              \
			COMPARE_CASE(name, 2)                                                              \
			COMPARE_CASE(name, 3)                                                              \
			COMPARE_CASE(name, 4)                                                              \
			COMPARE_CASE(name, 5)                                                              \
			COMPARE_CASE(name, 6)                                                              \
			COMPARE_CASE(name, 7)                                                              \
		}                                                                                          \
		return value;                                                                              \
	}                                                                                                  \
	static inline void sse_##name(struct cpu *cpu, const struct insn *insn)                            \
	{                                                                                                  \
		xmm_t source = xmm_source(cpu, insn, bytes), value = xmm_get(cpu, insn->reg);              \
		SIMD_FP(cpu, value = compare_##name(value, source, insn->imm & 7), value, RESULT_OTHER);   \
		xmm_set(cpu, insn->reg, value);                                                            \
	}                                                                                                  \
	DEFINE_INSN(sse_##name)

SSE_COMPARE(cmpps, 16)
SSE_COMPARE(cmpss, 4)
SSE_COMPARE(cmppd, 16)
SSE_COMPARE(cmpsd, 8)

/* COMISS and others: ZF, PF and CF; OF, SF and AF are cleared (SDM 2A COMISD). */
#define SSE_COMPARE_FLAGS(name, bytes)                                                                     \
	static inline void sse_##name(struct cpu *cpu, const struct insn *insn)                            \
	{                                                                                                  \
		xmm_t source = xmm_source_low(cpu, insn, bytes);                                           \
		xmm_t value = xmm_get_low(cpu, insn->reg, bytes);                                          \
		uint64_t flags;                                                                            \
		SIMD_FP(cpu,                                                                               \
			__asm__ volatile(#name " %2, %1; pushfq; popq %0"                                  \
					 : "=r"(flags) : "x"(value.i), "x"(source.i) : "cc"),              \
			value, RESULT_OTHER);                                                              \
		flags_set(&cpu->lazy, flags & RFLAGS_STATUS);                                              \
	}                                                                                                  \
	DEFINE_INSN(sse_##name)

SSE_COMPARE_FLAGS(comiss, 4)
SSE_COMPARE_FLAGS(ucomiss, 4)
SSE_COMPARE_FLAGS(comisd, 8)
SSE_COMPARE_FLAGS(ucomisd, 8)

/* ---- approximations (SDM 2B RCPPS, RSQRTPS): relative error at most 1.5 * 2^-12, MXCSR neither read nor written ---- */

/*
 * The exact quotient or root with its significand cut to 12 bits; denormal operands count as zero,
 * tiny results become zero.
 */
static uint32_t approximate(uint32_t bits, bool root)
{
	float operand, result;
	uint32_t sign = bits & 0x80000000u, magnitude = bits & 0x7fffffffu;
	if (magnitude > 0x7f800000u)
		return bits | 0x400000u;
	if (magnitude < 0x800000u)
		return sign | 0x7f800000u;
	if (root && sign)
		return 0xffc00000u;
	if (magnitude == 0x7f800000u)
		return sign;
	memcpy(&operand, &bits, 4);
	double exact = root ? 1.0 / sqrt((double)operand) : 1.0 / (double)operand;
	if (fabs(exact) < 0x1p-126)
		return sign;
	uint64_t wide;
	memcpy(&wide, &exact, 8);
	wide = (wide + (1ull << 39)) & ~((1ull << 40) - 1);
	memcpy(&exact, &wide, 8);
	result = (float)exact;
	memcpy(&bits, &result, 4);
	return bits;
}

/* The helper's own arithmetic must neither round as the guest does nor leave flags behind. */
static void approximate_all(struct cpu *cpu, const struct insn *insn, unsigned count, bool root)
{
	xmm_t source = xmm_source(cpu, insn, count == 4 ? 16 : 4), value = xmm_get(cpu, insn->reg);
	mxcsr_unload(cpu);
	for (unsigned i = 0; i < count; i++)
		value.u32[i] = approximate(source.u32[i], root);
	mxcsr_load(cpu);
	xmm_set(cpu, insn->reg, value);
}

static inline void sse_rcpps(struct cpu *cpu, const struct insn *insn) { approximate_all(cpu, insn, 4, false); }
DEFINE_INSN(sse_rcpps)
static inline void sse_rcpss(struct cpu *cpu, const struct insn *insn) { approximate_all(cpu, insn, 1, false); }
DEFINE_INSN(sse_rcpss)
static inline void sse_rsqrtps(struct cpu *cpu, const struct insn *insn) { approximate_all(cpu, insn, 4, true); }
DEFINE_INSN(sse_rsqrtps)
static inline void sse_rsqrtss(struct cpu *cpu, const struct insn *insn) { approximate_all(cpu, insn, 1, true); }
DEFINE_INSN(sse_rsqrtss)

/* ---- conversions within XMM registers ---- */

SSE_FP_SCALAR(cvtss2sd, 4, 8, RESULT_OTHER)
SSE_FP_SCALAR(cvtsd2ss, 8, 4, RESULT_SS)
SSE_FP(cvtps2pd, 8, RESULT_OTHER)
SSE_FP(cvtpd2ps, 16, RESULT_PS)
SSE_FP(cvtdq2ps, 16, RESULT_OTHER)
SSE_FP(cvtdq2pd, 8, RESULT_OTHER)
SSE_FP(cvtps2dq, 16, RESULT_OTHER)
SSE_FP(cvttps2dq, 16, RESULT_OTHER)
SSE_FP(cvtpd2dq, 16, RESULT_OTHER)
SSE_FP(cvttpd2dq, 16, RESULT_OTHER)

/* ---- from and to general registers ---- */

#define SSE_FROM_INTEGER(name, to)                                                                             \
	static inline void sse_##name(struct cpu *cpu, const struct insn *insn)                            \
	{                                                                                                  \
		unsigned bytes = insn->width == 8 ? 8 : 4;                                                 \
		uint64_t source = insn_is_memory(insn)                                                     \
					  ? mem_read(cpu, insn->segment, insn_offset(cpu, insn), bytes)    \
					  : reg_read(cpu, insn->rm, bytes);                                \
		xmm_t value = xmm_get_low(cpu, insn->reg, to);                                             \
		if (bytes == 8)                                                                            \
			SIMD_FP(cpu, __asm__ volatile(#name "q %1, %0" : "+x"(value.i) : "r"(source)),     \
				value, RESULT_OTHER);                                                      \
		else                                                                                       \
			SIMD_FP(cpu,                                                                       \
				__asm__ volatile(#name "l %1, %0" : "+x"(value.i) : "r"((uint32_t)source)), \
				value, RESULT_OTHER);                                                      \
		xmm_set_low(cpu, insn->reg, value, to);                                                         \
	}                                                                                                  \
	DEFINE_INSN(sse_##name)

SSE_FROM_INTEGER(cvtsi2ss, 4)
SSE_FROM_INTEGER(cvtsi2sd, 8)

#define SSE_TO_INTEGER(name, bytes)                                                                        \
	static inline void sse_##name(struct cpu *cpu, const struct insn *insn)                            \
	{                                                                                                  \
		xmm_t source = xmm_source(cpu, insn, bytes);                                               \
		uint64_t wide = 0;                                                                         \
		uint32_t narrow = 0;                                                                       \
		if (insn->width == 8) {                                                                    \
			SIMD_FP(cpu, __asm__ volatile(#name " %1, %0" : "=r"(wide) : "x"(source.i)),       \
				source, RESULT_OTHER);                                                     \
			cpu->reg[insn->reg] = wide;                                                        \
		} else {                                                                                   \
			SIMD_FP(cpu, __asm__ volatile(#name " %1, %0" : "=r"(narrow) : "x"(source.i)),     \
				source, RESULT_OTHER);                                                     \
			cpu->reg[insn->reg] = narrow;                                                      \
		}                                                                                          \
	}                                                                                                  \
	DEFINE_INSN(sse_##name)

SSE_TO_INTEGER(cvtss2si, 4)
SSE_TO_INTEGER(cvttss2si, 4)
SSE_TO_INTEGER(cvtsd2si, 8)
SSE_TO_INTEGER(cvttsd2si, 8)

/*
 * ---- from and to MMX registers ----
 *
 * CVTPI2PD goes over to MMX only where an MMX register takes part (SDM 2A CVTPI2PD). For CVTPI2PS the SDM makes no
 * exception for a memory operand; AMD's processors make the same one as for CVTPI2PD.
 */

static inline void sse_cvtpi2ps(struct cpu *cpu, const struct insn *insn)
{
	bool uses_mmx = !insn_is_memory(insn) || cpu->profile->vendor == VENDOR_INTEL;
	if (uses_mmx)
		mmx_check(cpu);
	xmm_t source = {.u64 = {mmx_source(cpu, insn, 8), 0}}, value = xmm_get(cpu, insn->reg), result;
	SIMD_FP(cpu, __asm__ volatile("cvtdq2ps %1, %0" : "=x"(result.i) : "x"(source.i)), result, RESULT_OTHER);
	if (uses_mmx)
		mmx_use(cpu);
	value.u64[0] = result.u64[0];
	xmm_set(cpu, insn->reg, value);
}
DEFINE_INSN(sse_cvtpi2ps)

static inline void sse_cvtpi2pd(struct cpu *cpu, const struct insn *insn)
{
	if (!insn_is_memory(insn))
		mmx_check(cpu);
	xmm_t source = {.u64 = {mmx_source(cpu, insn, 8), 0}}, result;
	__asm__ volatile("cvtdq2pd %1, %0" : "=x"(result.i) : "x"(source.i));
	if (!insn_is_memory(insn))
		mmx_use(cpu);
	xmm_set(cpu, insn->reg, result);
}
DEFINE_INSN(sse_cvtpi2pd)

#define SSE_TO_MMX(name, host, bytes)                                                                      \
	static inline void sse_##name(struct cpu *cpu, const struct insn *insn)                            \
	{                                                                                                  \
		mmx_check(cpu);                                                                            \
		xmm_t source = xmm_source(cpu, insn, bytes), result;                                       \
		if (bytes == 8)                                                                            \
			source.u64[1] = 0;                                                                 \
		SIMD_FP(cpu, __asm__ volatile(host " %1, %0" : "=x"(result.i) : "x"(source.i)), result,    \
			RESULT_OTHER);                                                                     \
		mmx_use(cpu);                                                                              \
		mmx_set(cpu, insn->reg, result.u64[0]);                                                    \
	}                                                                                                  \
	DEFINE_INSN(sse_##name)

SSE_TO_MMX(cvtps2pi, "cvtps2dq", 8)
SSE_TO_MMX(cvttps2pi, "cvttps2dq", 8)
SSE_TO_MMX(cvtpd2pi, "cvtpd2dq", 16)
SSE_TO_MMX(cvttpd2pi, "cvttpd2dq", 16)

/* ---- SSE4.1 ---- */

/* Rounding by bits 3:0 of the immediate (SDM 2B ROUNDPD). */
#define ROUND_CASE(name, n)                                                                                \
	case n: __asm__ volatile(#name " $" #n ", %1, %0" : "+x"(value.i) : "x"(source.i)); break;
#define SSE_ROUND(name, bytes)                                                                             \
	static inline xmm_t round_##name(xmm_t value, xmm_t source, unsigned how)                          \
	{                                                                                                  \
		switch (how) {                                                                             \
			ROUND_CASE(name, 0)                                                                \
			ROUND_CASE(name, 1)                                                                \
			ROUND_CASE(name, 2)                                                                \
			ROUND_CASE(name, 3)                                                                \
			ROUND_CASE(name, 4)                                                                \
			ROUND_CASE(name, 8)                                                                \
			ROUND_CASE(name, 9)                                                                \
			ROUND_CASE(name, 10)                                                               \
			ROUND_CASE(name, 11)                                                               \
			ROUND_CASE(name, 12)                                                               \
		}                                                                                          \
		return value;                                                                              \
	}                                                                                                  \
	static inline void sse_##name(struct cpu *cpu, const struct insn *insn)                            \
	{                                                                                                  \
		xmm_t source = xmm_source(cpu, insn, bytes), value = xmm_get(cpu, insn->reg);              \
		unsigned how = (unsigned)insn->imm & (insn->imm & 4 ? 12 : 15);                            \
		SIMD_FP(cpu, value = round_##name(value, source, how), value, RESULT_OTHER);               \
		xmm_set(cpu, insn->reg, value);                                                            \
	}                                                                                                  \
	DEFINE_INSN(sse_##name)

SSE_ROUND(roundps, 16)
SSE_ROUND(roundss, 4)
SSE_ROUND(roundpd, 16)
SSE_ROUND(roundsd, 8)

/* Elements of the source whose bit in @mask is set. */
static inline xmm_t blend32(xmm_t value, xmm_t source, unsigned mask)
{
	for (unsigned i = 0; i < 4; i++)
		if (mask >> i & 1)
			value.u32[i] = source.u32[i];
	return value;
}

static inline xmm_t blend64(xmm_t value, xmm_t source, unsigned mask)
{
	for (unsigned i = 0; i < 2; i++)
		if (mask >> i & 1)
			value.u64[i] = source.u64[i];
	return value;
}

static inline void sse_blendps(struct cpu *cpu, const struct insn *insn)
{
	xmm_t source = xmm_source(cpu, insn, 16);
	xmm_set(cpu, insn->reg, blend32(xmm_get(cpu, insn->reg), source, (unsigned)insn->imm & 15));
}
DEFINE_INSN(sse_blendps)

static inline void sse_blendpd(struct cpu *cpu, const struct insn *insn)
{
	xmm_t source = xmm_source(cpu, insn, 16);
	xmm_set(cpu, insn->reg, blend64(xmm_get(cpu, insn->reg), source, (unsigned)insn->imm & 3));
}
DEFINE_INSN(sse_blendpd)

static inline void sse_blendvps(struct cpu *cpu, const struct insn *insn)
{
	xmm_t source = xmm_source(cpu, insn, 16);
	unsigned mask = (unsigned)_mm_movemask_ps(xmm_get(cpu, 0).s);
	xmm_set(cpu, insn->reg, blend32(xmm_get(cpu, insn->reg), source, mask));
}
DEFINE_INSN(sse_blendvps)

static inline void sse_blendvpd(struct cpu *cpu, const struct insn *insn)
{
	xmm_t source = xmm_source(cpu, insn, 16);
	unsigned mask = (unsigned)_mm_movemask_pd(xmm_get(cpu, 0).d);
	xmm_set(cpu, insn->reg, blend64(xmm_get(cpu, insn->reg), source, mask));
}
DEFINE_INSN(sse_blendvpd)

static inline void sse_insertps(struct cpu *cpu, const struct insn *insn)
{
	bool memory = insn_is_memory(insn);
	xmm_t source = memory ? xmm_source_low(cpu, insn, 4) : xmm_get(cpu, insn->rm), value = xmm_get(cpu, insn->reg);
	unsigned from = memory ? 0 : (unsigned)insn->imm >> 6 & 3;
	value.u32[insn->imm >> 4 & 3] = source.u32[from];
	for (unsigned i = 0; i < 4; i++)
		if (insn->imm >> i & 1)
			value.u32[i] = 0;
	xmm_set(cpu, insn->reg, value);
}
DEFINE_INSN(sse_insertps)

static inline void sse_extractps(struct cpu *cpu, const struct insn *insn)
{
	uint32_t value = xmm_get(cpu, insn->reg).u32[insn->imm & 3];
	if (insn_is_memory(insn))
		mem_write(cpu, insn->segment, insn_offset(cpu, insn), value, 4);
	else
		cpu->reg[insn->rm] = value;
}
DEFINE_INSN(sse_extractps)

/*
 * Dot products (SDM 2A DPPS, DPPD): products of the elements that bits 7:4 of the immediate name, added in pairs,
 * then the pairs; each step rounds and signals on its own.
 */
static inline void dot_step(struct cpu *cpu, const xmm_t *value, enum simd_result kind)
{
	if (likely(mxcsr_all_masked(cpu)))
		return;
	simd_end(cpu, value, kind);
	simd_begin(cpu);
}

static inline xmm_t dot_ps(struct cpu *cpu, xmm_t value, xmm_t source, unsigned mask)
{
	xmm_t keep = {.u32 = {mask & 0x10 ? ~0u : 0, mask & 0x20 ? ~0u : 0, mask & 0x40 ? ~0u : 0, mask & 0x80 ? ~0u : 0}};
	xmm_t swapped;
	value.i = _mm_and_si128(value.i, keep.i);
	source.i = _mm_and_si128(source.i, keep.i);
	__asm__ volatile("mulps %1, %0" : "+x"(value.i) : "x"(source.i));
	dot_step(cpu, &value, RESULT_PS);
	swapped.u32[0] = value.u32[1];
	swapped.u32[1] = value.u32[0];
	swapped.u32[2] = value.u32[3];
	swapped.u32[3] = value.u32[2];
	__asm__ volatile("addps %1, %0" : "+x"(value.i) : "x"(swapped.i));
	dot_step(cpu, &value, RESULT_PS);
	swapped.u64[0] = value.u64[1];
	swapped.u64[1] = value.u64[0];
	__asm__ volatile("addps %1, %0" : "+x"(value.i) : "x"(swapped.i));
	dot_step(cpu, &value, RESULT_PS);
	uint32_t sum = value.u32[0];
	for (unsigned i = 0; i < 4; i++)
		value.u32[i] = mask >> i & 1 ? sum : 0;
	return value;
}

static inline xmm_t dot_pd(struct cpu *cpu, xmm_t value, xmm_t source, unsigned mask)
{
	xmm_t keep = {.u64 = {mask & 0x10 ? ~0ull : 0, mask & 0x20 ? ~0ull : 0}}, swapped;
	value.i = _mm_and_si128(value.i, keep.i);
	source.i = _mm_and_si128(source.i, keep.i);
	__asm__ volatile("mulpd %1, %0" : "+x"(value.i) : "x"(source.i));
	dot_step(cpu, &value, RESULT_PD);
	swapped.u64[0] = value.u64[1];
	swapped.u64[1] = value.u64[0];
	__asm__ volatile("addpd %1, %0" : "+x"(value.i) : "x"(swapped.i));
	dot_step(cpu, &value, RESULT_PD);
	uint64_t sum = value.u64[0];
	for (unsigned i = 0; i < 2; i++)
		value.u64[i] = mask >> i & 1 ? sum : 0;
	return value;
}

static inline void sse_dpps(struct cpu *cpu, const struct insn *insn)
{
	xmm_t source = xmm_source(cpu, insn, 16), value = xmm_get(cpu, insn->reg);
	SIMD_FP(cpu, value = dot_ps(cpu, value, source, (unsigned)insn->imm), value, RESULT_PS);
	xmm_set(cpu, insn->reg, value);
}
DEFINE_INSN(sse_dpps)

static inline void sse_dppd(struct cpu *cpu, const struct insn *insn)
{
	xmm_t source = xmm_source(cpu, insn, 16), value = xmm_get(cpu, insn->reg);
	SIMD_FP(cpu, value = dot_pd(cpu, value, source, (unsigned)insn->imm), value, RESULT_PD);
	xmm_set(cpu, insn->reg, value);
}
DEFINE_INSN(sse_dppd)
