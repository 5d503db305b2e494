#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "dev/bus.h"
#include "dev/control.h"
#include "dev/debug.h"
#include "dev/pci.h"
#include "x86/control_device.h"

/* A device of bytes that remembers the accesses it saw. */
struct store {
	uint8_t byte[16];
	unsigned reads, writes;
};

static uint64_t store_read(void *device, uint64_t offset, unsigned size)
{
	struct store *store = device;
	uint64_t value = 0;

	store->reads++;
	memcpy(&value, store->byte + offset, size);
	return value;
}

static void store_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct store *store = device;

	store->writes++;
	memcpy(store->byte + offset, &value, size);
}

static const struct bus_ops wide = {.name = "wide", .width = 8, .read = store_read, .write = store_write};
static const struct bus_ops narrow = {.name = "narrow", .width = 1, .read = store_read, .write = store_write};

struct session {
	struct bus bus;
	struct store store;
	unsigned unclaimed, traced;
	struct bus_access last;
	unsigned ready, done, misused, exits, resets;
	uint32_t exit_value;
	char text[64];
};

static void on_unclaimed(void *owner, const struct bus_access *access)
{
	struct session *session = owner;

	session->unclaimed++;
	session->last = *access;
}

static void on_traced(void *owner, const struct bus_access *access)
{
	struct session *session = owner;

	session->traced++;
	session->last = *access;
}

static int setup(void **state)
{
	struct session *session = calloc(1, sizeof(*session));

	session->bus.owner = session;
	session->bus.unclaimed = on_unclaimed;
	*state = session;
	return 0;
}

static int teardown(void **state)
{
	free(*state);
	return 0;
}

static void claims(void **state)
{
	struct session *s = *state;

	assert_int_equal(bus_claim_ports(&s->bus, 0x100, 8, &wide, &s->store), 0);
	assert_int_equal(bus_claim_ports(&s->bus, 0x107, 1, &wide, &s->store), -EEXIST);
	assert_int_equal(bus_claim_ports(&s->bus, 0xff, 2, &wide, &s->store), -EEXIST);
	assert_int_equal(bus_claim_ports(&s->bus, 0x108, 0, &wide, &s->store), -EINVAL);
	assert_int_equal(bus_claim_ports(&s->bus, 0xffff, 2, &wide, &s->store), -EINVAL);
	assert_int_equal(bus_claim_ports(&s->bus, 0xffff, 1, &wide, &s->store), 0);
	assert_int_equal(bus_claim_mmio(&s->bus, 0xfee00000, 0x1000, &wide, &s->store), 0);
	assert_int_equal(bus_claim_mmio(&s->bus, 0xfee00fff, 1, &wide, &s->store), -EEXIST);
	assert_int_equal(bus_claim_mmio(&s->bus, 0xfedff000, 0x1001, &wide, &s->store), -EEXIST);
	assert_int_equal(bus_claim_mmio(&s->bus, ~0ull, 2, &wide, &s->store), -EINVAL);
	for (unsigned i = 2; i < BUS_RANGES_MAX; i++)
		assert_int_equal(bus_claim_ports(&s->bus, (uint16_t)(0x1000 + i), 1, &wide, &s->store), 0);
	assert_int_equal(bus_claim_ports(&s->bus, 0x2000, 1, &wide, &s->store), -ENOSPC);
}

static void widths(void **state)
{
	struct session *s = *state;

	bus_claim_ports(&s->bus, 0x100, 8, &wide, &s->store);
	bus_claim_ports(&s->bus, 0x200, 8, &narrow, &s->store);
	bus_port_out(&s->bus, 0x102, 4, 0x44332211);
	assert_int_equal(s->store.writes, 1);
	assert_int_equal(s->store.byte[5], 0x44);
	assert_int_equal(bus_port_in(&s->bus, 0x103, 2), 0x3322);
	assert_int_equal(bus_port_in(&s->bus, 0x202, 4), 0x44332211);
	assert_int_equal(s->store.reads, 5);
	bus_port_out(&s->bus, 0x200, 2, 0xbbaa);
	assert_int_equal(s->store.byte[1], 0xbb);
	assert_int_equal(s->unclaimed, 0);
	/* Bytes of a narrow device end where it ends. */
	assert_int_equal(bus_port_in(&s->bus, 0x207, 2), 0xff00);
	assert_int_equal(s->unclaimed, 1);
	assert_int_equal(s->last.address, 0x208);
	/* An access that only begins in a wide one is nobody's. */
	assert_int_equal(bus_port_in(&s->bus, 0x106, 4), 0xffffffff);
	assert_int_equal(s->unclaimed, 2);
}

static void nobody_answers(void **state)
{
	struct session *s = *state;
	uint8_t bytes[16];

	assert_int_equal(bus_port_in(&s->bus, 0x61, 1), 0xff);
	assert_int_equal(s->unclaimed, 1);
	bus_port_out(&s->bus, 0xcd8, 4, 0x12345678);
	assert_int_equal(s->unclaimed, 2);
	bus_access_text(&s->last, s->text, sizeof(s->text));
	assert_string_equal(s->text, "out 0xcd8 size 4 value 0x12345678");
	bus_mmio_read(&s->bus, 0xfed00000, bytes, 16);
	assert_int_equal(s->unclaimed, 4);
	assert_int_equal(bytes[15], 0xff);
	bus_access_text(&s->last, s->text, sizeof(s->text));
	assert_string_equal(s->text, "read 0xfed00008 size 8 value 0xffffffffffffffff");
	s->bus.open_bus = true;
	assert_int_equal(bus_port_in(&s->bus, 0x61, 2), 0xffff);
	bus_mmio_write(&s->bus, 0xfed00000, bytes, 4);
	assert_int_equal(s->unclaimed, 4);
}

static void mmio(void **state)
{
	struct session *s = *state;
	uint64_t value = 0x1122334455667788;

	bus_claim_mmio(&s->bus, 0xfee00000, 16, &wide, &s->store);
	s->bus.traced = on_traced;
	s->bus.trace_owner = s;
	bus_mmio_write(&s->bus, 0xfee00004, &value, 8);
	assert_int_equal(s->traced, 1);
	assert_true(s->last.write && !s->last.port);
	value = 0;
	bus_mmio_read(&s->bus, 0xfee00006, &value, 2);
	assert_int_equal(value, 0x5566);
	assert_int_equal(s->last.value, 0x5566);
}

static void on_command(void *owner, uint32_t command)
{
	struct session *session = owner;

	if (command == CONTROL_READY)
		session->ready++;
	else
		session->done++;
}

static void on_misused(void *owner, const struct bus_access *access)
{
	(void)access;
	((struct session *)owner)->misused++;
}

static void control_device(void **state)
{
	struct session *s = *state;
	struct control control = {
		.present = 1, .case_index = 7, .owner = s, .command = on_command, .misused = on_misused};

	assert_int_equal(control_attach(&control, &s->bus), 0);
	assert_int_equal(bus_port_in(&s->bus, CONTROL_PORT_SIGNATURE, 4), CONTROL_SIGNATURE);
	/* DONE and CASE only after READY, READY once, whole doublewords, known commands. */
	bus_port_out(&s->bus, CONTROL_PORT_COMMAND, 4, CONTROL_DONE);
	bus_port_in(&s->bus, CONTROL_PORT_CASE, 4);
	assert_int_equal(s->misused, 2);
	bus_port_out(&s->bus, CONTROL_PORT_COMMAND, 4, CONTROL_READY);
	assert_int_equal(s->ready, 1);
	assert_int_equal(bus_port_in(&s->bus, CONTROL_PORT_CASE, 4), 7);
	bus_port_out(&s->bus, CONTROL_PORT_COMMAND, 4, CONTROL_DONE);
	assert_int_equal(s->done, 1);
	assert_int_equal(s->misused, 2);
	bus_port_out(&s->bus, CONTROL_PORT_COMMAND, 4, CONTROL_READY);
	bus_port_out(&s->bus, CONTROL_PORT_COMMAND, 4, 99);
	bus_port_out(&s->bus, CONTROL_PORT_COMMAND, 1, CONTROL_DONE);
	bus_port_out(&s->bus, CONTROL_PORT_SIGNATURE, 4, 1);
	bus_port_in(&s->bus, CONTROL_PORT_SIGNATURE, 1);
	bus_port_in(&s->bus, CONTROL_PORT_SIGNATURE + 2, 4);
	bus_port_in(&s->bus, CONTROL_PORT_RESERVED, 4);
	assert_int_equal(s->misused, 9);
	assert_int_equal(s->ready + s->done, 2);
	/* Absent, it is open bus to a guest that looks for it. */
	control.present = 0;
	assert_int_equal(bus_port_in(&s->bus, CONTROL_PORT_SIGNATURE, 4), 0xffffffff);
	assert_int_equal(s->misused, 9);
}

static void on_printed(void *owner, uint8_t byte)
{
	struct session *session = owner;
	size_t used = strlen(session->text);

	session->text[used] = (char)byte;
	session->text[used + 1] = 0;
}

static void on_exited(void *owner, uint32_t value)
{
	((struct session *)owner)->exits++;
	((struct session *)owner)->exit_value = value;
}

static void debug_ports(void **state)
{
	struct session *s = *state;
	struct debug debug = {.owner = s, .printed = on_printed, .exited = on_exited};

	assert_int_equal(debug_attach(&debug, &s->bus), 0);
	assert_int_equal(bus_port_in(&s->bus, DEBUG_CONSOLE_PORT, 1), DEBUG_CONSOLE_PORT);
	bus_port_out(&s->bus, DEBUG_CONSOLE_PORT, 1, 'h');
	bus_port_out(&s->bus, DEBUG_CONSOLE_PORT, 1, 'i');
	assert_string_equal(s->text, "hi");
	for (unsigned size = 1; size <= 4; size *= 2) {
		bus_port_out(&s->bus, DEBUG_EXIT_PORT, size, 0x12345678);
		assert_int_equal(s->exit_value, 0x12345678u & (uint32_t)(~0ull >> (64 - 8 * size)));
	}
	assert_int_equal(s->exits, 3);
	bus_port_out(&s->bus, POST_PORT, 4, 0xdeadbeef);
	assert_int_equal(bus_port_in(&s->bus, POST_PORT + 1, 2), 0xadbe);
	assert_int_equal(s->unclaimed, 0);
}

static void on_reset(void *owner) { ((struct session *)owner)->resets++; }

static void pci_ports(void **state)
{
	struct session *s = *state;
	struct pci pci = {.owner = s, .reset_asked = on_reset};

	assert_int_equal(pci_attach(&pci, &s->bus), 0);
	bus_port_out(&s->bus, PCI_ADDRESS_PORT, 4, 0x80001003);
	assert_int_equal(bus_port_in(&s->bus, PCI_ADDRESS_PORT, 4), 0x80001000);
	assert_int_equal(bus_port_in(&s->bus, PCI_DATA_PORT, 4), 0xffffffff);
	assert_int_equal(bus_port_in(&s->bus, PCI_DATA_PORT + 2, 2), 0xffff);
	bus_port_out(&s->bus, PCI_RESET_PORT, 1, 2);
	assert_int_equal(s->resets, 0);
	bus_port_out(&s->bus, PCI_RESET_PORT, 1, 6);
	assert_int_equal(s->resets, 1);
	assert_int_equal(bus_port_in(&s->bus, PCI_ADDRESS_PORT, 4), 0x80001000);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(claims),         TEST(widths),      TEST(nobody_answers), TEST(mmio),
		TEST(control_device), TEST(debug_ports), TEST(pci_ports),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
