/* world.c: VM exits: what is told, saved, loaded and left alone (SDM 3C chapter 28). */
#include "cpu/checks.h"
#include "cpu/control.h"
#include "cpu/events.h"
#include "cpu/insn.h"
#include "cpu/mem/mem.h"
#include "cpu/mem/tlb.h"
#include "cpu/mem/walk.h"
#include "cpu/segment.h"
#include "cpu/trace.h"
#include "cpu/vmx/world.h"
#include "x86/msr.h"

static bool exit_control(const struct cpu *cpu, uint32_t bit) { return cpu->msr.vmx_exit_controls & bit; }

/* ---- what both worlds have ---- */

void set_flags(struct cpu *cpu, uint64_t flags)
{
	flags = (flags & RFLAGS_DEFINED) | RFLAGS_FIXED;
	flags_set(&cpu->lazy, flags);
	cpu->rflags = flags;
}

void set_long_mode(struct cpu *cpu, bool on)
{
	uint64_t bits = EFER_LME | EFER_LMA;

	cpu->efer = on ? cpu->efer | bits : cpu->efer & ~bits;
}

/* Nothing that was derived or cached of the other world holds. */
void world_changed(struct cpu *cpu)
{
	cpu->wait.armed = false; /* 28.5.6 */
	cpu->step_tf = false;
	cpu->delivering_depth = 0;
	cpu->smi_io.valid = false;
	cpu_mode_changed(cpu);
	segment_derive_all(cpu);
	trace_mapping_changed(cpu);
}

/* Translations of either world go, but where a VPID keeps them apart (29.4.3.1). */
void drop_translations(struct cpu *cpu)
{
	if (CHECK(TLB_WITHOUT_VPID, !vmx_secondary(cpu, VMX2_VPID)))
		tlb_flush_spaces(cpu, 0, VMX_SPACE_VPIDS);
}

/* ---- MSR lists (25.7.2, 25.8.2, 27.4, 28.4, 28.6): entries of index, reserved doubleword and value ---- */

#define MSR_ENTRY_SIZE 16u

struct msr_entry {
	uint32_t index, reserved;
	uint64_t value;
};

static struct msr_entry msr_entry(struct cpu *cpu, uint64_t list, uint32_t i)
{
	uint64_t at = list + (uint64_t)i * MSR_ENTRY_SIZE, low = physical_read(cpu, at, 8);

	return (struct msr_entry){.index = (uint32_t)low,
				  .reserved = (uint32_t)(low >> 32),
				  .value = physical_read(cpu, at + 8, 8)};
}

/* x2APIC registers, and what only SMM may have. */
static bool msr_never_listed(uint32_t index) { return index >> 8 == 8 || index == MSR_SMM_MONITOR_CTL; }

static bool load_msr(struct cpu *cpu, const struct msr_entry *entry)
{
	bool base = entry->index == MSR_FS_BASE || entry->index == MSR_GS_BASE;

	if (CHECK(VMX_LOAD_BASE, base))
		return false;
	if (CHECK(VMX_LOAD_NEVER, msr_never_listed(entry->index)))
		return false;
	if (CHECK(VMX_LOAD_UPDATE, entry->index == MSR_BIOS_UPDT_TRIG))
		return false;
	if (CHECK(VMX_LOAD_RESERVED, entry->reserved))
		return false;
	bool written = msr_write(cpu, entry->index, entry->value);
	return !CHECK(VMX_LOAD_WRMSR, !written);
}

/* The number of the entry that cannot be loaded, from 1; 0: all were. */
uint32_t load_msrs(struct cpu *cpu, uint64_t list, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		struct msr_entry entry = msr_entry(cpu, list, i);

		if (!load_msr(cpu, &entry))
			return i + 1;
	}
	return 0;
}

static bool store_msr(struct cpu *cpu, uint64_t list, uint32_t i)
{
	struct msr_entry entry = msr_entry(cpu, list, i);
	uint64_t value = 0;

	if (CHECK(VMX_STORE_NEVER, msr_never_listed(entry.index)))
		return false;
	if (CHECK(VMX_STORE_RESERVED, entry.reserved))
		return false;
	bool there = msr_read(cpu, entry.index, &value);
	if (CHECK(VMX_STORE_RDMSR, !there))
		return false;
	physical_write_as(CHECK_LOG_MSR_LIST, cpu, list + (uint64_t)i * MSR_ENTRY_SIZE + 8, value, 8);
	return true;
}

static bool store_msrs(struct cpu *cpu, uint64_t list, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		if (!store_msr(cpu, list, i))
			return false;
	return true;
}

/* A longer list than IA32_VMX_MISC recommends may end in a machine check (A.6). */
bool list_too_long(uint32_t count) { return CHECK(VMX_LIST_LENGTH, count > VMX_MSR_LIST_COUNT); }

/* ---- the host's state (28.5) ---- */

static void load_host_controls(struct cpu *cpu)
{
	bool wide = exit_control(cpu, VMX_EXIT_HOST_64);
	uint64_t cr4 = vmcs_read(cpu, VMCS_HOST_CR4);

	cpu->cr0 = (vmcs_read(cpu, VMCS_HOST_CR0) & ~CR0_KEPT) | (cpu->cr0 & CR0_KEPT);
	cpu->cr3 = vmcs_read(cpu, VMCS_HOST_CR3) & cpu->physical_mask;
	cpu->cr4 = wide ? cr4 | CR4_PAE : cr4 & ~(uint64_t)CR4_PCIDE;
	cpu->dr7 = DR7_FIXED_1;
	cpu->msr.debugctl = 0;
	cpu->msr.sysenter_cs = vmcs_read(cpu, VMCS_HOST_SYSENTER_CS);
	cpu->msr.sysenter_esp = vmcs_read(cpu, VMCS_HOST_SYSENTER_ESP);
	cpu->msr.sysenter_eip = vmcs_read(cpu, VMCS_HOST_SYSENTER_EIP);
	if (exit_control(cpu, VMX_EXIT_LOAD_EFER))
		cpu->efer = vmcs_read(cpu, VMCS_HOST_EFER);
	set_long_mode(cpu, wide);
	if (exit_control(cpu, VMX_EXIT_LOAD_PAT))
		cpu->msr.pat = vmcs_read(cpu, VMCS_HOST_PAT);
}

#define HOST_DATA (SEG_P | SEG_S | SEG_WRITABLE | SEG_ACCESSED | SEG_DB | SEG_G)
#define HOST_CODE (SEG_P | SEG_S | SEG_CODE | SEG_READABLE | SEG_ACCESSED | SEG_G)

/* Selectors, and some bases, are the host's; the rest is fixed (28.5.2). */
static void load_host_segments(struct cpu *cpu)
{
	bool wide = exit_control(cpu, VMX_EXIT_HOST_64);

	for (unsigned i = ES; i < SEGMENT_COUNT; i++) {
		uint16_t selector = (uint16_t)vmcs_read(cpu, indexed(VMCS_HOST_ES, i));

		cpu->segment[i].s = (struct segment){.selector = selector,
						     .limit = 0xffffffff,
						     .attributes = HOST_DATA | (selector ? 0 : SEG_UNUSABLE)};
	}
	cpu->segment[CS].s.attributes = HOST_CODE | (wide ? SEG_L : SEG_DB);
	cpu->segment[FS].s.base = vmcs_read(cpu, VMCS_HOST_FS_BASE);
	cpu->segment[GS].s.base = vmcs_read(cpu, VMCS_HOST_GS_BASE);
	cpu->tr.s = (struct segment){.selector = (uint16_t)vmcs_read(cpu, VMCS_HOST_TR),
				     .base = vmcs_read(cpu, VMCS_HOST_TR_BASE),
				     .limit = 0x67,
				     .attributes = SEG_P | TYPE_TSS_BUSY};
	cpu->ldtr.s = (struct segment){.attributes = SEG_UNUSABLE};
	cpu->gdtr = (struct table_register){.base = vmcs_read(cpu, VMCS_HOST_GDTR_BASE), .limit = 0xffff};
	cpu->idtr = (struct table_register){.base = vmcs_read(cpu, VMCS_HOST_IDTR_BASE), .limit = 0xffff};
}

/* The controls of the guest leave the processor. NMIs are as they are: with virtual NMIs none is blocked. */
static void leave_guest(struct cpu *cpu)
{
	struct vcpu_state *m = &cpu->msr;

	m->vmx_guest = false;
	m->vmx_mtf_pending = m->vmx_virtual_nmi_blocked = false;
	m->vmx_sipi = 0;
	cpu->injecting = cpu->nmi_unblocked = false;
	cpu->shadow = cpu->shadow_was = SHADOW_NONE;
	cpu->resume_was = 0;
	cpu->dr6_pending = 0;
	cpu->activity = ACTIVITY_ACTIVE;
}

/* 28.7: the indicator, and a shutdown that only RESET ends. */
void abort_exit(struct cpu *cpu, enum vmx_abort abort)
{
	vmcs_set_abort(cpu, cpu->msr.vmx_vmcs, abort);
	cpu->activity = ACTIVITY_SHUTDOWN;
}

static enum vmx_abort load_host_msrs(struct cpu *cpu)
{
	uint32_t count = (uint32_t)vmcs_read(cpu, VMCS_EXIT_MSR_LOAD_COUNT);

	if (list_too_long(count))
		return VMX_ABORT_MACHINE_CHECK;
	if (CHECK(VMX_ABORT_LOADING, load_msrs(cpu, vmcs_read(cpu, VMCS_EXIT_MSR_LOAD), count) != 0))
		return VMX_ABORT_LOADING_MSRS;
	return 0;
}

/* The rest of an exit, or of a VM entry that fails, once the guest is out. 0, or why it aborts. */
enum vmx_abort load_host(struct cpu *cpu)
{
	enum vmx_abort abort;

	leave_guest(cpu);
	load_host_controls(cpu);
	load_host_segments(cpu);
	cpu->rip = vmcs_read(cpu, VMCS_HOST_RIP);
	cpu->reg[RSP] = vmcs_read(cpu, VMCS_HOST_RSP);
	set_flags(cpu, 0);
	world_changed(cpu);
	drop_translations(cpu);
	if (pae_paging(cpu)) {
		bool valid = pdptes_load(cpu, cpu->cr3);

		if (CHECK(VMX_ABORT_PDPTE, !valid))
			return VMX_ABORT_HOST_PDPTE;
	}
	abort = load_host_msrs(cpu);
	world_changed(cpu);
	return abort;
}

/* ---- VM exit: what it tells (28.2) ---- */

/* Whether the exit happened while an event was delivered; what it does not count as that has ended the
 * delivery. */
static void save_vectoring(struct cpu *cpu)
{
	bool delivering = CHECK(VMX_IDT_VECTORING, cpu->delivering_depth > 0);
	uint32_t info = delivering ? vmx_event_info(cpu, &cpu->delivering) : 0;

	vmcs_write(cpu, VMCS_IDT_VECTORING_INFO, info);
	vmcs_write(cpu, VMCS_IDT_VECTORING_ERROR,
		   info & VMX_EVENT_ERROR_CODE ? cpu->delivering.error_code : 0);
}

/* INT n, INT1, INT3 and INTO have a length while they are delivered as well (28.2.5). */
static uint32_t vectoring_length(const struct cpu *cpu)
{
	switch (cpu->delivering_depth ? cpu->delivering.kind : EVENT_NONE) {
	case EVENT_SOFTWARE_INTERRUPT:
	case EVENT_SOFTWARE_EXCEPTION:
	case EVENT_PRIVILEGED_SOFTWARE_EXCEPTION:
		return (uint32_t)(cpu->delivering.return_rip - cpu->rip) & 0xf;
	default: return 0;
	}
}

static void save_information(struct cpu *cpu, const struct vmx_exit_info *info)
{
	vmcs_write(cpu, VMCS_EXIT_REASON, info->reason);
	vmcs_write(cpu, VMCS_EXIT_QUALIFICATION, info->qualification);
	vmcs_write(cpu, VMCS_GUEST_LINEAR_ADDRESS, info->linear);
	if (cpu_has(cpu, FEATURE_vmx_ept))
		vmcs_write(cpu, VMCS_GUEST_PHYSICAL_ADDRESS, info->physical);
	vmcs_write(cpu, VMCS_EXIT_INTERRUPTION_INFO, info->interruption);
	vmcs_write(cpu, VMCS_EXIT_INTERRUPTION_ERROR, info->interruption_error);
	save_vectoring(cpu);
	vmcs_write(cpu, VMCS_EXIT_INSTRUCTION_LENGTH, info->length ? info->length : vectoring_length(cpu));
	vmcs_write(cpu, VMCS_EXIT_INSTRUCTION_INFO, info->instruction_info);
	vmcs_write(cpu, VMCS_ENTRY_INTERRUPTION_INFO,
		   vmcs_read(cpu, VMCS_ENTRY_INTERRUPTION_INFO) & ~(uint64_t)VMX_EVENT_VALID);
}

/* ---- VM exit: the guest's state (28.3) ---- */

static void save_controls(struct cpu *cpu)
{
	vmcs_write(cpu, VMCS_GUEST_CR0, cpu->cr0);
	vmcs_write(cpu, VMCS_GUEST_CR3, cpu->cr3);
	vmcs_write(cpu, VMCS_GUEST_CR4, cpu->cr4);
	vmcs_write(cpu, VMCS_GUEST_SYSENTER_CS, cpu->msr.sysenter_cs);
	vmcs_write(cpu, VMCS_GUEST_SYSENTER_ESP, cpu->msr.sysenter_esp);
	vmcs_write(cpu, VMCS_GUEST_SYSENTER_EIP, cpu->msr.sysenter_eip);
	if (exit_control(cpu, VMX_EXIT_SAVE_DEBUG)) {
		vmcs_write(cpu, VMCS_GUEST_DR7, cpu->dr7);
		vmcs_write(cpu, VMCS_GUEST_DEBUGCTL, cpu->msr.debugctl);
	}
	if (exit_control(cpu, VMX_EXIT_SAVE_PAT))
		vmcs_write(cpu, VMCS_GUEST_PAT, cpu->msr.pat);
	if (exit_control(cpu, VMX_EXIT_SAVE_EFER))
		vmcs_write(cpu, VMCS_GUEST_EFER, cpu->efer);
	/* The processor keeps the control as the mode is (28.2). */
	vmcs_write(cpu, VMCS_ENTRY_CONTROLS,
		   (cpu->msr.vmx_entry_controls & ~VMX_ENTRY_IA32E) | (cpu_ia32e(cpu) ? VMX_ENTRY_IA32E : 0));
}

static void save_segments(struct cpu *cpu)
{
	for (unsigned i = 0; i < SEGMENTS; i++) {
		const struct segment *s = segment_at(cpu, i);

		vmcs_write(cpu, indexed(VMCS_GUEST_ES, i), s->selector);
		vmcs_write(cpu, indexed(VMCS_GUEST_ES_LIMIT, i), s->limit);
		vmcs_write(cpu, indexed(VMCS_GUEST_ES_RIGHTS, i), s->attributes & SEGMENT_RIGHTS);
		vmcs_write(cpu, indexed(VMCS_GUEST_ES_BASE, i), s->base);
	}
}

static void save_tables(struct cpu *cpu)
{
	vmcs_write(cpu, VMCS_GUEST_GDTR_BASE, cpu->gdtr.base);
	vmcs_write(cpu, VMCS_GUEST_GDTR_LIMIT, cpu->gdtr.limit);
	vmcs_write(cpu, VMCS_GUEST_IDTR_BASE, cpu->idtr.base);
	vmcs_write(cpu, VMCS_GUEST_IDTR_LIMIT, cpu->idtr.limit);
}

static uint32_t activity_state(const struct cpu *cpu)
{
	switch (cpu->delivering_depth ? ACTIVITY_ACTIVE : cpu->activity) {
	case ACTIVITY_HLT: return VMX_HALTED;
	case ACTIVITY_SHUTDOWN: return VMX_SHUTDOWN;
	case ACTIVITY_WAIT_FOR_SIPI: return VMX_WAIT_FOR_SIPI;
	default: return VMX_ACTIVE;
	}
}

/* An instruction that did not complete is still in its shadow. */
static enum shadow shadow_state(const struct cpu *cpu, const struct vmx_exit_info *info)
{
	if (cpu->delivering_depth)
		return SHADOW_NONE;
	return cpu->shadow_was != SHADOW_NONE && !info->trap ? cpu->shadow_was : cpu->shadow;
}

static uint32_t interruptibility_state(const struct cpu *cpu, const struct vmx_exit_info *info)
{
	enum shadow shadow = shadow_state(cpu, info);
	uint32_t state = 0;

	if (shadow == SHADOW_STI)
		state |= VMX_BLOCKING_STI;
	if (shadow == SHADOW_MOV_SS)
		state |= VMX_BLOCKING_MOV_SS;
	if (vmx_pin(cpu, VMX_PIN_VIRTUAL_NMIS) ? cpu->msr.vmx_virtual_nmi_blocked : cpu->nmi_blocked)
		state |= VMX_BLOCKING_NMI;
	return state;
}

static bool breakpoint_enabled(const struct cpu *cpu, uint64_t hits)
{
	for (unsigned n = 0; n < 4; n++)
		if (hits >> n & 1 && cpu->dr7 & (DR7_L(n) | DR7_G(n)))
			return true;
	return false;
}

/* What was pending, where the exit comes before it (@info->trap) or MOV SS holds it off; else nothing
 * (28.3.4). */
static uint64_t pending_debug(const struct cpu *cpu, const struct vmx_exit_info *info)
{
	uint64_t pending = cpu->dr6_pending & (VMX_PENDING_BS | 0xf);
	bool held = shadow_state(cpu, info) == SHADOW_MOV_SS && !cpu->delivering_depth &&
		    !(info->interruption & VMX_EVENT_VALID);

	if (!CHECK(VMX_PENDING_SAVED, info->trap || held))
		return 0;
	/* MOV SS has held off its own single step, which the next entry asks for (27.3.1.5). */
	if (cpu->step_tf && (info->trap || held))
		pending |= VMX_PENDING_BS;
	if (breakpoint_enabled(cpu, pending))
		pending |= VMX_PENDING_ENABLED_BREAKPOINT;
	return pending;
}

static void save_pdptes(struct cpu *cpu)
{
	if (!vmx_secondary(cpu, VMX2_EPT) || !pae_paging(cpu))
		return;
	for (unsigned i = 0; i < 4; i++)
		vmcs_write(cpu, indexed(VMCS_GUEST_PDPTE0, i), cpu->pdpte[i]);
}

static void save_rest(struct cpu *cpu, const struct vmx_exit_info *info)
{
	vmcs_write(cpu, VMCS_GUEST_ACTIVITY, activity_state(cpu));
	vmcs_write(cpu, VMCS_GUEST_INTERRUPTIBILITY, interruptibility_state(cpu, info));
	vmcs_write(cpu, VMCS_GUEST_PENDING_DEBUG, pending_debug(cpu, info));
	if (exit_control(cpu, VMX_EXIT_SAVE_PREEMPTION_TIMER))
		vmcs_write(cpu, VMCS_PREEMPTION_TIMER, vmx_timer_value(cpu));
	if (vmx_secondary(cpu, VMX2_VIRTUAL_INTERRUPTS))
		vmcs_write(cpu, VMCS_GUEST_INTERRUPT_STATUS, cpu->msr.vmx_interrupt_status);
	if (vmx_secondary(cpu, VMX2_PML))
		vmcs_write(cpu, VMCS_PML_INDEX, cpu->msr.vmx_pml_index);
	save_pdptes(cpu);
}

/*
 * RF, by 28.3.3: of an event, as it would be pushed; 0 of an instruction that exits; 1 of EPT violations and
 * their like, which do not complete; else as it is. What is being delivered says it otherwise.
 */
static uint64_t flags_state(const struct cpu *cpu, const struct vmx_exit_info *info)
{
	uint64_t flags = rflags_get(cpu);

	if (info->rf == VMX_RF_CLEAR)
		return flags & ~(uint64_t)RFLAGS_RF;
	if (info->rf == VMX_RF_RETRY && cpu->delivering_depth)
		return event_flags_image(cpu, &cpu->delivering);
	return info->rf == VMX_RF_KEPT ? flags : flags | RFLAGS_RF;
}

static void save_guest(struct cpu *cpu, const struct vmx_exit_info *info)
{
	save_controls(cpu);
	save_segments(cpu);
	save_tables(cpu);
	vmcs_write(cpu, VMCS_GUEST_RIP, cpu->rip);
	vmcs_write(cpu, VMCS_GUEST_RSP, cpu->reg[RSP]);
	vmcs_write(cpu, VMCS_GUEST_RFLAGS, flags_state(cpu, info));
	save_rest(cpu, info);
}

/* 28.7: a guest of IA-32e mode cannot end in a host that is not in it. */
static bool host_too_narrow(const struct cpu *cpu)
{
	return CHECK(VMX_ABORT_NARROW, cpu_ia32e(cpu) && !exit_control(cpu, VMX_EXIT_HOST_64));
}

void vmx_exit(struct cpu *cpu, const struct vmx_exit_info *info)
{
	enum vmx_abort abort = 0;
	uint32_t count;

	vmcs_open(cpu, true);
	count = (uint32_t)vmcs_read(cpu, VMCS_EXIT_MSR_STORE_COUNT);
	cpu->retired++;
	save_information(cpu, info);
	save_guest(cpu, info);
	vmx_note_exit(cpu, info->reason, info->qualification);
	if (host_too_narrow(cpu))
		abort = VMX_ABORT_NOT_64;
	cpu->msr.vmx_guest = false;
	if (list_too_long(count))
		abort = VMX_ABORT_MACHINE_CHECK;
	else if (!abort && !store_msrs(cpu, vmcs_read(cpu, VMCS_EXIT_MSR_STORE), count))
		abort = VMX_ABORT_SAVING_MSRS;
	if (!abort)
		abort = load_host(cpu);
	vmcs_close(cpu);
	if (abort) {
		leave_guest(cpu);
		abort_exit(cpu, abort);
	}
}

void vmx_exit_insn(struct cpu *cpu, const struct vmx_exit_info *info)
{
	cpu_leave_insn(cpu);
	vmx_exit(cpu, info);
	cpu_switch(cpu);
}

void vmx_reset(struct cpu *cpu)
{
	leave_guest(cpu);
	cpu->msr.vmx_on = cpu->msr.vmx_smm = 0;
}

static const char *exit_name(uint32_t reason)
{
	switch (reason & VMX_EXIT_REASON_MASK) {
#define VMX_EXIT(number, name)                                                                               \
	case number:                                                                                         \
		return #name;
#include "x86/vmx_exits.def"
#undef VMX_EXIT
	default: return "?";
	}
}

void vmx_note_exit(struct cpu *cpu, uint32_t reason, uint64_t qualification)
{
	if (cpu->tracing)
		cpu_note(cpu, "VM exit %s (%#x) %#llx", exit_name(reason), reason,
			 (unsigned long long)qualification);
}
