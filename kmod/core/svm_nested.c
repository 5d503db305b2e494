/*
 * svm_nested.c: a guest that is a hypervisor itself (APM 2 15.5, 15.6, 15.17).
 *
 * Its VMRUN makes a third control block of its own and ours: what either of us wants to intercept is
 * intercepted, and its nested tables are joined with ours (svm_shadow.c). The block in its memory is read at
 * VMRUN and written at #VMEXIT, as a processor's caches permit. Its GIF is svm_gif.c's. What is not nested is
 * not offered: VMRUN finds the virtual GIF, virtual NMIs, LBR virtualization and virtual VMLOAD switched off.
 */
#include "kmod/core/svm.h"
#include "x86/msr.h"
#include "x86/paging.h"
#include "x86/vectors.h"

#define CPUID_FEATURES   0x80000001u
#define ECX_SVM          (1u << 2)
#define ECX_SKINIT       (1u << 12)
#define CPUID_SVM        0x8000000au
#define EDX_OFFERED      (1u << 0 | 1u << 3 | 1u << 6 | 1u << 7 | 1u << 10 | 1u << 12) /* NPT NRIPS … */
#define PDPTE_RESERVED   0x1e6ull
#define VM_CR_DEFINED    0x1full
#define INTERRUPT_NESTED (~(SVM_V_GIF | SVM_V_GIF_ENABLE | SVM_V_NMI | SVM_V_NMI_MASK | SVM_V_NMI_ENABLE))
#define INTERRUPT_SAVED  0xffffull

static struct svm_nested *nested_of(struct core_vcpu *vcpu) { return &vcpu->svm->nested; }

/* The control block that the guest runs, in its memory. */
static uint8_t *theirs(struct core_vcpu *vcpu) { return hw_map(nested_of(vcpu)->vmcb); }

const char *svm_nested_create(struct core_vcpu *vcpu)
{
	struct svm_nested *nested = nested_of(vcpu);

	nested->merged = hw_pages(1);
	nested->msrpm = hw_pages(SVM_MSRPM_SIZE / CORE_PAGE);
	return nested->merged && nested->msrpm ? NULL : "no memory for a nested control block";
}

void svm_nested_start(struct core_vcpu *vcpu)
{
	struct svm_nested *nested = nested_of(vcpu);

	nested->svme = nested->running = nested->nmi = nested->smi = nested->init = false;
	nested->gif = true;
	nested->hsave = nested->vm_cr = 0;
	nested->asid = 0;
	svm_shadow_drop(vcpu);
}

/* ---- what the guest is told, and its MSRs ---- */

void svm_nested_cpuid(struct core_vcpu *vcpu, uint32_t leaf, uint32_t out[4])
{
	bool nest = vcpu->machine->nest;

	if (leaf == CPUID_FEATURES)
		out[2] &= ~(ECX_SKINIT | (nest ? 0 : ECX_SVM));
	if (leaf != CPUID_SVM)
		return;
	out[3] &= EDX_OFFERED;
	if (!nest)
		out[0] = out[1] = out[2] = out[3] = 0;
}

void svm_nested_enable(struct core_vcpu *vcpu, bool on)
{
	struct svm_nested *nested = nested_of(vcpu);

	if (nested->running || nested->svme == on)
		return;
	nested->svme = on;
	svm_gif_redirect(on);
	svm_own_intercepts(vcpu);
}

enum core_msr svm_nested_read_msr(struct core_vcpu *vcpu, uint32_t index, uint64_t *value)
{
	bool mine = index == MSR_VM_CR || index == MSR_VM_HSAVE_PA || index == MSR_SVM_KEY;

	if (index == MSR_TSC_RATIO || (mine && !vcpu->machine->nest))
		return MSR_FAULT;
	if (index == MSR_VM_CR)
		*value = nested_of(vcpu)->vm_cr;
	else if (index == MSR_VM_HSAVE_PA)
		*value = nested_of(vcpu)->hsave;
	else
		return MSR_NOT_MINE;
	return MSR_DONE;
}

/* LOCK keeps itself and SVMDIS (15.31); SVMDIS is refused while EFER.SVME is set. */
static enum core_msr write_vm_cr(struct svm_nested *nested, uint64_t value)
{
	uint64_t kept = nested->vm_cr & VM_CR_LOCK ? VM_CR_LOCK | VM_CR_SVMDIS : 0;

	if (value & ~VM_CR_DEFINED || (value & VM_CR_SVMDIS && nested->svme))
		return MSR_FAULT;
	nested->vm_cr = (value & ~kept) | (nested->vm_cr & kept);
	return MSR_DONE;
}

enum core_msr svm_nested_write_msr(struct core_vcpu *vcpu, uint32_t index, uint64_t value)
{
	uint64_t unused;
	enum core_msr how = svm_nested_read_msr(vcpu, index, &unused);

	if (index == MSR_SMM_CTL)
		return svm_gif_smm_ctl(vcpu, value) ? MSR_DONE : MSR_FAULT;
	if (how != MSR_DONE)
		return how;
	if (index == MSR_VM_CR)
		return write_vm_cr(nested_of(vcpu), value);
	if (value & PAGE_MASK || value >> vcpu->svm->physical_bits ||
	    !tables_guests(vcpu->machine, value, CORE_PAGE))
		return MSR_FAULT;
	nested_of(vcpu)->hsave = value;
	return MSR_DONE;
}

/* ---- the state-save area ---- */

/* What VMRUN loads and #VMEXIT saves, in quadwords: segments, tables; then registers. */
static void copy_state(uint8_t *to, uint8_t *from)
{
	static const uint16_t fields[] = {VMCB_EFER, VMCB_CR4, VMCB_CR3,    VMCB_CR0, VMCB_DR7, VMCB_DR6,
					  VMCB_RIP,  VMCB_RSP, VMCB_RFLAGS, VMCB_RAX, VMCB_CR2};
	static const uint16_t segments[] = {VMCB_ES, VMCB_CS, VMCB_SS, VMCB_DS, VMCB_GDTR, VMCB_IDTR};

	for (unsigned i = 0; i < sizeof(segments) / sizeof(segments[0]); i++) {
		*vmcb64(to, segments[i]) = *vmcb64(from, segments[i]);
		*vmcb64(to, segments[i] + 8) = *vmcb64(from, segments[i] + 8);
	}
	for (unsigned i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
		*vmcb64(to, fields[i]) = *vmcb64(from, fields[i]);
	to[VMCB_CPL] = from[VMCB_CPL];
}

/* RAX, RSP and RIP are in the vCPU while a block is the one that runs. */
static void leave_block(struct core_vcpu *vcpu)
{
	uint8_t *vmcb = vcpu->svm->vmcb;

	*vmcb64(vmcb, VMCB_RAX) = vcpu->gpr[RAX];
	*vmcb64(vmcb, VMCB_RSP) = vcpu->gpr[RSP];
	*vmcb64(vmcb, VMCB_RIP) = vcpu->rip;
}

static void enter_block(struct core_vcpu *vcpu, uint8_t *vmcb)
{
	vcpu->svm->vmcb = vmcb;
	vcpu->gpr[RAX] = *vmcb64(vmcb, VMCB_RAX);
	vcpu->gpr[RSP] = *vmcb64(vmcb, VMCB_RSP);
	vcpu->rip = *vmcb64(vmcb, VMCB_RIP);
}

/* Whether PAE paging, where @vmcb has it, finds legal PDPTEs (15.5.1, 15.6). */
static bool pdptes_valid(struct core_vcpu *vcpu, uint8_t *vmcb)
{
	uint64_t cr3 = *vmcb64(vmcb, VMCB_CR3) & 0xffffffe0u, reserved = PDPTE_RESERVED;
	const uint64_t *pdpte;

	if (*vmcb64(vmcb, VMCB_EFER) & EFER_LME || !(*vmcb64(vmcb, VMCB_CR0) & CR0_PG) ||
	    !(*vmcb64(vmcb, VMCB_CR4) & CR4_PAE) || !tables_reached(vcpu->machine, cr3, 32))
		return true;
	reserved |= ~((1ull << vcpu->svm->physical_bits) - 1);
	pdpte = (const uint64_t *)(const void *)((const uint8_t *)hw_map(cr3 & ~PAGE_MASK) +
						 (cr3 & PAGE_MASK));
	for (unsigned i = 0; i < 4; i++)
		if (pdpte[i] & PTE_P && pdpte[i] & reserved)
			return false;
	return true;
}

/* ---- #VMEXIT ---- */

/* The rest of what #VMEXIT does to the host (15.6); its state has stayed in @own since VMRUN. */
static void enter_host(struct core_vcpu *vcpu, uint64_t cr2)
{
	uint8_t *own = vcpu->svm->own;

	nested_of(vcpu)->running = false;
	*vmcb64(own, VMCB_CR2) = cr2;
	*vmcb64(own, VMCB_DR7) = DR7_FIXED_1;
	*vmcb64(own, VMCB_INTERRUPT_SHADOW) = 0;
	*vmcb64(own, VMCB_RFLAGS) &= ~(uint64_t)RFLAGS_VM;
	enter_block(vcpu, own);
	svm_gif_set(vcpu, false);
	if (!pdptes_valid(vcpu, own))
		hw_shutdown();
}

static void reflect_invalid(struct core_vcpu *vcpu)
{
	uint8_t *to = theirs(vcpu);

	*vmcb64(to, VMCB_EXITCODE) = (uint64_t)(int64_t)SVM_EXIT_INVALID;
	*vmcb64(to, VMCB_EXITINFO1) = *vmcb64(to, VMCB_EXITINFO2) = *vmcb64(to, VMCB_EXITINTINFO) = 0;
	*vmcb64(to, VMCB_EVENTINJ) &= ~SVM_EVENT_VALID;
	enter_host(vcpu, *vmcb64(vcpu->svm->own, VMCB_CR2));
}

/* What exits of our own making tell of no instruction: no next RIP and no bytes (15.7.1, 15.8.4). */
static void save_controls(struct core_vcpu *vcpu, uint8_t *to, uint8_t *from)
{
	bool own = *vmcb64(to, VMCB_EXITCODE) != *vmcb64(from, VMCB_EXITCODE);

	*vmcb64(to, VMCB_EXITINTINFO) = *vmcb64(from, VMCB_EXITINTINFO);
	*vmcb64(to, VMCB_EVENTINJ) &= ~SVM_EVENT_VALID;
	*vmcb64(to, VMCB_INTERRUPT_SHADOW) = *vmcb64(from, VMCB_INTERRUPT_SHADOW);
	*vmcb64(to, VMCB_INTERRUPT) = (*vmcb64(to, VMCB_INTERRUPT) & ~INTERRUPT_SAVED) |
				      (*vmcb64(from, VMCB_INTERRUPT) & INTERRUPT_SAVED);
	if (vcpu->svm->nrips)
		*vmcb64(to, VMCB_NRIP) = own ? 0 : *vmcb64(from, VMCB_NRIP);
	if (!vcpu->svm->decode)
		return;
	*vmcb64(to, VMCB_FETCHED) = own ? 0 : *vmcb64(from, VMCB_FETCHED);
	*vmcb64(to, VMCB_FETCHED + 8) = *vmcb64(from, VMCB_FETCHED + 8);
}

void svm_nested_reflect(struct core_vcpu *vcpu, uint64_t code, uint64_t info1, uint64_t info2)
{
	uint8_t *to = theirs(vcpu), *from = nested_of(vcpu)->merged;

	svm_gif_release(vcpu);
	leave_block(vcpu);
	copy_state(to, from);
	if (nested_of(vcpu)->npt)
		*vmcb64(to, VMCB_G_PAT) = *vmcb64(from, VMCB_G_PAT);
	else
		*vmcb64(vcpu->svm->own, VMCB_G_PAT) = *vmcb64(from, VMCB_G_PAT);
	*vmcb64(to, VMCB_EXITCODE) = code;
	*vmcb64(to, VMCB_EXITINFO1) = info1;
	*vmcb64(to, VMCB_EXITINFO2) = info2;
	save_controls(vcpu, to, from);
	enter_host(vcpu, *vmcb64(from, VMCB_CR2));
}

/* ---- VMRUN ---- */

/* Nested paging is that of the host, which must have it on (15.25.3). */
static bool paged(const struct core_vcpu *vcpu) { return *vmcb64(vcpu->svm->own, VMCB_CR0) & CR0_PG; }

/* What the processor cannot check of the merged block (15.5.1); the rest it does. */
static bool controls_valid(struct core_vcpu *vcpu, uint8_t *vmcb)
{
	const struct core_machine *machine = vcpu->machine;
	uint64_t iopm = *vmcb64(vmcb, VMCB_IOPM_BASE) & ~PAGE_MASK;
	uint64_t msrpm = *vmcb64(vmcb, VMCB_MSRPM_BASE) & ~PAGE_MASK, ncr3 = *vmcb64(vmcb, VMCB_NCR3);
	bool npt = *vmcb64(vmcb, VMCB_NESTED) & SVM_NP_ENABLE;

	return svm_intercepted(vmcb, SVM_EXIT_VMRUN) && *vmcb32(vmcb, VMCB_ASID) &&
	       (!npt || !(ncr3 >> vcpu->svm->physical_bits)) && tables_guests(machine, iopm, SVM_IOPM_SIZE) &&
	       tables_guests(machine, msrpm, SVM_MSRPM_SIZE) &&
	       !((msrpm + SVM_MSRPM_SIZE - 1) >> vcpu->svm->physical_bits) &&
	       (npt || pdptes_valid(vcpu, vmcb)) && (!npt || paged(vcpu));
}

/* A map beyond what we can read is one of ones, as memory that is not there reads. */
static const void *their_map(struct core_vcpu *vcpu, uint64_t page)
{
	return tables_reached(vcpu->machine, page, CORE_PAGE) ? hw_map(page) : vcpu->machine->ones;
}

/* Both permission maps in one: theirs, and the few bits of ours. */
static void merge_msrpm(struct core_vcpu *vcpu, uint8_t *vmcb)
{
	struct svm_vcpu *svm = vcpu->svm;
	uint8_t *to = svm->nested.msrpm;
	uint64_t base = *vmcb64(vmcb, VMCB_MSRPM_BASE) & ~PAGE_MASK;

	for (unsigned page = 0; page < SVM_MSRPM_SIZE; page += CORE_PAGE)
		hw_copy_page(to + page, their_map(vcpu, base + page));
	for (unsigned i = 0; i < svm->watched; i++)
		to[svm->watch[i]] |= svm->msrpm[svm->watch[i]];
}

static void merge_intercepts(struct core_vcpu *vcpu, uint8_t *vmcb)
{
	uint8_t *to = nested_of(vcpu)->merged, *own = vcpu->svm->own;

	for (unsigned i = 0; i < VMCB_INTERCEPT_WORDS; i++)
		*vmcb32(to, VMCB_INTERCEPTS(i)) =
			*vmcb32(own, VMCB_INTERCEPTS(i)) | *vmcb32(vmcb, VMCB_INTERCEPTS(i));
	*vmcb64(to, VMCB_IOPM_BASE) = *vmcb64(vmcb, VMCB_IOPM_BASE);
	*vmcb64(to, VMCB_MSRPM_BASE) = hw_physical(vcpu->svm->msrpm);
	if (!svm_intercepted(vmcb, SVM_EXIT_MSR))
		return;
	merge_msrpm(vcpu, vmcb);
	*vmcb64(to, VMCB_MSRPM_BASE) = hw_physical(nested_of(vcpu)->msrpm);
}

/* Translations of the guest's guest: which tables, and whether what is known of them still holds. */
static void merge_paging(struct core_vcpu *vcpu, uint8_t *vmcb)
{
	struct svm_nested *nested = nested_of(vcpu);
	uint8_t *to = nested->merged;
	bool npt = *vmcb64(vmcb, VMCB_NESTED) & SVM_NP_ENABLE;
	uint64_t ncr3 = *vmcb64(vmcb, VMCB_NCR3);
	uint32_t asid = *vmcb32(vmcb, VMCB_ASID);
	uint8_t *own = vcpu->svm->own;
	/* What its tables mean follows from its own paging mode. */
	uint64_t mode = (*vmcb64(own, VMCB_EFER) & (EFER_NXE | EFER_LMA)) |
			(*vmcb64(own, VMCB_CR4) & (CR4_LA57 | CR4_PAE | CR4_PSE));

	if (vmcb[VMCB_TLB_CONTROL] || mode != nested->mode || asid != nested->asid || npt != nested->npt ||
	    ncr3 != nested->ncr3) {
		svm_shadow_drop(vcpu);
		vcpu->svm->flush = true;
	}
	nested->mode = mode;
	nested->npt = npt;
	nested->ncr3 = ncr3;
	nested->asid = asid;
	*vmcb64(to, VMCB_NESTED) = SVM_NP_ENABLE;
	*vmcb64(to, VMCB_NCR3) = hw_physical(npt ? svm_shadow_root(vcpu) : vcpu->tables);
	*vmcb64(to, VMCB_G_PAT) = npt ? *vmcb64(vmcb, VMCB_G_PAT) : *vmcb64(vcpu->svm->own, VMCB_G_PAT);
}

static void merge(struct core_vcpu *vcpu, uint8_t *vmcb)
{
	uint8_t *to = nested_of(vcpu)->merged;

	merge_intercepts(vcpu, vmcb);
	merge_paging(vcpu, vmcb);
	*vmcb32(to, VMCB_PAUSE_THRESHOLD) = *vmcb32(vmcb, VMCB_PAUSE_THRESHOLD); /* the count too */
	*vmcb64(to, VMCB_TSC_OFFSET) = *vmcb64(vmcb, VMCB_TSC_OFFSET);
	*vmcb32(to, VMCB_ASID) = SVM_ASID_NESTED;
	*vmcb64(to, VMCB_INTERRUPT) = *vmcb64(vmcb, VMCB_INTERRUPT) & INTERRUPT_NESTED;
	*vmcb64(to, VMCB_INTERRUPT_SHADOW) = *vmcb64(vmcb, VMCB_INTERRUPT_SHADOW);
	*vmcb64(to, VMCB_EVENTINJ) = *vmcb64(vmcb, VMCB_EVENTINJ);
	*vmcb64(to, VMCB_NRIP) = *vmcb64(vmcb, VMCB_NRIP);
	copy_state(to, vmcb);
}

static void vmrun(struct core_vcpu *vcpu, uint64_t address)
{
	struct svm_nested *nested = nested_of(vcpu);
	uint8_t *vmcb = hw_map(address);

	svm_skip(vcpu);
	nested->vmcb = address;
	nested->host_if = *vmcb64(vcpu->svm->own, VMCB_RFLAGS) & RFLAGS_IF;
	leave_block(vcpu);
	if (!controls_valid(vcpu, vmcb)) {
		reflect_invalid(vcpu);
		return;
	}
	svm_gif_set(vcpu, true);
	merge(vcpu, vmcb);
	nested->running = true;
	enter_block(vcpu, nested->merged);
	svm_gif_opened(vcpu);
}

/* ---- its instructions ---- */

/* A control block's address; false: #GP. */
static bool operand(struct core_vcpu *vcpu, uint64_t *address)
{
	uint8_t *vmcb = vcpu->svm->vmcb;
	bool wide = *vmcb64(vmcb, VMCB_EFER) & EFER_LMA && *vmcb16(vmcb, VMCB_CS + 2) >> 9 & 1;

	*address = wide ? vcpu->gpr[RAX] : (uint32_t)vcpu->gpr[RAX];
	return !(*address & PAGE_MASK) && tables_reached(vcpu->machine, *address, CORE_PAGE);
}

static void with_operand(struct core_vcpu *vcpu, unsigned code)
{
	uint64_t address;

	if (!operand(vcpu, &address)) {
		svm_raise(vcpu, VECTOR_GP, 0);
		return;
	}
	if (code == SVM_EXIT_VMRUN) {
		vmrun(vcpu, address);
		return;
	}
	if (code == SVM_EXIT_VMLOAD)
		hw_svm_load(address);
	else
		hw_svm_save(address);
	svm_skip(vcpu);
}

void svm_nested_instruction(struct core_vcpu *vcpu, unsigned code)
{
	if (!nested_of(vcpu)->svme || code == SVM_EXIT_SKINIT || code == SVM_EXIT_VMMCALL) {
		svm_raise(vcpu, VECTOR_UD, 0);
		return;
	}
	switch (code) {
	case SVM_EXIT_STGI:
	case SVM_EXIT_CLGI:
		svm_gif_set(vcpu, code == SVM_EXIT_STGI);
		svm_skip(vcpu);
		if (code == SVM_EXIT_STGI)
			svm_gif_opened(vcpu);
		break;
	case SVM_EXIT_INVLPGA:
		vcpu->svm->flush = true;
		svm_skip(vcpu);
		break;
	default: with_operand(vcpu, code);
	}
}

/* ---- exits of its guest ---- */

static bool their_msr_intercepted(struct core_vcpu *vcpu, uint32_t index, bool write)
{
	uint64_t map = *vmcb64(theirs(vcpu), VMCB_MSRPM_BASE) & ~PAGE_MASK, at;
	unsigned byte, bit;

	if (!svm_msr_bit(index, &byte, &bit))
		return true;
	at = map + byte;
	return ((const uint8_t *)their_map(vcpu, at & ~PAGE_MASK))[at & PAGE_MASK] >> (bit + write) & 1;
}

/* Whether the guest has asked for this exit of its own guest. */
static bool wanted(struct core_vcpu *vcpu, uint64_t code, uint64_t info1)
{
	uint8_t *vmcb = theirs(vcpu);

	if ((int32_t)code == SVM_EXIT_INVALID)
		return true;
	if (code != SVM_EXIT_MSR)
		return svm_intercepted(vmcb, (unsigned)code);
	if (!svm_intercepted(vmcb, SVM_EXIT_MSR))
		return false;
	return their_msr_intercepted(vcpu, (uint32_t)vcpu->gpr[RCX], info1 & 1);
}

static void nested_fault(struct core_vcpu *vcpu, uint64_t info1, uint64_t address)
{
	unsigned access = CORE_READ | (info1 & PF_W ? CORE_WRITE : 0u) | (info1 & PF_I ? CORE_EXECUTE : 0u);
	uint64_t error;

	if (svm_shadow_fill(vcpu, address, access, &error))
		svm_redeliver(vcpu);
	else
		svm_nested_reflect(vcpu, SVM_EXIT_NPF, error | (info1 & (SVM_NPF_FINAL | SVM_NPF_TABLE)),
				   address);
}

bool svm_nested_wants(struct core_vcpu *vcpu, unsigned code) { return svm_intercepted(theirs(vcpu), code); }

bool svm_nested_exit(struct core_vcpu *vcpu)
{
	uint8_t *vmcb = vcpu->svm->vmcb;
	uint64_t code = *vmcb64(vmcb, VMCB_EXITCODE), info1 = *vmcb64(vmcb, VMCB_EXITINFO1);

	if (code == SVM_EXIT_NPF && nested_of(vcpu)->npt) {
		nested_fault(vcpu, info1, *vmcb64(vmcb, VMCB_EXITINFO2));
		return true;
	}
	if (code == SVM_EXIT_EXCEPTION + VECTOR_SX && svm_gif_sx(vcpu))
		return true;
	if (code == SVM_EXIT_NMI && !nested_of(vcpu)->gif) /* it waits */
		return false;
	if (code == SVM_EXIT_NPF || !wanted(vcpu, code, info1))
		return false;
	svm_nested_reflect(vcpu, code, info1, *vmcb64(vmcb, VMCB_EXITINFO2));
	return true;
}
