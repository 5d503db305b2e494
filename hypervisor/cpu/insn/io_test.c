/* io_test.c: IN OUT INS OUTS: sizes, permission, repetition, breakpoints (SDM 1 chapter 19). */
#include "cpu/insn/system_test.h"

#define PORT   0x2f8
#define TSS_AT (DATA_AT + 0x8000)

static struct {
	unsigned count, size;
	uint16_t port;
	uint32_t value;
	char text[8192];
} out;

static uint32_t port_in(void *owner, uint16_t port, unsigned size)
{
	(void)owner;
	out.count++;
	out.size = size;
	out.port = port;
	return 0xa1b2c3d4;
}

static void port_out(void *owner, uint16_t port, unsigned size, uint32_t value)
{
	(void)owner;
	if (out.count < sizeof(out.text))
		out.text[out.count] = (char)value;
	out.count++;
	out.size = size;
	out.port = port;
	out.value = value;
}

static void open(struct machine *m, uint32_t mode, unsigned cpl)
{
	system_open(m, "intel", mode, cpl);
	memset(&out, 0, sizeof(out));
	m->cpu->bus.port_in = port_in;
	m->cpu->bus.port_out = port_out;
	m->cpu->reg[RDX] = PORT;
	/* A TSS with a bitmap at 0x68 that denies everything. */
	m->cpu->tr.s = (struct segment){
		.selector = 0x40, .base = TSS_AT, .limit = 0x68 + 0x80, .attributes = SEG_P | TYPE_TSS_BUSY};
	memset(machine_host(m, TSS_AT), 0xff, 0x200);
	memcpy(machine_host(m, TSS_AT + 102), &(uint16_t){0x68}, 2);
}

static void test_sizes(void **state)
{
	struct machine m;

	(void)state;
	open(&m, CODE_64, 0);
	m.cpu->reg[RAX] = 0x1111111122222222;
	assert_int_equal(RUN(&m, 0xec), NO_EVENT);
	assert_int_equal(m.cpu->reg[RAX], 0x11111111222222d4);
	assert_true(out.size == 1 && out.port == PORT);
	assert_int_equal(RUN(&m, 0x66, 0xe5, 0x70), NO_EVENT);
	assert_int_equal(m.cpu->reg[RAX], 0x111111112222c3d4);
	assert_true(out.size == 2 && out.port == 0x70);
	assert_int_equal(RUN(&m, 0xed), NO_EVENT);
	assert_int_equal(m.cpu->reg[RAX], 0xa1b2c3d4);
	assert_int_equal(RUN(&m, 0x48, 0xed), NO_EVENT); /* no 64-bit form */
	assert_int_equal(out.size, 4);
	m.cpu->reg[RAX] = 0x12345678;
	assert_int_equal(RUN(&m, 0xe6, 0xff), NO_EVENT);
	assert_true(out.port == 0xff && out.size == 1 && out.value == 0x78);
	assert_int_equal(RUN(&m, 0xef), NO_EVENT);
	assert_true(out.port == PORT && out.size == 4 && out.value == 0x12345678);
	machine_close(&m);
}

static void test_permission(void **state)
{
	struct machine m;

	(void)state;
	open(&m, CODE_64, 3);
	FAULTS(&m, "IO_PERMISSION", VECTOR_GP, 0xec);
	FAULTS(&m, "IO_PERMISSION", VECTOR_GP, 0xe6, 0x80);
	m.cpu->reg[RSI] = m.cpu->reg[RDI] = DATA_AT;
	FAULTS(&m, "IO_PERMISSION", VECTOR_GP, 0x6e);
	FAULTS(&m, "IO_PERMISSION", VECTOR_GP, 0x6c);
	m.cpu->reg[RCX] = 3;
	FAULTS(&m, "IO_PERMISSION", VECTOR_GP, 0xf3, 0x6e);
	assert_int_equal(m.cpu->reg[RCX], 3);
	*machine_host(&m, TSS_AT + 0x68 + PORT / 8) = 0xfe; /* this port alone */
	assert_int_equal(RUN(&m, 0xec), NO_EVENT);
	FAULTS(&m, "IO_PERMISSION", VECTOR_GP, 0x66, 0xed);
	*machine_host(&m, TSS_AT + 0x68 + PORT / 8) = 0xff;
	m.cpu->rflags |= RFLAGS_IOPL;
	assert_int_equal(RUN(&m, 0xec), NO_EVENT);
	/* In virtual-8086 mode, the bitmap decides whatever the IOPL. */
	machine_mode(&m, CODE_16);
	m.cpu->rflags |= RFLAGS_VM | RFLAGS_IOPL;
	cpu_mode_changed(m.cpu);
	segment_derive_all(m.cpu);
	assert_int_equal(m.cpu->cpl, 3);
	FAULTS(&m, "IO_PERMISSION", VECTOR_GP, 0xec);
	machine_close(&m);
}

static void test_strings(void **state)
{
	struct machine m;
	enum { LENGTH = 5000 };

	(void)state;
	open(&m, CODE_64, 0);
	for (unsigned i = 0; i < LENGTH; i++)
		*machine_host(&m, DATA_AT + 100 + i) = (uint8_t)(i * 7);
	m.cpu->reg[RSI] = DATA_AT + 100;
	m.cpu->reg[RCX] = LENGTH;
	machine_run(&m, (const uint8_t[]){0xf3, 0x6e}, 2, LENGTH);
	assert_int_equal(out.count, LENGTH);
	assert_int_equal(m.cpu->reg[RCX], 0);
	assert_int_equal(m.cpu->reg[RSI], DATA_AT + 100 + LENGTH);
	assert_memory_equal(out.text, machine_host(&m, DATA_AT + 100), LENGTH);
	assert_int_equal(m.cpu->rip, CODE_AT + 2);
	/* The same without a look at each element. */
	memset(&out, 0, sizeof(out));
	m.cpu->tracing = false;
	cpu_mode_changed(m.cpu);
	m.cpu->reg[RSI] = DATA_AT + 100;
	m.cpu->reg[RCX] = LENGTH;
	machine_run(&m, (const uint8_t[]){0xf3, 0x6e, 0xf4}, 3, LENGTH + 1);
	assert_int_equal(out.count, LENGTH);
	assert_int_equal(m.cpu->reg[RSI], DATA_AT + 100 + LENGTH);
	assert_memory_equal(out.text, machine_host(&m, DATA_AT + 100), LENGTH);
	/* Downwards, by words, into memory. */
	m.cpu->rflags |= RFLAGS_DF;
	m.cpu->reg[RDI] = DATA_AT + 10;
	m.cpu->reg[RCX] = 3;
	machine_run(&m, (const uint8_t[]){0xf3, 0x66, 0x6d, 0xf4}, 4, 4);
	assert_int_equal(m.cpu->reg[RDI], DATA_AT + 4);
	assert_memory_equal(machine_host(&m, DATA_AT + 6), "\xd4\xc3\xd4\xc3\xd4\xc3", 6);
	machine_close(&m);
}

/* INS checks that it can write before it reads the port; with a count of 0 nothing is checked. */
static void test_order(void **state)
{
	struct machine m;

	(void)state;
	open(&m, CODE_64, 0);
	m.cpu->reg[RDI] = 0x12345000; /* not mapped */
	assert_int_equal(RUN(&m, 0x6c), VECTOR_PF);
	assert_int_equal(out.count, 0);
	m.cpu->reg[RSI] = 0x12345000;
	assert_int_equal(RUN(&m, 0x6e), VECTOR_PF);
	assert_int_equal(out.count, 0);
	machine_close(&m);
	open(&m, CODE_64, 3);
	m.cpu->reg[RDI] = 0x12345000;
	assert_int_equal(RUN(&m, 0x6c), VECTOR_GP);
	m.cpu->reg[RCX] = 0;
	system_set_cpl(&m, 3);
	machine_close(&m);
	open(&m, CODE_64, 3);
	m.cpu->reg[RCX] = 0;
	assert_int_equal(RUN(&m, 0xf3, 0x6c), NO_EVENT);
	machine_close(&m);
}

static void test_breakpoint(void **state)
{
	struct machine m;

	(void)state;
	open(&m, CODE_64, 0);
	m.cpu->dr[1] = PORT + 1;
	m.cpu->dr7 = DR7_FIXED_1 | DR7_G(1) | 2u << DR7_RW_SHIFT(1);
	m.cpu->cr4 |= CR4_DE;
	cpu_mode_changed(m.cpu);
	assert_int_equal(RUN(&m, 0xec), NO_EVENT);
	assert_int_equal(RUN(&m, 0x66, 0xef), VECTOR_DB);
	assert_int_equal(m.event_rip, CODE_AT + 2);
	assert_int_equal(out.count, 2);
	machine_close(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sizes),      cmocka_unit_test(test_permission),
		cmocka_unit_test(test_strings),    cmocka_unit_test(test_order),
		cmocka_unit_test(test_breakpoint),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
