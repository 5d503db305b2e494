/*
 * legacy.c: guests of hosts in legacy modes; the paging mode of such a host is that of the nested tables (APM
 * 2 15.5.1, 15.6, 15.25.3, 15.25.6, 15.25.7).
 */
#include "svm/legacy.h"

#include "lib/exchange.h"
#include "lib/machine.h"
#include "lib/world.h"
#include "svm/svm.h"
#include "x86/case_layout.h"
#include "x86/msr.h"
#include "x86/vectors.h"

static volatile uint64_t *quad(uint32_t address) { return (volatile uint64_t *)(uintptr_t)address; }
static volatile uint32_t *word(uint32_t address) { return (volatile uint32_t *)(uintptr_t)address; }

#define HOST_CR0 (CR0_PE | CR0_ET | CR0_NE)

/* A host's own tables, identity, for all of memory that is used: 4 GiB by PAE or PSE pages, but the first 2
 * or 4 MiB by small ones. With PSE alone all pages are large. */
static uint32_t host_pd[1024] __attribute__((aligned(4096))), host_pt[1024][4] __attribute__((aligned(4096)));
static uint64_t pae_pdpt[4] __attribute__((aligned(4096))), pae_pd[4][512] __attribute__((aligned(4096))),
	pae_pt[512] __attribute__((aligned(4096)));

void svm_legacy_tables(unsigned mode, uint32_t cr[3])
{
	cr[0] = HOST_CR0 | (mode == HOST_NO_PAGING ? 0 : CR0_PG);
	cr[1] = 0;
	cr[2] = 0;
	if (mode == HOST_PAE) {
		/* not the last GiB: a table that is taken to begin at its entry is noticed */
		for (uint64_t i = 0; i < 4; i++)
			pae_pdpt[i] = i < 3 ? (uintptr_t)pae_pd[i] | PTE_P : 0;
		for (uint64_t i = 0; i < 2048; i++)
			pae_pd[i / 512][i % 512] = i << 21 | CASE_NESTED_BITS | PTE_PS;
		for (uint64_t i = 0; i < 512; i++)
			pae_pt[i] = i << 12 | CASE_NESTED_BITS;
		pae_pd[0][0] = (uintptr_t)pae_pt | CASE_NESTED_BITS;
		cr[1] = (uint32_t)(uintptr_t)pae_pdpt;
		cr[2] = CR4_PAE;
	} else if (mode == HOST_PSE) {
		for (uint32_t i = 0; i < 1024; i++)
			host_pd[i] = i << 22 | (uint32_t)(CASE_NESTED_BITS | PTE_PS);
		cr[1] = (uint32_t)(uintptr_t)host_pd;
		cr[2] = CR4_PSE;
	} else if (mode == HOST_32) { /* four tables: the first 16 MiB */
		for (uint32_t i = 0; i < 4096; i++)
			((uint32_t *)host_pt)[i] = i << 12 | (uint32_t)CASE_NESTED_BITS;
		for (uint32_t i = 0; i < 1024; i++)
			host_pd[i] = i < 4 ? (uint32_t)(uintptr_t)((uint32_t *)host_pt + 1024 * i) |
						     (uint32_t)CASE_NESTED_BITS
					   : 0;
		cr[1] = (uint32_t)(uintptr_t)host_pd;
	}
}

/* A guest of 32 bits runs and returns, and the host's control registers are back. */
STORY(svm_legacy_host)
{
	uint64_t mode = GIVEN(mode), guest_mode = GIVEN(from);
	bool nested = GIVEN(nested);
	uint64_t code;
	uint32_t cr[3];

	if (!svm_begin() || (nested && !SVM_NEEDS(0)))
		return;
	svm_baseline((unsigned)guest_mode, guest_mode == MODE_VM86 ? 3 : 0);
	SVM_CODE(0x0f, 0x01, 0xd9);
	svm_legacy_tables((unsigned)mode, cr);
	if (nested) {
		svm_set(VMCB_NESTED, SVM_NP_ENABLE);
		/* PWT and PCD: no part of the address of PAE's four entries */
		svm_set(VMCB_NCR3, cr[1] | (mode == HOST_PAE ? 0x18u : 0u));
	}
	code = svm_run_legacy(cr);
	if (nested && mode == HOST_NO_PAGING)
		story_check("exitcode", (uint64_t)SVM_EXIT_INVALID, code);
	else
		story_check("exitcode", SVM_EXIT_VMMCALL, code);
	story_check("cr0", cr[0], svm_legacy_cr[0]);
	story_check("cr3", cr[1], svm_legacy_cr[1]);
	story_check("cr4", cr[2], svm_legacy_cr[2]);
	svm_end();
}

/* Nested tables of 32-bit paging: an entry's bits, as a host in long mode has them (nested.def). */
STORY(svm_legacy_nested)
{
	uint64_t missing = GIVEN(value), kind = GIVEN(from);
	bool faults = missing == PTE_P || missing == PTE_U || (missing == PTE_W && kind == 1);
	uint32_t cr[3];
	uint64_t code;

	if (!svm_begin() || !SVM_NEEDS(0))
		return;
	svm_baseline(MODE_PROT32, 0);
	if (kind) /* mov %eax, (%ebx) */
		SVM_CODE(0x89, 0x03, 0x0f, 0x01, 0xd9);
	else /* mov (%ebx), %eax */
		SVM_CODE(0x8b, 0x03, 0x0f, 0x01, 0xd9);
	svm_legacy_tables(HOST_32, cr);
	((uint32_t *)host_pt)[CASE_OPERAND >> 12] &= ~(uint32_t)missing;
	svm_set(VMCB_NESTED, SVM_NP_ENABLE);
	svm_set(VMCB_NCR3, cr[1]);
	code = svm_run_legacy(cr);
	story_check("exitcode", faults ? SVM_EXIT_NPF : SVM_EXIT_VMMCALL, code);
	if (faults) {
		story_check("error",
			    (uint64_t)SVM_NPF_FINAL | PF_U | (kind ? PF_W : 0u) |
				    (missing == PTE_P ? 0u : PF_P),
			    svm_get(VMCB_EXITINFO1));
		story_check("address", CASE_OPERAND, svm_get(VMCB_EXITINFO2));
	}
	svm_end();
}

/* The PDPEs of a host in PAE mode are loaded again: illegal ones are a shutdown (15.6). */
STORY(svm_host_pdpes)
{
	uint32_t cr[3];

	if (!svm_begin())
		return;
	story_spoils();
	svm_baseline(MODE_PROT32, 0);
	/* The guest makes entry 3 of the host's table illegal, present with a reserved bit: mov $0x1e1,
	 * (%ebx); VMMCALL. */
	SVM_CODE(0xc7, 0x03, 0xe1, 0x01, 0x00, 0x00, 0x0f, 0x01, 0xd9);
	svm_legacy_tables(HOST_PAE, cr);
	machine_copy((void *)(uintptr_t)CASE_PATH_PDPT, pae_pdpt,
		     sizeof(pae_pdpt)); /* where the guest reaches it */
	cr[1] = CASE_PATH_PDPT;
	svm_registers.rbx = CASE_PATH_PDPT + 24;
	svm_run_legacy(cr);
	story_check("came_back", 0, 1);
}

/* The upper tables once more: the host then neither sets a bit there, nor falls over what is wrong there. */
static uint32_t other_pd[1024] __attribute__((aligned(4096)));
static uint64_t other_pae_pd[512] __attribute__((aligned(4096))), other_pdpt[4] __attribute__((aligned(32)));

static uint32_t copied_root(uint64_t mode)
{
	if (mode != HOST_PAE) {
		machine_copy(other_pd, host_pd, sizeof(other_pd));
		return (uint32_t)(uintptr_t)other_pd;
	}
	machine_copy(other_pae_pd, pae_pd[0], sizeof(other_pae_pd));
	machine_copy(other_pdpt, pae_pdpt, sizeof(other_pdpt));
	other_pdpt[0] = (uintptr_t)other_pae_pd | PTE_P;
	return (uint32_t)(uintptr_t)other_pdpt;
}

/* ---- each level of those tables, each flaw, each access (15.25.6, 15.25.7) ---- */

enum { LEVEL_PAGE, LEVEL_TABLE, LEVEL_LARGE, LEVEL_PDPE };
enum {
	FLAW_NONE,
	FLAW_ABSENT,
	FLAW_READ_ONLY,
	FLAW_SUPERVISOR,
	FLAW_NX,          /* the host has EFER.NXE = 1 */
	FLAW_NX_RESERVED, /* it has not */
	FLAW_RESERVED,
	FLAW_ABSENT_RESERVED,
	FLAW_GLOBAL /* means nothing there */
};
enum { KIND_READ, KIND_WRITE, KIND_FETCH, KIND_TABLE };

/* What the guest's instruction at CASE_STUB touches, and the page that the flaw is for. */
static uint32_t touched(uint64_t kind)
{
	return kind == KIND_FETCH ? CASE_STUB : kind == KIND_TABLE ? CASE_CR3_32 : CASE_OPERAND;
}

/* Where a large page is needed: mapped there too, with the small ones' frames below it. */
#define LARGE_LINEAR 0x800000u /* 8 MiB: entry 4 of a PAE directory, entry 2 of a 32-bit one */

/* The nested entry of @level that maps @address, and its size in bytes. */
static uint32_t entry_of(uint64_t mode, uint64_t level, uint32_t address, unsigned *size)
{
	*size = mode == HOST_PAE ? 8 : 4;
	if (mode == HOST_PAE) {
		switch (level) {
		case LEVEL_PAGE: return (uint32_t)(uintptr_t)&pae_pt[address >> 12];
		case LEVEL_PDPE: return (uint32_t)(uintptr_t)&pae_pdpt[address >> 30];
		default: return (uint32_t)(uintptr_t)&pae_pd[address >> 30][address >> 21 & 511];
		}
	}
	if (level == LEVEL_PAGE)
		return (uint32_t)(uintptr_t)((uint32_t *)host_pt + (address >> 12));
	return (uint32_t)(uintptr_t)&host_pd[address >> 22];
}

static uint64_t reserved_bit(uint64_t mode, uint64_t level)
{
	if (mode != HOST_PAE)
		return 1u << 21; /* of a 4 MiB page (5.2.1) */
	return level == LEVEL_PDPE ? 1u << 5 : level == LEVEL_LARGE ? 1u << 13 : 1ull << 52;
}

static void make_flaw(uint32_t at, unsigned size, uint64_t flaw, uint64_t reserved)
{
	uint64_t entry = size == 8 ? *quad(at) : *word(at);

	switch (flaw) {
	case FLAW_ABSENT: entry &= ~(uint64_t)PTE_P; break;
	case FLAW_READ_ONLY: entry &= ~(uint64_t)PTE_W; break;
	case FLAW_SUPERVISOR: entry &= ~(uint64_t)PTE_U; break;
	case FLAW_NX:
	case FLAW_NX_RESERVED: entry |= PTE_NX; break;
	case FLAW_RESERVED: entry |= reserved; break;
	case FLAW_ABSENT_RESERVED: entry = (entry & ~(uint64_t)PTE_P) | reserved; break;
	case FLAW_GLOBAL: entry |= PTE_G; break;
	default: break;
	}
	if (size == 8)
		*quad(at) = entry;
	else
		*word(at) = (uint32_t)entry;
}

static bool stops(uint64_t flaw, uint64_t kind)
{
	switch (flaw) {
	case FLAW_NONE:
	case FLAW_GLOBAL: return false;
	case FLAW_READ_ONLY: return kind == KIND_WRITE || kind == KIND_TABLE;
	case FLAW_NX: return kind == KIND_FETCH;
	default: return true;
	}
}

static uint64_t error_of(uint64_t flaw, uint64_t kind)
{
	uint64_t error = kind == KIND_TABLE ? SVM_NPF_TABLE | PF_U | PF_W : SVM_NPF_FINAL | PF_U;

	error |= kind == KIND_WRITE ? PF_W : kind == KIND_FETCH ? PF_I : 0;
	if (flaw != FLAW_ABSENT && flaw != FLAW_ABSENT_RESERVED)
		error |= PF_P;
	return flaw == FLAW_RESERVED || flaw == FLAW_NX_RESERVED ? error | PF_RSVD : error;
}

/* mov (%ebx), %eax; mov %eax, (%ebx); NOP; VMMCALL behind it. The guest has no paging where its data is high.
 */
static void code_of(uint64_t kind)
{
	if (kind == KIND_READ)
		SVM_CODE(0x8b, 0x03, 0x0f, 0x01, 0xd9);
	else if (kind == KIND_WRITE)
		SVM_CODE(0x89, 0x03, 0x0f, 0x01, 0xd9);
	else
		SVM_CODE(0x90, 0x90, 0x0f, 0x01, 0xd9);
}

/*
 * mode: the host's; index: the level; type: the flaw; from: the access. Data of LEVEL_LARGE, LEVEL_TABLE and
 * LEVEL_PDPE is where nothing else of the guest is, which runs without paging then, so that its linear
 * addresses are guest-physical.
 */
STORY(svm_legacy_walk)
{
	uint64_t mode = GIVEN(mode), level = GIVEN(index), flaw = GIVEN(type), kind = GIVEN(from), code;
	uint32_t cr[3], address = touched(kind), at;
	bool high = level != LEVEL_PAGE, faults = stops(flaw, kind);
	unsigned size;

	if (!svm_begin() || !SVM_NEEDS(0))
		return;
	svm_baseline(MODE_PROT32, 0);
	code_of(kind);
	svm_legacy_tables((unsigned)mode, cr);
	if (high) {
		address = level == LEVEL_PDPE ? 0x40000000u + CASE_OPERAND : LARGE_LINEAR + CASE_OPERAND;
		svm_set(VMCB_CR0, svm_get(VMCB_CR0) & ~(uint64_t)CR0_PG);
		svm_registers.rbx = address;
		if (level == LEVEL_TABLE && mode == HOST_PAE) /* the small pages once more */
			pae_pd[0][LARGE_LINEAR >> 21] = (uintptr_t)pae_pt | CASE_NESTED_BITS;
		else if (level == LEVEL_TABLE)
			host_pd[LARGE_LINEAR >> 22] =
				(uint32_t)(uintptr_t)host_pt | (uint32_t)CASE_NESTED_BITS;
		if (level == LEVEL_PDPE)
			pae_pd[1][0] = pae_pd[0][0];
	}
	if (flaw == FLAW_NX)
		machine_write_msr(MSR_EFER, machine_read_msr(MSR_EFER) | EFER_NXE);
	at = entry_of(mode, level, address, &size);
	svm_set(VMCB_NESTED, SVM_NP_ENABLE);
	svm_set(VMCB_NCR3, cr[1]);
	if (level == LEVEL_PDPE) {
		svm_set(VMCB_NCR3, copied_root(mode));
		at = (uint32_t)(uintptr_t)&other_pdpt[address >> 30];
	}
	make_flaw(at, size, flaw, reserved_bit(mode, level));
	code = svm_run_legacy(cr);
	/* Whether reserved bits of its four PDPEs are seen by VMRUN or by a walk is not said
	 * (15.25.4, 15.25.6). */
	if (level == LEVEL_PDPE && faults && code == (uint64_t)SVM_EXIT_INVALID && flaw == FLAW_RESERVED) {
		story_check("exitcode", (uint64_t)SVM_EXIT_INVALID, code);
	} else {
		story_check("exitcode", faults ? SVM_EXIT_NPF : SVM_EXIT_VMMCALL, code);
		if (faults) {
			story_check("error", error_of(flaw, kind), svm_get(VMCB_EXITINFO1));
			story_check("address", address,
				    kind == KIND_TABLE ? svm_get(VMCB_EXITINFO2) & ~(uint64_t)PAGE_MASK
						       : svm_get(VMCB_EXITINFO2));
		}
	}
	story_check("host_cr3", cr[1], svm_legacy_cr[1]);
	svm_end();
}

/* Accessed and dirty bits of those tables, of the guest's data and of its own tables (15.25.5). */
STORY(svm_legacy_flags)
{
	uint64_t mode = GIVEN(mode), level = GIVEN(index), kind = GIVEN(from), flags = PTE_A | PTE_D, want,
		 got;
	uint32_t cr[3], address = touched(kind), at;
	unsigned size;

	if (!svm_begin() || !SVM_NEEDS(0))
		return;
	svm_baseline(MODE_PROT32, 0);
	code_of(kind);
	svm_legacy_tables((unsigned)mode, cr);
	svm_set(VMCB_NESTED, SVM_NP_ENABLE);
	svm_set(VMCB_NCR3, copied_root(mode));
	at = entry_of(mode, level, address, &size);
	if (level != LEVEL_PAGE)
		at = mode == HOST_PAE ? (uint32_t)(uintptr_t)&other_pae_pd[0]
				      : (uint32_t)(uintptr_t)&other_pd[0];
	if (size == 8)
		*quad(at) &= ~flags;
	else
		*word(at) &= ~(uint32_t)flags;
	want = (size == 8 ? *quad(at) : *word(at)) | PTE_A;
	/* In one large page the guest's tables, which are written, are too. */
	if (level == LEVEL_LARGE || (level == LEVEL_PAGE && (kind == KIND_WRITE || kind == KIND_TABLE)))
		want |= PTE_D;
	story_check("exitcode", SVM_EXIT_VMMCALL, svm_run_legacy(cr));
	got = size == 8 ? *quad(at) : *word(at);
	story_check("entry", want, level == LEVEL_TABLE ? got & ~(uint64_t)PTE_D : got);
	svm_end();
}

/*
 * A PAE guest of a PAE host: its own EFER.NXE and entries count at its level, the host's at the nested one
 * (15.25.7). value: 1 the guest's entry, 2 the nested one has NX; other: who has EFER.NXE, alike.
 */
STORY(svm_legacy_nx)
{
	uint64_t entries = GIVEN(value), enabled = GIVEN(other), code, want;
	uint64_t own = CASE_PTE(CASE_STUB, false) | PTE_NX;
	uint32_t cr[3];

	if (!svm_begin() || !SVM_NEEDS(0))
		return;
	svm_prepare(MODE_PROT32, 0);
	exchange.in.field[STATE_cr3] = CASE_CR3_PAE;
	exchange.in.field[STATE_cr4] |= CR4_PAE;
	svm_load(MODE_PROT32, 0);
	SVM_CODE(0x90, 0x0f, 0x01, 0xd9);
	svm_legacy_tables(HOST_PAE, cr);
	if (entries & 1)
		world_poke(CASE_PTE_LONG(CASE_STUB), &own, 8);
	if (entries & 2)
		pae_pt[CASE_STUB >> 12] |= PTE_NX;
	svm_set(VMCB_EFER, (svm_get(VMCB_EFER) & ~(uint64_t)EFER_NXE) | (enabled & 1 ? EFER_NXE : 0));
	if (enabled & 2)
		machine_write_msr(MSR_EFER, machine_read_msr(MSR_EFER) | EFER_NXE);
	svm_set(VMCB_NESTED, SVM_NP_ENABLE);
	svm_set(VMCB_NCR3, cr[1]);
	code = svm_run_legacy(cr);
	if (entries & 1) { /* the guest's level is looked at first */
		want = SVM_EXIT_EXCEPTION + VECTOR_PF;
		story_check("error", enabled & 1 ? PF_P | PF_I : PF_P | PF_RSVD, svm_get(VMCB_EXITINFO1));
	} else if (entries & 2) {
		want = SVM_EXIT_NPF;
		story_check("error", SVM_NPF_FINAL | PF_U | PF_P | PF_I | (enabled & 2 ? 0 : PF_RSVD),
			    svm_get(VMCB_EXITINFO1));
	} else {
		want = SVM_EXIT_VMMCALL;
	}
	story_check("exitcode", want, code);
	svm_end();
}
