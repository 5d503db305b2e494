/* Slots of guest memory, and which of their pages were written: by vCPUs (the kernel's log) or by us. */
#include "engine/kvm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "x86/paging.h"

/* Where no one keeps memory: see kvm_device.c for what lies above. */
#define SPARE_ADDRESS 0xfeff0000ull

static size_t log_words(const struct kvm_slot *slot) { return (slot->size / PAGE_SIZE + 63) / 64; }

static int add_pages_room(struct kvm_engine *kvm, uint64_t size)
{
	size_t room = kvm->page_room + size / PAGE_SIZE;
	uint64_t *pages = realloc(kvm->pages, room * sizeof(*pages));

	if (!pages)
		return -ENOMEM;
	kvm->pages = pages;
	kvm->page_room = room;
	return 0;
}

/* The number of a slot in one of the address spaces: the second is what a processor sees in SMM. */
static uint32_t slot_number(unsigned index, unsigned space) { return index | space << 16; }

static int set_region(struct kvm_engine *kvm, unsigned index)
{
	const struct kvm_slot *slot = &kvm->slot[index];
	struct kvm_userspace_memory_region region = {.flags = slot->read_only ? KVM_MEM_READONLY
									      : KVM_MEM_LOG_DIRTY_PAGES,
						     .guest_phys_addr = slot->base,
						     .memory_size = slot->size,
						     .userspace_addr = (uintptr_t)slot->host};

	for (unsigned space = 0; space < kvm->address_spaces; space++) {
		region.slot = slot_number(index, space);
		if (ioctl(kvm->vm, KVM_SET_USER_MEMORY_REGION, &region))
			return -errno;
	}
	return 0;
}

int kvm_memory_add(struct engine *engine, uint64_t base, uint64_t size, void *host, bool read_only)
{
	struct kvm_engine *kvm = kvm_of(engine);
	struct kvm_slot *slot = &kvm->slot[kvm->slot_count];
	int error;

	if (base % PAGE_SIZE || size % PAGE_SIZE || size == 0 || base + size < base)
		return -EINVAL;
	for (unsigned i = 0; i < kvm->slot_count; i++)
		if (base < kvm->slot[i].base + kvm->slot[i].size && kvm->slot[i].base < base + size)
			return -EINVAL;
	if (kvm->slot_count == KVM_SLOTS_MAX)
		return -ENOSPC;
	*slot = (struct kvm_slot){.base = base, .size = size, .host = host, .read_only = read_only};
	slot->log = calloc(log_words(slot), sizeof(*slot->log));
	slot->written = calloc(log_words(slot), sizeof(*slot->written));
	error = slot->log && slot->written ? add_pages_room(kvm, size) : -ENOMEM;
	if (!error)
		error = set_region(kvm, kvm->slot_count);
	if (error) {
		free(slot->log);
		free(slot->written);
		return error;
	}
	kvm->slot_count++;
	return 0;
}

void kvm_memory_free(struct kvm_engine *kvm)
{
	for (unsigned i = 0; i < kvm->slot_count; i++) {
		free(kvm->slot[i].log);
		free(kvm->slot[i].written);
	}
	free(kvm->pages);
}

static struct kvm_slot *slot_at(const struct kvm_engine *kvm, uint64_t address, size_t size)
{
	for (unsigned i = 0; i < kvm->slot_count; i++) {
		const struct kvm_slot *slot = &kvm->slot[i];

		if (address >= slot->base && address - slot->base < slot->size &&
		    size <= slot->size - (address - slot->base))
			return (struct kvm_slot *)slot;
	}
	return NULL;
}

const uint8_t *kvm_memory_at(const struct kvm_engine *kvm, uint64_t address, size_t size)
{
	const struct kvm_slot *slot = slot_at(kvm, address, size);

	return slot ? slot->host + (address - slot->base) : NULL;
}

bool kvm_memory_write(struct engine *engine, uint64_t address, const void *from, size_t size)
{
	struct kvm_slot *slot = slot_at(kvm_of(engine), address, size);

	if (!slot || slot->read_only)
		return false;
	if (size == 0)
		return true;
	memcpy(slot->host + (address - slot->base), from, size);
	for (uint64_t page = (address - slot->base) / PAGE_SIZE;
	     page <= (address - slot->base + size - 1) / PAGE_SIZE; page++)
		slot->written[page / 64] |= 1ull << (page % 64);
	return true;
}

/* ---- the log ---- */

/* Takes over what the kernel has logged since it was last asked; asking clears it there. */
static void collect(struct kvm_engine *kvm, unsigned index)
{
	struct kvm_slot *slot = &kvm->slot[index];
	size_t words = log_words(slot);

	if (slot->read_only)
		return;
	for (unsigned space = 0; space < kvm->address_spaces; space++) {
		struct kvm_dirty_log log = {.slot = slot_number(index, space), .dirty_bitmap = slot->log};

		if (ioctl(kvm->vm, KVM_GET_DIRTY_LOG, &log)) {
			/* Unknown what was written: all of it may be. */
			memset(slot->written, 0xff, words * sizeof(*slot->written));
			return;
		}
		for (size_t i = 0; i < words; i++)
			slot->written[i] |= slot->log[i];
	}
}

void kvm_dirty_pages(struct engine *engine, const uint64_t **pages, size_t *count)
{
	struct kvm_engine *kvm = kvm_of(engine);

	*count = 0;
	*pages = kvm->pages;
	for (unsigned i = 0; i < kvm->slot_count; i++) {
		const struct kvm_slot *slot = &kvm->slot[i];

		collect(kvm, i);
		for (size_t word = 0; word < log_words(slot); word++)
			for (uint64_t left = slot->written[word]; left; left &= left - 1) {
				size_t page = word * 64 + (size_t)__builtin_ctzll(left);

				if (page < slot->size / PAGE_SIZE)
					kvm->pages[(*count)++] = slot->base + page * PAGE_SIZE;
			}
	}
}

void kvm_dirty_reset(struct engine *engine)
{
	struct kvm_engine *kvm = kvm_of(engine);

	for (unsigned i = 0; i < kvm->slot_count; i++) {
		collect(kvm, i);
		memset(kvm->slot[i].written, 0, log_words(&kvm->slot[i]) * sizeof(*kvm->slot[i].written));
	}
}

/*
 * A kernel that shadows the guest's page tables notices guest writes to them, not ours: it would go on
 * translating by what we have overwritten. Deleting a slot makes it drop all that it has derived.
 */
static void drop_shadows(struct kvm_engine *kvm)
{
	static const uint64_t spare[PAGE_SIZE / sizeof(uint64_t)] __attribute__((aligned(PAGE_SIZE)));
	struct kvm_userspace_memory_region region = {.slot = KVM_SLOTS_MAX,
						     .flags = KVM_MEM_READONLY,
						     .guest_phys_addr = SPARE_ADDRESS,
						     .memory_size = PAGE_SIZE,
						     .userspace_addr = (uintptr_t)spare};

	ioctl(kvm->vm, KVM_SET_USER_MEMORY_REGION, &region);
	region.memory_size = 0;
	ioctl(kvm->vm, KVM_SET_USER_MEMORY_REGION, &region);
}

bool kvm_memory_replace(struct engine *engine, uint64_t address, const void *page)
{
	struct kvm_engine *kvm = kvm_of(engine);
	struct kvm_slot *slot = slot_at(kvm, address, PAGE_SIZE);

	if (!slot || slot->read_only || address % PAGE_SIZE)
		return false;
	memcpy(slot->host + (address - slot->base), page, PAGE_SIZE);
	if (kvm->shadows)
		drop_shadows(kvm);
	return true;
}

static void restore_slot(struct kvm_slot *slot, const uint8_t *image, uint64_t size)
{
	for (size_t word = 0; word < log_words(slot); word++) {
		for (uint64_t left = slot->written[word]; left; left &= left - 1) {
			uint64_t offset = (word * 64 + (uint64_t)__builtin_ctzll(left)) * PAGE_SIZE;

			if (offset < size && offset < slot->size)
				memcpy(slot->host + offset, image + offset, PAGE_SIZE);
		}
		slot->written[word] = 0;
	}
}

void kvm_dirty_restore(struct engine *engine, const uint8_t *image, uint64_t size)
{
	struct kvm_engine *kvm = kvm_of(engine);

	for (unsigned i = 0; i < kvm->slot_count; i++) {
		struct kvm_slot *slot = &kvm->slot[i];
		uint64_t part = slot->size < size ? slot->size : size;

		if (slot->read_only)
			continue;
		collect(kvm, i);
		restore_slot(slot, image, part);
		image += part;
		size -= part;
	}
	if (kvm->shadows)
		drop_shadows(kvm);
}
