/*
 * words.h: the words of the suite of AMD-V, besides those of notation.h: instructions in a guest.
 *
 * GUEST(insn, where, given, says, citations…) is a TRAP whose instruction runs in a guest (guests/svm/insn.c).
 * The default intercepts are those of guests/lib/svm_world.h.
 */
#ifndef TRAPLINE_SUITES_SVM_WORDS_H
#define TRAPLINE_SUITES_SVM_WORDS_H

#include "../notation.h"
#include "x86/svm.h"

#define GUEST(INSNS, WHERE, GIVEN, SAYS, ...)                                                               \
	TRAP_IN_GUEST("svm_insn", INSNS, WHERE, (NEEDS(svm), GIVEN), SAYS, __VA_ARGS__)

/* The intercept of an exit code alone; and all of those of instructions but one. */
#define INTERCEPT_CODE(code) CONTROL_OR(4, VMCB_INTERCEPTS((unsigned)(code) / 32), 1u << ((unsigned)(code) & 31))
#define INTERCEPT(name) (VARIANT("on"), INTERCEPT_CODE(SVM_EXIT_##name))

#define EXITS(name) EXIT_OF(SVM_EXIT_##name)

#endif
