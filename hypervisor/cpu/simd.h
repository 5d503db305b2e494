/*
 * simd.h: XMM and MMX registers, MXCSR, and how SSE instructions use the host's unit.
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

/* Whether the guest masks all SIMD floating-point exceptions. */
static inline bool mxcsr_all_masked(const struct cpu *cpu) { return (cpu->mxcsr & MXCSR_MASKS) == MXCSR_MASKS; }

/* Gives the host the guest's MXCSR, masked. Call after a change of cpu->mxcsr and on entering the run loop. */
void mxcsr_load(struct cpu *cpu);
/* Adds the flags that the host has accumulated to cpu->mxcsr. Call before it is read. */
void mxcsr_collect(struct cpu *cpu);
/* As mxcsr_collect(), then the host's own MXCSR again. Call on leaving the run loop. */
void mxcsr_unload(struct cpu *cpu);

static inline xmm_t xmm_get(const struct cpu *cpu, unsigned number)
{
	xmm_t value;
	memcpy(&value, &cpu->vector[4 * number], 16);
	return value;
}

/* SSE instructions leave bits above 127 of the YMM register alone (SDM 1 14.3). */
static inline void xmm_set(struct cpu *cpu, unsigned number, xmm_t value)
{
	memcpy(&cpu->vector[4 * number], &value, 16);
}

/* Alignment that a 16-byte operand in memory must have. */
static inline unsigned xmm_alignment(const struct cpu *cpu) { return cpu->mxcsr & MXCSR_MM ? 1 : 16; }

/*
 * A scalar in the low @bytes of a register, 4 or 8. Scalar instructions touch no more than that, so that the host can
 * forward what the one before has stored.
 */
static inline xmm_t xmm_get_low(const struct cpu *cpu, unsigned number, unsigned bytes)
{
	uint64_t low = 0;
	memcpy(&low, &cpu->vector[4 * number], bytes);
	return (xmm_t){.i = _mm_cvtsi64_si128((int64_t)low)};
}

static inline void xmm_set_low(struct cpu *cpu, unsigned number, xmm_t value, unsigned bytes)
{
	uint64_t low = (uint64_t)_mm_cvtsi128_si64(value.i);
	memcpy(&cpu->vector[4 * number], &low, bytes);
}

/* The second operand: a register, or 16 bytes of memory, aligned. */
static inline xmm_t xmm_source16(struct cpu *cpu, const struct insn *insn)
{
	xmm_t value;
	if (!insn_is_memory(insn))
		return xmm_get(cpu, insn->rm);
	mem_read_bytes(cpu, insn->segment, insn_offset(cpu, insn), &value, 16, xmm_alignment(cpu));
	return value;
}

/* The second operand: the low @bytes of a register or of memory, at most 8; the rest is zero. */
static inline xmm_t xmm_source_low(struct cpu *cpu, const struct insn *insn, unsigned bytes)
{
	if (!insn_is_memory(insn))
		return xmm_get_low(cpu, insn->rm, bytes);
	uint64_t low = mem_read(cpu, insn->segment, insn_offset(cpu, insn), bytes);
	return (xmm_t){.i = _mm_cvtsi64_si128((int64_t)low)};
}

static inline xmm_t xmm_source(struct cpu *cpu, const struct insn *insn, unsigned bytes)
{
	return bytes == 16 ? xmm_source16(cpu, insn) : xmm_source_low(cpu, insn, bytes);
}

/* An instruction whose result is a pure function of its operands' bits: no flags, no exceptions of its own. */
#define SSE_BITS(name)                                                                     \
	static inline void sse_##name(struct cpu *cpu, const struct insn *insn)            \
	{                                                                                  \
		xmm_t source = xmm_source(cpu, insn, 16);                                  \
		xmm_t value = xmm_get(cpu, insn->reg);                                     \
		__asm__(#name " %1, %0" : "+x"(value.i) : "x"(source.i));                  \
		xmm_set(cpu, insn->reg, value);                                            \
	}                                                                                  \
	DEFINE_INSN(sse_##name)

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

/* Around one operation when an exception is unmasked: clears the host's flags; then judges them, and raises #XM or #UD. */
void simd_begin(struct cpu *cpu);
void simd_end(struct cpu *cpu, const xmm_t *result, enum simd_result kind);

/*
 * Carries out @statement, which computes @result from guest operands on the host's unit, and raises what
 * the guest has unmasked.
 */
#define SIMD_FP(cpu, statement, result, kind)                 \
	do {                                                  \
		if (likely(mxcsr_all_masked(cpu))) {          \
			statement;                            \
		} else {                                      \
			simd_begin(cpu);                      \
			statement;                            \
			simd_end(cpu, &(result), kind);       \
		}                                             \
	} while (0)

#endif
