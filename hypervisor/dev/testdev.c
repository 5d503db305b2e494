#include "dev/testdev.h"

#include <string.h>

static const struct state_field fields[] = {STATE(struct testdev, latch), STATE(struct testdev, lines),
					    STATE(struct testdev, memory)};
STATE_TABLE(testdev_state, "testdev", 1, fields);

static uint64_t latch_read(void *device, uint64_t offset, unsigned size)
{
	const struct testdev *testdev = device;
	uint64_t value = 0;

	memcpy(&value, testdev->latch + offset, size);
	return value;
}

static void latch_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct testdev *testdev = device;

	memcpy(testdev->latch + offset, &value, size);
}

/* Behind the debug console: the latch's upper half. */
static uint64_t latch2_read(void *device, uint64_t offset, unsigned size)
{
	return latch_read(device, offset + TESTDEV_BYTES2 - TESTDEV_BYTES, size);
}

static void latch2_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
	latch_write(device, offset + TESTDEV_BYTES2 - TESTDEV_BYTES, size, value);
}

/* Nothing here caches a page in a way that the guest could notice, so there is nothing to drop. */
static uint64_t flush_read(void *device, uint64_t offset, unsigned size)
{
	(void)device;
	(void)offset;
	(void)size;
	return 0;
}

static void flush_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
	(void)device;
	(void)offset;
	(void)size;
	(void)value;
}

static uint64_t line_read(void *device, uint64_t offset, unsigned size)
{
	const struct testdev *testdev = device;

	(void)size;
	return testdev->lines >> offset & 1;
}

static void line_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct testdev *testdev = device;
	uint32_t bit = 1u << offset;

	(void)size;
	testdev->lines = (testdev->lines & ~bit) | (value ? bit : 0);
	if (testdev->interrupt)
		testdev->interrupt(testdev->owner, (unsigned)offset, value != 0);
}

static uint64_t memory_read(void *device, uint64_t offset, unsigned size)
{
	const struct testdev *testdev = device;
	uint64_t value = 0;

	memcpy(&value, testdev->memory + offset, size);
	return value;
}

static void memory_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct testdev *testdev = device;

	memcpy(testdev->memory + offset, &value, size);
}

static const struct bus_ops latch_ops = {
	.name = "test latch", .width = 4, .read = latch_read, .write = latch_write};
static const struct bus_ops flush_ops = {
	.name = "test page flush", .width = 4, .read = flush_read, .write = flush_write};
static const struct bus_ops bytes_ops = {
	.name = "test byte latch", .width = 4, .reaches = true, .read = latch_read, .write = latch_write};
static const struct bus_ops bytes2_ops = {
	.name = "test byte latch", .width = 1, .read = latch2_read, .write = latch2_write};
static const struct bus_ops line_ops = {
	.name = "test interrupt lines", .width = 1, .read = line_read, .write = line_write};
static const struct bus_ops memory_ops = {
	.name = "test memory", .width = 8, .read = memory_read, .write = memory_write};

int testdev_attach(struct testdev *testdev, struct bus *bus)
{
	int error = bus_claim_ports(bus, TESTDEV_LATCH, 4, &latch_ops, testdev);

	if (!error)
		error = bus_claim_ports(bus, TESTDEV_FLUSH, 4, &flush_ops, testdev);
	if (!error)
		error = bus_claim_ports(bus, TESTDEV_BYTES, 1, &bytes_ops, testdev);
	if (!error)
		error = bus_claim_ports(bus, TESTDEV_BYTES2, 2, &bytes2_ops, testdev);
	if (!error)
		error = bus_claim_ports(bus, TESTDEV_LINES, TESTDEV_INPUTS, &line_ops, testdev);
	return error ? error : bus_claim_mmio(bus, TESTDEV_MEMORY, TESTDEV_SIZE, &memory_ops, testdev);
}
