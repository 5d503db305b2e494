/*
 * return.h: what RET and IRET to a code segment share (SDM 2B RET, SDM 2A IRET; SDM 3A 5.8.6).
 */
#ifndef TRAPLINE_CPU_RETURN_H
#define TRAPLINE_CPU_RETURN_H

#include "cpu/stack.h"

/*
 * Checks the return selector and its descriptor; fills @target but for its RIP. target->cpl is the
 * selector's RPL, which is not below the CPL.
 */
void return_code(struct cpu *cpu, uint16_t selector, struct code_target *target);

/* The stack of an outer privilege, or IRET's own in 64-bit mode. */
struct outer_stack {
	uint16_t selector;
	bool null;
	struct descriptor descriptor;
	uint64_t rsp, mask;
};
/* Checks @selector as SS at target->cpl; a null one only for 64-bit code below CPL 3. */
void outer_stack_check(struct cpu *cpu, struct outer_stack *stack, uint16_t selector, uint64_t rsp,
		       const struct code_target *target);
/* Loads SS and RSP. */
void outer_stack_commit(struct cpu *cpu, const struct outer_stack *stack);
/* Makes null what DS, ES, FS and GS hold and privilege @cpl may not use. */
void outer_data_segments(struct cpu *cpu, unsigned cpl);

#endif
