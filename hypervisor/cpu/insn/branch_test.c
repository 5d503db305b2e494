/*
 * branch_test.c: near transfers and the stack: where they go, what they push, and that a fault
 * leaves everything as it was. From SDM 2A, 2B (CALL, JMP, Jcc, LOOP, RET, PUSHA, ENTER, BOUND).
 */
#include "cpu/insn/machine_test.h"

static void put32(uint8_t *at, uint32_t value) { memcpy(at, &value, sizeof(value)); }

static uint64_t stack_read(struct machine *m, uint64_t linear)
{
	uint64_t value;

	memcpy(&value, machine_host(m, linear), sizeof(value));
	return value;
}

/* One instruction; all registers but those that the caller looks at are checked by it. */
static void run(struct machine *m, const char *code, size_t size)
{
	machine_run(m, (const uint8_t *)code, size, 1);
}
#define RUN(m, code) run(m, code, sizeof(code) - 1)

/* SDM 1 appendix B. */
static bool condition(unsigned cc, uint64_t f)
{
	bool cf = f & RFLAGS_CF, pf = f & RFLAGS_PF, zf = f & RFLAGS_ZF, sf = f & RFLAGS_SF,
	     of = f & RFLAGS_OF;
	bool holds[8] = {of, cf, zf, cf || zf, sf, pf, sf != of, zf || sf != of};

	return holds[cc / 2] != (cc & 1);
}

static void conditions(void **state)
{
	struct machine m;

	(void)state;
	machine_open(&m, "amd");
	for (unsigned cc = 0; cc < 16; cc++)
		for (unsigned n = 0; n < 64; n++) {
			uint64_t flags = (n & 1 ? RFLAGS_CF : 0) | (n & 2 ? RFLAGS_PF : 0) |
					 (n & 4 ? RFLAGS_AF : 0) | (n & 8 ? RFLAGS_ZF : 0) |
					 (n & 16 ? RFLAGS_SF : 0) | (n & 32 ? RFLAGS_OF : 0);
			uint8_t near8[2] = {(uint8_t)(0x70 + cc), 0x80},
				near32[6] = {0x0f, (uint8_t)(0x80 + cc)};

			machine_set_flags(&m, flags);
			machine_run(&m, near8, 2, 1);
			assert_int_equal(m.cpu->rip, CODE_AT + 2 - (condition(cc, flags) ? 128 : 0));
			put32(near32 + 2, 0x12345);
			machine_run(&m, near32, 6, 1);
			assert_int_equal(m.cpu->rip, CODE_AT + 6 + (condition(cc, flags) ? 0x12345 : 0));
			assert_int_equal(flags_get(&m.cpu->lazy), flags);
		}
	machine_close(&m);
}

static void calls_and_returns(void **state)
{
	struct machine m;

	(void)state;
	machine_open(&m, "intel");
	m.cpu->reg[RSP] = STACK_AT;
	RUN(&m, "\xe8\x00\x01\x00\x00");
	assert_int_equal(m.cpu->rip, CODE_AT + 0x105);
	assert_int_equal(m.cpu->reg[RSP], STACK_AT - 8);
	assert_int_equal(stack_read(&m, STACK_AT - 8), CODE_AT + 5);
	RUN(&m, "\xc2\x18\x00");
	assert_int_equal(m.cpu->rip, CODE_AT + 5);
	assert_int_equal(m.cpu->reg[RSP], STACK_AT + 0x18);
	m.cpu->reg[RSP] = STACK_AT - 8;
	RUN(&m, "\xc3");
	assert_int_equal(m.cpu->rip, CODE_AT + 5);
	assert_int_equal(m.cpu->reg[RSP], STACK_AT);
	m.cpu->reg[RBX] = CODE_AT + 0x777;
	RUN(&m, "\xff\xd3");
	assert_int_equal(m.cpu->rip, CODE_AT + 0x777);
	assert_int_equal(stack_read(&m, STACK_AT - 8), CODE_AT + 2);
	/* CALL [RSP]: the target is read before the push. */
	m.cpu->reg[RSP] = STACK_AT - 8;
	RUN(&m, "\xff\x14\x24");
	assert_int_equal(m.cpu->rip, CODE_AT + 2);
	assert_int_equal(m.cpu->reg[RSP], STACK_AT - 16);
	RUN(&m, "\xff\xe3");
	assert_int_equal(m.cpu->rip, CODE_AT + 0x777);
	machine_close(&m);
}

/* 66h: an Intel processor ignores it for near branches in 64-bit mode, an AMD one does not. */
static void operand_size_by_vendor(void **state)
{
	struct machine m;

	(void)state;
	machine_open(&m, "intel");
	m.cpu->reg[RSP] = STACK_AT;
	RUN(&m, "\x66\xe8\x00\x01\x00\x00");
	assert_int_equal(m.cpu->rip, CODE_AT + 0x106);
	assert_int_equal(m.cpu->reg[RSP], STACK_AT - 8);
	machine_close(&m);
	machine_open(&m, "amd");
	m.cpu->reg[RSP] = STACK_AT;
	RUN(&m, "\x66\xe8\x00\x01");
	assert_int_equal(m.cpu->rip, (CODE_AT + 0x104) & 0xffff);
	assert_int_equal(m.cpu->reg[RSP], STACK_AT - 2);
	RUN(&m, "\x66\xeb\x10");
	assert_int_equal(m.cpu->rip, (CODE_AT + 0x13) & 0xffff);
	machine_close(&m);
}

static void loops(void **state)
{
	struct machine m;

	(void)state;
	machine_open(&m, "intel");
	m.cpu->reg[RCX] = 0;
	RUN(&m, "\xe2\x10");
	assert_int_equal(m.cpu->rip, CODE_AT + 0x12);
	assert_true(m.cpu->reg[RCX] == ~0ull);
	m.cpu->reg[RCX] = 0xffffffff00000001;
	RUN(&m, "\x67\xe2\x10");
	assert_int_equal(m.cpu->rip, CODE_AT + 3);
	assert_int_equal(m.cpu->reg[RCX], 0);
	m.cpu->reg[RCX] = 0xff00000000;
	RUN(&m, "\x67\xe3\x10");
	assert_int_equal(m.cpu->rip, CODE_AT + 0x13);
	assert_int_equal(m.cpu->reg[RCX], 0xff00000000);
	RUN(&m, "\xe3\x10");
	assert_int_equal(m.cpu->rip, CODE_AT + 2);
	for (unsigned zf = 0; zf < 2; zf++) {
		m.cpu->reg[RCX] = 5;
		machine_set_flags(&m, zf ? RFLAGS_ZF : 0);
		RUN(&m, "\xe1\x10");
		assert_int_equal(m.cpu->rip, CODE_AT + (zf ? 0x12 : 2));
		RUN(&m, "\xe0\x10");
		assert_int_equal(m.cpu->rip, CODE_AT + (zf ? 2 : 0x12));
		assert_int_equal(m.cpu->reg[RCX], 3);
	}
	machine_close(&m);
}

/* Each is #GP(0) at the branch, with RSP and the stack as they were. */
static void targets_not_canonical(void **state)
{
	static const char codes[][2] = {"\xff\xe0", "\xff\xd0", "\xc3\x90"};
	struct machine m;

	(void)state;
	machine_open(&m, "intel");
	for (unsigned i = 0; i < 3; i++)
		for (unsigned edge = 0; edge < 4; edge++) {
			static const uint64_t targets[] = {0x7fffffffffff, 0x800000000000, 0xffff7fffffffffff,
							   0xffff800000000000};
			bool inside = edge == 0 || edge == 3;
			uint64_t target = targets[edge], top = STACK_AT - 8;

			machine_mode(&m, CODE_64);
			machine_write(&m, STACK_AT - 8, &target, 8);
			target = 0x1122334455667788;
			machine_write(&m, STACK_AT - 16, &target, 8);
			m.cpu->reg[RAX] = targets[edge];
			m.cpu->reg[RSP] = top;
			run(&m, codes[i], 2);
			assert_int_equal(m.vector, inside ? NO_EVENT : VECTOR_GP);
			if (inside) {
				assert_true(m.cpu->rip == targets[edge]);
				continue;
			}
			assert_int_equal(m.error_code, 0);
			assert_int_equal(m.event_rip, CODE_AT);
			assert_int_equal(m.cpu->reg[RSP], top);
			assert_int_equal(stack_read(&m, STACK_AT - 16), 0x1122334455667788);
		}
	machine_close(&m);
}

/* Outside 64-bit mode the limit of CS bounds the target. */
static void targets_beyond_the_limit(void **state)
{
	static const char codes[][6] = {"\xe9\x00\x00\x10\x00", "\xff\xe0\x90\x90\x90",
					"\xff\xd0\x90\x90\x90", "\xc3\x90\x90\x90\x90",
					"\xe2\x7f\x90\x90\x90", "\x74\x7f\x90\x90\x90"};
	struct vcpu_state saved;
	struct machine m;

	(void)state;
	machine_open(&m, "amd");
	for (unsigned i = 0; i < 6; i++)
		for (unsigned past = 0; past < 2; past++) {
			uint64_t target = i == 0 ? CODE_AT + 5 + 0x100000 : CODE_AT + 2 + 127;

			machine_mode(&m, CODE_32);
			cpu_save(m.cpu, &saved);
			saved.segment[CS].limit = (uint32_t)(target - past);
			saved.gpr[RSP] = STACK_AT;
			saved.gpr[RAX] = target;
			saved.gpr[RCX] = 9;
			saved.rflags |= RFLAGS_ZF;
			cpu_load(m.cpu, &saved);
			machine_write(&m, STACK_AT, &target, 4);
			run(&m, codes[i], 5);
			assert_int_equal(m.vector, past ? VECTOR_GP : NO_EVENT);
			if (!past) {
				assert_int_equal(m.cpu->rip, target);
				continue;
			}
			assert_int_equal(m.event_rip, CODE_AT);
			assert_int_equal(m.cpu->reg[RSP], STACK_AT);
			assert_int_equal(m.cpu->reg[RCX], 9);
		}
	machine_close(&m);
}

/* With a 16-bit operand size the upper half of EIP is cleared. */
static void short_targets(void **state)
{
	struct machine m;

	(void)state;
	machine_open(&m, "intel");
	machine_mode(&m, CODE_32);
	m.cpu->reg[RSP] = STACK_AT;
	RUN(&m, "\x66\xe8\x10\x00");
	assert_int_equal(m.cpu->rip, (CODE_AT + 0x14) & 0xffff);
	assert_int_equal(m.cpu->reg[RSP], STACK_AT - 2);
	assert_int_equal(stack_read(&m, STACK_AT - 2) & 0xffff, (CODE_AT + 4) & 0xffff);
	machine_set_flags(&m, 0);
	RUN(&m, "\x66\x74\x10"); /* not taken: EIP is whole */
	assert_int_equal(m.cpu->rip, CODE_AT + 3);
	machine_close(&m);
}

/* ---- the stack ---- */

static void stack_faults_change_nothing(void **state)
{
	static const char *const codes[] = {"\x50",    "\x6a\x01", "\x58",     "\xe8\x10\x10\x10\x10",
					    "\xc3",    "\xff\x30", "\x8f\x00", "\xc8\x10\x00\x00",
					    "\xff\xd0"};
	static const uint8_t sizes[] = {1, 2, 1, 5, 1, 2, 2, 4, 2};
	struct machine m;

	(void)state;
	machine_open(&m, "intel");
	for (unsigned i = 0; i < sizeof(sizes); i++)
		for (unsigned unmapped = 0; unmapped < 2; unmapped++) {
			uint64_t top = unmapped ? MACHINE_BASE - 0x1000 : 0x8000000000001000, before[16];

			machine_mode(&m, CODE_64);
			for (unsigned r = 0; r < 16; r++)
				m.cpu->reg[r] = DATA_AT + 16 * r;
			m.cpu->reg[RSP] = top;
			memcpy(before, m.cpu->reg, sizeof(before));
			run(&m, codes[i], sizes[i]);
			assert_int_equal(m.vector, unmapped ? VECTOR_PF : VECTOR_SS);
			assert_memory_equal(before, m.cpu->reg, sizeof(before));
			assert_int_equal(m.event_rip, CODE_AT);
		}
	machine_close(&m);
}

/* POP to memory that cannot be written: RSP as before. POP [RSP]: the address uses the new RSP. */
static void pop_to_memory(void **state)
{
	uint64_t value = 0x123456789abcdef0;
	struct machine m;

	(void)state;
	machine_open(&m, "intel");
	m.cpu->reg[RSP] = STACK_AT;
	m.cpu->reg[RAX] = MACHINE_BASE - 0x1000;
	machine_write(&m, STACK_AT, &value, 8);
	RUN(&m, "\x8f\x00");
	assert_int_equal(m.vector, VECTOR_PF);
	assert_int_equal(m.cpu->reg[RSP], STACK_AT);
	machine_mode(&m, CODE_64);
	RUN(&m, "\x8f\x44\x24\x08");
	assert_int_equal(m.cpu->reg[RSP], STACK_AT + 8);
	assert_int_equal(stack_read(&m, STACK_AT + 16), value);
	machine_close(&m);
}

static void all_registers(void **state)
{
	uint32_t image[8];
	struct machine m;

	(void)state;
	machine_open(&m, "intel");
	machine_mode(&m, CODE_32);
	for (unsigned i = 0; i < 8; i++)
		m.cpu->reg[i] = 0x11111111u * (i + 1);
	m.cpu->reg[RSP] = STACK_AT;
	RUN(&m, "\x60");
	assert_int_equal(m.cpu->reg[RSP], STACK_AT - 32);
	memcpy(image, machine_host(&m, STACK_AT - 32), sizeof(image));
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(image[7 - i], i == RSP ? STACK_AT : 0x11111111u * (i + 1));
	for (unsigned i = 0; i < 8; i++)
		if (i != RSP)
			m.cpu->reg[i] = 0;
	RUN(&m, "\x61");
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(m.cpu->reg[i], i == RSP ? STACK_AT : 0x11111111u * (i + 1));
	/* A fault at the last of the eight: ESP stays. */
	m.cpu->reg[RSP] = MACHINE_BASE + 16;
	RUN(&m, "\x66\x60");
	assert_int_equal(m.vector, NO_EVENT);
	assert_int_equal(m.cpu->reg[RSP], MACHINE_BASE);
	machine_close(&m);
}

/* SDM 2B PUSHA, real-address mode exceptions. */
static void all_registers_at_odd_stack(void **state)
{
	struct vcpu_state saved;
	struct machine m;

	(void)state;
	machine_open(&m, "intel");
	for (unsigned sp = 1; sp <= 18; sp++) {
		machine_mode(&m, CODE_16);
		cpu_save(m.cpu, &saved);
		saved.cr0 &= ~(uint64_t)CR0_PE;
		saved.segment[SS].base = MACHINE_BASE + 0x100000;
		saved.segment[SS].limit = 0xffff;
		saved.gpr[RSP] = sp;
		cpu_load(m.cpu, &saved);
		RUN(&m, "\x60");
		if (sp % 2 == 0 || sp > 15)
			assert_int_equal(m.vector, NO_EVENT);
		else
			assert_int_equal(m.vector, sp < 7 ? VECTOR_SS : VECTOR_GP);
		assert_int_equal(m.cpu->reg[RSP], m.vector == NO_EVENT ? (sp - 16) & 0xffff : sp);
	}
	machine_close(&m);
}

static void frames(void **state)
{
	static const uint32_t outer[3] = {0xaaaa0001, 0xaaaa0002, 0xaaaa0003};
	struct machine m;

	(void)state;
	machine_open(&m, "intel");
	machine_mode(&m, CODE_32);
	machine_write(&m, DATA_AT - 12, outer, sizeof(outer));
	m.cpu->reg[RBP] = DATA_AT;
	m.cpu->reg[RSP] = STACK_AT;
	RUN(&m, "\xc8\x20\x00\x23"); /* level 3, once taken modulo 32 */
	assert_int_equal(m.vector, NO_EVENT);
	assert_int_equal(m.cpu->reg[RBP], STACK_AT - 4);
	assert_int_equal(m.cpu->reg[RSP], STACK_AT - 4 - 12 - 0x20);
	uint32_t image[4];
	memcpy(image, machine_host(&m, STACK_AT - 16), sizeof(image));
	assert_int_equal(image[3], DATA_AT);
	assert_int_equal(image[2], outer[2]);
	assert_int_equal(image[1], outer[1]);
	assert_int_equal(image[0], STACK_AT - 4);
	RUN(&m, "\xc9");
	assert_int_equal(m.cpu->reg[RSP], STACK_AT);
	assert_int_equal(m.cpu->reg[RBP], DATA_AT);
	machine_close(&m);
}

/* With a 16-bit stack only SP counts and changes. */
static void short_stack(void **state)
{
	const uint64_t base = MACHINE_BASE + 0x100000, high = 0x12340000;
	struct vcpu_state saved;
	struct machine m;

	(void)state;
	machine_open(&m, "intel");
	machine_mode(&m, CODE_16);
	cpu_save(m.cpu, &saved);
	saved.segment[SS].base = base;
	saved.gpr[RSP] = high;
	saved.gpr[RAX] = 0xbeef;
	saved.gpr[RBP] = high + 8;
	cpu_load(m.cpu, &saved);
	RUN(&m, "\x50");
	assert_int_equal(m.cpu->reg[RSP], high + 0xfffe);
	assert_int_equal(stack_read(&m, base + 0xfffe) & 0xffff, 0xbeef);
	RUN(&m, "\x5b");
	assert_int_equal(m.cpu->reg[RBX], 0xbeef);
	assert_int_equal(m.cpu->reg[RSP], high);
	RUN(&m, "\xe8\x10\x00");
	assert_int_equal(m.cpu->reg[RSP], high + 0xfffe);
	assert_int_equal(stack_read(&m, base + 0xfffe) & 0xffff, (CODE_AT + 3) & 0xffff);
	RUN(&m, "\xc2\x06\x00");
	assert_int_equal(m.cpu->rip, (CODE_AT + 3) & 0xffff);
	assert_int_equal(m.cpu->reg[RSP], high + 6);
	m.cpu->reg[RSP] = high;
	RUN(&m, "\x60");
	assert_int_equal(m.cpu->reg[RSP], high + 0xfff0);
	assert_int_equal(stack_read(&m, base + 0xfffe) & 0xffff, 0xbeef);
	m.cpu->reg[RAX] = 0;
	RUN(&m, "\x61");
	assert_int_equal(m.cpu->reg[RAX], 0xbeef);
	assert_int_equal(m.cpu->reg[RSP], high);
	RUN(&m, "\xc8\x10\x00\x01"); /* ENTER 16, 1 */
	assert_int_equal(m.cpu->reg[RBP], high + 0xfffe);
	assert_int_equal(m.cpu->reg[RSP], high + 0xfffc - 0x10);
	assert_int_equal(stack_read(&m, base + 0xfffe) & 0xffff, 8);
	RUN(&m, "\xc9");
	assert_int_equal(m.cpu->reg[RBP], high + 8);
	assert_int_equal(m.cpu->reg[RSP], high);
	machine_close(&m);
}

/* The new top of the stack is checked for writing, though nothing is stored there. */
static void frames_end_in_memory(void **state)
{
	struct machine m;

	(void)state;
	machine_open(&m, "amd");
	m.cpu->reg[RBP] = DATA_AT;
	m.cpu->reg[RSP] = MACHINE_BASE + 0x800;
	RUN(&m, "\xc8\x00\x20\x00");
	assert_int_equal(m.vector, VECTOR_PF);
	assert_int_equal(m.cpu->cr2, MACHINE_BASE + 0x7f8 - 0x2000);
	assert_int_equal(m.cpu->reg[RBP], DATA_AT);
	assert_int_equal(m.cpu->reg[RSP], MACHINE_BASE + 0x800);
	machine_close(&m);
}

/* ---- BOUND, CMPXCHG8B, CMPXCHG16B, RDRAND ---- */

static void bound(void **state)
{
	static const int32_t bounds[2] = {-3, 7};
	struct machine m;

	(void)state;
	machine_open(&m, "intel");
	for (int32_t index = -5; index < 10; index++) {
		machine_mode(&m, CODE_32);
		machine_write(&m, DATA_AT, bounds, sizeof(bounds));
		m.cpu->reg[RBX] = DATA_AT;
		m.cpu->reg[RAX] = (uint32_t)index;
		RUN(&m, "\x62\x03");
		assert_int_equal(m.vector, index < -3 || index > 7 ? VECTOR_BR : NO_EVENT);
	}
	machine_close(&m);
}

static void wide_compare_and_exchange(void **state)
{
	uint64_t memory[2] = {0x1111222233334444, 0x5555666677778888};
	struct machine m;

	(void)state;
	machine_open(&m, "intel");
	machine_write(&m, DATA_AT, memory, 16);
	m.cpu->reg[RDI] = DATA_AT;
	m.cpu->reg[RAX] = memory[0];
	m.cpu->reg[RDX] = memory[1] + 1;
	m.cpu->reg[RBX] = 0xb;
	m.cpu->reg[RCX] = 0xc;
	machine_set_flags(&m, RFLAGS_STATUS);
	RUN(&m, "\xf0\x48\x0f\xc7\x0f");
	assert_int_equal(flags_get(&m.cpu->lazy), RFLAGS_STATUS & ~RFLAGS_ZF);
	assert_int_equal(m.cpu->reg[RDX], memory[1]);
	RUN(&m, "\xf0\x48\x0f\xc7\x0f");
	assert_int_equal(flags_get(&m.cpu->lazy), RFLAGS_STATUS);
	assert_int_equal(stack_read(&m, DATA_AT), 0xb);
	assert_int_equal(stack_read(&m, DATA_AT + 8), 0xc);
	/* 8 bytes: EDX:EAX against memory; the upper halves of RAX and RDX do not count. */
	m.cpu->reg[RAX] = 0xffffffff0000000b;
	m.cpu->reg[RDX] = 0xffffffff00000000;
	RUN(&m, "\x0f\xc7\x0f");
	assert_true(flags_zf(&m.cpu->lazy));
	assert_int_equal(stack_read(&m, DATA_AT), 0xc0000000bull);
	assert_true(m.cpu->reg[RAX] == 0xffffffff0000000b);
	m.cpu->reg[RDI] = DATA_AT + 8;
	RUN(&m, "\x48\x0f\xc7\x0f");
	assert_int_equal(m.vector, VECTOR_GP);
	machine_close(&m);
}

static void random_numbers_repeat(void **state)
{
	uint64_t first[2] = {0, 0};

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		struct machine m;

		machine_open(&m, "amd");
		RUN(&m, "\x48\x0f\xc7\xf0");
		first[i] = m.cpu->reg[RAX];
		assert_int_equal(flags_get(&m.cpu->lazy), RFLAGS_CF);
		RUN(&m, "\x48\x0f\xc7\xf0");
		assert_true(m.cpu->reg[RAX] != first[i]);
		m.cpu->reg[RAX] = 0;
		RUN(&m, "\x66\x0f\xc7\xf8");
		assert_true(m.cpu->reg[RAX] < 0x10000);
		machine_close(&m);
	}
	assert_int_equal(first[0], first[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(conditions),
		cmocka_unit_test(calls_and_returns),
		cmocka_unit_test(operand_size_by_vendor),
		cmocka_unit_test(loops),
		cmocka_unit_test(targets_not_canonical),
		cmocka_unit_test(targets_beyond_the_limit),
		cmocka_unit_test(short_targets),
		cmocka_unit_test(stack_faults_change_nothing),
		cmocka_unit_test(pop_to_memory),
		cmocka_unit_test(all_registers),
		cmocka_unit_test(all_registers_at_odd_stack),
		cmocka_unit_test(frames),
		cmocka_unit_test(short_stack),
		cmocka_unit_test(frames_end_in_memory),
		cmocka_unit_test(bound),
		cmocka_unit_test(wide_compare_and_exchange),
		cmocka_unit_test(random_numbers_repeat),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
