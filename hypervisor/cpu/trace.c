/* trace.c: building, finding, linking and dropping traces. */
#include <stdlib.h>
#include <string.h>

#include "cpu/checks.h"
#include "cpu/decode.h"
#include "cpu/mem/mem.h"
#include "cpu/mem/phys.h"
#include "cpu/trace.h"

#define PAGE         4096u
#define LINE_SHIFT   7
#define INSN_BYTES   15
#define ARENA_BYTES  (8u << 20)
#define BUCKETS      8192u
#define PAGE_BUCKETS 512u
#define PAGES_MAX    4096u
#define JUMPS        4096u

struct trace {
	uint64_t key;       /* trace_key() */
	struct trace *next; /* of the same bucket */
	struct trace *page_next;
	uint32_t lines; /* of its page: a bit for each line that a byte was read from */
	uint32_t bytes;
	struct insn insn[]; /* the instructions, then a struct trace_end */
};

/*
 * The pseudo instruction behind the last one. Its links lead to traces on the same page, by the
 * distance of their RIPs from this trace's: they hold wherever the page is mapped.
 */
struct trace_end {
	insn_handler *run;
	const struct insn *link[2];
	int16_t delta[2]; /* 0: no link */
	uint16_t offset;  /* as in struct insn from here: bytes of the trace */
	uint8_t length;
	uint8_t looks; /* the last instruction has FLAG_ENDS: back to run.c */
	uint8_t turn;  /* which link the next one replaces */
};
_Static_assert(sizeof(struct trace_end) <= sizeof(struct insn), "an end takes the place of an instruction");
_Static_assert(offsetof(struct trace_end, offset) == offsetof(struct insn, offset),
	       "ends are left as any other");
_Static_assert(offsetof(struct trace_end, turn) < offsetof(struct insn, count), "ends are left as any other");

struct code_page {
	uint64_t page; /* physical address */
	uint32_t lines;
	struct trace *traces;
	struct code_page *next;
};

/* Where a linear address leads under a jump_tag. */
struct jump {
	uint64_t linear, tag;
	const struct insn *insn;
};

struct trace_cache {
	struct cpu *cpu;
	uint8_t *arena;
	size_t used;
	struct trace *bucket[BUCKETS];
	struct code_page *page_bucket[PAGE_BUCKETS];
	struct code_page pages[PAGES_MAX];
	unsigned page_count;
	struct jump jump[JUMPS];
	uint8_t step_bytes[INSN_BYTES];
	union {
		struct trace trace;
		uint8_t room[sizeof(struct trace) + 2 * sizeof(struct insn)];
	} step;
};

static inline struct trace *trace_of(const struct insn *first)
{
	return (struct trace *)((uintptr_t)first - offsetof(struct trace, insn));
}
static inline uint64_t code_linear(const struct cpu *cpu, uint64_t rip)
{
	return (cpu->segment[CS].linear_base + rip) & cpu->linear_mask;
}
/* Bytes of CS from cpu->rip on; beyond its end, which only a broken check lets happen, as if there were none.
 */
static inline uint64_t code_inside(const struct cpu *cpu)
{
	return cpu->rip < cpu->code_end ? cpu->code_end - cpu->rip : ~0ull;
}
static inline struct jump *jump_slot(struct trace_cache *cache, uint64_t linear)
{
	return &cache->jump[(linear ^ linear >> 12) % JUMPS];
}

/* ---- ends ---- */

/* Leaves the trace in front of @insn: stale traces, ends that look, parked instructions. */
static const struct insn *leave_run(struct cpu *cpu, const struct insn *insn)
{
	cpu->rip = (cpu->reg[REG_TRACE_RIP] + insn->offset) & cpu->linear_mask;
	cpu->retired += insn->count;
	cpu->insn = NULL;
	return NULL;
}

/*
 * The trace at cpu->rip by the jump cache, linked to @end where both lie in one page. NULL: none is
 * known, or run.c has to look.
 */
static __attribute__((noinline)) const struct insn *follow(struct cpu *cpu, struct trace_end *end)
{
	uint64_t linear = code_linear(cpu, cpu->rip), from = code_linear(cpu, cpu->reg[REG_TRACE_RIP]);
	const struct jump *jump = jump_slot(cpu->traces, linear);
	const struct trace *own, *next;

	if (end->looks || jump->linear != linear || jump->tag != cpu->jump_tag ||
	    jump->insn->run == leave_run)
		return NULL;
	own = trace_of((const struct insn *)end - ((const struct insn *)end)->count);
	next = trace_of(jump->insn);
	if (linear / PAGE == from / PAGE &&
	    own->key / (PAGE * CODE_MODES) == next->key / (PAGE * CODE_MODES)) {
		end->delta[end->turn] = (int16_t)(linear - from);
		end->link[end->turn] = jump->insn;
		end->turn ^= 1;
	}
	return jump->insn;
}

/*
 * Goes on at cpu->rip while nothing is pending: through a link, or the jump cache. NULL: back to
 * run.c. The check of code_end is that the whole trace lies inside CS.
 */
static inline const struct insn *go_on(struct cpu *cpu, struct trace_end *end)
{
	uint64_t rip = cpu->rip;
	int64_t delta = (int64_t)(rip - cpu->reg[REG_TRACE_RIP]);
	const struct insn *next;

	if (unlikely(cpu->pending || cpu->retired + TRACE_INSNS > cpu->event_at))
		goto leave;
	next = delta == end->delta[0] ? end->link[0] : delta == end->delta[1] ? end->link[1] : NULL;
	if (unlikely(!next || next->run == leave_run)) {
		next = follow(cpu, end);
		if (!next)
			goto leave;
	}
	if (unlikely(rip + trace_of(next)->bytes > cpu->code_end))
		goto leave;
	cpu->reg[REG_TRACE_RIP] = rip;
	DISPATCH(cpu, next);
leave:
	cpu->insn = NULL;
	return NULL;
}

const struct insn *cpu_end_trace(struct cpu *cpu, const struct insn *insn)
{
	/* Not a constant object: traces lie in the arena. */
	struct insn *end = (struct insn *)(uintptr_t)(insn + 1);

	cpu->retired += end->count;
	return go_on(cpu, (struct trace_end *)end);
}

/* The end of a trace that no branch ended. */
static const struct insn *end_run(struct cpu *cpu, const struct insn *insn)
{
	cpu->rip = (cpu->reg[REG_TRACE_RIP] + insn->offset) & cpu->linear_mask;
	cpu->retired += insn->count;
	return go_on(cpu, (struct trace_end *)(uintptr_t)insn);
}

/* ---- bytes that are no instruction: noticed only when they run ---- */

static const struct insn *undefined_run(struct cpu *cpu, const struct insn *insn)
{
	cpu->insn = insn;
	cpu_raise(cpu, VECTOR_UD, 0);
}

static const struct insn *too_long_run(struct cpu *cpu, const struct insn *insn)
{
	cpu->insn = insn;
	cpu_raise(cpu, VECTOR_GP, 0);
}

static const struct insn *unmodelled_run(struct cpu *cpu, const struct insn *insn)
{
	cpu->insn = insn;
	cpu_unmodelled(cpu, "instruction");
}

static void insn_set_invalid(struct insn *insn, enum decode_result result)
{
	insn->opcode = OPCODE_NONE;
	insn->run = result == DECODE_UNDEFINED  ? undefined_run
		    : result == DECODE_TOO_LONG ? too_long_run
						: unmodelled_run;
}

/* ---- the arena ---- */

static size_t trace_size(unsigned count) { return sizeof(struct trace) + (count + 1) * sizeof(struct insn); }

/* Only where no trace runs. */
static void forget_all(struct trace_cache *cache)
{
	for (unsigned i = 0; i < cache->page_count; i++)
		if (cache->pages[i].traces && cache->cpu->memory->cpu_count <= 1)
			phys_clear_code(cache->cpu->memory, cache->pages[i].page);
	cache->used = 0;
	cache->page_count = 0;
	memset(cache->bucket, 0, sizeof(cache->bucket));
	memset(cache->page_bucket, 0, sizeof(cache->page_bucket));
	trace_mapping_changed(cache->cpu);
}

struct trace_cache *trace_cache_new(struct cpu *cpu)
{
	struct trace_cache *cache = calloc(1, sizeof(*cache));

	if (!cache)
		return NULL;
	cache->cpu = cpu;
	cache->arena = malloc(ARENA_BYTES);
	if (!cache->arena) {
		free(cache);
		return NULL;
	}
	return cache;
}

void trace_cache_free(struct trace_cache *cache)
{
	if (!cache)
		return;
	free(cache->arena);
	free(cache);
}

/* ---- writes under decoded code ---- */

static void trace_kill(struct trace_cache *cache, struct trace *trace)
{
	struct trace **link = &cache->bucket[trace->key * 0x9e3779b97f4a7c15u >> 51];
	struct cpu *cpu = cache->cpu;
	struct insn *insn = trace->insn;

	while (*link != trace)
		link = &(*link)->next;
	*link = trace->next;
	for (; insn->offset < trace->bytes; insn++) {
		if (insn == cpu->parked)
			cpu->parked = NULL;
		insn->run = leave_run;
	}
	if (insn == cpu->parked)
		cpu->parked = NULL;
	insn->run = leave_run;
}

static struct code_page *page_find(const struct trace_cache *cache, uint64_t page)
{
	struct code_page *at = cache->page_bucket[page / PAGE % PAGE_BUCKETS];

	while (at && at->page != page)
		at = at->next;
	return at;
}

/* Kills the traces of @page that read one of @lines. */
static void page_kill(struct trace_cache *cache, struct code_page *page, uint32_t lines)
{
	struct trace **link = &page->traces;

	page->lines = 0;
	while (*link) {
		struct trace *trace = *link;

		if (trace->lines & lines) {
			*link = trace->page_next;
			trace_kill(cache, trace);
		} else {
			page->lines |= trace->lines;
			link = &trace->page_next;
		}
	}
}

static uint32_t line_bits(unsigned first, unsigned last)
{
	unsigned low = first >> LINE_SHIFT, high = last >> LINE_SHIFT;

	return (~0u >> (31 - (high - low))) << low;
}

/* Whether some CPU has traces of @page. */
static bool holds_code(const struct phys_memory *memory, uint64_t page)
{
	for (unsigned i = 0; i < memory->cpu_count; i++) {
		const struct code_page *at = page_find(memory->cpus[i]->traces, page);

		if (at && at->traces)
			return true;
	}
	return false;
}

void trace_written(struct trace_cache *cache, uint64_t address, size_t size)
{
	unsigned offset = (unsigned)(address % PAGE);
	struct code_page *page = page_find(cache, address - offset);
	uint32_t lines;

	if (!page || !size)
		return;
	lines = line_bits(offset, offset + (unsigned)size - 1);
	if (likely(!(page->lines & lines)))
		return;
	page_kill(cache, page, lines);
	if (!page->traces && !holds_code(cache->cpu->memory, page->page))
		phys_clear_code(cache->cpu->memory, page->page);
}

void trace_drop_all(struct trace_cache *cache)
{
	/* The running trace may be among them, so the arena stays as it is until run.c comes by. */
	for (unsigned i = 0; i < cache->page_count; i++)
		if (cache->pages[i].traces)
			page_kill(cache, &cache->pages[i], ~0u);
	trace_mapping_changed(cache->cpu);
}

void trace_mapping_changed(struct cpu *cpu) { cpu->jump_tag += CODE_MODES; }

/* ---- leaving behind the running instruction ---- */

void trace_leave_after(struct cpu *cpu)
{
	if (!cpu->insn || cpu->parked)
		return;
	/* Not a constant object: traces lie in the arena. */
	cpu->parked = (struct insn *)(uintptr_t)(cpu->insn + 1);
	cpu->parked_run = cpu->parked->run;
	cpu->parked->run = leave_run;
}

void trace_unpark(struct cpu *cpu)
{
	if (likely(!cpu->parked))
		return;
	cpu->parked->run = cpu->parked_run;
	cpu->parked = NULL;
}

/* ---- building ---- */

static void end_set(struct insn *insn, insn_handler *run, unsigned offset, unsigned count, bool looks)
{
	struct trace_end *end = (struct trace_end *)insn;

	*insn = (struct insn){.run = run, .offset = (uint16_t)offset, .count = (uint8_t)count};
	end->looks = looks;
}

/* Whether the trace ends behind @insn; sets how. */
static bool insn_ends(const struct insn *insn, insn_handler **run, bool *looks)
{
	unsigned flags = opcode_table[insn->opcode].flags;
	bool repeats = flags & FLAG_REP && insn->prefixes & (PREFIX_REP | PREFIX_REPNE);

	*looks = flags & FLAG_ENDS;
	/* A repeated instruction may have used up what was left until event_at. */
	*run = flags & FLAG_ENDS ? leave_run : end_run;
	return flags & (FLAG_ENDS | FLAG_BRANCH) || repeats;
}

/* One instruction, at @offset of its trace. False where @available bytes were not enough. */
static bool trace_decode(struct cpu *cpu, struct insn *insn, const uint8_t *bytes, size_t available,
			 unsigned offset, unsigned count, bool *invalid)
{
	enum decode_result result = decode(insn, bytes, available, cpu->code_mode, cpu->profile);

	if (unlikely(result == DECODE_TRUNCATED))
		return false;
	insn->offset = (uint16_t)offset;
	insn->count = (uint8_t)count;
	*invalid = result != DECODE_OK;
	if (unlikely(*invalid))
		insn_set_invalid(insn, result);
	else if (insn->base == REG_TRACE_RIP)
		insn->disp += (int64_t)offset;
	return true;
}

/* Fills @trace from @bytes; answers how many bytes were looked at, 0 if the first instruction is incomplete.
 */
static unsigned trace_fill(struct cpu *cpu, struct trace *trace, const uint8_t *bytes, size_t available)
{
	insn_handler *run = end_run;
	bool looks = false, invalid = false;
	unsigned offset = 0, count = 0;
	struct insn *insn = trace->insn;

	while (count < TRACE_INSNS) {
		if (!trace_decode(cpu, insn, bytes + offset, available - offset, offset, count, &invalid))
			break;
		offset += insn->length;
		count++;
		if (invalid || insn_ends(insn++, &run, &looks))
			break;
	}
	if (!count)
		return 0;
	if (invalid) {
		/* What follows the invalid bytes is never reached; they may have been looked at further. */
		insn++;
		trace->bytes = offset;
		end_set(insn, leave_run, offset, count, true);
		return offset - insn[-1].length + INSN_BYTES;
	}
	trace->bytes = offset;
	end_set(insn, run, offset, count, looks);
	return offset;
}

static uint64_t trace_key(const struct cpu *cpu, uint64_t physical)
{
	return physical * CODE_MODES | cpu->code_mode;
}

static struct code_page *page_make(struct trace_cache *cache, uint64_t page)
{
	struct code_page *at = page_find(cache, page);
	struct code_page **bucket = &cache->page_bucket[page / PAGE % PAGE_BUCKETS];

	if (!at) {
		at = &cache->pages[cache->page_count++];
		*at = (struct code_page){.page = page, .next = *bucket};
		*bucket = at;
	}
	if (!at->traces)
		phys_set_code(cache->cpu->memory, page);
	return at;
}

/* Makes the trace at @physical. NULL where its first instruction reaches out of the page or of CS, or is not
 * in RAM. */
static struct trace *trace_build(struct cpu *cpu, uint64_t physical)
{
	struct trace_cache *cache = cpu->traces;
	unsigned offset = (unsigned)(physical % PAGE), looked, last;
	uint64_t inside = code_inside(cpu);
	const uint8_t *host;
	struct code_page *page;
	struct trace *trace, **bucket;

	if (cache->used + trace_size(TRACE_INSNS) > ARENA_BYTES || cache->page_count == PAGES_MAX)
		forget_all(cache);
	host = phys_host(cpu->memory, physical, NULL);
	if (!host)
		return NULL;
	page = page_make(cache, physical - offset);
	trace = (struct trace *)(cache->arena + cache->used);
	looked = trace_fill(cpu, trace, host, inside < PAGE - offset ? inside : PAGE - offset);
	if (!looked)
		return NULL;
	last = offset + looked - 1;
	trace->lines = line_bits(offset, last < PAGE ? last : PAGE - 1);
	trace->key = trace_key(cpu, physical);
	bucket = &cache->bucket[trace->key * 0x9e3779b97f4a7c15u >> 51];
	trace->next = *bucket;
	*bucket = trace;
	trace->page_next = page->traces;
	page->traces = trace;
	page->lines |= trace->lines;
	for (looked = 0; trace->insn[looked].offset < trace->bytes; looked++)
		;
	cache->used += trace_size(looked);
	return trace;
}

/* ---- fetching ---- */

/* The limit of CS (SDM 3A 5.3); fetch_translate() checks that the address is canonical. */
static void check_code_limit(struct cpu *cpu)
{
	if (CHECK(CODE_LIMIT, cpu->rip >= cpu->code_end))
		cpu_raise(cpu, VECTOR_GP, 0);
}

static struct trace *trace_find(struct cpu *cpu, uint64_t physical)
{
	uint64_t key = trace_key(cpu, physical);
	struct trace *trace = cpu->traces->bucket[key * 0x9e3779b97f4a7c15u >> 51];

	while (trace && trace->key != key)
		trace = trace->next;
	return trace;
}

/* What the jump cache does not know: apart, so that what it does know needs no stack frame. */
static __attribute__((noinline)) const struct insn *lookup_slow(struct cpu *cpu, uint64_t linear)
{
	struct jump *jump = jump_slot(cpu->traces, linear);
	struct trace *trace;
	uint64_t physical;

	check_code_limit(cpu);
	physical = fetch_translate(cpu, linear);
	trace = trace_find(cpu, physical);
	if (!trace)
		trace = trace_build(cpu, physical);
	if (!trace || cpu->rip + trace->bytes > cpu->code_end)
		return trace_step(cpu);
	*jump = (struct jump){linear, cpu->jump_tag, trace->insn};
	cpu->reg[REG_TRACE_RIP] = cpu->rip;
	return trace->insn;
}

const struct insn *trace_lookup(struct cpu *cpu)
{
	uint64_t linear = code_linear(cpu, cpu->rip);
	const struct jump *jump = jump_slot(cpu->traces, linear);

	cpu->insn = NULL;
	if (likely(jump->linear == linear && jump->tag == cpu->jump_tag)) {
		const struct trace *trace = trace_of(jump->insn);

		if (likely(trace->insn[0].run != leave_run && cpu->rip + trace->bytes <= cpu->code_end)) {
			cpu->reg[REG_TRACE_RIP] = cpu->rip;
			return jump->insn;
		}
	}
	return lookup_slow(cpu, linear);
}

static void fetch_bytes(struct cpu *cpu, uint64_t physical, uint8_t *to, size_t size)
{
	const uint8_t *host = phys_host(cpu->memory, physical, NULL);

	if (host) {
		memcpy(to, host, size);
		return;
	}
	for (size_t i = 0; i < size; i++)
		cpu->bus.mmio_read(cpu->bus.owner, physical + i, to + i, 1);
}

const struct insn *trace_step(struct cpu *cpu)
{
	struct insn *insn = cpu->traces->step.trace.insn;
	uint64_t linear = code_linear(cpu, cpu->rip), inside = code_inside(cpu);
	size_t have = PAGE - linear % PAGE, room = inside < INSN_BYTES ? inside : INSN_BYTES;
	uint8_t *bytes = cpu->traces->step_bytes;
	bool invalid;

	cpu->insn = NULL;
	check_code_limit(cpu);
	have = have < room ? have : room;
	fetch_bytes(cpu, fetch_translate(cpu, linear), bytes, have);
	if (!trace_decode(cpu, insn, bytes, have, 0, 0, &invalid)) {
		if (have < room) {
			uint64_t next = (linear + have) & cpu->linear_mask;

			fetch_bytes(cpu, fetch_translate(cpu, next), bytes + have, room - have);
		}
		if (have == room || !trace_decode(cpu, insn, bytes, room, 0, 0, &invalid))
			cpu_raise(cpu, VECTOR_GP, 0); /* CS ends within the instruction */
	}
	cpu->reg[REG_TRACE_RIP] = cpu->rip;
	cpu->traces->step.trace.bytes = insn->length;
	end_set(insn + 1, leave_run, insn->length, 1, true);
	return insn;
}

size_t trace_bytes(const struct cpu *cpu, uint8_t *to, size_t size)
{
	const struct insn *insn = cpu->insn;
	uint64_t physical;
	size_t length = insn->opcode == OPCODE_NONE ? INSN_BYTES : insn->length;

	length = length < size ? length : size;
	if (insn == cpu->traces->step.trace.insn) {
		memcpy(to, cpu->traces->step_bytes, length);
		return length;
	}
	physical = trace_of(insn - insn->count)->key / CODE_MODES + insn->offset;
	if (length > PAGE - physical % PAGE)
		length = PAGE - physical % PAGE;
	return phys_read(cpu->memory, physical, to, length) ? length : 0;
}
