/* events.c: delivery of exceptions and interrupts (SDM 3A chapter 6, SDM 2A INT n, APM 2 chapter 8). */
#include "cpu/events.h"

#include "cpu/branch_record.h"
#include "cpu/checks.h"
#include "cpu/control.h"
#include "cpu/insn.h"
#include "cpu/mem/mem.h"
#include "cpu/stack.h"
#include "cpu/tss.h"

/* ---- what an event is ---- */

/* INT n, INT3 and INTO are held against the gate's DPL; INT1 is not (SDM 2A INT n). */
static bool event_is_software(const struct event *event)
{
	return event->kind == EVENT_SOFTWARE_INTERRUPT || event->kind == EVENT_SOFTWARE_EXCEPTION;
}

static bool event_is_debug_exception(const struct event *event)
{
	return event->vector == VECTOR_DB && !event->injected &&
	       (event->kind == EVENT_FAULT || event->kind == EVENT_TRAP);
}

uint64_t event_flags_image(const struct cpu *cpu, const struct event *event)
{
	uint64_t flags = rflags_get(cpu);

	/* What VM entry injects pushes the flags that it has loaded (SDM 3C 27.6.1.1). */
	if (event->injected)
		return flags;
	if (event->kind == EVENT_FAULT)
		return flags | RFLAGS_RF;
	if (event_is_software(event) || event->kind == EVENT_PRIVILEGED_SOFTWARE_EXCEPTION)
		return flags & ~(uint64_t)RFLAGS_RF;
	return flags;
}

/*
 * DR6 bits 3:0 say what this exception is about; the others stay until software clears them
 * (SDM 3B 18.2.3). An instruction breakpoint is the one fault that leaves RF in the image alone
 * (SDM 3B 18.3.1.1): it goes on as a trap.
 */
void event_note_debug(struct cpu *cpu, struct event *event)
{
	if (event->kind == EVENT_FAULT && !(cpu->dr6_pending & DR6_BD))
		event->kind = EVENT_TRAP;
	cpu->dr6 = (cpu->dr6 & ~0xfull) | cpu->dr6_pending;
	cpu->dr6_pending = 0;
	cpu->dr7 &= ~(uint64_t)DR7_GD;
	branch_debug_exception(cpu);
}

/* ---- real-address mode (SDM 3A 20.1.4) ---- */

static void enter_through_ivt(struct cpu *cpu, uint64_t entry, uint64_t flags, uint64_t return_rip, uint64_t clear)
{
	struct stack stack;

	stack_current(cpu, &stack, 0);
	stack_add(&stack, flags, 2);
	stack_add(&stack, cpu->segment[CS].s.selector, 2);
	stack_add(&stack, return_rip, 2);
	stack_write(cpu, &stack);

	stack_commit(cpu, &stack);
	segment_load_real(cpu, CS, (uint16_t)(entry >> 16));
	cpu->rip = entry & 0xffff;
	rflags_set(cpu, 0, clear);
	transfer_done(cpu);
}

static void deliver_real(struct cpu *cpu, const struct event *event)
{
	unsigned offset = event->vector * 4u;

	if (CHECK(IVT_LIMIT, offset + 3 > cpu->idtr.limit))
		cpu_raise(cpu, VECTOR_GP, error_ext(cpu));
	uint64_t entry = linear_read(cpu, (uint32_t)(cpu->idtr.base + offset), 4, ACCESS_READ | ACCESS_IMPLICIT);
	enter_through_ivt(cpu, entry, event_flags_image(cpu, event), event->return_rip,
			  RFLAGS_IF | RFLAGS_TF | RFLAGS_AC | RFLAGS_RF);
}

/*
 * The 8086 program sees IOPL = 3 in its FLAGS image. Below IOPL 3, VIF stands in for IF, in the
 * image and in what is cleared (SDM 3A table 20-2, methods 5 and 6).
 */
void event_redirect(struct cpu *cpu, uint8_t vector, uint64_t return_rip)
{
	uint64_t entry = linear_read(cpu, vector * 4u, 4, ACCESS_READ | ACCESS_IMPLICIT);
	uint64_t flags = rflags_get(cpu), clear = RFLAGS_TF | RFLAGS_RF | RFLAGS_IF;

	if (cpu_iopl(cpu) < 3) {
		flags = flags & RFLAGS_VIF ? flags | RFLAGS_IF : flags & ~(uint64_t)RFLAGS_IF;
		clear ^= RFLAGS_IF | RFLAGS_VIF;
	}
	enter_through_ivt(cpu, entry, flags | RFLAGS_IOPL, return_rip, clear);
}

/* ---- gates (SDM 3A 6.11, 6.14.1) ---- */

struct gate {
	uint64_t offset;
	uint16_t selector;
	unsigned type; /* enum system_type */
	unsigned width; /* of what it pushes: 2, 4 or 8 */
	unsigned dpl, ist;
	bool present;
};

static uint32_t gate_error(const struct cpu *cpu, const struct event *event)
{
	return event->vector * 8u | ERROR_IDT | error_ext(cpu);
}

static struct gate gate_parse(uint64_t low, uint64_t high, bool wide)
{
	struct gate gate = {.offset = (low & 0xffff) | (low >> 32 & 0xffff0000) | high << 32,
			    .selector = (uint16_t)(low >> 16),
			    .type = low >> 40 & 0x1f, /* the S bit with it: it must be 0 */
			    .dpl = low >> 45 & 3,
			    .ist = wide ? low >> 32 & 7 : 0,
			    .present = low >> 47 & 1};

	gate.width = wide ? 8 : gate.type & 8 ? 4 : 2;
	if (gate.width == 2)
		gate.offset &= 0xffff;
	return gate;
}

static bool gate_type_valid(const struct cpu *cpu, unsigned type)
{
	switch (type) {
	case TYPE_INTERRUPT_GATE:
	case TYPE_TRAP_GATE: return true;
	case TYPE_TASK_GATE:
	case TYPE_INTERRUPT_GATE16:
	case TYPE_TRAP_GATE16: return !cpu_ia32e(cpu);
	default: return false;
	}
}

static struct gate gate_read(struct cpu *cpu, const struct event *event)
{
	bool wide = cpu_ia32e(cpu);
	unsigned size = wide ? 16 : 8;
	uint64_t linear = cpu->idtr.base + event->vector * size;
	uint64_t low, high = 0;

	if (CHECK(IDT_LIMIT, event->vector * size + size - 1 > cpu->idtr.limit))
		cpu_raise(cpu, VECTOR_GP, gate_error(cpu, event));
	if (!wide)
		linear = (uint32_t)linear;
	low = linear_read(cpu, linear, 8, ACCESS_READ | ACCESS_IMPLICIT);
	if (wide)
		high = linear_read(cpu, linear + 8, 8, ACCESS_READ | ACCESS_IMPLICIT);
	struct gate gate = gate_parse(low, high, wide);
	if (CHECK(IDT_GATE_TYPE, !gate_type_valid(cpu, gate.type)))
		cpu_raise(cpu, VECTOR_GP, gate_error(cpu, event));
	if (CHECK(IDT_GATE_DPL, event_is_software(event) && gate.dpl < cpu->cpl))
		cpu_raise(cpu, VECTOR_GP, gate_error(cpu, event));
	if (CHECK(IDT_GATE_PRESENT, !gate.present))
		cpu_raise(cpu, VECTOR_NP, gate_error(cpu, event));
	return gate;
}

/* ---- the handler's code segment ---- */

static void check_handler_privilege(struct cpu *cpu, uint32_t attributes, uint32_t error)
{
	unsigned dpl = attributes_dpl(attributes);

	if (CHECK(HANDLER_DPL, dpl > cpu->cpl))
		cpu_raise(cpu, VECTOR_GP, error);
	/* From virtual-8086 mode only to privilege 0, by a nonconforming segment. */
	if (CHECK(HANDLER_VM86, cpu_vm86(cpu) && (attributes_conforming(attributes) || dpl != 0)))
		cpu_raise(cpu, VECTOR_GP, error);
}

static void handler_code(struct cpu *cpu, const struct gate *gate, struct code_target *target)
{
	uint32_t error = selector_error(cpu, gate->selector);

	if (CHECK(HANDLER_NULL, selector_is_null(gate->selector)))
		cpu_raise(cpu, VECTOR_GP, error_ext(cpu));
	target->descriptor = descriptor_read(cpu, gate->selector, false, VECTOR_GP);
	uint32_t attributes = target->descriptor.attributes;
	if (CHECK(HANDLER_TYPE, !attributes_code(attributes)))
		cpu_raise(cpu, VECTOR_GP, error);
	check_handler_privilege(cpu, attributes, error);
	if (CHECK(HANDLER_64BIT, cpu_ia32e(cpu) && (attributes & (SEG_L | SEG_DB)) != SEG_L))
		cpu_raise(cpu, VECTOR_GP, error);
	if (CHECK(HANDLER_PRESENT, !(attributes & SEG_P)))
		cpu_raise(cpu, VECTOR_NP, error);
	target->cpl = attributes_conforming(attributes) ? cpu->cpl : attributes_dpl(attributes);
	target->selector = (uint16_t)((gate->selector & ~SELECTOR_RPL) | target->cpl);
	target->rip = gate->offset;
}

/* ---- interrupt and trap gates ---- */

static void handler_stack(struct cpu *cpu, const struct gate *gate, const struct code_target *target,
			  struct stack *stack)
{
	if (target->cpl != cpu->cpl)
		stack_inner(cpu, stack, target->cpl, gate->ist);
	else if (cpu_ia32e(cpu))
		stack_ist(cpu, stack, gate->ist);
	else
		stack_current(cpu, stack, error_ext(cpu));
	if (cpu_ia32e(cpu))
		stack->rsp &= ~0xfull; /* SDM 3A 6.14.2 */
}

static void handler_frame(const struct cpu *cpu, const struct event *event, const struct gate *gate,
			  struct stack *stack)
{
	unsigned width = gate->width;

	if (cpu_vm86(cpu)) {
		stack_add(stack, cpu->segment[GS].s.selector, width);
		stack_add(stack, cpu->segment[FS].s.selector, width);
		stack_add(stack, cpu->segment[DS].s.selector, width);
		stack_add(stack, cpu->segment[ES].s.selector, width);
	}
	if (stack->inner || width == 8) {
		stack_add(stack, cpu->segment[SS].s.selector, width);
		stack_add(stack, cpu->reg[RSP], width);
	}
	stack_add(stack, event_flags_image(cpu, event), width);
	stack_add(stack, cpu->segment[CS].s.selector, width);
	stack_add(stack, event->return_rip, width);
	if (event->has_error_code)
		stack_add(stack, event->error_code, width);
}

static void leave_vm86(struct cpu *cpu)
{
	static const enum segment_register data[] = {ES, DS, FS, GS};

	for (unsigned i = 0; i < 4; i++)
		segment_set_null(cpu, data[i], 0);
}

static void deliver_gate(struct cpu *cpu, const struct event *event, const struct gate *gate)
{
	struct code_target target;
	struct stack stack;
	bool from_vm86 = cpu_vm86(cpu);
	uint64_t clear = RFLAGS_TF | RFLAGS_NT | RFLAGS_RF | RFLAGS_VM;

	handler_code(cpu, gate, &target);
	handler_stack(cpu, gate, &target, &stack);
	handler_frame(cpu, event, gate, &stack);
	stack_check(cpu, &stack);
	code_check_rip(cpu, &target.descriptor, target.rip);
	descriptor_set_accessed(cpu, &target.descriptor);
	stack_write(cpu, &stack);

	stack_commit(cpu, &stack);
	code_commit(cpu, &target);
	if (from_vm86)
		leave_vm86(cpu);
	if (gate->type == TYPE_INTERRUPT_GATE || gate->type == TYPE_INTERRUPT_GATE16)
		clear |= RFLAGS_IF;
	rflags_set(cpu, 0, clear);
	transfer_done(cpu);
}

/* ---- task gates (SDM 3A 6.12.2) ---- */

static void deliver_task_gate(struct cpu *cpu, const struct event *event, const struct gate *gate)
{
	task_switch(cpu, gate->selector, TASK_SWITCH_GATE, event->return_rip, event->has_error_code,
		    event->error_code);
}

/* ---- all of it ---- */

/* Of INT n its handler has asked, but what VM entry injects has none (SDM 3C 27.6.1.1). */
static bool is_redirected(struct cpu *cpu, const struct event *event)
{
	return event->injected && event->kind == EVENT_SOFTWARE_INTERRUPT && cpu_vm86(cpu) &&
	       cpu->cr4 & CR4_VME && interrupt_is_redirected(cpu, event->vector);
}

void event_deliver(struct cpu *cpu, const struct event *event)
{
	struct event e = *event; /* the caller's may be cpu->delivering or cpu->raised */
	uint64_t from = cpu->rip;

	if (event_is_debug_exception(&e))
		event_note_debug(cpu, &e);
	cpu->delivering = e;
	if (!cpu->delivering_depth)
		cpu->delivering_depth = 1;
	if (!cpu_protected(cpu)) {
		deliver_real(cpu, &e);
	} else if (is_redirected(cpu, &e)) {
		event_redirect(cpu, e.vector, e.return_rip);
	} else {
		struct gate gate = gate_read(cpu, &e);

		if (gate.type == TYPE_TASK_GATE)
			deliver_task_gate(cpu, &e, &gate);
		else
			deliver_gate(cpu, &e, &gate);
	}
	cpu->delivering_depth = 0;
	cpu->shadow = SHADOW_NONE;
	if (branch_watched(cpu))
		branch_event(cpu, from, e.vector);
	if (e.kind == EVENT_NMI)
		cpu->nmi_blocked = true;
	cpu_mode_changed(cpu);
}

/* ---- faults while delivering (SDM 3A 6.15, table 6-5; APM 2 8.2.9) ---- */

enum event_class { BENIGN, CONTRIBUTORY, PAGE_FAULT, DOUBLE_FAULT };

static enum event_class event_class(const struct event *event)
{
	if (event->kind != EVENT_FAULT)
		return BENIGN;
	switch (event->vector) {
	case VECTOR_DE:
	case VECTOR_TS:
	case VECTOR_NP:
	case VECTOR_SS:
	case VECTOR_GP:
	case VECTOR_CP:
	case VECTOR_VC:
	case VECTOR_SX: return CONTRIBUTORY;
	case VECTOR_PF:
	case VECTOR_VE: return PAGE_FAULT;
	case VECTOR_DF: return DOUBLE_FAULT;
	default: return BENIGN;
	}
}

bool event_combine(const struct event *first, const struct event *second, struct event *result)
{
	enum event_class a = event_class(first), b = event_class(second);
	bool serious = b == CONTRIBUTORY || b == PAGE_FAULT || b == DOUBLE_FAULT;

	if (CHECK(TRIPLE_FAULT, a == DOUBLE_FAULT && serious))
		return false;
	if (CHECK(DOUBLE_FAULT, (a == CONTRIBUTORY && b == CONTRIBUTORY) ||
					(a == PAGE_FAULT && (b == CONTRIBUTORY || b == PAGE_FAULT)))) {
		*result = (struct event){.kind = EVENT_FAULT,
					 .vector = VECTOR_DF,
					 .has_error_code = true,
					 .return_rip = second->return_rip};
		return true;
	}
	*result = *second;
	return true;
}
