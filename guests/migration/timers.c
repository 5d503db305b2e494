/*
 * timers.c: timers that must fire once, or once each period, and when they are due, each kind in each mode.
 *
 * SDM 3A 11.5.4; 8254, MC146818A, IA-PC HPET, PC16550D. A timer set to twice the time takes twice as long: that is
 * what is said of rates.
 */
#include "lib/apic.h"
#include "migration/board.h"
#include "migration/migration.h"
#include "x86/msr.h"

#define VECTOR  0x61u
#define PATIENCE 4000u /* rounds of hold(), doubled with each try */

enum {
	APIC_ONE_SHOT,
	APIC_PERIODIC,
	APIC_DEADLINE,
	PIT_ONE_SHOT,
	PIT_RATE,
	PIT_SQUARE,
	HPET_ONE_SHOT,
	HPET_PERIODIC,
	HPET_LEVEL,
	HPET_32_BITS,
	RTC_PERIODIC,
	KINDS
};

static unsigned kind, hpet_timer, try, slower;
static bool by_pm_timer;
static uint64_t armed_at;
static volatile uint64_t fired_at[8];
static volatile unsigned fired;

static bool by_pic(void) { return kind == PIT_ONE_SHOT || kind == PIT_RATE || kind == PIT_SQUARE || kind == RTC_PERIODIC; }
static bool by_hpet(void) { return kind >= HPET_ONE_SHOT && kind <= HPET_32_BITS; }
static bool periodic(void)
{
	return kind == APIC_PERIODIC || kind == PIT_RATE || kind == PIT_SQUARE || kind == HPET_PERIODIC ||
	       kind == RTC_PERIODIC;
}

static uint64_t passed_by_pm(uint64_t since, uint64_t until) { return (until - since) & 0xffffff; }

static uint64_t time_now(void) { return by_pm_timer ? machine_in32(PM_TIMER) : read_tsc(); }

static void note(struct story_frame *frame)
{
	if (frame->vector < 32)
		return;
	if (fired < 8)
		fired_at[fired] = time_now();
	fired++;
	if (kind == HPET_LEVEL)
		*mmio64(HPET + HPET_STATUS) = 1u << hpet_timer;
	if (kind == RTC_PERIODIC)
		(void)rtc_read(0xc);
	if (!by_pic()) {
		apic_write(APIC_EOI, 0);
		return;
	}
	if (frame->vector >= BASE + 8)
		machine_out8(SLAVE, 0x20);
	machine_out8(MASTER, 0x20);
}

static void disarm(void)
{
	if (kind <= APIC_DEADLINE) {
		apic_write(APIC_INITIAL_COUNT, 0);
		if (kind == APIC_DEADLINE)
			machine_write_msr(MSR_TSC_DEADLINE, 0);
	} else if (by_hpet()) {
		*mmio64(HPET + HPET_CONFIG) = 0;
		*mmio64(HPET + HPET_TIMER(hpet_timer)) = 0;
	} else if (kind == RTC_PERIODIC) {
		rtc_write(0xb, 2);
		(void)rtc_read(0xc);
	} else {
		machine_out8(PIT_CONTROL, 0x30);
	}
}

static void arm_hpet(uint64_t ticks)
{
	uint64_t config = 20u << 9 | 4; /* input 20, interrupts */

	*mmio64(HPET + HPET_CONFIG) = 0;
	*mmio64(HPET + HPET_COUNTER) = kind == HPET_32_BITS ? 0xffffff00ull : 0x7fffffff00ull;
	if (kind == HPET_LEVEL)
		config |= 2;
	if (kind == HPET_PERIODIC)
		config |= 8 | 0x40;
	if (kind == HPET_32_BITS)
		config |= 0x100;
	*mmio64(HPET + HPET_TIMER(hpet_timer)) = config;
	*mmio64(HPET + HPET_TIMER(hpet_timer) + 8) = *mmio64(HPET + HPET_COUNTER) + ticks;
	if (kind == HPET_PERIODIC)
		*mmio64(HPET + HPET_TIMER(hpet_timer) + 8) = ticks;
	hold();
	armed_at = time_now();
	*mmio64(HPET + HPET_CONFIG) = 1;
}

/* To fire when @time has passed, in whatever the timer counts: twice that with each try. */
static void arm(uint32_t time)
{
	if (kind != RTC_PERIODIC) /* where it is a choice of rates */
		time <<= try;
	fired = 0;
	armed_at = time_now();
	switch (kind) {
	case APIC_ONE_SHOT:
	case APIC_PERIODIC:
		apic_write(APIC_LVT_TIMER, (kind == APIC_PERIODIC ? 1u << 17 : 0) | VECTOR);
		apic_write(APIC_INITIAL_COUNT, time);
		break;
	case APIC_DEADLINE:
		apic_write(APIC_LVT_TIMER, 2u << 17 | VECTOR);
		machine_write_msr(MSR_TSC_DEADLINE, (by_pm_timer ? read_tsc() : armed_at) + time);
		break;
	case PIT_ONE_SHOT:
	case PIT_RATE:
	case PIT_SQUARE:
		machine_out8(PIT_CONTROL, kind == PIT_ONE_SHOT ? 0x30 : kind == PIT_RATE ? 0x34 : 0x36);
		machine_out8(PIT_COUNTER0, (uint8_t)time);
		machine_out8(PIT_COUNTER0, (uint8_t)(time >> 8));
		break;
	case RTC_PERIODIC:
		rtc_write(0xa, 0x20 | time);
		(void)rtc_read(0xc);
		rtc_write(0xb, 2 | 0x40);
		break;
	default: arm_hpet(time); break;
	}
}

/*
 * How much slower than one that takes a nanosecond for an instruction a machine of ours is, where a register of a chip is
 * read: times are so much longer, that there is room in them for an interrupt. It may be another engine's, with another TSC,
 * in between, so that the PM timer is asked.
 */
static unsigned how_slow(void)
{
	const unsigned looks = 32, usual = 2500, tick = 279, most = 1500;
	uint64_t before = machine_in32(PM_TIMER), ns;

	by_pm_timer = false;
	if (!machine.control_device || before >= 1u << 24)
		return 1;
	for (unsigned i = 0; i < looks; i++) {
		(void)machine_in8(MASTER + 1);
		hold();
	}
	ns = passed_by_pm(before, machine_in32(PM_TIMER)) * tick;
	by_pm_timer = ns >= usual;
	return ns / usual >= most ? most : 1 + (unsigned)(ns / usual);
}

static bool begin(void)
{
	slower = how_slow();
	kind = (unsigned)GIVEN(mode);
	hpet_timer = (unsigned)GIVEN(index);
	if (by_pic() && !board_pic())
		return false;
	if (!by_pic() && !story_apic_mode())
		return false;
	if (kind == APIC_DEADLINE && !story_needs(cpuid_bit(1, 2, 24), "cpuid.1.0.ecx[24]=0"))
		return false;
	if (by_hpet() && !board_has_hpet())
		return false;
	if (kind == RTC_PERIODIC && !board_has_rtc())
		return false;
	if (by_hpet() && !board_ioapic_entry(20, VECTOR | (kind == HPET_LEVEL ? 1u << 15 : 0)))
		return false;
	if (by_pic())
		board_pic_unmask(kind == RTC_PERIODIC ? 8 : 0);
	if (!by_pic() && !by_hpet())
		apic_write(APIC_DIVIDE, (GIVEN(divide) & 4) << 1 | (GIVEN(divide) & 3));
	story_handle(note);
	return true;
}

static bool wait_for(unsigned count)
{
	unsigned rounds = slower > 1 ? 64 * PATIENCE : PATIENCE << try;

	for (unsigned i = 0; i < rounds && fired < count; i++) {
		__asm__ volatile("sti" : : : "memory");
		if (kind == RTC_PERIODIC) /* which is slow */
			__asm__ volatile("hlt" : : : "memory");
		hold();
		__asm__ volatile("cli" : : : "memory");
	}
	return fired >= count;
}

struct taken {
	bool fires;
	unsigned fired;
	uint64_t ticks; /* of the TSC */
};

static struct taken takes(uint32_t time)
{
	struct taken taken;

	arm(time);
	taken.fires = wait_for(1);
	for (unsigned i = 0; i < 8; i++) {
		__asm__ volatile("sti" : : : "memory");
		hold();
		__asm__ volatile("cli" : : : "memory");
	}
	taken.fired = fired;
	disarm();
	taken.ticks = fired_at[0] - armed_at;
	return taken;
}

/* Ticks of the PM timer that a timer of a known rate takes at least; 0: its rate is the machine's own. */
static uint64_t nominal(uint64_t time)
{
	const uint64_t pit_hz = 1193182, pm_hz = 3579545, pm_fs = 279365115;
	uint64_t ticks = 0;

	if (kind == PIT_ONE_SHOT)
		ticks = time * pm_hz / pit_hz;
	else if (by_hpet())
		ticks = time * (*mmio64(HPET) >> 32) / pm_fs;
	return ticks > 2 ? ticks - 2 : 0;
}

/*
 * Where time is not instructions, others use the processor as well: a timer comes late as they like, and it is said of those
 * of a known rate that they do not come early.
 */
static void fires_in_time(uint32_t time)
{
	for (unsigned times = 1; times <= 8; times *= 8) {
		bool fires = takes(times * time).fires;

		story_check_at("fires", times, 1, fires);
		story_check_at("once", times, 1, fired);
		story_check_at("not_early", times, 1, passed_by_pm(armed_at, fired_at[0]) >= nominal(times * time));
	}
}

/* @value: the time, as the timer counts it. */
STORY(timer_once)
{
	uint32_t time = (uint32_t)GIVEN(value);
	bool early = true, late = true;
	struct taken once, twice;

	if (!begin())
		return;
	if (slower > 1) {
		fires_in_time(time * slower);
		return;
	}
	for (try = first_try(); try <= last_try() && (early || late); try++) {
		once = takes(time);
		twice = takes(2 * time);
		/* What arming and the interrupt cost is in both. */
		early = twice.ticks < once.ticks + once.ticks / 2;
		late = twice.ticks > 2 * once.ticks + once.ticks / 4 + 400;
		if (kind == APIC_DEADLINE)
			story_check("due", 1, once.ticks >= time << try);
	}
	story_check("fires", 1, once.fires && twice.fires);
	story_check("once", 1, once.fired);
	story_check("once_again", 1, twice.fired);
	story_check("not_early", 0, early);
	story_check("not_late", 0, late);
}

/* Period after period of the same length, none left out and none twice. */
STORY(timer_again)
{
	uint32_t time = (uint32_t)GIVEN(value);
	bool fires = false, early = true, late = true;

	if (!begin())
		return;
	if (kind != RTC_PERIODIC) /* whose time is a rate, and long enough */
		time *= slower;
	for (try = first_try(); try <= last_try() && (early || late); try++) {
		uint64_t first;

		arm(time);
		fires = wait_for(5);
		disarm();
		first = fired_at[2] - fired_at[1];
		early = late = !fires;
		for (unsigned i = 2; i < 4 && slower == 1; i++) { /* else one is told late, and the next one soon behind it */
			uint64_t next = fired_at[i + 1] - fired_at[i];

			early = early || next + first / 4 + 400 < first;
			late = late || next > first + first / 4 + 400;
		}
	}
	story_check("fires", 1, fires);
	story_check("not_early", 0, early);
	story_check("not_late", 0, late);
	story_check("periodic", 1, periodic());
}

/* A timer that is masked counts on, and is not heard of. */
STORY(timer_masked)
{
	uint32_t count = 0, before = 0, after = 0;

	if (!story_apic_mode())
		return;
	apic_write(APIC_DIVIDE, 0xb);
	apic_write(APIC_LVT_TIMER, LVT_MASKED | VECTOR);
	for (try = first_try(); try <= last_try() && after >= before; try++) {
		count = (5000u << try) * how_slow();
		apic_write(APIC_INITIAL_COUNT, count);
		HELD("initial", count, apic_read(APIC_INITIAL_COUNT));
		before = apic_read(APIC_CURRENT_COUNT);
		hold();
		after = apic_read(APIC_CURRENT_COUNT);
	}
	story_check("counts", 1, after < before && before < count);
	for (unsigned i = 0; i < PATIENCE << try && apic_read(APIC_CURRENT_COUNT); i++)
		hold();
	HELD("through", 0, apic_read(APIC_CURRENT_COUNT));
	story_open();
	story_check("silent", 0, story_total());
}

/* A deadline far away stays what it is, and one that is written over does not come. */
STORY(deadline_kept)
{
	uint64_t at;

	if (!story_apic_mode() || !story_needs(cpuid_bit(1, 2, 24), "cpuid.1.0.ecx[24]=0"))
		return;
	apic_write(APIC_LVT_TIMER, 2u << 17 | VECTOR);
	at = how_slow();
	machine_write_msr(MSR_TSC_DEADLINE, read_tsc() + (at > 1 ? at << 20 : 3000));
	at = read_tsc() + (1ull << 40);
	machine_write_msr(MSR_TSC_DEADLINE, at);
	HELD("armed", at, machine_read_msr(MSR_TSC_DEADLINE));
	for (unsigned i = 0; i < 100; i++)
		hold();
	story_open();
	story_check("silent", 0, story_total());
	machine_write_msr(MSR_TSC_DEADLINE, 0);
	HELD("disarmed", 0, machine_read_msr(MSR_TSC_DEADLINE));
}

/* What wakes a processor that is halted comes to it wherever it is. */
static volatile unsigned behind_halt;

STORY(timer_wakes)
{
	if (!story_apic_mode())
		return;
	apic_write(APIC_DIVIDE, 0xb);
	apic_write(APIC_LVT_TIMER, VECTOR);
	behind_halt = 0;
	for (unsigned i = 0; i < 3; i++) {
		apic_write(APIC_INITIAL_COUNT, 500);
		hold();
		__asm__ volatile("sti; hlt; cli" : : : "memory");
		behind_halt++;
		story_check_at("woken", i, i + 1, story_count(VECTOR));
	}
	story_check("in_all", 3, behind_halt);
}

/* The RTC's alarm and its update-ended interrupt (@value: their bit in registers B and C). */
STORY(rtc_told)
{
	unsigned bit = (unsigned)GIVEN(value), flags;

	if (!board_pic() || !board_has_rtc())
		return;
	board_pic_unmask(8);
	rtc_write(0xa, 0x26);
	for (unsigned n = 1; n < 6; n += 2)
		rtc_write(n, 0xff);
	(void)rtc_read(0xc);
	rtc_write(0xb, 2 | bit);
	hold();
	while (!story_count(BASE + 8))
		__asm__ volatile("sti; hlt; cli" : : : "memory");
	hold();
	story_check("enable", 2 | bit, rtc_read(0xb));
	hold();
	flags = rtc_read(0xc);
	story_check("flags", 0x80 | bit, flags & (0x80 | bit));
	story_open();
	story_check("once", 1, story_count(BASE + 8));
	rtc_write(0xb, 2);
	(void)rtc_read(0xc);
}
