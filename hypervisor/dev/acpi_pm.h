/*
 * acpi_pm.h: the fixed hardware of ACPI (ACPI 6.4, section 4.8), at the ports that a PIIX4 has under QEMU's
 * firmware: PM1a event block, PM1a control block, the 24-bit power management timer, and the APM control port
 * that switches between legacy and ACPI mode (Intel 82371AB, sections 7 and 11).
 *
 * There is neither a power button nor a sleep button nor a real-time clock event in these registers, and the
 * FADT says so: of the status bits, only the timer's and the global lock's are there. Soft off is SLP_TYP 0;
 * any other sleep state is not offered and refused on the bus.
 */
#ifndef TRAPLINE_DEV_ACPI_PM_H
#define TRAPLINE_DEV_ACPI_PM_H

#include "chip/clock.h"
#include "dev/bus.h"
#include "dev/state.h"

#define ACPI_PM1_EVENT   0x600 /* status, then enable: 2 bytes each */
#define ACPI_PM1_CONTROL 0x604
#define ACPI_PM_TIMER    0x608
#define ACPI_PM_TIMER_HZ 3579545u
#define ACPI_APM_PORT    0xb2 /* FADT.SMI_CMD; 0xb3 is APM status, a byte for software */
#define ACPI_APM_ENABLE  0xf1
#define ACPI_APM_DISABLE 0xf0
#define ACPI_SCI         9
#define ACPI_SLEEP_OFF   0 /* SLP_TYP of \_S5 */

struct acpi_pm {
	uint16_t status, enable, control;
	uint8_t apm[2];
	uint8_t line;
	uint64_t synced; /* up to when TMR_STS is made */

	struct clock *clock;
	struct clock_timer timer;
	struct bus *bus;
	void *owner;
	void (*interrupt)(void *owner, bool raised); /* SCI */
	void (*power_off)(void *owner);
	/* A write to the APM control port asks for an SMI, which the processor takes once the APIC delivers
	 * one. May be NULL: then the port switches ACPI mode and nothing else. */
	void (*smi)(void *owner);
};

extern const struct state_table acpi_pm_state;

/* @pm was zero but for the callbacks. False: the clock has no room. */
bool acpi_pm_init(struct acpi_pm *pm, struct clock *clock);
void acpi_pm_reset(struct acpi_pm *pm);
/* As bus_claim_ports(). */
int acpi_pm_attach(struct acpi_pm *pm, struct bus *bus);

#endif
