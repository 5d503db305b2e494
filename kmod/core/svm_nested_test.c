/* svm_nested_test.c: a guest that is a hypervisor: its instructions, what VMRUN makes of its control block,
 * exits. */
#include "kmod/test/svm_rig.h"

static void instructions_need_svme(void **state)
{
	(void)state;
	exits(SVM_EXIT_VMRUN, 0, 0, 0);
	assert_int_equal(injected(), exception(VECTOR_UD, 0));
	prepare_inner(false);
	vcpu.gpr[RAX] = INNER + 8;
	exits(SVM_EXIT_VMRUN, 0, 0, 0);
	assert_int_equal(injected(), exception(VECTOR_GP, 0));
	vcpu.gpr[RAX] = FAKE_HIDDEN;
	exits(SVM_EXIT_VMLOAD, 0, 0, 0);
	assert_int_equal(injected(), exception(VECTOR_GP, 0));
	exits(SVM_EXIT_SKINIT, 0, 0, 0);
	assert_int_equal(injected(), exception(VECTOR_UD, 0));
}

static void vmrun_refuses(void **state)
{
	static const struct {
		unsigned offset;
		uint64_t value;
	} bad[] = {{VMCB_ASID, 0}, {VMCB_MSRPM_BASE, FAKE_HIDDEN}, {VMCB_MSRPM_BASE, 1ull << 50}};

	(void)state;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		start(true, 1);
		prepare_inner(false);
		if (bad[i].offset == VMCB_ASID)
			*vmcb32(inner(), VMCB_ASID) = 0;
		else
			*vmcb64(inner(), bad[i].offset) = bad[i].value;
		run_inner();
		assert_int_equal(*vmcb64(inner(), VMCB_EXITCODE), (uint64_t)SVM_EXIT_INVALID);
		assert_false(vcpu.svm->nested.running);
		assert_false(vcpu.svm->nested.gif);
		assert_ptr_equal(vcpu.svm->vmcb, own());
	}
	start(true, 1);
	prepare_inner(false);
	svm_intercept(inner(), SVM_EXIT_VMRUN, false);
	run_inner();
	assert_int_equal(*vmcb64(inner(), VMCB_EXITCODE), (uint64_t)SVM_EXIT_INVALID);
}

static void intercepts_are_merged(void **state)
{
	uint8_t *merged = vcpu.svm->nested.merged;

	(void)state;
	prepare_inner(false);
	svm_intercept(inner(), SVM_EXIT_HLT, true);
	*vmcb64(inner(), VMCB_EVENTINJ) = exception(VECTOR_PF, 4);
	run_inner();
	assert_true(vcpu.svm->nested.running);
	assert_ptr_equal(vcpu.svm->vmcb, merged);
	assert_int_equal(vcpu.rip, 0x7000);
	assert_true(svm_intercepted(merged, SVM_EXIT_HLT));    /* the guest's */
	assert_true(svm_intercepted(merged, SVM_EXIT_CPUID));  /* ours */
	assert_false(svm_intercepted(merged, SVM_EXIT_RDTSC)); /* nobody's */
	assert_int_equal(*vmcb32(merged, VMCB_ASID), SVM_ASID_NESTED);
	assert_int_equal(injected(), exception(VECTOR_PF, 4));
	/* Ours alone is not the guest's to see. */
	vcpu.gpr[RAX] = 1;
	exits(SVM_EXIT_CPUID, 0, 0, 0);
	assert_true(vcpu.svm->nested.running);
	assert_int_equal(vcpu.rip, 0x7003);
	/* The guest's is reflected, with all that the exit tells. */
	exits(SVM_EXIT_HLT, 0x11, 0x22, exception(VECTOR_PF, 6));
	assert_false(vcpu.svm->nested.running);
	assert_int_equal(*vmcb64(inner(), VMCB_EXITCODE), SVM_EXIT_HLT);
	assert_int_equal(*vmcb64(inner(), VMCB_EXITINFO1), 0x11);
	assert_int_equal(*vmcb64(inner(), VMCB_EXITINFO2), 0x22);
	assert_int_equal(*vmcb64(inner(), VMCB_EXITINTINFO), exception(VECTOR_PF, 6));
	assert_int_equal(*vmcb64(inner(), VMCB_RIP), 0x7003);
	assert_int_equal(*vmcb64(inner(), VMCB_EVENTINJ) & SVM_EVENT_VALID, 0);
	assert_int_equal(vcpu.rip, CODE + 6); /* behind its VMRUN */
	assert_int_equal(vcpu.gpr[RAX], INNER);
	assert_false(vcpu.svm->nested.gif);
	assert_int_equal(*vmcb64(own(), VMCB_INTERRUPT) & SVM_V_INTR_MASKING, SVM_V_INTR_MASKING);
}

/* Every bit of both maps counts. */
static void msr_permissions_are_merged(void **state)
{
	unsigned byte, bit;
	uint8_t *map;

	(void)state;
	prepare_inner(false);
	assert_true(svm_msr_bit(MSR_STAR, &byte, &bit));
	((uint8_t *)fake_memory(INNER_MAP))[byte] = (uint8_t)(1u << bit); /* reads */
	run_inner();
	map = fake_memory(*vmcb64(vcpu.svm->vmcb, VMCB_MSRPM_BASE));
	for (unsigned i = 0; i < SVM_MSRPM_SIZE; i++)
		assert_int_equal(map[i], vcpu.svm->msrpm[i] | ((uint8_t *)fake_memory(INNER_MAP))[i]);
	assert_true(svm_msr_intercepted(map, MSR_STAR, false));
	assert_false(svm_msr_intercepted(map, MSR_STAR, true));
	assert_true(svm_msr_intercepted(map, MSR_EFER, true));
	/* Ours is done for the guest's guest; theirs is theirs. */
	vcpu.gpr[RCX] = MSR_VM_CR;
	exits(SVM_EXIT_MSR, 0, 0, 0);
	assert_true(vcpu.svm->nested.running);
	vcpu.gpr[RCX] = MSR_STAR;
	exits(SVM_EXIT_MSR, 0, 0, 0);
	assert_false(vcpu.svm->nested.running);
	assert_int_equal(*vmcb64(inner(), VMCB_EXITCODE), SVM_EXIT_MSR);
}

static void ports_are_the_guests(void **state)
{
	(void)state;
	prepare_inner(false);
	*vmcb64(inner(), VMCB_IOPM_BASE) = 0x50000;
	svm_intercept(inner(), SVM_EXIT_IOIO, true);
	run_inner();
	assert_int_equal(*vmcb64(vcpu.svm->vmcb, VMCB_IOPM_BASE), 0x50000);
	assert_true(svm_intercepted(vcpu.svm->vmcb, SVM_EXIT_IOIO));
}

/* An exception that we raise for the guest's guest is an exit where the guest intercepts it. */
static void exceptions_of_ours_are_reflected(void **state)
{
	(void)state;
	prepare_inner(false);
	run_inner();
	vcpu.gpr[RCX] = MSR_VM_CR;
	vcpu.gpr[RAX] = ~0ull;
	exits(SVM_EXIT_MSR, 1, 0, 0);
	assert_true(vcpu.svm->nested.running);
	assert_int_equal(injected(), exception(VECTOR_GP, 0));
	svm_intercept(inner(), SVM_EXIT_EXCEPTION + VECTOR_GP, true);
	exits(SVM_EXIT_MSR, 1, 0, 0);
	assert_false(vcpu.svm->nested.running);
	assert_int_equal(*vmcb64(inner(), VMCB_EXITCODE), SVM_EXIT_EXCEPTION + VECTOR_GP);
	assert_int_equal(*vmcb64(inner(), VMCB_EXITINFO1), 0);
}

/* Before a double fault is made of it. */
static void exceptions_on_top(void **state)
{
	(void)state;
	prepare_inner(false);
	svm_intercept(inner(), SVM_EXIT_EXCEPTION + VECTOR_GP, true);
	run_inner();
	*vmcb64(vcpu.svm->vmcb, VMCB_EXITINTINFO) = exception(VECTOR_NP, 8);
	svm_raise_upon(&vcpu, VECTOR_NP, true, 0x10);
	assert_int_equal(injected(), exception(VECTOR_DF, 0));
	svm_raise_upon(&vcpu, VECTOR_GP, true, 0x18);
	assert_int_equal(*vmcb64(inner(), VMCB_EXITCODE), SVM_EXIT_EXCEPTION + VECTOR_GP);
	assert_int_equal(*vmcb64(inner(), VMCB_EXITINFO1), 0x18);
	assert_int_equal(*vmcb64(inner(), VMCB_EXITINTINFO), exception(VECTOR_NP, 8));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(instructions_need_svme, setup),
		cmocka_unit_test(vmrun_refuses),
		cmocka_unit_test_setup(intercepts_are_merged, setup),
		cmocka_unit_test_setup(msr_permissions_are_merged, setup),
		cmocka_unit_test_setup(ports_are_the_guests, setup),
		cmocka_unit_test_setup(exceptions_of_ours_are_reflected, setup),
		cmocka_unit_test_setup(exceptions_on_top, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
