/* check.h: what the two files of VM entry's checks share. */
#ifndef TRAPLINE_CPU_VMX_CHECK_H
#define TRAPLINE_CPU_VMX_CHECK_H

#include "cpu/vmx/vmx.h"

/* The controls of the current VMCS; the secondary ones are 0 where they are not active. */
struct vmx_entry_controls {
	uint32_t pin, primary, secondary, exit, entry;
};
struct vmx_entry_controls vmx_entry_controls(struct cpu *cpu);

/* Whether @linear is canonical where linear addresses have @bits bits (SDM 1 3.3.7.1). */
bool vmx_canonical(uint64_t linear, unsigned bits);
/* Whether WRMSR would take @pat (SDM 3A 11.12.4). */
bool vmx_pat_valid(uint64_t pat);

#endif
