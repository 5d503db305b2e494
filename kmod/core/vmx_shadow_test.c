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

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(tables_are_joined, setup),
		cmocka_unit_test_setup(refusals_are_the_guests, setup),
		cmocka_unit_test_setup(invept_forgets, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
