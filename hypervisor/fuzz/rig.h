/*
 * rig.h: one vCPU of the engine `soft`, whose memory is made anew for each round and which is run in two or
 * more ways that must end alike: as traces, one instruction at a time with a trace being written, and so on.
 *
 * The test that includes it defines RAM, the size of memory in bytes, before. It fills `image`, runs with
 * rig_begin(), the engine's run() and rig_end(), and finds memory as it was left in `ram`, of which it keeps
 * what it compares in `found`.
 */
#ifndef TRAPLINE_FUZZ_RIG_H
#define TRAPLINE_FUZZ_RIG_H

#include <stdio.h>

#include "engine/engine.h"
#include "fuzz/blank.h"
#include "fuzz/fuzz.h"
#include "x86/vectors.h"

#ifndef RAM
#error "RAM is the includer's: the size of memory in bytes"
#endif

static uint8_t image[RAM], ram[RAM], found[RAM];

static struct {
	struct engine *engine;
	struct engine_vcpu *vcpu;
	struct vcpu_state reset; /* the vCPU as it is new */
	/* Of the run that goes on. */
	uint64_t began;
	struct engine_trace trace;
	unsigned lines; /* of the trace */
	uint64_t rip;   /* and its last one */
	char text[160];
	/*
	 * A repeated string instruction that overwrites itself is fetched again for each iteration where
	 * instructions run one by one, and need not be elsewhere: the manuals promise nothing of it, so such
	 * rounds are not compared.
	 */
	bool rewritten;
	/* Of all rounds, by rig_count(). */
	uint64_t retired;
	unsigned exits[ENGINE_FAILED + 1];
} rig;

struct rig_result {
	enum engine_exit exit;
	uint64_t retired;
	char failure[200];
	struct vcpu_state state;
};

/* ---- a bus whose answers follow from the address alone ---- */

static inline uint32_t rig_port_in(void *owner, uint16_t port, unsigned size)
{
	(void)owner;
	return port * 0x01010101u >> (32 - 8 * size);
}

static inline void rig_mmio_read(void *owner, uint64_t address, void *to, unsigned size)
{
	(void)owner;
	memset(to, (int)(address >> 3 & 0xff), size);
}

/* @cpu: the profile. Ends with rig_close(). */
static inline void rig_open(const char *cpu)
{
	struct engine_config config = {.cpu = cpu,
				       .bus = {.port_in = rig_port_in,
					       .port_out = blank_port_out,
					       .mmio_read = rig_mmio_read,
					       .mmio_write = blank_mmio_write}};
	char why[200];

	memset(&rig, 0, sizeof(rig));
	assert_int_equal(engine_soft.open(&rig.engine, &config, why, sizeof(why)), 0);
	assert_int_equal(engine_soft.memory_add(rig.engine, 0, RAM, ram, false), 0);
	assert_int_equal(engine_soft.vcpu_new(rig.engine, &rig.vcpu), 0);
	engine_soft.vcpu_save(rig.vcpu, &rig.reset);
}

static inline void rig_close(void) { engine_soft.close(rig.engine); }

/* ---- what is in memory ---- */

static inline void put(uint32_t address, uint64_t value, size_t size)
{
	memcpy(image + address, &value, size);
}

/*
 * Handlers of the vectors 0 to 31, 16 bytes each from @base on, of 64 bits or of 32, that step over some
 * bytes of what faulted, so that one fault is not the end of a round.
 */
static inline void rig_put_handlers(struct fuzz *fuzz, uint32_t base, bool wide)
{
	for (uint32_t i = 0; i < 32; i++) {
		uint8_t code[16] = {0}, *p = code;

		if (vector_has_error_code((enum vector)i)) { /* ADD ESP or RSP, size */
			if (wide)
				*p++ = 0x48;
			*p++ = 0x83;
			*p++ = 0xc4;
			*p++ = wide ? 8 : 4;
		}
		if (wide)
			*p++ = 0x48;
		*p++ = 0x83; /* ADD [ESP or RSP], n; IRET */
		*p++ = 0x04;
		*p++ = 0x24;
		*p++ = (uint8_t)(1 + fuzz_below(fuzz, 4));
		if (wide)
			*p++ = 0x48;
		*p++ = 0xcf;
		memcpy(image + base + 16 * i, code, sizeof(code));
	}
}

/* ---- a run ---- */

static inline void rig_traced(void *owner, unsigned vcpu, uint64_t rip, const char *text)
{
	(void)owner;
	(void)vcpu;
	if (getenv("FUZZ_ROUND") || getenv("FUZZ_FROM"))
		fprintf(stderr, "%llx %s\n", (unsigned long long)rip, text);
	if (rip == rig.rip && strcmp(text, rig.text) != 0 && strstr(rig.text, "rep"))
		rig.rewritten = true;
	rig.rip = rip;
	snprintf(rig.text, sizeof(rig.text), "%s", text);
	rig.lines++;
}

/* The machine as @state and `image` have it, one instruction at a time if @traced. */
static inline void rig_begin(const struct vcpu_state *state, bool traced)
{
	const struct engine_ops *ops = rig.engine->ops;

	rig.began = ops->retired(rig.engine);
	rig.trace = (struct engine_trace){.insn = rig_traced, .event = rig_traced};
	rig.lines = 0;
	rig.text[0] = 0;
	rig.rewritten = false;
	assert_true(ops->memory_write(rig.engine, 0, image, RAM));
	ops->reset(rig.engine); /* its chips, which @state says nothing of */
	ops->trace(rig.engine, traced ? &rig.trace : NULL);
	assert_int_equal(ops->vcpu_load(rig.vcpu, state), 0);
}

/* How many instructions the run has retired. */
static inline uint64_t rig_retired(void) { return rig.engine->ops->retired(rig.engine) - rig.began; }

/* What lies between the members of a structure is no state. */
#define CLEAR_BEHIND(object, last)                                                                           \
	memset((uint8_t *)&(object).last + sizeof((object).last), 0,                                         \
	       sizeof(object) - offsetof(__typeof__(object), last) - sizeof((object).last))
static inline void rig_clear_padding(struct vcpu_state *state)
{
	for (unsigned i = 0; i < SEGMENT_COUNT; i++)
		CLEAR_BEHIND(state->segment[i], selector);
	for (unsigned i = 0; i < 8; i++)
		CLEAR_BEHIND(state->st[i], sign_exponent);
	CLEAR_BEHIND(state->ldtr, selector);
	CLEAR_BEHIND(state->tr, selector);
	CLEAR_BEHIND(state->gdtr, limit);
	CLEAR_BEHIND(state->idtr, limit);
}

/* What became of the run, which ended with @exit. */
static inline void rig_end(enum engine_exit exit, struct rig_result *result)
{
	const struct engine_ops *ops = rig.engine->ops;

	memset(result, 0, sizeof(*result));
	result->exit = exit;
	result->retired = rig_retired();
	if (exit == ENGINE_FAILED)
		snprintf(result->failure, sizeof(result->failure), "%s", ops->failure(rig.engine));
	ops->vcpu_save(rig.vcpu, &result->state);
	rig_clear_padding(&result->state);
	ops->trace(rig.engine, NULL);
}

/* Counts a round's first run, which must have ended in a way that has a name, within @most instructions. */
static inline void rig_count(uint64_t round, const struct rig_result *result, uint64_t most)
{
	if (result->retired > most || result->exit == ENGINE_STOPPED || result->exit > ENGINE_FAILED)
		fail_msg("FUZZ_ROUND=%llu: exit %u after %llu", (unsigned long long)round, result->exit,
			 (unsigned long long)result->retired);
	rig.retired += result->retired;
	rig.exits[result->exit]++;
}

/* ---- two runs ---- */

/* Told as bytes in memory, lowest first. */
static inline void rig_compare_bytes(uint64_t round, const char *way, const char *name, unsigned index,
				     const void *a, const void *b, size_t size)
{
	char texts[2][65] = {"", ""};

	if (memcmp(a, b, size) == 0)
		return;
	for (size_t i = 0; i < size && i < 32; i++) {
		sprintf(texts[0] + 2 * i, "%02x", ((const uint8_t *)a)[i]);
		sprintf(texts[1] + 2 * i, "%02x", ((const uint8_t *)b)[i]);
	}
	fail_msg("FUZZ_ROUND=%llu: %s[%u] is %s, and %s %s", (unsigned long long)round, name, index, texts[0],
		 way, texts[1]);
}

/* All but memory, of which a test may have exceptions; @way is how @b ran. */
static inline void rig_compare(uint64_t round, const char *way, const struct rig_result *a,
			       const struct rig_result *b)
{
	/* How many bytes behind an instruction that is not modelled are told is up to what was fetched. */
	size_t shorter = strlen(a->failure) < strlen(b->failure) ? strlen(a->failure) : strlen(b->failure);

	if (a->exit != b->exit || a->retired != b->retired || strncmp(a->failure, b->failure, shorter) != 0)
		fail_msg("FUZZ_ROUND=%llu: exit %u after %llu %s; %s exit %u after %llu %s",
			 (unsigned long long)round, a->exit, (unsigned long long)a->retired, a->failure, way,
			 b->exit, (unsigned long long)b->retired, b->failure);
#define VCPU_FIELD(type, name)                                                                               \
	rig_compare_bytes(round, way, #name, 0, &a->state.name, &b->state.name, sizeof(a->state.name));
#define VCPU_ARRAY(type, name, count)                                                                        \
	for (unsigned i = 0; i < (count); i++)                                                               \
		rig_compare_bytes(round, way, #name, i, &a->state.name[i], &b->state.name[i],                \
				  sizeof(a->state.name[i]));
#include "x86/vcpu_state.def"
#undef VCPU_FIELD
#undef VCPU_ARRAY
}

#endif
