/*
 * system_test.c: descriptor tables, LDTR and TR, INVLPG and INVPCID, MONITOR and the waits, HLT, and
 * instructions of features that are absent.
 */
#include "cpu/insn/system_test.h"

#define AT     DATA_AT
#define GDT_AT (DATA_AT + 0x1000)

/* ModRM 06: [RSI] in 64-bit mode; SIB form elsewhere is not needed: [ESI] is 06 as well in 32-bit code. */
#define SGDT     0x0f, 0x01, 0x06
#define SIDT     0x0f, 0x01, 0x0e
#define LGDT     0x0f, 0x01, 0x16
#define LIDT     0x0f, 0x01, 0x1e
#define LLDT_AX  0x0f, 0x00, 0xd0
#define LTR_AX   0x0f, 0x00, 0xd8
#define SLDT_EAX 0x0f, 0x00, 0xc0
#define INVPCID  0x66, 0x0f, 0x38, 0x82, 0x06

static void open(struct machine *m, uint32_t mode)
{
	system_open(m, "intel", mode, 0);
	m->cpu->reg[RSI] = AT;
	m->cpu->gdtr = (struct table_register){GDT_AT, 0xff};
}

static void put_descriptor(struct machine *m, unsigned selector, uint64_t low, uint64_t high)
{
	memcpy(machine_host(m, GDT_AT + (selector & 0xfff8)), &low, 8);
	memcpy(machine_host(m, GDT_AT + (selector & 0xfff8) + 8), &high, 8);
}

static void test_tables(void **state)
{
	struct machine m;
	uint8_t *area;

	(void)state;
	open(&m, CODE_64);
	area = machine_host(&m, AT);
	memset(area, 0xa5, 16);
	m.cpu->gdtr = (struct table_register){0xffff811122334455, 0x1234};
	assert_int_equal(RUN(&m, SGDT), NO_EVENT);
	assert_memory_equal(area, "\x34\x12\x55\x44\x33\x22\x11\x81\xff\xff\xa5", 11);
	memcpy(area, "\x78\x56\x01\x02\x03\x04\x05\x00\x00\x00", 10);
	assert_int_equal(RUN(&m, LIDT), NO_EVENT);
	assert_true(m.cpu->idtr.limit == 0x5678 && m.cpu->idtr.base == 0x0504030201);
	area[9] = 0x80;
	FAULTS(&m, "TABLE_CANONICAL", VECTOR_GP, LGDT);
	m.cpu->cr4 |= CR4_UMIP;
	assert_int_equal(RUN(&m, SIDT), NO_EVENT);
	system_set_cpl(&m, 3);
	FAULTS(&m, "SIDT.UMIP", VECTOR_GP, SIDT);
	FAULTS(&m, "SGDT.UMIP", VECTOR_GP, SGDT);
	FAULTS(&m, "LGDT.CPL0", VECTOR_GP, LGDT);
	m.cpu->cr4 &= ~(uint64_t)CR4_UMIP;
	assert_int_equal(RUN(&m, SGDT), NO_EVENT);
	machine_close(&m);
	/* Outside 64-bit mode six bytes; with 16-bit operands LGDT takes 24 bits, SGDT gives 32. */
	open(&m, CODE_32);
	area = machine_host(&m, AT);
	memcpy(area, "\x78\x56\x01\x02\x03\x04\xa5\xa5", 8);
	assert_int_equal(RUN(&m, 0x66, LGDT), NO_EVENT);
	assert_int_equal(m.cpu->gdtr.base, 0x030201);
	assert_int_equal(RUN(&m, LGDT), NO_EVENT);
	assert_int_equal(m.cpu->gdtr.base, 0x04030201);
	memset(area, 0xa5, 8);
	assert_int_equal(RUN(&m, 0x66, SGDT), NO_EVENT);
	assert_memory_equal(area, "\x78\x56\x01\x02\x03\x04\xa5", 7);
	machine_close(&m);
}

/* @selector in AX raises @vector with that selector as its error code, unless @check is broken. */
static void refuse(struct machine *m, bool task, uint16_t selector, int vector, const char *check)
{
	uint8_t code[] = {0x0f, 0x00, (uint8_t)(task ? 0xd8 : 0xd0)};
	struct vcpu_state before;

	cpu_save(m->cpu, &before);
	m->cpu->reg[RAX] = selector;
	assert_int_equal(system_run(m, code, sizeof(code)), vector);
	assert_int_equal(m->error_code, selector & 0xfffc);
	cpu_load(m->cpu, &before);
	assert_true(check_break(check));
	m->cpu->reg[RAX] = selector;
	machine_run(m, code, sizeof(code), 1);
	check_break(NULL);
	if (m->vector == vector)
		fail_msg("with %s broken it still faults", check);
	cpu_load(m->cpu, &before);
}

#define LDT_LOW   0x0000820000001234ull /* present, limit 0x1234 */
#define TSS_LOW   0x0000890000000067ull
#define TSS16_LOW 0x000081000000002bull

static void test_ldtr_and_tr(void **state)
{
	struct machine m;

	(void)state;
	open(&m, CODE_64);
	put_descriptor(&m, 0x20, LDT_LOW | 0x5600ull << 16, 0x11);
	m.cpu->reg[RAX] = 0x21;
	assert_int_equal(RUN(&m, LLDT_AX), NO_EVENT);
	assert_true(m.cpu->ldtr.s.selector == 0x21 && m.cpu->ldtr.s.base == 0x1100005600 &&
		    m.cpu->ldtr.s.limit == 0x1234);
	m.cpu->reg[RAX] = ~0ull;
	assert_int_equal(RUN(&m, SLDT_EAX), NO_EVENT);
	assert_int_equal(m.cpu->reg[RAX], 0x21);
	refuse(&m, false, 0x24, VECTOR_GP, "SYSTEM_SELECTOR_TI");
	put_descriptor(&m, 0x20, LDT_LOW & ~(1ull << 47), 0);
	refuse(&m, false, 0x20, VECTOR_NP, "LLDT_PRESENT");
	put_descriptor(&m, 0x20, TSS_LOW, 0);
	refuse(&m, false, 0x20, VECTOR_GP, "LLDT_TYPE");
	put_descriptor(&m, 0x20, LDT_LOW, 1ull << 40);
	refuse(&m, false, 0x20, VECTOR_GP, "SYSTEM_UPPER_TYPE");
	put_descriptor(&m, 0x20, LDT_LOW, 0x00008000);
	refuse(&m, false, 0x20, VECTOR_GP, "SYSTEM_CANONICAL");
	m.cpu->reg[RAX] = 3;
	assert_int_equal(RUN(&m, LLDT_AX), NO_EVENT);
	assert_true(m.cpu->ldtr.s.attributes & SEG_UNUSABLE);

	put_descriptor(&m, 0x30, TSS16_LOW, 0);
	refuse(&m, true, 0x30, VECTOR_GP, "LTR_TYPE");
	put_descriptor(&m, 0x30, TSS_LOW & ~(1ull << 47), 0);
	refuse(&m, true, 0x30, VECTOR_NP, "LTR_PRESENT");
	m.cpu->reg[RAX] = 3;
	assert_int_equal(RUN(&m, LTR_AX), VECTOR_GP);
	assert_int_equal(m.error_code, 0);
	machine_mode(&m, CODE_64);
	m.cpu->gdtr = (struct table_register){GDT_AT, 0xff};
	put_descriptor(&m, 0x30, TSS_LOW, 0);
	m.cpu->reg[RAX] = 0x30;
	assert_int_equal(RUN(&m, LTR_AX), NO_EVENT);
	assert_int_equal(m.cpu->tr.s.attributes, SEG_P | TYPE_TSS_BUSY);
	assert_int_equal(*machine_host(&m, GDT_AT + 0x35), 0x8b);
	refuse(&m, true, 0x30, VECTOR_GP, "LTR_TYPE"); /* it is busy now */
	system_set_real(&m);
	FAULTS(&m, "LTR.PROTECTED", VECTOR_UD, LTR_AX);
	FAULTS(&m, "SLDT.PROTECTED", VECTOR_UD, SLDT_EAX);
	machine_close(&m);
}

/* In compatibility mode 16 bytes are read by Intel, by AMD 8: what stands behind is not looked at. */
static void test_width_in_compatibility_mode(void **state)
{
	static const struct {
		const char *profile;
		int vector;
	} each[] = {{"intel", VECTOR_GP}, {"amd", NO_EVENT}};
	struct vcpu_state saved;
	struct machine m;

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		system_open(&m, each[i].profile, CODE_64, 0);
		m.cpu->gdtr = (struct table_register){GDT_AT, 0xff};
		cpu_save(m.cpu, &saved);
		saved.segment[CS].attributes = (saved.segment[CS].attributes & ~SEG_L) | SEG_DB;
		cpu_load(m.cpu, &saved);
		put_descriptor(&m, 0x20, LDT_LOW, 1ull << 40);
		put_descriptor(&m, 0x30, TSS_LOW, 1ull << 40);
		m.cpu->reg[RAX] = 0x20;
		assert_int_equal(RUN(&m, LLDT_AX), each[i].vector);
		m.cpu->rflags &= ~(uint64_t)RFLAGS_ZF;
		assert_int_equal(RUN(&m, 0x0f, 0x03, 0xc8), NO_EVENT); /* LSL ECX, EAX */
		assert_int_equal(m.cpu->reg[RCX] == 0x1234, each[i].vector == NO_EVENT);
		m.cpu->reg[RAX] = 0x30;
		assert_int_equal(RUN(&m, LTR_AX), each[i].vector);
		machine_close(&m);
	}
}

static void test_invalidations(void **state)
{
	uint64_t *descriptor;
	struct machine m;

	(void)state;
	open(&m, CODE_64);
	descriptor = (uint64_t *)(void *)machine_host(&m, AT);
	descriptor[0] = 0;
	descriptor[1] = DATA_AT;
	m.cpu->reg[RAX] = 4;
	FAULTS(&m, "INVPCID_TYPE", VECTOR_GP, INVPCID);
	m.cpu->reg[RAX] = 0;
	assert_int_equal(RUN(&m, INVPCID), NO_EVENT);
	descriptor[1] = 1ull << 50;
	FAULTS(&m, "INVPCID_CANONICAL", VECTOR_GP, INVPCID);
	m.cpu->reg[RAX] = 1;
	assert_int_equal(RUN(&m, INVPCID), NO_EVENT); /* takes no address */
	descriptor[0] = 5;
	FAULTS(&m, "INVPCID_PCID", VECTOR_GP, INVPCID);
	m.cpu->reg[RAX] = 2;
	assert_int_equal(RUN(&m, INVPCID), NO_EVENT);
	descriptor[0] = 0x1000;
	FAULTS(&m, "INVPCID_RESERVED", VECTOR_GP, INVPCID);
	m.cpu->reg[RSI] = 1ull << 50;
	assert_int_equal(RUN(&m, 0x0f, 0x01, 0x3e), NO_EVENT); /* INVLPG of a non-canonical address */
	system_set_cpl(&m, 3);
	FAULTS(&m, "INVLPG.CPL0", VECTOR_GP, 0x0f, 0x01, 0x3e);
	m.cpu->reg[RSI] = AT;
	descriptor[0] = 0;
	FAULTS(&m, "INVPCID.CPL0", VECTOR_GP, INVPCID);
	FAULTS(&m, "WBNOINVD.CPL0", VECTOR_GP, 0xf3, 0x0f, 0x09);
	machine_close(&m);
}

static void test_waits(void **state)
{
	struct machine m;

	(void)state;
	open(&m, CODE_64);
	m.cpu->reg[RAX] = AT;
	m.cpu->reg[RCX] = 0;
	assert_int_equal(RUN(&m, 0x0f, 0x01, 0xc8), NO_EVENT);
	assert_int_equal(RUN(&m, 0x0f, 0x01, 0xc9), NO_EVENT);
	m.cpu->reg[RCX] = 2;
	FAULTS(&m, "MONITOR_EXTENSIONS", VECTOR_GP, 0x0f, 0x01, 0xc8);
	FAULTS(&m, "MONITOR_EXTENSIONS", VECTOR_GP, 0x0f, 0x01, 0xc9);
	m.cpu->reg[RCX] = 0;
	m.cpu->reg[RAX] = 0x12345000;
	assert_int_equal(RUN(&m, 0x0f, 0x01, 0xc8), VECTOR_PF);
	system_set_cpl(&m, 3);
	m.cpu->reg[RAX] = AT;
	FAULTS(&m, "MONITOR.CPL0_UD", VECTOR_UD, 0x0f, 0x01, 0xc8);
	FAULTS(&m, "MWAIT.CPL0_UD", VECTOR_UD, 0x0f, 0x01, 0xc9);
	FAULTS(&m, "CLAC.CPL0_UD", VECTOR_UD, 0x0f, 0x01, 0xca);
	FAULTS(&m, "STAC.CPL0_UD", VECTOR_UD, 0x0f, 0x01, 0xcb);
	FAULTS(&m, "HLT.CPL0", VECTOR_GP, 0xf4);
	m.cpu->reg[RBX] = 1;
	assert_int_equal(RUN(&m, 0x66, 0x0f, 0xae, 0xf3), NO_EVENT); /* TPAUSE EBX */
	m.cpu->reg[RBX] = 3;
	FAULTS(&m, "WAIT_RESERVED", VECTOR_GP, 0x66, 0x0f, 0xae, 0xf3);
	m.cpu->reg[RBX] = 0;
	m.cpu->cr4 |= CR4_TSD;
	FAULTS(&m, "UMWAIT.TSD", VECTOR_GP, 0xf2, 0x0f, 0xae, 0xf3);
	machine_mode(&m, CODE_64);
	machine_run(&m, (const uint8_t[]){0xf4}, 1, 1);
	assert_int_equal(m.cpu->activity, ACTIVITY_HLT);
	assert_int_equal(m.cpu->rip, CODE_AT + 1);
	machine_mode(&m, CODE_64);
	m.cpu->activity = ACTIVITY_ACTIVE;
	assert_int_equal(RUN(&m, 0x0f, 0x01, 0xcb), NO_EVENT); /* STAC */
	assert_true(m.cpu->rflags & RFLAGS_AC);
	assert_int_equal(RUN(&m, 0x0f, 0x01, 0xca), NO_EVENT);
	assert_false(m.cpu->rflags & RFLAGS_AC);
	FAULTS(&m, NULL, VECTOR_UD, 0x0f, 0xaa); /* RSM */
	machine_close(&m);
}

/* What no profile has, or this one has not, is #UD at CPL 0, operands or not. */
static void test_absent(void **state)
{
	static const uint8_t absent[][5] = {
		{3, 0x0f, 0x01, 0xc0},       {3, 0x0f, 0x01, 0xc1},       {3, 0x0f, 0x01, 0xc2},
		{3, 0x0f, 0x01, 0xc3},       {3, 0x0f, 0x01, 0xc4},       {3, 0x0f, 0x01, 0xc5},
		{3, 0x0f, 0x01, 0xcf},       {3, 0x0f, 0x01, 0xd4},       {3, 0x0f, 0x01, 0xd7},
		{3, 0x0f, 0x01, 0xd8},       {3, 0x0f, 0x01, 0xd9},       {3, 0x0f, 0x01, 0xdd},
		{3, 0x0f, 0x01, 0xdf},       {3, 0x0f, 0x01, 0xfe},       {3, 0x0f, 0x01, 0xff},
		{4, 0xf3, 0x0f, 0x01, 0xff}, {4, 0xf2, 0x0f, 0x01, 0xff}, {4, 0xf3, 0x0f, 0x01, 0xfe},
		{4, 0xf2, 0x0f, 0x01, 0xfe}, {4, 0xf3, 0x0f, 0x01, 0xfa}, {2, 0x0f, 0x37},
		{3, 0x0f, 0x78, 0x06},       {3, 0x0f, 0x79, 0x06},       {3, 0x0f, 0xc7, 0x36},
		{4, 0x66, 0x0f, 0xc7, 0x36}, {4, 0xf3, 0x0f, 0xc7, 0x36}, {3, 0x0f, 0xc7, 0x3e},
		{4, 0xf3, 0x0f, 0x01, 0xe8}, {4, 0xf3, 0x0f, 0xae, 0x36}, {4, 0xf3, 0x0f, 0xae, 0xe8},
		{3, 0x0f, 0x01, 0xe8},       {3, 0x0f, 0x01, 0xd6},       {3, 0x0f, 0x00, 0xf0},
	};
	static const uint8_t amd_only[][5] = {
		{3, 0x0f, 0x01, 0xfa}, {3, 0x0f, 0x01, 0xfb}, {3, 0x0f, 0x01, 0xfc}, {3, 0x0f, 0x01, 0xfd}};
	struct machine m;

	(void)state;
	for (unsigned amd = 0; amd < 2; amd++) {
		system_open(&m, amd ? "amd" : "intel", CODE_64, 0);
		for (unsigned i = 0; i < sizeof(absent) / sizeof(absent[0]); i++) {
			if (system_run(&m, absent[i] + 1, absent[i][0]) != VECTOR_UD)
				fail_msg("%02x %02x %02x %02x is not #UD", absent[i][1], absent[i][2],
					 absent[i][3], absent[i][4]);
			machine_mode(&m, CODE_64);
		}
		machine_close(&m);
	}
	system_open(&m, "intel", CODE_64, 0);
	for (unsigned i = 0; i < sizeof(amd_only) / sizeof(amd_only[0]); i++)
		system_faults(&m, NULL, VECTOR_UD, amd_only[i] + 1, amd_only[i][0]);
	machine_close(&m);
	system_open(&m, "amd", CODE_64, 3);
	m.cpu->reg[RCX] = 0;
	m.cpu->reg[RAX] = AT;
	for (unsigned i = 0; i < sizeof(amd_only) / sizeof(amd_only[0]); i++)
		assert_int_equal(system_run(&m, amd_only[i] + 1, amd_only[i][0]), NO_EVENT);
	machine_close(&m);
	system_open(&m, "amd,-wbnoinvd", CODE_64, 0);
	assert_int_equal(RUN(&m, 0xf3, 0x0f, 0x09), NO_EVENT); /* then it is WBINVD */
	machine_close(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tables),        cmocka_unit_test(test_ldtr_and_tr),
		cmocka_unit_test(test_invalidations), cmocka_unit_test(test_waits),
		cmocka_unit_test(test_absent),        cmocka_unit_test(test_width_in_compatibility_mode),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
