/*
 * i8042.h: the keyboard controller at ports 0x60 and 0x64 with its second channel (IBM PS/2 technical
 * reference, "keyboard and auxiliary device controller"), a keyboard on which nobody types, nothing on the
 * auxiliary port, and port 0x92.
 *
 * The output port's bit 0 (low) and port 0x92's bit 0 (rising) reset the machine. The A20 gate is kept and
 * reads back; closing it is refused on the bus, since no processor here masks addresses.
 *
 * What a device answers is in the output buffer at once, one byte at a time. A byte to the auxiliary port
 * answers 0xfe with the time-out bit, as where no device is.
 */
#ifndef TRAPLINE_DEV_I8042_H
#define TRAPLINE_DEV_I8042_H

#include "dev/bus.h"
#include "dev/state.h"

#define I8042_DATA    0x60
#define I8042_COMMAND 0x64
#define PORT_A        0x92
#define KEYBOARD_IRQ  1
#define AUXILIARY_IRQ 12

#define I8042_QUEUE 16u

struct i8042 {
	uint8_t ram[32]; /* byte 0 is the command byte */
	uint8_t output_port;
	uint8_t command; /* that takes the next byte at 0x60; 0: none, it is the keyboard's */
	uint8_t status;  /* bits 3 (command or data) and 6 (time-out) as last set */
	/* The output buffer is the first of the queue: bytes with their source. */
	uint8_t queue[I8042_QUEUE], source[I8042_QUEUE];
	uint8_t queue_first, queue_count;
	uint8_t keyboard_command; /* that takes a parameter */
	uint8_t scan_code_set, scanning, last_answer;
	uint8_t port_a;
	uint8_t lines; /* bit 0: IRQ 1, bit 1: IRQ 12 */

	struct bus *bus;
	void *owner;
	void (*interrupt)(void *owner, unsigned irq, bool raised);
	void (*reset_asked)(void *owner);
};

extern const struct state_table i8042_state;

/* @controller was zero but for the callbacks. */
void i8042_reset(struct i8042 *controller);
/* As bus_claim_ports(). */
int i8042_attach(struct i8042 *controller, struct bus *bus);

#endif
