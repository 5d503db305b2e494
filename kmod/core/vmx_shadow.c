/*
 * vmx_shadow.c: see vmx_shadow.h (SDM 3C 29.3). Filled where the guest's guest faults. With accessed and
 * dirty flags an entry is writable once the guest's own has its dirty flag.
 */
#include "kmod/core/vmx_shadow.h"
#include "kmod/core/vmx.h"
#include "x86/msr.h"
#include "x86/paging.h"

#define ENTRY_ADDRESS 0x000ffffffffff000ull
#define ENTRY_RIGHTS  7ull
#define ENTRIES       512u
#define WRITE_BACK    6ull

/* What the guest's EPT says of an address. */
struct mapping {
	uint64_t host; /* the 4 KiB page */
	uint64_t rights;
	unsigned level;
	bool dirty;
};

bool vmx_shadow_eptp_valid(uint64_t eptp)
{
	uint32_t r[4];

	hw_cpuid(0x80000008u, 0, r);
	if (hw_read_msr(MSR_VMX_EPT_VPID_CAP) & VMX_EPT_ACCESSED_DIRTY)
		eptp &= ~EPTP_ACCESSED_DIRTY;
	return (eptp & 0xfff) == (WRITE_BACK | 3 << EPTP_LEVELS_SHIFT) && !(eptp >> (r[0] & 0xff));
}

/* ---- our pages ---- */

static struct shadow *shadow_of(struct core_vcpu *vcpu) { return &vcpu->vmx->nested.shadow; }

void vmx_shadow_drop(struct core_vcpu *vcpu)
{
	struct shadow *shadow = shadow_of(vcpu);

	if (shadow->used)
		hw_vmx_invept(INVEPT_CONTEXT, vmx_eptp(shadow->page[0]));
	shadow->used = 0;
}

uint64_t *vmx_shadow_root(struct core_vcpu *vcpu) { return shadow_root(shadow_of(vcpu)); }

uint64_t vmx_shadow_eptp(struct core_vcpu *vcpu)
{
	return vmx_eptp(vmx_shadow_root(vcpu)) | (vcpu->vmx->nested.eptp & EPTP_ACCESSED_DIRTY);
}

/* ---- the guest's EPT ---- */

/* 29.3.3.1; execute-only translations are not offered. */
static bool misconfigured(uint64_t entry, unsigned level, bool leaf)
{
	unsigned type = entry >> EPT_TYPE_SHIFT & 7;
	uint64_t reserved;
	uint32_t r[4];

	if ((entry & (EPT_READ | EPT_WRITE)) == EPT_WRITE || (entry & ENTRY_RIGHTS) == EPT_EXECUTE)
		return true;
	hw_cpuid(0x80000008u, 0, r);
	reserved = ENTRY_ADDRESS & ~((1ull << (r[0] & 0xff)) - 1);
	if (!leaf)
		reserved |= level == 3 ? 0xf8 : 0x78;
	else if (level)
		reserved |= ((1ull << (12 + 9 * level)) - 1) & ENTRY_ADDRESS;
	return entry & reserved || (leaf && (type == 2 || type == 3 || type == 7));
}

/* Flags of the entries that lead to a page, the last one of which was written through or not (29.3.5). */
static void mark(uint64_t *const used[], unsigned count, bool write)
{
	for (unsigned i = 0; i < count; i++)
		*used[i] |= EPT_ACCESSED | (write && i + 1 == count ? EPT_DIRTY : 0);
}

static enum shadow_result walk(struct core_vcpu *vcpu, uint64_t address, uint64_t wanted,
			       struct mapping *mapping)
{
	uint64_t table = vcpu->vmx->nested.eptp & ENTRY_ADDRESS, *used[4];
	bool flags = vcpu->vmx->nested.eptp & EPTP_ACCESSED_DIRTY;

	*mapping = (struct mapping){.rights = ENTRY_RIGHTS};
	if (address >> 48) {
		mapping->rights = 0;
		return SHADOW_VIOLATION;
	}
	for (unsigned level = 3;; level--) {
		uint64_t at = table + (address >> (12 + 9 * level) & (ENTRIES - 1)) * 8, entry,
			 size = 1ull << (12 + 9 * level);
		bool leaf;

		if (!tables_reached(vcpu->machine, at, 8))
			hw_stop("the guest's EPT is in the hypervisor's memory, or in none", at);
		used[3 - level] = (uint64_t *)(void *)((uint8_t *)hw_map(at & ~PAGE_MASK) + (at & PAGE_MASK));
		entry = *used[3 - level];
		mapping->rights &= entry;
		if (!(entry & ENTRY_RIGHTS))
			return SHADOW_VIOLATION;
		leaf = level == 0 || (level < 3 && entry & EPT_LARGE);
		if (misconfigured(entry, level, leaf))
			return SHADOW_MISCONFIGURED;
		if (leaf) {
			mapping->level = level;
			mapping->host =
				((entry & ENTRY_ADDRESS & ~(size - 1)) | (address & (size - 1))) & ~PAGE_MASK;
			if (wanted & ~mapping->rights)
				return SHADOW_VIOLATION;
			if (flags)
				mark(used, 4 - level, wanted & EPT_WRITE);
			mapping->dirty = !flags || *used[3 - level] & EPT_DIRTY;
			return SHADOW_FILLED;
		}
		table = entry & ENTRY_ADDRESS;
	}
}

/* ---- joined ---- */

static bool join(struct core_vcpu *vcpu, uint64_t address, const struct mapping *mapping)
{
	bool large = mapping->level > 0 && shadow_whole_block(vcpu, mapping->host);
	uint64_t rights = mapping->rights, *entry = shadow_entry(vcpu, shadow_of(vcpu), address, large);
	unsigned access = (rights & EPT_READ ? CORE_READ : 0u) |
			  (rights & EPT_WRITE && mapping->dirty ? CORE_WRITE : 0u) |
			  (rights & EPT_EXECUTE ? CORE_EXECUTE : 0u);

	if (!entry)
		return false;
	if (shadow_is_apic(vcpu, mapping->host))
		access &= ~(unsigned)CORE_WRITE;
	*entry = vmx_page_entry(vcpu, large ? mapping->host & ~(TABLES_LARGE - 1) : mapping->host, access,
				large);
	return true;
}

void vmx_shadow_set(struct core_vcpu *vcpu, uint64_t address, uint64_t host, unsigned access)
{
	uint64_t *entry = shadow_entry(vcpu, shadow_of(vcpu), address, 0);

	if (!entry)
		hw_stop("no memory for joined tables", address);
	*entry = vmx_page_entry(vcpu, host & ~PAGE_MASK, access, false);
	hw_vmx_invept(INVEPT_CONTEXT, vmx_eptp(vmx_shadow_root(vcpu)));
}

enum shadow_result vmx_shadow_fill(struct core_vcpu *vcpu, uint64_t address, uint64_t why, uint64_t *rights)
{
	struct mapping mapping;
	enum shadow_result result = walk(vcpu, address, why & ENTRY_RIGHTS, &mapping);

	*rights = mapping.rights;
	if (result != SHADOW_FILLED)
		return result;
	if (!tables_guests(vcpu->machine, mapping.host, CORE_PAGE))
		hw_stop("the guest's guest reaches for the hypervisor's memory", mapping.host);
	if (!join(vcpu, address, &mapping)) {
		vmx_shadow_drop(vcpu);
		vmx_set(VMCS_EPTP, vmx_shadow_eptp(vcpu));
		join(vcpu, address, &mapping);
	}
	if (shadow_is_apic(vcpu, mapping.host) && why & EPT_VIOLATION_WRITE)
		core_step_joined(vcpu, address, mapping.host | (address & PAGE_MASK));
	return SHADOW_FILLED;
}
