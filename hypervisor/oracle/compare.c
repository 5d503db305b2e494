/* compare.c: two outcomes of a case, and what the manuals leave undefined in them. */
#include "oracle/compare.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- what is undefined ---- */

/* A shift's count as the processor masks it (SDM 2B SAL/SAR/SHL/SHR); 1 for other instructions. */
static unsigned masked_count(const struct oracle_case *c, const struct insn *insn, const struct opcode *row)
{
	const char *last = strrchr(row->operands, ',');
	unsigned mask = insn->width == 8 ? 63 : 31;

	if (!last || !strcmp(last, ",1"))
		return 1;
	return (unsigned)(!strcmp(last, ",CL") ? c->in.gpr[RCX] : (uint64_t)insn->imm) & mask;
}

enum when {
	ALWAYS,
	COUNT_NOT_0,
	COUNT_ABOVE_1,
	COUNT_ABOVE_WIDTH,
	COUNT_FROM_WIDTH,
	MASK_ZERO,
	WIDTH_16,
	SEGMENT_PREFIX,
	REPEAT_PREFIX,
	REPEAT_NONE,
	ST0_ABOVE_1,
	ST0_FAR,
	UNMASKED /* known behind the instruction only */
};

/* The low @bytes of MASKMOVQ's or MASKMOVDQU's mask select nothing. */
static bool mask_is_zero(const struct oracle_case *c, const struct insn *insn)
{
	unsigned top = c->in.fx.fsw >> 11 & 7;
	bool mmx = opcode_table[insn->opcode].operands[0] == 'P';
	const uint8_t *mask = mmx ? c->in.fx.st[(insn->rm - top) & 7] : c->in.fx.xmm[insn->rm & 15];
	unsigned any = 0;

	for (unsigned i = 0; i < (mmx ? 8 : 16); i++)
		any |= mask[i];
	return !(any & 0x80);
}

/* ST(0) is a finite number that is farther from zero than @limit. */
static bool st0_beyond(const struct oracle_case *c, long double limit)
{
	long double value = 0;

	memcpy(&value, c->in.fx.st[0], 10);
	return isfinite(value) && fabsl(value) > limit;
}

static bool holds(enum when when, const struct oracle_case *c, const struct insn *insn)
{
	unsigned count = masked_count(c, insn, &opcode_table[insn->opcode]);
	unsigned bits = insn->width * 8u;

	switch (when) {
	case ALWAYS:
	case UNMASKED: return true;
	case COUNT_NOT_0: return count;
	case COUNT_ABOVE_1: return count > 1;
	case COUNT_ABOVE_WIDTH: return count > bits;
	case COUNT_FROM_WIDTH: return count >= bits;
	case MASK_ZERO: return mask_is_zero(c, insn);
	case WIDTH_16: return insn->width == 2;
	case SEGMENT_PREFIX: return c->compatibility && insn->prefixes & PREFIX_SEGMENT;
	case REPEAT_PREFIX: return insn->prefixes & (PREFIX_REP | PREFIX_REPNE);
	case REPEAT_NONE:
		return insn->prefixes & (PREFIX_REP | PREFIX_REPNE) &&
		       !(insn->address_width == 8
				 ? c->in.gpr[RCX]
				 : (uint32_t)c->in.gpr[RCX] & ((1ull << 8 * insn->address_width) - 1));
	case ST0_ABOVE_1: return st0_beyond(c, 1);
	case ST0_FAR: return st0_beyond(c, 0.2928932188134524L); /* 1 - sqrt(1/2) */
	}
	return false;
}

static void add_undefined(struct undefined *u, const struct oracle_case *c, const struct insn *insn)
{
	static const struct {
		const char *mnemonic;
		enum when when;
		uint32_t flags, fsw;
		bool result, address, approximate;
	} table[] = {
#define UNDEFINED_FLAGS(name, condition, bits, source) {.mnemonic = #name, .when = condition, .flags = bits},
#define UNDEFINED_UNMASKED(name, bits, source)         {.mnemonic = #name, .when = UNMASKED, .flags = bits},
#define UNDEFINED_RESULT(name, condition, source)      {.mnemonic = #name, .when = condition, .result = true},
#define UNDEFINED_FSW(name, condition, bits, source)   {.mnemonic = #name, .when = condition, .fsw = bits},
#define UNDEFINED_ADDRESS(name, source)                {.mnemonic = #name, .address = true},
#define APPROXIMATE(name, source)                      {.mnemonic = #name, .approximate = true},
#include "oracle/undefined.def"
#undef UNDEFINED_FLAGS
#undef UNDEFINED_UNMASKED
#undef UNDEFINED_RESULT
#undef UNDEFINED_FSW
#undef UNDEFINED_ADDRESS
#undef APPROXIMATE
	};
	const char *mnemonic = opcode_table[insn->opcode].mnemonic;

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		bool unmasked = table[i].when == UNMASKED;

		if (strcmp(table[i].mnemonic, mnemonic) || !holds(table[i].when, c, insn))
			continue;
		u->rflags |= unmasked ? 0 : table[i].flags;
		u->rflags_unmasked |= table[i].flags;
		u->fsw |= (uint16_t)(unmasked ? 0 : table[i].fsw);
		u->fsw_unmasked |= (uint16_t)table[i].fsw;
		u->result |= table[i].result;
		u->address |= table[i].address;
		u->approximate |= table[i].approximate;
	}
}

/*
 * Faults of one class, whose order is the processor's choice (SDM 3A table 6-2, the note on classes
 * 9 and 10): an instruction that meets two of them may raise either.
 */
static void add_order(struct undefined *u, const struct oracle_case *c, const struct insn *insn)
{
	const struct opcode *row = &opcode_table[insn->opcode];

	u->alignment |= (c->in.rflags & RFLAGS_AC) != 0;
	u->stack |= insn->segment == SS && insn->modrm < 0xc0;
	u->target |= !strcmp(row->mnemonic, "CALL");
	u->offset |= insn->segment >= FS && insn->modrm < 0xc0 && !c->compatibility;
	u->partial |= !strcmp(row->mnemonic, "POPA");
	u->alignment_optional |=
		u->alignment && (strstr(row->operands, "dq") || strstr(row->operands, "ps") ||
				 strstr(row->operands, "pd") || strchr(row->operands, 'x') || !strcmp(row->operands, "M"));
	u->mmx |= strpbrk(row->operands, "PQN") != NULL;
}

static unsigned prefix_count(const struct oracle_case *c)
{
	static const uint8_t prefixes[] = {0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3};
	const uint8_t *code = c->memory + (c->in.rip - ARENA_AT);
	unsigned n = 0;

	while (n < c->size && (memchr(prefixes, code[n], sizeof(prefixes)) ||
			       (!c->compatibility && (code[n] & 0xf0) == 0x40)))
		n++;
	return n;
}

/*
 * AMD's processors want the offset within FS and GS to be canonical as well, where the manuals speak of
 * the linear address alone (SDM 1 3.3.7.1, APM 2 5.3.1): such a case says nothing.
 */
static bool offset_is_odd(const struct oracle_case *c, const struct insn *insn)
{
	uint64_t base = insn->base < GPR_COUNT ? c->in.gpr[insn->base] : 0;
	uint64_t index = insn->index < GPR_COUNT ? c->in.gpr[insn->index] << insn->scale : 0;
	int64_t offset = (int64_t)(base + index + (uint64_t)insn->disp);

	if (insn->base == REG_TRACE_RIP)
		offset += (int64_t)c->in.rip;
	if (insn->segment < FS || c->compatibility || insn->modrm >= 0xc0 || insn->address_width != 8)
		return false;
	return offset >> 47 != 0 && offset >> 47 != -1;
}

/*
 * What a reference does that goes on behind the last byte of a segment of 4 GiB is the processor's choice (SDM 3A 5.3):
 * those that move a whole state make an access for each of its parts, and so may find each within the limit.
 */
static bool state_wraps(const struct oracle_case *c, const struct insn *insn)
{
	static const char *const whole[] = {"FXSAVE", "FXRSTOR", "FNSAVE", "FRSTOR", "FNSTENV", "FLDENV",
					    "XSAVE",  "XSAVEC",  "XRSTOR", "XSAVEOPT"};
	uint64_t base = insn->base < GPR_COUNT ? c->in.gpr[insn->base] : 0;
	uint64_t index = insn->index < GPR_COUNT ? c->in.gpr[insn->index] << insn->scale : 0;
	uint32_t offset = (uint32_t)(base + index + (uint64_t)insn->disp);

	if (!c->compatibility || insn->modrm >= 0xc0 || insn->address_width != 4 || offset < 0u - 0x1000u)
		return false;
	for (size_t i = 0; i < sizeof(whole) / sizeof(whole[0]); i++)
		if (!strcmp(opcode_table[insn->opcode].mnemonic, whole[i]))
			return true;
	return false;
}

struct undefined undefined_of(const struct generator *g, const struct oracle_case *c)
{
	struct undefined u = {0};
	enum decode_result result;
	struct insn insn;

	u.length = prefix_count(c) >= 2;
	u.fetch = c->in.rip - ARENA_AT < ARENA_PAGE && c->in.rip - ARENA_AT + 15 >= ARENA_PAGE;
	for (unsigned at = 0, n = 0; at < c->size && n < c->insns; at += insn.length, n++) {
		classify(g, c, at, &insn, &result);
		if (result != DECODE_OK)
			break;
		add_undefined(&u, c, &insn);
		add_order(&u, c, &insn);
		u.result |= (!n && offset_is_odd(c, &insn)) || state_wraps(c, &insn);
	}
	return u;
}

/* ---- the comparison ---- */

/* The kernel reports protection faults for all addresses that are not a program's: from its last page on. */
static uint32_t error_code(const struct oracle_outcome *o)
{
	return o->vector == VECTOR_PF && o->address >= 0x7ffffffff000 ? o->error_code | 1 : o->error_code;
}

/* RF is the processor's affair between a fault and its handler. */
static uint64_t compared_flags(const struct oracle_outcome *o, const struct undefined *u)
{
	bool unmasked = o->out.fx.fsw & 0x80;

	return o->out.rflags & ~(uint64_t)RFLAGS_RF & ~(unmasked ? u->rflags_unmasked : u->rflags);
}

static uint16_t compared_fsw(const struct fx_image *fx, const struct undefined *u)
{
	/* C1, PE and UE, with ES and B, say how an approximation was rounded. */
	uint16_t ignored =
		(uint16_t)((fx->fsw & 0x80 ? u->fsw_unmasked : u->fsw) | (u->approximate ? 0x82b0 : 0));

	return (uint16_t)(fx->fsw & ~ignored);
}

/*
 * With overflow or underflow unmasked, PE says whether rounding with any exponent would be inexact
 * (SDM 1 4.9.1.5), which the software CPU does not find out: it sets PE as it is with them masked.
 */
static uint32_t compared_mxcsr(const struct fx_image *fx)
{
	return fx->mxcsr & ~(fx->mxcsr >> 7) & (MXCSR_OE | MXCSR_UE) ? fx->mxcsr & ~MXCSR_PE : fx->mxcsr;
}

/* Both within 1.5 * 2^-12 of the same number. */
static bool near_single(const uint8_t *a, const uint8_t *b)
{
	float x, y;

	memcpy(&x, a, 4);
	memcpy(&y, b, 4);
	/* Of two near the least normal number, one may count as tiny, which becomes a zero (SDM 2B RCPPS). */
	if ((x == 0 && fabsf(y) == 0x1p-126f) || (y == 0 && fabsf(x) == 0x1p-126f))
		return signbit(x) == signbit(y);
	return fabsf(x - y) <= fabsf(x) * 0x3p-12f;
}

/* Both within an ulp of the same function of an operand that is known to 66 bits of pi. */
static bool near_extended(const uint8_t *a, const uint8_t *b, const uint8_t *in)
{
	long double x = 0, y = 0, operand = 0;

	memcpy(&x, a, 10);
	memcpy(&y, b, 10);
	memcpy(&operand, in, 10);
	if (!isfinite(operand))
		operand = 0;
	return fabsl(x - y) <= fabsl(x) * 0x1p-62L + fabsl(operand) * 0x1p-63L * (1 + x * x) + 0x1p-16444L;
}

/* The state of the x87 unit, but for how far a faulting MMX instruction has changed it to MMX's. */
static bool mmx_agree(const struct fx_image *a, const struct fx_image *b, const struct undefined *u)
{
	unsigned top_a = a->fsw >> 11 & 7, top_b = b->fsw >> 11 & 7;

	for (unsigned i = 0; i < 8; i++)
		if (memcmp(a->st[(i - top_a) & 7], b->st[(i - top_b) & 7], 10))
			return false;
	return !((compared_fsw(a, u) ^ compared_fsw(b, u)) & ~0x3800) && a->fcw == b->fcw &&
	       a->mxcsr == b->mxcsr && !memcmp(a->xmm, b->xmm, sizeof(a->xmm));
}

static bool registers_agree(const struct oracle_case *c, const struct fx_image *a, const struct fx_image *b,
			    bool approximate)
{
	for (unsigned i = 0; i < 8; i++)
		if (memcmp(a->st[i], b->st[i], 10) &&
		    !(approximate && near_extended(a->st[i], b->st[i], c->in.fx.st[0])))
			return false;
	for (unsigned i = 0; i < 64; i++)
		if (memcmp(a->xmm[i / 4] + i % 4 * 4, b->xmm[i / 4] + i % 4 * 4, 4) &&
		    !(approximate && near_single(a->xmm[i / 4] + i % 4 * 4, b->xmm[i / 4] + i % 4 * 4)))
			return false;
	return true;
}

static bool order_is_open(const struct oracle_outcome *host, const struct oracle_outcome *model,
			  const struct undefined *u)
{
	uint32_t both = 1u << (host->vector & 31) | 1u << (model->vector & 31);

	/* The part of an operand below 4 GiB may fault before the part that is beyond the limit (SDM 3A 5.3).
	 */
	return (host->vector == VECTOR_PF && host->address >> 8 == 0xffffff &&
		(model->vector == VECTOR_GP || model->vector == VECTOR_SS)) ||
	       (u->offset && host->vector == VECTOR_GP && model->vector == VECTOR_PF) ||
	       (u->address && both == (1u << VECTOR_GP | 1u << VECTOR_PF)) ||
	       (u->length && both == (1u << VECTOR_UD | 1u << VECTOR_GP)) ||
	       (u->fetch && both == (1u << VECTOR_UD | 1u << VECTOR_PF)) ||
	       (u->alignment && both & 1u << VECTOR_AC &&
		both & (1u << VECTOR_PF | 1u << VECTOR_GP | 1u << VECTOR_SS)) ||
	       (u->stack && both == (1u << VECTOR_SS | 1u << VECTOR_GP)) ||
	       (u->target &&
		(both == (1u << VECTOR_GP | 1u << VECTOR_PF) || both == (1u << VECTOR_GP | 1u << VECTOR_SS)));
}

static bool faults_agree(const struct oracle_outcome *a, const struct oracle_outcome *b,
			 const struct undefined *u)
{
	if (a->lost || b->lost)
		return false;
	if (a->vector != b->vector)
		return order_is_open(a, b, u);
	if (u->address && a->vector == VECTOR_PF) /* the pages of one operand may differ in what they lack */
		return a->address - b->address + 512 < 1024;
	return error_code(a) == error_code(b) && a->address == b->address;
}

/*
 * An approximation with overflow or underflow unmasked is scaled (SDM 1 8.5.4, 8.5.5), which the software
 * CPU does not model: its registers are not compared.
 */
/* The upper halves of VRSQRTPS and its kin are as near as the lower ones. */
static bool ymm_agree(const struct oracle_state *a, const struct oracle_state *b, bool approximate)
{
	for (unsigned i = 0; i < 64; i++) {
		const uint8_t *x = a->ymm_high[i / 4] + i % 4 * 4, *y = b->ymm_high[i / 4] + i % 4 * 4;

		if (memcmp(x, y, 4) && !(approximate && near_single(x, y)))
			return false;
	}
	return true;
}

static bool fx_agree(const struct oracle_case *c, const struct fx_image *a, const struct fx_image *b,
		     const struct undefined *u)
{
	return a->fcw == b->fcw && a->ftw == b->ftw && compared_mxcsr(a) == compared_mxcsr(b) &&
	       compared_fsw(a, u) == compared_fsw(b, u) &&
	       (registers_agree(c, a, b, u->approximate) || (u->approximate && a->fsw & ~a->fcw & 0x18));
}

static bool gpr_agree(const uint64_t *a, const uint64_t *b, bool partial)
{
	return partial ? a[RSP] == b[RSP] : !memcmp(a, b, GPR_COUNT * sizeof(a[0]));
}

bool outcomes_agree(const struct oracle_case *c, const struct oracle_outcome *host,
		    const struct oracle_outcome *model, const struct undefined *u)
{
	const struct oracle_state *a = &host->out, *b = &model->out;
	bool faulted = host->vector != NO_FAULT && a->rip - c->in.rip < c->size;

	if (u->alignment_optional && !host->lost && !model->lost &&
	    (host->vector == VECTOR_AC || model->vector == VECTOR_AC))
		return true;
	return faults_agree(host, model, u) && gpr_agree(a->gpr, b->gpr, u->partial && faulted) &&
	       a->rip == b->rip && compared_flags(host, u) == compared_flags(model, u) &&
	       a->fs_base == b->fs_base && a->gs_base == b->gs_base &&
	       ymm_agree(a, b, u->approximate) &&
	       (fx_agree(c, &a->fx, &b->fx, u) || (u->mmx && faulted && mmx_agree(&a->fx, &b->fx, u))) &&
	       !memcmp(host->memory, model->memory, ARENA_WRITABLE);
}

bool overwrote_code(const struct oracle_case *c, const struct oracle_outcome *o)
{
	uint64_t at = c->in.rip - ARENA_AT;
	uint64_t end = at + c->size + 16;

	return !c->traps &&
	       memcmp(c->memory + at, o->memory + at, (end < ARENA_WRITABLE ? end : ARENA_WRITABLE) - at);
}

/* ---- what differs ---- */

struct teller {
	difference_line *line;
	void *owner;
};

static void tell(const struct teller *t, const char *name, uint64_t before, uint64_t host, uint64_t model)
{
	char text[160];

	if (host == model)
		return;
	snprintf(text, sizeof(text), "%-10s before %016" PRIx64 "  host %016" PRIx64 "  model %016" PRIx64,
		 name, before, host, model);
	t->line(t->owner, text);
}

static void tell_end(const struct teller *t, const struct oracle_outcome *host,
		     const struct oracle_outcome *model)
{
	char text[160];
	int used = 0;

	for (unsigned i = 0; i < 2; i++) {
		const struct oracle_outcome *o = i ? model : host;

		used += snprintf(text + used, sizeof(text) - (size_t)used, "%s%-6s", i ? "  " : "",
				 i ? "model" : "host");
		if (o->lost)
			used += snprintf(text + used, sizeof(text) - (size_t)used, "lost");
		else if (o->vector == NO_FAULT)
			used += snprintf(text + used, sizeof(text) - (size_t)used, "single step");
		else
			used += snprintf(text + used, sizeof(text) - (size_t)used,
					 "vector %u error %#x address %#" PRIx64, o->vector, o->error_code,
					 o->address);
	}
	t->line(t->owner, text);
}

static uint64_t quad(const void *from)
{
	uint64_t value;

	memcpy(&value, from, 8);
	return value;
}

static void tell_fx(const struct teller *t, const struct fx_image *in, const struct fx_image *a,
		    const struct fx_image *b, const struct undefined *u)
{
	char name[32];

	tell(t, "FCW", in->fcw, a->fcw, b->fcw);
	if (compared_fsw(a, u) != compared_fsw(b, u))
		tell(t, "FSW", in->fsw, a->fsw, b->fsw);
	tell(t, "FTW", in->ftw, a->ftw, b->ftw);
	tell(t, "MXCSR", in->mxcsr, a->mxcsr, b->mxcsr);
	for (unsigned i = 0; i < 8; i++) {
		snprintf(name, sizeof(name), "ST%u", i);
		tell(t, name, quad(in->st[i]), quad(a->st[i]), quad(b->st[i]));
		snprintf(name, sizeof(name), "ST%u.exp", i);
		tell(t, name, (uint16_t)quad(in->st[i] + 8), (uint16_t)quad(a->st[i] + 8),
		     (uint16_t)quad(b->st[i] + 8));
	}
	for (unsigned i = 0; i < 32; i++) {
		snprintf(name, sizeof(name), "XMM%u.%s", i / 2, i % 2 ? "high" : "low");
		tell(t, name, quad(in->xmm[i / 2] + i % 2 * 8), quad(a->xmm[i / 2] + i % 2 * 8),
		     quad(b->xmm[i / 2] + i % 2 * 8));
	}
}

void outcomes_explain(const struct oracle_case *c, const struct oracle_outcome *host,
		      const struct oracle_outcome *model, const struct undefined *u, difference_line *line,
		      void *owner)
{
	static const char *const names[] = {"RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI",
					    "R8",  "R9",  "R10", "R11", "R12", "R13", "R14", "R15"};
	struct teller t = {line, owner};
	char name[32];

	tell_end(&t, host, model);
	if (host->lost || model->lost)
		return;
	for (unsigned i = 0; i < GPR_COUNT; i++)
		tell(&t, names[i], c->in.gpr[i], host->out.gpr[i], model->out.gpr[i]);
	tell(&t, "RIP", c->in.rip, host->out.rip, model->out.rip);
	tell(&t, "RFLAGS", c->in.rflags, compared_flags(host, u), compared_flags(model, u));
	tell(&t, "FS base", c->in.fs_base, host->out.fs_base, model->out.fs_base);
	tell(&t, "GS base", c->in.gs_base, host->out.gs_base, model->out.gs_base);
	for (unsigned i = 0; i < 32; i++) {
		unsigned half = i % 2 * 8;

		snprintf(name, sizeof(name), "YMM%u.%s", i / 2, half ? "3" : "2");
		tell(&t, name, quad(c->in.ymm_high[i / 2] + half), quad(host->out.ymm_high[i / 2] + half),
		     quad(model->out.ymm_high[i / 2] + half));
	}
	tell_fx(&t, &c->in.fx, &host->out.fx, &model->out.fx, u);
	for (unsigned at = 0; at < ARENA_WRITABLE; at += 8) {
		snprintf(name, sizeof(name), "[%llx]", ARENA_AT + at);
		tell(&t, name, quad(c->memory + at), quad(host->memory + at), quad(model->memory + at));
	}
}

/* ---- dependence ---- */

bool is_dependent(const struct opcode *row)
{
	static const char *const mnemonics[] = {
#define DEPENDENT(mnemonic) #mnemonic,
#include "oracle/dependent.def"
#undef DEPENDENT
	};

	/* AVX forms are made from the SSE ones: simd.h. */
	const char *name = row->mnemonic + (!strncmp(row->encoding, "VEX", 3) && row->mnemonic[0] == 'V');

	for (size_t i = 0; i < sizeof(mnemonics) / sizeof(mnemonics[0]); i++)
		if (!strcmp(name, mnemonics[i]))
			return true;
	return false;
}
