/*
 * migration.h: what the stories of migration share: the time in which a machine may be moved, and clocks to
 * measure by.
 *
 * A story holds a state, lets a while pass, and looks whether it is what it was: where nobody moves the machine
 * all of them must hold as well.
 */
#ifndef TRAPLINE_GUESTS_MIGRATION_MIGRATION_H
#define TRAPLINE_GUESTS_MIGRATION_MIGRATION_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/machine.h"
#include "lib/story.h"

/* Some instructions that touch neither memory nor a device: the machine may be moved between any two of them.
 * An odd number, so that two looks around it are at odds as well. */
#define HOLD_LOOPS 20u
static inline void hold(void)
{
	__asm__ volatile("mov %0, %%ecx\n\t"
			 "nop\n\t"
			 "1: dec %%ecx\n\t"
			 "jnz 1b\n\t"
			 "nop" : : "i"(HOLD_LOOPS) : "ecx", "cc");
}

/*
 * Our own machine's time follows instructions, and nothing is late there. On others a look, an interrupt and a timer take
 * what their host takes: there that measurement counts which comes out right, of some, each over twice the time.
 */
static inline unsigned first_try(void) { return machine.control_device ? 0 : 6; } /* that many times doubled */
static inline unsigned last_try(void) { return machine.control_device ? 0 : 10; }

static inline uint64_t read_tsc(void)
{
	uint32_t low, high;

	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
	return (uint64_t)high << 32 | low;
}

/* Bit @bit of CPUID.@leaf:@reg. */
static inline bool cpuid_bit(uint32_t leaf, unsigned reg, unsigned bit)
{
	uint32_t r[4];

	machine_cpuid(leaf, 0, r);
	return r[reg] >> bit & 1;
}

static inline void out16(uint16_t port, uint16_t value)
{
	__asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline uint16_t in16(uint16_t port)
{
	uint16_t value;

	__asm__ volatile("inw %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static inline volatile uint32_t *mmio32(uint64_t address) { return (volatile uint32_t *)(uintptr_t)address; }
static inline volatile uint64_t *mmio64(uint64_t address) { return (volatile uint64_t *)(uintptr_t)address; }

/* A look, a while, another look. */
#define HELD(name, want, expression)                                                                         \
	do {                                                                                                 \
		hold();                                                                                      \
		story_check(name, (want), (expression));                                                     \
		hold();                                                                                      \
		story_check(name "_still", (want), (expression));                                            \
	} while (0)

#endif
