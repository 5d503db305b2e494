/*
 * apic.c: the virtual APIC of a guest (SDM 3C chapter 30): TPR shadow, x2APIC MSRs, the APIC-access page,
 * virtual interrupts, EOI and self-IPI virtualization, posted interrupts.
 */
#include "lib/apic.h"
#include "lib/exchange.h"
#include "lib/machine.h"
#include "lib/story.h"
#include "lib/vmx_world.h"
#include "lib/world.h"
#include "x86/case_layout.h"
#include "x86/vectors.h"

#include "vmx/vmx.h"

#define VECTOR 0x45u

static uint32_t *reg(unsigned offset) { return vmx_at(VMX_PAGE_VIRTUAL_APIC, offset); }
static void set_bit(unsigned first, unsigned vector) { *reg(first + vector / 32 * 16) |= 1u << vector % 32; }
static bool bit(unsigned first, unsigned vector) { return *reg(first + vector / 32 * 16) >> vector % 32 & 1; }

/* @secondary: controls besides the TPR shadow. False: NOTSUP was said. */
static bool begin(uint32_t secondary)
{
	if (!vmx_baseline(MODE_LONG, 0, VMX_BARE) || !vmx_needs(VMCS_PRIMARY_CONTROLS, VMX_TPR_SHADOW) ||
	    (secondary && !vmx_needs(VMCS_SECONDARY_CONTROLS, secondary)))
		return false;
	vmx_set(VMCS_PRIMARY_CONTROLS, VMX_TPR_SHADOW);
	if (secondary)
		vmx_set(VMCS_SECONDARY_CONTROLS, secondary);
	if (secondary & VMX2_VIRTUAL_INTERRUPTS) {
		vmx_write(VMCS_GUEST_INTERRUPT_STATUS, 0);
		vmx_write(VMCS_EOI_EXIT_0, 0);
		vmx_write(VMCS_EOI_EXIT_1, 0);
		vmx_write(VMCS_EOI_EXIT_2, 0);
		vmx_write(VMCS_EOI_EXIT_3, 0);
	}
	vmx_write(VMCS_VIRTUAL_APIC, vmx_page(VMX_PAGE_VIRTUAL_APIC));
	vmx_write(VMCS_APIC_ACCESS, vmx_page(VMX_PAGE_APIC_ACCESS));
	vmx_write(VMCS_TPR_THRESHOLD, 0);
	vmx_set(VMCS_PRIMARY_CONTROLS, VMX_USE_MSR_BITMAPS);
	vmx_write(VMCS_MSR_BITMAP, vmx_page(VMX_PAGE_MSR_BITMAP));
	return true;
}

static void interrupts_on(void)
{
	exchange.in.field[STATE_rflags] |= RFLAGS_IF;
	vmx_write(VMCS_GUEST_RFLAGS, vmx_read(VMCS_GUEST_RFLAGS) | RFLAGS_IF);
}

/* ---- MOV CR8 (30.3) and the TPR threshold (30.1.2): @index: the value written, @value: the threshold ----
 */

STORY(vapic_cr8)
{
	unsigned value = (unsigned)GIVEN(index), threshold = (unsigned)GIVEN(value);

	if (!begin(0))
		return;
	*reg(0x80) = 0xf3;
	vmx_write(VMCS_TPR_THRESHOLD, threshold);
	/* MOV RCX, CR8; MOV CR8, RAX; MOV RDX, CR8 */
	VMX_CODE(0x44, 0x0f, 0x20, 0xc1, 0x44, 0x0f, 0x22, 0xc0, 0x44, 0x0f, 0x20, 0xc2);
	vmx_registers[RAX] = value;
	machine_write_cr8(0);
	check_run();
	story_check("read", 0xf, vmx_registers[RCX]);
	story_check("vtpr", value << 4, *reg(0x80));
	story_check("real", 0, machine_read_cr8());
	if (value < threshold) {
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_TPR_BELOW_THRESHOLD);
		vmx_check_field(VMCS_GUEST_RIP, CASE_STUB + 8);
	} else {
		vmx_check_exit(VMX_EXIT_VMCALL, 0, 3);
		story_check("read_back", value, vmx_registers[RDX]);
	}
}

/* With APIC accesses virtualized the threshold is looked at behind the entry (27.7.7). */
STORY(vapic_entry_threshold)
{
	unsigned vtpr = (unsigned)GIVEN(index), threshold = (unsigned)GIVEN(value);

	if (!begin(VMX2_VIRTUALIZE_APIC))
		return;
	*reg(0x80) = vtpr;
	vmx_write(VMCS_TPR_THRESHOLD, threshold);
	check_run();
	vmx_check_field(VMCS_EXIT_REASON,
			vtpr >> 4 < threshold ? VMX_EXIT_TPR_BELOW_THRESHOLD : VMX_EXIT_VMCALL);
	vmx_check_field(VMCS_GUEST_RIP, CASE_STUB);
}

/* ---- the x2APIC's MSRs (30.5): @index: the MSR; @mode: APIC-register virtualization as well ---- */

STORY(vapic_rdmsr)
{
	unsigned index = (unsigned)GIVEN(index), offset = (index & 0xff) << 4;
	bool registers = GIVEN(mode);

	if (!begin(VMX2_VIRTUALIZE_X2APIC | (registers ? VMX2_APIC_REGISTERS : 0)))
		return;
	*reg(offset) = 0x1234a5b6;
	*reg(offset + 4) = 0x5678;
	vmx_write(VMCS_EXCEPTION_BITMAP, 0xffffffff);
	VMX_CODE(0x0f, 0x32);
	vmx_registers[RCX] = index;
	check_run();
	if (!registers && index != 0x808) {
		/* As without virtualization: the APIC is in xAPIC mode, so there is no such MSR. */
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_EXCEPTION_NMI);
		story_check("vector", VECTOR_GP, vmx_read(VMCS_EXIT_INTERRUPTION_INFO) & 0xff);
		return;
	}
	vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_VMCALL);
	story_check("eax", 0x1234a5b6, (uint32_t)vmx_registers[RAX]);
	story_check("edx", 0x5678, (uint32_t)vmx_registers[RDX]);
}

/* WRMSR: @index: the MSR, @value: what is written; @mode: what comes: 0 written, 1 #GP, 2 APIC-write exit.
 * With virtual interrupts. */
STORY(vapic_wrmsr)
{
	unsigned index = (unsigned)GIVEN(index);
	uint64_t value = GIVEN(value);

	if (!begin(VMX2_VIRTUALIZE_X2APIC | VMX2_VIRTUAL_INTERRUPTS))
		return;
	VMX_CODE(0x0f, 0x30);
	vmx_registers[RCX] = index;
	vmx_registers[RAX] = (uint32_t)value;
	vmx_registers[RDX] = value >> 32;
	check_run();
	if (GIVEN(mode) == 1) {
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_EXCEPTION_NMI);
		story_check("vector", VECTOR_GP, vmx_read(VMCS_EXIT_INTERRUPTION_INFO) & 0xff);
		vmx_check_field(VMCS_GUEST_RIP, CASE_STUB);
	} else if (GIVEN(mode) == 2) {
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_APIC_WRITE);
		vmx_check_field(VMCS_EXIT_QUALIFICATION, 0x3f0);
		vmx_check_field(VMCS_GUEST_RIP, CASE_STUB + 2);
	} else {
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_VMCALL);
		if (index == 0x808)
			story_check("vtpr", value, *reg(0x80));
		if (index == 0x83f) {
			story_check("irr", 1, bit(APIC_IRR, (unsigned)value & 0xff));
			story_check("rvi", value & 0xff, vmx_read(VMCS_GUEST_INTERRUPT_STATUS) & 0xff);
		}
	}
}

/* ---- the APIC-access page (30.4): @index: offset; @value: 0 read, 1 write, 2 fetch; @count: bytes; @mode:
 * controls ---- */

enum { WITHOUT_SHADOW, SHADOW, REGISTERS, VIRTUAL };

static bool readable(unsigned offset, unsigned mode)
{
	static const uint16_t some[] = {0x20,  0x30,  0x80,  0xb0,  0xd0,  0xe0,  0xf0,  0x280, 0x300,
					0x310, 0x320, 0x330, 0x340, 0x350, 0x360, 0x370, 0x380, 0x3e0};
	unsigned base = offset & 0xff0;

	if (mode == REGISTERS) {
		for (unsigned i = 0; i < sizeof(some) / sizeof(some[0]); i++)
			if (base == some[i])
				return true;
		return base >= 0x100 && base < 0x280;
	}
	return offset == 0x80 && mode != WITHOUT_SHADOW;
}

static bool writable(unsigned offset, unsigned mode)
{
	static const uint16_t some[] = {0x20,  0x80,  0xb0,  0xd0,  0xe0,  0xf0,  0x280, 0x300, 0x310,
					0x320, 0x330, 0x340, 0x350, 0x360, 0x370, 0x380, 0x3e0};
	unsigned base = offset & 0xff0;

	if (mode == REGISTERS) {
		for (unsigned i = 0; i < sizeof(some) / sizeof(some[0]); i++)
			if (base == some[i])
				return true;
		return false;
	}
	if (mode == VIRTUAL)
		return offset == 0x80 || offset == 0xb0 || offset == 0x300;
	return offset == 0x80 && mode != WITHOUT_SHADOW;
}

STORY(vapic_access)
{
	static const uint32_t controls[] = {0, 0, VMX2_APIC_REGISTERS, VMX2_VIRTUAL_INTERRUPTS};
	unsigned offset = (unsigned)GIVEN(index), type = (unsigned)GIVEN(value),
		 size = (unsigned)GIVEN(count), mode = (unsigned)GIVEN(mode);
	bool fits = size <= 4 && (offset & 15) + size <= 4;
	bool runs = type < 2 && fits && (type ? writable(offset, mode) : readable(offset, mode));
	/* What is written is emulated behind the instruction, or exits there (30.4.3.2, 30.4.3.3). */
	bool write_exit =
		runs && type && mode == REGISTERS && (offset & 0xff0) != 0x80 && (offset & 0xff0) != 0x310;

	if (!begin(VMX2_VIRTUALIZE_APIC | controls[mode]))
		return;
	if (mode == WITHOUT_SHADOW) {
		if (!vmx_needs_clear(VMCS_PRIMARY_CONTROLS, VMX_TPR_SHADOW))
			return;
		vmx_clear(VMCS_PRIMARY_CONTROLS, VMX_TPR_SHADOW);
	}
	*reg(offset & 0xff0) = 0x11223344;
	/* MOV AL, EAX, RAX from and to [RBX]; JMP RBX */
	if (type == 2)
		VMX_CODE(0xff, 0xe3);
	else if (size == 1)
		VMX_CODE(type ? 0x88 : 0x8a, 0x03);
	else if (size == 2)
		VMX_CODE(0x66, type ? 0x89 : 0x8b, 0x03);
	else if (size == 4)
		VMX_CODE(type ? 0x89 : 0x8b, 0x03);
	else
		VMX_CODE(0x48, type ? 0x89 : 0x8b, 0x03);
	vmx_registers[RBX] = vmx_page(VMX_PAGE_APIC_ACCESS) + offset;
	vmx_registers[RAX] = 0;
	check_run();
	if (!runs) {
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_APIC_ACCESS);
		vmx_check_field(VMCS_EXIT_QUALIFICATION, offset | type << 12);
		vmx_check_field(VMCS_GUEST_RIP, type == 2 ? vmx_registers[RBX] : CASE_STUB);
		if ((offset & 0xff0) != 0xa0) /* VPPR is the processor's */
			story_check("unchanged", 0x11223344, *reg(offset & 0xff0));
	} else if (write_exit) {
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_APIC_WRITE);
		vmx_check_field(VMCS_EXIT_QUALIFICATION, offset & 0xff0);
		story_check("behind", 1, vmx_read(VMCS_GUEST_RIP) > CASE_STUB);
	} else {
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_VMCALL);
		if (!type)
			story_check("read", 0x11223344ull >> 8 * (offset & 3) & ((1ull << 8 * size) - 1),
				    vmx_registers[RAX]);
		else if ((offset & 0xff0) == 0x80)
			story_check("vtpr", 0, *reg(0x80) & 0xff);
	}
}

/* ---- virtual interrupts (30.2): @index: vector, @value: VTPR, @mode: what holds it: 0 nothing, 1 IF, 2 STI,
 * 3 window, 4 SVI ---- */

STORY(virtual_interrupt)
{
	unsigned vector = (unsigned)GIVEN(index), tpr = (unsigned)GIVEN(value), mode = (unsigned)GIVEN(mode),
		 svi = mode == 4 ? 0x80 : 0;
	unsigned class = tpr >> 4 > svi >> 4 ? tpr >> 4 : svi >> 4;
	bool recognized = vector >> 4 > class, comes = recognized && mode != 1 && mode != 3;

	if (!begin(VMX2_VIRTUAL_INTERRUPTS))
		return;
	if (mode != 1)
		interrupts_on();
	*reg(0x80) = tpr;
	set_bit(APIC_IRR, vector);
	set_bit(APIC_IRR, 0x31);
	if (svi)
		set_bit(APIC_ISR, svi);
	vmx_write(VMCS_GUEST_INTERRUPT_STATUS, vector | svi << 8);
	if (mode == 2)
		vmx_write(VMCS_GUEST_INTERRUPTIBILITY, VMX_BLOCKING_STI);
	if (mode == 3)
		vmx_set(VMCS_PRIMARY_CONTROLS, VMX_INTERRUPT_WINDOW);
	VMX_CODE(0x90, 0x90);
	check_run();
	if (mode == 3) {
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_INTERRUPT_WINDOW);
		vmx_check_field(VMCS_GUEST_RIP, CASE_STUB);
	} else {
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_VMCALL);
		story_check("vector", comes ? vector : VMX_NO_VECTOR, vmx_handler_vector());
	}
	story_check("irr", !comes, bit(APIC_IRR, vector));
	story_check("isr", comes, bit(APIC_ISR, vector));
	vmx_check_field(VMCS_GUEST_INTERRUPT_STATUS, comes ? 0x31 | vector << 8 : vector | svi << 8);
	if (comes) {
		story_check("ppr", vector & 0xf0, *reg(0xa0));
		if (mode == 2)
			story_check("return", CASE_STUB + 1,
				    *(const uint64_t *)(uintptr_t)vmx_read(VMCS_GUEST_RSP));
	} else if (mode != 3) {
		story_check("ppr", svi >> 4 > tpr >> 4 ? svi & 0xf0 : tpr, *reg(0xa0));
	}
}

/* EOI: @index: SVI; @mode: its EOI-exit bit. By the x2APIC's MSR. */
STORY(virtual_eoi)
{
	unsigned vector = (unsigned)GIVEN(index);
	bool exits = GIVEN(mode);

	if (!begin(VMX2_VIRTUALIZE_X2APIC | VMX2_VIRTUAL_INTERRUPTS))
		return;
	set_bit(APIC_ISR, vector);
	set_bit(APIC_ISR, 0x21);
	vmx_write(VMCS_GUEST_INTERRUPT_STATUS, vector << 8);
	if (exits)
		vmx_write(VMCS_EOI_EXIT_0 + 2 * (vector / 64), 1ull << vector % 64);
	VMX_CODE(0x0f, 0x30);
	vmx_registers[RCX] = 0x80b;
	vmx_registers[RAX] = vmx_registers[RDX] = 0;
	check_run();
	if (exits) {
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_VIRTUALIZED_EOI);
		vmx_check_field(VMCS_EXIT_QUALIFICATION, vector);
		vmx_check_field(VMCS_GUEST_RIP, CASE_STUB + 2);
	} else {
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_VMCALL);
	}
	story_check("isr", 0, bit(APIC_ISR, vector));
	vmx_check_field(VMCS_GUEST_INTERRUPT_STATUS, vector == 0x21 ? 0 : 0x2100);
	story_check("ppr", vector == 0x21 ? 0 : 0x20, *reg(0xa0));
}

/* Self-IPI by VICR_LO (30.4.3.2): @index: what is written; @mode: emulated, else an APIC-write exit. */
STORY(virtual_self_ipi)
{
	uint32_t value = (uint32_t)GIVEN(index);
	bool emulated = GIVEN(mode);

	if (!begin(VMX2_VIRTUALIZE_APIC | VMX2_VIRTUAL_INTERRUPTS))
		return;
	VMX_CODE(0x89, 0x03);
	vmx_registers[RBX] = vmx_page(VMX_PAGE_APIC_ACCESS) + 0x300;
	vmx_registers[RAX] = value;
	check_run();
	story_check("icr", value, *reg(0x300));
	if (emulated) {
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_VMCALL);
		story_check("irr", 1, bit(APIC_IRR, value & 0xff));
		vmx_check_field(VMCS_GUEST_INTERRUPT_STATUS, value & 0xff);
	} else {
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_APIC_WRITE);
		vmx_check_field(VMCS_EXIT_QUALIFICATION, 0x300);
		vmx_check_field(VMCS_GUEST_RIP, CASE_STUB + 2);
		vmx_check_field(VMCS_GUEST_INTERRUPT_STATUS, 0);
	}
}

/* ---- posted interrupts (30.6): @index: the vector that is posted; @mode 0: by the notification vector, 1:
 * another interrupt ---- */

STORY(posted_interrupt)
{
	unsigned vector = (unsigned)GIVEN(index);
	bool other = GIVEN(mode);
	uint32_t *descriptor = vmx_at(VMX_PAGE_POSTED, 0);

	if (!story_has_apic() || !begin(VMX2_VIRTUAL_INTERRUPTS) ||
	    !vmx_needs(VMCS_PIN_CONTROLS, VMX_PIN_POSTED_INTERRUPTS))
		return;
	interrupts_on();
	vmx_set(VMCS_PIN_CONTROLS, VMX_PIN_POSTED_INTERRUPTS);
	vmx_set(VMCS_EXIT_CONTROLS, VMX_EXIT_ACKNOWLEDGE);
	vmx_write(VMCS_POSTED_INTERRUPT_VECTOR, 0xf2);
	vmx_write(VMCS_POSTED_INTERRUPT_DESCRIPTOR, vmx_page(VMX_PAGE_POSTED));
	descriptor[vector / 32] |= 1u << vector % 32;
	descriptor[8] = 1; /* outstanding notification */
	apic_pend_interrupt(other ? 0xf3 : 0xf2);
	VMX_CODE(0x90, 0x90);
	check_run();
	if (other) {
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_EXTERNAL_INTERRUPT);
		story_check("info", VMX_EVENT_VALID | 0xf3, vmx_read(VMCS_EXIT_INTERRUPTION_INFO));
		story_check("outstanding", 1, descriptor[8] & 1);
		apic_write(APIC_EOI, 0);
		return;
	}
	vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_VMCALL);
	story_check("vector", vector, vmx_handler_vector());
	story_check("outstanding", 0, descriptor[8] & 1);
	story_check("posted", 0, descriptor[vector / 32]);
	story_check("isr", 1, bit(APIC_ISR, vector));
	story_check("real_isr", 0, apic_bit(APIC_ISR, 0xf2)); /* EOI was written */
	vmx_check_field(VMCS_GUEST_INTERRUPT_STATUS, vector << 8);
}
