/*
 * monitor.c: HLT RSM, MONITOR MWAIT MONITORX MWAITX UMONITOR UMWAIT TPAUSE, CLAC STAC, RDPKRU WRPKRU
 * (SDM 2A to 2D; APM 3 chapters 3, 4).
 *
 * All of the waits are ACTIVITY_MWAIT, with how it ends in cpu->wait. There is no wait where no monitor is armed: a
 * store to its line, or the delivery of an event, has disarmed it.
 */
#include "cpu/checks.h"
#include "cpu/control.h"
#include "cpu/insn/operand.h"
#include "cpu/mem/phys.h"
#include "cpu/smm.h"
#include "cpu/guest.h"

static inline void hlt(struct cpu *cpu, const struct insn *insn)
{
	(void)insn;
	cpu->activity = ACTIVITY_HLT;
}
DEFINE_INSN(hlt)

static inline void rsm(struct cpu *cpu, const struct insn *insn)
{
	(void)insn;
	smm_resume(cpu);
}
DEFINE_BRANCH(rsm)

/* ---- MONITOR and its kin ---- */

/* The address counts as a read of one byte. */
static void arm_monitor(struct cpu *cpu, const struct insn *insn, unsigned reg)
{
	uint64_t offset = cpu->reg[reg] << insn->address_shift >> insn->address_shift;

	uint64_t physical = mem_check_physical(cpu, insn->segment, offset);

	svm_check_handler(cpu, insn);
	cpu->wait.line = physical & ~(uint64_t)(MONITOR_LINE - 1);
	cpu->wait.armed = true;
	phys_set_monitored(cpu->memory, cpu->wait.line);
}

/* Waits for @ticks at most; with @masked, for interrupts with IF = 0 as well. */
static void wait_begin(struct cpu *cpu, uint64_t ticks, bool masked, bool carry)
{
	uint64_t now = cpu_ticks(cpu);

	cpu->wait.masked = masked;
	cpu->wait.carry = carry;
	cpu->wait.until = ticks < UINT64_MAX - now ? now + ticks : UINT64_MAX;
	cpu->activity = ACTIVITY_MWAIT;
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
	arm_monitor(cpu, insn, RAX);
}
DEFINE_INSN(monitor)

/* ECX[0]: interrupts end the wait even where IF = 0 (CPUID.5:ECX[1]). */
static inline void mwait(struct cpu *cpu, const struct insn *insn)
{
	(void)insn;
	check_monitor_enabled(cpu);
	check_extensions(cpu, 1);
	if (svm_guest(cpu))
		svm_check_mwait(cpu);
	if (cpu->wait.armed && !guest_ends_wait(cpu, cpu->reg[RCX] & 1))
		wait_begin(cpu, UINT64_MAX, cpu->reg[RCX] & 1, false);
}
DEFINE_INSN(mwait)

static inline void monitorx(struct cpu *cpu, const struct insn *insn)
{
	check_extensions(cpu, 0);
	arm_monitor(cpu, insn, RAX);
}
DEFINE_INSN(monitorx)

/* ECX[1]: EBX is a limit of time, in cycles of the TSC. */
static inline void mwaitx(struct cpu *cpu, const struct insn *insn)
{
	uint64_t limit = cpu->reg[RCX] & 2 ? (uint32_t)cpu->reg[RBX] : UINT64_MAX;

	(void)insn;
	check_extensions(cpu, 3);
	if (svm_guest(cpu))
		svm_check_mwait(cpu);
	if (cpu->wait.armed)
		wait_begin(cpu, limit, cpu->reg[RCX] & 1, false);
}
DEFINE_INSN(mwaitx)

static inline void umonitor(struct cpu *cpu, const struct insn *insn)
{
	arm_monitor(cpu, insn, insn->rm);
}
DEFINE_INSN(umonitor)

/*
 * UMWAIT, TPAUSE: until the TSC is EDX:EAX, or the operating system's limit of time has passed, which CF = 1 tells; the
 * other five flags are cleared (SDM 2D, SDM 4 IA32_UMWAIT_CONTROL).
 */
static void user_wait(struct cpu *cpu, const struct insn *insn, bool monitor)
{
	uint64_t deadline = cpu->reg[RDX] << 32 | (uint32_t)cpu->reg[RAX], now = control_tsc_read(cpu);
	uint64_t limit = cpu->msr.umwait_control & ~3ull, ticks;

	if (CHECK(WAIT_RESERVED, reg_read(cpu, insn->rm, 4) & ~1ull))
		cpu_raise(cpu, VECTOR_GP, 0);
	flags_set(&cpu->lazy, 0);
	if (deadline <= now || (monitor && !cpu->wait.armed))
		return;
	cpu->wait.armed = monitor;
	ticks = guest_ticks(cpu, deadline - now); /* the deadline is one of the guest's TSC (SDM 3C 26.3) */
	if (limit && limit < ticks)
		wait_begin(cpu, limit, true, true);
	else
		wait_begin(cpu, ticks, true, false);
}

static inline void umwait(struct cpu *cpu, const struct insn *insn) { user_wait(cpu, insn, true); }
DEFINE_INSN(umwait)

static inline void tpause(struct cpu *cpu, const struct insn *insn) { user_wait(cpu, insn, false); }
DEFINE_INSN(tpause)

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
