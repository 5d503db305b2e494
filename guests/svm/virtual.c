/*
 * virtual.c: virtual interrupts, virtual NMIs and the virtual GIF together with events that are injected and
 * with real ones: all of them at once, and what the manual says comes in which order (APM
 * 2 15.17, 15.20, 15.21.1, 15.21.4 to 15.21.6, 15.21.9, 15.21.10, 15.33.2).
 *
 * A small guest runs a few instructions. Each handler of it is a VMMCALL, behind which the hypervisor sends
 * it through an IRETQ, so that every delivery is seen. The same is done by the rules beside the guest, and
 * each exit is compared: its code, the handler, where the guest is, and the virtual flags that the VMCB has
 * then.
 */
#include "lib/apic.h"
#include "lib/exchange.h"
#include "lib/machine.h"
#include "lib/world.h"
#include "svm/svm.h"
#include "x86/case_layout.h"
#include "x86/vectors.h"

void apic_send_nmi(void); /* apic.c */

/* ---- the guest's instructions ---- */

enum op { OP_NOP, OP_STI, OP_CLI, OP_STGI, OP_CLGI, OP_MOV_SS, OP_END };

static const struct {
	uint8_t bytes[3];
	uint8_t length;
} ops[] = {
	[OP_NOP] = {{0x90}, 1},
	[OP_STI] = {{0xfb}, 1},
	[OP_CLI] = {{0xfa}, 1},
	[OP_STGI] = {{0x0f, 0x01, 0xdc}, 3},
	[OP_CLGI] = {{0x0f, 0x01, 0xdd}, 3},
	[OP_MOV_SS] = {{0x8e, 0xd3}, 2}, /* BX: 0 */
	[OP_END] = {{0x0f, 0x01, 0xd9}, 3},
};

#define MOST_OPS 8u
static const uint8_t programs[][MOST_OPS] = {
	{OP_NOP, OP_NOP, OP_END},
	{OP_STGI, OP_NOP, OP_END},
	{OP_CLGI, OP_NOP, OP_END},
	{OP_CLGI, OP_NOP, OP_STGI, OP_NOP, OP_END},
	{OP_STGI, OP_NOP, OP_CLGI, OP_NOP, OP_END},
	{OP_STI, OP_NOP, OP_NOP, OP_END},
	{OP_CLGI, OP_STI, OP_NOP, OP_STGI, OP_NOP, OP_END},
	{OP_STI, OP_CLI, OP_NOP, OP_END},
	{OP_MOV_SS, OP_NOP, OP_NOP, OP_END},
};

static uint64_t op_address(const uint8_t *program, unsigned n)
{
	uint64_t address = CASE_STUB;

	for (unsigned i = 0; i < n; i++)
		address += ops[program[i]].length;
	return address;
}

static void write_program(const uint8_t *program)
{
	uint8_t bytes[3 * MOST_OPS];
	unsigned length = 0, i = 0;

	do {
		machine_copy(bytes + length, ops[program[i]].bytes, ops[program[i]].length);
		length += ops[program[i]].length;
	} while (program[i++] != OP_END);
	svm_code(bytes, length);
}

/* An IRETQ for the handlers, in the guest's own page. */
#define IRETQ (CASE_STUB + 0x100u)

/* ---- the rules ---- */

enum { PENDING_VIRQ = 1, PENDING_VNMI = 2, PENDING_INTR = 4, PENDING_NMI = 8 };

#define VIRTUAL_VECTOR  0x41u
#define INJECTED_VECTOR 0x47u
#define DEEPEST         4u

/* What the manual lets the guest be: @at counts instructions of the program, or is IN_HANDLER. */
struct rules {
	const uint8_t *program;
	bool interrupt_flag, shadow, gif;
	bool vgif_enabled, vgif, virq, vnmi_enabled, vnmi, vnmi_mask;
	bool intercept_stgi, intercept_clgi, intercept_vintr, masking, host_if;
	unsigned pending;  /* physical */
	unsigned injected; /* a vector, or 0 */
	/* Handlers that have not returned; the state that IRET goes back to. */
	unsigned depth, at;
	bool leaving; /* the hypervisor has sent it to the IRETQ */
	struct {
		unsigned at, vector;
		bool interrupt_flag, leaving;
	} handler[DEEPEST];
	bool wrong; /* deeper than that */
};

struct seen {
	uint64_t code;
	unsigned vector; /* of the handler, or SVM_VECTOR_NONE */
	uint64_t address;
	bool shadow;
};

static void deliver(struct rules *r, unsigned vector)
{
	if (r->depth == DEEPEST) {
		r->wrong = true;
		return;
	}
	r->handler[r->depth].at = r->at;
	r->handler[r->depth].interrupt_flag = r->interrupt_flag;
	r->handler[r->depth].leaving = r->leaving;
	r->handler[r->depth].vector = vector;
	r->depth++;
	r->interrupt_flag = false; /* all gates are interrupt gates */
	r->leaving = false;
	r->shadow = false;
}

static uint64_t where(const struct rules *r)
{
	if (!r->depth)
		return op_address(r->program, r->at);
	return r->leaving ? IRETQ : svm_handler(r->handler[r->depth - 1].vector);
}

static bool virtual_open(const struct rules *r) { return r->gif && (!r->vgif_enabled || r->vgif); }

/* What comes between two instructions. True: an exit, whose code is in @code. */
static bool events(struct rules *r, uint64_t *code)
{
	for (;;) {
		bool physical_if = r->masking ? r->host_if : r->interrupt_flag;

		if (r->pending & PENDING_NMI && r->gif && !r->shadow) {
			*code = SVM_EXIT_NMI;
			return true;
		}
		if (r->vnmi_enabled && r->vnmi && !r->vnmi_mask && virtual_open(r) && !r->shadow) {
			r->vnmi = false;
			r->vnmi_mask = true;
			deliver(r, VECTOR_NMI);
			continue;
		}
		if (r->pending & PENDING_INTR && r->gif && physical_if && !r->shadow) {
			*code = SVM_EXIT_INTR;
			return true;
		}
		if (r->virq && r->interrupt_flag && virtual_open(r) && !r->shadow) {
			if (r->intercept_vintr) {
				*code = SVM_EXIT_VINTR;
				return true;
			}
			r->virq = false;
			deliver(r, VIRTUAL_VECTOR);
			continue;
		}
		return false;
	}
}

static void set_gif(struct rules *r, bool gif)
{
	if (r->vgif_enabled)
		r->vgif = gif;
	else
		r->gif = gif;
}

/* One instruction. True: it exits, with @code. */
static bool step(struct rules *r, uint64_t *code)
{
	bool was_shadow = r->shadow;

	if (r->depth && r->leaving) { /* IRETQ */
		r->depth--;
		r->at = r->handler[r->depth].at;
		r->interrupt_flag = r->handler[r->depth].interrupt_flag;
		r->leaving = r->handler[r->depth].leaving;
		if (r->vnmi_enabled)
			r->vnmi_mask = false;
		r->shadow = false;
		return false;
	}
	if (r->depth) {
		*code = SVM_EXIT_VMMCALL;
		return true;
	}
	switch (r->program[r->at]) {
	case OP_END: *code = SVM_EXIT_VMMCALL; return true;
	case OP_STGI:
		if (r->intercept_stgi) {
			*code = SVM_EXIT_STGI;
			return true;
		}
		set_gif(r, true);
		break;
	case OP_CLGI:
		if (r->intercept_clgi) {
			*code = SVM_EXIT_CLGI;
			return true;
		}
		set_gif(r, false);
		break;
	default: break;
	}
	r->shadow = false;
	if (r->program[r->at] == OP_STI) {
		r->shadow = !r->interrupt_flag;
		r->interrupt_flag = true;
	} else if (r->program[r->at] == OP_CLI) {
		r->interrupt_flag = false;
	} else if (r->program[r->at] == OP_MOV_SS) {
		r->shadow =
			!was_shadow; /* of two in a row only the first has one, which no program here has */
	}
	r->at++;
	return false;
}

/* VMRUN until the next exit. */
static struct seen run_by_rules(struct rules *r)
{
	struct seen seen = {0};

	r->gif = true;
	if (r->injected) {
		unsigned vector = r->injected;

		r->injected = 0;
		if (vector == VECTOR_NMI && r->vnmi_enabled)
			r->vnmi_mask = true;
		deliver(r, vector);
	}
	while (!events(r, &seen.code) && !step(r, &seen.code) && !r->wrong)
		;
	seen.address = where(r);
	seen.vector = r->depth && !r->leaving ? r->handler[r->depth - 1].vector : SVM_VECTOR_NONE;
	seen.shadow = r->shadow;
	return seen;
}

/* ---- the guest beside them ---- */

static uint64_t flags_of(const struct rules *r)
{
	return (r->virq ? SVM_V_IRQ : 0) | (r->vgif_enabled && r->vgif ? SVM_V_GIF : 0) |
	       (r->vnmi_enabled && r->vnmi ? SVM_V_NMI : 0) |
	       (r->vnmi_enabled && r->vnmi_mask ? SVM_V_NMI_MASK : 0);
}

static void load_guest(const struct rules *r)
{
	static const uint8_t iretq[2] = {0x48, 0xcf}, no_ist = 0;

	svm_baseline(MODE_LONG, 0);
	write_program(r->program);
	world_poke(IRETQ, iretq, sizeof(iretq));
	/* On one stack, so that one handler does not overwrite the frame of another. */
	world_poke(CASE_IDT64 + 16 * VECTOR_NMI + 4, &no_ist, 1);
	world_poke(CASE_IDT64 + 16 * VIRTUAL_VECTOR + 4, &no_ist, 1);
	world_poke(CASE_IDT64 + 16 * INJECTED_VECTOR + 4, &no_ist, 1);
	svm_registers.rbx = 0;
	if (r->interrupt_flag)
		svm_set(VMCB_RFLAGS, svm_get(VMCB_RFLAGS) | RFLAGS_IF);
	svm_set(VMCB_INTERRUPT_SHADOW, r->shadow);
	svm_set(VMCB_INTERRUPT, (r->virq ? SVM_V_IRQ : 0) | 15ull << 16 | (uint64_t)VIRTUAL_VECTOR << 32 |
					(r->vgif_enabled ? SVM_V_GIF_ENABLE : 0) | (r->vgif ? SVM_V_GIF : 0) |
					(r->vnmi_enabled ? SVM_V_NMI_ENABLE : 0) | (r->vnmi ? SVM_V_NMI : 0) |
					(r->vnmi_mask ? SVM_V_NMI_MASK : 0) |
					(r->masking ? SVM_V_INTR_MASKING : 0));
	svm_intercept(SVM_EXIT_STGI, r->intercept_stgi);
	svm_intercept(SVM_EXIT_CLGI, r->intercept_clgi);
	svm_intercept(SVM_EXIT_VINTR, r->intercept_vintr);
	if (r->injected == VECTOR_NMI)
		svm_set(VMCB_EVENTINJ,
			SVM_EVENT_VALID | (uint64_t)SVM_EVENT_NMI << SVM_EVENT_TYPE_SHIFT | VECTOR_NMI);
	else if (r->injected)
		svm_set(VMCB_EVENTINJ, SVM_EVENT_VALID | r->injected);
	svm_host_if = r->host_if;
	if (r->pending & PENDING_INTR)
		apic_pend_interrupt(0x45);
	if (r->pending & PENDING_NMI)
		svm_prelude(apic_send_nmi);
}

/* An exit as the rules have it. False: the guest has gone another way, and nothing behind it can be compared.
 */
static bool compare(const struct rules *r, unsigned n, const struct seen *want, uint64_t code)
{
	uint64_t mask = SVM_V_IRQ | (r->vgif_enabled ? SVM_V_GIF : 0) |
			(r->vnmi_enabled ? SVM_V_NMI | SVM_V_NMI_MASK : 0);

	story_check_at("exitcode", n, want->code, code);
	story_check_at("handler", n, want->vector, svm_handler_vector());
	story_check_at("rip", n, want->address, svm_get(VMCB_RIP));
	story_check_at("virtual", n, flags_of(r), svm_get(VMCB_INTERRUPT) & mask);
	story_check_at("shadow", n, want->shadow, svm_get(VMCB_INTERRUPT_SHADOW) & 1);
	story_check_at("if", n, r->interrupt_flag, svm_get(VMCB_RFLAGS) >> 9 & 1);
	return want->code == code && want->address == svm_get(VMCB_RIP);
}

#define MOST_EXITS 10u

static void run_both(struct rules *r)
{
	load_guest(r);
	for (unsigned n = 0; n < MOST_EXITS; n++) {
		struct seen want = run_by_rules(r);

		if (!compare(r, n, &want, svm_run_keep()) || want.code != SVM_EXIT_VMMCALL ||
		    want.vector == SVM_VECTOR_NONE)
			break;
		r->leaving = true;
		svm_set(VMCB_RIP, IRETQ);
	}
	svm_host_if = 0;
	__asm__ volatile("stgi" : : : "memory");
	if (r->pending & PENDING_INTR)
		story_open();
}

/*
 * mode: bit 0 the virtual GIF is enabled, bit 1 it is set; type: the program; other: what is pending; value:
 * bit 0 IF, bit 1 a shadow, bits 2 and 3 virtual NMIs enabled and masked, bit 4 V_INTR_MASKING, bit 5 the
 * host's IF; count: bit 0 STGI, 1 CLGI, 2 VINTR intercepted; from: the vector that is injected.
 */
STORY(svm_virtual)
{
	uint64_t gifs = GIVEN(mode), flags = GIVEN(value), intercepts = GIVEN(count);
	unsigned pending = (unsigned)GIVEN(other);
	struct rules r = {
		.program = programs[GIVEN(type)],
		.interrupt_flag = flags & 1,
		.shadow = flags & 2,
		.vgif_enabled = gifs & 1,
		.vgif = gifs & 2,
		.virq = pending & PENDING_VIRQ,
		.vnmi_enabled = flags & 4,
		.vnmi = pending & PENDING_VNMI,
		.vnmi_mask = flags & 8,
		.masking = flags & 16,
		.host_if = flags & 32,
		.intercept_stgi = intercepts & 1,
		.intercept_clgi = intercepts & 2,
		.intercept_vintr = intercepts & 4,
		.pending = pending & (PENDING_INTR | PENDING_NMI),
		.injected = (unsigned)GIVEN(from),
	};

	if (!svm_begin() || (r.vgif_enabled && !SVM_NEEDS(16)) || (r.vnmi_enabled && !SVM_NEEDS(25)) ||
	    (r.pending && !story_has_apic()))
		return;
	run_both(&r);
	svm_end();
}

/* ---- halts, which virtual events end (15.21.4, 15.21.10) ---- */

enum { HALT_VIRQ, HALT_VNMI, HALT_VNMI_IF0, HALT_VGIF };

STORY(svm_virtual_halt)
{
	uint64_t mode = GIVEN(mode);
	unsigned vector = mode == HALT_VIRQ || mode == HALT_VGIF ? VIRTUAL_VECTOR : VECTOR_NMI;

	if (!svm_begin() || (vector == VECTOR_NMI && !SVM_NEEDS(25)) || (mode == HALT_VGIF && !SVM_NEEDS(16)))
		return;
	svm_baseline(MODE_LONG, 0);
	switch (mode) {
	case HALT_VIRQ: SVM_CODE(0xfb, 0xf4, 0x90, 0x0f, 0x01, 0xd9); break; /* sti; hlt, in the shadow */
	case HALT_VGIF: SVM_CODE(0x0f, 0x01, 0xdc, 0xf4, 0x90, 0x0f, 0x01, 0xd9); break; /* stgi; hlt */
	default: /* hlt, in the shadow of what was before VMRUN */
		SVM_CODE(0xf4, 0x90, 0x0f, 0x01, 0xd9);
		svm_set(VMCB_INTERRUPT_SHADOW, 1);
		break;
	}
	if (mode == HALT_VGIF || mode == HALT_VNMI)
		svm_set(VMCB_RFLAGS, svm_get(VMCB_RFLAGS) | RFLAGS_IF);
	svm_set(VMCB_INTERRUPT, vector == VECTOR_NMI
					? SVM_V_NMI_ENABLE | SVM_V_NMI
					: SVM_V_IRQ | 15ull << 16 | (uint64_t)VIRTUAL_VECTOR << 32 |
						  (mode == HALT_VGIF ? SVM_V_GIF_ENABLE : 0));
	story_check("exitcode", SVM_EXIT_VMMCALL, svm_run());
	story_check("handler", vector, svm_handler_vector());
	/* STGI has no shadow: the interrupt comes in front of HLT. */
	story_check("frame_rip",
		    CASE_STUB + (mode == HALT_VIRQ   ? 2
				 : mode == HALT_VGIF ? 3
						     : 1),
		    *(const uint64_t *)svm_get(VMCB_RSP));
	svm_end();
}

/* ---- a virtual NMI whose delivery exits: not masked, and told in EXITINTINFO (15.21.10) ---- */

enum { BROKEN_TAKEN, BROKEN_INJECTED, BROKEN_MASK_KEPT };

STORY(svm_virtual_nmi_broken)
{
	uint64_t mode = GIVEN(mode), v = SVM_V_NMI_ENABLE;

	if (!svm_begin() || !SVM_NEEDS(25) || !SVM_NEEDS(0))
		return;
	svm_baseline(MODE_LONG, 0);
	SVM_CODE(0x90, 0x0f, 0x01, 0xd9);
	svm_nested_build();
	svm_nested_use();
	/* The IDT is not there under the nested tables. */
	*(volatile uint64_t *)(uintptr_t)CASE_NESTED_PTE(CASE_IDT64) = 0;
	if (mode == BROKEN_TAKEN)
		v |= SVM_V_NMI;
	else if (mode == BROKEN_INJECTED)
		svm_set(VMCB_EVENTINJ,
			SVM_EVENT_VALID | (uint64_t)SVM_EVENT_NMI << SVM_EVENT_TYPE_SHIFT | VECTOR_NMI);
	else { /* another event's delivery: the mask is as it was */
		v |= SVM_V_NMI_MASK;
		svm_set(VMCB_EVENTINJ, SVM_EVENT_VALID | INJECTED_VECTOR);
	}
	svm_set(VMCB_INTERRUPT, v);
	story_check("exitcode", SVM_EXIT_NPF, svm_run());
	story_check("intinfo",
		    mode == BROKEN_MASK_KEPT
			    ? SVM_EVENT_VALID | INJECTED_VECTOR
			    : SVM_EVENT_VALID | (uint64_t)SVM_EVENT_NMI << SVM_EVENT_TYPE_SHIFT | VECTOR_NMI,
		    svm_get(VMCB_EXITINTINFO));
	story_check("v_nmi", 0, svm_get(VMCB_INTERRUPT) & SVM_V_NMI);
	/* Whether an injected NMI is a virtual one that is being delivered is not said. */
	if (mode != BROKEN_INJECTED)
		story_check("v_nmi_mask", mode == BROKEN_MASK_KEPT ? SVM_V_NMI_MASK : 0,
			    svm_get(VMCB_INTERRUPT) & SVM_V_NMI_MASK);
	svm_end();
}

/* ---- SMIs do not ask the virtual GIF (15.22.2, 15.33.2) ---- */

#define SMM_CODE  0x38000u /* SMBASE + 8000H */
#define SMM_COUNT 0x38100u

static void send_smi(void)
{
	apic_enable(0xff);
	apic_send(apic_id(), ICR_SMI | ICR_ASSERT);
}

STORY(svm_virtual_smi)
{
	static const uint8_t handler[] = {0x2e, 0xfe, 0x06, 0x00,
					  0x81, 0x0f, 0xaa}; /* incb %cs:0x8100; rsm */
	bool intercepted = GIVEN(mode), set = GIVEN(value);
	uint64_t v = SVM_V_GIF_ENABLE | (set ? SVM_V_GIF : 0) | SVM_V_IRQ | 15ull << 16 |
		     (uint64_t)VIRTUAL_VECTOR << 32;

	if (!svm_begin() || !SVM_NEEDS(16) || !story_has_apic())
		return;
	story_spoils();
	machine_copy((void *)(uintptr_t)SMM_CODE, handler, sizeof(handler));
	*(volatile uint8_t *)(uintptr_t)SMM_COUNT = 0;
	svm_baseline(MODE_LONG, 0);
	SVM_CODE(0x90, 0x90, 0x90, 0x0f, 0x01, 0xd9);
	svm_set(VMCB_INTERRUPT, v);
	svm_intercept(SVM_EXIT_SMI, intercepted);
	svm_prelude(send_smi);
	story_check("exitcode", intercepted ? SVM_EXIT_SMI : SVM_EXIT_VMMCALL, svm_run_keep());
	story_check("handled", !intercepted, *(volatile uint8_t *)(uintptr_t)SMM_COUNT);
	story_check("virtual", v & 0xffff, svm_get(VMCB_INTERRUPT) & 0xffff);
	__asm__ volatile("stgi; nop; nop" : : : "memory");
	story_check("handled_at_last", 1, *(volatile uint8_t *)(uintptr_t)SMM_COUNT);
}
