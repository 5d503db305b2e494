/*
 * insn/x87_arithmetic.c: x87 arithmetic and comparison (SDM 2A FADD to FYL2XP1, without the transcendentals). The
 * host's unit computes, with the guest's control word (x87.h).
 */
#include "cpu/mem/mem.h"
#include "cpu/x87.h"

/* ---- ST(i) op= source; the source in a register or in memory ---- */

enum operation { ADD, MUL, COM, COMP, SUB, SUBR, DIV, DIVR }; /* as ModRM.reg numbers them */
enum source { SOURCE_REGISTER, SOURCE_SINGLE, SOURCE_DOUBLE, SOURCE_INT16, SOURCE_INT32 };

/* One operation on the host: the destination is loaded last, so it is on top. */
#define HOST_REGISTER(name)                                                                                  \
	X87_HOST(cpu, status, "fldt %[source]\n\tfldt %[value]\n\t", name " %%st(1), %%st",                  \
		 "fstpt %[value]\n\tfstp %%st(0)", ([value] "+m"(*value)), ([source] "m"(*source)))
#define HOST_MEMORY(name)                                                                                    \
	X87_HOST(cpu, status, "fldt %[value]\n\t", name " %[source]", "fstpt %[value]",                      \
		 ([value] "+m"(*value)), ([source] "m"(*source)))
#define HOST_CASE(number, name)                                                                              \
	case number:                                                                                         \
		switch (kind) {                                                                              \
		case SOURCE_REGISTER: HOST_REGISTER("f" name); break;                                        \
		case SOURCE_SINGLE: HOST_MEMORY("f" name "s"); break;                                        \
		case SOURCE_DOUBLE: HOST_MEMORY("f" name "l"); break;                                        \
		case SOURCE_INT16: HOST_MEMORY("fi" name "s"); break;                                        \
		case SOURCE_INT32: HOST_MEMORY("fi" name "l"); break;                                        \
		}                                                                                            \
		break;

/* Computes *@value op= *@source; returns the host's status word. */
static uint16_t host_operation(struct cpu *cpu, enum operation operation, enum source kind, x87_t *value,
			       const x87_t *source)
{
	uint16_t status = 0;
	switch (operation) {
		HOST_CASE(ADD, "add")
		HOST_CASE(MUL, "mul")
		HOST_CASE(SUB, "sub")
		HOST_CASE(SUBR, "subr")
		HOST_CASE(DIV, "div")
		HOST_CASE(DIVR, "divr")
	default: break;
	}
	return status;
}

/* Condition codes of a comparison, C1 cleared; an unordered one in @status with IE. */
static void take_comparison(struct cpu *cpu, uint16_t status)
{
	if (x87_take_flags(cpu, (uint16_t)(status & X87_FLAGS)))
		cpu->fsw = (uint16_t)((cpu->fsw & ~X87_CC) | (status & (X87_C0 | X87_C2 | X87_C3)));
}

static uint16_t host_compare(struct cpu *cpu, bool unordered, const x87_t *a, const x87_t *b)
{
	uint16_t status;
	if (unordered)
		X87_HOST(cpu, status, "fldt %[b]\n\tfldt %[a]\n\t", "fucom %%st(1)", "fstp %%st(0)\n\tfstp %%st(0)",
			 ([unused] "=m"(status)), ([a] "m"(*a), [b] "m"(*b)));
	else
		X87_HOST(cpu, status, "fldt %[b]\n\tfldt %[a]\n\t", "fcom %%st(1)", "fstp %%st(0)\n\tfstp %%st(0)",
			 ([unused] "=m"(status)), ([a] "m"(*a), [b] "m"(*b)));
	return status;
}

#define HOST_COMPARE_MEMORY(name)                                                                            \
	X87_HOST(cpu, status, "fldt %[a]\n\t", name " %[source]", "fstp %%st(0)", ([unused] "=m"(status)),   \
		 ([a] "m"(*a), [source] "m"(*source)))
static uint16_t host_compare_memory(struct cpu *cpu, enum source kind, const x87_t *a, const x87_t *source)
{
	uint16_t status = 0;
	switch (kind) {
	case SOURCE_SINGLE: HOST_COMPARE_MEMORY("fcoms"); break;
	case SOURCE_DOUBLE: HOST_COMPARE_MEMORY("fcoml"); break;
	case SOURCE_INT16: HOST_COMPARE_MEMORY("ficoms"); break;
	case SOURCE_INT32: HOST_COMPARE_MEMORY("ficoml"); break;
	default: break;
	}
	return status;
}

static void compare_pop(struct cpu *cpu, unsigned pops)
{
	if (cpu->fsw & X87_ES)
		return; /* an unmasked exception leaves the stack alone */
	while (pops--)
		x87_pop(cpu);
}

/* Unordered, which an empty operand counts as when masked. */
static void compare_empty(struct cpu *cpu, bool masked, unsigned pops)
{
	if (!masked)
		return;
	cpu->fsw |= X87_C0 | X87_C2 | X87_C3;
	compare_pop(cpu, pops);
}

static inline void arithmetic_memory(struct cpu *cpu, const struct insn *insn, enum source kind, unsigned bytes)
{
	enum operation operation = insn->modrm >> 3 & 7;
	x87_check_pending(cpu);
	x87_t source = {.bytes = {0}};
	source.significand = mem_read(cpu, insn->segment, insn_offset(cpu, insn), bytes);
	x87_remember(cpu, insn);
	bool carry_on, compare = operation == COM || operation == COMP;
	if (!x87_operands(cpu, 1, &carry_on)) {
		if (compare)
			compare_empty(cpu, carry_on, operation == COMP);
		else if (carry_on)
			x87_set(cpu, 0, x87_default_nan());
		return;
	}
	x87_t value = x87_get(cpu, 0);
	if (compare) {
		take_comparison(cpu, host_compare_memory(cpu, kind, &value, &source));
		compare_pop(cpu, operation == COMP);
	} else if (x87_take_flags(cpu, host_operation(cpu, operation, kind, &value, &source))) {
		x87_set(cpu, 0, value);
	}
}

static inline void x87_arithmetic_m32(struct cpu *cpu, const struct insn *insn)
{
	arithmetic_memory(cpu, insn, SOURCE_SINGLE, 4);
}
DEFINE_INSN(x87_arithmetic_m32)
static inline void x87_arithmetic_m64(struct cpu *cpu, const struct insn *insn)
{
	arithmetic_memory(cpu, insn, SOURCE_DOUBLE, 8);
}
DEFINE_INSN(x87_arithmetic_m64)
static inline void x87_arithmetic_i16(struct cpu *cpu, const struct insn *insn)
{
	arithmetic_memory(cpu, insn, SOURCE_INT16, 2);
}
DEFINE_INSN(x87_arithmetic_i16)
static inline void x87_arithmetic_i32(struct cpu *cpu, const struct insn *insn)
{
	arithmetic_memory(cpu, insn, SOURCE_INT32, 4);
}
DEFINE_INSN(x87_arithmetic_i32)

/* ST(@to) op= ST(@from), then @pops. */
static void arithmetic_registers(struct cpu *cpu, enum operation operation, unsigned to, unsigned from, bool pop)
{
	if (x87_is_empty(cpu, to) || x87_is_empty(cpu, from)) {
		if (!x87_stack_fault(cpu, false))
			return;
		x87_set(cpu, to, x87_default_nan());
	} else {
		x87_t value = x87_get(cpu, to), source = x87_get(cpu, from);
		if (!x87_take_flags(cpu, host_operation(cpu, operation, SOURCE_REGISTER, &value, &source)))
			return;
		x87_set(cpu, to, value);
	}
	if (pop)
		x87_pop(cpu);
}

/* D8: ST(0) op= ST(i). */
static inline void x87_arithmetic_st(struct cpu *cpu, const struct insn *insn)
{
	x87_begin(cpu, insn);
	arithmetic_registers(cpu, insn->modrm >> 3 & 7, 0, insn->modrm & 7, false);
}
DEFINE_INSN(x87_arithmetic_st)

/* DC and DE: ST(i) op= ST(0); the encodings of the reversed operations are swapped (SDM 2D appendix A.5). */
static inline enum operation swapped(const struct insn *insn)
{
	enum operation operation = insn->modrm >> 3 & 7;
	return operation >= SUB ? operation ^ 1 : operation;
}

static inline void x87_arithmetic_sti(struct cpu *cpu, const struct insn *insn)
{
	x87_begin(cpu, insn);
	arithmetic_registers(cpu, swapped(insn), insn->modrm & 7, 0, false);
}
DEFINE_INSN(x87_arithmetic_sti)

static inline void x87_arithmetic_pop(struct cpu *cpu, const struct insn *insn)
{
	x87_begin(cpu, insn);
	arithmetic_registers(cpu, swapped(insn), insn->modrm & 7, 0, true);
}
DEFINE_INSN(x87_arithmetic_pop)

/* ---- comparison of registers ---- */

static void compare_registers(struct cpu *cpu, const struct insn *insn, unsigned i, bool unordered, unsigned pops)
{
	x87_begin(cpu, insn);
	if (x87_is_empty(cpu, 0) || x87_is_empty(cpu, i)) {
		compare_empty(cpu, x87_stack_fault(cpu, false), pops);
		return;
	}
	x87_t a = x87_get(cpu, 0), b = x87_get(cpu, i);
	take_comparison(cpu, host_compare(cpu, unordered, &a, &b));
	compare_pop(cpu, pops);
}

#define X87_COMPARE(name, i, unordered, pops)                                              \
	static inline void name(struct cpu *cpu, const struct insn *insn)                  \
	{                                                                                  \
		compare_registers(cpu, insn, i, unordered, pops);                          \
	}                                                                                  \
	DEFINE_INSN(name)
X87_COMPARE(x87_fcom, insn->modrm & 7, false, 0)
X87_COMPARE(x87_fcomp, insn->modrm & 7, false, 1)
X87_COMPARE(x87_fcompp, 1, false, 2)
X87_COMPARE(x87_fucom, insn->modrm & 7, true, 0)
X87_COMPARE(x87_fucomp, insn->modrm & 7, true, 1)
X87_COMPARE(x87_fucompp, 1, true, 2)

/* FCOMI and others: C3, C2, C0 go to ZF, PF, CF; OF, SF, AF are cleared (SDM 2A FCOMI). */
static void compare_to_flags(struct cpu *cpu, const struct insn *insn, bool unordered, unsigned pops)
{
	unsigned i = insn->modrm & 7;
	uint16_t status = X87_C0 | X87_C2 | X87_C3;
	x87_begin(cpu, insn);
	/* OF, SF and AF also where an unmasked exception leaves the others. */
	flags_set(&cpu->lazy, flags_get(&cpu->lazy) & (RFLAGS_ZF | RFLAGS_PF | RFLAGS_CF));
	if (x87_is_empty(cpu, 0) || x87_is_empty(cpu, i)) {
		if (!x87_stack_fault(cpu, false))
			return;
	} else {
		x87_t a = x87_get(cpu, 0), b = x87_get(cpu, i);
		status = host_compare(cpu, unordered, &a, &b);
		if (!x87_take_flags(cpu, (uint16_t)(status & X87_FLAGS)))
			return;
	}
	flags_set(&cpu->lazy, (status & X87_C3 ? RFLAGS_ZF : 0) | (status & X87_C2 ? RFLAGS_PF : 0) |
				      (status & X87_C0 ? RFLAGS_CF : 0));
	compare_pop(cpu, pops);
}

static inline void x87_fcomi(struct cpu *cpu, const struct insn *insn) { compare_to_flags(cpu, insn, false, 0); }
DEFINE_INSN(x87_fcomi)
static inline void x87_fcomip(struct cpu *cpu, const struct insn *insn) { compare_to_flags(cpu, insn, false, 1); }
DEFINE_INSN(x87_fcomip)
static inline void x87_fucomi(struct cpu *cpu, const struct insn *insn) { compare_to_flags(cpu, insn, true, 0); }
DEFINE_INSN(x87_fucomi)
static inline void x87_fucomip(struct cpu *cpu, const struct insn *insn) { compare_to_flags(cpu, insn, true, 1); }
DEFINE_INSN(x87_fucomip)

static inline void x87_ftst(struct cpu *cpu, const struct insn *insn)
{
	bool carry_on;
	x87_begin(cpu, insn);
	if (!x87_operands(cpu, 1, &carry_on)) {
		compare_empty(cpu, carry_on, 0);
		return;
	}
	x87_t a = x87_get(cpu, 0), zero = {.bytes = {0}};
	take_comparison(cpu, host_compare(cpu, false, &a, &zero));
}
DEFINE_INSN(x87_ftst)

/* FXAM: class in C3, C2, C0; sign in C1 (SDM 2A FXAM, table 3-42). */
static inline void x87_fxam(struct cpu *cpu, const struct insn *insn)
{
	x87_begin(cpu, insn);
	x87_t value = x87_get(cpu, 0);
	unsigned exponent = value.sign_exponent & 0x7fff, codes;
	bool integer = value.significand >> 63;
	if (x87_is_empty(cpu, 0))
		codes = X87_C3 | X87_C0;
	else if (!exponent)
		codes = value.significand ? X87_C3 | X87_C2 : X87_C3;
	else if (!integer)
		codes = 0;
	else if (exponent == 0x7fff)
		codes = value.significand << 1 ? X87_C0 : X87_C2 | X87_C0;
	else
		codes = X87_C2;
	cpu->fsw = (uint16_t)((cpu->fsw & ~X87_CC) | codes | (value.sign_exponent >> 15 ? X87_C1 : 0));
}
DEFINE_INSN(x87_fxam)

/* ---- one operand, exactly defined ---- */

static inline void x87_fchs(struct cpu *cpu, const struct insn *insn)
{
	bool carry_on;
	x87_begin(cpu, insn);
	x87_t value = x87_default_nan();
	if (x87_operands(cpu, 1, &carry_on)) {
		value = x87_get(cpu, 0);
		value.sign_exponent ^= 0x8000;
		cpu->fsw &= (uint16_t)~X87_C1;
	}
	if (carry_on)
		x87_set(cpu, 0, value);
}
DEFINE_INSN(x87_fchs)

static inline void x87_fabs(struct cpu *cpu, const struct insn *insn)
{
	bool carry_on;
	x87_begin(cpu, insn);
	x87_t value = x87_default_nan();
	if (x87_operands(cpu, 1, &carry_on)) {
		value = x87_get(cpu, 0);
		value.sign_exponent &= 0x7fff;
		cpu->fsw &= (uint16_t)~X87_C1;
	}
	if (carry_on)
		x87_set(cpu, 0, value);
}
DEFINE_INSN(x87_fabs)

#define HOST_UNARY(name)                                                                                     \
	static uint16_t host_##name(struct cpu *cpu, x87_t *value)                                           \
	{                                                                                                    \
		uint16_t status;                                                                             \
		X87_HOST(cpu, status, "fldt %[value]\n\t", #name, "fstpt %[value]", ([value] "+m"(*value)),  \
			 ([unused] "m"(*value)));                                                            \
		return status;                                                                               \
	}
#define X87_UNARY(name)                                                                                      \
	HOST_UNARY(name)                                                                                     \
	static inline void x87_##name(struct cpu *cpu, const struct insn *insn)                              \
	{                                                                                                    \
		bool carry_on;                                                                               \
		x87_begin(cpu, insn);                                                                        \
		if (!x87_operands(cpu, 1, &carry_on)) {                                                      \
			if (carry_on)                                                                        \
				x87_set(cpu, 0, x87_default_nan());                                          \
			return;                                                                              \
		}                                                                                            \
		x87_t value = x87_get(cpu, 0);                                                               \
		if (x87_take_flags(cpu, host_##name(cpu, &value)))                                           \
			x87_set(cpu, 0, value);                                                              \
	}                                                                                                    \
	DEFINE_INSN(x87_##name)
X87_UNARY(fsqrt)
X87_UNARY(frndint)

/* ---- FSCALE, FPREM, FPREM1: ST(0) by ST(1), exact or once rounded ---- */

/*
 * FPREM's condition codes: C2 incomplete, C0 C3 C1 the quotient's low bits; FSCALE has none. The host's begin
 * as ours, because not each of them changes each time.
 */
static inline void take_quotient(struct cpu *cpu, const struct insn *insn, uint16_t status)
{
	if (insn->modrm != 0xfd)
		cpu->fsw = (uint16_t)((cpu->fsw & ~X87_CC) | (status & X87_CC));
}

/* Where the operation does not take place, C0 and C3 stay and C1 is the stack's affair. */
static inline void take_no_quotient(struct cpu *cpu, const struct insn *insn)
{
	if (insn->modrm != 0xfd)
		cpu->fsw &= (uint16_t)~X87_C2;
}

/* An FLDENV image (SDM 1 figure 8-9): the guest's control word and condition codes, an empty stack. */
struct environment {
	uint32_t control, status, tags, pointers[4];
};
static struct environment environment_of(const struct cpu *cpu)
{
	return (struct environment){.control = cpu->fcw, .status = cpu->fsw & X87_CC, .tags = 0xffff};
}

#define X87_BY_ST1(name)                                                                                     \
	static uint16_t host_##name(struct cpu *cpu, x87_t *value, const x87_t *by)                          \
	{                                                                                                    \
		uint16_t status;                                                                             \
		struct environment start = environment_of(cpu);                                              \
		X87_HOST(cpu, status, "fldenv %[start]\n\tfldt %[by]\n\tfldt %[value]\n\t", #name,            \
			 "fstpt %[value]\n\tfstp %%st(0)", ([value] "+m"(*value)),                           \
			 ([by] "m"(*by), [start] "m"(start)));                                               \
		return status;                                                                               \
	}                                                                                                    \
	static inline void x87_##name(struct cpu *cpu, const struct insn *insn)                              \
	{                                                                                                    \
		bool carry_on;                                                                               \
		x87_begin(cpu, insn);                                                                        \
		if (!x87_operands(cpu, 2, &carry_on)) {                                                      \
			if (carry_on)                                                                        \
				x87_set(cpu, 0, x87_default_nan());                                          \
			take_no_quotient(cpu, insn);                                                         \
			return;                                                                              \
		}                                                                                            \
		x87_t value = x87_get(cpu, 0), by = x87_get(cpu, 1);                                         \
		uint16_t status = host_##name(cpu, &value, &by);                                             \
		if (!x87_take_flags(cpu, status)) {                                                          \
			take_no_quotient(cpu, insn);                                                         \
			return;                                                                              \
		}                                                                                            \
		x87_set(cpu, 0, value);                                                                      \
		take_quotient(cpu, insn, status);                                                            \
	}                                                                                                    \
	DEFINE_INSN(x87_##name)

X87_BY_ST1(fscale)
X87_BY_ST1(fprem)
X87_BY_ST1(fprem1)

/* FXTRACT: the exponent replaces ST(0), then the significand is pushed (SDM 2A FXTRACT). */
static uint16_t host_fxtract(struct cpu *cpu, x87_t *value, x87_t *significand)
{
	uint16_t status;
	X87_HOST(cpu, status, "fldt %[value]\n\t", "fxtract", "fstpt %[significand]\n\tfstpt %[value]",
		 ([value] "+m"(*value), [significand] "=m"(*significand)), ([unused] "m"(*value)));
	return status;
}

static inline void x87_fxtract(struct cpu *cpu, const struct insn *insn)
{
	x87_begin(cpu, insn);
	x87_t value = x87_get(cpu, 0), significand = x87_default_nan();
	bool empty = x87_is_empty(cpu, 0);
	if (empty || !x87_is_empty(cpu, 7)) {
		if (!x87_stack_fault(cpu, !empty))
			return;
		value = significand;
	} else if (!x87_take_flags(cpu, host_fxtract(cpu, &value, &significand))) {
		return;
	}
	x87_set(cpu, 0, value);
	x87_set_top(cpu, x87_top(cpu) - 1);
	x87_set(cpu, 0, significand);
}
DEFINE_INSN(x87_fxtract)
