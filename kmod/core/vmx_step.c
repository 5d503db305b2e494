/*
 * vmx_step.c: one instruction by itself: the monitor trap flag, with interrupts, NMIs and all exceptions taken from
 * the guest meanwhile.
 */
#include "kmod/core/vmx.h"
#include "x86/vectors.h"

void vmx_step(struct core_vcpu *vcpu)
{
	struct vmx_vcpu *vmx = vcpu->vmx;
	struct vmx_controls step;

	vmx->before.pin = (uint32_t)vmx_get(VMCS_PIN_CONTROLS);
	vmx->before.primary = (uint32_t)vmx_get(VMCS_PRIMARY_CONTROLS);
	vmx->before.secondary = (uint32_t)vmx_get(VMCS_SECONDARY_CONTROLS);
	vmx->before.exceptions = (uint32_t)vmx_get(VMCS_EXCEPTION_BITMAP);
	step = vmx->before;
	/* An interrupt that the guest has masked would exit all the same, again and again (SDM 3C 25.4.2). */
	step.pin |= VMX_PIN_NMI | (vmx_get(VMCS_GUEST_RFLAGS) & RFLAGS_IF ? VMX_PIN_EXTERNAL_INTERRUPT : 0);
	step.primary |= VMX_MONITOR_TRAP_FLAG;
	step.exceptions = 0xffffffff;
	vmx_use(&step);
}

/* The exception that came instead is the guest's. */
static void pass_exception(struct core_vcpu *vcpu)
{
	uint32_t event = (uint32_t)vmx_get(VMCS_EXIT_INTERRUPTION_INFO);
	unsigned vector = event & VMX_EVENT_VECTOR;

	if (VMX_EVENT_TYPE(event) == VMX_EVENT_NMI) {
		vcpu->vmx->nmi = true;
		vmx_set(VMCS_GUEST_INTERRUPTIBILITY,
			vmx_get(VMCS_GUEST_INTERRUPTIBILITY) & ~(uint64_t)VMX_BLOCKING_NMI);
		return;
	}
	if (vector == VECTOR_PF)
		hw_write_cr(2, vmx_get(VMCS_EXIT_QUALIFICATION));
	if (vector == VECTOR_DB) {
		vmx_set(VMCS_GUEST_PENDING_DEBUG, vmx_get(VMCS_EXIT_QUALIFICATION));
		return;
	}
	vmx_raise_upon(vcpu, vector, (uint32_t)vmx_get(VMCS_EXIT_INTERRUPTION_ERROR));
}

bool vmx_stepped(struct core_vcpu *vcpu, unsigned reason)
{
	struct vmx_vcpu *vmx = vcpu->vmx;

	vmx_use(&vmx->before);
	core_exit_stepped(vcpu, reason == VMX_EXIT_MONITOR_TRAP_FLAG);
	switch (reason) {
	case VMX_EXIT_MONITOR_TRAP_FLAG:
	case VMX_EXIT_EXTERNAL_INTERRUPT: return true; /* which comes at the next entry */
	case VMX_EXIT_EXCEPTION_NMI: pass_exception(vcpu); return true;
	default: return false;
	}
}
