#include "vm/platform.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dev/absent.h"
#include "dev/mptable.h"
#include "dev/pci.h"
#include "vm/memory_map.h"

/* ---- lines ---- */

static void line_changed(void *owner, unsigned line, bool raised)
{
	struct platform *platform = owner;

	platform->config.interrupt(platform->config.owner, line, raised);
}

static void pit_line(void *owner, bool level)
{
	interrupt_lines_set(&((struct platform *)owner)->lines, LINE_PIT, 0, level);
}

static void rtc_line(void *owner, bool raised)
{
	struct platform *platform = owner;

	interrupt_lines_set(&platform->lines, LINE_RTC, 8, raised);
	acpi_pm_rtc(&platform->pm, raised);
}

static void hpet_line(void *owner, unsigned input, bool raised)
{
	interrupt_lines_set(&((struct platform *)owner)->lines, LINE_HPET, input, raised);
}

static void hpet_legacy(void *owner, bool replaced)
{
	struct platform *platform = owner;

	interrupt_lines_cut(&platform->lines, LINE_PIT, replaced);
	interrupt_lines_cut(&platform->lines, LINE_RTC, replaced);
}

static void sci_line(void *owner, bool raised)
{
	interrupt_lines_set(&((struct platform *)owner)->lines, LINE_SCI, ACPI_SCI, raised);
}

static void keyboard_line(void *owner, unsigned irq, bool raised)
{
	interrupt_lines_set(&((struct platform *)owner)->lines, LINE_KEYBOARD, irq, raised);
}

static void test_line(void *owner, unsigned gsi, bool raised)
{
	interrupt_lines_set(&((struct platform *)owner)->lines, LINE_TEST, gsi, raised);
}

/* ---- reset and power ---- */

static void reset_asked(void *owner)
{
	struct platform *platform = owner;

	platform->config.reset_asked(platform->config.owner);
}

static void power_off(void *owner)
{
	struct platform *platform = owner;

	platform->config.power_off(platform->config.owner);
}

static void sleep(void *owner)
{
	struct platform *platform = owner;

	platform->config.sleep(platform->config.owner);
}

static void wake(void *owner)
{
	struct platform *platform = owner;

	platform->config.wake(platform->config.owner);
}

static void smi(void *owner)
{
	struct platform *platform = owner;

	platform->config.smi(platform->config.owner);
}

/* ---- what firmware is told ---- */

static unsigned pci_irq(unsigned slot, unsigned pin) { return PCI_IRQ(slot, pin); }

/* etc/e820: address, length and type of each range. */
static size_t make_e820(struct platform *platform)
{
	struct memory_range range[MEMORY_RANGES_MAX];
	unsigned count = memory_map(platform->config.memory, 0, range);
	uint8_t *to = platform->e820;

	for (unsigned i = 0; i < count; i++, to += 20) {
		uint64_t length = range[i].end - range[i].base;
		uint32_t type = range[i].type;

		memcpy(to, &range[i].base, 8);
		memcpy(to + 8, &length, 8);
		memcpy(to + 16, &type, 4);
	}
	return (size_t)(to - platform->e820);
}

static int make_fw_cfg(struct platform *platform)
{
	struct fw_cfg *fw_cfg = &platform->fw_cfg;
	struct acpi *acpi = &platform->acpi;
	struct acpi_config config = {.cpus = platform->config.vcpus,
				     .hpet = platform->config.hpet,
				     .pci_memory = MEMORY_LOW_MAX,
				     .pci_irq = pci_irq};
	int error;

	fw_cfg_init(fw_cfg, platform->config.memory, platform->config.vcpus, platform->config.vcpus,
		    &platform->dma);
	if (!acpi_make(acpi, &config))
		return -ENOSPC;
	error = fw_cfg_add_file(fw_cfg, "etc/acpi/rsdp", acpi->rsdp, ACPI_RSDP_SIZE);
	if (!error)
		error = fw_cfg_add_file(fw_cfg, "etc/acpi/tables", acpi->tables, acpi->size);
	if (!error)
		error = fw_cfg_add_file(fw_cfg, "etc/table-loader", acpi->loader,
					acpi->commands * sizeof(acpi->loader[0]));
	return error ? error : fw_cfg_add_file(fw_cfg, "etc/e820", platform->e820, make_e820(platform));
}

void platform_firmware(struct platform *platform) { acpi_pm_firmware(&platform->pm); }

/* FACS (ACPI 5.2.10): where real mode goes on. */
uint32_t platform_waking_vector(const struct platform *platform)
{
	const uint8_t *vector = platform->dma.read(platform->dma.owner, ACPI_BASE + acpi_waking_vector(&platform->acpi), 4);
	uint32_t value;

	memcpy(&value, vector, 4);
	return value;
}

void platform_woken(struct platform *platform)
{
	rtc_set(&platform->rtc, RTC_SHUTDOWN, RTC_SHUTDOWN_S3);
	acpi_pm_woken(&platform->pm);
}

void platform_place_tables(struct platform *platform)
{
	const struct mptable_config mp = {.cpus = platform->config.vcpus, .pci_irq = pci_irq};
	uint8_t image[ACPI_SIZE_MAX + 64];

	acpi_place(&platform->acpi, ACPI_BASE, image);
	platform->dma.write(platform->dma.owner, ACPI_BASE, image, acpi_size(&platform->acpi));
	platform->dma.write(platform->dma.owner, MPTABLE_BASE, image, mptable_make(&mp, MPTABLE_BASE, image));
}

/* Copies bytes behind those of an item already there; returns them and what is behind. */
static uint8_t *keep(uint8_t **room, const void *from, size_t size)
{
	uint8_t *kept = *room;

	if (size)
		memcpy(kept, from, size);
	*room += size;
	return kept;
}

int platform_describe_boot(struct platform *platform, const struct platform_boot *boot)
{
	struct fw_cfg *fw_cfg = &platform->fw_cfg;
	const char *append = boot->append ? boot->append : "";
	size_t text = strlen(append) + 1;
	uint8_t *room = malloc(boot->kernel_size + boot->initrd_size + text);

	if (!room)
		return -ENOMEM;
	platform_free(platform);
	platform->boot = room;
	fw_cfg_set(fw_cfg, FW_CFG_KERNEL_DATA, keep(&room, boot->kernel, boot->kernel_size),
		   boot->kernel_size);
	fw_cfg_set_number(fw_cfg, FW_CFG_KERNEL_SIZE, boot->kernel_size, 4);
	fw_cfg_set(fw_cfg, FW_CFG_INITRD_DATA, keep(&room, boot->initrd, boot->initrd_size),
		   boot->initrd_size);
	fw_cfg_set_number(fw_cfg, FW_CFG_INITRD_SIZE, boot->initrd_size, 4);
	fw_cfg_set(fw_cfg, FW_CFG_CMDLINE_DATA, keep(&room, append, text), text);
	fw_cfg_set_number(fw_cfg, FW_CFG_CMDLINE_SIZE, text, 4);
	return 0;
}

void platform_free(struct platform *platform)
{
	free(platform->boot);
	platform->boot = NULL;
}

/* ---- the PIT, which knows no bus ---- */

static uint64_t pit_port_read(void *device, uint64_t offset, unsigned size)
{
	struct pit_ports *ports = device;

	(void)size;
	return pit_read(ports->pit, (uint16_t)(ports->first + offset));
}

static void pit_port_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct pit_ports *ports = device;

	(void)size;
	pit_write(ports->pit, (uint16_t)(ports->first + offset), (uint8_t)value);
}

static int claim_pit(struct platform *platform, struct bus *bus)
{
	static const struct bus_ops ops = {
		.name = "PIT", .width = 1, .read = pit_port_read, .write = pit_port_write};
	int error;

	platform->pit_ports[0] = (struct pit_ports){&platform->pit, PIT_COUNTER0};
	platform->pit_ports[1] = (struct pit_ports){&platform->pit, PIT_PORT61};
	error = bus_claim_ports(bus, PIT_COUNTER0, 4, &ops, &platform->pit_ports[0]);
	return error ? error : bus_claim_ports(bus, PIT_PORT61, 1, &ops, &platform->pit_ports[1]);
}

/* ---- life ---- */

static void set_owners(struct platform *p)
{
	p->lines.owner = p->rtc.owner = p->hpet.owner = p->pm.owner = p->i8042.owner = p->testdev.owner = p;
	p->lines.changed = line_changed;
	p->rtc.interrupt = rtc_line;
	p->hpet.interrupt = hpet_line;
	p->hpet.legacy = hpet_legacy;
	p->pm.interrupt = sci_line;
	p->pm.power_off = power_off;
	p->pm.sleep = sleep;
	p->pm.wake = wake;
	p->pm.smi = smi;
	p->i8042.interrupt = keyboard_line;
	p->i8042.reset_asked = reset_asked;
	p->testdev.interrupt = test_line;
}

static bool make_devices(struct platform *platform, struct clock *clock)
{
	const struct platform_config *config = &platform->config;
	struct rtc_config rtc = {.start = config->rtc_start,
				 .memory = memory_low(config->memory),
				 .above = config->memory - memory_low(config->memory),
				 .cpus = config->vcpus};

	i8042_reset(&platform->i8042);
	i8237_reset(&platform->i8237);
	return pit_init(&platform->pit, clock, pit_line, platform) && rtc_init(&platform->rtc, &rtc, clock) &&
	       acpi_pm_init(&platform->pm, clock) && (!config->hpet || hpet_init(&platform->hpet, clock));
}

static int claim(struct platform *platform, struct bus *bus)
{
	int error = claim_pit(platform, bus);

	if (!error)
		error = rtc_attach(&platform->rtc, bus);
	if (!error)
		error = acpi_pm_attach(&platform->pm, platform->config.pci, bus);
	if (!error && platform->config.hpet)
		error = hpet_attach(&platform->hpet, bus);
	if (!error)
		error = i8042_attach(&platform->i8042, bus);
	if (!error)
		error = i8237_attach(&platform->i8237, bus);
	if (!error)
		error = fw_cfg_attach(&platform->fw_cfg, bus);
	if (!error)
		error = testdev_attach(&platform->testdev, bus);
	return error ? error : absent_attach(bus);
}

int platform_attach(struct platform *platform, const struct platform_config *config, const struct dma *dma,
		    struct clock *clock, struct bus *bus)
{
	int error;

	platform->config = *config;
	platform->dma = *dma;
	set_owners(platform);
	if (!make_devices(platform, clock))
		return -ENOSPC;
	error = make_fw_cfg(platform);
	return error ? error : claim(platform, bus);
}

void platform_reset(struct platform *platform)
{
	pit_reset(&platform->pit);
	rtc_reset(&platform->rtc);
	if (platform->config.hpet)
		hpet_reset(&platform->hpet);
	acpi_pm_reset(&platform->pm);
	i8042_reset(&platform->i8042);
	i8237_reset(&platform->i8237);
	fw_cfg_reset(&platform->fw_cfg);
}

/* The HPET, which may not be there, is the last. */
unsigned platform_devices(const struct platform *platform) { return platform->config.hpet ? 9 : 8; }

void *platform_device(struct platform *platform, unsigned index, const struct state_table **table)
{
	switch (index) {
	case 0: *table = &interrupt_lines_state; return &platform->lines;
	case 1: *table = &rtc_state; return &platform->rtc;
	case 2: *table = &acpi_pm_state; return &platform->pm;
	case 3: *table = &i8042_state; return &platform->i8042;
	case 4: *table = &i8237_state; return &platform->i8237;
	case 5: *table = &fw_cfg_state; return &platform->fw_cfg;
	case 6: *table = &testdev_state; return &platform->testdev;
	case 7: *table = &pit_state; return &platform->pit;
	default: *table = &hpet_state; return &platform->hpet;
	}
}
