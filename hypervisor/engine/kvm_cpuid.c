/* kvm_cpuid.c: the processor that a guest under kvm is told it has: the device's, or the one that it comes
 * with. */
#include "engine/kvm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/guest_cpu.h"

#define LEAF1_ECX_OSXSAVE      (1u << 27)
#define LEAF1_ECX_HYPERVISOR   (1u << 31)
#define KVM_FIRST_LEAF         0x40000000u
#define KVM_CLOCK              (1u << 0 | 1u << 3 | 1u << 24) /* of the next one: both pairs of MSRs, a stable TSC */
#define LEAF7_ECX_OSPKE        (1u << 4)

/* Rows are those of vCPU 0 after RESET. */
static struct cpuid_row row_of(const struct kvm_engine *kvm, const struct kvm_cpuid_entry2 *entry)
{
	const uint32_t apic = LEAF1_ECX_X2APIC | LEAF1_ECX_TSC_DEADLINE;
	struct cpuid_row row = {.leaf = entry->function,
				.subleaf = entry->index,
				.by_subleaf = (entry->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) != 0,
				.value = {entry->eax, entry->ebx, entry->ecx, entry->edx}};

	switch (row.leaf) {
	case 1:
		row.value[1] = (row.value[1] & 0xffff) | kvm->room << 16;
		row.value[2] = (row.value[2] & ~(apic | LEAF1_ECX_OSXSAVE)) | (kvm->can.guest_msrs ? apic : 0);
		break;
	case 7: row.value[2] &= row.subleaf ? ~0u : ~LEAF7_ECX_OSPKE; break;
	case 0xb:
	case 0x1f: row.value[3] = 0; break;
	case 0x8000001e:
		row.value[0] = 0;
		row.value[1] &= ~0xffu;
		break;
	default: break;
	}
	return row;
}

/*
 * What the device supports, but for what is ours: x2APIC mode and the TSC deadline are there where we answer for MSRs.
 * Less the paravirtual leaves, which no hardware has.
 */
int kvm_cpuid_read(struct kvm_engine *kvm)
{
	struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + KVM_CPUID_MAX * sizeof(cpuid->entries[0]));
	int error = cpuid ? 0 : -ENOMEM;

	if (!error) {
		cpuid->nent = KVM_CPUID_MAX;
		error = kvm_ioctl(kvm->device, KVM_GET_SUPPORTED_CPUID, cpuid) < 0 ? -errno : 0;
	}
	kvm->own = (struct guest_cpu){.name = "host", .apic_timer_ns = KVM_APIC_TIMER_NS};
	for (unsigned i = 0; !error && i < cpuid->nent; i++)
		if (cpuid->entries[i].function >> 28 != 4)
			kvm->own.row[kvm->own.count++] = row_of(kvm, &cpuid->entries[i]);
	free(cpuid);
	kvm->guest = kvm->own;
	kvm->amd = guest_cpu_is_amd(&kvm->guest);
	return error;
}

uint32_t kvm_cpuid(const struct kvm_engine *kvm, uint32_t leaf, uint32_t subleaf, unsigned reg)
{
	return guest_cpu_value(&kvm->guest, leaf, subleaf, reg);
}

/* KVM's clock as every engine has it: nothing else that is paravirtual. */
static int add_clock(struct kvm_engine *kvm, char *why, size_t size)
{
	struct cpuid_row *row = &kvm->own.row[kvm->own.count];
	struct cpuid_row *first = (struct cpuid_row *)(uintptr_t)guest_cpu_row(&kvm->own, 1, 0);

	if (!kvm->can.guest_msrs || !first || kvm->own.count + 2 > GUEST_CPU_ROWS) {
		snprintf(why, size, "the device lets no one answer for MSRs (KVM_CAP_X86_MSR_FILTER), so there is no kvmclock");
		return -EINVAL;
	}
	row[0] = (struct cpuid_row){.leaf = KVM_FIRST_LEAF, .value = {KVM_FIRST_LEAF + 1, 0x4b4d564b, 0x564b4d56, 0x4d}};
	row[1] = (struct cpuid_row){.leaf = KVM_FIRST_LEAF + 1, .value = {KVM_CLOCK, 0, 0, 0}};
	kvm->own.count += 2;
	first->value[2] |= LEAF1_ECX_HYPERVISOR;
	return 0;
}

/* "host", KVM's clock where it is asked for, and what is taken away. */
int kvm_cpuid_profile(struct kvm_engine *kvm, const char *profile, char *why, size_t size)
{
	static const char clock[] = "+kvmclock";
	const char *words = profile[4] ? profile + 5 : "";
	int error = 0;

	if (!strncmp(words, clock, sizeof(clock) - 1) && strchr(",", words[sizeof(clock) - 1])) {
		words += sizeof(clock) - 1;
		words += *words == ',';
		error = add_clock(kvm, why, size);
	}
	if (!error && *words)
		error = guest_cpu_mask(&kvm->own, words, why, size);

	snprintf(kvm->own.name, sizeof(kvm->own.name), "%s", profile);
	kvm->guest = kvm->own;
	return error;
}

/* ---- to a vCPU ---- */

/* Its own APIC id, where CPUID tells it. */
static struct kvm_cpuid_entry2 entry_of(const struct cpuid_row *row, uint32_t id)
{
	struct kvm_cpuid_entry2 entry = {.function = row->leaf,
					 .index = row->subleaf,
					 .flags = row->by_subleaf ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
					 .eax = row->value[0],
					 .ebx = row->value[1],
					 .ecx = row->value[2],
					 .edx = row->value[3]};

	if (row->leaf == 1) {
		entry.ebx = (entry.ebx & 0x00ffffff) | id << 24;
	} else if (row->leaf == 0xb || row->leaf == 0x1f) {
		entry.edx = id;
	} else if (row->leaf == 0x8000001e) { /* a core with one thread each */
		entry.eax = id;
		entry.ebx = (entry.ebx & ~0xffu) | (id & 0xff);
	}
	return entry;
}

int kvm_cpuid_set(struct kvm_vcpu *vcpu)
{
	const struct guest_cpu *guest = &kvm_engine_of(vcpu)->guest;
	struct kvm_cpuid2 *cpuid = calloc(1, sizeof(*cpuid) + GUEST_CPU_ROWS * sizeof(cpuid->entries[0]));
	int error;

	if (!cpuid)
		return -ENOMEM;
	for (uint32_t i = 0; i < guest->count; i++)
		if (guest->row[i].leaf < GUEST_CPU_VMX_FIRST || guest->row[i].leaf > GUEST_CPU_VMX_LAST)
			cpuid->entries[cpuid->nent++] = entry_of(&guest->row[i], vcpu->vcpu.number);
	error = kvm_ioctl(vcpu->fd, KVM_SET_CPUID2, cpuid) < 0 ? -errno : 0;
	free(cpuid);
	return error;
}

/* ---- what travels ---- */

void kvm_cpu_tell(struct engine *engine, struct guest_cpu *to)
{
	*to = kvm_of(engine)->guest;
	if (!to->tsc_khz)
		to->tsc_khz = kvm_of(engine)->tsc_khz;
}

/* Makes the TSC as fast as the guest knows it, where the processor can. */
static void scale_tsc(struct kvm_engine *kvm, uint32_t khz)
{
	for (unsigned i = 0; i < kvm->count; i++)
		if (kvm_ioctl(kvm->vcpu[i].fd, KVM_SET_TSC_KHZ, (void *)(uintptr_t)khz) < 0)
			return;
	kvm->tsc_khz = khz;
}

static int set_all(struct kvm_engine *kvm)
{
	int error = 0;

	kvm->amd = guest_cpu_is_amd(&kvm->guest);
	for (unsigned i = 0; i < kvm->count && !error; i++) {
		error = kvm_cpuid_set(&kvm->vcpu[i]);
		if (!error)
			error = kvm_vcpu_changed(&kvm->vcpu[i]);
	}
	return error;
}

int kvm_cpu_take(struct engine *engine, const struct guest_cpu *from, char *why, size_t size)
{
	struct kvm_engine *kvm = kvm_of(engine);
	struct guest_cpu here = kvm->own;
	int error;

	if (from->tsc_khz && kvm->tsc_khz != from->tsc_khz)
		scale_tsc(kvm, from->tsc_khz);
	here.tsc_khz = kvm->tsc_khz;
	error = guest_cpu_check(from, &here, why, size);
	if (error)
		return error;
	kvm->guest = *from;
	error = set_all(kvm);
	if (!error)
		return 0;
	snprintf(why, size, "the device refuses the guest's CPUID: %s", strerror(-error));
	kvm->guest = kvm->own;
	set_all(kvm);
	return -EINVAL;
}
