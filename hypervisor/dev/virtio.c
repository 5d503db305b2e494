#include "dev/virtio.h"

#include <errno.h>
#include <string.h>

/* The regions of base address register 4 (4.1.4). */
#define REGIONS_BAR   4u
#define MSIX_BAR      1u
#define REGIONS_SIZE  0x4000u
#define COMMON        0x0000u
#define ISR           0x1000u
#define DEVICE_CONFIG 0x2000u
#define NOTIFY        0x3000u
#define REGION_SIZE   0x1000u
#define NOTIFY_STRIDE 4u

#define VENDOR         0x1af4
#define DEVICE_BASE    0x1040
#define REVISION       1
#define NO_VECTOR      0xffff
#define ISR_QUEUE      1u
#define ISR_CONFIG     2u
#define VIRTQUEUE_SIZE 128u /* after a reset */

/* struct virtio_pci_cap (4.1.4). */
#define CAPABILITY_VENDOR 0x09
enum { CAP_COMMON = 1, CAP_NOTIFY, CAP_ISR, CAP_DEVICE, CAP_PCI };
#define CAP_LENGTH     2 /* offsets in the capability */
#define CAP_TYPE       3
#define CAP_BAR        4
#define CAP_OFFSET     8
#define CAP_SIZE       12
#define CAP_MULTIPLIER 16
#define CAP_DATA       16

/* struct virtio_pci_common_cfg (4.1.4.3). */
enum {
	DEVICE_FEATURE_SELECT = 0x00,
	DEVICE_FEATURE = 0x04,
	DRIVER_FEATURE_SELECT = 0x08,
	DRIVER_FEATURE = 0x0c,
	CONFIG_VECTOR = 0x10,
	NUM_QUEUES = 0x12,
	DEVICE_STATUS = 0x14,
	CONFIG_GENERATION = 0x15,
	QUEUE_SELECT = 0x16,
	QUEUE_SIZE = 0x18,
	QUEUE_VECTOR = 0x1a,
	QUEUE_ENABLE = 0x1c,
	QUEUE_NOTIFY_OFF = 0x1e,
	QUEUE_DESC = 0x20,
	QUEUE_DRIVER = 0x28,
	QUEUE_DEVICE = 0x30,
	COMMON_END = 0x38,
};

/* ---- interrupts ---- */

static void raise(struct virtio *virtio, uint8_t isr, uint16_t vector)
{
	if (msix_enabled(&virtio->msix)) {
		msix_send(&virtio->msix, vector);
		return;
	}
	virtio->isr |= isr;
	pci_interrupt(&virtio->function, true);
}

void virtio_broken(struct virtio *virtio)
{
	if (virtio->status & VIRTIO_NEEDS_RESET)
		return;
	virtio->status |= VIRTIO_NEEDS_RESET;
	if (virtio->status & VIRTIO_DRIVER_OK)
		raise(virtio, ISR_CONFIG, virtio->config_vector);
}

void virtio_interrupt(struct virtio *virtio, unsigned index)
{
	struct virtqueue *queue = &virtio->queue[index];
	int wanted = virtqueue_wants_interrupt(queue);

	if (wanted < 0)
		virtio_broken(virtio);
	else if (wanted)
		raise(virtio, ISR_QUEUE, queue->vector);
}

/* ---- queues ---- */

bool virtio_live(const struct virtio *virtio, unsigned index)
{
	return (virtio->status & VIRTIO_DRIVER_OK) && !(virtio->status & VIRTIO_NEEDS_RESET) &&
	       pci_is_master(&virtio->function) && virtio->queue[index].enabled;
}

void virtio_work(struct virtio *virtio, unsigned index)
{
	struct virtqueue *queue = &virtio->queue[index];
	static _Thread_local struct virtqueue_chain chain; /* large, and dead between two calls */
	bool any = false;
	int got = 0;

	/* As many as the ring holds: who adds more meanwhile says so again. */
	for (unsigned n = 0; n <= queue->size && virtio_live(virtio, index); n++) {
		int64_t written;

		got = virtqueue_take(queue, &chain);
		if (got <= 0)
			break;
		written = virtio->type->request(virtio, index, &chain);
		if (written < 0 || virtqueue_return(queue, &chain, (uint32_t)written)) {
			got = -EIO;
			break;
		}
		any = true;
	}
	if (got < 0)
		virtio_broken(virtio);
	else if (any)
		virtio_interrupt(virtio, index);
}

static void set_up_queues(struct virtio *virtio)
{
	for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++) {
		struct virtqueue *queue = &virtio->queue[i];

		queue->dma = &virtio->dma;
		queue->event_index = virtio->driver_features & VIRTIO_F_EVENT_IDX;
		queue->indirect = virtio->driver_features & VIRTIO_F_INDIRECT_DESC;
	}
}

void virtio_loaded(struct virtio *virtio) { set_up_queues(virtio); }

/* Where rings are is checked at each use, and so is what the rest leads to. */
const char *virtio_wrong(const struct virtio *fields)
{
	for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++) {
		const struct virtqueue *queue = &fields->queue[i];

		if (queue->enabled && (!queue->size || queue->size & (queue->size - 1) || queue->size > VIRTQUEUE_SIZE_MAX))
			return "queue size";
	}
	return NULL;
}

/* ---- the common configuration ---- */

static void device_reset(struct virtio *virtio)
{
	virtio->driver_features = 0;
	virtio->device_feature_select = virtio->driver_feature_select = 0;
	virtio->queue_select = 0;
	virtio->config_vector = NO_VECTOR;
	virtio->status = virtio->isr = 0;
	for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++)
		virtio->queue[i] = (struct virtqueue){.size = VIRTQUEUE_SIZE, .vector = NO_VECTOR};
	set_up_queues(virtio);
	pci_interrupt(&virtio->function, false);
}

/* Bits are only added, but for 0, which resets (2.1.2); features are taken or refused once (2.2.2). */
static void write_status(struct virtio *virtio, uint8_t value)
{
	if (value == 0) {
		device_reset(virtio);
		return;
	}
	if ((value & VIRTIO_FEATURES_OK) && !(virtio->status & VIRTIO_FEATURES_OK)) {
		if ((virtio->driver_features & ~virtio->features) ||
		    !(virtio->driver_features & VIRTIO_F_VERSION_1))
			value &= (uint8_t)~VIRTIO_FEATURES_OK;
		else
			set_up_queues(virtio);
	}
	/* Without features there is no driver. */
	if (!(value & VIRTIO_FEATURES_OK))
		value &= (uint8_t)~VIRTIO_DRIVER_OK;
	virtio->status |= value & (VIRTIO_ACKNOWLEDGE | VIRTIO_DRIVER | VIRTIO_DRIVER_OK |
				   VIRTIO_FEATURES_OK | VIRTIO_FAILED);
	/* What was made available before counts as told. */
	for (unsigned i = 0; (value & VIRTIO_DRIVER_OK) && i < virtio->type->queues; i++)
		if (virtio_live(virtio, i))
			virtio->type->notified(virtio, i);
}

static void write_features(struct virtio *virtio, uint32_t value)
{
	unsigned shift = virtio->driver_feature_select * 32;

	if (virtio->driver_feature_select > 1 || (virtio->status & VIRTIO_FEATURES_OK))
		return;
	virtio->driver_features &= ~(0xffffffffull << shift);
	virtio->driver_features |= (uint64_t)value << shift;
}

/* A vector that there is none of reads back as NO_VECTOR (4.1.5.1.2.1). */
static uint16_t valid_vector(const struct virtio *virtio, uint64_t value)
{
	return value < virtio->msix.count ? (uint16_t)value : NO_VECTOR;
}

static void set_part(uint64_t *whole, unsigned offset, unsigned size, uint64_t value)
{
	memcpy((uint8_t *)whole + offset, &value, size);
}

static void enable_queue(struct virtio *virtio, struct virtqueue *queue, uint64_t value)
{
	if (value != 1 || queue->enabled)
		return;
	if (!virtqueue_valid(queue)) {
		virtio_broken(virtio);
		return;
	}
	queue->enabled = 1;
	queue->taken = queue->used = queue->told = queue->told_once = 0;
}

static void write_queue(struct virtio *virtio, unsigned offset, unsigned size, uint64_t value)
{
	struct virtqueue *queue = &virtio->queue[virtio->queue_select];

	if (virtio->queue_select >= virtio->type->queues)
		return;
	switch (offset) {
	case QUEUE_VECTOR: queue->vector = valid_vector(virtio, value); return;
	case QUEUE_ENABLE: enable_queue(virtio, queue, value); return;
	default: break;
	}
	/* Where it is and how large may not change while it is used. */
	if (queue->enabled)
		return;
	if (offset == QUEUE_SIZE)
		queue->size = (uint16_t)value;
	else if (offset >= QUEUE_DEVICE)
		set_part(&queue->device, offset - QUEUE_DEVICE, size, value);
	else if (offset >= QUEUE_DRIVER)
		set_part(&queue->driver, offset - QUEUE_DRIVER, size, value);
	else if (offset >= QUEUE_DESC)
		set_part(&queue->descriptors, offset - QUEUE_DESC, size, value);
}

/* Fields are written whole, those of 64 bits also by halves (4.1.3.1). */
static void common_write(struct virtio *virtio, unsigned offset, unsigned size, uint64_t value)
{
	static const uint8_t sizes[COMMON_END] = {[DEVICE_FEATURE_SELECT] = 4,
						  [DRIVER_FEATURE_SELECT] = 4,
						  [DRIVER_FEATURE] = 4,
						  [CONFIG_VECTOR] = 2,
						  [DEVICE_STATUS] = 1,
						  [QUEUE_SELECT] = 2,
						  [QUEUE_SIZE] = 2,
						  [QUEUE_VECTOR] = 2,
						  [QUEUE_ENABLE] = 2,
						  [QUEUE_DESC] = 4,
						  [QUEUE_DESC + 4] = 4,
						  [QUEUE_DRIVER] = 4,
						  [QUEUE_DRIVER + 4] = 4,
						  [QUEUE_DEVICE] = 4,
						  [QUEUE_DEVICE + 4] = 4};

	if (offset >= COMMON_END || size != sizes[offset])
		return;
	switch (offset) {
	case DEVICE_FEATURE_SELECT: virtio->device_feature_select = (uint32_t)value; break;
	case DRIVER_FEATURE_SELECT: virtio->driver_feature_select = (uint32_t)value; break;
	case DRIVER_FEATURE: write_features(virtio, (uint32_t)value); break;
	case CONFIG_VECTOR: virtio->config_vector = valid_vector(virtio, value); break;
	case DEVICE_STATUS: write_status(virtio, (uint8_t)value); break;
	case QUEUE_SELECT: virtio->queue_select = (uint16_t)value; break;
	default: write_queue(virtio, offset, size, value); break;
	}
}

static void put(uint8_t *bytes, unsigned offset, unsigned size, uint64_t value)
{
	memcpy(bytes + offset, &value, size);
}

static uint64_t common_read(const struct virtio *virtio, unsigned offset, unsigned size)
{
	static const struct virtqueue none = {.vector = NO_VECTOR};
	bool there = virtio->queue_select < virtio->type->queues;
	const struct virtqueue *queue = there ? &virtio->queue[virtio->queue_select] : &none;
	uint8_t bytes[COMMON_END + 8] = {0};
	uint64_t value = 0;

	put(bytes, DEVICE_FEATURE_SELECT, 4, virtio->device_feature_select);
	if (virtio->device_feature_select < 2)
		put(bytes, DEVICE_FEATURE, 4, virtio->features >> (32 * virtio->device_feature_select));
	put(bytes, DRIVER_FEATURE_SELECT, 4, virtio->driver_feature_select);
	if (virtio->driver_feature_select < 2)
		put(bytes, DRIVER_FEATURE, 4,
		    virtio->driver_features >> (32 * virtio->driver_feature_select));
	put(bytes, CONFIG_VECTOR, 2, virtio->config_vector);
	put(bytes, NUM_QUEUES, 2, virtio->type->queues);
	bytes[DEVICE_STATUS] = virtio->status;
	put(bytes, QUEUE_SELECT, 2, virtio->queue_select);
	put(bytes, QUEUE_SIZE, 2, queue->size);
	put(bytes, QUEUE_VECTOR, 2, queue->vector);
	put(bytes, QUEUE_ENABLE, 2, queue->enabled);
	put(bytes, QUEUE_NOTIFY_OFF, 2, there ? virtio->queue_select : 0);
	put(bytes, QUEUE_DESC, 8, queue->descriptors);
	put(bytes, QUEUE_DRIVER, 8, queue->driver);
	put(bytes, QUEUE_DEVICE, 8, queue->device);
	if (offset + size <= COMMON_END)
		memcpy(&value, bytes + offset, size);
	return value;
}

/* ---- the regions ---- */

static uint64_t config_read(struct virtio *virtio, unsigned offset, unsigned size)
{
	uint8_t bytes[256] = {0};
	uint64_t value = 0;

	if (offset + size > virtio->type->config_size)
		return 0;
	virtio->type->config(virtio, bytes);
	memcpy(&value, bytes + offset, size);
	return value;
}

/* Reading tells the driver why it was interrupted, and takes the interrupt back (4.1.4.5). */
static uint64_t isr_read(struct virtio *virtio)
{
	uint8_t value = virtio->isr;

	virtio->isr = 0;
	pci_interrupt(&virtio->function, false);
	return value;
}

static uint64_t region_read(void *device, uint64_t offset, unsigned size)
{
	struct virtio *virtio = device;
	unsigned at = (unsigned)offset % REGION_SIZE;

	switch (offset - at) {
	case COMMON: return common_read(virtio, at, size);
	case ISR: return at == 0 ? isr_read(virtio) : 0;
	case DEVICE_CONFIG: return config_read(virtio, at, size);
	default: return 0;
	}
}

static void region_write(void *device, uint64_t offset, unsigned size, uint64_t value)
{
	struct virtio *virtio = device;
	unsigned at = (unsigned)offset % REGION_SIZE, index = at / NOTIFY_STRIDE;

	if (offset - at == COMMON)
		common_write(virtio, at, size, value);
	else if (offset - at == NOTIFY && index < virtio->type->queues && virtio_live(virtio, index))
		virtio->type->notified(virtio, index);
}

static const struct bus_ops region_ops = {
	.name = "virtio", .width = 4, .read = region_read, .write = region_write};

/* ---- PCI ---- */

static uint32_t get32(const uint8_t *from)
{
	uint32_t value;

	memcpy(&value, from, sizeof(value));
	return value;
}

/* The window into the regions that configuration space has (4.1.4.9), where it is set up to something. */
static bool window(const struct virtio *virtio, unsigned at, unsigned *offset, unsigned *size)
{
	const uint8_t *config = virtio->function.config;
	uint32_t where = get32(config + at + CAP_OFFSET), length = get32(config + at + CAP_SIZE);

	*offset = where;
	*size = length;
	return config[at + CAP_BAR] == REGIONS_BAR && (length == 1 || length == 2 || length == 4) &&
	       where < REGIONS_SIZE && where % length == 0;
}

static unsigned pci_capability(const struct virtio *virtio)
{
	const uint8_t *config = virtio->function.config;
	unsigned at = config[PCI_CAPABILITIES];

	while (at && (config[at] != CAPABILITY_VENDOR || config[at + CAP_TYPE] != CAP_PCI))
		at = config[at + 1];
	return at;
}

static void on_config_read(void *owner, unsigned offset, unsigned size)
{
	struct virtio *virtio = owner;
	unsigned at = pci_capability(virtio), where, length;
	uint32_t value;

	if (offset + size <= at + CAP_DATA || offset >= at + CAP_DATA + 4 ||
	    !window(virtio, at, &where, &length))
		return;
	value = (uint32_t)region_read(virtio, where, length);
	memcpy(virtio->function.config + at + CAP_DATA, &value, length);
}

static void on_config_written(void *owner, unsigned offset, unsigned size)
{
	struct virtio *virtio = owner;
	unsigned at = pci_capability(virtio), where, length;
	uint32_t value = 0;

	msix_config_written(&virtio->msix);
	if (offset + size <= at + CAP_DATA || offset >= at + CAP_DATA + 4 ||
	    !window(virtio, at, &where, &length))
		return;
	memcpy(&value, virtio->function.config + at + CAP_DATA, length);
	region_write(virtio, where, length, value);
}

static void add_capability(struct virtio *virtio, uint8_t type, uint32_t offset, uint32_t size,
			   unsigned extra)
{
	unsigned at = pci_function_capability(&virtio->function, CAPABILITY_VENDOR, 16 + extra);
	uint8_t *config = virtio->function.config + at;

	config[CAP_LENGTH] = (uint8_t)(16 + extra);
	config[CAP_TYPE] = type;
	config[CAP_BAR] = REGIONS_BAR;
	put(config, CAP_OFFSET, 4, offset);
	put(config, CAP_SIZE, 4, size);
	if (type == CAP_NOTIFY)
		put(config, CAP_MULTIPLIER, 4, NOTIFY_STRIDE);
	if (type != CAP_PCI)
		return;
	/* The driver chooses what it looks at. */
	config[CAP_BAR] = 0;
	virtio->function.mask[at + CAP_BAR] = 0xff;
	memset(virtio->function.mask + at + CAP_OFFSET, 0xff, 8 + 4);
}

static void make_function(struct virtio *virtio)
{
	const struct virtio_type *type = virtio->type;
	struct pci_function *function = &virtio->function;

	pci_function_init(function, VENDOR, (uint16_t)(DEVICE_BASE + type->id), type->class, REVISION);
	put(function->config, PCI_SUBSYSTEM_VENDOR, 2, VENDOR);
	put(function->config, PCI_SUBSYSTEM, 2, (uint64_t)(DEVICE_BASE + type->id));
	function->config[PCI_INTERRUPT_PIN] = 1;
	function->owner = virtio;
	function->config_read = on_config_read;
	function->config_written = on_config_written;
	pci_function_bar(function, REGIONS_BAR, REGIONS_SIZE, false, &region_ops, virtio);
	add_capability(virtio, CAP_COMMON, COMMON, REGION_SIZE, 0);
	add_capability(virtio, CAP_ISR, ISR, REGION_SIZE, 0);
	if (type->config_size)
		add_capability(virtio, CAP_DEVICE, DEVICE_CONFIG, REGION_SIZE, 0);
	add_capability(virtio, CAP_NOTIFY, NOTIFY, REGION_SIZE, 4);
	add_capability(virtio, CAP_PCI, 0, 0, 4);
	msix_init(&virtio->msix, function, MSIX_BAR, type->queues + 1);
}

int virtio_init(struct virtio *virtio, const struct virtio_type *type, uint64_t features,
		const struct dma *dma, struct pci *pci)
{
	virtio->type = type;
	virtio->features = features | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX | VIRTIO_F_VERSION_1;
	virtio->dma = *dma;
	make_function(virtio);
	device_reset(virtio);
	return pci_add(pci, &virtio->function);
}

void virtio_reset(struct virtio *virtio)
{
	device_reset(virtio);
	msix_reset(&virtio->msix);
	pci_function_reset(&virtio->function);
}
