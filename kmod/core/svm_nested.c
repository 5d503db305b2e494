/* svm_nested.c */
#include "kmod/core/svm.h"
#include "x86/msr.h"
#include "x86/vectors.h"

const char *svm_nested_create(struct core_vcpu *vcpu) { (void)vcpu; return NULL; }
void svm_nested_start(struct core_vcpu *vcpu) { vcpu->svm->nested.gif = true; vcpu->svm->nested.svme = false; }
bool svm_nested_exit(struct core_vcpu *vcpu) { (void)vcpu; return false; }
void svm_nested_instruction(struct core_vcpu *vcpu, unsigned code) { (void)code; svm_raise(vcpu, VECTOR_UD, 0); }
enum core_msr svm_nested_read_msr(struct core_vcpu *vcpu, uint32_t index, uint64_t *value)
{
	(void)vcpu, (void)value;
	return index == MSR_TSC_RATIO || (index >= MSR_VM_CR && index <= MSR_SVM_KEY) ? MSR_FAULT : MSR_NOT_MINE;
}
enum core_msr svm_nested_write_msr(struct core_vcpu *vcpu, uint32_t index, uint64_t value)
{
	return svm_nested_read_msr(vcpu, index, &value);
}
void svm_nested_cpuid(struct core_vcpu *vcpu, uint32_t leaf, uint32_t out[4])
{
	(void)vcpu;
	if (leaf == 0x80000001u)
		out[2] &= ~(1u << 2 | 1u << 12);
	if (leaf == 0x8000000au)
		out[0] = out[1] = out[2] = out[3] = 0;
}
void svm_nested_enable(struct core_vcpu *vcpu, bool on) { (void)vcpu, (void)on; }
