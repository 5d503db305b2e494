/*
 * insn/fma.c: fused multiplication and addition, and conversions from and to half precision (SDM
 * 1 14.4, 14.5; SDM 2C VFMADD132PD to VFNMSUB231SS, VCVTPH2PS, VCVTPS2PH).
 *
 * Not every host that runs this has them, so they are own code on integers: the exact result is made, and
 * rounded once.
 */
#include "cpu/simd.h"

/* ---- numbers of a format ---- */

struct format {
	unsigned fraction; /* bits */
	int bias;
};
static const struct format half_format = {10, 15}, single_format = {23, 127}, double_format = {52, 1023};

enum kind { KIND_ZERO, KIND_FINITE, KIND_INFINITE, KIND_QUIET, KIND_SIGNALLING };

/* A finite number is significand * 2^exponent, where the significand has its highest bit at @fraction of its
 * format. */
struct number {
	enum kind kind;
	bool negative, denormal;
	int exponent;
	uint64_t significand, bits;
};

static unsigned sign_place(const struct format *format)
{
	return format->bias == 15 ? 15 : format->bias == 127 ? 31 : 63;
}
static uint64_t exponent_ones(const struct format *format) { return 2u * (unsigned)format->bias + 1; }

static struct number take_apart(uint64_t bits, const struct format *format)
{
	uint64_t fraction = bits & ((1ull << format->fraction) - 1),
		 field = bits >> format->fraction & exponent_ones(format);
	struct number n = {.negative = bits >> sign_place(format) & 1, .bits = bits};

	if (field == exponent_ones(format)) {
		n.kind = fraction == 0                            ? KIND_INFINITE
			 : fraction >> (format->fraction - 1) & 1 ? KIND_QUIET
								  : KIND_SIGNALLING;
		return n;
	}
	n.kind = field || fraction ? KIND_FINITE : KIND_ZERO;
	n.denormal = field == 0 && fraction;
	n.significand = field ? fraction | 1ull << format->fraction : fraction;
	n.exponent = (int)(field ? field : 1) - format->bias - (int)format->fraction;
	while (n.kind == KIND_FINITE && !(n.significand >> format->fraction)) {
		n.significand <<= 1;
		n.exponent--;
	}
	return n;
}

static uint64_t put_together(const struct format *format, bool negative, uint64_t exponent, uint64_t fraction)
{
	return (uint64_t)negative << sign_place(format) | exponent << format->fraction | fraction;
}
static uint64_t infinity(const struct format *format, bool negative)
{
	return put_together(format, negative, exponent_ones(format), 0);
}
static uint64_t quiet(uint64_t bits, const struct format *format)
{
	return bits | 1ull << (format->fraction - 1);
}
static uint64_t default_nan(const struct format *format) { return quiet(infinity(format, true), format); }

/* ---- 256 bits, for what is exact ---- */

typedef unsigned __int128 u128;
struct wide {
	u128 high, low;
};

/* Bits that fall out at the end leave a one in the lowest. */
static struct wide shift_right(struct wide value, unsigned count)
{
	struct wide result = {0, (value.high | value.low) != 0};
	bool lost;

	if (count == 0)
		return value;
	if (count >= 256)
		return result;
	if (count >= 128) {
		lost = value.low || (count > 128 && value.high << (256 - count));
		result = (struct wide){0, value.high >> (count - 128)};
	} else {
		lost = value.low << (128 - count);
		result = (struct wide){value.high >> count, value.low >> count | value.high << (128 - count)};
	}
	result.low |= lost;
	return result;
}

static struct wide shift_left(struct wide value, unsigned count)
{
	if (count == 0)
		return value;
	if (count >= 128)
		return (struct wide){value.low << (count - 128), 0};
	return (struct wide){value.high << count | value.low >> (128 - count), value.low << count};
}

static bool is_less(struct wide a, struct wide b)
{
	return a.high < b.high || (a.high == b.high && a.low < b.low);
}

static struct wide add(struct wide a, struct wide b)
{
	u128 low = a.low + b.low;

	return (struct wide){a.high + b.high + (low < a.low), low};
}

static struct wide subtract(struct wide a, struct wide b)
{
	return (struct wide){a.high - b.high - (a.low < b.low), a.low - b.low};
}

static int highest_bit(struct wide value)
{
	const uint64_t words[4] = {(uint64_t)value.low, (uint64_t)(value.low >> 64), (uint64_t)value.high,
				   (uint64_t)(value.high >> 64)};

	for (int i = 3; i >= 0; i--)
		if (words[i])
			return 64 * i + 63 - __builtin_clzll(words[i]);
	return -1;
}

/* ---- rounding ---- */

enum rounding { TO_NEAREST, DOWN, UP, TO_ZERO };

struct context {
	enum rounding rounding;
	bool zero_denormals, flush, underflow_unmasked;
	uint32_t flags; /* of MXCSR, that the operation raises */
};

static struct context context_of(const struct cpu *cpu)
{
	bool unmasked = !(cpu->mxcsr & (MXCSR_UE << 7));

	return (struct context){.rounding = cpu->mxcsr >> 13 & 3,
				.zero_denormals = cpu->mxcsr & MXCSR_DAZ,
				.flush = (cpu->mxcsr & MXCSR_FZ) && !unmasked,
				.underflow_unmasked = unmasked};
}

/* The highest @bits of a value whose highest bit is 255, rounded: up to 2^bits itself. */
static uint64_t round_to(struct wide value, unsigned bits, bool negative, enum rounding rounding,
			 bool *inexact)
{
	struct wide kept = shift_right(value, 254 - bits); /* one bit more, and whether any is lost */
	uint64_t result = (uint64_t)(kept.low >> 2);
	unsigned rest = (unsigned)kept.low & 3;
	bool up = false;

	*inexact = rest != 0;
	switch (rounding) {
	case TO_NEAREST: up = rest == 3 || (rest == 2 && (result & 1)); break;
	case DOWN: up = negative && rest; break;
	case UP: up = !negative && rest; break;
	case TO_ZERO: break;
	}
	return result + up;
}

static uint64_t overflow(struct context *context, const struct format *format, bool negative)
{
	bool largest = context->rounding == TO_ZERO || (context->rounding == DOWN && !negative) ||
		       (context->rounding == UP && negative);

	context->flags |= MXCSR_OE | MXCSR_PE;
	return infinity(format, negative) - largest;
}

/*
 * @value * 2^@exponent, which is not 0, in @format. Tiny is what would be below the normal numbers after
 * rounding, had the exponent no limit (SDM 1 4.9.1.5); masked, it underflows where the result is inexact as
 * well.
 */
static uint64_t round_number(struct context *context, const struct format *format, bool negative,
			     struct wide value, int exponent)
{
	int top = highest_bit(value), power = top + exponent, lowest = 1 - format->bias;
	bool inexact, inexact_there;
	uint64_t rounded;

	value = shift_left(value, (unsigned)(255 - top));
	rounded = round_to(value, format->fraction + 1, negative, context->rounding, &inexact);
	if (rounded >> (format->fraction + 1)) {
		rounded >>= 1;
		power++;
	}
	if (power < lowest) {
		unsigned lost = (unsigned)(lowest - (top + exponent));

		if (context->flush) {
			context->flags |= MXCSR_UE | MXCSR_PE;
			return put_together(format, negative, 0, 0);
		}
		if (lost > format->fraction + 3)
			lost = format->fraction + 3; /* nothing but a rest is left in any case */
		value = shift_right(value, lost);
		rounded = round_to(value, format->fraction + 1, negative, context->rounding, &inexact_there);
		if (inexact_there || context->underflow_unmasked)
			context->flags |= MXCSR_UE;
		context->flags |= inexact_there ? MXCSR_PE : 0;
		/* A fraction that became the lowest normal number carries into the exponent. */
		return put_together(format, negative, 0, 0) + rounded;
	}
	if (top + exponent < lowest) {
		/* Rounded with an exponent without limit, it is the lowest normal number: so it is with one.
		 */
		rounded = round_to(shift_right(value, (unsigned)(lowest - (top + exponent))),
				   format->fraction + 1, negative, context->rounding, &inexact);
		context->flags |= inexact ? MXCSR_PE : 0;
		return put_together(format, negative, 0, 0) + rounded;
	}
	if (power > format->bias)
		return overflow(context, format, negative);
	context->flags |= inexact ? MXCSR_PE : 0;
	return put_together(format, negative, (uint64_t)(power + format->bias),
			    rounded - (1ull << format->fraction));
}

/* ---- x * y + z ---- */

static bool is_nan(const struct number *n) { return n->kind >= KIND_QUIET; }

/* The first NaN of x, y and z is the result (SDM 1 table 14-17). */
static bool nan_result(struct context *context, const struct format *format, const struct number *x,
		       const struct number *y, const struct number *z, uint64_t *result)
{
	if (x->kind == KIND_SIGNALLING || y->kind == KIND_SIGNALLING || z->kind == KIND_SIGNALLING)
		context->flags |= MXCSR_IE;
	if (!is_nan(x) && !is_nan(y) && !is_nan(z))
		return false;
	*result = quiet((is_nan(x) ? x : is_nan(y) ? y : z)->bits, format);
	return true;
}

static uint64_t invalid(struct context *context, const struct format *format)
{
	context->flags |= MXCSR_IE;
	return default_nan(format);
}

static uint64_t infinite_result(struct context *context, const struct format *format, const struct number *x,
				const struct number *y, const struct number *z)
{
	bool negative = x->negative != y->negative;
	bool product = x->kind == KIND_INFINITE || y->kind == KIND_INFINITE;

	if (product && (x->kind == KIND_ZERO || y->kind == KIND_ZERO))
		return invalid(context, format);
	if (product && z->kind == KIND_INFINITE && negative != z->negative)
		return invalid(context, format);
	return infinity(format, product ? negative : z->negative);
}

/* Both are at least as far apart as shown here where one of them is no more than a rest of the other. */
#define FAR 128

static uint64_t finite_result(struct context *context, const struct format *format, const struct number *x,
			      const struct number *y, const struct number *z)
{
	bool negative = x->negative != y->negative, zero = x->kind == KIND_ZERO || y->kind == KIND_ZERO;
	struct wide product = {0, (u128)x->significand * y->significand}, addend = {0, z->significand};
	int exponent = x->exponent + y->exponent, apart = z->exponent - exponent;

	if (zero && z->kind == KIND_ZERO) {
		bool sign = negative == z->negative ? negative : context->rounding == DOWN;

		return put_together(format, sign, 0, 0);
	}
	if (zero)
		return round_number(context, format, z->negative, addend, z->exponent);
	if (z->kind == KIND_ZERO)
		return round_number(context, format, negative, product, exponent);
	/* The product's lowest bit is at 64. */
	product = shift_left(product, 64);
	if (apart > FAR) {
		product = (struct wide){0, 1};
		exponent = z->exponent - FAR;
		apart = FAR;
	}
	addend = apart < -64 ? shift_right(addend, (unsigned)(-64 - apart))
			     : shift_left(addend, (unsigned)(64 + apart));
	if (negative == z->negative)
		return round_number(context, format, negative, add(product, addend), exponent - 64);
	if (is_less(product, addend))
		return round_number(context, format, z->negative, subtract(addend, product), exponent - 64);
	product = subtract(product, addend);
	if (!(product.high | product.low))
		return put_together(format, context->rounding == DOWN, 0, 0);
	return round_number(context, format, negative, product, exponent - 64);
}

static void without_denormal(struct context *context, struct number *n)
{
	if (n->denormal && context->zero_denormals) {
		n->kind = KIND_ZERO;
		n->denormal = false;
	}
}

static uint64_t multiply_add(struct context *context, const struct format *format, uint64_t x_bits,
			     uint64_t y_bits, uint64_t z_bits, bool negate_product, bool negate_addend)
{
	struct number x = take_apart(x_bits, format), y = take_apart(y_bits, format),
		      z = take_apart(z_bits, format);
	uint64_t result;

	without_denormal(context, &x);
	without_denormal(context, &y);
	without_denormal(context, &z);
	if (nan_result(context, format, &x, &y, &z, &result))
		return result;
	x.negative ^= negate_product;
	z.negative ^= negate_addend;
	if (x.kind == KIND_INFINITE || y.kind == KIND_INFINITE || z.kind == KIND_INFINITE)
		result = infinite_result(context, format, &x, &y, &z);
	else
		result = finite_result(context, format, &x, &y, &z);
	/* An operand that is found invalid comes first. */
	if (!(context->flags & MXCSR_IE) && (x.denormal || y.denormal || z.denormal))
		context->flags |= MXCSR_DE;
	return result;
}

/* ---- the instructions ---- */

enum order { ORDER_132, ORDER_213, ORDER_231 };
enum operation { FMADD, FMSUB, FNMADD, FNMSUB, FMADDSUB, FMSUBADD };

static uint64_t element(const void *from, unsigned index, unsigned bytes)
{
	uint64_t value = 0;

	memcpy(&value, (const uint8_t *)from + index * bytes, bytes);
	return value;
}

/* MADDSUB subtracts in even elements, MSUBADD in odd ones. */
static bool subtracts(enum operation operation, unsigned index)
{
	switch (operation) {
	case FMSUB:
	case FNMSUB: return true;
	case FMADDSUB: return index % 2 == 0;
	case FMSUBADD: return index % 2 != 0;
	default: return false;
	}
}

/* @first is the destination before the instruction. Each element raises its own flags. */
static ymm_t fused(struct cpu *cpu, ymm_t first, const ymm_t *second, const ymm_t *third, enum order order,
		   enum operation operation, unsigned bytes, unsigned count)
{
	const struct format *format = bytes == 4 ? &single_format : &double_format;
	const struct context begun = context_of(cpu);
	bool negated = operation == FNMADD || operation == FNMSUB;
	uint32_t flags = 0;

	for (unsigned i = 0; i < count; i++) {
		uint64_t a = element(&first, i, bytes), b = element(second, i, bytes),
			 c = element(third, i, bytes), result;
		bool minus = subtracts(operation, i);
		struct context context = begun;

		if (order == ORDER_132)
			result = multiply_add(&context, format, a, c, b, negated, minus);
		else if (order == ORDER_213)
			result = multiply_add(&context, format, b, a, c, negated, minus);
		else
			result = multiply_add(&context, format, b, c, a, negated, minus);
		memcpy((uint8_t *)&first + i * bytes, &result, bytes);
		flags |= context.flags;
	}
	simd_note(flags);
	return first;
}

static inline void packed(struct cpu *cpu, const struct insn *insn, enum order order,
			  enum operation operation, unsigned bytes)
{
	ymm_t third = vex_source(cpu, insn), second = ymm_get(cpu, insn->vvvv),
	      value = ymm_get(cpu, insn->reg);

	SIMD_FP_ALL(cpu,
		    value = fused(cpu, value, &second, &third, order, operation, bytes,
				  insn->vector_length / bytes),
		    value.lane, 0, RESULT_OTHER);
	vex_set(cpu, insn, &value);
}

/* The rest of the destination's 128 bits stays. */
static inline void scalar(struct cpu *cpu, const struct insn *insn, enum order order,
			  enum operation operation, unsigned bytes)
{
	ymm_t third = {.lane = {xmm_source_low(cpu, insn, bytes)}}, second = ymm_get(cpu, insn->vvvv);
	ymm_t value = ymm_get(cpu, insn->reg);

	SIMD_FP_ALL(cpu, value = fused(cpu, value, &second, &third, order, operation, bytes, 1), value.lane,
		    0, RESULT_OTHER);
	vex_set_xmm(cpu, insn->reg, value.lane[0]);
}

#define FMA_INSN(name, shape, order, operation, bytes)                                                       \
	static inline void avx_##name(struct cpu *cpu, const struct insn *insn)                              \
	{                                                                                                    \
		shape(cpu, insn, order, operation, bytes);                                                   \
	}                                                                                                    \
	DEFINE_INSN(avx_##name)
#define FMA_ORDERS(name, suffix, shape, operation, bytes)                                                    \
	FMA_INSN(name##132##suffix, shape, ORDER_132, operation, bytes)                                      \
	FMA_INSN(name##213##suffix, shape, ORDER_213, operation, bytes)                                      \
	FMA_INSN(name##231##suffix, shape, ORDER_231, operation, bytes)
#define FMA_PACKED(name, operation)                                                                          \
	FMA_ORDERS(name, ps, packed, operation, 4)                                                           \
	FMA_ORDERS(name, pd, packed, operation, 8)
#define FMA_FOUR(name, operation)                                                                            \
	FMA_PACKED(name, operation)                                                                          \
	FMA_ORDERS(name, ss, scalar, operation, 4)                                                           \
	FMA_ORDERS(name, sd, scalar, operation, 8)
FMA_FOUR(fmadd, FMADD)
FMA_FOUR(fmsub, FMSUB)
FMA_FOUR(fnmadd, FNMADD)
FMA_FOUR(fnmsub, FNMSUB)
FMA_PACKED(fmaddsub, FMADDSUB)
FMA_PACKED(fmsubadd, FMSUBADD)

/* ---- half precision ---- */

/* Exact, but for signalling NaNs; neither DAZ nor the denormal-operand exception concern it. */
static uint64_t widened(struct context *context, uint64_t bits)
{
	struct number n = take_apart(bits, &half_format);

	if (n.kind == KIND_SIGNALLING)
		context->flags |= MXCSR_IE;
	if (is_nan(&n))
		return quiet(infinity(&single_format, n.negative) | (bits & 0x3ff) << 13, &single_format);
	if (n.kind == KIND_INFINITE)
		return infinity(&single_format, n.negative);
	if (n.kind == KIND_ZERO)
		return put_together(&single_format, n.negative, 0, 0);
	return round_number(context, &single_format, n.negative, (struct wide){0, n.significand}, n.exponent);
}

static inline void avx_cvtph2ps(struct cpu *cpu, const struct insn *insn)
{
	unsigned count = insn->vector_length / 4;
	ymm_t source = vex_source_bytes(cpu, insn, insn->vector_length / 2), value = {0};
	struct context context = {0};

	SIMD_FP_ALL(
		cpu,
		for (unsigned i = 0; i < count; i++) {
			uint64_t result = widened(&context, element(&source, i, 2));
			memcpy((uint8_t *)&value + 4 * i, &result, 4);
		} simd_note(context.flags),
		value.lane, 0, RESULT_OTHER);
	vex_set(cpu, insn, &value);
}
DEFINE_INSN(avx_cvtph2ps)

/* FZ does not concern it. */
static uint64_t narrowed(struct context *context, uint64_t bits)
{
	struct number n = take_apart(bits, &single_format);

	without_denormal(context, &n);
	if (n.kind == KIND_SIGNALLING)
		context->flags |= MXCSR_IE;
	if (is_nan(&n))
		return quiet(infinity(&half_format, n.negative) | (bits >> 13 & 0x3ff), &half_format);
	if (n.kind == KIND_INFINITE)
		return infinity(&half_format, n.negative);
	if (n.kind == KIND_ZERO)
		return put_together(&half_format, n.negative, 0, 0);
	context->flags |= n.denormal ? MXCSR_DE : 0;
	return round_number(context, &half_format, n.negative, (struct wide){0, n.significand}, n.exponent);
}

/* Half of the length is written, the rest of a register becomes zero. The immediate's bit 2 leaves rounding
 * to MXCSR. */
static inline void avx_cvtps2ph(struct cpu *cpu, const struct insn *insn)
{
	unsigned count = insn->vector_length / 4;
	ymm_t source = ymm_get(cpu, insn->reg);
	struct context context = context_of(cpu);
	xmm_t value = {0};

	/* A fault of the store comes first, and leaves MXCSR alone. */
	if (insn_is_memory(insn))
		mem_check_write(cpu, insn->segment, insn_offset(cpu, insn), 2 * count);
	context.flush = false;
	if (!(insn->imm & 4))
		context.rounding = insn->imm & 3;
	SIMD_FP_ALL(cpu, for (unsigned i = 0; i < count; i++) value.u16[i] =
				 (uint16_t)narrowed(&context, element(&source, i, 4));
		    simd_note(context.flags), &value, 0, RESULT_OTHER);
	if (insn_is_memory(insn))
		mem_write_bytes(cpu, insn->segment, insn_offset(cpu, insn), &value, 2 * count, 1);
	else
		vex_set_xmm(cpu, insn->rm, value);
}
DEFINE_INSN(avx_cvtps2ph)
