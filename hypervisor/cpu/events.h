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
 * decided by INT n itself. Sets the RF image, EXT bits, DR6 for #DB, CR2 for #PF. A fault while
 * delivering is raised again by cpu_raise() with cpu->delivering set: run.c then calls
 * event_combine().
 */
void event_deliver(struct cpu *cpu, const struct event *event);

/*
 * What @second, raised while @first was being delivered, becomes: itself, a double fault, or a
 * shutdown (SDM 3A table 6-5). Returns false for shutdown, else @result.
 */
bool event_combine(const struct event *first, const struct event *second, struct event *result);

#endif
