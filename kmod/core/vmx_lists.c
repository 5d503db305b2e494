/*
 * vmx_lists.c: the lists of MSRs that a VM exit to a guest that is a hypervisor stores and loads (SDM
 * 3C 28.4, 28.6). What the VM entry loads is the processor's to do.
 */
#include "kmod/core/vmx_nested.h"
#include "kmod/core/vmx_region.h"
#include "x86/msr.h"
#include "x86/paging.h"

struct msr_entry {
	uint32_t index, reserved;
	uint64_t value;
};

/* It was checked to be the guest's, and 16 bytes are on one page. */
static struct msr_entry *entry_of(struct core_vcpu *vcpu, enum vmcs_field list, uint64_t i)
{
	uint64_t at = region_get(vcpu, list) + i * sizeof(struct msr_entry);

	return (struct msr_entry *)(void *)((uint8_t *)hw_map(at & ~PAGE_MASK) + (at & PAGE_MASK));
}

/* Registers of x2APIC, and what only SMM may have. */
static bool never_listed(const struct msr_entry *entry)
{
	return entry->index >> 8 == 8 || entry->index == MSR_SMM_MONITOR_CTL || entry->reserved;
}

/* Where the current VMCS of the processor has an MSR of the guest; 0: it has not. */
static uint32_t field_of(uint32_t index)
{
	switch (index) {
	case MSR_EFER: return VMCS_GUEST_EFER;
	case MSR_DEBUGCTL: return VMCS_GUEST_DEBUGCTL;
	case MSR_SYSENTER_CS: return VMCS_GUEST_SYSENTER_CS;
	case MSR_SYSENTER_ESP: return VMCS_GUEST_SYSENTER_ESP;
	case MSR_SYSENTER_EIP: return VMCS_GUEST_SYSENTER_EIP;
	case MSR_FS_BASE: return VMCS_GUEST_FS_BASE;
	case MSR_GS_BASE: return VMCS_GUEST_GS_BASE;
	default: return 0;
	}
}

static bool read_msr(struct core_vcpu *vcpu, uint32_t index, uint64_t *value)
{
	enum core_msr how;

	if (field_of(index)) {
		*value = vmx_get((enum vmcs_field)field_of(index));
		return true;
	}
	how = vmx_read_msr(vcpu, index, value);
	return how == MSR_NOT_MINE ? hw_try_read_msr(index, value) : how == MSR_DONE;
}

/* By the rules of SDM 2.2.1, with paging on. */
static bool write_efer(uint64_t value)
{
	uint64_t was = vmx_get(VMCS_GUEST_EFER);

	if (value & ~vmx_efer_valid() || (value ^ was) & EFER_LME)
		return false;
	vmx_set(VMCS_GUEST_EFER, (value & ~(uint64_t)EFER_LMA) | (was & EFER_LMA));
	return true;
}

/* What the processor thinks of the value it says itself; its own register is put back. */
static bool write_field(uint32_t index, uint64_t value)
{
	uint64_t was = hw_read_msr(index);

	if (!hw_try_write_msr(index, value))
		return false;
	value = hw_read_msr(index);
	hw_write_msr(index, was);
	vmx_set((enum vmcs_field)field_of(index), value);
	return true;
}

static bool write_msr(struct core_vcpu *vcpu, uint32_t index, uint64_t value)
{
	if (index == MSR_EFER)
		return write_efer(value);
	if (field_of(index))
		return write_field(index, value);
	return core_write_msr(vcpu, index, value);
}

bool vmx_lists_store(struct core_vcpu *vcpu)
{
	uint64_t count = region_get(vcpu, VMCS_EXIT_MSR_STORE_COUNT), value;

	for (uint64_t i = 0; i < count; i++) {
		struct msr_entry *entry = entry_of(vcpu, VMCS_EXIT_MSR_STORE, i);

		if (never_listed(entry) || !read_msr(vcpu, entry->index, &value))
			return false;
		entry->value = value;
	}
	return true;
}

bool vmx_lists_load(struct core_vcpu *vcpu)
{
	uint64_t count = region_get(vcpu, VMCS_EXIT_MSR_LOAD_COUNT);

	for (uint64_t i = 0; i < count; i++) {
		const struct msr_entry *entry = entry_of(vcpu, VMCS_EXIT_MSR_LOAD, i);

		if (never_listed(entry) || entry->index == MSR_FS_BASE || entry->index == MSR_GS_BASE ||
		    entry->index == MSR_BIOS_UPDT_TRIG || !write_msr(vcpu, entry->index, entry->value))
			return false;
	}
	return true;
}
