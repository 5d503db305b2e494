/* task.c: task switches (SDM 3A chapter 8, table 8-1; APM 2 12.3). */
#include "cpu/checks.h"
#include "cpu/control.h"
#include "cpu/events.h"
#include "cpu/guest.h"
#include "cpu/insn.h"
#include "cpu/mem/mem.h"
#include "cpu/stack.h"
#include "cpu/trace.h"
#include "cpu/tss.h"

#define TASK_ACCESS         (ACCESS_IMPLICIT)
#define TSS16_REGISTERS_END (TSS16_SEG + 4 * 2)
#define TSS32_REGISTERS_END (TSS32_SEG + 6 * 4)

/* What a TSS holds of a task. */
struct task {
	bool narrow; /* a 16-bit TSS */
	uint32_t gpr[8];
	uint16_t segment[SEGMENT_COUNT];
	uint32_t eip, eflags, cr3;
	uint16_t ldt;
	bool trap; /* T: #DB before the first instruction */
};

struct task_switch {
	enum task_switch_source source;
	uint16_t selector;
	struct descriptor tss; /* the new one */
	bool narrow;
	struct task task;
};

static bool type_is_16bit(uint32_t attributes)
{
	int type = attributes_system_type(attributes);

	return type == TYPE_TSS16_AVAILABLE || type == TYPE_TSS16_BUSY;
}

/* ---- before anything changes ---- */

static bool type_fits(uint32_t attributes, enum task_switch_source source)
{
	int type = attributes_system_type(attributes);

	if (source == TASK_SWITCH_IRET)
		return type == TYPE_TSS_BUSY || type == TYPE_TSS16_BUSY;
	return type == TYPE_TSS_AVAILABLE || type == TYPE_TSS16_AVAILABLE;
}

/* The new TSS: in the GDT, of the right type, available (or busy, for IRET), present, long enough. */
static void check_new_tss(struct cpu *cpu, struct task_switch *s)
{
	enum vector vector = s->source == TASK_SWITCH_IRET ? VECTOR_TS : VECTOR_GP;
	uint32_t error = selector_error(cpu, s->selector);

	if (CHECK(TASK_TSS_LOCAL, s->selector & SELECTOR_TI))
		cpu_raise(cpu, vector, error);
	s->tss = descriptor_read(cpu, s->selector, false, vector);
	if (CHECK(TASK_TSS_TYPE, !type_fits(s->tss.attributes, s->source)))
		cpu_raise(cpu, vector, error);
	if (CHECK(TASK_TSS_PRESENT, !(s->tss.attributes & SEG_P)))
		cpu_raise(cpu, VECTOR_NP, error);
	s->narrow = type_is_16bit(s->tss.attributes);
	if (CHECK(TASK_TSS_LIMIT, s->tss.limit < (s->narrow ? TSS16_SIZE : TSS32_SIZE) - 1u))
		cpu_raise(cpu, VECTOR_TS, error);
}

static uint64_t tss_descriptor_address(const struct cpu *cpu)
{
	return (uint32_t)(cpu->gdtr.base + (cpu->tr.s.selector & SELECTOR_INDEX));
}

/* Both TSSs and both descriptors must be in memory: nothing page-faults once state is being saved. */
static void check_memory(struct cpu *cpu, const struct task_switch *s)
{
	bool old_narrow = tss_is_16bit(cpu);
	uint64_t old = cpu->tr.s.base;
	unsigned first = old_narrow ? TSS16_IP : TSS32_EIP;
	unsigned end = old_narrow ? TSS16_REGISTERS_END : TSS32_REGISTERS_END;

	if (CHECK(TASK_OLD_TSS_LIMIT, cpu->tr.s.limit < end - 1))
		cpu_raise(cpu, VECTOR_TS, selector_error(cpu, cpu->tr.s.selector));
	linear_check(cpu, (uint32_t)(old + first), end - first, ACCESS_WRITE | TASK_ACCESS);
	linear_check(cpu, (uint32_t)s->tss.base, s->narrow ? TSS16_SIZE : TSS32_SIZE,
		     ACCESS_READ | TASK_ACCESS);
	if (s->source == TASK_SWITCH_CALL || s->source == TASK_SWITCH_GATE)
		linear_check(cpu, (uint32_t)s->tss.base, 2, ACCESS_WRITE | TASK_ACCESS);
	if (s->source != TASK_SWITCH_IRET)
		linear_check(cpu, s->tss.address + 5, 1, ACCESS_WRITE | TASK_ACCESS);
	if (s->source == TASK_SWITCH_IRET || s->source == TASK_SWITCH_JMP)
		linear_check(cpu, tss_descriptor_address(cpu) + 5, 1, ACCESS_WRITE | TASK_ACCESS);
}

/* ---- TSS images ---- */

static uint32_t new_read(struct cpu *cpu, const struct task_switch *s, unsigned offset, unsigned width)
{
	return (uint32_t)linear_read(cpu, (uint32_t)(s->tss.base + offset), width, ACCESS_READ | TASK_ACCESS);
}

/* A 16-bit TSS has no upper halves, no FS, no GS and no CR3: they are cleared, and CR3 stays. */
static void task_read_16(struct cpu *cpu, struct task_switch *s)
{
	for (unsigned i = 0; i < 8; i++)
		s->task.gpr[i] = new_read(cpu, s, TSS16_GPR + 2 * i, 2);
	for (unsigned i = ES; i <= DS; i++)
		s->task.segment[i] = (uint16_t)new_read(cpu, s, TSS16_SEG + 2 * i, 2);
	s->task.eip = new_read(cpu, s, TSS16_IP, 2);
	s->task.eflags = new_read(cpu, s, TSS16_FLAGS, 2);
	s->task.ldt = (uint16_t)new_read(cpu, s, TSS16_LDT, 2);
}

static void task_read_32(struct cpu *cpu, struct task_switch *s)
{
	for (unsigned i = 0; i < 8; i++)
		s->task.gpr[i] = new_read(cpu, s, TSS32_GPR + 4 * i, 4);
	for (unsigned i = ES; i <= GS; i++)
		s->task.segment[i] = (uint16_t)new_read(cpu, s, TSS32_SEG + 4 * i, 2);
	s->task.eip = new_read(cpu, s, TSS32_EIP, 4);
	s->task.eflags = new_read(cpu, s, TSS32_EFLAGS, 4);
	s->task.cr3 = new_read(cpu, s, TSS32_CR3, 4);
	s->task.ldt = (uint16_t)new_read(cpu, s, TSS32_LDT, 2);
	s->task.trap = new_read(cpu, s, TSS32_TRAP, 2) & 1;
}

static void old_write(struct cpu *cpu, unsigned offset, uint64_t value, unsigned width)
{
	linear_write(cpu, (uint32_t)(cpu->tr.s.base + offset), value, width, ACCESS_WRITE | TASK_ACCESS);
}

static void task_save(struct cpu *cpu, uint64_t eip, uint64_t eflags)
{
	bool narrow = tss_is_16bit(cpu);
	unsigned width = narrow ? 2 : 4;

	for (unsigned i = 0; i < 8; i++)
		old_write(cpu, (narrow ? TSS16_GPR : TSS32_GPR) + width * i, cpu->reg[i], width);
	for (unsigned i = ES; i <= (unsigned)(narrow ? DS : GS); i++)
		old_write(cpu, (narrow ? TSS16_SEG : TSS32_SEG) + width * i, cpu->segment[i].s.selector, 2);
	old_write(cpu, narrow ? TSS16_IP : TSS32_EIP, eip, width);
	old_write(cpu, narrow ? TSS16_FLAGS : TSS32_EFLAGS, eflags, width);
}

static uint64_t saved_flags(const struct cpu *cpu, enum task_switch_source source)
{
	uint64_t flags;

	if (source == TASK_SWITCH_GATE)
		return event_flags_image(cpu, &cpu->delivering);
	flags = rflags_get(cpu) & ~(uint64_t)RFLAGS_RF;
	return source == TASK_SWITCH_IRET ? flags & ~(uint64_t)RFLAGS_NT : flags;
}

/* ---- the point of commitment (SDM 3A 8.3, steps 5 to 12) ---- */

static void link_tasks(struct cpu *cpu, const struct task_switch *s)
{
	if (s->source == TASK_SWITCH_JMP || s->source == TASK_SWITCH_IRET)
		descriptor_set_busy(cpu, tss_descriptor_address(cpu), false);
	if (s->source == TASK_SWITCH_CALL || s->source == TASK_SWITCH_GATE)
		linear_write(cpu, (uint32_t)s->tss.base, cpu->tr.s.selector, 2, ACCESS_WRITE | TASK_ACCESS);
	if (s->source != TASK_SWITCH_IRET)
		descriptor_set_busy(cpu, s->tss.address, true);
}

/* A segment register with the new task's selector, whose descriptor is not loaded yet. */
static void segment_unqualified(struct cpu *cpu, enum segment_register segment, uint16_t selector,
				unsigned cpl)
{
	cpu->segment[segment].s =
		(struct segment){.selector = selector, .attributes = SEG_UNUSABLE | cpl << SEG_DPL_SHIFT};
}

static void load_registers(struct cpu *cpu, const struct task_switch *s)
{
	const struct task *task = &s->task;
	bool nested = s->source == TASK_SWITCH_CALL || s->source == TASK_SWITCH_GATE;
	unsigned cpl = task->segment[CS] & SELECTOR_RPL;

	cpu->tr.s = (struct segment){.selector = s->selector,
				     .base = s->tss.base,
				     .limit = s->tss.limit,
				     .attributes = s->tss.attributes | 2};
	cpu->ldtr.s = (struct segment){.selector = task->ldt, .attributes = SEG_UNUSABLE};
	cpu->cr0 |= CR0_TS;
	cpu->dr7 &= ~(uint64_t)(DR7_L(0) | DR7_L(1) | DR7_L(2) | DR7_L(3) | DR7_LE); /* SDM 3B 18.2.4 */
	for (unsigned i = 0; i < 8; i++)
		cpu->reg[i] = task->gpr[i];
	for (enum segment_register i = ES; i < SEGMENT_COUNT; i++)
		segment_unqualified(cpu, i, task->segment[i], cpl);
	cpu->rip = task->eip;
	rflags_set(cpu, task->eflags | (nested ? RFLAGS_NT : 0), UINT64_MAX);
	if (task->trap)
		cpu->dr6_pending |= DR6_BT;
	transfer_done(cpu);
}

static void load_cr3(struct cpu *cpu, const struct task_switch *s)
{
	if (s->narrow || !(cpu->cr0 & CR0_PG))
		return;
	cpu->cr3 = s->task.cr3;
	if (CHECK(TLB_TASK, true)) {
		tlb_flush_non_global(cpu);
		trace_mapping_changed(cpu);
	}
	if (!(cpu->cr4 & CR4_PAE))
		return;
	bool valid = pdptes_load(cpu, cpu->cr3);
	if (CHECK(TASK_PDPTE, !valid))
		cpu_raise(cpu, VECTOR_GP, error_ext(cpu));
}

/* ---- qualification: in the new task (table 8-1) ---- */

/* A selector of the LDT finds none loaded, and so is #TS like any that is outside its table. */
static void qualify_ldt(struct cpu *cpu, uint16_t selector)
{
	uint32_t error = selector_error(cpu, selector);

	if (selector_is_null(selector))
		return;
	struct descriptor d = descriptor_read(cpu, selector, false, VECTOR_TS);
	if (CHECK(TASK_LDT_TYPE, attributes_system_type(d.attributes) != TYPE_LDT))
		cpu_raise(cpu, VECTOR_TS, error);
	if (CHECK(TASK_LDT_PRESENT, !(d.attributes & SEG_P)))
		cpu_raise(cpu, VECTOR_TS, error);
	cpu->ldtr.s = (struct segment){
		.selector = selector, .base = d.base, .limit = d.limit, .attributes = d.attributes};
}

static void qualify_cs(struct cpu *cpu, uint16_t selector)
{
	uint32_t error = selector_error(cpu, selector);
	unsigned rpl = selector & SELECTOR_RPL;

	if (CHECK(TASK_CS_NULL, selector_is_null(selector)))
		cpu_raise(cpu, VECTOR_TS, error);
	struct descriptor d = descriptor_read(cpu, selector, false, VECTOR_TS);
	unsigned dpl = attributes_dpl(d.attributes);
	if (CHECK(TASK_CS_TYPE, !attributes_code(d.attributes)))
		cpu_raise(cpu, VECTOR_TS, error);
	if (CHECK(TASK_CS_DPL, attributes_conforming(d.attributes) ? dpl > rpl : dpl != rpl))
		cpu_raise(cpu, VECTOR_TS, error);
	if (CHECK(TASK_CS_PRESENT, !(d.attributes & SEG_P)))
		cpu_raise(cpu, VECTOR_NP, error);
	segment_set(cpu, CS, selector, &d);
}

static void qualify_ss(struct cpu *cpu, uint16_t selector)
{
	uint32_t error = selector_error(cpu, selector);

	if (CHECK(TASK_SS_NULL, selector_is_null(selector)))
		cpu_raise(cpu, VECTOR_TS, error);
	struct descriptor d = descriptor_read(cpu, selector, false, VECTOR_TS);
	if (CHECK(TASK_SS_TYPE, !attributes_writable(d.attributes)))
		cpu_raise(cpu, VECTOR_TS, error);
	if (CHECK(TASK_SS_PRESENT, !(d.attributes & SEG_P)))
		cpu_raise(cpu, VECTOR_SS, error);
	if (CHECK(TASK_SS_DPL, attributes_dpl(d.attributes) != cpu->cpl))
		cpu_raise(cpu, VECTOR_TS, error);
	if (CHECK(TASK_SS_RPL, (selector & SELECTOR_RPL) != cpu->cpl))
		cpu_raise(cpu, VECTOR_TS, error);
	segment_set(cpu, SS, selector, &d);
}

static void qualify_data(struct cpu *cpu, enum segment_register segment, uint16_t selector)
{
	uint32_t error = selector_error(cpu, selector);

	if (selector_is_null(selector))
		return;
	struct descriptor d = descriptor_read(cpu, selector, false, VECTOR_TS);
	unsigned dpl = attributes_dpl(d.attributes);
	if (CHECK(TASK_DATA_TYPE, !attributes_readable(d.attributes)))
		cpu_raise(cpu, VECTOR_TS, error);
	if (CHECK(TASK_DATA_PRESENT, !(d.attributes & SEG_P)))
		cpu_raise(cpu, VECTOR_NP, error);
	if (CHECK(TASK_DATA_DPL, !attributes_conforming(d.attributes) &&
					 (dpl < cpu->cpl || dpl < (selector & SELECTOR_RPL))))
		cpu_raise(cpu, VECTOR_TS, error);
	segment_set(cpu, segment, selector, &d);
}

static void qualify_segments(struct cpu *cpu, const struct task *task)
{
	static const enum segment_register data[] = {DS, ES, FS, GS};

	if (cpu_vm86(cpu)) {
		for (enum segment_register i = ES; i < SEGMENT_COUNT; i++)
			segment_load_real(cpu, i, task->segment[i]);
		return;
	}
	qualify_cs(cpu, task->segment[CS]);
	qualify_ss(cpu, task->segment[SS]);
	for (unsigned i = 0; i < 4; i++)
		qualify_data(cpu, data[i], task->segment[data[i]]);
}

static void push_error_code(struct cpu *cpu, uint32_t error_code, unsigned width)
{
	struct stack stack;

	stack_current(cpu, &stack, error_ext(cpu));
	stack_add(&stack, error_code, width);
	stack_write(cpu, &stack);
	stack_commit(cpu, &stack);
}

static void check_eip(struct cpu *cpu)
{
	if (CHECK(TASK_EIP, cpu->rip > cpu->segment[CS].s.limit))
		cpu_raise(cpu, VECTOR_GP, error_ext(cpu));
}

static void enter_task(struct cpu *cpu, const struct task_switch *s, bool has_error_code, uint32_t error_code)
{
	load_cr3(cpu, s);
	qualify_ldt(cpu, s->task.ldt);
	qualify_segments(cpu, &s->task);
	transfer_done(cpu);
	if (has_error_code)
		push_error_code(cpu, error_code, s->narrow ? 2 : 4);
	check_eip(cpu);
	if (s->source != TASK_SWITCH_GATE)
		check_virtual_interrupt(cpu);
}

void task_switch(struct cpu *cpu, uint16_t selector, enum task_switch_source source, uint64_t next_rip,
		 bool has_error_code, uint32_t error_code)
{
	struct task_switch s = {.source = source, .selector = selector};

	check_new_tss(cpu, &s);
	if (guest_runs(cpu))
		guest_check_task_switch(cpu, selector, source, has_error_code, error_code,
					saved_flags(cpu, source) & RFLAGS_RF);
	check_memory(cpu, &s);
	task_save(cpu, next_rip, saved_flags(cpu, source));
	link_tasks(cpu, &s);
	if (s.narrow)
		task_read_16(cpu, &s);
	else
		task_read_32(cpu, &s);
	load_registers(cpu, &s);

	/* Faults from here on are the new task's: they find its EIP, not that of the instruction. */
	const struct insn *insn = cpu->insn;
	uint64_t retired = cpu->retired;
	cpu->retired = cpu_retired(cpu);
	cpu->insn = NULL;
	enter_task(cpu, &s, has_error_code, error_code);
	cpu->insn = insn;
	cpu->retired = retired;
}
