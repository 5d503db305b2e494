#include "dev/bus.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

int bus_claim_ports(struct bus *bus, uint16_t first, unsigned count, const struct bus_ops *ops, void *device)
{
	if (count == 0 || first + count > 65536)
		return -EINVAL;
	if (bus->port_count == BUS_RANGES_MAX)
		return -ENOSPC;
	for (unsigned i = 0; i < count; i++)
		if (bus->port_map[first + i])
			return -EEXIST;
	bus->port[bus->port_count++] = (struct bus_range){first, count, ops, device};
	memset(bus->port_map + first, (int)bus->port_count, count);
	return 0;
}

int bus_claim_mmio(struct bus *bus, uint64_t first, uint64_t count, const struct bus_ops *ops, void *device)
{
	if (count == 0 || first + count < first)
		return -EINVAL;
	if (bus->mmio_count == BUS_RANGES_MAX)
		return -ENOSPC;
	for (unsigned i = 0; i < bus->mmio_count; i++)
		if (first < bus->mmio[i].first + bus->mmio[i].count && bus->mmio[i].first < first + count)
			return -EEXIST;
	bus->mmio[bus->mmio_count++] = (struct bus_range){first, count, ops, device};
	return 0;
}

static const struct bus_range *find_port(const struct bus *bus, unsigned port)
{
	unsigned index = port < 65536 ? bus->port_map[port] : 0;

	return index ? &bus->port[index - 1] : NULL;
}

static const struct bus_range *find_mmio(const struct bus *bus, uint64_t address)
{
	for (unsigned i = 0; i < bus->mmio_count; i++)
		if (address - bus->mmio[i].first < bus->mmio[i].count)
			return &bus->mmio[i];
	return NULL;
}

static const struct bus_range *find(struct bus *bus, const struct bus_access *access)
{
	const struct bus_range *range =
		access->port ? find_port(bus, (unsigned)access->address) : find_mmio(bus, access->address);

	if (range || !bus->decode || !bus->decode(bus->decode_owner, access, &bus->decoded))
		return range;
	return &bus->decoded;
}

static uint64_t ones(unsigned size) { return ~0ull >> (64 - 8 * size); }

static uint64_t answer_as_open(struct bus *bus, const struct bus_access *access, bool claimed)
{
	if (!bus->open_bus && bus->unclaimed)
		bus->unclaimed(bus->owner, access);
	if (bus->open_bus && bus->passed)
		bus->passed(bus->owner, access, claimed);
	return ones(access->size);
}

uint64_t bus_refuse(struct bus *bus, const struct bus_access *access)
{
	return answer_as_open(bus, access, true);
}

/* Does one access of at most 8 bytes; as several where the device is narrower. */
static void perform(struct bus *bus, struct bus_access *access)
{
	const struct bus_range *range = find(bus, access);
	uint64_t offset = range ? access->address - range->first : 0;

	if (range && access->size > range->ops->width) {
		unsigned part = range->ops->width;
		uint64_t value = 0;

		for (unsigned done = 0; done < access->size; done += part) {
			struct bus_access piece = *access;

			piece.address += done;
			piece.size = access->size - done < part ? access->size - done : part;
			piece.value = access->value >> (8 * done) & ones(piece.size);
			perform(bus, &piece);
			value |= (piece.value & ones(piece.size)) << (8 * done);
		}
		access->value = value;
		return;
	}
	if (!range || (offset + access->size > range->count && !range->ops->reaches)) {
		if (!access->write)
			access->value = ones(access->size);
		answer_as_open(bus, access, false);
		return;
	}
	if (!range->ops->apart)
		bus->changed = true;
	if (access->write)
		range->ops->write(range->device, offset, access->size, access->value);
	else
		access->value = range->ops->read(range->device, offset, access->size) & ones(access->size);
}

static void access_bus(struct bus *bus, struct bus_access *access)
{
	perform(bus, access);
	if (bus->traced)
		bus->traced(bus->trace_owner, access);
}

uint32_t bus_port_in(struct bus *bus, uint16_t port, unsigned size)
{
	struct bus_access access = {.port = true, .address = port, .size = size};

	access_bus(bus, &access);
	return (uint32_t)access.value;
}

void bus_port_out(struct bus *bus, uint16_t port, unsigned size, uint32_t value)
{
	struct bus_access access = {
		.port = true, .write = true, .address = port, .size = size, .value = value & ones(size)};

	access_bus(bus, &access);
}

void bus_mmio_read(struct bus *bus, uint64_t address, void *to, unsigned size)
{
	for (unsigned done = 0; done < size;) {
		struct bus_access access = {.address = address + done,
					    .size = size - done < 8 ? size - done : 8};

		access_bus(bus, &access);
		memcpy((uint8_t *)to + done, &access.value, access.size);
		done += access.size;
	}
}

void bus_mmio_write(struct bus *bus, uint64_t address, const void *from, unsigned size)
{
	for (unsigned done = 0; done < size;) {
		struct bus_access access = {
			.write = true, .address = address + done, .size = size - done < 8 ? size - done : 8};

		memcpy(&access.value, (const uint8_t *)from + done, access.size);
		access_bus(bus, &access);
		done += access.size;
	}
}

void bus_access_text(const struct bus_access *access, char *text, size_t size)
{
	const char *what = access->port ? (access->write ? "out" : "in") : (access->write ? "write" : "read");

	snprintf(text, size, "%s 0x%" PRIx64 " size %u value 0x%" PRIx64, what, access->address, access->size,
		 access->value);
}
