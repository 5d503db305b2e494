/*
 * vmx_rig.h: the core over VT-x on the made-up hardware of fake.h, with one vCPU, for its unit tests: exits
 * as a test tells them, and a guest that is a hypervisor with a VMCS that VM entry takes.
 */
#ifndef TRAPLINE_KMOD_TEST_VMX_RIG_H
#define TRAPLINE_KMOD_TEST_VMX_RIG_H

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

static inline void start(bool nest, unsigned cpus)
{
	fake_start(&machine, &vcpu, CORE_VMX, nest, cpus, CODE);
	memset(&next, 0, sizeof(next));
	fake_put(VMCS_GUEST_RFLAGS, RFLAGS_FIXED);
}

static inline int setup(void **state)
{
	(void)state;
	start(true, 1);
	return 0;
}

static inline void play(uint8_t *block, uint64_t gpr[GPR_COUNT])
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
static inline void enter(void)
{
	fake.guest = play;
	vmx_run(&vcpu);
}

static inline void exits(uint64_t reason, uint64_t qualification)
{
	memset(&next, 0, sizeof(next));
	next.reason = reason;
	next.qualification = qualification;
	enter();
}

static inline void violation(uint64_t address, uint64_t why, uint64_t interrupted)
{
	memset(&next, 0, sizeof(next));
	next.reason = VMX_EXIT_EPT_VIOLATION;
	next.qualification = why;
	next.address = address;
	next.interrupted = interrupted;
	enter();
}

static inline uint64_t exception(unsigned vector)
{
	return vector | VMX_EVENT_EXCEPTION << VMX_EVENT_TYPE_SHIFT | VMX_EVENT_VALID |
	       (vector_has_error_code(vector) ? VMX_EVENT_ERROR_CODE : 0);
}

static inline uint64_t injected(void) { return fake_get(VMCS_ENTRY_INTERRUPTION_INFO); }

static inline uint64_t entry_at(const uint64_t *table, uint64_t address, unsigned level)
{
	for (unsigned at = 3;; at--) {
		uint64_t entry = table[address >> (12 + 9 * at) & 511];

		if (at == level || !(entry & 7) || entry & EPT_LARGE)
			return entry;
		table = hw_map(entry & 0x000ffffffffff000ull);
	}
}

/* ---- a guest that is a hypervisor ---- */

#define CF RFLAGS_CF
#define ZF RFLAGS_ZF

/* One with the memory operand DS:OPERAND, which holds @value; @reg: its register. The flags that it leaves.
 */
static inline uint64_t execute(unsigned reason, uint64_t value, unsigned reg)
{
	*fake_quad(OPERAND) = value;
	fake_put(VMCS_EXIT_INSTRUCTION_INFO,
		 2u << 7 | 3u << 15 | 1u << 22 | 1u << 27 | (uint64_t)reg << 28); /* no base, no index */
	exits(reason, OPERAND);
	return fake_get(VMCS_GUEST_RFLAGS) & (CF | ZF);
}

/* VMWRITE of a register. */
static inline uint64_t field_write(uint32_t field, uint64_t value)
{
	vcpu.gpr[RBX] = value;
	vcpu.gpr[RCX] = field;
	fake_put(VMCS_EXIT_INSTRUCTION_INFO, 1u << 10 | RBX << 3 | RCX << 28);
	exits(VMX_EXIT_VMWRITE, 0);
	return fake_get(VMCS_GUEST_RFLAGS) & (CF | ZF);
}

static inline uint64_t field_read(uint32_t field)
{
	vcpu.gpr[RCX] = field;
	fake_put(VMCS_EXIT_INSTRUCTION_INFO, 1u << 10 | RBX << 3 | RCX << 28);
	exits(VMX_EXIT_VMREAD, 0);
	return vcpu.gpr[RBX];
}

/* In 64-bit mode with CR4.VMXE, as the processor has checked it. */
static inline void long_mode(void)
{
	fake_put(VMCS_GUEST_EFER, EFER_LMA | EFER_LME);
	fake_put(VMCS_GUEST_CS_RIGHTS, fake_get(VMCS_GUEST_CS_RIGHTS) | SEG_L);
	vmx_set_guest_cr(vcpu.vmx, 0, CR0_PE | CR0_NE | CR0_ET);
	vmx_set_guest_cr(vcpu.vmx, 4, CR4_VMXE | CR4_PAE);
	*fake_quad(ON) = *fake_quad(INNER) = 0x1234;
}

static inline void operate(void)
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

/* A VMCS of the guest that VM entry takes. */
static inline void prepare(void)
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
	region_set(&vcpu, VMCS_GUEST_CR0, CR0_PE | CR0_NE | CR0_ET);
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

static inline void launch(void) { exits(VMX_EXIT_VMLAUNCH, 0); }

static inline uint64_t reason(void) { return region_get(&vcpu, VMCS_EXIT_REASON); }

static inline const uint64_t *joined(void) { return vcpu.vmx->nested.shadow.page[0]; }

static inline void put_msr(unsigned i, uint32_t index, uint64_t value)
{
	*fake_quad(LIST + 16 * i) = index;
	*fake_quad(LIST + 16 * i + 8) = value;
}

#endif
