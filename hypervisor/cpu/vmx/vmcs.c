/*
 * vmcs.c: the VMCS (SDM 3C 25.2, 25.11; appendix B), and how VMX instructions answer (31.2).
 *
 * A region begins with the revision identifier and the abort indicator, as the manual has it. The rest is
 * this processor's own: the launch state, and eight bytes for each field.
 */
#include "cpu/checks.h"
#include "cpu/mem/mem.h"
#include "cpu/mem/phys.h"
#include "cpu/vmx/vmx.h"

enum { LAUNCH_STATE = 8 }; /* offset within the region */

#define VMCS_FIELD(encoding, name)                                                                           \
	_Static_assert(VMCS_INDEX(encoding) < VMCS_INDEX_COUNT, "a region has room for each index");
#include "x86/vmcs_fields.def"
#undef VMCS_FIELD
_Static_assert(VMCS_FIELDS_AT + 8 * 16 * VMCS_INDEX_COUNT <= VMCS_REGION_SIZE, "and for all");

/* Whether @encoding, of a full access, is a field's. */
static bool field_known(uint32_t encoding)
{
	switch (encoding) {
#define VMCS_FIELD(encoding, name) case (encoding):
#include "x86/vmcs_fields.def"
#undef VMCS_FIELD
		return true;
	default: return false;
	}
}

/* ---- which fields there are (25.4 to 25.9, appendix B) ---- */

#define EITHER(a, b) (cpu_has(cpu, FEATURE_##a) || cpu_has(cpu, FEATURE_##b))
#define HAS(a)       cpu_has(cpu, FEATURE_##a)

static bool control_exists(const struct cpu *cpu, uint32_t field)
{
	switch (field) {
	case VMCS_VPID: return HAS(vmx_vpid);
	case VMCS_POSTED_INTERRUPT_VECTOR:
	case VMCS_POSTED_INTERRUPT_DESCRIPTOR: return HAS(vmx_posted_interrupts);
	case VMCS_EPTP_INDEX:
	case VMCS_VE_INFORMATION: return HAS(vmx_ve);
	case VMCS_MSR_BITMAP: return HAS(vmx_msr_bitmaps);
	case VMCS_PML_ADDRESS: return HAS(vmx_pml);
	case VMCS_VIRTUAL_APIC:
	case VMCS_TPR_THRESHOLD: return HAS(vmx_tpr_shadow);
	case VMCS_APIC_ACCESS: return HAS(vmx_apic_access);
	case VMCS_VM_FUNCTIONS: return HAS(vmx_vmfunc);
	case VMCS_EPTP: return HAS(vmx_ept);
	case VMCS_EOI_EXIT_0:
	case VMCS_EOI_EXIT_1:
	case VMCS_EOI_EXIT_2:
	case VMCS_EOI_EXIT_3: return HAS(vmx_virtual_interrupts);
	case VMCS_EPTP_LIST: return HAS(vmx_eptp_switching);
	case VMCS_VMREAD_BITMAP:
	case VMCS_VMWRITE_BITMAP: return HAS(vmx_shadow);
	case VMCS_XSS_EXITING_BITMAP: return HAS(vmx_xsaves);
	case VMCS_TSC_MULTIPLIER: return HAS(vmx_tsc_scaling);
	case VMCS_SECONDARY_CONTROLS: return HAS(vmx_secondary);
	case VMCS_PLE_GAP:
	case VMCS_PLE_WINDOW: return HAS(vmx_ple);
	/* Of features that are not modelled. */
	case VMCS_HLAT_PREFIX_SIZE:
	case VMCS_LAST_PID_POINTER_INDEX:
	case VMCS_ENCLS_EXITING_BITMAP:
	case VMCS_ENCLV_EXITING_BITMAP:
	case VMCS_SPP_TABLE:
	case VMCS_TERTIARY_CONTROLS: return false;
	default: return true;
	}
}

static bool state_exists(const struct cpu *cpu, uint32_t field)
{
	switch (field) {
	case VMCS_GUEST_PHYSICAL_ADDRESS:
	case VMCS_GUEST_PDPTE0:
	case VMCS_GUEST_PDPTE1:
	case VMCS_GUEST_PDPTE2:
	case VMCS_GUEST_PDPTE3: return HAS(vmx_ept);
	case VMCS_GUEST_INTERRUPT_STATUS: return HAS(vmx_virtual_interrupts);
	case VMCS_PML_INDEX: return HAS(vmx_pml);
	case VMCS_GUEST_PAT: return EITHER(vmx_entry_pat, vmx_exit_save_pat);
	case VMCS_GUEST_EFER: return EITHER(vmx_entry_efer, vmx_exit_save_efer);
	case VMCS_PREEMPTION_TIMER: return HAS(vmx_preemption_timer);
	case VMCS_HOST_PAT: return HAS(vmx_exit_load_pat);
	case VMCS_HOST_EFER: return HAS(vmx_exit_load_efer);
	case VMCS_GUEST_UINV:
	case VMCS_GUEST_PERF_GLOBAL_CTRL:
	case VMCS_GUEST_BNDCFGS:
	case VMCS_GUEST_RTIT_CTL:
	case VMCS_GUEST_LBR_CTL:
	case VMCS_GUEST_PKRS:
	case VMCS_GUEST_S_CET:
	case VMCS_GUEST_SSP:
	case VMCS_GUEST_INTERRUPT_SSP_TABLE:
	case VMCS_HOST_PERF_GLOBAL_CTRL:
	case VMCS_HOST_PKRS:
	case VMCS_HOST_S_CET:
	case VMCS_HOST_SSP:
	case VMCS_HOST_INTERRUPT_SSP_TABLE: return false;
	default: return true;
	}
}

bool vmcs_exists(const struct cpu *cpu, uint64_t encoding)
{
	uint32_t field = (uint32_t)encoding;

	if (encoding & VMCS_ENCODING_RESERVED)
		return false;
	if (field & 1) { /* the high half, which 64-bit fields alone have */
		if (VMCS_WIDTH(field) != VMCS_64)
			return false;
		field &= ~1u;
	}
	if (!field_known(field))
		return false;
	return VMCS_TYPE(field) == VMCS_CONTROL ? control_exists(cpu, field) : state_exists(cpu, field);
}

unsigned vmcs_highest_index(const struct cpu *cpu)
{
	static const uint16_t fields[] = {
#define VMCS_FIELD(encoding, name) (encoding),
#include "x86/vmcs_fields.def"
#undef VMCS_FIELD
	};
	unsigned highest = 0;

	for (unsigned i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
		if (vmcs_exists(cpu, fields[i]) && VMCS_INDEX(fields[i]) > highest)
			highest = VMCS_INDEX(fields[i]);
	return highest;
}

/* ---- values ---- */

void vmcs_open(struct cpu *cpu, bool written)
{
	uint64_t vmcs = cpu->msr.vmx_vmcs;

	cpu->vmcs_reads = phys_host(cpu->memory, vmcs, &(struct memory_slot *){NULL});
	cpu->vmcs_stores = written ? phys_write_begin_as(CHECK_LOG_VMCS, cpu->memory, vmcs, VMCS_REGION_SIZE) : NULL;
}

uint64_t vmcs_read_at(struct cpu *cpu, uint64_t vmcs, uint32_t encoding)
{
	return physical_read(cpu, vmcs + vmcs_offset(encoding), vmcs_size(encoding));
}

void vmcs_write_at(struct cpu *cpu, uint64_t vmcs, uint32_t encoding, uint64_t value)
{
	physical_write_as(CHECK_LOG_VMCS, cpu, vmcs + vmcs_offset(encoding), value, vmcs_size(encoding));
}

bool vmcs_launched(struct cpu *cpu, uint64_t vmcs) { return physical_read(cpu, vmcs + LAUNCH_STATE, 4); }

void vmcs_set_launched(struct cpu *cpu, uint64_t vmcs, bool launched)
{
	physical_write_as(CHECK_LOG_VMCS, cpu, vmcs + LAUNCH_STATE, launched, 4);
}

/* Of the region that the address is in, were it not checked to be one's own. */
uint32_t vmcs_revision(struct cpu *cpu, uint64_t vmcs)
{
	return (uint32_t)physical_read(cpu, vmcs & cpu->physical_mask & ~(uint64_t)(VMCS_REGION_SIZE - 1), 4);
}

void vmcs_set_abort(struct cpu *cpu, uint64_t vmcs, enum vmx_abort abort)
{
	physical_write_as(CHECK_LOG_VMCS, cpu, vmcs + VMCS_ABORT_INDICATOR, abort, 4);
}

/* The bitmaps have a bit for each value of an encoding's bits 14:0 (25.6.15). */
bool vmcs_access_exits(struct cpu *cpu, uint64_t encoding, bool write)
{
	uint64_t bitmap = write ? cpu->msr.vmx_vmwrite_bitmap : cpu->msr.vmx_vmread_bitmap;
	bool shadowing = vmx_secondary(cpu, VMX2_VMCS_SHADOWING);

	if (CHECK(VMX_SHADOWING, !shadowing) || CHECK(VMX_SHADOW_ENCODING, encoding >> 15))
		return true;
	return CHECK(VMX_SHADOW_BITMAP,
		     physical_read(cpu, bitmap + (encoding >> 3 & 0xfff), 1) >> (encoding & 7) & 1);
}

bool vmcs_address_valid(const struct cpu *cpu, uint64_t address)
{
	return !(address & (VMCS_REGION_SIZE - 1)) && !(address & ~cpu->physical_mask);
}

/* ---- how an instruction ends (31.2): the status flags, all of which it writes ---- */

void vmx_succeed(struct cpu *cpu) { flags_set(&cpu->lazy, 0); }

void vmx_fail_invalid(struct cpu *cpu) { flags_set(&cpu->lazy, RFLAGS_CF); }

void vmx_fail(struct cpu *cpu, enum vmx_error error)
{
	if (cpu->msr.vmx_vmcs == VMX_NO_VMCS) {
		vmx_fail_invalid(cpu);
		return;
	}
	flags_set(&cpu->lazy, RFLAGS_ZF);
	vmcs_write(cpu, VMCS_INSTRUCTION_ERROR, error);
}
