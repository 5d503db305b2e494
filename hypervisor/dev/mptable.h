/*
 * mptable.h: the MP configuration table (Intel MultiProcessor Specification 1.4, chapter 4), which older
 * kernels look for in place of ACPI's: processors, busses, the I/O APIC and where interrupts lead. The same
 * as in the MADT and _PRT.
 */
#ifndef TRAPLINE_DEV_MPTABLE_H
#define TRAPLINE_DEV_MPTABLE_H

#include <stddef.h>
#include <stdint.h>

/* Behind the ACPI tables, in the range where software looks for the floating pointer, which comes first. */
#define MPTABLE_BASE     0xf9000u
#define MPTABLE_SIZE_MAX 0x1000u

struct mptable_config {
	unsigned cpus; /* at most 64; their APIC ids are 0, 1, … and 0 is the bootstrap processor */
	/* The interrupt of a PCI slot's pin 0 (INTA) to 3, one of the 8259As' lines. */
	unsigned (*pci_irq)(unsigned slot, unsigned pin);
};

/* Makes both structures for physical address @base; returns their size. */
size_t mptable_make(const struct mptable_config *config, uint32_t base, uint8_t to[MPTABLE_SIZE_MAX]);

#endif
