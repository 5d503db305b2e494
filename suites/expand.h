/*
 * expand.h: the generator that turns the rows of a suite into cases.
 *
 * A row (notation.h) names instructions, a set of modes and privilege levels, what is
 * given, what the manuals promise and where they say so. For each instruction, mode and
 * CPL of the set the row's words are executed once against a struct cell; the cell then
 * becomes one case. Nothing here knows any engine.
 *
 * Errors are kept as "FILE:LINE: words" lines, so that all of them are seen at once.
 */
#ifndef TRAPLINE_SUITES_EXPAND_H
#define TRAPLINE_SUITES_EXPAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "x86/case.h"
#include "x86/case_layout.h"
#include "x86/case_section.h"
#include "x86/outcome.h"

/* Where a row holds: a set of modes and a set of privilege levels; an empty set is all. */
#define WHERE_MODE(mode) (1u << (mode))
#define WHERE_CPL(cpl)   (1u << (8 + (cpl)))
#define WHERE_MODES      0x3fu
#define WHERE_CPLS       0xf00u

enum insn_key {
	INSN_NONE,
#define INSN(key, ...) key,
#include "instructions.def"
#undef INSN
	INSN_COUNT
};

enum insn_operand { OPERAND_NONE, OPERAND_REGISTER, OPERAND_READ, OPERAND_WRITE, OPERAND_ADDRESS };

enum insn_class { CLASS_CONTROL = 1, CLASS_BEHAVIOUR = 2, CLASS_PRIVILEGED = 4, CLASS_INNOCUOUS = 8 };

/* One form of an instruction: a line of instructions.def. */
struct insn {
	const char *key;
	const char *name;       /* as in case ids */
	const char *form;       /* as in case ids; NULL where the instruction has one form */
	const char *bytes;      /* the SDM's notation: "NP 0F 01 /0", "REX.W 0F 07", "CD ib" */
	const char *conditions; /* names of conditions.def that matter, separated by blanks */
	unsigned operand;       /* enum insn_operand: what ModRM.rm stands for */
	unsigned size;          /* bytes of the memory operand */
	unsigned size_long;     /* in 64-bit mode, where that differs */
	unsigned class;         /* enum insn_class, or-ed */
	unsigned modes;         /* WHERE_MODE bits in which the form can be encoded; 0: all */
	uint64_t immediate;     /* for ib, iw, id, ptr16:16 and ptr16:32 */
	const char *suite;      /* whose inventory must have it; NULL: "sensitive". Any suite may use it */
};

extern const struct insn insn_table[INSN_COUNT];

struct condition {
	const char *name;
	unsigned where; /* modes and CPLs in which it can matter */
	const char *text;
};

extern const struct condition condition_table[];
extern const unsigned condition_count;

struct manual {
	const char *key;
	const char *manual; /* SDM, APM, or the chip whose data sheet it is */
	const char *volume;
	const char *section;
	const char *title;
	unsigned cases;
};

extern struct manual manual_table[];
extern const unsigned manual_count;

struct feature_bit {
	const char *name;
	uint32_t leaf, subleaf;
	unsigned reg, bit;
};

extern const struct feature_bit feature_table[];
extern const unsigned feature_count;
const struct feature_bit *feature_find(const char *name);

#define EFFECTS_MAX  40
#define WANTS_MAX    6
#define SETTINGS_MAX 96
#define CITES_MAX    16
#define TAGS_MAX     12
#define STORIES_MAX 256

/* Not fields: the vector of an interrupt; what an exit of a guest tells. */
enum { EFFECT_EVENT = STATE_COUNT, EFFECT_CODE, EFFECT_INFO1, EFFECT_INFO2, EFFECT_INTINFO };

struct effect {
	uint32_t address; /* 0: a field */
	uint32_t size;
	unsigned field;
	bool any;
	char value[600];
};

struct want {
	bool or; /* a further outcome that the manual permits */
	char predicate[200];
	enum outcome_kind kind;
	unsigned vector;
	bool has_error;
	uint32_t error;
	bool given; /* an outcome was named */
	struct effect effects[EFFECTS_MAX];
	unsigned effect_count;
};

/* The case being made, and the row that it is made from. */
struct cell {
	struct suite *suite;
	const char *file;
	int line;
	const enum insn_key *insns;
	unsigned where;
	unsigned insn_index, mode, cpl; /* the cursor of row_next() */
	const struct insn *insn;
	const char *story; /* NULL: bytes are run */
	unsigned made;
	/* From here to the outcomes, each of which begins empty, all is zero in a new cell. */
	bool active;
	bool skip; /* a condition that cannot matter here was given */

	struct machine_state state; /* as the settings so far make it */
	struct case_setting settings[SETTINGS_MAX];
	unsigned setting_count;
	uint8_t prefixes[16];
	unsigned prefix_count;
	bool form_register; /* ModRM.mod = 3 though the instruction takes memory */
	bool base_bp;       /* the memory operand is [RBP], of the stack segment */
	unsigned address_size, operand_size; /* bits; 0: the mode's own */
	uint32_t operand;   /* linear address of the memory operand */
	uint8_t tail[48]; /* bytes after the instruction */
	unsigned tail_count;
	uint8_t bytes[CASE_BYTES_MAX];
	unsigned length;
	bool has_immediate;
	uint64_t immediate;
	const char *tags[TAGS_MAX];
	unsigned tag_count;
	const char *variant[TAGS_MAX];
	char numbered[TAGS_MAX][24]; /* those that were made from numbers */
	unsigned variant_count;
	unsigned want_count;
	const struct manual *cites[CITES_MAX];
	unsigned cite_count;
	struct case_watch watch[CASE_WATCH_MAX];
	unsigned watch_count;
	struct want wants[WANTS_MAX];
};

/* A finished case. */
struct case_entry {
	char id[CASE_ID_MAX];
	const char *file;
	int line;
	const struct insn *insn;
	unsigned mode, cpl;
	struct case_setting *settings;
	unsigned setting_count;
	uint8_t bytes[CASE_BYTES_MAX];
	unsigned length;
	struct case_watch watch[CASE_WATCH_MAX];
	unsigned watch_count;
	uint64_t conditions; /* bits by index in condition_table */
	char *text;          /* its want, or and cite lines */
	const char *story;
};

/* A cell of the inventory that has no case on purpose. */
struct cell_note {
	const char *insn;
	unsigned mode, cpl;
	char condition[48];
	bool encodable;
	const char *reason;
};

struct suite {
	const char *name;
	struct case_entry *cases;
	size_t case_count, case_room;
	struct cell_note *notes;
	size_t note_count, note_room;
	unsigned errors;
};

extern const char *const mode_names[MODE_COUNT];

void suite_error(struct suite *suite, const char *file, int line, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
#define cell_error(x, ...) suite_error((x)->suite, (x)->file, (x)->line, __VA_ARGS__)

/* Whether a processor can be at @cpl in @mode: real-address mode is at 0, virtual-8086 mode at 3. */
bool mode_has_cpl(unsigned mode, unsigned cpl);

/* Whether @mode and @cpl belong to the set @where. */
bool where_holds(unsigned where, unsigned mode, unsigned cpl);

/* The set of what belongs to both; 0, which is no set then, where nothing does. */
unsigned where_both(unsigned a, unsigned b);

/* The suite's rows, in sensitive/suite.c and its like. */
extern const char suite_name[];
void suite_rows(struct suite *suite);

/* The value that @field can hold in the cell's mode. */
uint64_t field_value(const struct cell *x, enum state_field field, uint64_t value);

/* The condition of this name, whatever the case of its letters, or NULL. */
const struct condition *condition_find(const char *name);

/* Has the guest report @size bytes at @address, or where that is 0 @field, whether or not they change. */
void watch_add(struct cell *x, uint32_t address, uint32_t size, unsigned field);

/* Assembles @x->insn with what was given into @x->bytes. */
void cell_encode(struct cell *x);

/* Adds the cell as a case: its id, text and settings. */
void cell_finish(struct cell *x);

/* Whether the inventory of @suite must have @insn. */
bool suite_covers(const struct suite *suite, const struct insn *insn);

/* Checks that no two cases share an id. */
void ids_check(struct suite *suite);

/* Checks that each cell of the inventory has a case or a note; errors are reported. */
void inventory_check(struct suite *suite);

int suite_write_table(const struct suite *suite, const char *path);
int suite_write_section(const struct suite *suite, const char *path);

#endif
