#include "dev/control.h"

#include "x86/control_device.h"

static const struct state_field fields[] = {STATE(struct control, present), STATE(struct control, ready)};
STATE_TABLE(control_state, "control", 1, fields);

#define AT(port) (CONTROL_PORT_##port - CONTROL_PORT_SIGNATURE)

static void misuse(struct control *control, bool write, uint64_t offset, unsigned size, uint64_t value)
{
	struct bus_access access = {.port = true,
				    .write = write,
				    .address = CONTROL_PORT_SIGNATURE + offset,
				    .size = size,
				    .value = value};

	control->misused(control->owner, &access);
}

static uint64_t control_read(void *device, uint64_t offset, unsigned size)
{
	struct control *control = device;

	if (!control->present)
		return ~0ull;
	if (size == 4 && offset == AT(SIGNATURE))
		return CONTROL_SIGNATURE;
	if (size == 4 && offset == AT(CASE) && control->ready)
		return control->case_index;
	misuse(control, false, offset, size, 0);
	return ~0ull;
}

static void control_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct control *control = device;
	bool command = control->present && size == 4 && offset == AT(COMMAND);

	if (command && value == CONTROL_READY && !control->ready) {
		control->ready = 1;
		control->command(control->owner, CONTROL_READY);
	} else if (command && value == CONTROL_DONE && control->ready) {
		control->command(control->owner, CONTROL_DONE);
	} else {
		misuse(control, true, offset, size, value);
	}
}

static const struct bus_ops control_ops = {
	.name = "control device", .width = 4, .apart = true, .read = control_read, .write = control_write};

int control_attach(struct control *control, struct bus *bus)
{
	return bus_claim_ports(bus, CONTROL_PORT_SIGNATURE, CONTROL_PORTS, &control_ops, control);
}
