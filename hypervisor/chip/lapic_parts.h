/*
 * lapic_parts.h: what the files of the local APIC share: lapic.c (acceptance, priorities, pins, life),
 * lapic_registers.c, lapic_timer.c and apic_bus.c. Seen by no one else.
 */
#ifndef TRAPLINE_CHIP_LAPIC_PARTS_H
#define TRAPLINE_CHIP_LAPIC_PARTS_H

#include "chip/check.h"
#include "chip/lapic.h"
#include "x86/msr.h"

/* Of an entry of the local vector table, of ICR, of an MSI's data and of an I/O APIC's entry (SDM 3A 11.5.1).
 */
#define APIC_VECTOR     0xffu
#define APIC_DELIVERY   0x700u
#define APIC_LOGICAL    (1u << 11)
#define APIC_STATUS     (1u << 12)
#define APIC_POLARITY   (1u << 13)
#define APIC_REMOTE_IRR (1u << 14) /* LINT0 and LINT1 */
#define APIC_ASSERT     (1u << 14) /* ICR, MSI */
#define APIC_LEVEL      (1u << 15)
#define APIC_MASKED     (1u << 16)

#define LVT_TIMER_MODE (3u << 17)

#define SVR_ENABLE       (1u << 8)
#define SVR_FOCUS_OFF    (1u << 9)
#define SVR_EOI_SUPPRESS (1u << 12)

/* ESR (SDM 3A 11.5.3, APM 2 16.4.6). */
enum lapic_error {
	ERROR_SEND_ACCEPT = 1 << 2,
	ERROR_REDIRECTABLE_IPI = 1 << 4,
	ERROR_SEND_VECTOR = 1 << 5,
	ERROR_RECEIVE_VECTOR = 1 << 6,
	ERROR_REGISTER = 1 << 7
};

/* AMD's extended space (APM 2 16.3.4 to 16.4.9). */
#define EXTENDED_IER  1u /* control: IER is used */
#define EXTENDED_SEOI 2u
#define EXTENDED_ID8  4u

static inline bool lapic_enabled(const struct lapic *lapic) { return lapic->base & APIC_BASE_ENABLE; }
static inline bool lapic_x2apic(const struct lapic *lapic) { return lapic->base & APIC_BASE_EXTD; }
static inline bool lapic_software_enabled(const struct lapic *lapic) { return lapic->svr & SVR_ENABLE; }
static inline enum apic_delivery apic_delivery_of(uint32_t word)
{
	return (enum apic_delivery)((word & APIC_DELIVERY) >> 8);
}

/* ---- lapic.c ---- */

/* Tells the processor the level of INTR, where it has changed. */
void lapic_update(struct lapic *lapic);
uint32_t lapic_ppr(const struct lapic *lapic);
uint32_t lapic_apr(const struct lapic *lapic);
void lapic_error(struct lapic *lapic, uint32_t error);
/* A source of the local vector table asks, as its entry says, where that is not masked. */
void lapic_deliver_local(struct lapic *lapic, enum lapic_lvt source);
/* A message for this APIC. False: it does not accept it. */
bool lapic_deliver(struct lapic *lapic, const struct apic_message *message);
/* Level of a pin: 0, 1. */
void lapic_set_lint(struct lapic *lapic, unsigned pin, bool level);
/* A new entry of a pin, whose polarity and mode take effect. */
void lapic_write_lint(struct lapic *lapic, unsigned pin, uint32_t entry);
/* IA32_APIC_BASE. False: #GP(0). */
bool lapic_write_base(struct lapic *lapic, uint64_t value);
/* AMD: EOI of a given vector (APM 2 16.4.9). */
void lapic_specific_eoi(struct lapic *lapic, uint8_t vector);

/* ---- lapic_timer.c ---- */

enum lapic_timer_mode { TIMER_ONE_SHOT, TIMER_PERIODIC, TIMER_DEADLINE, TIMER_RESERVED };

/* What has come to its end by now takes effect; then the clock's timer follows the registers. Around each
 * change of what the timer depends on. */
void lapic_timer_settle(struct lapic *lapic);
void lapic_timer_arm(struct lapic *lapic);
void lapic_timer_fired(void *lapic, uint64_t due);
uint32_t lapic_timer_current(struct lapic *lapic);
void lapic_timer_write_initial(struct lapic *lapic, uint32_t count);
void lapic_timer_write_divide(struct lapic *lapic, uint32_t divide);
void lapic_timer_write_lvt(struct lapic *lapic, uint32_t entry);
uint64_t lapic_timer_deadline(struct lapic *lapic);
void lapic_timer_write_deadline(struct lapic *lapic, uint64_t tsc);

/* ---- lapic_registers.c ---- */

/* The register at @offset, a multiple of 16; 0 of one that there is not. */
uint32_t lapic_read(struct lapic *lapic, unsigned offset, bool *exists);

/* ---- apic_bus.c ---- */

/* Sends what ICR says, or where @self SELF IPI. */
void lapic_send(struct lapic *lapic, uint64_t icr);
void apic_bus_retry(struct apic_bus *bus);

#endif
