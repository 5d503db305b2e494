/*
 * virtio.h: a virtio 1.2 device on PCI ("modern": no legacy registers): what all such devices have.
 *
 * A device embeds struct virtio first, fills its struct virtio_type, and is called when a queue has work. All
 * of it happens on the bus call that asks for it, so that a run is the same every time.
 */
#ifndef TRAPLINE_DEV_VIRTIO_H
#define TRAPLINE_DEV_VIRTIO_H

#include "dev/msix.h"
#include "dev/pci.h"
#include "dev/virtqueue.h"

#define VIRTIO_QUEUES_MAX 2u

/* Feature bits (6). */
#define VIRTIO_F_INDIRECT_DESC (1ull << 28)
#define VIRTIO_F_EVENT_IDX     (1ull << 29)
#define VIRTIO_F_VERSION_1     (1ull << 32)

/* Device status (2.1). */
#define VIRTIO_ACKNOWLEDGE 0x01u
#define VIRTIO_DRIVER      0x02u
#define VIRTIO_DRIVER_OK   0x04u
#define VIRTIO_FEATURES_OK 0x08u
#define VIRTIO_NEEDS_RESET 0x40u
#define VIRTIO_FAILED      0x80u

struct virtio;

struct virtio_type {
	const char *name;
	uint16_t id;    /* 5 */
	uint32_t class; /* of PCI */
	unsigned queues;
	/* Size of the device's configuration, its bytes (little-endian, at @offset), and writes to it (NULL:
	 * it is read-only). */
	unsigned config_size;
	void (*config)(struct virtio *virtio, uint8_t *bytes);
	/* The driver says that queue @index has work; virtio_work() goes through it. */
	void (*notified)(struct virtio *virtio, unsigned index);
	/* Does what one chain asks for. Returns how many bytes it wrote, or -EIO where the chain is no
	 * request. */
	int64_t (*request)(struct virtio *virtio, unsigned index, const struct virtqueue_chain *chain);
};

struct virtio {
	/* State, with the PCI function's and those of the queues. */
	struct pci_function function;
	struct msix msix;
	uint64_t driver_features;
	uint32_t device_feature_select, driver_feature_select;
	uint16_t config_vector, queue_select;
	uint8_t status, isr;
	struct virtqueue queue[VIRTIO_QUEUES_MAX];

	const struct virtio_type *type;
	uint64_t features; /* offered */
	struct dma dma;
};

/* All state of a struct virtio that is the member @m of @type. */
#define VIRTIO_STATE(type, m)                                                                                \
	PCI_FUNCTION_STATE(type, m.function), MSIX_STATE(type, m.msix), STATE(type, m.driver_features),      \
		STATE(type, m.device_feature_select), STATE(type, m.driver_feature_select),                  \
		STATE(type, m.config_vector), STATE(type, m.queue_select), STATE(type, m.status),            \
		STATE(type, m.isr), VIRTQUEUE_STATE(type, m.queue[0]), VIRTQUEUE_STATE(type, m.queue[1])

/* Makes the device and puts it on the bus. @features are the type's own; those of the rings are added. As
 * pci_add(). */
int virtio_init(struct virtio *virtio, const struct virtio_type *type, uint64_t features,
		const struct dma *dma, struct pci *pci);
/* RESET of the machine. */
void virtio_reset(struct virtio *virtio);
/* For the state table's loaded(): what is derived from the state. */
void virtio_loaded(struct virtio *virtio);
/* For its wrong(): a field that no device can hold, or NULL. */
const char *virtio_wrong(const struct virtio *fields);

/* Whether the driver is there and queue @index can be used. */
bool virtio_live(const struct virtio *virtio, unsigned index);
/* Gives each chain that is available in the queue to type->request(), and interrupts. */
void virtio_work(struct virtio *virtio, unsigned index);
/* The driver did what it must not: DEVICE_NEEDS_RESET (2.1.2). */
void virtio_broken(struct virtio *virtio);
/* The driver has something to see in the queue. */
void virtio_interrupt(struct virtio *virtio, unsigned index);

#endif
