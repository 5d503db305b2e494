/*
 * vmx_nested.c: a guest that is a hypervisor itself: entries and exits of its guest (SDM 3C chapters 25 to
 * 28).
 *
 * Its VMCS is in its memory, in a layout of ours (vmx_region.c); VMREAD and VMWRITE exit and go there
 * (vmx_instructions.c). VM entry makes a third VMCS of it: its guest state, its controls with what we need,
 * its EPT joined with our tables (vmx_shadow.c). The processor checks the guest state; what it finds is the
 * guest's to know. Of exits nearly all are the guest's, since we ask for none but those of the tables and of
 * a few MSRs.
 */
#include "kmod/core/vmx_nested.h"
#include "kmod/core/vmx_region.h"
#include "kmod/core/vmx_shadow.h"
#include "x86/descriptors.h"
#include "x86/msr.h"
#include "x86/paging.h"
#include "x86/vectors.h"

/* Those of the secondary controls that give the guest's guest an instruction. */
#define PERMISSIONS (VMX2_RDTSCP | VMX2_INVPCID | VMX2_XSAVES | VMX2_USER_WAIT)

#define PDPTE_RESERVED 0x1e6ull

static struct vmx_nested *nested_of(struct core_vcpu *vcpu) { return &vcpu->vmx->nested; }

/* Fields of the guest's state that are the same in both VMCSs, and those that tell of an exit. */
static const uint16_t all_fields[] = {
#define VMCS_FIELD(encoding, name) (encoding),
#include "x86/vmcs_fields.def"
#undef VMCS_FIELD
};

static bool is_state(uint16_t field)
{
	switch (field) {
	case VMCS_GUEST_EFER:
	case VMCS_GUEST_DEBUGCTL:
	case VMCS_GUEST_DR7:
	case VMCS_GUEST_PAT:
	case VMCS_PREEMPTION_TIMER:
	case VMCS_LINK_POINTER: return false;
	default: return VMCS_TYPE(field) == VMCS_GUEST;
	}
}

/* Once for each vCPU: which of them the processor has. A VMCS is current. */
static void list_fields(struct vmx_nested *nested)
{
	nested->states = nested->tells = 0;
	for (unsigned i = 0; i < sizeof(all_fields) / sizeof(all_fields[0]); i++) {
		uint16_t field = all_fields[i];

		if (!region_has(field))
			continue;
		if (is_state(field))
			nested->state[nested->states++] = field;
		else if (VMCS_TYPE(field) == VMCS_READ_ONLY && field != VMCS_INSTRUCTION_ERROR)
			nested->tell[nested->tells++] = field;
	}
}

/* From the guest's VMCS to the processor's, and back. */
static void load_fields(struct core_vcpu *vcpu, const uint16_t *fields, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		vmx_set((enum vmcs_field)fields[i], *region_slot(vcpu, fields[i]));
}

static void save_fields(struct core_vcpu *vcpu, const uint16_t *fields, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		*region_slot(vcpu, fields[i]) = vmx_get((enum vmcs_field)fields[i]);
}

/*
 * Without exits for interrupts there are those of a step (vmx_step.c), which must not take any. The
 * preemption timer goes on behind exits that are ours alone, so its value is saved whether the guest wants it
 * or not.
 */
static void merge_exit(struct core_vcpu *vcpu)
{
	uint64_t pin = region_get(vcpu, VMCS_PIN_CONTROLS), exit = vcpu->vmx->exit;

	if (pin & VMX_PIN_EXTERNAL_INTERRUPT)
		exit |= region_get(vcpu, VMCS_EXIT_CONTROLS) & VMX_EXIT_ACKNOWLEDGE;
	if (pin & VMX_PIN_PREEMPTION_TIMER) {
		exit |= VMX_EXIT_SAVE_PREEMPTION_TIMER;
		vmx_set(VMCS_PREEMPTION_TIMER, region_get(vcpu, VMCS_PREEMPTION_TIMER));
	}
	vmx_set(VMCS_EXIT_CONTROLS, exit);
}

/* The processor's controls for the guest's guest. */
static void merge_controls(struct core_vcpu *vcpu)
{
	struct vmx_vcpu *vmx = vcpu->vmx;
	uint64_t primary = region_get(vcpu, VMCS_PRIMARY_CONTROLS);
	uint32_t secondary =
		primary & VMX_ACTIVATE_SECONDARY ? (uint32_t)region_get(vcpu, VMCS_SECONDARY_CONTROLS) : 0;
	uint32_t own = vmx->own.secondary & ~(PERMISSIONS | VMX2_UNRESTRICTED_GUEST);

	vmx_set(VMCS_PIN_CONTROLS, vmx->own.pin | region_get(vcpu, VMCS_PIN_CONTROLS));
	vmx_set(VMCS_PRIMARY_CONTROLS,
		(vmx->own.primary | primary) &
			~(uint64_t)(primary & VMX_USE_MSR_BITMAPS ? 0 : VMX_USE_MSR_BITMAPS));
	vmx_set(VMCS_SECONDARY_CONTROLS, own | secondary);
	vmx_set(VMCS_EXCEPTION_BITMAP, region_get(vcpu, VMCS_EXCEPTION_BITMAP));
	vmx_set(VMCS_PF_ERROR_MASK, region_get(vcpu, VMCS_PF_ERROR_MASK));
	vmx_set(VMCS_PF_ERROR_MATCH, region_get(vcpu, VMCS_PF_ERROR_MATCH));
	vmx_set(VMCS_CR0_MASK, region_get(vcpu, VMCS_CR0_MASK));
	vmx_set(VMCS_CR4_MASK, region_get(vcpu, VMCS_CR4_MASK));
	vmx_set(VMCS_CR0_SHADOW, region_get(vcpu, VMCS_CR0_SHADOW));
	vmx_set(VMCS_CR4_SHADOW, region_get(vcpu, VMCS_CR4_SHADOW));
	vmx_set(VMCS_CR3_TARGET_COUNT, region_get(vcpu, VMCS_CR3_TARGET_COUNT));
	for (unsigned i = 0; i < 4; i++)
		vmx_set((enum vmcs_field)(VMCS_CR3_TARGET_0 + 2 * i),
			region_get(vcpu, (enum vmcs_field)(VMCS_CR3_TARGET_0 + 2 * i)));
	vmx_set(VMCS_TSC_OFFSET, region_get(vcpu, VMCS_TSC_OFFSET));
	vmx_set(VMCS_IO_BITMAP_A, region_get(vcpu, VMCS_IO_BITMAP_A));
	vmx_set(VMCS_IO_BITMAP_B, region_get(vcpu, VMCS_IO_BITMAP_B));
	if (primary & VMX_TPR_SHADOW) {
		vmx_set(VMCS_VIRTUAL_APIC, region_get(vcpu, VMCS_VIRTUAL_APIC));
		vmx_set(VMCS_TPR_THRESHOLD, region_get(vcpu, VMCS_TPR_THRESHOLD));
	}
	if (secondary & VMX2_XSAVES)
		vmx_set(VMCS_XSS_EXITING_BITMAP, region_get(vcpu, VMCS_XSS_EXITING_BITMAP));
	merge_exit(vcpu);
	vmx_set(VMCS_ENTRY_INTERRUPTION_INFO, region_get(vcpu, VMCS_ENTRY_INTERRUPTION_INFO));
	vmx_set(VMCS_ENTRY_EXCEPTION_ERROR, region_get(vcpu, VMCS_ENTRY_EXCEPTION_ERROR));
	vmx_set(VMCS_ENTRY_INSTRUCTION_LENGTH, region_get(vcpu, VMCS_ENTRY_INSTRUCTION_LENGTH));
}

/* The MSRs that the entry loads: the processor does it, at the entry that is the guest's own. */
static void merge_msr_list(struct core_vcpu *vcpu)
{
	uint64_t count = region_get(vcpu, VMCS_ENTRY_MSR_LOAD_COUNT);

	if (!count)
		return;
	vmx_set(VMCS_ENTRY_MSR_LOAD, region_get(vcpu, VMCS_ENTRY_MSR_LOAD));
	vmx_set(VMCS_ENTRY_MSR_LOAD_COUNT, count);
	nested_of(vcpu)->listed = true;
}

void vmx_nested_entered(struct core_vcpu *vcpu)
{
	if (!nested_of(vcpu)->listed)
		return;
	nested_of(vcpu)->listed = false;
	vmx_set(VMCS_ENTRY_MSR_LOAD_COUNT, 0);
	apic_watch(vcpu); /* it may have moved */
}

static void merge_msr_bitmap(struct core_vcpu *vcpu)
{
	uint64_t *to = (uint64_t *)(void *)nested_of(vcpu)->msr_bitmap;
	const uint64_t *own = (const uint64_t *)(const void *)vcpu->vmx->msr_bitmap, *theirs;

	if (!(region_get(vcpu, VMCS_PRIMARY_CONTROLS) & VMX_USE_MSR_BITMAPS))
		return;
	theirs = hw_map(region_get(vcpu, VMCS_MSR_BITMAP));
	for (unsigned i = 0; i < CORE_PAGE / 8; i++)
		to[i] = own[i] | theirs[i];
}

static void merge_state(struct core_vcpu *vcpu, uint64_t own_efer, uint64_t own_dr7, uint64_t own_debugctl)
{
	uint64_t entry = region_get(vcpu, VMCS_ENTRY_CONTROLS),
		 efer = own_efer & ~(uint64_t)(EFER_LMA | EFER_LME);
	bool debug = entry & VMX_ENTRY_LOAD_DEBUG;

	load_fields(vcpu, nested_of(vcpu)->state, nested_of(vcpu)->states);
	if (entry & VMX_ENTRY_IA32E)
		efer |= EFER_LMA | EFER_LME;
	vmx_set(VMCS_GUEST_EFER, entry & VMX_ENTRY_LOAD_EFER ? region_get(vcpu, VMCS_GUEST_EFER) : efer);
	vmx_set(VMCS_GUEST_DR7, debug ? region_get(vcpu, VMCS_GUEST_DR7) : own_dr7);
	vmx_set(VMCS_GUEST_DEBUGCTL, debug ? region_get(vcpu, VMCS_GUEST_DEBUGCTL) : own_debugctl);
	vmx_set(VMCS_LINK_POINTER, region_get(vcpu, VMCS_LINK_POINTER));
	/* The processor checks and loads it, at the entry that is the guest's own; then it is in the
	 * register. */
	if (entry & VMX_ENTRY_LOAD_PAT)
		vmx_set(VMCS_GUEST_PAT, region_get(vcpu, VMCS_GUEST_PAT));
	nested_of(vcpu)->entry =
		vcpu->vmx->entry | (uint32_t)(entry & (VMX_ENTRY_IA32E | VMX_ENTRY_LOAD_PAT));
}

/* Translations of the guest's guest, and whether what is known of them still holds. */
static void merge_paging(struct core_vcpu *vcpu)
{
	struct vmx_nested *nested = nested_of(vcpu);
	bool ept = region_uses(vcpu, VMX2_EPT);
	uint64_t eptp = ept ? region_get(vcpu, VMCS_EPTP) : 0;
	uint16_t vpid = region_uses(vcpu, VMX2_VPID) ? (uint16_t)region_get(vcpu, VMCS_VPID) : 0;

	if (eptp != nested->eptp || ept != nested->ept)
		vmx_shadow_drop(vcpu);
	nested->ept = ept;
	nested->eptp = eptp;
	vmx_set(VMCS_EPTP, ept ? vmx_shadow_eptp(vcpu) : vmx_eptp(vcpu->tables));
	if (vcpu->vmx->has_vpid)
		vmx_set(VMCS_VPID, VMX_VPID_NESTED);
	if (vcpu->vmx->has_vpid && (nested->flush || !vpid || vpid != nested->vpid))
		hw_vmx_invvpid(INVVPID_CONTEXT, VMX_VPID_NESTED, 0);
	nested->flush = false;
	nested->vpid = vpid;
}

/* Bits 2:1, 8:5 and 63:M of a PDPTE (SDM 3A 4.4.1). */
static bool pdpte_valid(uint64_t pdpte)
{
	uint32_t r[4];

	hw_cpuid(0x80000008u, 0, r);
	return !(pdpte & PTE_P) || !(pdpte & (PDPTE_RESERVED | ~((1ull << (r[0] & 0xff)) - 1)));
}

/*
 * Into the current VMCS: the PDPTEs of PAE paging with @cr3, which the processor, for which there is EPT,
 * would otherwise not take from there. False: they have reserved bits.
 */
static bool load_pdptes(const struct core_vcpu *vcpu, uint64_t cr3)
{
	uint64_t at = cr3 & 0xffffffe0u;
	const uint64_t *pdpte;
	bool valid = true;

	if (!tables_reached(vcpu->machine, at, 32))
		hw_stop("PDPTEs in the hypervisor's memory", at);
	pdpte = (const uint64_t *)(const void *)((uint8_t *)hw_map(at & ~PAGE_MASK) + (at & PAGE_MASK));
	for (unsigned i = 0; i < 4; i++) {
		valid &= pdpte_valid(pdpte[i]);
		vmx_set((enum vmcs_field)(VMCS_GUEST_PDPTE0 + 2 * i), pdpte[i]);
	}
	return valid;
}

static void load(uint8_t *vmcs)
{
	if (hw_vmx_load(hw_physical(vmcs)) != HW_VMX_DONE)
		hw_stop("VMPTRLD fails", hw_physical(vmcs));
}

static void reflect(struct core_vcpu *vcpu, uint32_t reason, uint64_t qualification);

/* PAE paging without EPT of the guest's own: the processor checks what it finds. */
static void merge_pdptes(struct core_vcpu *vcpu)
{
	uint64_t paging = CR0_PE | CR0_PG;

	if (!nested_of(vcpu)->ept && (region_get(vcpu, VMCS_GUEST_CR0) & paging) == paging &&
	    region_get(vcpu, VMCS_GUEST_CR4) & CR4_PAE &&
	    !(region_get(vcpu, VMCS_ENTRY_CONTROLS) & VMX_ENTRY_IA32E))
		load_pdptes(vcpu, region_get(vcpu, VMCS_GUEST_CR3));
}

/* What the processor cannot check of the guest state (27.3.1.5): it compares with another pointer. */
static bool check_link(struct core_vcpu *vcpu)
{
	if (region_get(vcpu, VMCS_LINK_POINTER) != nested_of(vcpu)->current)
		return true;
	reflect(vcpu, VMX_EXIT_ENTRY_GUEST_STATE | VMX_EXIT_ENTRY_FAILURE, VMX_ENTRY_LINK_POINTER);
	return false;
}

/* An INIT that VMX operation has held back comes behind the entry, and the event that this injects. */
static void bring_init(struct core_vcpu *vcpu)
{
	struct vmx_nested *nested = nested_of(vcpu);

	if (!nested->init)
		return;
	if (vmx_get(VMCS_ENTRY_INTERRUPTION_INFO) & VMX_EVENT_VALID) {
		vmx_trap_monitor(true);
		return;
	}
	nested->init = false;
	reflect(vcpu, VMX_EXIT_INIT, 0);
	region_set(vcpu, VMCS_IDT_VECTORING_INFO, 0);
	region_set(vcpu, VMCS_EXIT_INTERRUPTION_INFO, 0);
}

static void enter(struct core_vcpu *vcpu, bool launch)
{
	struct vmx_nested *nested = nested_of(vcpu);
	uint64_t efer = vmx_get(VMCS_GUEST_EFER), dr7 = vmx_get(VMCS_GUEST_DR7),
		 debugctl = vmx_get(VMCS_GUEST_DEBUGCTL), event;

	nested->launching = launch;
	load(nested->vmcs);
	merge_controls(vcpu);
	merge_msr_list(vcpu);
	merge_msr_bitmap(vcpu);
	merge_state(vcpu, efer, dr7, debugctl);
	merge_paging(vcpu);
	merge_pdptes(vcpu);
	event = region_get(vcpu, VMCS_ENTRY_INTERRUPTION_INFO);
	nested->trap_injected = event & VMX_EVENT_VALID && VMX_EVENT_TYPE(event) == VMX_EVENT_OTHER;
	nested->running = true;
	nested->rip = vcpu->rip;
	nested->rsp = vcpu->gpr[RSP];
	vcpu->rip = region_get(vcpu, VMCS_GUEST_RIP);
	vcpu->gpr[RSP] = region_get(vcpu, VMCS_GUEST_RSP);
	if (check_link(vcpu))
		bring_init(vcpu);
}

void vmx_nested_enter(struct core_vcpu *vcpu, bool launch)
{
	struct vmx_nested *nested = nested_of(vcpu);

	if (nested->current == NO_VMCS)
		vmx_nested_fail(vcpu, VMX_ERROR_NONE);
	else if (vmx_get(VMCS_GUEST_INTERRUPTIBILITY) & VMX_BLOCKING_MOV_SS)
		vmx_nested_fail(vcpu, VMX_ERROR_ENTRY_MOV_SS);
	else if (launch && *region_launched(nested->current))
		vmx_nested_fail(vcpu, VMX_ERROR_VMLAUNCH_NOT_CLEAR);
	else if (!launch && !*region_launched(nested->current))
		vmx_nested_fail(vcpu, VMX_ERROR_VMRESUME_NOT_LAUNCHED);
	else if (!vmx_checks_controls(vcpu))
		vmx_nested_fail(vcpu, VMX_ERROR_ENTRY_CONTROLS);
	else if (!vmx_checks_host(vcpu))
		vmx_nested_fail(vcpu, VMX_ERROR_ENTRY_HOST_STATE);
	else
		enter(vcpu, launch);
}

/* ---- VM exit ---- */

static void save_state(struct core_vcpu *vcpu)
{
	uint64_t exit = region_get(vcpu, VMCS_EXIT_CONTROLS);

	save_fields(vcpu, nested_of(vcpu)->state, nested_of(vcpu)->states);
	if (exit & VMX_EXIT_SAVE_EFER)
		region_set(vcpu, VMCS_GUEST_EFER, vmx_get(VMCS_GUEST_EFER));
	if (exit & VMX_EXIT_SAVE_DEBUG) {
		region_set(vcpu, VMCS_GUEST_DR7, vmx_get(VMCS_GUEST_DR7));
		region_set(vcpu, VMCS_GUEST_DEBUGCTL, vmx_get(VMCS_GUEST_DEBUGCTL));
	}
	if (exit & VMX_EXIT_SAVE_PAT)
		region_set(vcpu, VMCS_GUEST_PAT, hw_read_msr(MSR_PAT));
	if (exit & VMX_EXIT_SAVE_PREEMPTION_TIMER)
		region_set(vcpu, VMCS_PREEMPTION_TIMER, vmx_get(VMCS_PREEMPTION_TIMER));
	if (vmx_get(VMCS_GUEST_EFER) & EFER_LMA)
		region_set(vcpu, VMCS_ENTRY_CONTROLS,
			   region_get(vcpu, VMCS_ENTRY_CONTROLS) | VMX_ENTRY_IA32E);
	else
		region_set(vcpu, VMCS_ENTRY_CONTROLS,
			   region_get(vcpu, VMCS_ENTRY_CONTROLS) & ~(uint64_t)VMX_ENTRY_IA32E);
	region_set(vcpu, VMCS_ENTRY_INTERRUPTION_INFO,
		   region_get(vcpu, VMCS_ENTRY_INTERRUPTION_INFO) & ~(uint64_t)VMX_EVENT_VALID);
}

static void host_segment(unsigned n, uint64_t selector, uint64_t base, uint32_t limit, uint32_t rights)
{
	vmx_set((enum vmcs_field)(VMCS_GUEST_ES + 2 * n), selector);
	vmx_set((enum vmcs_field)(VMCS_GUEST_ES_BASE + 2 * n), base);
	vmx_set((enum vmcs_field)(VMCS_GUEST_ES_LIMIT + 2 * n), limit);
	vmx_set((enum vmcs_field)(VMCS_GUEST_ES_RIGHTS + 2 * n), rights);
}

static void load_host_segments(struct core_vcpu *vcpu)
{
	bool wide = region_get(vcpu, VMCS_EXIT_CONTROLS) & VMX_EXIT_HOST_64;
	uint32_t data = SEG_P | SEG_S | SEG_WRITABLE | SEG_ACCESSED | SEG_DB | SEG_G;
	uint64_t selector;

	for (unsigned n = 0; n < 6; n++) {
		selector = region_get(vcpu, (enum vmcs_field)(VMCS_HOST_ES + 2 * n));
		host_segment(n, selector, 0, 0xffffffff, selector ? data : data | VMX_RIGHTS_UNUSABLE);
	}
	vmx_set(VMCS_GUEST_CS_RIGHTS,
		SEG_P | SEG_S | SEG_CODE | SEG_READABLE | SEG_ACCESSED | SEG_G | (wide ? SEG_L : SEG_DB));
	vmx_set(VMCS_GUEST_FS_BASE, region_get(vcpu, VMCS_HOST_FS_BASE));
	vmx_set(VMCS_GUEST_GS_BASE, region_get(vcpu, VMCS_HOST_GS_BASE));
	host_segment(6, 0, 0, 0, VMX_RIGHTS_UNUSABLE);
	host_segment(7, region_get(vcpu, VMCS_HOST_TR), region_get(vcpu, VMCS_HOST_TR_BASE), 0x67,
		     SEG_P | TYPE_TSS_BUSY);
	vmx_set(VMCS_GUEST_GDTR_BASE, region_get(vcpu, VMCS_HOST_GDTR_BASE));
	vmx_set(VMCS_GUEST_GDTR_LIMIT, 0xffff);
	vmx_set(VMCS_GUEST_IDTR_BASE, region_get(vcpu, VMCS_HOST_IDTR_BASE));
	vmx_set(VMCS_GUEST_IDTR_LIMIT, 0xffff);
}

/* The processor stops (28.7). */
static _Noreturn void stop(struct core_vcpu *vcpu, enum vmx_abort why)
{
	region_abort(nested_of(vcpu)->current, why);
	hw_shutdown();
}

/* 28.5, into the guest state of our own VMCS, which is current. @efer: of its guest. */
static void load_host(struct core_vcpu *vcpu, uint64_t efer)
{
	uint64_t exit = region_get(vcpu, VMCS_EXIT_CONTROLS), cr4 = region_get(vcpu, VMCS_HOST_CR4);
	bool wide = exit & VMX_EXIT_HOST_64;

	cr4 = wide ? cr4 | CR4_PAE : cr4 & ~(uint64_t)CR4_PCIDE;
	efer = (efer & ~(uint64_t)(EFER_LMA | EFER_LME)) | (wide ? EFER_LMA | EFER_LME : 0);
	if (exit & VMX_EXIT_LOAD_EFER)
		efer = region_get(vcpu, VMCS_HOST_EFER);
	if (exit & VMX_EXIT_LOAD_PAT)
		hw_write_msr(MSR_PAT, region_get(vcpu, VMCS_HOST_PAT));
	/* CD and NW stay as they are, in the processor too (28.5.1). */
	vmx_set_guest_cr(vcpu->vmx, 0, region_get(vcpu, VMCS_HOST_CR0) | CR0_ET);
	vmx_set_guest_cr(vcpu->vmx, 4, cr4);
	vmx_set(VMCS_GUEST_CR3, region_get(vcpu, VMCS_HOST_CR3));
	if (!wide && cr4 & CR4_PAE && !load_pdptes(vcpu, region_get(vcpu, VMCS_HOST_CR3)))
		stop(vcpu, VMX_ABORT_HOST_PDPTE);
	vmx_set(VMCS_GUEST_EFER, efer);
	vcpu->vmx->stale = true;
	vmx_set(VMCS_GUEST_DR7, DR7_FIXED_1);
	vmx_set(VMCS_GUEST_DEBUGCTL, 0);
	vmx_set(VMCS_GUEST_SYSENTER_CS, region_get(vcpu, VMCS_HOST_SYSENTER_CS));
	vmx_set(VMCS_GUEST_SYSENTER_ESP, region_get(vcpu, VMCS_HOST_SYSENTER_ESP));
	vmx_set(VMCS_GUEST_SYSENTER_EIP, region_get(vcpu, VMCS_HOST_SYSENTER_EIP));
	vmx_set(VMCS_GUEST_RFLAGS, RFLAGS_FIXED);
	vmx_set(VMCS_GUEST_ACTIVITY, VMX_ACTIVE);
	vmx_set(VMCS_GUEST_PENDING_DEBUG, 0);
	vmx_set(VMCS_ENTRY_INTERRUPTION_INFO, 0);
	load_host_segments(vcpu);
	vcpu->rip = region_get(vcpu, VMCS_HOST_RIP);
	vcpu->gpr[RSP] = region_get(vcpu, VMCS_HOST_RSP);
	vcpu->vmx->flush |= !vcpu->vmx->has_vpid;
}

/*
 * Whether NMIs are blocked for the guest behind this exit of its own guest (28.5.5). With virtual NMIs what
 * the VMCS says is of those, and VM entry has unblocked the others.
 */
static uint64_t blocking_behind(uint32_t reason)
{
	uint64_t event = vmx_get(VMCS_EXIT_INTERRUPTION_INFO);

	if (reason == VMX_EXIT_EXCEPTION_NMI && event & VMX_EVENT_VALID &&
	    VMX_EVENT_TYPE(event) == VMX_EVENT_NMI)
		return VMX_BLOCKING_NMI;
	if (vmx_get(VMCS_PIN_CONTROLS) & VMX_PIN_VIRTUAL_NMIS)
		return 0;
	return vmx_get(VMCS_GUEST_INTERRUPTIBILITY) & VMX_BLOCKING_NMI;
}

/* The exit is the guest's; what else it tells is in the current VMCS. */
static void reflect(struct core_vcpu *vcpu, uint32_t reason, uint64_t qualification)
{
	struct vmx_nested *nested = nested_of(vcpu);
	uint64_t efer = vmx_get(VMCS_GUEST_EFER), blocking = blocking_behind(reason);
	bool failed = reason & VMX_EXIT_ENTRY_FAILURE;

	if (!failed) {
		vmx_set(VMCS_GUEST_RIP, vcpu->rip);
		vmx_set(VMCS_GUEST_RSP, vcpu->gpr[RSP]);
		save_fields(vcpu, nested->tell, nested->tells);
		save_state(vcpu);
		if (nested->launching)
			*region_launched(nested->current) = 1;
		if (!vmx_lists_store(vcpu))
			stop(vcpu, VMX_ABORT_SAVING_MSRS);
		if (efer & EFER_LMA && !(region_get(vcpu, VMCS_EXIT_CONTROLS) & VMX_EXIT_HOST_64))
			stop(vcpu, VMX_ABORT_NOT_64);
	}
	/* An entry that fails tells nothing else (27.8). */
	region_set(vcpu, VMCS_EXIT_REASON, reason);
	region_set(vcpu, VMCS_EXIT_QUALIFICATION, qualification);
	nested->running = nested->launching = false;
	load(vcpu->vmx->vmcs);
	vmx_set(VMCS_GUEST_INTERRUPTIBILITY,
		failed ? vmx_get(VMCS_GUEST_INTERRUPTIBILITY) & VMX_BLOCKING_NMI : blocking);
	load_host(vcpu, efer);
	if (!vmx_lists_load(vcpu))
		stop(vcpu, VMX_ABORT_LOADING_MSRS);
}

void vmx_nested_nmi(struct core_vcpu *vcpu)
{
	reflect(vcpu, VMX_EXIT_EXCEPTION_NMI, 0);
	region_set(vcpu, VMCS_IDT_VECTORING_INFO, 0);
	region_set(vcpu, VMCS_EXIT_INTERRUPTION_INFO,
		   VECTOR_NMI | VMX_EVENT_NMI << VMX_EVENT_TYPE_SHIFT | VMX_EVENT_VALID);
	vmx_set(VMCS_GUEST_INTERRUPTIBILITY, VMX_BLOCKING_NMI);
}

bool vmx_nested_wants(struct core_vcpu *vcpu, unsigned vector, uint32_t error)
{
	uint64_t mask, match;
	bool wanted;

	if (!nested_of(vcpu)->running)
		return false;
	wanted = region_get(vcpu, VMCS_EXCEPTION_BITMAP) >> vector & 1;
	mask = region_get(vcpu, VMCS_PF_ERROR_MASK);
	match = region_get(vcpu, VMCS_PF_ERROR_MATCH);
	return vector == VECTOR_PF && (error & mask) != match ? !wanted : wanted;
}

void vmx_nested_event(struct core_vcpu *vcpu, uint32_t reason, uint32_t event, uint32_t error)
{
	reflect(vcpu, reason, 0);
	if (!event)
		region_set(vcpu, VMCS_IDT_VECTORING_INFO, 0);
	region_set(vcpu, VMCS_EXIT_INTERRUPTION_INFO, event);
	if (event & VMX_EVENT_ERROR_CODE)
		region_set(vcpu, VMCS_EXIT_INTERRUPTION_ERROR, error);
}

void vmx_nested_refused(struct core_vcpu *vcpu, uint64_t error)
{
	struct vmx_nested *nested = nested_of(vcpu);

	nested->running = nested->launching = false;
	load(vcpu->vmx->vmcs);
	vcpu->rip = nested->rip;
	vcpu->gpr[RSP] = nested->rsp;
	vmx_nested_fail(vcpu, (enum vmx_error)error);
}

/* Whether the guest has asked for the exit of its own guest. */
static bool msr_wanted(struct core_vcpu *vcpu, bool write)
{
	uint32_t index = (uint32_t)vcpu->gpr[RCX];
	unsigned bit;

	if (!(region_get(vcpu, VMCS_PRIMARY_CONTROLS) & VMX_USE_MSR_BITMAPS) ||
	    !vmx_msr_bit(index, write, &bit))
		return true;
	return ((const uint8_t *)hw_map(region_get(vcpu, VMCS_MSR_BITMAP)))[bit / 8] >> bit % 8 & 1;
}

static void exit_tables(struct core_vcpu *vcpu, uint32_t reason)
{
	uint64_t address = vmx_get(VMCS_GUEST_PHYSICAL_ADDRESS),
		 why = reason == VMX_EXIT_EPT_VIOLATION ? vmx_get(VMCS_EXIT_QUALIFICATION) : 0;
	uint64_t rights;

	switch (vmx_shadow_fill(vcpu, address, why, &rights)) {
	case SHADOW_FILLED:
		if (why & EPT_VIOLATION_NMI_UNBLOCKED &&
		    !(vmx_get(VMCS_IDT_VECTORING_INFO) & VMX_EVENT_VALID))
			vmx_set(VMCS_GUEST_INTERRUPTIBILITY,
				vmx_get(VMCS_GUEST_INTERRUPTIBILITY) | VMX_BLOCKING_NMI);
		vmx_redeliver(vcpu);
		break;
	case SHADOW_MISCONFIGURED: reflect(vcpu, VMX_EXIT_EPT_MISCONFIGURATION, 0); break;
	case SHADOW_VIOLATION:
		why &= ~(7ull << EPT_VIOLATION_RIGHTS_SHIFT);
		reflect(vcpu, VMX_EXIT_EPT_VIOLATION, why | rights << EPT_VIOLATION_RIGHTS_SHIFT);
		break;
	}
}

/* The monitor trap flag of the guest, or that which it has injected; else ours, behind which an INIT waits.
 */
static bool exit_trap(struct core_vcpu *vcpu)
{
	struct vmx_nested *nested = nested_of(vcpu);

	if (region_get(vcpu, VMCS_PRIMARY_CONTROLS) & VMX_MONITOR_TRAP_FLAG || nested->trap_injected) {
		reflect(vcpu, VMX_EXIT_MONITOR_TRAP_FLAG, 0);
		return true;
	}
	vmx_trap_monitor(false);
	bring_init(vcpu);
	return true;
}

bool vmx_nested_exit(struct core_vcpu *vcpu, uint32_t reason)
{
	uint64_t qualification = vmx_get(VMCS_EXIT_QUALIFICATION);

	switch (reason) {
	case VMX_EXIT_EPT_VIOLATION:
	case VMX_EXIT_EPT_MISCONFIGURATION:
		if (!nested_of(vcpu)->ept)
			return false;
		exit_tables(vcpu, reason);
		return true;
	case VMX_EXIT_RDMSR:
	case VMX_EXIT_WRMSR:
		if (!msr_wanted(vcpu, reason == VMX_EXIT_WRMSR))
			return false;
		break;
	case VMX_EXIT_MONITOR_TRAP_FLAG: return exit_trap(vcpu);
	case VMX_EXIT_SIPI: qualification = vcpu->machine->startup_vector[vcpu->apic_id]; break;
	default: break;
	}
	reflect(vcpu, reason, qualification);
	return true;
}

/* ---- VMX operation ---- */

void vmx_nested_operation(struct core_vcpu *vcpu, bool on)
{
	struct vmx_nested *nested = nested_of(vcpu);

	nested->on = on;
	nested->current = NO_VMCS;
	vmx_own_crs(vcpu->vmx, vcpu->record.armed);
}

bool vmx_nested_init(struct core_vcpu *vcpu)
{
	nested_of(vcpu)->init = nested_of(vcpu)->on;
	return nested_of(vcpu)->init;
}

/* ---- the start ---- */

const char *vmx_nested_create(struct core_vcpu *vcpu)
{
	struct vmx_nested *nested = nested_of(vcpu);

	if (!nested->vmcs) {
		nested->vmcs = hw_pages(1);
		nested->msr_bitmap = hw_pages(1);
	}
	if (!nested->vmcs || !nested->msr_bitmap)
		return "no memory for a nested control structure";
	*(uint32_t *)(void *)nested->vmcs = region_revision();
	if (hw_vmx_clear(hw_physical(nested->vmcs)) != HW_VMX_DONE)
		return "VMCLEAR fails";
	nested->launched = false;
	return NULL;
}

void vmx_nested_start(struct core_vcpu *vcpu)
{
	struct vmx_nested *nested = nested_of(vcpu);

	nested->on = nested->running = nested->launching = nested->listed = nested->init = false;
	nested->current = NO_VMCS;
	nested->eptp = 0;
	nested->ept = false;
	vmx_shadow_drop(vcpu);
	if (!vcpu->machine->nest)
		return;
	/* What never changes of the VMCS that runs the guest's guest. */
	load(nested->vmcs);
	list_fields(nested);
	vmx_start_host(vcpu->vmx);
	vmx_set(VMCS_MSR_BITMAP, hw_physical(nested->msr_bitmap));
	load(vcpu->vmx->vmcs);
}
