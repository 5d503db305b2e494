/*
 * cpus.h: the other processors of a machine, for stories: brought up by INIT and SIPI through a page below
 * 1 MiB, each with a stack of its own, in the state of the monitor; they run what they are told.
 *
 * SDM 3A 9.4 (MP initialization), 11.6.1; APM 2 14.1.2, 16.5. Processors are numbered from 0, the one that
 * runs stories, in the order in which they came up.
 */
#ifndef TRAPLINE_GUESTS_LIB_CPUS_H
#define TRAPLINE_GUESTS_LIB_CPUS_H

#include <stdbool.h>
#include <stdint.h>

#define CPUS_MAX  8u
#define CPUS_PAGE 0x8u /* SIPI vector of the trampoline */

/*
 * Start the others, once a story, with SIPI vector @page. Answers how many there are now, this one included;
 * those beyond CPUS_MAX stay halted.
 */
unsigned cpus_start(uint8_t page);
/* The same, and NOTSUP where there are fewer than @wanted. */
bool cpus_needs(unsigned wanted);

/* The APIC ID of processor @n. */
uint32_t cpus_apic_id(unsigned n);

/* Have processor @n run @work in the story's IDT, IF = 0; it must be idle. cpus_wait waits until it is. */
void cpus_tell(unsigned n, void (*work)(void *argument), void *argument);
bool cpus_wait(unsigned n); /* false: not within a long while */
/* Which processor this is. */
unsigned cpus_current(void);

/* INIT to all others: they wait for SIPI again. Done behind every story that has started them. */
void cpus_stop(void);

#endif
