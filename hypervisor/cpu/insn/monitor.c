/*
 * monitor.c: HLT RSM, MONITOR MWAIT MONITORX MWAITX UMONITOR UMWAIT TPAUSE, CLAC STAC, RDPKRU WRPKRU
 * (SDM 2A to 2D; APM 3 chapters 3, 4).
 *
 * A wait ends at once: the manuals let it end for reasons of the processor's own, and software must
 * look at its condition again.
 */
#include "cpu/checks.h"
#include "cpu/control.h"
#include "cpu/insn/operand.h"

static inline void hlt(struct cpu *cpu, const struct insn *insn)
{
	(void)insn;
	cpu->activity = ACTIVITY_HLT;
}
DEFINE_INSN(hlt)

static inline void rsm(struct cpu *cpu, const struct insn *insn)
{
	(void)insn;
	cpu_unmodelled(cpu, "RSM: system-management mode");
}
DEFINE_INSN(rsm)

/* ---- MONITOR and its kin ---- */

/* The address counts as a read of one byte. */
static void monitor_address(struct cpu *cpu, const struct insn *insn, unsigned reg)
{
	mem_check_read(cpu, insn->segment, cpu->reg[reg] << insn->address_shift >> insn->address_shift, 1);
}

static void check_extensions(struct cpu *cpu, uint32_t allowed)
{
	if (CHECK(MONITOR_EXTENSIONS, (uint32_t)cpu->reg[RCX] & ~allowed))
		cpu_raise(cpu, VECTOR_GP, 0);
}

static void check_monitor_enabled(struct cpu *cpu)
{
	if (CHECK(MONITOR_DISABLED, !cpuid_monitor_enabled(cpu)))
		cpu_raise(cpu, VECTOR_UD, 0);
}

static inline void monitor(struct cpu *cpu, const struct insn *insn)
{
	check_monitor_enabled(cpu);
	check_extensions(cpu, 0);
	monitor_address(cpu, insn, RAX);
}
DEFINE_INSN(monitor)

/* ECX[0]: interrupts end the wait even where IF = 0 (CPUID.5:ECX[1]). */
static inline void mwait(struct cpu *cpu, const struct insn *insn)
{
	(void)insn;
	check_monitor_enabled(cpu);
	check_extensions(cpu, 1);
}
DEFINE_INSN(mwait)

static inline void monitorx(struct cpu *cpu, const struct insn *insn)
{
	check_extensions(cpu, 0);
	monitor_address(cpu, insn, RAX);
}
DEFINE_INSN(monitorx)

/* ECX[1]: EBX is a limit of time. */
static inline void mwaitx(struct cpu *cpu, const struct insn *insn)
{
	(void)insn;
	check_extensions(cpu, 3);
}
DEFINE_INSN(mwaitx)

static inline void umonitor(struct cpu *cpu, const struct insn *insn)
{
	monitor_address(cpu, insn, insn->rm);
}
DEFINE_INSN(umonitor)

/* UMWAIT, TPAUSE. CF = 0: the operating system's limit of time was not met; the other five are cleared. */
static inline void user_wait(struct cpu *cpu, const struct insn *insn)
{
	if (CHECK(WAIT_RESERVED, reg_read(cpu, insn->rm, 4) & ~1ull))
		cpu_raise(cpu, VECTOR_GP, 0);
	flags_set(&cpu->lazy, 0);
}
DEFINE_INSN(user_wait)

/* ---- SMAP and protection keys ---- */

static inline void clac(struct cpu *cpu, const struct insn *insn)
{
	(void)insn;
	rflags_set(cpu, 0, RFLAGS_AC);
}
DEFINE_INSN(clac)

static inline void stac(struct cpu *cpu, const struct insn *insn)
{
	(void)insn;
	rflags_set(cpu, RFLAGS_AC, RFLAGS_AC);
}
DEFINE_INSN(stac)

static inline void rdpkru(struct cpu *cpu, const struct insn *insn)
{
	(void)insn;
	if (CHECK(PKRU_ECX, (uint32_t)cpu->reg[RCX]))
		cpu_raise(cpu, VECTOR_GP, 0);
	cpu->reg[RAX] = cpu->pkru;
	cpu->reg[RDX] = 0;
}
DEFINE_INSN(rdpkru)

static inline void wrpkru(struct cpu *cpu, const struct insn *insn)
{
	(void)insn;
	if (CHECK(PKRU_ECX, (uint32_t)cpu->reg[RCX]) || CHECK(PKRU_EDX, (uint32_t)cpu->reg[RDX]))
		cpu_raise(cpu, VECTOR_GP, 0);
	cpu->pkru = (uint32_t)cpu->reg[RAX];
	tlb_select(cpu);
}
DEFINE_INSN(wrpkru)

/* ---- rows of features that no profile has ---- */

/* profile_parse() refuses to switch these features on; with the row's gates broken, this tells. */
static inline void not_modelled(struct cpu *cpu, const struct insn *insn)
{
	(void)insn;
	cpu_unmodelled(cpu, "instruction of a feature that is not modelled");
}
DEFINE_INSN(not_modelled)
