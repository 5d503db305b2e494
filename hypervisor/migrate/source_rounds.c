#include "migrate/source_parts.h"

#include <errno.h>

#include "x86/paging.h"

/* ---- a round ---- */

void source_count(struct source *source)
{
	struct migration_counts *counts = &source->migration->counts;

	uint64_t channels = source->senders ? senders_bytes(source->senders) : 0;

	atomic_store(&counts->channel_bytes, channels);
	atomic_store(&counts->bytes, source->before + channels + atomic_load(&source->transport->sent));
	atomic_store(&counts->zero_pages, atomic_load(&source->pages.zero));
	atomic_store(&counts->sent_pages, atomic_load(&source->pages.normal));
}

static int keep_to_rate(struct source *source, uint64_t bytes)
{
	uint64_t ns = rate_wait(&source->rate, source_parameter(source, PARAMETER_MAX_BANDWIDTH),
				machine_now(), bytes);

	if (ns == 0)
		return 0;
	source->rested += ns;
	return transport_rest(source->transport, ns);
}

/* Sends what is to be sent; @gently keeping to the limits, and stopping where the guest is to go ahead. */
static int send_pages(struct source *source, bool gently)
{
	size_t at = 0, end = source->pages.todo.bits;
	uint64_t left = pages_left(&source->pages);

	while (at < end) {
		uint64_t before = source->writer.bytes, pages;
		int error;

		at = bitmap_next(&source->pages.todo, at);
		pages = pages_write(&source->pages, &source->writer, &at, pages_stop(&source->pages, at),
				    STREAM_PAGES_MAX, NULL);
		source->totals.pages += pages;
		left -= pages < left ? pages : left;
		if (source->writer.error)
			return source_fail_sending(source, source->writer.error);
		error = source_look_back(source);
		source_count(source);
		atomic_store(&source->migration->counts.remaining, left * PAGE_SIZE);
		if (!error && gently)
			error = keep_to_rate(source, source->writer.bytes - before);
		if (!error && atomic_load(&source->cancelled))
			error = -ECANCELED;
		if (error)
			return error;
		if (gently && atomic_load(&source->wants_postcopy))
			break;
	}
	return 0;
}

static int end_round(struct source *source, uint64_t pages)
{
	const struct stream_round round = {.number = source->rounds++, .pages = pages};

	stream_put_round(&source->writer, &round);
	return source_flush(source);
}

static int send_channels(struct source *source, bool gently)
{
	uint64_t sent;
	char why[300];
	int error = senders_round(source->senders, source->senders_rounds++,
				  gently ? source_parameter(source, PARAMETER_MAX_BANDWIDTH) : 0,
				  gently ? &source->wants_postcopy : NULL, &sent, &source->rested, why,
				  sizeof(why));

	source->totals.pages += sent;
	source_count(source);
	/* The other side may have said why on channel 0. */
	if (error == -EPIPE && source_look_back(source) == 0)
		return source_fail(source, error, "%s", why);
	return error ? error : source_look_back(source);
}

/* What the destination has not taken yet would make the guest wait for it, once it is stopped. */
static int catch_up(struct source *source)
{
	const uint32_t number = source->rounds;
	struct stream_section section;
	int error;

	if (!(source->agreed & STREAM_CATCHES_UP))
		return 0;
	stream_begin(&source->writer, STREAM_CATCH_UP);
	stream_put_u32(&source->writer, number);
	stream_end(&source->writer);
	error = source_flush(source);
	if (!error)
		error = source_await(source, &section, STREAM_CAUGHT_UP);
	if (!error && (stream_take_u32(&section.payload) != number || !stream_taken(&section.payload)))
		error = source_fail(source, -EPROTO, "the destination has caught up with another round");
	return error;
}

int source_send_round(struct source *source, bool gently, struct migration_round *round)
{
	uint64_t pages = source->totals.pages, bytes = atomic_load(&source->migration->counts.bytes);
	int error;

	round->began = machine_now();
	source->rested = 0;
	error = source->senders ? send_channels(source, gently) : send_pages(source, gently);
	round->pages = source->totals.pages - pages;
	if (!error)
		error = end_round(source, source->senders ? 0 : round->pages);
	if (!error && gently)
		error = catch_up(source);
	source_count(source);
	round->took = machine_now() - round->began;
	round->bytes = atomic_load(&source->migration->counts.bytes) - bytes;
	return error;
}

void source_take_log(void *owner)
{
	struct source *source = owner;
	struct migration_counts *counts = &source->migration->counts;
	uint64_t at = machine_now(), pages = pages_sync(&source->pages);

	if (at > source->synced)
		atomic_store(&counts->dirty_rate,
			     (uint64_t)((double)pages * 1e9 / (double)(at - source->synced)));
	source->synced = at;
	atomic_fetch_add(&counts->syncs, 1);
}

void source_tell_round(struct source *source, struct migration_round *round)
{
	round->dirty = pages_left(&source->pages);
	round->began -= atomic_load(&source->migration->counts.began);
	migration_add_round(source->migration, round);
	atomic_store(&source->migration->counts.remaining, round->dirty * PAGE_SIZE);
}

/* ---- pre-copy ---- */

static struct converge_limits limits_of(struct source *source)
{
	return (struct converge_limits){
		.downtime = source_parameter(source, PARAMETER_DOWNTIME_LIMIT) * 1000000u,
		.bandwidth = source_parameter(source, PARAMETER_AVAIL_SWITCHOVER_BANDWIDTH),
		.throttles = migration_get_capability(source->migration, CAPABILITY_AUTO_CONVERGE),
		.initial = (unsigned)source_parameter(source, PARAMETER_CPU_THROTTLE_INITIAL),
		.increment = (unsigned)source_parameter(source, PARAMETER_CPU_THROTTLE_INCREMENT),
		.most = (unsigned)source_parameter(source, PARAMETER_MAX_CPU_THROTTLE),
		.threshold = (unsigned)source_parameter(source, PARAMETER_THROTTLE_TRIGGER_THRESHOLD),
	};
}

int source_precopy(struct source *source)
{
	struct migration *migration = source->migration;
	struct migration_counts *counts = &migration->counts;
	bool enough = false;

	while (!enough && !atomic_load(&source->wants_postcopy)) {
		struct converge_limits limits = limits_of(source);
		struct migration_round round;
		int error = source_send_round(source, true, &round);

		if (!error && gate_call(migration->gate, source_take_log, source))
			error = source_fail(source, -ESHUTDOWN, "the guest has ended");
		if (error)
			return error;
		source_tell_round(source, &round);
		enough = converge_round(&source->converge, &limits, round.bytes, round.took - source->rested,
					round.took, round.dirty * PAGE_SIZE);
		atomic_store(&counts->throughput, source->converge.throughput);
		atomic_store(&counts->expected, source->converge.expected);
		atomic_store(&counts->throttle, source->converge.throttle);
		gate_throttle(migration->gate, source->converge.throttle);
	}
	return 0;
}
