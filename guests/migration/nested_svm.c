/*
 * nested_svm.c: guests of AMD-V that run for a while: whatever VMRUN has left in the processor must still be there when it
 * matters, many instructions later.
 *
 * APM 2 chapter 15.
 */
#include "lib/apic.h"
#include "lib/exchange.h"
#include "migration/migration.h"
#include "svm/svm.h"
#include "x86/case_layout.h"
#include "x86/msr.h"
#include "x86/paging.h"
#include "x86/vectors.h"

#define VMMCALL 0x0f, 0x01, 0xd9
/* mov $20, %ecx; 1: dec %ecx; jnz 1b */
#define A_WHILE 0xb9, 20, 0, 0, 0, 0xff, 0xc9, 0x75, 0xfc
#define WHILE_BYTES 9u

void apic_send_nmi(void);

static volatile uint64_t *quad(uint64_t address) { return (volatile uint64_t *)(uintptr_t)address; }

static void begin_guest(uint64_t flags)
{
	svm_baseline(MODE_LONG, 0);
	svm_set(VMCB_RFLAGS, svm_get(VMCB_RFLAGS) | flags);
}

/* ---- intercepts ---- */

static const struct {
	uint32_t code;
	uint8_t length, bytes[4];
} intercepted[] = {
	{SVM_EXIT_CPUID, 2, {0x0f, 0xa2}},
	{SVM_EXIT_HLT, 1, {0xf4}},
	{SVM_EXIT_RDTSC, 2, {0x0f, 0x31}},
	{SVM_EXIT_RDPMC, 2, {0x0f, 0x33}},
	{SVM_EXIT_PUSHF, 1, {0x9c}},
	{SVM_EXIT_INVD, 2, {0x0f, 0x08}},
	{SVM_EXIT_WBINVD, 2, {0x0f, 0x09}},
	{SVM_EXIT_STGI, 3, {0x0f, 0x01, 0xdc}},
	{SVM_EXIT_CR0_READ, 3, {0x0f, 0x20, 0xc0}},
	{SVM_EXIT_CR0_READ + 3, 3, {0x0f, 0x20, 0xd8}},
	{SVM_EXIT_DR0_READ, 3, {0x0f, 0x21, 0xc0}},
	{SVM_EXIT_IDTR_READ, 3, {0x0f, 0x01, 0x0b}},
	{SVM_EXIT_TR_READ, 3, {0x0f, 0x00, 0xc8}},
	{SVM_EXIT_SWINT, 2, {0xcd, 0x41}},
};

/* An instruction (@index) that is intercepted, behind a while: it exits there, and with its intercept off it runs (@mode). */
STORY(svm_intercept_kept)
{
	unsigned n = (unsigned)GIVEN(index);
	uint8_t code[WHILE_BYTES + 8] = {A_WHILE};
	bool off = GIVEN(mode);

	if (!svm_begin())
		return;
	for (unsigned i = 0; i < intercepted[n].length; i++)
		code[WHILE_BYTES + i] = intercepted[n].bytes[i];
	code[WHILE_BYTES + intercepted[n].length] = 0x0f;
	code[WHILE_BYTES + intercepted[n].length + 1] = 0x01;
	code[WHILE_BYTES + intercepted[n].length + 2] = 0xd9;
	begin_guest(0);
	svm_code(code, WHILE_BYTES + intercepted[n].length + 3u);
	svm_intercept(intercepted[n].code, !off);
	story_check("exitcode", off ? SVM_EXIT_VMMCALL : intercepted[n].code, svm_run());
	if (!off)
		story_check("rip", CASE_STUB + WHILE_BYTES, svm_get(VMCB_RIP));
	svm_end();
}

/* The maps of ports and of MSRs. */
STORY(svm_maps_kept)
{
	bool port = GIVEN(mode), on = GIVEN(value);

	if (!svm_begin())
		return;
	begin_guest(0);
	if (port)
		SVM_CODE(A_WHILE, 0xe4, 0x80, VMMCALL); /* in $0x80, %al */
	else
		SVM_CODE(A_WHILE, 0xb9, 0x82, 0x00, 0x00, 0xc0, 0x0f, 0x32, VMMCALL); /* RDMSR of LSTAR */
	svm_intercept(port ? SVM_EXIT_IOIO : SVM_EXIT_MSR, true);
	machine_fill(svm_iopm, 0, sizeof(svm_iopm));
	machine_fill(svm_msrpm, 0, sizeof(svm_msrpm));
	if (on && port)
		svm_iopm[0x80 / 8] |= 1;
	if (on && !port)
		svm_msrpm[0x800 + 0x82 / 4] |= 1u << 2 * (0x82 % 4);
	story_check("exitcode", !on ? SVM_EXIT_VMMCALL : port ? SVM_EXIT_IOIO : SVM_EXIT_MSR, svm_run());
	svm_end();
}

/* ---- interrupts ---- */

/* V_IRQ waits until the guest lets interrupts in, after a while. */
STORY(svm_v_irq_kept)
{
	bool masked = GIVEN(mode);

	if (!svm_begin())
		return;
	begin_guest(0);
	SVM_CODE(A_WHILE, 0xfb, 0x90, 0x90, 0x90, VMMCALL);
	svm_set(VMCB_INTERRUPT, SVM_V_IRQ | (masked ? 3ull : 15ull) << 16 | 0x41ull << 32 | (masked ? 8 : 0));
	story_check("exitcode", SVM_EXIT_VMMCALL, svm_run());
	story_check("handler", masked ? SVM_VECTOR_NONE : 0x41, svm_handler_vector());
	story_check("v_irq", masked ? SVM_V_IRQ : 0, svm_get(VMCB_INTERRUPT) & SVM_V_IRQ);
	if (!masked)
		story_check("where", CASE_STUB + WHILE_BYTES + 2, *quad(svm_get(VMCB_RSP)));
	svm_end();
}

/* V_INTR_MASKING: the host's IF is what holds an interrupt back, whatever the guest does with its own (@value: the host's). */
STORY(svm_host_if_kept)
{
	bool open = GIVEN(value);

	if (!svm_begin() || !story_has_apic())
		return;
	begin_guest(open ? 0 : RFLAGS_IF);
	apic_enable(0xff);
	apic_write(APIC_DIVIDE, 0xb);
	apic_write(APIC_LVT_TIMER, 0x45);
	apic_write(APIC_INITIAL_COUNT, 40);
	if (open)
		SVM_CODE(A_WHILE, A_WHILE, A_WHILE, 0xeb, 0xfe); /* for ever */
	else
		SVM_CODE(A_WHILE, A_WHILE, A_WHILE, VMMCALL);
	svm_set(VMCB_INTERRUPT, SVM_V_INTR_MASKING);
	svm_host_if = open;
	story_check("exitcode", open ? SVM_EXIT_INTR : SVM_EXIT_VMMCALL, svm_run_keep());
	svm_host_if = 0;
	__asm__ volatile("stgi");
	story_open();
	for (unsigned i = 0; i < 100000 && !story_count(0x45); i++)
		story_open();
	story_check("came", 1, story_count(0x45));
	svm_end();
}

/* GIF = 0 for a while: what comes waits (@mode: interrupt, NMI). */
STORY(svm_gif_kept)
{
	bool nmi = GIVEN(mode);

	if (!svm_begin() || !story_has_apic())
		return;
	apic_enable(0xff);
	__asm__ volatile("clgi");
	if (nmi)
		apic_send_nmi();
	else
		apic_send(apic_id(), ICR_ASSERT | 0x45);
	__asm__ volatile("sti");
	hold();
	hold();
	story_check("held", 0, story_total());
	__asm__ volatile("stgi; nop; nop; cli");
	story_check("came", 1, story_count(nmi ? VECTOR_NMI : 0x45));
	svm_end();
}

/* ---- what VMRUN leaves besides ---- */

/* TSC_OFFSET: what the guest reads is the host's plus it (and by TSC_RATIO, @mode). */
STORY(svm_tsc_kept)
{
	uint64_t offset = 0x1000000000000ull, before, behind, got;
	bool ratio = GIVEN(mode);

	if (!svm_begin() || (ratio && !SVM_NEEDS(4)))
		return;
	begin_guest(0);
	SVM_CODE(A_WHILE, 0x0f, 0x31, VMMCALL);
	svm_set(VMCB_TSC_OFFSET, offset);
	if (ratio)
		machine_write_msr(MSR_TSC_RATIO, 4ull << 32);
	hold();
	before = read_tsc();
	story_check("exitcode", SVM_EXIT_VMMCALL, svm_run());
	behind = read_tsc();
	got = svm_registers.rdx << 32 | (svm_get(VMCB_RAX) & 0xffffffff);
	got -= offset;
	if (ratio)
		got /= 4;
	story_check("not_before", 1, got >= before);
	story_check("not_behind", 1, got <= behind);
	if (ratio) {
		HELD("ratio", 4ull << 32, machine_read_msr(MSR_TSC_RATIO));
		machine_write_msr(MSR_TSC_RATIO, 1ull << 32);
	}
	svm_end();
}

/* The filter of PAUSE counts on, and its threshold sets it back (15.14.4). */
STORY(svm_pause_kept)
{
	unsigned count = 6;
	bool threshold = GIVEN(mode) == 1, close = GIVEN(mode) == 2; /* close: within the threshold */

	if (!svm_begin() || !SVM_NEEDS(10) || ((threshold || close) && !SVM_NEEDS(12)))
		return;
	begin_guest(0);
	/* 10 PAUSEs; with the threshold a while between two of them, so that they are of several loops */
	if (threshold)
		SVM_CODE(0xf3, 0x90, 0xf3, 0x90, 0xf3, 0x90, 0xf3, 0x90, A_WHILE, 0xf3, 0x90, 0xf3, 0x90, 0xf3, 0x90, 0xf3, 0x90,
			 A_WHILE, 0xf3, 0x90, 0xf3, 0x90, VMMCALL);
	else
		SVM_CODE(0xf3, 0x90, 0xf3, 0x90, 0xf3, 0x90, 0xf3, 0x90, 0xf3, 0x90, 0xf3, 0x90, 0xf3, 0x90, 0xf3, 0x90, 0xf3,
			 0x90, VMMCALL);
	svm_intercept(SVM_EXIT_PAUSE, true);
	svm_write(VMCB_PAUSE_COUNT, 2, count);
	if (threshold)
		svm_write(VMCB_PAUSE_THRESHOLD, 2, 10);
	if (close)
		svm_write(VMCB_PAUSE_THRESHOLD, 2, 60000);
	story_check("exitcode", threshold ? SVM_EXIT_VMMCALL : SVM_EXIT_PAUSE, svm_run());
	if (!threshold)
		story_check("rip", CASE_STUB + 2 * count, svm_get(VMCB_RIP));
	svm_end();
}

/* Nested tables: a page that leads elsewhere, accessed and dirty flags, and a fault behind a while. */
STORY(svm_nested_kept)
{
	if (!svm_begin() || !SVM_NEEDS(0))
		return;
	begin_guest(0);
	svm_nested_build();
	svm_nested_use();
	*quad(CASE_NESTED_PTE(CASE_FRAME)) = (CASE_FRAME2 | CASE_NESTED_BITS) & ~(uint64_t)(PTE_A | PTE_D);
	*quad(CASE_NESTED_PTE(CASE_OPERAND_PAGE2)) = 0;
	*quad(CASE_FRAME2) = 0x1122334455667788;
	/* mov CASE_FRAME, %rax; a while; mov %rax, CASE_FRAME + 8; a while; mov CASE_OPERAND_PAGE2, %eax */
	SVM_CODE(0x48, 0x8b, 0x04, 0x25, CASE_FRAME & 0xff, CASE_FRAME >> 8 & 0xff, CASE_FRAME >> 16, 0, A_WHILE, 0x48, 0x89, 0x04,
		 0x25, (CASE_FRAME + 8) & 0xff, CASE_FRAME >> 8 & 0xff, CASE_FRAME >> 16, 0, A_WHILE, 0x8b, 0x04, 0x25, 0,
		 CASE_OPERAND_PAGE2 >> 8 & 0xff, CASE_OPERAND_PAGE2 >> 16, 0, VMMCALL);
	*quad(CASE_PTE_LONG(CASE_FRAME)) = CASE_PTE(CASE_FRAME, false);
	story_check("exitcode", SVM_EXIT_NPF, svm_run());
	story_check("address", CASE_OPERAND_PAGE2, svm_get(VMCB_EXITINFO2));
	story_check("read", 0x1122334455667788, svm_get(VMCB_RAX));
	hold();
	story_check("written", 0x1122334455667788, *quad(CASE_FRAME2 + 8));
	story_check("not_there", 1, *quad(CASE_FRAME + 8) != 0x1122334455667788);
	story_check("flags", PTE_A | PTE_D, *quad(CASE_NESTED_PTE(CASE_FRAME)) & (PTE_A | PTE_D));
	svm_end();
}

/* The control block as #VMEXIT wrote it, and the guest run on from there, many times. */
STORY(svm_exits_kept)
{
	if (!svm_begin())
		return;
	begin_guest(0);
	/* 1: inc %rbx; cpuid is not it: rdtsc; jmp 1b */
	SVM_CODE(0x48, 0xff, 0xc3, 0x0f, 0x31, 0xeb, 0xf9);
	svm_intercept(SVM_EXIT_RDTSC, true);
	svm_registers.rbx = 100;
	for (unsigned i = 0; i < 6; i++) {
		story_check_at("exitcode", i, SVM_EXIT_RDTSC, svm_run());
		hold();
		story_check_at("rip", i, CASE_STUB + 3, svm_get(VMCB_RIP));
		story_check_at("rbx", i, 101 + i, svm_registers.rbx);
		hold();
		story_check_at("exitcode_still", i, SVM_EXIT_RDTSC, svm_get(VMCB_EXITCODE));
		svm_set(VMCB_RIP, CASE_STUB + 5);
	}
	svm_end();
}

/* Each ASID has its translations, and TLB_CONTROL drops them; the hypervisor's own are apart. */
STORY(svm_asid_kept)
{
	if (!svm_begin())
		return;
	begin_guest(0);
	/* mov CASE_OPERAND, %rax; VMMCALL */
	SVM_CODE(A_WHILE, 0x48, 0x8b, 0x04, 0x25, CASE_OPERAND & 0xff, CASE_OPERAND >> 8 & 0xff, CASE_OPERAND >> 16, 0, VMMCALL);
	for (unsigned i = 0; i < 4; i++) {
		*quad(CASE_OPERAND) = 0x500 + i;
		svm_write(VMCB_ASID, 4, 1 + i % 2);
		svm_set(VMCB_RIP, CASE_STUB);
		hold();
		story_check_at("exitcode", i, SVM_EXIT_VMMCALL, svm_run());
		story_check_at("read", i, 0x500 + i, svm_get(VMCB_RAX));
		story_check_at("asid", i, 1 + i % 2, svm_read(VMCB_ASID, 4));
	}
	svm_end();
}
