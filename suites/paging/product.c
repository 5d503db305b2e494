/* product.c: from one row to all the cases of a product. */
#include <stdlib.h>
#include <string.h>

#include "product.h"

static const enum insn_key access_insns[ACCESS_COUNT] = {PAGED_READ,  PAGED_WRITE,       PAGED_MODIFY,
							 PAGED_FETCH, PAGED_SYSTEM_READ, PAGED_SYSTEM_WRITE};

/* What one case is made from. */
struct product {
	enum shape shape;
	enum access access;
	unsigned where;
	struct controls controls;
	uint64_t set[LEVEL_COUNT], cleared[LEVEL_COUNT]; /* against the permissive path */
	const char *names[TAGS_MAX];                     /* parts of the id */
	const char *file;
	int line;
};

/* ---- names ---- */

static const char *keep(const char *text)
{
	static char *kept[4096];
	static unsigned count;

	for (unsigned i = 0; i < count; i++) {
		if (!strcmp(kept[i], text))
			return kept[i];
	}
	if (count == sizeof(kept) / sizeof(kept[0]))
		return strdup(text);
	return kept[count++] = strdup(text);
}

static const struct {
	uint64_t bit;
	const char *letter;
} bit_names[] = {{PTE_P, "p"}, {PTE_W, "w"}, {PTE_U, "u"}, {PTE_NX, "x"},
		 {PTE_A, "a"}, {PTE_D, "d"}, {PTE_G, "g"}};
#define BIT_NAMES (sizeof(bit_names) / sizeof(bit_names[0]))

/* "w1u0x0a1d0": the bits of @shown as @value has them. */
static const char *bits_name(uint64_t value, uint64_t shown)
{
	char text[40] = "";

	for (unsigned i = 0; i < BIT_NAMES; i++) {
		if (!(shown & bit_names[i].bit))
			continue;
		strcat(text, bit_names[i].letter);
		strcat(text, value & bit_names[i].bit ? "1" : "0");
	}
	return keep(text);
}

static const char *controls_name(const struct controls *c)
{
	char text[80] = "";
	const struct {
		bool on;
		const char *name;
	} words[] = {{!c->wp, "nowp_"}, {c->nxe, "nxe_"}, {c->smep, "smep_"}, {c->smap, "smap_"},
		     {c->ac, "ac_"},    {c->pke, "pke_"}, {c->key_ad, "ad_"}, {c->key_wd, "wd_"}};

	for (unsigned i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (words[i].on)
			strcat(text, words[i].name);
	}
	if (!*text)
		return NULL;
	text[strlen(text) - 1] = 0;
	return keep(text);
}

/* ---- one case ---- */

static uint64_t key_bits(const struct product *p, enum level level)
{
	return p->controls.pke && level == shape_leaf(p->shape) ? (uint64_t)PAGED_KEY << PTE_PK_SHIFT : 0;
}

static void change_entries(struct path *path, const struct product *p)
{
	for (unsigned i = 0; i < path->count; i++) {
		struct path_entry *entry = &path->entry[i];

		entry->value |= p->set[entry->level] | key_bits(p, entry->level);
		entry->value &= ~p->cleared[entry->level];
	}
}

static void count_cells(const struct cell *x, const struct product *p);

static void product_case(struct cell *x, const struct product *p)
{
	const char *controls = controls_name(&p->controls);

	for (row_begin(x, INSN_LIST(access_insns[p->access]), p->where, p->file, p->line); row_next(x);) {
		paging_path(x, p->shape);
		for (unsigned i = 0; i < TAGS_MAX && p->names[i]; i++)
			given_variant(x, p->names[i]);
		if (controls)
			given_variant(x, controls);
		change_entries(&paging.path, p);
		paging_controls(x, p->controls);
		POINT;
		row_given(x);
		AS_RULED;
		paging_cite_shape(x, p->shape);
		if (!x->skip)
			count_cells(x, p);
	}
}

/* The modes of the products: that of the shape in its plain form. */
static unsigned shape_where(enum shape shape, unsigned cpl)
{
	return (shape_is_ia32e(shape) ? LONG : PROT32) | WHERE_CPL(cpl);
}

/* Whether @p faults, as the rule has it. */
static bool product_faults(const struct product *p)
{
	struct controls controls = p->controls;
	struct path path;

	controls.cpl = p->where & CPL3 ? 3 : 0;
	path_build(&path, p->shape, p->where & IA32E ? MODE_LONG : MODE_PROT32);
	change_entries(&path, p);
	return rule_promise(&path, p->access, &controls).faults;
}

/* ---- controls ---- */

static bool is_data(enum access access) { return access != ACCESS_OF_FETCH; }

bool product_matters(enum shape shape, enum level level, enum access access, unsigned cpl, enum varied what)
{
	bool leaf = level == shape_leaf(shape), writes = access_writes(access);
	bool user = cpl == 3 && access != ACCESS_OF_SYSTEM_READ && access != ACCESS_OF_SYSTEM_WRITE;

	switch (what) {
	case VARIED_NX: return !shape_is_32(shape);
	case VARIED_NXE: return !shape_is_32(shape);
	case VARIED_D: return leaf;
	case VARIED_WP: return writes;
	case VARIED_SMEP: return !is_data(access);
	case VARIED_SMAP: return is_data(access);
	case VARIED_AC: return is_data(access) && !user;
	case VARIED_AD: return leaf && is_data(access) && shape_is_ia32e(shape);
	case VARIED_WD: return leaf && is_data(access) && shape_is_ia32e(shape);
	case VARIED_RESERVED: return !shape_is_32(shape) || shape_is_large(shape);
	default: return true;
	}
}

#define CONTROL_BITS 7 /* nowp nxe smep smap ac ad wd */

/* The next combination of controls: the bits of @number, if they can matter to this entry and access. */
static bool controls_from(struct product *p, enum level level, unsigned cpl, unsigned number)
{
	static const enum varied names[CONTROL_BITS] = {VARIED_WP, VARIED_NXE, VARIED_SMEP, VARIED_SMAP,
							VARIED_AC, VARIED_AD,  VARIED_WD};
	bool on[CONTROL_BITS], nx = p->set[level] & PTE_NX;

	for (unsigned i = 0; i < CONTROL_BITS; i++) {
		on[i] = number >> i & 1;
		if (on[i] && !product_matters(p->shape, level, p->access, cpl, names[i]))
			return false;
	}
	p->controls = (struct controls){.wp = !on[0],
					.nxe = on[1],
					.smep = on[2],
					.smap = on[3],
					.ac = on[4],
					.pke = on[5] || on[6],
					.key_ad = on[5],
					.key_wd = on[6]};
	if (on[4] && !on[3])
		return false; /* AC counts with SMAP alone */
	if (!on[1] && !nx && is_data(p->access) && !shape_is_32(p->shape))
		return false; /* XD = 0: NXE counts for fetches alone */
	if ((p->cleared[level] & PTE_U) && on[5] != on[6])
		return false; /* keys are of user pages: one combination shows that others have none */
	return true;
}

/* ---- the product at one entry ---- */

static void product_point(struct cell *x, struct product *p, enum level level, uint64_t varied)
{
	uint64_t flags = varied & (PTE_A | PTE_D), rights = varied & ~flags, base = p->set[level];

	/* A and D first 0; where the access is permitted, as any other way too. */
	for (unsigned n = 0; n < 4; n++) {
		uint64_t now = (n & 1 ? PTE_A : 0) | (n & 2 ? PTE_D : 0);

		if (now & ~flags)
			continue;
		p->set[level] = base | now;
		p->names[2] = bits_name(p->set[level] & ~p->cleared[level], rights | flags);
		product_case(x, p);
		p->set[level] = base;
		if (!n && product_faults(p))
			break;
	}
}

void product_entry(struct cell *x, enum shape shape, enum level level, uint64_t bits, const char *file,
		   int line)
{
	const uint64_t rights[] = {PTE_W, PTE_U, PTE_NX};

	for (unsigned number = 0; number < 1u << 3; number++) {
		struct product p = {.shape = shape,
				    .names = {shape_names[shape], level_names[level]},
				    .file = file,
				    .line = line};
		bool named = true;

		for (unsigned i = 0; i < 3; i++) {
			bool on = (number >> i & 1) == (rights[i] == PTE_NX); /* from permissive to strict */

			if (!(bits & rights[i]))
				named = named && !(number >> i & 1);
			else if (on)
				p.set[level] |= rights[i];
			else
				p.cleared[level] |= rights[i];
		}
		for (unsigned i = 0; named && i < ACCESS_COUNT << CONTROL_BITS; i++) {
			p.access = (enum access)(i >> CONTROL_BITS);
			for (unsigned cpl = 0; cpl <= 3; cpl += 3) {
				p.where = shape_where(shape, cpl);
				if (controls_from(&p, level, cpl, i & ((1u << CONTROL_BITS) - 1)))
					product_point(x, &p, level, bits);
			}
		}
	}
}

/* ---- entries that cannot be used ---- */

static void unusable_case(struct cell *x, struct product *p, const char *name)
{
	p->names[2] = name;
	for (unsigned i = 0; i < ACCESS_COUNT; i++) {
		p->access = (enum access)i;
		for (unsigned nxe = 0; nxe <= (p->access == ACCESS_OF_FETCH && !shape_is_32(p->shape));
		     nxe++) {
			p->controls = (struct controls){.wp = true, .nxe = nxe};
			p->where = shape_where(p->shape, 0) | CPL3;
			product_case(x, p);
		}
	}
}

void product_unusable(struct cell *x, enum shape shape, enum level level, uint64_t reserved, const char *file,
		      int line)
{
	uint64_t all = shape_is_32(shape) ? 0xffffffffull : ~0ull;
	struct product p = {.shape = shape,
			    .names = {shape_names[shape], level_names[level]},
			    .file = file,
			    .line = line};

	p.cleared[level] = all;
	unusable_case(x, &p, "zero");
	p.cleared[level] = PTE_P;
	unusable_case(x, &p, "p0");
	p.set[level] = all;
	unusable_case(x, &p, "all_but_p");
	p.cleared[level] = 0;
	for (unsigned bit = 0; bit < 64; bit++) {
		char name[24];

		if (!(reserved >> bit & 1))
			continue;
		snprintf(name, sizeof(name), "reserved%u", bit);
		p.set[level] = 1ull << bit;
		unusable_case(x, &p, keep(name));
	}
}

/* ---- two entries ---- */

/* Makes the entry of @level defective in one way; its name, or NULL where the shape has no such way. */
static const char *add_defect(struct product *p, enum level level, unsigned defect)
{
	static const uint64_t bits[] = {PTE_P, PTE_W, PTE_U};
	static const char *const names[] = {"p0", "w0", "u0", "x1", "r1"};
	bool pdpte = level == LEVEL_PDPTE && shape_is_pae(p->shape);

	if (pdpte && defect)
		return NULL;
	if (defect < 3)
		p->cleared[level] |= bits[defect];
	else if (defect == 3 && !shape_is_32(p->shape))
		p->set[level] |= PTE_NX;
	else if (defect == 4 && !shape_is_32(p->shape))
		p->set[level] |= 1ull << 51;
	else if (defect == 4 && level == LEVEL_PDE && p->shape == SHAPE_32_4M)
		p->set[level] |= 1ull << 21;
	else
		return NULL;
	return names[defect];
}

void product_pairs(struct cell *x, enum shape shape, enum level upper, enum level lower, const char *file,
		   int line)
{
	for (unsigned pair = 0; pair < 25; pair++) {
		struct product p = {.shape = shape, .file = file, .line = line};
		const char *first = add_defect(&p, upper, pair / 5),
			   *second = add_defect(&p, lower, pair % 5);

		if (!first || !second)
			continue;
		p.names[0] = shape_names[shape];
		p.names[1] = level_names[upper];
		p.names[2] = first;
		p.names[3] = level_names[lower];
		p.names[4] = second;
		p.controls = (struct controls){.wp = true, .nxe = !shape_is_32(shape)};
		p.where = shape_where(shape, 0) | CPL3;
		for (unsigned i = 0; i < ACCESS_COUNT; i++) {
			p.access = (enum access)i;
			product_case(x, &p);
		}
	}
}

/* ---- at random ---- */

/* xorshift64*: the same numbers in every build. */
static uint64_t random_state = 0x7261706c696e65ull;

static uint64_t random_next(void)
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return random_state * 0x2545f4914f6cdd1dull;
}

static unsigned random_below(unsigned n) { return (unsigned)(random_next() >> 33) % n; }

static bool one_in(unsigned n) { return random_below(n) == 0; }

/* Bits that mean nothing to the translation at this level, or only to caches. */
static uint64_t ignored_bits(enum shape shape, enum level level)
{
	bool leaf = level == shape_leaf(shape);
	uint64_t ignored = PTE_PWT | PTE_PCD | 7ull << 9;

	if (level == LEVEL_PDPTE && shape_is_pae(shape))
		return ignored;
	if (shape_is_ia32e(shape))
		ignored |= 0x7full << 52;
	if (!leaf)
		return ignored | PTE_D;
	return ignored | PTE_G | (level == LEVEL_PTE ? PTE_PS : PTE_PAT_LARGE);
}

static void randomize_entry(struct product *p, enum level level)
{
	bool pdpte = level == LEVEL_PDPTE && shape_is_pae(p->shape);

	p->set[level] |= random_next() & ignored_bits(p->shape, level);
	if (one_in(30))
		p->cleared[level] |= PTE_P;
	if (pdpte)
		return;
	p->set[level] |= random_next() & (PTE_A | PTE_D);
	if (one_in(6))
		p->cleared[level] |= PTE_W;
	if (one_in(6))
		p->cleared[level] |= PTE_U;
	if (!shape_is_32(p->shape) && one_in(8))
		p->set[level] |= PTE_NX;
	if (!shape_is_32(p->shape) && one_in(40))
		p->set[level] |= 1ull << 51;
}

static unsigned random_mode(enum shape shape, bool compat)
{
	if (!shape_is_ia32e(shape))
		return PROT32;
	return compat && one_in(4) ? COMPAT : LONG;
}

void product_sampled(struct cell *x, enum shape shape, unsigned count, const char *file, int line)
{
	for (unsigned i = 0; i < count; i++) {
		struct product p = {
			.shape = shape, .names = {shape_names[shape], "sampled"}, .file = file, .line = line};
		char name[24];
		uint64_t digest = random_next();

		for (int level = LEVEL_COUNT - 1; level >= 0; level--) {
			if (shape_has(shape, (enum level)level))
				randomize_entry(&p, (enum level)level);
		}
		p.access = (enum access)(random_below(ACCESS_COUNT));
		p.where = random_mode(shape, true) | WHERE_CPL(random_below(4));
		p.controls = (struct controls){.wp = !one_in(2),
					       .nxe = !one_in(3),
					       .smep = one_in(2),
					       .smap = one_in(3),
					       .ac = one_in(2)};
		if (shape_is_ia32e(shape)) {
			p.controls.pke = one_in(2);
			p.controls.key_ad = p.controls.pke && one_in(3);
			p.controls.key_wd = p.controls.pke && one_in(3);
		}
		snprintf(name, sizeof(name), "n%06llx", (unsigned long long)(digest >> 40));
		p.names[2] = strdup(name);
		product_case(x, &p);
	}
}

/* ---- the inventory ---- */

static unsigned cells[SHAPE_COUNT][LEVEL_COUNT][ACCESS_COUNT][2][VARIED_COUNT][2];

/* What @p has of each thing that varies, at @level. */
static void count_level(const struct product *p, enum level level, unsigned cpl)
{
	uint64_t set = (p->set[level] | PTE_P | PTE_W | PTE_U) & ~p->cleared[level];
	uint64_t reserved = rule_reserved(p->shape, level, level == shape_leaf(p->shape), true, 51);
	const struct controls *c = &p->controls;
	const bool on[VARIED_COUNT] = {
		[VARIED_P] = set & PTE_P,
		[VARIED_W] = set & PTE_W,
		[VARIED_U] = set & PTE_U,
		[VARIED_NX] = set & PTE_NX,
		[VARIED_A] = set & PTE_A,
		[VARIED_D] = set & PTE_D,
		[VARIED_RESERVED] = set & PTE_P && set & reserved,
		[VARIED_WP] = c->wp,
		[VARIED_NXE] = c->nxe,
		[VARIED_SMEP] = c->smep,
		[VARIED_SMAP] = c->smap,
		[VARIED_AC] = c->ac,
		[VARIED_AD] = c->key_ad,
		[VARIED_WD] = c->key_wd};

	for (unsigned i = 0; i < VARIED_COUNT; i++)
		cells[p->shape][level][p->access][cpl == 3][i][on[i]]++;
}

static void count_cells(const struct cell *x, const struct product *p)
{
	enum level level;

	if (x->cpl != 0 && x->cpl != 3)
		return;
	for (level = LEVEL_PTE; level < LEVEL_COUNT; level++) {
		if (shape_has(p->shape, level) && !strcmp(p->names[1], level_names[level]))
			count_level(p, level, x->cpl);
	}
}

static void check_entry(struct suite *suite, enum shape shape, enum level level, enum access access)
{
	static const char *const names[VARIED_COUNT] = {"p",  "w",   "u",    "x",    "a",  "d",  "reserved",
							"wp", "nxe", "smep", "smap", "ac", "ad", "wd"};

	for (unsigned user = 0; user < 2; user++) {
		for (unsigned what = 0; what < VARIED_COUNT; what++) {
			for (unsigned on = 0; on < 2; on++) {
				if (!cells[shape][level][access][user][what][on] &&
				    product_matters(shape, level, access, user ? 3 : 0, (enum varied)what))
					suite_error(suite, "inventory", 0,
						    "%s %s %s cpl%u: no case with %s = %u",
						    shape_names[shape], level_names[level],
						    insn_table[access_insns[access]].name, user ? 3 : 0,
						    names[what], on);
			}
		}
	}
}

void product_inventory(struct suite *suite)
{
	for (int shape = 0; shape < SHAPE_COUNT; shape++) {
		for (int level = 0; level < LEVEL_COUNT; level++) {
			if (!shape_has((enum shape)shape, (enum level)level) ||
			    (level == LEVEL_PDPTE && shape_is_pae((enum shape)shape)))
				continue; /* PDPTE registers: pdpte.def */
			for (int access = 0; access < ACCESS_COUNT; access++)
				check_entry(suite, (enum shape)shape, (enum level)level, (enum access)access);
		}
	}
}
