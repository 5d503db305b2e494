/*
 * operand_faults.h: rows that each instruction with a memory operand has, written once.
 *
 * @INSN    one key
 * @WHERE   where the instruction gets as far as its operand (not where it has no encoding,
 *          and not where privilege stops it first)
 * @FAULTS  PAGE_FAULT_AT for an operand that is one datum, PAGE_FAULT_IN for one of several (a far
 *          pointer, a pseudo-descriptor), of which the manuals do not say which is accessed first
 * @ACCESS  ACCESS_READ or ACCESS_WRITE, what the #PF error code says
 * the rest the row's citations
 */
#ifndef TRAPLINE_SUITES_OPERAND_FAULTS_H
#define TRAPLINE_SUITES_OPERAND_FAULTS_H

#define PAGE_FAULT_AT(code) PAGE_FAULT(code, DATA)
#define PAGE_FAULT_IN(code) (FAULT(PF, code), EFFECT_BITS(cr2, DATA, ~0xfull))

#define MEMORY_FAULTS(INSN, WHERE, FAULTS, ACCESS, ...)                                                     \
	TRAP(INSN, WHERE, OPERAND(NOT_PRESENT), FAULTS(ACCESS), __VA_ARGS__)                                \
	TRAP(INSN, WHERE, OPERAND(SUPERVISOR), FAULTS(ACCESS | PF_P), __VA_ARGS__)                          \
	TRAP(INSN, WHERE, OPERAND(OVER_LIMIT), FAULT(GP, 0), __VA_ARGS__)                                   \
	TRAP(INSN, WHERE, OPERAND(OVER_LIMIT_SS), FAULT(SS, 0), __VA_ARGS__)                                \
	TRAP(INSN, WHERE, OPERAND(NULL_SEGMENT), FAULT(GP, 0), __VA_ARGS__)                                 \
	TRAP(INSN, WHERE, OPERAND(NOT_CANONICAL), FAULT(GP, 0), __VA_ARGS__)                                \
	TRAP(INSN, WHERE, OPERAND(NOT_CANONICAL_SS), FAULT(SS, 0), __VA_ARGS__)

#define READ_FAULTS(INSN, WHERE, ...) MEMORY_FAULTS(INSN, WHERE, PAGE_FAULT_AT, ACCESS_READ, __VA_ARGS__)
#define READ_PARTS_FAULTS(INSN, WHERE, ...) MEMORY_FAULTS(INSN, WHERE, PAGE_FAULT_IN, ACCESS_READ, __VA_ARGS__)

#define WRITE_FAULTS_(INSN, WHERE, FAULTS, ...)                                                             \
	MEMORY_FAULTS(INSN, WHERE, FAULTS, ACCESS_WRITE, __VA_ARGS__)                                       \
	TRAP(INSN, WHERE, OPERAND(READ_ONLY), FAULTS(ACCESS_WRITE | PF_P), __VA_ARGS__)                     \
	TRAP(INSN, WHERE, OPERAND(NOT_WRITABLE), FAULT(GP, 0), __VA_ARGS__)
#define WRITE_FAULTS(INSN, WHERE, ...) WRITE_FAULTS_(INSN, WHERE, PAGE_FAULT_AT, __VA_ARGS__)
#define WRITE_PARTS_FAULTS(INSN, WHERE, ...) WRITE_FAULTS_(INSN, WHERE, PAGE_FAULT_IN, __VA_ARGS__)

/* The operand that @STOP comes before: each of the conditions above, with the same outcome. */
#define BEFORE_OPERAND(INSN, WHERE, SAYS, ...)                                                              \
	TRAP(INSN, WHERE, OPERAND(NOT_PRESENT), SAYS, __VA_ARGS__)                                          \
	TRAP(INSN, WHERE, OPERAND(SUPERVISOR), SAYS, __VA_ARGS__)                                           \
	TRAP(INSN, WHERE, OPERAND(OVER_LIMIT), SAYS, __VA_ARGS__)                                           \
	TRAP(INSN, WHERE, OPERAND(OVER_LIMIT_SS), SAYS, __VA_ARGS__)                                        \
	TRAP(INSN, WHERE, OPERAND(NULL_SEGMENT), SAYS, __VA_ARGS__)                                         \
	TRAP(INSN, WHERE, OPERAND(NOT_CANONICAL), SAYS, __VA_ARGS__)                                        \
	TRAP(INSN, WHERE, OPERAND(NOT_CANONICAL_SS), SAYS, __VA_ARGS__)                                     \
	TRAP(INSN, WHERE, OPERAND(MISALIGNED), SAYS, __VA_ARGS__)

#define BEFORE_OPERAND_WRITE(INSN, WHERE, SAYS, ...)                                                        \
	BEFORE_OPERAND(INSN, WHERE, SAYS, __VA_ARGS__)                                                      \
	TRAP(INSN, WHERE, OPERAND(READ_ONLY), SAYS, __VA_ARGS__)                                            \
	TRAP(INSN, WHERE, OPERAND(NOT_WRITABLE), SAYS, __VA_ARGS__)

#endif
