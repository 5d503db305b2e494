/*
 * describe.h: which machine a stream is of, and whether another can take it.
 *
 * A description is a list of named texts, the same for two machines between which every state can move. What
 * a machine was told by its user, and what of it the guest can see, is in it: memory, vCPUs, profile and
 * features, devices and disks, turns and seed, the clock's start. The section STREAM_DESCRIPTION is a count
 * (4), and for each entry its name and its text.
 */
#ifndef TRAPLINE_MIGRATE_DESCRIBE_H
#define TRAPLINE_MIGRATE_DESCRIBE_H

#include "migrate/stream.h"
#include "vm/machine.h"

#define DESCRIPTION_ENTRIES_MAX 64u
#define DESCRIPTION_NAME_MAX    32u
#define DESCRIPTION_TEXT_MAX    2048u

struct description {
	unsigned count;
	struct description_entry {
		char name[DESCRIPTION_NAME_MAX];
		char text[DESCRIPTION_TEXT_MAX];
	} entry[DESCRIPTION_ENTRIES_MAX];
};

/* Of @machine. 0, or -E2BIG. */
int describe_machine(struct description *description, const struct machine *machine);
/* The whole section. 0, or writer->error. */
int describe_write(const struct description *description, struct stream_writer *writer);
/* Reads the section. 0, or -EPROTO with @why. */
int describe_take(struct description *description, struct stream_cursor *payload, char *why, size_t size);
/* The text of the entry, or NULL. */
const char *describe_find(const struct description *description, const char *name);

/*
 * Whether a machine @here can take the guest of @there, but for the processor: every entry is there on both
 * sides and equal, but "engine", "device", "cpu" and "cpuid": what runs vCPUs, of which only the state
 * counts, and what describe_accept() compares. False: @why says which entry, what the guest has and what this
 * machine has, in one line: "memory: the guest has 134217728, this machine 67108864".
 */
bool describe_fits(const struct description *here, const struct description *there, char *why, size_t size);
/*
 * Makes @here, in which nothing has run or is loaded, a machine for the guest of @there, if it can be:
 * describe_fits(), and the guest keeps the CPUID that it was told (engine_ops.cpu_take()), all of which @here
 * must have; in every other respect @here stays what it is. 0, -ENOMEM, or -EINVAL with @why in one line:
 * "the guest was told of features that this processor (intel) lacks: svm topoext".
 */
int describe_accept(const struct description *there, struct machine *here, char *why, size_t size);
/* The CPUID in it. 0, or -EINVAL with @why. */
int describe_guest_cpu(const struct description *description, struct guest_cpu *cpu, char *why, size_t size);

#endif
