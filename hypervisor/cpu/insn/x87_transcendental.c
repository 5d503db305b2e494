/*
 * insn/x87_transcendental.c: FSIN, FCOS, FSINCOS, FPTAN, FPATAN, F2XM1, FYL2X, FYL2XP1 (SDM 1 8.3.7, 8.3.10).
 *
 * The manual asks for an error of less than one unit in the last place, not for bits. So that a run is the same on
 * every host, they are computed with 113 bits by libquadmath and rounded once.
 */
#include "cpu/simd.h"
#include "cpu/x87.h"

typedef __float128 quad;
extern quad sinq(quad), cosq(quad), tanq(quad), atan2q(quad, quad), expm1q(quad), log2q(quad), log1pq(quad);

#define LN2 0.693147180559945309417232121458176568075500134360255254Q

enum { CLASS_ZERO, CLASS_NORMAL, CLASS_DENORMAL, CLASS_INFINITY, CLASS_QNAN, CLASS_SNAN, CLASS_UNSUPPORTED };

static unsigned class_of(x87_t value)
{
	unsigned exponent = value.sign_exponent & 0x7fff;
	bool integer = value.significand >> 63;
	if (!exponent)
		return value.significand ? CLASS_DENORMAL : CLASS_ZERO;
	if (!integer)
		return CLASS_UNSUPPORTED;
	if (exponent < 0x7fff)
		return CLASS_NORMAL;
	if (!(value.significand << 1))
		return CLASS_INFINITY;
	return value.significand >> 62 & 1 ? CLASS_QNAN : CLASS_SNAN;
}

static bool is_negative(x87_t value) { return value.sign_exponent >> 15; }
static bool is_nan(x87_t value) { return class_of(value) == CLASS_QNAN || class_of(value) == CLASS_SNAN; }

/* The NaN that an operation with at least one of these gives: quiet, the larger significand (SDM 1 table 4-7). */
static x87_t propagate(x87_t a, x87_t b)
{
	x87_t result = !is_nan(b) || (is_nan(a) && a.significand >= b.significand) ? a : b;
	result.significand |= 1ull << 62;
	return result;
}

/* What an operation comes to: its result and its flags. */
struct outcome {
	x87_t value;
	uint16_t flags;
};

static struct outcome invalid(void) { return (struct outcome){x87_default_nan(), X87_IE}; }
static struct outcome infinity(bool negative, uint16_t flags)
{
	struct outcome result = {.flags = flags};
	result.value.significand = 1ull << 63;
	result.value.sign_exponent = negative ? 0xffff : 0x7fff;
	return result;
}

/* A pseudo-denormal is the number that the exponent 1 would give (SDM 1 8.2.2); the library knows none. */
static quad number(x87_t value)
{
	if (!(value.sign_exponent & 0x7fff) && value.significand >> 63)
		value.sign_exponent |= 1;
	return (quad)value.value;
}

/* Rounds @exact to 64 bits of significand, to nearest; transcendental results are inexact unless they are trivial. */
static struct outcome rounded(quad exact, uint16_t flags)
{
	struct outcome result = {.flags = flags};
	__builtin_memset(&result.value, 0, sizeof result.value);
	result.value.value = (long double)exact;
	if ((quad)result.value.value != exact)
		result.flags |= X87_PE;
	if (class_of(result.value) == CLASS_DENORMAL)
		result.flags |= X87_UE;
	if (class_of(result.value) == CLASS_INFINITY)
		result.flags |= X87_OE | X87_PE;
	return result;
}

/* Operands that need no arithmetic: unsupported and signalling ones are invalid, quiet NaNs go through. */
static bool special(x87_t a, x87_t b, struct outcome *result)
{
	unsigned x = class_of(a), y = class_of(b);
	if (x == CLASS_UNSUPPORTED || y == CLASS_UNSUPPORTED) {
		*result = invalid();
		return true;
	}
	if (is_nan(a) || is_nan(b)) {
		*result = (struct outcome){propagate(a, b), x == CLASS_SNAN || y == CLASS_SNAN ? X87_IE : 0};
		return true;
	}
	return false;
}

static uint16_t denormal(x87_t a, x87_t b)
{
	return class_of(a) == CLASS_DENORMAL || class_of(b) == CLASS_DENORMAL ? X87_DE : 0;
}

/* ---- ST(0) alone ---- */

static bool out_of_range(x87_t value) { return class_of(value) == CLASS_NORMAL && (value.sign_exponent & 0x7fff) >= 0x3fff + 63; }

static struct outcome trigonometric(x87_t x, quad (*function)(quad))
{
	struct outcome result;
	if (special(x, x, &result))
		return result;
	if (class_of(x) == CLASS_INFINITY)
		return invalid();
	if (class_of(x) == CLASS_ZERO && function != cosq)
		return (struct outcome){x, 0};
	result = rounded(function(number(x)), denormal(x, x));
	return result;
}

static struct outcome two_to_x_minus_1(x87_t x)
{
	struct outcome result;
	if (special(x, x, &result))
		return result;
	if (class_of(x) == CLASS_ZERO)
		return (struct outcome){x, 0};
	if (class_of(x) == CLASS_INFINITY) {
		if (!is_negative(x))
			return infinity(false, 0);
		x.value = -1.0L;
		return (struct outcome){x, 0};
	}
	return rounded(expm1q(number(x) * LN2), denormal(x, x));
}

/* ---- ST(1) and ST(0) ---- */

/* y * log2(x) (SDM 2A FYL2X, table 3-62). */
static struct outcome y_log2_x(x87_t y, x87_t x)
{
	struct outcome result;
	if (special(x, y, &result))
		return result;
	unsigned cx = class_of(x), cy = class_of(y);
	if (cx == CLASS_ZERO) {
		if (cy == CLASS_ZERO)
			return invalid();
		return infinity(!is_negative(y), cy == CLASS_INFINITY ? 0 : X87_ZE);
	}
	if (is_negative(x))
		return invalid();
	if (cx == CLASS_INFINITY)
		return cy == CLASS_ZERO ? invalid() : infinity(is_negative(y), 0);
	if (cy == CLASS_INFINITY)
		return x.value == 1.0L ? invalid() : infinity(is_negative(y) != (x.value < 1.0L), 0);
	return rounded(number(y) * log2q(number(x)), denormal(x, y));
}

/* y * log2(x + 1), for small x (SDM 2A FYL2XP1). */
static struct outcome y_log2_x_plus_1(x87_t y, x87_t x)
{
	struct outcome result;
	if (special(x, y, &result))
		return result;
	unsigned cx = class_of(x), cy = class_of(y);
	if (cx == CLASS_INFINITY && !is_negative(x))
		return cy == CLASS_ZERO ? invalid() : infinity(is_negative(y), 0);
	if (cx == CLASS_INFINITY || x.value <= -1.0L)
		return invalid();
	if (cy == CLASS_INFINITY)
		return cx == CLASS_ZERO ? invalid() : infinity(is_negative(y) != is_negative(x), 0);
	return rounded(number(y) * (log1pq(number(x)) / LN2), denormal(x, y));
}

static struct outcome arctangent(x87_t y, x87_t x)
{
	struct outcome result;
	if (special(x, y, &result))
		return result;
	result = rounded(atan2q(number(y), number(x)), denormal(x, y));
	if (class_of(y) == CLASS_ZERO && !is_negative(x))
		result.flags = 0;
	return result;
}

/* ---- the instructions ---- */

/* The library computes under the host's own MXCSR. */
#define COMPUTE(cpu, result, expression)     \
	do {                                 \
		mxcsr_unload(cpu);           \
		(result) = (expression);     \
		mxcsr_load(cpu);             \
	} while (0)

/* An unmasked exception of the operands ends the operation before its result could raise one (SDM 1 8.7). */
static uint16_t met(const struct cpu *cpu, unsigned flags)
{
	unsigned before = X87_IE | X87_DE | X87_ZE;

	return (uint16_t)(flags & ~(unsigned)cpu->fcw & before ? flags & before : flags);
}

static inline void unary(struct cpu *cpu, const struct insn *insn, struct outcome (*function)(x87_t))
{
	bool carry_on;
	struct outcome result;
	x87_begin(cpu, insn);
	if (!x87_operands(cpu, 1, &carry_on)) {
		if (carry_on)
			x87_set(cpu, 0, x87_default_nan());
		return;
	}
	COMPUTE(cpu, result, function(x87_get(cpu, 0)));
	if (x87_take_flags(cpu, met(cpu, result.flags)))
		x87_set(cpu, 0, result.value);
}

/* ST(1) becomes the result, and the stack is popped. */
static inline void binary(struct cpu *cpu, const struct insn *insn, struct outcome (*function)(x87_t, x87_t))
{
	bool carry_on;
	struct outcome result = {x87_default_nan(), 0};
	x87_begin(cpu, insn);
	if (x87_operands(cpu, 2, &carry_on)) {
		COMPUTE(cpu, result, function(x87_get(cpu, 1), x87_get(cpu, 0)));
		carry_on = x87_take_flags(cpu, met(cpu, result.flags));
	}
	if (!carry_on)
		return;
	x87_set(cpu, 1, result.value);
	x87_pop(cpu);
}

static struct outcome sine(x87_t x) { return trigonometric(x, sinq); }
static struct outcome cosine(x87_t x) { return trigonometric(x, cosq); }
static struct outcome tangent(x87_t x) { return trigonometric(x, tanq); }

/* An operand of 2^63 or more is left alone, with C2 = 1 (SDM 1 8.3.8). */
static bool refuse(struct cpu *cpu, const struct insn *insn)
{
	if (x87_is_empty(cpu, 0) || !out_of_range(x87_get(cpu, 0))) {
		cpu->fsw &= (uint16_t)~X87_C2;
		return false;
	}
	x87_begin(cpu, insn);
	cpu->fsw |= X87_C2;
	return true;
}

static inline void x87_fsin(struct cpu *cpu, const struct insn *insn)
{
	x87_check_pending(cpu);
	if (!refuse(cpu, insn))
		unary(cpu, insn, sine);
}
DEFINE_INSN(x87_fsin)

static inline void x87_fcos(struct cpu *cpu, const struct insn *insn)
{
	x87_check_pending(cpu);
	if (!refuse(cpu, insn))
		unary(cpu, insn, cosine);
}
DEFINE_INSN(x87_fcos)

/* ST(0) becomes @first, then @second is pushed. A stack fault comes before any look at the operand, its range too. */
static void replace_and_push(struct cpu *cpu, const struct insn *insn, struct outcome (*first)(x87_t),
			     struct outcome (*second)(x87_t))
{
	struct outcome a = {x87_default_nan(), 0}, b = a;
	x87_begin(cpu, insn);
	bool empty = x87_is_empty(cpu, 0);
	if (empty || !x87_is_empty(cpu, 7)) {
		cpu->fsw &= (uint16_t)~X87_C2;
		if (!x87_stack_fault(cpu, !empty))
			return;
	} else {
		x87_t x = x87_get(cpu, 0);
		COMPUTE(cpu, a, first(x));
		COMPUTE(cpu, b, second(x));
		if (!x87_take_flags(cpu, met(cpu, a.flags | b.flags)))
			return;
	}
	x87_set(cpu, 0, a.value);
	x87_set_top(cpu, x87_top(cpu) - 1);
	x87_set(cpu, 0, b.value);
}

static inline void x87_fsincos(struct cpu *cpu, const struct insn *insn)
{
	x87_check_pending(cpu);
	if (!x87_is_empty(cpu, 7) || !refuse(cpu, insn))
		replace_and_push(cpu, insn, sine, cosine);
}
DEFINE_INSN(x87_fsincos)

static struct outcome one(x87_t x)
{
	struct outcome result = {.flags = 0};
	if (special(x, x, &result))
		return result;
	if (class_of(x) == CLASS_INFINITY)
		return invalid();
	__builtin_memset(&result.value, 0, sizeof result.value);
	result.value.value = 1.0L;
	return result;
}

static inline void x87_fptan(struct cpu *cpu, const struct insn *insn)
{
	x87_check_pending(cpu);
	if (!x87_is_empty(cpu, 7) || !refuse(cpu, insn))
		replace_and_push(cpu, insn, tangent, one);
}
DEFINE_INSN(x87_fptan)

static inline void x87_f2xm1(struct cpu *cpu, const struct insn *insn) { unary(cpu, insn, two_to_x_minus_1); }
DEFINE_INSN(x87_f2xm1)
static inline void x87_fpatan(struct cpu *cpu, const struct insn *insn) { binary(cpu, insn, arctangent); }
DEFINE_INSN(x87_fpatan)
static inline void x87_fyl2x(struct cpu *cpu, const struct insn *insn) { binary(cpu, insn, y_log2_x); }
DEFINE_INSN(x87_fyl2x)
static inline void x87_fyl2xp1(struct cpu *cpu, const struct insn *insn) { binary(cpu, insn, y_log2_x_plus_1); }
DEFINE_INSN(x87_fyl2xp1)
