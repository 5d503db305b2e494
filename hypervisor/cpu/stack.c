/* stack.c: frames on stacks that are not current yet, and what all far transfers share. */
#include <string.h>

#include "cpu/stack.h"

#include "cpu/checks.h"
#include "cpu/insn.h"
#include "cpu/mem/mem.h"
#include "cpu/tss.h"

/* ---- which stack ---- */

void stack_current(const struct cpu *cpu, struct stack *stack, uint32_t error_code)
{
	stack->selector = cpu->segment[SS].s.selector;
	stack->ss = cpu->segment[SS].s;
	stack->inner = false;
	stack->flat = cpu_64bit(cpu);
	stack->mask = cpu->stack_mask;
	stack->rsp = cpu->reg[RSP] & cpu->stack_mask;
	stack->cpl = cpu->cpl;
	stack->error_code = error_code;
	stack->used = 0;
}

_Noreturn static void raise_tss(struct cpu *cpu)
{
	cpu_raise(cpu, VECTOR_TS, selector_error(cpu, cpu->tr.s.selector));
}

static uint64_t inner_rsp64(struct cpu *cpu, unsigned dpl, unsigned ist)
{
	unsigned offset = ist ? TSS64_IST(ist) : TSS64_RSP(dpl);

	if (CHECK(INNER_STACK_TSS64_LIMIT, offset + 7 > cpu->tr.s.limit))
		raise_tss(cpu);
	return tss_read(cpu, offset, 8);
}

/* SS is loaded with a null selector whose RPL is the new CPL (SDM 3A 5.8.5.1, 6.14.2). */
static void inner_64bit(struct cpu *cpu, struct stack *stack, unsigned dpl, unsigned ist)
{
	stack->rsp = inner_rsp64(cpu, dpl, ist);
	stack->selector = (uint16_t)dpl;
	stack->flat = true;
	stack->mask = UINT64_MAX;
	stack->error_code = error_ext(cpu);
}

static void inner_pointer(struct cpu *cpu, struct stack *stack, unsigned dpl)
{
	bool narrow = tss_is_16bit(cpu);
	unsigned sp = narrow ? (unsigned)TSS16_SP(dpl) : (unsigned)TSS32_ESP(dpl);
	unsigned ss = narrow ? (unsigned)TSS16_SS(dpl) : (unsigned)TSS32_SS(dpl);

	if (CHECK(INNER_STACK_TSS_LIMIT, ss + 1 > cpu->tr.s.limit))
		raise_tss(cpu);
	stack->selector = (uint16_t)tss_read(cpu, ss, 2);
	stack->rsp = tss_read(cpu, sp, narrow ? 2 : 4);
}

void stack_inner(struct cpu *cpu, struct stack *stack, unsigned dpl, unsigned ist)
{
	stack->inner = true;
	stack->cpl = dpl;
	stack->used = 0;
	if (cpu_ia32e(cpu)) {
		inner_64bit(cpu, stack, dpl, ist);
		return;
	}
	inner_pointer(cpu, stack, dpl);
	uint32_t error = selector_error(cpu, stack->selector);
	if (CHECK(INNER_STACK_NULL, selector_is_null(stack->selector)))
		cpu_raise(cpu, VECTOR_TS, error_ext(cpu));
	stack->descriptor = descriptor_read(cpu, stack->selector, false, VECTOR_TS);
	uint32_t attributes = stack->descriptor.attributes;
	if (CHECK(INNER_STACK_RPL, (stack->selector & SELECTOR_RPL) != dpl))
		cpu_raise(cpu, VECTOR_TS, error);
	if (CHECK(INNER_STACK_DPL, attributes_dpl(attributes) != dpl))
		cpu_raise(cpu, VECTOR_TS, error);
	if (CHECK(INNER_STACK_TYPE, !attributes_writable(attributes)))
		cpu_raise(cpu, VECTOR_TS, error);
	if (CHECK(INNER_STACK_PRESENT, !(attributes & SEG_P)))
		cpu_raise(cpu, VECTOR_SS, error);
	stack->flat = false;
	stack->mask = stack_mask_of(attributes);
	stack->error_code = error;
	stack->ss = (struct segment){.selector = stack->selector,
				     .base = stack->descriptor.base,
				     .limit = stack->descriptor.limit,
				     .attributes = attributes};
}

void stack_ist(struct cpu *cpu, struct stack *stack, unsigned ist)
{
	stack_current(cpu, stack, error_ext(cpu));
	stack->flat = true;
	stack->mask = UINT64_MAX;
	stack->rsp = ist ? inner_rsp64(cpu, 0, ist) : cpu->reg[RSP];
}

/* ---- the frame ---- */

void stack_add(struct stack *stack, uint64_t value, unsigned width)
{
	stack->used += width;
	stack->width = width;
	memcpy(stack->frame + STACK_FRAME_MAX - stack->used, &value, width);
}

static uint64_t frame_offset(const struct stack *stack, unsigned below)
{
	return (stack->rsp - below) & stack->mask;
}

/*
 * A stack pointer of 16 or 32 bits wraps between two pushes; a value that itself would wrap is
 * outside the limit (SDM 3B 22.31).
 */
static bool frame_wraps(const struct stack *stack)
{
	uint64_t top = stack->rsp & stack->mask;

	return !stack->flat && top != 0 && top < stack->used;
}

static uint64_t frame_linear(const struct stack *stack, uint64_t offset)
{
	return stack->flat ? offset : (uint32_t)(stack->ss.base + offset);
}

static bool frame_fits(const struct cpu *cpu, const struct stack *stack)
{
	uint64_t low = frame_offset(stack, stack->used);

	if (stack->flat)
		return linear_is_canonical(cpu, low) && linear_is_canonical(cpu, frame_offset(stack, 1));
	if (!frame_wraps(stack))
		return segment_contains(&stack->ss, low, stack->used);
	for (unsigned below = stack->width; below <= stack->used; below += stack->width) {
		if (!segment_contains(&stack->ss, frame_offset(stack, below), stack->width))
			return false;
	}
	return true;
}

void stack_check(struct cpu *cpu, const struct stack *stack)
{
	if (CHECK(STACK_ROOM, !frame_fits(cpu, stack)))
		cpu_raise(cpu, VECTOR_SS, stack->error_code);
}

/* In pieces that are contiguous: all of it, or value by value where the stack pointer wraps. */
static void frame_access(struct cpu *cpu, const struct stack *stack, bool write)
{
	unsigned access = ACCESS_WRITE | (stack->cpl == 3 ? ACCESS_USER : 0);
	unsigned piece = frame_wraps(stack) ? stack->width : stack->used;

	for (unsigned below = piece; below <= stack->used; below += piece) {
		uint64_t linear = frame_linear(stack, frame_offset(stack, below));

		if (write)
			linear_write_bytes(cpu, linear, stack->frame + STACK_FRAME_MAX - below, piece, access);
		else
			linear_check(cpu, linear, piece, access);
	}
}

void stack_write(struct cpu *cpu, const struct stack *stack)
{
	stack_check(cpu, stack);
	if (frame_wraps(stack) || (stack->inner && !stack->flat))
		frame_access(cpu, stack, false);
	if (stack->inner && !stack->flat) {
		struct descriptor d = stack->descriptor;

		descriptor_set_accessed(cpu, &d);
	}
	frame_access(cpu, stack, true);
}

void stack_set_pointer(struct cpu *cpu, uint64_t rsp, uint64_t mask)
{
	if (mask == 0xffff)
		reg_write(cpu, RSP, rsp, 2);
	else
		cpu->reg[RSP] = rsp & mask;
}

void stack_commit(struct cpu *cpu, const struct stack *stack)
{
	if (stack->inner && stack->flat) {
		segment_set_null(cpu, SS, stack->selector);
	} else if (stack->inner) {
		cpu->segment[SS].s = stack->ss;
		cpu->segment[SS].s.attributes |= SEG_ACCESSED;
	}
	stack_set_pointer(cpu, stack->rsp - stack->used, stack->mask);
}

uint64_t stack_peek(struct cpu *cpu, unsigned offset, unsigned width)
{
	return mem_read(cpu, SS, (cpu->reg[RSP] + offset) & cpu->stack_mask, width);
}

/* ---- code ---- */

void code_check_rip(struct cpu *cpu, const struct descriptor *descriptor, uint64_t rip)
{
	bool outside = code_is_64bit(cpu, descriptor) ? !linear_is_canonical(cpu, rip) : rip > descriptor->limit;

	if (CHECK(TRANSFER_RIP, outside))
		cpu_raise(cpu, VECTOR_GP, error_ext(cpu));
}

void code_commit(struct cpu *cpu, const struct code_target *target)
{
	const struct descriptor *d = &target->descriptor;

	cpu->segment[CS].s = (struct segment){.selector = target->selector,
					      .base = d->base,
					      .limit = d->limit,
					      .attributes = d->attributes | SEG_ACCESSED};
	cpu->rip = target->rip;
}

void transfer_done(struct cpu *cpu)
{
	segment_derive_all(cpu);
	cpu_mode_changed(cpu);
}

void check_virtual_interrupt(struct cpu *cpu)
{
	bool active = cpu_vm86(cpu) ? cpu->cr4 & CR4_VME : cpu->cpl == 3 && cpu->cr4 & CR4_PVI;
	bool both = (cpu->rflags & (RFLAGS_VIF | RFLAGS_VIP)) == (RFLAGS_VIF | RFLAGS_VIP);

	if (!CHECK(VIRTUAL_INTERRUPT, active && both))
		return;
	cpu_raise_event(cpu, &(struct event){.kind = EVENT_FAULT,
					     .vector = VECTOR_GP,
					     .has_error_code = true,
					     .return_rip = cpu->rip});
}
