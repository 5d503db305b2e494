/*
 * vmx.c: VMXON VMXOFF VMCLEAR VMPTRLD VMPTRST VMREAD VMWRITE VMLAUNCH VMRESUME VMCALL INVEPT INVVPID
 * (SDM 3C chapter 31).
 *
 * The gates of their rows raise #UD outside of VMX operation and in the modes that do not have them, and
 * #GP(0) at CPL > 0; in a guest they have exited between the two, but for VMREAD and VMWRITE of a shadow
 * VMCS.
 */
#include "cpu/checks.h"
#include "cpu/insn/operand.h"
#include "cpu/mem/tlb.h"
#include "cpu/vmx/vmx.h"
#include "x86/msr.h"

/* ---- VMX operation ---- */

/*
 * What else VMXON demands outside of VMX operation. CR4 has what VMX operation fixes wherever VMXE is set.
 * There is no A20M mode, and no SMX operation.
 */
static bool vmxon_allowed(const struct cpu *cpu)
{
	uint64_t control = cpu->msr.feature_control;

	if (CHECK(VMXON_CR0, !vmx_cr0_supported(cpu->cr0, false)))
		return false;
	if (CHECK(VMXON_LOCK, !(control & FEATURE_CONTROL_LOCK)))
		return false;
	return !CHECK(VMXON_FEATURE_CONTROL, !(control & FEATURE_CONTROL_VMX));
}

static uint64_t pointer_operand(struct cpu *cpu, const struct insn *insn)
{
	return mem_read(cpu, insn->segment, insn_offset(cpu, insn), 8);
}

static inline void vmxon(struct cpu *cpu, const struct insn *insn)
{
	uint64_t address;
	uint32_t revision;

	if (CHECK(VMXON_IN_ROOT, vmx_operation(cpu))) {
		vmx_fail(cpu, VMX_ERROR_VMXON_IN_ROOT);
		return;
	}
	if (!vmxon_allowed(cpu))
		cpu_raise(cpu, VECTOR_GP, 0);
	address = pointer_operand(cpu, insn);
	if (CHECK(VMXON_ADDRESS, !vmcs_address_valid(cpu, address))) {
		vmx_fail_invalid(cpu);
		return;
	}
	revision = vmcs_revision(cpu, address);
	if (CHECK(VMXON_REVISION, (revision & VMCS_REVISION_MASK) != VMX_REVISION) ||
	    CHECK(VMXON_SHADOW, revision & VMCS_SHADOW)) {
		vmx_fail_invalid(cpu);
		return;
	}
	cpu->msr.vmx_on = true;
	cpu->msr.vmx_vmxon = address;
	cpu->msr.vmx_vmcs = VMX_NO_VMCS;
	cpu->wait.armed = false;
	vmx_succeed(cpu);
}
DEFINE_INSN(vmxon)

/* INIT was blocked, and is taken before the next instruction where it is pending. */
static inline void vmxoff(struct cpu *cpu, const struct insn *insn)
{
	(void)insn;
	cpu->msr.vmx_on = false;
	cpu->msr.vmx_vmxon = cpu->msr.vmx_vmcs = 0;
	cpu->wait.armed = false;
	vmx_succeed(cpu);
}
DEFINE_INSN(vmxoff)

/* There is no dual-monitor treatment of SMM that it could call. */
static inline void vmcall(struct cpu *cpu, const struct insn *insn)
{
	(void)insn;
	vmx_fail(cpu, VMX_ERROR_VMCALL_IN_ROOT);
}
DEFINE_INSN(vmcall)

/* ---- the current VMCS ---- */

static inline void vmclear(struct cpu *cpu, const struct insn *insn)
{
	uint64_t address = pointer_operand(cpu, insn);

	if (CHECK(VMCLEAR_ADDRESS, !vmcs_address_valid(cpu, address))) {
		vmx_fail(cpu, VMX_ERROR_VMCLEAR_ADDRESS);
		return;
	}
	if (CHECK(VMCLEAR_VMXON_POINTER, address == cpu->msr.vmx_vmxon)) {
		vmx_fail(cpu, VMX_ERROR_VMCLEAR_VMXON_POINTER);
		return;
	}
	vmcs_set_launched(cpu, address, false);
	if (CHECK(VMCLEAR_CURRENT, address == cpu->msr.vmx_vmcs))
		cpu->msr.vmx_vmcs = VMX_NO_VMCS;
	vmx_succeed(cpu);
}
DEFINE_INSN(vmclear)

static inline void vmptrld(struct cpu *cpu, const struct insn *insn)
{
	uint64_t address = pointer_operand(cpu, insn);
	uint32_t revision;

	if (CHECK(VMPTRLD_ADDRESS, !vmcs_address_valid(cpu, address))) {
		vmx_fail(cpu, VMX_ERROR_VMPTRLD_ADDRESS);
		return;
	}
	if (CHECK(VMPTRLD_VMXON_POINTER, address == cpu->msr.vmx_vmxon)) {
		vmx_fail(cpu, VMX_ERROR_VMPTRLD_VMXON_POINTER);
		return;
	}
	revision = vmcs_revision(cpu, address);
	if (CHECK(VMPTRLD_REVISION, (revision & VMCS_REVISION_MASK) != VMX_REVISION) ||
	    CHECK(VMPTRLD_SHADOW, revision & VMCS_SHADOW && !cpu_has(cpu, FEATURE_vmx_shadow))) {
		vmx_fail(cpu, VMX_ERROR_VMPTRLD_REVISION);
		return;
	}
	cpu->msr.vmx_vmcs = address & cpu->physical_mask & ~(uint64_t)(VMCS_REGION_SIZE - 1);
	vmx_succeed(cpu);
}
DEFINE_INSN(vmptrld)

static inline void vmptrst(struct cpu *cpu, const struct insn *insn)
{
	mem_write(cpu, insn->segment, insn_offset(cpu, insn), cpu->msr.vmx_vmcs, 8);
	vmx_succeed(cpu);
}
DEFINE_INSN(vmptrst)

/* ---- its fields ---- */

/* Operands have 64 bits in 64-bit mode and 32 elsewhere, whatever the prefixes. */
static unsigned operand_width(const struct cpu *cpu) { return cpu_64bit(cpu) ? 8 : 4; }

/* The VMCS that VMREAD and VMWRITE access: in a guest that of the link pointer. */
static uint64_t accessed_vmcs(const struct cpu *cpu)
{
	return vmx_guest(cpu) ? cpu->msr.vmx_link : cpu->msr.vmx_vmcs;
}

/* A fault of the destination comes behind all other checks. */
static inline void vmread(struct cpu *cpu, const struct insn *insn)
{
	unsigned width = operand_width(cpu);
	uint64_t encoding = reg_read(cpu, insn->reg, width), vmcs = accessed_vmcs(cpu), value;

	if (CHECK(VMREAD_CURRENT, vmcs == VMX_NO_VMCS)) {
		vmx_fail_invalid(cpu);
		return;
	}
	if (CHECK(VMREAD_FIELD, !vmcs_exists(cpu, encoding))) {
		vmx_fail(cpu, VMX_ERROR_UNSUPPORTED_FIELD);
		return;
	}
	value = vmcs_read_at(cpu, vmcs, (uint32_t)encoding);
	rm_write(cpu, insn, value, width, insn_is_memory(insn));
	vmx_succeed(cpu);
}
DEFINE_INSN(vmread)

/* A fault of the source comes behind the check of the pointer, and before that of the field. */
static inline void vmwrite(struct cpu *cpu, const struct insn *insn)
{
	unsigned width = operand_width(cpu);
	uint64_t encoding = reg_read(cpu, insn->reg, width), vmcs = accessed_vmcs(cpu), value;

	if (CHECK(VMWRITE_CURRENT, vmcs == VMX_NO_VMCS)) {
		vmx_fail_invalid(cpu);
		return;
	}
	value = rm_read(cpu, insn, width, insn_is_memory(insn));
	if (CHECK(VMWRITE_FIELD, !vmcs_exists(cpu, encoding))) {
		vmx_fail(cpu, VMX_ERROR_UNSUPPORTED_FIELD);
		return;
	}
	if (CHECK(VMWRITE_READ_ONLY,
		  VMCS_TYPE(encoding) == VMCS_READ_ONLY && !cpu_has(cpu, FEATURE_vmx_vmwrite_any))) {
		vmx_fail(cpu, VMX_ERROR_READ_ONLY_FIELD);
		return;
	}
	vmcs_write_at(cpu, vmcs, (uint32_t)encoding, value);
	vmx_succeed(cpu);
}
DEFINE_INSN(vmwrite)

/* ---- VM entry ---- */

static void enter(struct cpu *cpu, bool launch)
{
	uint64_t vmcs = cpu->msr.vmx_vmcs;
	bool launched;

	if (vmcs == VMX_NO_VMCS) {
		if (CHECK(VMX_ENTRY_CURRENT, true))
			vmx_fail_invalid(cpu);
		return;
	}
	if (CHECK(VMX_ENTRY_SHADOW_VMCS, vmcs_revision(cpu, vmcs) & VMCS_SHADOW)) {
		vmx_fail_invalid(cpu);
		return;
	}
	if (CHECK(VMX_ENTRY_MOV_SS, cpu->shadow_was == SHADOW_MOV_SS)) {
		vmx_fail(cpu, VMX_ERROR_ENTRY_MOV_SS);
		return;
	}
	launched = vmcs_launched(cpu, vmcs);
	if (CHECK(VMLAUNCH_CLEAR, launch && launched)) {
		vmx_fail(cpu, VMX_ERROR_VMLAUNCH_NOT_CLEAR);
		return;
	}
	if (CHECK(VMRESUME_LAUNCHED, !launch && !launched)) {
		vmx_fail(cpu, VMX_ERROR_VMRESUME_NOT_LAUNCHED);
		return;
	}
	vmx_enter(cpu, launch);
}

static inline void vmlaunch(struct cpu *cpu, const struct insn *insn)
{
	(void)insn;
	enter(cpu, true);
}
DEFINE_INSN(vmlaunch)

static inline void vmresume(struct cpu *cpu, const struct insn *insn)
{
	(void)insn;
	enter(cpu, false);
}
DEFINE_INSN(vmresume)

/* ---- INVEPT, INVVPID (29.4.3.1) ---- */

struct invalidation {
	uint64_t low, high;
};

static struct invalidation invalidation_operand(struct cpu *cpu, const struct insn *insn)
{
	struct invalidation descriptor;

	mem_read_bytes(cpu, insn->segment, insn_offset(cpu, insn), &descriptor, sizeof(descriptor), 1);
	return descriptor;
}

static inline void invept(struct cpu *cpu, const struct insn *insn)
{
	uint64_t type = reg_read(cpu, insn->reg, operand_width(cpu));
	struct invalidation descriptor;

	if (CHECK(INVEPT_TYPE, type != INVEPT_CONTEXT && type != INVEPT_ALL)) {
		vmx_fail(cpu, VMX_ERROR_INVALIDATION_OPERAND);
		return;
	}
	descriptor = invalidation_operand(cpu, insn);
	if (CHECK(INVEPT_EPTP, type == INVEPT_CONTEXT && !vmx_eptp_valid(cpu, descriptor.low))) {
		vmx_fail(cpu, VMX_ERROR_INVALIDATION_OPERAND);
		return;
	}
	if (CHECK(TLB_INVEPT_CONTEXT, type == INVEPT_CONTEXT))
		tlb_flush_spaces(cpu, vmx_space(0, descriptor.low), VMX_SPACE_OF_EPTP);
	else if (CHECK(TLB_INVEPT_ALL, type == INVEPT_ALL))
		tlb_flush_spaces(cpu, VMX_SPACE | VMX_SPACE_EPT, VMX_SPACE | VMX_SPACE_EPT);
	vmx_succeed(cpu);
}
DEFINE_INSN(invept)

static bool invvpid_valid(const struct cpu *cpu, uint64_t type, const struct invalidation *descriptor)
{
	if (CHECK(INVVPID_RESERVED, descriptor->low >> 16))
		return false;
	if (CHECK(INVVPID_ZERO, type != INVVPID_ALL && !(descriptor->low & 0xffff)))
		return false;
	return !CHECK(INVVPID_CANONICAL,
		      type == INVVPID_ADDRESS && !linear_is_canonical(cpu, descriptor->high));
}

/* Translations that are global go with the others where the type allows to keep them. */
static void invalidate_vpid(struct cpu *cpu, enum vmx_invvpid type, const struct invalidation *descriptor)
{
	uint64_t space = vmx_space((uint16_t)descriptor->low, 0);

	switch (type) {
	case INVVPID_ADDRESS:
		if (CHECK(TLB_INVVPID_ADDRESS, true))
			tlb_flush_spaces_page(cpu, space, VMX_SPACE_OF_VPID, descriptor->high);
		break;
	case INVVPID_ALL:
		if (CHECK(TLB_INVVPID_ALL, true))
			tlb_flush_spaces(cpu, VMX_SPACE, VMX_SPACE);
		break;
	case INVVPID_CONTEXT:
		if (CHECK(TLB_INVVPID_CONTEXT, true))
			tlb_flush_spaces(cpu, space, VMX_SPACE_OF_VPID);
		break;
	case INVVPID_KEEP_GLOBAL:
		if (CHECK(TLB_INVVPID_KEEP_GLOBAL, true))
			tlb_flush_spaces(cpu, space, VMX_SPACE_OF_VPID);
		break;
	}
}

static inline void invvpid(struct cpu *cpu, const struct insn *insn)
{
	uint64_t type = reg_read(cpu, insn->reg, operand_width(cpu));
	struct invalidation descriptor;

	if (CHECK(INVVPID_TYPE, type > INVVPID_KEEP_GLOBAL)) {
		vmx_fail(cpu, VMX_ERROR_INVALIDATION_OPERAND);
		return;
	}
	descriptor = invalidation_operand(cpu, insn);
	if (!invvpid_valid(cpu, type, &descriptor)) {
		vmx_fail(cpu, VMX_ERROR_INVALIDATION_OPERAND);
		return;
	}
	invalidate_vpid(cpu, (enum vmx_invvpid)type, &descriptor);
	vmx_succeed(cpu);
}
DEFINE_INSN(invvpid)

/* ---- VMFUNC ---- */

static inline void vmfunc(struct cpu *cpu, const struct insn *insn)
{
	(void)insn;
	if (CHECK(VMFUNC_GUEST, !vmx_guest(cpu)))
		cpu_raise(cpu, VECTOR_UD, 0);
	if (vmx_guest(cpu))
		vmx_function(cpu);
}
DEFINE_INSN(vmfunc)
