/*
 * time.c: the TSC of a guest by offset and multiplier, and the preemption timer in each activity state and beside other events
 * (SDM 3C 25.6.5, 26.3, 26.5.1, 27.7.4).
 */
#include "lib/apic.h"
#include "lib/cpus.h"
#include "lib/exchange.h"
#include "lib/machine.h"
#include "lib/story.h"
#include "lib/vmx_world.h"
#include "lib/world.h"
#include "x86/case_layout.h"
#include "x86/vectors.h"

#include "vmx/vmx.h"

#define VECTOR      0x45u
#define TSC_MSR     0x10u

/* ---- the TSC ---- */

enum { WITH_OFFSET = 1, WITH_SCALING = 2 };

static bool use_clock(unsigned with, uint64_t multiplier, uint64_t offset)
{
	vmx_write(VMCS_TSC_OFFSET, offset);
	if (with & WITH_OFFSET)
		vmx_set(VMCS_PRIMARY_CONTROLS, VMX_USE_TSC_OFFSETTING);
	if (!(with & WITH_SCALING))
		return true;
	if (!vmx_needs(VMCS_SECONDARY_CONTROLS, VMX2_TSC_SCALING))
		return false;
	vmx_set(VMCS_SECONDARY_CONTROLS, VMX2_TSC_SCALING);
	vmx_write(VMCS_TSC_MULTIPLIER, multiplier);
	return true;
}

static void use_no_msr_exits(void)
{
	vmx_set(VMCS_PRIMARY_CONTROLS, VMX_USE_MSR_BITMAPS);
	vmx_write(VMCS_MSR_BITMAP, vmx_page(VMX_PAGE_MSR_BITMAP));
	vmx_registers[RCX] = TSC_MSR;
}

/* Without "use TSC offsetting" neither counts. */
static uint64_t guest_time(uint64_t tsc, unsigned with, uint64_t multiplier, uint64_t offset)
{
	if (!(with & WITH_OFFSET))
		return tsc;
	if (with & WITH_SCALING)
		tsc = (uint64_t)((unsigned __int128)tsc * multiplier >> 48);
	return tsc + offset;
}

/* @index 0: RDTSC, 1: RDTSCP, 2: RDMSR; @value: the multiplier; @other: the offset; @mode: WITH_…. */
STORY(tsc_multiplied)
{
	static const uint64_t multipliers[] = {1ull << 48, 1ull << 47, 3ull << 47, 1ull << 52, 1, ~0ull, (1ull << 48) + 0x12345};
	static const uint64_t offsets[] = {0, 1ull << 56, 0xfffffff000000000ull};
	unsigned which = (unsigned)GIVEN(index), with = (unsigned)GIVEN(mode);
	uint64_t multiplier = multipliers[GIVEN(value)], offset = offsets[GIVEN(other)], low, high, got;

	if (!guest_with_flags(0) || !use_clock(with, multiplier, offset))
		return;
	if (which == 1) {
		if (!vmx_needs(VMCS_SECONDARY_CONTROLS, VMX2_RDTSCP))
			return;
		vmx_set(VMCS_SECONDARY_CONTROLS, VMX2_RDTSCP);
		VMX_CODE(0x0f, 0x01, 0xf9);
	} else if (which == 2) {
		use_no_msr_exits();
		VMX_CODE(0x0f, 0x32);
	} else {
		VMX_CODE(0x0f, 0x31);
	}
	low = guest_time(machine_read_msr(TSC_MSR), with, multiplier, offset);
	check_run();
	high = guest_time(machine_read_msr(TSC_MSR), with, multiplier, offset);
	vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_VMCALL);
	got = (uint32_t)vmx_registers[RAX] | vmx_registers[RDX] << 32;
	story_check("in_between", 1, got - low <= high - low);
}

/* WRMSR writes the TSC itself: of the instructions that read it alone 26.3 says otherwise. */
STORY(guest_writes_tsc)
{
	uint64_t before, value, after;

	if (!guest_with_flags(0) || !use_clock(WITH_OFFSET | WITH_SCALING, 1ull << 49, 1ull << 56))
		return;
	use_no_msr_exits();
	VMX_CODE(0x0f, 0x30);
	before = machine_read_msr(TSC_MSR);
	value = before + (1ull << 44);
	vmx_registers[RAX] = (uint32_t)value;
	vmx_registers[RDX] = value >> 32;
	check_run();
	after = machine_read_msr(TSC_MSR);
	machine_write_msr(TSC_MSR, before + (after - value));
	vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_VMCALL);
	story_check("written", 1, after - value < 1ull << 40);
}

/* ---- the preemption timer ---- */

static bool use_timer(uint32_t value)
{
	if (!vmx_needs(VMCS_PIN_CONTROLS, VMX_PIN_PREEMPTION_TIMER))
		return false;
	vmx_set(VMCS_PIN_CONTROLS, VMX_PIN_PREEMPTION_TIMER);
	vmx_write(VMCS_PREEMPTION_TIMER, value);
	return true;
}

/* It counts by the TSC of the processor, whatever the guest's is: @value: the multiplier's shift; 0: no scaling. */
STORY(timer_scaled)
{
	const uint32_t ticks = 2000;
	uint64_t before, passed, least;

	if (!guest_with_flags(0) || !use_timer(ticks) ||
	    !use_clock(GIVEN(value) ? WITH_OFFSET | WITH_SCALING : 0, 1ull << GIVEN(value), 1ull << 56))
		return;
	VMX_CODE(0xeb, 0xfe);
	least = (uint64_t)(ticks - 1) << (vmx_msr(VMX_MSR_MISC) & 31);
	before = machine_read_msr(TSC_MSR);
	check_run();
	passed = machine_read_msr(TSC_MSR) - before;
	vmx_check_exit(VMX_EXIT_PREEMPTION_TIMER, 0, 0);
	story_check("not_sooner", 1, passed >= least);
	story_check("not_times_16", 1, passed < 10 * least + (1u << 20));
}

/* What comes with a timer that has run out when the guest begins. */
enum beside {
	INJECTED_INTERRUPT,
	INJECTED_NMI,
	INJECTED_INT_N,
	INJECTED_EXCEPTION,
	INJECTED_MTF,
	PENDING_STEP,
	PENDING_INTERRUPT,
	WINDOW,
	WINDOW_OF_NMIS,
	BLOCKED_MOV_SS,
	BLOCKED_STI,
	BLOCKED_NMI,
	EXITING_INSTRUCTION,
	IN_HLT
};

static void inject(uint32_t info, uint64_t length)
{
	vmx_write(VMCS_ENTRY_INTERRUPTION_INFO, info);
	vmx_write(VMCS_ENTRY_INSTRUCTION_LENGTH, length);
	vmx_write(VMCS_EXCEPTION_BITMAP, 0);
}

static bool prepare(enum beside beside)
{
	switch (beside) {
	case INJECTED_INTERRUPT: inject(EVENT(VMX_EVENT_EXTERNAL) | VECTOR, 0); return true;
	case INJECTED_NMI: inject(EVENT(VMX_EVENT_NMI) | VECTOR_NMI, 0); return true;
	case INJECTED_INT_N: inject(EVENT(VMX_EVENT_SOFTWARE_INTERRUPT) | VECTOR, 2); return true;
	case INJECTED_EXCEPTION: inject(EVENT(VMX_EVENT_EXCEPTION) | VECTOR_UD, 0); return true;
	case INJECTED_MTF: inject(EVENT(VMX_EVENT_OTHER), 0); return vmx_needs(VMCS_PRIMARY_CONTROLS, VMX_MONITOR_TRAP_FLAG);
	case PENDING_STEP:
		exchange.in.field[STATE_rflags] |= RFLAGS_TF;
		vmx_write(VMCS_GUEST_RFLAGS, exchange.in.field[STATE_rflags]);
		vmx_write(VMCS_GUEST_PENDING_DEBUG, VMX_PENDING_BS);
		return true;
	case PENDING_INTERRUPT:
		if (!story_has_apic())
			return false;
		apic_pend_interrupt(VECTOR);
		return true;
	case WINDOW: vmx_set(VMCS_PRIMARY_CONTROLS, VMX_INTERRUPT_WINDOW); return true;
	case WINDOW_OF_NMIS:
		if (!vmx_needs(VMCS_PIN_CONTROLS, VMX_PIN_VIRTUAL_NMIS) || !vmx_needs(VMCS_PRIMARY_CONTROLS, VMX_NMI_WINDOW))
			return false;
		vmx_set(VMCS_PIN_CONTROLS, VMX_PIN_VIRTUAL_NMIS);
		vmx_set(VMCS_PRIMARY_CONTROLS, VMX_NMI_WINDOW);
		return true;
	case BLOCKED_MOV_SS: vmx_write(VMCS_GUEST_INTERRUPTIBILITY, VMX_BLOCKING_MOV_SS); return true;
	case BLOCKED_STI: vmx_write(VMCS_GUEST_INTERRUPTIBILITY, VMX_BLOCKING_STI); return true;
	case BLOCKED_NMI: vmx_write(VMCS_GUEST_INTERRUPTIBILITY, VMX_BLOCKING_NMI); return true;
	case EXITING_INSTRUCTION: VMX_CODE(0x0f, 0xa2); return true;
	default: vmx_write(VMCS_GUEST_ACTIVITY, VMX_HALTED); return vmx_needs_bit(VMX_MSR_MISC, 6);
	}
}

/*
 * @index: enum beside. The timer comes behind what is injected, MTF and debug exceptions, and in front of windows and interrupts;
 * no blocking holds it off (26.5.1, 27.7.4).
 */
STORY(timer_priority)
{
	static const uint16_t handlers[] = {VECTOR, VECTOR_NMI, VECTOR, VECTOR_UD};
	static const uint8_t blocking[] = {[BLOCKED_MOV_SS] = VMX_BLOCKING_MOV_SS, [BLOCKED_STI] = VMX_BLOCKING_STI, [BLOCKED_NMI] = VMX_BLOCKING_NMI, [IN_HLT] = 0};
	enum beside beside = (enum beside)GIVEN(index);

	if (!guest_with_flags(RFLAGS_IF))
		return;
	VMX_CODE(0x90, 0x90);
	if (!use_timer(0) || !prepare(beside))
		return;
	check_run();
	if (beside == INJECTED_MTF) {
		vmx_check_exit(VMX_EXIT_MONITOR_TRAP_FLAG, 0, 0);
		vmx_check_field(VMCS_GUEST_RIP, CASE_STUB);
		return;
	}
	if (beside == PENDING_STEP) {
		vmx_check_exit(VMX_EXIT_EXCEPTION_NMI, DR6_BS, 0);
		vmx_check_field(VMCS_EXIT_INTERRUPTION_INFO, EVENT(VMX_EVENT_EXCEPTION) | VECTOR_DB);
		return;
	}
	vmx_check_exit(VMX_EXIT_PREEMPTION_TIMER, 0, 0);
	vmx_check_field(VMCS_GUEST_RIP, beside <= INJECTED_EXCEPTION ? vmx_handler(handlers[beside]) : CASE_STUB);
	vmx_check_field(VMCS_IDT_VECTORING_INFO, 0);
	vmx_check_field(VMCS_GUEST_INTERRUPTIBILITY, beside == INJECTED_NMI ? VMX_BLOCKING_NMI : blocking[beside]);
	vmx_check_field(VMCS_GUEST_ACTIVITY, beside == IN_HLT ? VMX_HALTED : VMX_ACTIVE);
	if (beside == PENDING_INTERRUPT)
		story_open();
}

static volatile uint32_t target;
static volatile bool told;

static void send_sipi_later(void *argument)
{
	while (!told)
		__asm__ volatile("pause");
	for (unsigned i = 0; i < 5000; i++)
		__asm__ volatile("pause");
	apic_send(target, ICR_STARTUP | ICR_ASSERT | (uint32_t)(uintptr_t)argument);
}

/* In wait-for-SIPI it may run out, but there is no exit for that. @mode 1: it has from the start. */
STORY(timer_waits_for_sipi)
{
	if (!guest_with_flags(0) || !vmx_needs_bit(VMX_MSR_MISC, 8) || !use_timer(GIVEN(mode) ? 0 : 10) || !cpus_needs(2))
		return;
	story_spoils(); /* a processor may keep what this state blocks: SMIs, INIT */
	target = cpus_apic_id(0);
	told = false;
	cpus_tell(1, send_sipi_later, (void *)0x77);
	vmx_write(VMCS_GUEST_ACTIVITY, VMX_WAIT_FOR_SIPI);
	told = true;
	check_run();
	vmx_check_exit(VMX_EXIT_SIPI, 0x77, 0);
	vmx_check_field(VMCS_GUEST_ACTIVITY, VMX_WAIT_FOR_SIPI);
	cpus_wait(1);
}

/* It ends the wait of MWAIT, which is told as the active state (28.3.4). */
STORY(timer_ends_mwait)
{
	if (!guest_with_flags(RFLAGS_IF) || !story_needs(vmx_has_cpuid(1, 2, 3), "cpuid.1.0.ecx[3]=0") || !use_timer(1000))
		return;
	VMX_CODE(0x0f, 0x01, 0xc8, 0x0f, 0x01, 0xc9, 0xeb, 0xfe); /* MONITOR; MWAIT; JMP to itself: it may go on at any time */
	vmx_registers[RAX] = CASE_OPERAND;
	vmx_registers[RCX] = vmx_registers[RDX] = 0;
	check_run();
	vmx_check_exit(VMX_EXIT_PREEMPTION_TIMER, 0, 0);
	vmx_check_field(VMCS_GUEST_RIP, CASE_STUB + 6);
	vmx_check_field(VMCS_GUEST_ACTIVITY, VMX_ACTIVE);
}
