/* ept.c: extended page tables (SDM 3C chapter 28). */
#include "cpu/checks.h"
#include "cpu/vmx/vmx.h"

/* 26.2.1.1, table 24-8 */
bool vmx_eptp_valid(const struct cpu *cpu, uint64_t eptp)
{
	uint64_t type = eptp & EPTP_TYPE, levels = (eptp >> EPTP_LEVELS_SHIFT & 7) + 1;
	bool five = cpu_has(cpu, FEATURE_vmx_ept_5_levels);

	if (CHECK(EPTP_MEMORY_TYPE, type != 0 && type != 6)) /* uncacheable, write-back */
		return false;
	if (CHECK(EPTP_WALK_LENGTH, levels != 4 && !(levels == 5 && five)))
		return false;
	if (CHECK(EPTP_ACCESSED_DIRTY, eptp & EPTP_ACCESSED_DIRTY && !cpu_has(cpu, FEATURE_vmx_ept_ad)))
		return false;
	return !CHECK(EPTP_RESERVED, eptp & (0xf80 | ~cpu->physical_mask));
}
