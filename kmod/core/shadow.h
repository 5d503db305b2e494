/*
 * shadow.h: what both vendors need to join the nested tables of a guest that is a hypervisor with ours:
 * tables of four levels that are filled where its guest faults, and forgotten as a whole.
 */
#ifndef TRAPLINE_KMOD_CORE_SHADOW_H
#define TRAPLINE_KMOD_CORE_SHADOW_H

#include "kmod/core/core.h"

#define SHADOW_PAGES 128u

/* Of a vCPU. The root is the first page; without any @used there are no tables. */
struct shadow {
	uint64_t *page[SHADOW_PAGES];
	unsigned pages, used;
};

/* A page of zeros; NULL where there are no more. They are kept for the next tables. */
uint64_t *shadow_take(struct shadow *shadow);
/* The root, which is made where there is none. */
uint64_t *shadow_root(struct shadow *shadow);
/* The entry for @address at @level (0: of 4 KiB), with the tables above it; NULL where there are no pages
 * left. */
uint64_t *shadow_entry(struct core_vcpu *vcpu, struct shadow *shadow, uint64_t address, unsigned level);
/* Whether all of the 2 MiB around @host may be the guest's, and nothing in it is watched. */
bool shadow_whole_block(const struct core_vcpu *vcpu, uint64_t host);
/* Whether it is the local APIC's page, where that is watched. */
static inline bool shadow_is_apic(const struct core_vcpu *vcpu, uint64_t host)
{
	return vcpu->apic_page && host == vcpu->apic_page;
}

#endif
