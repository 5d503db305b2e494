/*
 * events.c: interrupts, NMIs, windows, INIT, the preemption timer, the monitor trap flag, pending debug
 * exceptions and activity states in a guest (SDM 3C 26.2, 26.4.1, 26.5.1, 26.5.2, 27.7, 28.3.4), TSC and
 * PAUSE loops, lists of MSRs.
 */
#include "lib/apic.h"
#include "lib/cpus.h"
#include "lib/exchange.h"
#include "lib/machine.h"
#include "lib/report.h"
#include "lib/story.h"
#include "lib/vmx_world.h"
#include "lib/world.h"
#include "x86/case_layout.h"
#include "x86/vectors.h"

#include "vmx/vmx.h"

#define VECTOR      0x45u

static void check_stops(uint32_t reason, uint64_t offset)
{
	vmx_check_field(VMCS_EXIT_REASON, reason);
	vmx_check_field(VMCS_EXIT_QUALIFICATION, 0);
	vmx_check_field(VMCS_GUEST_RIP, CASE_STUB + offset);
}

/* ---- external interrupts: @index: RFLAGS.IF, @value: acknowledged on exit, @mode: external-interrupt
 * exiting ---- */

STORY(external_interrupt)
{
	bool interrupts = GIVEN(index), acknowledge = GIVEN(value), exits = GIVEN(mode);

	if (!story_has_apic() || !guest_with_flags(interrupts ? RFLAGS_IF : 0))
		return;
	if (!exits && !vmx_needs_clear(VMCS_PIN_CONTROLS, VMX_PIN_EXTERNAL_INTERRUPT))
		return;
	if (acknowledge)
		vmx_set(VMCS_EXIT_CONTROLS, VMX_EXIT_ACKNOWLEDGE);
	if (!exits)
		vmx_clear(VMCS_PIN_CONTROLS, VMX_PIN_EXTERNAL_INTERRUPT);
	apic_pend_interrupt(VECTOR);
	vmx_remember();
	check_run();
	if (exits) {
		check_stops(VMX_EXIT_EXTERNAL_INTERRUPT, 0);
		vmx_check_field(VMCS_EXIT_INTERRUPTION_INFO,
				acknowledge ? EVENT(VMX_EVENT_EXTERNAL) | VECTOR : 0);
		vmx_check_field(VMCS_IDT_VECTORING_INFO, 0);
		vmx_check_guest();
		vmx_check_host();
	} else {
		vmx_check_exit(VMX_EXIT_VMCALL, 0, 3);
		story_check("vector", interrupts ? VECTOR : VMX_NO_VECTOR, vmx_handler_vector());
	}
	story_check("irr", exits ? !acknowledge : !interrupts, apic_bit(APIC_IRR, VECTOR));
	story_check("isr", exits ? acknowledge : interrupts, apic_bit(APIC_ISR, VECTOR));
	if (apic_bit(APIC_ISR, VECTOR))
		apic_write(APIC_EOI, 0);
	else
		story_open();
}

/* In the shadow of STI or MOV SS (@index) interrupts exit all the same, or wait for one instruction (@mode).
 */
STORY(external_interrupt_shadow)
{
	bool mov_ss = GIVEN(index), exits = GIVEN(mode);

	if (!story_has_apic() || !guest_with_flags(RFLAGS_IF))
		return;
	vmx_write(VMCS_GUEST_INTERRUPTIBILITY, mov_ss ? VMX_BLOCKING_MOV_SS : VMX_BLOCKING_STI);
	if (!exits) {
		if (!vmx_needs_clear(VMCS_PIN_CONTROLS, VMX_PIN_EXTERNAL_INTERRUPT))
			return;
		vmx_clear(VMCS_PIN_CONTROLS, VMX_PIN_EXTERNAL_INTERRUPT);
	}
	VMX_CODE(0x90, 0x90);
	apic_pend_interrupt(VECTOR);
	check_run();
	if (exits) {
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_EXTERNAL_INTERRUPT);
		vmx_check_field(VMCS_GUEST_RIP, CASE_STUB + 1);
		vmx_check_field(VMCS_GUEST_INTERRUPTIBILITY, 0);
		story_open();
	} else {
		struct case_spec spec = {.mode = MODE_LONG};

		(void)spec;
		story_check("vector", VECTOR, vmx_handler_vector());
		story_check("return", CASE_STUB + 1, *(const uint64_t *)(uintptr_t)vmx_read(VMCS_GUEST_RSP));
		apic_write(APIC_EOI, 0);
	}
}

/* ---- within the handler of an NMI, another one pending ---- */

static bool nmi_entered;
static unsigned nmi_result;

static void run_within(struct story_frame *frame)
{
	if (frame->vector != VECTOR_NMI || nmi_entered)
		return;
	nmi_entered = true;
	apic_send(apic_id(), ICR_NMI | ICR_ASSERT);
	nmi_result = vmx_run();
}

/* vmx_run() with an NMI pending, which L1 blocks; behind it NMIs are open again. */
static void run_with_nmi(void)
{
	nmi_entered = false;
	nmi_result = 0x5a;
	story_handle(run_within);
	apic_enable(0xff);
	apic_send(apic_id(), ICR_NMI | ICR_ASSERT);
	story_pause(4);
	story_check("entry", 0, nmi_result);
}

/* ---- NMIs: @mode: NMI exiting, @index: blocked when the guest begins ---- */

STORY(nmi)
{
	bool exits = GIVEN(mode), blocked = GIVEN(index);

	if (!story_has_apic() || !guest_with_flags(0))
		return;
	if (!exits) {
		if (!vmx_needs_clear(VMCS_PIN_CONTROLS, VMX_PIN_NMI))
			return;
		vmx_clear(VMCS_PIN_CONTROLS, VMX_PIN_NMI);
	}
	vmx_write(VMCS_GUEST_INTERRUPTIBILITY, blocked ? VMX_BLOCKING_NMI : 0);
	vmx_write(VMCS_EXCEPTION_BITMAP, 0xffffffff);
	run_with_nmi();
	if (blocked) {
		vmx_check_exit(VMX_EXIT_VMCALL, 0, 3);
		story_check("vector", VMX_NO_VECTOR, vmx_handler_vector());
		vmx_check_field(VMCS_GUEST_INTERRUPTIBILITY, VMX_BLOCKING_NMI);
	} else if (exits) {
		check_stops(VMX_EXIT_EXCEPTION_NMI, 0);
		vmx_check_field(VMCS_EXIT_INTERRUPTION_INFO, EVENT(VMX_EVENT_NMI) | VECTOR_NMI);
		vmx_check_field(VMCS_GUEST_INTERRUPTIBILITY, 0);
	} else {
		vmx_check_exit(VMX_EXIT_VMCALL, 0, 3);
		story_check("vector", VECTOR_NMI, vmx_handler_vector());
		vmx_check_field(VMCS_GUEST_INTERRUPTIBILITY, VMX_BLOCKING_NMI);
	}
}

/* IRETQ to the byte behind it, at the privilege level that it is on. */
static void push_frame(uint64_t rip)
{
	uint64_t frame[5] = {rip, CASE_SEL_CS64_0, RFLAGS_FIXED, CASE_STACK, CASE_SEL_DS32_0};

	for (unsigned i = 0; i < 5; i++)
		world_poke(CASE_STACK - 0x40 + 8 * i, &frame[i], 8);
	vmx_write(VMCS_GUEST_RSP, CASE_STACK - 0x40);
}

/*
 * IRET and NMIs: @mode 0: neither control: blocking ends; 1: NMI exiting: it stays; 2: virtual NMIs:
 * virtual-NMI blocking ends; @index: IRET faults (its stack is not there).
 */
STORY(nmi_iret)
{
	unsigned mode = (unsigned)GIVEN(mode);
	bool faults = GIVEN(index);
	uint64_t zero = 0;
	uint32_t info;

	if (!guest_with_flags(0))
		return;
	if (mode == 2 && !vmx_needs(VMCS_PIN_CONTROLS, VMX_PIN_VIRTUAL_NMIS))
		return;
	if (mode == 0) {
		if (!vmx_needs_clear(VMCS_PIN_CONTROLS, VMX_PIN_NMI))
			return;
		vmx_clear(VMCS_PIN_CONTROLS, VMX_PIN_NMI);
	}
	if (mode == 2)
		vmx_set(VMCS_PIN_CONTROLS, VMX_PIN_VIRTUAL_NMIS);
	vmx_write(VMCS_GUEST_INTERRUPTIBILITY, VMX_BLOCKING_NMI);
	VMX_CODE(0x48, 0xcf);
	push_frame(CASE_STUB + 2);
	if (faults)
		world_poke(CASE_PTE_LONG(CASE_STACK), &zero, 8);
	check_run();
	if (!faults) {
		vmx_check_exit(VMX_EXIT_VMCALL, 0, 3);
		vmx_check_field(VMCS_GUEST_INTERRUPTIBILITY, mode == 1 ? VMX_BLOCKING_NMI : 0);
		return;
	}
	vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_EXCEPTION_NMI);
	info = (uint32_t)vmx_read(VMCS_EXIT_INTERRUPTION_INFO);
	story_check("page_fault", EVENT(VMX_EVENT_EXCEPTION) | VMX_EVENT_ERROR_CODE | VECTOR_PF,
		    info & ~VMX_EVENT_NMI_UNBLOCKED);
	/* Bit 12 is undefined where NMI exiting is 1 and virtual NMIs is 0. */
	if (mode != 1)
		story_check("unblocked", 1, info >> 12 & 1);
	story_iret();
}

/* ---- windows ---- */

/* @index 0: open at once; 1: behind STI and one instruction more; 2: STI blocks; 3: MOV SS blocks; 4: closed;
 * 5: behind POPF. */
STORY(interrupt_window)
{
	unsigned which = (unsigned)GIVEN(index);
	uint64_t flags = RFLAGS_FIXED | RFLAGS_IF;

	if (!guest_with_flags(which == 0 || which == 2 || which == 3 ? RFLAGS_IF : 0))
		return;
	vmx_set(VMCS_PRIMARY_CONTROLS, VMX_INTERRUPT_WINDOW);
	if (which == 2)
		vmx_write(VMCS_GUEST_INTERRUPTIBILITY, VMX_BLOCKING_STI);
	if (which == 3)
		vmx_write(VMCS_GUEST_INTERRUPTIBILITY, VMX_BLOCKING_MOV_SS);
	if (which == 1)
		VMX_CODE(0xfb, 0x90, 0x90, 0x90);
	else if (which == 5)
		VMX_CODE(0x9d, 0x90, 0x90, 0x90);
	else
		VMX_CODE(0x90, 0x90, 0x90);
	world_poke(CASE_STACK, &flags, 8);
	check_run();
	if (which == 4)
		vmx_check_exit(VMX_EXIT_VMCALL, 0, 3);
	else
		check_stops(VMX_EXIT_INTERRUPT_WINDOW, which == 0 ? 0 : which == 1 ? 2 : 1);
	vmx_check_field(VMCS_GUEST_INTERRUPTIBILITY, 0);
}

/* @index 0: open at once; 1: blocked; 2: blocked until IRET; 3: MOV SS blocks; 4: STI blocks (which may). */
STORY(nmi_window)
{
	unsigned which = (unsigned)GIVEN(index);

	if (!guest_with_flags(which == 4 ? RFLAGS_IF : 0) ||
	    !vmx_needs(VMCS_PIN_CONTROLS, VMX_PIN_VIRTUAL_NMIS) ||
	    !vmx_needs(VMCS_PRIMARY_CONTROLS, VMX_NMI_WINDOW))
		return;
	vmx_set(VMCS_PIN_CONTROLS, VMX_PIN_VIRTUAL_NMIS);
	vmx_set(VMCS_PRIMARY_CONTROLS, VMX_NMI_WINDOW);
	vmx_write(VMCS_GUEST_INTERRUPTIBILITY, which == 1 || which == 2 ? VMX_BLOCKING_NMI
					       : which == 3             ? VMX_BLOCKING_MOV_SS
					       : which == 4             ? VMX_BLOCKING_STI
									: 0);
	if (which == 2) {
		VMX_CODE(0x48, 0xcf, 0x90, 0x90);
		push_frame(CASE_STUB + 2);
	} else {
		VMX_CODE(0x90, 0x90, 0x90);
	}
	check_run();
	if (which == 1) {
		vmx_check_exit(VMX_EXIT_VMCALL, 0, 3);
		vmx_check_field(VMCS_GUEST_INTERRUPTIBILITY, VMX_BLOCKING_NMI);
	} else if (which == 4) {
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_NMI_WINDOW);
		story_check("rip", 1,
			    vmx_read(VMCS_GUEST_RIP) == CASE_STUB ||
				    vmx_read(VMCS_GUEST_RIP) == CASE_STUB + 1);
	} else {
		check_stops(VMX_EXIT_NMI_WINDOW, which == 0 ? 0 : which == 2 ? 2 : 1);
		vmx_check_field(VMCS_GUEST_INTERRUPTIBILITY, 0);
	}
}

/* MWAIT of ECX[0] with IF = 0 does not wait where interrupt-window exiting is 1 (26.3); the timer ends a wait. */
STORY(mwait_window)
{
	if (!guest_with_flags(0) || !vmx_needs(VMCS_PIN_CONTROLS, VMX_PIN_PREEMPTION_TIMER) ||
	    !story_needs(vmx_has_cpuid(1, 2, 3), "cpuid.1.0.ecx[3]=0") ||
	    !story_needs(vmx_has_cpuid(5, 2, 1), "cpuid.5.0.ecx[1]=0"))
		return;
	/* MONITOR; MOV ECX, 1; MWAIT */
	VMX_CODE(0x0f, 0x01, 0xc8, 0xb9, 1, 0, 0, 0, 0x0f, 0x01, 0xc9, 0x90);
	vmx_registers[RAX] = CASE_OPERAND;
	vmx_registers[RCX] = vmx_registers[RDX] = 0;
	vmx_set(VMCS_PRIMARY_CONTROLS, VMX_INTERRUPT_WINDOW);
	vmx_set(VMCS_PIN_CONTROLS, VMX_PIN_PREEMPTION_TIMER);
	vmx_write(VMCS_PREEMPTION_TIMER, 100000);
	check_run();
	vmx_check_exit(VMX_EXIT_VMCALL, 0, 3);
}

/* Out of the HLT state: @index 0: interrupt window, 1: NMI window, 2: external interrupt, 3: NMI, 4: timer.
 */
STORY(halted)
{
	unsigned which = (unsigned)GIVEN(index);
	static const uint32_t reasons[] = {VMX_EXIT_INTERRUPT_WINDOW, VMX_EXIT_NMI_WINDOW,
					   VMX_EXIT_EXTERNAL_INTERRUPT, VMX_EXIT_EXCEPTION_NMI,
					   VMX_EXIT_PREEMPTION_TIMER};

	if (!story_has_apic() || !guest_with_flags(RFLAGS_IF) || !vmx_needs_bit(VMX_MSR_MISC, 6))
		return;
	if (which == 1 && (!vmx_needs(VMCS_PIN_CONTROLS, VMX_PIN_VIRTUAL_NMIS) ||
			   !vmx_needs(VMCS_PRIMARY_CONTROLS, VMX_NMI_WINDOW)))
		return;
	if (which == 4 && !vmx_needs(VMCS_PIN_CONTROLS, VMX_PIN_PREEMPTION_TIMER))
		return;
	vmx_write(VMCS_GUEST_ACTIVITY, VMX_HALTED);
	if (which == 0)
		vmx_set(VMCS_PRIMARY_CONTROLS, VMX_INTERRUPT_WINDOW);
	if (which == 1) {
		vmx_set(VMCS_PIN_CONTROLS, VMX_PIN_VIRTUAL_NMIS);
		vmx_set(VMCS_PRIMARY_CONTROLS, VMX_NMI_WINDOW);
	}
	if (which == 2)
		apic_pend_interrupt(VECTOR);
	if (which == 4) {
		vmx_set(VMCS_PIN_CONTROLS, VMX_PIN_PREEMPTION_TIMER);
		vmx_write(VMCS_PREEMPTION_TIMER, 2);
	}
	if (which == 3)
		run_with_nmi();
	else
		check_run();
	check_stops(reasons[which], 0);
	vmx_check_field(VMCS_GUEST_ACTIVITY, VMX_HALTED);
	if (which == 2)
		story_open();
}

/* HLT in a guest without HLT exiting: the exit finds it halted, behind the instruction. */
STORY(halts)
{
	if (!guest_with_flags(RFLAGS_IF) || !vmx_needs(VMCS_PIN_CONTROLS, VMX_PIN_PREEMPTION_TIMER) ||
	    !vmx_needs_bit(VMX_MSR_MISC, 6))
		return;
	VMX_CODE(0xf4, 0x90);
	vmx_set(VMCS_PIN_CONTROLS, VMX_PIN_PREEMPTION_TIMER);
	vmx_write(VMCS_PREEMPTION_TIMER, 1000);
	check_run();
	check_stops(VMX_EXIT_PREEMPTION_TIMER, 1);
	vmx_check_field(VMCS_GUEST_ACTIVITY, VMX_HALTED);
}

/* In shutdown an external interrupt is held, an NMI exits (27.7.2). */
STORY(in_shutdown)
{
	if (!story_has_apic() || !guest_with_flags(RFLAGS_IF) || !vmx_needs_bit(VMX_MSR_MISC, 7) ||
	    !vmx_needs(VMCS_PIN_CONTROLS, VMX_PIN_PREEMPTION_TIMER))
		return;
	vmx_set(VMCS_PIN_CONTROLS, VMX_PIN_PREEMPTION_TIMER);
	vmx_write(VMCS_PREEMPTION_TIMER, 50);
	vmx_write(VMCS_GUEST_ACTIVITY, VMX_SHUTDOWN);
	apic_pend_interrupt(VECTOR);
	check_run();
	vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_PREEMPTION_TIMER);
	vmx_check_field(VMCS_GUEST_ACTIVITY, VMX_SHUTDOWN);
	story_open();
	story_check("still_pending", 1, story_count(VECTOR));
	vmx_write(VMCS_PREEMPTION_TIMER, 5000);
	run_with_nmi();
	check_stops(VMX_EXIT_EXCEPTION_NMI, 0);
	vmx_check_field(VMCS_EXIT_INTERRUPTION_INFO, EVENT(VMX_EVENT_NMI) | VECTOR_NMI);
	vmx_check_field(VMCS_GUEST_ACTIVITY, VMX_SHUTDOWN);
}

/* ---- INIT and SIPI ---- */

/* INIT is blocked in VMX root operation; the next entry exits by it (24.8, 26.2). */
STORY(init_exits)
{
	if (!story_has_apic() || !guest_with_flags(0))
		return;
	apic_enable(0xff);
	apic_send(apic_id(), ICR_INIT | ICR_ASSERT);
	story_pause(4);
	vmx_remember();
	check_run();
	check_stops(VMX_EXIT_INIT, 0);
	vmx_check_guest();
	vmx_check_runs();
}

static volatile uint32_t target;
static volatile bool told;

static void send_init_and_sipi(void *argument)
{
	while (!told)
		__asm__ volatile("pause");
	for (unsigned i = 0; i < 2000; i++)
		__asm__ volatile("pause");
	apic_send(target, ICR_INIT | ICR_ASSERT);
	apic_send(target, ICR_STARTUP | ICR_ASSERT | (uint32_t)(uintptr_t)argument);
}

/* In the wait-for-SIPI state: INIT is blocked, SIPI exits with its vector as qualification. */
STORY(sipi_exits)
{
	if (!guest_with_flags(0) || !vmx_needs_bit(VMX_MSR_MISC, 8) || !cpus_needs(2))
		return;
	target = cpus_apic_id(0);
	told = false;
	cpus_tell(1, send_init_and_sipi, (void *)0x9a);
	vmx_write(VMCS_GUEST_ACTIVITY, VMX_WAIT_FOR_SIPI);
	told = true;
	check_run();
	vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_SIPI);
	vmx_check_field(VMCS_EXIT_QUALIFICATION, 0x9a);
	vmx_check_field(VMCS_GUEST_ACTIVITY, VMX_WAIT_FOR_SIPI);
	vmx_check_field(VMCS_GUEST_RIP, CASE_STUB);
	cpus_wait(1);
	/* INIT was blocked: it is either lost, or comes now, before VMXOFF would let it through. */
	vmx_write(VMCS_GUEST_ACTIVITY, VMX_ACTIVE);
	check_run();
	story_check("init", 1, vmx_reason() == VMX_EXIT_INIT || vmx_reason() == VMX_EXIT_VMCALL);
}

/* ---- monitor trap flag ---- */

/* @index: the code: 0 NOPs, 1 INT n, 2 a fault that is delivered, 3 REP STOSB of two, 4 an injected event, 5
 * RDTSC that exits. */
STORY(monitor_trap)
{
	unsigned which = (unsigned)GIVEN(index);

	if (!guest_with_flags(0) || !vmx_needs(VMCS_PRIMARY_CONTROLS, VMX_MONITOR_TRAP_FLAG))
		return;
	vmx_set(VMCS_PRIMARY_CONTROLS, VMX_MONITOR_TRAP_FLAG);
	vmx_write(VMCS_EXCEPTION_BITMAP, 0);
	switch (which) {
	case 1: VMX_CODE(0xcd, 0x41); break;
	case 2: VMX_CODE(0x0f, 0x0b); break;
	case 3:
		VMX_CODE(0xf3, 0xaa);
		vmx_registers[RCX] = 2;
		vmx_registers[RDI] = CASE_OPERAND;
		break;
	case 4: vmx_write(VMCS_ENTRY_INTERRUPTION_INFO, EVENT(VMX_EVENT_EXTERNAL) | VECTOR); break;
	case 5: VMX_CODE(0x0f, 0xa2); break;
	default: VMX_CODE(0x90, 0x90); break;
	}
	if (which == 4) {
		exchange.in.field[STATE_rflags] |= RFLAGS_IF;
		vmx_write(VMCS_GUEST_RFLAGS, RFLAGS_FIXED | RFLAGS_IF);
	}
	check_run();
	switch (which) {
	case 1: vmx_check_field(VMCS_GUEST_RIP, vmx_handler(0x41)); break;
	case 2: vmx_check_field(VMCS_GUEST_RIP, vmx_handler(VECTOR_UD)); break;
	case 3:
		vmx_check_field(VMCS_GUEST_RIP, CASE_STUB);
		story_check("rcx", 1, vmx_registers[RCX]);
		break;
	case 4: vmx_check_field(VMCS_GUEST_RIP, vmx_handler(VECTOR)); break;
	case 5: vmx_check_exit(VMX_EXIT_CPUID, 0, 2); return;
	default:
		vmx_check_field(VMCS_GUEST_RIP, CASE_STUB + 1);
		vmx_check_exit(VMX_EXIT_MONITOR_TRAP_FLAG, 0, 0);
		check_run();
		vmx_check_field(VMCS_GUEST_RIP, CASE_STUB + 2);
		break;
	}
	vmx_check_exit(VMX_EXIT_MONITOR_TRAP_FLAG, 0, 0);
	vmx_check_field(VMCS_IDT_VECTORING_INFO, 0);
}

/* ---- preemption timer: @index: its value; @mode: saved on exit ---- */

STORY(preemption_timer)
{
	uint32_t value = (uint32_t)GIVEN(index);
	bool saved = GIVEN(mode);

	if (!guest_with_flags(0) || !vmx_needs(VMCS_PIN_CONTROLS, VMX_PIN_PREEMPTION_TIMER))
		return;
	if (saved && !vmx_needs(VMCS_EXIT_CONTROLS, VMX_EXIT_SAVE_PREEMPTION_TIMER))
		return;
	vmx_set(VMCS_PIN_CONTROLS, VMX_PIN_PREEMPTION_TIMER);
	if (saved)
		vmx_set(VMCS_EXIT_CONTROLS, VMX_EXIT_SAVE_PREEMPTION_TIMER);
	VMX_CODE(0xeb, 0xfe); /* JMP to itself */
	vmx_write(VMCS_PREEMPTION_TIMER, value);
	check_run();
	check_stops(VMX_EXIT_PREEMPTION_TIMER, 0);
	vmx_check_field(VMCS_PREEMPTION_TIMER, saved ? 0 : value);
	/* Not run out: the rest is saved. */
	VMX_CODE(0x90);
	vmx_write(VMCS_PREEMPTION_TIMER, 0x10000000);
	check_run();
	vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_VMCALL);
	story_check("rest", 1,
		    saved ? vmx_read(VMCS_PREEMPTION_TIMER) < 0x10000001 &&
				    vmx_read(VMCS_PREEMPTION_TIMER) > 0x1000000
			  : vmx_read(VMCS_PREEMPTION_TIMER) == 0x10000000);
}

/* ---- pending debug exceptions (27.7.3, 28.3.4) ---- */

/* @index: BS with TF; B0 that was enabled; B0 that was not; with MOV SS blocking; lost by an injection; in
 * HLT. */
STORY(pending_debug)
{
	unsigned which = (unsigned)GIVEN(index);
	uint64_t pending = which == 0 || which == 3 ? VMX_PENDING_BS
			   : which == 2             ? 1
						    : VMX_PENDING_ENABLED_BREAKPOINT | 1;

	if (!guest_with_flags(which == 0 || which == 3 ? RFLAGS_TF : which == 4 ? RFLAGS_IF : 0))
		return;
	if (which == 5 && !vmx_needs_bit(VMX_MSR_MISC, 6))
		return;
	if (which == 6 && (!vmx_needs_bit(VMX_MSR_MISC, 7) || !vmx_needs(VMCS_PIN_CONTROLS, VMX_PIN_PREEMPTION_TIMER)))
		return;
	vmx_write(VMCS_GUEST_PENDING_DEBUG, pending);
	if (which == 3)
		vmx_write(VMCS_GUEST_INTERRUPTIBILITY, VMX_BLOCKING_MOV_SS);
	if (which == 4)
		vmx_write(VMCS_ENTRY_INTERRUPTION_INFO, EVENT(VMX_EVENT_EXTERNAL) | VECTOR);
	if (which == 5)
		vmx_write(VMCS_GUEST_ACTIVITY, VMX_HALTED);
	if (which == 6) { /* in shutdown it is lost */
		vmx_write(VMCS_GUEST_ACTIVITY, VMX_SHUTDOWN);
		vmx_set(VMCS_PIN_CONTROLS, VMX_PIN_PREEMPTION_TIMER);
		vmx_write(VMCS_PREEMPTION_TIMER, 50);
	}
	check_run();
	if (which == 6) {
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_PREEMPTION_TIMER);
		vmx_check_field(VMCS_GUEST_PENDING_DEBUG, 0);
	} else if (which == 2) {
		vmx_check_exit(VMX_EXIT_VMCALL, 0, 3);
		vmx_check_field(VMCS_GUEST_PENDING_DEBUG, 0);
	} else if (which == 3) {
		/* Held off by MOV SS; VMCALL exits before it is delivered. */
		vmx_check_exit(VMX_EXIT_VMCALL, 0, 3);
		vmx_check_field(VMCS_GUEST_PENDING_DEBUG, pending);
		vmx_check_field(VMCS_GUEST_INTERRUPTIBILITY, VMX_BLOCKING_MOV_SS);
	} else if (which == 4) {
		vmx_check_exit(VMX_EXIT_VMCALL, 0, 3);
		story_check("vector", VECTOR, vmx_handler_vector());
		vmx_check_field(VMCS_GUEST_PENDING_DEBUG, 0);
	} else {
		vmx_check_exit(VMX_EXIT_EXCEPTION_NMI, which == 0 ? DR6_BS : DR6_B(0), 0);
		vmx_check_field(VMCS_EXIT_INTERRUPTION_INFO, EVENT(VMX_EVENT_EXCEPTION) | VECTOR_DB);
		vmx_check_field(VMCS_GUEST_PENDING_DEBUG, 0);
		vmx_check_field(VMCS_GUEST_RIP, CASE_STUB);
	}
}

/* What the guest leaves pending: MOV SS with TF set, or over a data breakpoint, then an exit by @index 0
 * CPUID, 1 an interrupt window. */
STORY(pending_debug_saved)
{
	bool breakpoint = GIVEN(value);
	uint64_t dr7 = DR7_FIXED_1 | DR7_L(0) | 3ull << DR7_RW_SHIFT(0) | 1ull << DR7_LEN_SHIFT(0);

	if (!guest_with_flags(breakpoint ? 0 : RFLAGS_TF))
		return;
	/* MOV SS, [RBX]; CPUID */
	VMX_CODE(0x8e, 0x13, 0x0f, 0xa2);
	*(volatile uint16_t *)CASE_OPERAND = CASE_SEL_DS32_0;
	world_accept(CASE_OPERAND, 2);
	vmx_registers[RBX] = CASE_OPERAND;
	if (breakpoint) {
		exchange.in.field[STATE_dr0] = CASE_OPERAND;
		vmx_write(VMCS_GUEST_DR7, dr7);
	}
	check_run();
	vmx_check_exit(VMX_EXIT_CPUID, 0, 2);
	vmx_check_field(VMCS_GUEST_INTERRUPTIBILITY, VMX_BLOCKING_MOV_SS);
	vmx_check_field(VMCS_GUEST_PENDING_DEBUG,
			breakpoint ? VMX_PENDING_ENABLED_BREAKPOINT | 1 : VMX_PENDING_BS);
	if (breakpoint)
		vmx_check_field(VMCS_GUEST_DR7, dr7);
	/* It comes where the guest goes on behind the instruction, without the shadow. */
	vmx_write(VMCS_GUEST_RIP, CASE_STUB + 4);
	vmx_write(VMCS_GUEST_INTERRUPTIBILITY, 0);
	check_run();
	vmx_check_exit(VMX_EXIT_EXCEPTION_NMI, breakpoint ? DR6_B(0) : DR6_BS, 0);
	vmx_check_field(VMCS_GUEST_RIP, CASE_STUB + 4);
}

/* ---- time: @index 0: RDTSC, 1: RDTSCP, 2: RDMSR; @mode 0: no offset, 1: offset, 2: half as fast, 3: both
 * ---- */

#define OFFSET 0x0100000000000000ull

STORY(tsc)
{
	unsigned which = (unsigned)GIVEN(index), mode = (unsigned)GIVEN(mode);
	uint64_t before, after, got, low, high;

	if (!guest_with_flags(0))
		return;
	if (mode & 2 && !vmx_needs(VMCS_SECONDARY_CONTROLS, VMX2_TSC_SCALING))
		return;
	if (which == 1 && !vmx_needs(VMCS_SECONDARY_CONTROLS, VMX2_RDTSCP))
		return;
	vmx_write(VMCS_TSC_OFFSET, OFFSET);
	if (mode)
		vmx_set(VMCS_PRIMARY_CONTROLS, VMX_USE_TSC_OFFSETTING);
	if (!(mode & 1))
		vmx_write(VMCS_TSC_OFFSET, mode ? 0 : OFFSET);
	if (mode & 2) {
		vmx_set(VMCS_SECONDARY_CONTROLS, VMX2_TSC_SCALING);
		vmx_write(VMCS_TSC_MULTIPLIER, 1ull << 47);
	}
	if (which == 1) {
		vmx_set(VMCS_SECONDARY_CONTROLS, VMX2_RDTSCP);
		VMX_CODE(0x0f, 0x01, 0xf9);
	} else if (which == 2) {
		vmx_set(VMCS_PRIMARY_CONTROLS, VMX_USE_MSR_BITMAPS);
		vmx_write(VMCS_MSR_BITMAP, vmx_page(VMX_PAGE_MSR_BITMAP));
		vmx_registers[RCX] = 0x10;
		VMX_CODE(0x0f, 0x32);
	} else {
		VMX_CODE(0x0f, 0x31);
	}
	before = machine_read_msr(0x10);
	check_run();
	after = machine_read_msr(0x10);
	vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_VMCALL);
	got = (uint32_t)vmx_registers[RAX] | vmx_registers[RDX] << 32;
	low = (mode & 2 ? before / 2 : before) + (mode & 1 ? OFFSET : 0);
	high = (mode & 2 ? after / 2 : after) + (mode & 1 ? OFFSET : 0);
	story_check("in_between", 1, got >= low && got <= high);
}

/* ---- PAUSE loops: @cpl, @index 0: short gaps; 1: far apart ---- */

STORY(pause_loop)
{
	unsigned cpl = (unsigned)GIVEN(index) & 3;
	bool far = GIVEN(mode);

	if (!vmx_baseline(MODE_LONG, cpl, VMX_BARE) || !vmx_needs(VMCS_SECONDARY_CONTROLS, VMX2_PAUSE_LOOP))
		return;
	vmx_set(VMCS_SECONDARY_CONTROLS, VMX2_PAUSE_LOOP);
	vmx_write(VMCS_PLE_GAP, far ? 1 : 100000);
	vmx_write(VMCS_PLE_WINDOW, 2000);
	/* PAUSE; DEC ECX; JNZ back */
	VMX_CODE(0xf3, 0x90, 0x90, 0x90, 0x90, 0x90, 0xff, 0xc9, 0x75, 0xf6);
	vmx_registers[RCX] = 20000;
	check_run();
	if (cpl || far) {
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_VMCALL);
	} else {
		check_stops(VMX_EXIT_PAUSE, 0);
		vmx_check_field(VMCS_EXIT_INSTRUCTION_LENGTH, 2);
		story_check("later", 1, vmx_registers[RCX] < 20000);
	}
}

/* ---- lists of MSRs (27.4, 28.4, 28.6) ---- */

static void put_entry(enum vmx_page page, unsigned slot, uint64_t index, uint64_t value)
{
	uint64_t *entry = vmx_at(page, 16 * slot);

	entry[0] = index;
	entry[1] = value;
}

/* Loaded for the guest, stored from it, loaded for the host. */
STORY(msr_lists)
{
	const uint64_t *stored = vmx_at(VMX_PAGE_EXIT_STORE, 0);

	if (!guest_with_flags(0))
		return;
	put_entry(VMX_PAGE_ENTRY_LOAD, 0, MSR_KERNEL_GS_BASE, 0x1111);
	put_entry(VMX_PAGE_ENTRY_LOAD, 1, MSR_LSTAR, 0x2222);
	put_entry(VMX_PAGE_ENTRY_LOAD, 2, MSR_LSTAR, 0x3333); /* in order */
	put_entry(VMX_PAGE_EXIT_STORE, 0, MSR_KERNEL_GS_BASE, 0);
	put_entry(VMX_PAGE_EXIT_STORE, 1, MSR_LSTAR, 0);
	put_entry(VMX_PAGE_EXIT_STORE, 2, MSR_STAR, 0x5a);
	put_entry(VMX_PAGE_EXIT_LOAD, 0, MSR_KERNEL_GS_BASE, CASE_KERNEL_GS_BASE);
	put_entry(VMX_PAGE_EXIT_LOAD, 1, MSR_LSTAR, CASE_LAND_SYSCALL);
	vmx_write(VMCS_ENTRY_MSR_LOAD, vmx_page(VMX_PAGE_ENTRY_LOAD));
	vmx_write(VMCS_EXIT_MSR_STORE, vmx_page(VMX_PAGE_EXIT_STORE));
	vmx_write(VMCS_EXIT_MSR_LOAD, vmx_page(VMX_PAGE_EXIT_LOAD));
	vmx_write(VMCS_ENTRY_MSR_LOAD_COUNT, 3);
	vmx_write(VMCS_EXIT_MSR_STORE_COUNT, 2);
	vmx_write(VMCS_EXIT_MSR_LOAD_COUNT, 2);
	check_run();
	vmx_check_exit(VMX_EXIT_VMCALL, 0, 3);
	story_check("stored_0", 0x1111, stored[1]);
	story_check("stored_1", 0x3333, stored[3]);
	__asm__ volatile("nop" : : : "memory"); /* an instruction more, for one that is moved at each */
	story_check("stored_still", 0x1111, stored[1]);
	story_check("not_counted", 0x5a, stored[5]);
	story_check("host_0", CASE_KERNEL_GS_BASE, machine_read_msr(MSR_KERNEL_GS_BASE));
	story_check("host_1", CASE_LAND_SYSCALL, machine_read_msr(MSR_LSTAR));
	/* An entry that fails by its list has loaded what came before; the host's list is loaded then as
	 * well. */
	put_entry(VMX_PAGE_ENTRY_LOAD, 2, MSR_FS_BASE, 0);
	put_entry(VMX_PAGE_EXIT_LOAD, 1, MSR_LSTAR, 0x7777);
	check_run();
	vmx_check_exit(VMX_EXIT_ENTRY_MSR_LOADING | VMX_EXIT_ENTRY_FAILURE, 3, 0);
	story_check("failed_host", 0x7777, machine_read_msr(MSR_LSTAR));
	machine_write_msr(MSR_LSTAR, CASE_LAND_SYSCALL);
}

/* A list that cannot be stored or loaded on exit: VMX abort, a shutdown. @index: which entry is wrong. */
STORY(vmx_abort)
{
	unsigned which = (unsigned)GIVEN(index);

	if (!guest_with_flags(0))
		return;
	vmx_write(VMCS_EXIT_MSR_STORE, vmx_page(VMX_PAGE_EXIT_STORE));
	vmx_write(VMCS_EXIT_MSR_LOAD, vmx_page(VMX_PAGE_EXIT_LOAD));
	vmx_write(which < 4 ? VMCS_EXIT_MSR_STORE_COUNT : VMCS_EXIT_MSR_LOAD_COUNT, 1);
	switch (which) {
	case 0: put_entry(VMX_PAGE_EXIT_STORE, 0, MSR_KERNEL_GS_BASE | 1ull << 32, 0); break;
	case 1: put_entry(VMX_PAGE_EXIT_STORE, 0, 0x1eee, 0); break;
	case 2: put_entry(VMX_PAGE_EXIT_STORE, 0, 0x9b, 0); break;
	case 3: put_entry(VMX_PAGE_EXIT_STORE, 0, 0x3fffffff, 0); break;
	case 4: put_entry(VMX_PAGE_EXIT_LOAD, 0, MSR_KERNEL_GS_BASE | 1ull << 32, 0); break;
	case 5: put_entry(VMX_PAGE_EXIT_LOAD, 0, MSR_FS_BASE, 0); break;
	case 6: put_entry(VMX_PAGE_EXIT_LOAD, 0, MSR_GS_BASE, 0); break;
	case 7: put_entry(VMX_PAGE_EXIT_LOAD, 0, MSR_KERNEL_GS_BASE, 0x4000000000000000ull); break;
	case 8: put_entry(VMX_PAGE_EXIT_LOAD, 0, 0x9b, 0); break;
	case 9: put_entry(VMX_PAGE_EXIT_LOAD, 0, 0x79, 0); break;
	default:
		if (!story_has_x2apic())
			return;
		machine_write_msr(APIC_BASE_MSR, machine_read_msr(APIC_BASE_MSR) | APIC_BASE_EXT);
		put_entry(which == 10 ? VMX_PAGE_EXIT_LOAD : VMX_PAGE_EXIT_STORE, 0, 0x808, 0);
		if (which == 11) {
			vmx_write(VMCS_EXIT_MSR_LOAD_COUNT, 0);
			vmx_write(VMCS_EXIT_MSR_STORE_COUNT, 1);
		}
		break;
	}
	story_reports();
	vmx_run();
	report_text("RUNS"); /* which is not what comes */
}
