/*
 * misc_test.c: what needs a mode, a feature or an address that integer_test.c does not give: XLAT,
 * memory offsets, SALC, one-byte INC and DEC, cache lines, instructions that features turn into
 * others.
 */
#include "cpu/insn/machine_test.h"

static void run(struct machine *m, const char *code, size_t size)
{
	machine_run(m, (const uint8_t *)code, size, 1);
}
#define RUN(m, code) run(m, code, sizeof(code) - 1)

static void table_lookup(void **state)
{
	uint8_t table[256];
	struct machine m;

	(void)state;
	machine_open(&m, "intel");
	for (unsigned i = 0; i < 256; i++)
		table[i] = (uint8_t)(i * 7 + 3);
	machine_write(&m, DATA_AT, table, sizeof(table));
	m.cpu->reg[RBX] = DATA_AT;
	m.cpu->reg[RAX] = 0x11223344556677f1;
	RUN(&m, "\xd7");
	assert_true(m.cpu->reg[RAX] == (0x1122334455667700 | table[0xf1]));
	/* A 32-bit address: the upper half of RBX does not count. */
	m.cpu->reg[RBX] |= 0xffull << 40;
	m.cpu->reg[RAX] = 5;
	RUN(&m, "\x67\xd7");
	assert_int_equal(m.cpu->reg[RAX], table[5]);
	RUN(&m, "\xd7");
	assert_int_equal(m.vector, VECTOR_GP);
	machine_close(&m);
}

static void memory_offsets(void **state)
{
	const uint64_t value = 0x1122334455667788;
	uint64_t stored;
	struct machine m;

	(void)state;
	machine_open(&m, "intel");
	machine_write(&m, DATA_AT, &value, 8);
	m.cpu->reg[RAX] = ~0ull;
	RUN(&m, "\xa0\x00\x00\x01\x20\x00\x00\x00\x00");
	assert_true(m.cpu->reg[RAX] == 0xffffffffffffff88);
	RUN(&m, "\x66\xa1\x00\x00\x01\x20\x00\x00\x00\x00");
	assert_true(m.cpu->reg[RAX] == 0xffffffffffff7788);
	RUN(&m, "\x67\xa1\x00\x00\x01\x20");
	assert_int_equal(m.cpu->reg[RAX], 0x55667788);
	RUN(&m, "\x48\xa1\x00\x00\x01\x20\x00\x00\x00\x00");
	assert_true(m.cpu->reg[RAX] == value);
	m.cpu->reg[RAX] = 0xa5a5a5a5a5a5a5a5;
	RUN(&m, "\xa2\x01\x00\x01\x20\x00\x00\x00\x00");
	RUN(&m, "\x67\xa3\x04\x00\x01\x20");
	memcpy(&stored, machine_host(&m, DATA_AT), 8);
	assert_true(stored == 0xa5a5a5a55566a588);
	machine_close(&m);
}

static void one_byte_forms_of_legacy_modes(void **state)
{
	struct machine m;

	(void)state;
	machine_open(&m, "intel");
	machine_mode(&m, CODE_32);
	for (unsigned reg = 0; reg < 8; reg++) {
		uint8_t inc = (uint8_t)(0x40 + reg), dec[2] = {0x66, (uint8_t)(0x48 + reg)};

		m.cpu->reg[reg] = 0x7fffffff;
		machine_set_flags(&m, RFLAGS_CF);
		machine_run(&m, &inc, 1, 1);
		assert_int_equal(m.cpu->reg[reg], 0x80000000);
		assert_int_equal(flags_get(&m.cpu->lazy),
				 RFLAGS_CF | RFLAGS_OF | RFLAGS_SF | RFLAGS_AF | RFLAGS_PF);
		machine_run(&m, dec, 2, 1);
		assert_int_equal(m.cpu->reg[reg], 0x8000ffff);
	}
	for (unsigned cf = 0; cf < 2; cf++) {
		m.cpu->reg[RAX] = 0x1234;
		machine_set_flags(&m, cf ? RFLAGS_CF : 0);
		RUN(&m, "\xd6");
		assert_int_equal(m.cpu->reg[RAX], cf ? 0x12ff : 0x1200);
	}
	machine_close(&m);
}

static void features_decide(void **state)
{
	struct machine m;

	(void)state;
	machine_open(&m, "amd,-lahf_lm,-lzcnt");
	m.profile.features[FEATURE_bmi1 / 64] &= ~(1ull << (FEATURE_bmi1 % 64));
	RUN(&m, "\x9f");
	assert_int_equal(m.vector, VECTOR_UD);
	machine_mode(&m, CODE_32);
	RUN(&m, "\x9f");
	assert_int_equal(m.vector, NO_EVENT);
	machine_mode(&m, CODE_64);
	/* F3 90 is PAUSE only while the register is rAX. */
	m.cpu->reg[RAX] = 0xffffffff00000001;
	m.cpu->reg[R8] = 2;
	RUN(&m, "\xf3\x90");
	assert_true(m.cpu->reg[RAX] == 0xffffffff00000001);
	RUN(&m, "\xf3\x41\x90");
	assert_int_equal(m.cpu->reg[RAX], 2);
	assert_int_equal(m.cpu->reg[R8], 1);
	/* Without its feature, TZCNT is BSF, and LZCNT is BSR. */
	m.cpu->reg[RCX] = 0x100;
	RUN(&m, "\xf3\x0f\xbd\xc1");
	assert_int_equal(m.cpu->reg[RAX], 8);
	m.cpu->reg[RCX] = 0;
	m.cpu->reg[RAX] = 0x77;
	RUN(&m, "\xf3\x0f\xbc\xc1");
	assert_int_equal(m.cpu->reg[RAX], 0x77);
	assert_true(flags_zf(&m.cpu->lazy));
	machine_close(&m);
}

/* A source of 0 leaves the whole destination (APM 3 BSF, BSR). */
static void scan_of_zero(void **state)
{
	struct machine m;

	(void)state;
	machine_open(&m, "amd");
	m.cpu->reg[RAX] = 0x1234567890abcdef;
	m.cpu->reg[RCX] = 0;
	RUN(&m, "\x0f\xbc\xc1");
	assert_true(m.cpu->reg[RAX] == 0x1234567890abcdef && flags_zf(&m.cpu->lazy));
	RUN(&m, "\x0f\xbd\xc1");
	assert_true(m.cpu->reg[RAX] == 0x1234567890abcdef && flags_zf(&m.cpu->lazy));
	machine_close(&m);
}

/* CLFLUSH and its kin are checked as loads; prefetches and NOP never fault. */
static void cache_lines(void **state)
{
	static const char *const checked[] = {"\x0f\xae\x38", "\x66\x0f\xae\x38", "\x66\x0f\xae\x30"};
	static const char *const hints[] = {"\x0f\x0d\x08", "\x0f\x18\x00", "\x0f\x18\x18", "\x0f\x1f\x00"};
	struct machine m;
	uint8_t line[192];

	(void)state;
	machine_open(&m, "amd");
	for (unsigned i = 0; i < 4; i++) {
		m.cpu->reg[RAX] = MACHINE_BASE - 0x1000;
		run(&m, hints[i], 3);
		assert_int_equal(m.vector, NO_EVENT);
	}
	for (unsigned i = 0; i < 3; i++)
		for (unsigned mapped = 0; mapped < 2; mapped++) {
			machine_mode(&m, CODE_64);
			m.cpu->reg[RAX] = mapped ? DATA_AT : MACHINE_BASE - 0x1000;
			run(&m, checked[i], i ? 4 : 3);
			assert_int_equal(m.vector, mapped ? NO_EVENT : VECTOR_PF);
		}
	memset(line, 0xff, sizeof(line));
	machine_write(&m, DATA_AT, line, sizeof(line));
	memset(line + 64, 0, 64);
	machine_mode(&m, CODE_64);
	m.cpu->reg[RAX] = DATA_AT + 64 + 13;
	RUN(&m, "\x0f\x01\xfc");
	assert_memory_equal(machine_host(&m, DATA_AT), line, sizeof(line));
	machine_close(&m);
}

/* 0F 0Dh with a register: by vendor. */
static void prefetch_of_a_register(void **state)
{
	struct machine m;

	(void)state;
	machine_open(&m, "amd");
	RUN(&m, "\x0f\x0d\xc0");
	assert_int_equal(m.vector, VECTOR_UD);
	machine_close(&m);
	machine_open(&m, "intel");
	RUN(&m, "\x0f\x0d\xc0");
	assert_int_equal(m.vector, NO_EVENT);
	machine_close(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(table_lookup),
		cmocka_unit_test(memory_offsets),
		cmocka_unit_test(one_byte_forms_of_legacy_modes),
		cmocka_unit_test(features_decide),
		cmocka_unit_test(scan_of_zero),
		cmocka_unit_test(cache_lines),
		cmocka_unit_test(prefetch_of_a_register),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
