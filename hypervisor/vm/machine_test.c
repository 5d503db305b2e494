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

/* ---- the local APIC where memory is ---- */

/* Moves the registers over memory that it has in its TLB, and back: the APIC's version, and what memory keeps. */
TEST_IMAGE(moves_apic, "0: movl $0x55, 0x200030\nmovl $0x1b, %ecx\nrdmsr\nmovl %eax, %esi\n"
		       "andl $0xfff, %eax\norl $0x200000, %eax\nwrmsr\n"
		       "movl 0x200030, %edi\nandl $0xff, %edi\nmovl $0x77, 0x200030\nmovl 0xfee00030, %ebp\n"
		       "movl %esi, %eax\nwrmsr\n"
		       "movl 0x200030, %ebx\nshll $8, %ebx\norl %edi, %ebx\n"
		       "incl %ebp\nshll $16, %ebp\norl %ebp, %ebx\n" /* nobody is left at the old place */
		       "movl 0xfee00030, %eax\nandl $0xff, %eax\nshll $24, %eax\norl %eax, %ebx\n"
		       "movl %ebx, %eax\nmovw $0xf4, %dx\noutl %eax, %dx\nhlt\n");

static void apic_over_memory(void **state)
{
	static const struct boot_options none;
	struct test_output output = {0};
	struct image image = {.path = "test",
			      .data = (uint8_t *)(uintptr_t)moves_apic,
			      .size = (size_t)(moves_apic_end - moves_apic)};
	struct machine_config config = {.engine = &engine_soft,
					.cpu = "intel",
					.memory = TEST_MEMORY,
					.open_bus = true,
					.owner = &output,
					.console = test_console,
					.serial = test_serial};
	const struct machine_end *end;
	struct machine *machine;
	char why[256];

	(void)state;
	assert_int_equal(machine_new(&machine, &config, why, sizeof(why)), 0);
	assert_int_equal(boot_image(machine, &image, &none, why, sizeof(why)), 0);
	end = machine_run(machine, &test_limits);
	assert_int_equal(end->event, MACHINE_EXIT);
	assert_int_equal(end->value & 0xffff, 0x5500 | end->value >> 24);
	assert_int_equal(end->value >> 16 & 0xff, 0);
	assert_true(end->value >> 24 >= 0x10);
	machine_free(machine);
}

/* ---- waiting ---- */

/* Listens on the serial port, and halts for good; the same with a timer that goes on; the first without listening. */
TEST_IMAGE(listens, "0: movw $0x3f9, %dx\nmovb $1, %al\noutb %al, %dx\ncli\nhlt\n");
TEST_IMAGE(listens_and_ticks, "0: movw $0x3f9, %dx\nmovb $1, %al\noutb %al, %dx\n"
			      "movb $0x34, %al\noutb %al, $0x43\nxorb %al, %al\noutb %al, $0x40\noutb %al, $0x40\n"
			      "movb $0xfe, %al\noutb %al, $0x21\n1: cli\nhlt\njmp 1b\n");
TEST_IMAGE(deaf, "0: cli\nhlt\n");

struct waiting {
	unsigned waits, idles;
	uint64_t ns, share; /* asked for last; of it, what is let pass */
};

static uint64_t waits(void *owner, uint64_t ns)
{
	struct waiting *waiting = owner;

	waiting->waits++;
	waiting->ns = ns;
	if (ns == UINT64_MAX)
		return waiting->waits < 3 ? 1000 : ns;
	return ns / waiting->share;
}

static void idles(void *owner) { ((struct waiting *)owner)->idles++; }

static void ignored(void *owner, uint8_t byte)
{
	(void)owner;
	(void)byte;
}

static uint64_t run_waiting(struct waiting *waiting, const uint8_t *from, const uint8_t *end, enum machine_event event)
{
	static const struct boot_options none;
	struct image image = {.path = "test", .data = (uint8_t *)(uintptr_t)from, .size = (size_t)(end - from)};
	struct machine_config config = {.engine = &engine_soft,
					.cpu = "amd",
					.memory = TEST_MEMORY,
					.owner = waiting,
					.console = ignored,
					.serial = ignored,
					.idle = idles,
					.wait = waits};
	const struct machine_limits limits = {.insns = 100, .deadline = UINT64_MAX, .output = 4096};
	struct machine *machine;
	uint64_t passed;
	char why[256];

	assert_int_equal(machine_new(&machine, &config, why, sizeof(why)), 0);
	assert_int_equal(boot_image(machine, &image, &none, why, sizeof(why)), 0);
	assert_int_equal(machine_run(machine, &limits)->event, event);
	passed = clock_now(&machine->clock);
	machine_free(machine);
	return passed;
}

static void waits_for_input(void **state)
{
	struct waiting waiting = {.share = 1};
	uint64_t whole;

	(void)state;
	run_waiting(&waiting, deaf, deaf_end, MACHINE_HALTED);
	assert_int_equal(waiting.waits, 0);
	run_waiting(&waiting, listens, listens_end, MACHINE_HALTED);
	assert_int_equal(waiting.waits, 3);
	assert_int_equal(waiting.ns, UINT64_MAX);
	assert_int_equal(waiting.idles, 2);
	/* All of it at once, or as much as is let pass. */
	waiting = (struct waiting){.share = 1};
	whole = run_waiting(&waiting, listens_and_ticks, listens_and_ticks_end, MACHINE_BUDGET);
	assert_true(waiting.waits > 50 && waiting.idles < 5);
	assert_true(waiting.ns > 54900000 && waiting.ns < 55000000); /* 65536 pulses of the 8254 */
	waiting = (struct waiting){.share = 4};
	assert_true(run_waiting(&waiting, listens_and_ticks, listens_and_ticks_end, MACHINE_BUDGET) < whole / 2);
	assert_true(waiting.idles > 50);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reset_and_again),
		cmocka_unit_test(traces_tell_the_vcpu),
		cmocka_unit_test(waits_for_input),
		cmocka_unit_test(apic_over_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
