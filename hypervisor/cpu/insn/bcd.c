/*
 * bcd.c: decimal adjustment (SDM 2A AAA AAD AAM AAS DAA DAS). Not in 64-bit mode.
 *
 * SF, ZF and PF describe AL throughout, also after AAA and AAS, which leave them undefined;
 * what else is undefined (OF; after AAD and AAM, CF and AF too) is cleared.
 */
#include "cpu/insn/operand.h"

/* All six flags: SF, ZF and PF from AL, CF and AF as given. */
static void flags_set_decimal(struct cpu *cpu, bool cf, bool af)
{
	flags_set_result(&cpu->lazy, *reg8(cpu, RAX * 8), 8);
	flags_set_cf_of(&cpu->lazy, cf, false);
	cpu->lazy.adjust = af ? RFLAGS_AF : 0;
}

static bool low_digit_invalid(struct cpu *cpu) { return (cpu->reg[RAX] & 0xf) > 9 || flags_af(&cpu->lazy); }

static inline void daa(struct cpu *cpu, const struct insn *insn)
{
	uint8_t al = (uint8_t)cpu->reg[RAX], old = al;
	bool cf = flags_cf(&cpu->lazy), af = low_digit_invalid(cpu);
	bool high = old > 0x99 || cf;

	(void)insn;
	al = (uint8_t)(al + (af ? 0x06 : 0) + (high ? 0x60 : 0));
	reg_write(cpu, RAX, al, 1);
	flags_set_decimal(cpu, high, af);
}
DEFINE_INSN(daa)

/* Unlike DAA, a borrow out of the low digit's adjustment stays in CF. */
static inline void das(struct cpu *cpu, const struct insn *insn)
{
	uint8_t al = (uint8_t)cpu->reg[RAX], old = al;
	bool cf = flags_cf(&cpu->lazy), af = low_digit_invalid(cpu);
	bool high = old > 0x99 || cf, borrow = af && old < 0x06;

	(void)insn;
	al = (uint8_t)(al - (af ? 0x06 : 0) - (high ? 0x60 : 0));
	reg_write(cpu, RAX, al, 1);
	flags_set_decimal(cpu, high || borrow, af);
}
DEFINE_INSN(das)

static void ascii_adjust(struct cpu *cpu, unsigned adjustment)
{
	bool adjust = low_digit_invalid(cpu);
	uint64_t ax = cpu->reg[RAX] + (adjust ? adjustment : 0);

	reg_write(cpu, RAX, ax & 0xff0f, 2);
	flags_set_decimal(cpu, adjust, adjust);
}

/* AX := AX + 106H, carries out of AL included. */
static inline void aaa(struct cpu *cpu, const struct insn *insn)
{
	(void)insn;
	ascii_adjust(cpu, 0x106);
}
DEFINE_INSN(aaa)

static inline void aas(struct cpu *cpu, const struct insn *insn)
{
	(void)insn;
	ascii_adjust(cpu, 0u - 0x106);
}
DEFINE_INSN(aas)

static inline void aam(struct cpu *cpu, const struct insn *insn)
{
	unsigned base = (uint8_t)insn->imm, al = (uint8_t)cpu->reg[RAX];

	if (base == 0)
		cpu_raise(cpu, VECTOR_DE, 0);
	reg_write(cpu, RAX, al / base << 8 | al % base, 2);
	flags_set_decimal(cpu, false, false);
}
DEFINE_INSN(aam)

static inline void aad(struct cpu *cpu, const struct insn *insn)
{
	uint64_t ax = cpu->reg[RAX], value = (ax & 0xff) + (ax >> 8 & 0xff) * (uint8_t)insn->imm;

	reg_write(cpu, RAX, value & 0xff, 2);
	flags_set_decimal(cpu, false, false);
}
DEFINE_INSN(aad)
