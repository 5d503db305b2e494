/*
 * fw_cfg.h: QEMU's firmware configuration device (QEMU's docs/specs/fw_cfg): a selector at 0x510, data at
 * 0x511, and the DMA interface at 0x514.
 *
 * An item is bytes that the owner keeps (borrowed) or a small number kept here. Keys without an item, and
 * bytes behind an item's end, read as zeros. No item can be written.
 */
#ifndef TRAPLINE_DEV_FW_CFG_H
#define TRAPLINE_DEV_FW_CFG_H

#include "dev/bus.h"
#include "dev/dma.h"
#include "dev/state.h"

#define FW_CFG_PORT  0x510
#define FW_CFG_FILES 24u
#define FW_CFG_ITEMS (0x20u + FW_CFG_FILES)

/* Keys by QEMU's names, less the prefix FW_CFG_. */
enum fw_cfg_key {
	FW_CFG_SIGNATURE,
	FW_CFG_ID,
	FW_CFG_UUID,
	FW_CFG_RAM_SIZE,
	FW_CFG_NOGRAPHIC,
	FW_CFG_NB_CPUS,
	FW_CFG_MACHINE_ID,
	FW_CFG_KERNEL_ADDR,
	FW_CFG_KERNEL_SIZE,
	FW_CFG_KERNEL_CMDLINE,
	FW_CFG_INITRD_ADDR,
	FW_CFG_INITRD_SIZE,
	FW_CFG_BOOT_DEVICE,
	FW_CFG_NUMA,
	FW_CFG_BOOT_MENU,
	FW_CFG_MAX_CPUS,
	FW_CFG_KERNEL_ENTRY,
	FW_CFG_KERNEL_DATA,
	FW_CFG_INITRD_DATA,
	FW_CFG_CMDLINE_ADDR,
	FW_CFG_CMDLINE_SIZE,
	FW_CFG_CMDLINE_DATA,
	FW_CFG_SETUP_ADDR,
	FW_CFG_SETUP_SIZE,
	FW_CFG_SETUP_DATA,
	FW_CFG_FILE_DIR,
	FW_CFG_FILE_FIRST = 0x20,
	FW_CFG_ARCH_LOCAL =
		0x8000 /* a bit of the selector: items of the architecture, of which there is one */
};
#define FW_CFG_IRQ0_OVERRIDE (FW_CFG_ARCH_LOCAL + 2)

struct fw_cfg_item {
	const uint8_t *data;
	uint32_t size;
	uint8_t number[8]; /* what @data is of a small number */
	char name[56];     /* files */
};

struct fw_cfg {
	uint16_t key;
	uint32_t offset;
	uint64_t dma_address;

	/* Not the machine's state: what it was made with. */
	struct fw_cfg_item item[FW_CFG_ITEMS], irq0_override;
	unsigned files;
	uint8_t directory[4 + 64 * FW_CFG_FILES];
	const struct dma *dma; /* NULL: there is no DMA, and ID says so */
};

extern const struct state_table fw_cfg_state;

/* The items that every machine has. @fw_cfg was zero; @dma is borrowed. */
void fw_cfg_init(struct fw_cfg *fw_cfg, uint64_t memory, unsigned cpus, unsigned max_cpus,
		 const struct dma *dma);
void fw_cfg_reset(struct fw_cfg *fw_cfg);
/* @data is borrowed. */
void fw_cfg_set(struct fw_cfg *fw_cfg, enum fw_cfg_key key, const void *data, size_t size);
void fw_cfg_set_number(struct fw_cfg *fw_cfg, enum fw_cfg_key key, uint64_t value, unsigned size);
/* A file of the directory, which stays sorted by name, as QEMU has it. 0, -ENOSPC, -EEXIST, -ENAMETOOLONG. */
int fw_cfg_add_file(struct fw_cfg *fw_cfg, const char *name, const void *data, size_t size);
/* As bus_claim_ports(). */
int fw_cfg_attach(struct fw_cfg *fw_cfg, struct bus *bus);

#endif
