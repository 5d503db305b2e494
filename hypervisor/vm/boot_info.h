/*
 * boot_info.h: the structures through which a loader tells a guest of its memory, command
 * line and initrd: multiboot information, or PVH's hvm_start_info.
 */
#ifndef TRAPLINE_VM_BOOT_INFO_H
#define TRAPLINE_VM_BOOT_INFO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct boot_info_request {
	bool pvh;
	uint32_t address;  /* guest-physical, of a page */
	const char *image; /* its path: multiboot's command line begins with the name */
	const char *append;
	uint64_t memory, rom, initrd_size; /* bytes */
};

struct boot_info {
	uint8_t *data; /* to be placed at the address asked for; freed by the caller */
	size_t size;
	uint64_t initrd; /* guest-physical address where the initrd goes: a page */
};

/* Bytes from the address to where the initrd goes. */
uint64_t boot_info_room(const struct boot_info_request *request);
/* 0, -ENOMEM. */
int boot_info_make(struct boot_info *info, const struct boot_info_request *request);

#endif
