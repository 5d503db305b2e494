/*
 * tlb.c: filling, choosing and flushing the tables of tlb.h.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/checks.h"
#include "cpu/mem/mem.h"
#include "cpu/mem/phys_internal.h"
#include "cpu/mem/translate.h"
#include "cpu/mem/walk.h"
#include "cpu/guest.h"
#include "cpu/trace.h"
#include "cpu/vmx/vmx.h"

#define CR4_INPUTS (CR4_PSE | CR4_PAE | CR4_LA57 | CR4_SMEP | CR4_SMAP | CR4_PKE)

/* What the cached rights of a CPU depend on besides the tables. */
struct tlb_inputs {
	uint64_t controls;   /* bits of CR0, CR4 and EFER, side by side */
	uint64_t pkru;       /* with CR4.PKE; and the broken check */
	uint64_t nested_root, nested_mode; /* nCR3; the host's EFER and CR4 side by side */
	uint64_t watched[5]; /* DR7 and DR0 to DR3, where DR7 has a data breakpoint */
};

/* cpu->tlbs points to the first member of the current one. */
struct tlb_set {
	struct tlb context[TLB_CONTEXTS];
	struct tlb_inputs inputs;
	uint64_t space; /* whose translations these are: current_space() */
	uint64_t used;  /* cpu->tlb_switches at the last switch to it */
};

static struct tlb_set *tlb_set(const struct cpu *cpu) { return (struct tlb_set *)cpu->tlbs; }

static struct tlb_set *set_new(uint64_t space)
{
	struct tlb_set *set = aligned_alloc(64, (sizeof(*set) + 63) & ~63ull);

	if (!set)
		return NULL;
	memset(set, 0, sizeof(*set));
	for (unsigned i = 0; i < TLB_CONTEXTS; i++)
		set->context[i].generation = set->context[i].write_generation = 1;
	set->context[0].large_low = ~0ull;
	set->space = space;
	return set;
}

int tlb_create(struct cpu *cpu)
{
	struct tlb_set *set = set_new(TLB_SPACE_HOST);

	if (!set)
		return -ENOMEM;
	cpu->tlb_sets[0] = set;
	cpu->tlbs = set->context;
	cpu->tlb = &set->context[TLB_SUPERVISOR];
	return 0;
}

void tlb_destroy(struct cpu *cpu)
{
	for (unsigned i = 0; i < TLB_SPACES; i++) {
		free(cpu->tlb_sets[i]);
		cpu->tlb_sets[i] = NULL;
	}
	cpu->tlbs = cpu->tlb = NULL;
}

/* ---- flushes ---- */

static void set_forget_writable(struct tlb_set *set)
{
	uint64_t next = set->context[0].write_generation + 1;

	if (next == TLB_GENERATIONS) {
		for (unsigned c = 0; c < TLB_CONTEXTS; c++) {
			for (unsigned i = 0; i < TLB_ENTRIES; i++)
				set->context[c].hot[i].write_tag = 0;
		}
		next = 1;
	}
	for (unsigned c = 0; c < TLB_CONTEXTS; c++)
		set->context[c].write_generation = next;
}

void tlb_forget_writable(struct cpu *cpu)
{
	for (unsigned i = 0; i < TLB_SPACES; i++) {
		if (cpu->tlb_sets[i])
			set_forget_writable(cpu->tlb_sets[i]);
	}
}

/* Out of generations: the one time in 4,095 when a flush clears the tables. */
static void clear_tables(struct tlb_set *set)
{
	for (unsigned c = 0; c < TLB_CONTEXTS; c++) {
		struct tlb *tlb = &set->context[c];
		memset(tlb->hot, 0, sizeof(tlb->hot));
		memset(tlb->slow, 0, sizeof(tlb->slow));
	}
}

static void set_flush(struct tlb_set *set)
{
	uint64_t next = set->context[0].generation + 1;

	if (next == TLB_GENERATIONS) {
		clear_tables(set);
		next = 1;
	}
	for (unsigned c = 0; c < TLB_CONTEXTS; c++)
		set->context[c].generation = next;
	set_forget_writable(set);
	set->context[0].large_low = ~0ull;
	set->context[0].large_high = 0;
}

void tlb_flush_spaces(struct cpu *cpu, uint64_t space, uint64_t mask)
{
	for (unsigned i = 0; i < TLB_SPACES; i++) {
		struct tlb_set *set = cpu->tlb_sets[i];

		if (set && (set->space & mask) == (space & mask))
			set_flush(set);
	}
	if (cpu->traces)
		trace_mapping_changed(cpu);
}

/* What a guest of VT-x drops goes for its VPID with every EPTP (SDM 3C 29.4.3.1). */
static uint64_t flush_mask(const struct cpu *cpu)
{
	return CHECK(TLB_ALL_EPTPS, tlb_set(cpu)->space & VMX_SPACE) ? VMX_SPACE_OF_VPID : ~0ull;
}

void tlb_flush_all(struct cpu *cpu) { tlb_flush_spaces(cpu, tlb_set(cpu)->space, flush_mask(cpu)); }

/* A TLB may drop any entry at any time (SDM 3A 4.10.2.2): globals go as well. */
void tlb_flush_non_global(struct cpu *cpu) { tlb_flush_all(cpu); }

static void set_flush_page(struct tlb_set *set, uint64_t linear)
{
	uint64_t index = tlb_index(linear);

	/* The translation of a large page is kept in pieces; INVLPG drops all of it. */
	if (CHECK(TLB_LARGE, linear >= set->context[0].large_low && linear <= set->context[0].large_high)) {
		set_flush(set);
		return;
	}
	for (unsigned c = 0; c < TLB_CONTEXTS; c++) {
		set->context[c].hot[index] = (struct tlb_hot){0};
		set->context[c].slow[index] = (struct tlb_slow){0};
	}
}

void tlb_flush_spaces_page(struct cpu *cpu, uint64_t space, uint64_t mask, uint64_t linear)
{
	for (unsigned i = 0; i < TLB_SPACES; i++) {
		struct tlb_set *set = cpu->tlb_sets[i];

		if (set && (set->space & mask) == (space & mask))
			set_flush_page(set, linear);
	}
	if (cpu->traces)
		trace_mapping_changed(cpu);
}

void cpu_set_apic_page(struct cpu *cpu, uint64_t page)
{
	if (cpu->apic_page == page)
		return;
	cpu->apic_page = page;
	tlb_flush_spaces(cpu, 0, 0);
}

void tlb_flush_page(struct cpu *cpu, uint64_t linear)
{
	tlb_flush_spaces_page(cpu, tlb_set(cpu)->space, flush_mask(cpu), linear);
}

/* ---- spaces ---- */

/* Whose translations those of the running program are. */
static uint64_t current_space(const struct cpu *cpu)
{
	const struct vcpu_state *m = &cpu->msr;

	if (unlikely(m->svm_guest))
		return m->svm_asid;
	if (unlikely(m->vmx_guest))
		return vmx_space(m->vmx_vpid, vmx_nested_paging(cpu) ? m->vmx_eptp : 0);
	return TLB_SPACE_HOST;
}

/* The set for @space; where there is none, the one that was used longest ago, emptied. The host keeps its own. */
static struct tlb_set *set_of(struct cpu *cpu, uint64_t space)
{
	struct tlb_set *oldest = NULL;

	if (space == TLB_SPACE_HOST)
		return cpu->tlb_sets[0];
	for (unsigned i = 1; i < TLB_SPACES; i++) {
		struct tlb_set *set = cpu->tlb_sets[i];

		if (!set) {
			set = cpu->tlb_sets[i] = set_new(space);
			if (set)
				return set;
			continue;
		}
		if (set->space == space)
			return set;
		if (!oldest || set->used < oldest->used)
			oldest = set;
	}
	if (!oldest) /* out of memory: then all share one */
		oldest = cpu->tlb_sets[0];
	set_flush(oldest);
	oldest->space = space;
	return oldest;
}

static __attribute__((noinline)) void switch_space(struct cpu *cpu, uint64_t space)
{
	struct tlb_set *set = set_of(cpu, space);

	if (unlikely(set->space != space)) { /* the host's, where it is shared */
		set_flush(set);
		set->space = space;
	}
	set->used = ++cpu->tlb_switches;
	cpu->tlbs = set->context;
	trace_mapping_changed(cpu);
}

/* ---- data breakpoints (SDM 3B 18.2.4, 18.2.5) ---- */

/* Whether breakpoint @n is enabled for data; 8-byte aligned ranges at most, so it lies in one page. */
static bool watches_data(const struct cpu *cpu, unsigned n)
{
	return cpu->dr7 & (DR7_L(n) | DR7_G(n)) && cpu->dr7 >> DR7_RW_SHIFT(n) & 1;
}

static bool page_is_watched(const struct cpu *cpu, uint64_t linear)
{
	for (unsigned n = 0; n < 4; n++) {
		if (watches_data(cpu, n) && (cpu->dr[n] ^ linear) >> PAGE_SHIFT == 0)
			return true;
	}
	return false;
}

void watch_access(struct cpu *cpu, uint64_t linear, size_t size, bool write)
{
	static const uint8_t length[4] = {1, 2, 8, 4};

	if (CHECK(SVM_GIF_BREAKPOINT, !svm_gif(cpu)))
		return;

	for (unsigned n = 0; n < 4; n++) {
		uint64_t bytes = length[cpu->dr7 >> DR7_LEN_SHIFT(n) & 3];
		uint64_t start = cpu->dr[n] & ~(bytes - 1);

		if (!watches_data(cpu, n))
			continue;
		if (!write && (cpu->dr7 >> DR7_RW_SHIFT(n) & 3) != 3)
			continue;
		/* Run by single steps while DR7 enables anything: run.c looks at dr6_pending behind each. */
		if (linear < start + bytes && start < linear + size)
			cpu->dr6_pending |= DR6_B(n);
	}
}

/* ---- contexts ---- */

static bool watches_any_data(const struct cpu *cpu)
{
	if (likely(!(cpu->dr7 & 0xff)))
		return false;
	return watches_data(cpu, 0) || watches_data(cpu, 1) || watches_data(cpu, 2) || watches_data(cpu, 3);
}

/* Whether what the cached rights depend on has changed since the last call; notes the new state. */
static bool inputs_changed(struct cpu *cpu)
{
	struct tlb_inputs *known = &tlb_set(cpu)->inputs;
	uint64_t controls = (cpu->cr0 & (CR0_PG | CR0_WP)) | (cpu->efer & (EFER_LMA | EFER_NXE)) |
			    (cpu->cr4 & CR4_INPUTS) << 32;
	uint64_t pkru = (cpu->cr4 & CR4_PKE ? cpu->pkru : 0) | (uint64_t)(uint32_t)check_broken << 32;
	uint64_t watched[5] = {0}, nested_root = 0, nested_mode = 0;

	if (svm_nested_paging(cpu)) {
		nested_root = cpu->msr.svm_ncr3;
		nested_mode = (cpu->msr.svm_host_efer & (EFER_LMA | EFER_NXE)) |
			      (cpu->msr.svm_host_cr4 & CR4_INPUTS) << 32 | 1;
	} else if (vmx_nested_paging(cpu)) {
		nested_mode = (cpu->msr.vmx_eptp & PAGE_MASK) |
			      (uint64_t)(cpu->msr.vmx_secondary & (VMX2_MODE_BASED_EXECUTE | VMX2_PML)) << 32;
	}
	if (unlikely(watches_any_data(cpu))) {
		watched[0] = cpu->dr7;
		memcpy(&watched[1], cpu->dr, sizeof(cpu->dr));
	}
	bool same = known->controls == controls && known->pkru == pkru &&
		    known->nested_root == nested_root && known->nested_mode == nested_mode;

	if (likely(same && !(known->watched[0] | watched[0])))
		return false;
	if (same && !memcmp(known->watched, watched, sizeof(watched)))
		return false;
	known->nested_root = nested_root;
	known->nested_mode = nested_mode;
	known->controls = controls;
	known->pkru = pkru;
	memcpy(known->watched, watched, sizeof(watched));
	return true;
}

void tlb_select(struct cpu *cpu)
{
	enum tlb_context context = TLB_SUPERVISOR;
	bool ac = cpu->rflags & RFLAGS_AC;
	uint64_t space = current_space(cpu);

	if (unlikely(tlb_set(cpu)->space != space))
		switch_space(cpu, space);
	if (unlikely(inputs_changed(cpu)) && CHECK(TLB_CONTROLS, true))
		tlb_flush_all(cpu);
	if (cpu->cpl == 3)
		context = ac && cpu->cr0 & CR0_AM ? TLB_USER_ALIGNED : TLB_USER;
	else if (ac && cpu->cr4 & CR4_SMAP)
		context = TLB_SUPERVISOR_AC;
	cpu->tlb = &cpu->tlbs[context];
}

/* ---- translation ---- */

/* An intercepted #PF leaves CR2 alone (APM 2 15.12.15, SDM 3C 28.1). */
static _Noreturn void raise_page_fault(struct cpu *cpu, uint64_t linear, const struct walk *walked)
{
	if (unlikely(walked->nested)) {
		if (vmx_guest(cpu))
			vmx_nested_fault(cpu, walked->nested, walked->physical, linear);
		svm_nested_fault(cpu, walked->nested, walked->physical);
	}
	cpu->fault_address = linear;
	if (!guest_takes_page_fault(cpu, walked->error) && CHECK(PAGE_FAULT_CR2, true))
		cpu->cr2 = linear;
	cpu_raise(cpu, VECTOR_PF, walked->error);
}

static void note_large(struct cpu *cpu, uint64_t linear, uint64_t size)
{
	uint64_t low = linear & ~(size - 1), high = low + (size - 1);

	if (size == PAGE_SIZE)
		return;
	if (low < cpu->tlbs[0].large_low)
		cpu->tlbs[0].large_low = low;
	if (high > cpu->tlbs[0].large_high)
		cpu->tlbs[0].large_high = high;
}

void tlb_arm_write(struct cpu *cpu, unsigned access, uint64_t linear)
{
	struct tlb *tlb = context_of(cpu, access);
	struct tlb_slow *slow = &tlb->slow[tlb_index(linear)];
	struct tlb_hot *hot = &tlb->hot[tlb_index(linear)];

	if (slow->tag == ((linear & ~PAGE_MASK) | tlb->generation) && slow->rights & 1u << ACCESS_WRITE &&
	    slow->flags && *slow->flags == PAGE_DIRTY && !slow->watched) {
		hot->write_tag = (linear & ~PAGE_MASK) | tlb->write_generation;
		hot->host = (uintptr_t)slow->host - (linear & ~PAGE_MASK);
	}
}

static void fill(struct cpu *cpu, struct tlb *tlb, uint64_t linear, const struct walk *walked)
{
	struct tlb_slow *slow = &tlb->slow[tlb_index(linear)];
	struct tlb_hot *hot = &tlb->hot[tlb_index(linear)];
	bool apic = vmx_apic_page(cpu, walked->physical);
	bool device = apic || walked->physical == cpu->apic_page;
	struct memory_slot *memory = device ? NULL : phys_slot(cpu->memory, walked->physical);
	uint64_t page = linear & ~PAGE_MASK;

	*slow = (struct tlb_slow){.tag = page | tlb->generation,
				  .physical = walked->physical,
				  .rights = walked->rights,
				  .watched = page_is_watched(cpu, linear),
				  .apic = apic};
	if (CHECK(TLB_CLEAN, !walked->dirty))
		slow->rights &= ~(1u << ACCESS_WRITE);
	if (memory) {
		slow->host = memory->host + (walked->physical - memory->base);
		if (!memory->read_only)
			slow->flags = &memory->flags[(walked->physical - memory->base) / PAGE_SIZE];
	}
	*hot = (struct tlb_hot){.host = (uintptr_t)slow->host - page};
	if (slow->watched || !slow->host)
		return;
	if (slow->rights & 1u << ACCESS_READ)
		hot->read_tag = page | tlb->generation;
	if (slow->rights & 1u << ACCESS_WRITE && slow->flags && *slow->flags == PAGE_DIRTY)
		hot->write_tag = page | tlb->write_generation;
}

const struct tlb_slow *tlb_translate(struct cpu *cpu, uint64_t linear, unsigned access)
{
	struct tlb *tlb = context_of(cpu, access);
	struct tlb_slow *slow = &tlb->slow[tlb_index(linear)];
	uint32_t wanted = 1u << (access & (ACCESS_WRITE | ACCESS_EXECUTE));
	struct walk walked;

	if (slow->tag == ((linear & ~PAGE_MASK) | tlb->generation) && slow->rights & wanted)
		return slow;
	if (!walk(cpu, linear, access, &walked))
		raise_page_fault(cpu, linear, &walked);
	fill(cpu, tlb, linear, &walked);
	note_large(cpu, linear, walked.size);
	return slow;
}

void tlb_probe(struct cpu *cpu, uint64_t linear, unsigned access)
{
	struct tlb *tlb = context_of(cpu, access);
	struct tlb_slow *slow = &tlb->slow[tlb_index(linear)];
	uint32_t wanted = 1u << (access & (ACCESS_WRITE | ACCESS_EXECUTE));
	struct walk walked;

	if (slow->tag == ((linear & ~PAGE_MASK) | tlb->generation) && slow->rights & wanted)
		return;
	if (!walk(cpu, linear, access | ACCESS_PROBE, &walked))
		raise_page_fault(cpu, linear, &walked);
}
