/*
 * The devices of a machine, programmed at random from outside: ports, device memory, PCI configuration, input
 * on the serial line, and time. Nothing crashes or hangs; and a machine that is put back to where it was
 * answers the same accesses with the same values, so that no device keeps anything that its state leaves out.
 */
#include <stdio.h>

#include "dev/rtc.h"
#include "fuzz/fuzz.h"
#include "vm/snapshot.h"
#include "vm/test_machine.h"

#define ROUNDS   250u /* times 400 accesses: 100,000 */
#define WILD     200u
#define REPEATED 100u

/* Waits, so that time goes from timer to timer. */
TEST_IMAGE(waits, "0: hlt\njmp 0b\n");

static const struct {
	uint32_t first, count;
} ports[] = {{0x00, 256}, {0x3f8, 8},  {0x40, 4},   {0x61, 1},  {0x60, 5},    {0x70, 2},     {0xb2, 2},
	     {0xe0, 12},  {0x510, 12}, {0x600, 12}, {0xcf8, 8}, {0x2000, 24}, {0xc000, 256}, {0, 65536}},
  memory[] = {{0xfed00000, 0x200}, {0xff000000, 0x10000}, {0xe0000000, 0x4000}, {0xc0000000, 0x3ec00000}};

static void ignore(void *owner, uint8_t byte)
{
	(void)owner;
	(void)byte;
}

static uint32_t value(struct fuzz *fuzz)
{
	static const uint32_t edges[] = {0,    1,          2,          0x7f,       0x80,
					 0xff, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff};

	switch (fuzz_below(fuzz, 4)) {
	case 0: return edges[fuzz_below(fuzz, sizeof(edges) / sizeof(edges[0]))];
	case 1: return 1u << fuzz_below(fuzz, 32);
	case 2: return fuzz_below(fuzz, 256);
	default: return (uint32_t)fuzz_next(fuzz);
	}
}

static uint64_t access_port(struct machine *machine, struct fuzz *fuzz)
{
	unsigned range = fuzz_below(fuzz, sizeof(ports) / sizeof(ports[0])), size = 1u << fuzz_below(fuzz, 3);
	uint16_t port = (uint16_t)(ports[range].first + fuzz_below(fuzz, ports[range].count));

	if (fuzz_one_in(fuzz, 2))
		return bus_port_in(&machine->bus, port, size);
	bus_port_out(&machine->bus, port, size, value(fuzz));
	return 0;
}

static uint64_t access_memory(struct machine *machine, struct fuzz *fuzz)
{
	unsigned range = fuzz_below(fuzz, sizeof(memory) / sizeof(memory[0])),
		 size = 1 + fuzz_below(fuzz, 16);
	uint64_t address = memory[range].first + fuzz_below(fuzz, memory[range].count), bytes[2] = {0};

	if (fuzz_one_in(fuzz, 2))
		size = 4;
	if (fuzz_one_in(fuzz, 2)) {
		bus_mmio_read(&machine->bus, address, bytes, size);
		return bytes[0] ^ bytes[1];
	}
	bytes[0] = value(fuzz);
	bytes[1] = fuzz_next(fuzz);
	bus_mmio_write(&machine->bus, address, bytes, size);
	return 0;
}

static uint64_t access_pci(struct machine *machine, struct fuzz *fuzz)
{
	uint32_t reg = 4 * fuzz_below(fuzz, fuzz_one_in(fuzz, 2) ? 20 : 64), slot = fuzz_below(fuzz, 6);
	uint16_t data = (uint16_t)(0xcfc + fuzz_below(fuzz, 4));
	unsigned size = 1u << fuzz_below(fuzz, 3);

	bus_port_out(&machine->bus, 0xcf8, 4, 0x80000000u | slot << 11 | reg);
	if (fuzz_one_in(fuzz, 2))
		return bus_port_in(&machine->bus, data, size);
	if (reg >= 0x10 && reg < 0x28 && fuzz_one_in(fuzz, 2))
		bus_port_out(&machine->bus, 0xcfc, 4,
			     fuzz_one_in(fuzz, 2) ? 0xe0000000u + 0x1000 * fuzz_below(fuzz, 4)
						  : 0xc000u + 0x40 * fuzz_below(fuzz, 4));
	else
		bus_port_out(&machine->bus, data, size, value(fuzz));
	return 0;
}

static uint64_t let_time_pass(struct machine *machine, struct fuzz *fuzz)
{
	const struct machine_limits limits = {
		.insns = 1 + fuzz_below(fuzz, 50), .deadline = UINT64_MAX, .output = UINT64_MAX};

	return machine_run(machine, &limits)->event;
}

static uint64_t access_one(struct machine *machine, struct fuzz *fuzz)
{
	switch (fuzz_below(fuzz, 8)) {
	case 0:
	case 1:
	case 2: return access_port(machine, fuzz);
	case 3:
	case 4: return access_memory(machine, fuzz);
	case 5: return access_pci(machine, fuzz);
	case 6: serial_receive(&machine->serial, (uint8_t)fuzz_next(fuzz)); return 0;
	default: return let_time_pass(machine, fuzz);
	}
}

static struct machine *make(uint64_t seed)
{
	struct machine_config config = {.engine = &engine_soft,
					.cpu = "amd",
					.memory = TEST_MEMORY,
					.vcpus = 2,
					.seed = seed,
					.open_bus = true,
					.rtc_start = RTC_START_DEFAULT,
					.peripherals = {.entropy = true, .console = true},
					.console = ignore,
					.serial = ignore,
					.virtio = ignore};
	struct boot_options boot = {0};
	struct machine *machine;
	struct image image = {
		.path = "waits", .data = (uint8_t *)(uintptr_t)waits, .size = (size_t)(waits_end - waits)};
	char why[256];

	if (machine_new(&machine, &config, why, sizeof(why)) ||
	    boot_image(machine, &image, &boot, why, sizeof(why)))
		fail_msg("%s", why);
	return machine;
}

static void one(struct fuzz *fuzz, uint64_t round)
{
	struct machine *machine = make(round);
	struct snapshot snapshot;
	uint64_t first[REPEATED];
	struct fuzz again;

	for (unsigned i = 0; i < WILD; i++)
		access_one(machine, fuzz);
	assert_int_equal(snapshot_take(&snapshot, machine), 0);
	again = *fuzz;
	for (unsigned i = 0; i < REPEATED; i++)
		first[i] = access_one(machine, fuzz);
	assert_int_equal(snapshot_restore(&snapshot, machine), 0);
	for (unsigned i = 0; i < REPEATED; i++) {
		uint64_t second = access_one(machine, &again);

		if (first[i] != second)
			fail_msg("FUZZ_ROUND=%llu: access %u gave %#llx, then %#llx",
				 (unsigned long long)round, i, (unsigned long long)first[i],
				 (unsigned long long)second);
	}
	snapshot_free(&snapshot);
	machine_free(machine);
}

static void the_same_again(void **state)
{
	(void)state;
	printf("FUZZ_SEED=%llu\n", (unsigned long long)fuzz_number("FUZZ_SEED", 0));
	fuzz_rounds(ROUNDS, one);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(the_same_again)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
