#include "chip/ioapic.h"

#include "chip/check.h"

enum offset { IOREGSEL = 0x00, IOWIN = 0x10, EOI = 0x40 };
enum index { IOAPICID = 0, IOAPICVER = 1, IOAPICARB = 2, IOREDTBL = 0x10 };

#define VERSION 0x20u /* the first that has the EOI register */

/* Of an entry's low half. */
#define VECTOR        0xffu
#define LOGICAL       (1u << 11)
#define STATUS        (1u << 12)
#define LOW_ACTIVE    (1u << 13)
#define REMOTE_IRR    (1u << 14)
#define LEVEL         (1u << 15)
#define MASKED        (1u << 16)
#define WRITABLE_LOW  0x1afffu
#define WRITABLE_HIGH 0xff000000u
#define BIT(n)        (1u << (n))

static enum apic_delivery delivery(uint64_t entry) { return (enum apic_delivery)(entry >> 8 & 7); }

/* A level means something for these two; all else goes out once an edge (82093AA 3.2.4). */
static bool is_level(uint64_t entry)
{
	return (entry & LEVEL) && (delivery(entry) == APIC_FIXED || delivery(entry) == APIC_LOWEST_PRIORITY);
}

static bool asserted(const struct ioapic *ioapic, unsigned input)
{
	return (ioapic->lines >> input & 1) != !!(ioapic->entry[input] & LOW_ACTIVE);
}

/* Whether the bus has taken the entry's message; what it says is reserved is never sent. */
static bool send(struct ioapic *ioapic, uint64_t entry)
{
	const struct apic_message message = {
		.destination = (uint32_t)(entry >> 56),
		.logical = entry & LOGICAL,
		.level = is_level(entry),
		.assert = true,
		.delivery = delivery(entry),
		.vector = entry & VECTOR,
	};

	if (message.delivery == APIC_REMOTE_READ || message.delivery == APIC_STARTUP)
		return true;
	return apic_bus_send(ioapic->bus, &message);
}

/*
 * Sends what an input has to say and has not said (82093AA 3.2.4): a level as long as it is asserted and no
 * EOI is awaited, an edge until it is accepted. Delivery status tells that it was not. The flags are set
 * before, as an EOI may come from within.
 */
static void service(struct ioapic *ioapic, unsigned input)
{
	uint64_t *entry = &ioapic->entry[input];
	bool level = is_level(*entry), wanted;

	if (level)
		ioapic->pending &= ~BIT(input);
	wanted = level ? asserted(ioapic, input) && !CHIP_CHECK(IOAPIC_REMOTE_IRR, *entry & REMOTE_IRR)
		       : ioapic->pending & BIT(input);
	*entry &= ~(uint64_t)STATUS;
	if (!wanted || CHIP_CHECK(IOAPIC_MASK, *entry & MASKED))
		return;
	*entry |= level ? REMOTE_IRR : 0;
	ioapic->pending &= ~BIT(input);
	if (send(ioapic, *entry))
		return;
	*entry |= STATUS;
	if (level)
		*entry &= ~(uint64_t)REMOTE_IRR;
	else
		ioapic->pending |= BIT(input);
}

/* A masked edge is lost (82093AA 3.2.4). */
void ioapic_line(struct ioapic *ioapic, unsigned input, bool high)
{
	bool was;

	if (input >= IOAPIC_INPUTS)
		return;
	was = asserted(ioapic, input);
	ioapic->lines = (ioapic->lines & ~BIT(input)) | (high ? BIT(input) : 0);
	if (asserted(ioapic, input) && !was && !CHIP_CHECK(IOAPIC_MASKED_EDGE, ioapic->entry[input] & MASKED))
		ioapic->pending |= BIT(input);
	service(ioapic, input);
}

void ioapic_eoi(struct ioapic *ioapic, uint8_t vector)
{
	for (unsigned i = 0; i < IOAPIC_INPUTS; i++) {
		uint64_t *entry = &ioapic->entry[i];

		if (!(*entry & REMOTE_IRR) || CHIP_CHECK(IOAPIC_EOI_VECTOR, (*entry & VECTOR) != vector))
			continue;
		*entry &= ~(uint64_t)REMOTE_IRR;
		service(ioapic, i);
	}
}

void ioapic_retry(struct ioapic *ioapic)
{
	for (unsigned i = 0; i < IOAPIC_INPUTS; i++)
		if (ioapic->entry[i] & STATUS)
			service(ioapic, i);
}

/* ---- registers ---- */

/* Delivery status and remote IRR only read; an entry that becomes edge-triggered awaits no EOI any more. */
static void write_entry(struct ioapic *ioapic, unsigned index, uint32_t value)
{
	unsigned input = (index - IOREDTBL) / 2;
	uint64_t *entry = &ioapic->entry[input];

	if (index & 1) {
		*entry = (uint32_t)*entry | (uint64_t)(value & WRITABLE_HIGH) << 32;
	} else {
		uint64_t kept = *entry & ~(uint64_t)WRITABLE_LOW;

		*entry = kept | (value & WRITABLE_LOW);
		if (!is_level(*entry))
			*entry &= ~(uint64_t)REMOTE_IRR;
		if (*entry & MASKED)
			ioapic->pending &= ~BIT(input);
	}
	service(ioapic, input);
}

static bool is_entry(unsigned index) { return index >= IOREDTBL && index < IOREDTBL + 2 * IOAPIC_INPUTS; }

static uint32_t read_window(const struct ioapic *ioapic)
{
	unsigned index = ioapic->select;

	switch (index) {
	case IOAPICID:
	/* Loaded with the id; there is no bus to arbitrate for, so it stays that. */
	case IOAPICARB: return ioapic->id;
	case IOAPICVER: return (IOAPIC_INPUTS - 1) << 16 | VERSION;
	default: break;
	}
	if (!is_entry(index))
		return 0;
	return (uint32_t)(ioapic->entry[(index - IOREDTBL) / 2] >> 32 * (index & 1));
}

static void write_window(struct ioapic *ioapic, uint32_t value)
{
	if (ioapic->select == IOAPICID)
		ioapic->id = value & 0x0f000000;
	else if (is_entry(ioapic->select))
		write_entry(ioapic, ioapic->select, value);
}

static uint32_t word_at(const uint8_t *byte)
{
	return byte[0] | (uint32_t)byte[1] << 8 | (uint32_t)byte[2] << 16 | (uint32_t)byte[3] << 24;
}

void ioapic_mmio_read(struct ioapic *ioapic, unsigned offset, void *to, unsigned size)
{
	uint8_t *byte = to;

	for (; size; size--, offset++) {
		uint32_t value = 0;

		if ((offset & ~3u) == IOREGSEL)
			value = ioapic->select;
		else if ((offset & ~3u) == IOWIN)
			value = read_window(ioapic);
		*byte++ = (uint8_t)(value >> 8 * (offset & 3));
	}
}

void ioapic_mmio_write(struct ioapic *ioapic, unsigned offset, const void *from, unsigned size)
{
	const uint8_t *byte = from;

	/* These two are 8 bits wide, and a byte is enough. */
	if (offset == IOREGSEL)
		ioapic->select = byte[0];
	else if (offset == EOI)
		ioapic_eoi(ioapic, byte[0]);
	else if (offset == IOWIN && size >= 4)
		write_window(ioapic, word_at(byte));
}

/* ---- life ---- */

void ioapic_reset(struct ioapic *ioapic)
{
	ioapic->id = ioapic->select = ioapic->pending = 0;
	for (unsigned i = 0; i < IOAPIC_INPUTS; i++)
		ioapic->entry[i] = MASKED;
}

void ioapic_init(struct ioapic *ioapic, struct apic_bus *bus)
{
	ioapic->bus = bus;
	ioapic_reset(ioapic);
}

static const struct state_field fields[] = {
	STATE(struct ioapic, id),    STATE(struct ioapic, select),  STATE(struct ioapic, entry),
	STATE(struct ioapic, lines), STATE(struct ioapic, pending),
};
STATE_TABLE(ioapic_state, "ioapic", 1, fields);
