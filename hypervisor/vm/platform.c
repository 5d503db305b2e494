#include "vm/platform.h"

#include <errno.h>
#include <string.h>

#include "dev/absent.h"
#include "dev/pci.h"
#include "vm/memory_map.h"

/* ---- lines ---- */

static void line_changed(void *owner, unsigned line, bool raised)
{
	struct platform *platform = owner;

	platform->config.interrupt(platform->config.owner, line, raised);
}

static void rtc_line(void *owner, bool raised)
{
	lines_set(&((struct platform *)owner)->lines, LINE_RTC, 8, raised);
}

static void hpet_line(void *owner, unsigned input, bool raised)
{
	lines_set(&((struct platform *)owner)->lines, LINE_HPET, input, raised);
}

static void hpet_legacy(void *owner, bool replaced)
{
	struct platform *platform = owner;

	lines_cut(&platform->lines, LINE_PIT, replaced);
	lines_cut(&platform->lines, LINE_RTC, replaced);
}

static void sci_line(void *owner, bool raised)
{
	lines_set(&((struct platform *)owner)->lines, LINE_SCI, ACPI_SCI, raised);
}

static void keyboard_line(void *owner, unsigned irq, bool raised)
{
	lines_set(&((struct platform *)owner)->lines, LINE_KEYBOARD, irq, raised);
}

static void test_line(void *owner, unsigned gsi, bool raised)
{
	lines_set(&((struct platform *)owner)->lines, LINE_TEST, gsi, raised);
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

void platform_place_tables(struct platform *platform)
{
	uint8_t image[ACPI_SIZE_MAX + 64];

	acpi_place(&platform->acpi, ACPI_BASE, image);
	platform->dma.write(platform->dma.owner, ACPI_BASE, image, acpi_size(&platform->acpi));
}

void platform_describe_boot(struct platform *platform, const struct platform_boot *boot)
{
	struct fw_cfg *fw_cfg = &platform->fw_cfg;
	const char *append = boot->append ? boot->append : "";

	fw_cfg_set(fw_cfg, FW_CFG_KERNEL_DATA, boot->kernel, boot->kernel_size);
	fw_cfg_set_number(fw_cfg, FW_CFG_KERNEL_SIZE, boot->kernel_size, 4);
	fw_cfg_set(fw_cfg, FW_CFG_INITRD_DATA, boot->initrd, boot->initrd_size);
	fw_cfg_set_number(fw_cfg, FW_CFG_INITRD_SIZE, boot->initrd_size, 4);
	fw_cfg_set_number(fw_cfg, FW_CFG_INITRD_ADDR, boot->initrd_address, 4);
	fw_cfg_set(fw_cfg, FW_CFG_CMDLINE_DATA, append, strlen(append) + 1);
	fw_cfg_set_number(fw_cfg, FW_CFG_CMDLINE_SIZE, strlen(append) + 1, 4);
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
	return rtc_init(&platform->rtc, &rtc, clock) && acpi_pm_init(&platform->pm, clock) &&
	       (!config->hpet || hpet_init(&platform->hpet, clock));
}

static int claim(struct platform *platform, struct bus *bus)
{
	int error = rtc_attach(&platform->rtc, bus);

	if (!error)
		error = acpi_pm_attach(&platform->pm, bus);
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
	rtc_reset(&platform->rtc);
	if (platform->config.hpet)
		hpet_reset(&platform->hpet);
	acpi_pm_reset(&platform->pm);
	i8042_reset(&platform->i8042);
	i8237_reset(&platform->i8237);
	fw_cfg_reset(&platform->fw_cfg);
}

void *platform_device(struct platform *platform, unsigned index, const struct state_table **table)
{
	switch (index) {
	case 0: *table = &lines_state; return &platform->lines;
	case 1: *table = &rtc_state; return &platform->rtc;
	case 2: *table = &acpi_pm_state; return &platform->pm;
	case 3: *table = &i8042_state; return &platform->i8042;
	case 4: *table = &i8237_state; return &platform->i8237;
	case 5: *table = &fw_cfg_state; return &platform->fw_cfg;
	case 6: *table = &testdev_state; return &platform->testdev;
	case 7: *table = &hpet_state; return platform->config.hpet ? &platform->hpet : NULL;
	default: return NULL;
	}
}
