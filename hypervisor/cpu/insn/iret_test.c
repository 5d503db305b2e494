/* iret_test.c: IRET, PUSHF, POPF, CLI and STI, by SDM 2A IRET, 2B POPF and SDM 3A chapter 20. */
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

#define TARGET 0x9000u
#define ALL    (uint64_t)RFLAGS_DEFINED

/* Flags that a form may change, by name of the rule. */
#define BASIC (RFLAGS_STATUS | RFLAGS_TF | RFLAGS_DF | RFLAGS_NT)
#define WIDE  (RFLAGS_RF | RFLAGS_AC | RFLAGS_ID)

static uint64_t stack_top(void)
{
	return sys.cpu->segment[SS].linear_base + sys.cpu->reg[RSP];
}

static void push_frame(unsigned width, const uint64_t *words, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		put(&sys, stack_top() + i * width, words[i], width);
}

static void iret(unsigned width)
{
	bool wide_default = sys.mode >= SYSTEM_PM32;

	if (width == 8)
		RUN(&sys, 0x48, 0xcf);
	else if ((width == 4) == wide_default)
		RUN(&sys, 0xcf);
	else
		RUN(&sys, 0x66, 0xcf);
}

/* Which flags an IRET at the same privilege loads: CPL, IOPL and width decide (SDM 2A IRET). */
static void flags_of_same_privilege(void **state)
{
	(void)state;
	for (unsigned n = 0; n < 16 * 3; n++) {
		unsigned cpl = n & 3, iopl = n >> 2 & 3, width = 2u << (n >> 4);
		uint64_t before = (uint64_t)iopl << RFLAGS_IOPL_SHIFT;
		uint64_t image = (ALL & ~(uint64_t)(RFLAGS_IOPL | RFLAGS_VM)) | (uint64_t)(3 - iopl) << RFLAGS_IOPL_SHIFT;
		uint64_t mask = BASIC | (width > 2 ? WIDE : 0) | (cpl <= iopl ? RFLAGS_IF : 0) |
				(cpl == 0 ? RFLAGS_IOPL : 0) | (cpl == 0 && width > 2 ? RFLAGS_VIF | RFLAGS_VIP : 0);

		system_start(&sys, width == 8 ? SYSTEM_LONG : SYSTEM_PM32, cpl);
		rflags_set(sys.cpu, before, RFLAGS_IOPL);
		uint16_t cs = sys.cpu->segment[CS].s.selector, ss = sys.cpu->segment[SS].s.selector;
		push_frame(width, (const uint64_t[]){TARGET, cs, image, 0x7000, ss}, 5);
		iret(width);
		ASSERT_RUNS(&sys);
		assert_int_equal(rflags_get(sys.cpu), RFLAGS_FIXED | (before & ~mask) | (image & mask));
		assert_int_equal(sys.cpu->rip, TARGET);
		/* Only 64-bit mode pops SS:RSP without a change of privilege. */
		assert_int_equal(sys.cpu->reg[RSP], width == 8 ? 0x7000 : STACK_AT + 3 * width);
	}
}

static void real_mode(void **state)
{
	(void)state;
	for (unsigned width = 2; width <= 4; width += 2) {
		uint64_t mask = BASIC | RFLAGS_IF | RFLAGS_IOPL | (width == 4 ? WIDE : 0);

		system_start(&sys, SYSTEM_REAL, 0);
		push_frame(width, (const uint64_t[]){0x1234, 0x5678, ALL}, 3);
		iret(width);
		ASSERT_RUNS(&sys);
		assert_int_equal(rflags_get(sys.cpu), RFLAGS_FIXED | mask);
		assert_int_equal(sys.cpu->segment[CS].s.base, 0x56780);
		assert_int_equal(sys.cpu->rip, 0x1234);
	}
	system_start(&sys, SYSTEM_REAL, 0);
	push_frame(4, (const uint64_t[]){0x10000, 0, 0}, 3);
	iret(4);
	ASSERT_FAULT(&sys, VECTOR_GP, 0);
}

/* IOPL × VME × width × VIP × IF and TF of the image (SDM 2A IRET, SDM 3A 20.3.3.5). */
static void from_vm86(void **state)
{
	(void)state;
	for (unsigned n = 0; n < 64; n++) {
		bool high = n & 1, vme = n & 2, vip = n & 8, interrupt = n & 16, trap = n & 32;
		unsigned width = n & 4 ? 4 : 2;
		uint64_t before = (high ? RFLAGS_IOPL : 0) | (vip ? RFLAGS_VIP : 0);
		uint64_t image = RFLAGS_CF | (interrupt ? RFLAGS_IF : 0) | (trap ? RFLAGS_TF : 0) | RFLAGS_AC;
		bool virtual = !high && vme && width == 2;
		bool allowed = high || (virtual && !(vip && interrupt) && !trap);

		system_start(&sys, SYSTEM_VM86, 3);
		sys.cpu->cr4 = vme ? CR4_VME : 0;
		rflags_set(sys.cpu, before, RFLAGS_IOPL | RFLAGS_VIP);
		push_frame(width, (const uint64_t[]){0x1234, 0x5678, image}, 3);
		iret(width);
		if (!allowed) {
			ASSERT_FAULT(&sys, VECTOR_GP, 0);
			continue;
		}
		ASSERT_RUNS(&sys);
		uint64_t flags = before | RFLAGS_VM | RFLAGS_FIXED | RFLAGS_CF | (trap ? RFLAGS_TF : 0);
		if (interrupt)
			flags |= virtual ? RFLAGS_VIF : RFLAGS_IF;
		if (width == 4)
			flags |= RFLAGS_AC;
		assert_int_equal(rflags_get(sys.cpu), flags);
		assert_int_equal(sys.cpu->segment[CS].s.base, 0x56780);
	}
	system_start(&sys, SYSTEM_VM86, 3);
	rflags_set(sys.cpu, RFLAGS_IOPL, RFLAGS_IOPL);
	push_frame(4, (const uint64_t[]){0x10000, 0, 0}, 3);
	iret(4);
	ASSERT_FAULT(&sys, VECTOR_GP, 0);
}

static void to_vm86(void **state)
{
	const uint64_t frame[] = {0x1234, 0x5678, RFLAGS_VM | RFLAGS_IF | RFLAGS_IOPL | RFLAGS_RF | RFLAGS_VIF,
				  0x12348000, 0x111, 0x222, 0x333, 0x444, 0x555};
	static const enum segment_register order[] = {SS, ES, DS, FS, GS};

	(void)state;
	system_start(&sys, SYSTEM_PM32, 0);
	push_frame(4, frame, 9);
	iret(4);
	ASSERT_RUNS(&sys);
	assert_true(cpu_vm86(sys.cpu));
	assert_int_equal(sys.cpu->cpl, 3);
	assert_int_equal(rflags_get(sys.cpu), frame[2] | RFLAGS_FIXED);
	assert_int_equal(sys.cpu->reg[RSP], 0x12348000);
	assert_int_equal(sys.cpu->segment[CS].s.base, 0x56780);
	assert_int_equal(sys.cpu->rip, 0x1234);
	for (unsigned i = 0; i < 5; i++) {
		assert_int_equal(sys.cpu->segment[order[i]].s.base, frame[4 + i] << 4);
		assert_int_equal(sys.cpu->segment[order[i]].s.limit, 0xffff);
		assert_int_equal(sys.cpu->segment[order[i]].s.attributes, DATA_ATTRIBUTES | DPL(3));
	}
	system_start(&sys, SYSTEM_PM32, 0);
	push_frame(4, frame, 9);
	put(&sys, stack_top(), 0x10000, 4);
	iret(4);
	ASSERT_FAULT(&sys, VECTOR_GP, 0);
	/* Above privilege 0 the bit is ignored. */
	system_start(&sys, SYSTEM_PM32, 3);
	push_frame(4, (const uint64_t[]){TARGET, SELECTOR(GDT_CODE32 + 3, 3), RFLAGS_VM}, 3);
	iret(4);
	ASSERT_RUNS(&sys);
	assert_false(cpu_vm86(sys.cpu));
}

/* To an outer privilege in protected mode and from 64-bit to compatibility mode. */
static void outwards(void **state)
{
	(void)state;
	for (unsigned wide = 0; wide < 2; wide++) {
		unsigned width = wide ? 8 : 4;

		system_start(&sys, wide ? SYSTEM_LONG : SYSTEM_PM32, 0);
		push_frame(width, (const uint64_t[]){TARGET, SELECTOR(GDT_CODE32 + 3, 3), RFLAGS_IF, 0x7000,
						     SELECTOR(GDT_DATA32 + 3, 3)}, 5);
		iret(width);
		ASSERT_RUNS(&sys);
		assert_int_equal(sys.cpu->cpl, 3);
		assert_int_equal(sys.cpu->code_mode & CODE_SIZE, CODE_32);
		assert_int_equal(sys.cpu->reg[RSP], 0x7000);
		assert_int_equal(sys.cpu->segment[DS].s.selector, 0);
		assert_true(sys.cpu->rflags & RFLAGS_IF);
	}
	/* The inner level's image of IF counts by the CPL before the return. */
	system_start(&sys, SYSTEM_PM32, 2);
	push_frame(4, (const uint64_t[]){TARGET, SELECTOR(GDT_CODE32 + 3, 3), RFLAGS_IF | RFLAGS_IOPL, 0x7000,
					 SELECTOR(GDT_DATA32 + 3, 3)}, 5);
	iret(4);
	ASSERT_RUNS(&sys);
	assert_int_equal(rflags_get(sys.cpu), RFLAGS_FIXED);
}

static void nested_task_in_ia32e_mode(void **state)
{
	(void)state;
	system_start(&sys, SYSTEM_LONG, 0);
	rflags_set(sys.cpu, RFLAGS_NT, RFLAGS_NT);
	push_frame(8, (const uint64_t[]){TARGET, SELECTOR(GDT_CODE64, 0), 0, 0x7000, SELECTOR(GDT_DATA32, 0)}, 5);
	iret(8);
	ASSERT_FAULT(&sys, VECTOR_GP, 0);
}

/* NMIs are unblocked by an IRET, one that faults too (SDM 3A 6.7.1). */
static void unblocks_nmi(void **state)
{
	(void)state;
	for (unsigned faults = 0; faults < 2; faults++) {
		system_start(&sys, SYSTEM_PM32, 0);
		sys.cpu->nmi_blocked = true;
		push_frame(4, (const uint64_t[]){TARGET, faults ? 0 : SELECTOR(GDT_CODE32, 0), 0}, 3);
		iret(4);
		assert_int_equal(sys.events, faults);
		assert_false(sys.cpu->nmi_blocked);
	}
}

/* VIF with VIP raises #GP(0) before the next instruction, with PVI or VME (SDM 3A 20.3.2, 20.4). */
static void virtual_interrupt_pending(void **state)
{
	(void)state;
	for (unsigned pvi = 0; pvi < 2; pvi++) {
		system_start(&sys, SYSTEM_PM32, 0);
		sys.cpu->cr4 = pvi ? CR4_PVI : 0;
		push_frame(4, (const uint64_t[]){TARGET, SELECTOR(GDT_CODE32 + 3, 3), RFLAGS_VIF | RFLAGS_VIP, 0x7000,
						 SELECTOR(GDT_DATA32 + 3, 3)}, 5);
		iret(4);
		assert_int_equal(sys.events, pvi);
		if (pvi) {
			assert_int_equal(sys.event[0].vector, VECTOR_GP);
			assert_int_equal(sys.event[0].return_rip, TARGET);
		}
	}
}

/* ---- PUSHF, POPF ---- */

/* Mode × CPL × IOPL × VME × width × VIP: what POPF changes (SDM 2B POPF, table of effects). */
static void popf(void **state)
{
	static const enum system_mode modes[] = {SYSTEM_REAL, SYSTEM_VM86, SYSTEM_PM32, SYSTEM_LONG};

	(void)state;
	for (unsigned n = 0; n < 4 * 4 * 4 * 16; n++) {
		enum system_mode mode = modes[n & 3];
		unsigned cpl = mode == SYSTEM_REAL ? 0 : mode == SYSTEM_VM86 ? 3 : n >> 2 & 3, iopl = n >> 4 & 3;
		bool vme = n >> 6 & 1, narrow = n >> 7 & 1, vip = n >> 8 & 1, trap = n >> 9 & 1;
		unsigned width = narrow ? 2 : mode == SYSTEM_LONG ? 8 : 4;
		bool virtual = mode == SYSTEM_VM86 && iopl < 3 && vme && narrow;
		bool allowed = mode != SYSTEM_VM86 || iopl == 3 || (virtual && !vip && !trap);
		uint64_t before = (uint64_t)iopl << RFLAGS_IOPL_SHIFT | (vip ? RFLAGS_VIP : 0) |
				  (mode == SYSTEM_VM86 ? RFLAGS_VM : 0);
		uint64_t image = (ALL & ~(uint64_t)(RFLAGS_IOPL | RFLAGS_TF)) | (trap ? RFLAGS_TF : 0) |
				 (uint64_t)(3 - iopl) << RFLAGS_IOPL_SHIFT;
		uint64_t mask = BASIC | (narrow ? 0 : RFLAGS_AC | RFLAGS_ID);

		system_start(&sys, mode, cpl);
		sys.cpu->cr4 |= vme ? CR4_VME : 0;
		rflags_set(sys.cpu, before, RFLAGS_IOPL | RFLAGS_VIP);
		put(&sys, stack_top(), image, width);
		if (narrow == (mode >= SYSTEM_PM32))
			RUN(&sys, 0x66, 0x9d);
		else
			RUN(&sys, 0x9d);
		if (!allowed) {
			ASSERT_FAULT(&sys, VECTOR_GP, 0);
			continue;
		}
		ASSERT_RUNS(&sys);
		if (!virtual && cpl <= iopl)
			mask |= RFLAGS_IF;
		if (cpl == 0)
			mask |= RFLAGS_IOPL;
		uint64_t after = RFLAGS_FIXED | (before & ~mask) | (image & mask);
		if (virtual)
			after |= RFLAGS_VIF;
		assert_int_equal(rflags_get(sys.cpu), after);
		assert_int_equal(sys.cpu->reg[RSP], sys.before.gpr[RSP] + width);
	}
}

static void pushf(void **state)
{
	(void)state;
	for (unsigned n = 0; n < 32; n++) {
		bool high = n & 1, vme = n & 2, narrow = n & 4, vif = n & 8, vm86 = n & 16;
		uint64_t flags = RFLAGS_FIXED | RFLAGS_CF | (high ? RFLAGS_IOPL : 0) | (vif ? RFLAGS_VIF : RFLAGS_IF);
		bool virtual = vm86 && !high && vme && narrow;
		unsigned width = narrow ? 2 : 4;

		system_start(&sys, vm86 ? SYSTEM_VM86 : SYSTEM_PM32, 3);
		sys.cpu->cr4 = vme ? CR4_VME : 0;
		rflags_set(sys.cpu, flags, ALL & ~(uint64_t)RFLAGS_VM);
		if (narrow == vm86)
			RUN(&sys, 0x9c);
		else
			RUN(&sys, 0x66, 0x9c);
		if (vm86 && !high && !virtual) {
			ASSERT_FAULT(&sys, VECTOR_GP, 0);
			continue;
		}
		ASSERT_RUNS(&sys);
		if (virtual)
			flags = (flags & ~(uint64_t)RFLAGS_IF) | RFLAGS_IOPL | (vif ? RFLAGS_IF : 0);
		assert_int_equal(get(&sys, stack_top(), width), narrow ? flags & 0xffff : flags);
	}
}

/* ---- CLI, STI (SDM 2A CLI and 2B STI, their decision tables) ---- */

static void cli_sti(void **state)
{
	static const enum system_mode modes[] = {SYSTEM_REAL, SYSTEM_VM86, SYSTEM_PM32, SYSTEM_LONG};

	(void)state;
	for (unsigned n = 0; n < 4 * 4 * 4 * 16; n++) {
		enum system_mode mode = modes[n & 3];
		unsigned cpl = mode == SYSTEM_REAL ? 0 : mode == SYSTEM_VM86 ? 3 : n >> 2 & 3, iopl = n >> 4 & 3;
		bool vme = n >> 6 & 1, pvi = n >> 7 & 1, vip = n >> 8 & 1, sti = n >> 9 & 1;
		bool real_flag = cpl <= iopl;
		bool virtual_flag = !real_flag && (mode == SYSTEM_VM86 ? vme : cpl == 3 && pvi);
		uint64_t before = (uint64_t)iopl << RFLAGS_IOPL_SHIFT | (vip ? RFLAGS_VIP : 0) |
				  (sti ? 0 : RFLAGS_IF | (vip ? 0 : RFLAGS_VIF));
		uint64_t flag = real_flag ? RFLAGS_IF : RFLAGS_VIF;

		system_start(&sys, mode, cpl);
		sys.cpu->cr4 |= (vme ? CR4_VME : 0) | (pvi ? CR4_PVI : 0);
		rflags_set(sys.cpu, before, RFLAGS_IOPL | RFLAGS_VIP | RFLAGS_IF | RFLAGS_VIF);
		RUN(&sys, sti ? 0xfb : 0xfa);
		if (!(real_flag || virtual_flag) || (virtual_flag && sti && vip)) {
			ASSERT_FAULT(&sys, VECTOR_GP, 0);
			continue;
		}
		ASSERT_RUNS(&sys);
		uint64_t after = sti ? before | flag : before & ~flag;
		assert_int_equal(rflags_get(sys.cpu),
				 after | RFLAGS_FIXED | (mode == SYSTEM_VM86 ? RFLAGS_VM : 0));
		assert_int_equal(sys.cpu->shadow, sti && real_flag ? SHADOW_STI : SHADOW_NONE);
	}
	/* IF was set already: nothing is held off. */
	system_start(&sys, SYSTEM_PM32, 0);
	rflags_set(sys.cpu, RFLAGS_IF, RFLAGS_IF);
	RUN(&sys, 0xfb);
	assert_int_equal(sys.cpu->shadow, SHADOW_NONE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(flags_of_same_privilege),
		cmocka_unit_test(real_mode),
		cmocka_unit_test(from_vm86),
		cmocka_unit_test(to_vm86),
		cmocka_unit_test(outwards),
		cmocka_unit_test(nested_task_in_ia32e_mode),
		cmocka_unit_test(unblocks_nmi),
		cmocka_unit_test(virtual_interrupt_pending),
		cmocka_unit_test(popf),
		cmocka_unit_test(pushf),
		cmocka_unit_test(cli_sti),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
