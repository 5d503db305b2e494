/*
 * svm_shadow.c: the nested tables of a guest that is a hypervisor, joined with ours into those that the
 * processor walks (APM 2 15.25). Filled where its guest faults; forgotten when the guest flushes that address
 * space. An entry is writable once the guest's own has its D bit.
 */
#include "kmod/core/svm.h"
#include "x86/paging.h"
#include "x86/vectors.h"

#define ENTRY_ADDRESS  0x000ffffffffff000ull
#define ENTRIES        512u
#define PDPTE_RESERVED 0x1e6ull
#define PAGES_EAGER    64u

/* What the guest's tables say of an address. */
struct mapping {
	uint64_t host; /* the 4 KiB page */
	bool large;    /* of 2 MiB and more */
	bool user, writable, executable, dirty;
};

/* ---- our pages ---- */

static struct shadow *shadow_of(struct core_vcpu *vcpu) { return &vcpu->svm->nested.shadow; }

void svm_shadow_drop(struct core_vcpu *vcpu)
{
	shadow_of(vcpu)->used = 0;
	vcpu->svm->flush = true;
}

/* ---- the guest's tables, in the paging mode that it had at VMRUN (15.25.3) ---- */

/* One walk of them. */
struct walk {
	struct core_vcpu *vcpu;
	uint64_t address;
	unsigned access;
	struct mapping *mapping;
	uint64_t error; /* as EXITINFO1 has it */
};

static bool host_has(struct core_vcpu *vcpu, uint64_t efer, uint64_t cr4)
{
	uint8_t *own = vcpu->svm->own;

	return *vmcb64(own, VMCB_EFER) & efer || *vmcb64(own, VMCB_CR4) & cr4;
}

static bool refuse(struct walk *walk, uint64_t why)
{
	walk->error |= why;
	return false;
}

/* The entry of @size bytes at @at; where we cannot reach it, nothing is present. */
static void *their_entry(struct core_vcpu *vcpu, uint64_t at, unsigned size)
{
	static uint64_t nothing;

	if (!tables_reached(vcpu->machine, at, size)) {
		nothing = 0;
		return &nothing;
	}
	return (uint8_t *)hw_map(at & ~PAGE_MASK) + (at & PAGE_MASK);
}

/* Of @entry at @level (0: it maps 4 KiB), which tells whether it maps a page. */
static uint64_t reserved_bits(struct core_vcpu *vcpu, uint64_t entry, unsigned level)
{
	uint64_t bits = ENTRY_ADDRESS & ~((1ull << vcpu->svm->physical_bits) - 1);

	if (!host_has(vcpu, EFER_NXE, 0))
		bits |= PTE_NX;
	if (!host_has(vcpu, EFER_LMA, 0))
		bits |= 0x7ff0000000000000ull;
	if (level >= 3)
		bits |= PTE_PS | PTE_G;
	else if (level && entry & PTE_PS)
		bits |= ((1ull << (12 + 9 * level)) - 1) & ENTRY_ADDRESS & ~PTE_PAT_LARGE;
	return bits;
}

/* Adds the rights of @entry. False: it is not present. */
static bool take_entry(struct walk *walk, uint64_t entry, bool wide)
{
	struct mapping *mapping = walk->mapping;

	if (!(entry & PTE_P))
		return false;
	mapping->user &= !!(entry & PTE_U);
	mapping->writable &= !!(entry & PTE_W);
	mapping->executable &= !wide || !(entry & PTE_NX);
	return true;
}

/* The last entry maps @size bytes from @base. Its flags; 0: the rights are not there. */
static uint64_t finish(struct walk *walk, uint64_t entry, uint64_t base, uint64_t size)
{
	struct mapping *mapping = walk->mapping;
	bool write = walk->access & CORE_WRITE;

	if (!mapping->user || (write && !mapping->writable) ||
	    (walk->access & CORE_EXECUTE && !mapping->executable)) {
		refuse(walk, PF_P);
		return 0;
	}
	mapping->dirty = write || entry & PTE_D;
	mapping->large = size >= TABLES_LARGE;
	mapping->host = (base + (walk->address & (size - 1))) & ~PAGE_MASK;
	return PTE_A | (write ? PTE_D : 0);
}

static bool walk_wide(struct walk *walk, uint64_t table, unsigned level)
{
	for (;; level--) {
		uint64_t at = table + (walk->address >> (12 + 9 * level) & (ENTRIES - 1)) * 8,
			 size = 1ull << (12 + 9 * level);
		uint64_t *entry = their_entry(walk->vcpu, at, 8), flags = PTE_A;

		if (!take_entry(walk, *entry, true))
			return false;
		if (*entry & reserved_bits(walk->vcpu, *entry, level))
			return refuse(walk, PF_P | PF_RSVD);
		if (level == 0 || *entry & PTE_PS) {
			flags = finish(walk, *entry, *entry & ENTRY_ADDRESS & ~(size - 1), size);
			*entry |= flags;
			return flags;
		}
		*entry |= flags;
		table = *entry & ENTRY_ADDRESS;
	}
}

/* The four entries have neither rights nor A. */
static bool walk_pae(struct walk *walk, uint64_t ncr3)
{
	uint64_t at = (ncr3 & 0xffffffe0u) + (walk->address >> 30 & 3) * 8;
	uint64_t entry = *(uint64_t *)their_entry(walk->vcpu, at, 8);
	uint64_t bits = PDPTE_RESERVED | ~((1ull << walk->vcpu->svm->physical_bits) - 1);

	if (!(entry & PTE_P))
		return false;
	return entry & bits ? refuse(walk, PF_P | PF_RSVD) : walk_wide(walk, entry & ENTRY_ADDRESS, 1);
}

static bool walk_32(struct walk *walk, uint64_t ncr3)
{
	uint64_t at = (ncr3 & 0xfffff000u) + (walk->address >> 22 & 1023) * 4, base;
	uint32_t *entry = their_entry(walk->vcpu, at, 4);
	bool large = *entry & PTE_PS && host_has(walk->vcpu, 0, CR4_PSE);
	uint64_t flags;

	if (!take_entry(walk, *entry, false))
		return false;
	if (large && *entry & 1u << 21)
		return refuse(walk, PF_P | PF_RSVD);
	base = (*entry & 0xffc00000u) | (uint64_t)(*entry >> 13 & 0xff) << 32;
	if (!large) {
		*entry |= (uint32_t)PTE_A;
		entry = their_entry(walk->vcpu, (*entry & 0xfffff000u) + (walk->address >> 12 & 1023) * 4, 4);
		if (!take_entry(walk, *entry, false))
			return false;
		base = *entry & 0xfffff000u;
	}
	flags = finish(walk, *entry, base, large ? 1ull << 22 : CORE_PAGE);
	*entry |= (uint32_t)flags;
	return flags;
}

/* False: *@error says why not. */
static bool walk(struct core_vcpu *vcpu, uint64_t address, unsigned access, struct mapping *mapping,
		 uint64_t *error)
{
	struct walk walk = {.vcpu = vcpu, .address = address, .access = access, .mapping = mapping};
	uint64_t ncr3 = vcpu->svm->nested.ncr3;
	unsigned levels = host_has(vcpu, 0, CR4_LA57) ? 5 : 4;
	bool done = false;

	walk.error = PF_U | (access & CORE_WRITE ? PF_W : 0u) | (access & CORE_EXECUTE ? PF_I : 0u);
	*mapping = (struct mapping){.user = true, .writable = true, .executable = true};
	if (host_has(vcpu, EFER_LMA, 0))
		done = !(address >> (12 + 9 * levels)) && walk_wide(&walk, ncr3 & ENTRY_ADDRESS, levels - 1);
	else if (!(address >> 32)) /* without long mode they reach no further */
		done = host_has(vcpu, 0, CR4_PAE) ? walk_pae(&walk, ncr3) : walk_32(&walk, ncr3);
	*error = walk.error;
	return done;
}

/* ---- joined ---- */

/* Puts what the guest's tables say of @address into ours. False: there are no pages left. */
static bool join(struct core_vcpu *vcpu, uint64_t address, const struct mapping *mapping)
{
	unsigned rights = CORE_READ | (mapping->writable && mapping->dirty ? CORE_WRITE : 0u) |
			  (mapping->executable ? CORE_EXECUTE : 0u);
	bool large = mapping->large && shadow_whole_block(vcpu, mapping->host);
	uint64_t *entry = shadow_entry(vcpu, shadow_of(vcpu), address, large);

	if (!entry)
		return false;
	if (shadow_is_apic(vcpu, mapping->host))
		rights &= ~(unsigned)CORE_WRITE;
	*entry = svm_page_entry(vcpu, large ? mapping->host & ~(TABLES_LARGE - 1) : mapping->host, rights,
				large);
	return true;
}

/* What the entry of a page may be in ours; 0: it is left to svm_shadow_fill(). */
static uint64_t joined_entry(struct core_vcpu *vcpu, uint64_t entry, unsigned level, uint64_t reserved)
{
	uint64_t frame = entry & ENTRY_ADDRESS;

	if ((entry & (PTE_P | PTE_A | PTE_U)) != (PTE_P | PTE_A | PTE_U) || entry & reserved)
		return 0;
	if (level ? !(entry & PTE_PS) || frame & (TABLES_LARGE - 1) || !shadow_whole_block(vcpu, frame)
		  : !tables_guests(vcpu->machine, frame, CORE_PAGE))
		return 0;
	entry &= PTE_NX | ENTRY_ADDRESS | PTE_P | PTE_U | PTE_A | PTE_D | (entry & PTE_D ? PTE_W : 0) |
		 (level ? PTE_PS : 0);
	return !level && shadow_is_apic(vcpu, frame) ? entry & ~PTE_W : entry;
}

/*
 * Joins all that the guest's @theirs at @level maps and has used before (A), so that it does not fault: a
 * fault in the middle of a task switch cannot be taken back. A page that was not used faults as it does now.
 */
static void join_used(struct core_vcpu *vcpu, const uint64_t *theirs, uint64_t *ours, unsigned level)
{
	uint64_t reserved = reserved_bits(vcpu, 0, level), below,
		 *table; /* frames are looked at by themselves */

	for (unsigned i = 0; i < ENTRIES; i++) {
		uint64_t entry = theirs[i];

		if (!(entry & PTE_P))
			continue;
		if (level < 2)
			ours[i] = joined_entry(vcpu, entry, level, reserved);
		below = entry & ENTRY_ADDRESS;
		/* Rights add up: a table that restricts them is left to svm_shadow_fill(). */
		if (!level || entry & (PTE_PS | PTE_NX | reserved) || !(entry & PTE_W) || !(entry & PTE_U) ||
		    !(entry & PTE_A) || !tables_reached(vcpu->machine, below, CORE_PAGE))
			continue;
		table = shadow_of(vcpu)->used < PAGES_EAGER ? shadow_take(shadow_of(vcpu)) : NULL;
		if (!table)
			return;
		ours[i] = svm_table_entry(hw_physical(table));
		join_used(vcpu, hw_map(below), table, level - 1);
	}
}

uint64_t *svm_shadow_root(struct core_vcpu *vcpu)
{
	struct svm_nested *nested = &vcpu->svm->nested;
	bool made = nested->shadow.used;
	uint64_t *root = shadow_root(&nested->shadow);

	if (!made && host_has(vcpu, EFER_LMA, 0) && !host_has(vcpu, 0, CR4_LA57) &&
	    tables_reached(vcpu->machine, nested->ncr3 & ENTRY_ADDRESS, CORE_PAGE))
		join_used(vcpu, hw_map(nested->ncr3 & ENTRY_ADDRESS), root, 3);
	return root;
}

void svm_shadow_set(struct core_vcpu *vcpu, uint64_t address, uint64_t host, unsigned access)
{
	uint64_t *entry = shadow_entry(vcpu, shadow_of(vcpu), address, 0);

	if (!entry)
		hw_stop("no memory for joined tables", address);
	*entry = svm_page_entry(vcpu, host & ~PAGE_MASK, access, false);
	vcpu->svm->flush = true;
}

bool svm_shadow_fill(struct core_vcpu *vcpu, uint64_t address, unsigned access, uint64_t *error)
{
	struct mapping mapping;

	if (!walk(vcpu, address, access, &mapping, error))
		return false;
	if (address >> 48)
		hw_stop("nested tables of five levels, used to the full", address);
	if (!tables_guests(vcpu->machine, mapping.host, CORE_PAGE))
		hw_stop("the guest's guest reaches for the hypervisor's memory", mapping.host);
	if (!join(vcpu, address, &mapping)) {
		svm_shadow_drop(vcpu);
		*vmcb64(vcpu->svm->nested.merged, VMCB_NCR3) = hw_physical(svm_shadow_root(vcpu));
		join(vcpu, address, &mapping);
	}
	if (shadow_is_apic(vcpu, mapping.host) && access & CORE_WRITE)
		core_step_joined(vcpu, address, mapping.host | (address & PAGE_MASK));
	return true;
}
