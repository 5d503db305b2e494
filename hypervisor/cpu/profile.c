/* profile.c: the processors of profiles.def, with single features switched, and their CPUID leaves. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cpu/profile.h"
#include "x86/registers.h"

enum cpuid_output { OUTPUT_eax, OUTPUT_ebx, OUTPUT_ecx, OUTPUT_edx };

struct feature_place {
	const char *name;
	uint32_t leaf, subleaf;
	enum cpuid_output output;
	unsigned bit;
};

static const struct feature_place places[FEATURE_COUNT] = {
#define FEATURE(name, leaf, subleaf, output, bit)                                                            \
	[FEATURE_##name] = {#name, leaf, subleaf, OUTPUT_##output, bit},
#include "x86/features.def"
#undef FEATURE
};

enum {
	AMD = 1 << VENDOR_AMD,
	INTEL = 1 << VENDOR_INTEL,
	BOTH = AMD | INTEL,
	OFF = 0,
	WITH_VMX = 0x40,
	UNMODELLED = 0x80
};

struct feature_model {
	uint8_t profiles; /* bits 1 << enum vendor, or WITH_VMX, UNMODELLED */
	uint8_t needs[4]; /* enum feature; FEATURE_NONE ends them */
};

static const struct feature_model models[FEATURE_COUNT] = {
#define PROFILE_FEATURE(feature, profiles, ...) [FEATURE_##feature] = {profiles, {__VA_ARGS__}},
#include "cpu/profiles.def"
#undef PROFILE_FEATURE
};
_Static_assert(FEATURE_COUNT <= 256, "feature_model.needs is of bytes");

struct base {
	const char *name;
	enum vendor vendor;
	uint32_t signature;
	uint8_t physical_bits;
	char brand[49]; /* CPUID.80000002H to 80000004H */
};

static const struct base bases[] = {
#define PROFILE(name, vendor, signature, physical_bits, brand)                                               \
	{#name, vendor, signature, physical_bits, brand},
#include "cpu/profiles.def"
#undef PROFILE
};
#define BASE_COUNT (sizeof(bases) / sizeof(bases[0]))

const char *profile_name(unsigned index) { return index < BASE_COUNT ? bases[index].name : NULL; }

const char *profile_feature_name(enum feature feature)
{
	return feature > FEATURE_NONE && feature < FEATURE_COUNT ? places[feature].name : NULL;
}

static void feature_switch(struct profile *profile, enum feature feature, bool on)
{
	uint64_t bit = 1ull << (feature % 64);
	uint64_t *word = &profile->features[feature / 64];

	*word = on ? *word | bit : *word & ~bit;
}

static enum feature feature_find(const char *name, size_t length)
{
	for (unsigned feature = 1; feature < FEATURE_COUNT; feature++) {
		if (strlen(places[feature].name) == length && !memcmp(places[feature].name, name, length))
			return feature;
	}
	return FEATURE_NONE;
}

/* ---- from text ---- */

/* Which profiles have it: VMX's capabilities are where VMX is. */
static unsigned profiles_of(enum feature feature)
{
	return models[feature].profiles == WITH_VMX ? models[FEATURE_vmx].profiles : models[feature].profiles;
}

static int profile_start(struct profile *profile, const char *name, size_t length, char *why, size_t size)
{
	for (const struct base *base = bases; base < bases + BASE_COUNT; base++) {
		if (strlen(base->name) != length || memcmp(base->name, name, length))
			continue;
		*profile = (struct profile){.vendor = base->vendor,
					    .told = base->vendor,
					    .signature = base->signature,
					    .physical_bits = base->physical_bits};
		snprintf(profile->name, sizeof(profile->name), "%s", base->name);
		for (unsigned feature = 1; feature < FEATURE_COUNT; feature++)
			feature_switch(profile, feature, profiles_of(feature) >> base->vendor & 1);
		return 0;
	}
	int used = snprintf(why, size, "no CPU profile is called '%.*s'; there are:", (int)length, name);
	for (unsigned i = 0; i < BASE_COUNT && used > 0 && (size_t)used < size; i++)
		used += snprintf(why + used, size - (size_t)used, " %s", bases[i].name);
	return -EINVAL;
}

static void list_features(char *why, size_t size, int used)
{
	for (unsigned feature = 1; feature < FEATURE_COUNT; feature++) {
		if (used < 0 || (size_t)used >= size)
			return;
		if (models[feature].profiles != UNMODELLED)
			used += snprintf(why + used, size - (size_t)used, " %s", places[feature].name);
	}
}

/* A leaf that tells of one feature alone goes with it. */
static void switch_leaf_off(struct profile *profile, uint32_t leaf)
{
	for (unsigned feature = 1; feature < FEATURE_COUNT; feature++) {
		if (places[feature].leaf == leaf)
			feature_switch(profile, feature, false);
	}
}

/* VMX's capabilities come with it; single ones are switched behind it. */
static void switch_vmx_on(struct profile *profile)
{
	for (unsigned feature = 1; feature < FEATURE_COUNT; feature++)
		if (models[feature].profiles == WITH_VMX)
			feature_switch(profile, feature, true);
}

static bool has_needs(const struct profile *profile, const struct feature_model *model)
{
	for (unsigned i = 0; i < sizeof(model->needs) && model->needs[i]; i++)
		if (!profile_has(profile, (enum feature)model->needs[i]))
			return false;
	return true;
}

/* And they go with it, and with whatever else they need. */
static void drop_capabilities(struct profile *profile)
{
	bool dropped;

	do {
		dropped = false;
		for (unsigned feature = 1; feature < FEATURE_COUNT; feature++)
			if (models[feature].profiles == WITH_VMX &&
			    profile_has(profile, (enum feature)feature) &&
			    !has_needs(profile, &models[feature])) {
				feature_switch(profile, feature, false);
				dropped = true;
			}
	} while (dropped);
}

/* Whether the standard form of the XSAVE area has PKRU at one place for all. */
static bool pku_is_common(void)
{
	uint32_t first = 0;

	for (const struct base *base = bases; base < bases + BASE_COUNT; base++) {
		const struct profile profile = {.vendor = base->vendor};
		uint32_t offset = profile_xsave_component(&profile, 9).offset;

		if (base != bases && offset != first)
			return false;
		first = offset;
	}
	return true;
}

/* What all profiles have as this one does, so that its guest can go to any of them. */
static void switch_to_common(struct profile *profile)
{
	for (unsigned feature = 1; feature < FEATURE_COUNT; feature++)
		if (profiles_of(feature) != BOTH)
			feature_switch(profile, feature, false);
	if (!pku_is_common())
		feature_switch(profile, FEATURE_pku, false);
	for (const struct base *base = bases; base < bases + BASE_COUNT; base++)
		if (base->physical_bits < profile->physical_bits)
			profile->physical_bits = base->physical_bits;
}

#define PHYSICAL_BITS_MIN 36u

static int switch_physical_bits(struct profile *profile, const char *word, size_t length, char *why, size_t size)
{
	unsigned bits = 0;

	for (size_t i = 0; i < length && word[i] >= '0' && word[i] <= '9' && bits < 100; i++)
		bits = bits * 10 + (unsigned)(word[i] - '0');
	if (bits < PHYSICAL_BITS_MIN || bits > profile->physical_bits) {
		snprintf(why, size, "phys-bits is from %u to %u here, not '%.*s'", PHYSICAL_BITS_MIN,
			 profile->physical_bits, (int)length, word);
		return -EINVAL;
	}
	profile->physical_bits = (uint8_t)bits;
	return 0;
}

static int switch_word(struct profile *profile, const char *word, size_t length, char *why, size_t size)
{
	if (length == 6 && !memcmp(word, "common", 6)) {
		switch_to_common(profile);
		return 0;
	}
	if (length > 10 && !memcmp(word, "phys-bits=", 10))
		return switch_physical_bits(profile, word + 10, length - 10, why, size);
	if (length < 2 || (word[0] != '+' && word[0] != '-')) {
		snprintf(why, size, "'%.*s' after the profile is neither +FEATURE nor -FEATURE", (int)length,
			 word);
		return -EINVAL;
	}
	enum feature feature = feature_find(word + 1, length - 1);
	if (feature == FEATURE_NONE) {
		int used = snprintf(why, size, "no CPU feature is called '%.*s'; there are:", (int)length - 1,
				    word + 1);
		list_features(why, size, used);
		return -EINVAL;
	}
	if (word[0] == '+' && models[feature].profiles == UNMODELLED) {
		snprintf(why, size, "the CPU feature '%s' is not modelled", places[feature].name);
		return -EINVAL;
	}
	feature_switch(profile, feature, word[0] == '+');
	if (feature == FEATURE_svm && word[0] == '-')
		switch_leaf_off(profile, 0x8000000a);
	if (word[0] == '-')
		drop_capabilities(profile);
	else if (feature == FEATURE_vmx)
		switch_vmx_on(profile);
	return 0;
}

static int check_needs(const struct profile *profile, char *why, size_t size)
{
	for (unsigned feature = 1; feature < FEATURE_COUNT; feature++) {
		if (!profile_has(profile, feature))
			continue;
		for (const uint8_t *need = models[feature].needs; *need; need++) {
			if (profile_has(profile, *need))
				continue;
			snprintf(why, size, "the CPU feature '%s' needs '%s', which is off",
				 places[feature].name, places[*need].name);
			return -EINVAL;
		}
	}
	return 0;
}

static void set_linear_bits(struct profile *profile)
{
	profile->linear_bits = !profile_has(profile, FEATURE_lm)    ? 32
			       : profile_has(profile, FEATURE_la57) ? 57
								    : 48;
}

int profile_parse(struct profile *profile, const char *text, char *why, size_t size)
{
	size_t length = strcspn(text, ",");
	int error = profile_start(profile, text, length, why, size);

	while (!error && text[length]) {
		text += length + 1;
		length = strcspn(text, ",");
		error = switch_word(profile, text, length, why, size);
	}
	set_linear_bits(profile);
	return error ? error : check_needs(profile, why, size);
}

/* ---- CPUID leaves (SDM 2A CPUID, APM 3 appendix E) ---- */

/* The feature bits of a leaf. */
static struct cpuid_registers leaf_features(const struct profile *profile, uint32_t leaf, uint32_t subleaf)
{
	/* In registers: a chain of stores would cost more than all the rest of CPUID. */
	uint64_t low = 0, high = 0;
	bool met = false;

	for (unsigned feature = 1; feature < FEATURE_COUNT; feature++) {
		const struct feature_place *place = &places[feature];
		/* features.def has the bits of a leaf together. */
		if (met && place->leaf != leaf)
			break;
		met = place->leaf == leaf;
		uint64_t bit = (uint64_t)(met && place->subleaf == subleaf && profile_has(profile, feature))
			       << (place->output % 2 * 32 + place->bit);
		if (place->output < 2)
			low |= bit;
		else
			high |= bit;
	}
	return (struct cpuid_registers){(uint32_t)low, (uint32_t)(low >> 32), (uint32_t)high,
					(uint32_t)(high >> 32)};
}

uint64_t profile_vmx_bits(const struct profile *profile, uint32_t msr)
{
	struct cpuid_registers r = leaf_features(profile, msr, 0);

	return r.eax | (uint64_t)r.edx << 32;
}

static uint32_t text4(const char *text)
{
	uint32_t value;

	memcpy(&value, text, sizeof(value));
	return value;
}

static struct cpuid_registers leaf_vendor(const struct profile *profile, uint32_t max)
{
	const char *id = profile->vendor == VENDOR_AMD ? "AuthenticAMD" : "GenuineIntel";

	return (struct cpuid_registers){max, text4(id), text4(id + 8), text4(id + 4)};
}

#define LINE_SIZE 64

static unsigned processors(const struct profile *profile)
{
	return profile->processors ? profile->processors : 1;
}

/* Bits of the APIC id that tell the processors of the package apart. */
static unsigned id_bits(const struct profile *profile)
{
	unsigned bits = 0;

	while (1u << bits < processors(profile))
		bits++;
	return bits;
}

#define LEAF1_ECX_HYPERVISOR (1u << 31)
#define LEAF1_EDX_HTT        (1u << 28)

/*
 * CLFLUSH size in units of 8 bytes, ids in the package (on AMD processors: how many there are, APM 3 E.3.2),
 * APIC id 0 (filled in by the CPU).
 */
static struct cpuid_registers leaf_1(const struct profile *profile)
{
	unsigned count = profile->vendor == VENDOR_AMD ? processors(profile) : 1u << id_bits(profile);
	struct cpuid_registers r = leaf_features(profile, 1, 0);

	r.eax = profile->signature;
	r.ebx = (profile_has(profile, FEATURE_clfsh) ? LINE_SIZE / 8 << 8 : 0) | count << 16;
	if (processors(profile) > 1)
		r.edx |= LEAF1_EDX_HTT;
	if (profile_has(profile, FEATURE_kvmclock))
		r.ecx |= LEAF1_ECX_HYPERVISOR;
	return r;
}

/* A cache of SDM 2A CPUID leaf 4 and APM 3 leaf 8000001DH. */
struct cache {
	unsigned type, level, ways, sets; /* type 1 data, 2 instruction, 3 unified */
};

/*
 * The third level is shared by all processors. Intel tells ids, of cores and of those that share a cache; AMD
 * how many share it.
 */
static struct cpuid_registers cache_leaf(const struct profile *profile, const struct cache *caches,
					 size_t count, uint32_t subleaf)
{
	bool intel = profile->vendor == VENDOR_INTEL;
	uint32_t ids = (1u << id_bits(profile)) - 1;
	uint32_t all = intel ? ids : processors(profile) - 1;

	if (subleaf >= count)
		return (struct cpuid_registers){0};
	const struct cache *cache = &caches[subleaf];
	return (struct cpuid_registers){
		.eax = cache->type | cache->level << 5 | 1u << 8 /* self-initializing */ |
		       (cache->level == 3 ? all << 14 : 0) | (intel ? ids << 26 : 0),
		.ebx = (LINE_SIZE - 1) | (cache->ways - 1) << 22,
		.ecx = cache->sets - 1,
		.edx = 0,
	};
}

static const struct cache intel_caches[] = {
	{1, 1, 12, 64}, {2, 1, 8, 64}, {3, 2, 16, 2048}, {3, 3, 15, 32768}};
static const struct cache amd_caches[] = {{1, 1, 8, 64}, {2, 1, 8, 64}, {3, 2, 8, 1024}, {3, 3, 16, 32768}};

/* One thread in each core, all cores in one package: no bits of the x2APIC id below the core's. */
static struct cpuid_registers leaf_topology(const struct profile *profile, uint32_t subleaf)
{
	return (struct cpuid_registers){
		.eax = subleaf == 1 ? id_bits(profile) : 0,
		.ebx = subleaf == 1 ? processors(profile) : subleaf == 0,
		.ecx = subleaf < 2 ? (subleaf + 1) << 8 | subleaf : (subleaf & 0xff),
		.edx = 0,
	};
}

uint64_t profile_xcr0_valid(const struct profile *profile)
{
	if (!profile_has(profile, FEATURE_xsave))
		return 0;
	return XCR0_X87 | XCR0_SSE | (profile_has(profile, FEATURE_avx) ? XCR0_AVX : 0) |
	       (profile_has(profile, FEATURE_pku) ? XCR0_PKRU : 0);
}

struct xsave_component profile_xsave_component(const struct profile *profile, unsigned component)
{
	/* Where PKRU lies differs by vendor: what AVX-512 takes on Intel parts was never there on AMD's. */
	switch (component) {
	case 2: return (struct xsave_component){576, 256};
	case 9: return (struct xsave_component){profile->vendor == VENDOR_AMD ? 832 : 2688, 8};
	default: return (struct xsave_component){0, 0};
	}
}

uint32_t profile_xsave_size(const struct profile *profile, uint64_t components, bool compacted)
{
	uint32_t size = 576; /* legacy region and header: SDM 1 13.4 */

	for (unsigned i = 2; i < 63; i++) {
		if (!(components >> i & 1))
			continue;
		struct xsave_component component = profile_xsave_component(profile, i);
		size = compacted ? size + component.size : component.offset + component.size;
	}
	return size;
}

static struct cpuid_registers leaf_xsave(const struct profile *profile, uint32_t subleaf)
{
	uint64_t valid = profile_xcr0_valid(profile);
	struct cpuid_registers r = {0};

	if (!valid)
		return r;
	if (subleaf == 0) {
		r.eax = (uint32_t)valid;
		r.edx = (uint32_t)(valid >> 32);
		r.ebx = profile_xsave_size(profile, XCR0_X87, false); /* by XCR0, which is 1 at reset */
		r.ecx = profile_xsave_size(profile, valid, false);
	} else if (subleaf == 1) {
		r = leaf_features(profile, 0xd, 1);
		if (profile_has(profile, FEATURE_xsavec))
			r.ebx = profile_xsave_size(profile, XCR0_X87, true);
	} else if (subleaf < 63 && valid >> subleaf & 1) {
		struct xsave_component component = profile_xsave_component(profile, subleaf);
		r.eax = component.size;
		r.ebx = component.offset;
	}
	return r;
}

static struct cpuid_registers leaf_monitor(const struct profile *profile)
{
	if (!profile_has(profile, FEATURE_monitor))
		return (struct cpuid_registers){0};
	return (struct cpuid_registers){LINE_SIZE, LINE_SIZE, 3, profile->vendor == VENDOR_AMD ? 0x11 : 0x20};
}

/* Architectural performance monitoring, version 1: four counters of 48 bits; all seven events. */
static struct cpuid_registers leaf_performance(void)
{
	return (struct cpuid_registers){.eax = 1 | PROFILE_INTEL_COUNTERS << 8 | 48u << 16 | 7u << 24,
					.ebx = 0x7c};
}

#define INTEL_MAX_LEAF 0x16
#define AMD_MAX_LEAF   0xd

static struct cpuid_registers intel_basic(const struct profile *profile, uint32_t leaf, uint32_t subleaf)
{
	switch (leaf) {
	case 2: return (struct cpuid_registers){.eax = 0x00feff01};
	case 4:
		return cache_leaf(profile, intel_caches, sizeof(intel_caches) / sizeof(intel_caches[0]),
				  subleaf);
	case 0xa: return leaf_performance();
	/* The TSC as a ratio to the crystal; MHz: base, highest, bus. */
	case 0x15:
		return (struct cpuid_registers){PROFILE_TICK_NS, PROFILE_CRYSTAL_NS, PROFILE_CRYSTAL_HZ, 0};
	case 0x16: return (struct cpuid_registers){PROFILE_TSC_MHZ, PROFILE_TSC_MHZ, 100, 0};
	default: return leaf_features(profile, leaf, subleaf);
	}
}

static struct cpuid_registers basic(const struct profile *profile, uint32_t leaf, uint32_t subleaf)
{
	switch (leaf) {
	case 0: return leaf_vendor(profile, profile->vendor == VENDOR_AMD ? AMD_MAX_LEAF : INTEL_MAX_LEAF);
	case 1: return leaf_1(profile);
	case 5: return leaf_monitor(profile);
	case 6: return leaf_features(profile, 6, 0);
	case 7: return leaf_features(profile, 7, subleaf);
	case 0xb: return leaf_topology(profile, subleaf);
	case 0xd: return leaf_xsave(profile, subleaf);
	default:
		return profile->vendor == VENDOR_INTEL ? intel_basic(profile, leaf, subleaf)
						       : (struct cpuid_registers){0};
	}
}

static const struct base *profile_base(const struct profile *profile)
{
	for (unsigned i = 0; i < BASE_COUNT; i++) {
		if (!strcmp(bases[i].name, profile->name))
			return &bases[i];
	}
	return &bases[0];
}

static struct cpuid_registers leaf_brand(const struct profile *profile, uint32_t leaf)
{
	char brand[49] = {0};
	const char *part = brand + 16 * (leaf - 0x80000002);

	snprintf(brand, sizeof(brand), profile->vendor == VENDOR_INTEL ? "%s @ %u.%02uGHz" : "%s",
		 profile_base(profile)->brand, PROFILE_TSC_MHZ / 1000, PROFILE_TSC_MHZ % 1000 / 10);

	return (struct cpuid_registers){text4(part), text4(part + 4), text4(part + 8), text4(part + 12)};
}

#define EXTENDED1_ECX_CMP_LEGACY 2u

/* AMD repeats in 80000001H:EDX what leaf 1 says, except SEP's bit and those above FXSR. */
#define AMD_REPEATED_EDX 0x0183f3ffu

static struct cpuid_registers leaf_80000001(const struct profile *profile)
{
	struct cpuid_registers r = leaf_features(profile, 0x80000001, 0);

	if (profile->vendor == VENDOR_AMD) {
		r.eax = profile->signature;
		if (processors(profile) > 1)
			r.ecx |= EXTENDED1_ECX_CMP_LEGACY;
		r.edx |= leaf_features(profile, 1, 0).edx & AMD_REPEATED_EDX;
	}
	return r;
}

/* Address widths; RDPRU's highest register number (EDX[31:16]) is 1: MPERF and APERF. */
static struct cpuid_registers leaf_80000008(const struct profile *profile)
{
	struct cpuid_registers r = leaf_features(profile, 0x80000008, 0);

	r.eax = profile->physical_bits | (uint32_t)profile->linear_bits << 8;
	if (profile->vendor == VENDOR_AMD)
		r.ecx = id_bits(profile) << 12 | (processors(profile) - 1);
	if (profile_has(profile, FEATURE_rdpru))
		r.edx = 1u << 16;
	return r;
}

#define SVM_REVISION 1u
#define SVM_ASIDS    0x8000u

static struct cpuid_registers leaf_svm(const struct profile *profile)
{
	struct cpuid_registers r = leaf_features(profile, 0x8000000a, 0);

	if (!profile_has(profile, FEATURE_svm))
		return (struct cpuid_registers){0};
	r.eax = SVM_REVISION;
	r.ebx = SVM_ASIDS;
	return r;
}

static struct cpuid_registers amd_extended(const struct profile *profile, uint32_t leaf, uint32_t subleaf)
{
	bool topology = profile_has(profile, FEATURE_topoext);

	switch (leaf) {
	/* TLB entries and ways; L1: KiB, ways, lines a tag, line size. */
	case 0x80000005: return (struct cpuid_registers){0xff40ff40, 0xff40ff40, 0x20080140, 0x20080140};
	case 0x80000006: return (struct cpuid_registers){0x48002200, 0x68004200, 0x02006140, 0x01009140};
	case 0x8000000a: return leaf_svm(profile);
	case 0x80000019: return (struct cpuid_registers){.eax = 0xf040f040};
	case 0x8000001d:
		return topology ? cache_leaf(profile, amd_caches, sizeof(amd_caches) / sizeof(amd_caches[0]),
					     subleaf)
				: (struct cpuid_registers){0};
	case 0x8000001e: return (struct cpuid_registers){0}; /* APIC id 0, one thread, node 0 */
	default: return leaf_features(profile, leaf, 0);
	}
}

static struct cpuid_registers extended(const struct profile *profile, uint32_t leaf, uint32_t subleaf)
{
	switch (leaf) {
	case 0x80000000:
		return profile->vendor == VENDOR_AMD ? leaf_vendor(profile, 0x80000021)
						     : (struct cpuid_registers){.eax = 0x80000008};
	case 0x80000001: return leaf_80000001(profile);
	case 0x80000002:
	case 0x80000003:
	case 0x80000004: return leaf_brand(profile, leaf);
	case 0x80000007: return leaf_features(profile, leaf, 0);
	case 0x80000008: return leaf_80000008(profile);
	default: break;
	}
	if (profile->vendor == VENDOR_AMD)
		return amd_extended(profile, leaf, subleaf);
	if (leaf == 0x80000006)
		return (struct cpuid_registers){.ecx = 0x08007040}; /* L2: 2 MiB, 16 ways, 64-byte lines */
	return (struct cpuid_registers){0};
}

/*
 * Above the highest leaf, an Intel processor answers with the highest basic leaf (SDM 2A CPUID),
 * one by AMD with zeros (APM 3 E.2).
 */
/* The hypervisor's leaves (Linux, Documentation/virt/kvm/x86/cpuid.rst): both pairs of MSRs, and a TSC to
 * rely on. */
static struct cpuid_registers kvm_leaf(const struct profile *profile, uint32_t leaf)
{
	struct cpuid_registers r = leaf_features(profile, leaf, 0);

	if (leaf == 0x40000000) /* "KVMKVMKVM" */
		return (struct cpuid_registers){0x40000001, 0x4b4d564b, 0x564b4d56, 0x0000004d};
	r.eax |= 1u << 0 | 1u << 24;
	return r;
}

static struct cpuid_registers guest_leaf(const struct guest_cpu *guest, uint32_t leaf, uint32_t subleaf)
{
	struct cpuid_row row = guest_cpu_answer(guest, leaf, subleaf);

	return (struct cpuid_registers){row.value[0], row.value[1], row.value[2], row.value[3]};
}

struct cpuid_registers profile_cpuid(const struct profile *profile, uint32_t leaf, uint32_t subleaf)
{
	bool amd = profile->vendor == VENDOR_AMD;

	if (profile->guest)
		return guest_leaf(profile->guest, leaf, subleaf);

	if (leaf <= (amd ? AMD_MAX_LEAF : INTEL_MAX_LEAF))
		return basic(profile, leaf, subleaf);
	if (leaf >= 0x80000000 && leaf <= (amd ? 0x80000021 : 0x80000008))
		return extended(profile, leaf, subleaf);
	if (leaf - 0x40000000 < 2 && profile_has(profile, FEATURE_kvmclock))
		return kvm_leaf(profile, leaf);
	return amd ? (struct cpuid_registers){0} : basic(profile, INTEL_MAX_LEAF, subleaf);
}

/* ---- as a table ---- */

static void tell_row(const struct profile *profile, struct guest_cpu *to, uint32_t leaf, uint32_t subleaf,
		     bool by_subleaf)
{
	struct cpuid_registers r = profile_cpuid(profile, leaf, subleaf);

	if (to->count < GUEST_CPU_ROWS)
		to->row[to->count++] = (struct cpuid_row){.leaf = leaf,
							  .subleaf = subleaf,
							  .by_subleaf = by_subleaf,
							  .value = {r.eax, r.ebx, r.ecx, r.edx}};
}

static bool has_subleaves(uint32_t leaf)
{
	return leaf == 4 || leaf == 7 || leaf == 0xb || leaf == 0xd || leaf == 0x8000001d;
}

/* Most subleaves are empty, which an absent row says as well; the first is there in any case. */
static void tell_leaf(const struct profile *profile, struct guest_cpu *to, uint32_t leaf)
{
	unsigned subleaves = leaf == 0xd ? 63 : 4;

	tell_row(profile, to, leaf, 0, has_subleaves(leaf));
	for (unsigned i = 1; has_subleaves(leaf) && i < subleaves; i++) {
		struct cpuid_registers r = profile_cpuid(profile, leaf, i);

		if (leaf == 0xb ? i < 2 : r.eax | r.ebx | r.ecx | r.edx)
			tell_row(profile, to, leaf, i, true);
	}
}

static void tell_range(const struct profile *profile, struct guest_cpu *to, uint32_t first)
{
	uint32_t last = profile_cpuid(profile, first, 0).eax;

	for (uint32_t leaf = first; leaf <= last; leaf++)
		tell_leaf(profile, to, leaf);
}

/* Of a capability MSR, what is a feature. */
static void tell_vmx(const struct profile *profile, struct guest_cpu *to)
{
	for (uint32_t msr = GUEST_CPU_VMX_FIRST; msr <= GUEST_CPU_VMX_LAST; msr++) {
		struct cpuid_registers r = leaf_features(profile, msr, 0);

		if (r.eax | r.edx && to->count < GUEST_CPU_ROWS)
			to->row[to->count++] = (struct cpuid_row){.leaf = msr, .value = {r.eax, 0, 0, r.edx}};
	}
}

void profile_tell(const struct profile *profile, struct guest_cpu *to)
{
	if (profile->guest) {
		*to = *profile->guest;
		return;
	}
	*to = (struct guest_cpu){.tsc_khz = PROFILE_TSC_MHZ * 1000, .apic_timer_ns = PROFILE_CRYSTAL_NS};
	tell_range(profile, to, 0);
	if (profile_has(profile, FEATURE_kvmclock))
		tell_range(profile, to, 0x40000000);
	tell_range(profile, to, 0x80000000);
	if (profile_has(profile, FEATURE_vmx))
		tell_vmx(profile, to);
}

int profile_take(struct profile *profile, const struct guest_cpu *from, char *why, size_t size)
{
	uint32_t widths = guest_cpu_value(from, 0x80000008, 0, OUTPUT_eax);

	for (unsigned feature = 1; feature < FEATURE_COUNT; feature++) {
		const struct feature_place *place = &places[feature];

		feature_switch(profile, (enum feature)feature,
			       guest_cpu_value(from, place->leaf, place->subleaf, place->output) >> place->bit & 1);
	}
	profile->guest = from;
	profile->told = guest_cpu_is_amd(from) ? VENDOR_AMD : VENDOR_INTEL;
	profile->signature = guest_cpu_value(from, 1, 0, OUTPUT_eax);
	profile->physical_bits = widths & 0xff ? (uint8_t)widths : PHYSICAL_BITS_MIN;
	set_linear_bits(profile);
	return check_needs(profile, why, size);
}
