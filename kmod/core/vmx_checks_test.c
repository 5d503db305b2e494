/* vmx_checks_test.c: what VM entry checks of a guest's VMCS, and what the guest is offered. */
#include "kmod/test/vmx_rig.h"

static void only_what_is_nested_is_offered(void **state)
{
	uint64_t value;

	(void)state;
	assert_int_equal(vmx_nested_read_msr(&vcpu, MSR_VMX_SECONDARY_CTLS, &value), MSR_DONE);
	assert_false(value >> 32 & (VMX2_VIRTUAL_INTERRUPTS | VMX2_VMCS_SHADOWING | VMX2_PML));
	assert_true(value >> 32 & VMX2_EPT);
	assert_int_equal(vmx_nested_read_msr(&vcpu, MSR_VMX_PIN_CTLS, &value), MSR_DONE);
	assert_false(value >> 32 & VMX_PIN_POSTED_INTERRUPTS);
	assert_int_equal(vmx_nested_read_msr(&vcpu, MSR_VMX_VMFUNC, &value), MSR_FAULT);
	assert_true(vmx_offer_allows(MSR_VMX_PIN_CTLS, VMX_PIN_DEFAULT1 | VMX_PIN_NMI));
	assert_false(vmx_offer_allows(MSR_VMX_PIN_CTLS, VMX_PIN_NMI));
	assert_true(vmx_offer_allows(MSR_VMX_PIN_CTLS, VMX_PIN_DEFAULT1 | VMX_PIN_PREEMPTION_TIMER));
	/* The timer's value could not be saved. */
	assert_int_equal(vmx_nested_read_msr(&vcpu, MSR_VMX_EXIT_CTLS, &value), MSR_DONE);
	fake_msr(MSR_VMX_EXIT_CTLS, value & ~((uint64_t)VMX_EXIT_SAVE_PREEMPTION_TIMER << 32), 0);
	assert_false(vmx_offer_allows(MSR_VMX_PIN_CTLS, VMX_PIN_DEFAULT1 | VMX_PIN_PREEMPTION_TIMER));
}

static void entry_is_checked(void **state)
{
	static const struct {
		uint32_t field;
		uint64_t value;
		unsigned error;
	} row[] = {
		{VMCS_PIN_CONTROLS, 0, VMX_ERROR_ENTRY_CONTROLS},
		{VMCS_PIN_CONTROLS, VMX_PIN_DEFAULT1 | VMX_PIN_POSTED_INTERRUPTS, VMX_ERROR_ENTRY_CONTROLS},
		{VMCS_SECONDARY_CONTROLS, VMX2_PML, VMX_ERROR_ENTRY_CONTROLS},
		{VMCS_SECONDARY_CONTROLS, VMX2_UNRESTRICTED_GUEST, VMX_ERROR_ENTRY_CONTROLS},
		{VMCS_SECONDARY_CONTROLS, VMX2_VPID, VMX_ERROR_ENTRY_CONTROLS},
		{VMCS_MSR_BITMAP, FAKE_HIDDEN, VMX_ERROR_ENTRY_CONTROLS},
		{VMCS_MSR_BITMAP, BITMAP + 1, VMX_ERROR_ENTRY_CONTROLS},
		{VMCS_EPTP, EPT, VMX_ERROR_ENTRY_CONTROLS},
		{VMCS_CR3_TARGET_COUNT, 5, VMX_ERROR_ENTRY_CONTROLS},
		{VMCS_HOST_CR0, 0, VMX_ERROR_ENTRY_HOST_STATE},
		{VMCS_HOST_CR3, 1ull << 50, VMX_ERROR_ENTRY_HOST_STATE},
		{VMCS_HOST_CR4, CR4_VMXE, VMX_ERROR_ENTRY_HOST_STATE},
		{VMCS_HOST_CS, 0, VMX_ERROR_ENTRY_HOST_STATE},
		{VMCS_HOST_TR, 9, VMX_ERROR_ENTRY_HOST_STATE},
		{VMCS_HOST_RIP, 1ull << 50, VMX_ERROR_ENTRY_HOST_STATE},
		{VMCS_HOST_GS_BASE, 1ull << 50, VMX_ERROR_ENTRY_HOST_STATE},
		{VMCS_EXIT_CONTROLS, VMX_EXIT_DEFAULT1, VMX_ERROR_ENTRY_HOST_STATE},
		{VMCS_EXIT_CONTROLS, VMX_EXIT_DEFAULT1 | VMX_EXIT_HOST_64 | VMX_EXIT_SAVE_PREEMPTION_TIMER,
		 VMX_ERROR_ENTRY_CONTROLS},
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
		start(true, 1);
		prepare();
		region_set(&vcpu, (enum vmcs_field)row[i].field, row[i].value);
		launch();
		assert_false(vcpu.vmx->nested.running);
		assert_true(fake_get(VMCS_GUEST_RFLAGS) & ZF);
		assert_int_equal(region_get(&vcpu, VMCS_INSTRUCTION_ERROR), row[i].error);
	}
	start(true, 1);
	prepare();
	exits(VMX_EXIT_VMRESUME, 0);
	assert_int_equal(region_get(&vcpu, VMCS_INSTRUCTION_ERROR), VMX_ERROR_VMRESUME_NOT_LAUNCHED);
	fake_put(VMCS_GUEST_INTERRUPTIBILITY, VMX_BLOCKING_MOV_SS);
	launch();
	assert_int_equal(region_get(&vcpu, VMCS_INSTRUCTION_ERROR), VMX_ERROR_ENTRY_MOV_SS);
}

/* What the processor finds is the guest's to know. */
static void lists_are_checked(void **state)
{
	(void)state;
	prepare();
	region_set(&vcpu, VMCS_EXIT_MSR_LOAD, LIST + 8);
	region_set(&vcpu, VMCS_EXIT_MSR_LOAD_COUNT, 1);
	launch();
	assert_int_equal(region_get(&vcpu, VMCS_INSTRUCTION_ERROR), VMX_ERROR_ENTRY_CONTROLS);
	region_set(&vcpu, VMCS_EXIT_MSR_LOAD, FAKE_HIDDEN - 16);
	region_set(&vcpu, VMCS_EXIT_MSR_LOAD_COUNT, 2);
	launch();
	assert_int_equal(region_get(&vcpu, VMCS_INSTRUCTION_ERROR), VMX_ERROR_ENTRY_CONTROLS);
	region_set(&vcpu, VMCS_EXIT_MSR_LOAD, LIST);
	region_set(&vcpu, VMCS_EXIT_MSR_LOAD_COUNT, 1);
	put_msr(0, MSR_FS_BASE, 0);
	launch();
	assert_true(fake_catches(exits(VMX_EXIT_HLT, 0)));
	assert_int_equal(((uint32_t *)fake_memory(INNER))[1], VMX_ABORT_LOADING_MSRS);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(only_what_is_nested_is_offered, setup),
		cmocka_unit_test(entry_is_checked),
		cmocka_unit_test_setup(lists_are_checked, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
