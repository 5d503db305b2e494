/*
 * nested.c: from guest-physical to system-physical addresses (APM 2 15.25).
 *
 * The nested tables are in the paging mode that the host had at VMRUN. All accesses are a user's;
 * CR0.WP, SMEP, SMAP, protection keys and global pages have no part in it (15.25.7).
 */
#include "cpu/checks.h"
#include "cpu/mem/walk.h"
#include "cpu/svm/svm.h"
#include "x86/paging.h"

#define BITS(high, low) ((~0ull >> (63 - (high))) & (~0ull << (low)))

struct nested {
	struct cpu *cpu;
	uint64_t address;
	unsigned access;
	bool writable, user, executable;
	struct svm_nested *result;
};

static bool host_has(const struct cpu *cpu, uint64_t efer) { return cpu->msr.svm_host_efer & efer; }

static bool fail(const struct nested *n, uint32_t why)
{
	bool fetch = n->access & ACCESS_EXECUTE;

	n->result->error = PF_U | why | (n->access & ACCESS_WRITE ? PF_W : 0) | (fetch ? PF_I : 0);
	return false;
}

/* Reads the entry at @at and adds its rights. False: it is not present. */
static bool take_entry(struct nested *n, uint64_t at, unsigned size, uint64_t *entry)
{
	*entry = physical_read(n->cpu, at, size);
	if (CHECK(NPT_PRESENT, !(*entry & PTE_P)))
		return fail(n, 0);
	n->writable &= !!(*entry & PTE_W);
	n->user &= !!(*entry & PTE_U);
	if (size == 8)
		n->executable &= !(*entry & PTE_NX);
	return true;
}

static void set_bits(struct nested *n, uint64_t at, unsigned size, uint64_t entry, uint64_t bits)
{
	if (!(n->access & ACCESS_PROBE) && (entry & bits) != bits)
		physical_write_as(CHECK_LOG_NESTED_WALK, n->cpu, at, entry | bits, size);
}

static bool allowed(const struct nested *n)
{
	if (CHECK(NPT_USER, !n->user))
		return false;
	if (CHECK(NPT_WRITE, n->access & ACCESS_WRITE && !n->writable))
		return false;
	return !CHECK(NPT_NX, n->access & ACCESS_EXECUTE && !n->executable);
}

/* The entry that maps @size bytes from @base: rights, then A and D. */
static bool finish(struct nested *n, uint64_t at, unsigned entry_size, uint64_t entry, uint64_t base,
		   uint64_t size)
{
	bool write = n->access & ACCESS_WRITE;

	if (!allowed(n))
		return fail(n, PF_P);
	if (CHECK(NPT_DIRTY, write))
		set_bits(n, at, entry_size, entry, PTE_A | PTE_D);
	else
		set_bits(n, at, entry_size, entry, PTE_A);
	n->result->physical = (base + (n->address & (size - 1))) & ~PAGE_MASK;
	n->result->rights = 1u << ACCESS_READ | (unsigned)n->writable << ACCESS_WRITE |
			    (unsigned)n->executable << ACCESS_EXECUTE;
	n->result->dirty = entry & PTE_D || (write && !(n->access & ACCESS_PROBE));
	return true;
}

static uint64_t reserved(const struct cpu *cpu, uint64_t entry, unsigned level, bool long_mode)
{
	uint64_t bits = BITS(51, 12) & ~cpu->physical_mask;
	bool large = entry & PTE_PS;

	if (CHECK(NPT_RESERVED_NX, entry & PTE_NX && !host_has(cpu, EFER_NXE)))
		bits |= PTE_NX;
	if (!long_mode)
		bits |= BITS(62, 52);
	if (large && (level >= 4 || (level == 3 && (!long_mode || !cpu_has(cpu, FEATURE_pdpe1gb)))))
		bits |= PTE_PS;
	if (level >= 4)
		bits |= PTE_G;
	if (level == 3 && large)
		bits |= BITS(29, 13);
	if (level == 2 && large)
		bits |= BITS(20, 13);
	return bits;
}

static bool walk_long(struct nested *n, uint64_t table, unsigned level)
{
	struct cpu *cpu = n->cpu;

	for (;; level--) {
		unsigned shift = PAGE_SHIFT + 9 * (level - 1);
		uint64_t at = table + (n->address >> shift & 0x1ff) * 8, size = 1ull << shift, entry;

		if (!take_entry(n, at, 8, &entry))
			return false;
		if (CHECK(NPT_RESERVED, entry & reserved(cpu, entry, level, host_has(cpu, EFER_LMA))))
			return fail(n, PF_P | PF_RSVD);
		if (level == 1 || (level <= 3 && entry & PTE_PS))
			return finish(n, at, 8, entry,
				      entry & BITS(51, 12) & ~(size - 1) & cpu->physical_mask, size);
		set_bits(n, at, 8, entry, PTE_A);
		table = entry & BITS(51, 12) & cpu->physical_mask;
	}
}

/* The four entries of the host's PAE paging are read by each walk; they have neither rights nor A. */
static bool walk_pae(struct nested *n)
{
	struct cpu *cpu = n->cpu;
	uint64_t base = cpu->msr.svm_ncr3 & (CHECK(NPT_PAE_BASE, true) ? BITS(31, 5) : BITS(31, 0));
	uint64_t at = base + (n->address >> 30 & 3) * 8;
	uint64_t entry = physical_read(cpu, at, 8);
	uint64_t bits = BITS(2, 1) | BITS(8, 5) | (BITS(63, 12) & ~cpu->physical_mask);

	if (CHECK(NPT_PRESENT, !(entry & PTE_P)))
		return fail(n, 0);
	if (CHECK(NPT_RESERVED, entry & bits))
		return fail(n, PF_P | PF_RSVD);
	return walk_long(n, entry & BITS(51, 12) & cpu->physical_mask, 2);
}

static bool walk_legacy(struct nested *n)
{
	struct cpu *cpu = n->cpu;
	uint64_t table = cpu->msr.svm_ncr3 & BITS(31, 12), entry, at;

	at = table + (n->address >> 22 & 0x3ff) * 4;
	if (!take_entry(n, at, 4, &entry))
		return false;
	if (entry & PTE_PS && cpu->msr.svm_host_cr4 & CR4_PSE) {
		if (CHECK(NPT_RESERVED, entry & 1ull << 21))
			return fail(n, PF_P | PF_RSVD);
		return finish(n, at, 4, entry, (entry & BITS(31, 22)) | (entry & BITS(20, 13)) << 19,
			      1ull << 22);
	}
	set_bits(n, at, 4, entry, PTE_A);
	at = (entry & BITS(31, 12)) + (n->address >> 12 & 0x3ff) * 4;
	if (!take_entry(n, at, 4, &entry))
		return false;
	return finish(n, at, 4, entry, entry & BITS(31, 12), PAGE_SIZE);
}

bool svm_nested_walk(struct cpu *cpu, uint64_t address, unsigned access, struct svm_nested *result)
{
	struct nested n = {.cpu = cpu,
			   .address = address,
			   .access = access,
			   .writable = true,
			   .user = true,
			   .executable = true,
			   .result = result};
	uint64_t table = cpu->msr.svm_ncr3 & BITS(51, 12) & cpu->physical_mask;

	*result = (struct svm_nested){0};
	if (host_has(cpu, EFER_LMA)) {
		unsigned levels = cpu->msr.svm_host_cr4 & CR4_LA57 ? 5 : 4;

		if (address >> (PAGE_SHIFT + 9 * levels))
			return fail(&n, 0);
		return walk_long(&n, table, levels);
	}
	/* A host without long mode reaches 32 bits of guest-physical addresses. */
	if (address >> 32)
		return fail(&n, 0);
	return cpu->msr.svm_host_cr4 & CR4_PAE ? walk_pae(&n) : walk_legacy(&n);
}

/* ---- the exit ---- */

void svm_fetch_bytes(struct cpu *cpu, uint8_t fetched[16])
{
	unsigned access = ACCESS_EXECUTE | ACCESS_PROBE | (cpu->cpl == 3 ? ACCESS_USER : 0);
	struct walk walked;

	fetched[0] = 0;
	if (!cpu_has(cpu, FEATURE_svm_decode))
		return;
	for (unsigned i = 0; i < 15; i++) {
		uint64_t rip = (cpu->rip + i) & cpu->linear_mask;
		uint64_t linear = (cpu->segment[CS].linear_base + rip) & cpu->linear_mask;

		if (CHECK(SVM_FETCHED_LIMIT, rip >= cpu->code_end) || (cpu_64bit(cpu) && !linear_is_canonical(cpu, linear)))
			return;
		if (CHECK(SVM_FETCHED_FAULT, !walk(cpu, linear, access, &walked)))
			return;
		fetched[i + 1] = (uint8_t)physical_read(cpu, walked.physical | (linear & PAGE_MASK), 1);
		fetched[0] = (uint8_t)(i + 1);
	}
}

void svm_nested_fault(struct cpu *cpu, uint64_t info1, uint64_t address)
{
	struct svm_exit_info info = {.code = SVM_EXIT_NPF, .info1 = info1, .info2 = address};

	cpu_leave_insn(cpu);
	if (CHECK(SVM_FETCHED_DATA, !(info1 & PF_I)))
		svm_fetch_bytes(cpu, info.fetched);
	svm_exit(cpu, &info);
	cpu_switch(cpu);
}
