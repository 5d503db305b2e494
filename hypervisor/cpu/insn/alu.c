/*
 * alu.c: addition, subtraction, logic and comparison (SDM 2A, 2B: ADD OR ADC SBB AND SUB XOR
 * CMP TEST NOT NEG INC DEC XADD CMPXCHG ADCX ADOX).
 */
#include "cpu/insn/operand.h"

/* In the order of bits 5:3 of the opcode, and of ModRM.reg of 80h to 83h. */
enum operation { ADD, OR, ADC, SBB, AND, SUB, XOR, CMP };

/* @a operation @b, both truncated to @width; sets the status flags. */
HANDLER_INLINE uint64_t compute(struct cpu *cpu, enum operation operation, uint64_t a, uint64_t b,
				unsigned width)
{
	struct lazy_flags *lazy = &cpu->lazy;
	uint64_t result;

	switch (operation) {
	case ADD: return flags_add(lazy, a, b, false, 8 * width);
	case ADC: return flags_add(lazy, a, b, flags_cf(lazy), 8 * width);
	case SBB: return flags_sub(lazy, a, b, flags_cf(lazy), 8 * width);
	case AND: result = a & b; break;
	case OR: result = a | b; break;
	case XOR: result = a ^ b; break;
	default: return flags_sub(lazy, a, b, false, 8 * width);
	}
	flags_set_logic(lazy, result, 8 * width);
	return result;
}

/* Destination ModRM, source @b. */
HANDLER_INLINE bool alu_e(struct cpu *cpu, const struct insn *insn, unsigned width, enum place place,
			  enum operation operation, uint64_t b)
{
	struct mem_modify modify;
	uint64_t a;

	if (operation == CMP) {
		if (!rm_load(cpu, insn, width, place, &a))
			return false;
		compute(cpu, CMP, a, b, width);
		return true;
	}
	if (!rm_update_begin(cpu, insn, width, place, &modify, &a))
		return false;
	rm_update_end(cpu, insn, compute(cpu, operation, a, b, width), width, place, &modify);
	return true;
}

HANDLER_INLINE bool alu_g(struct cpu *cpu, const struct insn *insn, unsigned width, enum place place,
			  enum operation operation)
{
	uint64_t b, result;

	if (!rm_load(cpu, insn, width, place, &b))
		return false;
	result = compute(cpu, operation, reg_read(cpu, insn->reg, width), b, width);
	if (operation != CMP)
		reg_write(cpu, insn->reg, result, width);
	return true;
}

HANDLER_INLINE void alu_a(struct cpu *cpu, const struct insn *insn, unsigned width, enum operation operation)
{
	uint64_t b = truncate((uint64_t)insn->imm, width);
	uint64_t result = compute(cpu, operation, reg_read(cpu, RAX, width), b, width);

	if (operation != CMP)
		reg_write(cpu, RAX, result, width);
}

/* The forms Ex,Gx; Gx,Ex; Ex,Ix; AL/rAX,Ix. */
#define DEFINE_ALU(name, operation)                                                                          \
	HANDLER_INLINE bool name##_eg(struct cpu *cpu, const struct insn *insn, unsigned width,              \
				      enum place place)                                                      \
	{                                                                                                    \
		return alu_e(cpu, insn, width, place, operation, reg_read(cpu, insn->reg, width));           \
	}                                                                                                    \
	HANDLER_INLINE bool name##_ge(struct cpu *cpu, const struct insn *insn, unsigned width,              \
				      enum place place)                                                      \
	{                                                                                                    \
		return alu_g(cpu, insn, width, place, operation);                                            \
	}                                                                                                    \
	HANDLER_INLINE bool name##_ei(struct cpu *cpu, const struct insn *insn, unsigned width,              \
				      enum place place)                                                      \
	{                                                                                                    \
		return alu_e(cpu, insn, width, place, operation, truncate((uint64_t)insn->imm, width));      \
	}                                                                                                    \
	HANDLER_INLINE void name##_ai(struct cpu *cpu, const struct insn *insn, unsigned width)              \
	{                                                                                                    \
		alu_a(cpu, insn, width, operation);                                                          \
	}                                                                                                    \
	DEFINE_FAST_INSN_RM(name##_eg)                                                                       \
	DEFINE_FAST_INSN_RM(name##_ge)                                                                       \
	DEFINE_FAST_INSN_RM(name##_ei)                                                                       \
	DEFINE_INSN_W(name##_ai)

DEFINE_ALU(add, ADD)
DEFINE_ALU(or, OR)
DEFINE_ALU(adc, ADC)
DEFINE_ALU(sbb, SBB)
DEFINE_ALU(and, AND)
DEFINE_ALU(sub, SUB)
DEFINE_ALU(xor, XOR)
DEFINE_ALU(cmp, CMP)

/* ---- TEST ---- */

HANDLER_INLINE bool test_e(struct cpu *cpu, const struct insn *insn, unsigned width, enum place place,
			   uint64_t b)
{
	uint64_t a;

	if (!rm_load(cpu, insn, width, place, &a))
		return false;
	compute(cpu, AND, a, b, width);
	return true;
}

HANDLER_INLINE bool test_eg(struct cpu *cpu, const struct insn *insn, unsigned width, enum place place)
{
	return test_e(cpu, insn, width, place, reg_read(cpu, insn->reg, width));
}
DEFINE_FAST_INSN_RM(test_eg)

HANDLER_INLINE bool test_ei(struct cpu *cpu, const struct insn *insn, unsigned width, enum place place)
{
	return test_e(cpu, insn, width, place, truncate((uint64_t)insn->imm, width));
}
DEFINE_FAST_INSN_RM(test_ei)

HANDLER_INLINE void test_ai(struct cpu *cpu, const struct insn *insn, unsigned width)
{
	compute(cpu, AND, reg_read(cpu, RAX, width), truncate((uint64_t)insn->imm, width), width);
}
DEFINE_INSN_W(test_ai)

/* ---- one operand ---- */

HANDLER_INLINE void not_e(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory)
{
	struct mem_modify modify;
	uint64_t a = rm_modify_begin(cpu, insn, width, memory, &modify);

	rm_modify_end(cpu, insn, truncate(~a, width), width, memory, &modify);
}
DEFINE_INSN_RM(not_e)

HANDLER_INLINE void neg_e(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory)
{
	struct mem_modify modify;
	uint64_t a = rm_modify_begin(cpu, insn, width, memory, &modify);

	rm_modify_end(cpu, insn, compute(cpu, SUB, 0, a, width), width, memory, &modify);
}
DEFINE_INSN_RM(neg_e)

/* INC and DEC leave CF alone. */
HANDLER_INLINE uint64_t step(struct cpu *cpu, enum operation operation, uint64_t a, unsigned width)
{
	const uint64_t top = 1ull << 63;
	uint64_t cf = cpu->lazy.carry & top;
	uint64_t result = compute(cpu, operation, a, 1, width);
	uint64_t of = (cpu->lazy.carry ^ cpu->lazy.carry << 1) & top;

	cpu->lazy.carry = cf | (cf ^ of) >> 1;
	return result;
}

HANDLER_INLINE bool step_e(struct cpu *cpu, const struct insn *insn, unsigned width, enum place place,
			   enum operation operation)
{
	struct mem_modify modify;
	uint64_t a;

	if (!rm_update_begin(cpu, insn, width, place, &modify, &a))
		return false;
	rm_update_end(cpu, insn, step(cpu, operation, a, width), width, place, &modify);
	return true;
}

HANDLER_INLINE bool inc_e(struct cpu *cpu, const struct insn *insn, unsigned width, enum place place)
{
	return step_e(cpu, insn, width, place, ADD);
}
DEFINE_FAST_INSN_RM(inc_e)

HANDLER_INLINE bool dec_e(struct cpu *cpu, const struct insn *insn, unsigned width, enum place place)
{
	return step_e(cpu, insn, width, place, SUB);
}
DEFINE_FAST_INSN_RM(dec_e)

HANDLER_INLINE void inc_z(struct cpu *cpu, const struct insn *insn, unsigned width)
{
	reg_write(cpu, insn->reg, step(cpu, ADD, reg_read(cpu, insn->reg, width), width), width);
}
DEFINE_INSN_W(inc_z)

HANDLER_INLINE void dec_z(struct cpu *cpu, const struct insn *insn, unsigned width)
{
	reg_write(cpu, insn->reg, step(cpu, SUB, reg_read(cpu, insn->reg, width), width), width);
}
DEFINE_INSN_W(dec_z)

/* ---- exchange and operate ---- */

/* The sum is written last: XADD of a register with itself leaves the sum. */
HANDLER_INLINE void xadd_eg(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory)
{
	struct mem_modify modify;
	uint64_t a = rm_modify_begin(cpu, insn, width, memory, &modify);
	uint64_t sum = compute(cpu, ADD, a, reg_read(cpu, insn->reg, width), width);

	reg_write(cpu, insn->reg, a, width);
	rm_modify_end(cpu, insn, sum, width, memory, &modify);
}
DEFINE_INSN_RM(xadd_eg)

/* A memory destination is written in either case (SDM 2A CMPXCHG). */
HANDLER_INLINE void cmpxchg_eg(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory)
{
	struct mem_modify modify;
	uint64_t a = rm_modify_begin(cpu, insn, width, memory, &modify);
	uint64_t source = reg_read(cpu, insn->reg, width);
	bool equal = compute(cpu, CMP, reg_read(cpu, RAX, width), a, width) == 0;

	if (memory || equal)
		rm_modify_end(cpu, insn, equal ? source : a, width, memory, &modify);
	if (!equal)
		reg_write(cpu, RAX, a, width);
}
DEFINE_INSN_RM(cmpxchg_eg)

HANDLER_INLINE uint64_t pair(const struct cpu *cpu, enum gpr high, enum gpr low)
{
	return cpu->reg[high] << 32 | (uint32_t)cpu->reg[low];
}

static inline void cmpxchg8b(struct cpu *cpu, const struct insn *insn)
{
	struct mem_modify modify;
	uint64_t a = rm_modify_begin(cpu, insn, 8, true, &modify);
	bool equal = a == pair(cpu, RDX, RAX);
	uint64_t status = flags_get(&cpu->lazy) & ~(uint64_t)RFLAGS_ZF;

	rm_modify_end(cpu, insn, equal ? pair(cpu, RCX, RBX) : a, 8, true, &modify);
	flags_set(&cpu->lazy, equal ? status | RFLAGS_ZF : status);
	if (equal)
		return;
	reg_write(cpu, RAX, a, 4);
	reg_write(cpu, RDX, a >> 32, 4);
}
DEFINE_INSN(cmpxchg8b)

/* The operand must be aligned, whatever CR0.AM says (SDM 2A CMPXCHG16B). */
static inline void cmpxchg16b(struct cpu *cpu, const struct insn *insn)
{
	uint64_t offset = insn_offset(cpu, insn), old[2];

	if (segment_linear(cpu, insn->segment, offset, sizeof(old), ACCESS_WRITE) % sizeof(old))
		cpu_raise(cpu, VECTOR_GP, 0);
	mem_check_write(cpu, insn->segment, offset, sizeof(old));
	mem_read_bytes(cpu, insn->segment, offset, old, sizeof(old), 1);

	bool equal = old[0] == cpu->reg[RAX] && old[1] == cpu->reg[RDX];
	uint64_t new[2] = {equal ? cpu->reg[RBX] : old[0], equal ? cpu->reg[RCX] : old[1]};
	uint64_t status = flags_get(&cpu->lazy) & ~(uint64_t)RFLAGS_ZF;

	mem_write_bytes(cpu, insn->segment, offset, new, sizeof(new), 1);
	flags_set(&cpu->lazy, equal ? status | RFLAGS_ZF : status);
	if (equal)
		return;
	cpu->reg[RAX] = old[0];
	cpu->reg[RDX] = old[1];
}
DEFINE_INSN(cmpxchg16b)

/* ---- ADX: sums that touch CF alone, or OF alone ---- */

HANDLER_INLINE uint64_t sum_carry(uint64_t a, uint64_t b, bool carry_in, unsigned width, bool *carry_out)
{
	uint64_t sum = truncate(a + b + carry_in, width);

	*carry_out = ((a & b) | ((a | b) & ~sum)) >> (8 * width - 1);
	return sum;
}

HANDLER_INLINE void adcx_ge(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory)
{
	uint64_t b = rm_read(cpu, insn, width, memory);
	bool carry;
	uint64_t sum = sum_carry(reg_read(cpu, insn->reg, width), b, flags_cf(&cpu->lazy), width, &carry);

	flags_set_cf_of(&cpu->lazy, carry, flags_of(&cpu->lazy));
	reg_write(cpu, insn->reg, sum, width);
}
DEFINE_INSN_RM(adcx_ge)

HANDLER_INLINE void adox_ge(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory)
{
	uint64_t b = rm_read(cpu, insn, width, memory);
	bool carry;
	uint64_t sum = sum_carry(reg_read(cpu, insn->reg, width), b, flags_of(&cpu->lazy), width, &carry);

	flags_set_cf_of(&cpu->lazy, flags_cf(&cpu->lazy), carry);
	reg_write(cpu, insn->reg, sum, width);
}
DEFINE_INSN_RM(adox_ge)
