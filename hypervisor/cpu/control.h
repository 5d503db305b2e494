/*
 * control.h: control and debug registers, XCR0, MSRs: writes with the checks that the manuals
 * demand (SDM 2B MOV CR, MOV DR, WRMSR, XSETBV; SDM 3A 2.5). All raise #GP(0) on a bad value, and
 * then nothing has changed.
 */
#ifndef TRAPLINE_CPU_CONTROL_H
#define TRAPLINE_CPU_CONTROL_H

#include "cpu/cpu.h"

void control_write_cr0(struct cpu *cpu, uint64_t value);
void control_write_cr3(struct cpu *cpu, uint64_t value);
void control_write_cr4(struct cpu *cpu, uint64_t value);
void control_write_cr8(struct cpu *cpu, uint64_t value);
void control_write_efer(struct cpu *cpu, uint64_t value);
void control_write_xcr(struct cpu *cpu, uint32_t index, uint64_t value);
/* DR0 to DR3, DR6 or DR7; DR4, DR5 and GD are the caller's. */
void control_write_dr(struct cpu *cpu, unsigned number, uint64_t value);
bool control_efer_allowed(struct cpu *cpu, uint64_t value); /* what control_write_efer() would not fault on */
bool control_nx_disabled(const struct cpu *cpu);            /* by IA32_MISC_ENABLE[34] */
uint64_t control_cr4_valid(const struct cpu *cpu); /* bits that the profile lets software set */
uint64_t control_efer_valid(const struct cpu *cpu); /* as well; LMA among them */

/* False: #GP(0) (no such MSR, reserved bits, non-canonical address). */
bool msr_read(struct cpu *cpu, uint32_t index, uint64_t *value);
bool msr_write(struct cpu *cpu, uint32_t index, uint64_t value);

/* Bits that MXCSR has, MXCSR_MASK; others are #GP(0) (insn/xsave.c; for LDMXCSR as well). */
uint32_t xsave_mxcsr_mask(const struct cpu *cpu);
/* MONITOR and MWAIT are there: not switched off by IA32_MISC_ENABLE or HWCR (insn/cpuid.c). */
bool cpuid_monitor_enabled(const struct cpu *cpu);
/* What RESET makes of cpu->msr (SDM 3A table 9-1, APM 2 table 14-2). APIC_BASE is the bus's. */
void msr_reset(struct cpu *cpu);
/* Adds @by to the counters of @msr that follow cpu->retired: in struct vcpu_state they are less the TSC. */
void msr_counters_move(struct vcpu_state *msr, uint64_t by);
/* cpu->retired when the first counter whose overflow interrupts overflows; UINT64_MAX: none does. */
uint64_t msr_counter_overflow(struct cpu *cpu);
/* RDPMC's counter. False: there is none of that index. */
bool msr_read_counter(struct cpu *cpu, uint32_t index, uint64_t *value);

/* Time-stamp counter now, TSC_ADJUST included; and as the instructions of a guest of AMD-V read it. */
uint64_t control_tsc(const struct cpu *cpu);
uint64_t control_tsc_read(const struct cpu *cpu);

/* RFLAGS as a whole, and a write of the bits in @mask (POPF, IRET, …; no privilege checks). Ends in cpu_mode_changed(). */
uint64_t rflags_get(const struct cpu *cpu);
void rflags_set(struct cpu *cpu, uint64_t value, uint64_t mask);

#endif
