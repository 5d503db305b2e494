/*
 * case_section.h: the section of a guest's ELF file that says which cases it holds
 * and what the manuals promise of each.
 *
 * The section is text, so that `readelf -p` shows it; the lines stand in the order
 * of the guest's case table, whose index the control device speaks of. Words are
 * separated by one space; the last field of a line runs to its end.
 *
 *   trapline-cases 1 SUITE CASES
 *   case ID INSN MODE CPL CLASS
 *   want PREDICATE OUTCOME        one or more a case; the first whose predicate
 *                                 holds on the machine is the expectation
 *   or OUTCOME                    after a want: the manual permits this as well
 *   cite MANUAL VOLUME SECTION TITLE…   one or more a case (MANUAL: SDM, APM or a chip)
 *   cell INSN MODE CPL CONDITION untested REASON…
 *   cell INSN MODE CPL CONDITION not_encodable
 *   clause KEY MANUAL VOLUME SECTION TITLE…   each of suites/manuals.def, whether a case cites it or not
 *   promise INSN SVM SVM_MAY VMX VMX_MAY   exit codes and reasons, hex, commas between, or `-`: what the
 *                                 instruction exits with where it is intercepted, always or in some cases;
 *                                 one that has no such line never exits
 *   end
 *
 * MODE is one of real vm86 prot16 prot32 compat long. CLASS is the instruction's
 * Popek-Goldberg class, words joined by `+`: control, behaviour, privileged,
 * innocuous. CONDITION is `-` where none applies.
 *
 * A PREDICATE is `always`, or terms joined by commas, all of which must hold:
 *   vendor=intel  vendor=amd
 *   cpuid.LEAF.SUBLEAF.REG[BIT]=0|1     LEAF and SUBLEAF in hex, REG eax…edx
 *   cpuid.LEAF.SUBLEAF.REG[HIGH:LOW]<N  these bits as a number; N in decimal
 * OUTCOME is in the words of outcome.h.
 */
#ifndef TRAPLINE_X86_CASE_SECTION_H
#define TRAPLINE_X86_CASE_SECTION_H

#define CASE_SECTION_NAME ".trapline.cases"
#define CASE_SECTION_VERSION 1
#define CASE_ID_MAX 200   /* bytes, without the final zero */
#define CASE_LINE_MAX 4096

#endif
