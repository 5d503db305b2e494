/* far.c: far JMP, CALL and RET (SDM 2A CALL, JMP; SDM 2B RET; SDM 3A 5.8; APM 3). */
#include "cpu/checks.h"
#include "cpu/control.h"
#include "cpu/insn.h"
#include "cpu/mem/mem.h"
#include "cpu/return.h"
#include "cpu/stack.h"

struct far_pointer {
	uint64_t offset;
	uint16_t selector;
};

/* m16:16, m16:32, m16:64. AMD has no m16:64: REX.W is as a 32-bit operand (APM 3 CALL (Far), JMP (Far)). */
static unsigned far_width(const struct cpu *cpu, unsigned width)
{
	return width == 8 && cpu->profile->vendor == VENDOR_AMD ? 4 : width;
}

static struct far_pointer far_immediate(const struct insn *insn, unsigned width)
{
	uint64_t offset = (uint64_t)insn->imm;

	return (struct far_pointer){width == 2 ? offset & 0xffff : offset & 0xffffffff, insn->imm2};
}

static struct far_pointer far_memory(struct cpu *cpu, const struct insn *insn, unsigned width)
{
	uint64_t offset = insn_offset(cpu, insn);
	uint8_t bytes[10] = {0};
	struct far_pointer pointer = {0};

	mem_read_bytes(cpu, insn->segment, offset, bytes, width + 2, 1);
	for (unsigned i = 0; i < width; i++)
		pointer.offset |= (uint64_t)bytes[i] << 8 * i;
	pointer.selector = (uint16_t)(bytes[width] | bytes[width + 1] << 8);
	return pointer;
}

/* ---- real-address and virtual-8086 mode ---- */

static void far_real(struct cpu *cpu, struct far_pointer pointer, unsigned width, bool call)
{
	if (CHECK(FAR_REAL_LIMIT, pointer.offset > cpu->segment[CS].s.limit))
		cpu_raise(cpu, VECTOR_GP, 0);
	if (call) {
		struct stack stack;

		stack_current(cpu, &stack, 0);
		stack_add(&stack, cpu->segment[CS].s.selector, width);
		stack_add(&stack, cpu_next_rip(cpu), width);
		stack_write(cpu, &stack);
		stack_commit(cpu, &stack);
	}
	segment_load_real(cpu, CS, pointer.selector);
	cpu->rip = pointer.offset;
	transfer_done(cpu);
}

/* ---- code segments ---- */

/* #GP(selector) where L and D are both set in IA-32e mode; #NP where it is not present. */
static void check_code_loadable(struct cpu *cpu, uint16_t selector, uint32_t attributes)
{
	uint32_t error = selector_error(cpu, selector);

	if (CHECK(CODE_L_AND_D, cpu_ia32e(cpu) && (attributes & (SEG_L | SEG_DB)) == (SEG_L | SEG_DB)))
		cpu_raise(cpu, VECTOR_GP, error);
	if (CHECK(CODE_PRESENT, !(attributes & SEG_P)))
		cpu_raise(cpu, VECTOR_NP, error);
}

/* Straight to a code segment: at the same privilege (SDM 3A 5.8.1). */
static void check_code_direct(struct cpu *cpu, uint16_t selector, uint32_t attributes)
{
	uint32_t error = selector_error(cpu, selector);
	unsigned dpl = attributes_dpl(attributes), rpl = selector & SELECTOR_RPL;

	if (attributes_conforming(attributes)) {
		if (CHECK(FAR_CONFORMING_DPL, dpl > cpu->cpl))
			cpu_raise(cpu, VECTOR_GP, error);
	} else {
		if (CHECK(FAR_CODE_RPL, rpl > cpu->cpl))
			cpu_raise(cpu, VECTOR_GP, error);
		if (CHECK(FAR_CODE_DPL, dpl != cpu->cpl))
			cpu_raise(cpu, VECTOR_GP, error);
	}
	check_code_loadable(cpu, selector, attributes);
}

static void far_same_privilege(struct cpu *cpu, struct code_target *target, unsigned width, bool call, bool flat)
{
	struct stack stack;

	if (call) {
		if (flat)
			stack_ist(cpu, &stack, 0);
		else
			stack_current(cpu, &stack, 0);
		stack_add(&stack, cpu->segment[CS].s.selector, width);
		stack_add(&stack, cpu_next_rip(cpu), width);
		stack_check(cpu, &stack);
	}
	code_check_rip(cpu, &target->descriptor, target->rip);
	descriptor_set_accessed(cpu, &target->descriptor);
	if (call) {
		stack_write(cpu, &stack);
		stack_commit(cpu, &stack);
	}
	code_commit(cpu, target);
	transfer_done(cpu);
}

static void far_code(struct cpu *cpu, struct far_pointer pointer, const struct descriptor *d, unsigned width,
		     bool call)
{
	struct code_target target = {.selector = (uint16_t)((pointer.selector & ~SELECTOR_RPL) | cpu->cpl),
				     .descriptor = *d,
				     .rip = pointer.offset,
				     .cpl = cpu->cpl};

	check_code_direct(cpu, pointer.selector, d->attributes);
	far_same_privilege(cpu, &target, width, call, false);
}

/* ---- call gates (SDM 3A 5.8.3 to 5.8.5) ---- */

struct call_gate {
	uint16_t selector;
	uint64_t offset;
	unsigned width;
	unsigned parameters;
};

static void check_gate(struct cpu *cpu, uint16_t selector, uint32_t attributes)
{
	uint32_t error = selector_error(cpu, selector);
	unsigned dpl = attributes_dpl(attributes);

	if (CHECK(GATE_DPL_CPL, dpl < cpu->cpl))
		cpu_raise(cpu, VECTOR_GP, error);
	if (CHECK(GATE_DPL_RPL, dpl < (selector & SELECTOR_RPL)))
		cpu_raise(cpu, VECTOR_GP, error);
	if (CHECK(GATE_PRESENT, !(attributes & SEG_P)))
		cpu_raise(cpu, VECTOR_NP, error);
}

/* The upper half of a 64-bit call gate: its type field must be 0 (SDM 3A 5.8.3.1). */
static uint64_t gate_upper(struct cpu *cpu, uint16_t selector)
{
	struct descriptor wide = descriptor_read(cpu, selector, true, VECTOR_GP);

	if (CHECK(GATE64_UPPER_TYPE, wide.high >> 40 & 0x1f))
		cpu_raise(cpu, VECTOR_GP, selector_error(cpu, selector));
	return wide.high & 0xffffffff;
}

static struct call_gate call_gate_read(struct cpu *cpu, uint16_t selector, const struct descriptor *d)
{
	struct call_gate gate = {.selector = (uint16_t)(d->low >> 16), .offset = d->low & 0xffff, .width = 2};

	check_gate(cpu, selector, d->attributes);
	gate.parameters = d->low >> 32 & 31;
	if (attributes_system_type(d->attributes) == TYPE_CALL_GATE) {
		gate.offset |= d->low >> 32 & 0xffff0000;
		gate.width = 4;
	}
	if (cpu_ia32e(cpu)) {
		gate.offset |= gate_upper(cpu, selector) << 32;
		gate.width = 8;
		gate.parameters = 0;
	}
	return gate;
}

static void gate_code(struct cpu *cpu, const struct call_gate *gate, struct code_target *target, bool call)
{
	uint32_t error = selector_error(cpu, gate->selector);

	if (CHECK(GATE_CODE_NULL, selector_is_null(gate->selector)))
		cpu_raise(cpu, VECTOR_GP, 0);
	target->descriptor = descriptor_read(cpu, gate->selector, false, VECTOR_GP);
	uint32_t attributes = target->descriptor.attributes;
	unsigned dpl = attributes_dpl(attributes);
	bool conforming = attributes_conforming(attributes);

	if (CHECK(GATE_CODE_TYPE, !attributes_code(attributes)))
		cpu_raise(cpu, VECTOR_GP, error);
	if (CHECK(GATE_CODE_DPL, dpl > cpu->cpl))
		cpu_raise(cpu, VECTOR_GP, error);
	if (CHECK(GATE_JMP_DPL, !call && !conforming && dpl != cpu->cpl))
		cpu_raise(cpu, VECTOR_GP, error);
	if (CHECK(GATE_CODE_64BIT, cpu_ia32e(cpu) && (attributes & (SEG_L | SEG_DB)) != SEG_L))
		cpu_raise(cpu, VECTOR_GP, error);
	if (CHECK(GATE_CODE_PRESENT, !(attributes & SEG_P)))
		cpu_raise(cpu, VECTOR_NP, error);
	target->cpl = conforming ? cpu->cpl : dpl;
	target->selector = (uint16_t)((gate->selector & ~SELECTOR_RPL) | target->cpl);
	target->rip = gate->offset;
}

/* Old SS:RSP, the parameters in their order, CS:RIP. */
static void gate_frame(struct cpu *cpu, const struct call_gate *gate, struct stack *stack)
{
	stack_add(stack, cpu->segment[SS].s.selector, gate->width);
	stack_add(stack, cpu->reg[RSP], gate->width);
	for (unsigned i = gate->parameters; i-- > 0;)
		stack_add(stack, stack_peek(cpu, i * gate->width, gate->width), gate->width);
	stack_add(stack, cpu->segment[CS].s.selector, gate->width);
	stack_add(stack, cpu_next_rip(cpu), gate->width);
}

static void call_more_privilege(struct cpu *cpu, const struct call_gate *gate, struct code_target *target)
{
	struct stack stack;

	stack_inner(cpu, &stack, target->cpl, 0);
	gate_frame(cpu, gate, &stack);
	stack_check(cpu, &stack);
	code_check_rip(cpu, &target->descriptor, target->rip);
	descriptor_set_accessed(cpu, &target->descriptor);
	stack_write(cpu, &stack);

	stack_commit(cpu, &stack);
	code_commit(cpu, target);
	transfer_done(cpu);
}

static void far_call_gate(struct cpu *cpu, uint16_t selector, const struct descriptor *d, bool call)
{
	struct call_gate gate = call_gate_read(cpu, selector, d);
	struct code_target target;

	gate_code(cpu, &gate, &target, call);
	if (target.cpl != cpu->cpl)
		call_more_privilege(cpu, &gate, &target);
	else
		far_same_privilege(cpu, &target, gate.width, call, gate.width == 8);
}

/* ---- tasks ---- */

static void far_task(struct cpu *cpu, uint16_t selector, bool call)
{
	task_switch(cpu, selector, call ? TASK_SWITCH_CALL : TASK_SWITCH_JMP, cpu_next_rip(cpu), false, 0);
}

static void far_task_gate(struct cpu *cpu, uint16_t selector, const struct descriptor *d, bool call)
{
	check_gate(cpu, selector, d->attributes);
	far_task(cpu, (uint16_t)(d->low >> 16), call);
}

static void far_tss(struct cpu *cpu, uint16_t selector, const struct descriptor *d, bool call)
{
	uint32_t error = selector_error(cpu, selector);
	unsigned dpl = attributes_dpl(d->attributes);

	if (CHECK(TSS_DPL_CPL, dpl < cpu->cpl))
		cpu_raise(cpu, VECTOR_GP, error);
	if (CHECK(TSS_DPL_RPL, dpl < (selector & SELECTOR_RPL)))
		cpu_raise(cpu, VECTOR_GP, error);
	far_task(cpu, selector, call);
}

/* ---- by what the selector names ---- */

static void far_system(struct cpu *cpu, uint16_t selector, const struct descriptor *d, bool call)
{
	bool legacy = !cpu_ia32e(cpu);

	switch (attributes_system_type(d->attributes)) {
	case TYPE_CALL_GATE16:
		if (!legacy)
			break;
		/* fall through */
	case TYPE_CALL_GATE: far_call_gate(cpu, selector, d, call); return;
	case TYPE_TASK_GATE:
		if (!legacy)
			break;
		far_task_gate(cpu, selector, d, call);
		return;
	case TYPE_TSS16_AVAILABLE:
	case TYPE_TSS16_BUSY:
	case TYPE_TSS_AVAILABLE:
	case TYPE_TSS_BUSY:
		if (!legacy)
			break;
		far_tss(cpu, selector, d, call);
		return;
	default: break;
	}
	cpu_raise(cpu, VECTOR_GP, selector_error(cpu, selector));
}

static void far_transfer(struct cpu *cpu, struct far_pointer pointer, unsigned width, bool call)
{
	if (cpu_real_or_vm86(cpu)) {
		far_real(cpu, pointer, width, call);
		return;
	}
	if (CHECK(FAR_NULL, selector_is_null(pointer.selector)))
		cpu_raise(cpu, VECTOR_GP, 0);
	struct descriptor d = descriptor_read(cpu, pointer.selector, false, VECTOR_GP);
	if (attributes_code(d.attributes))
		far_code(cpu, pointer, &d, width, call);
	else
		far_system(cpu, pointer.selector, &d, call);
}

static inline void jmp_ap(struct cpu *cpu, const struct insn *insn, unsigned width)
{
	far_transfer(cpu, far_immediate(insn, width), width, false);
}
DEFINE_BRANCH_W(jmp_ap)

static inline void call_ap(struct cpu *cpu, const struct insn *insn, unsigned width)
{
	far_transfer(cpu, far_immediate(insn, width), width, true);
}
DEFINE_BRANCH_W(call_ap)

static inline void jmp_mp(struct cpu *cpu, const struct insn *insn, unsigned width)
{
	width = far_width(cpu, width);
	far_transfer(cpu, far_memory(cpu, insn, width), width, false);
}
DEFINE_BRANCH_W(jmp_mp)

static inline void call_mp(struct cpu *cpu, const struct insn *insn, unsigned width)
{
	width = far_width(cpu, width);
	far_transfer(cpu, far_memory(cpu, insn, width), width, true);
}
DEFINE_BRANCH_W(call_mp)

/* ---- RET ---- */

static void ret_real(struct cpu *cpu, unsigned width, unsigned release)
{
	uint64_t rip = stack_peek(cpu, 0, width);
	uint16_t selector = (uint16_t)stack_peek(cpu, width, width);

	if (CHECK(RET_REAL_LIMIT, rip > cpu->segment[CS].s.limit))
		cpu_raise(cpu, VECTOR_GP, 0);
	stack_set_pointer(cpu, cpu->reg[RSP] + 2 * width + release, cpu->stack_mask);
	segment_load_real(cpu, CS, selector);
	cpu->rip = rip;
	transfer_done(cpu);
}

/* To an outer privilege: @release bytes of parameters are dropped from both stacks. */
static void ret_outer(struct cpu *cpu, struct code_target *target, unsigned width, unsigned release)
{
	struct outer_stack outer;
	uint64_t rsp = stack_peek(cpu, 2 * width + release, width);
	uint16_t ss = (uint16_t)stack_peek(cpu, 3 * width + release, width);

	outer_stack_check(cpu, &outer, ss, rsp + release, target);
	code_check_rip(cpu, &target->descriptor, target->rip);
	descriptor_set_accessed(cpu, &target->descriptor);
	outer_stack_commit(cpu, &outer);
	code_commit(cpu, target);
	outer_data_segments(cpu, target->cpl);
	transfer_done(cpu);
}

static void ret_far(struct cpu *cpu, unsigned width, unsigned release)
{
	struct code_target target;

	if (cpu_real_or_vm86(cpu)) {
		ret_real(cpu, width, release);
		return;
	}
	target.rip = stack_peek(cpu, 0, width);
	return_code(cpu, (uint16_t)stack_peek(cpu, width, width), &target);
	if (target.cpl != cpu->cpl) {
		ret_outer(cpu, &target, width, release);
		return;
	}
	code_check_rip(cpu, &target.descriptor, target.rip);
	descriptor_set_accessed(cpu, &target.descriptor);
	stack_set_pointer(cpu, cpu->reg[RSP] + 2 * width + release, cpu->stack_mask);
	code_commit(cpu, &target);
	transfer_done(cpu);
}

static inline void retf(struct cpu *cpu, const struct insn *insn, unsigned width)
{
	(void)insn;
	ret_far(cpu, width, 0);
}
DEFINE_BRANCH_W(retf)

static inline void retf_iw(struct cpu *cpu, const struct insn *insn, unsigned width)
{
	ret_far(cpu, width, (uint16_t)insn->imm);
}
DEFINE_BRANCH_W(retf_iw)
