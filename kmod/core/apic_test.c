/* apic_test.c: commands to other processors, and the page that they are written to. */
#include "kmod/test/svm_rig.h"

#define ICR        0x300u
#define ICR_HIGH   0x310u
#define X2APIC     0x800u
#define SIPI       0x4608u /* vector 8 */
#define SMI        0x4200u
#define LOGICAL    (1u << 11)
#define ALL_OTHERS (3u << 18)
#define SELF       (1u << 18)
#define MOVED      0x70000ull

static uint32_t *page(uint64_t physical, unsigned offset)
{
	return (uint32_t *)(void *)((uint8_t *)hw_map(physical) + offset);
}

static unsigned startups(uint8_t vector)
{
	unsigned count = 0;

	for (unsigned i = 0; i < 256; i++)
		count += machine.startup_vector[i] == vector;
	return count;
}

static void command(uint32_t destination, uint32_t value)
{
	*page(FAKE_APIC, ICR_HIGH) = destination << 24;
	apic_write(&vcpu, ICR, value);
}

static void startups_are_noted(void **state)
{
	(void)state;
	start(true, 2);
	command(3, SIPI);
	assert_int_equal(*page(FAKE_APIC, ICR), 0x469f);
	assert_int_equal(startups(8), 1);
	assert_int_equal(machine.startup_vector[3], 8);
	command(3, (SIPI + 1) | LOGICAL); /* which could be anyone */
	assert_int_equal(startups(9), 256);
	command(3, (SIPI + 2) | ALL_OTHERS);
	assert_int_equal(startups(10), 256);
	command(0xff, SIPI + 3);
	assert_int_equal(startups(11), 256);
	/* No other command is one, nor a write of another register. */
	command(3, 0x4508);
	assert_int_equal(*page(FAKE_APIC, ICR), 0x4508);
	apic_write(&vcpu, ICR_HIGH, SIPI);
	assert_int_equal(*page(FAKE_APIC, ICR_HIGH), SIPI);
	assert_int_equal(startups(11), 256);
}

static void by_x2apic(void **state)
{
	(void)state;
	start(true, 2);
	fake_msr(X2APIC + 0x30, 0, ~0ull);
	fake_msr(X2APIC + 0x38, 0, ~0ull);
	fake_msr(X2APIC + 0x0b, 0, 0);
	assert_true(core_write_msr(&vcpu, X2APIC + 0x30, 5ull << 32 | SIPI));
	assert_int_equal(fake_msr_value(X2APIC + 0x30), 5ull << 32 | 0x469f);
	assert_int_equal(machine.startup_vector[5], 8);
	assert_int_equal(startups(8), 1);
	assert_true(core_write_msr(&vcpu, X2APIC + 0x38, SIPI + 1));
	assert_int_equal(fake_msr_value(X2APIC + 0x38), SIPI + 1);
	assert_int_equal(startups(9), 0);
	assert_false(core_write_msr(&vcpu, X2APIC + 0x0b, 1));
	/* Nobody watches where there is one processor. */
	start(true, 1);
	fake_msr(X2APIC + 0x30, 0, ~0ull);
	assert_true(core_write_msr(&vcpu, X2APIC + 0x30, 5ull << 32 | SIPI));
	assert_int_equal(fake_msr_value(X2APIC + 0x30), 5ull << 32 | SIPI);
}

/* The watch goes where the page goes. */
static void page_is_moved(void **state)
{
	(void)state;
	start(true, 2);
	assert_false(entry_at(vcpu.tables, FAKE_APIC, 0) & PTE_W);
	assert_true(core_write_msr(&vcpu, MSR_APIC_BASE, FAKE_APIC | APIC_BASE_ENABLE | APIC_BASE_BSP));
	assert_false(entry_at(vcpu.tables, FAKE_APIC, 0) & PTE_W); /* the same one */
	assert_true(core_write_msr(&vcpu, MSR_APIC_BASE, MOVED | APIC_BASE_ENABLE));
	assert_true(entry_at(vcpu.tables, FAKE_APIC, 0) & PTE_W);
	assert_false(entry_at(vcpu.tables, MOVED, 0) & PTE_W);
	*page(MOVED, ICR_HIGH) = 3u << 24;
	apic_write(&vcpu, ICR, SIPI);
	assert_int_equal(*page(MOVED, ICR), 0x469f);
	/* A write that is refused moves nothing, nor does that of another MSR. */
	fake_msr(MSR_APIC_BASE, FAKE_APIC | APIC_BASE_ENABLE, 0);
	assert_false(core_write_msr(&vcpu, MSR_APIC_BASE, MOVED));
	assert_true(core_write_msr(&vcpu, MSR_PAT, 0));
	assert_false(entry_at(vcpu.tables, MOVED, 0) & PTE_W);
	start(true, 1);
	assert_true(core_write_msr(&vcpu, MSR_APIC_BASE, MOVED | APIC_BASE_ENABLE));
	assert_true(entry_at(vcpu.tables, MOVED, 0) & PTE_W);
}

/* An SMI to itself waits for GIF, however it is addressed. */
static void smis_are_held(void **state)
{
	static const struct {
		uint32_t destination, command;
		bool held;
	} row[] = {
		{7, SMI | SELF, true},        {0, SMI, true},     {1, SMI, false},
		{0, SMI | LOGICAL, false},    {0, 0x4400, false}, {0, 0x4400 | SELF, false},
		{0, SMI | ALL_OTHERS, false},
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
		start(true, 2);
		prepare_inner(false);
		exits(SVM_EXIT_CLGI, 0, 0, 0);
		command(row[i].destination, row[i].command);
		assert_int_equal(vcpu.svm->nested.smi, row[i].held);
		assert_int_equal(*page(FAKE_APIC, ICR), row[i].held ? 0 : row[i].command);
	}
	start(true, 2);
	command(0, SMI); /* GIF is 1 */
	assert_int_equal(*page(FAKE_APIC, ICR), SMI);
	/* x2APIC's register alone. */
	start(true, 2);
	prepare_inner(false);
	exits(SVM_EXIT_CLGI, 0, 0, 0);
	fake_msr(X2APIC + 0x30, 0, ~0ull);
	fake_msr(X2APIC + 0x38, 0, ~0ull);
	assert_true(core_write_msr(&vcpu, X2APIC + 0x38, SMI));
	assert_int_equal(fake_msr_value(X2APIC + 0x38), SMI);
	assert_false(vcpu.svm->nested.smi);
	assert_true(core_write_msr(&vcpu, X2APIC + 0x30, SMI));
	assert_int_equal(fake_msr_value(X2APIC + 0x30), 0);
	assert_true(vcpu.svm->nested.smi);
	/* A write of another register is no command. */
	vcpu.svm->nested.smi = false;
	*page(FAKE_APIC, ICR_HIGH) = 0;
	apic_write(&vcpu, 0x80, SMI);
	assert_false(vcpu.svm->nested.smi);
	assert_int_equal(*page(FAKE_APIC, 0x80), SMI);
}

static void is_it_an_smi(void **state)
{
	(void)state;
	assert_true(apic_sends_smi(ICR, SMI));
	assert_false(apic_sends_smi(ICR_HIGH, SMI));
	assert_false(apic_sends_smi(ICR, SIPI));
}

/* From itself to itself, which changes the destination for that only. */
static void to_itself(void **state)
{
	(void)state;
	start(true, 2);
	*page(FAKE_APIC, ICR_HIGH) = 5u << 24;
	apic_send_self(&vcpu, APIC_NMI);
	assert_int_equal(*page(FAKE_APIC, ICR), 0x4400);
	assert_int_equal(*page(FAKE_APIC, ICR_HIGH), 5u << 24);
	fake_msr(MSR_APIC_BASE, FAKE_APIC | APIC_BASE_ENABLE | APIC_BASE_EXTD, ~0ull);
	fake_msr(X2APIC + 0x30, 0, ~0ull);
	apic_send_self(&vcpu, APIC_INIT);
	assert_int_equal(fake_msr_value(X2APIC + 0x30), 0x4500);
	assert_int_equal(*page(FAKE_APIC, ICR), 0x4400);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(startups_are_noted), cmocka_unit_test(by_x2apic),
		cmocka_unit_test(page_is_moved),      cmocka_unit_test(smis_are_held),
		cmocka_unit_test(is_it_an_smi),       cmocka_unit_test(to_itself),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
