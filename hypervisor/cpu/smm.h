/*
 * smm.h: system-management mode (SDM 3C chapter 32, APM 2 chapter 10): what SMI and RSM do to the processor.
 *
 * SMRAM is the memory at SMBASE, without protection. The map of the state-save area is that of 64-bit
 * processors, by vendor; what Intel's keeps in reserved places is in places of our own among these.
 */
#ifndef TRAPLINE_CPU_SMM_H
#define TRAPLINE_CPU_SMM_H

#include "cpu/cpu.h"

/* Called where an SMI is raised, within a bus call too: an I/O instruction that raises its own SMI is told to
 * the handler, which may have it restarted. */
void smm_note_io(struct cpu *cpu);
/* Between two instructions: saves the state and enters the handler at SMBASE + 8000H. Does not return where
 * the processor has no 64-bit mode, whose map is not modelled. */
void smm_enter(struct cpu *cpu);
/* RSM: restores the state, with what the handler has changed. Invalid state: shutdown, still in SMM. */
void smm_resume(struct cpu *cpu);

#endif
