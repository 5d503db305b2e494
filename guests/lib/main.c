/*
 * main.c: says what the machine is, then runs cases: those that the control device names, or those
 * that the command line selects.
 */
#include "lib/machine.h"
#include "lib/report.h"
#include "lib/run.h"
#include "lib/select.h"
#include "lib/world.h"
#include "x86/control_device.h"
#include "x86/outcome.h"

#define EXIT_DONE  0x10 /* all selected cases were run */
#define EXIT_DIRTY 0x11 /* a case left the machine changed, or the library failed */

_Noreturn void guest_main(uint32_t protocol, const void *information);
_Noreturn void monitor_fault(const uint64_t *frame);

static _Noreturn void finish(uint8_t value)
{
	const char *text = "Shutdown";

	machine_out32(DEBUG_EXIT_PORT, value);
	while (*text)
		machine_out8(0x8900, (uint8_t)*text++);
	for (;;)
		__asm__ volatile("cli; hlt");
}

static void report_leaf(uint32_t leaf, uint32_t subleaf)
{
	uint32_t r[4];

	machine_cpuid(leaf, subleaf, r);
	report_text("cpuid ");
	report_hex(leaf);
	report_text(" ");
	report_hex(subleaf);
	for (unsigned i = 0; i < 4; i++) {
		report_text(" ");
		report_hex(r[i]);
	}
	report_end_line();
}

static void report_machine(void)
{
	report_text("trapline ");
	report_decimal(REPORT_VERSION);
	report_text(" ");
	report_text(case_suite);
	report_text(" ");
	report_decimal(case_count);
	report_end_line();
	for (uint32_t leaf = 0; leaf <= machine.max_leaf && leaf <= 0x20; leaf++) {
		report_leaf(leaf, 0);
		if (leaf == 7 || leaf == 0xd)
			report_leaf(leaf, 1);
	}
	for (uint32_t leaf = 0x80000000u; leaf <= machine.max_extended_leaf && leaf <= 0x80000021u; leaf++)
		report_leaf(leaf, 0);
}

static void mask_interrupts(void)
{
	machine_out8(0x21, 0xff);
	machine_out8(0xa1, 0xff);
}

static _Noreturn void run_by_device(void)
{
	uint32_t index;

	machine_out32(CONTROL_PORT_COMMAND, CONTROL_READY);
	index = machine_in32(CONTROL_PORT_CASE);
	if (index < case_count)
		run_case(&case_table[index]);
	machine_out32(CONTROL_PORT_COMMAND, CONTROL_DONE);
	finish(EXIT_DIRTY); /* DONE does not come back */
}

static _Noreturn void run_by_selection(const char *command_line)
{
	struct selection selection;

	select_start(&selection, command_line);
	for (uint32_t i = select_next(&selection); i < case_count; i = select_next(&selection)) {
		run_case(&case_table[i]);
		if (!run_restore(&case_table[i]))
			finish(EXIT_DIRTY);
	}
	report_text("bye");
	report_end_line();
	finish(EXIT_DONE);
}

_Noreturn void guest_main(uint32_t protocol, const void *information)
{
	const char *command_line = select_command_line(protocol, information);

	machine_probe();
	mask_interrupts();
	world_build();
	run_initialize();
	report_machine();
	report_text("ready");
	report_end_line();
	if (machine.control_device)
		run_by_device();
	run_by_selection(command_line);
}

/* An exception of the library itself. @frame: the vector, then what was pushed. */
_Noreturn void monitor_fault(const uint64_t *frame)
{
	report_discard();
	if (run_current()) {
		report_text("end ");
		report_text(run_current()->id);
		report_text(" ");
	}
	report_text("ERROR monitor");
	for (unsigned i = 0; i < 4; i++) {
		report_text(" 0x");
		report_hex(frame[i]);
	}
	report_end_line();
	if (machine.control_device)
		machine_out32(CONTROL_PORT_COMMAND, CONTROL_DONE);
	finish(EXIT_DIRTY);
}
