/*
 * topology.c: stories of what CPUID tells about several processors: their IDs, and how those are cut into
 * threads, cores and packages.
 *
 * SDM 2A CPUID (leaves 1, 4, 0BH, 1FH), 3A 9.9; APM 3 appendix E (Fn8000_0008, Fn8000_001E).
 */
#include "lib/apic.h"
#include "lib/cpus.h"
#include "lib/machine.h"
#include "lib/story.h"

#define LEVELS 4u

/* What a processor says of itself. */
struct self {
	uint32_t one[4], extended[4], level[LEVELS][4], lapic;
};
static struct self selves[CPUS_MAX];

static void look(void *argument)
{
	struct self *self = &selves[cpus_current()];
	uint32_t leaf = (uint32_t)(uintptr_t)argument;

	self->lapic = apic_id();
	machine_cpuid(1, 0, self->one);
	machine_cpuid(0x8000001e, 0, self->extended);
	for (unsigned n = 0; n < LEVELS; n++)
		machine_cpuid(leaf, n, self->level[n]);
}

/* All processors have looked, at the levels of @leaf; how many there are, or 0. */
static unsigned look_all(uint32_t leaf)
{
	unsigned cpus;

	if (!story_apic_mode() || !cpus_needs(2))
		return 0;
	cpus = cpus_start(CPUS_PAGE);
	for (unsigned n = 1; n < cpus; n++) {
		cpus_tell(n, look, (void *)(uintptr_t)leaf);
		story_check_at("looked", n, 1, cpus_wait(n));
	}
	look((void *)(uintptr_t)leaf);
	return cpus;
}

static uint32_t lapic_of(const struct self *self) { return self->lapic; }
static uint32_t core_of(const struct self *self)
{
	return (self->extended[2] & 0xff) << 8 | (self->extended[1] & 0xff);
}

/* How many have the same as processor @n, itself included. */
static unsigned sharing(unsigned cpus, unsigned n, uint32_t (*what)(const struct self *self))
{
	unsigned count = 0;

	for (unsigned m = 0; m < cpus; m++)
		count += what(&selves[m]) == what(&selves[n]);
	return count;
}

/* Leaf 1: the initial APIC ID is the local APIC's, and there is room for all of them. */
STORY(cpuid_ids)
{
	unsigned cpus = look_all(0xb);

	for (unsigned n = 0; n < cpus; n++) {
		story_check_at("initial_id", n, selves[n].lapic & 0xff, selves[n].one[1] >> 24);
		story_check_at("shared_by", n, 1, sharing(cpus, n, lapic_of));
		if (selves[n].one[3] >> 28 & 1)
			story_check_at("room", n, 1, (selves[n].one[1] >> 16 & 0xff) >= cpus);
	}
}

/*
 * Leaves 0BH and 1FH (@index): each level says its number, a domain that is no lower than the one before, how
 * far to shift, and the same whole ID; behind the last there are none.
 */
STORY(cpuid_levels)
{
	uint32_t leaf = (uint32_t)GIVEN(index);
	unsigned cpus, last = 0;

	if (!story_needs(machine.max_leaf >= leaf, leaf == 0xb ? "cpuid.0.0.eax<0xb" : "cpuid.0.0.eax<0x1f"))
		return;
	cpus = look_all(leaf);
	if (!cpus || !story_needs(selves[0].level[0][1] & 0xffff, "no level in the leaf (EBX = 0)"))
		return;
	for (unsigned n = 0; n < LEVELS; n++) {
		uint32_t *r = selves[0].level[n];

		story_check_at("number", n, n, r[2] & 0xff);
		story_check_at("id", n, selves[0].lapic, r[3]);
		if (!(r[2] >> 8 & 0xff)) {
			story_check_at("nothing_behind", n, 0, r[0] & 0x1f);
			continue;
		}
		if (n)
			story_check_at("wider", n, 1, (r[0] & 0x1f) >= (selves[0].level[n - 1][0] & 0x1f));
		if (n)
			story_check_at("domain", n, 1,
				       (r[2] >> 8 & 0xff) > (selves[0].level[n - 1][2] >> 8 & 0xff));
		last = n;
	}
	story_check("threads_first", 1, selves[0].level[0][2] >> 8 & 0xff);
	for (unsigned n = 1; n < cpus; n++) {
		story_check_at("its_id", n, selves[n].lapic, selves[n].level[0][3]);
		story_check_at("same_shift", n, selves[0].level[last][0], selves[n].level[last][0]);
	}
	for (unsigned level = 0; level <= last; level++) {
		unsigned shift = selves[0].level[level][0] & 0x1f, together = 0;

		for (unsigned n = 0; n < cpus; n++)
			together += selves[n].lapic >> shift == selves[0].lapic >> shift;
		story_check_at("fits", level, 1, together <= (selves[0].level[level][1] & 0xffff));
	}
}

/* Fn8000_001E: the extended APIC ID is the local APIC's, the core its own where a core has one thread. */
STORY(cpuid_extended)
{
	uint32_t r[4];
	unsigned cpus;

	machine_cpuid(0x80000001, 0, r);
	if (!story_needs(r[2] >> 22 & 1, "cpuid.80000001.0.ecx[22]=0"))
		return;
	cpus = look_all(0xb);
	for (unsigned n = 0; n < cpus; n++) {
		story_check_at("id", n, selves[n].lapic, selves[n].extended[0]);
		if (!(selves[n].extended[1] >> 8 & 0xff))
			story_check_at("core_shared_by", n, 1, sharing(cpus, n, core_of));
		story_check_at("same_threads", n, selves[0].extended[1] >> 8 & 0xff,
			       selves[n].extended[1] >> 8 & 0xff);
	}
}

/* Leaf 4 and, on AMD, Fn8000_001D: caches one behind the other, each as many bytes as its four factors say.
 */
STORY(cpuid_caches)
{
	uint32_t r[4], leaf = machine.intel ? 4 : 0x8000001d, level = 1;
	unsigned n;

	machine_cpuid(0x80000001, 0, r);
	if (!story_needs(machine.intel ? machine.max_leaf >= 4 : r[2] >> 22 & 1, "cpuid: no leaf of caches"))
		return;
	for (n = 0; n < 16; n++) {
		machine_cpuid(leaf, n, r);
		if (!(r[0] & 0x1f))
			break;
		story_check_at("type", n, 1, (r[0] & 0x1f) <= 3);
		story_check_at("level", n, 1, (r[0] >> 5 & 7) >= level && (r[0] >> 5 & 7) <= level + 1);
		level = r[0] >> 5 & 7;
		story_check_at("line", n, 0, ((r[1] & 0xfff) + 1) & (r[1] & 0xfff));
		story_check_at("sets", n, 1, r[0] >> 9 & 1 || r[2] > 0);
	}
	story_check("some", 1, n > 0 && n < 16);
}
