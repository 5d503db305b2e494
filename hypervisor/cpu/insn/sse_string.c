/*
 * insn/sse_string.c: PCMPESTRI, PCMPESTRM, PCMPISTRI, PCMPISTRM (SDM 2B 4.1): comparisons of two strings of bytes or
 * words, as the manual builds them up: lengths, all pairs, aggregation, polarity, output.
 */
#include "cpu/simd.h"

/* The immediate's fields (SDM 2B 4.1.2 to 4.1.6). */
enum { FORMAT_WORDS = 1, FORMAT_SIGNED = 2, OUTPUT_BIT = 0x40 };
enum aggregation { EQUAL_ANY, RANGES, EQUAL_EACH, EQUAL_ORDERED };

struct comparison {
	unsigned count;     /* elements in a register: 16 or 8 */
	unsigned length[2]; /* valid ones of the first and second operand */
	int element[2][16];
	unsigned result;    /* IntRes2 */
};

static void load_elements(struct comparison *c, unsigned which, xmm_t value, unsigned imm)
{
	for (unsigned i = 0; i < c->count; i++) {
		if (imm & FORMAT_WORDS)
			c->element[which][i] = imm & FORMAT_SIGNED ? value.s16[i] : value.u16[i];
		else
			c->element[which][i] = imm & FORMAT_SIGNED ? value.s8[i] : value.u8[i];
	}
}

/* Implicit length: up to the first zero element. */
static unsigned length_implicit(const struct comparison *c, unsigned which)
{
	unsigned i = 0;
	while (i < c->count && c->element[which][i])
		i++;
	return i;
}

/* Explicit length: the magnitude of a register, saturated at the number of elements. */
static unsigned length_explicit(const struct comparison *c, int64_t value)
{
	uint64_t magnitude = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
	return magnitude > c->count ? c->count : (unsigned)magnitude;
}

/* One bit of IntRes1; first operand element @i where the aggregation looks at one, second operand element @j. */
static bool pair_equal_ordered(const struct comparison *c, unsigned i, unsigned j)
{
	if (i >= c->length[0])
		return true;
	return j < c->length[1] && c->element[0][i] == c->element[1][j];
}

static bool bit_of(const struct comparison *c, enum aggregation how, unsigned j)
{
	bool valid = j < c->length[1];
	switch (how) {
	case EQUAL_ANY:
		for (unsigned i = 0; valid && i < c->length[0]; i++)
			if (c->element[0][i] == c->element[1][j])
				return true;
		return false;
	case RANGES:
		for (unsigned i = 0; valid && i + 1 < c->length[0]; i += 2)
			if (c->element[0][i] <= c->element[1][j] && c->element[1][j] <= c->element[0][i + 1])
				return true;
		return false;
	case EQUAL_EACH:
		if (!valid || j >= c->length[0])
			return !valid && j >= c->length[0];
		return c->element[0][j] == c->element[1][j];
	case EQUAL_ORDERED:
		for (unsigned i = 0; i + j < c->count; i++)
			if (!pair_equal_ordered(c, i, i + j))
				return false;
		return true;
	}
	return false;
}

static void compare(struct comparison *c, unsigned imm)
{
	unsigned bits = 0, all = (1u << c->count) - 1;
	for (unsigned j = 0; j < c->count; j++)
		bits |= (unsigned)bit_of(c, imm >> 2 & 3, j) << j;
	unsigned polarity = imm >> 4 & 3;
	if (polarity == 1)
		bits = ~bits & all;
	else if (polarity == 3) /* only the valid elements of the second operand are negated */
		bits ^= (1u << c->length[1]) - 1;
	c->result = bits;
}

static void set_flags(struct cpu *cpu, const struct comparison *c)
{
	flags_set(&cpu->lazy, (c->result ? RFLAGS_CF : 0) | (c->length[1] < c->count ? RFLAGS_ZF : 0) |
				      (c->length[0] < c->count ? RFLAGS_SF : 0) |
				      (c->result & 1 ? RFLAGS_OF : 0));
}

static void give_index(struct cpu *cpu, const struct comparison *c, unsigned imm)
{
	unsigned index = c->count;
	if (c->result)
		index = imm & OUTPUT_BIT ? 31u - (unsigned)__builtin_clz(c->result) : (unsigned)__builtin_ctz(c->result);
	cpu->reg[RCX] = index;
}

static void give_mask(struct cpu *cpu, const struct comparison *c, unsigned imm, bool vex)
{
	xmm_t mask = {.u64 = {0, 0}};
	if (!(imm & OUTPUT_BIT)) {
		mask.u64[0] = c->result;
	} else {
		for (unsigned i = 0; i < c->count; i++) {
			if (imm & FORMAT_WORDS)
				mask.u16[i] = c->result >> i & 1 ? 0xffff : 0;
			else
				mask.u8[i] = c->result >> i & 1 ? 0xff : 0;
		}
	}
	simd_set(cpu, 0, mask, vex);
}

/* The second operand need not be aligned (SDM 2B 4.1). */
static inline xmm_t second_operand(struct cpu *cpu, const struct insn *insn)
{
	xmm_t value;
	if (insn_is_memory(insn))
		mem_read_bytes(cpu, insn->segment, insn_offset(cpu, insn), &value, 16, 1);
	else
		value = xmm_get(cpu, insn->rm);
	return value;
}

static inline void compare_strings(struct cpu *cpu, const struct insn *insn, bool by_registers, bool index)
{
	unsigned imm = (unsigned)insn->imm & 0xff;
	xmm_t second = second_operand(cpu, insn);
	struct comparison c = {.count = imm & FORMAT_WORDS ? 8 : 16};
	load_elements(&c, 0, xmm_get(cpu, insn->reg), imm);
	load_elements(&c, 1, second, imm);
	if (by_registers) {
		bool wide = insn->prefixes & PREFIX_REX_W;
		c.length[0] = length_explicit(&c, wide ? (int64_t)cpu->reg[RAX] : (int32_t)cpu->reg[RAX]);
		c.length[1] = length_explicit(&c, wide ? (int64_t)cpu->reg[RDX] : (int32_t)cpu->reg[RDX]);
	} else {
		c.length[0] = length_implicit(&c, 0);
		c.length[1] = length_implicit(&c, 1);
	}
	compare(&c, imm);
	if (index)
		give_index(cpu, &c, imm);
	else
		give_mask(cpu, &c, imm, insn->vector_length);
	set_flags(cpu, &c);
}

static inline void sse_pcmpestri(struct cpu *cpu, const struct insn *insn) { compare_strings(cpu, insn, true, true); }
DEFINE_INSN(sse_pcmpestri)
static inline void sse_pcmpestrm(struct cpu *cpu, const struct insn *insn) { compare_strings(cpu, insn, true, false); }
DEFINE_INSN(sse_pcmpestrm)
static inline void sse_pcmpistri(struct cpu *cpu, const struct insn *insn) { compare_strings(cpu, insn, false, true); }
DEFINE_INSN(sse_pcmpistri)
static inline void sse_pcmpistrm(struct cpu *cpu, const struct insn *insn) { compare_strings(cpu, insn, false, false); }
DEFINE_INSN(sse_pcmpistrm)
