/* wires_test.c: what leads where on the board: lines to 8259As and I/O APIC, INT to LINT0 and input 0. */
#include "chip/lapic_bench.h"

#include "engine/chips.h"

struct board {
	struct clock clock;
	struct chips chips;
	struct bench_cpu cpu;
};

static void set_up(struct board *board)
{
	const struct lapic_model model = {.x2apic = true, .physical_bits = 40, .timer_ns = 1};
	const struct lapic_cpu cpu = {.owner = &board->cpu,
				      .interrupt_line = bench_line,
				      .nmi = bench_nmi,
				      .tpr_written = bench_tpr};

	memset(board, 0, sizeof(*board));
	clock_init(&board->clock);
	chips_init(&board->chips);
	assert_true(chips_add_lapic(&board->chips, &model, &cpu, &board->clock, true));
}

static void out(struct board *board, uint16_t port, uint8_t value)
{
	chips_port_out(&board->chips, NULL, port, 1, value);
}

static void initialize_pics(struct board *board)
{
	static const uint8_t words[2][4] = {{0x11, 0x20, 4, 1}, {0x11, 0x28, 2, 1}};

	for (unsigned i = 0; i < 2; i++)
		for (unsigned word = 0; word < 4; word++)
			out(board, (uint16_t)((i ? 0xa0 : 0x20) + (word > 0)), words[i][word]);
}

static void set_entry(struct board *board, unsigned input, uint32_t low)
{
	uint32_t index = 0x10 + 2 * input;

	chips_mmio_write(&board->chips, NULL, 0, IOAPIC_BASE, &index, 4);
	chips_mmio_write(&board->chips, NULL, 0, IOAPIC_BASE + 0x10, &low, 4);
}

/* Every line comes by the 8259As in virtual wire mode, and not without it. */
static void test_virtual_wire(void **state)
{
	struct board board;
	struct lapic *lapic = &board.chips.lapic[0];

	(void)state;
	for (unsigned line = 0; line < 16; line++) {
		if (line == PIC_CASCADE)
			continue;
		set_up(&board);
		initialize_pics(&board);
		chips_input(&board.chips, line, true);
		assert_false(board.cpu.line);
		lapic_virtual_wire(lapic);
		assert_true(board.cpu.line);
		assert_int_equal(lapic_acknowledge(lapic), 0x20 + line);
		assert_false(board.cpu.line);
	}
	lapic_nmi_pin(lapic);
	assert_int_equal(board.cpu.nmi, 1);
}

/* Every line comes by the I/O APIC: 0 to input 2. */
static void test_ioapic(void **state)
{
	struct board board;
	struct lapic *lapic = &board.chips.lapic[0];

	(void)state;
	for (unsigned line = 0; line < IOAPIC_INPUTS; line++) {
		if (line == PIC_CASCADE)
			continue;
		set_up(&board);
		enable(lapic);
		for (unsigned input = 0; input < IOAPIC_INPUTS; input++)
			set_entry(&board, input, 0x40 + input);
		chips_input(&board.chips, line, true);
		assert_int_equal(lapic_acknowledge(lapic), 0x40 + (line ? line : 2));
		assert_int_equal(lapic_acknowledge(lapic), -1);
	}
}

/* ExtINT by input 0, with LINT0 masked. */
static void test_extint(void **state)
{
	struct board board;
	struct lapic *lapic = &board.chips.lapic[0];

	(void)state;
	set_up(&board);
	enable(lapic);
	initialize_pics(&board);
	set_entry(&board, 0, 0x700);
	chips_input(&board.chips, 12, true);
	assert_true(board.cpu.line);
	assert_int_equal(lapic_acknowledge(lapic), 0x2c);
	assert_false(board.cpu.line);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(test_virtual_wire),
	cmocka_unit_test(test_ioapic),
	cmocka_unit_test(test_extint),
};

BENCH_MAIN(tests)
