/*
 * flags.h: the status flags (SDM 1 3.4.3.1), computed only when something reads them.
 *
 * An ALU operation of any width leaves its result and its carries; each flag is a
 * function of these. The fields are independent, so any combination of flags can be
 * represented:
 *
 *   ZF = zero == 0            SF = bit 63 of sign        PF = parity of sign's low byte
 *   CF = bit 63 of carry      OF = bit 63 ^ bit 62 of carry     AF = bit 4 of adjust
 *
 * For an addition or subtraction of n bits, a ^ b ^ result holds in each bit the carry (or
 * borrow) into it: that is adjust. Computed in more than n bits, its bit n is the carry out,
 * and bit n - 1 the one into the top bit: shifted left by 63 - n, that is carry.
 */
#ifndef TRAPLINE_CPU_FLAGS_H
#define TRAPLINE_CPU_FLAGS_H

#include <stdbool.h>
#include <stdint.h>

#include "x86/registers.h"

struct lazy_flags {
	uint64_t zero;   /* the result, truncated to its width */
	uint64_t sign;   /* low byte of the result in 7:0, its top bit in bit 63; the others are noise */
	uint64_t carry;
	uint64_t adjust;
};

static inline bool flags_cf(const struct lazy_flags *f) { return f->carry >> 63; }
static inline bool flags_of(const struct lazy_flags *f) { return (f->carry ^ f->carry << 1) >> 63; }
static inline bool flags_zf(const struct lazy_flags *f) { return f->zero == 0; }
static inline bool flags_sf(const struct lazy_flags *f) { return f->sign >> 63; }
static inline bool flags_af(const struct lazy_flags *f) { return f->adjust >> 4 & 1; }
static inline bool flags_pf(const struct lazy_flags *f) { return !__builtin_parity((unsigned)(f->sign & 0xff)); }

/* The six flags as bits of RFLAGS. */
static inline uint64_t flags_get(const struct lazy_flags *f)
{
	return (uint64_t)flags_cf(f) * RFLAGS_CF | (uint64_t)flags_pf(f) * RFLAGS_PF |
	       (uint64_t)flags_af(f) * RFLAGS_AF | (uint64_t)flags_zf(f) * RFLAGS_ZF |
	       (uint64_t)flags_sf(f) * RFLAGS_SF | (uint64_t)flags_of(f) * RFLAGS_OF;
}

/* CF and OF, the others left alone. */
static inline void flags_set_cf_of(struct lazy_flags *f, bool cf, bool of)
{
	f->carry = (uint64_t)cf << 63 | (uint64_t)(cf ^ of) << 62;
}
static inline void flags_set_cf(struct lazy_flags *f, bool cf) { flags_set_cf_of(f, cf, flags_of(f)); }

/* All six from bits of RFLAGS. */
static inline void flags_set(struct lazy_flags *f, uint64_t rflags)
{
	f->zero = !(rflags & RFLAGS_ZF);
	f->sign = (uint64_t)!!(rflags & RFLAGS_SF) << 63 | !(rflags & RFLAGS_PF);
	f->adjust = rflags & RFLAGS_AF;
	flags_set_cf_of(f, rflags & RFLAGS_CF, rflags & RFLAGS_OF);
}

/* Sign-extends the low @bits of @value (8, 16, 32 or 64). */
static inline uint64_t sign_extend(uint64_t value, unsigned bits)
{
	return (uint64_t)((int64_t)(value << (64 - bits)) >> (64 - bits));
}

/* ZF, SF and PF of @result, which is truncated to @bits. */
static inline void flags_set_result(struct lazy_flags *f, uint64_t result, unsigned bits)
{
	f->zero = result;
	f->sign = sign_extend(result, bits);
}

/*
 * a + b + @carry_in, truncated to @bits as both operands are; sets all six.
 */
static inline uint64_t flags_add(struct lazy_flags *f, uint64_t a, uint64_t b, bool carry_in, unsigned bits)
{
	uint64_t sum = a + b + carry_in;
	uint64_t result = sum << (64 - bits) >> (64 - bits);

	f->adjust = a ^ b ^ sum;
	f->carry = bits == 64 ? (a & b) | ((a | b) & ~sum) : f->adjust << (63 - bits % 64);
	flags_set_result(f, result, bits);
	return result;
}

/* The same for a - b - @borrow_in. */
static inline uint64_t flags_sub(struct lazy_flags *f, uint64_t a, uint64_t b, bool borrow_in, unsigned bits)
{
	uint64_t difference = a - b - borrow_in;
	uint64_t result = difference << (64 - bits) >> (64 - bits);

	f->adjust = a ^ b ^ difference;
	f->carry = bits == 64 ? (~a & b) | ((~a | b) & difference) : f->adjust << (63 - bits % 64);
	flags_set_result(f, result, bits);
	return result;
}

/* All six after AND, OR, XOR, TEST: CF = OF = 0, and AF (undefined by the manual) = 0. */
static inline void flags_set_logic(struct lazy_flags *f, uint64_t result, unsigned bits)
{
	flags_set_result(f, result, bits);
	f->carry = 0;
	f->adjust = 0;
}

#endif
