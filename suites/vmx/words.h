/*
 * words.h: the words of the suite for VT-x, besides those of notation.h: instructions in a guest.
 *
 * GUEST(insn, where, given, says, citations…) is a TRAP whose instruction runs in a guest (guests/vmx/insn.c). Of an
 * exit INFO1 is the qualification, INFO2 the instruction information, INTINFO the IDT-vectoring information. The
 * controls to begin with are those of guests/lib/vmx_world.c: none but the exits of exceptions and interrupts.
 */
#ifndef TRAPLINE_SUITES_VMX_WORDS_H
#define TRAPLINE_SUITES_VMX_WORDS_H

#include <stdio.h>
#include <string.h>

#include "../interrupts/ways.h"
#include "../notation.h"
#include "x86/vmx.h"

#define GUEST(INSNS, WHERE, GIVEN, SAYS, ...)                                                               \
	TRAP_IN_GUEST("vmx_insn", INSNS, WHERE, (NEEDS(vmx), GIVEN), SAYS, __VA_ARGS__)

#define EXITS(name) EXIT_OF(VMX_EXIT_##name)

/* A field's value; bits of a field of controls, which the processor must allow. */
#define FIELD(name, value) CONTROL(8, VMCS_##name, value)
#define PRIMARY(bits)      CONTROL_OR(4, VMCS_PRIMARY_CONTROLS, bits)
#define SECONDARY(bits)    CONTROL_OR(4, VMCS_SECONDARY_CONTROLS, bits)
/* The control is on; it is off while all others that make instructions exit are on. */
#define WITH_PRIMARY(bit)   (VARIANT("on"), PRIMARY(bit))
#define WITH_SECONDARY(bit) (VARIANT("on"), SECONDARY(bit))
#define ALL_BUT_PRIMARY(bit) given_all_but(x, bit, 0)
#define ALL_BUT_SECONDARY(bit) given_all_but(x, 0, bit)

/*
 * Exits by exceptions are EXIT_OF(0), not FAULT: INFO1 is the qualification, INFO2 the interruption information with
 * the error code above it. For rows in which it matters whether an exception exits or is delivered.
 */
#define RAW CONTROL(8, VMX_WORLD_RAW, 1)
#define VMX_WORLD_RAW 0xffffffffu
#define EXCEPTION_EXIT(type, vector, error, qualification)                                                  \
	(EXIT_OF(VMX_EXIT_EXCEPTION_NMI), INFO1(qualification),                                             \
	 INFO2(VMX_EVENT_VALID | (uint64_t)(vector) | (uint64_t)(type) << VMX_EVENT_TYPE_SHIFT |            \
	       (x->mode != MODE_REAL && vector_has_error_code(vector) ? VMX_EVENT_ERROR_CODE | (uint64_t)(error) << 32 : 0)))

#define EXIT_CITES SDM(VMX_CONDITIONAL_EXITS), SDM(VMX_FAULTS_BEFORE_EXITS), SDM(VMX_EXIT_QUALIFICATION), SDM(VMX_EXIT_INSTRUCTION)
#define ALWAYS_CITES SDM(VMX_UNCONDITIONAL_EXITS), SDM(VMX_FAULTS_BEFORE_EXITS), SDM(VMX_EXIT_LENGTH), SDM(VMX_EXIT_BASIC), SDM(VMX_C)

/* Exits of instructions, each of which stands for itself. */
#define PRIMARY_EXITS                                                                                       \
	(VMX_HLT | VMX_INVLPG | VMX_MWAIT | VMX_RDPMC | VMX_RDTSC | VMX_CR3_LOAD | VMX_CR3_STORE |          \
	 VMX_CR8_LOAD | VMX_CR8_STORE | VMX_MOV_DR | VMX_UNCONDITIONAL_IO | VMX_MONITOR | VMX_PAUSE)
#define SECONDARY_EXITS (VMX2_DESCRIPTOR_TABLE | VMX2_WBINVD | VMX2_RDRAND | VMX2_RDSEED)

/* A word with a number, kept as long as the program runs. */
static inline const char *numbered(const char *format, unsigned n)
{
	char text[32];

	snprintf(text, sizeof(text), format, n);
	return strdup(text);
}
#define NUMBERED(format, n) numbered(format, n)

static inline unsigned way_type(const struct way *way)
{
	return way->kind == WAY_SOFTWARE     ? VMX_EVENT_SOFTWARE_EXCEPTION
	       : way->kind == WAY_PRIVILEGED ? VMX_EVENT_PRIVILEGED_SOFTWARE
					     : VMX_EVENT_EXCEPTION;
}

static inline void given_all_but(struct cell *x, uint32_t primary, uint32_t secondary)
{
	VARIANT("all_but");
	CONTROL_OR(0, VMCS_PRIMARY_CONTROLS, PRIMARY_EXITS & ~primary);
	CONTROL_OR(0, VMCS_SECONDARY_CONTROLS, SECONDARY_EXITS & ~secondary);
	if (primary)
		CONTROL_CLEAR(4, VMCS_PRIMARY_CONTROLS, primary);
	if (secondary)
		CONTROL_CLEAR(4, VMCS_SECONDARY_CONTROLS, secondary);
}

/*
 * Instruction information of a memory operand [BX], [EBX] or [RBX] of the data segment (tables 28-9 to 28-14):
 * address size, segment DS, no index, base RBX.
 */
#define ADDRESS_BITS(x) ((x)->address_size ? (x)->address_size : case_mode_is_16((x)->mode) ? 16 : (x)->mode == MODE_LONG ? 64 : 32)
#define INFO_SIZE(x)    (ADDRESS_BITS(x) == 16 ? 0u : ADDRESS_BITS(x) == 32 ? 1u : 2u)
#define INFO_MEMORY(x)  (INFO_SIZE(x) << 7 | 3u << 15 | 1u << 22 | 3u << 23)
/* Scaling counts with an index alone, a base's bit says that it is valid. */
#define MASK_MEMORY     (7u << 7 | 1u << 10 | 7u << 15 | 1u << 22 | 15u << 23 | 1u << 27)
#define SAYS_MEMORY(more, mask) INFO2_BITS(INFO_MEMORY(x) | (more), MASK_MEMORY | (mask))

#endif
