/*
 * host_unit_test.c: what the comparison with the host's processor (`visor oracle`) found in the x87, MMX
 * and SSE instructions, which borrow the host's unit. Each test is one mistake that was there.
 */
#include "cpu/insn/machine_test.h"

#include "cpu/x87.h"

#define OPERAND  (DATA_AT + 0x100)
#define NOWHERE  0x7000u /* no page */
#define RUN(...) run((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static struct machine m;

static int open_machine(void **state)
{
	(void)state;
	machine_open(&m, "amd");
	m.cpu->cr4 |= CR4_OSFXSR | CR4_OSXMMEXCPT;
	m.cpu->cr0 |= CR0_NE | CR0_MP;
	m.cpu->reg[RBX] = OPERAND;
	x87_initialize(m.cpu);
	m.cpu->mxcsr = MXCSR_RESET;
	return 0;
}

static int close_machine(void **state)
{
	(void)state;
	machine_close(&m);
	return 0;
}

/* One instruction; answers its vector. */
static int run(const uint8_t *code, size_t size)
{
	machine_run(&m, code, size, 1);
	return m.vector;
}

static void push(uint64_t significand, uint16_t sign_exponent)
{
	x87_t value = {.bytes = {0}};

	value.significand = significand;
	value.sign_exponent = sign_exponent;
	x87_push(m.cpu, value);
}

/* FYL2XP1's own code leaves flags in the host's unit: they must not become exceptions of the next
 * instruction. */
static void test_host_flags_are_cleared(void **state)
{
	(void)state;
	push(1ull << 63, 0x3fff);
	push(1, 0);                                  /* a denormal */
	assert_int_equal(RUN(0xd9, 0xf9), NO_EVENT); /* FYL2XP1 */
	m.cpu->fcw = 0x340;                          /* all unmasked */
	m.cpu->fsw &= X87_TOP;
	push(1ull << 63, 0x3fff);
	assert_int_equal(RUN(0xd9, 0xe1), NO_EVENT); /* FABS */
	assert_int_equal(RUN(0xd8, 0xc0), NO_EVENT); /* FADD ST, ST: exact */
	assert_false(m.cpu->fsw & X87_ES);
}

/* A quotient that is not there leaves C0 and C3 alone, whatever the host's unit had in them. */
static void test_prem_keeps_codes(void **state)
{
	(void)state;
	for (unsigned codes = 0; codes < 2; codes++) {
		x87_initialize(m.cpu);
		push(1ull << 63, 0x3fff);
		push(3ull << 62, 0x4000);
		assert_int_equal(RUN(0xd9, 0xf8),
				 NO_EVENT); /* FPREM 3 by 1: C0, C3, C1 are the quotient's bits */
		assert_int_equal(m.cpu->fsw & X87_CC, X87_C3 | X87_C1);
		x87_initialize(m.cpu);
		push(1ull << 63, 0x3fff);
		push(1ull << 63, 0x7fff);
		m.cpu->fsw |= codes ? X87_C0 | X87_C2 : X87_C2;
		assert_int_equal(RUN(0xd9, 0xf8), NO_EVENT); /* FPREM of infinity: #IA, masked */
		assert_int_equal(m.cpu->fsw & (X87_CC | X87_IE), (codes ? X87_C0 : 0) | X87_IE);
	}
}

/* SDM 1 table 9-3: FNSTENV looks at the registers, where MMX instructions have marked all as valid. */
static void test_environment_tags(void **state)
{
	(void)state;
	m.cpu->st[0].significand = 1;                      /* a denormal is special as well */
	assert_int_equal(RUN(0x0f, 0xef, 0xc9), NO_EVENT); /* PXOR MM1, MM1 */
	assert_int_equal(RUN(0xd9, 0x33), NO_EVENT);       /* FNSTENV [RBX] */
	assert_int_equal(*(uint16_t *)(void *)machine_host(&m, OPERAND + 8), 0x555a);
}

/* The operand's page fault comes also where an unmasked exception leaves it unwritten. */
static void test_store_faults_first(void **state)
{
	(void)state;
	m.cpu->fcw = 0x37e;
	m.cpu->reg[RBX] = NOWHERE;
	assert_int_equal(RUN(0xdb, 0x1b), VECTOR_PF); /* FISTP of an empty register */
	assert_false(m.cpu->fsw & X87_IE);
}

/* SDM 1 8.5.4: with overflow unmasked nothing is stored, so nothing is rounded. */
static void test_store_overflow(void **state)
{
	(void)state;
	m.cpu->fcw = 0x377;
	push(0xffffffffffffffff, 0x5fff);
	assert_int_equal(RUN(0xd9, 0x1b), NO_EVENT); /* FSTP m32 */
	assert_int_equal(m.cpu->fsw & (X87_FLAGS | X87_C1 | X87_ES), X87_OE | X87_ES);
}

static void test_load_of_denormal(void **state)
{
	(void)state;
	m.cpu->fcw = 0x37d;
	machine_write(&m, OPERAND, (uint8_t[]){1, 0, 0, 0}, 4);
	assert_int_equal(RUN(0xd9, 0x03), NO_EVENT); /* FLD m32, #D unmasked */
	assert_int_equal(x87_top(m.cpu), 7);
	assert_int_equal(x87_get(m.cpu, 0).sign_exponent, 0x3fff - 149);
	assert_int_equal(m.cpu->fsw & (X87_FLAGS | X87_ES), X87_DE | X87_ES);
}

/* SDM 2A FCOMI: OF, SF and AF are cleared whether or not an invalid operation is detected. */
static void test_comi_clears_flags(void **state)
{
	(void)state;
	m.cpu->fcw = 0x37e;
	machine_set_flags(&m, RFLAGS_STATUS);
	assert_int_equal(RUN(0xdb, 0xf1), NO_EVENT); /* FCOMI of empty registers, #IS unmasked */
	assert_int_equal(flags_get(&m.cpu->lazy) & (RFLAGS_OF | RFLAGS_SF | RFLAGS_AF), 0);
}

/* A full stack is found before the operand is found too large for FSINCOS. */
static void test_sincos_overflow(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 8; i++)
		push(1ull << 63, 0x403f);
	m.cpu->fsw |= X87_C2;
	assert_int_equal(RUN(0xd9, 0xfb), NO_EVENT);
	assert_int_equal(m.cpu->fsw & (X87_IE | X87_SF | X87_C1 | X87_C2), X87_IE | X87_SF | X87_C1);
}

static void test_pseudo_denormal(void **state)
{
	(void)state;
	push(0xd622d4b8c0015002, 0);
	assert_int_equal(RUN(0xd9, 0xfe), NO_EVENT); /* FSIN: the operand itself, nearly */
	assert_int_equal(x87_get(m.cpu, 0).sign_exponent, 1);
	assert_int_equal(x87_get(m.cpu, 0).significand >> 1, 0xd622d4b8c0015002 >> 1);
	assert_false(m.cpu->fsw & X87_UE);
}

/* SDM 1 8.7: an unmasked #D ends the operation before it can be inexact. */
static void test_denormal_first(void **state)
{
	(void)state;
	m.cpu->fcw = 0x37d;
	push(1, 0);
	assert_int_equal(RUN(0xd9, 0xf0), NO_EVENT); /* F2XM1 */
	assert_int_equal(m.cpu->fsw & X87_FLAGS, X87_DE);
}

static void test_log_overflow(void **state)
{
	(void)state;
	push(1ull << 63, 0x7ffe);
	push(1ull << 63, 0x7ffe);
	assert_int_equal(RUN(0xd9, 0xf1), NO_EVENT); /* FYL2X */
	assert_int_equal(m.cpu->fsw & (X87_OE | X87_PE), X87_OE | X87_PE);
}

/* MAXPS copies an operand: a tiny one is no underflow. */
static void test_max_is_no_underflow(void **state)
{
	(void)state;
	m.cpu->mxcsr = MXCSR_RESET & ~(MXCSR_UE << 7);
	m.cpu->vector[0] = 0x0000000100000001;
	m.cpu->vector[1] = 0x0000000100000001;
	assert_int_equal(RUN(0x0f, 0x5f, 0xc0), NO_EVENT); /* MAXPS XMM0, XMM0 */
	assert_false(m.cpu->mxcsr & MXCSR_UE);
}

/* SDM 2A DPPS: an unmasked exception of the products comes before the sums. */
static void test_dot_product_steps(void **state)
{
	(void)state;
	m.cpu->mxcsr = MXCSR_RESET & ~(MXCSR_UE << 7);
	m.cpu->vector[0] = m.cpu->vector[1] = 0x0080000000800000; /* the least normal number, four times */
	m.cpu->vector[4] = m.cpu->vector[5] = 0x3f0000003f000000; /* one half: an exact, tiny product */
	assert_int_equal(RUN(0x66, 0x0f, 0x3a, 0x40, 0xc1, 0xf1), VECTOR_XM);
	assert_int_equal(m.cpu->mxcsr & (MXCSR_UE | MXCSR_DE), MXCSR_UE);
}

/* SDM 2A ARPL: a selector that needs no change is not written. */
static void test_arpl_reads(void **state)
{
	(void)state;
	machine_mode(&m, CODE_32);
	m.cpu->reg[RBX] = OPERAND;
	m.cpu->reg[RCX] = 1;
	machine_write(&m, OPERAND, (uint8_t[]){2, 0}, 2);
	assert_int_equal(RUN(0x2e, 0x63, 0x0b), NO_EVENT); /* ARPL CS:[EBX], CX: code cannot be written */
	m.cpu->reg[RCX] = 3;
	assert_int_equal(RUN(0x2e, 0x63, 0x0b), VECTOR_GP);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_machine, close_machine)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_host_flags_are_cleared),
		TEST(test_prem_keeps_codes),
		TEST(test_environment_tags),
		TEST(test_store_faults_first),
		TEST(test_store_overflow),
		TEST(test_load_of_denormal),
		TEST(test_comi_clears_flags),
		TEST(test_sincos_overflow),
		TEST(test_pseudo_denormal),
		TEST(test_denormal_first),
		TEST(test_log_overflow),
		TEST(test_max_is_no_underflow),
		TEST(test_dot_product_steps),
		TEST(test_arpl_reads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
