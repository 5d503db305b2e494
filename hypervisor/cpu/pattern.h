/*
 * pattern.h: a row of opcodes.def taken apart, for the decoder and the disassembler.
 * Made once by decode_init() (opcodes.c); only decode_break() changes it afterwards.
 */
#ifndef TRAPLINE_CPU_PATTERN_H
#define TRAPLINE_CPU_PATTERN_H

#include "cpu/decode.h"

enum opcode_map {
	MAP_ONE_BYTE,
	MAP_0F,
	MAP_0F38,
	MAP_0F3A,
	MAP_VEX_0F, /* the same three behind a VEX prefix */
	MAP_VEX_0F38,
	MAP_VEX_0F3A,
	OPCODE_MAPS
};

/* Mandatory prefixes, as bits of a set. */
enum prefix_set { PREFIXES_NP = 1, PREFIXES_66 = 2, PREFIXES_F3 = 4, PREFIXES_F2 = 8, PREFIXES_ANY = 15 };

/* Bits W and B of REX, as a set of their values in place: W is 8, B is 1. */
enum rex_set { REX_W0 = 0x3, REX_W1 = 0x300, REX_B0 = 0x101, REX_ANY = 0x303 };

enum mod_set { MODS_MEMORY = 1, MODS_REGISTER = 2, MODS_ANY = 3 };

/* VEX.L: which values fit, and whether it means a length. */
enum vector_set { VECTOR_128 = 1, VECTOR_256 = 2, VECTOR_ANY = 3, VECTOR_LIG = 7 };

enum immediate {
	IMMEDIATE_NONE,
	IMMEDIATE_BYTE,        /* Ib, Lx: zero-extended */
	IMMEDIATE_BYTE_SIGNED, /* Ibs, Jb */
	IMMEDIATE_WORD,        /* Iw: zero-extended */
	IMMEDIATE_Z,           /* Iz, Jz: 16 or 32 bits by operand size, sign-extended */
	IMMEDIATE_V,           /* Iv: 16, 32 or 64 bits */
	IMMEDIATE_FAR          /* Ap */
};

/* What the number in ModRM.reg, ModRM.rm or the opcode names. */
enum register_kind {
	REGISTER_GENERAL, /* extended by REX */
	REGISTER_BYTE,    /* as reg8() takes it */
	REGISTER_LOW,     /* three bits, whatever REX says: MMX, x87, segment registers */
	REGISTER_SEGMENT,
	REGISTER_CONTROL,
	REGISTER_DEBUG
};

enum size_rule {
	SIZE_PREFIX, /* 66h and REX.W */
	SIZE_WIDE,   /* REX.W only: operands "y", and rows whose mandatory prefix is 66 */
	SIZE_MODE    /* 64 bits in 64-bit mode, else 32: MOV CR, MOV DR */
};

struct pattern {
	uint16_t row;
	uint8_t map, opcode, opcode_last;
	uint8_t prefixes; /* enum prefix_set that fit */
	uint8_t regs;     /* ModRM.reg that fit, a bit each */
	uint8_t mods;     /* enum mod_set that fit */
	int16_t modrm;    /* the very ModRM byte, up to modrm_last; or -1 */
	uint8_t modrm_last;
	uint16_t rex;  /* enum rex_set that fit */
	uint8_t vector; /* enum vector_set; 0 without VEX */
	bool has_vvvv;  /* an operand is in VEX.vvvv; else it must be 1111b */
	bool vsib;      /* the memory operand's index is a vector */
	uint8_t modes;  /* enum opcode_modes */
	bool plus_register;
	bool has_modrm;
	bool mod_ignored; /* MOV CR, MOV DR: rm is a register whatever mod says */
	bool moffs;
	bool segment_written; /* the destination is Sw: CS is #UD */
	bool reserved, unmodelled;
	bool lock_broken;
	uint8_t size; /* enum size_rule */
	uint8_t reg_kind, rm_kind;
	uint8_t immediate[2];
	uint16_t flags; /* enum opcode_flag */
	uint16_t feature;
	uint32_t gates;
};

/* Patterns for (map, opcode), in the order of the table. */
struct pattern_list {
	const struct pattern *const *list;
	unsigned count;
};
struct pattern_list pattern_candidates(enum opcode_map map, uint8_t opcode);
/* The pattern of the row with this index. */
extern struct pattern pattern_table[];
static inline struct pattern *pattern_of(unsigned row) { return &pattern_table[row]; }

/* What of a row has refused something since check_take_reached(): bits of enum gate_index, then these. */
enum { REACHED_FEATURE = GATE_COUNT, REACHED_MODES, REACHED_LOCK, REACHED_COUNT };
_Static_assert(REACHED_COUNT <= 32, "gates_reached has a bit for each");
extern uint32_t gates_reached[];
static inline void gate_note(unsigned row, unsigned column) { gates_reached[row] |= 1u << column; }

/* insn->run of a row with gates (gate.c). */
const struct insn *gate_run(struct cpu *cpu, const struct insn *insn);
/* The same of a row with an intercept of AMD-V, in code that runs in a guest. */
const struct insn *gate_run_guest(struct cpu *cpu, const struct insn *insn);

#endif
