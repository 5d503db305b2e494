/*
 * events.h: delivery of exceptions and interrupts in every mode (SDM 3A chapter 6,
 * APM 2 chapter 8).
 */
#ifndef TRAPLINE_CPU_EVENTS_H
#define TRAPLINE_CPU_EVENTS_H

#include "cpu/cpu.h"

/*
 * Delivers @event: real mode through the IVT, protected mode through interrupt, trap and task
 * gates, IA-32e mode through 64-bit gates and IST; VM86 with and without VME redirection is
 * decided by INT n itself. On return cpu->rip is the handler's.
 *
 * RF in the pushed image is set for faults, except for an instruction breakpoint (a #DB of kind
 * EVENT_FAULT without DR6_BD in cpu->dr6_pending); who interrupts REP between two iterations sets
 * RFLAGS.RF before. A #DB of kind EVENT_FAULT or EVENT_TRAP moves cpu->dr6_pending into DR6 and
 * clears DR7.GD. CR2 was set by who raised #PF. NMI blocking begins with an NMI.
 *
 * A fault while delivering is raised by cpu_raise() with cpu->delivering_depth > 0 and
 * cpu->delivering being @event (both set here, the depth cleared on success); the registers are
 * then as they were before, unless a task switch was past its point of commitment. run.c calls
 * event_combine() and delivers what that gives. It clears the depth for a shutdown.
 */
void event_deliver(struct cpu *cpu, const struct event *event);

/*
 * What @second, raised while @first was being delivered, becomes: itself, a double fault, or a
 * shutdown (SDM 3A table 6-5). Returns false for shutdown, else @result.
 */
bool event_combine(const struct event *first, const struct event *second, struct event *result);

/*
 * What a #DB of kind EVENT_FAULT or EVENT_TRAP does to DR6 and DR7, before it is delivered or intercepted; the
 * kind becomes that by which RF is pushed. Part of event_deliver().
 */
void event_note_debug(struct cpu *cpu, struct event *event);

/* RFLAGS as @event's handler finds them pushed (SDM 3B 17.3.1.1). */
uint64_t event_flags_image(const struct cpu *cpu, const struct event *event);

/*
 * INT n that VME redirects to the 8086 program's own handler (SDM 3A 20.3.3.4), through the
 * interrupt vector table at linear address 0. Part of the INT n instruction.
 */
void event_redirect(struct cpu *cpu, uint8_t vector, uint64_t return_rip);

#endif
