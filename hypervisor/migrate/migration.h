/*
 * migration.h: the migrations of one visor: what they were told, how they stand, and who works on them.
 *
 * migration_start() and migration_receive() begin one; everything else here may be called by any thread at
 * any time (it has its lock, which is never held while something is waited for). The work is done by
 * source*.c and incoming.c.
 */
#ifndef TRAPLINE_MIGRATE_MIGRATION_H
#define TRAPLINE_MIGRATE_MIGRATION_H

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

#include "migrate/describe.h"
#include "vm/gate.h"
#include "vm/machine.h"

enum migration_parameter {
#define PARAMETER(symbol, ...) PARAMETER_##symbol,
#define CHOICE(symbol, ...)    PARAMETER_##symbol,
#define CAPABILITY(...)
#include "migrate/parameters.def"
	PARAMETER_COUNT
};
enum migration_capability {
#define PARAMETER(...)
#define CHOICE(...)
#define CAPABILITY(symbol, ...) CAPABILITY_##symbol,
#include "migrate/parameters.def"
	CAPABILITY_COUNT
};
enum migration_compression { COMPRESSION_NONE, COMPRESSION_ZSTD };

struct migration_parameter_fact {
	const char *name;
	uint64_t standard, least, most;
	bool choice; /* a name: migration_choice_name() */
};
extern const struct migration_parameter_fact migration_parameters[PARAMETER_COUNT];
extern const char *const migration_capabilities[CAPABILITY_COUNT];
/* Of a parameter that is a choice: the name of a value, or NULL past the last. */
const char *migration_choice_name(enum migration_parameter parameter, uint64_t value);

enum migration_status {
	MIGRATION_NONE,
	MIGRATION_SETUP,
	MIGRATION_ACTIVE,
	MIGRATION_PRE_SWITCHOVER,
	MIGRATION_DEVICE,
	MIGRATION_POSTCOPY_ACTIVE,
	MIGRATION_POSTCOPY_PAUSED,
	MIGRATION_POSTCOPY_RECOVER,
	MIGRATION_COMPLETED,
	MIGRATION_FAILED,
	MIGRATION_CANCELLING,
	MIGRATION_CANCELLED
};
const char *migration_status_name(enum migration_status status); /* QMP's */

/* Counts of a migration so far. Times in ns of machine_now(); 0: not yet. */
struct migration_counts {
	_Atomic uint64_t began, set_up, stopped, resumed, ended; /* moments */
	_Atomic uint64_t zero_pages, sent_pages;                 /* normal ones */
	_Atomic uint64_t bytes, precopy_bytes, downtime_bytes, postcopy_bytes,
		channel_bytes;            /* on the wire */
	_Atomic uint64_t remaining;       /* bytes of RAM that are not sent, or not any more */
	_Atomic uint64_t total;           /* bytes of RAM */
	_Atomic uint64_t syncs, requests; /* of the dirty log; of pages, after the switch */
	_Atomic uint64_t dirty_rate;      /* pages/s, between the last two syncs */
	_Atomic uint64_t throughput;      /* bytes/s, while nothing held it back */
	_Atomic uint64_t expected;        /* downtime, in ns */
	_Atomic uint64_t throttle;        /* percent */
};

/* One round of pre-copy, for whoever draws a timeline; the last is the one with the guest stopped. */
#define MIGRATION_ROUNDS_MAX 256u
struct migration_round {
	uint64_t began, took;  /* ns, @began since the migration did */
	uint64_t pages, bytes; /* sent */
	uint64_t dirty;        /* pages that the next round begins with */
};

struct migration_config {
	void *owner;
	/* A migration has another status; any thread, with no lock held. May be NULL. */
	void (*changed)(void *owner, enum migration_status status);
	/* The guest was stopped, or runs on, by a migration. May be NULL. */
	void (*stopped)(void *owner);
	void (*resumed)(void *owner);
	/* The machine's thread: lets go of the disks, so that another may open them; takes them (back). 0, or
	 * a negative errno with @why. May be NULL. */
	void (*disks_close)(void *owner);
	int (*disks_open)(void *owner, char *why, size_t size);
	/* Makes the machine that @description is of. 0, or a negative errno with @why. Receivers alone. */
	int (*make)(void *owner, const struct description *description, struct machine **machine, char *why,
		    size_t size);
	const volatile sig_atomic_t *signal; /* as in struct machine_config */
};

struct source;
struct incoming;

struct migration {
	struct migration_config config;
	struct gate *gate;
	struct machine *machine; /* NULL: not yet */
	struct migration_counts counts;

	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t changed;
	uint64_t parameter[PARAMETER_COUNT];
	bool capability[CAPABILITY_COUNT];
	enum migration_status status;
	bool receives;                /* it is the destination's */
	bool awaits;                  /* this visor has no guest yet */
	bool stays;                   /* where none comes, another may: migrate-incoming says where */
	bool announces;               /* somebody is told of this status; then there may be another */
	bool lost;                    /* it ended after hand-over, without an answer */
	bool to_file;                 /* it ended in a file */
	char error[STREAM_WHY + 500]; /* of a failure, or a pause of post-copy */
	char deferred[512];           /* the URI that migrate-incoming has named */
	char listens[300];            /* where the receiver does */
	struct migration_round round[MIGRATION_ROUNDS_MAX];
	unsigned rounds;
	struct source *source;
	struct incoming *incoming;
};

/* @gate is borrowed. */
void migration_init(struct migration *migration, const struct migration_config *config, struct gate *gate);
/* Ends what is under way; the gate is closed. Behind it nobody is called any more. */
void migration_end(struct migration *migration);
void migration_free(struct migration *migration);

/* 0, or -EINVAL with @why. */
int migration_set_parameter(struct migration *migration, enum migration_parameter parameter, uint64_t value,
			    char *why, size_t size);
uint64_t migration_get_parameter(struct migration *migration, enum migration_parameter parameter);
int migration_set_capability(struct migration *migration, enum migration_capability capability, bool on,
			     char *why, size_t size);
bool migration_get_capability(struct migration *migration, enum migration_capability capability);

/* ---- the source's ---- */

/* Begins to send the guest, or goes on with a post-copy that has paused (@resume). 0, or a negative errno
 * with @why: the URI is wrong, something else is under way, there is no guest. What goes wrong later is told
 * by the status. */
int migration_start(struct migration *migration, const char *uri, bool resume, char *why, size_t size);
/* Any time before the switch; nothing where no migration is under way. -EBUSY with @why behind it. */
int migration_cancel(struct migration *migration, char *why, size_t size);
/* -EINVAL with @why where no migration is in the phase that it takes. */
int migration_start_postcopy(struct migration *migration, char *why, size_t size);
int migration_continue(struct migration *migration, enum migration_status state, char *why, size_t size);
/* Breaks the connection of a post-copy, on either side. */
int migration_pause(struct migration *migration, char *why, size_t size);
/* The guest is where nobody has said that it runs, or in a file, and shall go on here: the machine's thread.
 */
int migration_reclaim(struct migration *migration, char *why, size_t size);

/* ---- the destination's ---- */

/* Listens at @uri; "defer": where migration_receive_at() will say. 0, or a negative errno with @why. */
int migration_listen(struct migration *migration, const char *uri, char *why, size_t size);
/* Waits for a guest there and takes it: the machine's thread. 0: it is in migration->machine, and runs
 * as soon as gate and machine_run() let it. A negative errno with @why: none has come; -EINTR a signal;
 * -EINVAL the URI or the machine. Where migration_stays(), it may be called again once the machine is freed
 * that was made for it, and waits until migration_receive_at() says where. */
int migration_receive(struct migration *migration, char *why, size_t size);
bool migration_stays(struct migration *migration);
/* Where to, for a receiver that was told to defer it, or whose guest has not come; @exits: it is not to
 * outlive an error. */
int migration_receive_at(struct migration *migration, const char *uri, bool exits, char *why, size_t size);
/* Where to listen for a source that resumes a post-copy. */
int migration_recover(struct migration *migration, const char *uri, char *why, size_t size);

/* ---- among source*.c, incoming.c and migration.c ---- */

void migration_set_status(struct migration *migration, enum migration_status status);
/* @status is FAILED, CANCELLED or POSTCOPY_PAUSED. */
void migration_set_error(struct migration *migration, enum migration_status status, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
enum migration_status migration_get_status(struct migration *migration);
void migration_add_round(struct migration *migration, const struct migration_round *round);
/* A thread that no signal comes to. 0, or a negative errno. */
int migration_thread(pthread_t *thread, void *(*run)(void *owner), void *owner);

#endif
