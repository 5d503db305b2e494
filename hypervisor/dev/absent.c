#include "dev/absent.h"

struct range {
	uint16_t first, count;
	const char *name;
};

static const struct range ranges[] = {
#define ABSENT(first_, count_, name_, who) {first_, count_, name_},
#include "dev/absent.def"
#undef ABSENT
};
#define RANGES (sizeof(ranges) / sizeof(ranges[0]))

static uint64_t absent_read(void *device, uint64_t offset, unsigned size)
{
	(void)device;
	(void)offset;
	(void)size;
	return ~0ull;
}

static void absent_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
	(void)device;
	(void)offset;
	(void)size;
	(void)value;
}

static const struct bus_ops absent_ops = {
	.name = "absent", .width = 4, .reaches = true, .read = absent_read, .write = absent_write};

int absent_attach(struct bus *bus)
{
	for (unsigned i = 0; i < RANGES; i++) {
		int error = bus_claim_ports(bus, ranges[i].first, ranges[i].count, &absent_ops, NULL);

		if (error)
			return error;
	}
	return 0;
}

const char *absent_name(uint16_t port)
{
	for (unsigned i = 0; i < RANGES; i++)
		if ((unsigned)(port - ranges[i].first) < ranges[i].count)
			return ranges[i].name;
	return NULL;
}
