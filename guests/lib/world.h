/*
 * world.h: the memory of case_layout.h: built once, kept beside what it should hold, compared,
 * put back.
 */
#ifndef TRAPLINE_GUESTS_LIB_WORLD_H
#define TRAPLINE_GUESTS_LIB_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#include "x86/case.h"

/* Build the window, the IVT, the page tables and the trampoline, and their copies. */
void world_build(void);

/* Fit the world to a mode and CPL: user pages, vm86's IVT. */
void world_prepare(unsigned mode, unsigned cpl);

/* LTR marks @selector's descriptor busy: so it shall be after the case. */
void world_expect_busy(uint16_t selector);

/* Where the stack of the 64-bit IDT's handlers starts. */
uint64_t world_ist_top(void);

/* Put the window and the IVT back as built (what world_prepare and pokes changed). */
void world_restore(void);

/* Store @size bytes at @address as part of what stands before the case. */
void world_poke(uint32_t address, const void *data, unsigned size);

/* Take the @size bytes at @address, as they are now, for unchanged. */
void world_accept(uint32_t address, uint64_t size);

/*
 * Report each quadword that the case has changed, as effects. @paged: the case ran with paging on
 * from start to end, so that a page without a dirty bit was not written.
 */
void world_report_changes(unsigned mode, bool paged);

/* The base of the descriptor that @selector names in the case's GDT or LDT; @big: its D/B bit. */
uint32_t world_segment_base(uint16_t selector, bool *big);

/* The linear address of @offset in the code or data segment of @selector, as @mode has it. */
uint32_t world_linear(unsigned mode, uint64_t selector, uint64_t offset);

/* The same for a stack pointer, of which only as much counts as the stack segment says. */
uint32_t world_stack_linear(unsigned mode, uint64_t selector, uint64_t offset);

#endif
