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

/* ---- more of the checks: what is wrong, and the same where it does not matter ---- */

struct put {
	uint32_t field;
	uint64_t value;
};

/* VM entry with these fields; 0, or the error. */
static uint64_t entry_with(const struct put *put, unsigned count)
{
	start(true, 1);
	prepare();
	for (unsigned i = 0; i < count; i++)
		region_set(&vcpu, (enum vmcs_field)put[i].field, put[i].value);
	launch();
	return vcpu.vmx->nested.running ? 0 : region_get(&vcpu, VMCS_INSTRUCTION_ERROR);
}
#define ENTRY_WITH(...)                                                                                      \
	entry_with((const struct put[]){__VA_ARGS__},                                                        \
		   sizeof((const struct put[]){__VA_ARGS__}) / sizeof(struct put))

#define PRIMARY                                                                                              \
	((VMX_PRIMARY_DEFAULT1 & ~(VMX_CR3_LOAD | VMX_CR3_STORE)) | VMX_USE_MSR_BITMAPS |                    \
	 VMX_ACTIVATE_SECONDARY)
#define EXIT_WIDE (VMX_EXIT_DEFAULT1 | VMX_EXIT_HOST_64)
#define CONTROLS  VMX_ERROR_ENTRY_CONTROLS
#define HOST      VMX_ERROR_ENTRY_HOST_STATE

static void structures_are_checked(void **state)
{
	(void)state;
	assert_int_equal(ENTRY_WITH({VMCS_CR3_TARGET_COUNT, 4}), 0);
	assert_int_equal(ENTRY_WITH({VMCS_VIRTUAL_APIC, 1}), 0);
	assert_int_equal(
		ENTRY_WITH({VMCS_PRIMARY_CONTROLS, PRIMARY | VMX_TPR_SHADOW}, {VMCS_VIRTUAL_APIC, 1}),
		CONTROLS);
	assert_int_equal(
		ENTRY_WITH({VMCS_PRIMARY_CONTROLS, PRIMARY | VMX_TPR_SHADOW}, {VMCS_VIRTUAL_APIC, 0x70000}),
		0);
	assert_int_equal(ENTRY_WITH({VMCS_IO_BITMAP_A, 1}), 0);
	assert_int_equal(
		ENTRY_WITH({VMCS_PRIMARY_CONTROLS, PRIMARY | VMX_USE_IO_BITMAPS}, {VMCS_IO_BITMAP_A, 1}),
		CONTROLS);
	assert_int_equal(
		ENTRY_WITH({VMCS_PRIMARY_CONTROLS, PRIMARY | VMX_USE_IO_BITMAPS}, {VMCS_IO_BITMAP_B, 1}),
		CONTROLS);
	assert_int_equal(
		ENTRY_WITH({VMCS_PRIMARY_CONTROLS, PRIMARY & ~VMX_USE_MSR_BITMAPS}, {VMCS_MSR_BITMAP, 1}), 0);
	assert_int_equal(ENTRY_WITH({VMCS_SECONDARY_CONTROLS, VMX2_EPT | VMX2_VPID}, {VMCS_VPID, 1}), 0);
	assert_int_equal(ENTRY_WITH({VMCS_PRIMARY_CONTROLS, PRIMARY & ~VMX_ACTIVATE_SECONDARY},
				    {VMCS_SECONDARY_CONTROLS, VMX2_PML}),
			 0);
}

static void host_efer(void **state)
{
	const uint64_t load = EXIT_WIDE | VMX_EXIT_LOAD_EFER, wide = EFER_LMA | EFER_LME;

	(void)state;
	assert_int_equal(ENTRY_WITH({VMCS_HOST_EFER, 0}), 0);
	assert_int_equal(ENTRY_WITH({VMCS_EXIT_CONTROLS, load}, {VMCS_HOST_EFER, wide | EFER_NXE | EFER_SCE}),
			 0);
	assert_int_equal(ENTRY_WITH({VMCS_EXIT_CONTROLS, load}, {VMCS_HOST_EFER, 0}), HOST);
	assert_int_equal(ENTRY_WITH({VMCS_EXIT_CONTROLS, load}, {VMCS_HOST_EFER, EFER_LMA}), HOST);
	assert_int_equal(ENTRY_WITH({VMCS_EXIT_CONTROLS, load}, {VMCS_HOST_EFER, EFER_LME}), HOST);
	assert_int_equal(ENTRY_WITH({VMCS_EXIT_CONTROLS, load}, {VMCS_HOST_EFER, wide | 2}), HOST);
}

static void host_of_64_bits(void **state)
{
	(void)state;
	assert_int_equal(ENTRY_WITH({VMCS_HOST_SS, 0}), 0);
	assert_int_equal(ENTRY_WITH({VMCS_HOST_TR, 0}), HOST);
	assert_int_equal(ENTRY_WITH({VMCS_HOST_ES, 4}), HOST);
	assert_int_equal(ENTRY_WITH({VMCS_HOST_FS, 0}), 0);
	assert_int_equal(ENTRY_WITH({VMCS_HOST_RIP, 1ull << 32}), 0);
	assert_int_equal(ENTRY_WITH({VMCS_HOST_CR4, CR4_VMXE | CR4_PAE | CR4_PCIDE}), 0);
	assert_int_equal(ENTRY_WITH({VMCS_HOST_CR4, CR4_VMXE | CR4_PAE | CR4_SMXE}), HOST); /* not offered */
	assert_int_equal(ENTRY_WITH({VMCS_HOST_CR4, CR4_PAE}), HOST);
	assert_int_equal(ENTRY_WITH({VMCS_HOST_CR0, 1ull << 32 | CR0_PE | CR0_NE | CR0_PG}), HOST);
}

/* A guest hypervisor in 32-bit protected mode. */
static uint64_t narrow_with(uint32_t field, uint64_t value)
{
	start(true, 1);
	prepare();
	fake_put(VMCS_GUEST_EFER, 0);
	region_set(&vcpu, VMCS_EXIT_CONTROLS, VMX_EXIT_DEFAULT1);
	region_set(&vcpu, (enum vmcs_field)field, value);
	launch();
	return vcpu.vmx->nested.running ? 0 : region_get(&vcpu, VMCS_INSTRUCTION_ERROR);
}

static void host_of_32_bits(void **state)
{
	(void)state;
	assert_int_equal(narrow_with(VMCS_HOST_RIP, 0xffffffff), 0);
	assert_int_equal(narrow_with(VMCS_HOST_CR4, CR4_VMXE), 0);
	assert_int_equal(narrow_with(VMCS_HOST_RIP, 1ull << 32), HOST);
	assert_int_equal(narrow_with(VMCS_HOST_SS, 0), HOST);
	assert_int_equal(narrow_with(VMCS_HOST_CR4, CR4_VMXE | CR4_PCIDE), HOST);
	assert_int_equal(narrow_with(VMCS_ENTRY_CONTROLS, VMX_ENTRY_DEFAULT1 | VMX_ENTRY_IA32E), HOST);
	assert_int_equal(narrow_with(VMCS_EXIT_CONTROLS, EXIT_WIDE), HOST);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(only_what_is_nested_is_offered, setup),
		cmocka_unit_test(entry_is_checked),
		cmocka_unit_test_setup(lists_are_checked, setup),
		cmocka_unit_test_setup(structures_are_checked, setup),
		cmocka_unit_test_setup(host_efer, setup),
		cmocka_unit_test_setup(host_of_64_bits, setup),
		cmocka_unit_test_setup(host_of_32_bits, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
