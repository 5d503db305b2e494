/* svm_test.c: the core over AMD-V, on the made-up hardware of kmod/test. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "kmod/core/svm.h"
#include "kmod/test/fake.h"
#include "kmod/test/start.h"
#include "x86/l1.h"
#include "x86/msr.h"
#include "x86/paging.h"
#include "x86/vectors.h"

#define CODE      0x8000ull  /* where the guest is */
#define INNER     0x20000ull /* its control block */
#define INNER_MAP 0x30000ull /* and permission map */
#define NPT       0x40000ull /* and nested tables */

static struct core_machine machine;
static struct core_vcpu vcpu;
static struct {
	uint64_t code, info1, info2, interrupted;
} next; /* exit */

static uint8_t *own(void) { return vcpu.svm->own; }
static uint8_t *inner(void) { return fake_memory(INNER); }

static void start(bool nest, unsigned cpus) { fake_start(&machine, &vcpu, CORE_SVM, nest, cpus, CODE); }

static int setup(void **state)
{
	(void)state;
	start(true, 1);
	return 0;
}

static void play(uint8_t *block, uint64_t gpr[GPR_COUNT])
{
	(void)gpr;
	*vmcb64(block, VMCB_EXITCODE) = next.code;
	*vmcb64(block, VMCB_EXITINFO1) = next.info1;
	*vmcb64(block, VMCB_EXITINFO2) = next.info2;
	*vmcb64(block, VMCB_EXITINTINFO) = next.interrupted;
	*vmcb64(block, VMCB_NRIP) = *vmcb64(block, VMCB_RIP) + 3;
}

/* An entry that ends so. */
static void exits(uint64_t code, uint64_t info1, uint64_t info2, uint64_t interrupted)
{
	next.code = code;
	next.info1 = info1;
	next.info2 = info2;
	next.interrupted = interrupted;
	fake.guest = play;
	svm_run(&vcpu);
}

static uint64_t exception(unsigned vector, uint32_t error)
{
	return vector | SVM_EVENT_EXCEPTION << SVM_EVENT_TYPE_SHIFT | SVM_EVENT_VALID |
	       (vector_has_error_code(vector) ? SVM_EVENT_ERROR_VALID : 0) | (uint64_t)error << 32;
}

static uint64_t injected(void) { return *vmcb64(vcpu.svm->vmcb, VMCB_EVENTINJ); }

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

static uint64_t entry_at(const uint64_t *table, uint64_t address, unsigned level)
{
	for (unsigned at = 3;; at--) {
		uint64_t entry = table[address >> (12 + 9 * at) & 511];

		if (at == level || !(entry & PTE_P) || entry & PTE_PS)
			return entry;
		table = hw_map(entry & 0x000ffffffffff000ull);
	}
}

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

/* ---- a guest that is a hypervisor ---- */

/* It has EFER.SVME set, and a control block that VMRUN takes. */
static void prepare_inner(bool npt)
{
	vcpu.gpr[RCX] = MSR_EFER;
	vcpu.gpr[RAX] = EFER_SVME | EFER_NXE;
	exits(SVM_EXIT_MSR, 1, 0, 0);
	*vmcb64(own(), VMCB_EFER) |= EFER_LMA | EFER_LME;
	*vmcb64(own(), VMCB_CR0) |= CR0_PG;
	*vmcb64(own(), VMCB_CR4) |= CR4_PAE;
	memset(inner(), 0, CORE_PAGE);
	svm_intercept(inner(), SVM_EXIT_VMRUN, true);
	svm_intercept(inner(), SVM_EXIT_MSR, true);
	*vmcb32(inner(), VMCB_ASID) = 1;
	*vmcb64(inner(), VMCB_MSRPM_BASE) = INNER_MAP;
	*vmcb64(inner(), VMCB_RIP) = 0x7000;
	*vmcb64(inner(), VMCB_EFER) = EFER_SVME;
	*vmcb64(inner(), VMCB_NESTED) = npt;
	*vmcb64(inner(), VMCB_NCR3) = NPT;
	if (npt) { /* one large page, from 0 to 6 MiB on; and one that is read-only */
		*fake_quad(NPT) = (NPT + 0x1000) | PTE_P | PTE_W | PTE_U;
		*fake_quad(NPT + 0x1000) = (NPT + 0x2000) | PTE_P | PTE_W | PTE_U;
		*fake_quad(NPT + 0x2000) = 0x600000 | PTE_P | PTE_W | PTE_U | PTE_PS;
		*fake_quad(NPT + 0x2008) = (NPT + 0x3000) | PTE_P | PTE_W | PTE_U;
		*fake_quad(NPT + 0x3000) = 0x801000 | PTE_P | PTE_U | PTE_NX;
		*fake_quad(NPT + 0x3008) = FAKE_HIDDEN | PTE_P | PTE_U | PTE_W;
	}
}

static void run_inner(void)
{
	vcpu.gpr[RAX] = INNER;
	exits(SVM_EXIT_VMRUN, 0, 0, 0);
}

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

/* ---- joined tables ---- */

#define NPF(address, error) exits(SVM_EXIT_NPF, (error) | SVM_NPF_FINAL, address, 0)

static const uint64_t *joined(void) { return hw_map(*vmcb64(vcpu.svm->nested.merged, VMCB_NCR3)); }

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

/* ---- GIF ---- */

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
		cmocka_unit_test_setup(instructions_need_svme, setup),
		cmocka_unit_test(vmrun_refuses),
		cmocka_unit_test_setup(intercepts_are_merged, setup),
		cmocka_unit_test_setup(msr_permissions_are_merged, setup),
		cmocka_unit_test_setup(ports_are_the_guests, setup),
		cmocka_unit_test_setup(tables_are_joined, setup),
		cmocka_unit_test(refusals_are_the_guests),
		cmocka_unit_test_setup(joined_are_forgotten, setup),
		cmocka_unit_test_setup(tables_of_32_bits, setup),
		cmocka_unit_test_setup(events_wait_for_gif, setup),
		cmocka_unit_test_setup(init_waits_for_gif, setup),
		cmocka_unit_test_setup(breakpoints_are_dropped, setup),
		cmocka_unit_test_setup(interrupts_of_the_host, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
