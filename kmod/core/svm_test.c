/* svm_test.c: the core over AMD-V, on the made-up hardware of kmod/test. */
#include "kmod/test/svm_rig.h"

/* ---- is it here? ---- */

static void probes(void **state)
{
	(void)state;
	fake_reset(CORE_SVM);
	fake_cpuid(0x8000000au, 1, 64, 0, 0xfffffffe);
	assert_non_null(strstr(svm_missing(), "nested paging"));
	fake_reset(CORE_SVM);
	fake_msr(MSR_VM_CR, VM_CR_SVMDIS, 0);
	assert_non_null(strstr(svm_missing(), "SVMDIS"));
	fake_reset(CORE_SVM);
	fake_cpuid(0x80000001u, 0, 0, 0, 0);
	assert_non_null(svm_missing());
	assert_non_null(core_probe(&machine));
}

/* ---- exits that are the core's ---- */

static void cpuid_hides(void **state)
{
	(void)state;
	start(false, 1);
	vcpu.gpr[RAX] = 0x80000001u;
	exits(SVM_EXIT_CPUID, 0, 0, 0);
	assert_int_equal(vcpu.gpr[RCX] & (1u << 2 | 1u << 12), 0);
	assert_int_equal(vcpu.rip, CODE + 3);
	vcpu.gpr[RAX] = 0x8000000au;
	exits(SVM_EXIT_CPUID, 0, 0, 0);
	assert_int_equal(vcpu.gpr[RAX] | vcpu.gpr[RBX] | vcpu.gpr[RDX], 0);
}

static void cpuid_offers(void **state)
{
	(void)state;
	vcpu.gpr[RAX] = 0x80000001u;
	exits(SVM_EXIT_CPUID, 0, 0, 0);
	assert_int_equal(vcpu.gpr[RCX] & (1u << 2 | 1u << 12), 1u << 2);
	vcpu.gpr[RAX] = 0x8000000au;
	exits(SVM_EXIT_CPUID, 0, 0, 0);
	assert_int_equal(vcpu.gpr[RDX] & (1u << 16 | 1u << 15), 0); /* virtual GIF, virtual VMLOAD */
	assert_int_equal(vcpu.gpr[RDX] & 1, 1);
	/* OSXSAVE is the guest's CR4. */
	vcpu.gpr[RAX] = 1;
	exits(SVM_EXIT_CPUID, 0, 0, 0);
	assert_int_equal(vcpu.gpr[RCX] >> 27 & 1, 0);
	*vmcb64(own(), VMCB_CR4) |= CR4_OSXSAVE;
	vcpu.gpr[RAX] = 1;
	exits(SVM_EXIT_CPUID, 0, 0, 0);
	assert_int_equal(vcpu.gpr[RCX] >> 27 & 1, 1);
}

static void msr_exits(void **state)
{
	(void)state;
	vcpu.gpr[RCX] = MSR_EFER;
	exits(SVM_EXIT_MSR, 0, 0, 0);
	assert_int_equal(vcpu.gpr[RAX], 0); /* SVME is the hypervisor's */
	assert_int_equal(vcpu.rip, CODE + 3);
	/* A bit that the processor refuses. */
	vcpu.gpr[RAX] = 1u << 1;
	exits(SVM_EXIT_MSR, 1, 0, 0);
	assert_int_equal(injected(), exception(VECTOR_GP, 0));
	assert_int_equal(vcpu.rip, CODE + 3);
	vcpu.gpr[RAX] = EFER_NXE | EFER_SVME;
	exits(SVM_EXIT_MSR, 1, 0, 0);
	assert_int_equal(*vmcb64(own(), VMCB_EFER), EFER_NXE | EFER_SVME);
	assert_true(vcpu.svm->nested.svme);
	/* One that is not there. */
	vcpu.gpr[RCX] = 0x12345;
	exits(SVM_EXIT_MSR, 0, 0, 0);
	assert_int_equal(injected(), exception(VECTOR_GP, 0));
}

/* LME cannot change while there is paging. */
static void efer_rules(void **state)
{
	(void)state;
	vcpu.gpr[RCX] = MSR_EFER;
	vcpu.gpr[RAX] = EFER_LME;
	exits(SVM_EXIT_MSR, 1, 0, 0);
	assert_int_equal(*vmcb64(own(), VMCB_EFER), EFER_LME | EFER_SVME);
	*vmcb64(own(), VMCB_CR0) |= CR0_PG;
	vcpu.gpr[RAX] = 0;
	exits(SVM_EXIT_MSR, 1, 0, 0);
	assert_int_equal(injected(), exception(VECTOR_GP, 0));
	vcpu.gpr[RAX] = EFER_LME | EFER_LMA;
	exits(SVM_EXIT_MSR, 1, 0, 0);
	assert_int_equal(injected(), exception(VECTOR_GP, 0));
}

static void gp_of_hidden_instruction(void **state)
{
	static const uint8_t vmrun[] = {0x0f, 0x01, 0xd8}, other[] = {0x0f, 0x01, 0xf8};

	(void)state;
	start(false, 1);
	memcpy(fake_memory(CODE), vmrun, sizeof(vmrun));
	exits(SVM_EXIT_EXCEPTION + VECTOR_GP, 0, 0, 0);
	assert_int_equal(injected(), exception(VECTOR_UD, 0));
	memcpy(fake_memory(CODE), other, sizeof(other));
	exits(SVM_EXIT_EXCEPTION + VECTOR_GP, 0, 0, 0);
	assert_int_equal(injected(), exception(VECTOR_GP, 0));
}

static void failures(void **state)
{
	(void)state;
	assert_true(fake_catches(exits(SVM_EXIT_SHUTDOWN, 0, 0, 0)));
	assert_true(fake.shut_down);
	start(true, 1);
	assert_true(fake_catches(exits((uint32_t)SVM_EXIT_INVALID, 0, 0, 0)));
	assert_non_null(strstr(fake.stopped, "refuses"));
	start(true, 1);
	assert_true(fake_catches(exits(SVM_EXIT_HLT, 0, 0, 0)));
	assert_non_null(strstr(fake.stopped, "nobody asked"));
	start(true, 1);
	assert_true(fake_catches(exits(SVM_EXIT_NPF, PF_U, FAKE_HIDDEN, 0)));
	assert_non_null(strstr(fake.stopped, "hypervisor's memory"));
}

/* ---- memory ---- */

static void memory_is_identity(void **state)
{
	(void)state;
	/* All below the hypervisor from the start, nothing of its own. */
	assert_int_equal(entry_at(vcpu.tables, 0x1200000, 1) & ~0xfffull, 0x1200000);
	assert_int_equal(entry_at(vcpu.tables, FAKE_HIDDEN - TABLES_LARGE, 1) &
				 (PTE_P | PTE_W | PTE_U | PTE_PS),
			 PTE_P | PTE_W | PTE_U | PTE_PS);
	assert_int_equal(entry_at(vcpu.tables, FAKE_HIDDEN, 1), 0);
	/* What is missing is filled, and the event that was interrupted comes again. */
	exits(SVM_EXIT_NPF, PF_U | PF_W, 0x80000000ull, exception(VECTOR_PF, 2));
	assert_int_equal(entry_at(vcpu.tables, 0x80000000ull, 1) & ~0xfffull, 0x80000000ull);
	assert_int_equal(injected(), exception(VECTOR_PF, 2));
	/* The same again is no progress. */
	assert_true(fake_catches(exits(SVM_EXIT_NPF, PF_U | PF_W, 0x80000000ull, 0)));
}

static void set_splits(void **state)
{
	(void)state;
	tables_set(&vcpu, 0x1201000, 0x1301000, CORE_READ);
	assert_int_equal(entry_at(vcpu.tables, 0x1201000, 0) & ~(0xfffull | PTE_NX), 0x1301000);
	assert_int_equal(entry_at(vcpu.tables, 0x1201000, 0) & (PTE_W | PTE_NX), PTE_NX);
	assert_int_equal(entry_at(vcpu.tables, 0x1202000, 0) & (PTE_W | PTE_P | PTE_NX), PTE_W | PTE_P);
	tables_set(&vcpu, 0x1201000, 0, 0);
	assert_int_equal(entry_at(vcpu.tables, 0x1201000, 0), 0);
}

/* ---- events ---- */

static void software_events_are_executed_again(void **state)
{
	uint64_t int3 = exception(VECTOR_BP, 0);

	(void)state;
	exits(SVM_EXIT_NPF, PF_U, 0x80000000ull, int3);
	assert_int_equal(injected() & SVM_EVENT_VALID, 0);
	exits(SVM_EXIT_NPF, PF_U, 0x80200000ull,
	      0x80 | SVM_EVENT_SOFTWARE << SVM_EVENT_TYPE_SHIFT | SVM_EVENT_VALID);
	assert_int_equal(injected() & SVM_EVENT_VALID, 0);
	exits(SVM_EXIT_NPF, PF_U, 0x80400000ull, 0x80 | SVM_EVENT_VALID);
	assert_int_equal(injected(), 0x80 | SVM_EVENT_VALID);
}

static void double_faults(void **state)
{
	(void)state;
	start(false, 1); /* whose #GP is intercepted */
	exits(SVM_EXIT_EXCEPTION + VECTOR_GP, 0x18, 0, exception(VECTOR_NP, 8));
	assert_int_equal(injected(), exception(VECTOR_DF, 0));
	exits(SVM_EXIT_EXCEPTION + VECTOR_GP, 0x18, 0, exception(VECTOR_UD, 0));
	assert_int_equal(injected(), exception(VECTOR_GP, 0x18));
	exits(SVM_EXIT_EXCEPTION + VECTOR_GP, 0x18, 0, 0x80 | SVM_EVENT_VALID);
	assert_int_equal(injected(), exception(VECTOR_GP, 0x18));
	/* A third one is the processor's shutdown, which it finds by itself. */
	exits(SVM_EXIT_EXCEPTION + VECTOR_GP, 0x18, 0, exception(VECTOR_DF, 0));
	assert_int_equal(injected(), exception(VECTOR_DF, 0));
	assert_false(svm_intercepted(own(), SVM_EXIT_EXCEPTION + VECTOR_GP));
}

/* No error code in real mode. */
static void raise_in_real_mode(void **state)
{
	(void)state;
	*vmcb64(own(), VMCB_CR0) &= ~(uint64_t)CR0_PE;
	svm_raise(&vcpu, VECTOR_GP, 0);
	assert_int_equal(injected() & SVM_EVENT_ERROR_VALID, 0);
	assert_int_equal(injected() & SVM_EVENT_VECTOR, VECTOR_GP);
}

/* ---- the record ---- */

static void call(uint32_t which, uint64_t rbx, uint64_t rdx)
{
	vcpu.gpr[RAX] = L1_LEAF;
	vcpu.gpr[RCX] = which;
	vcpu.gpr[RBX] = rbx;
	vcpu.gpr[RDX] = rdx;
	exits(SVM_EXIT_CPUID, 0, 0, 0);
}

static void record(void **state)
{
	(void)state;
	call(L1_CALL_IDENTIFY, 0, 0);
	assert_int_equal(vcpu.gpr[RAX], L1_SIGNATURE);
	assert_int_equal(vcpu.gpr[RBX], 1);
	call(L1_CALL_BEGIN, 0x10000, 4);
	assert_true(entry_at(vcpu.tables, 0x10000, 0) & PTE_NX);
	vcpu.rip = 0x10000;
	exits(SVM_EXIT_NPF, PF_U | PF_P | PF_I, 0x10000, 0);
	assert_false(entry_at(vcpu.tables, 0x10000, 0) & PTE_NX);
	assert_true(svm_intercepted(own(), SVM_EXIT_HLT));
	vcpu.rip = 0x10002;
	exits(SVM_EXIT_HLT, 5, 0, 0);
	assert_string_equal(fake.log, "armed svm\nexit svm=0x78 at=0x2 info1=0x5\n");
	assert_int_equal(vcpu.rip, 0x10002); /* it is executed again */
	assert_false(svm_intercepted(own(), SVM_EXIT_HLT));
	assert_true(svm_intercepted(own(), SVM_EXIT_RDTSC));
	/* One that is needed is told, and done. */
	vcpu.gpr[RAX] = 1;
	exits(SVM_EXIT_CPUID, 0, 0, 0);
	assert_int_equal(vcpu.rip, 0x10005);
	assert_non_null(strstr(fake.log, "exit svm=0x72 at=0x2\n"));
	/* The first from elsewhere ends it. */
	exits(SVM_EXIT_RDTSC, 0, 0, 0);
	assert_false(svm_intercepted(own(), SVM_EXIT_RDTSC));
	assert_null(strstr(fake.log, "0x6e"));
}

/* ---- the local APIC ---- */

static void sipi_is_redirected(void **state)
{
	uint8_t *page;

	(void)state;
	start(true, 2);
	page = hw_map(FAKE_APIC);
	exits(SVM_EXIT_NPF, PF_U | PF_P | PF_W, FAKE_APIC + 0x300, 0);
	assert_true(vcpu.step.on);
	assert_true(*vmcb64(own(), VMCB_RFLAGS) & RFLAGS_TF);
	assert_int_equal(entry_at(vcpu.tables, FAKE_APIC, 0) & ~(0xfffull | PTE_NX),
			 hw_physical(vcpu.step.page));
	*(uint32_t *)(void *)(page + 0x310) = 3u << 24;
	*(uint32_t *)(void *)(vcpu.step.page + 0x300) = 0x4608; /* SIPI to 3, vector 8 */
	*vmcb64(own(), VMCB_DR6) |= DR6_BS;
	exits(SVM_EXIT_EXCEPTION + VECTOR_DB, 0, 0, 0);
	assert_false(vcpu.step.on);
	assert_int_equal(*(uint32_t *)(void *)(page + 0x300), 0x469f);
	assert_int_equal(machine.startup_vector[3], 8);
	assert_false(*vmcb64(own(), VMCB_RFLAGS) & RFLAGS_TF);
	assert_int_equal(injected() & SVM_EVENT_VALID, 0); /* the step's own #DB */
	assert_false(entry_at(vcpu.tables, FAKE_APIC, 0) & PTE_W);
}

/* The instruction faults instead: nothing is written, and the fault is the guest's. */
static void step_that_faults(void **state)
{
	(void)state;
	start(true, 2);
	exits(SVM_EXIT_NPF, PF_U | PF_P | PF_W, FAKE_APIC + 0x300, 0);
	*(uint32_t *)(void *)(vcpu.step.page + 0x300) = 0x4608;
	exits(SVM_EXIT_EXCEPTION + VECTOR_PF, 2, 0x7000, 0);
	assert_int_equal(*(uint32_t *)hw_map(FAKE_APIC + 0x300), 0);
	assert_int_equal(injected(), exception(VECTOR_PF, 2));
	assert_int_equal(*vmcb64(own(), VMCB_CR2), 0x7000);
}

/* ---- events, once more ---- */

static uint64_t upon(unsigned first, unsigned second)
{
	*vmcb64(own(), VMCB_EXITINTINFO) = exception(first, 8);
	*vmcb64(own(), VMCB_EVENTINJ) = 0;
	*vmcb64(own(), VMCB_RFLAGS) = RFLAGS_FIXED;
	svm_raise_upon(&vcpu, second, true, 0x18);
	return injected() & SVM_EVENT_VECTOR;
}

static void pairs_of_exceptions(void **state)
{
	(void)state;
	assert_int_equal(upon(VECTOR_PF, VECTOR_PF), VECTOR_DF);
	assert_false(*vmcb64(own(), VMCB_RFLAGS) & RFLAGS_RF); /* an abort */
	assert_int_equal(upon(VECTOR_PF, VECTOR_NP), VECTOR_DF);
	assert_int_equal(upon(VECTOR_PF, VECTOR_UD), VECTOR_UD);
	assert_int_equal(upon(VECTOR_GP, VECTOR_PF), VECTOR_PF);
	assert_int_equal(upon(VECTOR_GP, VECTOR_SS), VECTOR_DF);
	assert_int_equal(upon(VECTOR_UD, VECTOR_SS), VECTOR_SS);
	assert_true(*vmcb64(own(), VMCB_RFLAGS) & RFLAGS_RF);
	assert_int_equal(upon(VECTOR_UD, VECTOR_DB), VECTOR_DB);
	assert_false(*vmcb64(own(), VMCB_RFLAGS) & RFLAGS_RF);
}

/* #DB comes again but for INT1's, which is executed again; RF of one that is a fault is ours to set. */
static uint64_t debug_again(uint64_t dr6, uint64_t dr7, uint8_t byte)
{
	start(true, 1);
	*vmcb64(own(), VMCB_DR6) = DR6_FIXED_1 | dr6;
	*vmcb64(own(), VMCB_DR7) = DR7_FIXED_1 | dr7;
	*(uint8_t *)fake_memory(CODE) = byte;
	exits(SVM_EXIT_NPF, PF_U, 0x80000000ull, exception(VECTOR_DB, 0));
	return injected() & SVM_EVENT_VALID ? 1 | (*vmcb64(own(), VMCB_RFLAGS) & RFLAGS_RF) : 0;
}

static void debug_exceptions_again(void **state)
{
	(void)state;
	assert_int_equal(debug_again(0, 0, 0xf1), 0);
	assert_int_equal(debug_again(0, 0, 0x90), 1);
	assert_int_equal(debug_again(DR6_BS, 0, 0xf1), 1);
	assert_int_equal(debug_again(1, 0, 0x90), 1 | RFLAGS_RF);
	assert_int_equal(debug_again(8, 0, 0x90), 1 | RFLAGS_RF);
	assert_int_equal(debug_again(2, 1u << 20, 0x90), 1); /* on data */
	assert_int_equal(debug_again(1, 1u << 20, 0x90), 1 | RFLAGS_RF);
	assert_int_equal(debug_again(DR6_BD, 0, 0x90), 1 | RFLAGS_RF);
	/* No other event is a fault of these. */
	start(true, 1);
	*vmcb64(own(), VMCB_DR6) = DR6_FIXED_1 | 1;
	exits(SVM_EXIT_NPF, PF_U, 0x80000000ull, exception(VECTOR_UD, 0));
	assert_false(*vmcb64(own(), VMCB_RFLAGS) & RFLAGS_RF);
	start(true, 1);
	*vmcb64(own(), VMCB_DR6) = DR6_FIXED_1 | 1;
	exits(SVM_EXIT_NPF, PF_U, 0x80000000ull, VECTOR_DB | SVM_EVENT_VALID); /* an interrupt */
	assert_false(*vmcb64(own(), VMCB_RFLAGS) & RFLAGS_RF);
}

/* ---- the length of an instruction, where the processor does not say ---- */

static uint64_t length(const uint8_t *bytes, unsigned count, uint64_t code)
{
	fake_start(&machine, &vcpu, CORE_SVM, true, 1, CODE);
	vcpu.svm->nrips = false;
	memcpy(fake_memory(CODE), bytes, count);
	exits(code, 0, 0, 0);
	return vcpu.rip - CODE;
}

static void lengths(void **state)
{
	static const uint8_t cpuid[] = {0x66, 0xf2, 0x0f, 0xa2}, rdmsr[] = {0x0f, 0x32},
			     clgi[] = {0x48, 0x0f, 0x01, 0xdd};

	(void)state;
	assert_int_equal(length(cpuid, 4, SVM_EXIT_CPUID), 4);
	vcpu.gpr[RCX] = MSR_PAT;
	assert_int_equal(length(rdmsr, 2, SVM_EXIT_CPUID), 2);
	/* REX is a prefix in 64-bit mode alone. */
	assert_int_equal(svm_prefixes(&vcpu, clgi, 4), 0);
	*vmcb64(own(), VMCB_EFER) |= EFER_LMA;
	assert_int_equal(svm_prefixes(&vcpu, clgi, 4), 0);
	*vmcb16(own(), VMCB_CS + 2) |= 1u << 9;
	assert_int_equal(svm_prefixes(&vcpu, clgi, 4), 1);
	assert_int_equal(svm_prefixes(&vcpu, clgi + 1, 3), 0);
	assert_int_equal(svm_prefixes(&vcpu, cpuid, 1), 1); /* nothing but prefixes */
}

/* ---- CPUID ---- */

static void cpuid_may_fault(void **state)
{
	(void)state;
	vcpu.gpr[RAX] = 1;
	own()[VMCB_CPL] = 3;
	fake_msr(MSR_HWCR, HWCR_CPUID_USER_DISABLE, ~0ull);
	exits(SVM_EXIT_CPUID, 0, 0, 0); /* a processor that has no such leaf */
	assert_int_equal(vcpu.rip, CODE + 3);
	fake_cpuid(0x80000000u, 0x80000021u, 0, 0, 0);
	exits(SVM_EXIT_CPUID, 0, 0, 0); /* or no such feature */
	assert_int_equal(vcpu.rip, CODE + 6);
	fake_cpuid(0x80000021u, 1u << 17, 0, 0, 0);
	exits(SVM_EXIT_CPUID, 0, 0, 0);
	assert_int_equal(injected(), exception(VECTOR_GP, 0));
	assert_int_equal(vcpu.rip, CODE + 6);
	own()[VMCB_CPL] = 0;
	exits(SVM_EXIT_CPUID, 0, 0, 0);
	assert_int_equal(vcpu.rip, CODE + 9);
	own()[VMCB_CPL] = 3;
	fake_msr(MSR_HWCR, 0, ~0ull);
	exits(SVM_EXIT_CPUID, 0, 0, 0);
	assert_int_equal(vcpu.rip, CODE + 12);
}

static uint64_t leaf_7(uint32_t leaf, uint32_t subleaf)
{
	vcpu.gpr[RAX] = leaf;
	vcpu.gpr[RCX] = subleaf;
	exits(SVM_EXIT_CPUID, 0, 0, 0);
	return vcpu.gpr[RCX] >> 4 & 1;
}

static void cpuid_of_cr4(void **state)
{
	(void)state;
	fake_cpuid(7, 0, 0, 1u << 4, 0);
	fake_cpuid(6, 0, 0, 1u << 4, 0);
	assert_int_equal(leaf_7(7, 0), 0); /* the hypervisor's own CR4.PKE */
	assert_int_equal(leaf_7(7, 1), 1);
	assert_int_equal(leaf_7(6, 0), 1);
	*vmcb64(own(), VMCB_CR4) |= CR4_PKE;
	assert_int_equal(leaf_7(7, 0), 1);
}

/* ---- the start ---- */

static void starts(void **state)
{
	(void)state;
	assert_true(svm_intercepted(own(), SVM_EXIT_EXCEPTION + VECTOR_GP));
	assert_int_equal(*vmcb32(own(), VMCB_TR + 4), 0x67);
	core_start(&vcpu, &(struct core_start){.real = true, .page = 0x9f});
	assert_int_equal(*vmcb32(own(), VMCB_TR + 4), 0xffff);
	assert_int_equal(*vmcb64(own(), VMCB_CS + 8), 0x9f000);
	assert_int_equal(*vmcb16(own(), VMCB_CS), 0x9f00);
	vcpu.gpr[RCX] = MSR_EFER;
	vcpu.gpr[RAX] = EFER_SVME;
	vcpu.gpr[RDX] = 0;
	exits(SVM_EXIT_MSR, 1, 0, 0);
	assert_false(svm_intercepted(own(), SVM_EXIT_EXCEPTION + VECTOR_GP));
	/* EFER.LMSLE, where CPUID does not say that it is gone. */
	vcpu.gpr[RAX] = EFER_LMSLE;
	exits(SVM_EXIT_MSR, 1, 0, 0);
	assert_false(injected() & SVM_EVENT_VALID);
	fake_cpuid(0x80000008u, 48, 1u << 20, 0, 0);
	assert_null(core_create(&vcpu, &machine));
	vcpu.svm->efer_valid = vcpu.svm->efer_kept = 0;
	assert_null(core_create(&vcpu, &machine));
	exits(SVM_EXIT_MSR, 1, 0, 0);
	assert_int_equal(injected() & SVM_EVENT_VECTOR, VECTOR_GP);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(probes),
		cmocka_unit_test(cpuid_hides),
		cmocka_unit_test_setup(cpuid_offers, setup),
		cmocka_unit_test_setup(msr_exits, setup),
		cmocka_unit_test_setup(efer_rules, setup),
		cmocka_unit_test(gp_of_hidden_instruction),
		cmocka_unit_test_setup(failures, setup),
		cmocka_unit_test_setup(memory_is_identity, setup),
		cmocka_unit_test_setup(set_splits, setup),
		cmocka_unit_test_setup(software_events_are_executed_again, setup),
		cmocka_unit_test(double_faults),
		cmocka_unit_test_setup(raise_in_real_mode, setup),
		cmocka_unit_test_setup(record, setup),
		cmocka_unit_test(sipi_is_redirected),
		cmocka_unit_test(step_that_faults),
		cmocka_unit_test_setup(pairs_of_exceptions, setup),
		cmocka_unit_test_setup(debug_exceptions_again, setup),
		cmocka_unit_test_setup(lengths, setup),
		cmocka_unit_test_setup(cpuid_may_fault, setup),
		cmocka_unit_test_setup(cpuid_of_cr4, setup),
		cmocka_unit_test_setup(starts, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
