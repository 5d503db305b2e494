/* vmx_nested_test.c: entries and exits of a guest's guest, MSR lists, VMX operation. */
#include "kmod/test/vmx_rig.h"

static void processor_refuses(void **state)
{
	uint64_t rip;

	(void)state;
	prepare();
	rip = vcpu.rip;
	launch();
	assert_true(vcpu.vmx->nested.running);
	fake_refuse(VMX_ERROR_ENTRY_CONTROLS);
	enter();
	assert_false(vcpu.vmx->nested.running);
	assert_int_equal(region_get(&vcpu, VMCS_INSTRUCTION_ERROR), VMX_ERROR_ENTRY_CONTROLS);
	assert_int_equal(vcpu.rip, rip + 3); /* behind its VMLAUNCH */
	launch();
	exits(VMX_EXIT_ENTRY_GUEST_STATE | VMX_EXIT_ENTRY_FAILURE, 3);
	assert_false(vcpu.vmx->nested.running);
	assert_int_equal(reason(), VMX_EXIT_ENTRY_GUEST_STATE | VMX_EXIT_ENTRY_FAILURE);
	assert_int_equal(region_get(&vcpu, VMCS_EXIT_QUALIFICATION), 3);
	assert_int_equal(*region_launched(INNER), 0);
	assert_int_equal(vcpu.rip, 0xc000);
}

static void controls_are_merged(void **state)
{
	(void)state;
	prepare();
	region_set(&vcpu, VMCS_PRIMARY_CONTROLS, region_get(&vcpu, VMCS_PRIMARY_CONTROLS) | VMX_HLT);
	region_set(&vcpu, VMCS_EXCEPTION_BITMAP, 1u << VECTOR_UD);
	region_set(&vcpu, VMCS_CR0_MASK, CR0_TS);
	region_set(&vcpu, VMCS_ENTRY_INTERRUPTION_INFO, exception(VECTOR_UD));
	launch();
	assert_int_equal(fake_vmcs(), hw_physical(vcpu.vmx->nested.vmcs));
	assert_true(fake_get(VMCS_PRIMARY_CONTROLS) & VMX_HLT);
	assert_true(fake_get(VMCS_SECONDARY_CONTROLS) & VMX2_EPT);
	assert_int_equal(fake_get(VMCS_EXCEPTION_BITMAP), 1u << VECTOR_UD);
	assert_int_equal(fake_get(VMCS_CR0_MASK), CR0_TS);
	assert_int_equal(injected(), exception(VECTOR_UD));
	assert_int_equal(vcpu.rip, 0x7000);
	assert_int_equal(fake_get(VMCS_EPTP), vmx_eptp(vcpu.vmx->nested.shadow.page[0]));
}

static void exits_are_reflected(void **state)
{
	(void)state;
	prepare();
	launch();
	fake_put(VMCS_GUEST_CR3, 0x77000);
	memset(&next, 0, sizeof(next));
	next.reason = VMX_EXIT_CR_ACCESS;
	next.qualification = 0x203;
	next.interrupted = exception(VECTOR_PF);
	enter();
	assert_false(vcpu.vmx->nested.running);
	assert_int_equal(fake_vmcs(), hw_physical(vcpu.vmx->vmcs));
	assert_int_equal(reason(), VMX_EXIT_CR_ACCESS);
	assert_int_equal(region_get(&vcpu, VMCS_EXIT_QUALIFICATION), 0x203);
	assert_int_equal(region_get(&vcpu, VMCS_IDT_VECTORING_INFO), exception(VECTOR_PF));
	assert_int_equal(region_get(&vcpu, VMCS_GUEST_CR3), 0x77000);
	assert_int_equal(region_get(&vcpu, VMCS_GUEST_RIP), 0x7000);
	assert_int_equal(*region_launched(INNER), 1);
	assert_int_equal(vcpu.rip, 0xc000);
	assert_int_equal(vcpu.gpr[RSP], 0xd000);
	assert_int_equal(fake_get(VMCS_GUEST_RFLAGS), RFLAGS_FIXED);
	assert_true(fake_get(VMCS_GUEST_EFER) & EFER_LMA);
	assert_int_equal(fake_get(VMCS_GUEST_TR), 8);
	launch();
	assert_int_equal(region_get(&vcpu, VMCS_INSTRUCTION_ERROR), VMX_ERROR_VMLAUNCH_NOT_CLEAR);
}

static void msr_permissions_are_merged(void **state)
{
	const uint8_t *merged, *theirs = fake_memory(BITMAP);
	unsigned bit;

	(void)state;
	prepare();
	assert_true(vmx_msr_bit(MSR_STAR, true, &bit));
	((uint8_t *)fake_memory(BITMAP))[bit / 8] = (uint8_t)(1u << bit % 8);
	launch();
	merged = fake_memory(fake_get(VMCS_MSR_BITMAP));
	for (unsigned i = 0; i < CORE_PAGE; i++)
		assert_int_equal(merged[i], vcpu.vmx->msr_bitmap[i] | theirs[i]);
	vcpu.gpr[RCX] = MSR_VMX_BASIC; /* ours */
	exits(VMX_EXIT_RDMSR, 0);
	assert_true(vcpu.vmx->nested.running);
	vcpu.gpr[RCX] = MSR_STAR;
	exits(VMX_EXIT_WRMSR, 0);
	assert_false(vcpu.vmx->nested.running);
	assert_int_equal(reason(), VMX_EXIT_WRMSR);
}

static void ports_are_the_guests(void **state)
{
	(void)state;
	prepare();
	region_set(&vcpu, VMCS_PRIMARY_CONTROLS,
		   region_get(&vcpu, VMCS_PRIMARY_CONTROLS) | VMX_USE_IO_BITMAPS);
	region_set(&vcpu, VMCS_IO_BITMAP_A, 0x70000);
	region_set(&vcpu, VMCS_IO_BITMAP_B, 0x71000);
	launch();
	assert_int_equal(fake_get(VMCS_IO_BITMAP_A), 0x70000);
	assert_int_equal(fake_get(VMCS_IO_BITMAP_B), 0x71000);
	assert_true(fake_get(VMCS_PRIMARY_CONTROLS) & VMX_USE_IO_BITMAPS);
}

/* ---- lists of MSRs ---- */

static void msr_lists(void **state)
{
	(void)state;
	prepare();
	put_msr(0, MSR_SYSENTER_ESP, 0);
	put_msr(1, MSR_TSC, 0);
	put_msr(2, MSR_PAT, 0x0606060606060606);
	region_set(&vcpu, VMCS_EXIT_MSR_STORE, LIST);
	region_set(&vcpu, VMCS_EXIT_MSR_STORE_COUNT, 2);
	region_set(&vcpu, VMCS_EXIT_MSR_LOAD, LIST + 32);
	region_set(&vcpu, VMCS_EXIT_MSR_LOAD_COUNT, 1);
	region_set(&vcpu, VMCS_ENTRY_MSR_LOAD, LIST + 32);
	region_set(&vcpu, VMCS_ENTRY_MSR_LOAD_COUNT, 1);
	region_set(&vcpu, VMCS_GUEST_SYSENTER_ESP, 0x5555);
	launch();
	assert_int_equal(fake_get(VMCS_ENTRY_MSR_LOAD), LIST + 32); /* the processor does it, once */
	assert_int_equal(fake_get(VMCS_ENTRY_MSR_LOAD_COUNT), 1);
	violation(0x3000, EPT_VIOLATION_READ, 0);
	assert_int_equal(fake_get(VMCS_ENTRY_MSR_LOAD_COUNT), 0);
	exits(VMX_EXIT_HLT, 0);
	assert_int_equal(*fake_quad(LIST + 8), 0x5555);
	assert_int_equal(*fake_quad(LIST + 24), 0x1000);
	assert_int_equal(fake_msr_value(MSR_PAT), 0x0606060606060606);
	/* One that cannot be stored, or loaded, is the end. */
	put_msr(1, 0x12345, 0);
	exits(VMX_EXIT_VMRESUME, 0);
	assert_true(fake_catches(exits(VMX_EXIT_HLT, 0)));
	assert_true(fake.shut_down);
	assert_int_equal(((uint32_t *)fake_memory(INNER))[1], VMX_ABORT_SAVING_MSRS);
}

/* ---- VMX operation ---- */

static void init_waits_for_vmxoff(void **state)
{
	(void)state;
	operate();
	exits(VMX_EXIT_INIT, 0);
	assert_true(vcpu.vmx->nested.init);
	assert_true(vcpu.vmx->nested.on);
	exits(VMX_EXIT_VMXOFF, 0);
	assert_false(vcpu.vmx->nested.on);
	assert_int_equal(fake_get(VMCS_GUEST_ACTIVITY), VMX_WAIT_FOR_SIPI);
	machine.startup_vector[0] = 8;
	exits(VMX_EXIT_SIPI, 0x9f);
	assert_int_equal(fake_get(VMCS_GUEST_CS_BASE), 0x8000);
}

static void bits_are_fixed_in_operation(void **state)
{
	(void)state;
	operate();
	assert_true(fake_get(VMCS_CR0_MASK) & CR0_PG);
	vcpu.gpr[RDX] = vmx_guest_cr(vcpu.vmx, 0) & ~(uint64_t)CR0_PG;
	exits(VMX_EXIT_CR_ACCESS, RDX << 8);
	assert_int_equal(injected(), exception(VECTOR_GP));
	exits(VMX_EXIT_VMXOFF, 0);
	assert_false(fake_get(VMCS_CR0_MASK) & CR0_PG);
}

/* An NMI is an exit of the guest's guest where the guest has asked for it. */
static void nmi_is_reflected(void **state)
{
	(void)state;
	prepare();
	region_set(&vcpu, VMCS_PIN_CONTROLS, VMX_PIN_DEFAULT1 | VMX_PIN_NMI);
	launch();
	fake.nmi = true;
	fake.guest = NULL;
	vmx_run(&vcpu); /* no entry */
	assert_false(vcpu.vmx->nested.running);
	assert_int_equal(reason(), VMX_EXIT_EXCEPTION_NMI);
	assert_int_equal(region_get(&vcpu, VMCS_EXIT_INTERRUPTION_INFO) & VMX_EVENT_VECTOR, VECTOR_NMI);
	assert_int_equal(fake_get(VMCS_GUEST_INTERRUPTIBILITY), VMX_BLOCKING_NMI);
}

/* ---- exceptions that we raise for the guest's guest ---- */

/* A #GP for an MSR of ours is an exit where the guest intercepts it, and else its guest's. */
static void exceptions_of_ours_are_reflected(void **state)
{
	(void)state;
	prepare();
	launch();
	vcpu.gpr[RCX] = MSR_FEATURE_CONTROL;
	exits(VMX_EXIT_WRMSR, 0);
	assert_true(vcpu.vmx->nested.running);
	assert_int_equal(injected(), exception(VECTOR_GP));
	exits(VMX_EXIT_HLT, 0);
	region_set(&vcpu, VMCS_EXCEPTION_BITMAP, 1u << VECTOR_GP);
	exits(VMX_EXIT_VMRESUME, 0);
	vcpu.gpr[RCX] = MSR_FEATURE_CONTROL;
	exits(VMX_EXIT_WRMSR, 0);
	assert_false(vcpu.vmx->nested.running);
	assert_int_equal(reason(), VMX_EXIT_EXCEPTION_NMI);
	assert_int_equal(region_get(&vcpu, VMCS_EXIT_INTERRUPTION_INFO), exception(VECTOR_GP));
	assert_int_equal(region_get(&vcpu, VMCS_EXIT_INTERRUPTION_ERROR), 0);
	assert_true(region_get(&vcpu, VMCS_GUEST_RFLAGS) & RFLAGS_RF);
}

static void page_faults_by_error_code(void **state)
{
	(void)state;
	prepare();
	assert_false(vmx_nested_wants(&vcpu, VECTOR_PF, 2)); /* its guest does not run */
	region_set(&vcpu, VMCS_EXCEPTION_BITMAP, 1u << VECTOR_PF);
	region_set(&vcpu, VMCS_PF_ERROR_MASK, 2);
	region_set(&vcpu, VMCS_PF_ERROR_MATCH, 2);
	launch();
	assert_true(vmx_nested_wants(&vcpu, VECTOR_PF, 3));
	assert_false(vmx_nested_wants(&vcpu, VECTOR_PF, 1));
	assert_false(vmx_nested_wants(&vcpu, VECTOR_GP, 1));
	region_set(&vcpu, VMCS_EXCEPTION_BITMAP, 0);
	assert_false(vmx_nested_wants(&vcpu, VECTOR_PF, 3));
	assert_true(vmx_nested_wants(&vcpu, VECTOR_PF, 1));
}

/* On top of the event whose delivery was interrupted: an exit comes before a double fault, and a triple one
 * is an exit. */
static void exceptions_on_top(void **state)
{
	(void)state;
	prepare();
	region_set(&vcpu, VMCS_EXCEPTION_BITMAP, 1u << VECTOR_GP);
	launch();
	fake_put(VMCS_IDT_VECTORING_INFO, exception(VECTOR_NP));
	vmx_raise_upon(&vcpu, VECTOR_GP, 0x18);
	assert_int_equal(reason(), VMX_EXIT_EXCEPTION_NMI);
	assert_int_equal(region_get(&vcpu, VMCS_IDT_VECTORING_INFO), exception(VECTOR_NP));
	assert_int_equal(region_get(&vcpu, VMCS_EXIT_INTERRUPTION_ERROR), 0x18);
	exits(VMX_EXIT_VMRESUME, 0);
	fake_put(VMCS_IDT_VECTORING_INFO, exception(VECTOR_DF));
	vmx_raise_upon(&vcpu, VECTOR_NP, 0x18);
	assert_int_equal(reason(), VMX_EXIT_TRIPLE_FAULT);
	assert_int_equal(region_get(&vcpu, VMCS_IDT_VECTORING_INFO), 0);
	assert_false(vcpu.vmx->nested.running);
}

/* ---- IA32_PAT, the preemption timer, virtual NMIs ---- */

static void or_field(enum vmcs_field field, uint64_t bits)
{
	region_set(&vcpu, field, region_get(&vcpu, field) | bits);
}

/* The processor loads it once; later it is in the register, where the guest's guest may have written it. */
static void pat_is_switched(void **state)
{
	(void)state;
	prepare();
	region_set(&vcpu, VMCS_GUEST_PAT, 0x0404040404040404);
	region_set(&vcpu, VMCS_HOST_PAT, 0x0505050505050505);
	launch();
	violation(0x3000, EPT_VIOLATION_READ, 0);
	assert_false(fake_get(VMCS_ENTRY_CONTROLS) & VMX_ENTRY_LOAD_PAT); /* nobody asks */
	exits(VMX_EXIT_HLT, 0);
	assert_int_equal(region_get(&vcpu, VMCS_GUEST_PAT), 0x0404040404040404);
	assert_int_equal(fake_msr_value(MSR_PAT), 0x0007040600070406);
	or_field(VMCS_ENTRY_CONTROLS, VMX_ENTRY_LOAD_PAT);
	or_field(VMCS_EXIT_CONTROLS, VMX_EXIT_SAVE_PAT | VMX_EXIT_LOAD_PAT);
	exits(VMX_EXIT_VMRESUME, 0);
	violation(0x3000, EPT_VIOLATION_READ, 0);
	assert_true(fake_get(VMCS_ENTRY_CONTROLS) & VMX_ENTRY_LOAD_PAT);
	assert_int_equal(fake_get(VMCS_GUEST_PAT), 0x0404040404040404);
	fake_msr(MSR_PAT, 0x0606060606060606, ~0ull);
	violation(0x3000, EPT_VIOLATION_READ, 0);
	assert_false(fake_get(VMCS_ENTRY_CONTROLS) & VMX_ENTRY_LOAD_PAT);
	exits(VMX_EXIT_HLT, 0);
	assert_int_equal(region_get(&vcpu, VMCS_GUEST_PAT), 0x0606060606060606);
	assert_int_equal(fake_msr_value(MSR_PAT), 0x0505050505050505);
}

static void host_pat_is_checked(void **state)
{
	static const uint8_t types[] = {2, 3, 8, 255};

	(void)state;
	prepare();
	region_set(&vcpu, VMCS_HOST_PAT, ~0ull);
	launch();
	assert_true(vcpu.vmx->nested.running); /* it is not loaded */
	exits(VMX_EXIT_HLT, 0);
	or_field(VMCS_EXIT_CONTROLS, VMX_EXIT_LOAD_PAT);
	for (unsigned byte = 0; byte < 8; byte++) {
		region_set(&vcpu, VMCS_HOST_PAT, (uint64_t)types[byte % 4] << 8 * byte);
		exits(VMX_EXIT_VMRESUME, 0);
		assert_false(vcpu.vmx->nested.running);
		assert_int_equal(region_get(&vcpu, VMCS_INSTRUCTION_ERROR), VMX_ERROR_ENTRY_HOST_STATE);
	}
	region_set(&vcpu, VMCS_HOST_PAT, 0x0706050401000706);
	exits(VMX_EXIT_VMRESUME, 0);
	assert_true(vcpu.vmx->nested.running);
}

/* It goes on behind an exit of ours; the guest is told what is left where it asks for that. */
static void timer_goes_on(void **state)
{
	(void)state;
	prepare();
	region_set(&vcpu, VMCS_PREEMPTION_TIMER, 100);
	launch();
	assert_false(fake_get(VMCS_EXIT_CONTROLS) &
		     VMX_EXIT_SAVE_PREEMPTION_TIMER); /* which would be refused */
	exits(VMX_EXIT_HLT, 0);
	or_field(VMCS_PIN_CONTROLS, VMX_PIN_PREEMPTION_TIMER);
	exits(VMX_EXIT_VMRESUME, 0);
	assert_true(fake_get(VMCS_PIN_CONTROLS) & VMX_PIN_PREEMPTION_TIMER);
	assert_true(fake_get(VMCS_EXIT_CONTROLS) & VMX_EXIT_SAVE_PREEMPTION_TIMER);
	assert_int_equal(fake_get(VMCS_PREEMPTION_TIMER), 100);
	fake_put(VMCS_PREEMPTION_TIMER, 60);
	violation(0x3000, EPT_VIOLATION_READ, 0);
	assert_int_equal(fake_get(VMCS_PREEMPTION_TIMER), 60);
	exits(VMX_EXIT_PREEMPTION_TIMER, 0);
	assert_int_equal(reason(), VMX_EXIT_PREEMPTION_TIMER);
	assert_int_equal(region_get(&vcpu, VMCS_PREEMPTION_TIMER), 100);
	or_field(VMCS_EXIT_CONTROLS, VMX_EXIT_SAVE_PREEMPTION_TIMER);
	exits(VMX_EXIT_VMRESUME, 0);
	fake_put(VMCS_PREEMPTION_TIMER, 40);
	exits(VMX_EXIT_HLT, 0);
	assert_int_equal(region_get(&vcpu, VMCS_PREEMPTION_TIMER), 40);
}

/* What the VMCS says then is of virtual NMIs: others are not blocked, neither in the guest's guest nor behind
 * it. */
static void virtual_nmis(void **state)
{
	(void)state;
	prepare();
	or_field(VMCS_PIN_CONTROLS, VMX_PIN_NMI | VMX_PIN_VIRTUAL_NMIS);
	or_field(VMCS_PRIMARY_CONTROLS, VMX_NMI_WINDOW);
	region_set(&vcpu, VMCS_GUEST_INTERRUPTIBILITY, VMX_BLOCKING_NMI);
	launch();
	assert_true(fake_get(VMCS_PIN_CONTROLS) & VMX_PIN_VIRTUAL_NMIS);
	assert_true(fake_get(VMCS_PRIMARY_CONTROLS) & VMX_NMI_WINDOW);
	exits(VMX_EXIT_NMI_WINDOW, 0);
	assert_int_equal(reason(), VMX_EXIT_NMI_WINDOW);
	assert_int_equal(region_get(&vcpu, VMCS_GUEST_INTERRUPTIBILITY), VMX_BLOCKING_NMI);
	assert_int_equal(fake_get(VMCS_GUEST_INTERRUPTIBILITY), 0);
	exits(VMX_EXIT_VMRESUME, 0);
	fake.nmi = true;
	fake.guest = NULL;
	vmx_run(&vcpu);
	assert_int_equal(reason(), VMX_EXIT_EXCEPTION_NMI);
	assert_int_equal(fake_get(VMCS_GUEST_INTERRUPTIBILITY), VMX_BLOCKING_NMI);
}

/* Without them the bit is the processor's: it goes over, and an NMI's own exit sets it. */
static void blocking_by_nmi_goes_over(void **state)
{
	(void)state;
	prepare();
	region_set(&vcpu, VMCS_GUEST_INTERRUPTIBILITY, VMX_BLOCKING_NMI);
	launch();
	exits(VMX_EXIT_HLT, 0);
	assert_int_equal(fake_get(VMCS_GUEST_INTERRUPTIBILITY), VMX_BLOCKING_NMI);
	region_set(&vcpu, VMCS_GUEST_INTERRUPTIBILITY, 0);
	or_field(VMCS_PIN_CONTROLS, VMX_PIN_NMI);
	exits(VMX_EXIT_VMRESUME, 0);
	memset(&next, 0, sizeof(next));
	next.event = VECTOR_NMI | VMX_EVENT_NMI << VMX_EVENT_TYPE_SHIFT | VMX_EVENT_VALID;
	enter(); /* reason 0 */
	assert_int_equal(reason(), VMX_EXIT_EXCEPTION_NMI);
	assert_int_equal(fake_get(VMCS_GUEST_INTERRUPTIBILITY), VMX_BLOCKING_NMI);
}

/* An interrupt is taken at its exit only where there are such exits. */
static void interrupts_are_acknowledged(void **state)
{
	(void)state;
	prepare();
	or_field(VMCS_EXIT_CONTROLS, VMX_EXIT_ACKNOWLEDGE);
	launch();
	assert_false(fake_get(VMCS_EXIT_CONTROLS) & VMX_EXIT_ACKNOWLEDGE);
	exits(VMX_EXIT_HLT, 0);
	or_field(VMCS_PIN_CONTROLS, VMX_PIN_EXTERNAL_INTERRUPT);
	exits(VMX_EXIT_VMRESUME, 0);
	assert_true(fake_get(VMCS_EXIT_CONTROLS) & VMX_EXIT_ACKNOWLEDGE);
}

/* ---- lists of MSRs: EFER, and what the VMCS has ---- */

/* The exit loads this MSR; false: it is the end. */
static bool exit_loads(uint64_t index, uint64_t value)
{
	start(true, 1);
	prepare();
	*fake_quad(LIST) = index; /* and what is reserved */
	*fake_quad(LIST + 8) = value;
	region_set(&vcpu, VMCS_EXIT_MSR_LOAD, LIST);
	region_set(&vcpu, VMCS_EXIT_MSR_LOAD_COUNT, 1);
	launch();
	return !fake_catches(exits(VMX_EXIT_HLT, 0));
}

static void loads_of_an_exit(void **state)
{
	const uint64_t wide = EFER_LMA | EFER_LME;

	(void)state;
	assert_true(exit_loads(MSR_EFER, wide | EFER_NXE));
	assert_int_equal(fake_get(VMCS_GUEST_EFER), wide | EFER_NXE);
	assert_true(exit_loads(MSR_EFER, EFER_LME | EFER_SCE)); /* LMA is the processor's */
	assert_int_equal(fake_get(VMCS_GUEST_EFER), wide | EFER_SCE);
	assert_false(exit_loads(MSR_EFER, wide | 2));
	assert_false(exit_loads(MSR_EFER, 0)); /* with paging on */
	assert_true(exit_loads(MSR_SYSENTER_ESP, 0x1234));
	assert_int_equal(fake_get(VMCS_GUEST_SYSENTER_ESP), 0x1234);
	assert_int_equal(fake_msr_value(MSR_SYSENTER_ESP), 0); /* the hypervisor's own */
	assert_false(exit_loads(0x12345, 0));
	assert_false(exit_loads(0x808, 0));
	assert_false(exit_loads(MSR_GS_BASE, 0));
	assert_false(exit_loads(1ull << 32 | MSR_PAT, 0));
	/* A value that the processor refuses. */
	start(true, 1);
	prepare();
	fake_msr(MSR_SYSENTER_ESP, 0, 0xffff);
	put_msr(0, MSR_SYSENTER_ESP, 1ull << 50);
	region_set(&vcpu, VMCS_EXIT_MSR_LOAD, LIST);
	region_set(&vcpu, VMCS_EXIT_MSR_LOAD_COUNT, 1);
	launch();
	assert_true(fake_catches(exits(VMX_EXIT_HLT, 0)));
	assert_int_equal(((uint32_t *)fake_memory(INNER))[1], VMX_ABORT_LOADING_MSRS);
}

/* MSRs in neither range of the bitmap exit always. */
static void msrs_of_no_range(void **state)
{
	unsigned bit;

	(void)state;
	assert_false(vmx_msr_bit(0x40000000, false, &bit));
	assert_false(vmx_msr_bit(0x2000, false, &bit));
	assert_false(vmx_msr_bit(0xc0002000, false, &bit));
	assert_true(vmx_msr_bit(0xc0001fff, true, &bit));
	assert_int_equal(bit, 0x7fff);
	assert_true(vmx_msr_intercepted(vcpu.vmx, 0x40000000, true));
	assert_false(vmx_msr_intercepted(vcpu.vmx, MSR_PAT, true));
	assert_true(vmx_msr_intercepted(vcpu.vmx, MSR_VMX_BASIC, false));
	assert_false(vmx_msr_intercepted(vcpu.vmx, MSR_VMX_BASIC, true));
	vmx_watch_msr(&vcpu, MSR_PAT);
	vmx_watch_msr(&vcpu, 0x40000000); /* nothing to note */
	assert_true(vmx_msr_intercepted(vcpu.vmx, MSR_PAT, true));
	assert_false(vmx_msr_intercepted(vcpu.vmx, MSR_PAT, false));
}

/* A step's error codes of page faults are put back. */
static void page_fault_masks_are_kept(void **state)
{
	(void)state;
	start(true, 2);
	prepare();
	region_set(&vcpu, VMCS_SECONDARY_CONTROLS, 0);
	region_set(&vcpu, VMCS_PF_ERROR_MASK, 5);
	region_set(&vcpu, VMCS_PF_ERROR_MATCH, 4);
	launch();
	violation(FAKE_APIC + 0x80, EPT_VIOLATION_WRITE, 0);
	assert_true(vcpu.step.on);
	assert_int_equal(fake_get(VMCS_PF_ERROR_MASK), 0);
	exits(VMX_EXIT_MONITOR_TRAP_FLAG, 0);
	assert_int_equal(fake_get(VMCS_PF_ERROR_MASK), 5);
	assert_int_equal(fake_get(VMCS_PF_ERROR_MATCH), 4);
	assert_true(vcpu.vmx->nested.running);
}

/* The guest's mode, where exits do not say it, and where we have changed it. */
static void entry_controls(void **state)
{
	(void)state;
	exits(VMX_EXIT_INVD, 0);
	assert_false(fake_get(VMCS_ENTRY_CONTROLS) & VMX_ENTRY_IA32E);
	fake_put(VMCS_GUEST_EFER, EFER_LMA | EFER_LME);
	exits(VMX_EXIT_INVD, 0);
	assert_false(fake_get(VMCS_ENTRY_CONTROLS) & VMX_ENTRY_IA32E); /* the processor would have set it */
	vcpu.vmx->saves_mode = false;
	exits(VMX_EXIT_INVD, 0);
	assert_true(fake_get(VMCS_ENTRY_CONTROLS) & VMX_ENTRY_IA32E);
	vcpu.vmx->saves_mode = true;
	prepare();
	launch();
	exits(VMX_EXIT_HLT, 0);
	assert_true(vcpu.vmx->stale);
	fake_put(VMCS_ENTRY_CONTROLS, 0);
	exits(VMX_EXIT_INVD, 0);
	assert_true(fake_get(VMCS_ENTRY_CONTROLS) & VMX_ENTRY_IA32E);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(processor_refuses, setup),
		cmocka_unit_test_setup(controls_are_merged, setup),
		cmocka_unit_test_setup(exits_are_reflected, setup),
		cmocka_unit_test_setup(msr_permissions_are_merged, setup),
		cmocka_unit_test_setup(ports_are_the_guests, setup),
		cmocka_unit_test_setup(msr_lists, setup),
		cmocka_unit_test_setup(init_waits_for_vmxoff, setup),
		cmocka_unit_test_setup(bits_are_fixed_in_operation, setup),
		cmocka_unit_test_setup(nmi_is_reflected, setup),
		cmocka_unit_test_setup(exceptions_of_ours_are_reflected, setup),
		cmocka_unit_test_setup(page_faults_by_error_code, setup),
		cmocka_unit_test_setup(exceptions_on_top, setup),
		cmocka_unit_test_setup(pat_is_switched, setup),
		cmocka_unit_test_setup(host_pat_is_checked, setup),
		cmocka_unit_test_setup(timer_goes_on, setup),
		cmocka_unit_test_setup(virtual_nmis, setup),
		cmocka_unit_test_setup(blocking_by_nmi_goes_over, setup),
		cmocka_unit_test_setup(interrupts_are_acknowledged, setup),
		cmocka_unit_test_setup(loads_of_an_exit, setup),
		cmocka_unit_test_setup(msrs_of_no_range, setup),
		cmocka_unit_test_setup(page_fault_masks_are_kept, setup),
		cmocka_unit_test_setup(entry_controls, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
