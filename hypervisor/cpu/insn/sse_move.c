/*
 * insn/sse_move.c: moves between XMM and YMM registers, memory and general registers; state management
 * (SDM 2 MOVAPS and others, LDMXCSR, STMXCSR, VZEROUPPER).
 */
#include "cpu/checks.h"
#include "cpu/simd.h"

/* @bytes to memory at the ModRM operand; 16 bytes aligned unless @unaligned. */
static inline void store(struct cpu *cpu, const struct insn *insn, const xmm_t *value, unsigned bytes, bool unaligned)
{
	uint64_t offset = insn_offset(cpu, insn);
	if (bytes <= 8)
		mem_write(cpu, insn->segment, offset, value->u64[0], bytes);
	else
		mem_write_bytes(cpu, insn->segment, offset, value, 16, unaligned ? 1 : 16);
}

/* ---- whole registers ---- */

/* MM does not concern the aligned moves: they always demand alignment (APM 4 MOVAPS). */
static inline xmm_t load16(struct cpu *cpu, const struct insn *insn, unsigned alignment)
{
	if (!insn_is_memory(insn))
		return xmm_get(cpu, insn->rm);
	xmm_t value;
	mem_read_bytes(cpu, insn->segment, insn_offset(cpu, insn), &value, 16, alignment);
	return value;
}

static inline void sse_mova(struct cpu *cpu, const struct insn *insn) /* MOVAPS, MOVAPD, MOVDQA, MOVNTDQA */
{
	xmm_set(cpu, insn->reg, load16(cpu, insn, 16));
}
DEFINE_INSN(sse_mova)

static inline void sse_movu(struct cpu *cpu, const struct insn *insn) /* MOVUPS, MOVUPD, MOVDQU, LDDQU */
{
	xmm_set(cpu, insn->reg, load16(cpu, insn, 1));
}
DEFINE_INSN(sse_movu)

static inline void sse_mova_store(struct cpu *cpu, const struct insn *insn) /* and MOVNTPS, MOVNTPD, MOVNTDQ */
{
	xmm_t value = xmm_get(cpu, insn->reg);
	if (insn_is_memory(insn))
		store(cpu, insn, &value, 16, false);
	else
		xmm_set(cpu, insn->rm, value);
}
DEFINE_INSN(sse_mova_store)

static inline void sse_movu_store(struct cpu *cpu, const struct insn *insn)
{
	xmm_t value = xmm_get(cpu, insn->reg);
	if (insn_is_memory(insn))
		store(cpu, insn, &value, 16, true);
	else
		xmm_set(cpu, insn->rm, value);
}
DEFINE_INSN(sse_movu_store)

/* The aligned ones demand as much as they are long (SDM 2B VMOVAPS). */
static inline void vex_move(struct cpu *cpu, const struct insn *insn, unsigned alignment)
{
	ymm_t value;
	if (insn_is_memory(insn))
		mem_read_bytes(cpu, insn->segment, insn_offset(cpu, insn), &value, insn->vector_length, alignment);
	else
		value = ymm_get(cpu, insn->rm);
	vex_set(cpu, insn, &value);
}

static inline void vex_move_store(struct cpu *cpu, const struct insn *insn, unsigned alignment)
{
	ymm_t value = ymm_get(cpu, insn->reg);
	if (insn_is_memory(insn)) {
		mem_write_bytes(cpu, insn->segment, insn_offset(cpu, insn), &value, insn->vector_length, alignment);
		return;
	}
	vex_set_xmm(cpu, insn->rm, value.lane[0]);
	if (insn->vector_length == 32)
		memcpy(&cpu->vector[4 * insn->rm + 2], &value.lane[1], 16);
}

static inline void avx_mova(struct cpu *cpu, const struct insn *insn) { vex_move(cpu, insn, insn->vector_length); }
DEFINE_INSN(avx_mova)
static inline void avx_movu(struct cpu *cpu, const struct insn *insn) { vex_move(cpu, insn, 1); }
DEFINE_INSN(avx_movu)
static inline void avx_mova_store(struct cpu *cpu, const struct insn *insn)
{
	vex_move_store(cpu, insn, insn->vector_length);
}
DEFINE_INSN(avx_mova_store)
static inline void avx_movu_store(struct cpu *cpu, const struct insn *insn) { vex_move_store(cpu, insn, 1); }
DEFINE_INSN(avx_movu_store)

/* ---- scalars: from memory the rest becomes zero, between registers it stays ---- */

/* With VEX and between registers, the rest is the first operand's. */
#define SIMD_MOVE_SCALAR(name, bytes)                                                      \
	static inline void sse_##name(struct cpu *cpu, const struct insn *insn)            \
	{                                                                                  \
		xmm_t source = xmm_source_low(cpu, insn, bytes);                           \
		if (insn_is_memory(insn))                                                  \
			xmm_set(cpu, insn->reg, source);                                   \
		else                                                                       \
			xmm_set_low(cpu, insn->reg, source, bytes);                        \
	}                                                                                  \
	DEFINE_INSN(sse_##name)                                                            \
	static inline void sse_##name##_store(struct cpu *cpu, const struct insn *insn)    \
	{                                                                                  \
		xmm_t value = xmm_get_low(cpu, insn->reg, bytes);                          \
		if (insn_is_memory(insn))                                                  \
			store(cpu, insn, &value, bytes, true);                             \
		else                                                                       \
			xmm_set_low(cpu, insn->rm, value, bytes);                          \
	}                                                                                  \
	DEFINE_INSN(sse_##name##_store)                                                    \
	static inline void avx_##name(struct cpu *cpu, const struct insn *insn)            \
	{                                                                                  \
		xmm_t source = xmm_source_low(cpu, insn, bytes), value = {.u64 = {0, 0}};  \
		if (!insn_is_memory(insn))                                                 \
			value = xmm_get(cpu, insn->vvvv);                                  \
		memcpy(&value, &source, bytes);                                            \
		vex_set_xmm(cpu, insn->reg, value);                                        \
	}                                                                                  \
	DEFINE_INSN(avx_##name)                                                            \
	static inline void avx_##name##_store(struct cpu *cpu, const struct insn *insn)    \
	{                                                                                  \
		xmm_t source = xmm_get(cpu, insn->reg), value = xmm_get(cpu, insn->vvvv);  \
		if (insn_is_memory(insn)) {                                                \
			store(cpu, insn, &source, bytes, true);                            \
			return;                                                            \
		}                                                                          \
		memcpy(&value, &source, bytes);                                            \
		vex_set_xmm(cpu, insn->rm, value);                                         \
	}                                                                                  \
	DEFINE_INSN(avx_##name##_store)

SIMD_MOVE_SCALAR(movss, 4)
SIMD_MOVE_SCALAR(movsd, 8)

/* ---- halves ---- */

/* MOVLPS, MOVLPD from memory; MOVHLPS between registers. */
SIMD_BODY movlps(struct cpu *cpu, const struct insn *insn, bool vex)
{
	xmm_t value = simd_get_low(cpu, insn, 8, vex);
	if (insn_is_memory(insn))
		value.u64[0] = xmm_source_low(cpu, insn, 8).u64[0];
	else
		value.u64[0] = xmm_get(cpu, insn->rm).u64[1];
	simd_set_low(cpu, insn->reg, value, 8, vex);
}
DEFINE_SIMD(movlps)

/* MOVHPS, MOVHPD from memory; MOVLHPS between registers. */
SIMD_BODY movhps(struct cpu *cpu, const struct insn *insn, bool vex)
{
	xmm_t source = xmm_source(cpu, insn, 8), value = xmm_get(cpu, simd_first(insn, vex));
	value.u64[1] = source.u64[0];
	simd_set(cpu, insn->reg, value, vex);
}
DEFINE_SIMD(movhps)

static inline void sse_movlps_store(struct cpu *cpu, const struct insn *insn)
{
	xmm_t value = xmm_get(cpu, insn->reg);
	store(cpu, insn, &value, 8, true);
}
DEFINE_INSN(sse_movlps_store)

static inline void sse_movhps_store(struct cpu *cpu, const struct insn *insn)
{
	xmm_t value = {.u64 = {xmm_get(cpu, insn->reg).u64[1], 0}};
	store(cpu, insn, &value, 8, true);
}
DEFINE_INSN(sse_movhps_store)

/* MOVQ xmm, xmm/m64: the upper half becomes zero. */
SIMD_BODY movq(struct cpu *cpu, const struct insn *insn, bool vex)
{
	xmm_t value = xmm_source(cpu, insn, 8);
	value.u64[1] = 0;
	simd_set(cpu, insn->reg, value, vex);
}
DEFINE_SIMD(movq)

SIMD_BODY movq_store(struct cpu *cpu, const struct insn *insn, bool vex)
{
	xmm_t value = {.u64 = {xmm_get(cpu, insn->reg).u64[0], 0}};
	if (insn_is_memory(insn))
		store(cpu, insn, &value, 8, true);
	else
		simd_set(cpu, insn->rm, value, vex);
}
DEFINE_SIMD(movq_store)

/* ---- general registers ---- */

SIMD_BODY movd(struct cpu *cpu, const struct insn *insn, bool vex) /* MOVD, MOVQ xmm, r/m */
{
	unsigned bytes = insn->width == 8 ? 8 : 4;
	xmm_t value = {.u64 = {0, 0}};
	value.u64[0] = insn_is_memory(insn) ? mem_read(cpu, insn->segment, insn_offset(cpu, insn), bytes)
					    : reg_read(cpu, insn->rm, bytes);
	simd_set(cpu, insn->reg, value, vex);
}
DEFINE_SIMD(movd)

static inline void sse_movd_store(struct cpu *cpu, const struct insn *insn) /* MOVD, MOVQ r/m, xmm */
{
	unsigned bytes = insn->width == 8 ? 8 : 4;
	uint64_t value = xmm_get(cpu, insn->reg).u64[0];
	if (insn_is_memory(insn))
		mem_write(cpu, insn->segment, insn_offset(cpu, insn), value, bytes);
	else
		reg_write(cpu, insn->rm, value, bytes);
}
DEFINE_INSN(sse_movd_store)

static inline void sse_movmskps(struct cpu *cpu, const struct insn *insn)
{
	cpu->reg[insn->reg] = (uint32_t)_mm_movemask_ps(xmm_get(cpu, insn->rm).s);
}
DEFINE_INSN(sse_movmskps)

static inline void sse_movmskpd(struct cpu *cpu, const struct insn *insn)
{
	cpu->reg[insn->reg] = (uint32_t)_mm_movemask_pd(xmm_get(cpu, insn->rm).d);
}
DEFINE_INSN(sse_movmskpd)

static inline void avx_movmskps(struct cpu *cpu, const struct insn *insn)
{
	ymm_t source = ymm_get(cpu, insn->rm);
	uint32_t mask = 0;
	for (unsigned lane = 0; lane < vex_lanes(insn); lane++)
		mask |= (uint32_t)_mm_movemask_ps(source.lane[lane].s) << (4 * lane);
	cpu->reg[insn->reg] = mask;
}
DEFINE_INSN(avx_movmskps)

static inline void avx_movmskpd(struct cpu *cpu, const struct insn *insn)
{
	ymm_t source = ymm_get(cpu, insn->rm);
	uint32_t mask = 0;
	for (unsigned lane = 0; lane < vex_lanes(insn); lane++)
		mask |= (uint32_t)_mm_movemask_pd(source.lane[lane].d) << (2 * lane);
	cpu->reg[insn->reg] = mask;
}
DEFINE_INSN(avx_movmskpd)

/* ---- between MMX and XMM ---- */

static inline void sse_movq2dq(struct cpu *cpu, const struct insn *insn)
{
	mmx_check(cpu);
	xmm_t value = {.u64 = {mmx_get(cpu, insn->rm), 0}};
	mmx_use(cpu);
	xmm_set(cpu, insn->reg, value);
}
DEFINE_INSN(sse_movq2dq)

static inline void sse_movdq2q(struct cpu *cpu, const struct insn *insn)
{
	mmx_check(cpu);
	mmx_use(cpu);
	mmx_set(cpu, insn->reg, xmm_get(cpu, insn->rm).u64[0]);
}
DEFINE_INSN(sse_movdq2q)

/* ---- SSE3 duplications ---- */

static inline void sse_movddup(struct cpu *cpu, const struct insn *insn)
{
	xmm_t value = xmm_source(cpu, insn, 8);
	value.u64[1] = value.u64[0];
	xmm_set(cpu, insn->reg, value);
}
DEFINE_INSN(sse_movddup)
/* 128 bits take 64 of memory, 256 bits take all. */
SIMD_LANES_AVX(movddup, vex_source_bytes(cpu, insn, insn->vector_length == 32 ? 32 : 8),
	       value = ((xmm_t){.u64 = {source.u64[0], source.u64[0]}}))

static inline xmm_t duplicate(xmm_t source, unsigned odd)
{
	return (xmm_t){.u32 = {source.u32[odd], source.u32[odd], source.u32[2 + odd], source.u32[2 + odd]}};
}
SIMD_LANES(movsldup, value = duplicate(source, 0))
SIMD_LANES(movshdup, value = duplicate(source, 1))

/* ---- VZEROUPPER, VZEROALL: of eight registers outside 64-bit mode ---- */

static inline void avx_zero(struct cpu *cpu, const struct insn *insn)
{
	unsigned first = insn->vector_length == 32 ? 0 : 2;
	for (unsigned i = 0; i < (cpu_64bit(cpu) ? 16u : 8u); i++)
		for (unsigned n = first; n < 4; n++)
			cpu->vector[4 * i + n] = 0;
}
DEFINE_INSN(avx_zero)

/* ---- MXCSR ---- */

static inline void sse_ldmxcsr(struct cpu *cpu, const struct insn *insn)
{
	uint32_t value = (uint32_t)mem_read(cpu, insn->segment, insn_offset(cpu, insn), 4);
	if (CHECK(MXCSR_RESERVED, value & ~xsave_mxcsr_mask(cpu)))
		cpu_raise(cpu, VECTOR_GP, 0);
	cpu->mxcsr = value;
	mxcsr_load(cpu);
}
DEFINE_INSN(sse_ldmxcsr)

static inline void sse_stmxcsr(struct cpu *cpu, const struct insn *insn)
{
	mxcsr_collect(cpu);
	mem_write(cpu, insn->segment, insn_offset(cpu, insn), cpu->mxcsr, 4);
}
DEFINE_INSN(sse_stmxcsr)
