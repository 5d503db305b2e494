/*
 * snapshot.h: a machine at one moment, and its way back there.
 *
 * Restoring copies back the pages that were written since, so it costs what the guest
 * touched. A snapshot belongs to the machine it was taken of, or to the two between which that moves
 * (migrate/move.h).
 */
#ifndef TRAPLINE_VM_SNAPSHOT_H
#define TRAPLINE_VM_SNAPSHOT_H

#include "vm/machine.h"

struct snapshot {
	uint8_t *image; /* of RAM; only pages that are not zero have been touched */
	uint64_t size;
	uint8_t *devices; /* each saved device, one after the other */
	uint8_t *chips;   /* likewise those of the engine, its time among them */
	struct vcpu_state *vcpus;
	uint64_t fired; /* of the machine's clock, when it was taken or restored last */
	bool moved;     /* another machine is restored than the last time: nothing in it is as it was left */
};

/* Takes it; from here on the engine logs dirty pages for snapshot_restore(). 0, -ENOMEM. */
int snapshot_take(struct snapshot *snapshot, struct machine *machine);
/* The same where the dirty pages are not all that was written since memory was zeros: @pages are. */
int snapshot_take_pages(struct snapshot *snapshot, struct machine *machine, const uint64_t *pages, size_t count);
/* 0, or a negative errno: -EINVAL where the engine or a device refuses its state. */
int snapshot_restore(struct snapshot *snapshot, struct machine *machine);
void snapshot_free(struct snapshot *snapshot);

#endif
