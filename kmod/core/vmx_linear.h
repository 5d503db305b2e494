/*
 * vmx_linear.h: the guest's memory by linear addresses, without IA-32e mode. Accesses are a supervisor's, and
 * implicit; they set accessed and dirty flags. False: a page fault, @fault says which; nothing was written.
 */
#ifndef TRAPLINE_KMOD_CORE_VMX_LINEAR_H
#define TRAPLINE_KMOD_CORE_VMX_LINEAR_H

#include "kmod/core/core.h"

struct linear_fault {
	uint32_t address, error;
};

/* At most a page. */
bool linear_check(struct linear_fault *fault, const struct core_vcpu *vcpu, uint32_t linear, unsigned size,
		  bool write);
bool linear_get(struct linear_fault *fault, const struct core_vcpu *vcpu, uint32_t linear, void *to,
		unsigned size);
bool linear_put(struct linear_fault *fault, const struct core_vcpu *vcpu, uint32_t linear, const void *from,
		unsigned size);

#endif
