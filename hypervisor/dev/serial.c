#include "dev/serial.h"

#include <string.h>

enum { RBR = 0, THR = 0, IER = 1, IIR = 2, FCR = 2, LCR = 3, MCR = 4, LSR = 5, MSR = 6, SCR = 7 };

#define IER_RECEIVED  0x01
#define IER_THR_EMPTY 0x02
#define IER_LINE      0x04
#define IER_MODEM     0x08
#define IER_DEFINED   0x0f
#define IIR_NONE      0x01
#define IIR_MODEM     0x00
#define IIR_THR_EMPTY 0x02
#define IIR_RECEIVED  0x04
#define IIR_LINE      0x06
#define IIR_TIMEOUT   0x0c
#define IIR_FIFOS     0xc0
#define FCR_ENABLE    0x01
#define FCR_CLEAR_RX  0x02
#define FCR_TRIGGER   0xc0
#define LCR_DATA      0x03
#define LCR_STOP      0x04
#define LCR_PARITY    0x08
#define LCR_BREAK     0x40
#define LCR_DLAB      0x80
#define MCR_DTR       0x01
#define MCR_RTS       0x02
#define MCR_OUT1      0x04
#define MCR_OUT2      0x08
#define MCR_LOOP      0x10
#define MCR_DEFINED   0x1f
#define LSR_DR        0x01
#define LSR_OE        0x02
#define LSR_ERRORS    0x1e
#define LSR_FE        0x08
#define LSR_BI        0x10
#define LSR_FIFO      0x80
#define LSR_THRE      0x20
#define LSR_TEMT      0x40
#define MSR_DELTAS    0x0f
#define MSR_CTS       0x10
#define MSR_DSR       0x20
#define MSR_RI        0x40
#define MSR_DCD       0x80

static const struct state_field fields[] = {
	STATE(struct serial, ier),        STATE(struct serial, fcr),
	STATE(struct serial, lcr),        STATE(struct serial, mcr),
	STATE(struct serial, lsr),        STATE(struct serial, msr),
	STATE(struct serial, scr),        STATE(struct serial, divisor),
	STATE(struct serial, fifo),       STATE(struct serial, fifo_error),
	STATE(struct serial, fifo_first), STATE(struct serial, fifo_count),
	STATE(struct serial, timed_out),  STATE(struct serial, times_out_at),
	STATE(struct serial, line),       STATE(struct serial, thr_empty_pending),
};

static void loaded(void *device)
{
	struct serial *serial = device;

	if (serial->clock)
		clock_arm(&serial->timer, serial->times_out_at);
}

static const char *wrong(const void *device, const void *values)
{
	const struct serial *serial = values;

	(void)device;
	return serial->fifo_first >= SERIAL_FIFO  ? "fifo_first"
	       : serial->fifo_count > SERIAL_FIFO ? "fifo_count"
						  : NULL;
}
STATE_TABLE(serial_state, "serial", 2, fields, loaded, wrong);

/* ---- the character time-out ---- */

/* Start bit, data, parity and stop bits, of 16 * divisor clocks of 1.8432 MHz each; four of these. */
static uint64_t timeout_ns(const struct serial *serial)
{
	uint64_t half_bits =
		2 * (1u + 5u + (serial->lcr & LCR_DATA) + (serial->lcr & LCR_PARITY ? 1u : 0u) + 1u);

	if (serial->lcr & LCR_STOP)
		half_bits += serial->lcr & LCR_DATA ? 2u : 1u;
	/* A divisor of 0 counts as 65536. */
	return 4 * half_bits * 8 * (serial->divisor ? serial->divisor : 65536u) * 1000000000u / 1843200u;
}

static void set_timeout(struct serial *serial, uint64_t at)
{
	serial->times_out_at = at;
	if (serial->clock)
		clock_arm(&serial->timer, at);
}

/* Something came or was read: the waiting begins anew. */
static void restart_timeout(struct serial *serial)
{
	bool waiting = (serial->fcr & FCR_ENABLE) && serial->fifo_count;

	serial->timed_out = waiting && !serial->clock;
	set_timeout(serial,
		    waiting && serial->clock ? clock_now(serial->clock) + timeout_ns(serial) : CLOCK_NEVER);
}

static void empty_fifo(struct serial *serial)
{
	serial->fifo_first = serial->fifo_count = 0;
	memset(serial->fifo_error, 0, sizeof(serial->fifo_error));
	serial->lsr &= (uint8_t)~LSR_DR;
	restart_timeout(serial);
}

static void update_line(struct serial *serial);

static void fired(void *owner, uint64_t due)
{
	struct serial *serial = owner;

	(void)due;
	serial->times_out_at = CLOCK_NEVER;
	serial->timed_out = 1;
	update_line(serial);
}

bool serial_use_clock(struct serial *serial, struct clock *clock)
{
	if (!clock_add(clock, &serial->timer, fired, serial))
		return false;
	serial->clock = clock;
	return true;
}

void serial_reset(struct serial *serial)
{
	serial->ier = serial->fcr = serial->lcr = serial->mcr = serial->scr = 0;
	serial->lsr = LSR_THRE | LSR_TEMT;
	serial->msr = MSR_CTS | MSR_DSR | MSR_DCD; /* someone is at the other end */
	serial->divisor = 12;                      /* 9600 baud, as a PC's firmware leaves it */
	empty_fifo(serial);
	serial->thr_empty_pending = 0;
	serial->line = 0;
}

/* ---- interrupts ---- */

static unsigned trigger_level(const struct serial *serial)
{
	static const uint8_t levels[4] = {1, 4, 8, 14};

	return serial->fcr & FCR_ENABLE ? levels[(serial->fcr & FCR_TRIGGER) >> 6] : 1;
}

/* The pending interrupt of the highest priority, as IIR shows it. */
static uint8_t identify(const struct serial *serial)
{
	if ((serial->ier & IER_LINE) && (serial->lsr & LSR_ERRORS))
		return IIR_LINE;
	if ((serial->ier & IER_RECEIVED) && serial->fifo_count >= trigger_level(serial))
		return IIR_RECEIVED;
	if ((serial->ier & IER_RECEIVED) && serial->timed_out)
		return IIR_TIMEOUT;
	if ((serial->ier & IER_THR_EMPTY) && serial->thr_empty_pending)
		return IIR_THR_EMPTY;
	if ((serial->ier & IER_MODEM) && (serial->msr & MSR_DELTAS))
		return IIR_MODEM;
	return IIR_NONE;
}

static void update_line(struct serial *serial)
{
	/* On a PC, OUT2 gates the line; in loopback it is off. */
	bool raised = identify(serial) != IIR_NONE && (serial->mcr & (MCR_OUT2 | MCR_LOOP)) == MCR_OUT2;

	if (raised == serial->line)
		return;
	serial->line = raised;
	if (serial->interrupt)
		serial->interrupt(serial->owner, raised);
}

/* ---- the line ---- */

bool serial_listens(const struct serial *serial) { return serial->ier & IER_RECEIVED; }

unsigned serial_room(const struct serial *serial)
{
	unsigned size = serial->fcr & FCR_ENABLE ? SERIAL_FIFO : 1;

	return serial->fifo_count < size ? size - serial->fifo_count : 0;
}

/* The byte at the top shows its errors. */
static void show_errors(struct serial *serial)
{
	uint8_t *errors = &serial->fifo_error[serial->fifo_first];

	if (serial->fifo_count)
		serial->lsr |= *errors;
	*errors = 0;
}

static void take_in(struct serial *serial, uint8_t byte, uint8_t errors)
{
	unsigned at = (serial->fifo_first + serial->fifo_count) % SERIAL_FIFO;

	if (serial_room(serial) == 0) {
		serial->lsr |= LSR_OE;
		/* Without FIFOs, the new byte replaces the old one. */
		if (!(serial->fcr & FCR_ENABLE))
			serial->fifo[serial->fifo_first] = byte;
	} else {
		serial->fifo[at] = byte;
		serial->fifo_error[at] = errors;
		serial->fifo_count++;
		serial->lsr |= LSR_DR;
		if (serial->fifo_count == 1)
			show_errors(serial);
		restart_timeout(serial);
	}
	update_line(serial);
}

void serial_receive(struct serial *serial, uint8_t byte)
{
	if (!(serial->mcr & MCR_LOOP))
		take_in(serial, byte, 0);
}

static uint8_t read_rbr(struct serial *serial)
{
	uint8_t byte = serial->fifo[serial->fifo_first];

	if (serial->fifo_count) {
		serial->fifo_first = (uint8_t)((serial->fifo_first + 1) % SERIAL_FIFO);
		serial->fifo_count--;
		show_errors(serial);
	}
	if (!serial->fifo_count)
		serial->lsr &= (uint8_t)~LSR_DR;
	restart_timeout(serial);
	return byte;
}

static void write_thr(struct serial *serial, uint8_t byte)
{
	if (serial->mcr & MCR_LOOP)
		take_in(serial, byte, 0);
	else if (serial->sent)
		serial->sent(serial->owner, byte);
	serial->thr_empty_pending = 1;
}

/* ---- registers ---- */

static uint8_t read_iir(struct serial *serial)
{
	uint8_t value = identify(serial);

	if (value == IIR_THR_EMPTY)
		serial->thr_empty_pending = 0;
	return (uint8_t)(value | (serial->fcr & FCR_ENABLE ? IIR_FIFOS : 0));
}

static void write_fcr(struct serial *serial, uint8_t value)
{
	/* Turning FIFOs on or off clears them. */
	bool clear = (value & FCR_CLEAR_RX) || (value & FCR_ENABLE) != (serial->fcr & FCR_ENABLE);

	serial->fcr = value & FCR_ENABLE ? value & (FCR_ENABLE | FCR_TRIGGER) : 0;
	if (clear)
		empty_fifo(serial);
}

static void write_mcr(struct serial *serial, uint8_t value)
{
	uint8_t lines = MSR_CTS | MSR_DSR | MSR_DCD, deltas;

	serial->mcr = value & MCR_DEFINED;
	/* In loopback the four outputs are wired to the four inputs. */
	if (serial->mcr & MCR_LOOP)
		lines = (uint8_t)((value & MCR_RTS ? MSR_CTS : 0) | (value & MCR_DTR ? MSR_DSR : 0) |
				  (value & MCR_OUT1 ? MSR_RI : 0) | (value & MCR_OUT2 ? MSR_DCD : 0));
	deltas = (uint8_t)((serial->msr ^ lines) >> 4);
	/* RI counts only when it goes away. */
	if ((deltas & 4) && (lines & MSR_RI))
		deltas &= (uint8_t)~4;
	serial->msr = (uint8_t)(lines | (serial->msr & MSR_DELTAS) | deltas);
}

/* LSR bit 7: a parity, framing or break error is in the FIFO, the byte at its top included. */
static bool fifo_has_error(const struct serial *serial)
{
	bool found = serial->lsr & (LSR_ERRORS & ~LSR_OE);

	for (unsigned i = 0; i < SERIAL_FIFO; i++)
		found = found || serial->fifo_error[i];
	return found && (serial->fcr & FCR_ENABLE);
}

/* Breaking the line, in loopback one's own, sends one NUL with a framing error. */
static void write_lcr(struct serial *serial, uint8_t value)
{
	bool begins = (value & LCR_BREAK) && !(serial->lcr & LCR_BREAK);

	serial->lcr = value;
	if (begins && (serial->mcr & MCR_LOOP))
		take_in(serial, 0, LSR_BI | LSR_FE);
}

static uint8_t read_register(struct serial *serial, unsigned offset)
{
	uint8_t value;

	switch (offset) {
	case RBR: return serial->lcr & LCR_DLAB ? (uint8_t)serial->divisor : read_rbr(serial);
	case IER: return serial->lcr & LCR_DLAB ? (uint8_t)(serial->divisor >> 8) : serial->ier;
	case IIR: return read_iir(serial);
	case LCR: return serial->lcr;
	case MCR: return serial->mcr;
	case LSR:
		value = (uint8_t)(serial->lsr | (fifo_has_error(serial) ? LSR_FIFO : 0));
		serial->lsr &= (uint8_t)~LSR_ERRORS;
		return value;
	case MSR:
		value = serial->msr;
		serial->msr &= (uint8_t)~MSR_DELTAS;
		return value;
	default: return serial->scr;
	}
}

static void write_register(struct serial *serial, unsigned offset, uint8_t value)
{
	switch (offset) {
	case THR:
		if (serial->lcr & LCR_DLAB)
			serial->divisor = (uint16_t)((serial->divisor & 0xff00) | value);
		else
			write_thr(serial, value);
		break;
	case IER:
		if (serial->lcr & LCR_DLAB) {
			serial->divisor = (uint16_t)((serial->divisor & 0x00ff) | value << 8);
			break;
		}
		/* Enabling the interrupt while the register is empty raises it. */
		if ((value & IER_THR_EMPTY) && !(serial->ier & IER_THR_EMPTY))
			serial->thr_empty_pending = 1;
		serial->ier = value & IER_DEFINED;
		break;
	case FCR: write_fcr(serial, value); break;
	case LCR: write_lcr(serial, value); break;
	case MCR: write_mcr(serial, value); break;
	case LSR: /* read-only outside the factory */
	case MSR: break;
	default: serial->scr = value; break;
	}
}

static uint64_t serial_read(void *device, uint64_t offset, unsigned size)
{
	struct serial *serial = device;
	uint8_t value = read_register(serial, (unsigned)offset);

	(void)size;
	update_line(serial);
	return value;
}

static void serial_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct serial *serial = device;

	(void)size;
	write_register(serial, (unsigned)offset, (uint8_t)value);
	update_line(serial);
}

static const struct bus_ops serial_ops = {
	.name = "serial", .width = 1, .apart = true, .read = serial_read, .write = serial_write};

int serial_attach(struct serial *serial, struct bus *bus, uint16_t first)
{
	return bus_claim_ports(bus, first, SERIAL_PORTS, &serial_ops, serial);
}
