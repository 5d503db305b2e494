/*
 * smm.c: system-management mode and VMX operation, with the default treatment of SMIs (SDM 3C 32.14).
 *
 * SMM is outside of VMX operation. What RSM comes back to stays in the vmx_… fields, which nothing uses
 * meanwhile; what SMM itself changes and its save map could forge is in vmx_smm.
 */
#include "cpu/checks.h"
#include "cpu/vmx/vmx.h"

enum {
	SMM_MODE = 3, /* 1: VMX root operation, 2: non-root */
	SMM_DPL_SHIFT = 2,
	SMM_VM = 1 << 4,
	SMM_VMXE = 1 << 5
};

void vmx_suspend(struct cpu *cpu)
{
	unsigned dpl = (cpu->segment[SS].s.attributes & SEG_DPL) >> SEG_DPL_SHIFT;
	unsigned state = cpu->msr.vmx_on ? 1u + cpu->msr.vmx_guest : 0;

	state |= dpl << SMM_DPL_SHIFT | (cpu->rflags & RFLAGS_VM ? SMM_VM : 0) |
		 (cpu->cr4 & CR4_VMXE ? SMM_VMXE : 0);
	cpu->msr.vmx_smm = (uint8_t)state;
	cpu->msr.vmx_on = cpu->msr.vmx_guest = false;
	cpu->cr4 &= ~(uint64_t)CR4_VMXE;
}

static void set_rpl(struct segment *segment, unsigned rpl)
{
	segment->selector = (uint16_t)((segment->selector & ~SELECTOR_RPL) | rpl);
}

/* 32.14.2: the privilege level and virtual-8086 mode are not the save map's to say. */
static void restore_critical(struct cpu *cpu, unsigned state)
{
	unsigned dpl = state >> SMM_DPL_SHIFT & 3;

	cpu->rflags = state & SMM_VM ? cpu->rflags | RFLAGS_VM : cpu->rflags & ~(uint64_t)RFLAGS_VM;
	cpu->segment[SS].s.attributes = (cpu->segment[SS].s.attributes & ~SEG_DPL) | dpl << SEG_DPL_SHIFT;
	if (state & SMM_VM || vmx_unrestricted(cpu))
		return;
	set_rpl(&cpu->segment[CS].s, dpl);
	set_rpl(&cpu->segment[SS].s, dpl);
}

void vmx_resume(struct cpu *cpu)
{
	unsigned state = cpu->msr.vmx_smm;

	cpu->msr.vmx_smm = 0;
	if (state & SMM_VMXE)
		cpu->cr4 |= CR4_VMXE;
	if (!(state & SMM_MODE))
		return;
	cpu->msr.vmx_on = true;
	cpu->msr.vmx_guest = (state & SMM_MODE) == 2;
	cpu->cr0 |= vmx_unrestricted(cpu) ? CR0_NE : CR0_PE | CR0_NE | CR0_PG;
	restore_critical(cpu, state);
}
