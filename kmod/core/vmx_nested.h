/* vmx_nested.h: a guest that is a hypervisor itself. */
#ifndef TRAPLINE_KMOD_CORE_VMX_NESTED_H
#define TRAPLINE_KMOD_CORE_VMX_NESTED_H

#include "kmod/core/vmx.h"

/* Its VMCS. NULL, or what went wrong. */
const char *vmx_nested_create(struct core_vcpu *vcpu);
/* Outside of VMX operation. The vCPU's own VMCS is current before and after. */
void vmx_nested_start(struct core_vcpu *vcpu);
/* VMXON and its kin of the guest. */
void vmx_nested_instruction(struct core_vcpu *vcpu, unsigned reason);
/* That instruction fails: VMfailValid with @error, or VMfailInvalid where no VMCS is current (31.2). */
void vmx_nested_fail(struct core_vcpu *vcpu, enum vmx_error error);
/* VMLAUNCH or VMRESUME of the guest: what runs next is its guest, unless it fails. */
void vmx_nested_enter(struct core_vcpu *vcpu, bool launch);
/* An exit while the guest's guest runs; @reason with its upper bits. True: done; false: it is the
 * hypervisor's own. */
bool vmx_nested_exit(struct core_vcpu *vcpu, uint32_t reason);
/* The processor refused the entry for which the guest gave the controls: a VM-instruction error of its
 * VMLAUNCH or VMRESUME. */
void vmx_nested_refused(struct core_vcpu *vcpu, uint64_t error);
/* VMXON and VMXOFF; what the guest may change of CR0 and CR4 follows. */
void vmx_nested_operation(struct core_vcpu *vcpu, bool on);
/* INIT. True: the guest is in VMX operation, which blocks it, or its guest runs, whose exit it is. */
bool vmx_nested_init(struct core_vcpu *vcpu);
/* The processor refused, or made, the entry: it has loaded the MSRs that the guest lists for it. */
void vmx_nested_entered(struct core_vcpu *vcpu);
/* An NMI while the guest's guest runs, whose hypervisor wants it. */
void vmx_nested_nmi(struct core_vcpu *vcpu);
/*
 * Whether the guest's guest runs, and its hypervisor wants the exit of the exception @vector (SDM 3C 26.2);
 * and an exit of that guest which the processor has not made but we, for @event as exits tell it, or 0.
 */
bool vmx_nested_wants(struct core_vcpu *vcpu, unsigned vector, uint32_t error);
void vmx_nested_event(struct core_vcpu *vcpu, uint32_t reason, uint32_t event, uint32_t error);
/* IA32_FEATURE_CONTROL and the capability MSRs. */
enum core_msr vmx_nested_read_msr(struct core_vcpu *vcpu, uint32_t index, uint64_t *value);

/* vmx_offer.c: whether the capability MSR at @index, or its true one, allows the controls. */
bool vmx_offer_allows(uint32_t index, uint64_t controls);
/* vmx_checks.c: whether VM entry takes controls and host state of the current VMCS of the guest. */
bool vmx_checks_controls(struct core_vcpu *vcpu);
bool vmx_checks_host(struct core_vcpu *vcpu);
/* Bits of EFER that the processor has. */
uint64_t vmx_efer_valid(void);
/*
 * vmx_lists.c: the list of MSRs of VM exits that is stored, with the VMCS current that runs the guest's
 * guest; and the one that is loaded, with the guest's. False: an entry cannot be.
 */
bool vmx_lists_store(struct core_vcpu *vcpu);
bool vmx_lists_load(struct core_vcpu *vcpu);

#endif
