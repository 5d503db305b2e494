/* events_test.c: exceptions and interrupts of a guest, injection, GIF, virtual interrupts and NMIs, TPR and
 * TSC. */
#include "cpu/svm/svm_test.h"

/* ---- a bus with an interrupt ---- */

static int acknowledged;
static uint64_t apic_tpr;

static int acknowledge(void *owner)
{
	(void)owner;
	acknowledged++;
	return 0x55;
}

static void tpr(void *owner, uint64_t cr8)
{
	(void)owner;
	apic_tpr = cr8;
}

static void open(struct machine *m)
{
	svm_open(m);
	m->cpu->bus.interrupt_acknowledge = acknowledge;
	m->cpu->bus.cr8_written = tpr;
	acknowledged = 0;
	apic_tpr = 77;
}

/* The frame that the handler, which is a VMMCALL, has found: @index 0 is the lowest quadword. */
static uint64_t frame(struct machine *m, unsigned index)
{
	return guest_get(m, vmcb_get(m, VMCB_RSP, 8) + 8 * index, 8);
}

/* ---- exceptions (15.12) ---- */

static void exceptions_exit_with_what_they_tell(void **state)
{
	struct machine m;

	(void)state;
	open(&m);
	vmcb_put(&m, VMCB_INTERCEPTS(2), 0xffffffff, 4);
	assert_int_equal(GUEST(&m, 0x0f, 0x0b), SVM_EXIT_EXCEPTION + VECTOR_UD);
	assert_int_equal(vmcb_get(&m, VMCB_NRIP, 8), 0);
	/* mov ds, ax with a selector beyond the GDT */
	vmcb_put(&m, VMCB_RAX, 0x1230, 8);
	assert_int_equal(GUEST(&m, 0x8e, 0xd8), SVM_EXIT_EXCEPTION + VECTOR_GP);
	assert_int_equal(vmcb_get(&m, VMCB_EXITINFO1, 8), 0x1230);
	/* INT3's address is its own, and what is behind it is told apart; INT 3 is not intercepted so. */
	assert_int_equal(GUEST(&m, 0xcc), SVM_EXIT_EXCEPTION + VECTOR_BP);
	assert_int_equal(vmcb_get(&m, VMCB_RIP, 8), GUEST_AT);
	assert_int_equal(vmcb_get(&m, VMCB_NRIP, 8), GUEST_AT + 1);
	assert_int_equal(GUEST(&m, 0xcd, 3), SVM_EXIT_VMMCALL);
	assert_int_equal(frame(&m, 0), GUEST_AT + 2);
	vmcb_put(&m, VMCB_RIP, GUEST_AT, 8);
	assert_int_equal(GUEST(&m, 0xf1), SVM_EXIT_VMMCALL); /* INT1: not by the #DB intercept */
	machine_close(&m);
}

static void page_faults_leave_cr2_alone(void **state)
{
	/* mov rbx, [rcx] */
	static const uint8_t code[] = {0x48, 0x8b, 0x19, 0x90, 0x90, VMMCALL};
	struct machine m;

	(void)state;
	open(&m);
	vmcb_put(&m, VMCB_CR2, 0x1111, 8);
	m.cpu->reg[RCX] = 0x7654321000;
	vmcb_intercept(&m, SVM_EXIT_EXCEPTION + VECTOR_PF);
	assert_int_equal(svm_run(&m, code, sizeof(code)), SVM_EXIT_EXCEPTION + VECTOR_PF);
	assert_int_equal(vmcb_get(&m, VMCB_EXITINFO1, 8), 0);
	assert_int_equal(vmcb_get(&m, VMCB_EXITINFO2, 8), 0x7654321000);
	assert_int_equal(vmcb_get(&m, VMCB_CR2, 8), 0x1111);
	assert_int_equal(vmcb_get(&m, VMCB_FETCHED, 1), 15);
	for (unsigned i = 0; i < sizeof(code); i++)
		assert_int_equal(vmcb_get(&m, VMCB_FETCHED + 1 + i, 1), code[i]);
	/* Not intercepted it is the guest's. */
	vmcb_put(&m, VMCB_INTERCEPTS(2), 0, 4);
	assert_int_equal(svm_run(&m, code, sizeof(code)), SVM_EXIT_VMMCALL);
	assert_int_equal(vmcb_get(&m, VMCB_CR2, 8), 0x7654321000);
	assert_int_equal(vmcb_get(&m, VMCB_FETCHED, 1), 0);
	machine_close(&m);
}

static void debug_exceptions_have_written_dr6(void **state)
{
	struct machine m;

	(void)state;
	open(&m);
	vmcb_intercept(&m, SVM_EXIT_EXCEPTION + VECTOR_DB);
	vmcb_put(&m, VMCB_RFLAGS, RFLAGS_FIXED | RFLAGS_TF, 8);
	/* The first instruction completes before the trap (15.5.1). */
	assert_int_equal(GUEST(&m, 0x48, 0xff, 0xc3, VMMCALL), SVM_EXIT_EXCEPTION + VECTOR_DB);
	assert_int_equal(vmcb_get(&m, VMCB_RIP, 8), GUEST_AT + 3);
	assert_int_equal(vmcb_get(&m, VMCB_DR6, 8), DR6_FIXED_1 | DR6_BS);
	/* With DR7.GD: the fault at MOV DR, before its own intercept. */
	vmcb_put(&m, VMCB_RFLAGS, RFLAGS_FIXED, 8);
	vmcb_put(&m, VMCB_RIP, GUEST_AT, 8);
	vmcb_put(&m, VMCB_DR7, DR7_FIXED_1 | DR7_GD, 8);
	vmcb_put(&m, VMCB_INTERCEPTS(1), 0xffffffff, 4);
	assert_int_equal(GUEST(&m, 0x0f, 0x21, 0xfb), SVM_EXIT_EXCEPTION + VECTOR_DB);
	assert_int_equal(vmcb_get(&m, VMCB_DR6, 8) & DR6_BD, DR6_BD);
	assert_int_equal(vmcb_get(&m, VMCB_DR7, 8), DR7_FIXED_1);
	machine_close(&m);
}

/* RF holds off the breakpoint of the first instruction (15.5.1), and is still there where that exits. */
static void resume_flag(void **state)
{
	struct machine m;

	(void)state;
	open(&m);
	vmcb_intercept(&m, SVM_EXIT_EXCEPTION + VECTOR_DB);
	vmcb_intercept(&m, SVM_EXIT_CPUID);
	vmcb_put(&m, VMCB_DR7, DR7_FIXED_1 | DR7_L(0), 8);
	m.cpu->dr[0] = GUEST_AT;
	for (unsigned breakpoint = 0; breakpoint < 2; breakpoint++) {
		vmcb_put(&m, VMCB_RFLAGS, RFLAGS_FIXED | RFLAGS_RF, 8);
		assert_int_equal(GUEST(&m, 0x0f, 0xa2), SVM_EXIT_CPUID);
		assert_int_equal(vmcb_get(&m, VMCB_RFLAGS, 8), RFLAGS_FIXED | RFLAGS_RF);
		vmcb_put(&m, VMCB_DR7, DR7_FIXED_1, 8);
	}
	vmcb_put(&m, VMCB_DR7, DR7_FIXED_1 | DR7_L(0), 8);
	vmcb_put(&m, VMCB_RFLAGS, RFLAGS_FIXED, 8);
	assert_int_equal(GUEST(&m, 0x0f, 0xa2), SVM_EXIT_EXCEPTION + VECTOR_DB);
	assert_int_equal(vmcb_get(&m, VMCB_DR6, 8), DR6_FIXED_1 | 1);
	/* One that completes uses it up. */
	vmcb_put(&m, VMCB_DR7, DR7_FIXED_1, 8);
	vmcb_put(&m, VMCB_RFLAGS, RFLAGS_FIXED | RFLAGS_RF, 8);
	assert_int_equal(GUEST(&m, 0x90, 0x0f, 0xa2), SVM_EXIT_CPUID);
	assert_int_equal(vmcb_get(&m, VMCB_RFLAGS, 8), RFLAGS_FIXED);
	machine_close(&m);
}

/* 15.7.3: the second exception is looked at before the two are combined, then #DF, then shutdown. */
static void exceptions_while_delivering(void **state)
{
	struct machine m;

	(void)state;
	open(&m);
	vmcb_put(&m, VMCB_IDTR + 4, 16 * VECTOR_UD - 1, 4); /* no gates from #UD on */
	vmcb_intercept(&m, SVM_EXIT_EXCEPTION + VECTOR_GP);
	assert_int_equal(GUEST(&m, 0x0f, 0x0b), SVM_EXIT_EXCEPTION + VECTOR_GP);
	assert_int_equal(vmcb_get(&m, VMCB_EXITINTINFO, 8), SVM_EVENT_VALID | 3u << 8 | VECTOR_UD);
	assert_int_equal(vmcb_get(&m, VMCB_EXITINFO1, 8), VECTOR_UD * 8 + 3);
	/* The #GP in delivering #GP is a #DF. */
	vmcb_put(&m, VMCB_INTERCEPTS(2), 1u << VECTOR_DF, 4);
	assert_int_equal(GUEST(&m, 0x0f, 0x0b), SVM_EXIT_EXCEPTION + VECTOR_DF);
	assert_int_equal(vmcb_get(&m, VMCB_EXITINTINFO, 8) & 0xffffffff,
			 SVM_EVENT_VALID | SVM_EVENT_ERROR_VALID | 3u << 8 | VECTOR_GP);
	vmcb_put(&m, VMCB_INTERCEPTS(2), 0, 4);
	vmcb_intercept(&m, SVM_EXIT_SHUTDOWN);
	assert_int_equal(GUEST(&m, 0x0f, 0x0b), SVM_EXIT_SHUTDOWN);
	/* A software interrupt's type. */
	vmcb_intercept(&m, SVM_EXIT_EXCEPTION + VECTOR_GP);
	assert_int_equal(GUEST(&m, 0xcd, 0x80), SVM_EXIT_EXCEPTION + VECTOR_GP);
	assert_int_equal(vmcb_get(&m, VMCB_EXITINTINFO, 8), SVM_EVENT_VALID | 4u << 8 | 0x80);
	assert_int_equal(vmcb_get(&m, VMCB_RIP, 8), GUEST_AT);
	/* Not intercepted, the guest's shutdown is the processor's. */
	vmcb_put(&m, VMCB_INTERCEPTS(2), 0, 4);
	vmcb_put(&m, VMCB_INTERCEPTS(3), 0, 4);
	assert_int_equal(svm_run_for(&m, (const uint8_t[]){0x0f, 0x0b}, 2, 100), CPU_STOP_SHUTDOWN);
	machine_close(&m);
}

/* ---- injection (15.20) ---- */

static void inject(struct machine *m, uint64_t event)
{
	vmcb_put(m, VMCB_RIP, GUEST_AT, 8);
	vmcb_put(m, VMCB_RSP, GUEST_STACK, 8);
	vmcb_put(m, VMCB_EVENTINJ, event | SVM_EVENT_VALID, 8);
	assert_int_equal(GUEST(m, 0x90, 0x90, VMMCALL), SVM_EXIT_VMMCALL);
	assert_int_equal(vmcb_get(m, VMCB_EVENTINJ, 8), event);
	assert_int_equal(vmcb_get(m, VMCB_RIP, 8), HANDLER_AT);
}

static void events_of_all_types_and_vectors(void **state)
{
	struct machine m;

	(void)state;
	open(&m);
	/* Nothing intercepts what is injected. */
	vmcb_put(&m, VMCB_INTERCEPTS(2), 0xffffffff, 4);
	vmcb_intercept(&m, SVM_EXIT_NMI);
	vmcb_intercept(&m, SVM_EXIT_INTR);
	vmcb_intercept(&m, SVM_EXIT_SWINT);
	vmcb_put(&m, VMCB_NRIP, GUEST_AT + 2, 8);
	for (unsigned vector = 0; vector < 256; vector++) {
		inject(&m, vector);
		assert_int_equal(frame(&m, 0), GUEST_AT);
		vmcb_put(&m, VMCB_NRIP, GUEST_AT + 2, 8);
		inject(&m, vector | 4u << 8);
		assert_int_equal(frame(&m, 0), GUEST_AT + 2);
	}
	for (unsigned vector = 0; vector < 32; vector++) {
		if (!(0x702f7dfbu >> vector & 1) || vector == VECTOR_BR || vector == VECTOR_OF)
			continue;
		vmcb_put(&m, VMCB_NRIP, GUEST_AT + 2, 8);
		inject(&m, vector | 3u << 8 | SVM_EVENT_ERROR_VALID | 0x1234ull << 32);
		assert_int_equal(frame(&m, 0), 0x1234);
		assert_int_equal(frame(&m, 1), vector == VECTOR_BP ? GUEST_AT + 2 : GUEST_AT);
	}
	/* The vector of an NMI is ignored, and it does not block others. */
	guest_put(&m, IDT_AT + 16 * 9, 0, 8);
	inject(&m, 9 | 2u << 8);
	assert_false(m.cpu->nmi_blocked);
	machine_close(&m);
}

static void reserved_vectors_are_refused(void **state)
{
	static const uint8_t none[] = {2, 9, 15, 20, 22, 27, 31, 32, 255};
	struct machine m;

	(void)state;
	open(&m);
	for (size_t i = 0; i < sizeof(none); i++) {
		vmcb_put(&m, VMCB_EVENTINJ, SVM_EVENT_VALID | 3u << 8 | none[i], 8);
		assert_int_equal(GUEST(&m, VMMCALL), SVM_EXIT_INVALID);
	}
	machine_close(&m);
}

/* What is injected and not delivered is in EXITINTINFO. */
static void injection_that_faults(void **state)
{
	uint64_t event = SVM_EVENT_VALID | SVM_EVENT_ERROR_VALID | 3u << 8 | VECTOR_NP | 0x88ull << 32;
	struct machine m;

	(void)state;
	open(&m);
	vmcb_put(&m, VMCB_IDTR + 4, 16 * VECTOR_NP - 1, 4);
	vmcb_intercept(&m, SVM_EXIT_EXCEPTION + VECTOR_GP);
	vmcb_put(&m, VMCB_EVENTINJ, event, 8);
	assert_int_equal(GUEST(&m, 0x90, VMMCALL), SVM_EXIT_EXCEPTION + VECTOR_GP);
	assert_int_equal(vmcb_get(&m, VMCB_EXITINTINFO, 8), event);
	assert_int_equal(vmcb_get(&m, VMCB_RIP, 8), GUEST_AT);
	machine_close(&m);
}

/* ---- physical interrupts (15.13, 15.17, 15.21) ---- */

static void interrupts_exit_and_stay(void **state)
{
	struct machine m;

	(void)state;
	open(&m);
	vmcb_intercept(&m, SVM_EXIT_INTR);
	vmcb_put(&m, VMCB_RFLAGS, RFLAGS_FIXED | RFLAGS_IF, 8);
	m.cpu->interrupt_line = true;
	assert_int_equal(GUEST(&m, 0x90, VMMCALL), SVM_EXIT_INTR);
	assert_int_equal(vmcb_get(&m, VMCB_RIP, 8), GUEST_AT);
	assert_int_equal(acknowledged, 0);
	assert_true(m.cpu->interrupt_line);
	/* In its shadow only behind the next instruction. */
	vmcb_put(&m, VMCB_INTERRUPT_SHADOW, 1, 8);
	assert_int_equal(GUEST(&m, 0x90, 0x90, VMMCALL), SVM_EXIT_INTR);
	assert_int_equal(vmcb_get(&m, VMCB_RIP, 8), GUEST_AT + 1);
	assert_int_equal(vmcb_get(&m, VMCB_INTERRUPT_SHADOW, 8), 0);
	/* An instruction that exits in a shadow is still in it. */
	vmcb_put(&m, VMCB_RIP, GUEST_AT, 8);
	vmcb_put(&m, VMCB_INTERRUPT_SHADOW, 1, 8);
	assert_int_equal(GUEST(&m, VMMCALL), SVM_EXIT_VMMCALL);
	assert_int_equal(vmcb_get(&m, VMCB_INTERRUPT_SHADOW, 8), 1);
	/* Masked by the guest, unless V_INTR_MASKING makes it the host's affair. */
	vmcb_put(&m, VMCB_INTERRUPT_SHADOW, 0, 8);
	vmcb_put(&m, VMCB_RFLAGS, RFLAGS_FIXED, 8);
	assert_int_equal(GUEST(&m, 0x90, VMMCALL), SVM_EXIT_VMMCALL);
	vmcb_put(&m, VMCB_RIP, GUEST_AT, 8);
	vmcb_put(&m, VMCB_INTERRUPT, SVM_V_INTR_MASKING, 8);
	m.cpu->rflags |= RFLAGS_IF; /* GIF = 0 holds it off in the host */
	assert_int_equal(GUEST(&m, 0x90, VMMCALL), SVM_EXIT_INTR);
	m.cpu->rflags &= ~(uint64_t)RFLAGS_IF;
	vmcb_put(&m, VMCB_RFLAGS, RFLAGS_FIXED | RFLAGS_IF, 8);
	assert_int_equal(GUEST(&m, 0x90, VMMCALL), SVM_EXIT_VMMCALL);
	assert_int_equal(acknowledged, 0);
	machine_close(&m);
}

static void interrupts_that_are_the_guests(void **state)
{
	struct machine m;

	(void)state;
	open(&m);
	vmcb_put(&m, VMCB_RFLAGS, RFLAGS_FIXED | RFLAGS_IF, 8);
	m.cpu->interrupt_line = true;
	assert_int_equal(GUEST(&m, 0x90, VMMCALL), SVM_EXIT_VMMCALL);
	assert_int_equal(acknowledged, 1);
	assert_int_equal(vmcb_get(&m, VMCB_RIP, 8), HANDLER_AT);
	machine_close(&m);
}

/* At SMBASE + 8000H: inc r15d by way of what 16-bit code has, CPUID that no one intercepts, RSM. */
static void smm_handler(struct machine *m)
{
	/* The saved R15 is at SMBASE + FF80H, by the CS prefix. */
	static const uint8_t code[] = {0x0f, 0xa2, 0x2e, 0x66, 0xff, 0x06, 0x80, 0xff, 0x0f, 0xaa};

	assert_true(phys_write(m->memory, 0x38000, code, sizeof(code)));
	m->cpu->reg[R15] = 0;
}

/* SMM out of a guest with nested paging: its handler is subject to none of the controls (15.22.3). */
static void smm_out_of_a_guest(void **state)
{
	struct machine m;

	(void)state;
	open(&m);
	nested_tables(&m);
	smm_handler(&m);
	vmcb_intercept(&m, SVM_EXIT_CPUID);
	vmcb_intercept(&m, SVM_EXIT_RSM);
	guest_put(&m, NPT_AT + 0x4000 + 8 * 0x38, 0, 8);
	m.cpu->msr.svm_gif_clear = true;
	cpu_raise_smi(m.cpu);
	assert_int_equal(GUEST(&m, 0x90, VMMCALL), SVM_EXIT_VMMCALL);
	assert_int_equal(m.cpu->reg[R15], 1);
	assert_int_equal(vmcb_get(&m, VMCB_RIP, 8), GUEST_AT + 1);
	/* And the intercepts are in force again. */
	vmcb_put(&m, VMCB_RIP, GUEST_AT, 8);
	assert_int_equal(GUEST(&m, 0x0f, 0xa2, 0x0f, 0xa2), SVM_EXIT_CPUID);
	machine_close(&m);
}

static void nmi_smi_and_init(void **state)
{
	struct machine m;

	(void)state;
	open(&m);
	vmcb_intercept(&m, SVM_EXIT_NMI);
	vmcb_intercept(&m, SVM_EXIT_SMI);
	vmcb_intercept(&m, SVM_EXIT_INIT);
	m.cpu->nmi_pending = true;
	m.cpu->msr.svm_gif_clear = true; /* the host leaves it to the guest */
	assert_int_equal(GUEST(&m, 0x90, VMMCALL), SVM_EXIT_NMI);
	assert_true(m.cpu->nmi_pending);
	m.cpu->nmi_pending = false;
	cpu_raise_smi(m.cpu);
	assert_int_equal(GUEST(&m, 0x90, VMMCALL), SVM_EXIT_SMI);
	assert_int_equal(vmcb_get(&m, VMCB_EXITINFO1, 8), 1);
	assert_true(m.cpu->smi_pending);
	/* HWCR.SMMLOCK: not by this intercept. */
	m.cpu->msr.hwcr |= HWCR_SMM_LOCK;
	smm_handler(&m);
	assert_int_equal(GUEST(&m, 0x90, VMMCALL), SVM_EXIT_VMMCALL);
	assert_int_equal(m.cpu->reg[R15], 1);
	m.cpu->smi_pending = false;
	m.cpu->pending = 0;
	cpu_raise_init(m.cpu, true);
	assert_int_equal(GUEST(&m, 0x90, VMMCALL), SVM_EXIT_INIT);
	assert_true(m.cpu->init_pending);
	/* With GIF = 1 it is taken: the processor is reset. */
	m.cpu->msr.svm_gif_clear = false;
	machine_run(&m, (const uint8_t[]){0x90}, 1, 0);
	assert_false(m.cpu->init_pending);
	assert_int_equal(m.cpu->efer, 0);
	machine_close(&m);
}

/* VM_CR.R_INIT: #SX with error code 1, which can be intercepted (15.21.8). */
static void init_redirected(void **state)
{
	struct machine m;

	(void)state;
	open(&m);
	m.cpu->msr.vm_cr = VM_CR_R_INIT;
	vmcb_intercept(&m, SVM_EXIT_EXCEPTION + VECTOR_SX);
	m.cpu->msr.svm_gif_clear = true;
	cpu_raise_init(m.cpu, true);
	assert_int_equal(GUEST(&m, 0x90, VMMCALL), SVM_EXIT_EXCEPTION + VECTOR_SX);
	assert_int_equal(vmcb_get(&m, VMCB_EXITINFO1, 8), 1);
	assert_false(m.cpu->init_pending);
	machine_close(&m);
}

/* ---- GIF ---- */

static void gif_holds_off(void **state)
{
	/* clgi; nop; nop; stgi; nop */
	static const uint8_t code[] = {0x0f, 0x01, 0xdd, 0x90, 0x90, 0x0f, 0x01, 0xdc, 0x90};
	static const char *const checks[] = {NULL, "SVM_GIF", "SVM_GIF_NMI"};
	struct machine m;

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		bool nmi = i & 1;
		const char *check = i < 2 ? NULL : checks[nmi ? 2 : 1];

		open(&m);
		m.cpu->tracing = true;
		m.cpu->idtr = (struct table_register){.base = IDT_AT, .limit = 0xfff};
		m.cpu->gdtr = (struct table_register){.base = GDT_AT, .limit = 0xff};
		m.cpu->rflags |= RFLAGS_IF;
		cpu_mode_changed(m.cpu);
		machine_run(&m, code, 3, 1);
		m.cpu->interrupt_line = !nmi;
		m.cpu->nmi_pending = nmi;
		if (check)
			assert_true(check_break(check));
		machine_write(&m, CODE_AT, code, sizeof(code));
		m.cpu->rip = CODE_AT + 3;
		m.cpu->stop_at = m.cpu->event_at = m.cpu->retired + 4;
		cpu_run(m.cpu);
		assert_int_equal(m.vector, nmi ? VECTOR_NMI : 0x55);
		assert_int_equal(m.event_rip, check ? CODE_AT + 3 : CODE_AT + 8);
		check_break(NULL);
		machine_close(&m);
	}
}

/* Breakpoints are discarded, single steps are not (table 15-10). */
static void gif_and_debug_exceptions(void **state)
{
	struct machine m;

	(void)state;
	open(&m);
	m.cpu->tracing = true;
	m.cpu->idtr = (struct table_register){.base = IDT_AT, .limit = 0xfff};
	m.cpu->gdtr = (struct table_register){.base = GDT_AT, .limit = 0xff};
	m.cpu->msr.svm_gif_clear = true;
	m.cpu->dr[0] = CODE_AT;
	m.cpu->dr7 = DR7_FIXED_1 | DR7_L(0);
	cpu_mode_changed(m.cpu);
	machine_run(&m, (const uint8_t[]){0x90, 0x90}, 2, 1);
	assert_int_equal(m.vector, NO_EVENT);
	m.cpu->rflags |= RFLAGS_TF;
	cpu_mode_changed(m.cpu);
	machine_run(&m, (const uint8_t[]){0x90, 0x90}, 2, 2);
	assert_int_equal(m.vector, VECTOR_DB);
	assert_int_equal(m.cpu->dr6, DR6_FIXED_1 | DR6_BS);
	machine_close(&m);
}

/* ---- virtual interrupts ---- */

static void virtual_interrupts_by_priority(void **state)
{
	static const struct {
		const char *check;
		uint64_t control, rflags;
		bool taken;
	} rows[] = {
		{NULL, SVM_V_IRQ | 5u << 16 | 4, RFLAGS_IF, true},
		{"SVM_V_TPR", SVM_V_IRQ | 5u << 16 | 5, RFLAGS_IF, false},
		{"SVM_V_IGN_TPR", SVM_V_IRQ | 1u << 16 | 5 | SVM_V_IGN_TPR, RFLAGS_IF, true},
		{NULL, SVM_V_IRQ | 5u << 16, 0, false},
		{NULL, 5u << 16, RFLAGS_IF, false},
		{"SVM_VGIF", SVM_V_IRQ | 5u << 16 | SVM_V_GIF_ENABLE, RFLAGS_IF, false},
		{NULL, SVM_V_IRQ | 5u << 16 | SVM_V_GIF_ENABLE | SVM_V_GIF, RFLAGS_IF, true},
	};
	struct machine m;

	(void)state;
	open(&m);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		for (unsigned broken = 0; broken < (rows[i].check ? 2 : 1); broken++) {
			bool taken = broken ? !rows[i].taken : rows[i].taken;

			vmcb_baseline(&m);
			vmcb_put(&m, VMCB_INTERRUPT, rows[i].control | 0x66ull << 32, 8);
			vmcb_put(&m, VMCB_RFLAGS, RFLAGS_FIXED | rows[i].rflags, 8);
			if (broken)
				assert_true(check_break(rows[i].check));
			assert_int_equal(GUEST(&m, 0x90, VMMCALL), SVM_EXIT_VMMCALL);
			assert_int_equal(vmcb_get(&m, VMCB_RIP, 8), taken ? HANDLER_AT : GUEST_AT + 1);
			assert_int_equal(vmcb_get(&m, VMCB_INTERRUPT, 8) & SVM_V_IRQ,
					 taken ? 0 : rows[i].control & SVM_V_IRQ);
			check_break(NULL);
		}
	}
	machine_close(&m);
}

static void virtual_interrupt_window(void **state)
{
	struct machine m;

	(void)state;
	open(&m);
	vmcb_intercept(&m, SVM_EXIT_VINTR);
	vmcb_put(&m, VMCB_INTERRUPT, SVM_V_IRQ | 5u << 16 | 0x66ull << 32, 8);
	/* nop; sti; nop; nop: behind the shadow of STI */
	assert_int_equal(GUEST(&m, 0x90, 0xfb, 0x90, 0x90, VMMCALL), SVM_EXIT_VINTR);
	assert_int_equal(vmcb_get(&m, VMCB_RIP, 8), GUEST_AT + 3);
	assert_true(vmcb_get(&m, VMCB_INTERRUPT, 8) & SVM_V_IRQ);
	assert_int_equal(vmcb_get(&m, VMCB_EXITINTINFO, 8), 0);
	/* A halted guest is woken. */
	vmcb_put(&m, VMCB_INTERCEPTS(3), 0, 4);
	vmcb_put(&m, VMCB_RIP, GUEST_AT, 8);
	vmcb_put(&m, VMCB_RFLAGS, RFLAGS_FIXED, 8);
	assert_int_equal(GUEST(&m, 0xfb, 0xf4, VMMCALL), SVM_EXIT_VMMCALL);
	assert_int_equal(frame(&m, 0), GUEST_AT + 2);
	machine_close(&m);
}

static void virtual_nmis(void **state)
{
	uint64_t control = SVM_V_NMI_ENABLE | SVM_V_NMI;
	struct machine m;

	(void)state;
	open(&m);
	vmcb_intercept(&m, SVM_EXIT_NMI);
	vmcb_put(&m, VMCB_INTERRUPT, control, 8);
	assert_int_equal(GUEST(&m, 0x90, VMMCALL), SVM_EXIT_VMMCALL);
	assert_int_equal(vmcb_get(&m, VMCB_RIP, 8), HANDLER_AT);
	assert_int_equal(vmcb_get(&m, VMCB_INTERRUPT, 8), SVM_V_NMI_ENABLE | SVM_V_NMI_MASK);
	assert_false(m.cpu->nmi_blocked);
	/* A second one waits for IRET. */
	vmcb_put(&m, VMCB_INTERRUPT, control | SVM_V_NMI_MASK, 8);
	machine_write(&m, HANDLER_AT + 0x10, (const uint8_t[]){0x48, 0xcf}, 2);
	vmcb_put(&m, VMCB_RIP, HANDLER_AT + 0x10, 8);
	assert_int_equal(GUEST(&m, 0x90, VMMCALL), SVM_EXIT_VMMCALL);
	assert_int_equal(vmcb_get(&m, VMCB_RIP, 8), HANDLER_AT);
	assert_int_equal(frame(&m, 0), GUEST_AT);
	/* An exit in the midst of delivering it. */
	vmcb_baseline(&m);
	vmcb_intercept(&m, SVM_EXIT_NMI);
	vmcb_intercept(&m, SVM_EXIT_EXCEPTION + VECTOR_GP);
	vmcb_put(&m, VMCB_IDTR + 4, 0, 4);
	vmcb_put(&m, VMCB_INTERRUPT, control, 8);
	assert_int_equal(GUEST(&m, 0x90, VMMCALL), SVM_EXIT_EXCEPTION + VECTOR_GP);
	assert_int_equal(vmcb_get(&m, VMCB_EXITINTINFO, 8), SVM_EVENT_VALID | 2u << 8 | VECTOR_NMI);
	assert_int_equal(vmcb_get(&m, VMCB_INTERRUPT, 8), SVM_V_NMI_ENABLE);
	machine_close(&m);
}

/* ---- TPR, virtual GIF, TSC ---- */

static void task_priority(void **state)
{
	/* mov cr8, rcx; mov rbx, cr8 */
	static const uint8_t code[] = {0x44, 0x0f, 0x22, 0xc1, 0x44, 0x0f, 0x20, 0xc3, VMMCALL};
	struct machine m;

	(void)state;
	open(&m);
	m.cpu->cr8 = 3;
	m.cpu->reg[RCX] = 9;
	vmcb_put(&m, VMCB_INTERRUPT, SVM_V_INTR_MASKING | 5, 8);
	assert_int_equal(svm_run(&m, code, sizeof(code)), SVM_EXIT_VMMCALL);
	assert_int_equal(m.cpu->reg[RBX], 9);
	assert_int_equal(m.cpu->cr8, 3);
	assert_int_equal(apic_tpr, 77);
	assert_int_equal(vmcb_get(&m, VMCB_INTERRUPT, 1), 9);
	/* Without V_INTR_MASKING it is both. */
	vmcb_put(&m, VMCB_RIP, GUEST_AT, 8);
	vmcb_put(&m, VMCB_INTERRUPT, 5, 8);
	assert_int_equal(svm_run(&m, code, sizeof(code)), SVM_EXIT_VMMCALL);
	assert_int_equal(m.cpu->cr8, 9);
	assert_int_equal(apic_tpr, 9);
	assert_int_equal(vmcb_get(&m, VMCB_INTERRUPT, 1), 9);
	machine_close(&m);
}

static void virtual_gif(void **state)
{
	struct machine m;

	(void)state;
	open(&m);
	vmcb_put(&m, VMCB_INTERRUPT, SVM_V_GIF_ENABLE | SVM_V_GIF, 8);
	assert_int_equal(GUEST(&m, 0x0f, 0x01, 0xdd, VMMCALL), SVM_EXIT_VMMCALL);
	assert_int_equal(vmcb_get(&m, VMCB_INTERRUPT, 8), SVM_V_GIF_ENABLE);
	vmcb_put(&m, VMCB_RIP, GUEST_AT, 8);
	assert_int_equal(GUEST(&m, 0x0f, 0x01, 0xdc, VMMCALL), SVM_EXIT_VMMCALL);
	assert_int_equal(vmcb_get(&m, VMCB_INTERRUPT, 8), SVM_V_GIF_ENABLE | SVM_V_GIF);
	machine_close(&m);
}

static void time_stamp_counter(void **state)
{
	uint64_t tsc, guest;
	struct machine m;

	(void)state;
	open(&m);
	vmcb_put(&m, VMCB_TSC_OFFSET, 0x100000000, 8);
	m.cpu->msr.svm_tsc_ratio = 3ull << 31; /* 1.5 */
	m.cpu->tsc_offset += 0x10000000;
	assert_int_equal(GUEST(&m, 0x0f, 0x31, VMMCALL), SVM_EXIT_VMMCALL);
	guest = m.cpu->reg[RDX] << 32 | vmcb_get(&m, VMCB_RAX, 8);
	tsc = control_tsc(m.cpu);
	assert_in_range(guest, 0x100000000 + (tsc - 10) * 3 / 2, 0x100000000 + tsc * 3 / 2);
	assert_int_equal(control_tsc_read(m.cpu), tsc); /* the host's is as it was */
	machine_close(&m);
}

/* MPERF has the ratio and not the offset, APERF neither; what is written has none (15.30.5, 17.3.2). */
static void effective_frequency(void **state)
{
	/* rdmsr; VMMCALL. rdpru; VMMCALL. wrmsr; VMMCALL */
	static const uint8_t reads[] = {0x0f, 0x32, VMMCALL}, user[] = {0x0f, 0x01, 0xfd, VMMCALL},
			     writes[] = {0x0f, 0x30, VMMCALL};
	struct machine m;

	(void)state;
	open(&m);
	vmcb_put(&m, VMCB_TSC_OFFSET, 0x100000000, 8);
	m.cpu->msr.svm_tsc_ratio = 1ull << 34; /* 4 */
	m.cpu->msr.mperf = m.cpu->msr.aperf = 0x100000;
	for (unsigned i = 0; i < 4; i++) {
		m.cpu->reg[RCX] = i & 1 ? (i < 2 ? MSR_APERF : 1) : (i < 2 ? MSR_MPERF : 0);
		vmcb_put(&m, VMCB_RIP, GUEST_AT, 8);
		assert_int_equal(i < 2 ? svm_run(&m, reads, sizeof(reads)) : svm_run(&m, user, sizeof(user)),
				 SVM_EXIT_VMMCALL);
		assert_int_equal(m.cpu->reg[RDX], 0);
		assert_in_range(vmcb_get(&m, VMCB_RAX, 8), i & 1 ? 0x100000 : 0x400000,
				i & 1 ? 0x101000 : 0x404000);
	}
	m.cpu->reg[RCX] = MSR_MPERF;
	m.cpu->reg[RDX] = 0;
	vmcb_put(&m, VMCB_RAX, 0x5000000, 8);
	vmcb_put(&m, VMCB_RIP, GUEST_AT, 8);
	assert_int_equal(svm_run(&m, writes, sizeof(writes)), SVM_EXIT_VMMCALL);
	assert_in_range(m.cpu->msr.mperf + m.cpu->retired, 0x5000000, 0x5001000);
	machine_close(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(exceptions_exit_with_what_they_tell),
		cmocka_unit_test(page_faults_leave_cr2_alone),
		cmocka_unit_test(debug_exceptions_have_written_dr6),
		cmocka_unit_test(resume_flag),
		cmocka_unit_test(exceptions_while_delivering),
		cmocka_unit_test(events_of_all_types_and_vectors),
		cmocka_unit_test(reserved_vectors_are_refused),
		cmocka_unit_test(injection_that_faults),
		cmocka_unit_test(interrupts_exit_and_stay),
		cmocka_unit_test(interrupts_that_are_the_guests),
		cmocka_unit_test(smm_out_of_a_guest),
		cmocka_unit_test(nmi_smi_and_init),
		cmocka_unit_test(init_redirected),
		cmocka_unit_test(gif_holds_off),
		cmocka_unit_test(gif_and_debug_exceptions),
		cmocka_unit_test(virtual_interrupts_by_priority),
		cmocka_unit_test(virtual_interrupt_window),
		cmocka_unit_test(virtual_nmis),
		cmocka_unit_test(task_priority),
		cmocka_unit_test(virtual_gif),
		cmocka_unit_test(time_stamp_counter),
		cmocka_unit_test(effective_frequency),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
