#include "migrate/source.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "migrate/source_parts.h"

/* ---- what the parts share ---- */

int source_fail(struct source *source, int error, const char *format, ...)
{
	va_list arguments;

	if (!source->why[0]) {
		va_start(arguments, format);
		vsnprintf(source->why, sizeof(source->why), format, arguments);
		va_end(arguments);
	}
	return error;
}

uint64_t source_parameter(struct source *source, enum migration_parameter which)
{
	return migration_get_parameter(source->migration, which);
}

int source_limit_of(struct source *source, enum migration_parameter which)
{
	uint64_t ms = source_parameter(source, which);

	return ms ? (int)ms : -1;
}

/* ---- waiting for people ---- */

int source_wait_asked(struct source *source, atomic_bool *flag)
{
	pthread_mutex_lock(&source->lock);
	while (!atomic_load(flag) && !atomic_load(&source->cancelled))
		pthread_cond_wait(&source->asked, &source->lock);
	pthread_mutex_unlock(&source->lock);
	return atomic_load(&source->cancelled) ? -ECANCELED : 0;
}

static void tell_asked(struct source *source, atomic_bool *flag)
{
	pthread_mutex_lock(&source->lock);
	atomic_store(flag, true);
	pthread_cond_broadcast(&source->asked);
	pthread_mutex_unlock(&source->lock);
}

/* ---- life ---- */

static void stop_logging(void *owner)
{
	struct source *source = owner;

	source->machine->slice = MACHINE_SLICE;
}

static void end_source(struct source *source, int error)
{
	struct migration *migration = source->migration;
	struct senders *senders;

	gate_throttle(migration->gate, 0);
	if (source->logs)
		gate_call(migration->gate, stop_logging, source);
	if (source->transport)
		source_count(source);
	pthread_mutex_lock(&migration->lock);
	transport_free(source->transport);
	source->transport = NULL;
	senders = source->senders;
	source->senders = NULL;
	migration->lost = source->lost;
	migration->to_file = !error && !source->back.room;
	pthread_mutex_unlock(&migration->lock);
	if (senders && error)
		senders_cancel(senders);
	senders_free(senders);
	if (!error)
		migration_set_status(migration, MIGRATION_COMPLETED);
	else if (atomic_load(&source->cancelled) && !source->lost)
		migration_set_status(migration, MIGRATION_CANCELLED);
	else
		migration_set_error(migration, MIGRATION_FAILED, "%s",
				    source->why[0] ? source->why : strerror(-error));
}

static void *source_thread(void *owner)
{
	struct source *source = owner;
	struct migration *migration = source->migration;
	int error = source_set_up(source);

	if (!error) {
		atomic_store(&migration->counts.set_up, machine_now());
		migration_set_status(migration, MIGRATION_ACTIVE);
		error = source_precopy(source);
	}
	if (!error)
		error = source_switch_over(source);
	if (!error && source->owed.word)
		error = source_push_owed(source);
	end_source(source, error);
	return NULL;
}

int source_start(struct migration *migration, const char *uri, char *why, size_t size)
{
	struct source *source = calloc(1, sizeof(*source));
	struct transport_uri parsed;
	int error = transport_parse(&parsed, uri, why, size), cancel = -1;

	if (!error && source)
		source->uri = strdup(uri);
	if (!error && (!source || !source->uri)) {
		snprintf(why, size, "no memory");
		error = -ENOMEM;
	}
	if (!error && (cancel = transport_cancel_new()) < 0) {
		snprintf(why, size, "%s", strerror(-cancel));
		error = cancel;
	}
	if (error) {
		if (source)
			free(source->uri);
		free(source);
		return error;
	}
	source->cancel = cancel;
	source->migration = migration;
	source->machine = migration->machine;
	pthread_mutex_init(&source->lock, NULL);
	pthread_cond_init(&source->asked, NULL);
	pthread_mutex_lock(&migration->lock);
	migration->source = source;
	error = migration_thread(&source->thread, source_thread, source);
	if (error)
		migration->source = NULL;
	pthread_mutex_unlock(&migration->lock);
	if (error) {
		snprintf(why, size, "no thread: %s", strerror(-error));
		close(cancel);
		free(source->uri);
		free(source);
	}
	return error;
}

void source_free(struct source *source)
{
	if (!source)
		return;
	pthread_join(source->thread, NULL);
	if (source->writer.room)
		stream_writer_free(&source->writer);
	if (source->back.room)
		stream_reader_free(&source->back);
	if (source->has_state)
		parts_free(&source->parts);
	pages_free(&source->pages);
	bitmap_free(&source->owed);
	pthread_cond_destroy(&source->asked);
	pthread_mutex_destroy(&source->lock);
	close(source->cancel);
	free(source->uri);
	free(source);
}

/* With migration->lock. */
bool source_cancel(struct source *source)
{
	if (atomic_load(&source->handed_over))
		return false;
	source_end(source);
	return true;
}

void source_end(struct source *source)
{
	tell_asked(source, &source->cancelled);
	transport_cancel_fd(source->cancel);
	if (source->transport)
		transport_cancel(source->transport);
	if (source->senders)
		senders_cancel(source->senders);
}

void source_continue(struct source *source) { tell_asked(source, &source->continued); }

void source_break(struct source *source)
{
	atomic_store(&source->broken, true);
	if (source->transport)
		transport_cancel(source->transport);
}

int source_postcopy(struct source *source, char *why, size_t size)
{
	(void)why;
	(void)size;
	atomic_store(&source->wants_postcopy, true);
	return 0;
}

int source_resume(struct source *source, const char *uri, char *why, size_t size)
{
	struct transport_uri parsed;
	char *copy = NULL;
	int error = transport_parse(&parsed, uri, why, size);

	if (!error && !(copy = strdup(uri))) {
		snprintf(why, size, "no memory");
		error = -ENOMEM;
	}
	if (error)
		return error;
	/* Its thread waits, and looks at nothing. */
	free(source->uri);
	source->uri = copy;
	tell_asked(source, &source->resumes);
	return 0;
}
