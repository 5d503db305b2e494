/* events.c: exceptions, interrupts, windows, timers, injection (SDM
 * 3C 25.6.3, 26.2, 26.4, 26.5, 27.6, 27.7, 28.2). */
#include "cpu/checks.h"
#include "cpu/control.h"
#include "cpu/events.h"
#include "cpu/insn.h"
#include "cpu/vmx/vmx.h"

/* ---- interruption information (25.8.3, 25.9.2, 25.9.3) ---- */

static enum vmx_event_type event_type(const struct event *event)
{
	switch (event->kind) {
	case EVENT_EXTERNAL_INTERRUPT: return VMX_EVENT_EXTERNAL;
	case EVENT_NMI: return VMX_EVENT_NMI;
	case EVENT_SOFTWARE_INTERRUPT: return VMX_EVENT_SOFTWARE_INTERRUPT;
	case EVENT_SOFTWARE_EXCEPTION: return VMX_EVENT_SOFTWARE_EXCEPTION;
	case EVENT_PRIVILEGED_SOFTWARE_EXCEPTION: return VMX_EVENT_PRIVILEGED_SOFTWARE;
	default: return VMX_EVENT_EXCEPTION;
	}
}

uint32_t vmx_event_info(const struct cpu *cpu, const struct event *event)
{
	bool error_code = event->has_error_code && !CHECK(VMX_REAL_ERROR_CODE, !cpu_protected(cpu));

	return event->vector | (uint32_t)event_type(event) << VMX_EVENT_TYPE_SHIFT |
	       (error_code ? VMX_EVENT_ERROR_CODE : 0) | VMX_EVENT_VALID;
}

static enum event_kind injected_kind(uint32_t info)
{
	switch (VMX_EVENT_TYPE(info)) {
	case VMX_EVENT_EXTERNAL: return EVENT_EXTERNAL_INTERRUPT;
	case VMX_EVENT_NMI: return EVENT_NMI;
	case VMX_EVENT_SOFTWARE_INTERRUPT: return EVENT_SOFTWARE_INTERRUPT;
	case VMX_EVENT_PRIVILEGED_SOFTWARE: return EVENT_PRIVILEGED_SOFTWARE_EXCEPTION;
	case VMX_EVENT_SOFTWARE_EXCEPTION: return EVENT_SOFTWARE_EXCEPTION;
	case VMX_EVENT_OTHER: return EVENT_NONE;
	default: return EVENT_FAULT;
	}
}

/* INT n and its like return behind the instruction, which is in front of the guest's RIP (27.6.1.1). */
void vmx_parse_injection(struct cpu *cpu, struct event *event)
{
	uint32_t info = (uint32_t)vmcs_read(cpu, VMCS_ENTRY_INTERRUPTION_INFO);
	enum vmx_event_type type = (enum vmx_event_type)VMX_EVENT_TYPE(info);

	*event = (struct event){.kind = EVENT_NONE, .return_rip = cpu->rip, .injected = true};
	if (!(info & VMX_EVENT_VALID))
		return;
	event->kind = injected_kind(info);
	event->vector = (uint8_t)info;
	if (type >= VMX_EVENT_SOFTWARE_INTERRUPT && type <= VMX_EVENT_SOFTWARE_EXCEPTION)
		event->return_rip =
			(cpu->rip + vmcs_read(cpu, VMCS_ENTRY_INSTRUCTION_LENGTH)) & cpu->linear_mask;
	event->has_error_code = info & VMX_EVENT_ERROR_CODE;
	if (event->has_error_code)
		event->error_code = (uint32_t)vmcs_read(cpu, VMCS_ENTRY_EXCEPTION_ERROR);
}

/* ---- exceptions (25.6.3, 26.2) ---- */

/* Of #PF the bit has its sense where the error code matches, and the opposite one where not. */
bool vmx_takes_exception(const struct cpu *cpu, enum vector vector, uint32_t error_code)
{
	bool bit = cpu->msr.vmx_exceptions >> vector & 1;
	bool match = (error_code & cpu->msr.vmx_pf_mask) == cpu->msr.vmx_pf_match;

	if (vector == VECTOR_PF && CHECK(VMX_PF_MATCH, !match))
		bit = !bit;
	return CHECK(VMX_EXCEPTION_BITMAP, bit);
}

/* What a #DB would have left in DR6, which stays as it is (28.2.1). INT1 leaves nothing. */
static uint64_t exception_qualification(const struct cpu *cpu, const struct event *event)
{
	bool hardware = event->kind == EVENT_FAULT || event->kind == EVENT_TRAP;

	if (event->vector == VECTOR_PF)
		return cpu->fault_address;
	return event->vector == VECTOR_DB && hardware ? cpu->dr6_pending & (DR6_BS | DR6_BD | 0xf) : 0;
}

/* INT1, INT3 and INTO are told with their length (28.2.5). */
static uint32_t exception_length(const struct cpu *cpu, const struct event *event)
{
	bool software =
		event->kind == EVENT_SOFTWARE_EXCEPTION || event->kind == EVENT_PRIVILEGED_SOFTWARE_EXCEPTION;

	return software ? (uint32_t)(event->return_rip - cpu->rip) & 0xf : 0;
}

/* A fault of IRET after it has unblocked NMIs; a code breakpoint comes before that (28.2.2). */
static bool nmi_unblocked(const struct cpu *cpu, const struct event *event)
{
	bool counts = !cpu->delivering_depth && event->vector != VECTOR_DF;

	return CHECK(VMX_NMI_UNBLOCKED, cpu->nmi_unblocked && counts);
}

/* Faults would push RF = 1, but for a code breakpoint, which goes on as a trap (28.3.3). */
static enum vmx_rf exception_rf(const struct cpu *cpu, const struct event *event)
{
	bool code_breakpoint = event->vector == VECTOR_DB && !(cpu->dr6_pending & DR6_BD);

	if (event->kind == EVENT_FAULT)
		return code_breakpoint ? VMX_RF_KEPT : VMX_RF_SET;
	return event->kind == EVENT_TRAP ? VMX_RF_KEPT : VMX_RF_CLEAR;
}

bool vmx_take_exception(struct cpu *cpu, struct event *event)
{
	struct vmx_exit_info info = {.reason = VMX_EXIT_EXCEPTION_NMI};

	if (event->kind == EVENT_SOFTWARE_INTERRUPT || event->kind == EVENT_EXTERNAL_INTERRUPT ||
	    event->kind == EVENT_NMI || event->vector > 31)
		return false;
	if (!vmx_takes_exception(cpu, (enum vector)event->vector, event->error_code))
		return false;
	/* A double fault that exits ends the delivery that it came from (28.2.4). */
	if (CHECK(VMX_DOUBLE_FAULT_DIRECT, event->vector == VECTOR_DF))
		cpu->delivering_depth = 0;
	info.qualification = exception_qualification(cpu, event);
	info.interruption = vmx_event_info(cpu, event);
	if (nmi_unblocked(cpu, event))
		info.interruption |= VMX_EVENT_NMI_UNBLOCKED;
	if (info.interruption & VMX_EVENT_ERROR_CODE)
		info.interruption_error = event->error_code;
	info.length = exception_length(cpu, event);
	info.rf = exception_rf(cpu, event);
	vmx_exit(cpu, &info);
	return true;
}

/* Not during the delivery of an event either (28.2.4). */
bool vmx_take_triple_fault(struct cpu *cpu)
{
	struct vmx_exit_info info = {.reason = VMX_EXIT_TRIPLE_FAULT};

	cpu->delivering_depth = 0;
	vmx_exit(cpu, &info);
	return true;
}

/* ---- interrupts from outside (26.2) ---- */

/* 27.7.2: shutdown and wait-for-SIPI block them. */
bool vmx_interrupts_open(const struct cpu *cpu)
{
	if (CHECK(VMX_INACTIVE_INTERRUPT,
		  cpu->activity == ACTIVITY_SHUTDOWN || cpu->activity == ACTIVITY_WAIT_FOR_SIPI))
		return false;
	return CHECK(VMX_INTERRUPT_IF, vmx_pin(cpu, VMX_PIN_EXTERNAL_INTERRUPT)) || cpu->rflags & RFLAGS_IF;
}

/* A notification of posted interrupts is no exit (30.6). */
bool vmx_take_interrupt(struct cpu *cpu)
{
	struct vmx_exit_info info = {.reason = VMX_EXIT_EXTERNAL_INTERRUPT};
	struct event event = {.kind = EVENT_EXTERNAL_INTERRUPT};

	if (!CHECK(VMX_EXTERNAL_INTERRUPT, vmx_pin(cpu, VMX_PIN_EXTERNAL_INTERRUPT)))
		return false;
	if (CHECK(VMX_ACKNOWLEDGE, cpu->msr.vmx_exit_controls & VMX_EXIT_ACKNOWLEDGE)) {
		int vector =
			cpu->bus.interrupt_acknowledge ? cpu->bus.interrupt_acknowledge(cpu->bus.owner) : -1;

		if (vector < 0)
			return false;
		event.vector = (uint8_t)vector;
		if (vmx_pin(cpu, VMX_PIN_POSTED_INTERRUPTS) && vmx_posted_interrupt(cpu, event.vector))
			return true;
		info.interruption = vmx_event_info(cpu, &event);
	}
	vmx_exit(cpu, &info);
	return true;
}

/* The host finds NMIs blocked (28.5.5). */
bool vmx_take_nmi(struct cpu *cpu)
{
	struct vmx_exit_info info = {.reason = VMX_EXIT_EXCEPTION_NMI};
	struct event event = {.kind = EVENT_NMI, .vector = VECTOR_NMI};

	if (!CHECK(VMX_NMI_EXITING, vmx_pin(cpu, VMX_PIN_NMI)))
		return false;
	cpu->nmi_pending = false;
	info.interruption = vmx_event_info(cpu, &event);
	vmx_exit(cpu, &info);
	cpu->nmi_blocked = true;
	return true;
}

bool vmx_blocks_init(const struct cpu *cpu)
{
	if (!vmx_guest(cpu))
		return CHECK(VMX_INIT, true);
	return CHECK(VMX_INIT_SIPI, cpu->activity == ACTIVITY_WAIT_FOR_SIPI);
}

bool vmx_take_init(struct cpu *cpu)
{
	struct vmx_exit_info info = {.reason = VMX_EXIT_INIT, .trap = true};

	cpu->init_pending = false;
	vmx_exit(cpu, &info);
	return true;
}

#define SIPI_LATCHED 0x100u /* in vmx_sipi, with the vector */

void vmx_note_sipi(struct cpu *cpu, uint8_t vector) { cpu->msr.vmx_sipi = (uint16_t)(SIPI_LATCHED | vector); }

static bool take_sipi(struct cpu *cpu)
{
	struct vmx_exit_info info = {.reason = VMX_EXIT_SIPI, .qualification = cpu->msr.vmx_sipi & 0xff};

	if (likely(!cpu->msr.vmx_sipi))
		return false;
	vmx_exit(cpu, &info);
	return true;
}

/* ---- NMI blocking (26.3, 26.4.1) ---- */

void vmx_iret_begins(struct cpu *cpu)
{
	if (vmx_pin(cpu, VMX_PIN_VIRTUAL_NMIS)) {
		cpu->nmi_unblocked = cpu->msr.vmx_virtual_nmi_blocked;
		if (CHECK(VMX_VIRTUAL_NMI_IRET, true))
			cpu->msr.vmx_virtual_nmi_blocked = false;
		return;
	}
	cpu->nmi_unblocked = cpu->nmi_blocked;
	if (!CHECK(VMX_NMI_IRET, vmx_pin(cpu, VMX_PIN_NMI)))
		cpu->nmi_blocked = false;
}

/* ---- the preemption timer (26.5.1): it counts each change of a bit of the TSC ---- */

void vmx_timer_start(struct cpu *cpu)
{
	if (!vmx_pin(cpu, VMX_PIN_PREEMPTION_TIMER))
		return;
	cpu->msr.vmx_timer_end =
		((control_tsc(cpu) >> VMX_TIMER_SHIFT) + vmcs_read(cpu, VMCS_PREEMPTION_TIMER))
		<< VMX_TIMER_SHIFT;
	cpu_set_event_at(cpu, cpu->event_at);
}

uint32_t vmx_timer_value(const struct cpu *cpu)
{
	uint64_t now = control_tsc(cpu) >> VMX_TIMER_SHIFT, end = cpu->msr.vmx_timer_end >> VMX_TIMER_SHIFT;

	return now < end ? (uint32_t)(end - now) : 0;
}

static bool timer_runs(const struct cpu *cpu)
{
	return vmx_pin(cpu, VMX_PIN_PREEMPTION_TIMER) && cpu->activity != ACTIVITY_WAIT_FOR_SIPI;
}

/* It stops in wait-for-SIPI only as far as exits go. */
static bool timer_expired(const struct cpu *cpu)
{
	return CHECK(VMX_TIMER, timer_runs(cpu) && !vmx_timer_value(cpu));
}

uint64_t vmx_timer_due(const struct cpu *cpu)
{
	return timer_runs(cpu) ? cpu->msr.vmx_timer_end - cpu->tsc_offset : UINT64_MAX;
}

/* ---- windows (26.2) ---- */

/* Neither shutdown nor wait-for-SIPI has one (27.7.5). */
static bool interrupt_window(const struct cpu *cpu)
{
	if (!vmx_primary(cpu, VMX_INTERRUPT_WINDOW) || !(cpu->rflags & RFLAGS_IF))
		return false;
	return CHECK(VMX_INTERRUPT_WINDOW_OPEN,
		     cpu->activity != ACTIVITY_SHUTDOWN && cpu->activity != ACTIVITY_WAIT_FOR_SIPI);
}

/* Shutdown has one, wait-for-SIPI does not (27.7.6). */
static bool nmi_window(const struct cpu *cpu)
{
	if (!vmx_primary(cpu, VMX_NMI_WINDOW) || cpu->activity == ACTIVITY_WAIT_FOR_SIPI)
		return false;
	return CHECK(VMX_NMI_WINDOW_OPEN, !cpu->msr.vmx_virtual_nmi_blocked);
}

static bool virtual_interrupt(const struct cpu *cpu)
{
	return vmx_secondary(cpu, VMX2_VIRTUAL_INTERRUPTS) && cpu->activity != ACTIVITY_SHUTDOWN &&
	       cpu->activity != ACTIVITY_WAIT_FOR_SIPI && vmx_virtual_interrupt_pending(cpu);
}

/* ---- between two instructions ---- */

static bool before_traps(const struct cpu *cpu)
{
	return cpu->msr.vmx_mtf_pending || cpu->msr.vmx_sipi || vmx_apic_due(cpu);
}

bool vmx_pending(const struct cpu *cpu)
{
	return before_traps(cpu) || timer_expired(cpu) || nmi_window(cpu) || interrupt_window(cpu) ||
	       virtual_interrupt(cpu);
}

bool vmx_must_look(const struct cpu *cpu) { return vmx_pending(cpu); }

/* A write to the APIC-access page is emulated behind its instruction (30.4.3.2), wherever in a trace that
 * stands. */
bool vmx_must_step(const struct cpu *cpu)
{
	return vmx_primary(cpu, VMX_MONITOR_TRAP_FLAG) || vmx_secondary(cpu, VMX2_VIRTUALIZE_APIC);
}

bool vmx_boundary(struct cpu *cpu)
{
	if (CHECK(VMX_MTF, vmx_primary(cpu, VMX_MONITOR_TRAP_FLAG)))
		cpu->msr.vmx_mtf_pending = true;
	return before_traps(cpu);
}

bool vmx_take_before_traps(struct cpu *cpu)
{
	struct vmx_exit_info info = {.reason = VMX_EXIT_MONITOR_TRAP_FLAG, .trap = true};

	if (take_sipi(cpu))
		return true;
	if (vmx_apic_due(cpu) && vmx_apic_write_due(cpu))
		return true;
	if (likely(!cpu->msr.vmx_mtf_pending))
		return false;
	vmx_exit(cpu, &info);
	return true;
}

bool vmx_take_before_nmi(struct cpu *cpu)
{
	struct vmx_exit_info info = {.reason = VMX_EXIT_PREEMPTION_TIMER};

	if (timer_expired(cpu)) {
		vmx_exit(cpu, &info);
		return true;
	}
	if (!nmi_window(cpu) || CHECK(VMX_NMI_WINDOW_SHADOW, cpu->shadow == SHADOW_MOV_SS))
		return false;
	info.reason = VMX_EXIT_NMI_WINDOW;
	vmx_exit(cpu, &info);
	return true;
}

/* A virtual interrupt is delivered where there is no exit for its window (30.2.2). */
bool vmx_take_before_interrupt(struct cpu *cpu, struct event *event)
{
	struct vmx_exit_info info = {.reason = VMX_EXIT_INTERRUPT_WINDOW};

	*event = (struct event){.kind = EVENT_NONE, .return_rip = cpu->rip};
	if (CHECK(VMX_WINDOW_SHADOW, cpu->shadow != SHADOW_NONE))
		return false;
	if (interrupt_window(cpu)) {
		vmx_exit(cpu, &info);
		return true;
	}
	if (!virtual_interrupt(cpu))
		return false;
	event->kind = EVENT_EXTERNAL_INTERRUPT;
	event->vector = (uint8_t)vmx_virtual_interrupt_acknowledge(cpu);
	return true;
}
