/*
 * path.h: the page tables that a case of this suite maps itself, entry by entry from the root down.
 *
 * A shape is a paging mode and a page size. Its path is the entries that translate one linear address: the
 * first stands in a table of the baseline (case_layout.h), the others in tables of their own, each at
 * another index, so that an index taken from the wrong bits of the address misses. A path begins permissive:
 * P, R/W, U/S set, nothing else. Large pages map physical address 0, so that the same frame is reached at
 * every page size.
 */
#ifndef TRAPLINE_SUITES_PAGING_PATH_H
#define TRAPLINE_SUITES_PAGING_PATH_H

#include "../expand.h"

enum shape {
	SHAPE_32_4K, /* 32-bit paging */
	SHAPE_32_4M, /* with CR4.PSE */
	SHAPE_PAE_4K,
	SHAPE_PAE_2M,
	SHAPE_4L_4K,
	SHAPE_4L_2M,
	SHAPE_4L_1G,
	SHAPE_5L_4K,
	SHAPE_5L_2M,
	SHAPE_5L_1G,
	SHAPE_COUNT
};

enum level { LEVEL_PTE, LEVEL_PDE, LEVEL_PDPTE, LEVEL_PML4E, LEVEL_PML5E, LEVEL_COUNT };

struct path_entry {
	enum level level;
	uint32_t address; /* physical */
	uint64_t value;
};

struct path {
	enum shape shape;
	unsigned count; /* of entries, from the root down; the last maps the page */
	struct path_entry entry[LEVEL_COUNT];
	uint64_t linear; /* of CASE_FRAME */
};

extern const char *const shape_names[SHAPE_COUNT], *const level_names[LEVEL_COUNT];

bool shape_is_32(enum shape shape);
bool shape_is_pae(enum shape shape);
bool shape_is_ia32e(enum shape shape); /* 4- and 5-level paging */
bool shape_is_5level(enum shape shape);
bool shape_is_large(enum shape shape);
/* Whether the shape's path, from its root, has an entry of @level. */
bool shape_has(enum shape shape, enum level level);
enum level shape_leaf(enum shape shape);

/* Bytes of an entry. */
unsigned shape_entry_size(enum shape shape);

/*
 * The permissive path in @mode. Compatibility mode reaches the first 4 GiB alone, so its path begins at the
 * PDPTE, below entries of the baseline that are permissive too.
 */
void path_build(struct path *path, enum shape shape, unsigned mode);

/* The entry of @level, or NULL. */
struct path_entry *path_at(struct path *path, enum level level);

#endif
