/*
 * x87.h: the x87 register stack and its pending exceptions.
 */
#ifndef TRAPLINE_CPU_X87_H
#define TRAPLINE_CPU_X87_H

#include "cpu/cpu.h"
#include "cpu/insn.h"

/* Status word (SDM 1 8.1.3). */
#define X87_IE  0x0001u
#define X87_DE  0x0002u
#define X87_ZE  0x0004u
#define X87_OE  0x0008u
#define X87_UE  0x0010u
#define X87_PE  0x0020u
#define X87_SF  0x0040u
#define X87_ES  0x0080u
#define X87_C0  0x0100u
#define X87_C1  0x0200u
#define X87_C2  0x0400u
#define X87_TOP 0x3800u
#define X87_TOP_SHIFT 11
#define X87_C3  0x4000u
#define X87_B   0x8000u

#define X87_FLAGS 0x3fu              /* IE to PE */
#define X87_CC (X87_C0 | X87_C1 | X87_C2 | X87_C3)

/* An 80-bit register as it stands in memory; the host's long double has the same bits. */
typedef union {
	long double value;
	struct {
		uint64_t significand;
		uint16_t sign_exponent;
	};
	uint8_t bytes[16];
} x87_t;

/*
 * A pending unmasked exception (FSW.ES) is raised by the next waiting x87 or MMX instruction: #MF when CR0.NE = 1;
 * else the processor asserts FERR#, which is not modelled (SDM 1 8.7).
 */
void x87_check_pending(struct cpu *cpu);

/* ---- the register stack (SDM 1 8.1.2); @i counts from the top ---- */

static inline unsigned x87_top(const struct cpu *cpu) { return (cpu->fsw & X87_TOP) >> X87_TOP_SHIFT; }
static inline unsigned x87_physical(const struct cpu *cpu, unsigned i) { return (x87_top(cpu) + i) & 7; }
static inline void x87_set_top(struct cpu *cpu, unsigned top)
{
	cpu->fsw = (uint16_t)((cpu->fsw & ~X87_TOP) | (top & 7) << X87_TOP_SHIFT);
}
static inline bool x87_is_empty(const struct cpu *cpu, unsigned i)
{
	return (cpu->ftw >> (2 * x87_physical(cpu, i)) & 3) == 3;
}
static inline void x87_set_empty(struct cpu *cpu, unsigned i) { cpu->ftw |= (uint16_t)(3u << (2 * x87_physical(cpu, i))); }
x87_t x87_get(const struct cpu *cpu, unsigned i);
void x87_set(struct cpu *cpu, unsigned i, x87_t value); /* and its tag */
void x87_pop(struct cpu *cpu);

/* ---- exceptions ---- */

/*
 * Takes the flags and C1 of a status word that the host's unit left. Returns whether the operation takes effect:
 * not when an unmasked invalid-operation, denormal or zero-divide was found (SDM 1 8.5, 8.6).
 */
bool x87_take_flags(struct cpu *cpu, uint16_t host_status);
/*
 * The @count stack elements that an instruction reads are there. If not: stack underflow, which sets IE and SF and
 * clears C1; then *@carry_on says whether it is masked, and the result is the default NaN.
 */
bool x87_operands(struct cpu *cpu, unsigned count, bool *carry_on);
/* Stack fault: IE, SF, C1 = @overflow. Returns whether it is masked. */
bool x87_stack_fault(struct cpu *cpu, bool overflow);
/* Pushes @value; on overflow the default NaN, or nothing when unmasked. */
void x87_push(struct cpu *cpu, x87_t value);
x87_t x87_default_nan(void);

/* Remembers the instruction and operand pointers (SDM 1 8.1.8). For all but control instructions. */
void x87_remember(struct cpu *cpu, const struct insn *insn);
/* What each waiting, non-control instruction begins with. */
void x87_begin(struct cpu *cpu, const struct insn *insn);
/* FNINIT (SDM 2A FINIT). */
void x87_initialize(struct cpu *cpu);

/*
 * Runs @operation on the host's unit with the guest's control word; the host's own is put back. @before loads the
 * host's stack, @after stores from it and must leave it empty. `fnstsw` and `fnclex` follow the operation before the
 * result is stored, so that an exception that the guest has unmasked never traps on the host.
 */
#define X87_HOST(cpu, status, before, operation, after, outputs, inputs)                                             \
	__asm__ volatile("fnclex\n\tfldcw %[cw]\n\t" before operation "\n\tfnstsw %[sw]\n\tfnclex\n\tfldcw %[own]\n\t" after     \
			 : [sw] "=m"(status) X87_UNPACK outputs                                                      \
			 : [cw] "m"((cpu)->fcw), [own] "m"(x87_own_control) X87_UNPACK inputs                        \
			 : "cc", "memory", "st", "st(1)", "st(2)", "st(3)", "st(4)", "st(5)", "st(6)", "st(7)")
#define X87_UNPACK(...) , __VA_ARGS__
extern const uint16_t x87_own_control;

#endif
