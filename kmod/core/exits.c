/* exits.c: exits that both vendors have. */
#include "kmod/core/core.h"
#include "x86/l1.h"
#include "x86/msr.h"
#include "x86/vectors.h"

#define CPUID_1_ECX_OSXSAVE (1u << 27)
#define CPUID_7_ECX_OSPKE   (1u << 4)

static uint32_t with(uint32_t value, uint32_t bit, bool set) { return set ? value | bit : value & ~bit; }

/* What CPUID tells of CR4 is told of the guest's. */
static void guest_cpuid(struct core_vcpu *vcpu, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
	uint64_t cr4 = CORE_CALL(vcpu, cr4, vcpu);

	hw_cpuid(leaf, subleaf, out);
	if (leaf == 1)
		out[2] = with(out[2], CPUID_1_ECX_OSXSAVE, cr4 & CR4_OSXSAVE);
	if (leaf == 7 && subleaf == 0)
		out[2] = with(out[2], CPUID_7_ECX_OSPKE, cr4 & CR4_PKE);
	CORE_CALL(vcpu, cpuid, vcpu, leaf, subleaf, out);
}

void core_exit_cpuid(struct core_vcpu *vcpu)
{
	uint32_t leaf = (uint32_t)vcpu->gpr[RAX], subleaf = (uint32_t)vcpu->gpr[RCX], out[4];

	if (leaf == L1_LEAF) {
		/* Before the guest's registers change, which are the call's parameters. */
		record_call(vcpu, subleaf, out);
	} else {
		guest_cpuid(vcpu, leaf, subleaf, out);
	}
	vcpu->gpr[RAX] = out[0];
	vcpu->gpr[RBX] = out[1];
	vcpu->gpr[RCX] = out[2];
	vcpu->gpr[RDX] = out[3];
	CORE_CALL(vcpu, skip, vcpu);
}

void core_exit_rdmsr(struct core_vcpu *vcpu)
{
	uint32_t index = (uint32_t)vcpu->gpr[RCX];
	uint64_t value = 0;
	enum core_msr how = CORE_CALL(vcpu, read_msr, vcpu, index, &value);

	if (how == MSR_NOT_MINE)
		how = hw_try_read_msr(index, &value) ? MSR_DONE : MSR_FAULT;
	if (how == MSR_FAULT) {
		CORE_CALL(vcpu, raise, vcpu, VECTOR_GP, 0);
		return;
	}
	vcpu->gpr[RAX] = (uint32_t)value;
	vcpu->gpr[RDX] = value >> 32;
	CORE_CALL(vcpu, skip, vcpu);
}

static enum core_msr write_other(struct core_vcpu *vcpu, uint32_t index, uint64_t value)
{
	bool done;

	if (vcpu->apic_page && index - MSR_X2APIC_FIRST < MSR_X2APIC_COUNT)
		return apic_write_msr(vcpu, index, value) ? MSR_DONE : MSR_FAULT;
	done = hw_try_write_msr(index, value);
	if (done && vcpu->apic_page && index == MSR_APIC_BASE)
		apic_watch(vcpu);
	return done ? MSR_DONE : MSR_FAULT;
}

bool core_write_msr(struct core_vcpu *vcpu, uint32_t index, uint64_t value)
{
	enum core_msr how = CORE_CALL(vcpu, write_msr, vcpu, index, value);

	if (how == MSR_NOT_MINE)
		how = write_other(vcpu, index, value);
	return how == MSR_DONE;
}

void core_exit_wrmsr(struct core_vcpu *vcpu)
{
	uint64_t value = (uint32_t)vcpu->gpr[RAX] | vcpu->gpr[RDX] << 32;

	if (core_write_msr(vcpu, (uint32_t)vcpu->gpr[RCX], value))
		CORE_CALL(vcpu, skip, vcpu);
	else
		CORE_CALL(vcpu, raise, vcpu, VECTOR_GP, 0);
}

void core_step_map(struct core_vcpu *vcpu, uint64_t host, unsigned access)
{
	if (vcpu->step.joined)
		CORE_CALL(vcpu, shadow_set, vcpu, vcpu->step.at, host, access);
	else
		*vcpu->apic_entry =
			CORE_CALL(vcpu, page_entry, vcpu, host & ~(uint64_t)(CORE_PAGE - 1), access, false);
	CORE_CALL(vcpu, flush, vcpu);
}

/* From the page of ours core_exit_stepped() takes what was written. */
static void step(struct core_vcpu *vcpu, uint64_t guest)
{
	vcpu->step.on = true;
	vcpu->step.guest = guest;
	core_step_map(vcpu, hw_physical(vcpu->step.page), CORE_READ | CORE_WRITE);
	CORE_CALL(vcpu, step, vcpu);
}

void core_step_write(struct core_vcpu *vcpu, uint64_t guest)
{
	vcpu->step.joined = false;
	step(vcpu, guest);
}

void core_step_joined(struct core_vcpu *vcpu, uint64_t at, uint64_t guest)
{
	vcpu->step.joined = true;
	vcpu->step.at = at;
	step(vcpu, guest);
}

void core_exit_memory(struct core_vcpu *vcpu, uint64_t guest, unsigned access)
{
	uint64_t page = guest & ~(uint64_t)(CORE_PAGE - 1);

	if (access & CORE_EXECUTE && record_reached(vcpu, guest))
		return;
	if (!tables_guests(vcpu->machine, page, CORE_PAGE))
		hw_stop("the guest reaches for the hypervisor's memory", guest);
	if (vcpu->apic_page && page == vcpu->apic_page && access & CORE_WRITE)
		core_step_write(vcpu, guest);
	else if (!tables_fill(vcpu, guest))
		hw_stop("the nested tables permit what the processor refuses", guest);
}

void core_exit_stepped(struct core_vcpu *vcpu, bool completed)
{
	struct core_step *step = &vcpu->step;
	unsigned offset = (unsigned)(step->guest & (CORE_PAGE - 1) & ~3u);

	step->on = false;
	core_step_map(vcpu, step->guest, CORE_READ);
	if (completed)
		apic_write(vcpu, offset, *(volatile uint32_t *)(step->page + offset));
}
