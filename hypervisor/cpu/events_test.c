/* events_test.c: delivery of exceptions and interrupts, by SDM 3A chapter 6 and SDM 2A INT n. */
#include "cpu/system_test.h"

static struct system sys;

static int setup(void **state)
{
	(void)state;
	system_open(&sys, "intel");
	return 0;
}
static int teardown(void **state)
{
	(void)state;
	system_close(&sys);
	return 0;
}

#define VECTOR 0x41
#define IDT_ERROR(vector, ext) ((vector) << 3 | ERROR_IDT | (ext))
#define FREE SELECTOR(GDT_FREE, 0)

static struct event event_of(enum event_kind kind, uint8_t vector)
{
	bool fault = kind == EVENT_FAULT && vector_has_error_code(vector);

	return (struct event){.kind = kind, .vector = vector, .has_error_code = fault,
			      .error_code = fault ? 0xabcd : 0, .return_rip = sys.cpu->rip};
}

/* ---- double fault (SDM 3A table 6-5) ---- */

enum { BENIGN, CONTRIBUTORY, PAGE };
enum { SERIAL, DOUBLE, SHUTDOWN };

static void combinations(void **state)
{
	static const struct {
		enum event_kind kind;
		uint8_t vector, class;
	} events[] = {
		{EVENT_FAULT, VECTOR_DE, CONTRIBUTORY}, {EVENT_FAULT, VECTOR_TS, CONTRIBUTORY},
		{EVENT_FAULT, VECTOR_NP, CONTRIBUTORY}, {EVENT_FAULT, VECTOR_SS, CONTRIBUTORY},
		{EVENT_FAULT, VECTOR_GP, CONTRIBUTORY}, {EVENT_FAULT, VECTOR_PF, PAGE},
		{EVENT_FAULT, VECTOR_DB, BENIGN},       {EVENT_TRAP, VECTOR_DB, BENIGN},
		{EVENT_NMI, VECTOR_NMI, BENIGN},        {EVENT_SOFTWARE_EXCEPTION, VECTOR_BP, BENIGN},
		{EVENT_SOFTWARE_EXCEPTION, VECTOR_OF, BENIGN}, {EVENT_FAULT, VECTOR_BR, BENIGN},
		{EVENT_FAULT, VECTOR_UD, BENIGN},       {EVENT_FAULT, VECTOR_NM, BENIGN},
		{EVENT_FAULT, VECTOR_MF, BENIGN},       {EVENT_FAULT, VECTOR_AC, BENIGN},
		{EVENT_FAULT, VECTOR_MC, BENIGN},       {EVENT_FAULT, VECTOR_XM, BENIGN},
		{EVENT_EXTERNAL_INTERRUPT, VECTOR_GP, BENIGN}, {EVENT_SOFTWARE_INTERRUPT, VECTOR_PF, BENIGN},
	};
	static const uint8_t table[3][3] = {
		/* second:      benign  contributory  page fault */
		[BENIGN] =       {SERIAL, SERIAL, SERIAL},
		[CONTRIBUTORY] = {SERIAL, DOUBLE, SERIAL},
		[PAGE] =         {SERIAL, DOUBLE, DOUBLE},
	};
	const unsigned count = sizeof(events) / sizeof(events[0]);

	(void)state;
	for (unsigned i = 0; i < count; i++)
		for (unsigned j = 0; j < count; j++) {
			struct event first = {.kind = events[i].kind, .vector = events[i].vector};
			struct event second = {.kind = events[j].kind, .vector = events[j].vector, .return_rip = 77};
			struct event result = {0};

			assert_true(event_combine(&first, &second, &result));
			if (table[events[i].class][events[j].class] == SERIAL) {
				assert_int_equal(result.vector, second.vector);
			} else {
				assert_int_equal(result.vector, VECTOR_DF);
				assert_true(result.has_error_code);
				assert_int_equal(result.error_code, 0);
			}
			assert_int_equal(result.return_rip, 77);
			/* While #DF is delivered. */
			first = (struct event){.kind = EVENT_FAULT, .vector = VECTOR_DF};
			assert_int_equal(event_combine(&first, &second, &result), events[j].class == BENIGN);
		}
}

/* The whole way: #GP with an empty IDT is a shutdown, #GP with #DF present alone a double fault. */
static void double_and_triple_fault(void **state)
{
	(void)state;
	for (enum system_mode mode = SYSTEM_REAL; mode <= SYSTEM_LONG; mode++) {
		system_start(&sys, mode, mode == SYSTEM_VM86 ? 3 : 0);
		sys.cpu->idtr.limit = 0;
		assert_int_equal(RUN(&sys, 0x0f, 0x0b), CPU_STOP_SHUTDOWN);
		if (mode == SYSTEM_REAL || mode == SYSTEM_VM86)
			continue;
		system_start(&sys, mode, 0);
		idt_put(&sys, VECTOR_UD, TYPE_INTERRUPT_GATE, SELECTOR(handler_index(&sys, 0), 0), 0, 0);
		idt_put(&sys, VECTOR_NP, SEG_P | TYPE_LDT, SELECTOR(handler_index(&sys, 0), 0), 0, 0);
		RUN(&sys, 0x0f, 0x0b);
		assert_int_equal(sys.events, 3); /* #UD, the #NP of its gate, and #GP over #NP: #DF */
		assert_int_equal(sys.event[1].vector, VECTOR_NP);
		assert_int_equal(sys.event[1].error_code, IDT_ERROR(VECTOR_UD, 1));
		assert_int_equal(sys.event[2].vector, VECTOR_DF);
		assert_int_equal(sys.cpu->rip, HANDLER_AT + VECTOR_DF);
	}
}

/* ---- frames ---- */

static void real_mode(void **state)
{
	(void)state;
	system_start(&sys, SYSTEM_REAL, 0);
	put(&sys, IDT_AT + VECTOR * 4, 0x0123 | 0x4567 << 16, 4);
	rflags_set(sys.cpu, RFLAGS_IF | RFLAGS_TF | RFLAGS_AC | RFLAGS_CF | RFLAGS_NT, UINT64_MAX);
	sys.cpu->rip = 0x1111;
	assert_true(system_deliver(&sys, event_of(EVENT_EXTERNAL_INTERRUPT, VECTOR)));
	assert_int_equal(sys.cpu->rip, 0x0123);
	assert_int_equal(sys.cpu->segment[CS].s.selector, 0x4567);
	assert_int_equal(sys.cpu->segment[CS].s.base, 0x45670);
	assert_int_equal(rflags_get(sys.cpu), RFLAGS_FIXED | RFLAGS_CF | RFLAGS_NT);
	assert_int_equal(sys.cpu->reg[RSP], (STACK_AT & 0xffff) - 6);
	uint64_t frame = 0x10000 + (STACK_AT & 0xffff) - 6;
	assert_int_equal(get(&sys, frame, 2), 0x1111);
	assert_int_equal(get(&sys, frame + 2, 2), CODE_AT >> 4);
	assert_int_equal(get(&sys, frame + 4, 2), RFLAGS_FIXED | RFLAGS_IF | RFLAGS_TF | RFLAGS_CF | RFLAGS_NT);

	/* The stack pointer wraps between pushes; a push across offset 0 is #SS. */
	system_start(&sys, SYSTEM_REAL, 0);
	sys.cpu->reg[RSP] = 2;
	assert_true(system_deliver(&sys, event_of(EVENT_NMI, 2)));
	assert_int_equal(sys.cpu->reg[RSP], 0xfffc);
	assert_int_equal(get(&sys, 0x10000, 2), RFLAGS_FIXED);
	assert_int_equal(get(&sys, 0x1fffe, 2), CODE_AT >> 4);
	assert_true(sys.cpu->nmi_blocked);
	system_start(&sys, SYSTEM_REAL, 0);
	sys.cpu->reg[RSP] = 1;
	assert_false(system_deliver(&sys, event_of(EVENT_NMI, 2)));
	assert_int_equal(sys.event[0].vector, VECTOR_SS);

	/* The IDT limit: three bytes of the entry are not enough. */
	system_start(&sys, SYSTEM_REAL, 0);
	sys.cpu->idtr.limit = VECTOR * 4 + 3;
	assert_true(system_deliver(&sys, event_of(EVENT_SOFTWARE_INTERRUPT, VECTOR)));
	system_start(&sys, SYSTEM_REAL, 0);
	sys.cpu->idtr.limit = VECTOR * 4 + 2;
	assert_false(system_deliver(&sys, event_of(EVENT_SOFTWARE_INTERRUPT, VECTOR)));
	assert_int_equal(sys.event[0].vector, VECTOR_GP);
}

#define FLAGS_BEFORE (RFLAGS_FIXED | RFLAGS_IF | RFLAGS_TF | RFLAGS_NT | RFLAGS_AC | RFLAGS_CF)

/* Frame words from the top of the handler's stack, @width bytes each. */
static void assert_frame(unsigned width, uint64_t at, const uint64_t *words, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		assert_int_equal(get(&sys, at + i * width, width), words[i] & (width == 8 ? ~0ull : (1ull << 8 * width) - 1));
}

/* Gates of 16 and 32 bits, trap and interrupt, with and without error code, to the same and an inner level. */
static void protected_gates(void **state)
{
	(void)state;
	for (unsigned n = 0; n < 16; n++) {
		bool narrow = n & 1, trap = n & 2, inner = n & 4, error = n & 8;
		unsigned width = narrow ? 2 : 4, type = (narrow ? 6u : 14u) + trap, cpl = inner ? 3 : 0;
		uint8_t vector = error ? VECTOR_GP : VECTOR;

		system_start(&sys, SYSTEM_PM32, cpl);
		idt_put(&sys, vector, SEG_P | type, SELECTOR(GDT_CODE32, 0), 0x12349000, 0);
		rflags_set(sys.cpu, FLAGS_BEFORE, UINT64_MAX);
		assert_true(system_deliver(&sys, event_of(error ? EVENT_FAULT : EVENT_EXTERNAL_INTERRUPT, vector)));
		uint64_t words[6], top = inner ? INNER_AT(0) : STACK_AT;
		unsigned count = 0;
		if (error)
			words[count++] = 0xabcd;
		words[count++] = CODE_AT;
		words[count++] = SELECTOR(GDT_CODE32 + cpl, cpl);
		words[count++] = FLAGS_BEFORE | (error ? RFLAGS_RF : 0);
		if (inner) {
			words[count++] = STACK_AT;
			words[count++] = SELECTOR(GDT_DATA32 + 3, 3);
		}
		assert_int_equal(sys.cpu->reg[RSP], top - count * width);
		assert_frame(width, top - count * width, words, count);
		assert_int_equal(sys.cpu->cpl, 0);
		assert_int_equal(sys.cpu->segment[CS].s.selector, SELECTOR(GDT_CODE32, 0));
		assert_int_equal(sys.cpu->segment[SS].s.selector, SELECTOR(GDT_DATA32, 0));
		assert_int_equal(sys.cpu->rip, narrow ? 0x9000 : 0x12349000);
		assert_int_equal(rflags_get(sys.cpu),
				 RFLAGS_FIXED | RFLAGS_AC | RFLAGS_CF | (trap ? RFLAGS_IF : 0));
		assert_int_equal(sys.cpu->delivering_depth, 0);
	}
}

static void long_mode(void **state)
{
	(void)state;
	for (unsigned n = 0; n < 16; n++) {
		bool compat = n & 1, ist = n & 2, inner = n & 4, error = n & 8;
		unsigned cpl = inner ? 3 : 0;
		uint8_t vector = error ? VECTOR_GP : VECTOR;
		uint64_t top;

		system_start(&sys, compat ? SYSTEM_COMPAT : SYSTEM_LONG, cpl);
		put(&sys, TSS_AT + TSS64_IST(5), 0x1500f, 8);
		put(&sys, TSS_AT + TSS64_RSP(0), INNER_AT(0) + 9, 8);
		sys.cpu->reg[RSP] = STACK_AT + 5;
		idt_put(&sys, vector, SEG_P | TYPE_INTERRUPT_GATE, SELECTOR(GDT_CODE64, 3), 0x123456789000, ist ? 5 : 0);
		rflags_set(sys.cpu, FLAGS_BEFORE, UINT64_MAX);
		uint16_t cs = sys.cpu->segment[CS].s.selector, ss = sys.cpu->segment[SS].s.selector;
		assert_true(system_deliver(&sys, event_of(error ? EVENT_FAULT : EVENT_EXTERNAL_INTERRUPT, vector)));
		top = ist ? 0x15000 : inner ? INNER_AT(0) : STACK_AT;
		uint64_t words[] = {0xabcd, CODE_AT, cs, FLAGS_BEFORE | (error ? RFLAGS_RF : 0), STACK_AT + 5, ss};
		unsigned count = error ? 6 : 5;
		assert_int_equal(sys.cpu->reg[RSP], top - 8 * count);
		assert_frame(8, top - 8 * count, words + (error ? 0 : 1), count);
		assert_int_equal(sys.cpu->rip, 0x123456789000);
		assert_int_equal(sys.cpu->cpl, 0);
		assert_true(cpu_64bit(sys.cpu));
		assert_int_equal(sys.cpu->segment[CS].s.selector, SELECTOR(GDT_CODE64, 0));
		/* A change of privilege loads a null SS; without one SS stays (SDM 3A 6.14.2). */
		assert_int_equal(sys.cpu->segment[SS].s.selector, inner ? 0 : ss);
		assert_int_equal(rflags_get(sys.cpu), RFLAGS_FIXED | RFLAGS_AC | RFLAGS_CF);
	}
}

/* From virtual-8086 mode: nine words, and null data segments (SDM 3A 20.3.1.1). */
static void from_vm86(void **state)
{
	static const enum segment_register order[] = {ES, DS, FS, GS};

	(void)state;
	for (unsigned narrow = 0; narrow < 2; narrow++) {
		unsigned width = narrow ? 2 : 4;

		system_start(&sys, SYSTEM_VM86, 3);
		for (unsigned i = 0; i < 4; i++)
			segment_load_real(sys.cpu, order[i], (uint16_t)(0x111 * (i + 1)));
		rflags_set(sys.cpu, RFLAGS_IF, RFLAGS_IF);
		idt_put(&sys, VECTOR, SEG_P | (narrow ? TYPE_INTERRUPT_GATE16 : TYPE_INTERRUPT_GATE),
			SELECTOR(GDT_CODE32, 0), 0x9000, 0);
		assert_true(system_deliver(&sys, event_of(EVENT_EXTERNAL_INTERRUPT, VECTOR)));
		const uint64_t words[] = {0, CODE_AT >> 4, RFLAGS_FIXED | RFLAGS_IF | RFLAGS_VM, STACK_AT & 0xffff,
					  0x1000, 0x111, 0x222, 0x333, 0x444};
		assert_frame(width, INNER_AT(0) - 9 * width, words, 9);
		assert_int_equal(sys.cpu->reg[RSP], INNER_AT(0) - 9 * width);
		assert_int_equal(rflags_get(sys.cpu), RFLAGS_FIXED);
		assert_int_equal(sys.cpu->cpl, 0);
		for (unsigned i = 0; i < 4; i++) {
			assert_int_equal(sys.cpu->segment[order[i]].s.selector, 0);
			assert_true(sys.cpu->segment[order[i]].s.attributes & SEG_UNUSABLE);
		}
	}
	/* The handler must be nonconforming code of privilege 0. */
	system_start(&sys, SYSTEM_VM86, 3);
	idt_put(&sys, VECTOR, SEG_P | TYPE_INTERRUPT_GATE, SELECTOR(GDT_CONFORMING, 0), 0x9000, 0);
	assert_false(system_deliver(&sys, event_of(EVENT_EXTERNAL_INTERRUPT, VECTOR)));
	ASSERT_FAULT(&sys, VECTOR_GP, SELECTOR(GDT_CONFORMING, 0) | 1);
	system_start(&sys, SYSTEM_VM86, 3);
	idt_put(&sys, VECTOR, SEG_P | TYPE_INTERRUPT_GATE, SELECTOR(GDT_CODE32 + 1, 0), 0x9000, 0);
	assert_false(system_deliver(&sys, event_of(EVENT_EXTERNAL_INTERRUPT, VECTOR)));
	ASSERT_FAULT(&sys, VECTOR_GP, SELECTOR(GDT_CODE32 + 1, 0) | 1);
}

/* ---- checks of gates and handlers ---- */

/* Which gate types there are (SDM 3A table 3-2): S in bit 4. */
static void gate_types(void **state)
{
	(void)state;
	for (unsigned wide = 0; wide < 2; wide++)
		for (unsigned type = 0; type < 32; type++) {
			bool valid = type == 14 || type == 15 || (!wide && (type == 6 || type == 7));

			if (!wide && type == TYPE_TASK_GATE)
				continue; /* task_test.c */
			system_start(&sys, wide ? SYSTEM_LONG : SYSTEM_PM32, 0);
			idt_put(&sys, VECTOR, SEG_P | type, SELECTOR(handler_index(&sys, 0), 0), 0x9000, 0);
			bool delivered = system_deliver(&sys, event_of(EVENT_SOFTWARE_INTERRUPT, VECTOR));
			assert_int_equal(delivered, valid);
			if (!valid)
				ASSERT_FAULT(&sys, VECTOR_GP, IDT_ERROR(VECTOR, 0));
		}
}

/* Only INT n, INT3 and INTO are held against the gate's DPL; they alone leave EXT clear. */
static void gate_privilege(void **state)
{
	static const struct {
		enum event_kind kind;
		bool software;
	} kinds[] = {
		{EVENT_FAULT, false}, {EVENT_TRAP, false}, {EVENT_SOFTWARE_INTERRUPT, true},
		{EVENT_SOFTWARE_EXCEPTION, true}, {EVENT_PRIVILEGED_SOFTWARE_EXCEPTION, false},
		{EVENT_EXTERNAL_INTERRUPT, false}, {EVENT_NMI, false},
	};

	(void)state;
	for (unsigned k = 0; k < 7; k++)
		for (unsigned n = 0; n < 16; n++) {
			unsigned dpl = n & 3, cpl = n >> 2;
			bool allowed = !kinds[k].software || cpl <= dpl;

			system_start(&sys, SYSTEM_PM32, cpl);
			idt_put(&sys, VECTOR, SEG_P | DPL(dpl) | TYPE_TRAP_GATE, SELECTOR(GDT_CODE32, 0), 0x9000, 0);
			assert_int_equal(system_deliver(&sys, event_of(kinds[k].kind, VECTOR)), allowed);
			if (!allowed)
				ASSERT_FAULT(&sys, VECTOR_GP, IDT_ERROR(VECTOR, 0));
			/* Not present: with EXT as the event's source says. */
			system_start(&sys, SYSTEM_PM32, cpl);
			idt_put(&sys, VECTOR, DPL(3) | TYPE_TRAP_GATE, SELECTOR(GDT_CODE32, 0), 0x9000, 0);
			assert_false(system_deliver(&sys, event_of(kinds[k].kind, VECTOR)));
			ASSERT_FAULT(&sys, VECTOR_NP, IDT_ERROR(VECTOR, !kinds[k].software));
		}
}

static void idt_limit(void **state)
{
	(void)state;
	for (unsigned wide = 0; wide < 2; wide++) {
		unsigned size = wide ? 16 : 8;

		system_start(&sys, wide ? SYSTEM_LONG : SYSTEM_PM32, 0);
		sys.cpu->idtr.limit = (uint16_t)(VECTOR * size + size - 1);
		assert_true(system_deliver(&sys, event_of(EVENT_NMI, VECTOR)));
		system_start(&sys, wide ? SYSTEM_LONG : SYSTEM_PM32, 0);
		sys.cpu->idtr.limit = (uint16_t)(VECTOR * size + size - 2);
		assert_false(system_deliver(&sys, event_of(EVENT_NMI, VECTOR)));
		ASSERT_FAULT(&sys, VECTOR_GP, IDT_ERROR(VECTOR, 1));
	}
}

/* The handler's segment: type × DPL × conforming × CPL (SDM 2A INT n, SDM 3A 6.12.1.1). */
static void handler_segments(void **state)
{
	(void)state;
	for (unsigned wide = 0; wide < 2; wide++)
		for (unsigned n = 0; n < 32 * 16; n++) {
			unsigned type = n & 31, dpl = n >> 5 & 3, cpl = n >> 7;
			bool code = type & SEG_S && type & SEG_CODE;
			bool valid = code && dpl <= cpl;

			system_start(&sys, wide ? SYSTEM_LONG : SYSTEM_PM32, cpl);
			gdt_put(&sys, GDT_FREE, 0, 0xfffff, SEG_P | SEG_G | (wide ? SEG_L : SEG_DB) | type | DPL(dpl));
			idt_put(&sys, VECTOR, SEG_P | TYPE_INTERRUPT_GATE, FREE | 3, 0x9000, 0);
			assert_int_equal(system_deliver(&sys, event_of(EVENT_EXTERNAL_INTERRUPT, VECTOR)), valid);
			if (!valid) {
				ASSERT_FAULT(&sys, VECTOR_GP, FREE | 1);
				continue;
			}
			unsigned new_cpl = type & SEG_CONFORMING ? cpl : dpl;
			assert_int_equal(sys.cpu->cpl, new_cpl);
			assert_int_equal(sys.cpu->segment[CS].s.selector, FREE | new_cpl);
		}
}

static void handler_faults(void **state)
{
	static const struct {
		enum system_mode mode;
		uint32_t attributes, limit;
		uint16_t selector;
		uint64_t offset;
		enum vector vector;
		uint32_t error;
	} rows[] = {
		{SYSTEM_PM32, CODE_ATTRIBUTES | SEG_DB, 0xffff, 3, 0x9000, VECTOR_GP, 1},
		{SYSTEM_LONG, CODE_ATTRIBUTES | SEG_L, 0xffff, 3, 0x9000, VECTOR_GP, 1},
		{SYSTEM_PM32, CODE_ATTRIBUTES | SEG_DB, 0xffff, 0x200, 0x9000, VECTOR_GP, 0x201},
		{SYSTEM_PM32, (CODE_ATTRIBUTES | SEG_DB) & ~SEG_P, 0xffff, FREE, 0x9000, VECTOR_NP, FREE | 1},
		{SYSTEM_PM32, CODE_ATTRIBUTES | SEG_DB, 0xffff, FREE, 0x10000, VECTOR_GP, 1},
		{SYSTEM_LONG, CODE_ATTRIBUTES | SEG_DB, 0xffff, FREE, 0x9000, VECTOR_GP, FREE | 1},
		{SYSTEM_LONG, CODE_ATTRIBUTES, 0xffff, FREE, 0x9000, VECTOR_GP, FREE | 1},
		{SYSTEM_LONG, CODE_ATTRIBUTES | SEG_DB | SEG_L, 0xffff, FREE, 0x9000, VECTOR_GP, FREE | 1},
		{SYSTEM_LONG, CODE_ATTRIBUTES | SEG_L, 0xffff, FREE, 0x800000000000, VECTOR_GP, 1},
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		system_start(&sys, rows[i].mode, 0);
		gdt_put(&sys, GDT_FREE, 0, rows[i].limit, rows[i].attributes);
		gdt_put(&sys, 0, 0, rows[i].limit, rows[i].attributes); /* null is null, whatever stands there */
		idt_put(&sys, VECTOR, SEG_P | TYPE_INTERRUPT_GATE, rows[i].selector, rows[i].offset, 0);
		assert_false(system_deliver(&sys, event_of(EVENT_EXTERNAL_INTERRUPT, VECTOR)));
		ASSERT_FAULT(&sys, rows[i].vector, rows[i].error);
	}
}

/* The stack that the TSS names: #TS and #SS with their selectors (SDM 2A INT n). */
static void inner_stacks(void **state)
{
	static const struct {
		uint32_t attributes;
		uint16_t selector;
		uint32_t tss_limit, esp;
		enum vector vector;
		uint32_t error;
	} rows[] = {
		{DATA_ATTRIBUTES | SEG_DB, FREE, 0x67, 0x1000, 0, 0},
		{DATA_ATTRIBUTES | SEG_DB, FREE, 9, 0x1000, 0, 0},
		{DATA_ATTRIBUTES | SEG_DB, FREE, 8, 0x1000, VECTOR_TS, SELECTOR(GDT_TSS, 0) | 1},
		{DATA_ATTRIBUTES | SEG_DB, 0, 0x67, 0x1000, VECTOR_TS, 1},
		{DATA_ATTRIBUTES | SEG_DB, 0x200, 0x67, 0x1000, VECTOR_TS, 0x201},
		{DATA_ATTRIBUTES | SEG_DB, FREE | 3, 0x67, 0x1000, VECTOR_TS, FREE | 1},
		{DATA_ATTRIBUTES | SEG_DB | DPL(3), FREE, 0x67, 0x1000, VECTOR_TS, FREE | 1},
		{(DATA_ATTRIBUTES | SEG_DB) & ~SEG_WRITABLE, FREE, 0x67, 0x1000, VECTOR_TS, FREE | 1},
		{CODE_ATTRIBUTES | SEG_DB, FREE, 0x67, 0x1000, VECTOR_TS, FREE | 1},
		{(DATA_ATTRIBUTES | SEG_DB) & ~SEG_P, FREE, 0x67, 0x1000, VECTOR_SS, FREE | 1},
		{DATA_ATTRIBUTES | SEG_DB, FREE, 0x67, 20, 0, 0},
		{DATA_ATTRIBUTES | SEG_DB, FREE, 0x67, 19, VECTOR_SS, FREE | 1},
		{DATA_ATTRIBUTES | SEG_DB, FREE, 0x67, 0x10001, VECTOR_SS, FREE | 1},
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		system_start(&sys, SYSTEM_PM32, 3);
		gdt_put(&sys, GDT_FREE, 0x30000, 0xffff, rows[i].attributes);
		gdt_put(&sys, 0, 0x30000, 0xffff, DATA_ATTRIBUTES | SEG_DB);
		put(&sys, TSS_AT + TSS32_SS(0), rows[i].selector, 2);
		put(&sys, TSS_AT + TSS32_ESP(0), rows[i].esp, 4);
		sys.cpu->tr.s.limit = rows[i].tss_limit;
		bool delivered = system_deliver(&sys, event_of(EVENT_EXTERNAL_INTERRUPT, VECTOR));
		assert_int_equal(delivered, !rows[i].vector);
		if (!delivered)
			ASSERT_FAULT(&sys, rows[i].vector, rows[i].error);
	}
	/* A 16-bit TSS holds SP and SS of 16 bits. */
	system_start(&sys, SYSTEM_PM32, 3);
	sys.cpu->tr.s.attributes = SEG_P | TYPE_TSS16_BUSY;
	sys.cpu->tr.s.limit = 5;
	put(&sys, TSS_AT + TSS16_SP(0), 0x8000, 2);
	put(&sys, TSS_AT + TSS16_SS(0), SELECTOR(GDT_DATA32, 0), 2);
	assert_true(system_deliver(&sys, event_of(EVENT_NMI, VECTOR)));
	assert_int_equal(sys.cpu->reg[RSP], 0x8000 - 20);
	system_start(&sys, SYSTEM_PM32, 3);
	sys.cpu->tr.s.attributes = SEG_P | TYPE_TSS16_BUSY;
	sys.cpu->tr.s.limit = 4;
	assert_false(system_deliver(&sys, event_of(EVENT_NMI, VECTOR)));
	ASSERT_FAULT(&sys, VECTOR_TS, SELECTOR(GDT_TSS, 0) | 1);
}

static void inner_stacks_64bit(void **state)
{
	(void)state;
	/* RSP0 or IST beyond the limit; a stack that is not canonical. */
	for (unsigned ist = 0; ist < 2; ist++) {
		unsigned last = (ist ? TSS64_IST(1) : TSS64_RSP(0)) + 7;

		for (unsigned enough = 0; enough < 2; enough++) {
			system_start(&sys, SYSTEM_LONG, 3);
			put(&sys, TSS_AT + TSS64_IST(1), 0x15000, 8);
			idt_put(&sys, VECTOR, SEG_P | TYPE_TRAP_GATE, SELECTOR(GDT_CODE64, 0), 0x9000, ist);
			sys.cpu->tr.s.limit = last - 1 + enough;
			assert_int_equal(system_deliver(&sys, event_of(EVENT_NMI, VECTOR)), enough);
			if (!enough)
				ASSERT_FAULT(&sys, VECTOR_TS, SELECTOR(GDT_TSS, 0) | 1);
		}
		for (unsigned software = 0; software < 2; software++) {
			system_start(&sys, SYSTEM_LONG, 3);
			put(&sys, TSS_AT + TSS64_IST(1), 0x8000000000001000, 8);
			put(&sys, TSS_AT + TSS64_RSP(0), 0x8000000000001000, 8);
			idt_put(&sys, VECTOR, SEG_P | DPL(3) | TYPE_TRAP_GATE, SELECTOR(GDT_CODE64, 0), 0x9000, ist);
			assert_false(system_deliver(
				&sys, event_of(software ? EVENT_SOFTWARE_INTERRUPT : EVENT_NMI, VECTOR)));
			ASSERT_FAULT(&sys, VECTOR_SS, !software);
		}
	}
}

/* A page fault while the frame is written leaves the old state; #PF has no EXT bit. */
static void page_fault_on_the_stack(void **state)
{
	(void)state;
	system_start(&sys, SYSTEM_LONG, 3);
	put(&sys, TSS_AT + TSS64_RSP(0), 0x40001000, 8);
	assert_false(system_deliver(&sys, event_of(EVENT_EXTERNAL_INTERRUPT, VECTOR)));
	ASSERT_FAULT(&sys, VECTOR_PF, PF_W);
	assert_int_equal(sys.cpu->cr2 & ~0xfffull, 0x40000000);
	assert_true(sys.cpu->delivering_depth == 0);
}

/* ---- #DB, RF, INT1 ---- */

static void rf_image(void **state)
{
	static const struct {
		enum event_kind kind;
		uint8_t vector;
		uint64_t dr6_pending;
		bool rf, image;
	} rows[] = {
		{EVENT_FAULT, VECTOR_UD, 0, false, true},
		{EVENT_FAULT, VECTOR_PF, 0, false, true},
		{EVENT_FAULT, VECTOR_DB, DR6_B(0), false, false}, /* instruction breakpoint */
		{EVENT_FAULT, VECTOR_DB, DR6_BD, false, true},    /* general detect */
		{EVENT_TRAP, VECTOR_DB, DR6_BS, false, false},
		{EVENT_EXTERNAL_INTERRUPT, VECTOR, 0, false, false},
		{EVENT_EXTERNAL_INTERRUPT, VECTOR, 0, true, true}, /* between iterations of REP */
		{EVENT_SOFTWARE_INTERRUPT, VECTOR, 0, true, false},
		{EVENT_SOFTWARE_EXCEPTION, VECTOR_BP, 0, true, false},
		{EVENT_PRIVILEGED_SOFTWARE_EXCEPTION, VECTOR_DB, 0, true, false},
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		system_start(&sys, SYSTEM_LONG, 0);
		sys.cpu->dr6_pending = rows[i].dr6_pending;
		sys.cpu->dr7 |= DR7_GD;
		sys.cpu->dr6 = DR6_FIXED_1 | DR6_B(3) | DR6_BT;
		rflags_set(sys.cpu, rows[i].rf ? RFLAGS_RF : 0, RFLAGS_RF);
		assert_true(system_deliver(&sys, event_of(rows[i].kind, rows[i].vector)));
		bool error = rows[i].kind == EVENT_FAULT && vector_has_error_code(rows[i].vector);
		uint64_t flags = get(&sys, sys.cpu->reg[RSP] + (error ? 24 : 16), 8);
		assert_int_equal(!!(flags & RFLAGS_RF), rows[i].image);
		bool debug = rows[i].dr6_pending;
		assert_int_equal(sys.cpu->dr6, debug ? DR6_FIXED_1 | DR6_BT | rows[i].dr6_pending
						     : DR6_FIXED_1 | DR6_B(3) | DR6_BT);
		assert_int_equal(!!(sys.cpu->dr7 & DR7_GD), !debug);
		assert_int_equal(sys.cpu->dr6_pending, 0);
		assert_int_equal(rflags_get(sys.cpu) & RFLAGS_RF, 0);
	}
}

/* ---- INT n, INT3, INTO, INT1 as instructions ---- */

static void software_interrupts(void **state)
{
	static const struct {
		uint8_t code[2];
		uint64_t rflags;
		int vector;
		unsigned length;
	} rows[] = {
		{{0xcd, VECTOR}, 0, VECTOR, 2}, {{0xcc}, 0, VECTOR_BP, 1}, {{0xce}, RFLAGS_OF, VECTOR_OF, 1},
		{{0xce}, 0, -1, 1}, {{0xf1}, 0, VECTOR_DB, 1},
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		for (unsigned dpl = 0; dpl < 4; dpl += 3) {
			bool privileged = rows[i].code[0] == 0xf1 || dpl == 3;

			system_start(&sys, SYSTEM_PM32, 3);
			if (rows[i].vector >= 0)
				idt_put(&sys, (unsigned)rows[i].vector, SEG_P | DPL(dpl) | TYPE_TRAP_GATE,
					SELECTOR(GDT_CODE32, 0), 0x9000, 0);
			rflags_set(sys.cpu, rows[i].rflags, RFLAGS_OF);
			system_run(&sys, rows[i].code, 2);
			if (rows[i].vector < 0) {
				ASSERT_RUNS(&sys);
				assert_int_equal(sys.cpu->rip, CODE_AT + 1);
			} else if (privileged) {
				assert_int_equal(sys.event[0].return_rip, CODE_AT + rows[i].length);
				assert_int_equal(sys.cpu->rip, 0x9000);
			} else {
				assert_int_equal(sys.event[1].vector, VECTOR_GP);
				assert_int_equal(sys.event[1].error_code, IDT_ERROR((uint32_t)rows[i].vector, 0));
				assert_int_equal(sys.event[1].return_rip, CODE_AT);
			}
		}
}

/* SDM 3A table 20-2: the six methods of INT n in virtual-8086 mode. */
static void int_in_vm86(void **state)
{
	(void)state;
	for (unsigned n = 0; n < 16; n++) {
		bool vme = n & 1, high = n & 2, bit = n & 4, vif = n & 8;
		uint64_t flags = (high ? RFLAGS_IOPL : 0) | (vif ? RFLAGS_VIF : 0) | (vif ? 0 : RFLAGS_IF);

		system_start(&sys, SYSTEM_VM86, 3);
		sys.cpu->cr4 = vme ? CR4_VME : 0;
		put(&sys, TSS_AT + 0x90 - 32 + VECTOR / 8, bit ? 1u << VECTOR % 8 : 0, 1);
		put(&sys, VECTOR * 4, 0x0222 | 0x0333 << 16, 4);
		idt_put(&sys, VECTOR, SEG_P | DPL(3) | TYPE_INTERRUPT_GATE, SELECTOR(GDT_CODE32, 0), 0x9000, 0);
		rflags_set(sys.cpu, flags, RFLAGS_IOPL | RFLAGS_VIF | RFLAGS_IF);
		RUN(&sys, 0xcd, VECTOR);
		if (vme && !bit) { /* methods 5 and 6 */
			uint64_t image = RFLAGS_FIXED | RFLAGS_IOPL;

			ASSERT_RUNS(&sys);
			image |= (high ? !vif : vif) ? RFLAGS_IF : 0;
			assert_int_equal(sys.cpu->rip, 0x222);
			assert_int_equal(sys.cpu->segment[CS].s.selector, 0x333);
			assert_int_equal(sys.cpu->reg[RSP], (STACK_AT & 0xffff) - 6);
			uint64_t frame = 0x10000 + sys.cpu->reg[RSP];
			assert_int_equal(get(&sys, frame, 2), 2);
			assert_int_equal(get(&sys, frame + 2, 2), CODE_AT >> 4);
			assert_int_equal(get(&sys, frame + 4, 2), image);
			flags &= high ? ~(uint64_t)RFLAGS_IF : ~(uint64_t)RFLAGS_VIF;
			assert_int_equal(rflags_get(sys.cpu), RFLAGS_FIXED | RFLAGS_VM | flags);
		} else if (high) { /* methods 1 and 4 */
			assert_int_equal(sys.event[0].vector, VECTOR);
			assert_int_equal(sys.cpu->rip, 0x9000);
		} else { /* methods 2 and 3 */
			ASSERT_FAULT(&sys, VECTOR_GP, 0);
		}
	}
	/* INT3 is not IOPL-sensitive (SDM 3A 20.2.7). */
	system_start(&sys, SYSTEM_VM86, 3);
	idt_put(&sys, 3, SEG_P | DPL(3) | TYPE_INTERRUPT_GATE, SELECTOR(GDT_CODE32, 0), 0x9000, 0);
	RUN(&sys, 0xcc);
	assert_int_equal(sys.cpu->rip, 0x9000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(combinations),
		cmocka_unit_test(double_and_triple_fault),
		cmocka_unit_test(real_mode),
		cmocka_unit_test(protected_gates),
		cmocka_unit_test(long_mode),
		cmocka_unit_test(from_vm86),
		cmocka_unit_test(gate_types),
		cmocka_unit_test(gate_privilege),
		cmocka_unit_test(idt_limit),
		cmocka_unit_test(handler_segments),
		cmocka_unit_test(handler_faults),
		cmocka_unit_test(inner_stacks),
		cmocka_unit_test(inner_stacks_64bit),
		cmocka_unit_test(page_fault_on_the_stack),
		cmocka_unit_test(rf_image),
		cmocka_unit_test(software_interrupts),
		cmocka_unit_test(int_in_vm86),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
