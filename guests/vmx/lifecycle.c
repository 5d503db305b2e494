/*
 * lifecycle.c: VMXON to VMXOFF, the current VMCS, launch states, shadow VMCSs, and every field by VMREAD and
 * VMWRITE (SDM 3C 24.7, 25.2, 25.10, 25.11, chapter 31). 64-bit mode, CPL 0, VMX root operation.
 */
#include "lib/exchange.h"
#include "lib/machine.h"
#include "lib/story.h"
#include "lib/vmx_world.h"
#include "lib/world.h"
#include "x86/case_layout.h"
#include "x86/vectors.h"

#define REGION(name)   vmx_page(VMX_PAGE_##name)
#define REVISION(name) (*(uint32_t *)vmx_at(VMX_PAGE_##name, 0))
#define NO_VMCS        (~0ull)

static uint64_t beyond_width(void)
{
	uint32_t r[4];

	machine_cpuid(0x80000008, 0, r);
	return 1ull << (r[0] & 0xff);
}

static unsigned on(uint64_t address) { return vmx_do_address(VMX_DO_VMXON, address); }
static unsigned load(uint64_t address) { return vmx_do_address(VMX_DO_VMPTRLD, address); }
static unsigned clear(uint64_t address) { return vmx_do_address(VMX_DO_VMCLEAR, address); }

/* ---- VMXON, VMXOFF ---- */

STORY(vmxon_region)
{
	static const uint64_t low[] = {1, 0x10, 0x800, 0xfff};

	if (!vmx_prepare())
		return;
	for (unsigned i = 0; i < 4; i++)
		story_check_at("misaligned", i, VMX_FAIL_INVALID, on(REGION(VMXON) + low[i]));
	story_check("beyond_width", VMX_FAIL_INVALID, on(REGION(VMXON) | beyond_width()));
	story_check("bit_63", VMX_FAIL_INVALID, on(REGION(VMXON) | 1ull << 63));
	story_check("revision", VMX_FAIL_INVALID, on(REGION(SPARE)));
	REVISION(VMXON) ^= 1;
	story_check("revision_bit", VMX_FAIL_INVALID, on(REGION(VMXON)));
	REVISION(VMXON) ^= 1;
	REVISION(VMXON) |= VMCS_SHADOW;
	story_check("shadow_bit", VMX_FAIL_INVALID, on(REGION(VMXON)));
	REVISION(VMXON) &= ~VMCS_SHADOW;
	story_check("good", 0, on(REGION(VMXON)));
	story_check("no_current", NO_VMCS, vmx_current());
}

STORY(vmxon_conditions)
{
	uint64_t cr0 = machine_read_cr0(), cr4;

	if (!vmx_prepare())
		return;
	cr4 = machine_read_cr4();
	machine_write_cr4(cr4 & ~(uint64_t)CR4_VMXE);
	story_check("vmxe_clear", VMX_FAULT(VECTOR_UD), on(REGION(VMXON)));
	machine_write_cr4(cr4);
	machine_write_cr0(cr0 & ~(uint64_t)CR0_NE);
	story_check("ne_clear", VMX_FAULT(VECTOR_GP), on(REGION(VMXON)));
	story_check("ne_clear_error", 0, vmx_fault_error());
	machine_write_cr0(cr0);
	story_check("others_outside", VMX_FAULT(VECTOR_UD), vmx_do(VMX_DO_VMXOFF, NULL, 0));
	story_check("vmcall_outside", VMX_FAULT(VECTOR_UD), vmx_do(VMX_DO_VMCALL, NULL, 0));
	story_check("vmptrld_outside", VMX_FAULT(VECTOR_UD), load(REGION(VMCS)));
	story_check("good", 0, on(REGION(VMXON)));
	/* Bits that VMX operation fixes. */
	story_check("ne_fixed", 1, vmx_try_cr0(cr0 & ~(uint64_t)CR0_NE) == VECTOR_GP);
	story_check("vmxe_fixed", 1, vmx_try_cr4(cr4 & ~(uint64_t)CR4_VMXE) == VECTOR_GP);
	story_check("off", 0, vmx_do(VMX_DO_VMXOFF, NULL, 0));
	story_check("off_again", VMX_FAULT(VECTOR_UD), vmx_do(VMX_DO_VMXOFF, NULL, 0));
	story_check("ne_free", 0, vmx_try_cr0(cr0 & ~(uint64_t)CR0_NE) == VECTOR_GP);
	machine_write_cr0(cr0);
	story_check("vmxe_free", 0, vmx_try_cr4(cr4 & ~(uint64_t)CR4_VMXE) == VECTOR_GP);
	machine_write_cr4(cr4);
	story_check("on_again", 0, on(REGION(VMXON)));
}

/* In VMX root operation VMXON is VMfail 15, with a current VMCS and without. */
STORY(vmxon_in_root)
{
	if (!vmx_prepare())
		return;
	story_check("on", 0, on(REGION(VMXON)));
	story_check("without_vmcs", VMX_FAIL_INVALID, on(REGION(VMXON)));
	clear(REGION(VMCS));
	story_check("load", 0, load(REGION(VMCS)));
	story_check("with_vmcs", VMX_FAIL(VMX_ERROR_VMXON_IN_ROOT), on(REGION(VMXON)));
	story_check("other_region", VMX_FAIL(VMX_ERROR_VMXON_IN_ROOT), on(REGION(SPARE)));
	story_check("current", REGION(VMCS), vmx_current());
	story_check("vmcall", VMX_FAIL(VMX_ERROR_VMCALL_IN_ROOT), vmx_do(VMX_DO_VMCALL, NULL, 0));
	clear(REGION(VMCS));
	story_check("vmcall_without", VMX_FAIL_INVALID, vmx_do(VMX_DO_VMCALL, NULL, 0));
	story_check("off", 0, vmx_do(VMX_DO_VMXOFF, NULL, 0));
}

/* ---- VMCLEAR, VMPTRLD, VMPTRST ---- */

STORY(vmptrld_errors)
{
	if (!vmx_begin())
		return;
	story_check("misaligned", VMX_FAIL(VMX_ERROR_VMPTRLD_ADDRESS), load(REGION(VMCS2) + 8));
	story_check("misaligned_800", VMX_FAIL(VMX_ERROR_VMPTRLD_ADDRESS), load(REGION(VMCS2) + 0x800));
	story_check("beyond_width", VMX_FAIL(VMX_ERROR_VMPTRLD_ADDRESS),
		    load(REGION(VMCS2) | beyond_width()));
	story_check("vmxon_pointer", VMX_FAIL(VMX_ERROR_VMPTRLD_VMXON_POINTER), load(REGION(VMXON)));
	story_check("revision", VMX_FAIL(VMX_ERROR_VMPTRLD_REVISION), load(REGION(SPARE)));
	REVISION(VMCS2) ^= 2;
	story_check("revision_bit", VMX_FAIL(VMX_ERROR_VMPTRLD_REVISION), load(REGION(VMCS2)));
	REVISION(VMCS2) ^= 2;
	story_check("current", REGION(VMCS), vmx_current());
	if (!vmx_can(VMCS_SECONDARY_CONTROLS, VMX2_VMCS_SHADOWING)) {
		REVISION(VMCS2) |= VMCS_SHADOW;
		story_check("shadow_bit", VMX_FAIL(VMX_ERROR_VMPTRLD_REVISION), load(REGION(VMCS2)));
		REVISION(VMCS2) &= ~VMCS_SHADOW;
	}
	clear(REGION(VMCS2));
	story_check("good", 0, load(REGION(VMCS2)));
	story_check("current_2", REGION(VMCS2), vmx_current());
	story_check("back", 0, load(REGION(VMCS)));
	story_check("again", 0, load(REGION(VMCS)));
	story_check("current_1", REGION(VMCS), vmx_current());
}

/* Without a current VMCS these are VMfailInvalid. */
STORY(vmptrld_errors_without_vmcs)
{
	uint64_t value = 0;

	if (!vmx_begin())
		return;
	clear(REGION(VMCS));
	story_check("current", NO_VMCS, vmx_current());
	story_check("load", VMX_FAIL_INVALID, load(REGION(SPARE)));
	story_check("load_vmxon", VMX_FAIL_INVALID, load(REGION(VMXON)));
	story_check("clear_misaligned", VMX_FAIL_INVALID, clear(REGION(VMCS) + 1));
	story_check("clear_vmxon", VMX_FAIL_INVALID, clear(REGION(VMXON)));
	story_check("read", VMX_FAIL_INVALID, vmx_try_read(VMCS_GUEST_RIP, &value));
	story_check("write", VMX_FAIL_INVALID, vmx_try_write(VMCS_GUEST_RIP, 0));
	story_check("read_unknown", VMX_FAIL_INVALID, vmx_try_read(0x7ffe, &value));
	story_check("launch", VMX_FAIL_INVALID, vmx_do(VMX_DO_VMLAUNCH, NULL, 0));
	story_check("resume", VMX_FAIL_INVALID, vmx_do(VMX_DO_VMRESUME, NULL, 0));
}

STORY(vmclear_errors)
{
	if (!vmx_begin())
		return;
	story_check("misaligned", VMX_FAIL(VMX_ERROR_VMCLEAR_ADDRESS), clear(REGION(VMCS) + 4));
	story_check("beyond_width", VMX_FAIL(VMX_ERROR_VMCLEAR_ADDRESS),
		    clear(REGION(VMCS) | beyond_width()));
	story_check("vmxon_pointer", VMX_FAIL(VMX_ERROR_VMCLEAR_VMXON_POINTER), clear(REGION(VMXON)));
	story_check("current", REGION(VMCS), vmx_current());
	story_check("other", 0, clear(REGION(VMCS2)));
	story_check("other_keeps_current", REGION(VMCS), vmx_current());
	story_check("any_revision", 0, clear(REGION(SPARE))); /* it is not looked at */
	story_check("own", 0, clear(REGION(VMCS)));
	story_check("none", NO_VMCS, vmx_current());
	story_check("twice", 0, clear(REGION(VMCS)));
}

/* ---- launch states ---- */

static void second_vmcs(void)
{
	clear(REGION(VMCS2));
	load(REGION(VMCS2));
	vmx_load_host();
	vmx_load_controls(MODE_LONG, VMX_BARE);
	vmx_load_guest(MODE_LONG);
	vmx_set_clear();
}

STORY(launch_states)
{
	if (!vmx_baseline(MODE_LONG, 0, VMX_BARE))
		return;
	story_check("resume_clear", VMX_FAIL(VMX_ERROR_VMRESUME_NOT_LAUNCHED),
		    vmx_do(VMX_DO_VMRESUME, NULL, 0));
	vmx_check_runs();
	story_check("launch_launched", VMX_FAIL(VMX_ERROR_VMLAUNCH_NOT_CLEAR),
		    vmx_do(VMX_DO_VMLAUNCH, NULL, 0));
	vmx_check_runs();
	/* VMPTRLD does not change it, nor does another VMCS. */
	second_vmcs();
	story_check("resume_second", VMX_FAIL(VMX_ERROR_VMRESUME_NOT_LAUNCHED),
		    vmx_do(VMX_DO_VMRESUME, NULL, 0));
	vmx_check_runs();
	load(REGION(VMCS));
	story_check("launch_first", VMX_FAIL(VMX_ERROR_VMLAUNCH_NOT_CLEAR), vmx_do(VMX_DO_VMLAUNCH, NULL, 0));
	vmx_check_runs();
	/* VMCLEAR does. */
	clear(REGION(VMCS));
	load(REGION(VMCS));
	story_check("resume_cleared", VMX_FAIL(VMX_ERROR_VMRESUME_NOT_LAUNCHED),
		    vmx_do(VMX_DO_VMRESUME, NULL, 0));
	vmx_set_clear();
	vmx_check_runs();
	/* An entry that fails does not launch. */
	clear(REGION(VMCS));
	load(REGION(VMCS));
	vmx_write(VMCS_GUEST_ACTIVITY, 9);
	vmx_set_clear();
	story_check("fails", 0, vmx_run());
	vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_ENTRY_GUEST_STATE | VMX_EXIT_ENTRY_FAILURE);
	story_check("resume_failed", VMX_FAIL(VMX_ERROR_VMRESUME_NOT_LAUNCHED),
		    vmx_do(VMX_DO_VMRESUME, NULL, 0));
}

/* Two VMCSs keep their fields apart; a VMCS keeps them from VMCLEAR to VMPTRLD, and its copy elsewhere as
 * well. */
STORY(two_vmcs)
{
	if (!vmx_baseline(MODE_LONG, 0, VMX_BARE))
		return;
	vmx_write(VMCS_GUEST_RSP, 0x1111);
	second_vmcs();
	vmx_write(VMCS_GUEST_RSP, 0x2222);
	load(REGION(VMCS));
	vmx_check_field(VMCS_GUEST_RSP, 0x1111);
	load(REGION(VMCS2));
	vmx_check_field(VMCS_GUEST_RSP, 0x2222);
	clear(REGION(VMCS));
	clear(REGION(VMCS2));
	machine_copy(vmx_at(VMX_PAGE_SPARE, 0), vmx_at(VMX_PAGE_VMCS, 0), 4096);
	load(REGION(VMCS));
	vmx_check_field(VMCS_GUEST_RSP, 0x1111);
	clear(REGION(VMCS));
	story_check("copy", 0, load(REGION(SPARE)));
	vmx_check_field(VMCS_GUEST_RSP, 0x1111);
	vmx_set_clear();
	vmx_check_runs();
}

/* Events are blocked by MOV SS behind it: VMfail 26, for both. */
STORY(entry_behind_mov_ss)
{
	if (!vmx_baseline(MODE_LONG, 0, VMX_BARE))
		return;
	story_check("launch", VMX_FAIL(VMX_ERROR_ENTRY_MOV_SS), vmx_do(VMX_DO_MOV_SS_VMLAUNCH, NULL, 0));
	vmx_check_runs();
	story_check("resume", VMX_FAIL(VMX_ERROR_ENTRY_MOV_SS), vmx_do(VMX_DO_MOV_SS_VMRESUME, NULL, 0));
	vmx_check_runs();
}

/* A shadow VMCS can be current, read and written, but not entered (25.10, 27.1). */
STORY(shadow_vmcs)
{
	if (!vmx_begin() || !vmx_needs(VMCS_SECONDARY_CONTROLS, VMX2_VMCS_SHADOWING))
		return;
	REVISION(SHADOW) |= VMCS_SHADOW;
	clear(REGION(SHADOW));
	story_check("load", 0, load(REGION(SHADOW)));
	story_check("current", REGION(SHADOW), vmx_current());
	story_check("write", 0, vmx_try_write(VMCS_GUEST_RIP, 0x1234));
	vmx_check_field(VMCS_GUEST_RIP, 0x1234);
	story_check("launch", VMX_FAIL_INVALID, vmx_do(VMX_DO_VMLAUNCH, NULL, 0));
	story_check("resume", VMX_FAIL_INVALID, vmx_do(VMX_DO_VMRESUME, NULL, 0));
}

/* The link pointer may not be the current VMCS (27.3.1.5). */
STORY(link_to_itself)
{
	if (!vmx_baseline(MODE_LONG, 0, VMX_BARE))
		return;
	vmx_write(VMCS_LINK_POINTER, REGION(SHADOW));
	vmx_check_runs();
}

/* ---- VMREAD and VMWRITE of a guest with VMCS shadowing (26.1.3, 31.3) ---- */

/*
 * @index: the field; @value 0: both bitmaps clear, 1: the read bit, 2: the write bit; 3: encoding with
 * bit 15; 4: as 0, but the control is 0. The guest writes a field of the shadow VMCS, then reads it.
 */
static bool exists(uint32_t field);

STORY(shadowing)
{
	uint64_t field = GIVEN(index), which = GIVEN(value);
	unsigned bit = (unsigned)field & 0x7fff;

	if (!vmx_baseline(MODE_LONG, 0, VMX_BARE) || !vmx_needs(VMCS_SECONDARY_CONTROLS, VMX2_VMCS_SHADOWING) ||
	    !story_needs(exists((uint32_t)field & ~1u), "vmcs_field=0"))
		return;
	/* 31.3 VMWRITE: fields that tell of exits. */
	if (VMCS_TYPE(field) == VMCS_READ_ONLY && !vmx_needs_bit(VMX_MSR_MISC, 29))
		return;
	REVISION(SHADOW) |= VMCS_SHADOW;
	clear(REGION(SHADOW));
	load(REGION(SHADOW));
	vmx_write((uint32_t)field, 0x77);
	clear(REGION(SHADOW));
	load(REGION(VMCS));
	vmx_set(VMCS_SECONDARY_CONTROLS, VMX2_VMCS_SHADOWING);
	vmx_write(VMCS_VMREAD_BITMAP, REGION(VMREAD));
	vmx_write(VMCS_VMWRITE_BITMAP, REGION(VMWRITE));
	vmx_write(VMCS_LINK_POINTER, REGION(SHADOW));
	if (which == 1)
		*(uint8_t *)vmx_at(VMX_PAGE_VMREAD, bit >> 3) |= (uint8_t)(1u << (bit & 7));
	if (which == 2)
		*(uint8_t *)vmx_at(VMX_PAGE_VMWRITE, bit >> 3) |= (uint8_t)(1u << (bit & 7));
	/* VMREAD RCX, RAX: 0F 78 C1; VMWRITE RAX, RDX: 0F 79 C2; VMREAD RBX, RAX: 0F 78 C3. */
	VMX_CODE(0x0f, 0x78, 0xc1, 0x0f, 0x79, 0xc2, 0x0f, 0x78, 0xc3);
	vmx_registers[RAX] = which == 3 ? field | 1ull << 15 : field;
	vmx_registers[RCX] = vmx_registers[RBX] = 0;
	vmx_registers[RDX] = 0x55;
	if (which == 4) {
		vmx_clear(VMCS_SECONDARY_CONTROLS, VMX2_VMCS_SHADOWING);
		vmx_write(VMCS_LINK_POINTER, ~0ull);
	}
	story_check("entry", 0, vmx_run());
	if (which == 1 || which >= 3) {
		vmx_check_exit(VMX_EXIT_VMREAD, 0, 3);
		vmx_check_field(VMCS_GUEST_RIP, CASE_STUB);
		return;
	}
	story_check("read", 0x77, vmx_registers[RCX]);
	if (which == 2) {
		vmx_check_exit(VMX_EXIT_VMWRITE, 0, 3);
		vmx_check_field(VMCS_GUEST_RIP, CASE_STUB + 3);
		return;
	}
	vmx_check_exit(VMX_EXIT_VMCALL, 0, 3);
	story_check("read_back", 0x55, vmx_registers[RBX]);
	load(REGION(SHADOW));
	story_check("in_shadow", 0x55, vmx_read((uint32_t)field));
	load(REGION(VMCS));
}

/* ---- every field ---- */

static bool cet(void) { return vmx_can(VMCS_ENTRY_CONTROLS, VMX_ENTRY_LOAD_CET); }
static bool pkrs(void) { return vmx_can(VMCS_ENTRY_CONTROLS, VMX_ENTRY_LOAD_PKRS); }
static bool secondary(uint32_t bits) { return vmx_can(VMCS_SECONDARY_CONTROLS, bits); }

/* Whether the processor has the field (appendix B says of which control each is). */
static bool exists(uint32_t field)
{
	switch (field & ~1u) {
	case VMCS_VPID: return secondary(VMX2_VPID);
	case VMCS_POSTED_INTERRUPT_VECTOR:
	case VMCS_POSTED_INTERRUPT_DESCRIPTOR: return vmx_can(VMCS_PIN_CONTROLS, VMX_PIN_POSTED_INTERRUPTS);
	case VMCS_EPTP_INDEX:
	case VMCS_VE_INFORMATION: return secondary(VMX2_EPT_VIOLATION_VE);
	case VMCS_HLAT_PREFIX_SIZE:
	case VMCS_LAST_PID_POINTER_INDEX:
	case VMCS_TERTIARY_CONTROLS: return vmx_can(VMCS_PRIMARY_CONTROLS, VMX_ACTIVATE_TERTIARY);
	case VMCS_GUEST_INTERRUPT_STATUS:
	case VMCS_EOI_EXIT_0:
	case VMCS_EOI_EXIT_1:
	case VMCS_EOI_EXIT_2:
	case VMCS_EOI_EXIT_3: return secondary(VMX2_VIRTUAL_INTERRUPTS);
	case VMCS_PML_INDEX:
	case VMCS_PML_ADDRESS: return secondary(VMX2_PML);
	case VMCS_MSR_BITMAP: return vmx_can(VMCS_PRIMARY_CONTROLS, VMX_USE_MSR_BITMAPS);
	case VMCS_VIRTUAL_APIC:
	case VMCS_TPR_THRESHOLD: return vmx_can(VMCS_PRIMARY_CONTROLS, VMX_TPR_SHADOW);
	case VMCS_APIC_ACCESS: return secondary(VMX2_VIRTUALIZE_APIC);
	case VMCS_VM_FUNCTIONS: return secondary(VMX2_VM_FUNCTIONS);
	case VMCS_EPTP_LIST: return vmx_msr(VMX_MSR_VMFUNC) & 1;
	case VMCS_EPTP:
	case VMCS_GUEST_PHYSICAL_ADDRESS:
	case VMCS_GUEST_PDPTE0:
	case VMCS_GUEST_PDPTE1:
	case VMCS_GUEST_PDPTE2:
	case VMCS_GUEST_PDPTE3: return secondary(VMX2_EPT);
	case VMCS_VMREAD_BITMAP:
	case VMCS_VMWRITE_BITMAP: return secondary(VMX2_VMCS_SHADOWING);
	case VMCS_XSS_EXITING_BITMAP: return secondary(VMX2_XSAVES);
	case VMCS_ENCLS_EXITING_BITMAP: return secondary(VMX2_ENCLS);
	case VMCS_ENCLV_EXITING_BITMAP: return secondary(VMX2_ENCLV);
	case VMCS_SPP_TABLE: return secondary(VMX2_SUB_PAGE_WRITE);
	case VMCS_TSC_MULTIPLIER: return secondary(VMX2_TSC_SCALING);
	case VMCS_SECONDARY_CONTROLS: return vmx_can(VMCS_PRIMARY_CONTROLS, VMX_ACTIVATE_SECONDARY);
	case VMCS_PLE_GAP:
	case VMCS_PLE_WINDOW: return secondary(VMX2_PAUSE_LOOP);
	case VMCS_PREEMPTION_TIMER: return vmx_can(VMCS_PIN_CONTROLS, VMX_PIN_PREEMPTION_TIMER);
	case VMCS_GUEST_PAT: return vmx_can(VMCS_ENTRY_CONTROLS, VMX_ENTRY_LOAD_PAT);
	case VMCS_HOST_PAT: return vmx_can(VMCS_EXIT_CONTROLS, VMX_EXIT_LOAD_PAT);
	case VMCS_GUEST_EFER: return vmx_can(VMCS_ENTRY_CONTROLS, VMX_ENTRY_LOAD_EFER);
	case VMCS_HOST_EFER: return vmx_can(VMCS_EXIT_CONTROLS, VMX_EXIT_LOAD_EFER);
	case VMCS_GUEST_PERF_GLOBAL_CTRL:
		return vmx_can(VMCS_ENTRY_CONTROLS, VMX_ENTRY_LOAD_PERF_GLOBAL_CTRL);
	case VMCS_HOST_PERF_GLOBAL_CTRL: return vmx_can(VMCS_EXIT_CONTROLS, VMX_EXIT_LOAD_PERF_GLOBAL_CTRL);
	case VMCS_GUEST_BNDCFGS: return vmx_can(VMCS_ENTRY_CONTROLS, VMX_ENTRY_LOAD_BNDCFGS);
	case VMCS_GUEST_RTIT_CTL: return vmx_can(VMCS_ENTRY_CONTROLS, 1u << 18);
	case VMCS_GUEST_LBR_CTL: return vmx_can(VMCS_ENTRY_CONTROLS, 1u << 21);
	case VMCS_GUEST_UINV: return vmx_can(VMCS_ENTRY_CONTROLS, 1u << 19);
	case VMCS_GUEST_PKRS:
	case VMCS_HOST_PKRS: return pkrs();
	case VMCS_GUEST_S_CET:
	case VMCS_GUEST_SSP:
	case VMCS_GUEST_INTERRUPT_SSP_TABLE:
	case VMCS_HOST_S_CET:
	case VMCS_HOST_SSP:
	case VMCS_HOST_INTERRUPT_SSP_TABLE: return cet();
	default: return true;
	}
}

static uint64_t width_mask(uint32_t field)
{
	switch (VMCS_WIDTH(field)) {
	case VMCS_16: return 0xffff;
	case VMCS_32: return 0xffffffff;
	default: return field & 1 ? 0xffffffff : ~0ull;
	}
}

#define PATTERN 0xa5c3962d5be1478full

/*
 * @index: the encoding. What is written is read, as wide as the field is; one that only the processor writes
 * is VMfail 13, or is written where IA32_VMX_MISC says so; one that there is not is VMfail 12.
 */
STORY(vmcs_field)
{
	uint32_t field = (uint32_t)GIVEN(index);
	uint64_t value = 0x5a, mask = width_mask(field);
	bool read_only;

	if (!vmx_begin())
		return;
	read_only = VMCS_TYPE(field) == VMCS_READ_ONLY && !(vmx_msr(VMX_MSR_MISC) & VMX_MISC_VMWRITE_ANY);
	if (!exists(field)) {
		story_check("read", VMX_FAIL(VMX_ERROR_UNSUPPORTED_FIELD), vmx_try_read(field, &value));
		story_check("value", 0x5a, value);
		story_check("write", VMX_FAIL(VMX_ERROR_UNSUPPORTED_FIELD), vmx_try_write(field, PATTERN));
		return;
	}
	if (read_only) {
		story_check("write", VMX_FAIL(VMX_ERROR_READ_ONLY_FIELD), vmx_try_write(field, PATTERN));
		story_check("read", 0, vmx_try_read(field, &value));
		return;
	}
	story_check("write", 0, vmx_try_write(field, PATTERN));
	story_check("read", 0, vmx_try_read(field, &value));
	story_check("value", PATTERN & mask, value);
	if (VMCS_WIDTH(field) == VMCS_64 && !(field & 1)) {
		story_check("write_high", 0, vmx_try_write(VMCS_HIGH(field), 0xffffffff11223344ull));
		story_check("read_high", 0, vmx_try_read(VMCS_HIGH(field), &value));
		story_check("high", 0x11223344, value);
		story_check("whole", 0x1122334400000000ull | (uint32_t)PATTERN, vmx_read(field));
	}
	story_check("write_zero", 0, vmx_try_write(field, 0));
	story_check("zero", 0, vmx_read(field));
}

/* @index: an encoding that no processor has. */
STORY(vmcs_no_field)
{
	uint64_t field = GIVEN(index), value = 0x5a;

	if (!vmx_begin())
		return;
	story_check("read", VMX_FAIL(VMX_ERROR_UNSUPPORTED_FIELD), vmx_try_read(field, &value));
	story_check("value", 0x5a, value);
	story_check("write", VMX_FAIL(VMX_ERROR_UNSUPPORTED_FIELD), vmx_try_write(field, 0));
	vmx_check_field(VMCS_INSTRUCTION_ERROR, VMX_ERROR_UNSUPPORTED_FIELD);
}

/* ---- INVEPT, INVVPID (31.3) ---- */

STORY(invept_types)
{
	uint64_t type = GIVEN(index), descriptor[2] = {vmx_eptp(), 0}, caps;
	bool known;

	if (!vmx_begin() || !vmx_needs_bit(VMX_MSR_EPT_VPID, 20))
		return;
	caps = vmx_msr(VMX_MSR_EPT_VPID);
	known = (type == INVEPT_CONTEXT && caps & VMX_EPT_INVEPT_CONTEXT) ||
		(type == INVEPT_ALL && caps & VMX_EPT_INVEPT_ALL);
	story_check("result", known ? 0 : VMX_FAIL(VMX_ERROR_INVALIDATION_OPERAND),
		    vmx_do(VMX_DO_INVEPT, descriptor, type));
	descriptor[0] |= 1 << 8;
	story_check("eptp", type == INVEPT_ALL && known ? 0 : VMX_FAIL(VMX_ERROR_INVALIDATION_OPERAND),
		    vmx_do(VMX_DO_INVEPT, descriptor, type));
}

STORY(invvpid_types)
{
	uint64_t type = GIVEN(index), descriptor[2] = {5, 0x1000}, caps;
	bool known;

	if (!vmx_begin() || !vmx_needs_bit(VMX_MSR_EPT_VPID, 32))
		return;
	caps = vmx_msr(VMX_MSR_EPT_VPID);
	known = type < 4 && caps >> (40 + type) & 1;
	story_check("result", known ? 0 : VMX_FAIL(VMX_ERROR_INVALIDATION_OPERAND),
		    vmx_do(VMX_DO_INVVPID, descriptor, type));
	descriptor[0] = 0x10005;
	story_check("reserved", VMX_FAIL(VMX_ERROR_INVALIDATION_OPERAND),
		    vmx_do(VMX_DO_INVVPID, descriptor, type));
	descriptor[0] = 0;
	story_check("vpid_0", known && type == INVVPID_ALL ? 0 : VMX_FAIL(VMX_ERROR_INVALIDATION_OPERAND),
		    vmx_do(VMX_DO_INVVPID, descriptor, type));
	descriptor[0] = 5;
	descriptor[1] = 0x4000000000000000ull;
	story_check("noncanonical",
		    known && type != INVVPID_ADDRESS ? 0 : VMX_FAIL(VMX_ERROR_INVALIDATION_OPERAND),
		    vmx_do(VMX_DO_INVVPID, descriptor, type));
}

/* ---- bits of controls against the capability MSRs (appendix A) ---- */

/*
 * @index: the field, @value: the bit, @mode: its value. Where the MSR does not allow it, VM entry is VMfail
 * 7; the true MSRs and the others agree.
 */
STORY(control_bit)
{
	static const uint32_t fields[] = {VMCS_PIN_CONTROLS, VMCS_PRIMARY_CONTROLS, VMCS_SECONDARY_CONTROLS,
					  VMCS_EXIT_CONTROLS, VMCS_ENTRY_CONTROLS};
	static const uint32_t plain[] = {VMX_MSR_PIN, VMX_MSR_PRIMARY, VMX_MSR_SECONDARY, VMX_MSR_EXIT,
					 VMX_MSR_ENTRY};
	static const uint32_t default1[] = {VMX_PIN_DEFAULT1, VMX_PRIMARY_DEFAULT1, 0, VMX_EXIT_DEFAULT1,
					    VMX_ENTRY_DEFAULT1};
	unsigned n = (unsigned)GIVEN(index);
	uint32_t field = fields[n], bit = 1u << GIVEN(value);
	bool set = GIVEN(mode);
	uint64_t msr;

	if (!vmx_baseline(MODE_LONG, 0, VMX_BARE))
		return;
	if (field == VMCS_SECONDARY_CONTROLS && !vmx_needs(VMCS_PRIMARY_CONTROLS, VMX_ACTIVATE_SECONDARY))
		return;
	if (field == VMCS_SECONDARY_CONTROLS)
		vmx_set(VMCS_PRIMARY_CONTROLS, VMX_ACTIVATE_SECONDARY);
	msr = machine_read_msr(MSR_VMX(plain[n]));
	/* What must be 1 may be 1; default1 controls are reported as such by the plain MSR; the true one
	 * allows no less. */
	story_check("must_and_may", 0, vmx_must_be_1(field) & ~vmx_may_be_1(field) & bit);
	story_check("default1", default1[n] & bit, (uint32_t)msr & default1[n] & bit);
	story_check("default0", 0, (uint32_t)msr & ~default1[n] & bit);
	story_check("may_alike", (uint32_t)(msr >> 32) & bit, vmx_may_be_1(field) & bit);
	if (!set && vmx_must_be_1(field) & bit) {
		vmx_clear(field, bit);
		story_check("must_be_1", VMX_FAIL(VMX_ERROR_ENTRY_CONTROLS), vmx_run());
	} else if (set && !(vmx_may_be_1(field) & bit)) {
		vmx_write(field, vmx_read(field) | bit);
		story_check("must_be_0", VMX_FAIL(VMX_ERROR_ENTRY_CONTROLS), vmx_run());
	}
	vmx_load_controls(MODE_LONG, VMX_BARE);
	vmx_check_runs();
}

/* The capability MSRs themselves: read-only, and what the appendix promises of them. */
STORY(capability_msrs)
{
	uint64_t basic, ept, value;

	if (!vmx_begin())
		return;
	basic = vmx_msr(VMX_MSR_BASIC);
	story_check("basic_31", 0, basic >> 31 & 1);
	story_check("basic_size", 1, (basic >> 32 & 0x1fff) >= 1 && (basic >> 32 & 0x1fff) <= 4096);
	story_check("basic_type", 6, basic >> 50 & 15);
	story_check("basic_reserved", 0, basic >> 57);
	story_check("basic_32_bit", 0, basic >> 48 & 1);
	story_check("cr0_fixed", 0, vmx_msr(VMX_MSR_CR0_FIXED0) & ~vmx_msr(VMX_MSR_CR0_FIXED1));
	story_check("cr0_pe_ne_pg", CR0_PE | CR0_NE | CR0_PG,
		    vmx_msr(VMX_MSR_CR0_FIXED0) & (CR0_PE | CR0_NE | CR0_PG));
	story_check("cr4_fixed", 0, vmx_msr(VMX_MSR_CR4_FIXED0) & ~vmx_msr(VMX_MSR_CR4_FIXED1));
	story_check("cr4_vmxe", CR4_VMXE, vmx_msr(VMX_MSR_CR4_FIXED0) & CR4_VMXE);
	story_check("cr3_targets", 1, (vmx_msr(VMX_MSR_MISC) >> 16 & 0x1ff) <= 4);
	story_check("misc_lma", 1,
		    !vmx_can(VMCS_SECONDARY_CONTROLS, VMX2_UNRESTRICTED_GUEST) ||
			    vmx_msr(VMX_MSR_MISC) >> 5 & 1);
	ept = vmx_msr(VMX_MSR_EPT_VPID);
	if (vmx_can(VMCS_SECONDARY_CONTROLS, VMX2_EPT)) {
		story_check("ept_4_levels", 1, ept >> 6 & 1);
		story_check("ept_type", 1, (ept >> 8 & 1) | (ept >> 14 & 1));
		story_check("ept_any_invept", 1, !(ept >> 20 & 1) || ept >> 25 & 3);
	}
	for (unsigned n = 0; n < 5; n++) {
		story_check_at("write", n, VECTOR_GP,
			       story_try_wrmsr(MSR_VMX(n), machine_read_msr(MSR_VMX(n))));
		story_check_at("read", n, STORY_NO_FAULT, story_try_rdmsr(MSR_VMX(n), &value));
	}
	story_check("feature_control", VECTOR_GP, story_try_wrmsr(0x3a, 5)); /* locked */
}
