/* return.c: what RET and IRET to a code segment share. */
#include "cpu/return.h"

#include "cpu/checks.h"
#include "cpu/mem/mem.h"

void return_code(struct cpu *cpu, uint16_t selector, struct code_target *target)
{
	uint32_t error = selector_error(cpu, selector);
	unsigned rpl = selector & SELECTOR_RPL;

	if (CHECK(RETURN_CS_NULL, selector_is_null(selector)))
		cpu_raise(cpu, VECTOR_GP, 0);
	target->descriptor = descriptor_read(cpu, selector, false, VECTOR_GP);
	uint32_t attributes = target->descriptor.attributes;
	unsigned dpl = attributes_dpl(attributes);
	if (CHECK(RETURN_CS_TYPE, !attributes_code(attributes)))
		cpu_raise(cpu, VECTOR_GP, error);
	if (CHECK(RETURN_CS_RPL, rpl < cpu->cpl))
		cpu_raise(cpu, VECTOR_GP, error);
	if (CHECK(RETURN_CS_DPL, attributes_conforming(attributes) ? dpl > rpl : dpl != rpl))
		cpu_raise(cpu, VECTOR_GP, error);
	if (CHECK(RETURN_CS_L_AND_D, cpu_ia32e(cpu) && (attributes & (SEG_L | SEG_DB)) == (SEG_L | SEG_DB)))
		cpu_raise(cpu, VECTOR_GP, error);
	if (CHECK(RETURN_CS_PRESENT, !(attributes & SEG_P)))
		cpu_raise(cpu, VECTOR_NP, error);
	target->selector = selector;
	target->cpl = rpl;
}

void outer_stack_check(struct cpu *cpu, struct outer_stack *stack, uint16_t selector, uint64_t rsp,
		       const struct code_target *target)
{
	uint32_t error = selector_error(cpu, selector);
	bool to_64bit = code_is_64bit(cpu, &target->descriptor);

	*stack = (struct outer_stack){.selector = selector, .rsp = rsp, .mask = UINT64_MAX};
	if (selector_is_null(selector)) {
		bool allowed = to_64bit && target->cpl != 3 && (selector & SELECTOR_RPL) == target->cpl;

		if (CHECK(RETURN_SS_NULL, !allowed))
			cpu_raise(cpu, VECTOR_GP, 0);
		stack->null = true;
		return;
	}
	stack->descriptor = descriptor_read(cpu, selector, false, VECTOR_GP);
	uint32_t attributes = stack->descriptor.attributes;
	if (CHECK(RETURN_SS_RPL, (selector & SELECTOR_RPL) != target->cpl))
		cpu_raise(cpu, VECTOR_GP, error);
	if (CHECK(RETURN_SS_TYPE, !attributes_writable(attributes)))
		cpu_raise(cpu, VECTOR_GP, error);
	if (CHECK(RETURN_SS_DPL, attributes_dpl(attributes) != target->cpl))
		cpu_raise(cpu, VECTOR_GP, error);
	if (CHECK(RETURN_SS_PRESENT, !(attributes & SEG_P)))
		cpu_raise(cpu, VECTOR_SS, error);
	if (!to_64bit)
		stack->mask = stack_mask_of(attributes);
	descriptor_set_accessed(cpu, &stack->descriptor);
}

void outer_stack_commit(struct cpu *cpu, const struct outer_stack *stack)
{
	if (stack->null)
		segment_set_null(cpu, SS, stack->selector);
	else
		segment_set(cpu, SS, stack->selector, &stack->descriptor);
	stack_set_pointer(cpu, stack->rsp, stack->mask);
}

void outer_data_segments(struct cpu *cpu, unsigned cpl)
{
	static const enum segment_register data[] = {ES, DS, FS, GS};

	for (unsigned i = 0; i < 4; i++) {
		uint32_t attributes = cpu->segment[data[i]].s.attributes;

		if (attributes & SEG_UNUSABLE || attributes_conforming(attributes))
			continue;
		if (CHECK(RETURN_DATA_DPL, attributes_dpl(attributes) < cpl))
			segment_set_null(cpu, data[i], 0);
	}
}
