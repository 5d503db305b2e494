/*
 * traps.c: the monitor trap flag behind each kind of instruction and event, and the windows in each blocking and activity state
 * (SDM 3C 26.2, 26.5.2, 27.7.5, 27.7.6, 27.7.8).
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

/* ---- the monitor trap flag ---- */

enum { NEXT = 1000, HANDLER = 2000 }; /* where the guest is then: an offset, the next instruction, a vector's handler */

/* Code, and what the exit finds. */
static const struct stepped {
	uint8_t code[10], length;
	uint16_t then;
	uint8_t blocking;
} steps[] = {
	{{0x90}, 1, NEXT, 0},
	{{0xfa}, 1, NEXT, 0},                               /* CLI */
	{{0xfb}, 1, NEXT, VMX_BLOCKING_STI},                /* STI */
	{{0x8e, 0xd2}, 2, NEXT, VMX_BLOCKING_MOV_SS},       /* MOV SS, EDX */
	{{0x8e, 0xda}, 2, NEXT, 0},                         /* MOV DS, EDX */
	{{0x9c}, 1, NEXT, 0},                               /* PUSHF */
	{{0x50}, 1, NEXT, 0},
	{{0xeb, 0x10}, 2, 0x12, 0},                         /* JMP */
	{{0xe8, 0x10, 0, 0, 0}, 5, 0x15, 0},                /* CALL */
	{{0x75, 0x10}, 2, NEXT, 0},                         /* JNE, not taken */
	{{0xe2, 0x10}, 2, 0x12, 0},                         /* LOOP */
	{{0xcd, 0x41}, 2, HANDLER + 0x41, 0},
	{{0xcc}, 1, HANDLER + VECTOR_BP, 0},
	{{0xf1}, 1, HANDLER + VECTOR_DB, 0},
	{{0x0f, 0x0b}, 2, HANDLER + VECTOR_UD, 0},
	{{0xf7, 0xf6}, 2, HANDLER + VECTOR_DE, 0},          /* DIV ESI of 0 */
	{{0x8e, 0xdd}, 2, HANDLER + VECTOR_GP, 0},          /* MOV DS, EBP, beyond the limit */
	{{0x8a, 0x04, 0x25, 0, 0, 0, 0x40}, 7, HANDLER + VECTOR_PF, 0},
	{{0xf3, 0xaa}, 2, 0, 0},                            /* REP STOSB of two: after the first */
	{{0xf3, 0xa4}, 2, 0, 0},                            /* REP MOVSB */
	{{0x0f, 0x31}, 2, NEXT, 0},                         /* RDTSC */
	{{0x0f, 0x20, 0xc0}, 3, NEXT, 0},                   /* MOV RAX, CR0 */
	{{0x0f, 0x20, 0xe0}, 3, NEXT, 0},
	{{0x0f, 0x21, 0xf0}, 3, NEXT, 0},                   /* MOV RAX, DR6 */
	{{0x0f, 0x01, 0x3b}, 3, NEXT, 0},                   /* INVLPG [RBX] */
	{{0x0f, 0x06}, 2, NEXT, 0},                         /* CLTS */
	{{0xf0, 0xff, 0x03}, 3, NEXT, 0},                   /* LOCK INC [RBX] */
	{{0xf3, 0x90}, 2, NEXT, 0},                         /* PAUSE */
	{{0x0f, 0x01, 0xf8}, 3, NEXT, 0},                   /* SWAPGS */
	{{0x0f, 0x05}, 2, 3000, 0},                         /* SYSCALL */
	{{0xdb, 0xe3}, 2, NEXT, 0},                         /* FNINIT */
	{{0xe4, 0x80}, 2, NEXT, 0},                         /* IN */
	{{0xf4}, 1, NEXT, 0},                               /* HLT */
	/* Exits of their own, and no other. */
	{{0x0f, 0xa2}, 2, 0, 0},                            /* CPUID */
	{{0x0f, 0x01, 0xc1}, 3, 0, 0},                      /* VMCALL */
};
#define STEP_CPUID  33u
#define STEP_VMCALL 34u
#define STEP_REP    18u

/* @index: the instruction. */
STORY(trap_behind)
{
	unsigned which = (unsigned)GIVEN(index);
	const struct stepped *s = &steps[which];

	if (!guest_with_flags(0) || !vmx_needs(VMCS_PRIMARY_CONTROLS, VMX_MONITOR_TRAP_FLAG))
		return;
	vmx_set(VMCS_PRIMARY_CONTROLS, VMX_MONITOR_TRAP_FLAG);
	vmx_write(VMCS_EXCEPTION_BITMAP, 0);
	vmx_code(s->code, s->length);
	vmx_registers[RAX] = 0;
	vmx_registers[RCX] = 2;
	vmx_registers[RDX] = exchange.in.field[STATE_ss];
	vmx_registers[RBX] = vmx_registers[RDI] = CASE_OPERAND;
	vmx_registers[RSI] = which == STEP_REP + 1 ? CASE_OPERAND2 : 0;
	vmx_registers[RBP] = 0x200;
	vmx_write(VMCS_GUEST_RFLAGS, RFLAGS_FIXED | RFLAGS_ZF);
	world_accept(CASE_OPERAND, 8);
	check_run();
	world_accept(CASE_STACK - 16, 16);
	if (which == STEP_CPUID || which == STEP_VMCALL) {
		vmx_check_exit(which == STEP_CPUID ? VMX_EXIT_CPUID : VMX_EXIT_VMCALL, 0, s->length);
		vmx_check_field(VMCS_GUEST_RIP, CASE_STUB);
		return;
	}
	vmx_check_exit(VMX_EXIT_MONITOR_TRAP_FLAG, 0, 0);
	vmx_check_field(VMCS_GUEST_RIP, s->then == 3000      ? CASE_LAND_SYSCALL
					: s->then >= HANDLER ? vmx_handler(s->then - HANDLER)
					: s->then == NEXT    ? CASE_STUB + s->length
							     : CASE_STUB + s->then);
	vmx_check_field(VMCS_GUEST_INTERRUPTIBILITY, s->blocking);
	vmx_check_field(VMCS_IDT_VECTORING_INFO, 0);
	vmx_check_field(VMCS_GUEST_PENDING_DEBUG, 0);
	if (which == STEP_REP || which == STEP_REP + 1)
		story_check("rcx", 1, vmx_registers[RCX]);
}

/* An event that VM entry injects: the exit comes in front of its handler's first instruction. @type, @vector. */
STORY(trap_injected)
{
	unsigned type = (unsigned)GIVEN(type), vector = (unsigned)GIVEN(vector);
	bool error = type == VMX_EVENT_EXCEPTION && vector_has_error_code(vector);

	if (!guest_with_flags(RFLAGS_IF) || !vmx_needs(VMCS_PRIMARY_CONTROLS, VMX_MONITOR_TRAP_FLAG))
		return;
	vmx_set(VMCS_PRIMARY_CONTROLS, VMX_MONITOR_TRAP_FLAG);
	vmx_write(VMCS_ENTRY_INTERRUPTION_INFO, EVENT(type) | vector | (error ? VMX_EVENT_ERROR_CODE : 0));
	vmx_write(VMCS_ENTRY_EXCEPTION_ERROR, 0);
	vmx_write(VMCS_ENTRY_INSTRUCTION_LENGTH, 1);
	check_run();
	vmx_check_exit(VMX_EXIT_MONITOR_TRAP_FLAG, 0, 0);
	vmx_check_field(VMCS_GUEST_RIP, vmx_handler(vector));
	vmx_check_field(VMCS_IDT_VECTORING_INFO, 0);
	vmx_check_field(VMCS_GUEST_INTERRUPTIBILITY, type == VMX_EVENT_NMI ? VMX_BLOCKING_NMI : 0);
}

/*
 * Beside other events at the same boundary: @index 0: a single step, which is pending behind the exit; 1: a data breakpoint; 2: the last of REP; 3: an
 * external interrupt; 4: an interrupt window; 5: an NMI window; 6: an exception that exits; 7: the control off and a pending MTF injected in HLT; 8: injected, with
 * blocking by MOV SS; 9: once and no more.
 */
STORY(trap_beside)
{
	unsigned which = (unsigned)GIVEN(index);
	uint64_t dr7 = DR7_FIXED_1 | DR7_L(0) | 3ull << DR7_RW_SHIFT(0) | 0ull << DR7_LEN_SHIFT(0);

	if (!guest_with_flags(which == 0 ? RFLAGS_TF : which == 3 || which == 7 ? RFLAGS_IF : 0) || !vmx_needs(VMCS_PRIMARY_CONTROLS, VMX_MONITOR_TRAP_FLAG))
		return;
	VMX_CODE(0x90, 0x90, 0x90);
	if (which < 7)
		vmx_set(VMCS_PRIMARY_CONTROLS, VMX_MONITOR_TRAP_FLAG);
	switch (which) {
	case 1:
		VMX_CODE(0x88, 0x03); /* MOV [RBX], AL */
		vmx_registers[RBX] = CASE_OPERAND;
		exchange.in.field[STATE_dr0] = CASE_OPERAND;
		vmx_write(VMCS_GUEST_DR7, dr7);
		world_accept(CASE_OPERAND, 1);
		break;
	case 2: /* REP of one: the instruction is over */
		VMX_CODE(0xf3, 0xaa);
		vmx_registers[RCX] = 1;
		vmx_registers[RDI] = CASE_OPERAND;
		world_accept(CASE_OPERAND, 1);
		break;
	case 3:
		if (!story_has_apic() || !vmx_needs_clear(VMCS_PIN_CONTROLS, VMX_PIN_EXTERNAL_INTERRUPT))
			return;
		vmx_clear(VMCS_PIN_CONTROLS, VMX_PIN_EXTERNAL_INTERRUPT);
		apic_pend_interrupt(VECTOR);
		break;
	case 4:
		vmx_set(VMCS_PRIMARY_CONTROLS, VMX_INTERRUPT_WINDOW);
		VMX_CODE(0xfb, 0x90, 0x90); /* STI; NOP */
		break;
	case 5:
		if (!vmx_needs(VMCS_PIN_CONTROLS, VMX_PIN_VIRTUAL_NMIS) || !vmx_needs(VMCS_PRIMARY_CONTROLS, VMX_NMI_WINDOW))
			return;
		vmx_set(VMCS_PIN_CONTROLS, VMX_PIN_VIRTUAL_NMIS);
		vmx_set(VMCS_PRIMARY_CONTROLS, VMX_NMI_WINDOW);
		vmx_write(VMCS_GUEST_INTERRUPTIBILITY, VMX_BLOCKING_MOV_SS);
		break;
	case 6: VMX_CODE(0x0f, 0x0b); break;
	case 7:
		if (!vmx_needs_bit(VMX_MSR_MISC, 6))
			return;
		vmx_write(VMCS_GUEST_ACTIVITY, VMX_HALTED);
		break;
	case 8: vmx_write(VMCS_GUEST_INTERRUPTIBILITY, VMX_BLOCKING_MOV_SS); break;
	default: break;
	}
	if (which >= 7)
		vmx_write(VMCS_ENTRY_INTERRUPTION_INFO, EVENT(VMX_EVENT_OTHER));
	check_run();
	switch (which) {
	case 0:
	case 1:
		vmx_check_exit(VMX_EXIT_MONITOR_TRAP_FLAG, 0, 0);
		vmx_check_field(VMCS_GUEST_PENDING_DEBUG, which ? VMX_PENDING_ENABLED_BREAKPOINT | 1 : VMX_PENDING_BS);
		vmx_check_field(VMCS_GUEST_RIP, CASE_STUB + (which ? 2 : 1));
		return;
	case 3: /* it is delivered first, and the exit is in front of its handler */
		vmx_check_exit(VMX_EXIT_MONITOR_TRAP_FLAG, 0, 0);
		vmx_check_field(VMCS_GUEST_RIP, vmx_handler(VECTOR));
		apic_write(APIC_EOI, 0);
		return;
	case 4:
		vmx_check_exit(VMX_EXIT_MONITOR_TRAP_FLAG, 0, 0);
		vmx_check_field(VMCS_GUEST_RIP, CASE_STUB + 1);
		check_run(); /* behind NOP both are due */
		vmx_check_exit(VMX_EXIT_MONITOR_TRAP_FLAG, 0, 0);
		vmx_check_field(VMCS_GUEST_RIP, CASE_STUB + 2);
		check_run();
		vmx_check_exit(VMX_EXIT_INTERRUPT_WINDOW, 0, 0);
		vmx_check_field(VMCS_GUEST_RIP, CASE_STUB + 2);
		return;
	case 5:
		vmx_check_exit(VMX_EXIT_MONITOR_TRAP_FLAG, 0, 0);
		vmx_check_field(VMCS_GUEST_RIP, CASE_STUB + 1);
		check_run();
		vmx_check_exit(VMX_EXIT_NMI_WINDOW, 0, 0);
		vmx_check_field(VMCS_GUEST_RIP, CASE_STUB + 1);
		return;
	case 6:
		vmx_check_field(VMCS_EXIT_REASON, VMX_EXIT_EXCEPTION_NMI);
		vmx_check_field(VMCS_GUEST_RIP, CASE_STUB);
		return;
	default:
		vmx_check_exit(VMX_EXIT_MONITOR_TRAP_FLAG, 0, 0);
		vmx_check_field(VMCS_GUEST_RIP, which == 2 ? CASE_STUB + 2 : CASE_STUB);
		if (which == 8)
			vmx_check_field(VMCS_GUEST_INTERRUPTIBILITY, VMX_BLOCKING_MOV_SS);
		if (which == 9) /* the one that was injected is the only one */
			vmx_check_runs();
		return;
	}
}

/* ---- windows ---- */

enum { OF_INTERRUPTS = 1, OF_NMIS = 2 };

/* @index: the windows; @value: blocking, as the field has it; @mode: RFLAGS.IF; @to: in HLT. */
STORY(window_state)
{
	unsigned windows = (unsigned)GIVEN(index), blocking = (unsigned)GIVEN(value);
	bool interrupts = GIVEN(mode), halted = GIVEN(to), shadow = blocking & (VMX_BLOCKING_STI | VMX_BLOCKING_MOV_SS);
	bool nmi = windows & OF_NMIS && !(blocking & VMX_BLOCKING_NMI), window = windows & OF_INTERRUPTS && interrupts;
	bool late = shadow && (!nmi || blocking & VMX_BLOCKING_MOV_SS);
	uint64_t rip;

	if (!guest_with_flags(interrupts ? RFLAGS_IF : 0) || (halted && !vmx_needs_bit(VMX_MSR_MISC, 6)))
		return;
	if (!vmx_needs(VMCS_PIN_CONTROLS, VMX_PIN_VIRTUAL_NMIS) || !vmx_needs(VMCS_PRIMARY_CONTROLS, VMX_NMI_WINDOW) ||
	    !vmx_needs(VMCS_PIN_CONTROLS, VMX_PIN_PREEMPTION_TIMER))
		return;
	vmx_set(VMCS_PIN_CONTROLS, VMX_PIN_VIRTUAL_NMIS);
	if (windows & OF_NMIS)
		vmx_set(VMCS_PRIMARY_CONTROLS, VMX_NMI_WINDOW);
	if (windows & OF_INTERRUPTS)
		vmx_set(VMCS_PRIMARY_CONTROLS, VMX_INTERRUPT_WINDOW);
	vmx_write(VMCS_GUEST_INTERRUPTIBILITY, blocking);
	vmx_write(VMCS_GUEST_ACTIVITY, halted ? VMX_HALTED : VMX_ACTIVE);
	if (halted) {
		vmx_set(VMCS_PIN_CONTROLS, VMX_PIN_PREEMPTION_TIMER);
		vmx_write(VMCS_PREEMPTION_TIMER, 50);
	}
	VMX_CODE(0x90, 0x90, 0x90);
	check_run();
	rip = vmx_read(VMCS_GUEST_RIP);
	if (!nmi && !window) {
		vmx_check_field(VMCS_EXIT_REASON, halted ? VMX_EXIT_PREEMPTION_TIMER : VMX_EXIT_VMCALL);
	} else if (nmi && blocking & VMX_BLOCKING_STI) {
		/* STI may hold an NMI window off, and need not. */
		story_check("window", 1, vmx_reason() == VMX_EXIT_NMI_WINDOW && (rip == CASE_STUB || rip == CASE_STUB + 1));
	} else {
		vmx_check_exit(nmi ? VMX_EXIT_NMI_WINDOW : VMX_EXIT_INTERRUPT_WINDOW, 0, 0);
		vmx_check_field(VMCS_GUEST_RIP, CASE_STUB + late);
		vmx_check_field(VMCS_GUEST_INTERRUPTIBILITY, blocking & VMX_BLOCKING_NMI);
		vmx_check_field(VMCS_GUEST_ACTIVITY, halted ? VMX_HALTED : VMX_ACTIVE);
	}
}

/* Behind an event that VM entry injects: @index: the windows; @type, @vector. Its gate clears IF; an NMI blocks NMIs. */
STORY(window_injected)
{
	unsigned windows = (unsigned)GIVEN(index), type = (unsigned)GIVEN(type), vector = (unsigned)GIVEN(vector);
	bool nmi = windows & OF_NMIS && type != VMX_EVENT_NMI;

	if (!guest_with_flags(RFLAGS_IF) || !vmx_needs(VMCS_PIN_CONTROLS, VMX_PIN_VIRTUAL_NMIS) || !vmx_needs(VMCS_PRIMARY_CONTROLS, VMX_NMI_WINDOW))
		return;
	vmx_set(VMCS_PIN_CONTROLS, VMX_PIN_VIRTUAL_NMIS);
	if (windows & OF_NMIS)
		vmx_set(VMCS_PRIMARY_CONTROLS, VMX_NMI_WINDOW);
	if (windows & OF_INTERRUPTS)
		vmx_set(VMCS_PRIMARY_CONTROLS, VMX_INTERRUPT_WINDOW);
	vmx_write(VMCS_ENTRY_INTERRUPTION_INFO, EVENT(type) | vector);
	vmx_write(VMCS_ENTRY_INSTRUCTION_LENGTH, 2);
	check_run();
	vmx_check_field(VMCS_EXIT_REASON, nmi ? VMX_EXIT_NMI_WINDOW : VMX_EXIT_VMCALL);
	story_check("vector", vector, vmx_handler_vector());
	vmx_check_field(VMCS_IDT_VECTORING_INFO, 0);
	vmx_check_field(VMCS_GUEST_INTERRUPTIBILITY, type == VMX_EVENT_NMI ? VMX_BLOCKING_NMI : 0);
}

/* In shutdown there is a window for NMIs, and none for interrupts (27.7.5, 27.7.6). @index: the windows. */
STORY(window_shutdown)
{
	unsigned windows = (unsigned)GIVEN(index);

	if (!guest_with_flags(RFLAGS_IF) || !vmx_needs_bit(VMX_MSR_MISC, 7) || !vmx_needs(VMCS_PIN_CONTROLS, VMX_PIN_VIRTUAL_NMIS | VMX_PIN_PREEMPTION_TIMER) ||
	    !vmx_needs(VMCS_PRIMARY_CONTROLS, VMX_NMI_WINDOW))
		return;
	vmx_set(VMCS_PIN_CONTROLS, VMX_PIN_VIRTUAL_NMIS | VMX_PIN_PREEMPTION_TIMER);
	vmx_write(VMCS_PREEMPTION_TIMER, 50);
	if (windows & OF_NMIS)
		vmx_set(VMCS_PRIMARY_CONTROLS, VMX_NMI_WINDOW);
	if (windows & OF_INTERRUPTS)
		vmx_set(VMCS_PRIMARY_CONTROLS, VMX_INTERRUPT_WINDOW);
	vmx_write(VMCS_GUEST_ACTIVITY, VMX_SHUTDOWN);
	check_run();
	vmx_check_exit(windows & OF_NMIS ? VMX_EXIT_NMI_WINDOW : VMX_EXIT_PREEMPTION_TIMER, 0, 0);
	vmx_check_field(VMCS_GUEST_ACTIVITY, VMX_SHUTDOWN);
	vmx_check_field(VMCS_GUEST_RIP, CASE_STUB);
}
