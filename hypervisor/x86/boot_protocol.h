/*
 * boot_protocol.h: what a loader and a bare-metal guest agree on: multiboot 0.6.96 (chapter 3) and the
 * x86/HVM direct boot ABI of Xen (PVH; start_info version 1). Addresses are guest-physical.
 */
#ifndef TRAPLINE_X86_BOOT_PROTOCOL_H
#define TRAPLINE_X86_BOOT_PROTOCOL_H

#include <stdint.h>

/* The header, 4-byte aligned within the first MULTIBOOT_SEARCH bytes of the file (section 3.1). */
#define MULTIBOOT_SEARCH      8192u
#define MULTIBOOT_MAGIC       0x1badb002u
#define MULTIBOOT_PAGE_ALIGN  (1u << 0)
#define MULTIBOOT_MEMORY_INFO (1u << 1)
#define MULTIBOOT_ADDRESSES   (1u << 16)
#define MULTIBOOT_REQUIRED    0xffffu /* a loader that does not know one of these must refuse */

struct multiboot_header {
	uint32_t magic, flags, checksum;
	uint32_t header_addr, load_addr, load_end_addr, bss_end_addr, entry_addr;
};

/* In EAX at the entry; EBX is the address of the information (sections 3.2 and 3.3). */
#define MULTIBOOT_LOADED 0x2badb002u

#define MULTIBOOT_INFO_MEMORY  (1u << 0)
#define MULTIBOOT_INFO_CMDLINE (1u << 2)
#define MULTIBOOT_INFO_MODULES (1u << 3)
#define MULTIBOOT_INFO_MMAP    (1u << 6)
#define MULTIBOOT_INFO_LOADER  (1u << 9)

struct multiboot_info {
	uint32_t flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods_addr;
	uint32_t syms[4], mmap_length, mmap_addr, drives_length, drives_addr, config_table, boot_loader_name;
	uint32_t apm_table, vbe[4];
};

struct multiboot_module {
	uint32_t start, end, string, reserved;
};
struct multiboot_mmap {
	uint32_t size; /* of the rest */
	uint64_t base, length;
	uint32_t type;
} __attribute__((packed));

/* EBX at the PVH entry is its address. */
struct start_info {
	uint32_t magic, version, flags, nr_modules;
	uint64_t modlist, cmdline, rsdp, memmap;
	uint32_t memmap_entries, reserved;
};
#define START_INFO_MAGIC 0x336ec578u
struct start_info_module {
	uint64_t address, size, cmdline, reserved;
};
struct start_info_memmap {
	uint64_t base, length;
	uint32_t type, reserved;
};

#endif
