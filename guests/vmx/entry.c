/*
 * entry.c: the checks of VM entry (SDM 3C chapter 27): a valid VMCS, one mutation, the failure that the
 * manual says, and the valid VMCS again. The rows are entry_checks.def.
 */
#include "lib/apic.h"
#include "lib/exchange.h"
#include "lib/machine.h"
#include "lib/story.h"
#include "lib/vmx_world.h"
#include "lib/world.h"
#include "x86/case_layout.h"

#define NONCANONICAL 0x4000000000000000ull

enum base { BARE, R3, EPT, P32, V86, PAE, PAE_EPT, UG, REAL };

static const struct {
	uint8_t mode, cpl, with;
	bool pae;
} bases[] = {
	[BARE] = {MODE_LONG, 0, VMX_BARE, false},
	[R3] = {MODE_LONG, 3, VMX_BARE, false},
	[EPT] = {MODE_LONG, 0, VMX_EPT, false},
	[P32] = {MODE_PROT32, 0, VMX_BARE, false},
	[V86] = {MODE_VM86, 3, VMX_BARE, false},
	[PAE] = {MODE_PROT32, 0, VMX_BARE, true},
	[PAE_EPT] = {MODE_PROT32, 0, VMX_EPT, true},
	[UG] = {MODE_LONG, 0, VMX_EPT | VMX_UNRESTRICTED, false},
	[REAL] = {MODE_REAL, 0, VMX_EPT | VMX_UNRESTRICTED, false},
};

enum check {
#define ENTRY_CHECK(name, base, needs, change, result, key) CHECK_##name,
#include "entry_checks.def"
#undef ENTRY_CHECK
	CHECKS
};

static const uint8_t base_of[CHECKS] = {
#define ENTRY_CHECK(name, base, needs, change, result, key) [CHECK_##name] = base,
#include "entry_checks.def"
#undef ENTRY_CHECK
};

/* What comes. */
enum kind { COMES_RUNS, COMES_FAIL, COMES_EITHER, COMES_EXIT, COMES_HANDLER, COMES_ZERO_LENGTH };
/* As one number, so that macros of the rows can hand it on. */
#define RESULT(kind, number, qualification)                                                                  \
	((uint64_t)(kind) << 48 | (uint64_t)(number) << 32 | (qualification))
#define RUNS           RESULT(COMES_RUNS, 0, 0)
#define CONTROLS       RESULT(COMES_FAIL, VMX_ERROR_ENTRY_CONTROLS, 0)
#define HOST           RESULT(COMES_FAIL, VMX_ERROR_ENTRY_HOST_STATE, 0)
#define EITHER         RESULT(COMES_EITHER, 0, 0)
#define STATE_FAILS(n) RESULT(COMES_EXIT, VMX_EXIT_ENTRY_GUEST_STATE, n)
#define LOADING(n)     RESULT(COMES_EXIT, VMX_EXIT_ENTRY_MSR_LOADING, n)
#define HANDLER        RESULT(COMES_HANDLER, 0, 0)
#define ZERO_LENGTH    RESULT(COMES_ZERO_LENGTH, 0, 0)

static const uint64_t results[CHECKS] = {
#define ENTRY_CHECK(name, base, needs, change, result, key) [CHECK_##name] = result,
#include "entry_checks.def"
#undef ENTRY_CHECK
};
#undef STATE_FAILS

/* ---- words of the rows ---- */

static uint64_t beyond_width(void)
{
	uint32_t r[4];

	machine_cpuid(0x80000008, 0, r);
	return 1ull << ((r[0] & 0xff) < 52 ? r[0] & 0xff : 52);
}

static bool narrow(void)
{
	uint32_t r[4];

	machine_cpuid(7, 0, r);
	return story_needs(!(r[2] >> 16 & 1), "cpuid.7.0.ecx[16]=1"); /* linear addresses have 48 bits */
}

static bool without_misc(unsigned bit)
{
	static const char *const probes[] = {"msr.485[6]=1", "msr.485[7]=1", "msr.485[8]=1"};

	return story_needs(!(vmx_msr(VMX_MSR_MISC) >> bit & 1), probes[bit - 6]);
}

static uint64_t pat_with(unsigned byte, uint64_t type)
{
	return (0x0007040600070406ull & ~(0xffull << 8 * byte)) | type << 8 * byte;
}

static void put_bitmaps(void)
{
	vmx_write(VMCS_IO_BITMAP_A, vmx_page(VMX_PAGE_IO_A));
	vmx_write(VMCS_IO_BITMAP_B, vmx_page(VMX_PAGE_IO_B));
}

static void put_vtpr(uint8_t value) { *(uint8_t *)vmx_at(VMX_PAGE_VIRTUAL_APIC, 0x80) = value; }
static void put_shadow_bit(void) { *(uint32_t *)vmx_at(VMX_PAGE_SHADOW, 0) |= VMCS_SHADOW; }

static void put_pdpte(unsigned n, uint64_t value) { world_poke(CASE_CR3_PAE + 8 * n, &value, 8); }

/* Access rights as virtual-8086 mode demands them, of ES to GS. */
static void put_vm86_rights(void)
{
	for (uint32_t field = VMCS_GUEST_ES_RIGHTS; field <= VMCS_GUEST_GS_RIGHTS; field += 2)
		vmx_write(field, 0xf3);
}

static void put_msr(unsigned slot, uint32_t index, uint32_t reserved, uint64_t value)
{
	uint64_t *entry = vmx_at(VMX_PAGE_ENTRY_LOAD, 16 * slot);

	entry[0] = index | (uint64_t)reserved << 32;
	entry[1] = value;
}

static void put_list(uint32_t index, uint32_t reserved, uint64_t value)
{
	put_msr(0, MSR_SYSENTER_CS, 0, CASE_SYSENTER_CS);
	put_msr(1, index, reserved, value);
	vmx_write(VMCS_ENTRY_MSR_LOAD, vmx_page(VMX_PAGE_ENTRY_LOAD));
	vmx_write(VMCS_ENTRY_MSR_LOAD_COUNT, 2);
}

/* Into x2APIC mode, whose registers are MSRs; the library puts it back. */
static bool put_x2apic(void)
{
	if (!story_has_x2apic())
		return false;
	machine_write_msr(APIC_BASE_MSR, machine_read_msr(APIC_BASE_MSR) | APIC_BASE_EN);
	machine_write_msr(APIC_BASE_MSR, machine_read_msr(APIC_BASE_MSR) | APIC_BASE_EXT);
	return true;
}

/* The precondition, and the change. False: NOTSUP was said. */
static bool change(enum check which)
{
	switch (which) {
#define ENTRY_CHECK(name, base, needs, change, result, key)                                                  \
	case CHECK_##name:                                                                                   \
		if (!(needs))                                                                                \
			return false;                                                                        \
		change;                                                                                      \
		return true;
#include "entry_checks.def"
#undef ENTRY_CHECK
	case CHECKS: break;
	}
	return false;
}

/* ---- the story ---- */

static void load(enum base base)
{
	uint64_t *in = exchange.in.field, zero = 0, first = CASE_PD | PTE_P;

	vmx_load_host();
	vmx_load_controls(bases[base].mode, bases[base].with);
	if (bases[base].pae) {
		in[STATE_cr4] |= CR4_PAE;
		in[STATE_cr3] = CASE_CR3_PAE;
		put_pdpte(0, first);
		for (unsigned n = 1; n < 4; n++)
			put_pdpte(n, zero);
		if (bases[base].with & VMX_EPT) {
			vmx_write(VMCS_GUEST_PDPTE0, first);
			vmx_write(VMCS_GUEST_PDPTE1, 0);
			vmx_write(VMCS_GUEST_PDPTE2, 0);
			vmx_write(VMCS_GUEST_PDPTE3, 0);
		}
	}
	vmx_load_guest(bases[base].mode);
}

/* What no failed entry changes. */
static void check_kept(const uint64_t *registers)
{
	for (unsigned n = 0; n < GPR_COUNT; n++)
		if (n != RSP)
			story_check_at("gpr", n, registers[n], vmx_registers[n]);
}

static void check_result(uint64_t result, unsigned got, uint32_t info, uint32_t reason)
{
	enum kind kind;
	uint32_t number;

	if (result == ZERO_LENGTH)
		result = vmx_msr(VMX_MSR_MISC) & VMX_MISC_ZERO_LENGTH ? HANDLER : CONTROLS;
	kind = (enum kind)(result >> 48);
	number = (uint32_t)(result >> 32) & 0xffff;
	switch (kind) {
	case COMES_FAIL:
		story_check("vmfail", VMX_FAIL(number), got);
		vmx_check_field(VMCS_EXIT_REASON, reason);
		break;
	case COMES_EITHER:
		story_check("vmfail", 1,
			    got == VMX_FAIL(VMX_ERROR_ENTRY_CONTROLS) ||
				    got == VMX_FAIL(VMX_ERROR_ENTRY_HOST_STATE));
		break;
	case COMES_EXIT:
		story_check("entry", 0, got);
		vmx_check_exit(number | VMX_EXIT_ENTRY_FAILURE, (uint32_t)result, 0);
		vmx_check_field(VMCS_ENTRY_INTERRUPTION_INFO, info);
		vmx_check_guest();
		if (!got)
			vmx_check_host();
		break;
	default:
		story_check("entry", 0, got);
		vmx_check_exit(VMX_EXIT_VMCALL, 0, 3);
		story_check("vector", kind == COMES_HANDLER ? info & VMX_EVENT_VECTOR : VMX_NO_VECTOR,
			    vmx_handler_vector());
		vmx_check_field(VMCS_ENTRY_INTERRUPTION_INFO, info & ~VMX_EVENT_VALID);
		break;
	}
}

/* @mode 1: the VMCS has been launched before, and the entry that fails is VMRESUME. */
STORY(entry_check)
{
	enum check which = (enum check)GIVEN(index);
	enum base base = (enum base)base_of[which];
	uint64_t before[GPR_COUNT];
	uint32_t info, reason;
	unsigned got;

	if (!vmx_begin() || !vmx_needs_mode(bases[base].mode, bases[base].with))
		return;
	vmx_world_prepare(bases[base].mode, bases[base].cpl);
	load(base);
	if (GIVEN(mode))
		vmx_check_runs();
	if (!change(which))
		return;
	info = (uint32_t)vmx_read(VMCS_ENTRY_INTERRUPTION_INFO);
	reason = vmx_reason();
	machine_copy(before, vmx_registers, sizeof(before));
	vmx_remember();
	got = vmx_run();
	check_result(results[which], got, info, reason);
	check_kept(before);
	load(base);
	vmx_check_runs();
}
