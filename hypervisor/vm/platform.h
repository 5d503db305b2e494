/*
 * platform.h: the board of a PC around its processors, memory and PCI bus: RTC, HPET, ACPI's fixed hardware and
 * tables, keyboard controller, DMA controllers, fw_cfg, pc-testdev, the ports of what is absent; and the interrupt
 * lines that they and the machine's other devices share.
 */
#ifndef TRAPLINE_VM_PLATFORM_H
#define TRAPLINE_VM_PLATFORM_H

#include "dev/acpi.h"
#include "dev/acpi_pm.h"
#include "dev/dma.h"
#include "dev/fw_cfg.h"
#include "dev/hpet.h"
#include "dev/i8042.h"
#include "dev/i8237.h"
#include "dev/lines.h"
#include "dev/rtc.h"
#include "dev/testdev.h"

struct platform_config {
	uint64_t memory; /* bytes of RAM */
	unsigned vcpus;
	bool hpet;
	int64_t rtc_start; /* seconds since 1970 */
	void *owner;
	void (*interrupt)(void *owner, unsigned gsi, bool raised);
	void (*reset_asked)(void *owner);
	void (*power_off)(void *owner);
};

struct platform {
	struct platform_config config;
	struct lines lines;
	struct rtc rtc;
	struct hpet hpet;
	struct acpi_pm pm;
	struct i8042 i8042;
	struct i8237 i8237;
	struct fw_cfg fw_cfg;
	struct testdev testdev;
	struct acpi acpi; /* made once; not state */
	struct dma dma;
	uint8_t e820[20 * 8];
};

/* Makes the devices and claims their ranges. @platform was zero. 0, -EEXIST, -ENOSPC. */
int platform_attach(struct platform *platform, const struct platform_config *config, const struct dma *dma,
		    struct clock *clock, struct bus *bus);
/* RESET. */
void platform_reset(struct platform *platform);
/* Each device with its table: NULL past the last. */
void *platform_device(struct platform *platform, unsigned index, const struct state_table **table);

/* Puts the ACPI tables where a guest without firmware looks for them: at ACPI_BASE, the RSDP first. */
void platform_place_tables(struct platform *platform);

/* What fw_cfg says of a loaded kernel; the bytes are borrowed. */
struct platform_boot {
	const void *kernel, *initrd;
	size_t kernel_size, initrd_size;
	const char *append; /* NULL: none */
	uint32_t initrd_address;
};
void platform_describe_boot(struct platform *platform, const struct platform_boot *boot);

#endif
