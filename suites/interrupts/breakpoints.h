/*
 * breakpoints.h: DR7 and DR0 to DR3 as words of the notation, and when an access meets a breakpoint.
 *
 * SDM 3B 18.2; APM 2 13.1.
 */
#ifndef TRAPLINE_SUITES_INTERRUPTS_BREAKPOINTS_H
#define TRAPLINE_SUITES_INTERRUPTS_BREAKPOINTS_H

#include "../notation.h"

enum breakpoint_type { ON_EXECUTION = 0, ON_WRITE = 1, ON_PORT = 2, ON_ACCESS = 3 };

/* LENn of a length in bytes: 8 is 10B, where 64-bit mode exists. */
static inline unsigned breakpoint_length(unsigned bytes) { return bytes == 8 ? 2 : bytes - 1; }

/* Sets breakpoint @n; @enable is DR7_L(n), DR7_G(n), both or 0. */
static inline void given_breakpoint(struct cell *x, unsigned n, enum breakpoint_type type, uint64_t address,
				    unsigned bytes, unsigned enable)
{
	given_set(x, STATE_dr0 + n, address);
	OR_IN(dr7, enable | (uint64_t)type << DR7_RW_SHIFT(n) |
			   (uint64_t)breakpoint_length(bytes) << DR7_LEN_SHIFT(n));
}

#define BREAKPOINT(n, type, address, bytes) given_breakpoint(x, (n), (type), (address), (bytes), DR7_L(n))
/* The linear address of the instruction at @offset behind the first byte. */
#define CODE_AT(offset) (CASE_STUB + (offset))

/* The trap behind the instruction that met breakpoints @hits (DR6_B(n), or-ed). */
#define TRAPS_AT(hits) (want_fault(x, VECTOR_DB, 0), EFFECT(rip, NEXT_IP), EFFECT(dr6, CASE_DR6 | (hits)))
/* The fault in front of the instruction at @offset. */
#define BREAKS_AT(offset, hits)                                                                              \
	(want_fault(x, VECTOR_DB, 0), EFFECT(rip, LOADED(rip) + (offset)), EFFECT(dr6, CASE_DR6 | (hits)))

static inline void then_nops(struct cell *x, unsigned count)
{
	while (count--)
		THEN(0x90);
}

static inline bool overlaps(uint32_t a, unsigned a_bytes, uint32_t b, unsigned b_bytes)
{
	return a < b + b_bytes && b < a + a_bytes;
}

#endif
