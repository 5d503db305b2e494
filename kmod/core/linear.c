/* linear.c: see linear.h. */
#include "kmod/core/linear.h"
#include "x86/paging.h"
#include "x86/vectors.h"

#define ENTRY_ADDRESS 0x000ffffffffff000ull
#define PKRU_AD       1u
#define PKRU_WD       2u
#define LEVELS_MAX    5u

/* One walk. */
struct walk {
	const struct linear_mode *mode;
	bool write;
	bool user, writable; /* all entries so far */
	void *used[LEVELS_MAX];
	unsigned count; /* of entries that it has used */
	bool wide;      /* which have 8 bytes each */
	uint32_t error; /* of the page fault */
};

static void *guest_at(const struct linear_mode *mode, uint64_t physical, unsigned size)
{
	if (!tables_reached(mode->machine, physical, size))
		hw_stop("the guest's tables reach for the hypervisor's memory", physical);
	return (uint8_t *)hw_map(physical & ~PAGE_MASK) + (physical & PAGE_MASK);
}

static bool refuse(struct walk *walk, uint32_t bits)
{
	walk->error = bits | (walk->write ? PF_W : 0);
	return false;
}

/* Protection keys: of user pages in IA-32e mode, for a supervisor's data too (4.6.2). */
static bool key_permits(const struct walk *walk, uint64_t entry)
{
	const struct linear_mode *mode = walk->mode;
	uint32_t rights;

	if (!walk->user || !(mode->cr4 & CR4_PKE) || !(mode->efer & EFER_LMA))
		return true;
	rights = hw_pkru() >> 2 * (entry >> PTE_PK_SHIFT & 15);
	return !(rights & PKRU_AD) && !(rights & PKRU_WD && walk->write && mode->cr0 & CR0_WP);
}

/* Whether the page whose last entry is @entry allows the access (4.6.1). */
static bool allowed(struct walk *walk, uint64_t entry)
{
	const struct linear_mode *mode = walk->mode;

	if (walk->user && mode->cr4 & CR4_SMAP && (mode->implicit || !(mode->rflags & RFLAGS_AC)))
		return refuse(walk, PF_P);
	if (walk->write && !walk->writable && mode->cr0 & CR0_WP)
		return refuse(walk, PF_P);
	return key_permits(walk, entry) || refuse(walk, PF_P | PF_PK);
}

/* Accessed flags of all entries that were used, the dirty flag of the last. */
static void mark(struct walk *walk)
{
	for (unsigned i = 0; i < walk->count; i++) {
		uint64_t flags = PTE_A | (walk->write && i + 1 == walk->count ? PTE_D : 0);

		if (walk->wide)
			*(uint64_t *)walk->used[i] |= flags;
		else
			*(uint32_t *)walk->used[i] |= (uint32_t)flags;
	}
}

/* A present entry of @at, of which more is wanted. */
static bool use(struct walk *walk, void *at, uint64_t entry)
{
	if (!(entry & PTE_P))
		return refuse(walk, 0);
	walk->used[walk->count++] = at;
	walk->user &= !!(entry & PTE_U);
	walk->writable &= !!(entry & PTE_W);
	return true;
}

static bool walk_32(struct walk *walk, uint32_t linear, uint64_t *physical)
{
	const struct linear_mode *mode = walk->mode;
	uint32_t *pde = guest_at(mode, (mode->cr3 & 0xfffff000u) + (linear >> 22) * 4, 4), *pte;

	if (!use(walk, pde, *pde))
		return false;
	if (*pde & PTE_PS && mode->cr4 & CR4_PSE) {
		*physical = (*pde & 0xffc00000u) | (uint64_t)(*pde >> 13 & 0xff) << 32 | (linear & 0x3fffff);
		return allowed(walk, *pde);
	}
	pte = guest_at(mode, (*pde & 0xfffff000u) + (linear >> 12 & 1023) * 4, 4);
	if (!use(walk, pte, *pte))
		return false;
	*physical = (*pte & 0xfffff000u) | (linear & PAGE_MASK);
	return allowed(walk, *pte);
}

/* Of an entry of 8 bytes: those that no mode has, those beyond the physical addresses, PAT's place in a large
 * page apart from its address. */
static uint64_t reserved(const struct linear_mode *mode, unsigned level, bool leaf)
{
	uint64_t mask = mode->efer & EFER_NXE ? 0 : PTE_NX;
	uint32_t r[4];

	hw_cpuid(0x80000008u, 0, r);
	mask |= 0x000fffffffffffffull & ~((1ull << (r[0] & 0xff)) - 1);
	if (!(mode->efer & EFER_LMA))
		mask |= 0x7ff0000000000000ull;
	if (leaf && level)
		mask |= ((1ull << (12 + 9 * level)) - 1) & ENTRY_ADDRESS & ~PTE_PAT_LARGE;
	if (level >= 3)
		mask |= PTE_PS;
	return mask;
}

/* From @level (4: PML5) down; the table at @table. */
static bool walk_wide(struct walk *walk, uint64_t table, unsigned level, uint64_t linear, uint64_t *physical)
{
	for (;; level--) {
		unsigned shift = 12 + 9 * level;
		uint64_t *at = guest_at(walk->mode, table + (linear >> shift & 511) * 8, 8), entry = *at;
		bool leaf = level == 0 || (level < 3 && entry & PTE_PS);

		if (!use(walk, at, entry))
			return false;
		if (entry & reserved(walk->mode, level, leaf))
			return refuse(walk, PF_P | PF_RSVD);
		if (leaf) {
			uint64_t inside = (1ull << shift) - 1;

			*physical = (entry & ENTRY_ADDRESS & ~inside) | (linear & inside);
			return allowed(walk, entry);
		}
		table = entry & ENTRY_ADDRESS;
	}
}

static bool walk_pae(struct walk *walk, uint32_t linear, uint64_t *physical)
{
	uint64_t pdpte = walk->mode->pdpte[linear >> 30];

	if (!(pdpte & PTE_P))
		return refuse(walk, 0);
	return walk_wide(walk, pdpte & ENTRY_ADDRESS, 1, linear, physical);
}

static bool translate(const struct linear_mode *mode, uint64_t linear, bool write, uint64_t *physical,
		      struct linear_fault *fault)
{
	struct walk walk = {.mode = mode, .write = write, .user = true, .writable = true, .wide = true};
	bool done;

	*physical = linear;
	if (!(mode->cr0 & CR0_PG))
		return true;
	if (mode->efer & EFER_LMA) {
		done = walk_wide(&walk, mode->cr3 & ENTRY_ADDRESS, mode->cr4 & CR4_LA57 ? 4 : 3, linear,
				 physical);
	} else if (mode->cr4 & CR4_PAE) {
		done = walk_pae(&walk, (uint32_t)linear, physical);
	} else {
		walk.wide = false;
		done = walk_32(&walk, (uint32_t)linear, physical);
	}
	if (done)
		mark(&walk);
	else
		*fault = (struct linear_fault){linear, walk.error};
	return done;
}

/* Linear addresses of 32 bits wrap outside of IA-32e mode. */
static uint64_t next(const struct linear_mode *mode, uint64_t linear, uint64_t bytes)
{
	return mode->efer & EFER_LMA ? linear + bytes : (uint32_t)(linear + bytes);
}

bool linear_check(const struct linear_mode *mode, uint64_t linear, unsigned size, bool write,
		  struct linear_fault *fault)
{
	uint64_t physical;

	if (!translate(mode, linear, write, &physical, fault))
		return false;
	if ((linear & PAGE_MASK) + size <= PAGE_SIZE)
		return true;
	return translate(mode, next(mode, linear | PAGE_MASK, 1), write, &physical, fault);
}

/* Page by page. */
static bool move(const struct linear_mode *mode, uint64_t linear, uint8_t *bytes, unsigned size, bool write,
		 struct linear_fault *fault)
{
	for (unsigned done = 0; done < size;) {
		uint64_t at = next(mode, linear, done), physical;
		unsigned left = (unsigned)(PAGE_SIZE - (at & PAGE_MASK)),
			 count = size - done < left ? size - done : left;
		uint8_t *memory;

		if (!translate(mode, at, write, &physical, fault))
			return false;
		memory = guest_at(mode, physical, count);
		for (unsigned i = 0; i < count; i++, done++)
			*(write ? &memory[i] : &bytes[done]) = write ? bytes[done] : memory[i];
	}
	return true;
}

bool linear_get(const struct linear_mode *mode, uint64_t linear, void *to, unsigned size,
		struct linear_fault *fault)
{
	return move(mode, linear, to, size, false, fault);
}

bool linear_put(const struct linear_mode *mode, uint64_t linear, const void *from, unsigned size,
		struct linear_fault *fault)
{
	return linear_check(mode, linear, size, true, fault) &&
	       move(mode, linear, (uint8_t *)(uintptr_t)from, size, true, fault);
}
