/*
 * misc.c: flag instructions, NOP and hints, fences and cache lines, BOUND, random numbers
 * (SDM 2A, 2B; APM 3).
 */
#include "cpu/decode.h"
#include "cpu/insn/operand.h"

/* ---- single flags ---- */

static inline void clc(struct cpu *cpu, const struct insn *insn)
{
	(void)insn;
	flags_set_cf(&cpu->lazy, false);
}
DEFINE_INSN(clc)

static inline void stc(struct cpu *cpu, const struct insn *insn)
{
	(void)insn;
	flags_set_cf(&cpu->lazy, true);
}
DEFINE_INSN(stc)

static inline void cmc(struct cpu *cpu, const struct insn *insn)
{
	(void)insn;
	flags_set_cf(&cpu->lazy, !flags_cf(&cpu->lazy));
}
DEFINE_INSN(cmc)

static inline void cld(struct cpu *cpu, const struct insn *insn)
{
	(void)insn;
	cpu->rflags &= ~(uint64_t)RFLAGS_DF;
}
DEFINE_INSN(cld)

static inline void std(struct cpu *cpu, const struct insn *insn)
{
	(void)insn;
	cpu->rflags |= RFLAGS_DF;
}
DEFINE_INSN(std)

static inline void lahf(struct cpu *cpu, const struct insn *insn)
{
	uint64_t flags = (flags_get(&cpu->lazy) & 0xff) | RFLAGS_FIXED;

	(void)insn;
	reg_write(cpu, RAX, flags << 8 | (cpu->reg[RAX] & 0xff), 2);
}
DEFINE_INSN(lahf)

static inline void sahf(struct cpu *cpu, const struct insn *insn)
{
	uint64_t flags = cpu->reg[RAX] >> 8 & RFLAGS_STATUS & 0xff;

	(void)insn;
	flags_set(&cpu->lazy, flags | (flags_get(&cpu->lazy) & RFLAGS_OF));
}
DEFINE_INSN(sahf)

static inline void salc(struct cpu *cpu, const struct insn *insn)
{
	(void)insn;
	reg_write(cpu, RAX, flags_cf(&cpu->lazy) ? 0xff : 0, 1);
}
DEFINE_INSN(salc)

/* ---- BOUND ---- */

HANDLER_INLINE void bound(struct cpu *cpu, const struct insn *insn, unsigned width)
{
	uint64_t offset = insn_offset(cpu, insn);
	uint64_t upper_offset = (offset + width) << insn->address_shift >> insn->address_shift;
	int64_t lower = (int64_t)sign_extend(mem_read(cpu, insn->segment, offset, width), 8 * width);
	int64_t upper = (int64_t)sign_extend(mem_read(cpu, insn->segment, upper_offset, width), 8 * width);
	int64_t index = (int64_t)sign_extend(reg_read(cpu, insn->reg, width), 8 * width);

	if (index < lower || index > upper)
		cpu_raise(cpu, VECTOR_BR, 0);
}
DEFINE_INSN_W(bound)

/* ---- nothing, and hints ---- */

/* Hints have no effect that this CPU models; their memory operand is not accessed (SDM 2B NOP, PREFETCHh). */
static inline void nop(struct cpu *cpu, const struct insn *insn)
{
	(void)cpu;
	(void)insn;
}
DEFINE_INSN(nop)

/* A spin: where others wait for their turn, they get it. */
static inline void pause(struct cpu *cpu, const struct insn *insn)
{
	(void)insn;
	if (cpu->shares)
		cpu_yield(cpu);
}
DEFINE_INSN(pause)

/* 0F 0Dh with a register: #UD for AMD (APM 3 PREFETCH), a reserved NOP for Intel (SDM 2D A.3). */
static inline void prefetch_register(struct cpu *cpu, const struct insn *insn)
{
	(void)insn;
	if (cpu->profile->vendor == VENDOR_AMD)
		cpu_raise(cpu, VECTOR_UD, 0);
}
DEFINE_INSN(prefetch_register)

/* ---- cache lines ---- */

#define CACHE_LINE 64

/*
 * CLFLUSH, CLFLUSHOPT, CLWB: checked as a load of one byte, but allowed in an execute-only segment
 * (SDM 2A CLFLUSH). This CPU has no cache to flush.
 */
static inline void cache_line(struct cpu *cpu, const struct insn *insn)
{
	unsigned how = insn->segment == CS ? ACCESS_EXECUTE : ACCESS_READ;
	uint64_t linear = segment_linear(cpu, insn->segment, insn_offset(cpu, insn), 1, how);

	linear_check(cpu, linear, 1, ACCESS_READ | (cpu->cpl == 3 ? ACCESS_USER : 0));
}
DEFINE_INSN(cache_line)

static inline void clzero(struct cpu *cpu, const struct insn *insn)
{
	static const uint8_t zeros[CACHE_LINE];
	uint64_t offset = cpu->reg[RAX] << insn->address_shift >> insn->address_shift;
	uint64_t linear = segment_linear(cpu, insn->segment, offset, 1, ACCESS_WRITE);

	linear_write_bytes(cpu, linear & ~(uint64_t)(CACHE_LINE - 1), zeros, sizeof(zeros),
			   ACCESS_WRITE | (cpu->cpl == 3 ? ACCESS_USER : 0));
}
DEFINE_INSN(clzero)

/* ---- random numbers ---- */

/*
 * The same run gives the same numbers: a function of the time, of the processor and of the instruction, through
 * SplitMix64's finalizer.
 */
static uint64_t random_number(const struct cpu *cpu, unsigned salt)
{
	uint64_t z = ((cpu_ticks(cpu) * 2 + salt + 1) ^ (uint64_t)cpu->apic_id << 56) * 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

/* Always successful: CF = 1, the other status flags 0. */
HANDLER_INLINE void random_register(struct cpu *cpu, const struct insn *insn, unsigned width, unsigned salt)
{
	reg_write(cpu, insn->rm, random_number(cpu, salt), width);
	flags_set(&cpu->lazy, RFLAGS_CF);
}

/*
 * The 66h rows do not size their operand by prefix, since for most of them 66h is part of the opcode: 32 bits in
 * 16-bit code, 16 bits elsewhere.
 */
#define DEFINE_RANDOM(name, salt)                                                                            \
	HANDLER_INLINE void name(struct cpu *cpu, const struct insn *insn, unsigned width)                   \
	{                                                                                                    \
		random_register(cpu, insn, width, salt);                                                     \
	}                                                                                                    \
	HANDLER_INLINE void name##_66(struct cpu *cpu, const struct insn *insn, unsigned width)              \
	{                                                                                                    \
		bool code_16 = (cpu->code_mode & CODE_SIZE) == CODE_16;                                      \
                                                                                                             \
		random_register(cpu, insn, width == 8 ? 8 : code_16 ? 4 : 2, salt);                          \
	}                                                                                                    \
	DEFINE_INSN_W(name)                                                                                  \
	DEFINE_INSN_W(name##_66)

DEFINE_RANDOM(rdrand, 0)
DEFINE_RANDOM(rdseed, 1)
