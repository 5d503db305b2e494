/*
 * system_test.h: a machine with descriptor tables, gates and task-state segments, for the tests of
 * transfers. Its memory is identity-mapped; paging is on in IA-32e mode, and off elsewhere unless a
 * test turns it on.
 */
#ifndef TRAPLINE_CPU_SYSTEM_TEST_H
#define TRAPLINE_CPU_SYSTEM_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cpu/checks.h"
#include "cpu/control.h"
#include "cpu/cpu.h"
#include "cpu/events.h"
#include "cpu/mem/mem.h"
#include "cpu/mem/phys.h"
#include "cpu/segment.h"

#define SYSTEM_RAM   0x90000u
#define GDT_AT       0x1000u
#define LDT_AT       0x2000u
#define IDT_AT       0x3000u
#define TSS_AT       0x4000u
#define TSS_B_AT     0x5000u /* of a second task */
#define STACK_AT     0x18000u /* of the running code; grows down */
#define INNER_AT(n)  (0x11000u + 0x1000u * (n)) /* RSP of privilege n in the TSS */
#define CODE_AT      0x8000u /* offset 0x8000 in a segment at 0, in real mode 0800:0 */
#define HANDLER_AT   0x9000u
#define DATA_AT      0xa000u
#define TABLES_AT    0x80000u

enum system_mode { SYSTEM_REAL, SYSTEM_VM86, SYSTEM_PM16, SYSTEM_PM32, SYSTEM_COMPAT, SYSTEM_LONG };

/* Entries of the GDT. Those from GDT_FREE on are the test's. */
enum {
	GDT_CODE32 = 1, /* + DPL */
	GDT_DATA32 = 5,
	GDT_CODE16 = 9,
	GDT_DATA16 = 13,
	GDT_CODE64 = 17,
	GDT_CONFORMING = 21, /* DPL 0, of the mode's size */
	GDT_TSS = 22,        /* 22 and 23 */
	GDT_LDT = 24,        /* 24 and 25 */
	GDT_TSS_B = 26,
	GDT_FREE = 28
};
#define SELECTOR(index, rpl) ((uint16_t)((index) << 3 | (rpl)))
#define DPL(n)               ((uint32_t)(n) << SEG_DPL_SHIFT)
#define CODE_ATTRIBUTES      (SEG_P | SEG_S | SEG_CODE | SEG_READABLE | SEG_ACCESSED)
#define DATA_ATTRIBUTES      (SEG_P | SEG_S | SEG_WRITABLE | SEG_ACCESSED)

struct system {
	struct profile profile;
	struct phys_memory *memory;
	uint8_t *ram;
	struct cpu *cpu;
	enum system_mode mode;
	unsigned events; /* since the run began; the first eight are kept */
	struct event event[8];
	struct vcpu_state before, at_event; /* when the run began; when the first event came */
};

static void system_note_event(void *owner, struct cpu *cpu, const struct event *event)
{
	struct system *s = owner;

	if (!s->events)
		cpu_save(cpu, &s->at_event);
	if (s->events < 8)
		s->event[s->events] = *event;
	s->events++;
}

static void system_note_insn(void *owner, struct cpu *cpu, const struct insn *insn)
{
	(void)owner;
	(void)cpu;
	(void)insn;
}

static inline void put(struct system *s, uint64_t at, uint64_t value, unsigned width)
{
	assert_true(phys_write(s->memory, at, &value, width));
}

static inline uint64_t get(struct system *s, uint64_t at, unsigned width)
{
	uint64_t value = 0;

	assert_true(phys_read(s->memory, at, &value, width));
	return value;
}

/* A descriptor by the figures of SDM 3A 3.4.5; @limit is the raw 20-bit field. */
static inline uint64_t descriptor_make(uint32_t base, uint32_t limit, uint32_t attributes)
{
	return (limit & 0xffffull) | (base & 0xffffffull) << 16 | (uint64_t)(attributes & 0xf0ff) << 40 |
	       (uint64_t)(limit >> 16 & 15) << 48 | (uint64_t)(base >> 24) << 56;
}

static inline void gdt_put(struct system *s, unsigned index, uint32_t base, uint32_t limit, uint32_t attributes)
{
	put(s, GDT_AT + 8 * index, descriptor_make(base, limit, attributes), 8);
}

/* A gate of any table by SDM 3A figures 5-8, 6-2 and 6-8; @count: parameters, or IST. */
static inline void gate_put(struct system *s, uint64_t at, bool wide, uint32_t attributes, uint16_t selector,
			    uint64_t offset, unsigned count)
{
	uint64_t low = (offset & 0xffff) | (uint64_t)selector << 16 | (uint64_t)(count & 31) << 32 |
		       (uint64_t)(attributes & 0xff) << 40 | (offset >> 16 & 0xffff) << 48;

	put(s, at, low, 8);
	if (wide)
		put(s, at + 8, offset >> 32, 8);
}

static inline bool system_wide(const struct system *s) { return s->mode >= SYSTEM_COMPAT; }

/* Code and data of the running mode, by privilege. */
static inline unsigned code_index(const struct system *s, unsigned dpl)
{
	static const unsigned first[] = {GDT_CODE16, GDT_CODE32, GDT_CODE16, GDT_CODE32, GDT_CODE32, GDT_CODE64};

	return first[s->mode] + dpl;
}
static inline unsigned data_index(const struct system *s, unsigned dpl)
{
	return (s->mode == SYSTEM_PM16 ? GDT_DATA16 : GDT_DATA32) + dpl;
}
/* Code that gates lead to. */
static inline unsigned handler_index(const struct system *s, unsigned dpl)
{
	return (system_wide(s) ? GDT_CODE64 : GDT_CODE32) + dpl;
}

static inline void idt_put(struct system *s, unsigned vector, uint32_t attributes, uint16_t selector, uint64_t offset,
			   unsigned ist)
{
	gate_put(s, IDT_AT + vector * (system_wide(s) ? 16u : 8u), system_wide(s), attributes, selector, offset, ist);
}

static inline struct segment gdt_segment(struct system *s, uint16_t selector)
{
	struct descriptor d = descriptor_parse(get(s, GDT_AT + (selector & SELECTOR_INDEX), 8), 0);

	return (struct segment){.selector = selector, .base = d.base, .limit = d.limit, .attributes = d.attributes};
}

static inline void system_tables(struct system *s)
{
	uint32_t conforming = CODE_ATTRIBUTES | SEG_CONFORMING | SEG_G;

	for (unsigned n = 0; n < 4; n++) {
		gdt_put(s, GDT_CODE32 + n, 0, 0xfffff, CODE_ATTRIBUTES | SEG_G | SEG_DB | DPL(n));
		gdt_put(s, GDT_DATA32 + n, 0, 0xfffff, DATA_ATTRIBUTES | SEG_G | SEG_DB | DPL(n));
		gdt_put(s, GDT_CODE16 + n, 0, 0xffff, CODE_ATTRIBUTES | DPL(n));
		gdt_put(s, GDT_DATA16 + n, 0, 0xffff, DATA_ATTRIBUTES | DPL(n));
		gdt_put(s, GDT_CODE64 + n, 0, 0xfffff, CODE_ATTRIBUTES | SEG_G | SEG_L | DPL(n));
	}
	gdt_put(s, GDT_CONFORMING, 0, 0xfffff, conforming | (s->mode == SYSTEM_LONG ? SEG_L : SEG_DB));
	gdt_put(s, GDT_TSS, TSS_AT, 0x1ff, SEG_P | TYPE_TSS_BUSY);
	gdt_put(s, GDT_TSS_B, TSS_B_AT, TSS32_SIZE - 1, SEG_P | TYPE_TSS_AVAILABLE);
	gdt_put(s, GDT_LDT, LDT_AT, 0xff, SEG_P | TYPE_LDT);
	for (unsigned vector = 0; vector < 256; vector++)
		idt_put(s, vector, SEG_P | TYPE_INTERRUPT_GATE, SELECTOR(handler_index(s, 0), 0),
			HANDLER_AT + vector, 0);
	for (unsigned n = 0; n < 3; n++) {
		if (system_wide(s)) {
			put(s, TSS_AT + TSS64_RSP(n), INNER_AT(n), 8);
		} else {
			put(s, TSS_AT + TSS32_ESP(n), INNER_AT(n), 4);
			put(s, TSS_AT + TSS32_SS(n), SELECTOR(GDT_DATA32 + n, n), 2);
		}
	}
	put(s, TSS_AT + TSS32_IOMAP, 0x90, 2);
	put(s, TABLES_AT, (TABLES_AT + 0x1000) | 7, 8);
	put(s, TABLES_AT + 0x1000, (TABLES_AT + 0x2000) | 7, 8);
	put(s, TABLES_AT + 0x2000, 0x87, 8);
}

static inline void system_segments(struct system *s, struct vcpu_state *state, unsigned cpl)
{
	for (enum segment_register i = ES; i < SEGMENT_COUNT; i++) {
		if (s->mode <= SYSTEM_VM86) {
			uint16_t selector = i == CS ? CODE_AT >> 4 : i == SS ? 0x1000 : 0;

			state->segment[i] = (struct segment){
				.selector = selector, .base = selector * 16u, .limit = 0xffff,
				.attributes = DATA_ATTRIBUTES | (s->mode == SYSTEM_VM86 ? DPL(3) : 0)};
		} else {
			state->segment[i] = gdt_segment(s, SELECTOR(i == CS ? code_index(s, cpl) : data_index(s, cpl), cpl));
		}
	}
}

/* Fills memory with the tables and puts the CPU into @mode at @cpl, about to run code at CODE_AT. */
static inline void system_start(struct system *s, enum system_mode mode, unsigned cpl)
{
	struct vcpu_state state;
	bool wide;

	s->mode = mode;
	wide = system_wide(s);
	memset(s->ram, 0, 0x20000);
	tlb_flush_all(s->cpu);
	cpu_reset(s->cpu, false);
	system_tables(s);
	cpu_save(s->cpu, &state);
	system_segments(s, &state, cpl);
	state.cr0 = CR0_ET | CR0_NE | (mode == SYSTEM_REAL ? 0 : CR0_PE) | (wide ? CR0_PG : 0);
	state.cr3 = TABLES_AT;
	state.cr4 = wide ? CR4_PAE : 0;
	state.efer = wide ? EFER_LME | EFER_LMA : 0;
	state.gdtr = (struct table_register){GDT_AT, 0x1ff};
	state.idtr = (struct table_register){IDT_AT, 0xfff};
	state.ldtr = (struct segment){.selector = SELECTOR(GDT_LDT, 0), .base = LDT_AT, .limit = 0xff,
				      .attributes = SEG_P | TYPE_LDT};
	state.tr = (struct segment){.selector = SELECTOR(GDT_TSS, 0), .base = TSS_AT, .limit = 0x1ff,
				    .attributes = SEG_P | TYPE_TSS_BUSY};
	state.rflags = RFLAGS_FIXED | (mode == SYSTEM_VM86 ? RFLAGS_VM : 0);
	state.rip = mode <= SYSTEM_VM86 ? 0 : CODE_AT;
	state.gpr[RSP] = mode <= SYSTEM_VM86 || mode == SYSTEM_PM16 ? STACK_AT & 0xffff : STACK_AT;
	cpu_load(s->cpu, &state);
}

static inline void system_open(struct system *s, const char *profile)
{
	struct cpu_bus bus = {.owner = s, .trace_event = system_note_event, .trace_insn = system_note_insn};
	char why[200];

	memset(s, 0, sizeof(*s));
	assert_int_equal(profile_parse(&s->profile, profile, why, sizeof(why)), 0);
	s->memory = phys_new();
	s->ram = aligned_alloc(4096, SYSTEM_RAM);
	assert_int_equal(phys_add(s->memory, 0, SYSTEM_RAM, s->ram, false), 0);
	s->cpu = cpu_new(&s->profile, &bus, s->memory);
	assert_non_null(s->cpu);
	s->cpu->tracing = true;
}

static inline void system_close(struct system *s)
{
	cpu_free(s->cpu);
	phys_free(s->memory);
	free(s->ram);
}

/* Runs until @count instructions and events are done; s->before is the state before. */
static inline enum cpu_stop system_steps(struct system *s, unsigned count)
{
	s->events = 0;
	cpu_save(s->cpu, &s->before);
	s->cpu->event_at = s->cpu->stop_at = s->cpu->retired + count;
	return cpu_run(s->cpu);
}

/* Runs one instruction, or the event that it raises. */
static inline enum cpu_stop system_run(struct system *s, const void *code, size_t size)
{
	assert_true(phys_write(s->memory, CODE_AT, code, size));
	return system_steps(s, 1);
}
#define RUN(s, ...) system_run((s), (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

/* Delivers an event from outside the instruction stream, with what run.c does about faults. */
static inline bool system_deliver(struct system *s, struct event event)
{
	struct cpu *cpu = s->cpu;

	s->events = 0;
	cpu_save(cpu, &s->before);
	cpu->delivering_depth = 0;
	cpu->insn = NULL;
	if (setjmp(cpu->unwind)) {
		cpu_save(cpu, &s->at_event);
		s->event[0] = cpu->raised;
		s->events = 1;
		cpu->delivering_depth = 0;
		return false;
	}
	event_deliver(cpu, &event);
	return true;
}

/* The first event of the run was this fault, and nothing but what delivery does had changed. */
#define ASSERT_FAULT(s, wanted_vector, wanted_error)                                                    \
	do {                                                                                            \
		assert_true((s)->events > 0);                                                           \
		assert_int_equal((s)->event[0].vector, (wanted_vector));                                \
		assert_int_equal((s)->event[0].error_code, (wanted_error));                             \
		assert_int_equal((s)->event[0].return_rip, (s)->before.rip);                            \
		assert_memory_equal((s)->at_event.gpr, (s)->before.gpr, sizeof((s)->before.gpr));       \
		assert_memory_equal((s)->at_event.segment, (s)->before.segment, sizeof((s)->before.segment)); \
		assert_int_equal((s)->at_event.rflags, (s)->before.rflags);                             \
	} while (0)
#define ASSERT_RUNS(s) assert_int_equal((s)->events, 0)

#endif
