/* vmx_shadow_test.c: EPT of a guest that is a hypervisor, joined with our tables. */
#include "kmod/test/vmx_rig.h"

static void tables_are_joined(void **state)
{
	(void)state;
	prepare();
	launch();
	violation(0x3000, EPT_VIOLATION_READ, exception(VECTOR_GP));
	assert_true(vcpu.vmx->nested.running);
	assert_int_equal(entry_at(joined(), 0x3000, 1) & ~0xfffull, 0x600000);
	assert_int_equal(entry_at(joined(), 0x3000, 1) & 7, 7);
	assert_int_equal(injected(), exception(VECTOR_GP)); /* again */
	violation(0x200000, EPT_VIOLATION_READ, 0);
	assert_int_equal(entry_at(joined(), 0x200000, 0) & ~0xfffull, 0x801000);
	assert_int_equal(entry_at(joined(), 0x200000, 0) & 7, EPT_READ);
}

static void refusals_are_the_guests(void **state)
{
	(void)state;
	prepare();
	launch();
	violation(0x200000, EPT_VIOLATION_WRITE, exception(VECTOR_GP));
	assert_int_equal(reason(), VMX_EXIT_EPT_VIOLATION);
	assert_int_equal(region_get(&vcpu, VMCS_EXIT_QUALIFICATION),
			 EPT_VIOLATION_WRITE | EPT_READ << EPT_VIOLATION_RIGHTS_SHIFT);
	assert_int_equal(region_get(&vcpu, VMCS_GUEST_PHYSICAL_ADDRESS), 0x200000);
	assert_int_equal(region_get(&vcpu, VMCS_IDT_VECTORING_INFO), exception(VECTOR_GP));
	exits(VMX_EXIT_VMRESUME, 0);
	violation(0x400000, EPT_VIOLATION_READ, 0);
	assert_int_equal(reason(), VMX_EXIT_EPT_VIOLATION);
	assert_int_equal(region_get(&vcpu, VMCS_EXIT_QUALIFICATION), EPT_VIOLATION_READ);
	exits(VMX_EXIT_VMRESUME, 0);
	violation(0x201000, EPT_VIOLATION_READ, 0); /* writable, not readable */
	assert_int_equal(reason(), VMX_EXIT_EPT_MISCONFIGURATION);
	exits(VMX_EXIT_VMRESUME, 0);
	assert_true(fake_catches(violation(0x202000, EPT_VIOLATION_READ, 0)));
	assert_non_null(strstr(fake.stopped, "hypervisor's memory"));
}

static void invept_forgets(void **state)
{
	(void)state;
	prepare();
	launch();
	violation(0x3000, EPT_VIOLATION_READ, 0);
	exits(VMX_EXIT_HLT, 0);
	exits(VMX_EXIT_VMRESUME, 0);
	assert_true(entry_at(joined(), 0x3000, 1) & 7);
	exits(VMX_EXIT_HLT, 0);
	vcpu.gpr[RBX] = INVEPT_ALL;
	assert_int_equal(execute(VMX_EXIT_INVEPT, 0, RBX), 0);
	exits(VMX_EXIT_VMRESUME, 0);
	assert_false(entry_at(joined(), 0x3000, 1) & 7);
}

/* Flags are set where the guest asks for them, and a page is writable once its dirty flag is set. */
static void flags_are_set(void **state)
{
	(void)state;
	prepare();
	launch();
	violation(0x3000, EPT_VIOLATION_READ, 0);
	assert_false(*fake_quad(EPT) & EPT_ACCESSED);
	assert_true(entry_at(joined(), 0x3000, 1) & EPT_WRITE);
	assert_false(fake_get(VMCS_EPTP) & EPTP_ACCESSED_DIRTY);
	exits(VMX_EXIT_HLT, 0);
	region_set(&vcpu, VMCS_EPTP, region_get(&vcpu, VMCS_EPTP) | EPTP_ACCESSED_DIRTY);
	exits(VMX_EXIT_VMRESUME, 0);
	assert_true(fake_get(VMCS_EPTP) & EPTP_ACCESSED_DIRTY); /* accesses to its page tables are writes */
	assert_false(entry_at(joined(), 0x3000, 1) & 7);
	violation(0x3000, EPT_VIOLATION_READ, 0);
	assert_true(*fake_quad(EPT) & *fake_quad(EPT + 0x1000) & *fake_quad(EPT + 0x2000) & EPT_ACCESSED);
	assert_false(*fake_quad(EPT + 0x2000) & EPT_DIRTY);
	assert_false(entry_at(joined(), 0x3000, 1) & EPT_WRITE);
	violation(0x3000, EPT_VIOLATION_WRITE, 0);
	assert_true(*fake_quad(EPT + 0x2000) & EPT_DIRTY);
	assert_false((*fake_quad(EPT) | *fake_quad(EPT + 0x1000)) & EPT_DIRTY);
	assert_true(entry_at(joined(), 0x3000, 1) & EPT_WRITE);
	violation(0x200000, EPT_VIOLATION_WRITE, 0); /* read-only */
	assert_int_equal(reason(), VMX_EXIT_EPT_VIOLATION);
	assert_false(*fake_quad(EPT + 0x3000) & (EPT_ACCESSED | EPT_DIRTY));
	/* A processor that has none. */
	fake_msr(MSR_VMX_EPT_VPID_CAP, ~(uint64_t)VMX_EPT_ACCESSED_DIRTY, 0);
	assert_false(vmx_shadow_eptp_valid(EPT | 6 | 3 << EPTP_LEVELS_SHIFT | EPTP_ACCESSED_DIRTY));
	assert_true(vmx_shadow_eptp_valid(EPT | 6 | 3 << EPTP_LEVELS_SHIFT));
}

/* ---- the local APIC, to which the guest lets its guest write ---- */

#define AT 0x203000ull /* where it has the page */

static void reach_apic(void)
{
	start(true, 2);
	prepare();
	*fake_quad(EPT + 0x3018) = FAKE_APIC | EPT_READ | EPT_WRITE;
}

static void step_to(uint32_t offset, uint32_t value)
{
	violation(AT + offset, EPT_VIOLATION_WRITE, 0);
	assert_true(vcpu.step.on);
	assert_int_equal(entry_at(joined(), AT, 0) & ~0xfffull, hw_physical(vcpu.step.page));
	assert_true(entry_at(joined(), AT, 0) & EPT_WRITE);
	*(uint32_t *)(void *)(vcpu.step.page + offset) = value;
}

static void apic_is_stepped(void **state)
{
	(void)state;
	reach_apic();
	launch();
	violation(AT + 0x20, EPT_VIOLATION_READ, 0);
	assert_false(entry_at(joined(), AT, 0) & EPT_WRITE);
	*(uint32_t *)hw_map(FAKE_APIC + 0x310) = 3u << 24;
	step_to(0x300, 0x4608);
	exits(VMX_EXIT_MONITOR_TRAP_FLAG, 0);
	assert_true(vcpu.vmx->nested.running);
	assert_int_equal(*(uint32_t *)hw_map(FAKE_APIC + 0x300), 0x469f);
	assert_int_equal(machine.startup_vector[3], 8);
	assert_int_equal(entry_at(joined(), AT, 0) & ~0xfffull, FAKE_APIC);
	assert_false(entry_at(joined(), AT, 0) & EPT_WRITE);
}

/* The guest's own step ends as ours does, and what comes instead is its exit where it wants that. */
static void step_in_a_step(void **state)
{
	(void)state;
	reach_apic();
	region_set(&vcpu, VMCS_PRIMARY_CONTROLS,
		   region_get(&vcpu, VMCS_PRIMARY_CONTROLS) | VMX_MONITOR_TRAP_FLAG);
	region_set(&vcpu, VMCS_PIN_CONTROLS,
		   region_get(&vcpu, VMCS_PIN_CONTROLS) | VMX_PIN_EXTERNAL_INTERRUPT | VMX_PIN_NMI);
	region_set(&vcpu, VMCS_EXCEPTION_BITMAP, 1u << VECTOR_UD);
	launch();
	step_to(0x80, 0x20);
	exits(VMX_EXIT_MONITOR_TRAP_FLAG, 0);
	assert_int_equal(*(uint32_t *)hw_map(FAKE_APIC + 0x80), 0x20);
	assert_int_equal(reason(), VMX_EXIT_MONITOR_TRAP_FLAG);
	exits(VMX_EXIT_VMRESUME, 0);
	step_to(0x80, 0x30);
	exits(VMX_EXIT_EXTERNAL_INTERRUPT, 0);
	assert_int_equal(reason(), VMX_EXIT_EXTERNAL_INTERRUPT);
	assert_int_equal(*(uint32_t *)hw_map(FAKE_APIC + 0x80), 0x20);
	exits(VMX_EXIT_VMRESUME, 0);
	step_to(0x80, 0x30);
	memset(&next, 0, sizeof(next));
	next.event = exception(VECTOR_UD);
	enter();
	assert_int_equal(reason(), VMX_EXIT_EXCEPTION_NMI);
	exits(VMX_EXIT_VMRESUME, 0);
	step_to(0x80, 0x30);
	next.event = exception(VECTOR_NP); /* which it does not want */
	next.reason = VMX_EXIT_EXCEPTION_NMI;
	enter();
	assert_true(vcpu.vmx->nested.running);
	assert_int_equal(injected(), exception(VECTOR_NP));
	step_to(0x80, 0x30);
	next.event = VECTOR_NMI | VMX_EVENT_NMI << VMX_EVENT_TYPE_SHIFT | VMX_EVENT_VALID;
	next.reason = VMX_EXIT_EXCEPTION_NMI;
	enter();
	assert_int_equal(reason(), VMX_EXIT_EXCEPTION_NMI);
	assert_false(vcpu.vmx->nmi);
}

/* An SMI comes to who sends it: the instruction is executed once more, with the local APIC before it. */
static void smi_comes_to_its_sender(void **state)
{
	(void)state;
	reach_apic();
	launch();
	vcpu.gpr[RBX] = 0x5555;
	step_to(0x300, 0x44200);
	vcpu.gpr[RBX] = 0;
	vcpu.rip += 3;
	exits(VMX_EXIT_MONITOR_TRAP_FLAG, 0);
	assert_true(vcpu.step.direct);
	assert_int_equal(vcpu.gpr[RBX], 0x5555);
	assert_int_equal(vcpu.rip, 0x7000);
	assert_int_equal(entry_at(joined(), AT, 0) & ~0xff8ull, FAKE_APIC | EPT_READ | EPT_WRITE);
	exits(VMX_EXIT_MONITOR_TRAP_FLAG, 0);
	assert_false(vcpu.step.on);
	assert_int_equal(*(uint32_t *)hw_map(FAKE_APIC + 0x300), 0); /* not by us */
	assert_false(entry_at(joined(), AT, 0) & EPT_WRITE);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(tables_are_joined, setup),
		cmocka_unit_test_setup(refusals_are_the_guests, setup),
		cmocka_unit_test_setup(invept_forgets, setup),
		cmocka_unit_test_setup(apic_is_stepped, setup),
		cmocka_unit_test_setup(step_in_a_step, setup),
		cmocka_unit_test_setup(smi_comes_to_its_sender, setup),
		cmocka_unit_test_setup(flags_are_set, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
