/*
 * insn/sse_float.c: floating-point arithmetic, comparison and conversion in XMM and YMM registers (SDM 2, SSE to SSE4.1, AVX).
 * What IEEE 754 fixes is computed by the host's own instruction (simd.h); the approximations are own code.
 */
#include "cpu/simd.h"

#include <math.h>

/* ---- arithmetic: destination op= source ---- */

#define SIMD_PACKED(name, kind) \
	SIMD_FP_LANES(name, kind, __asm__ volatile(#name " %1, %0" : "+x"(value.i) : "x"(source.i)))
/* The low @from bytes of the source, the low @to of the destination. */
#define SIMD_SCALAR(name, from, to, kind)                                                                    \
	SIMD_BODY name(struct cpu *cpu, const struct insn *insn, bool vex)                                   \
	{                                                                                                    \
		xmm_t source = xmm_source_low(cpu, insn, from);                                              \
		xmm_t value = simd_get_low(cpu, insn, to, vex);                                              \
		SIMD_FP(cpu, __asm__ volatile(#name " %1, %0" : "+x"(value.i) : "x"(source.i)), value, kind); \
		simd_set_low(cpu, insn->reg, value, to, vex);                                                \
	}                                                                                                    \
	DEFINE_SIMD(name)
#define SIMD_FOUR(name)                        \
	SIMD_PACKED(name##ps, RESULT_PS)       \
	SIMD_SCALAR(name##ss, 4, 4, RESULT_SS) \
	SIMD_PACKED(name##pd, RESULT_PD)       \
	SIMD_SCALAR(name##sd, 8, 8, RESULT_SD)

SIMD_FOUR(add)
SIMD_FOUR(sub)
SIMD_FOUR(mul)
SIMD_FOUR(div)
/* One of the operands, as it is: never an underflow. */
#define SIMD_CHOICE(name)                         \
	SIMD_PACKED(name##ps, RESULT_OTHER)       \
	SIMD_SCALAR(name##ss, 4, 4, RESULT_OTHER) \
	SIMD_PACKED(name##pd, RESULT_OTHER)       \
	SIMD_SCALAR(name##sd, 8, 8, RESULT_OTHER)
SIMD_CHOICE(min)
SIMD_CHOICE(max)
SIMD_PACKED(addsubps, RESULT_PS)
SIMD_PACKED(addsubpd, RESULT_PD)
SIMD_PACKED(haddps, RESULT_PS)
SIMD_PACKED(haddpd, RESULT_PD)
SIMD_PACKED(hsubps, RESULT_PS)
SIMD_PACKED(hsubpd, RESULT_PD)
/* A square root is never tiny unless it is exact zero; scalars keep the first operand's upper part. */
SIMD_FOUR(sqrt)

/* ---- logic on bits: no exceptions ---- */

SIMD_BITS(andps)
SIMD_BITS(andnps)
SIMD_BITS(orps)
SIMD_BITS(xorps)
SIMD_BITS(unpcklps)
SIMD_BITS(unpckhps)
SIMD_BITS(unpcklpd)
SIMD_BITS(unpckhpd)

static inline xmm_t shuffle_ps(xmm_t value, xmm_t source, unsigned imm)
{
	xmm_t result;
	for (unsigned i = 0; i < 4; i++)
		result.u32[i] = (i < 2 ? value : source).u32[imm >> (2 * i) & 3];
	return result;
}
SIMD_LANES(shufps, value = shuffle_ps(value, source, imm))

/* Two bits for each lane. */
static inline xmm_t shuffle_pd(xmm_t value, xmm_t source, unsigned imm)
{
	return (xmm_t){.u64 = {value.u64[imm & 1], source.u64[imm >> 1 & 1]}};
}
SIMD_LANES(shufpd, value = shuffle_pd(value, source, imm >> (2 * lane)))

/* ---- comparison ---- */

/* CMPccPS and others: eight predicates, in bits 2:0 of the immediate (SDM 2A CMPPD, table 3-1). */
#define COMPARE_CASE(name, n)                                                                              \
	case n: __asm__ volatile(#name " $" #n ", %1, %0" : "+x"(value.i) : "x"(source.i)); break;
#define COMPARE_FUNCTION(name)                                                                             \
	static inline xmm_t compare_##name(xmm_t value, xmm_t source, unsigned predicate)                  \
	{                                                                                                  \
		switch (predicate & 7) {                                                                   \
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
	}
COMPARE_FUNCTION(cmpps)
COMPARE_FUNCTION(cmpss)
COMPARE_FUNCTION(cmppd)
COMPARE_FUNCTION(cmpsd)

#define SSE_COMPARE(name, bytes)                                                                           \
	static inline void sse_##name(struct cpu *cpu, const struct insn *insn)                            \
	{                                                                                                  \
		xmm_t source = xmm_source(cpu, insn, bytes), value = xmm_get(cpu, insn->reg);              \
		SIMD_FP(cpu, value = compare_##name(value, source, (unsigned)insn->imm), value, RESULT_OTHER); \
		xmm_set(cpu, insn->reg, value);                                                            \
	}                                                                                                  \
	DEFINE_INSN(sse_##name)
SSE_COMPARE(cmpps, 16)
SSE_COMPARE(cmpss, 4)
SSE_COMPARE(cmppd, 16)
SSE_COMPARE(cmpsd, 8)

/* With VEX there are 32 predicates in bits 4:0: sets of relations, each quiet or signalling (SDM 2A table 3-1). */
enum relation { RELATION_EQUAL = 1, RELATION_LESS = 2, RELATION_GREATER = 4, RELATION_UNORDERED = 8 };

struct predicate {
	uint8_t relations; /* those that it is true of */
	bool signals;      /* quiet NaNs are invalid operands */
};

static struct predicate vex_predicate(unsigned number)
{
	static const uint8_t relations[16] = {1, 2, 3, 8, 14, 13, 12, 7, 9, 10, 11, 0, 6, 5, 4, 15};
	bool signals = 0x66 >> (number & 7) & 1;

	return (struct predicate){relations[number & 15], signals != (number >> 4 & 1)};
}

/* One element; the host's own comparison signals. */
#define VEX_COMPARE(name, host)                                                                            \
	static inline unsigned name(__m128i first, __m128i second)                                         \
	{                                                                                                  \
		bool unordered, equal, less;                                                               \
		__asm__ volatile(host " %4, %3"                                                            \
				 : "=@ccp"(unordered), "=@ccz"(equal), "=@ccc"(less)                       \
				 : "x"(first), "x"(second));                                               \
		return unordered ? RELATION_UNORDERED                                                      \
		       : equal   ? RELATION_EQUAL                                                          \
		       : less    ? RELATION_LESS                                                           \
				 : RELATION_GREATER;                                                       \
	}
VEX_COMPARE(relation_comiss, "comiss")
VEX_COMPARE(relation_ucomiss, "ucomiss")
VEX_COMPARE(relation_comisd, "comisd")
VEX_COMPARE(relation_ucomisd, "ucomisd")

static xmm_t vex_compare_ps(xmm_t value, xmm_t source, unsigned imm, unsigned count)
{
	struct predicate predicate = vex_predicate(imm & 31);

	for (unsigned i = 0; i < count; i++) {
		__m128i first = _mm_cvtsi32_si128(value.s32[i]), second = _mm_cvtsi32_si128(source.s32[i]);
		unsigned relation = predicate.signals ? relation_comiss(first, second) : relation_ucomiss(first, second);
		value.u32[i] = predicate.relations & relation ? ~0u : 0;
	}
	return value;
}

static xmm_t vex_compare_pd(xmm_t value, xmm_t source, unsigned imm, unsigned count)
{
	struct predicate predicate = vex_predicate(imm & 31);

	for (unsigned i = 0; i < count; i++) {
		__m128i first = _mm_cvtsi64_si128(value.s64[i]), second = _mm_cvtsi64_si128(source.s64[i]);
		unsigned relation = predicate.signals ? relation_comisd(first, second) : relation_ucomisd(first, second);
		value.u64[i] = predicate.relations & relation ? ~0ull : 0;
	}
	return value;
}

SIMD_FP_LANES_AVX(cmpps, RESULT_OTHER, vex_source(cpu, insn), value = vex_compare_ps(value, source, imm, 4))
SIMD_FP_LANES_AVX(cmppd, RESULT_OTHER, vex_source(cpu, insn), value = vex_compare_pd(value, source, imm, 2))
SIMD_FP_LANES_AVX(cmpss, RESULT_OTHER, vex_source_bytes(cpu, insn, 4), value = vex_compare_ps(value, source, imm, 1))
SIMD_FP_LANES_AVX(cmpsd, RESULT_OTHER, vex_source_bytes(cpu, insn, 8), value = vex_compare_pd(value, source, imm, 1))

/* COMISS and others: ZF, PF and CF; OF, SF and AF are cleared (SDM 2A COMISD). */
#define SSE_COMPARE_FLAGS(name, bytes)                                                                     \
	static inline void sse_##name(struct cpu *cpu, const struct insn *insn)                            \
	{                                                                                                  \
		xmm_t source = xmm_source_low(cpu, insn, bytes);                                           \
		xmm_t value = xmm_get_low(cpu, insn->reg, bytes);                                          \
		bool zf, pf, cf;                                                                           \
		SIMD_FP(cpu,                                                                               \
			__asm__ volatile(#name " %4, %3"                                                   \
					 : "=@ccz"(zf), "=@ccp"(pf), "=@ccc"(cf) : "x"(value.i), "x"(source.i)), \
			value, RESULT_OTHER);                                                              \
		flags_set(&cpu->lazy, (zf ? RFLAGS_ZF : 0) | (pf ? RFLAGS_PF : 0) | (cf ? RFLAGS_CF : 0)); \
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
static void approximate_elements(struct cpu *cpu, uint32_t *to, const uint32_t *from, unsigned count, bool root)
{
	mxcsr_unload(cpu);
	for (unsigned i = 0; i < count; i++)
		to[i] = approximate(from[i], root);
	mxcsr_load(cpu);
}

#define SIMD_APPROXIMATE(name, root)                                                                       \
	static inline void sse_##name##ps(struct cpu *cpu, const struct insn *insn)                        \
	{                                                                                                  \
		xmm_t value = xmm_source(cpu, insn, 16);                                                   \
		approximate_elements(cpu, value.u32, value.u32, 4, root);                                  \
		xmm_set(cpu, insn->reg, value);                                                            \
	}                                                                                                  \
	DEFINE_INSN(sse_##name##ps)                                                                        \
	static inline void avx_##name##ps(struct cpu *cpu, const struct insn *insn)                        \
	{                                                                                                  \
		ymm_t values = vex_source(cpu, insn);                                                      \
		for (unsigned lane = 0; lane < vex_lanes(insn); lane++)                                    \
			approximate_elements(cpu, values.lane[lane].u32, values.lane[lane].u32, 4, root);  \
		vex_set(cpu, insn, &values);                                                               \
	}                                                                                                  \
	DEFINE_INSN(avx_##name##ps)                                                                        \
	SIMD_BODY name##ss(struct cpu *cpu, const struct insn *insn, bool vex)                             \
	{                                                                                                  \
		xmm_t source = xmm_source(cpu, insn, 4), value = simd_get_low(cpu, insn, 4, vex);          \
		approximate_elements(cpu, value.u32, source.u32, 1, root);                                 \
		simd_set_low(cpu, insn->reg, value, 4, vex);                                               \
	}                                                                                                  \
	DEFINE_SIMD(name##ss)

SIMD_APPROXIMATE(rcp, false)
SIMD_APPROXIMATE(rsqrt, true)

/* ---- conversions within XMM registers ---- */

SIMD_SCALAR(cvtss2sd, 4, 8, RESULT_OTHER)
SIMD_SCALAR(cvtsd2ss, 8, 4, RESULT_SS)
SIMD_PACKED(cvtdq2ps, RESULT_OTHER)
SIMD_PACKED(cvtps2dq, RESULT_OTHER)
SIMD_PACKED(cvttps2dq, RESULT_OTHER)

/* Two elements of four bytes become two of eight. */
#define SIMD_WIDEN_FP(name)                                                                                \
	static inline void sse_##name(struct cpu *cpu, const struct insn *insn)                            \
	{                                                                                                  \
		xmm_t source = xmm_source(cpu, insn, 8), value = xmm_get(cpu, insn->reg);                  \
		SIMD_FP(cpu, __asm__ volatile(#name " %1, %0" : "+x"(value.i) : "x"(source.i)), value,     \
			RESULT_OTHER);                                                                     \
		xmm_set(cpu, insn->reg, value);                                                            \
	}                                                                                                  \
	DEFINE_INSN(sse_##name)                                                                            \
	SIMD_FP_LANES_AVX(name, RESULT_OTHER, spread_halves(vex_source_bytes(cpu, insn, insn->vector_length / 2)), \
			  __asm__ volatile(#name " %1, %0" : "+x"(value.i) : "x"(source.i)))

/* The halves of the low 128 bits, one in each lane. */
static inline ymm_t spread_halves(ymm_t source)
{
	source.lane[1].u64[0] = source.lane[0].u64[1];
	return source;
}
SIMD_WIDEN_FP(cvtps2pd)
SIMD_WIDEN_FP(cvtdq2pd)

/* Elements of eight bytes become elements of four: with VEX, 64 bits of each lane, side by side. */
#define SIMD_NARROW_FP(name, kind)                                                                         \
	static inline void sse_##name(struct cpu *cpu, const struct insn *insn)                            \
	{                                                                                                  \
		xmm_t source = xmm_source(cpu, insn, 16), value = xmm_get(cpu, insn->reg);                 \
		SIMD_FP(cpu, __asm__ volatile(#name " %1, %0" : "+x"(value.i) : "x"(source.i)), value, kind); \
		xmm_set(cpu, insn->reg, value);                                                            \
	}                                                                                                  \
	DEFINE_INSN(sse_##name)                                                                            \
	static inline void avx_##name(struct cpu *cpu, const struct insn *insn)                            \
	{                                                                                                  \
		ymm_t values = vex_source(cpu, insn);                                                      \
		unsigned lanes = vex_lanes(insn);                                                          \
		SIMD_FP_ALL(                                                                               \
			cpu,                                                                               \
			for (unsigned lane = 0; lane < lanes; lane++)                                      \
				__asm__ volatile(#name " %0, %0" : "+x"(values.lane[lane].i)),             \
			values.lane, lanes, kind);                                                         \
		if (lanes == 2)                                                                            \
			values.lane[0].u64[1] = values.lane[1].u64[0];                                     \
		vex_set_xmm(cpu, insn->reg, values.lane[0]);                                               \
	}                                                                                                  \
	DEFINE_INSN(avx_##name)

SIMD_NARROW_FP(cvtpd2ps, RESULT_PS)
SIMD_NARROW_FP(cvtpd2dq, RESULT_OTHER)
SIMD_NARROW_FP(cvttpd2dq, RESULT_OTHER)

/* ---- from and to general registers ---- */

#define SIMD_FROM_INTEGER(name, to)                                                                        \
	SIMD_BODY name(struct cpu *cpu, const struct insn *insn, bool vex)                                 \
	{                                                                                                  \
		unsigned bytes = insn->width == 8 ? 8 : 4;                                                 \
		uint64_t source = insn_is_memory(insn)                                                     \
					  ? mem_read(cpu, insn->segment, insn_offset(cpu, insn), bytes)    \
					  : reg_read(cpu, insn->rm, bytes);                                \
		xmm_t value = simd_get_low(cpu, insn, to, vex);                                            \
		if (bytes == 8)                                                                            \
			SIMD_FP(cpu, __asm__ volatile(#name "q %1, %0" : "+x"(value.i) : "r"(source)),     \
				value, RESULT_OTHER);                                                      \
		else                                                                                       \
			SIMD_FP(cpu,                                                                       \
				__asm__ volatile(#name "l %1, %0" : "+x"(value.i) : "r"((uint32_t)source)), \
				value, RESULT_OTHER);                                                      \
		simd_set_low(cpu, insn->reg, value, to, vex);                                              \
	}                                                                                                  \
	DEFINE_SIMD(name)

SIMD_FROM_INTEGER(cvtsi2ss, 4)
SIMD_FROM_INTEGER(cvtsi2sd, 8)

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
#define ROUND_FUNCTION(name)                                                                               \
	static inline xmm_t round_##name(xmm_t value, xmm_t source, unsigned imm)                          \
	{                                                                                                  \
		switch (imm & (imm & 4 ? 12 : 15)) {                                                       \
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
	}
#define SIMD_ROUND(name)     \
	ROUND_FUNCTION(name) \
	SIMD_FP_LANES(name, RESULT_OTHER, value = round_##name(value, source, imm))
#define SIMD_ROUND_SCALAR(name, bytes)                                                                     \
	ROUND_FUNCTION(name)                                                                               \
	SIMD_BODY name(struct cpu *cpu, const struct insn *insn, bool vex)                                 \
	{                                                                                                  \
		xmm_t source = xmm_source(cpu, insn, bytes), value = simd_get_low(cpu, insn, bytes, vex);  \
		SIMD_FP(cpu, value = round_##name(value, source, (unsigned)insn->imm), value, RESULT_OTHER); \
		simd_set_low(cpu, insn->reg, value, bytes, vex);                                           \
	}                                                                                                  \
	DEFINE_SIMD(name)

SIMD_ROUND(roundps)
SIMD_ROUND_SCALAR(roundss, 4)
SIMD_ROUND(roundpd)
SIMD_ROUND_SCALAR(roundsd, 8)

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

/* As many bits of the immediate as there are elements. */
SIMD_LANES(blendps, value = blend32(value, source, imm >> (4 * lane)))
SIMD_LANES(blendpd, value = blend64(value, source, imm >> (2 * lane)))

static inline xmm_t blend_by_signs32(xmm_t value, xmm_t source, xmm_t mask)
{
	return blend32(value, source, (unsigned)_mm_movemask_ps(mask.s));
}
static inline xmm_t blend_by_signs64(xmm_t value, xmm_t source, xmm_t mask)
{
	return blend64(value, source, (unsigned)_mm_movemask_pd(mask.d));
}

SIMD_BLEND(blendvps, blend_by_signs32)
SIMD_BLEND(blendvpd, blend_by_signs64)

SIMD_BODY insertps(struct cpu *cpu, const struct insn *insn, bool vex)
{
	bool memory = insn_is_memory(insn);
	xmm_t source = memory ? xmm_source_low(cpu, insn, 4) : xmm_get(cpu, insn->rm);
	xmm_t value = xmm_get(cpu, simd_first(insn, vex));
	unsigned from = memory ? 0 : (unsigned)insn->imm >> 6 & 3;
	value.u32[insn->imm >> 4 & 3] = source.u32[from];
	for (unsigned i = 0; i < 4; i++)
		if (insn->imm >> i & 1)
			value.u32[i] = 0;
	simd_set(cpu, insn->reg, value, vex);
}
DEFINE_SIMD(insertps)

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
static inline void dot_step(struct cpu *cpu, const ymm_t *values, unsigned lanes, enum simd_result kind)
{
	if (likely(mxcsr_all_masked(cpu)))
		return;
	simd_end(cpu, values->lane, lanes, kind);
	simd_begin(cpu);
}

/* Elements with bit 4 + i of @mask clear become zero. */
static inline xmm_t keep_ps(xmm_t value, unsigned mask)
{
	for (unsigned i = 0; i < 4; i++)
		if (!(mask >> (4 + i) & 1))
			value.u32[i] = 0;
	return value;
}

static inline xmm_t swap_pairs(xmm_t value)
{
	return (xmm_t){.u32 = {value.u32[1], value.u32[0], value.u32[3], value.u32[2]}};
}
static inline xmm_t swap_halves(xmm_t value) { return (xmm_t){.u64 = {value.u64[1], value.u64[0]}}; }

static inline ymm_t dot_ps(struct cpu *cpu, ymm_t values, const ymm_t *sources, unsigned lanes, unsigned mask)
{
	for (unsigned i = 0; i < lanes; i++) {
		xmm_t value = keep_ps(values.lane[i], mask), source = keep_ps(sources->lane[i], mask);
		__asm__ volatile("mulps %1, %0" : "+x"(value.i) : "x"(source.i));
		values.lane[i] = value;
	}
	dot_step(cpu, &values, lanes, RESULT_PS);
	for (unsigned i = 0; i < lanes; i++)
		__asm__ volatile("addps %1, %0" : "+x"(values.lane[i].i) : "x"(swap_pairs(values.lane[i]).i));
	dot_step(cpu, &values, lanes, RESULT_PS);
	for (unsigned i = 0; i < lanes; i++)
		__asm__ volatile("addps %1, %0" : "+x"(values.lane[i].i) : "x"(swap_halves(values.lane[i]).i));
	dot_step(cpu, &values, lanes, RESULT_PS);
	for (unsigned i = 0; i < lanes; i++) {
		uint32_t sum = values.lane[i].u32[0];
		for (unsigned n = 0; n < 4; n++)
			values.lane[i].u32[n] = mask >> n & 1 ? sum : 0;
	}
	return values;
}

static inline void sse_dpps(struct cpu *cpu, const struct insn *insn)
{
	ymm_t sources = {.lane = {xmm_source(cpu, insn, 16)}}, values = {.lane = {xmm_get(cpu, insn->reg)}};
	SIMD_FP_ALL(cpu, values = dot_ps(cpu, values, &sources, 1, (unsigned)insn->imm), values.lane, 1, RESULT_PS);
	xmm_set(cpu, insn->reg, values.lane[0]);
}
DEFINE_INSN(sse_dpps)

static inline void avx_dpps(struct cpu *cpu, const struct insn *insn)
{
	ymm_t sources = vex_source(cpu, insn), values = ymm_get(cpu, insn->vvvv);
	unsigned lanes = vex_lanes(insn);
	SIMD_FP_ALL(cpu, values = dot_ps(cpu, values, &sources, lanes, (unsigned)insn->imm), values.lane, lanes,
		    RESULT_PS);
	vex_set(cpu, insn, &values);
}
DEFINE_INSN(avx_dpps)

/* 128 bits alone. */
SIMD_BODY dppd(struct cpu *cpu, const struct insn *insn, bool vex)
{
	const unsigned mask = (unsigned)insn->imm;
	xmm_t source = xmm_source(cpu, insn, 16);
	ymm_t values = {.lane = {xmm_get(cpu, simd_first(insn, vex))}};
	xmm_t *value = &values.lane[0];
	for (unsigned i = 0; i < 2; i++)
		if (!(mask >> (4 + i) & 1))
			value->u64[i] = source.u64[i] = 0;
	SIMD_FP(cpu, __asm__ volatile("mulpd %1, %0" : "+x"(value->i) : "x"(source.i)), *value, RESULT_PD);
	SIMD_FP(cpu, __asm__ volatile("addpd %1, %0" : "+x"(value->i) : "x"(swap_halves(*value).i)), *value, RESULT_PD);
	uint64_t sum = value->u64[0];
	for (unsigned i = 0; i < 2; i++)
		value->u64[i] = mask >> i & 1 ? sum : 0;
	simd_set(cpu, insn->reg, *value, vex);
}
DEFINE_SIMD(dppd)
