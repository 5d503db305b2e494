/* vmx.h: what stories of VT-x begin with. */
#ifndef TRAPLINE_GUESTS_VMX_VMX_H
#define TRAPLINE_GUESTS_VMX_VMX_H

#include "lib/exchange.h"
#include "lib/story.h"
#include "lib/vmx_world.h"

/* VM-entry interruption information (SDM 3C 25.8.3), the vector apart; @type: VMX_EVENT_… */
#define EVENT(type) (VMX_EVENT_VALID | (uint32_t)(type) << VMX_EVENT_TYPE_SHIFT)

/* A guest in 64-bit mode with these RFLAGS, bit 1 apart. False: NOTSUP was said. */
static inline bool guest_with_flags(uint64_t flags)
{
	if (!vmx_baseline(MODE_LONG, 0, VMX_BARE))
		return false;
	exchange.in.field[STATE_rflags] = RFLAGS_FIXED | flags;
	vmx_write(VMCS_GUEST_RFLAGS, RFLAGS_FIXED | flags);
	return true;
}

/* Enters the guest, which is to succeed, and comes back behind its exit. */
static inline void check_run(void) { story_check("entry", 0, vmx_run()); }

#endif
