/* cpuid.c: CPUID: the profile's leaves with what the running processor changes in them (SDM 2A, APM 3). */
#include "cpu/checks.h"
#include "cpu/control.h"
#include "cpu/insn/operand.h"
#include "x86/msr.h"

#define LEAF1_ECX_MONITOR     (1u << 3)
#define LEAF1_ECX_OSXSAVE     (1u << 27)
#define LEAF1_EDX_APIC        (1u << 9)
#define LEAF7_ECX_OSPKE       (1u << 4)
#define EXTENDED1_EDX_SYSCALL (1u << 11)
#define EXTENDED1_EDX_NX      (1u << 20)

static bool is_intel(const struct cpu *cpu) { return cpu->profile->vendor == VENDOR_INTEL; }
/* What CPUID says is the guest's own, also where it has come from the other vendor's processor. */
static bool told_intel(const struct cpu *cpu) { return cpu->profile->told == VENDOR_INTEL; }

/* CPUID faulting: SDM 4 table 2-2 (MISC_FEATURES_ENABLES), APM 2 3.2.10 (HWCR.CpuidUserDis). */
static bool user_is_refused(const struct cpu *cpu)
{
	bool intel = cpu->msr.misc_features_enables & MISC_FEATURES_CPUID_FAULTING;

	return cpu->cpl > 0 && (is_intel(cpu) ? intel : (cpu->msr.hwcr & HWCR_CPUID_USER_DISABLE) != 0);
}

/* Whether MONITOR and MWAIT are there now. */
bool cpuid_monitor_enabled(const struct cpu *cpu)
{
	return is_intel(cpu) ? cpu->msr.misc_enable & MISC_ENABLE_MONITOR
			     : !(cpu->msr.hwcr & HWCR_MONITOR_DISABLE);
}

static bool apic_enabled(struct cpu *cpu)
{
	uint64_t base;

	return !cpu_has(cpu, FEATURE_apic) || !msr_read(cpu, MSR_APIC_BASE, &base) || base & APIC_BASE_ENABLE;
}

static void leaf_1(struct cpu *cpu, struct cpuid_registers *r)
{
	r->ebx |= cpu->apic_id << 24;
	if (cpu->cr4 & CR4_OSXSAVE)
		r->ecx |= LEAF1_ECX_OSXSAVE;
	if (!cpuid_monitor_enabled(cpu))
		r->ecx &= ~LEAF1_ECX_MONITOR;
	if (!apic_enabled(cpu))
		r->edx &= ~LEAF1_EDX_APIC;
}

/* Sizes for the components that are enabled now. */
static void leaf_xsave(const struct cpu *cpu, uint32_t subleaf, struct cpuid_registers *r)
{
	if (!cpu_has(cpu, FEATURE_xsave))
		return;
	if (subleaf == 0)
		r->ebx = profile_xsave_size(cpu->profile, cpu->xcr0, false);
	if (subleaf == 1 && cpu_has(cpu, FEATURE_xsavec))
		r->ebx = profile_xsave_size(cpu->profile, cpu->xcr0 | cpu->msr.xss, true);
}

/* An Intel processor says that it has SYSCALL in 64-bit mode only. */
static void leaf_extended_1(const struct cpu *cpu, struct cpuid_registers *r)
{
	if (told_intel(cpu) && !cpu_64bit(cpu))
		r->edx &= ~EXTENDED1_EDX_SYSCALL;
	if (control_nx_disabled(cpu))
		r->edx &= ~EXTENDED1_EDX_NX;
}

/* What the profile answers: guests ask the same few leaves again and again. */
static struct cpuid_registers cpuid_of_profile(struct cpu *cpu, uint32_t leaf, uint32_t subleaf)
{
	struct cpuid_answer *answer = &cpu->cpuid[(leaf ^ leaf >> 28 ^ subleaf) % CPUID_ANSWERS];

	if (!answer->known || answer->leaf != leaf || answer->subleaf != subleaf)
		*answer = (struct cpuid_answer){true, leaf, subleaf,
						profile_cpuid(cpu->profile, leaf, subleaf)};
	return answer->registers;
}

static struct cpuid_registers cpuid_now(struct cpu *cpu, uint32_t leaf, uint32_t subleaf)
{
	struct cpuid_registers r = cpuid_of_profile(cpu, leaf, subleaf);

	switch (leaf) {
	case 0:
		if (told_intel(cpu) && cpu->msr.misc_enable & MISC_ENABLE_LIMIT_CPUID && r.eax > 2)
			r.eax = 2;
		break;
	case 1: leaf_1(cpu, &r); break;
	case 7:
		if (subleaf == 0 && cpu->cr4 & CR4_PKE)
			r.ecx |= LEAF7_ECX_OSPKE;
		break;
	case 0xb: r.edx = cpu->apic_id; break;
	case 0xd: leaf_xsave(cpu, subleaf, &r); break;
	case 0x80000001: leaf_extended_1(cpu, &r); break;
	case 0x8000001e:
		if (cpu_has(cpu, FEATURE_topoext)) {
			r.eax = cpu->apic_id;
			r.ebx = cpu->apic_id & 0xff; /* the core's id; one thread in each */
		}
		break;
	default: break;
	}
	return r;
}

static inline void cpuid(struct cpu *cpu, const struct insn *insn)
{
	(void)insn;
	if (CHECK(CPUID_FAULTING, user_is_refused(cpu)))
		cpu_raise(cpu, VECTOR_GP, 0);

	struct cpuid_registers r = cpuid_now(cpu, (uint32_t)cpu->reg[RAX], (uint32_t)cpu->reg[RCX]);
	cpu->reg[RAX] = r.eax;
	cpu->reg[RBX] = r.ebx;
	cpu->reg[RCX] = r.ecx;
	cpu->reg[RDX] = r.edx;
}
DEFINE_INSN(cpuid)
