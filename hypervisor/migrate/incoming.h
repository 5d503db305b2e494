/*
 * incoming.h: the side that gets the guest. Everything is read, checked and loaded by the machine's thread,
 * before it runs one instruction; after the switch of a post-copy, postcopy.c goes on with threads of its
 * own. Called by migration.c alone, but for migration_receive(), which is here.
 */
#ifndef TRAPLINE_MIGRATE_INCOMING_H
#define TRAPLINE_MIGRATE_INCOMING_H

#include "migrate/migration.h"
#include "migrate/transport.h"

void incoming_free(struct incoming *incoming); /* NULL is fine */
/* With migration->lock held: breaks the connection of a post-copy. */
void incoming_break(struct incoming *incoming);
/* Listens for a source that resumes a paused post-copy. 0, or a negative errno with @why. */
int incoming_recover(struct incoming *incoming, const char *uri, char *why, size_t size);

#endif
