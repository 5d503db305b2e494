/* world_test.c: VM entries and exits: what is loaded, saved and left alone. */
#include "cpu/vmx/vmx_test.h"

static void round_trip(void **state)
{
	struct machine m;

	(void)state;
	vmx_open(&m);
	assert_int_equal(GUEST(&m, 0x0f, 0xa2, VMCALL), VMX_EXIT_CPUID);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_RIP), GUEST_AT);
	assert_int_equal(vmcs_get(&m, VMCS_EXIT_INSTRUCTION_LENGTH), 2);
	assert_true(vmcs_launched(m.cpu, VMCS_AT));
	assert_int_equal(m.cpu->reg[RSP], HOST_STACK);
	vmcs_put(&m, VMCS_GUEST_RIP, GUEST_AT + 2);
	assert_int_equal(GUEST(&m, 0x0f, 0xa2, VMCALL), VMX_EXIT_VMCALL);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_RIP), GUEST_AT + 2);
	machine_close(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_trip),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
