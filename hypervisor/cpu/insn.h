/*
 * insn.h: a decoded instruction, and how its handler is written.
 *
 * The body of a handler is an inline function of the CPU, the instruction and, where
 * they matter, constants for the operand width (in bytes) and for whether its ModRM
 * operand is memory. A DEFINE_… macro makes from it one function for each combination
 * and a `const struct handlers insn_NAME`, which opcodes.def names:
 *
 *	static inline void add_eg(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory)
 *	{
 *		…
 *	}
 *	DEFINE_INSN_RM(add_eg)
 *
 * A body that returns goes on with the next instruction of the trace. DEFINE_BRANCH
 * ends the trace at cpu->rip, which its body has set. Instructions that change what
 * decoding or translation of code depends on (modes, CPL, CS, CR3, INVLPG), or what may
 * be pending (IF, TF, shadows, HLT, ports, MSRs), have the flag ENDS in opcodes.def, branches
 * among them too: behind them run.c looks at everything again.
 *
 * The macros set cpu->insn before the body runs, so cpu_rip(), cpu_retired() and faults
 * are exact in any handler.
 */
#ifndef TRAPLINE_CPU_INSN_H
#define TRAPLINE_CPU_INSN_H

#include "cpu/cpu.h"

/*
 * Runs @insn and, in builds with tail calls, what follows it. Returns NULL when the
 * trace is over, else the next instruction to run.
 */
typedef const struct insn *insn_handler(struct cpu *cpu, const struct insn *insn);

struct handlers {
	insn_handler *run[2][4]; /* [ModRM operand is memory][log2 of the operand width in bytes] */
};

/* Legacy prefixes that were there, for the handlers that care. */
enum insn_prefix {
	PREFIX_LOCK = 1,
	PREFIX_REPNE = 2, /* F2 */
	PREFIX_REP = 4,   /* F3 */
	PREFIX_66 = 8,
	PREFIX_67 = 16,
	PREFIX_REX = 32,
	PREFIX_REX_W = 64,
	PREFIX_SEGMENT = 128
};

struct insn {
	insn_handler *run;
	int64_t disp;           /* displacement; RIP-relative ones count from the trace's start (base = REG_TRACE_RIP) */
	int64_t imm;            /* immediate, sign-extended as the instruction defines; relative branch distance; far offset */
	uint16_t imm2;          /* second immediate: ENTER's level, a far pointer's selector */
	uint16_t opcode;        /* index of its row, for opcode_table[] */
	uint16_t offset;        /* bytes from the start of the trace */
	uint8_t length;         /* in bytes */
	uint8_t prefixes;       /* enum insn_prefix */
	uint8_t reg;            /* register of ModRM.reg (REX.R added) or of the opcode (+r); see reg8() */
	uint8_t rm;             /* register of ModRM.rm (REX.B added) when it is one; see reg8() */
	uint8_t modrm;          /* as encoded, 0 without one */
	uint8_t base, index;    /* slots of cpu->reg; REG_ZERO where absent */
	uint8_t scale;          /* log2 */
	uint8_t segment;        /* enum segment_register of the memory operand, overrides applied */
	uint8_t width;          /* operand size in bytes: 1, 2, 4 or 8 */
	uint8_t address_shift;  /* 48, 32 or 0: addresses are 16, 32 or 64 bits */
	uint8_t address_width;  /* 2, 4 or 8 */
	uint8_t vvvv;           /* register of VEX.vvvv */
	uint8_t vector_length;  /* of a VEX instruction: 16 or 32 bytes; 0 without VEX */
	uint8_t count;          /* instructions of the trace before this one */
};

static inline bool insn_is_memory(const struct insn *insn) { return insn->modrm < 0xc0; }

/* Offset of the ModRM (or moffs) memory operand within its segment. */
static inline uint64_t insn_offset(const struct cpu *cpu, const struct insn *insn)
{
	uint64_t offset = cpu->reg[insn->base] + (cpu->reg[insn->index] << insn->scale) + (uint64_t)insn->disp;
	return offset << insn->address_shift >> insn->address_shift;
}

/* ---- registers ---- */

/*
 * Byte registers are encoded in insn->reg and insn->rm as byte offsets into cpu->reg,
 * so that AH, CH, DH and BH need no branch: 8 * number, or 8 * (number - 4) + 1.
 */
static inline uint8_t *reg8(struct cpu *cpu, unsigned code) { return (uint8_t *)cpu->reg + code; }

static inline uint64_t reg_read(struct cpu *cpu, unsigned reg, unsigned width)
{
	switch (width) {
	case 1: return *reg8(cpu, reg);
	case 2: return (uint16_t)cpu->reg[reg];
	case 4: return (uint32_t)cpu->reg[reg];
	default: return cpu->reg[reg];
	}
}

/* Writes of 32 bits clear the upper half; of 8 and 16 bits leave the rest (SDM 1 3.4.1.1). */
static inline void reg_write(struct cpu *cpu, unsigned reg, uint64_t value, unsigned width)
{
	switch (width) {
	case 1: *reg8(cpu, reg) = (uint8_t)value; break;
	case 2: cpu->reg[reg] = (cpu->reg[reg] & ~0xffffull) | (uint16_t)value; break;
	case 4: cpu->reg[reg] = (uint32_t)value; break;
	default: cpu->reg[reg] = value;
	}
}

/* Instructions retired before the one being executed: what time is made of. */
static inline uint64_t cpu_retired(const struct cpu *cpu)
{
	return cpu->retired + (cpu->insn ? cpu->insn->count : 0);
}

/* ---- making handlers ---- */

/*
 * The next handler: a tail call where the compiler makes one (-O2, no sanitizers), a
 * return to the loop in run.c elsewhere. Nothing else knows which.
 */
#ifdef TRAPLINE_TAIL_CALLS
#define DISPATCH(cpu, insn) return (insn)->run((cpu), (insn))
#else
#define DISPATCH(cpu, insn) return (insn)
#endif
#define DISPATCH_NEXT(cpu, insn) DISPATCH(cpu, (insn) + 1)

/* End of a trace: finds the next one, or leaves the fast path (run.c). */
const struct insn *cpu_end_trace(struct cpu *cpu, const struct insn *insn);

/*
 * REP. Before a run of iterations: how many of the @wanted (not 0) may run without a look at what is
 * pending; at least 1, and 1 where instructions are stepped. After it, with the registers committed:
 * counts @done (not 0) iterations as retired; where @more remain and something is pending, leaves the
 * instruction with RIP still at it (TF and data breakpoints trap there) and does not return. A fault
 * within an iteration needs no call: the iterations before it are counted first.
 */
uint64_t cpu_repeat_limit(struct cpu *cpu, const struct insn *insn, uint64_t wanted);
void cpu_repeat_done(struct cpu *cpu, const struct insn *insn, uint64_t done, bool more);

#define INSN_FUNCTION(symbol, call)                                                         \
	static const struct insn *symbol(struct cpu *cpu, const struct insn *insn)          \
	{                                                                                   \
		cpu->insn = insn;                                                           \
		call;                                                                       \
		DISPATCH_NEXT(cpu, insn);                                                   \
	}
#define BRANCH_FUNCTION(symbol, call)                                                       \
	static const struct insn *symbol(struct cpu *cpu, const struct insn *insn)          \
	{                                                                                   \
		cpu->insn = insn;                                                           \
		call;                                                                       \
		return cpu_end_trace(cpu, insn);                                            \
	}

#define HANDLERS_ONE(f)  {{f, f, f, f}, {f, f, f, f}}
#define HANDLERS_W(a, b, c, d) {{a, b, c, d}, {a, b, c, d}}

/* body(cpu, insn) */
#define DEFINE_INSN(body)                                                                   \
	INSN_FUNCTION(body##_run, body(cpu, insn))                                          \
	const struct handlers insn_##body = {HANDLERS_ONE(body##_run)};
#define DEFINE_BRANCH(body)                                                                 \
	BRANCH_FUNCTION(body##_run, body(cpu, insn))                                        \
	const struct handlers insn_##body = {HANDLERS_ONE(body##_run)};
/* body(cpu, insn, width) */
#define DEFINE_INSN_W(body)                                                                 \
	INSN_FUNCTION(body##_8, body(cpu, insn, 1))                                         \
	INSN_FUNCTION(body##_16, body(cpu, insn, 2))                                        \
	INSN_FUNCTION(body##_32, body(cpu, insn, 4))                                        \
	INSN_FUNCTION(body##_64, body(cpu, insn, 8))                                        \
	const struct handlers insn_##body = {HANDLERS_W(body##_8, body##_16, body##_32, body##_64)};
#define DEFINE_BRANCH_W(body)                                                               \
	BRANCH_FUNCTION(body##_8, body(cpu, insn, 1))                                       \
	BRANCH_FUNCTION(body##_16, body(cpu, insn, 2))                                      \
	BRANCH_FUNCTION(body##_32, body(cpu, insn, 4))                                      \
	BRANCH_FUNCTION(body##_64, body(cpu, insn, 8))                                      \
	const struct handlers insn_##body = {HANDLERS_W(body##_8, body##_16, body##_32, body##_64)};
/*
 * body(cpu, insn, width, place, condition), in two halves: one NAME of a family by condition (SDM 1
 * appendix B), as in DEFINE_BRANCH_CC(jcc, jcc_nz, CC_NZ)
 */
#define DEFINE_BRANCH_CC(body, name, cc)                                                    \
	static inline bool name(struct cpu *cpu, const struct insn *insn, unsigned width,   \
				enum place place)                                           \
	{                                                                                   \
		return body(cpu, insn, width, place, cc);                                   \
	}                                                                                   \
	DEFINE_FAST_BRANCH_W(name)
/* body(cpu, insn, width, memory, condition) */
#define DEFINE_INSN_RM_CC(body, name, cc)                                                   \
	static inline void name(struct cpu *cpu, const struct insn *insn, unsigned width,   \
				bool memory)                                                \
	{                                                                                   \
		body(cpu, insn, width, memory, cc);                                         \
	}                                                                                   \
	DEFINE_INSN_RM(name)
/* body(cpu, insn, width, memory) */
#define DEFINE_INSN_RM(body)   DEFINE_RM(INSN_FUNCTION, body)
#define DEFINE_BRANCH_RM(body) DEFINE_RM(BRANCH_FUNCTION, body)
#define DEFINE_RM(FUNCTION, body)                                                           \
	FUNCTION(body##_r8, body(cpu, insn, 1, false))                                      \
	FUNCTION(body##_r16, body(cpu, insn, 2, false))                                     \
	FUNCTION(body##_r32, body(cpu, insn, 4, false))                                     \
	FUNCTION(body##_r64, body(cpu, insn, 8, false))                                     \
	FUNCTION(body##_m8, body(cpu, insn, 1, true))                                       \
	FUNCTION(body##_m16, body(cpu, insn, 2, true))                                      \
	FUNCTION(body##_m32, body(cpu, insn, 4, true))                                      \
	FUNCTION(body##_m64, body(cpu, insn, 8, true))                                      \
	const struct handlers insn_##body = {                                               \
		{{body##_r8, body##_r16, body##_r32, body##_r64},                           \
		 {body##_m8, body##_m16, body##_m32, body##_m64}}};

/*
 * Handlers that access memory come in two halves where speed matters. The fast one has no call
 * that returns, so that it needs no stack frame: its body answers false, with nothing changed,
 * where something is special; then the slow half does all of it. @place is constant.
 */
enum place {
	PLACE_REGISTER,
	PLACE_MEMORY, /* by all checks */
	PLACE_FAST    /* memory, without a call: false where that is not possible */
};

#define TWO_HALVES(FUNCTION, symbol, body, width)                                           \
	static insn_handler __attribute__((noinline, cold)) symbol##_slow;                  \
	FUNCTION(symbol##_slow, body(cpu, insn, width, PLACE_MEMORY))                       \
	FUNCTION(symbol, if (unlikely(!body(cpu, insn, width, PLACE_FAST)))                 \
			 return symbol##_slow(cpu, insn))

/* body(cpu, insn, width, place), PLACE_MEMORY or PLACE_FAST */
#define DEFINE_FAST_INSN_W(body)   DEFINE_FAST_W(INSN_FUNCTION, body)
#define DEFINE_FAST_BRANCH_W(body) DEFINE_FAST_W(BRANCH_FUNCTION, body)
#define DEFINE_FAST_W(FUNCTION, body)                                                       \
	TWO_HALVES(FUNCTION, body##_8, body, 1)                                             \
	TWO_HALVES(FUNCTION, body##_16, body, 2)                                            \
	TWO_HALVES(FUNCTION, body##_32, body, 4)                                            \
	TWO_HALVES(FUNCTION, body##_64, body, 8)                                            \
	const struct handlers insn_##body = {HANDLERS_W(body##_8, body##_16, body##_32, body##_64)};

/* body(cpu, insn, width, place) */
#define DEFINE_FAST_INSN_RM(body)                                                           \
	INSN_FUNCTION(body##_r8, body(cpu, insn, 1, PLACE_REGISTER))                        \
	INSN_FUNCTION(body##_r16, body(cpu, insn, 2, PLACE_REGISTER))                       \
	INSN_FUNCTION(body##_r32, body(cpu, insn, 4, PLACE_REGISTER))                       \
	INSN_FUNCTION(body##_r64, body(cpu, insn, 8, PLACE_REGISTER))                       \
	TWO_HALVES(INSN_FUNCTION, body##_m8, body, 1)                                       \
	TWO_HALVES(INSN_FUNCTION, body##_m16, body, 2)                                      \
	TWO_HALVES(INSN_FUNCTION, body##_m32, body, 4)                                      \
	TWO_HALVES(INSN_FUNCTION, body##_m64, body, 8)                                      \
	const struct handlers insn_##body = {                                               \
		{{body##_r8, body##_r16, body##_r32, body##_r64},                           \
		 {body##_m8, body##_m16, body##_m32, body##_m64}}};

#endif
