/*
 * run.h: one case from its settings to its report lines.
 *
 * The library, in the order in which a boot and then a case go through it:
 *
 *   boot.S      multiboot1 or PVH, 32-bit, into long mode: guest_main
 *   main.c      the machine's CPUID, READY or the command line, which cases, the end
 *   select.c    cases= and from=
 *   machine.c   what the machine has, from CPUID and the ports alone
 *   world.c     the memory of case_layout.h: built, poked, compared, put back
 *   run.c       one case; the monitor's own state, checked after each where there is no snapshot
 *   baseline.c  the registers of case_layout.h, the case's settings, NOTSUP
 *   load.c      bytes under test, frame and all that the assembler loads
 *   quiet.c     the registers that C itself loads and looks at
 *   enter.S     into the mode and back, all but real mode; real.S real mode
 *   ending.c    the pushed frame: RIP, CS, RFLAGS, stack, error code
 *   effects.c   RUNS or FAULT, and every effect
 *   story.c     stories: cases in C, with story_entry.S for their interrupts, apic.c for the local APIC,
 *               cpus.c and ap.S for the other processors
 *   report.c    the lines, to the debug console and the serial port
 *
 * The monitor is this library between cases: 64-bit mode, CPL 0, its own GDT, IDT, page tables
 * and stack, none of them in a case's window. A case's exceptions arrive through the case's own IDT
 * or IVT in the stubs of enter.S and real.S. An exception while a case's state is loaded is an ERROR.
 */
#ifndef TRAPLINE_GUESTS_LIB_RUN_H
#define TRAPLINE_GUESTS_LIB_RUN_H

#include <stdbool.h>

#include "x86/case.h"

/* Set up what all cases need, once, after machine_probe and world_build. */
void run_initialize(void);

/* Run @spec: prints its start and end lines. The machine is not put back. */
void run_case(const struct case_spec *spec);

/* The case that is running, or NULL. */
const struct case_spec *run_current(void);

/*
 * Put the machine back and compare it with what the monitor expects of itself. Prints a
 * dirty line and returns false where it differs.
 */
bool run_restore(const struct case_spec *spec);

#endif
