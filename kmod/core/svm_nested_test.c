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
	assert_int_equal(*vmcb64(inner(), VMCB_NRIP), 0); /* it is none of an instruction */
	assert_int_equal(*vmcb64(inner(), VMCB_EXITINFO1), 0);
	assert_int_equal(*vmcb64(inner(), VMCB_NRIP), 0);
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

/* ---- MSRs of AMD-V ---- */

static bool reads(uint32_t index)
{
	vcpu.gpr[RCX] = index;
	exits(SVM_EXIT_MSR, 0, 0, 0);
	return !(injected() & SVM_EVENT_VALID);
}

static bool writes(uint32_t index, uint64_t value)
{
	vcpu.gpr[RCX] = index;
	vcpu.gpr[RAX] = (uint32_t)value;
	vcpu.gpr[RDX] = value >> 32;
	exits(SVM_EXIT_MSR, 1, 0, 0);
	return !(injected() & SVM_EVENT_VALID);
}

static void msrs_of_the_extension(void **state)
{
	(void)state;
	fake_msr(MSR_TSC_RATIO, 0, ~0ull);
	fake_msr(MSR_SVM_KEY, 0, ~0ull);
	assert_true(reads(MSR_VM_CR));
	assert_true(reads(MSR_VM_HSAVE_PA));
	assert_true(reads(MSR_SVM_KEY));
	assert_false(reads(MSR_TSC_RATIO)); /* not nested */
	assert_false(writes(MSR_TSC_RATIO, 0));
	assert_true(writes(MSR_VM_HSAVE_PA, 0x50000));
	assert_true(reads(MSR_VM_HSAVE_PA));
	assert_int_equal(vcpu.gpr[RAX], 0x50000);
	assert_false(writes(MSR_VM_HSAVE_PA, 0x50001));
	assert_false(writes(MSR_VM_HSAVE_PA, 1ull << 48));
	assert_false(writes(MSR_VM_HSAVE_PA, FAKE_HIDDEN));
	assert_int_equal(vcpu.svm->nested.hsave, 0x50000);
	assert_false(writes(MSR_VM_CR, 1u << 5));
	assert_true(writes(MSR_VM_CR, VM_CR_SVMDIS));
	assert_false(writes(MSR_EFER, EFER_SVME));
	assert_true(writes(MSR_VM_CR, 0));
	assert_true(writes(MSR_EFER, EFER_SVME));
	assert_true(writes(MSR_VM_CR, VM_CR_R_INIT));
	assert_false(writes(MSR_VM_CR, VM_CR_SVMDIS));
	assert_true(writes(MSR_VM_CR, VM_CR_LOCK));
	assert_true(writes(MSR_VM_CR, 0));
	assert_int_equal(vcpu.svm->nested.vm_cr, VM_CR_LOCK);
	start(false, 1);
	fake_msr(MSR_SVM_KEY, 0, ~0ull);
	assert_false(reads(MSR_VM_CR));
	assert_false(reads(MSR_VM_HSAVE_PA));
	assert_false(reads(MSR_SVM_KEY));
	assert_false(writes(MSR_VM_CR, 0));
	assert_false(writes(MSR_EFER, EFER_SVME));
}

static void loads_and_saves(void **state)
{
	unsigned loads, saves;

	(void)state;
	prepare_inner(false);
	vcpu.gpr[RAX] = INNER;
	loads = fake.loads;
	saves = fake.saves;
	exits(SVM_EXIT_VMLOAD, 0, 0, 0);
	assert_int_equal(fake.loads, loads + 1);
	assert_int_equal(fake.saves, saves);
	exits(SVM_EXIT_VMSAVE, 0, 0, 0);
	assert_int_equal(fake.saves, saves + 1);
	vcpu.gpr[RAX] = INNER + 8;
	exits(SVM_EXIT_VMSAVE, 0, 0, 0);
	assert_int_equal(injected(), exception(VECTOR_GP, 0));
	assert_int_equal(fake.saves, saves + 1);
	vcpu.gpr[RAX] = INNER | 1ull << 32; /* 32 bits of it outside of 64-bit mode */
	*vmcb16(own(), VMCB_CS + 2) &= (uint16_t) ~(1u << 9);
	exits(SVM_EXIT_VMLOAD, 0, 0, 0);
	assert_int_equal(fake.loads, loads + 2);
	*vmcb16(own(), VMCB_CS + 2) |= 1u << 9;
	exits(SVM_EXIT_VMLOAD, 0, 0, 0);
	assert_int_equal(injected(), exception(VECTOR_GP, 0));
}

/* ---- PDPTEs (15.5.1, 15.6) ---- */

#define PDPT 0x60000ull

/* A guest's guest in PAE paging, the second PDPTE of which is @pdpte; whether VMRUN takes it. */
static bool enters_pae(bool npt, uint64_t efer, uint64_t cr0, uint64_t cr4, uint64_t pdpte)
{
	start(true, 1);
	prepare_inner(npt);
	*fake_quad(PDPT + 8) = pdpte;
	*vmcb64(inner(), VMCB_EFER) = EFER_SVME | efer;
	*vmcb64(inner(), VMCB_CR0) = cr0;
	*vmcb64(inner(), VMCB_CR4) = cr4;
	*vmcb64(inner(), VMCB_CR3) = PDPT;
	run_inner();
	return vcpu.svm->nested.running;
}

static void pdptes_are_checked(void **state)
{
	const uint64_t paged = CR0_PE | CR0_PG, bad = PTE_P | 1u << 5, far = PTE_P | 1ull << 48;

	(void)state;
	assert_true(enters_pae(false, 0, paged, CR4_PAE, PTE_P));
	assert_false(enters_pae(false, 0, paged, CR4_PAE, bad));
	assert_false(enters_pae(false, 0, paged, CR4_PAE, far));
	assert_true(enters_pae(false, 0, paged, CR4_PAE, bad & ~PTE_P));
	assert_true(enters_pae(false, EFER_LME, paged, CR4_PAE, bad));
	assert_true(enters_pae(false, 0, CR0_PE, CR4_PAE, bad));
	assert_true(enters_pae(false, 0, paged, 0, bad));
	assert_true(enters_pae(true, 0, paged, CR4_PAE, bad)); /* each walk reads them */
}

/* The host's, behind #VMEXIT. */
static void host_pdptes(void **state)
{
	(void)state;
	prepare_inner(false);
	svm_intercept(inner(), SVM_EXIT_HLT, true);
	*vmcb64(own(), VMCB_EFER) = EFER_SVME;
	*vmcb64(own(), VMCB_CR3) = PDPT;
	run_inner();
	*fake_quad(PDPT) = PTE_P | 1u << 6;
	assert_true(fake_catches(exits(SVM_EXIT_HLT, 0, 0, 0)));
	assert_true(fake.shut_down);
}

/* ---- what VMRUN needs, and what goes over ---- */

static void nested_paging_needs_paging(void **state)
{
	(void)state;
	prepare_inner(true);
	*vmcb64(own(), VMCB_CR0) &= ~(uint64_t)CR0_PG;
	run_inner();
	assert_int_equal(*vmcb64(inner(), VMCB_EXITCODE), (uint64_t)SVM_EXIT_INVALID);
	*vmcb64(own(), VMCB_CR0) |= CR0_PG;
	*vmcb64(inner(), VMCB_NCR3) = 1ull << 48;
	run_inner();
	assert_false(vcpu.svm->nested.running);
	*vmcb64(inner(), VMCB_NESTED) = 0; /* nobody reads it */
	*vmcb64(own(), VMCB_CR0) &= ~(uint64_t)CR0_PG;
	run_inner();
	assert_true(vcpu.svm->nested.running);
}

static void pat_with_nested_paging(void **state)
{
	(void)state;
	prepare_inner(true);
	svm_intercept(inner(), SVM_EXIT_HLT, true);
	*vmcb64(own(), VMCB_G_PAT) = 0x11;
	*vmcb64(inner(), VMCB_G_PAT) = 0x22;
	run_inner();
	assert_int_equal(*vmcb64(vcpu.svm->vmcb, VMCB_G_PAT), 0x22);
	*vmcb64(vcpu.svm->vmcb, VMCB_G_PAT) = 0x33;
	exits(SVM_EXIT_HLT, 0, 0, 0);
	assert_int_equal(*vmcb64(inner(), VMCB_G_PAT), 0x33);
	assert_int_equal(*vmcb64(own(), VMCB_G_PAT), 0x11);
	*vmcb64(inner(), VMCB_NESTED) = 0; /* then both have one */
	run_inner();
	assert_int_equal(*vmcb64(vcpu.svm->vmcb, VMCB_G_PAT), 0x11);
	*vmcb64(vcpu.svm->vmcb, VMCB_G_PAT) = 0x44;
	exits(SVM_EXIT_HLT, 0, 0, 0);
	assert_int_equal(*vmcb64(inner(), VMCB_G_PAT), 0x33);
	assert_int_equal(*vmcb64(own(), VMCB_G_PAT), 0x44);
}

static void assists_go_over(void **state)
{
	(void)state;
	for (unsigned has = 0; has < 2; has++) {
		start(true, 1);
		prepare_inner(false);
		svm_intercept(inner(), SVM_EXIT_HLT, true);
		run_inner();
		vcpu.svm->nrips = vcpu.svm->decode = has;
		*vmcb64(vcpu.svm->vmcb, VMCB_FETCHED) = 0x5;
		exits(SVM_EXIT_HLT, 0, 0, 0);
		assert_int_equal(*vmcb64(inner(), VMCB_NRIP), has ? 0x7003 : 0);
		assert_int_equal(*vmcb64(inner(), VMCB_FETCHED), has ? 5 : 0);
	}
}

/* Without nested tables of its own its guest's faults are ours. */
static void faults_without_nested_paging(void **state)
{
	(void)state;
	prepare_inner(false);
	svm_intercept(inner(), SVM_EXIT_INIT, true);
	run_inner();
	exits(SVM_EXIT_NPF, PF_U, 0x80000000ull, exception(VECTOR_UD, 0));
	assert_true(vcpu.svm->nested.running);
	assert_int_equal(entry_at(vcpu.tables, 0x80000000ull, 1) & ~0xfffull, 0x80000000ull);
	assert_int_equal(injected(), exception(VECTOR_UD, 0));
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
		cmocka_unit_test_setup(msrs_of_the_extension, setup),
		cmocka_unit_test_setup(loads_and_saves, setup),
		cmocka_unit_test_setup(pdptes_are_checked, setup),
		cmocka_unit_test_setup(host_pdptes, setup),
		cmocka_unit_test_setup(nested_paging_needs_paging, setup),
		cmocka_unit_test_setup(pat_with_nested_paging, setup),
		cmocka_unit_test_setup(assists_go_over, setup),
		cmocka_unit_test_setup(faults_without_nested_paging, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
