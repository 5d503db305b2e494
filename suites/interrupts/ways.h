/*
 * ways.h: the ways in which an instruction raises an exception or an interrupt, one a vector, as
 * data: what is run and given, and what is delivered when nothing is wrong with its handler.
 *
 * SDM 3A 6.15, APM 2 8.2. Rows of several .def files go through all of them.
 */
#ifndef TRAPLINE_SUITES_INTERRUPTS_WAYS_H
#define TRAPLINE_SUITES_INTERRUPTS_WAYS_H

#include "../notation.h"

enum way_kind {
	WAY_FAULT,
	WAY_TRAP,       /* #DB behind an instruction: RIP is the next instruction's */
	WAY_SOFTWARE,   /* INT n, INT3, INTO: not external to the program (EXT = 0), DPL is checked */
	WAY_PRIVILEGED, /* INT1: EXT = 1, DPL is not checked (SDM 2A INT) */
	WAY_EXTERNAL    /* pending in front of the instruction */
};

struct way {
	const char *name;
	enum insn_key insn;
	unsigned where; /* as a row's */
	enum way_kind kind;
	unsigned vector;
	unsigned offset; /* of the raising instruction, behind those that prepare it */
	void (*given)(struct cell *x);
	uint32_t (*error)(const struct cell *x); /* NULL: 0, or none */
	void (*effects)(struct cell *x);         /* besides the vector; NULL: none */
};

#define WAYS           (sizeof(ways) / sizeof(ways[0]))
#define WAY_INT_VECTOR 0x41           /* of INT n */
#define WAY_SPARE      CASE_SEL_SPARE /* the descriptor that the ways themselves use */

/* ---- what each gives ---- */

#define GIVES(name) static void given_##name(struct cell *x)
#define BYTE_BX     (case_mode_is_16(x->mode) ? 7 : 3) /* ModRM.rm of [BX], [EBX], [RBX] */

GIVES(de) { SET(rax, 0); }
GIVES(db) { FLAG(TF); }
GIVES(nothing) { (void)x; }
GIVES(of) { OR_IN(rflags, RFLAGS_OF); }
GIVES(int_n)
{
	IMMEDIATE(WAY_INT_VECTOR);
	if (x->mode == MODE_VM86)
		IOPL(3);
}
/* CX is above both bounds. */
GIVES(br)
{
	POKE(8, CASE_OPERAND, 0x0000000200000001);
	SET(rcx, 3);
}
GIVES(nm) { CR0(TS); }
GIVES(ts)
{
	FLAG(NT);
	POKE(2, CASE_TSS32, CASE_SEL_DS32_0);
}
GIVES(np) { SET(rax, CASE_SEL_NOT_PRESENT | 3); }
GIVES(ss)
{
	DESCRIPTOR(WAY_SPARE, 0, 0xfffff,
		   SEG_S | SEG_WRITABLE | SEG_ACCESSED | SEG_DB | x->cpl << SEG_DPL_SHIFT);
	SET(rax, WAY_SPARE | x->cpl);
}
GIVES(gp) { SET(rax, (CASE_GDT_LIMIT + 1) | x->cpl); }
GIVES(pf) { OPERAND(NOT_PRESENT); }
GIVES(ac) { OPERAND(MISALIGNED); }
/* Behind FNINIT: FLDCW (division by zero is not masked), FLD1, FLDZ, FDIVP, and FWAIT finds the exception. */
GIVES(mf)
{
	POKE(2, CASE_OPERAND, 0x37b);
	THEN(0xd9, (uint8_t)(0x28 | BYTE_BX), 0xd9, 0xe8, 0xd9, 0xee, 0xde, 0xf9, 0x9b);
}
/* Behind LDMXCSR (invalid operation is not masked): XORPS XMM0, XMM0; DIVPS XMM0, XMM0. */
GIVES(xm)
{
	OR_IN(cr4, CR4_OSFXSR | CR4_OSXMMEXCPT);
	POKE(4, CASE_OPERAND, 0x1f00);
	THEN(0x0f, 0x57, 0xc0, 0x0f, 0x5e, 0xc0);
}

static uint32_t error_ts(const struct cell *x) { return (void)x, CASE_SEL_DS32_0; }
static uint32_t error_np(const struct cell *x) { return (void)x, CASE_SEL_NOT_PRESENT; }
static uint32_t error_ss(const struct cell *x) { return (void)x, WAY_SPARE; }
static uint32_t error_gp(const struct cell *x) { return (void)x, CASE_GDT_LIMIT + 1; }
static uint32_t error_pf(const struct cell *x) { return ACCESS_READ; }

static void effects_db(struct cell *x) { EFFECT(dr6, CASE_DR6 | DR6_BS); }
static void effects_pf(struct cell *x) { EFFECT(cr2, CASE_OPERAND); }

#define WAY_EXTERNAL_VECTOR 0x45
GIVES(external)
{
	PENDING_INTERRUPT(WAY_EXTERNAL_VECTOR);
	OR_IN(rflags, RFLAGS_IF);
}
GIVES(nmi) { PENDING_NMI; }

static const struct way ways[] = {
	{.name = "de", .insn = DIV_R8, .kind = WAY_FAULT, .vector = VECTOR_DE, .given = given_de},
	{.name = "db",
	 .insn = NOP,
	 .kind = WAY_TRAP,
	 .vector = VECTOR_DB,
	 .given = given_db,
	 .effects = effects_db},
	{.name = "int1", .insn = INT1, .kind = WAY_PRIVILEGED, .vector = VECTOR_DB, .given = given_nothing},
	{.name = "bp", .insn = INT3, .kind = WAY_SOFTWARE, .vector = VECTOR_BP, .given = given_nothing},
	{.name = "of",
	 .insn = INTO,
	 .where = ALL_BUT_LONG,
	 .kind = WAY_SOFTWARE,
	 .vector = VECTOR_OF,
	 .given = given_of},
	{.name = "br",
	 .insn = BOUND_32,
	 .where = ALL_BUT_LONG,
	 .kind = WAY_FAULT,
	 .vector = VECTOR_BR,
	 .given = given_br},
	{.name = "ud", .insn = UD2, .kind = WAY_FAULT, .vector = VECTOR_UD, .given = given_nothing},
	{.name = "nm", .insn = FNOP, .kind = WAY_FAULT, .vector = VECTOR_NM, .given = given_nm},
	{.name = "ts",
	 .insn = IRET_32,
	 .where = LEGACY,
	 .kind = WAY_FAULT,
	 .vector = VECTOR_TS,
	 .given = given_ts,
	 .error = error_ts},
	{.name = "np",
	 .insn = MOV_DS_R,
	 .where = PROTECTED,
	 .kind = WAY_FAULT,
	 .vector = VECTOR_NP,
	 .given = given_np,
	 .error = error_np},
	{.name = "ss",
	 .insn = MOV_SS_R,
	 .where = PROTECTED,
	 .kind = WAY_FAULT,
	 .vector = VECTOR_SS,
	 .given = given_ss,
	 .error = error_ss},
	{.name = "gp",
	 .insn = MOV_DS_R,
	 .where = PROTECTED,
	 .kind = WAY_FAULT,
	 .vector = VECTOR_GP,
	 .given = given_gp,
	 .error = error_gp},
	{.name = "gp0",
	 .insn = CLI,
	 .where = (VM86 | PROTECTED) | ABOVE0,
	 .kind = WAY_FAULT,
	 .vector = VECTOR_GP,
	 .given = given_nothing},
	{.name = "pf",
	 .insn = LOAD_16,
	 .where = VM86 | PROTECTED,
	 .kind = WAY_FAULT,
	 .vector = VECTOR_PF,
	 .given = given_pf,
	 .error = error_pf,
	 .effects = effects_pf},
	{.name = "mf",
	 .insn = FNINIT,
	 .kind = WAY_FAULT,
	 .vector = VECTOR_MF,
	 .offset = 10,
	 .given = given_mf},
	{.name = "ac",
	 .insn = LOAD_16,
	 .where = (VM86 | PROTECTED) | CPL3,
	 .kind = WAY_FAULT,
	 .vector = VECTOR_AC,
	 .given = given_ac},
	{.name = "xm",
	 .insn = LDMXCSR,
	 .kind = WAY_FAULT,
	 .vector = VECTOR_XM,
	 .offset = 6,
	 .given = given_xm},
	{.name = "external",
	 .insn = NOP,
	 .kind = WAY_EXTERNAL,
	 .vector = WAY_EXTERNAL_VECTOR,
	 .given = given_external},
	{.name = "nmi", .insn = NOP, .kind = WAY_EXTERNAL, .vector = VECTOR_NMI, .given = given_nmi},
	{.name = "int_n",
	 .insn = INT_N,
	 .kind = WAY_SOFTWARE,
	 .vector = WAY_INT_VECTOR,
	 .given = given_int_n},
};

static inline uint32_t way_error(const struct cell *x, const struct way *way)
{
	return way->error ? way->error(x) : 0;
}

/* RIP in the image that its handler finds. */
static inline uint64_t way_return_ip(struct cell *x, const struct way *way)
{
	return way->kind == WAY_FAULT      ? LOADED(rip) + way->offset
	       : way->kind == WAY_EXTERNAL ? LOADED(rip)
					   : cell_next_ip(x);
}

/* What comes when its handler is in order. */
static inline void way_says(struct cell *x, const struct way *way)
{
	if (way->kind == WAY_FAULT)
		want_fault(x, way->vector, way_error(x, way));
	else
		want_interrupt(x, way->vector);
	if (way->vector < 32 || way->kind == WAY_EXTERNAL)
		EFFECT(rip, way_return_ip(x, way));
	if (way->effects)
		way->effects(x);
}

#endif
