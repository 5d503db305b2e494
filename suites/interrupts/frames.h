/*
 * frames.h: gates of the IDT as data, and what a delivery through one leaves: the frame on the
 * handler's stack, slot by slot, and the state that the handler starts in. The handler is a page of
 * CASE_END, so that its first instruction ends the case there.
 *
 * SDM 3A 6.11 to 6.14, 3B 21.3; APM 2 8.7, 8.9.
 */
#ifndef TRAPLINE_SUITES_INTERRUPTS_FRAMES_H
#define TRAPLINE_SUITES_INTERRUPTS_FRAMES_H

#include "ways.h"

struct gate {
	const char *name;
	unsigned where;
	unsigned width;  /* of a slot of its frame: 2, 4 or 8 bytes */
	bool trap;       /* leaves IF alone */
	bool ist;        /* over IST 2 */
	bool same;       /* the handler runs at the CPL of the case, else at CPL 0 */
	bool conforming; /* by a conforming segment */
};

#define HANDLER_SPARE (CASE_SEL_SPARE + 0x20u) /* descriptor of a conforming handler */
#define IST2_TOP      CASE_STACK2

static const struct gate gates[] = {
	{.name = "interrupt16", .where = LEGACY | VM86, .width = 2},
	{.name = "trap16", .where = LEGACY | VM86, .width = 2, .trap = true},
	{.name = "interrupt32", .where = LEGACY | VM86, .width = 4},
	{.name = "trap32", .where = LEGACY | VM86, .width = 4, .trap = true},
	{.name = "interrupt64", .where = IA32E, .width = 8},
	{.name = "trap64", .where = IA32E, .width = 8, .trap = true},
	{.name = "interrupt64_ist", .where = IA32E, .width = 8, .ist = true},
	{.name = "interrupt16_same", .where = LEGACY | ABOVE0, .width = 2, .same = true},
	{.name = "trap32_same", .where = LEGACY | ABOVE0, .width = 4, .trap = true, .same = true},
	{.name = "interrupt64_same", .where = IA32E | ABOVE0, .width = 8, .same = true},
	{.name = "trap64_same_ist",
	 .where = IA32E | CPL1 | CPL2,
	 .width = 8,
	 .trap = true,
	 .ist = true,
	 .same = true},
	{.name = "interrupt32_conforming",
	 .where = LEGACY | ABOVE0,
	 .width = 4,
	 .same = true,
	 .conforming = true},
	{.name = "interrupt64_conforming",
	 .where = IA32E | ABOVE0,
	 .width = 8,
	 .same = true,
	 .conforming = true},
};
#define GATES (sizeof(gates) / sizeof(gates[0]))

static inline unsigned gate_type(const struct gate *gate)
{
	return gate->width == 2 ? (gate->trap ? TYPE_TRAP_GATE16 : TYPE_INTERRUPT_GATE16)
				: (gate->trap ? TYPE_TRAP_GATE : TYPE_INTERRUPT_GATE);
}

static inline unsigned gate_cpl(const struct cell *x, const struct gate *gate)
{
	return gate->same ? x->cpl : 0;
}

static inline uint32_t gate_selector(const struct cell *x, const struct gate *gate)
{
	unsigned cpl = gate_cpl(x, gate);
	unsigned mode = gate->width == 8 ? MODE_LONG : gate->width == 4 ? MODE_PROT32 : MODE_PROT16;

	return gate->conforming ? HANDLER_SPARE : case_code_selector(mode, cpl) & SELECTOR_INDEX;
}

/* Where the handler is: on a user page where it runs at CPL 3, and within a 16-bit gate's reach. */
static inline uint32_t gate_offset(const struct cell *x, const struct gate *gate)
{
	uint32_t address = gate_cpl(x, gate) == 3 ? CASE_LAND_USER + 0x300 : CASE_LAND_GATE;

	return gate->width == 2 ? address - CASE_WINDOW : address;
}

static inline uint32_t idt_entry(const struct cell *x, unsigned vector)
{
	return IS(IA32E) ? CASE_IDT64 + 16 * vector : CASE_IDT32 + 8 * vector;
}

/* A gate of the IDT, of DPL 3. */
static inline void given_gate(struct cell *x, unsigned vector, uint32_t selector, uint32_t offset,
			      unsigned attributes, unsigned ist)
{
	POKE(8, idt_entry(x, vector),
	     (offset & 0xffff) | (uint64_t)selector << 16 | (uint64_t)ist << 32 |
		     (uint64_t)(attributes | SEG_DPL) << 40 | (uint64_t)(offset >> 16) << 48);
}

static inline void given_handler(struct cell *x, unsigned vector, const struct gate *gate)
{
	VARIANT(gate->name);
	if (gate->conforming)
		DESCRIPTOR(HANDLER_SPARE, 0, 0xfffff,
			   SEG_P | SEG_S | SEG_CODE | SEG_READABLE | SEG_ACCESSED | SEG_CONFORMING | SEG_G |
				   (gate->width == 8 ? SEG_L : SEG_DB));
	if (gate->ist) /* RSP is aligned to 16 bytes on its way from the TSS */
		POKE(4, CASE_TSS64 + TSS64_IST(2), IST2_TOP + 8);
	given_gate(x, vector, gate_selector(x, gate), gate_offset(x, gate), SEG_P | gate_type(gate),
		   gate->ist ? 2 : 0);
}

/* ---- the frame ---- */

struct frame {
	unsigned width, count;
	bool with_rf;
	uint64_t value[10], mask[10]; /* in the order in which they are pushed */
};

static inline void frame_push(struct frame *frame, uint64_t value, uint64_t mask)
{
	frame->value[frame->count] = value;
	frame->mask[frame->count++] = mask;
}

/*
 * EFLAGS as they are pushed: RF is set for faults (SDM 3B 18.3.1.1). That is for rows of its own (@with_rf),
 * so that machines that never set it can show what else they do.
 */
static inline uint64_t frame_flags(const struct cell *x, const struct way *way)
{
	return LOADED(rflags) | (way->kind == WAY_FAULT ? RFLAGS_RF : 0);
}

/* Slots that are wider than what they hold: the manuals do not say what the rest is. */
static inline void frame_fill(struct cell *x, struct frame *frame, const struct way *way, bool inner)
{
	const uint64_t all = ~0ull, low = 0xffff;

	if (x->mode == MODE_VM86) {
		frame_push(frame, LOADED(gs), low);
		frame_push(frame, LOADED(fs), low);
		frame_push(frame, LOADED(ds), low);
		frame_push(frame, LOADED(es), low);
	}
	if (inner || frame->width == 8) {
		frame_push(frame, LOADED(ss), low);
		frame_push(frame, LOADED(rsp), x->mode == MODE_PROT16 ? low : all);
	}
	frame_push(frame, frame_flags(x, way), frame->with_rf ? all : ~(uint64_t)RFLAGS_RF);
	frame_push(frame, LOADED(cs), low);
	frame_push(frame, way_return_ip(x, way), all);
	if (way->kind == WAY_FAULT && vector_has_error_code(way->vector) && x->mode != MODE_REAL)
		frame_push(frame, way_error(x, way), 0xffffffff);
}

/* Names the frame's memory, in pieces of up to 8 bytes; @top is linear. Returns its size. */
static inline unsigned frame_memory(struct cell *x, const struct frame *frame, uint32_t top)
{
	unsigned width = frame->width, size = frame->count * width, per = 8 / width;
	uint64_t slot = width == 8 ? ~0ull : (1ull << 8 * width) - 1;

	for (unsigned first = 0; first < frame->count; first += per) {
		uint64_t value = 0, mask = 0;
		unsigned n = frame->count - first < per ? frame->count - first : per;

		/* The slot pushed last has the lowest address. */
		for (unsigned i = 0; i < n; i++) {
			unsigned index = first + n - 1 - i;

			value |= (frame->value[index] & slot) << 8 * width * i;
			mask |= (frame->mask[index] & slot) << 8 * width * i;
		}
		MEMORY_BITS(n * width, top - (first + n) * width, value,
			    mask == (n * width == 8 ? ~0ull : (1ull << 8 * width * n) - 1) ? ~0ull : mask);
	}
	return size;
}

/* The handler of @way, reached through @gate. */
static inline void handler_says(struct cell *x, const struct way *way, const struct gate *gate, bool with_rf)
{
	unsigned cpl = gate_cpl(x, gate);
	bool inner = cpl != x->cpl;
	struct frame frame = {.width = gate->width, .with_rf = with_rf};
	uint32_t top = gate->ist ? IST2_TOP : !inner ? CASE_STACK : cpl == 0 ? CASE_STACK0 : CASE_STACK1;
	uint64_t clear = RFLAGS_TF | RFLAGS_NT | RFLAGS_RF | RFLAGS_VM | (gate->trap ? 0 : RFLAGS_IF);
	unsigned size;

	frame_fill(x, &frame, way, inner);
	RUNS;
	size = frame_memory(x, &frame, top);
	EFFECT(cs, (gate_selector(x, gate) & SELECTOR_INDEX) | cpl);
	EFFECT(rip, gate_offset(x, gate));
	EFFECT(rflags, LOADED(rflags) & ~clear);
	EFFECT(rsp, (inner || gate->ist ? top : LOADED(rsp)) - size);
	if (gate->ist && !inner) /* SDM 3A 6.14.4 speaks of a change of CPL, 6.14.5 of every use of an IST */
		EFFECT_EITHER(ss, LOADED(ss), cpl);
	else
		EFFECT(ss, !inner             ? LOADED(ss)
			   : gate->width == 8 ? cpl
					      : case_data_selector(MODE_PROT32, cpl));
	if (x->mode == MODE_VM86)
		EFFECT(es, 0), EFFECT(ds, 0), EFFECT(fs, 0), EFFECT(gs, 0), EFFECT(fs_base, 0),
			EFFECT(gs_base, 0);
	if (way->effects)
		way->effects(x);
}

/* ---- real-address mode: the interrupt vector table ---- */

#define IVT_HANDLER(n) POKE(4, CASE_IVT + 4 * (n), CASE_WINDOW / 16 << 16 | (CASE_LAND_GATE - CASE_WINDOW))

static inline void real_handler_says(struct cell *x, const struct way *way)
{
	struct frame frame = {.width = 2};

	frame_fill(x, &frame, way, false);
	RUNS;
	EFFECT(rsp, LOADED(rsp) - frame_memory(x, &frame, CASE_STACK));
	EFFECT(rip, CASE_LAND_GATE - CASE_WINDOW);
	EFFECT_BITS(rflags, LOADED(rflags) & ~(uint64_t)(RFLAGS_IF | RFLAGS_TF), 0xffff);
	if (way->effects)
		way->effects(x);
}

#endif
