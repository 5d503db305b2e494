/* lapic_test.c: priorities, acceptance, pins, EOI, life, IA32_APIC_BASE, timer. */
#include "chip/lapic_bench.h"
#include "dev/state.h"

static void send_fixed(struct bench *bench, unsigned cpu, uint8_t vector, bool level)
{
	struct apic_message message = {
		.destination = cpu, .vector = vector, .level = level, .assert = true, .delivery = APIC_FIXED};

	assert_true(apic_bus_send(&bench->bus, &message));
}

static void test_after_reset(void **state)
{
	struct bench bench;

	(void)state;
	bench_set_up(&bench);
	for (unsigned i = 0; i < CPUS; i++) {
		struct lapic *a = &bench.apic[i];

		assert_int_equal(rdmsr(a, MSR_APIC_BASE), 0xfee00800 | (i == 0 ? 0x100 : 0));
		assert_int_equal(rd(a, 0x20), i << 24);
		assert_int_equal(rd(a, 0x30), 0x01060015);
		assert_int_equal(rd(a, 0xe0), 0xffffffff);
		assert_int_equal(rd(a, 0xf0), 0xff);
		assert_int_equal(rd(a, 0x80) | rd(a, 0xa0) | rd(a, 0xd0) | rd(a, 0x300) | rd(a, 0x310), 0);
		assert_int_equal(rd(a, 0x280) | rd(a, 0x380) | rd(a, 0x390) | rd(a, 0x3e0), 0);
		assert_int_equal(rd(a, 0x2f0), 0x10000);
		for (unsigned lvt = 0x320; lvt <= 0x370; lvt += 16)
			assert_int_equal(rd(a, lvt), 0x10000);
		assert_int_equal(errors(a), 0);
		assert_false(bench.cpu[i].line);
	}
	assert_true(lapic_claims(&bench.apic[0], 0xfee00000));
	assert_true(lapic_claims(&bench.apic[0], 0xfee00fff));
	assert_false(lapic_claims(&bench.apic[0], 0xfee01000));
}

/* Class above class; what is in service holds back its own class; EOI ends the highest. */
static void test_priorities(void **state)
{
	struct bench bench;
	struct lapic *a = &bench.apic[0];

	(void)state;
	bench_set_up(&bench);
	enable_all(&bench);
	assert_int_equal(lapic_acknowledge(a), -1);
	send_fixed(&bench, 0, 0x41, false);
	assert_true(bench.cpu[0].line);
	assert_int_equal(rd(a, 0x220), 1u << 1);
	assert_int_equal(lapic_acknowledge(a), 0x41);
	assert_false(bench.cpu[0].line);
	assert_int_equal(rd(a, 0x220), 0);
	assert_int_equal(rd(a, 0x120), 1u << 1);
	assert_int_equal(rd(a, 0xa0), 0x40);
	/* Same class, even a higher vector: not before EOI. */
	send_fixed(&bench, 0, 0x4f, false);
	assert_false(bench.cpu[0].line);
	assert_int_equal(lapic_acknowledge(a), -1);
	send_fixed(&bench, 0, 0x50, false);
	send_fixed(&bench, 0, 0x52, false);
	assert_true(bench.cpu[0].line);
	assert_int_equal(lapic_acknowledge(a), 0x52);
	assert_int_equal(rd(a, 0xa0), 0x50);
	assert_int_equal(lapic_acknowledge(a), -1);
	wr(a, 0xb0, 0);
	assert_int_equal(rd(a, 0xa0), 0x40);
	assert_int_equal(lapic_acknowledge(a), 0x50);
	wr(a, 0xb0, 0);
	assert_false(bench.cpu[0].line);
	wr(a, 0xb0, 0);
	assert_int_equal(lapic_acknowledge(a), 0x4f);
	wr(a, 0xb0, 0);
	wr(a, 0xb0, 0); /* nothing in service: nothing happens */
	assert_int_equal(rd(a, 0xa0), 0);
	assert_int_equal(bench.eoi, 0);
}

static void test_tpr(void **state)
{
	struct bench bench;
	struct lapic *a = &bench.apic[0];

	(void)state;
	bench_set_up(&bench);
	enable_all(&bench);
	send_fixed(&bench, 0, 0x51, false);
	wr(a, 0x80, 0x5f);
	assert_int_equal(bench.cpu[0].tpr, 0x5f);
	assert_int_equal(rd(a, 0x80), 0x5f);
	assert_int_equal(rd(a, 0xa0), 0x5f);
	assert_false(bench.cpu[0].line);
	wr(a, 0x80, 0xffffff4f);
	assert_int_equal(rd(a, 0x80), 0x4f);
	assert_true(bench.cpu[0].line);
	lapic_write_cr8(a, 5);
	assert_int_equal(rd(a, 0x80), 0x50);
	assert_int_equal(bench.cpu[0].tpr, 0x4f); /* who wrote CR8 knows it */
	assert_false(bench.cpu[0].line);
	lapic_write_cr8(a, 4);
	assert_int_equal(lapic_acknowledge(a), 0x51);
	/* In service above, equal to and below TPR. */
	assert_int_equal(rd(a, 0xa0), 0x50);
	wr(a, 0x80, 0x53);
	assert_int_equal(rd(a, 0xa0), 0x53);
	wr(a, 0x80, 0x62);
	assert_int_equal(rd(a, 0xa0), 0x62);
}

static void test_every_vector(void **state)
{
	struct bench bench;
	struct lapic *a = &bench.apic[0];

	(void)state;
	bench_set_up(&bench);
	enable_all(&bench);
	for (unsigned vector = 0; vector < 256; vector++) {
		bool level = vector & 1;

		send_fixed(&bench, 0, (uint8_t)vector, level);
		if (vector < 16) {
			assert_int_equal(lapic_acknowledge(a), -1);
			assert_int_equal(errors(a), 0x40);
			continue;
		}
		assert_int_equal(rd(a, 0x200 + vector / 32 * 16), 1u << vector % 32);
		assert_int_equal(lapic_acknowledge(a), vector);
		assert_int_equal(rd(a, 0x100 + vector / 32 * 16), 1u << vector % 32);
		assert_int_equal(rd(a, 0x180 + vector / 32 * 16) >> vector % 32 & 1, level);
		bench.eoi = 0;
		wr(a, 0xb0, 0);
		assert_int_equal(bench.eoi, level);
		if (level)
			assert_int_equal(bench.eoi_vector, vector);
		assert_int_equal(rd(a, 0x100 + vector / 32 * 16), 0);
		assert_int_equal(errors(a), 0);
	}
	/* As an edge it loses its TMR bit again; suppressed, the EOI stays here. */
	send_fixed(&bench, 0, 0x31, false);
	assert_int_equal(rd(a, 0x190) >> 17 & 1, 0);
	send_fixed(&bench, 0, 0x31, true);
	wr(a, 0xf0, 0x11ff);
	assert_int_equal(rd(a, 0xf0), 0x11ff);
	lapic_acknowledge(a);
	bench.eoi = 0;
	wr(a, 0xb0, 0);
	assert_int_equal(bench.eoi, 0);
}

static void test_software_disabled(void **state)
{
	struct bench bench;
	struct lapic *a = &bench.apic[1];
	struct apic_message message = {.destination = 1, .vector = 0x61, .assert = true};

	(void)state;
	bench_set_up(&bench);
	/* Entries cannot be unmasked, fixed interrupts are not accepted, the others are. */
	wr(a, 0x320, 0x20040);
	assert_int_equal(rd(a, 0x320), 0x30040);
	assert_false(apic_bus_send(&bench.bus, &message));
	message.delivery = APIC_NMI;
	assert_true(apic_bus_send(&bench.bus, &message));
	message.delivery = APIC_SMI;
	assert_true(apic_bus_send(&bench.bus, &message));
	message.delivery = APIC_INIT;
	assert_true(apic_bus_send(&bench.bus, &message));
	message.delivery = APIC_STARTUP;
	assert_true(apic_bus_send(&bench.bus, &message));
	assert_int_equal(bench.cpu[1].nmi, 1);
	assert_int_equal(bench.cpu[1].smi, 1);
	assert_int_equal(bench.cpu[1].init, 1);
	assert_int_equal(bench.cpu[1].sipi, 1);
	assert_int_equal(bench.cpu[1].sipi_vector, 0x61);
	enable(a);
	assert_int_equal(bench.retry, 1);
	wr(a, 0x320, 0x20040);
	wr(a, 0x350, 0x8700);
	assert_int_equal(rd(a, 0x320), 0x20040);
	message.delivery = APIC_FIXED;
	assert_true(apic_bus_send(&bench.bus, &message));
	/* Disabling masks all, and keeps what is requested. */
	wr(a, 0xf0, 0xff);
	assert_int_equal(rd(a, 0x320), 0x30040);
	assert_int_equal(rd(a, 0x350), 0x18700);
	assert_int_equal(lapic_acknowledge(a), 0x61);
	enable(a);
	assert_int_equal(rd(a, 0x320), 0x30040);
}

static void test_error_register(void **state)
{
	struct bench bench;
	struct lapic *a = &bench.apic[0];

	(void)state;
	bench_set_up(&bench);
	enable_all(&bench);
	wr(a, 0x370, 0x77);
	/* Every offset that is no register, read and written; what only reads can be written. */
	for (unsigned offset = 0; offset < 0x1000; offset += 16) {
		bool none = offset < 0x20 || (offset >= 0x40 && offset < 0x80) ||
			    (offset >= 0x290 && offset < 0x2f0) || (offset >= 0x3a0 && offset < 0x3e0) ||
			    offset >= 0x3f0;

		if (offset == 0x280)
			continue;
		rd(a, offset);
		assert_int_equal(errors(a), none ? 0x80 : 0);
		assert_int_equal(take(&bench, 0x77), none);
		if (none || offset == 0x30 || offset == 0xa0 || (offset >= 0x100 && offset < 0x280)) {
			wr(a, offset, 0xffffffff);
			assert_int_equal(errors(a), none ? 0x80 : 0);
			take(&bench, 0x77);
		}
	}
	/* Shown by the write, cleared by the next; asks once until then. */
	errors(a);
	rd(a, 0x40);
	assert_int_equal(take(&bench, 0x77), 1);
	rd(a, 0x40);
	assert_int_equal(take(&bench, 0x77), 0);
	assert_int_equal(rd(a, 0x280), 0);
	wr(a, 0x280, 0);
	assert_int_equal(rd(a, 0x280), 0x80);
	assert_int_equal(rd(a, 0x280), 0x80);
	wr(a, 0x280, 0);
	assert_int_equal(rd(a, 0x280), 0);
	rd(a, 0x40);
	assert_int_equal(take(&bench, 0x77), 1);
	/* An error entry with an illegal vector is one more error, once. */
	errors(a);
	wr(a, 0x370, 0x05);
	rd(a, 0x40);
	assert_int_equal(errors(a), 0xc0);
}

static void test_page(void **state)
{
	struct bench bench;
	struct lapic *a = &bench.apic[0];
	uint8_t bytes[16], byte = 0x12;

	(void)state;
	bench_set_up(&bench);
	lapic_mmio_read(a, 0x30, bytes, 16);
	assert_memory_equal(bytes, ((uint8_t[16]){0x15, 0, 6, 1}), 16);
	lapic_mmio_read(a, 0x32, bytes, 1);
	assert_int_equal(bytes[0], 6);
	lapic_mmio_read(a, 0x2c, bytes, 8);
	assert_memory_equal(bytes, ((uint8_t[8]){0, 0, 0, 0, 0x15, 0, 6, 1}), 8);
	/* Bytes and unaligned words are no whole register. */
	lapic_mmio_write(a, 0x80, &byte, 1);
	wr(a, 0x84, 0x12);
	assert_int_equal(rd(a, 0x80), 0);
	/* Bits that are not there do not stay. */
	enable(a);
	wr(a, 0xd0, 0xffffffff);
	assert_int_equal(rd(a, 0xd0), 0xff000000);
	wr(a, 0xe0, 0);
	assert_int_equal(rd(a, 0xe0), 0x0fffffff);
	wr(a, 0x20, 0x7f000000);
	assert_int_equal(rd(a, 0x20), 0);
	wr(a, 0x310, 0xffffffff);
	assert_int_equal(rd(a, 0x310), 0xff000000);
	wr(a, 0x3e0, 0xffffffff);
	assert_int_equal(rd(a, 0x3e0), 0xb);
	wr(a, 0x2f0, 0xfffeffff);
	assert_int_equal(rd(a, 0x2f0), 0x7ff);
	wr(a, 0x320, 0xffffffff);
	assert_int_equal(rd(a, 0x320), 0x700ff);
	wr(a, 0x330, 0xffffffff);
	assert_int_equal(rd(a, 0x330), 0x107ff);
	wr(a, 0x350, 0xffffffff);
	assert_int_equal(rd(a, 0x350), 0x1a7ff);
	wr(a, 0x370, 0xffffffff);
	assert_int_equal(rd(a, 0x370), 0x100ff);
	wr(a, 0xf0, 0xffffffff);
	assert_int_equal(rd(a, 0xf0), 0x11ff);
}

static void test_pins(void **state)
{
	struct bench bench;
	struct lapic *a = &bench.apic[0];

	(void)state;
	bench_set_up(&bench);
	/* Virtual wire mode: INTA goes to the 8259As, and past all priorities. */
	lapic_virtual_wire(a);
	lapic_write_cr8(a, 15);
	bench.extint_vector = 8;
	apic_bus_extint(&bench.bus, true);
	assert_true(bench.cpu[0].line);
	assert_false(bench.cpu[1].line);
	assert_int_equal(lapic_acknowledge(a), 8);
	assert_int_equal(bench.extint, 1);
	assert_false(bench.cpu[0].line);
	assert_int_equal(lapic_acknowledge(a), -1);
	lapic_write_cr8(a, 0);
	/* Masked: not heard, but still there. */
	wr(a, 0x350, 0x10700);
	apic_bus_extint(&bench.bus, true);
	assert_false(bench.cpu[0].line);
	wr(a, 0x350, 0x700);
	assert_true(bench.cpu[0].line);
	apic_bus_extint(&bench.bus, false);
	assert_false(bench.cpu[0].line);
	/* NMI at LINT1; once an edge; masked ones are lost. */
	lapic_nmi_pin(a);
	assert_int_equal(bench.cpu[0].nmi, 1);
	wr(a, 0x360, 0x10400);
	lapic_nmi_pin(a);
	wr(a, 0x360, 0x400);
	assert_int_equal(bench.cpu[0].nmi, 1);
	wr(a, 0x360, 0x200);
	lapic_nmi_pin(a);
	assert_int_equal(bench.cpu[0].smi, 1);
	wr(a, 0x360, 0x500);
	lapic_nmi_pin(a);
	assert_int_equal(bench.cpu[0].init, 1);
	wr(a, 0x360, 0x80a1); /* fixed at LINT1 is an edge whatever it says */
	lapic_nmi_pin(a);
	assert_int_equal(take(&bench, 0xa1), 1);
	assert_int_equal(rd(a, 0x360), 0x80a1);
	/* A reserved mode does nothing. */
	wr(a, 0x360, 0x3a1);
	lapic_nmi_pin(a);
	assert_int_equal(take(&bench, 0xa1), 0);
}

static void test_lint0_fixed(void **state)
{
	struct bench bench;
	struct lapic *a = &bench.apic[0];

	(void)state;
	bench_set_up(&bench);
	enable(a);
	/* Edge: rising only, and not by unmasking. */
	wr(a, 0x350, 0x91);
	apic_bus_extint(&bench.bus, true);
	assert_int_equal(take(&bench, 0x91), 1);
	apic_bus_extint(&bench.bus, true);
	assert_int_equal(take(&bench, 0x91), 0);
	wr(a, 0x350, 0x10091);
	wr(a, 0x350, 0x91);
	assert_int_equal(take(&bench, 0x91), 0);
	apic_bus_extint(&bench.bus, false);
	/* Level: remote IRR until EOI, then again while it is asserted. */
	wr(a, 0x350, 0x8091);
	apic_bus_extint(&bench.bus, true);
	assert_int_equal(rd(a, 0x350), 0xc091);
	assert_int_equal(lapic_acknowledge(a), 0x91);
	assert_true(has(a->tmr, 0x91));
	assert_int_equal(lapic_acknowledge(a), -1);
	wr(a, 0xb0, 0);
	assert_int_equal(rd(a, 0x350), 0xc091);
	assert_int_equal(lapic_acknowledge(a), 0x91);
	apic_bus_extint(&bench.bus, false);
	wr(a, 0xb0, 0);
	assert_int_equal(rd(a, 0x350), 0x8091);
	assert_int_equal(lapic_acknowledge(a), -1);
	/* Active low: what is not raised is asserted. */
	wr(a, 0x350, 0xa091);
	assert_int_equal(lapic_acknowledge(a), 0x91);
	apic_bus_extint(&bench.bus, true);
	wr(a, 0xb0, 0);
	assert_int_equal(lapic_acknowledge(a), -1);
}

static void test_local_sources(void **state)
{
	struct bench bench;
	struct lapic *a = &bench.apic[0];
	struct lapic_model amd = bench_amd();

	(void)state;
	bench_set_up(&bench);
	lapic_local(a, LVT_THERMAL);
	assert_int_equal(bench.cpu[0].nmi, 0);
	enable(a);
	wr(a, 0x2f0, 0x200);
	wr(a, 0x330, 0x400);
	wr(a, 0x340, 0xb1);
	lapic_local(a, LVT_CMCI);
	lapic_local(a, LVT_THERMAL);
	lapic_local(a, LVT_PERFORMANCE);
	assert_int_equal(bench.cpu[0].smi, 1);
	assert_int_equal(bench.cpu[0].nmi, 1);
	assert_int_equal(take(&bench, 0xb1), 1);
	assert_int_equal(rd(a, 0x340), 0x100b1);
	lapic_local(a, LVT_PERFORMANCE);
	assert_int_equal(take(&bench, 0xb1), 0);
	wr(a, 0x330, 0x500); /* INIT is for pins */
	lapic_local(a, LVT_THERMAL);
	assert_int_equal(bench.cpu[0].init, 0);
	wr(a, 0x330, 0x3);
	lapic_local(a, LVT_THERMAL);
	assert_int_equal(errors(a), 0x40);
	bench_set_up_model(&bench, &amd);
	enable(a);
	wr(a, 0x340, 0xb1);
	wr(a, 0x520, 0xb2);
	lapic_local(a, LVT_PERFORMANCE);
	lapic_local(a, LVT_EXTENDED + 2);
	assert_int_equal(rd(a, 0x340), 0xb1);
	assert_int_equal(take(&bench, 0xb2), 1);
}

static void test_hardware_disabled(void **state)
{
	struct bench bench;
	struct lapic *a = &bench.apic[0];

	(void)state;
	bench_set_up(&bench);
	enable(a);
	wr(a, 0x80, 0x20);
	send_fixed(&bench, 0, 0x41, false);
	assert_true(wrmsr(a, MSR_APIC_BASE, 0xfee00100));
	assert_false(lapic_claims(a, 0xfee00000));
	assert_false(bench.cpu[0].line);
	assert_int_equal(bench.cpu[0].tpr, 0);
	assert_false(
		apic_bus_send(&bench.bus, &(struct apic_message){.destination = 0, .delivery = APIC_NMI}));
	assert_false(apic_bus_send(&bench.bus, &(struct apic_message){.destination = 0, .vector = 0x41}));
	/* LINT0 is INTR, LINT1 is NMI. */
	bench.extint_vector = 0x33;
	apic_bus_extint(&bench.bus, true);
	assert_true(bench.cpu[0].line);
	assert_int_equal(lapic_acknowledge(a), 0x33);
	assert_false(bench.cpu[0].line);
	lapic_nmi_pin(a);
	assert_int_equal(bench.cpu[0].nmi, 1);
	lapic_local(a, LVT_THERMAL);
	/* Enabled again, at another place, it is as after reset. */
	assert_true(wrmsr(a, MSR_APIC_BASE, 0x80000900));
	assert_true(lapic_claims(a, 0x80000123));
	assert_false(lapic_claims(a, 0xfee00000));
	assert_int_equal(rd(a, 0xf0), 0xff);
	assert_int_equal(rd(a, 0x220), 0);
}

static void test_init(void **state)
{
	struct bench bench;
	struct lapic *a = &bench.apic[3];

	(void)state;
	bench_set_up(&bench);
	wrmsr(a, MSR_APIC_BASE, 0x80000800);
	enable(a);
	wr(a, 0x80, 0x30);
	wr(a, 0xd0, 0x01000000);
	wr(a, 0x320, 0x44);
	wr(a, 0x380, 100);
	send_fixed(&bench, 3, 0x61, true);
	lapic_reset(a, true);
	assert_int_equal(rdmsr(a, MSR_APIC_BASE), 0x80000800);
	assert_int_equal(rd(a, 0x20), 3u << 24);
	assert_int_equal(rd(a, 0xf0), 0xff);
	assert_int_equal(rd(a, 0x80) | rd(a, 0xd0) | rd(a, 0x230) | rd(a, 0x380), 0);
	assert_int_equal(rd(a, 0x320), 0x10000);
	assert_int_equal(bench.clock.next, CLOCK_NEVER);
	assert_false(bench.cpu[3].line);
	assert_int_equal(bench.cpu[3].tpr, 0);
	to_x2apic(a);
	lapic_reset(a, true);
	assert_int_equal(rdmsr(a, MSR_APIC_BASE), 0x80000c00);
	assert_int_equal(rdmsr(a, 0x80d), 1u << 3);
	lapic_reset(a, false);
	assert_int_equal(rdmsr(a, MSR_APIC_BASE), 0xfee00800);
	assert_int_equal(rd(a, 0xd0), 0);
}

/* All transitions between the three states and the invalid one; reserved bits. */
static void test_base(void **state)
{
	static const uint64_t mode[4] = {0, 0x400, 0x800, 0xc00}; /* disabled, invalid, xAPIC, x2APIC */
	static const uint8_t allowed[4] = {1 << 0 | 1 << 2, 0, 1 << 0 | 1 << 2 | 1 << 3, 1 << 0 | 1 << 3};
	struct bench bench;
	struct lapic *a = &bench.apic[1];
	struct lapic_model model = bench_intel();

	(void)state;
	for (unsigned from = 0; from < 4; from++)
		for (unsigned to = 0; to < 4; to++) {
			if (from == 1)
				continue;
			bench_set_up(&bench);
			assert_true(wrmsr(a, MSR_APIC_BASE, 0xfee00000 | (from ? 0x800 : 0)));
			assert_true(wrmsr(a, MSR_APIC_BASE, 0xfee00000 | mode[from]));
			assert_int_equal(wrmsr(a, MSR_APIC_BASE, 0x12345000 | mode[to]),
					 allowed[from] >> to & 1);
			assert_int_equal(rdmsr(a, MSR_APIC_BASE), allowed[from] >> to & 1
									  ? 0x12345000 | mode[to]
									  : 0xfee00000 | mode[from]);
		}
	bench_set_up(&bench);
	for (unsigned bit = 0; bit < 64; bit++) {
		bool defined = bit == 8 || (bit >= 10 && bit < 40);

		assert_int_equal(wrmsr(a, MSR_APIC_BASE, 0xfee00800 | 1ull << bit), defined);
		lapic_reset(a, false);
	}
	model.x2apic = false;
	bench_set_up_model(&bench, &model);
	assert_false(wrmsr(a, MSR_APIC_BASE, 0xfee00c00));
}

static void test_to_x2apic_keeps(void **state)
{
	struct bench bench;
	struct lapic *a = &bench.apic[2];

	(void)state;
	bench_set_up(&bench);
	enable(a);
	wr(a, 0x80, 0x40);
	wr(a, 0xd0, 0x80000000);
	wr(a, 0x310, 0x05000000);
	wr(a, 0x320, 0x2a);
	send_fixed(&bench, 2, 0x61, false);
	to_x2apic(a);
	assert_false(lapic_claims(a, 0xfee00000));
	assert_int_equal(rdmsr(a, 0x802), 2);
	assert_int_equal(rdmsr(a, 0x80d), 1u << 2);
	assert_int_equal(rdmsr(a, 0x808), 0x40);
	assert_int_equal(rdmsr(a, 0x830), 0);
	assert_int_equal(rdmsr(a, 0x832), 0x2a);
	assert_int_equal(lapic_acknowledge(a), 0x61);
	assert_true(wrmsr(a, MSR_APIC_BASE, 0xfee00000));
	assert_true(wrmsr(a, MSR_APIC_BASE, 0xfee00800));
	assert_int_equal(rd(a, 0x20), 2u << 24);
	assert_int_equal(rd(a, 0xd0), 0);
	assert_int_equal(rd(a, 0xf0), 0xff);
}

/* ---- timer ---- */

static const struct {
	uint32_t code, by;
} divides[] = {{0, 2}, {1, 4}, {2, 8}, {3, 16}, {8, 32}, {9, 64}, {10, 128}, {11, 1}};

static void test_one_shot(void **state)
{
	struct bench bench;
	struct lapic *a = &bench.apic[0];

	(void)state;
	for (unsigned i = 0; i < 8; i++) {
		uint64_t tick = 10 * divides[i].by;

		bench_set_up(&bench);
		enable(a);
		bench.time = 7;
		wr(a, 0x3e0, divides[i].code);
		wr(a, 0x320, 0x51);
		wr(a, 0x380, 100);
		assert_int_equal(rd(a, 0x390), 100);
		assert_int_equal(bench.clock.next, 7 + 100 * tick);
		for (unsigned n = 1; n < 100; n++) {
			advance(&bench, 7 + n * tick - 1);
			assert_int_equal(rd(a, 0x390), 100 - n + 1);
			advance(&bench, 7 + n * tick);
			assert_int_equal(rd(a, 0x390), 100 - n);
		}
		advance(&bench, 7 + 100 * tick - 1);
		assert_int_equal(take(&bench, 0x51), 0);
		advance(&bench, 7 + 100 * tick);
		assert_int_equal(take(&bench, 0x51), 1);
		assert_int_equal(rd(a, 0x390), 0);
		assert_int_equal(rd(a, 0x380), 100);
		advance(&bench, 7 + 300 * tick);
		assert_int_equal(take(&bench, 0x51), 0);
	}
}

static void test_periodic(void **state)
{
	struct bench bench;
	struct lapic *a = &bench.apic[0];

	(void)state;
	bench_set_up(&bench);
	enable(a);
	wr(a, 0x3e0, 0xb);
	wr(a, 0x320, 0x20052);
	wr(a, 0x380, 7);
	for (uint64_t n = 1; n < 20; n++) {
		advance(&bench, n * 70 - 1);
		assert_int_equal(take(&bench, 0x52), 0);
		assert_int_equal(rd(a, 0x390), 1);
		advance(&bench, n * 70);
		assert_int_equal(take(&bench, 0x52), 1);
		assert_int_equal(rd(a, 0x390), 7);
	}
	/* Many periods at once are one interrupt, and the phase stays. */
	advance(&bench, 7000000003);
	assert_int_equal(take(&bench, 0x52), 1);
	assert_int_equal(rd(a, 0x390), 7);
	assert_int_equal(bench.clock.next, 7000000070);
	/* Masked, nobody waits for it, but it counts. */
	wr(a, 0x320, 0x30052);
	assert_int_equal(bench.clock.next, CLOCK_NEVER);
	bench.time = 7000000100;
	assert_int_equal(rd(a, 0x390), 4);
	wr(a, 0x320, 0x20052);
	assert_int_equal(take(&bench, 0x52), 0);
	assert_int_equal(bench.clock.next, 7000000140);
	/* A look at the registers comes before the clock does. */
	bench.time = 7000000145;
	assert_int_equal(rd(a, 0x390), 7);
	assert_int_equal(take(&bench, 0x52), 1);
	clock_run(&bench.clock);
	assert_int_equal(take(&bench, 0x52), 0);
	wr(a, 0x380, 0);
	assert_int_equal(bench.clock.next, CLOCK_NEVER);
	assert_int_equal(rd(a, 0x390), 0);
}

static void test_timer_changes(void **state)
{
	struct bench bench;
	struct lapic *a = &bench.apic[0];

	(void)state;
	bench_set_up(&bench);
	enable(a);
	wr(a, 0x3e0, 0xb);
	wr(a, 0x320, 0x53);
	wr(a, 0x380, 100);
	/* Another divider goes on with what is left. */
	bench.time = 400;
	wr(a, 0x3e0, 0);
	assert_int_equal(rd(a, 0x390), 60);
	assert_int_equal(bench.clock.next, 400 + 60 * 20);
	/* To periodic the count goes on, too; 0 of one-shot stays over. */
	wr(a, 0x320, 0x20053);
	assert_int_equal(bench.clock.next, 400 + 60 * 20);
	advance(&bench, 1600);
	assert_int_equal(take(&bench, 0x53), 1);
	assert_int_equal(bench.clock.next, 1600 + 100 * 20);
	wr(a, 0x320, 0x53);
	advance(&bench, 3600);
	assert_int_equal(take(&bench, 0x53), 1);
	wr(a, 0x320, 0x20053);
	assert_int_equal(bench.clock.next, CLOCK_NEVER);
	/* Over while it is masked: nothing comes later. */
	wr(a, 0x320, 0x10053);
	wr(a, 0x380, 10);
	bench.time = 5000;
	wr(a, 0x320, 0x53);
	assert_int_equal(bench.clock.next, CLOCK_NEVER);
	assert_int_equal(take(&bench, 0x53), 0);
	/* A new count restarts; the largest count does not overflow. */
	wr(a, 0x380, 10);
	bench.time = 5100;
	wr(a, 0x380, 10);
	assert_int_equal(bench.clock.next, 5300);
	wr(a, 0x3e0, 0xa);
	wr(a, 0x380, 0xffffffff);
	assert_int_equal(bench.clock.next, 5100 + 0xffffffffull * 1280);
}

static void test_deadline(void **state)
{
	struct bench bench;
	struct lapic *a = &bench.apic[0];

	(void)state;
	bench_set_up(&bench);
	enable(a);
	/* Not in this mode yet. */
	assert_true(wrmsr(a, MSR_TSC_DEADLINE, 1000));
	assert_int_equal(rdmsr(a, MSR_TSC_DEADLINE), 0);
	wr(a, 0x320, 0x40054);
	wr(a, 0x380, 50);
	assert_int_equal(rd(a, 0x380), 0);
	assert_int_equal(bench.clock.next, CLOCK_NEVER);
	assert_true(wrmsr(a, MSR_TSC_DEADLINE, 1000));
	assert_int_equal(rdmsr(a, MSR_TSC_DEADLINE), 1000);
	assert_int_equal(rd(a, 0x390), 0);
	assert_int_equal(bench.clock.next, 334);
	advance(&bench, 333);
	assert_int_equal(take(&bench, 0x54), 0);
	advance(&bench, 334);
	assert_int_equal(take(&bench, 0x54), 1);
	assert_int_equal(rdmsr(a, MSR_TSC_DEADLINE), 0);
	/* One that has passed is there at once; 0 disarms. */
	wrmsr(a, MSR_TSC_DEADLINE, 1);
	assert_int_equal(take(&bench, 0x54), 1);
	wrmsr(a, MSR_TSC_DEADLINE, 5000);
	wrmsr(a, MSR_TSC_DEADLINE, 0);
	assert_int_equal(bench.clock.next, CLOCK_NEVER);
	/* Leaving the mode disarms, both ways. */
	wrmsr(a, MSR_TSC_DEADLINE, 5000);
	wr(a, 0x320, 0x54);
	assert_int_equal(rdmsr(a, MSR_TSC_DEADLINE), 0);
	assert_int_equal(bench.clock.next, CLOCK_NEVER);
	wr(a, 0x380, 1000);
	wr(a, 0x320, 0x40054);
	assert_int_equal(bench.clock.next, CLOCK_NEVER);
	wr(a, 0x320, 0x54);
	assert_int_equal(rd(a, 0x390), 0);
	/* Another vector keeps it armed. */
	wr(a, 0x320, 0x40054);
	wrmsr(a, MSR_TSC_DEADLINE, 5000);
	wr(a, 0x320, 0x40055);
	assert_int_equal(rdmsr(a, MSR_TSC_DEADLINE), 5000);
	/* The TSC jumps. */
	bench.time = 2000;
	lapic_tsc_changed(a);
	assert_int_equal(take(&bench, 0x55), 1);
}

static void test_deadline_of_amd(void **state)
{
	struct bench bench;
	struct lapic_model amd = bench_amd();

	(void)state;
	bench_set_up_model(&bench, &amd);
	enable(&bench.apic[0]);
	assert_false(wrmsr(&bench.apic[0], MSR_TSC_DEADLINE, 1));
	assert_int_equal(rdmsr(&bench.apic[0], MSR_TSC_DEADLINE), UINT64_MAX);
	wr(&bench.apic[0], 0x320, 0x60054);
	assert_int_equal(rd(&bench.apic[0], 0x320), 0x20054);
}

/* A saved APIC in another machine goes on as the first would. */
static void test_state(void **state)
{
	struct bench bench, other;
	uint8_t bytes[1024];

	(void)state;
	bench_set_up(&bench);
	bench_set_up(&other);
	enable(&bench.apic[0]);
	bench.time = 50;
	wr(&bench.apic[0], 0x320, 0x20051);
	wr(&bench.apic[0], 0x380, 100);
	wr(&bench.apic[0], 0x80, 0x30);
	send_fixed(&bench, 0, 0x41, false);
	assert_true(state_size(&lapic_state) <= sizeof(bytes));
	state_save(&lapic_state, &bench.apic[0], bytes);
	other.time = 60;
	assert_int_equal(state_load(&lapic_state, &other.apic[0], bytes, state_size(&lapic_state)), 0);
	assert_null(state_difference(&lapic_state, &bench.apic[0], &other.apic[0]));
	assert_int_equal(other.clock.next, 50 + 2000);
	assert_true(other.cpu[0].line);
	assert_int_equal(other.cpu[0].tpr, 0x30);
	assert_int_equal(lapic_acknowledge(&other.apic[0]), 0x41);
}

static const struct CMUnitTest tests[] = {
	cmocka_unit_test(test_after_reset),
	cmocka_unit_test(test_priorities),
	cmocka_unit_test(test_tpr),
	cmocka_unit_test(test_every_vector),
	cmocka_unit_test(test_software_disabled),
	cmocka_unit_test(test_error_register),
	cmocka_unit_test(test_page),
	cmocka_unit_test(test_pins),
	cmocka_unit_test(test_lint0_fixed),
	cmocka_unit_test(test_local_sources),
	cmocka_unit_test(test_hardware_disabled),
	cmocka_unit_test(test_init),
	cmocka_unit_test(test_base),
	cmocka_unit_test(test_to_x2apic_keeps),
	cmocka_unit_test(test_one_shot),
	cmocka_unit_test(test_periodic),
	cmocka_unit_test(test_timer_changes),
	cmocka_unit_test(test_deadline),
	cmocka_unit_test(test_deadline_of_amd),
	cmocka_unit_test(test_state),
};

BENCH_MAIN(tests)
