/*
 * walk.c: the page walk of every paging mode, access rights, and error codes.
 */
#include "cpu/mem/walk.h"

#include "cpu/checks.h"
#include "cpu/mem/phys_internal.h"
#include "cpu/guest.h"
#include "x86/paging.h"

#define ALLOW_READ    (1u << ACCESS_READ)
#define ALLOW_WRITE   (1u << ACCESS_WRITE)
#define ALLOW_EXECUTE (1u << ACCESS_EXECUTE)
#define ALLOW_ALL     (ALLOW_READ | ALLOW_WRITE | ALLOW_EXECUTE)

#define LEVELS_MAX 5

#define BITS(high, low) ((~0ull >> (63 - (high))) & (~0ull << (low)))
#define ADDRESS_BITS    BITS(51, 12)

/* A walk under way: the entries it went through, and what they allow together. */
struct trail {
	struct cpu *cpu;
	uint64_t linear;
	unsigned access;
	unsigned entry_size; /* 4 or 8 bytes */
	unsigned depth;      /* entries so far */
	uint64_t address[LEVELS_MAX], entry[LEVELS_MAX];
	uint64_t guest_address[LEVELS_MAX]; /* of the same, where they are a guest's of VT-x */
	bool writable, user, executable;
	bool nested;         /* physical addresses are a guest's */
	uint64_t fault, fault_at; /* of the nested walk: struct walk's nested and physical */
};

/* Which right @access asks for. */
static uint32_t right_wanted(unsigned access) { return 1u << (access & (ACCESS_WRITE | ACCESS_EXECUTE)); }

/* ---- error codes (SDM 3A 4.7) ---- */

static uint32_t error_base(const struct cpu *cpu, unsigned access)
{
	bool fetch_shown = cpu->cr4 & CR4_SMEP || (cpu->cr4 & CR4_PAE && cpu->efer & EFER_NXE);
	uint32_t error = 0;

	if (CHECK(ERROR_WRITE, access & ACCESS_WRITE))
		error |= PF_W;
	if (CHECK(ERROR_USER, access & ACCESS_USER))
		error |= PF_U;
	if (CHECK(ERROR_FETCH, access & ACCESS_EXECUTE && fetch_shown))
		error |= PF_I;
	return error;
}

static bool fail(struct walk *result, const struct trail *trail, uint32_t why)
{
	result->error = error_base(trail->cpu, trail->access) | why;
	result->nested = trail->fault;
	if (unlikely(trail->fault))
		result->physical = trail->fault_at;
	return false;
}

/* ---- access rights (SDM 3A 4.6) ---- */

/* What the protection key of the page's last entry forbids (SDM 3A 4.6.2). */
static uint32_t key_denies(const struct trail *trail)
{
	const struct cpu *cpu = trail->cpu;
	unsigned key = (unsigned)(trail->entry[trail->depth - 1] >> PTE_PK_SHIFT & 15);
	bool access_disable = cpu->pkru >> (2 * key) & 1, write_disable = cpu->pkru >> (2 * key + 1) & 1;
	bool writes_obey = trail->access & ACCESS_USER || cpu->cr0 & CR0_WP;
	uint32_t denied = 0;

	if (!(cpu->cr4 & CR4_PKE) || CHECK(PKU_MODE, !(cpu->efer & EFER_LMA)))
		return 0;
	if (CHECK(PKU_SUPERVISOR_PAGE, !trail->user && (access_disable || write_disable)))
		return 0;
	if (CHECK(PKU_AD, access_disable))
		denied |= ALLOW_READ | ALLOW_WRITE;
	if (CHECK(PKU_WD, write_disable && writes_obey))
		denied |= ALLOW_WRITE;
	return denied;
}

static uint32_t user_denied(const struct trail *trail)
{
	uint32_t denied = 0;

	if (CHECK(PTE_USER, !trail->user))
		denied |= ALLOW_ALL;
	if (CHECK(PTE_WRITE, !trail->writable))
		denied |= ALLOW_WRITE;
	return denied;
}

static uint32_t supervisor_denied(const struct trail *trail)
{
	const struct cpu *cpu = trail->cpu;
	bool smap = cpu->cr4 & CR4_SMAP && trail->user, ac = cpu->rflags & RFLAGS_AC;
	uint32_t denied = 0;

	if (CHECK(CR0_WP, !trail->writable && cpu->cr0 & CR0_WP))
		denied |= ALLOW_WRITE;
	if (CHECK(SMEP, trail->user && cpu->cr4 & CR4_SMEP))
		denied |= ALLOW_EXECUTE;
	if (CHECK(SMAP, smap && !ac))
		denied |= ALLOW_READ | ALLOW_WRITE;
	if (CHECK(SMAP_IMPLICIT, smap && ac && trail->access & ACCESS_IMPLICIT))
		denied |= ALLOW_READ | ALLOW_WRITE;
	return denied;
}

/* ---- accessed and dirty flags (SDM 3A 4.8) ---- */

/*
 * With EPT the update is a write of its own, where using the entry was none (SDM 3C 29.3.3.2). False: it was not
 * allowed.
 */
static bool may_update(struct trail *trail, unsigned i)
{
	struct vmx_nested nested;

	if (likely(!trail->nested) || !vmx_guest(trail->cpu))
		return true;
	if (vmx_nested_walk(trail->cpu, trail->guest_address[i], ACCESS_WRITE, false, &nested))
		return true;
	trail->fault = nested.fault | EPT_VIOLATION_LINEAR_VALID;
	trail->fault_at = trail->guest_address[i];
	return !CHECK(EPT_GUEST_FLAGS, true);
}

static bool set_entry_bits(struct trail *trail, unsigned i, uint64_t bits)
{
	if ((trail->entry[i] & bits) == bits)
		return true;
	if (!may_update(trail, i))
		return false;
	trail->entry[i] |= bits;
	physical_write_as(CHECK_LOG_WALK, trail->cpu, trail->address[i], trail->entry[i], trail->entry_size);
	return true;
}

static bool set_accessed_above(struct trail *trail)
{
	if (trail->access & ACCESS_PROBE)
		return true;
	for (unsigned i = 0; i + 1 < trail->depth; i++) {
		if (CHECK(ACCESSED_TABLE, !(trail->entry[i] & PTE_A)) && !set_entry_bits(trail, i, PTE_A))
			return false;
	}
	return true;
}

/* ---- nested tables (APM 2 15.25.5, SDM 3C 29.3.3) ---- */

/* Makes the guest-physical *@address a physical one. False: a nested page fault, of which @where tells. */
static bool through_nested(struct trail *trail, uint64_t *address, unsigned access, uint64_t where,
			   struct svm_nested *nested)
{
	if (!svm_nested_walk(trail->cpu, *address, access, nested)) {
		trail->fault = nested->error | where;
		trail->fault_at = *address;
		return false;
	}
	*address = nested->physical | (*address & PAGE_MASK);
	return true;
}

static bool ept_table(struct trail *trail, uint64_t *address)
{
	struct vmx_nested nested;

	if (!vmx_nested_walk(trail->cpu, *address, VMX_ACCESS_TABLE | (trail->access & ACCESS_PROBE), false, &nested)) {
		trail->fault = nested.fault | EPT_VIOLATION_LINEAR_VALID;
		trail->fault_at = *address;
		return false;
	}
	if (vmx_apic_page(trail->cpu, nested.physical))
		vmx_apic_guest_physical(trail->cpu);
	trail->guest_address[trail->depth] = *address;
	*address = nested.physical | (*address & PAGE_MASK);
	return true;
}

/* What advanced information tells of the linear address (table 28-7). */
static uint64_t advanced_information(const struct trail *trail)
{
	if (!cpu_has(trail->cpu, FEATURE_vmx_ept_advanced))
		return 0;
	return (trail->user ? EPT_VIOLATION_USER : 0) | (trail->writable ? EPT_VIOLATION_WRITABLE : 0) |
	       (trail->executable ? 0 : EPT_VIOLATION_NO_EXECUTE);
}

static bool ept_page(struct trail *trail, struct walk *result)
{
	unsigned access = trail->access & (ACCESS_WRITE | ACCESS_EXECUTE | ACCESS_PROBE);
	uint64_t address = result->physical | (trail->linear & PAGE_MASK);
	struct vmx_nested nested;

	if (!vmx_nested_walk(trail->cpu, address, access, trail->user, &nested)) {
		trail->fault = nested.fault | EPT_VIOLATION_LINEAR_VALID | EPT_VIOLATION_FINAL |
			       advanced_information(trail);
		trail->fault_at = address;
		return fail(result, trail, 0);
	}
	result->physical = nested.physical;
	result->rights &= nested.rights;
	result->dirty = result->dirty && nested.dirty;
	return true;
}

/* The guest's tables are walked as a write of the nested tables' user. */
static bool nested_table(struct trail *trail, uint64_t *address)
{
	struct svm_nested nested;

	if (vmx_guest(trail->cpu))
		return ept_table(trail, address);

	return through_nested(trail, address, ACCESS_WRITE | (trail->access & ACCESS_PROBE), SVM_NPF_TABLE, &nested);
}

/* The page itself, by the kind of access; its rights are those of both. */
static bool nested_page(struct trail *trail, struct walk *result)
{
	unsigned access = trail->access & (ACCESS_WRITE | ACCESS_EXECUTE | ACCESS_PROBE);
	struct svm_nested nested;
	uint64_t address = result->physical | (trail->linear & PAGE_MASK);

	if (vmx_guest(trail->cpu))
		return ept_page(trail, result);
	if (!through_nested(trail, &address, access, SVM_NPF_FINAL, &nested))
		return fail(result, trail, 0);
	result->physical = nested.physical;
	result->rights &= nested.rights;
	result->dirty = result->dirty && nested.dirty;
	return true;
}

/*
 * The end of a walk whose last entry maps @size bytes from @base: rights, then A and D.
 */
static bool finish(struct trail *trail, struct walk *result, uint64_t base, uint64_t size)
{
	bool write = trail->access & ACCESS_WRITE, probe = trail->access & ACCESS_PROBE;
	uint32_t wanted = right_wanted(trail->access), by_key = key_denies(trail);
	uint32_t denied = trail->access & ACCESS_USER ? user_denied(trail) : supervisor_denied(trail);
	unsigned last = trail->depth - 1;
	uint64_t flags = 0;

	if (CHECK(PTE_NX, !trail->executable))
		denied |= ALLOW_EXECUTE;
	if (!set_accessed_above(trail))
		return fail(result, trail, 0);
	if ((denied | by_key) & wanted)
		return fail(result, trail, PF_P | (CHECK(ERROR_KEY, by_key & wanted) ? PF_PK : 0));
	if (CHECK(ACCESSED_PAGE, !probe && !(trail->entry[last] & PTE_A)))
		flags |= PTE_A;
	if (CHECK(DIRTY_PAGE, !probe && write && !(trail->entry[last] & PTE_D)))
		flags |= PTE_D;
	if (!set_entry_bits(trail, last, flags))
		return fail(result, trail, 0);
	result->nested = 0;
	result->physical = base + (trail->linear & (size - 1) & ~PAGE_MASK);
	result->size = size;
	result->rights = ALLOW_ALL & ~(denied | by_key);
	result->dirty = trail->entry[last] & PTE_D || (write && !probe);
	return likely(!trail->nested) || nested_page(trail, result);
}

/* ---- the entries ---- */

/* Reads the next entry, at @address. False where it is not present. */
static bool next_entry(struct trail *trail, uint64_t address)
{
	const struct memory_slot *slot;
	uint64_t entry;

	if (unlikely(trail->nested) && !nested_table(trail, &address))
		return false;
	slot = phys_slot(trail->cpu->memory, address);
	if (likely(slot && trail->entry_size == 8))
		entry = host_load(slot->host + (address - slot->base), 8);
	else
		entry = physical_read(trail->cpu, address, trail->entry_size);
	trail->address[trail->depth] = address;
	trail->entry[trail->depth++] = entry;
	trail->writable &= !!(entry & PTE_W);
	trail->user &= !!(entry & PTE_U);
	if (trail->entry_size == 8)
		trail->executable &= !(entry & PTE_NX);
	return !CHECK(PTE_PRESENT, !(entry & PTE_P));
}

/* Reserved bits of a 32-bit entry (SDM 3A 4.3, tables 4-4 to 4-6): only CR4.PSE brings some. */
static uint64_t reserved_32(const struct cpu *cpu, uint64_t entry, unsigned level)
{
	uint64_t reserved = 0;

	if (CHECK(RESERVED_WITHOUT_PSE, !(cpu->cr4 & CR4_PSE)))
		return 0;
	if (level == 1)
		return cpu_has(cpu, FEATURE_pat) ? 0 : PTE_PS;
	if (!(entry & PTE_PS))
		return 0;
	if (!cpu_has(cpu, FEATURE_pat))
		reserved |= PTE_PAT_LARGE;
	if (!cpu_has(cpu, FEATURE_pse36))
		return reserved | BITS(21, 13);
	/* Bits 20:13 are bits 39:32 of the address, as far as it goes. */
	if (CHECK(RESERVED_PSE36, entry & 1ull << 21))
		reserved |= 1ull << 21;
	return reserved | (BITS(39, 32) & ~cpu->physical_mask) >> 19;
}

static bool walk_32(struct trail *trail, struct walk *result)
{
	struct cpu *cpu = trail->cpu;
	uint64_t table = cpu->cr3 & BITS(31, 12), entry;

	trail->entry_size = 4;
	if (!next_entry(trail, table + (trail->linear >> 22 & 0x3ff) * 4))
		return fail(result, trail, 0);
	entry = trail->entry[0];
	if (CHECK(PTE_RESERVED, entry & reserved_32(cpu, entry, 2)))
		return fail(result, trail, PF_P | PF_RSVD);
	if (CHECK(PDE_4M, entry & PTE_PS && cpu->cr4 & CR4_PSE))
		return finish(trail, result,
			      ((entry & BITS(31, 22)) | (entry & BITS(20, 13)) << 19) & cpu->physical_mask,
			      1ull << 22);
	if (!next_entry(trail, (entry & BITS(31, 12)) + (trail->linear >> 12 & 0x3ff) * 4))
		return fail(result, trail, 0);
	entry = trail->entry[1];
	if (CHECK(PTE_RESERVED, entry & reserved_32(cpu, entry, 1)))
		return fail(result, trail, PF_P | PF_RSVD);
	return finish(trail, result, entry & BITS(31, 12), PAGE_SIZE);
}

/*
 * Reserved bits of an 8-byte entry of @level (1: PTE … 5: PML5E), SDM 3A 4.4.2, 4.5.4; APM 2 5.3.
 */
static uint64_t reserved_64(const struct cpu *cpu, uint64_t entry, unsigned level)
{
	bool ia32e = cpu->efer & EFER_LMA, large = entry & PTE_PS;
	uint64_t beyond = ADDRESS_BITS & ~cpu->physical_mask, reserved = 0;

	if (CHECK(RESERVED_WIDTH, entry & beyond))
		reserved |= beyond;
	if (CHECK(RESERVED_XD, entry & PTE_NX && !(cpu->efer & EFER_NXE)))
		reserved |= PTE_NX;
	if (CHECK(RESERVED_PAE, !ia32e && entry & BITS(62, 52)))
		reserved |= BITS(62, 52);
	if (CHECK(RESERVED_PS, large && (level >= 4 || (level == 3 && !cpu_has(cpu, FEATURE_pdpe1gb)))))
		reserved |= PTE_PS;
	/* Where the last level has G, AMD's PML4E and PML5E must have zero (APM 2 5.3.3, figures). */
	if (CHECK(RESERVED_UPPER_G, entry & PTE_G && level >= 4 && cpu->profile->vendor == VENDOR_AMD))
		reserved |= PTE_G;
	if (CHECK(RESERVED_1G, level == 3 && large && entry & BITS(29, 13)))
		reserved |= BITS(29, 13);
	if (CHECK(RESERVED_2M, level == 2 && large && entry & BITS(20, 13)))
		reserved |= BITS(20, 13);
	return reserved;
}

/* From the table of @level at @table down. */
static bool walk_64(struct trail *trail, struct walk *result, uint64_t table, unsigned level)
{
	struct cpu *cpu = trail->cpu;

	trail->entry_size = 8;
	for (;; level--) {
		unsigned shift = PAGE_SHIFT + 9 * (level - 1);
		uint64_t entry, size = 1ull << shift;

		if (!next_entry(trail, table + (trail->linear >> shift & 0x1ff) * 8))
			return fail(result, trail, 0);
		entry = trail->entry[trail->depth - 1];
		if (CHECK(PTE_RESERVED, entry & reserved_64(cpu, entry, level)))
			return fail(result, trail, PF_P | PF_RSVD);
		if (level == 1 || CHECK(LARGE_PAGE, level <= 3 && entry & PTE_PS))
			return finish(trail, result, entry & ADDRESS_BITS & ~(size - 1) & cpu->physical_mask,
				      size);
		table = entry & ADDRESS_BITS & cpu->physical_mask;
	}
}

static uint64_t pdpte_mbz(const struct cpu *cpu)
{
	return BITS(2, 1) | BITS(8, 5) | (BITS(63, 12) & ~cpu->physical_mask);
}

bool pdpte_valid(const struct cpu *cpu, uint64_t pdpte)
{
	return !CHECK(PDPTE_RESERVED, pdpte & PTE_P && pdpte & pdpte_mbz(cpu));
}

/* With nested paging the four entries are read on demand, and reserved bits in them are a #PF (APM 2 15.25.10). */
static bool read_pdpte(struct trail *trail, uint64_t *pdpte)
{
	uint64_t address = (trail->cpu->cr3 & BITS(31, 5)) + (trail->linear >> 30 & 3) * 8;

	if (!nested_table(trail, &address))
		return false;
	*pdpte = physical_read(trail->cpu, address, 8);
	return true;
}

static bool walk_pae(struct trail *trail, struct walk *result)
{
	uint64_t pdpte = trail->cpu->pdpte[trail->linear >> 30 & 3];
	bool on_demand = unlikely(trail->nested) && !vmx_guest(trail->cpu);

	if (on_demand && !read_pdpte(trail, &pdpte))
		return fail(result, trail, 0);

	if (CHECK(PDPTE_PRESENT, !(pdpte & PTE_P)))
		return fail(result, trail, 0);
	if (CHECK(NPT_PDPTE, on_demand && pdpte & pdpte_mbz(trail->cpu)))
		return fail(result, trail, PF_P | PF_RSVD);
	return walk_64(trail, result, pdpte & ADDRESS_BITS & trail->cpu->physical_mask, 2);
}

bool walk(struct cpu *cpu, uint64_t linear, unsigned access, struct walk *result)
{
	struct trail trail = {.cpu = cpu,
			      .linear = linear,
			      .access = access,
			      .writable = true,
			      .user = true,
			      .executable = true,
			      .nested = guest_nested_paging(cpu)};

	if (!(cpu->cr0 & CR0_PG)) {
		*result = (struct walk){.physical = linear & BITS(31, 12),
					.size = PAGE_SIZE,
					.rights = ALLOW_ALL,
					.dirty = true};
		return likely(!trail.nested) || nested_page(&trail, result);
	}
	if (cpu->efer & EFER_LMA)
		return walk_64(&trail, result, cpu->cr3 & ADDRESS_BITS & cpu->physical_mask,
			       CHECK(FIVE_LEVELS, cpu->cr4 & CR4_LA57) ? 5 : 4);
	trail.linear &= BITS(31, 0);
	return cpu->cr4 & CR4_PAE ? walk_pae(&trail, result) : walk_32(&trail, result);
}

/* Through EPT the registers are loaded by reads without a linear address (SDM 3C 28.2.1, 29.3.3.2). */
static uint64_t pdpte_at(struct cpu *cpu, uint64_t address)
{
	struct vmx_nested nested;

	if (unlikely(vmx_nested_paging(cpu))) {
		if (!vmx_nested_walk(cpu, address, ACCESS_READ, false, &nested))
			vmx_nested_fault(cpu, nested.fault, address, 0);
		address = nested.physical | (address & PAGE_MASK);
	}
	return physical_read(cpu, address, 8);
}

bool pdptes_load(struct cpu *cpu, uint64_t cr3)
{
	uint64_t pdpte[4];

	if (svm_nested_paging(cpu))
		return true;
	for (unsigned i = 0; i < 4; i++) {
		pdpte[i] = pdpte_at(cpu, (cr3 & BITS(31, 5)) + 8 * i);
		if (!pdpte_valid(cpu, pdpte[i]))
			return false;
	}
	for (unsigned i = 0; i < 4; i++)
		cpu->pdpte[i] = pdpte[i];
	return true;
}
