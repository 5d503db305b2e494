/* svm_gif_test.c: what waits for a guest's GIF. */
#include "kmod/test/svm_rig.h"

static void events_wait_for_gif(void **state)
{
	(void)state;
	prepare_inner(false);
	exits(SVM_EXIT_CLGI, 0, 0, 0);
	assert_true(svm_intercepted(own(), SVM_EXIT_NMI));
	fake.nmi = true;
	exits(SVM_EXIT_NMI, 0, 0, 0);
	assert_true(vcpu.svm->nested.nmi);
	assert_int_equal(*(uint32_t *)hw_map(FAKE_APIC + 0x300), 0);
	exits(SVM_EXIT_STGI, 0, 0, 0);
	assert_int_equal(*(uint32_t *)hw_map(FAKE_APIC + 0x300), 0x4400); /* sent again */
	assert_false(svm_intercepted(own(), SVM_EXIT_NMI));
	assert_false(vcpu.svm->nested.nmi);
}

static void init_waits_for_gif(void **state)
{
	(void)state;
	prepare_inner(false);
	assert_true(fake_msr_value(MSR_VM_CR) & VM_CR_R_INIT);
	exits(SVM_EXIT_CLGI, 0, 0, 0);
	exits(SVM_EXIT_EXCEPTION + VECTOR_SX, 1, 0, 0);
	assert_true(vcpu.svm->nested.init);
	/* An exit of its guest, where it has asked for it. */
	svm_intercept(inner(), SVM_EXIT_INIT, true);
	run_inner();
	assert_int_equal(*vmcb64(inner(), VMCB_EXITCODE), SVM_EXIT_INIT);
	assert_true(vcpu.svm->nested.init);
	exits(SVM_EXIT_STGI, 0, 0, 0);
	assert_int_equal(*(uint32_t *)hw_map(FAKE_APIC + 0x300), 0x4500);
	assert_false(fake_msr_value(MSR_VM_CR) & VM_CR_R_INIT);
}

static void breakpoints_are_dropped(void **state)
{
	(void)state;
	prepare_inner(false);
	exits(SVM_EXIT_CLGI, 0, 0, 0);
	assert_true(svm_intercepted(own(), SVM_EXIT_EXCEPTION + VECTOR_DB));
	*vmcb64(own(), VMCB_DR7) = 0x401; /* on execution */
	next.code = 0;
	vcpu.svm->dr6 = DR6_FIXED_1;
	*vmcb64(own(), VMCB_DR6) = DR6_FIXED_1 | 1;
	assert_true(svm_gif_debug(&vcpu));
	assert_int_equal(*vmcb64(own(), VMCB_DR6), DR6_FIXED_1);
	assert_true(*vmcb64(own(), VMCB_RFLAGS) & RFLAGS_RF);
	assert_false(injected() & SVM_EVENT_VALID);
	/* A single step is none. */
	*vmcb64(own(), VMCB_DR6) = DR6_FIXED_1 | DR6_BS;
	assert_true(svm_gif_debug(&vcpu));
	assert_int_equal(injected(), exception(VECTOR_DB, 0));
}

/* CLGI of the guest's guest: its virtual interrupt waits, and physical ones and NMIs; the exit tells what it
 * had. */
static void interrupts_of_a_guests_guest_wait(void **state)
{
	uint64_t *merged;

	(void)state;
	prepare_inner(false);
	svm_intercept(inner(), SVM_EXIT_HLT, true);
	*vmcb64(own(), VMCB_RFLAGS) |= RFLAGS_IF;
	*vmcb64(inner(), VMCB_INTERRUPT) = SVM_V_IRQ | 3;
	run_inner();
	merged = vmcb64(vcpu.svm->nested.merged, VMCB_INTERRUPT);
	assert_int_equal(*merged, SVM_V_IRQ | 3);
	exits(SVM_EXIT_CLGI, 0, 0, 0);
	assert_int_equal(*merged & (SVM_V_IRQ | SVM_V_INTR_MASKING), SVM_V_INTR_MASKING);
	fake.nmi = true;
	exits(SVM_EXIT_NMI, 0, 0, 0);
	assert_true(vcpu.svm->nested.running);
	assert_true(vcpu.svm->nested.nmi);
	assert_false(fake.last_interrupts);
	exits(SVM_EXIT_STGI, 0, 0, 0);
	assert_int_equal(*merged, SVM_V_IRQ | 3);
	exits(SVM_EXIT_CLGI, 0, 0, 0);
	exits(SVM_EXIT_HLT, 0, 0, 0);
	assert_int_equal(*vmcb64(inner(), VMCB_INTERRUPT), SVM_V_IRQ | 3);
	/* A TPR that is its own, and was written meanwhile. */
	*vmcb64(inner(), VMCB_INTERRUPT) = SVM_V_IRQ | SVM_V_INTR_MASKING | 3;
	run_inner();
	exits(SVM_EXIT_CLGI, 0, 0, 0);
	*merged = (*merged & ~SVM_V_TPR) | 7;
	exits(SVM_EXIT_HLT, 0, 0, 0);
	assert_int_equal(*vmcb64(inner(), VMCB_INTERRUPT), SVM_V_IRQ | SVM_V_INTR_MASKING | 7);
}

/* Physical interrupts are masked by our own IF, which is as it was at the guest's VMRUN. */
static void interrupts_of_the_host(void **state)
{
	(void)state;
	prepare_inner(false);
	svm_intercept(inner(), SVM_EXIT_HLT, true);
	*vmcb64(own(), VMCB_RFLAGS) |= RFLAGS_IF;
	run_inner();
	exits(SVM_EXIT_HLT, 0, 0, 0);
	assert_true(fake.last_interrupts);
	*vmcb64(own(), VMCB_RFLAGS) &= ~(uint64_t)RFLAGS_IF;
	run_inner();
	exits(SVM_EXIT_HLT, 0, 0, 0);
	assert_false(fake.last_interrupts);
}

static uint32_t sent(void) { return *(uint32_t *)hw_map(FAKE_APIC + 0x300); }

/* One that waits for GIF comes then, or is dismissed; where it may not be written, SMM_CTL changes nothing.
 */
static void smi_is_dismissed(void **state)
{
	(void)state;
	prepare_inner(false);
	fake_msr(MSR_SMM_CTL, 0, SMM_CTL_DISMISS | SMM_CTL_ENTER);
	assert_false(svm_holds_smi(&vcpu)); /* GIF is 1 */
	exits(SVM_EXIT_CLGI, 0, 0, 0);
	assert_true(svm_holds_smi(&vcpu));
	vcpu.gpr[RCX] = MSR_SMM_CTL;
	vcpu.gpr[RAX] = 1u << 5;
	exits(SVM_EXIT_MSR, 1, 0, 0);
	assert_int_equal(injected(), exception(VECTOR_GP, 0));
	vcpu.gpr[RAX] = SMM_CTL_ENTER;
	exits(SVM_EXIT_MSR, 1, 0, 0);
	assert_true(vcpu.svm->nested.smi);
	vcpu.gpr[RAX] = SMM_CTL_DISMISS;
	exits(SVM_EXIT_MSR, 1, 0, 0);
	assert_false(vcpu.svm->nested.smi);
	exits(SVM_EXIT_STGI, 0, 0, 0);
	assert_int_equal(sent(), 0);
	exits(SVM_EXIT_CLGI, 0, 0, 0);
	assert_true(svm_holds_smi(&vcpu));
	exits(SVM_EXIT_STGI, 0, 0, 0);
	assert_int_equal(sent(), 0x4200);
}

/* CR8 as the guest wrote it meanwhile; the page of the local APIC it has reached by itself. */
static void task_priority(void **state)
{
	(void)state;
	prepare_inner(false);
	fake.cr8 = 5;
	exits(SVM_EXIT_CLGI, 0, 0, 0);
	assert_int_equal(*vmcb64(own(), VMCB_INTERRUPT) & SVM_V_TPR, 5);
	fake.cr8 = 3;
	exits(SVM_EXIT_STGI, 0, 0, 0);
	assert_int_equal(fake.cr8, 3);
	exits(SVM_EXIT_CLGI, 0, 0, 0);
	*vmcb64(own(), VMCB_INTERRUPT) = SVM_V_INTR_MASKING | 9;
	exits(SVM_EXIT_STGI, 0, 0, 0);
	assert_int_equal(fake.cr8, 9);
	assert_int_equal(*vmcb64(own(), VMCB_INTERRUPT), 0);
}

#define SX (SVM_EXIT_EXCEPTION + VECTOR_SX)

static void guest_redirects_init(void)
{
	vcpu.gpr[RCX] = MSR_VM_CR;
	vcpu.gpr[RAX] = VM_CR_R_INIT;
	vcpu.gpr[RDX] = 0;
	exits(SVM_EXIT_MSR, 1, 0, 0);
}

/* Where the guest too has INITs made #SX: of whoever runs. */
static void init_is_redirected(void **state)
{
	(void)state;
	prepare_inner(false);
	guest_redirects_init();
	exits(SX, 1, 0, 0);
	assert_int_equal(injected(), exception(VECTOR_SX, 1));
	assert_false(vcpu.svm->nested.init);
	run_inner();
	exits(SX, 1, 0, 0);
	assert_true(vcpu.svm->nested.running);
	assert_int_equal(injected(), exception(VECTOR_SX, 1));
	svm_intercept(inner(), SX, true);
	exits(SX, 1, 0, 0);
	assert_false(vcpu.svm->nested.running);
	assert_int_equal(*vmcb64(inner(), VMCB_EXITCODE), SX);
	assert_int_equal(*vmcb64(inner(), VMCB_EXITINFO1), 1);
	assert_false(vcpu.svm->nested.init);
	assert_int_equal(sent(), 0);
}

/* Another #SX is none of ours. */
static void other_sx(void **state)
{
	(void)state;
	prepare_inner(false);
	svm_intercept(inner(), SX, true);
	run_inner();
	exits(SX, 2, 0, 0);
	assert_false(vcpu.svm->nested.init);
	assert_int_equal(*vmcb64(inner(), VMCB_EXITCODE), SX);
	assert_int_equal(*vmcb64(inner(), VMCB_EXITINFO1), 2);
	exits(SVM_EXIT_STGI, 0, 0, 0);
	assert_true(fake_catches(exits(SX, 2, 0, 0)));
}

/* An SMI that has waited is an exit of the guest's guest where the guest wants it and SMM is not locked. */
static void smi_comes_with_gif(void **state)
{
	(void)state;
	prepare_inner(false);
	exits(SVM_EXIT_CLGI, 0, 0, 0);
	assert_true(svm_holds_smi(&vcpu));
	svm_intercept(inner(), SVM_EXIT_SMI, true);
	run_inner();
	assert_false(vcpu.svm->nested.running);
	assert_int_equal(*vmcb64(inner(), VMCB_EXITCODE), SVM_EXIT_SMI);
	assert_int_equal(*vmcb64(inner(), VMCB_EXITINFO1), 1);
	assert_true(vcpu.svm->nested.smi); /* it waits on */
	assert_int_equal(sent(), 0);
	fake_msr(MSR_HWCR, HWCR_SMM_LOCK, 0);
	run_inner();
	assert_true(vcpu.svm->nested.running);
	assert_int_equal(sent(), 0x4200);
	/* It does not want it. */
	setup(NULL);
	prepare_inner(false);
	exits(SVM_EXIT_CLGI, 0, 0, 0);
	assert_true(svm_holds_smi(&vcpu));
	run_inner();
	assert_true(vcpu.svm->nested.running);
	assert_int_equal(sent(), 0x4200);
}

/* INT1 is no breakpoint; a hit on data is dropped without RF. */
static void no_breakpoints(void **state)
{
	(void)state;
	prepare_inner(false);
	assert_false(svm_gif_debug(&vcpu)); /* GIF is 1 */
	exits(SVM_EXIT_CLGI, 0, 0, 0);
	vcpu.svm->dr6 = *vmcb64(own(), VMCB_DR6) = DR6_FIXED_1;
	*vmcb64(own(), VMCB_CR0) &= ~(uint64_t)CR0_PG;
	vcpu.rip = CODE;
	*(uint8_t *)fake_memory(CODE) = 0xf1;
	assert_true(svm_gif_debug(&vcpu));
	assert_int_equal(vcpu.rip, CODE + 1);
	assert_int_equal(injected(), exception(VECTOR_DB, 0));
	/* The byte at RIP does not matter to a hit. */
	*vmcb64(own(), VMCB_EVENTINJ) = *vmcb64(own(), VMCB_RFLAGS) = 0;
	vcpu.rip = CODE;
	*vmcb64(own(), VMCB_DR6) = DR6_FIXED_1 | 2;
	*vmcb64(own(), VMCB_DR7) = 1u << 20;
	assert_true(svm_gif_debug(&vcpu));
	assert_int_equal(vcpu.rip, CODE);
	assert_false(injected() & SVM_EVENT_VALID);
	assert_false(*vmcb64(own(), VMCB_RFLAGS) & RFLAGS_RF);
	assert_int_equal(*vmcb64(own(), VMCB_DR6), DR6_FIXED_1);
	/* Nor do bits that were set before. */
	*(uint8_t *)fake_memory(CODE) = 0x90;
	*vmcb64(own(), VMCB_DR6) = DR6_FIXED_1;
	*vmcb64(own(), VMCB_EXITINTINFO) = 0;
	assert_true(svm_gif_debug(&vcpu));
	assert_int_equal(vcpu.rip, CODE);
	assert_false(injected() & SVM_EVENT_VALID);
}

/* The task priority of a guest's guest that shares its hypervisor's, and an NMI that this one intercepts. */
static void priority_of_a_guests_guest(void **state)
{
	uint64_t *merged;

	(void)state;
	prepare_inner(false);
	svm_intercept(inner(), SVM_EXIT_NMI, true);
	*vmcb64(inner(), VMCB_INTERRUPT) = 2;
	fake.cr8 = 4;
	run_inner();
	merged = vmcb64(vcpu.svm->nested.merged, VMCB_INTERRUPT);
	exits(SVM_EXIT_CLGI, 0, 0, 0);
	assert_int_equal(*merged & SVM_V_TPR, 4);
	fake.nmi = true;
	exits(SVM_EXIT_NMI, 0, 0, 0);
	assert_true(vcpu.svm->nested.running); /* it waits */
	fake.cr8 = 5;                          /* by the local APIC's page */
	exits(SVM_EXIT_STGI, 0, 0, 0);
	assert_int_equal(fake.cr8, 5);
	exits(SVM_EXIT_NMI, 0, 0, 0);
	assert_int_equal(*vmcb64(inner(), VMCB_EXITCODE), SVM_EXIT_NMI);
	run_inner();
	exits(SVM_EXIT_CLGI, 0, 0, 0);
	*merged = (*merged & ~SVM_V_TPR) | 6; /* MOV to CR8 */
	exits(SVM_EXIT_STGI, 0, 0, 0);
	assert_int_equal(fake.cr8, 6);
	/* One of its own does not reach its hypervisor's. */
	svm_intercept(inner(), SVM_EXIT_HLT, true);
	exits(SVM_EXIT_HLT, 0, 0, 0);
	*vmcb64(inner(), VMCB_INTERRUPT) = SVM_V_INTR_MASKING | 2;
	run_inner();
	exits(SVM_EXIT_CLGI, 0, 0, 0);
	assert_int_equal(*merged & SVM_V_TPR, 2);
	*merged = (*merged & ~SVM_V_TPR) | 9;
	exits(SVM_EXIT_STGI, 0, 0, 0);
	assert_int_equal(fake.cr8, 6);
	assert_int_equal(*merged & SVM_V_TPR, 9);
}

/* An INIT that has waited, of a guest's guest whose hypervisor does not intercept it: the processor's. */
static void init_of_nobody(void **state)
{
	(void)state;
	prepare_inner(false);
	run_inner();
	exits(SX, 1, 0, 0);
	assert_int_equal(sent(), 0x4500);
	assert_false(vcpu.svm->nested.init);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(events_wait_for_gif, setup),
		cmocka_unit_test_setup(init_waits_for_gif, setup),
		cmocka_unit_test_setup(breakpoints_are_dropped, setup),
		cmocka_unit_test_setup(interrupts_of_a_guests_guest_wait, setup),
		cmocka_unit_test_setup(interrupts_of_the_host, setup),
		cmocka_unit_test_setup(smi_is_dismissed, setup),
		cmocka_unit_test_setup(task_priority, setup),
		cmocka_unit_test_setup(init_is_redirected, setup),
		cmocka_unit_test_setup(other_sx, setup),
		cmocka_unit_test_setup(smi_comes_with_gif, setup),
		cmocka_unit_test_setup(no_breakpoints, setup),
		cmocka_unit_test_setup(priority_of_a_guests_guest, setup),
		cmocka_unit_test_setup(init_of_nobody, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
