/*
 * ioapic.h: an I/O APIC with 24 inputs (82093AA, with the EOI register of version 20H).
 *
 * Freestanding. Messages go to the APIC bus; that bus' eoi() comes back as ioapic_eoi().
 */
#ifndef TRAPLINE_CHIP_IOAPIC_H
#define TRAPLINE_CHIP_IOAPIC_H

#include "chip/lapic.h"

#define IOAPIC_BASE   0xfec00000u
#define IOAPIC_SIZE   4096u
#define IOAPIC_INPUTS 24u

struct ioapic {
	uint32_t id, select;
	uint64_t entry[IOAPIC_INPUTS]; /* with delivery status and remote IRR */
	uint32_t lines;                /* levels of the inputs */
	uint32_t pending;              /* edges that are not sent yet (masked ones are lost) */

	struct apic_bus *bus;
};

extern const struct state_table ioapic_state;

void ioapic_reset(struct ioapic *ioapic);
void ioapic_mmio_read(struct ioapic *ioapic, unsigned offset, void *to, unsigned size);
void ioapic_mmio_write(struct ioapic *ioapic, unsigned offset, const void *from, unsigned size);
/* The level of an input, after polarity: true is asserted. */
void ioapic_line(struct ioapic *ioapic, unsigned input, bool asserted);
void ioapic_eoi(struct ioapic *ioapic, uint8_t vector);

#endif
