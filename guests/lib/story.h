/*
 * story.h: stories: cases that are C and not bytes, for what a row cannot say: interrupt controllers, timers,
 * several processors.
 *
 * A story is a function in guests/SUITE that STORY(name) begins, and rows TELL(name, …) in suites/SUITE that
 * give it parameters (x86/story_parameters.def), what the machine must have, and citations. It runs in the
 * monitor's state: 64-bit mode, CPL 0, all of the first 4 GiB mapped as they are, IF = 0. Each of its checks
 * has a name, what the manuals want and what came; those that differ are reported (x86/outcome.h). A
 * machine that lacks something is told with the probe that says so: NOTSUP. A story without a check is
 * an error.
 *
 *	STORY(apic_self_ipi)
 *	{
 *		uint8_t vector = (uint8_t)GIVEN(vector);
 *
 *		if (!story_has_apic())
 *			return;
 *		apic_send(0, ICR_SELF | ICR_ASSERT | vector);
 *		story_check("pending", 1, apic_bit(APIC_IRR, vector));
 *		story_open();
 *		story_check("delivered", 1, story_count(vector));
 *	}
 *
 * Interrupts and exceptions come to the story's own IDT, which counts them and, for what the local APIC
 * delivers, writes EOI unless the story says otherwise.
 */
#ifndef TRAPLINE_GUESTS_LIB_STORY_H
#define TRAPLINE_GUESTS_LIB_STORY_H

#include <stdbool.h>
#include <stdint.h>

#include "x86/case.h"

#define STORY(name)                                                                                          \
	void story_##name(void);                                                                             \
	void story_##name(void)
#define GIVEN(parameter) story_given(STORY_PARAMETER_##parameter)

/* A parameter of the row; 0 where it gives none. */
uint64_t story_given(enum story_parameter parameter);

/* The story reports its whole outcome by itself (report.h), or another part of the library has. */
void story_reports(void);
void story_check(const char *name, uint64_t want, uint64_t got);
/* The same, for the n-th of several alike: NAME with its number behind. */
void story_check_at(const char *name, unsigned n, uint64_t want, uint64_t got);

/* Preconditions: where one does not hold, the story is NOTSUP with @probe, and returns at once. */
bool story_needs(bool holds, const char *probe);
bool story_has_apic(void);   /* CPUID.1:EDX[9], and the register page answers */
bool story_has_x2apic(void); /* CPUID.1:ECX[21] */
/* Brings the APIC into the mode of GIVEN(apic), enabled in software, TPR 0. False: NOTSUP was said. */
bool story_apic_mode(void);

/* The machine is of no use behind this story, where there is no snapshot to put back: the boot ends. */
void story_spoils(void);
bool story_has_spoiled(void);

/* ---- interrupts ---- */

struct story_frame {
	uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rbp, rdi, rsi, rdx, rcx, rbx, rax;
	uint64_t vector, error, rip, cs, rflags, rsp, ss;
};

/* What a handler does besides counting; NULL: EOI to the local APIC, for vectors from 32 on. */
typedef void story_handler(struct story_frame *frame);
void story_handle(story_handler *handler);

/* How many of @vector have come since the story began, or story_forget(); and the order in which they came.
 */
unsigned story_count(unsigned vector);
unsigned story_total(void);
unsigned story_order(unsigned n); /* the vector that came as number @n, from 0; 256: not so many */
void story_forget(void);

/* IRET to the next instruction: NMIs are no longer blocked. */
void story_iret(void);
/* Lets what is pending in: STI for a few instructions. */
void story_open(void);
/* Waits, with interrupts let in, until @vector has come @count times; false: not within a long while. */
bool story_wait(unsigned vector, unsigned count);

/* The story's IDT instead of the monitor's, and back: for the library itself. */
void story_begin_interrupts(void);
void story_end_interrupts(void);

/* ---- what may fault: the vector of the exception, or STORY_NO_FAULT ---- */

#define STORY_NO_FAULT 256u
unsigned story_try_rdmsr(uint32_t index, uint64_t *value);
unsigned story_try_wrmsr(uint32_t index, uint64_t value);
unsigned story_try_read8(uint64_t address, uint8_t *value);
/*
 * The same for other instructions: one at @address that faults goes on at story_resume (story_entry.S), which
 * returns 1 to the caller of the code there. story_fault_vector: of the last one.
 */
void story_let_fault(const void *address);
unsigned story_fault_vector(void);
/* The error code of the last one. */
uint64_t story_fault_error(void);

/* ---- ports and time ---- */

void story_pause(unsigned count); /* PAUSE, @count times */

/* Run @spec's story: gathers its outcome. */
void story_run(const struct case_spec *spec);

#endif
