#include "migrate/incoming.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "migrate/channels.h"
#include "migrate/pages.h"
#include "migrate/placer.h"
#include "migrate/postcopy.h"
#include "migrate/state.h"
#include "x86/paging.h"

struct incoming {
	struct migration *migration;
	struct transport_listener *listener;
	struct postcopy_link link; /* its transport: migration->lock, where another thread looks at it */
	struct postcopy *postcopy; /* which has the link, from the switch on */
	struct bitmap owed;
	struct receivers *receivers; /* NULL: everything comes over one connection */
	struct description *there;
	struct stream_terms terms;
	struct machine *machine;
	struct parts parts;
	struct blobs blobs;
	struct placer *placer;
	struct stream_totals come;
	bool has_parts, owns; /* owns: HAND_OVER has come */
	bool failed, stays;   /* it is over, and no guest has come; another may */
	uint32_t rounds;
	uint64_t round_pages; /* that had come when this round began */
	char why[STREAM_WHY + 200];
};

__attribute__((format(printf, 3, 4))) static int fail(struct incoming *incoming, int error,
						      const char *format, ...)
{
	va_list arguments;

	if (!incoming->why[0]) {
		va_start(arguments, format);
		vsnprintf(incoming->why, sizeof(incoming->why), format, arguments);
		va_end(arguments);
	}
	return error;
}

/* ---- what it says ---- */

static int say(struct incoming *incoming)
{
	int error = incoming->link.back.error;

	if (!error)
		error = transport_flush(incoming->link.transport);
	return error ? fail(incoming, error, "the return path: %s", strerror(-error)) : 0;
}

/* The reason goes back, if anything still can. */
static void say_failure(struct incoming *incoming)
{
	if (incoming->postcopy)
		postcopy_say_failure(incoming->postcopy, incoming->why);
	if (!incoming->link.back.room || incoming->link.back.error)
		return;
	transport_limit(incoming->link.transport, 1000);
	stream_send_text(&incoming->link.back, STREAM_FAILURE, incoming->why);
	transport_flush(incoming->link.transport);
}

/* ---- the machine ---- */

/* Bytes of memory that this system could give; UINT64_MAX: it does not say. */
static uint64_t memory_available(void)
{
	FILE *file = fopen("/proc/meminfo", "re");
	unsigned long long kib = UINT64_MAX / 1024;
	char line[128];

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1)
			break;
	if (file)
		fclose(file);
	return kib * 1024;
}

static int make_machine(struct incoming *incoming)
{
	struct migration *migration = incoming->migration;
	uint64_t available = memory_available();
	char why[STREAM_WHY] = "";
	int error = 0;

	if (incoming->terms.touched > available)
		error = fail(incoming, -ENOMEM,
			     "memory: the guest has filled %llu MiB, and %llu MiB are free here",
			     (unsigned long long)incoming->terms.touched >> 20,
			     (unsigned long long)available >> 20);
	if (!error) {
		error = migration->config.make(migration->config.owner, incoming->there, &incoming->machine,
					       why, sizeof(why));
		if (error)
			fail(incoming, error, "%s", why);
	}
	if (!error) {
		error = describe_accept(incoming->there, incoming->machine, why, sizeof(why));
		if (error)
			fail(incoming, error, "%s", why);
	}
	if (!error)
		error = parts_init(&incoming->parts, incoming->machine);
	incoming->has_parts = !error;
	if (!error)
		error = placer_new(&incoming->placer, incoming->machine);
	return error ? fail(incoming, error, "no machine: %s", strerror(-error)) : 0;
}

static int accept_terms(struct incoming *incoming)
{
	uint32_t agreed = incoming->terms.features &
			  (STREAM_ZSTD | STREAM_CATCHES_UP | (postcopy_possible() ? STREAM_POSTCOPY : 0u));

	if (!incoming->link.transport->two_way)
		return incoming->terms.channels
			       ? fail(incoming, -EPROTO, "channels besides one that cannot have any")
			       : 0;
	stream_begin(&incoming->link.back, STREAM_ACCEPTED);
	stream_put_u32(&incoming->link.back, agreed);
	stream_end(&incoming->link.back);
	return say(incoming);
}

static int take_terms(struct incoming *incoming, struct stream_cursor *payload)
{
	char why[STREAM_WHY + 64];
	int error;

	if (incoming->has_parts || incoming->there->count == 0)
		return fail(incoming, -EPROTO, "terms in the middle of the stream");
	if (!stream_take_terms(payload, &incoming->terms))
		return fail(incoming, -EPROTO, "the source's terms make no sense");
	error = make_machine(incoming);
	if (!error)
		error = accept_terms(incoming);
	if (!error && incoming->terms.channels) {
		error = receivers_new(&incoming->receivers, incoming->machine, incoming->listener,
				      &incoming->link.reader.session, incoming->terms.channels,
				      incoming->migration->config.signal, why, sizeof(why));
		if (error)
			fail(incoming, error, "%s", why);
	}
	if (!error)
		migration_set_status(incoming->migration, MIGRATION_ACTIVE);
	return error;
}

static int take_description(struct incoming *incoming, struct stream_cursor *payload)
{
	char why[STREAM_WHY];

	if (incoming->there->count)
		return fail(incoming, -EPROTO, "a second description of the machine");
	return describe_take(incoming->there, payload, why, sizeof(why)) ? fail(incoming, -EPROTO, "%s", why)
									 : 0;
}

/* ---- what comes for it ---- */

static int take_pages(struct incoming *incoming, struct stream_cursor *payload)
{
	int error = placer_take(incoming->placer, &incoming->link.reader, payload);

	return error ? fail(incoming, error, "%s", placer_why(incoming->placer)) : 0;
}

/* What comes behind pages may count on them. */
static int await_pages(struct incoming *incoming)
{
	int error = placer_wait(incoming->placer);

	incoming->come.pages = placer_pages(incoming->placer);
	return error ? fail(incoming, error, "%s", placer_why(incoming->placer)) : 0;
}

static int take_blob(struct incoming *incoming, struct stream_cursor *payload)
{
	int error = blobs_take(&incoming->blobs, payload);

	incoming->come.blobs++;
	return error ? fail(incoming, error, "%s", incoming->blobs.why) : 0;
}

static int take_part(struct incoming *incoming, struct stream_cursor *payload)
{
	int error = parts_take(&incoming->parts, payload);

	incoming->come.parts++;
	return error ? fail(incoming, error, "%s", incoming->parts.why) : 0;
}

static int take_round(struct incoming *incoming, struct stream_cursor *payload)
{
	struct stream_round round;
	char why[STREAM_WHY + 64];

	if (!stream_take_round(payload, &round) || round.number != incoming->rounds ||
	    round.pages != incoming->come.pages - incoming->round_pages)
		return fail(incoming, -EPROTO, "pages of round %u are missing", incoming->rounds);
	if (incoming->receivers && receivers_round(incoming->receivers, round.number, why, sizeof(why)))
		return fail(incoming, -EPROTO, "%s", why);
	incoming->rounds++;
	incoming->round_pages = incoming->come.pages;
	return 0;
}

static int take_catch_up(struct incoming *incoming, struct stream_cursor *payload)
{
	uint32_t number = stream_take_u32(payload);

	if (!stream_taken(payload) || !(incoming->terms.features & STREAM_CATCHES_UP) ||
	    !incoming->link.transport->two_way)
		return fail(incoming, -EPROTO, "a catch-up that is none");
	stream_begin(&incoming->link.back, STREAM_CAUGHT_UP);
	stream_put_u32(&incoming->link.back, number);
	stream_end(&incoming->link.back);
	return say(incoming);
}

static int load(struct incoming *incoming)
{
	const struct migration_config *config = &incoming->migration->config;
	char why[256] = "";
	int error;

	error = parts_check(&incoming->parts);
	if (error)
		return fail(incoming, error, "%s", incoming->parts.why);
	error = blobs_load(&incoming->blobs, incoming->machine);
	if (error)
		return fail(incoming, error, "%s", incoming->blobs.why);
	error = parts_load(&incoming->parts);
	if (error)
		return fail(incoming, error, "%s", incoming->parts.why);
	error = config->disks_open ? config->disks_open(config->owner, why, sizeof(why)) : 0;
	return error ? fail(incoming, error, "%s", why) : 0;
}

/* Of a post-copy: pages that come later, if they lie where there is RAM. */
static int take_owed(struct incoming *incoming, struct stream_cursor *payload)
{
	uint64_t address = stream_take_u64(payload);
	size_t at = page_number(incoming->machine, address), left = payload->left;
	const uint8_t *bits = stream_take(payload, left);

	if (!incoming->owed.word &&
	    bitmap_init(&incoming->owed, incoming->machine->config.memory / PAGE_SIZE))
		return fail(incoming, -ENOMEM, "no memory for a list of pages");
	if (!bits || address % PAGE_SIZE || at == SIZE_MAX || at % 64 || left % 8)
		return fail(incoming, -EPROTO, "a list of pages that is none");
	for (size_t i = 0; i < left * 8; i++) {
		if (!(bits[i / 8] >> i % 8 & 1))
			continue;
		if (at + i >= incoming->owed.bits || !bitmap_set(&incoming->owed, at + i))
			return fail(incoming, -EPROTO, "a list of pages that this machine does not have");
		incoming->come.owed++;
	}
	return 0;
}

/* From here on threads read what comes, and this one only loads, which may touch pages that are owed. */
static int switch_to_postcopy(struct incoming *incoming)
{
	struct migration *migration = incoming->migration;
	char why[256] = "";
	int error = postcopy_start(&incoming->postcopy, migration, incoming->machine, &incoming->owed,
				   &incoming->link, why, sizeof(why));

	return error ? fail(incoming, error, "%s", why) : 0;
}

static int take_state_end(struct incoming *incoming, struct stream_cursor *payload)
{
	struct stream_totals totals;
	bool stays = false;
	char why[STREAM_WHY + 200];
	int error = 0;

	if (incoming->receivers)
		incoming->come.pages += receivers_pages(incoming->receivers);
	if (!stream_take_totals(payload, &totals) || memcmp(&totals, &incoming->come, sizeof(totals)) != 0)
		return fail(incoming, -EPROTO, "parts of the machine are missing at the end of its state");
	if (incoming->owed.word)
		error = switch_to_postcopy(incoming);
	if (!error)
		error = load(incoming);
	if (error)
		return error;
	if (incoming->postcopy) {
		error = postcopy_say(incoming->postcopy, STREAM_READY);
		if (!error)
			error = postcopy_await(incoming->postcopy, &stays, why, sizeof(why));
		else
			snprintf(why, sizeof(why), "the return path: %s", strerror(-error));
		if (error)
			return fail(incoming, error, "%s", why);
		incoming->owns = true;
		if (stays)
			gate_hold(incoming->migration->gate, HOLD_USER);
		return 0;
	}
	if (!incoming->link.transport->two_way)
		return 0;
	stream_send(&incoming->link.back, STREAM_READY);
	return say(incoming);
}

static int take_hand_over(struct incoming *incoming, struct stream_cursor *payload)
{
	uint8_t stays = stream_take_u8(payload);

	if (!stream_taken(payload) || stays > 1)
		return fail(incoming, -EPROTO, "a hand-over that is none");
	incoming->owns = true;
	if (stays)
		gate_hold(incoming->migration->gate, HOLD_USER);
	return 0;
}

static int take_cancel(struct incoming *incoming, struct stream_cursor *payload)
{
	char reason[STREAM_WHY];

	stream_take_reason(payload, reason, sizeof(reason));
	return fail(incoming, -ECANCELED,
		    reason[0] ? "the source has cancelled: %s" : "the source has cancelled%s", reason);
}

/* In which order sections may come. */
enum stage { STAGE_BEGIN, STAGE_RAM, STAGE_READY };

static bool may_come(const struct incoming *incoming, uint32_t type, enum stage stage)
{
	switch (type) {
	case STREAM_DESCRIPTION:
	case STREAM_TERMS: return stage == STAGE_BEGIN;
	case STREAM_BLOB:
	case STREAM_PAGES:
	case STREAM_ROUND_END:
	case STREAM_PART:
	case STREAM_OWED:
	case STREAM_CATCH_UP:
	case STREAM_STATE_END: return stage == STAGE_RAM;
	case STREAM_HAND_OVER: return stage == STAGE_READY;
	case STREAM_CANCEL: return true;
	default: (void)incoming; return false;
	}
}

static int take_section(struct incoming *incoming, struct stream_section *section, enum stage *stage)
{
	struct stream_cursor *payload = &section->payload;
	const char *name = stream_type_name(section->type);
	int error = 0;

	if (section->type == STREAM_ALIVE)
		return 0;
	if (!may_come(incoming, section->type, *stage))
		return name ? fail(incoming, -EPROTO, "the section %s comes where it may not", name)
			    : fail(incoming, -EPROTO, "a section of unknown type %u", section->type);
	if (*stage != STAGE_BEGIN && section->type != STREAM_PAGES)
		error = await_pages(incoming);
	if (error)
		return error;
	switch (section->type) {
	case STREAM_DESCRIPTION: return take_description(incoming, payload);
	case STREAM_TERMS:
		error = take_terms(incoming, payload);
		*stage = STAGE_RAM;
		return error;
	case STREAM_BLOB: return take_blob(incoming, payload);
	case STREAM_PAGES: return take_pages(incoming, payload);
	case STREAM_ROUND_END: return take_round(incoming, payload);
	case STREAM_PART: return take_part(incoming, payload);
	case STREAM_OWED: return take_owed(incoming, payload);
	case STREAM_CATCH_UP: return take_catch_up(incoming, payload);
	case STREAM_STATE_END:
		error = take_state_end(incoming, payload);
		*stage = STAGE_READY;
		return error;
	case STREAM_HAND_OVER: return take_hand_over(incoming, payload);
	default: return take_cancel(incoming, payload);
	}
}

static int read_all(struct incoming *incoming)
{
	enum stage stage = STAGE_BEGIN;
	int error = 0;

	while (!error && !incoming->owns) {
		struct stream_section section;

		error = stream_read(&incoming->link.reader, &section);
		if (error == 1)
			error = fail(incoming, -EPIPE, "the stream ends before the guest was handed over");
		else if (error)
			fail(incoming, error, "%s",
			     incoming->link.reader.why[0] ? incoming->link.reader.why : strerror(-error));
		else
			error = take_section(incoming, &section, &stage);
	}
	return error;
}

/* ---- life ---- */

static int begin(struct incoming *incoming)
{
	struct stream_input from = {.owner = incoming->link.transport, .read = transport_read};
	struct stream_sink to = {.owner = incoming->link.transport, .write = transport_write};
	int error = stream_reader_init(&incoming->link.reader, &from, NULL, 0, STREAM_FORWARD);

	if (error)
		return fail(incoming, error, "%s", incoming->link.reader.why);
	if (incoming->link.transport->two_way)
		error = stream_writer_init(&incoming->link.back, &to, &incoming->link.reader.session, 0,
					   STREAM_RETURN);
	if (!error)
		incoming->there = calloc(1, sizeof(*incoming->there));
	return error || !incoming->there ? fail(incoming, error ? error : -ENOMEM, "no memory for a stream")
					 : 0;
}

/* Nobody puts pages anywhere any more: the machine may be freed. */
static void end_threads(struct incoming *incoming)
{
	receivers_free(incoming->receivers);
	placer_free(incoming->placer);
	incoming->receivers = NULL;
	incoming->placer = NULL;
}

/* Behind this the guest is ours, whatever becomes of the connection. */
static void take_over(struct incoming *incoming)
{
	struct migration *migration = incoming->migration;

	pthread_mutex_lock(&migration->lock);
	migration->machine = incoming->machine;
	migration->awaits = false;
	migration->listens[0] = migration->deferred[0] = 0;
	pthread_mutex_unlock(&migration->lock);
	if (incoming->postcopy) {
		postcopy_say(incoming->postcopy, STREAM_RUNNING);
	} else if (incoming->link.transport->two_way) {
		stream_send(&incoming->link.back, STREAM_RUNNING);
		transport_flush(incoming->link.transport);
	}
	placer_end(incoming->placer);
}

static int listen_at(struct incoming *incoming, const char *uri, char *why, size_t size)
{
	struct migration *migration = incoming->migration;
	int error = transport_listen(&incoming->listener, uri, why, size);

	if (error)
		return error;
	incoming->listener->signal = migration->config.signal;
	pthread_mutex_lock(&migration->lock);
	transport_listener_uri(incoming->listener, migration->listens, sizeof(migration->listens));
	pthread_mutex_unlock(&migration->lock);
	return 0;
}

static int receive(struct incoming *incoming)
{
	struct migration *migration = incoming->migration;
	struct transport *transport;
	int error = transport_accept(incoming->listener, &transport, -1);

	if (error)
		return fail(incoming, error, "%s", strerror(-error));
	transport->signal = migration->config.signal;
	pthread_mutex_lock(&migration->lock);
	incoming->link.transport = transport;
	migration->error[0] = 0;
	pthread_mutex_unlock(&migration->lock);
	atomic_store(&migration->counts.began, machine_now());
	migration_set_status(migration, MIGRATION_SETUP);
	error = begin(incoming);
	if (!error)
		error = read_all(incoming);
	if (error) {
		end_threads(incoming);
		say_failure(incoming);
		return error;
	}
	return 0;
}

/* The URI that migrate-incoming names; -EINTR. */
static int await_uri(struct incoming *incoming, char *uri, size_t size)
{
	struct migration *migration = incoming->migration;
	int error = 0;

	pthread_mutex_lock(&migration->lock);
	while (!migration->deferred[0] && !error) {
		struct timespec until;

		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_sec++;
		pthread_cond_timedwait(&migration->changed, &migration->lock, &until);
		if (migration->config.signal && *migration->config.signal)
			error = -EINTR;
	}
	snprintf(uri, size, "%s", migration->deferred);
	incoming->stays = migration->stays;
	pthread_mutex_unlock(&migration->lock);
	return error;
}

int migration_listen(struct migration *migration, const char *uri, char *why, size_t size)
{
	struct incoming *incoming = calloc(1, sizeof(*incoming));
	int error = 0;

	if (!incoming) {
		snprintf(why, size, "no memory");
		return -ENOMEM;
	}
	incoming->migration = migration;
	pthread_mutex_lock(&migration->lock);
	migration->incoming = incoming;
	migration->receives = migration->awaits = true;
	pthread_mutex_unlock(&migration->lock);
	if (strcmp(uri, "defer"))
		error = listen_at(incoming, uri, why, size);
	return error;
}

bool migration_stays(struct migration *migration) { return migration->incoming->stays; }

/* Nothing is left of one that has failed, whose machine is gone. */
static int begin_again(struct migration *migration)
{
	struct incoming *old = migration->incoming, *incoming = calloc(1, sizeof(*incoming));

	if (!incoming) {
		old->stays = false;
		return -ENOMEM;
	}
	incoming->migration = migration;
	pthread_mutex_lock(&migration->lock);
	migration->incoming = incoming;
	pthread_mutex_unlock(&migration->lock);
	incoming_free(old);
	return 0;
}

/* Another may be waited for at once, so nobody listens any more. */
static void tell_failed(struct incoming *incoming, const char *why)
{
	struct migration *migration = incoming->migration;

	transport_listener_free(incoming->listener);
	incoming->listener = NULL;
	incoming->failed = true;
	pthread_mutex_lock(&migration->lock);
	migration->listens[0] = migration->deferred[0] = 0;
	pthread_mutex_unlock(&migration->lock);
	migration_set_error(migration, MIGRATION_FAILED, "%s", why);
}

int migration_receive(struct migration *migration, char *why, size_t size)
{
	int error = migration->incoming->failed ? begin_again(migration) : 0;
	struct incoming *incoming = migration->incoming;
	char deferred[sizeof(migration->deferred)];

	why[0] = 0;
	if (!error && !incoming->listener) {
		error = await_uri(incoming, deferred, sizeof(deferred));
		if (!error)
			error = listen_at(incoming, deferred, why, size);
	}
	if (!error)
		error = receive(incoming);
	if (error) {
		if (!why[0])
			snprintf(why, size, "%s", incoming->why[0] ? incoming->why : strerror(-error));
		tell_failed(incoming, why);
		return error;
	}
	take_over(incoming);
	transport_listener_free(incoming->listener);
	incoming->listener = NULL;
	if (!incoming->postcopy)
		migration_set_status(migration, MIGRATION_COMPLETED);
	return 0;
}

void incoming_free(struct incoming *incoming)
{
	if (!incoming)
		return;
	end_threads(incoming);
	postcopy_free(incoming->postcopy);
	bitmap_free(&incoming->owed);
	transport_listener_free(incoming->listener);
	transport_free(incoming->link.transport);
	if (incoming->link.reader.room)
		stream_reader_free(&incoming->link.reader);
	if (incoming->link.back.room)
		stream_writer_free(&incoming->link.back);
	if (incoming->has_parts)
		parts_free(&incoming->parts);
	blobs_free(&incoming->blobs);
	free(incoming->there);
	free(incoming);
}

void incoming_break(struct incoming *incoming)
{
	if (incoming->postcopy)
		postcopy_break(incoming->postcopy);
}

int incoming_recover(struct incoming *incoming, const char *uri, char *why, size_t size)
{
	struct transport_listener *listener;
	int error = transport_listen(&listener, uri, why, size);

	if (error)
		return error;
	postcopy_recover(incoming->postcopy, listener);
	return 0;
}
