/*
 * vmx_step.c: one instruction by itself: the monitor trap flag, with interrupts, NMIs and all exceptions
 * taken from the guest meanwhile.
 */
#include "kmod/core/vmx.h"
#include "kmod/core/vmx_nested.h"
#include "x86/vectors.h"

static unsigned step_offset(const struct core_vcpu *vcpu)
{
	return (unsigned)(vcpu->step.guest & (CORE_PAGE - 1) & ~3u);
}

/* A command may turn out to be one for which the instruction is executed once more. */
static void save_front(struct core_vcpu *vcpu, uint64_t rflags)
{
	struct vmx_vcpu *vmx = vcpu->vmx;

	for (unsigned i = 0; i < GPR_COUNT; i++)
		vmx->front.gpr[i] = vcpu->gpr[i];
	vmx->front.rip = vcpu->rip;
	vmx->front.rflags = rflags;
	vmx->front.interruptibility = vmx_get(VMCS_GUEST_INTERRUPTIBILITY);
	vmx->front.pending_debug = vmx_get(VMCS_GUEST_PENDING_DEBUG);
}

/* As vmx_use(), of what a step changes. */
static void use(const struct core_vcpu *vcpu, const struct vmx_controls *controls)
{
	vmx_set(VMCS_PIN_CONTROLS, controls->pin);
	vmx_set(VMCS_PRIMARY_CONTROLS, controls->primary);
	vmx_set(VMCS_EXCEPTION_BITMAP, controls->exceptions);
	if (!vcpu->vmx->nested.running)
		return;
	vmx_set(VMCS_PF_ERROR_MASK, controls->pf_mask);
	vmx_set(VMCS_PF_ERROR_MATCH, controls->pf_match);
}

void vmx_step(struct core_vcpu *vcpu)
{
	struct vmx_vcpu *vmx = vcpu->vmx;
	uint64_t rflags = vmx_get(VMCS_GUEST_RFLAGS);
	struct vmx_controls step = {0};

	vmx->before.pin = (uint32_t)vmx_get(VMCS_PIN_CONTROLS);
	vmx->before.primary = (uint32_t)vmx_get(VMCS_PRIMARY_CONTROLS);
	vmx->before.exceptions = (uint32_t)vmx_get(VMCS_EXCEPTION_BITMAP);
	if (vmx->nested.running) {
		vmx->before.pf_mask = (uint32_t)vmx_get(VMCS_PF_ERROR_MASK);
		vmx->before.pf_match = (uint32_t)vmx_get(VMCS_PF_ERROR_MATCH);
	}
	if (apic_is_command(step_offset(vcpu)))
		save_front(vcpu, rflags);
	/* An interrupt that the guest has masked would exit all the same, again and again (SDM 3C 26.4.2). */
	step.pin = vmx->before.pin | VMX_PIN_NMI | (rflags & RFLAGS_IF ? VMX_PIN_EXTERNAL_INTERRUPT : 0);
	step.primary = vmx->before.primary | VMX_MONITOR_TRAP_FLAG;
	step.exceptions = 0xffffffff;
	use(vcpu, &step);
}

/* The exception that came instead is the guest's; false: its own exit, with its own guest running. */
static bool pass_exception(struct core_vcpu *vcpu)
{
	uint32_t event = (uint32_t)vmx_get(VMCS_EXIT_INTERRUPTION_INFO),
		 error = (uint32_t)vmx_get(VMCS_EXIT_INTERRUPTION_ERROR);
	unsigned vector = event & VMX_EVENT_VECTOR;

	if (VMX_EVENT_TYPE(event) == VMX_EVENT_NMI && vcpu->vmx->nested.running &&
	    vcpu->vmx->before.pin & VMX_PIN_NMI)
		return false;
	if (VMX_EVENT_TYPE(event) == VMX_EVENT_NMI) {
		vcpu->vmx->nmi = true;
		vmx_set(VMCS_GUEST_INTERRUPTIBILITY,
			vmx_get(VMCS_GUEST_INTERRUPTIBILITY) & ~(uint64_t)VMX_BLOCKING_NMI);
		return true;
	}
	if (vmx_nested_wants(vcpu, vector, error))
		return false;
	if (vector == VECTOR_PF)
		hw_write_cr(2, vmx_get(VMCS_EXIT_QUALIFICATION));
	if (vector == VECTOR_DB)
		vmx_set(VMCS_GUEST_PENDING_DEBUG, vmx_get(VMCS_EXIT_QUALIFICATION));
	else
		vmx_raise_upon(vcpu, vector, error);
	return true;
}

static bool sends_smi(const struct core_vcpu *vcpu)
{
	unsigned offset = step_offset(vcpu);

	return apic_sends_smi(offset, *(volatile uint32_t *)(vcpu->step.page + offset));
}

/*
 * An SMI that the guest sends itself interrupts the guest, not the hypervisor, which would have it at once:
 * the instruction is executed again, with the local APIC before it.
 */
static void step_directly(struct core_vcpu *vcpu)
{
	struct vmx_vcpu *vmx = vcpu->vmx;

	for (unsigned i = 0; i < GPR_COUNT; i++)
		vcpu->gpr[i] = vmx->front.gpr[i];
	vcpu->rip = vmx->front.rip;
	vmx_set(VMCS_GUEST_RFLAGS, vmx->front.rflags);
	vmx_set(VMCS_GUEST_INTERRUPTIBILITY, vmx->front.interruptibility);
	vmx_set(VMCS_GUEST_PENDING_DEBUG, vmx->front.pending_debug);
	vcpu->step.direct = true;
	core_step_map(vcpu, vcpu->step.guest, CORE_READ | CORE_WRITE);
}

bool vmx_stepped(struct core_vcpu *vcpu, unsigned reason)
{
	struct vmx_vcpu *vmx = vcpu->vmx;

	if (reason == VMX_EXIT_MONITOR_TRAP_FLAG && !vcpu->step.direct && sends_smi(vcpu)) {
		step_directly(vcpu);
		return true;
	}
	use(vcpu, &vmx->before);
	core_exit_stepped(vcpu, reason == VMX_EXIT_MONITOR_TRAP_FLAG && !vcpu->step.direct);
	vcpu->step.direct = false;
	switch (reason) {
	case VMX_EXIT_MONITOR_TRAP_FLAG:
		/* The guest may step its own guest too. */
		return !(vmx->nested.running && vmx->before.primary & VMX_MONITOR_TRAP_FLAG);
	case VMX_EXIT_EXTERNAL_INTERRUPT:
		/* It comes at the next entry, where it is not the guest's own exit. */
		return !(vmx->nested.running && vmx->before.pin & VMX_PIN_EXTERNAL_INTERRUPT);
	case VMX_EXIT_EXCEPTION_NMI: return pass_exception(vcpu);
	default: return false;
	}
}
