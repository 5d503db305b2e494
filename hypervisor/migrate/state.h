/*
 * state.h: everything that a machine is but its RAM, as sections of a stream.
 *
 * A part is one instance of one state table (x86/state_table.h): the engine's time, a device, a vCPU's struct
 * vcpu_state (table "vcpu"), what the engine keeps of a vCPU besides, an interrupt chip. The order of parts
 * is the order in which they are loaded. A section STREAM_PART holds: the table's name (text), its version
 * (4), the instance (4: from 0 for each name), how many fields (4); then for each field its name (text), size
 * (4) and bytes. So a receiver names the field that is missing, unknown or of another size.
 *
 * Loading is in two steps. parts_take() checks each section and puts it aside; parts_load() loads all of
 * them, and does nothing unless each part has come exactly once.
 */
#ifndef TRAPLINE_MIGRATE_STATE_H
#define TRAPLINE_MIGRATE_STATE_H

#include "migrate/stream.h"
#include "vm/machine.h"

/* Parts that change together, as the machine and its engine say (vm/machine.h: MACHINE_APART;
 * chips_changed()). */
enum parts_group {
	PARTS_ALWAYS = 1, /* what may change with every instruction: time, vCPUs, the few devices before
			     MACHINE_APART */
	PARTS_DEVICES = 2,
	PARTS_CHIPS = 4,
	PARTS_ALL = 7
};

struct part {
	enum parts_group group;
	const struct state_table *table;
	void *object;      /* NULL: vCPU @instance's struct vcpu_state */
	uint32_t instance; /* among the parts of the same name */
	uint32_t size;     /* of its payload */
	uint32_t *at;      /* offset of each field's bytes in the payload */
	uint8_t *form;     /* the payload, but for the fields' bytes */
	uint8_t *come;     /* the payload that has come */
	uint8_t *made; /* as of the machine when parts_init() saw it: what a field is that a mutant leaves out
			*/
	bool *reached; /* a flag a field, for parts_take_reached() */
	bool here;     /* it has */
};

/* The parts of a machine, and those that have come for it. */
struct parts {
	struct machine *machine;
	unsigned count, missing, next, groups;
	struct part *part;
	uint8_t *scratch;       /* an object of any part */
	struct vcpu_state vcpu; /* the one that is being saved or loaded */
	char why[STREAM_WHY];
};

/* Lists the parts of @machine, whose devices and vCPUs stay what they are until parts_free(). 0, -ENOMEM. */
int parts_init(struct parts *parts, struct machine *machine);
void parts_free(struct parts *parts);

/* Writes the parts of @groups, PARTS_ALL for a whole state, of the machine, which does not run. How many, or
 * a negative errno (of the writer, or of an engine that cannot say what it has). */
int parts_write(struct parts *parts, struct stream_writer *writer, unsigned groups);

/* Before the first section of a state, of which @groups must come: PARTS_ALL, but where a machine of this
 * process has kept the others since it had the guest last (move.h). */
void parts_begin(struct parts *parts, unsigned groups);
/* Checks a section STREAM_PART and puts it aside. 0, or -EPROTO with parts->why: a part that this machine
 * does not have, or that has come before; another version; a field that is missing, unknown, out of order or
 * of another size; bytes behind. */
int parts_take(struct parts *parts, struct stream_cursor *payload);
/* Whether each part has come, and holds what its device can be in. 0, or -EPROTO with parts->why. Changes
 * nothing. */
int parts_check(struct parts *parts);
/* parts_check(), and then loads all of them: time, devices, vCPUs, the engine's own. 0, or a negative errno
 * with parts->why; after another than -EPROTO the machine is in no state to run. */
int parts_load(struct parts *parts);

/*
 * The first difference between what two machines of one description are: "vcpu 0: rip", "RAM at 0x1000";
 * false where there is none. Both do not run. Engines whose tables differ are compared by what both have.
 */
bool parts_differs(struct parts *a, struct parts *b, char *text, size_t size);
/* The same without RAM. */
bool parts_differ(struct parts *a, struct parts *b, char *text, size_t size);

/*
 * Mutants: a field of a part that parts_load() loads as it was when parts_init() saw the destination (so as
 * RESET leaves it), whatever has come; named "STATE:<table>.<field>", and of the vCPUs "STATE:vcpu.<field>".
 * Global, as all breaks are; NULL mends it. False: no table of @machine has such a field.
 */
bool parts_break(struct machine *machine, const char *name);
/* The groups that the field of the mutant is in, which a mover sends every time, so that it is in neither
 * machine; 0: none is broken. */
unsigned parts_broken(const struct parts *parts);
/* Calls @take (or nothing) with the name of each field of which something else than that has come since the
 * last call: leaving out any other could have changed nothing. The first call begins with the noting. */
void parts_take_reached(struct parts *parts, void (*take)(void *owner, const char *name), void *owner);
/* The name with this index, for a machine of this kind. False: past the last. */
bool parts_break_name(struct machine *machine, unsigned index, char *name, size_t size);

/* ---- what is neither RAM nor a table: the ROM, the kernel that fw_cfg offers ---- */

/* Writes it as sections STREAM_BLOB: name (text), whole size (8), offset (8), bytes. How many, or a negative
 * errno. */
int blobs_write(struct machine *machine, struct stream_writer *writer);

struct blobs {
	struct blob {
		char name[32];
		uint8_t *data;
		uint64_t size, have;
	} blob[8];
	unsigned count;
	char why[STREAM_WHY];
};
/* Takes a section. 0, -ENOMEM, or -EPROTO with blobs->why. @blobs was zero before the first. */
int blobs_take(struct blobs *blobs, struct stream_cursor *payload);
/* Gives all to the machine. 0, or a negative errno with blobs->why. */
int blobs_load(struct blobs *blobs, struct machine *machine);
void blobs_free(struct blobs *blobs);

#endif
