/* smm_test.c: RSM from a save area that is damaged anywhere: shutdown, or a processor that runs on. */
#include "fuzz/blank.h"
#include "fuzz/fuzz.h"

#include "cpu/system_test.h"

#define SMRAM 0x30000u

static uint32_t port_in(void *owner, uint16_t port, unsigned size)
{
	(void)owner;
	(void)port;
	(void)size;
	return 0xff;
}
static void port_out(void *owner, uint16_t port, unsigned size, uint32_t value)
{
	(void)port;
	(void)size;
	if (value & 1)
		cpu_raise_smi(((struct system *)owner)->cpu);
}

static struct system s;

/* Instructions that look at segments, tables and modes; most fault somewhere, and their handlers are more of
 * it. */
static void fill_code(struct fuzz *fuzz, uint64_t at, unsigned size)
{
	static const uint8_t bytes[][3] = {{0x0f, 0x01, 0xe0}, {0xa5, 0xec, 0xee}, {0xcf, 0xcb, 0x06},
					   {0x8e, 0xd8, 0x50}, {0xcd, 0x80, 0xf4}, {0x0f, 0xaa, 0x58},
					   {0x8c, 0xc8, 0x9c}, {0x9d, 0x90, 0x6e}, {0x0f, 0x00, 0xd8},
					   {0x0f, 0x22, 0xc0}, {0x0f, 0x20, 0xc0}, {0xff, 0x18, 0xe6}};

	for (unsigned i = 0; i + 3 <= size; i += 3)
		assert_true(phys_write(s.memory, at + i, bytes[fuzz_below(fuzz, 12)], 3));
}

static void one(struct fuzz *fuzz, uint64_t round)
{
	static const uint8_t nop_rsm[] = {0x90, 0x0f, 0xaa};
	enum system_mode mode = (enum system_mode)(round % 6);
	unsigned changes = fuzz_below(fuzz, 12);

	system_start(&s, mode, mode == SYSTEM_VM86 ? 3 : fuzz_below(fuzz, mode == SYSTEM_REAL ? 1 : 4));
	assert_true(phys_write(s.memory, SMRAM + 0x8000, nop_rsm, sizeof(nop_rsm)));
	fill_code(fuzz, CODE_AT, 0x40);
	fill_code(fuzz, HANDLER_AT, 0x200);
	cpu_raise_smi(s.cpu);
	system_steps(&s, 1);
	while (changes--) {
		uint8_t byte = (uint8_t)fuzz_next(fuzz);

		put(&s, SMRAM + 0xfc00 + fuzz_below(fuzz, 0x400),
		    fuzz_one_in(fuzz, 2) ? byte : 1u << (byte & 7), 1);
	}
	s.cpu->tracing = fuzz_one_in(fuzz, 2);
	cpu_mode_changed(s.cpu);
	system_steps(&s, 60);
	s.cpu->tracing = true;
}

static void damaged_areas(void **state)
{
	static const char *const profiles[] = {"amd", "intel"};

	(void)state;
	for (unsigned p = 0; p < 2; p++) {
		system_open(&s, profiles[p]);
		blank_bus(&s.cpu->bus);
		s.cpu->bus.port_in = port_in;
		s.cpu->bus.port_out = port_out;
		fuzz_rounds(3000, one);
		system_close(&s);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(damaged_areas)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
