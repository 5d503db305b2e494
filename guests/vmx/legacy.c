/*
 * legacy.c: a hypervisor in 32-bit protected mode, with PAE paging or 32-bit paging: what VM entry checks of
 * the address-space size there, guests in each mode that it can have, and what an exit to it loads (SDM
 * 3C 27.2.3, 27.2.4, 28.5).
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
extern struct {
	uint32_t eflags, esp, cr0, cr3, cr4, dr7, cs, ss, ds, es, tr, ldtr, efer;
	uint8_t gdtr[8], idtr[8];
} vmx_legacy_state;

/* The host's own tables: 4 GiB as they are, by PAE paging and by pages of 4 MiB. */
static uint32_t directory[1024] __attribute__((aligned(4096)));
static uint64_t pdpt[4] __attribute__((aligned(4096))), directories[4][512] __attribute__((aligned(4096)));

/* An IDT without a gate. */
static const uint64_t no_gates[512] __attribute__((aligned(4096)));

static void tables(void)
{
	for (uint64_t i = 0; i < 4; i++)
		pdpt[i] = (uintptr_t)directories[i] | PTE_P;
	for (uint32_t i = 0; i < 1024; i++)
		directory[i] = i << 22 | PTE_P | PTE_W | PTE_PS;
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

enum {
	LEGACY_RUNS,
	LEGACY_SS_NULL,
	LEGACY_GUEST_64,
	LEGACY_HOST_64,
	LEGACY_PCIDE,
	LEGACY_RIP,
	LEGACY_EFER_LMA,
	LEGACY_EFER_LME,
	LEGACY_CS_NULL,
	LEGACY_CR0_PG,
	LEGACY_CR4_VMXE,
	LEGACY_RPL
};

static bool load_efer(uint64_t value)
{
	if (!vmx_needs(VMCS_EXIT_CONTROLS, VMX_EXIT_LOAD_EFER))
		return false;
	vmx_set(VMCS_EXIT_CONTROLS, VMX_EXIT_LOAD_EFER);
	vmx_write(VMCS_HOST_EFER, value);
	return true;
}

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
	case LEGACY_EFER_LMA: return load_efer(EFER_LMA);
	case LEGACY_EFER_LME: return load_efer(EFER_LME);
	case LEGACY_CS_NULL: vmx_write(VMCS_HOST_CS, 0); break;
	case LEGACY_CR0_PG: vmx_write(VMCS_HOST_CR0, vmx_read(VMCS_HOST_CR0) & ~(uint64_t)CR0_PG); break;
	case LEGACY_CR4_VMXE: vmx_write(VMCS_HOST_CR4, vmx_read(VMCS_HOST_CR4) & ~(uint64_t)CR4_VMXE); break;
	case LEGACY_RPL: vmx_write(VMCS_HOST_ES, vmx_read(VMCS_HOST_ES) | 3); break;
	case LEGACY_RIP:
		vmx_write(VMCS_HOST_RIP, vmx_read(VMCS_HOST_RIP) | 1ull << 32);
		vmx_write(VMCS_HOST_IDTR_BASE, (uintptr_t)no_gates); /* where it is entered, that ends soon */
		break;
	default: break;
	}
	return true;
}

/* @mode 1: with 32-bit paging. */
STORY(vmx_legacy_host)
{
	bool paging_32 = GIVEN(mode);
	const uint32_t cr[3] = {(uint32_t)(machine_read_cr0() | CR0_NE),
				paging_32 ? (uint32_t)(uintptr_t)directory : (uint32_t)(uintptr_t)pdpt,
				(paging_32 ? CR4_PSE : CR4_PAE) | CR4_VMXE};
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

static uint32_t base_of(const uint8_t *table)
{
	uint32_t base;

	machine_copy(&base, table + 2, 4);
	return base;
}

/* 28.5.1 to 28.5.3, in a host that is not in IA-32e mode. */
static void check_loaded(const uint32_t cr[3])
{
	story_check("eflags", RFLAGS_FIXED, vmx_legacy_state.eflags);
	story_check("esp", (uint32_t)(uintptr_t)vmx_legacy_stack, vmx_legacy_state.esp);
	story_check("cr0", cr[0], vmx_legacy_state.cr0);
	story_check("cr3", cr[1], vmx_legacy_state.cr3);
	story_check("cr4", cr[2], vmx_legacy_state.cr4);
	story_check("dr7", 0x400, vmx_legacy_state.dr7);
	story_check("cs", MONITOR_CS32, vmx_legacy_state.cs & 0xffff);
	story_check("ss", MONITOR_DS, vmx_legacy_state.ss & 0xffff);
	story_check("ds", MONITOR_DS, vmx_legacy_state.ds & 0xffff);
	story_check("es", MONITOR_DS, vmx_legacy_state.es & 0xffff);
	story_check("tr", MONITOR_TSS, vmx_legacy_state.tr & 0xffff);
	story_check("ldtr", 0, vmx_legacy_state.ldtr & 0xffff);
	story_check("efer", 0, vmx_legacy_state.efer & (EFER_LME | EFER_LMA));
	story_check("gdtr_limit", 0xffff, vmx_legacy_state.gdtr[0] | vmx_legacy_state.gdtr[1] << 8);
	story_check("idtr_limit", 0xffff, vmx_legacy_state.idtr[0] | vmx_legacy_state.idtr[1] << 8);
	story_check("gdtr", 0x1234000, base_of(vmx_legacy_state.gdtr));
	story_check("idtr", 0x5678000, base_of(vmx_legacy_state.idtr));
}

/*
 * What an exit loads: @index: the guest's mode and privilege level; @mode 1: with 32-bit paging; @value 1:
 * another table than VMXON was executed with: its PDPTEs are loaded by the exit.
 */
STORY(vmx_legacy_exit)
{
	static uint64_t others[4] __attribute__((aligned(4096)));
	unsigned mode = (unsigned)GIVEN(index) & 0xff;
	bool paging_32 = GIVEN(mode), other = GIVEN(value);
	const uint64_t vmxon = vmx_page(VMX_PAGE_VMXON), vmcs = vmx_page(VMX_PAGE_VMCS);
	const uint32_t cr[3] = {(uint32_t)(machine_read_cr0() | CR0_NE),
				paging_32 ? (uint32_t)(uintptr_t)directory : (uint32_t)(uintptr_t)pdpt,
				(paging_32 ? CR4_PSE : CR4_PAE) | CR4_VMXE};
	uint32_t host[3] = {cr[0], cr[1], cr[2]};

	if (!vmx_baseline(mode, (unsigned)GIVEN(index) >> 8, VMX_BARE) ||
	    !vmx_needs_clear(VMCS_EXIT_CONTROLS, VMX_EXIT_HOST_64))
		return;
	tables();
	if (other) {
		machine_copy(others, pdpt, sizeof(others));
		host[1] = (uint32_t)(uintptr_t)others;
	}
	load_legacy_host(host);
	vmx_write(VMCS_HOST_GDTR_BASE, 0x1234000);
	vmx_write(VMCS_HOST_IDTR_BASE, 0x5678000);
	story_check("vmclear", 0, vmx_do_address(VMX_DO_VMCLEAR, vmcs));
	story_check("vmxoff", 0, vmx_do(VMX_DO_VMXOFF, NULL, 0));
	story_check("flags", 0, vmx_switch_legacy(&vmxon, &vmcs, cr, VMCS_EXIT_REASON));
	story_begin_interrupts();
	story_check("reason", VMX_EXIT_VMCALL, vmx_legacy_field);
	check_loaded(host);
}

/* Exits that cannot load the host: VMX abort, a shutdown. @index 0: its PDPTEs (28.5.4); 1: it is outside
 * IA-32e mode, the guest has gone there (28.7). */
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
