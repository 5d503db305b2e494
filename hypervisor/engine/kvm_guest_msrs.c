/*
 * kvm_guest_msrs.c: MSRs of which the kernel sends the guest's accesses back to us: those of the local APIC, which is
 * ours (x2APIC mode, the TSC deadline), KVM's paravirtual clock, which tells the machine's time here, and writes of
 * the TSC, by which the deadline and that clock go.
 *
 * A device without KVM_CAP_X86_USER_SPACE_MSR and KVM_CAP_X86_MSR_FILTER keeps them from us, and the guest from them.
 */
#include "engine/kvm.h"

#include <string.h>
#include <sys/ioctl.h>

#include "engine/kvmclock.h"

/* ---- which ---- */

/* x2APIC's cannot be filtered: without an APIC in the kernel they are MSRs that are not there, which come as well. */
bool kvm_guest_msrs_open(struct kvm_engine *kvm)
{
	struct kvm_enable_cap cap = {
		.cap = KVM_CAP_X86_USER_SPACE_MSR,
		.args = {KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_UNKNOWN | KVM_MSR_EXIT_REASON_FILTER}};
	static uint8_t none[8];
	const uint32_t both = KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE;
	struct kvm_msr_filter filter = {
		.flags = KVM_MSR_FILTER_DEFAULT_ALLOW,
		.ranges = {{.flags = both, .nmsrs = 1, .base = MSR_TSC_DEADLINE, .bitmap = none},
			   {.flags = both, .nmsrs = 2, .base = MSR_KVM_WALL_CLOCK, .bitmap = none},
			   {.flags = both, .nmsrs = 2, .base = MSR_KVM_WALL_CLOCK_NEW, .bitmap = none},
			   {.flags = KVM_MSR_FILTER_WRITE, .nmsrs = 1, .base = MSR_TSC, .bitmap = none},
			   {.flags = KVM_MSR_FILTER_WRITE, .nmsrs = 1, .base = MSR_TSC_ADJUST, .bitmap = none}}};

	return ioctl(kvm->vm, KVM_CHECK_EXTENSION, KVM_CAP_X86_USER_SPACE_MSR) > 0 &&
	       ioctl(kvm->vm, KVM_CHECK_EXTENSION, KVM_CAP_X86_MSR_FILTER) > 0 &&
	       ioctl(kvm->vm, KVM_CHECK_EXTENSION, KVM_CAP_GET_TSC_KHZ) > 0 &&
	       ioctl(kvm->vm, KVM_ENABLE_CAP, &cap) == 0 && ioctl(kvm->vm, KVM_X86_SET_MSR_FILTER, &filter) == 0;
}

/* ---- the TSC, between two looks at it ---- */

/* Room for one entry behind the header. */
union one_msr {
	struct kvm_msrs msrs;
	uint8_t room[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)];
};

static uint64_t get_msr(const struct kvm_vcpu *vcpu, uint32_t index)
{
	union one_msr one = {.msrs.nmsrs = 1};

	one.msrs.entries[0].index = index;
	ioctl(vcpu->fd, KVM_GET_MSRS, &one);
	return one.msrs.entries[0].data;
}

static bool set_msr(const struct kvm_vcpu *vcpu, uint32_t index, uint64_t value)
{
	union one_msr one = {.msrs.nmsrs = 1};

	one.msrs.entries[0] = (struct kvm_msr_entry){.index = index, .data = value};
	return ioctl(vcpu->fd, KVM_SET_MSRS, &one) == 1;
}

void kvm_tsc_look(struct kvm_vcpu *vcpu)
{
	if (!kvm_engine_of(vcpu)->can.guest_msrs)
		return;
	vcpu->tsc_seen = get_msr(vcpu, MSR_TSC);
	vcpu->tsc_seen_at = kvm_host_ns();
}

uint64_t kvm_tsc(const struct kvm_vcpu *vcpu)
{
	uint64_t passed = kvm_host_ns() - vcpu->tsc_seen_at;

	return vcpu->tsc_seen +
	       (uint64_t)((unsigned __int128)passed * kvm_engine_of(vcpu)->tsc_khz / 1000000);
}

uint64_t kvm_tsc_time(const struct kvm_vcpu *vcpu, uint64_t tsc)
{
	const struct kvm_engine *kvm = kvm_engine_of(vcpu);
	unsigned __int128 at = vcpu->tsc_seen_at - kvm->time.began;

	if (!kvm->tsc_khz)
		return CLOCK_NEVER;
	if (tsc > vcpu->tsc_seen)
		at += ((unsigned __int128)(tsc - vcpu->tsc_seen) * 1000000 + kvm->tsc_khz - 1) / kvm->tsc_khz;
	return at < CLOCK_NEVER ? (uint64_t)at : CLOCK_NEVER;
}

/* ---- KVM's clock ---- */

static void tell_time(struct kvm_vcpu *vcpu)
{
	struct kvm_engine *kvm = kvm_engine_of(vcpu);
	struct kvmclock_info info = {.flags = KVMCLOCK_TSC_STABLE};

	if (!(vcpu->kvmclock.system_time & KVMCLOCK_ENABLE) || !kvm->tsc_khz)
		return;
	vcpu->kvmclock.version += 2;
	info.version = vcpu->kvmclock.version;
	info.tsc_timestamp = vcpu->tsc_seen;
	info.system_time = vcpu->tsc_seen_at - kvm->time.began;
	kvmclock_scale(&info, kvm->tsc_khz);
	kvm->chips.changed = true;
	/* A place that is no memory is the guest's own mistake. */
	kvm_memory_write(&kvm->engine, vcpu->kvmclock.system_time & ~(uint64_t)KVMCLOCK_ENABLE, &info, sizeof(info));
}

void kvm_clock_arrived(struct kvm_vcpu *vcpu)
{
	struct kvm_engine *kvm = kvm_engine_of(vcpu);
	struct kvmclock_info here = {0}, told;
	uint64_t place = vcpu->kvmclock.system_time & ~(uint64_t)KVMCLOCK_ENABLE;
	const uint8_t *at;

	if (!(vcpu->kvmclock.system_time & KVMCLOCK_ENABLE) || !kvm->can.guest_msrs || !kvm->tsc_khz)
		return;
	at = kvm_memory_at(kvm, place, sizeof(told));
	if (!at)
		return;
	memcpy(&told, at, sizeof(told));
	kvmclock_scale(&here, kvm->tsc_khz);
	if (told.tsc_to_system_mul != here.tsc_to_system_mul || told.tsc_shift != here.tsc_shift)
		tell_time(vcpu);
}

static void tell_wall_clock(struct kvm_vcpu *vcpu)
{
	struct kvm_engine *kvm = kvm_engine_of(vcpu);
	const struct kvmclock_wall wall = {.version = 2, .seconds = (uint32_t)kvm->wall_clock};

	kvm_memory_write(&kvm->engine, vcpu->kvmclock.wall_clock, &wall, sizeof(wall));
}

static bool clock_access(struct kvm_vcpu *vcpu, uint32_t index, bool write, uint64_t *value)
{
	if (!(kvm_cpuid(kvm_engine_of(vcpu), 0x40000001, 0, 0) & 1u << 3))
		return false;
	if (!write) {
		*value = kvmclock_is_wall(index) ? vcpu->kvmclock.wall_clock : vcpu->kvmclock.system_time;
	} else if (kvmclock_is_wall(index)) {
		vcpu->kvmclock.wall_clock = *value;
		tell_wall_clock(vcpu);
	} else {
		vcpu->kvmclock.system_time = *value;
		kvm_tsc_look(vcpu);
		tell_time(vcpu);
	}
	return true;
}

/* ---- accesses ---- */

/* A write of the one changes the other by as much (SDM 3B 18.17.3). */
static bool write_tsc(struct kvm_vcpu *vcpu, uint32_t index, uint64_t value)
{
	uint64_t by = value - get_msr(vcpu, index);
	bool adjusts = kvm_cpuid(kvm_engine_of(vcpu), 7, 0, 1) & 1u << 1;

	if (index == MSR_TSC_ADJUST && !adjusts)
		return false;
	if (!kvm_tsc_move(vcpu, by) && !set_msr(vcpu, MSR_TSC, get_msr(vcpu, MSR_TSC) + by))
		return false;
	if (adjusts && !set_msr(vcpu, MSR_TSC_ADJUST,
				index == MSR_TSC_ADJUST ? value : get_msr(vcpu, MSR_TSC_ADJUST) + by))
		return false;
	kvm_tsc_look(vcpu);
	lapic_tsc_changed(&kvm_engine_of(vcpu)->chips.lapic[vcpu->vcpu.number]);
	tell_time(vcpu);
	return true;
}

static bool lapic_access(struct kvm_vcpu *vcpu, uint32_t index, bool write, uint64_t *value)
{
	struct lapic *lapic = &kvm_engine_of(vcpu)->chips.lapic[vcpu->vcpu.number];

	if (index == MSR_TSC_DEADLINE)
		kvm_tsc_look(vcpu);
	return write ? lapic_msr_write(lapic, index, *value) : lapic_msr_read(lapic, index, value);
}

static bool access(struct kvm_vcpu *vcpu, uint32_t index, bool write, uint64_t *value)
{
	kvm_engine_of(vcpu)->chips.changed = true;
	if (kvmclock_msr(index))
		return clock_access(vcpu, index, write, value);
	if (index == MSR_TSC_DEADLINE || index - MSR_X2APIC_FIRST < MSR_X2APIC_COUNT)
		return lapic_access(vcpu, index, write, value);
	if (write && (index == MSR_TSC || index == MSR_TSC_ADJUST))
		return write_tsc(vcpu, index, *value);
	return false;
}

void kvm_guest_msr(struct kvm_vcpu *vcpu)
{
	struct kvm_run *run = vcpu->run;
	uint64_t value = run->msr.data;

	run->msr.error = !access(vcpu, run->msr.index, run->exit_reason == KVM_EXIT_X86_WRMSR, &value);
	run->msr.data = value;
}
