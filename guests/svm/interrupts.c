/*
 * interrupts.c: GIF, virtual GIF and NMIs, the TPR, INIT and SMI (APM 2 15.13, 15.17, 15.21, 15.22, 15.33.2).
 */
#include "lib/apic.h"
#include "lib/cpus.h"
#include "lib/exchange.h"
#include "lib/machine.h"
#include "svm/svm.h"
#include "x86/case_layout.h"
#include "x86/vectors.h"

void apic_send_nmi(void);

static void clgi(void) { __asm__ volatile("clgi" : : : "memory"); }
static void stgi(void) { __asm__ volatile("stgi" : : : "memory"); }
static void sti(void) { __asm__ volatile("sti; nop; nop" : : : "memory"); }
static void cli(void) { __asm__ volatile("cli" : : : "memory"); }
static void nops(void) { __asm__ volatile("nop; nop; nop; nop" : : : "memory"); }

/* A guest in 64-bit mode at CPL 0; IF is 1 where @interruptible. */
static void begin_guest(bool interruptible)
{
	svm_baseline(MODE_LONG, 0);
	if (interruptible)
		svm_set(VMCB_RFLAGS, svm_get(VMCB_RFLAGS) | RFLAGS_IF);
}

/* ---- GIF in the host (table 15-10) ---- */

enum { GIF_INTR, GIF_NMI, GIF_STEP, GIF_BREAKPOINT, GIF_VMEXIT, GIF_FAULT, GIF_SOFTWARE };

static void debug_handler(struct story_frame *frame)
{
	if (frame->vector == VECTOR_DB)
		frame->rflags &= ~(uint64_t)RFLAGS_TF;
	else if (frame->vector >= 32)
		apic_write(APIC_EOI, 0);
}

static volatile uint8_t watched_byte;

static void gif_intr(void)
{
	apic_enable(0xff);
	apic_send(0, ICR_SELF | ICR_ASSERT | 0x45);
	sti();
	story_check("held", 0, story_count(0x45));
	story_check("requested", 1, apic_bit(APIC_IRR, 0x45));
	stgi();
	nops();
	story_check("taken", 1, story_count(0x45));
	cli();
}

static void gif_breakpoint(void)
{
	__asm__ volatile("mov %0, %%dr0" : : "r"((uintptr_t)&watched_byte));
	__asm__ volatile("mov %0, %%dr6" : : "r"(0xffff0ff0ull));
	__asm__ volatile("mov %0, %%dr7" : : "r"(0x10401ull)); /* writes of a byte */
	watched_byte = 1;
	nops();
	story_check("discarded", 0, story_count(VECTOR_DB));
	stgi();
	nops();
	story_check("not_kept", 0, story_count(VECTOR_DB));
	watched_byte = 2;
	nops();
	story_check("with_gif", 1, story_count(VECTOR_DB));
	__asm__ volatile("mov %0, %%dr7" : : "r"(0x400ull));
	__asm__ volatile("mov %0, %%dr0" : : "r"(0ull));
	__asm__ volatile("mov %0, %%dr6" : : "r"(0xffff0ff0ull));
}

STORY(svm_gif)
{
	if (!svm_begin() || !story_has_apic())
		return;
	story_handle(debug_handler);
	clgi();
	switch (GIVEN(mode)) {
	case GIF_INTR: gif_intr(); break;
	case GIF_NMI:
		apic_send_nmi();
		nops();
		story_check("held", 0, story_count(VECTOR_NMI));
		stgi();
		nops();
		story_check("taken", 1, story_count(VECTOR_NMI));
		break;
	case GIF_STEP: /* normal, whatever GIF is */
		__asm__ volatile("pushfq; orl $0x100, (%%rsp); popfq; nop" : : : "memory", "cc");
		story_check("stepped", 1, story_count(VECTOR_DB));
		break;
	case GIF_BREAKPOINT: gif_breakpoint(); break;
	case GIF_VMEXIT: /* VMRUN sets it, #VMEXIT clears it */
		begin_guest(false);
		SVM_CODE(0x0f, 0x01, 0xd9);
		story_check("exitcode", SVM_EXIT_VMMCALL, svm_run_keep());
		gif_intr();
		break;
	case GIF_FAULT: { /* nothing is mapped there */
		uint8_t value;

		story_check("pf", VECTOR_PF, story_try_read8(1ull << 39, &value));
		break;
	}
	case GIF_SOFTWARE:
		__asm__ volatile("int $0x46" : : : "memory");
		story_check("taken", 1, story_count(0x46));
		break;
	}
	stgi();
	svm_end();
}

/* Both at once behind STGI: the NMI comes first. */
STORY(svm_gif_order)
{
	if (!svm_begin() || !story_has_apic())
		return;
	apic_enable(0xff);
	clgi();
	apic_send(0, ICR_SELF | ICR_ASSERT | 0x45);
	apic_send_nmi();
	sti();
	story_check("held", 0, story_total());
	stgi();
	nops();
	cli();
	story_check("first", VECTOR_NMI, story_order(0));
	story_check("second", 0x45, story_order(1));
	svm_end();
}

/* An interrupt or an NMI that made the guest exit is still pending (15.13, 15.21.9), and comes behind STGI.
 */
STORY(svm_pending_behind_exit)
{
	bool nmi = GIVEN(mode);

	if (!svm_begin() || !story_has_apic())
		return;
	begin_guest(true);
	SVM_CODE(0x90);
	if (nmi)
		svm_prelude(apic_send_nmi);
	else
		apic_pend_interrupt(0x45);
	story_check("exitcode", nmi ? SVM_EXIT_NMI : SVM_EXIT_INTR, svm_run_keep());
	story_check("rip", CASE_STUB, svm_get(VMCB_RIP));
	story_check("held", 0, story_total());
	if (!nmi)
		story_check("requested", 1, apic_bit(APIC_IRR, 0x45));
	stgi();
	story_open();
	story_check("taken", 1, story_count(nmi ? VECTOR_NMI : 0x45));
	svm_end();
}

/* A halted guest is ended by what wakes it: an interrupt that is intercepted. */
STORY(svm_halt)
{
	if (!svm_begin() || !story_has_apic())
		return;
	begin_guest(true);
	SVM_CODE(0xf4);
	apic_enable(0xff);
	apic_write(APIC_DIVIDE, 0xb);
	apic_write(APIC_LVT_TIMER, 0x45);
	apic_write(APIC_INITIAL_COUNT, 5000);
	story_check("exitcode", SVM_EXIT_INTR, svm_run());
	story_check("rip", CASE_STUB + 1, svm_get(VMCB_RIP));
	story_open();
	story_check("taken", 1, story_count(0x45));
	svm_end();
}

/* ---- CR8 and V_TPR (15.21.2) ---- */

STORY(svm_cr8)
{
	bool masking = GIVEN(mode), write = GIVEN(from);
	uint64_t physical = GIVEN(value), virtual = GIVEN(other);

	if (!svm_begin() || !story_has_apic())
		return;
	svm_prepare(MODE_LONG, 0);
	exchange.in.field[STATE_cr8] = physical;
	svm_load(MODE_LONG, 0);
	svm_set(VMCB_INTERRUPT, virtual | (masking ? SVM_V_INTR_MASKING : 0));
	if (write) /* mov $9, %eax; mov %rax, %cr8; VMMCALL */
		SVM_CODE(0xb8, 0x09, 0x00, 0x00, 0x00, 0x44, 0x0f, 0x22, 0xc0, 0x0f, 0x01, 0xd9);
	else /* mov %cr8, %rax; VMMCALL */
		SVM_CODE(0x44, 0x0f, 0x20, 0xc0, 0x0f, 0x01, 0xd9);
	story_check("exitcode", SVM_EXIT_VMMCALL, svm_run());
	if (write) {
		story_check("v_tpr", 9, svm_get(VMCB_INTERRUPT) & SVM_V_TPR);
		story_check("cr8", masking ? physical : 9, machine_read_cr8());
		story_check("apic_tpr", (masking ? physical : 9) << 4, apic_read(APIC_TPR));
	} else {
		story_check("read", masking ? virtual : physical, svm_get(VMCB_RAX));
		story_check("v_tpr", virtual, svm_get(VMCB_INTERRUPT) & SVM_V_TPR);
		story_check("cr8", physical, machine_read_cr8());
	}
	machine_write_cr8(0);
	svm_capture(); /* so that the library knows what CR8 holds */
	svm_end();
}

/* A virtual interrupt that has been taken is no longer pending; one that has not still is (15.21.4). */
STORY(svm_v_irq)
{
	bool taken = GIVEN(mode);

	if (!svm_begin())
		return;
	begin_guest(taken);
	SVM_CODE(0x0f, 0x01, 0xd9);
	svm_set(VMCB_INTERRUPT, SVM_V_IRQ | 15ull << 16 | 0x41ull << 32);
	story_check("exitcode", SVM_EXIT_VMMCALL, svm_run());
	story_check("v_irq", taken ? 0 : SVM_V_IRQ, svm_get(VMCB_INTERRUPT) & SVM_V_IRQ);
	story_check("handler", taken ? 0x41 : SVM_VECTOR_NONE, svm_handler_vector());
	story_check("priority", 15, SVM_V_PRIORITY(svm_get(VMCB_INTERRUPT)));
	story_check("vector", 0x41, SVM_V_VECTOR(svm_get(VMCB_INTERRUPT)));
	svm_end();
}

/* ---- virtual GIF (15.33.2) ---- */

enum {
	VGIF_CLEAR,
	VGIF_SET,
	VGIF_STGI,
	VGIF_CLGI,
	VGIF_STGI_INTERCEPTED,
	VGIF_CLGI_INTERCEPTED,
	VGIF_PHYSICAL,
	VGIF_OFF,
	VGIF_VINTR
};

STORY(svm_vgif)
{
	uint64_t mode = GIVEN(mode), pending = SVM_V_IRQ | 15ull << 16 | 0x41ull << 32;
	bool set = mode == VGIF_SET || mode == VGIF_CLGI || mode == VGIF_CLGI_INTERCEPTED;

	if (!svm_begin() || !SVM_NEEDS(16))
		return;
	begin_guest(mode != VGIF_CLGI);
	switch (mode) {
	case VGIF_STGI:
	case VGIF_STGI_INTERCEPTED: SVM_CODE(0x0f, 0x01, 0xdc, 0x90, 0x0f, 0x01, 0xd9); break;
	case VGIF_CLGI:
	case VGIF_CLGI_INTERCEPTED: SVM_CODE(0x0f, 0x01, 0xdd, 0xfb, 0x90, 0x90, 0x0f, 0x01, 0xd9); break;
	default: SVM_CODE(0x90, 0x0f, 0x01, 0xd9); break;
	}
	if (mode == VGIF_CLGI_INTERCEPTED || mode == VGIF_STGI_INTERCEPTED)
		pending = 0;
	svm_set(VMCB_INTERRUPT, pending | (mode == VGIF_OFF ? 0 : SVM_V_GIF_ENABLE) | (set ? SVM_V_GIF : 0));
	svm_intercept(SVM_EXIT_STGI, mode == VGIF_STGI_INTERCEPTED);
	svm_intercept(SVM_EXIT_CLGI, mode == VGIF_CLGI_INTERCEPTED);
	svm_intercept(SVM_EXIT_VINTR, mode == VGIF_VINTR);
	if (mode == VGIF_PHYSICAL)
		apic_pend_interrupt(0x45);
	story_check("exitcode",
		    mode == VGIF_STGI_INTERCEPTED   ? SVM_EXIT_STGI
		    : mode == VGIF_CLGI_INTERCEPTED ? SVM_EXIT_CLGI
		    : mode == VGIF_PHYSICAL         ? SVM_EXIT_INTR
						    : SVM_EXIT_VMMCALL,
		    svm_run());
	story_check("handler",
		    mode == VGIF_SET || mode == VGIF_STGI || mode == VGIF_OFF ? 0x41 : SVM_VECTOR_NONE,
		    svm_handler_vector());
	if (mode != VGIF_OFF)
		story_check("v_gif",
			    mode == VGIF_SET || mode == VGIF_STGI || mode == VGIF_CLGI_INTERCEPTED ? SVM_V_GIF
												   : 0,
			    svm_get(VMCB_INTERRUPT) & SVM_V_GIF);
	if (mode == VGIF_PHYSICAL)
		story_open();
	svm_end();
}

/* ---- virtual NMIs (15.21.10) ---- */

enum {
	VNMI_TAKEN,
	VNMI_MASKED,
	VNMI_SHADOW,
	VNMI_IRET,
	VNMI_INJECTED,
	VNMI_BROKEN,
	VNMI_VGIF,
	VNMI_IF0,
	VNMI_PHYSICAL,
	VNMI_PHYSICAL_FIRST
};

static void expect_vnmi(bool pending, bool masked)
{
	story_check("v_nmi", pending, svm_get(VMCB_INTERRUPT) >> 11 & 1);
	story_check("v_nmi_mask", masked, svm_get(VMCB_INTERRUPT) >> 12 & 1);
}

/* The handler of NMIs: VMMCALL, and IRETQ behind it. */
static void handler_with_iret(void)
{
	*(uint8_t *)(svm_handler(VECTOR_NMI) + 3) = 0xcf;
	*(uint8_t *)(svm_handler(VECTOR_NMI) + 2) = 0x48;
	*(uint8_t *)(svm_handler(VECTOR_NMI) + 1) = 0x90;
	*(uint8_t *)svm_handler(VECTOR_NMI) = 0x90;
}

STORY(svm_vnmi)
{
	uint64_t mode = GIVEN(mode), v = SVM_V_NMI_ENABLE | SVM_V_NMI;

	if (!svm_begin() || !SVM_NEEDS(25))
		return;
	begin_guest(mode != VNMI_IF0);
	SVM_CODE(0x90, 0x90, 0x0f, 0x01, 0xd9);
	switch (mode) {
	case VNMI_TAKEN:
	case VNMI_IF0:
		svm_set(VMCB_INTERRUPT, v);
		story_check("exitcode", SVM_EXIT_VMMCALL, svm_run());
		story_check("handler", VECTOR_NMI, svm_handler_vector());
		expect_vnmi(false, true);
		break;
	case VNMI_MASKED:
		svm_set(VMCB_INTERRUPT, v | SVM_V_NMI_MASK);
		story_check("exitcode", SVM_EXIT_VMMCALL, svm_run());
		story_check("handler", SVM_VECTOR_NONE, svm_handler_vector());
		expect_vnmi(true, true);
		break;
	case VNMI_SHADOW: /* behind the first instruction */
		svm_set(VMCB_INTERRUPT, v);
		svm_set(VMCB_INTERRUPT_SHADOW, 1);
		story_check("exitcode", SVM_EXIT_VMMCALL, svm_run());
		story_check("handler", VECTOR_NMI, svm_handler_vector());
		story_check("frame_rip", CASE_STUB + 1, *(const uint64_t *)svm_get(VMCB_RSP));
		break;
	case VNMI_IRET: /* which unmasks them */
		svm_set(VMCB_INTERRUPT, v);
		handler_with_iret();
		story_check("exitcode", SVM_EXIT_VMMCALL, svm_run());
		story_check("rip", CASE_STUB + 2, svm_get(VMCB_RIP));
		expect_vnmi(false, false);
		break;
	case VNMI_INJECTED:
		svm_set(VMCB_INTERRUPT, SVM_V_NMI_ENABLE);
		svm_set(VMCB_EVENTINJ, SVM_EVENT_VALID | SVM_EVENT_NMI << SVM_EVENT_TYPE_SHIFT | VECTOR_NMI);
		story_check("exitcode", SVM_EXIT_VMMCALL, svm_run());
		story_check("handler", VECTOR_NMI, svm_handler_vector());
		expect_vnmi(false, true);
		break;
	case VNMI_BROKEN: /* the gate is not present: #NP while the NMI is delivered */
		svm_set(VMCB_INTERRUPT, v);
		*(uint8_t *)(uintptr_t)(CASE_IDT64 + 16 * VECTOR_NMI + 5) = TYPE_INTERRUPT_GATE;
		story_check("exitcode", SVM_EXIT_EXCEPTION + VECTOR_NP, svm_run());
		story_check("exitintinfo",
			    SVM_EVENT_VALID | SVM_EVENT_NMI << SVM_EVENT_TYPE_SHIFT | VECTOR_NMI,
			    svm_get(VMCB_EXITINTINFO) & 0xffffffff);
		story_check("v_nmi_mask", 0, svm_get(VMCB_INTERRUPT) >> 12 & 1);
		break;
	case VNMI_VGIF: /* not while the virtual GIF is 0 */
		if (!SVM_NEEDS(16))
			break;
		svm_set(VMCB_INTERRUPT, v | SVM_V_GIF_ENABLE);
		story_check("exitcode", SVM_EXIT_VMMCALL, svm_run());
		story_check("handler", SVM_VECTOR_NONE, svm_handler_vector());
		expect_vnmi(true, false);
		break;
	case VNMI_PHYSICAL: /* the intercept is of physical ones, masked or not */
		svm_set(VMCB_INTERRUPT, SVM_V_NMI_ENABLE | SVM_V_NMI_MASK);
		svm_prelude(apic_send_nmi);
		story_check("exitcode", SVM_EXIT_NMI, svm_run());
		break;
	case VNMI_PHYSICAL_FIRST:
		svm_set(VMCB_INTERRUPT, v);
		svm_prelude(apic_send_nmi);
		story_check("exitcode", SVM_EXIT_NMI, svm_run());
		expect_vnmi(true, false);
		break;
	}
	svm_end();
}

/* ---- SMI: a handler at the SMBASE of RESET that counts and returns (15.13.3, 15.22) ---- */

#define SMM_CODE  0x38000u
#define SMM_COUNT 0x38100u

enum { SMI_INTERCEPTED, SMI_TAKEN, SMI_LOCKED, SMI_GIF };

static void send_smi(void)
{
	apic_enable(0xff);
	apic_send(apic_id(), ICR_SMI | ICR_ASSERT);
}

static uint8_t smis(void) { return *(volatile uint8_t *)(uintptr_t)SMM_COUNT; }

static void install_smm_handler(void)
{
	static const uint8_t code[] = {0x2e, 0xfe, 0x06, 0x00, 0x81, 0x0f, 0xaa}; /* incb %cs:0x8100; rsm */

	machine_copy((void *)(uintptr_t)SMM_CODE, code, sizeof(code));
	*(volatile uint8_t *)(uintptr_t)SMM_COUNT = 0;
}

STORY(svm_smi)
{
	uint64_t mode = GIVEN(mode), hwcr;

	if (!svm_begin() || !story_has_apic())
		return;
	if (mode == SMI_LOCKED &&
	    !story_needs(story_try_rdmsr(MSR_HWCR, &hwcr) == STORY_NO_FAULT, "msr.c0010015=gp"))
		return;
	story_spoils();
	install_smm_handler();
	begin_guest(false);
	SVM_CODE(0x90, 0x90, 0x90, 0x0f, 0x01, 0xd9);
	svm_intercept(SVM_EXIT_SMI, mode == SMI_INTERCEPTED || mode == SMI_LOCKED);
	if (mode == SMI_LOCKED)
		machine_write_msr(MSR_HWCR, hwcr | HWCR_SMM_LOCK);
	switch (mode) {
	case SMI_INTERCEPTED: /* still pending, as it is external, and comes with GIF */
		svm_prelude(send_smi);
		story_check("exitcode", SVM_EXIT_SMI, svm_run_keep());
		story_check("external", 1, svm_get(VMCB_EXITINFO1) & 1);
		story_check("rip", CASE_STUB, svm_get(VMCB_RIP));
		story_check("held", 0, smis());
		stgi();
		nops();
		story_check("handled", 1, smis());
		break;
	case SMI_TAKEN: /* in the guest, which goes on */
	case SMI_LOCKED:
		svm_prelude(send_smi);
		story_check("exitcode", SVM_EXIT_VMMCALL, svm_run_keep());
		story_check("handled", 1, smis());
		story_check("rip", CASE_STUB + 3, svm_get(VMCB_RIP));
		break;
	case SMI_GIF:
		clgi();
		send_smi();
		nops();
		story_check("held", 0, smis());
		stgi();
		nops();
		story_check("handled", 1, smis());
		break;
	}
}

/* ---- INIT: the guest runs on the other processor, so that one that is reset is noticed (15.13.4, 15.21.8)
 * ---- */

static volatile unsigned stage;
static uint8_t other_hsave[0x1000] __attribute__((aligned(4096))),
	other_area[0x1000] __attribute__((aligned(4096)));
static bool redirect;

#define LONG_WHILE 2000000u
static bool wait_for(unsigned wanted)
{
	for (unsigned i = 0; i < LONG_WHILE && stage != wanted; i++)
		__asm__ volatile("pause");
	return stage == wanted;
}

static void meet_init(void *argument)
{
	(void)argument;
	machine_write_msr(MSR_EFER, machine_read_msr(MSR_EFER) | EFER_SVME);
	machine_write_msr(MSR_VM_HSAVE_PA, (uintptr_t)other_hsave);
	if (redirect)
		machine_write_msr(MSR_VM_CR, machine_read_msr(MSR_VM_CR) | VM_CR_R_INIT);
	clgi();
	stage = 1;
	wait_for(2); /* the INIT has been sent, and waits for GIF */
	svm_switch((uintptr_t)svm_vmcb, (uintptr_t)other_area, &svm_registers);
	stage = 3;
}

STORY(svm_init)
{
	uint64_t old;

	redirect = GIVEN(mode);
	if (!svm_begin() || !story_has_apic() || !cpus_needs(2))
		return;
	if (redirect && !story_needs(story_try_rdmsr(MSR_VM_CR, &old) == STORY_NO_FAULT, "msr.c0010114=gp"))
		return;
	story_spoils();
	begin_guest(false);
	SVM_CODE(0x90, 0x0f, 0x01, 0xd9);
	svm_intercept(SVM_EXIT_INIT, !redirect);
	stage = 0;
	cpus_tell(1, meet_init, NULL);
	story_check("ready", true, wait_for(1));
	apic_enable(0xff);
	apic_send(cpus_apic_id(1), ICR_INIT | ICR_ASSERT);
	stage = 2;
	story_check("came_back", true, wait_for(3));
	story_check("exitcode", redirect ? SVM_EXIT_EXCEPTION + VECTOR_SX : SVM_EXIT_INIT,
		    svm_get(VMCB_EXITCODE));
	if (redirect)
		story_check("error", 1, svm_get(VMCB_EXITINFO1));
	story_check("rip", CASE_STUB, svm_get(VMCB_RIP));
}
