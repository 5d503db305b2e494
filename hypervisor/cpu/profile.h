/*
 * profile.h: what a processor is: its vendor, CPUID leaves and features.
 *
 * A profile is data (profiles.def); a command line makes a copy with single features
 * switched. An instruction whose feature is off raises #UD, a control bit whose
 * feature is off is reserved.
 */
#ifndef TRAPLINE_CPU_PROFILE_H
#define TRAPLINE_CPU_PROFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "x86/guest_cpu.h"

enum feature {
	FEATURE_NONE,
#define FEATURE(name, leaf, subleaf, reg, bit) FEATURE_##name,
#include "x86/features.def"
#undef FEATURE
	FEATURE_COUNT
};

enum vendor { VENDOR_INTEL, VENDOR_AMD };

struct cpuid_registers {
	uint32_t eax, ebx, ecx, edx;
};

struct profile {
	char name[32];
	enum vendor vendor; /* whose manual it behaves by */
	enum vendor told;   /* whose the guest was told it is: another one only of a guest that has come from there */
	uint8_t physical_bits, linear_bits; /* CPUID.80000008H */
	uint32_t signature;                 /* CPUID.1:EAX: family, model, stepping */
	unsigned processors;                /* of the machine: cores of one package, one thread each; 0 is 1 */
	uint64_t features[(FEATURE_COUNT + 63) / 64];
	const struct guest_cpu *guest; /* CPUID as the guest knows it from elsewhere, borrowed; NULL: the profile's own */
};

/*
 * How long a tick of the TSC lasts, in nanoseconds; an instruction takes one tick. All that says how fast the
 * processor is (CPUID leaves 15H and 16H, MSR_PLATFORM_INFO, the brand) and all that makes time of instructions
 * follows this. A divisor of 1000.
 */
#define PROFILE_TICK_NS 1u
#define PROFILE_TSC_MHZ (1000u / PROFILE_TICK_NS)
/* The core crystal clock, which is the local APIC timer's as well (SDM 3A 11.5.4). */
#define PROFILE_CRYSTAL_NS 1u
#define PROFILE_CRYSTAL_HZ (1000000000u / PROFILE_CRYSTAL_NS)

static inline bool profile_has(const struct profile *profile, enum feature feature)
{
	return profile->features[feature / 64] >> (feature % 64) & 1;
}

/*
 * Fills @profile from "NAME[,+feature,-feature…]"; -svm takes the features of CPUID leaf 8000_000AH with it. The word
 * "common" takes away all that not every profile has (or has in another way, as XSAVE's component of PKU), and
 * "phys-bits=N" makes physical addresses shorter. Returns 0, or -EINVAL with @why (of @size bytes) saying which word
 * is unknown and what the choices are.
 */
int profile_parse(struct profile *profile, const char *text, char *why, size_t size);

/* What the guest is told, but for the name. */
void profile_tell(const struct profile *profile, struct guest_cpu *to);
/*
 * From now on the profile is for a guest that was told @from, which it borrows: it answers CPUID by it, and has the
 * features in it and no others. engine/guest_cpu.h says before whether it has all of them. 0, or -EINVAL with @why
 * where a feature needs one that is not there.
 */
int profile_take(struct profile *profile, const struct guest_cpu *from, char *why, size_t size);

/* Name of a feature as the command line takes it, or NULL past the last. */
const char *profile_feature_name(enum feature feature);

/* Bits of XCR0 that the profile's processor knows (CPUID.0DH:EDX:EAX). */
uint64_t profile_xcr0_valid(const struct profile *profile);

/* Where a component of the XSAVE area lies in the standard form, and its size in bytes (2 and above). */
struct xsave_component {
	uint32_t offset, size;
};
struct xsave_component profile_xsave_component(const struct profile *profile, unsigned component);
/* Bytes that an XSAVE area with these components takes (SDM 1 13.4). */
uint32_t profile_xsave_size(const struct profile *profile, uint64_t components, bool compacted);

/* Performance counters: CPUID.0AH on Intel; four legacy ones on AMD (APM 2 13.2). */
#define PROFILE_INTEL_COUNTERS 4u
#define PROFILE_AMD_COUNTERS   4u

/* Name of the profile with this index (0, 1, …), or NULL past the last. */
const char *profile_name(unsigned index);

/* The bits of a capability MSR of VT-x (480H to 491H) that are features of their own (features.def). */
uint64_t profile_vmx_bits(const struct profile *profile, uint32_t msr);

/* CPUID as the profile's processor answers without a running CPU's state (OSXSAVE, APIC id). */
struct cpuid_registers profile_cpuid(const struct profile *profile, uint32_t leaf, uint32_t subleaf);

#endif
