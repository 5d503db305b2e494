#include "chip/pic.h"

#include <stddef.h>

#include "chip/check.h"

#define ICW1             0x10 /* in a write to the even port: ICW1 */
#define ICW1_ICW4        0x01
#define ICW1_SINGLE      0x02
#define ICW1_INTERVAL4   0x04
#define ICW4_X86         0x01
#define ICW4_AEOI        0x02
#define ICW4_SFNM        0x10
#define OCW3             0x08 /* in a write to the even port: OCW3, else OCW2 */
#define OCW3_READ        0x02
#define OCW3_ISR         0x01
#define OCW3_POLL        0x04
#define OCW3_SET_SPECIAL 0x40
#define OCW3_SPECIAL     0x20
#define OCW2_LEVEL       0x07
/* Commands of OCW2: its bits R, SL and EOI. */
#define OCW2_ROTATE_AEOI_CLEAR 0x00
#define OCW2_EOI               0x20
#define OCW2_SPECIFIC_EOI      0x60
#define OCW2_ROTATE_AEOI_SET   0x80
#define OCW2_ROTATE_EOI        0xa0
#define OCW2_SET_PRIORITY      0xc0
#define OCW2_ROTATE_SPECIFIC   0xe0

#define SPURIOUS 7u
#define BIT(n)   ((uint8_t)(1u << (n)))

/* The timer, keyboard, cascade, clock and coprocessor lines are edge-triggered (82371, ELCR1 and ELCR2). */
static const uint8_t elcr_writable[2] = {0xf8, 0xde};

/* ---- one chip ---- */

/* The line of the highest priority in @set, or -1. The one behind the lowest is the highest. */
static int highest(const struct pic_chip *chip, uint8_t set)
{
	for (unsigned i = 1; i <= 8; i++) {
		unsigned line = (chip->priority + i) & 7;

		if (set & BIT(line))
			return (int)line;
	}
	return -1;
}

static unsigned rank(const struct pic_chip *chip, int line)
{
	return line < 0 ? 8 : ((unsigned)line - chip->priority - 1) & 7;
}

/*
 * What is in service and holds back requests: all of it, but what special mask mode has taken out by its
 * mask, and in special fully nested mode the lines of slaves, which order their own requests.
 */
static uint8_t blocking(const struct pic_chip *chip)
{
	uint8_t set = chip->isr;

	if (CHIP_CHECK(PIC_SPECIAL_MASK, chip->special_mask))
		set &= (uint8_t)~chip->imr;
	if (CHIP_CHECK(PIC_SPECIAL_NESTED, chip->icw[3] & ICW4_SFNM) && !(chip->icw[0] & ICW1_SINGLE))
		set &= (uint8_t)~(chip->icw[2] & BIT(PIC_CASCADE)); /* the slave's ICW3 is its ID, 2 */
	return set;
}

/* The request that the chip has for whom it interrupts, or -1 (8259A, "fully nested mode"). */
static int request(const struct pic_chip *chip)
{
	uint8_t masked = CHIP_CHECK(PIC_MASK, true) ? chip->imr : 0;
	int line = highest(chip, chip->irr & (uint8_t)~masked);
	int served = highest(chip, blocking(chip));

	/* Until all initialization words have come, nothing is asked. */
	if (line < 0 || CHIP_CHECK(PIC_INITIALIZING, chip->expected != 0))
		return -1;
	if (CHIP_CHECK(PIC_PRIORITY, rank(chip, line) >= rank(chip, served)))
		return -1;
	return line;
}

/* A line is taken: an edge is used up, a level stays (8259A, "interrupt sequence"). */
static void serve(struct pic_chip *chip, unsigned line, bool end)
{
	if (!(chip->elcr & BIT(line)))
		chip->irr &= (uint8_t)~BIT(line);
	if (!end) {
		chip->isr |= BIT(line);
		return;
	}
	if (chip->rotate_aeoi)
		chip->priority = (uint8_t)line;
}

/* Automatic EOI comes at the last INTA of the 8086 sequence; the third of MCS-80 never comes here. */
static bool automatic_eoi(const struct pic_chip *chip)
{
	return CHIP_CHECK(PIC_AUTOMATIC_EOI,
			  (chip->icw[3] & (ICW4_AEOI | ICW4_X86)) == (ICW4_AEOI | ICW4_X86));
}

/*
 * An edge must stay high until it is acknowledged, or it is gone (8259A, "edge and level triggered modes").
 */
static void set_line(struct pic_chip *chip, unsigned line, bool asserted)
{
	bool was = chip->lines & BIT(line);

	chip->lines = (uint8_t)((chip->lines & ~BIT(line)) | (asserted ? BIT(line) : 0));
	if (!asserted)
		chip->irr &= (uint8_t)~BIT(line);
	else if ((chip->elcr & BIT(line)) || !CHIP_CHECK(PIC_EDGE, was))
		chip->irr |= BIT(line);
}

/* ---- both ---- */

static void update(struct pic *pic)
{
	struct pic_chip *master = &pic->chip[0], *slave = &pic->chip[1];
	bool raised;

	slave->output = request(slave) >= 0;
	set_line(master, PIC_CASCADE, slave->output);
	raised = request(master) >= 0;
	if (raised == master->output)
		return;
	master->output = raised;
	if (pic->output)
		pic->output(pic->owner, raised);
}

static void power_on(struct pic_chip *chip)
{
	*chip = (struct pic_chip){.imr = 0xff, .priority = 7, .lines = chip->lines};
}

void pic_reset(struct pic *pic)
{
	for (unsigned i = 0; i < 2; i++) {
		bool output = pic->chip[i].output;

		power_on(&pic->chip[i]);
		pic->chip[i].output = output;
	}
	update(pic);
}

void pic_init(struct pic *pic, void (*output)(void *owner, bool raised), void *owner)
{
	*pic = (struct pic){.output = output, .owner = owner};
	pic_reset(pic);
}

void pic_line(struct pic *pic, unsigned line, bool asserted)
{
	if (line >= PIC_LINES || line == PIC_CASCADE)
		return;
	set_line(&pic->chip[line >> 3], line & 7, asserted);
	update(pic);
}

/*
 * The byte of the second INTA: the vector in 8086 mode, and in MCS-80 mode the low half of the address to
 * call, which is what the processor takes for one (8259A, tables 1 to 3).
 */
static uint8_t vector_of(const struct pic_chip *chip, unsigned line)
{
	if (chip->icw[3] & ICW4_X86)
		return (uint8_t)((chip->icw[1] & 0xf8) | line);
	if (chip->icw[0] & ICW1_INTERVAL4)
		return (uint8_t)((chip->icw[0] & 0xe0) | line << 2);
	return (uint8_t)((chip->icw[0] & 0xc0) | line << 3);
}

/* One chip's part of the INTA cycles; returns the line that it puts out. */
static unsigned chip_acknowledge(struct pic_chip *chip)
{
	int line = request(chip);

	if (CHIP_CHECK(PIC_SPURIOUS, line < 0))
		return SPURIOUS;
	serve(chip, (unsigned)line & 7, automatic_eoi(chip));
	return (unsigned)line & 7;
}

uint8_t pic_acknowledge(struct pic *pic)
{
	struct pic_chip *master = &pic->chip[0], *slave = &pic->chip[1];
	bool spurious = request(master) < 0;
	unsigned line = chip_acknowledge(master);
	uint8_t vector = vector_of(master, line);

	/* A slave answers to the number that ICW3 gave it; to one that nobody has, nobody. */
	if (!spurious && !(master->icw[0] & ICW1_SINGLE) && (master->icw[2] & BIT(line))) {
		vector = 0xff;
		if (line == PIC_CASCADE && (slave->icw[2] & 7) == line)
			vector = vector_of(slave, chip_acknowledge(slave));
	}
	/* INTA takes INT back, so that what is left makes an edge at the master. */
	set_line(master, PIC_CASCADE, false);
	update(pic);
	return vector;
}

/* ---- ports ---- */

/* A poll is an acknowledgement whose answer goes to who reads (8259A, "poll command"). */
static uint8_t poll(struct pic *pic, struct pic_chip *chip)
{
	int line = request(chip);

	chip->poll = 0;
	if (line < 0)
		return 0;
	serve(chip, (unsigned)line, automatic_eoi(chip));
	if (chip == &pic->chip[1])
		set_line(&pic->chip[0], PIC_CASCADE, false);
	update(pic);
	return (uint8_t)(0x80 | line);
}

/* ICW1 (8259A, "initialization command words"): all modes off, edges must come anew. */
static void write_icw1(struct pic_chip *chip, uint8_t value)
{
	*chip = (struct pic_chip){
		.icw = {value},
		.expected = 2,
		.priority = 7,
		.lines = chip->lines,
		.elcr = chip->elcr,
		.irr = chip->lines & chip->elcr,
		.output = chip->output,
	};
}

static void write_ocw3(struct pic_chip *chip, uint8_t value)
{
	if (value & OCW3_SET_SPECIAL)
		chip->special_mask = !!(value & OCW3_SPECIAL);
	chip->poll = !!(value & OCW3_POLL);
	if (value & OCW3_READ)
		chip->read_isr = value & OCW3_ISR;
}

/* Ends what is in service with the highest priority; special mask mode spares what is masked. */
static void end_highest(struct pic_chip *chip, bool rotate)
{
	uint8_t set = chip->special_mask ? chip->isr & (uint8_t)~chip->imr : chip->isr;
	int line = highest(chip, set);

	if (line < 0)
		return;
	chip->isr &= (uint8_t)~BIT(line);
	if (CHIP_CHECK(PIC_ROTATE, rotate))
		chip->priority = (uint8_t)line;
}

/* OCW2: ends of interrupt and rotation; 40H does nothing. */
static void write_ocw2(struct pic_chip *chip, uint8_t value)
{
	uint8_t level = value & OCW2_LEVEL;

	switch (value & 0xe0) {
	case OCW2_ROTATE_AEOI_CLEAR: chip->rotate_aeoi = 0; break;
	case OCW2_ROTATE_AEOI_SET: chip->rotate_aeoi = 1; break;
	case OCW2_EOI: end_highest(chip, false); break;
	case OCW2_ROTATE_EOI: end_highest(chip, true); break;
	case OCW2_SPECIFIC_EOI: chip->isr &= (uint8_t)~BIT(level); break;
	case OCW2_SET_PRIORITY: chip->priority = level; break;
	case OCW2_ROTATE_SPECIFIC:
		chip->isr &= (uint8_t)~BIT(level);
		chip->priority = level;
		break;
	default: break;
	}
}

static void write_even(struct pic_chip *chip, uint8_t value)
{
	if (value & ICW1)
		write_icw1(chip, value);
	else if (value & OCW3)
		write_ocw3(chip, value);
	else
		write_ocw2(chip, value);
}

/* ICW3 comes only where there are two chips, ICW4 only where ICW1 says so. */
static void write_odd(struct pic_chip *chip, uint8_t value)
{
	if (!chip->expected) {
		chip->imr = value;
		return;
	}
	chip->icw[chip->expected - 1] = value;
	chip->expected++;
	if (chip->expected == 3 && (chip->icw[0] & ICW1_SINGLE))
		chip->expected = 4;
	if (chip->expected == 5 || (chip->expected == 4 && !(chip->icw[0] & ICW1_ICW4)))
		chip->expected = 0;
}

static void write_elcr(struct pic *pic, unsigned index, uint8_t value)
{
	struct pic_chip *chip = &pic->chip[index];

	chip->elcr = value & elcr_writable[index];
	chip->irr = (uint8_t)((chip->irr & ~chip->elcr) | (chip->lines & chip->elcr));
}

uint8_t pic_read(struct pic *pic, uint16_t port)
{
	struct pic_chip *chip = &pic->chip[port == PIC_SLAVE || port == PIC_SLAVE_DATA];

	if (port == PIC_ELCR || port == PIC_ELCR_SLAVE)
		return pic->chip[port - PIC_ELCR].elcr;
	if (chip->poll)
		return poll(pic, chip);
	if (port & 1)
		return chip->imr;
	return chip->read_isr ? chip->isr : chip->irr;
}

void pic_write(struct pic *pic, uint16_t port, uint8_t value)
{
	struct pic_chip *chip = &pic->chip[port == PIC_SLAVE || port == PIC_SLAVE_DATA];

	if (port == PIC_ELCR || port == PIC_ELCR_SLAVE)
		write_elcr(pic, port - PIC_ELCR, value);
	else if (port & 1)
		write_odd(chip, value);
	else
		write_even(chip, value);
	update(pic);
}

/* ---- state ---- */

static void loaded(void *device)
{
	struct pic *pic = device;

	if (pic->output)
		pic->output(pic->owner, pic->chip[0].output);
}

static const struct state_field fields[] = {STATE(struct pic, chip)};

static const char *wrong(const void *device, const void *values)
{
	const struct pic *pic = values;

	(void)device;
	for (unsigned i = 0; i < 2; i++)
		if (pic->chip[i].expected == 1 || pic->chip[i].expected > 4 || pic->chip[i].priority > 7)
			return "chip";
	return NULL;
}
STATE_TABLE(pic_state, "pic", 2, fields, loaded, wrong);
