/*
 * registers.c: model-specific registers, counters, and what x87, MMX, SSE and AVX hold.
 *
 * SDM 4 chapter 2, 3B 18 to 20, 1 chapters 8 to 13; APM 2 chapters 3, 7, 11, 13.
 */
#include "migration/migration.h"
#include "x86/msr.h"
#include "x86/registers.h"

/* An MSR (@index) keeps what was written (@value); @mode 1: reading gives back but the bits of @other. */
STORY(msr_kept)
{
	uint32_t index = (uint32_t)GIVEN(index);
	uint64_t value = GIVEN(value), mask = ~GIVEN(other), old, got = 0;

	if (!story_needs(story_try_rdmsr(index, &old) == STORY_NO_FAULT, "the MSR gives #GP"))
		return;
	if (!story_needs(story_try_wrmsr(index, value) == STORY_NO_FAULT, "this value of the MSR gives #GP"))
		return;
	hold();
	story_check("read", STORY_NO_FAULT, story_try_rdmsr(index, &got));
	story_check("value", value & mask, got & mask);
	hold();
	story_try_rdmsr(index, &got);
	story_check("value_still", value & mask, got & mask);
	story_try_wrmsr(index, old);
	hold();
	story_try_rdmsr(index, &got);
	story_check("as_before", old & mask, got & mask);
}

/* Once locked, it stays so until RESET (SDM 4 table 2-2, 3AH). */
STORY(feature_control_locked)
{
	uint64_t value;

	if (!story_needs(story_try_rdmsr(MSR_FEATURE_CONTROL, &value) == STORY_NO_FAULT, "msr.3a=gp"))
		return;
	story_spoils();
	if (!(value & FEATURE_CONTROL_LOCK))
		machine_write_msr(MSR_FEATURE_CONTROL, value | FEATURE_CONTROL_VMX | FEATURE_CONTROL_LOCK);
	value = machine_read_msr(MSR_FEATURE_CONTROL);
	story_check("locked", FEATURE_CONTROL_LOCK, value & FEATURE_CONTROL_LOCK);
	HELD("value", value, machine_read_msr(MSR_FEATURE_CONTROL));
	story_check("refused", 13, story_try_wrmsr(MSR_FEATURE_CONTROL, 0));
	hold();
	story_check("refused_still", 13, story_try_wrmsr(MSR_FEATURE_CONTROL, 0));
}

/* A lock under a key: the key alone opens it (APM 2 15.31). */
STORY(svm_lock_kept)
{
	uint64_t key = 0x1122334455667788, old;

	if (!story_needs(cpuid_bit(0x8000000a, 3, 2), "cpuid.8000000a.0.edx[2]=0") ||
	    !story_needs(story_try_rdmsr(MSR_VM_CR, &old) == STORY_NO_FAULT, "msr.c0010114=gp"))
		return;
	story_spoils();
	machine_write_msr(MSR_SVM_KEY, key);
	hold();
	machine_write_msr(MSR_VM_CR, old | VM_CR_LOCK);
	HELD("locked", VM_CR_LOCK, machine_read_msr(MSR_VM_CR) & VM_CR_LOCK);
	machine_write_msr(MSR_SVM_KEY, key + 1);
	hold();
	story_check("another_key", VM_CR_LOCK, machine_read_msr(MSR_VM_CR) & VM_CR_LOCK);
	machine_write_msr(MSR_SVM_KEY, key);
	hold();
	story_check("open", 0, machine_read_msr(MSR_VM_CR) & VM_CR_LOCK);
	machine_write_msr(MSR_VM_CR, old);
}

/* ---- counters ---- */

/* APERF, MPERF: they count on from what was written, and never back. */
STORY(cycles_counted)
{
	uint32_t index = (uint32_t)GIVEN(index);
	uint64_t start = 0x123456789abull, now, last;

	if (!story_needs(cpuid_bit(6, 2, 0), "cpuid.6.0.ecx[0]=0"))
		return;
	machine_write_msr(index, start);
	last = start;
	for (unsigned i = 0; i < 8; i++) {
		hold();
		now = machine_read_msr(index);
		story_check("forward", 1, now > last);
		last = now;
	}
	story_check("no_jump", 1, last - start < 100000000);
	machine_write_msr(index, 0);
	hold();
	story_check("again", 1, machine_read_msr(index) < 100000000);
}

#define RETIRED   0x4300c0ull /* instructions, all levels, enabled */
#define OVERFLOWS (1u << 20)

static uint32_t select_msr(unsigned n) { return machine.intel ? MSR_PERFEVTSEL(n) : MSR_AMD_PERFEVTSEL(n); }
static uint32_t counter_msr(unsigned n) { return machine.intel ? MSR_PMC(n) : MSR_AMD_PERFCTR(n); }

static bool has_counters(void)
{
	uint64_t value;

	return story_needs(story_try_rdmsr(select_msr(0), &value) == STORY_NO_FAULT &&
				   story_try_rdmsr(counter_msr(0), &value) == STORY_NO_FAULT,
			   "no performance counters (#GP)");
}

/* Whether there are the architectural counters, two at least, and how many bits wide they are. */
static bool has_global_control(unsigned *width)
{
	uint64_t value, there;
	uint32_t r[4];

	machine_cpuid(0, 0, r);
	if (!story_needs(machine.intel && r[0] >= 0xa, "cpuid.a: none"))
		return false;
	machine_cpuid(0xa, 0, r);
	*width = r[0] >> 16 & 0xff;
	if (!story_needs((r[0] & 0xff) && (r[0] >> 8 & 0xff) >= 2, "cpuid.a.0.eax[7:0]=0 or eax[15:8]<2") || !has_counters())
		return false;
	there = story_try_rdmsr(MSR_PERF_GLOBAL_CTRL, &value);
	story_check("there", STORY_NO_FAULT, there);
	return there == STORY_NO_FAULT;
}

/* One counter is selected but held by IA32_PERF_GLOBAL_CTRL, another goes on. */
STORY(counters_held)
{
	uint64_t all, held, last;
	unsigned width;

	if (!has_global_control(&width))
		return;
	all = machine_read_msr(MSR_PERF_GLOBAL_CTRL) | 3;
	machine_write_msr(MSR_PERF_GLOBAL_CTRL, all & ~2ull);
	machine_write_msr(select_msr(0), RETIRED);
	machine_write_msr(select_msr(1), RETIRED);
	held = machine_read_msr(counter_msr(1));
	last = machine_read_msr(counter_msr(0));
	hold();
	story_check("control", all & ~2ull, machine_read_msr(MSR_PERF_GLOBAL_CTRL));
	story_check("held", held, machine_read_msr(counter_msr(1)));
	story_check("other", 1, machine_read_msr(counter_msr(0)) > last);
	machine_write_msr(MSR_PERF_GLOBAL_CTRL, all);
	hold();
	story_check("again", 1, machine_read_msr(counter_msr(1)) > held);
	machine_write_msr(select_msr(0), 0);
	machine_write_msr(select_msr(1), 0);
}

/* IA32_PERF_GLOBAL_STATUS keeps what has overflowed: of a counter that goes on, and of one that was set anew. */
STORY(counter_overflowed)
{
	unsigned width;

	/* What is written to a counter is sign-extended from 32 bits. */
	if (!has_global_control(&width) || !story_needs(width > 32, "cpuid.a.0.eax[23:16]<=32"))
		return;
	machine_write_msr(MSR_PERF_GLOBAL_OVF_CTRL, 3);
	story_check("none", 0, machine_read_msr(MSR_PERF_GLOBAL_STATUS) & 3);
	machine_write_msr(counter_msr(0), 0xfffffffe);
	machine_write_msr(counter_msr(1), 0xfffffffe);
	machine_write_msr(select_msr(0), RETIRED);
	machine_write_msr(select_msr(1), RETIRED);
	hold();
	machine_write_msr(counter_msr(1), 0);
	hold();
	story_check("both", 3, machine_read_msr(MSR_PERF_GLOBAL_STATUS) & 3);
	machine_write_msr(MSR_PERF_GLOBAL_OVF_CTRL, 1);
	hold();
	story_check("one", 2, machine_read_msr(MSR_PERF_GLOBAL_STATUS) & 3);
	machine_write_msr(MSR_PERF_GLOBAL_OVF_CTRL, 2);
	hold();
	story_check("cleared", 0, machine_read_msr(MSR_PERF_GLOBAL_STATUS) & 3);
	machine_write_msr(select_msr(0), 0);
	machine_write_msr(select_msr(1), 0);
}

/* Counter @index counts instructions, another stands still with what it had. */
STORY(counter_counts)
{
	unsigned n = (unsigned)GIVEN(index), still = n ^ 1;
	uint64_t now, last = 0x1000;

	if (!has_counters())
		return;
	machine_write_msr(select_msr(still), 0);
	machine_write_msr(counter_msr(still), 0x7654321);
	machine_write_msr(counter_msr(n), last);
	machine_write_msr(select_msr(n), RETIRED);
	for (unsigned i = 0; i < 6; i++) {
		hold();
		now = machine_read_msr(counter_msr(n));
		story_check("forward", 1, now > last);
		story_check("by_what_ran", 1, now - last < 1000);
		story_check("select", RETIRED, machine_read_msr(select_msr(n)));
		story_check("other", 0x7654321, machine_read_msr(counter_msr(still)));
		last = now;
	}
	machine_write_msr(select_msr(n), 0);
	last = machine_read_msr(counter_msr(n));
	HELD("stopped", last, machine_read_msr(counter_msr(n)));
	machine_write_msr(counter_msr(n), 0);
	machine_write_msr(counter_msr(still), 0);
}

/* ---- x87, MMX, SSE, AVX ---- */

extern uint8_t vectors_image[], vectors_found[];
void vectors_fxsave_kept(void), vectors_xsave_kept(void), vectors_environment_kept(void), vectors_mmx_kept(void);
unsigned vectors_exception_kept(void);
uint64_t vectors_rounds(void);

#define FXSAVE_BYTES  416u
#define XSAVE_HEADER  512u
#define XSAVE_YMM     576u
#define VECTORS_BYTES 832u

static uint64_t was_cr4;

static bool vectors_on(void)
{
	if (!story_needs(cpuid_bit(1, 3, 24), "cpuid.1.0.edx[24]=0"))
		return false;
	was_cr4 = machine_read_cr4();
	machine_write_cr4(was_cr4 | CR4_OSFXSR | CR4_OSXMMEXCPT | (machine.xsave ? CR4_OSXSAVE : 0));
	return true;
}

static void vectors_off(void) { machine_write_cr4(was_cr4); }

static uint8_t pattern(unsigned i) { return (uint8_t)(i * 37 + 11); }

/* Control words that are no default, tags of all kinds, and registers of which each byte differs. */
static void build_image(void)
{
	machine_fill(vectors_image, 0, VECTORS_BYTES);
	machine_fill(vectors_found, 0x5a, VECTORS_BYTES);
	vectors_image[0] = 0x7f; /* FCW: rounding down, extended precision */
	vectors_image[1] = 0x07;
	vectors_image[2] = 0x00; /* FSW: TOP 5, C3 */
	vectors_image[3] = 0x68;
	vectors_image[4] = 0xb5; /* FTW, abridged */
	vectors_image[6] = 0x2a; /* FOP */
	vectors_image[7] = 0x05;
	for (unsigned i = 8; i < 24; i++) /* FIP, FDP: canonical */
		vectors_image[i] = (i & 7) >= 6 ? 0 : pattern(i);
	vectors_image[24] = 0xa0; /* MXCSR: a rounding, DAZ off, sticky flags, all masked */
	vectors_image[25] = 0x5f;
	vectors_image[24] |= 0x15;
	for (unsigned n = 0; n < 8; n++)
		for (unsigned i = 0; i < 10; i++)
			vectors_image[32 + 16 * n + i] = pattern(16 * n + i) | (i == 7 ? 0x80 : 0);
	for (unsigned i = 160; i < FXSAVE_BYTES; i++)
		vectors_image[i] = pattern(i);
	for (unsigned i = XSAVE_YMM; i < VECTORS_BYTES; i++)
		vectors_image[i] = pattern(3 * i + 1);
}

/* AMD's processors may save the last instruction and operand of x87 only with an exception, and then say so. */
static bool keeps_pointers(void) { return machine.intel || cpuid_bit(0x80000008, 1, 2); }

/* What is promised of the eight bytes at @at. */
static uint64_t promised(unsigned at)
{
	if (at == 0 && !keeps_pointers())
		return 0x0000ffffffffffff;
	if ((at == 8 || at == 16) && !keeps_pointers())
		return 0;
	if (at == 24) /* MXCSR_MASK is the processor's */
		return 0xffffffff;
	return at >= 32 && at < 160 && at & 8 ? 0xffff : ~0ull; /* behind ten bytes of a register six are reserved */
}

static void compare(unsigned from, unsigned to)
{
	for (unsigned i = from; i < to; i += 8) {
		uint64_t want, got;

		machine_copy(&want, vectors_image + i, 8);
		machine_copy(&got, vectors_found + i, 8);
		story_check_at("byte", i, want & promised(i), got & promised(i));
	}
}

STORY(fxsave_kept)
{
	if (!vectors_on())
		return;
	build_image();
	vectors_fxsave_kept();
	compare(0, FXSAVE_BYTES);
	vectors_off();
}

STORY(xsave_kept)
{
	uint64_t was;

	if (!story_needs(cpuid_bit(1, 2, 28), "cpuid.1.0.ecx[28]=0") || !vectors_on())
		return;
	was = machine_read_xcr0();
	machine_write_xcr0(7);
	build_image();
	vectors_image[XSAVE_HEADER] = 7;
	vectors_xsave_kept();
	compare(0, FXSAVE_BYTES);
	compare(XSAVE_YMM, VECTORS_BYTES);
	HELD("xcr0", 7, machine_read_xcr0());
	machine_write_xcr0(was);
	vectors_off();
}

/* FLDENV in its form for 32-bit protected mode: the last instruction and operand with their selectors. */
STORY(x87_environment_kept)
{
	static const uint32_t environment[7] = {0xffff0b7f, 0xffff4020, 0xffff93a5, 0x13572468,
						0x035a1234, 0x8765abcd, 0xffff4321};

	machine_copy(vectors_image, environment, sizeof(environment));
	machine_fill(vectors_found, 0, sizeof(environment));
	vectors_environment_kept();
	for (unsigned i = 0; i < 7; i++) {
		uint32_t got;

		machine_copy(&got, vectors_found + 4 * i, 4);
		if (i == 0)
			story_check("control", environment[0] & 0x1f3f, got & 0x1f3f);
		else if (i == 1)
			story_check("status", environment[1] & 0x7f00, got & 0x7f00);
		else if (i == 4)
			story_check("opcode", environment[4] >> 16, got >> 16);
		/* processors may not keep selectors, and then say so */
		if (i == 4 && !cpuid_bit(7, 1, 13))
			story_check("fcs", environment[4] & 0xffff, got & 0xffff);
		if (i == 6 && !cpuid_bit(7, 1, 13))
			story_check("fds", environment[6] & 0xffff, got & 0xffff);
		if (i == 4 || i == 6)
			continue;
		if (i != 0 && i != 1 && i != 2)
			story_check_at("word", i, environment[i], got);
	}
	__asm__ volatile("fninit");
}

STORY(mmx_kept)
{
	if (!story_needs(cpuid_bit(1, 3, 23), "cpuid.1.0.edx[23]=0"))
		return;
	build_image();
	vectors_mmx_kept();
	for (unsigned n = 0; n < 8; n++) {
		uint64_t want, got;

		machine_copy(&want, vectors_image + 8 * n, 8);
		machine_copy(&got, vectors_found + 8 * n, 8);
		story_check_at("mm", n, want, got);
	}
}

static volatile unsigned met;

static void clear_exceptions(struct story_frame *frame)
{
	(void)frame;
	met++;
	__asm__ volatile("fnclex");
}

/* An unmasked exception that is pending comes with the next waiting instruction (SDM 1 8.6, 8.7). */
STORY(x87_exception_pending)
{
	met = 0;
	story_handle(clear_exceptions);
	story_check("summary", 0x80, vectors_exception_kept() & 0x80);
	story_check("came", 1, met);
	story_check("vector", 16, story_order(0));
	__asm__ volatile("fninit");
}

/* MXCSR rounds up; 1/3 in both directions, and the flag of inexact results. */
STORY(sse_rounding_kept)
{
	if (!vectors_on())
		return;
	story_check("apart", 1, vectors_rounds());
	vectors_off();
}

/* ---- debug registers ---- */

static volatile uint64_t watched[4];
static volatile uint64_t seen_dr6;

static void debug(struct story_frame *frame)
{
	if (frame->vector == 1) {
		seen_dr6 = machine_read_dr6();
		machine_write_dr6(0xffff0ff0);
	}
}

static void write_dr7(uint64_t value) { __asm__ volatile("mov %0, %%dr7" : : "r"(value) : "memory"); }

/* A breakpoint on a write (@index: which register), long behind its setting: once, with its bit in DR6. */
STORY(data_breakpoint_kept)
{
	unsigned n = (unsigned)GIVEN(index);

	story_handle(debug);
	machine_write_dr0((uintptr_t)&watched[0]);
	machine_write_dr1((uintptr_t)&watched[1]);
	machine_write_dr2((uintptr_t)&watched[2]);
	machine_write_dr3((uintptr_t)&watched[3]);
	machine_write_dr6(0xffff0ff0);
	write_dr7(0x400 | 2u << 2 * n | 0xdu << (16 + 4 * n));
	seen_dr6 = 0;
	hold();
	for (unsigned i = 0; i < 4; i++)
		watched[i] = i;
	hold();
	for (unsigned i = 0; i < 4; i++)
		watched[i] = i + 1;
	story_check("count", 2, story_count(1));
	story_check("dr6", 0xffff0ff0 | 1u << n, seen_dr6);
	write_dr7(0x400);
	hold();
	watched[n] = 7;
	story_check("off", 2, story_count(1));
	machine_write_dr0(0);
	machine_write_dr1(0);
	machine_write_dr2(0);
	machine_write_dr3(0);
	machine_write_dr6(0xffff0ff0);
}

/* DR6 keeps what no one has cleared. */
STORY(debug_status_kept)
{
	machine_write_dr6(0xffffeff5);
	HELD("dr6", 0xffffeff5, machine_read_dr6());
	machine_write_dr6(0xffff0ff0);
	HELD("cleared", 0xffff0ff0, machine_read_dr6());
}

unsigned step_through(void); /* vectors.S: how many steps there are between setting and clearing TF */

/* Each instruction is one step, wherever the machine is moved. */
STORY(steps_counted)
{
	unsigned steps;

	story_handle(debug);
	steps = step_through();
	story_check("count", steps, story_count(1));
	machine_write_dr6(0xffff0ff0);
}

void pend_debug(volatile uint32_t *stack_selector); /* MOV SS of a watched word, one NOP */
extern const uint8_t pend_debug_behind[];
static volatile uint32_t selector __attribute__((aligned(8)));
static volatile uint64_t seen_rip;

static void note_rip(struct story_frame *frame)
{
	seen_rip = frame->rip;
	debug(frame);
}

/* A data breakpoint in MOV SS is pending over the next instruction (SDM 3A 6.8.3). */
STORY(debug_exception_pending)
{
	uint16_t ss;

	__asm__ volatile("mov %%ss, %0" : "=r"(ss));
	selector = ss;
	story_handle(note_rip);
	machine_write_dr0((uintptr_t)&selector);
	machine_write_dr6(0xffff0ff0);
	write_dr7(0x70401 | 1); /* reads and writes of two bytes */
	seen_rip = 0;
	pend_debug(&selector);
	write_dr7(0x400);
	story_check("count", 1, story_count(1));
	story_check("rip", (uintptr_t)pend_debug_behind, seen_rip);
	story_check("dr6", 0xffff0ff1, seen_dr6);
	machine_write_dr0(0);
	machine_write_dr6(0xffff0ff0);
}
