/* vmx_exits.c: exits of the guest (SDM 3C chapters 26 and 28). */
#include "kmod/core/vmx.h"
#include "kmod/core/vmx_nested.h"
#include "x86/msr.h"
#include "x86/vectors.h"

#define CONTRIBUTORY (1u << VECTOR_DE | 1u << VECTOR_TS | 1u << VECTOR_NP | 1u << VECTOR_SS | 1u << VECTOR_GP)

/* ---- events that an exit has interrupted ---- */

/* Those of instructions are told with the length of theirs (27.2.1.3). */
static bool by_instruction(uint32_t event)
{
	unsigned type = VMX_EVENT_TYPE(event);

	return type >= VMX_EVENT_SOFTWARE_INTERRUPT && type <= VMX_EVENT_SOFTWARE_EXCEPTION;
}

static void clear_blocking(uint32_t bits)
{
	vmx_set(VMCS_GUEST_INTERRUPTIBILITY, vmx_get(VMCS_GUEST_INTERRUPTIBILITY) & ~(uint64_t)bits);
}

void vmx_redeliver(struct core_vcpu *vcpu)
{
	uint32_t event = (uint32_t)vmx_get(VMCS_IDT_VECTORING_INFO);

	(void)vcpu;
	if (!(event & VMX_EVENT_VALID))
		return;
	if (event & VMX_EVENT_ERROR_CODE)
		vmx_set(VMCS_ENTRY_EXCEPTION_ERROR, vmx_get(VMCS_IDT_VECTORING_ERROR));
	if (by_instruction(event))
		vmx_set(VMCS_ENTRY_INSTRUCTION_LENGTH, vmx_get(VMCS_EXIT_INSTRUCTION_LENGTH));
	if (VMX_EVENT_TYPE(event) == VMX_EVENT_NMI)
		clear_blocking(VMX_BLOCKING_NMI);
	vmx_set(VMCS_ENTRY_INTERRUPTION_INFO, event & ~VMX_EVENT_NMI_UNBLOCKED);
}

/* Whether @second on top of @first is a double fault. */
static bool doubles(unsigned first, unsigned second)
{
	if (first == VECTOR_PF)
		return second == VECTOR_PF || CONTRIBUTORY >> second & 1;
	return CONTRIBUTORY >> first & 1 && CONTRIBUTORY >> second & 1;
}

void vmx_raise_upon(struct core_vcpu *vcpu, unsigned vector, uint32_t error)
{
	uint32_t event = (uint32_t)vmx_get(VMCS_IDT_VECTORING_INFO);
	unsigned first = event & VMX_EVENT_VECTOR;

	if (!(event & VMX_EVENT_VALID) || VMX_EVENT_TYPE(event) != VMX_EVENT_EXCEPTION ||
	    vmx_nested_wants(vcpu, vector, error)) /* which comes before a double fault is made of it */
		vmx_raise(vcpu, vector, error);
	else if (first == VECTOR_DF && vcpu->vmx->nested.running)
		vmx_nested_event(vcpu, VMX_EXIT_TRIPLE_FAULT, 0, 0);
	else if (first == VECTOR_DF)
		hw_shutdown();
	else if (doubles(first, vector))
		vmx_raise(vcpu, VECTOR_DF, 0);
	else
		vmx_raise(vcpu, vector, error);
}

/* ---- control registers ---- */

/* MOV to CR0 or CR4 (table 28-3). */
static bool is_cr_write(uint64_t qualification)
{
	return (qualification >> 4 & 3) == 0 && ((qualification & 15) == 0 || (qualification & 15) == 4);
}

static uint64_t cr_source(const struct core_vcpu *vcpu, uint64_t qualification)
{
	uint64_t value = vcpu->gpr[qualification >> 8 & 15];
	bool wide = vmx_get(VMCS_GUEST_EFER) & EFER_LMA && vmx_get(VMCS_GUEST_CS_RIGHTS) >> 13 & 1;

	return wide ? value : (uint32_t)value;
}

/* Bits of it that differ and are the hypervisor's. */
static uint64_t cr_conflict(const struct core_vcpu *vcpu, uint64_t qualification)
{
	const struct vmx_vcpu *vmx = vcpu->vmx;
	unsigned number = qualification & 15;

	if (!is_cr_write(qualification))
		return 0;
	return (cr_source(vcpu, qualification) ^ vmx_guest_cr(vmx, number)) & vmx_fixed_cr(vmx, number);
}

/*
 * The guest changes a bit that the processor keeps at 1. It is shown the bit as it wants it, so that the same
 * instruction, executed again, has nothing of ours to change; whether it completes is seen behind it.
 */
static void exit_cr(struct core_vcpu *vcpu)
{
	struct vmx_vcpu *vmx = vcpu->vmx;
	uint64_t qualification = vmx_get(VMCS_EXIT_QUALIFICATION),
		 conflict = cr_conflict(vcpu, qualification);
	unsigned number = qualification & 15;

	if (!conflict)
		hw_stop("an access to a control register that nobody asked for", qualification);
	/* In VMX operation they are fixed for the guest too (SDM 3C 24.8). */
	if (vmx->nested.on || (number == 4 && cr_source(vcpu, qualification) & vmx->cr4_refused)) {
		vmx_raise(vcpu, VECTOR_GP, 0);
		return;
	}
	vmx_own_crs(vmx, false);
	vmx->cr.on = true;
	vmx->cr.number = number;
	vmx->cr.rip = vcpu->rip;
	vmx->cr.next = vcpu->rip + vmx_get(VMCS_EXIT_INSTRUCTION_LENGTH);
	vmx->cr.old = vmx_guest_cr(vmx, number);
	vmx_set(number == 0 ? VMCS_CR0_SHADOW : VMCS_CR4_SHADOW, vmx->cr.old ^ conflict);
	if (vmx->has_trap)
		vmx_trap_monitor(true);
	else
		vmx_set(VMCS_EXCEPTION_BITMAP, vmx_get(VMCS_EXCEPTION_BITMAP) | 1u << VECTOR_GP);
}

/* A processor without the monitor trap flag tells of the #GP of that instruction, which is its only fault. */
static bool exit_behind_cr(struct core_vcpu *vcpu, uint32_t reason)
{
	struct vmx_vcpu *vmx = vcpu->vmx;
	uint32_t event = (uint32_t)vmx_get(VMCS_EXIT_INTERRUPTION_INFO);

	vmx->cr.on = false;
	vmx_set(VMCS_EXCEPTION_BITMAP, vmx->own.exceptions);
	if (reason != VMX_EXIT_EXCEPTION_NMI || VMX_EVENT_TYPE(event) != VMX_EVENT_EXCEPTION)
		return false;
	if (vcpu->rip == vmx->cr.rip)
		vmx_set(vmx->cr.number == 0 ? VMCS_CR0_SHADOW : VMCS_CR4_SHADOW, vmx->cr.old);
	vmx_raise_upon(vcpu, event & VMX_EVENT_VECTOR, (uint32_t)vmx_get(VMCS_EXIT_INTERRUPTION_ERROR));
	return true;
}

/* Behind that instruction, or in the handler of what came instead; or an NMI's turn has come. */
static void exit_trap(struct core_vcpu *vcpu)
{
	struct vmx_vcpu *vmx = vcpu->vmx;
	bool on = vmx->cr.on;

	vmx_trap_monitor(false);
	vmx->cr.on = false;
	if (on && vcpu->rip != vmx->cr.next)
		vmx_set(vmx->cr.number == 0 ? VMCS_CR0_SHADOW : VMCS_CR4_SHADOW, vmx->cr.old);
}

/* ---- INIT, SIPI ---- */

#define APIC_SVR          0x0f0u
#define RESET_VECTOR_BASE 0xffff0000ull

/* The local APIC's part of INIT, which an exit leaves undone: what switching it off and on does (SDM
 * 3A 11.4.7). */
static void reset_apic(void)
{
	uint64_t base = hw_read_msr(MSR_APIC_BASE), modes = APIC_BASE_ENABLE | APIC_BASE_EXTD;

	if (!(base & APIC_BASE_ENABLE))
		return;
	hw_write_msr(MSR_APIC_BASE, base & ~(uint64_t)modes);
	hw_write_msr(MSR_APIC_BASE, (base & ~(uint64_t)modes) | APIC_BASE_ENABLE);
	if (base & APIC_BASE_EXTD)
		hw_write_msr(MSR_APIC_BASE, base);
}

/* The bootstrap processor begins where it did at reset, another one waits (SDM 3A 9.4). */
void vmx_init(struct core_vcpu *vcpu)
{
	struct core_start start = {.real = true};

	reset_apic();
	core_start(vcpu, &start);
	if (hw_read_msr(MSR_APIC_BASE) & APIC_BASE_BSP) {
		vmx_set(VMCS_GUEST_CS, 0xf000);
		vmx_set(VMCS_GUEST_CS_BASE, RESET_VECTOR_BASE);
		vcpu->rip = 0xfff0;
	} else {
		vmx_set(VMCS_GUEST_ACTIVITY, VMX_WAIT_FOR_SIPI);
	}
}

static void exit_sipi(struct core_vcpu *vcpu)
{
	struct core_start start = {.real = true, .page = vcpu->machine->startup_vector[vcpu->apic_id]};

	core_start(vcpu, &start);
}

/* ---- memory ---- */

static void exit_memory(struct core_vcpu *vcpu)
{
	uint64_t why = vmx_get(VMCS_EXIT_QUALIFICATION);
	unsigned access = (why & EPT_VIOLATION_WRITE ? CORE_WRITE : 0u) |
			  (why & EPT_VIOLATION_FETCH ? CORE_EXECUTE : 0u) | CORE_READ;

	/* IRET had unblocked NMIs already, and is executed again (28.2.3). */
	if (why & EPT_VIOLATION_NMI_UNBLOCKED && !(vmx_get(VMCS_IDT_VECTORING_INFO) & VMX_EVENT_VALID))
		vmx_set(VMCS_GUEST_INTERRUPTIBILITY, vmx_get(VMCS_GUEST_INTERRUPTIBILITY) | VMX_BLOCKING_NMI);
	vmx_redeliver(vcpu);
	core_exit_memory(vcpu, vmx_get(VMCS_GUEST_PHYSICAL_ADDRESS), access);
}

/* ---- instructions ---- */

static void exit_xsetbv(struct core_vcpu *vcpu)
{
	uint64_t value = (uint32_t)vcpu->gpr[RAX] | vcpu->gpr[RDX] << 32;

	if (hw_try_xsetbv((uint32_t)vcpu->gpr[RCX], value))
		vmx_skip(vcpu);
	else
		vmx_raise(vcpu, VECTOR_GP, 0);
}

/* CPUID above CPL 0 where the guest has asked for it to fault (MISC_FEATURES_ENABLES[0]). */
static bool cpuid_faults(void)
{
	uint64_t platform, enables;
	bool privileged = !(vmx_get(VMCS_GUEST_SS_RIGHTS) >> 5 & 3);

	return !privileged && hw_try_read_msr(MSR_PLATFORM_INFO, &platform) &&
	       platform & PLATFORM_INFO_CPUID_FAULTING &&
	       hw_try_read_msr(MSR_MISC_FEATURES_ENABLES, &enables) && enables & MISC_FEATURES_CPUID_FAULTING;
}

static void exit_cpuid(struct core_vcpu *vcpu)
{
	if (cpuid_faults())
		vmx_raise(vcpu, VECTOR_GP, 0);
	else
		core_exit_cpuid(vcpu);
}

/* Whether the exit is the hypervisor's business, not the record's alone. */
static bool needed(struct core_vcpu *vcpu, unsigned reason, uint64_t qualification)
{
	switch (reason) {
	case VMX_EXIT_RDMSR:
	case VMX_EXIT_WRMSR:
		return vmx_msr_intercepted(vcpu->vmx, (uint32_t)vcpu->gpr[RCX], reason == VMX_EXIT_WRMSR);
	case VMX_EXIT_CR_ACCESS: return cr_conflict(vcpu, qualification);
	case VMX_EXIT_CPUID:
	case VMX_EXIT_INVD:
	case VMX_EXIT_XSETBV:
	case VMX_EXIT_TASK_SWITCH:
	case VMX_EXIT_GETSEC: return true;
	case VMX_EXIT_INVEPT:
	case VMX_EXIT_INVVPID: return true;
	default: return reason >= VMX_EXIT_VMCALL && reason <= VMX_EXIT_VMXON;
	}
}

static void exit_instruction(struct core_vcpu *vcpu, unsigned reason)
{
	uint64_t qualification = vmx_get(VMCS_EXIT_QUALIFICATION);

	if (record_exit(vcpu, reason, qualification, 0, needed(vcpu, reason, qualification)))
		return;
	switch (reason) {
	case VMX_EXIT_CPUID: exit_cpuid(vcpu); break;
	case VMX_EXIT_RDMSR: core_exit_rdmsr(vcpu); break;
	case VMX_EXIT_WRMSR: core_exit_wrmsr(vcpu); break;
	case VMX_EXIT_CR_ACCESS: exit_cr(vcpu); break;
	case VMX_EXIT_XSETBV: exit_xsetbv(vcpu); break;
	case VMX_EXIT_INVD:
		hw_wbinvd();
		vmx_skip(vcpu);
		break;
	case VMX_EXIT_TASK_SWITCH: vmx_task_switch(vcpu); break;
	default:
		if (!needed(vcpu, reason, qualification))
			hw_stop("an exit that nobody asked for", reason);
		vmx_nested_instruction(vcpu, reason);
	}
}

void vmx_exit(struct core_vcpu *vcpu)
{
	uint32_t reason = (uint32_t)vmx_get(VMCS_EXIT_REASON);

	if (reason & VMX_EXIT_ENTRY_FAILURE && !vcpu->vmx->nested.running)
		hw_stop("the processor refuses the guest's state",
			(uint64_t)reason << 32 | vmx_get(VMCS_EXIT_QUALIFICATION));
	if (vcpu->step.on && vmx_stepped(vcpu, reason & VMX_EXIT_REASON_MASK))
		return;
	if (vcpu->vmx->cr.on && !vcpu->vmx->has_trap && exit_behind_cr(vcpu, reason))
		return;
	if (vcpu->vmx->nested.running && vmx_nested_exit(vcpu, reason))
		return;
	reason &= VMX_EXIT_REASON_MASK;
	switch (reason) {
	case VMX_EXIT_EPT_VIOLATION: exit_memory(vcpu); break;
	case VMX_EXIT_MONITOR_TRAP_FLAG: exit_trap(vcpu); break;
	case VMX_EXIT_TRIPLE_FAULT: hw_shutdown();
	case VMX_EXIT_INIT:
		if (!vmx_nested_init(vcpu))
			vmx_init(vcpu);
		break;
	case VMX_EXIT_SIPI: exit_sipi(vcpu); break;
	default: exit_instruction(vcpu, reason);
	}
}
