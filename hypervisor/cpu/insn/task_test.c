/* task_test.c: task switches and the bitmaps of the TSS, by SDM 3A chapter 8 and SDM 1 19.5.2. */
#include "cpu/system_test.h"
#include "cpu/tss.h"

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

#define TASK_B  SELECTOR(GDT_TSS_B, 0)
#define FREE    SELECTOR(GDT_FREE, 0)
#define TARGET  0x9000u
#define STACK_B 0x7000u

enum source { BY_JMP, BY_CALL, BY_IRET, BY_GATE, BY_JMP_GATE };
#define VECTOR 0x41

/* A second task of privilege 0, in a TSS of 16 or 32 bits. */
static void prepare(bool narrow, enum source source)
{
	unsigned type = narrow ? TYPE_TSS16_AVAILABLE : TYPE_TSS_AVAILABLE;

	system_start(&sys, SYSTEM_PM32, 0);
	gdt_put(&sys, GDT_TSS_B, TSS_B_AT, narrow ? TSS16_SIZE - 1 : TSS32_SIZE - 1,
		SEG_P | type | (source == BY_IRET ? 2 : 0));
	for (unsigned i = 0; i < 8; i++)
		put(&sys, TSS_B_AT + (narrow ? TSS16_GPR + 2 * i : TSS32_GPR + 4 * i), i == RSP ? STACK_B : 0x1110 + i,
		    narrow ? 2 : 4);
	for (unsigned i = ES; i <= (unsigned)(narrow ? DS : GS); i++)
		put(&sys, TSS_B_AT + (narrow ? TSS16_SEG + 2 * i : TSS32_SEG + 4 * i),
		    i == CS ? SELECTOR(GDT_CODE32, 0) : SELECTOR(GDT_DATA32, 0), 2);
	put(&sys, TSS_B_AT + (narrow ? TSS16_IP : TSS32_EIP), TARGET, narrow ? 2 : 4);
	put(&sys, TSS_B_AT + (narrow ? TSS16_FLAGS : TSS32_EFLAGS), RFLAGS_CF | RFLAGS_FIXED, 2);
	put(&sys, TSS_B_AT + (narrow ? TSS16_LDT : TSS32_LDT), SELECTOR(GDT_LDT, 0), 2);
	put(&sys, TSS_AT + TSS32_LINK, TASK_B, 2);
	gdt_put(&sys, GDT_FREE, 0, 0, SEG_P | TYPE_TASK_GATE);
	put(&sys, GDT_AT + FREE + 2, TASK_B, 2);
	idt_put(&sys, VECTOR, SEG_P | TYPE_TASK_GATE, TASK_B, 0, 0);
	for (unsigned i = 0; i < 8; i++)
		if (i != RSP)
			sys.cpu->reg[i] = 0x22220 + i;
	rflags_set(sys.cpu, RFLAGS_ZF | (source == BY_IRET ? RFLAGS_NT : 0), RFLAGS_ZF | RFLAGS_NT);
}

static void go(enum source source)
{
	uint16_t to = source == BY_JMP_GATE ? FREE : TASK_B;

	switch (source) {
	case BY_JMP:
	case BY_JMP_GATE: RUN(&sys, 0xea, 0, 0, 0, 0, (uint8_t)to, (uint8_t)(to >> 8)); break;
	case BY_CALL: RUN(&sys, 0x9a, 0, 0, 0, 0, (uint8_t)to, (uint8_t)(to >> 8)); break;
	case BY_IRET: RUN(&sys, 0xcf); break;
	case BY_GATE: RUN(&sys, 0xcd, VECTOR); break;
	}
}

static unsigned type_of(unsigned index) { return get(&sys, GDT_AT + 8 * index + 5, 1) & 15; }

/* SDM 3A table 8-2: busy bits, NT and links by what caused the switch; the state of both tasks. */
static void by_source(void **state)
{
	(void)state;
	for (unsigned n = 0; n < 10; n++) {
		bool narrow = n & 1;
		enum source source = (enum source)(n >> 1);
		bool nests = source == BY_CALL || source == BY_GATE;
		static const unsigned lengths[] = {7, 7, 1, 2, 7};

		prepare(narrow, source);
		sys.cpu->dr7 = DR7_FIXED_1 | DR7_L(0) | DR7_G(1) | DR7_LE;
		go(source);
		assert_int_equal(sys.events, source == BY_GATE);
		assert_int_equal(sys.cpu->rip, TARGET);
		for (unsigned i = 0; i < 8; i++)
			assert_int_equal(sys.cpu->reg[i], i == RSP ? STACK_B : 0x1110 + i);
		assert_int_equal(rflags_get(sys.cpu), RFLAGS_FIXED | RFLAGS_CF | (nests ? RFLAGS_NT : 0));
		assert_int_equal(sys.cpu->tr.s.selector, TASK_B);
		assert_int_equal(sys.cpu->tr.s.base, TSS_B_AT);
		assert_int_equal(sys.cpu->ldtr.s.base, LDT_AT);
		assert_true(sys.cpu->cr0 & CR0_TS);
		assert_int_equal(sys.cpu->dr7, DR7_FIXED_1 | DR7_G(1));
		assert_int_equal(sys.cpu->segment[DS].s.selector, SELECTOR(GDT_DATA32, 0));
		assert_int_equal(sys.cpu->segment[FS].s.selector, narrow ? 0 : SELECTOR(GDT_DATA32, 0));
		/* The old task. */
		assert_int_equal(get(&sys, TSS_AT + TSS32_EIP, 4), CODE_AT + lengths[source]);
		assert_int_equal(get(&sys, TSS_AT + TSS32_EFLAGS, 4), RFLAGS_FIXED | RFLAGS_ZF);
		for (unsigned i = 0; i < 8; i++)
			assert_int_equal(get(&sys, TSS_AT + TSS32_GPR + 4 * i, 4), i == RSP ? STACK_AT : 0x22220 + i);
		for (unsigned i = 0; i < 6; i++)
			assert_int_equal(get(&sys, TSS_AT + TSS32_SEG + 4 * i, 2), sys.before.segment[i].selector);
		assert_int_equal(type_of(GDT_TSS), nests ? TYPE_TSS_BUSY : TYPE_TSS_AVAILABLE);
		assert_int_equal(type_of(GDT_TSS_B), narrow ? TYPE_TSS16_BUSY : TYPE_TSS_BUSY);
		assert_int_equal(get(&sys, TSS_B_AT, 2), nests ? SELECTOR(GDT_TSS, 0) : 0);
	}
}

/* From a 16-bit TSS: what it has no room for is not saved. */
static void from_a_16_bit_tss(void **state)
{
	(void)state;
	prepare(false, BY_JMP);
	sys.cpu->tr.s.attributes = SEG_P | TYPE_TSS16_BUSY;
	sys.cpu->tr.s.limit = TSS16_SIZE - 1;
	put(&sys, TSS_AT + TSS16_LDT, 0x7777, 2);
	go(BY_JMP);
	ASSERT_RUNS(&sys);
	assert_int_equal(get(&sys, TSS_AT + TSS16_IP, 2), CODE_AT + 7);
	assert_int_equal(get(&sys, TSS_AT + TSS16_GPR, 2), 0x2220);
	assert_int_equal(get(&sys, TSS_AT + TSS16_SEG + 2 * DS, 2), SELECTOR(GDT_DATA32, 0));
	assert_int_equal(get(&sys, TSS_AT + TSS16_LDT, 2), 0x7777);
}

/* Faults before the point of commitment belong to the old task, which is unchanged (SDM 3A table 8-1). */
static void faults_in_the_old_task(void **state)
{
	static const struct {
		enum source source;
		uint16_t selector;
		uint32_t attributes, limit;
		enum vector vector;
		uint32_t error;
	} rows[] = {
		{BY_JMP, TASK_B, SEG_P | TYPE_TSS_BUSY, 0x67, VECTOR_GP, TASK_B},
		{BY_CALL, TASK_B, SEG_P | TYPE_TSS_BUSY, 0x67, VECTOR_GP, TASK_B},
		{BY_GATE, TASK_B, SEG_P | TYPE_TSS_BUSY, 0x67, VECTOR_GP, TASK_B},
		{BY_IRET, TASK_B, SEG_P | TYPE_TSS_AVAILABLE, 0x67, VECTOR_TS, TASK_B},
		{BY_JMP, TASK_B, TYPE_TSS_AVAILABLE, 0x67, VECTOR_NP, TASK_B},
		{BY_IRET, TASK_B, TYPE_TSS_BUSY, 0x67, VECTOR_NP, TASK_B},
		{BY_JMP, TASK_B, SEG_P | TYPE_TSS_AVAILABLE, 0x66, VECTOR_TS, TASK_B},
		{BY_JMP, TASK_B, SEG_P | TYPE_TSS16_AVAILABLE, 0x2a, VECTOR_TS, TASK_B},
		{BY_GATE, 12, SEG_P | TYPE_TSS_AVAILABLE, 0x67, VECTOR_GP, 12},   /* of the LDT */
		{BY_IRET, 12, SEG_P | TYPE_TSS_BUSY, 0x67, VECTOR_TS, 12},
		{BY_GATE, 0x200, SEG_P | TYPE_TSS_AVAILABLE, 0x67, VECTOR_GP, 0x200},
		{BY_IRET, 0x200, SEG_P | TYPE_TSS_BUSY, 0x67, VECTOR_TS, 0x200},
		{BY_GATE, FREE, SEG_P | TYPE_TSS_AVAILABLE, 0x67, VECTOR_GP, FREE}, /* a gate, no TSS */
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		prepare(false, rows[i].source);
		gdt_put(&sys, GDT_TSS_B, TSS_B_AT, rows[i].limit, rows[i].attributes);
		put(&sys, LDT_AT + 8, descriptor_make(TSS_B_AT, 0x67, rows[i].attributes), 8);
		put(&sys, TSS_AT + TSS32_LINK, rows[i].selector, 2);
		idt_put(&sys, VECTOR, SEG_P | TYPE_TASK_GATE, rows[i].selector, 0, 0);
		go(rows[i].source);
		unsigned at = rows[i].source == BY_GATE; /* behind the INT itself */
		assert_true(sys.events > at);
		assert_int_equal(sys.event[at].vector, rows[i].vector);
		assert_int_equal(sys.event[at].error_code, rows[i].error);
		assert_int_equal(sys.event[at].return_rip, CODE_AT);
		assert_int_equal(sys.cpu->tr.s.selector, SELECTOR(GDT_TSS, 0));
		assert_int_equal(get(&sys, TSS_AT + TSS32_EIP, 4), 0);
		assert_false(sys.cpu->cr0 & CR0_TS);
	}
	/* The old TSS has no room for the state. */
	prepare(false, BY_JMP);
	sys.cpu->tr.s.limit = TSS32_SEG;
	go(BY_JMP);
	ASSERT_FAULT(&sys, VECTOR_TS, SELECTOR(GDT_TSS, 0));
}

/* CPL and RPL against the DPL of a TSS or a task gate, not of the TSS behind the gate (SDM 3A 8.3). */
static void privilege(void **state)
{
	(void)state;
	for (unsigned n = 0; n < 128; n++) {
		unsigned dpl = n & 3, rpl = n >> 2 & 3, cpl = n >> 4 & 3;
		bool gate = n >> 6;
		uint16_t to = (uint16_t)((gate ? FREE : TASK_B) | rpl);

		prepare(false, BY_JMP);
		sys.cpu->segment[CS].s = gdt_segment(&sys, SELECTOR(GDT_CODE32 + cpl, cpl));
		sys.cpu->segment[SS].s = gdt_segment(&sys, SELECTOR(GDT_DATA32 + cpl, cpl));
		cpu_mode_changed(sys.cpu);
		gdt_put(&sys, GDT_TSS_B, TSS_B_AT, 0x67, SEG_P | TYPE_TSS_AVAILABLE | (gate ? 0 : DPL(dpl)));
		put(&sys, GDT_AT + FREE + 5, SEG_P | TYPE_TASK_GATE | DPL(dpl), 1);
		RUN(&sys, 0xea, 0, 0, 0, 0, (uint8_t)to, (uint8_t)(to >> 8));
		if (cpl <= dpl && rpl <= dpl)
			ASSERT_RUNS(&sys);
		else
			ASSERT_FAULT(&sys, VECTOR_GP, to & ~3u);
	}
}

/* Faults past the point of commitment are the new task's (SDM 3A table 8-1): its EIP, its stack. */
static void faults_in_the_new_task(void **state)
{
	static const struct {
		int segment; /* or -1: LDT, -2: EIP */
		uint16_t selector;
		uint32_t attributes;
		enum vector vector;
		uint32_t error;
	} rows[] = {
#define F FREE
		{-1, F | SELECTOR_TI, SEG_P | TYPE_LDT, VECTOR_TS, F | SELECTOR_TI},
		{-1, 0x200, SEG_P | TYPE_LDT, VECTOR_TS, 0x200},
		{-1, F, SEG_P | TYPE_TSS_AVAILABLE, VECTOR_TS, F},
		{-1, F, TYPE_LDT, VECTOR_TS, F},
		{CS, 0, CODE_ATTRIBUTES, VECTOR_TS, 0},
		{CS, 0x200, CODE_ATTRIBUTES, VECTOR_TS, 0x200},
		{CS, F, DATA_ATTRIBUTES, VECTOR_TS, F},
		{CS, F, CODE_ATTRIBUTES | DPL(3), VECTOR_TS, F},
		{CS, F, CODE_ATTRIBUTES | SEG_CONFORMING | DPL(1), VECTOR_TS, F},
		{CS, F, CODE_ATTRIBUTES & ~SEG_P, VECTOR_NP, F},
		{SS, 0, DATA_ATTRIBUTES, VECTOR_TS, 0},
		{SS, 0x200, DATA_ATTRIBUTES, VECTOR_TS, 0x200},
		{SS, F, DATA_ATTRIBUTES & ~SEG_WRITABLE, VECTOR_TS, F},
		{SS, F, CODE_ATTRIBUTES, VECTOR_TS, F},
		{SS, F, DATA_ATTRIBUTES & ~SEG_P, VECTOR_SS, F},
		{SS, F, DATA_ATTRIBUTES | DPL(3), VECTOR_TS, F},
		{SS, F | 3, DATA_ATTRIBUTES, VECTOR_TS, F},
		{DS, 0x200, DATA_ATTRIBUTES, VECTOR_TS, 0x200},
		{ES, F, CODE_ATTRIBUTES & ~SEG_READABLE, VECTOR_TS, F},
		{FS, F, SEG_P | TYPE_LDT, VECTOR_TS, F},
		{GS, F, DATA_ATTRIBUTES & ~SEG_P, VECTOR_NP, F},
		{DS, F | 3, DATA_ATTRIBUTES, VECTOR_TS, F},
		{-2, 0, CODE_ATTRIBUTES, VECTOR_GP, 0},
#undef F
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		prepare(false, BY_JMP);
		gdt_put(&sys, GDT_FREE, 0, 0xffff, rows[i].attributes);
		gdt_put(&sys, 0, 0, 0xffff, rows[i].attributes);
		put(&sys, LDT_AT + FREE, descriptor_make(0, 0xffff, rows[i].attributes), 8);
		if (rows[i].segment == -2) {
			put(&sys, TSS_B_AT + TSS32_SEG + 4 * CS, FREE, 2);
			put(&sys, TSS_B_AT + TSS32_EIP, 0x10000, 4);
		} else {
			put(&sys, TSS_B_AT + (rows[i].segment < 0 ? TSS32_LDT : TSS32_SEG + 4 * (unsigned)rows[i].segment),
			    rows[i].selector, 2);
		}
		go(BY_JMP);
		assert_true(sys.events > 0);
		assert_int_equal(sys.event[0].vector, rows[i].vector);
		assert_int_equal(sys.event[0].error_code, rows[i].error);
		assert_int_equal(sys.event[0].return_rip, rows[i].segment == -2 ? 0x10000 : TARGET);
		assert_int_equal(sys.at_event.tr.selector, TASK_B);
		assert_int_equal(get(&sys, TSS_AT + TSS32_EIP, 4), CODE_AT + 7);
	}
}

/* An exception's error code goes to the new task's stack; T raises #DB before its first instruction. */
static void error_code_and_trap(void **state)
{
	(void)state;
	for (unsigned narrow = 0; narrow < 2; narrow++) {
		prepare(narrow, BY_GATE);
		struct event event = {.kind = EVENT_FAULT, .vector = VECTOR, .has_error_code = true,
				      .error_code = 0x1234, .return_rip = CODE_AT};
		assert_true(system_deliver(&sys, event));
		unsigned width = narrow ? 2 : 4;
		assert_int_equal(sys.cpu->reg[RSP], STACK_B - width);
		assert_int_equal(get(&sys, STACK_B - width, width), 0x1234);
		/* RF is set in the saved image of a fault. */
		assert_true(get(&sys, TSS_AT + TSS32_EFLAGS, 4) & RFLAGS_RF);
	}
	prepare(false, BY_JMP);
	put(&sys, TSS_B_AT + TSS32_TRAP, 1, 2);
	sys.cpu->dr6 = DR6_FIXED_1;
	RUN(&sys, 0xea, 0, 0, 0, 0, (uint8_t)TASK_B, (uint8_t)(TASK_B >> 8));
	system_steps(&sys, 1);
	assert_int_equal(sys.event[0].vector, VECTOR_DB);
	assert_int_equal(sys.event[0].return_rip, TARGET);
	assert_int_equal(sys.cpu->dr6, DR6_FIXED_1 | DR6_BT);
}

static void to_vm86(void **state)
{
	(void)state;
	prepare(false, BY_JMP);
	put(&sys, TSS_B_AT + TSS32_EFLAGS, RFLAGS_VM | RFLAGS_FIXED, 4);
	for (unsigned i = ES; i <= GS; i++)
		put(&sys, TSS_B_AT + TSS32_SEG + 4 * i, 0x100 + i, 2);
	go(BY_JMP);
	ASSERT_RUNS(&sys);
	assert_true(cpu_vm86(sys.cpu));
	assert_int_equal(sys.cpu->cpl, 3);
	for (unsigned i = ES; i <= GS; i++)
		assert_int_equal(sys.cpu->segment[i].s.base, (0x100u + i) << 4);
}

/* CR3 of the new task, with its PDPTEs under PAE (SDM 3A 4.4.1). */
static void page_tables(void **state)
{
	(void)state;
	for (unsigned bad = 0; bad < 2; bad++) {
		prepare(false, BY_JMP);
		put(&sys, TABLES_AT, (TABLES_AT + 0x2000) | 1, 8);
		put(&sys, TABLES_AT + 0x3000, (TABLES_AT + 0x2000) | 1 | (bad ? 2 : 0), 8);
		put(&sys, TABLES_AT + 0x2000, 0x87, 8);
		sys.cpu->cr3 = TABLES_AT;
		control_write_cr4(sys.cpu, CR4_PAE);
		control_write_cr0(sys.cpu, CR0_PE | CR0_ET | CR0_NE | CR0_PG);
		put(&sys, TSS_B_AT + TSS32_CR3, TABLES_AT + 0x3000, 4);
		go(BY_JMP);
		assert_int_equal(sys.events > 0, bad);
		assert_int_equal(sys.cpu->cr3, TABLES_AT + 0x3000);
		if (!bad)
			assert_int_equal(sys.cpu->pdpte[0], (TABLES_AT + 0x2000) | 1);
		else
			assert_int_equal(sys.event[0].vector, VECTOR_GP);
		put(&sys, TABLES_AT + 0x3000, 0, 8);
	}
}

/* ---- bitmaps ---- */

static void io_bitmap(void **state)
{
	(void)state;
	/* Every size at every bit, with one bit set. */
	for (unsigned set = 0; set < 24; set++)
		for (unsigned port = 0; port < 16; port++)
			for (unsigned size = 1; size <= 4; size *= 2) {
				bool allowed = set < port || set >= port + size;

				system_start(&sys, SYSTEM_PM32, 3);
				put(&sys, TSS_AT + 0x90, 1ull << set, 8);
				assert_int_equal(io_bitmap_allows(sys.cpu, (uint16_t)port, size), allowed);
			}
	/* Both bytes that are read lie within the limit. */
	system_start(&sys, SYSTEM_PM32, 3);
	sys.cpu->tr.s.limit = 0x91;
	assert_true(io_bitmap_allows(sys.cpu, 7, 1));
	assert_false(io_bitmap_allows(sys.cpu, 8, 1));
	/* A TSS that ends before its I/O map base, or has none. */
	system_start(&sys, SYSTEM_PM32, 3);
	put(&sys, TSS_AT + TSS32_IOMAP, 0, 2);
	sys.cpu->tr.s.limit = TSS32_IOMAP + 1;
	assert_true(io_bitmap_allows(sys.cpu, 8, 1));
	sys.cpu->tr.s.limit = TSS32_IOMAP;
	assert_false(io_bitmap_allows(sys.cpu, 8, 1));
	system_start(&sys, SYSTEM_PM32, 3);
	sys.cpu->tr.s.attributes = SEG_P | TYPE_TSS16_BUSY;
	assert_false(io_bitmap_allows(sys.cpu, 8, 1));
}

static void redirection_bitmap(void **state)
{
	(void)state;
	system_start(&sys, SYSTEM_VM86, 3);
	sys.cpu->cr4 = CR4_VME;
	rflags_set(sys.cpu, RFLAGS_IOPL, RFLAGS_IOPL);
	sys.cpu->tr.s.limit = 0x90 - 32 + VECTOR / 8 - 1;
	RUN(&sys, 0xcd, VECTOR);
	ASSERT_FAULT(&sys, VECTOR_GP, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(by_source),
		cmocka_unit_test(from_a_16_bit_tss),
		cmocka_unit_test(faults_in_the_old_task),
		cmocka_unit_test(privilege),
		cmocka_unit_test(faults_in_the_new_task),
		cmocka_unit_test(error_code_and_trap),
		cmocka_unit_test(to_vm86),
		cmocka_unit_test(page_tables),
		cmocka_unit_test(io_bitmap),
		cmocka_unit_test(redirection_bitmap),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
