/*
 * clocks.c: counters and clocks that never step back and never leap, and what they say of each other.
 *
 * SDM 3B 18.17, 3A 11.5.4; 8254, MC146818A, IA-PC HPET, ACPI 4.8.3.3; KVM's clock as Linux describes it. No rate is asserted but as
 * a ratio of two that were measured.
 */
#include "lib/apic.h"
#include "lib/cpus.h"
#include "migration/board.h"
#include "migration/migration.h"
#include "x86/msr.h"

#define LOOKS 24u

/* ---- one clock ---- */

static uint64_t tsc_now(void) { return read_tsc(); }
static uint64_t hpet_now(void) { return *mmio64(HPET + HPET_COUNTER); }
static uint64_t pm_now(void) { return machine_in32(PM_TIMER) & 0xffffff; }
static uint64_t apic_now(void) { return 0xffffffffu - apic_read(APIC_CURRENT_COUNT); }

static uint64_t rdtscp_now(void)
{
	uint32_t low, high;

	__asm__ volatile("rdtscp" : "=a"(low), "=d"(high) : : "ecx");
	return (uint64_t)high << 32 | low;
}

static uint64_t pit_now(void)
{
	unsigned low;

	machine_out8(PIT_CONTROL, 0x80); /* latch counter 2 */
	low = machine_in8(PIT_COUNTER2);
	return 0xffff - (low | (unsigned)machine_in8(PIT_COUNTER2) << 8);
}

static bool tsc_begin(void) { return true; }
static bool rdtscp_begin(void) { return story_needs(cpuid_bit(0x80000001, 3, 27), "cpuid.80000001.0.edx[27]=0"); }

static bool hpet_begin(void)
{
	if (!board_has_hpet())
		return false;
	*mmio64(HPET + HPET_CONFIG) = 1;
	return true;
}

static bool pm_begin(void) { return board_has_pm(); }

static bool apic_begin(void)
{
	if (!story_apic_mode())
		return false;
	apic_write(APIC_DIVIDE, 0xb);
	apic_write(APIC_LVT_TIMER, LVT_MASKED | 0x61);
	apic_write(APIC_INITIAL_COUNT, 0xffffffff);
	return true;
}

/* Counter 2 in mode 2, its gate open. */
static bool pit_begin(void)
{
	machine_out8(PORT_61, (uint8_t)((machine_in8(PORT_61) & 0xfc) | 1));
	machine_out8(PIT_CONTROL, 0xb4);
	machine_out8(PIT_COUNTER2, 0xff);
	machine_out8(PIT_COUNTER2, 0xff);
	story_pause(3000);
	return true;
}

static const struct {
	bool (*begin)(void);
	uint64_t (*now)(void);
} clocks[] = {{tsc_begin, tsc_now},   {rdtscp_begin, rdtscp_now}, {hpet_begin, hpet_now}, {pm_begin, pm_now},
	      {apic_begin, apic_now}, {pit_begin, pit_now}};

/* Clock @index never steps back. */
STORY(clock_forward)
{
	unsigned n = (unsigned)GIVEN(index);
	uint64_t now, last, first;

	if (!clocks[n].begin())
		return;
	first = last = clocks[n].now();
	for (unsigned i = 0; i < LOOKS; i++) {
		hold();
		now = clocks[n].now();
		story_check("not_back", 1, now >= last);
		last = now;
	}
	story_check("runs", 1, last > first || n == 5);
	if (n == 2)
		*mmio64(HPET + HPET_CONFIG) = 0;
}

/*
 * Clock @index against the TSC: over a long stretch both have gone on at the rate that they had over one before it, to a
 * quarter and some ticks.
 */
STORY(clock_ratio)
{
	unsigned n = (unsigned)GIVEN(index);
	uint64_t tsc[3], at[3], want, got;
	bool as_before = false;

	if (!clocks[n].begin())
		return;
	for (unsigned try = first_try(); try <= last_try() && !as_before; try++) {
		for (unsigned i = 0; i < 3; i++) {
			at[i] = clocks[n].now();
			tsc[i] = read_tsc();
			for (unsigned k = 0; k < 40; k++)
				hold();
		}
		story_check("tsc", 1, tsc[1] > tsc[0] && tsc[2] > tsc[1]);
		/* at2 - at1 : at1 - at0 as tsc2 - tsc1 : tsc1 - tsc0 */
		want = (tsc[2] - tsc[1]) * (at[1] - at[0]);
		got = (at[2] - at[1]) * (tsc[1] - tsc[0]);
		as_before = got <= want + want / 4 + 40 * (tsc[1] - tsc[0]) && want <= got + got / 4 + 40 * (tsc[1] - tsc[0]);
	}
	story_check("rate", 1, as_before);
	if (n == 2)
		*mmio64(HPET + HPET_CONFIG) = 0;
}

/* ---- the TSC where it is written and adjusted ---- */

STORY(tsc_written)
{
	uint64_t value = GIVEN(value), now, last = value, old = read_tsc();

	story_spoils(); /* other processors' TSCs are ahead of what is put back */
	machine_write_msr(MSR_TSC, value);
	for (unsigned i = 0; i < LOOKS; i++) {
		hold();
		now = read_tsc();
		story_check("forward", 1, now >= last && now - value < 1000000000);
		last = now;
	}
	machine_write_msr(MSR_TSC, old);
}

/* IA32_TSC_ADJUST holds what was added, and what a write to the TSC added (SDM 3B 18.17.3). */
STORY(tsc_adjusted)
{
	uint64_t add = GIVEN(value), before, old;

	if (!story_needs(cpuid_bit(7, 1, 1), "cpuid.7.0.ebx[1]=0"))
		return;
	old = machine_read_msr(MSR_TSC_ADJUST);
	before = read_tsc();
	machine_write_msr(MSR_TSC_ADJUST, old + add);
	HELD("adjust", old + add, machine_read_msr(MSR_TSC_ADJUST));
	story_check("added", 1, read_tsc() - before - add < 1000000000);
	machine_write_msr(MSR_TSC_ADJUST, old);
	HELD("back", old, machine_read_msr(MSR_TSC_ADJUST));
	story_check("taken_away", 1, read_tsc() - before < 1000000000);
}

/* Two processors see one time: whoever looks later sees no earlier one. */
static volatile uint64_t passed_on;
static volatile unsigned ball, back_steps;

static void play(void *argument)
{
	unsigned me = (unsigned)(uintptr_t)argument;

	for (unsigned i = 0; i < 10; i++) {
		uint64_t now;

		while (ball != me)
			__asm__ volatile("pause");
		now = read_tsc();
		back_steps += now < passed_on;
		passed_on = now;
		ball = !me;
	}
}

STORY(tsc_of_two)
{
	if (!cpus_needs(2))
		return;
	passed_on = ball = back_steps = 0;
	cpus_tell(1, play, (void *)1);
	play((void *)0);
	story_check("over", 1, cpus_wait(1));
	story_check("back_steps", 0, back_steps);
}

/* ---- time of day ---- */

/* The seconds go on; date and time are what was set. */
STORY(time_of_day_kept)
{
	static const uint8_t wanted[10] = {0x30, 0, 0x45, 0, 0x21, 0, 4, 0x15, 0x07, 0x31};
	unsigned seconds;

	if (!board_has_rtc())
		return;
	rtc_write(0xb, rtc_read(0xb) | 0x82);
	rtc_write(0xa, 0x66); /* the divider chain is held, and begins anew */
	hold();
	rtc_write(0xa, 0x26);
	for (unsigned i = 0; i < 10; i++)
		if (i & 1 ? i == 7 || i == 9 : 1)
			rtc_write(i, wanted[i]);
	HELD("while_set", 0x30, rtc_read(0));
	rtc_write(0xb, rtc_read(0xb) & 0x7f);
	for (unsigned i = 0; i < 8; i++)
		hold();
	seconds = rtc_read(0);
	story_check("seconds", 1, seconds == 0x30 || seconds == 0x31);
	story_check("minutes", 0x45, rtc_read(2));
	story_check("hours", 0x21, rtc_read(4));
	story_check("day", 0x15, rtc_read(7));
	story_check("month", 0x07, rtc_read(8));
	story_check("year", 0x31, rtc_read(9));
}

/* One second from 01:59:59 on the last Sunday of October 2026, with daylight saving on: the hour that it is then. */
static unsigned hour_after_two(void)
{
	static const uint8_t time[10] = {0x59, 0, 0x59, 0, 0x01, 0, 1, 0x25, 0x10, 0x26};
	unsigned count = story_count(BASE + 8);

	rtc_write(0xb, 0x83);
	for (unsigned i = 0; i < 10; i++)
		if (i & 1 ? i == 7 || i == 9 : 1)
			rtc_write(i, time[i]);
	(void)rtc_read(0xc);
	rtc_write(0xb, 0x13);
	hold();
	while (story_count(BASE + 8) == count)
		__asm__ volatile("sti; hlt; cli" : : : "memory");
	(void)rtc_read(0xc);
	hold();
	return rtc_read(4);
}

/* The hour comes twice when two o'clock is first reached, and not when it is reached again. */
STORY(daylight_kept)
{
	if (!board_pic() || !board_has_rtc())
		return;
	board_pic_unmask(8);
	rtc_write(0xa, 0x26);
	story_check("first", 1, hour_after_two());
	HELD("minutes", 0, rtc_read(2));
	story_check("again", 2, hour_after_two());
	rtc_write(0xb, 2);
	(void)rtc_read(0xc);
}

/* ---- KVM's clock: its page is written by the host ---- */

struct time_info {
	uint32_t version, reserved;
	uint64_t tsc_timestamp, system_time;
	uint32_t tsc_to_system_mul;
	int8_t tsc_shift;
	uint8_t flags, reserved2[2];
};
static volatile struct time_info info __attribute__((aligned(4096)));
/* Nothing else writes to its page, which is only logged as KVM's clock. */
static volatile uint32_t wall[1024] __attribute__((aligned(4096)));

static bool has_kvmclock(void)
{
	uint32_t r[4];

	machine_cpuid(1, 0, r);
	if (!story_needs(r[2] >> 31 & 1, "cpuid.1.0.ecx[31]=0"))
		return false;
	__asm__ volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "a"(0x40000000), "c"(0));
	if (!story_needs(r[1] == 0x4b4d564b && r[2] == 0x564b4d56, "cpuid.40000000: not KVM"))
		return false;
	__asm__ volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "a"(0x40000001), "c"(0));
	return story_needs(r[0] >> 3 & 1, "cpuid.40000001.0.eax[3]=0");
}

static uint64_t kvm_time(void)
{
	uint64_t ticks = read_tsc() - info.tsc_timestamp;

	ticks = info.tsc_shift >= 0 ? ticks << info.tsc_shift : ticks >> -info.tsc_shift;
	return info.system_time + (uint64_t)((unsigned __int128)ticks * info.tsc_to_system_mul >> 32);
}

STORY(kvmclock_kept)
{
	uint64_t at = (uintptr_t)&info | 1, last, now;
	uint32_t version;

	if (!has_kvmclock())
		return;
	machine_write_msr(MSR_KVM_SYSTEM_TIME_NEW, at);
	HELD("msr", at, machine_read_msr(MSR_KVM_SYSTEM_TIME_NEW));
	story_check("even", 0, info.version & 1);
	story_check("written", 1, info.tsc_to_system_mul != 0);
	last = kvm_time();
	for (unsigned i = 0; i < LOOKS; i++) {
		hold();
		now = kvm_time();
		story_check("forward", 1, now >= last && now - last < 1000000000);
		last = now;
	}
	version = info.version;
	for (unsigned i = 0; i < 3; i++) { /* a TSC that is moved is told again, with the next version */
		hold();
		machine_write_msr(MSR_TSC, read_tsc() + 0x10000000);
		hold();
		now = kvm_time();
		story_check("moved", 1, now >= last && now - last < 1000000000);
		story_check("version", 1, info.version > version);
		version = info.version;
		last = now;
	}
	machine_write_msr(MSR_KVM_SYSTEM_TIME_NEW, 0);
}

STORY(kvm_wall_clock_kept)
{
	uint32_t here, there;

	if (!has_kvmclock())
		return;
	machine_write_msr(MSR_KVM_WALL_CLOCK_NEW, (uintptr_t)wall);
	HELD("msr", (uintptr_t)wall, machine_read_msr(MSR_KVM_WALL_CLOCK_NEW));
	story_check("even", 0, wall[0] & 1);
	/* Of two instructions in a row one is on the other side, where every boundary has a move. */
	__asm__ volatile("mov %2, %0; mov %2, %1" : "=&r"(here), "=&r"(there) : "m"(wall[1]));
	story_check("seconds", 1, here > 1000000000);
	story_check("same", here, there);
}
