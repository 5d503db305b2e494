/*
 * clean.c: clean bits by what a guest notices (APM 2 15.15): for each bit something that the hypervisor
 * changes between two VMRUNs. Where the bit is 0 the guest must find it; where it is 1, either that or what
 * was there before.
 */
#include "lib/exchange.h"
#include "lib/machine.h"
#include "svm/svm.h"
#include "x86/case_layout.h"
#include "x86/msr.h"
#include "x86/vectors.h"

static uint8_t other_map[SVM_IOPM_SIZE] __attribute__((aligned(4096)));
static uint64_t other_root[512] __attribute__((aligned(4096)));

#define OTHER_PAT 0x0007040600070401ull

enum noticed { BY_RAX, BY_TOP_OF_RDX, BY_EXIT, BY_HANDLER };

/* Code without its VMMCALL; RCX; what is changed; what the guest has of it then. */
static const struct {
	uint8_t bit, length, size, noticed;
	uint8_t code[11];
	uint32_t rcx;
	uint16_t offset;
	uint64_t value; /* 0: an address, which change() knows */
	uint64_t found;
} effects[] = {
	/* rdtsc */
	{0, 2, 8, BY_TOP_OF_RDX, {0x0f, 0x31}, 0, VMCB_TSC_OFFSET, 1ull << 62, 1},
	/* mov %cr0, %rax; ud2; pause: intercepts of each word */
	{0, 3, 2, BY_EXIT, {0x0f, 0x20, 0xc0}, 0, VMCB_INTERCEPTS(0), 1, SVM_EXIT_CR0_READ},
	{0, 3, 2, BY_EXIT, {0x0f, 0x21, 0xf8}, 0, VMCB_INTERCEPTS(1), 1 << 7, SVM_EXIT_DR0_READ + 7},
	{0, 2, 4, BY_EXIT, {0xcd, 0x55}, 0, VMCB_INTERCEPTS(3), 1 << 21 | 0xf, SVM_EXIT_SWINT},
	/* in $0x80, %al */
	{1, 2, 8, BY_EXIT, {0xe4, 0x80}, 0, VMCB_IOPM_BASE, 0, SVM_EXIT_IOIO},
	{1, 2, 8, BY_EXIT, {0x0f, 0x32}, MSR_LSTAR, VMCB_MSRPM_BASE, 0, SVM_EXIT_MSR},
	/* nop; nop, with interrupts let in */
	{3, 2, 8, BY_HANDLER, {0x90, 0x90}, 0, VMCB_INTERRUPT, SVM_V_IRQ | 15ull << 16 | 0x41ull << 32, 0x41},
	/* mov %cr8, %rax */
	{3, 4, 8, BY_RAX, {0x44, 0x0f, 0x20, 0xc0}, 0, VMCB_INTERRUPT, SVM_V_INTR_MASKING | 9, 9},
	/* mov CASE_OPERAND, %eax under other nested tables; rdmsr of PAT */
	{4, 7, 8, BY_RAX, {0x8b, 0x04, 0x25, 0x00, 0x44, 0x01, 0x00}, 0, VMCB_NCR3, 0, 0x11111111},
	{4, 2, 8, BY_RAX, {0x0f, 0x32}, MSR_PAT, VMCB_G_PAT, OTHER_PAT, 0x00070401},
	/* mov %cr0, %cr4, %cr3; rdmsr of EFER */
	{5, 3, 8, BY_RAX, {0x0f, 0x20, 0xc0}, 0, VMCB_CR0, CASE_CR0 | CR0_TS, CASE_CR0 | CR0_TS},
	{5, 3, 8, BY_RAX, {0x0f, 0x20, 0xe0}, 0, VMCB_CR4, CASE_CR4_LONG | CR4_PGE, CASE_CR4_LONG | CR4_PGE},
	{5, 3, 8, BY_RAX, {0x0f, 0x20, 0xd8}, 0, VMCB_CR3, CASE_CR3_LONG | 0x18, CASE_CR3_LONG | 0x18},
	{5,
	 2,
	 8,
	 BY_RAX,
	 {0x0f, 0x32},
	 MSR_EFER,
	 VMCB_EFER,
	 EFER_LME | EFER_LMA | EFER_SVME | EFER_NXE,
	 EFER_LME | EFER_LMA | EFER_SVME | EFER_NXE},
	/* mov %dr6, %rax; mov %dr7, %rax */
	{6, 3, 8, BY_RAX, {0x0f, 0x21, 0xf0}, 0, VMCB_DR6, DR6_FIXED_1 | 5, DR6_FIXED_1 | 5},
	{6, 3, 8, BY_RAX, {0x0f, 0x21, 0xf8}, 0, VMCB_DR7, DR7_FIXED_1 | DR7_LE, DR7_FIXED_1 | DR7_LE},
	/* sgdt (%rbx), sidt (%rbx): mov (%rbx), %eax */
	{7, 5, 4, BY_RAX, {0x0f, 0x01, 0x03, 0x8b, 0x03}, 0xffff, VMCB_GDTR + 4, 0x17f, 0x17f},
	{7, 5, 4, BY_RAX, {0x0f, 0x01, 0x0b, 0x8b, 0x03}, 0xffff, VMCB_IDTR + 4, 0xdff, 0xdff},
	/* mov %ds, %eax; mov %es, %eax; mov %ss, %eax; mov %cs, %eax */
	{8, 2, 2, BY_RAX, {0x8c, 0xd8}, 0, VMCB_DS, 0x1230, 0x1230},
	{8, 2, 2, BY_RAX, {0x8c, 0xc0}, 0, VMCB_ES, 0x1238, 0x1238},
	{8, 2, 2, BY_RAX, {0x8c, 0xd0}, 0, VMCB_SS, 0x1240, 0x1240},
	{8, 2, 2, BY_RAX, {0x8c, 0xc8}, 0, VMCB_CS, 0x1248, 0x1248},
	/* mov %cr2, %rax */
	{9, 3, 8, BY_RAX, {0x0f, 0x20, 0xd0}, 0, VMCB_CR2, 0x55000, 0x55000},
	/* rdmsr of each record */
	{10, 2, 8, BY_RAX, {0x0f, 0x32}, MSR_DEBUGCTL, VMCB_DBGCTL, DEBUGCTL_BTF, DEBUGCTL_BTF},
	{10, 2, 8, BY_RAX, {0x0f, 0x32}, MSR_LASTBRANCHFROMIP, VMCB_BR_FROM, 0x123450, 0x123450},
	{10, 2, 8, BY_RAX, {0x0f, 0x32}, MSR_LASTBRANCHTOIP, VMCB_BR_TO, 0x123460, 0x123460},
	{10, 2, 8, BY_RAX, {0x0f, 0x32}, MSR_LASTINTFROMIP, VMCB_LASTEXCPFROM, 0x123470, 0x123470},
	{10, 2, 8, BY_RAX, {0x0f, 0x32}, MSR_LASTINTTOIP, VMCB_LASTEXCPTO, 0x123480, 0x123480},
	/* What has no clean bit: RAX, RSP, RFLAGS, the interrupt shadow's and EVENTINJ's effect. */
	{31, 1, 8, BY_RAX, {0x90}, 0, VMCB_RAX, 0x1234, 0x1234},
	{31, 3, 8, BY_RAX, {0x48, 0x89, 0xe0}, 0, VMCB_RSP, CASE_STACK - 64, CASE_STACK - 64},
	{31, 2, 8, BY_RAX, {0x9c, 0x58}, 0, VMCB_RFLAGS, RFLAGS_FIXED | RFLAGS_ZF, RFLAGS_FIXED | RFLAGS_ZF},
	{31, 1, 8, BY_HANDLER, {0x90}, 0, VMCB_EVENTINJ, SVM_EVENT_VALID | 0x47, 0x47},
};

static uint64_t found(uint64_t i, uint64_t code)
{
	switch (effects[i].noticed) {
	case BY_RAX:
		return effects[i].size == 2
			       ? svm_get(VMCB_RAX) & 0xffff
			       : (uint32_t)svm_get(VMCB_RAX) & (effects[i].rcx == 0xffff ? 0xffff : ~0u);
	case BY_TOP_OF_RDX: return svm_registers.rdx >> 30 & 1;
	case BY_HANDLER: return svm_handler_vector();
	default: return code;
	}
}

static uint64_t new_value(uint64_t i)
{
	if (effects[i].value)
		return effects[i].value;
	return effects[i].offset == VMCB_NCR3 ? (uintptr_t)other_root : (uintptr_t)other_map;
}

/* Nested tables once more, in which CASE_OPERAND's page is CASE_FRAME. */
static void build_other_root(void)
{
	static uint64_t pdpt[512] __attribute__((aligned(4096))), pd[512] __attribute__((aligned(4096))),
		pt[512] __attribute__((aligned(4096)));

	machine_copy(other_root, (const void *)(uintptr_t)CASE_NESTED_PML4, sizeof(other_root));
	machine_copy(pdpt, (const void *)(uintptr_t)CASE_NESTED_PDPT, sizeof(pdpt));
	machine_copy(pd, (const void *)(uintptr_t)CASE_NESTED_PD, sizeof(pd));
	machine_copy(pt, (const void *)(uintptr_t)CASE_NESTED_PT, sizeof(pt));
	other_root[0] = (uintptr_t)pdpt | CASE_NESTED_BITS;
	pdpt[0] = (uintptr_t)pd | CASE_NESTED_BITS;
	pd[0] = (uintptr_t)pt | CASE_NESTED_BITS;
	pt[CASE_OPERAND >> 12] = CASE_FRAME | CASE_NESTED_BITS;
	*(volatile uint32_t *)(uintptr_t)(CASE_FRAME + (CASE_OPERAND & 0xfff)) = 0x11111111;
}

/* Before the change and behind it the guest is the same. */
static void begin_guest(uint64_t i)
{
	uint8_t code[14];

	svm_baseline(MODE_LONG, 0);
	machine_copy(code, effects[i].code, effects[i].length);
	code[effects[i].length] = 0x0f;
	code[effects[i].length + 1] = 0x01;
	code[effects[i].length + 2] = 0xd9;
	svm_code(code, effects[i].length + 3u);
	svm_registers.rcx = effects[i].rcx;
	svm_intercept(SVM_EXIT_IOIO, true);
	svm_intercept(SVM_EXIT_MSR, true);
	machine_fill(other_map, 0xff, sizeof(other_map));
	if (effects[i].bit == 3)
		svm_set(VMCB_RFLAGS, svm_get(VMCB_RFLAGS) | RFLAGS_IF);
	if (effects[i].bit == 4) {
		svm_nested_build();
		svm_nested_use();
		build_other_root();
	}
	if (effects[i].bit == 10)
		svm_set(VMCB_VIRTUAL, SVM_LBR_ENABLE);
}

/* index: what is changed; mode: 0: its own clean bit is 0, 1: all are 0, 2: all are 1. */
STORY(svm_clean_effect)
{
	static uint8_t was[VMCB_SIZE];
	static const uint32_t all[] = {0, 0, 0xffffffff};
	uint64_t i = GIVEN(index), mode = GIVEN(mode), first, second, code;
	struct svm_registers registers;

	if (!svm_begin() || !SVM_NEEDS(5) || (effects[i].bit == 4 && !SVM_NEEDS(0)) ||
	    (effects[i].bit == 10 && !SVM_NEEDS(1)))
		return;
	begin_guest(i);
	machine_copy(was, svm_vmcb, VMCB_SIZE);
	registers = svm_registers;
	first = found(i, svm_run());
	story_check("first", false, first == effects[i].found);
	/* The guest once more from its start, but for what the processor may have kept. */
	svm_set(VMCB_RIP, CASE_STUB);
	svm_set(VMCB_RAX, 0);
	svm_set(VMCB_RSP, CASE_STACK);
	svm_registers = registers;
	svm_write(effects[i].offset, effects[i].size, new_value(i));
	svm_write(VMCB_TLB_CONTROL, 1, 1); /* it has no clean bit */
	if (effects[i].offset == VMCB_RAX)
		svm_set(VMCB_RAX, effects[i].value);
	if (effects[i].offset == VMCB_RSP)
		svm_set(VMCB_RSP, effects[i].value);
	svm_write(VMCB_CLEAN, 4, mode ? all[mode] : ~(1u << effects[i].bit));
	code = svm_run();
	second = found(i, code);
	if (mode == 2 && effects[i].bit != 31)
		story_check("either", effects[i].found, second == first ? effects[i].found : second);
	else
		story_check("second", effects[i].found, second);
	svm_end();
}
