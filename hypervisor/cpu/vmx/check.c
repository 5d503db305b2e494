/*
 * check.c: VM entry's checks of the controls and of the host's state (SDM 3C 27.2.1 to 27.2.4), in the
 * manual's order, which a processor need not keep. check_guest.c has those of the guest's state.
 *
 * "Entry to SMM" and "deactivate dual-monitor treatment" are reserved here, as what they ask for does not
 * exist.
 */
#include "cpu/checks.h"
#include "cpu/control.h"
#include "cpu/mem/mem.h"
#include "cpu/vmx/check.h"

/* The address in the field is of a page. The two checks are NAME_ALIGNED and NAME_WIDTH. */
#define BAD_PAGE(NAME, field)                                                                                \
	(CHECK(NAME##_ALIGNED, vmcs_read(cpu, (field)) & 0xfff) ||                                           \
	 CHECK(NAME##_WIDTH, vmcs_read(cpu, (field)) & ~cpu->physical_mask))

struct vmx_entry_controls vmx_entry_controls(struct cpu *cpu)
{
	struct vmx_entry_controls c = {
		.pin = (uint32_t)vmcs_read(cpu, VMCS_PIN_CONTROLS),
		.primary = (uint32_t)vmcs_read(cpu, VMCS_PRIMARY_CONTROLS),
		.exit = (uint32_t)vmcs_read(cpu, VMCS_EXIT_CONTROLS),
		.entry = (uint32_t)vmcs_read(cpu, VMCS_ENTRY_CONTROLS),
	};

	if (c.primary & VMX_ACTIVATE_SECONDARY)
		c.secondary = (uint32_t)vmcs_read(cpu, VMCS_SECONDARY_CONTROLS);
	return c;
}

/* ---- VM-execution controls (27.2.1.1) ---- */

static bool reserved(const struct cpu *cpu, enum vmx_controls which, uint32_t value)
{
	return ~value & vmx_must_be_1(cpu, which) || value & ~vmx_may_be_1(cpu, which);
}

static bool execution_controls_valid(struct cpu *cpu, const struct vmx_entry_controls *c)
{
	if (CHECK(VMX_PIN_RESERVED, reserved(cpu, VMX_CONTROLS_PIN, c->pin)))
		return false;
	if (CHECK(VMX_PRIMARY_RESERVED, reserved(cpu, VMX_CONTROLS_PRIMARY, c->primary)))
		return false;
	if (CHECK(VMX_SECONDARY_RESERVED, reserved(cpu, VMX_CONTROLS_SECONDARY, c->secondary)))
		return false;
	return !CHECK(VMX_CR3_TARGET_COUNT, vmcs_read(cpu, VMCS_CR3_TARGET_COUNT) > VMX_CR3_TARGETS);
}

static bool bitmaps_valid(struct cpu *cpu, const struct vmx_entry_controls *c)
{
	if (c->primary & VMX_USE_IO_BITMAPS &&
	    (BAD_PAGE(VMX_IO_BITMAP_A, VMCS_IO_BITMAP_A) || BAD_PAGE(VMX_IO_BITMAP_B, VMCS_IO_BITMAP_B)))
		return false;
	if (c->primary & VMX_USE_MSR_BITMAPS && BAD_PAGE(VMX_MSR_BITMAP, VMCS_MSR_BITMAP))
		return false;
	if (!(c->secondary & VMX2_VMCS_SHADOWING))
		return true;
	return !BAD_PAGE(VMX_VMREAD_BITMAP, VMCS_VMREAD_BITMAP) &&
	       !BAD_PAGE(VMX_VMWRITE_BITMAP, VMCS_VMWRITE_BITMAP);
}

/* The threshold counts where no virtual interrupts are delivered; bytes 3:1 of VTPR are left as they are. */
static bool tpr_threshold_valid(struct cpu *cpu, const struct vmx_entry_controls *c)
{
	uint64_t threshold = vmcs_read(cpu, VMCS_TPR_THRESHOLD), vtpr;

	if (c->secondary & VMX2_VIRTUAL_INTERRUPTS)
		return true;
	if (CHECK(VMX_TPR_THRESHOLD_RESERVED, threshold >> 4))
		return false;
	vtpr = physical_read(cpu, (vmcs_read(cpu, VMCS_VIRTUAL_APIC) & cpu->physical_mask) + VMX_VTPR, 1);
	return !CHECK(VMX_TPR_THRESHOLD_VTPR,
		      !(c->secondary & VMX2_VIRTUALIZE_APIC) && (threshold & 0xf) > vtpr >> 4);
}

static bool virtual_apic_valid(struct cpu *cpu, const struct vmx_entry_controls *c)
{
	if (c->primary & VMX_TPR_SHADOW)
		return !BAD_PAGE(VMX_VIRTUAL_APIC, VMCS_VIRTUAL_APIC) && tpr_threshold_valid(cpu, c);
	if (CHECK(VMX_X2APIC_TPR_SHADOW, c->secondary & VMX2_VIRTUALIZE_X2APIC))
		return false;
	if (CHECK(VMX_APIC_REGISTERS_TPR_SHADOW, c->secondary & VMX2_APIC_REGISTERS))
		return false;
	return !CHECK(VMX_VIRTUAL_INTERRUPTS_TPR_SHADOW, c->secondary & VMX2_VIRTUAL_INTERRUPTS);
}

static bool nmi_controls_valid(const struct vmx_entry_controls *c)
{
	if (CHECK(VMX_VIRTUAL_NMIS_EXITING, c->pin & VMX_PIN_VIRTUAL_NMIS && !(c->pin & VMX_PIN_NMI)))
		return false;
	return !CHECK(VMX_NMI_WINDOW_VIRTUAL,
		      c->primary & VMX_NMI_WINDOW && !(c->pin & VMX_PIN_VIRTUAL_NMIS));
}

static bool posted_interrupts_valid(struct cpu *cpu, const struct vmx_entry_controls *c)
{
	uint64_t descriptor;

	if (!(c->pin & VMX_PIN_POSTED_INTERRUPTS))
		return true;
	if (CHECK(VMX_POSTED_VIRTUAL_INTERRUPTS, !(c->secondary & VMX2_VIRTUAL_INTERRUPTS)))
		return false;
	if (CHECK(VMX_POSTED_ACKNOWLEDGE, !(c->exit & VMX_EXIT_ACKNOWLEDGE)))
		return false;
	if (CHECK(VMX_POSTED_VECTOR_UPPER, vmcs_read(cpu, VMCS_POSTED_INTERRUPT_VECTOR) >> 8))
		return false;
	descriptor = vmcs_read(cpu, VMCS_POSTED_INTERRUPT_DESCRIPTOR);
	if (CHECK(VMX_POSTED_DESCRIPTOR_ALIGNED, descriptor & 0x3f))
		return false;
	return !CHECK(VMX_POSTED_DESCRIPTOR_WIDTH, descriptor & ~cpu->physical_mask);
}

static bool apic_controls_valid(struct cpu *cpu, const struct vmx_entry_controls *c)
{
	if (!virtual_apic_valid(cpu, c))
		return false;
	if (c->secondary & VMX2_VIRTUALIZE_APIC && BAD_PAGE(VMX_APIC_ACCESS, VMCS_APIC_ACCESS))
		return false;
	if (CHECK(VMX_X2APIC_APIC_ACCESS,
		  c->secondary & VMX2_VIRTUALIZE_X2APIC && c->secondary & VMX2_VIRTUALIZE_APIC))
		return false;
	if (CHECK(VMX_VIRTUAL_INTERRUPTS_EXITING,
		  c->secondary & VMX2_VIRTUAL_INTERRUPTS && !(c->pin & VMX_PIN_EXTERNAL_INTERRUPT)))
		return false;
	return posted_interrupts_valid(cpu, c);
}

static bool ept_controls_valid(struct cpu *cpu, const struct vmx_entry_controls *c)
{
	bool ept = c->secondary & VMX2_EPT;

	if (ept && !vmx_eptp_valid(cpu, vmcs_read(cpu, VMCS_EPTP)))
		return false;
	if (CHECK(VMX_PML_EPT, c->secondary & VMX2_PML && !ept))
		return false;
	if (c->secondary & VMX2_PML && BAD_PAGE(VMX_PML_ADDRESS, VMCS_PML_ADDRESS))
		return false;
	if (CHECK(VMX_UNRESTRICTED_EPT, c->secondary & VMX2_UNRESTRICTED_GUEST && !ept))
		return false;
	if (CHECK(VMX_MODE_BASED_EXECUTE_EPT, c->secondary & VMX2_MODE_BASED_EXECUTE && !ept))
		return false;
	return !(c->secondary & VMX2_EPT_VIOLATION_VE) || !BAD_PAGE(VMX_VE_INFORMATION, VMCS_VE_INFORMATION);
}

static bool vm_functions_valid(struct cpu *cpu, const struct vmx_entry_controls *c)
{
	uint64_t functions,
		known = cpu_has(cpu, FEATURE_vmx_eptp_switching) ? VMX_FUNCTION_EPTP_SWITCHING : 0;

	if (!(c->secondary & VMX2_VM_FUNCTIONS))
		return true;
	functions = vmcs_read(cpu, VMCS_VM_FUNCTIONS);
	if (CHECK(VMX_VM_FUNCTIONS_RESERVED, functions & ~known))
		return false;
	if (!(functions & known & VMX_FUNCTION_EPTP_SWITCHING))
		return true;
	if (CHECK(VMX_EPTP_SWITCHING_EPT, !(c->secondary & VMX2_EPT)))
		return false;
	return !BAD_PAGE(VMX_EPTP_LIST, VMCS_EPTP_LIST);
}

/* ---- VM-exit and VM-entry controls (27.2.1.2, 27.2.1.3) ---- */

/* The MSR list is aligned, and begins and ends within the physical addresses; an empty one is not looked at.
 */
#define BAD_LIST(NAME, field)                                                                                \
	(vmcs_read(cpu, (field##_COUNT)) &&                                                                  \
	 (CHECK(NAME##_ALIGNED, vmcs_read(cpu, (field)) & 0xf) ||                                            \
	  CHECK(NAME##_WIDTH, vmcs_read(cpu, (field)) & ~cpu->physical_mask) ||                              \
	  CHECK(NAME##_END, ends_beyond(cpu, vmcs_read(cpu, (field)), vmcs_read(cpu, (field##_COUNT))))))

static bool ends_beyond(const struct cpu *cpu, uint64_t address, uint64_t count)
{
	return address <= cpu->physical_mask && address + 16 * count - 1 > cpu->physical_mask;
}

static bool exit_controls_valid(struct cpu *cpu, const struct vmx_entry_controls *c)
{
	if (CHECK(VMX_EXIT_RESERVED, reserved(cpu, VMX_CONTROLS_EXIT, c->exit)))
		return false;
	if (CHECK(VMX_EXIT_SAVE_TIMER,
		  c->exit & VMX_EXIT_SAVE_PREEMPTION_TIMER && !(c->pin & VMX_PIN_PREEMPTION_TIMER)))
		return false;
	return !BAD_LIST(VMX_EXIT_STORE_LIST, VMCS_EXIT_MSR_STORE) &&
	       !BAD_LIST(VMX_EXIT_LOAD_LIST, VMCS_EXIT_MSR_LOAD);
}

static bool injection_vector_valid(const struct cpu *cpu, unsigned type, unsigned vector)
{
	bool mtf = cpu_has(cpu, FEATURE_vmx_mtf);

	if (CHECK(VMX_INJECT_TYPE, type == 1 || (type == VMX_EVENT_OTHER && !mtf)))
		return false;
	if (CHECK(VMX_INJECT_NMI_VECTOR, type == VMX_EVENT_NMI && vector != VECTOR_NMI))
		return false;
	if (CHECK(VMX_INJECT_EXCEPTION_VECTOR, type == VMX_EVENT_EXCEPTION && vector > 31))
		return false;
	return !CHECK(VMX_INJECT_OTHER_VECTOR, type == VMX_EVENT_OTHER && vector);
}

/* The exceptions of Intel's processors that have an error code, but for that of CET. */
static bool has_error_code(unsigned vector)
{
	return vector == VECTOR_DF || (vector >= VECTOR_TS && vector <= VECTOR_PF) || vector == VECTOR_AC;
}

/* Whether an error code is there exactly where the exception has one. */
static bool injection_error_code_valid(struct cpu *cpu, const struct vmx_entry_controls *c, uint32_t info)
{
	bool unrestricted = c->secondary & VMX2_UNRESTRICTED_GUEST;
	bool real = unrestricted && !(vmcs_read(cpu, VMCS_GUEST_CR0) & CR0_PE);
	bool exception = VMX_EVENT_TYPE(info) == VMX_EVENT_EXCEPTION, code = info & VMX_EVENT_ERROR_CODE;
	bool has = has_error_code(info & VMX_EVENT_VECTOR);

	if (CHECK(VMX_INJECT_ERROR_CODE_TYPE, code && !exception))
		return false;
	if (CHECK(VMX_INJECT_ERROR_CODE_REAL, code && exception && real))
		return false;
	if (cpu_has(cpu, FEATURE_vmx_any_error) || !exception || real)
		return true;
	if (CHECK(VMX_INJECT_ERROR_CODE_WITHOUT, code && !has))
		return false;
	return !CHECK(VMX_INJECT_ERROR_CODE_MISSING, !code && has);
}

static bool injection_length_valid(struct cpu *cpu, unsigned type)
{
	uint64_t length = vmcs_read(cpu, VMCS_ENTRY_INSTRUCTION_LENGTH);

	if (type != VMX_EVENT_SOFTWARE_INTERRUPT && type != VMX_EVENT_PRIVILEGED_SOFTWARE &&
	    type != VMX_EVENT_SOFTWARE_EXCEPTION)
		return true;
	if (CHECK(VMX_INJECT_LENGTH_0, !length && !cpu_has(cpu, FEATURE_vmx_zero_length)))
		return false;
	return !CHECK(VMX_INJECT_LENGTH_15, length > 15);
}

#define INFO_RESERVED 0x7ffff000u /* 30:12 */

static bool injection_valid(struct cpu *cpu, const struct vmx_entry_controls *c)
{
	uint32_t info = (uint32_t)vmcs_read(cpu, VMCS_ENTRY_INTERRUPTION_INFO);

	if (!(info & VMX_EVENT_VALID))
		return true;
	if (!injection_vector_valid(cpu, VMX_EVENT_TYPE(info), info & VMX_EVENT_VECTOR))
		return false;
	if (!injection_error_code_valid(cpu, c, info))
		return false;
	if (CHECK(VMX_INJECT_RESERVED, info & INFO_RESERVED))
		return false;
	if (CHECK(VMX_INJECT_ERROR_CODE_RESERVED,
		  info & VMX_EVENT_ERROR_CODE && vmcs_read(cpu, VMCS_ENTRY_EXCEPTION_ERROR) >> 16))
		return false;
	return injection_length_valid(cpu, VMX_EVENT_TYPE(info));
}

static bool entry_controls_valid(struct cpu *cpu, const struct vmx_entry_controls *c)
{
	if (CHECK(VMX_ENTRY_RESERVED, reserved(cpu, VMX_CONTROLS_ENTRY, c->entry)))
		return false;
	return injection_valid(cpu, c) && !BAD_LIST(VMX_ENTRY_LOAD_LIST, VMCS_ENTRY_MSR_LOAD);
}

enum vmx_error vmx_check_controls(struct cpu *cpu)
{
	const struct vmx_entry_controls c = vmx_entry_controls(cpu);
	bool valid = execution_controls_valid(cpu, &c) && bitmaps_valid(cpu, &c) && nmi_controls_valid(&c) &&
		     apic_controls_valid(cpu, &c);

	if (CHECK(VMX_VPID_ZERO, c.secondary & VMX2_VPID && !vmcs_read(cpu, VMCS_VPID)))
		valid = false;
	if (CHECK(VMX_TSC_MULTIPLIER_ZERO,
		  c.secondary & VMX2_TSC_SCALING && !vmcs_read(cpu, VMCS_TSC_MULTIPLIER)))
		valid = false;
	valid = valid && ept_controls_valid(cpu, &c) && vm_functions_valid(cpu, &c) &&
		exit_controls_valid(cpu, &c) && entry_controls_valid(cpu, &c);
	return valid ? VMX_ERROR_NONE : VMX_ERROR_ENTRY_CONTROLS;
}

/* ---- the host's state (27.2.2 to 27.2.4) ---- */

bool vmx_canonical(uint64_t linear, unsigned bits)
{
	return (uint64_t)((int64_t)(linear << (64 - bits)) >> (64 - bits)) == linear;
}

static bool canonical(struct cpu *cpu, enum vmcs_field field)
{
	return vmx_canonical(vmcs_read(cpu, field), cpu->profile->linear_bits);
}

bool vmx_pat_valid(uint64_t pat)
{
	for (unsigned i = 0; i < 64; i += 8) {
		unsigned type = pat >> i & 0xff;

		if (type > 7 || type == 2 || type == 3)
			return false;
	}
	return true;
}

/* Whether a 1 of @control and a 1 of @bits of the value contradict each other. */
static bool differ(bool control, uint64_t value, uint64_t bits) { return control != !!(value & bits); }

static bool host_registers_valid(struct cpu *cpu, const struct vmx_entry_controls *c)
{
	bool host_64 = c->exit & VMX_EXIT_HOST_64;
	uint64_t efer = vmcs_read(cpu, VMCS_HOST_EFER);

	if (CHECK(VMX_HOST_CR0, !vmx_cr0_supported(vmcs_read(cpu, VMCS_HOST_CR0), false)))
		return false;
	if (CHECK(VMX_HOST_CR4, !vmx_cr4_valid(cpu, vmcs_read(cpu, VMCS_HOST_CR4))))
		return false;
	if (CHECK(VMX_HOST_CR3, vmcs_read(cpu, VMCS_HOST_CR3) & ~cpu->physical_mask))
		return false;
	if (CHECK(VMX_HOST_SYSENTER_ESP, !canonical(cpu, VMCS_HOST_SYSENTER_ESP)))
		return false;
	if (CHECK(VMX_HOST_SYSENTER_EIP, !canonical(cpu, VMCS_HOST_SYSENTER_EIP)))
		return false;
	if (CHECK(VMX_HOST_PAT, c->exit & VMX_EXIT_LOAD_PAT && !vmx_pat_valid(vmcs_read(cpu, VMCS_HOST_PAT))))
		return false;
	if (!(c->exit & VMX_EXIT_LOAD_EFER))
		return true;
	if (CHECK(VMX_HOST_EFER_RESERVED, efer & ~control_efer_valid(cpu)))
		return false;
	if (CHECK(VMX_HOST_EFER_LMA, differ(host_64, efer, EFER_LMA)))
		return false;
	return !CHECK(VMX_HOST_EFER_LME, differ(host_64, efer, EFER_LME));
}

static bool host_selectors_valid(struct cpu *cpu, const struct vmx_entry_controls *c)
{
	static const enum vmcs_field selectors[] = {VMCS_HOST_ES, VMCS_HOST_CS, VMCS_HOST_SS, VMCS_HOST_DS,
						    VMCS_HOST_FS, VMCS_HOST_GS, VMCS_HOST_TR};
	bool host_64 = c->exit & VMX_EXIT_HOST_64;

	for (unsigned i = 0; i < sizeof(selectors) / sizeof(selectors[0]); i++) {
		uint64_t selector = vmcs_read(cpu, selectors[i]);

		if (CHECK(VMX_HOST_SELECTOR_RPL, selector & SELECTOR_RPL) ||
		    CHECK(VMX_HOST_SELECTOR_TI, selector & SELECTOR_TI))
			return false;
	}
	if (CHECK(VMX_HOST_CS_NULL, !vmcs_read(cpu, VMCS_HOST_CS)))
		return false;
	if (CHECK(VMX_HOST_TR_NULL, !vmcs_read(cpu, VMCS_HOST_TR)))
		return false;
	return !CHECK(VMX_HOST_SS_NULL, !host_64 && !vmcs_read(cpu, VMCS_HOST_SS));
}

static bool host_bases_valid(struct cpu *cpu)
{
	if (CHECK(VMX_HOST_FS_BASE, !canonical(cpu, VMCS_HOST_FS_BASE)))
		return false;
	if (CHECK(VMX_HOST_GS_BASE, !canonical(cpu, VMCS_HOST_GS_BASE)))
		return false;
	if (CHECK(VMX_HOST_GDTR_BASE, !canonical(cpu, VMCS_HOST_GDTR_BASE)))
		return false;
	if (CHECK(VMX_HOST_IDTR_BASE, !canonical(cpu, VMCS_HOST_IDTR_BASE)))
		return false;
	return !CHECK(VMX_HOST_TR_BASE, !canonical(cpu, VMCS_HOST_TR_BASE));
}

/* A 64-bit guest of a 32-bit host is refused by what the mode of now demands of either. */
static bool address_spaces_valid(struct cpu *cpu, const struct vmx_entry_controls *c)
{
	bool host_64 = c->exit & VMX_EXIT_HOST_64, guest_64 = c->entry & VMX_ENTRY_IA32E;
	uint64_t rip = vmcs_read(cpu, VMCS_HOST_RIP), cr4 = vmcs_read(cpu, VMCS_HOST_CR4);

	if (CHECK(VMX_HOST_LEGACY_GUEST_64, !cpu_ia32e(cpu) && guest_64))
		return false;
	if (CHECK(VMX_HOST_LEGACY_HOST_64, !cpu_ia32e(cpu) && host_64))
		return false;
	if (CHECK(VMX_HOST_LONG_HOST_32, cpu_ia32e(cpu) && !host_64))
		return false;
	if (CHECK(VMX_HOST_32_PCIDE, !host_64 && cr4 & CR4_PCIDE))
		return false;
	if (CHECK(VMX_HOST_32_RIP, !host_64 && rip >> 32))
		return false;
	if (CHECK(VMX_HOST_64_PAE, host_64 && !(cr4 & CR4_PAE)))
		return false;
	return !CHECK(VMX_HOST_64_RIP, host_64 && !vmx_canonical(rip, cr4 & CR4_LA57 ? 57 : 48));
}

enum vmx_error vmx_check_host(struct cpu *cpu)
{
	const struct vmx_entry_controls c = vmx_entry_controls(cpu);
	bool valid = host_registers_valid(cpu, &c) && host_selectors_valid(cpu, &c) &&
		     host_bases_valid(cpu) && address_spaces_valid(cpu, &c);

	return valid ? VMX_ERROR_NONE : VMX_ERROR_ENTRY_HOST_STATE;
}
