/*
 * soft_kvmclock.c: KVM's paravirtual clock (Linux, Documentation/virt/kvm/x86/msr.rst), where the profile has
 * it: a guest names a place in its memory, and is told there how the TSC becomes nanoseconds, and when that
 * began.
 *
 * The TSC follows the machine's clock, and jumps only where the guest writes it: then it is told again.
 */
#include <string.h>

#include "engine/kvmclock.h"
#include "engine/soft.h"

#include "cpu/control.h"
#include "cpu/mem/phys.h"

#define SYSTEM_TIME_ENABLE KVMCLOCK_ENABLE
#define TSC_KHZ            (PROFILE_TSC_MHZ * 1000u)

/* Versions are even: no vCPU runs while this is written. */
void soft_kvmclock_update(struct soft_vcpu *vcpu)
{
	struct soft *soft = vcpu->soft;
	struct kvmclock_info info = {.flags = KVMCLOCK_TSC_STABLE};

	if (!(vcpu->kvmclock.system_time & SYSTEM_TIME_ENABLE))
		return;
	vcpu->kvmclock.version += 2;
	info.version = vcpu->kvmclock.version;
	soft_time_set(soft, vcpu->cpu);
	info.tsc_timestamp = control_tsc(vcpu->cpu);
	info.system_time = clock_now(soft->clock);
	kvmclock_scale(&info, TSC_KHZ);
	/* A place that is no memory is the guest's own mistake, which KVM does not tell it either. */
	phys_write_as(CHECK_LOG_KVMCLOCK, soft->memory, vcpu->kvmclock.system_time & ~(uint64_t)SYSTEM_TIME_ENABLE, &info,
		   sizeof(info));
}

static void tell_wall_clock(struct soft_vcpu *vcpu)
{
	const struct kvmclock_wall wall = {.version = 2, .seconds = (uint32_t)vcpu->soft->wall_clock};

	phys_write_as(CHECK_LOG_KVMCLOCK, vcpu->soft->memory, vcpu->kvmclock.wall_clock, &wall, sizeof(wall));
}

/* A guest that comes from an engine whose TSC has another rate is told how this one becomes time. */
void soft_kvmclock_arrived(struct soft_vcpu *vcpu)
{
	uint64_t place = vcpu->kvmclock.system_time & ~(uint64_t)SYSTEM_TIME_ENABLE;
	struct kvmclock_info here = {0}, told;
	const uint8_t *at;

	if (!(vcpu->kvmclock.system_time & SYSTEM_TIME_ENABLE) || (place & 0xfff) > 0x1000 - sizeof(told))
		return;
	at = phys_host(vcpu->soft->memory, place, NULL);
	if (!at)
		return;
	memcpy(&told, at, sizeof(told));
	kvmclock_scale(&here, TSC_KHZ);
	if (told.tsc_to_system_mul != here.tsc_to_system_mul || told.tsc_shift != here.tsc_shift)
		soft_kvmclock_update(vcpu);
}

bool soft_kvmclock_msr(uint32_t index) { return kvmclock_msr(index); }

uint64_t soft_kvmclock_read(const struct soft_vcpu *vcpu, uint32_t index)
{
	return kvmclock_is_wall(index) ? vcpu->kvmclock.wall_clock : vcpu->kvmclock.system_time;
}

void soft_kvmclock_write(struct soft_vcpu *vcpu, uint32_t index, uint64_t value)
{
	if (kvmclock_is_wall(index)) {
		vcpu->kvmclock.wall_clock = value;
		tell_wall_clock(vcpu);
	} else {
		vcpu->kvmclock.system_time = value;
		soft_kvmclock_update(vcpu);
	}
}

static const struct state_field fields[] = {KVMCLOCK_FIELDS};
STATE_TABLE(soft_kvmclock_state, "kvmclock", 1, fields);
