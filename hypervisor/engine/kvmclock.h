/*
 * kvmclock.h: what KVM's paravirtual clock tells a guest in its memory (Linux, Documentation/virt/kvm/x86/msr.rst),
 * for every engine. Times are those of the machine's clock.
 */
#ifndef TRAPLINE_ENGINE_KVMCLOCK_H
#define TRAPLINE_ENGINE_KVMCLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include "x86/msr.h"

struct kvmclock_info {
	uint32_t version, reserved;
	uint64_t tsc_timestamp, system_time;
	uint32_t tsc_to_system_mul;
	int8_t tsc_shift;
	uint8_t flags, reserved2[2];
};
_Static_assert(sizeof(struct kvmclock_info) == 32, "as the guest has it");

struct kvmclock_wall {
	uint32_t version, seconds, nanoseconds;
};

#define KVMCLOCK_ENABLE     1u /* of MSR_KVM_SYSTEM_TIME */
#define KVMCLOCK_TSC_STABLE 1u /* of @flags */

/* How a TSC of @khz, not 0, becomes nanoseconds: (tsc << shift) * mul >> 32, a negative shift being one to the right. */
static inline void kvmclock_scale(struct kvmclock_info *info, uint32_t khz)
{
	uint64_t ns = 1000000, ticks = khz;

	info->tsc_shift = 0;
	for (; ns >= ticks; ticks *= 2)
		info->tsc_shift++;
	for (; 2 * ns < ticks; ns *= 2)
		info->tsc_shift--;
	info->tsc_to_system_mul = (uint32_t)((ns << 32) / ticks);
}

static inline bool kvmclock_msr(uint32_t index)
{
	return index == MSR_KVM_WALL_CLOCK || index == MSR_KVM_SYSTEM_TIME ||
	       index == MSR_KVM_WALL_CLOCK_NEW || index == MSR_KVM_SYSTEM_TIME_NEW;
}

static inline bool kvmclock_is_wall(uint32_t index)
{
	return index == MSR_KVM_WALL_CLOCK || index == MSR_KVM_WALL_CLOCK_NEW;
}

#endif
