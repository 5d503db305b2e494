#include "dev/acpi_pm.h"

#define STATUS_TIMER   0x0001u
#define STATUS_GLOBAL  0x0020u
#define STATUS_DEFINED (STATUS_TIMER | STATUS_GLOBAL)
#define CONTROL_SCI    0x0001u
#define CONTROL_BM_RLD 0x0002u
#define CONTROL_TYPE   0x1c00u
#define CONTROL_SHIFT  10
#define CONTROL_SLEEP  0x2000u /* SLP_EN: reads as zero */

#define TIMER_MASK 0xffffffu
#define TIMER_HALF 23 /* TMR_STS is set whenever this bit changes */

static const struct state_field fields[] = {
	STATE(struct acpi_pm, status), STATE(struct acpi_pm, enable), STATE(struct acpi_pm, control),
	STATE(struct acpi_pm, apm),    STATE(struct acpi_pm, line),   STATE(struct acpi_pm, synced),
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
STATE_TABLE(acpi_pm_state, "acpi", 1, fields, loaded);

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
	pm->enable = (uint16_t)(whole >> 16) & STATUS_DEFINED;
	update(pm);
}

static uint64_t control_read(void *device, uint64_t offset, unsigned size)
{
	const struct acpi_pm *pm = device;

	(void)size;
	return (uint64_t)pm->control >> (8 * offset);
}

static void sleep(struct acpi_pm *pm, const struct bus_access *access)
{
	if ((pm->control & CONTROL_TYPE) >> CONTROL_SHIFT == ACPI_SLEEP_OFF)
		pm->power_off(pm->owner);
	else if (pm->bus)
		bus_refuse(pm->bus, access);
}

/* SCI_EN is the APM port's alone (a PIIX4 lets software write it; ACPI 4.8.3.2.1 does not). */
static void control_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct acpi_pm *pm = device;
	struct bus_access access = {.port = true,
				    .write = true,
				    .address = ACPI_PM1_CONTROL + offset,
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
	if (pm->smi)
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

int acpi_pm_attach(struct acpi_pm *pm, struct bus *bus)
{
	int error = bus_claim_ports(bus, ACPI_PM1_EVENT, 4, &event_ops, pm);

	pm->bus = bus;
	if (!error)
		error = bus_claim_ports(bus, ACPI_PM1_CONTROL, 2, &control_ops, pm);
	if (!error)
		error = bus_claim_ports(bus, ACPI_PM_TIMER, 4, &timer_ops, pm);
	return error ? error : bus_claim_ports(bus, ACPI_APM_PORT, 2, &apm_ops, pm);
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
	pm->status = pm->enable = pm->control = 0;
	pm->apm[0] = pm->apm[1] = 0;
	pm->synced = clock_now(pm->clock);
	update(pm);
}
