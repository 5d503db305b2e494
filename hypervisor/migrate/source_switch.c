#include "migrate/source_parts.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "x86/paging.h"

/* How long disks are tried to be taken back, which the other side may be about to let go. */
#define DISKS_MS 3000

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
		return source_fail(source, -ENOMEM, "no memory for a list of pages");
	for (size_t word = 0; word < words; word++) {
		source->owed.word[word] = todo->word[word];
		source->pages.sent.word[word] |= todo->word[word];
	}
	return source_flush(source);
}

static int send_state(struct source *source)
{
	int parts = parts_write(&source->parts, &source->writer, PARTS_ALL);

	if (parts < 0)
		return source->writer.error
			       ? source_fail_sending(source, parts)
			       : source_fail(source, parts, "the state of the machine: %s", strerror(-parts));
	source->totals.parts = (uint32_t)parts;
	if (source->migration->config.disks_close) {
		source->migration->config.disks_close(source->migration->config.owner);
		source->disks_closed = true;
	}
	stream_put_totals(&source->writer, &source->totals);
	return source_flush(source);
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
	error = source_flush(source);
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
		error = source_await(source, &section, STREAM_READY);
	if (!error)
		error = give_up(source);
	if (!error && !source->transport->two_way) {
		error = transport_commit(source->transport);
		if (error) {
			atomic_store(&source->handed_over, false);
			return source_fail(source, error, "%s: %s", source->uri, strerror(-error));
		}
	}
	if (error || !source->transport->two_way)
		return error;
	error = source_await(source, &section, STREAM_RUNNING);
	/* It says itself that it does not run it. */
	if (error == -EREMOTEIO)
		atomic_store(&source->handed_over, false);
	return error;
}

static int stop_and_copy(struct source *source)
{
	struct migration_round round = {0};
	int error = 0;

	source_take_log(source);
	source_count(source);
	atomic_store(&source->migration->counts.precopy_bytes, atomic_load(&source->migration->counts.bytes));
	if (atomic_load(&source->wants_postcopy)) {
		error = write_owed(source);
	} else {
		error = source_send_round(source, false, &round);
		if (!error)
			source_tell_round(source, &round);
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
		source_fail(source, error, "%s", why);
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
	transport_limit(source->transport, source_limit_of(source, PARAMETER_SWITCHOVER_TIMEOUT));
	error = stop_and_copy(source);
	atomic_store(&counts->resumed, machine_now());
	source_count(source);
	atomic_store(&counts->downtime_bytes,
		     atomic_load(&counts->bytes) - atomic_load(&counts->precopy_bytes));
	source->failed = error != 0;
	if (!error)
		gate_hold(migration->gate, HOLD_MOVED);
	if (error && atomic_load(&source->handed_over)) {
		source_fail(source, error, "%s", strerror(-error));
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

/* ---- the source's thread ---- */

int source_switch_over(struct source *source)
{
	struct migration *migration = source->migration;

	if (migration_get_capability(migration, CAPABILITY_PAUSE_BEFORE_SWITCHOVER) &&
	    !atomic_load(&source->wants_postcopy)) {
		int error;

		gate_hold(migration->gate, HOLD_MOVING);
		migration_set_status(migration, MIGRATION_PRE_SWITCHOVER);
		error = source_wait_asked(source, &source->continued);
		if (error) {
			gate_release(migration->gate, HOLD_MOVING);
			return error;
		}
	}
	migration_set_status(migration, MIGRATION_DEVICE);
	if (gate_call(migration->gate, finish, source))
		return source_fail(source, -ESHUTDOWN, "the guest has ended");
	return source->failed ? -EIO : 0;
}
