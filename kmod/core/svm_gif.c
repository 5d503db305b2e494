/*
 * svm_gif.c: the GIF of a guest that is a hypervisor (APM 2 15.17, 15.21).
 *
 * While it is 0, physical interrupts are masked by V_INTR_MASKING and a clear RFLAGS.IF of ours; NMIs are
 * intercepted and kept; breakpoints are intercepted and dropped. INIT, which would stay pending where it is
 * intercepted, is made a #SX by VM_CR.R_INIT as long as the guest uses AMD-V, and kept. Of SMIs, which cannot
 * be taken out of the processor's hands, those are kept that the guest sends by way of a local APIC that is
 * watched.
 */
#include "kmod/core/svm.h"
#include "x86/msr.h"
#include "x86/vectors.h"

#define REDIRECTED_INIT 1u /* error code of its #SX (15.28) */
#define EXTERNAL_SMI    1u /* EXITINFO1 (15.13.3) */
#define DR6_HITS        0xfull
#define INT1            0xf1

static struct svm_nested *nested_of(struct core_vcpu *vcpu) { return &vcpu->svm->nested; }

/*
 * CLGI in the guest's guest, which nobody intercepts there: its virtual interrupts wait (15.17), and physical
 * ones are masked as the guest's own are. Where it has not V_INTR_MASKING itself, CR8 is V_TPR as long.
 */
static void hold_inner(struct core_vcpu *vcpu)
{
	struct svm_nested *nested = nested_of(vcpu);
	uint64_t *interrupt = vmcb64(nested->merged, VMCB_INTERRUPT);

	nested->held = true;
	nested->interrupt = *interrupt;
	if (!(*interrupt & SVM_V_INTR_MASKING))
		*interrupt = (*interrupt & ~SVM_V_TPR) | nested->tpr;
	*interrupt = (*interrupt & ~SVM_V_IRQ) | SVM_V_INTR_MASKING;
	svm_intercept(nested->merged, SVM_EXIT_NMI, true);
}

void svm_gif_release(struct core_vcpu *vcpu)
{
	struct svm_nested *nested = nested_of(vcpu);
	uint64_t *interrupt = vmcb64(nested->merged, VMCB_INTERRUPT), tpr = *interrupt & SVM_V_TPR;
	bool masking = nested->interrupt & SVM_V_INTR_MASKING;

	if (!nested->held)
		return;
	nested->held = false;
	*interrupt = nested->interrupt;
	/* A write to CR8 is to both where the guest's guest has no TPR of its own (15.21.2). */
	if (masking || tpr != nested->tpr)
		*interrupt = (*interrupt & ~SVM_V_TPR) | tpr;
	if (!masking && tpr != nested->tpr) {
		hw_write_cr(8, tpr);
		nested->tpr = tpr;
		*vmcb64(vcpu->svm->own, VMCB_INTERRUPT) = SVM_V_INTR_MASKING | tpr;
	}
	svm_intercept(nested->merged, SVM_EXIT_NMI, svm_nested_wants(vcpu, SVM_EXIT_NMI));
}

void svm_gif_set(struct core_vcpu *vcpu, bool gif)
{
	struct svm_nested *nested = nested_of(vcpu);
	uint64_t *interrupt = vmcb64(vcpu->svm->own, VMCB_INTERRUPT);

	if (nested->gif == gif)
		return;
	nested->gif = gif;
	if (gif) {
		svm_gif_release(vcpu);
		/* What it has written to CR8 meanwhile; a write by way of the APIC's page has reached it. */
		if ((*interrupt & SVM_V_TPR) != nested->tpr)
			hw_write_cr(8, *interrupt & SVM_V_TPR);
		*interrupt = 0;
	} else {
		nested->tpr = hw_read_cr(8) & SVM_V_TPR;
		*interrupt = SVM_V_INTR_MASKING | nested->tpr;
		if (nested->running)
			hold_inner(vcpu);
	}
	svm_own_intercepts(vcpu);
}

/* Where a processor has no such MSR, INITs come as they do. */
void svm_gif_redirect(bool on)
{
	uint64_t vm_cr;

	if (!hw_try_read_msr(MSR_VM_CR, &vm_cr))
		return;
	vm_cr &= ~(uint64_t)VM_CR_R_INIT;
	hw_try_write_msr(MSR_VM_CR, vm_cr | (on ? VM_CR_R_INIT : 0));
}

/* ---- INIT ---- */

/* The processor takes it at the next entry. */
static void take_init(struct core_vcpu *vcpu)
{
	nested_of(vcpu)->init = false;
	svm_gif_redirect(false);
	apic_send_self(vcpu, APIC_INIT);
}

/* It waits, and the guest, or its guest, can have it. */
static void pass_init(struct core_vcpu *vcpu)
{
	struct svm_nested *nested = nested_of(vcpu);
	unsigned sx = SVM_EXIT_EXCEPTION + VECTOR_SX;

	if (!nested->init)
		return;
	if (nested->vm_cr & VM_CR_R_INIT) {
		nested->init = false;
		if (nested->running && svm_nested_wants(vcpu, sx))
			svm_nested_reflect(vcpu, sx, REDIRECTED_INIT, 0);
		else
			svm_raise(vcpu, VECTOR_SX, REDIRECTED_INIT);
	} else if (nested->running && svm_nested_wants(vcpu, SVM_EXIT_INIT)) {
		svm_nested_reflect(vcpu, SVM_EXIT_INIT, 0, 0); /* and it waits on */
	} else {
		take_init(vcpu);
	}
}

bool svm_gif_sx(struct core_vcpu *vcpu)
{
	uint8_t *vmcb = vcpu->svm->vmcb;

	if (!nested_of(vcpu)->svme || *vmcb64(vmcb, VMCB_EXITINFO1) != REDIRECTED_INIT)
		return false;
	svm_redeliver(vcpu);
	nested_of(vcpu)->init = true;
	if (nested_of(vcpu)->gif)
		pass_init(vcpu);
	return true;
}

/* ---- what has waited for GIF ---- */

/* Sent again, now that the processor may take them, so that masks and intercepts have their say. */
static void pass_nmi(struct core_vcpu *vcpu)
{
	if (nested_of(vcpu)->nmi)
		apic_send_self(vcpu, APIC_NMI);
	nested_of(vcpu)->nmi = false;
}

/* Then nobody intercepts SMIs (15.32). */
static bool smm_is_locked(void)
{
	uint64_t hwcr;

	return hw_try_read_msr(MSR_HWCR, &hwcr) && hwcr & HWCR_SMM_LOCK;
}

static void pass_smi(struct core_vcpu *vcpu)
{
	struct svm_nested *nested = nested_of(vcpu);

	if (!nested->smi)
		return;
	if (nested->running && !smm_is_locked() && svm_nested_wants(vcpu, SVM_EXIT_SMI)) {
		svm_nested_reflect(vcpu, SVM_EXIT_SMI, EXTERNAL_SMI, 0); /* and it waits on */
		return;
	}
	nested->smi = false;
	apic_send_self(vcpu, APIC_SMI);
}

bool svm_gif_smm_ctl(struct core_vcpu *vcpu, uint64_t value)
{
	bool done = hw_try_write_msr(MSR_SMM_CTL, value);

	if (done && value & SMM_CTL_DISMISS)
		nested_of(vcpu)->smi = false;
	return done;
}

void svm_gif_opened(struct core_vcpu *vcpu)
{
	pass_init(vcpu);
	if (nested_of(vcpu)->gif)
		pass_smi(vcpu);
	if (nested_of(vcpu)->gif)
		pass_nmi(vcpu);
}

bool svm_holds_smi(struct core_vcpu *vcpu)
{
	if (nested_of(vcpu)->gif)
		return false;
	nested_of(vcpu)->smi = true;
	return true;
}

/* ---- breakpoints ---- */

/* Whether an enabled breakpoint of @hits is on execution, which comes in front of the instruction. */
static bool on_execution(uint64_t hits, uint64_t dr7)
{
	for (unsigned n = 0; n < 4; n++)
		if (hits >> n & 1 && !(dr7 >> (16 + 4 * n) & 3))
			return true;
	return false;
}

bool svm_gif_debug(struct core_vcpu *vcpu)
{
	uint8_t *vmcb = vcpu->svm->vmcb, byte = 0;
	uint64_t *dr6 = vmcb64(vmcb, VMCB_DR6), hits = *dr6 & DR6_HITS,
		 other = *dr6 & ~vcpu->svm->dr6 & ~DR6_HITS;

	if (nested_of(vcpu)->gif || nested_of(vcpu)->running)
		return false;
	if (!hits && svm_fetch(vcpu, &byte, 1) && byte == INT1)
		vcpu->rip++;
	else if (!other && on_execution(hits, *vmcb64(vmcb, VMCB_DR7)))
		*vmcb64(vmcb, VMCB_RFLAGS) |= RFLAGS_RF;
	*dr6 = vcpu->svm->dr6 | other;
	if (other || byte == INT1)
		svm_raise_upon(vcpu, VECTOR_DB, false, 0);
	else
		svm_redeliver(vcpu);
	return true;
}
