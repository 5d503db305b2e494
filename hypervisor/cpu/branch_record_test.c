/* branch_record_test.c: last-branch records, stepping from branch to branch, LBR virtualization. */
#include "cpu/svm/svm_test.h"

#define DEBUGCTL_AT(m) ((m)->cpu->msr.debugctl)

static void lbr_on(struct machine *m, uint64_t bits)
{
	DEBUGCTL_AT(m) = bits;
	cpu_step_changed(m->cpu);
}

/* jmp +2 over two bytes, jz not taken, nop */
static const uint8_t code[] = {0xeb, 0x02, 0x90, 0x90, 0x74, 0x02, 0x90, 0x90, 0xf4};

static void branches_are_recorded(void **state)
{
	struct machine m;

	(void)state;
	svm_open(&m);
	flags_set(&m.cpu->lazy, 0);
	lbr_on(&m, DEBUGCTL_LBR);
	machine_run(&m, code, sizeof(code), 3);
	assert_int_equal(m.cpu->msr.last_branch_from, CODE_AT);
	assert_int_equal(m.cpu->msr.last_branch_to, CODE_AT + 4);
	/* taken */
	flags_set(&m.cpu->lazy, RFLAGS_ZF);
	machine_run(&m, code, sizeof(code), 3);
	assert_int_equal(m.cpu->msr.last_branch_from, CODE_AT + 4);
	assert_int_equal(m.cpu->msr.last_branch_to, CODE_AT + 8);
	/* without the bit nothing is */
	lbr_on(&m, 0);
	machine_run(&m, code, sizeof(code), 1);
	assert_int_equal(m.cpu->msr.last_branch_from, CODE_AT + 4);
	assert_true(check_break("BRANCH_RECORD"));
	lbr_on(&m, DEBUGCTL_LBR);
	machine_run(&m, code, sizeof(code), 1);
	assert_int_equal(m.cpu->msr.last_branch_from, CODE_AT + 4);
	check_break(NULL);
	machine_close(&m);
}

/* A conditional branch to what follows: its condition alone tells. */
static void branches_to_the_next(void **state)
{
	static const struct {
		uint8_t code[2];
		uint64_t flags, rcx;
		bool taken;
	} branches[] = {
		{{0x74, 0}, RFLAGS_ZF, 0, true},  {{0x74, 0}, 0, 0, false},
		{{0x75, 0}, 0, 0, true},          {{0x72, 0}, RFLAGS_CF, 0, true},
		{{0x77, 0}, RFLAGS_CF, 0, false}, {{0xe2, 0}, 0, 2, true},
		{{0xe2, 0}, 0, 1, false},         {{0xe1, 0}, RFLAGS_ZF, 2, true},
		{{0xe1, 0}, 0, 2, false},         {{0xe1, 0}, RFLAGS_ZF, 1, false},
		{{0xe0, 0}, 0, 2, true},          {{0xe0, 0}, RFLAGS_ZF, 2, false},
		{{0xe3, 0}, 0, 0, true},          {{0xe3, 0}, 0, 1, false},
	};
	struct machine m;

	(void)state;
	svm_open(&m);
	for (unsigned i = 0; i < sizeof(branches) / sizeof(branches[0]); i++) {
		flags_set(&m.cpu->lazy, branches[i].flags);
		m.cpu->reg[RCX] = branches[i].rcx;
		m.cpu->msr.last_branch_from = 0;
		lbr_on(&m, DEBUGCTL_LBR);
		machine_run(&m, branches[i].code, 2, 1);
		assert_int_equal(m.cpu->rip, CODE_AT + 2);
		assert_int_equal(m.cpu->msr.last_branch_from, branches[i].taken ? CODE_AT : 0);
	}
	machine_close(&m);
}

/* Intel's processors have the bit; no profile tells of registers behind it. */
static void intel_shows_no_records(void **state)
{
	struct machine m;

	(void)state;
	machine_open(&m, "intel");
	assert_true(msr_write(m.cpu, MSR_DEBUGCTL, DEBUGCTL_LBR | DEBUGCTL_BTF));
	assert_int_equal(DEBUGCTL_AT(&m), DEBUGCTL_LBR | DEBUGCTL_BTF);
	machine_run(&m, code, sizeof(code), 1);
	assert_int_equal(m.cpu->msr.last_branch_from, 0);
	assert_false(msr_read(m.cpu, MSR_LASTBRANCHFROMIP, &(uint64_t){0}));
	machine_close(&m);
}

/* A branch to what follows is one; the tables of an event have the branch in front of it. */
static void events_are_recorded(void **state)
{
	static const uint8_t here_ud[] = {0xeb, 0x00, 0x0f, 0x0b};
	struct machine m;

	(void)state;
	svm_open(&m);
	m.cpu->idtr = (struct table_register){.base = IDT_AT, .limit = 0xfff};
	m.cpu->gdtr = (struct table_register){.base = GDT_AT, .limit = 0xff};
	m.cpu->reg[RSP] = GUEST_STACK;
	m.cpu->tracing = true;
	lbr_on(&m, DEBUGCTL_LBR);
	machine_run(&m, here_ud, sizeof(here_ud), 2); /* the event counts */
	assert_int_equal(m.vector, VECTOR_UD);
	assert_int_equal(m.cpu->msr.last_int_from, CODE_AT);
	assert_int_equal(m.cpu->msr.last_int_to, CODE_AT + 2);
	assert_int_equal(m.cpu->msr.last_branch_from, CODE_AT + 2);
	assert_int_equal(m.cpu->msr.last_branch_to, HANDLER_AT);
	assert_int_equal(DEBUGCTL_AT(&m), DEBUGCTL_LBR);
	m.cpu->msr.last_int_from = 0;
	assert_true(check_break("BRANCH_RECORD_EVENT"));
	machine_run(&m, here_ud, sizeof(here_ud), 2);
	assert_int_equal(m.cpu->msr.last_int_from, 0);
	check_break(NULL);
	machine_close(&m);
}

/* TF and BTF: a trap behind the branch, not behind the NOPs; it clears both bits and records nothing. */
static void stepping_goes_from_branch_to_branch(void **state)
{
	static const uint8_t nops[] = {0x90, 0x90, 0xeb, 0x00, 0x90};
	struct machine m;

	(void)state;
	svm_open(&m);
	m.cpu->idtr = (struct table_register){.base = IDT_AT, .limit = 0xfff};
	m.cpu->gdtr = (struct table_register){.base = GDT_AT, .limit = 0xff};
	m.cpu->reg[RSP] = GUEST_STACK;
	m.cpu->tracing = true;
	for (unsigned broken = 0; broken < 2; broken++) {
		m.cpu->msr.last_branch_to = 0;
		assert_true(!broken || check_break("BRANCH_STEP"));
		rflags_set(m.cpu, RFLAGS_TF, RFLAGS_TF);
		lbr_on(&m, DEBUGCTL_LBR | DEBUGCTL_BTF);
		machine_run(&m, nops, sizeof(nops), broken ? 2 : 4);
		assert_int_equal(m.vector, VECTOR_DB);
		assert_int_equal(m.event_rip, CODE_AT + (broken ? 1 : 4));
		assert_int_equal(DEBUGCTL_AT(&m), 0);
		assert_int_equal(m.cpu->msr.last_branch_to, broken ? 0 : CODE_AT + 4);
	}
	assert_true(check_break("BRANCH_DEBUG_EXCEPTION"));
	rflags_set(m.cpu, RFLAGS_TF, RFLAGS_TF);
	lbr_on(&m, DEBUGCTL_BTF);
	machine_run(&m, nops, sizeof(nops), 4);
	assert_int_equal(m.vector, VECTOR_DB);
	assert_int_equal(DEBUGCTL_AT(&m), DEBUGCTL_BTF);
	check_break(NULL);
	machine_close(&m);
}

static void round_with_records(struct machine *m, uint64_t enable)
{
	/* jmp +0; vmmcall */
	static const uint8_t guest[] = {0xeb, 0x00, VMMCALL};

	lbr_on(m, 0x3c);
	m->cpu->msr.last_branch_from = 1;
	m->cpu->msr.last_branch_to = 2;
	m->cpu->msr.last_int_from = 3;
	m->cpu->msr.last_int_to = 4;
	vmcb_baseline(m);
	vmcb_put(m, VMCB_VIRTUAL, enable, 8);
	vmcb_put(m, VMCB_DBGCTL, DEBUGCTL_LBR | 1ull << 40, 8);
	vmcb_put(m, VMCB_BR_FROM, 5, 8);
	vmcb_put(m, VMCB_LASTEXCPFROM, 7, 8);
	vmcb_put(m, VMCB_LASTEXCPTO, 8, 8);
	assert_int_equal(svm_run(m, guest, sizeof(guest)), SVM_EXIT_VMMCALL);
}

/* 15.23: both worlds have their own where the bit says so, and share them where not. */
static void guests_have_records_of_their_own(void **state)
{
	struct machine m;

	(void)state;
	svm_open(&m);
	round_with_records(&m, SVM_LBR_ENABLE);
	assert_int_equal(vmcb_get(&m, VMCB_DBGCTL, 8), DEBUGCTL_LBR);
	assert_int_equal(vmcb_get(&m, VMCB_BR_FROM, 8), GUEST_AT);
	assert_int_equal(vmcb_get(&m, VMCB_BR_TO, 8), GUEST_AT + 2);
	assert_int_equal(vmcb_get(&m, VMCB_LASTEXCPFROM, 8), 7);
	assert_int_equal(vmcb_get(&m, VMCB_LASTEXCPTO, 8), 8);
	assert_int_equal(DEBUGCTL_AT(&m), 0x3c);
	assert_int_equal(m.cpu->msr.last_branch_from, 1);
	assert_int_equal(m.cpu->msr.last_int_to, 4);
	round_with_records(&m, 0);
	assert_int_equal(vmcb_get(&m, VMCB_BR_FROM, 8), 5);
	assert_int_equal(m.cpu->msr.last_branch_from, 1);
	assert_true(check_break("VMRUN_LBR"));
	round_with_records(&m, SVM_LBR_ENABLE);
	assert_int_equal(vmcb_get(&m, VMCB_DBGCTL, 8), 0x3c);
	assert_true(check_break("VMEXIT_LBR"));
	round_with_records(&m, SVM_LBR_ENABLE);
	assert_int_equal(vmcb_get(&m, VMCB_BR_FROM, 8), 5);
	check_break(NULL);
	machine_close(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(branches_are_recorded),
		cmocka_unit_test(intel_shows_no_records),
		cmocka_unit_test(branches_to_the_next),
		cmocka_unit_test(events_are_recorded),
		cmocka_unit_test(stepping_goes_from_branch_to_branch),
		cmocka_unit_test(guests_have_records_of_their_own),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
