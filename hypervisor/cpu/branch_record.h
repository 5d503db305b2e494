/*
 * branch_record.h: what DebugCtl.LBR and BTF make of control transfers (APM 2 13.1.1, 13.1.3; SDM 3B 18.4.1
 * to 18.4.3). Instructions run one at a time where either is set. The registers of LBR are AMD's: those of
 * Intel's processors are the model's own, and a profile with neither CPUID.1:ECX.PDCM nor architectural LBRs
 * tells of none (SDM 3B 18.4.8.1). There the bit of IA32_DEBUGCTL can be set, and nothing shows what it does.
 */
#ifndef TRAPLINE_CPU_BRANCH_RECORD_H
#define TRAPLINE_CPU_BRANCH_RECORD_H

#include "cpu/cpu.h"
#include "x86/msr.h"

/* An instruction about to be stepped. */
struct branch_step {
	bool branch, conditional;
	uint64_t from, next_rip;    /* offsets of it, and of what follows */
	const struct insn *to_next; /* one that goes on there whether it is taken or not; else NULL */
};

/* There are records, and they are on. */
static inline bool branch_recorded(const struct cpu *cpu)
{
	return cpu->msr.debugctl & DEBUGCTL_LBR && cpu->profile->vendor == VENDOR_AMD;
}

static inline bool branch_watched(const struct cpu *cpu)
{
	return unlikely(cpu->msr.debugctl) &&
	       (branch_recorded(cpu) || (cpu->rflags & RFLAGS_TF && cpu->msr.debugctl & DEBUGCTL_BTF));
}

struct branch_step branch_begin(struct cpu *cpu, const struct insn *insn);
/* Behind it: records a transfer, and answers whether there was one. */
bool branch_end(struct cpu *cpu, const struct branch_step *step);
/* An event was delivered out of what is at offset @from; its handler is at cpu->rip. */
void branch_event(struct cpu *cpu, uint64_t from, uint8_t vector);
/* #DB, delivered or intercepted: both bits are cleared. */
void branch_debug_exception(struct cpu *cpu);

#endif
