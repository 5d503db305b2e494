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

/* ---- the same for handlers of two halves (insn.h): false where only the slow half will do ---- */

HANDLER_INLINE bool memory_load(struct cpu *cpu, unsigned segment, uint64_t offset, unsigned width,
				enum place place, uint64_t *value)
{
	if (place == PLACE_FAST) {
		const uint8_t *host = mem_fast_read(cpu, segment, offset, width);

		if (unlikely(!host))
			return false;
		*value = host_load(host, width);
		return true;
	}
	*value = mem_read_slow(cpu, segment, offset, width);
	return true;
}

HANDLER_INLINE bool memory_store(struct cpu *cpu, unsigned segment, uint64_t offset, uint64_t value,
				 unsigned width, enum place place)
{
	if (place == PLACE_FAST) {
		uint8_t *host = mem_fast_write(cpu, segment, offset, width);

		if (unlikely(!host))
			return false;
		host_store(host, value, width);
		return true;
	}
	mem_write_slow(cpu, segment, offset, value, width);
	return true;
}

HANDLER_INLINE bool rm_load(struct cpu *cpu, const struct insn *insn, unsigned width, enum place place,
			    uint64_t *value)
{
	if (place != PLACE_REGISTER)
		return memory_load(cpu, insn->segment, insn_offset(cpu, insn), width, place, value);
	*value = reg_read(cpu, insn->rm, width);
	return true;
}

HANDLER_INLINE bool rm_store(struct cpu *cpu, const struct insn *insn, uint64_t value, unsigned width,
			     enum place place)
{
	if (place != PLACE_REGISTER)
		return memory_store(cpu, insn->segment, insn_offset(cpu, insn), value, width, place);
	reg_write(cpu, insn->rm, value, width);
	return true;
}

/* Read-modify-write; rm_update_end() follows a true answer, and nothing that faults between. */
HANDLER_INLINE bool rm_update_begin(struct cpu *cpu, const struct insn *insn, unsigned width,
				    enum place place, struct mem_modify *modify, uint64_t *value)
{
	if (place == PLACE_REGISTER) {
		*value = reg_read(cpu, insn->rm, width);
		return true;
	}
	if (place == PLACE_FAST) {
		modify->host = mem_fast_write(cpu, insn->segment, insn_offset(cpu, insn), width);
		if (unlikely(!modify->host))
			return false;
		*value = host_load(modify->host, width);
		return true;
	}
	*value = mem_modify_slow(cpu, insn->segment, insn_offset(cpu, insn), width, modify);
	return true;
}

HANDLER_INLINE void rm_update_end(struct cpu *cpu, const struct insn *insn, uint64_t value, unsigned width,
				  enum place place, const struct mem_modify *modify)
{
	if (place == PLACE_FAST)
		host_store(modify->host, value, width);
	else
		rm_modify_end(cpu, insn, value, width, place == PLACE_MEMORY, modify);
}

/* ---- conditions (SDM 1 appendix B) ---- */

/* clang-format off */
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
/* clang-format on */

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

/* ---- RSP and RIP ---- */

/* RSP with @pointer in the part that the stack's address size names. */
static inline uint64_t stack_pointer(const struct cpu *cpu, uint64_t pointer)
{
	uint64_t old = cpu->reg[RSP];

	return old ^ ((old ^ pointer) & cpu->stack_mask);
}

/* RIP behind @insn; EIP wraps at 32 bits outside 64-bit mode. */
static inline uint64_t insn_next_rip(const struct cpu *cpu, const struct insn *insn)
{
	return (cpu->reg[REG_TRACE_RIP] + insn->offset + insn->length) & cpu->linear_mask;
}

#endif
