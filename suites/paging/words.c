/* words.c: what the words of words.h do. */
#include <stdlib.h>
#include <string.h>

#include "words.h"

struct paging paging;

enum access paging_access(const struct cell *x)
{
	static const char *const names[ACCESS_COUNT] = {"read",  "write",       "modify",
							"fetch", "system_read", "system_write"};

	for (unsigned i = 0; i < ACCESS_COUNT; i++) {
		if (!strcmp(x->insn->name, names[i]))
			return (enum access)i;
	}
	cell_error((struct cell *)(uintptr_t)x, "%s is no access of this suite", x->insn->name);
	return ACCESS_OF_READ;
}

static bool is_system(enum access access)
{
	return access == ACCESS_OF_SYSTEM_READ || access == ACCESS_OF_SYSTEM_WRITE;
}

static unsigned access_offset(enum access access)
{
	if (access == ACCESS_OF_FETCH)
		return PAGED_CODE_OFFSET;
	return is_system(access) ? PAGED_LDT_OFFSET + 8 : PAGED_DATA_OFFSET;
}

uint64_t paging_target(const struct cell *x) { return paging.path.linear + access_offset(paging_access(x)); }

/* ---- given ---- */

void paging_mode(struct cell *x, enum shape shape)
{
	if (shape_is_32(shape)) {
		SET(cr3, CASE_CR3_32);
		if (shape == SHAPE_32_4M) {
			NEEDS(pse);
			OR_IN(cr4, CR4_PSE);
		}
		return;
	}
	if (shape_is_pae(shape)) {
		NEEDS(pae);
		SET(cr3, CASE_CR3_PAE);
		OR_IN(cr4, CR4_PAE);
		return;
	}
	if (shape_leaf(shape) == LEVEL_PDPTE)
		NEEDS(pdpe1gb);
	if (shape_is_5level(shape)) {
		NEEDS(la57);
		OR_IN(cr4, CR4_LA57);
		SET(cr3, CASE_CR3_57);
	}
}

void paging_path(struct cell *x, enum shape shape)
{
	bool ia32e = x->mode == MODE_LONG || x->mode == MODE_COMPAT;

	if (ia32e != shape_is_ia32e(shape))
		x->skip = true;
	memset(&paging, 0, sizeof(paging));
	paging.controls = (struct controls){.cpl = x->cpl, .wp = true};
	path_build(&paging.path, shape, x->mode);
	paging_mode(x, shape);
}

struct path_entry *paging_entry(struct cell *x, enum level level)
{
	static struct path_entry none;
	struct path_entry *entry = path_at(&paging.path, level);

	if (entry)
		return entry;
	if (x->mode == MODE_COMPAT) /* the upper levels are the baseline's */
		x->skip = true;
	else
		cell_error(x, "%s has no %s", shape_names[paging.path.shape], level_names[level]);
	return &none;
}

void paging_controls(struct cell *x, struct controls c)
{
	c.cpl = x->cpl;
	paging.controls = c;
	if (!c.wp)
		CLEAR_IN(cr0, CR0_WP);
	if (c.nxe) {
		NEEDS(nx);
		OR_IN(efer, EFER_NXE);
	}
	if (c.smep) {
		NEEDS(smep);
		OR_IN(cr4, CR4_SMEP);
	}
	if (c.smap) {
		NEEDS(smap);
		OR_IN(cr4, CR4_SMAP);
	}
	if (c.ac)
		OR_IN(rflags, RFLAGS_AC);
	if (c.pke) {
		uint64_t key = (uint64_t)(c.key_ad ? 1 : 0) | (c.key_wd ? 2 : 0);

		NEEDS(pku);
		OR_IN(cr4, CR4_PKE);
		SET(pkru, key << 2 * PAGED_KEY);
	}
}

void paging_cite_shape(struct cell *x, enum shape shape)
{
	if (shape_is_32(shape)) {
		(void)(SDM(PAGING_32), APM(PAGING_LEGACY));
	} else if (shape_is_pae(shape)) {
		(void)(SDM(PAGING_PAE), APM(PAGING_PAE));
	} else {
		SDM(PAGING_4LEVEL);
		cite(x, shape_leaf(shape) == LEVEL_PTE   ? "APM_PAGING_LONG"
			: shape_leaf(shape) == LEVEL_PDE ? "APM_PAGING_2M"
							 : "APM_PAGING_1G");
	}
}

void paging_all_flags(void)
{
	for (unsigned i = 0; i < paging.path.count; i++) {
		struct path_entry *entry = &paging.path.entry[i];

		if (entry->level != LEVEL_PDPTE || !shape_is_pae(paging.path.shape))
			entry->value |= PTE_A | (i + 1 == paging.path.count ? PTE_D : 0);
	}
}

void paging_own_page(struct cell *x)
{
	if (x->cpl != 3)
		paging.path.entry[paging.path.count - 1].value &= ~PTE_U;
}

static void poke_entry(struct cell *x, const struct path *path, const struct path_entry *entry)
{
	if (shape_is_32(path->shape))
		POKE(4, entry->address, entry->value);
	else
		POKE(8, entry->address, entry->value);
}

void paging_poke(struct cell *x, const struct path *path)
{
	bool bit51 = false;

	for (unsigned i = 0; i < path->count; i++) {
		poke_entry(x, path, &path->entry[i]);
		bit51 = bit51 || (!shape_is_32(path->shape) && path->entry[i].value >> 51 & 1);
	}
	if (bit51)
		PHYSICAL_BITS(51);
}

/* An LDT in the frame, whose entry 1 is a writable data segment that was never accessed. */
static void point_system(struct cell *x)
{
	uint64_t base = paging.path.linear + PAGED_LDT_OFFSET;

	POKE(8, CASE_FRAME + PAGED_LDT_OFFSET + 8, PAGED_SEGMENT);
	DESCRIPTOR(CASE_SEL_LDT, base, 0x1f, SEG_P | TYPE_LDT);
	if (shape_is_ia32e(paging.path.shape))
		POKE(8, CASE_GDT_ENTRY(CASE_SEL_LDT) + 8, base >> 32);
	SET(rax, CASE_SEL_LDT_DATA | x->cpl);
}

void paging_point(struct cell *x)
{
	enum access access = paging_access(x);

	paging_poke(x, &paging.path);
	if (is_system(access)) {
		point_system(x);
		return;
	}
	if (access == ACCESS_OF_FETCH) {
		SET(rax, paging_target(x));
		return;
	}
	SET(rbx, paging_target(x));
	POKE(8, CASE_FRAME + PAGED_DATA_OFFSET, PAGED_DATA);
}

/* ---- what the manuals say ---- */

/* Where the processor uses an entry it sets A; where it writes, D in the one that maps the page (4.8). */
static void say_entry(struct cell *x, const struct path *path, unsigned i, const struct promise *promise,
		      bool writes)
{
	const struct path_entry *entry = &path->entry[i];
	unsigned size = shape_entry_size(path->shape);
	uint64_t all = size == 8 ? ~0ull : 0xffffffffull, value = entry->value;

	if (entry->level == LEVEL_PDPTE && shape_is_pae(path->shape))
		return; /* a register, without A */
	if (promise->faults) {
		/* Used, but not for an access that happened: A may be set early (6.15, #PF, footnote). */
		if (i < promise->used && !(value & PTE_A))
			MEMORY_BITS(size, entry->address, value & ~PTE_A, all & ~PTE_A);
		return;
	}
	value |= PTE_A | (writes && i + 1 == path->count ? PTE_D : 0);
	if (value != entry->value)
		MEMORY(size, entry->address, value);
}

void paging_say_flags(struct cell *x, const struct path *path, const struct promise *promise, bool writes)
{
	for (unsigned i = 0; i < path->count; i++)
		say_entry(x, path, i, promise, writes);
}

void paging_say_success(struct cell *x)
{
	uint64_t high = PAGED_DATA & ~0xffffffffull;
	uint32_t low = (uint32_t)PAGED_DATA;

	RUNS;
	switch (paging_access(x)) {
	case ACCESS_OF_READ: EFFECT(rcx, low); break;
	case ACCESS_OF_WRITE: MEMORY(8, CASE_FRAME + PAGED_DATA_OFFSET, high | (uint32_t)LOADED(rcx)); break;
	case ACCESS_OF_MODIFY: MEMORY(8, CASE_FRAME + PAGED_DATA_OFFSET, high | (uint32_t)~low); break;
	case ACCESS_OF_FETCH: EFFECT(rip, paging_target(x)); break;
	case ACCESS_OF_SYSTEM_READ: FLAGS(RFLAGS_ZF, 0); break;
	case ACCESS_OF_SYSTEM_WRITE:
		EFFECT(es, LOADED(rax));
		MEMORY(8, CASE_FRAME + PAGED_LDT_OFFSET + 8, PAGED_SEGMENT | 1ull << 40);
		break;
	case ACCESS_COUNT: break;
	}
}

static void say_fault(struct cell *x, uint32_t error)
{
	uint64_t target = paging_target(x);

	PAGE_FAULT(error, target);
	if (is_system(paging_access(x))) /* no clause says which byte of a descriptor is accessed first */
		EFFECT_BITS(cr2, target & ~7ull, ~7ull);
	if (paging_access(x) == ACCESS_OF_FETCH)
		EFFECT(rip, target);
}

static void say_faults(struct cell *x, const struct promise *promise, bool amd)
{
	for (unsigned i = 0, said = 0; i < promise->errors; i++) {
		if (promise->error_on_amd[i] && !amd)
			continue;
		if (said++)
			OR;
		say_fault(x, promise->error[i]);
		paging_say_flags(x, &paging.path, promise, false);
	}
}

void paging_say_early(struct cell *x)
{
	paging_say_flags(x, &paging.path, &(struct promise){.faults = true, .used = paging.path.count},
			 false);
}

void paging_say_above(struct cell *x)
{
	struct path above = paging.path;

	above.count--;
	paging_say_flags(x, &above, &(struct promise){.used = above.count}, false);
}

void paging_say_reserved(struct cell *x, enum level level)
{
	const struct controls *c = &paging.controls;
	struct promise promise = {.faults = true};
	enum access access = paging_access(x);
	uint64_t target = paging_target(x);

	while (paging.path.entry[promise.used].level != level)
		promise.used++;
	PAGE_FAULT(PF_P | PF_RSVD | (c->cpl == 3 ? PF_U : 0) | (access_writes(access) ? PF_W : 0), target);
	if (access == ACCESS_OF_FETCH)
		EFFECT(rip, target);
	paging_say_flags(x, &paging.path, &promise, false);
}

const char *paging_numbered(const char *word, unsigned number)
{
	static char texts[256][16];
	static unsigned count;
	char text[16];

	snprintf(text, sizeof(text), "%s%u", word, number);
	for (unsigned i = 0; i < count; i++) {
		if (!strcmp(texts[i], text))
			return texts[i];
	}
	if (count == 256)
		abort();
	return strcpy(texts[count++], text);
}

void paging_say(struct cell *x)
{
	enum access access = paging_access(x);
	struct promise promise = rule_promise(&paging.path, access, &paging.controls);
	bool vendors_differ = false;

	for (unsigned i = 0; i < promise.errors; i++)
		vendors_differ = vendors_differ || promise.error_on_amd[i];
	if (!promise.faults) {
		paging_say_success(x);
		paging_say_flags(x, &paging.path, &promise, access_writes(access));
	} else if (vendors_differ) {
		ON(AMD);
		say_faults(x, &promise, true);
		ON(ELSE);
		say_faults(x, &promise, false);
	} else {
		say_faults(x, &promise, true);
	}
	for (unsigned i = 0; i < promise.reason_count; i++)
		cite(x, promise.reasons[i]);
}
