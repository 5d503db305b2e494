/*
 * words.h: the words of the suite of AMD-V, besides those of notation.h: instructions in a guest.
 *
 * GUEST(insn, where, given, says, citations…) is a TRAP whose instruction runs in a guest
 * (guests/svm/insn.c). The default intercepts are those of guests/lib/svm_world.h.
 */
#ifndef TRAPLINE_SUITES_SVM_WORDS_H
#define TRAPLINE_SUITES_SVM_WORDS_H

#include "../notation.h"
#include "x86/svm.h"

#define GUEST(INSNS, WHERE, GIVEN, SAYS, ...)                                                                \
	TRAP_IN_GUEST("svm_insn", INSNS, WHERE, (NEEDS(svm), GIVEN), SAYS, __VA_ARGS__)

/* The intercept of an exit code; and all of those of instructions but one (and CPUID of what is selective).
 */
#define INTERCEPT_CODE(code)                                                                                 \
	CONTROL_OR(4, VMCB_INTERCEPTS((unsigned)(code) / 32), 1u << ((unsigned)(code)&31))
#define INTERCEPT(code) (VARIANT("on"), INTERCEPT_CODE(code))
#define ALL_BUT(code)   given_all_but(x, (unsigned)(code))
/* No exception is intercepted: they are delivered through the guest's IDT. */
#define NO_EXCEPTIONS CONTROL(4, VMCB_INTERCEPTS(2), 0)

/* What the hypervisor sees, by the name of svm_exits.def. */
#define EXITS(name) EXIT_OF(SVM_EXIT_##name)

#define INTERCEPT_CITES APM(SVM_INSTRUCTION_INTERCEPTS), APM(SVM_STATE_SAVED), APM(SVM_INTERCEPTS)

/* As many of the prefix as make the instruction @total bytes long. */
#define PREFIX_UP_TO(byte, total) given_length(x, (byte), (total))
static inline void given_length(struct cell *x, unsigned prefix, unsigned total)
{
	cell_encode(x);
	for (unsigned n = x->length; n < total; n++)
		given_prefix(x, prefix);
}

static inline void given_all_but(struct cell *x, unsigned code)
{
	static const uint32_t instructions[VMCB_INTERCEPT_WORDS] = {0xffffffff, 0xffffffff, 0,
								    0x7fffffe0, 0x7fff,     1u << 2};

	VARIANT("all_but");
	for (unsigned word = 0; word < VMCB_INTERCEPT_WORDS; word++)
		CONTROL_OR(4, VMCB_INTERCEPTS(word), instructions[word]);
	CONTROL_CLEAR(4, VMCB_INTERCEPTS(code / 32), 1u << (code & 31));
	if (code == SVM_EXIT_CR0_WRITE)
		CONTROL_CLEAR(4, VMCB_INTERCEPTS(3), 1u << (SVM_EXIT_CR0_SEL_WRITE & 31));
	if (code == SVM_EXIT_MWAIT)
		CONTROL_CLEAR(4, VMCB_INTERCEPTS(4), 1u << (SVM_EXIT_MWAIT_CONDITIONAL & 31));
}

#endif
