/*
 * tlb.h: translations, kept by linear page.
 *
 * There is one direct-mapped table for each way in which data is accessed (enum
 * tlb_context), since the rights of a page depend on it. An entry has two halves:
 *
 *   hot   what the inline paths of fast.h compare. A tag is the linear page with the
 *         generation in its low twelve bits, so that raising the generation flushes
 *         everything at once. A tag is there only if the access needs nothing but a
 *         load or a store: RAM, no data breakpoint in the page, and for stores a page
 *         that is dirty and holds no decoded code.
 *   slow  what the walk found, for all other accesses: the same without those conditions.
 *
 * A write is among an entry's rights only once the D bit is set (SDM 3A 4.8).
 */
#ifndef TRAPLINE_CPU_MEM_TLB_H
#define TRAPLINE_CPU_MEM_TLB_H

#include <stdbool.h>
#include <stdint.h>

#include "x86/paging.h"

/*
 * The space of what runs outside of a guest; guests' are their ASIDs (AMD-V), or vmx_space() of VPID and EPTP
 * (VT-x), where 0 is none.
 */
#define TLB_SPACE_HOST 0ull

#define VMX_SPACE       (1ull << 63)
#define VMX_SPACE_EPT   (1ull << 62)
#define VMX_SPACE_VPIDS 0xffffull
#define VMX_SPACE_OF_VPID                                                                                    \
	(VMX_SPACE | VMX_SPACE_VPIDS) /* masks: one VPID with any EPTP; one EPTP with any VPID */
#define VMX_SPACE_OF_EPTP (~VMX_SPACE_VPIDS)
static inline uint64_t vmx_space(uint16_t vpid, uint64_t eptp)
{
	uint64_t table = (eptp & 0xffffffffff000ull) << 4;

	return VMX_SPACE | (eptp ? VMX_SPACE_EPT | table : 0) | vpid;
}

#define TLB_ENTRIES     1024u
#define TLB_GENERATIONS 4096u /* what fits in the low bits of a tag */

enum tlb_context {
	TLB_SUPERVISOR,    /* EFLAGS.AC = 0 or no SMAP; implicit accesses */
	TLB_SUPERVISOR_AC, /* CR4.SMAP = 1 and EFLAGS.AC = 1 */
	TLB_USER,
	TLB_USER_ALIGNED, /* alignment checks are on: never filled, so that each access is seen */
	TLB_CONTEXTS
};

struct tlb_hot {
	uint64_t read_tag, write_tag;
	uint64_t host; /* host address minus linear address */
	uint64_t unused;
};

struct tlb_slow {
	uint64_t tag;
	uint64_t physical; /* of the page */
	uint8_t *host;     /* of the page; NULL where no slot holds it */
	uint8_t *flags;    /* enum page_flag of it; NULL where it cannot be written */
	uint32_t rights;   /* 1 << ACCESS_READ, 1 << ACCESS_WRITE, 1 << ACCESS_EXECUTE */
	bool watched;      /* an enabled data breakpoint lies in the page */
	bool apic;         /* the APIC-access page of a guest of VT-x: no host page (SDM 3C 30.4) */
};

/*
 * A context. The generations are the same in all contexts of a CPU, here so that the
 * inline path needs one base register.
 */
struct tlb {
	uint64_t generation;       /* of read tags and slow tags; 1 to TLB_GENERATIONS - 1 */
	uint64_t write_generation; /* of write tags: also raised when pages become clean or code */
	uint64_t large_low,
		large_high; /* linear range of pages beyond 4 KiB since the last flush; TLB_SUPERVISOR's */
	struct tlb_hot hot[TLB_ENTRIES];
	struct tlb_slow slow[TLB_ENTRIES];
};

/*
 * Pages a power of two apart, as arrays and stacks often are, have entries of their own. Bit 0 is the
 * page's alone: neighbours must never share an entry, the last page and the first included, or an access
 * that crosses from one to the other would hit (fast.h).
 */
static inline uint64_t tlb_index(uint64_t linear)
{
	return (linear >> PAGE_SHIFT ^ (linear >> (PAGE_SHIFT + 9) & ~1ull)) % TLB_ENTRIES;
}

#endif
