/*
 * caching.h: translations that a processor may keep, and what must drop them (SDM 3A 4.10, APM 2 5.5).
 *
 * A case accesses a page, changes an entry of its path in memory, does what a row names, and accesses the
 * page again. The second access is either fresh, as the changed entries have it, or stale, as the old ones
 * had it. Where the row's operation must drop the translation only the fresh outcome passes; elsewhere both
 * are permitted.
 *
 * INVALIDATION(name, where, given, operation, drops, citations)
 */
#ifndef TRAPLINE_SUITES_PAGING_CACHING_H
#define TRAPLINE_SUITES_PAGING_CACHING_H

#include "words.h"

/* What an operation must drop. */
enum drops {
	DROPS_NOTHING = 0,
	DROPS_PAGE = 1,     /* the page's translation, and all paging-structure caches of the PCID */
	DROPS_GLOBAL = 2    /* a global page's too */
};

/* What changes in between. */
enum change {
	CHANGE_FRAME, /* another page */
	CHANGE_P0,    /* not present */
	CHANGE_W0,    /* read-only, for a write */
	CHANGE_W1,    /* no longer read-only */
	CHANGE_U1,    /* the user's, with SMAP */
	CHANGE_X1,    /* not executable, for a call */
	CHANGE_A0,    /* A cleared: set again */
	CHANGE_D0,    /* D cleared, for a write: set again */
	CHANGE_P1,    /* present, without an access before: what is not present is never kept */
	CHANGE_COUNT
};

struct caching {
	enum shape shape;
	enum level level;
	enum change change;
	bool global;
};

/* The cursor over shape, level, change and global: false past the last. */
bool caching_next(struct caching *at);

#define INVALIDATION(NAME, WHERE, GIVEN, OPERATION, DROPS, ...)                                              \
	for (struct caching at = {.shape = SHAPE_COUNT}; caching_next(&at);)                                 \
		TRAP(PAGED_AGAIN, WHERE,                                                                     \
		     (caching_begin(x, &at), VARIANT(NAME), GIVEN, caching_first(x, &at), OPERATION,        \
		      caching_second(x, &at)),                                                               \
		     caching_say(x, &at, DROPS), __VA_ARGS__)

/* The path with A and D set, and the id. */
void caching_begin(struct cell *x, const struct caching *at);
/* The first access and the change of the entry. */
void caching_first(struct cell *x, const struct caching *at);
void caching_second(struct cell *x, const struct caching *at);
void caching_say(struct cell *x, const struct caching *at, unsigned drops);

/* Operations: bytes; MOV of a value to CR0,
     CR3 or CR4 (64 bits wide where WIDE); RAX then holds the value. */
#define BYTES(...) caching_bytes(x, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))
#define MOV_TO_CR(n, value) caching_mov_cr(x, (n), (value))
#define CR4_AFTER(value) (paging.cr4 = (value), paging.cr4_changed = true)
#define LOAD_EAX(value) caching_load_eax(x, (value))

#define SWITCH_TASK(cr3) caching_task_switch(x, (cr3))
#define SECOND_ROOT caching_second_root(x)

/* JMP to the spare TSS, whose registers are the case's own, its EIP behind the JMP and its CR3 @cr3. */
void caching_task_switch(struct cell *x, uint64_t cr3);
/* Builds a second root (a PDPT, or the page directory of 32-bit paging) like the first; its address. */
uint64_t caching_second_root(struct cell *x);
void paging_say_task(struct cell *x);
void caching_bytes(struct cell *x, const uint8_t *bytes, size_t count);
void caching_mov_cr(struct cell *x, unsigned n, uint64_t value);
void caching_load_eax(struct cell *x, uint32_t value);

#endif
