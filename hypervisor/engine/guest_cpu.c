#include "engine/guest_cpu.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

enum { EAX, EBX, ECX, EDX, REGISTERS };
static const char *const registers[REGISTERS] = {"eax", "ebx", "ecx", "edx"};

/* ---- text ---- */

/* Appends; *used may grow past @size, as with snprintf(). */
static void add(char *text, size_t size, int *used, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
static void add(char *text, size_t size, int *used, const char *format, ...)
{
	va_list arguments;
	size_t at = (size_t)*used < size ? (size_t)*used : size;
	int more;

	va_start(arguments, format);
	more = vsnprintf(size ? text + at : NULL, size - at, format, arguments);
	va_end(arguments);
	*used += more;
}

int guest_cpu_print(const struct guest_cpu *cpu, char *text, size_t size)
{
	int used = 0;

	add(text, size, &used, "name %s\ntsc_khz %" PRIu32 "\napic_timer_ns %" PRIu32 "\n", cpu->name,
	    cpu->tsc_khz, cpu->apic_timer_ns);
	for (uint32_t i = 0; i < cpu->count; i++) {
		const struct cpuid_row *row = &cpu->row[i];

		add(text, size, &used, "%" PRIx32, row->leaf);
		if (row->by_subleaf)
			add(text, size, &used, ".%" PRIx32, row->subleaf);
		for (unsigned k = 0; k < REGISTERS; k++)
			add(text, size, &used, " %" PRIx32, row->value[k]);
		add(text, size, &used, "\n");
	}
	return used;
}

static int wrong(char *why, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));
static int wrong(char *why, size_t size, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(why, size, format, arguments);
	va_end(arguments);
	return -EINVAL;
}

/* A hexadecimal number of up to 32 bits, in front of @end. */
static bool take_hex(const char **at, char end, uint32_t *value)
{
	const char *from = *at;

	*value = 0;
	for (; **at && strchr("0123456789abcdef", **at); ++*at) {
		if (*at - from == 8)
			return false;
		*value = *value << 4 | (uint32_t)(**at <= '9' ? **at - '0' : **at - 'a' + 10);
	}
	if (*at == from || **at != end)
		return false;
	++*at;
	return true;
}

static bool take_row(const char *line, struct cpuid_row *row)
{
	const char *at = line, *dot = strchr(line, '.');

	*row = (struct cpuid_row){.by_subleaf = dot && dot < strchr(line, ' ')};
	if (!take_hex(&at, row->by_subleaf ? '.' : ' ', &row->leaf) ||
	    (row->by_subleaf && !take_hex(&at, ' ', &row->subleaf)))
		return false;
	for (unsigned k = 0; k < REGISTERS; k++)
		if (!take_hex(&at, k == EDX ? 0 : ' ', &row->value[k]))
			return false;
	return true;
}

static int take_line(struct guest_cpu *cpu, const char *line, char *why, size_t size)
{
	struct cpuid_row row;

	if (!strncmp(line, "name ", 5)) {
		memcpy(cpu->name, line + 5, strnlen(line + 5, sizeof(cpu->name) - 1));
		return 0;
	}
	if (!strncmp(line, "tsc_khz ", 8)) {
		cpu->tsc_khz = (uint32_t)strtoul(line + 8, NULL, 10);
		return 0;
	}
	if (!strncmp(line, "apic_timer_ns ", 14)) {
		cpu->apic_timer_ns = (uint32_t)strtoul(line + 14, NULL, 10);
		return 0;
	}
	if (!strchr(line, ' ') || !take_row(line, &row))
		return wrong(why, size, "'%s' is no row of CPUID", line);
	if (guest_cpu_row(cpu, row.leaf, row.subleaf))
		return wrong(why, size, "CPUID leaf %" PRIx32 " comes twice", row.leaf);
	if (cpu->count == GUEST_CPU_ROWS)
		return wrong(why, size, "more than %u rows of CPUID", GUEST_CPU_ROWS);
	cpu->row[cpu->count++] = row;
	return 0;
}

int guest_cpu_parse(struct guest_cpu *cpu, const char *text, char *why, size_t size)
{
	char line[GUEST_CPU_NAME + 16];
	int error = 0;

	*cpu = (struct guest_cpu){0};
	while (*text && !error) {
		size_t length = strcspn(text, "\n");

		if (length >= sizeof(line))
			return wrong(why, size, "a line of %zu bytes in a table of CPUID", length);
		memcpy(line, text, length);
		line[length] = 0;
		text += length + (text[length] == '\n');
		error = take_line(cpu, line, why, size);
	}
	if (!error && !guest_cpu_row(cpu, 0, 0))
		return wrong(why, size, "a table of CPUID without leaf 0");
	if (!error && !cpu->apic_timer_ns)
		return wrong(why, size, "a table of CPUID without the period of the local APIC's timer");
	return error;
}

/* ---- features ---- */

struct place {
	uint32_t leaf, subleaf;
	unsigned output, bit;
};

static const struct {
	const char *name;
	struct place place;
} named[] = {
#define OUTPUT_eax                                EAX
#define OUTPUT_ebx                                EBX
#define OUTPUT_ecx                                ECX
#define OUTPUT_edx                                EDX
#define FEATURE(name, leaf, subleaf, output, bit) {#name, {leaf, subleaf, OUTPUT_##output, bit}},
#include "x86/features.def"
#undef FEATURE
};

/*
 * Where features stand, but for bits that tell of something else: what the operating system has enabled
 * (OSXSAVE, OSPKE), how many processors there are (HTT, CMP_LEGACY), a hypervisor's presence, MAWAU; and in
 * AMD's 80000001H:EDX what leaf 1 says already (APM 3 E.4.2).
 */
static const struct {
	uint32_t leaf, subleaf;
	unsigned output;
	uint32_t bits;
} words[] = {
	{0x1, 0, ECX, ~(1u << 27 | 1u << 31)},
	{0x1, 0, EDX, ~(1u << 28)},
	{0x6, 0, EAX, ~0u},
	{0x6, 0, ECX, 0x9},
	{0x7, 0, EBX, ~0u},
	{0x7, 0, ECX, ~(1u << 4 | 0x1fu << 17)},
	{0x7, 0, EDX, ~0u},
	{0x7, 1, EAX, ~0u},
	{0x7, 1, EBX, ~0u},
	{0x7, 1, ECX, ~0u},
	{0x7, 1, EDX, ~0u},
	{0x7, 2, EDX, ~0u},
	{0xd, 1, EAX, ~0u},
	{0x40000001, 0, EAX, 1u << 3},
	{0x80000001, 0, ECX, ~(1u << 1)},
	{0x80000001, 0, EDX, ~0x0183f3ffu},
	{0x80000007, 0, EDX, ~0u},
	{0x80000008, 0, EBX, ~0u},
	{0x8000000a, 0, EDX, ~0u},
	{0x8000001f, 0, EAX, ~0u},
	{0x80000021, 0, EAX, ~0u},
	{0x480, 0, EDX, ~0u},
	{0x481, 0, EDX, ~0u},
	{0x482, 0, EDX, ~0u},
	{0x483, 0, EDX, ~0u},
	{0x484, 0, EDX, ~0u},
	{0x485, 0, EAX, 7u << 28},
	{0x48b, 0, EDX, ~0u},
	{0x48c, 0, EAX, ~0u},
	{0x491, 0, EAX, ~0u},
};

static void place_name(const struct place *place, char *name, size_t size)
{
	for (size_t i = 0; i < COUNT(named); i++)
		if (!memcmp(&named[i].place, place, sizeof(*place))) {
			snprintf(name, size, "%s", named[i].name);
			return;
		}
	snprintf(name, size, "%" PRIx32 ".%" PRIx32 ".%s.%u", place->leaf, place->subleaf,
		 registers[place->output], place->bit);
}

/* What comes with AMD-V or VT-x says nothing where the guest has neither, or where it lacks the whole. */
static bool word_counts(uint32_t leaf, const struct guest_cpu *guest, const struct guest_cpu *here)
{
	struct place whole = {1, 0, ECX, 5};

	if (leaf == 0x8000000a)
		whole = (struct place){0x80000001, 0, ECX, 2};
	else if (leaf < GUEST_CPU_VMX_FIRST || leaf > GUEST_CPU_VMX_LAST)
		return true;
	return guest_cpu_value(guest, whole.leaf, 0, ECX) >> whole.bit & 1 &&
	       (!here || guest_cpu_value(here, whole.leaf, 0, ECX) >> whole.bit & 1);
}

/* The feature with this index among those of @guest that @here (may be NULL) does not have; *index counts
 * down. */
static bool find_feature(const struct guest_cpu *guest, const struct guest_cpu *here, unsigned *index,
			 struct place *found)
{
	for (size_t i = 0; i < COUNT(words); i++) {
		uint32_t bits = guest_cpu_value(guest, words[i].leaf, words[i].subleaf, words[i].output) &
				words[i].bits;

		if (!word_counts(words[i].leaf, guest, here))
			continue;
		if (here)
			bits &= ~guest_cpu_value(here, words[i].leaf, words[i].subleaf, words[i].output);
		for (; bits; bits &= bits - 1, --*index)
			if (*index == 0) {
				*found = (struct place){words[i].leaf, words[i].subleaf, words[i].output,
							(unsigned)__builtin_ctz(bits)};
				return true;
			}
	}
	return false;
}

bool guest_cpu_feature(const struct guest_cpu *cpu, unsigned index, char *name, size_t size)
{
	struct place place;

	if (!find_feature(cpu, NULL, &index, &place))
		return false;
	place_name(&place, name, size);
	return true;
}

/* ---- what else must fit ---- */

#define ADDRESS_LEAF 0x80000008u
#define PHYSICAL     0xffu
#define LINEAR(eax)  ((eax) >> 8 & 0xff)
#define INVARIANT    (1u << 8) /* CPUID.80000007H:EDX */
#define COMPONENTS   63u

static uint32_t physical_bits(const struct guest_cpu *cpu)
{
	uint32_t bits = guest_cpu_value(cpu, ADDRESS_LEAF, 0, EAX) & PHYSICAL;

	return bits ? bits : 36;
}

static uint64_t components(const struct guest_cpu *cpu)
{
	return guest_cpu_value(cpu, 0xd, 0, EAX) | (uint64_t)guest_cpu_value(cpu, 0xd, 0, EDX) << 32;
}

static bool lacks_component(const struct guest_cpu *guest, const struct guest_cpu *here, unsigned i,
			    char *text, size_t size)
{
	const struct cpuid_row *there = guest_cpu_row(guest, 0xd, i), *own = guest_cpu_row(here, 0xd, i);

	if (!(components(guest) >> i & 1))
		return false;
	if (!(components(here) >> i & 1)) {
		snprintf(text, size, "XSAVE component %u: this processor has none", i);
		return true;
	}
	if (i < 2 || !there || !own ||
	    (there->value[EAX] == own->value[EAX] && there->value[EBX] == own->value[EBX]))
		return false;
	snprintf(text, size,
		 "XSAVE component %u%s: %" PRIu32 " bytes at %" PRIu32 " for the guest, %" PRIu32
		 " at %" PRIu32 " on this processor",
		 i, i == 9 ? " (pku)" : "", there->value[EAX], there->value[EBX], own->value[EAX],
		 own->value[EBX]);
	return true;
}

/* The difference with this index that is no feature: a fixed number of places, of which most are empty. */
static bool other_lack(const struct guest_cpu *guest, const struct guest_cpu *here, unsigned index,
		       char *text, size_t size)
{
	switch (index) {
	case COMPONENTS:
		if (physical_bits(guest) <= physical_bits(here))
			return false;
		snprintf(text, size,
			 "physical-address bits: the guest has %" PRIu32 ", this processor %" PRIu32,
			 physical_bits(guest), physical_bits(here));
		return true;
	case COMPONENTS + 1:
		if (!(guest_cpu_value(guest, 0x80000007, 0, EDX) & INVARIANT) || !guest->tsc_khz ||
		    !here->tsc_khz || guest->tsc_khz == here->tsc_khz)
			return false;
		snprintf(text, size,
			 "invariant_tsc: the guest's TSC runs at %" PRIu32
			 " kHz, this processor's at %" PRIu32 " kHz",
			 guest->tsc_khz, here->tsc_khz);
		return true;
	case COMPONENTS + 2:
		if (guest_cpu_value(guest, 0x8000000a, 0, EBX) <= guest_cpu_value(here, 0x8000000a, 0, EBX) ||
		    !(guest_cpu_value(guest, 0x80000001, 0, ECX) & 4))
			return false;
		snprintf(text, size, "address-space identifiers of AMD-V: the guest has more");
		return true;
	default: return lacks_component(guest, here, index, text, size);
	}
}

#define OTHERS (COMPONENTS + 3)

bool guest_cpu_lack(const struct guest_cpu *guest, const struct guest_cpu *here, unsigned index,
		    bool *is_feature, char *text, size_t size)
{
	struct place place;

	*is_feature = find_feature(guest, here, &index, &place);
	if (*is_feature) {
		place_name(&place, text, size);
		return true;
	}
	for (unsigned i = 0; i < OTHERS; i++)
		if (other_lack(guest, here, i, text, size) && index-- == 0)
			return true;
	return false;
}

int guest_cpu_check(const struct guest_cpu *guest, const struct guest_cpu *here, char *why, size_t size)
{
	char text[160];
	bool is_feature, features = false;
	int used = 0;

	for (unsigned i = 0; guest_cpu_lack(guest, here, i, &is_feature, text, sizeof(text)); i++) {
		if (is_feature && !features)
			add(why, size, &used,
			    "the guest was told of features that this processor (%s) lacks:", here->name);
		else if (!is_feature && used)
			add(why, size, &used, ";");
		add(why, size, &used, "%s%s", used ? " " : "", text);
		features |= is_feature;
	}
	return used ? -EINVAL : 0;
}

/* ---- masks ---- */

static uint32_t *output_of(struct guest_cpu *cpu, const struct place *place)
{
	for (uint32_t i = 0; i < cpu->count; i++) {
		struct cpuid_row *row = &cpu->row[i];

		if (row->leaf == place->leaf && (!row->by_subleaf || row->subleaf == place->subleaf))
			return &row->value[place->output];
	}
	return NULL;
}

static bool find_named(const char *name, size_t length, struct place *place)
{
	for (size_t i = 0; i < COUNT(named); i++)
		if (strlen(named[i].name) == length && !memcmp(named[i].name, name, length)) {
			*place = named[i].place;
			return true;
		}
	return false;
}

/* "7.0.ebx.16" */
static bool parse_place(const char *name, size_t length, struct place *place)
{
	char text[GUEST_CPU_FEATURE];
	const char *at = text;

	if (length >= sizeof(text))
		return false;
	memcpy(text, name, length);
	text[length] = 0;
	if (!take_hex(&at, '.', &place->leaf) || !take_hex(&at, '.', &place->subleaf))
		return false;
	for (place->output = 0; place->output < REGISTERS; place->output++)
		if (!strncmp(at, registers[place->output], 3) && at[3] == '.')
			break;
	if (place->output == REGISTERS)
		return false;
	at += 4;
	place->bit = (unsigned)strtoul(at, (char **)&at, 10);
	return *at == 0 && at[-1] != '.' && place->bit < 32;
}

/* Components of XSAVE go with the feature that they belong to, AVX with 2 and PKU with 9 (SDM 1 13.1), or by
 * place. */
static unsigned component_of(const struct place *place)
{
	if (place->leaf == 0xd && place->subleaf == 0 && place->output == EAX)
		return place->bit;
	if (place->leaf == 1 && place->output == ECX && place->bit == 28)
		return 2;
	return place->leaf == 7 && place->subleaf == 0 && place->output == ECX && place->bit == 3 ? 9 : 0;
}

static void drop_component(struct guest_cpu *cpu, unsigned component)
{
	uint32_t *valid = output_of(cpu, &(struct place){0xd, 0, EAX, 0});
	uint32_t *highest = output_of(cpu, &(struct place){0xd, 0, ECX, 0});

	if (component < 2 || !valid || !highest)
		return;
	*valid &= ~(1u << component);
	for (unsigned k = 0; k < REGISTERS; k++) {
		uint32_t *of = output_of(cpu, &(struct place){0xd, component, k, 0});

		if (of)
			*of = 0;
	}
	*highest = 576; /* the legacy region and the header (SDM 1 13.4) */
	for (unsigned i = 2; i < 32; i++) {
		uint32_t end = guest_cpu_value(cpu, 0xd, i, EAX) + guest_cpu_value(cpu, 0xd, i, EBX);

		if (*valid >> i & 1 && end > *highest)
			*highest = end;
	}
}

static int mask_physical(struct guest_cpu *cpu, const char *number, char *why, size_t size)
{
	uint32_t *eax = output_of(cpu, &(struct place){ADDRESS_LEAF, 0, EAX, 0});
	unsigned long bits = strtoul(number, NULL, 10);

	if (!eax || bits < 32 || bits > physical_bits(cpu))
		return wrong(why, size, "phys-bits is from 32 to %" PRIu32 " here", physical_bits(cpu));
	*eax = (*eax & ~PHYSICAL) | (uint32_t)bits;
	return 0;
}

static int mask_word(struct guest_cpu *cpu, const char *word, size_t length, char *why, size_t size)
{
	struct place place;
	uint32_t *output;

	if (length > 10 && !memcmp(word, "phys-bits=", 10))
		return mask_physical(cpu, word + 10, why, size);
	if (length < 2 || word[0] != '-')
		return wrong(why, size,
			     "'%.*s': of this processor, features can only be taken away, by -FEATURE",
			     (int)length, word);
	if (!find_named(word + 1, length - 1, &place) && !parse_place(word + 1, length - 1, &place))
		return wrong(why, size, "no CPU feature is called '%.*s'", (int)length - 1, word + 1);
	output = output_of(cpu, &place);
	if (output)
		*output &= ~(1u << place.bit);
	drop_component(cpu, component_of(&place));
	return 0;
}

int guest_cpu_mask(struct guest_cpu *cpu, const char *text, char *why, size_t size)
{
	int error = 0;

	while (*text && !error) {
		size_t length = strcspn(text, ",");

		if (length)
			error = mask_word(cpu, text, length, why, size);
		text += length + (text[length] == ',');
	}
	return error;
}

bool guest_cpu_common(const struct guest_cpu *guest, const struct guest_cpu *here, char *text, size_t size)
{
	struct guest_cpu rest = *guest;
	char lack[160];
	bool is_feature;
	int used = 0;

	text[0] = 0;
	for (unsigned i = 0; guest_cpu_lack(guest, here, i, &is_feature, lack, sizeof(lack)); i++)
		if (is_feature)
			add(text, size, &used, ",-%s", lack);
	guest_cpu_mask(&rest, text, lack, sizeof(lack));
	for (unsigned i = 0; i < OTHERS; i++) {
		if (!other_lack(&rest, here, i, lack, sizeof(lack)))
			continue;
		if (i == COMPONENTS)
			add(text, size, &used, ",phys-bits=%" PRIu32, physical_bits(here));
		else if (i == COMPONENTS + 1)
			add(text, size, &used, ",-invariant_tsc");
		else if (i == 2 || i == 9)
			add(text, size, &used, ",-%s", i == 2 ? "avx" : "pku");
		else if (i >= 2 && i < 32)
			add(text, size, &used, ",-d.0.eax.%u", i);
		else
			return false;
	}
	return (size_t)used < size;
}
