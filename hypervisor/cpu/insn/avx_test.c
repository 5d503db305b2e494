/*
 * avx_test.c: what the comparison with the host (visor oracle) does not see: the gates of VEX instructions,
 * VZEROUPPER outside 64-bit mode, gathers that a fault interrupts, and what BMI computes on a host without
 * it.
 */
#include "cpu/insn/machine_test.h"
#include "cpu/insn/system_test.h"

#define VADDPS      0xc5, 0xf4, 0x58, 0xc2 /* YMM0 = YMM1 + YMM2 */
#define VZEROUPPER  0xc5, 0xf8, 0x77
#define VZEROALL    0xc5, 0xfc, 0x77
#define VPGATHERDD  0xc4, 0xe2, 0x6d, 0x90, 0x04, 0x0b /* YMM0, [RBX + YMM1], YMM2 */
#define UNMAPPED_AT (MACHINE_BASE + 0x200000)

static void open_avx(struct machine *m, enum code_mode mode)
{
	system_open(m, "intel", mode, 0);
	m->cpu->cr4 |= CR4_OSFXSR | CR4_OSXSAVE;
	m->cpu->xcr0 = 7;
}

static void test_gates(void **state)
{
	struct machine m;

	(void)state;
	open_avx(&m, CODE_64);
	assert_int_equal(RUN(&m, VADDPS), NO_EVENT);
	m.cpu->cr0 |= CR0_EM; /* of no concern to VEX (SDM 2A table 2-19) */
	assert_int_equal(RUN(&m, VADDPS), NO_EVENT);
	m.cpu->cr0 &= ~(uint64_t)CR0_EM;
	m.cpu->cr0 |= CR0_TS;
	FAULTS(&m, "VADDPS.TS", VECTOR_NM, VADDPS);
	m.cpu->xcr0 = 3;
	FAULTS(&m, "VADDPS.AVX", VECTOR_UD, VADDPS); /* before #NM */
	m.cpu->xcr0 = 7;
	m.cpu->cr4 &= ~(uint64_t)CR4_OSXSAVE;
	FAULTS(&m, "VADDPS.AVX", VECTOR_UD, VADDPS);
	machine_close(&m);
}

/* VEX is #UD where VM86 or real-address mode would have LES and LDS (SDM 2A 2.3.5). */
static void test_modes(void **state)
{
	struct machine m;

	(void)state;
	open_avx(&m, CODE_32);
	assert_int_equal(RUN(&m, VADDPS), NO_EVENT);
	m.cpu->cr0 &= ~(uint64_t)CR0_PE;
	cpu_mode_changed(m.cpu);
	assert_int_equal(RUN(&m, VADDPS), VECTOR_UD);
	machine_close(&m);
}

static void test_zero(void **state)
{
	struct machine m;

	(void)state;
	open_avx(&m, CODE_32);
	memset(m.cpu->vector, 0xff, sizeof(m.cpu->vector));
	assert_int_equal(RUN(&m, VZEROUPPER), NO_EVENT);
	assert_true(m.cpu->vector[0] == ~0ull && m.cpu->vector[2] == 0 && m.cpu->vector[31] == 0);
	assert_true(m.cpu->vector[34] == ~0ull); /* YMM8 is out of reach */
	assert_int_equal(RUN(&m, VZEROALL), NO_EVENT);
	assert_true(m.cpu->vector[0] == 0 && m.cpu->vector[32] == ~0ull);
	machine_close(&m);
}

/* Elements below the fault are done, and their masks clear; the rest can go on from there. */
static void test_gather_fault(void **state)
{
	struct machine m;
	uint32_t element = 0x12345678;
	int32_t index[8] = {0, 4, (int32_t)(UNMAPPED_AT - DATA_AT), 0, 0, 0, 0, 0};

	(void)state;
	open_avx(&m, CODE_64);
	machine_write(&m, DATA_AT, &element, 4);
	machine_write(&m, DATA_AT + 4, &element, 4);
	m.cpu->reg[RBX] = DATA_AT;
	memset(m.cpu->vector, 0, sizeof(m.cpu->vector));
	memcpy(&m.cpu->vector[4], index, sizeof(index));
	memset(&m.cpu->vector[8], 0x80, 32);
	assert_int_equal(RUN(&m, VPGATHERDD), VECTOR_PF);
	assert_int_equal(m.cpu->vector[0], 0x1234567812345678);
	assert_int_equal(m.cpu->vector[8], 0);
	assert_int_equal(m.cpu->vector[9], 0x8080808080808080);
	index[2] = 0;
	memcpy(&m.cpu->vector[4], index, sizeof(index));
	assert_int_equal(RUN(&m, VPGATHERDD), NO_EVENT);
	assert_int_equal(m.cpu->vector[3], 0x1234567812345678);
	assert_true(m.cpu->vector[9] == 0 && m.cpu->vector[11] == 0);
	FAULTS(&m, "GATHER_DISTINCT", VECTOR_UD, 0xc4, 0xe2, 0x6d, 0x90, 0x14, 0x0b); /* YMM2 twice */
	machine_close(&m);
}

static void test_bmi(void **state)
{
	struct machine m;

	(void)state;
	open_avx(&m, CODE_64);
	m.cpu->xcr0 = 1; /* BMI needs no state of its own */
	m.cpu->reg[RBX] = 0x00ff00ff00ff00ff;
	m.cpu->reg[RCX] = 0xabcd;
	assert_int_equal(RUN(&m, 0xc4, 0xe2, 0xf3, 0xf5, 0xc3), NO_EVENT); /* PDEP RAX, RCX, RBX */
	assert_int_equal(m.cpu->reg[RAX], 0xab00cd);
	assert_int_equal(RUN(&m, 0xc4, 0xe2, 0xe2, 0xf5, 0xc0), NO_EVENT); /* PEXT RAX, RBX, RAX */
	assert_int_equal(m.cpu->reg[RAX], 0x3ff); /* RBX has ones wherever AB00CDH has */
	m.cpu->reg[RCX] = 0x80;
	assert_int_equal(RUN(&m, 0xc4, 0xe2, 0xf0, 0xf2, 0xc3), NO_EVENT); /* ANDN RAX, RCX, RBX */
	assert_int_equal(m.cpu->reg[RAX], 0x00ff00ff00ff007f);
	machine_close(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_gates), cmocka_unit_test(test_modes),
		cmocka_unit_test(test_zero),  cmocka_unit_test(test_gather_fault),
		cmocka_unit_test(test_bmi),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
