/*
 * vls.c: VMLOAD and VMSAVE in a guest, whose nested tables say where its VMCB is (APM 2 15.33.1, 15.5.2).
 */
#include "lib/exchange.h"
#include "lib/machine.h"
#include "lib/world.h"
#include "svm/legacy.h"
#include "svm/svm.h"
#include "x86/case_layout.h"
#include "x86/msr.h"
#include "x86/vectors.h"

static volatile uint64_t *quad(uint32_t address) { return (volatile uint64_t *)(uintptr_t)address; }

/* The guest's page, and the one that the nested tables have for it. */
#define NAMED CASE_FRAME
#define MEANT CASE_FRAME2

/* VMSAVE, or VMLOAD, of the address in EAX; VMMCALL. In PROT16 an address prefix goes first. */
static unsigned code(unsigned mode, bool load)
{
	uint8_t bytes[7] = {0x67, 0x0f, 0x01, load ? 0xda : 0xdb, 0x0f, 0x01, 0xd9};
	unsigned skipped = mode == MODE_PROT16 ? 0 : 1;

	svm_code(bytes + skipped, 7 - skipped);
	return 4 - skipped;
}

/* A guest of @mode with nested tables that have MEANT for NAMED, and virtual VMLOAD and VMSAVE on. */
static bool begin(unsigned mode)
{
	if (!svm_begin() || !SVM_NEEDS(15))
		return false;
	svm_baseline(mode, 0);
	svm_nested_build();
	svm_nested_use();
	svm_set(VMCB_VIRTUAL, SVM_VLS_ENABLE);
	svm_set(VMCB_RAX, NAMED);
	machine_fill((void *)(uintptr_t)NAMED, 0x5a, PAGE_SIZE);
	/* What a VMLOAD finds there is in order: the guest's own. */
	machine_copy((void *)(uintptr_t)MEANT, svm_vmcb, PAGE_SIZE);
	*quad(CASE_NESTED_PTE(NAMED)) = MEANT | CASE_NESTED_BITS;
	return true;
}

/* ---- what is moved, part by part, in each mode ---- */

static const struct {
	const char *name;
	unsigned offset, size;
	uint64_t value;
} parts[] = {
	{"fs_selector", VMCB_FS, 2, 0x1250},
	{"fs_attributes", VMCB_FS + 2, 2, 0xdb7},
	{"fs_limit", VMCB_FS + 4, 4, 0x12345fff},
	{"fs_base", VMCB_FS + 8, 8, 0x128000},
	{"gs_selector", VMCB_GS, 2, 0x1258},
	{"gs_attributes", VMCB_GS + 2, 2, 0x993},
	{"gs_limit", VMCB_GS + 4, 4, 0x23456fff},
	{"gs_base", VMCB_GS + 8, 8, 0x129000},
	{"ldtr_selector", VMCB_LDTR, 2, 0x1260},
	{"ldtr_attributes", VMCB_LDTR + 2, 2, 0x182},
	{"ldtr_limit", VMCB_LDTR + 4, 4, 0x345f},
	{"ldtr_base", VMCB_LDTR + 8, 8, 0x12a000},
	{"tr_selector", VMCB_TR, 2, 0x1268},
	{"tr_attributes", VMCB_TR + 2, 2, 0x18b},
	{"tr_limit", VMCB_TR + 4, 4, 0x1067},
	{"tr_base", VMCB_TR + 8, 8, 0x12b000},
	{"kernel_gs_base", VMCB_KERNEL_GS, 8, 0x12c000},
	{"star", VMCB_STAR, 8, 0x1b00080000000000},
	{"lstar", VMCB_LSTAR, 8, 0x12d000},
	{"cstar", VMCB_CSTAR, 8, 0x12e000},
	{"sfmask", VMCB_SFMASK, 8, 0x4700},
	{"sysenter_cs", VMCB_SYSENTER_CS, 8, 0x10},
	{"sysenter_esp", VMCB_SYSENTER_ESP, 8, 0x12f000},
	{"sysenter_eip", VMCB_SYSENTER_EIP, 8, 0x130000},
};

STORY(svm_vls_part)
{
	uint64_t i = GIVEN(index), got = 0;
	unsigned mode = (unsigned)GIVEN(from), length;
	bool load = GIVEN(mode);
	uint8_t *meant = (uint8_t *)(uintptr_t)MEANT;

	if (!begin(mode))
		return;
	length = code(mode, load);
	if (load) /* the nested page has another than the VMCB that the host loads */
		machine_copy(meant + parts[i].offset, &parts[i].value, parts[i].size);
	else
		svm_write(parts[i].offset, parts[i].size, parts[i].value);
	story_check("exitcode", SVM_EXIT_VMMCALL, svm_run());
	story_check("rip", exchange.in.field[STATE_rip] + length, svm_get(VMCB_RIP));
	machine_copy(&got, meant + parts[i].offset, parts[i].size);
	story_check("memory", parts[i].value, got);
	story_check(parts[i].name, parts[i].value, svm_read(parts[i].offset, parts[i].size));
	story_check("named_page", 0x5a5a5a5a5a5a5a5a, *quad(NAMED + VMCB_KERNEL_GS));
	svm_end();
}

/* What is not of VMLOAD and VMSAVE stays: mode 0: VMSAVE writes no other byte; 1: VMLOAD none at all. */
STORY(svm_vls_rest)
{
	bool load = GIVEN(mode);
	static uint8_t was[PAGE_SIZE];
	const volatile uint8_t *meant = (const volatile uint8_t *)(uintptr_t)MEANT;
	unsigned wrong = 0;

	if (!begin(MODE_LONG))
		return;
	code(MODE_LONG, load);
	if (!load)
		machine_fill((void *)(uintptr_t)MEANT, 0xc3, PAGE_SIZE);
	machine_copy(was, (const void *)(uintptr_t)MEANT, PAGE_SIZE);
	story_check("exitcode", SVM_EXIT_VMMCALL, svm_run());
	for (unsigned i = 0; i < PAGE_SIZE; i++) {
		bool own = (i >= VMCB_FS && i < VMCB_GDTR) || (i >= VMCB_LDTR && i < VMCB_IDTR) ||
			   (i >= VMCB_TR && i < VMCB_TR + 16) ||
			   (i >= VMCB_STAR && i < VMCB_SYSENTER_EIP + 8);

		wrong += (load || !own) && meant[i] != was[i];
	}
	story_check("bytes", 0, wrong);
	story_check("gdtr", exchange.in.field[STATE_gdtr_base], svm_get(VMCB_GDTR + 8));
	svm_end();
}

/* ---- the nested walk: each level, each flaw (15.25.6) ---- */

static const struct {
	uint32_t address;
	uint64_t value;
} levels[] = {{CASE_NESTED_PTE(NAMED), MEANT | CASE_NESTED_BITS},
	      {CASE_NESTED_PD, CASE_NESTED_PT | CASE_NESTED_BITS},
	      {CASE_NESTED_PDPT, CASE_NESTED_PD | CASE_NESTED_BITS},
	      {CASE_NESTED_PML4, CASE_NESTED_PDPT | CASE_NESTED_BITS}};

enum { FLAW_NONE, FLAW_ABSENT, FLAW_READ_ONLY, FLAW_SUPERVISOR, FLAW_NX, FLAW_NX_RESERVED, FLAW_RESERVED };

static uint64_t flawed(uint64_t entry, uint64_t flaw)
{
	switch (flaw) {
	case FLAW_ABSENT: return entry & ~(uint64_t)PTE_P;
	case FLAW_READ_ONLY: return entry & ~(uint64_t)PTE_W;
	case FLAW_SUPERVISOR: return entry & ~(uint64_t)PTE_U;
	case FLAW_NX:
	case FLAW_NX_RESERVED: return entry | PTE_NX;
	case FLAW_RESERVED: return entry | 1ull << 51;
	default: return entry;
	}
}

/*
 * The page is beyond the first 2 MiB, where nothing of the guest is, so that levels above the last one matter
 * to VMLOAD and VMSAVE alone: 0x200000 is mapped by the second PD entry, 0x40000000 by the second PDPT entry.
 */
STORY(svm_vls_walk)
{
	uint64_t level = GIVEN(index), flaw = GIVEN(type), error, got;
	bool load = GIVEN(mode), faults;
	uint32_t at = level == 0 ? NAMED : level == 1 ? 0x200000 + MEANT : 0x40000000 + MEANT, entry;
	uint64_t value;
	uint32_t r[4];

	machine_cpuid(0x80000008, 0, r);
	if (!begin(MODE_LONG) ||
	    (flaw == FLAW_RESERVED && !story_needs((r[0] & 0xff) <= 51, "cpuid.80000008.0.eax[7:0]>51")))
		return;
	code(MODE_LONG, load);
	svm_set(VMCB_RAX, at);
	if (flaw == FLAW_NX)
		machine_write_msr(MSR_EFER, machine_read_msr(MSR_EFER) | EFER_NXE);
	/* Those pages are MEANT too. */
	*quad(CASE_NESTED_PD + 8) = CASE_NESTED_PT | CASE_NESTED_BITS;
	*quad(CASE_NESTED_PDPT + 8) = CASE_NESTED_PD | CASE_NESTED_BITS;
	entry = level == 0 ? levels[0].address : level == 1 ? CASE_NESTED_PD + 8 : CASE_NESTED_PDPT + 8;
	value = level == 0 ? levels[0].value : level == 1 ? levels[1].value : levels[2].value;
	*quad(entry) = flawed(value, flaw);
	faults = flaw == FLAW_ABSENT || flaw == FLAW_SUPERVISOR || flaw == FLAW_NX_RESERVED ||
		 flaw == FLAW_RESERVED || (flaw == FLAW_READ_ONLY && !load);
	got = svm_run();
	story_check("exitcode", faults ? SVM_EXIT_NPF : SVM_EXIT_VMMCALL, got);
	error = PF_U | (load ? 0 : PF_W) | (flaw == FLAW_ABSENT ? 0 : PF_P) |
		(flaw == FLAW_NX_RESERVED || flaw == FLAW_RESERVED ? PF_RSVD : 0);
	if (faults) {
		/* Whether that is of the final address or of a table is not said (15.25.6). */
		story_check("error", error, svm_get(VMCB_EXITINFO1) & ~(SVM_NPF_FINAL | SVM_NPF_TABLE));
		story_check("address", at, svm_get(VMCB_EXITINFO2) & ~PAGE_MASK);
		story_check("rip", CASE_STUB, svm_get(VMCB_RIP));
	} else {
		story_check("rip", CASE_STUB + 3, svm_get(VMCB_RIP));
	}
	svm_end();
}

/* Accessed and dirty bits of the nested entry: a read, or a write (15.25.5). */
STORY(svm_vls_flags)
{
	bool load = GIVEN(mode);
	uint64_t clean = MEANT | (CASE_NESTED_BITS & ~(uint64_t)(PTE_A | PTE_D));

	if (!begin(MODE_LONG))
		return;
	code(MODE_LONG, load);
	*quad(CASE_NESTED_PTE(NAMED)) = clean;
	story_check("exitcode", SVM_EXIT_VMMCALL, svm_run());
	story_check("entry", clean | PTE_A | (load ? 0 : PTE_D), *quad(CASE_NESTED_PTE(NAMED)));
	svm_end();
}

/* ---- what comes before it, and what has no part in it ---- */

enum {
	WITH_INTERCEPT,
	INTERCEPT_AND_ABSENT,
	MISALIGNED_AND_INTERCEPT,
	BEYOND,
	UPPER_HALF,
	AT_CPL3,
	OWN_PTE_ABSENT,
	WITHOUT_NESTED,
	CONTROL_OFF,
	OUTSIDE_TABLES
};

STORY(svm_vls_order)
{
	uint64_t what = GIVEN(type), got, exits, zero = 0;
	bool load = GIVEN(mode);
	uint32_t r[4];

	machine_cpuid(0x80000008, 0, r);
	if (!begin(MODE_LONG))
		return;
	if (what == AT_CPL3) {
		svm_baseline(MODE_LONG, 3);
		svm_nested_use();
		svm_set(VMCB_RAX, NAMED);
	}
	code(MODE_LONG, load);
	exits = load ? SVM_EXIT_VMLOAD : SVM_EXIT_VMSAVE;
	svm_intercept((unsigned)exits, what <= MISALIGNED_AND_INTERCEPT);
	switch (what) {
	case INTERCEPT_AND_ABSENT: *quad(CASE_NESTED_PTE(NAMED)) = 0; break;
	case MISALIGNED_AND_INTERCEPT:
		svm_set(VMCB_RAX, NAMED + 8);
		exits = SVM_EXIT_EXCEPTION + VECTOR_GP;
		break;
	case BEYOND:
		svm_set(VMCB_RAX, 1ull << (r[0] & 0xff));
		exits = SVM_EXIT_EXCEPTION + VECTOR_GP;
		break;
	case UPPER_HALF:
		svm_set(VMCB_RAX, 0xffff800000000000);
		exits = SVM_EXIT_EXCEPTION + VECTOR_GP;
		break;
	case AT_CPL3: exits = SVM_EXIT_EXCEPTION + VECTOR_GP; break;
	case OWN_PTE_ABSENT: /* the address is no linear one */
		world_poke(CASE_PTE_LONG(NAMED), &zero, 8);
		exits = SVM_EXIT_VMMCALL;
		break;
	case WITHOUT_NESTED: svm_set(VMCB_NESTED, 0); break;
	case CONTROL_OFF: svm_set(VMCB_VIRTUAL, 0); break;
	case OUTSIDE_TABLES: /* 4 GiB, where the nested tables have nothing */
		svm_set(VMCB_RAX, 1ull << 32);
		exits = SVM_EXIT_NPF;
		break;
	default: break;
	}
	got = svm_run();
	if (what ==
	    CONTROL_OFF) /* not intercepted: done at the host's address, or exits all the same (15.33.1) */
		story_check("exitcode", got == exits ? exits : SVM_EXIT_VMMCALL, got);
	else
		story_check("exitcode", exits, got);
	if (exits == SVM_EXIT_VMSAVE || exits == SVM_EXIT_VMLOAD) {
		if (got == exits && svm_has(SVM_HAS_NRIPS))
			story_check("nrip", CASE_STUB + 3, svm_get(VMCB_NRIP));
	} else if (exits == SVM_EXIT_EXCEPTION + VECTOR_GP) {
		story_check("error", 0, svm_get(VMCB_EXITINFO1));
	}
	story_check("rip", got == SVM_EXIT_VMMCALL ? CASE_STUB + 3 : CASE_STUB, svm_get(VMCB_RIP));
	svm_end();
}

/* Each of the low 12 bits of rAX: #GP, though the address is a guest's. */
STORY(svm_vls_aligned)
{
	bool load = GIVEN(mode);

	if (!begin(MODE_LONG))
		return;
	code(MODE_LONG, load);
	svm_set(VMCB_RAX, NAMED | 1ull << GIVEN(index));
	story_check("exitcode", SVM_EXIT_EXCEPTION + VECTOR_GP, svm_run());
	story_check("error", 0, svm_get(VMCB_EXITINFO1));
	story_check("memory", 0x5a5a5a5a5a5a5a5a, *quad(NAMED + VMCB_KERNEL_GS));
	svm_end();
}

/* A hypervisor that is not in 64-bit mode: both exit, whatever the control says. */
STORY(svm_vls_legacy_host)
{
	uint64_t mode = GIVEN(mode);
	bool load = GIVEN(from);
	uint32_t cr[3];

	if (!svm_begin() || !SVM_NEEDS(15))
		return;
	svm_baseline(MODE_PROT32, 0);
	code(MODE_PROT32, load);
	svm_legacy_tables((unsigned)mode, cr);
	svm_set(VMCB_NESTED, SVM_NP_ENABLE);
	svm_set(VMCB_NCR3, cr[1]);
	svm_set(VMCB_VIRTUAL, SVM_VLS_ENABLE);
	svm_set(VMCB_RAX, NAMED);
	story_check("exitcode", load ? SVM_EXIT_VMLOAD : SVM_EXIT_VMSAVE, svm_run_legacy(cr));
	story_check("rip", CASE_STUB, svm_get(VMCB_RIP));
	if (svm_has(SVM_HAS_NRIPS))
		story_check("nrip", CASE_STUB + 3, svm_get(VMCB_NRIP));
	svm_end();
}
