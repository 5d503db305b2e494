/*
 * xsave.c: XGETBV XSETBV, FXSAVE FXRSTOR, and XSAVE, XSAVEOPT, XSAVEC, XSAVES, XRSTOR, XRSTORS (SDM 1
 * chapters 10.5, 13; SDM 2A FXSAVE, 2D; APM 2 chapter 11).
 *
 * An area is built in a buffer beside memory, or read into one, and what must not change is not
 * written: faults come before the first byte.
 */
#include <string.h>

#include "cpu/checks.h"
#include "cpu/control.h"
#include "cpu/insn/operand.h"
#include "cpu/simd.h"

#define LEGACY_SIZE     512
#define HEADER_SIZE     64
#define FX_ST           32
#define FX_XMM          160
#define XCOMP_COMPACTED (1ull << 63)
#define COMPONENT_AVX   2
#define COMPONENT_PKRU  9
#define AVX_SIZE        256

/* ---- XCR0 ---- */

static uint64_t components_in_use(const struct cpu *cpu);

static inline void xgetbv(struct cpu *cpu, const struct insn *insn)
{
	uint32_t index = (uint32_t)cpu->reg[RCX];
	uint64_t value = cpu->xcr0;

	(void)insn;
	if (CHECK(XGETBV_INDEX, index > (cpu_has(cpu, FEATURE_xgetbv1) ? 1u : 0u)))
		cpu_raise(cpu, VECTOR_GP, 0);
	if (index == 1)
		value &= components_in_use(cpu);
	cpu->reg[RAX] = (uint32_t)value;
	cpu->reg[RDX] = value >> 32;
}
DEFINE_INSN(xgetbv)

static inline void xsetbv(struct cpu *cpu, const struct insn *insn)
{
	(void)insn;
	control_write_xcr(cpu, (uint32_t)cpu->reg[RCX], cpu->reg[RDX] << 32 | (uint32_t)cpu->reg[RAX]);
}
DEFINE_INSN(xsetbv)

/* ---- the legacy region: SDM 1 table 10-2 ---- */

static unsigned xmm_count(const struct cpu *cpu) { return cpu_64bit(cpu) ? 16 : 8; }

/* APM 2 15.5 (MISALIGNSSE adds MM), SDM 1 10.2.3. */
uint32_t xsave_mxcsr_mask(const struct cpu *cpu)
{
	return cpu_has(cpu, FEATURE_misalignsse) ? 0x2ffff : 0xffff;
}

/*
 * Processors by AMD without XSAVEERPTR save FOP, FIP and FDP only with an unmasked exception
 * pending (APM 2 11.4.4).
 */
static bool saves_pointers(const struct cpu *cpu)
{
	return cpu->profile->vendor == VENDOR_INTEL || cpu_has(cpu, FEATURE_xsaveerptr) || cpu->fsw & 0x80;
}

static unsigned stack_top(uint16_t fsw) { return fsw >> 11 & 7; }

static uint8_t abridged_tag(uint16_t ftw)
{
	uint8_t tag = 0;

	for (unsigned i = 0; i < 8; i++)
		tag |= (uint8_t)(((ftw >> (2 * i) & 3) != 3) << i);
	return tag;
}

static void build_pointers(const struct cpu *cpu, uint8_t *image, bool wide)
{
	uint32_t ip = (uint32_t)cpu->fip, dp = (uint32_t)cpu->fdp;

	memcpy(image + 6, &cpu->fop, 2);
	if (wide) {
		memcpy(image + 8, &cpu->fip, 8);
		memcpy(image + 16, &cpu->fdp, 8);
		return;
	}
	memcpy(image + 8, &ip, 4);
	memcpy(image + 12, &cpu->fcs, 2);
	memcpy(image + 16, &dp, 4);
	memcpy(image + 20, &cpu->fds, 2);
}

/* Bytes 0 to 23 and the eight registers, from the top of the stack on. */
static void build_x87(const struct cpu *cpu, uint8_t *image, bool wide)
{
	memset(image, 0, 24);
	memcpy(image, &cpu->fcw, 2);
	memcpy(image + 2, &cpu->fsw, 2);
	image[4] = abridged_tag(cpu->ftw);
	if (saves_pointers(cpu))
		build_pointers(cpu, image, wide);
	for (unsigned i = 0; i < 8; i++) {
		const struct x87_register *st = &cpu->st[(stack_top(cpu->fsw) + i) & 7];
		uint8_t *slot = image + FX_ST + 16 * i;
		memset(slot, 0, 16);
		memcpy(slot, &st->significand, 8);
		memcpy(slot + 8, &st->sign_exponent, 2);
	}
}

static void build_mxcsr(const struct cpu *cpu, uint8_t *image)
{
	uint32_t mask = xsave_mxcsr_mask(cpu);

	memcpy(image + 24, &cpu->mxcsr, 4);
	memcpy(image + 28, &mask, 4);
}

static void build_xmm(const struct cpu *cpu, uint8_t *image)
{
	for (unsigned i = 0; i < xmm_count(cpu); i++)
		memcpy(image + FX_XMM + 16 * i, &cpu->vector[4 * i], 16);
}

/* The full tag of a register that is not empty: 0 valid, 1 zero, 2 special (SDM 1 8.1.7). */
static unsigned full_tag(const struct x87_register *st)
{
	unsigned exponent = st->sign_exponent & 0x7fff;

	if (exponent == 0)
		return st->significand ? 2 : 1;
	return exponent != 0x7fff && st->significand >> 63 ? 0 : 2;
}

static void load_pointers(struct cpu *cpu, const uint8_t *image, bool wide)
{
	uint32_t ip, dp;

	memcpy(&cpu->fop, image + 6, 2);
	cpu->fop &= 0x7ff;
	if (wide) {
		memcpy(&cpu->fip, image + 8, 8);
		memcpy(&cpu->fdp, image + 16, 8);
		cpu->fcs = cpu->fds = 0;
		return;
	}
	memcpy(&ip, image + 8, 4);
	memcpy(&cpu->fcs, image + 12, 2);
	memcpy(&dp, image + 16, 4);
	memcpy(&cpu->fds, image + 20, 2);
	cpu->fip = ip;
	cpu->fdp = dp;
}

/* FSW.ES and B follow from the flags and masks that are loaded (SDM 1 8.1.3.3). */
static uint16_t status_with_summary(uint16_t fsw, uint16_t fcw)
{
	bool pending = fsw & ~fcw & 0x3f;

	return (uint16_t)((fsw & 0x7f7f) | (pending ? 0x8080 : 0));
}

static void load_x87(struct cpu *cpu, const uint8_t *image, bool wide)
{
	uint16_t fsw;

	memcpy(&cpu->fcw, image, 2);
	cpu->fcw = (uint16_t)((cpu->fcw & 0x1f7f) | 0x40);
	memcpy(&fsw, image + 2, 2);
	cpu->fsw = status_with_summary(fsw, cpu->fcw);
	if (saves_pointers(cpu))
		load_pointers(cpu, image, wide);
	cpu->ftw = 0;
	for (unsigned i = 0; i < 8; i++) {
		unsigned physical = (stack_top(cpu->fsw) + i) & 7;
		struct x87_register *st = &cpu->st[physical];
		memcpy(&st->significand, image + FX_ST + 16 * i, 8);
		memcpy(&st->sign_exponent, image + FX_ST + 16 * i + 8, 2);
		unsigned tag = image[4] >> physical & 1 ? full_tag(st) : 3;
		cpu->ftw |= (uint16_t)(tag << (2 * physical));
	}
}

static void load_xmm(struct cpu *cpu, const uint8_t *image)
{
	for (unsigned i = 0; i < xmm_count(cpu); i++)
		memcpy(&cpu->vector[4 * i], image + FX_XMM + 16 * i, 16);
}

static uint32_t image_mxcsr(struct cpu *cpu, const uint8_t *image)
{
	uint32_t mxcsr;

	memcpy(&mxcsr, image + 24, 4);
	if (CHECK(MXCSR_RESERVED, mxcsr & ~xsave_mxcsr_mask(cpu)))
		cpu_raise(cpu, VECTOR_GP, 0);
	return mxcsr;
}

/* ---- FXSAVE, FXRSTOR ---- */

/* CR0.EM is #NM by both manuals (SDM 2A FXSAVE; APM 2 3.1.1), where SSE is #UD. */
static void check_available(struct cpu *cpu)
{
	if (CHECK(FX_EM, cpu->cr0 & CR0_EM))
		cpu_raise(cpu, VECTOR_NM, 0);
	if (CHECK(FX_TS, cpu->cr0 & CR0_TS))
		cpu_raise(cpu, VECTOR_NM, 0);
}

/* EFER.FFXSR leaves the XMM registers out in 64-bit mode at CPL 0 (APM 2 11.4.4). */
static bool fast_fxsr(const struct cpu *cpu)
{
	return cpu->efer & EFER_FFXSR && cpu_64bit(cpu) && cpu->cpl == 0;
}

static bool is_wide(const struct insn *insn) { return insn->prefixes & PREFIX_REX_W; }

static uint64_t aligned_offset(struct cpu *cpu, const struct insn *insn, size_t size, unsigned alignment,
			       unsigned access)
{
	uint64_t offset = insn_offset(cpu, insn);
	uint64_t linear = segment_linear(cpu, insn->segment, offset, size, access);

	if (CHECK(FX_ALIGNMENT, linear & (alignment - 1)))
		cpu_raise(cpu, VECTOR_GP, 0);
	return offset;
}

static inline void fxsave(struct cpu *cpu, const struct insn *insn)
{
	uint8_t image[LEGACY_SIZE] = {0};
	size_t size = fast_fxsr(cpu) ? FX_XMM : FX_XMM + 16 * xmm_count(cpu);

	check_available(cpu);
	mxcsr_collect(cpu);
	uint64_t offset = aligned_offset(cpu, insn, LEGACY_SIZE, 16, ACCESS_WRITE);
	build_x87(cpu, image, is_wide(insn));
	build_mxcsr(cpu, image);
	build_xmm(cpu, image);
	mem_check_write(cpu, insn->segment, offset, LEGACY_SIZE);
	mem_write_bytes(cpu, insn->segment, offset, image, size, 1);
}
DEFINE_INSN(fxsave)

static inline void fxrstor(struct cpu *cpu, const struct insn *insn)
{
	uint8_t image[LEGACY_SIZE];

	check_available(cpu);
	uint64_t offset = aligned_offset(cpu, insn, LEGACY_SIZE, 16, ACCESS_READ);
	mem_read_bytes(cpu, insn->segment, offset, image, LEGACY_SIZE, 1);
	cpu->mxcsr = image_mxcsr(cpu, image);
	mxcsr_load(cpu);
	load_x87(cpu, image, is_wide(insn));
	if (!fast_fxsr(cpu))
		load_xmm(cpu, image);
}
DEFINE_INSN(fxrstor)

/* ---- components ---- */

static bool x87_is_initial(const struct cpu *cpu)
{
	if (cpu->fcw != 0x37f || cpu->fsw || cpu->ftw != 0xffff || cpu->fop || cpu->fip || cpu->fdp ||
	    cpu->fcs || cpu->fds)
		return false;
	for (unsigned i = 0; i < 8; i++) {
		if (cpu->st[i].significand || cpu->st[i].sign_exponent)
			return false;
	}
	return true;
}

/* Outside 64-bit mode, XMM8 to XMM15 do not count (SDM 1 13.6). */
static bool xmm_is_initial(const struct cpu *cpu)
{
	for (unsigned i = 0; i < xmm_count(cpu); i++) {
		if (cpu->vector[4 * i] || cpu->vector[4 * i + 1])
			return false;
	}
	return true;
}

static bool avx_is_initial(const struct cpu *cpu)
{
	for (unsigned i = 0; i < xmm_count(cpu); i++) {
		if (cpu->vector[4 * i + 2] || cpu->vector[4 * i + 3])
			return false;
	}
	return true;
}

/* XINUSE (SDM 1 13.6). */
static uint64_t components_in_use(const struct cpu *cpu)
{
	return (x87_is_initial(cpu) ? 0 : XCR0_X87) | (xmm_is_initial(cpu) ? 0 : XCR0_SSE) |
	       (avx_is_initial(cpu) ? 0 : XCR0_AVX) | (cpu->pkru ? XCR0_PKRU : 0);
}

static uint64_t requested(const struct cpu *cpu, uint64_t enabled)
{
	return enabled & (cpu->reg[RDX] << 32 | (uint32_t)cpu->reg[RAX]);
}

/*
 * Where a component beyond the legacy region lies: in the compacted form behind those of @format, which the area holds
 * (SDM 1 13.4.3). A @format of 0 is the standard form.
 */
static uint32_t component_offset(const struct cpu *cpu, unsigned component, uint64_t format)
{
	if (!(format & XCOMP_COMPACTED))
		return profile_xsave_component(cpu->profile, component).offset;
	return profile_xsave_size(cpu->profile, format & ((1ull << component) - 1), true);
}

/* The upper halves of the YMM registers (SDM 1 13.5.3). */
static size_t avx_size(const struct cpu *cpu) { return 16 * xmm_count(cpu); }

static void build_avx(const struct cpu *cpu, uint8_t *image)
{
	for (unsigned i = 0; i < xmm_count(cpu); i++)
		memcpy(image + 16 * i, &cpu->vector[4 * i + 2], 16);
}

static void load_avx(struct cpu *cpu, const uint8_t *image)
{
	for (unsigned i = 0; i < xmm_count(cpu); i++)
		memcpy(&cpu->vector[4 * i + 2], image + 16 * i, 16);
}

/* ---- saving ---- */

/* Parts of the area that are to be written: pieces of @image at their own offsets. */
static void write_part(struct cpu *cpu, const struct insn *insn, uint64_t offset, const uint8_t *image,
		       size_t from, size_t size)
{
	mem_write_bytes(cpu, insn->segment, offset + from, image + from, size, 1);
}

static void write_components(struct cpu *cpu, const struct insn *insn, uint64_t offset, uint64_t components,
			     bool mxcsr, uint64_t format)
{
	uint8_t image[LEGACY_SIZE];

	if (components & XCR0_X87) {
		build_x87(cpu, image, is_wide(insn));
		write_part(cpu, insn, offset, image, 0, 24);
		write_part(cpu, insn, offset, image, FX_ST, FX_XMM - FX_ST);
	}
	if (mxcsr) {
		build_mxcsr(cpu, image);
		write_part(cpu, insn, offset, image, 24, 8);
	}
	if (components & XCR0_SSE) {
		build_xmm(cpu, image);
		write_part(cpu, insn, offset, image, FX_XMM, 16 * xmm_count(cpu));
	}
	if (components & XCR0_AVX) {
		build_avx(cpu, image);
		mem_write_bytes(cpu, insn->segment, offset + component_offset(cpu, COMPONENT_AVX, format), image,
				avx_size(cpu), 1);
	}
	if (components & XCR0_PKRU) {
		uint64_t pkru = cpu->pkru;
		mem_write_bytes(cpu, insn->segment, offset + component_offset(cpu, COMPONENT_PKRU, format), &pkru,
				8, 1);
	}
}

static uint64_t xsave_begin(struct cpu *cpu, const struct insn *insn, uint32_t size)
{
	uint64_t offset = aligned_offset(cpu, insn, size, 64, ACCESS_WRITE);

	mem_check_write(cpu, insn->segment, offset, size);
	mxcsr_collect(cpu);
	return offset;
}

/* XSAVE and XSAVEOPT: the standard form; the second leaves out what is in its initial state. */
HANDLER_INLINE void save_standard(struct cpu *cpu, const struct insn *insn, bool optimized)
{
	uint64_t rfbm = requested(cpu, cpu->xcr0), in_use = components_in_use(cpu), header;
	uint64_t offset = xsave_begin(cpu, insn, profile_xsave_size(cpu->profile, rfbm, false));

	mem_read_bytes(cpu, insn->segment, offset + LEGACY_SIZE, &header, 8, 1);
	header = (header & ~rfbm) | (in_use & rfbm);
	write_components(cpu, insn, offset, optimized ? rfbm & in_use : rfbm, rfbm & (XCR0_SSE | XCR0_AVX), 0);
	mem_write_bytes(cpu, insn->segment, offset + LEGACY_SIZE, &header, 8, 1);
}

static inline void xsave(struct cpu *cpu, const struct insn *insn) { save_standard(cpu, insn, false); }
DEFINE_INSN(xsave)

static inline void xsaveopt(struct cpu *cpu, const struct insn *insn) { save_standard(cpu, insn, true); }
DEFINE_INSN(xsaveopt)

/* XSAVEC and XSAVES: compacted; SSE also counts as in use where MXCSR is not initial (SDM 1 13.10). */
HANDLER_INLINE void save_compacted(struct cpu *cpu, const struct insn *insn, uint64_t enabled)
{
	uint64_t rfbm = requested(cpu, enabled), in_use = components_in_use(cpu), header[2];
	uint64_t offset = xsave_begin(cpu, insn, profile_xsave_size(cpu->profile, rfbm, true));

	if (cpu->mxcsr != MXCSR_RESET)
		in_use |= XCR0_SSE;
	header[0] = rfbm & in_use;
	header[1] = rfbm | XCOMP_COMPACTED;
	write_components(cpu, insn, offset, header[0], header[0] & XCR0_SSE, header[1]);
	mem_write_bytes(cpu, insn->segment, offset + LEGACY_SIZE, header, sizeof(header), 1);
}

static inline void xsavec(struct cpu *cpu, const struct insn *insn) { save_compacted(cpu, insn, cpu->xcr0); }
DEFINE_INSN(xsavec)

static inline void xsaves(struct cpu *cpu, const struct insn *insn)
{
	save_compacted(cpu, insn, cpu->xcr0 | cpu->msr.xss);
}
DEFINE_INSN(xsaves)

/* ---- restoring ---- */

struct area {
	uint8_t legacy[LEGACY_SIZE];
	uint64_t header[HEADER_SIZE / 8]; /* XSTATE_BV, XCOMP_BV, reserved */
};

static void require(struct cpu *cpu, bool valid)
{
	if (CHECK(XRSTOR_HEADER, !valid))
		cpu_raise(cpu, VECTOR_GP, 0);
}

/* SDM 1 13.8.1 (standard form), 13.8.2 and 13.12 (compacted). */
static void check_header(struct cpu *cpu, const struct area *area, uint64_t enabled, bool supervisor)
{
	const uint64_t *header = area->header;
	uint64_t format = header[1] & ~XCOMP_COMPACTED;
	bool compacted = header[1] & XCOMP_COMPACTED;

	require(cpu, compacted || !supervisor);
	if (!compacted) {
		require(cpu, !(header[0] & ~enabled));
		require(cpu, !header[1] && !header[2]);
		return;
	}
	require(cpu, cpu_has(cpu, FEATURE_xsavec));
	require(cpu, !(format & ~enabled));
	require(cpu, !(header[0] & ~format));
	for (unsigned i = 2; i < HEADER_SIZE / 8; i++)
		require(cpu, !header[i]);
}

static void init_x87(struct cpu *cpu)
{
	cpu->fcw = 0x37f;
	cpu->ftw = 0xffff;
	cpu->fsw = cpu->fop = cpu->fcs = cpu->fds = 0;
	cpu->fip = cpu->fdp = 0;
	for (unsigned i = 0; i < 8; i++)
		cpu->st[i] = (struct x87_register){0};
}

static void init_xmm(struct cpu *cpu)
{
	for (unsigned i = 0; i < xmm_count(cpu); i++)
		cpu->vector[4 * i] = cpu->vector[4 * i + 1] = 0;
}

/* What MXCSR becomes: see SDM 1 13.8.1 and 13.8.2, where the forms differ. */
static uint32_t restored_mxcsr(struct cpu *cpu, const struct area *area, uint64_t rfbm, bool compacted)
{
	if (!(rfbm & (compacted ? XCR0_SSE : XCR0_SSE | XCR0_AVX)))
		return cpu->mxcsr;
	if (compacted && !(area->header[0] & XCR0_SSE))
		return MXCSR_RESET;
	return image_mxcsr(cpu, area->legacy);
}

/*
 * PKRU and the upper halves as they will be (0 where the area leaves them initial); the reads can fault, so they stand
 * before anything is loaded.
 */
static uint32_t restored_pkru(struct cpu *cpu, const struct insn *insn, uint64_t offset,
			      const struct area *area, uint64_t rfbm)
{
	uint32_t pkru = 0;

	if (!(rfbm & XCR0_PKRU))
		return cpu->pkru;
	if (area->header[0] & XCR0_PKRU)
		mem_read_bytes(cpu, insn->segment,
			       offset + component_offset(cpu, COMPONENT_PKRU, area->header[1]), &pkru, 4, 1);
	return pkru;
}

static void read_avx(struct cpu *cpu, const struct insn *insn, uint64_t offset, const struct area *area,
		     uint64_t rfbm, uint8_t image[AVX_SIZE])
{
	if (rfbm & area->header[0] & XCR0_AVX)
		mem_read_bytes(cpu, insn->segment,
			       offset + component_offset(cpu, COMPONENT_AVX, area->header[1]), image,
			       avx_size(cpu), 1);
}

HANDLER_INLINE void restore(struct cpu *cpu, const struct insn *insn, uint64_t enabled, bool supervisor)
{
	uint64_t rfbm = requested(cpu, enabled);
	uint64_t offset = aligned_offset(cpu, insn, LEGACY_SIZE + HEADER_SIZE, 64, ACCESS_READ);
	uint8_t avx[AVX_SIZE] = {0};
	struct area area;

	/* The header says whether the rest is valid, so it is read first. */
	mem_read_bytes(cpu, insn->segment, offset + LEGACY_SIZE, area.header, HEADER_SIZE, 1);
	check_header(cpu, &area, enabled, supervisor);
	bool compacted = area.header[1] & XCOMP_COMPACTED;
	mem_read_bytes(cpu, insn->segment, offset, area.legacy, LEGACY_SIZE, 1);
	mxcsr_collect(cpu);
	uint32_t mxcsr = restored_mxcsr(cpu, &area, rfbm, compacted);
	uint32_t pkru = restored_pkru(cpu, insn, offset, &area, rfbm);
	read_avx(cpu, insn, offset, &area, rfbm, avx);

	if (rfbm & XCR0_X87) {
		if (area.header[0] & XCR0_X87)
			load_x87(cpu, area.legacy, is_wide(insn));
		else
			init_x87(cpu);
	}
	if (rfbm & XCR0_SSE) {
		if (area.header[0] & XCR0_SSE)
			load_xmm(cpu, area.legacy);
		else
			init_xmm(cpu);
	}
	if (rfbm & XCR0_AVX)
		load_avx(cpu, avx);
	cpu->mxcsr = mxcsr;
	mxcsr_load(cpu);
	cpu->pkru = pkru;
	tlb_select(cpu);
}

static inline void xrstor(struct cpu *cpu, const struct insn *insn) { restore(cpu, insn, cpu->xcr0, false); }
DEFINE_INSN(xrstor)

static inline void xrstors(struct cpu *cpu, const struct insn *insn)
{
	restore(cpu, insn, cpu->xcr0 | cpu->msr.xss, true);
}
DEFINE_INSN(xrstors)
