/* svm_fetch.c: the bytes of the guest's instruction, through its own page tables. */
#include "kmod/core/svm.h"
#include "kmod/core/walk.h"
#include "x86/paging.h"

unsigned svm_fetch(struct core_vcpu *vcpu, uint8_t *bytes, unsigned size)
{
	uint8_t *vmcb = vcpu->svm->vmcb;
	uint64_t linear = svm_linear_rip(vcpu), physical;
	struct walk_mode mode = {*vmcb64(vmcb, VMCB_CR0), *vmcb64(vmcb, VMCB_CR3), *vmcb64(vmcb, VMCB_CR4),
				 *vmcb64(vmcb, VMCB_EFER)};
	unsigned count;

	for (count = 0; count < size; count++) {
		if (!walk_guest(vcpu->machine, &mode, linear + count, &physical) ||
		    !tables_reached(vcpu->machine, physical, 1))
			break;
		bytes[count] = *((uint8_t *)hw_map(physical & ~PAGE_MASK) + (physical & PAGE_MASK));
	}
	return count;
}
