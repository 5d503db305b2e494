/* apic_bus_test.c: who a message addresses, IPIs, MSIs; and the MSRs of x2APIC mode. */
#include "chip/lapic_bench.h"

#define SELF    (1u << 18)
#define ALL     (2u << 18)
#define OTHERS  (3u << 18)
#define LOGICAL (1u << 11)
#define ASSERT  (1u << 14)
#define LEVEL   (1u << 15)

static unsigned ipi(struct bench *bench, unsigned from, uint8_t destination, uint32_t low)
{
	wr(&bench->apic[from], 0x310, (uint32_t)destination << 24);
	wr(&bench->apic[from], 0x300, low | ASSERT);
	return take(bench, low & 0xff);
}

static unsigned x2ipi(struct bench *bench, unsigned from, uint32_t destination, uint32_t low)
{
	assert_true(wrmsr(&bench->apic[from], 0x830, (uint64_t)destination << 32 | low | ASSERT));
	return take(bench, low & 0xff);
}

static void test_physical(void **state)
{
	struct bench bench;

	(void)state;
	bench_set_up(&bench);
	enable_all(&bench);
	for (unsigned from = 0; from < CPUS; from++)
		for (unsigned to = 0; to < 256; to++)
			assert_int_equal(ipi(&bench, from, (uint8_t)to, 0x41), to == 0xff  ? 15
									       : to < CPUS ? 1 << to
											   : 0);
	assert_int_equal(rd(&bench.apic[0], 0x300), ASSERT | 0x41);
	assert_int_equal(rd(&bench.apic[0], 0x310), 0xff000000);
	/* Delivery status and what is reserved do not stay. */
	wr(&bench.apic[0], 0x300, 0xffffff00 & ~ALL);
	assert_int_equal(rd(&bench.apic[0], 0x300), 0x0004cf00);
}

static void test_shorthands(void **state)
{
	struct bench bench;

	(void)state;
	bench_set_up(&bench);
	enable_all(&bench);
	for (unsigned from = 0; from < CPUS; from++) {
		assert_int_equal(ipi(&bench, from, 0, SELF | 0x41), 1 << from);
		assert_int_equal(ipi(&bench, from, 0, ALL | 0x41), 15);
		assert_int_equal(ipi(&bench, from, 0, OTHERS | 0x41), 15 & ~(1 << from));
	}
	/* Disabled ones: by software not for fixed, altogether for none. */
	wr(&bench.apic[2], 0xf0, 0xff);
	assert_int_equal(ipi(&bench, 0, 0, ALL | 0x41), 11);
	wrmsr(&bench.apic[3], MSR_APIC_BASE, 0xfee00000);
	assert_int_equal(ipi(&bench, 0, 0xff, 0x400), 0);
	assert_int_equal(bench.cpu[2].nmi, 1);
	assert_int_equal(bench.cpu[3].nmi, 0);
	ipi(&bench, 0, 0, OTHERS | 0x400);
	assert_int_equal(bench.cpu[0].nmi, 1);
	assert_int_equal(bench.cpu[1].nmi, 2);
	assert_int_equal(bench.cpu[3].nmi, 0);
}

static void test_delivery_modes(void **state)
{
	struct bench bench;
	struct lapic_model amd = bench_amd();

	(void)state;
	bench_set_up(&bench);
	enable_all(&bench);
	ipi(&bench, 0, 1, 0x200);
	ipi(&bench, 0, 1, 0x400);
	ipi(&bench, 0, 1, 0x500);
	ipi(&bench, 0, 1, 0x69a);
	assert_int_equal(bench.cpu[1].smi, 1);
	assert_int_equal(bench.cpu[1].nmi, 1);
	assert_int_equal(bench.cpu[1].init, 1);
	assert_int_equal(bench.cpu[1].sipi, 1);
	assert_int_equal(bench.cpu[1].sipi_vector, 0x9a);
	/* INIT level de-assert: not heard; as a level that is asserted it is. */
	wr(&bench.apic[0], 0x300, 0x8500);
	assert_int_equal(bench.cpu[1].init, 1);
	wr(&bench.apic[0], 0x300, 0xc500);
	assert_int_equal(bench.cpu[1].init, 2);
	/* Reserved here, and nothing. */
	ipi(&bench, 0, 1, 0x702);
	ipi(&bench, 0, 1, 0x302);
	assert_false(bench.cpu[1].line);
	assert_int_equal(rd(&bench.apic[0], 0x300), ASSERT | 0x302);
	/* All else goes out as an edge, whatever trigger mode and level say. */
	wr(&bench.apic[0], 0x300, LEVEL | 0x41);
	assert_int_equal(take(&bench, 0x41), 2);
	assert_false(has(bench.apic[1].tmr, 0x41));
	/* AMD: levels, ExtINT. */
	bench_set_up_model(&bench, &amd);
	enable_all(&bench);
	wr(&bench.apic[0], 0x310, 1u << 24);
	wr(&bench.apic[0], 0x300, LEVEL | 0x41);
	assert_int_equal(take(&bench, 0x41), 0);
	wr(&bench.apic[0], 0x300, LEVEL | ASSERT | 0x41);
	assert_int_equal(take(&bench, 0x41), 2);
	assert_true(has(bench.apic[1].tmr, 0x41));
	bench.extint_vector = 0x21;
	ipi(&bench, 0, 1, 0x700);
	assert_true(bench.cpu[1].line);
	assert_int_equal(lapic_acknowledge(&bench.apic[1]), 0x21);
	assert_false(bench.cpu[1].line);
	assert_int_equal(lapic_acknowledge(&bench.apic[1]), -1);
}

static void test_errors(void **state)
{
	struct bench bench;
	struct lapic_model model = bench_intel();

	(void)state;
	bench_set_up(&bench);
	enable_all(&bench);
	for (uint32_t vector = 0; vector < 17; vector++) {
		ipi(&bench, 0, 1, vector);
		assert_int_equal(errors(&bench.apic[0]), vector < 16 ? 0x20 : 0);
		assert_int_equal(errors(&bench.apic[1]), vector < 16 ? 0x40 : 0);
		ipi(&bench, 0, 1, 0x100 | vector);
		assert_int_equal(errors(&bench.apic[0]), vector < 16 ? 0x20 : 0);
		errors(&bench.apic[1]);
	}
	ipi(&bench, 0, 0, SELF | 3);
	assert_int_equal(errors(&bench.apic[0]), 0x60);
	ipi(&bench, 0, 1, 0x403); /* the vector of an NMI says nothing */
	assert_int_equal(errors(&bench.apic[0]) | errors(&bench.apic[1]), 0);
	ipi(&bench, 0, 9, 0x41); /* nobody there: only AMD tells */
	assert_int_equal(errors(&bench.apic[0]), 0);
	model.no_lowest_ipi = true;
	bench_set_up_model(&bench, &model);
	enable_all(&bench);
	assert_int_equal(ipi(&bench, 0, 1, 0x141), 0);
	assert_int_equal(errors(&bench.apic[0]), 0x10);
	ipi(&bench, 0, 1, 0x103);
	assert_int_equal(errors(&bench.apic[0]), 0x10);
	model = bench_amd();
	bench_set_up_model(&bench, &model);
	enable_all(&bench);
	ipi(&bench, 0, 9, 0x41);
	assert_int_equal(errors(&bench.apic[0]), 4);
}

static void test_logical_flat(void **state)
{
	struct bench bench;

	(void)state;
	bench_set_up(&bench);
	enable_all(&bench);
	/* None has a bit yet; all ones reach everybody. */
	assert_int_equal(ipi(&bench, 0, 0x7f, LOGICAL | 0x41), 0);
	assert_int_equal(ipi(&bench, 0, 0xff, LOGICAL | 0x41), 15);
	for (unsigned i = 0; i < CPUS; i++)
		wr(&bench.apic[i], 0xd0, 0x01000000u << (i * 2));
	assert_int_equal(bench.retry, 2 * CPUS);
	for (unsigned set = 0; set < 256; set++) {
		unsigned expected = (set & 1) | (set >> 1 & 2) | (set >> 2 & 4) | (set >> 3 & 8);

		assert_int_equal(ipi(&bench, 1, (uint8_t)set, LOGICAL | 0x41), set == 255 ? 15 : expected);
	}
}

static void test_logical_cluster(void **state)
{
	static const uint8_t ldr[CPUS] = {0x11, 0x12, 0x21, 0x28};
	struct bench bench;

	(void)state;
	bench_set_up(&bench);
	enable_all(&bench);
	for (unsigned i = 0; i < CPUS; i++) {
		wr(&bench.apic[i], 0xe0, 0x0fffffff);
		wr(&bench.apic[i], 0xd0, (uint32_t)ldr[i] << 24);
	}
	for (unsigned mda = 0; mda < 256; mda++) {
		unsigned expected = 0;

		for (unsigned i = 0; i < CPUS; i++)
			if (ldr[i] >> 4 == mda >> 4 && (ldr[i] & mda & 15))
				expected |= 1u << i;
		assert_int_equal(ipi(&bench, 3, (uint8_t)mda, LOGICAL | 0x41), mda == 255 ? 15 : expected);
	}
	/* DFR's other values mean nothing. */
	wr(&bench.apic[0], 0xe0, 0x5fffffff);
	assert_int_equal(ipi(&bench, 3, 0x11, LOGICAL | 0x41), 0);
}

static void test_x2apic_destinations(void **state)
{
	struct bench bench;
	struct apic_message message = {.vector = 0x41, .assert = true};

	(void)state;
	bench_set_up(&bench);
	enable_all(&bench);
	for (unsigned i = 0; i < CPUS; i++)
		to_x2apic(&bench.apic[i]);
	for (unsigned to = 0; to < CPUS; to++)
		assert_int_equal(x2ipi(&bench, 0, to, 0x41), 1 << to);
	assert_int_equal(x2ipi(&bench, 0, 0xff, 0x41), 0);
	assert_int_equal(x2ipi(&bench, 0, 0x101, 0x41), 0);
	assert_int_equal(x2ipi(&bench, 0, 0xffffffff, 0x41), 15);
	assert_int_equal(x2ipi(&bench, 0, 0xffffffff, LOGICAL | 0x41), 15);
	assert_int_equal(x2ipi(&bench, 0, 5, LOGICAL | 0x41), 5);
	assert_int_equal(x2ipi(&bench, 0, 0x0000ffff, LOGICAL | 0x41), 15);
	assert_int_equal(x2ipi(&bench, 0, 0x0001ffff, LOGICAL | 0x41), 0);
	/* From who has 8 bits, FFH is everybody. */
	message.destination = 0xff;
	assert_true(apic_bus_send(&bench.bus, &message));
	assert_int_equal(take(&bench, 0x41), 15);
	message.destination = 6;
	message.logical = true;
	assert_true(apic_bus_send(&bench.bus, &message));
	assert_int_equal(take(&bench, 0x41), 6);
}

static void test_lowest_priority(void **state)
{
	static const uint8_t tpr[CPUS] = {0x50, 0x30, 0x40, 0x30};
	struct bench bench;
	struct lapic_model amd = bench_amd();

	(void)state;
	bench_set_up(&bench);
	enable_all(&bench);
	for (unsigned i = 0; i < CPUS; i++) {
		wr(&bench.apic[i], 0xd0, 0x01000000u << i);
		wr(&bench.apic[i], 0x80, tpr[i]);
	}
	assert_int_equal(ipi(&bench, 0, 0x0f, LOGICAL | 0x141), 2);
	assert_int_equal(ipi(&bench, 0, 0x0d, LOGICAL | 0x141), 8);
	assert_int_equal(ipi(&bench, 0, 0x05, LOGICAL | 0x141), 4);
	assert_int_equal(ipi(&bench, 0, 0x01, LOGICAL | 0x141), 1);
	assert_int_equal(ipi(&bench, 0, 0, OTHERS | 0x141), 2);
	/* What is requested already counts as well. */
	ipi(&bench, 0, 1, 0x91);
	wr(&bench.apic[0], 0x310, 1u << 24);
	wr(&bench.apic[0], 0x300, ASSERT | 0x91);
	assert_int_equal(ipi(&bench, 0, 0x0f, LOGICAL | 0x141), 8);
	/* Who does not accept takes no part. */
	wr(&bench.apic[3], 0xf0, 0xff);
	assert_int_equal(ipi(&bench, 0, 0x0f, LOGICAL | 0x141), 4);
	/* AMD: who has the vector already, unless it does not look. */
	bench_set_up_model(&bench, &amd);
	enable_all(&bench);
	wr(&bench.apic[2], 0x80, 0xf0);
	wr(&bench.apic[0], 0x310, 2u << 24);
	wr(&bench.apic[0], 0x300, ASSERT | 0x41);
	assert_int_equal(ipi(&bench, 0, 0xff, 0x141), 4);
	wr(&bench.apic[0], 0x310, 2u << 24);
	wr(&bench.apic[0], 0x300, ASSERT | 0x41);
	wr(&bench.apic[2], 0xf0, 0x3ff);
	assert_int_equal(ipi(&bench, 0, 0xff, 0x141), 5);
}

static void test_msi(void **state)
{
	struct bench bench;

	(void)state;
	bench_set_up(&bench);
	enable_all(&bench);
	for (unsigned i = 0; i < CPUS; i++)
		wr(&bench.apic[i], 0xd0, 0x01000000u << i);
	assert_true(apic_bus_msi(&bench.bus, 0xfee02000, 0x41));
	assert_int_equal(take(&bench, 0x41), 4);
	assert_true(apic_bus_msi(&bench.bus, 0xfeeff000, 0x41));
	assert_int_equal(take(&bench, 0x41), 15);
	assert_false(apic_bus_msi(&bench.bus, 0xfee09000, 0x41));
	assert_true(apic_bus_msi(&bench.bus, 0xfee06004, 0x41));
	assert_int_equal(take(&bench, 0x41), 6);
	/* Redirected to one of them. */
	assert_true(apic_bus_msi(&bench.bus, 0xfee0600c, 0x41));
	assert_int_equal(take(&bench, 0x41), 2);
	assert_true(apic_bus_msi(&bench.bus, 0xfee0e004, 0x141));
	assert_int_equal(take(&bench, 0x41), 2);
	assert_true(apic_bus_msi(&bench.bus, 0xfee01000, 0xc042));
	assert_true(has(bench.apic[1].tmr, 0x42));
	take(&bench, 0x42);
	assert_true(apic_bus_msi(&bench.bus, 0xfee01000, 0x8042));
	assert_int_equal(take(&bench, 0x42), 0);
	assert_true(apic_bus_msi(&bench.bus, 0xfee01000, 0x400));
	assert_int_equal(bench.cpu[1].nmi, 1);
	assert_true(apic_bus_msi(&bench.bus, 0xfee01000, 0x700));
	assert_true(bench.cpu[1].line);
	assert_false(apic_bus_msi(&bench.bus, 0xfee01000, 0x300));
	assert_false(apic_bus_msi(&bench.bus, 0xfee01000, 0x600));
	assert_false(apic_bus_msi(&bench.bus, 0xfed01000, 0x41));
	assert_false(apic_bus_msi(&bench.bus, 0x1fee01000, 0x41));
}

static void test_remote_read(void **state)
{
	struct bench bench;
	struct lapic_model amd = bench_amd();
	struct lapic *a = &bench.apic[0];

	(void)state;
	bench_set_up_model(&bench, &amd);
	enable_all(&bench);
	wr(&bench.apic[2], 0x80, 0x67);
	ipi(&bench, 0, 2, 0x308);
	assert_int_equal(rd(a, 0xc0), 0x67);
	assert_int_equal(rd(a, 0x300), 2u << 16 | ASSERT | 0x308);
	ipi(&bench, 0, 9, 0x308);
	assert_int_equal(rd(a, 0x300), ASSERT | 0x308);
	ipi(&bench, 0, 2, 0x304);
	assert_int_equal(rd(a, 0x300), ASSERT | 0x304);
}

/* ---- the MSRs ---- */

enum { R = 1, W = 2 };

/* What MSR 800H + @n can, and which bits a write may set. */
static unsigned access_of(unsigned n, bool amd, uint64_t *writable)
{
	*writable = 0;
	switch (n) {
	case 0x02:
	case 0x03:
	case 0x0a:
	case 0x0d:
	case 0x39: return R;
	case 0x08: *writable = 0xff; return R | W;
	case 0x09: return amd ? R : 0;
	case 0x0b: return W;
	case 0x0f: *writable = amd ? 0x3ff : 0x11ff; return R | W;
	case 0x28: return R | W;
	case 0x2f: *writable = 0x117ff; return amd ? 0 : R | W;
	case 0x30: *writable = 0xffffffff000cdfff; return R | W;
	case 0x32: *writable = amd ? 0x310ff : 0x710ff; return R | W;
	case 0x33:
	case 0x34: *writable = 0x117ff; return R | W;
	case 0x35:
	case 0x36: *writable = 0x1f7ff; return R | W;
	case 0x37: *writable = 0x110ff; return R | W;
	case 0x38: *writable = 0xffffffff; return R | W;
	case 0x3e: *writable = 0xb; return R | W;
	case 0x3f: *writable = 0xff; return W;
	case 0x40: return amd ? R : 0;
	case 0x41: *writable = 7; return amd ? R | W : 0;
	case 0x42: *writable = 0xff; return amd ? R | W : 0;
	default: break;
	}
	if (n >= 0x10 && n < 0x28)
		return R;
	if (amd && n >= 0x48 && n < 0x50) {
		*writable = 0xffffffff;
		return R | W;
	}
	*writable = 0x117ff;
	return amd && n >= 0x50 && n < 0x54 ? R | W : 0;
}

static void test_every_msr(void **state)
{
	struct bench bench;
	struct lapic_model model[2] = {bench_intel(), bench_amd()};

	(void)state;
	for (unsigned amd = 0; amd < 2; amd++)
		for (unsigned n = 0; n < 256; n++) {
			uint64_t writable, value;
			unsigned access = access_of(n, amd, &writable);

			bench_set_up_model(&bench, &model[amd]);
			assert_false(lapic_msr_read(&bench.apic[1], 0x800 + n, &value));
			assert_false(lapic_msr_write(&bench.apic[1], 0x800 + n, 0));
			enable_all(&bench);
			to_x2apic(&bench.apic[1]);
			assert_int_equal(lapic_msr_read(&bench.apic[1], 0x800 + n, &value), !!(access & R));
			assert_int_equal(lapic_msr_write(&bench.apic[1], 0x800 + n, 0), !!(access & W));
			for (unsigned bit = 0; bit < 64; bit++)
				assert_int_equal(lapic_msr_write(&bench.apic[1], 0x800 + n, 1ull << bit),
						 (access & W) && writable >> bit & 1);
		}
	assert_false(lapic_msr_write(&bench.apic[1], 0x7ff, 0));
	assert_false(lapic_msr_write(&bench.apic[1], 0x900, 0));
}

static void test_x2apic_registers(void **state)
{
	struct bench bench;
	struct lapic *a = &bench.apic[1];

	(void)state;
	bench_set_up(&bench);
	enable_all(&bench);
	to_x2apic(a);
	assert_int_equal(rdmsr(a, 0x803), 0x01060015);
	/* SELF IPI leaves ICR alone. */
	assert_true(wrmsr(a, 0x83f, 0x41));
	assert_int_equal(take(&bench, 0x41), 2);
	assert_int_equal(rdmsr(a, 0x830), 0);
	assert_true(wrmsr(a, 0x83f, 5));
	assert_true(wrmsr(a, 0x828, 0));
	assert_int_equal(rdmsr(a, 0x828), 0x60);
	x2ipi(&bench, 1, 0x12345678, 0x10000 * 0 + 0x142);
	assert_int_equal(rdmsr(a, 0x830), 0x1234567800000000 | ASSERT | 0x142);
	assert_true(wrmsr(a, 0x808, 0x52));
	assert_int_equal(rdmsr(a, 0x808), 0x52);
	assert_int_equal(bench.cpu[1].tpr, 0x52);
	assert_true(wrmsr(a, 0x808, 0));
	/* EOI. */
	wrmsr(a, 0x83f, 0x61);
	assert_int_equal(lapic_acknowledge(a), 0x61);
	assert_int_equal(rdmsr(a, 0x813), 1u << 1);
	assert_int_equal(rdmsr(a, 0x80a), 0x60);
	assert_true(wrmsr(a, 0x80b, 0));
	assert_int_equal(rdmsr(a, 0x813), 0);
	/* The timer. */
	assert_true(wrmsr(a, 0x83e, 0xb));
	assert_true(wrmsr(a, 0x832, 0x44));
	assert_true(wrmsr(a, 0x838, 10));
	advance(&bench, 50);
	assert_int_equal(rdmsr(a, 0x839), 5);
	advance(&bench, 100);
	assert_int_equal(take(&bench, 0x44), 2);
}

/* AMD's extended space: IER, specific EOI, four more entries. */
static void test_extended(void **state)
{
	struct bench bench;
	struct lapic_model amd = bench_amd();
	struct lapic *a = &bench.apic[0];

	(void)state;
	bench_set_up_model(&bench, &amd);
	enable_all(&bench);
	assert_int_equal(rd(a, 0x30), 0x80050010);
	assert_int_equal(rd(a, 0x400), 0x00040007);
	wr(a, 0x480, 0xffff0000);
	for (unsigned i = 1; i < 8; i++)
		wr(a, 0x480 + 16 * i, 0);
	ipi(&bench, 0, 0, 0);
	wr(a, 0x310, 0);
	wr(a, 0x300, ASSERT | 0x51);
	assert_true(bench.cpu[0].line);
	wr(a, 0x410, 1);
	assert_false(bench.cpu[0].line);
	wr(a, 0x4a0, 1u << 17);
	assert_int_equal(rd(a, 0x4a0), 1u << 17);
	assert_int_equal(lapic_acknowledge(a), 0x51);
	wr(a, 0x4b0, 1u << 1);
	wr(a, 0x300, ASSERT | 0x61);
	assert_int_equal(lapic_acknowledge(a), 0x61);
	/* Not in use yet; then the lower one ends first. */
	wr(a, 0x420, 0x51);
	assert_true(has(a->isr, 0x51));
	wr(a, 0x410, 3);
	wr(a, 0x420, 0x51);
	assert_false(has(a->isr, 0x51));
	assert_true(has(a->isr, 0x61));
	wr(a, 0x410, 7);
	wr(a, 0x20, 0x9a000000);
	assert_int_equal(rd(a, 0x20), 0x9a000000);
	assert_int_equal(errors(a), 0x60); /* of the first IPI above */
	rd(a, 0x430);
	assert_int_equal(errors(a), 0x80);
	/* Priority to arbitrate with. */
	wr(a, 0x80, 0x70);
	assert_int_equal(rd(a, 0x90), 0x70);
	wr(a, 0x80, 0);
	assert_int_equal(rd(a, 0x90), 0x60);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(test_physical),
	cmocka_unit_test(test_shorthands),
	cmocka_unit_test(test_delivery_modes),
	cmocka_unit_test(test_errors),
	cmocka_unit_test(test_logical_flat),
	cmocka_unit_test(test_logical_cluster),
	cmocka_unit_test(test_x2apic_destinations),
	cmocka_unit_test(test_lowest_priority),
	cmocka_unit_test(test_msi),
	cmocka_unit_test(test_remote_read),
	cmocka_unit_test(test_every_msr),
	cmocka_unit_test(test_x2apic_registers),
	cmocka_unit_test(test_extended),
};

BENCH_MAIN(tests)
