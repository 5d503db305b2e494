/*
 * vmx_linear.c: the guest's memory by linear addresses, as a supervisor's implicit accesses reach it without
 * IA-32e mode (SDM 3A 4.3, 4.4, 4.6 to 4.8).
 */
#include "kmod/core/vmx_linear.h"
#include "kmod/core/vmx.h"
#include "x86/paging.h"
#include "x86/vectors.h"

/* One walk. */
struct walk {
	const struct core_vcpu *vcpu;
	uint64_t cr0, cr4, nx;
	bool write;
	uint32_t error; /* of the page fault */
};

static void *guest_at(const struct core_vcpu *vcpu, uint64_t physical, unsigned size)
{
	if (!tables_guests(vcpu->machine, physical, size))
		hw_stop("the guest's tables reach for the hypervisor's memory", physical);
	return (uint8_t *)hw_map(physical & ~PAGE_MASK) + (physical & PAGE_MASK);
}

static bool refuse(struct walk *walk, uint32_t bits)
{
	walk->error = bits | (walk->write ? PF_W : 0);
	return false;
}

/* What an entry of a table that is present allows. @user, @writable: of all entries so far. */
static bool rights(struct walk *walk, bool user, bool writable)
{
	if (walk->write && !writable && walk->cr0 & CR0_WP)
		return refuse(walk, PF_P);
	if (user && walk->cr4 & CR4_SMAP)
		return refuse(walk, PF_P);
	return true;
}

static bool walk_32(struct walk *walk, uint64_t cr3, uint32_t linear, uint64_t *physical)
{
	uint32_t *pde = guest_at(walk->vcpu, (cr3 & 0xfffff000u) + (linear >> 22) * 4, 4), *pte;

	if (!(*pde & PTE_P))
		return refuse(walk, 0);
	if (*pde & PTE_PS && walk->cr4 & CR4_PSE) {
		if (!rights(walk, *pde & PTE_U, *pde & PTE_W))
			return false;
		*pde |= PTE_A | (walk->write ? PTE_D : 0);
		*physical = (*pde & 0xffc00000u) | (uint64_t)(*pde >> 13 & 0xff) << 32 | (linear & 0x3fffff);
		return true;
	}
	pte = guest_at(walk->vcpu, (*pde & 0xfffff000u) + (linear >> 12 & 1023) * 4, 4);
	if (!(*pte & PTE_P))
		return refuse(walk, 0);
	if (!rights(walk, *pde & *pte & PTE_U, *pde & *pte & PTE_W))
		return false;
	*pde |= PTE_A;
	*pte |= PTE_A | (walk->write ? PTE_D : 0);
	*physical = (*pte & 0xfffff000u) | (linear & PAGE_MASK);
	return true;
}

/* PAE: bits 62:52 are reserved, bit 63 without EFER.NXE, those beyond the physical addresses. */
static bool reserved(const struct walk *walk, uint64_t entry, bool large)
{
	uint64_t mask = 0x7ff0000000000000ull | (walk->nx ? 0 : PTE_NX) | (large ? 0x1fe000u : 0);
	uint32_t r[4];

	hw_cpuid(0x80000008u, 0, r);
	mask |= 0x000fffffffffffffull & ~((1ull << (r[0] & 0xff)) - 1);
	return entry & mask;
}

static bool walk_pae(struct walk *walk, uint32_t linear, uint64_t *physical)
{
	uint64_t pdpte = vmx_get((enum vmcs_field)(VMCS_GUEST_PDPTE0 + 2 * (linear >> 30))), *pde, *pte;

	if (!(pdpte & PTE_P))
		return refuse(walk, 0);
	pde = guest_at(walk->vcpu, (pdpte & 0x000ffffffffff000ull) + (linear >> 21 & 511) * 8, 8);
	if (!(*pde & PTE_P))
		return refuse(walk, 0);
	if (reserved(walk, *pde, *pde & PTE_PS))
		return refuse(walk, PF_P | PF_RSVD);
	if (*pde & PTE_PS) {
		if (!rights(walk, *pde & PTE_U, *pde & PTE_W))
			return false;
		*pde |= PTE_A | (walk->write ? PTE_D : 0);
		*physical = (*pde & 0x000fffffffe00000ull) | (linear & 0x1fffff);
		return true;
	}
	pte = guest_at(walk->vcpu, (*pde & 0x000ffffffffff000ull) + (linear >> 12 & 511) * 8, 8);
	if (!(*pte & PTE_P))
		return refuse(walk, 0);
	if (reserved(walk, *pte, false))
		return refuse(walk, PF_P | PF_RSVD);
	if (!rights(walk, *pde & *pte & PTE_U, *pde & *pte & PTE_W))
		return false;
	*pde |= PTE_A;
	*pte |= PTE_A | (walk->write ? PTE_D : 0);
	*physical = (*pte & 0x000ffffffffff000ull) | (linear & PAGE_MASK);
	return true;
}

static bool translate(struct linear_fault *fault, const struct core_vcpu *vcpu, uint32_t linear, bool write,
		      uint64_t *physical)
{
	struct walk walk = {
		.vcpu = vcpu, .cr0 = vmx_get(VMCS_GUEST_CR0), .cr4 = vmx_get(VMCS_GUEST_CR4), .write = write};
	bool done;

	walk.nx = vmx_get(VMCS_GUEST_EFER) & EFER_NXE;
	*physical = linear;
	if (!(walk.cr0 & CR0_PG))
		return true;
	done = walk.cr4 & CR4_PAE ? walk_pae(&walk, linear, physical)
				  : walk_32(&walk, vmx_get(VMCS_GUEST_CR3), linear, physical);
	if (!done)
		*fault = (struct linear_fault){linear, walk.error};
	return done;
}

bool linear_check(struct linear_fault *fault, const struct core_vcpu *vcpu, uint32_t linear, unsigned size,
		  bool write)
{
	uint64_t physical;

	if (!translate(fault, vcpu, linear, write, &physical))
		return false;
	if ((linear & PAGE_MASK) + size <= PAGE_SIZE)
		return true;
	return translate(fault, vcpu, (linear | (uint32_t)PAGE_MASK) + 1, write, &physical);
}

bool linear_get(struct linear_fault *fault, const struct core_vcpu *vcpu, uint32_t linear, void *to,
		unsigned size)
{
	uint64_t physical;

	for (unsigned i = 0; i < size; i++) {
		if (!translate(fault, vcpu, linear + i, false, &physical))
			return false;
		((uint8_t *)to)[i] = *(uint8_t *)guest_at(vcpu, physical, 1);
	}
	return true;
}

bool linear_put(struct linear_fault *fault, const struct core_vcpu *vcpu, uint32_t linear, const void *from,
		unsigned size)
{
	uint64_t physical;

	if (!linear_check(fault, vcpu, linear, size, true))
		return false;
	for (unsigned i = 0; i < size; i++) {
		translate(fault, vcpu, linear + i, true, &physical);
		*(uint8_t *)guest_at(vcpu, physical, 1) = ((const uint8_t *)from)[i];
	}
	return true;
}
