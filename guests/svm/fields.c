/*
 * fields.c: each field of the VMCB (APM 2 appendix B) across VMRUN, #VMEXIT, VMLOAD and VMSAVE: what is
 * loaded as it is, what is made canonical, what has bits that hold one value, and what nobody may touch (APM
 * 2 15.5, 15.6).
 */
#include "lib/exchange.h"
#include "lib/machine.h"
#include "svm/svm.h"
#include "x86/case_layout.h"
#include "x86/msr.h"

static uint64_t at(const uint8_t *page, unsigned offset, unsigned size)
{
	uint64_t value = 0;

	machine_copy(&value, page + offset, size);
	return value;
}

/* A guest in 64-bit mode that does nothing. */
static void idle_guest(void)
{
	svm_baseline(MODE_LONG, 0);
	SVM_CODE(0x0f, 0x01, 0xd9);
}

/* ---- segment registers and tables: each part of each ---- */

enum { PART_SELECTOR, PART_ATTRIBUTES, PART_LIMIT, PART_BASE };

/* Attributes that the guest can have there, AVL with them. */
static const struct {
	const char *name;
	uint16_t offset, attributes;
} segments[] = {
	{"es", VMCB_ES, 0xdf3}, {"cs", VMCB_CS, 0x39b}, {"ss", VMCB_SS, 0xd93},     {"ds", VMCB_DS, 0x1f1},
	{"fs", VMCB_FS, 0xdb7}, {"gs", VMCB_GS, 0x993}, {"ldtr", VMCB_LDTR, 0x182}, {"tr", VMCB_TR, 0x18b},
};

STORY(svm_segment_field)
{
	uint64_t segment = GIVEN(index), part = GIVEN(type), value;
	static const uint8_t starts[] = {0, 2, 4, 8}, sizes[] = {2, 2, 4, 8};
	unsigned offset = segments[segment].offset + starts[part];

	if (!svm_begin())
		return;
	idle_guest();
	value = part == PART_SELECTOR     ? 0x2468
		: part == PART_ATTRIBUTES ? segments[segment].attributes
		: part == PART_LIMIT      ? 0x12345fff
					  : 0x123456789000;
	svm_write(offset, sizes[part], value);
	story_check("exitcode", SVM_EXIT_VMMCALL, svm_run());
	story_check(segments[segment].name, value, svm_read(offset, sizes[part]));
	svm_end();
}

/* Bases that are not canonical are made so, whether the linear addresses have 48 bits or 57 (15.5.1). */
STORY(svm_canonical_base)
{
	static const uint16_t bases[] = {VMCB_ES,   VMCB_CS, VMCB_SS, VMCB_DS,   VMCB_GDTR,
					 VMCB_IDTR, VMCB_FS, VMCB_GS, VMCB_LDTR, VMCB_TR};
	unsigned offset = bases[GIVEN(index)] + 8u;
	bool negative = GIVEN(value);

	if (!svm_begin())
		return;
	idle_guest();
	svm_set(offset, negative ? 0x01ff800000001000 : 0xfe00000000001000);
	story_check("exitcode", SVM_EXIT_VMMCALL, svm_run());
	story_check("base", negative ? 0xffff800000001000 : 0x1000, svm_get(offset));
	svm_end();
}

/* ---- bits that hold one value in the register (3.1, 13.1) ---- */

STORY(svm_fixed_bits)
{
	static const struct {
		const char *name;
		unsigned offset;
		uint64_t loaded, saved, mask;
	} fixed[] = {
		{"rflags_bit1", VMCB_RFLAGS, 0, RFLAGS_FIXED, 0x802a},
		{"rflags_zeros", VMCB_RFLAGS, 0x802a, RFLAGS_FIXED, 0x802a},
		{"rflags_upper", VMCB_RFLAGS, 0xffc00002, 0, 0xffffffffffc00000},
		{"dr6_ones", VMCB_DR6, 0, 0xffff0ff0, ~0ull},
		{"dr6_bit12", VMCB_DR6, 0xffff1ff0, 0xffff0ff0, ~0ull},
		{"dr7_bit10", VMCB_DR7, 0, DR7_FIXED_1, ~0ull},
		{"dr7_zeros", VMCB_DR7, 0xd800 | DR7_FIXED_1, DR7_FIXED_1, ~0ull},
		{"cr0_et", VMCB_CR0, CASE_CR0 & ~(uint64_t)CR0_ET, CR0_ET, CR0_ET},
	};
	uint64_t i = GIVEN(index);

	if (!svm_begin())
		return;
	idle_guest();
	svm_set(fixed[i].offset, fixed[i].loaded);
	story_check("exitcode", SVM_EXIT_VMMCALL, svm_run());
	story_check(fixed[i].name, fixed[i].saved, svm_get(fixed[i].offset) & fixed[i].mask);
	svm_end();
}

/* ---- whole pages ---- */

struct range {
	uint16_t from, to; /* the last byte */
};

static bool within(unsigned offset, const struct range *ranges, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		if (offset >= ranges[i].from && offset <= ranges[i].to)
			return true;
	return false;
}

/* How many bytes of svm_vmcb2 differ from @was within @ranges, or @without them. */
static unsigned differences(const uint8_t *was, const struct range *ranges, unsigned count, bool without)
{
	unsigned found = 0;

	for (unsigned i = 0; i < VMCB_SIZE; i++)
		if (within(i, ranges, count) != without)
			found += was[i] != svm_vmcb2[i];
	return found;
}
#define COUNT(ranges) (sizeof(ranges) / sizeof((ranges)[0]))

static uint8_t was[VMCB_SIZE];

/* What VMSAVE and VMLOAD move: FS, GS, LDTR, TR, and the MSRs from STAR to SYSENTER_EIP. */
static const struct range moved[] = {{VMCB_FS, VMCB_GS + 15},
				     {VMCB_LDTR, VMCB_LDTR + 15},
				     {VMCB_TR, VMCB_TR + 15},
				     {VMCB_STAR, VMCB_SYSENTER_EIP + 7}};

STORY(svm_vmsave_page)
{
	if (!svm_begin())
		return;
	machine_fill(svm_vmcb2, 0x5a, VMCB_SIZE);
	machine_fill(was, 0x5a, VMCB_SIZE);
	story_check("vmsave", STORY_NO_FAULT, svm_try(SVM_DO_VMSAVE, (uintptr_t)svm_vmcb2, 0));
	story_check("elsewhere", 0, differences(was, moved, COUNT(moved), true));
	story_check("kernel_gs_base", machine_read_msr(MSR_KERNEL_GS_BASE), at(svm_vmcb2, VMCB_KERNEL_GS, 8));
	story_check("star", machine_read_msr(MSR_STAR), at(svm_vmcb2, VMCB_STAR, 8));
	story_check("lstar", machine_read_msr(MSR_LSTAR), at(svm_vmcb2, VMCB_LSTAR, 8));
	story_check("cstar", machine_read_msr(MSR_CSTAR), at(svm_vmcb2, VMCB_CSTAR, 8));
	story_check("sfmask", machine_read_msr(MSR_FMASK), at(svm_vmcb2, VMCB_SFMASK, 8));
	story_check("sysenter_cs", machine_read_msr(MSR_SYSENTER_CS), at(svm_vmcb2, VMCB_SYSENTER_CS, 8));
	story_check("sysenter_esp", machine_read_msr(MSR_SYSENTER_ESP), at(svm_vmcb2, VMCB_SYSENTER_ESP, 8));
	story_check("sysenter_eip", machine_read_msr(MSR_SYSENTER_EIP), at(svm_vmcb2, VMCB_SYSENTER_EIP, 8));
	svm_end();
}

STORY(svm_vmload_page)
{
	if (!svm_begin())
		return;
	machine_fill(svm_vmcb2, 0, VMCB_SIZE);
	svm_try(SVM_DO_VMSAVE, (uintptr_t)svm_vmcb2, 0);
	machine_copy(was, svm_vmcb2, VMCB_SIZE);
	story_check("vmload", STORY_NO_FAULT, svm_try(SVM_DO_VMLOAD, (uintptr_t)svm_vmcb2, 0));
	story_check("unchanged", 0, differences(was, moved, 0, true));
	svm_end();
}

/* Controls that #VMEXIT does not write; what software has for itself; the registers of VMLOAD; those of LBR
 * virtualization. */
static const struct range controls[] = {{0x000, 0x05f}, {0x090, 0x097}, {0x0b0, 0x0c7}};
static const struct range software[] = {{0x3e0, 0x3ff}};
static const struct range records[] = {{VMCB_DBGCTL, VMCB_LASTEXCPTO + 7}};

/* mode 0: a guest that runs; 1: one that VMRUN refuses. VMRUN alone, without
 * VMSAVE behind it. */
STORY(svm_exit_page)
{
	bool refused = GIVEN(mode);

	if (!svm_begin())
		return;
	idle_guest();
	machine_copy(svm_vmcb2, svm_vmcb, VMCB_SIZE);
	machine_fill(svm_vmcb2 + 0x3e0, 0x5a, 0x20);
	for (unsigned i = 0; i < COUNT(moved); i++)
		machine_fill(svm_vmcb2 + moved[i].from, 0x12, moved[i].to - moved[i].from + 1u);
	machine_fill(svm_vmcb2 + VMCB_DBGCTL, 0x12, VMCB_LASTEXCPTO + 8 - VMCB_DBGCTL);
	svm_vmcb2[VMCB_TLB_CONTROL] = 1;
	if (refused)
		svm_vmcb2[VMCB_CR0 + 7] = 0x80;
	machine_copy(was, svm_vmcb2, VMCB_SIZE);
	story_check("vmrun", STORY_NO_FAULT, svm_try(SVM_DO_VMRUN, (uintptr_t)svm_vmcb2, 0));
	story_check("exitcode", refused ? (uint64_t)SVM_EXIT_INVALID : SVM_EXIT_VMMCALL,
		    at(svm_vmcb2, VMCB_EXITCODE, 8));
	story_check("controls", 0, differences(was, controls, COUNT(controls), false));
	story_check("software", 0, differences(was, software, COUNT(software), false));
	story_check("moved", 0, differences(was, moved, COUNT(moved), false));
	story_check("records", 0, differences(was, records, COUNT(records), false));
	svm_end();
}

/* ---- what no world switch moves: the guest's values stay in the processor (15.5.1, 15.6) ---- */

enum {
	LEFT_CR2,
	LEFT_DR0,
	LEFT_DR3,
	LEFT_DR6,
	LEFT_LSTAR,
	LEFT_KERNEL_GS,
	LEFT_SYSENTER,
	LEFT_PAT,
	OWN_PAT,
	LEFT_REGISTERS
};

#define OTHER_PAT 0x0007040600070401ull

static uint64_t read_dr(unsigned n)
{
	uint64_t value;

	switch (n) {
	case 0: __asm__ volatile("mov %%dr0, %0" : "=r"(value)); break;
	case 3: __asm__ volatile("mov %%dr3, %0" : "=r"(value)); break;
	default: __asm__ volatile("mov %%dr6, %0" : "=r"(value)); break;
	}
	return value;
}

static void clear_debug_registers(void)
{
	__asm__ volatile("mov %0, %%dr0; mov %0, %%dr3; mov %1, %%dr6" : : "r"(0ull), "r"(0xffff0ff0ull));
}

/* VMRUN alone of a guest that writes @value to the MSR @index; what the host then has there, put back. */
static uint64_t write_in_guest(uint32_t index, uint64_t value)
{
	uint64_t old = machine_read_msr(index), found;

	/* mov $index, %ecx; mov $low, %eax; mov $high, %edx; wrmsr; VMMCALL */
	SVM_CODE(0xb9, (uint8_t)index, (uint8_t)(index >> 8), (uint8_t)(index >> 16), (uint8_t)(index >> 24),
		 0xb8, (uint8_t)value, (uint8_t)(value >> 8), (uint8_t)(value >> 16), (uint8_t)(value >> 24),
		 0xba, (uint8_t)(value >> 32), (uint8_t)(value >> 40), (uint8_t)(value >> 48),
		 (uint8_t)(value >> 56), 0x0f, 0x30, 0x0f, 0x01, 0xd9);
	story_check("vmrun", STORY_NO_FAULT, svm_try(SVM_DO_VMRUN, (uintptr_t)svm_vmcb, 0));
	story_check("exitcode", SVM_EXIT_VMMCALL, svm_get(VMCB_EXITCODE));
	found = machine_read_msr(index);
	machine_write_msr(index, old);
	return found;
}

STORY(svm_left_alone)
{
	uint64_t mode = GIVEN(mode);

	if (!svm_begin() || (mode == OWN_PAT && !SVM_NEEDS(0)))
		return;
	idle_guest();
	switch (mode) {
	case LEFT_CR2: /* mov $0x55000, %eax; mov %rax, %cr2; the VMCB's DR6 and the like take no part in it
			*/
		SVM_CODE(0xb8, 0x00, 0x50, 0x05, 0x00, 0x0f, 0x22, 0xd0, 0x0f, 0x01, 0xd9);
		story_check("exitcode", SVM_EXIT_VMMCALL, svm_run());
		story_check("cr2", 0x55000, machine_read_cr2());
		break;
	case LEFT_DR0:
		SVM_CODE(0xb8, 0x00, 0x50, 0x05, 0x00, 0x0f, 0x23, 0xc0, 0x0f, 0x01, 0xd9);
		story_check("exitcode", SVM_EXIT_VMMCALL, svm_run());
		story_check("dr0", 0x55000, read_dr(0));
		break;
	case LEFT_DR3:
		SVM_CODE(0xb8, 0x00, 0x50, 0x05, 0x00, 0x0f, 0x23, 0xd8, 0x0f, 0x01, 0xd9);
		story_check("exitcode", SVM_EXIT_VMMCALL, svm_run());
		story_check("dr3", 0x55000, read_dr(3));
		break;
	case LEFT_DR6: /* loaded from the VMCB, and saved to it */
		svm_set(VMCB_DR6, 0xffff0ff5);
		story_check("exitcode", SVM_EXIT_VMMCALL, svm_run());
		story_check("saved", 0xffff0ff5, svm_get(VMCB_DR6));
		story_check("dr6", read_dr(6) == 0xffff0ff0 ? 0xffff0ff0 : 0xffff0ff5, read_dr(6)); /* or the host's own */
		break;
	case LEFT_LSTAR: story_check("lstar", 0x123000, write_in_guest(MSR_LSTAR, 0x123000)); break;
	case LEFT_KERNEL_GS:
		story_check("kernel_gs_base", 0x124000, write_in_guest(MSR_KERNEL_GS_BASE, 0x124000));
		break;
	case LEFT_SYSENTER:
		story_check("sysenter_eip", 0x125000, write_in_guest(MSR_SYSENTER_EIP, 0x125000));
		break;
	case LEFT_PAT: story_check("pat", OTHER_PAT, write_in_guest(MSR_PAT, OTHER_PAT)); break;
	case OWN_PAT: /* nested paging: each has its own (15.25.4) */
		svm_nested_build();
		svm_nested_use();
		story_check("host", machine_read_msr(MSR_PAT), write_in_guest(MSR_PAT, OTHER_PAT));
		story_check("guest", OTHER_PAT, svm_get(VMCB_G_PAT));
		break;
	case LEFT_REGISTERS: /* mov $1, %ecx … mov $7, %edi; mov $8, %r8d; mov $15, %r15d */
		SVM_CODE(0xb9, 1, 0, 0, 0, 0xba, 2, 0, 0, 0, 0xbb, 3, 0, 0, 0, 0xbd, 5, 0, 0, 0, 0xbe, 6, 0,
			 0, 0, 0xbf, 7, 0, 0, 0, 0x41, 0xb8, 8, 0, 0, 0, 0x41, 0xbf, 15, 0, 0, 0, 0x0f, 0x01,
			 0xd9);
		story_check("exitcode", SVM_EXIT_VMMCALL, svm_run());
		story_check("rcx", 1, svm_registers.rcx);
		story_check("rdx", 2, svm_registers.rdx);
		story_check("rbx", 3, svm_registers.rbx);
		story_check("rbp", 5, svm_registers.rbp);
		story_check("rsi", 6, svm_registers.rsi);
		story_check("rdi", 7, svm_registers.rdi);
		story_check("r8", 8, svm_registers.r8);
		story_check("r15", 15, svm_registers.r15);
		break;
	}
	clear_debug_registers();
	svm_end();
}
