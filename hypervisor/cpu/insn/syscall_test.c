/* syscall_test.c: SYSCALL SYSRET SYSENTER SYSEXIT of both vendors (SDM 2B; APM 3). */
#include "cpu/insn/system_test.h"

#define SYSCALL  0x0f, 0x05
#define SYSRET   0x0f, 0x07
#define SYSRETQ  0x48, 0x0f, 0x07
#define SYSENTER 0x0f, 0x34
#define SYSEXIT  0x0f, 0x35
#define SYSEXITQ 0x48, 0x0f, 0x35

#define TARGET (CODE_AT + 0x100)

static void open(struct machine *m, const char *profile, uint32_t mode, unsigned cpl)
{
	struct vcpu_state *msr;

	system_open(m, profile, mode, cpl);
	msr = &m->cpu->msr;
	m->cpu->efer |= EFER_SCE;
	msr->star = 0x0033002300000000 | (TARGET + 8);
	msr->lstar = TARGET;
	msr->cstar = TARGET + 4;
	msr->fmask = RFLAGS_IF | RFLAGS_TF | RFLAGS_DF;
	msr->sysenter_cs = 0x43;
	msr->sysenter_eip = TARGET + 12;
	msr->sysenter_esp = STACK_AT;
}

static void segment_is(const struct machine *m, enum segment_register segment, uint16_t selector,
		       uint32_t attributes)
{
	const struct segment *s = &m->cpu->segment[segment].s;

	assert_int_equal(s->selector, selector);
	assert_int_equal(s->attributes, attributes);
	assert_int_equal(s->base, 0);
	assert_int_equal(s->limit, 0xffffffff);
}

/* Type, S, DPL, P, L, D/B and G. */
#define CODE64(dpl) (0xa09bu | (dpl) << 5)
#define CODE32(dpl) (0xc09bu | (dpl) << 5)
#define DATA(dpl)   (0xc093u | (dpl) << 5)

static void test_syscall_long(void **state)
{
	static const char *const profiles[] = {"intel", "amd"};
	struct machine m;

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		open(&m, profiles[i], CODE_64, 3);
		m.cpu->rflags |= RFLAGS_IF | RFLAGS_IOPL;
		assert_int_equal(RUN(&m, SYSCALL), NO_EVENT);
		assert_int_equal(m.cpu->rip, TARGET);
		assert_int_equal(m.cpu->reg[RCX], CODE_AT + 2);
		assert_int_equal(m.cpu->reg[R11], RFLAGS_IF | RFLAGS_IOPL | RFLAGS_FIXED);
		assert_int_equal(rflags_get(m.cpu), RFLAGS_IOPL | RFLAGS_FIXED);
		segment_is(&m, CS, 0x20, CODE64(0u));
		segment_is(&m, SS, 0x28, DATA(0u));
		assert_int_equal(m.cpu->cpl, 0);
		m.cpu->efer &= ~(uint64_t)EFER_SCE;
		FAULTS(&m, "SYSCALL.SCE", VECTOR_UD, SYSCALL);
		FAULTS(&m, "SYSRET.SCE", VECTOR_UD, SYSRETQ);
		machine_close(&m);
	}
}

static void compatibility_mode(struct machine *m, unsigned cpl)
{
	m->cpu->segment[CS].s.attributes = CODE32(0u);
	cpu_mode_changed(m->cpu);
	segment_derive_all(m->cpu);
	system_set_cpl(m, cpl);
}

static void test_syscall_compatibility(void **state)
{
	struct machine m;

	(void)state;
	open(&m, "intel", CODE_64, 3);
	compatibility_mode(&m, 3);
	FAULTS(&m, "SYSCALL_64BIT", VECTOR_UD, SYSCALL);
	compatibility_mode(&m, 0);
	FAULTS(&m, "SYSRET_64BIT", VECTOR_UD, SYSRET);
	machine_close(&m);
	open(&m, "amd", CODE_64, 3);
	compatibility_mode(&m, 3);
	assert_int_equal(RUN(&m, SYSCALL), NO_EVENT);
	assert_int_equal(m.cpu->rip, TARGET + 4);
	assert_int_equal(m.cpu->reg[R11], RFLAGS_FIXED);
	segment_is(&m, CS, 0x20, CODE64(0u));
	machine_close(&m);
}

static void test_syscall_legacy(void **state)
{
	struct machine m;

	(void)state;
	open(&m, "intel", CODE_32, 3);
	FAULTS(&m, "SYSCALL_64BIT", VECTOR_UD, SYSCALL);
	machine_close(&m);
	open(&m, "amd", CODE_32, 3);
	m.cpu->rflags |= RFLAGS_IF | RFLAGS_DF;
	m.cpu->reg[R11] = 77;
	assert_int_equal(RUN(&m, SYSCALL), NO_EVENT);
	assert_int_equal(m.cpu->rip, TARGET + 8);
	assert_int_equal(m.cpu->reg[RCX], CODE_AT + 2);
	assert_int_equal(m.cpu->reg[R11], 77);
	assert_int_equal(rflags_get(m.cpu), RFLAGS_DF | RFLAGS_FIXED); /* FMASK is long mode's */
	segment_is(&m, CS, 0x20, CODE32(0u));
	m.cpu->reg[RCX] = TARGET;
	assert_int_equal(RUN(&m, SYSRET), NO_EVENT);
	assert_int_equal(m.cpu->rip, TARGET);
	assert_int_equal(rflags_get(m.cpu), RFLAGS_DF | RFLAGS_IF | RFLAGS_FIXED);
	segment_is(&m, CS, 0x33, CODE32(3u));
	assert_int_equal(m.cpu->cpl, 3);
	machine_close(&m);
}

static void test_sysret(void **state)
{
	struct machine m;

	(void)state;
	open(&m, "intel", CODE_64, 0);
	m.cpu->reg[RCX] = TARGET;
	m.cpu->reg[R11] = ~(uint64_t)RFLAGS_TF;
	assert_int_equal(RUN(&m, SYSRETQ), NO_EVENT);
	assert_int_equal(m.cpu->rip, TARGET);
	assert_int_equal(rflags_get(m.cpu), 0x3c7ed7);
	segment_is(&m, CS, 0x43, CODE64(3u));
	segment_is(&m, SS, 0x3b, DATA(3u));
	FAULTS(&m, "SYSRET_CPL", VECTOR_GP, SYSRETQ);
	machine_mode(&m, CODE_64);
	m.cpu->efer |= EFER_SCE;
	m.cpu->reg[RCX] = 0xffff00000000 | TARGET;
	FAULTS(&m, "SYSRET_CANONICAL", VECTOR_GP, SYSRETQ);
	m.cpu->reg[R11] = 0;
	assert_int_equal(RUN(&m, SYSRET), NO_EVENT); /* to compatibility mode: ECX */
	assert_int_equal(m.cpu->rip, TARGET);
	segment_is(&m, CS, 0x33, CODE32(3u));
	machine_close(&m);
}

/* AMD: SS keeps its hidden part, its RPL is STAR's, and a bad RCX faults at CPL 3. */
static void test_sysret_amd(void **state)
{
	struct machine m;

	(void)state;
	open(&m, "amd", CODE_64, 0);
	m.cpu->msr.star = 0x0030ull << 48;
	m.cpu->segment[SS].s.attributes = SEG_P | SEG_S | SEG_WRITABLE | SEG_ACCESSED;
	m.cpu->segment[SS].s.limit = 0x1234;
	m.cpu->reg[RCX] = 1ull << 60;
	m.cpu->reg[R11] = 0;
	assert_int_equal(RUN(&m, SYSRETQ), NO_EVENT);
	assert_int_equal(m.cpu->rip, 1ull << 60);
	assert_int_equal(m.cpu->cpl, 3);
	assert_int_equal(m.cpu->segment[SS].s.selector, 0x38);
	assert_int_equal(m.cpu->segment[SS].s.limit, 0x1234);
	m.cpu->event_at = m.cpu->stop_at = m.cpu->retired + 1;
	cpu_run(m.cpu);
	assert_int_equal(m.vector, VECTOR_GP);
	assert_int_equal(m.event_rip, 1ull << 60);
	machine_close(&m);
}

/* The trap is by TF as it is behind the instruction. */
static void test_trap_flag(void **state)
{
	struct machine m;

	(void)state;
	open(&m, "intel", CODE_64, 3);
	m.cpu->rflags |= RFLAGS_TF;
	cpu_mode_changed(m.cpu);
	assert_int_equal(RUN(&m, SYSCALL), NO_EVENT);
	m.cpu->reg[RCX] = TARGET;
	m.cpu->reg[R11] = RFLAGS_TF;
	assert_int_equal(RUN(&m, SYSRETQ), VECTOR_DB);
	assert_int_equal(m.event_rip, TARGET);
	machine_close(&m);
}

static void test_sysenter(void **state)
{
	struct machine m;

	(void)state;
	open(&m, "intel", CODE_64, 3);
	m.cpu->rflags |= RFLAGS_IF;
	assert_int_equal(RUN(&m, SYSENTER), NO_EVENT);
	assert_int_equal(m.cpu->rip, TARGET + 12);
	assert_int_equal(m.cpu->reg[RSP], STACK_AT);
	assert_int_equal(rflags_get(m.cpu), RFLAGS_FIXED);
	segment_is(&m, CS, 0x40, CODE64(0u));
	segment_is(&m, SS, 0x48, DATA(0u));
	m.cpu->reg[RDX] = TARGET;
	m.cpu->reg[RCX] = 1ull << 50;
	FAULTS(&m, "SYSEXIT_CANONICAL", VECTOR_GP, SYSEXITQ);
	m.cpu->reg[RCX] = STACK_AT - 8;
	assert_int_equal(RUN(&m, SYSEXITQ), NO_EVENT);
	assert_int_equal(m.cpu->rip, TARGET);
	assert_int_equal(m.cpu->reg[RSP], STACK_AT - 8);
	segment_is(&m, CS, 0x63, CODE64(3u));
	segment_is(&m, SS, 0x6b, DATA(3u));
	FAULTS(&m, "SYSEXIT.CPL0", VECTOR_GP, SYSEXITQ);
	m.cpu->msr.sysenter_cs = 3;
	FAULTS(&m, "SYSENTER_CS_NULL", VECTOR_GP, SYSENTER);
	machine_close(&m);
	open(&m, "amd", CODE_64, 3);
	FAULTS(&m, "SYSENTER.NOT_IA32E_ON_AMD", VECTOR_UD, SYSENTER);
	system_set_cpl(&m, 0);
	FAULTS(&m, "SYSEXIT.NOT_IA32E_ON_AMD", VECTOR_UD, SYSEXIT);
	machine_close(&m);
	open(&m, "amd", CODE_32, 3);
	assert_int_equal(RUN(&m, SYSENTER), NO_EVENT);
	segment_is(&m, CS, 0x40, CODE32(0u));
	m.cpu->reg[RDX] = TARGET;
	assert_int_equal(RUN(&m, SYSEXIT), NO_EVENT);
	segment_is(&m, CS, 0x53, CODE32(3u));
	system_set_real(&m);
	FAULTS(&m, "SYSENTER.NOT_REAL", VECTOR_GP, SYSENTER);
	m.cpu->efer |= EFER_SCE;
	FAULTS(&m, "SYSRET_PROTECTED", VECTOR_GP, SYSRET);
	machine_close(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_syscall_long),   cmocka_unit_test(test_syscall_compatibility),
		cmocka_unit_test(test_syscall_legacy), cmocka_unit_test(test_sysret),
		cmocka_unit_test(test_sysret_amd),     cmocka_unit_test(test_trap_flag),
		cmocka_unit_test(test_sysenter),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
