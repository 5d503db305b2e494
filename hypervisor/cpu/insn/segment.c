/*
 * segment.c: MOV, PUSH, POP of segment registers, LDS LES LFS LGS LSS, LAR LSL VERR VERW ARPL
 * (SDM 2A, 2B; APM 3).
 */
#include "cpu/segment.h"

#include "cpu/checks.h"
#include "cpu/insn.h"
#include "cpu/mem/mem.h"
#include "cpu/stack.h"

/* ---- MOV, PUSH, POP ---- */

/* To memory always 16 bits; to a register zero-extended to the operand size. */
static inline void mov_es(struct cpu *cpu, const struct insn *insn, unsigned width, bool memory)
{
	uint16_t selector = cpu->segment[insn->reg].s.selector;

	if (memory)
		mem_write(cpu, insn->segment, insn_offset(cpu, insn), selector, 2);
	else
		reg_write(cpu, insn->rm, selector, width);
}
DEFINE_INSN_RM(mov_es)

static uint16_t read_ew(struct cpu *cpu, const struct insn *insn)
{
	if (insn_is_memory(insn))
		return (uint16_t)mem_read(cpu, insn->segment, insn_offset(cpu, insn), 2);
	return (uint16_t)cpu->reg[insn->rm];
}

/* What SS brings besides: the stack's width, and events held off (SDM 3A 6.8.3). */
static void ss_loaded(struct cpu *cpu, bool shadow)
{
	if (shadow)
		cpu->shadow = SHADOW_MOV_SS;
	cpu_mode_changed(cpu);
}

static inline void mov_se(struct cpu *cpu, const struct insn *insn)
{
	segment_load(cpu, insn->reg, read_ew(cpu, insn));
}
DEFINE_INSN(mov_se)

static inline void mov_ss(struct cpu *cpu, const struct insn *insn)
{
	segment_load(cpu, SS, read_ew(cpu, insn));
	ss_loaded(cpu, true);
}
DEFINE_INSN(mov_ss)

/*
 * With a 32-bit operand Intel's processors move 16 bits and leave the upper half of the slot alone
 * (SDM 2B PUSH); AMD's write zeros there (APM 3 PUSH).
 */
static void push_segment(struct cpu *cpu, enum segment_register segment, unsigned width)
{
	uint16_t selector = cpu->segment[segment].s.selector;

	if (width == 4 && cpu->profile->vendor == VENDOR_INTEL) {
		uint64_t rsp = (cpu->reg[RSP] - 4) & cpu->stack_mask;

		mem_write(cpu, SS, rsp, selector, 2);
		stack_set_pointer(cpu, rsp, cpu->stack_mask);
		return;
	}
	stack_push(cpu, selector, width);
}

static void pop_segment(struct cpu *cpu, enum segment_register segment, unsigned width)
{
	uint64_t mask = cpu->stack_mask;
	uint16_t selector = (uint16_t)stack_peek(cpu, 0, width);

	segment_load(cpu, segment, selector);
	stack_set_pointer(cpu, cpu->reg[RSP] + width, mask);
	if (segment == SS)
		ss_loaded(cpu, true);
}

#define PUSH_SEGMENT(name, segment)                                                                     \
	static inline void name(struct cpu *cpu, const struct insn *insn, unsigned width)               \
	{                                                                                               \
		(void)insn;                                                                             \
		push_segment(cpu, segment, width);                                                      \
	}                                                                                               \
	DEFINE_INSN_W(name)
#define POP_SEGMENT(name, segment)                                                                      \
	static inline void name(struct cpu *cpu, const struct insn *insn, unsigned width)               \
	{                                                                                               \
		(void)insn;                                                                             \
		pop_segment(cpu, segment, width);                                                       \
	}                                                                                               \
	DEFINE_INSN_W(name)

PUSH_SEGMENT(push_es, ES)
PUSH_SEGMENT(push_cs, CS)
PUSH_SEGMENT(push_ss, SS)
PUSH_SEGMENT(push_ds, DS)
PUSH_SEGMENT(push_fs, FS)
PUSH_SEGMENT(push_gs, GS)
POP_SEGMENT(pop_es, ES)
POP_SEGMENT(pop_ss, SS)
POP_SEGMENT(pop_ds, DS)
POP_SEGMENT(pop_fs, FS)
POP_SEGMENT(pop_gs, GS)

/* ---- LDS, LES, LFS, LGS, LSS ---- */

/* AMD has no m16:64: REX.W changes nothing (APM 3 LFS). LSS, unlike MOV SS, holds nothing off. */
static void load_far_pointer(struct cpu *cpu, const struct insn *insn, enum segment_register segment,
			     unsigned width)
{
	uint8_t bytes[10] = {0};
	uint64_t offset = 0;

	if (width == 8 && cpu->profile->vendor == VENDOR_AMD)
		width = 4;
	mem_read_bytes(cpu, insn->segment, insn_offset(cpu, insn), bytes, width + 2, 1);
	for (unsigned i = 0; i < width; i++)
		offset |= (uint64_t)bytes[i] << 8 * i;
	segment_load(cpu, segment, (uint16_t)(bytes[width] | bytes[width + 1] << 8));
	reg_write(cpu, insn->reg, offset, width);
	if (segment == SS)
		ss_loaded(cpu, false);
}

#define LOAD_FAR_POINTER(name, segment)                                                                 \
	static inline void name(struct cpu *cpu, const struct insn *insn, unsigned width)               \
	{                                                                                               \
		load_far_pointer(cpu, insn, segment, width);                                            \
	}                                                                                               \
	DEFINE_INSN_W(name)

LOAD_FAR_POINTER(les, ES)
LOAD_FAR_POINTER(lds, DS)
LOAD_FAR_POINTER(lss, SS)
LOAD_FAR_POINTER(lfs, FS)
LOAD_FAR_POINTER(lgs, GS)

/* ---- LAR, LSL, VERR, VERW ---- */

static void set_zf(struct cpu *cpu, bool zf) { cpu->lazy.zero = !zf; }

/* Types of system descriptors that LAR and LSL take, as bits (SDM 2A tables of LAR and LSL). */
#define TYPE_BIT(type) (1u << (type))
#define LSL_IA32E (TYPE_BIT(TYPE_LDT) | TYPE_BIT(TYPE_TSS_AVAILABLE) | TYPE_BIT(TYPE_TSS_BUSY))
#define LSL_LEGACY (LSL_IA32E | TYPE_BIT(TYPE_TSS16_AVAILABLE) | TYPE_BIT(TYPE_TSS16_BUSY))
#define LAR_IA32E (LSL_IA32E | TYPE_BIT(TYPE_CALL_GATE))
#define LAR_LEGACY (LSL_LEGACY | TYPE_BIT(TYPE_CALL_GATE) | TYPE_BIT(TYPE_CALL_GATE16) | TYPE_BIT(TYPE_TASK_GATE))

/* Conforming code may be looked at from anywhere, all else by CPL and RPL <= DPL. */
static bool privilege_allows(const struct cpu *cpu, uint16_t selector, uint32_t attributes)
{
	unsigned dpl = attributes_dpl(attributes);

	if (attributes_conforming(attributes))
		return true;
	return !CHECK(VISIBLE_CPL, cpu->cpl > dpl) && !CHECK(VISIBLE_RPL, (selector & SELECTOR_RPL) > dpl);
}

static bool visible(struct cpu *cpu, uint16_t selector, uint32_t types, struct descriptor *d)
{
	if (!descriptor_try_read(cpu, selector, false, d))
		return false;
	int type = attributes_system_type(d->attributes);
	if (CHECK(VISIBLE_TYPE, type >= 0 && !(types >> type & 1)))
		return false;
	/* Those that LLDT and LTR read with 16 bytes (SDM 2A LSL, the table's note), and call gates. */
	if (type >= 0 && (cpu_wide_system_segments(cpu) || (type == TYPE_CALL_GATE && cpu_ia32e(cpu)))) {
		if (!descriptor_try_read(cpu, selector, true, d))
			return false;
		if (CHECK(VISIBLE_UPPER_TYPE, d->high >> 40 & 0x1f))
			return false;
	}
	return privilege_allows(cpu, selector, d->attributes);
}

/* Intel leaves bits 19:16 undefined, and clears them (SDM 2A LAR); AMD shows them (APM 3 LAR). */
static inline void lar(struct cpu *cpu, const struct insn *insn, unsigned width)
{
	uint32_t mask = cpu->profile->vendor == VENDOR_AMD ? 0x00ffff00 : 0x00f0ff00;
	struct descriptor d;
	bool ok = visible(cpu, read_ew(cpu, insn), cpu_ia32e(cpu) ? LAR_IA32E : LAR_LEGACY, &d);

	if (ok)
		reg_write(cpu, insn->reg, (d.low >> 32) & mask, width);
	set_zf(cpu, ok);
}
DEFINE_INSN_W(lar)

static inline void lsl(struct cpu *cpu, const struct insn *insn, unsigned width)
{
	struct descriptor d;
	bool ok = visible(cpu, read_ew(cpu, insn), cpu_ia32e(cpu) ? LSL_IA32E : LSL_LEGACY, &d);

	if (ok)
		reg_write(cpu, insn->reg, d.limit, width);
	set_zf(cpu, ok);
}
DEFINE_INSN_W(lsl)

static inline void verr(struct cpu *cpu, const struct insn *insn)
{
	uint16_t selector = read_ew(cpu, insn);
	struct descriptor d;

	set_zf(cpu, descriptor_try_read(cpu, selector, false, &d) &&
			    !CHECK(VERR_READABLE, !attributes_readable(d.attributes)) &&
			    privilege_allows(cpu, selector, d.attributes));
}
DEFINE_INSN(verr)

static inline void verw(struct cpu *cpu, const struct insn *insn)
{
	uint16_t selector = read_ew(cpu, insn);
	struct descriptor d;

	set_zf(cpu, descriptor_try_read(cpu, selector, false, &d) &&
			    !CHECK(VERW_WRITABLE, !attributes_writable(d.attributes)) &&
			    privilege_allows(cpu, selector, d.attributes));
}
DEFINE_INSN(verw)

/* ---- ARPL ---- */

static uint16_t adjusted_rpl(struct cpu *cpu, uint16_t destination, uint16_t source)
{
	bool raise = (destination & SELECTOR_RPL) < (source & SELECTOR_RPL);

	set_zf(cpu, raise);
	return raise ? (uint16_t)((destination & ~SELECTOR_RPL) | (source & SELECTOR_RPL)) : destination;
}

static inline void arpl(struct cpu *cpu, const struct insn *insn)
{
	uint16_t source = (uint16_t)cpu->reg[insn->reg];

	if (insn_is_memory(insn)) {
		uint64_t offset = insn_offset(cpu, insn);
		uint16_t old = (uint16_t)mem_read(cpu, insn->segment, offset, 2);

		/* Memory that needs no change is not written (SDM 2A ARPL): it may be read-only. */
		if ((old & SELECTOR_RPL) < (source & SELECTOR_RPL))
			mem_write(cpu, insn->segment, offset, (old & ~SELECTOR_RPL) | (source & SELECTOR_RPL), 2);
		adjusted_rpl(cpu, old, source);
	} else {
		reg_write(cpu, insn->rm, adjusted_rpl(cpu, (uint16_t)cpu->reg[insn->rm], source), 2);
	}
}
DEFINE_INSN(arpl)
