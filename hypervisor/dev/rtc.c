#include "dev/rtc.h"

#include <string.h>

enum {
	SECONDS,
	SECONDS_ALARM,
	MINUTES,
	MINUTES_ALARM,
	HOURS,
	HOURS_ALARM,
	WEEKDAY,
	DAY,
	MONTH,
	YEAR,
	REGISTER_A,
	REGISTER_B,
	REGISTER_C,
	REGISTER_D
};

#define A_UIP       0x80
#define A_DIVIDER   0x70
#define A_RATE      0x0f
#define DIVIDER_RUN 0x20 /* for a crystal of 32768 Hz */
#define B_SET       0x80
#define B_PIE       0x40
#define B_AIE       0x20
#define B_UIE       0x10
#define B_SQWE      0x08
#define B_BINARY    0x04
#define B_24H       0x02
#define B_DSE       0x01
#define B_ENABLES   (B_PIE | B_AIE | B_UIE)
#define C_IRQF      0x80
#define C_PF        0x40 /* the flags stand where register B has their enables */
#define C_AF        0x20
#define C_UF        0x10
#define D_VRT       0x80
#define ALARM_ANY   0xc0
#define HOUR_PM     0x80
#define INDEX_NMI   0x80
#define INDEX       0x7f

#define UPDATE_NS 2228000u /* 244 us of warning, 1984 us of update cycle */
#define DAY_S     86400u

/* ---- the calendar ---- */

struct date {
	int64_t year;
	unsigned month, day, hour, minute, second, weekday; /* weekday: 1 is Sunday */
};

/* Days since 1970-01-01; years begin in March here, so that the leap day is a year's last. */
static int64_t days_from_date(int64_t year, unsigned month, unsigned day)
{
	int64_t from_march = (int64_t)(month + 9) % 12, era, of_era, of_year;

	year -= month <= 2;
	era = (year >= 0 ? year : year - 399) / 400;
	of_era = year - era * 400;
	of_year = (153 * from_march + 2) / 5 + (int64_t)day - 1;
	return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

static int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b < 0); }

static struct date date_from_seconds(int64_t seconds)
{
	int64_t days = floor_div(seconds, DAY_S), z = days + 719468;
	int64_t era = floor_div(z, 146097), of_era = z - era * 146097;
	int64_t year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
	int64_t of_year = of_era - (365 * year + year / 4 - year / 100);
	int64_t from_march = (5 * of_year + 2) / 153;
	unsigned rest = (unsigned)(seconds - days * DAY_S);
	struct date date = {.month = (unsigned)(from_march < 10 ? from_march + 3 : from_march - 9),
			    .day = (unsigned)(of_year - (153 * from_march + 2) / 5 + 1),
			    .hour = rest / 3600,
			    .minute = rest / 60 % 60,
			    .second = rest % 60,
			    .weekday = (unsigned)(((days + 4) % 7 + 7) % 7 + 1)};

	date.year = year + era * 400 + (date.month <= 2);
	return date;
}

bool rtc_seconds(int64_t year, unsigned month, unsigned day, unsigned hour, unsigned minute, unsigned second,
		 int64_t *seconds)
{
	struct date date;

	if (month - 1 > 11 || day - 1 > 30 || hour > 23 || minute > 59 || second > 59)
		return false;
	*seconds = days_from_date(year, month, day) * (int64_t)DAY_S + hour * 3600 + minute * 60 + second;
	date = date_from_seconds(*seconds);
	return date.month == month && date.day == day;
}

/* ---- the divider chain: times are unsigned and wrap, differences are what counts ---- */

static unsigned divider(const struct rtc *rtc) { return rtc->cmos[REGISTER_A] & A_DIVIDER; }

static bool chain_runs(const struct rtc *rtc) { return divider(rtc) <= DIVIDER_RUN; }

static bool time_passes(const struct rtc *rtc) { return chain_runs(rtc) && !(rtc->cmos[REGISTER_B] & B_SET); }

/* Of a second, as the chain counts it: 22, 20 or 15 stages. */
static uint64_t second_ns(const struct rtc *rtc)
{
	static const unsigned slower[3] = {128, 32, 1};

	return 1000000000ull * slower[chain_runs(rtc) ? divider(rtc) >> 4 : 2];
}

/* Crystal ticks between two periodic interrupts; 0: there are none (data sheet, table 5). */
static uint64_t period_ticks(const struct rtc *rtc)
{
	unsigned rate = rtc->cmos[REGISTER_A] & A_RATE;

	if (!chain_runs(rtc) || rate == 0)
		return 0;
	switch (divider(rtc) >> 4) {
	case 0: return 1ull << (rate + 6);
	case 1: return 1ull << (rate + 4);
	default: return 1ull << (rate <= 2 ? rate + 6 : rate - 1);
	}
}

/* A tick of 32768 Hz lasts 1953125/64 ns. How many have passed after @ns, and when tick @n is over. */
static uint64_t ticks_after(uint64_t ns) { return (uint64_t)((unsigned __int128)ns * 64 / 1953125); }
static uint64_t tick_time(uint64_t n) { return (uint64_t)(((unsigned __int128)n * 1953125 + 63) / 64); }

/* Whole seconds that the chain has counted at @time. */
static uint64_t chain_seconds(const struct rtc *rtc, uint64_t time)
{
	return (time - rtc->origin) / second_ns(rtc);
}

/* ---- time registers ---- */

static uint8_t encode(const struct rtc *rtc, unsigned value)
{
	return (uint8_t)(rtc->cmos[REGISTER_B] & B_BINARY ? value : value / 10 * 16 + value % 10);
}

static unsigned decode(const struct rtc *rtc, uint8_t byte)
{
	return rtc->cmos[REGISTER_B] & B_BINARY ? byte : (byte >> 4) * 10u + (byte & 15u);
}

static uint8_t encode_hour(const struct rtc *rtc, unsigned hour)
{
	if (rtc->cmos[REGISTER_B] & B_24H)
		return encode(rtc, hour);
	return (uint8_t)(encode(rtc, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? HOUR_PM : 0));
}

static unsigned decode_hour(const struct rtc *rtc, uint8_t byte)
{
	if (rtc->cmos[REGISTER_B] & B_24H)
		return decode(rtc, byte);
	return decode(rtc, byte & (uint8_t)~HOUR_PM) % 12 + (byte & HOUR_PM ? 12 : 0);
}

static int64_t seconds_at(const struct rtc *rtc, uint64_t time)
{
	return (int64_t)(rtc->base + chain_seconds(rtc, time));
}

/* Puts the time at @time into the registers. The weekday counts by itself: a guest may have set any. */
static void write_registers(struct rtc *rtc, int64_t seconds)
{
	struct date date = date_from_seconds(seconds);
	uint64_t year = (uint64_t)(date.year < 0 ? 0 : date.year);

	rtc->cmos[SECONDS] = encode(rtc, date.second);
	rtc->cmos[MINUTES] = encode(rtc, date.minute);
	rtc->cmos[HOURS] = encode_hour(rtc, date.hour);
	rtc->cmos[DAY] = encode(rtc, date.day);
	rtc->cmos[MONTH] = encode(rtc, date.month);
	rtc->cmos[YEAR] = encode(rtc, (unsigned)(year % 100));
	rtc->cmos[RTC_CENTURY] = encode(rtc, (unsigned)(year / 100 % 100));
}

/* What the registers say. Values that are no time are carried into the next unit. */
static int64_t read_registers(const struct rtc *rtc)
{
	unsigned month = decode(rtc, rtc->cmos[MONTH]) + 11;
	int64_t year = (int64_t)decode(rtc, rtc->cmos[RTC_CENTURY]) * 100 + decode(rtc, rtc->cmos[YEAR]);
	int64_t days = days_from_date(year + month / 12 - 1, month % 12 + 1, 1);

	days += (int64_t)decode(rtc, rtc->cmos[DAY]) - 1;
	return days * (int64_t)DAY_S + (int64_t)decode_hour(rtc, rtc->cmos[HOURS]) * 3600 +
	       (int64_t)decode(rtc, rtc->cmos[MINUTES]) * 60 + decode(rtc, rtc->cmos[SECONDS]);
}

/* ---- alarm ---- */

static bool matches(uint8_t alarm, uint8_t now) { return alarm >= ALARM_ANY || alarm == now; }

/* Seconds from @seconds to the next one that the alarm names, itself left out; 0: there is none within
 * @limit, which a day bounds. */
static unsigned alarm_in(const struct rtc *rtc, int64_t seconds, uint64_t limit)
{
	unsigned of_day = (unsigned)(seconds - floor_div(seconds, DAY_S) * (int64_t)DAY_S);

	for (unsigned i = 1; i <= DAY_S && i <= limit;) {
		unsigned at = (of_day + i) % DAY_S;

		if (!matches(rtc->cmos[HOURS_ALARM], encode_hour(rtc, at / 3600)))
			i += 3600 - at % 3600;
		else if (!matches(rtc->cmos[MINUTES_ALARM], encode(rtc, at / 60 % 60)))
			i += 60 - at % 60;
		else if (!matches(rtc->cmos[SECONDS_ALARM], encode(rtc, at % 60)))
			i++;
		else
			return i;
	}
	return 0;
}

/* ---- daylight saving (register B, DSE): 02:00 on the last Sundays of April and October ---- */

static int64_t last_sunday_at_two(int64_t year, unsigned month)
{
	int64_t last = days_from_date(year, month, month == 4 ? 30 : 31);

	return (last - (last + 4) % 7) * (int64_t)DAY_S + 2 * 3600;
}

/* Moves the clock where between @before (left out) and now it came to one of these. */
static void save_daylight(struct rtc *rtc, int64_t before)
{
	int64_t now = seconds_at(rtc, rtc->synced);
	int64_t year = date_from_seconds(now).year;
	int64_t april = last_sunday_at_two(year, 4), october = last_sunday_at_two(year, 10);

	if (before < april && now >= april)
		rtc->base += 3600;
	if (before < october && now >= october && rtc->fell_back != (uint64_t)year) {
		rtc->base -= 3600;
		rtc->fell_back = (uint64_t)year;
	}
}

/* ---- flags and the interrupt ---- */

/* Makes the flags of all that happened up to now. */
static void sync(struct rtc *rtc)
{
	uint64_t before = rtc->synced, now = clock_now(rtc->clock), period = period_ticks(rtc);
	uint8_t *flags = &rtc->cmos[REGISTER_C];

	rtc->synced = now;
	if (period && ticks_after(now - rtc->origin) / period != ticks_after(before - rtc->origin) / period)
		*flags |= C_PF;
	if (time_passes(rtc)) {
		uint64_t passed = chain_seconds(rtc, now) - chain_seconds(rtc, before);

		if (passed) {
			int64_t then = seconds_at(rtc, before);

			*flags |= C_UF;
			if (alarm_in(rtc, then, passed))
				*flags |= C_AF;
			if (rtc->cmos[REGISTER_B] & B_DSE)
				save_daylight(rtc, then);
			/* Days since the last look, for the weekday. */
			passed = (uint64_t)(floor_div(seconds_at(rtc, now), DAY_S) - floor_div(then, DAY_S));
			rtc->cmos[WEEKDAY] = encode(
				rtc, (unsigned)((decode(rtc, rtc->cmos[WEEKDAY]) + 6 + passed % 7) % 7 + 1));
		}
		write_registers(rtc, seconds_at(rtc, now));
	}
}

/* When the first enabled interrupt comes that has no flag yet. */
static uint64_t next_interrupt(const struct rtc *rtc)
{
	uint8_t enables = rtc->cmos[REGISTER_B];
	uint64_t now = rtc->synced, next = CLOCK_NEVER, period = period_ticks(rtc), at;
	uint64_t seconds = chain_seconds(rtc, now);
	unsigned in;

	if ((enables & B_PIE) && period) {
		at = rtc->origin + tick_time((ticks_after(now - rtc->origin) / period + 1) * period);
		next = at < next ? at : next;
	}
	if (!time_passes(rtc))
		return next;
	if (enables & B_UIE) {
		at = rtc->origin + (seconds + 1) * second_ns(rtc);
		next = at < next ? at : next;
	}
	in = enables & B_AIE ? alarm_in(rtc, seconds_at(rtc, now), UINT64_MAX) : 0;
	if (in) {
		at = rtc->origin + (seconds + in) * second_ns(rtc);
		next = at < next ? at : next;
	}
	return next;
}

static void update(struct rtc *rtc)
{
	uint8_t *flags = &rtc->cmos[REGISTER_C];
	bool raised = *flags & rtc->cmos[REGISTER_B] & B_ENABLES;

	*flags = (uint8_t)((*flags & ~C_IRQF) | (raised ? C_IRQF : 0));
	if (raised != rtc->line) {
		rtc->line = raised;
		if (rtc->interrupt)
			rtc->interrupt(rtc->owner, raised);
	}
	/* While the line is raised nothing new can be told: reading register C arms again. */
	clock_arm(&rtc->timer, raised ? CLOCK_NEVER : next_interrupt(rtc));
}

static void fired(void *owner, uint64_t due)
{
	(void)due;
	sync(owner);
	update(owner);
}

static void loaded(void *device)
{
	struct rtc *rtc = device;

	clock_arm(&rtc->timer, rtc->line ? CLOCK_NEVER : next_interrupt(rtc));
}

static const struct state_field fields[] = {
	STATE(struct rtc, index), STATE(struct rtc, cmos),   STATE(struct rtc, origin),
	STATE(struct rtc, base),  STATE(struct rtc, synced), STATE(struct rtc, fell_back),
	STATE(struct rtc, line),
};

/* No other divider than these passes write_register(). */
static const char *wrong(const void *device, const void *values)
{
	const struct rtc *rtc = values;

	(void)device;
	return chain_runs(rtc) && divider(rtc) >> 4 > 2 ? "cmos" : NULL;
}
STATE_TABLE(rtc_state, "rtc", 1, fields, loaded, wrong);

/* ---- registers ---- */

/* Takes the time from the registers; the chain goes on as it was. */
static void set_time(struct rtc *rtc)
{
	if (time_passes(rtc))
		rtc->base = (uint64_t)read_registers(rtc) - chain_seconds(rtc, rtc->synced);
}

static void refuse(struct rtc *rtc, uint8_t value)
{
	struct bus_access access = {
		.port = true, .write = true, .address = RTC_PORT + 1, .size = 1, .value = value};

	if (rtc->bus)
		bus_refuse(rtc->bus, &access);
}

static void write_a(struct rtc *rtc, uint8_t value)
{
	unsigned before = divider(rtc), after = value & A_DIVIDER;

	if (after > DIVIDER_RUN && after < 0x60) {
		refuse(rtc, value);
		return;
	}
	rtc->cmos[REGISTER_A] = value & (uint8_t)~A_UIP;
	if (before == after)
		return;
	/* Out of the divider's reset, the first update comes half a second later. */
	rtc->origin = rtc->synced - second_ns(rtc) / 2;
	set_time(rtc);
}

static void write_b(struct rtc *rtc, uint8_t value)
{
	/* Setting SET aborts a cycle and clears UIE. */
	if ((value & B_SET))
		value &= (uint8_t)~B_UIE;
	rtc->cmos[REGISTER_B] = value;
	/* The bytes stay as they are, and mean what the new format says. */
	set_time(rtc);
}

static uint8_t read_a(const struct rtc *rtc)
{
	bool updating = time_passes(rtc) &&
			second_ns(rtc) - (rtc->synced - rtc->origin) % second_ns(rtc) <= UPDATE_NS;

	return (uint8_t)(rtc->cmos[REGISTER_A] | (updating ? A_UIP : 0));
}

static uint8_t read_register(struct rtc *rtc, unsigned index)
{
	uint8_t value = rtc->cmos[index];

	switch (index) {
	case REGISTER_A: return read_a(rtc);
	case REGISTER_C: rtc->cmos[REGISTER_C] = 0; return value;
	case REGISTER_D: return D_VRT;
	default: return value;
	}
}

static void write_register(struct rtc *rtc, unsigned index, uint8_t value)
{
	switch (index) {
	case REGISTER_A: write_a(rtc, value); break;
	case REGISTER_B: write_b(rtc, value); break;
	case REGISTER_C: /* read-only */
	case REGISTER_D: break;
	case SECONDS:
	case MINUTES:
	case HOURS:
	case DAY:
	case MONTH:
	case YEAR:
	case RTC_CENTURY:
		rtc->cmos[index] = value;
		set_time(rtc);
		break;
	default: rtc->cmos[index] = value; break;
	}
}

static uint64_t rtc_read(void *device, uint64_t offset, unsigned size)
{
	struct rtc *rtc = device;
	uint8_t value;

	(void)size;
	if (offset == 0)
		return 0xff;
	sync(rtc);
	value = read_register(rtc, rtc->index & INDEX);
	if ((rtc->index & INDEX) == REGISTER_C || rtc->timer.at <= rtc->synced)
		update(rtc);
	return value;
}

static void rtc_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct rtc *rtc = device;

	(void)size;
	if (offset == 0) {
		rtc->index = (uint8_t)value;
		return;
	}
	sync(rtc);
	write_register(rtc, rtc->index & INDEX, (uint8_t)value);
	update(rtc);
}

static const struct bus_ops rtc_ops = {.name = "RTC", .width = 1, .read = rtc_read, .write = rtc_write};

int rtc_attach(struct rtc *rtc, struct bus *bus)
{
	rtc->bus = bus;
	return bus_claim_ports(bus, RTC_PORT, 2, &rtc_ops, rtc);
}

void rtc_set(struct rtc *rtc, unsigned at, uint8_t value) { rtc->cmos[at] = value; }

bool rtc_nmi_masked(const struct rtc *rtc) { return rtc->index & INDEX_NMI; }

/* ---- life ---- */

static void put16(struct rtc *rtc, unsigned at, uint64_t value)
{
	value = value > 0xffff ? 0xffff : value;
	rtc->cmos[at] = (uint8_t)value;
	rtc->cmos[at + 1] = (uint8_t)(value >> 8);
}

/* What a PC's firmware leaves in CMOS, as far as it is true here: sizes and counts; no drives. */
static void describe_machine(struct rtc *rtc, const struct rtc_config *config)
{
	uint64_t above_1m = config->memory > 1 << 20 ? config->memory - (1 << 20) : 0;
	uint64_t above_16m = config->memory > 16 << 20 ? config->memory - (16 << 20) : 0;
	unsigned sum = 0;

	rtc->cmos[0x14] = 0x02; /* equipment: an x87 */
	put16(rtc, 0x15, 640);
	put16(rtc, 0x17, above_1m >> 10);
	put16(rtc, 0x30, above_1m >> 10);
	put16(rtc, 0x34, above_16m >> 16);
	for (unsigned i = 0; i < 3; i++)
		rtc->cmos[0x5b + i] = (uint8_t)(config->above >> (16 + 8 * i));
	rtc->cmos[0x5f] = (uint8_t)(config->cpus - 1);
	for (unsigned i = 0x10; i <= 0x2d; i++)
		sum += rtc->cmos[i];
	rtc->cmos[0x2e] = (uint8_t)(sum >> 8);
	rtc->cmos[0x2f] = (uint8_t)sum;
}

bool rtc_init(struct rtc *rtc, const struct rtc_config *config, struct clock *clock)
{
	rtc->clock = clock;
	if (!clock_add(clock, &rtc->timer, fired, rtc))
		return false;
	memset(rtc->cmos, 0, sizeof(rtc->cmos));
	rtc->cmos[REGISTER_A] = DIVIDER_RUN | 6; /* 1024 Hz, as a PC's firmware leaves it */
	rtc->cmos[REGISTER_B] = B_24H;
	rtc->base = (uint64_t)config->start;
	rtc->synced = clock_now(clock);
	rtc->cmos[WEEKDAY] = encode(rtc, date_from_seconds(seconds_at(rtc, rtc->synced)).weekday);
	write_registers(rtc, seconds_at(rtc, rtc->synced));
	describe_machine(rtc, config);
	return true;
}

void rtc_reset(struct rtc *rtc)
{
	sync(rtc);
	rtc->cmos[REGISTER_B] &= (uint8_t) ~(B_ENABLES | B_SQWE);
	rtc->cmos[REGISTER_C] = 0;
	rtc->index = 0;
	update(rtc);
}
