/*
 * Random code in every mode on random state. Each round ends in a stop reason within its budget,
 * and ends alike whether it ran as traces or one instruction at a time with a trace being written:
 * the fast path and the slow one are each other's oracle.
 */
#define RAM 0x40000u
#include "fuzz/rig.h"

#include "x86/descriptors.h"
#include "x86/paging.h"

#define GDT      0x2000u
#define IDT      0x3000u
#define TSS      0x5000u
#define CODE     0x8000u
#define HANDLERS 0x7000u
#define STACK    0x1c000u
#define TABLES   0x10000u
#define BUDGET   120u

enum mode { REAL, VM86, FLAT16, FLAT32, PAGED32, PAE, COMPAT, LONG, MODES };

/* ---- what is in memory ---- */

/* Bytes that are more often instructions than chance would have it. */
static void make_code(struct fuzz *fuzz)
{
	static const uint8_t prefixes[] = {0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x2e, 0x36,
					   0x3e, 0x64, 0x65, 0x48, 0x41, 0x4f};
	uint8_t *at = image + CODE, *end = image + CODE + 0x1000;

	for (uint8_t *p = at; p < end + 0x1000; p++)
		*p = (uint8_t)fuzz_next(fuzz);
	while (at + 24 < end) {
		unsigned kind = fuzz_below(fuzz, 16);

		for (unsigned n = fuzz_below(fuzz, 4); n > 1; n--)
			*at++ = prefixes[fuzz_below(fuzz, sizeof(prefixes))];
		if (kind < 8)
			*at++ = 0x0f;
		if (kind == 0)
			*at++ = fuzz_one_in(fuzz, 3) ? 0x3a : 0x38;
		*at++ = (uint8_t)fuzz_next(fuzz);
		*at++ = (uint8_t)(fuzz_next(fuzz) | (fuzz_one_in(fuzz, 2) ? 0xc0 : 0));
		at += fuzz_below(fuzz, 6);
	}
}

static uint64_t gate(struct fuzz *fuzz, bool wide, unsigned vector)
{
	bool skip = vector < 32 && !fuzz_one_in(fuzz, 8);
	uint64_t offset = skip ? HANDLERS + 16 * vector : CODE + fuzz_below(fuzz, 0xf00);
	uint64_t selector = 8u + 8u * (fuzz_below(fuzz, 8) == 0);
	uint64_t type = fuzz_one_in(fuzz, 16) ? fuzz_below(fuzz, 256)
			: wide                ? 0xee
					      : 0xee - 8u * fuzz_one_in(fuzz, 8);

	return (offset & 0xffff) | selector << 16 | type << 40;
}

static void make_tables(struct fuzz *fuzz, enum mode mode)
{
	static const uint64_t segments[] = {0,
					    0x00cf9b000000ffff,
					    0x00cf93000000ffff,
					    0x00cffb000000ffff,
					    0x00cff3000000ffff,
					    0x00af9b000000ffff,
					    0x00affb000000ffff,
					    0x00009b000000ffff,
					    0x000093000000ffff};
	bool wide = mode == LONG || mode == COMPAT;

	for (unsigned i = 0; i < 64; i++)
		put(GDT + 8 * i, i < 9 && !fuzz_one_in(fuzz, 20) ? segments[i] : fuzz_next(fuzz), 8);
	if (wide)
		put(GDT + 8, segments[5], 8);
	put(GDT + 0x80, 0x00008b0000000000ull | TSS << 16 | 0x2ff, 8);
	put(GDT + 0x88, 0, 8);
	rig_put_handlers(fuzz, HANDLERS, wide);
	for (unsigned i = 0; i < 256; i++) {
		if (wide) {
			put(IDT + 16 * i, gate(fuzz, true, i), 8);
			put(IDT + 16 * i + 8, 0, 8);
		} else if (mode == REAL) {
			put(4 * i, (uint64_t)(CODE / 16) << 16 | fuzz_below(fuzz, 0xf00), 4);
		} else {
			put(IDT + 8 * i, gate(fuzz, false, i), 8);
		}
	}
	for (unsigned i = 0; i < 0x300; i += 8)
		put(TSS + i, fuzz_one_in(fuzz, 3) ? fuzz_next(fuzz) : 0, 8);
	put(TSS + TSS32_ESP(0), STACK, 4);
	put(TSS + TSS32_SS(0), 0x10, 4);
	if (wide)
		put(TSS + TSS64_RSP(0), STACK, 8);
}

/* The first 2 MiB at their own address, user pages, with some entries as chance has them. */
static void make_paging(struct fuzz *fuzz)
{
	put(TABLES, (TABLES + 0x1000) | 7, 8);
	put(TABLES + 0x1000, (TABLES + 0x2000) | 7, 8);
	put(TABLES + 0x2000, (TABLES + 0x3000) | 7, 8);
	put(TABLES + 0x4000, (TABLES + 0x2000) | 1, 8);
	put(TABLES + 0x5000, (TABLES + 0x6000) | 7, 4);
	for (uint32_t i = 0; i < 512; i++) {
		bool odd = fuzz_one_in(fuzz, 64);
		uint64_t change = odd ? 1ull << fuzz_below(fuzz, 64) : 0;

		put(TABLES + 0x3000 + 8 * i, ((uint64_t)i << 12 | 7) ^ change, 8);
		put(TABLES + 0x6000 + 4 * i, ((uint64_t)i << 12 | 7) ^ (change & 0xffffffff), 4);
	}
}

/* ---- what is in the registers ---- */

static uint64_t operand(struct fuzz *fuzz)
{
	switch (fuzz_below(fuzz, 4)) {
	case 0: return fuzz_next(fuzz);
	case 1: return fuzz_next(fuzz) >> fuzz_below(fuzz, 64);
	case 2: return CODE + fuzz_below(fuzz, 0x1000);
	default: return fuzz_below(fuzz, RAM);
	}
}

static struct segment flat(uint32_t attributes, uint16_t selector, uint64_t base, uint32_t limit)
{
	return (struct segment){.base = base,
				.limit = limit,
				.selector = selector,
				.attributes = attributes | SEG_P | SEG_S | SEG_ACCESSED};
}

static void make_segments(struct fuzz *fuzz, struct vcpu_state *s, enum mode mode)
{
	bool small = mode == REAL || mode == VM86;
	unsigned cpl = mode == VM86 ? 3 : mode == REAL ? 0 : 3u * fuzz_one_in(fuzz, 2);
	uint32_t dpl = cpl << SEG_DPL_SHIFT;
	uint32_t size = mode == LONG ? SEG_L : mode == FLAT16 || small ? 0 : SEG_DB;

	for (unsigned i = 0; i < SEGMENT_COUNT; i++) {
		if (small)
			s->segment[i] = flat(SEG_WRITABLE | dpl, CODE / 16, CODE, 0xffff);
		else
			s->segment[i] = flat(SEG_WRITABLE | dpl | SEG_DB | SEG_G,
					     (uint16_t)(cpl ? 0x23 : 0x10), 0, 0xffffffff);
	}
	if (!small)
		s->segment[CS] = flat(SEG_CODE | SEG_READABLE | dpl | size | SEG_G,
				      (uint16_t)(cpl ? 0x1b : 0x08), 0, 0xffffffff);
	s->rip = small ? 0 : CODE;
	s->gpr[RSP] = small ? 0x7ff0 : STACK;
	if (fuzz_one_in(fuzz, 8))
		s->gpr[RSP] = operand(fuzz);
}

static void make_control(struct fuzz *fuzz, struct vcpu_state *s, enum mode mode)
{
	bool wide = mode == LONG || mode == COMPAT;
	uint64_t allowed = CR4_VME | CR4_PVI | CR4_TSD | CR4_DE | CR4_PSE | CR4_PGE | CR4_PCE | CR4_OSFXSR |
			   CR4_OSXMMEXCPT;

	s->cr0 = CR0_ET | CR0_NE | (fuzz_next(fuzz) & (CR0_MP | CR0_EM | CR0_TS | CR0_WP | CR0_AM));
	if (fuzz_one_in(fuzz, 2))
		s->cr0 &= ~(uint64_t)(CR0_EM | CR0_TS);
	if (mode != REAL)
		s->cr0 |= CR0_PE;
	if (mode >= PAGED32 || (mode == VM86 && fuzz_one_in(fuzz, 2)))
		s->cr0 |= CR0_PG;
	s->cr4 = fuzz_next(fuzz) & allowed;
	if (mode == PAE || wide)
		s->cr4 |= CR4_PAE;
	s->cr3 = wide ? TABLES : mode == PAE ? TABLES + 0x4000 : TABLES + 0x5000;
	s->pdpte[0] = mode == PAE ? (TABLES + 0x2000) | 1 : 0;
	s->efer = (wide ? EFER_LME | EFER_LMA : 0) | (fuzz_next(fuzz) & (EFER_SCE | EFER_NXE));
	s->rflags = RFLAGS_FIXED | (fuzz_next(fuzz) & 0x40dd5) | (mode == VM86 ? RFLAGS_VM : 0) |
		    (fuzz_next(fuzz) & 0x3000);
	if (fuzz_one_in(fuzz, 8))
		s->rflags |= RFLAGS_TF;
	if (fuzz_one_in(fuzz, 8)) {
		s->dr7 = DR7_FIXED_1 | (fuzz_next(fuzz) & 0xffff03ff);
		for (unsigned i = 0; i < 4; i++)
			s->dr[i] = operand(fuzz);
	}
}

static void make_state(struct fuzz *fuzz, struct vcpu_state *s, enum mode mode)
{
	for (unsigned i = 0; i < GPR_COUNT; i++)
		s->gpr[i] = operand(fuzz) & (mode == LONG ? ~0ull : 0xffffffff);
	make_segments(fuzz, s, mode);
	make_control(fuzz, s, mode);
	s->gdtr = (struct table_register){GDT, 0x1ff};
	s->idtr = mode == REAL ? (struct table_register){0, 0x3ff} : (struct table_register){IDT, 0xfff};
	s->tr = (struct segment){
		.base = TSS, .limit = 0x2ff, .selector = 0x80, .attributes = SEG_P | TYPE_TSS_BUSY};
	s->lstar = s->cstar = CODE + fuzz_below(fuzz, 0xf00);
	s->star = 0x0010000800000000;
	s->sysenter_cs = 8;
	s->sysenter_eip = CODE + fuzz_below(fuzz, 0xf00);
	s->sysenter_esp = STACK;
	for (unsigned i = 0; i < 8; i++)
		s->st[i] = (struct x87_register){fuzz_next(fuzz), (uint16_t)fuzz_next(fuzz)};
	for (unsigned i = 0; i < 64; i++)
		s->vector[i] = fuzz_one_in(fuzz, 2) ? operand(fuzz) : fuzz_next(fuzz);
	s->ftw = (uint16_t)fuzz_next(fuzz);
	s->fcw = fuzz_one_in(fuzz, 2) ? 0x37f : (uint16_t)(fuzz_next(fuzz) & 0x1f7f);
	if (fuzz_one_in(fuzz, 4))
		s->mxcsr = (uint32_t)fuzz_next(fuzz) & 0xffbf;
	s->shadow = (uint32_t)fuzz_below(fuzz, 3);
	s->nmi_pending = fuzz_one_in(fuzz, 16);
}

/* ---- rounds ---- */

static void run(const struct vcpu_state *state, bool traced, struct rig_result *result)
{
	rig_begin(state, traced);
	rig_end(engine_soft.run(rig.engine, BUDGET), result);
}

static void round_of_code(struct fuzz *fuzz, uint64_t round)
{
	static struct rig_result fast, slow;
	enum mode mode = (enum mode)(round % MODES);
	struct vcpu_state state = rig.reset;

	memset(image, 0, sizeof(image));
	for (unsigned i = 0x20000; i < RAM; i += 8)
		put(i, operand(fuzz), 8);
	make_tables(fuzz, mode);
	make_paging(fuzz);
	make_code(fuzz);
	make_state(fuzz, &state, mode);
	run(&state, false, &fast);
	memcpy(found, ram, RAM);
	if (fast.exit == ENGINE_FAILED && !fast.failure[0])
		fail_msg("FUZZ_ROUND=%llu: failed without a reason", (unsigned long long)round);
	/* The trap behind the last instruction may come on top of the budget. */
	rig_count(round, &fast, BUDGET + 3);
	run(&state, true, &slow);
	assert_true(rig.lines > 0);
	if (rig.rewritten)
		return;
	rig_compare(round, "one by one", &fast, &slow);
	for (unsigned i = 0; i < RAM; i++)
		if (found[i] != ram[i])
			fail_msg("FUZZ_ROUND=%llu: memory differs at 0x%x", (unsigned long long)round, i);
}

static void fuzz_cpu(const char *cpu, uint64_t rounds)
{
	rig_open(cpu);
	fuzz_rounds(rounds, round_of_code);
	print_message("%llu instructions: %u budget, %u halt, %u shutdown, %u not modelled\n",
		      (unsigned long long)rig.retired, rig.exits[ENGINE_BUDGET], rig.exits[ENGINE_HALTED],
		      rig.exits[ENGINE_SHUTDOWN], rig.exits[ENGINE_FAILED]);
	rig_close();
}

static void random_code_on_amd(void **state)
{
	(void)state;
	fuzz_cpu("amd,-rdrand,-rdseed", 3000);
}

static void random_code_on_intel(void **state)
{
	(void)state;
	fuzz_cpu("intel,-rdrand,-rdseed", 3000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_code_on_amd),
		cmocka_unit_test(random_code_on_intel),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
