/*
 * ioapic.h: an I/O APIC with 24 inputs (82093AA, with the EOI register of version 20H).
 *
 * Freestanding. Messages go to the APIC bus; that bus' eoi() comes back as ioapic_eoi(), its retry() as
 * ioapic_retry().
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
	uint32_t pending;              /* edges that nobody has accepted yet (masked ones are lost) */

	struct apic_bus *bus;
};

extern const struct state_table ioapic_state;

/* @ioapic was zero; the bus is borrowed. Resets. */
void ioapic_init(struct ioapic *ioapic, struct apic_bus *bus);
/* The machine's reset: all entries masked, the levels of the inputs kept. */
void ioapic_reset(struct ioapic *ioapic);
/* The register page: IOREGSEL at 0, IOWIN at 10H, EOI at 40H; 32 bits each, aligned. Other offsets read 0,
 * and writes there do nothing. */
void ioapic_mmio_read(struct ioapic *ioapic, unsigned offset, void *to, unsigned size);
void ioapic_mmio_write(struct ioapic *ioapic, unsigned offset, const void *from, unsigned size);
/* The level of an input's pin. The board's wires are active high: what is asserted is high, and an entry that
 * says active low turns it around. Input 0 has the 8259As' INT, 2 the timer. */
void ioapic_line(struct ioapic *ioapic, unsigned input, bool high);
/* An EOI message: ends every level-triggered entry with this vector (SDM 3A 11.8.5). */
void ioapic_eoi(struct ioapic *ioapic, uint8_t vector);
/* Sends again what nobody has accepted. */
void ioapic_retry(struct ioapic *ioapic);

#endif
