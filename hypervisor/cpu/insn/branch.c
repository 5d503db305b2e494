/*
 * branch.c: near transfers (SDM 2A CALL JMP Jcc LOOP, 2B RET; APM 3).
 *
 * The operand size says how much of the target is kept. A target outside the code segment, or not
 * canonical, is #GP(0) at the branch, and then neither RSP nor a count has changed. The first
 * access that can fault is made after that check, but for RET, which must read its target.
 */
#include "cpu/insn/operand.h"

/* Out of line: 64-bit targets beyond the 48-bit halves. */
static __attribute__((noinline)) void target_check_canonical(struct cpu *cpu, uint64_t target)
{
	if (!linear_is_canonical(cpu, target))
		cpu_raise(cpu, VECTOR_GP, 0);
}

/* @target as the branch takes it, checked. */
HANDLER_INLINE uint64_t branch_target(struct cpu *cpu, uint64_t target, unsigned width)
{
	if (width == 8) {
		/* Bits 63:47 are alike: 0 and -1 become 1 and 0. */
		if (unlikely((uint64_t)((int64_t)target >> 47) + 1 > 1))
			target_check_canonical(cpu, target);
		return target;
	}
	target = truncate(target, width);
	if (unlikely(target >= cpu->code_end))
		cpu_raise(cpu, VECTOR_GP, 0);
	return target;
}

HANDLER_INLINE uint64_t relative_target(struct cpu *cpu, const struct insn *insn, unsigned width)
{
	return branch_target(cpu, insn_next_rip(cpu, insn) + (uint64_t)insn->imm, width);
}

/* ---- conditional ---- */

HANDLER_INLINE void jcc(struct cpu *cpu, const struct insn *insn, unsigned width, enum condition condition)
{
	if (condition_holds(cpu, condition))
		cpu->rip = relative_target(cpu, insn, width);
	else
		cpu->rip = insn_next_rip(cpu, insn);
}

#define CONDITION(capitals, letters) DEFINE_BRANCH_CC(jcc, jcc_##letters, CC_##capitals)
CONDITIONS(CONDITION)
#undef CONDITION

/* The address size says which part of rCX counts. */
HANDLER_INLINE uint64_t counter(const struct cpu *cpu, const struct insn *insn)
{
	return cpu->reg[RCX] << insn->address_shift >> insn->address_shift;
}

HANDLER_INLINE void loop_if(struct cpu *cpu, const struct insn *insn, unsigned width, bool condition)
{
	uint64_t count = (counter(cpu, insn) - 1) << insn->address_shift >> insn->address_shift;

	cpu->rip = count && condition ? relative_target(cpu, insn, width) : insn_next_rip(cpu, insn);
	reg_write(cpu, RCX, count, insn->address_width);
}

HANDLER_INLINE void loop(struct cpu *cpu, const struct insn *insn, unsigned width)
{
	loop_if(cpu, insn, width, true);
}
DEFINE_BRANCH_W(loop)

HANDLER_INLINE void loope(struct cpu *cpu, const struct insn *insn, unsigned width)
{
	loop_if(cpu, insn, width, flags_zf(&cpu->lazy));
}
DEFINE_BRANCH_W(loope)

HANDLER_INLINE void loopne(struct cpu *cpu, const struct insn *insn, unsigned width)
{
	loop_if(cpu, insn, width, !flags_zf(&cpu->lazy));
}
DEFINE_BRANCH_W(loopne)

HANDLER_INLINE void jcxz(struct cpu *cpu, const struct insn *insn, unsigned width)
{
	cpu->rip = counter(cpu, insn) == 0 ? relative_target(cpu, insn, width) : insn_next_rip(cpu, insn);
}
DEFINE_BRANCH_W(jcxz)

/* ---- JMP, CALL, RET ---- */

HANDLER_INLINE void jmp_j(struct cpu *cpu, const struct insn *insn, unsigned width)
{
	cpu->rip = relative_target(cpu, insn, width);
}
DEFINE_BRANCH_W(jmp_j)

HANDLER_INLINE void jmp_e(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory)
{
	cpu->rip = branch_target(cpu, rm_read(cpu, insn, width, memory), width);
}
DEFINE_BRANCH_RM(jmp_e)

HANDLER_INLINE void call_j(struct cpu *cpu, const struct insn *insn, unsigned width)
{
	uint64_t target = relative_target(cpu, insn, width);

	stack_push(cpu, insn_next_rip(cpu, insn), width);
	cpu->rip = target;
}
DEFINE_BRANCH_W(call_j)

HANDLER_INLINE void call_e(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory)
{
	uint64_t target = branch_target(cpu, rm_read(cpu, insn, width, memory), width);

	stack_push(cpu, insn_next_rip(cpu, insn), width);
	cpu->rip = target;
}
DEFINE_BRANCH_RM(call_e)

/* @release: bytes of parameters above the return address. */
HANDLER_INLINE void return_near(struct cpu *cpu, unsigned width, uint64_t release)
{
	uint64_t old = cpu->reg[RSP], pointer = old + width + release;
	uint64_t target = mem_read(cpu, SS, old & cpu->stack_mask, width);

	cpu->rip = branch_target(cpu, target, width);
	cpu->reg[RSP] = old ^ ((old ^ pointer) & cpu->stack_mask);
}

HANDLER_INLINE void ret(struct cpu *cpu, const struct insn *insn, unsigned width)
{
	(void)insn;
	return_near(cpu, width, 0);
}
DEFINE_BRANCH_W(ret)

HANDLER_INLINE void ret_i(struct cpu *cpu, const struct insn *insn, unsigned width)
{
	return_near(cpu, width, (uint16_t)insn->imm);
}
DEFINE_BRANCH_W(ret_i)
