/*
 * simd.h: XMM, YMM and MMX registers, MXCSR, and how SSE and AVX instructions use the host's unit.
 *
 * AVX works on each 128 bits alone, almost everywhere: the macros below make an SSE and an AVX handler (sse_NAME,
 * avx_NAME) from what happens to one such lane. The AVX one has its first operand in VEX.vvvv, takes memory as it
 * lies, and clears the bits above its length (SDM 1 14.1 to 14.3).
 *
 * Each SSE instruction of the guest whose result the manuals and IEEE 754 fix is carried out by the
 * same instruction of the host, on the same bits, with the guest's rounding, DAZ and FZ. Exceptions
 * stay masked on the host. While the guest masks all six as well (the usual state), they accumulate in the
 * host's MXCSR, and mxcsr_collect() fetches them when something reads the guest's. With an exception
 * unmasked, each instruction looks at its own flags and raises #XM before it writes anything
 * (SDM 1 11.5).
 *
 * The host must have SSE4.2 (any x86-64-v2 processor).
 */
#ifndef TRAPLINE_CPU_SIMD_H
#define TRAPLINE_CPU_SIMD_H

#include <emmintrin.h>
#include <string.h>

#include "cpu/control.h"
#include "cpu/cpu.h"
#include "cpu/insn.h"
#include "cpu/mem/mem.h"

#define MXCSR_FLAGS 0x3fu
#define MXCSR_MM (1u << 17) /* misaligned exception mask (AMD: APM 1 4.2.2) */

/* So small that a call costs more, and handlers without calls need no frame. */
#define SIMD_INLINE static inline __attribute__((always_inline))

/* A 128-bit register or operand. */
typedef union {
	__m128i i;
	__m128 s;
	__m128d d;
	uint64_t u64[2];
	int64_t s64[2];
	uint32_t u32[4];
	int32_t s32[4];
	uint16_t u16[8];
	int16_t s16[8];
	uint8_t u8[16];
	int8_t s8[16];
} xmm_t;

/* A YMM register or operand. */
typedef struct {
	xmm_t lane[2];
} ymm_t;

/* Whether the guest masks all SIMD floating-point exceptions. */
SIMD_INLINE bool mxcsr_all_masked(const struct cpu *cpu) { return (cpu->mxcsr & MXCSR_MASKS) == MXCSR_MASKS; }

/* Gives the host the guest's MXCSR, masked. Call after a change of cpu->mxcsr and on entering the run loop. */
void mxcsr_load(struct cpu *cpu);
/* Adds the flags that the host has accumulated to cpu->mxcsr. Call before it is read. */
void mxcsr_collect(struct cpu *cpu);
/* As mxcsr_collect(), then the host's own MXCSR again. Call on leaving the run loop. */
void mxcsr_unload(struct cpu *cpu);

SIMD_INLINE xmm_t xmm_get(const struct cpu *cpu, unsigned number)
{
	xmm_t value;
	memcpy(&value, &cpu->vector[4 * number], 16);
	return value;
}

/* SSE instructions leave bits above 127 of the YMM register alone (SDM 1 14.3). */
SIMD_INLINE void xmm_set(struct cpu *cpu, unsigned number, xmm_t value)
{
	memcpy(&cpu->vector[4 * number], &value, 16);
}

/* Alignment that a 16-byte operand in memory must have. */
static inline unsigned xmm_alignment(const struct cpu *cpu) { return cpu->mxcsr & MXCSR_MM ? 1 : 16; }

/*
 * A scalar in the low @bytes of a register, 4 or 8. Scalar instructions touch no more than that, so that the host can
 * forward what the one before has stored.
 */
SIMD_INLINE xmm_t xmm_get_low(const struct cpu *cpu, unsigned number, unsigned bytes)
{
	uint64_t low = 0;
	memcpy(&low, &cpu->vector[4 * number], bytes);
	return (xmm_t){.i = _mm_cvtsi64_si128((int64_t)low)};
}

SIMD_INLINE void xmm_set_low(struct cpu *cpu, unsigned number, xmm_t value, unsigned bytes)
{
	uint64_t low = (uint64_t)_mm_cvtsi128_si64(value.i);
	memcpy(&cpu->vector[4 * number], &low, bytes);
}

/* The second operand: a register, or 16 bytes of memory, aligned. */
SIMD_INLINE xmm_t xmm_source16(struct cpu *cpu, const struct insn *insn)
{
	xmm_t value;
	if (!insn_is_memory(insn))
		return xmm_get(cpu, insn->rm);
	mem_read_bytes(cpu, insn->segment, insn_offset(cpu, insn), &value, 16,
		       insn->vector_length ? 1 : xmm_alignment(cpu));
	return value;
}

/* The second operand: the low @bytes of a register or of memory, at most 8; the rest is zero. */
SIMD_INLINE xmm_t xmm_source_low(struct cpu *cpu, const struct insn *insn, unsigned bytes)
{
	if (!insn_is_memory(insn))
		return xmm_get_low(cpu, insn->rm, bytes);
	uint64_t low = mem_read(cpu, insn->segment, insn_offset(cpu, insn), bytes);
	return (xmm_t){.i = _mm_cvtsi64_si128((int64_t)low)};
}

SIMD_INLINE xmm_t xmm_source(struct cpu *cpu, const struct insn *insn, unsigned bytes)
{
	return bytes == 16 ? xmm_source16(cpu, insn) : xmm_source_low(cpu, insn, bytes);
}

/* ---- VEX ---- */

/* How many 128-bit lanes a VEX instruction works on. */
SIMD_INLINE unsigned vex_lanes(const struct insn *insn) { return insn->vector_length / 16u; }

SIMD_INLINE ymm_t ymm_get(const struct cpu *cpu, unsigned number)
{
	ymm_t value;
	memcpy(&value, &cpu->vector[4 * number], 32);
	return value;
}

/* The destination of a VEX instruction: 128 bits, the rest becomes zero. */
SIMD_INLINE void vex_set_xmm(struct cpu *cpu, unsigned number, xmm_t value)
{
	memcpy(&cpu->vector[4 * number], &value, 16);
	cpu->vector[4 * number + 2] = cpu->vector[4 * number + 3] = 0;
}

/* As many bits as the instruction is long. */
SIMD_INLINE void vex_set(struct cpu *cpu, const struct insn *insn, const ymm_t *value)
{
	if (insn->vector_length == 32)
		memcpy(&cpu->vector[4 * insn->reg], value, 32);
	else
		vex_set_xmm(cpu, insn->reg, value->lane[0]);
}

/* ModRM.rm: a register, or @bytes of memory, unaligned. */
static inline ymm_t vex_source_bytes(struct cpu *cpu, const struct insn *insn, size_t bytes)
{
	ymm_t value = {0};
	if (!insn_is_memory(insn))
		return ymm_get(cpu, insn->rm);
	mem_read_bytes(cpu, insn->segment, insn_offset(cpu, insn), &value, bytes, 1);
	return value;
}
static inline ymm_t vex_source(struct cpu *cpu, const struct insn *insn)
{
	return vex_source_bytes(cpu, insn, insn->vector_length);
}

/* The register in bits 7:4 of the immediate; bit 7 means nothing outside 64-bit mode. */
static inline unsigned vex_fourth(const struct cpu *cpu, const struct insn *insn)
{
	return (unsigned)insn->imm >> 4 & (cpu_64bit(cpu) ? 15 : 7);
}

/*
 * ---- one body for SSE and AVX ----
 *
 * Scalars and what exists for 128 bits alone: body(cpu, insn, vex), with @vex constant. The first operand is
 * simd_first(), the destination is written by simd_set() (16 bytes) or simd_set_low() (as many as the scalar has, where
 * @value holds the first operand above them).
 */
#define DEFINE_SIMD(body)                                                                                             \
	static inline void sse_##body(struct cpu *cpu, const struct insn *insn) { body(cpu, insn, false); }           \
	static inline void avx_##body(struct cpu *cpu, const struct insn *insn) { body(cpu, insn, true); }            \
	DEFINE_INSN(sse_##body)                                                                                       \
	DEFINE_INSN(avx_##body)
#define SIMD_BODY SIMD_INLINE void

SIMD_INLINE unsigned simd_first(const struct insn *insn, bool vex) { return vex ? insn->vvvv : insn->reg; }

SIMD_INLINE void simd_set(struct cpu *cpu, unsigned number, xmm_t value, bool vex)
{
	if (vex)
		vex_set_xmm(cpu, number, value);
	else
		xmm_set(cpu, number, value);
}

/* The first operand of a scalar: SSE touches no more than its @bytes. */
SIMD_INLINE xmm_t simd_get_low(const struct cpu *cpu, const struct insn *insn, unsigned bytes, bool vex)
{
	return vex ? xmm_get(cpu, insn->vvvv) : xmm_get_low(cpu, insn->reg, bytes);
}
SIMD_INLINE void simd_set_low(struct cpu *cpu, unsigned number, xmm_t value, unsigned bytes, bool vex)
{
	if (vex)
		vex_set_xmm(cpu, number, value);
	else
		xmm_set_low(cpu, number, value, bytes);
}

/*
 * Packed: @statement makes `value` from `value` (the first operand), `source`, `imm` (the immediate's eight bits) and
 * `lane` (0 or 1), for 128 bits.
 */
#define SIMD_LANES(name, statement)                                                                                   \
	static inline void sse_##name(struct cpu *cpu, const struct insn *insn)                                       \
	{                                                                                                             \
		const unsigned lane = 0, imm = (uint8_t)insn->imm;                                                    \
		xmm_t source = xmm_source(cpu, insn, 16), value = xmm_get(cpu, insn->reg);                            \
		(void)lane, (void)imm;                                                                                \
		statement;                                                                                            \
		xmm_set(cpu, insn->reg, value);                                                                       \
	}                                                                                                             \
	DEFINE_INSN(sse_##name)                                                                                       \
	SIMD_LANES_AVX(name, vex_source(cpu, insn), statement)
/* The AVX handler alone; @second gives the second operand. */
#define SIMD_LANES_AVX(name, second, statement)                                                                       \
	static inline void avx_##name(struct cpu *cpu, const struct insn *insn)                                       \
	{                                                                                                             \
		const unsigned imm = (uint8_t)insn->imm;                                                              \
		ymm_t sources = second, values = ymm_get(cpu, insn->vvvv);                                            \
		(void)imm;                                                                                            \
		for (unsigned lane = 0; lane < vex_lanes(insn); lane++) {                                             \
			xmm_t source = sources.lane[lane], value = values.lane[lane];                                 \
			statement;                                                                                    \
			values.lane[lane] = value;                                                                    \
		}                                                                                                     \
		vex_set(cpu, insn, &values);                                                                          \
	}                                                                                                             \
	DEFINE_INSN(avx_##name)

/* BLENDVPS and others: @blend of first operand, second, and a mask: XMM0, with VEX the register that the immediate names. */
#define SIMD_BLEND(name, blend)                                                                                       \
	static inline void sse_##name(struct cpu *cpu, const struct insn *insn)                                       \
	{                                                                                                             \
		xmm_t source = xmm_source(cpu, insn, 16);                                                             \
		xmm_set(cpu, insn->reg, blend(xmm_get(cpu, insn->reg), source, xmm_get(cpu, 0)));                     \
	}                                                                                                             \
	DEFINE_INSN(sse_##name)                                                                                       \
	static inline void avx_##name(struct cpu *cpu, const struct insn *insn)                                       \
	{                                                                                                             \
		ymm_t source = vex_source(cpu, insn), values = ymm_get(cpu, insn->vvvv);                              \
		ymm_t mask = ymm_get(cpu, vex_fourth(cpu, insn));                                                     \
		for (unsigned lane = 0; lane < vex_lanes(insn); lane++)                                               \
			values.lane[lane] = blend(values.lane[lane], source.lane[lane], mask.lane[lane]);             \
		vex_set(cpu, insn, &values);                                                                          \
	}                                                                                                             \
	DEFINE_INSN(avx_##name)

/* An instruction whose result is a pure function of its operands' bits: no flags, no exceptions of its own. */
#define SIMD_BITS(name) SIMD_LANES(name, __asm__(#name " %1, %0" : "+x"(value.i) : "x"(source.i)))

/* ---- MMX ---- */

/*
 * Before an MMX instruction touches its registers: a pending x87 exception is raised first; then the
 * register stack is marked as in use (SDM 1 9.5.2, table 9-2).
 */
void mmx_check(struct cpu *cpu);
void mmx_use(struct cpu *cpu);

static inline uint64_t mmx_get(const struct cpu *cpu, unsigned number) { return cpu->st[number & 7].significand; }
static inline void mmx_set(struct cpu *cpu, unsigned number, uint64_t value)
{
	cpu->st[number & 7].significand = value;
	cpu->st[number & 7].sign_exponent = 0xffff;
}
static inline uint64_t mmx_source(struct cpu *cpu, const struct insn *insn, unsigned bytes)
{
	return insn_is_memory(insn) ? mem_read(cpu, insn->segment, insn_offset(cpu, insn), bytes)
				    : mmx_get(cpu, insn->rm);
}

/* ---- floating point ---- */

/* What a result holds, for the underflow that only shows when it is unmasked. */
enum simd_result { RESULT_OTHER, RESULT_SS, RESULT_PS, RESULT_SD, RESULT_PD };

/*
 * Around one operation when an exception is unmasked: clears the host's flags; then judges them and the @count results,
 * and raises #XM or #UD.
 */
void simd_begin(struct cpu *cpu);
/* Flags that own code has raised, in between: as if the host's unit had. */
SIMD_INLINE void simd_note(uint32_t flags) { _mm_setcsr(_mm_getcsr() | flags); }
void simd_end(struct cpu *cpu, const xmm_t *results, unsigned count, enum simd_result kind);

/*
 * Carries out @statement, which computes @count results from guest operands on the host's unit, and raises what
 * the guest has unmasked.
 */
#define SIMD_FP_ALL(cpu, statement, results, count, kind)          \
	do {                                                       \
		if (likely(mxcsr_all_masked(cpu))) {               \
			statement;                                 \
		} else {                                           \
			simd_begin(cpu);                           \
			statement;                                 \
			simd_end(cpu, results, count, kind);       \
		}                                                  \
	} while (0)
/* One result, of which a copy is judged: its address would keep the result itself out of registers. */
#define SIMD_FP(cpu, statement, result, kind)                      \
	do {                                                       \
		if (likely(mxcsr_all_masked(cpu))) {               \
			statement;                                 \
		} else {                                           \
			simd_begin(cpu);                           \
			statement;                                 \
			xmm_t judged = result;                     \
			simd_end(cpu, &judged, 1, kind);           \
		}                                                  \
	} while (0)

/* As SIMD_LANES, for instructions with floating-point exceptions. */
#define SIMD_FP_LANES(name, kind, statement)                                                                          \
	static inline void sse_##name(struct cpu *cpu, const struct insn *insn)                                       \
	{                                                                                                             \
		const unsigned lane = 0, imm = (uint8_t)insn->imm;                                                    \
		xmm_t source = xmm_source(cpu, insn, 16), value = xmm_get(cpu, insn->reg);                            \
		(void)lane, (void)imm;                                                                                \
		SIMD_FP(cpu, statement, value, kind);                                                                 \
		xmm_set(cpu, insn->reg, value);                                                                       \
	}                                                                                                             \
	DEFINE_INSN(sse_##name)                                                                                       \
	SIMD_FP_LANES_AVX(name, kind, vex_source(cpu, insn), statement)
#define SIMD_FP_LANES_AVX(name, kind, second, statement)                                                              \
	static inline void avx_##name(struct cpu *cpu, const struct insn *insn)                                       \
	{                                                                                                             \
		const unsigned imm = (uint8_t)insn->imm, lanes = vex_lanes(insn);                                     \
		ymm_t sources = second, values = ymm_get(cpu, insn->vvvv);                                            \
		(void)imm;                                                                                            \
		SIMD_FP_ALL(                                                                                          \
			cpu,                                                                                          \
			for (unsigned lane = 0; lane < lanes; lane++) {                                               \
				xmm_t source = sources.lane[lane];                                                    \
				xmm_t value = values.lane[lane];                                                      \
				statement;                                                                            \
				values.lane[lane] = value;                                                            \
			},                                                                                            \
			values.lane, lanes, kind);                                                                    \
		vex_set(cpu, insn, &values);                                                                          \
	}                                                                                                             \
	DEFINE_INSN(avx_##name)

#endif
