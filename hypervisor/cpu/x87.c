/* x87.c: the x87 register stack, its exceptions and pointers; see x87.h. */
#include "cpu/x87.h"
#include "cpu/checks.h"
#include "cpu/decode.h"
#include "cpu/svm/svm.h"
#include "x86/msr.h"

const uint16_t x87_own_control = 0x37f;

void x87_check_pending(struct cpu *cpu)
{
	if (likely(!(cpu->fsw & X87_ES)))
		return;
	if (CHECK(X87_IGNNE, !(cpu->cr0 & CR0_NE) && cpu->msr.hwcr & HWCR_IGNNE_EM && cpu->msr.ignne & 1))
		return;
	if (!(cpu->cr0 & CR0_NE))
		svm_check_ferr(cpu);
	if (!(cpu->cr0 & CR0_NE))
		cpu_unmodelled(cpu, "an x87 exception with CR0.NE = 0 (FERR#)");
	cpu_raise(cpu, VECTOR_MF, 0);
}

/* Tag of a value: valid, zero or special (SDM 1 8.1.7). */
static unsigned tag_of(const x87_t *value)
{
	unsigned exponent = value->sign_exponent & 0x7fff;
	if (!exponent && !value->significand)
		return 1;
	return exponent == 0x7fff || !exponent || !(value->significand >> 63) ? 2 : 0;
}

x87_t x87_get(const struct cpu *cpu, unsigned i)
{
	const struct x87_register *reg = &cpu->st[x87_physical(cpu, i)];
	x87_t value = {.bytes = {0}};
	value.significand = reg->significand;
	value.sign_exponent = reg->sign_exponent;
	return value;
}

void x87_set(struct cpu *cpu, unsigned i, x87_t value)
{
	unsigned physical = x87_physical(cpu, i);
	cpu->st[physical].significand = value.significand;
	cpu->st[physical].sign_exponent = value.sign_exponent;
	cpu->ftw = (uint16_t)((cpu->ftw & ~(3u << (2 * physical))) | tag_of(&value) << (2 * physical));
}

void x87_pop(struct cpu *cpu)
{
	x87_set_empty(cpu, 0);
	x87_set_top(cpu, x87_top(cpu) + 1);
}

/* ES and B follow from the flags and the masks. */
static void summarize(struct cpu *cpu)
{
	if (cpu->fsw & ~cpu->fcw & X87_FLAGS)
		cpu->fsw |= X87_ES | X87_B;
}

bool x87_take_flags(struct cpu *cpu, uint16_t host_status)
{
	unsigned unmasked = host_status & ~(unsigned)cpu->fcw & X87_FLAGS;
	cpu->fsw = (uint16_t)((cpu->fsw & ~X87_C1) | (host_status & (X87_FLAGS | X87_C1)));
	summarize(cpu);
	return !(unmasked & (X87_IE | X87_DE | X87_ZE));
}

bool x87_stack_fault(struct cpu *cpu, bool overflow)
{
	cpu->fsw = (uint16_t)((cpu->fsw & ~X87_C1) | X87_IE | X87_SF | (overflow ? X87_C1 : 0));
	summarize(cpu);
	return cpu->fcw & X87_IE;
}

bool x87_operands(struct cpu *cpu, unsigned count, bool *carry_on)
{
	for (unsigned i = 0; i < count; i++) {
		if (x87_is_empty(cpu, i)) {
			*carry_on = x87_stack_fault(cpu, false);
			return false;
		}
	}
	*carry_on = true;
	return true;
}

x87_t x87_default_nan(void)
{
	x87_t value = {.bytes = {0}};
	value.significand = 0xc000000000000000u;
	value.sign_exponent = 0xffff;
	return value;
}

void x87_push(struct cpu *cpu, x87_t value)
{
	if (!x87_is_empty(cpu, 7)) {
		if (!x87_stack_fault(cpu, true))
			return;
		value = x87_default_nan();
	} else {
		cpu->fsw &= (uint16_t)~X87_C1;
	}
	x87_set_top(cpu, x87_top(cpu) - 1);
	x87_set(cpu, 0, value);
}

/* The three low bits of the first opcode byte, D8H to DFH, as its row says it. */
static unsigned escape_bits(const struct insn *insn)
{
	char digit = opcode_table[insn->opcode].encoding[1];
	return (unsigned)(digit <= '9' ? digit - '0' : digit - 'A' + 10) & 7;
}

void x87_remember(struct cpu *cpu, const struct insn *insn)
{
	cpu->fip = cpu_rip(cpu);
	cpu->fcs = cpu->segment[CS].s.selector;
	if (insn_is_memory(insn)) {
		cpu->fdp = insn_offset(cpu, insn);
		cpu->fds = cpu->segment[insn->segment].s.selector;
	}
	cpu->fop = (uint16_t)(escape_bits(insn) << 8 | insn->modrm);
}

void x87_begin(struct cpu *cpu, const struct insn *insn)
{
	x87_check_pending(cpu);
	x87_remember(cpu, insn);
}

void x87_initialize(struct cpu *cpu)
{
	cpu->fcw = 0x37f;
	cpu->fsw = 0;
	cpu->ftw = 0xffff;
	cpu->fop = 0;
	cpu->fip = cpu->fdp = 0;
	cpu->fcs = cpu->fds = 0;
}
