/* xsave_test.c: FXSAVE, FXRSTOR, the XSAVE family, XGETBV, PKRU (SDM 1 chapter 13; SDM 2A to 2D). */
#include "cpu/insn/system_test.h"

#define AREA     DATA_AT
#define FXSAVE   0x0f, 0xae, 0x06
#define FXRSTOR  0x0f, 0xae, 0x0e
#define XSAVE    0x0f, 0xae, 0x26
#define XRSTOR   0x0f, 0xae, 0x2e
#define XSAVEOPT 0x0f, 0xae, 0x36
#define XSAVEC   0x0f, 0xc7, 0x26
#define XSAVES   0x0f, 0xc7, 0x2e
#define XRSTORS  0x0f, 0xc7, 0x1e
#define XGETBV   0x0f, 0x01, 0xd0

static void open(struct machine *m, const char *profile, uint64_t xcr0)
{
	system_open(m, profile, CODE_64, 0);
	m->cpu->cr4 |= CR4_OSFXSR | CR4_OSXSAVE | CR4_PKE;
	m->cpu->xcr0 = xcr0;
	m->cpu->reg[RSI] = AREA;
	m->cpu->reg[RAX] = ~0u;
	m->cpu->reg[RDX] = ~0u;
	m->cpu->fcw = 0x37f;
	m->cpu->ftw = 0xffff;
	m->cpu->fsw = 0;
	memset(machine_host(m, AREA), 0xa5, 4096);
}

static void fill(struct machine *m)
{
	struct cpu *cpu = m->cpu;

	cpu->fcw = 0x27f;
	cpu->fsw = 3 << 11 | 0x20;
	cpu->ftw = 0xfffc & 0xcfff; /* R0 valid, R6 valid */
	cpu->fop = 0x123;
	cpu->fip = 0x1122334455667788;
	cpu->fdp = 0x99aabbccddeeff00;
	cpu->st[0] = (struct x87_register){0x8000000000000001, 0x3fff};
	cpu->st[6] = (struct x87_register){0xc000000000000000, 0xbfff};
	for (unsigned i = 0; i < 16; i++) {
		cpu->vector[4 * i] = 0x1000 + i;
		cpu->vector[4 * i + 1] = 0x2000 + i;
	}
	cpu->mxcsr = 0x1fa0;
}

static uint64_t at(const struct machine *m, unsigned offset, unsigned width)
{
	uint64_t value = 0;

	memcpy(&value, machine_host(m, AREA) + offset, width);
	return value;
}

static void put(struct machine *m, unsigned offset, uint64_t value)
{
	memcpy(machine_host(m, AREA) + offset, &value, 8);
}

/* The layout of SDM 1 table 10-2, with and without REX.W. */
static void test_fxsave(void **state)
{
	struct machine m;

	(void)state;
	open(&m, "intel", 1);
	fill(&m);
	assert_int_equal(RUN(&m, 0x48, FXSAVE), NO_EVENT);
	assert_int_equal(at(&m, 0, 8), 0x0123004118200000 + 0x27f);
	assert_int_equal(at(&m, 8, 8), 0x1122334455667788);
	assert_int_equal(at(&m, 16, 8), 0x99aabbccddeeff00);
	assert_int_equal(at(&m, 24, 8), 0x0000ffff00001fa0);
	assert_int_equal(at(&m, 32 + 16 * 5, 8), 0x8000000000000001); /* R0 is ST(5) */
	assert_int_equal(at(&m, 32 + 16 * 5 + 8, 8), 0x3fff);
	assert_int_equal(at(&m, 160 + 16 * 15 + 8, 8), 0x200f);
	assert_int_equal(at(&m, 416, 8), 0xa5a5a5a5a5a5a5a5);
	assert_int_equal(RUN(&m, FXSAVE), NO_EVENT);
	assert_int_equal(at(&m, 8, 4), 0x55667788);

	struct vcpu_state saved, now;
	assert_int_equal(RUN(&m, 0x48, FXSAVE), NO_EVENT);
	cpu_save(m.cpu, &saved);
	m.cpu->mxcsr = MXCSR_RESET;
	m.cpu->fcw = m.cpu->fsw = m.cpu->ftw = m.cpu->fop = 0;
	m.cpu->fip = m.cpu->fdp = 0;
	memset(m.cpu->st, 0, sizeof(m.cpu->st));
	memset(m.cpu->vector, 0, sizeof(m.cpu->vector));
	assert_int_equal(RUN(&m, 0x48, FXRSTOR), NO_EVENT);
	cpu_save(m.cpu, &now);
	assert_true(now.fcw == saved.fcw && now.fsw == saved.fsw && now.ftw == saved.ftw &&
		    now.mxcsr == saved.mxcsr);
	assert_true(now.fip == saved.fip && now.fdp == saved.fdp && now.fop == saved.fop);
	assert_memory_equal(now.vector, saved.vector, sizeof(now.vector));
	assert_memory_equal(now.st, saved.st, sizeof(now.st));
	machine_close(&m);
}

static void test_fxsave_faults(void **state)
{
	struct machine m;

	(void)state;
	open(&m, "intel", 1);
	m.cpu->reg[RSI] = AREA + 8;
	FAULTS(&m, "FX_ALIGNMENT", VECTOR_GP, FXSAVE);
	FAULTS(&m, "FX_ALIGNMENT", VECTOR_GP, FXRSTOR);
	m.cpu->cr0 |= CR0_TS;
	FAULTS(&m, "FX_TS", VECTOR_NM, FXSAVE);
	m.cpu->cr0 ^= CR0_TS | CR0_EM;
	FAULTS(&m, "FX_EM", VECTOR_NM, FXSAVE);
	FAULTS(&m, "FX_EM", VECTOR_NM, FXRSTOR);
	m.cpu->cr0 &= ~(uint64_t)CR0_EM;
	m.cpu->reg[RSI] = AREA;
	put(&m, 24, 0x10000);
	FAULTS(&m, "MXCSR_RESERVED", VECTOR_GP, FXRSTOR);
	machine_close(&m);
	open(&m, "amd", 1);
	m.cpu->cr0 |= CR0_EM;
	assert_int_equal(RUN(&m, FXSAVE), VECTOR_NM);
	machine_close(&m);
	/* MISALIGNSSE gives MXCSR bit 17; EFER.FFXSR leaves the XMM registers out. */
	open(&m, "amd", 1);
	fill(&m);
	m.cpu->efer |= EFER_FFXSR;
	assert_int_equal(RUN(&m, FXSAVE), NO_EVENT);
	assert_int_equal(at(&m, 28, 4), 0x2ffff);
	assert_int_equal(at(&m, 160, 8), 0xa5a5a5a5a5a5a5a5);
	machine_close(&m);
}

static void test_xgetbv(void **state)
{
	struct machine m;

	(void)state;
	open(&m, "intel", 0x203);
	m.cpu->reg[RCX] = 0;
	assert_int_equal(RUN(&m, XGETBV), NO_EVENT);
	assert_true(m.cpu->reg[RAX] == 0x203 && m.cpu->reg[RDX] == 0);
	m.cpu->reg[RCX] = 1;
	assert_int_equal(RUN(&m, XGETBV), NO_EVENT);
	assert_int_equal(m.cpu->reg[RAX], 0);
	m.cpu->vector[5] = 1;
	m.cpu->pkru = 4;
	assert_int_equal(RUN(&m, XGETBV), NO_EVENT);
	assert_int_equal(m.cpu->reg[RAX], 0x202);
	m.cpu->reg[RCX] = 2;
	FAULTS(&m, "XGETBV_INDEX", VECTOR_GP, XGETBV);
	m.cpu->cr4 &= ~(uint64_t)CR4_OSXSAVE;
	FAULTS(&m, "XGETBV.OSXSAVE", VECTOR_UD, XGETBV);
	FAULTS(&m, "XSAVE.OSXSAVE", VECTOR_UD, XSAVE);
	machine_close(&m);
}

static void test_xsave(void **state)
{
	struct machine m;

	(void)state;
	open(&m, "intel", 0x203);
	fill(&m);
	m.cpu->pkru = 0x54;
	put(&m, 512, 0xff00000000000002);
	m.cpu->reg[RAX] = 0x201;
	m.cpu->reg[RDX] = 0;
	assert_int_equal(RUN(&m, XSAVE), NO_EVENT);
	assert_int_equal(at(&m, 512, 8), 0xff00000000000203); /* other bits are kept */
	assert_int_equal(at(&m, 2688, 8), 0x54);
	assert_int_equal(at(&m, 0, 2), 0x27f);
	assert_int_equal(at(&m, 24, 8), 0xa5a5a5a5a5a5a5a5); /* SSE was not asked for */
	assert_int_equal(at(&m, 160, 8), 0xa5a5a5a5a5a5a5a5);
	/* XSAVEOPT leaves out what is in its initial state. */
	m.cpu->pkru = 0;
	assert_int_equal(RUN(&m, XSAVEOPT), NO_EVENT);
	assert_int_equal(at(&m, 2688, 8), 0x54);
	assert_int_equal(at(&m, 512, 8), 0xff00000000000003);
	m.cpu->reg[RSI] = AREA + 16;
	FAULTS(&m, "FX_ALIGNMENT", VECTOR_GP, XSAVE);
	m.cpu->cr0 |= CR0_TS;
	FAULTS(&m, "XSAVE.TS", VECTOR_NM, XSAVE);
	machine_close(&m);
}

static void test_xsavec(void **state)
{
	struct machine m;

	(void)state;
	open(&m, "intel", 0x203);
	m.cpu->pkru = 0x74;
	m.cpu->mxcsr = 0x1fa0; /* makes SSE count as in use */
	assert_int_equal(RUN(&m, XSAVEC), NO_EVENT);
	assert_int_equal(at(&m, 512, 8), 0x202);
	assert_int_equal(at(&m, 520, 8), 1ull << 63 | 0x203);
	assert_int_equal(at(&m, 528, 8), 0xa5a5a5a5a5a5a5a5);
	assert_int_equal(at(&m, 576, 8), 0x74);
	memset(machine_host(&m, AREA) + 528, 0, 48);
	m.cpu->pkru = 8;
	m.cpu->mxcsr = MXCSR_RESET;
	m.cpu->fcw = 0x27f;
	assert_int_equal(RUN(&m, XRSTOR), NO_EVENT);
	assert_true(m.cpu->pkru == 0x74 && m.cpu->mxcsr == 0x1fa0 && m.cpu->fcw == 0x37f);
	assert_int_equal(RUN(&m, XSAVES), NO_EVENT);
	m.cpu->pkru = 8;
	assert_int_equal(RUN(&m, XRSTORS), NO_EVENT);
	assert_int_equal(m.cpu->pkru, 0x74);
	system_set_cpl(&m, 3);
	FAULTS(&m, "XSAVES.CPL0", VECTOR_GP, XSAVES);
	FAULTS(&m, "XRSTORS.CPL0", VECTOR_GP, XRSTORS);
	machine_close(&m);
}

/* The upper halves of the YMM registers: where both forms have them, in use, and initial. */
static void test_avx(void **state)
{
	struct machine m;

	(void)state;
	open(&m, "intel", 0x207);
	m.cpu->vector[2] = 0x1122334455667788;
	m.cpu->vector[63] = 0x99;
	m.cpu->pkru = 0x30;
	m.cpu->reg[RAX] = 0x204;
	m.cpu->reg[RDX] = 0;
	put(&m, 512, 0);
	assert_int_equal(RUN(&m, XSAVE), NO_EVENT);
	assert_int_equal(at(&m, 512, 8), 0x204);
	assert_int_equal(at(&m, 576, 8), 0x1122334455667788);
	assert_int_equal(at(&m, 576 + 248, 8), 0x99);
	assert_int_equal(at(&m, 24, 4), m.cpu->mxcsr); /* MXCSR goes with AVX in this form */
	assert_int_equal(at(&m, 2688, 8), 0x30);
	assert_int_equal(RUN(&m, XSAVEC), NO_EVENT);
	assert_int_equal(at(&m, 520, 8), 1ull << 63 | 0x204);
	assert_int_equal(at(&m, 576 + 256, 8), 0x30); /* behind AVX */
	memset(machine_host(&m, AREA) + 528, 0, 48);
	m.cpu->vector[2] = m.cpu->vector[63] = 5;
	m.cpu->vector[0] = 7;
	m.cpu->pkru = 0;
	assert_int_equal(RUN(&m, XRSTOR), NO_EVENT);
	assert_true(m.cpu->vector[2] == 0x1122334455667788 && m.cpu->vector[63] == 0x99 && m.cpu->pkru == 0x30);
	assert_int_equal(m.cpu->vector[0], 7);
	/* Not in XSTATE_BV: the initial state, which is not in use behind it. */
	put(&m, 512, 0);
	assert_int_equal(RUN(&m, XRSTOR), NO_EVENT);
	assert_true(m.cpu->vector[2] == 0 && m.cpu->vector[63] == 0 && m.cpu->vector[0] == 7);
	assert_int_equal(RUN(&m, XSAVEC), NO_EVENT);
	assert_int_equal(at(&m, 512, 8), 0);
	machine_close(&m);
}

/* Headers that are #GP(0): SDM 1 13.8.1, 13.8.2, 13.12. */
static void test_headers(void **state)
{
	static const uint64_t bad[][3] = {
		{4, 0, 0},              /* standard: not in XCR0 */
		{1, 1, 0},              /* standard: XCOMP_BV */
		{1, 0, 1},              /* standard: bytes 23:16 */
		{1, 1ull << 63 | 5, 0}, /* compacted: not in XCR0 */
		{3, 1ull << 63 | 1, 0}, /* compacted: not in XCOMP_BV */
		{1, 1ull << 63 | 1, 1}, /* compacted: reserved */
	};
	struct machine m;

	(void)state;
	open(&m, "intel", 3);
	memset(machine_host(&m, AREA), 0, 1024);
	put(&m, 24, MXCSR_RESET);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		for (unsigned j = 0; j < 3; j++)
			put(&m, 512 + 8 * j, bad[i][j]);
		FAULTS(&m, "XRSTOR_HEADER", VECTOR_GP, XRSTOR);
		FAULTS(&m, "XRSTOR_HEADER", VECTOR_GP, XRSTORS);
	}
	put(&m, 512, 0);
	put(&m, 520, 0);
	put(&m, 528, 0);
	fill(&m);
	assert_int_equal(RUN(&m, XRSTOR), NO_EVENT); /* all initial; MXCSR from memory */
	assert_true(m.cpu->fcw == 0x37f && m.cpu->vector[0] == 0 && m.cpu->mxcsr == MXCSR_RESET);
	FAULTS(&m, "XRSTOR_HEADER", VECTOR_GP, XRSTORS); /* takes the compacted form alone */
	put(&m, 24, 0x10000);
	FAULTS(&m, "MXCSR_RESERVED", VECTOR_GP, XRSTOR);
	machine_close(&m);
}

static void test_pkru(void **state)
{
	struct machine m;

	(void)state;
	open(&m, "intel", 1);
	m.cpu->reg[RAX] = 0x12345678;
	m.cpu->reg[RCX] = m.cpu->reg[RDX] = 0;
	system_set_cpl(&m, 3);
	assert_int_equal(RUN(&m, 0x0f, 0x01, 0xef), NO_EVENT);
	assert_int_equal(m.cpu->pkru, 0x12345678);
	m.cpu->reg[RAX] = 0;
	m.cpu->reg[RDX] = 5;
	FAULTS(&m, "PKRU_EDX", VECTOR_GP, 0x0f, 0x01, 0xef);
	assert_int_equal(RUN(&m, 0x0f, 0x01, 0xee), NO_EVENT);
	assert_true(m.cpu->reg[RAX] == 0x12345678 && m.cpu->reg[RDX] == 0);
	m.cpu->reg[RCX] = 1;
	FAULTS(&m, "PKRU_ECX", VECTOR_GP, 0x0f, 0x01, 0xee);
	m.cpu->cr4 &= ~(uint64_t)CR4_PKE;
	FAULTS(&m, "RDPKRU.PKE", VECTOR_UD, 0x0f, 0x01, 0xee);
	machine_close(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fxsave), cmocka_unit_test(test_fxsave_faults),
		cmocka_unit_test(test_xgetbv), cmocka_unit_test(test_xsave),
		cmocka_unit_test(test_xsavec), cmocka_unit_test(test_avx), cmocka_unit_test(test_headers),
		cmocka_unit_test(test_pkru),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
