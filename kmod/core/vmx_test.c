/* vmx_test.c: the core over VT-x, on the made-up hardware of kmod/test. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "kmod/core/vmx_nested.h"
#include "kmod/core/vmx_region.h"
#include "kmod/core/vmx_shadow.h"
#include "kmod/test/fake.h"
#include "kmod/test/start.h"
#include "x86/descriptors.h"
#include "x86/l1.h"
#include "x86/msr.h"
#include "x86/paging.h"
#include "x86/vectors.h"

#define CODE    0x8000ull  /* where the guest is */
#define OPERAND 0x9000ull  /* of its instructions */
#define ON      0x20000ull /* its VMXON region */
#define INNER   0x21000ull /* its VMCS */
#define BITMAP  0x30000ull
#define EPT     0x40000ull
#define LIST    0x50000ull

static struct core_machine machine;
static struct core_vcpu vcpu;
static struct {
	uint64_t reason, qualification, address, interrupted, event, error;
} next; /* exit */

static void start(bool nest, unsigned cpus)
{
	fake_start(&machine, &vcpu, CORE_VMX, nest, cpus, CODE);
	memset(&next, 0, sizeof(next));
	fake_put(VMCS_GUEST_RFLAGS, RFLAGS_FIXED);
}

static int setup(void **state)
{
	(void)state;
	start(true, 1);
	return 0;
}

static void play(uint8_t *block, uint64_t gpr[GPR_COUNT])
{
	(void)block, (void)gpr;
	fake_put(VMCS_EXIT_REASON, next.reason);
	fake_put(VMCS_EXIT_QUALIFICATION, next.qualification);
	fake_put(VMCS_GUEST_PHYSICAL_ADDRESS, next.address);
	fake_put(VMCS_IDT_VECTORING_INFO, next.interrupted);
	fake_put(VMCS_EXIT_INTERRUPTION_INFO, next.event);
	fake_put(VMCS_EXIT_INTERRUPTION_ERROR, next.error);
	fake_put(VMCS_EXIT_INSTRUCTION_LENGTH, 3);
}

/* An entry that ends as @next says. */
static void enter(void)
{
	fake.guest = play;
	vmx_run(&vcpu);
}

static void exits(uint64_t reason, uint64_t qualification)
{
	memset(&next, 0, sizeof(next));
	next.reason = reason;
	next.qualification = qualification;
	enter();
}

static void violation(uint64_t address, uint64_t why, uint64_t interrupted)
{
	memset(&next, 0, sizeof(next));
	next.reason = VMX_EXIT_EPT_VIOLATION;
	next.qualification = why;
	next.address = address;
	next.interrupted = interrupted;
	enter();
}

static uint64_t exception(unsigned vector)
{
	return vector | VMX_EVENT_EXCEPTION << VMX_EVENT_TYPE_SHIFT | VMX_EVENT_VALID |
	       (vector_has_error_code(vector) ? VMX_EVENT_ERROR_CODE : 0);
}

static uint64_t injected(void) { return fake_get(VMCS_ENTRY_INTERRUPTION_INFO); }

/* ---- is it here? ---- */

static void probes(void **state)
{
	(void)state;
	fake_reset(CORE_VMX);
	fake_msr(MSR_FEATURE_CONTROL, FEATURE_CONTROL_LOCK, 0);
	assert_non_null(strstr(vmx_missing(), "FEATURE_CONTROL"));
	fake_reset(CORE_VMX);
	fake_msr(MSR_VMX_SECONDARY_CTLS, (0xffffffffull & ~VMX2_EPT) << 32, 0);
	assert_non_null(strstr(vmx_missing(), "EPT"));
	fake_reset(CORE_VMX);
	assert_null(vmx_missing());
}

/* ---- exits that are the core's ---- */

static void cpuid_hides(void **state)
{
	(void)state;
	start(false, 1);
	vcpu.gpr[RAX] = 1;
	exits(VMX_EXIT_CPUID, 0);
	assert_int_equal(vcpu.gpr[RCX] >> 5 & 1, 0);
	assert_int_equal(vcpu.rip, CODE + 3);
	start(true, 1);
	vcpu.gpr[RAX] = 1;
	exits(VMX_EXIT_CPUID, 0);
	assert_int_equal(vcpu.gpr[RCX] >> 5 & 1, 1);
}

static void msr_exits(void **state)
{
	(void)state;
	vcpu.gpr[RCX] = MSR_VMX_BASIC;
	exits(VMX_EXIT_RDMSR, 0);
	assert_int_equal((uint32_t)vcpu.gpr[RAX], 0x1234);
	assert_int_equal(vcpu.gpr[RDX] & VMX_BASIC_DUAL_MONITOR >> 32, 0);
	exits(VMX_EXIT_WRMSR, 0);
	assert_int_equal(injected(), exception(VECTOR_GP));
	assert_int_equal(vcpu.rip, CODE + 3);
	vcpu.gpr[RCX] = 0x12345;
	exits(VMX_EXIT_RDMSR, 0);
	assert_int_equal(injected(), exception(VECTOR_GP));
	assert_true(fake_get(VMCS_GUEST_RFLAGS) & RFLAGS_RF);
}

/* Without nesting there is no capability to read. */
static void capabilities_are_hidden(void **state)
{
	(void)state;
	start(false, 1);
	vcpu.gpr[RCX] = MSR_VMX_BASIC;
	exits(VMX_EXIT_RDMSR, 0);
	assert_int_equal(injected(), exception(VECTOR_GP));
}

static void only_what_is_nested_is_offered(void **state)
{
	uint64_t value;

	(void)state;
	assert_int_equal(vmx_nested_read_msr(&vcpu, MSR_VMX_SECONDARY_CTLS, &value), MSR_DONE);
	assert_false(value >> 32 & (VMX2_VIRTUAL_INTERRUPTS | VMX2_VMCS_SHADOWING | VMX2_PML));
	assert_true(value >> 32 & VMX2_EPT);
	assert_int_equal(vmx_nested_read_msr(&vcpu, MSR_VMX_PIN_CTLS, &value), MSR_DONE);
	assert_false(value >> 32 & VMX_PIN_POSTED_INTERRUPTS);
	assert_int_equal(vmx_nested_read_msr(&vcpu, MSR_VMX_VMFUNC, &value), MSR_FAULT);
	assert_true(vmx_offer_allows(MSR_VMX_PIN_CTLS, VMX_PIN_DEFAULT1 | VMX_PIN_NMI));
	assert_false(vmx_offer_allows(MSR_VMX_PIN_CTLS, VMX_PIN_NMI));
	assert_false(vmx_offer_allows(MSR_VMX_PIN_CTLS, VMX_PIN_DEFAULT1 | VMX_PIN_PREEMPTION_TIMER));
}

static void xsetbv_and_invd(void **state)
{
	(void)state;
	vcpu.gpr[RAX] = 1;
	exits(VMX_EXIT_XSETBV, 0);
	assert_int_equal(vcpu.rip, CODE + 3);
	vcpu.gpr[RAX] = 0;
	exits(VMX_EXIT_XSETBV, 0);
	assert_int_equal(injected(), exception(VECTOR_GP));
	exits(VMX_EXIT_INVD, 0);
	assert_int_equal(fake.wbinvd, 1);
}

/* CR0.NE is the processor's: the guest sees what it wants, and nothing changes where its MOV faults. */
static void fixed_bits(void **state)
{
	uint64_t wanted = CR0_PE | CR0_ET;

	(void)state;
	assert_int_equal(vmx_guest_cr(vcpu.vmx, 0) & CR0_NE, 0);
	assert_true(fake_get(VMCS_GUEST_CR0) & CR0_NE);
	vcpu.gpr[RDX] = wanted | CR0_NE;
	exits(VMX_EXIT_CR_ACCESS, RDX << 8);
	assert_true(fake_get(VMCS_CR0_SHADOW) & CR0_NE);
	assert_true(fake_get(VMCS_PRIMARY_CONTROLS) & VMX_MONITOR_TRAP_FLAG);
	exits(VMX_EXIT_MONITOR_TRAP_FLAG, 0); /* not behind it: it faulted */
	assert_false(fake_get(VMCS_CR0_SHADOW) & CR0_NE);
	exits(VMX_EXIT_CR_ACCESS, RDX << 8);
	vcpu.rip += 3;
	exits(VMX_EXIT_MONITOR_TRAP_FLAG, 0);
	assert_true(fake_get(VMCS_CR0_SHADOW) & CR0_NE);
	assert_false(fake_get(VMCS_PRIMARY_CONTROLS) & VMX_MONITOR_TRAP_FLAG);
}

static void failures(void **state)
{
	(void)state;
	assert_true(fake_catches(exits(VMX_EXIT_TRIPLE_FAULT, 0)));
	assert_true(fake.shut_down);
	start(true, 1);
	assert_true(fake_catches(exits(VMX_EXIT_ENTRY_GUEST_STATE | VMX_EXIT_ENTRY_FAILURE, 0)));
	assert_non_null(strstr(fake.stopped, "refuses"));
	start(true, 1);
	assert_true(fake_catches(exits(VMX_EXIT_HLT, 0)));
	assert_non_null(strstr(fake.stopped, "nobody asked"));
	start(true, 1);
	assert_true(fake_catches(violation(FAKE_HIDDEN, EPT_VIOLATION_READ, 0)));
	assert_non_null(strstr(fake.stopped, "hypervisor's memory"));
	start(true, 1);
	fake_refuse(VMX_ERROR_ENTRY_CONTROLS);
	assert_true(fake_catches(exits(VMX_EXIT_CPUID, 0)));
	assert_non_null(strstr(fake.stopped, "entry fails"));
	start(true, 1);
	fake_lacks(VMCS_GUEST_RSP);
	assert_true(fake_catches(exits(VMX_EXIT_CPUID, 0)));
	assert_non_null(strstr(fake.stopped, "VMWRITE"));
}

/* ---- memory ---- */

static uint64_t entry_at(const uint64_t *table, uint64_t address, unsigned level)
{
	for (unsigned at = 3;; at--) {
		uint64_t entry = table[address >> (12 + 9 * at) & 511];

		if (at == level || !(entry & 7) || entry & EPT_LARGE)
			return entry;
		table = hw_map(entry & 0x000ffffffffff000ull);
	}
}

static void memory_is_identity(void **state)
{
	(void)state;
	assert_int_equal(entry_at(vcpu.tables, 0x1200000, 1) & ~0xfffull, 0x1200000);
	assert_int_equal(entry_at(vcpu.tables, 0x1200000, 1) >> EPT_TYPE_SHIFT & 7, 6);
	assert_int_equal(entry_at(vcpu.tables, FAKE_HIDDEN, 1), 0);
	next.error = 0;
	violation(0x80000000ull, EPT_VIOLATION_WRITE, exception(VECTOR_PF));
	assert_int_equal(entry_at(vcpu.tables, 0x80000000ull, 1) & ~0xfffull, 0x80000000ull);
	assert_int_equal(entry_at(vcpu.tables, 0x80000000ull, 1) >> EPT_TYPE_SHIFT & 7, 0); /* a device's */
	assert_int_equal(injected(), exception(VECTOR_PF));
}

/* ---- events ---- */

/* What a violation interrupts comes again, as it was. */
static void events_come_again(void **state)
{
	uint64_t soft = 0x80 | VMX_EVENT_SOFTWARE_INTERRUPT << VMX_EVENT_TYPE_SHIFT | VMX_EVENT_VALID;
	uint64_t nmi = VECTOR_NMI | VMX_EVENT_NMI << VMX_EVENT_TYPE_SHIFT | VMX_EVENT_VALID;

	(void)state;
	fake_put(VMCS_IDT_VECTORING_ERROR, 0x18);
	violation(0x80000000ull, EPT_VIOLATION_READ, exception(VECTOR_GP));
	assert_int_equal(injected(), exception(VECTOR_GP));
	assert_int_equal(fake_get(VMCS_ENTRY_EXCEPTION_ERROR), 0x18);
	violation(0x80200000ull, EPT_VIOLATION_READ, soft);
	assert_int_equal(injected(), soft);
	assert_int_equal(fake_get(VMCS_ENTRY_INSTRUCTION_LENGTH), 3);
	fake_put(VMCS_GUEST_INTERRUPTIBILITY, VMX_BLOCKING_NMI);
	violation(0x80400000ull, EPT_VIOLATION_READ, nmi);
	assert_int_equal(injected(), nmi);
	assert_int_equal(fake_get(VMCS_GUEST_INTERRUPTIBILITY) & VMX_BLOCKING_NMI, 0);
	/* Nothing was being delivered: IRET, which has unblocked NMIs, is executed again. */
	violation(0x80600000ull, EPT_VIOLATION_READ | EPT_VIOLATION_NMI_UNBLOCKED, 0);
	assert_true(fake_get(VMCS_GUEST_INTERRUPTIBILITY) & VMX_BLOCKING_NMI);
	assert_false(injected() & VMX_EVENT_VALID);
}

static void raise(uint64_t interrupted, unsigned vector)
{
	fake_put(VMCS_IDT_VECTORING_INFO, interrupted);
	fake_put(VMCS_ENTRY_INTERRUPTION_INFO, 0);
	vmx_raise_upon(&vcpu, vector, 0x18);
}

static void double_faults(void **state)
{
	(void)state;
	raise(exception(VECTOR_NP), VECTOR_GP);
	assert_int_equal(injected(), exception(VECTOR_DF));
	assert_int_equal(fake_get(VMCS_ENTRY_EXCEPTION_ERROR), 0);
	raise(exception(VECTOR_PF), VECTOR_PF);
	assert_int_equal(injected(), exception(VECTOR_DF));
	raise(exception(VECTOR_UD), VECTOR_GP);
	assert_int_equal(injected(), exception(VECTOR_GP));
	assert_int_equal(fake_get(VMCS_ENTRY_EXCEPTION_ERROR), 0x18);
	raise(exception(VECTOR_GP), VECTOR_PF);
	assert_int_equal(injected(), exception(VECTOR_PF));
	raise(0x80 | VMX_EVENT_VALID, VECTOR_GP);
	assert_int_equal(injected(), exception(VECTOR_GP));
	assert_true(fake_catches(raise(exception(VECTOR_DF), VECTOR_GP)));
	assert_true(fake.shut_down);
}

/* One that has come to the hypervisor goes to the guest, when it may. */
static void nmi_is_brought(void **state)
{
	uint64_t nmi = VECTOR_NMI | VMX_EVENT_NMI << VMX_EVENT_TYPE_SHIFT | VMX_EVENT_VALID;

	(void)state;
	fake.nmi = true;
	fake_put(VMCS_GUEST_INTERRUPTIBILITY, VMX_BLOCKING_NMI);
	exits(VMX_EXIT_MONITOR_TRAP_FLAG, 0);
	assert_true(vcpu.vmx->nmi);
	fake_put(VMCS_GUEST_INTERRUPTIBILITY, 0);
	fake_put(VMCS_ENTRY_INTERRUPTION_INFO, exception(VECTOR_UD));
	exits(VMX_EXIT_MONITOR_TRAP_FLAG, 0); /* behind that */
	assert_true(vcpu.vmx->nmi);
	next.reason = VMX_EXIT_MONITOR_TRAP_FLAG;
	fake.guest = NULL;
	assert_true(fake_catches(vmx_run(&vcpu))); /* looks before the entry */
	assert_int_equal(injected(), nmi);
	assert_false(vcpu.vmx->nmi);
}

/* ---- the record ---- */

static void call(uint32_t which, uint64_t rbx, uint64_t rdx)
{
	vcpu.gpr[RAX] = L1_LEAF;
	vcpu.gpr[RCX] = which;
	vcpu.gpr[RBX] = rbx;
	vcpu.gpr[RDX] = rdx;
	exits(VMX_EXIT_CPUID, 0);
}

static void record(void **state)
{
	(void)state;
	call(L1_CALL_BEGIN, 0x10000, 4);
	assert_false(entry_at(vcpu.tables, 0x10000, 0) & EPT_EXECUTE);
	vcpu.rip = 0x10000;
	violation(0x10000, EPT_VIOLATION_FETCH, 0);
	assert_true(entry_at(vcpu.tables, 0x10000, 0) & EPT_EXECUTE);
	assert_true(fake_get(VMCS_PRIMARY_CONTROLS) & VMX_HLT);
	vcpu.rip = 0x10001;
	exits(VMX_EXIT_HLT, 0);
	assert_non_null(strstr(fake.log, "armed vmx controls=0x"));
	assert_non_null(strstr(fake.log, "\nexit vmx=0xc at=0x1\n"));
	assert_int_equal(vcpu.rip, 0x10001);
	assert_false(fake_get(VMCS_PRIMARY_CONTROLS) & VMX_HLT);
	assert_true(fake_get(VMCS_PRIMARY_CONTROLS) & VMX_RDTSC);
	vcpu.rip = 0x10008;
	exits(VMX_EXIT_RDTSC, 0);
	assert_false(fake_get(VMCS_PRIMARY_CONTROLS) & VMX_RDTSC);
	assert_null(strstr(fake.log, "vmx=0x10"));
}

/* ---- the local APIC ---- */

static void sipi_is_redirected(void **state)
{
	(void)state;
	start(true, 2);
	violation(FAKE_APIC + 0x300, EPT_VIOLATION_WRITE, 0);
	assert_true(vcpu.step.on);
	assert_true(fake_get(VMCS_PRIMARY_CONTROLS) & VMX_MONITOR_TRAP_FLAG);
	*(uint32_t *)hw_map(FAKE_APIC + 0x310) = 3u << 24;
	*(uint32_t *)(void *)(vcpu.step.page + 0x300) = 0x4608;
	exits(VMX_EXIT_MONITOR_TRAP_FLAG, 0);
	assert_int_equal(*(uint32_t *)hw_map(FAKE_APIC + 0x300), 0x469f);
	assert_int_equal(machine.startup_vector[3], 8);
	assert_false(fake_get(VMCS_PRIMARY_CONTROLS) & VMX_MONITOR_TRAP_FLAG);
	/* The write faults instead. */
	violation(FAKE_APIC + 0x300, EPT_VIOLATION_WRITE, 0);
	*(uint32_t *)(void *)(vcpu.step.page + 0x300) = 0x4609;
	memset(&next, 0, sizeof(next));
	next.reason = VMX_EXIT_EXCEPTION_NMI;
	next.event = exception(VECTOR_PF);
	next.error = 2;
	next.qualification = 0x7000;
	enter();
	assert_int_equal(machine.startup_vector[3], 8);
	assert_int_equal(fake.cr2, 0x7000);
	assert_int_equal(injected(), exception(VECTOR_PF));
}

/* ---- a guest that is a hypervisor: its instructions ---- */

#define CF RFLAGS_CF
#define ZF RFLAGS_ZF

/* One with the memory operand DS:OPERAND, which holds @value; @reg: its register. The flags that it leaves.
 */
static uint64_t execute(unsigned reason, uint64_t value, unsigned reg)
{
	*fake_quad(OPERAND) = value;
	fake_put(VMCS_EXIT_INSTRUCTION_INFO,
		 2u << 7 | 3u << 15 | 1u << 22 | 1u << 27 | (uint64_t)reg << 28); /* no base, no index */
	exits(reason, OPERAND);
	return fake_get(VMCS_GUEST_RFLAGS) & (CF | ZF);
}

/* VMWRITE of a register. */
static uint64_t field_write(uint32_t field, uint64_t value)
{
	vcpu.gpr[RBX] = value;
	vcpu.gpr[RCX] = field;
	fake_put(VMCS_EXIT_INSTRUCTION_INFO, 1u << 10 | RBX << 3 | RCX << 28);
	exits(VMX_EXIT_VMWRITE, 0);
	return fake_get(VMCS_GUEST_RFLAGS) & (CF | ZF);
}

static uint64_t field_read(uint32_t field)
{
	vcpu.gpr[RCX] = field;
	fake_put(VMCS_EXIT_INSTRUCTION_INFO, 1u << 10 | RBX << 3 | RCX << 28);
	exits(VMX_EXIT_VMREAD, 0);
	return vcpu.gpr[RBX];
}

/* In 64-bit mode with CR4.VMXE, as the processor has checked it. */
static void long_mode(void)
{
	fake_put(VMCS_GUEST_EFER, EFER_LMA | EFER_LME);
	fake_put(VMCS_GUEST_CS_RIGHTS, fake_get(VMCS_GUEST_CS_RIGHTS) | SEG_L);
	vmx_set_guest_cr(vcpu.vmx, 0, CR0_PE | CR0_NE | CR0_ET);
	vmx_set_guest_cr(vcpu.vmx, 4, CR4_VMXE | CR4_PAE);
	*fake_quad(ON) = *fake_quad(INNER) = 0x1234;
}

static void operate(void)
{
	long_mode();
	/* VMXON wants paging, which operands would have to go through. */
	vmx_set_guest_cr(vcpu.vmx, 0, CR0_PE | CR0_NE | CR0_ET | CR0_PG);
	fake_put(VMCS_GUEST_CR3, 0x60000);
	*fake_quad(0x60000) = 0x61000 | PTE_P | PTE_W | PTE_U;
	*fake_quad(0x61000) = PTE_P | PTE_W | PTE_PS;
	assert_int_equal(execute(VMX_EXIT_VMXON, ON, 0), 0);
	assert_int_equal(execute(VMX_EXIT_VMCLEAR, INNER, 0), 0);
	assert_int_equal(execute(VMX_EXIT_VMPTRLD, INNER, 0), 0);
}

static void vmxon_conditions(void **state)
{
	(void)state;
	execute(VMX_EXIT_VMXON, ON, 0); /* without CR4.VMXE */
	assert_int_equal(injected(), exception(VECTOR_UD));
	long_mode();
	execute(VMX_EXIT_VMPTRLD, INNER, 0); /* outside of VMX operation */
	assert_int_equal(injected(), exception(VECTOR_UD));
	execute(VMX_EXIT_VMXON, ON, 0); /* without paging */
	assert_int_equal(injected(), exception(VECTOR_GP));
	fake_put(VMCS_GUEST_SS_RIGHTS, fake_get(VMCS_GUEST_SS_RIGHTS) | SEG_DPL);
	execute(VMX_EXIT_VMXON, ON, 0);
	assert_int_equal(injected(), exception(VECTOR_GP));
}

static void instructions(void **state)
{
	(void)state;
	operate();
	assert_int_equal(execute(VMX_EXIT_VMXON, ON, 0), ZF);
	assert_int_equal(region_get(&vcpu, VMCS_INSTRUCTION_ERROR), VMX_ERROR_VMXON_IN_ROOT);
	assert_int_equal(execute(VMX_EXIT_VMPTRLD, ON, 0), ZF);
	assert_int_equal(region_get(&vcpu, VMCS_INSTRUCTION_ERROR), VMX_ERROR_VMPTRLD_VMXON_POINTER);
	assert_int_equal(execute(VMX_EXIT_VMPTRLD, INNER + 8, 0), ZF);
	assert_int_equal(region_get(&vcpu, VMCS_INSTRUCTION_ERROR), VMX_ERROR_VMPTRLD_ADDRESS);
	assert_int_equal(execute(VMX_EXIT_VMPTRLD, FAKE_HIDDEN, 0), ZF);
	assert_int_equal(execute(VMX_EXIT_VMPTRLD, 0x70000, 0), ZF);
	assert_int_equal(region_get(&vcpu, VMCS_INSTRUCTION_ERROR), VMX_ERROR_VMPTRLD_REVISION);
	assert_int_equal(execute(VMX_EXIT_VMCLEAR, ON, 0), ZF);
	assert_int_equal(region_get(&vcpu, VMCS_INSTRUCTION_ERROR), VMX_ERROR_VMCLEAR_VMXON_POINTER);
	assert_int_equal(field_write(VMCS_GUEST_RIP, 0x123456789), 0);
	assert_int_equal(field_read(VMCS_GUEST_RIP), 0x123456789);
	assert_int_equal(field_write(VMCS_GUEST_ES, 0x12345), 0);
	assert_int_equal(field_read(VMCS_GUEST_ES), 0x2345);
	assert_int_equal(field_write(VMCS_HIGH(VMCS_EPTP), 7), 0);
	assert_int_equal(field_read(VMCS_EPTP), 7ull << 32);
	assert_int_equal(field_write(VMCS_EXIT_REASON, 1), ZF);
	assert_int_equal(region_get(&vcpu, VMCS_INSTRUCTION_ERROR), VMX_ERROR_READ_ONLY_FIELD);
	assert_int_equal(field_write(VMCS_PML_ADDRESS, 0), ZF); /* not offered */
	assert_int_equal(region_get(&vcpu, VMCS_INSTRUCTION_ERROR), VMX_ERROR_UNSUPPORTED_FIELD);
	assert_int_equal(execute(VMX_EXIT_VMCLEAR, INNER, 0), 0);
	assert_int_equal(field_write(VMCS_GUEST_RIP, 1), CF); /* no current VMCS */
	exits(VMX_EXIT_VMLAUNCH, 0);
	assert_true(fake_get(VMCS_GUEST_RFLAGS) & CF);
	exits(VMX_EXIT_VMXOFF, 0);
	assert_false(vcpu.vmx->nested.on);
}

static void invalidations(void **state)
{
	(void)state;
	operate();
	vcpu.gpr[RBX] = INVEPT_ALL;
	assert_int_equal(execute(VMX_EXIT_INVEPT, 0, RBX), 0);
	vcpu.gpr[RBX] = 3;
	assert_int_equal(execute(VMX_EXIT_INVEPT, 0, RBX), ZF);
	vcpu.gpr[RBX] = INVEPT_CONTEXT;
	assert_int_equal(execute(VMX_EXIT_INVEPT, EPT, RBX), ZF); /* of no walk length */
	vcpu.gpr[RBX] = INVVPID_CONTEXT;
	assert_int_equal(execute(VMX_EXIT_INVVPID, 0, RBX), ZF);
	assert_int_equal(region_get(&vcpu, VMCS_INSTRUCTION_ERROR), VMX_ERROR_INVALIDATION_OPERAND);
	assert_int_equal(execute(VMX_EXIT_INVVPID, 1, RBX), 0);
	assert_true(vcpu.vmx->nested.flush);
}

/* The operand's faults are the processor's to find elsewhere, and ours here. */
static void operands_fault(void **state)
{
	(void)state;
	operate();
	fake_put(VMCS_EXIT_INSTRUCTION_INFO, 2u << 7 | 3u << 15 | 1u << 22 | 1u << 27);
	exits(VMX_EXIT_VMPTRST, 1ull << 50);
	assert_int_equal(injected(), exception(VECTOR_GP));
	fake_put(VMCS_EXIT_INSTRUCTION_INFO, 2u << 7 | 2u << 15 | 1u << 22 | 1u << 27);
	exits(VMX_EXIT_VMPTRST, 1ull << 50);
	assert_int_equal(injected(), exception(VECTOR_SS));
	fake_put(VMCS_EXIT_INSTRUCTION_INFO, 2u << 7 | 3u << 15 | 1u << 22 | 1u << 27);
	exits(VMX_EXIT_VMPTRST, 0x40000000);
	assert_int_equal(injected(), exception(VECTOR_PF));
	assert_int_equal(fake_get(VMCS_ENTRY_EXCEPTION_ERROR), PF_W);
	assert_int_equal(fake.cr2, 0x40000000);
	/* A user's page, with SMAP. */
	*fake_quad(0x61000) |= PTE_U;
	vmx_set_guest_cr(vcpu.vmx, 4, CR4_VMXE | CR4_PAE | CR4_SMAP);
	exits(VMX_EXIT_VMPTRST, OPERAND);
	assert_int_equal(fake_get(VMCS_ENTRY_EXCEPTION_ERROR), PF_P | PF_W);
	fake_put(VMCS_GUEST_RFLAGS, RFLAGS_FIXED | RFLAGS_AC);
	exits(VMX_EXIT_VMPTRST, OPERAND);
	assert_int_equal(*fake_quad(OPERAND), INNER);
	/* A read-only one, with CR0.WP. */
	*fake_quad(0x61000) &= ~(PTE_U | PTE_W);
	exits(VMX_EXIT_VMPTRST, OPERAND);
	assert_false(injected() & VMX_EVENT_VALID);
	vmx_set_guest_cr(vcpu.vmx, 0, CR0_PE | CR0_NE | CR0_ET | CR0_PG | CR0_WP);
	exits(VMX_EXIT_VMPTRST, OPERAND);
	assert_int_equal(fake_get(VMCS_ENTRY_EXCEPTION_ERROR), PF_P | PF_W);
}

/* ---- its guest ---- */

/* A VMCS of the guest that VM entry takes. */
static void prepare(void)
{
	static const uint16_t selectors[] = {VMCS_HOST_ES, VMCS_HOST_CS, VMCS_HOST_SS, VMCS_HOST_DS,
					     VMCS_HOST_FS, VMCS_HOST_GS, VMCS_HOST_TR};
	uint32_t primary = VMX_PRIMARY_DEFAULT1 & ~(VMX_CR3_LOAD | VMX_CR3_STORE);

	operate();
	for (unsigned i = 0; i < sizeof(selectors) / sizeof(selectors[0]); i++)
		region_set(&vcpu, (enum vmcs_field)selectors[i], 8);
	region_set(&vcpu, VMCS_PIN_CONTROLS, VMX_PIN_DEFAULT1);
	region_set(&vcpu, VMCS_PRIMARY_CONTROLS, primary | VMX_USE_MSR_BITMAPS | VMX_ACTIVATE_SECONDARY);
	region_set(&vcpu, VMCS_SECONDARY_CONTROLS, VMX2_EPT);
	region_set(&vcpu, VMCS_EXIT_CONTROLS, VMX_EXIT_DEFAULT1 | VMX_EXIT_HOST_64);
	region_set(&vcpu, VMCS_ENTRY_CONTROLS, VMX_ENTRY_DEFAULT1);
	region_set(&vcpu, VMCS_HOST_CR0, CR0_PE | CR0_NE | CR0_PG);
	region_set(&vcpu, VMCS_HOST_CR4, CR4_VMXE | CR4_PAE);
	region_set(&vcpu, VMCS_HOST_CR3, 0x60000);
	region_set(&vcpu, VMCS_HOST_RIP, 0xc000);
	region_set(&vcpu, VMCS_HOST_RSP, 0xd000);
	region_set(&vcpu, VMCS_GUEST_RIP, 0x7000);
	region_set(&vcpu, VMCS_MSR_BITMAP, BITMAP);
	region_set(&vcpu, VMCS_LINK_POINTER, ~0ull);
	region_set(&vcpu, VMCS_EPTP, EPT | 6 | 3 << EPTP_LEVELS_SHIFT);
	*fake_quad(EPT) = (EPT + 0x1000) | 7;
	*fake_quad(EPT + 0x1000) = (EPT + 0x2000) | 7;
	*fake_quad(EPT + 0x2000) = 0x600000 | EPT_LARGE | 7;
	*fake_quad(EPT + 0x2008) = (EPT + 0x3000) | 7;
	*fake_quad(EPT + 0x3000) = 0x801000 | EPT_READ;
	*fake_quad(EPT + 0x3008) = 0x802000 | EPT_WRITE;
	*fake_quad(EPT + 0x3010) = FAKE_HIDDEN | 7;
}

static void launch(void) { exits(VMX_EXIT_VMLAUNCH, 0); }

static uint64_t reason(void) { return region_get(&vcpu, VMCS_EXIT_REASON); }

static void entry_is_checked(void **state)
{
	static const struct {
		uint32_t field;
		uint64_t value;
		unsigned error;
	} row[] = {
		{VMCS_PIN_CONTROLS, 0, VMX_ERROR_ENTRY_CONTROLS},
		{VMCS_PIN_CONTROLS, VMX_PIN_DEFAULT1 | VMX_PIN_POSTED_INTERRUPTS, VMX_ERROR_ENTRY_CONTROLS},
		{VMCS_SECONDARY_CONTROLS, VMX2_PML, VMX_ERROR_ENTRY_CONTROLS},
		{VMCS_SECONDARY_CONTROLS, VMX2_UNRESTRICTED_GUEST, VMX_ERROR_ENTRY_CONTROLS},
		{VMCS_SECONDARY_CONTROLS, VMX2_VPID, VMX_ERROR_ENTRY_CONTROLS},
		{VMCS_MSR_BITMAP, FAKE_HIDDEN, VMX_ERROR_ENTRY_CONTROLS},
		{VMCS_MSR_BITMAP, BITMAP + 1, VMX_ERROR_ENTRY_CONTROLS},
		{VMCS_EPTP, EPT, VMX_ERROR_ENTRY_CONTROLS},
		{VMCS_CR3_TARGET_COUNT, 5, VMX_ERROR_ENTRY_CONTROLS},
		{VMCS_HOST_CR0, 0, VMX_ERROR_ENTRY_HOST_STATE},
		{VMCS_HOST_CR3, 1ull << 50, VMX_ERROR_ENTRY_HOST_STATE},
		{VMCS_HOST_CR4, CR4_VMXE, VMX_ERROR_ENTRY_HOST_STATE},
		{VMCS_HOST_CS, 0, VMX_ERROR_ENTRY_HOST_STATE},
		{VMCS_HOST_TR, 9, VMX_ERROR_ENTRY_HOST_STATE},
		{VMCS_HOST_RIP, 1ull << 50, VMX_ERROR_ENTRY_HOST_STATE},
		{VMCS_HOST_GS_BASE, 1ull << 50, VMX_ERROR_ENTRY_HOST_STATE},
		{VMCS_EXIT_CONTROLS, VMX_EXIT_DEFAULT1, VMX_ERROR_ENTRY_HOST_STATE},
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
		start(true, 1);
		prepare();
		region_set(&vcpu, (enum vmcs_field)row[i].field, row[i].value);
		launch();
		assert_false(vcpu.vmx->nested.running);
		assert_true(fake_get(VMCS_GUEST_RFLAGS) & ZF);
		assert_int_equal(region_get(&vcpu, VMCS_INSTRUCTION_ERROR), row[i].error);
	}
	start(true, 1);
	prepare();
	exits(VMX_EXIT_VMRESUME, 0);
	assert_int_equal(region_get(&vcpu, VMCS_INSTRUCTION_ERROR), VMX_ERROR_VMRESUME_NOT_LAUNCHED);
	fake_put(VMCS_GUEST_INTERRUPTIBILITY, VMX_BLOCKING_MOV_SS);
	launch();
	assert_int_equal(region_get(&vcpu, VMCS_INSTRUCTION_ERROR), VMX_ERROR_ENTRY_MOV_SS);
}

/* What the processor finds is the guest's to know. */
static void processor_refuses(void **state)
{
	uint64_t rip;

	(void)state;
	prepare();
	rip = vcpu.rip;
	launch();
	assert_true(vcpu.vmx->nested.running);
	fake_refuse(VMX_ERROR_ENTRY_CONTROLS);
	enter();
	assert_false(vcpu.vmx->nested.running);
	assert_int_equal(region_get(&vcpu, VMCS_INSTRUCTION_ERROR), VMX_ERROR_ENTRY_CONTROLS);
	assert_int_equal(vcpu.rip, rip + 3); /* behind its VMLAUNCH */
	launch();
	exits(VMX_EXIT_ENTRY_GUEST_STATE | VMX_EXIT_ENTRY_FAILURE, 3);
	assert_false(vcpu.vmx->nested.running);
	assert_int_equal(reason(), VMX_EXIT_ENTRY_GUEST_STATE | VMX_EXIT_ENTRY_FAILURE);
	assert_int_equal(region_get(&vcpu, VMCS_EXIT_QUALIFICATION), 3);
	assert_int_equal(*region_launched(INNER), 0);
	assert_int_equal(vcpu.rip, 0xc000);
}

static void controls_are_merged(void **state)
{
	(void)state;
	prepare();
	region_set(&vcpu, VMCS_PRIMARY_CONTROLS, region_get(&vcpu, VMCS_PRIMARY_CONTROLS) | VMX_HLT);
	region_set(&vcpu, VMCS_EXCEPTION_BITMAP, 1u << VECTOR_UD);
	region_set(&vcpu, VMCS_CR0_MASK, CR0_TS);
	region_set(&vcpu, VMCS_ENTRY_INTERRUPTION_INFO, exception(VECTOR_UD));
	launch();
	assert_int_equal(fake_vmcs(), hw_physical(vcpu.vmx->nested.vmcs));
	assert_true(fake_get(VMCS_PRIMARY_CONTROLS) & VMX_HLT);
	assert_true(fake_get(VMCS_SECONDARY_CONTROLS) & VMX2_EPT);
	assert_int_equal(fake_get(VMCS_EXCEPTION_BITMAP), 1u << VECTOR_UD);
	assert_int_equal(fake_get(VMCS_CR0_MASK), CR0_TS);
	assert_int_equal(injected(), exception(VECTOR_UD));
	assert_int_equal(vcpu.rip, 0x7000);
	assert_int_equal(fake_get(VMCS_EPTP), vmx_eptp(vcpu.vmx->nested.shadow.page[0]));
}

static void exits_are_reflected(void **state)
{
	(void)state;
	prepare();
	launch();
	fake_put(VMCS_GUEST_CR3, 0x77000);
	memset(&next, 0, sizeof(next));
	next.reason = VMX_EXIT_CR_ACCESS;
	next.qualification = 0x203;
	next.interrupted = exception(VECTOR_PF);
	enter();
	assert_false(vcpu.vmx->nested.running);
	assert_int_equal(fake_vmcs(), hw_physical(vcpu.vmx->vmcs));
	assert_int_equal(reason(), VMX_EXIT_CR_ACCESS);
	assert_int_equal(region_get(&vcpu, VMCS_EXIT_QUALIFICATION), 0x203);
	assert_int_equal(region_get(&vcpu, VMCS_IDT_VECTORING_INFO), exception(VECTOR_PF));
	assert_int_equal(region_get(&vcpu, VMCS_GUEST_CR3), 0x77000);
	assert_int_equal(region_get(&vcpu, VMCS_GUEST_RIP), 0x7000);
	assert_int_equal(*region_launched(INNER), 1);
	assert_int_equal(vcpu.rip, 0xc000);
	assert_int_equal(vcpu.gpr[RSP], 0xd000);
	assert_int_equal(fake_get(VMCS_GUEST_RFLAGS), RFLAGS_FIXED);
	assert_true(fake_get(VMCS_GUEST_EFER) & EFER_LMA);
	assert_int_equal(fake_get(VMCS_GUEST_TR), 8);
	launch();
	assert_int_equal(region_get(&vcpu, VMCS_INSTRUCTION_ERROR), VMX_ERROR_VMLAUNCH_NOT_CLEAR);
}

static void msr_permissions_are_merged(void **state)
{
	const uint8_t *merged, *theirs = fake_memory(BITMAP);
	unsigned bit;

	(void)state;
	prepare();
	assert_true(vmx_msr_bit(MSR_STAR, true, &bit));
	((uint8_t *)fake_memory(BITMAP))[bit / 8] = (uint8_t)(1u << bit % 8);
	launch();
	merged = fake_memory(fake_get(VMCS_MSR_BITMAP));
	for (unsigned i = 0; i < CORE_PAGE; i++)
		assert_int_equal(merged[i], vcpu.vmx->msr_bitmap[i] | theirs[i]);
	vcpu.gpr[RCX] = MSR_VMX_BASIC; /* ours */
	exits(VMX_EXIT_RDMSR, 0);
	assert_true(vcpu.vmx->nested.running);
	vcpu.gpr[RCX] = MSR_STAR;
	exits(VMX_EXIT_WRMSR, 0);
	assert_false(vcpu.vmx->nested.running);
	assert_int_equal(reason(), VMX_EXIT_WRMSR);
}

static void ports_are_the_guests(void **state)
{
	(void)state;
	prepare();
	region_set(&vcpu, VMCS_PRIMARY_CONTROLS,
		   region_get(&vcpu, VMCS_PRIMARY_CONTROLS) | VMX_USE_IO_BITMAPS);
	region_set(&vcpu, VMCS_IO_BITMAP_A, 0x70000);
	region_set(&vcpu, VMCS_IO_BITMAP_B, 0x71000);
	launch();
	assert_int_equal(fake_get(VMCS_IO_BITMAP_A), 0x70000);
	assert_int_equal(fake_get(VMCS_IO_BITMAP_B), 0x71000);
	assert_true(fake_get(VMCS_PRIMARY_CONTROLS) & VMX_USE_IO_BITMAPS);
}

static const uint64_t *joined(void) { return vcpu.vmx->nested.shadow.page[0]; }

static void tables_are_joined(void **state)
{
	(void)state;
	prepare();
	launch();
	violation(0x3000, EPT_VIOLATION_READ, exception(VECTOR_GP));
	assert_true(vcpu.vmx->nested.running);
	assert_int_equal(entry_at(joined(), 0x3000, 1) & ~0xfffull, 0x600000);
	assert_int_equal(entry_at(joined(), 0x3000, 1) & 7, 7);
	assert_int_equal(injected(), exception(VECTOR_GP)); /* again */
	violation(0x200000, EPT_VIOLATION_READ, 0);
	assert_int_equal(entry_at(joined(), 0x200000, 0) & ~0xfffull, 0x801000);
	assert_int_equal(entry_at(joined(), 0x200000, 0) & 7, EPT_READ);
}

static void refusals_are_the_guests(void **state)
{
	(void)state;
	prepare();
	launch();
	violation(0x200000, EPT_VIOLATION_WRITE, exception(VECTOR_GP));
	assert_int_equal(reason(), VMX_EXIT_EPT_VIOLATION);
	assert_int_equal(region_get(&vcpu, VMCS_EXIT_QUALIFICATION),
			 EPT_VIOLATION_WRITE | EPT_READ << EPT_VIOLATION_RIGHTS_SHIFT);
	assert_int_equal(region_get(&vcpu, VMCS_GUEST_PHYSICAL_ADDRESS), 0x200000);
	assert_int_equal(region_get(&vcpu, VMCS_IDT_VECTORING_INFO), exception(VECTOR_GP));
	exits(VMX_EXIT_VMRESUME, 0);
	violation(0x400000, EPT_VIOLATION_READ, 0);
	assert_int_equal(reason(), VMX_EXIT_EPT_VIOLATION);
	assert_int_equal(region_get(&vcpu, VMCS_EXIT_QUALIFICATION), EPT_VIOLATION_READ);
	exits(VMX_EXIT_VMRESUME, 0);
	violation(0x201000, EPT_VIOLATION_READ, 0); /* writable, not readable */
	assert_int_equal(reason(), VMX_EXIT_EPT_MISCONFIGURATION);
	exits(VMX_EXIT_VMRESUME, 0);
	assert_true(fake_catches(violation(0x202000, EPT_VIOLATION_READ, 0)));
	assert_non_null(strstr(fake.stopped, "hypervisor's memory"));
}

static void invept_forgets(void **state)
{
	(void)state;
	prepare();
	launch();
	violation(0x3000, EPT_VIOLATION_READ, 0);
	exits(VMX_EXIT_HLT, 0);
	exits(VMX_EXIT_VMRESUME, 0);
	assert_true(entry_at(joined(), 0x3000, 1) & 7);
	exits(VMX_EXIT_HLT, 0);
	vcpu.gpr[RBX] = INVEPT_ALL;
	assert_int_equal(execute(VMX_EXIT_INVEPT, 0, RBX), 0);
	exits(VMX_EXIT_VMRESUME, 0);
	assert_false(entry_at(joined(), 0x3000, 1) & 7);
}

/* ---- lists of MSRs ---- */

static void put_msr(unsigned i, uint32_t index, uint64_t value)
{
	*fake_quad(LIST + 16 * i) = index;
	*fake_quad(LIST + 16 * i + 8) = value;
}

static void msr_lists(void **state)
{
	(void)state;
	prepare();
	put_msr(0, MSR_SYSENTER_ESP, 0);
	put_msr(1, MSR_TSC, 0);
	put_msr(2, MSR_PAT, 0x0606060606060606);
	region_set(&vcpu, VMCS_EXIT_MSR_STORE, LIST);
	region_set(&vcpu, VMCS_EXIT_MSR_STORE_COUNT, 2);
	region_set(&vcpu, VMCS_EXIT_MSR_LOAD, LIST + 32);
	region_set(&vcpu, VMCS_EXIT_MSR_LOAD_COUNT, 1);
	region_set(&vcpu, VMCS_ENTRY_MSR_LOAD, LIST + 32);
	region_set(&vcpu, VMCS_ENTRY_MSR_LOAD_COUNT, 1);
	region_set(&vcpu, VMCS_GUEST_SYSENTER_ESP, 0x5555);
	launch();
	assert_int_equal(fake_get(VMCS_ENTRY_MSR_LOAD), LIST + 32); /* the processor does it, once */
	assert_int_equal(fake_get(VMCS_ENTRY_MSR_LOAD_COUNT), 1);
	violation(0x3000, EPT_VIOLATION_READ, 0);
	assert_int_equal(fake_get(VMCS_ENTRY_MSR_LOAD_COUNT), 0);
	exits(VMX_EXIT_HLT, 0);
	assert_int_equal(*fake_quad(LIST + 8), 0x5555);
	assert_int_equal(*fake_quad(LIST + 24), 0x1000);
	assert_int_equal(fake_msr_value(MSR_PAT), 0x0606060606060606);
	/* One that cannot be stored, or loaded, is the end. */
	put_msr(1, 0x12345, 0);
	exits(VMX_EXIT_VMRESUME, 0);
	assert_true(fake_catches(exits(VMX_EXIT_HLT, 0)));
	assert_true(fake.shut_down);
	assert_int_equal(((uint32_t *)fake_memory(INNER))[1], VMX_ABORT_SAVING_MSRS);
}

static void lists_are_checked(void **state)
{
	(void)state;
	prepare();
	region_set(&vcpu, VMCS_EXIT_MSR_LOAD, LIST + 8);
	region_set(&vcpu, VMCS_EXIT_MSR_LOAD_COUNT, 1);
	launch();
	assert_int_equal(region_get(&vcpu, VMCS_INSTRUCTION_ERROR), VMX_ERROR_ENTRY_CONTROLS);
	region_set(&vcpu, VMCS_EXIT_MSR_LOAD, FAKE_HIDDEN - 16);
	region_set(&vcpu, VMCS_EXIT_MSR_LOAD_COUNT, 2);
	launch();
	assert_int_equal(region_get(&vcpu, VMCS_INSTRUCTION_ERROR), VMX_ERROR_ENTRY_CONTROLS);
	region_set(&vcpu, VMCS_EXIT_MSR_LOAD, LIST);
	region_set(&vcpu, VMCS_EXIT_MSR_LOAD_COUNT, 1);
	put_msr(0, MSR_FS_BASE, 0);
	launch();
	assert_true(fake_catches(exits(VMX_EXIT_HLT, 0)));
	assert_int_equal(((uint32_t *)fake_memory(INNER))[1], VMX_ABORT_LOADING_MSRS);
}

/* ---- VMX operation ---- */

static void init_waits_for_vmxoff(void **state)
{
	(void)state;
	operate();
	exits(VMX_EXIT_INIT, 0);
	assert_true(vcpu.vmx->nested.init);
	assert_true(vcpu.vmx->nested.on);
	exits(VMX_EXIT_VMXOFF, 0);
	assert_false(vcpu.vmx->nested.on);
	assert_int_equal(fake_get(VMCS_GUEST_ACTIVITY), VMX_WAIT_FOR_SIPI);
	machine.startup_vector[0] = 8;
	exits(VMX_EXIT_SIPI, 0x9f);
	assert_int_equal(fake_get(VMCS_GUEST_CS_BASE), 0x8000);
}

static void bits_are_fixed_in_operation(void **state)
{
	(void)state;
	operate();
	assert_true(fake_get(VMCS_CR0_MASK) & CR0_PG);
	vcpu.gpr[RDX] = vmx_guest_cr(vcpu.vmx, 0) & ~(uint64_t)CR0_PG;
	exits(VMX_EXIT_CR_ACCESS, RDX << 8);
	assert_int_equal(injected(), exception(VECTOR_GP));
	exits(VMX_EXIT_VMXOFF, 0);
	assert_false(fake_get(VMCS_CR0_MASK) & CR0_PG);
}

/* An NMI is an exit of the guest's guest where the guest has asked for it. */
static void nmi_is_reflected(void **state)
{
	(void)state;
	prepare();
	region_set(&vcpu, VMCS_PIN_CONTROLS, VMX_PIN_DEFAULT1 | VMX_PIN_NMI);
	launch();
	fake.nmi = true;
	fake.guest = NULL;
	vmx_run(&vcpu); /* no entry */
	assert_false(vcpu.vmx->nested.running);
	assert_int_equal(reason(), VMX_EXIT_EXCEPTION_NMI);
	assert_int_equal(region_get(&vcpu, VMCS_EXIT_INTERRUPTION_INFO) & VMX_EVENT_VECTOR, VECTOR_NMI);
	assert_int_equal(fake_get(VMCS_GUEST_INTERRUPTIBILITY), VMX_BLOCKING_NMI);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(probes),
		cmocka_unit_test(cpuid_hides),
		cmocka_unit_test_setup(msr_exits, setup),
		cmocka_unit_test(capabilities_are_hidden),
		cmocka_unit_test_setup(only_what_is_nested_is_offered, setup),
		cmocka_unit_test_setup(xsetbv_and_invd, setup),
		cmocka_unit_test_setup(fixed_bits, setup),
		cmocka_unit_test_setup(failures, setup),
		cmocka_unit_test_setup(memory_is_identity, setup),
		cmocka_unit_test_setup(events_come_again, setup),
		cmocka_unit_test_setup(double_faults, setup),
		cmocka_unit_test_setup(nmi_is_brought, setup),
		cmocka_unit_test_setup(record, setup),
		cmocka_unit_test(sipi_is_redirected),
		cmocka_unit_test_setup(vmxon_conditions, setup),
		cmocka_unit_test_setup(instructions, setup),
		cmocka_unit_test_setup(invalidations, setup),
		cmocka_unit_test_setup(operands_fault, setup),
		cmocka_unit_test(entry_is_checked),
		cmocka_unit_test_setup(processor_refuses, setup),
		cmocka_unit_test_setup(controls_are_merged, setup),
		cmocka_unit_test_setup(exits_are_reflected, setup),
		cmocka_unit_test_setup(msr_permissions_are_merged, setup),
		cmocka_unit_test_setup(ports_are_the_guests, setup),
		cmocka_unit_test_setup(tables_are_joined, setup),
		cmocka_unit_test_setup(refusals_are_the_guests, setup),
		cmocka_unit_test_setup(invept_forgets, setup),
		cmocka_unit_test_setup(msr_lists, setup),
		cmocka_unit_test_setup(lists_are_checked, setup),
		cmocka_unit_test_setup(init_waits_for_vmxoff, setup),
		cmocka_unit_test_setup(bits_are_fixed_in_operation, setup),
		cmocka_unit_test_setup(nmi_is_reflected, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
