/*
 * string_test.c: string instructions and their repetition, against the host's processor, and where
 * they stop: at faults, and when the budget of instructions ends.
 */
#include "cpu/insn/machine_test.h"

#define UNMAPPED (MACHINE_BASE + MACHINE_SIZE)
#define REGION   0x4000u /* bytes from DATA_AT that a sample may touch */

static const uint8_t self_loop[2] = {0xeb, 0xfe};

static void put_string(uint8_t *code, size_t *size, uint8_t opcode, unsigned width, uint8_t repeat,
		       bool small)
{
	*size = 0;
	if (small)
		code[(*size)++] = 0x67;
	if (repeat)
		code[(*size)++] = repeat;
	if (width == 2)
		code[(*size)++] = 0x66;
	if (width == 8)
		code[(*size)++] = 0x48;
	code[(*size)++] = (uint8_t)(opcode | (width > 1));
}

/* Runs until the loop behind the instruction, through traces. */
static void run_to_loop(struct machine *m, const uint8_t *code, size_t size)
{
	uint8_t all[32];

	memcpy(all, code, size);
	memcpy(all + size, self_loop, sizeof(self_loop));
	m->cpu->tracing = false;
	cpu_mode_changed(m->cpu);
	assert_int_equal(machine_run(m, all, size + sizeof(self_loop), 40000), CPU_STOP_BUDGET);
	m->cpu->tracing = true;
	cpu_mode_changed(m->cpu);
	assert_int_equal(m->cpu->rip, CODE_AT + size);
}

#ifdef __x86_64__

static void fill_region(struct machine *m, uint8_t *host)
{
	static uint8_t data[REGION];

	for (size_t i = 0; i < REGION; i += 8) {
		/* Few values, so that comparisons go on for a while. */
		uint64_t value = machine_random() % 16 ? 0x4141414141414141ull : machine_random();

		memcpy(data + i, &value, 8);
	}
	memcpy(host + (DATA_AT - MACHINE_BASE), data, REGION);
	machine_write(m, DATA_AT, data, REGION);
}

static void choose(struct machine *m, bool repeat, bool small)
{
	static const uint64_t counts[] = {0, 1, 2, 3, 7, 40, 300};
	uint64_t middle = DATA_AT + REGION / 2 - 32 + machine_random() % 64;

	for (unsigned i = 0; i < 16; i++)
		host_in.gpr[i] = machine_operand();
	host_in.gpr[RSP] = STACK_AT + 0x8000;
	host_in.gpr[RAX] = machine_random() % 2 ? 0x4141414141414141ull : machine_operand();
	host_in.gpr[RCX] = counts[machine_random() % 7];
	host_in.gpr[RSI] = middle;
	/* Near enough to overlap, now and then. */
	host_in.gpr[RDI] = machine_random() % 2 ? middle + machine_random() % 64 - 32
						: middle + 2048 - machine_random() % 4096;
	if (small && machine_random() % 2)
		host_in.gpr[RSI] |= 1ull << 40; /* which a 32-bit address does not see */
	if (repeat && small && machine_random() % 2)
		host_in.gpr[RCX] |= 7ull << 32;
	host_in.rflags = RFLAGS_FIXED | RFLAGS_IF | (machine_random() & (RFLAGS_STATUS | RFLAGS_DF));
	memcpy(m->cpu->reg, host_in.gpr, sizeof(host_in.gpr));
	machine_set_flags(m, host_in.rflags);
}

static void check_sample(struct machine *m, uint8_t *host, uint8_t opcode, unsigned width, uint8_t repeat)
{
	bool small = machine_random() % 4 == 0;
	uint8_t code[16];
	size_t size;

	put_string(code, &size, opcode, width, repeat, small);
	fill_region(m, host);
	choose(m, repeat, small);
	assert_int_equal(host_run(code, size), 0);
	run_to_loop(m, code, size);
	for (unsigned i = 0; i < 16; i++)
		if (m->cpu->reg[i] != host_out.gpr[i])
			fail_msg("%02x width %u repeat %02x small %d register %u: %llx, host %llx", opcode,
				 width, repeat, small, i, (unsigned long long)m->cpu->reg[i],
				 (unsigned long long)host_out.gpr[i]);
	assert_int_equal(flags_get(&m->cpu->lazy), host_out.rflags & RFLAGS_STATUS);
	assert_memory_equal(machine_host(m, DATA_AT), host + (DATA_AT - MACHINE_BASE), REGION);
}

static void same_as_host(void **state)
{
	static const uint8_t opcodes[] = {0xa4, 0xa6, 0xaa, 0xac, 0xae};
	static const uint8_t repeats[] = {0, 0xf3, 0xf2};
	uint8_t *host = host_open();
	struct machine m;

	(void)state;
	if (!host)
		skip();
	machine_open(&m, "amd");
	for (unsigned i = 0; i < 5; i++)
		for (unsigned width = 1; width <= 8; width *= 2)
			for (unsigned r = 0; r < 3; r++)
				for (unsigned n = 0; n < 40; n++)
					check_sample(&m, host, opcodes[i], width, repeats[r]);
	machine_close(&m);
}

#endif

/* REP MOVS into the end of what is mapped: the elements before the fault are done and counted. */
static void faults_are_restartable(void **state)
{
	struct machine m;

	(void)state;
	machine_open(&m, "intel");
	for (unsigned width = 1; width <= 8; width *= 2)
		for (unsigned rest = 0; rest < 40; rest++) {
			uint64_t whole = rest / width, before;
			uint8_t code[8];
			size_t size;

			put_string(code, &size, 0xa4, width, 0xf3, false);
			m.cpu->reg[RCX] = 1000;
			m.cpu->reg[RSI] = DATA_AT;
			m.cpu->reg[RDI] = UNMAPPED - rest;
			before = m.cpu->retired;
			m.cpu->tracing = false;
			cpu_mode_changed(m.cpu);
			m.cpu->cr2 = 0;
			/* No IDT: the fault ends in a shutdown, which leaves the state of the instruction. */
			assert_int_equal(machine_run(&m, code, size, 5000), CPU_STOP_SHUTDOWN);
			assert_int_equal(m.cpu->cr2, UNMAPPED);
			assert_int_equal(m.cpu->rip, CODE_AT);
			assert_int_equal(m.cpu->reg[RCX], 1000 - whole);
			assert_int_equal(m.cpu->reg[RSI], DATA_AT + whole * width);
			assert_int_equal(m.cpu->reg[RDI], UNMAPPED - rest + whole * width);
			assert_true(m.cpu->retired - before >= whole && m.cpu->retired - before <= whole + 3);
			m.cpu->reg[RSP] = STACK_AT;
		}
	machine_close(&m);
}

/* Each iteration counts, and a repetition stops where the budget ends. */
static void budget_ends_between_iterations(void **state)
{
	static const uint8_t rep_stosb[] = {0xf3, 0xaa, 0xeb, 0xfe};
	struct machine m;

	(void)state;
	machine_open(&m, "intel");
	m.cpu->tracing = false;
	cpu_mode_changed(m.cpu);
	m.cpu->reg[RCX] = 10000;
	m.cpu->reg[RDI] = DATA_AT;
	m.cpu->reg[RAX] = 0x55;
	assert_int_equal(machine_run(&m, rep_stosb, sizeof(rep_stosb), 6500), CPU_STOP_BUDGET);
	assert_int_equal(m.cpu->reg[RCX], 3500);
	assert_int_equal(m.cpu->reg[RDI], DATA_AT + 6500);
	assert_int_equal(m.cpu->rip, CODE_AT);
	assert_int_equal(*machine_host(&m, DATA_AT + 6499), 0x55);
	assert_int_equal(*machine_host(&m, DATA_AT + 6500), 0);
	/* The rest, and the loop behind it. */
	m.cpu->event_at = m.cpu->stop_at = m.cpu->retired + 3500;
	assert_int_equal(cpu_run(m.cpu), CPU_STOP_BUDGET);
	assert_int_equal(m.cpu->reg[RCX], 0);
	assert_int_equal(m.cpu->rip, CODE_AT + 2);
	assert_int_equal(*machine_host(&m, DATA_AT + 9999), 0x55);
	assert_int_equal(*machine_host(&m, DATA_AT + 10000), 0);
	machine_close(&m);
}

/* 16-bit addresses wrap within the segment, whose base lies in the middle of a page. */
static void short_addresses_wrap(void **state)
{
	static const uint8_t rep_stosb[] = {0x67, 0xf3, 0xaa, 0xeb, 0xfe}; /* in 32-bit mode */
	struct vcpu_state saved;
	struct machine m;

	(void)state;
	machine_open(&m, "intel");
	machine_mode(&m, CODE_32);
	cpu_save(m.cpu, &saved);
	saved.segment[ES].base = MACHINE_BASE + 0x100800;
	saved.gpr[RCX] = 0xabcd0020;
	saved.gpr[RDI] = 0x1234fff0;
	saved.gpr[RAX] = 0x77;
	cpu_load(m.cpu, &saved);
	m.cpu->tracing = false;
	cpu_mode_changed(m.cpu);
	assert_int_equal(machine_run(&m, rep_stosb, sizeof(rep_stosb), 100), CPU_STOP_BUDGET);
	assert_int_equal(m.cpu->reg[RCX], 0xabcd0000);
	assert_int_equal(m.cpu->reg[RDI], 0x12340010);
	assert_int_equal(*machine_host(&m, MACHINE_BASE + 0x10080f), 0x77);
	assert_int_equal(*machine_host(&m, MACHINE_BASE + 0x100810), 0);
	assert_int_equal(*machine_host(&m, MACHINE_BASE + 0x1107ef), 0);
	assert_int_equal(*machine_host(&m, MACHINE_BASE + 0x1107ff), 0x77);
	assert_int_equal(*machine_host(&m, MACHINE_BASE + 0x110800), 0);
	machine_close(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#ifdef __x86_64__
		cmocka_unit_test(same_as_host),
#endif
		cmocka_unit_test(faults_are_restartable),
		cmocka_unit_test(budget_ends_between_iterations),
		cmocka_unit_test(short_addresses_wrap),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
