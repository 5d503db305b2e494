#include "dev/debug.h"

#include <string.h>

#include "x86/control_device.h"

static const struct state_field fields[] = {STATE(struct debug, post)};
STATE_TABLE(debug_state, "debug", 1, fields);

static uint64_t console_read(void *device, uint64_t offset, unsigned size)
{
	(void)device;
	(void)offset;
	(void)size;
	return DEBUG_CONSOLE_PORT;
}

static void console_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct debug *debug = device;

	(void)offset;
	(void)size;
	debug->printed(debug->owner, (uint8_t)value);
}

static uint64_t exit_read(void *device, uint64_t offset, unsigned size)
{
	(void)device;
	(void)offset;
	(void)size;
	return 0;
}

static void exit_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct debug *debug = device;

	(void)offset;
	(void)size;
	debug->exited(debug->owner, (uint32_t)value);
}

static uint64_t post_read(void *device, uint64_t offset, unsigned size)
{
	const struct debug *debug = device;
	uint64_t value = 0;

	memcpy(&value, debug->post + offset, size);
	return value;
}

static void post_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct debug *debug = device;

	memcpy(debug->post + offset, &value, size);
}

static const struct bus_ops console_ops = {
	.name = "debug console", .width = 1, .apart = true, .read = console_read, .write = console_write};
static const struct bus_ops exit_ops = {
	.name = "debug exit", .width = 4, .apart = true, .read = exit_read, .write = exit_write};
static const struct bus_ops post_ops = {
	.name = "diagnostic port", .width = 4, .apart = true, .read = post_read, .write = post_write};

int debug_attach(struct debug *debug, struct bus *bus)
{
	int error = bus_claim_ports(bus, DEBUG_CONSOLE_PORT, 1, &console_ops, debug);

	if (!error)
		error = bus_claim_ports(bus, DEBUG_EXIT_PORT, 4, &exit_ops, debug);
	if (!error)
		error = bus_claim_ports(bus, POST_PORT, sizeof(debug->post), &post_ops, debug);
	return error;
}
