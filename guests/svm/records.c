/*
 * records.c: last branch records that a guest has for itself (APM 2 15.23, 13.1.6): each of the five MSRs
 * loaded, saved, exchanged with the host's, and left alone where LBR virtualization is off.
 *
 * LastBranchFromIP and its like are read-only, so that the host's own values come of a branch and an
 * interrupt of its own.
 */
#include "lib/apic.h"
#include "lib/exchange.h"
#include "lib/machine.h"
#include "lib/world.h"
#include "svm/svm.h"
#include "x86/case_layout.h"
#include "x86/msr.h"
#include "x86/vectors.h"

#define RECORDS 5u

static const struct {
	const char *name;
	uint32_t msr, offset;
} records[RECORDS] = {{"debugctl", MSR_DEBUGCTL, VMCB_DBGCTL},
		      {"br_from", MSR_LASTBRANCHFROMIP, VMCB_BR_FROM},
		      {"br_to", MSR_LASTBRANCHTOIP, VMCB_BR_TO},
		      {"lastexcpfrom", MSR_LASTINTFROMIP, VMCB_LASTEXCPFROM},
		      {"lastexcpto", MSR_LASTINTTOIP, VMCB_LASTEXCPTO}};

/* What a VMCB has them hold: DebugCtl what it can, the rest canonical addresses of two halves each. */
static const uint64_t given[RECORDS] = {DEBUGCTL_BTF, 0x0000712345678900, 0xffff89abcdef1234,
					0x00007000deadbee0, 0xffffc0ffee001230};

/* All five in the processor. False: one cannot be read, which has been told. */
static bool read_all(uint64_t values[RECORDS])
{
	for (unsigned i = 0; i < RECORDS; i++) {
		values[i] = 0;
		if (story_try_rdmsr(records[i].msr, &values[i]) != STORY_NO_FAULT) {
			story_check_at("readable", i, STORY_NO_FAULT, story_fault_vector());
			return false;
		}
	}
	return true;
}

/* Records of the host's own: of an interrupt behind a jump. DebugCtl is 0 behind it, or @control. */
static bool host_records(uint64_t control, uint64_t values[RECORDS])
{
	if (story_try_wrmsr(MSR_DEBUGCTL, DEBUGCTL_LBR) != STORY_NO_FAULT) {
		story_check("writable", STORY_NO_FAULT, story_fault_vector());
		return false;
	}
	__asm__ volatile("jmp 1f; nop; 1: int $0x46; mov %0, %%ecx; mov %1, %%eax; xor %%edx, %%edx; wrmsr"
			 :
			 : "i"(MSR_DEBUGCTL), "r"((uint32_t)control)
			 : "rax", "rcx", "rdx", "cc", "memory");
	return read_all(values);
}

static void check_all(const char *what, const uint64_t want[RECORDS], const uint64_t got[RECORDS])
{
	for (unsigned i = 0; i < RECORDS; i++)
		story_check_at(what, i, want[i], got[i]);
}

static void put_all(const uint64_t values[RECORDS])
{
	for (unsigned i = 0; i < RECORDS; i++)
		svm_set(records[i].offset, values[i]);
}

static void get_all(uint64_t values[RECORDS])
{
	for (unsigned i = 0; i < RECORDS; i++)
		values[i] = svm_get(records[i].offset);
}

/* A guest in 64-bit mode whose records are its own where @own. */
static bool begin(bool own)
{
	if (!svm_begin() || !SVM_NEEDS(1))
		return false;
	svm_baseline(MODE_LONG, 0);
	put_all(given);
	svm_set(VMCB_VIRTUAL, own ? SVM_LBR_ENABLE : 0);
	return true;
}

static void end(void)
{
	story_try_wrmsr(MSR_DEBUGCTL, 0);
	svm_end();
}

/* ---- field by field ---- */

enum {
	FIELD_LOADED,
	FIELD_KEPT,
	FIELD_AGAIN,
	FIELD_HOST,
	FIELD_OFF_GUEST,
	FIELD_OFF_MEMORY,
	FIELD_OFF_HOST,
	FIELD_REFUSED
};

/* RDMSR of the one that RCX names; VMMCALL. */
static void code_read(uint64_t i)
{
	SVM_CODE(0x0f, 0x32, 0x0f, 0x01, 0xd9);
	svm_registers.rcx = records[i].msr;
}

static uint64_t guest_read(void) { return svm_registers.rdx << 32 | (uint32_t)svm_get(VMCB_RAX); }

STORY(svm_record_field)
{
	uint64_t mode = GIVEN(mode), i = GIVEN(index), mine[RECORDS], after[RECORDS];
	bool own = mode < FIELD_OFF_GUEST || mode == FIELD_REFUSED;

	if (!begin(own))
		return;
	if (!host_records(0, mine)) {
		svm_end();
		return;
	}
	code_read(i);
	if (mode == FIELD_REFUSED)
		svm_set(VMCB_CR0, svm_get(VMCB_CR0) | CR0_NW);
	story_check("exitcode", mode == FIELD_REFUSED ? (uint64_t)SVM_EXIT_INVALID : SVM_EXIT_VMMCALL,
		    svm_run());
	read_all(after);
	switch (mode) {
	case FIELD_LOADED: story_check(records[i].name, given[i], guest_read()); break;
	case FIELD_KEPT:       /* what the guest did not change is saved as it was */
	case FIELD_OFF_MEMORY: /* and without the control nothing is */
		story_check(records[i].name, given[i], svm_get(records[i].offset));
		break;
	case FIELD_AGAIN: /* what was saved is loaded by the next VMRUN; another is loaded in its place */
		svm_set(VMCB_RIP, CASE_STUB);
		story_check("exitcode_again", SVM_EXIT_VMMCALL, svm_run());
		story_check(records[i].name, given[i], guest_read());
		svm_set(records[i].offset, i ? given[i] ^ 0x100 : 0);
		svm_set(VMCB_RIP, CASE_STUB);
		story_check("exitcode_changed", SVM_EXIT_VMMCALL, svm_run());
		story_check("changed", i ? given[i] ^ 0x100 : 0, guest_read());
		break;
	case FIELD_OFF_GUEST: story_check(records[i].name, mine[i], guest_read()); break;
	default: story_check(records[i].name, mine[i], after[i]); break; /* the host's, in each case */
	}
	end();
}

/* ---- what the guest records ---- */

enum {
	GUEST_BRANCH,
	GUEST_INTERRUPT,
	GUEST_EXCEPTION,
	GUEST_INJECTED,
	GUEST_VIRTUAL,
	GUEST_CONTROL,
	GUEST_DEBUG,
	GUEST_OFF,
	GUEST_NOT_RECORDING
};

/* jmp over a byte: the records of the guest behind it. */
#define JUMP_FROM CASE_STUB
#define JUMP_TO   (CASE_STUB + 3)

static uint64_t code_of(uint64_t mode)
{
	switch (mode) {
	case GUEST_INTERRUPT: /* int $0x46 */ SVM_CODE(0xeb, 0x01, 0x90, 0xcd, 0x46, 0x90); return 0x46;
	case GUEST_EXCEPTION: /* an address that is not mapped: mov 0x200000, %eax */
		SVM_CODE(0xeb, 0x01, 0x90, 0x8b, 0x04, 0x25, 0x00, 0x00, 0x20, 0x40);
		return VECTOR_PF;
	case GUEST_CONTROL: /* DebugCtl := BTF */
		SVM_CODE(0xb9, 0xd9, 0x01, 0x00, 0x00, 0xb8, 0x02, 0x00, 0x00, 0x00, 0x31, 0xd2, 0x0f, 0x30,
			 0x0f, 0x01, 0xd9);
		return SVM_VECTOR_NONE;
	case GUEST_OFF: /* DebugCtl := LBR; jmp over a byte; DebugCtl := 0, so that the host does not go on */
		SVM_CODE(0xb9, 0xd9, 0x01, 0x00, 0x00, 0xb8, 0x01, 0x00, 0x00, 0x00, 0x31, 0xd2, 0x0f, 0x30,
			 0xeb, 0x01, 0x90, 0x31, 0xc0, 0x0f, 0x30, 0x0f, 0x01, 0xd9);
		return SVM_VECTOR_NONE;
	case GUEST_DEBUG: /* a breakpoint on the instruction behind the jump */
		SVM_CODE(0xeb, 0x01, 0x90, 0x90);
		return VECTOR_DB;
	case GUEST_VIRTUAL: /* with interrupts let in: pending behind the first instruction */
		SVM_CODE(0xeb, 0x01, 0x90, 0x90, 0x0f, 0x01, 0xd9);
		return 0x41;
	case GUEST_INJECTED: SVM_CODE(0x0f, 0x01, 0xd9); return 0x46;
	default: SVM_CODE(0xeb, 0x01, 0x90, 0x0f, 0x01, 0xd9); return SVM_VECTOR_NONE;
	}
}

static void wanted(uint64_t mode, uint64_t vector, const uint64_t mine[RECORDS], uint64_t want[RECORDS])
{
	for (unsigned i = 0; i < RECORDS; i++)
		want[i] = given[i];
	if (mode == GUEST_CONTROL)
		want[0] = DEBUGCTL_BTF;
	else
		want[0] = mode == GUEST_DEBUG || mode == GUEST_OFF || mode == GUEST_NOT_RECORDING
				  ? 0
				  : DEBUGCTL_LBR;
	if (mode == GUEST_BRANCH || mode == GUEST_DEBUG) {
		want[1] = JUMP_FROM;
		want[2] = JUMP_TO;
	} else if (mode == GUEST_OFF) {
		want[1] = CASE_STUB + 14;
		want[2] = CASE_STUB + 17;
		want[3] = mine[3];
		want[4] = mine[4];
	} else if (mode == GUEST_INJECTED) { /* as if it had come in front of the first instruction */
		want[1] = CASE_STUB;
		want[2] = svm_handler((unsigned)vector);
		want[3] = given[1];
		want[4] = given[2];
	} else if (vector != SVM_VECTOR_NONE) {
		want[1] = JUMP_TO;
		want[2] = svm_handler((unsigned)vector);
		want[3] = JUMP_FROM;
		want[4] = JUMP_TO;
	}
}

STORY(svm_guest_records)
{
	uint64_t mode = GIVEN(mode), mine[RECORDS], got[RECORDS], want[RECORDS], after[RECORDS], vector;

	if (!begin(mode != GUEST_OFF))
		return;
	if (!host_records(0, mine)) {
		svm_end();
		return;
	}
	vector = code_of(mode);
	svm_set(VMCB_DBGCTL, mode == GUEST_NOT_RECORDING ? 0 : DEBUGCTL_LBR);
	svm_write(VMCB_INTERCEPTS(2), 4, 0);
	if (mode == GUEST_INJECTED)
		svm_set(VMCB_EVENTINJ, SVM_EVENT_VALID | 0x46);
	if (mode == GUEST_VIRTUAL) { /* the shadow lets the jump go first */
		svm_set(VMCB_RFLAGS, svm_get(VMCB_RFLAGS) | RFLAGS_IF);
		svm_set(VMCB_INTERRUPT, SVM_V_IRQ | 15ull << 16 | 0x41ull << 32);
		svm_set(VMCB_INTERRUPT_SHADOW, 1);
	}
	if (mode == GUEST_DEBUG) {
		__asm__ volatile("mov %0, %%dr0" : : "r"((uint64_t)JUMP_TO));
		svm_set(VMCB_DR7, DR7_FIXED_1 | DR7_L(0));
	}
	story_check("exitcode", SVM_EXIT_VMMCALL, svm_run());
	story_check("handler", vector, svm_handler_vector());
	__asm__ volatile("mov %0, %%dr0" : : "r"(0ull));
	read_all(after);
	wanted(mode, vector, mine, want);
	if (mode == GUEST_OFF) { /* all of it has gone to the processor's own, and none to the VMCB */
		check_all("record", want, after);
		get_all(got);
		got[0] = got[0] == DEBUGCTL_LBR ? given[0] : got[0];
		check_all("memory", given, got);
	} else {
		get_all(got);
		check_all("record", want, got);
		check_all("host", mine, after);
	}
	machine_write_cr2(0);
	end();
}

/* ---- exits of all kinds save them ---- */

enum { EXIT_INSTRUCTION, EXIT_EXCEPTION, EXIT_INTR, EXIT_NMI, EXIT_NPF, EXIT_VINTR, EXIT_IOIO };

void apic_send_nmi(void); /* apic.c */

STORY(svm_record_exits)
{
	uint64_t kind = GIVEN(type), mine[RECORDS], want[RECORDS], got[RECORDS], after[RECORDS];
	static const uint64_t codes[] = {SVM_EXIT_CPUID, SVM_EXIT_EXCEPTION + VECTOR_UD,
					 SVM_EXIT_INTR,  SVM_EXIT_NMI,
					 SVM_EXIT_NPF,   SVM_EXIT_VINTR,
					 SVM_EXIT_IOIO};

	if (!begin(true))
		return;
	if ((kind == EXIT_NPF && !SVM_NEEDS(0)) ||
	    ((kind == EXIT_INTR || kind == EXIT_NMI) && !story_has_apic()) ||
	    !host_records(DEBUGCTL_BTF, mine)) {
		end();
		return;
	}
	svm_set(VMCB_DBGCTL, DEBUGCTL_LBR);
	switch (kind) {
	case EXIT_INSTRUCTION: SVM_CODE(0xeb, 0x01, 0x90, 0x0f, 0xa2); break;
	case EXIT_EXCEPTION: SVM_CODE(0xeb, 0x01, 0x90, 0x0f, 0x0b); break;
	case EXIT_NPF: SVM_CODE(0xeb, 0x01, 0x90, 0x8b, 0x03); break;
	case EXIT_IOIO: SVM_CODE(0xeb, 0x01, 0x90, 0xe4, 0x80); break;
	default: SVM_CODE(0xeb, 0x01, 0x90, 0xfb, 0x90, 0x90); break;
	}
	svm_intercept(SVM_EXIT_CPUID, true);
	svm_intercept(SVM_EXIT_VINTR, true);
	svm_intercept(SVM_EXIT_IOIO, true);
	svm_iopm[0x80 / 8] = 1;
	if (kind == EXIT_NPF) {
		svm_nested_build();
		svm_nested_use();
		*(volatile uint64_t *)(uintptr_t)CASE_NESTED_PTE(CASE_OPERAND) = 0;
	}
	if (kind == EXIT_VINTR)
		svm_set(VMCB_INTERRUPT, SVM_V_IRQ | 15ull << 16 | 0x41ull << 32);
	if (kind == EXIT_INTR)
		apic_pend_interrupt(0x45);
	if (kind == EXIT_NMI) { /* it comes behind the jump, which a shadow lets go first */
		svm_prelude(apic_send_nmi);
		svm_set(VMCB_INTERRUPT_SHADOW, 1);
	}
	story_check("exitcode", codes[kind], svm_run_keep());
	read_all(after);
	for (unsigned i = 0; i < RECORDS; i++)
		want[i] = given[i];
	want[0] = DEBUGCTL_LBR;
	want[1] = JUMP_FROM;
	want[2] = JUMP_TO;
	get_all(got);
	if (kind == EXIT_NMI && got[1] == given[1]) { /* an NMI may come through a shadow */
		want[1] = given[1];
		want[2] = given[2];
	}
	check_all("record", want, got);
	check_all("host", mine, after);
	machine_write_msr(MSR_DEBUGCTL, 0);
	__asm__ volatile("stgi" : : : "memory");
	if (kind == EXIT_INTR)
		story_open();
	end();
}

/* A host that records while its guest has records of its own: it goes on as if VMRUN were any instruction. */
STORY(svm_host_recording)
{
	bool own = GIVEN(mode);
	uint64_t control = 0;

	if (!begin(own))
		return;
	if (story_try_wrmsr(MSR_DEBUGCTL, DEBUGCTL_LBR) != STORY_NO_FAULT) {
		story_check("writable", STORY_NO_FAULT, story_fault_vector());
		svm_end();
		return;
	}
	svm_set(VMCB_DBGCTL, 0);
	SVM_CODE(0xeb, 0x01, 0x90, 0x0f, 0x01, 0xd9);
	svm_run();
	story_try_rdmsr(MSR_DEBUGCTL, &control);
	machine_write_msr(MSR_DEBUGCTL, 0);
	story_check("exitcode", SVM_EXIT_VMMCALL, svm_get(VMCB_EXITCODE));
	story_check("host_control", DEBUGCTL_LBR, control);
	story_check("guest_control", 0, svm_get(VMCB_DBGCTL));
	story_check("br_from", given[1],
		    svm_get(VMCB_BR_FROM)); /* it did not record, or its records are not there */
	story_check("br_to", given[2], svm_get(VMCB_BR_TO));
	end();
}

/* DebugCtl.BTF is the guest's own as well: its TF steps branches (13.1.6.2). */
STORY(svm_guest_btf)
{
	bool own = GIVEN(mode);

	if (!begin(own))
		return;
	svm_set(VMCB_DBGCTL, DEBUGCTL_BTF);
	SVM_CODE(0x90, 0x90, 0x90, 0xeb, 0x01, 0x90, 0x90, 0x0f, 0x01, 0xd9);
	svm_set(VMCB_RFLAGS, svm_get(VMCB_RFLAGS) | RFLAGS_TF);
	story_check("exitcode", SVM_EXIT_EXCEPTION + VECTOR_DB, svm_run());
	story_check("rip", own ? CASE_STUB + 6 : CASE_STUB + 1, svm_get(VMCB_RIP));
	end();
}
