/* control_registers.c: MOV to and from control and debug registers (SDM 2B MOV; APM 3 MOV CRn, MOV DRn). */
#include "cpu/checks.h"
#include "cpu/control.h"
#include "cpu/guest.h"
#include "cpu/insn/operand.h"

static inline void mov_rd_cd(struct cpu *cpu, const struct insn *insn)
{
	uint64_t value = 0;

	switch (insn->reg) {
	case 0: value = guest_cr_read(cpu, 0); break;
	case 2: value = cpu->cr2; break;
	case 3: value = cpu->cr3; break;
	case 4: value = guest_cr_read(cpu, 4); break;
	default: value = guest_cr8_read(cpu); break; /* the decoder lets no other through */
	}
	reg_write(cpu, insn->rm, value, cpu_64bit(cpu) ? 8 : 4);
}
DEFINE_INSN(mov_rd_cd)

static inline void mov_cd_rd(struct cpu *cpu, const struct insn *insn)
{
	uint64_t value = reg_read(cpu, insn->rm, cpu_64bit(cpu) ? 8 : 4);

	switch (insn->reg) {
	case 0: control_write_cr0(cpu, guest_cr_merge(cpu, 0, value)); break;
	case 2:
		if (svm_guest(cpu))
			svm_check_cr_write(cpu, 2, value);
		cpu->cr2 = value;
		break;
	case 3: control_write_cr3(cpu, value); break;
	case 4: control_write_cr4(cpu, guest_cr_merge(cpu, 4, value)); break;
	default: control_write_cr8(cpu, value); break;
	}
}
DEFINE_INSN(mov_cd_rd)

/*
 * DR4 and DR5 are DR6 and DR7 (SDM 3B 18.2.2); with CR4.DE = 1 a gate has refused them, before the
 * privilege: an invalid opcode (SDM 3A 6.9). With DR7.GD = 1 any access is a #DB that says so in
 * DR6.BD (SDM 3B 18.2.4), the event itself clearing GD.
 */
static unsigned debug_register(struct cpu *cpu, unsigned number)
{
	if (CHECK(DR_GD, cpu->dr7 & DR7_GD)) {
		cpu->dr6_pending |= DR6_BD;
		cpu_raise(cpu, VECTOR_DB, 0);
	}
	return number == 4 || number == 5 ? number + 2 : number;
}

static inline void mov_rd_dd(struct cpu *cpu, const struct insn *insn)
{
	unsigned number = debug_register(cpu, insn->reg);

	svm_check_handler(cpu, insn);
	uint64_t value = number == 6 ? cpu->dr6 : number == 7 ? cpu->dr7 : cpu->dr[number & 3];

	reg_write(cpu, insn->rm, value, cpu_64bit(cpu) ? 8 : 4);
}
DEFINE_INSN(mov_rd_dd)

static inline void mov_dd_rd(struct cpu *cpu, const struct insn *insn)
{
	unsigned number = debug_register(cpu, insn->reg);

	control_write_dr(cpu, number, reg_read(cpu, insn->rm, cpu_64bit(cpu) ? 8 : 4));
}
DEFINE_INSN(mov_dd_rd)
