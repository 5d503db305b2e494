/* unfinished.c: stands for world.c until that is there. */
#include "cpu/vmx/vmx.h"

void vmx_enter(struct cpu *cpu, bool launch)
{
	cpu_unmodelled(cpu, launch ? "VM entry by VMLAUNCH" : "VM entry by VMRESUME");
}

void vmx_exit(struct cpu *cpu, const struct vmx_exit_info *info)
{
	(void)info;
	cpu_unmodelled(cpu, "a VM exit");
}

void vmx_exit_insn(struct cpu *cpu, const struct vmx_exit_info *info)
{
	(void)info;
	cpu_unmodelled(cpu, "a VM exit");
}
