#include <stdlib.h>

#include "vm/snapshot.h"
#include "vm/test_machine.h"

/* Says READY, then changes memory, registers, its own code and devices, and says DONE. */
/* clang-format off */
TEST_IMAGE(worker, "0:\n"
		   "movl $0x5454, %edx\n"
		   "movl $1, %eax\n"
		   "movl $0x11, 0x200000\n"
		   "outl %eax, %dx\n"
		   "incl 0x200000\n"
		   "incl 0x2ffffe\n" /* two pages, the second as below */
		   "movl $0x10, %ecx\n"
		   "movl $0x300000, %edi\n"
		   "1: incl (%edi)\n"
		   "addl $0x1000, %edi\n"
		   "loop 1b\n"
		   "2: incl (3f - 0b + 0x100020 + 1)\n" /* the immediate below */
		   "3: movl $5, %ebx\n"
		   "movw $0x3ff, %dx\n"
		   "movb %bl, %al\n"
		   "outb %al, %dx\n" /* the serial port's scratch register */
		   "movl %cr0, %eax\n"
		   "xorl $2, %eax\n"
		   "movl %eax, %cr0\n"
		   "movl $0x5454, %edx\n"
		   "movl $2, %eax\n"
		   "outl %eax, %dx\n"
		   "hlt");
/* clang-format on */

static struct machine *ready(struct test_output *output)
{
	static const struct boot_options none;
	struct image image = {.path = "worker",
			      .data = (uint8_t *)(uintptr_t)worker,
			      .size = (size_t)(worker_end - worker)};
	struct machine *machine = test_machine(output);
	char why[256];

	assert_int_equal(boot_image(machine, &image, &none, why, sizeof(why)), 0);
	assert_int_equal(machine_run(machine, &test_limits)->event, MACHINE_READY);
	return machine;
}

/* What two vCPUs must share to go on alike; the clock goes on. */
static void check_vcpu(const struct vcpu_state *a, const struct vcpu_state *b)
{
	assert_memory_equal(a->gpr, b->gpr, sizeof(a->gpr));
	assert_int_equal(a->rip, b->rip);
	assert_int_equal(a->rflags, b->rflags);
	assert_int_equal(a->cr0, b->cr0);
	assert_int_equal(a->tsc, b->tsc);
	assert_memory_equal(a->vector, b->vector, sizeof(a->vector));
}

static void every_run_is_the_first(void **state)
{
	struct test_output output = {0};
	struct machine *machine = ready(&output);
	struct snapshot snapshot;
	struct vcpu_state before, after, done, done_before;
	uint8_t *ram = malloc(TEST_MEMORY);

	(void)state;
	memcpy(ram, machine->ram, TEST_MEMORY);
	machine->engine->ops->vcpu_save(machine->vcpu, &before);
	assert_int_equal(snapshot_take(&snapshot, machine), 0);
	assert_memory_equal(snapshot.image, ram, TEST_MEMORY);
	for (unsigned i = 0; i < 5; i++) {
		const uint64_t *pages;
		size_t dirty;

		assert_int_equal(machine_run(machine, &test_limits)->event, MACHINE_DONE);
		machine->engine->ops->vcpu_save(machine->vcpu, &done);
		/* The code that it changed was run as changed. */
		assert_int_equal(done.gpr[RBX], 6);
		assert_int_equal(machine->serial.scr, 6);
		assert_int_equal(machine->ram[0x200000], 0x12);
		assert_int_equal(machine->control.ready, 1);
		machine->engine->ops->dirty_pages(machine->engine, &pages, &dirty);
		assert_int_equal(dirty, 1 + 1 + 16 + 1);
		if (i)
			check_vcpu(&done, &done_before);
		done_before = done;
		assert_int_equal(snapshot_restore(&snapshot, machine), 0);
		assert_memory_equal(machine->ram, ram, TEST_MEMORY);
		assert_int_equal(machine->serial.scr, 0);
		machine->engine->ops->vcpu_save(machine->vcpu, &after);
		check_vcpu(&before, &after);
		machine->engine->ops->dirty_pages(machine->engine, &pages, &dirty);
		assert_int_equal(dirty, 0);
	}
	snapshot_free(&snapshot);
	machine_free(machine);
	free(ram);
}

/* A guest that wrote to all of its memory, its code included, is put back as well. */
static void everything_overwritten(void **state)
{
	struct test_output output = {0};
	struct machine *machine = ready(&output);
	struct snapshot snapshot;
	uint8_t *ram = malloc(TEST_MEMORY), ones[4096];

	(void)state;
	memcpy(ram, machine->ram, TEST_MEMORY);
	memset(ones, 0xff, sizeof(ones));
	assert_int_equal(snapshot_take(&snapshot, machine), 0);
	assert_int_equal(machine_run(machine, &test_limits)->event, MACHINE_DONE);
	for (uint64_t page = 0; page < TEST_MEMORY; page += sizeof(ones))
		assert_true(machine_write(machine, page, ones, sizeof(ones)));
	assert_int_equal(snapshot_restore(&snapshot, machine), 0);
	assert_memory_equal(machine->ram, ram, TEST_MEMORY);
	assert_int_equal(machine_run(machine, &test_limits)->event, MACHINE_DONE);
	snapshot_free(&snapshot);
	machine_free(machine);
	free(ram);
}

/* Memory above 4 GiB is put back as well. */
static void both_ends_of_memory(void **state)
{
	static const uint64_t places[] = {0x1000, MEMORY_LOW_MAX - 4, MEMORY_HIGH_BASE,
					  MEMORY_HIGH_BASE + 0x5008};
	struct test_output output = {0};
	struct machine_config config = {.engine = &engine_soft,
					.cpu = "amd",
					.memory = MEMORY_LOW_MAX + (1 << 20),
					.owner = &output,
					.console = test_console,
					.serial = test_serial};
	struct machine *machine;
	struct snapshot snapshot;
	char why[256];

	(void)state;
	assert_int_equal(machine_new(&machine, &config, why, sizeof(why)), 0);
	assert_false(machine_write(machine, MEMORY_LOW_MAX - 3, "abcd", 4));
	assert_false(machine_write(machine, MEMORY_HIGH_BASE + (1 << 20), "abcd", 4));
	assert_null(machine_ram(machine, MEMORY_LOW_MAX, 1));
	for (unsigned i = 0; i < 4; i++)
		assert_true(machine_write(machine, places[i], "then", 4));
	assert_int_equal(snapshot_take(&snapshot, machine), 0);
	for (unsigned i = 0; i < 4; i++)
		assert_true(machine_write(machine, places[i], "now!", 4));
	assert_int_equal(snapshot_restore(&snapshot, machine), 0);
	for (unsigned i = 0; i < 4; i++)
		assert_memory_equal(machine_ram(machine, places[i], 4), "then", 4);
	snapshot_free(&snapshot);
	machine_free(machine);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_run_is_the_first),
		cmocka_unit_test(both_ends_of_memory),
		cmocka_unit_test(everything_overwritten),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
