/*
 * syscall.c: SYSCALL SYSRET SYSENTER SYSEXIT (SDM 2B; APM 3 chapter 3), with what the vendors do
 * differently. SCE, long mode, real mode and privilege are gates of their rows where the order of
 * faults allows it.
 */
#include "cpu/checks.h"
#include "cpu/control.h"
#include "cpu/insn/operand.h"
#include "cpu/segment.h"

#define FLAT_CODE (SEG_P | SEG_S | SEG_CODE | SEG_READABLE | SEG_ACCESSED | SEG_G)
#define FLAT_DATA (SEG_P | SEG_S | SEG_WRITABLE | SEG_ACCESSED | SEG_DB | SEG_G)

/*
 * A guest that has come from the other vendor's processor keeps the calls that it knows: no CPUID bit tells SYSCALL
 * in compatibility mode from that in 64-bit mode, or SYSENTER in long mode from that outside.
 */
static bool is_amd(const struct cpu *cpu) { return cpu->profile->told == VENDOR_AMD; }

static void set_flat(struct cpu *cpu, enum segment_register segment, uint16_t selector, uint32_t attributes)
{
	cpu->segment[segment].s = (struct segment){
		.selector = selector, .base = 0, .limit = 0xffffffff, .attributes = attributes};
}

static void set_code(struct cpu *cpu, uint16_t selector, unsigned dpl, bool long_mode)
{
	set_flat(cpu, CS, selector, FLAT_CODE | dpl << SEG_DPL_SHIFT | (long_mode ? SEG_L : SEG_DB));
}

static void set_stack(struct cpu *cpu, uint16_t selector, unsigned dpl)
{
	set_flat(cpu, SS, selector, FLAT_DATA | dpl << SEG_DPL_SHIFT);
}

/* Segments and RIP are set: RFLAGS and all that follows from them. */
static void enter(struct cpu *cpu, uint64_t rip, uint64_t flags)
{
	cpu->rip = rip;
	rflags_set(cpu, flags, ~0ull);
	segment_derive_all(cpu);
}

/* SYSCALL and SYSRET trap by TF as it is behind them, so that FMASK can mask it. */
static void trap_by_new_flags(struct cpu *cpu)
{
	cpu->step_tf = false;
	if (cpu->rflags & RFLAGS_TF)
		cpu->dr6_pending |= DR6_BS;
}

/* ---- SYSCALL ---- */

static void syscall_long(struct cpu *cpu)
{
	uint64_t flags = rflags_get(cpu);
	uint64_t target = cpu_64bit(cpu) ? cpu->msr.lstar : cpu->msr.cstar;
	uint16_t selector = (uint16_t)(cpu->msr.star >> 32) & 0xfffc;

	cpu->reg[RCX] = cpu_next_rip(cpu);
	cpu->reg[R11] = flags & ~(uint64_t)RFLAGS_RF;
	set_code(cpu, selector, 0, true);
	set_stack(cpu, (uint16_t)(selector + 8), 0);
	enter(cpu, target, flags & ~cpu->msr.fmask & ~(uint64_t)RFLAGS_RF);
}

/* AMD outside long mode: EIP from STAR, and the return address alone is kept. */
static void syscall_legacy(struct cpu *cpu)
{
	uint16_t selector = (uint16_t)(cpu->msr.star >> 32) & 0xfffc;

	cpu->reg[RCX] = (uint32_t)cpu_next_rip(cpu);
	set_code(cpu, selector, 0, false);
	set_stack(cpu, (uint16_t)(selector + 8), 0);
	enter(cpu, (uint32_t)cpu->msr.star, rflags_get(cpu) & ~(uint64_t)(RFLAGS_IF | RFLAGS_RF | RFLAGS_VM));
}

static inline void syscall(struct cpu *cpu, const struct insn *insn)
{
	(void)insn;
	if (CHECK(SYSCALL_64BIT, !is_amd(cpu) && !cpu_64bit(cpu)))
		cpu_raise(cpu, VECTOR_UD, 0);
	if (cpu_ia32e(cpu))
		syscall_long(cpu);
	else
		syscall_legacy(cpu);
	trap_by_new_flags(cpu);
}
DEFINE_BRANCH(syscall)

/* ---- SYSRET ---- */

/*
 * SS: Intel loads a flat segment of DPL 3; AMD the selector alone, without forcing its RPL (the
 * hidden DPL, which is the CPL here, becomes 3 on both).
 */
static void sysret_stack(struct cpu *cpu, uint16_t base)
{
	struct segment *ss = &cpu->segment[SS].s;
	uint16_t selector = (uint16_t)(base + 8);

	if (is_amd(cpu)) {
		ss->selector = selector;
		ss->attributes |= SEG_DPL;
	} else {
		set_stack(cpu, selector | 3, 3);
	}
}

static inline void sysret(struct cpu *cpu, const struct insn *insn, unsigned width)
{
	uint16_t base = (uint16_t)(cpu->msr.star >> 48);
	bool wide = width == 8; /* REX.W, which only 64-bit mode has */
	uint64_t rip = wide ? cpu->reg[RCX] : (uint32_t)cpu->reg[RCX];
	uint64_t flags;

	(void)insn;
	if (CHECK(SYSRET_64BIT, !is_amd(cpu) && !cpu_64bit(cpu)))
		cpu_raise(cpu, VECTOR_UD, 0);
	if (CHECK(SYSRET_PROTECTED, !cpu_protected(cpu)))
		cpu_raise(cpu, VECTOR_GP, 0);
	if (CHECK(SYSRET_CPL, cpu->cpl > 0))
		cpu_raise(cpu, VECTOR_GP, 0);
	/* AMD faults when it fetches from there, at CPL 3. */
	if (CHECK(SYSRET_CANONICAL, !is_amd(cpu) && !linear_is_canonical(cpu, rip)))
		cpu_raise(cpu, VECTOR_GP, 0);

	/* R11 has RFLAGS in 64-bit mode; elsewhere only IF changes. RF and VM are cleared. */
	flags = cpu_64bit(cpu) ? cpu->reg[R11] & RFLAGS_DEFINED : rflags_get(cpu) | RFLAGS_IF;
	set_code(cpu, (uint16_t)((wide ? base + 16 : base) | 3), 3, wide);
	sysret_stack(cpu, base);
	enter(cpu, rip, flags & ~(uint64_t)(RFLAGS_RF | RFLAGS_VM));
	trap_by_new_flags(cpu);
}
DEFINE_BRANCH_W(sysret)

/* ---- SYSENTER, SYSEXIT ---- */

static void check_sysenter_cs(struct cpu *cpu)
{
	if (CHECK(SYSENTER_CS_NULL, !(cpu->msr.sysenter_cs & 0xfffc)))
		cpu_raise(cpu, VECTOR_GP, 0);
}

static inline void sysenter(struct cpu *cpu, const struct insn *insn)
{
	uint16_t selector = (uint16_t)cpu->msr.sysenter_cs & 0xfffc;
	bool long_mode = cpu_ia32e(cpu);

	(void)insn;
	check_sysenter_cs(cpu);
	cpu->reg[RSP] = long_mode ? cpu->msr.sysenter_esp : (uint32_t)cpu->msr.sysenter_esp;
	set_code(cpu, selector, 0, long_mode);
	set_stack(cpu, (uint16_t)(selector + 8), 0);
	enter(cpu, long_mode ? cpu->msr.sysenter_eip : (uint32_t)cpu->msr.sysenter_eip,
	      rflags_get(cpu) & ~(uint64_t)(RFLAGS_VM | RFLAGS_IF | RFLAGS_RF));
}
DEFINE_BRANCH(sysenter)

static inline void sysexit(struct cpu *cpu, const struct insn *insn, unsigned width)
{
	bool wide = width == 8;
	uint16_t selector = (uint16_t)((cpu->msr.sysenter_cs & 0xfffc) + (wide ? 32 : 16)) | 3;
	uint64_t rip = wide ? cpu->reg[RDX] : (uint32_t)cpu->reg[RDX];
	uint64_t rsp = wide ? cpu->reg[RCX] : (uint32_t)cpu->reg[RCX];

	(void)insn;
	check_sysenter_cs(cpu);
	if (CHECK(SYSEXIT_CANONICAL,
		  wide && (!linear_is_canonical(cpu, rip) || !linear_is_canonical(cpu, rsp))))
		cpu_raise(cpu, VECTOR_GP, 0);
	cpu->reg[RSP] = rsp;
	set_code(cpu, selector, 3, wide);
	set_stack(cpu, (uint16_t)(selector + 8), 3);
	enter(cpu, rip, rflags_get(cpu) & ~(uint64_t)RFLAGS_RF);
}
DEFINE_BRANCH_W(sysexit)
