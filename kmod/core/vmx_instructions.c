/*
 * vmx_instructions.c: VMXON and its kin of a guest that is a hypervisor (SDM 3C chapter 31). They exit before
 * their memory operand is looked at, so that its faults are ours to find.
 */
#include "kmod/core/vmx_nested.h"
#include "kmod/core/vmx_region.h"
#include "kmod/core/vmx_shadow.h"
#include "x86/descriptors.h"
#include "x86/msr.h"
#include "x86/vectors.h"

enum { SEGMENT_ES, SEGMENT_CS, SEGMENT_SS, SEGMENT_DS, SEGMENT_FS, SEGMENT_GS };

static struct vmx_nested *nested_of(struct core_vcpu *vcpu) { return &vcpu->vmx->nested; }

/* ---- how an instruction ends (31.2) ---- */

static void end_with(struct core_vcpu *vcpu, uint64_t set_flags)
{
	uint64_t flags = vmx_get(VMCS_GUEST_RFLAGS) &
			 ~(uint64_t)(RFLAGS_CF | RFLAGS_PF | RFLAGS_AF | RFLAGS_ZF | RFLAGS_SF | RFLAGS_OF);

	vmx_set(VMCS_GUEST_RFLAGS, flags | set_flags);
	vmx_skip(vcpu);
}

static void succeed(struct core_vcpu *vcpu) { end_with(vcpu, 0); }

void vmx_nested_fail(struct core_vcpu *vcpu, enum vmx_error error)
{
	if (nested_of(vcpu)->current == NO_VMCS) {
		end_with(vcpu, RFLAGS_CF);
		return;
	}
	region_set(vcpu, VMCS_INSTRUCTION_ERROR, error);
	end_with(vcpu, RFLAGS_ZF);
}

/* ---- operands ---- */

static bool wide_mode(void)
{
	return vmx_get(VMCS_GUEST_EFER) & EFER_LMA && vmx_get(VMCS_GUEST_CS_RIGHTS) & SEG_L;
}

/* Modes in which these instructions are defined: neither virtual-8086 nor compatibility mode. */
static bool in_root_mode(void)
{
	return !(vmx_get(VMCS_GUEST_RFLAGS) & RFLAGS_VM) &&
	       (!(vmx_get(VMCS_GUEST_EFER) & EFER_LMA) || wide_mode());
}

/* A memory operand (tables 28-13, 28-14): where it is in its segment, and which that is. */
struct operand {
	uint64_t offset;
	unsigned segment, size;
	bool write;
};

static struct operand memory_operand(const struct core_vcpu *vcpu, unsigned size, bool write)
{
	uint64_t info = vmx_get(VMCS_EXIT_INSTRUCTION_INFO);
	struct operand operand = {vmx_get(VMCS_EXIT_QUALIFICATION), info >> 15 & 7, size, write};

	if (!(info >> 27 & 1))
		operand.offset += vcpu->gpr[info >> 23 & 15];
	if (!(info >> 22 & 1))
		operand.offset += vcpu->gpr[info >> 18 & 15] << (info & 3);
	switch (info >> 7 & 7) {
	case 0: operand.offset = (uint16_t)operand.offset; break;
	case 1: operand.offset = (uint32_t)operand.offset; break;
	default: break;
	}
	return operand;
}

/* Type and limit of the segment, in legacy protected mode (SDM 3A 5.3, 5.5). */
static bool segment_permits(const struct operand *operand)
{
	uint64_t rights = vmx_get((enum vmcs_field)(VMCS_GUEST_ES_RIGHTS + 2 * operand->segment));
	uint64_t limit = vmx_get((enum vmcs_field)(VMCS_GUEST_ES_LIMIT + 2 * operand->segment));
	uint64_t last = operand->offset + operand->size - 1;
	bool code = rights & SEG_CODE, flagged = rights & SEG_WRITABLE; /* or readable */

	if (rights & VMX_RIGHTS_UNUSABLE || (code && operand->write) ||
	    (!flagged && (code || operand->write)))
		return false;
	if (!code && rights & SEG_EXPAND_DOWN)
		return operand->offset > limit && last <= (rights & SEG_DB ? 0xffffffffu : 0xffffu);
	return last <= limit;
}

static bool is_canonical(uint64_t address)
{
	unsigned unused = vmx_get(VMCS_GUEST_CR4) & CR4_LA57 ? 7 : 16;

	return (uint64_t)((int64_t)(address << unused) >> unused) == address;
}

/* The operand's linear address; false: its segment, or what is no address, has raised a fault. */
static bool linear_of(struct core_vcpu *vcpu, const struct operand *operand, uint64_t *linear)
{
	bool wide = wide_mode(), based = !wide || operand->segment >= SEGMENT_FS, good;

	*linear = operand->offset;
	if (based)
		*linear += vmx_get((enum vmcs_field)(VMCS_GUEST_ES_BASE + 2 * operand->segment));
	if (wide) {
		good = is_canonical(*linear) && is_canonical(*linear + operand->size - 1);
	} else {
		*linear = (uint32_t)*linear;
		good = segment_permits(operand);
	}
	if (!good)
		vmx_raise(vcpu, operand->segment == SEGMENT_SS ? VECTOR_SS : VECTOR_GP, 0);
	return good;
}

/* @size bytes of the operand, or to it. False: it has raised a fault. */
static bool access(struct core_vcpu *vcpu, void *data, unsigned size, bool write)
{
	struct operand operand = memory_operand(vcpu, size, write);
	struct linear_mode mode;
	struct linear_fault fault;
	uint64_t linear;

	if (!linear_of(vcpu, &operand, &linear))
		return false;
	mode = vmx_linear_mode(vcpu, false);
	if (write ? linear_put(&mode, linear, data, size, &fault)
		  : linear_get(&mode, linear, data, size, &fault))
		return true;
	hw_write_cr(2, fault.address);
	vmx_raise(vcpu, VECTOR_PF, fault.error);
	return false;
}

static bool page_operand(struct core_vcpu *vcpu, uint64_t *address)
{
	return access(vcpu, address, 8, false);
}

/* ---- instructions ---- */

static void vmxon(struct core_vcpu *vcpu)
{
	struct vmx_nested *nested = nested_of(vcpu);
	uint64_t address, fixed = hw_read_msr(MSR_VMX_CR0_FIXED0);

	if (nested->on) {
		vmx_nested_fail(vcpu, VMX_ERROR_VMXON_IN_ROOT);
		return;
	}
	if (~vmx_guest_cr(vcpu->vmx, 0) & fixed) {
		vmx_raise(vcpu, VECTOR_GP, 0);
		return;
	}
	if (!page_operand(vcpu, &address))
		return;
	nested->current = NO_VMCS;
	if (!region_valid(vcpu, address) || region_revision_of(address) != region_revision()) {
		end_with(vcpu, RFLAGS_CF);
		return;
	}
	nested->pointer = address;
	vmx_nested_operation(vcpu, true);
	succeed(vcpu);
}

/* An INIT that has waited for it comes now (SDM 3C 24.8). */
static void vmxoff(struct core_vcpu *vcpu)
{
	vmx_nested_operation(vcpu, false);
	succeed(vcpu);
	if (nested_of(vcpu)->init)
		vmx_init(vcpu);
}

static void vmclear(struct core_vcpu *vcpu)
{
	struct vmx_nested *nested = nested_of(vcpu);
	uint64_t address;

	if (!page_operand(vcpu, &address))
		return;
	if (!region_valid(vcpu, address)) {
		vmx_nested_fail(vcpu, VMX_ERROR_VMCLEAR_ADDRESS);
	} else if (address == nested->pointer) {
		vmx_nested_fail(vcpu, VMX_ERROR_VMCLEAR_VMXON_POINTER);
	} else {
		*region_launched(address) = 0;
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
	if (!region_valid(vcpu, address)) {
		vmx_nested_fail(vcpu, VMX_ERROR_VMPTRLD_ADDRESS);
	} else if (address == nested->pointer) {
		vmx_nested_fail(vcpu, VMX_ERROR_VMPTRLD_VMXON_POINTER);
	} else if (region_revision_of(address) !=
		   region_revision()) { /* with bit 31, a shadow VMCS, which is not nested */
		vmx_nested_fail(vcpu, VMX_ERROR_VMPTRLD_REVISION);
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
	if (!region_has(field)) {
		vmx_nested_fail(vcpu, VMX_ERROR_UNSUPPORTED_FIELD);
		return;
	}
	value = *region_slot(vcpu, (uint32_t)field) >> (field & 1 ? 32 : 0);
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
	if (!region_has(field)) {
		vmx_nested_fail(vcpu, VMX_ERROR_UNSUPPORTED_FIELD);
		return;
	}
	if (VMCS_TYPE(field) == VMCS_READ_ONLY) {
		vmx_nested_fail(vcpu, VMX_ERROR_READ_ONLY_FIELD);
		return;
	}
	at = region_slot(vcpu, (uint32_t)field);
	if (field & 1)
		*at = (uint32_t)*at | value << 32;
	else
		*at = value & mask[VMCS_WIDTH(field)];
	succeed(vcpu);
}

static void invept(struct core_vcpu *vcpu)
{
	uint64_t info = vmx_get(VMCS_EXIT_INSTRUCTION_INFO), descriptor[2], type = vcpu->gpr[info >> 28 & 15];

	if (!wide_mode())
		type = (uint32_t)type;
	if (type != INVEPT_CONTEXT && type != INVEPT_ALL) {
		vmx_nested_fail(vcpu, VMX_ERROR_INVALIDATION_OPERAND);
		return;
	}
	if (!access(vcpu, descriptor, sizeof(descriptor), false))
		return;
	if (type == INVEPT_CONTEXT && !vmx_shadow_eptp_valid(descriptor[0])) {
		vmx_nested_fail(vcpu, VMX_ERROR_INVALIDATION_OPERAND);
		return;
	}
	vmx_shadow_drop(vcpu);
	succeed(vcpu);
}

static bool invvpid_valid(uint64_t type, const uint64_t descriptor[2])
{
	return !(descriptor[0] >> 16) && (type == INVVPID_ALL || descriptor[0]) &&
	       (type != INVVPID_ADDRESS || is_canonical(descriptor[1]));
}

static void invvpid(struct core_vcpu *vcpu)
{
	uint64_t info = vmx_get(VMCS_EXIT_INSTRUCTION_INFO), descriptor[2], type = vcpu->gpr[info >> 28 & 15];

	if (!wide_mode())
		type = (uint32_t)type;
	if (type > INVVPID_KEEP_GLOBAL) {
		vmx_nested_fail(vcpu, VMX_ERROR_INVALIDATION_OPERAND);
		return;
	}
	if (!access(vcpu, descriptor, sizeof(descriptor), false))
		return;
	if (!invvpid_valid(type, descriptor)) {
		vmx_nested_fail(vcpu, VMX_ERROR_INVALIDATION_OPERAND);
		return;
	}
	nested_of(vcpu)->flush = true;
	succeed(vcpu);
}

void vmx_nested_instruction(struct core_vcpu *vcpu, unsigned reason)
{
	struct vmx_nested *nested = nested_of(vcpu);
	bool vmxe = vmx_guest_cr(vcpu->vmx, 4) & CR4_VMXE;

	if (!vcpu->machine->nest || !vmxe || (!nested->on && reason != VMX_EXIT_VMXON)) {
		vmx_raise(vcpu, VECTOR_UD, 0);
		return;
	}
	/* The processor looks at the mode before any other of them exits. */
	if (reason == VMX_EXIT_VMCALL && !in_root_mode()) {
		vmx_raise(vcpu, VECTOR_UD, 0);
		return;
	}
	if (vmx_get(VMCS_GUEST_SS_RIGHTS) & SEG_DPL) {
		vmx_raise(vcpu, VECTOR_GP, 0);
		return;
	}
	switch (reason) {
	case VMX_EXIT_VMXON: vmxon(vcpu); break;
	case VMX_EXIT_VMXOFF: vmxoff(vcpu); break;
	case VMX_EXIT_VMCLEAR: vmclear(vcpu); break;
	case VMX_EXIT_VMPTRLD: vmptrld(vcpu); break;
	case VMX_EXIT_VMPTRST: vmptrst(vcpu); break;
	case VMX_EXIT_VMREAD: vmread(vcpu); break;
	case VMX_EXIT_VMWRITE: vmwrite(vcpu); break;
	case VMX_EXIT_INVEPT: invept(vcpu); break;
	case VMX_EXIT_INVVPID: invvpid(vcpu); break;
	case VMX_EXIT_VMLAUNCH: vmx_nested_enter(vcpu, true); break;
	case VMX_EXIT_VMRESUME: vmx_nested_enter(vcpu, false); break;
	case VMX_EXIT_VMCALL: vmx_nested_fail(vcpu, VMX_ERROR_VMCALL_IN_ROOT); break;
	default: vmx_raise(vcpu, VECTOR_UD, 0);
	}
}
