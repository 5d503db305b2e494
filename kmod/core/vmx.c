/* vmx.c: VT-x (SDM 3C chapters 24 to 31): the control structure, the start, and the vendor's answers to
 * core.h. */
#include "kmod/core/vmx.h"
#include "kmod/core/vmx_nested.h"
#include "kmod/core/walk.h"
#include "x86/descriptors.h"
#include "x86/msr.h"
#include "x86/vectors.h"

#define CPUID_1_ECX_VMX   (1u << 5)
#define CPUID_1_ECX_SMX   (1u << 6)
#define CPUID_1_ECX_XSAVE (1u << 26)
#define WANTED_SECONDARY  (VMX2_EPT | VMX2_UNRESTRICTED_GUEST)

/* What the guest has as bare metal has it, where the processor asks a hypervisor for leave. */
#define PERMISSIONS (VMX2_RDTSCP | VMX2_INVPCID | VMX2_XSAVES | VMX2_USER_WAIT | VMX2_PCONFIG)
#define ALL_PRIMARY                                                                                          \
	(VMX_HLT | VMX_INVLPG | VMX_MWAIT | VMX_RDPMC | VMX_RDTSC | VMX_CR3_LOAD | VMX_CR3_STORE |           \
	 VMX_CR8_LOAD | VMX_CR8_STORE | VMX_MOV_DR | VMX_UNCONDITIONAL_IO | VMX_MONITOR | VMX_PAUSE)
#define ALL_SECONDARY (VMX2_DESCRIPTOR_TABLE | VMX2_WBINVD | VMX2_RDRAND | VMX2_RDSEED)

/* ---- is it here? ---- */

/* Controls that may be 1, and those that must be. */
static uint32_t may(uint32_t index) { return (uint32_t)(hw_read_msr(index) >> 32); }
static uint32_t must(uint32_t index) { return (uint32_t)hw_read_msr(index); }

/* The true capability MSR where there is one (appendix A.2). */
static uint32_t capability(uint32_t index)
{
	if (hw_read_msr(MSR_VMX_BASIC) & VMX_BASIC_TRUE_CONTROLS)
		return index + (MSR_VMX_TRUE_PIN_CTLS - MSR_VMX_PIN_CTLS);
	return index;
}

const char *vmx_missing(void)
{
	uint32_t r[4];
	uint64_t lock;

	hw_cpuid(1, 0, r);
	if (!(r[2] & CPUID_1_ECX_VMX))
		return "no VT-x: cpuid.1.0.ecx[5]=0";
	lock = hw_read_msr(MSR_FEATURE_CONTROL);
	if (lock & FEATURE_CONTROL_LOCK && !(lock & FEATURE_CONTROL_VMX))
		return "VT-x is disabled: IA32_FEATURE_CONTROL[2]=0";
	if (!(may(MSR_VMX_PRIMARY_CTLS) & VMX_ACTIVATE_SECONDARY) ||
	    (may(MSR_VMX_SECONDARY_CTLS) & WANTED_SECONDARY) != WANTED_SECONDARY)
		return "VT-x without EPT or unrestricted guests: IA32_VMX_PROCBASED_CTLS2[33,39]";
	return NULL;
}

/* ---- controls ---- */

static void fill_controls(struct vmx_vcpu *vmx)
{
	uint32_t pin = capability(MSR_VMX_PIN_CTLS), primary = capability(MSR_VMX_PRIMARY_CTLS);
	uint32_t secondary = may(MSR_VMX_SECONDARY_CTLS);

	vmx->own.pin = must(pin);
	vmx->own.primary = must(primary) | VMX_ACTIVATE_SECONDARY | VMX_USE_MSR_BITMAPS;
	vmx->own.secondary =
		must(MSR_VMX_SECONDARY_CTLS) | WANTED_SECONDARY | (secondary & (PERMISSIONS | VMX2_VPID));
	vmx->own.exceptions = vmx->own.pf_mask = vmx->own.pf_match = 0;
	vmx->saves_mode = hw_read_msr(MSR_VMX_MISC) & VMX_MISC_SAVES_LMA;
	vmx->all = vmx->own;
	vmx->all.primary = (vmx->own.primary & ~VMX_USE_MSR_BITMAPS) | (may(primary) & ALL_PRIMARY);
	vmx->all.secondary |= secondary & ALL_SECONDARY;
	vmx->has_vpid = vmx->own.secondary & VMX2_VPID;
	vmx->has_trap = may(primary) & VMX_MONITOR_TRAP_FLAG;
	vmx->entry = must(capability(MSR_VMX_ENTRY_CTLS)) | VMX_ENTRY_LOAD_EFER | VMX_ENTRY_LOAD_DEBUG;
	vmx->exit = must(capability(MSR_VMX_EXIT_CTLS)) | VMX_EXIT_HOST_64 | VMX_EXIT_SAVE_DEBUG |
		    VMX_EXIT_SAVE_EFER | VMX_EXIT_LOAD_EFER;
}

void vmx_use(const struct vmx_controls *controls)
{
	vmx_set(VMCS_PIN_CONTROLS, controls->pin);
	vmx_set(VMCS_PRIMARY_CONTROLS, controls->primary);
	vmx_set(VMCS_SECONDARY_CONTROLS, controls->secondary);
	vmx_set(VMCS_EXCEPTION_BITMAP, controls->exceptions);
	vmx_set(VMCS_PF_ERROR_MASK, controls->pf_mask);
	vmx_set(VMCS_PF_ERROR_MATCH, controls->pf_match);
}

/* In VMX operation paging and protection stay on (SDM 3C 24.8). */
uint64_t vmx_fixed_cr(const struct vmx_vcpu *vmx, unsigned number)
{
	if (number == 4)
		return vmx->cr4_fixed | vmx->cr4_refused;
	return vmx->cr0_fixed | (vmx->nested.on ? CR0_PE | CR0_PG : 0);
}

void vmx_own_crs(struct vmx_vcpu *vmx, bool all)
{
	uint64_t cr0 = vmx_guest_cr(vmx, 0), cr4 = vmx_guest_cr(vmx, 4);

	vmx_set(VMCS_CR0_SHADOW, cr0);
	vmx_set(VMCS_CR4_SHADOW, cr4);
	vmx_set(VMCS_CR0_MASK, all ? ~0ull : vmx_fixed_cr(vmx, 0));
	vmx_set(VMCS_CR4_MASK, all ? ~0ull : vmx_fixed_cr(vmx, 4));
}

void vmx_arm(struct core_vcpu *vcpu, bool on)
{
	struct vmx_vcpu *vmx = vcpu->vmx;

	vmx_use(on ? &vmx->all : &vmx->own);
	vmx_own_crs(vmx, on);
	if (vmx->own.secondary & VMX2_XSAVES)
		vmx_set(VMCS_XSS_EXITING_BITMAP, on ? ~0ull : 0);
}

uint64_t vmx_told_controls(const struct core_vcpu *vcpu) { return vcpu->vmx->all.secondary; }

static void without(enum vmcs_field field, uint32_t control)
{
	vmx_set(field, vmx_get(field) & ~(uint64_t)control);
}

/* MOV to and from CR0, CR3, CR4, CR8, CLTS, LMSW: by the qualification (table 28-3). */
static void release_cr(struct vmx_vcpu *vmx, uint64_t qualification)
{
	bool load = (qualification >> 4 & 3) != 1;

	switch (qualification & 15) {
	case 3: without(VMCS_PRIMARY_CONTROLS, load ? VMX_CR3_LOAD : VMX_CR3_STORE); break;
	case 8: without(VMCS_PRIMARY_CONTROLS, load ? VMX_CR8_LOAD : VMX_CR8_STORE); break;
	default: vmx_own_crs(vmx, false);
	}
}

void vmx_release(struct core_vcpu *vcpu, uint32_t code, uint64_t info1)
{
	static const struct {
		uint8_t reason;
		uint16_t field;
		uint32_t control;
	} table[] = {
		{VMX_EXIT_HLT, VMCS_PRIMARY_CONTROLS, VMX_HLT},
		{VMX_EXIT_INVLPG, VMCS_PRIMARY_CONTROLS, VMX_INVLPG},
		{VMX_EXIT_INVPCID, VMCS_PRIMARY_CONTROLS, VMX_INVLPG},
		{VMX_EXIT_MWAIT, VMCS_PRIMARY_CONTROLS, VMX_MWAIT},
		{VMX_EXIT_RDPMC, VMCS_PRIMARY_CONTROLS, VMX_RDPMC},
		{VMX_EXIT_RDTSC, VMCS_PRIMARY_CONTROLS, VMX_RDTSC},
		{VMX_EXIT_RDTSCP, VMCS_PRIMARY_CONTROLS, VMX_RDTSC},
		{VMX_EXIT_UMWAIT, VMCS_PRIMARY_CONTROLS, VMX_RDTSC},
		{VMX_EXIT_TPAUSE, VMCS_PRIMARY_CONTROLS, VMX_RDTSC},
		{VMX_EXIT_MOV_DR, VMCS_PRIMARY_CONTROLS, VMX_MOV_DR},
		{VMX_EXIT_IO, VMCS_PRIMARY_CONTROLS, VMX_UNCONDITIONAL_IO},
		{VMX_EXIT_MONITOR, VMCS_PRIMARY_CONTROLS, VMX_MONITOR},
		{VMX_EXIT_PAUSE, VMCS_PRIMARY_CONTROLS, VMX_PAUSE},
		{VMX_EXIT_GDTR_IDTR, VMCS_SECONDARY_CONTROLS, VMX2_DESCRIPTOR_TABLE},
		{VMX_EXIT_LDTR_TR, VMCS_SECONDARY_CONTROLS, VMX2_DESCRIPTOR_TABLE},
		{VMX_EXIT_WBINVD, VMCS_SECONDARY_CONTROLS, VMX2_WBINVD},
		{VMX_EXIT_RDRAND, VMCS_SECONDARY_CONTROLS, VMX2_RDRAND},
		{VMX_EXIT_RDSEED, VMCS_SECONDARY_CONTROLS, VMX2_RDSEED},
	};

	switch (code) {
	case VMX_EXIT_CR_ACCESS: release_cr(vcpu->vmx, info1); return;
	case VMX_EXIT_RDMSR:
	case VMX_EXIT_WRMSR:
		vmx_set(VMCS_PRIMARY_CONTROLS, vmx_get(VMCS_PRIMARY_CONTROLS) | VMX_USE_MSR_BITMAPS);
		return;
	case VMX_EXIT_XSAVES:
	case VMX_EXIT_XRSTORS: vmx_set(VMCS_XSS_EXITING_BITMAP, 0); return;
	default: break;
	}
	for (unsigned i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (table[i].reason == code) {
			without((enum vmcs_field)table[i].field, table[i].control);
			return;
		}
	hw_stop("an exit that nobody asked for", code);
}

/* Four bitmaps of 1 KiB: reads of low and of high MSRs, then writes (25.6.9). What is in none always exits.
 */
bool vmx_msr_bit(uint32_t index, bool write, unsigned *bit)
{
	*bit = (write ? 0x4000u : 0) + (index >> 31) * 0x2000u + (index & 0x1fff);
	return (index & 0x7fffe000) == (index >> 31) << 30;
}

bool vmx_msr_intercepted(const struct vmx_vcpu *vmx, uint32_t index, bool write)
{
	unsigned bit;

	return !vmx_msr_bit(index, write, &bit) || vmx->msr_bitmap[bit / 8] >> bit % 8 & 1;
}

static void watch(struct vmx_vcpu *vmx, uint32_t index, bool write)
{
	unsigned bit;

	if (vmx_msr_bit(index, write, &bit))
		vmx->msr_bitmap[bit / 8] |= (uint8_t)(1u << bit % 8);
}

/* ---- create ---- */

static void allow(void)
{
	uint64_t lock = hw_read_msr(MSR_FEATURE_CONTROL);

	if (!(lock & FEATURE_CONTROL_LOCK))
		hw_write_msr(MSR_FEATURE_CONTROL, lock | FEATURE_CONTROL_LOCK | FEATURE_CONTROL_VMX);
}

static const char *allocate(struct core_vcpu *vcpu)
{
	struct vmx_vcpu *vmx = hw_pages(1);

	_Static_assert(sizeof(*vmx) <= CORE_PAGE, "one page");
	if (!vmx)
		return "no memory for a control structure";
	vmx->vmcs = hw_pages(1);
	vmx->on = hw_pages(1);
	vmx->msr_bitmap = hw_pages(1);
	if (!vmx->vmcs || !vmx->on || !vmx->msr_bitmap)
		return "no memory for a control structure";
	vcpu->vmx = vmx;
	return NULL;
}

static void set_revision(uint8_t *region)
{
	*(uint32_t *)(void *)region = (uint32_t)hw_read_msr(MSR_VMX_BASIC) & VMCS_REVISION_MASK;
}

const char *vmx_create(struct core_vcpu *vcpu)
{
	struct vmx_vcpu *vmx;
	const char *why = vcpu->vmx ? NULL : allocate(vcpu);
	uint32_t r[4];

	if (why)
		return why;
	vmx = vcpu->vmx;
	allow();
	/* Without paging and protection a guest is unrestricted. */
	vmx->cr0_fixed = hw_read_msr(MSR_VMX_CR0_FIXED0) & ~(uint64_t)(CR0_PE | CR0_PG);
	vmx->cr4_fixed = hw_read_msr(MSR_VMX_CR4_FIXED0);
	vmx->cr4_refused = CR4_SMXE | (vcpu->machine->nest ? 0 : CR4_VMXE);
	hw_write_cr(0, hw_read_cr(0) | hw_read_msr(MSR_VMX_CR0_FIXED0));
	hw_cpuid(1, 0, r);
	hw_write_cr(4, hw_read_cr(4) | vmx->cr4_fixed | (r[2] & CPUID_1_ECX_XSAVE ? CR4_OSXSAVE : 0));
	fill_controls(vmx);
	set_revision(vmx->on);
	set_revision(vmx->vmcs);
	if (hw_vmx_on(hw_physical(vmx->on)) != HW_VMX_DONE)
		return "VMXON fails";
	if (hw_vmx_clear(hw_physical(vmx->vmcs)) != HW_VMX_DONE ||
	    hw_vmx_load(hw_physical(vmx->vmcs)) != HW_VMX_DONE)
		return "VMCLEAR or VMPTRLD fails";
	vmx->launched = false;
	return vcpu->machine->nest ? vmx_nested_create(vcpu) : NULL;
}

/* ---- start ---- */

static void set_segment(unsigned n, uint16_t selector, uint64_t base, uint32_t limit, uint32_t rights)
{
	vmx_set((enum vmcs_field)(VMCS_GUEST_ES + 2 * n), selector);
	vmx_set((enum vmcs_field)(VMCS_GUEST_ES_BASE + 2 * n), base);
	vmx_set((enum vmcs_field)(VMCS_GUEST_ES_LIMIT + 2 * n), limit);
	vmx_set((enum vmcs_field)(VMCS_GUEST_ES_RIGHTS + 2 * n), rights);
}

#define CODE        0x9bu
#define DATA        0x93u
#define FLAT        (SEG_DB | SEG_G)
#define TASK        0x8bu
#define LOCAL_TABLE 0x82u
enum { N_ES, N_CS, N_SS, N_DS, N_FS, N_GS, N_LDTR, N_TR };

static void start_segments(const struct core_start *start)
{
	uint32_t limit = start->real ? 0xffff : 0xffffffff, flat = start->real ? 0 : FLAT;

	for (unsigned n = N_ES; n <= N_GS; n++)
		set_segment(n, start->real ? 0 : 0x10, 0, limit, DATA | flat);
	if (start->real)
		set_segment(N_CS, (uint16_t)(start->page << 8), (uint64_t)start->page << 12, limit, CODE);
	else
		set_segment(N_CS, 8, 0, limit, CODE | FLAT);
	set_segment(N_LDTR, 0, 0, 0xffff, LOCAL_TABLE);
	set_segment(N_TR, 0, 0, start->real ? 0xffff : TSS32_SIZE - 1, TASK);
	vmx_set(VMCS_GUEST_GDTR_BASE, 0);
	vmx_set(VMCS_GUEST_GDTR_LIMIT, 0xffff);
	vmx_set(VMCS_GUEST_IDTR_BASE, 0);
	vmx_set(VMCS_GUEST_IDTR_LIMIT, 0xffff);
}

static void start_registers(struct vmx_vcpu *vmx, const struct core_start *start)
{
	vmx_set(VMCS_CR0_MASK, vmx->cr0_fixed);
	vmx_set(VMCS_CR4_MASK, vmx->cr4_fixed | vmx->cr4_refused);
	vmx_set_guest_cr(vmx, 0, start->real ? CR0_CD | CR0_NW | CR0_ET : CR0_PE | CR0_ET);
	vmx_set_guest_cr(vmx, 4, 0);
	vmx_set(VMCS_GUEST_CR3, 0);
	vmx_set(VMCS_GUEST_DR7, DR7_FIXED_1);
	vmx_set(VMCS_GUEST_RFLAGS, RFLAGS_FIXED);
	vmx_set(VMCS_GUEST_EFER, 0);
	vmx_set(VMCS_GUEST_DEBUGCTL, 0);
	vmx_set(VMCS_GUEST_SYSENTER_CS, start->real ? hw_read_msr(MSR_SYSENTER_CS) : 0);
	vmx_set(VMCS_GUEST_SYSENTER_ESP, start->real ? hw_read_msr(MSR_SYSENTER_ESP) : 0);
	vmx_set(VMCS_GUEST_SYSENTER_EIP, start->real ? hw_read_msr(MSR_SYSENTER_EIP) : 0);
	vmx_set(VMCS_GUEST_INTERRUPTIBILITY, 0);
	vmx_set(VMCS_GUEST_ACTIVITY, VMX_ACTIVE);
	vmx_set(VMCS_GUEST_PENDING_DEBUG, 0);
	vmx_set(VMCS_ENTRY_INTERRUPTION_INFO, 0);
	vmx_set(VMCS_LINK_POINTER, ~0ull);
	vmx->nmi = vmx->cr.on = false;
	vmx->stale = true;
}

/* What exits do, and what is there of neither side: no MSR lists, no CR3 targets. */
static void start_exits(const struct vmx_vcpu *vmx)
{
	vmx_set(VMCS_EXIT_CONTROLS, vmx->exit);
	vmx_set(VMCS_EXIT_MSR_STORE_COUNT, 0);
	vmx_set(VMCS_EXIT_MSR_LOAD_COUNT, 0);
	vmx_set(VMCS_ENTRY_MSR_LOAD_COUNT, 0);
	vmx_set(VMCS_CR3_TARGET_COUNT, 0);
}

void vmx_start_host(const struct vmx_vcpu *vmx)
{
	struct hw_vmx_host host;

	hw_vmx_host(&host);
	vmx_set(VMCS_HOST_CR0, hw_read_cr(0));
	vmx_set(VMCS_HOST_CR3, hw_read_cr(3));
	vmx_set(VMCS_HOST_CR4, hw_read_cr(4));
	vmx_set(VMCS_HOST_EFER, hw_read_msr(MSR_EFER));
	vmx_set(VMCS_HOST_ES, host.es);
	vmx_set(VMCS_HOST_CS, host.cs);
	vmx_set(VMCS_HOST_SS, host.ss);
	vmx_set(VMCS_HOST_DS, host.ds);
	vmx_set(VMCS_HOST_FS, host.fs);
	vmx_set(VMCS_HOST_GS, host.gs);
	vmx_set(VMCS_HOST_TR, host.tr);
	vmx_set(VMCS_HOST_FS_BASE, host.fs_base);
	vmx_set(VMCS_HOST_GS_BASE, host.gs_base);
	vmx_set(VMCS_HOST_TR_BASE, host.tr_base);
	vmx_set(VMCS_HOST_GDTR_BASE, host.gdtr_base);
	vmx_set(VMCS_HOST_IDTR_BASE, host.idtr_base);
	vmx_set(VMCS_HOST_SYSENTER_CS, 0);
	vmx_set(VMCS_HOST_SYSENTER_ESP, 0);
	vmx_set(VMCS_HOST_SYSENTER_EIP, 0);
	start_exits(vmx);
}

uint64_t vmx_eptp(const uint64_t *root) { return hw_physical(root) | 6 | 3 << EPTP_LEVELS_SHIFT; }

void vmx_start(struct core_vcpu *vcpu, const struct core_start *start)
{
	struct vmx_vcpu *vmx = vcpu->vmx;

	if (hw_vmx_load(hw_physical(vmx->vmcs)) != HW_VMX_DONE)
		hw_stop("VMPTRLD fails", hw_physical(vmx->vmcs));
	vmx_nested_start(vcpu);
	for (uint32_t index = MSR_VMX_BASIC; index <= MSR_VMX_VMFUNC; index++)
		watch(vmx, index, false);
	watch(vmx, MSR_FEATURE_CONTROL, false);
	watch(vmx, MSR_FEATURE_CONTROL, true);
	vmx_use(&vmx->own);
	vmx_set(VMCS_MSR_BITMAP, hw_physical(vmx->msr_bitmap));
	if (vmx->own.secondary & VMX2_XSAVES)
		vmx_set(VMCS_XSS_EXITING_BITMAP, 0);
	if (vmx->has_vpid)
		vmx_set(VMCS_VPID, VMX_VPID);
	vmx_set(VMCS_EPTP, vmx_eptp(vcpu->tables));
	vmx->flush = true;
	vmx_start_host(vmx);
	start_segments(start);
	start_registers(vmx, start);
	/* Entries and exits leave CD and NW as they are (27.3.2.1, 28.5.1). */
	hw_write_cr(0, (hw_read_cr(0) & ~(uint64_t)(CR0_CD | CR0_NW)) | (start->real ? CR0_CD | CR0_NW : 0));
}

/* ---- entry ---- */

void vmx_trap_monitor(bool on)
{
	uint64_t controls = vmx_get(VMCS_PRIMARY_CONTROLS) & ~(uint64_t)VMX_MONITOR_TRAP_FLAG;

	vmx_set(VMCS_PRIMARY_CONTROLS, controls | (on ? VMX_MONITOR_TRAP_FLAG : 0));
}

/*
 * An NMI that has come to the hypervisor goes to the guest: now, or where something is in its way, behind
 * that. NMIs may be blocked for the guest all the same: an IRET that an exit interrupts has let them come.
 */
static void bring_nmi(struct core_vcpu *vcpu)
{
	struct vmx_vcpu *vmx = vcpu->vmx;
	uint64_t blocked;
	bool virtual;

	vmx->nmi |= hw_vmx_take_nmi();
	if (!vmx->nmi)
		return;
	blocked = vmx_get(VMCS_GUEST_INTERRUPTIBILITY) &
		  (VMX_BLOCKING_MOV_SS | VMX_BLOCKING_STI | VMX_BLOCKING_NMI);
	/* Then that bit is of virtual NMIs, and no other is blocked. */
	virtual = vmx->nested.running && vmx_get(VMCS_PIN_CONTROLS) & VMX_PIN_VIRTUAL_NMIS;
	if (blocked & VMX_BLOCKING_NMI && !virtual) {
		if (vmx->has_trap)
			vmx_trap_monitor(true);
		return;
	}
	if (vmx->nested.running && vmx_get(VMCS_PIN_CONTROLS) & VMX_PIN_NMI) {
		vmx->nmi = false;
		vmx_nested_nmi(vcpu);
		return;
	}
	if (blocked || vmx_get(VMCS_ENTRY_INTERRUPTION_INFO) & VMX_EVENT_VALID) {
		vmx_trap_monitor(true);
		return;
	}
	vmx->nmi = false;
	vmx_set(VMCS_ENTRY_INTERRUPTION_INFO,
		VECTOR_NMI | VMX_EVENT_NMI << VMX_EVENT_TYPE_SHIFT | VMX_EVENT_VALID);
}

/*
 * Entry controls: a guest's own at its VM entry, then by the mode that its guest is in, which the processor
 * sees to where nobody else changes it.
 */
static void set_entry_controls(struct vmx_vcpu *vmx)
{
	uint32_t given = vmx->nested.running ? vmx->nested.entry : 0;

	vmx->nested.entry = 0;
	if (!given && vmx->saves_mode && !vmx->stale)
		return;
	vmx->stale = given & VMX_ENTRY_LOAD_PAT;
	if (!given)
		given = vmx->entry | (vmx_get(VMCS_GUEST_EFER) & EFER_LMA ? VMX_ENTRY_IA32E : 0);
	vmx_set(VMCS_ENTRY_CONTROLS, given);
}

void vmx_run(struct core_vcpu *vcpu)
{
	struct vmx_vcpu *vmx = vcpu->vmx;
	bool nested = vmx->nested.running, *launched = nested ? &vmx->nested.launched : &vmx->launched;
	enum hw_vmx how;

	vmx_set(VMCS_GUEST_RSP, vcpu->gpr[RSP]);
	vmx_set(VMCS_GUEST_RIP, vcpu->rip);
	bring_nmi(vcpu);
	if (nested != vmx->nested.running)
		return;
	set_entry_controls(vmx);
	if (vmx->flush)
		hw_vmx_invept(INVEPT_CONTEXT, vmx_eptp(vcpu->tables));
	vmx->flush = false;
	how = hw_vmx_run(vcpu->gpr, *launched);
	if (how == HW_VMX_NMI)
		return;
	if (nested)
		vmx_nested_entered(vcpu);
	if (how != HW_VMX_DONE && nested) {
		vmx_nested_refused(vcpu, vmx_get(VMCS_INSTRUCTION_ERROR));
		return;
	}
	if (how != HW_VMX_DONE)
		hw_stop("VM entry fails", vmx_get(VMCS_INSTRUCTION_ERROR));
	/* An entry that fails on the guest's state launches nothing (27.8). */
	if (!*launched)
		*launched = !(vmx_get(VMCS_EXIT_REASON) & VMX_EXIT_ENTRY_FAILURE);
	vcpu->gpr[RSP] = vmx_get(VMCS_GUEST_RSP);
	vcpu->rip = vmx_get(VMCS_GUEST_RIP);
	vmx_exit(vcpu);
}

/* ---- for the common part ---- */

void vmx_raise(struct core_vcpu *vcpu, unsigned vector, uint32_t error)
{
	uint32_t event = vector | VMX_EVENT_EXCEPTION << VMX_EVENT_TYPE_SHIFT | VMX_EVENT_VALID;

	/* As a fault leaves it for the handler's IRET; the processor pushes it as it is here. */
	if (vector != VECTOR_DB)
		vmx_set(VMCS_GUEST_RFLAGS, vmx_get(VMCS_GUEST_RFLAGS) | RFLAGS_RF);
	/* Real mode pushes no error codes. */
	if (vector_has_error_code(vector) && vmx_get(VMCS_GUEST_CR0) & CR0_PE)
		event |= VMX_EVENT_ERROR_CODE;
	if (vmx_nested_wants(vcpu, vector, error)) {
		vmx_nested_event(vcpu, VMX_EXIT_EXCEPTION_NMI, event, error);
		return;
	}
	if (event & VMX_EVENT_ERROR_CODE)
		vmx_set(VMCS_ENTRY_EXCEPTION_ERROR, error);
	vmx_set(VMCS_ENTRY_INTERRUPTION_INFO, event);
}

static bool in_64bit_mode(void)
{
	return vmx_get(VMCS_GUEST_EFER) & EFER_LMA && vmx_get(VMCS_GUEST_CS_RIGHTS) & SEG_L;
}

void vmx_skip(struct core_vcpu *vcpu)
{
	uint64_t flags = vmx_get(VMCS_GUEST_RFLAGS);

	vcpu->rip += vmx_get(VMCS_EXIT_INSTRUCTION_LENGTH);
	if (!in_64bit_mode())
		vcpu->rip = (uint32_t)vcpu->rip;
	vmx_set(VMCS_GUEST_INTERRUPTIBILITY,
		vmx_get(VMCS_GUEST_INTERRUPTIBILITY) & ~(uint64_t)(VMX_BLOCKING_STI | VMX_BLOCKING_MOV_SS));
	vmx_set(VMCS_GUEST_RFLAGS, flags & ~(uint64_t)RFLAGS_RF);
	if (flags & RFLAGS_TF)
		vmx_set(VMCS_GUEST_PENDING_DEBUG, vmx_get(VMCS_GUEST_PENDING_DEBUG) | VMX_PENDING_BS);
}

uint64_t vmx_linear_rip(const struct core_vcpu *vcpu)
{
	return in_64bit_mode() ? vcpu->rip : (uint32_t)(vmx_get(VMCS_GUEST_CS_BASE) + vcpu->rip);
}

bool vmx_translate(const struct core_vcpu *vcpu, uint64_t linear, uint64_t *physical)
{
	struct walk_mode mode = {vmx_get(VMCS_GUEST_CR0), vmx_get(VMCS_GUEST_CR3), vmx_get(VMCS_GUEST_CR4),
				 vmx_get(VMCS_GUEST_EFER)};

	return walk_guest(vcpu->machine, &mode, linear, physical);
}

struct linear_mode vmx_linear_mode(const struct core_vcpu *vcpu, bool implicit)
{
	struct linear_mode mode = {.machine = vcpu->machine,
				   .cr0 = vmx_get(VMCS_GUEST_CR0),
				   .cr3 = vmx_get(VMCS_GUEST_CR3),
				   .cr4 = vmx_get(VMCS_GUEST_CR4),
				   .efer = vmx_get(VMCS_GUEST_EFER),
				   .rflags = implicit ? 0 : vmx_get(VMCS_GUEST_RFLAGS),
				   .implicit = implicit};

	for (unsigned i = 0; i < 4 && mode.cr4 & CR4_PAE && !(mode.efer & EFER_LMA); i++)
		mode.pdpte[i] = vmx_get((enum vmcs_field)(VMCS_GUEST_PDPTE0 + 2 * i));
	return mode;
}

uint64_t vmx_guest_cr(const struct vmx_vcpu *vmx, unsigned number)
{
	bool cr0 = number == 0;
	uint64_t real = vmx_get(cr0 ? VMCS_GUEST_CR0 : VMCS_GUEST_CR4);
	uint64_t shadow = vmx_get(cr0 ? VMCS_CR0_SHADOW : VMCS_CR4_SHADOW);
	uint64_t fixed = cr0 ? vmx->cr0_fixed : vmx->cr4_fixed;

	return (real & ~fixed) | (shadow & fixed);
}

void vmx_set_guest_cr(struct vmx_vcpu *vmx, unsigned number, uint64_t value)
{
	vmx_set(number == 0 ? VMCS_CR0_SHADOW : VMCS_CR4_SHADOW, value);
	vmx_set(number == 0 ? VMCS_GUEST_CR0 : VMCS_GUEST_CR4,
		value | (number == 0 ? vmx->cr0_fixed : vmx->cr4_fixed));
}

uint64_t vmx_cr4(const struct core_vcpu *vcpu) { return vmx_guest_cr(vcpu->vmx, 4); }

void vmx_flush(struct core_vcpu *vcpu) { vcpu->vmx->flush = true; }

uint64_t vmx_table_entry(uint64_t address) { return address | EPT_READ | EPT_WRITE | EPT_EXECUTE; }

/* Devices lie between the end of memory and 4 GiB: uncacheable, the rest write-back. */
uint64_t vmx_page_entry(const struct core_vcpu *vcpu, uint64_t address, unsigned access, bool large)
{
	const struct core_machine *machine = vcpu->machine;
	bool device = address >= machine->hidden + machine->hidden_size && address < 1ull << 32;
	uint64_t entry = address | (device ? 0ull : 6ull << EPT_TYPE_SHIFT) | (large ? EPT_LARGE : 0);

	if (!access)
		return 0;
	return entry | (access & CORE_READ ? EPT_READ : 0) | (access & CORE_WRITE ? EPT_WRITE : 0) |
	       (access & CORE_EXECUTE ? EPT_EXECUTE : 0);
}

/* ---- what the guest may know, and have ---- */

void vmx_cpuid(struct core_vcpu *vcpu, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
	(void)subleaf;
	if (leaf == 1)
		out[2] &= ~(CPUID_1_ECX_SMX | (vcpu->machine->nest ? 0 : CPUID_1_ECX_VMX));
}

/* MSRs of VT-x and of what goes with it. */
static bool hidden(uint32_t index)
{
	return index == MSR_FEATURE_CONTROL || index - MSR_VMX_BASIC <= MSR_VMX_VMFUNC - MSR_VMX_BASIC;
}

enum core_msr vmx_read_msr(struct core_vcpu *vcpu, uint32_t index, uint64_t *value)
{
	return hidden(index) ? vmx_nested_read_msr(vcpu, index, value) : MSR_NOT_MINE;
}

enum core_msr vmx_write_msr(struct core_vcpu *vcpu, uint32_t index, uint64_t value)
{
	(void)vcpu, (void)value;
	return hidden(index) ? MSR_FAULT : MSR_NOT_MINE;
}

void vmx_watch_msr(struct core_vcpu *vcpu, uint32_t index) { watch(vcpu->vmx, index, true); }
