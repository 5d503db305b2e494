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

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(events_wait_for_gif, setup),
		cmocka_unit_test_setup(init_waits_for_gif, setup),
		cmocka_unit_test_setup(breakpoints_are_dropped, setup),
		cmocka_unit_test_setup(interrupts_of_the_host, setup),
		cmocka_unit_test_setup(smi_is_dismissed, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
