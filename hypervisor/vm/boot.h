/*
 * boot.h: puts an image into a machine and its vCPU where the image's contract wants it.
 *
 *   Linux        a bzImage (boot protocol 2.06 and later), entered in 64-bit mode where it says that it can
 *                be, otherwise in 32-bit mode; ESI = the zero page (boot_linux.c)
 *   multiboot1   a header in the first 8 KiB: the load addresses that it gives (flag 16) or
 *                the ELF file's segments; EAX = magic, EBX = information
 *   PVH          an ELF file with the note XEN_ELFNOTE_PHYS32_ENTRY: its segments, and
 *                EBX = hvm_start_info (Xen's x86/HVM direct boot ABI)
 *   ROM          anything else of whole pages: below 4 GiB, from the reset vector
 *
 * The kinds are tried in this order. Multiboot and PVH start in 32-bit flat protected mode without paging;
 * command line and modules stand behind the last byte of the image, each on a page of its own, and the
 * structures that tell of them at 0x9000, or, where the image has that page, behind it as well. Linux takes
 * one module, which is its initrd; a ROM takes none.
 */
#ifndef TRAPLINE_VM_BOOT_H
#define TRAPLINE_VM_BOOT_H

#include "vm/image.h"
#include "vm/machine.h"

/* Xen, for one, takes a kernel, its initrd, microcode and a policy. */
#define BOOT_MODULES_MAX 8u

/* What a guest is given besides the image. The caller keeps all of it until boot_image() is back. */
struct boot_module {
	const uint8_t *data;
	size_t size;
	const char *name;      /* its path; NULL for none */
	const char *arguments; /* a command line of its own; NULL for none */
};

struct boot_options {
	const char *append; /* command line, without the image's name; NULL for none */
	struct boot_module module[BOOT_MODULES_MAX];
	unsigned modules;
	uint64_t seed; /* of what is random to the guest */
};

/* 0, or -EINVAL with @why saying what is wrong with the image, or -ENOMEM. */
int boot_image(struct machine *machine, const struct image *image, const struct boot_options *options,
	       char *why, size_t size);

#endif
