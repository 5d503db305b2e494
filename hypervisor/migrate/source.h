/*
 * source.h: the side that has the guest: its thread sends RAM while the machine's thread runs vCPUs, round
 * after round, until what is left is little enough for a stop; then the machine's thread itself sends the
 * rest and all state, and hands the guest over. Called by migration.c alone.
 */
#ifndef TRAPLINE_MIGRATE_SOURCE_H
#define TRAPLINE_MIGRATE_SOURCE_H

#include "migrate/migration.h"
#include "migrate/transport.h"

/* Begins; @migration->source is it from then on. 0, or a negative errno with @why. */
int source_start(struct migration *migration, const char *uri, char *why, size_t size);
/* Waits for its end, which must have been asked for; NULL is fine. */
void source_free(struct source *source);

/* With migration->lock held: they ask only. source_end(): this visor ends. source_cancel(): false where it is
 * too late for that. */
void source_end(struct source *source);
bool source_cancel(struct source *source);
void source_continue(struct source *source);
void source_break(struct source *source);
int source_postcopy(struct source *source, char *why, size_t size);

/* A paused post-copy goes on over a new connection. */
int source_resume(struct source *source, const char *uri, char *why, size_t size);

#endif
