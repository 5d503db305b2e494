/* insn/sha.c: rounds and message schedules of SHA-1 and SHA-256 (SDM 2B SHA1MSG1 to SHA256RNDS2). Words count
 * from the highest. */
#include "cpu/simd.h"

static inline uint32_t rotate_left(uint32_t value, unsigned count)
{
	return value << count | value >> (32 - count);
}
static inline uint32_t rotate_right(uint32_t value, unsigned count)
{
	return value >> count | value << (32 - count);
}

/* The SDM wants memory to be aligned (exception class 4); AMD's processors do not check it. */
static inline xmm_t sha_source(struct cpu *cpu, const struct insn *insn)
{
	xmm_t value;
	if (!insn_is_memory(insn) || cpu->profile->vendor != VENDOR_AMD)
		return xmm_source(cpu, insn, 16);
	mem_read_bytes(cpu, insn->segment, insn_offset(cpu, insn), &value, 16, 1);
	return value;
}

/* From @value, the first operand, and the second. */
#define SHA(name, statement)                                                                                 \
	static inline void sse_##name(struct cpu *cpu, const struct insn *insn)                              \
	{                                                                                                    \
		xmm_t source = sha_source(cpu, insn), value = xmm_get(cpu, insn->reg);                       \
		xmm_set(cpu, insn->reg, statement);                                                          \
	}                                                                                                    \
	DEFINE_INSN(sse_##name)

/* ---- SHA-1 ---- */

static inline xmm_t sha1_next_e(xmm_t value, xmm_t source)
{
	source.u32[3] += rotate_left(value.u32[3], 30);
	return source;
}
SHA(sha1nexte, sha1_next_e(value, source))

static inline xmm_t sha1_message1(xmm_t value, xmm_t source)
{
	return (xmm_t){.u32 = {value.u32[0] ^ source.u32[2], value.u32[1] ^ source.u32[3],
			       value.u32[2] ^ value.u32[0], value.u32[3] ^ value.u32[1]}};
}
SHA(sha1msg1, sha1_message1(value, source))

static inline xmm_t sha1_message2(xmm_t value, xmm_t source)
{
	xmm_t result;
	for (unsigned i = 3; i > 0; i--)
		result.u32[i] = rotate_left(value.u32[i] ^ source.u32[i - 1], 1);
	result.u32[0] = rotate_left(value.u32[0] ^ result.u32[3], 1);
	return result;
}
SHA(sha1msg2, sha1_message2(value, source))

static inline uint32_t sha1_function(unsigned which, uint32_t b, uint32_t c, uint32_t d)
{
	switch (which) {
	case 0: return (b & c) ^ (~b & d);
	case 2: return (b & c) ^ (b & d) ^ (c & d);
	default: return b ^ c ^ d;
	}
}

/* The word of the first round has the state's E in it already. */
static inline xmm_t sha1_rounds(xmm_t state, xmm_t words, unsigned which)
{
	static const uint32_t constants[4] = {0x5a827999, 0x6ed9eba1, 0x8f1bbcdc, 0xca62c1d6};
	uint32_t a = state.u32[3], b = state.u32[2], c = state.u32[1], d = state.u32[0], e = 0;
	for (unsigned i = 4; i-- > 0;) {
		uint32_t next = sha1_function(which, b, c, d) + rotate_left(a, 5) + words.u32[i] + e +
				constants[which];
		e = d;
		d = c;
		c = rotate_left(b, 30);
		b = a;
		a = next;
	}
	return (xmm_t){.u32 = {d, c, b, a}};
}
SHA(sha1rnds4, sha1_rounds(value, source, insn->imm & 3))

/* ---- SHA-256 (FIPS 180-4, section 4.1.2) ---- */

static inline uint32_t small_sigma0(uint32_t x) { return rotate_right(x, 7) ^ rotate_right(x, 18) ^ x >> 3; }
static inline uint32_t small_sigma1(uint32_t x)
{
	return rotate_right(x, 17) ^ rotate_right(x, 19) ^ x >> 10;
}
static inline uint32_t big_sigma0(uint32_t x)
{
	return rotate_right(x, 2) ^ rotate_right(x, 13) ^ rotate_right(x, 22);
}
static inline uint32_t big_sigma1(uint32_t x)
{
	return rotate_right(x, 6) ^ rotate_right(x, 11) ^ rotate_right(x, 25);
}

static inline xmm_t sha256_message1(xmm_t value, xmm_t source)
{
	xmm_t result;
	for (unsigned i = 0; i < 4; i++)
		result.u32[i] = value.u32[i] + small_sigma0(i < 3 ? value.u32[i + 1] : source.u32[0]);
	return result;
}
SHA(sha256msg1, sha256_message1(value, source))

static inline xmm_t sha256_message2(xmm_t value, xmm_t source)
{
	xmm_t result;
	for (unsigned i = 0; i < 4; i++)
		result.u32[i] = value.u32[i] + small_sigma1(i < 2 ? source.u32[i + 2] : result.u32[i - 2]);
	return result;
}
SHA(sha256msg2, sha256_message2(value, source))

/* Two rounds: the first operand has C, D, G and H, the second A, B, E and F, XMM0 two words with their
 * constants added. */
static inline xmm_t sha256_rounds(xmm_t cdgh, xmm_t abef, xmm_t words)
{
	uint32_t a = abef.u32[3], b = abef.u32[2], c = cdgh.u32[3], d = cdgh.u32[2];
	uint32_t e = abef.u32[1], f = abef.u32[0], g = cdgh.u32[1], h = cdgh.u32[0];
	for (unsigned i = 0; i < 2; i++) {
		uint32_t t1 = h + big_sigma1(e) + ((e & f) ^ (~e & g)) + words.u32[i];
		uint32_t t2 = big_sigma0(a) + ((a & b) ^ (a & c) ^ (b & c));
		h = g;
		g = f;
		f = e;
		e = d + t1;
		d = c;
		c = b;
		b = a;
		a = t1 + t2;
	}
	return (xmm_t){.u32 = {f, e, b, a}};
}
SHA(sha256rnds2, sha256_rounds(value, source, xmm_get(cpu, 0)))
