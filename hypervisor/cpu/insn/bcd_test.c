/*
 * bcd_test.c: decimal adjustment, for every AL, AH (where it matters), AF and CF, against the
 * operations as SDM 2A defines them. Written from the manual: 64-bit hosts cannot run them.
 */
#include "cpu/insn/machine_test.h"

struct decimal {
	unsigned ax;
	bool cf, af;
};

/* SDM 2A DAA, "Operation". */
static struct decimal expect_daa(struct decimal in)
{
	unsigned al = in.ax & 0xff, old_al = al;
	struct decimal out = {in.ax & 0xff00, false, false};

	if ((al & 15) > 9 || in.af) {
		al += 6;
		out.cf = in.cf || al > 0xff;
		out.af = true;
		al &= 0xff;
	}
	if (old_al > 0x99 || in.cf) {
		al += 0x60;
		out.cf = true;
	} else {
		out.cf = false;
	}
	out.ax |= al & 0xff;
	return out;
}

static struct decimal expect_das(struct decimal in)
{
	unsigned al = in.ax & 0xff, old_al = al;
	struct decimal out = {in.ax & 0xff00, false, false};

	if ((al & 15) > 9 || in.af) {
		out.cf = in.cf || al < 6;
		out.af = true;
		al = (al - 6) & 0xff;
	}
	if (old_al > 0x99 || in.cf) {
		al = (al - 0x60) & 0xff;
		out.cf = true;
	}
	out.ax |= al;
	return out;
}

static struct decimal expect_aaa(struct decimal in)
{
	struct decimal out = in;

	out.cf = out.af = (in.ax & 15) > 9 || in.af;
	if (out.af)
		out.ax = (out.ax + 0x106) & 0xffff;
	out.ax &= 0xff0f;
	return out;
}

static struct decimal expect_aas(struct decimal in)
{
	struct decimal out = in;

	out.cf = out.af = (in.ax & 15) > 9 || in.af;
	if (out.af) {
		out.ax = (out.ax - 6) & 0xffff;
		out.ax = (out.ax - 0x100) & 0xffff;
	}
	out.ax &= 0xff0f;
	return out;
}

static void check_adjust(struct machine *m, uint8_t opcode, struct decimal in, struct decimal want,
			 bool result_flags)
{
	unsigned al = want.ax & 0xff;
	uint64_t flags;

	m->cpu->reg[RAX] = 0xdead0000 | in.ax;
	machine_set_flags(m, (in.cf ? RFLAGS_CF : 0) | (in.af ? RFLAGS_AF : 0));
	machine_run(m, &opcode, 1, 1);
	flags = flags_get(&m->cpu->lazy);
	if (m->cpu->reg[RAX] != (0xdead0000 | want.ax) || !!(flags & RFLAGS_CF) != want.cf ||
	    !!(flags & RFLAGS_AF) != want.af)
		fail_msg("%02x of %04x cf %d af %d: %llx flags %llx, want %04x cf %d af %d", opcode, in.ax,
			 in.cf, in.af, (unsigned long long)m->cpu->reg[RAX], (unsigned long long)flags,
			 want.ax, want.cf, want.af);
	if (!result_flags)
		return;
	assert_int_equal(!!(flags & RFLAGS_ZF), al == 0);
	assert_int_equal(!!(flags & RFLAGS_SF), al >> 7);
	assert_int_equal(!!(flags & RFLAGS_PF), !__builtin_parity(al));
}

static void adjusts_as_defined(void **state)
{
	struct machine m;

	(void)state;
	machine_open(&m, "intel");
	machine_mode(&m, CODE_32);
	for (unsigned i = 0; i < 256 * 4 * 4; i++) {
		static const unsigned ah[4] = {0x00, 0x01, 0x7f, 0xff};
		struct decimal in = {ah[i >> 10] << 8 | (i & 0xff), i >> 8 & 1, i >> 9 & 1};

		check_adjust(&m, 0x27, in, expect_daa(in), true);
		check_adjust(&m, 0x2f, in, expect_das(in), true);
		check_adjust(&m, 0x37, in, expect_aaa(in), false);
		check_adjust(&m, 0x3f, in, expect_aas(in), false);
	}
	machine_close(&m);
}

static void aam_and_aad(void **state)
{
	struct machine m;

	(void)state;
	machine_open(&m, "intel");
	machine_mode(&m, CODE_16);
	for (unsigned ax = 0; ax < 0x10000; ax += 37)
		for (unsigned base = 1; base < 256; base += 51) {
			uint8_t aam[2] = {0xd4, (uint8_t)base}, aad[2] = {0xd5, (uint8_t)base};
			unsigned al = ax & 0xff;

			m.cpu->reg[RAX] = ax;
			machine_run(&m, aam, 2, 1);
			assert_int_equal(m.cpu->reg[RAX], al / base << 8 | al % base);
			assert_int_equal(flags_zf(&m.cpu->lazy), al % base == 0);
			m.cpu->reg[RAX] = ax;
			machine_run(&m, aad, 2, 1);
			assert_int_equal(m.cpu->reg[RAX], (al + (ax >> 8) * base) & 0xff);
		}
	machine_close(&m);
}

static void aam_by_zero_is_de(void **state)
{
	static const uint8_t aam0[2] = {0xd4, 0};
	struct machine m;

	(void)state;
	machine_open(&m, "intel");
	machine_mode(&m, CODE_32);
	m.cpu->reg[RAX] = 0x1234;
	machine_run(&m, aam0, 2, 2);
	assert_int_equal(m.vector, VECTOR_DE);
	assert_int_equal(m.cpu->reg[RAX], 0x1234);
	machine_close(&m);
}

static void undefined_in_64_bit_mode(void **state)
{
	static const uint8_t opcodes[] = {0x27, 0x2f, 0x37, 0x3f, 0xd4, 0xd5, 0xd6, 0x60, 0x61, 0x82, 0x62};
	struct machine m;

	(void)state;
	machine_open(&m, "amd");
	for (size_t i = 0; i < sizeof(opcodes); i++) {
		uint8_t code[4] = {opcodes[i], 0, 0, 0};

		machine_mode(&m, CODE_64);
		machine_run(&m, code, sizeof(code), 1);
		assert_int_equal(m.vector, VECTOR_UD);
	}
	machine_close(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(adjusts_as_defined),
		cmocka_unit_test(aam_and_aad),
		cmocka_unit_test(aam_by_zero_is_de),
		cmocka_unit_test(undefined_in_64_bit_mode),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
