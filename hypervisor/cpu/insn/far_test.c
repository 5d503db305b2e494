/* far_test.c: far JMP, CALL and RET, by SDM 2A CALL and JMP, SDM 2B RET and SDM 3A 5.8. */
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

#define FREE   SELECTOR(GDT_FREE, 0)
#define GATE   SELECTOR(GDT_FREE + 2, 0)
#define TARGET 0x9000u

enum far_kind { FAR_JMP, FAR_CALL };

/* JMP or CALL m16:32 at [rbx], which every mode has. */
static void far_to(enum far_kind kind, uint16_t selector, uint32_t offset)
{
	put(&sys, DATA_AT, offset, 4);
	put(&sys, DATA_AT + 4, selector, 2);
	sys.cpu->reg[RBX] = DATA_AT;
	RUN(&sys, 0xff, kind == FAR_CALL ? 0x1b : 0x2b);
}

static uint32_t size_bits(enum system_mode mode) { return mode == SYSTEM_LONG ? SEG_L : SEG_DB; }

/* Straight to code: type × DPL × RPL × CPL (SDM 3A 5.8.1, table 5-1 of the text). */
static void direct_by_type_and_privilege(void **state)
{
	(void)state;
	for (unsigned n = 0; n < 16 * 64 * 4; n++) {
		unsigned type = 0x10 | (n & 15), dpl = n >> 4 & 3, rpl = n >> 6 & 3, cpl = n >> 8 & 3;
		enum far_kind kind = n >> 10 & 1 ? FAR_CALL : FAR_JMP;
		enum system_mode mode = n >> 11 ? SYSTEM_LONG : SYSTEM_PM32;
		bool conforming = type & SEG_CONFORMING;
		bool allowed = type & SEG_CODE && (conforming ? dpl <= cpl : dpl == cpl && rpl <= cpl);

		system_start(&sys, mode, cpl);
		gdt_put(&sys, GDT_FREE, 0, 0xfffff, SEG_P | SEG_G | size_bits(mode) | type | DPL(dpl));
		far_to(kind, (uint16_t)(FREE | rpl), TARGET);
		if (!allowed) {
			ASSERT_FAULT(&sys, VECTOR_GP, FREE);
			continue;
		}
		ASSERT_RUNS(&sys);
		assert_int_equal(sys.cpu->rip, TARGET);
		assert_int_equal(sys.cpu->segment[CS].s.selector, FREE | cpl);
		assert_int_equal(sys.cpu->cpl, cpl);
		assert_int_equal(get(&sys, GDT_AT + FREE + 5, 1) & SEG_ACCESSED, SEG_ACCESSED);
		assert_int_equal(sys.cpu->reg[RSP], STACK_AT - (kind == FAR_CALL ? 8 : 0));
		if (kind == FAR_CALL) {
			assert_int_equal(get(&sys, STACK_AT - 8, 4), CODE_AT + 2);
			assert_int_equal(get(&sys, STACK_AT - 4, 4), sys.before.segment[CS].selector);
		}
	}
}

static void direct_faults(void **state)
{
	static const struct {
		enum system_mode mode;
		uint32_t attributes, offset;
		uint16_t selector;
		enum vector vector;
		uint32_t error;
	} rows[] = {
		{SYSTEM_PM32, CODE_ATTRIBUTES | SEG_DB, TARGET, 0, VECTOR_GP, 0},
		{SYSTEM_PM32, CODE_ATTRIBUTES | SEG_DB, TARGET, 0x203, VECTOR_GP, 0x200},
		{SYSTEM_PM32, (CODE_ATTRIBUTES | SEG_DB) & ~SEG_P, TARGET, FREE, VECTOR_NP, FREE},
		{SYSTEM_PM32, CODE_ATTRIBUTES | SEG_DB, 0x10000, FREE, VECTOR_GP, 0},
		{SYSTEM_LONG, CODE_ATTRIBUTES | SEG_DB | SEG_L, TARGET, FREE, VECTOR_GP, FREE},
		{SYSTEM_LONG, CODE_ATTRIBUTES | SEG_DB, 0x10000, FREE, VECTOR_GP, 0},
		{SYSTEM_LONG, SEG_P | TYPE_TASK_GATE, TARGET, FREE, VECTOR_GP, FREE},
		{SYSTEM_LONG, SEG_P | TYPE_TSS_AVAILABLE, TARGET, FREE, VECTOR_GP, FREE},
		{SYSTEM_LONG, SEG_P | TYPE_CALL_GATE16, TARGET, FREE, VECTOR_GP, FREE},
		{SYSTEM_PM32, SEG_P | TYPE_LDT, TARGET, FREE, VECTOR_GP, FREE},
		{SYSTEM_PM32, SEG_P | TYPE_INTERRUPT_GATE, TARGET, FREE, VECTOR_GP, FREE},
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		for (enum far_kind kind = FAR_JMP; kind <= FAR_CALL; kind++) {
			system_start(&sys, rows[i].mode, 0);
			gdt_put(&sys, GDT_FREE, 0, 0xffff, rows[i].attributes);
			gdt_put(&sys, 0, 0, 0xffff, CODE_ATTRIBUTES | SEG_DB);
			far_to(kind, rows[i].selector, rows[i].offset);
			ASSERT_FAULT(&sys, rows[i].vector, rows[i].error);
		}
	/* A return frame that does not fit: #SS(0), and CS stays. */
	system_start(&sys, SYSTEM_PM32, 0);
	gdt_put(&sys, GDT_FREE, 0, 0xfffff, CODE_ATTRIBUTES | SEG_G | SEG_DB);
	sys.cpu->segment[SS].s.limit = STACK_AT - 2;
	segment_derive(sys.cpu, SS);
	far_to(FAR_CALL, FREE, TARGET);
	assert_int_equal(sys.event[0].vector, VECTOR_SS);
	assert_int_equal(sys.event[0].error_code, 0);
}

/* 64-bit code reaches compatibility mode, and that 64-bit mode, by a far JMP. */
static void changes_of_mode(void **state)
{
	(void)state;
	system_start(&sys, SYSTEM_LONG, 0);
	far_to(FAR_JMP, SELECTOR(GDT_CODE32, 0), TARGET);
	ASSERT_RUNS(&sys);
	assert_int_equal(sys.cpu->code_mode & CODE_SIZE, CODE_32);
	system_start(&sys, SYSTEM_COMPAT, 3);
	far_to(FAR_JMP, SELECTOR(GDT_CODE64 + 3, 3), TARGET);
	ASSERT_RUNS(&sys);
	assert_int_equal(sys.cpu->code_mode & CODE_SIZE, CODE_64);
}

/* m16:64 with REX.W on Intel alone (APM 3 JMP (Far)). */
static void operand_of_64_bits(void **state)
{
	(void)state;
	for (unsigned amd = 0; amd < 2; amd++) {
		struct system s;

		system_open(&s, amd ? "amd" : "intel");
		system_start(&s, SYSTEM_LONG, 0);
		put(&s, DATA_AT, 0x123456789000, 8);
		put(&s, DATA_AT + (amd ? 4 : 8), SELECTOR(GDT_CODE64, 0), 2);
		s.cpu->reg[RBX] = DATA_AT;
		RUN(&s, 0x48, 0xff, 0x2b);
		ASSERT_RUNS(&s);
		assert_int_equal(s.cpu->rip, amd ? 0x56789000 : 0x123456789000);
		put(&s, DATA_AT, 0x1000000000000000, 8);
		s.cpu->rip = CODE_AT;
		RUN(&s, 0x48, 0xff, 0x2b);
		if (amd)
			ASSERT_FAULT(&s, VECTOR_GP, 0); /* the selector is null */
		else
			ASSERT_FAULT(&s, VECTOR_GP, 0); /* not canonical */
		system_close(&s);
	}
}

static void real_mode(void **state)
{
	(void)state;
	for (enum system_mode mode = SYSTEM_REAL; mode <= SYSTEM_VM86; mode++) {
		system_start(&sys, mode, 0);
		RUN(&sys, 0x9a, 0x34, 0x12, 0xcd, 0xab);
		ASSERT_RUNS(&sys);
		assert_int_equal(sys.cpu->rip, 0x1234);
		assert_int_equal(sys.cpu->segment[CS].s.base, 0xabcd0);
		assert_int_equal(get(&sys, 0x10000 + (STACK_AT & 0xffff) - 4, 4), 5 | (CODE_AT >> 4) << 16);
		system_start(&sys, mode, 0);
		RUN(&sys, 0x66, 0xea, 0, 0, 1, 0, 0, 0); /* EIP = 10000h */
		ASSERT_FAULT(&sys, VECTOR_GP, 0);
		system_start(&sys, mode, 0);
		put(&sys, 0x10000 + (STACK_AT & 0xffff), 0x1234 | 0x5678u << 16, 4);
		RUN(&sys, 0xca, 6, 0);
		ASSERT_RUNS(&sys);
		assert_int_equal(sys.cpu->rip, 0x1234);
		assert_int_equal(sys.cpu->segment[CS].s.selector, 0x5678);
		assert_int_equal(sys.cpu->reg[RSP], (STACK_AT & 0xffff) + 10);
		system_start(&sys, mode, 0);
		put(&sys, 0x10000 + (STACK_AT & 0xffff), 0x10000, 4);
		RUN(&sys, 0x66, 0xcb);
		ASSERT_FAULT(&sys, VECTOR_GP, 0);
	}
}

/* ---- call gates ---- */

static void call_gate(uint32_t attributes, uint16_t selector, uint64_t offset, unsigned parameters)
{
	gate_put(&sys, GDT_AT + GATE, system_wide(&sys), attributes, selector, offset, parameters);
}

/* Gate DPL × RPL × CPL, then code DPL × conforming × CPL (SDM 3A 5.8.4, table 5-1). */
static void gate_privilege(void **state)
{
	(void)state;
	for (unsigned n = 0; n < 256; n++) {
		unsigned dpl = n & 3, rpl = n >> 2 & 3, cpl = n >> 4 & 3;
		enum far_kind kind = n >> 6 & 1 ? FAR_CALL : FAR_JMP;
		enum system_mode mode = n >> 7 ? SYSTEM_LONG : SYSTEM_PM32;

		system_start(&sys, mode, cpl);
		call_gate(SEG_P | TYPE_CALL_GATE | DPL(dpl), SELECTOR(handler_index(&sys, cpl), 0), TARGET, 0);
		far_to(kind, (uint16_t)(GATE | rpl), 0xdead);
		if (cpl <= dpl && rpl <= dpl)
			ASSERT_RUNS(&sys);
		else
			ASSERT_FAULT(&sys, VECTOR_GP, GATE);
	}
	for (unsigned n = 0; n < 16 * 16 * 4; n++) {
		unsigned type = 0x10 | (n & 15), dpl = n >> 4 & 3, cpl = n >> 6 & 3;
		enum far_kind kind = n >> 8 & 1 ? FAR_CALL : FAR_JMP;
		enum system_mode mode = n >> 9 ? SYSTEM_LONG : SYSTEM_PM32;
		bool conforming = type & SEG_CONFORMING;
		bool allowed = type & SEG_CODE && dpl <= cpl && (kind == FAR_CALL || conforming || dpl == cpl);

		system_start(&sys, mode, cpl);
		gdt_put(&sys, GDT_FREE, 0, 0xfffff, SEG_P | SEG_G | size_bits(mode) | type | DPL(dpl));
		call_gate(SEG_P | TYPE_CALL_GATE | DPL(3), FREE | 3, TARGET, 0);
		far_to(kind, GATE, 0xdead);
		if (!allowed) {
			ASSERT_FAULT(&sys, VECTOR_GP, FREE);
			continue;
		}
		ASSERT_RUNS(&sys);
		assert_int_equal(sys.cpu->rip, TARGET);
		assert_int_equal(sys.cpu->cpl, conforming ? cpl : dpl);
		assert_int_equal(sys.cpu->segment[CS].s.selector, FREE | (conforming ? cpl : dpl));
	}
}

static void gate_faults(void **state)
{
	static const struct {
		enum system_mode mode;
		uint32_t gate, code;
		uint16_t selector;
		uint64_t offset;
		enum vector vector;
		uint32_t error;
	} rows[] = {
		{SYSTEM_PM32, TYPE_CALL_GATE, CODE_ATTRIBUTES | SEG_DB, FREE, TARGET, VECTOR_NP, GATE},
		{SYSTEM_PM32, SEG_P | TYPE_CALL_GATE, CODE_ATTRIBUTES | SEG_DB, 3, TARGET, VECTOR_GP, 0},
		{SYSTEM_PM32, SEG_P | TYPE_CALL_GATE, CODE_ATTRIBUTES | SEG_DB, 0x200, TARGET, VECTOR_GP, 0x200},
		{SYSTEM_PM32, SEG_P | TYPE_CALL_GATE, CODE_ATTRIBUTES & ~SEG_P, FREE, TARGET, VECTOR_NP, FREE},
		{SYSTEM_PM32, SEG_P | TYPE_CALL_GATE, CODE_ATTRIBUTES, FREE, 0x10000, VECTOR_GP, 0},
		{SYSTEM_LONG, SEG_P | TYPE_CALL_GATE, CODE_ATTRIBUTES | SEG_DB, FREE, TARGET, VECTOR_GP, FREE},
		{SYSTEM_LONG, SEG_P | TYPE_CALL_GATE, CODE_ATTRIBUTES | SEG_DB | SEG_L, FREE, TARGET, VECTOR_GP, FREE},
		{SYSTEM_LONG, SEG_P | TYPE_CALL_GATE, CODE_ATTRIBUTES | SEG_L, FREE, 0x800000000000, VECTOR_GP, 0},
		/* The type field of the upper half. */
		{SYSTEM_LONG, SEG_P | TYPE_CALL_GATE, CODE_ATTRIBUTES | SEG_L, FREE, TARGET, VECTOR_GP, GATE},
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		system_start(&sys, rows[i].mode, 0);
		gdt_put(&sys, GDT_FREE, 0, 0xffff, rows[i].code);
		gdt_put(&sys, 0, 0, 0xffff, CODE_ATTRIBUTES | SEG_DB);
		call_gate(rows[i].gate, rows[i].selector, rows[i].offset, 0);
		if (i == 8)
			put(&sys, GDT_AT + GATE + 12, 0x100, 4);
		far_to(FAR_CALL, GATE, 0);
		ASSERT_FAULT(&sys, rows[i].vector, rows[i].error);
	}
	/* The table ends within the gate's upper half. */
	system_start(&sys, SYSTEM_LONG, 0);
	call_gate(SEG_P | TYPE_CALL_GATE, SELECTOR(GDT_CODE64, 0), TARGET, 0);
	sys.cpu->gdtr.limit = GATE + 14;
	far_to(FAR_CALL, GATE, 0);
	ASSERT_FAULT(&sys, VECTOR_GP, GATE);
}

/* To an inner privilege: old SS:SP, parameters in their order, CS:IP (SDM 3A figure 5-14). */
static void gate_frames(void **state)
{
	(void)state;
	for (unsigned n = 0; n < 6; n++) {
		static const unsigned counts[] = {0, 3, 31};
		unsigned width = n & 1 ? 2 : 4, parameters = counts[n >> 1];
		uint64_t at;

		system_start(&sys, SYSTEM_PM32, 3);
		call_gate(SEG_P | DPL(3) | (n & 1 ? TYPE_CALL_GATE16 : TYPE_CALL_GATE), SELECTOR(GDT_CODE32 + 1, 0),
			  TARGET, parameters);
		for (unsigned i = 0; i < parameters; i++)
			put(&sys, STACK_AT + i * width, 0x1000 + i, width);
		far_to(FAR_CALL, GATE | 3, 0);
		ASSERT_RUNS(&sys);
		at = INNER_AT(1) - (4 + parameters) * width;
		assert_int_equal(sys.cpu->reg[RSP], at);
		assert_int_equal(sys.cpu->cpl, 1);
		assert_int_equal(sys.cpu->segment[SS].s.selector, SELECTOR(GDT_DATA32 + 1, 1));
		assert_int_equal(sys.cpu->segment[CS].s.selector, SELECTOR(GDT_CODE32 + 1, 1));
		assert_int_equal(get(&sys, at, width), CODE_AT + 2);
		assert_int_equal(get(&sys, at + width, width), SELECTOR(GDT_CODE32 + 3, 3));
		for (unsigned i = 0; i < parameters; i++)
			assert_int_equal(get(&sys, at + (2 + i) * width, width), 0x1000 + i);
		assert_int_equal(get(&sys, at + (2 + parameters) * width, width),
				 STACK_AT & (width == 2 ? 0xffff : 0xffffffff));
		assert_int_equal(get(&sys, at + (3 + parameters) * width, width), SELECTOR(GDT_DATA32 + 3, 3));
	}
	for (unsigned compat = 0; compat < 2; compat++) {
		static const uint64_t frame[] = {CODE_AT + 2, 0, STACK_AT, SELECTOR(GDT_DATA32 + 3, 3)};

		system_start(&sys, compat ? SYSTEM_COMPAT : SYSTEM_LONG, 3);
		call_gate(SEG_P | DPL(3) | TYPE_CALL_GATE, SELECTOR(GDT_CODE64, 0), 0x123456789000, 7);
		far_to(FAR_CALL, GATE | 3, 0);
		ASSERT_RUNS(&sys);
		assert_int_equal(sys.cpu->rip, 0x123456789000);
		assert_int_equal(sys.cpu->segment[SS].s.selector, 0);
		assert_int_equal(sys.cpu->reg[RSP], INNER_AT(0) - 32);
		for (unsigned i = 0; i < 4; i++)
			assert_int_equal(get(&sys, INNER_AT(0) - 32 + 8 * i, 8),
					 i == 1 ? sys.before.segment[CS].selector : frame[i]);
	}
	/* The same privilege through a 64-bit gate: 8-byte pushes. */
	system_start(&sys, SYSTEM_COMPAT, 0);
	call_gate(SEG_P | TYPE_CALL_GATE, SELECTOR(GDT_CODE64, 0), TARGET, 0);
	far_to(FAR_CALL, GATE, 0);
	ASSERT_RUNS(&sys);
	assert_int_equal(sys.cpu->reg[RSP], STACK_AT - 16);
	assert_int_equal(get(&sys, STACK_AT - 16, 8), CODE_AT + 2);
}

/* ---- RET ---- */

static void far_return(unsigned width, uint16_t cs, uint64_t rip, uint16_t ss, uint64_t rsp)
{
	put(&sys, STACK_AT, rip, width);
	put(&sys, STACK_AT + width, cs, width);
	put(&sys, STACK_AT + 2 * width, rsp, width);
	put(&sys, STACK_AT + 3 * width, ss, width);
	if (width == 8)
		RUN(&sys, 0x48, 0xcb);
	else
		RUN(&sys, 0xcb);
}

/* Type × DPL × RPL × CPL of the return CS (SDM 2B RET). */
static void return_by_type_and_privilege(void **state)
{
	(void)state;
	for (unsigned n = 0; n < 16 * 64 * 2; n++) {
		unsigned type = 0x10 | (n & 15), dpl = n >> 4 & 3, rpl = n >> 6 & 3, cpl = n >> 8 & 3;
		enum system_mode mode = n >> 10 ? SYSTEM_LONG : SYSTEM_PM32;
		bool conforming = type & SEG_CONFORMING;
		bool allowed = type & SEG_CODE && rpl >= cpl && (conforming ? dpl <= rpl : dpl == rpl);

		system_start(&sys, mode, cpl);
		gdt_put(&sys, GDT_FREE, 0, 0xfffff, SEG_P | SEG_G | size_bits(mode) | type | DPL(dpl));
		far_return(mode == SYSTEM_LONG ? 8 : 4, (uint16_t)(FREE | rpl), TARGET, SELECTOR(GDT_DATA32 + rpl, rpl),
			   0x7000);
		if (!allowed) {
			ASSERT_FAULT(&sys, VECTOR_GP, FREE);
			continue;
		}
		ASSERT_RUNS(&sys);
		assert_int_equal(sys.cpu->cpl, rpl);
		assert_int_equal(sys.cpu->segment[CS].s.selector, FREE | rpl);
		assert_int_equal(sys.cpu->rip, TARGET);
		if (rpl == cpl)
			assert_int_equal(sys.cpu->reg[RSP], STACK_AT + (mode == SYSTEM_LONG ? 16 : 8));
		else
			assert_int_equal(sys.cpu->reg[RSP], 0x7000);
	}
}

static void return_faults(void **state)
{
	static const struct {
		enum system_mode mode;
		uint32_t code, stack;
		uint16_t cs, ss;
		uint64_t rip;
		enum vector vector;
		uint32_t error;
	} rows[] = {
#define CODE3 (CODE_ATTRIBUTES | DPL(3))
#define DATA3 (DATA_ATTRIBUTES | DPL(3))
#define CS3   (FREE | 3)
#define SS3   (SELECTOR(GDT_FREE + 1, 3))
		{SYSTEM_PM32, CODE3, DATA3, CS3, SS3, TARGET, 0, 0},
		{SYSTEM_PM32, CODE3, DATA3, 3, SS3, TARGET, VECTOR_GP, 0},
		{SYSTEM_PM32, CODE3, DATA3, 0x203, SS3, TARGET, VECTOR_GP, 0x200},
		{SYSTEM_PM32, CODE3 & ~SEG_P, DATA3, CS3, SS3, TARGET, VECTOR_NP, FREE},
		{SYSTEM_PM32, CODE3, DATA3, CS3, SS3, 0x10000, VECTOR_GP, 0},
		{SYSTEM_PM32, CODE3, DATA3, CS3, 3, TARGET, VECTOR_GP, 0},
		{SYSTEM_PM32, CODE3, DATA3, CS3, 0x203, TARGET, VECTOR_GP, 0x200},
		{SYSTEM_PM32, CODE3, DATA3, CS3, SS3 & ~3, TARGET, VECTOR_GP, SS3 & ~3},
		{SYSTEM_PM32, CODE3, DATA_ATTRIBUTES, CS3, SS3, TARGET, VECTOR_GP, SS3 & ~3},
		{SYSTEM_PM32, CODE3, DATA3 & ~SEG_WRITABLE, CS3, SS3, TARGET, VECTOR_GP, SS3 & ~3},
		{SYSTEM_PM32, CODE3, CODE3, CS3, SS3, TARGET, VECTOR_GP, SS3 & ~3},
		{SYSTEM_PM32, CODE3, DATA3 & ~SEG_P, CS3, SS3, TARGET, VECTOR_SS, SS3 & ~3},
		{SYSTEM_LONG, CODE3 | SEG_L | SEG_DB, DATA3, CS3, SS3, TARGET, VECTOR_GP, FREE},
		{SYSTEM_LONG, CODE3 | SEG_L, DATA3, CS3, SS3, 0x800000000000, VECTOR_GP, 0},
		/* A null SS: never at CPL 3, nor for compatibility mode. */
		{SYSTEM_LONG, CODE3 | SEG_L, DATA3, CS3, 3, TARGET, VECTOR_GP, 0},
		{SYSTEM_LONG, CODE_ATTRIBUTES | DPL(1), DATA3, FREE | 1, 1, TARGET, VECTOR_GP, 0},
		{SYSTEM_LONG, CODE_ATTRIBUTES | DPL(1) | SEG_L, DATA3, FREE | 1, 1, TARGET, 0, 0},
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		system_start(&sys, rows[i].mode, 0);
		gdt_put(&sys, GDT_FREE, 0, 0xffff, rows[i].code);
		gdt_put(&sys, GDT_FREE + 1, 0, 0xffff, rows[i].stack);
		gdt_put(&sys, 0, 0, 0xffff, rows[i].cs & SELECTOR_INDEX ? DATA3 : CODE3);
		far_return(rows[i].mode == SYSTEM_LONG ? 8 : 4, rows[i].cs, rows[i].rip, rows[i].ss, 0x7000);
		if (rows[i].vector)
			ASSERT_FAULT(&sys, rows[i].vector, rows[i].error);
		else
			ASSERT_RUNS(&sys);
	}
}

/* Parameters are released on both stacks; data segments of the inner level become null. */
static void return_outwards(void **state)
{
	(void)state;
	system_start(&sys, SYSTEM_PM32, 0);
	segment_load(sys.cpu, DS, SELECTOR(GDT_DATA32, 0));
	segment_load(sys.cpu, ES, SELECTOR(GDT_DATA32 + 3, 0));
	segment_load(sys.cpu, FS, SELECTOR(GDT_CONFORMING, 0));
	segment_load(sys.cpu, GS, SELECTOR(GDT_CODE32 + 1, 0));
	put(&sys, STACK_AT, TARGET, 4);
	put(&sys, STACK_AT + 4, SELECTOR(GDT_CODE32 + 3, 3), 4);
	put(&sys, STACK_AT + 8 + 12, 0x7000, 4);
	put(&sys, STACK_AT + 8 + 16, SELECTOR(GDT_DATA32 + 3, 3), 4);
	RUN(&sys, 0xca, 12, 0);
	ASSERT_RUNS(&sys);
	assert_int_equal(sys.cpu->reg[RSP], 0x7000 + 12);
	assert_int_equal(sys.cpu->segment[DS].s.selector, 0);
	assert_true(sys.cpu->segment[DS].s.attributes & SEG_UNUSABLE);
	assert_int_equal(sys.cpu->segment[ES].s.selector, SELECTOR(GDT_DATA32 + 3, 0));
	assert_int_equal(sys.cpu->segment[FS].s.selector, SELECTOR(GDT_CONFORMING, 0));
	assert_int_equal(sys.cpu->segment[GS].s.selector, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(direct_by_type_and_privilege),
		cmocka_unit_test(direct_faults),
		cmocka_unit_test(changes_of_mode),
		cmocka_unit_test(operand_of_64_bits),
		cmocka_unit_test(real_mode),
		cmocka_unit_test(gate_privilege),
		cmocka_unit_test(gate_faults),
		cmocka_unit_test(gate_frames),
		cmocka_unit_test(return_by_type_and_privilege),
		cmocka_unit_test(return_faults),
		cmocka_unit_test(return_outwards),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
