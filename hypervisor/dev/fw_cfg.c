#include "dev/fw_cfg.h"

#include <errno.h>
#include <string.h>

#define ID_TRADITIONAL 1u
#define ID_DMA         2u
#define KEY_WRITE      0x4000u
#define KEY_INDEX      0x3fffu

/* The first word of a DMA request. */
#define DMA_ERROR     0x01u
#define DMA_READ      0x02u
#define DMA_SKIP      0x04u
#define DMA_SELECT    0x08u
#define DMA_WRITE     0x10u
#define DMA_KEY_SHIFT 16

#define DMA_OFFSET    4u                  /* of the DMA register, from FW_CFG_PORT */
#define DMA_SIGNATURE 0x51454d5520434647u /* "QEMU CFG", as the register reads */

static const struct state_field fields[] = {STATE(struct fw_cfg, key), STATE(struct fw_cfg, offset),
					    STATE(struct fw_cfg, dma_address)};
STATE_TABLE(fw_cfg_state, "fw_cfg", 1, fields);

/* ---- items ---- */

static const struct fw_cfg_item *selected(const struct fw_cfg *fw_cfg)
{
	static const struct fw_cfg_item none;
	unsigned index = fw_cfg->key & KEY_INDEX;

	if (fw_cfg->key & FW_CFG_ARCH_LOCAL)
		return index == (FW_CFG_IRQ0_OVERRIDE & KEY_INDEX) ? &fw_cfg->irq0_override : &none;
	return index < FW_CFG_ITEMS ? &fw_cfg->item[index] : &none;
}

void fw_cfg_set(struct fw_cfg *fw_cfg, enum fw_cfg_key key, const void *data, size_t size)
{
	fw_cfg->item[key].data = data;
	fw_cfg->item[key].size = (uint32_t)size;
}

static void set_number(struct fw_cfg_item *item, uint64_t value, unsigned size)
{
	memcpy(item->number, &value, sizeof(item->number));
	item->data = NULL;
	item->size = size;
}

void fw_cfg_set_number(struct fw_cfg *fw_cfg, enum fw_cfg_key key, uint64_t value, unsigned size)
{
	set_number(&fw_cfg->item[key], value, size);
}

static void put_be(uint8_t *to, uint64_t value, unsigned size)
{
	for (unsigned i = 0; i < size; i++)
		to[i] = (uint8_t)(value >> (8 * (size - 1 - i)));
}

static uint64_t get_be(const uint8_t *from, unsigned size)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < size; i++)
		value = value << 8 | from[i];
	return value;
}

/* The directory: a count, then size, key, two reserved bytes and the name of each file. */
static void make_directory(struct fw_cfg *fw_cfg)
{
	memset(fw_cfg->directory, 0, sizeof(fw_cfg->directory));
	put_be(fw_cfg->directory, fw_cfg->files, 4);
	for (unsigned i = 0; i < fw_cfg->files; i++) {
		const struct fw_cfg_item *file = &fw_cfg->item[FW_CFG_FILE_FIRST + i];
		uint8_t *to = fw_cfg->directory + 4 + 64 * i;

		put_be(to, file->size, 4);
		put_be(to + 4, FW_CFG_FILE_FIRST + i, 2);
		memcpy(to + 8, file->name, sizeof(file->name));
	}
	fw_cfg_set(fw_cfg, FW_CFG_FILE_DIR, fw_cfg->directory, 4 + 64 * fw_cfg->files);
}

int fw_cfg_add_file(struct fw_cfg *fw_cfg, const char *name, const void *data, size_t size)
{
	struct fw_cfg_item *file = &fw_cfg->item[FW_CFG_FILE_FIRST];
	unsigned at = 0;

	if (strlen(name) >= sizeof(file->name))
		return -ENAMETOOLONG;
	if (fw_cfg->files == FW_CFG_FILES)
		return -ENOSPC;
	while (at < fw_cfg->files && strcmp(file[at].name, name) < 0)
		at++;
	if (at < fw_cfg->files && strcmp(file[at].name, name) == 0)
		return -EEXIST;
	memmove(&file[at + 1], &file[at], (fw_cfg->files - at) * sizeof(*file));
	file[at] = (struct fw_cfg_item){.data = data, .size = (uint32_t)size};
	strcpy(file[at].name, name);
	fw_cfg->files++;
	make_directory(fw_cfg);
	return 0;
}

/* ---- the selector and data ---- */

static void select_key(struct fw_cfg *fw_cfg, uint16_t key)
{
	/* The write channel is gone since QEMU 2.4: its bit changes nothing. */
	fw_cfg->key = key & (uint16_t)~KEY_WRITE;
	fw_cfg->offset = 0;
}

static uint8_t next_byte(struct fw_cfg *fw_cfg)
{
	const struct fw_cfg_item *item = selected(fw_cfg);

	if (fw_cfg->offset >= item->size)
		return 0;
	return (item->data ? item->data : item->number)[fw_cfg->offset++];
}

static uint64_t port_read(void *device, uint64_t offset, unsigned size)
{
	(void)offset;
	return size == 1 ? next_byte(device) : 0;
}

static void port_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
	if (offset == 0 && size == 2)
		select_key(device, (uint16_t)value);
	/* A byte to the data port changes nothing: no item can be written. */
}

/* ---- DMA ---- */

/* Sends bytes of the item, zeros behind its end, to memory. */
static bool transfer_read(struct fw_cfg *fw_cfg, uint64_t address, uint64_t size)
{
	uint8_t piece[4096];

	while (size) {
		size_t part = size < sizeof(piece) ? (size_t)size : sizeof(piece);

		for (size_t i = 0; i < part; i++)
			piece[i] = next_byte(fw_cfg);
		if (!fw_cfg->dma->write(fw_cfg->dma->owner, address, piece, part))
			return false;
		address += part;
		size -= part;
	}
	return true;
}

static void skip(struct fw_cfg *fw_cfg, uint64_t size)
{
	uint64_t left = selected(fw_cfg)->size - (uint64_t)fw_cfg->offset;

	fw_cfg->offset += (uint32_t)(size < left ? size : left);
}

/* The request's structure: control, length, address, big-endian. Control is written back when it is done. */
static void perform_dma(struct fw_cfg *fw_cfg)
{
	uint64_t at = fw_cfg->dma_address;
	const uint8_t *found = fw_cfg->dma->read(fw_cfg->dma->owner, at, 16);
	uint8_t request[16], answer[4];
	uint32_t control, result = 0;

	fw_cfg->dma_address = 0;
	if (!found)
		return; /* nowhere to say so */
	memcpy(request, found, sizeof(request));
	control = (uint32_t)get_be(request, 4);
	if (control & DMA_SELECT)
		select_key(fw_cfg, (uint16_t)(control >> DMA_KEY_SHIFT));
	if (control & DMA_READ) {
		if (!transfer_read(fw_cfg, get_be(request + 8, 8), get_be(request + 4, 4)))
			result = DMA_ERROR;
	} else if (control & DMA_WRITE) {
		result = DMA_ERROR;
	} else if (control & DMA_SKIP) {
		skip(fw_cfg, get_be(request + 4, 4));
	}
	put_be(answer, result, 4);
	fw_cfg->dma->write(fw_cfg->dma->owner, at, answer, sizeof(answer));
}

/* The register is big-endian: its bytes in port order are the address from the top. Writing its lower half
 * starts. */
static uint64_t dma_read(void *device, uint64_t offset, unsigned size)
{
	uint8_t bytes[8];
	uint64_t value = 0;

	(void)device;
	put_be(bytes, DMA_SIGNATURE, 8);
	memcpy(&value, bytes + offset, size);
	return value;
}

static void dma_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct fw_cfg *fw_cfg = device;
	uint8_t bytes[4];

	if (size != 4 || offset % 4)
		return; /* only whole halves are the register's */
	memcpy(bytes, &value, 4);
	if (offset == 0) {
		fw_cfg->dma_address = get_be(bytes, 4) << 32;
	} else {
		fw_cfg->dma_address |= get_be(bytes, 4);
		perform_dma(fw_cfg);
	}
}

static const struct bus_ops port_ops = {.name = "fw_cfg", .width = 2, .read = port_read, .write = port_write};
static const struct bus_ops dma_ops = {
	.name = "fw_cfg DMA", .width = 4, .read = dma_read, .write = dma_write};

int fw_cfg_attach(struct fw_cfg *fw_cfg, struct bus *bus)
{
	int error = bus_claim_ports(bus, FW_CFG_PORT, 2, &port_ops, fw_cfg);

	if (!error && fw_cfg->dma)
		error = bus_claim_ports(bus, FW_CFG_PORT + DMA_OFFSET, 8, &dma_ops, fw_cfg);
	return error;
}

/* ---- life ---- */

void fw_cfg_init(struct fw_cfg *fw_cfg, uint64_t memory, unsigned cpus, unsigned max_cpus,
		 const struct dma *dma)
{
	static const uint8_t no_uuid[16];

	fw_cfg->dma = dma;
	fw_cfg_set(fw_cfg, FW_CFG_SIGNATURE, "QEMU", 4);
	fw_cfg_set_number(fw_cfg, FW_CFG_ID, ID_TRADITIONAL | (dma ? ID_DMA : 0), 4);
	fw_cfg_set(fw_cfg, FW_CFG_UUID, no_uuid, sizeof(no_uuid));
	fw_cfg_set_number(fw_cfg, FW_CFG_RAM_SIZE, memory, 8);
	fw_cfg_set_number(fw_cfg, FW_CFG_NOGRAPHIC, 1, 2);
	fw_cfg_set_number(fw_cfg, FW_CFG_NB_CPUS, cpus, 2);
	fw_cfg_set_number(fw_cfg, FW_CFG_MAX_CPUS, max_cpus, 2);
	fw_cfg_set_number(fw_cfg, FW_CFG_BOOT_MENU, 0, 2);
	set_number(&fw_cfg->irq0_override, 1, 4);
	make_directory(fw_cfg);
	fw_cfg_reset(fw_cfg);
}

void fw_cfg_reset(struct fw_cfg *fw_cfg)
{
	select_key(fw_cfg, FW_CFG_SIGNATURE);
	fw_cfg->dma_address = 0;
}
