/*
 * smp.c: control structures that another processor changes while a guest runs on them (APM
 * 2 15.5.1, 15.10, 15.11, 15.15, 15.25).
 *
 * While the guest runs the processor may have read them or not, so that its first exit is one of a set. The
 * next VMRUN must go by what they then hold: the maps and tables are memory, and fields of the VMCB are where
 * their clean bit is 0.
 */
#include "lib/cpus.h"
#include "lib/exchange.h"
#include "lib/machine.h"
#include "svm/svm.h"
#include "x86/case_layout.h"
#include "x86/msr.h"
#include "x86/vectors.h"

enum {
	CHANGE_IOPM,
	CHANGE_MSRPM,
	CHANGE_IOPM_BASE,
	CHANGE_MSRPM_BASE,
	CHANGE_NPT_ABSENT,
	CHANGE_NPT_READ_ONLY,
	CHANGE_NCR3,
	CHANGE_INTERCEPT,
	CHANGE_EXCEPTIONS,
	CHANGE_INVALID,
	CHANGE_EVENTINJ,
	CHANGES
};

static uint64_t change;
static volatile uint32_t told;
static uint8_t full_map[SVM_IOPM_SIZE] __attribute__((aligned(4096)));

static volatile uint64_t *quad(uint32_t address) { return (volatile uint64_t *)(uintptr_t)address; }

static void make_change(void)
{
	switch (change) {
	case CHANGE_IOPM: svm_iopm[0x10] = 1; break;
	case CHANGE_MSRPM: svm_msrpm[0x800 + 0x82 / 4] = 1u << 4; break; /* reads of LSTAR */
	case CHANGE_IOPM_BASE: svm_set(VMCB_IOPM_BASE, (uintptr_t)full_map); break;
	case CHANGE_MSRPM_BASE: svm_set(VMCB_MSRPM_BASE, (uintptr_t)full_map); break;
	case CHANGE_NPT_ABSENT: *quad(CASE_NESTED_PTE(CASE_OPERAND)) = 0; break;
	case CHANGE_NPT_READ_ONLY: *quad(CASE_NESTED_PTE(CASE_OPERAND)) &= ~(uint64_t)PTE_W; break;
	case CHANGE_NCR3: svm_set(VMCB_NCR3, CASE_PATH_PML4); break; /* an empty table */
	case CHANGE_INTERCEPT: svm_intercept(SVM_EXIT_CPUID, true); break;
	case CHANGE_EXCEPTIONS: svm_write(VMCB_INTERCEPTS(2), 4, 0); break;
	case CHANGE_INVALID: svm_write(VMCB_ASID, 4, 0); break;
	case CHANGE_EVENTINJ:
		svm_set(VMCB_EVENTINJ, SVM_EVENT_VALID | SVM_EVENT_INTR << SVM_EVENT_TYPE_SHIFT | 0x41);
		break;
	default: break;
	}
}

static void meddle(void *argument)
{
	(void)argument;
	while (told != 1) /* the guest runs */
		__asm__ volatile("pause");
	make_change();
	told = 2;
}

/* What the guest does, over and over, until it is told that the change is made; then once more. */
static void loop_of(const uint8_t *bytes, unsigned length)
{
	static const uint8_t head[] = {0x41, 0xff, 0x07}; /* incl (%r15): from 0 to 1 */
	uint8_t code[64];
	unsigned n = sizeof(head);

	machine_copy(code, head, n);
	machine_copy(code + n, bytes, length); /* 1: */
	n += length;
	/* cmpl $2, (%r15); pause; jne 1b */
	machine_copy(code + n, (const uint8_t[]){0x41, 0x83, 0x3f, 0x02, 0xf3, 0x90, 0x75}, 7);
	code[n + 7] = (uint8_t)(0u - (length + 8));
	n += 8;
	machine_copy(code + n, bytes, length);
	n += length;
	machine_copy(code + n, (const uint8_t[]){0x0f, 0x01, 0xd9}, 3);
	svm_code(code, n + 3);
}
#define LOOP(...) loop_of((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

/* The exit that the change brings about. */
static uint64_t changed_exit(void)
{
	switch (change) {
	case CHANGE_IOPM:
	case CHANGE_IOPM_BASE: return SVM_EXIT_IOIO;
	case CHANGE_MSRPM:
	case CHANGE_MSRPM_BASE: return SVM_EXIT_MSR;
	case CHANGE_NPT_ABSENT:
	case CHANGE_NPT_READ_ONLY:
	case CHANGE_NCR3: return SVM_EXIT_NPF;
	case CHANGE_INTERCEPT: return SVM_EXIT_CPUID;
	case CHANGE_INVALID: return (uint64_t)SVM_EXIT_INVALID;
	default: return SVM_EXIT_VMMCALL;
	}
}

static void begin(void)
{
	bool nested = change >= CHANGE_NPT_ABSENT && change <= CHANGE_NCR3;

	svm_baseline(MODE_LONG, 0);
	svm_nested_build();
	machine_fill(full_map, 0xff, sizeof(full_map));
	svm_intercept(SVM_EXIT_IOIO, true);
	svm_intercept(SVM_EXIT_MSR, true);
	if (nested)
		svm_nested_use();
	svm_registers.rbx = svm_registers.r15 = (uintptr_t)&told;
	svm_registers.rcx = MSR_LSTAR;
	switch (change) {
	case CHANGE_IOPM:
	case CHANGE_IOPM_BASE: LOOP(0xe4, 0x80); break; /* in $0x80, %al */
	case CHANGE_MSRPM:
	case CHANGE_MSRPM_BASE: LOOP(0x0f, 0x32); break; /* rdmsr */
	case CHANGE_NPT_ABSENT:
	case CHANGE_NPT_READ_ONLY:
	case CHANGE_NCR3: LOOP(0x88, 0x04, 0x25, 0x00, 0x44, 0x01, 0x00); break; /* mov %al, 0x14400 */
	case CHANGE_INTERCEPT: /* which writes EBX; ECX as RDMSR has it otherwise */ LOOP(0x0f, 0xa2); break;
	default: LOOP(0x90); break;
	}
}

/*
 * mode 0: clean bits are 0; 1: all are 1 at the second VMRUN, so that a field of the VMCB may be as it was,
 * and a table's or a map's content is not a field.
 */
STORY(svm_change_while_running)
{
	bool set = GIVEN(mode), field;
	uint64_t code, wanted;

	change = GIVEN(index);
	if (!svm_begin() || (set && !SVM_NEEDS(5)) || !cpus_needs(2))
		return;
	if (change >= CHANGE_NPT_ABSENT && change <= CHANGE_NCR3 && !SVM_NEEDS(0))
		return;
	begin();
	told = 0;
	wanted = changed_exit();
	field = change == CHANGE_IOPM_BASE || change == CHANGE_MSRPM_BASE || change >= CHANGE_NCR3;
	cpus_tell(1, meddle, NULL);
	code = svm_run();
	story_check("idle", true, cpus_wait(1));
	story_check("told", 2, told);
	/* INVALID is what VMRUN alone finds; no event is taken out of a VMCB in between. */
	story_check("first", code == wanted && change != CHANGE_INVALID ? wanted : SVM_EXIT_VMMCALL, code);
	svm_set(VMCB_RIP, CASE_STUB);
	if (change == CHANGE_EVENTINJ) /* #VMEXIT has cleared V, or it was written behind that */
		make_change();
	svm_registers.rbx = svm_registers.r15 = (uintptr_t)&told;
	svm_registers.rcx = MSR_LSTAR;
	svm_write(VMCB_TLB_CONTROL, 1, 1);
	svm_write(VMCB_CLEAN, 4, set ? 0xffffffff : 0);
	told = 1;
	code = svm_run();
	if (set && field && change != CHANGE_EVENTINJ)
		story_check("second", code == wanted ? wanted : SVM_EXIT_VMMCALL, code);
	else
		story_check("second", wanted, code);
	if (change == CHANGE_EVENTINJ)
		story_check("handler", 0x41, svm_handler_vector());
	story_check("host_cr3", exchange.monitor_cr3, machine_read_cr3());
	svm_end();
}

/* ---- one VMCB on two processors ---- */

static uint8_t other_hsave[0x1000] __attribute__((aligned(4096))),
	other_area[0x1000] __attribute__((aligned(4096)));
static struct svm_registers other_registers;
static volatile uint64_t other_cr3;

static void run_the_same(void *argument)
{
	(void)argument;
	machine_write_msr(MSR_EFER, machine_read_msr(MSR_EFER) | EFER_SVME);
	machine_write_msr(MSR_VM_HSAVE_PA, (uintptr_t)other_hsave);
	told = 1;
	for (unsigned i = 0; i < 200; i++)
		svm_switch((uintptr_t)svm_vmcb, (uintptr_t)other_area, &other_registers);
	__asm__ volatile("stgi" : : : "memory");
	other_cr3 = machine_read_cr3();
	told = 2;
}

/*
 * Each saves and loads what it finds: how the two guests end is not said. Both hosts are their own: a guest
 * that goes on anywhere in its one page of code ends there.
 */
STORY(svm_same_vmcb)
{
	bool known = true;

	if (!svm_begin() || !cpus_needs(2))
		return;
	svm_baseline(MODE_LONG, 0);
	SVM_CODE(0x90, 0x90, 0x0f, 0x01, 0xd9);
	told = 0;
	other_cr3 = 0;
	cpus_tell(1, run_the_same, NULL);
	while (told == 0)
		__asm__ volatile("pause");
	for (unsigned i = 0; i < 200; i++) {
		uint64_t code = svm_run();

		known &= code == SVM_EXIT_VMMCALL || code == SVM_EXIT_EXCEPTION + VECTOR_UD ||
			 code == (uint64_t)SVM_EXIT_INVALID;
		svm_set(VMCB_RIP, CASE_STUB);
	}
	story_check("idle", true, cpus_wait(1));
	story_check("known_exits", true, known);
	story_check("told", 2, told);
	story_check("host_cr3", exchange.monitor_cr3, machine_read_cr3());
	story_check("other_cr3", exchange.monitor_cr3, other_cr3);
	svm_end();
}

/* ---- nested tables that two guests share, each on its processor (15.16, 15.25) ---- */

static void write_through_tables(void *argument)
{
	(void)argument;
	machine_write_msr(MSR_EFER, machine_read_msr(MSR_EFER) | EFER_SVME);
	machine_write_msr(MSR_VM_HSAVE_PA, (uintptr_t)other_hsave);
	svm_switch((uintptr_t)svm_vmcb2, (uintptr_t)other_area, &other_registers);
	__asm__ volatile("stgi" : : : "memory");
}

/*
 * A page is taken away from both: the processor that takes it drops its own translations by TLB_CONTROL, and
 * the other's guest has to be made to exit and enter with TLB_CONTROL as well. Neither reaches the page
 * behind that.
 */
STORY(svm_shared_tables)
{
	if (!svm_begin() || !SVM_NEEDS(0) || !cpus_needs(2))
		return;
	svm_baseline(MODE_LONG, 0);
	svm_nested_build();
	svm_nested_use();
	SVM_CODE(0x88, 0x04, 0x25, 0x00, 0x44, 0x01, 0x00, 0x0f, 0x01, 0xd9); /* mov %al, 0x14400 */
	machine_copy(svm_vmcb2, svm_vmcb, sizeof(svm_vmcb));
	cpus_tell(1, write_through_tables, NULL);
	story_check("one", SVM_EXIT_VMMCALL, svm_run());
	story_check("other_idle", true, cpus_wait(1));
	story_check("other", SVM_EXIT_VMMCALL, *(volatile uint64_t *)(void *)(svm_vmcb2 + VMCB_EXITCODE));
	*quad(CASE_NESTED_PTE(CASE_OPERAND)) = 0;
	svm_set(VMCB_RIP, CASE_STUB);
	svm_write(VMCB_TLB_CONTROL, 1, 1);
	machine_copy(svm_vmcb2, svm_vmcb, sizeof(svm_vmcb));
	cpus_tell(1, write_through_tables, NULL);
	story_check("one_again", SVM_EXIT_NPF, svm_run());
	story_check("other_again_idle", true, cpus_wait(1));
	story_check("other_again", SVM_EXIT_NPF, *(volatile uint64_t *)(void *)(svm_vmcb2 + VMCB_EXITCODE));
	svm_end();
}
