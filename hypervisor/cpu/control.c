/* control.c: writes of control and debug registers, EFER, XCR0 and RFLAGS, with what they check. */
#include "cpu/checks.h"
#include "cpu/control.h"
#include "cpu/guest.h"
#include "cpu/insn.h"
#include "cpu/mem/mem.h"
#include "cpu/segment.h"
#include "x86/msr.h"

_Noreturn static void raise_gp0(struct cpu *cpu) { cpu_raise(cpu, VECTOR_GP, 0); }

/*
 * What follows from a change of mode. Translations that depend on what has changed are dropped by
 * tlb_select(), which knows what they depend on.
 */
static void mode_changed(struct cpu *cpu)
{
	cpu_mode_changed(cpu);
	segment_derive_all(cpu);
}

/* PAE paging outside IA-32e mode uses the PDPTE registers (SDM 3A 4.4). */
static bool pae_paging(uint64_t cr0, uint64_t cr4, uint64_t efer)
{
	return cr0 & CR0_PG && cr4 & CR4_PAE && !(efer & EFER_LME);
}

/* ---- CR0 ---- */

#define CR0_DEFINED                                                                                          \
	(CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG)

/* Enabling paging with EFER.LME = 1 activates IA-32e mode (SDM 3A 9.8.5, APM 2 14.6.2). */
static void check_long_activation(struct cpu *cpu)
{
	if (CHECK(CR0_LONG_PAE, !(cpu->cr4 & CR4_PAE)))
		raise_gp0(cpu);
	if (CHECK(CR0_LONG_CS_L, cpu->segment[CS].s.attributes & SEG_L))
		raise_gp0(cpu);
	unsigned tss = cpu->tr.s.attributes & SEG_TYPE;
	if (CHECK(CR0_LONG_TSS16, tss == TYPE_TSS16_AVAILABLE || tss == TYPE_TSS16_BUSY))
		raise_gp0(cpu);
}

static void check_cr0(struct cpu *cpu, uint64_t value)
{
	if (CHECK(CR0_UPPER, value >> 32))
		raise_gp0(cpu);
	/* A guest of AMD-V may be in paged real mode, and stay there (APM 2 15.19). */
	bool paged_real = cpu->cr0 & CR0_PG && !cpu_protected(cpu);
	if (CHECK(CR0_PG_PE, value & CR0_PG && !(value & CR0_PE) && !paged_real))
		raise_gp0(cpu);
	if (CHECK(CR0_NW_CD, value & CR0_NW && !(value & CR0_CD)))
		raise_gp0(cpu);
	if (CHECK(CR0_VMX_FIXED, vmx_operation(cpu) && !vmx_cr0_valid(cpu, value)))
		raise_gp0(cpu);
	if (!((value ^ cpu->cr0) & CR0_PG))
		return;
	if (value & CR0_PG) {
		if (cpu->efer & EFER_LME)
			check_long_activation(cpu);
		return;
	}
	if (CHECK(CR0_PG_64BIT, cpu_64bit(cpu)))
		raise_gp0(cpu);
	if (CHECK(CR0_PG_PCIDE, cpu->cr4 & CR4_PCIDE))
		raise_gp0(cpu);
}

void control_write_cr0(struct cpu *cpu, uint64_t value)
{
	check_cr0(cpu, value);
	if (svm_guest(cpu))
		svm_check_cr_write(cpu, 0, value);
	value = (value & CR0_DEFINED) | CR0_ET; /* other bits stay 0, ET stays 1: SDM 2B MOV CR */

	uint64_t changed = value ^ cpu->cr0;
	if (pae_paging(value, cpu->cr4, cpu->efer) && changed & (CR0_PG | CR0_CD | CR0_NW)) {
		bool valid = pdptes_load(cpu, cpu->cr3);
		if (CHECK(CR0_PDPTE, !valid))
			raise_gp0(cpu);
	}
	cpu->cr0 = value;
	if (changed & CR0_PG)
		cpu->efer = value & CR0_PG && cpu->efer & EFER_LME ? cpu->efer | EFER_LMA
								   : cpu->efer & ~(uint64_t)EFER_LMA;
	if (changed)
		mode_changed(cpu);
}

/* ---- CR3 ---- */

void control_write_cr3(struct cpu *cpu, uint64_t value)
{
	bool pcid = cpu->cr4 & CR4_PCIDE;

	if (pcid)
		value &= ~CR3_NO_FLUSH;
	if (CHECK(CR3_RESERVED, value & ~cpu->physical_mask))
		raise_gp0(cpu);
	if (svm_guest(cpu))
		svm_check_cr_write(cpu, 3, value);
	if (pae_paging(cpu->cr0, cpu->cr4, cpu->efer)) {
		bool valid = pdptes_load(cpu, value);
		if (CHECK(CR3_PDPTE, !valid))
			raise_gp0(cpu);
	}
	cpu->cr3 = value;
	/*
	 * Translations are not tagged with a PCID, so that a write with bit 63 set drops them too: a
	 * processor may always do so (SDM 3A 4.10.4.1).
	 */
	if (CHECK(TLB_CR3, true))
		tlb_flush_non_global(cpu);
}

/* ---- CR4 ---- */

uint64_t control_cr4_valid(const struct cpu *cpu)
{
	static const struct {
		enum feature feature;
		uint32_t bits;
	} bits[] = {
		{FEATURE_vme, CR4_VME | CR4_PVI},
		{FEATURE_tsc, CR4_TSD},
		{FEATURE_de, CR4_DE},
		{FEATURE_pse, CR4_PSE},
		{FEATURE_pae, CR4_PAE},
		{FEATURE_mce, CR4_MCE},
		{FEATURE_pge, CR4_PGE},
		{FEATURE_fxsr, CR4_OSFXSR},
		{FEATURE_sse, CR4_OSXMMEXCPT},
		{FEATURE_umip, CR4_UMIP},
		{FEATURE_la57, CR4_LA57},
		{FEATURE_vmx, CR4_VMXE},
		{FEATURE_smx, CR4_SMXE},
		{FEATURE_fsgsbase, CR4_FSGSBASE},
		{FEATURE_pcid, CR4_PCIDE},
		{FEATURE_xsave, CR4_OSXSAVE},
		{FEATURE_smep, CR4_SMEP},
		{FEATURE_smap, CR4_SMAP},
		{FEATURE_pku, CR4_PKE},
		{FEATURE_pks, CR4_PKS},
	};
	uint64_t valid = CR4_PCE;

	for (size_t i = 0; i < sizeof(bits) / sizeof(bits[0]); i++) {
		if (cpu_has(cpu, bits[i].feature))
			valid |= bits[i].bits;
	}
	return valid;
}

/* SDM 2B MOV CR, SDM 3A 2.5, 4.1.2, 4.10.1; APM 2 3.1.3, 5.5.1. */
static void check_cr4(struct cpu *cpu, uint64_t value)
{
	uint64_t changed = value ^ cpu->cr4;

	if (CHECK(CR4_RESERVED, value & ~control_cr4_valid(cpu)))
		raise_gp0(cpu);
	if (CHECK(CR4_VMX_FIXED, vmx_operation(cpu) && !vmx_cr4_valid(cpu, value)))
		raise_gp0(cpu);
	if (CHECK(CR4_VMXE_SMM, cpu->smm && value & CR4_VMXE))
		raise_gp0(cpu);
	if (CHECK(CR4_PAE_LONG, cpu_ia32e(cpu) && !(value & CR4_PAE)))
		raise_gp0(cpu);
	if (CHECK(CR4_LA57_LONG, cpu_ia32e(cpu) && changed & CR4_LA57))
		raise_gp0(cpu);
	if (!(changed & CR4_PCIDE && value & CR4_PCIDE))
		return;
	if (CHECK(CR4_PCIDE_LONG, !cpu_ia32e(cpu)))
		raise_gp0(cpu);
	if (CHECK(CR4_PCIDE_PCID, cpu->cr3 & CR3_PCID))
		raise_gp0(cpu);
}

void control_write_cr4(struct cpu *cpu, uint64_t value)
{
	check_cr4(cpu, value);
	if (svm_guest(cpu))
		svm_check_cr_write(cpu, 4, value);

	uint64_t changed = value ^ cpu->cr4;
	if (pae_paging(cpu->cr0, value, cpu->efer) && changed & (CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP)) {
		bool valid = pdptes_load(cpu, cpu->cr3);
		if (CHECK(CR4_PDPTE, !valid))
			raise_gp0(cpu);
	}
	cpu->cr4 = value;
	/* Neither changes what a translation is, so tlb_select() does not see them (SDM 3A 4.10.4.1). */
	if (CHECK(TLB_CR4_PGE, changed & CR4_PGE) ||
	    CHECK(TLB_CR4_PCIDE, changed & CR4_PCIDE && !(value & CR4_PCIDE)))
		tlb_flush_all(cpu);
	mode_changed(cpu);
}

/* ---- CR8, EFER, XCR0 ---- */

void control_write_cr8(struct cpu *cpu, uint64_t value)
{
	if (CHECK(CR8_RESERVED, value & ~(uint64_t)CR8_TPR))
		raise_gp0(cpu);
	if (guest_cr8_write(cpu, value))
		return;
	cpu->cr8 = value;
	if (cpu->bus.cr8_written)
		cpu->bus.cr8_written(cpu->bus.owner, value);
}

/* Bits that WRMSR to EFER may set: SDM 4 table 2-2, APM 2 3.1.7. */
uint64_t control_efer_valid(const struct cpu *cpu)
{
	bool amd = cpu->profile->vendor == VENDOR_AMD;
	uint64_t valid = 0;

	if (cpu_has(cpu, FEATURE_syscall))
		valid |= EFER_SCE;
	if (cpu_has(cpu, FEATURE_lm))
		valid |= EFER_LME | EFER_LMA;
	if (cpu_has(cpu, FEATURE_nx))
		valid |= EFER_NXE;
	if (cpu_has(cpu, FEATURE_svm))
		valid |= EFER_SVME;
	if (amd && cpu_has(cpu, FEATURE_lm) && !cpu_has(cpu, FEATURE_lmsle_unsupported))
		valid |= EFER_LMSLE;
	if (cpu_has(cpu, FEATURE_fxsr_opt))
		valid |= EFER_FFXSR;
	if (cpu_has(cpu, FEATURE_tce))
		valid |= EFER_TCE;
	return valid;
}

/*
 * IA32_MISC_ENABLE[34] takes the execute-disable feature away: CPUID and EFER.NXE go with it
 * (SDM 4 table 2-2).
 */
bool control_nx_disabled(const struct cpu *cpu)
{
	return cpu->profile->vendor == VENDOR_INTEL && cpu->msr.misc_enable >> 34 & 1;
}

bool control_efer_allowed(struct cpu *cpu, uint64_t value)
{
	uint64_t valid = control_efer_valid(cpu);

	if (control_nx_disabled(cpu))
		valid &= ~(uint64_t)EFER_NXE;
	if (CHECK(EFER_RESERVED, value & ~valid))
		return false;
	/* LMA is the processor's: Intel ignores what is written, AMD refuses another value (APM 2 3.1.7). */
	if (CHECK(EFER_LMA_CHANGED, (value ^ cpu->efer) & EFER_LMA && cpu->profile->vendor == VENDOR_AMD))
		return false;
	if (CHECK(EFER_SVMDIS, value & EFER_SVME && cpu->msr.vm_cr & VM_CR_SVMDIS))
		return false;
	return !CHECK(EFER_LME_PAGING, (value ^ cpu->efer) & EFER_LME && cpu->cr0 & CR0_PG);
}

void control_write_efer(struct cpu *cpu, uint64_t value)
{
	if (!control_efer_allowed(cpu, value))
		raise_gp0(cpu);

	uint64_t kept = cpu->efer & EFER_LMA;
	uint64_t changed = value ^ cpu->efer;
	if (changed & EFER_LMSLE)
		cpu_unmodelled(cpu, "EFER.LMSLE: segment limits in 64-bit mode");
	cpu->efer = (value & ~(uint64_t)EFER_LMA) | kept;
	mode_changed(cpu);
}

void control_write_xcr(struct cpu *cpu, uint32_t index, uint64_t value)
{
	if (CHECK(XCR_INDEX, index != 0))
		raise_gp0(cpu);
	if (CHECK(XCR0_RESERVED, value & ~profile_xcr0_valid(cpu->profile)))
		raise_gp0(cpu);
	if (CHECK(XCR0_X87, !(value & XCR0_X87)))
		raise_gp0(cpu);
	if (CHECK(XCR0_AVX_SSE, value & XCR0_AVX && !(value & XCR0_SSE)))
		raise_gp0(cpu);
	cpu->xcr0 = value;
}

/* ---- debug registers (SDM 3B 18.2) ---- */

void control_write_dr(struct cpu *cpu, unsigned number, uint64_t value)
{
	if (number >= 4 && CHECK(DR_UPPER, value >> 32))
		raise_gp0(cpu);
	if (svm_guest(cpu) && cpu->insn)
		svm_check_insn(cpu, cpu->insn);
	if (number < 4) {
		cpu->dr[number] = value;
	} else {
		/* Without RTM and bus-lock detection bits 16 and 11 are as the reserved ones: they read as 1.
		 */
		if (number == 6)
			cpu->dr6 = DR6_FIXED_1 | (value & DR6_WRITABLE);
		else
			cpu->dr7 = DR7_FIXED_1 | (value & DR7_WRITABLE);
	}
	cpu_mode_changed(cpu);
}

/* ---- time ---- */

uint64_t control_tsc(const struct cpu *cpu) { return cpu_ticks(cpu) + cpu->tsc_offset; }

uint64_t control_tsc_read(const struct cpu *cpu)
{
	uint64_t tsc = control_tsc(cpu);

	return guest_tsc(cpu, tsc);
}

/* ---- RFLAGS ---- */

uint64_t rflags_get(const struct cpu *cpu)
{
	return (cpu->rflags & ~(uint64_t)RFLAGS_STATUS) | flags_get(&cpu->lazy) | RFLAGS_FIXED;
}

void rflags_set(struct cpu *cpu, uint64_t value, uint64_t mask)
{
	uint64_t flags = (rflags_get(cpu) & ~mask) | (value & mask);

	flags = (flags & RFLAGS_DEFINED) | RFLAGS_FIXED;
	flags_set(&cpu->lazy, flags);
	cpu->rflags = flags;
	cpu_mode_changed(cpu);
}
