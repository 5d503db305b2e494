/*
 * notation.h: the words in which the tables are written.
 *
 *      insn   where         given        manual says     where it says so
 * TRAP(SGDT,  LONG | CPL3,  CR4(UMIP),  FAULT(GP, 0),   SDM(SGDT), APM(SGDT))
 *
 * insn      a key of instructions.def, or a macro that lists several
 * where     modes | privilege levels; without a mode all modes, without a level all levels
 * given     ALWAYS, one word, or several in parentheses: (CR4(UMIP), OPERAND(NOT_PRESENT)).
 *           They are applied to the baseline in
 *           order; where a condition cannot matter (conditions.def) the row makes no case
 * says      one outcome with its effects, in parentheses where there are several words:
 *           (RUNS, EFFECT(rax, LOADED(cr0))). ON(…) starts what holds on some processors
 *           only, OR starts a further outcome that the manual permits as well
 *
 * Each value is an expression, computed for each mode and level; LOADED(field) is the
 * value that the case loads. What a row does not name must be unchanged.
 *
 * Rows are statements: a .def file is included into a function that has `struct cell *x`.
 */
#ifndef TRAPLINE_SUITES_NOTATION_H
#define TRAPLINE_SUITES_NOTATION_H

#include "expand.h"
#include "x86/descriptors.h"
#include "x86/paging.h"
#include "x86/registers.h"
#include "x86/vectors.h"

/* ---- rows ---- */

#define INSN_LIST(...) (const enum insn_key[]) { __VA_ARGS__, INSN_NONE }

/* Rows of several instructions: FOR_EACH(SGDT, SIDT) { TRAP(EACH, …) } */
#define FOR_EACH(...) for (const enum insn_key *each = INSN_LIST(__VA_ARGS__); *each != INSN_NONE; each++)
#define EACH (*each)

#define TRAP(INSNS, WHERE, GIVEN, SAYS, ...)                                                                \
	for (row_begin(x, INSN_LIST(INSNS), (WHERE), __FILE__, __LINE__); row_next(x);) {                   \
		GIVEN;                                                                                      \
		row_given(x);                                                                               \
		SAYS;                                                                                       \
		(void)(__VA_ARGS__);                                                                        \
	}

/*
 * A story: C in guests/NAME that checks by itself (guests/lib/story.h), once for each row. What is given are
 * its parameters (x86/story_parameters.def), which become part of the id, and what the machine must have.
 *
 * TELL(lapic_priority, (GIVE(vector, 0x41), NEEDS(apic)), SDM(PPR), APM(PPR))
 */
#define TELL(STORY, GIVEN, ...)                                                                             \
	for (story_begin(x, #STORY, __FILE__, __LINE__); story_next(x);) {                                  \
		GIVEN;                                                                                      \
		(void)(__VA_ARGS__);                                                                        \
	}
#define GIVE(parameter, value)                                                                              \
	given_parameter(x, STORY_PARAMETER_##parameter, #parameter, NULL, (uint64_t)(value))
/* The same where a word says more than the number; "": another parameter's word says it. */
#define GIVE_AS(word, parameter, value)                                                                     \
	given_parameter(x, STORY_PARAMETER_##parameter, #parameter, word, (uint64_t)(value))

/*
 * A row whose instruction runs in a guest of the case's own, from the mode and level that it names: the story
 * NAME (guests/SUITE) is the hypervisor. What comes may be EXIT_OF(code) besides RUNS, FAULT and SHUTDOWN.
 */
#define TRAP_IN_GUEST(NAME, INSNS, WHERE, GIVEN, SAYS, ...)                                                 \
	for (row_begin(x, INSN_LIST(INSNS), (WHERE), __FILE__, __LINE__), x->story = NAME; row_next(x);) {  \
		GIVEN;                                                                                      \
		row_given(x);                                                                               \
		SAYS;                                                                                       \
		(void)(__VA_ARGS__);                                                                        \
	}

/* The instruction has no encoding there. */
#define NOT_ENCODABLE(INSNS, WHERE)                                                                         \
	row_note(x, INSN_LIST(INSNS), (WHERE), "", false, NULL, __FILE__, __LINE__);

/* No case yet, for one condition or for "-" (none), or for all of them: "*". */
#define UNTESTED(INSNS, WHERE, CONDITION, REASON)                                                           \
	row_note(x, INSN_LIST(INSNS), (WHERE), CONDITION, true, REASON, __FILE__, __LINE__);

/* ---- where ---- */

#define REAL   WHERE_MODE(MODE_REAL)
#define VM86   WHERE_MODE(MODE_VM86)
#define PROT16 WHERE_MODE(MODE_PROT16)
#define PROT32 WHERE_MODE(MODE_PROT32)
#define COMPAT WHERE_MODE(MODE_COMPAT)
#define LONG   WHERE_MODE(MODE_LONG)
#define LEGACY (PROT16 | PROT32)
#define ALL_BUT_LONG (REAL | VM86 | PROT16 | PROT32 | COMPAT)
#define LEGACY_SEGMENTS (PROT16 | PROT32 | COMPAT)
#define PROTECTED (PROT16 | PROT32 | COMPAT | LONG)
#define IA32E  (COMPAT | LONG)
#define CPL0   WHERE_CPL(0)
#define CPL1   WHERE_CPL(1)
#define CPL2   WHERE_CPL(2)
#define CPL3   WHERE_CPL(3)
#define ABOVE0 (CPL1 | CPL2 | CPL3)
#define EVERYWHERE 0

#define IS(modes) (WHERE_MODE(x->mode) & (modes))

/* ---- given ---- */

#define ALWAYS ((void)0)
#define AND , /* in macros that hand on several words */

/* Control bits: the name is the condition's. CR4 bits ask for their CPUID bit. */
#define CR0(bit)      given_bit(x, STATE_cr0, CR0_##bit, #bit)
#define CR4(bit)      given_cr4(x, CR4_##bit, #bit)
#define EFER(bit)     given_bit(x, STATE_efer, EFER_##bit, #bit)
#define FLAG(bit)     given_bit(x, STATE_rflags, RFLAGS_##bit, #bit)
#define IOPL(n)       given_iopl(x, n)

/* A condition that other words bring about, and a part of the id for values that are not conditions. */
#define COND(tag)     given_condition(x, tag)
#define VARIANT(tag)  given_variant(x, tag)
#define VARIANT_NUMBER(format, ...) given_variant_number(x, format, ##__VA_ARGS__)

#define SET(field, value) given_set(x, STATE_##field, (value))
#define OR_IN(field, value) given_or(x, STATE_##field, (value))
#define CLEAR_IN(field, value) given_clear(x, STATE_##field, (value))
#define POKE(size, address, value) given_poke(x, SETTING_POKE##size, (uint32_t)(address), (uint64_t)(value))
#define DESCRIPTOR(selector, base, limit, attributes)                                                       \
	given_descriptor(x, (selector), (base), (limit), (attributes))
/* Events from outside that are pending when the first instruction begins. */
#define PENDING_INTERRUPT(vector) given_event(x, SETTING_INTERRUPT, (vector))
#define PENDING_NMI given_event(x, SETTING_NMI, 0)
#define NEEDS(feature) given_needs(x, #feature, true)
#define LACKS(feature) given_needs(x, #feature, false)
#define PHYSICAL_BITS(most) given_physical_bits(x, (most)) /* of a physical address, at most (CPUID 80000008H) */

/* Of the guest's control structure: SIZE bytes at OFFSET. */
#define CONTROL(size, offset, value) given_control(x, SETTING_CONTROL, size, offset, (uint64_t)(value))
#define CONTROL_OR(size, offset, value) given_control(x, SETTING_CONTROL_OR, size, offset, (uint64_t)(value))
#define CONTROL_CLEAR(size, offset, value)                                                                  \
	given_control(x, SETTING_CONTROL_CLEAR, size, offset, (uint64_t)(value))

/* How the instruction is written. */
#define PREFIX(byte)       given_prefix(x, byte)
#define LOCK               (given_condition(x, "lock"), given_prefix(x, 0xf0))
#define REGISTER_FORM      (given_condition(x, "reg"), x->form_register = true)
#define ADDRESS_SIZE(bits) (x->address_size = (bits))
#define OPERAND_SIZE(bits) (x->operand_size = (bits))
#define IMMEDIATE(value)   (x->has_immediate = true, x->immediate = (uint64_t)(value))
#define THEN(...)          given_tail(x, (const uint8_t[]){ __VA_ARGS__ },                                  \
	sizeof((const uint8_t[]){ __VA_ARGS__ }))

/* What the memory operand is. */
enum operand_kind {
	NOT_PRESENT,  /* its page has P = 0 */
	READ_ONLY,    /* its page has W = 0 */
	SUPERVISOR,   /* its page has U = 0 */
	OVER_LIMIT,   /* its last byte lies past the limit of its segment */
	OVER_LIMIT_SS,
	NULL_SEGMENT, /* its segment register holds a null selector */
	NOT_WRITABLE, /* its segment is read-only */
	NOT_CANONICAL,
	NOT_CANONICAL_SS,
	MISALIGNED    /* odd address, with CR0.AM and RFLAGS.AC */
};
#define OPERAND(kind) given_operand(x, kind)

/* ---- values ---- */

#define LOADED(f) (x->state.field[STATE_##f])
#define DATA      (x->operand)
#define NEXT_IP   (cell_next_ip(x))

/* ---- outcomes ---- */

#define RUNS            want_kind(x, OUTCOME_RUNS)
#define FAULT(...)      FAULT_(__VA_ARGS__, 0, 0)
#define FAULT_(name, code, ...) want_fault(x, VECTOR_##name, (uint32_t)(code))
#define SHUTDOWN        want_kind(x, OUTCOME_SHUTDOWN)
#define HANG            want_kind(x, OUTCOME_HANG)
/* An exit of a guest; what it tells besides is undefined where the row does not say it. */
#define EXIT_OF(code)   want_exit(x, (uint64_t)(code))
#define INFO1(value)    effect_exit(x, EFFECT_INFO1, (uint64_t)(value), ~0ull)
#define INFO1_BITS(value, mask) effect_exit(x, EFFECT_INFO1, (uint64_t)(value), (mask))
#define INFO2(value)    effect_exit(x, EFFECT_INFO2, (uint64_t)(value), ~0ull)
#define INFO2_BITS(value, mask) effect_exit(x, EFFECT_INFO2, (uint64_t)(value), (mask))
#define INTINFO(value)  effect_exit(x, EFFECT_INTINFO, (uint64_t)(value), ~0ull)
#define PAGE_FAULT(code, address) (want_fault(x, VECTOR_PF, (code)), EFFECT(cr2, address))
#define ACCESS_READ  (x->cpl == 3 ? PF_U : 0)
#define ACCESS_WRITE (PF_W | ACCESS_READ)
#define OR              want_or(x)
#define ON(predicate)   want_on(x, predicate)
#define INTEL           "vendor=intel"
#define AMD             "vendor=amd"
#define HAS(feature)    predicate_feature(#feature, true)
#define HAS_NOT(feature) predicate_feature(#feature, false)
#define BOTH(a, b)      predicate_both(a, b)
#define WIDTH_AT_MOST(bits) predicate_width(bits) /* of a physical address */
#define ELSE            "always"

#define EFFECT(field, value)       effect_field(x, STATE_##field, (value), ~0ull)
#define EFFECT_BITS(field, value, mask) effect_field(x, STATE_##field, (value), (mask))
/* A register written in 16 bits keeps the others; in 32 bits clears them. */
#define GPR16(field, value) EFFECT(field, (LOADED(field) & ~0xffffull) | ((value) & 0xffffull))
#define GPR32(field, value) EFFECT(field, (uint32_t)(value))
#define EFFECT_EITHER(field, a, b) effect_either(x, STATE_##field, (a), (b))
#define UNDEFINED(field)           effect_any(x, STATE_##field)
#define MEMORY(size, address, value) effect_memory(x, (address), (size), (value), ~0ull)
#define MEMORY_BITS(size, address, value, mask) effect_memory(x, (address), (size), (value), (mask))
#define MEMORY_WIDE(size, address, low, high) effect_memory_wide(x, (address), (size), (low), (high))
#define MEMORY_UNDEFINED(size, address) effect_memory_any(x, (address), (size))
/* Delivered through the IDT or the interrupt vector table as an interrupt, not an exception. */
#define EVENT(vector)              effect_event(x, (vector))
/* INT n: delivered through its vector without an error code, whichever vector that is. */
#define INTERRUPTS(vector)         want_interrupt(x, (vector))
#define FLAGS(set, cleared)        effect_flags(x, (set), (cleared), 0)
#define FLAGS_UNDEFINED(set, cleared, undefined) effect_flags(x, (set), (cleared), (undefined))

/* ---- citations: keys of manuals.def ---- */

#define SDM(key) cite(x, "SDM_" #key)
#define APM(key) cite(x, "APM_" #key)
#define CHIP(chip, key) cite(x, #chip "_" #key) /* a data sheet, by its chip: manuals.def */

/* ---- what the words do ---- */

void row_begin(struct cell *x, const enum insn_key *insns, unsigned where, const char *file, int line);
bool row_next(struct cell *x);
void row_given(struct cell *x);
void row_note(struct cell *x, const enum insn_key *insns, unsigned where, const char *condition,
	      bool encodable, const char *reason, const char *file, int line);

void story_begin(struct cell *x, const char *name, const char *file, int line);
bool story_next(struct cell *x);
void given_parameter(struct cell *x, enum story_parameter parameter, const char *name, const char *word,
		     uint64_t value);
void given_control(struct cell *x, enum setting_kind kind, unsigned size, uint32_t offset, uint64_t value);
void given_event(struct cell *x, enum setting_kind kind, unsigned vector);

void given_bit(struct cell *x, enum state_field field, uint64_t bit, const char *name);
void given_cr4(struct cell *x, uint64_t bit, const char *name);
void given_iopl(struct cell *x, unsigned iopl);
void given_condition(struct cell *x, const char *tag);
void given_variant(struct cell *x, const char *tag);
void given_variant_number(struct cell *x, const char *format, ...) __attribute__((format(printf, 2, 3)));
void given_set(struct cell *x, enum state_field field, uint64_t value);
void given_or(struct cell *x, enum state_field field, uint64_t value);
void given_clear(struct cell *x, enum state_field field, uint64_t value);
void given_poke(struct cell *x, enum setting_kind kind, uint32_t address, uint64_t value);
void given_descriptor(struct cell *x, unsigned selector, uint64_t base, uint32_t limit, uint32_t attributes);
void given_needs(struct cell *x, const char *feature, bool present);
void given_physical_bits(struct cell *x, unsigned most);
void given_prefix(struct cell *x, unsigned byte);
void given_tail(struct cell *x, const uint8_t *bytes, size_t count);
void given_operand(struct cell *x, enum operand_kind kind);
uint64_t cell_next_ip(struct cell *x);

void want_kind(struct cell *x, enum outcome_kind kind);
void want_fault(struct cell *x, unsigned vector, uint32_t error);
void want_interrupt(struct cell *x, unsigned vector);
void want_exit(struct cell *x, uint64_t code);
void want_or(struct cell *x);
void want_on(struct cell *x, const char *predicate);
const char *predicate_feature(const char *feature, bool present);
const char *predicate_width(unsigned most);
const char *predicate_both(const char *a, const char *b);

void effect_field(struct cell *x, enum state_field field, uint64_t value, uint64_t mask);
void effect_either(struct cell *x, enum state_field field, uint64_t a, uint64_t b);
void effect_event(struct cell *x, unsigned vector);
void effect_exit(struct cell *x, unsigned which, uint64_t value, uint64_t mask); /* mask 0: anything */
void effect_any(struct cell *x, enum state_field field);
void effect_memory(struct cell *x, uint64_t address, unsigned size, uint64_t value, uint64_t mask);
void effect_memory_wide(struct cell *x, uint64_t address, unsigned size, uint64_t low, uint64_t high);
void effect_memory_any(struct cell *x, uint64_t address, unsigned size);
void effect_flags(struct cell *x, uint64_t set, uint64_t cleared, uint64_t undefined);

void cite(struct cell *x, const char *key);

#endif
