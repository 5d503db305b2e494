/*
 * tlb_test.c: what a translation is kept for, and when it is forgotten.
 */
#include "cpu/mem/test_cpu.h"

#define LINEAR     0x200000u
#define SAME_INDEX 0x80000000ull /* the distance of two pages with the same index */
#define PAGE       0x300000u
#define OTHER      0x400000u
#define FLAGS      (PTE_P | PTE_W | PTE_U)

static struct test_cpu *paged_cpu(uint64_t flags)
{
	struct test_cpu *t = test_cpu_new("intel");

	test_mode_set(t, MODE_4LEVEL);
	test_map(t, LINEAR, PAGE | flags, 1);
	t->ram[PAGE] = 1;
	t->ram[OTHER] = 2;
	return t;
}

static uint64_t byte_at(struct test_cpu *t, uint64_t linear) { return mem_read(&t->cpu, DS, linear, 1); }

static void test_kept_until_flushed(void **state)
{
	struct test_cpu *t = paged_cpu(FLAGS);

	(void)state;
	assert_int_equal(byte_at(t, LINEAR), 1);
	test_map(t, LINEAR, OTHER | FLAGS, 1);
	assert_int_equal(byte_at(t, LINEAR), 1); /* a walk a read would not need a TLB */
	tlb_flush_page(&t->cpu, LINEAR + 0x1000);
	assert_int_equal(byte_at(t, LINEAR), 1);
	tlb_flush_page(&t->cpu, LINEAR + 0x123);
	assert_int_equal(byte_at(t, LINEAR), 2);
	test_map(t, LINEAR, PAGE | FLAGS, 1);
	tlb_flush_non_global(&t->cpu);
	assert_int_equal(byte_at(t, LINEAR), 1);
	test_map(t, LINEAR, OTHER | FLAGS | PTE_G, 1);
	tlb_flush_all(&t->cpu);
	assert_int_equal(byte_at(t, LINEAR), 2);
	test_map(t, LINEAR, PAGE | FLAGS, 1);
	tlb_flush_all(&t->cpu);
	assert_int_equal(byte_at(t, LINEAR), 1);
	test_cpu_free(t);
}

/* More flushes than generations fit into a tag: nothing old comes back. */
static void test_generations_wrap(void **state)
{
	struct test_cpu *t = paged_cpu(FLAGS);

	(void)state;
	mem_write(&t->cpu, DS, LINEAR, 1, 1);
	for (unsigned i = 1; i <= 2 * TLB_GENERATIONS + 1; i++) {
		tlb_flush_all(&t->cpu);
		assert_null(mem_fast_read(&t->cpu, DS, LINEAR, 1));
		assert_null(mem_fast_write(&t->cpu, DS, LINEAR, 1));
		if (i == TLB_GENERATIONS - 2)
			byte_at(t, LINEAR + 5);
	}
	mem_write(&t->cpu, DS, LINEAR, 1, 1);
	for (unsigned i = 1; i <= 2 * TLB_GENERATIONS + 1; i++) {
		phys_dirty_reset(t->cpu.memory);
		assert_null(mem_fast_write(&t->cpu, DS, LINEAR, 1));
		assert_non_null(mem_fast_read(&t->cpu, DS, LINEAR, 1));
		physical_write(&t->cpu, OTHER, 0, 1); /* something to reset */
	}
	test_cpu_free(t);
}

/* Pages whose distance is a power of two, up to that of gigabytes, have entries of their own. */
static void test_index(void **state)
{
	(void)state;
	for (uint64_t distance = PAGE_SIZE; distance < SAME_INDEX; distance *= 2)
		assert_int_not_equal(tlb_index(LINEAR + distance), tlb_index(LINEAR));
}

/* Neighbours never share an entry: an access that crosses from one to the other would hit. */
static void test_index_of_neighbours(void **state)
{
	(void)state;
	for (uint64_t page = 0; page < 1ull << 33; page += PAGE_SIZE)
		if (tlb_index(page) == tlb_index(page + PAGE_SIZE))
			fail_msg("0x%llx and the page behind it", (unsigned long long)page);
	for (unsigned bit = PAGE_SHIFT; bit < 64; bit++)
		assert_int_not_equal(tlb_index((1ull << bit) - 1), tlb_index(1ull << bit));
	assert_int_not_equal(tlb_index(~0ull), tlb_index(0));
}

/* Two pages with the same index do not answer for each other. */
static void test_same_index(void **state)
{
	struct test_cpu *t = paged_cpu(FLAGS);
	uint64_t alias = LINEAR + SAME_INDEX;

	(void)state;
	assert_int_equal(tlb_index(alias), tlb_index(LINEAR));
	test_map(t, alias, OTHER | FLAGS, 1);
	for (unsigned round = 0; round < 2; round++) {
		assert_int_equal(byte_at(t, LINEAR), 1);
		assert_int_equal(byte_at(t, alias), 2);
	}
	mem_write(&t->cpu, DS, alias, 3, 1);
	assert_null(mem_fast_write(&t->cpu, DS, LINEAR, 1));
	mem_write(&t->cpu, DS, LINEAR, 4, 1);
	assert_int_equal(t->ram[OTHER], 3);
	assert_int_equal(t->ram[PAGE], 4);
	test_cpu_free(t);
}

/* INVLPG of any address in a large page drops all of it (SDM 3A 4.10.4.1). */
static void test_invlpg_of_a_large_page(void **state)
{
	struct test_cpu *t = paged_cpu(FLAGS);

	(void)state;
	test_map(t, 0x40000000, 0x200000 | PTE_PS | FLAGS, 2);
	t->ram[0x201000] = 7;
	assert_int_equal(byte_at(t, 0x40001000), 7);
	test_map(t, 0x40000000, 0x400000 | PTE_PS | FLAGS, 2);
	assert_int_equal(byte_at(t, 0x40001000), 7);
	tlb_flush_page(&t->cpu, 0x401ff000);
	assert_int_equal(byte_at(t, 0x40001000), 0);
	test_cpu_free(t);
}

/* The first write sets D even where a read has filled the entry. */
static void test_dirty_flag(void **state)
{
	struct test_cpu *t = paged_cpu(FLAGS);
	struct test_path path = test_map(t, LINEAR, PAGE | FLAGS, 1);

	(void)state;
	byte_at(t, LINEAR);
	assert_int_equal(test_entry(t, &path, 1) & (PTE_A | PTE_D), PTE_A);
	mem_check_write(&t->cpu, DS, LINEAR, 4);
	byte_at(t, LINEAR);
	assert_int_equal(test_entry(t, &path, 1) & (PTE_A | PTE_D), PTE_A);
	mem_write(&t->cpu, DS, LINEAR, 0, 1);
	assert_int_equal(test_entry(t, &path, 1) & (PTE_A | PTE_D), PTE_A | PTE_D);
	/* Cleared in memory without INVLPG: the TLB may still say that it is set; after one, not. */
	test_entry_set(t, &path, 1, PAGE | FLAGS);
	tlb_flush_page(&t->cpu, LINEAR);
	mem_write(&t->cpu, DS, LINEAR, 0, 1);
	assert_int_equal(test_entry(t, &path, 1) & (PTE_A | PTE_D), PTE_A | PTE_D);
	test_cpu_free(t);
}

/* Rights that a control register gave are gone when it changes: those inputs are not cached in the page
 * tables. */
static void test_select_forgets_rights(void **state)
{
	struct test_cpu *t = paged_cpu((FLAGS & ~PTE_W) | 3ull << PTE_PK_SHIFT);
	struct cpu *cpu = &t->cpu;

	(void)state;
	mem_write(cpu, DS, LINEAR, 1, 1);
	cpu->cr0 |= CR0_WP;
	tlb_select(cpu);
	assert_int_equal(FAULT_OF(t, mem_write(cpu, DS, LINEAR, 1, 1)), VECTOR_PF);

	/* So is what a broken check let pass, once it is mended. */
	check_broken = CHECK_CR0_WP;
	tlb_select(cpu);
	assert_int_equal(FAULT_OF(t, mem_write(cpu, DS, LINEAR, 1, 1)), NO_FAULT);
	check_broken = -1;
	tlb_select(cpu);
	assert_int_equal(FAULT_OF(t, mem_write(cpu, DS, LINEAR, 1, 1)), VECTOR_PF);

	assert_int_equal(FAULT_OF(t, byte_at(t, LINEAR)), NO_FAULT);
	cpu->cr4 |= CR4_PKE;
	tlb_select(cpu);
	assert_int_equal(FAULT_OF(t, byte_at(t, LINEAR)), NO_FAULT);
	cpu->pkru = 1u << 6;
	tlb_select(cpu);
	assert_int_equal(FAULT_OF(t, byte_at(t, LINEAR)), VECTOR_PF);
	assert_int_equal(cpu->raised.error_code, PF_P | PF_PK);
	cpu->pkru = 0;
	tlb_select(cpu);
	assert_int_equal(FAULT_OF(t, byte_at(t, LINEAR)), NO_FAULT);

	cpu->cr4 |= CR4_SMAP;
	tlb_select(cpu);
	assert_int_equal(FAULT_OF(t, byte_at(t, LINEAR)), VECTOR_PF);
	cpu->cr4 &= ~(uint64_t)CR4_SMAP;
	tlb_select(cpu);

	assert_int_equal(FAULT_OF(t, fetch_translate(cpu, LINEAR)), NO_FAULT);
	cpu->cr4 |= CR4_SMEP;
	tlb_select(cpu);
	assert_int_equal(FAULT_OF(t, fetch_translate(cpu, LINEAR)), VECTOR_PF);
	test_cpu_free(t);
}

/* Changes of privilege and AC choose another table, and do not flush. */
static void test_select_keeps_translations(void **state)
{
	struct test_cpu *t = paged_cpu(FLAGS);
	struct cpu *cpu = &t->cpu;

	(void)state;
	byte_at(t, LINEAR);
	test_cpl_set(t, 3);
	assert_null(mem_fast_read(cpu, DS, LINEAR, 1));
	byte_at(t, LINEAR);
	for (unsigned round = 0; round < 4; round++) {
		test_cpl_set(t, round & 1 ? 3 : 0);
		assert_non_null(mem_fast_read(cpu, DS, LINEAR, 1));
	}
	cpu->cr0 |= CR0_AM;
	cpu->rflags |= RFLAGS_AC;
	tlb_select(cpu);
	byte_at(t, LINEAR);
	assert_null(mem_fast_read(cpu, DS, LINEAR, 1)); /* alignment checks: always seen */
	test_cpl_set(t, 2);
	assert_ptr_equal(cpu->tlb, &cpu->tlbs[TLB_SUPERVISOR]);
	cpu->cr4 |= CR4_SMAP;
	tlb_select(cpu);
	assert_ptr_equal(cpu->tlb, &cpu->tlbs[TLB_SUPERVISOR_AC]);
	test_cpu_free(t);
}

/* ---- the TLB against the walk ---- */

#define PAGES  24u /* linear pages in play; four of them share an index with another */
#define FRAMES 8u

static uint64_t random_next(uint64_t *state)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return *state >> 33;
}

static uint64_t page_linear(unsigned page)
{
	return LINEAR + (page % 20) * PAGE_SIZE + (page < 20 ? 0 : SAME_INDEX);
}

/* Maps a page anew with random rights, and drops what was known of it. */
static void random_map(struct test_cpu *t, uint64_t *seed)
{
	uint64_t linear = page_linear((unsigned)random_next(seed) % PAGES);
	uint64_t frame = PAGE + random_next(seed) % FRAMES * PAGE_SIZE;
	uint64_t flags = random_next(seed) & (PTE_P | PTE_W | PTE_U);

	if (random_next(seed) % 4)
		flags |= PTE_P | PTE_W;
	test_map(t, linear, frame | flags, 1);
	tlb_flush_page(&t->cpu, linear);
}

/* A control bit, a privilege level, the kind of a page. */
static void random_state(struct test_cpu *t, uint64_t *seed)
{
	struct cpu *cpu = &t->cpu;

	switch (random_next(seed) % 8) {
	case 0: cpu->cr0 ^= CR0_WP; break;
	case 1: cpu->cr4 ^= CR4_SMAP; break;
	case 2: cpu->rflags ^= RFLAGS_AC; break;
	case 3: tlb_flush_non_global(cpu); break;
	case 4: phys_dirty_reset(cpu->memory); break;
	case 5: phys_set_code(cpu->memory, PAGE + random_next(seed) % FRAMES * PAGE_SIZE); break;
	case 6: phys_clear_code(cpu->memory, PAGE + random_next(seed) % FRAMES * PAGE_SIZE); break;
	default: cpu->cpl ^= 3; break;
	}
	tlb_select(cpu);
}

/* What an access must do, by walks alone: where each of its two parts lies, or the fault. */
static bool expect(struct test_cpu *t, uint64_t linear, unsigned access, uint64_t *where)
{
	struct walk walked;

	access |= t->cpu.cpl == 3 ? ACCESS_USER : 0;
	if (!walk(&t->cpu, linear, access | ACCESS_PROBE, &walked))
		return false;
	*where = walked.physical | (linear & PAGE_MASK);
	return true;
}

static bool page_is_listed(const struct phys_memory *memory, uint64_t address)
{
	for (size_t i = 0; i < memory->dirty_count; i++) {
		if (memory->dirty[i] == (address & ~PAGE_MASK))
			return true;
	}
	return false;
}

/* A write of *@value, or a read into it: the vector that it raised, or NO_FAULT. */
static int access_fault(struct test_cpu *t, uint64_t linear, unsigned access, uint64_t *value)
{
	if (access)
		return FAULT_OF(t, mem_write(&t->cpu, DS, linear, *value, 8));
	return FAULT_OF(t, *value = mem_read(&t->cpu, DS, linear, 8));
}

/* One read or write of eight bytes, anywhere, by the inline path where that will do. */
static void random_access(struct test_cpu *t, uint64_t *seed)
{
	uint64_t offset = random_next(seed) % 8 ? random_next(seed) % 0xff8 : 0xff9 + random_next(seed) % 7;
	uint64_t linear = page_linear((unsigned)random_next(seed) % PAGES) + offset;
	uint64_t value = random_next(seed), low = 0, high = 0, memory = 0;
	unsigned access = random_next(seed) & ACCESS_WRITE;
	size_t first = offset > 0xff8 ? 0x1000 - offset : 8;
	bool allowed = expect(t, linear, access, &low) && expect(t, linear + 7, access, &high);

	assert_int_equal(access_fault(t, linear, access, &value), allowed ? NO_FAULT : VECTOR_PF);
	if (!allowed)
		return;
	memcpy(&memory, t->ram + low, first);
	memcpy((uint8_t *)&memory + first, t->ram + high - (7 - first), 8 - first);
	assert_int_equal(memory, value);
	if (access) {
		assert_true(page_is_listed(t->cpu.memory, low));
		assert_true(page_is_listed(t->cpu.memory, high));
	}
}

/* Nothing that was kept ever differs from what a walk would find. */
static void test_against_walks(void **state)
{
	struct test_cpu *t = test_cpu_new("intel");
	uint64_t seed = 1;

	(void)state;
	test_mode_set(t, MODE_4LEVEL);
	for (unsigned i = 0; i < 200; i++)
		random_map(t, &seed);
	for (unsigned i = 0; i < 60000; i++) {
		if (random_next(&seed) % 16 == 0)
			random_map(t, &seed);
		if (random_next(&seed) % 16 == 0)
			random_state(t, &seed);
		random_access(t, &seed);
	}
	test_cpu_free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kept_until_flushed),
		cmocka_unit_test(test_generations_wrap),
		cmocka_unit_test(test_index),
		cmocka_unit_test(test_index_of_neighbours),
		cmocka_unit_test(test_same_index),
		cmocka_unit_test(test_invlpg_of_a_large_page),
		cmocka_unit_test(test_dirty_flag),
		cmocka_unit_test(test_select_forgets_rights),
		cmocka_unit_test(test_select_keeps_translations),
		cmocka_unit_test(test_against_walks),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
