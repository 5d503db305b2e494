/*
 * assists.c: what an exit tells of its instruction, so that a hypervisor need not decode it (APM
 * 2 15.8, 15.7.1): registers of MOV CRn and DRn, the address of INVLPG, the bytes at page faults.
 */
#include "lib/apic.h"
#include "lib/exchange.h"
#include "lib/machine.h"
#include "lib/world.h"
#include "svm/svm.h"
#include "x86/case_layout.h"
#include "x86/msr.h"
#include "x86/vectors.h"

void apic_send_nmi(void); /* apic.c */

static void check_next_rip(uint64_t length)
{
	if (svm_has(SVM_HAS_NRIPS))
		story_check("nrip", exchange.in.field[STATE_rip] + length, svm_get(VMCB_NRIP));
}

/* ---- MOV to and from control and debug registers: which general register (15.8.1) ---- */

static const struct {
	unsigned number;
	bool debug;
	uint16_t offset; /* of its value, which a MOV to it may have */
} registers[] = {
	{0, false, VMCB_CR0}, {2, false, VMCB_CR2}, {3, false, VMCB_CR3}, {4, false, VMCB_CR4},
	{8, false, 0},        {0, true, 0},         {1, true, 0},         {2, true, 0},
	{3, true, 0},         {6, true, VMCB_DR6},  {7, true, VMCB_DR7},
};

/* rAX and rSP are in the VMCB, the others beside it in the order of struct svm_registers. */
static uint64_t *other_register(unsigned gpr)
{
	static const uint8_t order[] = {0, 0, 1, 2, 0, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13};

	return &svm_registers.rcx + order[gpr];
}

static void put_register(unsigned gpr, uint64_t value)
{
	if (gpr == 0 || gpr == 4)
		svm_set(gpr ? VMCB_RSP : VMCB_RAX, value);
	else
		*other_register(gpr) = value;
}

static uint64_t get_register(unsigned gpr)
{
	return gpr == 0 || gpr == 4 ? svm_get(gpr ? VMCB_RSP : VMCB_RAX) : *other_register(gpr);
}

/* CR8 out of 64-bit mode is LOCK MOV CR0. @length: of the instruction. */
static unsigned put_mov(unsigned mode, unsigned number, bool debug, bool write, unsigned gpr)
{
	bool lock = mode != MODE_LONG && number == 8;
	uint8_t code[5];
	unsigned length = 0, rex = (mode == MODE_LONG && number == 8 ? 4u : 0u) | (gpr >= 8 ? 1u : 0u);

	if (lock)
		code[length++] = 0xf0;
	if (rex)
		code[length++] = (uint8_t)(0x40 | rex);
	code[length++] = 0x0f;
	code[length++] = (uint8_t)(0x20 | (debug ? 1 : 0) | (write ? 2 : 0));
	code[length++] = (uint8_t)(0xc0 | (number & 7) << 3 | (gpr & 7));
	svm_code(code, length);
	return length;
}

STORY(svm_assist_register)
{
	unsigned i = (unsigned)GIVEN(index), gpr = (unsigned)GIVEN(value), mode = (unsigned)GIVEN(from),
		 length;
	bool write = GIVEN(mode), debug = registers[i].debug;
	unsigned number = registers[i].number, code;
	uint64_t value = 0x1234;
	uint32_t r[4];

	machine_cpuid(0x80000001, 0, r);
	if (!svm_begin() ||
	    (mode != MODE_LONG && number == 8 && !story_needs(r[2] >> 4 & 1, "cpuid.80000001.0.ecx[4]=0")))
		return;
	svm_baseline(mode, 0);
	length = put_mov(mode, number, debug, write, gpr);
	if (write)
		value = registers[i].offset ? svm_get(registers[i].offset) : 0;
	for (unsigned n = 0; n < 16; n++) /* any other would be #GP */
		put_register(n, n == gpr ? value : 0xdead0000dead0000 | n);
	code = (debug ? SVM_EXIT_DR0_READ : SVM_EXIT_CR0_READ) + number + (write ? 16 : 0);
	svm_intercept(code, true);
	story_check("exitcode", code, svm_run());
	if (svm_has(SVM_HAS_DECODE))
		story_check("info1", (debug ? 0 : SVM_INFO_MOV_CR) | gpr, svm_get(VMCB_EXITINFO1));
	story_check("register", mode == MODE_LONG ? value : (uint32_t)value,
		    mode == MODE_LONG ? get_register(gpr) : (uint32_t)get_register(gpr));
	story_check("rip", exchange.in.field[STATE_rip], svm_get(VMCB_RIP));
	check_next_rip(length);
	svm_end();
}

/* ---- INVLPG: the linear address, however it is written (15.8.3) ---- */

#define WIDE_BX 0x0000712345678123ull

static const struct {
	uint8_t mode, length;
	uint8_t bytes[9];
	uint64_t bx, cx, linear;
} forms[] = {
	{MODE_LONG, 3, {0x0f, 0x01, 0x3b}, WIDE_BX, 0, WIDE_BX},
	{MODE_LONG, 3, {0x0f, 0x01, 0x3b}, 0xffff800000001000, 0, 0xffff800000001000},
	{MODE_LONG, 4, {0x0f, 0x01, 0x7b, 0x7f}, WIDE_BX, 0, WIDE_BX + 0x7f},
	{MODE_LONG, 7, {0x0f, 0x01, 0xbb, 0x00, 0xf0, 0xff, 0xff}, WIDE_BX, 0, WIDE_BX - 0x1000},
	{MODE_LONG, 4, {0x0f, 0x01, 0x3c, 0x8b}, WIDE_BX, 0x1000, WIDE_BX + 0x4000},
	{MODE_LONG, 7, {0x0f, 0x01, 0x3d, 0x10, 0x00, 0x00, 0x00}, 0, 0, CASE_STUB + 7 + 0x10},
	{MODE_LONG, 8, {0x0f, 0x01, 0x3c, 0x25, 0x00, 0x44, 0x01, 0x00}, 0, 0, 0x14400},
	{MODE_LONG, 4, {0x64, 0x0f, 0x01, 0x3b}, 0x300000, 0, CASE_FS_BASE + 0x300000},
	{MODE_LONG, 4, {0x65, 0x0f, 0x01, 0x3b}, 0x300000, 0, CASE_GS_BASE + 0x300000},
	{MODE_LONG, 4, {0x2e, 0x0f, 0x01, 0x3b}, WIDE_BX, 0, WIDE_BX}, /* no segment there */
	{MODE_LONG, 4, {0x67, 0x0f, 0x01, 0x3b}, WIDE_BX, 0, (uint32_t)WIDE_BX},
	{MODE_LONG, 5, {0x67, 0x0f, 0x01, 0x3c, 0x8b}, 0xfffff000, 0x1000, 0x3000},
	{MODE_LONG, 5, {0x64, 0x67, 0x0f, 0x01, 0x3b}, WIDE_BX, 0, CASE_FS_BASE + (uint32_t)WIDE_BX},
	{MODE_COMPAT, 3, {0x0f, 0x01, 0x3b}, 0x400123, 0, 0x400123},
	{MODE_PROT32, 3, {0x0f, 0x01, 0x3b}, 0x400123, 0, 0x400123},
	{MODE_PROT32, 4, {0x0f, 0x01, 0x3c, 0x8b}, 0xfffff000, 0x1000, 0x3000},
	{MODE_PROT32, 7, {0x0f, 0x01, 0x3d, 0x78, 0x56, 0x34, 0x12}, 0, 0, 0x12345678},
	{MODE_PROT32, 4, {0x67, 0x0f, 0x01, 0x3f}, 0xdead0123, 0, 0x0123},
	{MODE_PROT16, 3, {0x0f, 0x01, 0x3f}, 0x4123, 0, CASE_WINDOW + 0x4123},
	{MODE_PROT16, 5, {0x0f, 0x01, 0xbf, 0x00, 0xf0}, 0x4123, 0, CASE_WINDOW + 0x3123}, /* wraps at 16 bits
											    */
	{MODE_PROT16, 4, {0x67, 0x0f, 0x01, 0x3b}, 0x4123, 0, CASE_WINDOW + 0x4123},
	{MODE_REAL, 3, {0x0f, 0x01, 0x3f}, 0x4123, 0, CASE_WINDOW + 0x4123},
	{MODE_REAL, 5, {0x0f, 0x01, 0xbf, 0x00, 0xf0}, 0x4123, 0, CASE_WINDOW + 0x3123},
};

/* value: 1: DS has another base, which counts but in 64-bit mode. */
STORY(svm_assist_invlpg)
{
	uint64_t i = GIVEN(index), base = 0, linear = forms[i].linear;

	if (!svm_begin())
		return;
	svm_baseline(forms[i].mode, 0);
	svm_code(forms[i].bytes, forms[i].length);
	if (GIVEN(value)) {
		base = 0x1200000;
		svm_set(VMCB_DS + 8, svm_get(VMCB_DS + 8) + base);
		if (forms[i].mode != MODE_LONG)
			linear = (uint32_t)(linear + base);
	}
	svm_registers.rbx = forms[i].bx;
	svm_registers.rcx = forms[i].cx;
	svm_intercept(SVM_EXIT_INVLPG, true);
	story_check("exitcode", SVM_EXIT_INVLPG, svm_run());
	if (svm_has(SVM_HAS_DECODE))
		story_check("linear", linear, svm_get(VMCB_EXITINFO1));
	check_next_rip(forms[i].length);
	svm_end();
}

/* ---- the bytes at page faults of data (15.8.4) ---- */

enum {
	BYTES_WHOLE,
	BYTES_NEXT_ABSENT,
	BYTES_NEXT_SUPERVISOR,
	BYTES_NEXT_NX,
	BYTES_LIMIT,
	BYTES_NESTED_ABSENT,
	BYTES_NESTED_NX
};

#define LEFT 6u /* bytes in front of the next page, or of the limit */
#define NEXT CASE_OPERAND_PAGE
#define DATA CASE_OPERAND_PAGE2

static void poke_own(unsigned mode, uint32_t page, uint64_t set, uint64_t clear)
{
	bool wide = mode == MODE_LONG || mode == MODE_COMPAT;
	uint32_t at = wide ? CASE_PTE_LONG(page) : CASE_PTE_32(page);
	uint64_t entry = 0;

	machine_copy(&entry, (const void *)(uintptr_t)at, wide ? 8 : 4);
	entry = (entry & ~clear) | set;
	world_poke(at, &entry, wide ? 8 : 4);
}

static void limit_bytes(unsigned mode, uint64_t place)
{
	volatile uint64_t *nested = (volatile uint64_t *)(uintptr_t)CASE_NESTED_PTE(NEXT);

	switch (place) {
	case BYTES_NEXT_ABSENT: poke_own(mode, NEXT, 0, PTE_P); break;
	case BYTES_NEXT_SUPERVISOR: poke_own(mode, NEXT, 0, PTE_U); break;
	case BYTES_NEXT_NX:
		poke_own(mode, NEXT, PTE_NX, 0);
		svm_set(VMCB_EFER, svm_get(VMCB_EFER) | EFER_NXE);
		break;
	case BYTES_LIMIT: svm_write(VMCB_CS + 4, 4, svm_get(VMCB_RIP) + LEFT - 1); break;
	case BYTES_NESTED_ABSENT: *nested = 0; break;
	case BYTES_NESTED_NX:
		*nested |= PTE_NX;
		machine_write_msr(MSR_EFER, machine_read_msr(MSR_EFER) | EFER_NXE);
		break;
	default: break;
	}
}

/* from: the guest's mode; other: its level; type: what ends the bytes; value: 1: a nested page fault, else
 * the guest's. */
STORY(svm_assist_bytes)
{
	/* mov (%ebx), %eax, or mov (%bx), %ax; then what is not run */
	uint8_t code[16] = {0x8b, 0x03, 0x90, 0x91, 0x92, 0x93, 0x94, 0x95,
			    0x96, 0x97, 0x50, 0x51, 0x52, 0x53, 0x54, 0x55};
	uint64_t place = GIVEN(type), count;
	unsigned mode = (unsigned)GIVEN(from), cpl = (unsigned)GIVEN(other), wrong = 0;
	bool nested = GIVEN(value);
	uint32_t at = place == BYTES_WHOLE ? CASE_STUB : NEXT - LEFT;

	if (!svm_begin() || !SVM_NEEDS(7) || ((nested || place >= BYTES_NESTED_ABSENT) && !SVM_NEEDS(0)))
		return;
	svm_baseline(mode, cpl);
	if (mode == MODE_REAL || mode == MODE_PROT16 || mode == MODE_VM86)
		code[1] = 0x07;
	world_poke(at, code, sizeof(code));
	svm_set(VMCB_RIP, svm_get(VMCB_RIP) + at - CASE_STUB);
	svm_registers.rbx = svm_registers.rbx - CASE_OPERAND + DATA;
	svm_nested_build();
	if (nested || place >= BYTES_NESTED_ABSENT)
		svm_nested_use();
	if (nested)
		*(volatile uint64_t *)(uintptr_t)CASE_NESTED_PTE(DATA) = 0;
	else
		poke_own(mode, DATA, 0, PTE_P);
	limit_bytes(mode, place);
	svm_write(VMCB_FETCHED, 1, 0x5a);
	story_check("exitcode", nested ? SVM_EXIT_NPF : SVM_EXIT_EXCEPTION + VECTOR_PF, svm_run());
	story_check("address", DATA, svm_get(VMCB_EXITINFO2));
	count = place == BYTES_WHOLE ? 15 : LEFT;
	story_check("count", count, svm_read(VMCB_FETCHED, 1));
	for (unsigned i = 0; i < count; i++)
		wrong += svm_read(VMCB_FETCHED + 1 + i, 1) != code[i];
	story_check("bytes", 0, wrong);
	svm_end();
}

/* All other exits say that there are none (15.8.4). */
enum {
	OTHER_INSTRUCTION,
	OTHER_MOV_CR,
	OTHER_IOIO,
	OTHER_MSR,
	OTHER_UD,
	OTHER_GP,
	OTHER_INTR,
	OTHER_NMI,
	OTHER_VINTR,
	OTHER_FETCH_PF,
	OTHER_FETCH_NPF,
	OTHER_SWINT
};

STORY(svm_assist_no_bytes)
{
	uint64_t what = GIVEN(type), code = SVM_EXIT_CPUID;

	if (!svm_begin() || !SVM_NEEDS(7) || (what == OTHER_FETCH_NPF && !SVM_NEEDS(0)) ||
	    ((what == OTHER_INTR || what == OTHER_NMI) && !story_has_apic()))
		return;
	svm_baseline(MODE_LONG, 0);
	switch (what) {
	case OTHER_INSTRUCTION: SVM_CODE(0x0f, 0xa2); break;
	case OTHER_MOV_CR:
		SVM_CODE(0x0f, 0x20, 0xc0);
		code = SVM_EXIT_CR0_READ;
		break;
	case OTHER_IOIO:
		SVM_CODE(0xe4, 0x80);
		svm_iopm[0x80 / 8] = 1;
		code = SVM_EXIT_IOIO;
		break;
	case OTHER_MSR: /* one that the map does not have */
		SVM_CODE(0x0f, 0x32);
		svm_registers.rcx = 0x40000000;
		code = SVM_EXIT_MSR;
		break;
	case OTHER_UD:
		SVM_CODE(0x0f, 0x0b);
		code = SVM_EXIT_EXCEPTION + VECTOR_UD;
		break;
	case OTHER_GP: /* an MSR that is not there, and is not asked */
		SVM_CODE(0x0f, 0x32);
		svm_registers.rcx = 0x40000000;
		code = SVM_EXIT_EXCEPTION + VECTOR_GP;
		break;
	case OTHER_SWINT:
		SVM_CODE(0xcd, 0x55);
		code = SVM_EXIT_SWINT;
		break;
	case OTHER_FETCH_PF:
		poke_own(MODE_LONG, CASE_STUB, 0, PTE_P);
		code = SVM_EXIT_EXCEPTION + VECTOR_PF;
		break;
	case OTHER_FETCH_NPF:
		svm_nested_build();
		svm_nested_use();
		*(volatile uint64_t *)(uintptr_t)CASE_NESTED_PTE(CASE_STUB) = 0;
		code = SVM_EXIT_NPF;
		break;
	default:
		SVM_CODE(0x90, 0x90);
		svm_set(VMCB_RFLAGS, svm_get(VMCB_RFLAGS) | RFLAGS_IF);
		code = what == OTHER_INTR ? SVM_EXIT_INTR : what == OTHER_NMI ? SVM_EXIT_NMI : SVM_EXIT_VINTR;
		break;
	}
	if (what == OTHER_INTR)
		apic_pend_interrupt(0x45);
	else if (what == OTHER_NMI)
		svm_prelude(apic_send_nmi);
	else if (what == OTHER_VINTR)
		svm_set(VMCB_INTERRUPT, SVM_V_IRQ | 15ull << 16 | 0x41ull << 32);
	svm_intercept(SVM_EXIT_VINTR, true);
	svm_intercept(SVM_EXIT_IOIO, true);
	svm_intercept(SVM_EXIT_MSR, what != OTHER_GP);
	svm_intercept(SVM_EXIT_CPUID, true);
	svm_intercept(SVM_EXIT_SWINT, true);
	svm_intercept(SVM_EXIT_CR0_READ, true);
	svm_write(VMCB_FETCHED, 1, 0x5a);
	story_check("exitcode", code, svm_run());
	story_check("count", 0, svm_read(VMCB_FETCHED, 1));
	if (what == OTHER_INTR)
		story_open();
	svm_end();
}
