/*
 * kvm_msrs.c: the MSRs of a vCPU under kvm: those that struct vcpu_state has a field for, and the others that
 * the device lists, which only another kvm engine can take.
 */
#include "engine/kvm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "x86/msr.h"

/* IA32_SMBASE, by which KVM gives it to its user on processors of both vendors. */
#define MSR_SMM_BASE_KVM 0x9eu

struct msr_field {
	uint32_t index;
	size_t offset;
	const char *name;
	int vendor; /* 'A', 'I', or 0: both */
};
#define MSR(index, field, vendor)                                                                            \
	{                                                                                                    \
		index, offsetof(struct vcpu_state, field), #field, vendor                                    \
	}
#define MSR_FOUR(index, field, vendor)                                                                       \
	MSR(index(0), field[0], vendor), MSR(index(1), field[1], vendor), MSR(index(2), field[2], vendor),   \
		MSR(index(3), field[3], vendor)
#define MSR_MTRR(n)                                                                                          \
	MSR(MSR_MTRR_PHYSBASE(n), mtrr_variable[2 * (n)], 0),                                                \
		MSR(MSR_MTRR_PHYSMASK(n), mtrr_variable[2 * (n) + 1], 0)

/* HWCR stands before what it opens or locks, and the TSC before what counts with it. */
static const struct msr_field msr_fields[] = {
	MSR(MSR_TSC, tsc, 0),
	MSR(MSR_TSC_ADJUST, tsc_adjust, 0),
	MSR(MSR_HWCR, hwcr, 'A'),
	MSR(MSR_STAR, star, 0),
	MSR(MSR_LSTAR, lstar, 0),
	MSR(MSR_CSTAR, cstar, 0),
	MSR(MSR_FMASK, fmask, 0),
	MSR(MSR_KERNEL_GS_BASE, kernel_gs_base, 0),
	MSR(MSR_SYSENTER_CS, sysenter_cs, 0),
	MSR(MSR_SYSENTER_ESP, sysenter_esp, 0),
	MSR(MSR_SYSENTER_EIP, sysenter_eip, 0),
	MSR(MSR_TSC_AUX, tsc_aux, 0),
	MSR(MSR_PAT, pat, 0),
	MSR(MSR_MISC_ENABLE, misc_enable, 'I'),
	MSR(MSR_DEBUGCTL, debugctl, 0),
	MSR(MSR_FEATURE_CONTROL, feature_control, 'I'),
	MSR(MSR_SPEC_CTRL, spec_ctrl, 0),
	MSR(MSR_XSS, xss, 0),
	MSR(MSR_MPERF, mperf, 0),
	MSR(MSR_APERF, aperf, 0),
	MSR_FOUR(MSR_PERFEVTSEL, perf_select, 'I'),
	MSR_FOUR(MSR_PMC, perf_counter, 'I'),
	MSR_FOUR(MSR_AMD_PERFEVTSEL, perf_select, 'A'),
	MSR_FOUR(MSR_AMD_PERFCTR, perf_counter, 'A'),
	MSR(MSR_POWER_CTL, power_ctl, 'I'),
	MSR(MSR_UMWAIT_CONTROL, umwait_control, 'I'),
	MSR(MSR_MCG_STATUS, mcg_status, 0),
	MSR(MSR_MCG_CTL, mcg_ctl, 0),
	MSR_FOUR(MSR_MC_CTL, mc_ctl, 0),
	MSR(MSR_MC_CTL(4), mc_ctl[4], 0),
	MSR(MSR_MC_CTL(5), mc_ctl[5], 0),
	MSR(MSR_MC_CTL(6), mc_ctl[6], 0),
	MSR(MSR_MC_CTL(7), mc_ctl[7], 0),
	MSR(MSR_MTRR_DEF_TYPE, mtrr_def_type, 0),
	MSR(MSR_MTRR_FIX64K_00000, mtrr_fixed[0], 0),
	MSR(MSR_MTRR_FIX16K_80000, mtrr_fixed[1], 0),
	MSR(MSR_MTRR_FIX16K_A0000, mtrr_fixed[2], 0),
	MSR(MSR_MTRR_FIX4K(0), mtrr_fixed[3], 0),
	MSR(MSR_MTRR_FIX4K(1), mtrr_fixed[4], 0),
	MSR(MSR_MTRR_FIX4K(2), mtrr_fixed[5], 0),
	MSR(MSR_MTRR_FIX4K(3), mtrr_fixed[6], 0),
	MSR(MSR_MTRR_FIX4K(4), mtrr_fixed[7], 0),
	MSR(MSR_MTRR_FIX4K(5), mtrr_fixed[8], 0),
	MSR(MSR_MTRR_FIX4K(6), mtrr_fixed[9], 0),
	MSR(MSR_MTRR_FIX4K(7), mtrr_fixed[10], 0),
	MSR_MTRR(0),
	MSR_MTRR(1),
	MSR_MTRR(2),
	MSR_MTRR(3),
	MSR_MTRR(4),
	MSR_MTRR(5),
	MSR_MTRR(6),
	MSR_MTRR(7),
	MSR(MSR_VM_CR, vm_cr, 'A'),
	MSR(MSR_VM_HSAVE_PA, vm_hsave_pa, 'A'),
	MSR(MSR_TSC_RATIO, svm_tsc_ratio, 'A'),
	MSR(MSR_SMM_BASE_KVM, smbase, 0),
	MSR(MSR_SYSCFG, syscfg, 'A'),
	MSR_FOUR(MSR_IORR, iorr, 'A'),
	MSR(MSR_TOP_MEM, top_mem, 'A'),
	MSR(MSR_TOP_MEM2, top_mem2, 'A'),
	MSR(MSR_MISC_FEATURES_ENABLES, misc_features_enables, 0),
};
#define MSR_FIELDS (sizeof(msr_fields) / sizeof(msr_fields[0]))

static struct kvm_msrs *msrs_new(size_t room)
{
	return calloc(1, sizeof(struct kvm_msrs) + room * sizeof(struct kvm_msr_entry));
}

/* ---- which there are ---- */

/* Whether the device gives the MSR out and takes the same value back. */
static bool takes_msr(const struct kvm_vcpu *vcpu, uint32_t index)
{
	struct kvm_msrs *one = vcpu->msrs;

	one->nmsrs = 1;
	one->entries[0] = (struct kvm_msr_entry){.index = index};
	return kvm_ioctl(vcpu->fd, KVM_GET_MSRS, one) == 1 && kvm_ioctl(vcpu->fd, KVM_SET_MSRS, one) == 1;
}

/* One of the other vendor's that the device has all the same is among the others. */
static bool has_field(const struct kvm_vcpu *vcpu, uint32_t index)
{
	int other = kvm_engine_of(vcpu)->amd ? 'I' : 'A';

	for (size_t i = 0; i < MSR_FIELDS; i++)
		if (msr_fields[i].index == index && msr_fields[i].vendor != other)
			return true;
	/* The paravirtual clocks, in each of their places, are nothing that hardware has. */
	return index == 0x11 || index == 0x12 || index >> 8 == 0x4b564d || index >> 8 == 0x400000 ||
	       index == MSR_TSC_DEADLINE; /* the local APIC's */
}

static void find_fields(struct kvm_vcpu *vcpu)
{
	int other = kvm_engine_of(vcpu)->amd ? 'I' : 'A';

	vcpu->field_count = 0;
	for (uint16_t i = 0; i < MSR_FIELDS; i++)
		if (msr_fields[i].vendor != other && takes_msr(vcpu, msr_fields[i].index))
			vcpu->field[vcpu->field_count++] = i;
}

static int find_remainder(struct kvm_vcpu *vcpu)
{
	struct kvm_msr_list *list = calloc(1, sizeof(*list) + KVM_MSRS_MAX * sizeof(list->indices[0]));
	struct kvm_msrs *remainder = vcpu->remainder.msrs;

	if (!list)
		return -ENOMEM;
	list->nmsrs = KVM_MSRS_MAX;
	if (kvm_ioctl(kvm_engine_of(vcpu)->device, KVM_GET_MSR_INDEX_LIST, list))
		list->nmsrs = 0;
	remainder->nmsrs = 0;
	for (unsigned i = 0; i < list->nmsrs; i++)
		if (!has_field(vcpu, list->indices[i]) && takes_msr(vcpu, list->indices[i]))
			remainder->entries[remainder->nmsrs++].index = list->indices[i];
	vcpu->remainder_count = remainder->nmsrs;
	free(list);
	return 0;
}

int kvm_msrs_open(struct kvm_vcpu *vcpu)
{
	int error;

	if (!vcpu->msrs)
		vcpu->msrs = msrs_new(2 * KVM_MSRS_MAX);
	if (!vcpu->remainder.msrs)
		vcpu->remainder.msrs = msrs_new(KVM_MSRS_MAX);
	if (!vcpu->remainder_reset)
		vcpu->remainder_reset = msrs_new(KVM_MSRS_MAX);
	if (!vcpu->msrs || !vcpu->remainder.msrs || !vcpu->remainder_reset)
		return -ENOMEM;
	find_fields(vcpu);
	error = find_remainder(vcpu);
	if (!error)
		error = kvm_msrs_get(vcpu, vcpu->remainder.msrs, vcpu->remainder_count);
	if (!error)
		memcpy(vcpu->remainder_reset->entries, vcpu->remainder.msrs->entries,
		       vcpu->remainder_count * sizeof(struct kvm_msr_entry));
	return error;
}

void kvm_msrs_close(struct kvm_vcpu *vcpu)
{
	free(vcpu->msrs);
	free(vcpu->remainder.msrs);
	free(vcpu->remainder_reset);
}

/* ---- in and out ---- */

/* The device says how many it has told or taken: the one behind is what it refuses. */
static int refused_msr(struct kvm_vcpu *vcpu, const char *what, const struct kvm_msrs *msrs, int done)
{
	if (done < 0)
		return kvm_refused(vcpu, what);
	kvm_fail(vcpu, "vCPU %u: %s: the device refuses MSR 0x%x, value 0x%llx", vcpu->vcpu.number, what,
		 msrs->entries[done].index, (unsigned long long)msrs->entries[done].data);
	return -EINVAL;
}

int kvm_msrs_get(struct kvm_vcpu *vcpu, struct kvm_msrs *msrs, unsigned count)
{
	int done;

	if (!count)
		return 0;
	msrs->nmsrs = count;
	done = kvm_ioctl(vcpu->fd, KVM_GET_MSRS, msrs);
	return done == (int)count ? 0 : refused_msr(vcpu, "KVM_GET_MSRS", msrs, done);
}

static int set(struct kvm_vcpu *vcpu, struct kvm_msrs *msrs, unsigned count)
{
	int done;

	if (!count)
		return 0;
	msrs->nmsrs = count;
	done = kvm_ioctl(vcpu->fd, KVM_SET_MSRS, msrs);
	return done == (int)count ? 0 : refused_msr(vcpu, "KVM_SET_MSRS", msrs, done);
}

/*
 * The TSC that is saved is that of the machine's time as saved, and the one that is loaded of the machine's
 * time now: so all vCPUs' agree among each other and with the clock, whenever each is asked.
 */
static uint64_t tsc_since_saved(const struct kvm_vcpu *vcpu)
{
	const struct kvm_engine *kvm = kvm_engine_of(vcpu);
	uint64_t passed = kvm_host_ns() - kvm->time.began - kvm->time.state.ns;

	return (uint64_t)((unsigned __int128)passed * kvm->tsc_khz / 1000000);
}

static bool holds(const struct kvm_vcpu *vcpu, size_t offset)
{
	for (unsigned k = 0; k < vcpu->field_count; k++)
		if (msr_fields[vcpu->field[k]].offset == offset)
			return true;
	return false;
}

/* struct vcpu_state has what counts at the TSC's rate less the TSC. */
static void move_counters(const struct kvm_vcpu *vcpu, struct vcpu_state *state, uint64_t by)
{
	if (holds(vcpu, offsetof(struct vcpu_state, mperf)))
		state->mperf += by;
	if (holds(vcpu, offsetof(struct vcpu_state, aperf)))
		state->aperf += by;
	for (unsigned n = 0; n < 4; n++)
		if (state->perf_select[n] & PERFEVTSEL_ENABLE)
			state->perf_counter[n] += by;
}

int kvm_msrs_save(struct kvm_vcpu *vcpu, struct vcpu_state *to)
{
	int error;

	for (unsigned i = 0; i < vcpu->field_count; i++)
		vcpu->msrs->entries[i] = (struct kvm_msr_entry){.index = msr_fields[vcpu->field[i]].index};
	error = kvm_msrs_get(vcpu, vcpu->msrs, vcpu->field_count);
	for (unsigned i = 0; !error && i < vcpu->field_count; i++)
		memcpy((char *)to + msr_fields[vcpu->field[i]].offset, &vcpu->msrs->entries[i].data,
		       sizeof(uint64_t));
	move_counters(vcpu, to, -to->tsc);
	to->tsc -= tsc_since_saved(vcpu);
	return error ? error : kvm_msrs_get(vcpu, vcpu->remainder.msrs, vcpu->remainder_count);
}

static uint64_t wanted_msr(const struct kvm_vcpu *vcpu, const struct vcpu_state *from, unsigned i)
{
	uint64_t value;

	if (i >= vcpu->field_count)
		return vcpu->remainder.msrs->entries[i - vcpu->field_count].data;
	memcpy(&value, (const char *)from + msr_fields[vcpu->field[i]].offset, sizeof(value));
	return msr_fields[vcpu->field[i]].index == MSR_TSC ? value + tsc_since_saved(vcpu) : value;
}

/* By its offset, where the device has that: a value is taken by some only if it differs enough from the last
 * one. */
bool kvm_tsc_move(struct kvm_vcpu *vcpu, uint64_t by)
{
	uint64_t offset;
	struct kvm_device_attr attribute = {
		.group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (uintptr_t)&offset};

	if (!kvm_engine_of(vcpu)->can.tsc_offset || kvm_ioctl(vcpu->fd, KVM_GET_DEVICE_ATTR, &attribute))
		return false;
	offset += by;
	return kvm_ioctl(vcpu->fd, KVM_SET_DEVICE_ATTR, &attribute) == 0;
}

/* Writes those that differ, so that a case pays for what it touched. */
int kvm_msrs_load(struct kvm_vcpu *vcpu, const struct vcpu_state *state)
{
	struct vcpu_state moved = *state, *from = &moved;
	unsigned all = vcpu->field_count + vcpu->remainder_count, changed = 0;
	struct kvm_msr_entry *entry = vcpu->msrs->entries;
	int error;

	for (unsigned i = 0; i < all; i++)
		entry[i] = (struct kvm_msr_entry){
			.index = i < vcpu->field_count
					 ? msr_fields[vcpu->field[i]].index
					 : vcpu->remainder.msrs->entries[i - vcpu->field_count].index};
	move_counters(vcpu, from, from->tsc + tsc_since_saved(vcpu));
	error = kvm_msrs_get(vcpu, vcpu->msrs, all);
	for (unsigned i = 0; !error && i < all; i++) {
		uint64_t wanted = wanted_msr(vcpu, from, i);

		if (entry[i].data == wanted ||
		    (entry[i].index == MSR_TSC && kvm_tsc_move(vcpu, wanted - entry[i].data)))
			continue;
		entry[changed++] = (struct kvm_msr_entry){.index = entry[i].index, .data = wanted};
	}
	if (!error)
		error = set(vcpu, vcpu->msrs, changed);
	kvm_tsc_look(vcpu);
	return error;
}

/* ---- what is not held ---- */

/* A count that the guest was told it does not have says nothing to it. */
static bool is_hidden(const struct kvm_vcpu *vcpu, size_t offset)
{
	const uint32_t aperfmperf = 1;

	return (offset == offsetof(struct vcpu_state, mperf) || offset == offsetof(struct vcpu_state, aperf)) &&
	       !(kvm_cpuid(kvm_engine_of(vcpu), 6, 0, 2) & aperfmperf);
}

const char *kvm_msrs_unheld(const struct kvm_vcpu *vcpu, const struct vcpu_state *from)
{
	for (unsigned i = 0; i < MSR_FIELDS; i++) {
		uint64_t value;

		memcpy(&value, (const char *)from + msr_fields[i].offset, sizeof(value));
		if (value != kvm_neutral(msr_fields[i].offset) && !holds(vcpu, msr_fields[i].offset) &&
		    !is_hidden(vcpu, msr_fields[i].offset))
			return msr_fields[i].name;
	}
	if (from->tsc_deadline && !kvm_engine_of(vcpu)->chips.lapic[vcpu->vcpu.number].model.tsc_deadline)
		return "tsc_deadline";
	/* The device's processor has more counters than these, and its own registers are among the remainder. */
	return from->perf_off ? "perf_off" : from->perf_overflowed ? "perf_overflowed" : NULL;
}

/* ---- the remainder as it travels ---- */

bool kvm_remainder_idle(const struct kvm_vcpu *vcpu)
{
	return !memcmp(vcpu->remainder.msrs->entries, vcpu->remainder_reset->entries,
		       vcpu->remainder_count * sizeof(struct kvm_msr_entry));
}

int kvm_remainder_load(struct kvm_vcpu *vcpu, const struct kvm_msr_entry *entries, unsigned count)
{
	for (unsigned i = 0; i < vcpu->remainder_count; i++)
		vcpu->remainder.msrs->entries[i] = vcpu->remainder_reset->entries[i];
	for (unsigned i = 0; i < count; i++) {
		unsigned k = 0;

		while (k < vcpu->remainder_count &&
		       vcpu->remainder.msrs->entries[k].index != entries[i].index)
			k++;
		if (k == vcpu->remainder_count) {
			kvm_fail(vcpu, "vCPU %u: the device has no MSR 0x%x", vcpu->vcpu.number,
				 entries[i].index);
			return -EINVAL;
		}
		vcpu->remainder.msrs->entries[k].data = entries[i].data;
	}
	memcpy(vcpu->msrs->entries, vcpu->remainder.msrs->entries,
	       vcpu->remainder_count * sizeof(struct kvm_msr_entry));
	return set(vcpu, vcpu->msrs, vcpu->remainder_count);
}
