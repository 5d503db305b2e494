/*
 * interrupt_lines.h: the interrupt lines of the board. Several devices may lead to one line, which is raised
 * while one of them raises it; a source can be cut off, as the HPET's legacy replacement cuts the PIT and the
 * RTC.
 */
#ifndef TRAPLINE_DEV_INTERRUPT_LINES_H
#define TRAPLINE_DEV_INTERRUPT_LINES_H

#include <stdbool.h>
#include <stdint.h>

#include "x86/state_table.h"

enum line_source {
	LINE_PIT,
	LINE_RTC,
	LINE_HPET,
	LINE_SERIAL,
	LINE_KEYBOARD,
	LINE_SCI,
	LINE_PCI,
	LINE_TEST,
	LINE_SOURCES
};

struct interrupt_lines {
	uint32_t source[LINE_SOURCES]; /* levels, a bit a line */
	uint32_t cut;                  /* a bit a source */
	uint32_t told;                 /* levels as last told */

	void *owner;
	void (*changed)(void *owner, unsigned line, bool raised);
};

extern const struct state_table interrupt_lines_state;

void interrupt_lines_set(struct interrupt_lines *lines, enum line_source source, unsigned line, bool raised);
/* Cuts a source off, or joins it again with the levels that it has. */
void interrupt_lines_cut(struct interrupt_lines *lines, enum line_source source, bool cut);

#endif
