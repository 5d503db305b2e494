/* vmx_task.c: to be written. */
#include "kmod/core/vmx.h"

void vmx_task_switch(struct core_vcpu *vcpu) { hw_stop("a task switch", vcpu->rip); }
