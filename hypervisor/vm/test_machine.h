/* A machine for tests, and what its guests printed. */
#ifndef TRAPLINE_VM_TEST_MACHINE_H
#define TRAPLINE_VM_TEST_MACHINE_H

#include "vm/boot.h"
#include "vm/machine.h"
#include "vm/test.h"

#define TEST_MEMORY (4ull << 20)

struct test_output {
	char console[1024], serial[1024];
	size_t console_size, serial_size;
};

static inline void test_console(void *owner, uint8_t byte)
{
	struct test_output *output = owner;

	if (output->console_size < sizeof(output->console) - 1)
		output->console[output->console_size++] = (char)byte;
}

static inline void test_serial(void *owner, uint8_t byte)
{
	struct test_output *output = owner;

	if (output->serial_size < sizeof(output->serial) - 1)
		output->serial[output->serial_size++] = (char)byte;
}

static inline struct machine *test_machine(struct test_output *output)
{
	struct machine_config config = {.engine = &engine_soft,
					.cpu = "amd",
					.memory = TEST_MEMORY,
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

/* Ends a program of a test: nothing may come behind it. */
static const struct machine_limits test_limits = {.insns = 100000, .deadline = UINT64_MAX, .output = 4096};

/*
 * A flat multiboot image, written in assembler in the test itself: 32-bit code linked at 1 MiB.
 * HERE(label) is an address in the guest.
 */
#define TEST_IMAGE(name, text)                                                                               \
	__asm__(".pushsection .rodata\n.balign 16\n.global " #name "\n" #name ":\n"                          \
		".macro header\n"                                                                            \
		".long 0x1badb002, 0x10000, -(0x1badb002 + 0x10000)\n"                                       \
		".long 0x100000, 0x100000, 0, 0, 0x100020\n.endm\n"                                          \
		".set start, " #name "\n"                                                                    \
		"header\n.purgem header\n.code32\n" text "\n.code64\n"                                       \
		".global " #name "_end\n" #name "_end:\n.popsection\n");                                     \
	extern const uint8_t name[], name##_end[]
#define HERE(label) "(" #label " - 0b + 0x100020)"

#endif
