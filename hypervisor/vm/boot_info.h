/*
 * boot_info.h: the structures through which a loader tells a guest of its memory, command
 * line and modules: multiboot information, or PVH's hvm_start_info.
 */
#ifndef TRAPLINE_VM_BOOT_INFO_H
#define TRAPLINE_VM_BOOT_INFO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vm/boot.h"

#define BOOT_INFO_SIZE 4096u

/* Addresses are guest-physical. */
struct boot_info_request {
	bool pvh;
	uint32_t address, text; /* where the structures and the command line go */
	const char *image;      /* its path: multiboot's command line begins with the name */
	const char *append;
	uint64_t memory, rom; /* bytes */
	uint64_t rsdp;        /* 0: the guest looks for it */
	struct boot_info_module {
		uint32_t address;
		uint64_t size;
		const char *name; /* its path */
		const char *arguments;
	} module[BOOT_MODULES_MAX];
	unsigned modules;
};

/* Fills @info, which goes to request->address. */
void boot_info_make(const struct boot_info_request *request, uint8_t info[BOOT_INFO_SIZE]);
/* The command line and those of the modules, each with its final zero: how long they are, and the text
 * itself. */
size_t boot_info_text_size(const struct boot_info_request *request);
void boot_info_text(const struct boot_info_request *request, char *to);

#endif
