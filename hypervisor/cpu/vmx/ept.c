/* ept.c: extended page tables, virtualization exceptions, the page-modification log (SDM 3C chapter
 * 29, 26.5.7). */
#include "cpu/checks.h"
#include "cpu/mem/mem.h"
#include "cpu/mem/walk.h"
#include "cpu/vmx/vmx.h"
#include "x86/paging.h"

#define BITS(high, low) ((~0ull >> (63 - (high))) & (~0ull << (low)))
#define LEVELS_MAX      5u
#define PML_ENTRIES     512u

/* 27.2.1.1, 25.6.11 */
bool vmx_eptp_valid(const struct cpu *cpu, uint64_t eptp)
{
	uint64_t type = eptp & EPTP_TYPE, levels = (eptp >> EPTP_LEVELS_SHIFT & 7) + 1;
	bool five = cpu_has(cpu, FEATURE_vmx_ept_5_levels);

	if (CHECK(EPTP_MEMORY_TYPE, type != 0 && type != 6)) /* uncacheable, write-back */
		return false;
	if (CHECK(EPTP_WALK_LENGTH, levels != 4 && !(levels == 5 && five)))
		return false;
	if (CHECK(EPTP_ACCESSED_DIRTY, eptp & EPTP_ACCESSED_DIRTY && !cpu_has(cpu, FEATURE_vmx_ept_ad)))
		return false;
	return !CHECK(EPTP_RESERVED, eptp & (0xf80 | ~cpu->physical_mask));
}

/* ---- the walk (29.3.2, 29.3.3) ---- */

struct ept_walk {
	struct cpu *cpu;
	uint64_t address;
	unsigned access;
	bool user;        /* what is fetched is at a user-mode linear address */
	bool flags;       /* accessed and dirty flags are on */
	bool mode_based;  /* mode-based execute control */
	uint64_t allowed; /* R, W, X, XU of all entries */
	uint64_t at[LEVELS_MAX], entry[LEVELS_MAX];
	unsigned depth;
	struct vmx_nested *result;
};

static bool writes(const struct ept_walk *w)
{
	/* Guest paging structures are used as if they were written (29.3.5). */
	bool table = w->access & VMX_ACCESS_TABLE && CHECK(EPT_TABLE_WRITE, w->flags);

	return w->access & ACCESS_WRITE || table;
}

/* What table 28-7 says of the access; bits 6:3 by what @allowed leaves. */
static bool violation(struct ept_walk *w, uint64_t allowed, bool suppress)
{
	bool table = w->access & VMX_ACCESS_TABLE, fetch = w->access & ACCESS_EXECUTE;
	uint64_t qualification = (allowed & 7) << EPT_VIOLATION_RIGHTS_SHIFT;

	if (writes(w))
		qualification |= EPT_VIOLATION_WRITE;
	if (table || !(writes(w) || fetch))
		qualification |= EPT_VIOLATION_READ;
	if (fetch)
		qualification |= EPT_VIOLATION_FETCH;
	if (w->mode_based && allowed & EPT_EXECUTE_USER)
		qualification |= EPT_VIOLATION_USER_EXECUTE;
	w->result->fault = qualification | VMX_FAULT | (suppress ? VMX_FAULT_SUPPRESS : 0);
	return false;
}

static bool misconfiguration(struct ept_walk *w)
{
	w->result->fault = VMX_FAULT | VMX_FAULT_MISCONFIGURED;
	return false;
}

static bool present(const struct ept_walk *w, uint64_t entry)
{
	uint64_t rights = EPT_READ | EPT_WRITE | EPT_EXECUTE;

	if (CHECK(EPT_MODE_BASED_PRESENT, w->mode_based))
		rights |= EPT_EXECUTE_USER;
	return entry & rights;
}

/* The page's size is that of the level: @entry maps one. */
static bool is_leaf(uint64_t entry, unsigned level)
{
	return level == 1 || (level <= 3 && entry & EPT_LARGE);
}

static bool large_supported(const struct cpu *cpu, unsigned level)
{
	return level == 3 ? cpu_has(cpu, FEATURE_vmx_ept_1g) : level == 2 && cpu_has(cpu, FEATURE_vmx_ept_2m);
}

/* Tables 28-1 to 28-6. */
static uint64_t reserved_bits(const struct cpu *cpu, uint64_t entry, unsigned level)
{
	uint64_t reserved = BITS(51, 12) & ~cpu->physical_mask;

	if (level > 1 && entry & EPT_LARGE && !large_supported(cpu, level))
		reserved |= EPT_LARGE;
	if (!is_leaf(entry, level))
		return reserved | BITS(6, 3);
	return level == 1 ? reserved : reserved | BITS(12 + 9 * (level - 1) - 1, 12);
}

/* A present entry whose value the processor does not support (29.3.3.1). */
static bool misconfigured(const struct ept_walk *w, uint64_t entry, unsigned level)
{
	uint64_t fetches = EPT_EXECUTE | (w->mode_based ? EPT_EXECUTE_USER : 0);
	uint64_t type = entry >> EPT_TYPE_SHIFT & 7;

	if (CHECK(EPT_WRITE_ONLY, (entry & (EPT_READ | EPT_WRITE)) == EPT_WRITE))
		return true;
	if (CHECK(EPT_EXECUTE_ONLY,
		  !(entry & EPT_READ) && entry & fetches && !cpu_has(w->cpu, FEATURE_vmx_ept_execute_only)))
		return true;
	if (CHECK(EPT_RESERVED_BITS, entry & reserved_bits(w->cpu, entry, level)))
		return true;
	return CHECK(EPT_TYPE, is_leaf(entry, level) && (type == 2 || type == 3 || type == 7));
}

/* ---- rights, accessed and dirty flags (29.3.3.2, 29.3.5), the log (29.3.6) ---- */

static bool fetch_allowed(const struct ept_walk *w)
{
	if (CHECK(EPT_MODE_BASED, w->mode_based && w->user))
		return w->allowed & EPT_EXECUTE_USER;
	return w->allowed & EPT_EXECUTE;
}

static bool allowed(const struct ept_walk *w)
{
	bool fetch = w->access & ACCESS_EXECUTE, table = w->access & VMX_ACCESS_TABLE;

	if (CHECK(EPT_RIGHT_READ, !fetch && (table || !writes(w)) && !(w->allowed & EPT_READ)))
		return false;
	if (CHECK(EPT_RIGHT_WRITE, writes(w) && !(w->allowed & EPT_WRITE)))
		return false;
	return !CHECK(EPT_RIGHT_EXECUTE, fetch && !fetch_allowed(w));
}

/* Whether any flag is still to be set: accessed of an entry that is used, dirty of the last for a write. */
static bool lacks_flags(const struct ept_walk *w)
{
	unsigned last = w->depth - 1;

	for (unsigned i = 0; i <= last; i++)
		if (CHECK(PML_FULL_ACCESSED, !(w->entry[i] & EPT_ACCESSED)))
			return true;
	return writes(w) && !(w->entry[last] & EPT_DIRTY);
}

/* The log has to have room before any flag is set, an accessed flag as well, though these are not logged. */
static bool log_full(struct ept_walk *w)
{
	if (!vmx_secondary(w->cpu, VMX2_PML) || !lacks_flags(w))
		return false;
	if (!CHECK(PML_FULL, w->cpu->msr.vmx_pml_index >= PML_ENTRIES))
		return false;
	w->result->fault = VMX_FAULT | VMX_FAULT_LOG_FULL;
	return true;
}

/* A page whose dirty flag becomes 1. */
static void log_page(struct ept_walk *w)
{
	struct vcpu_state *m = &w->cpu->msr;

	if (!vmx_secondary(w->cpu, VMX2_PML))
		return;
	physical_write_as(CHECK_LOG_PML, w->cpu, m->vmx_pml_address + m->vmx_pml_index * 8ull, w->address & ~PAGE_MASK, 8);
	m->vmx_pml_index--;
}

static void set_flags(const struct ept_walk *w, unsigned i, uint64_t bits)
{
	if ((w->entry[i] & bits) != bits)
		physical_write_as(CHECK_LOG_EPT, w->cpu, w->at[i], w->entry[i] | bits, 8);
}

static bool use_flags(struct ept_walk *w)
{
	unsigned last = w->depth - 1;
	bool write = writes(w);

	if (!w->flags)
		return true;
	if (log_full(w))
		return false;
	if (w->access & ACCESS_PROBE)
		return true;
	if (write && !(w->entry[last] & EPT_DIRTY))
		log_page(w);
	for (unsigned i = 0; i < last; i++) {
		if (CHECK(EPT_ACCESSED_TABLE, !(w->entry[i] & EPT_ACCESSED)))
			set_flags(w, i, EPT_ACCESSED);
	}
	if (CHECK(EPT_DIRTY_PAGE, write))
		set_flags(w, last, EPT_ACCESSED | EPT_DIRTY);
	else if (CHECK(EPT_ACCESSED_PAGE, !write))
		set_flags(w, last, EPT_ACCESSED);
	return true;
}

/* The entry that maps @size bytes. */
static bool finish(struct ept_walk *w, uint64_t entry, uint64_t size)
{
	struct vmx_nested *result = w->result;
	uint64_t base = entry & BITS(51, 12) & ~(size - 1) & w->cpu->physical_mask;

	if (!allowed(w))
		return violation(w, w->allowed, entry & EPT_SUPPRESS_VE);
	if (!use_flags(w))
		return false;
	result->physical = (base + (w->address & (size - 1))) & ~PAGE_MASK;
	result->rights = (w->allowed & EPT_READ ? 1u << ACCESS_READ : 0) |
			 (w->allowed & EPT_WRITE ? 1u << ACCESS_WRITE : 0) |
			 (fetch_allowed(w) ? 1u << ACCESS_EXECUTE : 0);
	result->dirty = !w->flags || entry & EPT_DIRTY || (writes(w) && !(w->access & ACCESS_PROBE));
	return true;
}

bool vmx_nested_walk(struct cpu *cpu, uint64_t address, unsigned access, bool user, struct vmx_nested *result)
{
	uint64_t eptp = cpu->msr.vmx_eptp, table = eptp & BITS(51, 12) & cpu->physical_mask;
	unsigned level = (eptp >> EPTP_LEVELS_SHIFT & 7) + 1;
	struct ept_walk w = {.cpu = cpu,
			     .address = address,
			     .access = access,
			     .user = user,
			     .flags = eptp & EPTP_ACCESSED_DIRTY,
			     .mode_based = vmx_secondary(cpu, VMX2_MODE_BASED_EXECUTE),
			     .allowed = EPT_READ | EPT_WRITE | EPT_EXECUTE | EPT_EXECUTE_USER,
			     .result = result};

	*result = (struct vmx_nested){0};
	/* Beyond what the levels translate (29.3.2). No profile has so many physical bits. */
	if (address >> (PAGE_SHIFT + 9 * level))
		return violation(&w, 0, true);
	for (;; level--) {
		unsigned shift = PAGE_SHIFT + 9 * (level - 1);
		uint64_t at = table + (address >> shift & 0x1ff) * 8, entry = physical_read(cpu, at, 8);

		if (CHECK(EPT_PRESENT, !present(&w, entry)))
			return violation(&w, 0, entry & EPT_SUPPRESS_VE);
		if (misconfigured(&w, entry, level))
			return misconfiguration(&w);
		w.at[w.depth] = at;
		w.entry[w.depth++] = entry;
		w.allowed &= entry;
		if (is_leaf(entry, level))
			return finish(&w, entry, 1ull << shift);
		table = entry & BITS(51, 12) & cpu->physical_mask;
	}
}

/* ---- what comes of it (26.5.7, 28.2.1) ---- */

/* The virtualization-exception information area (26.5.7.2). */
enum {
	VE_REASON = 0,
	VE_BUSY = 4,
	VE_QUALIFICATION = 8,
	VE_LINEAR = 16,
	VE_PHYSICAL = 24,
	VE_EPTP_INDEX = 32
};
#define VE_BUSY_VALUE 0xffffffffu

static bool becomes_exception(struct cpu *cpu, uint64_t fault)
{
	if (!vmx_secondary(cpu, VMX2_EPT_VIOLATION_VE))
		return false;
	if (CHECK(VE_SUPPRESSED, fault & VMX_FAULT_SUPPRESS))
		return false;
	if (CHECK(VE_REAL_MODE, !cpu_protected(cpu)) || CHECK(VE_DELIVERING, cpu->delivering_depth))
		return false;
	return !CHECK(VE_BUSY, physical_read(cpu, cpu->msr.vmx_ve_information + VE_BUSY, 4));
}

static _Noreturn void raise_virtualization_exception(struct cpu *cpu, uint64_t qualification,
						     uint64_t physical, uint64_t linear)
{
	uint64_t area = cpu->msr.vmx_ve_information;

	physical_write_as(CHECK_LOG_VE, cpu, area + VE_REASON, VMX_EXIT_EPT_VIOLATION, 4);
	physical_write_as(CHECK_LOG_VE, cpu, area + VE_BUSY, VE_BUSY_VALUE, 4);
	physical_write_as(CHECK_LOG_VE, cpu, area + VE_QUALIFICATION, qualification, 8);
	physical_write_as(CHECK_LOG_VE, cpu, area + VE_LINEAR, linear, 8);
	physical_write_as(CHECK_LOG_VE, cpu, area + VE_PHYSICAL, physical, 8);
	physical_write_as(CHECK_LOG_VE, cpu, area + VE_EPTP_INDEX, cpu->msr.vmx_eptp_index, 2);
	cpu_raise(cpu, VECTOR_VE, 0);
}

void vmx_nested_fault(struct cpu *cpu, uint64_t fault, uint64_t physical, uint64_t linear)
{
	struct vmx_exit_info info = {
		.reason = VMX_EXIT_EPT_VIOLATION, .physical = physical, .rf = VMX_RF_RETRY};

	if (fault & VMX_FAULT_MISCONFIGURED) {
		info.reason = VMX_EXIT_EPT_MISCONFIGURATION;
		vmx_exit_insn(cpu, &info);
	}
	info.qualification = fault & VMX_FAULT_QUALIFICATION;
	if (CHECK(EPT_NMI_UNBLOCKED, cpu->nmi_unblocked && !cpu->delivering_depth))
		info.qualification |= EPT_VIOLATION_NMI_UNBLOCKED;
	if (fault & VMX_FAULT_LOG_FULL) {
		info.reason = VMX_EXIT_PAGE_MODIFICATION_LOG_FULL;
		info.physical = 0;
		vmx_exit_insn(cpu, &info);
	}
	if (info.qualification & EPT_VIOLATION_LINEAR_VALID)
		info.linear = linear;
	if (becomes_exception(cpu, fault))
		raise_virtualization_exception(cpu, info.qualification, physical, info.linear);
	vmx_exit_insn(cpu, &info);
}

/* ---- VMFUNC (26.5.6) ---- */

#define EPTP_LIST_ENTRIES 512u

static _Noreturn void exit_vmfunc(struct cpu *cpu)
{
	struct vmx_exit_info info = {.reason = VMX_EXIT_VMFUNC,
				     .length = (uint32_t)(cpu_next_rip(cpu) - cpu_rip(cpu))};

	vmx_exit_insn(cpu, &info);
}

/* EPTP switching (26.5.6.3): no invalidation, since translations are tagged with the EPTP. */
static void switch_eptp(struct cpu *cpu)
{
	uint32_t index = (uint32_t)cpu->reg[RCX];
	uint64_t eptp;

	if (CHECK(VMFUNC_INDEX, index >= EPTP_LIST_ENTRIES))
		exit_vmfunc(cpu);
	eptp = physical_read(cpu, cpu->msr.vmx_eptp_list + index % EPTP_LIST_ENTRIES * 8, 8);
	if (CHECK(VMFUNC_EPTP, !vmx_eptp_valid(cpu, eptp)))
		exit_vmfunc(cpu);
	vmcs_write(cpu, VMCS_EPTP, eptp);
	cpu->msr.vmx_eptp = eptp;
	if (vmx_secondary(cpu, VMX2_EPT_VIOLATION_VE)) {
		vmcs_write(cpu, VMCS_EPTP_INDEX, index);
		cpu->msr.vmx_eptp_index = (uint16_t)index;
	}
	tlb_select(cpu);
}

void vmx_function(struct cpu *cpu)
{
	uint32_t function = (uint32_t)cpu->reg[RAX];

	if (CHECK(VMFUNC_FUNCTION_UD, function >= 64))
		cpu_raise(cpu, VECTOR_UD, 0);
	if (CHECK(VMFUNC_FUNCTION, !(cpu->msr.vmx_functions >> (function & 63) & 1)))
		exit_vmfunc(cpu);
	switch_eptp(cpu);
}
