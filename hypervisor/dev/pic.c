#include "dev/pic.h"

#define ICW1             0x10 /* in a write to the even port: ICW1 */
#define ICW1_ICW4        0x01
#define ICW1_SINGLE      0x02
#define OCW3             0x08 /* in a write to the even port: OCW3, else OCW2 */
#define OCW3_READ        0x02
#define OCW3_ISR         0x01
#define OCW3_POLL        0x04
#define OCW3_SET_SPECIAL 0x40
#define OCW3_SPECIAL     0x20
#define OCW2_ROTATE      0x80
#define OCW2_SPECIFIC    0x40
#define OCW2_EOI         0x20
#define OCW2_LEVEL       0x07

static const struct state_field fields[] = {STATE(struct pic, chip)};
STATE_TABLE(pic_state, "pic", 1, fields);

void pic_reset(struct pic *pic)
{
	for (unsigned i = 0; i < 2; i++)
		pic->chip[i] = (struct pic_chip){.imr = 0xff, .priority = 7};
}

static uint8_t read_even(struct pic_chip *chip)
{
	/* A poll answers with the highest request in bits 2:0 and bit 7 set; there is none. */
	if (chip->poll) {
		chip->poll = 0;
		return 0;
	}
	return chip->read_isr ? chip->isr : chip->irr;
}

static void write_icw1(struct pic_chip *chip, uint8_t value)
{
	*chip = (struct pic_chip){.icw = {value}, .expected = 2, .priority = 7};
}

static void write_ocw3(struct pic_chip *chip, uint8_t value)
{
	if (value & OCW3_SET_SPECIAL)
		chip->special_mask = !!(value & OCW3_SPECIAL);
	chip->poll = !!(value & OCW3_POLL);
	if (value & OCW3_READ)
		chip->read_isr = value & OCW3_ISR;
}

/* With nothing in service an end of interrupt ends nothing; setting the priority stays. */
static void write_ocw2(struct pic_chip *chip, uint8_t value)
{
	if ((value & (OCW2_ROTATE | OCW2_SPECIFIC)) == (OCW2_ROTATE | OCW2_SPECIFIC))
		chip->priority = value & OCW2_LEVEL;
	if ((value & (OCW2_EOI | OCW2_SPECIFIC)) == (OCW2_EOI | OCW2_SPECIFIC))
		chip->isr &= (uint8_t) ~(1u << (value & OCW2_LEVEL));
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

static uint64_t chip_read(void *device, uint64_t offset, unsigned size)
{
	struct pic_chip *chip = device;

	(void)size;
	return offset ? chip->imr : read_even(chip);
}

static void chip_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
	(void)size;
	if (offset)
		write_odd(device, (uint8_t)value);
	else
		write_even(device, (uint8_t)value);
}

static const struct bus_ops chip_ops = {.name = "PIC", .width = 1, .read = chip_read, .write = chip_write};

int pic_attach(struct pic *pic, struct bus *bus)
{
	int error = bus_claim_ports(bus, 0x20, 2, &chip_ops, &pic->chip[0]);

	return error ? error : bus_claim_ports(bus, 0xa0, 2, &chip_ops, &pic->chip[1]);
}
