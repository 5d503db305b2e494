/*
 * svm_rig.h: the core over AMD-V on the made-up hardware of fake.h, with one vCPU, for its unit tests: exits
 * as a test tells them, and a guest that is a hypervisor with a control block that VMRUN takes.
 */
#ifndef TRAPLINE_KMOD_TEST_SVM_RIG_H
#define TRAPLINE_KMOD_TEST_SVM_RIG_H

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

static inline uint8_t *own(void) { return vcpu.svm->own; }
static inline uint8_t *inner(void) { return fake_memory(INNER); }

static inline void start(bool nest, unsigned cpus)
{
	fake_start(&machine, &vcpu, CORE_SVM, nest, cpus, CODE);
}

static inline int setup(void **state)
{
	(void)state;
	start(true, 1);
	return 0;
}

static inline void play(uint8_t *block, uint64_t gpr[GPR_COUNT])
{
	(void)gpr;
	*vmcb64(block, VMCB_EXITCODE) = next.code;
	*vmcb64(block, VMCB_EXITINFO1) = next.info1;
	*vmcb64(block, VMCB_EXITINFO2) = next.info2;
	*vmcb64(block, VMCB_EXITINTINFO) = next.interrupted;
	*vmcb64(block, VMCB_NRIP) = *vmcb64(block, VMCB_RIP) + 3;
}

/* An entry that ends so. */
static inline void exits(uint64_t code, uint64_t info1, uint64_t info2, uint64_t interrupted)
{
	next.code = code;
	next.info1 = info1;
	next.info2 = info2;
	next.interrupted = interrupted;
	fake.guest = play;
	svm_run(&vcpu);
}

static inline uint64_t exception(unsigned vector, uint32_t error)
{
	return vector | SVM_EVENT_EXCEPTION << SVM_EVENT_TYPE_SHIFT | SVM_EVENT_VALID |
	       (vector_has_error_code(vector) ? SVM_EVENT_ERROR_VALID : 0) | (uint64_t)error << 32;
}

static inline uint64_t injected(void) { return *vmcb64(vcpu.svm->vmcb, VMCB_EVENTINJ); }

static inline uint64_t entry_at(const uint64_t *table, uint64_t address, unsigned level)
{
	for (unsigned at = 3;; at--) {
		uint64_t entry = table[address >> (12 + 9 * at) & 511];

		if (at == level || !(entry & PTE_P) || entry & PTE_PS)
			return entry;
		table = hw_map(entry & 0x000ffffffffff000ull);
	}
}

/* ---- a guest that is a hypervisor ---- */

/* It has EFER.SVME set, and a control block that VMRUN takes. */
static inline void prepare_inner(bool npt)
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
	*vmcb64(inner(), VMCB_CR0) = CR0_PE | CR0_ET;
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

static inline void run_inner(void)
{
	vcpu.gpr[RAX] = INNER;
	exits(SVM_EXIT_VMRUN, 0, 0, 0);
}

#define NPF(address, error) exits(SVM_EXIT_NPF, (error) | SVM_NPF_FINAL, address, 0)

static inline const uint64_t *joined(void) { return hw_map(*vmcb64(vcpu.svm->nested.merged, VMCB_NCR3)); }

#endif
