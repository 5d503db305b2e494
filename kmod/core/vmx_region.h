/*
 * vmx_region.h: the VMCS of a guest that is a hypervisor, in its memory, in a layout of ours (SDM 3C 25.2,
 * 25.11). The current one is that of its VMPTRLD.
 */
#ifndef TRAPLINE_KMOD_CORE_VMX_REGION_H
#define TRAPLINE_KMOD_CORE_VMX_REGION_H

#include "kmod/core/vmx.h"

#define NO_VMCS UINT64_MAX /* none is current */

/* Whether @address may be that of a region, or of another page that the processor reads for the guest. */
bool region_valid(const struct core_vcpu *vcpu, uint64_t address);
/* The revision identifier that the guest is told, and that of the region at @address, with bit 31. */
uint32_t region_revision(void);
uint32_t region_revision_of(uint64_t address);
/* The launch state of the region at @address: 0 is clear. */
uint32_t *region_launched(uint64_t address);
/* Writes the VMX-abort indicator of the region at @address (25.2). */
void region_abort(uint64_t address, enum vmx_abort why);

/* Whether the guest has the field @encoding: the processor has it, and no control that is not offered owns
 * it. */
bool region_has(uint64_t encoding);
/* A field of the current VMCS, as it is stored. */
uint64_t *region_slot(struct core_vcpu *vcpu, uint32_t field);
static inline uint64_t region_get(struct core_vcpu *vcpu, enum vmcs_field field)
{
	return *region_slot(vcpu, field);
}
static inline void region_set(struct core_vcpu *vcpu, enum vmcs_field field, uint64_t value)
{
	*region_slot(vcpu, field) = value;
}
/* Whether the secondary control is on in it. */
bool region_uses(struct core_vcpu *vcpu, uint32_t secondary);

#endif
