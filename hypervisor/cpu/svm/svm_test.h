/*
 * svm_test.h: a host in 64-bit mode with a VMCB, whose baseline is a guest in 64-bit mode at CPL 0 on the
 * host's own page tables; for the tests of svm/.
 */
#ifndef TRAPLINE_CPU_SVM_SVM_TEST_H
#define TRAPLINE_CPU_SVM_SVM_TEST_H

#include "cpu/insn/machine_test.h"

#include "cpu/checks.h"
#include "cpu/control.h"
#include "cpu/mem/mem.h"
#include "cpu/segment.h"
#include "cpu/svm/svm.h"
#include "x86/msr.h"

#define VMCB_AT     0x100000ull /* physical */
#define HSAVE_AT    0x101000ull
#define IOPM_AT     0x102000ull
#define MSRPM_AT    0x106000ull
#define NPT_AT      0x110000ull /* PML4, PDPT, PD, PT */
#define GUEST_AT    (MACHINE_BASE + 0x40000)
#define HANDLER_AT  (GUEST_AT + 0x800) /* of all vectors: VMMCALL */
#define GUEST_STACK (MACHINE_BASE + 0x60000)
#define GDT_AT      (MACHINE_BASE + 0x50000)
#define IDT_AT      (MACHINE_BASE + 0x51000)

#define SVM_ALL                                                                                              \
	"amd,+svm,+svm_npt,+svm_nrips,+svm_decode,+svm_vgif,+svm_vnmi,+svm_pause,+svm_pause_threshold,"      \
	"+svm_lbr,+svm_vls,+svm_tsc_rate,+svm_lock,+svm_flush_asid,+svm_clean"

static inline uint64_t vmcb_get(struct machine *m, unsigned offset, unsigned width)
{
	uint64_t value = 0;

	assert_true(phys_read(m->memory, VMCB_AT + offset, &value, width));
	return value;
}

static inline void vmcb_put(struct machine *m, unsigned offset, uint64_t value, unsigned width)
{
	assert_true(phys_write(m->memory, VMCB_AT + offset, &value, width));
}

static inline void vmcb_or(struct machine *m, unsigned offset, uint64_t bits, unsigned width)
{
	vmcb_put(m, offset, vmcb_get(m, offset, width) | bits, width);
}

/* Switches the intercept with this exit code on. */
static inline void vmcb_intercept(struct machine *m, unsigned code)
{
	vmcb_or(m, VMCB_INTERCEPTS(code / 32), 1u << code % 32, 4);
}

static inline void vmcb_segment(struct machine *m, unsigned offset, uint16_t selector, uint32_t attributes)
{
	vmcb_put(m, offset, selector, 2);
	vmcb_put(m, offset + 2, attributes, 2);
	vmcb_put(m, offset + 4, 0xffffffff, 4);
	vmcb_put(m, offset + 8, 0, 8);
}

/* VMRUN and VMMCALL are intercepted. */
static inline void vmcb_baseline(struct machine *m)
{
	static const uint8_t zero[VMCB_SIZE];

	assert_true(phys_write(m->memory, VMCB_AT, zero, sizeof(zero)));
	vmcb_intercept(m, SVM_EXIT_VMRUN);
	vmcb_intercept(m, SVM_EXIT_VMMCALL);
	vmcb_put(m, VMCB_ASID, 1, 4);
	vmcb_put(m, VMCB_TLB_CONTROL, 1, 1);
	vmcb_put(m, VMCB_IOPM_BASE, IOPM_AT, 8);
	vmcb_put(m, VMCB_MSRPM_BASE, MSRPM_AT, 8);
	vmcb_segment(m, VMCB_CS, 8, 0xa9b);
	vmcb_segment(m, VMCB_SS, 16, 0xc93);
	vmcb_segment(m, VMCB_DS, 16, 0xc93);
	vmcb_segment(m, VMCB_ES, 16, 0xc93);
	vmcb_put(m, VMCB_GDTR + 4, 0xff, 4);
	vmcb_put(m, VMCB_GDTR + 8, GDT_AT, 8);
	vmcb_put(m, VMCB_IDTR + 4, 0xfff, 4);
	vmcb_put(m, VMCB_IDTR + 8, IDT_AT, 8);
	vmcb_put(m, VMCB_EFER, EFER_LME | EFER_LMA | EFER_SVME | EFER_NXE, 8);
	vmcb_put(m, VMCB_CR0, CR0_PE | CR0_PG | CR0_ET | CR0_NE, 8);
	vmcb_put(m, VMCB_CR3, TABLES_AT, 8);
	vmcb_put(m, VMCB_CR4, CR4_PAE, 8);
	vmcb_put(m, VMCB_DR6, DR6_FIXED_1, 8);
	vmcb_put(m, VMCB_DR7, DR7_FIXED_1, 8);
	vmcb_put(m, VMCB_RFLAGS, RFLAGS_FIXED, 8);
	vmcb_put(m, VMCB_RIP, GUEST_AT, 8);
	vmcb_put(m, VMCB_RSP, GUEST_STACK, 8);
	vmcb_put(m, VMCB_G_PAT, 0x0007040600070406ull, 8);
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

/* Nested tables that map what the host's do: MACHINE_BASE's 2 MiB by pages of 4 KiB, and the tables at
 * TABLES_AT. */
static inline void nested_tables(struct machine *m)
{
	guest_put(m, NPT_AT, (NPT_AT + 0x1000) | 7, 8);
	guest_put(m, NPT_AT + 0x1000, (NPT_AT + 0x2000) | 7, 8);
	guest_put(m, NPT_AT + 0x2000, (NPT_AT + 0x4000) | 7, 8);
	guest_put(m, NPT_AT + 0x2000 + (MACHINE_BASE >> 21) * 8, (NPT_AT + 0x3000) | 7, 8);
	for (unsigned i = 0; i < 512; i++) {
		guest_put(m, NPT_AT + 0x3000 + 8 * i, (MACHINE_BASE + i * 0x1000ull) | 7, 8);
		guest_put(m, NPT_AT + 0x4000 + 8 * i, i * 0x1000ull | 7, 8);
	}
	vmcb_put(m, VMCB_NESTED, SVM_NP_ENABLE, 8);
	vmcb_put(m, VMCB_NCR3, NPT_AT, 8);
}

static inline void svm_open(struct machine *m)
{
	static const uint8_t vmmcall[] = {0x0f, 0x01, 0xd9};

	machine_open(m, SVM_ALL);
	m->cpu->efer |= EFER_SVME | EFER_NXE;
	m->cpu->msr.vm_hsave_pa = HSAVE_AT;
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
	machine_write(m, HANDLER_AT, vmmcall, sizeof(vmmcall));
	vmcb_baseline(m);
}

/* The host's VMRUN and HLT, for at most @count instructions and events, with @code as the guest's. */
static inline enum cpu_stop svm_run_for(struct machine *m, const uint8_t *code, size_t size, uint64_t count)
{
	static const uint8_t host[] = {0x0f, 0x01, 0xd8, 0xf4};

	machine_write(m, GUEST_AT, code, size);
	m->cpu->reg[RAX] = VMCB_AT;
	return machine_run(m, host, sizeof(host), count);
}

/* As above; the exit code. The host has come to its HLT. */
static inline int64_t svm_run(struct machine *m, const uint8_t *code, size_t size)
{
	enum cpu_stop stop = svm_run_for(m, code, size, 200);

	if (stop == CPU_STOP_UNMODELLED)
		fail_msg("not modelled: %s", m->cpu->unmodelled);
	assert_int_equal(stop, CPU_STOP_HALT);
	assert_int_equal(m->cpu->rip, CODE_AT + 4);
	assert_false(m->cpu->msr.svm_guest);
	assert_true(m->cpu->msr.svm_gif_clear);
	return (int64_t)vmcb_get(m, VMCB_EXITCODE, 8);
}

#define GUEST(m, ...) svm_run((m), (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))
#define VMMCALL       0x0f, 0x01, 0xd9

#endif
