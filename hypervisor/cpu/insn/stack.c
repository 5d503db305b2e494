/*
 * stack.c: PUSH, POP, PUSHA, POPA, ENTER, LEAVE (SDM 2A, 2B). PUSHF and POPF are in flags.c,
 * segment registers in segment.c.
 *
 * Where an instruction makes several accesses, RSP and the other registers change after the last.
 */
#include "cpu/insn/operand.h"

/* ---- one operand ---- */

HANDLER_INLINE bool push(struct cpu *cpu, uint64_t value, unsigned width, enum place place)
{
	uint64_t pointer = cpu->reg[RSP] - width;

	if (!memory_store(cpu, SS, pointer & cpu->stack_mask, value, width, place))
		return false;
	cpu->reg[RSP] = stack_pointer(cpu, pointer);
	return true;
}

HANDLER_INLINE bool push_z(struct cpu *cpu, const struct insn *insn, unsigned width, enum place place)
{
	return push(cpu, reg_read(cpu, insn->reg, width), width, place);
}
DEFINE_FAST_INSN_W(push_z)

HANDLER_INLINE void push_e(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory)
{
	push(cpu, rm_read(cpu, insn, width, memory), width, PLACE_MEMORY);
}
DEFINE_INSN_RM(push_e)

HANDLER_INLINE bool push_i(struct cpu *cpu, const struct insn *insn, unsigned width, enum place place)
{
	return push(cpu, (uint64_t)insn->imm, width, place);
}
DEFINE_FAST_INSN_W(push_i)

/* POP SP: the value that was popped stays, not the incremented one. */
HANDLER_INLINE bool pop_z(struct cpu *cpu, const struct insn *insn, unsigned width, enum place place)
{
	uint64_t top = cpu->reg[RSP], value;

	if (!memory_load(cpu, SS, top & cpu->stack_mask, width, place, &value))
		return false;
	cpu->reg[RSP] = stack_pointer(cpu, top + width);
	reg_write(cpu, insn->reg, value, width);
	return true;
}
DEFINE_FAST_INSN_W(pop_z)

/* An address made with RSP uses its value after the pop (SDM 2B POP). */
HANDLER_INLINE void pop_e(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory)
{
	if (!memory) {
		reg_write(cpu, insn->rm, stack_pop(cpu, width), width);
		return;
	}
	uint64_t old = cpu->reg[RSP];
	uint64_t value = stack_pop(cpu, width), popped = cpu->reg[RSP];
	uint64_t offset = insn_offset(cpu, insn);

	cpu->reg[RSP] = old;
	mem_write(cpu, insn->segment, offset, value, width);
	cpu->reg[RSP] = popped;
}
DEFINE_INSN_RM(pop_e)

/* ---- all registers ---- */

/*
 * In real-address and virtual-8086 mode a stack that would wrap at an odd SP is #GP where there is
 * room to deliver it (SDM 2B PUSHA: 7 to 15); below that the ordinary #SS ends in a shutdown.
 */
static inline void pusha_check_real(struct cpu *cpu)
{
	uint64_t top = cpu->reg[RSP] & cpu->stack_mask;

	if (cpu_real_or_vm86(cpu) && top % 2 && top >= 7 && top <= 15)
		cpu_raise(cpu, VECTOR_GP, 0);
}

HANDLER_INLINE void pusha(struct cpu *cpu, const struct insn *insn, unsigned width)
{
	uint64_t top = cpu->reg[RSP];

	(void)insn;
	pusha_check_real(cpu);
	for (unsigned i = 0; i < 8; i++)
		mem_check_write(cpu, SS, (top - (i + 1) * width) & cpu->stack_mask, width);
	for (unsigned i = 0; i < 8; i++)
		mem_write(cpu, SS, (top - (i + 1) * width) & cpu->stack_mask, reg_read(cpu, RAX + i, width),
			  width);
	cpu->reg[RSP] = stack_pointer(cpu, top - 8 * width);
}
DEFINE_INSN_W(pusha)

/* The image of SP is skipped. */
HANDLER_INLINE void popa(struct cpu *cpu, const struct insn *insn, unsigned width)
{
	uint64_t top = cpu->reg[RSP], value[8];

	(void)insn;
	for (unsigned i = 0; i < 8; i++)
		value[i] = mem_read(cpu, SS, (top + i * width) & cpu->stack_mask, width);
	for (unsigned i = 0; i < 8; i++)
		if (7 - i != RSP)
			reg_write(cpu, 7 - i, value[i], width);
	cpu->reg[RSP] = stack_pointer(cpu, top + 8 * width);
}
DEFINE_INSN_W(popa)

/* ---- frames ---- */

/* The frame pointers of the outer levels, copied below the new frame. Returns the new top of stack. */
static inline uint64_t display_copy(struct cpu *cpu, uint64_t top, uint64_t frame, unsigned level,
				    unsigned width)
{
	uint64_t outer = cpu->reg[RBP];

	for (unsigned i = 1; i < level; i++) {
		outer -= width;
		uint64_t pointer = mem_read(cpu, SS, outer & cpu->stack_mask, width);
		top -= width;
		mem_write(cpu, SS, top & cpu->stack_mask, pointer, width);
	}
	top -= width;
	mem_write(cpu, SS, top & cpu->stack_mask, frame, width);
	return top;
}

/*
 * The new top of the stack must be writable, though nothing is stored there (SDM 2A ENTER: #SS, #PF).
 * RBP changes in the part that the operand size names: so processors, where the manual's operation
 * speaks of the stack's size.
 */
HANDLER_INLINE void enter(struct cpu *cpu, const struct insn *insn, unsigned width)
{
	unsigned level = insn->imm2 % 32;
	uint64_t mask = cpu->stack_mask, top = cpu->reg[RSP] - width, frame;

	mem_write(cpu, SS, top & mask, reg_read(cpu, RBP, width), width);
	frame = stack_pointer(cpu, top);
	if (level)
		top = display_copy(cpu, top, frame, level, width);
	top -= (uint16_t)insn->imm;
	mem_check_write(cpu, SS, top & mask, width);
	cpu->reg[RSP] = stack_pointer(cpu, top);
	reg_write(cpu, RBP, frame, width);
}
DEFINE_INSN_W(enter)

HANDLER_INLINE bool leave(struct cpu *cpu, const struct insn *insn, unsigned width, enum place place)
{
	uint64_t frame = cpu->reg[RBP], value;

	(void)insn;
	if (!memory_load(cpu, SS, frame & cpu->stack_mask, width, place, &value))
		return false;
	cpu->reg[RSP] = stack_pointer(cpu, frame + width);
	reg_write(cpu, RBP, value, width);
	return true;
}
DEFINE_FAST_INSN_W(leave)
