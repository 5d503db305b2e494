/*
 * lapic.h: a local APIC (SDM 3A chapter 11, APM 2 chapter 16), xAPIC and x2APIC, and the bus that joins the
 * local APICs of a machine with each other and with who sends messages (I/O APIC, MSI).
 *
 * Freestanding. The processor behind it is reached through struct lapic_cpu, the 8259As through the bus. One
 * caller at a time.
 */
#ifndef TRAPLINE_CHIP_LAPIC_H
#define TRAPLINE_CHIP_LAPIC_H

#include <stdbool.h>
#include <stdint.h>

#include "chip/clock.h"
#include "x86/state_table.h"

#define APICS_MAX 64u

/* What a local APIC does to its processor, and asks of it. */
struct lapic_cpu {
	void *owner;
	/* INTR: a vector that the processor priority lets through is pending, or the 8259As ask by way of
	 * LINT0 (or directly, where the APIC is disabled). */
	void (*interrupt_line)(void *owner, bool raised);
	void (*nmi)(void *owner);
	void (*smi)(void *owner);
	/* INIT: when the processor takes it, it calls lapic_reset(…, true). */
	void (*init)(void *owner);
	void (*sipi)(void *owner, uint8_t vector);
	/* CR8 follows TPR (SDM 3A 11.8.6). */
	void (*tpr_written)(void *owner, uint8_t tpr);
	/* The processor's TSC; and the time, of the clock, when it will be at least @tsc (TSC-deadline mode).
	 */
	uint64_t (*tsc)(void *owner);
	uint64_t (*tsc_time)(void *owner, uint64_t tsc);
};

enum apic_delivery {
	APIC_FIXED,
	APIC_LOWEST_PRIORITY,
	APIC_SMI,
	APIC_REMOTE_READ,
	APIC_NMI,
	APIC_INIT,
	APIC_STARTUP,
	APIC_EXTINT
};

/* A message on the APIC bus: what an ICR, an entry of an I/O APIC, or an MSI sends. */
struct apic_message {
	uint32_t destination;
	bool wide; /* the sender is an x2APIC: all 32 bits of the destination count */
	bool logical;
	bool level;  /* trigger mode */
	bool assert; /* false: INIT level de-assert */
	enum apic_delivery delivery;
	uint8_t vector;
};

struct lapic;
struct apic_bus {
	void *owner;
	/* A level-triggered vector got its EOI, and broadcast is not suppressed: for the I/O APICs. */
	void (*eoi)(void *owner, uint8_t vector);
	/* A local APIC accepts what it did not before (enabled, other id or logical destination): I/O APICs
	 * send again what nobody has accepted (ioapic_retry()). May be NULL. */
	void (*retry)(void *owner);
	/* INTA cycles of the 8259As (ExtINT): the vector, which may be a spurious one. */
	uint8_t (*extint_acknowledge)(void *owner);

	unsigned count;
	struct lapic *apic[APICS_MAX];
	bool extint; /* level of the 8259As' INT line, which goes to every LINT0 */
};

/* In what the models differ. */
struct lapic_model {
	bool x2apic, tsc_deadline, amd;
	bool extended;          /* AMD's extended APIC space, 400H to 530H */
	bool no_lowest_ipi;     /* refuses to send IPIs of lowest priority, with an error in ESR */
	bool cmci;              /* there is an LVT entry for corrected machine checks */
	uint32_t physical_bits; /* width of what IA32_APIC_BASE may hold */
	uint32_t timer_ns;      /* period of the timer's input, before the divider; not 0 */
};

/* Entries of the local vector table. */
enum lapic_lvt {
	LVT_CMCI,
	LVT_TIMER,
	LVT_THERMAL,
	LVT_PERFORMANCE,
	LVT_LINT0,
	LVT_LINT1,
	LVT_ERROR,
	LVT_EXTENDED, /* AMD: the first of four */
	LVT_COUNT = LVT_EXTENDED + 4
};

struct lapic {
	uint32_t id; /* initial, as CPUID tells it */
	bool bsp;    /* the first on its bus */
	/* State; lapic_state lists it. Registers by the manual's names. */
	uint64_t base; /* IA32_APIC_BASE */
	uint32_t apic_id, tpr, ldr, dfr, svr, esr, esr_pending, remote_read;
	uint32_t irr[8], isr[8], tmr[8];
	uint64_t icr;
	uint32_t lvt[LVT_COUNT];
	uint32_t extended_control, ier[8]; /* AMD */
	uint32_t initial_count, divide;
	uint32_t timer_count; /* counts left at @timer_began; 0: it is at rest */
	uint64_t timer_began;
	uint64_t tsc_deadline; /* 0: not armed */
	uint8_t lint;          /* levels of the pins LINT0 and LINT1, bits 0 and 1 */
	uint8_t extint;        /* an ExtINT message has come, and no INTA since */
	uint8_t line;          /* level of INTR as last told */

	struct lapic_model model;
	struct lapic_cpu cpu;
	struct apic_bus *bus;
	struct clock_timer timer;
};

/* Its loaded() arms the timer and tells the level of INTR and TPR: the clock and the TSC are loaded before.
 */
extern const struct state_table lapic_state;

/* Joins the bus (false: it or the clock is full) and resets. @lapic was zero; the bus and the clock are
 * borrowed. */
bool lapic_init(struct lapic *lapic, uint32_t id, const struct lapic_model *model,
		const struct lapic_cpu *cpu, struct apic_bus *bus, struct clock *clock);
/* RESET, or INIT, which keeps IA32_APIC_BASE and the APIC id (SDM 3A 11.4.7). */
void lapic_reset(struct lapic *lapic, bool init);
/* What a PC's firmware leaves behind in its bootstrap processor: virtual wire mode, that is enabled, LINT0
 * ExtINT, LINT1 NMI (MultiProcessor Specification 1.4, 3.6.2.2). */
void lapic_virtual_wire(struct lapic *lapic);

/* Whether the register page answers at physical @address now (enabled, xAPIC mode). */
bool lapic_claims(const struct lapic *lapic, uint64_t address);
/* The register page, sizes 1 to 16 at offsets below 4096. Accesses other than aligned 32 bits are undefined
 * by the manual (SDM 3A 11.4.1); here a read takes its bytes of the registers, a write is taken where it is a
 * whole one. */
void lapic_mmio_read(struct lapic *lapic, unsigned offset, void *to, unsigned size);
void lapic_mmio_write(struct lapic *lapic, unsigned offset, const void *from, unsigned size);
/* IA32_APIC_BASE, IA32_TSC_DEADLINE and 800H to 8FFH. False: #GP(0). */
bool lapic_msr_read(struct lapic *lapic, uint32_t index, uint64_t *value);
bool lapic_msr_write(struct lapic *lapic, uint32_t index, uint64_t value);
/* The TSC has been written: the deadline comes earlier or later. */
void lapic_tsc_changed(struct lapic *lapic);
/* As a write to the EOI register. */
void lapic_eoi(struct lapic *lapic);
/* MOV to CR8; tpr_written() is not called. */
void lapic_write_cr8(struct lapic *lapic, uint64_t cr8);
/* INTA: takes what the 8259As give where they ask by way of this APIC, or the highest vector that the
 * processor priority lets through. -1: INTR is not raised. */
int lapic_acknowledge(struct lapic *lapic);
/* A pulse on LINT1, where the board has NMI. The level of LINT0 is apic_bus_extint(). */
void lapic_nmi_pin(struct lapic *lapic);
/* A local source asks: LVT_CMCI, LVT_THERMAL, LVT_PERFORMANCE, or one of AMD's four. */
void lapic_local(struct lapic *lapic, enum lapic_lvt source);

/* Delivers to whom the message addresses. False: nobody accepted it (lowest priority and fixed, I/O APICs
 * retry). */
bool apic_bus_send(struct apic_bus *bus, const struct apic_message *message);
/* A write to the MSI address range, FEE00000H to FEEFFFFFH (SDM 3A 11.11). As apic_bus_send(). */
bool apic_bus_msi(struct apic_bus *bus, uint64_t address, uint32_t data);
/* The level of the 8259As' INT, which goes to every LINT0. */
void apic_bus_extint(struct apic_bus *bus, bool raised);

#endif
