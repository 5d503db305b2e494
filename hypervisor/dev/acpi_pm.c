#include "dev/acpi_pm.h"

#include <string.h>

#define STATUS_TIMER   0x0001u
#define STATUS_GLOBAL  0x0020u
#define STATUS_BUTTON  0x0100u
#define STATUS_RTC     0x0400u
#define STATUS_WAKE    0x8000u /* has no enable */
#define STATUS_DEFINED (ENABLE_DEFINED | STATUS_WAKE)
#define ENABLE_DEFINED (STATUS_TIMER | STATUS_GLOBAL | STATUS_BUTTON | STATUS_RTC)
#define CONTROL_SCI    0x0001u
#define CONTROL_BM_RLD 0x0002u
#define CONTROL_TYPE   0x1c00u
#define CONTROL_SHIFT  10
#define CONTROL_SLEEP  0x2000u /* SLP_EN: reads as zero */

#define TIMER_MASK 0xffffffu
#define TIMER_HALF 23 /* TMR_STS is set whenever this bit changes */

/* The PCI function's own registers (82371AB, 7.2). */
#define VENDOR_INTEL 0x8086u
#define DEVICE_PIIX4 0x7113u
#define CLASS_BRIDGE 0x068000u
#define REVISION     3u
#define PCI_NUMBER   3u
#define RED_HAT      0x1af4u
#define QEMU_PC      0x1100u
#define PMBA         0x40u /* bits 15:6 place the ports; bit 0: they are ports */
#define PMBA_MASK    0xffc0u
#define DEVACTB      0x58u
#define DEVACTB_APMC 0x02u /* of its byte 3 */
#define PMREGMISC    0x80u
#define PMREGMISC_ON 0x01u
#define SMBBA        0x90u
#define SMBHSTCFG    0xd2u

static const struct state_field fields[] = {
	STATE(struct acpi_pm, status),  STATE(struct acpi_pm, enable),
	STATE(struct acpi_pm, control), STATE(struct acpi_pm, apm),
	STATE(struct acpi_pm, line),    STATE(struct acpi_pm, asleep),
	STATE(struct acpi_pm, synced),  PCI_FUNCTION_STATE(struct acpi_pm, function),
};

/* ---- the timer: it counts from the machine's beginning and cannot be set ---- */

static uint64_t ticks_at(uint64_t ns)
{
	return (uint64_t)((unsigned __int128)ns * ACPI_PM_TIMER_HZ / 1000000000u);
}

/* The first nanosecond at which @ticks have been counted. */
static uint64_t time_of(uint64_t ticks)
{
	return (uint64_t)(((unsigned __int128)ticks * 1000000000u + ACPI_PM_TIMER_HZ - 1) / ACPI_PM_TIMER_HZ);
}

static void sync(struct acpi_pm *pm)
{
	uint64_t now = clock_now(pm->clock);

	if (ticks_at(now) >> TIMER_HALF != ticks_at(pm->synced) >> TIMER_HALF)
		pm->status |= STATUS_TIMER;
	pm->synced = now;
}

/* TMR_STS is armed for only while it would interrupt and is not set yet. */
static void arm(struct acpi_pm *pm)
{
	uint64_t next = ((ticks_at(pm->synced) >> TIMER_HALF) + 1) << TIMER_HALF;
	bool wanted = (pm->enable & ~pm->status & STATUS_TIMER) && (pm->control & CONTROL_SCI);

	clock_arm(&pm->timer, wanted ? time_of(next) : CLOCK_NEVER);
}

static void update(struct acpi_pm *pm)
{
	bool raised = (pm->status & pm->enable) && (pm->control & CONTROL_SCI);

	if (raised != pm->line) {
		pm->line = raised;
		if (pm->interrupt)
			pm->interrupt(pm->owner, raised);
	}
	arm(pm);
}

static void fired(void *owner, uint64_t due)
{
	(void)due;
	sync(owner);
	update(owner);
}

static void loaded(void *device) { arm(device); }
STATE_TABLE(acpi_pm_state, "acpi", 2, fields, loaded);

/* ---- registers: bytes of a little-endian whole ---- */

static uint64_t merge(uint64_t old, uint64_t offset, unsigned size, uint64_t value)
{
	uint64_t mask = (~0ull >> (64 - 8 * size)) << (8 * offset);

	return (old & ~mask) | (value << (8 * offset) & mask);
}

static uint64_t event_read(void *device, uint64_t offset, unsigned size)
{
	struct acpi_pm *pm = device;

	(void)size;
	sync(pm);
	return ((uint64_t)pm->enable << 16 | pm->status) >> (8 * offset);
}

static void event_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct acpi_pm *pm = device;
	uint64_t whole;

	sync(pm);
	whole = merge((uint64_t)pm->enable << 16, offset, size, value);
	pm->status &= (uint16_t) ~(whole & STATUS_DEFINED);
	pm->enable = (uint16_t)(whole >> 16) & ENABLE_DEFINED;
	update(pm);
}

static uint64_t control_read(void *device, uint64_t offset, unsigned size)
{
	const struct acpi_pm *pm = device;

	(void)size;
	return (uint64_t)pm->control >> (8 * offset);
}

/* An event that is there already ends the sleep as it begins. */
static void wake_on_event(struct acpi_pm *pm)
{
	if (!pm->asleep || !(pm->status & pm->enable & STATUS_RTC))
		return;
	pm->asleep = false;
	if (pm->wake)
		pm->wake(pm->owner);
}

static void sleep(struct acpi_pm *pm, const struct bus_access *access)
{
	switch ((pm->control & CONTROL_TYPE) >> CONTROL_SHIFT) {
	case ACPI_SLEEP_OFF:
	case ACPI_SLEEP_S4: pm->power_off(pm->owner); break;
	case ACPI_SLEEP_S3:
		pm->asleep = true;
		if (pm->sleep)
			pm->sleep(pm->owner);
		wake_on_event(pm);
		break;
	default: bus_refuse(pm->bus, access); break;
	}
}

void acpi_pm_rtc(struct acpi_pm *pm, bool raised)
{
	if (!raised)
		return;
	sync(pm);
	pm->status |= STATUS_RTC;
	wake_on_event(pm);
	update(pm);
}

void acpi_pm_button(struct acpi_pm *pm)
{
	sync(pm);
	pm->status |= STATUS_BUTTON;
	update(pm);
}

void acpi_pm_woken(struct acpi_pm *pm) { pm->status = STATUS_WAKE | STATUS_RTC; }

/* SCI_EN is the APM port's alone (a PIIX4 lets software write it; ACPI 4.8.3.2.1 does not). */
static void control_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct acpi_pm *pm = device;
	struct bus_access access = {.port = true,
				    .write = true,
				    .address = (pci_config16(&pm->function, PMBA) & PMBA_MASK) +
					       ACPI_PM1_CONTROL - ACPI_PM_PORTS + offset,
				    .size = size,
				    .value = value};
	uint16_t whole = (uint16_t)merge(pm->control, offset, size, value);

	pm->control = (uint16_t)((pm->control & CONTROL_SCI) | (whole & (CONTROL_TYPE | CONTROL_BM_RLD)));
	if (whole & CONTROL_SLEEP)
		sleep(pm, &access);
}

static uint64_t timer_read(void *device, uint64_t offset, unsigned size)
{
	const struct acpi_pm *pm = device;

	(void)size;
	return (ticks_at(clock_now(pm->clock)) & TIMER_MASK) >> (8 * offset);
}

static void timer_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
	/* Read-only (ACPI 4.8.3.3). */
	(void)device;
	(void)offset;
	(void)size;
	(void)value;
}

static uint64_t apm_read(void *device, uint64_t offset, unsigned size)
{
	const struct acpi_pm *pm = device;

	(void)size;
	return pm->apm[offset];
}

static void apm_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct acpi_pm *pm = device;

	(void)size;
	pm->apm[offset] = (uint8_t)value;
	if (offset)
		return;
	sync(pm);
	if (value == ACPI_APM_ENABLE)
		pm->control |= CONTROL_SCI;
	else if (value == ACPI_APM_DISABLE)
		pm->control &= (uint16_t)~CONTROL_SCI;
	update(pm);
	if (pm->smi && pm->function.config[DEVACTB + 3] & DEVACTB_APMC)
		pm->smi(pm->owner);
}

static const struct bus_ops event_ops = {
	.name = "PM1 event", .width = 4, .read = event_read, .write = event_write};
static const struct bus_ops control_ops = {
	.name = "PM1 control", .width = 2, .read = control_read, .write = control_write};
static const struct bus_ops timer_ops = {
	.name = "PM timer", .width = 4, .read = timer_read, .write = timer_write};
static const struct bus_ops apm_ops = {
	.name = "APM control", .width = 1, .read = apm_read, .write = apm_write};

/* ---- the PCI function ---- */

static bool decode(void *owner, const struct bus_access *access, struct bus_range *range)
{
	static const struct {
		uint8_t first, count;
		const struct bus_ops *ops;
	} blocks[] = {{ACPI_PM1_EVENT - ACPI_PM_PORTS, 4, &event_ops},
		      {ACPI_PM1_CONTROL - ACPI_PM_PORTS, 2, &control_ops},
		      {ACPI_PM_TIMER - ACPI_PM_PORTS, 4, &timer_ops}};
	struct acpi_pm *pm = owner;
	uint64_t base = pci_config16(&pm->function, PMBA) & PMBA_MASK;

	if (!access->port || base == 0 || !(pm->function.config[PMREGMISC] & PMREGMISC_ON))
		return false;
	for (unsigned i = 0; i < sizeof(blocks) / sizeof(blocks[0]); i++)
		if (access->address - base - blocks[i].first < blocks[i].count) {
			*range = (struct bus_range){base + blocks[i].first, blocks[i].count, blocks[i].ops,
						    pm};
			return true;
		}
	return false;
}

static void put16(uint8_t *at, unsigned value)
{
	at[0] = (uint8_t)value;
	at[1] = (uint8_t)(value >> 8);
}

static void make_function(struct acpi_pm *pm)
{
	struct pci_function *function = &pm->function;

	pci_function_init(function, VENDOR_INTEL, DEVICE_PIIX4, CLASS_BRIDGE, REVISION);
	put16(function->config + PCI_SUBSYSTEM_VENDOR, RED_HAT);
	put16(function->config + PCI_SUBSYSTEM, QEMU_PC);
	function->config[PCI_INTERRUPT_PIN] = 1; /* which leads to the SCI, whatever this says */
	function->config[PCI_INTERRUPT_LINE] = ACPI_SCI;
	function->config[PMBA] = function->config[SMBBA] = 1;
	put16(function->mask + PMBA, PMBA_MASK);
	memset(function->mask + DEVACTB, 0xff, 4);
	function->mask[PMREGMISC] = PMREGMISC_ON;
	put16(function->mask + SMBBA, 0xfff0);
	function->mask[SMBHSTCFG] = 0x0f;
	function->owner = pm;
	function->decode = decode;
}

int acpi_pm_attach(struct acpi_pm *pm, struct pci *pci, struct bus *bus)
{
	int error = bus_claim_ports(bus, ACPI_APM_PORT, 2, &apm_ops, pm);

	pm->bus = bus;
	make_function(pm);
	return error ? error : pci_add_beside(pci, &pm->function, &pci->isa_bridge, PCI_NUMBER);
}

void acpi_pm_without_smi(struct acpi_pm *pm)
{
	pm->smi = NULL;
	pm->function.mask[DEVACTB + 3] &= (uint8_t)~DEVACTB_APMC;
	pm->function.config[DEVACTB + 3] |= DEVACTB_APMC;
}

void acpi_pm_firmware(struct acpi_pm *pm)
{
	put16(pm->function.config + PMBA, ACPI_PM_PORTS | 1);
	pm->function.config[PMREGMISC] |= PMREGMISC_ON;
}

/* ---- life ---- */

bool acpi_pm_init(struct acpi_pm *pm, struct clock *clock)
{
	pm->clock = clock;
	if (!clock_add(clock, &pm->timer, fired, pm))
		return false;
	acpi_pm_reset(pm);
	return true;
}

void acpi_pm_reset(struct acpi_pm *pm)
{
	pci_function_reset(&pm->function);
	pm->status = pm->enable = pm->control = 0;
	pm->apm[0] = pm->apm[1] = 0;
	pm->asleep = false;
	pm->synced = clock_now(pm->clock);
	update(pm);
}
