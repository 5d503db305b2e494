/* iret.c: IRET, IRETD, IRETQ in every mode (SDM 2A IRET; SDM 3A 6.12.1, 6.14.3, 8.4, 20.2.5; APM 3 IRET). */
#include "cpu/checks.h"
#include "cpu/control.h"
#include "cpu/insn.h"
#include "cpu/mem/mem.h"
#include "cpu/return.h"
#include "cpu/tss.h"
#include "cpu/guest.h"

/* What any IRET loads; what one of 32 or 64 bits loads besides. */
#define IRET_FLAGS      (RFLAGS_STATUS | RFLAGS_TF | RFLAGS_DF | RFLAGS_NT)
#define IRET_WIDE_FLAGS (RFLAGS_RF | RFLAGS_AC | RFLAGS_ID)

struct iret_frame {
	uint64_t rip, flags;
	uint16_t cs;
};

static struct iret_frame frame_read(struct cpu *cpu, unsigned width)
{
	struct iret_frame frame;

	frame.rip = stack_peek(cpu, 0, width);
	frame.cs = (uint16_t)stack_peek(cpu, width, width);
	frame.flags = stack_peek(cpu, 2 * width, width);
	return frame;
}

static uint64_t wide_flags(unsigned width) { return width == 2 ? 0 : IRET_WIDE_FLAGS; }

/* ---- real-address and virtual-8086 mode ---- */

static void return_real(struct cpu *cpu, const struct iret_frame *frame, unsigned width, uint64_t flags, uint64_t mask)
{
	if (CHECK(IRET_REAL_LIMIT, frame->rip > cpu->segment[CS].s.limit))
		cpu_raise(cpu, VECTOR_GP, 0);
	stack_set_pointer(cpu, cpu->reg[RSP] + 3 * width, cpu->stack_mask);
	segment_load_real(cpu, CS, frame->cs);
	cpu->rip = frame->rip;
	rflags_set(cpu, flags, mask);
	transfer_done(cpu);
}

static void iret_real(struct cpu *cpu, unsigned width)
{
	struct iret_frame frame = frame_read(cpu, width);

	return_real(cpu, &frame, width, frame.flags, IRET_FLAGS | RFLAGS_IF | RFLAGS_IOPL | wide_flags(width));
}

/* Below IOPL 3 with VME, the 16-bit form works on VIF in place of IF (SDM 3A 20.3.3.5). */
static void iret_vm86_virtual(struct cpu *cpu, unsigned width)
{
	struct iret_frame frame = frame_read(cpu, width);
	uint64_t flags = frame.flags & ~(uint64_t)RFLAGS_VIF;

	if (CHECK(IRET_VIP, frame.flags & RFLAGS_IF && cpu->rflags & RFLAGS_VIP))
		cpu_raise(cpu, VECTOR_GP, 0);
	if (CHECK(IRET_VME_TF, frame.flags & RFLAGS_TF))
		cpu_raise(cpu, VECTOR_GP, 0);
	if (flags & RFLAGS_IF)
		flags |= RFLAGS_VIF;
	return_real(cpu, &frame, width, flags, IRET_FLAGS | RFLAGS_VIF);
}

static void iret_vm86(struct cpu *cpu, unsigned width)
{
	bool virtual = cpu->cr4 & CR4_VME && width == 2;

	if (cpu_iopl(cpu) == 3) {
		struct iret_frame frame = frame_read(cpu, width);

		return_real(cpu, &frame, width, frame.flags, IRET_FLAGS | RFLAGS_IF | wide_flags(width));
		return;
	}
	if (CHECK(IRET_VM86_IOPL, !virtual))
		cpu_raise(cpu, VECTOR_GP, 0);
	iret_vm86_virtual(cpu, width);
}

/* ---- protected mode ---- */

static void iret_task(struct cpu *cpu)
{
	uint16_t link = (uint16_t)tss_read(cpu, TSS32_LINK, 2);

	task_switch(cpu, link, TASK_SWITCH_IRET, cpu_next_rip(cpu), false, 0);
}

static void iret_to_vm86(struct cpu *cpu, const struct iret_frame *frame)
{
	static const enum segment_register order[] = {SS, ES, DS, FS, GS};
	uint64_t rsp = stack_peek(cpu, 12, 4);
	uint16_t selector[5];

	for (unsigned i = 0; i < 5; i++)
		selector[i] = (uint16_t)stack_peek(cpu, 16 + 4 * i, 4);
	if (CHECK(IRET_TO_VM86_LIMIT, frame->rip > 0xffff))
		cpu_raise(cpu, VECTOR_GP, 0);

	cpu->reg[RSP] = rsp;
	cpu->rip = frame->rip;
	rflags_set(cpu, frame->flags, UINT64_MAX);
	segment_load_real(cpu, CS, frame->cs);
	for (unsigned i = 0; i < 5; i++)
		segment_load_real(cpu, order[i], selector[i]);
	transfer_done(cpu);
	check_virtual_interrupt(cpu);
}

/* The flags that the current privilege may load. */
static uint64_t protected_mask(const struct cpu *cpu, unsigned width)
{
	uint64_t mask = IRET_FLAGS | wide_flags(width);

	if (cpu->cpl <= cpu_iopl(cpu))
		mask |= RFLAGS_IF;
	if (cpu->cpl == 0) {
		mask |= RFLAGS_IOPL;
		if (width != 2)
			mask |= RFLAGS_VIF | RFLAGS_VIP;
	}
	return mask;
}

/* In 64-bit mode SS:RSP is popped whatever the privilege (SDM 3A 6.14.3). */
static void iret_protected(struct cpu *cpu, const struct iret_frame *frame, unsigned width)
{
	struct code_target target = {.rip = frame->rip};
	struct outer_stack outer;
	uint64_t mask = protected_mask(cpu, width);

	return_code(cpu, frame->cs, &target);
	bool pops_stack = cpu_64bit(cpu) || target.cpl != cpu->cpl;
	bool outwards = target.cpl != cpu->cpl;
	if (pops_stack) {
		uint64_t rsp = stack_peek(cpu, 3 * width, width);
		uint16_t ss = (uint16_t)stack_peek(cpu, 4 * width, width);

		outer_stack_check(cpu, &outer, ss, rsp, &target);
	}
	code_check_rip(cpu, &target.descriptor, target.rip);
	descriptor_set_accessed(cpu, &target.descriptor);

	if (pops_stack)
		outer_stack_commit(cpu, &outer);
	else
		stack_set_pointer(cpu, cpu->reg[RSP] + 3 * width, cpu->stack_mask);
	code_commit(cpu, &target);
	if (outwards)
		outer_data_segments(cpu, target.cpl);
	rflags_set(cpu, frame->flags, mask);
	transfer_done(cpu);
	check_virtual_interrupt(cpu);
}

/* IRET ends the blocking of NMIs even where it faults (SDM 3A 6.7.1, SDM 3C 26.3). */
static void iret_any(struct cpu *cpu, unsigned width)
{
	guest_iret_begins(cpu);
	if (!cpu_protected(cpu)) {
		iret_real(cpu, width);
		return;
	}
	if (cpu_vm86(cpu)) {
		iret_vm86(cpu, width);
		return;
	}
	if (cpu->rflags & RFLAGS_NT) {
		if (CHECK(IRET_NT_IA32E, cpu_ia32e(cpu)))
			cpu_raise(cpu, VECTOR_GP, 0);
		iret_task(cpu);
		return;
	}
	struct iret_frame frame = frame_read(cpu, width);
	if (frame.flags & RFLAGS_VM && width == 4 && cpu->cpl == 0 && !cpu_ia32e(cpu))
		iret_to_vm86(cpu, &frame);
	else
		iret_protected(cpu, &frame, width);
}
static inline void iret(struct cpu *cpu, const struct insn *insn, unsigned width)
{
	(void)insn;
	iret_any(cpu, width);
	guest_iret_done(cpu);
}
DEFINE_BRANCH_W(iret)
