/*
 * acpi.h: the ACPI tables that describe the machine (ACPI 6.4, chapter 5): RSDP, RSDT, XSDT, FADT, FACS,
 * MADT, HPET where there is one, and a DSDT in AML. There is no ECAM, so there is no MCFG.
 *
 * The tables are made with offsets in place of addresses. acpi_place() turns them into what stands in memory;
 * firmware that finds them by fw_cfg does the same with the loader's script (QEMU's
 * docs/specs/acpi_hw_reduced_hotplug and hw/acpi/bios-linker-loader: files etc/acpi/tables, etc/acpi/rsdp,
 * etc/table-loader).
 */
#ifndef TRAPLINE_DEV_ACPI_H
#define TRAPLINE_DEV_ACPI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Where they are put for a guest without firmware: the RSDP first, where software looks for it. */
#define ACPI_BASE     0xf0000u
#define ACPI_SIZE_MAX 0x8000u

#define ACPI_RSDP_SIZE 36u
#define ACPI_TABLES    8u
#define ACPI_POINTERS  20u
#define ACPI_COMMANDS  (2u + ACPI_POINTERS + ACPI_TABLES + 2u)

struct acpi_config {
	unsigned cpus; /* their APIC ids are 0, 1, … */
	bool hpet;
	uint32_t pci_memory; /* where the PCI hole begins; it ends at the I/O APIC */
	/* The interrupt of a PCI slot's pin 0 (INTA) to 3, one of the 8259As' lines. */
	unsigned (*pci_irq)(unsigned slot, unsigned pin);
};

struct acpi {
	uint8_t tables[ACPI_SIZE_MAX];
	size_t size;
	size_t facs; /* its offset */
	uint8_t rsdp[ACPI_RSDP_SIZE];
	uint8_t loader[ACPI_COMMANDS][128];
	unsigned commands;

	/* What has to be put right once the place is known. */
	struct acpi_pointer {
		bool in_rsdp;
		uint16_t offset;
		uint8_t size;
	} pointer[ACPI_POINTERS];
	unsigned pointers;
	struct acpi_sum {
		uint16_t offset, size; /* of a table; the checksum stands at its byte 9 */
	} sum[ACPI_TABLES];
	unsigned sums;
};

/* Makes the tables. False: they do not fit. */
bool acpi_make(struct acpi *acpi, const struct acpi_config *config);
/* Bytes that acpi_place() writes. */
size_t acpi_size(const struct acpi *acpi);
/* Where the FACS has its waking vector, in bytes from where acpi_place() begins. */
size_t acpi_waking_vector(const struct acpi *acpi);
/* The tables for physical address @base, a multiple of 64: the RSDP comes first. */
void acpi_place(const struct acpi *acpi, uint64_t base, uint8_t *to);

#endif
