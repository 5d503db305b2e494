/*
 * structures.c: structures of AMD-V that lie in each other, at the ends of what addresses can name, and where
 * they have not been put at all (APM 2 15.5.1, 15.10.1, 15.11, 15.25.3, 15.30.4).
 */
#include <stddef.h>

#include "lib/exchange.h"
#include "lib/machine.h"
#include "lib/world.h"
#include "svm/svm.h"
#include "x86/case_layout.h"
#include "x86/msr.h"
#include "x86/vectors.h"

static unsigned physical_bits(void)
{
	uint32_t r[4];

	machine_cpuid(0x80000008, 0, r);
	return r[0] & 0xff;
}

static void intercept_ports_and_msrs(void)
{
	svm_intercept(SVM_EXIT_IOIO, true);
	svm_intercept(SVM_EXIT_MSR, true);
}

/* IN AL, port; VMMCALL. */
static void code_in(uint8_t port) { SVM_CODE(0xe4, port, 0x0f, 0x01, 0xd9); }

/* MOV ECX, index; RDMSR; VMMCALL. */
static void code_rdmsr(uint32_t index)
{
	SVM_CODE(0xb9, (uint8_t)index, (uint8_t)(index >> 8), (uint8_t)(index >> 16), (uint8_t)(index >> 24),
		 0x0f, 0x32, 0x0f, 0x01, 0xd9);
}

static uint64_t run_from_start(void)
{
	svm_set(VMCB_RIP, CASE_STUB);
	return svm_run();
}

enum {
	MAPS_ONE_CLEAR,
	MAPS_ONE_SET,
	MAPS_STAGGERED,
	IOPM_IS_VMCB,
	MSRPM_IS_VMCB,
	NCR3_IS_VMCB,
	NCR3_IS_CR3,
	CR3_IS_NCR3,
	CR3_IS_VMCB,
	GUEST_WRITES_VMCB
};

/* One page for both maps: each is read as its own clause says, and nothing writes it. */
static void maps_are_one(bool set)
{
	machine_fill(svm_iopm, set ? 0xff : 0, sizeof(svm_iopm));
	svm_set(VMCB_MSRPM_BASE, (uintptr_t)svm_iopm);
	code_in(0x80);
	story_check("port", set ? SVM_EXIT_IOIO : SVM_EXIT_VMMCALL, run_from_start());
	code_rdmsr(MSR_LSTAR);
	story_check("msr", set ? SVM_EXIT_MSR : SVM_EXIT_VMMCALL, run_from_start());
	story_check("map", set ? 0xff : 0, svm_iopm[0x10]);
}

/* The MSR map begins at the second page of the port map: the bit of port 8000H is that of reading MSR 0. */
static void maps_are_staggered(void)
{
	svm_iopm[0x1000] = 1;
	svm_set(VMCB_MSRPM_BASE, (uintptr_t)svm_iopm + 0x1000);
	SVM_CODE(0x66, 0xba, 0x00, 0x80, 0xec, 0x0f, 0x01, 0xd9); /* mov $0x8000, %dx; in %dx, %al */
	story_check("port", SVM_EXIT_IOIO, run_from_start());
	code_rdmsr(0);
	story_check("msr", SVM_EXIT_MSR, run_from_start());
	code_in(0x80);
	story_check("other_port", SVM_EXIT_VMMCALL, run_from_start());
}

/* Byte 10H of the VMCB, where VMRUN's and VMMCALL's intercepts are, is that of ports 80H to 87H and of MSRs
 * 40H to 43H. */
static void iopm_is_vmcb(void)
{
	svm_set(VMCB_IOPM_BASE, (uintptr_t)svm_vmcb);
	code_in(0x80);
	story_check("bit0", SVM_EXIT_IOIO, run_from_start());
	code_in(0x84);
	story_check("bit4", SVM_EXIT_VMMCALL, run_from_start());
}

static void msrpm_is_vmcb(void)
{
	svm_set(VMCB_MSRPM_BASE, (uintptr_t)svm_vmcb);
	code_rdmsr(0x40);
	story_check("bits0_1", SVM_EXIT_MSR, run_from_start());
	code_rdmsr(0x41);
	story_check("bits2_3", SVM_EXIT_EXCEPTION + VECTOR_GP, run_from_start());
}

STORY(svm_overlap)
{
	uint64_t mode = GIVEN(mode);

	if (!svm_begin() || (mode >= NCR3_IS_VMCB && mode <= CR3_IS_NCR3 && !SVM_NEEDS(0)))
		return;
	svm_baseline(MODE_LONG, 0);
	intercept_ports_and_msrs();
	svm_nested_build();
	switch (mode) {
	case MAPS_ONE_CLEAR:
	case MAPS_ONE_SET: maps_are_one(mode == MAPS_ONE_SET); break;
	case MAPS_STAGGERED: maps_are_staggered(); break;
	case IOPM_IS_VMCB: iopm_is_vmcb(); break;
	case MSRPM_IS_VMCB: msrpm_is_vmcb(); break;
	case NCR3_IS_VMCB: /* its first quadword has P = 0: no CR0 read is intercepted */
		SVM_CODE(0x0f, 0x01, 0xd9);
		svm_nested_use();
		svm_set(VMCB_NCR3, (uintptr_t)svm_vmcb);
		story_check("exitcode", SVM_EXIT_NPF, run_from_start());
		story_check("error", SVM_NPF_TABLE | PF_U | PF_W, svm_get(VMCB_EXITINFO1));
		story_check("address", CASE_CR3_LONG, svm_get(VMCB_EXITINFO2) & ~PAGE_MASK);
		break;
	case NCR3_IS_CR3: /* the case's tables are supervisor pages, and all nested accesses a user's
			     (15.25.7) */
		SVM_CODE(0x0f, 0x01, 0xd9);
		svm_nested_use();
		svm_set(VMCB_NCR3, CASE_CR3_LONG);
		story_check("exitcode", SVM_EXIT_NPF, run_from_start());
		story_check("error", SVM_NPF_TABLE | PF_U | PF_W | PF_P, svm_get(VMCB_EXITINFO1));
		break;
	case CR3_IS_NCR3: /* one set of tables for both */
		SVM_CODE(0x8b, 0x03, 0x89, 0x03, 0x0f, 0x01, 0xd9);
		svm_nested_use();
		svm_set(VMCB_CR3, CASE_NESTED_PML4);
		story_check("exitcode", SVM_EXIT_VMMCALL, run_from_start());
		break;
	case CR3_IS_VMCB:
		SVM_CODE(0x0f, 0x01, 0xd9);
		svm_set(VMCB_CR3, (uintptr_t)svm_vmcb);
		story_check("exitcode", SVM_EXIT_EXCEPTION + VECTOR_PF, run_from_start());
		story_check("address", CASE_STUB, svm_get(VMCB_EXITINFO2));
		story_check("cr3", (uintptr_t)svm_vmcb, svm_get(VMCB_CR3));
		break;
	case GUEST_WRITES_VMCB: /* a guest that reaches its own: it ends as it would have, and its state is
				   saved over */
		/* movl $0x777, RIP's field; movl $0, the offset's field; mov $5, %eax; VMMCALL */
		svm_registers.rbx = (uintptr_t)svm_vmcb;
		svm_set(VMCB_TSC_OFFSET, 0x1111);
		SVM_CODE(0xc7, 0x83, 0x78, 0x05, 0x00, 0x00, 0x77, 0x07, 0x00, 0x00, 0xc7, 0x83, 0x50, 0x00,
			 0x00, 0x00, 0x22, 0x22, 0x00, 0x00, 0xb8, 0x05, 0x00, 0x00, 0x00, 0x0f, 0x01, 0xd9);
		story_check("exitcode", SVM_EXIT_VMMCALL, run_from_start());
		story_check("rip", CASE_STUB + 25, svm_get(VMCB_RIP));
		story_check("rax", 5, svm_get(VMCB_RAX));
		story_check("tsc_offset", 0x2222, svm_get(VMCB_TSC_OFFSET)); /* never written by #VMEXIT */
		break;
	}
	svm_end();
}

/* ---- the end of physical addresses ---- */

/* A map's last byte must be below it; the intercept is off, so that no map is read (15.5.1, 15.10.1, 15.11).
 */
STORY(svm_map_limit)
{
	bool msrs = GIVEN(index);
	uint64_t end, size = msrs ? SVM_MSRPM_SIZE : SVM_IOPM_SIZE;
	unsigned field = msrs ? VMCB_MSRPM_BASE : VMCB_IOPM_BASE;

	if (!svm_begin())
		return;
	svm_baseline(MODE_LONG, 0);
	SVM_CODE(0x0f, 0x01, 0xd9);
	end = 1ull << physical_bits();
	svm_set(field, end - size);
	story_check("fits", SVM_EXIT_VMMCALL, run_from_start());
	svm_set(field, (end - size) | 0xfff); /* bits 11:0 are ignored */
	story_check("fits_low_bits", SVM_EXIT_VMMCALL, run_from_start());
	for (uint64_t base = end - size + 0x1000; base < end; base += 0x1000) {
		svm_set(field, base);
		story_check_at("ends_beyond", (unsigned)((end - base) >> 12), (uint64_t)SVM_EXIT_INVALID,
			       run_from_start());
	}
	svm_set(field, end);
	story_check("begins_beyond", (uint64_t)SVM_EXIT_INVALID, run_from_start());
	svm_set(field, msrs ? (uintptr_t)svm_msrpm : (uintptr_t)svm_iopm);
	story_check("again", SVM_EXIT_VMMCALL, run_from_start());
	svm_end();
}

/* Each bit from the processor's width on: of CR3 and N_CR3 it must be 0 (15.5.1, 15.25.3). */
STORY(svm_address_width)
{
	bool nested = GIVEN(nested);
	unsigned field = nested ? VMCB_NCR3 : VMCB_CR3;
	uint64_t usual = nested ? CASE_NESTED_PML4 : CASE_CR3_LONG;

	if (!svm_begin() || (nested && !SVM_NEEDS(0)))
		return;
	svm_baseline(MODE_LONG, 0);
	SVM_CODE(0x0f, 0x01, 0xd9);
	svm_nested_build();
	if (nested)
		svm_nested_use();
	for (unsigned bit = physical_bits(); bit < 52; bit++) {
		svm_set(field, usual | 1ull << bit);
		story_check_at("bit", bit, (uint64_t)SVM_EXIT_INVALID, run_from_start());
	}
	svm_set(field, usual);
	story_check("again", SVM_EXIT_VMMCALL, run_from_start());
	svm_end();
}

/* ---- VM_HSAVE_PA that was never set: the host's state goes to page 0, or VMRUN faults; both are this host's
 * affair ---- */

STORY(svm_hsave_unset)
{
	static uint8_t page[0x1000];
	volatile uint8_t *zero = NULL;
	unsigned vector;

	__asm__("" : "+r"(zero)); /* address 0 is an address like any other */

	if (!svm_begin())
		return;
	for (unsigned i = 0; i < sizeof(page); i++)
		page[i] = zero[i];
	svm_baseline(MODE_LONG, 0);
	SVM_CODE(0x0f, 0x01, 0xd9);
	machine_write_msr(MSR_VM_HSAVE_PA, 0);
	svm_set(VMCB_EXITCODE, 0x123);
	vector = svm_try(SVM_DO_VMRUN, (uintptr_t)svm_vmcb, 0);
	story_check("vector", vector == VECTOR_GP ? VECTOR_GP : STORY_NO_FAULT, vector);
	story_check("exitcode", vector == VECTOR_GP ? 0x123 : SVM_EXIT_VMMCALL, svm_get(VMCB_EXITCODE));
	story_check("host_cr3", exchange.monitor_cr3, machine_read_cr3());
	for (unsigned i = 0; i < sizeof(page); i++)
		zero[i] = page[i];
	svm_end();
}

/* The page that VM_HSAVE_PA names, moved while no guest runs: the host comes back from where it was saved
 * (15.30.4). */
STORY(svm_hsave_moved)
{
	if (!svm_begin())
		return;
	svm_baseline(MODE_LONG, 0);
	SVM_CODE(0x0f, 0x01, 0xd9);
	story_check("first", SVM_EXIT_VMMCALL, svm_run());
	machine_fill(svm_vmcb2, 0xff, VMCB_SIZE); /* whatever is there */
	machine_write_msr(MSR_VM_HSAVE_PA, (uintptr_t)svm_vmcb2);
	machine_fill(svm_hsave, 0xff, VMCB_SIZE);
	story_check("second", SVM_EXIT_VMMCALL, run_from_start());
	story_check("host_cr0", exchange.monitor_cr0, machine_read_cr0());
	story_check("host_cr3", exchange.monitor_cr3, machine_read_cr3());
	story_check("host_cr4", exchange.monitor_cr4, machine_read_cr4());
	machine_write_msr(MSR_VM_HSAVE_PA, (uintptr_t)svm_hsave);
	story_check("third", SVM_EXIT_VMMCALL, run_from_start());
	svm_end();
}
