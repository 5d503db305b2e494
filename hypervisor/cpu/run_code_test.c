/* run_code_test.c: code that changes, lies at the edge of CS or is mapped elsewhere while it runs. */
#include "cpu/run_test.h"

/* ---- code that is written ---- */

/* mov byte [CODE+5],41h; inc ax (to become inc cx); hlt: in one trace. */
static void test_store_into_running_trace(void **state)
{
	struct machine *m = *state;

	for (int i = 0; i < 3; i++) {
		START_REAL(m, 0xc6, 0x06, 0x05, 0x70, 0x41, 0x40, 0x40, 0xf4);
		m->cpu->reg[RCX] = m->cpu->reg[RAX] = 0;
		assert_int_equal(cpu_run(m->cpu), CPU_STOP_HALT);
		assert_int_equal(m->cpu->reg[RCX], 1);
		assert_int_equal(m->cpu->reg[RAX], 1);
		assert_int_equal(m->cpu->retired, 4);
	}
}

/* A loop whose first instruction changes under its links. */
static void test_store_into_linked_trace(void **state)
{
	struct machine *m = *state;

	/* mov cx,200; l: inc ax; dec cx; jnz l; cmp byte [l],42h; je end; mov byte [l],42h; mov cx,100; jmp
	 * l; end: hlt */
	START_REAL(m, 0xb9, 200, 0, 0x40, 0x49, 0x75, 0xfc, 0x80, 0x3e, 0x03, 0x70, 0x42, 0x74, 0x0a, 0xc6,
		   0x06, 0x03, 0x70, 0x42, 0xb9, 100, 0, 0xeb, 0xeb, 0xf4);
	assert_int_equal(cpu_run(m->cpu), CPU_STOP_HALT);
	assert_int_equal(m->cpu->reg[RAX], 200);
	assert_int_equal(m->cpu->reg[RDX] - m->profile.signature, 100);
	assert_int_equal(m->cpu->retired, 1 + 600 + 2 + 3 + 300 + 2 + 1);
}

/* The far end of a long trace changes: 40 times add ax,1234h. */
static void test_long_trace_changes(void **state)
{
	struct machine *m = *state;
	uint8_t code[121];

	for (unsigned i = 0; i < 40; i++)
		memcpy(code + 3 * i, "\x05\x01\x00", 3);
	code[120] = 0xf4;
	for (unsigned at = 0; at < 40; at++) {
		start_real(m, code, sizeof(code));
		/* Not at the start of a line, nor of the page. */
		assert_true(phys_write(m->memory, CODE + 0x60, code, sizeof(code)));
		for (int i = 0; i < 2; i++) {
			m->cpu->rip = CODE + 0x60;
			m->cpu->activity = ACTIVITY_ACTIVE;
			m->cpu->reg[RAX] = 0;
			assert_int_equal(cpu_run(m->cpu), CPU_STOP_HALT);
			assert_int_equal(m->cpu->reg[RAX], 40 + i);
			assert_true(phys_write(m->memory, CODE + 0x60 + 3 * at + 1, "\x02", 1));
		}
	}
}

/* Code written from outside between two runs, as a restore does. */
static void test_code_replaced(void **state)
{
	struct machine *m = *state;

	START_REAL(m, 0x40, 0xf4);
	assert_int_equal(cpu_run(m->cpu), CPU_STOP_HALT);
	START_REAL(m, 0x43, 0xf4);
	assert_int_equal(cpu_run(m->cpu), CPU_STOP_HALT);
	assert_int_equal(m->cpu->reg[RBX], 1);
	assert_int_equal(m->cpu->reg[RAX], 0);
	/* And after everything was forgotten. */
	trace_drop_all(m->cpu->traces);
	START_REAL(m, 0x43, 0xf4);
	assert_int_equal(cpu_run(m->cpu), CPU_STOP_HALT);
	assert_int_equal(m->cpu->reg[RBX], 1);
}

/* More code than the arena holds: 4 times 900 KiB of INC AX, each page made anew. */
static void test_arena(void **state)
{
	struct machine *m = *state;

	START_FLAT(m, 0xf4);
	memset(m->ram + 0x10000, 0x40, MEMORY - 0x10000);
	m->ram[MEMORY - 1] = 0xf4;
	for (int i = 0; i < 2; i++) {
		m->cpu->rip = 0x10000;
		m->cpu->activity = ACTIVITY_ACTIVE;
		m->cpu->stop_at = m->cpu->event_at = 10000000;
		m->cpu->reg[RAX] = 0;
		assert_int_equal(cpu_run(m->cpu), CPU_STOP_HALT);
		assert_int_equal(m->cpu->reg[RAX], MEMORY - 0x10001);
	}
}

/* An instruction across two pages, in a loop. */
static void test_page_crossing(void **state)
{
	struct machine *m = *state;
	/* l: add eax,11223344h over the edge; dec ecx; jnz l; hlt */
	static const uint8_t code[] = {0x05, 0x44, 0x33, 0x22, 0x11, 0x49, 0x75, 0xf8, 0xf4};

	for (unsigned before = 1; before < 5; before++) {
		START_FLAT(m, 0xf4);
		assert_true(phys_write(m->memory, 0x9000 - before, code, sizeof(code)));
		m->cpu->rip = 0x9000 - before;
		m->cpu->reg[RCX] = 3;
		m->cpu->reg[RAX] = 0;
		assert_int_equal(cpu_run(m->cpu), CPU_STOP_HALT);
		assert_int_equal(m->cpu->reg[RAX], 0x11223344u * 3u);
		assert_int_equal(m->cpu->retired, 10);
		/* Its second half changes. */
		assert_true(phys_write(m->memory, 0x9000 - before + 4, "\x22", 1));
		m->cpu->activity = ACTIVITY_ACTIVE;
		m->cpu->rip = 0x9000 - before;
		m->cpu->reg[RCX] = 1;
		m->cpu->reg[RAX] = 0;
		assert_int_equal(cpu_run(m->cpu), CPU_STOP_HALT);
		assert_int_equal(m->cpu->reg[RAX], 0x22223344u);
	}
}

/* ---- the edges of CS ---- */

static void expect_gp(struct machine *m, unsigned ip)
{
	/* The handlers lie inside. */
	expect_vector(m, VECTOR_GP, ip);
	m->cpu->activity = ACTIVITY_ACTIVE;
	m->cpu->rip = CODE;
	m->cpu->reg[RSP] = STACK;
}

/* The #GP comes at the instruction that leaves CS, not before; decoded under either limit, the code obeys the
 * other. */
static void test_code_limit(void **state)
{
	struct machine *m = *state;

	for (unsigned inside = 1; inside < 5; inside++) {
		START_REAL(m, 0x40, 0xb9, 1, 0, 0xf4);
		for (int i = 0; i < 2; i++) {
			set_code_limit(m, CODE + inside - 1);
			m->cpu->reg[RAX] = 0;
			expect_gp(m, CODE + (inside < 4 ? 1 : 4));
			assert_int_equal(m->cpu->reg[RAX], 1);
			set_code_limit(m, 0xffff);
			assert_int_equal(cpu_run(m->cpu), CPU_STOP_HALT);
			assert_int_equal(m->cpu->rip, CODE + 5);
			m->cpu->activity = ACTIVITY_ACTIVE;
			m->cpu->rip = CODE;
		}
	}
}

/* A loop whose traces are linked: their target begins inside CS and ends outside. */
static void test_code_limit_linked(void **state)
{
	struct machine *m = *state;

	/* mov cx,100; l: jmp t; t: inc ax; dec cx; jnz l; hlt */
	START_REAL(m, 0xb9, 100, 0, 0xeb, 0x00, 0x40, 0x49, 0x75, 0xfa, 0xf4);
	assert_int_equal(cpu_run(m->cpu), CPU_STOP_HALT);
	assert_int_equal(m->cpu->reg[RAX], 100);
	m->cpu->activity = ACTIVITY_ACTIVE;
	m->cpu->rip = CODE + 3;
	m->cpu->reg[RAX] = 0;
	set_code_limit(m, CODE + 7);
	expect_gp(m, CODE + 7);
	assert_int_equal(m->cpu->reg[RAX], 1);
}

/* The same bytes in another mode are other instructions: B8 takes two bytes or four. */
static void test_mode_of_code(void **state)
{
	struct machine *m = *state;
	static const uint8_t code[] = {0xb8, 0x34, 0x12, 0x40, 0x40, 0xf4};

	struct vcpu_state real, flat;

	start_real(m, code, sizeof(code));
	cpu_save(m->cpu, &real);
	start_flat(m, code, sizeof(code));
	cpu_save(m->cpu, &flat);
	for (int i = 0; i < 2; i++) {
		cpu_load(m->cpu, &real);
		assert_int_equal(cpu_run(m->cpu), CPU_STOP_HALT);
		assert_int_equal(m->cpu->reg[RAX], 0x1236);
		cpu_load(m->cpu, &flat);
		assert_int_equal(cpu_run(m->cpu), CPU_STOP_HALT);
		assert_int_equal(m->cpu->reg[RAX], 0x40401234);
	}
}

/* ---- paging under code ---- */

#define TABLES           0x10000u
#define PRESENT_WRITABLE 3u

/*
 * 64-bit mode. The low 2 MiB are mapped to themselves but for the page at 0x9000, which is not
 * present; the last page below the non-canonical hole is the one at CODE's.
 */
static void start_long(struct machine *m, const void *code, size_t size)
{
	struct vcpu_state s;

	start_flat(m, code, size);
	put64(m, TABLES, (TABLES + 0x1000) | PRESENT_WRITABLE);
	put64(m, TABLES + 8 * 255, (TABLES + 0x4000) | PRESENT_WRITABLE);
	put64(m, TABLES + 0x1000, (TABLES + 0x2000) | PRESENT_WRITABLE);
	put64(m, TABLES + 0x2000, (TABLES + 0x3000) | PRESENT_WRITABLE);
	for (unsigned i = 0; i < 256; i++)
		put64(m, TABLES + 0x3000 + 8 * i, (i == 9 ? 0 : i * 0x1000 | PRESENT_WRITABLE));
	put64(m, TABLES + 0x4000 + 8 * 511, (TABLES + 0x5000) | PRESENT_WRITABLE);
	put64(m, TABLES + 0x5000 + 8 * 511, (TABLES + 0x6000) | PRESENT_WRITABLE);
	put64(m, TABLES + 0x6000 + 8 * 511, (CODE & ~0xfffu) | PRESENT_WRITABLE);
	cpu_save(m->cpu, &s);
	s.cr0 |= CR0_PG;
	s.cr4 |= CR4_PAE;
	s.cr3 = TABLES;
	s.efer = EFER_LME | EFER_LMA;
	s.segment[CS].attributes = (s.segment[CS].attributes & ~SEG_DB) | SEG_L;
	cpu_load(m->cpu, &s);
}

/* mov r8d,5; l: add rax,r8; dec r8; jnz l; nop; add rax,[rip+1]; hlt; dq 1000 */
static void test_long_mode(void **state)
{
	struct machine *m = *state;
	static const uint8_t code[] = {0x41, 0xb8, 5,    0,    0,    0,    0x4c, 0x01, 0xc0, 0x49, 0xff,
				       0xc8, 0x75, 0xf8, 0x90, 0x48, 0x03, 0x05, 1,    0,    0,    0,
				       0xf4, 0xe8, 3,    0,    0,    0,    0,    0,    0};

	start_long(m, code, sizeof(code));
	assert_int_equal(cpu_run(m->cpu), CPU_STOP_HALT);
	assert_int_equal(m->cpu->reg[RAX], 15 + 1000);
	assert_int_equal(m->cpu->retired, 1 + 15 + 3);
}

/* The fault of a fetch comes when execution is there: at the instruction, with CR2 in the missing page. */
static void test_fetch_fault(void **state)
{
	struct machine *m = *state;
	/* mov eax,imm32 over the edge of the page that is followed by none; before it inc ecx twice */
	static const uint8_t code[] = {0xff, 0xc1, 0xff, 0xc1, 0xb8, 1, 2, 3, 4};

	for (unsigned before = 5; before < 9; before++) {
		start_long(m, "\xf4", 1);
		assert_true(phys_write(m->memory, 0x9000 - before, code, before));
		m->cpu->rip = 0x9000 - before;
		assert_int_equal(cpu_run(m->cpu), CPU_STOP_SHUTDOWN);
		assert_int_equal(m->cpu->reg[RCX], 2);
		assert_int_equal(m->cpu->cr2, 0x9000);
		assert_int_equal(m->cpu->rip, 0x9000 - before + 4);
	}
	/* jmp short back in front of the edge: never a fault, however often the page is decoded up to it. */
	start_long(m, "\xf4", 1);
	assert_true(phys_write(m->memory, 0x8ffb, "\xff\xc1\xf4\xb8\x01", 5));
	m->cpu->rip = 0x8ffb;
	assert_int_equal(cpu_run(m->cpu), CPU_STOP_HALT);
	assert_int_equal(m->cpu->rip, 0x8ffe);
}

/* Running off the last canonical page: #GP, not #PF, with RIP at the first address beyond it or at the one
 * across. */
static void test_fetch_non_canonical(void **state)
{
	struct machine *m = *state;
	static const uint8_t code[] = {0xff, 0xc1, 0xb8, 1, 2, 3, 4};

	for (unsigned before = 2; before < 7; before++) {
		start_long(m, "\xf4", 1);
		m->cpu->cr2 = 0x1234;
		assert_true(phys_write(m->memory, 0x8000 - before, code, before));
		m->cpu->rip = 0x800000000000 - before;
		assert_int_equal(cpu_run(m->cpu), CPU_STOP_SHUTDOWN);
		assert_int_equal(m->cpu->reg[RCX], 1);
		assert_int_equal(m->cpu->cr2, 0x1234);
		assert_int_equal(m->cpu->rip, 0x800000000000 - before + 2);
	}
}

/* The same linear address, mapped to another page: jumps between pages must not go by what was there before.
 */
static void test_remapped_code(void **state)
{
	struct machine *m = *state;
	/* at 0x8000: jmp 0xa000; at 0xa000: inc eax; hlt; at 0xb000: inc ebx; hlt */
	static const uint8_t jump[] = {0xe9, 0xfb, 0x1f, 0, 0};

	start_long(m, "\xf4", 1);
	assert_true(phys_write(m->memory, 0x8000, jump, sizeof(jump)));
	assert_true(phys_write(m->memory, 0xa000, "\xff\xc0\xf4", 3));
	assert_true(phys_write(m->memory, 0xb000, "\xff\xc3\xf4", 3));
	for (unsigned i = 0; i < 6; i++) {
		m->cpu->activity = ACTIVITY_ACTIVE;
		m->cpu->rip = 0x8000;
		put64(m, TABLES + 0x3000 + 8 * 10, (i & 1 ? 0xb000 : 0xa000) | PRESENT_WRITABLE);
		trace_mapping_changed(m->cpu);
		tlb_flush_page(m->cpu, 0xa000);
		assert_int_equal(cpu_run(m->cpu), CPU_STOP_HALT);
		assert_int_equal(m->cpu->reg[RAX], i / 2 + 1);
		assert_int_equal(m->cpu->reg[RBX], (i + 1) / 2);
	}
}

/* A page that is mapped twice: a jump within it by its other name is a jump to another page. */
static void test_aliased_code(void **state)
{
	struct machine *m = *state;
	/* at 0x8000: jmp 0xa008 (the same page); at 0x8008: inc eax; hlt. At 0xb008: inc ebx; hlt */
	static const uint8_t jump[] = {0xe9, 0x03, 0x20, 0, 0, 0x90, 0x90, 0x90, 0xff, 0xc0, 0xf4};

	start_long(m, "\xf4", 1);
	assert_true(phys_write(m->memory, 0x8000, jump, sizeof(jump)));
	assert_true(phys_write(m->memory, 0xb008, "\xff\xc3\xf4", 3));
	for (unsigned i = 0; i < 12; i++) {
		m->cpu->activity = ACTIVITY_ACTIVE;
		m->cpu->rip = 0x8000;
		if (i % 4 == 0 || i % 4 == 3) {
			put64(m, TABLES + 0x3000 + 8 * 10, (i % 4 == 3 ? 0xb000 : 0x8000) | PRESENT_WRITABLE);
			tlb_flush_page(m->cpu, 0xa000);
		}
		assert_int_equal(cpu_run(m->cpu), CPU_STOP_HALT);
		assert_int_equal(m->cpu->reg[RBX], (i + 1) / 4);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_store_into_running_trace),
		TEST(test_store_into_linked_trace),
		TEST(test_code_replaced),
		TEST(test_long_trace_changes),
		TEST(test_arena),
		TEST(test_page_crossing),
		TEST(test_code_limit),
		TEST(test_code_limit_linked),
		TEST(test_mode_of_code),
		TEST(test_long_mode),
		TEST(test_fetch_fault),
		TEST(test_fetch_non_canonical),
		TEST(test_remapped_code),
		TEST(test_aliased_code),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
