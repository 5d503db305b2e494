/* events_test.c: exceptions, interrupts, windows, timers and injection in guests of VT-x. */
#include "cpu/vmx/vmx_test.h"

/* ---- exceptions ---- */

static void exceptions_exit(void **state)
{
	struct machine m;

	(void)state;
	vmx_open(&m);
	assert_int_equal(GUEST(&m, 0x0f, 0x0b), VMX_EXIT_VMCALL); /* ud2: the handler's */
	vmcs_baseline(&m);
	vmcs_put(&m, VMCS_EXCEPTION_BITMAP, 1u << VECTOR_UD);
	assert_int_equal(GUEST(&m, 0x0f, 0x0b), VMX_EXIT_EXCEPTION_NMI);
	assert_int_equal(vmcs_get(&m, VMCS_EXIT_INTERRUPTION_INFO), 0x80000306);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_RIP), GUEST_AT);
	assert_int_equal(vmcs_get(&m, VMCS_EXIT_INSTRUCTION_LENGTH), 0);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_RFLAGS), RFLAGS_FIXED | RFLAGS_RF);
	assert_int_equal(vmcs_get(&m, VMCS_IDT_VECTORING_INFO), 0);
	machine_close(&m);
}

/* INT3 and INT1 are told with their length, and do not come back with RF. */
static void software_exceptions_exit(void **state)
{
	struct machine m;

	(void)state;
	vmx_open(&m);
	vmcs_put(&m, VMCS_EXCEPTION_BITMAP, 1u << VECTOR_BP | 1u << VECTOR_DB);
	assert_int_equal(GUEST(&m, 0xcc), VMX_EXIT_EXCEPTION_NMI);
	assert_int_equal(vmcs_get(&m, VMCS_EXIT_INTERRUPTION_INFO), 0x80000603);
	assert_int_equal(vmcs_get(&m, VMCS_EXIT_INSTRUCTION_LENGTH), 1);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_RIP), GUEST_AT);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_RFLAGS), RFLAGS_FIXED);
	vmcs_baseline(&m);
	vmcs_put(&m, VMCS_EXCEPTION_BITMAP, 1u << VECTOR_DB);
	assert_int_equal(GUEST(&m, 0xf1), VMX_EXIT_EXCEPTION_NMI);
	assert_int_equal(vmcs_get(&m, VMCS_EXIT_INTERRUPTION_INFO), 0x80000501);
	assert_int_equal(vmcs_get(&m, VMCS_EXIT_QUALIFICATION), 0);
	vmcs_baseline(&m);
	vmcs_put(&m, VMCS_EXCEPTION_BITMAP, 1u << VECTOR_BP);
	assert_int_equal(GUEST(&m, 0xcd, 0x03, VMCALL), VMX_EXIT_VMCALL); /* INT n is no exception */
	machine_close(&m);
}

/* CR2 stays, and the error code decides (25.6.3). */
static void page_faults_exit(void **state)
{
	static const struct {
		uint32_t bit, mask, match;
		bool exits;
	} rows[] = {
		{1, 0, 0, true},  {1, 1, 0, true}, {1, 1, 1, false}, {1, 2, 2, false},
		{0, 0, 0, false}, {0, 1, 1, true}, {0, 0, 1, true},  {0, 1, 0, false},
	};
	struct machine m;

	(void)state;
	vmx_open(&m);
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		vmcs_baseline(&m);
		vmcs_put(&m, VMCS_EXCEPTION_BITMAP, (uint64_t)rows[i].bit << VECTOR_PF);
		vmcs_put(&m, VMCS_PF_ERROR_MASK, rows[i].mask);
		vmcs_put(&m, VMCS_PF_ERROR_MATCH, rows[i].match);
		m.cpu->cr2 = 0x1234;
		/* mov al, [0x3000], which is not present: error code 0 */
		uint32_t reason = GUEST(&m, 0x8a, 0x04, 0x25, 0x00, 0x30, 0x00, 0x00);
		assert_int_equal(reason, rows[i].exits ? VMX_EXIT_EXCEPTION_NMI : VMX_EXIT_VMCALL);
		assert_int_equal(m.cpu->cr2, rows[i].exits ? 0x1234 : 0x3000);
		if (!rows[i].exits)
			continue;
		assert_int_equal(vmcs_get(&m, VMCS_EXIT_QUALIFICATION), 0x3000);
		assert_int_equal(vmcs_get(&m, VMCS_EXIT_INTERRUPTION_INFO), 0x80000b0e);
		assert_int_equal(vmcs_get(&m, VMCS_EXIT_INTERRUPTION_ERROR), 0);
	}
	machine_close(&m);
}

/* A gate that is not present, under UD2 and INT n: #NP exits in the delivery of the first event. */
static void delivery_exits(void **state)
{
	struct machine m;

	(void)state;
	vmx_open(&m);
	guest_put(&m, IDT_AT + 16 * VECTOR_UD + 4, 0, 2);
	guest_put(&m, IDT_AT + 16 * 0x40 + 4, 0x0e00, 2);
	vmcs_put(&m, VMCS_EXCEPTION_BITMAP, 1u << VECTOR_GP | 1u << VECTOR_NP);
	assert_int_equal(GUEST(&m, 0x0f, 0x0b), VMX_EXIT_EXCEPTION_NMI);
	assert_int_equal(vmcs_get(&m, VMCS_EXIT_INTERRUPTION_INFO), 0x80000b0d);
	assert_int_equal(vmcs_get(&m, VMCS_EXIT_INTERRUPTION_ERROR), VECTOR_UD * 8 + 3);
	assert_int_equal(vmcs_get(&m, VMCS_IDT_VECTORING_INFO), 0x80000306);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_RIP), GUEST_AT);
	vmcs_baseline(&m);
	vmcs_put(&m, VMCS_EXCEPTION_BITMAP, 1u << VECTOR_NP);
	assert_int_equal(GUEST(&m, 0xcd, 0x40), VMX_EXIT_EXCEPTION_NMI);
	assert_int_equal(vmcs_get(&m, VMCS_EXIT_INTERRUPTION_INFO), 0x80000b0b);
	assert_int_equal(vmcs_get(&m, VMCS_EXIT_INTERRUPTION_ERROR), 0x40 * 8 + 2);
	assert_int_equal(vmcs_get(&m, VMCS_IDT_VECTORING_INFO), 0x80000440);
	assert_int_equal(vmcs_get(&m, VMCS_EXIT_INSTRUCTION_LENGTH), 2);
	machine_close(&m);
}

/* #GP in the delivery of #GP: a double fault is no part of that; its own failing delivery is a triple fault.
 */
static void double_and_triple_faults_exit(void **state)
{
	struct machine m;

	(void)state;
	vmx_open(&m);
	guest_put(&m, IDT_AT + 16 * VECTOR_GP + 4, 0, 2);
	vmcs_put(&m, VMCS_EXCEPTION_BITMAP, 1u << VECTOR_DF);
	/* mov ds, [rip] of a selector outside of the GDT: #GP */
	assert_int_equal(GUEST(&m, 0x66, 0xb8, 0xf8, 0xff, 0x8e, 0xd8), VMX_EXIT_EXCEPTION_NMI);
	assert_int_equal(vmcs_get(&m, VMCS_EXIT_INTERRUPTION_INFO), 0x80000b08);
	assert_int_equal(vmcs_get(&m, VMCS_IDT_VECTORING_INFO), 0);
	vmcs_baseline(&m);
	guest_put(&m, IDT_AT + 16 * VECTOR_DF + 4, 0, 2);
	assert_int_equal(GUEST(&m, 0x66, 0xb8, 0xf8, 0xff, 0x8e, 0xd8), VMX_EXIT_TRIPLE_FAULT);
	assert_int_equal(vmcs_get(&m, VMCS_IDT_VECTORING_INFO), 0);
	assert_int_equal(vmcs_get(&m, VMCS_EXIT_INTERRUPTION_INFO), 0);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_RIP), GUEST_AT + 4);
	machine_close(&m);
}

/* DR6 and DR7 stay; the qualification says what DR6 would have (28.2.1). */
static void debug_exceptions_exit(void **state)
{
	struct machine m;

	(void)state;
	vmx_open(&m);
	vmcs_put(&m, VMCS_EXCEPTION_BITMAP, 1u << VECTOR_DB);
	vmcs_or(&m, VMCS_GUEST_RFLAGS, RFLAGS_TF);
	assert_int_equal(GUEST(&m, 0x90, 0x90), VMX_EXIT_EXCEPTION_NMI);
	assert_int_equal(vmcs_get(&m, VMCS_EXIT_QUALIFICATION), DR6_BS);
	assert_int_equal(vmcs_get(&m, VMCS_EXIT_INTERRUPTION_INFO), 0x80000301);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_RIP), GUEST_AT + 1);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_PENDING_DEBUG), 0);
	assert_int_equal(m.cpu->dr6, DR6_FIXED_1);
	/* a code breakpoint: a fault, without RF */
	vmcs_baseline(&m);
	vmcs_put(&m, VMCS_EXCEPTION_BITMAP, 1u << VECTOR_DB);
	vmcs_put(&m, VMCS_GUEST_DR7, DR7_FIXED_1 | DR7_G(2));
	m.cpu->dr[2] = GUEST_AT + 1;
	assert_int_equal(GUEST(&m, 0x90, 0x90), VMX_EXIT_EXCEPTION_NMI);
	assert_int_equal(vmcs_get(&m, VMCS_EXIT_QUALIFICATION), DR6_B(2));
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_RIP), GUEST_AT + 1);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_RFLAGS), RFLAGS_FIXED);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_DR7), DR7_FIXED_1 | DR7_G(2));
	assert_int_equal(m.cpu->dr7, DR7_FIXED_1);
	/* GD */
	vmcs_baseline(&m);
	vmcs_put(&m, VMCS_EXCEPTION_BITMAP, 1u << VECTOR_DB);
	vmcs_put(&m, VMCS_GUEST_DR7, DR7_FIXED_1 | DR7_GD);
	assert_int_equal(GUEST(&m, 0x0f, 0x21, 0xf0), VMX_EXIT_EXCEPTION_NMI); /* mov rax, dr6 */
	assert_int_equal(vmcs_get(&m, VMCS_EXIT_QUALIFICATION), DR6_BD);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_RFLAGS), RFLAGS_FIXED | RFLAGS_RF);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_DR7), DR7_FIXED_1 | DR7_GD);
	machine_close(&m);
}

/* ---- pending debug exceptions ---- */

static uint32_t enter_pending(struct machine *m, uint64_t pending, uint32_t interruptibility, uint32_t inject)
{
	vmcs_baseline(m);
	vmcs_put(m, VMCS_EXCEPTION_BITMAP, 1u << VECTOR_DB);
	vmcs_put(m, VMCS_GUEST_PENDING_DEBUG, pending);
	vmcs_put(m, VMCS_GUEST_INTERRUPTIBILITY, interruptibility);
	vmcs_put(m, VMCS_ENTRY_INTERRUPTION_INFO, inject);
	vmcs_put(m, VMCS_ENTRY_INSTRUCTION_LENGTH, 2);
	vmcs_put(m, VMCS_GUEST_DR7, DR7_FIXED_1 | 0xff);
	for (unsigned i = 0; i < 4; i++)
		m->cpu->dr[i] = 0;
	return GUEST(m, 0x90, 0x90, 0x90, VMCALL);
}

static void pending_debug_is_delivered(void **state)
{
	struct machine m;

	(void)state;
	vmx_open(&m);
	assert_int_equal(enter_pending(&m, VMX_PENDING_ENABLED_BREAKPOINT | 5, 0, 0), VMX_EXIT_EXCEPTION_NMI);
	assert_int_equal(vmcs_get(&m, VMCS_EXIT_QUALIFICATION), 5);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_RIP), GUEST_AT);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_PENDING_DEBUG), 0);
	/* without BS and the enabled-breakpoint bit it is none */
	assert_int_equal(enter_pending(&m, 5, 0, 0), VMX_EXIT_VMCALL);
	/* MOV SS holds it off for an instruction */
	assert_int_equal(enter_pending(&m, VMX_PENDING_ENABLED_BREAKPOINT | 1, VMX_BLOCKING_MOV_SS, 0),
			 VMX_EXIT_EXCEPTION_NMI);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_RIP), GUEST_AT + 1);
	assert_int_equal(vmcs_get(&m, VMCS_EXIT_QUALIFICATION), 1);
	/* an injected exception loses it, INT n behind MOV SS does not */
	assert_int_equal(enter_pending(&m, VMX_PENDING_ENABLED_BREAKPOINT | 1, 0, 0x80000306),
			 VMX_EXIT_VMCALL);
	assert_int_equal(
		enter_pending(&m, VMX_PENDING_ENABLED_BREAKPOINT | 1, VMX_BLOCKING_MOV_SS, 0x80000440),
		VMX_EXIT_EXCEPTION_NMI);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_RIP), HANDLER_AT);
	machine_close(&m);
}

/* An instruction that exits behind MOV SS leaves what is held off in the field, and the shadow. */
static void pending_debug_is_saved(void **state)
{
	struct machine m;

	(void)state;
	vmx_open(&m);
	vmcs_put(&m, VMCS_GUEST_DR7, DR7_FIXED_1 | DR7_G(1) | 3u << DR7_RW_SHIFT(1) | 1u << DR7_LEN_SHIFT(1));
	m.cpu->dr[1] = GUEST_AT + 0x100;
	guest_put(&m, GUEST_AT + 0x100, 16, 2);
	/* mov ss, [GUEST_AT + 100h]; cpuid */
	assert_int_equal(GUEST(&m, 0x8e, 0x15, 0xfa, 0x00, 0x00, 0x00, 0x0f, 0xa2), VMX_EXIT_CPUID);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_RIP), GUEST_AT + 6);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_INTERRUPTIBILITY), VMX_BLOCKING_MOV_SS);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_PENDING_DEBUG), VMX_PENDING_ENABLED_BREAKPOINT | 2);
	assert_int_equal(m.cpu->dr6_pending, 0);
	machine_close(&m);
}

/* ---- interrupts ---- */

static int acknowledged;

static int acknowledge(void *owner)
{
	struct machine *m = owner;

	acknowledged++;
	cpu_set_interrupt_line(m->cpu, false);
	return 0x55;
}

static void interrupts_open_host(struct machine *m)
{
	vmx_open(m);
	m->cpu->bus.interrupt_acknowledge = acknowledge;
	acknowledged = 0;
}

static void interrupts_exit(void **state)
{
	struct machine m;

	(void)state;
	interrupts_open_host(&m);
	vmcs_or(&m, VMCS_PIN_CONTROLS, VMX_PIN_EXTERNAL_INTERRUPT);
	cpu_set_interrupt_line(m.cpu, true);
	assert_int_equal(GUEST(&m, 0x90, VMCALL), VMX_EXIT_EXTERNAL_INTERRUPT); /* IF = 0 */
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_RIP), GUEST_AT);
	assert_int_equal(vmcs_get(&m, VMCS_EXIT_INTERRUPTION_INFO), 0);
	assert_int_equal(acknowledged, 0);
	vmcs_or(&m, VMCS_EXIT_CONTROLS, VMX_EXIT_ACKNOWLEDGE);
	assert_int_equal(GUEST(&m, 0x90, VMCALL), VMX_EXIT_EXTERNAL_INTERRUPT);
	assert_int_equal(vmcs_get(&m, VMCS_EXIT_INTERRUPTION_INFO), 0x80000055);
	assert_int_equal(acknowledged, 1);
	/* without the control it is the guest's, by IF */
	vmcs_baseline(&m);
	cpu_set_interrupt_line(m.cpu, true);
	assert_int_equal(GUEST(&m, 0x90, VMCALL), VMX_EXIT_VMCALL);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_RIP), GUEST_AT + 1);
	vmcs_baseline(&m);
	vmcs_or(&m, VMCS_GUEST_RFLAGS, RFLAGS_IF);
	assert_int_equal(GUEST(&m, 0x90, VMCALL), VMX_EXIT_VMCALL);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_RIP), HANDLER_AT);
	assert_int_equal(acknowledged, 2);
	machine_close(&m);
}

/* HLT is left behind, and saved as it was. */
static void halted_guest_exits(void **state)
{
	struct machine m;

	(void)state;
	interrupts_open_host(&m);
	vmcs_or(&m, VMCS_PIN_CONTROLS, VMX_PIN_EXTERNAL_INTERRUPT);
	vmcs_put(&m, VMCS_GUEST_ACTIVITY, VMX_HALTED);
	cpu_set_interrupt_line(m.cpu, true);
	assert_int_equal(GUEST(&m, 0x90, VMCALL), VMX_EXIT_EXTERNAL_INTERRUPT);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_ACTIVITY), VMX_HALTED);
	/* shutdown holds interrupts off, not NMIs */
	vmcs_baseline(&m);
	vmcs_or(&m, VMCS_PIN_CONTROLS, VMX_PIN_EXTERNAL_INTERRUPT | VMX_PIN_NMI);
	vmcs_put(&m, VMCS_GUEST_ACTIVITY, VMX_SHUTDOWN);
	static const uint8_t code[] = {0x90, VMCALL};
	assert_int_equal(vmx_run_for(&m, code, sizeof(code), 100), CPU_STOP_HALT);
	assert_true(m.cpu->msr.vmx_guest);
	assert_false(cpu_runnable(m.cpu));
	cpu_raise_nmi(m.cpu);
	assert_true(cpu_runnable(m.cpu));
	m.cpu->stop_at = m.cpu->retired + 100;
	assert_int_equal(cpu_run(m.cpu), CPU_STOP_HALT);
	assert_int_equal(m.cpu->rip, HOST_AT + 1);
	assert_int_equal(vmcs_get(&m, VMCS_EXIT_REASON), VMX_EXIT_EXCEPTION_NMI);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_ACTIVITY), VMX_SHUTDOWN);
	machine_close(&m);
}

static void sipi_and_init_exit(void **state)
{
	static const uint8_t code[] = {0x90, VMCALL};
	struct machine m;

	(void)state;
	vmx_open(&m);
	vmcs_put(&m, VMCS_GUEST_ACTIVITY, VMX_WAIT_FOR_SIPI);
	assert_int_equal(vmx_run_for(&m, code, sizeof(code), 100), CPU_STOP_HALT);
	assert_true(m.cpu->msr.vmx_guest);
	cpu_raise_init(m.cpu, false); /* blocked */
	cpu_raise_nmi(m.cpu);
	assert_false(cpu_runnable(m.cpu));
	cpu_start(m.cpu, 0x9a);
	assert_true(cpu_runnable(m.cpu));
	m.cpu->stop_at = m.cpu->retired + 1;
	cpu_run(m.cpu);
	assert_false(m.cpu->msr.vmx_guest);
	assert_int_equal(vmcs_get(&m, VMCS_EXIT_REASON), VMX_EXIT_SIPI);
	assert_int_equal(vmcs_get(&m, VMCS_EXIT_QUALIFICATION), 0x9a);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_ACTIVITY), VMX_WAIT_FOR_SIPI);
	assert_true(m.cpu->init_pending);
	m.cpu->nmi_pending = false;
	/* INIT waits for a guest that takes it */
	vmcs_baseline(&m);
	assert_int_equal(GUEST(&m, 0x90, VMCALL), VMX_EXIT_INIT);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_RIP), GUEST_AT);
	assert_false(m.cpu->init_pending);
	machine_close(&m);
}

/* ---- NMIs ---- */

static void nmis_exit(void **state)
{
	struct machine m;

	(void)state;
	vmx_open(&m);
	vmcs_or(&m, VMCS_PIN_CONTROLS, VMX_PIN_NMI);
	m.cpu->nmi_blocked = true; /* in the host */
	cpu_raise_nmi(m.cpu);
	assert_int_equal(GUEST(&m, 0x90, VMCALL), VMX_EXIT_EXCEPTION_NMI);
	assert_int_equal(vmcs_get(&m, VMCS_EXIT_INTERRUPTION_INFO), 0x80000202);
	assert_true(m.cpu->nmi_blocked);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_INTERRUPTIBILITY), 0);
	/* without it the guest takes it, and exits with NMIs blocked */
	vmcs_baseline(&m);
	cpu_raise_nmi(m.cpu);
	assert_int_equal(GUEST(&m, 0x90, VMCALL), VMX_EXIT_VMCALL);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_RIP), HANDLER_AT);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_INTERRUPTIBILITY), VMX_BLOCKING_NMI);
	assert_true(m.cpu->nmi_blocked);
	machine_close(&m);
}

static void virtual_nmis(void **state)
{
	const uint32_t pin = VMX_PIN_NMI | VMX_PIN_VIRTUAL_NMIS;
	struct machine m;

	(void)state;
	vmx_open(&m);
	/* an injected NMI blocks virtual ones; IRET opens the window */
	vmcs_or(&m, VMCS_PIN_CONTROLS, pin);
	vmcs_or(&m, VMCS_PRIMARY_CONTROLS, VMX_NMI_WINDOW);
	vmcs_put(&m, VMCS_ENTRY_INTERRUPTION_INFO, 0x80000202);
	m.cpu->nmi_blocked = true;
	assert_int_equal(GUEST(&m, 0x90, VMCALL), VMX_EXIT_VMCALL);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_RIP), HANDLER_AT);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_INTERRUPTIBILITY), VMX_BLOCKING_NMI);
	assert_false(m.cpu->nmi_blocked);
	machine_write(&m, HANDLER_AT, (const uint8_t[]){0x48, 0xcf}, 2); /* iretq */
	assert_int_equal(GUEST(&m, 0x90, VMCALL), VMX_EXIT_NMI_WINDOW);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_RIP), GUEST_AT);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_INTERRUPTIBILITY), 0);
	/* the window comes before the NMI, and not behind MOV SS */
	vmcs_baseline(&m);
	vmcs_or(&m, VMCS_PIN_CONTROLS, pin);
	vmcs_or(&m, VMCS_PRIMARY_CONTROLS, VMX_NMI_WINDOW);
	vmcs_put(&m, VMCS_GUEST_INTERRUPTIBILITY, VMX_BLOCKING_MOV_SS);
	m.cpu->nmi_blocked = true;
	cpu_raise_nmi(m.cpu);
	static const uint8_t code[] = {0x90, VMCALL};
	vmx_run_for(&m, code, sizeof(code), 20); /* the NMI is the host's then */
	assert_int_equal(vmcs_get(&m, VMCS_EXIT_REASON), VMX_EXIT_NMI_WINDOW);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_RIP), GUEST_AT + 1);
	machine_close(&m);
}

/* A fault of IRET after it has unblocked NMIs (28.2.2). */
static void iret_tells_of_nmis(void **state)
{
	struct machine m;

	(void)state;
	vmx_open(&m);
	vmcs_put(&m, VMCS_EXCEPTION_BITMAP, 1u << VECTOR_PF);
	vmcs_put(&m, VMCS_GUEST_INTERRUPTIBILITY, VMX_BLOCKING_NMI);
	vmcs_put(&m, VMCS_GUEST_RSP, 0x3000); /* not present */
	assert_int_equal(GUEST(&m, 0x48, 0xcf), VMX_EXIT_EXCEPTION_NMI);
	assert_int_equal(vmcs_get(&m, VMCS_EXIT_INTERRUPTION_INFO), 0x80001b0e);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_INTERRUPTIBILITY), 0);
	vmcs_put(&m, VMCS_GUEST_INTERRUPTIBILITY, 0);
	assert_int_equal(GUEST(&m, 0x48, 0xcf), VMX_EXIT_EXCEPTION_NMI);
	assert_int_equal(vmcs_get(&m, VMCS_EXIT_INTERRUPTION_INFO), 0x80000b0e);
	/* with NMI exiting it unblocks none */
	vmcs_or(&m, VMCS_PIN_CONTROLS, VMX_PIN_NMI);
	vmcs_put(&m, VMCS_GUEST_INTERRUPTIBILITY, VMX_BLOCKING_NMI);
	assert_int_equal(GUEST(&m, 0x48, 0xcf), VMX_EXIT_EXCEPTION_NMI);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_INTERRUPTIBILITY), VMX_BLOCKING_NMI);
	/* virtual NMIs */
	vmcs_or(&m, VMCS_PIN_CONTROLS, VMX_PIN_VIRTUAL_NMIS);
	assert_int_equal(GUEST(&m, 0x48, 0xcf), VMX_EXIT_EXCEPTION_NMI);
	assert_int_equal(vmcs_get(&m, VMCS_EXIT_INTERRUPTION_INFO), 0x80001b0e);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_INTERRUPTIBILITY), 0);
	machine_close(&m);
}

/* ---- windows, timer, monitor trap flag ---- */

static void interrupt_window_exits(void **state)
{
	struct machine m;

	(void)state;
	vmx_open(&m);
	vmcs_or(&m, VMCS_PRIMARY_CONTROLS, VMX_INTERRUPT_WINDOW);
	/* sti; nop; nop: behind the shadow */
	assert_int_equal(GUEST(&m, 0xfb, 0x90, 0x90, VMCALL), VMX_EXIT_INTERRUPT_WINDOW);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_RIP), GUEST_AT + 2);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_INTERRUPTIBILITY), 0);
	vmcs_put(&m, VMCS_GUEST_RFLAGS, RFLAGS_FIXED | RFLAGS_IF);
	vmcs_put(&m, VMCS_GUEST_ACTIVITY, VMX_HALTED);
	assert_int_equal(GUEST(&m, 0x90, VMCALL), VMX_EXIT_INTERRUPT_WINDOW);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_ACTIVITY), VMX_HALTED);
	machine_close(&m);
}

static void preemption_timer_exits(void **state)
{
	struct machine m;

	(void)state;
	vmx_open(&m);
	vmcs_or(&m, VMCS_PIN_CONTROLS, VMX_PIN_PREEMPTION_TIMER);
	vmcs_or(&m, VMCS_EXIT_CONTROLS, VMX_EXIT_SAVE_PREEMPTION_TIMER);
	assert_int_equal(GUEST(&m, 0xeb, 0xfe), VMX_EXIT_PREEMPTION_TIMER); /* 0: before any instruction */
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_RIP), GUEST_AT);
	vmcs_put(&m, VMCS_PREEMPTION_TIMER, 3);
	uint64_t before = m.cpu->retired;
	assert_int_equal(GUEST(&m, 0xeb, 0xfe), VMX_EXIT_PREEMPTION_TIMER);
	assert_in_range(m.cpu->retired - before, 2u << VMX_TIMER_SHIFT, (3u << VMX_TIMER_SHIFT) + 8);
	assert_int_equal(vmcs_get(&m, VMCS_PREEMPTION_TIMER), 0);
	vmcs_put(&m, VMCS_PREEMPTION_TIMER, 100);
	assert_int_equal(GUEST(&m, 0x90, VMCALL), VMX_EXIT_VMCALL);
	assert_in_range(vmcs_get(&m, VMCS_PREEMPTION_TIMER), 99, 100);
	/* it ends HLT, at a tick that the engine can ask for */
	static const uint8_t hlt[] = {0xf4, VMCALL};
	vmcs_baseline(&m);
	vmcs_or(&m, VMCS_PIN_CONTROLS, VMX_PIN_PREEMPTION_TIMER);
	vmcs_put(&m, VMCS_PREEMPTION_TIMER, 1000);
	assert_int_equal(vmx_run_for(&m, hlt, sizeof(hlt), 100), CPU_STOP_HALT);
	assert_true(m.cpu->msr.vmx_guest);
	assert_false(cpu_runnable(m.cpu));
	m.cpu->clock_offset += cpu_wait_end(m.cpu) - cpu_ticks(m.cpu);
	assert_true(cpu_runnable(m.cpu));
	m.cpu->stop_at = m.cpu->retired + 100;
	assert_int_equal(cpu_run(m.cpu), CPU_STOP_HALT);
	assert_int_equal(vmcs_get(&m, VMCS_EXIT_REASON), VMX_EXIT_PREEMPTION_TIMER);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_ACTIVITY), VMX_HALTED);
	machine_close(&m);
}

static void monitor_trap_flag_exits(void **state)
{
	struct machine m;

	(void)state;
	vmx_open(&m);
	vmcs_or(&m, VMCS_PRIMARY_CONTROLS, VMX_MONITOR_TRAP_FLAG);
	assert_int_equal(GUEST(&m, 0x90, 0x90, 0x90), VMX_EXIT_MONITOR_TRAP_FLAG);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_RIP), GUEST_AT + 1);
	/* behind the delivery of a fault, and of what is injected */
	assert_int_equal(GUEST(&m, 0x90, 0x0f, 0x0b), VMX_EXIT_MONITOR_TRAP_FLAG);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_RIP), HANDLER_AT);
	vmcs_put(&m, VMCS_GUEST_RIP, GUEST_AT);
	vmcs_put(&m, VMCS_ENTRY_INTERRUPTION_INFO, 0x80000020 | VMX_EVENT_SOFTWARE_INTERRUPT << 8);
	vmcs_put(&m, VMCS_ENTRY_INSTRUCTION_LENGTH, 2);
	assert_int_equal(GUEST(&m, 0x90, VMCALL), VMX_EXIT_MONITOR_TRAP_FLAG);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_RIP), HANDLER_AT);
	/* an iteration of REP is a boundary */
	vmcs_baseline(&m);
	vmcs_or(&m, VMCS_PRIMARY_CONTROLS, VMX_MONITOR_TRAP_FLAG);
	m.cpu->reg[RCX] = 3;
	m.cpu->reg[RDI] = GUEST_AT + 0x200;
	assert_int_equal(GUEST(&m, 0xf3, 0xaa), VMX_EXIT_MONITOR_TRAP_FLAG);
	assert_int_equal(m.cpu->reg[RCX], 2);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_RIP), GUEST_AT);
	/* injected, without the control, before any instruction */
	vmcs_baseline(&m);
	vmcs_put(&m, VMCS_ENTRY_INTERRUPTION_INFO, 0x80000000 | VMX_EVENT_OTHER << 8);
	assert_int_equal(GUEST(&m, 0x90, VMCALL), VMX_EXIT_MONITOR_TRAP_FLAG);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_RIP), GUEST_AT);
	/* before the trap of the same instruction, which is left pending */
	vmcs_baseline(&m);
	vmcs_or(&m, VMCS_PRIMARY_CONTROLS, VMX_MONITOR_TRAP_FLAG);
	vmcs_or(&m, VMCS_GUEST_RFLAGS, RFLAGS_TF);
	assert_int_equal(GUEST(&m, 0x90, VMCALL), VMX_EXIT_MONITOR_TRAP_FLAG);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_PENDING_DEBUG), VMX_PENDING_BS);
	/* HLT is a boundary too */
	vmcs_baseline(&m);
	vmcs_or(&m, VMCS_PRIMARY_CONTROLS, VMX_MONITOR_TRAP_FLAG);
	assert_int_equal(GUEST(&m, 0xf4), VMX_EXIT_MONITOR_TRAP_FLAG);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_ACTIVITY), VMX_HALTED);
	machine_close(&m);
}

/* ---- injection ---- */

static void events_are_injected(void **state)
{
	struct machine m;

	(void)state;
	vmx_open(&m);
	/* #GP with an error code; RF as it was loaded, and the RIP of the guest */
	vmcs_put(&m, VMCS_ENTRY_INTERRUPTION_INFO, 0x80000b0d);
	vmcs_put(&m, VMCS_ENTRY_EXCEPTION_ERROR, 0x1234);
	assert_int_equal(GUEST(&m, 0x90, VMCALL), VMX_EXIT_VMCALL);
	uint64_t frame = vmcs_get(&m, VMCS_GUEST_RSP);
	assert_int_equal(guest_get(&m, frame, 8), 0x1234);
	assert_int_equal(guest_get(&m, frame + 8, 8), GUEST_AT);
	assert_int_equal(guest_get(&m, frame + 24, 8), RFLAGS_FIXED);
	assert_int_equal(vmcs_get(&m, VMCS_ENTRY_INTERRUPTION_INFO), 0xb0d); /* the valid bit has gone */
	/* INT n and INT3 return behind the instruction */
	vmcs_baseline(&m);
	vmcs_put(&m, VMCS_ENTRY_INTERRUPTION_INFO, 0x80000603);
	vmcs_put(&m, VMCS_ENTRY_INSTRUCTION_LENGTH, 1);
	assert_int_equal(GUEST(&m, 0x90, VMCALL), VMX_EXIT_VMCALL);
	assert_int_equal(guest_get(&m, vmcs_get(&m, VMCS_GUEST_RSP), 8), GUEST_AT + 1);
	/* #DB leaves DR6 and DR7 */
	vmcs_baseline(&m);
	vmcs_put(&m, VMCS_ENTRY_INTERRUPTION_INFO, 0x80000301);
	vmcs_put(&m, VMCS_GUEST_DR7, DR7_FIXED_1 | DR7_GD);
	m.cpu->dr6 = DR6_FIXED_1 | 0xf;
	assert_int_equal(GUEST(&m, 0x90, VMCALL), VMX_EXIT_VMCALL);
	assert_int_equal(m.cpu->dr6, DR6_FIXED_1 | 0xf);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_DR7), DR7_FIXED_1 | DR7_GD);
	/* a fault in the delivery tells of the event, with the length of the entry */
	vmcs_baseline(&m);
	guest_put(&m, IDT_AT + 16 * 0x40 + 4, 0, 2);
	vmcs_put(&m, VMCS_EXCEPTION_BITMAP, 1u << VECTOR_GP);
	vmcs_put(&m, VMCS_ENTRY_INTERRUPTION_INFO, 0x80000440);
	vmcs_put(&m, VMCS_ENTRY_INSTRUCTION_LENGTH, 2);
	assert_int_equal(GUEST(&m, 0x90, VMCALL), VMX_EXIT_EXCEPTION_NMI);
	assert_int_equal(vmcs_get(&m, VMCS_IDT_VECTORING_INFO), 0x80000440);
	assert_int_equal(vmcs_get(&m, VMCS_EXIT_INSTRUCTION_LENGTH), 2);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_RIP), GUEST_AT);
	/* so does an NMI's, with NMIs blocked */
	vmcs_baseline(&m);
	guest_put(&m, IDT_AT + 16 * VECTOR_NMI + 4, 0, 2);
	vmcs_put(&m, VMCS_EXCEPTION_BITMAP, 1u << VECTOR_GP);
	vmcs_put(&m, VMCS_ENTRY_INTERRUPTION_INFO, 0x80000202);
	assert_int_equal(GUEST(&m, 0x90, VMCALL), VMX_EXIT_EXCEPTION_NMI);
	assert_int_equal(vmcs_get(&m, VMCS_IDT_VECTORING_INFO), 0x80000202);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_INTERRUPTIBILITY), VMX_BLOCKING_NMI);
	/* it wakes */
	vmcs_baseline(&m);
	vmcs_put(&m, VMCS_GUEST_ACTIVITY, VMX_HALTED);
	vmcs_or(&m, VMCS_GUEST_RFLAGS, RFLAGS_IF);
	vmcs_put(&m, VMCS_ENTRY_INTERRUPTION_INFO, 0x80000050);
	assert_int_equal(GUEST(&m, 0x90, VMCALL), VMX_EXIT_VMCALL);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_RIP), HANDLER_AT);
	assert_int_equal(vmcs_get(&m, VMCS_GUEST_ACTIVITY), VMX_ACTIVE);
	machine_close(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(exceptions_exit),
		cmocka_unit_test(software_exceptions_exit),
		cmocka_unit_test(page_faults_exit),
		cmocka_unit_test(delivery_exits),
		cmocka_unit_test(double_and_triple_faults_exit),
		cmocka_unit_test(debug_exceptions_exit),
		cmocka_unit_test(pending_debug_is_delivered),
		cmocka_unit_test(pending_debug_is_saved),
		cmocka_unit_test(interrupts_exit),
		cmocka_unit_test(halted_guest_exits),
		cmocka_unit_test(sipi_and_init_exit),
		cmocka_unit_test(nmis_exit),
		cmocka_unit_test(virtual_nmis),
		cmocka_unit_test(iret_tells_of_nmis),
		cmocka_unit_test(interrupt_window_exits),
		cmocka_unit_test(preemption_timer_exits),
		cmocka_unit_test(monitor_trap_flag_exits),
		cmocka_unit_test(events_are_injected),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
