#include "dev/i8237.h"

#include <string.h>

/* Registers behind the channels' eight. */
enum { COMMAND = 8, REQUEST, MASK, MODE, CLEAR_FLIP_FLOP, MASTER_CLEAR, CLEAR_MASK, MASK_ALL };

#define COMMAND_MEMORY  0x01
#define COMMAND_DISABLE 0x04
#define MODE_BLOCK      0x80 /* of bits 7:6: 10 */
#define MODE_SELECT     0xc0
#define SET             0x04 /* in a write of REQUEST and MASK */

static const struct state_field fields[] = {STATE(struct i8237, chip), STATE(struct i8237, pages)};
STATE_TABLE(i8237_state, "dma", 1, fields);

static void master_clear(struct i8237_chip *chip)
{
	chip->command = chip->request = chip->high = 0;
	chip->mask = 0x0f;
}

/* A transfer that would begin now, without a device. */
static bool would_transfer(const struct i8237_chip *chip)
{
	for (unsigned i = 0; i < 4; i++)
		if ((chip->request & ~chip->mask) >> i & 1 && (chip->mode[i] & MODE_SELECT) == MODE_BLOCK)
			return !(chip->command & COMMAND_DISABLE);
	return chip->command & COMMAND_MEMORY;
}

static uint8_t half(struct i8237_chip *chip, uint16_t value)
{
	uint8_t byte = (uint8_t)(chip->high ? value >> 8 : value);

	chip->high ^= 1;
	return byte;
}

static uint8_t read_register(struct i8237_chip *chip, unsigned at)
{
	if (at < COMMAND)
		return half(chip, at & 1 ? chip->count[at / 2] : chip->address[at / 2]);
	switch (at) {
	case COMMAND: return (uint8_t)(chip->request << 4); /* status: no channel has come to its end */
	case MASK_ALL: return chip->mask | 0xf0;
	default: return 0; /* temporary register; the others are write-only */
	}
}

static void write_channel(struct i8237_chip *chip, unsigned at, uint8_t value)
{
	uint16_t *base = at & 1 ? &chip->base_count[at / 2] : &chip->base_address[at / 2];
	uint16_t *current = at & 1 ? &chip->count[at / 2] : &chip->address[at / 2];

	if (chip->high)
		*base = (uint16_t)((*base & 0x00ff) | value << 8);
	else
		*base = (uint16_t)((*base & 0xff00) | value);
	*current = *base;
	chip->high ^= 1;
}

static uint8_t with_bit(uint8_t bits, uint8_t value)
{
	uint8_t bit = (uint8_t)(1u << (value & 3));

	return (uint8_t)(value & SET ? bits | bit : bits & ~bit);
}

static void write_register(struct i8237_chip *chip, unsigned at, uint8_t value)
{
	if (at < COMMAND) {
		write_channel(chip, at, value);
		return;
	}
	switch (at) {
	case COMMAND: chip->command = value; break;
	case REQUEST: chip->request = with_bit(chip->request, value); break;
	case MASK: chip->mask = with_bit(chip->mask, value); break;
	case MODE: chip->mode[value & 3] = value & 0xfc; break;
	case CLEAR_FLIP_FLOP: chip->high = 0; break;
	case MASTER_CLEAR: master_clear(chip); break;
	case CLEAR_MASK: chip->mask = 0; break;
	default: chip->mask = value & 0x0f; break;
	}
}

static void write_chip(struct i8237 *controllers, unsigned index, uint64_t offset, uint64_t value)
{
	struct i8237_chip *chip = &controllers->chip[index];
	struct bus_access access = {.port = true,
				    .write = true,
				    .address = (index ? DMA_SECOND : DMA_FIRST) + offset,
				    .size = 1,
				    .value = value};

	write_register(chip, (unsigned)offset >> index, (uint8_t)value);
	if (would_transfer(chip))
		bus_refuse(controllers->bus, &access);
}

static uint64_t first_read(void *device, uint64_t offset, unsigned size)
{
	(void)size;
	return read_register(&((struct i8237 *)device)->chip[0], (unsigned)offset);
}

static void first_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
	(void)size;
	write_chip(device, 0, offset, value);
}

/* Odd ports of the second controller are its registers again (82371AB, 4.1). */
static uint64_t second_read(void *device, uint64_t offset, unsigned size)
{
	(void)size;
	return read_register(&((struct i8237 *)device)->chip[1], (unsigned)offset / 2);
}

static void second_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
	(void)size;
	write_chip(device, 1, offset, value);
}

static uint64_t page_read(void *device, uint64_t offset, unsigned size)
{
	(void)size;
	return ((struct i8237 *)device)->pages[offset];
}

static void page_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
	(void)size;
	((struct i8237 *)device)->pages[offset] = (uint8_t)value;
}

static const struct bus_ops first_ops = {
	.name = "DMA 1", .width = 1, .read = first_read, .write = first_write};
static const struct bus_ops second_ops = {
	.name = "DMA 2", .width = 1, .read = second_read, .write = second_write};
static const struct bus_ops page_ops = {
	.name = "DMA page registers", .width = 1, .read = page_read, .write = page_write};

int i8237_attach(struct i8237 *controllers, struct bus *bus)
{
	int error = bus_claim_ports(bus, DMA_FIRST, 16, &first_ops, controllers);

	controllers->bus = bus;
	if (!error)
		error = bus_claim_ports(bus, DMA_SECOND, 32, &second_ops, controllers);
	return error ? error
		     : bus_claim_ports(bus, DMA_PAGES, sizeof(controllers->pages), &page_ops, controllers);
}

void i8237_reset(struct i8237 *controllers)
{
	memset(controllers->chip, 0, sizeof(controllers->chip));
	memset(controllers->pages, 0, sizeof(controllers->pages));
	master_clear(&controllers->chip[0]);
	master_clear(&controllers->chip[1]);
}
