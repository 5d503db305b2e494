/*
 * insn/x87_control.c: x87 control, status and environment (SDM 2A FCLEX, FINIT, FLDENV, FSAVE, …; SDM 1 8.1.10).
 * The instructions named FN… do not wait: a pending exception stays pending.
 */
#include "cpu/mem/mem.h"
#include "cpu/x87.h"

static inline void x87_wait(struct cpu *cpu, const struct insn *insn)
{
	(void)insn;
	x87_check_pending(cpu);
}
DEFINE_INSN(x87_wait)

static inline void x87_fnop(struct cpu *cpu, const struct insn *insn)
{
	(void)insn;
	x87_check_pending(cpu);
}
DEFINE_INSN(x87_fnop)

/* FNENI, FNDISI, FNSETPM: no operation since the 80387 (SDM 3B 22.18). */
static inline void x87_obsolete(struct cpu *cpu, const struct insn *insn)
{
	(void)cpu;
	(void)insn;
}
DEFINE_INSN(x87_obsolete)

static inline void x87_fnclex(struct cpu *cpu, const struct insn *insn)
{
	(void)insn;
	cpu->fsw &= (uint16_t)~(X87_FLAGS | X87_SF | X87_ES | X87_B);
}
DEFINE_INSN(x87_fnclex)

static inline void x87_fninit(struct cpu *cpu, const struct insn *insn)
{
	(void)insn;
	x87_initialize(cpu);
}
DEFINE_INSN(x87_fninit)

static inline void x87_fnstcw(struct cpu *cpu, const struct insn *insn)
{
	mem_write(cpu, insn->segment, insn_offset(cpu, insn), cpu->fcw, 2);
}
DEFINE_INSN(x87_fnstcw)

static inline void x87_fnstsw(struct cpu *cpu, const struct insn *insn)
{
	mem_write(cpu, insn->segment, insn_offset(cpu, insn), cpu->fsw, 2);
}
DEFINE_INSN(x87_fnstsw)

static inline void x87_fnstsw_ax(struct cpu *cpu, const struct insn *insn)
{
	(void)insn;
	reg_write(cpu, RAX, cpu->fsw, 2);
}
DEFINE_INSN(x87_fnstsw_ax)

/* ES and B follow the flags and the new masks; bit 6 of the control word reads as one. */
static void set_control(struct cpu *cpu, uint16_t control)
{
	cpu->fcw = (uint16_t)((control & 0x1f3f) | 0x40);
	if (cpu->fsw & ~cpu->fcw & X87_FLAGS)
		cpu->fsw |= X87_ES | X87_B;
	else
		cpu->fsw &= (uint16_t)~(X87_ES | X87_B);
}

static inline void x87_fldcw(struct cpu *cpu, const struct insn *insn)
{
	x87_check_pending(cpu);
	set_control(cpu, (uint16_t)mem_read(cpu, insn->segment, insn_offset(cpu, insn), 2));
}
DEFINE_INSN(x87_fldcw)

static inline void x87_fincstp(struct cpu *cpu, const struct insn *insn)
{
	x87_begin(cpu, insn);
	x87_set_top(cpu, x87_top(cpu) + 1);
	cpu->fsw &= (uint16_t)~X87_C1;
}
DEFINE_INSN(x87_fincstp)

static inline void x87_fdecstp(struct cpu *cpu, const struct insn *insn)
{
	x87_begin(cpu, insn);
	x87_set_top(cpu, x87_top(cpu) - 1);
	cpu->fsw &= (uint16_t)~X87_C1;
}
DEFINE_INSN(x87_fdecstp)

static inline void x87_ffree(struct cpu *cpu, const struct insn *insn)
{
	x87_begin(cpu, insn);
	x87_set_empty(cpu, insn->modrm & 7);
}
DEFINE_INSN(x87_ffree)

/* ---- the environment: 14 bytes with a 16-bit operand, 28 otherwise; real or protected format (SDM 1 figures 8-9 to 8-12) ---- */

static unsigned environment_size(const struct insn *insn) { return insn->width == 2 ? 14 : 28; }

static void put16(uint8_t *to, uint64_t value)
{
	to[0] = (uint8_t)value;
	to[1] = (uint8_t)(value >> 8);
}
static void put32(uint8_t *to, uint64_t value)
{
	put16(to, value);
	put16(to + 2, value >> 16);
}
static uint32_t get16(const uint8_t *from) { return (uint32_t)from[0] | (uint32_t)from[1] << 8; }
static uint32_t get32(const uint8_t *from) { return get16(from) | get16(from + 2) << 16; }

/* Pointers in real-address and virtual-8086 mode are linear: selector * 16 + offset. */
static uint32_t real_pointer(uint16_t selector, uint64_t offset) { return (uint32_t)(selector * 16u + offset); }

static void make_environment(const struct cpu *cpu, const struct insn *insn, uint8_t *image)
{
	bool real = cpu_real_or_vm86(cpu);
	uint32_t ip = real ? real_pointer(cpu->fcs, cpu->fip) : (uint32_t)cpu->fip;
	uint32_t dp = real ? real_pointer(cpu->fds, cpu->fdp) : (uint32_t)cpu->fdp;
	if (insn->width == 2) {
		put16(image, cpu->fcw);
		put16(image + 2, cpu->fsw);
		put16(image + 4, cpu->ftw);
		put16(image + 6, ip);
		put16(image + 8, real ? (ip >> 16 & 0xf) << 12 | cpu->fop : cpu->fcs);
		put16(image + 10, dp);
		put16(image + 12, real ? (dp >> 16 & 0xf) << 12 : cpu->fds);
		return;
	}
	put32(image, 0xffff0000u | cpu->fcw);
	put32(image + 4, 0xffff0000u | cpu->fsw);
	put32(image + 8, 0xffff0000u | cpu->ftw);
	put32(image + 12, real ? 0xffff0000u | (ip & 0xffff) : ip);
	put32(image + 16, real ? (ip >> 16) << 12 | cpu->fop : (uint32_t)cpu->fop << 16 | cpu->fcs);
	put32(image + 20, real ? 0xffff0000u | (dp & 0xffff) : dp);
	put32(image + 24, real ? (dp >> 16) << 12 : 0xffff0000u | cpu->fds);
}

static void take_environment(struct cpu *cpu, const struct insn *insn, const uint8_t *image)
{
	bool real = cpu_real_or_vm86(cpu), small = insn->width == 2;
	uint32_t words[7];
	for (unsigned i = 0; i < 7; i++)
		words[i] = small ? get16(image + 2 * i) : get32(image + 4 * i);
	cpu->fsw = (uint16_t)words[1];
	cpu->ftw = (uint16_t)words[2];
	if (real) {
		cpu->fip = (words[3] & 0xffff) | (uint64_t)(words[4] & (small ? 0xf000u : 0xffff000u)) << 4;
		cpu->fdp = (words[5] & 0xffff) | (uint64_t)(words[6] & (small ? 0xf000u : 0xffff000u)) << 4;
		cpu->fop = words[4] & 0x7ff;
		cpu->fcs = cpu->fds = 0;
	} else {
		cpu->fip = words[3];
		cpu->fcs = (uint16_t)words[4];
		cpu->fop = small ? cpu->fop : words[4] >> 16 & 0x7ff;
		cpu->fdp = words[5];
		cpu->fds = (uint16_t)words[6];
	}
	set_control(cpu, (uint16_t)words[0]);
}

/* Tags other than empty are what the registers hold, whatever was loaded. */
static void refresh_tags(struct cpu *cpu)
{
	for (unsigned i = 0; i < 8; i++)
		if (!x87_is_empty(cpu, i))
			x87_set(cpu, i, x87_get(cpu, i));
}

static inline void x87_fnstenv(struct cpu *cpu, const struct insn *insn)
{
	uint8_t image[28];
	refresh_tags(cpu); /* MMX instructions leave them all valid: SDM 1 table 9-3 */
	make_environment(cpu, insn, image);
	mem_write_bytes(cpu, insn->segment, insn_offset(cpu, insn), image, environment_size(insn), 1);
	cpu->fcw |= X87_FLAGS;
	cpu->fsw &= (uint16_t)~(X87_ES | X87_B);
}
DEFINE_INSN(x87_fnstenv)

static inline void x87_fldenv(struct cpu *cpu, const struct insn *insn)
{
	uint8_t image[28];
	x87_check_pending(cpu);
	mem_read_bytes(cpu, insn->segment, insn_offset(cpu, insn), image, environment_size(insn), 1);
	take_environment(cpu, insn, image);
	refresh_tags(cpu);
}
DEFINE_INSN(x87_fldenv)

static inline void x87_fnsave(struct cpu *cpu, const struct insn *insn)
{
	uint8_t image[28 + 80];
	unsigned size = environment_size(insn);
	refresh_tags(cpu);
	make_environment(cpu, insn, image);
	for (unsigned i = 0; i < 8; i++) {
		x87_t value = x87_get(cpu, i);
		__builtin_memcpy(image + size + 10 * i, &value, 10);
	}
	mem_write_bytes(cpu, insn->segment, insn_offset(cpu, insn), image, size + 80, 1);
	x87_initialize(cpu);
}
DEFINE_INSN(x87_fnsave)

static inline void x87_frstor(struct cpu *cpu, const struct insn *insn)
{
	uint8_t image[28 + 80];
	unsigned size = environment_size(insn);
	x87_check_pending(cpu);
	mem_read_bytes(cpu, insn->segment, insn_offset(cpu, insn), image, size + 80, 1);
	take_environment(cpu, insn, image);
	for (unsigned i = 0; i < 8; i++) {
		struct x87_register *reg = &cpu->st[x87_physical(cpu, i)];
		__builtin_memcpy(&reg->significand, image + size + 10 * i, 8);
		__builtin_memcpy(&reg->sign_exponent, image + size + 10 * i + 8, 2);
	}
	refresh_tags(cpu);
}
DEFINE_INSN(x87_frstor)
