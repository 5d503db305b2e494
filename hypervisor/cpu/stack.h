/*
 * stack.h: the stacks of events and far transfers: frames that are written to a stack before it
 * is the current one, so that a fault leaves the old state (SDM 3A 5.8.5, 6.12.1, 6.14; APM 2 8.7, 8.9).
 */
#ifndef TRAPLINE_CPU_STACK_H
#define TRAPLINE_CPU_STACK_H

#include "cpu/segment.h"

/* Most bytes that any transfer pushes: a call gate's 31 parameters and four words of 4 bytes. */
#define STACK_FRAME_MAX 160

struct stack {
	uint16_t selector;
	struct descriptor descriptor; /* with inner: of the new SS, checked; its accessed bit is not set yet */
	struct segment ss;            /* what limits and base are taken from */
	bool inner;                   /* not the current stack: stack_commit() loads SS */
	bool flat;                    /* of IA-32e mode: no limit and no base, but canonical */
	uint64_t rsp;                 /* before the frame */
	uint64_t mask;                /* which bits of RSP count: see cpu->stack_mask */
	unsigned cpl;                 /* whose accesses the pushes are */
	uint32_t error_code;          /* of #SS where the frame does not fit */
	unsigned used;                /* bytes of the frame, at its end */
	unsigned width;               /* of each of its values */
	uint8_t frame[STACK_FRAME_MAX];
};

/* The current stack, for a frame that stays at this privilege. @error_code: for #SS. */
void stack_current(const struct cpu *cpu, struct stack *stack, uint32_t error_code);

/*
 * The stack that the TSS holds for privilege @dpl, with all checks on its selector and descriptor
 * (#TS, #SS). In IA-32e mode, RSP of @dpl, or of the IST entry @ist where that is not 0.
 */
void stack_inner(struct cpu *cpu, struct stack *stack, unsigned dpl, unsigned ist);
/* IA-32e mode, IST without a change of privilege: the current SS with RSP from the IST. */
void stack_ist(struct cpu *cpu, struct stack *stack, unsigned ist);

/* Adds @value of @width bytes, the same for all of a frame; nothing is written yet. */
void stack_add(struct stack *stack, uint64_t value, unsigned width);
/* Raises #SS where the frame does not fit into the stack. */
void stack_check(struct cpu *cpu, const struct stack *stack);
/* Writes the frame, after stack_check() and after checking all of it for page faults. */
void stack_write(struct cpu *cpu, const struct stack *stack);
/*
 * Loads SS, where it is an inner stack, and RSP below the frame. Does not fault after
 * stack_write(). Derived state is the caller's: see cpu_mode_changed().
 */
void stack_commit(struct cpu *cpu, const struct stack *stack);

/* Sets SP, ESP or RSP, as @mask says. */
void stack_set_pointer(struct cpu *cpu, uint64_t rsp, uint64_t mask);
/* The mask for a stack segment with @attributes: SDM 3A 5.3, SDM 1 6.2.3. */
static inline uint64_t stack_mask_of(uint32_t attributes) { return attributes & SEG_DB ? 0xffffffff : 0xffff; }

/* A value of the current stack, @offset bytes above its top, as a pop would read it. */
uint64_t stack_peek(struct cpu *cpu, unsigned offset, unsigned width);

/* ---- where control goes ---- */

struct code_target {
	uint16_t selector; /* RPL as it will be in CS */
	struct descriptor descriptor;
	uint64_t rip;
	unsigned cpl;
};

/* CS.L of a code segment that is loaded in this mode. */
static inline bool code_is_64bit(const struct cpu *cpu, const struct descriptor *descriptor)
{
	return cpu_ia32e(cpu) && descriptor->attributes & SEG_L;
}
/* #GP(0), or #GP(EXT) while delivering, where RIP is outside the limit or not canonical. */
void code_check_rip(struct cpu *cpu, const struct descriptor *descriptor, uint64_t rip);
/* Loads CS, RIP and, for SS, the new CPL. The accessed bit must be set; does not fault. */
void code_commit(struct cpu *cpu, const struct code_target *target);
/* Behind code_commit(), stack_commit() and all flags: everything that is derived. */
void transfer_done(struct cpu *cpu);
/*
 * Behind what can load VIP: with VIF and VIP both set, VME (in virtual-8086 mode) or PVI (at CPL 3)
 * raises #GP(0) before the next instruction (SDM 3A 20.3.2, 20.4).
 */
void check_virtual_interrupt(struct cpu *cpu);

#endif
