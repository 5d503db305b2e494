/*
 * wrongs.h: what may be wrong with the way to a handler, one thing each, and the exception that
 * this raises while another event is delivered.
 *
 * SDM 3A 6.12, 6.14, 6.15 (#TS, #NP, #SS, #GP, #PF); APM 2 8.2, 8.7.
 */
#ifndef TRAPLINE_SUITES_INTERRUPTS_WRONGS_H
#define TRAPLINE_SUITES_INTERRUPTS_WRONGS_H

#include "frames.h"

struct wrong {
	const char *name;
	unsigned where;
	uint8_t raises;
	bool plain; /* can be wrong with any number of gates at once */
	void (*given)(struct cell *x, unsigned vector);
	/* The error code, EXT left out, of a gate for @vector; NULL: 0. */
	uint32_t (*error)(const struct cell *x, unsigned vector);
	uint32_t cr2;  /* #PF: any address in this page */
	bool alone;    /* not in rows of three */
	unsigned from; /* vectors from this one on */
};

#define WRONG(name)  static void wrong_##name(struct cell *x, unsigned vector)
#define ABSENT_CODE  (CASE_SEL_SPARE + 0x28u) /* a code segment that is not present */
#define ABSENT_STACK (CASE_SEL_SPARE + 0x30u)
#define MOVED_LDT    CASE_OPERAND_PAGE2 /* an LDT on a page that is not present */
#define ABSENT_PAGE  0x40000u           /* a stack on one */
#define SHORT_TSS    (TSS64_IST(7) - 1)
#define NOT_MAPPED(address)                                                                                  \
	(IS(IA32E) ? POKE(8, CASE_PTE_LONG(address), 0) : POKE(4, CASE_PTE_32(address), 0))
#define HANDLER0 (IS(IA32E) ? CASE_SEL_CS64_0 : CASE_SEL_CS32_0)
#define WRONG_GATE(selector, attributes, ist)                                                                \
	given_gate(x, vector, (selector), CASE_LAND_GATE, (attributes), (ist))
#define GOOD (SEG_P | TYPE_INTERRUPT_GATE)

WRONG(not_present) { WRONG_GATE(HANDLER0, TYPE_INTERRUPT_GATE, 0); }
WRONG(type) { WRONG_GATE(HANDLER0, SEG_P | TYPE_LDT, 0); }
WRONG(null_code) { WRONG_GATE(0, GOOD, 0); }
WRONG(absent_code)
{
	DESCRIPTOR(ABSENT_CODE, 0, 0xfffff,
		   SEG_S | SEG_CODE | SEG_READABLE | SEG_ACCESSED | SEG_G | (IS(IA32E) ? SEG_L : SEG_DB));
	WRONG_GATE(ABSENT_CODE, GOOD, 0);
}
WRONG(absent_ldt)
{
	DESCRIPTOR(CASE_SEL_LDT, MOVED_LDT, CASE_LDT_LIMIT, TYPE_LDT | SEG_P);
	NOT_MAPPED(MOVED_LDT);
	WRONG_GATE(CASE_SEL_LDT_CODE, GOOD, 0);
}
/* IST 7 lies past the TSS's limit, IST 1 of the other gates within. */
WRONG(short_tss)
{
	DESCRIPTOR(CASE_SEL_TSS64, CASE_TSS64, SHORT_TSS, TYPE_TSS_AVAILABLE | SEG_P);
	WRONG_GATE(HANDLER0, GOOD, 7);
}
WRONG(ist_not_canonical)
{
	POKE(8, CASE_TSS64 + TSS64_IST(4), (1ull << 47) + 0x1000);
	WRONG_GATE(HANDLER0, GOOD, 4);
}
WRONG(ist_not_mapped)
{
	POKE(8, CASE_TSS64 + TSS64_IST(3), ABSENT_PAGE + 0x800);
	NOT_MAPPED(ABSENT_PAGE);
	WRONG_GATE(HANDLER0, GOOD, 3);
}
/* Outside IA-32e mode all handlers of CPL 0 share a stack: a handler of CPL 1 has one that can be wrong. */
WRONG(ss1_null)
{
	POKE(2, CASE_TSS32 + TSS32_SS(1), 1);
	WRONG_GATE(CASE_SEL_CS32_1, GOOD, 0);
}
WRONG(ss1_wrong_rpl)
{
	POKE(2, CASE_TSS32 + TSS32_SS(1), CASE_SEL_DS32_1);
	WRONG_GATE(CASE_SEL_CS32_1, GOOD, 0);
}
WRONG(ss1_absent)
{
	DESCRIPTOR(ABSENT_STACK, 0, 0xfffff,
		   SEG_S | SEG_WRITABLE | SEG_ACCESSED | SEG_G | SEG_DB | 1u << SEG_DPL_SHIFT);
	POKE(2, CASE_TSS32 + TSS32_SS(1), ABSENT_STACK | 1);
	WRONG_GATE(CASE_SEL_CS32_1, GOOD, 0);
}
WRONG(esp1_not_mapped)
{
	POKE(4, CASE_TSS32 + TSS32_ESP(1), ABSENT_PAGE + 0x800);
	NOT_MAPPED(ABSENT_PAGE);
	WRONG_GATE(CASE_SEL_CS32_1, GOOD, 0);
}

/* Each check of the handler's segment by itself: nothing else refuses it. */
#define HANDLER_CODE (SEG_P | SEG_S | SEG_CODE | SEG_READABLE | SEG_ACCESSED | SEG_G)
WRONG(null_described)
{
	DESCRIPTOR(0, 0, 0xfffff, HANDLER_CODE | (IS(IA32E) ? SEG_L : SEG_DB));
	WRONG_GATE(0, GOOD, 0);
}
WRONG(data_code) { WRONG_GATE(CASE_SEL_DS32_0, GOOD, 0); }
WRONG(code_past_gdt) { WRONG_GATE(CASE_GDT_LIMIT + 1, GOOD, 0); }
WRONG(outward) { WRONG_GATE(IS(IA32E) ? CASE_SEL_CS64_3 : CASE_SEL_CS32_3, GOOD, 0); }
WRONG(to_cpl1) { WRONG_GATE(CASE_SEL_CS32_1, GOOD, 0); }
WRONG(code_32bit) { WRONG_GATE(CASE_SEL_CS32_0, GOOD, 0); }
WRONG(idt_ends)
{
	(void)vector;
	SET(idtr_limit, (IS(IA32E) ? 16 : 8) * (VECTOR_PF + 1) - 1);
}
WRONG(idt_cut) { SET(idtr_limit, (IS(IA32E) ? 16 : 8) * (vector + 1) - 2); }
WRONG(ss1_null_described)
{
	DESCRIPTOR(0, 0, 0xfffff,
		   SEG_P | SEG_S | SEG_WRITABLE | SEG_ACCESSED | SEG_G | SEG_DB | 1u << SEG_DPL_SHIFT);
	POKE(2, CASE_TSS32 + TSS32_SS(1), 1);
	WRONG_GATE(CASE_SEL_CS32_1, GOOD, 0);
}

#define ERROR_OF(name, value)                                                                                \
	static uint32_t error_of_##name(const struct cell *x, unsigned vector)                               \
	{                                                                                                    \
		(void)x;                                                                                     \
		(void)vector;                                                                                \
		return (value);                                                                              \
	}
ERROR_OF(gate, vector << 3 | ERROR_IDT)
ERROR_OF(absent_code, ABSENT_CODE)
ERROR_OF(data_code, CASE_SEL_DS32_0)
ERROR_OF(past_gdt, CASE_GDT_LIMIT + 1)
ERROR_OF(outward, IS(IA32E) ? CASE_SEL_CS64_3 : CASE_SEL_CS32_3)
ERROR_OF(to_cpl1, CASE_SEL_CS32_1)
ERROR_OF(code_32bit, CASE_SEL_CS32_0)
ERROR_OF(tss, CASE_SEL_TSS64)
ERROR_OF(ss1, CASE_SEL_DS32_1)
ERROR_OF(absent_stack, ABSENT_STACK)
ERROR_OF(stack_write, PF_W)

#define NOT_REAL (VM86 | PROTECTED)
#define TO_CPL1  (LEGACY | CPL2 | CPL3)
static const struct wrong wrongs[] = {
	{.name = "gate_not_present",
	 .where = NOT_REAL,
	 .raises = VECTOR_NP,
	 .plain = true,
	 .given = wrong_not_present,
	 .error = error_of_gate},
	{.name = "gate_type",
	 .where = NOT_REAL,
	 .raises = VECTOR_GP,
	 .plain = true,
	 .given = wrong_type,
	 .error = error_of_gate},
	{.name = "null_code",
	 .where = NOT_REAL,
	 .raises = VECTOR_GP,
	 .plain = true,
	 .given = wrong_null_code},
	{.name = "absent_code",
	 .where = NOT_REAL,
	 .raises = VECTOR_NP,
	 .plain = true,
	 .given = wrong_absent_code,
	 .error = error_of_absent_code},
	{.name = "absent_ldt",
	 .where = NOT_REAL,
	 .raises = VECTOR_PF,
	 .plain = true,
	 .given = wrong_absent_ldt,
	 .cr2 = MOVED_LDT},
	{.name = "short_tss",
	 .where = IA32E,
	 .raises = VECTOR_TS,
	 .given = wrong_short_tss,
	 .error = error_of_tss},
	{.name = "ist_not_canonical", .where = IA32E, .raises = VECTOR_SS, .given = wrong_ist_not_canonical},
	{.name = "ist_not_mapped",
	 .where = IA32E,
	 .raises = VECTOR_PF,
	 .given = wrong_ist_not_mapped,
	 .error = error_of_stack_write,
	 .cr2 = ABSENT_PAGE},
	{.name = "ss1_null", .where = TO_CPL1, .raises = VECTOR_TS, .given = wrong_ss1_null},
	{.name = "ss1_wrong_rpl",
	 .where = TO_CPL1,
	 .raises = VECTOR_TS,
	 .given = wrong_ss1_wrong_rpl,
	 .error = error_of_ss1},
	{.name = "ss1_absent",
	 .where = TO_CPL1,
	 .raises = VECTOR_SS,
	 .given = wrong_ss1_absent,
	 .error = error_of_absent_stack},
	{.name = "esp1_not_mapped",
	 .where = TO_CPL1,
	 .raises = VECTOR_PF,
	 .given = wrong_esp1_not_mapped,
	 .error = error_of_stack_write,
	 .cr2 = ABSENT_PAGE},
	{.name = "null_described",
	 .where = NOT_REAL,
	 .raises = VECTOR_GP,
	 .given = wrong_null_described,
	 .alone = true},
	{.name = "data_code",
	 .where = NOT_REAL,
	 .raises = VECTOR_GP,
	 .given = wrong_data_code,
	 .error = error_of_data_code,
	 .alone = true},
	{.name = "code_past_gdt",
	 .where = NOT_REAL,
	 .raises = VECTOR_GP,
	 .given = wrong_code_past_gdt,
	 .error = error_of_past_gdt,
	 .alone = true},
	{.name = "outward",
	 .where = PROTECTED | CPL0 | CPL1 | CPL2,
	 .raises = VECTOR_GP,
	 .given = wrong_outward,
	 .error = error_of_outward,
	 .alone = true},
	{.name = "to_cpl1",
	 .where = VM86,
	 .raises = VECTOR_GP,
	 .given = wrong_to_cpl1,
	 .error = error_of_to_cpl1,
	 .alone = true},
	{.name = "code_32bit",
	 .where = IA32E,
	 .raises = VECTOR_GP,
	 .given = wrong_code_32bit,
	 .error = error_of_code_32bit,
	 .alone = true},
	{.name = "idt_ends",
	 .where = NOT_REAL,
	 .raises = VECTOR_GP,
	 .given = wrong_idt_ends,
	 .error = error_of_gate,
	 .alone = true,
	 .from = VECTOR_PF + 1},
	{.name = "idt_cut",
	 .where = NOT_REAL,
	 .raises = VECTOR_GP,
	 .given = wrong_idt_cut,
	 .error = error_of_gate,
	 .alone = true,
	 .from = VECTOR_PF + 1},
	{.name = "ss1_null_described",
	 .where = TO_CPL1,
	 .raises = VECTOR_TS,
	 .given = wrong_ss1_null_described,
	 .alone = true},
};
#define WRONGS (sizeof(wrongs) / sizeof(wrongs[0]))

/* ---- what becomes of two exceptions (SDM 3A table 6-5) ---- */

enum severity { BENIGN, CONTRIBUTORY, PAGE_FAULT_CLASS, DOUBLE_FAULT_CLASS };

static inline enum severity severity(unsigned vector)
{
	switch (vector) {
	case VECTOR_DE:
	case VECTOR_TS:
	case VECTOR_NP:
	case VECTOR_SS:
	case VECTOR_GP: return CONTRIBUTORY;
	case VECTOR_PF: return PAGE_FAULT_CLASS;
	case VECTOR_DF: return DOUBLE_FAULT_CLASS;
	default: return BENIGN;
	}
}

static inline enum severity way_severity(const struct way *way)
{
	return way->kind == WAY_FAULT ? severity(way->vector) : BENIGN;
}

/* Whether @second, always one of the two serious classes, makes a double fault of it. */
static inline bool doubles(enum severity first, unsigned second)
{
	return (first == CONTRIBUTORY && severity(second) == CONTRIBUTORY) || first == PAGE_FAULT_CLASS;
}

/* The instruction is not complete: a trap is behind it, all others restart it. */
static inline uint64_t way_restart_ip(struct cell *x, const struct way *way)
{
	return way->kind == WAY_TRAP ? way_return_ip(x, way) : LOADED(rip) + way->offset;
}

/* @wrong came while an event of @way was delivered through the gate of @vector, and is delivered itself. */
static inline void wrong_says(struct cell *x, const struct way *way, const struct wrong *wrong,
			      unsigned vector, bool external)
{
	uint32_t error = wrong->error ? wrong->error(x, vector) : 0;

	if (external && wrong->raises != VECTOR_PF)
		error |= ERROR_EXT;
	want_fault(x, wrong->raises, error);
	EFFECT(rip, way_restart_ip(x, way));
	if (wrong->raises == VECTOR_PF)
		EFFECT_BITS(cr2, wrong->cr2, ~0xfffull);
	else if (way->vector == VECTOR_PF)
		way->effects(x);
	if (way->kind == WAY_TRAP)
		UNDEFINED(dr6);
}

/* Its saved RIP is undefined (SDM 3A 6.15, #DF). @last: the address of the last #PF, if there was one. */
static inline void double_fault_says(struct cell *x, const struct way *way, const struct wrong *last)
{
	want_fault(x, VECTOR_DF, 0);
	UNDEFINED(rip);
	if (last->raises == VECTOR_PF)
		EFFECT_BITS(cr2, last->cr2, ~0xfffull);
	else if (way->vector == VECTOR_PF)
		way->effects(x);
	if (way->kind == WAY_TRAP)
		UNDEFINED(dr6);
}

#endif
