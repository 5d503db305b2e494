/*
 * postcopy.h: a guest that runs at the destination before all of its RAM has come.
 *
 * Pages that are owed are taken out of its memory, and userfaultfd tells who touches one: a thread asks the
 * source for that page, another puts pages in their places as they come. Where the connection breaks, both
 * wait for another, and so does whoever touches a page that is owed.
 */
#ifndef TRAPLINE_MIGRATE_POSTCOPY_H
#define TRAPLINE_MIGRATE_POSTCOPY_H

#include "migrate/bitmap.h"
#include "migrate/migration.h"
#include "migrate/placing.h"
#include "migrate/transport.h"

/* Channels of a stream from here on are new connections of a post-copy that has paused. */
#define POSTCOPY_CHANNEL 0x8000u

struct postcopy;

/* Whether this system has what it takes. */
bool postcopy_possible(void);

/* What the two threads speak with. */
struct postcopy_link {
	struct transport *transport;
	struct stream_reader reader;
	struct stream_writer back;
};

/*
 * Takes pages that @owed names out of the memory of @machine and starts the threads, which from now on read
 * what comes, and own @link, and @owed, once *@postcopy is set. 0, or a negative errno with @why.
 */
int postcopy_start(struct postcopy **postcopy, struct migration *migration, struct machine *machine,
		   struct bitmap *owed, struct postcopy_link *link, char *why, size_t size);
/* Writes a section without payload on the return path: READY, RUNNING. 0, or a negative errno. */
int postcopy_say(struct postcopy *postcopy, enum stream_type type);
/* The same of STREAM_FAILURE. */
void postcopy_say_failure(struct postcopy *postcopy, const char *reason);
/* Waits until HAND_OVER has come: 0, and *@stays what it says. A negative errno with @why. */
int postcopy_await(struct postcopy *postcopy, bool *stays, char *why, size_t size);
/* Another connection, from a listener that it owns from now on. */
void postcopy_recover(struct postcopy *postcopy, struct transport_listener *listener);
/* Breaks the connection. */
void postcopy_break(struct postcopy *postcopy);
/* Ends the threads; pages that are owed never come then. NULL is fine. */
void postcopy_free(struct postcopy *postcopy);

#endif
