/*
 * insn/sse_move.c: moves between XMM registers, memory and general registers; state management
 * (SDM 2 MOVAPS and others, LDMXCSR, STMXCSR).
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

/* ---- scalars: from memory the rest becomes zero, between registers it stays ---- */

#define SSE_SCALAR(name, bytes)                                                            \
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
	DEFINE_INSN(sse_##name##_store)

SSE_SCALAR(movss, 4)
SSE_SCALAR(movsd, 8)

/* ---- halves ---- */

/* MOVLPS, MOVLPD from memory; MOVHLPS between registers. */
static inline void sse_movlps(struct cpu *cpu, const struct insn *insn)
{
	xmm_t source = {.u64 = {0, 0}};
	if (insn_is_memory(insn))
		source = xmm_source_low(cpu, insn, 8);
	else
		source.u64[0] = xmm_get(cpu, insn->rm).u64[1];
	xmm_set_low(cpu, insn->reg, source, 8);
}
DEFINE_INSN(sse_movlps)

/* MOVHPS, MOVHPD from memory; MOVLHPS between registers. */
static inline void sse_movhps(struct cpu *cpu, const struct insn *insn)
{
	xmm_t source = xmm_source(cpu, insn, 8), value = xmm_get(cpu, insn->reg);
	value.u64[1] = source.u64[0];
	xmm_set(cpu, insn->reg, value);
}
DEFINE_INSN(sse_movhps)

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
static inline void sse_movq(struct cpu *cpu, const struct insn *insn)
{
	xmm_t value = xmm_source(cpu, insn, 8);
	value.u64[1] = 0;
	xmm_set(cpu, insn->reg, value);
}
DEFINE_INSN(sse_movq)

static inline void sse_movq_store(struct cpu *cpu, const struct insn *insn)
{
	xmm_t value = {.u64 = {xmm_get(cpu, insn->reg).u64[0], 0}};
	if (insn_is_memory(insn))
		store(cpu, insn, &value, 8, true);
	else
		xmm_set(cpu, insn->rm, value);
}
DEFINE_INSN(sse_movq_store)

/* ---- general registers ---- */

static inline void sse_movd(struct cpu *cpu, const struct insn *insn) /* MOVD, MOVQ xmm, r/m */
{
	unsigned bytes = insn->width == 8 ? 8 : 4;
	xmm_t value = {.u64 = {0, 0}};
	value.u64[0] = insn_is_memory(insn) ? mem_read(cpu, insn->segment, insn_offset(cpu, insn), bytes)
					    : reg_read(cpu, insn->rm, bytes);
	xmm_set(cpu, insn->reg, value);
}
DEFINE_INSN(sse_movd)

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

static inline void sse_movsldup(struct cpu *cpu, const struct insn *insn)
{
	xmm_t value = xmm_source(cpu, insn, 16);
	value.u32[1] = value.u32[0];
	value.u32[3] = value.u32[2];
	xmm_set(cpu, insn->reg, value);
}
DEFINE_INSN(sse_movsldup)

static inline void sse_movshdup(struct cpu *cpu, const struct insn *insn)
{
	xmm_t value = xmm_source(cpu, insn, 16);
	value.u32[0] = value.u32[1];
	value.u32[2] = value.u32[3];
	xmm_set(cpu, insn->reg, value);
}
DEFINE_INSN(sse_movshdup)

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
