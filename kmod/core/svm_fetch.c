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

static bool is_prefix(uint8_t byte, bool wide)
{
	switch (byte) {
	case 0x26:
	case 0x2e:
	case 0x36:
	case 0x3e:
	case 0x64:
	case 0x65:
	case 0x66:
	case 0x67:
	case 0xf0:
	case 0xf2:
	case 0xf3: return true;
	default: return wide && (byte & 0xf0) == 0x40;
	}
}

unsigned svm_prefixes(const struct core_vcpu *vcpu, const uint8_t *bytes, unsigned size)
{
	uint8_t *vmcb = vcpu->svm->vmcb;
	bool wide = *vmcb64(vmcb, VMCB_EFER) & EFER_LMA && *vmcb16(vmcb, VMCB_CS + 2) >> 9 & 1;
	unsigned count = 0;

	while (count < size && is_prefix(bytes[count], wide))
		count++;
	return count;
}
