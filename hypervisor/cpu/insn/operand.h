/*
 * operand.h: what the integer handlers share: the ModRM operand, conditions, RIP.
 *
 * @width is the operand's size in bytes and @memory whether ModRM names memory; both are
 * constants where these functions are inlined.
 */
#ifndef TRAPLINE_CPU_INSN_OPERAND_H
#define TRAPLINE_CPU_INSN_OPERAND_H

#include "cpu/insn.h"
#include "cpu/mem/mem.h"

#define HANDLER_INLINE static inline __attribute__((always_inline))

static inline uint64_t truncate(uint64_t value, unsigned width)
{
	return value << (64 - 8 * width) >> (64 - 8 * width);
}

/* ---- the ModRM operand ---- */

HANDLER_INLINE uint64_t rm_read(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory)
{
	if (!memory)
		return reg_read(cpu, insn->rm, width);
	return mem_read(cpu, insn->segment, insn_offset(cpu, insn), width);
}

HANDLER_INLINE void rm_write(struct cpu *cpu, const struct insn *insn, uint64_t value, unsigned width,
			     bool memory)
{
	if (!memory) {
		reg_write(cpu, insn->rm, value, width);
		return;
	}
	mem_write(cpu, insn->segment, insn_offset(cpu, insn), value, width);
}

/* Read-modify-write: after rm_modify_begin() nothing may fault; rm_modify_end() stores. */
HANDLER_INLINE uint64_t rm_modify_begin(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory,
					struct mem_modify *modify)
{
	if (!memory)
		return reg_read(cpu, insn->rm, width);
	return mem_modify_begin(cpu, insn->segment, insn_offset(cpu, insn), width, modify);
}

HANDLER_INLINE void rm_modify_end(struct cpu *cpu, const struct insn *insn, uint64_t value, unsigned width,
				  bool memory, const struct mem_modify *modify)
{
	if (memory)
		mem_modify_end(cpu, modify, value, width);
	else
		reg_write(cpu, insn->rm, value, width);
}

/* ---- conditions (SDM 1 appendix B) ---- */

enum condition {
	CC_O, CC_NO, CC_B, CC_NB, CC_Z, CC_NZ, CC_BE, CC_NBE,
	CC_S, CC_NS, CC_P, CC_NP, CC_L, CC_NL, CC_LE, CC_NLE
};

/* CONDITION(letters of the mnemonic in capitals, in small ones), in the order of the encoding. */
#define CONDITIONS(CONDITION)                                                               \
	CONDITION(O, o) CONDITION(NO, no) CONDITION(B, b) CONDITION(NB, nb)                 \
	CONDITION(Z, z) CONDITION(NZ, nz) CONDITION(BE, be) CONDITION(NBE, nbe)             \
	CONDITION(S, s) CONDITION(NS, ns) CONDITION(P, p) CONDITION(NP, np)                 \
	CONDITION(L, l) CONDITION(NL, nl) CONDITION(LE, le) CONDITION(NLE, nle)

HANDLER_INLINE bool condition_holds(const struct cpu *cpu, enum condition condition)
{
	const struct lazy_flags *f = &cpu->lazy;
	bool less = (f->sign ^ f->carry ^ f->carry << 1) >> 63;
	bool holds = false;

	switch (condition & ~1u) {
	case CC_O: holds = flags_of(f); break;
	case CC_B: holds = flags_cf(f); break;
	case CC_Z: holds = flags_zf(f); break;
	case CC_BE: holds = flags_cf(f) || flags_zf(f); break;
	case CC_S: holds = flags_sf(f); break;
	case CC_P: holds = flags_pf(f); break;
	case CC_L: holds = less; break;
	case CC_LE: holds = less || flags_zf(f); break;
	}
	return holds != (condition & 1);
}

/* ---- RIP ---- */

/* RIP behind @insn; EIP wraps at 32 bits outside 64-bit mode. */
static inline uint64_t insn_next_rip(const struct cpu *cpu, const struct insn *insn)
{
	return (cpu->reg[REG_TRACE_RIP] + insn->offset + insn->length) & cpu->linear_mask;
}

#endif
