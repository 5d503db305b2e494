/*
 * platform.h: the board of a PC around its processors, memory and PCI bus: PIT, RTC, HPET, ACPI's fixed
 * hardware and tables, keyboard controller, DMA controllers, fw_cfg, pc-testdev, the ports of what is absent;
 * and the interrupt lines that they and the machine's other devices share.
 */
#ifndef TRAPLINE_VM_PLATFORM_H
#define TRAPLINE_VM_PLATFORM_H

#include "chip/pit.h"
#include "dev/acpi.h"
#include "dev/acpi_pm.h"
#include "dev/dma.h"
#include "dev/fw_cfg.h"
#include "dev/hpet.h"
#include "dev/i8042.h"
#include "dev/i8237.h"
#include "dev/interrupt_lines.h"
#include "dev/rtc.h"
#include "dev/testdev.h"

struct platform_config {
	uint64_t memory; /* bytes of RAM */
	unsigned vcpus;
	bool hpet;
	int64_t rtc_start; /* seconds since 1970 */
	struct pci *pci;
	void *owner;
	void (*interrupt)(void *owner, unsigned gsi, bool raised);
	void (*reset_asked)(void *owner);
	void (*power_off)(void *owner);
	void (*sleep)(void *owner); /* no vCPU may run until wake() */
	void (*wake)(void *owner);
	void (*smi)(void *owner);
};

struct platform {
	struct platform_config config;
	struct interrupt_lines lines;
	struct pit pit;
	struct pit_ports {
		struct pit *pit;
		uint16_t first;
	} pit_ports[2];
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
	uint8_t *boot; /* bytes of platform_describe_boot() */
};

/* Makes the devices and claims their ranges. @platform was zero. 0, -EEXIST, -ENOSPC. */
int platform_attach(struct platform *platform, const struct platform_config *config, const struct dma *dma,
		    struct clock *clock, struct bus *bus);
/* RESET. */
void platform_reset(struct platform *platform);
/* How many devices have state, and each with its table. */
unsigned platform_devices(const struct platform *platform);
void *platform_device(struct platform *platform, unsigned index, const struct state_table **table);

/* What firmware does to the devices before it starts a kernel. */
void platform_firmware(struct platform *platform);
/* The real mode address at which a kernel without firmware below it wants to come out of S3; 0: it has said none. */
uint32_t platform_waking_vector(const struct platform *platform);
/* Behind the RESET that ends S3: CMOS and ACPI say that it did. */
void platform_woken(struct platform *platform);

/* Puts the ACPI tables and the MP table where a guest without firmware looks for them: at ACPI_BASE, the RSDP first, and at
 * MPTABLE_BASE. */
void platform_place_tables(struct platform *platform);

/* What fw_cfg says of a loaded kernel. */
struct platform_boot {
	const void *kernel, *initrd;
	size_t kernel_size, initrd_size;
	const char *append; /* NULL: none */
};
/* Keeps a copy, which platform_free() gives back. 0, -ENOMEM. */
int platform_describe_boot(struct platform *platform, const struct platform_boot *boot);
void platform_free(struct platform *platform);

#endif
