/*
 * bus.h: who answers at a port or at a physical address that is no memory.
 *
 * A device claims ranges, one call each. An access that nobody claims, or that lies only
 * partly in a range, is told to bus->unclaimed and answers all ones; with
 * bus->open_bus it is told to bus->passed instead.
 */
#ifndef TRAPLINE_DEV_BUS_H
#define TRAPLINE_DEV_BUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* @offset is from the start of the range; sizes are 1, 2, 4 (ports) or 1 to 8 bytes. */
struct bus_ops {
	const char *name;
	unsigned width; /* widest access that the device takes; wider ones come as several, lowest first */
	bool reaches;   /* an access that begins in the range is the device's even where it ends behind it */
	bool apart;     /* an access changes nothing beyond this device and its interrupt line */
	uint64_t (*read)(void *device, uint64_t offset, unsigned size);
	void (*write)(void *device, uint64_t offset, unsigned size, uint64_t value);
};

struct bus_range {
	uint64_t first, count;
	const struct bus_ops *ops;
	void *device;
};

struct bus_access {
	bool port, write;
	uint64_t address;
	unsigned size;
	uint64_t value; /* read or written; of MMIO wider than 8 bytes, the first 8 */
};

#define BUS_RANGES_MAX 128

struct bus {
	void *owner;
	bool changed; /* set by each access to a device that is not apart; for whoever puts devices back */
	void (*unclaimed)(void *owner, const struct bus_access *access);
	/* With open_bus. @claimed: a device answers there, but does not model this. May be NULL. */
	void (*passed)(void *owner, const struct bus_access *access, bool claimed);
	void (*traced)(void *trace_owner, const struct bus_access *access); /* each access, when not NULL */
	void *trace_owner;
	/* Asked where no claimed range answers: whether one that moves (PCI) does, and which. May be NULL. */
	bool (*decode)(void *decode_owner, const struct bus_access *access, struct bus_range *range);
	void *decode_owner;
	struct bus_range decoded; /* what it has said last */
	bool open_bus;
	unsigned port_count, mmio_count;
	struct bus_range port[BUS_RANGES_MAX], mmio[BUS_RANGES_MAX];
	uint8_t port_map[65536]; /* index in port, plus one */
};

/* 0, -EEXIST where the range overlaps another, -EINVAL where it is empty or no range, -ENOSPC. */
int bus_claim_ports(struct bus *bus, uint16_t first, unsigned count, const struct bus_ops *ops, void *device);
int bus_claim_mmio(struct bus *bus, uint64_t first, uint64_t count, const struct bus_ops *ops, void *device);

uint32_t bus_port_in(struct bus *bus, uint16_t port, unsigned size);
void bus_port_out(struct bus *bus, uint16_t port, unsigned size, uint32_t value);
void bus_mmio_read(struct bus *bus, uint64_t address, void *to, unsigned size);
void bus_mmio_write(struct bus *bus, uint64_t address, const void *from, unsigned size);

/* From a device: an access that it answers at, but of which it does not model what was asked for. Told and
 * answered as an access that nobody claims. Returns all ones. */
uint64_t bus_refuse(struct bus *bus, const struct bus_access *access);

/* "out 0xf4 size 4 value 0x10" */
void bus_access_text(const struct bus_access *access, char *text, size_t size);

#endif
