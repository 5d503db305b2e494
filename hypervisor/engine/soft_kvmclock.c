/*
 * soft_kvmclock.c: KVM's paravirtual clock (Linux, Documentation/virt/kvm/x86/msr.rst), where the profile has
 * it: a guest names a place in its memory, and is told there how the TSC becomes nanoseconds, and when that
 * began.
 *
 * The TSC follows the machine's clock, and jumps only where the guest writes it: then it is told again.
 */
#include "engine/soft.h"

#include "cpu/control.h"
#include "cpu/mem/phys.h"
#include "x86/msr.h"

struct time_info {
	uint32_t version, reserved;
	uint64_t tsc_timestamp, system_time;
	uint32_t tsc_to_system_mul;
	int8_t tsc_shift;
	uint8_t flags, reserved2[2];
};
_Static_assert(sizeof(struct time_info) == 32, "as the guest has it");

struct wall_clock {
	uint32_t version, seconds, nanoseconds;
};

#define SYSTEM_TIME_ENABLE 1u
#define FLAG_TSC_STABLE    1u

/* Nanoseconds are (tsc << shift) * mul >> 32: the shift is the first whose power of two exceeds a tick. */
static void scale(struct time_info *info)
{
	while (1u << info->tsc_shift <= PROFILE_TICK_NS)
		info->tsc_shift++;
	info->tsc_to_system_mul = (uint32_t)((uint64_t)PROFILE_TICK_NS << (32 - info->tsc_shift));
}

/* Versions are even: no vCPU runs while this is written. */
void soft_kvmclock_update(struct soft_vcpu *vcpu)
{
	struct soft *soft = vcpu->soft;
	struct time_info info = {.flags = FLAG_TSC_STABLE};

	if (!(vcpu->kvmclock.system_time & SYSTEM_TIME_ENABLE))
		return;
	vcpu->kvmclock.version += 2;
	info.version = vcpu->kvmclock.version;
	soft_time_set(soft, vcpu->cpu);
	info.tsc_timestamp = control_tsc(vcpu->cpu);
	info.system_time = clock_now(soft->clock);
	scale(&info);
	/* A place that is no memory is the guest's own mistake, which KVM does not tell it either. */
	phys_write_as(CHECK_LOG_KVMCLOCK, soft->memory, vcpu->kvmclock.system_time & ~(uint64_t)SYSTEM_TIME_ENABLE, &info,
		   sizeof(info));
}

static void tell_wall_clock(struct soft_vcpu *vcpu)
{
	const struct wall_clock wall = {.version = 2, .seconds = (uint32_t)vcpu->soft->wall_clock};

	phys_write_as(CHECK_LOG_KVMCLOCK, vcpu->soft->memory, vcpu->kvmclock.wall_clock, &wall, sizeof(wall));
}

bool soft_kvmclock_msr(uint32_t index)
{
	return index == MSR_KVM_WALL_CLOCK || index == MSR_KVM_SYSTEM_TIME ||
	       index == MSR_KVM_WALL_CLOCK_NEW || index == MSR_KVM_SYSTEM_TIME_NEW;
}

static bool is_wall_clock(uint32_t index)
{
	return index == MSR_KVM_WALL_CLOCK || index == MSR_KVM_WALL_CLOCK_NEW;
}

uint64_t soft_kvmclock_read(const struct soft_vcpu *vcpu, uint32_t index)
{
	return is_wall_clock(index) ? vcpu->kvmclock.wall_clock : vcpu->kvmclock.system_time;
}

void soft_kvmclock_write(struct soft_vcpu *vcpu, uint32_t index, uint64_t value)
{
	if (is_wall_clock(index)) {
		vcpu->kvmclock.wall_clock = value;
		tell_wall_clock(vcpu);
	} else {
		vcpu->kvmclock.system_time = value;
		soft_kvmclock_update(vcpu);
	}
}

static const struct state_field fields[] = {KVMCLOCK_FIELDS};
STATE_TABLE(soft_kvmclock_state, "kvmclock", 1, fields);
