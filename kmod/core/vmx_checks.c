/*
 * vmx_checks.c: what VM entry checks of the VMCS of a guest that is a hypervisor (SDM 3C 27.2) before one is
 * made of it that the processor sees: controls, which are not its own there, and the host state, which is
 * another. The processor checks the guest state.
 */
#include "kmod/core/vmx_nested.h"
#include "kmod/core/vmx_region.h"
#include "kmod/core/vmx_shadow.h"
#include "x86/msr.h"

#define MSR_ENTRY_SIZE 16u
#define CPUID_FEATURES 0x80000001u
#define EDX_SYSCALL    (1u << 11)
#define EDX_NX         (1u << 20)
#define EDX_LONG       (1u << 29)

/* A page that the processor will read for the guest. */
static bool structure(struct core_vcpu *vcpu, enum vmcs_field field)
{
	return region_valid(vcpu, region_get(vcpu, field));
}

/* Reserved bits of the controls (27.2.1.1 to 27.2.1.3). */
static bool offered(struct core_vcpu *vcpu)
{
	uint64_t primary = region_get(vcpu, VMCS_PRIMARY_CONTROLS);

	return vmx_offer_allows(MSR_VMX_PIN_CTLS, region_get(vcpu, VMCS_PIN_CONTROLS)) &&
	       vmx_offer_allows(MSR_VMX_PRIMARY_CTLS, primary) &&
	       vmx_offer_allows(MSR_VMX_EXIT_CTLS, region_get(vcpu, VMCS_EXIT_CONTROLS)) &&
	       vmx_offer_allows(MSR_VMX_ENTRY_CTLS, region_get(vcpu, VMCS_ENTRY_CONTROLS)) &&
	       (!(primary & VMX_ACTIVATE_SECONDARY) ||
		vmx_offer_allows(MSR_VMX_SECONDARY_CTLS, region_get(vcpu, VMCS_SECONDARY_CONTROLS)));
}

/* Of the TPR shadow; the threshold is the processor's to check. */
static bool virtual_apic_valid(struct core_vcpu *vcpu)
{
	return !(region_get(vcpu, VMCS_PRIMARY_CONTROLS) & VMX_TPR_SHADOW) ||
	       structure(vcpu, VMCS_VIRTUAL_APIC);
}

static bool bitmaps_valid(struct core_vcpu *vcpu)
{
	uint64_t primary = region_get(vcpu, VMCS_PRIMARY_CONTROLS);

	if (primary & VMX_USE_IO_BITMAPS &&
	    (!structure(vcpu, VMCS_IO_BITMAP_A) || !structure(vcpu, VMCS_IO_BITMAP_B)))
		return false;
	return !(primary & VMX_USE_MSR_BITMAPS) || structure(vcpu, VMCS_MSR_BITMAP);
}

static bool paging_valid(struct core_vcpu *vcpu)
{
	if (region_uses(vcpu, VMX2_VPID) && !region_get(vcpu, VMCS_VPID))
		return false;
	if (region_uses(vcpu, VMX2_EPT))
		return vmx_shadow_eptp_valid(region_get(vcpu, VMCS_EPTP));
	return !region_uses(vcpu, VMX2_UNRESTRICTED_GUEST);
}

/* In our VMCS the timer's value is saved wherever there is the timer. */
static bool timer_valid(struct core_vcpu *vcpu)
{
	return !(region_get(vcpu, VMCS_EXIT_CONTROLS) & VMX_EXIT_SAVE_PREEMPTION_TIMER) ||
	       region_get(vcpu, VMCS_PIN_CONTROLS) & VMX_PIN_PREEMPTION_TIMER;
}

/* A list of MSRs (27.2.1.2, 27.2.1.3). */
static bool list_valid(struct core_vcpu *vcpu, enum vmcs_field address, enum vmcs_field count)
{
	uint64_t first = region_get(vcpu, address), size = region_get(vcpu, count) * MSR_ENTRY_SIZE;
	uint32_t r[4];

	if (!size)
		return true;
	hw_cpuid(0x80000008u, 0, r);
	return !(first & 15) && !(first >> (r[0] & 0xff)) && !((first + size - 1) >> (r[0] & 0xff)) &&
	       tables_reached(vcpu->machine, first, size);
}

bool vmx_checks_controls(struct core_vcpu *vcpu)
{
	return offered(vcpu) && region_get(vcpu, VMCS_CR3_TARGET_COUNT) <= 4 && virtual_apic_valid(vcpu) &&
	       bitmaps_valid(vcpu) && paging_valid(vcpu) && timer_valid(vcpu) &&
	       list_valid(vcpu, VMCS_EXIT_MSR_STORE, VMCS_EXIT_MSR_STORE_COUNT) &&
	       list_valid(vcpu, VMCS_EXIT_MSR_LOAD, VMCS_EXIT_MSR_LOAD_COUNT) &&
	       list_valid(vcpu, VMCS_ENTRY_MSR_LOAD, VMCS_ENTRY_MSR_LOAD_COUNT);
}

/* ---- the host (27.2.2 to 27.2.4) ---- */

static bool is_canonical(uint64_t address, uint64_t cr4)
{
	unsigned unused = cr4 & CR4_LA57 ? 7 : 16;

	return (uint64_t)((int64_t)(address << unused) >> unused) == address;
}

uint64_t vmx_efer_valid(void)
{
	uint32_t r[4];

	hw_cpuid(CPUID_FEATURES, 0, r);
	return (r[3] & EDX_SYSCALL ? EFER_SCE : 0) | (r[3] & EDX_NX ? EFER_NXE : 0) |
	       (r[3] & EDX_LONG ? EFER_LME | EFER_LMA : 0);
}

/* Each byte is a memory type (SDM 3A 12.12.2). */
static bool pat_valid(uint64_t pat)
{
	for (unsigned i = 0; i < 8; i++, pat >>= 8)
		if ((pat & 0xff) > 7 || (pat & 0xff) == 2 || (pat & 0xff) == 3)
			return false;
	return true;
}

static bool host_registers(struct core_vcpu *vcpu, bool wide)
{
	uint64_t cr0 = region_get(vcpu, VMCS_HOST_CR0), cr4 = region_get(vcpu, VMCS_HOST_CR4);
	uint64_t efer = region_get(vcpu, VMCS_HOST_EFER), mode = wide ? EFER_LMA | EFER_LME : 0;
	uint32_t r[4];

	hw_cpuid(0x80000008u, 0, r);
	if (~cr0 & hw_read_msr(MSR_VMX_CR0_FIXED0) || cr0 & ~hw_read_msr(MSR_VMX_CR0_FIXED1) ||
	    ~cr4 & hw_read_msr(MSR_VMX_CR4_FIXED0) || cr4 & ~hw_read_msr(MSR_VMX_CR4_FIXED1) ||
	    cr4 & vcpu->vmx->cr4_refused || region_get(vcpu, VMCS_HOST_CR3) >> (r[0] & 0xff))
		return false;
	if (region_get(vcpu, VMCS_EXIT_CONTROLS) & VMX_EXIT_LOAD_PAT &&
	    !pat_valid(region_get(vcpu, VMCS_HOST_PAT)))
		return false;
	return !(region_get(vcpu, VMCS_EXIT_CONTROLS) & VMX_EXIT_LOAD_EFER) ||
	       (!(efer & ~vmx_efer_valid()) && (efer & (EFER_LMA | EFER_LME)) == mode);
}

static bool host_segments(struct core_vcpu *vcpu, bool wide)
{
	static const uint16_t selectors[] = {VMCS_HOST_ES, VMCS_HOST_CS, VMCS_HOST_SS, VMCS_HOST_DS,
					     VMCS_HOST_FS, VMCS_HOST_GS, VMCS_HOST_TR};
	static const uint16_t addresses[] = {
		VMCS_HOST_FS_BASE,   VMCS_HOST_GS_BASE,      VMCS_HOST_TR_BASE,     VMCS_HOST_GDTR_BASE,
		VMCS_HOST_IDTR_BASE, VMCS_HOST_SYSENTER_ESP, VMCS_HOST_SYSENTER_EIP};
	uint64_t cr4 = vmx_guest_cr(vcpu->vmx, 4);

	for (unsigned i = 0; i < sizeof(selectors) / sizeof(selectors[0]); i++)
		if (region_get(vcpu, (enum vmcs_field)selectors[i]) & 7)
			return false;
	for (unsigned i = 0; i < sizeof(addresses) / sizeof(addresses[0]); i++)
		if (!is_canonical(region_get(vcpu, (enum vmcs_field)addresses[i]), cr4))
			return false;
	return region_get(vcpu, VMCS_HOST_CS) && region_get(vcpu, VMCS_HOST_TR) &&
	       (wide || region_get(vcpu, VMCS_HOST_SS));
}

/* What the mode of the guest, the size of its addresses and the mode of its own guest have to do with each
 * other. */
static bool host_mode(struct core_vcpu *vcpu, bool wide)
{
	bool guest_wide = region_get(vcpu, VMCS_ENTRY_CONTROLS) & VMX_ENTRY_IA32E;
	uint64_t cr4 = region_get(vcpu, VMCS_HOST_CR4), rip = region_get(vcpu, VMCS_HOST_RIP);

	if (wide != !!(vmx_get(VMCS_GUEST_EFER) & EFER_LMA) || (!wide && guest_wide))
		return false;
	return wide ? cr4 & CR4_PAE && is_canonical(rip, cr4) : !(cr4 & CR4_PCIDE) && !(rip >> 32);
}

bool vmx_checks_host(struct core_vcpu *vcpu)
{
	bool wide = region_get(vcpu, VMCS_EXIT_CONTROLS) & VMX_EXIT_HOST_64;

	return host_registers(vcpu, wide) && host_segments(vcpu, wide) && host_mode(vcpu, wide);
}
