/* entry.c: VM entry behind its checks: what is loaded, and how it fails (SDM 3C 27.3.2 to 27.8). */
#include "cpu/checks.h"
#include "cpu/insn.h"
#include "cpu/mem/mem.h"
#include "cpu/mem/walk.h"
#include "cpu/vmx/world.h"

static bool entry_control(const struct cpu *cpu, uint32_t bit) { return cpu->msr.vmx_entry_controls & bit; }

/* ---- the guest's state (27.3.2) ---- */

static void load_guest_segments(struct cpu *cpu)
{
	for (unsigned i = 0; i < SEGMENTS; i++)
		*segment_at(cpu, i) = (struct segment){
			.selector = (uint16_t)vmcs_read(cpu, indexed(VMCS_GUEST_ES, i)),
			.limit = (uint32_t)vmcs_read(cpu, indexed(VMCS_GUEST_ES_LIMIT, i)),
			.attributes =
				(uint32_t)vmcs_read(cpu, indexed(VMCS_GUEST_ES_RIGHTS, i)) & SEGMENT_RIGHTS,
			.base = vmcs_read(cpu, indexed(VMCS_GUEST_ES_BASE, i))};
}

static void load_guest_controls(struct cpu *cpu)
{
	cpu->cr0 = (vmcs_read(cpu, VMCS_GUEST_CR0) & ~CR0_KEPT) | (cpu->cr0 & CR0_KEPT);
	cpu->cr3 = vmcs_read(cpu, VMCS_GUEST_CR3);
	cpu->cr4 = vmcs_read(cpu, VMCS_GUEST_CR4);
	if (entry_control(cpu, VMX_ENTRY_LOAD_DEBUG)) {
		cpu->dr7 = (vmcs_read(cpu, VMCS_GUEST_DR7) & DR7_WRITABLE) | DR7_FIXED_1;
		cpu->msr.debugctl = vmcs_read(cpu, VMCS_GUEST_DEBUGCTL);
	}
	cpu->msr.sysenter_cs = vmcs_read(cpu, VMCS_GUEST_SYSENTER_CS);
	cpu->msr.sysenter_esp = vmcs_read(cpu, VMCS_GUEST_SYSENTER_ESP);
	cpu->msr.sysenter_eip = vmcs_read(cpu, VMCS_GUEST_SYSENTER_EIP);
	if (entry_control(cpu, VMX_ENTRY_LOAD_PAT))
		cpu->msr.pat = vmcs_read(cpu, VMCS_GUEST_PAT);
}

/* Without its own field LMA is what the control says, and LME with paging as well. */
static void load_guest_efer(struct cpu *cpu)
{
	bool wide = entry_control(cpu, VMX_ENTRY_IA32E);

	if (entry_control(cpu, VMX_ENTRY_LOAD_EFER))
		cpu->efer = vmcs_read(cpu, VMCS_GUEST_EFER);
	else if (cpu->cr0 & CR0_PG)
		set_long_mode(cpu, wide);
	else
		cpu->efer &= ~(uint64_t)EFER_LMA;
}

static void load_guest_tables(struct cpu *cpu)
{
	cpu->gdtr.base = vmcs_read(cpu, VMCS_GUEST_GDTR_BASE);
	cpu->gdtr.limit = (uint16_t)vmcs_read(cpu, VMCS_GUEST_GDTR_LIMIT);
	cpu->idtr.base = vmcs_read(cpu, VMCS_GUEST_IDTR_BASE);
	cpu->idtr.limit = (uint16_t)vmcs_read(cpu, VMCS_GUEST_IDTR_LIMIT);
}

/* With EPT the registers are the fields; else memory's, which vmx_check_guest() has looked at (27.3.2.4). */
static void load_guest_pdptes(struct cpu *cpu)
{
	if (!pae_paging(cpu))
		return;
	if (!vmx_secondary(cpu, VMX2_EPT)) {
		pdptes_load(cpu, cpu->cr3);
		return;
	}
	for (unsigned i = 0; i < 4; i++)
		cpu->pdpte[i] = vmcs_read(cpu, indexed(VMCS_GUEST_PDPTE0, i));
}

static bool is_vectoring(uint32_t info)
{
	return info & VMX_EVENT_VALID && VMX_EVENT_TYPE(info) != VMX_EVENT_OTHER;
}

/* 27.7.1: a vectoring entry leaves no shadow; NMI blocking is virtual where NMIs are. */
static void load_interruptibility(struct cpu *cpu, bool vectoring)
{
	uint32_t state = (uint32_t)vmcs_read(cpu, VMCS_GUEST_INTERRUPTIBILITY);
	bool nmi = state & VMX_BLOCKING_NMI, virtual_nmis = vmx_pin(cpu, VMX_PIN_VIRTUAL_NMIS);

	cpu->shadow = SHADOW_NONE;
	if (!vectoring && state & VMX_BLOCKING_STI)
		cpu->shadow = SHADOW_STI;
	if (!vectoring && state & VMX_BLOCKING_MOV_SS)
		cpu->shadow = SHADOW_MOV_SS;
	cpu->nmi_blocked = nmi && !virtual_nmis;
	cpu->msr.vmx_virtual_nmi_blocked = nmi && virtual_nmis;
}

/* 27.7.2: what is injected wakes. */
static void load_activity(struct cpu *cpu, bool vectoring)
{
	static const enum activity states[] = {[VMX_ACTIVE] = ACTIVITY_ACTIVE,
					       [VMX_HALTED] = ACTIVITY_HLT,
					       [VMX_SHUTDOWN] = ACTIVITY_SHUTDOWN,
					       [VMX_WAIT_FOR_SIPI] = ACTIVITY_WAIT_FOR_SIPI};

	cpu->activity = vectoring ? ACTIVITY_ACTIVE : states[vmcs_read(cpu, VMCS_GUEST_ACTIVITY) & 3];
}

/*
 * 27.7.3: pending debug exceptions are there where BS or the enabled-breakpoint bit is 1. They are lost where
 * an event is injected, but for a software interrupt or exception behind MOV SS; and in shutdown and
 * wait-for-SIPI.
 */
static void load_pending_debug(struct cpu *cpu, uint32_t info)
{
	uint64_t pending = vmcs_read(cpu, VMCS_GUEST_PENDING_DEBUG);
	bool software = VMX_EVENT_TYPE(info) == VMX_EVENT_SOFTWARE_INTERRUPT ||
			VMX_EVENT_TYPE(info) == VMX_EVENT_SOFTWARE_EXCEPTION;
	bool mov_ss = vmcs_read(cpu, VMCS_GUEST_INTERRUPTIBILITY) & VMX_BLOCKING_MOV_SS;

	cpu->dr6_pending = 0;
	if (CHECK(VMX_PENDING_VALID, !(pending & (VMX_PENDING_BS | VMX_PENDING_ENABLED_BREAKPOINT))))
		return;
	if (CHECK(VMX_PENDING_VECTORING, is_vectoring(info) && !(software && mov_ss)))
		return;
	if (CHECK(VMX_PENDING_ACTIVITY,
		  cpu->activity == ACTIVITY_SHUTDOWN || cpu->activity == ACTIVITY_WAIT_FOR_SIPI))
		return;
	cpu->dr6_pending = pending & (VMX_PENDING_BS | 0xf);
}

static void load_guest(struct cpu *cpu, uint32_t info)
{
	bool vectoring = is_vectoring(info);

	load_guest_controls(cpu);
	load_guest_efer(cpu);
	load_guest_segments(cpu);
	load_guest_tables(cpu);
	load_guest_pdptes(cpu);
	cpu->rip = vmcs_read(cpu, VMCS_GUEST_RIP);
	cpu->reg[RSP] = vmcs_read(cpu, VMCS_GUEST_RSP);
	set_flags(cpu, vmcs_read(cpu, VMCS_GUEST_RFLAGS));
	load_interruptibility(cpu, vectoring);
	load_activity(cpu, vectoring);
	load_pending_debug(cpu, info);
	world_changed(cpu);
}

/* ---- the controls ---- */

static void load_execution_controls(struct cpu *cpu)
{
	struct vcpu_state *m = &cpu->msr;

	m->vmx_pin = (uint32_t)vmcs_read(cpu, VMCS_PIN_CONTROLS);
	m->vmx_primary = (uint32_t)vmcs_read(cpu, VMCS_PRIMARY_CONTROLS);
	m->vmx_secondary = m->vmx_primary & VMX_ACTIVATE_SECONDARY
				   ? (uint32_t)vmcs_read(cpu, VMCS_SECONDARY_CONTROLS)
				   : 0;
	m->vmx_exit_controls = (uint32_t)vmcs_read(cpu, VMCS_EXIT_CONTROLS);
	m->vmx_entry_controls = (uint32_t)vmcs_read(cpu, VMCS_ENTRY_CONTROLS);
	m->vmx_exceptions = (uint32_t)vmcs_read(cpu, VMCS_EXCEPTION_BITMAP);
	m->vmx_pf_mask = (uint32_t)vmcs_read(cpu, VMCS_PF_ERROR_MASK);
	m->vmx_pf_match = (uint32_t)vmcs_read(cpu, VMCS_PF_ERROR_MATCH);
	m->vmx_cr0_mask = vmcs_read(cpu, VMCS_CR0_MASK);
	m->vmx_cr0_shadow = vmcs_read(cpu, VMCS_CR0_SHADOW);
	m->vmx_cr4_mask = vmcs_read(cpu, VMCS_CR4_MASK);
	m->vmx_cr4_shadow = vmcs_read(cpu, VMCS_CR4_SHADOW);
	m->vmx_cr3_targets = (uint32_t)vmcs_read(cpu, VMCS_CR3_TARGET_COUNT);
	for (unsigned i = 0; i < 4; i++)
		m->vmx_cr3_target[i] = vmcs_read(cpu, indexed(VMCS_CR3_TARGET_0, i));
	m->vmx_link = vmcs_read(cpu, VMCS_LINK_POINTER);
}

/* Addresses and values that only some controls use; without them they are not looked at. */
static void load_primary_fields(struct cpu *cpu)
{
	struct vcpu_state *m = &cpu->msr;

	if (vmx_primary(cpu, VMX_USE_IO_BITMAPS)) {
		m->vmx_io_bitmap_a = vmcs_read(cpu, VMCS_IO_BITMAP_A);
		m->vmx_io_bitmap_b = vmcs_read(cpu, VMCS_IO_BITMAP_B);
	}
	if (vmx_primary(cpu, VMX_USE_MSR_BITMAPS))
		m->vmx_msr_bitmap = vmcs_read(cpu, VMCS_MSR_BITMAP);
	m->vmx_tsc_offset = vmx_primary(cpu, VMX_USE_TSC_OFFSETTING) ? vmcs_read(cpu, VMCS_TSC_OFFSET) : 0;
	if (vmx_primary(cpu, VMX_TPR_SHADOW)) {
		m->vmx_virtual_apic = vmcs_read(cpu, VMCS_VIRTUAL_APIC);
		m->vmx_tpr_threshold = (uint32_t)vmcs_read(cpu, VMCS_TPR_THRESHOLD);
	}
}

static void load_apic_fields(struct cpu *cpu)
{
	struct vcpu_state *m = &cpu->msr;

	if (vmx_secondary(cpu, VMX2_VIRTUALIZE_APIC))
		m->vmx_apic_access = vmcs_read(cpu, VMCS_APIC_ACCESS);
	if (vmx_secondary(cpu, VMX2_VIRTUAL_INTERRUPTS)) {
		m->vmx_interrupt_status = (uint16_t)vmcs_read(cpu, VMCS_GUEST_INTERRUPT_STATUS);
		for (unsigned i = 0; i < 4; i++)
			m->vmx_eoi_exit[i] = vmcs_read(cpu, indexed(VMCS_EOI_EXIT_0, i));
	}
	if (vmx_pin(cpu, VMX_PIN_POSTED_INTERRUPTS)) {
		m->vmx_posted_vector = (uint16_t)vmcs_read(cpu, VMCS_POSTED_INTERRUPT_VECTOR);
		m->vmx_posted_descriptor = vmcs_read(cpu, VMCS_POSTED_INTERRUPT_DESCRIPTOR);
	}
}

static void load_paging_fields(struct cpu *cpu)
{
	struct vcpu_state *m = &cpu->msr;

	m->vmx_vpid = vmx_secondary(cpu, VMX2_VPID) ? (uint16_t)vmcs_read(cpu, VMCS_VPID) : 0;
	if (vmx_secondary(cpu, VMX2_EPT))
		m->vmx_eptp = vmcs_read(cpu, VMCS_EPTP);
	if (vmx_secondary(cpu, VMX2_EPT_VIOLATION_VE)) {
		m->vmx_ve_information = vmcs_read(cpu, VMCS_VE_INFORMATION);
		m->vmx_eptp_index = (uint16_t)vmcs_read(cpu, VMCS_EPTP_INDEX);
	}
	if (vmx_secondary(cpu, VMX2_PML)) {
		m->vmx_pml_address = vmcs_read(cpu, VMCS_PML_ADDRESS);
		m->vmx_pml_index = (uint16_t)vmcs_read(cpu, VMCS_PML_INDEX);
	}
	m->vmx_functions = 0;
	if (vmx_secondary(cpu, VMX2_VM_FUNCTIONS))
		m->vmx_functions = vmcs_read(cpu, VMCS_VM_FUNCTIONS);
	if (m->vmx_functions & 1)
		m->vmx_eptp_list = vmcs_read(cpu, VMCS_EPTP_LIST);
}

static void load_secondary_fields(struct cpu *cpu)
{
	struct vcpu_state *m = &cpu->msr;

	load_apic_fields(cpu);
	load_paging_fields(cpu);
	if (vmx_secondary(cpu, VMX2_TSC_SCALING))
		m->vmx_tsc_multiplier = vmcs_read(cpu, VMCS_TSC_MULTIPLIER);
	if (vmx_secondary(cpu, VMX2_XSAVES))
		m->vmx_xss_bitmap = vmcs_read(cpu, VMCS_XSS_EXITING_BITMAP);
	if (vmx_secondary(cpu, VMX2_PAUSE_LOOP)) {
		m->vmx_ple_gap = (uint32_t)vmcs_read(cpu, VMCS_PLE_GAP);
		m->vmx_ple_window = (uint32_t)vmcs_read(cpu, VMCS_PLE_WINDOW);
		m->vmx_ple_first = m->vmx_ple_last = 0;
	}
	if (vmx_secondary(cpu, VMX2_VMCS_SHADOWING)) {
		m->vmx_vmread_bitmap = vmcs_read(cpu, VMCS_VMREAD_BITMAP);
		m->vmx_vmwrite_bitmap = vmcs_read(cpu, VMCS_VMWRITE_BITMAP);
	}
}

static void load_controls(struct cpu *cpu)
{
	load_execution_controls(cpu);
	load_primary_fields(cpu);
	load_secondary_fields(cpu);
}

/* ---- VM entry ---- */

/*
 * 27.8: reason and qualification are all that is written; the host's state is loaded, and NMI blocking is
 * what it was before. The guest has not run, so that nothing of it is saved.
 */
static _Noreturn void fail_entry(struct cpu *cpu, enum vmx_exit reason, uint64_t qualification,
				 bool nmi_blocked)
{
	enum vmx_abort abort;

	vmcs_write(cpu, VMCS_EXIT_REASON, (uint32_t)reason | VMX_EXIT_ENTRY_FAILURE);
	vmcs_write(cpu, VMCS_EXIT_QUALIFICATION, qualification);
	vmx_note_exit(cpu, (uint32_t)reason | VMX_EXIT_ENTRY_FAILURE, qualification);
	abort = load_host(cpu);
	vmcs_close(cpu);
	cpu->nmi_blocked = nmi_blocked;
	if (abort)
		abort_exit(cpu, abort);
	cpu_switch(cpu);
}

/* 27.6: the event that comes first in the guest, or an exit of the monitor trap flag. */
static void inject(struct cpu *cpu, uint32_t info)
{
	if (!(info & VMX_EVENT_VALID))
		return;
	if (VMX_EVENT_TYPE(info) == VMX_EVENT_OTHER) {
		cpu->msr.vmx_mtf_pending = true;
		return;
	}
	vmx_parse_injection(cpu, &cpu->injected);
	cpu->injecting = true;
	/* NMIs are blocked from here on, so that an exit while it is delivered says so (27.7.1). */
	if (cpu->injected.kind == EVENT_NMI && vmx_pin(cpu, VMX_PIN_VIRTUAL_NMIS))
		cpu->msr.vmx_virtual_nmi_blocked = true;
	else if (cpu->injected.kind == EVENT_NMI)
		cpu->nmi_blocked = true;
	cpu->left_next_rip = cpu->injected.return_rip;
}

static _Noreturn void enter_guest(struct cpu *cpu, bool launch)
{
	uint32_t info = (uint32_t)vmcs_read(cpu, VMCS_ENTRY_INTERRUPTION_INFO), failed;
	uint32_t count = (uint32_t)vmcs_read(cpu, VMCS_ENTRY_MSR_LOAD_COUNT);
	bool nmi_blocked = cpu->nmi_blocked;

	load_guest(cpu, info);
	if (list_too_long(count))
		fail_entry(cpu, VMX_EXIT_ENTRY_MACHINE_CHECK, 0, nmi_blocked);
	failed = load_msrs(cpu, vmcs_read(cpu, VMCS_ENTRY_MSR_LOAD) & cpu->physical_mask, count);
	if (CHECK(VMX_ENTRY_MSR_LOADING, failed != 0))
		fail_entry(cpu, VMX_EXIT_ENTRY_MSR_LOADING, failed, nmi_blocked);
	if (launch)
		vmcs_set_launched(cpu, cpu->msr.vmx_vmcs, true);
	cpu->msr.vmx_guest = true;
	cpu->msr.vmx_mtf_pending = false;
	world_changed(cpu);
	drop_translations(cpu);
	vmx_timer_start(cpu);
	cpu_note(cpu, "VM entry, VMCS %#llx", (unsigned long long)cpu->msr.vmx_vmcs);
	inject(cpu, info);
	vmcs_close(cpu);
	vmx_apic_entered(cpu);
	cpu_switch(cpu);
}

void vmx_enter(struct cpu *cpu, bool launch)
{
	uint64_t qualification = 0;
	enum vmx_error error;

	vmcs_open(cpu, false);
	error = vmx_check_controls(cpu);
	if (!error)
		error = vmx_check_host(cpu);
	if (error) {
		vmcs_close(cpu);
		vmx_fail(cpu, error);
		return;
	}
	load_controls(cpu);
	cpu->rip = cpu_next_rip(cpu);
	cpu->retired = cpu_retired(cpu) + 1;
	cpu->insn = NULL;
	if (!vmx_check_guest(cpu, &qualification))
		fail_entry(cpu, VMX_EXIT_ENTRY_GUEST_STATE, qualification, cpu->nmi_blocked);
	enter_guest(cpu, launch);
}
