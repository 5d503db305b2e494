/*
 * tss.h: what is read from the current task-state segment (SDM 3A 8.2, SDM 1 19.5.2, APM 2 12.2).
 */
#ifndef TRAPLINE_CPU_TSS_H
#define TRAPLINE_CPU_TSS_H

#include "cpu/cpu.h"

bool tss_is_16bit(const struct cpu *cpu);
/* @width bytes at @offset, without a check of the limit. May raise #PF. */
uint64_t tss_read(struct cpu *cpu, unsigned offset, unsigned width);

/*
 * Whether the I/O permission bitmap allows all of @size ports from @port. The caller decides
 * whether it is to be asked (CPL > IOPL, or virtual-8086 mode). May raise #PF.
 */
bool io_bitmap_allows(struct cpu *cpu, uint16_t port, unsigned size);

/*
 * Whether the software-interrupt redirection bitmap sends INT @vector of virtual-8086 mode to the
 * 8086 program's own handler (SDM 3A 20.3.3). #GP(0) where the bitmap lies outside the TSS; may
 * raise #PF.
 */
bool interrupt_is_redirected(struct cpu *cpu, uint8_t vector);

#endif
