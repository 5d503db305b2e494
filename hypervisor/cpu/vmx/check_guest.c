/*
 * check_guest.c: VM entry's checks of the guest's state (SDM 3C 27.3.1), in the manual's order, which a
 * processor need not keep. A failure here is a VM exit; its qualification tells of three checks alone (27.8).
 *
 * Not demanded, as the manual leaves it to the processor: blocking by STI being 0 where an NMI is injected.
 */
#include "cpu/checks.h"
#include "cpu/control.h"
#include "cpu/mem/mem.h"
#include "cpu/vmx/check.h"
#include "x86/msr.h"

struct guest_segment {
	uint16_t selector;
	uint32_t limit, rights;
	uint64_t base;
	bool usable;
};

/* In the order of their encodings, which is that of enum segment_register, then these. */
enum { LDTR = SEGMENT_COUNT, TR, SEGMENT_FIELDS };

struct guest {
	struct cpu *cpu;
	struct vmx_entry_controls c;
	uint64_t cr0, cr4, rflags;
	struct guest_segment segment[SEGMENT_FIELDS];
	bool unrestricted, long_mode, vm86;
	uint32_t event; /* the entry interruption information; 0 where it is not valid */
};

static uint64_t read(const struct guest *g, enum vmcs_field field) { return vmcs_read(g->cpu, field); }

static struct guest_segment segment_read(struct cpu *cpu, unsigned i)
{
	struct guest_segment s = {
		.selector = (uint16_t)vmcs_read(cpu, VMCS_GUEST_ES + 2 * i),
		.limit = (uint32_t)vmcs_read(cpu, VMCS_GUEST_ES_LIMIT + 2 * i),
		.rights = (uint32_t)vmcs_read(cpu, VMCS_GUEST_ES_RIGHTS + 2 * i),
		.base = vmcs_read(cpu, VMCS_GUEST_ES_BASE + 2 * i),
	};

	s.usable = !(s.rights & SEG_UNUSABLE);
	return s;
}

static struct guest guest_read(struct cpu *cpu)
{
	struct guest g = {.cpu = cpu,
			  .c = vmx_entry_controls(cpu),
			  .cr0 = vmcs_read(cpu, VMCS_GUEST_CR0),
			  .cr4 = vmcs_read(cpu, VMCS_GUEST_CR4),
			  .rflags = vmcs_read(cpu, VMCS_GUEST_RFLAGS),
			  .event = (uint32_t)vmcs_read(cpu, VMCS_ENTRY_INTERRUPTION_INFO)};

	for (unsigned i = 0; i < SEGMENT_FIELDS; i++)
		g.segment[i] = segment_read(cpu, i);
	g.unrestricted = g.c.secondary & VMX2_UNRESTRICTED_GUEST;
	g.long_mode = g.c.entry & VMX_ENTRY_IA32E;
	g.vm86 = g.rflags & RFLAGS_VM;
	if (!(g.event & VMX_EVENT_VALID))
		g.event = 0;
	return g;
}

static bool canonical(const struct guest *g, uint64_t linear)
{
	return vmx_canonical(linear, g->cpu->profile->linear_bits);
}

/* ---- control registers, debug registers, MSRs (27.3.1.1) ---- */

static bool control_registers_valid(const struct guest *g)
{
	if (CHECK(VMX_GUEST_CR0, !vmx_cr0_supported(g->cr0, g->unrestricted)))
		return false;
	if (CHECK(VMX_GUEST_CR0_PG_PE, g->cr0 & CR0_PG && !(g->cr0 & CR0_PE)))
		return false;
	if (CHECK(VMX_GUEST_CR4, !vmx_cr4_valid(g->cpu, g->cr4)))
		return false;
	if (CHECK(VMX_GUEST_LONG_PG, g->long_mode && !(g->cr0 & CR0_PG)))
		return false;
	if (CHECK(VMX_GUEST_LONG_PAE, g->long_mode && !(g->cr4 & CR4_PAE)))
		return false;
	if (CHECK(VMX_GUEST_LEGACY_PCIDE, !g->long_mode && g->cr4 & CR4_PCIDE))
		return false;
	return !CHECK(VMX_GUEST_CR3, read(g, VMCS_GUEST_CR3) & ~g->cpu->physical_mask);
}

static bool efer_valid(const struct guest *g)
{
	uint64_t efer = read(g, VMCS_GUEST_EFER);
	bool lme = efer & EFER_LME, lma = efer & EFER_LMA;

	if (!(g->c.entry & VMX_ENTRY_LOAD_EFER))
		return true;
	if (CHECK(VMX_GUEST_EFER_RESERVED, efer & ~control_efer_valid(g->cpu)))
		return false;
	if (CHECK(VMX_GUEST_EFER_LMA, lma != g->long_mode))
		return false;
	return !CHECK(VMX_GUEST_EFER_LME, g->cr0 & CR0_PG && lma != lme);
}

#define DEBUGCTL_VALID (DEBUGCTL_LBR | DEBUGCTL_BTF) /* as WRMSR takes them */

static bool other_registers_valid(const struct guest *g)
{
	bool debug = g->c.entry & VMX_ENTRY_LOAD_DEBUG;

	if (CHECK(VMX_GUEST_DEBUGCTL, debug && read(g, VMCS_GUEST_DEBUGCTL) & ~(uint64_t)DEBUGCTL_VALID))
		return false;
	if (CHECK(VMX_GUEST_DR7, debug && read(g, VMCS_GUEST_DR7) >> 32))
		return false;
	if (CHECK(VMX_GUEST_SYSENTER_ESP, !canonical(g, read(g, VMCS_GUEST_SYSENTER_ESP))))
		return false;
	if (CHECK(VMX_GUEST_SYSENTER_EIP, !canonical(g, read(g, VMCS_GUEST_SYSENTER_EIP))))
		return false;
	if (CHECK(VMX_GUEST_PAT, g->c.entry & VMX_ENTRY_LOAD_PAT && !vmx_pat_valid(read(g, VMCS_GUEST_PAT))))
		return false;
	return efer_valid(g);
}

/* ---- segment registers (27.3.1.2) ---- */

static bool selectors_valid(const struct guest *g)
{
	const struct guest_segment *s = g->segment;

	if (CHECK(VMX_GUEST_TR_TI, s[TR].selector & SELECTOR_TI))
		return false;
	if (CHECK(VMX_GUEST_LDTR_TI, s[LDTR].usable && s[LDTR].selector & SELECTOR_TI))
		return false;
	return !CHECK(VMX_GUEST_SS_RPL,
		      !g->vm86 && !g->unrestricted && (s[SS].selector ^ s[CS].selector) & SELECTOR_RPL);
}

static bool bases_valid(const struct guest *g)
{
	const struct guest_segment *s = g->segment;

	if (CHECK(VMX_GUEST_TR_BASE, !canonical(g, s[TR].base)))
		return false;
	if (CHECK(VMX_GUEST_FS_BASE, !canonical(g, s[FS].base)))
		return false;
	if (CHECK(VMX_GUEST_GS_BASE, !canonical(g, s[GS].base)))
		return false;
	if (CHECK(VMX_GUEST_LDTR_BASE, s[LDTR].usable && !canonical(g, s[LDTR].base)))
		return false;
	if (CHECK(VMX_GUEST_CS_BASE, s[CS].base >> 32))
		return false;
	if (CHECK(VMX_GUEST_SS_BASE, s[SS].usable && s[SS].base >> 32))
		return false;
	if (CHECK(VMX_GUEST_DS_BASE, s[DS].usable && s[DS].base >> 32))
		return false;
	return !CHECK(VMX_GUEST_ES_BASE, s[ES].usable && s[ES].base >> 32);
}

#define RIGHTS_VM86 0xf3u

static bool vm86_segments_valid(const struct guest *g)
{
	for (unsigned i = ES; i <= GS; i++) {
		const struct guest_segment *s = &g->segment[i];

		if (CHECK(VMX_GUEST_VM86_BASE, s->base != (uint64_t)s->selector << 4) ||
		    CHECK(VMX_GUEST_VM86_LIMIT, s->limit != 0xffff) ||
		    CHECK(VMX_GUEST_VM86_RIGHTS, s->rights != RIGHTS_VM86))
			return false;
	}
	return true;
}

static unsigned type(const struct guest_segment *s) { return s->rights & SEG_TYPE; }
static unsigned dpl(const struct guest_segment *s) { return (s->rights & SEG_DPL) >> SEG_DPL_SHIFT; }

#define TYPE_DATA   3u /* read/write, accessed, expand-up */
#define RIGHTS_LOW  0xf00u
#define RIGHTS_HIGH 0xfffe0000u

/* Granularity and limit: pages where the upper bits are not 0, bytes where the lower ones are not all 1. */
static bool bytes_wanted(const struct guest_segment *s) { return (s->limit & 0xfff) != 0xfff; }
static bool pages_wanted(const struct guest_segment *s) { return s->limit >> 20; }

static bool cs_valid(const struct guest *g)
{
	const struct guest_segment *cs = &g->segment[CS], *ss = &g->segment[SS];
	bool data = type(cs) == TYPE_DATA, conforming = type(cs) & SEG_CONFORMING;
	bool code = (type(cs) & (SEG_CODE | SEG_ACCESSED)) == (SEG_CODE | SEG_ACCESSED);

	if (CHECK(VMX_GUEST_CS_TYPE, !code && !(data && g->unrestricted)))
		return false;
	if (CHECK(VMX_GUEST_CS_DPL_DATA, data && dpl(cs)))
		return false;
	if (CHECK(VMX_GUEST_CS_DPL, code && !conforming && dpl(cs) != dpl(ss)))
		return false;
	if (CHECK(VMX_GUEST_CS_DPL_CONFORMING, code && conforming && dpl(cs) > dpl(ss)))
		return false;
	return !CHECK(VMX_GUEST_CS_L_AND_D, g->long_mode && cs->rights & SEG_L && cs->rights & SEG_DB);
}

static bool ss_valid(const struct guest *g)
{
	const struct guest_segment *ss = &g->segment[SS];

	if (CHECK(VMX_GUEST_SS_TYPE, ss->usable && type(ss) != TYPE_DATA && type(ss) != 7))
		return false;
	if (CHECK(VMX_GUEST_SS_DPL_RPL, !g->unrestricted && dpl(ss) != (ss->selector & SELECTOR_RPL)))
		return false;
	if (CHECK(VMX_GUEST_SS_DPL_DATA, type(&g->segment[CS]) == TYPE_DATA && dpl(ss)))
		return false;
	return !CHECK(VMX_GUEST_SS_DPL_REAL, !(g->cr0 & CR0_PE) && dpl(ss));
}

/* DS, ES, FS, GS, where usable. */
static bool data_valid(const struct guest *g, const struct guest_segment *s)
{
	if (CHECK(VMX_GUEST_DATA_ACCESSED, !(type(s) & SEG_ACCESSED)))
		return false;
	if (CHECK(VMX_GUEST_DATA_READABLE, type(s) & SEG_CODE && !(type(s) & SEG_READABLE)))
		return false;
	return !CHECK(VMX_GUEST_DATA_DPL,
		      !g->unrestricted && type(s) <= 11 && dpl(s) < (s->selector & SELECTOR_RPL));
}

/* CS, and what is usable of the others. */
static bool rights_valid(const struct guest_segment *s)
{
	if (CHECK(VMX_GUEST_SEGMENT_S, !(s->rights & SEG_S)))
		return false;
	if (CHECK(VMX_GUEST_SEGMENT_P, !(s->rights & SEG_P)))
		return false;
	if (CHECK(VMX_GUEST_SEGMENT_RESERVED_LOW, s->rights & RIGHTS_LOW))
		return false;
	if (CHECK(VMX_GUEST_SEGMENT_G_BYTES, bytes_wanted(s) && s->rights & SEG_G))
		return false;
	if (CHECK(VMX_GUEST_SEGMENT_G_PAGES, pages_wanted(s) && !(s->rights & SEG_G)))
		return false;
	return !CHECK(VMX_GUEST_SEGMENT_RESERVED_HIGH, s->rights & RIGHTS_HIGH);
}

static bool protected_segments_valid(const struct guest *g)
{
	if (!cs_valid(g) || !ss_valid(g))
		return false;
	for (unsigned i = ES; i <= GS; i++) {
		const struct guest_segment *s = &g->segment[i];

		if (i != CS && !s->usable)
			continue;
		if (!rights_valid(s) || (i != CS && i != SS && !data_valid(g, s)))
			return false;
	}
	return true;
}

static bool tr_valid(const struct guest *g)
{
	const struct guest_segment *s = &g->segment[TR];
	bool busy32 = type(s) == TYPE_TSS_BUSY, busy16 = type(s) == TYPE_TSS16_BUSY;

	if (CHECK(VMX_GUEST_TR_TYPE, !busy32 && !busy16))
		return false;
	if (CHECK(VMX_GUEST_TR_TYPE_LONG, busy16 && g->long_mode))
		return false;
	if (CHECK(VMX_GUEST_TR_S, s->rights & SEG_S))
		return false;
	if (CHECK(VMX_GUEST_TR_P, !(s->rights & SEG_P)))
		return false;
	if (CHECK(VMX_GUEST_TR_RESERVED_LOW, s->rights & RIGHTS_LOW))
		return false;
	if (CHECK(VMX_GUEST_TR_G_BYTES, bytes_wanted(s) && s->rights & SEG_G))
		return false;
	if (CHECK(VMX_GUEST_TR_G_PAGES, pages_wanted(s) && !(s->rights & SEG_G)))
		return false;
	if (CHECK(VMX_GUEST_TR_UNUSABLE, !s->usable))
		return false;
	return !CHECK(VMX_GUEST_TR_RESERVED_HIGH, s->rights & RIGHTS_HIGH);
}

static bool ldtr_valid(const struct guest *g)
{
	const struct guest_segment *s = &g->segment[LDTR];

	if (!s->usable)
		return true;
	if (CHECK(VMX_GUEST_LDTR_TYPE, type(s) != TYPE_LDT))
		return false;
	if (CHECK(VMX_GUEST_LDTR_S, s->rights & SEG_S))
		return false;
	if (CHECK(VMX_GUEST_LDTR_P, !(s->rights & SEG_P)))
		return false;
	if (CHECK(VMX_GUEST_LDTR_RESERVED_LOW, s->rights & RIGHTS_LOW))
		return false;
	if (CHECK(VMX_GUEST_LDTR_G_BYTES, bytes_wanted(s) && s->rights & SEG_G))
		return false;
	if (CHECK(VMX_GUEST_LDTR_G_PAGES, pages_wanted(s) && !(s->rights & SEG_G)))
		return false;
	return !CHECK(VMX_GUEST_LDTR_RESERVED_HIGH, s->rights & RIGHTS_HIGH);
}

static bool segments_valid(const struct guest *g)
{
	if (!selectors_valid(g) || !bases_valid(g))
		return false;
	if (!(g->vm86 ? vm86_segments_valid(g) : protected_segments_valid(g)))
		return false;
	return tr_valid(g) && ldtr_valid(g);
}

/* ---- descriptor tables, RIP, RFLAGS (27.3.1.3, 27.3.1.4) ---- */

static bool tables_valid(const struct guest *g)
{
	if (CHECK(VMX_GUEST_GDTR_BASE, !canonical(g, read(g, VMCS_GUEST_GDTR_BASE))))
		return false;
	if (CHECK(VMX_GUEST_IDTR_BASE, !canonical(g, read(g, VMCS_GUEST_IDTR_BASE))))
		return false;
	if (CHECK(VMX_GUEST_GDTR_LIMIT, read(g, VMCS_GUEST_GDTR_LIMIT) >> 16))
		return false;
	return !CHECK(VMX_GUEST_IDTR_LIMIT, read(g, VMCS_GUEST_IDTR_LIMIT) >> 16);
}

static bool injects(const struct guest *g, enum vmx_event_type kind)
{
	return g->event && VMX_EVENT_TYPE(g->event) == kind;
}

static bool injects_exception(const struct guest *g, enum vector vector)
{
	return injects(g, VMX_EVENT_EXCEPTION) && (g->event & VMX_EVENT_VECTOR) == vector;
}

/* Bits 63:N are equal, of the N that the processor has; the guest's CR4.LA57 does not matter. */
static bool rip_valid(const struct guest *g)
{
	bool code_64 = g->long_mode && g->segment[CS].rights & SEG_L;
	uint64_t rip = read(g, VMCS_GUEST_RIP);
	int64_t upper = (int64_t)rip >> g->cpu->profile->linear_bits;

	if (CHECK(VMX_GUEST_RIP_UPPER, !code_64 && rip >> 32))
		return false;
	return !CHECK(VMX_GUEST_RIP_WIDTH, code_64 && upper && upper != -1);
}

static bool rflags_valid(const struct guest *g)
{
	if (CHECK(VMX_GUEST_RFLAGS_RESERVED, g->rflags & ~(uint64_t)(RFLAGS_DEFINED | RFLAGS_FIXED)))
		return false;
	if (CHECK(VMX_GUEST_RFLAGS_FIXED, !(g->rflags & RFLAGS_FIXED)))
		return false;
	if (CHECK(VMX_GUEST_RFLAGS_VM_LONG, g->vm86 && g->long_mode))
		return false;
	if (CHECK(VMX_GUEST_RFLAGS_VM_REAL, g->vm86 && !(g->cr0 & CR0_PE)))
		return false;
	return !CHECK(VMX_GUEST_RFLAGS_IF, injects(g, VMX_EVENT_EXTERNAL) && !(g->rflags & RFLAGS_IF));
}

/* ---- non-register state (27.3.1.5) ---- */

/* Whether an event that the activity state blocks is injected. */
static bool activity_event_valid(const struct guest *g, uint64_t activity)
{
	bool nmi = injects(g, VMX_EVENT_NMI), machine_check = injects_exception(g, VECTOR_MC);
	bool hlt = nmi || machine_check || injects(g, VMX_EVENT_EXTERNAL) || injects(g, VMX_EVENT_OTHER) ||
		   injects_exception(g, VECTOR_DB);

	if (!g->event)
		return true;
	if (CHECK(VMX_GUEST_HLT_EVENT, activity == VMX_HALTED && !hlt))
		return false;
	if (CHECK(VMX_GUEST_SHUTDOWN_EVENT, activity == VMX_SHUTDOWN && !nmi && !machine_check))
		return false;
	return !CHECK(VMX_GUEST_SIPI_EVENT, activity == VMX_WAIT_FOR_SIPI);
}

static bool activity_valid(const struct guest *g, uint64_t activity, uint64_t blocking)
{
	if (CHECK(VMX_GUEST_ACTIVITY, activity > VMX_WAIT_FOR_SIPI))
		return false;
	if (CHECK(VMX_GUEST_HLT_DPL, activity == VMX_HALTED && dpl(&g->segment[SS])))
		return false;
	if (CHECK(VMX_GUEST_ACTIVITY_BLOCKING,
		  activity != VMX_ACTIVE && blocking & (VMX_BLOCKING_STI | VMX_BLOCKING_MOV_SS)))
		return false;
	return activity_event_valid(g, activity);
}

/* Without SGX there is no enclave interruption. */
static bool interruptibility_valid(const struct guest *g, uint64_t blocking)
{
	bool sti = blocking & VMX_BLOCKING_STI, mov_ss = blocking & VMX_BLOCKING_MOV_SS;

	if (CHECK(VMX_GUEST_INTERRUPTIBILITY_RESERVED, blocking >> 5))
		return false;
	if (CHECK(VMX_GUEST_STI_MOV_SS, sti && mov_ss))
		return false;
	if (CHECK(VMX_GUEST_STI_IF, sti && !(g->rflags & RFLAGS_IF)))
		return false;
	if (CHECK(VMX_GUEST_STI_EXTERNAL, sti && injects(g, VMX_EVENT_EXTERNAL)))
		return false;
	if (CHECK(VMX_GUEST_MOV_SS_EXTERNAL, mov_ss && injects(g, VMX_EVENT_EXTERNAL)))
		return false;
	if (CHECK(VMX_GUEST_MOV_SS_NMI, mov_ss && injects(g, VMX_EVENT_NMI)))
		return false;
	if (CHECK(VMX_GUEST_SMI_BLOCKING, blocking & VMX_BLOCKING_SMI && !g->cpu->smm))
		return false;
	if (CHECK(VMX_GUEST_NMI_BLOCKING, blocking & VMX_BLOCKING_NMI && g->c.pin & VMX_PIN_VIRTUAL_NMIS &&
						  injects(g, VMX_EVENT_NMI)))
		return false;
	return !CHECK(VMX_GUEST_ENCLAVE, blocking & VMX_ENCLAVE);
}

#define PENDING_DEFINED (0xfu | VMX_PENDING_ENABLED_BREAKPOINT | VMX_PENDING_BS | VMX_PENDING_RTM)

/* Behind an instruction that holds #DB off, BS says whether it was stepped. There is no RTM. */
static bool pending_debug_valid(const struct guest *g, uint64_t activity, uint64_t blocking)
{
	uint64_t pending = read(g, VMCS_GUEST_PENDING_DEBUG);
	bool held = blocking & (VMX_BLOCKING_STI | VMX_BLOCKING_MOV_SS) || activity == VMX_HALTED;
	bool step = g->rflags & RFLAGS_TF && !(read(g, VMCS_GUEST_DEBUGCTL) & DEBUGCTL_BTF);

	if (CHECK(VMX_GUEST_PENDING_RESERVED, pending & ~(uint64_t)PENDING_DEFINED))
		return false;
	if (CHECK(VMX_GUEST_PENDING_BS, held && step && !(pending & VMX_PENDING_BS)))
		return false;
	if (CHECK(VMX_GUEST_PENDING_NO_BS, held && !step && pending & VMX_PENDING_BS))
		return false;
	return !CHECK(VMX_GUEST_PENDING_RTM, pending & VMX_PENDING_RTM);
}

static bool link_pointer_valid(const struct guest *g)
{
	uint64_t link = read(g, VMCS_LINK_POINTER);
	bool shadowing = g->c.secondary & VMX2_VMCS_SHADOWING;
	uint32_t revision;

	if (link == VMX_NO_VMCS)
		return true;
	if (CHECK(VMX_LINK_ALIGNED, link & 0xfff))
		return false;
	if (CHECK(VMX_LINK_WIDTH, link & ~g->cpu->physical_mask))
		return false;
	revision = vmcs_revision(g->cpu, link);
	if (CHECK(VMX_LINK_REVISION, (revision & VMCS_REVISION_MASK) != VMX_REVISION))
		return false;
	if (CHECK(VMX_LINK_SHADOW, !!(revision & VMCS_SHADOW) != shadowing))
		return false;
	return !CHECK(VMX_LINK_CURRENT, link == g->cpu->msr.vmx_vmcs);
}

/* ---- PDPTEs (27.3.1.6) ---- */

static bool pdptes_valid(const struct guest *g)
{
	bool pae = g->cr0 & CR0_PG && g->cr4 & CR4_PAE && !g->long_mode, ept = g->c.secondary & VMX2_EPT;
	uint64_t table = read(g, VMCS_GUEST_CR3) & 0xffffffe0;

	if (!pae)
		return true;
	for (unsigned i = 0; i < 4; i++) {
		uint64_t pdpte =
			ept ? read(g, VMCS_GUEST_PDPTE0 + 2 * i) : physical_read(g->cpu, table + 8 * i, 8);

		if (CHECK(VMX_GUEST_PDPTE, !pdpte_valid(g->cpu, pdpte)))
			return false;
	}
	return true;
}

/* ---- all ---- */

static bool state_valid(const struct guest *g)
{
	uint64_t activity = read(g, VMCS_GUEST_ACTIVITY), blocking = read(g, VMCS_GUEST_INTERRUPTIBILITY);

	return control_registers_valid(g) && other_registers_valid(g) && segments_valid(g) &&
	       tables_valid(g) && rip_valid(g) && rflags_valid(g) && activity_valid(g, activity, blocking) &&
	       interruptibility_valid(g, blocking) && pending_debug_valid(g, activity, blocking);
}

bool vmx_check_guest(struct cpu *cpu, uint64_t *qualification)
{
	const struct guest g = guest_read(cpu);

	*qualification = 0;
	if (!state_valid(&g))
		return false;
	*qualification = VMX_ENTRY_LINK_POINTER;
	if (!link_pointer_valid(&g))
		return false;
	*qualification = VMX_ENTRY_PDPTE;
	if (!pdptes_valid(&g))
		return false;
	*qualification = 0;
	return true;
}
