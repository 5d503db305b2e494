/* boot_internal.h: what the kinds of boot.c and boot_linux.c share. */
#ifndef TRAPLINE_VM_BOOT_INTERNAL_H
#define TRAPLINE_VM_BOOT_INTERNAL_H

#include "vm/boot.h"

struct loader {
	struct machine *machine;
	const struct image *image;
	const struct boot_options *options;
	uint64_t end;  /* of what has been loaded */
	bool low_used; /* the page for the information is the image's own */
	char *why;
	size_t size;
};

/* -EINVAL, with @what as the reason. */
int boot_bad(struct loader *loader, const char *what);
/* Loads @file_size bytes of @data at @address, where they and zeros take @size bytes below 4 GiB. 0, -EINVAL.
 */
int boot_place(struct loader *loader, uint64_t address, const void *data, uint64_t file_size, uint64_t size);

/* The first vCPU's state with flat 32-bit segments in protected mode without paging, all registers zero. */
void boot_flat_state(struct loader *loader, struct vcpu_state *state);
int boot_enter(struct loader *loader, const struct vcpu_state *state);

/* What a PC's firmware leaves in memory below 1 MiB (boot_firmware.c). */
void boot_place_firmware(struct machine *machine);

/* boot_linux.c */
bool boot_is_linux(const struct image *image);
int boot_linux(struct loader *loader);

#endif
