/*
 * lines.h: interrupt lines of the PC that a story can raise and lower: all of them where the machine has
 * pc-testdev; elsewhere those of devices that hold theirs until they are told otherwise: counter 0 of the
 * 8254 (line 0), the serial ports (4 and 3), the RTC (8) and the keyboard controller (12).
 *
 * Lines are numbered as inputs of the 8259As. The I/O APIC has them at inputs of the same number, but line 0
 * at input 2, and eight of its own behind line 15.
 */
#ifndef TRAPLINE_GUESTS_INTERRUPTS_LINES_H
#define TRAPLINE_GUESTS_INTERRUPTS_LINES_H

#include <stdbool.h>

/* Whether this machine lets a story drive line @n. */
bool lines_has(unsigned n);
/* The same; where it does not, NOTSUP was said, with the probe. */
bool lines_can_drive(unsigned n);
/* Line @n, which can be driven, high or low; comes back when it is. */
void lines_set(unsigned n, bool high);
/* All that can be driven low. */
void lines_lower(void);

#endif
