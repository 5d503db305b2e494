/*
 * tracer.h: --trace FILE: instructions, events and device accesses, a line each.
 */
#ifndef TRAPLINE_CLI_TRACER_H
#define TRAPLINE_CLI_TRACER_H

#include <stdio.h>

#include "dev/bus.h"
#include "engine/engine.h"

struct tracer {
	FILE *file;   /* NULL: no trace is wanted */
	bool several; /* vCPUs: each line says whose it is */
	struct engine_trace trace;
};

/* 0 or a negative errno. */
int tracer_open(struct tracer *tracer, const char *path);
/* Tells the tracer of the bus's accesses; without effect where no trace is wanted. */
void tracer_watch(struct tracer *tracer, struct bus *bus);
/* 0 or the negative errno of a write that failed. */
int tracer_close(struct tracer *tracer);

#endif
