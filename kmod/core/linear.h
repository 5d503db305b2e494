/*
 * linear.h: the guest's memory by linear addresses, as its supervisor reaches it (SDM 3A 4.3 to 4.8).
 * Accesses have its rights and set accessed and dirty flags. False: a page fault, @fault says which; nothing
 * was written. What the tables put into the hypervisor's memory ends the run by name.
 */
#ifndef TRAPLINE_KMOD_CORE_LINEAR_H
#define TRAPLINE_KMOD_CORE_LINEAR_H

#include "kmod/core/core.h"

/* How the guest pages, and what it may. */
struct linear_mode {
	const struct core_machine *machine;
	uint64_t cr0, cr3, cr4, efer;
	uint64_t pdpte[4]; /* as the processor has them, where paging is PAE */
	uint64_t rflags;   /* AC */
	bool implicit;     /* the accesses are: SMAP heeds no AC */
};

struct linear_fault {
	uint64_t address;
	uint32_t error;
};

/* Of at most a page. */
bool linear_check(const struct linear_mode *mode, uint64_t linear, unsigned size, bool write,
		  struct linear_fault *fault);
bool linear_get(const struct linear_mode *mode, uint64_t linear, void *to, unsigned size,
		struct linear_fault *fault);
bool linear_put(const struct linear_mode *mode, uint64_t linear, const void *from, unsigned size,
		struct linear_fault *fault);

#endif
