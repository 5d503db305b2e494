/* Between struct vcpu_state and what the KVM ABI calls the state of a vCPU. */
#include "engine/kvm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "x86/descriptors.h"

/* ---- reasons ---- */

int kvm_refused(struct kvm_vcpu *vcpu, const char *what)
{
	int error = errno;

	kvm_fail(vcpu, "vCPU %u: the device refuses %s: %s", vcpu->vcpu.number, what, strerror(error));
	return error ? -error : -EIO;
}

static int unheld(struct kvm_vcpu *vcpu, const char *what)
{
	kvm_fail(vcpu, "vCPU %u: %s is not as after RESET, and kvm cannot hold it", vcpu->vcpu.number, what);
	return -EINVAL;
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

static int save_sregs(struct kvm_vcpu *vcpu, struct vcpu_state *to)
{
	if (kvm_engine_of(vcpu)->can.sregs2) {
		struct kvm_sregs2 s = {0};

		if (kvm_ioctl(vcpu->fd, KVM_GET_SREGS2, &s))
			return kvm_refused(vcpu, "KVM_GET_SREGS2");
		SAVE_SREGS
		if (s.flags & KVM_SREGS2_FLAGS_PDPTRS_VALID)
			for (unsigned i = 0; i < 4; i++)
				to->pdpte[i] = s.pdptrs[i];
	} else {
		struct kvm_sregs s = {0};

		if (kvm_ioctl(vcpu->fd, KVM_GET_SREGS, &s))
			return kvm_refused(vcpu, "KVM_GET_SREGS");
		SAVE_SREGS
	}
	return 0;
}

/* Without SREGS2 the kernel reads the PDPTEs anew from memory. */
static int load_sregs(struct kvm_vcpu *vcpu, const struct vcpu_state *from)
{
	if (kvm_engine_of(vcpu)->can.sregs2) {
		struct kvm_sregs2 s = {0};

		LOAD_SREGS
		if (uses_pdptes(from)) {
			s.flags = KVM_SREGS2_FLAGS_PDPTRS_VALID;
			for (unsigned i = 0; i < 4; i++)
				s.pdptrs[i] = from->pdpte[i];
		}
		return kvm_ioctl(vcpu->fd, KVM_SET_SREGS2, &s) ? kvm_refused(vcpu, "KVM_SET_SREGS2") : 0;
	} else {
		struct kvm_sregs s = {0};

		LOAD_SREGS
		return kvm_ioctl(vcpu->fd, KVM_SET_SREGS, &s) ? kvm_refused(vcpu, "KVM_SET_SREGS") : 0;
	}
}

/* ---- general registers ---- */

#define GENERAL(f)                                                                                           \
	f(RAX, rax) f(RCX, rcx) f(RDX, rdx) f(RBX, rbx) f(RSP, rsp) f(RBP, rbp) f(RSI, rsi) f(RDI, rdi)      \
		f(R8, r8) f(R9, r9) f(R10, r10) f(R11, r11) f(R12, r12) f(R13, r13) f(R14, r14) f(R15, r15)

static int save_regs(struct kvm_vcpu *vcpu, struct vcpu_state *to)
{
	struct kvm_regs regs = {0};

	if (kvm_ioctl(vcpu->fd, KVM_GET_REGS, &regs))
		return kvm_refused(vcpu, "KVM_GET_REGS");
#define SAVE(number, name) to->gpr[number] = regs.name;
	GENERAL(SAVE)
#undef SAVE
	to->rip = regs.rip;
	to->rflags = regs.rflags;
	return 0;
}

static int load_regs(struct kvm_vcpu *vcpu, const struct vcpu_state *from)
{
	struct kvm_regs regs = {.rip = from->rip, .rflags = from->rflags};

#define LOAD(number, name) regs.name = from->gpr[number];
	GENERAL(LOAD)
#undef LOAD
	return kvm_ioctl(vcpu->fd, KVM_SET_REGS, &regs) ? kvm_refused(vcpu, "KVM_SET_REGS") : 0;
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

	return kvm_ioctl(vcpu->fd, large ? KVM_GET_XSAVE2 : KVM_GET_XSAVE, xsave);
}

/* A component whose bit in XSTATE_BV is clear is in its initial state, whatever the area holds. */
static int save_vectors(struct kvm_vcpu *vcpu, struct vcpu_state *to)
{
	struct kvm_xsave *xsave = vcpu->remainder.xsave;
	struct legacy_area *area = (struct legacy_area *)xsave;
	const uint8_t *avx = component_area(kvm_engine_of(vcpu), xsave, COMPONENT_AVX, AVX_SIZE);
	const uint8_t *pkru = component_area(kvm_engine_of(vcpu), xsave, COMPONENT_PKRU, sizeof(to->pkru));

	memset(xsave, 0, kvm_engine_of(vcpu)->can.xsave_size);
	if (get_xsave(vcpu, xsave))
		return kvm_refused(vcpu, "KVM_GET_XSAVE");
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
	return 0;
}

int kvm_xsave_get(struct kvm_vcpu *vcpu, uint8_t *area)
{
	memset(area, 0, kvm_engine_of(vcpu)->can.xsave_size);
	return get_xsave(vcpu, (struct kvm_xsave *)area) ? kvm_refused(vcpu, "KVM_GET_XSAVE") : 0;
}

/* Ours, as the device has them already, are copied over the others'. */
int kvm_xsave_join(struct kvm_vcpu *vcpu, uint8_t *area)
{
	struct kvm_xsave *xsave = vcpu->xsave, *all = (struct kvm_xsave *)area;
	struct legacy_area *ours = (struct legacy_area *)xsave, *to = (struct legacy_area *)all;
	uint64_t mask = XCR0_X87 | XCR0_SSE | XCR0_AVX | XCR0_PKRU;
	uint64_t theirs = to->xstate_bv & ~mask;
	int error = kvm_xsave_get(vcpu, (uint8_t *)xsave);

	if (error)
		return error;
	memcpy(to, ours, sizeof(*to));
	to->xstate_bv = (ours->xstate_bv & mask) | theirs;
	for (unsigned component = COMPONENT_AVX; component <= COMPONENT_PKRU;
	     component += COMPONENT_PKRU - COMPONENT_AVX) {
		uint32_t size = component == COMPONENT_AVX ? AVX_SIZE : (uint32_t)sizeof(uint32_t);
		uint8_t *from = component_area(kvm_engine_of(vcpu), xsave, component, size);
		uint8_t *there = component_area(kvm_engine_of(vcpu), all, component, size);

		if (from && there)
			memcpy(there, from, size);
	}
	memcpy(vcpu->remainder.xsave, all, kvm_engine_of(vcpu)->can.xsave_size);
	return kvm_ioctl(vcpu->fd, KVM_SET_XSAVE, all) ? kvm_refused(vcpu, "KVM_SET_XSAVE") : 0;
}

static int load_vectors(struct kvm_vcpu *vcpu, const struct vcpu_state *from)
{
	struct kvm_xsave *xsave = vcpu->xsave;
	struct legacy_area *area = (struct legacy_area *)xsave;
	uint8_t *avx = component_area(kvm_engine_of(vcpu), xsave, COMPONENT_AVX, AVX_SIZE);
	uint8_t *pkru = component_area(kvm_engine_of(vcpu), xsave, COMPONENT_PKRU, sizeof(from->pkru));

	if (!pkru && from->pkru)
		return unheld(vcpu, "pkru");
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
	return kvm_ioctl(vcpu->fd, KVM_SET_XSAVE, xsave) ? kvm_refused(vcpu, "KVM_SET_XSAVE") : 0;
}

static int save_xcr0(struct kvm_vcpu *vcpu, struct vcpu_state *to)
{
	struct kvm_xcrs xcrs = {0};

	to->xcr0 = XCR0_X87;
	if (!kvm_engine_of(vcpu)->can.xcrs)
		return 0;
	if (kvm_ioctl(vcpu->fd, KVM_GET_XCRS, &xcrs))
		return kvm_refused(vcpu, "KVM_GET_XCRS");
	for (unsigned i = 0; i < xcrs.nr_xcrs; i++)
		if (xcrs.xcrs[i].xcr == 0)
			to->xcr0 = xcrs.xcrs[i].value;
	return 0;
}

static int load_xcr0(struct kvm_vcpu *vcpu, const struct vcpu_state *from)
{
	struct kvm_xcrs xcrs = {.nr_xcrs = 1, .xcrs = {{.xcr = 0, .value = from->xcr0}}};

	if (!kvm_engine_of(vcpu)->can.xcrs)
		return from->xcr0 == XCR0_X87 ? 0 : unheld(vcpu, "xcr0");
	return kvm_ioctl(vcpu->fd, KVM_SET_XCRS, &xcrs) ? kvm_refused(vcpu, "KVM_SET_XCRS") : 0;
}

/* ---- debug registers ---- */

static int save_debug(struct kvm_vcpu *vcpu, struct vcpu_state *to)
{
	struct kvm_debugregs debug = {0};

	if (kvm_ioctl(vcpu->fd, KVM_GET_DEBUGREGS, &debug))
		return kvm_refused(vcpu, "KVM_GET_DEBUGREGS");
	for (unsigned i = 0; i < 4; i++)
		to->dr[i] = debug.db[i];
	to->dr6 = debug.dr6;
	to->dr7 = debug.dr7;
	return 0;
}

static int load_debug(struct kvm_vcpu *vcpu, const struct vcpu_state *from)
{
	struct kvm_debugregs debug = {.dr6 = from->dr6, .dr7 = from->dr7};

	for (unsigned i = 0; i < 4; i++)
		debug.db[i] = from->dr[i];
	return kvm_ioctl(vcpu->fd, KVM_SET_DEBUGREGS, &debug) ? kvm_refused(vcpu, "KVM_SET_DEBUGREGS") : 0;
}

/* ---- what the device cannot hold ---- */

/* What a field is after RESET, where that is not 0. */
static const struct {
	size_t offset;
	uint64_t value;
} neutral[] = {
	{offsetof(struct vcpu_state, smbase), 0x30000},
	{offsetof(struct vcpu_state, svm_tsc_ratio), 1ull << 32},
	{offsetof(struct vcpu_state, pat), 0x0007040600070406ull},
};

uint64_t kvm_neutral(size_t offset)
{
	for (size_t i = 0; i < sizeof(neutral) / sizeof(neutral[0]); i++)
		if (neutral[i].offset == offset)
			return neutral[i].value;
	return 0;
}

/* Fields that no ioctl has: AMD's control-transfer records, and a guest's guest, but for kvm's own form of
 * it. */
static const struct unheld_field {
	const char *name;
	size_t offset, size;
} never_held[] = {
#define VCPU_FIELD(type, name)        {#name, offsetof(struct vcpu_state, name), sizeof(type)},
#define VCPU_ARRAY(type, name, count) {#name, offsetof(struct vcpu_state, name), sizeof(type) * (count)},
#include "x86/vcpu_state.def"
#undef VCPU_FIELD
#undef VCPU_ARRAY
};

static bool is_held(const char *name)
{
	return strncmp(name, "last_", 5) && strncmp(name, "svm_", 4) && strncmp(name, "vmx_", 4);
}

/* The first that is not as after RESET, or NULL. */
static const char *never_held_name(const struct vcpu_state *from)
{
	for (size_t i = 0; i < sizeof(never_held) / sizeof(never_held[0]); i++) {
		const struct unheld_field *field = &never_held[i];

		if (is_held(field->name) || kvm_neutral(field->offset))
			continue;
		for (size_t k = 0; k < field->size; k++)
			if (((const uint8_t *)from)[field->offset + k])
				return field->name;
	}
	return NULL;
}

static void set_neutral(struct vcpu_state *to)
{
	memset(to, 0, sizeof(*to));
	for (size_t i = 0; i < sizeof(neutral) / sizeof(neutral[0]); i++)
		memcpy((char *)to + neutral[i].offset, &neutral[i].value, sizeof(neutral[i].value));
}

static const char *const activities[] = {
	[ACTIVITY_ACTIVE] = "active",         [ACTIVITY_HLT] = "HLT",
	[ACTIVITY_SHUTDOWN] = "shutdown",     [ACTIVITY_WAIT_FOR_SIPI] = "wait-for-SIPI",
	[ACTIVITY_MWAIT] = "a wait in MWAIT",
};

static int check_held(struct kvm_vcpu *vcpu, const struct vcpu_state *from)
{
	const char *name = kvm_msrs_unheld(vcpu, from);

	if (!name)
		name = never_held_name(from);
	if (name)
		return unheld(vcpu, name);
	if (from->activity > ACTIVITY_MWAIT)
		return unheld(vcpu, "activity");
	if (from->activity > ACTIVITY_WAIT_FOR_SIPI)
		return unheld(vcpu, activities[from->activity]);
	return 0;
}

/* ---- the whole ---- */

int kvm_state_open(struct kvm_vcpu *vcpu)
{
	size_t size = kvm_engine_of(vcpu)->can.xsave_size;

	vcpu->remainder.xsave = calloc(1, size);
	vcpu->xsave = calloc(1, size);
	return vcpu->remainder.xsave && vcpu->xsave ? kvm_msrs_open(vcpu) : -ENOMEM;
}

void kvm_state_close(struct kvm_vcpu *vcpu)
{
	kvm_msrs_close(vcpu);
	free(vcpu->remainder.xsave);
	free(vcpu->xsave);
}

int kvm_vcpu_changed(struct kvm_vcpu *vcpu)
{
	int error = kvm_msrs_open(vcpu);

	if (!error)
		error = kvm_vcpu_save(&vcpu->vcpu, &vcpu->reset);
	vcpu->reset.gpr[RDX] = kvm_cpuid(kvm_engine_of(vcpu), 1, 0, 0); /* SDM 3A table 10-1 */
	kvm_chips_remodel(vcpu);
	return error;
}

int kvm_vcpu_save(struct engine_vcpu *engine_vcpu, struct vcpu_state *to)
{
	struct kvm_vcpu *vcpu = kvm_vcpu_of(engine_vcpu);
	int error;

	kvm_time_fetch(kvm_engine_of(vcpu));
	set_neutral(to);
	to->activity = vcpu->activity;
	if (vcpu->vcpu.number < kvm_engine_of(vcpu)->chips.count)
		to->tsc_deadline = kvm_engine_of(vcpu)->chips.lapic[vcpu->vcpu.number].tsc_deadline;
	error = save_regs(vcpu, to);
	if (!error)
		error = save_sregs(vcpu, to);
	if (!error)
		error = save_debug(vcpu, to);
	if (!error)
		error = kvm_events_save(vcpu, to);
	if (!error)
		error = save_xcr0(vcpu, to);
	if (!error)
		error = save_vectors(vcpu, to);
	if (!error)
		error = kvm_msrs_save(vcpu, to);
	vcpu_state_clear_padding(to);
	return error;
}

/*
 * Events come last: the others may leave some behind. CR8 stands in two places, of which the
 * kernel takes the shared page's when it runs.
 */
int kvm_vcpu_load(struct engine_vcpu *engine_vcpu, const struct vcpu_state *from)
{
	struct kvm_vcpu *vcpu = kvm_vcpu_of(engine_vcpu);
	int error = check_held(vcpu, from);

	if (!error)
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
		error = kvm_msrs_load(vcpu, from);
	if (!error)
		error = kvm_events_load(vcpu, from);
	vcpu->loaded = *from;
	vcpu->run->cr8 = from->cr8;
	vcpu->activity = from->activity;
	kvm_chips_load(vcpu, from);
	return error ? -EINVAL : 0;
}
