#include "chip/lapic_bench.h"

#include "chip/ioapic.h"
#include "dev/state.h"

struct board {
	struct bench bench;
	struct ioapic ioapic;
	unsigned other_eoi;
};

static void eoi(void *owner, uint8_t vector) { ioapic_eoi(&((struct board *)owner)->ioapic, vector); }
static void retry(void *owner) { ioapic_retry(&((struct board *)owner)->ioapic); }

static void set_up(struct board *board)
{
	memset(board, 0, sizeof(*board));
	bench_set_up(&board->bench);
	board->bench.bus.owner = board;
	board->bench.bus.eoi = eoi;
	board->bench.bus.retry = retry;
	ioapic_init(&board->ioapic, &board->bench.bus);
	enable_all(&board->bench);
}

static uint32_t get(struct board *board, unsigned index)
{
	uint32_t value = index;

	ioapic_mmio_write(&board->ioapic, 0, &value, 4);
	ioapic_mmio_read(&board->ioapic, 0x10, &value, 4);
	return value;
}
static void set(struct board *board, unsigned index, uint32_t value)
{
	ioapic_mmio_write(&board->ioapic, 0, &index, 4);
	ioapic_mmio_write(&board->ioapic, 0x10, &value, 4);
}
static void set_entry(struct board *board, unsigned input, uint8_t destination, uint32_t low)
{
	set(board, 0x11 + 2 * input, (uint32_t)destination << 24);
	set(board, 0x10 + 2 * input, low);
}
static void pulse(struct board *board, unsigned input)
{
	ioapic_line(&board->ioapic, input, true);
	ioapic_line(&board->ioapic, input, false);
}

static void test_registers(void **state)
{
	struct board board;
	uint8_t bytes[8];
	uint32_t value;

	(void)state;
	set_up(&board);
	assert_int_equal(get(&board, 0), 0);
	assert_int_equal(get(&board, 1), 0x00170020);
	set(&board, 0, 0xffffffff);
	assert_int_equal(get(&board, 0), 0x0f000000);
	assert_int_equal(get(&board, 2), 0x0f000000);
	set(&board, 1, 0);
	set(&board, 2, 0);
	assert_int_equal(get(&board, 1), 0x00170020);
	assert_int_equal(get(&board, 2), 0x0f000000);
	for (unsigned i = 0; i < 24; i++) {
		assert_int_equal(get(&board, 0x10 + 2 * i), 0x10000);
		assert_int_equal(get(&board, 0x11 + 2 * i), 0);
		set_entry(&board, i, 0xa5, 0xffffffff);
		assert_int_equal(get(&board, 0x10 + 2 * i), 0x1afff);
		assert_int_equal(get(&board, 0x11 + 2 * i), 0xa5000000);
		set(&board, 0x11 + 2 * i, 0xffffffff);
		assert_int_equal(get(&board, 0x11 + 2 * i), 0xff000000);
	}
	for (unsigned index = 3; index < 256; index++)
		if (index < 0x10 || index >= 0x40) {
			set(&board, index, 0xffffffff);
			assert_int_equal(get(&board, index), 0);
		}
	/* The select register is a byte; parts of the window; what lies between. */
	get(&board, 1);
	ioapic_mmio_read(&board.ioapic, 0, &value, 4);
	assert_int_equal(value, 1);
	ioapic_mmio_read(&board.ioapic, 0x12, bytes, 1);
	assert_int_equal(bytes[0], 0x17);
	ioapic_mmio_read(&board.ioapic, 0x0c, bytes, 8);
	assert_memory_equal(bytes, ((uint8_t[8]){0, 0, 0, 0, 0x20, 0, 0x17, 0}), 8);
	bytes[0] = 0;
	ioapic_mmio_write(&board.ioapic, 0, bytes, 1);
	ioapic_mmio_write(&board.ioapic, 0x10, bytes, 1);
	ioapic_mmio_write(&board.ioapic, 0x20, bytes, 4);
	assert_int_equal(get(&board, 0), 0x0f000000);
	ioapic_reset(&board.ioapic);
	assert_int_equal(get(&board, 0), 0);
	assert_int_equal(get(&board, 0x11), 0);
}

static void test_edge(void **state)
{
	struct board board;

	(void)state;
	set_up(&board);
	for (unsigned i = 0; i < 24; i++) {
		pulse(&board, i); /* masked: lost */
		set_entry(&board, i, i & 3, 0x60 + i);
		assert_int_equal(take(&board.bench, 0x60 + i), 0);
		ioapic_line(&board.ioapic, i, true);
		assert_int_equal(take(&board.bench, 0x60 + i), 1 << (i & 3));
		ioapic_line(&board.ioapic, i, true);
		assert_int_equal(take(&board.bench, 0x60 + i), 0);
		ioapic_line(&board.ioapic, i, false);
		assert_int_equal(take(&board.bench, 0x60 + i), 0);
		/* High when unmasked is no edge. */
		set_entry(&board, i, i & 3, 0x10060 + i);
		ioapic_line(&board.ioapic, i, true);
		set_entry(&board, i, i & 3, 0x60 + i);
		assert_int_equal(take(&board.bench, 0x60 + i), 0);
		/* Active low: the other edge. */
		set_entry(&board, i, i & 3, 0x2060 + i);
		ioapic_line(&board.ioapic, i, false);
		assert_int_equal(take(&board.bench, 0x60 + i), 1 << (i & 3));
		ioapic_line(&board.ioapic, i, true);
		assert_int_equal(take(&board.bench, 0x60 + i), 0);
		assert_int_equal(get(&board, 0x10 + 2 * i), 0x2060 + i);
	}
	ioapic_line(&board.ioapic, 24, true);
}

static void test_level(void **state)
{
	struct board board;
	struct lapic *a = &board.bench.apic[1];

	(void)state;
	set_up(&board);
	set_entry(&board, 9, 1, 0x8061);
	set_entry(&board, 8, 1, 0x8062);
	ioapic_line(&board.ioapic, 8, true);
	assert_int_equal(lapic_acknowledge(a), 0x62);
	ioapic_line(&board.ioapic, 9, true);
	assert_int_equal(get(&board, 0x22), 0xc061);
	take(&board.bench, 0x61);
	/* Not again before the EOI of its own vector. */
	ioapic_line(&board.ioapic, 9, false);
	ioapic_line(&board.ioapic, 9, true);
	assert_int_equal(take(&board.bench, 0x61), 0);
	ioapic_line(&board.ioapic, 8, false);
	wr(a, 0xb0, 0);
	assert_int_equal(get(&board, 0x20), 0x8062);
	assert_int_equal(get(&board, 0x22), 0xc061);
	assert_int_equal(take(&board.bench, 0x61), 0);
	ioapic_eoi(&board.ioapic, 0x61);
	assert_int_equal(lapic_acknowledge(a), 0x61);
	wr(a, 0xb0, 0);
	assert_int_equal(get(&board, 0x22), 0xc061); /* still asserted: sent again */
	assert_int_equal(lapic_acknowledge(a), 0x61);
	ioapic_line(&board.ioapic, 9, false);
	wr(a, 0xb0, 0);
	assert_int_equal(get(&board, 0x22), 0x8061);
	assert_int_equal(lapic_acknowledge(a), -1);
	/* Masked while asserted, and open again; active low. */
	set_entry(&board, 9, 1, 0x18061);
	ioapic_line(&board.ioapic, 9, true);
	assert_int_equal(lapic_acknowledge(a), -1);
	set_entry(&board, 9, 1, 0x8061);
	assert_int_equal(lapic_acknowledge(a), 0x61);
	/* Suppressed broadcast: the EOI register does it. */
	wr(a, 0xf0, 0x11ff);
	wr(a, 0xb0, 0);
	assert_int_equal(get(&board, 0x22), 0xc061);
	ioapic_line(&board.ioapic, 9, false);
	ioapic_mmio_write(&board.ioapic, 0x40, &(uint32_t){0x61}, 4);
	assert_int_equal(get(&board, 0x22), 0x8061);
	set_entry(&board, 9, 1, 0xa061);
	assert_int_equal(lapic_acknowledge(a), 0x61);
	/* As an edge it awaits nothing. */
	set_entry(&board, 9, 1, 0x2061);
	assert_int_equal(get(&board, 0x22), 0x2061);
}

static void test_delivery(void **state)
{
	struct board board;

	(void)state;
	set_up(&board);
	for (unsigned i = 0; i < CPUS; i++)
		wr(&board.bench.apic[i], 0xd0, 0x01000000u << i);
	set_entry(&board, 0, 0x0a, 0x841);
	pulse(&board, 0);
	assert_int_equal(take(&board.bench, 0x41), 0x0a);
	set_entry(&board, 0, 0xff, 0x41);
	pulse(&board, 0);
	assert_int_equal(take(&board.bench, 0x41), 0x0f);
	wr(&board.bench.apic[0], 0x80, 0x40);
	set_entry(&board, 0, 0x03, 0x941);
	pulse(&board, 0);
	assert_int_equal(take(&board.bench, 0x41), 2);
	/* A level means nothing for these. */
	set_entry(&board, 0, 1, 0x8400);
	ioapic_line(&board.ioapic, 0, true);
	ioapic_eoi(&board.ioapic, 0);
	ioapic_line(&board.ioapic, 0, false);
	assert_int_equal(board.bench.cpu[1].nmi, 1);
	assert_int_equal(get(&board, 0x10), 0x8400);
	set_entry(&board, 0, 1, 0x200);
	pulse(&board, 0);
	assert_int_equal(board.bench.cpu[1].smi, 1);
	set_entry(&board, 0, 1, 0x500);
	pulse(&board, 0);
	assert_int_equal(board.bench.cpu[1].init, 1);
	set_entry(&board, 0, 1, 0x600);
	pulse(&board, 0);
	set_entry(&board, 0, 1, 0x300);
	pulse(&board, 0);
	assert_int_equal(board.bench.cpu[1].sipi, 0);
	set_entry(&board, 0, 1, 0x700);
	pulse(&board, 0);
	assert_true(board.bench.cpu[1].line);
	/* Lowest priority can be a level. */
	set_entry(&board, 0, 0x03, 0x8942);
	ioapic_line(&board.ioapic, 0, true);
	assert_int_equal(get(&board, 0x10), 0xc942);
	assert_true(has(board.bench.apic[1].tmr, 0x42));
}

static void test_nobody_accepts(void **state)
{
	struct board board;

	(void)state;
	set_up(&board);
	wr(&board.bench.apic[2], 0xf0, 0xff);
	set_entry(&board, 3, 2, 0x71);
	set_entry(&board, 4, 2, 0x8072);
	set_entry(&board, 5, 2, 0x8073);
	pulse(&board, 3);
	ioapic_line(&board.ioapic, 4, true);
	ioapic_line(&board.ioapic, 5, true);
	assert_int_equal(get(&board, 0x16), 0x1071);
	assert_int_equal(get(&board, 0x18), 0x9072);
	ioapic_line(&board.ioapic, 5, false); /* withdrawn */
	assert_int_equal(get(&board, 0x1a), 0x8073);
	enable(&board.bench.apic[2]);
	assert_int_equal(take(&board.bench, 0x71), 4);
	assert_int_equal(take(&board.bench, 0x72), 4);
	assert_int_equal(take(&board.bench, 0x73), 0);
	assert_int_equal(get(&board, 0x16), 0x71);
	assert_int_equal(get(&board, 0x18), 0xc072);
	/* A masked one is not sent any more. */
	wr(&board.bench.apic[2], 0xf0, 0xff);
	pulse(&board, 3);
	set_entry(&board, 3, 2, 0x10071);
	set_entry(&board, 3, 2, 0x71);
	enable(&board.bench.apic[2]);
	assert_int_equal(take(&board.bench, 0x71), 0);
	/* Nor to who has another address by now, but then to who gets that. */
	set_entry(&board, 3, 0x20, 0x871);
	pulse(&board, 3);
	wr(&board.bench.apic[1], 0xd0, 0x20000000);
	assert_int_equal(take(&board.bench, 0x71), 2);
}

static void test_state(void **state)
{
	struct board board, other;
	uint8_t bytes[512];

	(void)state;
	set_up(&board);
	set_up(&other);
	set_entry(&board, 3, 9, 0x71);
	pulse(&board, 3);
	state_save(&ioapic_state, &board.ioapic, bytes);
	assert_int_equal(state_load(&ioapic_state, &other.ioapic, bytes, state_size(&ioapic_state)), 0);
	set(&other, 0x17, 1u << 24);
	assert_int_equal(take(&other.bench, 0x71), 2);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(test_registers), cmocka_unit_test(test_edge),           cmocka_unit_test(test_level),
	cmocka_unit_test(test_delivery),  cmocka_unit_test(test_nobody_accepts), cmocka_unit_test(test_state),
};

BENCH_MAIN(tests)
