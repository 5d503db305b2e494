/*
 * phys_test.c: slots, the dirty list, code pages, reset and restore.
 */
#include <errno.h>

#include "cpu/mem/test_cpu.h"
#include "cpu/segment.h"
#include "cpu/trace.h"

static bool flag(const struct test_cpu *t, uint64_t address, enum page_flag which)
{
	return t->cpu.memory->slot[0].flags[address / PAGE_SIZE] & which;
}

static struct test_cpu *flat_cpu(void)
{
	struct test_cpu *t = test_cpu_new("amd");

	test_mode_set(t, MODE_FLAT);
	return t;
}

static void test_slots(void **state)
{
	struct phys_memory *memory = phys_new();
	static uint8_t host[0x3000] __attribute__((aligned(4096)));
	struct memory_slot *slot;

	(void)state;
	assert_int_equal(phys_add(memory, 0x1000, 0x2000, host, false), 0);
	assert_int_equal(phys_add(memory, 0x2000, 0x1000, host, false), -EINVAL);
	assert_int_equal(phys_add(memory, 0, 0x2000, host, false), -EINVAL);
	assert_int_equal(phys_add(memory, 0, 0x4000, host, false), -EINVAL);
	assert_int_equal(phys_add(memory, 0x800, 0x800, host, false), -EINVAL);
	assert_int_equal(phys_add(memory, 0x4000, 0, host, false), -EINVAL);
	assert_int_equal(phys_add(memory, 0xfffffffffffff000, 0x2000, host, false), -EINVAL);
	assert_int_equal(phys_add(memory, 0, 0x1000, host + 0x2000, true), 0);
	assert_ptr_equal(phys_host(memory, 0x1234, &slot), host + 0x234);
	assert_int_equal(slot->base, 0x1000);
	assert_ptr_equal(phys_host(memory, 0xfff, NULL), host + 0x2fff);
	assert_null(phys_host(memory, 0x3000, &slot));
	assert_null(slot);
	assert_null(phys_write_begin(memory, 0x10, 1)); /* read-only */
	for (uint64_t i = 2; i < PHYS_SLOTS_MAX; i++)
		assert_int_equal(phys_add(memory, i << 20, 0x1000, host, false), 0);
	assert_int_equal(phys_add(memory, 1ull << 40, 0x1000, host, false), -ENOSPC);
	phys_free(memory);
}

static void test_copies_cross_slots(void **state)
{
	struct phys_memory *memory = phys_new();
	static uint8_t low[0x1000], high[0x1000], back[0x800];
	uint8_t bytes[0x800];

	(void)state;
	memset(bytes, 0x3c, sizeof(bytes));
	assert_int_equal(phys_add(memory, 0x1000, 0x1000, high, false), 0);
	assert_int_equal(phys_add(memory, 0, 0x1000, low, false), 0);
	assert_true(phys_write(memory, 0xc00, bytes, sizeof(bytes)));
	assert_int_equal(low[0xbff], 0);
	assert_int_equal(low[0xc00], 0x3c);
	assert_int_equal(high[0x3ff], 0x3c);
	assert_int_equal(high[0x400], 0);
	assert_true(phys_read(memory, 0xc00, back, sizeof(back)));
	assert_memory_equal(back, bytes, sizeof(back));
	assert_false(phys_read(memory, 0x1c00, back, sizeof(back)));
	assert_false(phys_write(memory, 0x1c00, bytes, sizeof(bytes)));
	assert_int_equal(memory->dirty_count, 2);
	phys_free(memory);
}

/* Every way of writing puts a page into the list, once, in order of the first write. */
static void test_dirty_list(void **state)
{
	struct test_cpu *t = flat_cpu();
	struct phys_memory *memory = t->cpu.memory;

	(void)state;
	for (unsigned round = 0; round < 2; round++) {
		mem_read(&t->cpu, DS, 0x7000, 8);
		assert_int_equal(memory->dirty_count, 0);
		mem_write(&t->cpu, DS, 0x5008, round, 8);
		mem_write(&t->cpu, DS, 0x5010, round, 8);
		mem_write(&t->cpu, DS, 0x2ffe, round, 4);
		phys_write(memory, 0x9000, "device", 6);
		physical_write(&t->cpu, 0x5000, 1, 1);
		stack_push(&t->cpu, 0, 4); /* at FFFFFFFCH: no memory there */
		assert_int_equal(memory->dirty_count, 4);
		assert_int_equal(memory->dirty[0], 0x5000);
		assert_int_equal(memory->dirty[1], 0x2000);
		assert_int_equal(memory->dirty[2], 0x3000);
		assert_int_equal(memory->dirty[3], 0x9000);
		phys_dirty_reset(memory); /* and then the armed TLB entries must be gone */
		assert_false(flag(t, 0x5000, PAGE_DIRTY));
		assert_null(mem_fast_write(&t->cpu, DS, 0x5008, 8));
		assert_non_null(mem_fast_read(&t->cpu, DS, 0x5008, 8));
		t->cpu.reg[RSP] = 0;
	}
	test_cpu_free(t);
}

static void test_restore(void **state)
{
	struct test_cpu *t = flat_cpu();
	struct phys_memory *memory = t->cpu.memory;
	uint8_t *image = malloc(TEST_RAM);

	(void)state;
	for (uint32_t i = 0; i < TEST_RAM; i++)
		t->ram[i] = (uint8_t)(i ^ i >> 8 ^ i >> 16);
	memcpy(image, t->ram, TEST_RAM);
	for (unsigned round = 0; round < 3; round++) {
		for (uint32_t page = 3; page < TEST_RAM / PAGE_SIZE; page += 1 + page / 4)
			mem_write(&t->cpu, DS, page * PAGE_SIZE + round * 8 + 0xffa, ~0ull, 8);
		assert_int_not_equal(memcmp(image, t->ram, TEST_RAM), 0);
		phys_restore_dirty(memory, image, TEST_RAM);
		assert_memory_equal(image, t->ram, TEST_RAM);
		assert_int_equal(memory->dirty_count, 0);
	}
	free(image);
	test_cpu_free(t);
}

/* What the image does not cover stays as it was, and dirty. */
static void test_restore_of_a_part(void **state)
{
	struct test_cpu *t = flat_cpu();
	static uint8_t image[0x3000], other[0x1000];
	struct phys_memory *memory = t->cpu.memory;

	(void)state;
	assert_int_equal(phys_add(memory, 0x40000000, 0x1000, other, false), 0);
	mem_write(&t->cpu, DS, 0x40000010, 9, 1);
	mem_write(&t->cpu, DS, 0x2000, 9, 1);
	mem_write(&t->cpu, DS, 0x3000, 9, 1);
	phys_restore_dirty(memory, image, sizeof(image));
	assert_int_equal(t->ram[0x2000], 0);
	assert_int_equal(t->ram[0x3000], 9);
	assert_int_equal(other[0x10], 9);
	assert_int_equal(memory->dirty_count, 2);
	assert_int_equal(memory->dirty[0], 0x40000000);
	assert_int_equal(memory->dirty[1], 0x3000);
	mem_write(&t->cpu, DS, 0x2000, 8, 1);
	assert_int_equal(memory->dirty_count, 3);
	test_cpu_free(t);
}

/* A page that holds code never has a writable entry; one that no longer does gets it back. */
static void test_code_pages(void **state)
{
	struct test_cpu *t = flat_cpu();
	struct cpu *cpu = &t->cpu;

	(void)state;
	mem_write(cpu, DS, 0x5000, 1, 8);
	assert_non_null(mem_fast_write(cpu, DS, 0x5000, 8));
	phys_set_code(cpu->memory, 0x5678);
	assert_true(flag(t, 0x5000, PAGE_CODE));
	for (unsigned round = 0; round < 2; round++) {
		assert_null(mem_fast_write(cpu, DS, 0x5000, 8));
		mem_write(cpu, DS, 0x5000, 2, 8);
		assert_int_equal(t->ram[0x5000], 2);
	}
	phys_set_code(cpu->memory, 0x6000); /* clean: then written */
	mem_write(cpu, DS, 0x6000, 2, 8);
	assert_null(mem_fast_write(cpu, DS, 0x6000, 8));
	assert_true(flag(t, 0x6000, PAGE_DIRTY));
	phys_dirty_reset(cpu->memory);
	assert_true(flag(t, 0x6000, PAGE_CODE));
	phys_clear_code(cpu->memory, 0x6000);
	mem_write(cpu, DS, 0x6000, 2, 8);
	assert_non_null(mem_fast_write(cpu, DS, 0x6000, 8));
	phys_set_code(cpu->memory, TEST_RAM + 0x1000); /* nowhere */
	test_cpu_free(t);
}

/* Two CPUs on one memory: what one says about a page holds for the other's entries. */
static void test_two_cpus(void **state)
{
	struct test_cpu *a = flat_cpu(), *b = flat_cpu();
	struct phys_memory *own = b->cpu.memory;

	(void)state;
	b->cpu.memory = a->cpu.memory;
	phys_detach(own, &b->cpu);
	assert_int_equal(phys_attach(a->cpu.memory, &b->cpu), 0);
	mem_write(&b->cpu, DS, 0x5000, 1, 8);
	assert_int_equal(mem_read(&a->cpu, DS, 0x5000, 8), 1);
	phys_set_code(a->cpu.memory, 0x5000);
	assert_null(mem_fast_write(&b->cpu, DS, 0x5000, 8));
	phys_detach(a->cpu.memory, &b->cpu);
	assert_int_equal(a->cpu.memory->cpu_count, 1);
	b->cpu.memory = own;
	test_cpu_free(b);
	test_cpu_free(a);
}

/* Real-address mode at 0000:1000, with a trace decoded there; the page's flag says that it is alive. */
static void decode_at_1000(struct cpu *cpu)
{
	cpu->segment[CS].s.base = 0;
	segment_derive_all(cpu);
	cpu_mode_changed(cpu);
	cpu->rip = 0x1000;
	trace_lookup(cpu);
}

/* Decoded code goes when its bytes change, by a store, a device or a restore; and only then. */
static void test_decoded_code(void **state)
{
	struct test_cpu *t = test_cpu_new("amd"); /* for its memory */
	struct phys_memory *memory = t->cpu.memory;
	struct cpu *cpu = cpu_new(&t->profile, &t->cpu.bus, memory);
	uint8_t *image = malloc(TEST_RAM);

	(void)state;
	phys_detach(memory, &t->cpu);
	memcpy(t->ram + 0x1000, "\x90\x90\xeb\xfc", 4);
	memcpy(image, t->ram, TEST_RAM);
	decode_at_1000(cpu);
	assert_true(flag(t, 0x1000, PAGE_CODE));
	mem_write(cpu, DS, 0x1800, 1, 2);
	assert_true(flag(t, 0x1000, PAGE_CODE));
	phys_restore_dirty(memory, image, TEST_RAM);
	assert_int_equal(t->ram[0x1800], 0);
	assert_true(flag(t, 0x1000, PAGE_CODE));
	mem_write(cpu, DS, 0x1001, 0xf4, 1);
	assert_false(flag(t, 0x1000, PAGE_CODE));
	decode_at_1000(cpu);
	assert_true(flag(t, 0x1000, PAGE_CODE));
	phys_restore_dirty(memory, image, TEST_RAM);
	assert_false(flag(t, 0x1000, PAGE_CODE));
	assert_int_equal(t->ram[0x1001], 0x90);
	decode_at_1000(cpu);
	assert_true(phys_write(memory, 0x1003, "\xf4", 1));
	assert_false(flag(t, 0x1000, PAGE_CODE));
	cpu_free(cpu);
	free(image);
	test_cpu_free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_slots),
		cmocka_unit_test(test_copies_cross_slots),
		cmocka_unit_test(test_dirty_list),
		cmocka_unit_test(test_restore),
		cmocka_unit_test(test_restore_of_a_part),
		cmocka_unit_test(test_code_pages),
		cmocka_unit_test(test_two_cpus),
		cmocka_unit_test(test_decoded_code),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
