/* vmx_offer.c: what a guest that is a hypervisor is offered: its capability MSRs (SDM 3D appendix A). What is
 * not nested is not offered. */
#include "kmod/core/vmx.h"
#include "kmod/core/vmx_nested.h"
#include "x86/msr.h"

/* What is offered besides the default1 class. */
#define OFFERED_PIN                                                                                          \
	(VMX_PIN_EXTERNAL_INTERRUPT | VMX_PIN_NMI | VMX_PIN_VIRTUAL_NMIS | VMX_PIN_PREEMPTION_TIMER)
#define OFFERED_PRIMARY                                                                                      \
	(VMX_USE_TSC_OFFSETTING | VMX_HLT | VMX_INVLPG | VMX_MWAIT | VMX_RDPMC | VMX_RDTSC | VMX_CR3_LOAD |  \
	 VMX_CR3_STORE | VMX_CR8_LOAD | VMX_CR8_STORE | VMX_MOV_DR | VMX_UNCONDITIONAL_IO |                  \
	 VMX_USE_IO_BITMAPS | VMX_MONITOR_TRAP_FLAG | VMX_USE_MSR_BITMAPS | VMX_MONITOR | VMX_PAUSE |        \
	 VMX_ACTIVATE_SECONDARY | VMX_INTERRUPT_WINDOW | VMX_NMI_WINDOW | VMX_TPR_SHADOW)
#define OFFERED_SECONDARY                                                                                    \
	(VMX2_EPT | VMX2_UNRESTRICTED_GUEST | VMX2_VPID | VMX2_DESCRIPTOR_TABLE | VMX2_RDTSCP |              \
	 VMX2_WBINVD | VMX2_RDRAND | VMX2_INVPCID | VMX2_RDSEED | VMX2_XSAVES | VMX2_USER_WAIT)
#define OFFERED_EXIT                                                                                         \
	(VMX_EXIT_SAVE_DEBUG | VMX_EXIT_HOST_64 | VMX_EXIT_ACKNOWLEDGE | VMX_EXIT_SAVE_EFER |                \
	 VMX_EXIT_LOAD_EFER | VMX_EXIT_SAVE_PAT | VMX_EXIT_LOAD_PAT | VMX_EXIT_SAVE_PREEMPTION_TIMER)
#define OFFERED_ENTRY (VMX_ENTRY_LOAD_DEBUG | VMX_ENTRY_IA32E | VMX_ENTRY_LOAD_EFER | VMX_ENTRY_LOAD_PAT)
#define OFFERED_EPT                                                                                          \
	(VMX_EPT_4_LEVELS | VMX_EPT_WRITE_BACK | VMX_EPT_ACCESSED_DIRTY | VMX_EPT_2M | VMX_EPT_1G |          \
	 VMX_EPT_INVEPT | VMX_EPT_INVEPT_CONTEXT | VMX_EPT_INVEPT_ALL | VMX_EPT_INVVPID |                    \
	 VMX_EPT_INVVPID_ADDRESS | VMX_EPT_INVVPID_CONTEXT | VMX_EPT_INVVPID_ALL |                           \
	 VMX_EPT_INVVPID_KEEP_GLOBAL)

/* Bits of a capability MSR for controls: those that must be 1 below, those that may be above. */
static uint64_t controls(uint32_t index, uint32_t must, uint32_t offered)
{
	uint32_t may = (uint32_t)(hw_read_msr(index) >> 32);

	return must | (uint64_t)(may & (must | offered)) << 32;
}

/* The timer is nested where its value can be saved: it goes on behind an exit that is ours alone. */
static uint32_t offered_pin(void)
{
	bool saves = hw_read_msr(MSR_VMX_EXIT_CTLS) >> 32 & VMX_EXIT_SAVE_PREEMPTION_TIMER;

	return saves ? OFFERED_PIN : OFFERED_PIN & ~VMX_PIN_PREEMPTION_TIMER;
}

static bool capability(uint32_t index, uint64_t *value)
{
	switch (index) {
	case MSR_VMX_BASIC: *value = hw_read_msr(index) & ~VMX_BASIC_DUAL_MONITOR; break;
	case MSR_VMX_PIN_CTLS:
	case MSR_VMX_TRUE_PIN_CTLS: *value = controls(index, VMX_PIN_DEFAULT1, offered_pin()); break;
	case MSR_VMX_PRIMARY_CTLS: *value = controls(index, VMX_PRIMARY_DEFAULT1, OFFERED_PRIMARY); break;
	case MSR_VMX_TRUE_PRIMARY_CTLS:
		*value = controls(index, VMX_PRIMARY_DEFAULT1 & ~(VMX_CR3_LOAD | VMX_CR3_STORE),
				  OFFERED_PRIMARY);
		break;
	case MSR_VMX_SECONDARY_CTLS: *value = controls(index, 0, OFFERED_SECONDARY); break;
	case MSR_VMX_EXIT_CTLS: *value = controls(index, VMX_EXIT_DEFAULT1, OFFERED_EXIT); break;
	case MSR_VMX_TRUE_EXIT_CTLS:
		*value = controls(index, VMX_EXIT_DEFAULT1 & ~VMX_EXIT_SAVE_DEBUG, OFFERED_EXIT);
		break;
	case MSR_VMX_ENTRY_CTLS: *value = controls(index, VMX_ENTRY_DEFAULT1, OFFERED_ENTRY); break;
	case MSR_VMX_TRUE_ENTRY_CTLS:
		*value = controls(index, VMX_ENTRY_DEFAULT1 & ~VMX_ENTRY_LOAD_DEBUG, OFFERED_ENTRY);
		break;
	case MSR_VMX_MISC:
		*value = hw_read_msr(index) &
			 (VMX_MISC_TIMER_RATE | VMX_MISC_SAVES_LMA | VMX_MISC_HLT | VMX_MISC_SHUTDOWN |
			  VMX_MISC_WAIT_FOR_SIPI | 7ull << VMX_MISC_MSR_LIST_SHIFT |
			  0x1ffull << VMX_MISC_CR3_TARGETS_SHIFT | VMX_MISC_ZERO_LENGTH);
		break;
	case MSR_VMX_CR0_FIXED0:
	case MSR_VMX_CR0_FIXED1:
	case MSR_VMX_CR4_FIXED0:
	case MSR_VMX_VMCS_ENUM: *value = hw_read_msr(index); break;
	case MSR_VMX_CR4_FIXED1: *value = hw_read_msr(index) & ~(uint64_t)CR4_SMXE; break;
	case MSR_VMX_EPT_VPID_CAP: *value = hw_read_msr(index) & OFFERED_EPT; break;
	default: return false; /* VMFUNC */
	}
	return true;
}

enum core_msr vmx_nested_read_msr(struct core_vcpu *vcpu, uint32_t index, uint64_t *value)
{
	if (!vcpu->machine->nest)
		return MSR_FAULT;
	if (index == MSR_FEATURE_CONTROL) {
		*value = FEATURE_CONTROL_LOCK | FEATURE_CONTROL_VMX;
		return MSR_DONE;
	}
	return capability(index, value) ? MSR_DONE : MSR_FAULT;
}

bool vmx_offer_allows(uint32_t index, uint64_t value)
{
	uint64_t limits;

	if (hw_read_msr(MSR_VMX_BASIC) & VMX_BASIC_TRUE_CONTROLS && index != MSR_VMX_SECONDARY_CTLS)
		index += MSR_VMX_TRUE_PIN_CTLS - MSR_VMX_PIN_CTLS;
	capability(index, &limits);
	return !(~value & (uint32_t)limits) && !(value & ~(limits >> 32));
}
