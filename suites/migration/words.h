/*
 * words.h: the words of the migration suite, besides those of notation.h.
 *
 * A case of this suite holds a state for some instructions, in which its machine may be moved, and looks whether it is still
 * there. What it expects is what the instruction that looks must give: nobody but a mover can fail it.
 */
#ifndef TRAPLINE_SUITES_MIGRATION_WORDS_H
#define TRAPLINE_SUITES_MIGRATION_WORDS_H

#include <stdio.h>
#include <string.h>

#include "../notation.h"
#include "x86/msr.h"
#include "x86/svm.h"
#include "x86/vmx.h"

#define NOP4  0x90, 0x90, 0x90, 0x90
#define NOP16 NOP4, NOP4, NOP4, NOP4

/* An address as the bytes of an instruction. */
#define BYTES16(value) (uint8_t)(value), (uint8_t)((value) >> 8)
#define BYTES32(value) BYTES16(value), BYTES16((value) >> 16)

/* By the register page and by MSRs. */
#define X2APIC (GIVE_AS("x2apic", apic, 1), NEEDS(x2apic))
#define BOTH_APICS(STORY, GIVEN_, ...)                                                                      \
	TELL(STORY, (GIVE_AS("xapic", apic, 0), GIVEN_), __VA_ARGS__)                                       \
	TELL(STORY, (X2APIC, GIVEN_), __VA_ARGS__)

/* A parameter that another one's word stands for in the id. */
#define GIVE_ALONG(parameter, number) GIVE_AS("", parameter, number)

/* A word with a number, kept as long as the program runs. */
static inline const char *moved_numbered(const char *format, unsigned n)
{
	char text[48];

	snprintf(text, sizeof(text), format, n);
	return strdup(text);
}
#define NUMBERED moved_numbered

#endif
