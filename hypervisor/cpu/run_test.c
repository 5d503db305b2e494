/* run_test.c: small programs on a whole CPU: what retires, how faults end, what is told and what is kept. */
#include "cpu/run_test.h"

/* ---- counting ---- */

/* mov cx,5; loop: inc ax; dec cx; jnz loop; hlt */
#define LOOP       0xb9, 5, 0, 0x40, 0x49, 0x75, 0xfc, 0xf4
#define LOOP_INSNS (1 + 3 * 5 + 1)

static void test_counts(void **state)
{
	struct machine *m = *state;

	START_REAL(m, LOOP);
	assert_int_equal(cpu_run(m->cpu), CPU_STOP_HALT);
	assert_int_equal(m->cpu->reg[RAX], 5);
	assert_int_equal(m->cpu->retired, LOOP_INSNS);
	assert_int_equal(m->cpu->rip, CODE + 8);
	/* Halted it stays. */
	assert_int_equal(cpu_run(m->cpu), CPU_STOP_HALT);
	assert_int_equal(m->cpu->retired, LOOP_INSNS);
}

/* Any budget stops at that very instruction, and going on from there ends in the same state. */
static void test_budget(void **state)
{
	struct machine *m = *state;
	static const uint8_t rips[] = {0, 3, 4, 5};

	for (unsigned n = 1; n < LOOP_INSNS; n++) {
		START_REAL(m, LOOP);
		m->cpu->stop_at = n;
		assert_int_equal(cpu_run(m->cpu), CPU_STOP_BUDGET);
		assert_int_equal(m->cpu->retired, n);
		assert_int_equal(m->cpu->rip, CODE + (n == LOOP_INSNS - 1 ? 7 : rips[1 + (n - 1) % 3]));
		m->cpu->stop_at = 1000;
		assert_int_equal(cpu_run(m->cpu), CPU_STOP_HALT);
		assert_int_equal(m->cpu->retired, LOOP_INSNS);
		assert_int_equal(m->cpu->reg[RAX], 5);
	}
}

/* The same where the fast path runs first: 300 iterations, and budgets that end anywhere in them. */
static void test_long_budget(void **state)
{
	struct machine *m = *state;
	static const uint8_t rips[] = {3, 4, 5};

	for (unsigned n = 100; n < 160; n++) {
		START_REAL(m, 0xb9, 0x2c, 1, 0x40, 0x49, 0x75, 0xfc, 0xf4);
		m->cpu->stop_at = n;
		assert_int_equal(cpu_run(m->cpu), CPU_STOP_BUDGET);
		assert_int_equal(m->cpu->retired, n);
		assert_int_equal(m->cpu->rip, CODE + rips[(n - 1) % 3]);
		assert_int_equal(m->cpu->reg[RAX], (n + 1) / 3);
	}
}

static void test_event_at(void **state)
{
	struct machine *m = *state;

	START_REAL(m, LOOP);
	m->cpu->event_at = 7;
	assert_int_equal(cpu_run(m->cpu), CPU_STOP_REQUESTED);
	assert_int_equal(m->cpu->retired, 7);
	assert_int_equal(cpu_run(m->cpu), CPU_STOP_HALT);
	assert_int_equal(m->cpu->retired, LOOP_INSNS);
}

/* cld; mov cx,100; mov di,9000h; rep stosb; hlt: each iteration counts, and any may be the last. */
static void test_rep(void **state)
{
	struct machine *m = *state;

	for (unsigned n = 1; n < 104; n += 3) {
		START_REAL(m, 0xfc, 0xb9, 100, 0, 0xbf, 0x00, 0x90, 0xf3, 0xaa, 0xf4);
		m->cpu->stop_at = n;
		assert_int_equal(cpu_run(m->cpu), CPU_STOP_BUDGET);
		assert_int_equal(m->cpu->retired, n);
		if (n > 3) {
			assert_int_equal(m->cpu->reg[RCX], 103 - n);
			assert_int_equal(m->cpu->rip, n == 103 ? CODE + 9 : CODE + 7);
		}
		m->cpu->stop_at = 1000;
		assert_int_equal(cpu_run(m->cpu), CPU_STOP_HALT);
		assert_int_equal(m->cpu->retired, 104);
		assert_int_equal(m->cpu->reg[RCX], 0);
	}
	/* No iterations are still one instruction. */
	START_REAL(m, 0xb9, 0, 0, 0xf3, 0xaa, 0xf4);
	assert_int_equal(cpu_run(m->cpu), CPU_STOP_HALT);
	assert_int_equal(m->cpu->retired, 3);
}

/* A fault in the middle of a trace: what is before it has retired, the delivery counts as one, then the HLT.
 */
static void test_fault(void **state)
{
	struct machine *m = *state;

	START_REAL(m, 0x40, 0x40, 0x0f, 0x0b, 0x40);
	expect_vector(m, VECTOR_UD, CODE + 2);
	assert_int_equal(m->cpu->reg[RAX], 2);
	assert_int_equal(m->cpu->retired, 4);
	/* #DE likewise: xor dx,dx; xor cx,cx; div cx */
	START_REAL(m, 0x31, 0xd2, 0x31, 0xc9, 0xf7, 0xf1);
	expect_vector(m, VECTOR_DE, CODE + 4);
}

/* Code that was decoded while SSE was open is checked again once it is not, and the other way round. */
static void test_gates_follow_control_registers(void **state)
{
	static const struct {
		uint64_t cr0, cr4;
		int vector; /* -1: runs */
	} rows[] = {{0, CR4_OSFXSR, -1},
		    {CR0_TS, CR4_OSFXSR, VECTOR_NM},
		    {CR0_EM, CR4_OSFXSR, VECTOR_UD},
		    {0, 0, VECTOR_UD},
		    {0, CR4_OSFXSR, -1}};
	struct machine *m = *state;

	START_REAL(m, 0x0f, 0x28, 0xc0, 0xf4); /* movaps xmm0,xmm0 */
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		m->cpu->cr0 = (m->cpu->cr0 & ~(uint64_t)(CR0_EM | CR0_TS)) | rows[i].cr0;
		m->cpu->cr4 = rows[i].cr4;
		m->cpu->rip = CODE;
		m->cpu->activity = ACTIVITY_ACTIVE;
		cpu_mode_changed(m->cpu);
		if (rows[i].vector >= 0) {
			expect_vector(m, (unsigned)rows[i].vector, CODE);
			continue;
		}
		assert_int_equal(cpu_run(m->cpu), CPU_STOP_HALT);
		assert_int_equal(m->cpu->rip, CODE + 4);
	}
}

/* A handler that faults itself for ever, on a stack that wraps: the budget ends it. */
static void test_fault_loop(void **state)
{
	struct machine *m = *state;
	uint32_t entry = CODE;

	START_REAL(m, 0x0f, 0x0b);
	assert_true(phys_write(m->memory, VECTOR_UD * 4u, &entry, 4));
	m->cpu->stop_at = 1000;
	m->cpu->reg[RSP] = 0xfffe;
	assert_int_equal(cpu_run(m->cpu), CPU_STOP_BUDGET);
	assert_int_equal(m->cpu->retired, 1000);
}

static void test_too_long(void **state)
{
	struct machine *m = *state;

	START_REAL(m, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
		   0x66, 0x90);
	expect_vector(m, VECTOR_GP, CODE);
}

static void test_shutdown(void **state)
{
	struct machine *m = *state;

	START_FLAT(m, 0x40, 0x0f, 0x0b);
	assert_int_equal(cpu_run(m->cpu), CPU_STOP_SHUTDOWN);
	assert_int_equal(m->cpu->activity, ACTIVITY_SHUTDOWN);
	assert_int_equal(cpu_run(m->cpu), CPU_STOP_SHUTDOWN);
}

/* #UD through an IDT that has only a gate for #DF: #NP while delivering, then #NP again is #DF. */
static void test_double_fault(void **state)
{
	struct machine *m = *state;
	struct vcpu_state s;
	uint32_t error;

	START_FLAT(m, 0x40, 0x0f, 0x0b);
	put64(m, 0x12008, 0x00cf9b000000ffffull);
	put64(m, 0x12010, 0x00cf93000000ffffull);
	put64(m, 0x11000 + 8 * VECTOR_DF, 0x00008e0000080000ull | (HANDLERS + 16 * VECTOR_DF));
	cpu_save(m->cpu, &s);
	s.gdtr = (struct table_register){.base = 0x12000, .limit = 0x17};
	s.idtr = (struct table_register){.base = 0x11000, .limit = 0x7ff};
	cpu_load(m->cpu, &s);
	assert_int_equal(cpu_run(m->cpu), CPU_STOP_HALT);
	assert_int_equal(m->cpu->rip, HANDLERS + 16 * VECTOR_DF + 1);
	memcpy(&error, m->ram + m->cpu->reg[RSP], 4);
	assert_int_equal(error, 0);
	assert_int_equal(word(m, (uint32_t)m->cpu->reg[RSP] + 4), CODE + 1);
}

/* ---- tracing, and what is not modelled ---- */

static void test_tracing(void **state)
{
	struct machine *m = *state;

	START_REAL(m, 0x40, 0x40, 0x0f, 0x0b);
	m->cpu->tracing = true;
	cpu_mode_changed(m->cpu);
	expect_vector(m, VECTOR_UD, CODE + 2);
	assert_int_equal(m->events, 1);
	assert_int_equal(m->traced, 4); /* the UD2 and the HLT as well */
}

static void test_unmodelled(void **state)
{
	struct machine *m = *state;

	START_FLAT(m, 0x40, 0xf3, 0x0f, 0x01, 0xea, 0x90); /* SAVEPREVSSP */
	m->profile.features[FEATURE_cet_ss / 64] |= 1ull << FEATURE_cet_ss % 64;
	assert_int_equal(cpu_run(m->cpu), CPU_STOP_UNMODELLED);
	assert_non_null(strstr(m->cpu->unmodelled, "7001 f3 0f 01 ea"));
	assert_int_equal(m->cpu->rip, CODE + 1);
	assert_int_equal(m->cpu->retired, 1);
}

/* ---- state ---- */

static void test_save_load(void **state)
{
	struct machine *m = *state;
	struct vcpu_state before, after;

	START_REAL(m, LOOP);
	m->cpu->stop_at = 9;
	assert_int_equal(cpu_run(m->cpu), CPU_STOP_BUDGET);
	flags_set(&m->cpu->lazy, RFLAGS_ZF | RFLAGS_PF | RFLAGS_SF);
	memset(&before, 0, sizeof(before));
	memset(&after, 0, sizeof(after));
	cpu_save(m->cpu, &before);
	assert_int_equal(before.rflags & RFLAGS_STATUS, RFLAGS_ZF | RFLAGS_PF | RFLAGS_SF);
	cpu_reset(m->cpu, false);
	cpu_load(m->cpu, &before);
	cpu_save(m->cpu, &after);
	assert_memory_equal(before.gpr, after.gpr, sizeof(before.gpr));
	assert_int_equal(before.rip, after.rip);
	assert_int_equal(before.rflags, after.rflags);
	assert_int_equal(before.tsc, after.tsc);
	assert_memory_equal(before.segment, after.segment, sizeof(before.segment));
}

/* INIT keeps what SDM 3A table 9-1 says that it keeps. */
static void test_init(void **state)
{
	struct machine *m = *state;

	START_REAL(m, LOOP);
	m->cpu->cr0 = CR0_PE | CR0_CD | CR0_WP;
	m->cpu->mxcsr = 0x1fa0;
	m->cpu->msr.star = 7;
	m->cpu->vector[3] = 9;
	cpu_reset(m->cpu, true);
	assert_int_equal(m->cpu->cr0, CR0_ET | CR0_CD);
	assert_int_equal(m->cpu->mxcsr, 0x1fa0);
	assert_int_equal(m->cpu->msr.star, 7);
	assert_int_equal(m->cpu->vector[3], 9);
	assert_int_equal(m->cpu->rip, 0xfff0);
	assert_int_equal(m->cpu->segment[CS].s.base, 0xffff0000);
	assert_int_equal(m->cpu->code_mode, CODE_16);
	cpu_reset(m->cpu, false);
	assert_int_equal(m->cpu->cr0, CR0_ET | CR0_CD | CR0_NW);
	assert_int_equal(m->cpu->mxcsr, MXCSR_RESET);
	assert_int_equal(m->cpu->msr.star, 0);
	assert_int_equal(m->cpu->reg[RDX], m->profile.signature);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_counts),
		TEST(test_budget),
		TEST(test_long_budget),
		TEST(test_event_at),
		TEST(test_rep),
		TEST(test_fault),
		TEST(test_gates_follow_control_registers),
		TEST(test_fault_loop),
		TEST(test_too_long),
		TEST(test_shutdown),
		TEST(test_double_fault),
		TEST(test_tracing),
		TEST(test_unmodelled),
		TEST(test_save_load),
		TEST(test_init),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
