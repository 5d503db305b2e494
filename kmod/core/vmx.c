/* vmx.c: VT-x behind core.h; until it is there, no processor has it. */
#include "kmod/core/core.h"

const char *vmx_missing(void) { return "the hypervisor knows no VT-x"; }

static _Noreturn void never(void) { hw_stop("VT-x was asked for", 0); }

const char *vmx_create(struct core_vcpu *vcpu) { (void)vcpu; return vmx_missing(); }
void vmx_start(struct core_vcpu *vcpu, const struct core_start *start) { (void)vcpu; (void)start; never(); }
void vmx_run(struct core_vcpu *vcpu) { (void)vcpu; never(); }
void vmx_raise(struct core_vcpu *vcpu, unsigned vector, uint32_t error)
{
	(void)vcpu, (void)vector, (void)error;
	never();
}
void vmx_skip(struct core_vcpu *vcpu) { (void)vcpu; never(); }
uint64_t vmx_linear_rip(const struct core_vcpu *vcpu) { (void)vcpu; never(); }
uint64_t vmx_cr4(const struct core_vcpu *vcpu) { (void)vcpu; never(); }
void vmx_cpuid(struct core_vcpu *vcpu, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
	(void)vcpu, (void)leaf, (void)subleaf, (void)out;
	never();
}
enum core_msr vmx_read_msr(struct core_vcpu *vcpu, uint32_t index, uint64_t *value)
{
	(void)vcpu, (void)index, (void)value;
	never();
}
enum core_msr vmx_write_msr(struct core_vcpu *vcpu, uint32_t index, uint64_t value)
{
	(void)vcpu, (void)index, (void)value;
	never();
}
void vmx_watch_msr(struct core_vcpu *vcpu, uint32_t index) { (void)vcpu; (void)index; never(); }
void vmx_arm(struct core_vcpu *vcpu, bool on) { (void)vcpu; (void)on; never(); }
void vmx_release(struct core_vcpu *vcpu, uint32_t code, uint64_t info1)
{
	(void)vcpu, (void)code, (void)info1;
	never();
}
void vmx_step(struct core_vcpu *vcpu) { (void)vcpu; never(); }
void vmx_flush(struct core_vcpu *vcpu) { (void)vcpu; never(); }
uint64_t vmx_table_entry(uint64_t address) { (void)address; never(); }
uint64_t vmx_page_entry(const struct core_vcpu *vcpu, uint64_t address, unsigned access, bool large)
{
	(void)vcpu, (void)address, (void)access, (void)large;
	never();
}
