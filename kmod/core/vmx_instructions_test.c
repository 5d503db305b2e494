/* vmx_instructions_test.c: VMXON and its kin of a guest that is a hypervisor. */
#include "kmod/test/vmx_rig.h"

static void vmxon_conditions(void **state)
{
	(void)state;
	execute(VMX_EXIT_VMXON, ON, 0); /* without CR4.VMXE */
	assert_int_equal(injected(), exception(VECTOR_UD));
	long_mode();
	execute(VMX_EXIT_VMPTRLD, INNER, 0); /* outside of VMX operation */
	assert_int_equal(injected(), exception(VECTOR_UD));
	execute(VMX_EXIT_VMXON, ON, 0); /* without paging */
	assert_int_equal(injected(), exception(VECTOR_GP));
	fake_put(VMCS_GUEST_SS_RIGHTS, fake_get(VMCS_GUEST_SS_RIGHTS) | SEG_DPL);
	execute(VMX_EXIT_VMXON, ON, 0);
	assert_int_equal(injected(), exception(VECTOR_GP));
}

static void instructions(void **state)
{
	(void)state;
	operate();
	assert_int_equal(execute(VMX_EXIT_VMXON, ON, 0), ZF);
	assert_int_equal(region_get(&vcpu, VMCS_INSTRUCTION_ERROR), VMX_ERROR_VMXON_IN_ROOT);
	assert_int_equal(execute(VMX_EXIT_VMPTRLD, ON, 0), ZF);
	assert_int_equal(region_get(&vcpu, VMCS_INSTRUCTION_ERROR), VMX_ERROR_VMPTRLD_VMXON_POINTER);
	assert_int_equal(execute(VMX_EXIT_VMPTRLD, INNER + 8, 0), ZF);
	assert_int_equal(region_get(&vcpu, VMCS_INSTRUCTION_ERROR), VMX_ERROR_VMPTRLD_ADDRESS);
	assert_int_equal(execute(VMX_EXIT_VMPTRLD, FAKE_HIDDEN, 0), ZF);
	assert_int_equal(execute(VMX_EXIT_VMPTRLD, 0x70000, 0), ZF);
	assert_int_equal(region_get(&vcpu, VMCS_INSTRUCTION_ERROR), VMX_ERROR_VMPTRLD_REVISION);
	assert_int_equal(execute(VMX_EXIT_VMCLEAR, ON, 0), ZF);
	assert_int_equal(region_get(&vcpu, VMCS_INSTRUCTION_ERROR), VMX_ERROR_VMCLEAR_VMXON_POINTER);
	assert_int_equal(field_write(VMCS_GUEST_RIP, 0x123456789), 0);
	assert_int_equal(field_read(VMCS_GUEST_RIP), 0x123456789);
	assert_int_equal(field_write(VMCS_GUEST_ES, 0x12345), 0);
	assert_int_equal(field_read(VMCS_GUEST_ES), 0x2345);
	assert_int_equal(field_write(VMCS_HIGH(VMCS_EPTP), 7), 0);
	assert_int_equal(field_read(VMCS_EPTP), 7ull << 32);
	assert_int_equal(field_write(VMCS_EXIT_REASON, 1), ZF);
	assert_int_equal(region_get(&vcpu, VMCS_INSTRUCTION_ERROR), VMX_ERROR_READ_ONLY_FIELD);
	assert_int_equal(field_write(VMCS_PML_ADDRESS, 0), ZF); /* not offered */
	assert_int_equal(region_get(&vcpu, VMCS_INSTRUCTION_ERROR), VMX_ERROR_UNSUPPORTED_FIELD);
	assert_int_equal(execute(VMX_EXIT_VMCLEAR, INNER, 0), 0);
	assert_int_equal(field_write(VMCS_GUEST_RIP, 1), CF); /* no current VMCS */
	exits(VMX_EXIT_VMLAUNCH, 0);
	assert_true(fake_get(VMCS_GUEST_RFLAGS) & CF);
	exits(VMX_EXIT_VMXOFF, 0);
	assert_false(vcpu.vmx->nested.on);
}

static void invalidations(void **state)
{
	(void)state;
	operate();
	vcpu.gpr[RBX] = INVEPT_ALL;
	assert_int_equal(execute(VMX_EXIT_INVEPT, 0, RBX), 0);
	vcpu.gpr[RBX] = 3;
	assert_int_equal(execute(VMX_EXIT_INVEPT, 0, RBX), ZF);
	vcpu.gpr[RBX] = INVEPT_CONTEXT;
	assert_int_equal(execute(VMX_EXIT_INVEPT, EPT, RBX), ZF); /* of no walk length */
	vcpu.gpr[RBX] = INVVPID_CONTEXT;
	assert_int_equal(execute(VMX_EXIT_INVVPID, 0, RBX), ZF);
	assert_int_equal(region_get(&vcpu, VMCS_INSTRUCTION_ERROR), VMX_ERROR_INVALIDATION_OPERAND);
	assert_int_equal(execute(VMX_EXIT_INVVPID, 1, RBX), 0);
	assert_true(vcpu.vmx->nested.flush);
}

/* The operand's faults are the processor's to find elsewhere, and ours here. */
static void operands_fault(void **state)
{
	(void)state;
	operate();
	fake_put(VMCS_EXIT_INSTRUCTION_INFO, 2u << 7 | 3u << 15 | 1u << 22 | 1u << 27);
	exits(VMX_EXIT_VMPTRST, 1ull << 50);
	assert_int_equal(injected(), exception(VECTOR_GP));
	fake_put(VMCS_EXIT_INSTRUCTION_INFO, 2u << 7 | 2u << 15 | 1u << 22 | 1u << 27);
	exits(VMX_EXIT_VMPTRST, 1ull << 50);
	assert_int_equal(injected(), exception(VECTOR_SS));
	fake_put(VMCS_EXIT_INSTRUCTION_INFO, 2u << 7 | 3u << 15 | 1u << 22 | 1u << 27);
	exits(VMX_EXIT_VMPTRST, 0x40000000);
	assert_int_equal(injected(), exception(VECTOR_PF));
	assert_int_equal(fake_get(VMCS_ENTRY_EXCEPTION_ERROR), PF_W);
	assert_int_equal(fake.cr2, 0x40000000);
	/* A user's page, with SMAP. */
	*fake_quad(0x61000) |= PTE_U;
	vmx_set_guest_cr(vcpu.vmx, 4, CR4_VMXE | CR4_PAE | CR4_SMAP);
	exits(VMX_EXIT_VMPTRST, OPERAND);
	assert_int_equal(fake_get(VMCS_ENTRY_EXCEPTION_ERROR), PF_P | PF_W);
	fake_put(VMCS_GUEST_RFLAGS, RFLAGS_FIXED | RFLAGS_AC);
	exits(VMX_EXIT_VMPTRST, OPERAND);
	assert_int_equal(*fake_quad(OPERAND), INNER);
	/* A read-only one, with CR0.WP. */
	*fake_quad(0x61000) &= ~(PTE_U | PTE_W);
	exits(VMX_EXIT_VMPTRST, OPERAND);
	assert_false(injected() & VMX_EVENT_VALID);
	vmx_set_guest_cr(vcpu.vmx, 0, CR0_PE | CR0_NE | CR0_ET | CR0_PG | CR0_WP);
	exits(VMX_EXIT_VMPTRST, OPERAND);
	assert_int_equal(fake_get(VMCS_ENTRY_EXCEPTION_ERROR), PF_P | PF_W);
}

/* For the processor it is an exit in any mode. */
static void vmcall_in_root_operation(void **state)
{
	uint64_t rights;

	(void)state;
	operate();
	rights = fake_get(VMCS_GUEST_CS_RIGHTS);
	exits(VMX_EXIT_VMCALL, 0);
	assert_true(fake_get(VMCS_GUEST_RFLAGS) & ZF);
	assert_int_equal(region_get(&vcpu, VMCS_INSTRUCTION_ERROR), VMX_ERROR_VMCALL_IN_ROOT);
	fake_put(VMCS_GUEST_CS_RIGHTS, rights & ~(uint64_t)SEG_L); /* compatibility mode */
	exits(VMX_EXIT_VMCALL, 0);
	assert_int_equal(injected(), exception(VECTOR_UD));
	fake_put(VMCS_GUEST_EFER, 0);
	exits(VMX_EXIT_VMCALL, 0);
	assert_false(injected() & VMX_EVENT_VALID);
	fake_put(VMCS_GUEST_RFLAGS, RFLAGS_FIXED | RFLAGS_VM);
	fake_put(VMCS_GUEST_SS_RIGHTS, fake_get(VMCS_GUEST_SS_RIGHTS) | SEG_DPL);
	exits(VMX_EXIT_VMCALL, 0);
	assert_int_equal(injected(), exception(VECTOR_UD));
	fake_put(VMCS_GUEST_RFLAGS, RFLAGS_FIXED);
	exits(VMX_EXIT_VMCALL, 0);
	assert_int_equal(injected(), exception(VECTOR_GP));
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(vmxon_conditions, setup),
		cmocka_unit_test_setup(instructions, setup),
		cmocka_unit_test_setup(invalidations, setup),
		cmocka_unit_test_setup(operands_fault, setup),
		cmocka_unit_test_setup(vmcall_in_root_operation, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
