/*
 * counters.c: time and counts that a guest sees scaled, the filter of PAUSEs in all its cases (APM 2 15.14.4,
 * table 15-7, 15.30.5, 17.3.2).
 */
#include "lib/exchange.h"
#include "lib/machine.h"
#include "svm/svm.h"
#include "x86/case_layout.h"
#include "x86/msr.h"
#include "x86/vectors.h"

#define ONE (1ull << 32) /* of TSC_RATIO */

static const uint64_t ratios[] = {0,       1,           ONE >> 8,  ONE / 3,         ONE - 1,
				  ONE + 1, 3 * ONE / 2, 200 * ONE, (1ull << 40) - 1};

static uint64_t scaled(uint64_t value, uint64_t ratio)
{
	return (uint64_t)((unsigned __int128)value * ratio >> 32);
}

/* ---- ways to read a counter: in the host, and the same bytes in a guest ---- */

enum { BY_RDTSC, BY_RDTSCP, BY_RDMSR, BY_MPERF, BY_APERF, BY_RDPRU_MPERF, BY_RDPRU_APERF };

static const struct {
	uint8_t bytes[3];
	uint8_t length;
	uint32_t ecx;
} ways[] = {
	[BY_RDTSC] = {{0x0f, 0x31}, 2, 0},
	[BY_RDTSCP] = {{0x0f, 0x01, 0xf9}, 3, 0},
	[BY_RDMSR] = {{0x0f, 0x32}, 2, MSR_TSC},
	[BY_MPERF] = {{0x0f, 0x32}, 2, MSR_MPERF},
	[BY_APERF] = {{0x0f, 0x32}, 2, MSR_APERF},
	[BY_RDPRU_MPERF] = {{0x0f, 0x01, 0xfd}, 3, 0},
	[BY_RDPRU_APERF] = {{0x0f, 0x01, 0xfd}, 3, 1},
};

static bool is_tsc(uint64_t way) { return way <= BY_RDMSR; }
static bool is_scaled(uint64_t way) { return is_tsc(way) || way == BY_MPERF || way == BY_RDPRU_MPERF; }

static bool way_there(uint64_t way)
{
	uint32_t r[4];

	if (way == BY_RDTSCP) {
		machine_cpuid(0x80000001, 0, r);
		return story_needs(r[3] >> 27 & 1, "cpuid.80000001.0.edx[27]=0");
	}
	if (is_tsc(way))
		return true;
	machine_cpuid(6, 0, r);
	if (!story_needs(r[2] & 1, "cpuid.6.0.ecx[0]=0"))
		return false;
	machine_cpuid(0x80000008, 0, r);
	return way < BY_RDPRU_MPERF || story_needs(r[1] >> 4 & 1, "cpuid.80000008.0.ebx[4]=0");
}

static uint64_t host_read(uint64_t way)
{
	uint32_t low, high, ecx = ways[way].ecx;

	switch (way) {
	case BY_RDTSC: __asm__ volatile("lfence; rdtsc; lfence" : "=a"(low), "=d"(high)); break;
	case BY_RDTSCP: __asm__ volatile("rdtscp; lfence" : "=a"(low), "=d"(high), "=c"(ecx)); break;
	case BY_RDPRU_MPERF:
	case BY_RDPRU_APERF:
		__asm__ volatile(".byte 0x0f, 0x01, 0xfd" : "=a"(low), "=d"(high) : "c"(ecx));
		break;
	default: return machine_read_msr(ecx);
	}
	return (uint64_t)high << 32 | low;
}

static uint64_t guest_read(uint64_t way)
{
	uint8_t code[6] = {0};

	machine_copy(code, ways[way].bytes, ways[way].length);
	code[ways[way].length] = 0x0f;
	code[ways[way].length + 1] = 0x01;
	code[ways[way].length + 2] = 0xd9;
	svm_code(code, ways[way].length + 3u);
	svm_registers.rcx = ways[way].ecx;
	svm_set(VMCB_RIP, CASE_STUB);
	story_check("exitcode", SVM_EXIT_VMMCALL, svm_run());
	return svm_registers.rdx << 32 | (uint32_t)svm_get(VMCB_RAX);
}

static bool begin(uint64_t way)
{
	if (!svm_begin() || !SVM_NEEDS(4) || !way_there(way))
		return false;
	svm_baseline(MODE_LONG, 0);
	return true;
}

static void end(void)
{
	machine_write_msr(MSR_TSC_RATIO, ONE);
	svm_end();
}

/* The guest's reading lies between the host's before and behind, scaled; the host's are never scaled. */
STORY(svm_scaled)
{
	static const uint64_t offsets[] = {0, 1ull << 50, 0 - (1ull << 40)};
	uint64_t way = GIVEN(mode), ratio = ratios[GIVEN(index)], offset = offsets[GIVEN(value)], plain,
		 before, got, after;

	if (!begin(way))
		return;
	svm_set(VMCB_TSC_OFFSET, offset);
	plain = host_read(way);
	machine_write_msr(MSR_TSC_RATIO, ratio);
	before = host_read(way);
	got = guest_read(way);
	after = host_read(way);
	machine_write_msr(MSR_TSC_RATIO, ONE);
	story_check("host", 1, plain <= before && before <= after && after <= host_read(way));
	if (is_tsc(way))
		got -= offset;
	if (is_scaled(way)) {
		before = scaled(before, ratio);
		after = scaled(after, ratio);
	}
	story_check("in_between", 1, before <= got && got <= after);
	end();
}

/* What is written is not scaled, by the host or by the guest (15.30.5). */
enum { TSC_BY_HOST, TSC_BY_GUEST, MPERF_BY_HOST, MPERF_BY_GUEST };

#define WRITTEN 0x123400000000ull

STORY(svm_scaled_write)
{
	uint64_t mode = GIVEN(mode), before, got;
	bool guest = mode == TSC_BY_GUEST || mode == MPERF_BY_GUEST;
	uint64_t way = mode <= TSC_BY_GUEST ? BY_RDMSR : BY_MPERF;

	if (!begin(way))
		return;
	story_spoils(); /* the time of this processor */
	machine_write_msr(MSR_TSC_RATIO, 3 * ONE);
	if (guest) { /* wrmsr of EDX:EAX; VMMCALL */
		SVM_CODE(0x0f, 0x30, 0x0f, 0x01, 0xd9);
		svm_registers.rcx = ways[way].ecx;
		svm_registers.rdx = WRITTEN >> 32;
		svm_set(VMCB_RAX, (uint32_t)WRITTEN);
		story_check("written", SVM_EXIT_VMMCALL, svm_run());
	} else {
		machine_write_msr(ways[way].ecx, WRITTEN);
	}
	before = host_read(way);
	story_check("host", 1, before >= WRITTEN && before < WRITTEN + (1ull << 34));
	got = guest_read(way);
	story_check("guest", 1, scaled(before, 3 * ONE) <= got && got <= scaled(host_read(way), 3 * ONE));
	end();
}

/* The MSR itself: each reserved bit; it is there without EFER.SVME; a guest that may write it changes its own
 * time. */
STORY(svm_ratio_bit)
{
	uint64_t bit = GIVEN(index), got = 0;

	if (!begin(BY_RDTSC))
		return;
	story_check("write", bit < 40 ? STORY_NO_FAULT : VECTOR_GP,
		    story_try_wrmsr(MSR_TSC_RATIO, 1ull << bit));
	story_check("read", STORY_NO_FAULT, story_try_rdmsr(MSR_TSC_RATIO, &got));
	story_check("value", bit < 40 ? 1ull << bit : ONE, got);
	end();
}

enum { RATIO_WITHOUT_SVME, RATIO_IN_GUEST, RATIO_INTERCEPTED };

STORY(svm_ratio_msr)
{
	uint64_t mode = GIVEN(mode), got = 0;

	if (!begin(BY_RDTSC))
		return;
	switch (mode) {
	case RATIO_WITHOUT_SVME:
		machine_write_msr(MSR_EFER, exchange.monitor_efer);
		story_check("write", STORY_NO_FAULT, story_try_wrmsr(MSR_TSC_RATIO, 2 * ONE));
		story_check("read", STORY_NO_FAULT, story_try_rdmsr(MSR_TSC_RATIO, &got));
		story_check("value", 2 * ONE, got);
		machine_write_msr(MSR_EFER, exchange.monitor_efer | EFER_SVME);
		break;
	case RATIO_IN_GUEST: /* wrmsr of 0; rdtsc: nothing but the offset */
		SVM_CODE(0x0f, 0x30, 0x0f, 0x31, 0x0f, 0x01, 0xd9);
		svm_registers.rcx = MSR_TSC_RATIO;
		svm_registers.rdx = 0;
		svm_set(VMCB_RAX, 0);
		svm_set(VMCB_TSC_OFFSET, 0x5600001234);
		story_check("exitcode", SVM_EXIT_VMMCALL, svm_run());
		story_check("tsc", 0x5600001234, svm_registers.rdx << 32 | (uint32_t)svm_get(VMCB_RAX));
		story_check("ratio", 0, machine_read_msr(MSR_TSC_RATIO)); /* no world switch moves it */
		break;
	case RATIO_INTERCEPTED: /* bit 2 * 104H + 1 of the second part of the map */
		SVM_CODE(0x0f, 0x30, 0x0f, 0x01, 0xd9);
		svm_registers.rcx = MSR_TSC_RATIO;
		svm_registers.rdx = 1u << 31; /* which would be #GP */
		svm_intercept(SVM_EXIT_MSR, true);
		svm_msrpm[0x800 + 0x104 / 4] = 2;
		story_check("exitcode", SVM_EXIT_MSR, svm_run());
		story_check("write", 1, svm_get(VMCB_EXITINFO1));
		break;
	}
	end();
}

/* ---- PAUSE (15.14.4) ---- */

/*
 * How many PAUSEs run before one exits: as many as the count says, or one less, as the two clauses differ
 * (15.14.4: until it reaches 0; table 15-7: below 0). With a count of 0 the first one exits.
 */
static bool as_counted(uint64_t count, uint64_t ran) { return ran == count || (count && ran + 1 == count); }

static const uint8_t pause[2] = {0xf3, 0x90};

/* @before PAUSEs, @middle, then PAUSEs to the end of 20; VMMCALL. The modes that have VMMCALL and 32-bit
 * operands. */
static void pauses(unsigned before, const uint8_t *middle, unsigned length)
{
	uint8_t code[64];
	unsigned at = 0;

	for (unsigned i = 0; i < 20; i++) {
		if (i == before && length) {
			machine_copy(code + at, middle, length);
			at += length;
		}
		machine_copy(code + at, pause, 2);
		at += 2;
	}
	code[at] = 0x0f;
	code[at + 1] = 0x01;
	code[at + 2] = 0xd9;
	svm_code(code, at + 3);
}

static bool begin_pauses(unsigned mode, unsigned cpl, uint64_t count, uint64_t threshold)
{
	if (!svm_begin() || !SVM_NEEDS(10) || (threshold && !SVM_NEEDS(12)))
		return false;
	svm_baseline(mode, cpl);
	svm_intercept(SVM_EXIT_PAUSE, true);
	svm_write(VMCB_PAUSE_COUNT, 2, count);
	svm_write(VMCB_PAUSE_THRESHOLD, 2, threshold);
	return true;
}

/* How many PAUSEs lie behind the guest, of code without a middle. */
static uint64_t ran_since(uint64_t rip) { return (svm_get(VMCB_RIP) - rip) / 2; }

/* In each mode, at each level: PAUSE has neither. */
STORY(svm_pause_modes)
{
	uint64_t count = GIVEN(count), start;
	unsigned mode = (unsigned)GIVEN(mode), cpl = (unsigned)GIVEN(value);

	if (!begin_pauses(mode, cpl, count, 0))
		return;
	pauses(0, NULL, 0);
	start = svm_get(VMCB_RIP);
	story_check("exitcode", SVM_EXIT_PAUSE, svm_run());
	story_check("ran", 1, as_counted(count, ran_since(start)));
	if (svm_has(SVM_HAS_NRIPS))
		story_check("nrip", svm_get(VMCB_RIP) + 2, svm_get(VMCB_NRIP));
	svm_end();
}

enum { RESUMED_BEHIND, RESUMED_AT, OTHER_EXIT, EXITS_NOT_ASKED, OTHER_COUNT };

/* VMRUN loads the count again, whatever the exit was, and whatever was left of it. */
STORY(svm_pause_reload)
{
	static const uint8_t cpuid[2] = {0x0f, 0xa2};
	uint64_t mode = GIVEN(mode), count = GIVEN(count), rip;

	if (!begin_pauses(MODE_LONG, 0, count, 0))
		return;
	switch (mode) {
	case RESUMED_BEHIND: /* the PAUSE that exited: the next window is as long as the first */
	case RESUMED_AT:     /* it: it counts once more */
		pauses(0, NULL, 0);
		for (unsigned n = 0; n < 3; n++) {
			rip = svm_get(VMCB_RIP);
			story_check_at("exitcode", n, SVM_EXIT_PAUSE, svm_run());
			story_check_at("ran", n, 1, as_counted(count, ran_since(rip)));
			if (mode == RESUMED_BEHIND)
				svm_set(VMCB_RIP, svm_get(VMCB_RIP) + 2);
		}
		break;
	case OTHER_EXIT: /* behind one PAUSE less than would exit, the window begins anew */
		pauses((unsigned)count - 1, cpuid, 2);
		svm_intercept(SVM_EXIT_CPUID, true);
		story_check("exitcode", SVM_EXIT_CPUID, svm_run());
		rip = svm_get(VMCB_RIP) + 2;
		svm_set(VMCB_RIP, rip);
		story_check("exitcode_again", SVM_EXIT_PAUSE, svm_run());
		story_check("ran", 1, as_counted(count, ran_since(rip)));
		break;
	case EXITS_NOT_ASKED: /* the count goes down, and nothing comes of it */
		pauses(0, NULL, 0);
		svm_intercept(SVM_EXIT_PAUSE, false);
		story_check("exitcode", SVM_EXIT_VMMCALL, svm_run());
		break;
	default: /* another count: with its clean bit clear the new one is loaded */
		pauses(0, NULL, 0);
		rip = svm_get(VMCB_RIP);
		story_check("exitcode", SVM_EXIT_PAUSE, svm_run());
		story_check("ran", 1, as_counted(count, ran_since(rip)));
		svm_write(VMCB_PAUSE_COUNT, 2, 9);
		svm_write(VMCB_CLEAN, 4, ~1u);
		svm_set(VMCB_RIP, rip);
		story_check("exitcode_again", SVM_EXIT_PAUSE, svm_run());
		story_check("ran_again", 1, as_counted(9, ran_since(rip)));
		break;
	}
	story_check("count", mode == OTHER_COUNT ? 9 : count, svm_read(VMCB_PAUSE_COUNT, 2));
	svm_end();
}

/* Loops of 5000 rounds, far beyond a threshold of 1000 cycles; a few NOPs, which are far below 60000. */
#define SLOW    0xb9, 0x88, 0x13, 0x00, 0x00, 0xe2, 0xfe
#define SHORT   1000u
#define LONGEST 60000u

enum { THRESHOLD_CLOSE, THRESHOLD_GAP, THRESHOLD_GAPS, THRESHOLD_ZERO, THRESHOLD_GAP_AT_LAST };

STORY(svm_pause_threshold)
{
	static const uint8_t gap[] = {SLOW};
	/* 1: pause; mov $5000, %ecx; loop .; dec %ebx; jnz 1b */
	static const uint8_t far_apart[] = {0xf3, 0x90, SLOW, 0xff, 0xcb, 0x75, 0xf3, 0x0f, 0x01, 0xd9};
	uint64_t mode = GIVEN(mode), count = GIVEN(count), ran;
	unsigned before = mode == THRESHOLD_GAP_AT_LAST ? (unsigned)count : 2;
	bool fast = mode == THRESHOLD_CLOSE;

	if (!begin_pauses(MODE_LONG, 0, count,
			  mode == THRESHOLD_ZERO ? 0
			  : fast                 ? LONGEST
						 : SHORT) ||
	    !SVM_NEEDS(12))
		return;
	if (mode == THRESHOLD_GAPS) {
		svm_code(far_apart, sizeof(far_apart));
		svm_registers.rbx = 12;
		/* Each PAUSE comes late, and reloads: there is no end to it. */
		story_check("exitcode", SVM_EXIT_VMMCALL, svm_run());
	} else {
		pauses(fast ? 0 : before, gap, fast ? 0 : sizeof(gap));
		story_check("exitcode", SVM_EXIT_PAUSE, svm_run());
		ran = svm_get(VMCB_RIP) - CASE_STUB;
		if (!fast && ran > 2 * before)
			ran -= sizeof(gap);
		ran /= 2;
		if (mode == THRESHOLD_CLOSE || mode == THRESHOLD_ZERO) /* a threshold of 0 is none */
			story_check("ran", 1, as_counted(count, ran));
		else /* those before the gap do not count; that behind it does not exit, though none may be
			left */
			story_check("ran", 1,
				    as_counted(count, ran - before) || as_counted(count, ran - before - 1));
	}
	story_check("count", count, svm_read(VMCB_PAUSE_COUNT, 2));
	story_check("threshold",
		    mode == THRESHOLD_ZERO ? 0
		    : fast                 ? LONGEST
					   : SHORT,
		    svm_read(VMCB_PAUSE_THRESHOLD, 2));
	svm_end();
}
