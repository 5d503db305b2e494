/*
 * vmx_nested.c: a guest that is a hypervisor itself (SDM 3C chapters 25 to 28, 31).
 *
 * Its VMCS is in its memory, in a layout of ours; VMREAD and VMWRITE exit and go there. VM entry makes a
 * third VMCS of it: its guest state, its controls with what we need, its EPT joined with our tables
 * (vmx_shadow.c). The processor checks the guest state; what it finds is the guest's to know. Of exits nearly
 * all are the guest's, since we ask for none but those of the tables and of a few MSRs. What is not nested is
 * not offered by the capability MSRs.
 */
#include "kmod/core/vmx.h"
#include "kmod/core/vmx_nested.h"
#include "kmod/core/vmx_shadow.h"
#include "x86/descriptors.h"
#include "x86/msr.h"
#include "x86/paging.h"
#include "x86/vectors.h"

/* What is offered besides the default1 class. */
#define OFFERED_PIN (VMX_PIN_EXTERNAL_INTERRUPT | VMX_PIN_NMI)
#define OFFERED_PRIMARY                                                                                      \
	(VMX_USE_TSC_OFFSETTING | VMX_HLT | VMX_INVLPG | VMX_MWAIT | VMX_RDPMC | VMX_RDTSC | VMX_CR3_LOAD |  \
	 VMX_CR3_STORE | VMX_CR8_LOAD | VMX_CR8_STORE | VMX_MOV_DR | VMX_UNCONDITIONAL_IO |                  \
	 VMX_USE_IO_BITMAPS | VMX_MONITOR_TRAP_FLAG | VMX_USE_MSR_BITMAPS | VMX_MONITOR | VMX_PAUSE |        \
	 VMX_ACTIVATE_SECONDARY | VMX_INTERRUPT_WINDOW)
#define OFFERED_SECONDARY                                                                                    \
	(VMX2_EPT | VMX2_UNRESTRICTED_GUEST | VMX2_VPID | VMX2_DESCRIPTOR_TABLE | VMX2_RDTSCP |              \
	 VMX2_WBINVD | VMX2_RDRAND | VMX2_INVPCID | VMX2_RDSEED | VMX2_XSAVES | VMX2_USER_WAIT)
#define OFFERED_EXIT  (VMX_EXIT_SAVE_DEBUG | VMX_EXIT_HOST_64 | VMX_EXIT_SAVE_EFER | VMX_EXIT_LOAD_EFER)
#define OFFERED_ENTRY (VMX_ENTRY_LOAD_DEBUG | VMX_ENTRY_IA32E | VMX_ENTRY_LOAD_EFER)
#define OFFERED_EPT                                                                                          \
	(VMX_EPT_4_LEVELS | VMX_EPT_WRITE_BACK | VMX_EPT_2M | VMX_EPT_1G | VMX_EPT_INVEPT |                  \
	 VMX_EPT_INVEPT_CONTEXT | VMX_EPT_INVEPT_ALL | VMX_EPT_INVVPID | VMX_EPT_INVVPID_ADDRESS |           \
	 VMX_EPT_INVVPID_CONTEXT | VMX_EPT_INVVPID_ALL | VMX_EPT_INVVPID_KEEP_GLOBAL)
/* Those of the secondary controls that give the guest's guest an instruction. */
#define PERMISSIONS (VMX2_RDTSCP | VMX2_INVPCID | VMX2_XSAVES | VMX2_USER_WAIT)

#define NO_VMCS UINT64_MAX

static struct vmx_nested *nested_of(struct core_vcpu *vcpu) { return &vcpu->vmx->nested; }

/* ---- the guest's VMCS, in its memory ---- */

#define REGION_LAUNCHED 8u
#define REGION_FIELDS   64u
#define REGION_INDICES  28u

/* A page of the guest's; it was checked to be the guest's. */
static uint8_t *region(uint64_t address) { return hw_map(address); }

static uint64_t *slot(struct core_vcpu *vcpu, uint32_t field)
{
	unsigned group = VMCS_WIDTH(field) * 4 + VMCS_TYPE(field);

	return (uint64_t *)(void *)(region(nested_of(vcpu)->current) + REGION_FIELDS +
				    8 * (group * REGION_INDICES + VMCS_INDEX(field)));
}

static uint64_t get(struct core_vcpu *vcpu, enum vmcs_field field) { return *slot(vcpu, field); }
static void set(struct core_vcpu *vcpu, enum vmcs_field field, uint64_t value) { *slot(vcpu, field) = value; }

/* Fields that the processor has, but for those of controls that are not offered. */
static bool exists(uint64_t field)
{
	uint64_t unused;

	if (field & VMCS_ENCODING_RESERVED || VMCS_INDEX(field) >= REGION_INDICES ||
	    (field & 1 && VMCS_WIDTH(field) != VMCS_64))
		return false;
	switch (field & ~1ull) {
	case VMCS_POSTED_INTERRUPT_VECTOR:
	case VMCS_EPTP_INDEX:
	case VMCS_PML_INDEX:
	case VMCS_GUEST_INTERRUPT_STATUS:
	case VMCS_PML_ADDRESS:
	case VMCS_VIRTUAL_APIC:
	case VMCS_APIC_ACCESS:
	case VMCS_POSTED_INTERRUPT_DESCRIPTOR:
	case VMCS_VM_FUNCTIONS:
	case VMCS_EOI_EXIT_0:
	case VMCS_EOI_EXIT_1:
	case VMCS_EOI_EXIT_2:
	case VMCS_EOI_EXIT_3:
	case VMCS_EPTP_LIST:
	case VMCS_VMREAD_BITMAP:
	case VMCS_VMWRITE_BITMAP:
	case VMCS_VE_INFORMATION:
	case VMCS_TSC_MULTIPLIER:
	case VMCS_GUEST_PAT:
	case VMCS_HOST_PAT:
	case VMCS_GUEST_PERF_GLOBAL_CTRL:
	case VMCS_HOST_PERF_GLOBAL_CTRL:
	case VMCS_TPR_THRESHOLD:
	case VMCS_PLE_GAP:
	case VMCS_PLE_WINDOW:
	case VMCS_PREEMPTION_TIMER: return false;
	default: return hw_vmx_read(field, &unused) == HW_VMX_DONE;
	}
}

/* ---- how an instruction ends (31.2) ---- */

static void end_with(struct core_vcpu *vcpu, uint64_t set_flags)
{
	uint64_t flags = vmx_get(VMCS_GUEST_RFLAGS) &
			 ~(uint64_t)(RFLAGS_CF | RFLAGS_PF | RFLAGS_AF | RFLAGS_ZF | RFLAGS_SF | RFLAGS_OF);

	vmx_set(VMCS_GUEST_RFLAGS, flags | set_flags);
	vmx_skip(vcpu);
}

static void succeed(struct core_vcpu *vcpu) { end_with(vcpu, 0); }

static void fail_with(struct core_vcpu *vcpu, enum vmx_error error)
{
	if (nested_of(vcpu)->current == NO_VMCS) {
		end_with(vcpu, RFLAGS_CF);
		return;
	}
	set(vcpu, VMCS_INSTRUCTION_ERROR, error);
	end_with(vcpu, RFLAGS_ZF);
}

/* ---- capabilities ---- */

/* Bits of a capability MSR for controls: those that must be 1 below, those that may be above. */
static uint64_t controls(uint32_t index, uint32_t must, uint32_t offered)
{
	uint32_t may = (uint32_t)(hw_read_msr(index) >> 32);

	return must | (uint64_t)(may & (must | offered)) << 32;
}

static bool capability(uint32_t index, uint64_t *value)
{
	switch (index) {
	case MSR_VMX_BASIC:
		*value = hw_read_msr(index) & ~(VMX_BASIC_DUAL_MONITOR | VMX_BASIC_ANY_ERROR);
		break;
	case MSR_VMX_PIN_CTLS:
	case MSR_VMX_TRUE_PIN_CTLS: *value = controls(index, VMX_PIN_DEFAULT1, OFFERED_PIN); break;
	case MSR_VMX_PRIMARY_CTLS: *value = controls(index, VMX_PRIMARY_DEFAULT1, OFFERED_PRIMARY); break;
	case MSR_VMX_TRUE_PRIMARY_CTLS:
		*value = controls(index, VMX_PRIMARY_DEFAULT1 & ~(VMX_CR3_LOAD | VMX_CR3_STORE),
				  OFFERED_PRIMARY);
		break;
	case MSR_VMX_SECONDARY_CTLS: *value = controls(index, 0, OFFERED_SECONDARY); break;
	case MSR_VMX_EXIT_CTLS: *value = controls(index, VMX_EXIT_DEFAULT1, OFFERED_EXIT); break;
	case MSR_VMX_TRUE_EXIT_CTLS:
		*value = controls(index, VMX_EXIT_DEFAULT1 & ~VMX_EXIT_SAVE_DEBUG, OFFERED_EXIT);
		break;
	case MSR_VMX_ENTRY_CTLS: *value = controls(index, VMX_ENTRY_DEFAULT1, OFFERED_ENTRY); break;
	case MSR_VMX_TRUE_ENTRY_CTLS:
		*value = controls(index, VMX_ENTRY_DEFAULT1 & ~VMX_ENTRY_LOAD_DEBUG, OFFERED_ENTRY);
		break;
	case MSR_VMX_MISC:
		*value = hw_read_msr(index) &
			 (VMX_MISC_TIMER_RATE | VMX_MISC_SAVES_LMA | VMX_MISC_HLT | VMX_MISC_SHUTDOWN |
			  VMX_MISC_WAIT_FOR_SIPI | 7ull << VMX_MISC_MSR_LIST_SHIFT |
			  0x1ffull << VMX_MISC_CR3_TARGETS_SHIFT | VMX_MISC_ZERO_LENGTH);
		break;
	case MSR_VMX_CR0_FIXED0:
	case MSR_VMX_CR0_FIXED1:
	case MSR_VMX_CR4_FIXED0:
	case MSR_VMX_VMCS_ENUM: *value = hw_read_msr(index); break;
	case MSR_VMX_CR4_FIXED1: *value = hw_read_msr(index) & ~(uint64_t)CR4_SMXE; break;
	case MSR_VMX_EPT_VPID_CAP: *value = hw_read_msr(index) & OFFERED_EPT; break;
	default: return false; /* VMFUNC */
	}
	return true;
}

enum core_msr vmx_nested_read_msr(struct core_vcpu *vcpu, uint32_t index, uint64_t *value)
{
	if (!vcpu->machine->nest)
		return MSR_FAULT;
	if (index == MSR_FEATURE_CONTROL) {
		*value = FEATURE_CONTROL_LOCK | FEATURE_CONTROL_VMX;
		return MSR_DONE;
	}
	return capability(index, value) ? MSR_DONE : MSR_FAULT;
}

/* ---- operands ---- */

static bool wide_mode(void)
{
	return vmx_get(VMCS_GUEST_EFER) & EFER_LMA && vmx_get(VMCS_GUEST_CS_RIGHTS) & SEG_L;
}

/* The linear address of the memory operand (tables 28-13, 28-14). */
static uint64_t operand_address(struct core_vcpu *vcpu)
{
	uint64_t info = vmx_get(VMCS_EXIT_INSTRUCTION_INFO), address = vmx_get(VMCS_EXIT_QUALIFICATION);
	unsigned size = info >> 7 & 7, segment = info >> 15 & 7;

	if (!(info >> 27 & 1))
		address += vcpu->gpr[info >> 23 & 15];
	if (!(info >> 22 & 1))
		address += vcpu->gpr[info >> 18 & 15] << (info & 3);
	if (size == 0)
		address = (uint16_t)address;
	else if (size == 1)
		address = (uint32_t)address;
	if (!wide_mode() || segment >= 4)
		address += vmx_get((enum vmcs_field)(VMCS_GUEST_ES_BASE + 2 * segment));
	return wide_mode() ? address : (uint32_t)address;
}

static void page_fault(struct core_vcpu *vcpu, uint64_t linear, bool write, bool present)
{
	hw_write_cr(2, linear);
	vmx_raise(vcpu, VECTOR_PF, (present ? PF_P : 0u) | (write ? PF_W : 0u));
}

/* @size bytes of the operand, or to it. False: it has raised a fault. */
static bool access(struct core_vcpu *vcpu, void *data, unsigned size, bool write)
{
	uint64_t linear = operand_address(vcpu), physical;

	for (unsigned i = 0; i < size; i++) {
		uint8_t *byte;

		if (!vmx_translate(vcpu, linear + i, &physical)) {
			page_fault(vcpu, linear + i, write, false);
			return false;
		}
		if (!tables_guests(vcpu->machine, physical, 1))
			hw_stop("an operand in the hypervisor's memory", physical);
		byte = (uint8_t *)hw_map(physical & ~PAGE_MASK) + (physical & PAGE_MASK);
		if (write)
			*byte = ((uint8_t *)data)[i];
		else
			((uint8_t *)data)[i] = *byte;
	}
	return true;
}

static bool page_operand(struct core_vcpu *vcpu, uint64_t *address)
{
	return access(vcpu, address, 8, false);
}

/* Whether it may be the address of a region. */
static bool is_region(const struct core_vcpu *vcpu, uint64_t address)
{
	uint32_t r[4];

	hw_cpuid(0x80000008u, 0, r);
	return !(address & PAGE_MASK) && !(address >> (r[0] & 0xff)) &&
	       tables_guests(vcpu->machine, address, CORE_PAGE);
}

static uint32_t revision(void) { return (uint32_t)hw_read_msr(MSR_VMX_BASIC) & VMCS_REVISION_MASK; }
static uint32_t revision_of(uint64_t address) { return *(uint32_t *)(void *)region(address); }
static uint32_t *launched(uint64_t address)
{
	return (uint32_t *)(void *)(region(address) + REGION_LAUNCHED);
}

/* ---- instructions ---- */

static void vmxon(struct core_vcpu *vcpu)
{
	struct vmx_nested *nested = nested_of(vcpu);
	uint64_t address, fixed = hw_read_msr(MSR_VMX_CR0_FIXED0);

	if (nested->on) {
		fail_with(vcpu, VMX_ERROR_VMXON_IN_ROOT);
		return;
	}
	if (~vmx_guest_cr(vcpu->vmx, 0) & fixed) {
		vmx_raise(vcpu, VECTOR_GP, 0);
		return;
	}
	if (!page_operand(vcpu, &address))
		return;
	nested->current = NO_VMCS;
	if (!is_region(vcpu, address) || revision_of(address) != revision()) {
		end_with(vcpu, RFLAGS_CF);
		return;
	}
	nested->on = true;
	nested->pointer = address;
	succeed(vcpu);
}

static void vmclear(struct core_vcpu *vcpu)
{
	struct vmx_nested *nested = nested_of(vcpu);
	uint64_t address;

	if (!page_operand(vcpu, &address))
		return;
	if (!is_region(vcpu, address)) {
		fail_with(vcpu, VMX_ERROR_VMCLEAR_ADDRESS);
	} else if (address == nested->pointer) {
		fail_with(vcpu, VMX_ERROR_VMCLEAR_VMXON_POINTER);
	} else {
		*launched(address) = 0;
		if (address == nested->current)
			nested->current = NO_VMCS;
		succeed(vcpu);
	}
}

static void vmptrld(struct core_vcpu *vcpu)
{
	struct vmx_nested *nested = nested_of(vcpu);
	uint64_t address;

	if (!page_operand(vcpu, &address))
		return;
	if (!is_region(vcpu, address)) {
		fail_with(vcpu, VMX_ERROR_VMPTRLD_ADDRESS);
	} else if (address == nested->pointer) {
		fail_with(vcpu, VMX_ERROR_VMPTRLD_VMXON_POINTER);
	} else if (revision_of(address) != revision()) { /* with bit 31, a shadow VMCS, which is not nested */
		fail_with(vcpu, VMX_ERROR_VMPTRLD_REVISION);
	} else {
		nested->current = address;
		succeed(vcpu);
	}
}

static void vmptrst(struct core_vcpu *vcpu)
{
	uint64_t address = nested_of(vcpu)->current;

	if (access(vcpu, &address, 8, true))
		succeed(vcpu);
}

static void vmread(struct core_vcpu *vcpu)
{
	uint64_t info = vmx_get(VMCS_EXIT_INSTRUCTION_INFO), field = vcpu->gpr[info >> 28 & 15], value;
	unsigned size = wide_mode() ? 8 : 4;

	if (!wide_mode())
		field = (uint32_t)field;
	if (nested_of(vcpu)->current == NO_VMCS) {
		end_with(vcpu, RFLAGS_CF);
		return;
	}
	if (!exists(field)) {
		fail_with(vcpu, VMX_ERROR_UNSUPPORTED_FIELD);
		return;
	}
	value = *slot(vcpu, (uint32_t)field) >> (field & 1 ? 32 : 0);
	if (info >> 10 & 1)
		vcpu->gpr[info >> 3 & 15] = size == 8 ? value : (uint32_t)value;
	else if (!access(vcpu, &value, size, true))
		return;
	succeed(vcpu);
}

static void vmwrite(struct core_vcpu *vcpu)
{
	static const uint64_t mask[] = {
		[VMCS_16] = 0xffff, [VMCS_64] = ~0ull, [VMCS_32] = 0xffffffff, [VMCS_NATURAL] = ~0ull};
	uint64_t info = vmx_get(VMCS_EXIT_INSTRUCTION_INFO), field = vcpu->gpr[info >> 28 & 15], value = 0,
		 *at;

	if (!wide_mode())
		field = (uint32_t)field;
	if (nested_of(vcpu)->current == NO_VMCS) {
		end_with(vcpu, RFLAGS_CF);
		return;
	}
	if (info >> 10 & 1)
		value = wide_mode() ? vcpu->gpr[info >> 3 & 15] : (uint32_t)vcpu->gpr[info >> 3 & 15];
	else if (!access(vcpu, &value, wide_mode() ? 8 : 4, false))
		return;
	if (!exists(field)) {
		fail_with(vcpu, VMX_ERROR_UNSUPPORTED_FIELD);
		return;
	}
	if (VMCS_TYPE(field) == VMCS_READ_ONLY) {
		fail_with(vcpu, VMX_ERROR_READ_ONLY_FIELD);
		return;
	}
	at = slot(vcpu, (uint32_t)field);
	if (field & 1)
		*at = (uint32_t)*at | value << 32;
	else
		*at = value & mask[VMCS_WIDTH(field)];
	succeed(vcpu);
}

static void invept(struct core_vcpu *vcpu)
{
	uint64_t info = vmx_get(VMCS_EXIT_INSTRUCTION_INFO), descriptor[2], type = vcpu->gpr[info >> 28 & 15];

	if (!access(vcpu, descriptor, sizeof(descriptor), false))
		return;
	if (type != INVEPT_CONTEXT && type != INVEPT_ALL) {
		fail_with(vcpu, VMX_ERROR_INVALIDATION_OPERAND);
		return;
	}
	if (type == INVEPT_CONTEXT && !vmx_shadow_eptp_valid(descriptor[0])) {
		fail_with(vcpu, VMX_ERROR_INVALIDATION_OPERAND);
		return;
	}
	vmx_shadow_drop(vcpu);
	succeed(vcpu);
}

static void invvpid(struct core_vcpu *vcpu)
{
	uint64_t info = vmx_get(VMCS_EXIT_INSTRUCTION_INFO), descriptor[2], type = vcpu->gpr[info >> 28 & 15];
	uint64_t canonical;

	if (!access(vcpu, descriptor, sizeof(descriptor), false))
		return;
	canonical = (uint64_t)((int64_t)(descriptor[1] << 16) >> 16);
	if (type > INVVPID_KEEP_GLOBAL || descriptor[0] >> 16 || (type != INVVPID_ALL && !descriptor[0]) ||
	    (type == INVVPID_ADDRESS && canonical != descriptor[1])) {
		fail_with(vcpu, VMX_ERROR_INVALIDATION_OPERAND);
		return;
	}
	nested_of(vcpu)->flush = true;
	succeed(vcpu);
}

/* ---- VM entry ---- */

/* Whether @value is one that the capability MSR allows. */
static bool allowed(uint32_t index, uint64_t value)
{
	uint64_t limits;

	capability(index, &limits);
	return !(~value & (uint32_t)limits) && !(value & ~(limits >> 32));
}

static bool has(struct core_vcpu *vcpu, uint32_t secondary)
{
	return get(vcpu, VMCS_PRIMARY_CONTROLS) & VMX_ACTIVATE_SECONDARY &&
	       get(vcpu, VMCS_SECONDARY_CONTROLS) & secondary;
}

/* A structure that the processor will read for the guest. */
static bool structure(struct core_vcpu *vcpu, enum vmcs_field field)
{
	return is_region(vcpu, get(vcpu, field));
}

static bool controls_valid(struct core_vcpu *vcpu)
{
	uint32_t true_controls = hw_read_msr(MSR_VMX_BASIC) & VMX_BASIC_TRUE_CONTROLS
					 ? MSR_VMX_TRUE_PIN_CTLS - MSR_VMX_PIN_CTLS
					 : 0;
	uint64_t primary = get(vcpu, VMCS_PRIMARY_CONTROLS);

	if (!allowed(MSR_VMX_PIN_CTLS + true_controls, get(vcpu, VMCS_PIN_CONTROLS)) ||
	    !allowed(MSR_VMX_PRIMARY_CTLS + true_controls, primary) ||
	    !allowed(MSR_VMX_EXIT_CTLS + true_controls, get(vcpu, VMCS_EXIT_CONTROLS)) ||
	    !allowed(MSR_VMX_ENTRY_CTLS + true_controls, get(vcpu, VMCS_ENTRY_CONTROLS)))
		return false;
	if (primary & VMX_ACTIVATE_SECONDARY &&
	    !allowed(MSR_VMX_SECONDARY_CTLS, get(vcpu, VMCS_SECONDARY_CONTROLS)))
		return false;
	if (get(vcpu, VMCS_CR3_TARGET_COUNT) > 4)
		return false;
	if (primary & VMX_USE_IO_BITMAPS &&
	    (!structure(vcpu, VMCS_IO_BITMAP_A) || !structure(vcpu, VMCS_IO_BITMAP_B)))
		return false;
	if (primary & VMX_USE_MSR_BITMAPS && !structure(vcpu, VMCS_MSR_BITMAP))
		return false;
	if (has(vcpu, VMX2_VPID) && !get(vcpu, VMCS_VPID))
		return false;
	if (has(vcpu, VMX2_EPT) && !vmx_shadow_eptp_valid(get(vcpu, VMCS_EPTP)))
		return false;
	if (has(vcpu, VMX2_UNRESTRICTED_GUEST) && !has(vcpu, VMX2_EPT))
		return false;
	/* MSR lists are the hypervisor's to walk; it offers them as long as they are empty. */
	return !get(vcpu, VMCS_EXIT_MSR_STORE_COUNT) && !get(vcpu, VMCS_EXIT_MSR_LOAD_COUNT) &&
	       !get(vcpu, VMCS_ENTRY_MSR_LOAD_COUNT);
}

static bool is_canonical(uint64_t address) { return (uint64_t)((int64_t)(address << 16) >> 16) == address; }

static bool host_valid(struct core_vcpu *vcpu)
{
	static const uint16_t selectors[] = {VMCS_HOST_ES, VMCS_HOST_CS, VMCS_HOST_SS, VMCS_HOST_DS,
					     VMCS_HOST_FS, VMCS_HOST_GS, VMCS_HOST_TR};
	static const uint16_t addresses[] = {
		VMCS_HOST_FS_BASE,   VMCS_HOST_GS_BASE,      VMCS_HOST_TR_BASE,      VMCS_HOST_GDTR_BASE,
		VMCS_HOST_IDTR_BASE, VMCS_HOST_SYSENTER_ESP, VMCS_HOST_SYSENTER_EIP, VMCS_HOST_RIP};
	uint64_t cr0 = get(vcpu, VMCS_HOST_CR0), cr4 = get(vcpu, VMCS_HOST_CR4);
	bool wide = get(vcpu, VMCS_EXIT_CONTROLS) & VMX_EXIT_HOST_64;

	if (~cr0 & hw_read_msr(MSR_VMX_CR0_FIXED0) || cr0 & ~hw_read_msr(MSR_VMX_CR0_FIXED1) ||
	    ~cr4 & hw_read_msr(MSR_VMX_CR4_FIXED0) || cr4 & ~hw_read_msr(MSR_VMX_CR4_FIXED1))
		return false;
	for (unsigned i = 0; i < sizeof(selectors) / sizeof(selectors[0]); i++)
		if (get(vcpu, (enum vmcs_field)selectors[i]) & 7)
			return false;
	for (unsigned i = 0; i < sizeof(addresses) / sizeof(addresses[0]); i++)
		if (!is_canonical(get(vcpu, (enum vmcs_field)addresses[i])))
			return false;
	if (!get(vcpu, VMCS_HOST_CS) || !get(vcpu, VMCS_HOST_TR))
		return false;
	return wide == !!(vmx_get(VMCS_GUEST_EFER) & EFER_LMA) && (!wide || cr4 & CR4_PAE);
}

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

		if (!exists(field))
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
		vmx_set((enum vmcs_field)fields[i], *slot(vcpu, fields[i]));
}

static void save_fields(struct core_vcpu *vcpu, const uint16_t *fields, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		*slot(vcpu, fields[i]) = vmx_get((enum vmcs_field)fields[i]);
}

/* The processor's controls for the guest's guest. */
static void merge_controls(struct core_vcpu *vcpu)
{
	struct vmx_vcpu *vmx = vcpu->vmx;
	uint64_t primary = get(vcpu, VMCS_PRIMARY_CONTROLS);
	uint32_t secondary =
		primary & VMX_ACTIVATE_SECONDARY ? (uint32_t)get(vcpu, VMCS_SECONDARY_CONTROLS) : 0;
	uint32_t own = vmx->own.secondary & ~(PERMISSIONS | VMX2_UNRESTRICTED_GUEST);

	vmx_set(VMCS_PIN_CONTROLS, vmx->own.pin | get(vcpu, VMCS_PIN_CONTROLS));
	vmx_set(VMCS_PRIMARY_CONTROLS,
		(vmx->own.primary | primary) &
			~(uint64_t)(primary & VMX_USE_MSR_BITMAPS ? 0 : VMX_USE_MSR_BITMAPS));
	vmx_set(VMCS_SECONDARY_CONTROLS, own | secondary);
	vmx_set(VMCS_EXCEPTION_BITMAP, get(vcpu, VMCS_EXCEPTION_BITMAP));
	vmx_set(VMCS_PF_ERROR_MASK, get(vcpu, VMCS_PF_ERROR_MASK));
	vmx_set(VMCS_PF_ERROR_MATCH, get(vcpu, VMCS_PF_ERROR_MATCH));
	vmx_set(VMCS_CR0_MASK, get(vcpu, VMCS_CR0_MASK));
	vmx_set(VMCS_CR4_MASK, get(vcpu, VMCS_CR4_MASK));
	vmx_set(VMCS_CR0_SHADOW, get(vcpu, VMCS_CR0_SHADOW));
	vmx_set(VMCS_CR4_SHADOW, get(vcpu, VMCS_CR4_SHADOW));
	vmx_set(VMCS_CR3_TARGET_COUNT, get(vcpu, VMCS_CR3_TARGET_COUNT));
	for (unsigned i = 0; i < 4; i++)
		vmx_set((enum vmcs_field)(VMCS_CR3_TARGET_0 + 2 * i),
			get(vcpu, (enum vmcs_field)(VMCS_CR3_TARGET_0 + 2 * i)));
	vmx_set(VMCS_TSC_OFFSET, get(vcpu, VMCS_TSC_OFFSET));
	vmx_set(VMCS_IO_BITMAP_A, get(vcpu, VMCS_IO_BITMAP_A));
	vmx_set(VMCS_IO_BITMAP_B, get(vcpu, VMCS_IO_BITMAP_B));
	if (secondary & VMX2_XSAVES)
		vmx_set(VMCS_XSS_EXITING_BITMAP, get(vcpu, VMCS_XSS_EXITING_BITMAP));
	vmx_set(VMCS_ENTRY_INTERRUPTION_INFO, get(vcpu, VMCS_ENTRY_INTERRUPTION_INFO));
	vmx_set(VMCS_ENTRY_EXCEPTION_ERROR, get(vcpu, VMCS_ENTRY_EXCEPTION_ERROR));
	vmx_set(VMCS_ENTRY_INSTRUCTION_LENGTH, get(vcpu, VMCS_ENTRY_INSTRUCTION_LENGTH));
}

static void merge_msr_bitmap(struct core_vcpu *vcpu)
{
	uint64_t *to = (uint64_t *)(void *)nested_of(vcpu)->msr_bitmap;
	const uint64_t *own = (const uint64_t *)(const void *)vcpu->vmx->msr_bitmap, *theirs;

	if (!(get(vcpu, VMCS_PRIMARY_CONTROLS) & VMX_USE_MSR_BITMAPS))
		return;
	theirs = hw_map(get(vcpu, VMCS_MSR_BITMAP));
	for (unsigned i = 0; i < CORE_PAGE / 8; i++)
		to[i] = own[i] | theirs[i];
}

static void merge_state(struct core_vcpu *vcpu, uint64_t own_efer, uint64_t own_dr7, uint64_t own_debugctl)
{
	uint64_t entry = get(vcpu, VMCS_ENTRY_CONTROLS), efer = own_efer & ~(uint64_t)(EFER_LMA | EFER_LME);
	bool debug = entry & VMX_ENTRY_LOAD_DEBUG;

	load_fields(vcpu, nested_of(vcpu)->state, nested_of(vcpu)->states);
	if (entry & VMX_ENTRY_IA32E)
		efer |= EFER_LMA | EFER_LME;
	vmx_set(VMCS_GUEST_EFER, entry & VMX_ENTRY_LOAD_EFER ? get(vcpu, VMCS_GUEST_EFER) : efer);
	vmx_set(VMCS_GUEST_DR7, debug ? get(vcpu, VMCS_GUEST_DR7) : own_dr7);
	vmx_set(VMCS_GUEST_DEBUGCTL, debug ? get(vcpu, VMCS_GUEST_DEBUGCTL) : own_debugctl);
	vmx_set(VMCS_LINK_POINTER, get(vcpu, VMCS_LINK_POINTER));
	nested_of(vcpu)->entry = vcpu->vmx->entry | (uint32_t)(entry & VMX_ENTRY_IA32E);
}

/* Translations of the guest's guest, and whether what is known of them still holds. */
static void merge_paging(struct core_vcpu *vcpu)
{
	struct vmx_nested *nested = nested_of(vcpu);
	bool ept = has(vcpu, VMX2_EPT);
	uint64_t eptp = ept ? get(vcpu, VMCS_EPTP) : 0;
	uint16_t vpid = has(vcpu, VMX2_VPID) ? (uint16_t)get(vcpu, VMCS_VPID) : 0;

	if (eptp != nested->eptp || ept != nested->ept)
		vmx_shadow_drop(vcpu);
	nested->ept = ept;
	nested->eptp = eptp;
	vmx_set(VMCS_EPTP, vmx_eptp(ept ? vmx_shadow_root(vcpu) : vcpu->tables));
	if (vcpu->vmx->has_vpid)
		vmx_set(VMCS_VPID, VMX_VPID_NESTED);
	if (vcpu->vmx->has_vpid && (nested->flush || !vpid || vpid != nested->vpid))
		hw_vmx_invvpid(INVVPID_CONTEXT, VMX_VPID_NESTED, 0);
	nested->flush = false;
	nested->vpid = vpid;
}

static void load(uint8_t *vmcs)
{
	if (hw_vmx_load(hw_physical(vmcs)) != HW_VMX_DONE)
		hw_stop("VMPTRLD fails", hw_physical(vmcs));
}

static void enter(struct core_vcpu *vcpu, bool launch)
{
	struct vmx_nested *nested = nested_of(vcpu);
	uint64_t efer, dr7, debugctl;

	if (nested->current == NO_VMCS) {
		end_with(vcpu, RFLAGS_CF);
	} else if (vmx_get(VMCS_GUEST_INTERRUPTIBILITY) & VMX_BLOCKING_MOV_SS) {
		fail_with(vcpu, VMX_ERROR_ENTRY_MOV_SS);
	} else if (launch && *launched(nested->current)) {
		fail_with(vcpu, VMX_ERROR_VMLAUNCH_NOT_CLEAR);
	} else if (!launch && !*launched(nested->current)) {
		fail_with(vcpu, VMX_ERROR_VMRESUME_NOT_LAUNCHED);
	} else if (!controls_valid(vcpu)) {
		fail_with(vcpu, VMX_ERROR_ENTRY_CONTROLS);
	} else if (!host_valid(vcpu)) {
		fail_with(vcpu, VMX_ERROR_ENTRY_HOST_STATE);
	} else {
		efer = vmx_get(VMCS_GUEST_EFER);
		dr7 = vmx_get(VMCS_GUEST_DR7);
		debugctl = vmx_get(VMCS_GUEST_DEBUGCTL);
		nested->launching = launch;
		load(nested->vmcs);
		merge_controls(vcpu);
		merge_msr_bitmap(vcpu);
		merge_state(vcpu, efer, dr7, debugctl);
		merge_paging(vcpu);
		nested->running = true;
		nested->rip = vcpu->rip;
		nested->rsp = vcpu->gpr[RSP];
		vcpu->rip = get(vcpu, VMCS_GUEST_RIP);
		vcpu->gpr[RSP] = get(vcpu, VMCS_GUEST_RSP);
	}
}

void vmx_nested_instruction(struct core_vcpu *vcpu, unsigned reason)
{
	struct vmx_nested *nested = nested_of(vcpu);
	bool vmxe = vmx_guest_cr(vcpu->vmx, 4) & CR4_VMXE;

	if (!vcpu->machine->nest || !vmxe || (!nested->on && reason != VMX_EXIT_VMXON)) {
		vmx_raise(vcpu, VECTOR_UD, 0);
		return;
	}
	if (vmx_get(VMCS_GUEST_SS_RIGHTS) & SEG_DPL) {
		vmx_raise(vcpu, VECTOR_GP, 0);
		return;
	}
	switch (reason) {
	case VMX_EXIT_VMXON: vmxon(vcpu); break;
	case VMX_EXIT_VMXOFF:
		nested->on = false;
		nested->current = NO_VMCS;
		succeed(vcpu);
		break;
	case VMX_EXIT_VMCLEAR: vmclear(vcpu); break;
	case VMX_EXIT_VMPTRLD: vmptrld(vcpu); break;
	case VMX_EXIT_VMPTRST: vmptrst(vcpu); break;
	case VMX_EXIT_VMREAD: vmread(vcpu); break;
	case VMX_EXIT_VMWRITE: vmwrite(vcpu); break;
	case VMX_EXIT_INVEPT: invept(vcpu); break;
	case VMX_EXIT_INVVPID: invvpid(vcpu); break;
	case VMX_EXIT_VMLAUNCH: enter(vcpu, true); break;
	case VMX_EXIT_VMRESUME: enter(vcpu, false); break;
	case VMX_EXIT_VMCALL: fail_with(vcpu, VMX_ERROR_VMCALL_IN_ROOT); break;
	default: vmx_raise(vcpu, VECTOR_UD, 0);
	}
}

/* ---- VM exit ---- */

static void save_state(struct core_vcpu *vcpu)
{
	uint64_t exit = get(vcpu, VMCS_EXIT_CONTROLS);

	save_fields(vcpu, nested_of(vcpu)->state, nested_of(vcpu)->states);
	if (exit & VMX_EXIT_SAVE_EFER)
		set(vcpu, VMCS_GUEST_EFER, vmx_get(VMCS_GUEST_EFER));
	if (exit & VMX_EXIT_SAVE_DEBUG) {
		set(vcpu, VMCS_GUEST_DR7, vmx_get(VMCS_GUEST_DR7));
		set(vcpu, VMCS_GUEST_DEBUGCTL, vmx_get(VMCS_GUEST_DEBUGCTL));
	}
	if (vmx_get(VMCS_GUEST_EFER) & EFER_LMA)
		set(vcpu, VMCS_ENTRY_CONTROLS, get(vcpu, VMCS_ENTRY_CONTROLS) | VMX_ENTRY_IA32E);
	else
		set(vcpu, VMCS_ENTRY_CONTROLS, get(vcpu, VMCS_ENTRY_CONTROLS) & ~(uint64_t)VMX_ENTRY_IA32E);
	set(vcpu, VMCS_ENTRY_INTERRUPTION_INFO,
	    get(vcpu, VMCS_ENTRY_INTERRUPTION_INFO) & ~(uint64_t)VMX_EVENT_VALID);
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
	bool wide = get(vcpu, VMCS_EXIT_CONTROLS) & VMX_EXIT_HOST_64;
	uint32_t data = SEG_P | SEG_S | SEG_WRITABLE | SEG_ACCESSED | SEG_DB | SEG_G;
	uint64_t selector;

	for (unsigned n = 0; n < 6; n++) {
		selector = get(vcpu, (enum vmcs_field)(VMCS_HOST_ES + 2 * n));
		host_segment(n, selector, 0, 0xffffffff, selector ? data : data | VMX_RIGHTS_UNUSABLE);
	}
	vmx_set(VMCS_GUEST_CS_RIGHTS,
		SEG_P | SEG_S | SEG_CODE | SEG_READABLE | SEG_ACCESSED | SEG_G | (wide ? SEG_L : SEG_DB));
	vmx_set(VMCS_GUEST_FS_BASE, get(vcpu, VMCS_HOST_FS_BASE));
	vmx_set(VMCS_GUEST_GS_BASE, get(vcpu, VMCS_HOST_GS_BASE));
	host_segment(6, 0, 0, 0, VMX_RIGHTS_UNUSABLE);
	host_segment(7, get(vcpu, VMCS_HOST_TR), get(vcpu, VMCS_HOST_TR_BASE), 0x67, SEG_P | TYPE_TSS_BUSY);
	vmx_set(VMCS_GUEST_GDTR_BASE, get(vcpu, VMCS_HOST_GDTR_BASE));
	vmx_set(VMCS_GUEST_GDTR_LIMIT, 0xffff);
	vmx_set(VMCS_GUEST_IDTR_BASE, get(vcpu, VMCS_HOST_IDTR_BASE));
	vmx_set(VMCS_GUEST_IDTR_LIMIT, 0xffff);
}

/* A host with PAE paging: its PDPTEs are in memory, ours are fields. */
static void load_host_pdptes(struct core_vcpu *vcpu, uint64_t efer)
{
	uint64_t at = get(vcpu, VMCS_HOST_CR3) & 0xffffffe0u;

	if (efer & EFER_LMA || !(get(vcpu, VMCS_HOST_CR4) & CR4_PAE))
		return;
	if (!tables_guests(vcpu->machine, at, 32))
		hw_stop("the guest's CR3 is in the hypervisor's memory", at);
	for (unsigned i = 0; i < 4; i++)
		vmx_set((enum vmcs_field)(VMCS_GUEST_PDPTE0 + 2 * i),
			*(uint64_t *)(void *)((uint8_t *)hw_map(at & ~PAGE_MASK) + (at & PAGE_MASK) + 8 * i));
}

/* 28.5, into the guest state of our own VMCS, which is current. @efer: of its guest. */
static void load_host(struct core_vcpu *vcpu, uint64_t efer)
{
	uint64_t exit = get(vcpu, VMCS_EXIT_CONTROLS);

	efer = (efer & ~(uint64_t)(EFER_LMA | EFER_LME)) |
	       (exit & VMX_EXIT_HOST_64 ? EFER_LMA | EFER_LME : 0);
	if (exit & VMX_EXIT_LOAD_EFER)
		efer = get(vcpu, VMCS_HOST_EFER);
	/* CD and NW stay as they are, in the processor too (28.5.1). */
	vmx_set_guest_cr(vcpu->vmx, 0, get(vcpu, VMCS_HOST_CR0) | CR0_ET);
	vmx_set_guest_cr(vcpu->vmx, 4, get(vcpu, VMCS_HOST_CR4));
	vmx_set(VMCS_GUEST_CR3, get(vcpu, VMCS_HOST_CR3));
	load_host_pdptes(vcpu, efer);
	vmx_set(VMCS_GUEST_EFER, efer);
	vmx_set(VMCS_GUEST_DR7, DR7_FIXED_1);
	vmx_set(VMCS_GUEST_DEBUGCTL, 0);
	vmx_set(VMCS_GUEST_SYSENTER_CS, get(vcpu, VMCS_HOST_SYSENTER_CS));
	vmx_set(VMCS_GUEST_SYSENTER_ESP, get(vcpu, VMCS_HOST_SYSENTER_ESP));
	vmx_set(VMCS_GUEST_SYSENTER_EIP, get(vcpu, VMCS_HOST_SYSENTER_EIP));
	vmx_set(VMCS_GUEST_RFLAGS, RFLAGS_FIXED);
	vmx_set(VMCS_GUEST_ACTIVITY, VMX_ACTIVE);
	vmx_set(VMCS_GUEST_PENDING_DEBUG, 0);
	vmx_set(VMCS_ENTRY_INTERRUPTION_INFO, 0);
	load_host_segments(vcpu);
	vcpu->rip = get(vcpu, VMCS_HOST_RIP);
	vcpu->gpr[RSP] = get(vcpu, VMCS_HOST_RSP);
	vcpu->vmx->flush |= !vcpu->vmx->has_vpid;
}

/* The exit is the guest's. */
static void reflect(struct core_vcpu *vcpu, uint32_t reason)
{
	struct vmx_nested *nested = nested_of(vcpu);
	uint64_t efer = vmx_get(VMCS_GUEST_EFER),
		 blocking = vmx_get(VMCS_GUEST_INTERRUPTIBILITY) & VMX_BLOCKING_NMI;
	bool failed = reason & VMX_EXIT_ENTRY_FAILURE;

	set(vcpu, VMCS_GUEST_RIP, vcpu->rip);
	vmx_set(VMCS_GUEST_RSP, vcpu->gpr[RSP]);
	save_fields(vcpu, nested->tell, nested->tells);
	set(vcpu, VMCS_EXIT_REASON, reason);
	if (!failed) {
		save_state(vcpu);
		if (nested->launching)
			*launched(nested->current) = 1;
	}
	nested->running = nested->launching = false;
	load(vcpu->vmx->vmcs);
	vmx_set(VMCS_GUEST_INTERRUPTIBILITY,
		failed ? vmx_get(VMCS_GUEST_INTERRUPTIBILITY) & VMX_BLOCKING_NMI : blocking);
	load_host(vcpu, efer);
}

void vmx_nested_nmi(struct core_vcpu *vcpu)
{
	reflect(vcpu, VMX_EXIT_EXCEPTION_NMI);
	set(vcpu, VMCS_EXIT_QUALIFICATION, 0);
	set(vcpu, VMCS_IDT_VECTORING_INFO, 0);
	set(vcpu, VMCS_EXIT_INTERRUPTION_INFO,
	    VECTOR_NMI | VMX_EVENT_NMI << VMX_EVENT_TYPE_SHIFT | VMX_EVENT_VALID);
	vmx_set(VMCS_GUEST_INTERRUPTIBILITY, VMX_BLOCKING_NMI);
}

void vmx_nested_refused(struct core_vcpu *vcpu, uint64_t error)
{
	struct vmx_nested *nested = nested_of(vcpu);

	nested->running = nested->launching = false;
	load(vcpu->vmx->vmcs);
	vcpu->rip = nested->rip;
	vcpu->gpr[RSP] = nested->rsp;
	fail_with(vcpu, (enum vmx_error)error);
}

/* Whether the guest has asked for the exit of its own guest. */
static bool msr_wanted(struct core_vcpu *vcpu, bool write)
{
	uint32_t index = (uint32_t)vcpu->gpr[RCX];
	unsigned bit;

	if (!(get(vcpu, VMCS_PRIMARY_CONTROLS) & VMX_USE_MSR_BITMAPS) || !vmx_msr_bit(index, write, &bit))
		return true;
	return ((const uint8_t *)hw_map(get(vcpu, VMCS_MSR_BITMAP)))[bit / 8] >> bit % 8 & 1;
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
	case SHADOW_MISCONFIGURED: reflect(vcpu, VMX_EXIT_EPT_MISCONFIGURATION); break;
	case SHADOW_VIOLATION:
		reflect(vcpu, VMX_EXIT_EPT_VIOLATION);
		set(vcpu, VMCS_EXIT_QUALIFICATION,
		    (why & ~(7ull << EPT_VIOLATION_RIGHTS_SHIFT)) | rights << EPT_VIOLATION_RIGHTS_SHIFT);
		break;
	}
}

bool vmx_nested_exit(struct core_vcpu *vcpu, uint32_t reason)
{
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
	case VMX_EXIT_MONITOR_TRAP_FLAG:
		if (!(get(vcpu, VMCS_PRIMARY_CONTROLS) & VMX_MONITOR_TRAP_FLAG))
			return false;
		break;
	default: break;
	}
	reflect(vcpu, reason);
	return true;
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
	*(uint32_t *)(void *)nested->vmcs = revision();
	if (hw_vmx_clear(hw_physical(nested->vmcs)) != HW_VMX_DONE)
		return "VMCLEAR fails";
	nested->launched = false;
	return NULL;
}

void vmx_nested_start(struct core_vcpu *vcpu)
{
	struct vmx_nested *nested = nested_of(vcpu);

	nested->on = nested->running = nested->launching = false;
	nested->current = NO_VMCS;
	nested->eptp = 0;
	nested->ept = false;
	vmx_shadow_drop(vcpu);
	if (!vcpu->machine->nest)
		return;
	/* What never changes of the VMCS that runs the guest's guest. */
	load(nested->vmcs);
	list_fields(nested);
	vmx_start_host();
	vmx_set(VMCS_MSR_BITMAP, hw_physical(nested->msr_bitmap));
	load(vcpu->vmx->vmcs);
}
