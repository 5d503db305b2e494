/*
 * configure.h: what a description says, as the configuration of a machine to receive it.
 */
#ifndef TRAPLINE_MIGRATE_CONFIGURE_H
#define TRAPLINE_MIGRATE_CONFIGURE_H

#include "migrate/describe.h"

struct configure_disk {
	uint64_t size;
	bool read_only;
};

/*
 * Sets memory, vCPUs, turns, clock and devices of @config as @description has them, and tells of its disks:
 * how many, or -EINVAL with @why. Engine, profile, disks themselves and where output goes are the caller's;
 * @cpu, with room for DESCRIPTION_TEXT_MAX bytes, gets the profile that the guest had.
 */
int configure_machine(const struct description *description, struct machine_config *config, char *cpu,
		      struct configure_disk disk[DISKS_MAX], char *why, size_t size);

#endif
