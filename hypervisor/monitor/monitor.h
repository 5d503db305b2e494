/*
 * monitor.h: the control socket of `visor run`: JSON objects in QMP's manner and by QMP's names
 * (PROTOCOL.md).
 *
 * A thread of its own serves any number of clients, of which none can hold up another, the guest, or a
 * migration: what has to be done by the machine's thread is asked for through the gate, and answered when it
 * is done; a client that does not read is dropped.
 */
#ifndef TRAPLINE_MONITOR_MONITOR_H
#define TRAPLINE_MONITOR_MONITOR_H

#include <jansson.h>

#include "migrate/migration.h"
#include "vm/gate.h"

struct monitor_config {
	const char *uri; /* unix:PATH */
	const char *version;
	struct gate *gate;           /* borrowed, as is: */
	struct migration *migration; /* its machine is the one that is controlled */
	void *owner;
	/* The run shall end soon: the monitor's thread. */
	void (*quit)(void *owner);
	/* The machine's thread does not end although it was asked to (it waits for a page that may never
	 * come). Does not return. */
	void (*give_up)(void *owner);
	/* Resets the machine: the machine's thread. 0, or a negative errno with @why. */
	int (*reset)(void *owner, char *why, size_t size);
};

struct monitor;

/* Listens. 0, or a negative errno with @why. */
int monitor_open(struct monitor **monitor, const struct monitor_config *config, char *why, size_t size);
/* Clients get what is on its way to them, as far as they take it at once. The gate is closed. NULL is fine.
 */
void monitor_close(struct monitor *monitor);

/* Any thread: tells every client. @data is stolen; NULL for none. */
void monitor_event(struct monitor *monitor, const char *name, json_t *data);

#endif
