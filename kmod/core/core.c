/* core.c: vCPUs, and the vendor that is asked. */
#include "kmod/core/core.h"

const char *core_probe(struct core_machine *machine)
{
	const char *svm = svm_missing(), *vmx = svm ? vmx_missing() : NULL;

	machine->vendor = svm ? CORE_VMX : CORE_SVM;
	if (svm && vmx)
		return "neither AMD-V (cpuid.80000001.0.ecx[2]=0) nor VT-x (cpuid.1.0.ecx[5]=0) can be used "
		       "here";
	return NULL;
}

const char *core_create(struct core_vcpu *vcpu, struct core_machine *machine)
{
	uint32_t r[4];

	hw_cpuid(1, 0, r);
	vcpu->machine = machine;
	vcpu->apic_id = r[1] >> 24;
	if (!vcpu->tables)
		vcpu->tables = tables_new();
	if (!vcpu->tables)
		return "no memory for a vCPU's tables";
	/* All memory at once, so that nothing of it faults in the middle of an event. */
	for (uint64_t at = 0; at < machine->hidden; at += TABLES_LARGE)
		tables_fill(vcpu, at);
	/* In pages where cases have their bytes (x86/l1.h). */
	tables_set(vcpu, 0, 0, CORE_READ | CORE_WRITE | CORE_EXECUTE);
	return CORE_CALL(vcpu, create, vcpu);
}

void core_start(struct core_vcpu *vcpu, const struct core_start *start)
{
	uint32_t r[4];

	for (unsigned n = 0; n < GPR_COUNT; n++)
		vcpu->gpr[n] = 0;
	if (start->real) { /* as INIT leaves them: EDX is the processor's signature */
		hw_cpuid(1, 0, r);
		vcpu->gpr[RDX] = r[0];
		vcpu->rip = 0;
	} else {
		vcpu->gpr[RAX] = start->rax;
		vcpu->gpr[RBX] = start->rbx;
		vcpu->gpr[RSI] = start->rsi;
		vcpu->rip = start->rip;
	}
	vcpu->record = (struct core_record){0};
	vcpu->step.on = false;
	CORE_CALL(vcpu, start, vcpu, start);
	apic_watch(vcpu);
}

void core_run(struct core_vcpu *vcpu)
{
	if (vcpu->machine->vendor == CORE_SVM)
		for (;;)
			svm_run(vcpu);
	for (;;)
		vmx_run(vcpu);
}
