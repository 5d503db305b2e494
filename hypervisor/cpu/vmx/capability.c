/* capability.c: what this processor's VT-x can do (SDM 3D appendix A), and what it fixes of CR0 and CR4
 * (24.8). */
#include "cpu/control.h"
#include "cpu/vmx/vmx.h"
#include "x86/msr.h"

/* ---- controls (A.3 to A.5) ---- */

/* What every processor with VT-x lets be 1; the rest are features. */
#define PIN_ALWAYS (VMX_PIN_DEFAULT1 | VMX_PIN_EXTERNAL_INTERRUPT | VMX_PIN_NMI)
#define PRIMARY_ALWAYS                                                                                       \
	(VMX_PRIMARY_DEFAULT1 | VMX_INTERRUPT_WINDOW | VMX_USE_TSC_OFFSETTING | VMX_HLT | VMX_INVLPG |       \
	 VMX_MWAIT | VMX_RDPMC | VMX_RDTSC | VMX_CR3_LOAD | VMX_CR3_STORE | VMX_CR8_LOAD | VMX_CR8_STORE |   \
	 VMX_MOV_DR | VMX_UNCONDITIONAL_IO | VMX_USE_IO_BITMAPS | VMX_MONITOR | VMX_PAUSE)
#define EXIT_ALWAYS  (VMX_EXIT_DEFAULT1 | VMX_EXIT_HOST_64 | VMX_EXIT_ACKNOWLEDGE)
#define ENTRY_ALWAYS (VMX_ENTRY_DEFAULT1 | VMX_ENTRY_IA32E)

static uint32_t allowed(const struct cpu *cpu, enum vmx_controls which)
{
	static const struct {
		uint32_t msr, always;
	} controls[] = {
		[VMX_CONTROLS_PIN] = {MSR_VMX_PIN_CTLS, PIN_ALWAYS},
		[VMX_CONTROLS_PRIMARY] = {MSR_VMX_PRIMARY_CTLS, PRIMARY_ALWAYS},
		[VMX_CONTROLS_SECONDARY] = {MSR_VMX_SECONDARY_CTLS, 0},
		[VMX_CONTROLS_EXIT] = {MSR_VMX_EXIT_CTLS, EXIT_ALWAYS},
		[VMX_CONTROLS_ENTRY] = {MSR_VMX_ENTRY_CTLS, ENTRY_ALWAYS},
	};
	uint32_t bits = controls[which].always |
			(uint32_t)(profile_vmx_bits(cpu->profile, controls[which].msr) >> 32);

	if (which == VMX_CONTROLS_PRIMARY && cpu_has(cpu, FEATURE_vmx_virtual_nmis))
		bits |= VMX_NMI_WINDOW;
	return bits;
}

void vmx_prepare(struct cpu *cpu)
{
	for (unsigned i = 0; i <= VMX_CONTROLS_ENTRY; i++)
		cpu->vmx_allowed[i] = allowed(cpu, (enum vmx_controls)i);
}

uint32_t vmx_may_be_1(const struct cpu *cpu, enum vmx_controls which) { return cpu->vmx_allowed[which]; }

/* Without the "true" MSRs all of the default1 class is 1; with them, some of it may be 0 (A.2). */
static uint32_t must_be_1(enum vmx_controls which, bool strict)
{
	switch (which) {
	case VMX_CONTROLS_PIN: return VMX_PIN_DEFAULT1;
	case VMX_CONTROLS_PRIMARY: return VMX_PRIMARY_DEFAULT1 & ~(strict ? VMX_CR3_LOAD | VMX_CR3_STORE : 0);
	case VMX_CONTROLS_EXIT: return VMX_EXIT_DEFAULT1 & ~(strict ? VMX_EXIT_SAVE_DEBUG : 0);
	case VMX_CONTROLS_ENTRY: return VMX_ENTRY_DEFAULT1 & ~(strict ? VMX_ENTRY_LOAD_DEBUG : 0);
	default: return 0;
	}
}

uint32_t vmx_must_be_1(const struct cpu *cpu, enum vmx_controls which)
{
	return must_be_1(which, cpu_has(cpu, FEATURE_vmx_true_controls));
}

/* ---- CR0, CR4 (24.8, A.7, A.8) ---- */

#define CR0_FIXED0 ((uint64_t)(CR0_PE | CR0_NE | CR0_PG))
#define CR0_FIXED1 0xffffffffull
#define CR4_FIXED0 ((uint64_t)CR4_VMXE)

bool vmx_cr0_supported(uint64_t cr0, bool unrestricted)
{
	uint64_t fixed = unrestricted ? CR0_FIXED0 & ~(uint64_t)(CR0_PE | CR0_PG) : CR0_FIXED0;

	return !(~cr0 & fixed) && !(cr0 & ~CR0_FIXED1);
}

bool vmx_cr0_valid(const struct cpu *cpu, uint64_t cr0)
{
	return vmx_cr0_supported(cr0, vmx_unrestricted(cpu));
}

bool vmx_cr4_valid(const struct cpu *cpu, uint64_t cr4)
{
	return !(~cr4 & CR4_FIXED0) && !(cr4 & ~control_cr4_valid(cpu));
}

/* ---- the MSRs ---- */

static uint64_t basic(const struct cpu *cpu)
{
	return VMX_REVISION | (uint64_t)VMCS_REGION_SIZE << VMX_BASIC_SIZE_SHIFT |
	       6ull << VMX_BASIC_TYPE_SHIFT /* write-back */ | VMX_BASIC_INS_OUTS |
	       profile_vmx_bits(cpu->profile, MSR_VMX_BASIC);
}

static uint64_t misc(const struct cpu *cpu)
{
	return VMX_TIMER_SHIFT | VMX_MISC_HLT | VMX_MISC_SHUTDOWN | VMX_MISC_WAIT_FOR_SIPI |
	       VMX_CR3_TARGETS << VMX_MISC_CR3_TARGETS_SHIFT |
	       (cpu_has(cpu, FEATURE_vmx_unrestricted) ? VMX_MISC_SAVES_LMA : 0) |
	       profile_vmx_bits(cpu->profile, MSR_VMX_MISC);
}

static uint64_t ept_vpid(const struct cpu *cpu)
{
	const uint64_t ept = VMX_EPT_4_LEVELS | VMX_EPT_UNCACHEABLE | VMX_EPT_WRITE_BACK | VMX_EPT_INVEPT |
			     VMX_EPT_INVEPT_CONTEXT | VMX_EPT_INVEPT_ALL;
	const uint64_t vpid = VMX_EPT_INVVPID | VMX_EPT_INVVPID_ADDRESS | VMX_EPT_INVVPID_CONTEXT |
			      VMX_EPT_INVVPID_ALL | VMX_EPT_INVVPID_KEEP_GLOBAL;

	return (cpu_has(cpu, FEATURE_vmx_ept) ? ept : 0) | (cpu_has(cpu, FEATURE_vmx_vpid) ? vpid : 0) |
	       profile_vmx_bits(cpu->profile, MSR_VMX_EPT_VPID_CAP);
}

static uint64_t controls(const struct cpu *cpu, enum vmx_controls which, bool strict)
{
	return must_be_1(which, strict) | (uint64_t)vmx_may_be_1(cpu, which) << 32;
}

/* Whether the processor has the MSR: those behind CR4_FIXED1 tell of features (A.2 to A.11). */
static bool exists(const struct cpu *cpu, uint32_t index)
{
	switch (index) {
	case MSR_VMX_SECONDARY_CTLS: return cpu_has(cpu, FEATURE_vmx_secondary);
	case MSR_VMX_EPT_VPID_CAP: return cpu_has(cpu, FEATURE_vmx_ept) || cpu_has(cpu, FEATURE_vmx_vpid);
	case MSR_VMX_TRUE_PIN_CTLS:
	case MSR_VMX_TRUE_PRIMARY_CTLS:
	case MSR_VMX_TRUE_EXIT_CTLS:
	case MSR_VMX_TRUE_ENTRY_CTLS: return cpu_has(cpu, FEATURE_vmx_true_controls);
	case MSR_VMX_VMFUNC: return cpu_has(cpu, FEATURE_vmx_vmfunc);
	default: return index >= MSR_VMX_BASIC && index <= MSR_VMX_VMFUNC;
	}
}

bool vmx_capability(const struct cpu *cpu, uint32_t index, uint64_t *value)
{
	if (!exists(cpu, index))
		return false;
	switch (index) {
	case MSR_VMX_BASIC: *value = basic(cpu); break;
	case MSR_VMX_PIN_CTLS: *value = controls(cpu, VMX_CONTROLS_PIN, false); break;
	case MSR_VMX_PRIMARY_CTLS: *value = controls(cpu, VMX_CONTROLS_PRIMARY, false); break;
	case MSR_VMX_EXIT_CTLS: *value = controls(cpu, VMX_CONTROLS_EXIT, false); break;
	case MSR_VMX_ENTRY_CTLS: *value = controls(cpu, VMX_CONTROLS_ENTRY, false); break;
	case MSR_VMX_MISC: *value = misc(cpu); break;
	case MSR_VMX_CR0_FIXED0: *value = CR0_FIXED0; break;
	case MSR_VMX_CR0_FIXED1: *value = CR0_FIXED1; break;
	case MSR_VMX_CR4_FIXED0: *value = CR4_FIXED0; break;
	case MSR_VMX_CR4_FIXED1: *value = control_cr4_valid(cpu); break;
	case MSR_VMX_VMCS_ENUM: *value = (uint64_t)vmcs_highest_index(cpu) << 1; break;
	case MSR_VMX_SECONDARY_CTLS: *value = controls(cpu, VMX_CONTROLS_SECONDARY, false); break;
	case MSR_VMX_EPT_VPID_CAP: *value = ept_vpid(cpu); break;
	case MSR_VMX_TRUE_PIN_CTLS: *value = controls(cpu, VMX_CONTROLS_PIN, true); break;
	case MSR_VMX_TRUE_PRIMARY_CTLS: *value = controls(cpu, VMX_CONTROLS_PRIMARY, true); break;
	case MSR_VMX_TRUE_EXIT_CTLS: *value = controls(cpu, VMX_CONTROLS_EXIT, true); break;
	case MSR_VMX_TRUE_ENTRY_CTLS: *value = controls(cpu, VMX_CONTROLS_ENTRY, true); break;
	default: *value = profile_vmx_bits(cpu->profile, MSR_VMX_VMFUNC); break;
	}
	return true;
}
