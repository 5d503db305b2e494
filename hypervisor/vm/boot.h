/*
 * boot.h: puts an image into a machine and its vCPU where the image's contract wants it.
 *
 *   PVH          an ELF file with the note XEN_ELFNOTE_PHYS32_ENTRY: its segments, and
 *                EBX = hvm_start_info (Xen's x86/HVM direct boot ABI)
 *   multiboot1   a header in the first 8 KiB: the load addresses that it gives (flag 16) or
 *                the ELF file's segments; EAX = magic, EBX = information
 *   ROM          anything else of whole pages: below 4 GiB, from the reset vector
 *
 * The first two start in 32-bit flat protected mode without paging. What the loader gives the
 * guest stands behind the last byte of the image, rounded up to a page; the initrd follows.
 */
#ifndef TRAPLINE_VM_BOOT_H
#define TRAPLINE_VM_BOOT_H

#include "vm/image.h"
#include "vm/machine.h"

struct boot_options {
	const char *append; /* command line, without the image's name; NULL for none */
	const uint8_t *initrd;
	size_t initrd_size; /* 0 for none */
};

/* 0, or -EINVAL with @why saying what is wrong with the image, or -ENOMEM. */
int boot_image(struct machine *machine, const struct image *image, const struct boot_options *options,
	       char *why, size_t size);

#endif
