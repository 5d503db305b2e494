/*
 * branch.c: near transfers (SDM 2A CALL JMP Jcc LOOP, 2B RET; APM 3).
 *
 * The operand size says how much of the target is kept. A target outside the code segment, or not
 * canonical, is #GP(0) at the branch, and then neither RSP nor a count has changed. The first
 * access that can fault is made after that check, but for RET, which must read its target.
 */
#include "cpu/insn/operand.h"

/*
 * *@target as the branch takes it, checked. A fast half answers false where it does not lie in the
 * 48-bit halves or in the segment.
 */
HANDLER_INLINE bool branch_check(struct cpu *cpu, uint64_t *target, unsigned width, enum place place)
{
	bool inside;

	*target = truncate(*target, width);
	if (width < 8)
		inside = *target < cpu->code_end;
	else if (place == PLACE_FAST)
		/* Bits 63:47 are alike: 0 and -1 become 1 and 0. */
		inside = (uint64_t)((int64_t)*target >> 47) + 1 <= 1;
	else
		inside = linear_is_canonical(cpu, *target);
	if (place != PLACE_FAST && unlikely(!inside))
		cpu_raise(cpu, VECTOR_GP, 0);
	return inside;
}

/* The target of a branch whose immediate is a distance. */
HANDLER_INLINE bool relative_target(struct cpu *cpu, const struct insn *insn, unsigned width,
				    enum place place, uint64_t *target)
{
	*target = insn_next_rip(cpu, insn) + (uint64_t)insn->imm;
	return branch_check(cpu, target, width, place);
}

HANDLER_INLINE bool jump_relative_if(struct cpu *cpu, const struct insn *insn, unsigned width,
				     enum place place, bool taken)
{
	uint64_t target;

	if (!taken)
		target = insn_next_rip(cpu, insn);
	else if (!relative_target(cpu, insn, width, place, &target))
		return false;
	cpu->rip = target;
	return true;
}

/* ---- conditional ---- */

HANDLER_INLINE bool jcc(struct cpu *cpu, const struct insn *insn, unsigned width, enum place place,
			enum condition condition)
{
	return jump_relative_if(cpu, insn, width, place, condition_holds(cpu, condition));
}

#define CONDITION(capitals, letters) DEFINE_BRANCH_CC(jcc, jcc_##letters, CC_##capitals)
CONDITIONS(CONDITION)
#undef CONDITION

/* The address size says which part of rCX counts. */
HANDLER_INLINE uint64_t counter(const struct cpu *cpu, const struct insn *insn)
{
	return cpu->reg[RCX] << insn->address_shift >> insn->address_shift;
}

HANDLER_INLINE bool loop_if(struct cpu *cpu, const struct insn *insn, unsigned width, enum place place,
			    bool condition)
{
	uint64_t count = (counter(cpu, insn) - 1) << insn->address_shift >> insn->address_shift;

	if (!jump_relative_if(cpu, insn, width, place, count && condition))
		return false;
	reg_write(cpu, RCX, count, insn->address_width);
	return true;
}

HANDLER_INLINE bool loop(struct cpu *cpu, const struct insn *insn, unsigned width, enum place place)
{
	return loop_if(cpu, insn, width, place, true);
}
DEFINE_FAST_BRANCH_W(loop)

HANDLER_INLINE bool loope(struct cpu *cpu, const struct insn *insn, unsigned width, enum place place)
{
	return loop_if(cpu, insn, width, place, flags_zf(&cpu->lazy));
}
DEFINE_FAST_BRANCH_W(loope)

HANDLER_INLINE bool loopne(struct cpu *cpu, const struct insn *insn, unsigned width, enum place place)
{
	return loop_if(cpu, insn, width, place, !flags_zf(&cpu->lazy));
}
DEFINE_FAST_BRANCH_W(loopne)

HANDLER_INLINE bool jcxz(struct cpu *cpu, const struct insn *insn, unsigned width, enum place place)
{
	return jump_relative_if(cpu, insn, width, place, counter(cpu, insn) == 0);
}
DEFINE_FAST_BRANCH_W(jcxz)

/* ---- JMP, CALL, RET ---- */

HANDLER_INLINE bool jmp_j(struct cpu *cpu, const struct insn *insn, unsigned width, enum place place)
{
	return jump_relative_if(cpu, insn, width, place, true);
}
DEFINE_FAST_BRANCH_W(jmp_j)

/* Where JMP and CALL by register or memory go. */
HANDLER_INLINE uint64_t indirect_target(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory)
{
	uint64_t target = rm_read(cpu, insn, width, memory);

	branch_check(cpu, &target, width, PLACE_MEMORY);
	return target;
}

HANDLER_INLINE void jmp_e(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory)
{
	cpu->rip = indirect_target(cpu, insn, width, memory);
}
DEFINE_BRANCH_RM(jmp_e)

HANDLER_INLINE bool call(struct cpu *cpu, const struct insn *insn, unsigned width, enum place place,
			 uint64_t target)
{
	uint64_t pointer = cpu->reg[RSP] - width;

	if (!memory_store(cpu, SS, pointer & cpu->stack_mask, insn_next_rip(cpu, insn), width, place))
		return false;
	cpu->reg[RSP] = stack_pointer(cpu, pointer);
	cpu->rip = target;
	return true;
}

HANDLER_INLINE bool call_j(struct cpu *cpu, const struct insn *insn, unsigned width, enum place place)
{
	uint64_t target;

	return relative_target(cpu, insn, width, place, &target) && call(cpu, insn, width, place, target);
}
DEFINE_FAST_BRANCH_W(call_j)

HANDLER_INLINE void call_e(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory)
{
	call(cpu, insn, width, PLACE_MEMORY, indirect_target(cpu, insn, width, memory));
}
DEFINE_BRANCH_RM(call_e)

/* @release: bytes of parameters above the return address. */
HANDLER_INLINE bool return_near(struct cpu *cpu, unsigned width, enum place place, uint64_t release)
{
	uint64_t top = cpu->reg[RSP], target;

	if (!memory_load(cpu, SS, top & cpu->stack_mask, width, place, &target) ||
	    !branch_check(cpu, &target, width, place))
		return false;
	cpu->rip = target;
	cpu->reg[RSP] = stack_pointer(cpu, top + width + release);
	return true;
}

HANDLER_INLINE bool ret(struct cpu *cpu, const struct insn *insn, unsigned width, enum place place)
{
	(void)insn;
	return return_near(cpu, width, place, 0);
}
DEFINE_FAST_BRANCH_W(ret)

HANDLER_INLINE bool ret_i(struct cpu *cpu, const struct insn *insn, unsigned width, enum place place)
{
	return return_near(cpu, width, place, (uint16_t)insn->imm);
}
DEFINE_FAST_BRANCH_W(ret_i)
