/* flags.c: PUSHF, POPF, CLI, STI (SDM 2B; SDM 3A 20.2.7, 20.3.2, 20.4; APM 3). */
#include "cpu/checks.h"
#include "cpu/control.h"
#include "cpu/insn.h"
#include "cpu/mem/mem.h"
#include "cpu/stack.h"

#define POPF_FLAGS (RFLAGS_STATUS | RFLAGS_TF | RFLAGS_DF | RFLAGS_NT)

static bool in_vm86(const struct cpu *cpu) { return cpu_protected(cpu) && cpu_vm86(cpu); }

/* Virtual-8086 mode below IOPL 3: VME lets the 16-bit forms work on VIF; all else is #GP(0). */
static bool virtual_flags(struct cpu *cpu, unsigned width)
{
	if (!in_vm86(cpu) || cpu_iopl(cpu) == 3)
		return false;
	if (CHECK(FLAGS_VM86_IOPL, !(cpu->cr4 & CR4_VME) || width != 2))
		cpu_raise(cpu, VECTOR_GP, 0);
	return true;
}

static inline void pushf(struct cpu *cpu, const struct insn *insn, unsigned width)
{
	uint64_t flags = rflags_get(cpu) & ~(uint64_t)(RFLAGS_VM | RFLAGS_RF);

	(void)insn;
	if (virtual_flags(cpu, width)) {
		flags = flags & RFLAGS_VIF ? flags | RFLAGS_IF : flags & ~(uint64_t)RFLAGS_IF;
		flags |= RFLAGS_IOPL;
	}
	stack_push(cpu, flags, width);
}
DEFINE_INSN_W(pushf)

static void popf_virtual(struct cpu *cpu, uint64_t flags, unsigned width)
{
	if (CHECK(POPF_VIP, flags & RFLAGS_IF && cpu->rflags & RFLAGS_VIP))
		cpu_raise(cpu, VECTOR_GP, 0);
	if (CHECK(POPF_VME_TF, flags & RFLAGS_TF))
		cpu_raise(cpu, VECTOR_GP, 0);
	stack_set_pointer(cpu, cpu->reg[RSP] + width, cpu->stack_mask);
	flags &= ~(uint64_t)RFLAGS_VIF;
	if (flags & RFLAGS_IF)
		flags |= RFLAGS_VIF;
	rflags_set(cpu, flags, POPF_FLAGS | RFLAGS_VIF);
}

/* SDM 2B POPF, table "Effect of POPF/POPFD on the EFLAGS Register". */
static uint64_t popf_mask(const struct cpu *cpu, unsigned width)
{
	uint64_t mask = POPF_FLAGS;

	if (width != 2)
		mask |= RFLAGS_AC | RFLAGS_ID | RFLAGS_RF;
	if (cpu->cpl <= cpu_iopl(cpu))
		mask |= RFLAGS_IF;
	if (cpu->cpl == 0)
		mask |= RFLAGS_IOPL;
	return mask;
}

static inline void popf(struct cpu *cpu, const struct insn *insn, unsigned width)
{
	(void)insn;
	if (virtual_flags(cpu, width)) {
		popf_virtual(cpu, stack_peek(cpu, 0, width), width);
		return;
	}
	uint64_t flags = stack_peek(cpu, 0, width) & ~(uint64_t)RFLAGS_RF;
	stack_set_pointer(cpu, cpu->reg[RSP] + width, cpu->stack_mask);
	rflags_set(cpu, flags, popf_mask(cpu, width));
}
DEFINE_INSN_W(popf)

/* ---- CLI, STI ---- */

/* Which flag they change: IF, or VIF with VME or PVI; #GP(0) where neither. */
static uint64_t interrupt_flag(struct cpu *cpu)
{
	bool virtual = in_vm86(cpu) ? cpu->cr4 & CR4_VME : cpu->cpl == 3 && cpu->cr4 & CR4_PVI;

	if (cpu->cpl <= cpu_iopl(cpu))
		return RFLAGS_IF;
	if (CHECK(CLI_STI_IOPL, !virtual))
		cpu_raise(cpu, VECTOR_GP, 0);
	return RFLAGS_VIF;
}

static inline void cli(struct cpu *cpu, const struct insn *insn)
{
	(void)insn;
	rflags_set(cpu, 0, interrupt_flag(cpu));
}
DEFINE_INSN(cli)

/* Setting IF takes effect behind the next instruction (SDM 2B STI, APM 3 STI). */
static inline void sti(struct cpu *cpu, const struct insn *insn)
{
	uint64_t flag = interrupt_flag(cpu);

	(void)insn;
	if (CHECK(STI_VIP, flag == RFLAGS_VIF && cpu->rflags & RFLAGS_VIP))
		cpu_raise(cpu, VECTOR_GP, 0);
	if (flag == RFLAGS_IF && !(cpu->rflags & RFLAGS_IF))
		cpu->shadow = SHADOW_STI;
	rflags_set(cpu, flag, flag);
}
DEFINE_INSN(sti)
