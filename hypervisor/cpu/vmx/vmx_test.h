/*
 * vmx_test.h: a host in 64-bit mode in VMX operation, with a VMCS whose baseline is a guest in 64-bit mode at
 * CPL 0 on the host's own page tables; for the tests of vmx/.
 */
#ifndef TRAPLINE_CPU_VMX_VMX_TEST_H
#define TRAPLINE_CPU_VMX_VMX_TEST_H

#include "cpu/insn/machine_test.h"

#include "cpu/checks.h"
#include "cpu/control.h"
#include "cpu/mem/mem.h"
#include "cpu/segment.h"
#include "cpu/vmx/vmx.h"
#include "x86/msr.h"

#define VMCS_AT     0x100000ull /* physical */
#define VMXON_AT    0x101000ull
#define IO_AT       0x102000ull /* two pages */
#define MSR_MAP_AT  0x104000ull
#define STORE_AT    0x105000ull /* MSR lists: stored and loaded by exits, loaded by entries */
#define LOAD_AT     0x106000ull
#define ENTER_AT    0x107000ull
#define GUEST_AT    (MACHINE_BASE + 0x40000)
#define HANDLER_AT  (GUEST_AT + 0x800) /* of all vectors: VMCALL */
#define GUEST_STACK (MACHINE_BASE + 0x60000)
#define GDT_AT      (MACHINE_BASE + 0x50000)
#define IDT_AT      (MACHINE_BASE + 0x51000)
#define HOST_AT     (CODE_AT + 0x100) /* where exits lead: HLT */
#define HOST_STACK  (MACHINE_BASE + 0x70000)

static inline uint64_t vmcs_get(struct machine *m, enum vmcs_field field)
{
	return vmcs_read_at(m->cpu, VMCS_AT, field);
}

static inline void vmcs_put(struct machine *m, enum vmcs_field field, uint64_t value)
{
	vmcs_write_at(m->cpu, VMCS_AT, field, value);
}

static inline void vmcs_or(struct machine *m, enum vmcs_field field, uint64_t bits)
{
	vmcs_put(m, field, vmcs_get(m, field) | bits);
}

static inline void vmcs_clear(struct machine *m, enum vmcs_field field, uint64_t bits)
{
	vmcs_put(m, field, vmcs_get(m, field) & ~bits);
}

static inline void vmcs_secondary(struct machine *m, uint32_t bits)
{
	vmcs_or(m, VMCS_PRIMARY_CONTROLS, VMX_ACTIVATE_SECONDARY);
	vmcs_or(m, VMCS_SECONDARY_CONTROLS, bits);
}

static inline void guest_put(struct machine *m, uint64_t at, uint64_t value, unsigned width)
{
	assert_true(phys_write(m->memory, at, &value, width));
}

static inline uint64_t guest_get(struct machine *m, uint64_t at, unsigned width)
{
	uint64_t value = 0;

	assert_true(phys_read(m->memory, at, &value, width));
	return value;
}

static inline void vmcs_baseline_controls(struct machine *m)
{
	vmcs_put(m, VMCS_PIN_CONTROLS, vmx_must_be_1(m->cpu, VMX_CONTROLS_PIN));
	vmcs_put(m, VMCS_PRIMARY_CONTROLS, vmx_must_be_1(m->cpu, VMX_CONTROLS_PRIMARY) | VMX_USE_MSR_BITMAPS);
	vmcs_put(m, VMCS_EXIT_CONTROLS,
		 vmx_must_be_1(m->cpu, VMX_CONTROLS_EXIT) | VMX_EXIT_HOST_64 | VMX_EXIT_SAVE_EFER |
			 VMX_EXIT_LOAD_EFER | VMX_EXIT_SAVE_DEBUG);
	vmcs_put(m, VMCS_ENTRY_CONTROLS,
		 vmx_must_be_1(m->cpu, VMX_CONTROLS_ENTRY) | VMX_ENTRY_IA32E | VMX_ENTRY_LOAD_EFER |
			 VMX_ENTRY_LOAD_DEBUG);
	vmcs_put(m, VMCS_MSR_BITMAP, MSR_MAP_AT);
	vmcs_put(m, VMCS_IO_BITMAP_A, IO_AT);
	vmcs_put(m, VMCS_IO_BITMAP_B, IO_AT + 0x1000);
	vmcs_put(m, VMCS_EXIT_MSR_STORE, STORE_AT);
	vmcs_put(m, VMCS_EXIT_MSR_LOAD, LOAD_AT);
	vmcs_put(m, VMCS_ENTRY_MSR_LOAD, ENTER_AT);
	vmcs_put(m, VMCS_LINK_POINTER, ~0ull);
}

static inline void vmcs_baseline_segments(struct machine *m)
{
	for (unsigned i = 0; i < 8; i++) {
		vmcs_put(m, VMCS_GUEST_ES + 2 * i, 16);
		vmcs_put(m, VMCS_GUEST_ES_LIMIT + 2 * i, 0xffffffff);
		vmcs_put(m, VMCS_GUEST_ES_RIGHTS + 2 * i, 0xc093);
	}
	vmcs_put(m, VMCS_GUEST_CS, 8);
	vmcs_put(m, VMCS_GUEST_CS_RIGHTS, 0xa09b);
	vmcs_put(m, VMCS_GUEST_LDTR, 0);
	vmcs_put(m, VMCS_GUEST_LDTR_RIGHTS, VMX_RIGHTS_UNUSABLE);
	vmcs_put(m, VMCS_GUEST_TR, 24);
	vmcs_put(m, VMCS_GUEST_TR_LIMIT, 0x67);
	vmcs_put(m, VMCS_GUEST_TR_RIGHTS, 0x8b);
	vmcs_put(m, VMCS_GUEST_GDTR_BASE, GDT_AT);
	vmcs_put(m, VMCS_GUEST_GDTR_LIMIT, 0xff);
	vmcs_put(m, VMCS_GUEST_IDTR_BASE, IDT_AT);
	vmcs_put(m, VMCS_GUEST_IDTR_LIMIT, 0xfff);
}

static inline void vmcs_baseline_host(struct machine *m)
{
	vmcs_put(m, VMCS_HOST_CR0, CR0_PE | CR0_PG | CR0_NE | CR0_ET);
	vmcs_put(m, VMCS_HOST_CR3, TABLES_AT);
	vmcs_put(m, VMCS_HOST_CR4, CR4_PAE | CR4_VMXE);
	vmcs_put(m, VMCS_HOST_EFER, EFER_LME | EFER_LMA);
	vmcs_put(m, VMCS_HOST_CS, 8);
	for (unsigned i = 0; i < 6; i++)
		if (i != 1)
			vmcs_put(m, VMCS_HOST_ES + 2 * i, 16);
	vmcs_put(m, VMCS_HOST_TR, 24);
	vmcs_put(m, VMCS_HOST_GDTR_BASE, GDT_AT);
	vmcs_put(m, VMCS_HOST_IDTR_BASE, IDT_AT);
	vmcs_put(m, VMCS_HOST_RIP, HOST_AT);
	vmcs_put(m, VMCS_HOST_RSP, HOST_STACK);
}

static inline void vmcs_baseline(struct machine *m)
{
	static const uint8_t zero[VMCS_REGION_SIZE];

	assert_true(phys_write(m->memory, VMCS_AT, zero, sizeof(zero)));
	guest_put(m, VMCS_AT, VMX_REVISION, 4);
	vmcs_baseline_controls(m);
	vmcs_baseline_segments(m);
	vmcs_baseline_host(m);
	vmcs_put(m, VMCS_GUEST_CR0, CR0_PE | CR0_PG | CR0_NE | CR0_ET);
	vmcs_put(m, VMCS_GUEST_CR3, TABLES_AT);
	vmcs_put(m, VMCS_GUEST_CR4, CR4_PAE | CR4_VMXE);
	vmcs_put(m, VMCS_GUEST_EFER, EFER_LME | EFER_LMA | EFER_NXE);
	vmcs_put(m, VMCS_GUEST_DR7, DR7_FIXED_1);
	vmcs_put(m, VMCS_GUEST_RFLAGS, RFLAGS_FIXED);
	vmcs_put(m, VMCS_GUEST_RIP, GUEST_AT);
	vmcs_put(m, VMCS_GUEST_RSP, GUEST_STACK);
	m->cpu->msr.vmx_on = true;
	m->cpu->msr.vmx_vmxon = VMXON_AT;
	m->cpu->msr.vmx_vmcs = VMCS_AT;
}

static inline void vmx_open_as(struct machine *m, const char *profile)
{
	static const uint8_t vmcall[] = {0x0f, 0x01, 0xc1}, hlt[] = {0xf4};

	machine_open(m, profile);
	m->cpu->cr4 |= CR4_VMXE;
	m->cpu->tracing = false;
	cpu_mode_changed(m->cpu);
	guest_put(m, GDT_AT + 8, 0x00af9b000000ffffull, 8);
	guest_put(m, GDT_AT + 16, 0x00cf93000000ffffull, 8);
	for (unsigned i = 0; i < 256; i++) {
		guest_put(m, IDT_AT + 16 * i,
			  (HANDLER_AT & 0xffff) | 8u << 16 | 0x8e00ull << 32 |
				  (HANDLER_AT & 0xffff0000) << 32,
			  8);
		guest_put(m, IDT_AT + 16 * i + 8, 0, 8);
	}
	machine_write(m, HANDLER_AT, vmcall, sizeof(vmcall));
	machine_write(m, HOST_AT, hlt, sizeof(hlt));
	vmcs_baseline(m);
}

static inline void vmx_open(struct machine *m) { vmx_open_as(m, "intel,+vmx"); }

/* The host's VMLAUNCH or VMRESUME and HLT, for at most @count instructions and events, with @code as the
 * guest's. */
static inline enum cpu_stop vmx_run_for(struct machine *m, const uint8_t *code, size_t size, uint64_t count)
{
	static const uint8_t launch[] = {0x0f, 0x01, 0xc2, 0xf4}, resume[] = {0x0f, 0x01, 0xc3, 0xf4};

	enum cpu_stop stop;

	machine_write(m, GUEST_AT, code, size);
	stop = machine_run(m, vmcs_launched(m->cpu, VMCS_AT) ? resume : launch, sizeof(launch), count);
	while (stop == CPU_STOP_REQUESTED) /* the preemption timer's event_at, as an engine goes on */
		stop = cpu_run(m->cpu);
	return stop;
}

/* As above; the exit reason. The host has come to the HLT to which exits lead. */
static inline uint32_t vmx_run(struct machine *m, const uint8_t *code, size_t size)
{
	enum cpu_stop stop = vmx_run_for(m, code, size, 200);

	if (stop == CPU_STOP_UNMODELLED)
		fail_msg("not modelled: %s", m->cpu->unmodelled);
	assert_int_equal(stop, CPU_STOP_HALT);
	if (m->cpu->rip == CODE_AT + 4)
		fail_msg("VM entry failed: flags %llx, error %llu", (unsigned long long)rflags_get(m->cpu),
			 (unsigned long long)vmcs_get(m, VMCS_INSTRUCTION_ERROR));
	assert_int_equal(m->cpu->rip, HOST_AT + 1);
	assert_false(m->cpu->msr.vmx_guest);
	return (uint32_t)vmcs_get(m, VMCS_EXIT_REASON);
}

#define GUEST(m, ...) vmx_run((m), (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))
#define VMCALL        0x0f, 0x01, 0xc1

#endif
