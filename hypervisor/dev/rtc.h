/*
 * rtc.h: the real-time clock and CMOS memory of a PC, at ports 0x70 and 0x71: an MC146818A with 128 bytes, as
 * the PIIX4 has it (Motorola MC146818A data sheet; Intel 82371AB, section 2.6).
 *
 * The time is the machine's clock counted from a start date, so that under virtual time every run sees the
 * same. Flags of register C are made when someone looks: a timer is armed only for an interrupt that is
 * enabled.
 *
 * The update cycle ends on the second: UIP is 1 for the 1984 us of the cycle and the 244 us before it, and
 * the time registers step when it ends. The crystal runs at 32768 Hz whatever register A selects, so a
 * divider for another crystal makes the clock slow, as it does on the board; the test dividers (011, 100,
 * 101) are not modelled and refused on the bus. Port 0x70 is write-only and reads as ones.
 */
#ifndef TRAPLINE_DEV_RTC_H
#define TRAPLINE_DEV_RTC_H

#include "chip/clock.h"
#include "dev/bus.h"
#include "dev/state.h"

#define RTC_PORT     0x70
#define RTC_CMOS     128u
#define RTC_CENTURY  0x32 /* where the century is: what FADT.CENTURY says */
#define RTC_SHUTDOWN 0x0f /* shutdown status byte */
#define RTC_SHUTDOWN_S3 0xfe /* in it, as SeaBIOS knows it: the machine comes out of S3 */

/* The start date unless the user sets another: 2026-01-01 00:00:00 UTC, in seconds since 1970. */
#define RTC_START_DEFAULT 1767225600

struct rtc {
	uint8_t index; /* as written to 0x70: bit 7 masks NMIs */
	uint8_t cmos[RTC_CMOS];
	uint64_t origin;    /* time when the divider chain began at 0 (modulo 2^64) */
	uint64_t base;      /* while time passes: seconds since 1970 when the chain began (modulo 2^64) */
	uint64_t synced;    /* up to when the flags of register C are made */
	uint64_t fell_back; /* year whose second 02:00 on the last Sunday of October must pass (DSE) */
	uint8_t line;       /* level of the interrupt line */

	struct clock *clock;
	struct clock_timer timer;
	struct bus *bus;
	void *owner;
	void (*interrupt)(void *owner, bool raised); /* IRQ 8 */
};

extern const struct state_table rtc_state;

/* What CMOS says of the machine. */
struct rtc_config {
	int64_t start;   /* time at the clock's 0, in seconds since 1970 */
	uint64_t memory; /* bytes of RAM below 4 GiB */
	uint64_t above;  /* bytes of RAM from 4 GiB */
	unsigned cpus;
};

/* Battery fresh: the time and the memory sizes in place. @rtc was zero but for owner and interrupt. False:
 * the clock has no room. */
bool rtc_init(struct rtc *rtc, const struct rtc_config *config, struct clock *clock);
/* The RESET pin: interrupts are disabled and their flags clear; time and memory stay. */
void rtc_reset(struct rtc *rtc);
/* A byte of CMOS memory behind the clock's registers. */
void rtc_set(struct rtc *rtc, unsigned at, uint8_t value);
/* Bit 7 of port 0x70: NMIs do not reach the processor. */
bool rtc_nmi_masked(const struct rtc *rtc);
/* As bus_claim_ports(). */
int rtc_attach(struct rtc *rtc, struct bus *bus);

/* Seconds since 1970 of a date (proleptic Gregorian calendar; month and day from 1), and whether there is
 * such a day. */
bool rtc_seconds(int64_t year, unsigned month, unsigned day, unsigned hour, unsigned minute, unsigned second,
		 int64_t *seconds);

#endif
