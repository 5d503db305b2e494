/* Predicates of the case section, asked of a machine's cpuid lines. */
#include <errno.h>
#include <stdio.h>

#include "vm/case_section.h"

static const struct cpuid_line *find_leaf(const struct machine_facts *facts, uint32_t leaf, uint32_t subleaf)
{
	for (unsigned i = 0; i < facts->cpuid_count; i++)
		if (facts->cpuid[i].leaf == leaf && facts->cpuid[i].subleaf == subleaf)
			return &facts->cpuid[i];
	return NULL;
}

const char *machine_vendor(const struct machine_facts *facts)
{
	const struct cpuid_line *zero = find_leaf(facts, 0, 0);
	char name[12];

	if (!zero)
		return "";
	memcpy(name, &zero->reg[1], 4);
	memcpy(name + 4, &zero->reg[3], 4);
	memcpy(name + 8, &zero->reg[2], 4);
	if (memcmp(name, "GenuineIntel", 12) == 0)
		return "intel";
	if (memcmp(name, "AuthenticAMD", 12) == 0 || memcmp(name, "HygonGenuine", 12) == 0)
		return "amd";
	return "other";
}

/* Whether the machine itself says that it has no such leaf. */
static bool leaf_is_absent(const struct machine_facts *facts, uint32_t leaf, uint32_t subleaf)
{
	const struct cpuid_line *first = find_leaf(facts, leaf & 0x80000000u, 0);
	const struct cpuid_line *seven = find_leaf(facts, 7, 0);

	if (first && leaf > first->reg[0])
		return true;
	/* CPUID.(7,0):EAX is the highest subleaf (SDM 2A CPUID). */
	return leaf == 7 && seven && subleaf > seven->reg[0];
}

/* [BIT]=0|1 or [HIGH:LOW]<NUMBER, applied to a register; 1, 0, or -EINVAL. */
static int bits_hold(struct span bits, struct span value, bool less, uint32_t reg)
{
	struct span low = bits, high = span_take(&low, ':');
	uint64_t first, last, wanted;

	if (!span_number(high, &first) || first > 31 || !span_number(value, &wanted))
		return -EINVAL;
	if (!less)
		return low.size || wanted > 1 ? -EINVAL : (reg >> first & 1) == wanted;
	if (!span_number(low, &last) || last > first)
		return -EINVAL;
	return (reg >> last & (uint32_t)((2ull << (first - last)) - 1)) < wanted;
}

/* cpuid.LEAF.SUBLEAF.REG[BIT]=0|1 or cpuid.LEAF.SUBLEAF.REG[HIGH:LOW]<NUMBER */
static int cpuid_term(struct span term, const struct machine_facts *facts)
{
	static const char *const registers[4] = {"eax", "ebx", "ecx", "edx"};
	const struct cpuid_line *line;
	bool less = memchr(term.at, '<', term.size);
	struct span value = term;
	struct span path = span_take(&value, less ? '<' : '=');
	uint64_t leaf, subleaf;
	struct span name;
	unsigned reg = 0;
	int none;

	span_take(&path, '.');
	if (!span_hex(span_take(&path, '.'), &leaf) || leaf > UINT32_MAX)
		return -EINVAL;
	if (!span_hex(span_take(&path, '.'), &subleaf) || subleaf > UINT32_MAX)
		return -EINVAL;
	name = span_take(&path, '[');
	while (reg < 4 && !span_equals(name, registers[reg]))
		reg++;
	if (reg == 4 || path.size < 2 || path.at[path.size - 1] != ']')
		return -EINVAL;
	path.size--;
	none = bits_hold(path, value, less, 0);
	line = find_leaf(facts, (uint32_t)leaf, (uint32_t)subleaf);
	if (none == -EINVAL || line)
		return none == -EINVAL ? none : bits_hold(path, value, less, line->reg[reg]);
	return leaf_is_absent(facts, (uint32_t)leaf, (uint32_t)subleaf) ? none : -ENODATA;
}

static int term_holds(struct span term, const struct machine_facts *facts)
{
	static const char vendor_word[] = "vendor=", cpuid_word[] = "cpuid.";
	const size_t vendor_size = sizeof(vendor_word) - 1, cpuid_size = sizeof(cpuid_word) - 1;

	if (span_equals(term, "always"))
		return 1;
	if (span_equals(term, "vendor=intel") || span_equals(term, "vendor=amd")) {
		const char *vendor = machine_vendor(facts);

		if (!*vendor)
			return -ENODATA;
		return span_equals((struct span){term.at + vendor_size, term.size - vendor_size}, vendor);
	}
	if (term.size > cpuid_size && memcmp(term.at, cpuid_word, cpuid_size) == 0)
		return cpuid_term(term, facts);
	return -EINVAL;
}

int predicate_holds(struct span predicate, const struct machine_facts *facts)
{
	int result = 1;

	if (predicate.size == 0 || predicate.at[predicate.size - 1] == ',')
		return -EINVAL;
	while (predicate.size) {
		int term = term_holds(span_take(&predicate, ','), facts);

		if (term == -EINVAL)
			return term;
		/* A term that is false makes the whole false, whatever another lacks. */
		if (term == 0 || (term < 0 && result > 0))
			result = term;
	}
	return result;
}

const struct case_want *case_expectation(const struct case_list *list, const struct case_entry *entry,
					 const struct machine_facts *facts, char *why, size_t size)
{
	for (unsigned i = 0; i < entry->want_count; i++) {
		const struct case_want *want = &list->want[entry->first_want + i];
		int holds = predicate_holds(want->predicate, facts);

		if (holds > 0)
			return want;
		if (holds < 0) {
			snprintf(why, size, "the guest did not report what %.*s asks for",
				 SPAN_ARGS(want->predicate));
			return NULL;
		}
	}
	snprintf(why, size, "no expectation of the case is for this machine");
	return NULL;
}
