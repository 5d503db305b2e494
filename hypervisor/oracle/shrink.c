/* shrink.c: from a failing case to the simplest that still fails. */
#include "oracle/shrink.h"

#include <string.h>

bool sides_agree(struct sides *sides, const struct oracle_case *c, struct oracle_outcome *host,
		 struct oracle_outcome *model)
{
	struct undefined undefined = undefined_of(&sides->generator, c);

	*host_cases(sides->host) = *c;
	if (undefined.result || host_run(sides->host, 1))
		return true;
	*host = *host_outcomes(sides->host);
	model_run(sides->model, c, model);
	return model->unmodelled || overwrote_code(c, host) || overwrote_code(c, model) ||
	       outcomes_agree(c, host, model, &undefined);
}

static bool still_fails(struct sides *sides, const struct oracle_case *c)
{
	struct oracle_outcome host, model;

	return may_run(&sides->generator, c) && !sides_agree(sides, c, &host, &model);
}

/* Takes @candidate where it still fails. */
static bool take(struct sides *sides, struct oracle_case *c, const struct oracle_case *candidate)
{
	if (!memcmp(c, candidate, sizeof(*c)) || !still_fails(sides, candidate))
		return false;
	*c = *candidate;
	return true;
}

/* Removes @count bytes at @at of the code; what follows moves up. */
static void remove_bytes(struct oracle_case *c, unsigned at, unsigned count)
{
	uint8_t *code = c->memory + (c->in.rip - ARENA_AT);

	memmove(code + at, code + at + count, c->size - at - count);
	c->size = (uint8_t)(c->size - count);
	memset(code + c->size, ARENA_FILL, count);
}

static void drop_insns(struct sides *sides, struct oracle_case *c)
{
	for (unsigned n = 0; c->insns > 1 && n < c->insns;) {
		struct oracle_case candidate = *c;
		enum decode_result result;
		unsigned at = 0;
		struct insn insn;

		for (unsigned i = 0; i <= n; i++) {
			at += i ? insn.length : 0;
			classify(&sides->generator, c, at, &insn, &result);
		}
		if (result != DECODE_OK || at + insn.length > c->size)
			return;
		remove_bytes(&candidate, at, insn.length);
		candidate.insns--;
		if (!take(sides, c, &candidate))
			n++;
	}
}

/* Ends the code behind its one instruction. */
static void trim(const struct generator *g, struct oracle_case *c)
{
	enum decode_result result;
	struct insn insn;

	classify(g, c, 0, &insn, &result);
	if (result == DECODE_OK && insn.length < c->size)
		remove_bytes(c, insn.length, c->size - insn.length);
}

static void drop_bytes(struct sides *sides, struct oracle_case *c)
{
	for (unsigned at = 0; c->insns == 1 && c->size > 1 && at < c->size;) {
		struct oracle_case candidate = *c;

		remove_bytes(&candidate, at, 1);
		trim(&sides->generator, &candidate);
		if (!take(sides, c, &candidate))
			at++;
	}
}

static void simplify_state(struct sides *sides, struct oracle_case *c)
{
	struct oracle_case candidate;

	for (unsigned i = 0; i < GPR_COUNT; i++) {
		candidate = *c;
		candidate.in.gpr[i] = 0;
		if (!take(sides, c, &candidate)) {
			candidate.in.gpr[i] = c->in.gpr[i] & 0xff;
			take(sides, c, &candidate);
		}
	}
	for (unsigned bit = 0; bit < 22; bit++) {
		candidate = *c;
		candidate.in.rflags &= ~(1ull << bit) | RFLAGS_FIXED | RFLAGS_IF;
		take(sides, c, &candidate);
	}
	candidate = *c;
	candidate.in.fx.fcw = 0x37f;
	take(sides, c, &candidate);
	candidate = *c;
	candidate.in.fx.fsw = 0;
	take(sides, c, &candidate);
	candidate = *c;
	candidate.in.fx.ftw = 0;
	take(sides, c, &candidate);
	candidate = *c;
	candidate.in.fx.mxcsr = 0x1f80;
	take(sides, c, &candidate);
	for (unsigned i = 0; i < 24; i++) {
		candidate = *c;
		memset(i < 8 ? candidate.in.fx.st[i] : candidate.in.fx.xmm[i - 8], 0, 16);
		take(sides, c, &candidate);
	}
}

static void simplify_memory(struct sides *sides, struct oracle_case *c)
{
	for (unsigned size = ARENA_PAGE; size >= 8; size /= 2)
		for (unsigned at = ARENA_PAGE; at < ARENA_WRITABLE; at += size) {
			struct oracle_case candidate = *c;

			memset(candidate.memory + at, 0, size);
			take(sides, c, &candidate);
		}
}

void shrink(struct sides *sides, struct oracle_case *c)
{
	struct oracle_case candidate = *c;

	candidate.traps = false;
	take(sides, c, &candidate);
	drop_insns(sides, c);
	drop_bytes(sides, c);
	simplify_state(sides, c);
	simplify_memory(sides, c);
}
