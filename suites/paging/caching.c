/* caching.c: stories of two accesses with a change between them. */
#include <string.h>

#include "caching.h"

#define FRAME2_DATA 0x99aabbccddeeff00ull
#define CODE_RET    0xc3u

static const char *const change_names[CHANGE_COUNT] = {"frame", "p0", "w0", "w1", "u1",
						       "x1",    "a0", "d0", "p1"};

/* ---- which stories there are ---- */

static bool story_exists(const struct caching *at)
{
	bool leaf = at->level == shape_leaf(at->shape);

	if (!shape_has(at->shape, at->level) || (at->global && !leaf))
		return false;
	if (at->level == LEVEL_PDPTE && shape_is_pae(at->shape))
		return false; /* registers: pdpte.def */
	switch (at->change) {
	case CHANGE_FRAME: return at->level == LEVEL_PTE;
	case CHANGE_D0: return leaf;
	case CHANGE_X1: return !shape_is_32(at->shape);
	default: return true;
	}
}

bool caching_next(struct caching *at)
{
	unsigned n = 0;

	if (at->shape != SHAPE_COUNT)
		n = 1 + ((((unsigned)at->shape * LEVEL_COUNT + at->level) * CHANGE_COUNT + at->change) * 2 +
			 at->global);
	for (; n < SHAPE_COUNT * LEVEL_COUNT * CHANGE_COUNT * 2; n++) {
		*at = (struct caching){.shape = (enum shape)(n / 2 / CHANGE_COUNT / LEVEL_COUNT),
				       .level = (enum level)(n / 2 / CHANGE_COUNT % LEVEL_COUNT),
				       .change = (enum change)(n / 2 % CHANGE_COUNT),
				       .global = n % 2};
		if (story_exists(at))
			return true;
	}
	return false;
}

/* ---- code ---- */

void caching_bytes(struct cell *x, const uint8_t *bytes, size_t count) { given_tail(x, bytes, count); }

void caching_load_eax(struct cell *x, uint32_t value)
{
	BYTES(0xb8, (uint8_t)value, (uint8_t)(value >> 8), (uint8_t)(value >> 16), (uint8_t)(value >> 24));
	paging.rax = value;
	paging.rax_loaded = true;
}

void caching_mov_cr(struct cell *x, unsigned n, uint64_t value)
{
	if (value >> 32) {
		uint8_t code[10] = {0x48, 0xb8};

		memcpy(code + 2, &value, 8);
		caching_bytes(x, code, sizeof(code));
		paging.rax = value;
		paging.rax_loaded = true;
	} else {
		LOAD_EAX((uint32_t)value);
	}
	BYTES(0x0f, 0x22, (uint8_t)(0xc0 | n << 3));
}

/* ---- a task switch to what follows, with all registers as they are ---- */

#define TASK CASE_TSS32_SPARE

void caching_task_switch(struct cell *x, uint64_t cr3)
{
	uint32_t next = (uint32_t)LOADED(rip) + 1 + x->tail_count + 7;

	for (unsigned i = 0; i < 8; i++)
		POKE(4, TASK + TSS32_GPR + 4 * i, LOADED(rax + i));
	for (unsigned i = 0; i < SEGMENT_COUNT; i++)
		POKE(4, TASK + TSS32_SEG + 4 * i, x->state.field[STATE_es + i]);
	POKE(4, TASK + TSS32_EIP, next);
	POKE(4, TASK + TSS32_EFLAGS, LOADED(rflags));
	POKE(4, TASK + TSS32_CR3, cr3);
	BYTES(0xea, 0, 0, 0, 0, CASE_SEL_TSS32_SPARE & 0xff, 0);
	paging.in_new_task = true;
	paging.task_cr3 = cr3;
}

/* Two busy bits, TR, CR0.TS, CR3, and the old task's state; the registers are those of the new task. */
void paging_say_task(struct cell *x)
{
	EFFECT(tr, CASE_SEL_TSS32_SPARE);
	EFFECT(cr0, LOADED(cr0) | CR0_TS);
	if (paging.task_cr3 != LOADED(cr3))
		EFFECT(cr3, paging.task_cr3);
	MEMORY_UNDEFINED(16, CASE_GDT_ENTRY(CASE_SEL_TSS32));
	MEMORY_UNDEFINED(TSS32_SIZE, CASE_TSS32);
}

/* A second root with the entries of the first: its address. */
uint64_t caching_second_root(struct cell *x)
{
	struct path_entry *top = &paging.path.entry[0];
	uint32_t index = top->address & (uint32_t)PAGE_MASK, root = CASE_PATH_PML4;

	if (shape_is_32(paging.path.shape)) {
		POKE(4, root, CASE_PT_32 | PTE_P | PTE_W | PTE_U | PTE_A);
		POKE(4, root + index, top->value);
	} else {
		POKE(8, root, CASE_PD | PTE_P);
		POKE(8, root + index, top->value);
	}
	return root;
}

/* ---- the story ---- */

static bool writes_first(enum change change) { return change == CHANGE_W0 || change == CHANGE_D0; }
static bool writes_second(enum change change) { return writes_first(change) || change == CHANGE_W1; }

void caching_begin(struct cell *x, const struct caching *at)
{
	paging_path(x, at->shape);
	VARIANT(shape_names[at->shape]);
	VARIANT(level_names[at->level]);
	VARIANT(change_names[at->change]);
	if (at->global)
		VARIANT("global");
	for (unsigned i = 0; i < paging.path.count; i++) {
		struct path_entry *entry = &paging.path.entry[i];

		if (entry->level == LEVEL_PDPTE && shape_is_pae(at->shape))
			continue;
		entry->value |= PTE_A;
		if (i + 1 == paging.path.count)
			entry->value |= PTE_D | (at->global ? PTE_G : 0);
	}
	if (at->global) {
		NEEDS(pge);
		OR_IN(cr4, CR4_PGE);
	}
	if (at->change == CHANGE_U1) {
		NEEDS(smap);
		OR_IN(cr4, CR4_SMAP);
		/* Only where all entries have U/S = 1 is the page the user's. */
		if (path_at(&paging.path, at->level))
			path_at(&paging.path, at->level)->value &= ~PTE_U;
	}
	if (at->change == CHANGE_W1 && path_at(&paging.path, at->level))
		path_at(&paging.path, at->level)->value &= ~PTE_W;
	if (at->change == CHANGE_P1 && path_at(&paging.path, at->level))
		path_at(&paging.path, at->level)->value &= ~PTE_P;
	if (at->change == CHANGE_X1) {
		NEEDS(nx);
		OR_IN(efer, EFER_NXE);
	}
}

static uint64_t changed_value(const struct caching *at, uint64_t value)
{
	switch (at->change) {
	case CHANGE_FRAME: return value ^ CASE_FRAME ^ CASE_FRAME2;
	case CHANGE_P0: return value & ~PTE_P;
	case CHANGE_W0: return value & ~PTE_W;
	case CHANGE_W1: return value | PTE_W;
	case CHANGE_U1: return value | PTE_U;
	case CHANGE_X1: return value | PTE_NX;
	case CHANGE_A0: return value & ~PTE_A;
	case CHANGE_D0: return value & ~PTE_D;
	case CHANGE_P1: return value | PTE_P;
	case CHANGE_COUNT: break;
	}
	return value;
}

static uint64_t target_of(const struct caching *at)
{
	return paging.path.linear + (at->change == CHANGE_X1 ? PAGED_CODE_OFFSET : PAGED_DATA_OFFSET);
}

void caching_first(struct cell *x, const struct caching *at)
{
	struct path_entry *entry = paging_entry(x, at->level);
	unsigned high = at->change == CHANGE_X1 ? 4 : 0; /* the half of the entry that changes */

	paging_poke(x, &paging.path);
	POKE(8, CASE_FRAME + PAGED_DATA_OFFSET, PAGED_DATA);
	POKE(8, CASE_FRAME2 + PAGED_DATA_OFFSET, FRAME2_DATA);
	POKE(1, CASE_FRAME + PAGED_CODE_OFFSET, CODE_RET);
	SET(rbx, target_of(at));
	SET(rcx, entry->address + high);
	SET(rdx, (uint32_t)(changed_value(at, entry->value) >> 8 * high));
	if (at->change == CHANGE_X1)
		BYTES(0xff, 0xd3); /* CALL [E/R]BX */
	else if (writes_first(at->change))
		BYTES(0x89, 0x2b); /* MOV [EBX], EBP */
	else if (at->change != CHANGE_P1)
		BYTES(0x8b, 0x03); /* MOV EAX, [EBX] */
	BYTES(0x89, 0x11);         /* MOV [ECX], EDX */
}

void caching_second(struct cell *x, const struct caching *at)
{
	if (at->change == CHANGE_X1)
		BYTES(0xff, 0xd3);
	else if (writes_second(at->change))
		BYTES(0x89, 0x2b);
	else
		BYTES(0x8b, 0x3b); /* MOV EDI, [EBX] */
}

/* ---- what the manuals say ---- */

static void say_registers(struct cell *x, const struct caching *at)
{
	bool reads_first = !writes_first(at->change) && at->change != CHANGE_X1 && at->change != CHANGE_P1;

	if (paging.in_new_task)
		paging_say_task(x);
	else if (paging.rax_loaded)
		EFFECT(rax, paging.rax);
	else if (reads_first)
		EFFECT(rax, (uint32_t)PAGED_DATA);
	if (paging.cr4_changed)
		EFFECT(cr4, paging.cr4);
	if (at->change == CHANGE_X1) /* the calls' return address */
		MEMORY_UNDEFINED(8, CASE_STACK - 8);
}

static void say_written(struct cell *x, bool written)
{
	uint64_t high = PAGED_DATA & ~0xffffffffull;

	if (written)
		MEMORY(8, CASE_FRAME + PAGED_DATA_OFFSET, high | (uint32_t)LOADED(rbp));
}

/* The changed entry: A and D set again where they were cleared, or not where the old ones are still known. */
static void say_changed(struct cell *x, const struct caching *at, bool stale)
{
	struct path_entry *entry = paging_entry(x, at->level);
	unsigned size = shape_entry_size(at->shape);
	uint64_t value = changed_value(at, entry->value), all = size == 8 ? ~0ull : 0xffffffffull;
	uint64_t again = at->change == CHANGE_A0 ? PTE_A : at->change == CHANGE_D0 ? PTE_D : 0;

	if (stale)
		MEMORY_BITS(size, entry->address, value & ~again, all & ~again);
	else
		MEMORY(size, entry->address, value | again);
}

static void say_runs(struct cell *x, const struct caching *at, bool stale)
{
	RUNS;
	say_registers(x, at);
	say_written(x, writes_second(at->change));
	say_changed(x, at, stale);
	if (!writes_second(at->change) && at->change != CHANGE_X1)
		EFFECT(rdi, (uint32_t)(at->change == CHANGE_FRAME && !stale ? FRAME2_DATA : PAGED_DATA));
}

static void say_faults(struct cell *x, const struct caching *at, uint32_t error)
{
	PAGE_FAULT(error, target_of(at));
	say_registers(x, at);
	say_written(x, writes_first(at->change));
	say_changed(x, at, false);
	EFFECT(rip, LOADED(rip) + x->length - 2);
	if (at->change == CHANGE_X1) {
		EFFECT(rip, target_of(at));
		EFFECT(rsp, LOADED(rsp) - (x->mode == MODE_LONG ? 8 : 4));
	}
}

static void say_fresh(struct cell *x, const struct caching *at)
{
	switch (at->change) {
	case CHANGE_P0: say_faults(x, at, 0); break;
	case CHANGE_W0: say_faults(x, at, PF_P | PF_W); break;
	case CHANGE_U1: say_faults(x, at, PF_P); break;
	case CHANGE_X1: say_faults(x, at, PF_P | PF_I); break;
	default: say_runs(x, at, false);
	}
}

static void say_stale(struct cell *x, const struct caching *at)
{
	if (at->change == CHANGE_W1)
		say_faults(x, at, PF_P | PF_W);
	else
		say_runs(x, at, true);
}

void caching_say(struct cell *x, const struct caching *at, unsigned drops)
{
	say_fresh(x, at);
	if (at->change == CHANGE_P1)
		return;
	if (!(drops & DROPS_PAGE) || (at->global && !(drops & DROPS_GLOBAL))) {
		OR;
		say_stale(x, at);
	}
}
