/*
 * source_parts.h: what the files of the sending side share; nobody else includes it (source.h is for others).
 *
 *   source.c           its life and its thread, what others ask of it, its first error
 *   source_setup.c     connection, description, terms, channels, blobs; the dirty log begins
 *   source_rounds.c    pre-copy: a round of pages, the dirty log, whether it is enough
 *   source_switch.c    stop, the rest and the state, hand-over; or the guest goes on here
 *   source_postcopy.c  pages that are owed behind the switch, over as many connections as it takes
 *   source_back.c      the return path: what the destination says, and why writing to it has failed
 *
 * The phases follow each other in the source's thread, which owns struct source; each has one function here.
 * The machine's thread has it only where the source's waits in gate_call(): for the dirty log, and for the
 * whole of the switch. Other threads may do no more than what source.h offers: with migration->lock held they
 * set flags and look at @transport and @senders, which therefore change under that lock alone; and they name
 * another URI while a post-copy that has paused waits for it.
 *
 * Functions that return int return 0, or a negative errno, unless they say otherwise. The first error that is
 * told to source_fail() is the reason that a user reads; where none was, strerror() is, of what the phase
 * returned.
 *
 * @handed_over is set before the first byte that may give the guest away, and taken back only where it is
 * sure that the destination does not run it: with it set, an error leaves the guest stopped, and nobody can
 * cancel.
 */
#ifndef TRAPLINE_MIGRATE_SOURCE_PARTS_H
#define TRAPLINE_MIGRATE_SOURCE_PARTS_H

#include "migrate/channels.h"
#include "migrate/converge.h"
#include "migrate/pages.h"
#include "migrate/source.h"
#include "migrate/state.h"

struct source {
	struct migration *migration;
	struct machine *machine;
	char *uri;
	pthread_t thread;
	struct stream_session session;
	struct transport *transport; /* migration->lock, where another thread looks at it */
	struct stream_writer writer;
	struct stream_reader back;
	uint32_t agreed;         /* enum stream_feature */
	struct senders *senders; /* NULL: everything goes over one connection; migration->lock, as above */
	struct pages pages;
	struct parts parts;
	struct converge converge;
	struct rate rate;
	struct stream_totals totals;
	bool logs, has_state, disks_closed;
	size_t next;                     /* of a post-copy: the page to go on with */
	uint32_t rounds, senders_rounds; /* so far */
	struct bitmap owed;              /* of a post-copy: what was to come behind the switch */
	uint64_t before;                 /* bytes that were sent over connections before this one */
	uint16_t links;                  /* connections of it so far */
	atomic_bool resumes;             /* there is another one to be made */
	uint64_t rested;                 /* ns, in this round, for the sake of a limit */
	uint64_t synced;                 /* when the dirty log was taken last */
	atomic_bool cancelled, broken, handed_over, wants_postcopy, continued;
	int cancel;           /* of connecting, set with @cancelled: transport_cancel_new() */
	pthread_mutex_t lock; /* of waiting for what is asked */
	pthread_cond_t asked;
	bool failed, lost;
	char why[STREAM_WHY + 200]; /* the first thing that went wrong */
};

/* ---- source.c ---- */

/* Keeps a reason, unless there is one already; returns @error. */
int source_fail(struct source *source, int error, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
uint64_t source_parameter(struct source *source, enum migration_parameter which);
/* Of a parameter in ms, for transport_limit(): -1 for none, which is 0 there. */
int source_limit_of(struct source *source, enum migration_parameter which);
/* Waits until @flag, which somebody asks for through source.h; -ECANCELED: or a cancel. */
int source_wait_asked(struct source *source, atomic_bool *flag);

/* ---- source_setup.c ---- */

/* Connects, agrees with the destination, and begins the log; all that the guest has touched is to be sent. */
int source_set_up(struct source *source);

/* ---- source_rounds.c ---- */

/* Puts what was sent so far into migration->counts; there is a transport. */
void source_count(struct source *source);
/* One round and its line in the history, but for @dirty, which is found later. @gently: keeping to the
 * limits, stopping where a post-copy is wanted, and waiting until the destination has all of it. */
int source_send_round(struct source *source, bool gently, struct migration_round *round);
/* What the guest has written is to be sent (again). The machine's thread; @owner is the source. */
void source_take_log(void *owner);
/* The log was taken behind @round, which thereby is complete. */
void source_tell_round(struct source *source, struct migration_round *round);
/* Round after round, until what is left is little enough, or a post-copy is wanted. */
int source_precopy(struct source *source);

/* ---- source_switch.c ---- */

/* Stops the guest and hands it over; where that fails it goes on here, unless it may run there. With
 * @owed.word set, pages are still to be sent behind it. */
int source_switch_over(struct source *source);

/* ---- source_postcopy.c ---- */

/* Sends what is owed until the destination has everything; -ECANCELED: this visor ends before. */
int source_push_owed(struct source *source);

/* ---- source_back.c ---- */

/* The return path begins with a head of its own, which comes with the destination's first words. The reason
 * of an error is in @back. */
int source_open_back(struct source *source);
/* A section of the return path; -EREMOTEIO where it says that the destination has failed. */
int source_read_back(struct source *source, struct stream_section *section);
/* Waits for a section of type @wanted, serving what is asked for until then. Tells its errors. */
int source_await(struct source *source, struct stream_section *section, enum stream_type wanted);
/* What the destination says while we send: only that it has failed. Does not wait. */
int source_look_back(struct source *source);
/* Pages that the guest waits for where it is now, as @payload lists them: they go first. */
int source_serve(struct source *source, struct stream_cursor *payload);
/* All that was written goes. Tells its errors. */
int source_flush(struct source *source);
/* Writing has failed with @error, which is returned: the other side may have said why before it closed. */
int source_fail_sending(struct source *source, int error);

#endif
