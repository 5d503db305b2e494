#include "migrate/source.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "migrate/channels.h"
#include "migrate/converge.h"
#include "migrate/pages.h"
#include "migrate/postcopy.h"
#include "migrate/state.h"
#include "x86/paging.h"

/* Instructions of a turn of run() while a migration wants the machine's thread now and then; a fraction of a
 * millisecond. */
#define SLICE_MOVING (1u << 17)
/* Pages of a section: what one level of cache holds, and soon under way. */
#define BATCH          256u
#define BATCH_POSTCOPY 32u
/* How long the other side's reason is waited for after it has closed. */
#define REASON_MS 1000
/* How long disks are tried to be taken back, which the other side may be about to let go. */
#define DISKS_MS 3000

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
	pthread_mutex_t lock; /* of waiting for what is asked */
	pthread_cond_t asked;
	bool failed, lost;
	char why[STREAM_WHY + 200]; /* the first thing that went wrong */
};

/* ---- errors ---- */

__attribute__((format(printf, 3, 4))) static int fail(struct source *source, int error, const char *format,
						      ...)
{
	va_list arguments;

	if (!source->why[0]) {
		va_start(arguments, format);
		vsnprintf(source->why, sizeof(source->why), format, arguments);
		va_end(arguments);
	}
	return error;
}

/* A section of the return path; -EREMOTEIO where it says that the destination has failed. */
static int read_back(struct source *source, struct stream_section *section)
{
	char reason[STREAM_WHY];
	int error;

	do
		error = stream_read(&source->back, section);
	while (!error && section->type == STREAM_ALIVE);
	if (error == 1)
		return fail(source, -EPIPE, "the destination has closed the connection");
	if (error == -EPIPE)
		return fail(source, error, "the return path: %s", source->back.why);
	if (error == -EPROTO)
		return fail(source, error, "the return path: %s", source->back.why);
	if (error)
		return error;
	if (section->type != STREAM_FAILURE)
		return 0;
	stream_take_reason(&section->payload, reason, sizeof(reason));
	return fail(source, -EREMOTEIO, "the destination: %s", reason);
}

/* The return path begins with a head of its own, which comes with the destination's first words. */
static int open_back(struct source *source)
{
	const struct stream_input from = {.owner = source->transport, .read = transport_read};

	return source->back.room ? 0 : stream_reader_init(&source->back, &from, &source->session, 0, STREAM_RETURN);
}

/* What was written last did not go: the other side may have said why before it closed. */
static int sending_failed(struct source *source, int error)
{
	struct stream_section section;
	int left = 16;

	if ((error == -EPIPE || error == -ECONNRESET) && source->transport->two_way) {
		transport_limit(source->transport, REASON_MS);
		if (open_back(source) == 0)
			while (left-- && read_back(source, &section) == 0)
				;
	}
	if (error == -ETIMEDOUT)
		return fail(source, error, "the destination takes nothing any more");
	if (error == -EPIPE || error == -ECONNRESET)
		return fail(source, error, "the destination has closed the connection");
	return fail(source, error, "%s: %s", source->uri, strerror(-error));
}

static int flush(struct source *source)
{
	int error = source->writer.error ? source->writer.error : transport_flush(source->transport);

	return error ? sending_failed(source, error) : 0;
}

/* Pages that the guest waits for where it is now: they go first. */
static int serve(struct source *source, struct stream_cursor *payload)
{
	uint32_t count = stream_take_u32(payload);

	for (uint32_t i = 0; i < count; i++) {
		uint64_t address = stream_take_u64(payload);
		size_t number = page_number(source->machine, address);

		if (payload->over || address % PAGE_SIZE || number == SIZE_MAX)
			return fail(source, -EPROTO, "the destination wants a page that is none");
		atomic_fetch_add(&source->migration->counts.requests, 1);
		if (!bitmap_get(&source->pages.todo, number))
			continue; /* it is under way */
		source->next = number;
		source->totals.pages +=
			pages_write(&source->pages, &source->writer, &source->next, number + 1, 1, NULL);
	}
	if (!stream_taken(payload))
		return fail(source, -EPROTO, "the destination wants pages that are none");
	return flush(source);
}

/* Waits for a section of type @wanted. */
static int await(struct source *source, struct stream_section *section, enum stream_type wanted)
{
	int error;

	/* Loading may touch what is not there yet. */
	while (!(error = read_back(source, section)) && section->type == STREAM_WANTED && source->owed.word) {
		error = serve(source, &section->payload);
		if (error)
			return error;
	}

	if (error == -ETIMEDOUT)
		return fail(source, error, "the destination does not say %s", stream_type_name(wanted));
	if (error)
		return fail(source, error, "%s: %s", source->uri, strerror(-error));
	if (section->type != wanted)
		return fail(source, -EPROTO, "the destination says %s in place of %s",
			    stream_type_name(section->type) ? stream_type_name(section->type) : "something",
			    stream_type_name(wanted));
	return 0;
}

/* What the destination says while we send: only that it has failed. */
static int look_back(struct source *source)
{
	struct stream_section section;
	int ready;

	if (!source->transport->two_way)
		return 0;
	ready = transport_poll(source->transport, 0);
	if (ready <= 0)
		return ready;
	ready = read_back(source, &section);
	return ready ? ready
		     : fail(source, -EPROTO, "the destination says %s too early",
			    stream_type_name(section.type));
}

static uint64_t parameter(struct source *source, enum migration_parameter which)
{
	return migration_get_parameter(source->migration, which);
}

static int limit_of(struct source *source, enum migration_parameter which)
{
	uint64_t ms = parameter(source, which);

	return ms ? (int)ms : -1;
}

/* ---- setting up ---- */

static int connect_source(struct source *source)
{
	const struct stream_sink sink = {.write = transport_write};
	struct transport *transport;
	struct stream_sink to = sink;
	char why[256];
	int error = transport_connect(&transport, source->uri, why, sizeof(why));

	if (error)
		return fail(source, error, "%s: %s", source->uri, why);
	pthread_mutex_lock(&source->migration->lock);
	source->transport = transport;
	if (atomic_load(&source->cancelled))
		transport_cancel(transport);
	pthread_mutex_unlock(&source->migration->lock);
	transport_limit(transport, limit_of(source, PARAMETER_STALL_TIMEOUT));
	error = stream_session_new(&source->session);
	to.owner = transport;
	if (!error)
		error = stream_writer_init(&source->writer, &to, &source->session, 0, STREAM_FORWARD);
	return error ? fail(source, error, "%s: %s", source->uri, strerror(-error)) : 0;
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

	return several ? (unsigned)parameter(source, PARAMETER_MULTIFD_CHANNELS) : 0;
}

static bool compresses(struct source *source)
{
	return channels_of(source) && parameter(source, PARAMETER_MULTIFD_COMPRESSION) == COMPRESSION_ZSTD;
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
		.limit_ms = limit_of(source, PARAMETER_STALL_TIMEOUT),
		.cancelled = &source->cancelled,
	};
	struct senders *senders;
	char why[256];
	int error;

	if (config.count == 0)
		return 0;
	error = senders_new(&senders, &config, why, sizeof(why));
	if (error)
		return fail(source, error, "%s: %s", source->uri, why);
	pthread_mutex_lock(&source->migration->lock);
	source->senders = senders;
	pthread_mutex_unlock(&source->migration->lock);
	return 0;
}

static int send_description(struct source *source)
{
	struct description *description = calloc(1, sizeof(*description));
	struct stream_terms terms = {.touched = pages_left(&source->pages) * PAGE_SIZE,
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
		return fail(source, error, "the machine cannot be described: %s", strerror(-error));
	stream_put_terms(&source->writer, &terms);
	return flush(source);
}

static int hear_terms(struct source *source)
{
	struct stream_section section;
	int error = open_back(source);

	if (error)
		return fail(source, error, "the destination: %s", source->back.why);
	error = await(source, &section, STREAM_ACCEPTED);
	if (error)
		return error;
	source->agreed = stream_take_u32(&section.payload);
	if (!stream_taken(&section.payload))
		return fail(source, -EPROTO, "the destination's terms make no sense");
	if (migration_get_capability(source->migration, CAPABILITY_POSTCOPY_RAM) &&
	    !(source->agreed & STREAM_POSTCOPY))
		return fail(source, -ENOTSUP, "the destination cannot do postcopy-ram");
	if (compresses(source) && !(source->agreed & STREAM_ZSTD))
		return fail(source, -ENOTSUP, "the destination cannot do multifd-compression zstd");
	return 0;
}

static int set_up(struct source *source)
{
	struct migration *migration = source->migration;
	int error = connect_source(source), blobs;

	if (!error && channels_of(source) &&
	    (!source->transport->two_way || strncmp(source->uri, "fd:", 3) == 0))
		return fail(source, -EINVAL, "%s is one connection, and multifd needs several", source->uri);
	if (!error && !source->transport->two_way &&
	    migration_get_capability(migration, CAPABILITY_POSTCOPY_RAM))
		return fail(source, -EINVAL, "%s has no return path, which postcopy-ram needs", source->uri);
	if (!error)
		error = pages_init(&source->pages, source->machine);
	if (!error)
		error = parts_init(&source->parts, source->machine);
	source->has_state = !error;
	if (error)
		return fail(source, error, "%s", strerror(-error));
	/* First the log, then what there is: a page that is touched between the two is in both. */
	error = gate_call(migration->gate, begin_logging, source);
	if (error)
		return fail(source, error, "the guest has ended");
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
		return sending_failed(source, blobs);
	source->totals.blobs = (uint32_t)blobs;
	return flush(source);
}

/* ---- a round ---- */

static void count(struct source *source)
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
	uint64_t ns =
		rate_wait(&source->rate, parameter(source, PARAMETER_MAX_BANDWIDTH), machine_now(), bytes);

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

		pages = pages_write(&source->pages, &source->writer, &at, end, BATCH, NULL);
		source->totals.pages += pages;
		left -= pages < left ? pages : left;
		if (source->writer.error)
			return sending_failed(source, source->writer.error);
		error = look_back(source);
		count(source);
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
	return flush(source);
}

static int send_channels(struct source *source, bool gently)
{
	uint64_t sent;
	char why[300];
	int error = senders_round(source->senders, source->senders_rounds++,
				  gently ? parameter(source, PARAMETER_MAX_BANDWIDTH) : 0,
				  gently ? &source->wants_postcopy : NULL, &sent, &source->rested, why,
				  sizeof(why));

	source->totals.pages += sent;
	count(source);
	/* The other side may have said why on channel 0. */
	if (error == -EPIPE && look_back(source) == 0)
		return fail(source, error, "%s", why);
	return error ? error : look_back(source);
}

/* One round and its line in the history; @dirty is found later. */
static int send_round(struct source *source, bool gently, struct migration_round *round)
{
	uint64_t pages = source->totals.pages, bytes = atomic_load(&source->migration->counts.bytes);
	int error;

	round->began = machine_now();
	source->rested = 0;
	error = source->senders ? send_channels(source, gently) : send_pages(source, gently);
	round->pages = source->totals.pages - pages;
	if (!error)
		error = end_round(source, source->senders ? 0 : round->pages);
	count(source);
	round->took = machine_now() - round->began;
	round->bytes = atomic_load(&source->migration->counts.bytes) - bytes;
	return error;
}

static void take_log(void *owner)
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

static void tell_round(struct source *source, struct migration_round *round)
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
		.downtime = parameter(source, PARAMETER_DOWNTIME_LIMIT) * 1000000u,
		.bandwidth = parameter(source, PARAMETER_AVAIL_SWITCHOVER_BANDWIDTH),
		.throttles = migration_get_capability(source->migration, CAPABILITY_AUTO_CONVERGE),
		.initial = (unsigned)parameter(source, PARAMETER_CPU_THROTTLE_INITIAL),
		.increment = (unsigned)parameter(source, PARAMETER_CPU_THROTTLE_INCREMENT),
		.most = (unsigned)parameter(source, PARAMETER_MAX_CPU_THROTTLE),
		.threshold = (unsigned)parameter(source, PARAMETER_THROTTLE_TRIGGER_THRESHOLD),
	};
}

static int precopy(struct source *source)
{
	struct migration *migration = source->migration;
	struct migration_counts *counts = &migration->counts;
	bool enough = false;

	while (!enough && !atomic_load(&source->wants_postcopy)) {
		struct converge_limits limits = limits_of(source);
		struct migration_round round;
		int error = send_round(source, true, &round);

		if (!error && gate_call(migration->gate, take_log, source))
			error = fail(source, -ESHUTDOWN, "the guest has ended");
		if (error)
			return error;
		tell_round(source, &round);
		enough = converge_round(&source->converge, &limits, round.bytes, round.took - source->rested,
					round.took, round.dirty * PAGE_SIZE);
		atomic_store(&counts->throughput, source->converge.throughput);
		atomic_store(&counts->expected, source->converge.expected);
		atomic_store(&counts->throttle, source->converge.throttle);
		gate_throttle(migration->gate, source->converge.throttle);
	}
	return 0;
}

/* ---- stop, the rest, and hand-over: the machine's thread, from here to finish() ---- */

static int write_owed(struct source *source)
{
	const struct bitmap *todo = &source->pages.todo;
	size_t most = STREAM_PAYLOAD_MAX / 16, words = bitmap_words(todo); /* words of a section */

	/* Sections do not straddle the hole below 4 GiB. */
	for (size_t word = 0; word < words;) {
		size_t low = memory_low(source->machine->config.memory) / PAGE_SIZE / 64;
		size_t end = word < low && low < words ? low : words;
		size_t part = end - word < most ? end - word : most;

		stream_begin(&source->writer, STREAM_OWED);
		stream_put_u64(&source->writer, page_address(source->machine, word * 64));
		stream_put(&source->writer, todo->word + word, part * 8);
		if (stream_end(&source->writer))
			break;
		word += part;
	}
	source->totals.owed = bitmap_count(todo);
	/* The destination has none of these any more, so that zeros must be said. */
	if (bitmap_init(&source->owed, todo->bits))
		return fail(source, -ENOMEM, "no memory for a list of pages");
	for (size_t word = 0; word < words; word++) {
		source->owed.word[word] = todo->word[word];
		source->pages.sent.word[word] |= todo->word[word];
	}
	return flush(source);
}

static int send_state(struct source *source)
{
	int parts = parts_write(&source->parts, &source->writer, PARTS_ALL);

	if (parts < 0)
		return source->writer.error
			       ? sending_failed(source, parts)
			       : fail(source, parts, "the state of the machine: %s", strerror(-parts));
	source->totals.parts = (uint32_t)parts;
	if (source->migration->config.disks_close) {
		source->migration->config.disks_close(source->migration->config.owner);
		source->disks_closed = true;
	}
	stream_put_totals(&source->writer, &source->totals);
	return flush(source);
}

/* Behind this the guest is the destination's, whether it says so or not. */
static int give_up(struct source *source)
{
	struct migration *migration = source->migration;
	bool cancelled;
	int error;

	pthread_mutex_lock(&migration->lock);
	cancelled = atomic_load(&source->cancelled);
	atomic_store(&source->handed_over, !cancelled);
	pthread_mutex_unlock(&migration->lock);
	if (cancelled)
		return -ECANCELED;
	stream_begin(&source->writer, STREAM_HAND_OVER);
	stream_put_u8(&source->writer, (gate_held(migration->gate) & HOLD_USER) != 0);
	stream_end(&source->writer);
	error = flush(source);
	/* A socket that takes nothing of it has not sent it either. */
	if (error)
		atomic_store(&source->handed_over, false);
	return error;
}

static int hand_over(struct source *source)
{
	struct stream_section section;
	int error = 0;

	if (source->transport->two_way)
		error = await(source, &section, STREAM_READY);
	if (!error)
		error = give_up(source);
	if (!error && !source->transport->two_way) {
		error = transport_commit(source->transport);
		if (error) {
			atomic_store(&source->handed_over, false);
			return fail(source, error, "%s: %s", source->uri, strerror(-error));
		}
	}
	if (error || !source->transport->two_way)
		return error;
	error = await(source, &section, STREAM_RUNNING);
	/* It says itself that it does not run it. */
	if (error == -EREMOTEIO)
		atomic_store(&source->handed_over, false);
	return error;
}

static int stop_and_copy(struct source *source)
{
	struct migration_round round = {0};
	int error = 0;

	take_log(source);
	count(source);
	atomic_store(&source->migration->counts.precopy_bytes, atomic_load(&source->migration->counts.bytes));
	if (atomic_load(&source->wants_postcopy)) {
		error = write_owed(source);
	} else {
		error = send_round(source, false, &round);
		if (!error)
			tell_round(source, &round);
	}
	if (!error)
		error = send_state(source);
	return error ? error : hand_over(source);
}

static int open_disks(struct source *source)
{
	const struct migration_config *config = &source->migration->config;
	uint64_t until = machine_now() + DISKS_MS * 1000000ull;
	const struct timespec pause = {.tv_nsec = 10000000};
	char why[256];
	int error;

	if (!source->disks_closed || !config->disks_open)
		return 0;
	while ((error = config->disks_open(config->owner, why, sizeof(why))) && machine_now() < until)
		nanosleep(&pause, NULL);
	if (error)
		fail(source, error, "%s", why);
	source->disks_closed = error != 0;
	return error;
}

/* Until hand-over the guest goes on here. */
static void go_on(struct source *source)
{
	struct migration *migration = source->migration;

	if (open_disks(source)) {
		size_t used = strlen(source->why);

		snprintf(source->why + used, sizeof(source->why) - used,
			 "; its disks cannot be opened again, so the guest stays stopped until `cont`");
		gate_hold(migration->gate, HOLD_UNSURE);
	}
	gate_release(migration->gate, HOLD_MOVING);
	atomic_store(&migration->counts.resumed, machine_now());
	if (migration->config.resumed && !gate_held(migration->gate))
		migration->config.resumed(migration->config.owner);
}

static void tell_lost(struct source *source)
{
	char reason[sizeof(source->why)];

	memcpy(reason, source->why, sizeof(reason));
	snprintf(source->why, sizeof(source->why),
		 "the guest was handed over and the destination has not said that it runs (%.200s); it stays "
		 "stopped here until "
		 "`cont`, which is right only where it does not run there",
		 reason);
	source->lost = true;
}

static void finish(void *owner)
{
	struct source *source = owner;
	struct migration *migration = source->migration;
	struct migration_counts *counts = &migration->counts;
	bool ran = !(gate_held(migration->gate) & ~(unsigned)HOLD_MOVING);
	int error;

	gate_hold(migration->gate, HOLD_MOVING);
	atomic_store(&counts->stopped, machine_now());
	transport_limit(source->transport, limit_of(source, PARAMETER_SWITCHOVER_TIMEOUT));
	error = stop_and_copy(source);
	atomic_store(&counts->resumed, machine_now());
	count(source);
	atomic_store(&counts->downtime_bytes,
		     atomic_load(&counts->bytes) - atomic_load(&counts->precopy_bytes));
	source->failed = error != 0;
	if (!error)
		gate_hold(migration->gate, HOLD_MOVED);
	if (error && atomic_load(&source->handed_over)) {
		fail(source, error, "%s", strerror(-error));
		tell_lost(source);
		gate_hold(migration->gate, HOLD_UNSURE);
	}
	if (ran && migration->config.stopped)
		migration->config.stopped(migration->config.owner);
	if (error && !source->lost)
		go_on(source);
	else
		gate_release(migration->gate, HOLD_MOVING);
}

/* ---- waiting for people ---- */

/* Until @flag, or a cancel. */
static int wait_asked(struct source *source, atomic_bool *flag)
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

static int switch_over(struct source *source)
{
	struct migration *migration = source->migration;

	if (migration_get_capability(migration, CAPABILITY_PAUSE_BEFORE_SWITCHOVER) &&
	    !atomic_load(&source->wants_postcopy)) {
		int error;

		gate_hold(migration->gate, HOLD_MOVING);
		migration_set_status(migration, MIGRATION_PRE_SWITCHOVER);
		error = wait_asked(source, &source->continued);
		if (error) {
			gate_release(migration->gate, HOLD_MOVING);
			return error;
		}
	}
	migration_set_status(migration, MIGRATION_DEVICE);
	if (gate_call(migration->gate, finish, source))
		return fail(source, -ESHUTDOWN, "the guest has ended");
	return source->failed ? -EIO : 0;
}

/* ---- behind the switch ---- */

/* Reads what has come on the return path; 1: the destination has everything. */
static int hear(struct source *source, bool waits)
{
	struct stream_section section;
	int ready = waits ? 1 : transport_poll(source->transport, 0), error;

	if (ready <= 0)
		return ready;
	error = read_back(source, &section);
	if (error)
		return error;
	if (section.type == STREAM_COMPLETE)
		return 1;
	return section.type == STREAM_WANTED
		       ? serve(source, &section.payload)
		       : fail(source, -EPROTO, "the destination says something out of place");
}

static int keep_to_postcopy_rate(struct source *source, uint64_t bytes)
{
	uint64_t ns = rate_wait(&source->rate, parameter(source, PARAMETER_MAX_POSTCOPY_BANDWIDTH),
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
		error = flush(source);
		count(source);
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
		int error = await(source, &section, STREAM_HELD);

		if (error)
			return error;
		at = page_number(source->machine, stream_take_u64(&section.payload));
		if (at != known * 64 || section.payload.left % 8 || section.payload.left / 8 > words - known)
			return fail(source, -EPROTO, "the destination does not say what it has");
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
	int error = transport_connect(&transport, source->uri, why, sizeof(why));

	if (error)
		return fail(source, error, "%s: %s", source->uri, why);
	pthread_mutex_lock(&migration->lock);
	source->transport = transport;
	pthread_mutex_unlock(&migration->lock);
	if (!transport->two_way)
		return fail(source, -EINVAL, "%s has no return path", source->uri);
	transport_limit(transport, limit_of(source, PARAMETER_STALL_TIMEOUT));
	from.owner = to.owner = transport;
	error = stream_writer_init(&source->writer, &to, &source->session, channel, STREAM_FORWARD);
	if (!error)
		error = transport_flush(transport);
	if (error)
		return sending_failed(source, error);
	if (stream_reader_init(&source->back, &from, &source->session, channel, STREAM_RETURN))
		return fail(source, -EPROTO, "the destination: %s", source->back.why);
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
static int postcopy(struct source *source)
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
		fail(source, error, "%s",
		     atomic_load(&source->broken) ? "somebody has paused it" : strerror(-error));
		drop_link(source);
		atomic_store(&source->resumes, false);
		migration_set_error(migration, MIGRATION_POSTCOPY_PAUSED,
				    "%s; pages of the guest are still here: migrate-recover at the "
				    "destination and migrate with "
				    "resume here go on, and the guest is lost where the destination is gone",
				    source->why);
		if (wait_asked(source, &source->resumes))
			return -ECANCELED;
		source->why[0] = 0;
		migration_set_status(migration, MIGRATION_POSTCOPY_RECOVER);
		error = link_up(source);
		if (!error) {
			transport_limit(source->transport, -1);
			migration_set_status(migration, MIGRATION_POSTCOPY_ACTIVE);
		}
	}
	count(source);
	atomic_store(&migration->counts.postcopy_bytes,
		     atomic_load(&migration->counts.bytes) - atomic_load(&migration->counts.precopy_bytes) -
			     atomic_load(&migration->counts.downtime_bytes));
	return 0;
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
		count(source);
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
	int error = set_up(source);

	if (!error) {
		atomic_store(&migration->counts.set_up, machine_now());
		migration_set_status(migration, MIGRATION_ACTIVE);
		error = precopy(source);
	}
	if (!error)
		error = switch_over(source);
	if (!error && source->owed.word)
		error = postcopy(source);
	end_source(source, error);
	return NULL;
}

int source_start(struct migration *migration, const char *uri, char *why, size_t size)
{
	struct source *source = calloc(1, sizeof(*source));
	struct transport_uri parsed;
	int error = transport_parse(&parsed, uri, why, size);

	if (!error && source)
		source->uri = strdup(uri);
	if (!error && (!source || !source->uri)) {
		snprintf(why, size, "no memory");
		error = -ENOMEM;
	}
	if (error) {
		free(source);
		return error;
	}
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
	free(source->uri);
	free(source);
}

/* With migration->lock. */
void source_cancel(struct source *source)
{
	if (atomic_load(&source->handed_over))
		return;
	tell_asked(source, &source->cancelled);
	if (source->transport)
		transport_cancel(source->transport);
	if (source->senders)
		senders_cancel(source->senders);
}

void source_end(struct source *source)
{
	tell_asked(source, &source->cancelled);
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
