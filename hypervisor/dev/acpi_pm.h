/*
 * acpi_pm.h: the power management function of a PIIX4 (Intel 82371AB, sections 7 and 11): the fixed hardware
 * of ACPI (ACPI 6.4, section 4.8: PM1a event block, PM1a control block, the 24-bit power management timer) at
 * ports that its PCI function places, and the APM control port, which switches between legacy and ACPI mode and
 * raises an SMI where the function's DEVACTB says so.
 *
 * There is neither a power button nor a sleep button, and the FADT says so: of the status bits, the timer's, the
 * global lock's, the real-time clock's and the wake status are there. SLP_TYP 0 is soft off and 1 is S3, out
 * of which the real-time clock wakes the machine, where PM1 enables that; 2, S4, is off as well, as what it
 * leaves is on a disk. Others are refused on the bus. The SMBus has no devices and does not answer.
 */
#ifndef TRAPLINE_DEV_ACPI_PM_H
#define TRAPLINE_DEV_ACPI_PM_H

#include "chip/clock.h"
#include "dev/bus.h"
#include "dev/pci.h"
#include "dev/state.h"

#define ACPI_PM_PORTS    0x600 /* where firmware puts them */
#define ACPI_PM1_EVENT   0x600 /* status, then enable: 2 bytes each */
#define ACPI_PM1_CONTROL 0x604
#define ACPI_PM_TIMER    0x608
#define ACPI_PM_TIMER_HZ 3579545u
#define ACPI_APM_PORT    0xb2 /* FADT.SMI_CMD; 0xb3 is APM status, a byte for software */
#define ACPI_APM_ENABLE  0xf1
#define ACPI_APM_DISABLE 0xf0
#define ACPI_SCI         9
#define ACPI_SLEEP_OFF   0 /* SLP_TYP of \_S5 */
#define ACPI_SLEEP_S3    1
#define ACPI_SLEEP_S4    2

struct acpi_pm {
	uint16_t status, enable, control;
	uint8_t apm[2];
	uint8_t line;
	uint8_t asleep;  /* in S3 */
	uint64_t synced; /* up to when TMR_STS is made */

	struct pci_function function; /* part of the state, too */
	struct clock *clock;
	struct clock_timer timer;
	struct bus *bus;
	void *owner;
	void (*interrupt)(void *owner, bool raised); /* SCI */
	void (*power_off)(void *owner);
	/* S3 begins; ends. The processors must run no instruction in between. */
	void (*sleep)(void *owner);
	void (*wake)(void *owner);
	void (*smi)(void *owner); /* a write to the APM control port, with DEVACTB.APMC_EN */
};

extern const struct state_table acpi_pm_state;

/* @pm was zero but for the callbacks. False: the clock has no room. */
bool acpi_pm_init(struct acpi_pm *pm, struct clock *clock);
void acpi_pm_reset(struct acpi_pm *pm);
/* A board without SMIs: DEVACTB says that firmware has switched them on already, as QEMU's does with smm=off, so that
 * none does. */
void acpi_pm_without_smi(struct acpi_pm *pm);
/* What firmware does: the ports are at ACPI_PM_PORTS. */
void acpi_pm_firmware(struct acpi_pm *pm);
/* The real-time clock's interrupt: its rise is an event. */
void acpi_pm_rtc(struct acpi_pm *pm, bool raised);
/* The power button was pressed: an event. It does not end a sleep. */
void acpi_pm_button(struct acpi_pm *pm);
/* Behind the RESET with which the machine comes out of S3: the status says what woke it. */
void acpi_pm_woken(struct acpi_pm *pm);
/* Function 3 of the ISA bridge's slot. As bus_claim_ports() and pci_add(). */
int acpi_pm_attach(struct acpi_pm *pm, struct pci *pci, struct bus *bus);

#endif
