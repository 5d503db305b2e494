/*
 * chips.h: the interrupt chips of a PC in user space, wired: a local APIC a vCPU on one APIC bus, an I/O APIC
 * and the two 8259As. For the engines that have none of their own.
 *
 * One caller at a time. What a local APIC asks of its processor goes through the struct lapic_cpu that the
 * engine gives; all accesses of a guest to the chips come through here.
 */
#ifndef TRAPLINE_ENGINE_CHIPS_H
#define TRAPLINE_ENGINE_CHIPS_H

#include "chip/ioapic.h"
#include "chip/lapic.h"
#include "chip/pic.h"
#include "engine/engine.h"

struct chips {
	unsigned count; /* of local APICs */
	struct apic_bus bus;
	struct lapic lapic[ENGINE_VCPUS_MAX];
	struct ioapic ioapic;
	struct pic pic;
	bool absent;  /* the processors have no local APIC */
	bool changed; /* something here may have changed; cleared by the engine */
};

/* @chips was zero. */
void chips_init(struct chips *chips);
/* The local APIC of the next vCPU, in its reset state. @present: false for processors without one, whose INTR
 * the 8259As drive. False: the bus or the clock is full. */
bool chips_add_lapic(struct chips *chips, const struct lapic_model *model, const struct lapic_cpu *cpu,
		     struct clock *clock, bool present);
/* The machine's RESET of all of them; levels of lines stay. */
void chips_reset(struct chips *chips);

/* Accesses of vCPU @vcpu, to a chip or else to @bus. Sizes are those of struct engine_bus. */
uint32_t chips_port_in(struct chips *chips, const struct engine_bus *bus, uint16_t port, unsigned size);
void chips_port_out(struct chips *chips, const struct engine_bus *bus, uint16_t port, unsigned size,
		    uint32_t value);
void chips_mmio_read(struct chips *chips, const struct engine_bus *bus, unsigned vcpu, uint64_t address,
		     void *to, unsigned size);
void chips_mmio_write(struct chips *chips, const struct engine_bus *bus, unsigned vcpu, uint64_t address,
		      const void *from, unsigned size);

/* As engine_ops.firmware, interrupt_input and msi. */
void chips_firmware(struct chips *chips, uint16_t level);
void chips_input(struct chips *chips, unsigned gsi, bool raised);
void chips_msi(struct chips *chips, uint64_t address, uint32_t data);

/* Each chip with its table: NULL past the last. */
void *chips_at(struct chips *chips, unsigned index, const struct state_table **table);

#endif
