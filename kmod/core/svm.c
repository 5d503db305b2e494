/* svm.c: AMD-V (APM 2 chapter 15): the control block, the start, and the vendor's answers to core.h. */
#include "kmod/core/svm.h"
#include "x86/descriptors.h"
#include "x86/msr.h"
#include "x86/paging.h"
#include "x86/vectors.h"

#define CPUID_SVM  0x8000000au
#define EDX_NPT    (1u << 0)
#define EDX_NRIPS  (1u << 3)
#define EDX_DECODE (1u << 7)
#define ONES_PAGES 5u /* an I/O map and an MSR map in which everything is intercepted */
#define ONES_MSRPM 0x3000u
#define WORDS      6u

/* ---- is it here? ---- */

const char *svm_missing(void)
{
	uint64_t vm_cr;
	uint32_t r[4];

	hw_cpuid(0x80000000u, 0, r);
	if (r[0] < CPUID_SVM)
		return "no AMD-V: cpuid.80000000.0.eax";
	hw_cpuid(0x80000001u, 0, r);
	if (!(r[2] >> 2 & 1))
		return "no AMD-V: cpuid.80000001.0.ecx[2]=0";
	hw_cpuid(CPUID_SVM, 0, r);
	if (!(r[3] & EDX_NPT))
		return "AMD-V without nested paging: cpuid.8000000a.0.edx[0]=0";
	if (hw_try_read_msr(MSR_VM_CR, &vm_cr) && vm_cr & VM_CR_SVMDIS)
		return "AMD-V is disabled: VM_CR.SVMDIS";
	return NULL;
}

/* ---- intercepts ---- */

bool svm_intercepted(uint8_t *vmcb, unsigned code)
{
	return code < 32 * VMCB_INTERCEPT_WORDS && *vmcb32(vmcb, VMCB_INTERCEPTS(code / 32)) >> code % 32 & 1;
}

void svm_intercept(uint8_t *vmcb, unsigned code, bool on)
{
	uint32_t *word = vmcb32(vmcb, VMCB_INTERCEPTS(code / 32));

	*word = on ? *word | 1u << code % 32 : *word & ~(1u << code % 32);
}

/* Two bits an MSR, 2 KiB a range of 8192 (15.11). @bit: 0 to read, 1 to write. False: it is in no range. */
bool svm_msr_bit(uint32_t index, unsigned *byte, unsigned *bit)
{
	static const uint32_t range[] = {0, 0xc0000000u, 0xc0010000u};

	for (unsigned i = 0; i < 3; i++)
		if (index - range[i] < 0x2000) {
			*byte = 0x800 * i + (index - range[i]) / 4;
			*bit = (index - range[i]) % 4 * 2;
			return true;
		}
	return false;
}

bool svm_msr_intercepted(const uint8_t *map, uint32_t index, bool write)
{
	unsigned byte, bit;

	return !svm_msr_bit(index, &byte, &bit) || map[byte] >> (bit + write) & 1;
}

static void watch(struct core_vcpu *vcpu, uint32_t index, bool read, bool write)
{
	struct svm_vcpu *svm = vcpu->svm;
	unsigned byte, bit;

	if (!svm_msr_bit(index, &byte, &bit))
		return;
	if (!svm->msrpm[byte]) {
		if (svm->watched == SVM_WATCH_MAX)
			hw_stop("too many MSRs are watched", index);
		svm->watch[svm->watched++] = (uint16_t)byte;
	}
	svm->msrpm[byte] |= (uint8_t)((read | write << 1) << bit);
}

void svm_watch_msr(struct core_vcpu *vcpu, uint32_t index) { watch(vcpu, index, false, true); }

void svm_own_intercepts(struct core_vcpu *vcpu)
{
	static const uint8_t codes[] = {SVM_EXIT_CPUID,  SVM_EXIT_MSR,    SVM_EXIT_VMRUN,
					SVM_EXIT_VMLOAD, SVM_EXIT_VMSAVE, SVM_EXIT_STGI,
					SVM_EXIT_CLGI,   SVM_EXIT_SKINIT, SVM_EXIT_INVLPGA};
	struct svm_vcpu *svm = vcpu->svm;

	for (unsigned i = 0; i < VMCB_INTERCEPT_WORDS; i++)
		*vmcb32(svm->own, VMCB_INTERCEPTS(i)) = 0;
	for (unsigned i = 0; i < sizeof(codes); i++)
		svm_intercept(svm->own, codes[i], true);
	/* The processor has SVME set, and so finds a #GP where the guest's would find a #UD. */
	if (!svm->nested.svme)
		svm_intercept(svm->own, SVM_EXIT_EXCEPTION + VECTOR_GP, true);
	svm_intercept(svm->own, SVM_EXIT_EXCEPTION + VECTOR_SX, svm->nested.svme);
	svm_intercept(svm->own, SVM_EXIT_EXCEPTION + VECTOR_DB, !svm->nested.gif);
	svm_intercept(svm->own, SVM_EXIT_NMI, !svm->nested.gif);
	*vmcb64(svm->own, VMCB_MSRPM_BASE) = hw_physical(svm->msrpm);
	*vmcb64(svm->own, VMCB_IOPM_BASE) = hw_physical(vcpu->machine->ones);
}

/* By words: CR, DR, exceptions, then 60h and on; what is no instruction's is left out. */
static const uint32_t instructions[WORDS] = {0xffffffff, 0xffffffff, 0, 0x3fffffe0, 0x7fff, 0x1f};

void svm_arm(struct core_vcpu *vcpu, bool on)
{
	struct svm_vcpu *svm = vcpu->svm;

	svm_own_intercepts(vcpu);
	if (!on)
		return;
	for (unsigned i = 0; i < WORDS; i++)
		*vmcb32(svm->own, VMCB_INTERCEPTS(i)) |= instructions[i];
	*vmcb64(svm->own, VMCB_MSRPM_BASE) = hw_physical(vcpu->machine->ones) + ONES_MSRPM;
}

uint64_t svm_told_controls(const struct core_vcpu *vcpu)
{
	(void)vcpu;
	return 0;
}

void svm_release(struct core_vcpu *vcpu, uint32_t code, uint64_t info1)
{
	(void)info1;
	if (code == SVM_EXIT_MSR)
		*vmcb64(vcpu->svm->own, VMCB_MSRPM_BASE) = hw_physical(vcpu->svm->msrpm);
	else
		svm_intercept(vcpu->svm->own, code, false);
}

/* ---- create ---- */

/* Which bits of EFER may be written, and which stay, is asked of the processor. */
static void probe_efer(struct svm_vcpu *svm)
{
	uint64_t was = hw_read_msr(MSR_EFER), other = EFER_LME | EFER_LMA | EFER_SVME | EFER_LMSLE;
	uint32_t r[4];

	svm->efer_valid = svm->efer_kept = EFER_LME | EFER_LMA;
	for (unsigned bit = 0; bit < 64; bit++) {
		uint64_t mask = 1ull << bit;

		if (mask & other)
			continue;
		if (!hw_try_write_msr(MSR_EFER, was ^ mask))
			continue;
		svm->efer_valid |= mask;
		if ((hw_read_msr(MSR_EFER) ^ was) & mask)
			svm->efer_kept |= mask;
		hw_write_msr(MSR_EFER, was);
	}
	hw_cpuid(0x80000008u, 0, r);
	if (!(r[1] >> 20 & 1)) {
		svm->efer_valid |= EFER_LMSLE;
		svm->efer_kept |= EFER_LMSLE;
	}
}

static bool make_ones(struct core_machine *machine)
{
	if (!machine->ones)
		machine->ones = hw_pages(ONES_PAGES);
	for (unsigned i = 0; machine->ones && i < ONES_PAGES * CORE_PAGE; i++)
		machine->ones[i] = 0xff;
	return machine->ones;
}

static const char *allocate(struct core_vcpu *vcpu)
{
	struct svm_vcpu *svm = hw_pages(1);

	_Static_assert(sizeof(*svm) <= CORE_PAGE, "one page");
	if (!svm)
		return "no memory for a control block";
	svm->own = hw_pages(1);
	svm->host = hw_pages(1);
	svm->msrpm = hw_pages(SVM_MSRPM_SIZE / CORE_PAGE);
	if (!svm->own || !svm->host || !svm->msrpm)
		return "no memory for a control block";
	vcpu->svm = svm;
	return vcpu->machine->nest ? svm_nested_create(vcpu) : NULL;
}

const char *svm_create(struct core_vcpu *vcpu)
{
	const char *why = NULL;
	uint32_t r[4];

	if (!vcpu->svm)
		why = make_ones(vcpu->machine) ? allocate(vcpu) : "no memory for permission maps";
	if (why)
		return why;
	hw_cpuid(CPUID_SVM, 0, r);
	vcpu->svm->nrips = r[3] & EDX_NRIPS;
	vcpu->svm->decode = r[3] & EDX_DECODE;
	hw_cpuid(0x80000008u, 0, r);
	vcpu->svm->physical_bits = r[0] & 0xff;
	hw_write_msr(MSR_EFER, hw_read_msr(MSR_EFER) | EFER_SVME | EFER_NXE);
	hw_write_msr(MSR_VM_HSAVE_PA, hw_physical(vcpu->svm->host));
	hw_svm_clgi();
	probe_efer(vcpu->svm);
	return NULL;
}

/* ---- start ---- */

static void set_segment(uint8_t *vmcb, unsigned offset, uint16_t selector, uint16_t attributes,
			uint32_t limit, uint64_t base)
{
	*vmcb16(vmcb, offset) = selector;
	*vmcb16(vmcb, offset + 2) = attributes;
	*vmcb32(vmcb, offset + 4) = limit;
	*vmcb64(vmcb, offset + 8) = base;
}

/* Attributes as the control block has them: bits 47:40 of a descriptor, then 55:52. */
#define CODE        0x9b
#define DATA        0x93
#define FLAT        0xc00
#define TASK        0x8b
#define LOCAL_TABLE 0x82

static void start_segments(uint8_t *vmcb, const struct core_start *start)
{
	static const uint16_t data[] = {VMCB_ES, VMCB_SS, VMCB_DS, VMCB_FS, VMCB_GS};
	uint32_t limit = start->real ? 0xffff : 0xffffffff;
	uint16_t flat = start->real ? 0 : FLAT;

	for (unsigned i = 0; i < sizeof(data) / sizeof(data[0]); i++)
		set_segment(vmcb, data[i], start->real ? 0 : 0x10, DATA | flat, limit, 0);
	if (start->real)
		set_segment(vmcb, VMCB_CS, (uint16_t)(start->page << 8), CODE, limit,
			    (uint64_t)start->page << 12);
	else
		set_segment(vmcb, VMCB_CS, 8, CODE | FLAT, limit, 0);
	set_segment(vmcb, VMCB_TR, 0, TASK, start->real ? 0xffff : TSS32_SIZE - 1, 0);
	set_segment(vmcb, VMCB_LDTR, 0, LOCAL_TABLE, 0xffff, 0);
	set_segment(vmcb, VMCB_GDTR, 0, 0, 0xffff, 0);
	set_segment(vmcb, VMCB_IDTR, 0, 0, 0xffff, 0);
}

static void start_registers(uint8_t *vmcb, const struct core_start *start)
{
	*(vmcb + VMCB_CPL) = 0;
	*vmcb64(vmcb, VMCB_EFER) = EFER_SVME;
	*vmcb64(vmcb, VMCB_CR0) = start->real ? CR0_CD | CR0_NW | CR0_ET : CR0_PE | CR0_ET;
	*vmcb64(vmcb, VMCB_CR2) = *vmcb64(vmcb, VMCB_CR3) = *vmcb64(vmcb, VMCB_CR4) = 0;
	*vmcb64(vmcb, VMCB_DR6) = DR6_FIXED_1;
	*vmcb64(vmcb, VMCB_DR7) = DR7_FIXED_1;
	*vmcb64(vmcb, VMCB_RFLAGS) = RFLAGS_FIXED;
	*vmcb64(vmcb, VMCB_G_PAT) = hw_read_msr(MSR_PAT);
}

void svm_start(struct core_vcpu *vcpu, const struct core_start *start)
{
	struct svm_vcpu *svm = vcpu->svm;
	uint8_t *vmcb = svm->own;

	for (unsigned i = 0; i < CORE_PAGE; i += 8)
		*vmcb64(vmcb, i) = 0;
	svm->vmcb = vmcb;
	svm_nested_start(vcpu);
	watch(vcpu, MSR_EFER, true, true);
	for (uint32_t index = MSR_VM_CR; index <= MSR_SVM_KEY; index++)
		watch(vcpu, index, true, true);
	watch(vcpu, MSR_TSC_RATIO, true, true);
	watch(vcpu, MSR_SMM_CTL, false, true);
	svm_own_intercepts(vcpu);
	*vmcb32(vmcb, VMCB_ASID) = SVM_ASID;
	*vmcb64(vmcb, VMCB_NESTED) = SVM_NP_ENABLE;
	*vmcb64(vmcb, VMCB_NCR3) = hw_physical(vcpu->tables);
	svm->flush = true;
	hw_svm_save(hw_physical(vmcb)); /* the MSRs are as reset has left them */
	start_segments(vmcb, start);
	start_registers(vmcb, start);
	hw_svm_load(hw_physical(vmcb));
}

/* ---- entry ---- */

/* Whether physical interrupts may come to a guest's guest; a step is of one instruction alone. */
static bool interrupts_open(const struct svm_vcpu *svm, bool step)
{
	return svm->nested.running && svm->nested.gif && svm->nested.host_if && !step;
}

void svm_run(struct core_vcpu *vcpu)
{
	struct svm_vcpu *svm = vcpu->svm;
	uint8_t *vmcb = svm->vmcb;

	*vmcb64(vmcb, VMCB_RAX) = vcpu->gpr[RAX];
	*vmcb64(vmcb, VMCB_RSP) = vcpu->gpr[RSP];
	*vmcb64(vmcb, VMCB_RIP) = vcpu->rip;
	*(vmcb + VMCB_TLB_CONTROL) = svm->flush ? 1 : 0;
	svm->flush = false;
	svm->dr6 = *vmcb64(vmcb, VMCB_DR6);
	hw_svm_run(hw_physical(vmcb), vcpu->gpr, interrupts_open(svm, vcpu->step.on));
	vcpu->gpr[RAX] = *vmcb64(vmcb, VMCB_RAX);
	vcpu->gpr[RSP] = *vmcb64(vmcb, VMCB_RSP);
	vcpu->rip = *vmcb64(vmcb, VMCB_RIP);
	svm_exit(vcpu);
}

/* ---- for the common part ---- */

void svm_raise(struct core_vcpu *vcpu, unsigned vector, uint32_t error)
{
	uint8_t *vmcb = vcpu->svm->vmcb;
	uint64_t event = vector | SVM_EVENT_EXCEPTION << SVM_EVENT_TYPE_SHIFT | SVM_EVENT_VALID;

	/* Real mode pushes no error codes. */
	if (vector_has_error_code(vector) && *vmcb64(vmcb, VMCB_CR0) & CR0_PE)
		event |= SVM_EVENT_ERROR_VALID | (uint64_t)error << 32;
	if (vcpu->svm->nested.running && svm_nested_wants(vcpu, SVM_EXIT_EXCEPTION + vector)) {
		*vmcb64(vmcb, VMCB_NRIP) = 0; /* which is of intercepted instructions (15.7.1) */
		svm_nested_reflect(vcpu, SVM_EXIT_EXCEPTION + vector, event >> 32, 0);
		return;
	}
	*vmcb64(vmcb, VMCB_EVENTINJ) = event;
	/* A fault pushes RF as set (SDM 3B 17.3.1.1); not every processor sees to that when it injects one.
	 */
	if (vector != VECTOR_DB && vector != VECTOR_DF)
		*vmcb64(vmcb, VMCB_RFLAGS) |= RFLAGS_RF;
}

/* Without the processor's own word (15.7.1) the length is that of the prefixes and the opcode. */
static uint64_t behind(struct core_vcpu *vcpu)
{
	uint8_t *vmcb = vcpu->svm->vmcb;
	uint64_t code = *vmcb64(vmcb, VMCB_EXITCODE);
	uint8_t bytes[15];

	if (vcpu->svm->nrips)
		return *vmcb64(vmcb, VMCB_NRIP);
	return vcpu->rip + svm_prefixes(vcpu, bytes, svm_fetch(vcpu, bytes, sizeof(bytes))) +
	       (code == SVM_EXIT_CPUID || code == SVM_EXIT_MSR ? 2 : 3);
}

void svm_skip(struct core_vcpu *vcpu)
{
	uint8_t *vmcb = vcpu->svm->vmcb;

	vcpu->rip = behind(vcpu);
	*vmcb64(vmcb, VMCB_INTERRUPT_SHADOW) &= ~1ull;
	*vmcb64(vmcb, VMCB_RFLAGS) &= ~(uint64_t)RFLAGS_RF;
	if (*vmcb64(vmcb, VMCB_RFLAGS) & RFLAGS_TF) {
		*vmcb64(vmcb, VMCB_DR6) |= DR6_BS;
		svm_raise(vcpu, VECTOR_DB, 0);
	}
}

uint64_t svm_linear_rip(const struct core_vcpu *vcpu)
{
	uint8_t *vmcb = vcpu->svm->vmcb;
	uint64_t linear = *vmcb64(vmcb, VMCB_CS + 8) + vcpu->rip;
	bool wide = *vmcb64(vmcb, VMCB_EFER) & EFER_LMA && *vmcb16(vmcb, VMCB_CS + 2) & SEG_L >> 4;

	return wide ? linear : (uint32_t)linear;
}

uint64_t svm_cr4(const struct core_vcpu *vcpu) { return *vmcb64(vcpu->svm->vmcb, VMCB_CR4); }

void svm_flush(struct core_vcpu *vcpu) { vcpu->svm->flush = true; }

uint64_t svm_table_entry(uint64_t address) { return address | PTE_P | PTE_W | PTE_U | PTE_A; }

/* All accesses are a user's (15.25.5). Nobody asks for A and D, and a hypervisor above that joins these
 * tables with its own need not wait for them. */
uint64_t svm_page_entry(const struct core_vcpu *vcpu, uint64_t address, unsigned access, bool large)
{
	uint64_t entry = address | PTE_U | PTE_A | PTE_D | (large ? PTE_PS : 0);

	(void)vcpu;
	if (!access)
		return 0;
	entry |= PTE_P;
	if (access & CORE_WRITE)
		entry |= PTE_W;
	return access & CORE_EXECUTE ? entry : entry | PTE_NX;
}

/* ---- what the guest may know, and have ---- */

void svm_cpuid(struct core_vcpu *vcpu, uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
	(void)subleaf;
	svm_nested_cpuid(vcpu, leaf, out);
}

static uint64_t guest_efer(const struct core_vcpu *vcpu)
{
	uint64_t efer = *vmcb64(vcpu->svm->vmcb, VMCB_EFER);

	return vcpu->svm->nested.svme ? efer : efer & ~(uint64_t)EFER_SVME;
}

enum core_msr svm_read_msr(struct core_vcpu *vcpu, uint32_t index, uint64_t *value)
{
	if (index != MSR_EFER)
		return svm_nested_read_msr(vcpu, index, value);
	*value = guest_efer(vcpu);
	return MSR_DONE;
}

/* The rules of 3.1.7 and of the processor's reserved bits. SVME stays set for the processor. */
static enum core_msr write_efer(struct core_vcpu *vcpu, uint64_t value)
{
	struct svm_vcpu *svm = vcpu->svm;
	uint64_t *efer = vmcb64(svm->vmcb, VMCB_EFER), changed = value ^ *efer;
	uint64_t valid = svm->efer_valid;

	if (vcpu->machine->nest && !(svm->nested.vm_cr & VM_CR_SVMDIS))
		valid |= EFER_SVME;
	if (value & ~valid || changed & EFER_LMA)
		return MSR_FAULT;
	if (changed & EFER_LME && *vmcb64(svm->vmcb, VMCB_CR0) & CR0_PG)
		return MSR_FAULT;
	*efer = (value & svm->efer_kept) | EFER_SVME;
	svm->flush = true;
	svm_nested_enable(vcpu, value & EFER_SVME);
	return MSR_DONE;
}

enum core_msr svm_write_msr(struct core_vcpu *vcpu, uint32_t index, uint64_t value)
{
	return index == MSR_EFER ? write_efer(vcpu, value) : svm_nested_write_msr(vcpu, index, value);
}
