#include "migrate/source_parts.h"

#include <errno.h>
#include <string.h>

#include "migrate/postcopy.h"
#include "x86/paging.h"

/* Pages of a section: few, so that a page that is asked for is soon under way. */
#define BATCH_POSTCOPY 32u

/* Reads what has come on the return path; 1: the destination has everything. */
static int hear(struct source *source, bool waits)
{
	struct stream_section section;
	int ready = waits ? 1 : transport_poll(source->transport, 0), error;

	if (ready <= 0)
		return ready;
	error = source_read_back(source, &section);
	if (error)
		return error;
	if (section.type == STREAM_COMPLETE)
		return 1;
	return section.type == STREAM_WANTED
		       ? source_serve(source, &section.payload)
		       : source_fail(source, -EPROTO, "the destination says something out of place");
}

static int keep_to_postcopy_rate(struct source *source, uint64_t bytes)
{
	uint64_t ns = rate_wait(&source->rate, source_parameter(source, PARAMETER_MAX_POSTCOPY_BANDWIDTH),
				machine_now(), bytes);

	/* Not so long that who waits for a page would notice. */
	return ns ? transport_rest(source->transport, ns < 2000000 ? ns : 2000000) : 0;
}

/* Everything that is owed, what is asked for first, and behind that what lies next to it. 1: all has come. */
static int push(struct source *source)
{
	size_t end = source->pages.todo.bits;
	int error = 0;

	while (!error) {
		uint64_t left = pages_left(&source->pages), before = source->writer.bytes;

		atomic_store(&source->migration->counts.remaining, left * PAGE_SIZE);
		error = hear(source, left == 0);
		if (error || left == 0)
			continue;
		if (bitmap_next(&source->pages.todo, source->next) >= end)
			source->next = 0;
		source->totals.pages += pages_write(&source->pages, &source->writer, &source->next, end,
						    BATCH_POSTCOPY, NULL);
		error = source_flush(source);
		source_count(source);
		if (!error)
			error = keep_to_postcopy_rate(source, source->writer.bytes - before);
	}
	return error;
}

/* Takes out of what is to be sent what has come over the old connection. */
static int hear_held(struct source *source)
{
	struct bitmap *todo = &source->pages.todo;
	size_t words = bitmap_words(todo), known = 0;

	memcpy(todo->word, source->owed.word, words * 8);
	while (known < words) {
		struct stream_section section;
		size_t at;
		int error = source_await(source, &section, STREAM_HELD);

		if (error)
			return error;
		at = page_number(source->machine, stream_take_u64(&section.payload));
		if (at != known * 64 || section.payload.left % 8 || section.payload.left / 8 > words - known)
			return source_fail(source, -EPROTO, "the destination does not say what it has");
		while (section.payload.left)
			todo->word[known++] &= ~stream_take_u64(&section.payload);
	}
	return 0;
}

/* Another connection, to where somebody has named. */
static int link_up(struct source *source)
{
	struct migration *migration = source->migration;
	struct transport *transport;
	struct stream_input from = {.read = transport_read};
	struct stream_sink to = {.write = transport_write};
	uint16_t channel = (uint16_t)(POSTCOPY_CHANNEL + source->links++);
	char why[256];
	int error = transport_connect(&transport, source->uri, source->cancel, why, sizeof(why));

	if (error)
		return source_fail(source, error, "%s: %s", source->uri, why);
	pthread_mutex_lock(&migration->lock);
	source->transport = transport;
	pthread_mutex_unlock(&migration->lock);
	if (!transport->two_way)
		return source_fail(source, -EINVAL, "%s has no return path", source->uri);
	transport_limit(transport, source_limit_of(source, PARAMETER_STALL_TIMEOUT));
	from.owner = to.owner = transport;
	error = stream_writer_init(&source->writer, &to, &source->session, channel, STREAM_FORWARD);
	if (!error)
		error = transport_flush(transport);
	if (error)
		return source_fail_sending(source, error);
	if (stream_reader_init(&source->back, &from, &source->session, channel, STREAM_RETURN))
		return source_fail(source, -EPROTO, "the destination: %s", source->back.why);
	return hear_held(source);
}

static void drop_link(struct source *source)
{
	struct migration *migration = source->migration;

	pthread_mutex_lock(&migration->lock);
	if (source->transport)
		source->before += atomic_load(&source->transport->sent);
	transport_free(source->transport);
	source->transport = NULL;
	pthread_mutex_unlock(&migration->lock);
	stream_writer_free(&source->writer);
	stream_reader_free(&source->back);
	atomic_store(&source->broken, false);
}

/* What is still here is lost with this visor, so a connection that breaks is only a pause. 0, or -ECANCELED:
 * this visor ends. */
int source_push_owed(struct source *source)
{
	struct migration *migration = source->migration;
	int error;

	transport_limit(source->transport, -1);
	migration_set_status(migration, MIGRATION_POSTCOPY_ACTIVE);
	for (error = push(source); error != 1; error = error ? error : push(source)) {
		if (atomic_load(&source->cancelled))
			return -ECANCELED;
		if (atomic_load(&source->broken))
			source->why[0] = 0;
		source_fail(source, error, "%s",
			    atomic_load(&source->broken) ? "somebody has paused it" : strerror(-error));
		drop_link(source);
		atomic_store(&source->resumes, false);
		migration_set_error(migration, MIGRATION_POSTCOPY_PAUSED,
				    "%s; pages of the guest are still here: migrate-recover at the "
				    "destination and migrate with "
				    "resume here go on, and the guest is lost where the destination is gone",
				    source->why);
		if (source_wait_asked(source, &source->resumes))
			return -ECANCELED;
		source->why[0] = 0;
		migration_set_status(migration, MIGRATION_POSTCOPY_RECOVER);
		error = link_up(source);
		if (!error) {
			transport_limit(source->transport, -1);
			migration_set_status(migration, MIGRATION_POSTCOPY_ACTIVE);
		}
	}
	source_count(source);
	atomic_store(&migration->counts.postcopy_bytes,
		     atomic_load(&migration->counts.bytes) - atomic_load(&migration->counts.precopy_bytes) -
			     atomic_load(&migration->counts.downtime_bytes));
	return 0;
}
