/* svm_shadow_test.c: nested tables of a guest that is a hypervisor, joined with ours. */
#include "kmod/test/svm_rig.h"

static void tables_are_joined(void **state)
{
	(void)state;
	prepare_inner(true);
	run_inner();
	NPF(0x3000, PF_U);
	assert_true(vcpu.svm->nested.running);
	assert_int_equal(entry_at(joined(), 0x3000, 1) & ~(0xfffull), 0x600000);
	assert_false(entry_at(joined(), 0x3000, 1) & PTE_W); /* D is yet to be set */
	assert_true(*fake_quad(NPT + 0x2000) & PTE_A);
	assert_false(*fake_quad(NPT + 0x2000) & PTE_D);
	NPF(0x3000, PF_U | PF_P | PF_W);
	assert_true(entry_at(joined(), 0x3000, 1) & PTE_W);
	assert_true(*fake_quad(NPT + 0x2000) & PTE_D);
	/* 4 KiB, with the rights of its own. */
	NPF(0x200000, PF_U);
	assert_int_equal(entry_at(joined(), 0x200000, 0) & ~(0xfffull | PTE_NX), 0x801000);
	assert_int_equal(entry_at(joined(), 0x200000, 0) & (PTE_W | PTE_NX), PTE_NX);
}

static void refusals_are_the_guests(void **state)
{
	static const struct {
		uint64_t address, access, error;
	} row[] = {
		{0x200000, PF_W, PF_P | PF_W}, /* read-only */
		{0x200000, PF_I, PF_P | PF_I}, /* not to be executed */
		{0x400000, 0, 0},              /* not present */
		{1ull << 40, 0, 0},            /* in no table */
		{0x600000, 0, PF_P | PF_RSVD}, /* bits beyond the physical addresses */
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
		start(true, 1);
		prepare_inner(true);
		*fake_quad(NPT + 0x2018) = 1ull << 50 | PTE_P | PTE_U | PTE_W | PTE_PS;
		run_inner();
		NPF(row[i].address, PF_U | row[i].access);
		assert_false(vcpu.svm->nested.running);
		assert_int_equal(*vmcb64(inner(), VMCB_EXITCODE), SVM_EXIT_NPF);
		assert_int_equal(*vmcb64(inner(), VMCB_EXITINFO1), row[i].error | PF_U | SVM_NPF_FINAL);
		assert_int_equal(*vmcb64(inner(), VMCB_EXITINFO2), row[i].address);
	}
	start(true, 1);
	prepare_inner(true);
	run_inner();
	assert_true(fake_catches(NPF(0x201000, PF_U)));
	assert_non_null(strstr(fake.stopped, "hypervisor's memory"));
}

/* Another ASID, other tables, TLB_CONTROL: what was joined is forgotten. */
static void joined_are_forgotten(void **state)
{
	(void)state;
	prepare_inner(true);
	svm_intercept(inner(), SVM_EXIT_HLT, true);
	run_inner();
	NPF(0x3000, PF_U);
	exits(SVM_EXIT_HLT, 0, 0, 0);
	run_inner();
	assert_true(entry_at(joined(), 0x3000, 1) & PTE_P); /* the same */
	exits(SVM_EXIT_HLT, 0, 0, 0);
	*fake_quad(NPT + 0x2000) = 0;
	*vmcb32(inner(), VMCB_ASID) = 2;
	run_inner();
	assert_false(entry_at(joined(), 0x3000, 1) & PTE_P);
}

/* 32-bit tables of a guest outside of long mode. */
static void tables_of_32_bits(void **state)
{
	(void)state;
	prepare_inner(true);
	*vmcb64(own(), VMCB_EFER) &= ~(uint64_t)(EFER_LMA | EFER_LME);
	*vmcb64(own(), VMCB_CR4) = CR4_PSE;
	memset(fake_memory(NPT), 0, CORE_PAGE);
	((uint32_t *)fake_memory(NPT))[1] = 0x800000 | (uint32_t)(PTE_P | PTE_W | PTE_U | PTE_PS);
	run_inner();
	NPF(0x600000, PF_U | PF_W);
	assert_true(vcpu.svm->nested.running);
	assert_int_equal(entry_at(joined(), 0x600000, 1) & ~0xfffull, 0xa00000);
	assert_true(((uint32_t *)fake_memory(NPT))[1] & PTE_D);
	NPF(1ull << 32, PF_U);
	assert_false(vcpu.svm->nested.running);
}

/* The local APIC, to which the guest lets its guest write: an instruction at a time, with interrupts held
 * off. */
static void apic_is_stepped(void **state)
{
	uint64_t at = 0x202000;

	(void)state;
	start(true, 2);
	prepare_inner(true);
	*fake_quad(NPT + 0x3010) = FAKE_APIC | PTE_P | PTE_W | PTE_U;
	*vmcb64(own(), VMCB_RFLAGS) |= RFLAGS_IF;
	*vmcb64(inner(), VMCB_INTERRUPT) = SVM_V_IRQ;
	run_inner();
	NPF(at + 0x20, PF_U);
	assert_true(fake.last_interrupts);
	assert_false(entry_at(joined(), at, 0) & PTE_W);
	NPF(at + 0x300, PF_U | PF_P | PF_W);
	assert_true(vcpu.step.on);
	assert_int_equal(entry_at(joined(), at, 0) & ~(0xfffull | PTE_NX), hw_physical(vcpu.step.page));
	assert_true(entry_at(joined(), at, 0) & PTE_W);
	assert_false(*vmcb64(vcpu.svm->vmcb, VMCB_INTERRUPT) & SVM_V_IRQ);
	*(uint32_t *)hw_map(FAKE_APIC + 0x310) = 3u << 24;
	*(uint32_t *)(void *)(vcpu.step.page + 0x300) = 0x4608;
	*vmcb64(vcpu.svm->vmcb, VMCB_DR6) |= DR6_BS;
	exits(SVM_EXIT_EXCEPTION + VECTOR_DB, 0, 0, 0);
	assert_false(fake.last_interrupts);
	assert_true(vcpu.svm->nested.running);
	assert_true(*vmcb64(vcpu.svm->vmcb, VMCB_INTERRUPT) & SVM_V_IRQ);
	assert_int_equal(machine.startup_vector[3], 8);
	assert_int_equal(*(uint32_t *)hw_map(FAKE_APIC + 0x300), 0x469f);
	assert_int_equal(entry_at(joined(), at, 0) & ~(0xfffull | PTE_NX), FAKE_APIC);
	assert_false(entry_at(joined(), at, 0) & PTE_W);
}

/* Whether what was joined is still there at the next VMRUN. */
static bool kept(void)
{
	exits(SVM_EXIT_HLT, 0, 0, 0);
	run_inner();
	return vcpu.svm->nested.running && entry_at(joined(), 0x3000, 1) & PTE_P;
}

static void begin_joined(void)
{
	start(true, 1);
	prepare_inner(true);
	svm_intercept(inner(), SVM_EXIT_HLT, true);
	run_inner();
	NPF(0x3000, PF_U);
	*fake_quad(NPT + 0x2000) &= ~PTE_A; /* so that it is not joined ahead */
	exits(SVM_EXIT_HLT, 0, 0, 0);
	run_inner();
}

static void each_reason_to_forget(void **state)
{
	(void)state;
	begin_joined();
	assert_true(kept());
	inner()[VMCB_TLB_CONTROL] = 1;
	assert_false(kept());
	begin_joined();
	*fake_quad(NPT + 0x4000) = *fake_quad(NPT);
	*vmcb64(inner(), VMCB_NCR3) = NPT + 0x4000;
	assert_false(kept());
	begin_joined();
	exits(SVM_EXIT_HLT, 0, 0, 0);
	*vmcb64(own(), VMCB_EFER) ^= EFER_NXE; /* what the tables mean */
	run_inner();
	assert_false(entry_at(joined(), 0x3000, 1) & PTE_P);
	begin_joined();
	exits(SVM_EXIT_HLT, 0, 0, 0);
	*vmcb64(inner(), VMCB_NESTED) = 0;
	run_inner();
	*vmcb64(inner(), VMCB_NESTED) = SVM_NP_ENABLE;
	assert_false(kept());
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(tables_are_joined, setup),
		cmocka_unit_test(refusals_are_the_guests),
		cmocka_unit_test_setup(joined_are_forgotten, setup),
		cmocka_unit_test_setup(tables_of_32_bits, setup),
		cmocka_unit_test_setup(apic_is_stepped, setup),
		cmocka_unit_test_setup(each_reason_to_forget, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
