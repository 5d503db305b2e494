#include "migrate/source_parts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "x86/paging.h"

/* Instructions of a turn of run() while a migration wants the machine's thread now and then; a fraction of a
 * millisecond. */
#define SLICE_MOVING (1u << 17)

static int connect_source(struct source *source)
{
	const struct stream_sink sink = {.write = transport_write};
	struct transport *transport;
	struct stream_sink to = sink;
	char why[256];
	int error = transport_connect(&transport, source->uri, source->cancel, why, sizeof(why));

	if (error)
		return source_fail(source, error, "%s: %s", source->uri, why);
	pthread_mutex_lock(&source->migration->lock);
	source->transport = transport;
	if (atomic_load(&source->cancelled))
		transport_cancel(transport);
	pthread_mutex_unlock(&source->migration->lock);
	transport_limit(transport, source_limit_of(source, PARAMETER_STALL_TIMEOUT));
	error = stream_session_new(&source->session);
	to.owner = transport;
	if (!error)
		error = stream_writer_init(&source->writer, &to, &source->session, 0, STREAM_FORWARD);
	return error ? source_fail(source, error, "%s: %s", source->uri, strerror(-error)) : 0;
}

static void begin_logging(void *owner)
{
	struct source *source = owner;
	const struct engine_ops *ops = source->machine->engine->ops;

	ops->dirty_reset(source->machine->engine);
	source->machine->slice = SLICE_MOVING;
	source->logs = true;
	source->synced = machine_now();
}

static unsigned channels_of(struct source *source)
{
	bool several = migration_get_capability(source->migration, CAPABILITY_MULTIFD);

	return several ? (unsigned)source_parameter(source, PARAMETER_MULTIFD_CHANNELS) : 0;
}

static bool compresses(struct source *source)
{
	return channels_of(source) &&
	       source_parameter(source, PARAMETER_MULTIFD_COMPRESSION) == COMPRESSION_ZSTD;
}

static int open_channels(struct source *source)
{
	struct senders_config config = {
		.migration = source->migration,
		.pages = &source->pages,
		.uri = source->uri,
		.session = source->session,
		.count = channels_of(source),
		.compress = compresses(source),
		.limit_ms = source_limit_of(source, PARAMETER_STALL_TIMEOUT),
		.cancelled = &source->cancelled,
		.cancel = source->cancel,
	};
	struct senders *senders;
	char why[256];
	int error;

	if (config.count == 0)
		return 0;
	error = senders_new(&senders, &config, why, sizeof(why));
	if (error)
		return source_fail(source, error, "%s: %s", source->uri, why);
	pthread_mutex_lock(&source->migration->lock);
	source->senders = senders;
	pthread_mutex_unlock(&source->migration->lock);
	return 0;
}

static int send_description(struct source *source)
{
	struct description *description = calloc(1, sizeof(*description));
	struct stream_terms terms = {.features = source->transport->two_way ? STREAM_CATCHES_UP : 0,
				     .touched = pages_left(&source->pages) * PAGE_SIZE,
				     .channels = (uint16_t)channels_of(source)};
	int error = description ? describe_machine(description, source->machine) : -ENOMEM;

	if (migration_get_capability(source->migration, CAPABILITY_POSTCOPY_RAM))
		terms.features |= STREAM_POSTCOPY;
	if (compresses(source))
		terms.features |= STREAM_ZSTD;
	if (!error)
		describe_write(description, &source->writer);
	free(description);
	if (error)
		return source_fail(source, error, "the machine cannot be described: %s", strerror(-error));
	stream_put_terms(&source->writer, &terms);
	return source_flush(source);
}

static int hear_terms(struct source *source)
{
	struct stream_section section;
	int error = source_open_back(source);

	if (error)
		return source_fail(source, error, "the destination: %s", source->back.why);
	error = source_await(source, &section, STREAM_ACCEPTED);
	if (error)
		return error;
	source->agreed = stream_take_u32(&section.payload);
	if (!stream_taken(&section.payload))
		return source_fail(source, -EPROTO, "the destination's terms make no sense");
	if (migration_get_capability(source->migration, CAPABILITY_POSTCOPY_RAM) &&
	    !(source->agreed & STREAM_POSTCOPY))
		return source_fail(source, -ENOTSUP, "the destination cannot do postcopy-ram");
	if (compresses(source) && !(source->agreed & STREAM_ZSTD))
		return source_fail(source, -ENOTSUP, "the destination cannot do multifd-compression zstd");
	return 0;
}

int source_set_up(struct source *source)
{
	struct migration *migration = source->migration;
	int error = connect_source(source), blobs;

	if (!error && channels_of(source) &&
	    (!source->transport->two_way || strncmp(source->uri, "fd:", 3) == 0))
		return source_fail(source, -EINVAL, "%s is one connection, and multifd needs several",
				   source->uri);
	if (!error && !source->transport->two_way &&
	    migration_get_capability(migration, CAPABILITY_POSTCOPY_RAM))
		return source_fail(source, -EINVAL, "%s has no return path, which postcopy-ram needs",
				   source->uri);
	if (!error)
		error = pages_init(&source->pages, source->machine);
	if (!error)
		error = parts_init(&source->parts, source->machine);
	source->has_state = !error;
	if (error)
		return source_fail(source, error, "%s", strerror(-error));
	/* First the log, then what there is: a page that is touched between the two is in both. */
	error = gate_call(migration->gate, begin_logging, source);
	if (error)
		return source_fail(source, error, "the guest has ended");
	bitmap_touched(&source->pages.todo, source->machine->ram);
	atomic_store(&migration->counts.total, source->machine->config.memory);
	atomic_store(&migration->counts.remaining, pages_left(&source->pages) * PAGE_SIZE);
	error = send_description(source);
	if (!error && source->transport->two_way)
		error = hear_terms(source);
	if (!error)
		error = open_channels(source);
	if (error)
		return error;
	blobs = blobs_write(source->machine, &source->writer);
	if (blobs < 0)
		return source_fail_sending(source, blobs);
	source->totals.blobs = (uint32_t)blobs;
	return source_flush(source);
}
