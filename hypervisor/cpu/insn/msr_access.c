/* msr_access.c: RDMSR WRMSR, SWAPGS, RDFSBASE RDGSBASE WRFSBASE WRGSBASE (SDM 2B, 2D; APM 3 chapters 3, 4).
 */
#include "cpu/checks.h"
#include "cpu/control.h"
#include "cpu/guest.h"
#include "cpu/insn/operand.h"
#include "cpu/segment.h"

static inline void rdmsr(struct cpu *cpu, const struct insn *insn)
{
	uint64_t value;

	(void)insn;
	if (!guest_read_x2apic(cpu, (uint32_t)cpu->reg[RCX], &value) &&
	    !msr_read(cpu, (uint32_t)cpu->reg[RCX], &value))
		cpu_raise(cpu, VECTOR_GP, 0);
	cpu->reg[RAX] = (uint32_t)value;
	cpu->reg[RDX] = value >> 32;
}
DEFINE_INSN(rdmsr)

static inline void wrmsr(struct cpu *cpu, const struct insn *insn)
{
	uint64_t value = cpu->reg[RDX] << 32 | (uint32_t)cpu->reg[RAX];

	(void)insn;
	if (!guest_write_x2apic(cpu, (uint32_t)cpu->reg[RCX], value) &&
	    !msr_write(cpu, (uint32_t)cpu->reg[RCX], value))
		cpu_raise(cpu, VECTOR_GP, 0);
}
DEFINE_INSN(wrmsr)

/* ---- FS and GS bases ---- */

static void set_base(struct cpu *cpu, enum segment_register segment, uint64_t base)
{
	cpu->segment[segment].s.base = base;
	segment_derive(cpu, segment);
}

static inline void swapgs(struct cpu *cpu, const struct insn *insn)
{
	uint64_t base = cpu->segment[GS].s.base;

	(void)insn;
	set_base(cpu, GS, cpu->msr.kernel_gs_base);
	cpu->msr.kernel_gs_base = base;
}
DEFINE_INSN(swapgs)

static inline void rdfsbase(struct cpu *cpu, const struct insn *insn, unsigned width)
{
	reg_write(cpu, insn->rm, truncate(cpu->segment[FS].s.base, width), width);
}
DEFINE_INSN_W(rdfsbase)

static inline void rdgsbase(struct cpu *cpu, const struct insn *insn, unsigned width)
{
	reg_write(cpu, insn->rm, truncate(cpu->segment[GS].s.base, width), width);
}
DEFINE_INSN_W(rdgsbase)

HANDLER_INLINE void write_base(struct cpu *cpu, const struct insn *insn, enum segment_register segment,
			       unsigned width)
{
	uint64_t base = reg_read(cpu, insn->rm, width);

	if (CHECK(BASE_CANONICAL, !linear_is_canonical(cpu, base)))
		cpu_raise(cpu, VECTOR_GP, 0);
	set_base(cpu, segment, base);
}

static inline void wrfsbase(struct cpu *cpu, const struct insn *insn, unsigned width)
{
	write_base(cpu, insn, FS, width);
}
DEFINE_INSN_W(wrfsbase)

static inline void wrgsbase(struct cpu *cpu, const struct insn *insn, unsigned width)
{
	write_base(cpu, insn, GS, width);
}
DEFINE_INSN_W(wrgsbase)
