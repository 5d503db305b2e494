/* generate.c: random cases with operands that mean something to their instructions. */
#include "oracle/generate.h"

#include <cpuid.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/pattern.h"
#include "oracle/random.h"

#define INSN_MAX     15
#define SEQUENCE_MAX 6

/* One instruction under construction. */
struct draft {
	uint8_t bytes[40];
	unsigned size;
	unsigned disp_at, disp_size; /* of a displacement or an absolute address */
};

static void put(struct draft *d, uint64_t value, unsigned size)
{
	memcpy(d->bytes + d->size, &value, size);
	d->size += size;
}

/* ---- what is left out ---- */

static const char *const left_out[] = {
#define LEFT_OUT(mnemonic, why) #mnemonic,
#include "oracle/left_out.def"
#undef LEFT_OUT
};

/* Rows that load segment registers or leave the segment share their mnemonics with others. */
static bool touches_segments(const struct opcode *row)
{
	static const char *const destinations[] = {"Sw,Ew", "Ap", "Mp"};

	for (size_t i = 0; i < sizeof(destinations) / sizeof(destinations[0]); i++)
		if (!strcmp(row->operands, destinations[i]))
			return true;
	return !strcmp(row->mnemonic, "POP") && row->operands[1] == 'S';
}

static bool row_left_out(const struct opcode *row)
{
	for (size_t i = 0; i < sizeof(left_out) / sizeof(left_out[0]); i++)
		if (!strcmp(row->mnemonic, left_out[i]))
			return true;
	return touches_segments(row);
}

static bool host_cpuid_bit(uint32_t leaf, uint32_t subleaf, unsigned output, unsigned bit)
{
	uint32_t r[4] = {0};

	return __get_cpuid_count(leaf, subleaf, &r[0], &r[1], &r[2], &r[3]) && r[output] >> bit & 1;
}

/* Whether the bytes may be an instruction of the host that profiles have no name for. */
static bool is_outside(const uint8_t *bytes, unsigned size, bool compatibility)
{
	enum { OUTPUT_eax, OUTPUT_ebx, OUTPUT_ecx, OUTPUT_edx };
	static const struct {
		enum opcode_map map;
		uint8_t first, last, modrm_first, modrm_last;
		uint32_t leaf, subleaf;
		uint8_t output, bit;
	} outside[] = {
#define OUTSIDE(map, first, last, leaf, subleaf, output, bit, name)                                          \
	{map, first, last, 0, 0xff, leaf, subleaf, OUTPUT_##output, bit},
#define OUTSIDE_MODRM(map, opcode, first, last, leaf, subleaf, output, bit, name)                            \
	{map, opcode, opcode, first, last, leaf, subleaf, OUTPUT_##output, bit},
#include "oracle/outside.def"
#undef OUTSIDE
#undef OUTSIDE_MODRM
	};
	enum opcode_map map = MAP_ONE_BYTE;
	unsigned i = 0;

	while (i < size && (strchr("\x26\x2e\x36\x3e\x64\x65\x66\x67", bytes[i]) || bytes[i] >= 0xf2 ||
			    bytes[i] == 0xf0 || (!compatibility && (bytes[i] & 0xf0) == 0x40))) {
		if (!bytes[i] || bytes[i] > 0xf3)
			break;
		i++;
	}
	if (i + 3 > size)
		return false;
	if (bytes[i] == 0x62 && (!compatibility || bytes[i + 1] >= 0xc0))
		return host_cpuid_bit(7, 0, OUTPUT_ebx, 16);
	if (bytes[i] == 0x8f && (bytes[i + 1] & 0x1f) >= 8)
		return host_cpuid_bit(0x80000001, 0, OUTPUT_ecx, 11);
	if ((bytes[i] & 0xfe) == 0xc4 && (!compatibility || bytes[i + 1] >= 0xc0)) {
		map = (enum opcode_map)(MAP_VEX_0F + (bytes[i] == 0xc5 ? 0 : ((bytes[i + 1] & 3) + 3) % 4));
		i += bytes[i] == 0xc5 ? 2 : 3;
	} else if (bytes[i] == 0x0f) {
		map = bytes[i + 1] == 0x38 ? MAP_0F38 : bytes[i + 1] == 0x3a ? MAP_0F3A : MAP_0F;
		i += map == MAP_0F ? 1 : 2;
	} else {
		return false;
	}
	for (size_t n = 0; n < sizeof(outside) / sizeof(outside[0]); n++)
		if (map == outside[n].map && bytes[i] >= outside[n].first && bytes[i] <= outside[n].last &&
		    i + 1 < size && bytes[i + 1] >= outside[n].modrm_first &&
		    bytes[i + 1] <= outside[n].modrm_last &&
		    host_cpuid_bit(outside[n].leaf, outside[n].subleaf, outside[n].output, outside[n].bit))
			return true;
	return false;
}

static uint32_t mode_of(const struct oracle_case *c)
{
	return CODE_PE | CODE_LMA | CODE_STACK32 | CODE_CPL3 | (c->compatibility ? CODE_32 : CODE_64);
}

static enum generated classify_bytes(const struct generator *g, bool compatibility, uint32_t mode,
				     const uint8_t *bytes, struct insn *insn, enum decode_result *result)
{
	*result = decode(insn, bytes, INSN_MAX, mode, &g->profile);
	if (*result == DECODE_UNMODELLED)
		return GENERATED_UNMODELLED;
	if (*result == DECODE_OK && row_left_out(&opcode_table[insn->opcode]))
		return GENERATED_LEFT_OUT;
	if (*result != DECODE_OK && is_outside(bytes, INSN_MAX, compatibility))
		return GENERATED_UNMODELLED;
	return GENERATED;
}

enum generated classify(const struct generator *g, const struct oracle_case *c, unsigned offset,
			struct insn *insn, enum decode_result *result)
{
	uint64_t at = c->in.rip - ARENA_AT + offset;
	uint8_t bytes[INSN_MAX + 1];

	memcpy(bytes, c->memory + at, INSN_MAX);
	return classify_bytes(g, c->compatibility, mode_of(c), bytes, insn, result);
}

/* ---- numbers ---- */

static uint64_t operand(struct random *r)
{
	uint64_t value = random_next(r);

	switch (random_below(r, 8)) {
	case 0: return value >> (value % 64);
	case 1: return 0 - (value & 3);
	case 2: return (1ull << (value % 64)) - (value >> 8 & 1);
	case 3: return (0x8080808080808080ull >> (value % 2)) + (value >> 8 & 3) - 1;
	case 4: return value % 130;
	default: return value;
	}
}

/* A binary64, or two binary32, in the neighbourhood where rounding and exceptions are. */
static uint64_t real(struct random *r)
{
	static const uint32_t singles[] = {0,          0x80000000, 0x3f800000, 0xbf800000,
					   0x7f800000, 0xff800000, 0x7fc00000, 0xffc12345,
					   0x7fa00001, 0x00000001, 0x807fffff, 0x00800000,
					   0x7f7fffff, 0x4f000000, 0xcf000000, 0x4b000001};
	static const uint64_t doubles[] = {0,
					   1ull << 63,
					   0x3ff0000000000000,
					   0x7ff0000000000000,
					   0xfff0000000000000,
					   0x7ff8000000000000,
					   0x7ff4000000000001,
					   1,
					   0x800fffffffffffff,
					   0x0010000000000000,
					   0x7fefffffffffffff,
					   0x41e0000000000000,
					   0xc3e0000000000000,
					   0x36a0000000000000};
	uint64_t value = random_next(r);

	switch (random_below(r, 6)) {
	case 0: return doubles[value % (sizeof(doubles) / 8)];
	case 1: return (uint64_t)singles[value % 16] << 32 | singles[value >> 8 & 15];
	case 2: /* near one */
		return (value & 0x800fffffffffffffull) | (0x3f8ull + (value >> 52 & 0x7f)) << 52;
	case 3: return (value & 0x80ffffff80ffffffull) | 0x3f0000003f000000ull;
	default: return value;
	}
}

static void extended(struct random *r, uint8_t *to)
{
	static const uint16_t exponents[] = {0x3fff, 0, 0x7fff, 0x403e, 0x3fbf, 0x7ffe, 1, 0x4000};
	uint64_t value = random_next(r);
	uint64_t significand = random_once_in(r, 4) ? (value & 7) << 61 : random_next(r);
	uint16_t exponent =
		random_once_in(r, 4) ? exponents[value >> 8 & 7] : (uint16_t)(0x3fe0 + (value >> 8 & 63));

	if (!random_once_in(r, 16) && exponent) /* else a pseudo-denormal or an unsupported one */
		significand |= 1ull << 63;
	exponent |= (uint16_t)(value >> 63 << 15);
	memcpy(to, &significand, 8);
	memcpy(to + 8, &exponent, 2);
}

static void fill_fx(struct random *r, struct fx_image *fx)
{
	uint64_t value = random_next(r);

	memset(fx, 0, sizeof(*fx));
	fx->fcw = (uint16_t)(0x37f | (value & 0xc00));
	if (value & 0x1000)
		fx->fcw = (uint16_t)(0x40 | (value >> 16 & 0xf3f));
	fx->fsw = (uint16_t)(value >> 32 & 0x7f00);
	fx->ftw = (uint8_t)(value >> 48);
	if (value & 0x2000)
		fx->ftw = 0xff;
	fx->mxcsr = 0x1f80 | (uint32_t)(value >> 16 & 0xe040);
	if (value & 0x4000)
		fx->mxcsr = (uint32_t)(value >> 24 & 0xffff);
	for (unsigned i = 0; i < 8; i++)
		extended(r, fx->st[i]);
	if (random_once_in(r, 4)) /* as MMX instructions leave it */
		for (unsigned i = 0; i < 8; i++)
			memset(fx->st[i] + 8, 0xff, 2);
	for (unsigned i = 0; i < 16; i++)
		for (unsigned half = 0; half < 16; half += 8) {
			uint64_t x = i & 8 ? operand(r) : real(r);

			memcpy(fx->xmm[i] + half, &x, 8);
		}
}

/* Where a memory operand lies. */
static uint64_t place(struct random *r, const struct oracle_case *c)
{
	uint64_t page = ARENA_AT + ARENA_PAGE, value = random_next(r);

	switch (random_below(r, 24)) {
	case 0: return page - (value & 31);                  /* from the code's page into the next */
	case 1: return page + ARENA_PAGE - (value & 31);     /* into the one that is read-only */
	case 2: return page + 2 * ARENA_PAGE - (value & 31); /* and out of it */
	case 3: return c->in.rip + (value & 127) - 80;       /* beside the code, or the code */
	case 4: return page + ARENA_PAGE + (value & 0xff0);  /* read-only */
	case 5: return value & 0x100 ? value : ARENA_AT - (value & 15); /* nowhere */
	case 6:
	case 7:
	case 8: return page + (value % (ARENA_PAGE - 64));
	default: return page + 64 + ((value & 0xfff) % (ARENA_PAGE - 192) & ~15ull);
	}
}

static void fill_state(struct random *r, const struct generator *g, struct oracle_case *c)
{
	uint64_t value = random_next(r);

	for (unsigned i = 0; i < GPR_COUNT; i++)
		c->in.gpr[i] = operand(r);
	c->in.gpr[RSP] = place(r, c) & (random_once_in(r, 8) ? ~0ull : ~7ull);
	c->in.rflags = RFLAGS_FIXED | RFLAGS_IF | (value & RFLAGS_STATUS);
	if (!(value >> 40 & 7))
		c->in.rflags |= RFLAGS_DF;
	if (!(value >> 44 & 15))
		c->in.rflags |= RFLAGS_AC;
	c->in.fs_base = ARENA_AT + (value >> 48 & 0xff0);
	c->in.gs_base = random_once_in(r, 4) ? 0x7fff00000000 : ARENA_AT + 0x10;
	if (c->compatibility) {
		c->in.gs_base = (uint32_t)c->in.gs_base;
		for (unsigned i = 0; i < 8; i++)
			c->in.gpr[i] = (uint32_t)c->in.gpr[i];
	}
	fill_fx(r, &c->in.fx);
	if (profile_has(&g->profile, FEATURE_avx))
		for (unsigned i = 0; i < 16; i++)
			for (unsigned half = 0; half < 16; half += 8) {
				uint64_t x = random_once_in(r, 4) ? 0 : i & 8 ? operand(r) : real(r);

				memcpy(c->in.ymm_high[i] + half, &x, 8);
			}
}

/* ---- encodings ---- */

static void put_random_prefix(struct random *r, struct draft *d)
{
	static const uint8_t prefixes[] = {0x66, 0x67, 0xf2, 0xf3, 0xf0, 0x64, 0x65, 0x26, 0x2e, 0x36, 0x3e};

	put(d, prefixes[random_below(r, sizeof(prefixes))], 1);
}

static void put_prefixes(struct random *r, struct draft *d, const struct pattern *p)
{
	while (random_once_in(r, p->vector ? 16 : 4))
		put_random_prefix(r, d);
	if (p->vector)
		return;
	if (p->prefixes == PREFIXES_ANY && random_once_in(r, 4))
		put(d, 0x66, 1);
	if (p->prefixes == PREFIXES_66)
		put(d, 0x66, 1);
	if (p->prefixes == PREFIXES_F3 || p->prefixes == PREFIXES_F2)
		put(d, p->prefixes == PREFIXES_F3 ? 0xf3 : 0xf2, 1);
	if (p->flags & FLAG_REP && random_once_in(r, 2))
		put(d, random_once_in(r, 2) ? 0xf2 : 0xf3, 1);
	if (p->flags & FLAG_LOCK && random_once_in(r, 8))
		put(d, 0xf0, 1);
}

static void put_rex(struct random *r, struct draft *d, const struct pattern *p)
{
	unsigned rex = random_below(r, 16);

	if (p->rex == REX_W1)
		rex |= 8;
	if (p->rex == REX_W0)
		rex &= 7;
	if (p->rex == REX_B0)
		rex &= 14;
	if (p->rex == REX_W1 || random_once_in(r, 2))
		put(d, 0x40 | rex, 1);
}

/* A VEX prefix that fits, mostly, of either length. */
static void put_vex(struct random *r, struct draft *d, const struct pattern *p, bool compatibility)
{
	static const uint8_t prefixes[PREFIXES_ANY + 1] = {[PREFIXES_66] = 1, [PREFIXES_F3] = 2, [PREFIXES_F2] = 3};
	bool odd = random_once_in(r, 32);
	unsigned vvvv = p->has_vvvv || odd ? random_below(r, 16) : 0, extensions = random_below(r, 8);
	unsigned length = p->vector == VECTOR_128 ? 0 : p->vector == VECTOR_256 ? 1 : random_below(r, 2);
	unsigned wide = p->rex == REX_W1 ? 1 : p->rex == REX_W0 ? 0 : random_below(r, 2);

	if (odd)
		length = random_below(r, 2);
	if (compatibility) {
		extensions &= 1;
		vvvv &= 7;
	}
	if (p->map == MAP_VEX_0F && !wide && random_once_in(r, 2)) {
		put(d, 0xc5, 1);
		put(d, (~extensions & 4) << 5 | (~vvvv & 15) << 3 | length << 2 | prefixes[p->prefixes], 1);
		return;
	}
	put(d, 0xc4, 1);
	put(d, (~extensions & 7) << 5 | (unsigned)(p->map - MAP_VEX_0F + 1), 1);
	put(d, wide << 7 | (~vvvv & 15) << 3 | length << 2 | prefixes[p->prefixes], 1);
}

static void put_displacement(struct random *r, struct draft *d, unsigned size)
{
	d->disp_at = d->size;
	d->disp_size = size;
	put(d, operand(r), size);
}

static void put_address(struct random *r, struct draft *d, unsigned modrm, bool address16)
{
	unsigned mod = modrm >> 6, rm = modrm & 7;

	if (mod == 3)
		return;
	if (address16) {
		if (mod || rm == 6)
			put_displacement(r, d, mod == 1 ? 1 : 2);
		return;
	}
	if (rm == 4) {
		unsigned sib = random_below(r, 256);

		put(d, sib, 1);
		rm = sib & 7;
	}
	if (mod == 1)
		put_displacement(r, d, 1);
	else if (mod == 2 || rm == 5)
		put_displacement(r, d, 4);
}

static unsigned choose_modrm(struct random *r, const struct pattern *p)
{
	unsigned modrm;

	if (p->modrm >= 0)
		return (unsigned)p->modrm + random_below(r, (unsigned)(p->modrm_last - p->modrm) + 1);
	do {
		modrm = random_below(r, 256);
	} while (!(p->regs >> (modrm >> 3 & 7) & 1) || (p->vsib && (modrm & 7) != RSP) ||
		 !(p->mods & (modrm >= 0xc0 ? MODS_REGISTER : MODS_MEMORY)));
	return modrm;
}

/* An encoding of @p with random forms, and random bytes behind it. */
static void draft_row(struct random *r, struct draft *d, const struct pattern *p, bool compatibility)
{
	bool small;

	put_prefixes(r, d, p);
	small = memchr(d->bytes, 0x67, d->size);
	if (p->vector)
		put_vex(r, d, p, compatibility);
	else if (!compatibility)
		put_rex(r, d, p);
	if (p->map != MAP_ONE_BYTE && !p->vector)
		put(d, 0x0f, 1);
	if (p->map == MAP_0F38 || p->map == MAP_0F3A)
		put(d, p->map == MAP_0F38 ? 0x38 : 0x3a, 1);
	put(d, p->opcode + random_below(r, (unsigned)(p->opcode_last - p->opcode) + 1), 1);
	if (p->has_modrm) {
		unsigned modrm = choose_modrm(r, p);

		put(d, modrm, 1);
		if (!p->mod_ignored)
			put_address(r, d, modrm, small && compatibility);
	} else if (p->moffs) {
		put_displacement(r, d, compatibility ? small ? 2 : 4 : small ? 4 : 8);
	}
	put(d, operand(r), 8);
	put(d, operand(r), 8);
}

/* ---- operands ---- */

/* A gather's indexes: small, so that some of the elements are in the arena. */
static void aim_indexes(struct oracle_case *c, const struct insn *insn)
{
	bool wide = strstr(opcode_table[insn->opcode].mnemonic, "GATHERQ");
	uint8_t *halves[2] = {c->in.fx.xmm[insn->index & 15], c->in.ymm_high[insn->index & 15]};

	for (unsigned i = 0; i < 32; i += wide ? 8 : 4) {
		uint8_t *element = halves[i / 16] + i % 16;
		int64_t index = (int8_t)element[0];

		memcpy(element, &index, wide ? 8 : 4);
	}
}

/* Changes the state or the displacement so that the operand lies at @target. */
static void aim(struct oracle_case *c, struct draft *d, const struct insn *insn, uint64_t target)
{
	uint64_t bases[SEGMENT_COUNT] = {[FS] = c->in.fs_base, [GS] = c->in.gs_base};
	uint64_t *gpr = c->in.gpr;
	uint64_t offset = target - bases[insn->segment];
	bool vsib = pattern_of(insn->opcode)->vsib;
	uint64_t indexed = insn->index < GPR_COUNT && !vsib ? gpr[insn->index] << insn->scale : 0;

	if (vsib)
		aim_indexes(c, insn);
	if (insn->base < GPR_COUNT && (vsib || insn->base != insn->index)) {
		gpr[insn->base] = offset - indexed - (uint64_t)insn->disp;
	} else if (insn->base == REG_ZERO && insn->index < GPR_COUNT && !vsib) {
		gpr[insn->index] = (offset - (uint64_t)insn->disp) >> insn->scale;
	} else if (insn->base >= GPR_COUNT && d->disp_size >= 4) {
		uint64_t origin = insn->base == REG_TRACE_RIP ? c->in.rip + insn->length : 0;
		uint64_t disp = offset - origin - indexed;

		memcpy(d->bytes + d->disp_at, &disp, d->disp_size);
	}
}

static bool named(const struct opcode *row, const char *const *names, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (!strcmp(row->mnemonic, names[i]))
			return true;
	return false;
}
#define NAMED(row, ...)                                                                                      \
	named(row, (const char *const[]){__VA_ARGS__},                                                       \
	      sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))

/* Operands that are not in ModRM. */
static void aim_implicit(struct random *r, struct oracle_case *c, const struct insn *insn,
			 const struct opcode *row)
{
	uint64_t *gpr = c->in.gpr;

	if (row->flags & FLAG_REP) {
		bool near = insn->prefixes & PREFIX_SEGMENT && !random_once_in(r, 8);

		gpr[RSI] = place(r, c) - (near && insn->segment == FS ? c->in.fs_base : 0);
		gpr[RDI] = place(r, c);
		if (insn->prefixes & (PREFIX_REP | PREFIX_REPNE))
			gpr[RCX] = random_below(r, 40);
	}
	if (NAMED(row, "XLAT"))
		gpr[RBX] = place(r, c) - (uint8_t)gpr[RAX];
	if (NAMED(row, "MASKMOVDQU", "MASKMOVQ", "VMASKMOVDQU"))
		gpr[RDI] = place(r, c);
	if (NAMED(row, "LEAVE", "ENTER"))
		gpr[RBP] = place(r, c);
	if (NAMED(row, "CLZERO"))
		gpr[RAX] = place(r, c);
	if (NAMED(row, "DIV", "IDIV") && !random_once_in(r, 4))
		gpr[RDX] = random_once_in(r, 2) ? 0 : gpr[RDX] >> random_below(r, 64);
	if (NAMED(row, "BT", "BTS", "BTR", "BTC") && insn->reg < GPR_COUNT && !random_once_in(r, 8) &&
	    insn->base != insn->reg && insn->index != insn->reg)
		gpr[insn->reg] = (uint64_t)((int64_t)gpr[insn->reg] % 512);
	if (NAMED(row, "CMPXCHG8B", "CMPXCHG16B") && random_once_in(r, 2))
		gpr[RAX] = gpr[RDX] = 0;
	if (NAMED(row, "PCMPESTRI", "PCMPESTRM", "VPCMPESTRI", "VPCMPESTRM"))
		for (unsigned i = RAX; i <= RDX; i += RDX - RAX)
			if (!random_once_in(r, 4))
				gpr[i] = (uint64_t)(int64_t)(random_below(r, 40) - 20);
	if (NAMED(row, "LOOP", "LOOPE", "LOOPNE", "JCXZ"))
		gpr[RCX] = random_below(r, 3);
}

/* What memory must hold for an instruction not to fault at once, some of the time. */
static void aim_memory(struct random *r, struct oracle_case *c, const struct opcode *row, uint64_t target)
{
	uint64_t at = target - ARENA_AT;

	if (at >= ARENA_WRITABLE)
		return;
	if (NAMED(row, "FXRSTOR") && at + 512 <= ARENA_WRITABLE && !random_once_in(r, 4)) {
		struct fx_image fx;

		fill_fx(r, &fx);
		memcpy(c->memory + at, &fx, sizeof(fx));
	}
	if (NAMED(row, "LDMXCSR", "VLDMXCSR") && at + 4 <= ARENA_WRITABLE && !random_once_in(r, 4))
		memset(c->memory + at + 2, 0, 2);
}

/* Memory as the case finds it, the code apart. */
static void fill_memory(struct random *r, struct generator *g, struct oracle_case *c)
{
	memset(c->memory, ARENA_FILL, ARENA_PAGE);
	memcpy(c->memory + ARENA_PAGE, g->bank + random_below(r, 512), ARENA_PAGE);
}

void generator_read_only(const struct generator *g, uint8_t page[ARENA_PAGE])
{
	memcpy(page, g->bank + 256, ARENA_PAGE);
}

/* ---- a whole case ---- */

static const struct opcode *row_of(enum decode_result result, const struct insn *insn)
{
	return result == DECODE_OK ? &opcode_table[insn->opcode] : NULL;
}

static bool has_memory(const struct insn *insn, const struct opcode *row, const struct draft *d)
{
	const struct pattern *p = pattern_of(insn->opcode);

	(void)row;
	return p->moffs || (p->has_modrm && !p->mod_ignored && insn_is_memory(insn) && d->size);
}

/* A branch may go anywhere, into its own bytes too, and POPF must not lose the trap: they step. */
static bool needs_step(const struct opcode *row)
{
	return !row || row->flags & (FLAG_BRANCH | FLAG_NEAR) || NAMED(row, "PUSHF", "POPF");
}

bool may_run(const struct generator *g, const struct oracle_case *c)
{
	enum decode_result result = DECODE_OK;
	struct insn insn;
	unsigned at = 0;

	for (unsigned n = 0; n < c->insns && at < c->size && result == DECODE_OK; n++, at += insn.length) {
		if (classify(g, c, at, &insn, &result) != GENERATED ||
		    (needs_step(row_of(result, &insn)) && !c->traps))
			return false;
		/* A trap may be taken between two elements of a gather (SDM 2C VPGATHERDD). */
		if (result == DECODE_OK && pattern_of(insn.opcode)->vsib && c->traps)
			return false;
	}
	return result != DECODE_OK || at >= c->size;
}

/*
 * One instruction at c->in.rip + c->size. @whole: it may change the state, as no instruction
 * stands before it.
 */
static enum generated add_insn(struct random *r, struct generator *g, struct oracle_case *c, bool whole)
{
	struct draft d = {.size = 0};
	uint64_t at = c->in.rip - ARENA_AT + c->size, rip = c->in.rip;
	const struct opcode *row;
	enum decode_result result;
	enum generated what;
	struct insn insn;

	if (whole && g->random_bytes && random_once_in(r, 8)) {
		for (unsigned i = 0; i < 16; i += 8)
			put(&d, random_next(r), 8);
		if (random_once_in(r, 2))
			d.bytes[0] = 0x0f;
	} else {
		draft_row(r, &d, pattern_of(g->rows[random_below(r, g->row_count)]), c->compatibility);
	}
	what = classify_bytes(g, c->compatibility, mode_of(c), d.bytes, &insn, &result);
	if (what != GENERATED)
		return what;
	row = row_of(result, &insn);
	if (row) {
		c->in.rip += c->size; /* for addresses that count from here */
		if (has_memory(&insn, row, &d)) {
			uint64_t target = place(r, c);

			aim(c, &d, &insn, target);
			aim_memory(r, c, row, target);
		}
		if (whole)
			aim_implicit(r, c, &insn, row);
		c->in.rip = rip;
		d.size = insn.length;
	} else {
		d.size = INSN_MAX;
	}
	if (at + d.size > ARENA_WRITABLE || c->size + d.size > ORACLE_CODE_MAX)
		return GENERATED_LEFT_OUT;
	memcpy(c->memory + at, d.bytes, d.size);
	c->size = (uint8_t)(c->size + d.size);
	c->insns++;
	if (c->compatibility) /* where leaving the mode clears the upper half of RSP, and no more */
		for (unsigned i = 0; i < 8; i++)
			c->in.gpr[i] = (uint32_t)c->in.gpr[i];
	if (needs_step(row))
		c->traps = true;
	return GENERATED;
}

/* Instructions whose result depends on what another may leave undefined, or that do not go straight on. */
static bool fits_sequence(const struct generator *g, const struct oracle_case *c, unsigned offset)
{
	enum decode_result result;
	struct insn insn;
	const struct opcode *row;

	classify(g, c, offset, &insn, &result);
	row = row_of(result, &insn);
	return row && !(row->flags & (FLAG_BRANCH | FLAG_NEAR | FLAG_ENDS)) &&
	       !NAMED(row, "PUSHF", "POPF", "LAHF", "DAA", "DAS", "AAA", "AAS", "AAM", "AAD", "MUL", "IMUL",
		      "DIV", "IDIV", "BSF", "BSR", "BEXTR", "BLSI", "BLSMSK", "BLSR", "BZHI", "ANDN", "BT", "BTS", "BTR", "BTC", "SHL", "SHR", "SAR", "SHLD",
		      "SHRD", "ROL", "ROR", "RCL", "RCR", "LZCNT", "TZCNT", "MASKMOVQ", "MASKMOVDQU", "RCPPS",
		      "RCPSS", "RSQRTPS", "RSQRTSS", "VRCPPS", "VRCPSS", "VRSQRTPS", "VRSQRTSS", "VMASKMOVDQU", "FSIN", "FCOS", "FSINCOS", "FPTAN", "FPATAN", "F2XM1",
		      "FYL2X", "FYL2XP1", "FCOMI", "FCOMIP", "FUCOMI", "FUCOMIP", "FNSTSW", "FNCLEX",
		      "FNSTENV", "FNSAVE", "FXSAVE");
}

static void add_sequence(struct random *r, struct generator *g, struct oracle_case *c)
{
	unsigned wanted = 2 + random_below(r, SEQUENCE_MAX - 1);

	for (unsigned tries = 0; c->insns < wanted && tries < 4 * SEQUENCE_MAX; tries++) {
		struct oracle_case before = *c;
		unsigned offset = c->size;

		if (add_insn(r, g, c, !offset) != GENERATED || !fits_sequence(g, c, offset))
			*c = before;
	}
}

enum generated generate(struct generator *g, uint64_t number, struct oracle_case *c)
{
	struct random r = random_start(g->seed, number);
	bool edge = random_once_in(&r, 24), step;
	enum generated what;

	*c = (struct oracle_case){.seed = g->seed, .number = number};
	c->compatibility =
		g->modes == MODES_COMPATIBILITY || (g->modes == MODES_BOTH && random_once_in(&r, 3));
	c->in.rip =
		ARENA_AT + (edge ? ARENA_PAGE - 1 - random_below(&r, 12) : 0x100 + random_below(&r, 0xe00));
	fill_memory(&r, g, c);
	fill_state(&r, g, c);
	step = random_once_in(&r, 16);
	if (g->random_bytes && random_once_in(&r, 10)) {
		add_sequence(&r, g, c);
		return c->insns && may_run(g, c) ? GENERATED : GENERATED_LEFT_OUT;
	}
	c->traps = step;
	what = add_insn(&r, g, c, true);
	/* What an operand was given may lie on the code. */
	return what == GENERATED && !may_run(g, c) ? GENERATED_LEFT_OUT : what;
}

/* ---- the generator ---- */

int generator_open(struct generator *g, const struct profile *profile, uint64_t seed, enum oracle_modes modes,
		   const char *only)
{
	struct random r = random_start(seed, ~0ull);

	*g = (struct generator){.profile = *profile, .modes = modes, .seed = seed, .random_bytes = !only};
	if (decode_init() >= 0)
		return -EINVAL;
	g->rows = malloc(opcode_count * sizeof(g->rows[0]));
	if (!g->rows)
		return -ENOMEM;
	for (unsigned row = 0; row < opcode_count; row++)
		if (!row_left_out(&opcode_table[row]) && (!only || !strcmp(only, opcode_table[row].mnemonic)))
			g->rows[g->row_count++] = (uint16_t)row;
	for (unsigned i = 0; i < 1024; i++)
		g->bank[i] = i % 3 == 0 ? real(&r) : i % 3 == 1 ? operand(&r) : random_next(&r);
	if (g->row_count)
		return 0;
	generator_close(g);
	return -ENOENT;
}

void generator_close(struct generator *g) { free(g->rows); }
