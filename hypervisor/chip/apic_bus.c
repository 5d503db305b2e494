/*
 * apic_bus.c: who a message addresses (SDM 3A 11.6.2, 11.12.10), IPIs (11.6.1) and MSIs (11.11).
 *
 * Messages arrive at once and in the order in which they are sent. A set of local APICs is a bit each.
 */
#include "chip/lapic_parts.h"

#define ICR_SHORTHAND    (3u << 18)
#define ICR_REMOTE_VALID (2u << 16)

enum shorthand { SHORTHAND_NONE, SHORTHAND_SELF, SHORTHAND_ALL, SHORTHAND_OTHERS };

/* All ones are a broadcast; 8 of them where the sender has no more (SDM 3A 11.6.2.1, 11.12.9). */
static bool is_broadcast(const struct apic_message *message)
{
	return message->destination == (message->wide ? 0xffffffff : 0xff);
}

/* Cluster and set within (SDM 3A 11.12.10.1). */
static bool in_x2apic_cluster(const struct lapic *lapic, uint32_t destination)
{
	return lapic->ldr >> 16 == destination >> 16 && (lapic->ldr & destination & 0xffff);
}

/* Flat or cluster model, as DFR says; its other values mean nothing (SDM 3A 11.6.2.2). */
static bool in_logical_set(const struct lapic *lapic, uint32_t destination)
{
	uint32_t own = lapic->ldr >> 24;

	if (destination > 0xff)
		return false;
	switch (lapic->dfr >> 28) {
	case 0xf: return own & destination;
	case 0: return own >> 4 == destination >> 4 && (own & destination & 0xf);
	default: return false;
	}
}

static bool addressed(const struct lapic *lapic, const struct apic_message *message)
{
	if (CHIP_CHECK(APIC_DISABLED, !lapic_enabled(lapic)))
		return false;
	if (CHIP_CHECK(APIC_BROADCAST, is_broadcast(message)))
		return true;
	if (CHIP_CHECK(APIC_LOGICAL_MODE, message->logical))
		return lapic_x2apic(lapic) ? in_x2apic_cluster(lapic, message->destination)
					   : in_logical_set(lapic, message->destination);
	return message->destination == (lapic_x2apic(lapic) ? lapic->id : lapic->apic_id);
}

static uint64_t addressed_set(const struct apic_bus *bus, const struct apic_message *message)
{
	uint64_t set = 0;

	for (unsigned i = 0; i < bus->count; i++)
		if (addressed(bus->apic[i], message))
			set |= 1ull << i;
	return set;
}

/* AMD: who has the vector requested or in service takes it, unless it does not look (APM 2 16.6.1). */
static bool is_focus(const struct lapic *lapic, uint8_t vector)
{
	uint32_t bit = 1u << (vector & 31);

	return lapic->model.amd && !(lapic->svr & SVR_FOCUS_OFF) &&
	       ((lapic->irr[vector >> 5] | lapic->isr[vector >> 5]) & bit);
}

/*
 * Who of @set gets a message of lowest priority: the focus processor, else who has the lowest arbitration
 * priority, of equal ones the first on the bus (SDM 3A 11.6.2.4: the manual leaves it to the system). Only
 * those who accept take part.
 */
static uint64_t lowest(const struct apic_bus *bus, uint64_t set, const struct apic_message *message)
{
	uint32_t best = UINT32_MAX;
	uint64_t chosen = 0;

	for (unsigned i = 0; i < bus->count; i++) {
		const struct lapic *lapic = bus->apic[i];

		if (!(set >> i & 1) || !lapic_software_enabled(lapic))
			continue;
		if (is_focus(lapic, message->vector))
			return 1ull << i;
		if (!chosen || CHIP_CHECK(APIC_LOWEST, lapic_apr(lapic) < best)) {
			best = lapic_apr(lapic);
			chosen = 1ull << i;
		}
	}
	return chosen;
}

static bool deliver(struct apic_bus *bus, uint64_t set, const struct apic_message *message)
{
	bool accepted = false;

	if (message->delivery == APIC_LOWEST_PRIORITY)
		set = lowest(bus, set, message);
	for (unsigned i = 0; i < bus->count; i++)
		if (set >> i & 1)
			accepted |= lapic_deliver(bus->apic[i], message);
	return accepted;
}

bool apic_bus_send(struct apic_bus *bus, const struct apic_message *message)
{
	return deliver(bus, addressed_set(bus, message), message);
}

void apic_bus_retry(struct apic_bus *bus)
{
	if (bus->retry)
		bus->retry(bus->owner);
}

void apic_bus_extint(struct apic_bus *bus, bool raised)
{
	bus->extint = raised;
	for (unsigned i = 0; i < bus->count; i++)
		lapic_set_lint(bus->apic[i], 0, raised);
}

/* ---- IPIs ---- */

/* AMD: the register whose offset is 16 times the vector, of one other APIC (APM 2 16.5). */
static void remote_read(struct lapic *lapic, uint64_t set, uint8_t vector)
{
	struct apic_bus *bus = lapic->bus;
	bool exists = false;

	for (unsigned i = 0; i < bus->count; i++)
		if (set == 1ull << i)
			lapic->remote_read = lapic_read(bus->apic[i], (unsigned)vector << 4, &exists);
	if (exists)
		lapic->icr |= ICR_REMOTE_VALID;
}

static uint64_t targets(const struct lapic *lapic, const struct apic_message *message,
			enum shorthand shorthand)
{
	const struct apic_bus *bus = lapic->bus;
	const struct apic_message all = {.destination = 0xffffffff, .wide = true};
	uint64_t self = 0;

	for (unsigned i = 0; i < bus->count; i++)
		if (bus->apic[i] == lapic)
			self = 1ull << i;
	switch (shorthand) {
	case SHORTHAND_SELF: return self;
	case SHORTHAND_ALL: return addressed_set(bus, &all) | self;
	case SHORTHAND_OTHERS: return addressed_set(bus, &all) & ~self;
	case SHORTHAND_NONE: break;
	}
	return addressed_set(bus, message);
}

/* Delivery modes that an ICR has: Intel's neither remote read nor ExtINT (SDM 3A figure 11-12). */
static bool sendable(const struct lapic *lapic, enum apic_delivery delivery)
{
	return lapic->model.amd || (delivery != APIC_REMOTE_READ && delivery != APIC_EXTINT);
}

/* Refusals of what is about to be sent, which ESR keeps (SDM 3A 11.5.3). */
static bool refused(struct lapic *lapic, const struct apic_message *message)
{
	bool lowest_priority = message->delivery == APIC_LOWEST_PRIORITY;

	if (!sendable(lapic, message->delivery))
		return true;
	if (lowest_priority && CHIP_CHECK(APIC_REDIRECTABLE, lapic->model.no_lowest_ipi)) {
		lapic_error(lapic, ERROR_REDIRECTABLE_IPI);
		return true;
	}
	if ((lowest_priority || message->delivery == APIC_FIXED) &&
	    CHIP_CHECK(APIC_SEND_VECTOR, message->vector < 16))
		lapic_error(lapic, ERROR_SEND_VECTOR);
	return false;
}

/*
 * Intel's trigger mode and level mean something for INIT alone, all else goes out as an edge (SDM 3A 11.6.1);
 * AMD's can be levels, of which only the assertion does something (APM 2 table 16-4).
 */
static bool ignored(const struct lapic *lapic, struct apic_message *message)
{
	if (message->delivery == APIC_INIT)
		return false;
	if (!lapic->model.amd)
		message->level = false;
	return message->level && !message->assert;
}

void lapic_send(struct lapic *lapic, uint64_t icr)
{
	struct apic_message message = {
		.destination = (uint32_t)(lapic_x2apic(lapic) ? icr >> 32 : icr >> 56),
		.wide = lapic_x2apic(lapic),
		.logical = icr & APIC_LOGICAL,
		.level = icr & APIC_LEVEL,
		.assert = icr & APIC_ASSERT,
		.delivery = apic_delivery_of((uint32_t)icr),
		.vector = (uint8_t)icr,
	};
	enum shorthand shorthand = (enum shorthand)((icr & ICR_SHORTHAND) >> 18);
	uint64_t set;

	if (refused(lapic, &message) || ignored(lapic, &message))
		return;
	set = targets(lapic, &message, shorthand);
	if (message.delivery == APIC_REMOTE_READ)
		remote_read(lapic, set, message.vector);
	else if (!deliver(lapic->bus, set, &message) && lapic->model.amd && shorthand == SHORTHAND_NONE)
		lapic_error(lapic, ERROR_SEND_ACCEPT);
}

/* ---- MSI ---- */

#define MSI_REDIRECTION (1u << 3)
#define MSI_LOGICAL     (1u << 2)

/* With the redirection hint and a logical destination, to one of them (SDM 3A 11.11.1). */
bool apic_bus_msi(struct apic_bus *bus, uint64_t address, uint32_t data)
{
	struct apic_message message = {
		.destination = (uint32_t)(address >> 12) & 0xff,
		.logical = address & MSI_LOGICAL,
		.level = data & APIC_LEVEL,
		.assert = data & APIC_ASSERT,
		.delivery = apic_delivery_of(data),
		.vector = (uint8_t)data,
	};

	if (address >> 20 != 0xfee || message.delivery == APIC_REMOTE_READ ||
	    message.delivery == APIC_STARTUP)
		return false;
	if (message.level && !message.assert)
		return true;
	if ((address & MSI_REDIRECTION) && message.logical && message.delivery == APIC_FIXED)
		message.delivery = APIC_LOWEST_PRIORITY;
	return apic_bus_send(bus, &message);
}
