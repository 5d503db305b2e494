/*
 * legacy.c: a hypervisor in 32-bit protected mode: what VM entry checks of the address-space size there, and
 * an exit to it (SDM 3C 27.2.3, 27.2.4, 28.5).
 */
#include "lib/exchange.h"
#include "lib/machine.h"
#include "lib/report.h"
#include "lib/story.h"
#include "lib/vmx_world.h"
#include "x86/case_layout.h"
#include "x86/paging.h"

uint32_t vmx_switch_legacy(const uint64_t *vmxon, const uint64_t *vmcs, const uint32_t cr[3], uint32_t field);
extern const uint8_t vmx_legacy_exited[];
extern uint8_t vmx_legacy_stack[];
extern uint32_t vmx_legacy_field;

/* The host's own tables: 4 GiB as they are. */
static uint64_t pdpt[4] __attribute__((aligned(4096))), directories[4][512] __attribute__((aligned(4096)));

static void tables(void)
{
	for (uint64_t i = 0; i < 4; i++)
		pdpt[i] = (uintptr_t)directories[i] | PTE_P;
	for (uint64_t i = 0; i < 2048; i++)
		directories[i / 512][i % 512] = i << 21 | PTE_P | PTE_W | PTE_PS;
}

static void load_legacy_host(const uint32_t cr[3])
{
	static const uint32_t data[] = {VMCS_HOST_ES, VMCS_HOST_SS, VMCS_HOST_DS, VMCS_HOST_FS, VMCS_HOST_GS};

	vmx_clear(VMCS_EXIT_CONTROLS, VMX_EXIT_HOST_64 | VMX_EXIT_LOAD_EFER);
	vmx_write(VMCS_HOST_CR0, cr[0]);
	vmx_write(VMCS_HOST_CR3, cr[1]);
	vmx_write(VMCS_HOST_CR4, cr[2]);
	vmx_write(VMCS_HOST_CS, MONITOR_CS32);
	for (unsigned i = 0; i < sizeof(data) / sizeof(data[0]); i++)
		vmx_write(data[i], MONITOR_DS);
	vmx_write(VMCS_HOST_RIP, (uintptr_t)vmx_legacy_exited);
	vmx_write(VMCS_HOST_RSP, (uintptr_t)vmx_legacy_stack);
}

enum { LEGACY_RUNS, LEGACY_SS_NULL, LEGACY_GUEST_64, LEGACY_HOST_64, LEGACY_PCIDE, LEGACY_RIP };

/* False: NOTSUP was said. */
static bool change(uint64_t which)
{
	switch (which) {
	case LEGACY_SS_NULL: vmx_write(VMCS_HOST_SS, 0); break;
	case LEGACY_GUEST_64: vmx_set(VMCS_ENTRY_CONTROLS, VMX_ENTRY_IA32E); break;
	case LEGACY_HOST_64: vmx_set(VMCS_EXIT_CONTROLS, VMX_EXIT_HOST_64); break;
	case LEGACY_PCIDE:
		if (!story_needs(vmx_msr(VMX_MSR_CR4_FIXED1) & CR4_PCIDE, "msr.489[17]=0"))
			return false;
		vmx_write(VMCS_HOST_CR4, vmx_read(VMCS_HOST_CR4) | CR4_PCIDE);
		break;
	case LEGACY_RIP: vmx_write(VMCS_HOST_RIP, vmx_read(VMCS_HOST_RIP) | 1ull << 32); break;
	default: break;
	}
	return true;
}

STORY(vmx_legacy_host)
{
	const uint32_t cr[3] = {(uint32_t)(machine_read_cr0() | CR0_NE), (uint32_t)(uintptr_t)pdpt,
				CR4_PAE | CR4_VMXE};
	const uint64_t vmxon = vmx_page(VMX_PAGE_VMXON), vmcs = vmx_page(VMX_PAGE_VMCS);
	uint64_t which = GIVEN(index);
	bool runs = which == LEGACY_RUNS;
	uint32_t flags;

	if (!vmx_baseline(MODE_PROT32, 0, VMX_BARE) || !vmx_needs_clear(VMCS_EXIT_CONTROLS, VMX_EXIT_HOST_64))
		return;
	tables();
	load_legacy_host(cr);
	if (!change(which))
		return;
	story_check("vmclear", 0, vmx_do_address(VMX_DO_VMCLEAR, vmcs));
	story_check("vmxoff", 0, vmx_do(VMX_DO_VMXOFF, NULL, 0));
	flags = vmx_switch_legacy(&vmxon, &vmcs, cr, runs ? VMCS_EXIT_REASON : VMCS_INSTRUCTION_ERROR);
	if (runs) {
		story_check("flags", 0, flags);
		story_check("reason", VMX_EXIT_VMCALL, vmx_legacy_field);
		return;
	}
	story_check("flags", RFLAGS_ZF, flags & RFLAGS_STATUS);
	/* Of the checks of 27.2.4 the manual does not say which error they are. */
	if (which == LEGACY_GUEST_64 || which == LEGACY_HOST_64)
		story_check("error", 1,
			    vmx_legacy_field == VMX_ERROR_ENTRY_CONTROLS ||
				    vmx_legacy_field == VMX_ERROR_ENTRY_HOST_STATE);
	else
		story_check("error", VMX_ERROR_ENTRY_HOST_STATE, vmx_legacy_field);
}

/* Exits that cannot load the host: VMX abort, a shutdown. @index 0: its PDPTEs (28.5.4); 1: it is outside IA-32e
 * mode, the guest has gone there (28.7). */
STORY(vmx_legacy_abort)
{
	static uint64_t wrong[4] __attribute__((aligned(4096)));
	const uint32_t cr[3] = {(uint32_t)(machine_read_cr0() | CR0_NE), (uint32_t)(uintptr_t)pdpt,
				CR4_PAE | CR4_VMXE};
	const uint64_t vmxon = vmx_page(VMX_PAGE_VMXON), vmcs = vmx_page(VMX_PAGE_VMCS);
	bool narrow = GIVEN(index);

	if (!vmx_baseline(MODE_PROT32, 0, narrow ? VMX_EPT | VMX_UNRESTRICTED : VMX_BARE) ||
	    !vmx_needs_clear(VMCS_EXIT_CONTROLS, VMX_EXIT_HOST_64))
		return;
	tables();
	load_legacy_host(cr);
	if (narrow) {
		if (!vmx_needs(VMCS_ENTRY_CONTROLS, VMX_ENTRY_LOAD_EFER))
			return;
		vmx_set(VMCS_ENTRY_CONTROLS, VMX_ENTRY_LOAD_EFER);
		vmx_write(VMCS_GUEST_EFER, EFER_LME);
		vmx_write(VMCS_GUEST_CR0, vmx_read(VMCS_GUEST_CR0) & ~(uint64_t)CR0_PG);
		vmx_write(VMCS_GUEST_CR4, vmx_read(VMCS_GUEST_CR4) | CR4_PAE);
		vmx_write(VMCS_GUEST_CR3, CASE_CR3_LONG);
		VMX_CODE(0x0f, 0x20, 0xc0, 0x0f, 0xba, 0xe8, 31, 0x0f, 0x22, 0xc0); /* CR0.PG = 1 */
	} else {
		machine_copy(wrong, pdpt, sizeof(wrong));
		wrong[3] |= 2; /* reserved */
		vmx_write(VMCS_HOST_CR3, (uintptr_t)wrong);
	}
	story_check("vmclear", 0, vmx_do_address(VMX_DO_VMCLEAR, vmcs));
	story_check("vmxoff", 0, vmx_do(VMX_DO_VMXOFF, NULL, 0));
	story_reports();
	vmx_switch_legacy(&vmxon, &vmcs, cr, VMCS_EXIT_REASON);
	report_text("RUNS"); /* which is not what comes */
}
