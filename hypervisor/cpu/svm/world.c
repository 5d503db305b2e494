/* world.c: VMRUN and #VMEXIT (APM 2 15.5, 15.6). */
#include <string.h>

#include "cpu/checks.h"
#include "cpu/control.h"
#include "cpu/insn.h"
#include "cpu/mem/mem.h"
#include "cpu/mem/phys_internal.h"
#include "cpu/segment.h"
#include "cpu/svm/svm.h"
#include "x86/msr.h"

/* ---- a VMCB, or the host's save area, which is laid out as one ---- */

/* @host: the page in the host's memory, @stores: the same for writing; NULL where no slot holds it. */
struct vmcb {
	uint64_t address;
	const uint8_t *host;
	uint8_t *stores;
};

/* For reading; where @written for writing as well, as one write of the whole page. */
static struct vmcb vmcb_at(struct cpu *cpu, uint64_t address, bool written)
{
	const struct memory_slot *slot = phys_slot(cpu->memory, address);
	struct vmcb vmcb = {.address = address};

	if (likely(slot))
		vmcb.host = slot->host + (address - slot->base);
	if (written)
		vmcb.stores = phys_write_begin_as(CHECK_LOG_VMCB, cpu->memory, address, VMCB_SIZE);
	return vmcb;
}

static inline uint64_t field(struct cpu *cpu, const struct vmcb *vmcb, unsigned offset, unsigned width)
{
	uint64_t value = 0;

	if (unlikely(!vmcb->host))
		return physical_read(cpu, vmcb->address + offset, width);
	memcpy(&value, vmcb->host + offset, width);
	return value;
}

static inline void field_set(struct cpu *cpu, const struct vmcb *vmcb, unsigned offset, uint64_t value,
			     unsigned width)
{
	if (unlikely(!vmcb->stores))
		physical_write_as(CHECK_LOG_VMCB, cpu, vmcb->address + offset, value, width);
	else
		memcpy(vmcb->stores + offset, &value, width);
}

/* Bases are sign-extended from the linear-address width (15.5.1). */
static uint64_t canonicalize(const struct cpu *cpu, uint64_t linear)
{
	unsigned shift = 64u - cpu->profile->linear_bits;

	return (uint64_t)((int64_t)(linear << shift) >> shift);
}

static uint32_t attributes_from(uint64_t stored)
{
	return (uint32_t)((stored & 0xff) | (stored & 0xf00) << 4);
}

static uint64_t attributes_to(uint32_t attributes)
{
	if (attributes & SEG_UNUSABLE)
		return 0;
	return (attributes & 0xff) | (attributes >> 4 & 0xf00);
}

static void segment_store(struct cpu *cpu, const struct vmcb *vmcb, unsigned offset, const struct segment *segment)
{
	field_set(cpu, vmcb, offset, segment->selector, 2);
	field_set(cpu, vmcb, offset + 2, attributes_to(segment->attributes), 2);
	field_set(cpu, vmcb, offset + 4, segment->limit, 4);
	field_set(cpu, vmcb, offset + 8, segment->base, 8);
}

/* A segment whose P bit is 0 is a null one where @null says that there are any (15.5.1). */
static void segment_fetch(struct cpu *cpu, const struct vmcb *vmcb, unsigned offset, struct segment *segment, bool null)
{
	uint32_t attributes = attributes_from(field(cpu, vmcb, offset + 2, 2));

	if (null && !(attributes & SEG_P))
		attributes |= SEG_UNUSABLE;
	segment->selector = (uint16_t)field(cpu, vmcb, offset, 2);
	segment->attributes = attributes;
	segment->limit = (uint32_t)field(cpu, vmcb, offset + 4, 4);
	segment->base = canonicalize(cpu, field(cpu, vmcb, offset + 8, 8));
}

static void table_store(struct cpu *cpu, const struct vmcb *vmcb, unsigned offset, const struct table_register *table)
{
	field_set(cpu, vmcb, offset + 4, table->limit, 4);
	field_set(cpu, vmcb, offset + 8, table->base, 8);
}

static void table_fetch(struct cpu *cpu, const struct vmcb *vmcb, unsigned offset, struct table_register *table)
{
	table->limit = (uint16_t)field(cpu, vmcb, offset + 4, 4);
	table->base = canonicalize(cpu, field(cpu, vmcb, offset + 8, 8));
}

/* What both worlds save and load: in this order ES, CS, SS, DS. */
static const unsigned segment_offsets[] = {[ES] = VMCB_ES, [CS] = VMCB_CS, [SS] = VMCB_SS, [DS] = VMCB_DS};

static void world_store(struct cpu *cpu, const struct vmcb *vmcb)
{
	for (unsigned i = ES; i <= DS; i++)
		segment_store(cpu, vmcb, segment_offsets[i], &cpu->segment[i].s);
	table_store(cpu, vmcb, VMCB_GDTR, &cpu->gdtr);
	table_store(cpu, vmcb, VMCB_IDTR, &cpu->idtr);
	field_set(cpu, vmcb, VMCB_CPL, cpu->cpl, 1);
	field_set(cpu, vmcb, VMCB_EFER, cpu->efer, 8);
	field_set(cpu, vmcb, VMCB_CR4, cpu->cr4, 8);
	field_set(cpu, vmcb, VMCB_CR3, cpu->cr3, 8);
	field_set(cpu, vmcb, VMCB_CR0, cpu->cr0, 8);
	field_set(cpu, vmcb, VMCB_RFLAGS, rflags_get(cpu), 8);
	field_set(cpu, vmcb, VMCB_RIP, cpu->rip, 8);
	field_set(cpu, vmcb, VMCB_RSP, cpu->reg[RSP], 8);
	field_set(cpu, vmcb, VMCB_RAX, cpu->reg[RAX], 8);
}

#define CR0_DEFINED                                                                                          \
	(CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG)

/* LMA follows from LME and PG. @flags: RFLAGS. */
static void world_fetch(struct cpu *cpu, const struct vmcb *vmcb, uint64_t cr0, uint64_t flags, unsigned cpl)
{
	uint64_t efer = field(cpu, vmcb, VMCB_EFER, 8) & ~(uint64_t)EFER_LMA;

	for (unsigned i = ES; i <= DS; i++)
		segment_fetch(cpu, vmcb, segment_offsets[i], &cpu->segment[i].s, i != CS);
	cpu->segment[SS].s.attributes = (cpu->segment[SS].s.attributes & ~SEG_DPL) | cpl << SEG_DPL_SHIFT;
	table_fetch(cpu, vmcb, VMCB_GDTR, &cpu->gdtr);
	table_fetch(cpu, vmcb, VMCB_IDTR, &cpu->idtr);
	cpu->cr0 = (cr0 & CR0_DEFINED) | CR0_ET;
	cpu->cr3 = field(cpu, vmcb, VMCB_CR3, 8);
	cpu->cr4 = field(cpu, vmcb, VMCB_CR4, 8);
	cpu->efer = efer & EFER_LME && cr0 & CR0_PG ? efer | EFER_LMA : efer;
	if (cpu->efer & EFER_LMA)
		flags &= ~(uint64_t)RFLAGS_VM;
	flags = (flags & RFLAGS_DEFINED) | RFLAGS_FIXED;
	flags_set(&cpu->lazy, flags);
	cpu->rflags = flags;
	cpu->rip = field(cpu, vmcb, VMCB_RIP, 8);
	cpu->reg[RSP] = field(cpu, vmcb, VMCB_RSP, 8);
	cpu->reg[RAX] = field(cpu, vmcb, VMCB_RAX, 8);
}

/* After a change of worlds. Translations go by ASID: cpu_mode_changed() comes to those of this world. */
static void world_changed(struct cpu *cpu)
{
	cpu->activity = ACTIVITY_ACTIVE;
	cpu->wait.armed = false;
	cpu->dr6_pending = 0;
	cpu->step_tf = false;
	cpu->delivering_depth = 0;
	cpu_mode_changed(cpu);
	segment_derive_all(cpu);
}

/* ---- consistency (15.5.1) ---- */

static uint64_t efer_mbz(const struct cpu *cpu)
{
	return ~control_efer_valid(cpu);
}

static bool control_registers_valid(struct cpu *cpu, uint64_t cr0, uint64_t cr3, uint64_t cr4, uint64_t efer)
{
	if (CHECK(VMRUN_CR0_NW, !(cr0 & CR0_CD) && cr0 & CR0_NW))
		return false;
	if (CHECK(VMRUN_CR0_UPPER, cr0 >> 32))
		return false;
	if (CHECK(VMRUN_CR3, cr3 & ~cpu->physical_mask))
		return false;
	if (CHECK(VMRUN_CR4, cr4 & ~control_cr4_valid(cpu)))
		return false;
	return !CHECK(VMRUN_EFER, efer & efer_mbz(cpu));
}

static bool long_mode_valid(struct cpu *cpu, const struct vmcb *vmcb, uint64_t cr0, uint64_t cr4, uint64_t efer)
{
	bool long_paging = efer & EFER_LME && cr0 & CR0_PG;
	uint32_t cs = attributes_from(field(cpu, vmcb, VMCB_CS + 2, 2));

	if (CHECK(VMRUN_LONG_PAE, long_paging && !(cr4 & CR4_PAE)))
		return false;
	if (CHECK(VMRUN_LONG_PE, long_paging && !(cr0 & CR0_PE)))
		return false;
	return !CHECK(VMRUN_LONG_CS, long_paging && cr4 & CR4_PAE && cs & SEG_L && cs & SEG_DB);
}

/* What of a world is checked, the host's as well (15.6). */
static bool world_valid(struct cpu *cpu, const struct vmcb *vmcb)
{
	uint64_t cr0 = field(cpu, vmcb, VMCB_CR0, 8), cr4 = field(cpu, vmcb, VMCB_CR4, 8);
	uint64_t efer = field(cpu, vmcb, VMCB_EFER, 8);

	if (CHECK(VMRUN_SVME, !(efer & EFER_SVME)))
		return false;
	return control_registers_valid(cpu, cr0, field(cpu, vmcb, VMCB_CR3, 8), cr4, efer) &&
	       long_mode_valid(cpu, vmcb, cr0, cr4, efer);
}

/* PAT types 2, 3 and above 7 are reserved (7.8.1). */
static bool pat_valid(uint64_t pat)
{
	for (unsigned i = 0; i < 64; i += 8) {
		unsigned type = pat >> i & 0xff;

		if (type > 7 || type == 2 || type == 3)
			return false;
	}
	return true;
}

/* 15.25.3, 15.25.4 */
static bool nested_valid(struct cpu *cpu, const struct vmcb *vmcb)
{
	if (!(cpu->msr.svm_nested & SVM_NP_ENABLE))
		return true;
	if (CHECK(VMRUN_NP_PAGING, !(cpu->cr0 & CR0_PG)))
		return false;
	if (CHECK(VMRUN_NCR3, cpu->msr.svm_ncr3 & ~cpu->physical_mask))
		return false;
	return !CHECK(VMRUN_G_PAT, !pat_valid(field(cpu, vmcb, VMCB_G_PAT, 8)));
}

static bool beyond(const struct cpu *cpu, uint64_t base, uint64_t size)
{
	return base > cpu->physical_mask || size - 1 > cpu->physical_mask - base;
}

static bool controls_valid(struct cpu *cpu, const struct vmcb *vmcb)
{
	const struct vcpu_state *m = &cpu->msr;

	if (CHECK(VMRUN_INTERCEPT, !svm_intercepts(cpu, SVM_EXIT_VMRUN)))
		return false;
	if (CHECK(VMRUN_ASID, m->svm_asid == 0))
		return false;
	if (CHECK(VMRUN_IOPM, beyond(cpu, m->svm_iopm, SVM_IOPM_SIZE)))
		return false;
	if (CHECK(VMRUN_MSRPM, beyond(cpu, m->svm_msrpm, SVM_MSRPM_SIZE)))
		return false;
	if (CHECK(VMRUN_VNMI, m->svm_interrupt & SVM_V_NMI_ENABLE && !svm_intercepts(cpu, SVM_EXIT_NMI)))
		return false;
	return nested_valid(cpu, vmcb);
}

static bool guest_valid(struct cpu *cpu, const struct vmcb *vmcb)
{
	if (CHECK(VMRUN_DR6, field(cpu, vmcb, VMCB_DR6, 8) >> 32))
		return false;
	if (CHECK(VMRUN_DR7, field(cpu, vmcb, VMCB_DR7, 8) >> 32))
		return false;
	return world_valid(cpu, vmcb) && controls_valid(cpu, vmcb);
}

/* ---- VMRUN ---- */

/* Bits of a control word without whose feature they are not there. */
static uint64_t featured(const struct cpu *cpu, enum feature feature, uint64_t value, uint64_t bits)
{
	return cpu_has(cpu, feature) ? value : value & ~bits;
}

static void load_interrupt_controls(struct cpu *cpu, const struct vmcb *vmcb)
{
	uint64_t value = field(cpu, vmcb, VMCB_INTERRUPT, 8);

	value = featured(cpu, FEATURE_svm_vgif, value, SVM_V_GIF_ENABLE);
	cpu->msr.svm_interrupt = featured(cpu, FEATURE_svm_vnmi, value, SVM_V_NMI_ENABLE);
}

static void load_pause_filter(struct cpu *cpu, const struct vmcb *vmcb)
{
	bool filter = cpu_has(cpu, FEATURE_svm_pause), threshold = cpu_has(cpu, FEATURE_svm_pause_threshold);

	cpu->msr.svm_pause_count = filter ? (uint32_t)field(cpu, vmcb, VMCB_PAUSE_COUNT, 2) : 0;
	cpu->msr.svm_pause_threshold = threshold ? (uint32_t)field(cpu, vmcb, VMCB_PAUSE_THRESHOLD, 2) : 0;
	cpu->msr.svm_pause_left = cpu->msr.svm_pause_count;
	cpu->msr.svm_pause_last = control_tsc(cpu);
}

static void load_controls(struct cpu *cpu, const struct vmcb *vmcb)
{
	struct vcpu_state *m = &cpu->msr;

	for (unsigned i = 0; i < VMCB_INTERCEPT_WORDS; i++)
		m->svm_intercept[i] = (uint32_t)field(cpu, vmcb, VMCB_INTERCEPTS(i), 4);
	load_interrupt_controls(cpu, vmcb);
	load_pause_filter(cpu, vmcb);
	m->svm_iopm = field(cpu, vmcb, VMCB_IOPM_BASE, 8) & ~0xfffull;
	m->svm_msrpm = field(cpu, vmcb, VMCB_MSRPM_BASE, 8) & ~0xfffull;
	m->svm_tsc_offset = field(cpu, vmcb, VMCB_TSC_OFFSET, 8);
	m->svm_asid = (uint32_t)field(cpu, vmcb, VMCB_ASID, 4);
	m->svm_nested = featured(cpu, FEATURE_svm_npt, field(cpu, vmcb, VMCB_NESTED, 8), SVM_NP_ENABLE);
	m->svm_ncr3 = field(cpu, vmcb, VMCB_NCR3, 8);
	m->svm_virtual = featured(cpu, FEATURE_svm_vls, field(cpu, vmcb, VMCB_VIRTUAL, 8), SVM_VLS_ENABLE);
	m->svm_virtual = featured(cpu, FEATURE_svm_lbr, m->svm_virtual, SVM_LBR_ENABLE);
	m->svm_host_efer = cpu->efer;
	m->svm_host_cr4 = cpu->cr4;
	m->svm_host_if = !!(cpu->rflags & RFLAGS_IF);
}

/* The privilege level: 0 in real mode, 3 in virtual-8086 mode, else the field's (15.5.1). */
static unsigned guest_cpl(struct cpu *cpu, const struct vmcb *vmcb, uint64_t cr0, uint64_t flags)
{
	if (!(cr0 & CR0_PE))
		return 0;
	return flags & RFLAGS_VM ? 3 : field(cpu, vmcb, VMCB_CPL, 1) & 3;
}

/*
 * TLB_CONTROL (15.16.1): 1 all spaces, 3 and 7 this one's, of which 7 may keep global pages. Other values are
 * reserved, and those two are where CPUID has no FlushByAsid: all goes.
 */
static void control_tlb(struct cpu *cpu, const struct vmcb *vmcb)
{
	uint64_t control = field(cpu, vmcb, VMCB_TLB_CONTROL, 1);
	bool one = (control == 3 || control == 7) && cpu_has(cpu, FEATURE_svm_flush_asid);

	if (CHECK(VMRUN_FLUSH_ASID, one))
		tlb_flush_spaces(cpu, cpu->msr.svm_asid, ~0ull);
	else if (CHECK(VMRUN_FLUSH_ALL, control && !one))
		tlb_flush_spaces(cpu, 0, 0);
}

static void load_guest(struct cpu *cpu, const struct vmcb *vmcb)
{
	uint64_t cr0 = field(cpu, vmcb, VMCB_CR0, 8), flags = field(cpu, vmcb, VMCB_RFLAGS, 8);

	world_fetch(cpu, vmcb, cr0, flags, guest_cpl(cpu, vmcb, cr0, flags));
	cpu->cr2 = field(cpu, vmcb, VMCB_CR2, 8);
	cpu->dr6 = DR6_FIXED_1 | (field(cpu, vmcb, VMCB_DR6, 8) & DR6_WRITABLE);
	cpu->dr7 = DR7_FIXED_1 | (field(cpu, vmcb, VMCB_DR7, 8) & DR7_WRITABLE);
	if (cpu->msr.svm_nested & SVM_NP_ENABLE)
		cpu->msr.pat = field(cpu, vmcb, VMCB_G_PAT, 8);
	cpu->shadow = field(cpu, vmcb, VMCB_INTERRUPT_SHADOW, 8) & 1 ? SHADOW_STI : SHADOW_NONE;
	world_changed(cpu);
}

/* PAE paging without nested tables has its PDPTE registers filled; with them they are read by each walk
 * (15.25.10). */
static bool guest_pdptes(struct cpu *cpu)
{
	bool pae = cpu->cr0 & CR0_PG && cpu->cr4 & CR4_PAE && !(cpu->efer & EFER_LMA);

	if (!pae || svm_nested_paging(cpu))
		return true;
	bool valid = pdptes_load(cpu, cpu->cr3);
	return !CHECK(VMRUN_PDPTE, !valid);
}

/* ---- LBR virtualization (15.23) ---- */

static bool own_branch_records(const struct cpu *cpu) { return cpu->msr.svm_virtual & SVM_LBR_ENABLE; }

/* The registers of table B-2, in their order from VMCB_DBGCTL on. */
static void branch_records_store(struct cpu *cpu, const struct vmcb *vmcb)
{
	const uint64_t *record = &cpu->msr.debugctl;

	for (unsigned i = 0; i < 5; i++)
		field_set(cpu, vmcb, VMCB_DBGCTL + 8 * i, record[i], 8);
}

static void branch_records_load(struct cpu *cpu, const struct vmcb *vmcb)
{
	uint64_t *record = &cpu->msr.debugctl;

	for (unsigned i = 0; i < 5; i++)
		record[i] = field(cpu, vmcb, VMCB_DBGCTL + 8 * i, 8);
	cpu->msr.debugctl &= DEBUGCTL_AMD;
}

static void exit_invalid(struct cpu *cpu);

/*
 * The event is one that the guest's mode can have: looked at once the mode is loaded. With virtual NMIs an
 * injected NMI masks others (15.21.10).
 */
static bool injection_valid(struct cpu *cpu, const struct vmcb *vmcb, struct event *event)
{
	bool valid = svm_parse_injection(cpu, field(cpu, vmcb, VMCB_EVENTINJ, 8),
					 field(cpu, vmcb, VMCB_NRIP, 8), event);

	if (CHECK(VMRUN_EVENTINJ, !valid))
		return false;
	if (CHECK(VMRUN_V_NMI_MASK, valid && event->kind == EVENT_NMI && cpu->msr.svm_interrupt & SVM_V_NMI_ENABLE))
		cpu->msr.svm_interrupt |= SVM_V_NMI_MASK;
	return true;
}

void svm_enter(struct cpu *cpu, uint64_t address)
{
	struct vmcb host = vmcb_at(cpu, cpu->msr.vm_hsave_pa, true), page = vmcb_at(cpu, address, false);
	const struct vmcb *vmcb = &page;
	struct event event = {.kind = EVENT_NONE};

	cpu->rip = cpu_next_rip(cpu);
	cpu->retired = cpu_retired(cpu) + 1;
	cpu->insn = NULL;
	cpu->msr.svm_vmcb = address;
	if (cpu->msr.svm_smm_guest)
		cpu->msr.svm_smm_guest = SVM_SMM_USED;
	world_store(cpu, &host);
	field_set(cpu, &host, VMCB_G_PAT, cpu->msr.pat, 8);
	load_controls(cpu, vmcb);
	cpu_note(cpu, "VMRUN %#llx, ASID %u", (unsigned long long)address, cpu->msr.svm_asid);
	if (!guest_valid(cpu, vmcb)) {
		exit_invalid(cpu);
		cpu_switch(cpu);
	}
	if (field(cpu, vmcb, VMCB_EFER, 8) & EFER_LMSLE)
		cpu_unmodelled(cpu, "EFER.LMSLE: segment limits in 64-bit mode");
	control_tlb(cpu, vmcb);
	if (CHECK(VMRUN_LBR, own_branch_records(cpu))) {
		branch_records_store(cpu, &host);
		branch_records_load(cpu, vmcb);
	}
	cpu->msr.svm_guest = true;
	load_guest(cpu, vmcb);
	if (!guest_pdptes(cpu) || !injection_valid(cpu, vmcb, &event)) {
		exit_invalid(cpu);
		cpu_switch(cpu);
	}
	cpu->msr.svm_gif_clear = false;
	cpu->injecting = event.kind != EVENT_NONE;
	cpu->injected = event;
	cpu_switch(cpu);
}

/* ---- #VMEXIT ---- */

static void save_guest(struct cpu *cpu, const struct vmcb *vmcb)
{
	enum shadow shadow = cpu->shadow_was != SHADOW_NONE ? cpu->shadow_was : cpu->shadow;

	world_store(cpu, vmcb);
	/* An instruction that did not complete has not used RF up. */
	field_set(cpu, vmcb, VMCB_RFLAGS, rflags_get(cpu) | cpu->resume_was, 8);
	field_set(cpu, vmcb, VMCB_CR2, cpu->cr2, 8);
	field_set(cpu, vmcb, VMCB_DR6, cpu->dr6, 8);
	field_set(cpu, vmcb, VMCB_DR7, cpu->dr7, 8);
	if (cpu->msr.svm_nested & SVM_NP_ENABLE)
		field_set(cpu, vmcb, VMCB_G_PAT, cpu->msr.pat, 8);
	if (CHECK(VMEXIT_LBR, own_branch_records(cpu)))
		branch_records_store(cpu, vmcb);
	field_set(cpu, vmcb, VMCB_INTERRUPT_SHADOW,
		  (field(cpu, vmcb, VMCB_INTERRUPT_SHADOW, 8) & ~1ull) | (shadow != SHADOW_NONE), 8);
	/* V_TPR, V_IRQ, the virtual GIF and NMI; what is above them does not change. */
	field_set(cpu, vmcb, VMCB_INTERRUPT, cpu->msr.svm_interrupt & 0xffff, 2);
}

static void save_reason(struct cpu *cpu, const struct vmcb *vmcb, const struct svm_exit_info *info)
{
	uint64_t injected = field(cpu, vmcb, VMCB_EVENTINJ, 8);

	field_set(cpu, vmcb, VMCB_EXITCODE, (uint64_t)(int64_t)info->code, 8);
	field_set(cpu, vmcb, VMCB_EXITINFO1, info->info1, 8);
	field_set(cpu, vmcb, VMCB_EXITINFO2, info->info2, 8);
	field_set(cpu, vmcb, VMCB_EXITINTINFO,
		  cpu->delivering_depth ? svm_exit_int_info(&cpu->delivering) : 0, 8);
	field_set(cpu, vmcb, VMCB_EVENTINJ, injected & ~SVM_EVENT_VALID, 8);
	if (CHECK(VMEXIT_NRIP, cpu_has(cpu, FEATURE_svm_nrips)))
		field_set(cpu, vmcb, VMCB_NRIP, info->next_rip, 8);
	if (!cpu_has(cpu, FEATURE_svm_decode))
		return;
	field_set(cpu, vmcb, VMCB_FETCHED, info->fetched[0], 1);
	for (unsigned i = 1; i <= info->fetched[0]; i++)
		field_set(cpu, vmcb, VMCB_FETCHED + i, info->fetched[i], 1);
}

/* Controls are cleared inside of the processor; the guest's CR2, DR6, FS, GS, LDTR and TR stay. */
static void clear_controls(struct cpu *cpu)
{
	struct vcpu_state *m = &cpu->msr;

	m->svm_guest = false;
	m->svm_host_if = false;
	memset(m->svm_intercept, 0, sizeof(m->svm_intercept));
	m->svm_asid = 0;
	m->svm_vmcb = m->svm_iopm = m->svm_msrpm = m->svm_tsc_offset = m->svm_interrupt = 0;
	m->svm_nested = m->svm_ncr3 = m->svm_virtual = m->svm_host_efer = m->svm_host_cr4 = 0;
	m->svm_pause_count = m->svm_pause_threshold = m->svm_pause_left = 0;
	m->svm_pause_last = 0;
}

/* Whether the host's PDPTE registers hold what its CR3 leads to. */
static bool host_pdptes(struct cpu *cpu)
{
	bool pae = cpu->cr0 & CR0_PG && cpu->cr4 & CR4_PAE && !(cpu->efer & EFER_LMA);

	return !pae || pdptes_load(cpu, cpu->cr3);
}

/* A host that began VMRUN with TF = 1 has its trap behind it now (15.5.1). */
static void load_host(struct cpu *cpu)
{
	struct vmcb page = vmcb_at(cpu, cpu->msr.vm_hsave_pa, false), *host = &page;
	bool valid = world_valid(cpu, host), own_pat = cpu->msr.svm_nested & SVM_NP_ENABLE;
	bool records = cpu->msr.svm_guest && own_branch_records(cpu);
	uint64_t flags = field(cpu, host, VMCB_RFLAGS, 8) & ~(uint64_t)RFLAGS_VM;
	uint64_t cr0 = field(cpu, host, VMCB_CR0, 8) | CR0_PE;

	clear_controls(cpu);
	world_fetch(cpu, host, cr0, flags, 0);
	cpu->dr7 = DR7_FIXED_1;
	if (own_pat) /* without nested paging the guest writes the host's (15.25.8) */
		cpu->msr.pat = field(cpu, host, VMCB_G_PAT, 8);
	if (CHECK(VMEXIT_LBR, records))
		branch_records_load(cpu, host);
	cpu->msr.svm_gif_clear = true;
	cpu->shadow = cpu->shadow_was = SHADOW_NONE;
	cpu->resume_was = 0;
	cpu->injecting = false;
	world_changed(cpu);
	cpu->step_tf = cpu->rflags & RFLAGS_TF;
	valid = host_pdptes(cpu) && valid;
	if (CHECK(VMEXIT_HOST_STATE, !valid))
		cpu->activity = ACTIVITY_SHUTDOWN;
}

static const struct {
	int code;
	const char *name;
} exit_names[] = {
#define SVM_EXIT(code, name) {code, #name},
#include "x86/svm_exits.def"
#undef SVM_EXIT
};

/* The name of a range is that of its first code. */
static const char *exit_name(int code)
{
	const char *name = "INVALID";

	for (size_t i = 0; i < sizeof(exit_names) / sizeof(exit_names[0]) && exit_names[i].code <= code; i++)
		name = exit_names[i].name;
	return name;
}

static void note_exit(struct cpu *cpu, const struct svm_exit_info *info)
{
	if (unlikely(cpu->tracing))
		cpu_note(cpu, "#VMEXIT %s (%#x) %#llx %#llx", exit_name(info->code), (unsigned)info->code,
			 (unsigned long long)info->info1, (unsigned long long)info->info2);
}

void svm_exit(struct cpu *cpu, const struct svm_exit_info *info)
{
	struct vmcb vmcb = vmcb_at(cpu, cpu->msr.svm_vmcb, true);
	bool nmi = cpu->delivering_depth && cpu->delivering.kind == EVENT_NMI;

	if (CHECK(VMEXIT_V_NMI_MASK, nmi && cpu->msr.svm_interrupt & SVM_V_NMI_ENABLE))
		cpu->msr.svm_interrupt &= ~SVM_V_NMI_MASK;
	cpu->retired++;
	note_exit(cpu, info);
	save_guest(cpu, &vmcb);
	save_reason(cpu, &vmcb, info);
	load_host(cpu);
}

/* No guest has run: nothing of it is written back. */
static void exit_invalid(struct cpu *cpu)
{
	struct svm_exit_info info = {.code = SVM_EXIT_INVALID};
	struct vmcb vmcb = vmcb_at(cpu, cpu->msr.svm_vmcb, true);

	note_exit(cpu, &info);
	save_reason(cpu, &vmcb, &info);
	load_host(cpu);
}

void svm_exit_insn(struct cpu *cpu, const struct svm_exit_info *info)
{
	cpu_leave_insn(cpu);
	svm_exit(cpu, info);
	cpu_switch(cpu);
}

void svm_reset(struct cpu *cpu)
{
	clear_controls(cpu);
	cpu->msr.svm_smm_guest = 0;
	cpu->msr.svm_gif_clear = false;
	cpu->injecting = false;
	cpu->shadow_was = SHADOW_NONE;
	cpu->resume_was = 0;
}

void svm_resume(struct cpu *cpu, const struct svm_suspended *suspended)
{
	struct vcpu_state *m = &cpu->msr;
	struct vmcb vmcb = vmcb_at(cpu, suspended->vmcb & cpu->physical_mask & ~0xfffull, false);

	if (m->svm_smm_guest == SVM_SMM_USED) {
		load_controls(cpu, &vmcb);
		m->svm_vmcb = vmcb.address;
		m->svm_interrupt = suspended->interrupt;
		m->svm_host_efer = suspended->host_efer;
		m->svm_host_cr4 = suspended->host_cr4;
		m->svm_ncr3 = suspended->ncr3;
		m->svm_host_if = suspended->host_if;
	}
	/* A guest has GIF = 1; what runs in SMM alone may have left it 0 by an exit of its own. */
	if (m->svm_smm_guest)
		m->svm_gif_clear = false;
	m->svm_guest = m->svm_smm_guest != 0;
	m->svm_smm_guest = 0;
}

/* ---- VMSAVE, VMLOAD ---- */

bool svm_host_64bit(struct cpu *cpu)
{
	struct vmcb host = vmcb_at(cpu, cpu->msr.vm_hsave_pa, false);

	return cpu->msr.svm_host_efer & EFER_LMA && attributes_from(field(cpu, &host, VMCB_CS + 2, 2)) & SEG_L;
}

static const struct {
	unsigned offset;
	size_t field; /* of struct vcpu_state */
	bool canonical;
} msr_fields[] = {
	{VMCB_KERNEL_GS, offsetof(struct vcpu_state, kernel_gs_base), true},
	{VMCB_STAR, offsetof(struct vcpu_state, star), false},
	{VMCB_LSTAR, offsetof(struct vcpu_state, lstar), true},
	{VMCB_CSTAR, offsetof(struct vcpu_state, cstar), true},
	{VMCB_SFMASK, offsetof(struct vcpu_state, fmask), false},
	{VMCB_SYSENTER_CS, offsetof(struct vcpu_state, sysenter_cs), false},
	{VMCB_SYSENTER_ESP, offsetof(struct vcpu_state, sysenter_esp), false},
	{VMCB_SYSENTER_EIP, offsetof(struct vcpu_state, sysenter_eip), false},
};
#define MSR_FIELDS (sizeof(msr_fields) / sizeof(msr_fields[0]))

static uint64_t *msr_field(struct cpu *cpu, unsigned i)
{
	return (uint64_t *)((char *)&cpu->msr + msr_fields[i].field);
}

void svm_save(struct cpu *cpu, uint64_t address)
{
	struct vmcb page = vmcb_at(cpu, address, true), *vmcb = &page;

	segment_store(cpu, vmcb, VMCB_FS, &cpu->segment[FS].s);
	segment_store(cpu, vmcb, VMCB_GS, &cpu->segment[GS].s);
	segment_store(cpu, vmcb, VMCB_LDTR, &cpu->ldtr.s);
	segment_store(cpu, vmcb, VMCB_TR, &cpu->tr.s);
	for (unsigned i = 0; i < MSR_FIELDS; i++)
		field_set(cpu, vmcb, msr_fields[i].offset, *msr_field(cpu, i), 8);
}

/* SFMASK and the SYSENTER registers of this processor have 32 bits. */
void svm_load(struct cpu *cpu, uint64_t address)
{
	struct vmcb page = vmcb_at(cpu, address, false), *vmcb = &page;

	segment_fetch(cpu, vmcb, VMCB_FS, &cpu->segment[FS].s, true);
	segment_fetch(cpu, vmcb, VMCB_GS, &cpu->segment[GS].s, true);
	segment_fetch(cpu, vmcb, VMCB_LDTR, &cpu->ldtr.s, true);
	segment_fetch(cpu, vmcb, VMCB_TR, &cpu->tr.s, false);
	for (unsigned i = 0; i < MSR_FIELDS; i++) {
		uint64_t value = field(cpu, vmcb, msr_fields[i].offset, 8);
		bool whole = msr_fields[i].canonical || msr_fields[i].offset == VMCB_STAR;

		if (msr_fields[i].canonical)
			value = canonicalize(cpu, value);
		*msr_field(cpu, i) = whole ? value : (uint32_t)value;
	}
	segment_derive(cpu, FS);
	segment_derive(cpu, GS);
}
