/* unfinished.c: stands for world.c until that is there. */
#include "cpu/vmx/vmx.h"

void vmx_enter(struct cpu *cpu, bool launch)
{
	cpu_unmodelled(cpu, launch ? "VM entry by VMLAUNCH" : "VM entry by VMRESUME");
}
