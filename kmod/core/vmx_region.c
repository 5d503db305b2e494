/* vmx_region.c: see vmx_region.h. */
#include "kmod/core/vmx_region.h"
#include "x86/msr.h"
#include "x86/paging.h"

#define REGION_LAUNCHED 8u
#define REGION_FIELDS   64u
#define REGION_INDICES  28u

/* A page of the guest's; it was checked to be the guest's. */
static uint8_t *region(uint64_t address) { return hw_map(address); }

bool region_valid(const struct core_vcpu *vcpu, uint64_t address)
{
	uint32_t r[4];

	hw_cpuid(0x80000008u, 0, r);
	return !(address & PAGE_MASK) && !(address >> (r[0] & 0xff)) &&
	       tables_reached(vcpu->machine, address, CORE_PAGE);
}

uint32_t region_revision(void) { return (uint32_t)hw_read_msr(MSR_VMX_BASIC) & VMCS_REVISION_MASK; }
uint32_t region_revision_of(uint64_t address) { return *(uint32_t *)(void *)region(address); }
uint32_t *region_launched(uint64_t address)
{
	return (uint32_t *)(void *)(region(address) + REGION_LAUNCHED);
}

void region_abort(uint64_t address, enum vmx_abort why)
{
	*(uint32_t *)(void *)(region(address) + VMCS_ABORT_INDICATOR) = why;
}

bool region_has(uint64_t field)
{
	uint64_t unused;

	if (field & VMCS_ENCODING_RESERVED || VMCS_INDEX(field) >= REGION_INDICES ||
	    (field & 1 && VMCS_WIDTH(field) != VMCS_64))
		return false;
	switch (field & ~1ull) {
	case VMCS_POSTED_INTERRUPT_VECTOR:
	case VMCS_EPTP_INDEX:
	case VMCS_PML_INDEX:
	case VMCS_GUEST_INTERRUPT_STATUS:
	case VMCS_PML_ADDRESS:
	case VMCS_APIC_ACCESS:
	case VMCS_POSTED_INTERRUPT_DESCRIPTOR:
	case VMCS_VM_FUNCTIONS:
	case VMCS_EOI_EXIT_0:
	case VMCS_EOI_EXIT_1:
	case VMCS_EOI_EXIT_2:
	case VMCS_EOI_EXIT_3:
	case VMCS_EPTP_LIST:
	case VMCS_VMREAD_BITMAP:
	case VMCS_VMWRITE_BITMAP:
	case VMCS_VE_INFORMATION:
	case VMCS_TSC_MULTIPLIER:
	case VMCS_GUEST_PERF_GLOBAL_CTRL:
	case VMCS_HOST_PERF_GLOBAL_CTRL:
	case VMCS_PLE_GAP:
	case VMCS_PLE_WINDOW: return false;
	default: return hw_vmx_read(field, &unused) == HW_VMX_DONE;
	}
}

uint64_t *region_slot(struct core_vcpu *vcpu, uint32_t field)
{
	unsigned group = VMCS_WIDTH(field) * 4 + VMCS_TYPE(field);

	return (uint64_t *)(void *)(region(vcpu->vmx->nested.current) + REGION_FIELDS +
				    8 * (group * REGION_INDICES + VMCS_INDEX(field)));
}

bool region_uses(struct core_vcpu *vcpu, uint32_t secondary)
{
	return region_get(vcpu, VMCS_PRIMARY_CONTROLS) & VMX_ACTIVATE_SECONDARY &&
	       region_get(vcpu, VMCS_SECONDARY_CONTROLS) & secondary;
}
