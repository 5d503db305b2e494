/* time.c: RDTSC RDTSCP RDPID RDPMC RDPRU (SDM 2B; APM 3 chapters 3 and 4). TSD and PCE are gates. */
#include "cpu/control.h"
#include "cpu/guest.h"
#include "cpu/insn/operand.h"
#include "cpu/svm/svm.h"

static void write_edx_eax(struct cpu *cpu, uint64_t value)
{
	cpu->reg[RAX] = (uint32_t)value;
	cpu->reg[RDX] = value >> 32;
}

static inline void rdtsc(struct cpu *cpu, const struct insn *insn)
{
	(void)insn;
	write_edx_eax(cpu, control_tsc_read(cpu));
}
DEFINE_INSN(rdtsc)

static inline void rdtscp(struct cpu *cpu, const struct insn *insn)
{
	(void)insn;
	write_edx_eax(cpu, control_tsc_read(cpu));
	cpu->reg[RCX] = (uint32_t)cpu->msr.tsc_aux;
}
DEFINE_INSN(rdtscp)

static inline void rdpid(struct cpu *cpu, const struct insn *insn)
{
	reg_write(cpu, insn->rm, (uint32_t)cpu->msr.tsc_aux, cpu_64bit(cpu) ? 8 : 4);
}
DEFINE_INSN(rdpid)

static inline void rdpmc(struct cpu *cpu, const struct insn *insn)
{
	uint64_t value;

	if (!msr_read_counter(cpu, (uint32_t)cpu->reg[RCX], &value))
		cpu_raise(cpu, VECTOR_GP, 0);
	svm_check_handler(cpu, insn);
	write_edx_eax(cpu, value);
}
DEFINE_INSN(rdpmc)

/* ECX = 0: MPERF, 1: APERF. For any other register, EDX:EAX = 0 (APM 3 RDPRU). */
static inline void rdpru(struct cpu *cpu, const struct insn *insn)
{
	uint32_t index = (uint32_t)cpu->reg[RCX];
	uint64_t value = 0;

	(void)insn;
	if (index < 2)
		value = cpu_retired(cpu) + (index ? cpu->msr.aperf : cpu->msr.mperf);
	if (index == 0)
		value = guest_mperf(cpu, value);
	write_edx_eax(cpu, value);
}
DEFINE_INSN(rdpru)
