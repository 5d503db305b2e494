/*
 * move.h: a machine that is moved between two while it runs, within one process: `visor run --move`.
 *
 * Two machines of one configuration (but perhaps another engine or profile) take turns. A move stops the one
 * that has the guest between two instructions, writes the pages that changed since the last move and all
 * parts of its state as sections of a stream, reads these with the same checks as any receiver, and loads
 * them into the other. So what no state table holds is lost at the next instruction.
 *
 * Whoever runs a guest calls mover_run() in place of machine_run() and finds the machine that has it in
 * mover->machine, which changes within mover_run() and mover_restore() alone.
 */
#ifndef TRAPLINE_MIGRATE_MOVE_H
#define TRAPLINE_MIGRATE_MOVE_H

#include "migrate/state.h"
#include "vm/snapshot.h"

struct move_config {
	uint64_t every; /* instructions between two moves, at least 1 */
	bool paced; /* under an engine that does not count, steps (engine_ops.pace); else that moves when it comes back */
	bool random;    /* of 1 to @every, drawn from @seed */
	uint64_t seed;
	/* A third machine, which has never run and whose output goes nowhere: it runs the guest too, without
	 * moves, and mover_run() compares. A guest with input from outside is none for that. NULL: nothing is
	 * compared. */
	struct machine *reference;
	void *owner;
	/* @machine has the guest now: for what a caller ties to one of the two. May be NULL. */
	void (*moved)(void *owner, struct machine *machine);
};

struct mover {
	struct machine *machine; /* the one that has the guest */
	uint64_t moves, bytes;   /* so far: how many, and of their streams */
	uint64_t retired;        /* instructions of the guest, by both machines */
	char why[STREAM_WHY];    /* of mover_snapshot() or mover_restore(), which has failed */
};

/* Takes both machines, which stay the caller's; @first has its guest in place, @second has never run. 0, or a
 * negative errno with
 * @why: -EINVAL where @second cannot take a guest of @first. */
int mover_new(struct mover **mover, struct machine *first, struct machine *second,
	      const struct move_config *config, char *why, size_t size);
void mover_free(struct mover *mover);

/* machine_run(), with moves. An end MACHINE_FAILED may be a move's, or say in what the guest differs from the
 * one that was never moved. */
const struct machine_end *mover_run(struct mover *mover, const struct machine_limits *limits);
/* Of both machines: parts_take_reached(). */
void mover_take_reached(struct mover *mover, void (*take)(void *owner, const char *name), void *owner);
/* Moves now. 0, or a negative errno with @why. */
int mover_move(struct mover *mover, char *why, size_t size);

/* snapshot_take() and snapshot_restore() of whichever machine has the guest: both machines' memory is put
 * back. */
int mover_snapshot(struct mover *mover, struct snapshot *snapshot);
int mover_restore(struct mover *mover, struct snapshot *snapshot);

#endif
