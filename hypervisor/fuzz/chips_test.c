/*
 * chips_test.c: random accesses to the interrupt chips and the timer, as a hostile guest with four vCPUs
 * makes them, while time goes on: what the chips tell the processors must agree with what they answer, and a
 * saved board must go on as the one that it was saved from.
 */
#include "fuzz/fuzz.h"

#include "chip/lapic_bench.h"

#include "chip/pit.h"
#include "dev/state.h"
#include "engine/chips.h"

struct board {
	struct clock clock;
	uint64_t time;
	struct chips chips;
	struct pit pit;
	struct bench_cpu cpu[CPUS];
	bool irq0;
};

static uint64_t board_now(void *owner) { return ((struct board *)owner)->time; }
static struct board *board_of(void *owner) { return (struct board *)((struct bench_cpu *)owner)->bench; }
static uint64_t tsc(void *owner) { return board_of(owner)->time * TSC_RATIO; }
/* What a processor does with INIT: at once. */
static void take_init(void *owner)
{
	struct board *board = board_of(owner);

	lapic_reset(&board->chips.lapic[(struct bench_cpu *)owner - board->cpu], true);
}
static void timer_line(void *owner, bool level)
{
	struct board *board = owner;

	board->irq0 = level;
	chips_input(&board->chips, 0, level);
}

static void set_up(struct board *board, bool amd)
{
	const struct lapic_model model = amd ? bench_amd() : bench_intel();

	memset(board, 0, sizeof(*board));
	clock_init(&board->clock);
	board->clock.owner = board;
	board->clock.now = board_now;
	chips_init(&board->chips);
	for (unsigned i = 0; i < CPUS; i++) {
		const struct lapic_cpu cpu = {.owner = &board->cpu[i],
					      .interrupt_line = bench_line,
					      .nmi = bench_nmi,
					      .smi = bench_smi,
					      .init = take_init,
					      .sipi = bench_sipi,
					      .tpr_written = bench_tpr,
					      .tsc = tsc,
					      .tsc_time = bench_tsc_time};

		board->cpu[i].bench = (struct bench *)board;
		assert_true(chips_add_lapic(&board->chips, &model, &cpu, &board->clock, true));
	}
	assert_true(pit_init(&board->pit, &board->clock, timer_line, board));
}

/* ---- a guest without a plan ---- */

/* Mostly numbers that mean something: vectors, one bit, all ones, nothing. */
static uint32_t number(struct fuzz *fuzz)
{
	switch (fuzz_below(fuzz, 6)) {
	case 0: return 0;
	case 1: return 0xffffffff;
	case 2: return 1u << fuzz_below(fuzz, 32);
	case 3: return fuzz_below(fuzz, 256);
	case 4: return fuzz_below(fuzz, 256) | 1u << fuzz_below(fuzz, 32);
	default: return (uint32_t)fuzz_next(fuzz);
	}
}

static void access_page(struct fuzz *fuzz, struct board *board, unsigned cpu, uint64_t page)
{
	struct engine_bus none = {0};
	uint64_t address = page + 16 * fuzz_below(fuzz, fuzz_one_in(fuzz, 8) ? 256 : 0x55);
	unsigned size = fuzz_one_in(fuzz, 8) ? 1 + fuzz_below(fuzz, 16) : 4;
	uint8_t bytes[16];
	uint32_t value = number(fuzz);

	if (fuzz_one_in(fuzz, 16))
		address += fuzz_below(fuzz, 16);
	for (unsigned i = 0; i < sizeof(bytes); i += 4)
		memcpy(bytes + i, &value, 4);
	if (fuzz_one_in(fuzz, 3))
		chips_mmio_read(&board->chips, &none, cpu, address, bytes, size);
	else
		chips_mmio_write(&board->chips, &none, cpu, address, bytes, size);
}

static void access_ioapic(struct fuzz *fuzz, struct board *board)
{
	uint32_t index = fuzz_one_in(fuzz, 8) ? fuzz_below(fuzz, 256) : 0x10 + fuzz_below(fuzz, 48);
	uint32_t value = number(fuzz);

	ioapic_mmio_write(&board->chips.ioapic, 0, &index, 4);
	ioapic_mmio_write(&board->chips.ioapic, fuzz_one_in(fuzz, 8) ? 0x40 : 0x10, &value, 4);
}

static void access_msr(struct fuzz *fuzz, struct board *board, unsigned cpu)
{
	struct lapic *lapic = &board->chips.lapic[cpu];
	uint64_t value = number(fuzz);

	switch (fuzz_below(fuzz, 4)) {
	case 0: lapic_msr_write(lapic, MSR_APIC_BASE, 0xfee00000 | fuzz_below(fuzz, 4) << 10); break;
	case 1:
		lapic_msr_write(lapic, MSR_TSC_DEADLINE,
				fuzz_one_in(fuzz, 2) ? value : tsc(&board->cpu[cpu]) + value);
		break;
	case 2: lapic_msr_read(lapic, MSR_X2APIC_FIRST + fuzz_below(fuzz, 256), &value); break;
	default:
		lapic_msr_write(lapic, MSR_X2APIC_FIRST + fuzz_below(fuzz, 0x55),
				value | (uint64_t)number(fuzz) << 32);
	}
}

static void access_port(struct fuzz *fuzz, struct board *board)
{
	static const uint16_t pics[] = {0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1},
			      pits[] = {0x40, 0x41, 0x42, 0x43, 0x61};
	bool pit = fuzz_one_in(fuzz, 2);
	uint16_t port = pit ? pits[fuzz_below(fuzz, 5)] : pics[fuzz_below(fuzz, 6)];
	uint8_t value = (uint8_t)number(fuzz);

	if (fuzz_one_in(fuzz, 3))
		(void)(pit ? pit_read(&board->pit, port) : pic_read(&board->chips.pic, port));
	else if (pit)
		pit_write(&board->pit, port, value);
	else
		pic_write(&board->chips.pic, port, value);
}

static void from_outside(struct fuzz *fuzz, struct board *board, unsigned cpu)
{
	struct lapic *lapic = &board->chips.lapic[cpu];

	switch (fuzz_below(fuzz, 6)) {
	case 0: chips_input(&board->chips, 3 + fuzz_below(fuzz, 29), fuzz_one_in(fuzz, 2)); break;
	case 1: chips_msi(&board->chips, 0xfee00000 | (number(fuzz) & 0xfffff), number(fuzz)); break;
	case 2: lapic_nmi_pin(lapic); break;
	case 3:
		board->cpu[cpu].tpr = (uint8_t)(fuzz_below(fuzz, 16) << 4); /* as CR8 */
		lapic_write_cr8(lapic, board->cpu[cpu].tpr >> 4);
		break;
	case 4:
		lapic_local(lapic, (enum lapic_lvt)(fuzz_one_in(fuzz, 2) ? LVT_THERMAL : LVT_PERFORMANCE));
		break;
	default: lapic_reset(lapic, fuzz_one_in(fuzz, 4));
	}
}

/* A little, or very long: no timer may take longer for that. */
static void pass_time(struct fuzz *fuzz, struct board *board)
{
	board->time += fuzz_one_in(fuzz, 20) ? fuzz_below(fuzz, 1u << 30) : fuzz_below(fuzz, 5000);
	if (!fuzz_one_in(fuzz, 4))
		clock_run(&board->clock);
}

static void do_something(struct fuzz *fuzz, struct board *board)
{
	unsigned cpu = fuzz_below(fuzz, CPUS);

	switch (fuzz_below(fuzz, 8)) {
	case 0:
	case 1: access_page(fuzz, board, cpu, board->chips.lapic[cpu].base & ~0xfffull); break;
	case 2: access_ioapic(fuzz, board); break;
	case 3: access_msr(fuzz, board, cpu); break;
	case 4: access_port(fuzz, board); break;
	case 5: from_outside(fuzz, board, cpu); break;
	case 6: pass_time(fuzz, board); break;
	default:
		if (board->cpu[cpu].line)
			assert_true(lapic_acknowledge(&board->chips.lapic[cpu]) >= 0);
		else
			assert_int_equal(lapic_acknowledge(&board->chips.lapic[cpu]), -1);
	}
}

/* ---- what must hold whatever was done ---- */

/* What nobody has accepted is still accepted by nobody: else it would have been sent again. */
static void check_retry(struct board *board)
{
	uint64_t before[IOAPIC_INPUTS];

	memcpy(before, board->chips.ioapic.entry, sizeof(before));
	ioapic_retry(&board->chips.ioapic);
	assert_memory_equal(before, board->chips.ioapic.entry, sizeof(before));
}

static void check(struct board *board)
{
	check_retry(board);
	for (unsigned i = 0; i < CPUS; i++) {
		const struct lapic *lapic = &board->chips.lapic[i];

		assert_int_equal(lapic->line, board->cpu[i].line);
		assert_int_equal((lapic->irr[0] | lapic->isr[0]) & 0xffff, 0);
		assert_int_equal(board->cpu[i].tpr >> 4, lapic->tpr >> 4);
		assert_int_equal(lapic->lint & 1, board->chips.bus.extint);
		for (unsigned lvt = 0; lvt < LVT_COUNT; lvt++)
			assert_true((lapic->svr & 0x100) || (lapic->lvt[lvt] & 0x10000));
	}
	assert_int_equal(board->chips.bus.extint, board->chips.pic.chip[0].output);
	assert_int_equal(board->irq0, board->pit.counter[0].output);
	for (unsigned i = 0; i < IOAPIC_INPUTS; i++) {
		uint64_t entry = board->chips.ioapic.entry[i];

		/* Remote IRR for levels alone; what is pending is not masked. */
		assert_true((entry & 0x8000) || !(entry & 0x4000));
		assert_true(!(entry & 0x10000) || !(board->chips.ioapic.pending >> i & 1));
	}
}

static void copy(const struct state_table *table, void *from, void *to)
{
	static uint8_t bytes[4096];
	size_t size = state_size(table);

	assert_true(size <= sizeof(bytes));
	state_save(table, from, bytes);
	assert_int_equal(state_load(table, to, bytes, size), 0);
}

static void *device(struct board *board, unsigned index, const struct state_table **table)
{
	void *chip = chips_at(&board->chips, index, table);

	if (chip || index > CPUS + 2)
		return chip;
	*table = &pit_state;
	return &board->pit;
}

static void copy_board(struct board *from, struct board *to)
{
	const struct state_table *table;

	to->time = from->time;
	for (unsigned i = 0; device(from, i, &table); i++) {
		void *chip = device(from, i, &table);

		copy(table, chip, device(to, i, &table));
	}
}

static void assert_same(uint64_t round, struct board *a, struct board *b)
{
	const struct state_table *table;

	for (unsigned i = 0; device(a, i, &table); i++) {
		const char *field = state_difference(table, device(a, i, &table), device(b, i, &table));

		if (field)
			fail_msg("FUZZ_ROUND=%llu: %s %s differs", (unsigned long long)round, table->device,
				 field);
	}
	assert_int_equal(a->clock.next, b->clock.next);
	for (unsigned i = 0; i < CPUS; i++)
		assert_int_equal(a->cpu[i].line, b->cpu[i].line);
}

static struct board board, other;

static void one(struct fuzz *fuzz, uint64_t round)
{
	struct fuzz again;

	set_up(&board, round & 1);
	for (unsigned i = 0; i < 300; i++) {
		do_something(fuzz, &board);
		check(&board);
	}
	/* Another board takes over, and both go on alike. */
	set_up(&other, round & 1);
	again = *fuzz;
	for (unsigned i = fuzz_below(&again, 50); i; i--)
		do_something(&again, &other);
	copy_board(&board, &other);
	assert_same(round, &board, &other);
	again = *fuzz;
	for (unsigned i = 0; i < 100; i++) {
		do_something(fuzz, &board);
		do_something(&again, &other);
	}
	assert_same(round, &board, &other);
}

static void random_accesses(void **state)
{
	(void)state;
	fuzz_rounds(1000, one);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(random_accesses)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
