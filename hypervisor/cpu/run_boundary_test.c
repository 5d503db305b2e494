/* run_boundary_test.c: what comes between two instructions: traps, interrupts, wake-ups, breakpoints. */
#include "cpu/run_test.h"

/* ---- between instructions ---- */

static void test_single_step(void **state)
{
	struct machine *m = *state;

	START_REAL(m, 0x40, 0x40, 0xf4);
	m->cpu->rflags |= RFLAGS_TF;
	cpu_mode_changed(m->cpu);
	expect_vector(m, VECTOR_DB, CODE + 1);
	assert_int_equal(m->cpu->reg[RAX], 1);
	assert_int_equal(m->cpu->dr6, DR6_FIXED_1 | DR6_BS);
	assert_false(m->cpu->rflags & RFLAGS_TF);
}

/* pushf; or word [sp] TF; popf; inc ax; inc ax: the trap comes behind the instruction after POPF. */
static void test_single_step_by_popf(void **state)
{
	struct machine *m = *state;

	START_REAL(m, 0x9c, 0x58, 0x80, 0xcc, 0x01, 0x50, 0x9d, 0x43, 0x43);
	expect_vector(m, VECTOR_DB, CODE + 8);
	assert_int_equal(m->cpu->reg[RBX], 1);
}

/* Single steps of a repeated instruction trap after each iteration, with IP still at it. */
static void test_single_step_rep(void **state)
{
	struct machine *m = *state;

	START_REAL(m, 0xf3, 0xaa, 0xf4);
	m->cpu->reg[RCX] = 500;
	m->cpu->reg[RDI] = 0x9000;
	m->cpu->rflags |= RFLAGS_TF;
	cpu_mode_changed(m->cpu);
	expect_vector(m, VECTOR_DB, CODE);
	assert_int_equal(m->cpu->reg[RCX], 499);
}

/* INT n under TF goes to its handler, and the step is lost (SDM 3B 18.3.1.4). */
static void test_single_step_int(void **state)
{
	struct machine *m = *state;

	START_REAL(m, 0xcd, 0x30, 0x40);
	m->cpu->rflags |= RFLAGS_TF;
	cpu_mode_changed(m->cpu);
	expect_vector(m, 0x30, CODE + 2);
}

/* mov ss,ax; inc bx; inc bx with TF: no trap behind MOV SS, one behind the next. */
static void test_mov_ss_holds_traps(void **state)
{
	struct machine *m = *state;

	START_REAL(m, 0x8e, 0xd0, 0x43, 0x43);
	m->cpu->rflags |= RFLAGS_TF;
	cpu_mode_changed(m->cpu);
	expect_vector(m, VECTOR_DB, CODE + 3);
}

static void test_sti_shadow(void **state)
{
	struct machine *m = *state;

	START_REAL(m, 0x40, 0xfb, 0x40, 0x40, 0xf4);
	cpu_set_interrupt_line(m->cpu, true);
	expect_vector(m, 0x20, CODE + 3);
	assert_int_equal(m->acknowledged, 1);
	assert_int_equal(m->cpu->reg[RAX], 2);
	assert_false(m->cpu->rflags & RFLAGS_IF);
}

/* With IF set already, STI shadows nothing. */
static void test_interrupt_at_once(void **state)
{
	struct machine *m = *state;

	START_REAL(m, 0x40, 0x40, 0xf4);
	m->cpu->rflags |= RFLAGS_IF;
	cpu_set_interrupt_line(m->cpu, true);
	expect_vector(m, 0x20, CODE);
}

/* out 2,al raises the line: taken behind the OUT; the NMI of port 3 goes first. */
static void test_interrupt_from_port(void **state)
{
	struct machine *m = *state;

	START_REAL(m, 0xfb, 0x90, 0xe6, 2, 0x40, 0x40, 0xf4);
	expect_vector(m, 0x20, CODE + 4);
	assert_int_equal(m->cpu->reg[RAX], 0);
	START_REAL(m, 0xe6, 2, 0xe6, 3, 0x40, 0xf4);
	expect_vector(m, VECTOR_NMI, CODE + 4);
	assert_true(m->cpu->nmi_blocked);
}

/* Both at once: NMI first (SDM 3A table 6-2). */
static void test_nmi_before_interrupt(void **state)
{
	struct machine *m = *state;

	START_REAL(m, 0x40, 0xf4);
	m->cpu->rflags |= RFLAGS_IF;
	cpu_set_interrupt_line(m->cpu, true);
	cpu_raise_nmi(m->cpu);
	expect_vector(m, VECTOR_NMI, CODE);
	assert_int_equal(m->acknowledged, 0);
}

/* An NMI that waits for IRET comes right behind it, in front of code that is known already. */
static void test_nmi_behind_iret(void **state)
{
	struct machine *m = *state;

	/* pushf; push cs; push l2; iret; l2: inc ax; inc ax; hlt, once before */
	START_REAL(m, 0x9c, 0x0e, 0x68, 0x06, 0x70, 0xcf, 0x40, 0x40, 0xf4);
	m->cpu->rip = CODE + 6;
	assert_int_equal(cpu_run(m->cpu), CPU_STOP_HALT);
	m->cpu->activity = ACTIVITY_ACTIVE;
	m->cpu->rip = CODE;
	m->cpu->nmi_blocked = true;
	m->cpu->reg[RAX] = 0;
	cpu_raise_nmi(m->cpu);
	expect_vector(m, VECTOR_NMI, CODE + 6);
	assert_int_equal(m->cpu->reg[RAX], 0);
}

static void test_nmi_blocked(void **state)
{
	struct machine *m = *state;

	START_REAL(m, 0x40, 0x40, 0xf4);
	m->cpu->nmi_blocked = true;
	cpu_raise_nmi(m->cpu);
	assert_int_equal(cpu_run(m->cpu), CPU_STOP_HALT);
	assert_int_equal(m->cpu->rip, CODE + 3);
	/* Unblocked, it ends the halt. */
	m->cpu->nmi_blocked = false;
	expect_vector(m, VECTOR_NMI, CODE + 3);
}

static void test_halt_wakes(void **state)
{
	struct machine *m = *state;

	START_REAL(m, 0xfb, 0xf4, 0x40, 0xf4);
	assert_int_equal(cpu_run(m->cpu), CPU_STOP_HALT);
	assert_int_equal(m->cpu->rip, CODE + 2);
	cpu_set_interrupt_line(m->cpu, true);
	expect_vector(m, 0x20, CODE + 2);
}

/* A stop asked for by a device in the middle of a trace: behind that instruction, and nothing is lost. */
static void test_request_stop(void **state)
{
	struct machine *m = *state;

	START_REAL(m, 0x40, 0xe6, 1, 0x40, 0xf4);
	assert_int_equal(cpu_run(m->cpu), CPU_STOP_REQUESTED);
	assert_int_equal(m->cpu->rip, CODE + 3);
	assert_int_equal(m->cpu->retired, 2);
	assert_int_equal(cpu_run(m->cpu), CPU_STOP_HALT);
	assert_int_equal(m->cpu->reg[RAX], 2);
	/* By memory-mapped I/O: mov [0x200001],al; inc eax; inc eax */
	for (int i = 0; i < 2; i++) {
		START_FLAT(m, 0x40, 0xa2, 0x01, 0x00, 0x20, 0x00, 0x40, 0x40, 0xf4);
		assert_int_equal(cpu_run(m->cpu), CPU_STOP_REQUESTED);
		assert_int_equal(m->cpu->rip, CODE + 6);
		assert_int_equal(m->cpu->retired, 2);
		assert_int_equal(cpu_run(m->cpu), CPU_STOP_HALT);
		assert_int_equal(m->cpu->reg[RAX], 3);
		assert_int_equal(m->cpu->retired, 5);
	}
}

/* ---- breakpoints ---- */

static void set_breakpoint(struct machine *m, uint64_t address, uint64_t dr7)
{
	struct vcpu_state s;

	cpu_save(m->cpu, &s);
	s.dr[0] = address;
	s.dr7 = DR7_FIXED_1 | dr7;
	cpu_load(m->cpu, &s);
}

static void test_code_breakpoint(void **state)
{
	struct machine *m = *state;

	START_REAL(m, 0x40, 0x40, 0xf4);
	set_breakpoint(m, CODE + 1, DR7_L(0));
	expect_vector(m, VECTOR_DB, CODE + 1);
	assert_int_equal(m->cpu->reg[RAX], 1);
	assert_int_equal(m->cpu->dr6, DR6_FIXED_1 | DR6_B(0));
	/* RF holds it off, for one instruction. */
	START_REAL(m, 0x40, 0x40, 0xf4);
	set_breakpoint(m, CODE, DR7_L(0));
	m->cpu->rflags |= RFLAGS_RF;
	cpu_mode_changed(m->cpu);
	assert_int_equal(cpu_run(m->cpu), CPU_STOP_HALT);
	assert_int_equal(m->cpu->rip, CODE + 3);
	assert_false(m->cpu->rflags & RFLAGS_RF);
}

/* RF holds off a repeated instruction's breakpoint for all of its iterations; without breakpoints it just
 * ends. */
static void test_resume_flag(void **state)
{
	struct machine *m = *state;

	START_REAL(m, 0xf3, 0xaa, 0xf4);
	set_breakpoint(m, CODE, DR7_L(0));
	m->cpu->reg[RCX] = 3;
	m->cpu->reg[RDI] = 0x9000;
	m->cpu->rflags |= RFLAGS_RF;
	cpu_mode_changed(m->cpu);
	assert_int_equal(cpu_run(m->cpu), CPU_STOP_HALT);
	assert_int_equal(m->cpu->rip, CODE + 3);
	assert_int_equal(m->cpu->reg[RCX], 0);
	START_REAL(m, 0x40, 0xf4);
	m->cpu->rflags |= RFLAGS_RF;
	cpu_mode_changed(m->cpu);
	assert_int_equal(cpu_run(m->cpu), CPU_STOP_HALT);
	assert_false(m->cpu->rflags & RFLAGS_RF);
}

/* mov [9000h],al; inc ax: a trap behind the store. */
static void test_data_breakpoint(void **state)
{
	struct machine *m = *state;

	START_REAL(m, 0x40, 0xa2, 0x00, 0x90, 0x40, 0xf4);
	set_breakpoint(m, 0x9000, DR7_L(0) | 1u << DR7_RW_SHIFT(0));
	expect_vector(m, VECTOR_DB, CODE + 4);
	assert_int_equal(m->cpu->dr6, DR6_FIXED_1 | DR6_B(0));
	assert_int_equal(m->ram[0x9000], 1);
}

/* bound ax,[9000h], which reads a watched place and faults: the fault alone. */
/*
 * mov ss,[0x9000]; int 0x30, with a breakpoint on the word: the #DB that MOV SS holds off comes behind INT n,
 * in front of the handler's first instruction (SDM 3A 6.8.3).
 */
static void test_mov_ss_breakpoint_then_int(void **state)
{
	struct machine *m = *state;

	START_REAL(m, 0x8e, 0x16, 0x00, 0x90, 0xcd, 0x30, 0x43);
	m->cpu->dr[0] = 0x9000;
	m->cpu->dr7 = DR7_FIXED_1 | DR7_L(0) | 3u << DR7_RW_SHIFT(0) | 1u << DR7_LEN_SHIFT(0);
	cpu_mode_changed(m->cpu);
	expect_vector(m, VECTOR_DB, HANDLERS + 16 * 0x30);
	assert_int_equal(m->cpu->dr6 & DR6_B(0), DR6_B(0));
}

static void test_data_breakpoint_of_fault(void **state)
{
	struct machine *m = *state;

	START_REAL(m, 0x40, 0x62, 0x06, 0x00, 0x90);
	set_breakpoint(m, 0x9000, DR7_L(0) | 3u << DR7_RW_SHIFT(0));
	expect_vector(m, VECTOR_BR, CODE + 1);
	assert_int_equal(m->cpu->dr6, DR6_FIXED_1);
}

/* Each named check of run.c and trace.c, broken: what it holds off comes, or what it raises does not. */
static void test_broken_checks(void **state)
{
	struct machine *m = *state;

	assert_true(check_break("SINGLE_STEP"));
	START_REAL(m, 0x40, 0xf4);
	m->cpu->rflags |= RFLAGS_TF;
	cpu_mode_changed(m->cpu);
	assert_int_equal(cpu_run(m->cpu), CPU_STOP_HALT);
	assert_int_equal(m->cpu->rip, CODE + 2);
	assert_true(check_break("CODE_BREAKPOINT"));
	START_REAL(m, 0x40, 0xf4);
	set_breakpoint(m, CODE, DR7_L(0));
	assert_int_equal(cpu_run(m->cpu), CPU_STOP_HALT);
	assert_int_equal(m->cpu->rip, CODE + 2);
	assert_true(check_break("RESUME_FLAG"));
	START_REAL(m, 0x40, 0xf4);
	set_breakpoint(m, CODE, DR7_L(0));
	m->cpu->rflags |= RFLAGS_RF;
	expect_vector(m, VECTOR_DB, CODE);
	assert_true(check_break("INTERRUPT_SHADOW"));
	START_REAL(m, 0xfb, 0x40, 0xf4);
	cpu_set_interrupt_line(m->cpu, true);
	expect_vector(m, 0x20, CODE + 1);
	assert_true(check_break("DEBUG_SHADOW"));
	START_REAL(m, 0x8e, 0xd0, 0x43, 0x43);
	m->cpu->rflags |= RFLAGS_TF;
	cpu_mode_changed(m->cpu);
	expect_vector(m, VECTOR_DB, CODE + 2);
	assert_true(check_break("NMI_BLOCKING"));
	START_REAL(m, 0x40, 0xf4);
	m->cpu->nmi_blocked = true;
	cpu_raise_nmi(m->cpu);
	expect_vector(m, VECTOR_NMI, CODE);
	assert_true(check_break("CODE_LIMIT"));
	START_REAL(m, 0x40, 0xf4);
	set_code_limit(m, CODE);
	assert_int_equal(cpu_run(m->cpu), CPU_STOP_HALT);
	assert_int_equal(m->cpu->rip, CODE + 2);
	assert_true(check_break(NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_single_step),
		TEST(test_single_step_by_popf),
		TEST(test_single_step_rep),
		TEST(test_single_step_int),
		TEST(test_mov_ss_holds_traps),
		TEST(test_sti_shadow),
		TEST(test_interrupt_at_once),
		TEST(test_interrupt_from_port),
		TEST(test_nmi_blocked),
		TEST(test_nmi_before_interrupt),
		TEST(test_nmi_behind_iret),
		TEST(test_halt_wakes),
		TEST(test_request_stop),
		TEST(test_code_breakpoint),
		TEST(test_data_breakpoint),
		TEST(test_mov_ss_breakpoint_then_int),
		TEST(test_data_breakpoint_of_fault),
		TEST(test_broken_checks),
		TEST(test_resume_flag),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
