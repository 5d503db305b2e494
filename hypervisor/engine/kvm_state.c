/* Between struct vcpu_state and what the KVM ABI calls the state of a vCPU. */
#include "engine/kvm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "x86/descriptors.h"
#include "x86/msr.h"

/* ---- MSRs ---- */

struct msr_field {
	uint32_t index;
	size_t offset;
	int vendor; /* 'A', 'I', or 0: both */
};
#define MSR(index, field, vendor)                                                                            \
	{                                                                                                    \
		index, offsetof(struct vcpu_state, field), vendor                                            \
	}
#define MSR_FOUR(index, field, vendor)                                                                       \
	MSR(index(0), field[0], vendor), MSR(index(1), field[1], vendor), MSR(index(2), field[2], vendor),   \
		MSR(index(3), field[3], vendor)
#define MSR_MTRR(n)                                                                                          \
	MSR(MSR_MTRR_PHYSBASE(n), mtrr_variable[2 * (n)], 0),                                                \
		MSR(MSR_MTRR_PHYSMASK(n), mtrr_variable[2 * (n) + 1], 0)

/* HWCR stands before what it opens or locks, and the TSC before what counts with it. */
static const struct msr_field msr_fields[] = {
	MSR(MSR_TSC, tsc, 0),
	MSR(MSR_TSC_ADJUST, tsc_adjust, 0),
	MSR(MSR_HWCR, hwcr, 'A'),
	MSR(MSR_STAR, star, 0),
	MSR(MSR_LSTAR, lstar, 0),
	MSR(MSR_CSTAR, cstar, 0),
	MSR(MSR_FMASK, fmask, 0),
	MSR(MSR_KERNEL_GS_BASE, kernel_gs_base, 0),
	MSR(MSR_SYSENTER_CS, sysenter_cs, 0),
	MSR(MSR_SYSENTER_ESP, sysenter_esp, 0),
	MSR(MSR_SYSENTER_EIP, sysenter_eip, 0),
	MSR(MSR_TSC_DEADLINE, tsc_deadline, 0),
	MSR(MSR_TSC_AUX, tsc_aux, 0),
	MSR(MSR_PAT, pat, 0),
	MSR(MSR_MISC_ENABLE, misc_enable, 'I'),
	MSR(MSR_DEBUGCTL, debugctl, 0),
	MSR(MSR_FEATURE_CONTROL, feature_control, 'I'),
	MSR(MSR_SPEC_CTRL, spec_ctrl, 0),
	MSR(MSR_XSS, xss, 0),
	MSR(MSR_MPERF, mperf, 0),
	MSR(MSR_APERF, aperf, 0),
	MSR_FOUR(MSR_PERFEVTSEL, perf_select, 'I'),
	MSR_FOUR(MSR_PMC, perf_counter, 'I'),
	MSR_FOUR(MSR_AMD_PERFEVTSEL, perf_select, 'A'),
	MSR_FOUR(MSR_AMD_PERFCTR, perf_counter, 'A'),
	MSR(MSR_UMWAIT_CONTROL, umwait_control, 'I'),
	MSR(MSR_MCG_STATUS, mcg_status, 0),
	MSR(MSR_MCG_CTL, mcg_ctl, 0),
	MSR_FOUR(MSR_MC_CTL, mc_ctl, 0),
	MSR(MSR_MC_CTL(4), mc_ctl[4], 0),
	MSR(MSR_MC_CTL(5), mc_ctl[5], 0),
	MSR(MSR_MC_CTL(6), mc_ctl[6], 0),
	MSR(MSR_MC_CTL(7), mc_ctl[7], 0),
	MSR(MSR_MTRR_DEF_TYPE, mtrr_def_type, 0),
	MSR(MSR_MTRR_FIX64K_00000, mtrr_fixed[0], 0),
	MSR(MSR_MTRR_FIX16K_80000, mtrr_fixed[1], 0),
	MSR(MSR_MTRR_FIX16K_A0000, mtrr_fixed[2], 0),
	MSR(MSR_MTRR_FIX4K(0), mtrr_fixed[3], 0),
	MSR(MSR_MTRR_FIX4K(1), mtrr_fixed[4], 0),
	MSR(MSR_MTRR_FIX4K(2), mtrr_fixed[5], 0),
	MSR(MSR_MTRR_FIX4K(3), mtrr_fixed[6], 0),
	MSR(MSR_MTRR_FIX4K(4), mtrr_fixed[7], 0),
	MSR(MSR_MTRR_FIX4K(5), mtrr_fixed[8], 0),
	MSR(MSR_MTRR_FIX4K(6), mtrr_fixed[9], 0),
	MSR(MSR_MTRR_FIX4K(7), mtrr_fixed[10], 0),
	MSR_MTRR(0),
	MSR_MTRR(1),
	MSR_MTRR(2),
	MSR_MTRR(3),
	MSR_MTRR(4),
	MSR_MTRR(5),
	MSR_MTRR(6),
	MSR_MTRR(7),
	MSR(MSR_VM_CR, vm_cr, 'A'),
	MSR(MSR_VM_HSAVE_PA, vm_hsave_pa, 'A'),
	MSR(MSR_SYSCFG, syscfg, 'A'),
	MSR_FOUR(MSR_IORR, iorr, 'A'),
	MSR(MSR_TOP_MEM, top_mem, 'A'),
	MSR(MSR_TOP_MEM2, top_mem2, 'A'),
	MSR(MSR_MISC_FEATURES_ENABLES, misc_features_enables, 0),
};
#define MSR_FIELDS (sizeof(msr_fields) / sizeof(msr_fields[0]))

static struct kvm_msrs *msrs_new(size_t room)
{
	return calloc(1, sizeof(struct kvm_msrs) + room * sizeof(struct kvm_msr_entry));
}

/* Whether the device gives the MSR out and takes the same value back. */
static bool takes_msr(const struct kvm_vcpu *vcpu, uint32_t index)
{
	struct kvm_msrs *one = vcpu->msrs;

	one->nmsrs = 1;
	one->entries[0] = (struct kvm_msr_entry){.index = index};
	return ioctl(vcpu->fd, KVM_GET_MSRS, one) == 1 && ioctl(vcpu->fd, KVM_SET_MSRS, one) == 1;
}

static bool has_field(uint32_t index)
{
	for (size_t i = 0; i < MSR_FIELDS; i++)
		if (msr_fields[i].index == index)
			return true;
	/* The paravirtual clocks, in each of their places, are nothing that hardware has. */
	return index == 0x11 || index == 0x12 || index >> 8 == 0x4b564d || index >> 8 == 0x400000;
}

static void find_fields(struct kvm_vcpu *vcpu)
{
	int other = kvm_engine_of(vcpu)->amd ? 'I' : 'A';

	for (uint16_t i = 0; i < MSR_FIELDS; i++)
		if (msr_fields[i].vendor != other && takes_msr(vcpu, msr_fields[i].index))
			vcpu->field[vcpu->field_count++] = i;
}

static int find_remainder(struct kvm_vcpu *vcpu)
{
	struct kvm_msr_list *list = calloc(1, sizeof(*list) + KVM_MSRS_MAX * sizeof(list->indices[0]));
	struct kvm_msrs *remainder = vcpu->remainder.msrs;

	if (!list)
		return -ENOMEM;
	list->nmsrs = KVM_MSRS_MAX;
	if (ioctl(kvm_engine_of(vcpu)->device, KVM_GET_MSR_INDEX_LIST, list))
		list->nmsrs = 0;
	for (unsigned i = 0; i < list->nmsrs; i++)
		if (!has_field(list->indices[i]) && takes_msr(vcpu, list->indices[i]))
			remainder->entries[remainder->nmsrs++].index = list->indices[i];
	vcpu->remainder_count = remainder->nmsrs;
	free(list);
	return 0;
}

/* Reads @count MSRs whose indices are in @msrs. */
static void get_msrs(const struct kvm_vcpu *vcpu, struct kvm_msrs *msrs, unsigned count)
{
	msrs->nmsrs = count;
	ioctl(vcpu->fd, KVM_GET_MSRS, msrs);
}

static void save_msrs(struct kvm_vcpu *vcpu, struct vcpu_state *to)
{
	for (unsigned i = 0; i < vcpu->field_count; i++)
		vcpu->msrs->entries[i] = (struct kvm_msr_entry){.index = msr_fields[vcpu->field[i]].index};
	get_msrs(vcpu, vcpu->msrs, vcpu->field_count);
	for (unsigned i = 0; i < vcpu->field_count; i++)
		memcpy((char *)to + msr_fields[vcpu->field[i]].offset, &vcpu->msrs->entries[i].data,
		       sizeof(uint64_t));
	if (vcpu->remainder_count)
		get_msrs(vcpu, vcpu->remainder.msrs, vcpu->remainder_count);
}

static uint64_t wanted_msr(const struct kvm_vcpu *vcpu, const struct vcpu_state *from, unsigned i)
{
	uint64_t value;

	if (i >= vcpu->field_count)
		return vcpu->remainder.msrs->entries[i - vcpu->field_count].data;
	memcpy(&value, (const char *)from + msr_fields[vcpu->field[i]].offset, sizeof(value));
	return value;
}

/* Writes those that differ, so that a case pays for what it touched. */
static int load_msrs(struct kvm_vcpu *vcpu, const struct vcpu_state *from)
{
	unsigned all = vcpu->field_count + vcpu->remainder_count, changed = 0;
	struct kvm_msr_entry *entry = vcpu->msrs->entries;

	for (unsigned i = 0; i < all; i++)
		entry[i] = (struct kvm_msr_entry){
			.index = i < vcpu->field_count
					 ? msr_fields[vcpu->field[i]].index
					 : vcpu->remainder.msrs->entries[i - vcpu->field_count].index};
	get_msrs(vcpu, vcpu->msrs, all);
	for (unsigned i = 0; i < all; i++) {
		uint64_t wanted = wanted_msr(vcpu, from, i);

		if (entry[i].data != wanted)
			entry[changed++] = (struct kvm_msr_entry){.index = entry[i].index, .data = wanted};
	}
	vcpu->msrs->nmsrs = changed;
	if (changed && ioctl(vcpu->fd, KVM_SET_MSRS, vcpu->msrs) != (int)changed)
		return -EINVAL;
	return 0;
}

/* A value that the device has no MSR for must be the one that save_msrs() gives: none. */
static bool holds_msrs(const struct kvm_vcpu *vcpu, const struct vcpu_state *from)
{
	for (unsigned i = 0; i < MSR_FIELDS; i++) {
		uint64_t value;
		bool held = false;

		memcpy(&value, (const char *)from + msr_fields[i].offset, sizeof(value));
		for (unsigned k = 0; k < vcpu->field_count && value && !held; k++)
			held = msr_fields[vcpu->field[k]].offset == msr_fields[i].offset;
		if (value && !held)
			return false;
	}
	return true;
}

/* ---- segments and control registers ---- */

static struct segment segment_from(const struct kvm_segment *from)
{
	return (struct segment){.base = from->base,
				.limit = from->limit,
				.selector = from->selector,
				.attributes = from->type | (from->s ? SEG_S : 0) |
					      (uint32_t)from->dpl << SEG_DPL_SHIFT |
					      (from->present ? SEG_P : 0) | (from->avl ? SEG_AVL : 0) |
					      (from->l ? SEG_L : 0) | (from->db ? SEG_DB : 0) |
					      (from->g ? SEG_G : 0) | (from->unusable ? SEG_UNUSABLE : 0)};
}

static struct kvm_segment segment_to(const struct segment *from)
{
	uint32_t a = from->attributes;

	return (struct kvm_segment){.base = from->base,
				    .limit = from->limit,
				    .selector = from->selector,
				    .type = a & SEG_TYPE,
				    .s = (a & SEG_S) != 0,
				    .dpl = (uint8_t)((a & SEG_DPL) >> SEG_DPL_SHIFT),
				    .present = (a & SEG_P) != 0,
				    .avl = (a & SEG_AVL) != 0,
				    .l = (a & SEG_L) != 0,
				    .db = (a & SEG_DB) != 0,
				    .g = (a & SEG_G) != 0,
				    .unusable = (a & SEG_UNUSABLE) != 0};
}

static bool uses_pdptes(const struct vcpu_state *state)
{
	return state->cr0 & CR0_PG && state->cr4 & CR4_PAE && !(state->efer & EFER_LMA);
}

/* The two structures of the ABI begin alike. */
#define SEGMENTS(f)                                                                                          \
	f(es, segment[ES]) f(cs, segment[CS]) f(ss, segment[SS]) f(ds, segment[DS]) f(fs, segment[FS])       \
		f(gs, segment[GS]) f(ldt, ldtr) f(tr, tr)
#define CONTROLS(f) f(cr0) f(cr2) f(cr3) f(cr4) f(cr8) f(efer) f(apic_base)

#define SAVE_SEGMENT(theirs, ours) to->ours = segment_from(&s.theirs);
#define SAVE_CONTROL(name)         to->name = s.name;
#define SAVE_SREGS                                                                                           \
	SEGMENTS(SAVE_SEGMENT)                                                                               \
	CONTROLS(SAVE_CONTROL)                                                                               \
	to->gdtr = (struct table_register){.base = s.gdt.base, .limit = s.gdt.limit};                        \
	to->idtr = (struct table_register){.base = s.idt.base, .limit = s.idt.limit};

#define LOAD_SEGMENT(theirs, ours) s.theirs = segment_to(&from->ours);
#define LOAD_CONTROL(name)         s.name = from->name;
#define LOAD_SREGS                                                                                           \
	SEGMENTS(LOAD_SEGMENT)                                                                               \
	CONTROLS(LOAD_CONTROL)                                                                               \
	s.gdt = (struct kvm_dtable){.base = from->gdtr.base, .limit = from->gdtr.limit};                     \
	s.idt = (struct kvm_dtable){.base = from->idtr.base, .limit = from->idtr.limit};

static void save_sregs(const struct kvm_vcpu *vcpu, struct vcpu_state *to)
{
	if (kvm_engine_of(vcpu)->can.sregs2) {
		struct kvm_sregs2 s = {0};

		ioctl(vcpu->fd, KVM_GET_SREGS2, &s);
		SAVE_SREGS
		if (s.flags & KVM_SREGS2_FLAGS_PDPTRS_VALID)
			for (unsigned i = 0; i < 4; i++)
				to->pdpte[i] = s.pdptrs[i];
	} else {
		struct kvm_sregs s = {0};

		ioctl(vcpu->fd, KVM_GET_SREGS, &s);
		SAVE_SREGS
	}
}

/* Without SREGS2 the kernel reads the PDPTEs anew from memory. */
static int load_sregs(const struct kvm_vcpu *vcpu, const struct vcpu_state *from)
{
	if (kvm_engine_of(vcpu)->can.sregs2) {
		struct kvm_sregs2 s = {0};

		LOAD_SREGS
		if (uses_pdptes(from)) {
			s.flags = KVM_SREGS2_FLAGS_PDPTRS_VALID;
			for (unsigned i = 0; i < 4; i++)
				s.pdptrs[i] = from->pdpte[i];
		}
		return ioctl(vcpu->fd, KVM_SET_SREGS2, &s) ? -EINVAL : 0;
	} else {
		struct kvm_sregs s = {0};

		LOAD_SREGS
		return ioctl(vcpu->fd, KVM_SET_SREGS, &s) ? -EINVAL : 0;
	}
}

/* ---- general registers ---- */

#define GENERAL(f)                                                                                           \
	f(RAX, rax) f(RCX, rcx) f(RDX, rdx) f(RBX, rbx) f(RSP, rsp) f(RBP, rbp) f(RSI, rsi) f(RDI, rdi)      \
		f(R8, r8) f(R9, r9) f(R10, r10) f(R11, r11) f(R12, r12) f(R13, r13) f(R14, r14) f(R15, r15)

static void save_regs(const struct kvm_vcpu *vcpu, struct vcpu_state *to)
{
	struct kvm_regs regs = {0};

	ioctl(vcpu->fd, KVM_GET_REGS, &regs);
#define SAVE(number, name) to->gpr[number] = regs.name;
	GENERAL(SAVE)
#undef SAVE
	to->rip = regs.rip;
	to->rflags = regs.rflags;
}

static int load_regs(const struct kvm_vcpu *vcpu, const struct vcpu_state *from)
{
	struct kvm_regs regs = {.rip = from->rip, .rflags = from->rflags};

#define LOAD(number, name) regs.name = from->gpr[number];
	GENERAL(LOAD)
#undef LOAD
	return ioctl(vcpu->fd, KVM_SET_REGS, &regs) ? -EINVAL : 0;
}

/* ---- x87, SSE, AVX: the standard form of the XSAVE area (SDM 1 13.4) ---- */

struct __attribute__((packed)) legacy_area {
	uint16_t fcw, fsw;
	uint8_t ftw, reserved;
	uint16_t fop;
	uint64_t fip, fdp;
	uint32_t mxcsr, mxcsr_mask;
	struct {
		uint64_t significand;
		uint16_t sign_exponent;
		uint8_t reserved[6];
	} st[8];
	uint64_t xmm[16][2];
	uint8_t rest[96];
	uint64_t xstate_bv;
};
_Static_assert(offsetof(struct legacy_area, xmm) == 160, "FXSAVE area");
_Static_assert(offsetof(struct legacy_area, xstate_bv) == 512, "XSAVE header");

enum { TAG_VALID, TAG_ZERO, TAG_SPECIAL, TAG_EMPTY };

/* The tag that a register's content has (SDM 1 8.1.7). */
static unsigned tag_of(uint64_t significand, uint16_t sign_exponent)
{
	unsigned exponent = sign_exponent & 0x7fff;

	if (exponent == 0 && significand == 0)
		return TAG_ZERO;
	return exponent == 0x7fff || exponent == 0 || !(significand >> 63) ? TAG_SPECIAL : TAG_VALID;
}

static void save_x87(const struct legacy_area *area, struct vcpu_state *to)
{
	unsigned top = area->fsw >> 11 & 7;

	to->fcw = area->fcw;
	to->fsw = area->fsw;
	to->fop = area->fop;
	to->fip = area->fip;
	to->fdp = area->fdp;
	to->fcs = to->fds = 0; /* a 64-bit host does not keep them */
	to->ftw = 0;
	for (unsigned i = 0; i < 8; i++) {
		unsigned physical = (top + i) & 7;
		unsigned tag = TAG_EMPTY;

		to->st[physical] = (struct x87_register){.significand = area->st[i].significand,
							 .sign_exponent = area->st[i].sign_exponent};
		if (area->ftw >> physical & 1)
			tag = tag_of(area->st[i].significand, area->st[i].sign_exponent);
		to->ftw = (uint16_t)(to->ftw | tag << (2 * physical));
	}
}

static void load_x87(struct legacy_area *area, const struct vcpu_state *from)
{
	unsigned top = from->fsw >> 11 & 7;

	area->fcw = from->fcw;
	area->fsw = from->fsw;
	area->fop = from->fop;
	area->fip = from->fip;
	area->fdp = from->fdp;
	area->ftw = 0;
	for (unsigned i = 0; i < 8; i++) {
		unsigned physical = (top + i) & 7;

		area->st[i].significand = from->st[physical].significand;
		area->st[i].sign_exponent = from->st[physical].sign_exponent;
		if ((from->ftw >> (2 * physical) & 3) != TAG_EMPTY)
			area->ftw = (uint8_t)(area->ftw | 1u << physical);
	}
}

/* Where a component lies, or NULL where the device has none of @size bytes. */
static uint8_t *component_area(const struct kvm_engine *kvm, struct kvm_xsave *xsave, unsigned component,
			       uint32_t size)
{
	uint32_t offset = kvm_cpuid(kvm, 0xd, component, 1);

	if (!(kvm_cpuid(kvm, 0xd, 0, 0) >> component & 1) || kvm_cpuid(kvm, 0xd, component, 0) < size ||
	    offset < sizeof(struct legacy_area) || offset + size > kvm->can.xsave_size)
		return NULL;
	return (uint8_t *)xsave + offset;
}

#define COMPONENT_AVX  2u
#define COMPONENT_PKRU 9u
#define AVX_SIZE       256u /* the upper halves of YMM0 to YMM15 */

/* The kernel copies as much as the VM may have, which SET takes from the same buffer. */
static int get_xsave(const struct kvm_vcpu *vcpu, struct kvm_xsave *xsave)
{
	bool large = kvm_engine_of(vcpu)->can.xsave_size > sizeof(struct kvm_xsave);

	return ioctl(vcpu->fd, large ? KVM_GET_XSAVE2 : KVM_GET_XSAVE, xsave);
}

/* A component whose bit in XSTATE_BV is clear is in its initial state, whatever the area holds. */
static void save_vectors(struct kvm_vcpu *vcpu, struct vcpu_state *to)
{
	struct kvm_xsave *xsave = vcpu->remainder.xsave;
	struct legacy_area *area = (struct legacy_area *)xsave;
	const uint8_t *avx = component_area(kvm_engine_of(vcpu), xsave, COMPONENT_AVX, AVX_SIZE);
	const uint8_t *pkru = component_area(kvm_engine_of(vcpu), xsave, COMPONENT_PKRU, sizeof(to->pkru));

	memset(xsave, 0, kvm_engine_of(vcpu)->can.xsave_size);
	if (get_xsave(vcpu, xsave))
		return;
	if (!(area->xstate_bv & XCR0_X87)) {
		memset(area, 0, offsetof(struct legacy_area, mxcsr));
		memset(area->st, 0, sizeof(area->st));
		area->fcw = 0x37f;
	}
	save_x87(area, to);
	to->mxcsr = area->mxcsr;
	if (!(area->xstate_bv & (XCR0_SSE | XCR0_AVX)))
		to->mxcsr = MXCSR_RESET;
	for (unsigned i = 0; i < 16; i++) {
		if (area->xstate_bv & XCR0_SSE)
			memcpy(&to->vector[4 * i], area->xmm[i], 16);
		if (avx && area->xstate_bv & XCR0_AVX)
			memcpy(&to->vector[4 * i + 2], avx + 16 * i, 16);
	}
	if (pkru && area->xstate_bv & XCR0_PKRU)
		memcpy(&to->pkru, pkru, sizeof(to->pkru));
}

static int load_vectors(struct kvm_vcpu *vcpu, const struct vcpu_state *from)
{
	struct kvm_xsave *xsave = vcpu->xsave;
	struct legacy_area *area = (struct legacy_area *)xsave;
	uint8_t *avx = component_area(kvm_engine_of(vcpu), xsave, COMPONENT_AVX, AVX_SIZE);
	uint8_t *pkru = component_area(kvm_engine_of(vcpu), xsave, COMPONENT_PKRU, sizeof(from->pkru));

	if (!pkru && from->pkru)
		return -EINVAL;
	memcpy(xsave, vcpu->remainder.xsave, kvm_engine_of(vcpu)->can.xsave_size);
	load_x87(area, from);
	area->mxcsr = from->mxcsr;
	area->xstate_bv |= XCR0_X87 | XCR0_SSE;
	for (unsigned i = 0; i < 16; i++) {
		memcpy(area->xmm[i], &from->vector[4 * i], 16);
		if (avx) {
			memcpy(avx + 16 * i, &from->vector[4 * i + 2], 16);
			area->xstate_bv |= XCR0_AVX;
		}
	}
	if (pkru) {
		memcpy(pkru, &from->pkru, sizeof(from->pkru));
		area->xstate_bv |= XCR0_PKRU;
	}
	return ioctl(vcpu->fd, KVM_SET_XSAVE, xsave) ? -EINVAL : 0;
}

static void save_xcr0(const struct kvm_vcpu *vcpu, struct vcpu_state *to)
{
	struct kvm_xcrs xcrs = {0};

	to->xcr0 = XCR0_X87;
	if (!kvm_engine_of(vcpu)->can.xcrs || ioctl(vcpu->fd, KVM_GET_XCRS, &xcrs))
		return;
	for (unsigned i = 0; i < xcrs.nr_xcrs; i++)
		if (xcrs.xcrs[i].xcr == 0)
			to->xcr0 = xcrs.xcrs[i].value;
}

static int load_xcr0(const struct kvm_vcpu *vcpu, const struct vcpu_state *from)
{
	struct kvm_xcrs xcrs = {.nr_xcrs = 1, .xcrs = {{.xcr = 0, .value = from->xcr0}}};

	if (!kvm_engine_of(vcpu)->can.xcrs)
		return from->xcr0 == XCR0_X87 ? 0 : -EINVAL;
	return ioctl(vcpu->fd, KVM_SET_XCRS, &xcrs) ? -EINVAL : 0;
}

/* ---- debug registers and events ---- */

static void save_debug(const struct kvm_vcpu *vcpu, struct vcpu_state *to)
{
	struct kvm_debugregs debug = {0};

	ioctl(vcpu->fd, KVM_GET_DEBUGREGS, &debug);
	for (unsigned i = 0; i < 4; i++)
		to->dr[i] = debug.db[i];
	to->dr6 = debug.dr6;
	to->dr7 = debug.dr7;
}

static int load_debug(const struct kvm_vcpu *vcpu, const struct vcpu_state *from)
{
	struct kvm_debugregs debug = {.dr6 = from->dr6, .dr7 = from->dr7};

	for (unsigned i = 0; i < 4; i++)
		debug.db[i] = from->dr[i];
	return ioctl(vcpu->fd, KVM_SET_DEBUGREGS, &debug) ? -EINVAL : 0;
}

static void save_events(const struct kvm_vcpu *vcpu, struct vcpu_state *to)
{
	struct kvm_vcpu_events events = {0};

	ioctl(vcpu->fd, KVM_GET_VCPU_EVENTS, &events);
	to->nmi_blocked = events.nmi.masked;
	to->nmi_pending = events.nmi.pending || events.nmi.injected;
	if (events.interrupt.shadow & KVM_X86_SHADOW_INT_MOV_SS)
		to->shadow = SHADOW_MOV_SS;
	else
		to->shadow = events.interrupt.shadow & KVM_X86_SHADOW_INT_STI ? SHADOW_STI : SHADOW_NONE;
}

static int load_events(const struct kvm_vcpu *vcpu, const struct vcpu_state *from)
{
	struct kvm_vcpu_events events = {.flags =
						 KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW,
					 .nmi = {.masked = from->nmi_blocked, .pending = from->nmi_pending}};

	if (from->shadow == SHADOW_MOV_SS)
		events.interrupt.shadow = KVM_X86_SHADOW_INT_MOV_SS;
	else if (from->shadow == SHADOW_STI)
		events.interrupt.shadow = KVM_X86_SHADOW_INT_STI;
	return ioctl(vcpu->fd, KVM_SET_VCPU_EVENTS, &events) ? -EINVAL : 0;
}

/* ---- the whole ---- */

int kvm_state_open(struct kvm_vcpu *vcpu)
{
	size_t size = kvm_engine_of(vcpu)->can.xsave_size;

	vcpu->msrs = msrs_new(2 * KVM_MSRS_MAX);
	vcpu->remainder.msrs = msrs_new(KVM_MSRS_MAX);
	vcpu->remainder.xsave = calloc(1, size);
	vcpu->xsave = calloc(1, size);
	if (!vcpu->msrs || !vcpu->remainder.msrs || !vcpu->remainder.xsave || !vcpu->xsave)
		return -ENOMEM;
	find_fields(vcpu);
	return find_remainder(vcpu);
}

void kvm_state_close(struct kvm_vcpu *vcpu)
{
	free(vcpu->msrs);
	free(vcpu->remainder.msrs);
	free(vcpu->remainder.xsave);
	free(vcpu->xsave);
}

void kvm_vcpu_save(struct engine_vcpu *engine_vcpu, struct vcpu_state *to)
{
	struct kvm_vcpu *vcpu = kvm_vcpu_of(engine_vcpu);

	memset(to, 0, sizeof(*to));
	to->activity = vcpu->activity;
	save_regs(vcpu, to);
	save_sregs(vcpu, to);
	save_debug(vcpu, to);
	save_events(vcpu, to);
	save_xcr0(vcpu, to);
	save_vectors(vcpu, to);
	save_msrs(vcpu, to);
	vcpu_state_clear_padding(to);
}

/*
 * Events come last: the others may leave some behind. CR8 stands in two places, of which the
 * kernel takes the shared page's when it runs.
 */
int kvm_vcpu_load(struct engine_vcpu *engine_vcpu, const struct vcpu_state *from)
{
	struct kvm_vcpu *vcpu = kvm_vcpu_of(engine_vcpu);
	int error;

	if (from->smm || from->activity > ACTIVITY_WAIT_FOR_SIPI || !holds_msrs(vcpu, from))
		return -EINVAL;
	error = load_sregs(vcpu, from);
	if (!error)
		error = load_regs(vcpu, from);
	if (!error)
		error = load_debug(vcpu, from);
	if (!error)
		error = load_xcr0(vcpu, from);
	if (!error)
		error = load_vectors(vcpu, from);
	if (!error)
		error = load_msrs(vcpu, from);
	if (!error)
		error = load_events(vcpu, from);
	vcpu->run->cr8 = from->cr8;
	vcpu->activity = from->activity;
	kvm_chips_load(vcpu, from);
	return error;
}
