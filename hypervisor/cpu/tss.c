/* tss.c: the bitmaps of the current task-state segment. */
#include "cpu/tss.h"

#include "cpu/checks.h"
#include "cpu/mem/mem.h"

#define REDIRECTION_BYTES 32 /* directly below the I/O permission bitmap */

bool tss_is_16bit(const struct cpu *cpu)
{
	unsigned type = cpu->tr.s.attributes & SEG_TYPE;

	return type == TYPE_TSS16_AVAILABLE || type == TYPE_TSS16_BUSY;
}

uint64_t tss_read(struct cpu *cpu, unsigned offset, unsigned width)
{
	uint64_t linear = cpu->tr.s.base + offset;

	return linear_read(cpu, cpu_ia32e(cpu) ? linear : (uint32_t)linear, width, ACCESS_READ | ACCESS_IMPLICIT);
}

/* Where the I/O map base address is, in a 32-bit and a 64-bit TSS. False: the TSS has none. */
static bool io_map_base(struct cpu *cpu, unsigned *base)
{
	if (cpu->tr.s.attributes & SEG_UNUSABLE)
		return false;
	if (CHECK(IO_BITMAP_TSS16, tss_is_16bit(cpu)))
		return false;
	if (CHECK(IO_BITMAP_TSS_LIMIT, cpu->tr.s.limit < TSS32_IOMAP + 1))
		return false;
	*base = (unsigned)tss_read(cpu, TSS32_IOMAP, 2);
	return true;
}

/*
 * Two bytes are read for every port, so that an access may straddle them; the second must lie within
 * the limit as well, which is why a bitmap ends with a byte of ones (SDM 1 19.5.2).
 */
bool io_bitmap_allows(struct cpu *cpu, uint16_t port, unsigned size)
{
	unsigned base;

	if (!io_map_base(cpu, &base))
		return false;
	unsigned offset = base + port / 8;
	if (CHECK(IO_BITMAP_LIMIT, offset + 1 > cpu->tr.s.limit))
		return false;
	unsigned bits = (unsigned)tss_read(cpu, offset, 2) >> port % 8;
	return !CHECK(IO_BITMAP_BIT, bits & ((1u << size) - 1));
}

bool interrupt_is_redirected(struct cpu *cpu, uint8_t vector)
{
	unsigned base;

	if (!io_map_base(cpu, &base))
		cpu_raise(cpu, VECTOR_GP, 0);
	unsigned offset = base - REDIRECTION_BYTES + vector / 8u;
	if (CHECK(REDIRECTION_LIMIT, base < REDIRECTION_BYTES || offset > cpu->tr.s.limit))
		cpu_raise(cpu, VECTOR_GP, 0);
	return !(tss_read(cpu, offset, 1) >> vector % 8 & 1);
}
