#include "dev/i8042.h"

#include <string.h>

#define STATUS_FULL      0x01 /* output buffer */
#define STATUS_SYSTEM    0x04 /* follows the command byte's bit 2 */
#define STATUS_COMMAND   0x08
#define STATUS_UNLOCKED  0x10
#define STATUS_AUXILIARY 0x20 /* what is in the output buffer comes from the auxiliary device */
#define STATUS_TIMEOUT   0x40

#define BYTE_KEYBOARD_IRQ  0x01 /* command byte */
#define BYTE_AUXILIARY_IRQ 0x02
#define BYTE_SYSTEM        0x04
#define BYTE_NO_KEYBOARD   0x10
#define BYTE_NO_AUXILIARY  0x20
#define BYTE_TRANSLATE     0x40
#define BYTE_DEFINED       0x77

#define OUT_RESET     0x01 /* output port; low resets */
#define OUT_A20       0x02
#define OUT_KEYBOARD  0x10 /* the output buffer is full, with the keyboard's; read-only */
#define OUT_AUXILIARY 0x20
#define OUT_WRITABLE  0xcf

#define PORT_A_RESET 0x01
#define PORT_A_A20   0x02

enum { FROM_CONTROLLER, FROM_KEYBOARD, FROM_AUXILIARY, FROM_NOBODY };

#define ACK       0xfa
#define RESEND    0xfe
#define TEST_PASS 0xaa

static const struct state_field fields[] = {
	STATE(struct i8042, ram),
	STATE(struct i8042, output_port),
	STATE(struct i8042, command),
	STATE(struct i8042, status),
	STATE(struct i8042, queue),
	STATE(struct i8042, source),
	STATE(struct i8042, queue_first),
	STATE(struct i8042, queue_count),
	STATE(struct i8042, keyboard_command),
	STATE(struct i8042, scan_code_set),
	STATE(struct i8042, scanning),
	STATE(struct i8042, last_answer),
	STATE(struct i8042, port_a),
	STATE(struct i8042, lines),
};

static const char *wrong(const void *device, const void *values)
{
	const struct i8042 *c = values;

	(void)device;
	return c->queue_first >= I8042_QUEUE  ? "queue_first"
	       : c->queue_count > I8042_QUEUE ? "queue_count"
	       : c->scan_code_set > 3	      ? "scan_code_set"
					      : NULL;
}
STATE_TABLE(i8042_state, "i8042", 1, fields, NULL, wrong);

/* ---- the output buffer ---- */

static bool blocked(const struct i8042 *c, unsigned source)
{
	return (source == FROM_KEYBOARD && (c->ram[0] & BYTE_NO_KEYBOARD)) ||
	       (source == FROM_AUXILIARY && (c->ram[0] & BYTE_NO_AUXILIARY));
}

/* A device whose interface is disabled holds what it has to say. */
static bool full(const struct i8042 *c) { return c->queue_count && !blocked(c, c->source[c->queue_first]); }

static bool from_auxiliary(const struct i8042 *c)
{
	return full(c) &&
	       (c->source[c->queue_first] == FROM_AUXILIARY || c->source[c->queue_first] == FROM_NOBODY);
}

static void update_lines(struct i8042 *c)
{
	uint8_t wanted = 0, changed;

	if (full(c) && from_auxiliary(c))
		wanted = c->ram[0] & BYTE_AUXILIARY_IRQ ? 2 : 0;
	else if (full(c))
		wanted = c->ram[0] & BYTE_KEYBOARD_IRQ ? 1 : 0;
	changed = wanted ^ c->lines;
	c->lines = wanted;
	if ((changed & 1) && c->interrupt)
		c->interrupt(c->owner, KEYBOARD_IRQ, wanted & 1);
	if ((changed & 2) && c->interrupt)
		c->interrupt(c->owner, AUXILIARY_IRQ, wanted & 2);
}

/* What no longer fits is lost, as a device without room to send loses it. */
static void put(struct i8042 *c, unsigned source, uint8_t byte)
{
	unsigned at = (c->queue_first + c->queue_count) % I8042_QUEUE;

	if (c->queue_count == I8042_QUEUE)
		return;
	c->queue[at] = byte;
	c->source[at] = (uint8_t)source;
	c->queue_count++;
}

/* The controller's own answers replace what waits. */
static void answer(struct i8042 *c, uint8_t byte)
{
	c->queue_count = 0;
	put(c, FROM_CONTROLLER, byte);
}

static uint8_t take(struct i8042 *c)
{
	uint8_t byte = c->queue[c->queue_first];

	if (!full(c))
		return byte; /* the buffer keeps what was read last */
	c->queue_count--;
	/* The line falls between two bytes, so that each has its edge. */
	if (c->lines) {
		unsigned count = c->queue_count;

		c->queue_count = 0;
		update_lines(c);
		c->queue_count = (uint8_t)count;
	}
	if (c->queue_count)
		c->queue_first = (uint8_t)((c->queue_first + 1) % I8042_QUEUE);
	return byte;
}

static uint8_t status(const struct i8042 *c)
{
	unsigned value = STATUS_UNLOCKED | (c->ram[0] & BYTE_SYSTEM ? STATUS_SYSTEM : 0) |
			 (c->status & STATUS_COMMAND);

	if (full(c))
		value |= STATUS_FULL;
	if (from_auxiliary(c))
		value |= STATUS_AUXILIARY;
	if (full(c) && c->source[c->queue_first] == FROM_NOBODY)
		value |= STATUS_TIMEOUT;
	return (uint8_t)value;
}

/* ---- the output port, A20 and reset ---- */

static void refuse(struct i8042 *c, uint16_t port, uint8_t value)
{
	struct bus_access access = {.port = true, .write = true, .address = port, .size = 1, .value = value};

	if (c->bus)
		bus_refuse(c->bus, &access);
}

/* The gate is one, whichever port moves it. */
static void set_a20(struct i8042 *c, bool open, uint16_t port, uint8_t value)
{
	c->output_port = (uint8_t)((c->output_port & ~OUT_A20) | (open ? OUT_A20 : 0));
	c->port_a = (uint8_t)((c->port_a & ~PORT_A_A20) | (open ? PORT_A_A20 : 0));
	if (!open)
		refuse(c, port, value);
}

static void write_output_port(struct i8042 *c, uint8_t value)
{
	bool open = value & OUT_A20;

	c->output_port = value & OUT_WRITABLE;
	if (open != (bool)(c->port_a & PORT_A_A20))
		set_a20(c, open, I8042_DATA, value);
	if (!(value & OUT_RESET))
		c->reset_asked(c->owner);
}

static uint8_t read_output_port(const struct i8042 *c)
{
	unsigned buffer = !full(c) ? 0 : from_auxiliary(c) ? OUT_AUXILIARY : OUT_KEYBOARD;

	return (uint8_t)(c->output_port | buffer);
}

/* ---- the keyboard ---- */

static void keyboard_defaults(struct i8042 *c)
{
	c->scan_code_set = 2;
	c->scanning = 1;
	c->keyboard_command = 0;
}

static void keyboard_answer(struct i8042 *c, uint8_t byte)
{
	c->last_answer = byte;
	put(c, FROM_KEYBOARD, byte);
}

/* The byte behind a command that takes one. */
static void keyboard_parameter(struct i8042 *c, uint8_t byte)
{
	static const uint8_t translated[4] = {0, 0x43, 0x41, 0x3f};
	uint8_t command = c->keyboard_command;

	c->keyboard_command = 0;
	if (command != 0xf0 || byte > 3) {
		keyboard_answer(c, command == 0xf0 ? RESEND : ACK); /* ED: lamps, F3: typematic rate */
		return;
	}
	keyboard_answer(c, ACK);
	if (byte == 0)
		keyboard_answer(c,
				c->ram[0] & BYTE_TRANSLATE ? translated[c->scan_code_set] : c->scan_code_set);
	else
		c->scan_code_set = byte;
}

/* Commands of the MF II keyboard. Set 3's key types (F7 to FD) change nothing where no key is pressed; of
 * these, FB to FD take key codes until the next command. */
static void keyboard_write(struct i8042 *c, uint8_t byte)
{
	if (c->keyboard_command && byte < 0xed) {
		keyboard_parameter(c, byte);
		return;
	}
	c->keyboard_command = 0;
	switch (byte) {
	case 0xed:
	case 0xf0:
	case 0xf3:
		c->keyboard_command = byte;
		keyboard_answer(c, ACK);
		break;
	case 0xee: keyboard_answer(c, 0xee); break;
	case 0xf2:
		keyboard_answer(c, ACK);
		keyboard_answer(c, 0xab);
		keyboard_answer(c, c->ram[0] & BYTE_TRANSLATE ? 0x41 : 0x83);
		break;
	case 0xf4:
		c->scanning = 1;
		keyboard_answer(c, ACK);
		break;
	case 0xf5:
	case 0xf6:
		keyboard_defaults(c);
		c->scanning = byte == 0xf6;
		keyboard_answer(c, ACK);
		break;
	case 0xf7:
	case 0xf8:
	case 0xf9:
	case 0xfa:
	case 0xfb:
	case 0xfc:
	case 0xfd: keyboard_answer(c, ACK); break;
	case 0xfe: put(c, FROM_KEYBOARD, c->last_answer); break;
	case 0xff:
		keyboard_defaults(c);
		keyboard_answer(c, ACK);
		keyboard_answer(c, TEST_PASS);
		break;
	default: keyboard_answer(c, RESEND); break;
	}
}

/* ---- the controller ---- */

static void write_ram(struct i8042 *c, unsigned at, uint8_t value)
{
	c->ram[at] = at == 0 ? value & BYTE_DEFINED : value;
}

/* The byte at 0x60 that a command waits for. */
static void command_parameter(struct i8042 *c, uint8_t command, uint8_t byte)
{
	switch (command) {
	case 0xd1: write_output_port(c, byte); break;
	case 0xd2: put(c, FROM_KEYBOARD, byte); break;
	case 0xd3: put(c, FROM_AUXILIARY, byte); break;
	case 0xd4: put(c, FROM_NOBODY, RESEND); break;
	default: write_ram(c, command & 0x1f, byte); break; /* 60 to 7F */
	}
}

static void self_test(struct i8042 *c)
{
	memset(c->ram, 0, sizeof(c->ram));
	c->ram[0] = BYTE_SYSTEM | BYTE_NO_KEYBOARD | BYTE_NO_AUXILIARY;
	c->command = 0;
	answer(c, 0x55);
}

/* Pulses the output port's bits 3:0 that are 0; bit 0 resets. The others lead nowhere on a PC, but bit 1,
 * which is A20: a pulse of 6 us closes and opens it. */
static void pulse(struct i8042 *c, uint8_t command)
{
	if (!(command & OUT_RESET))
		c->reset_asked(c->owner);
	else if (!(command & OUT_A20) && (c->output_port & OUT_A20))
		refuse(c, I8042_COMMAND, command);
}

static void write_command(struct i8042 *c, uint8_t command)
{
	c->command = 0;
	if ((command & 0xe0) == 0x20) {
		answer(c, c->ram[command & 0x1f]);
		return;
	}
	if ((command & 0xe0) == 0x60 || (command >= 0xd1 && command <= 0xd4)) {
		c->command = command;
		return;
	}
	switch (command) {
	case 0xa7: c->ram[0] |= BYTE_NO_AUXILIARY; break;
	case 0xa8: c->ram[0] &= (uint8_t)~BYTE_NO_AUXILIARY; break;
	case 0xa9: answer(c, 0x00); break; /* the auxiliary port's lines are good */
	case 0xaa: self_test(c); break;
	case 0xab: answer(c, 0x00); break;
	case 0xad: c->ram[0] |= BYTE_NO_KEYBOARD; break;
	case 0xae: c->ram[0] &= (uint8_t)~BYTE_NO_KEYBOARD; break;
	case 0xc0: answer(c, 0xbf); break; /* input port: not locked, colour display, no jumper */
	case 0xd0: answer(c, read_output_port(c)); break;
	case 0xdd: set_a20(c, false, I8042_COMMAND, command); break;
	case 0xdf: set_a20(c, true, I8042_COMMAND, command); break;
	default:
		if (command >= 0xf0)
			pulse(c, command);
		else
			refuse(c, I8042_COMMAND, command);
		break;
	}
}

static void write_data(struct i8042 *c, uint8_t byte)
{
	uint8_t command = c->command;

	c->command = 0;
	if (command) {
		command_parameter(c, command, byte);
		return;
	}
	/* Sending to the keyboard enables its interface. */
	c->ram[0] &= (uint8_t)~BYTE_NO_KEYBOARD;
	keyboard_write(c, byte);
}

static uint64_t data_read(void *device, uint64_t offset, unsigned size)
{
	struct i8042 *c = device;
	uint8_t byte = take(c);

	(void)offset;
	(void)size;
	update_lines(c);
	return byte;
}

static void data_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct i8042 *c = device;

	(void)offset;
	(void)size;
	c->status = 0;
	write_data(c, (uint8_t)value);
	update_lines(c);
}

static uint64_t command_read(void *device, uint64_t offset, unsigned size)
{
	(void)offset;
	(void)size;
	return status(device);
}

static void command_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct i8042 *c = device;

	(void)offset;
	(void)size;
	c->status = STATUS_COMMAND;
	write_command(c, (uint8_t)value);
	update_lines(c);
}

static uint64_t port_a_read(void *device, uint64_t offset, unsigned size)
{
	const struct i8042 *c = device;

	(void)offset;
	(void)size;
	return c->port_a;
}

static void port_a_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct i8042 *c = device;
	bool reset = (value & PORT_A_RESET) && !(c->port_a & PORT_A_RESET);
	bool moved = (value ^ c->port_a) & PORT_A_A20;

	(void)offset;
	(void)size;
	c->port_a = (uint8_t)((c->port_a & PORT_A_A20) | (value & (uint8_t)~PORT_A_A20));
	if (moved)
		set_a20(c, value & PORT_A_A20, PORT_A, (uint8_t)value);
	if (reset)
		c->reset_asked(c->owner);
}

static const struct bus_ops data_ops = {
	.name = "keyboard data", .width = 1, .read = data_read, .write = data_write};
static const struct bus_ops command_ops = {
	.name = "keyboard controller", .width = 1, .read = command_read, .write = command_write};
static const struct bus_ops port_a_ops = {
	.name = "system control port A", .width = 1, .read = port_a_read, .write = port_a_write};

int i8042_attach(struct i8042 *controller, struct bus *bus)
{
	int error = bus_claim_ports(bus, I8042_DATA, 1, &data_ops, controller);

	controller->bus = bus;
	if (!error)
		error = bus_claim_ports(bus, I8042_COMMAND, 1, &command_ops, controller);
	return error ? error : bus_claim_ports(bus, PORT_A, 1, &port_a_ops, controller);
}

/* As a PC's firmware leaves it: tested, the keyboard enabled with translation, A20 open. */
void i8042_reset(struct i8042 *c)
{
	memset(c->ram, 0, sizeof(c->ram));
	c->ram[0] = BYTE_KEYBOARD_IRQ | BYTE_SYSTEM | BYTE_NO_AUXILIARY | BYTE_TRANSLATE;
	c->output_port = OUT_RESET | OUT_A20 | 0xcc;
	c->port_a = PORT_A_A20;
	c->command = c->status = c->last_answer = 0;
	memset(c->queue, 0, sizeof(c->queue));
	memset(c->source, 0, sizeof(c->source));
	c->queue_first = c->queue_count = 0;
	keyboard_defaults(c);
	update_lines(c);
}
