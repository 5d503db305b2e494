/*
 * caching.c: translations of guests, by ASID, and what must drop them; clean bits; time; pauses (APM
 * 2 15.14.4, 15.15, 15.16, 15.25, 15.30.5).
 *
 * Only what must be dropped is asked for: what a processor may keep, it need not.
 */
#include "lib/cpus.h"
#include "lib/exchange.h"
#include "lib/machine.h"
#include "lib/world.h"
#include "svm/svm.h"
#include "x86/case_layout.h"
#include "x86/vectors.h"

#define FRAME_A CASE_FRAME
#define FRAME_B CASE_FRAME2
#define VALUE_A 0x11111111u
#define VALUE_B 0x22222222u

static volatile uint32_t *word(uint32_t address) { return (volatile uint32_t *)(uintptr_t)address; }
/* One of the case's own page-table entries, to be put back. */
static void poke_entry(uint32_t entry, uint64_t value) { world_poke(entry, &value, 8); }

static volatile uint64_t *quad(uint32_t address) { return (volatile uint64_t *)(uintptr_t)address; }

/* A guest that reads CASE_OPERAND into EAX: mov 0x14400, %eax; VMMCALL. */
static void begin_reader(bool nested)
{
	svm_baseline(MODE_LONG, 0);
	SVM_CODE(0x8b, 0x04, 0x25, 0x00, 0x44, 0x01, 0x00, 0x0f, 0x01, 0xd9);
	svm_nested_build();
	if (nested)
		svm_nested_use();
	*word(FRAME_A + 0x400) = VALUE_A;
	*word(FRAME_B + 0x400) = VALUE_B;
}

static void map(bool nested, uint32_t frame, bool global)
{
	uint64_t bits = CASE_NESTED_BITS | (global ? PTE_G : 0);
	uint32_t entry = CASE_PTE_LONG(CASE_OPERAND);

	if (nested)
		*quad(CASE_NESTED_PTE(CASE_OPERAND)) = frame | CASE_NESTED_BITS;
	else
		poke_entry(entry, (frame | bits) & ~PTE_U);
}

/* The VMCB as it was in front of the last run. Once more, from the same place. */
static uint64_t read_again(void)
{
	svm_set(VMCB_RIP, CASE_STUB);
	svm_set(VMCB_RAX, 0);
	if (svm_run() != SVM_EXIT_VMMCALL)
		return 0;
	return (uint32_t)svm_get(VMCB_RAX);
}

enum {
	DROP_ALL,
	DROP_ASID,
	DROP_NON_GLOBAL,
	DROP_NEW_ASID,
	DROP_INVLPGA,
	DROP_INVLPG,
	DROP_CR3,
	DROP_PGE,
	DROP_KEEP
};

/*
 * The guest reads through a translation, which is then changed in memory, and the row's means must have
 * dropped it: under nested tables (nested=1) or in the guest's own.
 */
STORY(svm_drop)
{
	uint64_t mode = GIVEN(mode);
	bool nested = GIVEN(nested), global = GIVEN(value);
	uint64_t got;

	if (!svm_begin() || (nested && !SVM_NEEDS(0)))
		return;
	if ((mode == DROP_ASID || mode == DROP_NON_GLOBAL) && !SVM_NEEDS(6))
		return;
	begin_reader(nested);
	if (mode == DROP_INVLPG) /* the guest does it: invlpg 0x14400 first */
		SVM_CODE(0x0f, 0x01, 0x3c, 0x25, 0x00, 0x44, 0x01, 0x00, 0x8b, 0x04, 0x25, 0x00, 0x44, 0x01,
			 0x00, 0x0f, 0x01, 0xd9);
	else if (mode == DROP_CR3) /* mov %cr3, %rax; mov %rax, %cr3 */
		SVM_CODE(0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8, 0x8b, 0x04, 0x25, 0x00, 0x44, 0x01, 0x00, 0x0f,
			 0x01, 0xd9);
	else if (mode == DROP_PGE) /* mov %cr4, %rax; xor $0x80, %al; mov %rax, %cr4 */
		SVM_CODE(0x0f, 0x20, 0xe0, 0x34, 0x80, 0x0f, 0x22, 0xe0, 0x8b, 0x04, 0x25, 0x00, 0x44, 0x01,
			 0x00, 0x0f, 0x01, 0xd9);
	if (global)
		svm_set(VMCB_CR4, svm_get(VMCB_CR4) | CR4_PGE);
	map(nested, FRAME_A, global);
	story_check("first", VALUE_A, read_again());
	map(nested, FRAME_B, global);
	switch (mode) {
	case DROP_ALL: svm_write(VMCB_TLB_CONTROL, 1, 1); break;
	case DROP_ASID: svm_write(VMCB_TLB_CONTROL, 1, 3); break;
	case DROP_NON_GLOBAL: svm_write(VMCB_TLB_CONTROL, 1, 7); break;
	case DROP_NEW_ASID: svm_write(VMCB_ASID, 4, 2); break;
	case DROP_INVLPGA: svm_try(SVM_DO_INVLPGA, CASE_OPERAND, 1); break;
	default: break;
	}
	got = read_again();
	if (mode == DROP_KEEP) /* either */
		story_check("second", got == VALUE_A ? VALUE_A : VALUE_B, got);
	else
		story_check("second", VALUE_B, got);
	story_check("tlb_control",
		    mode == DROP_ALL          ? 1
		    : mode == DROP_ASID       ? 3
		    : mode == DROP_NON_GLOBAL ? 7
					      : 0,
		    svm_read(VMCB_TLB_CONTROL, 1));
	svm_end();
}

/* Translations of the host are not the guest's, nor the other way: the same linear address in both. */
STORY(svm_asid_apart)
{
	uint64_t rounds = 3;

	if (!svm_begin())
		return;
	begin_reader(false);
	map(false, FRAME_A, true);
	svm_set(VMCB_CR4, svm_get(VMCB_CR4) | CR4_PGE);
	*word(CASE_OPERAND) = 0x33333333;
	while (rounds--) {
		story_check("guest", VALUE_A, read_again());
		story_check("host", 0x33333333, *word(CASE_OPERAND));
	}
	svm_end();
}

/* Two guests, two ASIDs, one linear address. */
STORY(svm_two_asids)
{
	if (!svm_begin() || !SVM_NEEDS(0))
		return;
	begin_reader(true);
	for (unsigned round = 0; round < 3; round++) {
		svm_write(VMCB_ASID, 4, 1);
		map(true, FRAME_A, false);
		svm_write(VMCB_TLB_CONTROL, 1, round ? 0 : 1);
		story_check_at("one", round, VALUE_A, read_again());
		svm_write(VMCB_ASID, 4, 2);
		*quad(CASE_NESTED_PTE(CASE_OPERAND)) = FRAME_B | CASE_NESTED_BITS;
		svm_write(VMCB_TLB_CONTROL, 1, 1);
		story_check_at("two", round, VALUE_B, read_again());
		svm_write(VMCB_TLB_CONTROL, 1, 1);
	}
	svm_end();
}

/* ---- clean bits (15.15): what is clear must be loaded; what is set may be either ---- */

static const struct {
	const char *name;
	unsigned bit, offset, size;
	uint64_t value;
	bool observed; /* in the VMCB behind the exit */
} clean[] = {
	{"cr2", 9, VMCB_CR2, 8, 0x55000, true},
	{"dr7", 6, VMCB_DR7, 8, 0x402, true},
	{"dr6", 6, VMCB_DR6, 8, 0xffff0ff1, true},
	{"gdtr", 7, VMCB_GDTR + 8, 8, 0x66000, true},
	{"idtr", 7, VMCB_IDTR + 8, 8, 0x77000, true},
	{"es_base", 8, VMCB_ES + 8, 8, 0x88000, true},
	{"ds_base", 8, VMCB_DS + 8, 8, 0x99000, true},
	{"cr4", 5, VMCB_CR4, 8, CR4_PAE | CR4_PGE, true},
	{"v_tpr", 3, VMCB_INTERRUPT, 8, 7, true},
	{"intercepts", 0, VMCB_INTERCEPTS(4), 4, 3 | 1 << 9, false},
	{"tsc_offset", 0, VMCB_TSC_OFFSET, 8, 1ull << 50, false},
	{"asid", 2, VMCB_ASID, 4, 3, false},
	{"rax", 31, VMCB_RAX, 8, 0x1234, true}, /* never cached */
	{"rsp", 31, VMCB_RSP, 8, 0x5678, true},
	{"rflags", 31, VMCB_RFLAGS, 8, 0x247, true},
};

/* mode 0: all bits clear; 1: the field's own clear; 2: all set. */
STORY(svm_clean)
{
	uint64_t i = GIVEN(index), mode = GIVEN(mode), before, after;

	if (!svm_begin() || !SVM_NEEDS(5))
		return;
	svm_baseline(MODE_LONG, 0);
	SVM_CODE(0x0f, 0x01, 0xd9);
	svm_write(0x0c0, 4, 0);
	story_check("first", SVM_EXIT_VMMCALL, svm_run());
	before = svm_read(clean[i].offset, clean[i].size);
	svm_write(clean[i].offset, clean[i].size, clean[i].value);
	svm_write(0x0c0, 4, mode == 0 ? 0 : mode == 1 ? ~(1ull << clean[i].bit) & 0xffffffff : 0xffffffff);
	story_check("second", SVM_EXIT_VMMCALL, svm_run());
	after = svm_read(clean[i].offset, clean[i].size);
	if (mode == 2 && clean[i].observed && clean[i].bit != 31)
		story_check(clean[i].name, after == before ? before : clean[i].value, after);
	else
		story_check(clean[i].name, clean[i].value, after);
	story_check("rip", CASE_STUB, svm_get(VMCB_RIP));
	svm_end();
}

/* An intercept that is switched on while its clean bit is 0 must count. */
STORY(svm_clean_intercept)
{
	bool set = GIVEN(mode);

	if (!svm_begin() || !SVM_NEEDS(5))
		return;
	svm_baseline(MODE_LONG, 0);
	SVM_CODE(0x0f, 0xa2, 0x0f, 0x01, 0xd9);
	story_check("first", SVM_EXIT_VMMCALL, svm_run());
	svm_set(VMCB_RIP, CASE_STUB);
	svm_intercept(SVM_EXIT_CPUID, true);
	svm_write(0x0c0, 4, set ? 0xffffffff : 0xfffffffe);
	if (set) {
		uint64_t code = svm_run();

		story_check("either", code == SVM_EXIT_VMMCALL ? SVM_EXIT_VMMCALL : SVM_EXIT_CPUID, code);
	} else {
		story_check("second", SVM_EXIT_CPUID, svm_run());
	}
	svm_end();
}

/* A VMCB at another address is another guest: nothing is cached of it (15.15.2). */
STORY(svm_clean_moved)
{
	if (!svm_begin() || !SVM_NEEDS(5))
		return;
	svm_baseline(MODE_LONG, 0);
	SVM_CODE(0x0f, 0x01, 0xd9);
	story_check("first", SVM_EXIT_VMMCALL, svm_run());
	machine_copy(svm_vmcb2, svm_vmcb, sizeof(svm_vmcb));
	*(uint64_t *)(void *)(svm_vmcb2 + VMCB_CR2) = 0x55000;
	*(uint32_t *)(void *)(svm_vmcb2 + 0x0c0) = 0xffffffff;
	*(uint64_t *)(void *)(svm_vmcb2 + VMCB_EXITCODE) = 0;
	story_check("vector", STORY_NO_FAULT, svm_try(SVM_DO_VMRUN, (uintptr_t)svm_vmcb2, 0));
	story_check("exitcode", SVM_EXIT_VMMCALL,
		    *(const uint64_t *)(const void *)(svm_vmcb2 + VMCB_EXITCODE));
	story_check("cr2", 0x55000, *(const uint64_t *)(const void *)(svm_vmcb2 + VMCB_CR2));
	svm_end();
}

/* ---- time ---- */

static uint64_t rdtsc(void)
{
	uint32_t low, high;

	__asm__ volatile("lfence; rdtsc" : "=a"(low), "=d"(high));
	return (uint64_t)high << 32 | low;
}

/* The TSC that a guest reads: by RDTSC, RDTSCP or RDMSR. */
static uint64_t guest_tsc(uint64_t how)
{
	switch (how) {
	case 0: SVM_CODE(0x0f, 0x31, 0x0f, 0x01, 0xd9); break;
	case 1: SVM_CODE(0x0f, 0x01, 0xf9, 0x0f, 0x01, 0xd9); break;
	default: SVM_CODE(0xb9, 0x10, 0x00, 0x00, 0x00, 0x0f, 0x32, 0x0f, 0x01, 0xd9); break;
	}
	svm_set(VMCB_RIP, CASE_STUB);
	if (svm_run() != SVM_EXIT_VMMCALL)
		return 0;
	return svm_registers.rdx << 32 | (uint32_t)svm_get(VMCB_RAX);
}

STORY(svm_tsc_offset)
{
	static const uint64_t offsets[] = {0, 1ull << 40, 1ull << 62, 0 - (1ull << 40), 0x123456789abc};
	uint64_t offset = offsets[GIVEN(index)], before, got, after;
	uint32_t r[4];

	machine_cpuid(0x80000001, 0, r);
	if (!svm_begin() || (GIVEN(mode) == 1 && !story_needs(r[3] >> 27 & 1, "cpuid.80000001.0.edx[27]=0")))
		return;
	svm_baseline(MODE_LONG, 0);
	svm_set(VMCB_TSC_OFFSET, offset);
	before = rdtsc();
	got = guest_tsc(GIVEN(mode)) - offset;
	after = rdtsc();
	story_check("in_between", 1, before <= got && got <= after);
	story_check("host_again", 1, after - before < 1ull << 38);
	story_check("offset", offset, svm_get(VMCB_TSC_OFFSET));
	svm_end();
}

/* Half and double, with an offset, and the host's own TSC as it was. */
STORY(svm_tsc_ratio)
{
	static const uint64_t ratios[] = {1ull << 32, 1ull << 31, 2ull << 32, 1ull << 32 | 1ull << 31};
	uint64_t ratio = ratios[GIVEN(index)], offset = GIVEN(value) ? 1ull << 50 : 0, before, got, after;

	if (!svm_begin() || !SVM_NEEDS(4))
		return;
	svm_baseline(MODE_LONG, 0);
	svm_set(VMCB_TSC_OFFSET, offset);
	machine_write_msr(MSR_TSC_RATIO, ratio);
	before = rdtsc();
	got = guest_tsc(GIVEN(mode)) - offset;
	after = rdtsc();
	machine_write_msr(MSR_TSC_RATIO, 1ull << 32);
	before = (uint64_t)((unsigned __int128)before * ratio >> 32);
	after = (uint64_t)((unsigned __int128)after * ratio >> 32);
	story_check("in_between", 1, before <= got && got <= after + 1);
	svm_end();
}

STORY(svm_tsc_ratio_msr)
{
	uint64_t got = 0;

	if (!svm_begin() || !SVM_NEEDS(4))
		return;
	story_check("reset", STORY_NO_FAULT, story_try_rdmsr(MSR_TSC_RATIO, &got));
	story_check("value", 1ull << 32, got);
	story_check("bit40", VECTOR_GP, story_try_wrmsr(MSR_TSC_RATIO, 1ull << 40));
	story_check("bit63", VECTOR_GP, story_try_wrmsr(MSR_TSC_RATIO, 1ull << 63));
	story_check("all", STORY_NO_FAULT, story_try_wrmsr(MSR_TSC_RATIO, (1ull << 40) - 1));
	machine_write_msr(MSR_TSC_RATIO, 1ull << 32);
	svm_end();
}

/* ---- pauses ---- */

/* @count PAUSEs run before one exits: the one that finds the counter at 0 (15.9, 15.14.4). */
STORY(svm_pause_filter)
{
	uint64_t count = GIVEN(count), threshold = GIVEN(value), gap = GIVEN(from);
	uint8_t code[64];
	unsigned length = 0;
	uint64_t ran;

	if (!svm_begin() || !SVM_NEEDS(10) || (threshold && !SVM_NEEDS(12)))
		return;
	svm_baseline(MODE_LONG, 0);
	for (unsigned i = 0; i < 8; i++) {
		code[length++] = 0xf3;
		code[length++] = 0x90;
		if (gap && i == 1) { /* mov $5000, %ecx; loop . */
			static const uint8_t wait[] = {0xb9, 0x88, 0x13, 0x00, 0x00, 0xe2, 0xfe};

			machine_copy(code + length, wait, sizeof(wait));
			length += sizeof(wait);
		}
	}
	code[length++] = 0x0f;
	code[length++] = 0x01;
	code[length++] = 0xd9;
	svm_code(code, length);
	svm_intercept(SVM_EXIT_PAUSE, true);
	svm_write(VMCB_PAUSE_COUNT, 2, count);
	svm_write(VMCB_PAUSE_THRESHOLD, 2, threshold);
	if (count >= 8 || (gap && count >= 6)) {
		story_check("exitcode", SVM_EXIT_VMMCALL, svm_run());
	} else {
		story_check("exitcode", SVM_EXIT_PAUSE, svm_run());
		ran = svm_get(VMCB_RIP) - CASE_STUB;
		if (gap && ran >= 4)
			ran -= 7;
		ran /= 2;
		/* Where the exit is at the counter's 0, and where below it, the clauses differ by one. */
		if (!gap)
			story_check("ran", ran + 1 == count ? count - 1 : count, ran);
		else
			story_check("reloaded", 1, ran >= count + 2 && ran <= count + 3);
	}
	story_check("count", count, svm_read(VMCB_PAUSE_COUNT, 2));
	svm_end();
}

/* ---- two processors, one VMCB ---- */

static volatile uint32_t meddling;

static void meddle(void *argument)
{
	(void)argument;
	while (!meddling)
		__asm__ volatile("pause");
	for (unsigned i = 0; i < 2000; i++) {
		svm_set(VMCB_RAX, 0x4444);
		svm_set(VMCB_RSP, 0x5555);
		svm_write(VMCB_INTERCEPTS(3), 4, 0xffffffff);
		svm_write(VMCB_ASID, 4, 0);
		svm_set(VMCB_CR0, 1ull << 63);
		svm_set(VMCB_EFER, 0);
		svm_set(VMCB_NCR3, ~0ull);
		svm_set(VMCB_EVENTINJ, 0);
	}
	meddling = 2;
}

/*
 * Another processor writes the VMCB that this one runs. What the guest does of it is not said; that it ends
 * with its own exit, in the state that it has, is: all that it needs was loaded by VMRUN, and the exit stores
 * it over what was written.
 */
STORY(svm_meddling)
{
	uint64_t code;

	if (!svm_begin() || !cpus_needs(2))
		return;
	svm_baseline(MODE_LONG, 0);
	/* incl 0x14400: go; 1: pause; cmpl $2, meddling at RBX; jne 1b; mov $0x77, %eax; VMMCALL */
	SVM_CODE(0xc7, 0x03, 0x01, 0x00, 0x00, 0x00, 0xf3, 0x90, 0x83, 0x3b, 0x02, 0x75, 0xf9, 0xb8, 0x77,
		 0x00, 0x00, 0x00, 0x0f, 0x01, 0xd9);
	svm_registers.rbx = (uintptr_t)&meddling;
	meddling = 0;
	cpus_tell(1, meddle, NULL);
	code = svm_run();
	story_check("idle", true, cpus_wait(1));
	story_check("exitcode", SVM_EXIT_VMMCALL, code);
	story_check("rax", 0x77, svm_get(VMCB_RAX));
	story_check("rip", CASE_STUB + 18, svm_get(VMCB_RIP));
	story_check("cr0", CASE_CR0, svm_get(VMCB_CR0));
	story_check("efer", CASE_EFER_LONG | EFER_SVME, svm_get(VMCB_EFER));
	story_check("rsp", CASE_STACK, svm_get(VMCB_RSP));
	/* And the host is its own. */
	story_check("host_cr3", exchange.monitor_cr3, machine_read_cr3());
	svm_end();
}

/* ---- what a guest that may do all it likes cannot change ---- */

STORY(svm_escape)
{
	uint64_t mode = GIVEN(mode), code;

	if (!svm_begin() || !SVM_NEEDS(0))
		return;
	svm_baseline(MODE_LONG, 0);
	svm_nested_build();
	svm_nested_use();
	*quad(CASE_NESTED_PD + 8) = 0; /* 2 to 4 MiB, where nothing of the guest is */
	switch (mode) {
	case 0: /* its own page tables name any address: mov 0x200000, %eax */
		SVM_CODE(0x8b, 0x04, 0x25, 0x00, 0x00, 0x20, 0x00, 0x0f, 0x01, 0xd9);
		code = svm_run();
		story_check("exitcode", SVM_EXIT_NPF, code);
		story_check("address", 0x200000, svm_get(VMCB_EXITINFO2));
		break;
	case 1: /* with paging switched off in between: mov to CR3 of what is not its own */
		SVM_CODE(0xb8, 0x00, 0x00, 0x20, 0x00, 0x0f, 0x22, 0xd8, 0x90, 0x0f, 0x01, 0xd9);
		code = svm_run();
		story_check("exitcode", SVM_EXIT_NPF, code);
		story_check("table", SVM_NPF_TABLE, svm_get(VMCB_EXITINFO1) & SVM_NPF_TABLE);
		story_check("address", 0x200000, svm_get(VMCB_EXITINFO2) & ~PAGE_MASK);
		break;
	case 2: /* CR0, CR4, EFER and CR3 are its own: mov %cr4, or PGE, mov */
		SVM_CODE(0x0f, 0x20, 0xe0, 0x0c, 0x80, 0x0f, 0x22, 0xe0, 0x0f, 0x01, 0xd9);
		code = svm_run();
		story_check("exitcode", SVM_EXIT_VMMCALL, code);
		story_check("guest_cr4", CASE_CR4_LONG | CR4_PGE, svm_get(VMCB_CR4));
		break;
	case 3: /* a triple fault is the guest's: lidt of nothing, ud2 */
		svm_write(VMCB_IDTR + 4, 4, 0);
		svm_write(VMCB_INTERCEPTS(2), 4, 0);
		SVM_CODE(0x0f, 0x0b);
		story_check("exitcode", SVM_EXIT_SHUTDOWN, svm_run());
		break;
	}
	story_check("host_cr0", exchange.monitor_cr0, machine_read_cr0());
	story_check("host_cr3", exchange.monitor_cr3, machine_read_cr3());
	story_check("host_cr4", exchange.monitor_cr4, machine_read_cr4());
	story_check("host_efer", exchange.monitor_efer | EFER_SVME, machine_read_msr(MSR_EFER));
	svm_end();
}

/* ---- decode assists at page faults (15.8.4) ---- */

STORY(svm_fetched)
{
	uint64_t mode = GIVEN(mode);
	static const uint8_t code[] = {0x8b, 0x03, 0x90, 0x91, 0x92, 0x93, 0x94, 0x95, 0x96,
				       0x97, 0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56};
	unsigned wrong = 0;
	uint64_t exitcode;

	if (!svm_begin() || !SVM_NEEDS(7) || (mode != 1 && !SVM_NEEDS(0)))
		return;
	svm_baseline(MODE_LONG, 0);
	svm_code(code, sizeof(code));
	svm_nested_build();
	if (mode != 1)
		svm_nested_use();
	svm_write(VMCB_FETCHED, 1, 0x5a);
	switch (mode) {
	case 0: *quad(CASE_NESTED_PTE(CASE_OPERAND)) = 0; break;   /* NPF of data */
	case 1: poke_entry(CASE_PTE_LONG(CASE_OPERAND), 0); break; /* #PF of data */
	case 2: *quad(CASE_NESTED_PTE(CASE_STUB)) = 0; break;      /* NPF of the fetch */
	case 3: svm_code((const uint8_t[]){0x0f, 0x01, 0xd9}, 3); break;
	}
	exitcode = svm_run();
	story_check("exitcode",
		    mode == 3   ? SVM_EXIT_VMMCALL
		    : mode == 1 ? SVM_EXIT_EXCEPTION + VECTOR_PF
				: SVM_EXIT_NPF,
		    exitcode);
	story_check("count", mode <= 1 ? 15 : 0, svm_read(VMCB_FETCHED, 1));
	for (unsigned i = 0; mode <= 1 && i < 15; i++)
		wrong += svm_read(VMCB_FETCHED + 1 + i, 1) != code[i];
	story_check("bytes", 0, wrong);
	svm_end();
}

/* CR2 of a #PF that is intercepted is as it was (15.12.15). */
STORY(svm_intercepted_cr2)
{
	if (!svm_begin())
		return;
	svm_baseline(MODE_LONG, 0);
	SVM_CODE(0x8b, 0x04, 0x25, 0x00, 0x44, 0x01, 0x00);
	svm_set(VMCB_CR2, 0x1234567);
	poke_entry(CASE_PTE_LONG(CASE_OPERAND), 0);
	story_check("exitcode", SVM_EXIT_EXCEPTION + VECTOR_PF, svm_run());
	story_check("cr2", 0x1234567, svm_get(VMCB_CR2));
	story_check("address", CASE_OPERAND, svm_get(VMCB_EXITINFO2));
	story_check("error", 0, svm_get(VMCB_EXITINFO1));
	svm_end();
}
