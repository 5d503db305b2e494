/*
 * nested.c: VMLOAD and VMSAVE in a guest; last branch records (APM 2 15.23, 15.33.1): the first look at both. vls.c
 * and records.c go through them field by field.
 */
#include "lib/exchange.h"
#include "lib/machine.h"
#include "lib/world.h"
#include "svm/svm.h"
#include "x86/case_layout.h"
#include "x86/vectors.h"

static volatile uint64_t *quad(uint32_t address) { return (volatile uint64_t *)(uintptr_t)address; }

/* ---- VMLOAD and VMSAVE in a guest (15.33.1) ---- */

enum { VLS_SAVES, VLS_LOADS, VLS_ABSENT, VLS_READ_ONLY, VLS_WITHOUT_NPT, VLS_INTERCEPTED };

STORY(svm_vls)
{
	uint64_t mode = GIVEN(mode), code;
	bool load = mode == VLS_LOADS;

	if (!svm_begin() || !SVM_NEEDS(15))
		return;
	svm_baseline(MODE_LONG, 0);
	if (load)
		SVM_CODE(0x0f, 0x01, 0xda, 0x0f, 0x01, 0xd9);
	else
		SVM_CODE(0x0f, 0x01, 0xdb, 0x0f, 0x01, 0xd9);
	svm_nested_build();
	if (mode != VLS_WITHOUT_NPT)
		svm_nested_use();
	svm_set(VMCB_VIRTUAL, SVM_VLS_ENABLE);
	svm_set(VMCB_RAX, CASE_FRAME);
	svm_intercept(SVM_EXIT_VMSAVE, mode == VLS_INTERCEPTED);
	machine_fill((void *)(uintptr_t)CASE_FRAME, 0, PAGE_SIZE);
	machine_fill((void *)(uintptr_t)CASE_FRAME2, 0, PAGE_SIZE);
	/* The guest's page is another one. */
	*quad(CASE_NESTED_PTE(CASE_FRAME)) = CASE_FRAME2 | CASE_NESTED_BITS;
	if (mode == VLS_ABSENT)
		*quad(CASE_NESTED_PTE(CASE_FRAME)) = 0;
	if (mode == VLS_READ_ONLY)
		*quad(CASE_NESTED_PTE(CASE_FRAME)) = CASE_FRAME2 | (CASE_NESTED_BITS & ~PTE_W);
	*quad(CASE_FRAME2 + VMCB_KERNEL_GS) = load ? 0x424000 : 0;
	svm_set(VMCB_KERNEL_GS, 0x535000);
	code = svm_run();
	switch (mode) {
	case VLS_SAVES:
		story_check("exitcode", SVM_EXIT_VMMCALL, code);
		story_check("stored", 0x535000, *quad(CASE_FRAME2 + VMCB_KERNEL_GS));
		story_check("elsewhere", 0, *quad(CASE_FRAME + VMCB_KERNEL_GS));
		break;
	case VLS_LOADS:
		story_check("exitcode", SVM_EXIT_VMMCALL, code);
		story_check("loaded", 0x424000, svm_get(VMCB_KERNEL_GS));
		break;
	case VLS_ABSENT:
	case VLS_READ_ONLY:
		story_check("exitcode", SVM_EXIT_NPF, code);
		story_check("address", CASE_FRAME, svm_get(VMCB_EXITINFO2) & ~PAGE_MASK);
		story_check("write", PF_W, svm_get(VMCB_EXITINFO1) & PF_W);
		break;
	default: story_check("exitcode", SVM_EXIT_VMSAVE, code); break;
	}
	svm_end();
}

/* ---- last branch records (15.23.1) ---- */

#define VMCB_DBGCTL   0x670u
#define VMCB_BR_FROM  0x678u
#define VMCB_BR_TO    0x680u
#define VMCB_INT_FROM 0x688u
#define VMCB_INT_TO   0x690u

static const struct {
	uint32_t msr, offset;
} records[] = {{MSR_DEBUGCTL, VMCB_DBGCTL},
	       {MSR_LASTBRANCHFROMIP, VMCB_BR_FROM},
	       {MSR_LASTBRANCHTOIP, VMCB_BR_TO},
	       {MSR_LASTINTFROMIP, VMCB_INT_FROM},
	       {MSR_LASTINTTOIP, VMCB_INT_TO}};

/* mode 0: the guest reads the VMCB's; 1: the host's is as it was; 2: switched off, nothing is switched. */
STORY(svm_lbr)
{
	uint64_t i = GIVEN(index), mode = GIVEN(mode), mine = 0, kept = 0,
		 value = i ? 0x123456 : DEBUGCTL_BTF;

	if (!svm_begin() || !SVM_NEEDS(1))
		return;
	svm_baseline(MODE_LONG, 0);
	SVM_CODE(0x0f, 0x32, 0x0f, 0x01, 0xd9);
	svm_registers.rcx = records[i].msr;
	svm_set(records[i].offset, value);
	svm_set(VMCB_VIRTUAL, mode == 2 ? 0 : SVM_LBR_ENABLE);
	story_check("readable", STORY_NO_FAULT, story_try_rdmsr(records[i].msr, &mine));
	story_check("exitcode", SVM_EXIT_VMMCALL, svm_run());
	if (mode == 2)
		story_check("guest", (uint32_t)mine, (uint32_t)svm_get(VMCB_RAX));
	else
		story_check("guest", value, (uint32_t)svm_get(VMCB_RAX));
	story_check("memory", value, svm_get(records[i].offset));
	story_check("host_readable", STORY_NO_FAULT, story_try_rdmsr(records[i].msr, &kept));
	story_check("host", mine, kept);
	svm_end();
}

/* ---- the records themselves, and DebugCtl.BTF (13.1.3, 13.1.4) ---- */

enum { RECORD_BRANCH, RECORD_EVENT, RECORD_OFF, RECORD_CLEARED, STEP_BRANCH };

static volatile uint64_t stepped_rip, control_in_handler;

static void record_handler(struct story_frame *frame)
{
	stepped_rip = frame->rip;
	if (frame->vector == VECTOR_DB) {
		frame->rflags &= ~(uint64_t)RFLAGS_TF;
		control_in_handler = machine_read_msr(MSR_DEBUGCTL);
	}
}

STORY(svm_branch_records)
{
	uint64_t mode = GIVEN(mode), from, to, taken_from, taken_to, control = DEBUGCTL_LBR;

	if (!svm_begin() || !SVM_NEEDS(1))
		return;
	if (mode == RECORD_OFF || mode == STEP_BRANCH)
		control = mode == STEP_BRANCH ? DEBUGCTL_BTF : 0;
	stepped_rip = control_in_handler = 0;
	if (story_try_wrmsr(MSR_DEBUGCTL, control) != STORY_NO_FAULT) {
		story_check("debugctl", STORY_NO_FAULT, story_fault_vector());
		svm_end();
		return;
	}
	story_handle(record_handler);
	switch (mode) {
	case RECORD_BRANCH:
	case RECORD_OFF:
		__asm__ volatile("lea 1f(%%rip), %0; lea 2f(%%rip), %1; 1: jmp 2f; nop; 2: mov $0x1d9, "
				 "%%ecx; xor %%eax, %%eax; xor %%edx, %%edx; wrmsr"
				 : "=&r"(from), "=&r"(to)
				 :
				 : "rax", "rcx", "rdx", "cc", "memory");
		taken_from = machine_read_msr(MSR_LASTBRANCHFROMIP);
		taken_to = machine_read_msr(MSR_LASTBRANCHTOIP);
		story_check("from", mode == RECORD_BRANCH, taken_from == from);
		story_check("to", mode == RECORD_BRANCH, taken_to == to);
		break;
	case RECORD_EVENT: /* the interrupt keeps the branch in front of it */
		__asm__ volatile("lea 1f(%%rip), %0; lea 2f(%%rip), %1; 1: jmp 2f; nop; 2: int $0x46; mov "
				 "$0x1d9, %%ecx; xor %%eax, %%eax; xor %%edx, %%edx; wrmsr"
				 : "=&r"(from), "=&r"(to)
				 :
				 : "rax", "rcx", "rdx", "cc", "memory");
		story_check("from", from, machine_read_msr(MSR_LASTINTFROMIP));
		story_check("to", to, machine_read_msr(MSR_LASTINTTOIP));
		story_check("came", 1, story_count(0x46));
		break;
	case RECORD_CLEARED: /* by #DB, in front of its handler */
		__asm__ volatile("pushfq; orl $0x100, (%%rsp); popfq; nop" : : : "memory", "cc");
		story_check("stepped", 1, story_count(VECTOR_DB));
		story_check("in_handler", 0, control_in_handler & DEBUGCTL_LBR);
		break;
	case STEP_BRANCH: /* three instructions run, and the branch is the first that steps */
		__asm__ volatile("lea 2f(%%rip), %0; pushfq; orl $0x100, (%%rsp); popfq; nop; nop; nop; jmp "
				 "2f; nop; 2: nop"
				 : "=&r"(to)
				 :
				 : "memory", "cc");
		story_check("stepped", 1, story_count(VECTOR_DB));
		story_check("rip", to, stepped_rip);
		break;
	}
	machine_write_msr(MSR_DEBUGCTL, 0);
	svm_end();
}
