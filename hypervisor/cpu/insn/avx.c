/*
 * insn/avx.c: what AVX and AVX2 have beyond wider forms of SSE (SDM 2C VBROADCAST to VTESTPS): broadcasts, permutations across
 * lanes, masked moves, gathers, shifts by element.
 */
#include "cpu/checks.h"
#include "cpu/simd.h"

/* ---- broadcasts ---- */

/* The lowest @bytes of the source, everywhere. */
static inline void broadcast(struct cpu *cpu, const struct insn *insn, unsigned bytes)
{
	ymm_t source = vex_source_bytes(cpu, insn, bytes), value;
	for (unsigned at = 0; at < 32; at += bytes)
		memcpy((uint8_t *)&value + at, &source, bytes);
	vex_set(cpu, insn, &value);
}

#define AVX_BROADCAST(bytes)                                                                                           \
	static inline void avx_broadcast##bytes(struct cpu *cpu, const struct insn *insn)                              \
	{                                                                                                              \
		broadcast(cpu, insn, bytes);                                                                           \
	}                                                                                                              \
	DEFINE_INSN(avx_broadcast##bytes)
AVX_BROADCAST(1)
AVX_BROADCAST(2)
AVX_BROADCAST(4)
AVX_BROADCAST(8)
AVX_BROADCAST(16)

/* ---- permutations within lanes ---- */

static inline xmm_t permute_ps(xmm_t source, const uint32_t *control)
{
	xmm_t result;
	for (unsigned i = 0; i < 4; i++)
		result.u32[i] = source.u32[control[i] & 3];
	return result;
}

/* Bit 1 of each quadword chooses. */
static inline xmm_t permute_pd(xmm_t source, xmm_t control)
{
	return (xmm_t){.u64 = {source.u64[control.u64[0] >> 1 & 1], source.u64[control.u64[1] >> 1 & 1]}};
}

SIMD_LANES_AVX(permilps, vex_source(cpu, insn), value = permute_ps(value, source.u32))
SIMD_LANES_AVX(permilpd, vex_source(cpu, insn), value = permute_pd(value, source))
SIMD_LANES_AVX(permilps_ib, vex_source(cpu, insn),
	       value = permute_ps(source, (const uint32_t[]){imm, imm >> 2, imm >> 4, imm >> 6}))
SIMD_LANES_AVX(permilpd_ib, vex_source(cpu, insn),
	       value = ((xmm_t){.u64 = {source.u64[imm >> (2 * lane) & 1], source.u64[imm >> (2 * lane + 1) & 1]}}))

/* ---- permutations across lanes ---- */

/* Four bits for each half: which of the four halves, or zero (SDM 2C VPERM2F128, VPERM2I128). */
static inline void avx_perm2x128(struct cpu *cpu, const struct insn *insn)
{
	ymm_t second = vex_source(cpu, insn), first = ymm_get(cpu, insn->vvvv), value = {0};
	for (unsigned lane = 0; lane < 2; lane++) {
		unsigned control = (unsigned)insn->imm >> (4 * lane);
		if (!(control & 8))
			value.lane[lane] = (control & 2 ? second : first).lane[control & 1];
	}
	vex_set(cpu, insn, &value);
}
DEFINE_INSN(avx_perm2x128)

static inline void avx_insert128(struct cpu *cpu, const struct insn *insn)
{
	ymm_t source = vex_source_bytes(cpu, insn, 16), value = ymm_get(cpu, insn->vvvv);
	value.lane[insn->imm & 1] = source.lane[0];
	vex_set(cpu, insn, &value);
}
DEFINE_INSN(avx_insert128)

static inline void avx_extract128(struct cpu *cpu, const struct insn *insn)
{
	xmm_t value = ymm_get(cpu, insn->reg).lane[insn->imm & 1];
	if (insn_is_memory(insn))
		mem_write_bytes(cpu, insn->segment, insn_offset(cpu, insn), &value, 16, 1);
	else
		vex_set_xmm(cpu, insn->rm, value);
}
DEFINE_INSN(avx_extract128)

/* VPERMQ, VPERMPD: quadwords by the immediate. */
static inline void avx_permq(struct cpu *cpu, const struct insn *insn)
{
	ymm_t source = vex_source(cpu, insn), value;
	for (unsigned i = 0; i < 4; i++) {
		unsigned from = (unsigned)insn->imm >> (2 * i) & 3;
		value.lane[i / 2].u64[i & 1] = source.lane[from / 2].u64[from & 1];
	}
	vex_set(cpu, insn, &value);
}
DEFINE_INSN(avx_permq)

/* VPERMD, VPERMPS: doublewords of the second operand by the indexes in the first. */
static inline void avx_permd(struct cpu *cpu, const struct insn *insn)
{
	ymm_t source = vex_source(cpu, insn), index = ymm_get(cpu, insn->vvvv), value;
	for (unsigned i = 0; i < 8; i++) {
		unsigned from = index.lane[i / 4].u32[i & 3] & 7;
		value.lane[i / 4].u32[i & 3] = source.lane[from / 4].u32[from & 3];
	}
	vex_set(cpu, insn, &value);
}
DEFINE_INSN(avx_permd)

static inline xmm_t blend_dwords(xmm_t value, xmm_t source, unsigned imm)
{
	for (unsigned i = 0; i < 4; i++)
		if (imm >> i & 1)
			value.u32[i] = source.u32[i];
	return value;
}
SIMD_LANES_AVX(pblendd, vex_source(cpu, insn), value = blend_dwords(value, source, imm >> (4 * lane)))

/* ---- shifts, each element by its own count: too far gives zero, or the sign ---- */

#define ELEMENT_SHIFT(name, count_, element, bits, inside, outside)                                                   \
	static inline xmm_t name##_lane(xmm_t value, xmm_t counts)                                                     \
	{                                                                                                              \
		for (unsigned i = 0; i < count_; i++) {                                                                \
			uint64_t count = counts.u##bits[i];                                                            \
			value.element[i] = count < bits ? inside : outside;                                            \
		}                                                                                                      \
		return value;                                                                                          \
	}                                                                                                              \
	SIMD_LANES_AVX(name, vex_source(cpu, insn), value = name##_lane(value, source))
ELEMENT_SHIFT(psllvd, 4, u32, 32, value.u32[i] << count, 0)
ELEMENT_SHIFT(psllvq, 2, u64, 64, value.u64[i] << count, 0)
ELEMENT_SHIFT(psrlvd, 4, u32, 32, value.u32[i] >> count, 0)
ELEMENT_SHIFT(psrlvq, 2, u64, 64, value.u64[i] >> count, 0)
ELEMENT_SHIFT(psravd, 4, s32, 32, value.s32[i] >> count, value.s32[i] >> 31)

/* ---- VTESTPS, VTESTPD: signs alone ---- */

static inline void test_signs(struct cpu *cpu, const struct insn *insn, uint64_t signs)
{
	ymm_t second = vex_source(cpu, insn), first = ymm_get(cpu, insn->reg);
	uint64_t both = 0, second_alone = 0;
	for (unsigned lane = 0; lane < vex_lanes(insn); lane++)
		for (unsigned half = 0; half < 2; half++) {
			both |= second.lane[lane].u64[half] & first.lane[lane].u64[half] & signs;
			second_alone |= second.lane[lane].u64[half] & ~first.lane[lane].u64[half] & signs;
		}
	flags_set(&cpu->lazy, (both ? 0 : RFLAGS_ZF) | (second_alone ? 0 : RFLAGS_CF));
}

static inline void avx_testps(struct cpu *cpu, const struct insn *insn) { test_signs(cpu, insn, 0x8000000080000000ull); }
DEFINE_INSN(avx_testps)
static inline void avx_testpd(struct cpu *cpu, const struct insn *insn) { test_signs(cpu, insn, 1ull << 63); }
DEFINE_INSN(avx_testpd)

/* ---- elements that a mask's signs choose: the others are not touched, and cannot fault (SDM 2C VMASKMOV) ---- */

static inline bool mask_bit(const ymm_t *mask, unsigned index, unsigned bytes)
{
	return ((const uint8_t *)mask)[index * bytes + bytes - 1] >> 7;
}

static inline void masked_load(struct cpu *cpu, const struct insn *insn, unsigned bytes)
{
	ymm_t mask = ymm_get(cpu, insn->vvvv), value = {0};
	uint64_t offset = insn_offset(cpu, insn);
	for (unsigned i = 0; i < insn->vector_length / bytes; i++) {
		if (!mask_bit(&mask, i, bytes))
			continue;
		uint64_t element = mem_read(cpu, insn->segment, offset + i * bytes, bytes);
		memcpy((uint8_t *)&value + i * bytes, &element, bytes);
	}
	vex_set(cpu, insn, &value);
}

static inline void masked_store(struct cpu *cpu, const struct insn *insn, unsigned bytes)
{
	ymm_t mask = ymm_get(cpu, insn->vvvv), value = ymm_get(cpu, insn->reg);
	uint64_t offset = insn_offset(cpu, insn), element = 0;
	for (unsigned i = 0; i < insn->vector_length / bytes; i++)
		if (mask_bit(&mask, i, bytes))
			mem_check_write(cpu, insn->segment, offset + i * bytes, bytes);
	for (unsigned i = 0; i < insn->vector_length / bytes; i++) {
		if (!mask_bit(&mask, i, bytes))
			continue;
		memcpy(&element, (const uint8_t *)&value + i * bytes, bytes);
		mem_write(cpu, insn->segment, offset + i * bytes, element, bytes);
	}
}

#define AVX_MASKED(bytes)                                                                                              \
	static inline void avx_maskmov##bytes(struct cpu *cpu, const struct insn *insn)                                \
	{                                                                                                              \
		masked_load(cpu, insn, bytes);                                                                         \
	}                                                                                                              \
	DEFINE_INSN(avx_maskmov##bytes)                                                                                \
	static inline void avx_maskmov##bytes##_store(struct cpu *cpu, const struct insn *insn)                        \
	{                                                                                                              \
		masked_store(cpu, insn, bytes);                                                                        \
	}                                                                                                              \
	DEFINE_INSN(avx_maskmov##bytes##_store)
AVX_MASKED(4)
AVX_MASKED(8)

/* ---- gathers (SDM 2C VPGATHERDD) ---- */

static inline int64_t gather_index(const ymm_t *indexes, unsigned i, unsigned bytes)
{
	int64_t wide = 0;
	int32_t narrow = 0;
	if (bytes == 8) {
		memcpy(&wide, (const uint8_t *)indexes + 8 * i, 8);
		return wide;
	}
	memcpy(&narrow, (const uint8_t *)indexes + 4 * i, 4);
	return narrow;
}

/*
 * Elements are loaded from the lowest up; each that is loaded loses its mask, so that what a fault interrupts can be
 * resumed. What lies above the elements becomes zero in both registers.
 */
static inline void gather(struct cpu *cpu, const struct insn *insn, unsigned index_bytes, unsigned bytes)
{
	unsigned widest = index_bytes > bytes ? index_bytes : bytes, count = insn->vector_length / widest;
	uint8_t *to = (uint8_t *)&cpu->vector[4 * insn->reg], *mask = (uint8_t *)&cpu->vector[4 * insn->vvvv];
	ymm_t indexes = ymm_get(cpu, insn->index), masks = ymm_get(cpu, insn->vvvv);

	if (CHECK(GATHER_DISTINCT,
		  insn->reg == insn->vvvv || insn->reg == insn->index || insn->vvvv == insn->index))
		cpu_raise(cpu, VECTOR_UD, 0);
	for (unsigned i = 0; i < count; i++) {
		uint64_t index = (uint64_t)gather_index(&indexes, i, index_bytes) << insn->scale;
		uint64_t offset = cpu->reg[insn->base] + index + (uint64_t)insn->disp;
		if (mask_bit(&masks, i, bytes)) {
			offset = offset << insn->address_shift >> insn->address_shift;
			uint64_t element = mem_read(cpu, insn->segment, offset, bytes);
			memcpy(to + i * bytes, &element, bytes);
		}
		memset(mask + i * bytes, 0, bytes);
	}
	memset(to + count * bytes, 0, 32 - count * bytes);
	memset(mask, 0, 32);
}

#define AVX_GATHER(name, index_bytes, bytes)                                                                           \
	static inline void avx_##name(struct cpu *cpu, const struct insn *insn)                                        \
	{                                                                                                              \
		gather(cpu, insn, index_bytes, bytes);                                                                 \
	}                                                                                                              \
	DEFINE_INSN(avx_##name)
AVX_GATHER(gatherdd, 4, 4)
AVX_GATHER(gatherdq, 4, 8)
AVX_GATHER(gatherqd, 8, 4)
AVX_GATHER(gatherqq, 8, 8)
