/*
 * guest_cpu.h: the processor that a guest was told it has: its CPUID, as a table that travels with the guest.
 *
 * A guest keeps the CPUID that it booted with, wherever it runs. The table is what vCPU 0 reads after RESET:
 * rows have APIC id 0, and the bits that follow control registers (OSXSAVE, OSPKE, the sizes of leaf DH) as
 * they are then. Leaves 480H to 491H are no leaves but VT-x's capability MSRs, as in features.def.
 * engine/guest_cpu.h prints, reads and compares it.
 */
#ifndef TRAPLINE_X86_GUEST_CPU_H
#define TRAPLINE_X86_GUEST_CPU_H

#include <stdbool.h>
#include <stdint.h>

#define GUEST_CPU_ROWS 256u
#define GUEST_CPU_NAME 256u

struct cpuid_row {
	uint32_t leaf, subleaf;
	uint32_t by_subleaf; /* the leaf has subleaves; else it answers to all alike */
	uint32_t value[4];   /* EAX, EBX, ECX, EDX */
};

struct guest_cpu {
	char name[GUEST_CPU_NAME]; /* the profile that it booted with, as on the command line */
	uint32_t tsc_khz;          /* 0: not known */
	uint32_t apic_timer_ns;    /* period of the local APIC's timer, before its divider */
	uint32_t count;
	struct cpuid_row row[GUEST_CPU_ROWS];
};

#define GUEST_CPU_VMX_FIRST 0x480u
#define GUEST_CPU_VMX_LAST  0x491u

static inline const struct cpuid_row *guest_cpu_row(const struct guest_cpu *cpu, uint32_t leaf,
						    uint32_t subleaf)
{
	for (uint32_t i = 0; i < cpu->count; i++)
		if (cpu->row[i].leaf == leaf && (!cpu->row[i].by_subleaf || cpu->row[i].subleaf == subleaf))
			return &cpu->row[i];
	return 0;
}

/* A register of a leaf, 0 for EAX to 3 for EDX; 0 where there is no such row. */
static inline uint32_t guest_cpu_value(const struct guest_cpu *cpu, uint32_t leaf, uint32_t subleaf,
				       unsigned output)
{
	const struct cpuid_row *row = guest_cpu_row(cpu, leaf, subleaf);

	return row ? row->value[output] : 0;
}

/* "AuthenticAMD" and "HygonGenuine" do as the APM says, all others as the SDM does. */
static inline bool guest_cpu_is_amd(const struct guest_cpu *cpu)
{
	uint32_t first = guest_cpu_value(cpu, 0, 0, 1);

	return first == 0x68747541 || first == 0x6f677948;
}

/*
 * What CPUID answers. Above the highest leaf of its range an Intel processor answers with the highest basic
 * leaf (SDM 2A CPUID), one by AMD with zeros (APM 3 E.2); a topology leaf gives an unknown subleaf back in
 * ECX[7:0].
 */
static inline struct cpuid_row guest_cpu_answer(const struct guest_cpu *cpu, uint32_t leaf, uint32_t subleaf)
{
	uint32_t base = leaf & 0xf0000000;
	struct cpuid_row none = {.leaf = leaf, .subleaf = subleaf, .by_subleaf = 0, .value = {0, 0, 0, 0}};
	const struct cpuid_row *row = 0;
	uint32_t highest = guest_cpu_value(cpu, base, 0, 0);

	if (guest_cpu_row(cpu, base, 0) && leaf <= highest) {
		row = guest_cpu_row(cpu, leaf, subleaf);
		if (!row && (leaf == 0xb || leaf == 0x1f) && guest_cpu_row(cpu, leaf, 0))
			none.value[2] = subleaf & 0xff;
	} else if (!guest_cpu_is_amd(cpu)) {
		row = guest_cpu_row(cpu, guest_cpu_value(cpu, 0, 0, 0), subleaf);
	}
	return row ? *row : none;
}

#endif
