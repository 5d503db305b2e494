/* missing.c: what of vmx.h is not there yet; goes when it is. Real definitions come before these. */
#include "cpu/checks.h"
#include "cpu/vmx/vmx.h"

#define WEAK __attribute__((weak))
#define MISSING(cpu) cpu_unmodelled((struct cpu *)(uintptr_t)(cpu), "VT-x: not there yet")

WEAK void vmx_enter(struct cpu *cpu, bool launch) { (void)launch; MISSING(cpu); }
WEAK void vmx_exit(struct cpu *cpu, const struct vmx_exit_info *info) { (void)info; MISSING(cpu); }
WEAK void vmx_exit_insn(struct cpu *cpu, const struct vmx_exit_info *info) { (void)info; MISSING(cpu); }
WEAK void vmx_check_insn(struct cpu *cpu, const struct insn *insn) { (void)insn; MISSING(cpu); }
WEAK void vmx_check_enabled(struct cpu *cpu, const struct insn *insn) { (void)insn; MISSING(cpu); }
WEAK void vmx_check_lmsw(struct cpu *cpu, const struct insn *insn, uint16_t word, bool memory)
{
	(void)insn; (void)word; (void)memory;
	MISSING(cpu);
}
WEAK uint64_t vmx_merge_cr(const struct cpu *cpu, unsigned n, uint64_t value) { (void)n; (void)value; MISSING(cpu); }
WEAK uint64_t vmx_read_cr(const struct cpu *cpu, unsigned n) { (void)n; MISSING(cpu); }
WEAK void vmx_check_io(struct cpu *cpu, const struct insn *insn, uint16_t port, unsigned size, bool in, bool string)
{
	(void)insn; (void)port; (void)size; (void)in; (void)string;
	MISSING(cpu);
}
WEAK uint64_t vmx_tsc(const struct cpu *cpu, uint64_t tsc) { (void)tsc; MISSING(cpu); }
WEAK bool vmx_take_exception(struct cpu *cpu, struct event *event) { (void)event; MISSING(cpu); }
WEAK bool vmx_takes_exception(const struct cpu *cpu, enum vector vector, uint32_t error)
{
	(void)vector; (void)error;
	MISSING(cpu);
}
WEAK bool vmx_take_triple_fault(struct cpu *cpu) { MISSING(cpu); }
WEAK bool vmx_take_interrupt(struct cpu *cpu) { MISSING(cpu); }
WEAK bool vmx_take_nmi(struct cpu *cpu) { MISSING(cpu); }
WEAK bool vmx_take_init(struct cpu *cpu) { MISSING(cpu); }
WEAK bool vmx_interrupts_open(const struct cpu *cpu) { MISSING(cpu); }
WEAK bool vmx_blocks_init(const struct cpu *cpu) { return CHECK(VMX_INIT, !vmx_guest(cpu)); }
WEAK bool vmx_pending(const struct cpu *cpu) { MISSING(cpu); }
WEAK bool vmx_must_look(const struct cpu *cpu) { MISSING(cpu); }
WEAK bool vmx_must_step(const struct cpu *cpu) { MISSING(cpu); }
WEAK bool vmx_boundary(struct cpu *cpu) { MISSING(cpu); }
WEAK bool vmx_take_before_traps(struct cpu *cpu) { MISSING(cpu); }
WEAK bool vmx_take_before_nmi(struct cpu *cpu) { MISSING(cpu); }
WEAK bool vmx_take_before_interrupt(struct cpu *cpu, struct event *event) { (void)event; MISSING(cpu); }
WEAK void vmx_iret_begins(struct cpu *cpu) { MISSING(cpu); }
