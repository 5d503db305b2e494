#include "engine/chips.h"

#include <string.h>

#include "x86/msr.h"

#define ISA_LINES   16u
#define TIMER_LINE  0u
#define TIMER_INPUT 2u /* where the board leads line 0 to on the I/O APIC; MADT says so */
#define PAGE        4096u

/* ---- wires between the chips ---- */

static void eoi(void *owner, uint8_t vector) { ioapic_eoi(&((struct chips *)owner)->ioapic, vector); }
static void retry(void *owner) { ioapic_retry(&((struct chips *)owner)->ioapic); }
static uint8_t extint_acknowledge(void *owner) { return pic_acknowledge(&((struct chips *)owner)->pic); }
/* To every LINT0, and to the I/O APIC's input 0 for those who take ExtINT there. */
static void pic_output(void *owner, bool raised)
{
	struct chips *chips = owner;

	apic_bus_extint(&chips->bus, raised);
	ioapic_line(&chips->ioapic, 0, raised);
}

void chips_init(struct chips *chips)
{
	chips->bus.owner = chips;
	chips->bus.eoi = eoi;
	chips->bus.retry = retry;
	chips->bus.extint_acknowledge = extint_acknowledge;
	ioapic_init(&chips->ioapic, &chips->bus);
	pic_init(&chips->pic, pic_output, chips);
}

/* INTR is the 8259As' then. */
static void disable(struct lapic *lapic)
{
	lapic_msr_write(lapic, MSR_APIC_BASE, lapic->base & ~(uint64_t)APIC_BASE_ENABLE);
}

bool chips_add_lapic(struct chips *chips, const struct lapic_model *model, const struct lapic_cpu *cpu,
		     struct clock *clock, bool present)
{
	struct lapic *lapic = &chips->lapic[chips->count];

	if (!lapic_init(lapic, chips->count, model, cpu, &chips->bus, clock))
		return false;
	chips->count++;
	chips->absent = !present;
	if (!present)
		disable(lapic);
	return true;
}

void chips_reset(struct chips *chips)
{
	chips->changed = true;
	/* First, so that nothing which waits to be sent reaches who has been reset. */
	ioapic_reset(&chips->ioapic);
	for (unsigned i = 0; i < chips->count; i++) {
		lapic_reset(&chips->lapic[i], false);
		if (chips->absent)
			disable(&chips->lapic[i]);
	}
	pic_reset(&chips->pic);
}

/* ---- the guest's accesses ---- */

static bool is_pic(uint16_t port) { return (port & ~0x81) == PIC_MASTER || (port & ~1) == PIC_ELCR; }

static bool within_pic(uint16_t port, unsigned size)
{
	for (unsigned i = 0; i < size; i++)
		if (is_pic((uint16_t)(port + i)))
			return true;
	return false;
}

/* The 8259As are a byte wide; a poll changes what it reads. */
uint32_t chips_port_in(struct chips *chips, const struct engine_bus *bus, uint16_t port, unsigned size)
{
	uint32_t value = 0;

	if (!within_pic(port, size))
		return bus->port_in(bus->owner, port, size);
	if (size == 1) {
		chips->changed = true;
		return pic_read(&chips->pic, port);
	}
	for (unsigned i = 0; i < size; i++)
		value |= chips_port_in(chips, bus, (uint16_t)(port + i), 1) << (8 * i);
	return value;
}

void chips_port_out(struct chips *chips, const struct engine_bus *bus, uint16_t port, unsigned size,
		    uint32_t value)
{
	if (!within_pic(port, size)) {
		bus->port_out(bus->owner, port, size, value);
	} else if (size == 1) {
		chips->changed = true;
		pic_write(&chips->pic, port, (uint8_t)value);
	} else {
		for (unsigned i = 0; i < size; i++)
			chips_port_out(chips, bus, (uint16_t)(port + i), 1, value >> (8 * i) & 0xff);
	}
}

static bool in_page(uint64_t address, uint64_t page) { return address - page < PAGE; }

/*
 * The page of a local APIC that is disabled or in x2APIC mode is there and answers nothing, as if the access
 * had gone out to a PC's bus: reads are all ones.
 */
static struct lapic *own_page(struct chips *chips, unsigned vcpu, uint64_t address)
{
	struct lapic *lapic = &chips->lapic[vcpu];

	if (vcpu >= chips->count || chips->absent || !in_page(address, lapic->base & ~(uint64_t)(PAGE - 1)))
		return NULL;
	return lapic;
}

/* How much of an access lies in the page of its first byte. */
static unsigned inside(uint64_t address, unsigned size)
{
	unsigned room = PAGE - (unsigned)(address % PAGE);

	return size < room ? size : room;
}

/* To read a count that is over changes it. */
void chips_mmio_read(struct chips *chips, const struct engine_bus *bus, unsigned vcpu, uint64_t address,
		     void *to, unsigned size)
{
	struct lapic *lapic = own_page(chips, vcpu, address);
	unsigned offset = (unsigned)(address % PAGE);

	if (!lapic && !in_page(address, IOAPIC_BASE)) {
		bus->mmio_read(bus->owner, address, to, size);
		return;
	}
	chips->changed = true;
	memset(to, 0xff, size);
	if (!lapic)
		ioapic_mmio_read(&chips->ioapic, offset, to, inside(address, size));
	else if (lapic_claims(lapic, address))
		lapic_mmio_read(lapic, offset, to, inside(address, size));
}

void chips_mmio_write(struct chips *chips, const struct engine_bus *bus, unsigned vcpu, uint64_t address,
		      const void *from, unsigned size)
{
	struct lapic *lapic = own_page(chips, vcpu, address);
	unsigned offset = (unsigned)(address % PAGE);

	if (!lapic && !in_page(address, IOAPIC_BASE)) {
		bus->mmio_write(bus->owner, address, from, size);
		return;
	}
	chips->changed = true;
	if (!lapic)
		ioapic_mmio_write(&chips->ioapic, offset, from, inside(address, size));
	else if (lapic_claims(lapic, address))
		lapic_mmio_write(lapic, offset, from, inside(address, size));
}

/* ---- firmware ---- */

void chips_firmware(struct chips *chips, uint16_t level)
{
	chips->changed = true;
	if (chips->count && !chips->absent)
		lapic_virtual_wire(&chips->lapic[0]);
	pic_write(&chips->pic, PIC_ELCR, (uint8_t)level);
	pic_write(&chips->pic, PIC_ELCR_SLAVE, (uint8_t)(level >> 8));
}

/* ---- lines and messages ---- */

void chips_input(struct chips *chips, unsigned gsi, bool raised)
{
	chips->changed = true;
	if (gsi < ISA_LINES && gsi != PIC_CASCADE)
		pic_line(&chips->pic, gsi, raised);
	if (gsi < IOAPIC_INPUTS)
		ioapic_line(&chips->ioapic, gsi == TIMER_LINE ? TIMER_INPUT : gsi, raised);
}

void chips_msi(struct chips *chips, uint64_t address, uint32_t data)
{
	chips->changed = true;
	apic_bus_msi(&chips->bus, address, data);
}

/* ---- state ---- */

void *chips_at(struct chips *chips, unsigned index, const struct state_table **table)
{
	if (index < chips->count) {
		*table = &lapic_state;
		return &chips->lapic[index];
	}
	switch (index - chips->count) {
	case 0: *table = &ioapic_state; return &chips->ioapic;
	case 1: *table = &pic_state; return &chips->pic;
	default: return NULL;
	}
}
