#include "migrate/migration.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "migrate/incoming.h"
#include "migrate/source.h"

const struct migration_parameter_fact migration_parameters[PARAMETER_COUNT] = {
#define PARAMETER(symbol, name_, standard_, least_, most_)                                                   \
	[PARAMETER_##symbol] = {.name = (name_), .standard = (standard_), .least = (least_), .most = (most_)},
#define CHOICE(symbol, name_, standard_)                                                                     \
	[PARAMETER_##symbol] = {.name = (name_), .standard = (standard_), .most = 1, .choice = true},
#define CAPABILITY(...)
#include "migrate/parameters.def"
};

const char *const migration_capabilities[CAPABILITY_COUNT] = {
#define PARAMETER(...)
#define CHOICE(...)
#define CAPABILITY(symbol, name, standard) [CAPABILITY_##symbol] = (name),
#include "migrate/parameters.def"
};

const char *migration_choice_name(enum migration_parameter parameter, uint64_t value)
{
	static const char *const compressions[] = {[COMPRESSION_NONE] = "none", [COMPRESSION_ZSTD] = "zstd"};

	if (parameter != PARAMETER_MULTIFD_COMPRESSION || value > COMPRESSION_ZSTD)
		return NULL;
	return compressions[value];
}

const char *migration_status_name(enum migration_status status)
{
	static const char *const names[] = {
		[MIGRATION_NONE] = "none",
		[MIGRATION_SETUP] = "setup",
		[MIGRATION_ACTIVE] = "active",
		[MIGRATION_PRE_SWITCHOVER] = "pre-switchover",
		[MIGRATION_DEVICE] = "device",
		[MIGRATION_POSTCOPY_ACTIVE] = "postcopy-active",
		[MIGRATION_POSTCOPY_PAUSED] = "postcopy-paused",
		[MIGRATION_POSTCOPY_RECOVER] = "postcopy-recover",
		[MIGRATION_COMPLETED] = "completed",
		[MIGRATION_FAILED] = "failed",
		[MIGRATION_CANCELLING] = "cancelling",
		[MIGRATION_CANCELLED] = "cancelled",
	};

	return names[status];
}

void migration_init(struct migration *migration, const struct migration_config *config, struct gate *gate)
{
	*migration = (struct migration){.config = *config, .gate = gate};
	pthread_mutex_init(&migration->lock, NULL);
	pthread_cond_init(&migration->changed, NULL);
	for (unsigned i = 0; i < PARAMETER_COUNT; i++)
		migration->parameter[i] = migration_parameters[i].standard;
#define PARAMETER(...)
#define CHOICE(...)
#define CAPABILITY(symbol, name, standard) migration->capability[CAPABILITY_##symbol] = (standard);
#include "migrate/parameters.def"
}

void migration_end(struct migration *migration)
{
	pthread_mutex_lock(&migration->lock);
	if (migration->source)
		source_end(migration->source);
	pthread_mutex_unlock(&migration->lock);
	source_free(migration->source);
	migration->source = NULL;
}

void migration_free(struct migration *migration)
{
	incoming_free(migration->incoming);
	pthread_cond_destroy(&migration->changed);
	pthread_mutex_destroy(&migration->lock);
}

/* ---- status ---- */

enum migration_status migration_get_status(struct migration *migration)
{
	enum migration_status status;

	pthread_mutex_lock(&migration->lock);
	status = migration->status;
	pthread_mutex_unlock(&migration->lock);
	return status;
}

static bool is_over(enum migration_status status)
{
	return status == MIGRATION_COMPLETED || status == MIGRATION_FAILED || status == MIGRATION_CANCELLED;
}

void migration_set_status(struct migration *migration, enum migration_status status)
{
	bool is_new;

	pthread_mutex_lock(&migration->lock);
	while (migration->announces)
		pthread_cond_wait(&migration->changed, &migration->lock);
	/* Only an end comes behind a cancel. */
	is_new =
		migration->status != status && (migration->status != MIGRATION_CANCELLING || is_over(status));
	if (is_new)
		migration->status = status;
	if (status == MIGRATION_POSTCOPY_ACTIVE || status == MIGRATION_COMPLETED)
		migration->error[0] = 0;
	if (is_over(status))
		atomic_store(&migration->counts.ended, machine_now());
	pthread_cond_broadcast(&migration->changed);
	pthread_mutex_unlock(&migration->lock);
	if (is_new && migration->config.changed)
		migration->config.changed(migration->config.owner, status);
}

void migration_set_error(struct migration *migration, enum migration_status status, const char *format, ...)
{
	va_list arguments;

	pthread_mutex_lock(&migration->lock);
	va_start(arguments, format);
	vsnprintf(migration->error, sizeof(migration->error), format, arguments);
	va_end(arguments);
	pthread_mutex_unlock(&migration->lock);
	migration_set_status(migration, status);
}

void migration_add_round(struct migration *migration, const struct migration_round *round)
{
	pthread_mutex_lock(&migration->lock);
	/* Of a very long one, the last round is kept as the last. */
	if (migration->rounds == MIGRATION_ROUNDS_MAX)
		migration->rounds--;
	migration->round[migration->rounds++] = *round;
	pthread_mutex_unlock(&migration->lock);
}

/* ---- what it is told ---- */

static int refuse(char *why, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));
static int refuse(char *why, size_t size, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(why, size, format, arguments);
	va_end(arguments);
	return -EINVAL;
}

/* With the lock: whether one is under way. */
static bool is_busy(const struct migration *migration)
{
	return migration->status != MIGRATION_NONE && !is_over(migration->status);
}

int migration_set_parameter(struct migration *migration, enum migration_parameter parameter, uint64_t value,
			    char *why, size_t size)
{
	const struct migration_parameter_fact *fact = &migration_parameters[parameter];

	if (value < fact->least || value > fact->most)
		return refuse(why, size, "%s is a number from %llu to %llu", fact->name,
			      (unsigned long long)fact->least, (unsigned long long)fact->most);
	pthread_mutex_lock(&migration->lock);
	migration->parameter[parameter] = value;
	pthread_mutex_unlock(&migration->lock);
	return 0;
}

uint64_t migration_get_parameter(struct migration *migration, enum migration_parameter parameter)
{
	uint64_t value;

	pthread_mutex_lock(&migration->lock);
	value = migration->parameter[parameter];
	pthread_mutex_unlock(&migration->lock);
	return value;
}

int migration_set_capability(struct migration *migration, enum migration_capability capability, bool on,
			     char *why, size_t size)
{
	int error = 0;

	if (capability == CAPABILITY_RETURN_PATH && !on)
		return refuse(
			why, size,
			"return-path cannot be off: the source keeps the guest until the destination says "
			"that it runs");
	pthread_mutex_lock(&migration->lock);
	if (capability != CAPABILITY_EVENTS && is_busy(migration))
		error = refuse(why, size, "%s: not while a migration is under way",
			       migration_capabilities[capability]);
	else
		migration->capability[capability] = on;
	pthread_mutex_unlock(&migration->lock);
	return error;
}

bool migration_get_capability(struct migration *migration, enum migration_capability capability)
{
	bool on;

	pthread_mutex_lock(&migration->lock);
	on = migration->capability[capability];
	pthread_mutex_unlock(&migration->lock);
	return on;
}

/* ---- the source's ---- */

/* With the lock: why no migration can begin here, or 0. */
static int may_start(const struct migration *migration, bool resume, unsigned held, char *why, size_t size)
{
	if (resume) {
		if (!migration->source || migration->status != MIGRATION_POSTCOPY_PAUSED)
			return refuse(why, size, "no migration is there that could be resumed");
		return 0;
	}
	if (is_busy(migration))
		return refuse(why, size, "a migration is under way");
	if (migration->awaits || !migration->machine)
		return refuse(why, size, "there is no guest yet");
	if (held & HOLD_UNSURE)
		return refuse(why, size, "the guest was handed over without an answer; `cont` takes it back");
	if (held & HOLD_MOVED && !migration->to_file)
		return refuse(why, size, "the guest is not here any more");
	return 0;
}

/* A new one: nothing is left of the one before. With the lock. */
static void forget(struct migration *migration)
{
	migration->counts = (struct migration_counts){0};
	migration->rounds = 0;
	migration->error[0] = 0;
	migration->lost = migration->receives = migration->to_file = false;
	migration->status = MIGRATION_SETUP;
	atomic_store(&migration->counts.began, machine_now());
}

int migration_start(struct migration *migration, const char *uri, bool resume, char *why, size_t size)
{
	unsigned held = gate_held(migration->gate);
	struct source *old = NULL;
	int error;

	pthread_mutex_lock(&migration->lock);
	error = may_start(migration, resume, held, why, size);
	if (!error && !resume) {
		old = migration->source;
		migration->source = NULL;
		forget(migration);
	}
	pthread_mutex_unlock(&migration->lock);
	if (error)
		return error;
	if (resume)
		return source_resume(migration->source, uri, why, size);
	source_free(old);
	if (migration->config.changed)
		migration->config.changed(migration->config.owner, MIGRATION_SETUP);
	error = source_start(migration, uri, why, size);
	if (error)
		migration_set_error(migration, MIGRATION_FAILED, "%s", why);
	return error;
}

/* A status that was set with migration->announces, which the next one waits for. */
static void announce(struct migration *migration, enum migration_status status)
{
	if (migration->config.changed)
		migration->config.changed(migration->config.owner, status);
	pthread_mutex_lock(&migration->lock);
	migration->announces = false;
	pthread_cond_broadcast(&migration->changed);
	pthread_mutex_unlock(&migration->lock);
}

int migration_cancel(struct migration *migration, char *why, size_t size)
{
	struct source *source = NULL;
	bool cancelling;
	int error = 0;

	pthread_mutex_lock(&migration->lock);
	switch (migration->status) {
	case MIGRATION_POSTCOPY_ACTIVE:
	case MIGRATION_POSTCOPY_PAUSED:
	case MIGRATION_POSTCOPY_RECOVER:
		error = refuse(why, size,
			       "post-copy cannot be cancelled: the guest is at the destination, and part of "
			       "it here");
		break;
	case MIGRATION_SETUP:
	case MIGRATION_ACTIVE:
	case MIGRATION_PRE_SWITCHOVER:
	case MIGRATION_DEVICE: source = migration->receives ? NULL : migration->source; break;
	default: break;
	}
	cancelling = source && source_cancel(source);
	if (cancelling) {
		migration->status = MIGRATION_CANCELLING;
		migration->announces = true;
	}
	pthread_mutex_unlock(&migration->lock);
	if (cancelling)
		announce(migration, MIGRATION_CANCELLING);
	return error;
}

int migration_start_postcopy(struct migration *migration, char *why, size_t size)
{
	int error = 0;

	pthread_mutex_lock(&migration->lock);
	if (!migration->capability[CAPABILITY_POSTCOPY_RAM])
		error = refuse(why, size, "the capability postcopy-ram is off");
	else if (!migration->source || migration->receives ||
		 (migration->status != MIGRATION_ACTIVE && migration->status != MIGRATION_SETUP))
		error = refuse(why, size, "no migration is there whose guest could go ahead");
	else
		error = source_postcopy(migration->source, why, size);
	pthread_mutex_unlock(&migration->lock);
	return error;
}

int migration_continue(struct migration *migration, enum migration_status state, char *why, size_t size)
{
	int error = 0;

	pthread_mutex_lock(&migration->lock);
	if (!migration->source || migration->status != state)
		error = refuse(why, size, "the migration is in state %s",
			       migration_status_name(migration->status));
	else if (state != MIGRATION_PRE_SWITCHOVER)
		error = refuse(why, size, "only pre-switchover can be continued");
	else
		source_continue(migration->source);
	pthread_mutex_unlock(&migration->lock);
	return error;
}

int migration_pause(struct migration *migration, char *why, size_t size)
{
	int error = 0;

	pthread_mutex_lock(&migration->lock);
	if (migration->status != MIGRATION_POSTCOPY_ACTIVE && migration->status != MIGRATION_POSTCOPY_RECOVER)
		error = refuse(why, size, "only post-copy can be paused");
	else if (migration->receives)
		incoming_break(migration->incoming);
	else
		source_break(migration->source);
	pthread_mutex_unlock(&migration->lock);
	return error;
}

int migration_reclaim(struct migration *migration, char *why, size_t size)
{
	const struct migration_config *config = &migration->config;
	unsigned held = gate_held(migration->gate);
	bool to_file;
	int error = 0;

	pthread_mutex_lock(&migration->lock);
	to_file = migration->to_file;
	pthread_mutex_unlock(&migration->lock);
	if (held & HOLD_MOVED && !to_file)
		return refuse(why, size, "the guest is at the destination");
	if (!(held & (HOLD_MOVED | HOLD_UNSURE)))
		return 0;
	if (config->disks_open)
		error = config->disks_open(config->owner, why, size);
	if (!error)
		gate_release(migration->gate, HOLD_MOVED | HOLD_UNSURE);
	return error;
}

/* ---- the destination's ---- */

int migration_receive_at(struct migration *migration, const char *uri, bool exits, char *why, size_t size)
{
	struct transport_uri parsed;
	int error = transport_parse(&parsed, uri, why, size);

	if (error)
		return error;
	pthread_mutex_lock(&migration->lock);
	if (!migration->awaits)
		error = refuse(why, size, "this visor waits for no guest");
	else if (migration->deferred[0] || migration->listens[0])
		error = refuse(why, size, "it is waited for already");
	else if (strlen(uri) >= sizeof(migration->deferred))
		error = refuse(why, size, "the URI is too long");
	if (!error) {
		snprintf(migration->deferred, sizeof(migration->deferred), "%s", uri);
		migration->stays = !exits;
	}
	pthread_cond_broadcast(&migration->changed);
	pthread_mutex_unlock(&migration->lock);
	return error;
}

int migration_recover(struct migration *migration, const char *uri, char *why, size_t size)
{
	struct incoming *incoming = NULL;

	pthread_mutex_lock(&migration->lock);
	if (migration->receives && migration->status == MIGRATION_POSTCOPY_PAUSED)
		incoming = migration->incoming;
	pthread_mutex_unlock(&migration->lock);
	if (!incoming)
		return refuse(why, size, "no post-copy has paused here");
	return incoming_recover(incoming, uri, why, size);
}

/* ---- threads ---- */

int migration_thread(pthread_t *thread, void *(*run)(void *owner), void *owner)
{
	sigset_t all, before;
	int error;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	error = pthread_create(thread, NULL, run, owner);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return -error;
}
