/* crossing.c: accesses across two pages. */
#include <string.h>

#include "crossing.h"

static const char *const defect_names[DEFECT_COUNT] = {"good", "p0", "w0", "u0", "r1"};
static const enum shape shapes[] = {SHAPE_32_4K, SHAPE_PAE_4K, SHAPE_4L_4K, SHAPE_5L_4K};
#define SHAPES     (sizeof(shapes) / sizeof(shapes[0]))
#define ROUNDS     (DEFECT_COUNT * DEFECT_COUNT * 2)
#define OFFSET     0xffeu /* of the access in the first page */
#define FIRST_HALF 0x1234u
#define LAST_HALF  0x5678u

/* The second page's path: the same but for its last entry. */
static struct path second;

bool crossing_next(struct crossing *at)
{
	static unsigned n;

	if (at->shape == SHAPE_COUNT)
		n = 0;
	for (; n < SHAPES * ROUNDS; n++) {
		*at = (struct crossing){.shape = shapes[n / ROUNDS],
					.first = (enum defect)(n / 2 / DEFECT_COUNT % DEFECT_COUNT),
					.second = (enum defect)(n / 2 % DEFECT_COUNT),
					.wp = n % 2 == 0};
		if (shape_is_32(at->shape) && (at->first == DEFECT_RESERVED || at->second == DEFECT_RESERVED))
			continue;
		n++;
		return true;
	}
	return false;
}

static uint64_t with_defect(uint64_t value, enum defect defect)
{
	switch (defect) {
	case DEFECT_P0: return value & ~PTE_P;
	case DEFECT_W0: return value & ~PTE_W;
	case DEFECT_U0: return value & ~PTE_U;
	case DEFECT_RESERVED: return value | 1ull << 51;
	default: return value;
	}
}

static enum access access_of(const struct cell *x)
{
	return !strcmp(x->insn->name, "across_read")    ? ACCESS_OF_READ
	       : !strcmp(x->insn->name, "across_write") ? ACCESS_OF_WRITE
							: ACCESS_OF_MODIFY;
}

void crossing_given(struct cell *x, const struct crossing *at)
{
	struct path_entry *leaf;

	paging_path(x, at->shape);
	given_variant(x, shape_names[at->shape]);
	given_variant(x, defect_names[at->first]);
	given_variant(x, defect_names[at->second]);
	if (!at->wp)
		given_variant(x, "nowp");
	second = paging.path;
	leaf = &second.entry[second.count - 1];
	leaf->address += shape_entry_size(at->shape);
	leaf->value = with_defect(leaf->value ^ CASE_FRAME ^ CASE_FRAME2, at->second);
	leaf = &paging.path.entry[paging.path.count - 1];
	leaf->value = with_defect(leaf->value, at->first);
	paging_controls(x, (struct controls){.wp = at->wp});
	paging_poke(x, &paging.path);
	leaf = &second.entry[second.count - 1];
	if (shape_is_32(at->shape))
		POKE(4, leaf->address, leaf->value);
	else
		POKE(8, leaf->address, leaf->value);
	if (at->second == DEFECT_RESERVED)
		PHYSICAL_BITS(51);
	POKE(2, CASE_FRAME + OFFSET, FIRST_HALF);
	POKE(2, CASE_FRAME2, LAST_HALF);
	SET(rbx, paging.path.linear + OFFSET);
}

/* ---- what the manuals say ---- */

/* The entries above the pages are shared: both translations have used them, or may have. */
static void say_shared(struct cell *x, bool faults, bool used)
{
	for (unsigned i = 0; i + 1 < second.count; i++) {
		const struct path_entry *entry = &second.entry[i];
		unsigned size = shape_entry_size(second.shape);
		uint64_t all = size == 8 ? ~0ull : 0xffffffffull;

		if ((entry->level == LEVEL_PDPTE && shape_is_pae(second.shape)) || !used)
			continue;
		if (faults)
			MEMORY_BITS(size, entry->address, entry->value, all & ~PTE_A);
		else
			MEMORY(size, entry->address, entry->value | PTE_A);
	}
}

/* The entry of one of the pages: @may: A, and for a page that is written D, may be set; else @must. */
static void say_leaf(struct cell *x, const struct path *path, uint64_t may, uint64_t must)
{
	const struct path_entry *leaf = &path->entry[path->count - 1];
	unsigned size = shape_entry_size(path->shape);
	uint64_t all = size == 8 ? ~0ull : 0xffffffffull;

	if (may)
		MEMORY_BITS(size, leaf->address, leaf->value, all & ~may);
	else if (must)
		MEMORY(size, leaf->address, leaf->value | must);
}

static void say_success(struct cell *x, enum access access)
{
	uint32_t old = LAST_HALF << 16 | FIRST_HALF, new = old;
	uint64_t flags = PTE_A | (access_writes(access) ? PTE_D : 0);

	RUNS;
	if (access == ACCESS_OF_READ)
		EFFECT(rcx, old);
	else
		new = access == ACCESS_OF_WRITE ? (uint32_t)LOADED(rcx) : ~old;
	if (new != old) {
		MEMORY(2, CASE_FRAME + OFFSET, new & 0xffff);
		MEMORY(2, CASE_FRAME2, new >> 16);
	}
	say_shared(x, false, true);
	say_leaf(x, &paging.path, 0, flags);
	say_leaf(x, &second, 0, flags);
}

/* @faulting: the page whose fault it is; @other_passes: the other page permits the access. */
static void say_faults(struct cell *x, const struct path *faulting, const struct promise *promise,
		       uint64_t cr2, const struct path *other, bool other_passes, enum access access)
{
	for (unsigned i = 0; i < promise->errors; i++) {
		if (x->want_count)
			OR;
		PAGE_FAULT(promise->error[i], cr2);
		say_shared(x, true, true);
		say_leaf(x, faulting, promise->not_used ? 0 : PTE_A, 0);
		say_leaf(x, other,
			 other_passes ? PTE_A | (access_writes(access) ? PTE_D : 0)
			 : other->entry[other->count - 1].value & PTE_P ? PTE_A
									: 0,
			 0);
	}
}

void crossing_say(struct cell *x, const struct crossing *at)
{
	enum access access = access_of(x);
	struct promise one = rule_promise(&paging.path, access, &paging.controls);
	struct promise two = rule_promise(&second, access, &paging.controls);
	uint64_t start = paging.path.linear + OFFSET;

	paging_cite_shape(x, at->shape);
	if (!one.faults && !two.faults)
		say_success(x, access);
	if (one.faults)
		say_faults(x, &paging.path, &one, start, &second, !two.faults, access);
	if (two.faults)
		say_faults(x, &second, &two, start + 2, &paging.path, !one.faults, access);
	for (unsigned i = 0; i < one.reason_count; i++)
		cite(x, one.reasons[i]);
}
