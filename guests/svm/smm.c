/*
 * smm.c: SMIs that are taken out of guests: the state that RSM brings back, what the save area tells of the
 * guest, and a handler that runs a guest of its own (APM 2 10.2, 15.13.3, 15.22).
 */
#include "lib/apic.h"
#include "lib/exchange.h"
#include "lib/machine.h"
#include "svm/svm.h"
#include "x86/case_layout.h"
#include "x86/msr.h"
#include "x86/vectors.h"

#define SMM_CODE  0x38000u
#define SMM_COUNT 0x38100u
#define SMM_COPY  0x38110u
#define SMM_STATE 0x3fed8u /* 1: out of a guest; then its VMCB and its virtual interrupts */

static uint8_t smm_hsave[0x1000] __attribute__((aligned(4096)));

static void send_smi(void)
{
	apic_enable(0xff);
	apic_send(apic_id(), ICR_SMI | ICR_ASSERT);
}

static uint64_t smm_quad(uint32_t address) { return *(volatile uint64_t *)(uintptr_t)address; }

static void install(const uint8_t *code, unsigned length)
{
	machine_copy((void *)(uintptr_t)SMM_CODE, code, length);
	machine_fill((void *)(uintptr_t)SMM_COUNT, 0, 0x100);
}

/* incb %cs:0x8100; what the save area has of the guest, to SMM_COPY; rsm. */
static void install_copier(void)
{
	static const uint8_t code[] = {
		0x2e, 0xfe, 0x06, 0x00, 0x81, 0x2e, 0x66, 0xa1, 0xd8, 0xfe, 0x2e, 0x66, 0xa3, 0x10,
		0x81, 0x2e, 0x66, 0xa1, 0xe0, 0xfe, 0x2e, 0x66, 0xa3, 0x18, 0x81, 0x0f, 0xaa,
	};

	install(code, sizeof(code));
}

/* NOP, NOP, NOP, VMMCALL: the SMI comes in front of them. */
static void begin_guest(unsigned mode, unsigned cpl)
{
	svm_baseline(mode, cpl);
	SVM_CODE(0x90, 0x90, 0x90, 0x0f, 0x01, 0xd9);
	svm_intercept(SVM_EXIT_SMI, false);
}

static const unsigned watched[] = {VMCB_ES,   VMCB_CS,     VMCB_SS,   VMCB_DS,  VMCB_FS,  VMCB_GS,
				   VMCB_LDTR, VMCB_TR,     VMCB_EFER, VMCB_CR0, VMCB_CR3, VMCB_CR4,
				   VMCB_DR6,  VMCB_DR7,    VMCB_RSP,  VMCB_RAX, VMCB_CR2, VMCB_GDTR,
				   VMCB_IDTR, VMCB_RFLAGS, VMCB_G_PAT};

/* A guest in any mode, with nested tables or without, goes on behind RSM as if nothing had been. */
STORY(svm_smi_transparent)
{
	unsigned mode = (unsigned)GIVEN(mode), cpl = (unsigned)GIVEN(value), changed = 0;
	static uint8_t was[VMCB_SIZE];

	if (!svm_begin() || !story_has_apic() || (GIVEN(nested) && !SVM_NEEDS(0)))
		return;
	story_spoils();
	install_copier();
	begin_guest(mode, cpl);
	svm_nested_build();
	if (GIVEN(nested))
		svm_nested_use();
	/* What VMRUN and VMSAVE make of it without an SMI. */
	story_check("without", SVM_EXIT_VMMCALL, svm_run());
	machine_copy(was, svm_vmcb, VMCB_SIZE);
	svm_load(mode, cpl);
	svm_intercept(SVM_EXIT_SMI, false);
	if (GIVEN(nested))
		svm_nested_use();
	svm_prelude(send_smi);
	story_check("exitcode", SVM_EXIT_VMMCALL, svm_run());
	story_check("handled", 1, smm_quad(SMM_COUNT) & 0xff);
	story_check("rip", *(uint64_t *)(void *)(was + VMCB_RIP), svm_get(VMCB_RIP));
	for (unsigned i = 0; i < sizeof(watched) / sizeof(watched[0]); i++)
		changed += *(uint64_t *)(void *)(was + watched[i]) != svm_get(watched[i]);
	story_check("state", 0, changed);
	story_check("cpl", was[VMCB_CPL], svm_read(VMCB_CPL, 1));
}

/* The save area says whether there was a guest, and where its VMCB is (table 10-1). */
STORY(svm_smi_area)
{
	bool host = GIVEN(mode);

	if (!svm_begin() || !story_has_apic())
		return;
	story_spoils();
	install_copier();
	if (host) {
		send_smi();
		__asm__ volatile("nop; nop; nop; nop" : : : "memory");
	} else {
		begin_guest(MODE_LONG, 0);
		svm_prelude(send_smi);
		story_check("exitcode", SVM_EXIT_VMMCALL, svm_run());
	}
	story_check("handled", 1, smm_quad(SMM_COUNT) & 0xff);
	story_check("guest", host ? 0 : 1, smm_quad(SMM_COPY) & 1);
	if (!host)
		story_check("vmcb", (uintptr_t)svm_vmcb, smm_quad(SMM_COPY + 8) & 0xffffffff);
}

/* ---- VMRUN in the handler, as a hypervisor uses it that keeps SMM in a guest (15.22.3) ---- */

static void put32(uint8_t *at, uint64_t value) { machine_copy(at, &value, 4); }

/* It leaves VM_HSAVE_PA as it was, whoever's that is. */
static void install_runner(void)
{
	/* clang-format off */
	uint8_t code[] = {
		0x2e, 0xfe, 0x06, 0x00, 0x81,                         /* incb %cs:0x8100 */
		0x0f, 0x20, 0xc0, 0x66, 0x83, 0xc8, 0x01, 0x0f, 0x22, 0xc0, /* CR0.PE */
		0x66, 0xb9, 0x80, 0x00, 0x00, 0xc0, 0x66, 0xb8, 0x00, 0x10, 0x00, 0x00, 0x66, 0x31, 0xd2, 0x0f, 0x30, /* EFER.SVME */
		0x66, 0xb9, 0x17, 0x01, 0x01, 0xc0, 0x0f, 0x32, 0x66, 0x89, 0xc6, 0x66, 0x89, 0xd7,                   /* VM_HSAVE_PA to EDI:ESI */
		0x66, 0xb8, 0, 0, 0, 0, 0x66, 0x31, 0xd2, 0x0f, 0x30, /* 46: one of its own */
		0x66, 0xb8, 0, 0, 0, 0, 0x67, 0x0f, 0x01, 0xd8,       /* 57: VMRUN */
		0x66, 0xb9, 0x17, 0x01, 0x01, 0xc0, 0x66, 0x89, 0xf0, 0x66, 0x89, 0xfa, 0x0f, 0x30,                   /* and back */
		0x2e, 0xfe, 0x06, 0x00, 0x81, 0x0f, 0xaa,             /* incb %cs:0x8100; rsm */
	};
	/* clang-format on */

	put32(code + 46 + 2, (uintptr_t)smm_hsave);
	put32(code + 57 + 2, (uintptr_t)svm_vmcb2);
	install(code, sizeof(code));
}

/*
 * The handler's guest runs and exits to the handler, and RSM comes back to the guest that was interrupted,
 * with its controls: it exits by its own intercepts to its own host.
 */
STORY(svm_smm_vmrun)
{
	bool nested = GIVEN(nested);

	if (!svm_begin() || !story_has_apic() || (nested && !SVM_NEEDS(0)))
		return;
	story_spoils();
	install_runner();
	svm_nested_build();
	begin_guest(MODE_REAL, 0);
	svm_set(VMCB_RIP, svm_get(VMCB_RIP) + 3); /* at the VMMCALL */
	svm_write(VMCB_ASID, 4, 2);
	machine_copy(svm_vmcb2, svm_vmcb, VMCB_SIZE);
	machine_fill(svm_vmcb, 0, VMCB_SIZE);
	begin_guest(MODE_LONG, 0);
	if (nested)
		svm_nested_use();
	svm_set(VMCB_TSC_OFFSET, 1ull << 50);
	SVM_CODE(0x90, 0x90, 0x90, 0x0f, 0x01, 0xd9, 0x0f, 0xa2, 0x0f, 0x01, 0xd9);
	svm_prelude(send_smi);
	story_check("exitcode", SVM_EXIT_VMMCALL, svm_run());
	story_check("handled", 2, smm_quad(SMM_COUNT) & 0xff);
	story_check("inner", SVM_EXIT_VMMCALL, *(uint64_t *)(void *)(svm_vmcb2 + VMCB_EXITCODE));
	story_check("rip", CASE_STUB + 3, svm_get(VMCB_RIP));
	story_check("cr0", CASE_CR0, svm_get(VMCB_CR0));
	story_check("efer", CASE_EFER_LONG | EFER_SVME, svm_get(VMCB_EFER));
	story_check("host_cr3", exchange.monitor_cr3, machine_read_cr3());
	story_check("host_efer", exchange.monitor_efer | EFER_SVME, machine_read_msr(MSR_EFER));
	/* And once more, without an SMI. */
	svm_set(VMCB_RIP, CASE_STUB + 6);
	svm_intercept(SVM_EXIT_CPUID, true);
	story_check("again", SVM_EXIT_CPUID, svm_run());
}

/* ---- SMM_CTL (15.30.3) ---- */

enum { CTL_DISMISS, CTL_ENTER, CTL_READ, CTL_LOCKED, CTL_RESERVED };

static uint64_t try_smm_ctl(uint64_t bits) { return story_try_wrmsr(MSR_SMM_CTL, bits); }

STORY(svm_smm_ctl)
{
	uint64_t mode = GIVEN(mode), hwcr = 0, value;

	if (!svm_begin() || !story_has_apic())
		return;
	if (!story_needs(try_smm_ctl(0) == STORY_NO_FAULT, "msr.c0010116=gp")) {
		svm_end();
		return;
	}
	story_spoils();
	install_copier();
	switch (mode) {
	case CTL_DISMISS: /* one that GIF has held pending is gone */
		__asm__ volatile("clgi" : : : "memory");
		send_smi();
		story_check("dismiss", STORY_NO_FAULT, try_smm_ctl(SMM_CTL_DISMISS));
		__asm__ volatile("stgi; nop; nop; nop" : : : "memory");
		story_check("handled", 0, smm_quad(SMM_COUNT) & 0xff);
		send_smi();
		__asm__ volatile("nop; nop; nop" : : : "memory");
		story_check("next", 1, smm_quad(SMM_COUNT) & 0xff);
		break;
	case CTL_ENTER: /* in SMM no other SMI is taken, and behind it the one that came is */
		story_check("enter", STORY_NO_FAULT, try_smm_ctl(SMM_CTL_ENTER));
		send_smi();
		__asm__ volatile("nop; nop; nop" : : : "memory");
		story_check("held", 0, smm_quad(SMM_COUNT) & 0xff);
		story_check("exit", STORY_NO_FAULT, try_smm_ctl(SMM_CTL_EXIT));
		__asm__ volatile("nop; nop; nop" : : : "memory");
		story_check("handled", 1, smm_quad(SMM_COUNT) & 0xff);
		break;
	case CTL_READ: story_check("read", VECTOR_GP, story_try_rdmsr(MSR_SMM_CTL, &value)); break;
	case CTL_LOCKED:
		story_check("hwcr", STORY_NO_FAULT, story_try_rdmsr(MSR_HWCR, &hwcr));
		story_check("lock", STORY_NO_FAULT, story_try_wrmsr(MSR_HWCR, hwcr | HWCR_SMM_LOCK));
		story_check("locked", VECTOR_GP, try_smm_ctl(SMM_CTL_DISMISS));
		break;
	case CTL_RESERVED:
		story_check("bit5", VECTOR_GP, try_smm_ctl(1u << 5));
		story_check("bit63", VECTOR_GP, try_smm_ctl(1ull << 63));
		break;
	}
	svm_end();
}
