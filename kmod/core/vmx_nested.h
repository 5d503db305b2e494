/* vmx_nested.h: a guest that is a hypervisor itself. */
#ifndef TRAPLINE_KMOD_CORE_VMX_NESTED_H
#define TRAPLINE_KMOD_CORE_VMX_NESTED_H

#include "kmod/core/core.h"

/* Its VMCS. NULL, or what went wrong. */
const char *vmx_nested_create(struct core_vcpu *vcpu);
/* Outside of VMX operation. The vCPU's own VMCS is current before and after. */
void vmx_nested_start(struct core_vcpu *vcpu);
/* VMXON and its kin of the guest. */
void vmx_nested_instruction(struct core_vcpu *vcpu, unsigned reason);
/* An exit while the guest's guest runs; @reason with its upper bits. True: done; false: it is the
 * hypervisor's own. */
bool vmx_nested_exit(struct core_vcpu *vcpu, uint32_t reason);
/* The processor refused the entry for which the guest gave the controls: a VM-instruction error of its
 * VMLAUNCH or VMRESUME. */
void vmx_nested_refused(struct core_vcpu *vcpu, uint64_t error);
/* An NMI while the guest's guest runs, whose hypervisor wants it. */
void vmx_nested_nmi(struct core_vcpu *vcpu);
/* IA32_FEATURE_CONTROL and the capability MSRs. */
enum core_msr vmx_nested_read_msr(struct core_vcpu *vcpu, uint32_t index, uint64_t *value);

#endif
