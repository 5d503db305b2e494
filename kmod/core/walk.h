/* walk.h: where the guest's linear addresses are, by its own page tables: no rights are asked, nothing is
 * changed. */
#ifndef TRAPLINE_KMOD_CORE_WALK_H
#define TRAPLINE_KMOD_CORE_WALK_H

#include "kmod/core/core.h"

struct walk_mode {
	uint64_t cr0, cr3, cr4, efer;
};

/* False: nothing is mapped there, or tables lie in the hypervisor's memory. */
bool walk_guest(const struct core_machine *machine, const struct walk_mode *mode, uint64_t linear,
		uint64_t *physical);

#endif
