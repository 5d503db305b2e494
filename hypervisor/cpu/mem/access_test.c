/*
 * access_test.c: accesses through segments: the segment unit's checks, page crossings, MMIO and ROM,
 * alignment, read-modify-write, runs, the stack, breakpoints.
 */
#include "cpu/mem/test_cpu.h"

#define DATA_LINEAR 0x200000u /* two pages that follow each other here … */
#define PAGE_ONE    0x300000u /* … and not in physical memory */
#define PAGE_TWO    0x500000u
#define FLAGS       (PTE_P | PTE_W | PTE_U)

/* 4-level paging, two pages with @first and @second as flags. */
static struct test_cpu *paged_cpu(uint64_t first, uint64_t second)
{
	struct test_cpu *t = test_cpu_new("intel");

	test_mode_set(t, MODE_4LEVEL);
	test_map(t, DATA_LINEAR, PAGE_ONE | first, 1);
	test_map(t, DATA_LINEAR + 0x1000, PAGE_TWO | second, 1);
	return t;
}

/* ---- the segment unit ---- */

struct segment_row {
	const char *what;
	enum test_mode mode;
	unsigned segment;
	uint64_t base;
	uint32_t limit, attributes;
	uint64_t offset;
	unsigned size, access;
	int fault;       /* vector, or NO_FAULT */
	uint64_t linear; /* without a fault */
};

#define DATA16  (SEG_P | SEG_S | SEG_WRITABLE)
#define DOWN16  (DATA16 | SEG_EXPAND_DOWN)
#define DOWN32  (SEG_DATA | SEG_EXPAND_DOWN)
#define RODATA  (SEG_P | SEG_S | SEG_DB)
#define CODE_RX (SEG_P | SEG_S | SEG_DB | SEG_CODE | SEG_READABLE)
#define CODE_X  (SEG_P | SEG_S | SEG_DB | SEG_CODE)

static const struct segment_row segment_rows[] = {
	{"within", MODE_FLAT, DS, 0x1000, 0xfff, SEG_DATA, 0xffc, 4, ACCESS_READ, NO_FAULT, 0x1ffc},
	{"last byte outside", MODE_FLAT, DS, 0x1000, 0xfff, SEG_DATA, 0xffd, 4, ACCESS_READ, VECTOR_GP, 0},
	{"write outside", MODE_FLAT, ES, 0x1000, 0xfff, SEG_DATA, 0x1000, 1, ACCESS_WRITE, VECTOR_GP, 0},
	{"stack outside", MODE_FLAT, SS, 0x1000, 0xfff, SEG_DATA, 0x1000, 1, ACCESS_READ, VECTOR_SS, 0},
	{"limit 0", MODE_FLAT, DS, 0, 0, SEG_DATA, 0, 1, ACCESS_READ, NO_FAULT, 0},
	{"limit 0, two bytes", MODE_FLAT, DS, 0, 0, SEG_DATA, 0, 2, ACCESS_READ, VECTOR_GP, 0},
	{"base wraps", MODE_FLAT, DS, 0xfffff000, 0xffffffff, SEG_DATA, 0x2004, 4, ACCESS_READ, NO_FAULT,
	 0x1004},
	{"real within", MODE_REAL, DS, 0x12340, 0xffff, DATA16, 0xfffe, 2, ACCESS_WRITE, NO_FAULT, 0x2233e},
	{"real 64 KiB", MODE_REAL, DS, 0x12340, 0xffff, DATA16, 0xffff, 2, ACCESS_READ, VECTOR_GP, 0},
	{"real stack 64 KiB", MODE_REAL, SS, 0, 0xffff, DATA16, 0xffff, 2, ACCESS_WRITE, VECTOR_SS, 0},
	{"real 1 MiB and more", MODE_REAL, DS, 0xffff0, 0xffff, DATA16, 0xffff, 1, ACCESS_READ, NO_FAULT,
	 0x10ffef},
	{"real has no types", MODE_REAL, CS, 0, 0xffff, CODE_X, 0x10, 2, ACCESS_WRITE, NO_FAULT, 0x10},
	{"down at limit", MODE_FLAT, DS, 0, 0x0fff, DOWN32, 0x0fff, 1, ACCESS_READ, VECTOR_GP, 0},
	{"down above limit", MODE_FLAT, DS, 0x10, 0x0fff, DOWN32, 0x1000, 4, ACCESS_READ, NO_FAULT, 0x1010},
	{"down 4 GiB", MODE_FLAT, SS, 0, 0x0fff, DOWN32, 0xfffffffc, 4, ACCESS_WRITE, NO_FAULT, 0xfffffffc},
	{"down beyond 4 GiB", MODE_FLAT, SS, 0, 0x0fff, DOWN32, 0xfffffffd, 4, ACCESS_WRITE, VECTOR_SS, 0},
	{"down 64 KiB", MODE_FLAT, DS, 0, 0x0fff, DOWN16, 0xfffe, 2, ACCESS_WRITE, NO_FAULT, 0xfffe},
	{"down beyond 64 KiB", MODE_FLAT, DS, 0, 0x0fff, DOWN16, 0xffff, 2, ACCESS_WRITE, VECTOR_GP, 0},
	{"read-only read", MODE_FLAT, DS, 0, 0xffff, RODATA, 0, 4, ACCESS_READ, NO_FAULT, 0},
	{"read-only write", MODE_FLAT, DS, 0, 0xffff, RODATA, 0, 4, ACCESS_WRITE, VECTOR_GP, 0},
	{"code read", MODE_FLAT, CS, 0, 0xffff, CODE_RX, 4, 4, ACCESS_READ, NO_FAULT, 4},
	{"code write", MODE_FLAT, CS, 0, 0xffff, CODE_RX, 4, 4, ACCESS_WRITE, VECTOR_GP, 0},
	{"execute-only read", MODE_FLAT, CS, 0, 0xffff, CODE_X, 4, 4, ACCESS_READ, VECTOR_GP, 0},
	{"conforming code is not expand-down", MODE_FLAT, CS, 0, 0xffff, CODE_RX | SEG_CONFORMING, 4, 4,
	 ACCESS_READ, NO_FAULT, 4},
	{"null", MODE_FLAT, ES, 0, 0xffffffff, SEG_DATA | SEG_UNUSABLE, 0, 1, ACCESS_READ, VECTOR_GP, 0},
	{"64-bit null", MODE_4LEVEL, ES, 0, 0, SEG_UNUSABLE, 0x1234, 8, ACCESS_WRITE, NO_FAULT, 0x1234},
	{"64-bit no limit", MODE_4LEVEL, DS, 0, 0, RODATA, 0x100000000, 8, ACCESS_WRITE, NO_FAULT,
	 0x100000000},
	{"64-bit fs base", MODE_4LEVEL, FS, 0xffff800000000000, 0, RODATA, 0x10, 8, ACCESS_READ, NO_FAULT,
	 0xffff800000000010},
	{"64-bit last low", MODE_4LEVEL, DS, 0, 0, SEG_DATA, 0x7ffffffffff8, 8, ACCESS_READ, NO_FAULT,
	 0x7ffffffffff8},
	{"64-bit into the hole", MODE_4LEVEL, DS, 0, 0, SEG_DATA, 0x7ffffffffff9, 8, ACCESS_READ, VECTOR_GP,
	 0},
	{"64-bit hole", MODE_4LEVEL, DS, 0, 0, SEG_DATA, 0x800000000000, 1, ACCESS_READ, VECTOR_GP, 0},
	{"64-bit hole by fs", MODE_4LEVEL, FS, 0x7ffffffffff0, 0, SEG_DATA, 0x10, 1, ACCESS_READ, VECTOR_GP,
	 0},
	{"64-bit stack hole", MODE_4LEVEL, SS, 0, 0, SEG_DATA, 0x8000000000000000, 8, ACCESS_WRITE, VECTOR_SS,
	 0},
	{"57 bits", MODE_5LEVEL, DS, 0, 0, SEG_DATA, 0x800000000000, 8, ACCESS_READ, NO_FAULT,
	 0x800000000000},
	{"57 bits hole", MODE_5LEVEL, DS, 0, 0, SEG_DATA, 0x100000000000000, 8, ACCESS_READ, VECTOR_GP, 0},
};
#define SEGMENT_ROWS (sizeof(segment_rows) / sizeof(segment_rows[0]))

static const char *run_segment_row(struct test_cpu *t, const struct segment_row *row)
{
	volatile uint64_t linear = 0;
	int fault;

	test_mode_set(t, row->mode);
	test_segment(t, row->segment, row->base, row->limit, row->attributes);
	fault = FAULT_OF(t,
			 linear = segment_linear(&t->cpu, row->segment, row->offset, row->size, row->access));
	if (fault != row->fault)
		return "fault";
	if (fault != NO_FAULT)
		return t->cpu.raised.error_code ? "error code" : NULL;
	return linear == row->linear ? NULL : "linear address";
}

static void test_segment_rows(void **state)
{
	struct test_cpu *t = test_cpu_new("intel");
	unsigned failures = 0;

	(void)state;
	for (size_t i = 0; i < SEGMENT_ROWS; i++) {
		const char *why = run_segment_row(t, &segment_rows[i]);

		if (why) {
			print_error("%s: %s\n", segment_rows[i].what, why);
			failures++;
		}
	}
	assert_int_equal(failures, 0);
	test_cpu_free(t);
}

static void test_broken_segment_checks_are_noticed(void **state)
{
	static const enum check checks[] = {CHECK_SEGMENT_LIMIT,    CHECK_SEGMENT_LIMIT_EXPAND_DOWN,
					    CHECK_SEGMENT_WRITABLE, CHECK_SEGMENT_READABLE,
					    CHECK_SEGMENT_NULL,     CHECK_CANONICAL};
	struct test_cpu *t = test_cpu_new("intel");

	(void)state;
	for (size_t c = 0; c < sizeof(checks) / sizeof(checks[0]); c++) {
		unsigned noticed = 0;

		check_broken = (int)checks[c];
		for (size_t i = 0; i < SEGMENT_ROWS; i++)
			noticed += run_segment_row(t, &segment_rows[i]) != NULL;
		check_broken = -1;
		assert_true(noticed > 0 && noticed < SEGMENT_ROWS / 2);
	}
	test_cpu_free(t);
}

/* The inline path refuses what the segment unit refuses, though the TLB would hit. */
static void test_fast_path_checks_segments(void **state)
{
	struct test_cpu *t = test_cpu_new("intel");

	(void)state;
	for (size_t i = 0; i < SEGMENT_ROWS; i++) {
		const struct segment_row *row = &segment_rows[i];
		bool write = row->access & ACCESS_WRITE;
		int fault;

		if (row->mode > MODE_FLAT || row->size == 3)
			continue;
		test_mode_set(t, row->mode);
		for (uint32_t page = 0; page < 0x20; page++) /* armed for both kinds */
			mem_write(&t->cpu, DS, page << (row->mode == MODE_REAL ? 11 : 12), 0, 1);
		test_segment(t, row->segment, row->base, row->limit, row->attributes);
		fault = write ? FAULT_OF(t, mem_write(&t->cpu, row->segment, row->offset, 0, row->size))
			      : FAULT_OF(t, mem_read(&t->cpu, row->segment, row->offset, row->size));
		if (fault != row->fault)
			print_error("%s\n", row->what);
		assert_int_equal(fault, row->fault);
	}
	test_cpu_free(t);
}

/* ---- plain reads and writes ---- */

static void test_widths(void **state)
{
	struct test_cpu *t = paged_cpu(FLAGS, FLAGS);
	struct cpu *cpu = &t->cpu;

	(void)state;
	for (unsigned round = 0; round < 3; round++) { /* by the slow path, then by the inline one */
		mem_write(cpu, DS, DATA_LINEAR + 8, 0x1122334455667788, 8);
		mem_write(cpu, DS, DATA_LINEAR + 8, 0xffffffffffffff01, 1);
		mem_write(cpu, DS, DATA_LINEAR + 10, 0xffffffffffff0203, 2);
		mem_write(cpu, DS, DATA_LINEAR + 12, 0xffffffff04050607, 4);
		assert_int_equal(*(uint64_t *)(t->ram + PAGE_ONE + 8), 0x0405060702037701);
		assert_int_equal(mem_read(cpu, DS, DATA_LINEAR + 8, 8), 0x0405060702037701);
		assert_int_equal(mem_read(cpu, DS, DATA_LINEAR + 9, 4), 0x07020377);
		assert_int_equal(mem_read(cpu, DS, DATA_LINEAR + 11, 2), 0x0702);
		assert_int_equal(mem_read(cpu, DS, DATA_LINEAR + 15, 1), 4);
	}
	assert_non_null(mem_fast_read(cpu, DS, DATA_LINEAR + 8, 8));
	assert_non_null(mem_fast_write(cpu, DS, DATA_LINEAR + 0xff8, 8));
	assert_null(mem_fast_read(cpu, DS, DATA_LINEAR + 0xff9, 8));
	test_cpu_free(t);
}

static void test_page_crossing(void **state)
{
	struct test_cpu *t = paged_cpu(FLAGS, FLAGS);
	struct cpu *cpu = &t->cpu;
	uint64_t edge = DATA_LINEAR + 0xffd;
	uint8_t bytes[512], back[512];

	(void)state;
	for (unsigned round = 0; round < 2; round++) {
		mem_write(cpu, DS, edge, 0x8877665544332211 + round, 8);
		assert_int_equal(mem_read(cpu, DS, edge, 8), 0x8877665544332211 + round);
		assert_int_equal(t->ram[PAGE_ONE + 0xfff], 0x33);
		assert_int_equal(t->ram[PAGE_TWO], 0x44);
		assert_int_equal(t->ram[PAGE_ONE + 0x1000], 0);
	}
	for (unsigned i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * 7 + 1);
	mem_write_bytes(cpu, DS, DATA_LINEAR + 0xf00, bytes, sizeof(bytes), 16);
	mem_read_bytes(cpu, DS, DATA_LINEAR + 0xf00, back, sizeof(back), 16);
	assert_memory_equal(bytes, back, sizeof(bytes));
	assert_memory_equal(t->ram + PAGE_TWO, bytes + 256, 256);
	test_cpu_free(t);
}

/* Across 2 GiB, 4 GiB and 1 TiB, with the second page in the TLB. */
static void test_page_crossing_at_powers_of_two(void **state)
{
	static const uint64_t edges[] = {1ull << 31, 1ull << 32, 1ull << 40};
	struct test_cpu *t = paged_cpu(FLAGS, FLAGS);
	struct cpu *cpu = &t->cpu;

	(void)state;
	for (unsigned i = 0; i < sizeof(edges) / sizeof(edges[0]); i++) {
		test_map(t, edges[i] - PAGE_SIZE, PAGE_ONE | FLAGS, 1);
		test_map(t, edges[i], PAGE_TWO | FLAGS, 1);
		mem_write(cpu, DS, edges[i], 0, 8);
		mem_write(cpu, DS, edges[i] - 4, 0x8877665544332211, 8);
		assert_int_equal(t->ram[PAGE_ONE + 0xfff], 0x44);
		assert_int_equal(t->ram[PAGE_TWO], 0x55);
		assert_int_equal(t->ram[PAGE_TWO - 1], 0);
		assert_int_equal(mem_read(cpu, DS, edges[i] - 4, 8), 0x8877665544332211);
	}
	test_cpu_free(t);
}

/* A write that faults in its second page has written nothing and set no D flag. */
static void test_page_crossing_write_faults_whole(void **state)
{
	struct test_cpu *t = paged_cpu(FLAGS, FLAGS & ~PTE_W);
	struct test_path first;
	struct cpu *cpu = &t->cpu;

	(void)state;
	cpu->cr0 |= CR0_WP;
	tlb_select(cpu);
	first = test_map(t, DATA_LINEAR, PAGE_ONE | FLAGS, 1);
	assert_int_equal(FAULT_OF(t, mem_write(cpu, DS, DATA_LINEAR + 0xffc, ~0ull, 8)), VECTOR_PF);
	assert_int_equal(cpu->cr2, DATA_LINEAR + 0x1000);
	assert_int_equal(cpu->raised.error_code, PF_P | PF_W);
	assert_int_equal(*(uint32_t *)(t->ram + PAGE_ONE + 0xffc), 0);
	assert_int_equal(test_entry(t, &first, 1) & PTE_D, 0);
	assert_int_equal(mem_read(cpu, DS, DATA_LINEAR + 0xffc, 8), 0);

	/* Both missing: the first one counts. */
	test_map(t, DATA_LINEAR, 0, 1);
	tlb_flush_all(cpu);
	assert_int_equal(FAULT_OF(t, mem_write(cpu, DS, DATA_LINEAR + 0xffc, 0, 8)), VECTOR_PF);
	assert_int_equal(cpu->cr2, DATA_LINEAR + 0xffc);
	assert_int_equal(cpu->raised.error_code, PF_W);
	test_cpu_free(t);
}

static void test_wrap_at_4_gib(void **state)
{
	struct test_cpu *t = test_cpu_new("intel");

	(void)state;
	test_mode_set(t, MODE_32BIT);
	test_map(t, 0xfffff000, PAGE_ONE | FLAGS, 1);
	test_map(t, 0, PAGE_TWO | FLAGS, 1);
	test_segment(t, DS, 0xfffff000, 0xffffffff, SEG_DATA);
	mem_write(&t->cpu, DS, 0xffe, 0x44332211, 4);
	assert_int_equal(t->ram[PAGE_ONE + 0xfff], 0x22);
	assert_int_equal(t->ram[PAGE_TWO], 0x33);
	assert_int_equal(mem_read(&t->cpu, DS, 0xffe, 4), 0x44332211);
	test_cpu_free(t);
}

static void test_user_and_supervisor(void **state)
{
	struct test_cpu *t = paged_cpu(FLAGS & ~PTE_U, FLAGS & ~PTE_W);
	struct cpu *cpu = &t->cpu;

	(void)state;
	mem_write(cpu, DS, DATA_LINEAR, 1, 8);
	mem_write(cpu, DS, DATA_LINEAR + 0x1000, 2, 8); /* WP = 0 */
	test_cpl_set(t, 3);
	assert_int_equal(FAULT_OF(t, mem_read(cpu, DS, DATA_LINEAR, 8)), VECTOR_PF);
	assert_int_equal(cpu->raised.error_code, PF_P | PF_U);
	assert_int_equal(cpu->cr2, DATA_LINEAR);
	assert_int_equal(mem_read(cpu, DS, DATA_LINEAR + 0x1000, 8), 2);
	assert_int_equal(FAULT_OF(t, mem_write(cpu, DS, DATA_LINEAR + 0x1008, 0, 8)), VECTOR_PF);
	assert_int_equal(cpu->raised.error_code, PF_P | PF_U | PF_W);
	/* At CPL 3, system accesses are supervisor-mode all the same. */
	assert_int_equal(linear_read(cpu, DATA_LINEAR, 8, ACCESS_IMPLICIT), 1);
	assert_int_equal(FAULT_OF(t, linear_read(cpu, DATA_LINEAR, 8, ACCESS_USER)), VECTOR_PF);
	test_cpl_set(t, 0);
	assert_int_equal(mem_read(cpu, DS, DATA_LINEAR, 8), 1);
	/* A read for writing faults as the write will. */
	cpu->cr0 |= CR0_WP;
	tlb_select(cpu);
	assert_int_equal(linear_read(cpu, DATA_LINEAR + 0x1000, 8, ACCESS_IMPLICIT), 2);
	assert_int_equal(
		FAULT_OF(t, linear_read(cpu, DATA_LINEAR + 0x1000, 8, ACCESS_IMPLICIT | ACCESS_WRITE)),
		VECTOR_PF);
	assert_int_equal(cpu->raised.error_code, PF_P | PF_W);
	assert_int_equal(linear_read(cpu, DATA_LINEAR, 8, ACCESS_IMPLICIT | ACCESS_WRITE), 1);
	/* The inline tags serve explicit accesses as well. */
	linear_write(cpu, DATA_LINEAR, 3, 2, ACCESS_IMPLICIT);
	linear_write(cpu, DATA_LINEAR + 2, 4, 1, ACCESS_IMPLICIT);
	assert_int_equal(linear_read(cpu, DATA_LINEAR, 4, ACCESS_IMPLICIT), 0x40003);
	test_cpu_free(t);
}

static void test_smap_contexts(void **state)
{
	struct test_cpu *t = paged_cpu(FLAGS, FLAGS);
	struct cpu *cpu = &t->cpu;

	(void)state;
	cpu->cr4 |= CR4_SMAP;
	cpu->rflags |= RFLAGS_AC;
	tlb_select(cpu);
	mem_write(cpu, DS, DATA_LINEAR, 5, 8);
	assert_int_equal(mem_read(cpu, DS, DATA_LINEAR, 8), 5);
	assert_int_equal(FAULT_OF(t, linear_read(cpu, DATA_LINEAR, 8, ACCESS_IMPLICIT)), VECTOR_PF);
	cpu->rflags &= ~(uint64_t)RFLAGS_AC;
	tlb_select(cpu);
	assert_int_equal(FAULT_OF(t, mem_read(cpu, DS, DATA_LINEAR, 8)), VECTOR_PF);
	assert_int_equal(cpu->raised.error_code, PF_P);
	test_cpl_set(t, 3);
	assert_int_equal(mem_read(cpu, DS, DATA_LINEAR, 8), 5);
	test_cpu_free(t);
}

/* ---- MMIO and ROM ---- */

static void test_mmio(void **state)
{
	struct test_cpu *t = test_cpu_new("intel");
	struct cpu *cpu = &t->cpu;
	uint8_t bytes[48];

	(void)state;
	test_mode_set(t, MODE_4LEVEL);
	test_map(t, 0x10000, 0xfee00000 | FLAGS, 1);
	test_map(t, DATA_LINEAR, PAGE_ONE | FLAGS, 1);
	test_map(t, 0x11000, PAGE_ONE | FLAGS, 1);
	for (unsigned round = 1; round <= 2; round++) {
		mem_write(cpu, DS, 0x10080, 0x12345678, 4);
		assert_int_equal(t->bus_writes, round);
		assert_int_equal(t->bus_address, 0xfee00080);
		assert_int_equal(t->bus_size, 4);
		assert_memory_equal(t->bus_data, "\x78\x56\x34\x12", 4);
		assert_int_equal(mem_read(cpu, DS, 0x10030, 2), 0xa5a5);
		assert_int_equal(t->bus_reads, round);
		assert_int_equal(t->bus_address, 0xfee00030);
	}
	mem_read_bytes(cpu, DS, 0x10100, bytes, 40, 1); /* 16, 16, 8 */
	assert_int_equal(t->bus_reads, 5);
	assert_int_equal(t->bus_size, 8);
	assert_int_equal(t->bus_address, 0xfee00120);

	/* Nothing reaches the device when the other page of the access faults. */
	test_map(t, 0x11000, 0, 1);
	tlb_flush_all(cpu);
	assert_int_equal(FAULT_OF(t, mem_write(cpu, DS, 0x10ffe, 0, 4)), VECTOR_PF);
	assert_int_equal(FAULT_OF(t, mem_read(cpu, DS, 0x10ffe, 4)), VECTOR_PF);
	assert_int_equal(t->bus_writes, 2);
	assert_int_equal(t->bus_reads, 5);
	test_cpu_free(t);
}

static void test_rom(void **state)
{
	struct test_cpu *t = test_cpu_new("intel");

	(void)state;
	test_mode_set(t, MODE_FLAT);
	for (unsigned round = 1; round <= 2; round++) {
		assert_int_equal(mem_read(&t->cpu, DS, TEST_ROM_AT + 4, 4), 0x5a5a5a5a);
		mem_write(&t->cpu, DS, TEST_ROM_AT + 4, 0, 4);
		assert_int_equal(t->bus_writes, round);
		assert_int_equal(t->bus_address, TEST_ROM_AT + 4);
	}
	assert_int_equal(t->rom[4], 0x5a);
	assert_int_equal(t->cpu.memory->dirty_count, 0);
	test_cpu_free(t);
}

/* ---- read-modify-write ---- */

static uint64_t add_to(struct cpu *cpu, uint64_t offset, uint64_t value, unsigned width)
{
	struct mem_modify modify;
	uint64_t old = mem_modify_begin(cpu, DS, offset, width, &modify);

	mem_modify_end(cpu, &modify, old + value, width);
	return old;
}

static void test_modify(void **state)
{
	struct test_cpu *t = paged_cpu(FLAGS, FLAGS);
	struct cpu *cpu = &t->cpu;

	(void)state;
	for (unsigned round = 0; round < 3; round++) {
		assert_int_equal(add_to(cpu, DATA_LINEAR + 0x10, 3, 8), 3 * round);
		assert_int_equal(add_to(cpu, DATA_LINEAR + 0xffc, 0x100000001, 8), 0x100000001 * round);
	}
	assert_int_equal(t->ram[PAGE_ONE + 0x10], 9);
	assert_int_equal(t->ram[PAGE_TWO], 3);
	test_map(t, 0x400000, 0xfee00000 | FLAGS, 1);
	add_to(cpu, 0x400000, 1, 4);
	assert_int_equal(t->bus_reads, 1);
	assert_int_equal(t->bus_writes, 1);
	assert_int_equal(t->bus_data[0], 0xa6);

	/* A page that may only be read: the fault is that of the write, and comes before the read. */
	test_map(t, 0x500000, 0xfee00000 | (FLAGS & ~PTE_W), 1);
	test_cpl_set(t, 3);
	assert_int_equal(FAULT_OF(t, add_to(cpu, 0x500000, 1, 4)), VECTOR_PF);
	assert_int_equal(cpu->raised.error_code, PF_P | PF_W | PF_U);
	assert_int_equal(t->bus_reads, 1);
	test_cpu_free(t);
}

static void test_check_write(void **state)
{
	struct test_cpu *t = paged_cpu(FLAGS, 0);
	struct test_path path = test_map(t, DATA_LINEAR, PAGE_ONE | FLAGS, 1);
	struct cpu *cpu = &t->cpu;

	(void)state;
	assert_int_equal(FAULT_OF(t, mem_check_write(cpu, DS, DATA_LINEAR + 0xff0, 16)), NO_FAULT);
	assert_int_equal(FAULT_OF(t, mem_check_write(cpu, DS, DATA_LINEAR + 0xff1, 16)), VECTOR_PF);
	assert_int_equal(cpu->cr2, DATA_LINEAR + 0x1000);
	assert_int_equal(cpu->raised.error_code, PF_W);
	assert_int_equal(FAULT_OF(t, mem_check_read(cpu, DS, DATA_LINEAR + 0xff1, 16)), VECTOR_PF);
	assert_int_equal(cpu->raised.error_code, 0);
	assert_int_equal(FAULT_OF(t, mem_check_write(cpu, DS, 1ull << 47, 1)), VECTOR_GP);
	assert_int_equal(test_entry(t, &path, 1) & (PTE_A | PTE_D), 0);
	assert_int_equal(t->cpu.memory->dirty_count, 0);
	test_cpu_free(t);
}

/* ---- alignment ---- */

static void alignment_on(struct test_cpu *t)
{
	t->cpu.cr0 |= CR0_AM;
	t->cpu.rflags |= RFLAGS_AC;
	test_cpl_set(t, 3);
}

static void test_alignment(void **state)
{
	struct test_cpu *t = paged_cpu(FLAGS, FLAGS);
	struct cpu *cpu = &t->cpu;

	(void)state;
	mem_write(cpu, DS, DATA_LINEAR + 1, 7, 8);
	alignment_on(t);
	for (unsigned width = 2; width <= 8; width *= 2) {
		assert_int_equal(FAULT_OF(t, mem_read(cpu, DS, DATA_LINEAR + width / 2, width)), VECTOR_AC);
		assert_int_equal(cpu->raised.error_code, 0);
		assert_int_equal(FAULT_OF(t, mem_write(cpu, DS, DATA_LINEAR + 1, 0, width)), VECTOR_AC);
		assert_int_equal(FAULT_OF(t, mem_write(cpu, DS, DATA_LINEAR + 0x100 + width, 0, width)),
				 NO_FAULT);
		assert_int_equal(FAULT_OF(t, add_to(cpu, DATA_LINEAR + 1, 0, width)), VECTOR_AC);
	}
	assert_int_equal(FAULT_OF(t, mem_read(cpu, DS, DATA_LINEAR + 1, 1)), NO_FAULT);
	check_broken = CHECK_ALIGNMENT;
	assert_int_equal(FAULT_OF(t, mem_read(cpu, DS, DATA_LINEAR + 1, 8)), NO_FAULT);
	check_broken = -1;
	test_cpl_set(t, 0); /* only CPL 3 */
	assert_int_equal(FAULT_OF(t, mem_read(cpu, DS, DATA_LINEAR + 1, 8)), NO_FAULT);
	cpu->cr0 &= ~(uint64_t)CR0_AM;
	test_cpl_set(t, 3);
	assert_int_equal(FAULT_OF(t, mem_read(cpu, DS, DATA_LINEAR + 1, 8)), NO_FAULT);
	assert_int_equal(t->ram[PAGE_ONE + 1], 7);
	test_cpu_free(t);
}

static void test_operand_alignment(void **state)
{
	struct test_cpu *t = paged_cpu(FLAGS, FLAGS);
	uint8_t bytes[16] = {0};

	(void)state;
	assert_int_equal(FAULT_OF(t, mem_read_bytes(&t->cpu, DS, DATA_LINEAR + 8, bytes, 16, 16)), VECTOR_GP);
	assert_int_equal(FAULT_OF(t, mem_write_bytes(&t->cpu, SS, DATA_LINEAR + 8, bytes, 16, 16)),
			 VECTOR_GP);
	assert_int_equal(FAULT_OF(t, mem_read_bytes(&t->cpu, DS, DATA_LINEAR + 8, bytes, 16, 1)), NO_FAULT);
	assert_int_equal(FAULT_OF(t, mem_read_bytes(&t->cpu, DS, DATA_LINEAR + 16, bytes, 16, 16)), NO_FAULT);
	check_broken = CHECK_OPERAND_ALIGNMENT;
	assert_int_equal(FAULT_OF(t, mem_read_bytes(&t->cpu, DS, DATA_LINEAR + 8, bytes, 16, 16)), NO_FAULT);
	check_broken = -1;
	test_cpu_free(t);
}

/* ---- canonical addresses of implicit accesses and fetches ---- */

static void test_canonical(void **state)
{
	struct test_cpu *t = paged_cpu(FLAGS, FLAGS);
	struct cpu *cpu = &t->cpu;

	(void)state;
	assert_int_equal(FAULT_OF(t, linear_read(cpu, 1ull << 47, 8, ACCESS_IMPLICIT)), VECTOR_GP);
	assert_int_equal(FAULT_OF(t, linear_write(cpu, 0xffff7ffffffffffc, 0, 8, ACCESS_IMPLICIT)),
			 VECTOR_GP);
	assert_int_equal(FAULT_OF(t, fetch_translate(cpu, 1ull << 47)), VECTOR_GP);
	check_broken = CHECK_CANONICAL_LINEAR;
	assert_int_equal(FAULT_OF(t, linear_read(cpu, 1ull << 47, 8, ACCESS_IMPLICIT)), VECTOR_PF);
	/* No check stands behind another: each, broken, shows. */
	check_broken = CHECK_CANONICAL;
	assert_int_equal(FAULT_OF(t, mem_read(cpu, DS, 1ull << 47, 8)), VECTOR_PF);
	assert_int_equal(FAULT_OF(t, mem_write(cpu, SS, 1ull << 47, 0, 8)), VECTOR_PF);
	check_broken = CHECK_CANONICAL_FETCH;
	assert_int_equal(FAULT_OF(t, fetch_translate(cpu, 1ull << 47)), VECTOR_PF);
	check_broken = -1;
	test_cpu_free(t);
}

static void test_fetch(void **state)
{
	struct test_cpu *t = paged_cpu(FLAGS | PTE_NX, FLAGS);
	struct cpu *cpu = &t->cpu;

	(void)state;
	cpu->efer |= EFER_NXE;
	tlb_select(cpu);
	assert_int_equal(mem_read(cpu, DS, DATA_LINEAR, 8), 0); /* the entry is there, without the right */
	assert_int_equal(FAULT_OF(t, fetch_translate(cpu, DATA_LINEAR + 5)), VECTOR_PF);
	assert_int_equal(cpu->raised.error_code, PF_P | PF_I);
	assert_int_equal(cpu->cr2, DATA_LINEAR + 5);
	assert_int_equal(fetch_translate(cpu, DATA_LINEAR + 0x1abc), PAGE_TWO + 0xabc);
	test_cpu_free(t);
}

/* ---- runs ---- */

static void test_runs(void **state)
{
	struct test_cpu *t = paged_cpu(FLAGS, FLAGS);
	struct cpu *cpu = &t->cpu;
	size_t size = 0x10000;

	(void)state;
	assert_ptr_equal(mem_run_write(cpu, DS, DATA_LINEAR + 0x100, &size), t->ram + PAGE_ONE + 0x100);
	assert_int_equal(size, 0xf00);
	size = 16;
	assert_ptr_equal(mem_run_read(cpu, DS, DATA_LINEAR + 0x200, &size), t->ram + PAGE_ONE + 0x200);
	assert_int_equal(size, 16);

	test_mode_set(t, MODE_FLAT);
	test_segment(t, DS, 0x1000, 0x4ff, SEG_DATA);
	mem_write(cpu, DS, 0, 0, 1);
	size = 0x10000;
	assert_ptr_equal(mem_run_write(cpu, DS, 0x400, &size), t->ram + 0x1400);
	assert_int_equal(size, 0x100); /* to the end of the segment */
	assert_null(mem_run_read(cpu, DS, 0x500, &size));
	test_cpu_free(t);
}

/* A run that misses the TLB walks, and what it writes is logged. */
static void test_runs_that_miss(void **state)
{
	struct test_cpu *t = paged_cpu(FLAGS, FLAGS & ~(uint64_t)PTE_W);
	struct cpu *cpu = &t->cpu;
	size_t size = 0x10000, logged;

	(void)state;
	assert_ptr_equal(mem_run_read(cpu, DS, DATA_LINEAR + 0x100, &size), t->ram + PAGE_ONE + 0x100);
	assert_ptr_equal(mem_run_write(cpu, DS, DATA_LINEAR + 0x100, &size), t->ram + PAGE_ONE + 0x100);
	assert_int_equal(cpu->memory->dirty[cpu->memory->dirty_count - 1], PAGE_ONE);
	assert_non_null(mem_fast_write(cpu, DS, DATA_LINEAR, 1));

	/* What the first element would raise, and nothing else is done. */
	logged = cpu->memory->dirty_count;
	cpu->cr0 |= CR0_WP;
	tlb_select(cpu);
	assert_int_equal(FAULT_OF(t, mem_run_write(cpu, DS, DATA_LINEAR + 0x1000, &size)), VECTOR_PF);
	assert_int_equal(cpu->raised.error_code, PF_P | PF_W);
	assert_int_equal(cpu->cr2, DATA_LINEAR + 0x1000);
	assert_int_equal(cpu->memory->dirty_count, logged);

	/* An element may cross into the next page: that is for the element to find out. */
	assert_null(mem_run_write(cpu, DS, DATA_LINEAR + 0x1ffc, &size));
	test_cpu_free(t);
}

/* Alignment comes before paging, and the segment before both. */
static void test_runs_leave_order_alone(void **state)
{
	struct test_cpu *t = paged_cpu(FLAGS, 0);
	struct cpu *cpu = &t->cpu;
	size_t size = 64;

	(void)state;
	cpu->cpl = 3;
	cpu->cr0 |= CR0_AM;
	cpu->rflags |= RFLAGS_AC;
	tlb_select(cpu);
	assert_null(mem_run_read(cpu, DS, DATA_LINEAR + 0x1001, &size));
	cpu->rflags &= ~(uint64_t)RFLAGS_AC;
	tlb_select(cpu);
	assert_int_equal(FAULT_OF(t, mem_run_read(cpu, DS, DATA_LINEAR + 0x1001, &size)), VECTOR_PF);
	assert_int_equal(FAULT_OF(t, mem_run_read(cpu, DS, 0x8000000000000000, &size)), VECTOR_GP);
	test_cpu_free(t);
}

/* ---- stack ---- */

static void test_stack(void **state)
{
	struct test_cpu *t = test_cpu_new("intel");
	struct cpu *cpu = &t->cpu;

	(void)state;
	test_mode_set(t, MODE_FLAT);
	test_segment(t, SS, 0x20000, 0xffff, DATA16);
	cpu->stack_mask = 0xffff;
	cpu->reg[RSP] = 0xabcd0000; /* SP wraps from 0 to FFFEH, the rest of ESP stays */
	for (unsigned round = 0; round < 2; round++) {
		stack_push(cpu, 0x1234, 2);
		assert_int_equal(cpu->reg[RSP], 0xabcdfffe);
		assert_int_equal(*(uint16_t *)(t->ram + 0x2fffe), 0x1234);
		assert_int_equal(stack_pop(cpu, 2), 0x1234);
		assert_int_equal(cpu->reg[RSP], 0xabcd0000);
	}
	cpu->reg[RSP] = 0xabcd0001; /* FFFFH and 0 */
	assert_int_equal(FAULT_OF(t, stack_push(cpu, 0, 2)), VECTOR_SS);
	assert_int_equal(cpu->reg[RSP], 0xabcd0001);
	cpu->reg[RSP] = 0xabcdffff;
	assert_int_equal(FAULT_OF(t, stack_pop(cpu, 2)), VECTOR_SS);
	assert_int_equal(cpu->reg[RSP], 0xabcdffff);

	test_mode_set(t, MODE_4LEVEL);
	test_map(t, DATA_LINEAR, PAGE_ONE | FLAGS, 1);
	cpu->reg[RSP] = DATA_LINEAR + 0x1000;
	stack_push(cpu, 0x1122334455667788, 8);
	stack_push(cpu, 0x99aa, 2);
	assert_int_equal(cpu->reg[RSP], DATA_LINEAR + 0xff6);
	assert_int_equal(stack_pop(cpu, 2), 0x99aa);
	assert_int_equal(stack_pop(cpu, 8), 0x1122334455667788);
	assert_int_equal(FAULT_OF(t, stack_pop(cpu, 8)), VECTOR_PF);
	assert_int_equal(cpu->reg[RSP], DATA_LINEAR + 0x1000);
	test_cpu_free(t);
}

/* ---- data breakpoints ---- */

static uint64_t hits(struct test_cpu *t)
{
	uint64_t dr6 = t->cpu.dr6_pending;

	t->cpu.dr6_pending = 0;
	return dr6;
}

#define RW(n, kind)  ((uint64_t)(kind) << DR7_RW_SHIFT(n))
#define LEN(n, code) ((uint64_t)(code) << DR7_LEN_SHIFT(n))

static void test_breakpoints(void **state)
{
	struct test_cpu *t = paged_cpu(FLAGS, FLAGS);
	struct cpu *cpu = &t->cpu;
	uint8_t bytes[16] = {0};

	(void)state;
	mem_write(cpu, DS, DATA_LINEAR, 0, 8); /* the inline path is armed before the breakpoints are */
	cpu->dr[0] = DATA_LINEAR + 0x12;       /* two bytes, writes */
	cpu->dr[1] = DATA_LINEAR + 0x25;       /* four bytes from 24H on, reads and writes */
	cpu->dr[2] = DATA_LINEAR + 0x40;       /* eight bytes, disabled */
	cpu->dr[3] = DATA_LINEAR + 0x1000;     /* code */
	cpu->dr7 = DR7_FIXED_1 | DR7_L(0) | RW(0, 1) | LEN(0, 1) | DR7_G(1) | RW(1, 3) | LEN(1, 3) |
		   RW(2, 3) | LEN(2, 2) | DR7_L(3);
	tlb_select(cpu);
	for (unsigned round = 0; round < 2; round++) {
		mem_write(cpu, DS, DATA_LINEAR + 0x10, 0, 2);
		assert_int_equal(hits(t), 0);
		mem_write(cpu, DS, DATA_LINEAR + 0x10, 0, 4);
		assert_int_equal(hits(t), DR6_B(0));
		mem_write(cpu, DS, DATA_LINEAR + 0x13, 0, 1);
		assert_int_equal(hits(t), DR6_B(0));
		mem_read(cpu, DS, DATA_LINEAR + 0x12, 2);
		assert_int_equal(hits(t), 0);
		mem_read(cpu, DS, DATA_LINEAR + 0x27, 1);
		assert_int_equal(hits(t), DR6_B(1));
		mem_read(cpu, DS, DATA_LINEAR + 0x28, 8);
		assert_int_equal(hits(t), 0);
		mem_write_bytes(cpu, DS, DATA_LINEAR + 0x13, bytes, 16, 1);
		assert_int_equal(hits(t), DR6_B(0));
		mem_write_bytes(cpu, DS, DATA_LINEAR + 0x15, bytes, 16, 1);
		assert_int_equal(hits(t), DR6_B(1));
		add_to(cpu, DATA_LINEAR + 0x20, 0, 8);
		assert_int_equal(hits(t), DR6_B(1));
		mem_write(cpu, DS, DATA_LINEAR + 0x40, 0, 8);
		mem_read(cpu, DS, DATA_LINEAR + 0x1000, 8);
		assert_int_equal(hits(t), 0);
	}
	cpu->dr7 |= DR7_L(2);
	tlb_select(cpu);
	mem_read(cpu, DS, DATA_LINEAR + 0x47, 1);
	assert_int_equal(hits(t), DR6_B(2));
	cpu->dr[2] = DATA_LINEAR + 0x1ff8; /* moved to the other page; seen across the edge as well */
	tlb_select(cpu);
	assert_int_equal(FAULT_OF(t, mem_read(cpu, DS, DATA_LINEAR + 0x1ffc, 8)), VECTOR_PF);
	assert_int_equal(hits(t), 0); /* a fault reports no breakpoint of the access that it stopped */
	mem_read(cpu, DS, DATA_LINEAR + 0x1ff8, 1);
	assert_int_equal(hits(t), DR6_B(2));
	cpu->dr7 = DR7_FIXED_1;
	tlb_select(cpu);
	mem_write(cpu, DS, DATA_LINEAR + 0x12, 0, 8);
	assert_non_null(mem_fast_write(cpu, DS, DATA_LINEAR + 0x12, 8));
	assert_int_equal(hits(t), 0);
	test_cpu_free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_segment_rows),
		cmocka_unit_test(test_broken_segment_checks_are_noticed),
		cmocka_unit_test(test_fast_path_checks_segments),
		cmocka_unit_test(test_widths),
		cmocka_unit_test(test_page_crossing),
		cmocka_unit_test(test_page_crossing_at_powers_of_two),
		cmocka_unit_test(test_page_crossing_write_faults_whole),
		cmocka_unit_test(test_wrap_at_4_gib),
		cmocka_unit_test(test_user_and_supervisor),
		cmocka_unit_test(test_smap_contexts),
		cmocka_unit_test(test_mmio),
		cmocka_unit_test(test_rom),
		cmocka_unit_test(test_modify),
		cmocka_unit_test(test_check_write),
		cmocka_unit_test(test_alignment),
		cmocka_unit_test(test_operand_alignment),
		cmocka_unit_test(test_canonical),
		cmocka_unit_test(test_fetch),
		cmocka_unit_test(test_runs),
		cmocka_unit_test(test_runs_that_miss),
		cmocka_unit_test(test_runs_leave_order_alone),
		cmocka_unit_test(test_stack),
		cmocka_unit_test(test_breakpoints),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
