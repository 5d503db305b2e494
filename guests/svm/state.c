/*
 * state.c: what VMRUN, #VMEXIT, VMLOAD and VMSAVE load, save and leave alone, field by field; what their
 * operand may be; the MSRs of AMD-V (APM 2 15.4, 15.5, 15.6, 15.30, 15.31; APM 3 their pages).
 */
#include "lib/cpus.h"
#include "lib/exchange.h"
#include "lib/machine.h"
#include "svm/svm.h"
#include "x86/case_layout.h"
#include "x86/vectors.h"

#define VECTOR_NONE STORY_NO_FAULT

/* A guest in 64-bit mode at CPL 0 whose code is @bytes, then VMMCALL. */
static void guest(const uint8_t *bytes, unsigned length)
{
	static const uint8_t vmmcall[3] = {0x0f, 0x01, 0xd9};
	uint8_t code[64];

	machine_copy(code, bytes, length);
	machine_copy(code + length, vmmcall, 3);
	svm_baseline(MODE_LONG, 0);
	svm_code(code, length + 3);
}
#define GUEST(...) guest((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

/* ---- VMRUN and #VMEXIT ---- */

/* Fields that a guest that does nothing finds, and leaves, as the VMCB has them. */
static const struct {
	const char *name;
	unsigned offset, size;
	uint64_t value;
} kept[] = {
	{"es_selector", VMCB_ES, 2, 0x1230},
	{"es_attributes", VMCB_ES + 2, 2, 0xc93},
	{"es_limit", VMCB_ES + 4, 4, 0xfffff},
	{"es_base", VMCB_ES + 8, 8, 0x123000},
	{"ds_selector", VMCB_DS, 2, 0x1238},
	{"ds_attributes", VMCB_DS + 2, 2, 0xcf3},
	{"ds_limit", VMCB_DS + 4, 4, 0x1ffff},
	{"ds_base", VMCB_DS + 8, 8, 0x124000},
	{"ss_selector", VMCB_SS, 2, 0x1240},
	{"ss_base", VMCB_SS + 8, 8, 0x125000},
	{"cs_selector", VMCB_CS, 2, 0x1248},
	{"gdtr_limit", VMCB_GDTR + 4, 4, 0x1234},
	{"gdtr_base", VMCB_GDTR + 8, 8, 0x126000},
	{"idtr_limit", VMCB_IDTR + 4, 4, 0x4321},
	{"idtr_base", VMCB_IDTR + 8, 8, 0x127000},
	{"cr2", VMCB_CR2, 8, 0x0000712345678000},
	{"rax", VMCB_RAX, 8, 0x1122334455667788},
	{"rsp", VMCB_RSP, 8, 0x8877665544332211},
	{"rflags", VMCB_RFLAGS, 8, 0x246},
	{"dr6", VMCB_DR6, 8, 0xffff0ff5},
	{"dr7", VMCB_DR7, 8, 0x403},
	{"fs_selector", VMCB_FS, 2, 0x1250},
	{"fs_base", VMCB_FS + 8, 8, 0x128000},
	{"gs_selector", VMCB_GS, 2, 0x1258},
	{"gs_base", VMCB_GS + 8, 8, 0x129000},
	{"ldtr_selector", VMCB_LDTR, 2, 0x1260},
	{"ldtr_base", VMCB_LDTR + 8, 8, 0x12a000},
	{"tr_selector", VMCB_TR, 2, 0x1268},
	{"tr_base", VMCB_TR + 8, 8, 0x12b000},
	{"tr_limit", VMCB_TR + 4, 4, 0x1067},
	{"kernel_gs_base", VMCB_KERNEL_GS, 8, 0x12c000},
	{"star", VMCB_STAR, 8, 0x1b00080000000000},
	{"lstar", VMCB_LSTAR, 8, 0x12d000},
	{"cstar", VMCB_CSTAR, 8, 0x12e000},
	{"sfmask", VMCB_SFMASK, 8, 0x4700},
	{"sysenter_cs", VMCB_SYSENTER_CS, 8, 0x10},
	{"sysenter_esp", VMCB_SYSENTER_ESP, 8, 0x12f000},
	{"sysenter_eip", VMCB_SYSENTER_EIP, 8, 0x130000},
};
#define KEPT (sizeof(kept) / sizeof(kept[0]))

STORY(svm_fields)
{
	uint64_t index = GIVEN(index);
	uint64_t code;

	if (!svm_begin())
		return;
	GUEST();
	svm_write(kept[index].offset, kept[index].size, kept[index].value);
	code = svm_run();
	story_check("exitcode", SVM_EXIT_VMMCALL, code);
	story_check(kept[index].name, kept[index].value, svm_read(kept[index].offset, kept[index].size));
	story_check("rip", CASE_STUB, svm_get(VMCB_RIP));
	story_check("eventinj_valid", 0, svm_get(VMCB_EVENTINJ) >> 31 & 1);
	story_check("exitintinfo_valid", 0, svm_get(VMCB_EXITINTINFO) >> 31 & 1);
	svm_end();
}

/* What is not written back: controls stay as the hypervisor has written them (15.5.1). */
STORY(svm_controls_kept)
{
	static const struct {
		const char *name;
		unsigned offset, size;
		uint64_t value;
	} controls[] = {
		{"intercept_cr", 0x000, 4, 0xfefffefe},
		{"intercept_dr", 0x004, 4, 0x12345678},
		{"intercept_exceptions", 0x008, 4, 0x00025a40},
		{"tsc_offset", VMCB_TSC_OFFSET, 8, 0x123456789a},
		{"asid", VMCB_ASID, 4, 5},
		{"tlb_control", VMCB_TLB_CONTROL, 1, 1},
		{"pause_count", VMCB_PAUSE_COUNT, 2, 0x1234},
		{"pause_threshold", VMCB_PAUSE_THRESHOLD, 2, 0x4321},
	};
	uint64_t i = GIVEN(index);

	if (!svm_begin())
		return;
	GUEST(0xf3, 0x90, 0xf3, 0x90); /* PAUSE, twice */
	svm_write(controls[i].offset, controls[i].size, controls[i].value);
	story_check("exitcode", SVM_EXIT_VMMCALL, svm_run());
	story_check(controls[i].name, controls[i].value, svm_read(controls[i].offset, controls[i].size));
	svm_end();
}

/* What a guest changes arrives in the VMCB. */
STORY(svm_changes)
{
	uint64_t which = GIVEN(index);

	if (!svm_begin())
		return;
	switch (which) {
	case 0: /* mov eax, 5; mov dr7 ... by the immediate: mov $0x401, %eax; mov %rax, %dr7 */
		GUEST(0xb8, 0x01, 0x04, 0x00, 0x00, 0x0f, 0x23, 0xf8);
		story_check("exitcode", SVM_EXIT_VMMCALL, svm_run());
		story_check("dr7", 0x401, svm_get(VMCB_DR7));
		break;
	case 1: /* mov $0x123000, %eax; mov %rax, %cr2 */
		GUEST(0xb8, 0x00, 0x30, 0x12, 0x00, 0x0f, 0x22, 0xd0);
		story_check("exitcode", SVM_EXIT_VMMCALL, svm_run());
		story_check("cr2", 0x123000, svm_get(VMCB_CR2));
		break;
	case 2: /* mov $0x12345678, %esp */
		GUEST(0xbc, 0x78, 0x56, 0x34, 0x12);
		story_check("exitcode", SVM_EXIT_VMMCALL, svm_run());
		story_check("rsp", 0x12345678, svm_get(VMCB_RSP));
		break;
	case 3: /* std; stc */
		GUEST(0xfd, 0xf9);
		story_check("exitcode", SVM_EXIT_VMMCALL, svm_run());
		story_check("rflags", RFLAGS_DF | RFLAGS_CF, svm_get(VMCB_RFLAGS) & (RFLAGS_DF | RFLAGS_CF));
		break;
	case 4: /* mov %cr0, %rax; or $8, %al; mov %rax, %cr0 */
		GUEST(0x0f, 0x20, 0xc0, 0x0c, 0x08, 0x0f, 0x22, 0xc0);
		story_check("exitcode", SVM_EXIT_VMMCALL, svm_run());
		story_check("cr0", CASE_CR0 | CR0_TS, svm_get(VMCB_CR0));
		break;
	case 5: /* sti: the shadow covers the VMMCALL */
		GUEST(0xfb);
		story_check("exitcode", SVM_EXIT_VMMCALL, svm_run());
		story_check("interrupt_shadow", 1, svm_get(VMCB_INTERRUPT_SHADOW) & 1);
		break;
	case 6: /* nop: none */
		GUEST(0x90);
		svm_set(VMCB_INTERRUPT_SHADOW, 1);
		story_check("exitcode", SVM_EXIT_VMMCALL, svm_run());
		story_check("interrupt_shadow", 0, svm_get(VMCB_INTERRUPT_SHADOW) & 1);
		break;
	case 7: /* wrmsr: LSTAR, which VMRUN does not switch, but VMSAVE saves */
		GUEST(0xb9, 0x82, 0x00, 0x00, 0xc0, 0xb8, 0x00, 0x50, 0x12, 0x00, 0x31, 0xd2, 0x0f, 0x30);
		story_check("exitcode", SVM_EXIT_VMMCALL, svm_run());
		story_check("lstar", 0x125000, svm_get(VMCB_LSTAR));
		break;
	}
	story_check("rip", CASE_STUB, svm_get(VMCB_RIP) & ~0x1full);
	svm_end();
}

/* CPL is what the VMCB says, but 0 in real and 3 in virtual-8086 mode, whatever it says (15.5.1). */
STORY(svm_cpl)
{
	uint64_t mode = GIVEN(mode), cpl = GIVEN(value);
	uint64_t wanted = mode == MODE_REAL ? 0 : mode == MODE_VM86 ? 3 : cpl;

	if (!svm_begin())
		return;
	svm_baseline((unsigned)mode, (unsigned)wanted);
	SVM_CODE(0x0f, 0x01, 0xd9);
	svm_write(VMCB_CPL, 1, cpl);
	story_check("exitcode", SVM_EXIT_VMMCALL, svm_run());
	story_check("cpl", wanted, svm_read(VMCB_CPL, 1));
	svm_end();
}

/* The host behind #VMEXIT (15.6): GIF is 0, DR7 has no breakpoint, and what was saved is back. */
STORY(svm_host)
{
	uint64_t gs, dr7;

	if (!svm_begin())
		return;
	GUEST();
	machine_write_msr(MSR_KERNEL_GS_BASE, 0x7777000);
	machine_write_msr(MSR_FS_BASE, 0x6666000);
	__asm__ volatile("mov %0, %%dr7" : : "r"(0x403ull));
	svm_set(VMCB_DR7, 0x402);
	story_check("exitcode", SVM_EXIT_VMMCALL, svm_run());
	__asm__ volatile("mov %%dr7, %0" : "=r"(dr7));
	gs = machine_read_msr(MSR_KERNEL_GS_BASE);
	story_check("dr7_enables", 0, dr7 & 0xff);
	story_check("kernel_gs_base", 0x7777000, gs);
	story_check("fs_base", 0x6666000, machine_read_msr(MSR_FS_BASE));
	story_check("efer", exchange.monitor_efer | EFER_SVME, machine_read_msr(MSR_EFER));
	story_check("cr0", exchange.monitor_cr0, machine_read_cr0());
	story_check("cr3", exchange.monitor_cr3, machine_read_cr3());
	story_check("cr4", exchange.monitor_cr4, machine_read_cr4());
	__asm__ volatile("mov %0, %%dr7" : : "r"(0x400ull));
	svm_end();
}

/* ---- VMLOAD and VMSAVE, one field ---- */

static const struct {
	const char *name;
	uint32_t msr;
	unsigned offset;
} extra[] = {
	{"fs_base", MSR_FS_BASE, VMCB_FS + 8},
	{"gs_base", MSR_GS_BASE, VMCB_GS + 8},
	{"kernel_gs_base", MSR_KERNEL_GS_BASE, VMCB_KERNEL_GS},
	{"star", MSR_STAR, VMCB_STAR},
	{"lstar", MSR_LSTAR, VMCB_LSTAR},
	{"cstar", MSR_CSTAR, VMCB_CSTAR},
	{"sfmask", MSR_FMASK, VMCB_SFMASK},
	{"sysenter_cs", MSR_SYSENTER_CS, VMCB_SYSENTER_CS},
	{"sysenter_esp", MSR_SYSENTER_ESP, VMCB_SYSENTER_ESP},
	{"sysenter_eip", MSR_SYSENTER_EIP, VMCB_SYSENTER_EIP},
};

/* mode 0: VMSAVE stores what the MSR holds; 1: VMLOAD loads it; 2: VMRUN and #VMEXIT alone do neither. */
STORY(svm_extra_state)
{
	uint64_t i = GIVEN(index), mode = GIVEN(mode), old;
	uint64_t mine = 0x1234000, other = 0x5678000;

	if (!svm_begin())
		return;
	if (extra[i].msr == MSR_SYSENTER_CS || extra[i].msr == MSR_FMASK) {
		mine = 0x18;
		other = 0x28;
	}
	GUEST();
	old = machine_read_msr(extra[i].msr);
	machine_write_msr(extra[i].msr, mine);
	if (mode == 0) {
		machine_fill(svm_vmcb2, 0, sizeof(svm_vmcb2));
		story_check("vmsave", VECTOR_NONE, svm_try(SVM_DO_VMSAVE, (uintptr_t)svm_vmcb2, 0));
		story_check("stored", mine, *(const uint64_t *)(const void *)(svm_vmcb2 + extra[i].offset));
		story_check("register", mine, machine_read_msr(extra[i].msr));
	} else if (mode == 1) {
		svm_try(SVM_DO_VMSAVE, (uintptr_t)svm_vmcb2, 0);
		*(uint64_t *)(void *)(svm_vmcb2 + extra[i].offset) = other;
		story_check("vmload", VECTOR_NONE, svm_try(SVM_DO_VMLOAD, (uintptr_t)svm_vmcb2, 0));
		story_check("register", other, machine_read_msr(extra[i].msr));
		story_check("memory", other, *(const uint64_t *)(const void *)(svm_vmcb2 + extra[i].offset));
	} else {
		svm_set(extra[i].offset, other);
		story_check("vmrun", VECTOR_NONE, svm_try(SVM_DO_VMRUN, (uintptr_t)svm_vmcb, 0));
		story_check("exitcode", SVM_EXIT_VMMCALL, svm_get(VMCB_EXITCODE));
		story_check("register", mine, machine_read_msr(extra[i].msr));
		story_check("memory", other, svm_get(extra[i].offset));
	}
	machine_write_msr(extra[i].msr, old);
	svm_end();
}

/* ---- operands ---- */

/* @value: what is wrong: 0 nothing, 1 not aligned, 2 beyond the physical addresses, 3 far beyond, 4 EFER.SVME
 * = 0. */
STORY(svm_operand)
{
	static const enum svm_instruction instructions[] = {SVM_DO_VMRUN, SVM_DO_VMLOAD, SVM_DO_VMSAVE};
	uint64_t wrong = GIVEN(value), address = (uintptr_t)svm_vmcb, bit = GIVEN(from);
	enum svm_instruction which = instructions[GIVEN(index)];
	unsigned width, vector;
	uint32_t r[4];

	if (!svm_begin())
		return;
	machine_cpuid(0x80000008, 0, r);
	width = r[0] & 0xff;
	GUEST();
	if (which == SVM_DO_VMLOAD)
		svm_try(SVM_DO_VMSAVE, address, 0);
	if (wrong == 1)
		address |= 1ull << bit;
	else if (wrong == 2)
		address |= 1ull << width;
	else if (wrong == 3)
		address |= 1ull << 63;
	else if (wrong == 4)
		machine_write_msr(MSR_EFER, exchange.monitor_efer);
	svm_set(VMCB_EXITCODE, 0x123);
	vector = svm_try(which, address, 0);
	story_check("vector", wrong == 0 ? VECTOR_NONE : wrong == 4 ? VECTOR_UD : VECTOR_GP, vector);
	if (vector == VECTOR_GP)
		story_check("error", 0, story_fault_error());
	story_check("exitcode", which == SVM_DO_VMRUN && !wrong ? SVM_EXIT_VMMCALL : 0x123,
		    svm_get(VMCB_EXITCODE));
	machine_write_msr(MSR_EFER, exchange.monitor_efer | EFER_SVME);
	svm_end();
}

/* Instructions without an operand, with EFER.SVME = 0. */
STORY(svm_disabled)
{
	enum svm_instruction which = (enum svm_instruction)GIVEN(index);
	unsigned vector;
	uint32_t r[4];

	if (!svm_begin())
		return;
	machine_cpuid(0x80000001, 0, r);
	machine_write_msr(MSR_EFER, exchange.monitor_efer);
	vector = svm_try(which, (uintptr_t)svm_vmcb, 1);
	/* STGI exists on a processor with SKINIT, and with SVM-Lock, all the same (15.4, 15.31). */
	if (which == SVM_DO_STGI && (r[2] >> 12 & 1 || svm_has(SVM_HAS_LOCK)))
		story_check("vector", vector == VECTOR_NONE ? VECTOR_NONE : VECTOR_UD, vector);
	else
		story_check("vector", VECTOR_UD, vector);
	machine_write_msr(MSR_EFER, exchange.monitor_efer | EFER_SVME);
	svm_end();
}

/* Outside of a guest VMMCALL is #UD (15.18). */
STORY(svm_vmmcall_in_host)
{
	if (!svm_begin())
		return;
	story_check("vector", VECTOR_UD, svm_try(SVM_DO_VMMCALL, 0, 0));
	svm_end();
}

/* ---- MSRs ---- */

STORY(svm_hsave_pa)
{
	uint64_t wrong = GIVEN(value), address = (uintptr_t)svm_hsave, got = 0;
	uint32_t r[4];
	unsigned vector;

	if (!svm_begin())
		return;
	machine_cpuid(0x80000008, 0, r);
	if (wrong <= 12)
		address |= wrong ? 1ull << (wrong - 1) : 0;
	else
		address |= 1ull << ((r[0] & 0xff) + (wrong - 13));
	vector = story_try_wrmsr(MSR_VM_HSAVE_PA, address);
	story_check("vector", wrong ? VECTOR_GP : VECTOR_NONE, vector);
	story_check("read", VECTOR_NONE, story_try_rdmsr(MSR_VM_HSAVE_PA, &got));
	story_check("value", (uintptr_t)svm_hsave, got);
	svm_end();
}

STORY(svm_vm_cr)
{
	uint64_t mode = GIVEN(mode), value = 0, old = 0;

	if (!svm_begin())
		return;
	if (!story_needs(story_try_rdmsr(MSR_VM_CR, &old) == VECTOR_NONE, "msr.c0010114=gp")) {
		svm_end();
		return;
	}
	story_spoils();
	switch (mode) {
	case 0: /* SVMDIS while EFER.SVME = 1 */
		story_check("svmdis", VECTOR_GP, story_try_wrmsr(MSR_VM_CR, old | VM_CR_SVMDIS));
		break;
	case 1: /* EFER.SVME is MBZ with SVMDIS */
		machine_write_msr(MSR_EFER, exchange.monitor_efer);
		story_check("svmdis", VECTOR_NONE, story_try_wrmsr(MSR_VM_CR, old | VM_CR_SVMDIS));
		story_check("svme", VECTOR_GP, story_try_wrmsr(MSR_EFER, exchange.monitor_efer | EFER_SVME));
		story_check("cleared", VECTOR_NONE, story_try_wrmsr(MSR_VM_CR, old));
		story_check("svme_again", VECTOR_NONE,
			    story_try_wrmsr(MSR_EFER, exchange.monitor_efer | EFER_SVME));
		break;
	case 2: /* locked: LOCK and SVMDIS stay as they are, without a fault */
		machine_write_msr(MSR_EFER, exchange.monitor_efer);
		story_check("lock", VECTOR_NONE, story_try_wrmsr(MSR_VM_CR, old | VM_CR_LOCK));
		story_check("svmdis", VECTOR_NONE, story_try_wrmsr(MSR_VM_CR, old | VM_CR_SVMDIS));
		story_check("read", VECTOR_NONE, story_try_rdmsr(MSR_VM_CR, &value));
		story_check("still", VM_CR_LOCK, value & (VM_CR_LOCK | VM_CR_SVMDIS));
		break;
	case 3: /* the key opens it, another does not */
	case 4:
		if (!SVM_NEEDS(2))
			break;
		machine_write_msr(MSR_EFER, exchange.monitor_efer);
		story_check("key", VECTOR_NONE, story_try_wrmsr(MSR_SVM_KEY, 0x123456789));
		story_check("lock", VECTOR_NONE, story_try_wrmsr(MSR_VM_CR, old | VM_CR_LOCK));
		story_check("open", VECTOR_NONE,
			    story_try_wrmsr(MSR_SVM_KEY, mode == 3 ? 0x123456789 : 0x123456788));
		story_check("read", VECTOR_NONE, story_try_rdmsr(MSR_VM_CR, &value));
		story_check("locked", mode == 3 ? 0 : VM_CR_LOCK, value & VM_CR_LOCK);
		break;
	case 5: /* no key: only a reset opens it */
		if (!SVM_NEEDS(2))
			break;
		machine_write_msr(MSR_EFER, exchange.monitor_efer);
		story_check("key", VECTOR_NONE, story_try_wrmsr(MSR_SVM_KEY, 0));
		story_check("lock", VECTOR_NONE, story_try_wrmsr(MSR_VM_CR, old | VM_CR_LOCK));
		story_check("open", VECTOR_NONE, story_try_wrmsr(MSR_SVM_KEY, 0));
		story_check("read", VECTOR_NONE, story_try_rdmsr(MSR_VM_CR, &value));
		story_check("locked", VM_CR_LOCK, value & VM_CR_LOCK);
		break;
	case 6: /* the key is not told */
		if (!SVM_NEEDS(2))
			break;
		story_check("key", VECTOR_NONE, story_try_wrmsr(MSR_SVM_KEY, 0x123456789));
		story_check("read", VECTOR_NONE, story_try_rdmsr(MSR_SVM_KEY, &value));
		story_check("value", 0, value);
		break;
	case 7: /* bits above are MBZ */
		story_check("bit5", VECTOR_GP, story_try_wrmsr(MSR_VM_CR, old | 1 << 5));
		story_check("bit63", VECTOR_GP, story_try_wrmsr(MSR_VM_CR, old | 1ull << 63));
		break;
	case 8: /* DPD, R_INIT, DIS_A20M are read back, and locked they may still be written */
		story_check("bits", VECTOR_NONE, story_try_wrmsr(MSR_VM_CR, old | 7));
		story_check("read", VECTOR_NONE, story_try_rdmsr(MSR_VM_CR, &value));
		story_check("value", 7, value & 7);
		break;
	}
	svm_end();
}

/* ---- IGNNE (15.30.2) ---- */

enum { IGNNE_IGNORES, IGNNE_WITHOUT_EM, IGNNE_RESERVED };

STORY(svm_ignne)
{
	uint64_t mode = GIVEN(mode), hwcr = 0, old = 0, value = 0, cr0;
	uint16_t control = 0x33f & ~4u; /* zero divide is not masked */

	if (!svm_begin())
		return;
	if (!story_needs(story_try_rdmsr(MSR_IGNNE, &old) == VECTOR_NONE && story_try_rdmsr(MSR_HWCR, &hwcr) == VECTOR_NONE,
			 "msr.c0010115=gp")) {
		svm_end();
		return;
	}
	story_spoils();
	if (mode != IGNNE_WITHOUT_EM)
		story_check("ignne_em", VECTOR_NONE, story_try_wrmsr(MSR_HWCR, hwcr | HWCR_IGNNE_EM));
	switch (mode) {
	case IGNNE_IGNORES: /* 1 / 0 and what would wait for its exception */
		story_check("set", VECTOR_NONE, story_try_wrmsr(MSR_IGNNE, 1));
		story_check("read", VECTOR_NONE, story_try_rdmsr(MSR_IGNNE, &value));
		story_check("value", 1, value);
		cr0 = machine_read_cr0();
		__asm__ volatile("mov %0, %%cr0" : : "r"(cr0 & ~(uint64_t)(CR0_NE | CR0_TS | CR0_EM)));
		__asm__ volatile("fninit; fldcw %0; fld1; fldz; fdivrp; fldz; fnclex; fninit" : : "m"(control));
		__asm__ volatile("mov %0, %%cr0" : : "r"(cr0));
		story_check("clear", VECTOR_NONE, story_try_wrmsr(MSR_IGNNE, 0));
		break;
	case IGNNE_WITHOUT_EM: /* the pin says: what is written does not count */
		story_check("set", VECTOR_NONE, story_try_wrmsr(MSR_IGNNE, 1));
		story_check("read", VECTOR_NONE, story_try_rdmsr(MSR_IGNNE, &value));
		story_check("value", old, value);
		break;
	case IGNNE_RESERVED:
		story_check("bit1", VECTOR_GP, story_try_wrmsr(MSR_IGNNE, 2));
		story_check("bit63", VECTOR_GP, story_try_wrmsr(MSR_IGNNE, 1ull << 63));
		break;
	}
	svm_end();
}

/* ---- what CPUID says of AMD-V (15.3, 15.4) ---- */

STORY(svm_cpuid)
{
	uint32_t r[4], top[4];

	if (!svm_begin())
		return;
	machine_cpuid(0x80000000, 0, top);
	machine_cpuid(0x8000000a, 0, r);
	story_check("leaf", true, top[0] >= 0x8000000a);
	story_check("revision", true, (r[0] & 0xff) >= 1);
	story_check("asids", true, r[1] >= 2); /* the host's, and one for a guest */
	story_check("ecx", 0, r[2]);
	/* A threshold is one of the pause filter; virtual VMLOAD needs nested paging. */
	story_check("threshold", true, svm_has(SVM_HAS_PAUSE) || !svm_has(SVM_HAS_PAUSE_THRESHOLD));
	story_check("vls", true, svm_has(SVM_HAS_NPT) || !svm_has(SVM_HAS_VLS));
	svm_end();
}

/* ---- SKINIT on another processor (15.27): the loader stores what it finds, and halts ---- */

#define LOADER       0x700000u
#define LOADER_FOUND (LOADER + 0x800)

static void start_loader(void *argument)
{
	(void)argument;
	machine_write_msr(MSR_EFER, machine_read_msr(MSR_EFER) | EFER_SVME);
	__asm__ volatile("skinit" : : "a"(LOADER | 0x123) : "memory");
}

STORY(svm_skinit)
{
	/* clang-format off */
	static const uint8_t code[] = { /* behind the header, at 16; through SS, as DS is that of INIT */
		0xbb, 0x00, 0x08, 0x70, 0x00,	/* mov $LOADER_FOUND, %ebx */
		0x36, 0x89, 0x43, 0x04,		/* mov %eax, 4(%ebx) */
		0x36, 0x89, 0x63, 0x08,		/* mov %esp, 8(%ebx) */
		0x0f, 0x20, 0xc0, 0x36, 0x89, 0x43, 0x0c,	/* CR0 */
		0x0f, 0x20, 0xe0, 0x36, 0x89, 0x43, 0x10,	/* CR4 */
		0x8c, 0xc8, 0x36, 0x89, 0x43, 0x14,	/* CS */
		0x8c, 0xd0, 0x36, 0x89, 0x43, 0x18,	/* SS */
		0x9c, 0x58, 0x36, 0x89, 0x43, 0x1c,	/* EFLAGS */
		0xb9, 0x80, 0x00, 0x00, 0xc0, 0x0f, 0x32, 0x36, 0x89, 0x43, 0x20, /* EFER */
		0xb9, 0x14, 0x01, 0x01, 0xc0, 0x0f, 0x32, 0x36, 0x89, 0x43, 0x24, /* VM_CR */
		0x36, 0xc7, 0x03, 0x01, 0x00, 0x00, 0x00, 0xfa, 0xf4, 0xeb, 0xfd, /* movl $1, (%ebx); cli; hlt */
	};
	/* clang-format on */
	volatile uint32_t *found = (volatile uint32_t *)(uintptr_t)LOADER_FOUND;
	uint32_t r[4];
	unsigned rounds = 0;

	if (!svm_begin())
		return;
	machine_cpuid(0x80000001, 0, r);
	if (!story_needs(r[2] >> 12 & 1, "cpuid.80000001.0.ecx[12]=0") || !cpus_needs(2)) {
		svm_end();
		return;
	}
	story_spoils();
	machine_fill((void *)(uintptr_t)LOADER, 0, 0x1000);
	*(volatile uint16_t *)(uintptr_t)LOADER = 16;		       /* where it begins */
	*(volatile uint16_t *)(uintptr_t)(LOADER + 2) = 16 + sizeof(code); /* how long it is */
	machine_copy((void *)(uintptr_t)(LOADER + 16), code, sizeof(code));
	cpus_tell(1, start_loader, NULL);
	while (!found[0] && rounds++ < 1000000)
		__asm__ volatile("pause");
	story_check("runs", 1, found[0]);
	story_check("eax", LOADER, found[1]); /* the low 16 bits are ignored */
	story_check("esp", LOADER + 0x10000, found[2]);
	story_check("cr0_pe_pg", CR0_PE, found[3] & (CR0_PE | CR0_PG));
	story_check("cr4", 0, found[4]);
	story_check("cs", 8, found[5]);
	story_check("ss", 16, found[6]);
	story_check("eflags", RFLAGS_FIXED, found[7] & ~(uint32_t)RFLAGS_STATUS);
	story_check("efer", 0, found[8] & ~(uint32_t)EFER_SVME);
	story_check("vm_cr", 7, found[9] & 7); /* DPD, R_INIT, DIS_A20M */
	svm_end();
}
