/*
 * channels.h: pages over several connections at a time, on both sides (multifd).
 *
 * Each channel is a stream of the session with a thread of its own, which carries STREAM_PAGES and
 * STREAM_ROUND_END alone. A page may be sent again in the next round, over another channel: so nobody begins
 * a round before all have ended the one before.
 */
#ifndef TRAPLINE_MIGRATE_CHANNELS_H
#define TRAPLINE_MIGRATE_CHANNELS_H

#include "migrate/migration.h"
#include "migrate/pages.h"
#include "migrate/placing.h"
#include "migrate/transport.h"

#define CHANNELS_MAX 16u

/* ---- the source's ---- */

struct senders;

struct senders_config {
	struct migration *migration;
	struct pages *pages;
	const char *uri; /* of a socket */
	struct stream_session session;
	unsigned count;
	bool compress;
	int limit_ms;
	const atomic_bool *cancelled;
	int cancel; /* of connecting: transport_cancel_new() */
};

/* Connects. 0, or a negative errno with @why. */
int senders_new(struct senders **senders, const struct senders_config *config, char *why, size_t size);
/* Sends all that is to be sent, keeping to @rate bytes/s (0: none), unless @stops (may be NULL) comes true,
 * as round @number. 0, or a negative errno with @why; *@sent pages, and *@rested ns for the rate's sake. */
int senders_round(struct senders *senders, uint32_t number, uint64_t rate, const atomic_bool *stops,
		  uint64_t *sent, uint64_t *rested, char *why, size_t size);
uint64_t senders_bytes(const struct senders *senders);
/* Any thread. */
void senders_cancel(struct senders *senders);
void senders_free(struct senders *senders); /* NULL is fine */

/* ---- the destination's ---- */

struct receivers;

/* Takes @count connections from @listener. 0, or a negative errno with @why. */
int receivers_new(struct receivers **receivers, struct machine *machine, struct transport_listener *listener,
		  const struct stream_session *session, unsigned count, const volatile sig_atomic_t *signal,
		  char *why, size_t size);
/* Round @number is over on channel 0: waits until it is on all, and lets them go on. */
int receivers_round(struct receivers *receivers, uint32_t number, char *why, size_t size);
/* Pages that have come, once a round is over. */
uint64_t receivers_pages(const struct receivers *receivers);
void receivers_free(struct receivers *receivers); /* NULL is fine */

#endif
