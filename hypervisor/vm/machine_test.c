/* A machine of several vCPUs from outside: its reset, and what a trace tells. */
#include <stdlib.h>

#include "vm/snapshot.h"
#include "vm/test_machine.h"

/* The first time, marks memory and the serial port and resets the machine; the second, says what it finds. */
/* clang-format off */
TEST_IMAGE(again, "0:\n"
		  "xorl %eax, %eax\n"
		  "movw $0x3ff, %dx\n"
		  "inb %dx, %al\n"
		  "addl 0x200000, %eax\n"
		  "testl %eax, %eax\n"
		  "jz 1f\n"
		  "movw $0xf4, %dx\n"
		  "outl %eax, %dx\n"
		  "1: movl $0x15, 0x200000\n"
		  "movb $5, %al\n"
		  "outb %al, %dx\n"
		  "movb $0x20, %al\n" /* an interrupt controller as well */
		  "outb %al, $0x21\n"
		  "movw $0xcf9, %dx\n"
		  "movb $6, %al\n"
		  "outb %al, %dx\n"
		  "hlt");
/* clang-format on */

static struct machine *several(struct test_output *output, unsigned vcpus)
{
	struct machine_config config = {.engine = &engine_soft,
					.cpu = "amd",
					.memory = TEST_MEMORY,
					.vcpus = vcpus,
					.slice = 2,
					.control = true,
					.owner = output,
					.console = test_console,
					.serial = test_serial};
	struct machine *machine;
	char why[256];

	if (machine_new(&machine, &config, why, sizeof(why)))
		fail_msg("%s", why);
	return machine;
}

static void boot(struct machine *machine)
{
	static const struct boot_options none;
	struct image image = {
		.path = "again", .data = (uint8_t *)(uintptr_t)again, .size = (size_t)(again_end - again)};
	char why[256];

	assert_int_equal(boot_image(machine, &image, &none, why, sizeof(why)), 0);
}

static void reset_and_again(void **state)
{
	struct test_output output = {0};
	struct machine *machine = several(&output, 3);
	struct vcpu_state before, after;

	(void)state;
	machine->engine->ops->vcpu_save(machine->vcpus[1], &before);
	boot(machine);
	assert_int_equal(machine_run(machine, &test_limits)->event, MACHINE_RESET);
	assert_int_equal(machine->serial.scr, 5);
	machine_reset(machine);
	assert_int_equal(machine->serial.scr, 0);
	machine->engine->ops->vcpu_save(machine->vcpus[1], &after);
	assert_memory_equal(&before, &after, sizeof(before));
	boot(machine);
	assert_int_equal(machine_run(machine, &test_limits)->event, MACHINE_EXIT);
	/* Memory stays over a reset, devices do not. */
	assert_int_equal(machine->end.value, 0x15);
	machine_free(machine);
}

/* What a trace says, with whose it is. */
struct traced {
	unsigned insns[3];
};

static void traced_insn(void *owner, unsigned vcpu, uint64_t rip, const char *text)
{
	(void)rip;
	(void)text;
	assert_true(vcpu < 3);
	((struct traced *)owner)->insns[vcpu]++;
}

static void traces_tell_the_vcpu(void **state)
{
	struct test_output output = {0};
	struct machine *machine = several(&output, 3);
	struct traced traced = {0};
	struct engine_trace trace = {.owner = &traced, .insn = traced_insn};
	struct vcpu_state vcpu;

	(void)state;
	boot(machine);
	machine->engine->ops->vcpu_save(machine->vcpus[0], &vcpu);
	assert_int_equal(machine->engine->ops->vcpu_load(machine->vcpus[2], &vcpu), 0);
	assert_int_equal(machine->engine->ops->trace(machine->engine, &trace), 0);
	machine_run(machine, &test_limits);
	assert_true(traced.insns[0] > 0 && traced.insns[2] > 0);
	assert_int_equal(traced.insns[1], 0);
	machine_free(machine);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reset_and_again),
		cmocka_unit_test(traces_tell_the_vcpu),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
