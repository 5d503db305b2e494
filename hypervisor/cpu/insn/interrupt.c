/* interrupt.c: INT n, INT3, INTO, INT1 (SDM 2A INT n; SDM 3A 20.3.3; APM 3 INT, APM 2 8.2). */
#include "cpu/checks.h"
#include "cpu/events.h"
#include "cpu/insn.h"
#include "cpu/tss.h"

_Noreturn static void software_event(struct cpu *cpu, enum event_kind kind, uint8_t vector)
{
	cpu_raise_event(cpu, &(struct event){.kind = kind, .vector = vector, .return_rip = cpu_next_rip(cpu)});
}

/*
 * In virtual-8086 mode the redirection bitmap is asked first; what it does not redirect needs
 * IOPL = 3 (SDM 3A table 20-2).
 */
static inline void int_ib(struct cpu *cpu, const struct insn *insn)
{
	uint8_t vector = (uint8_t)insn->imm;

	if (cpu_protected(cpu) && cpu_vm86(cpu)) {
		if (cpu->cr4 & CR4_VME && interrupt_is_redirected(cpu, vector)) {
			event_redirect(cpu, vector, cpu_next_rip(cpu));
			return;
		}
		if (CHECK(INT_VM86_IOPL, cpu_iopl(cpu) < 3))
			cpu_raise(cpu, VECTOR_GP, 0);
	}
	software_event(cpu, EVENT_SOFTWARE_INTERRUPT, vector);
}
DEFINE_BRANCH(int_ib)

static inline void int3(struct cpu *cpu, const struct insn *insn)
{
	(void)insn;
	software_event(cpu, EVENT_SOFTWARE_EXCEPTION, VECTOR_BP);
}
DEFINE_BRANCH(int3)

static inline void into(struct cpu *cpu, const struct insn *insn)
{
	(void)insn;
	if (flags_of(&cpu->lazy))
		software_event(cpu, EVENT_SOFTWARE_EXCEPTION, VECTOR_OF);
}
DEFINE_INSN(into)

/* INT1 is a trap to vector 1 that leaves DR6 and DR7 alone and is not held against the gate's DPL. */
static inline void int1(struct cpu *cpu, const struct insn *insn)
{
	(void)insn;
	software_event(cpu, EVENT_PRIVILEGED_SOFTWARE_EXCEPTION, VECTOR_DB);
}
DEFINE_BRANCH(int1)
