/*
 * converge.h: when pre-copy is over, how fast it may send, and how much the guest must be slowed: arithmetic
 * alone.
 */
#ifndef TRAPLINE_MIGRATE_CONVERGE_H
#define TRAPLINE_MIGRATE_CONVERGE_H

#include <stdbool.h>
#include <stdint.h>

struct converge_limits {
	uint64_t downtime;  /* ns: the longest that is allowed */
	uint64_t bandwidth; /* bytes/s for the last round; 0: as measured */
	/* Auto-converge; percentages. */
	bool throttles;
	unsigned initial, increment, most, threshold;
};

struct converge {
	uint64_t throughput; /* bytes/s while nothing held it back, over the last rounds; 0: not known */
	uint64_t last;       /* bytes that the round before began with */
	unsigned rounds;
	unsigned fast;     /* rounds in a row in which the guest was too fast */
	unsigned throttle; /* percent of the time that the guest shall rest */
	uint64_t expected; /* downtime, in ns, if the guest were stopped now */
};

/* A round is over: it sent @bytes in @busy ns of sending (and waiting for the peer, but not for a limit),
 * @took ns in all, and now @dirty bytes are to be sent again. Whether the guest shall be stopped now. */
bool converge_round(struct converge *converge, const struct converge_limits *limits, uint64_t bytes,
		    uint64_t busy, uint64_t took, uint64_t dirty);

/* How long @bytes take at @rate bytes/s, in ns; a rate of 0 is none. */
uint64_t converge_time(uint64_t bytes, uint64_t rate);

/* A limit of bytes/s, in windows. */
struct rate {
	uint64_t limit;        /* bytes/s; 0: none */
	uint64_t began, bytes; /* of the window */
};
/* How many ns to wait now, at @now, after @bytes more. */
uint64_t rate_wait(struct rate *rate, uint64_t limit, uint64_t now, uint64_t bytes);

#endif
