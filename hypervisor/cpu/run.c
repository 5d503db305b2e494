/* run.c: the loop: traces, single steps, and what happens between two instructions. */
#include <stdio.h>
#include <string.h>

#include "cpu/branch_record.h"
#include "cpu/checks.h"
#include "cpu/decode.h"
#include "cpu/events.h"
#include "cpu/guest.h"
#include "cpu/insn.h"
#include "cpu/mem/mem.h"
#include "cpu/mem/phys.h"
#include "cpu/segment.h"
#include "cpu/smm.h"
#include "cpu/trace.h"
#include "cpu/simd.h"
#include "x86/msr.h"

enum unwind { UNWIND_START, UNWIND_EVENT, UNWIND_PAUSE, UNWIND_SWITCH, UNWIND_UNMODELLED };

/* ---- where the CPU is ---- */

uint64_t cpu_rip(const struct cpu *cpu)
{
	if (!cpu->insn)
		return cpu->rip;
	return (cpu->reg[REG_TRACE_RIP] + cpu->insn->offset) & cpu->linear_mask;
}

uint64_t cpu_next_rip(const struct cpu *cpu)
{
	if (!cpu->insn)
		return cpu->rip;
	return (cpu->reg[REG_TRACE_RIP] + cpu->insn->offset + cpu->insn->length) & cpu->linear_mask;
}

/* ---- leaving an instruction ---- */

void cpu_leave_insn(struct cpu *cpu)
{
	if (!cpu->insn)
		return;
	cpu->left_next_rip = cpu_next_rip(cpu);
	cpu->rip = cpu_rip(cpu);
	cpu->retired += cpu->insn->count;
	cpu->insn = NULL;
}

void cpu_raise_event(struct cpu *cpu, const struct event *event)
{
	cpu->raised = *event;
	cpu_leave_insn(cpu);
	/* Behind IRET, where that has completed: an exit out of the delivery finds RIP there as well. */
	if (event->kind == EVENT_FAULT)
		cpu->rip = event->return_rip;
	longjmp(cpu->unwind, UNWIND_EVENT);
}

void cpu_switch(struct cpu *cpu) { longjmp(cpu->unwind, UNWIND_SWITCH); }

void cpu_raise(struct cpu *cpu, enum vector vector, uint32_t error_code)
{
	struct event event = {.kind = EVENT_FAULT,
			      .vector = (uint8_t)vector,
			      .return_rip = cpu_rip(cpu),
			      .has_error_code = vector_has_error_code(vector),
			      .error_code = error_code};

	cpu_raise_event(cpu, &event);
}

void cpu_unmodelled(struct cpu *cpu, const char *what)
{
	uint8_t bytes[16];
	size_t length = cpu->insn ? trace_bytes(cpu, bytes, sizeof(bytes)) : 0;
	int used = snprintf(cpu->unmodelled, sizeof(cpu->unmodelled), "%.80s at %04x:%llx", what,
			    (unsigned)cpu->segment[CS].s.selector, (unsigned long long)cpu_rip(cpu));

	for (size_t i = 0; i < length; i++)
		used += snprintf(cpu->unmodelled + used, sizeof(cpu->unmodelled) - (size_t)used, " %02x",
				 bytes[i]);
	vmcs_close(cpu);
	cpu_leave_insn(cpu);
	longjmp(cpu->unwind, UNWIND_UNMODELLED);
}

/* ---- REP ---- */

uint64_t cpu_repeat_limit(struct cpu *cpu, const struct insn *insn, uint64_t wanted)
{
	uint64_t now = cpu->retired + insn->count, room;

	if (cpu->pending || now + 1 >= cpu->event_at)
		return 1;
	room = cpu->event_at - now;
	return wanted < room ? wanted : room;
}

void cpu_repeat_done(struct cpu *cpu, const struct insn *insn, uint64_t done, bool more)
{
	cpu->retired += done;
	if (!more) {
		cpu->retired--; /* the last is the one that the trace counts */
		return;
	}
	if (!cpu->pending && cpu->retired + insn->count < cpu->event_at)
		return;
	/* Resuming must not hit the instruction's own breakpoint again (SDM 3B 18.3.1.1). */
	cpu->rflags |= RFLAGS_RF;
	cpu_leave_insn(cpu);
	longjmp(cpu->unwind, UNWIND_PAUSE);
}

/* ---- time ---- */

uint64_t cpu_ticks(const struct cpu *cpu) { return cpu_retired(cpu) + cpu->clock_offset; }

/* ---- signals from outside ---- */

static void pending_set(struct cpu *cpu, uint32_t bits)
{
	__atomic_fetch_or(&cpu->pending, bits, __ATOMIC_RELAXED);
	trace_leave_after(cpu);
}

static void pending_clear(struct cpu *cpu, uint32_t bits)
{
	__atomic_fetch_and(&cpu->pending, ~bits, __ATOMIC_RELAXED);
}

void cpu_request_stop(struct cpu *cpu) { pending_set(cpu, PENDING_STOP); }

void cpu_set_interrupt_line(struct cpu *cpu, bool raised)
{
	cpu->interrupt_line = raised;
	if (raised && guest_interrupts_open(cpu))
		pending_set(cpu, PENDING_INTERRUPT);
	else
		pending_clear(cpu, PENDING_INTERRUPT);
}

void cpu_raise_nmi(struct cpu *cpu)
{
	cpu->nmi_pending = true;
	if (!cpu->nmi_blocked)
		pending_set(cpu, PENDING_NMI);
}

void cpu_raise_smi(struct cpu *cpu)
{
	cpu->smi_pending = true;
	smm_note_io(cpu);
	pending_set(cpu, PENDING_SMI);
}

void cpu_latches_changed(struct cpu *cpu)
{
	if (cpu->smi_pending)
		pending_set(cpu, PENDING_SMI);
	if (cpu->init_pending)
		pending_set(cpu, PENDING_INIT);
	if (cpu->wait.armed)
		phys_set_monitored(cpu->memory, cpu->wait.line);
}

static void deliver(struct cpu *cpu, const struct event *event);

/* VM_CR.R_INIT makes a security exception of it, whose error code says so (APM 2 8.2.20, 15.28). */
static bool redirect_init(struct cpu *cpu)
{
	struct event event = {.kind = EVENT_FAULT,
			      .vector = VECTOR_SX,
			      .has_error_code = true,
			      .error_code = 1,
			      .return_rip = cpu->rip};

	cpu->init_pending = false;
	pending_clear(cpu, PENDING_INIT);
	if (!guest_take_exception(cpu, &event))
		deliver(cpu, &event);
	return true;
}

static bool init_blocked(const struct cpu *cpu) { return cpu->smm || guest_blocks_init(cpu); }

/* INIT: RESET but for what it keeps; what comes next is the local APIC's to say. Held off in SMM (SDM
 * 3C 32.3). */
static bool take_init(struct cpu *cpu)
{
	if (!cpu->init_pending || init_blocked(cpu))
		return false;
	if (guest_take_init(cpu))
		return true;
	if (CHECK(INIT_REDIRECT, cpu->msr.vm_cr & VM_CR_R_INIT && cpu->activity != ACTIVITY_WAIT_FOR_SIPI))
		return redirect_init(cpu);
	cpu->init_pending = false;
	pending_clear(cpu, PENDING_INIT);
	cpu_reset(cpu, true);
	if (cpu->bus.init_taken)
		cpu->bus.init_taken(cpu->bus.owner);
	return true;
}

void cpu_raise_init(struct cpu *cpu, bool running)
{
	cpu->init_pending = true;
	/* Outside of cpu_run() there is nothing to deliver to: what is intercepted or redirected waits. */
	if (running || guest_runs(cpu) || cpu->msr.vm_cr & VM_CR_R_INIT || !take_init(cpu))
		pending_set(cpu, PENDING_INIT);
}

void cpu_start(struct cpu *cpu, uint8_t vector)
{
	if (cpu->activity != ACTIVITY_WAIT_FOR_SIPI)
		return;
	if (vmx_guest(cpu)) {
		vmx_note_sipi(cpu, vector);
		return;
	}
	cpu->activity = ACTIVITY_ACTIVE;
	cpu->segment[CS].s.selector = (uint16_t)(vector << 8);
	cpu->segment[CS].s.base = (uint64_t)vector << 12;
	segment_derive(cpu, CS);
	cpu->rip = 0;
	cpu_mode_changed(cpu);
}

void cpu_yield(struct cpu *cpu) { pending_set(cpu, PENDING_YIELD); }

/* A guest's own timer ends the fast path as well; one that is due is look()'s. */
static void clamp_event_at(struct cpu *cpu)
{
	uint64_t due = guest_timer_due(cpu);

	if (unlikely(due != UINT64_MAX) && due > cpu->retired + cpu->clock_offset &&
	    due - cpu->clock_offset < cpu->event_at)
		cpu->event_at = due - cpu->clock_offset;
}

void cpu_set_event_at(struct cpu *cpu, uint64_t retired)
{
	cpu->event_at = retired < cpu->stop_at ? retired : cpu->stop_at;
	clamp_event_at(cpu);
	trace_leave_after(cpu);
}

/* What an exit out of the stepped instruction would have told does not hold any longer. */
static void instruction_over(struct cpu *cpu)
{
	cpu->shadow_was = SHADOW_NONE;
	cpu->resume_was = 0;
	cpu->nmi_unblocked = false;
}

/* ---- delivering ---- */

static void deliver(struct cpu *cpu, const struct event *event)
{
	struct event copy = *event;

	cpu->delivering = copy;
	cpu->delivering_depth++;
	cpu->activity = ACTIVITY_ACTIVE;
	cpu->wait.armed = false;
	cpu->smi_io.valid = false; /* no longer right behind it */
	cpu->shadow = SHADOW_NONE;
	cpu->step_tf = false;
	cpu->retired++;
	if (cpu->tracing && cpu->bus.trace_event)
		cpu->bus.trace_event(cpu->bus.owner, cpu, &copy);
	event_deliver(cpu, &copy);
	cpu->delivering_depth = 0;
	guest_boundary(cpu);
}

/*
 * Whether faults beget faults beyond the triple fault, until the budget is spent: with DOUBLE_FAULT or
 * TRIPLE_FAULT broken they would do so for ever.
 */
static bool delivers_for_ever(const struct cpu *cpu)
{
	return unlikely(cpu->delivering_depth > 8) && cpu->retired >= cpu->stop_at;
}

/* Delivers what cpu_raise() left in cpu->raised. False: shutdown. */
static bool deliver_raised(struct cpu *cpu)
{
	struct event event = cpu->raised;

	if (guest_take_exception(cpu, &event))
		return true;
	if (cpu->delivering_depth) {
		struct event first = cpu->delivering;

		if (!event_combine(&first, &cpu->raised, &event)) {
			if (guest_take_shutdown(cpu))
				return true;
			cpu->activity = ACTIVITY_SHUTDOWN;
			cpu->delivering_depth = 0;
			return false;
		}
		if (event.vector != cpu->raised.vector && guest_take_exception(cpu, &event))
			return true;
	}
	deliver(cpu, &event);
	return true;
}

static bool debug_shadow(const struct cpu *cpu) { return CHECK(DEBUG_SHADOW, cpu->shadow == SHADOW_MOV_SS); }

/* A #DB trap for the breakpoints and the single step of the instruction behind us (SDM 3B 18.3). */
static void deliver_traps(struct cpu *cpu)
{
	struct event event = {.kind = EVENT_TRAP, .vector = VECTOR_DB, .return_rip = cpu->rip};

	if (CHECK(SINGLE_STEP, cpu->step_tf) && !debug_shadow(cpu))
		cpu->dr6_pending |= DR6_BS;
	cpu->step_tf = false;
	/* MOV SS and POP SS hold #DB off until the instruction behind them is done (SDM 3A 6.8.3). */
	if (!cpu->dr6_pending || debug_shadow(cpu))
		return;
	if (guest_take_exception(cpu, &event))
		return;
	deliver(cpu, &event);
}

/* ---- between two instructions ---- */

/* NMIs and interrupts as bits of cpu->pending: those that are not masked. */
static void pending_refresh(struct cpu *cpu)
{
	uint32_t bits = 0;

	if (cpu->nmi_pending && !CHECK(NMI_BLOCKING, cpu->nmi_blocked))
		bits |= PENDING_NMI;
	if (cpu->interrupt_line && guest_interrupts_open(cpu))
		bits |= PENDING_INTERRUPT;
	if (CHECK(SVM_GIF_NMI, bits & PENDING_NMI && !svm_gif(cpu)))
		bits &= ~(uint32_t)PENDING_NMI;
	if (guest_pending(cpu))
		bits |= PENDING_VIRTUAL;
	if (unlikely((cpu->pending ^ bits) & (PENDING_NMI | PENDING_INTERRUPT | PENDING_VIRTUAL))) {
		pending_clear(cpu, PENDING_NMI | PENDING_INTERRUPT | PENDING_VIRTUAL);
		__atomic_fetch_or(&cpu->pending, bits, __ATOMIC_RELAXED);
	}
}

static bool take_nmi(struct cpu *cpu)
{
	struct event event = {.kind = EVENT_NMI, .vector = VECTOR_NMI, .return_rip = cpu->rip};

	if (!(cpu->pending & PENDING_NMI) || cpu->shadow == SHADOW_MOV_SS)
		return false;
	if (guest_take_nmi(cpu))
		return true;
	cpu->nmi_pending = false;
	pending_clear(cpu, PENDING_NMI);
	cpu->nmi_blocked = vmx_guest(cpu); /* so that an exit while it is delivered says so */
	deliver(cpu, &event);
	return true;
}

static bool take_last(struct cpu *cpu);

static bool take_interrupt(struct cpu *cpu)
{
	struct event event = {.kind = EVENT_EXTERNAL_INTERRUPT, .return_rip = cpu->rip};
	int vector;

	if (!(cpu->pending & PENDING_INTERRUPT) || CHECK(INTERRUPT_SHADOW, cpu->shadow != SHADOW_NONE))
		return false;
	if (guest_take_interrupt(cpu)) {
		if (guest_runs(cpu)) { /* a posted one, which may have made a virtual one recognized (SDM 3C 30.6) */
			pending_refresh(cpu);
			take_last(cpu);
		}
		return true;
	}
	vector = cpu->bus.interrupt_acknowledge ? cpu->bus.interrupt_acknowledge(cpu->bus.owner) : -1;
	if (vector < 0) {
		cpu->interrupt_line = false;
		pending_clear(cpu, PENDING_INTERRUPT);
		return false;
	}
	event.vector = (uint8_t)vector;
	deliver(cpu, &event);
	return true;
}

/*
 * A virtual or injected event; NMIs that are not physical do not block those that are (APM 2 15.20, 15.21.10), but for
 * those that VM entry injects without virtual NMIs, which have come from outside (SDM 3C 27.7.1).
 */
static void deliver_virtual(struct cpu *cpu, const struct event *event)
{
	bool blocked = cpu->nmi_blocked;

	deliver(cpu, event);
	cpu->nmi_blocked = blocked;
}

/* What only guests have, at the place among others that @take stands for. */
static bool take_virtual(struct cpu *cpu, bool (*take)(struct cpu *cpu, struct event *event))
{
	struct event event;

	if (likely(!(cpu->pending & PENDING_VIRTUAL)) || !take(cpu, &event))
		return false;
	if (event.kind != EVENT_NONE)
		deliver_virtual(cpu, &event);
	return true;
}

static bool take_before_interrupt(struct cpu *cpu) { return take_virtual(cpu, guest_take_before_interrupt); }
static bool take_last(struct cpu *cpu) { return take_virtual(cpu, guest_take_last); }

/* Instruction breakpoints at cpu->rip, as bits of DR6 (SDM 3B 18.3.1.1). */
static uint32_t code_breakpoints(const struct cpu *cpu)
{
	uint64_t linear = (cpu->segment[CS].linear_base + cpu->rip) & cpu->linear_mask;
	uint32_t hits = 0;

	for (unsigned n = 0; n < 4; n++) {
		bool enabled = cpu->dr7 & (DR7_L(n) | DR7_G(n));

		if (enabled && !(cpu->dr7 >> DR7_RW_SHIFT(n) & 3) && cpu->dr[n] == linear)
			hits |= DR6_B(n);
	}
	return hits;
}

/* One instruction alone, with what TF, RF, breakpoints and shadows make of it. */
static void step(struct cpu *cpu)
{
	bool held_off = CHECK(RESUME_FLAG, cpu->rflags & RFLAGS_RF) || debug_shadow(cpu) ||
			CHECK(SVM_GIF_BREAKPOINT, !svm_gif(cpu));
	uint32_t hits = held_off ? 0 : code_breakpoints(cpu);
	const struct insn *insn;
	struct branch_step branch;
	bool watched, between_branches;

	if (CHECK(CODE_BREAKPOINT, hits)) {
		cpu->dr6_pending |= hits;
		cpu_raise(cpu, VECTOR_DB, 0);
	}
	insn = trace_step(cpu);
	cpu->insn = insn;
	if (cpu->tracing && cpu->bus.trace_insn)
		cpu->bus.trace_insn(cpu->bus.owner, cpu, insn);
	watched = branch_watched(cpu);
	if (watched)
		branch = branch_begin(cpu, insn);
	between_branches = cpu->rflags & RFLAGS_TF && CHECK(BRANCH_STEP, cpu->msr.debugctl & DEBUGCTL_BTF);
	cpu->step_tf = cpu->rflags & RFLAGS_TF && !between_branches;
	cpu->shadow_was = cpu->shadow;
	cpu->resume_was = cpu->rflags & RFLAGS_RF;
	cpu->shadow = SHADOW_NONE;
	cpu->rflags &= ~(uint64_t)RFLAGS_RF;
	while (insn)
		insn = insn->run(cpu, insn);
	trace_unpark(cpu);
	instruction_over(cpu);
	if (watched && branch_end(cpu, &branch))
		cpu->step_tf |= between_branches;
	/* Where exits come before the traps, look() sees to both. */
	if (!guest_boundary(cpu))
		deliver_traps(cpu);
}

static bool unmasked_event(const struct cpu *cpu)
{
	return (cpu->nmi_pending && svm_gif(cpu) && !CHECK(NMI_BLOCKING, cpu->nmi_blocked)) ||
	       (cpu->interrupt_line && guest_interrupts_open(cpu)) || guest_pending(cpu);
}

static bool wait_is_over(const struct cpu *cpu)
{
	return cpu->activity == ACTIVITY_MWAIT &&
	       ((cpu->wait.masked && cpu->interrupt_line) || cpu_ticks(cpu) >= cpu->wait.until);
}

/* MWAIT and its kin: whether the wait ends without an event. */
static bool end_wait(struct cpu *cpu)
{
	if (!wait_is_over(cpu))
		return false;
	if (cpu->wait.carry && cpu_ticks(cpu) >= cpu->wait.until)
		flags_set_cf(&cpu->lazy, true);
	cpu->wait.armed = false;
	cpu->activity = ACTIVITY_ACTIVE;
	return true;
}

uint64_t cpu_wait_end(const struct cpu *cpu)
{
	uint64_t due = guest_timer_due(cpu);

	if (cpu->activity == ACTIVITY_MWAIT && cpu->wait.until < due)
		return cpu->wait.until;
	return due;
}

bool cpu_runnable(const struct cpu *cpu)
{
	if (cpu->init_pending && !init_blocked(cpu))
		return true;
	switch (cpu->activity) {
	case ACTIVITY_WAIT_FOR_SIPI: return guest_pending(cpu);
	case ACTIVITY_SHUTDOWN:
		if (!vmx_guest(cpu))
			return true;
		/* fall through */
	case ACTIVITY_HLT:
	case ACTIVITY_MWAIT:
		return (cpu->smi_pending && !cpu->smm && svm_gif(cpu)) || unmasked_event(cpu) || wait_is_over(cpu);
	default: return true;
	}
}

/* Not in SMM, where one more is kept; nor in the shadow of STI or MOV SS (SDM 3C 25.4.2, 32.3.1). */
static bool take_smi(struct cpu *cpu)
{
	if (!cpu->smi_pending || CHECK(SMI_IN_SMM, cpu->smm) || CHECK(SMI_SHADOW, cpu->shadow != SHADOW_NONE))
		return false;
	if (cpu->activity == ACTIVITY_WAIT_FOR_SIPI || cpu->activity == ACTIVITY_SHUTDOWN)
		return false;
	if (guest_take_smi(cpu))
		return true;
	cpu->smi_pending = false;
	pending_clear(cpu, PENDING_SMI);
	smm_enter(cpu);
	return true;
}

/* SMI and INIT, which come before all but RESET. Answers whether there was one. */
static bool take_intervention(struct cpu *cpu)
{
	if (CHECK(SVM_GIF_SMI, !svm_gif(cpu)))
		return false;
	return take_smi(cpu) || (cpu->pending & PENDING_INIT && take_init(cpu));
}

/*
 * What stands before the next instruction, in the order of SDM 3A table 6-2. Answers whether
 * cpu_run() returns, with why in @stop; events are delivered on the way.
 */
static bool look(struct cpu *cpu, enum cpu_stop *stop)
{
	pending_refresh(cpu);
	if (cpu->pending & (PENDING_SMI | PENDING_INIT) && take_intervention(cpu))
		return false;
	if (cpu->activity == ACTIVITY_SHUTDOWN && !vmx_guest(cpu)) {
		*stop = CPU_STOP_SHUTDOWN;
		return true;
	}
	if (guest_take_before_traps(cpu))
		return false;
	deliver_traps(cpu);
	if (cpu->pending & PENDING_STOP) {
		pending_clear(cpu, PENDING_STOP);
		*stop = CPU_STOP_REQUESTED;
		return true;
	}
	/* Before the budget, whose end must not make a turn longer. */
	if (cpu->pending & PENDING_YIELD) {
		pending_clear(cpu, PENDING_YIELD);
		*stop = CPU_STOP_YIELD;
		return true;
	}
	if (cpu->retired >= cpu->event_at) {
		*stop = cpu->retired >= cpu->stop_at ? CPU_STOP_BUDGET : CPU_STOP_REQUESTED;
		return true;
	}
	if (guest_take_before_nmi(cpu))
		return false;
	if (cpu->activity != ACTIVITY_WAIT_FOR_SIPI &&
	    (take_nmi(cpu) || take_before_interrupt(cpu) || take_interrupt(cpu) || take_last(cpu)))
		return false;
	if (cpu->activity != ACTIVITY_ACTIVE && !end_wait(cpu)) {
		*stop = CPU_STOP_HALT;
		return true;
	}
	return false;
}

/* RF of a guest is saved by an exit that its instruction has: that runs alone. */
static bool resumes_guest(const struct cpu *cpu) { return guest_runs(cpu) && cpu->rflags & RFLAGS_RF; }

static bool must_look(const struct cpu *cpu)
{
	return cpu->pending || cpu->shadow != SHADOW_NONE || cpu->activity != ACTIVITY_ACTIVE ||
	       cpu->nmi_pending || cpu->interrupt_line || cpu->dr6_pending ||
	       guest_must_look(cpu) || resumes_guest(cpu) ||
	       cpu->retired + TRACE_INSNS > cpu->event_at;
}

/* Whether the next instruction must run alone. */
static bool must_step(const struct cpu *cpu)
{
	return cpu->pending || cpu->shadow != SHADOW_NONE || resumes_guest(cpu) ||
	       cpu->retired + TRACE_INSNS > cpu->event_at;
}

static enum cpu_stop run_loop(struct cpu *cpu)
{
	const struct insn *insn;
	enum cpu_stop stop;
	uint64_t retired;

	for (;;) {
		trace_unpark(cpu);
		if (unlikely(must_look(cpu))) {
			retired = cpu->retired;
			if (look(cpu, &stop))
				return stop;
			/*
			 * Behind an event or an exit is another boundary: for the trap of the breakpoint that the
			 * frame was written over, or of the VMRUN that is complete with its #VMEXIT (APM 2 15.5.1),
			 * and for what the shadow that is over has held off.
			 */
			if (cpu->activity != ACTIVITY_ACTIVE || cpu->retired != retired || retired >= cpu->event_at)
				continue;
			if (must_step(cpu)) {
				step(cpu);
				continue;
			}
		}
		/* RF lasts for one instruction (SDM 3B 18.3.1.1), and where no breakpoint is enabled that is
		 * all. */
		cpu->rflags &= ~(uint64_t)RFLAGS_RF;
		insn = trace_lookup(cpu);
		do {
			insn = insn->run(cpu, insn);
		} while (insn);
	}
}

/* The loop, and where cpu_raise() and its kin come back to. */
static enum cpu_stop run(struct cpu *cpu)
{
	if (cpu->event_at > cpu->stop_at || cpu->event_at <= cpu->retired)
		cpu->event_at = cpu->stop_at;
	clamp_event_at(cpu);
	switch (setjmp(cpu->unwind)) {
	case UNWIND_UNMODELLED:
		cpu->delivering_depth = 0;
		trace_unpark(cpu);
		return CPU_STOP_UNMODELLED;
	case UNWIND_EVENT:
		trace_unpark(cpu);
		/* What faults did not complete, and its breakpoints were not met; INT n and its kin do
		 * complete. */
		if (cpu->raised.kind == EVENT_FAULT && cpu->raised.vector != VECTOR_DB)
			cpu->dr6_pending = 0;
		if (delivers_for_ever(cpu)) {
			cpu->delivering_depth = 0;
			return CPU_STOP_BUDGET;
		}
		if (!deliver_raised(cpu))
			return CPU_STOP_SHUTDOWN;
		instruction_over(cpu);
		break;
	case UNWIND_SWITCH:
		trace_unpark(cpu);
		instruction_over(cpu);
		cpu->delivering_depth = 0;
		if (cpu->injecting) {
			struct event event = cpu->injected;

			cpu->injecting = false;
			deliver_virtual(cpu, &event);
		}
		break;
	case UNWIND_PAUSE:
		trace_unpark(cpu);
		instruction_over(cpu);
		if (!guest_boundary(cpu))
			deliver_traps(cpu);
		break;
	default:
		if (unlikely(cpu->injecting)) { /* cpu_inject_interrupt() */
			struct event event = cpu->injected;

			cpu->injecting = false;
			deliver(cpu, &event);
		}
		break;
	}
	return run_loop(cpu);
}

void cpu_inject_interrupt(struct cpu *cpu, uint8_t vector)
{
	cpu->injecting = true;
	cpu->injected = (struct event){.kind = EVENT_EXTERNAL_INTERRUPT, .vector = vector, .return_rip = cpu->rip};
}

enum cpu_stop cpu_run(struct cpu *cpu)
{
	enum cpu_stop stop;

	pending_clear(cpu, PENDING_YIELD); /* of a turn that has ended otherwise */
	mxcsr_load(cpu);
	stop = run(cpu);
	mxcsr_unload(cpu);
	return stop;
}
