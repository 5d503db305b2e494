/*
 * svm_step.c: one instruction by itself: the trap flag, with interrupts and NMIs held off and all exceptions
 * taken from the guest meanwhile, so that nobody sees the flag.
 */
#include "kmod/core/svm.h"
#include "x86/vectors.h"

#define DR6_HITS 0xfu

void svm_step(struct core_vcpu *vcpu)
{
	struct svm_vcpu *svm = vcpu->svm;
	uint8_t *vmcb = svm->vmcb;

	svm->step.rflags = *vmcb64(vmcb, VMCB_RFLAGS);
	svm->step.dr6 = *vmcb64(vmcb, VMCB_DR6);
	svm->step.interrupt = *vmcb64(vmcb, VMCB_INTERRUPT);
	svm->step.exceptions = *vmcb32(vmcb, VMCB_INTERCEPTS(2));
	svm->step.events = *vmcb32(vmcb, VMCB_INTERCEPTS(3));
	*vmcb64(vmcb, VMCB_RFLAGS) |= RFLAGS_TF;
	*vmcb64(vmcb, VMCB_DR6) &= ~(uint64_t)(DR6_BS | DR6_HITS);
	/* hw_svm_run() has interrupts masked; those of a guest's guest may be virtual. */
	*vmcb64(vmcb, VMCB_INTERRUPT) |= SVM_V_INTR_MASKING;
	*vmcb64(vmcb, VMCB_INTERRUPT) &= ~SVM_V_IRQ;
	*vmcb32(vmcb, VMCB_INTERCEPTS(2)) = 0xffffffff;
	svm_intercept(vmcb, SVM_EXIT_NMI, true);
}

/* The #DB behind the instruction, less what is the step's. */
static void pass_debug(struct core_vcpu *vcpu, uint64_t found)
{
	struct svm_vcpu *svm = vcpu->svm;
	bool single = svm->step.rflags & RFLAGS_TF;

	if (!single)
		found &= ~(uint64_t)DR6_BS;
	*vmcb64(svm->vmcb, VMCB_DR6) = svm->step.dr6 | found;
	if (single || found & DR6_HITS)
		svm_raise(vcpu, VECTOR_DB, 0);
}

bool svm_stepped(struct core_vcpu *vcpu)
{
	struct svm_vcpu *svm = vcpu->svm;
	uint8_t *vmcb = svm->vmcb;
	uint64_t code = *vmcb64(vmcb, VMCB_EXITCODE), dr6 = *vmcb64(vmcb, VMCB_DR6);
	bool debug = code == SVM_EXIT_EXCEPTION + VECTOR_DB, done = debug && dr6 & DR6_BS;

	*vmcb64(vmcb, VMCB_RFLAGS) =
		(*vmcb64(vmcb, VMCB_RFLAGS) & ~(uint64_t)RFLAGS_TF) | (svm->step.rflags & RFLAGS_TF);
	*vmcb64(vmcb, VMCB_INTERRUPT) = svm->step.interrupt;
	*vmcb32(vmcb, VMCB_INTERCEPTS(2)) = svm->step.exceptions;
	*vmcb32(vmcb, VMCB_INTERCEPTS(3)) = svm->step.events;
	core_exit_stepped(vcpu, done);
	if (debug) {
		pass_debug(vcpu, dr6 & (DR6_BS | DR6_HITS));
		return true;
	}
	*vmcb64(vmcb, VMCB_DR6) = svm->step.dr6;
	if (code == SVM_EXIT_NMI)
		return true; /* it comes at the next entry */
	if (code - SVM_EXIT_EXCEPTION >= 32 || svm_intercepted(vmcb, (unsigned)code))
		return false;
	if (code == SVM_EXIT_EXCEPTION + VECTOR_PF)
		*vmcb64(vmcb, VMCB_CR2) = *vmcb64(vmcb, VMCB_EXITINFO2);
	svm_raise_upon(vcpu, (unsigned)code - SVM_EXIT_EXCEPTION,
		       vector_has_error_code((unsigned)code - SVM_EXIT_EXCEPTION),
		       (uint32_t)*vmcb64(vmcb, VMCB_EXITINFO1));
	return true;
}
