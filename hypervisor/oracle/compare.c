/* compare.c: two outcomes of a case, and what the manuals leave undefined in them. */
#include "oracle/compare.h"

#include <inttypes.h>
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

enum when { ALWAYS, COUNT_NOT_0, COUNT_ABOVE_1, COUNT_ABOVE_WIDTH, COUNT_FROM_WIDTH };

static bool holds(enum when when, unsigned count, unsigned bits)
{
	switch (when) {
	case ALWAYS: return true;
	case COUNT_NOT_0: return count;
	case COUNT_ABOVE_1: return count > 1;
	case COUNT_ABOVE_WIDTH: return count > bits;
	case COUNT_FROM_WIDTH: return count >= bits;
	}
	return false;
}

static void add_undefined(struct undefined *u, const struct oracle_case *c, const struct insn *insn)
{
	static const struct {
		const char *mnemonic;
		enum when when;
		uint32_t flags, fsw;
		bool result;
	} table[] = {
#define UNDEFINED_FLAGS(mnemonic, when, flags, source) {#mnemonic, when, flags, 0, false},
#define UNDEFINED_RESULT(mnemonic, when, source)       {#mnemonic, when, 0, 0, true},
#define UNDEFINED_FSW(mnemonic, when, bits, source)    {#mnemonic, when, 0, bits, false},
#include "oracle/undefined.def"
#undef UNDEFINED_FLAGS
#undef UNDEFINED_RESULT
#undef UNDEFINED_FSW
	};
	const struct opcode *row = &opcode_table[insn->opcode];
	unsigned count = masked_count(c, insn, row);

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		if (strcmp(table[i].mnemonic, row->mnemonic) ||
		    !holds(table[i].when, count, insn->width * 8u))
			continue;
		u->rflags |= table[i].flags;
		u->fsw |= (uint16_t)table[i].fsw;
		u->result |= table[i].result;
	}
}

struct undefined undefined_of(const struct generator *g, const struct oracle_case *c)
{
	struct undefined u = {0};
	enum decode_result result;
	struct insn insn;

	for (unsigned at = 0, n = 0; at < c->size && n < c->insns; at += insn.length, n++) {
		classify(g, c, at, &insn, &result);
		if (result != DECODE_OK)
			break;
		add_undefined(&u, c, &insn);
	}
	return u;
}

/* ---- the comparison ---- */

/* The kernel reports protection faults for all addresses of its own half. */
static uint32_t error_code(const struct oracle_outcome *o)
{
	return o->vector == VECTOR_PF && o->address >> 47 ? o->error_code | 1 : o->error_code;
}

/* RF is the processor's affair between a fault and its handler. */
static uint64_t compared_flags(const struct oracle_outcome *o, const struct undefined *u)
{
	return o->out.rflags & ~(uint64_t)RFLAGS_RF &
	       ~(o->vector == NO_FAULT || o->vector == VECTOR_GP || o->vector == VECTOR_PF ? u->rflags : 0);
}

static bool fx_agree(const struct fx_image *a, const struct fx_image *b, uint16_t ignored)
{
	if (a->fcw != b->fcw || ((a->fsw ^ b->fsw) & ~ignored) || a->ftw != b->ftw || a->mxcsr != b->mxcsr)
		return false;
	for (unsigned i = 0; i < 8; i++)
		if (memcmp(a->st[i], b->st[i], 10))
			return false;
	return !memcmp(a->xmm, b->xmm, sizeof(a->xmm));
}

bool outcomes_agree(const struct oracle_outcome *host, const struct oracle_outcome *model,
		    const struct undefined *u)
{
	const struct oracle_state *a = &host->out, *b = &model->out;

	return !host->lost && !model->lost && host->vector == model->vector &&
	       error_code(host) == error_code(model) && host->address == model->address &&
	       !memcmp(a->gpr, b->gpr, sizeof(a->gpr)) && a->rip == b->rip &&
	       compared_flags(host, u) == compared_flags(model, u) && a->fs_base == b->fs_base &&
	       a->gs_base == b->gs_base && fx_agree(&a->fx, &b->fx, u->fsw) &&
	       !memcmp(host->memory, model->memory, ARENA_WRITABLE);
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
		    const struct fx_image *b, uint16_t ignored)
{
	char name[32];

	tell(t, "FCW", in->fcw, a->fcw, b->fcw);
	if ((a->fsw ^ b->fsw) & ~ignored)
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

	if (host->lost || model->lost || host->vector != model->vector ||
	    error_code(host) != error_code(model) || host->address != model->address)
		tell_end(&t, host, model);
	if (host->lost || model->lost)
		return;
	for (unsigned i = 0; i < GPR_COUNT; i++)
		tell(&t, names[i], c->in.gpr[i], host->out.gpr[i], model->out.gpr[i]);
	tell(&t, "RIP", c->in.rip, host->out.rip, model->out.rip);
	tell(&t, "RFLAGS", c->in.rflags, compared_flags(host, u), compared_flags(model, u));
	tell(&t, "FS base", c->in.fs_base, host->out.fs_base, model->out.fs_base);
	tell(&t, "GS base", c->in.gs_base, host->out.gs_base, model->out.gs_base);
	tell_fx(&t, &c->in.fx, &host->out.fx, &model->out.fx, u->fsw);
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

	for (size_t i = 0; i < sizeof(mnemonics) / sizeof(mnemonics[0]); i++)
		if (!strcmp(row->mnemonic, mnemonics[i]))
			return true;
	return false;
}
