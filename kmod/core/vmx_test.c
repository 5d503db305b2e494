/* vmx_test.c: the core over VT-x, on the made-up hardware of kmod/test. */
#include "kmod/test/vmx_rig.h"

/* ---- is it here? ---- */

static void probes(void **state)
{
	(void)state;
	fake_reset(CORE_VMX);
	fake_msr(MSR_FEATURE_CONTROL, FEATURE_CONTROL_LOCK, 0);
	assert_non_null(strstr(vmx_missing(), "FEATURE_CONTROL"));
	fake_reset(CORE_VMX);
	fake_msr(MSR_VMX_SECONDARY_CTLS, (0xffffffffull & ~VMX2_EPT) << 32, 0);
	assert_non_null(strstr(vmx_missing(), "EPT"));
	fake_reset(CORE_VMX);
	assert_null(vmx_missing());
}

/* ---- exits that are the core's ---- */

static void cpuid_hides(void **state)
{
	(void)state;
	start(false, 1);
	vcpu.gpr[RAX] = 1;
	exits(VMX_EXIT_CPUID, 0);
	assert_int_equal(vcpu.gpr[RCX] >> 5 & 1, 0);
	assert_int_equal(vcpu.rip, CODE + 3);
	start(true, 1);
	vcpu.gpr[RAX] = 1;
	exits(VMX_EXIT_CPUID, 0);
	assert_int_equal(vcpu.gpr[RCX] >> 5 & 1, 1);
}

static void msr_exits(void **state)
{
	(void)state;
	vcpu.gpr[RCX] = MSR_VMX_BASIC;
	exits(VMX_EXIT_RDMSR, 0);
	assert_int_equal((uint32_t)vcpu.gpr[RAX], 0x1234);
	assert_int_equal(vcpu.gpr[RDX] & VMX_BASIC_DUAL_MONITOR >> 32, 0);
	exits(VMX_EXIT_WRMSR, 0);
	assert_int_equal(injected(), exception(VECTOR_GP));
	assert_int_equal(vcpu.rip, CODE + 3);
	vcpu.gpr[RCX] = 0x12345;
	exits(VMX_EXIT_RDMSR, 0);
	assert_int_equal(injected(), exception(VECTOR_GP));
	assert_true(fake_get(VMCS_GUEST_RFLAGS) & RFLAGS_RF);
}

/* Without nesting there is no capability to read. */
static void capabilities_are_hidden(void **state)
{
	(void)state;
	start(false, 1);
	vcpu.gpr[RCX] = MSR_VMX_BASIC;
	exits(VMX_EXIT_RDMSR, 0);
	assert_int_equal(injected(), exception(VECTOR_GP));
}

static void xsetbv_and_invd(void **state)
{
	(void)state;
	vcpu.gpr[RAX] = 1;
	exits(VMX_EXIT_XSETBV, 0);
	assert_int_equal(vcpu.rip, CODE + 3);
	vcpu.gpr[RAX] = 0;
	exits(VMX_EXIT_XSETBV, 0);
	assert_int_equal(injected(), exception(VECTOR_GP));
	exits(VMX_EXIT_INVD, 0);
	assert_int_equal(fake.wbinvd, 1);
}

/* CR0.NE is the processor's: the guest sees what it wants, and nothing changes where its MOV faults. */
static void fixed_bits(void **state)
{
	uint64_t wanted = CR0_PE | CR0_ET;

	(void)state;
	assert_int_equal(vmx_guest_cr(vcpu.vmx, 0) & CR0_NE, 0);
	assert_true(fake_get(VMCS_GUEST_CR0) & CR0_NE);
	vcpu.gpr[RDX] = wanted | CR0_NE;
	exits(VMX_EXIT_CR_ACCESS, RDX << 8);
	assert_true(fake_get(VMCS_CR0_SHADOW) & CR0_NE);
	assert_true(fake_get(VMCS_PRIMARY_CONTROLS) & VMX_MONITOR_TRAP_FLAG);
	exits(VMX_EXIT_MONITOR_TRAP_FLAG, 0); /* not behind it: it faulted */
	assert_false(fake_get(VMCS_CR0_SHADOW) & CR0_NE);
	exits(VMX_EXIT_CR_ACCESS, RDX << 8);
	vcpu.rip += 3;
	exits(VMX_EXIT_MONITOR_TRAP_FLAG, 0);
	assert_true(fake_get(VMCS_CR0_SHADOW) & CR0_NE);
	assert_false(fake_get(VMCS_PRIMARY_CONTROLS) & VMX_MONITOR_TRAP_FLAG);
}

static void failures(void **state)
{
	(void)state;
	assert_true(fake_catches(exits(VMX_EXIT_TRIPLE_FAULT, 0)));
	assert_true(fake.shut_down);
	start(true, 1);
	assert_true(fake_catches(exits(VMX_EXIT_ENTRY_GUEST_STATE | VMX_EXIT_ENTRY_FAILURE, 0)));
	assert_non_null(strstr(fake.stopped, "refuses"));
	start(true, 1);
	assert_true(fake_catches(exits(VMX_EXIT_HLT, 0)));
	assert_non_null(strstr(fake.stopped, "nobody asked"));
	start(true, 1);
	assert_true(fake_catches(violation(FAKE_HIDDEN, EPT_VIOLATION_READ, 0)));
	assert_non_null(strstr(fake.stopped, "hypervisor's memory"));
	start(true, 1);
	fake_refuse(VMX_ERROR_ENTRY_CONTROLS);
	assert_true(fake_catches(exits(VMX_EXIT_CPUID, 0)));
	assert_non_null(strstr(fake.stopped, "entry fails"));
	start(true, 1);
	fake_lacks(VMCS_GUEST_RSP);
	assert_true(fake_catches(exits(VMX_EXIT_CPUID, 0)));
	assert_non_null(strstr(fake.stopped, "VMWRITE"));
}

/* ---- memory ---- */

static void memory_is_identity(void **state)
{
	(void)state;
	assert_int_equal(entry_at(vcpu.tables, 0x1200000, 1) & ~0xfffull, 0x1200000);
	assert_int_equal(entry_at(vcpu.tables, 0x1200000, 1) >> EPT_TYPE_SHIFT & 7, 6);
	assert_int_equal(entry_at(vcpu.tables, FAKE_HIDDEN, 1), 0);
	next.error = 0;
	violation(0x80000000ull, EPT_VIOLATION_WRITE, exception(VECTOR_PF));
	assert_int_equal(entry_at(vcpu.tables, 0x80000000ull, 1) & ~0xfffull, 0x80000000ull);
	assert_int_equal(entry_at(vcpu.tables, 0x80000000ull, 1) >> EPT_TYPE_SHIFT & 7, 0); /* a device's */
	assert_int_equal(injected(), exception(VECTOR_PF));
}

/* ---- events ---- */

/* What a violation interrupts comes again, as it was. */
static void events_come_again(void **state)
{
	uint64_t soft = 0x80 | VMX_EVENT_SOFTWARE_INTERRUPT << VMX_EVENT_TYPE_SHIFT | VMX_EVENT_VALID;
	uint64_t nmi = VECTOR_NMI | VMX_EVENT_NMI << VMX_EVENT_TYPE_SHIFT | VMX_EVENT_VALID;

	(void)state;
	fake_put(VMCS_IDT_VECTORING_ERROR, 0x18);
	violation(0x80000000ull, EPT_VIOLATION_READ, exception(VECTOR_GP));
	assert_int_equal(injected(), exception(VECTOR_GP));
	assert_int_equal(fake_get(VMCS_ENTRY_EXCEPTION_ERROR), 0x18);
	violation(0x80200000ull, EPT_VIOLATION_READ, soft);
	assert_int_equal(injected(), soft);
	assert_int_equal(fake_get(VMCS_ENTRY_INSTRUCTION_LENGTH), 3);
	fake_put(VMCS_GUEST_INTERRUPTIBILITY, VMX_BLOCKING_NMI);
	violation(0x80400000ull, EPT_VIOLATION_READ, nmi);
	assert_int_equal(injected(), nmi);
	assert_int_equal(fake_get(VMCS_GUEST_INTERRUPTIBILITY) & VMX_BLOCKING_NMI, 0);
	/* Nothing was being delivered: IRET, which has unblocked NMIs, is executed again. */
	violation(0x80600000ull, EPT_VIOLATION_READ | EPT_VIOLATION_NMI_UNBLOCKED, 0);
	assert_true(fake_get(VMCS_GUEST_INTERRUPTIBILITY) & VMX_BLOCKING_NMI);
	assert_false(injected() & VMX_EVENT_VALID);
}

static void raise(uint64_t interrupted, unsigned vector)
{
	fake_put(VMCS_IDT_VECTORING_INFO, interrupted);
	fake_put(VMCS_ENTRY_INTERRUPTION_INFO, 0);
	vmx_raise_upon(&vcpu, vector, 0x18);
}

static void double_faults(void **state)
{
	(void)state;
	raise(exception(VECTOR_NP), VECTOR_GP);
	assert_int_equal(injected(), exception(VECTOR_DF));
	assert_int_equal(fake_get(VMCS_ENTRY_EXCEPTION_ERROR), 0);
	raise(exception(VECTOR_PF), VECTOR_PF);
	assert_int_equal(injected(), exception(VECTOR_DF));
	raise(exception(VECTOR_UD), VECTOR_GP);
	assert_int_equal(injected(), exception(VECTOR_GP));
	assert_int_equal(fake_get(VMCS_ENTRY_EXCEPTION_ERROR), 0x18);
	raise(exception(VECTOR_GP), VECTOR_PF);
	assert_int_equal(injected(), exception(VECTOR_PF));
	raise(0x80 | VMX_EVENT_VALID, VECTOR_GP);
	assert_int_equal(injected(), exception(VECTOR_GP));
	assert_true(fake_catches(raise(exception(VECTOR_DF), VECTOR_GP)));
	assert_true(fake.shut_down);
}

/* One that has come to the hypervisor goes to the guest, when it may. */
static void nmi_is_brought(void **state)
{
	uint64_t nmi = VECTOR_NMI | VMX_EVENT_NMI << VMX_EVENT_TYPE_SHIFT | VMX_EVENT_VALID;

	(void)state;
	fake.nmi = true;
	fake_put(VMCS_GUEST_INTERRUPTIBILITY, VMX_BLOCKING_NMI);
	exits(VMX_EXIT_MONITOR_TRAP_FLAG, 0);
	assert_true(vcpu.vmx->nmi);
	fake_put(VMCS_GUEST_INTERRUPTIBILITY, 0);
	fake_put(VMCS_ENTRY_INTERRUPTION_INFO, exception(VECTOR_UD));
	exits(VMX_EXIT_MONITOR_TRAP_FLAG, 0); /* behind that */
	assert_true(vcpu.vmx->nmi);
	next.reason = VMX_EXIT_MONITOR_TRAP_FLAG;
	fake.guest = NULL;
	assert_true(fake_catches(vmx_run(&vcpu))); /* looks before the entry */
	assert_int_equal(injected(), nmi);
	assert_false(vcpu.vmx->nmi);
}

/* ---- the record ---- */

static void call(uint32_t which, uint64_t rbx, uint64_t rdx)
{
	vcpu.gpr[RAX] = L1_LEAF;
	vcpu.gpr[RCX] = which;
	vcpu.gpr[RBX] = rbx;
	vcpu.gpr[RDX] = rdx;
	exits(VMX_EXIT_CPUID, 0);
}

static void record(void **state)
{
	(void)state;
	call(L1_CALL_BEGIN, 0x10000, 4);
	assert_false(entry_at(vcpu.tables, 0x10000, 0) & EPT_EXECUTE);
	vcpu.rip = 0x10000;
	violation(0x10000, EPT_VIOLATION_FETCH, 0);
	assert_true(entry_at(vcpu.tables, 0x10000, 0) & EPT_EXECUTE);
	assert_true(fake_get(VMCS_PRIMARY_CONTROLS) & VMX_HLT);
	vcpu.rip = 0x10001;
	exits(VMX_EXIT_HLT, 0);
	assert_non_null(strstr(fake.log, "armed vmx controls=0x"));
	assert_non_null(strstr(fake.log, "\nexit vmx=0xc at=0x1\n"));
	assert_int_equal(vcpu.rip, 0x10001);
	assert_false(fake_get(VMCS_PRIMARY_CONTROLS) & VMX_HLT);
	assert_true(fake_get(VMCS_PRIMARY_CONTROLS) & VMX_RDTSC);
	vcpu.rip = 0x10008;
	exits(VMX_EXIT_RDTSC, 0);
	assert_false(fake_get(VMCS_PRIMARY_CONTROLS) & VMX_RDTSC);
	assert_null(strstr(fake.log, "vmx=0x10"));
}

/* ---- the local APIC ---- */

static void sipi_is_redirected(void **state)
{
	(void)state;
	start(true, 2);
	violation(FAKE_APIC + 0x300, EPT_VIOLATION_WRITE, 0);
	assert_true(vcpu.step.on);
	assert_true(fake_get(VMCS_PRIMARY_CONTROLS) & VMX_MONITOR_TRAP_FLAG);
	*(uint32_t *)hw_map(FAKE_APIC + 0x310) = 3u << 24;
	*(uint32_t *)(void *)(vcpu.step.page + 0x300) = 0x4608;
	exits(VMX_EXIT_MONITOR_TRAP_FLAG, 0);
	assert_int_equal(*(uint32_t *)hw_map(FAKE_APIC + 0x300), 0x469f);
	assert_int_equal(machine.startup_vector[3], 8);
	assert_false(fake_get(VMCS_PRIMARY_CONTROLS) & VMX_MONITOR_TRAP_FLAG);
	/* The write faults instead. */
	violation(FAKE_APIC + 0x300, EPT_VIOLATION_WRITE, 0);
	*(uint32_t *)(void *)(vcpu.step.page + 0x300) = 0x4609;
	memset(&next, 0, sizeof(next));
	next.reason = VMX_EXIT_EXCEPTION_NMI;
	next.event = exception(VECTOR_PF);
	next.error = 2;
	next.qualification = 0x7000;
	enter();
	assert_int_equal(machine.startup_vector[3], 8);
	assert_int_equal(fake.cr2, 0x7000);
	assert_int_equal(injected(), exception(VECTOR_PF));
}

/* The length is that of the instruction, and goes with events that are one's own doing alone. */
static void lengths_of_events(void **state)
{
	static const struct {
		unsigned type;
		bool told;
	} row[] = {{VMX_EVENT_EXCEPTION, false},
		   {VMX_EVENT_SOFTWARE_INTERRUPT, true},
		   {5, true},
		   {VMX_EVENT_SOFTWARE_EXCEPTION, true},
		   {0, false}};

	(void)state;
	for (unsigned i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
		start(true, 1);
		violation(0x80000000ull, EPT_VIOLATION_READ,
			  0x80 | row[i].type << VMX_EVENT_TYPE_SHIFT | VMX_EVENT_VALID);
		assert_int_equal(fake_get(VMCS_ENTRY_INSTRUCTION_LENGTH), row[i].told ? 3 : 0);
	}
	raise(exception(VECTOR_PF), VECTOR_GP);
	assert_int_equal(injected(), exception(VECTOR_DF));
	raise(exception(VECTOR_PF), VECTOR_UD);
	assert_int_equal(injected(), exception(VECTOR_UD));
}

/* RIP has 32 bits outside of 64-bit mode. */
static void widths_of_rip(void **state)
{
	(void)state;
	vcpu.rip = 0xffffffff;
	exits(VMX_EXIT_INVD, 0);
	assert_int_equal(vcpu.rip, 2);
	fake_put(VMCS_GUEST_EFER, EFER_LMA | EFER_LME); /* compatibility mode */
	vcpu.rip = 0xffffffff;
	exits(VMX_EXIT_INVD, 0);
	assert_int_equal(vcpu.rip, 2);
	fake_put(VMCS_GUEST_CS_RIGHTS, fake_get(VMCS_GUEST_CS_RIGHTS) | SEG_L);
	vcpu.rip = 0xffffffff;
	exits(VMX_EXIT_INVD, 0);
	assert_int_equal(vcpu.rip, 0x100000002);
	fake_put(VMCS_GUEST_EFER, 0);
	vcpu.rip = 0xffffffff;
	exits(VMX_EXIT_INVD, 0);
	assert_int_equal(vcpu.rip, 2);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(probes),
		cmocka_unit_test(cpuid_hides),
		cmocka_unit_test_setup(msr_exits, setup),
		cmocka_unit_test(capabilities_are_hidden),
		cmocka_unit_test_setup(xsetbv_and_invd, setup),
		cmocka_unit_test_setup(fixed_bits, setup),
		cmocka_unit_test_setup(failures, setup),
		cmocka_unit_test_setup(memory_is_identity, setup),
		cmocka_unit_test_setup(events_come_again, setup),
		cmocka_unit_test_setup(double_faults, setup),
		cmocka_unit_test_setup(nmi_is_brought, setup),
		cmocka_unit_test_setup(record, setup),
		cmocka_unit_test(sipi_is_redirected),
		cmocka_unit_test_setup(lengths_of_events, setup),
		cmocka_unit_test_setup(widths_of_rip, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
