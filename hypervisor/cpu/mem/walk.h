/*
 * walk.h: from a linear address to a physical one through the paging structures
 * (SDM 3A chapter 4, APM 2 chapter 5).
 */
#ifndef TRAPLINE_CPU_MEM_WALK_H
#define TRAPLINE_CPU_MEM_WALK_H

#include "cpu/mem/mem.h"

/* With enum access: changes nothing in memory, neither A nor D. */
#define ACCESS_PROBE 16u

/* What a walk found. Rights are 1 << ACCESS_READ, _WRITE, _EXECUTE for the kind of access that walked. */
struct walk {
	uint64_t physical; /* of the 4 KiB page that holds the linear address */
	uint64_t size;     /* of the page that maps it, in bytes */
	uint32_t rights;
	bool dirty;     /* the D flag is set, or there is none: writes need no further walk */
	uint32_t error; /* of the #PF where there is no translation */
	/*
	 * EXITINFO1 of the nested page fault that there is in its place (svm/svm.h), or VMX_FAULT and its like
	 * (vmx/vmx.h), with the guest-physical address in @physical; else 0.
	 */
	uint64_t nested;
};

/*
 * Translates @linear, which is canonical, for @access (enum access and ACCESS_PROBE). True: the
 * access is allowed, and its A and D flags are set. False: #PF with walk->error; then A is set in
 * the upper entries of a translation that only lacks the right (SDM 3A 6.15, #PF).
 */
bool walk(struct cpu *cpu, uint64_t linear, unsigned access, struct walk *result);

#endif
