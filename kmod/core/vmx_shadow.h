/* vmx_shadow.h: the EPT of a guest that is a hypervisor, joined with our tables into what the processor
 * walks. */
#ifndef TRAPLINE_KMOD_CORE_VMX_SHADOW_H
#define TRAPLINE_KMOD_CORE_VMX_SHADOW_H

#include "kmod/core/core.h"

enum shadow_result { SHADOW_FILLED, SHADOW_VIOLATION, SHADOW_MISCONFIGURED };

/* Whether VM entry takes this EPTP (27.2.1.1), of what is offered. */
bool vmx_shadow_eptp_valid(uint64_t eptp);
/* Forgets all that was joined. */
void vmx_shadow_drop(struct core_vcpu *vcpu);
/* The joined tables' root; and the EPTP that leads to it. */
uint64_t *vmx_shadow_root(struct core_vcpu *vcpu);
uint64_t vmx_shadow_eptp(struct core_vcpu *vcpu);
/*
 * The guest's guest was refused an access to @address as @why tells, a qualification. SHADOW_FILLED: the
 * tables now have it; else the refusal is that of the guest's own EPT, and *@rights are R, W and X of all its
 * entries.
 */
enum shadow_result vmx_shadow_fill(struct core_vcpu *vcpu, uint64_t address, uint64_t why, uint64_t *rights);

#endif
