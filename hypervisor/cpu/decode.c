/* decode.c: from bytes to struct insn (SDM 2A chapter 2). */
#include "cpu/pattern.h"

#define INSN_MAX 15 /* SDM 2A 2.3.11 */

/* Where decoding of one instruction stands. */
struct decoder {
	struct insn *insn;
	const uint8_t *at, *start, *end;
	const struct profile *profile;
	uint32_t mode;
	uint8_t rex;
	uint8_t mandatory; /* the one of enum prefix_set that is there */
	int8_t segment;    /* override, or -1 */
	bool long_mode;
	bool vsib;    /* the index is a vector's number */
	bool missing; /* ran into end */
};

static uint64_t take(struct decoder *d, unsigned size)
{
	uint64_t value = 0;

	if ((size_t)(d->end - d->at) < size) {
		d->missing = true;
		return 0;
	}
	__builtin_memcpy(&value, d->at, size);
	d->at += size;
	return value;
}

static int64_t take_signed(struct decoder *d, unsigned size)
{
	return (int64_t)sign_extend(take(d, size), size * 8);
}

/* ---- prefixes ---- */

/* 1 + segment register for overrides, and the others. */
enum prefix_kind {
	KIND_NONE,
	KIND_SEGMENT = 1,
	KIND_66 = 8,
	KIND_67,
	KIND_LOCK,
	KIND_REPNE,
	KIND_REP,
	KIND_REX
};

static const uint8_t prefix_kinds[256] = {
	[0x26] = KIND_SEGMENT + ES, [0x2e] = KIND_SEGMENT + CS, [0x36] = KIND_SEGMENT + SS,
	[0x3e] = KIND_SEGMENT + DS, [0x64] = KIND_SEGMENT + FS, [0x65] = KIND_SEGMENT + GS,
	[0x66] = KIND_66,           [0x67] = KIND_67,           [0xf0] = KIND_LOCK,
	[0xf2] = KIND_REPNE,        [0xf3] = KIND_REP,          [0x40 ... 0x4f] = KIND_REX,
};

/* One legacy prefix. */
static void take_prefix(struct decoder *d, unsigned kind)
{
	struct insn *insn = d->insn;

	switch (kind) {
	case KIND_66: insn->prefixes |= PREFIX_66; break;
	case KIND_67: insn->prefixes |= PREFIX_67; break;
	case KIND_LOCK: insn->prefixes |= PREFIX_LOCK; break;
	case KIND_REPNE: insn->prefixes = (uint8_t)((insn->prefixes & ~PREFIX_REP) | PREFIX_REPNE); break;
	case KIND_REP: insn->prefixes = (uint8_t)((insn->prefixes & ~PREFIX_REPNE) | PREFIX_REP); break;
	default:
		insn->prefixes |= PREFIX_SEGMENT;
		/* In 64-bit mode only FS and GS mean something (SDM 2A 2.1.1), and the others do not undo
		 * them. */
		if (!d->long_mode || kind >= KIND_SEGMENT + FS)
			d->segment = (int8_t)(kind - KIND_SEGMENT);
	}
}

/* All prefixes. A REX that another prefix follows is ignored (SDM 2A 2.2.1). */
static void take_prefixes(struct decoder *d)
{
	for (; d->at < d->end; d->at++) {
		unsigned kind = prefix_kinds[*d->at];

		if (likely(kind == KIND_NONE) || (kind == KIND_REX && !d->long_mode))
			break;
		if (kind == KIND_REX) {
			d->rex = *d->at;
		} else {
			d->rex = 0;
			take_prefix(d, kind);
		}
	}
	if (d->rex)
		d->insn->prefixes |= d->rex & 8 ? PREFIX_REX | PREFIX_REX_W : PREFIX_REX;
	d->mandatory = d->insn->prefixes & PREFIX_REP     ? PREFIXES_F3
		       : d->insn->prefixes & PREFIX_REPNE ? PREFIXES_F2
		       : d->insn->prefixes & PREFIX_66    ? PREFIXES_66
							  : PREFIXES_NP;
}

/* ---- opcode ---- */

/*
 * VEX, EVEX and XOP begin with bytes that are LES, LDS, BOUND and POP elsewhere: in 64-bit mode,
 * or where ModRM.mod would be 3 (SDM 2A 2.3.5); XOP where the map field is at least 8 (APM 3 1.8).
 * Answers OK for VEX, with @vex set, and for none of them.
 */
static enum decode_result find_vector_prefix(struct decoder *d, uint8_t opcode, bool *vex)
{
	bool protected = (d->mode & (CODE_PE | CODE_VM86)) == CODE_PE;

	if (likely(opcode != 0xc4 && opcode != 0xc5 && opcode != 0x62 && opcode != 0x8f))
		return DECODE_OK;
	if (d->at == d->end)
		return opcode != 0x8f || d->long_mode ? DECODE_TRUNCATED : DECODE_OK;
	if (opcode == 0x8f)
		return (*d->at & 0x1f) >= 8 && protected ? DECODE_UNDEFINED : DECODE_OK;
	if (!d->long_mode && *d->at < 0xc0)
		return DECODE_OK;
	/* No other prefix that changes the opcode may stand before it (SDM 2A 2.3.2 to 2.3.4). */
	if (opcode == 0x62 || !protected ||
	    d->insn->prefixes & (PREFIX_66 | PREFIX_REP | PREFIX_REPNE | PREFIX_LOCK | PREFIX_REX))
		return DECODE_UNDEFINED;
	*vex = true;
	return DECODE_OK;
}

/*
 * The rest of a VEX prefix and the opcode behind it (SDM 2A 2.3.5). Outside 64-bit mode there are eight registers:
 * B means nothing, nor does vvvv's top bit where vvvv names one. False: its map is reserved.
 */
static bool take_vex(struct decoder *d, bool two_bytes, enum opcode_map *map, uint8_t *opcode)
{
	static const uint8_t mandatory[4] = {PREFIXES_NP, PREFIXES_66, PREFIXES_F3, PREFIXES_F2};
	unsigned first = (unsigned)take(d, 1), last = first, select = 1, extensions = ~first >> 5 & 4;

	if (!two_bytes) {
		last = (unsigned)take(d, 1);
		select = first & 31;
		extensions = (~first >> 5 & 7) | (last >> 4 & 8);
	}
	if (!d->long_mode)
		extensions &= 8;
	d->rex = (uint8_t)(0x40 | extensions);
	d->mandatory = mandatory[last & 3];
	d->insn->vvvv = (uint8_t)(~last >> 3 & 15);
	d->insn->vector_length = last & 4 ? 32 : 16;
	if (extensions & 8 && d->long_mode)
		d->insn->prefixes |= PREFIX_REX_W;
	*opcode = (uint8_t)take(d, 1);
	*map = (enum opcode_map)(MAP_VEX_0F + select - 1);
	return select >= 1 && select <= 3;
}

static enum opcode_map take_map(struct decoder *d, uint8_t *opcode)
{
	enum opcode_map map = MAP_ONE_BYTE;

	*opcode = (uint8_t)take(d, 1);
	if (*opcode == 0x0f) {
		map = MAP_0F;
		*opcode = (uint8_t)take(d, 1);
		if (*opcode == 0x38 || *opcode == 0x3a) {
			map = *opcode == 0x38 ? MAP_0F38 : MAP_0F3A;
			*opcode = (uint8_t)take(d, 1);
		}
	}
	return map;
}

static inline bool bytes_fit(const struct decoder *d, const struct pattern *p, unsigned modrm)
{
	if (!(p->prefixes & d->mandatory) || !(p->rex & 1u << (d->rex & 9)))
		return false;
	if (p->vector && (!(p->vector & (d->insn->vector_length >> 4)) || (!p->has_vvvv && d->insn->vvvv)))
		return false;
	if (!p->has_modrm)
		return true;
	return (p->regs >> (modrm >> 3 & 7) & 1) &&
	       (p->mods & (modrm >= 0xc0 ? MODS_REGISTER : MODS_MEMORY)) &&
	       (p->modrm < 0 || (p->modrm <= (int)modrm && modrm <= p->modrm_last));
}

static inline bool mode_fits(const struct decoder *d, const struct pattern *p)
{
	if (p->modes != MODES_ANY && (p->modes == MODES_ONLY_64) != d->long_mode) {
		gate_note(p->row, REACHED_MODES);
		return false;
	}
	if (likely(!p->feature) || !d->profile || profile_has(d->profile, (enum feature)p->feature))
		return true;
	gate_note(p->row, REACHED_FEATURE);
	return false;
}

/* The first pattern that fits; NULL with @result where there is none. */
static const struct pattern *find_pattern(struct decoder *d, enum opcode_map map, uint8_t opcode,
					  enum decode_result *result)
{
	struct pattern_list list = pattern_candidates(map, opcode);
	unsigned modrm = d->at < d->end ? *d->at : 0;

	*result = map < MAP_VEX_0F ? DECODE_UNMODELLED : DECODE_UNDEFINED;
	for (unsigned i = 0; i < list.count; i++) {
		const struct pattern *p = list.list[i];

		if (p->has_modrm && d->at == d->end) {
			d->missing = true;
			return NULL;
		}
		if (!bytes_fit(d, p, modrm))
			continue;
		if (likely(mode_fits(d, p)))
			return p;
		*result = DECODE_UNDEFINED;
	}
	return NULL;
}

/* ---- ModRM ---- */

/* SDM 2A table 2-1. */
static void take_address16(struct decoder *d, unsigned modrm)
{
	static const uint8_t bases[8] = {RBX, RBX, RBP, RBP, RSI, RDI, RBP, RBX};
	static const uint8_t indexes[4] = {RSI, RDI, RSI, RDI};
	struct insn *insn = d->insn;
	unsigned mod = modrm >> 6, rm = modrm & 7;

	insn->base = bases[rm];
	insn->index = rm < 4 ? indexes[rm] : REG_ZERO;
	insn->segment = insn->base == RBP ? SS : DS;
	if (mod == 0 && rm == 6) {
		insn->base = REG_ZERO;
		insn->segment = DS;
		insn->disp = take_signed(d, 2);
	} else if (mod) {
		insn->disp = take_signed(d, mod);
	}
}

/* SDM 2A table 2-3. */
static void take_sib(struct decoder *d, unsigned mod)
{
	struct insn *insn = d->insn;
	unsigned sib = (unsigned)take(d, 1);
	unsigned index = (sib >> 3 & 7) | (d->rex & 2 ? 8 : 0);

	insn->scale = (uint8_t)(sib >> 6);
	insn->index = (uint8_t)(index == RSP && !d->vsib ? REG_ZERO : index);
	insn->base = (uint8_t)((sib & 7) | (d->rex & 1 ? 8 : 0));
	if (mod == 0 && (sib & 7) == RBP) {
		insn->base = REG_ZERO;
		insn->disp = take_signed(d, 4);
	}
}

/* SDM 2A tables 2-2, 2-7. A RIP-relative displacement waits for the length: see decode(). */
static void take_address(struct decoder *d, unsigned modrm)
{
	struct insn *insn = d->insn;
	unsigned mod = modrm >> 6, rm = modrm & 7;

	insn->index = REG_ZERO;
	if (rm == RSP) {
		take_sib(d, mod);
	} else if (mod == 0 && rm == RBP) {
		insn->base = d->long_mode ? REG_TRACE_RIP : REG_ZERO;
		insn->disp = take_signed(d, 4);
	} else {
		insn->base = (uint8_t)(rm | (d->rex & 1 ? 8 : 0));
	}
	insn->segment = insn->base == RSP || insn->base == RBP ? SS : DS;
	if (mod)
		insn->disp = take_signed(d, mod == 1 ? 1 : 4);
}

/* The register that @low names, with REX's bit @high. */
static inline uint8_t register_code(const struct decoder *d, enum register_kind kind, unsigned low, bool high)
{
	unsigned number = low | (high ? 8 : 0);

	switch (kind) {
	case REGISTER_BYTE:
		if (!d->rex && low >= 4)
			return (uint8_t)(8 * (low - 4) + 1);
		return (uint8_t)(8 * number);
	case REGISTER_LOW:
	case REGISTER_SEGMENT: return (uint8_t)low;
	default: return (uint8_t)number;
	}
}

/* Registers that do not exist (SDM 2B MOV, MOV CR, MOV DR). */
static bool register_exists(struct decoder *d, const struct pattern *p)
{
	struct insn *insn = d->insn;

	switch (p->reg_kind) {
	case REGISTER_SEGMENT: return insn->reg <= GS && !(p->segment_written && insn->reg == CS);
	case REGISTER_CONTROL:
		/* AMD: LOCK MOV CR0 is MOV CR8 (APM 3 MOV CRn). */
		if (insn->prefixes & PREFIX_LOCK && insn->reg < 8 && d->profile &&
		    profile_has(d->profile, FEATURE_cr8_legacy)) {
			insn->reg |= 8;
			insn->prefixes &= (uint8_t)~PREFIX_LOCK;
		}
		return insn->reg < 16 && (0x11d >> insn->reg & 1);
	case REGISTER_DEBUG: return insn->reg < 8;
	default: return true;
	}
}

/* Answers whether the operand is memory. */
static bool take_modrm(struct decoder *d, const struct pattern *p)
{
	struct insn *insn = d->insn;
	unsigned modrm = (unsigned)take(d, 1);

	insn->modrm = (uint8_t)(p->mod_ignored ? modrm | 0xc0 : modrm);
	insn->reg = register_code(d, p->reg_kind, modrm >> 3 & 7, d->rex & 4);
	if (insn->modrm >= 0xc0) {
		insn->rm = register_code(d, p->rm_kind, modrm & 7, d->rex & 1);
		return false;
	}
	if (insn->address_width == 2)
		take_address16(d, modrm);
	else
		take_address(d, modrm);
	return true;
}

/* ---- sizes and immediates ---- */

static uint8_t operand_width(const struct decoder *d, const struct pattern *p)
{
	bool small = d->insn->prefixes & PREFIX_66, wide = d->rex & 8 && d->long_mode;
	bool amd = d->profile && d->profile->vendor == VENDOR_AMD;
	unsigned flags = p->flags;

	if (flags & FLAG_BYTE)
		return 1;
	if (p->size == SIZE_MODE)
		return d->long_mode ? 8 : 4;
	if (p->size == SIZE_WIDE)
		return wide ? 8 : 4;
	if (d->long_mode) {
		if (flags & FLAG_NEAR)
			flags |= amd ? FLAG_D64 : FLAG_F64;
		if (wide || flags & FLAG_F64)
			return 8;
		if (flags & FLAG_D64)
			return small ? 2 : 8;
		return small ? 2 : 4;
	}
	return small == ((d->mode & CODE_SIZE) == CODE_16) ? 4 : 2;
}

static int64_t take_immediate(struct decoder *d, enum immediate kind)
{
	struct insn *insn = d->insn;
	unsigned z = insn->width == 2 ? 2 : 4;

	switch (kind) {
	case IMMEDIATE_NONE: return 0;
	case IMMEDIATE_BYTE: return (int64_t)take(d, 1);
	case IMMEDIATE_BYTE_SIGNED: return take_signed(d, 1);
	case IMMEDIATE_WORD: return (int64_t)take(d, 2);
	case IMMEDIATE_Z: return take_signed(d, z);
	case IMMEDIATE_V: return take_signed(d, insn->width);
	case IMMEDIATE_FAR: {
		int64_t offset = (int64_t)take(d, z);

		insn->imm2 = (uint16_t)take(d, 2);
		return offset;
	}
	}
	return 0;
}

static void set_address_width(struct decoder *d)
{
	static const uint8_t widths[4][2] = {[CODE_16] = {2, 4}, [CODE_32] = {4, 2}, [CODE_64] = {8, 4}};
	bool other = d->insn->prefixes & PREFIX_67;

	d->insn->address_width = widths[d->mode & CODE_SIZE][other];
	d->insn->address_shift = (uint8_t)(64 - 8 * d->insn->address_width);
}

/* Operands of @p; the bytes after the opcode. Answers whether there is a memory operand. */
static bool take_operands(struct decoder *d, const struct pattern *p, uint8_t opcode)
{
	struct insn *insn = d->insn;
	bool memory = p->moffs;

	if (p->has_modrm) {
		memory = take_modrm(d, p);
	} else if (p->plus_register) {
		insn->reg = insn->rm = register_code(d, p->reg_kind, opcode & 7, d->rex & 1);
	}
	if (d->segment >= 0)
		insn->segment = (uint8_t)d->segment;
	insn->width = operand_width(d, p);
	if (p->moffs)
		insn->disp = (int64_t)take(d, insn->address_width);
	if (p->immediate[0] != IMMEDIATE_NONE) {
		insn->imm = take_immediate(d, p->immediate[0]);
		if (p->immediate[1] != IMMEDIATE_NONE)
			insn->imm2 = (uint16_t)take(d, 1);
	}
	return memory;
}

/* Whether a hypervisor is asked before the row's handler; a profile has AMD-V or VT-x. */
static bool concerns_hypervisor(const struct profile *profile, const struct opcode *o)
{
	if (profile && profile->vendor == VENDOR_INTEL)
		return o->vmx || o->vmx_enable;
	return o->svm;
}

static enum decode_result decode_pattern(struct decoder *d, const struct pattern *p, uint8_t opcode)
{
	struct insn *insn = d->insn;
	bool memory;

	set_address_width(d);
	d->vsib = p->vsib;
	memory = take_operands(d, p, opcode);
	insn->length = (uint8_t)(d->at - d->start);
	if (insn->base == REG_TRACE_RIP)
		insn->disp += insn->length;
	if (unlikely(p->reg_kind >= REGISTER_SEGMENT) && p->has_modrm && !register_exists(d, p))
		return DECODE_UNDEFINED;
	/* VSIB needs a SIB byte, which 16-bit addresses do not have (SDM 2A 2.3.12). */
	if (unlikely(p->vsib) && ((insn->modrm & 7) != RSP || insn->address_width == 2))
		return DECODE_UNDEFINED;
	if (!d->long_mode)
		insn->vvvv &= 7;
	if (p->vector == VECTOR_LIG)
		insn->vector_length = 16;
	if (unlikely(insn->prefixes & PREFIX_LOCK) && !(p->flags & FLAG_LOCK && memory)) {
		gate_note(p->row, REACHED_LOCK);
		if (!p->lock_broken)
			return DECODE_UNDEFINED;
	}
	if (unlikely(p->reserved || p->unmodelled))
		return p->reserved ? DECODE_UNDEFINED : DECODE_UNMODELLED;
	insn->opcode = p->row;
	/* Gates that are open wherever this decoded form runs need no check each time. */
	if (unlikely(d->mode & CODE_GUEST && concerns_hypervisor(d->profile, &opcode_table[p->row]))) {
		insn->run = gate_run_guest;
		return DECODE_OK;
	}
	insn->run = p->gates & ~(d->mode & CODE_FP ? GATES_OF_CODE_FP : 0)
			    ? gate_run
			    : opcode_table[p->row].handlers->run[memory][__builtin_ctz(insn->width)];
	return DECODE_OK;
}

enum decode_result decode(struct insn *insn, const uint8_t *bytes, size_t available, uint32_t code_mode,
			  const struct profile *profile)
{
	size_t room = available < INSN_MAX ? available : INSN_MAX;
	struct decoder d = {.insn = insn,
			    .at = bytes,
			    .start = bytes,
			    .end = bytes + room,
			    .profile = profile,
			    .mode = code_mode,
			    .segment = -1,
			    .long_mode = (code_mode & CODE_SIZE) == CODE_64};
	enum decode_result missing = available >= INSN_MAX ? DECODE_TOO_LONG : DECODE_TRUNCATED;
	enum decode_result result;
	const struct pattern *p;
	enum opcode_map map;
	uint8_t opcode;

	*insn = (struct insn){.base = REG_ZERO, .index = REG_ZERO, .segment = DS};
	take_prefixes(&d);
	map = take_map(&d, &opcode);
	insn->length = (uint8_t)(d.at - d.start);
	if (d.missing)
		return missing;
	if (map == MAP_ONE_BYTE) {
		bool vex = false;

		result = find_vector_prefix(&d, opcode, &vex);
		if (unlikely(result != DECODE_OK))
			return result == DECODE_TRUNCATED ? missing : result;
		if (unlikely(vex)) {
			bool valid = take_vex(&d, opcode == 0xc5, &map, &opcode);

			insn->length = (uint8_t)(d.at - d.start);
			if (d.missing)
				return missing;
			if (!valid)
				return DECODE_UNDEFINED;
		}
	}
	p = find_pattern(&d, map, opcode, &result);
	if (likely(p))
		result = decode_pattern(&d, p, opcode);
	if (unlikely(d.missing))
		return missing;
	return result;
}
