/* segment_test.c: loads of segment registers, by the tables of SDM 3A chapters 3 and 5. */
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

#define FREE SELECTOR(GDT_FREE, 0)

/* SDM 3A table 3-1 and 3-2: what DS (and ES, FS, GS) and SS take. */
static const struct {
	uint32_t type; /* with S */
	bool data, stack, conforming;
} types[] = {
	{SEG_S | 0, true, false, false},  /* read-only */
	{SEG_S | 1, true, false, false},
	{SEG_S | 2, true, true, false},   /* read/write */
	{SEG_S | 3, true, true, false},
	{SEG_S | 4, true, false, false},  /* read-only, expand-down */
	{SEG_S | 5, true, false, false},
	{SEG_S | 6, true, true, false},   /* read/write, expand-down */
	{SEG_S | 7, true, true, false},
	{SEG_S | 8, false, false, false}, /* execute-only */
	{SEG_S | 9, false, false, false},
	{SEG_S | 10, true, false, false}, /* execute/read */
	{SEG_S | 11, true, false, false},
	{SEG_S | 12, false, false, true}, /* execute-only, conforming */
	{SEG_S | 13, false, false, true},
	{SEG_S | 14, true, false, true},  /* execute/read, conforming */
	{SEG_S | 15, true, false, true},
	{0, false, false, false}, {1, false, false, false}, {2, false, false, false}, {3, false, false, false},
	{4, false, false, false}, {5, false, false, false}, {6, false, false, false}, {7, false, false, false},
	{8, false, false, false}, {9, false, false, false}, {10, false, false, false}, {11, false, false, false},
	{12, false, false, false}, {13, false, false, false}, {14, false, false, false}, {15, false, false, false},
};
#define EACH_TYPE (unsigned t = 0; t < sizeof(types) / sizeof(types[0]); t++)

static void load(enum segment_register segment, uint16_t selector)
{
	sys.cpu->reg[RAX] = selector;
	RUN(&sys, 0x8e, (uint8_t)(0xc0 | segment << 3)); /* mov sreg, ax */
}

/* CPL and RPL must not be above DPL, but for conforming code (SDM 3A 5.6, 5.6.1). */
static void data_by_type_and_privilege(void **state)
{
	(void)state;
	for EACH_TYPE
		for (unsigned n = 0; n < 64; n++) {
			unsigned dpl = n & 3, rpl = n >> 2 & 3, cpl = n >> 4;
			bool privileged = types[t].conforming || (cpl <= dpl && rpl <= dpl);

			system_start(&sys, SYSTEM_PM32, cpl);
			gdt_put(&sys, GDT_FREE, 0x1234, 0xfff, SEG_P | types[t].type | DPL(dpl));
			load(FS, FREE | (uint16_t)rpl);
			if (types[t].data && privileged) {
				ASSERT_RUNS(&sys);
				assert_int_equal(sys.cpu->segment[FS].s.selector, FREE | rpl);
				assert_int_equal(sys.cpu->segment[FS].s.base, 0x1234);
				assert_int_equal(sys.cpu->segment[FS].s.limit, 0xfff);
				assert_int_equal(sys.cpu->segment[FS].s.attributes,
						 SEG_P | types[t].type | SEG_ACCESSED | DPL(dpl));
				assert_int_equal(get(&sys, GDT_AT + FREE + 5, 1) & 1, 1);
			} else {
				ASSERT_FAULT(&sys, VECTOR_GP, FREE);
			}
		}
}

/* SS: writable data with RPL = DPL = CPL (SDM 3A 5.7). */
static void stack_by_type_and_privilege(void **state)
{
	(void)state;
	for EACH_TYPE
		for (unsigned n = 0; n < 64; n++) {
			unsigned dpl = n & 3, rpl = n >> 2 & 3, cpl = n >> 4;

			system_start(&sys, SYSTEM_PM32, cpl);
			gdt_put(&sys, GDT_FREE, 0, 0xffff, SEG_P | types[t].type | DPL(dpl));
			load(SS, FREE | (uint16_t)rpl);
			if (types[t].stack && dpl == cpl && rpl == cpl) {
				ASSERT_RUNS(&sys);
				assert_int_equal(sys.cpu->shadow, SHADOW_MOV_SS);
				assert_int_equal(sys.cpu->stack_mask, 0xffff);
			} else {
				ASSERT_FAULT(&sys, VECTOR_GP, FREE);
			}
		}
}

static void not_present(void **state)
{
	(void)state;
	system_start(&sys, SYSTEM_PM32, 0);
	gdt_put(&sys, GDT_FREE, 0, 0xffff, SEG_S | SEG_WRITABLE);
	load(DS, FREE);
	ASSERT_FAULT(&sys, VECTOR_NP, FREE);
	system_start(&sys, SYSTEM_PM32, 0);
	gdt_put(&sys, GDT_FREE, 0, 0xffff, SEG_S | SEG_WRITABLE);
	load(SS, FREE);
	ASSERT_FAULT(&sys, VECTOR_SS, FREE);
	/* Type and privilege come before presence (SDM 2B MOV). */
	system_start(&sys, SYSTEM_PM32, 3);
	gdt_put(&sys, GDT_FREE, 0, 0xffff, SEG_S | SEG_WRITABLE);
	load(DS, FREE);
	ASSERT_FAULT(&sys, VECTOR_GP, FREE);
}

static void table_limits(void **state)
{
	(void)state;
	system_start(&sys, SYSTEM_PM32, 0);
	sys.cpu->gdtr.limit = GDT_FREE * 8 + 7;
	gdt_put(&sys, GDT_FREE, 0, 0xffff, DATA_ATTRIBUTES);
	load(ES, FREE);
	ASSERT_RUNS(&sys);
	system_start(&sys, SYSTEM_PM32, 0);
	sys.cpu->gdtr.limit = GDT_FREE * 8 + 6;
	gdt_put(&sys, GDT_FREE, 0, 0xffff, DATA_ATTRIBUTES);
	load(ES, FREE);
	ASSERT_FAULT(&sys, VECTOR_GP, FREE);
	/* From the LDT, which may be absent. */
	system_start(&sys, SYSTEM_PM32, 0);
	put(&sys, LDT_AT + 8, descriptor_make(0x500, 0xffff, DATA_ATTRIBUTES), 8);
	load(ES, 8 | SELECTOR_TI);
	ASSERT_RUNS(&sys);
	assert_int_equal(sys.cpu->segment[ES].s.base, 0x500);
	system_start(&sys, SYSTEM_PM32, 0);
	put(&sys, LDT_AT + 8, descriptor_make(0x500, 0xffff, DATA_ATTRIBUTES), 8);
	sys.cpu->ldtr.s.attributes = SEG_UNUSABLE;
	load(ES, 8 | SELECTOR_TI);
	ASSERT_FAULT(&sys, VECTOR_GP, 8 | SELECTOR_TI);
}

/* A null selector is loaded without a fault; the use of the segment faults (SDM 3A 3.4.2, 5.4.1). */
static void null_data(void **state)
{
	(void)state;
	for (uint16_t selector = 0; selector < 4; selector++) {
		system_start(&sys, SYSTEM_PM32, 3);
		load(ES, selector);
		ASSERT_RUNS(&sys);
		assert_int_equal(sys.cpu->segment[ES].s.selector, selector);
		sys.cpu->rip = CODE_AT;
		RUN(&sys, 0x26, 0xa0, 0, 0xa0, 0, 0); /* mov al, es:[0xa000] */
		ASSERT_FAULT(&sys, VECTOR_GP, 0);
	}
}

/* SS: only in 64-bit mode, below CPL 3, with RPL = CPL (SDM 2B MOV). */
static void null_stack(void **state)
{
	(void)state;
	for (enum system_mode mode = SYSTEM_PM16; mode <= SYSTEM_LONG; mode++)
		for (unsigned n = 0; n < 16; n++) {
			unsigned cpl = n & 3, rpl = n >> 2;

			system_start(&sys, mode, cpl);
			load(SS, (uint16_t)rpl);
			if (mode == SYSTEM_LONG && cpl < 3 && rpl == cpl) {
				ASSERT_RUNS(&sys);
				assert_int_equal(sys.cpu->segment[SS].s.selector, rpl);
				assert_int_equal(sys.cpu->cpl, cpl);
			} else {
				ASSERT_FAULT(&sys, VECTOR_GP, 0);
			}
		}
}

/* Intel clears the base of a null FS; AMD keeps it without NullSelectClearsBase (APM 2 4.5.3). */
static void null_base(void **state)
{
	static const struct {
		const char *profile;
		uint64_t base;
	} rows[] = {{"intel", 0}, {"amd", 0}, {"amd,-null_sel_clr_base", 0x1234}};

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		struct system s;

		system_open(&s, rows[i].profile);
		system_start(&s, SYSTEM_LONG, 0);
		s.cpu->segment[FS].s.base = 0x1234;
		s.cpu->reg[RAX] = 0;
		RUN(&s, 0x8e, 0xe0);
		ASSERT_RUNS(&s);
		assert_int_equal(s.cpu->segment[FS].s.base, rows[i].base);
		assert_int_equal(s.cpu->segment[FS].linear_base, rows[i].base);
		system_close(&s);
	}
}

/* Real mode sets selector and base alone; virtual-8086 mode the limit as well (SDM 3A 20.1.1, 20.2.1). */
static void real_modes(void **state)
{
	(void)state;
	system_start(&sys, SYSTEM_REAL, 0);
	sys.cpu->segment[DS].s.limit = 0xffffffff;
	load(DS, 0xabcd);
	ASSERT_RUNS(&sys);
	assert_int_equal(sys.cpu->segment[DS].s.base, 0xabcd0);
	assert_int_equal(sys.cpu->segment[DS].s.limit, 0xffffffff);
	system_start(&sys, SYSTEM_VM86, 3);
	sys.cpu->segment[DS].s.limit = 0xffffffff;
	load(DS, 0xabcd);
	ASSERT_RUNS(&sys);
	assert_int_equal(sys.cpu->segment[DS].s.base, 0xabcd0);
	assert_int_equal(sys.cpu->segment[DS].s.limit, 0xffff);
	assert_int_equal(sys.cpu->segment[DS].s.attributes, DATA_ATTRIBUTES | DPL(3));
}

/* Limits: the last byte inside runs, one further faults; expand-down the other way round (SDM 3A 5.3). */
static void limits(void **state)
{
	static const struct {
		uint32_t attributes, limit, offset;
		bool inside;
	} rows[] = {
		{DATA_ATTRIBUTES, 0xfff, 0xffc, true},
		{DATA_ATTRIBUTES, 0xfff, 0xffd, false},
		{DATA_ATTRIBUTES | SEG_G, 1, 0x1ffc, true},
		{DATA_ATTRIBUTES | SEG_G, 1, 0x1ffd, false},
		{DATA_ATTRIBUTES | SEG_EXPAND_DOWN, 0xfff, 0x1000, true},
		{DATA_ATTRIBUTES | SEG_EXPAND_DOWN, 0xfff, 0xfff, false},
		{DATA_ATTRIBUTES | SEG_EXPAND_DOWN, 0xfff, 0xfffc, true},
		{DATA_ATTRIBUTES | SEG_EXPAND_DOWN, 0xfff, 0xfffd, false},
		{DATA_ATTRIBUTES | SEG_EXPAND_DOWN | SEG_DB, 0xfff, 0x10000, true},
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		system_start(&sys, SYSTEM_PM32, 0);
		gdt_put(&sys, GDT_FREE, 0x20000, rows[i].limit, rows[i].attributes);
		load(FS, FREE);
		ASSERT_RUNS(&sys);
		sys.cpu->reg[RCX] = rows[i].offset;
		sys.cpu->rip = CODE_AT;
		RUN(&sys, 0x64, 0x8b, 0x01); /* mov eax, fs:[ecx] */
		if (rows[i].inside)
			ASSERT_RUNS(&sys);
		else
			ASSERT_FAULT(&sys, VECTOR_GP, 0);
	}
}

/* ---- LAR, LSL, VERR, VERW, ARPL ---- */

/* SDM 2A, tables of LAR and LSL: legacy mode, IA-32e mode. */
static const struct {
	unsigned type;
	bool lar, lsl, lar_ia32e, lsl_ia32e;
} system_types[] = {
	{0, false, false, false, false}, {1, true, true, false, false},   {2, true, true, true, true},
	{3, true, true, false, false},   {4, true, false, false, false},  {5, true, false, false, false},
	{6, false, false, false, false}, {7, false, false, false, false}, {8, false, false, false, false},
	{9, true, true, true, true},     {10, false, false, false, false}, {11, true, true, true, true},
	{12, true, false, true, false},  {13, false, false, false, false}, {14, false, false, false, false},
	{15, false, false, false, false},
};

static bool zf_after(enum system_mode mode, uint8_t second, uint8_t modrm)
{
	(void)mode;
	sys.cpu->reg[RAX] = FREE;
	sys.cpu->reg[RCX] = 0x5555555555555555;
	flags_set(&sys.cpu->lazy, RFLAGS_STATUS & ~RFLAGS_ZF);
	RUN(&sys, 0x0f, second, modrm);
	ASSERT_RUNS(&sys);
	assert_int_equal(rflags_get(sys.cpu) & RFLAGS_STATUS & ~RFLAGS_ZF, RFLAGS_STATUS & ~RFLAGS_ZF);
	return flags_zf(&sys.cpu->lazy);
}

static void lar_lsl_system_types(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 16; i++)
		for (unsigned wide = 0; wide < 2; wide++) {
			enum system_mode mode = wide ? SYSTEM_LONG : SYSTEM_PM32;

			system_start(&sys, mode, 0);
			gdt_put(&sys, GDT_FREE, 0, 0xa1234, SEG_P | system_types[i].type);
			bool lar = zf_after(mode, 0x02, 0xc8); /* lar ecx, eax */
			assert_int_equal(lar, wide ? system_types[i].lar_ia32e : system_types[i].lar);
			if (lar)
				assert_int_equal(sys.cpu->reg[RCX], (SEG_P | system_types[i].type) << 8);
			else
				assert_int_equal(sys.cpu->reg[RCX], 0x5555555555555555);
			system_start(&sys, mode, 0);
			gdt_put(&sys, GDT_FREE, 0, 0xa1234, SEG_P | system_types[i].type);
			bool lsl = zf_after(mode, 0x03, 0xc8); /* lsl ecx, eax */
			assert_int_equal(lsl, wide ? system_types[i].lsl_ia32e : system_types[i].lsl);
			if (lsl)
				assert_int_equal(sys.cpu->reg[RCX], 0xa1234);
		}
}

/* In IA-32e mode the upper half of a 16-byte descriptor has no type (SDM 2A LSL). */
static void lar_lsl_upper_type(void **state)
{
	(void)state;
	for (unsigned upper = 0; upper < 2; upper++)
		for (unsigned wide = 0; wide < 2; wide++) {
			enum system_mode mode = wide ? SYSTEM_LONG : SYSTEM_PM32;

			for (uint8_t second = 0x02; second <= 0x03; second++) {
				system_start(&sys, mode, 0);
				gdt_put(&sys, GDT_FREE, 0, 0xa1234, SEG_P | TYPE_LDT);
				put(&sys, GDT_AT + 8 * (GDT_FREE + 1), (uint64_t)upper << 40, 8);
				assert_int_equal(zf_after(mode, second, 0xc8), !(upper && wide));
			}
		}
}

static void verr_verw_by_type(void **state)
{
	(void)state;
	for EACH_TYPE
		for (unsigned n = 0; n < 64; n++) {
			unsigned dpl = n & 3, rpl = n >> 2 & 3, cpl = n >> 4;
			bool code = types[t].type & SEG_S && types[t].type & SEG_CODE;
			bool data = types[t].type & SEG_S && !code;
			bool privileged = types[t].conforming || (cpl <= dpl && rpl <= dpl);
			bool readable = data || (code && types[t].type & SEG_READABLE);

			for (unsigned write = 0; write < 2; write++) {
				system_start(&sys, SYSTEM_PM32, cpl);
				gdt_put(&sys, GDT_FREE, 0, 0, SEG_P | types[t].type | DPL(dpl));
				sys.cpu->reg[RAX] = FREE | rpl;
				RUN(&sys, 0x0f, 0x00, write ? 0xe8 : 0xe0);
				ASSERT_RUNS(&sys);
				bool usable = write ? types[t].stack : readable;
				assert_int_equal(flags_zf(&sys.cpu->lazy), usable && privileged);
			}
		}
}

static void looking_needs_protected_mode(void **state)
{
	static const uint8_t code[][3] = {{0x0f, 0x02, 0xc8}, {0x0f, 0x03, 0xc8}, {0x0f, 0x00, 0xe0},
					  {0x0f, 0x00, 0xe8}, {0x63, 0xc8, 0x90}};

	(void)state;
	for (unsigned i = 0; i < 5; i++) {
		system_start(&sys, SYSTEM_REAL, 0);
		system_run(&sys, code[i], 3);
		ASSERT_FAULT(&sys, VECTOR_UD, 0);
		system_start(&sys, SYSTEM_VM86, 3);
		system_run(&sys, code[i], 3);
		ASSERT_FAULT(&sys, VECTOR_UD, 0);
	}
}

static void arpl(void **state)
{
	(void)state;
	for (unsigned n = 0; n < 16; n++) {
		unsigned to = n & 3, from = n >> 2;

		system_start(&sys, SYSTEM_PM32, 3);
		sys.cpu->reg[RAX] = 0xaaaa5550 | to;
		sys.cpu->reg[RCX] = 0x1230 | from;
		RUN(&sys, 0x63, 0xc8);
		ASSERT_RUNS(&sys);
		assert_int_equal(flags_zf(&sys.cpu->lazy), to < from);
		assert_int_equal(sys.cpu->reg[RAX], 0xaaaa5550 | (to < from ? from : to));
	}
}

/* ---- PUSH, POP, LSS ---- */

static void push_pop(void **state)
{
	(void)state;
	system_start(&sys, SYSTEM_PM32, 0);
	put(&sys, STACK_AT - 4, 0xaaaaaaaa, 4);
	RUN(&sys, 0x1e); /* push ds: Intel moves 16 bits (SDM 2B PUSH) */
	ASSERT_RUNS(&sys);
	assert_int_equal(sys.cpu->reg[RSP], STACK_AT - 4);
	assert_int_equal(get(&sys, STACK_AT - 4, 4), 0xaaaa0000 | SELECTOR(GDT_DATA32, 0));

	system_start(&sys, SYSTEM_LONG, 0);
	put(&sys, STACK_AT, SELECTOR(GDT_DATA32 + 3, 3), 8);
	RUN(&sys, 0x0f, 0xa9); /* pop gs */
	ASSERT_RUNS(&sys);
	assert_int_equal(sys.cpu->reg[RSP], STACK_AT + 8);
	assert_int_equal(sys.cpu->segment[GS].s.selector, SELECTOR(GDT_DATA32 + 3, 3));

	system_start(&sys, SYSTEM_PM32, 0);
	put(&sys, STACK_AT, FREE, 4); /* not a segment: nothing changes, RSP neither */
	RUN(&sys, 0x17);
	ASSERT_FAULT(&sys, VECTOR_GP, FREE);
}

/* LSS with REX.W: m16:64 on Intel, m16:32 on AMD (SDM 2A LDS, APM 3 LFS). */
static void far_pointer_width(void **state)
{
	static const char *const profiles[] = {"intel", "amd"};

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		struct system s;

		system_open(&s, profiles[i]);
		system_start(&s, SYSTEM_LONG, 0);
		put(&s, DATA_AT, 0x1122334455667788, 8);
		put(&s, DATA_AT + (i ? 4 : 8), SELECTOR(GDT_DATA32, 0), 2);
		s.cpu->reg[RBX] = DATA_AT;
		RUN(&s, 0x48, 0x0f, 0xb5, 0x03); /* lgs rax, [rbx] */
		ASSERT_RUNS(&s);
		assert_int_equal(s.cpu->reg[RAX], i ? 0x55667788 : 0x1122334455667788);
		assert_int_equal(s.cpu->segment[GS].s.selector, SELECTOR(GDT_DATA32, 0));
		system_close(&s);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(data_by_type_and_privilege), cmocka_unit_test(stack_by_type_and_privilege),
		cmocka_unit_test(not_present),                cmocka_unit_test(table_limits),
		cmocka_unit_test(null_data),                  cmocka_unit_test(null_stack),
		cmocka_unit_test(null_base),                  cmocka_unit_test(real_modes),
		cmocka_unit_test(limits),                     cmocka_unit_test(lar_lsl_system_types),
		cmocka_unit_test(lar_lsl_upper_type),
		cmocka_unit_test(verr_verw_by_type),          cmocka_unit_test(looking_needs_protected_mode),
		cmocka_unit_test(arpl),                       cmocka_unit_test(push_pop),
		cmocka_unit_test(far_pointer_width),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
