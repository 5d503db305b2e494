/* path.c: the shapes of paths, and where their entries stand. */
#include "path.h"

const char *const shape_names[SHAPE_COUNT] = {"b32_4k", "b32_4m", "pae_4k", "pae_2m", "l4_4k",
					      "l4_2m",  "l4_1g",  "l5_4k",  "l5_2m",  "l5_1g"};
const char *const level_names[LEVEL_COUNT] = {"pte", "pde", "pdpte", "pml4e", "pml5e"};

/* The index of the path's entry in each of its tables. */
static const unsigned indices[LEVEL_COUNT] = {0x12c, 0x9, 0x5, 0x3, 0x1};
#define INDEX_PDPTE_PAE    2u
#define INDEX_PDPTE_COMPAT 3u
#define INDEX_PDE_32       0x241u

static const uint32_t tables[LEVEL_COUNT] = {CASE_PATH_PT, CASE_PATH_PD, CASE_PATH_PDPT, CASE_PATH_PML4, 0};

bool shape_is_32(enum shape shape) { return shape <= SHAPE_32_4M; }
bool shape_is_pae(enum shape shape) { return shape == SHAPE_PAE_4K || shape == SHAPE_PAE_2M; }
bool shape_is_ia32e(enum shape shape) { return shape >= SHAPE_4L_4K; }
bool shape_is_5level(enum shape shape) { return shape >= SHAPE_5L_4K; }
bool shape_is_large(enum shape shape) { return shape_leaf(shape) != LEVEL_PTE; }
unsigned shape_entry_size(enum shape shape) { return shape_is_32(shape) ? 4 : 8; }

static enum level shape_root(enum shape shape)
{
	if (shape_is_32(shape))
		return LEVEL_PDE;
	if (shape_is_pae(shape))
		return LEVEL_PDPTE;
	return shape_is_5level(shape) ? LEVEL_PML5E : LEVEL_PML4E;
}

enum level shape_leaf(enum shape shape)
{
	switch (shape) {
	case SHAPE_32_4M:
	case SHAPE_PAE_2M:
	case SHAPE_4L_2M:
	case SHAPE_5L_2M: return LEVEL_PDE;
	case SHAPE_4L_1G:
	case SHAPE_5L_1G: return LEVEL_PDPTE;
	default: return LEVEL_PTE;
	}
}

bool shape_has(enum shape shape, enum level level)
{
	return level <= shape_root(shape) && level >= shape_leaf(shape);
}

/* Bits of the linear address below those that @level translates. */
static unsigned level_shift(enum shape shape, enum level level)
{
	if (shape_is_32(shape))
		return level == LEVEL_PDE ? 22 : 12;
	return 12 + 9 * (unsigned)level;
}

static unsigned level_index(enum shape shape, enum level level, unsigned mode)
{
	if (level == LEVEL_PDE && shape_is_32(shape))
		return INDEX_PDE_32;
	if (level == LEVEL_PDPTE && shape_is_pae(shape))
		return INDEX_PDPTE_PAE;
	if (level == LEVEL_PDPTE && mode == MODE_COMPAT)
		return INDEX_PDPTE_COMPAT;
	return indices[level];
}

/* The table of the baseline in which the path of @shape begins. */
static uint32_t root_table(enum shape shape, unsigned mode)
{
	if (shape_is_32(shape))
		return CASE_CR3_32;
	if (shape_is_pae(shape))
		return CASE_CR3_PAE;
	if (mode == MODE_COMPAT)
		return CASE_PDPT;
	return shape_is_5level(shape) ? CASE_CR3_57 : CASE_CR3_LONG;
}

void path_build(struct path *path, enum shape shape, unsigned mode)
{
	enum level leaf = shape_leaf(shape), root = mode == MODE_COMPAT ? LEVEL_PDPTE : shape_root(shape);
	uint32_t table = root_table(shape, mode);
	uint64_t rights = PTE_P | PTE_W | PTE_U;

	*path = (struct path){.shape = shape};
	for (int level = (int)root; level >= (int)leaf; level--) {
		struct path_entry *entry = &path->entry[path->count++];
		unsigned index = level_index(shape, (enum level)level, mode);

		entry->level = (enum level)level;
		entry->address = table + index * shape_entry_size(shape);
		path->linear |= (uint64_t)index << level_shift(shape, entry->level);
		if (level > (int)leaf)
			table = tables[level - 1];
		entry->value = rights | (level > (int)leaf ? table : leaf == LEVEL_PTE ? CASE_FRAME : PTE_PS);
		if (level == LEVEL_PDPTE && shape_is_pae(shape)) /* no rights there (SDM 3A 4.4.1) */
			entry->value = table | PTE_P;
	}
	if (leaf != LEVEL_PTE)
		path->linear |= CASE_FRAME;
}

struct path_entry *path_at(struct path *path, enum level level)
{
	for (unsigned i = 0; i < path->count; i++) {
		if (path->entry[i].level == level)
			return &path->entry[i];
	}
	return NULL;
}
