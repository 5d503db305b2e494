#include "migrate/channels.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* How long a source that has agreed to channels may take to open one. */
#define CONNECT_MS 30000

struct receiver {
	struct receivers *receivers;
	struct transport *transport;
	struct stream_reader reader;
	struct placing placing;
	pthread_t thread;
	bool has_thread;
	uint32_t rounds;      /* that it has ended; receivers->lock */
	uint64_t round_pages; /* that had come when the round began */
	char why[STREAM_WHY];
};

struct receivers {
	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t changed;
	uint32_t released; /* rounds that are over everywhere */
	bool failed, ends;
	char why[STREAM_WHY + 32];
	unsigned count;
	struct receiver receiver[CHANNELS_MAX];
};

static void tell_failure(struct receiver *receiver)
{
	struct receivers *receivers = receiver->receivers;

	pthread_mutex_lock(&receivers->lock);
	if (!receivers->failed)
		snprintf(receivers->why, sizeof(receivers->why), "channel %u: %s", receiver->reader.channel,
			 receiver->why);
	receivers->failed = true;
	pthread_cond_broadcast(&receivers->changed);
	pthread_mutex_unlock(&receivers->lock);
}

/* Waits for the others. False: there is nothing to go on with. */
static bool end_round(struct receiver *receiver, struct stream_cursor *payload)
{
	struct receivers *receivers = receiver->receivers;
	struct stream_round round;
	bool goes_on;

	if (!stream_take_round(payload, &round) || round.number != receiver->rounds ||
	    round.pages != receiver->placing.pages - receiver->round_pages) {
		snprintf(receiver->why, sizeof(receiver->why), "pages of round %u are missing",
			 receiver->rounds);
		return false;
	}
	receiver->round_pages = receiver->placing.pages;
	pthread_mutex_lock(&receivers->lock);
	receiver->rounds++;
	pthread_cond_broadcast(&receivers->changed);
	while (receivers->released < receiver->rounds && !receivers->failed && !receivers->ends)
		pthread_cond_wait(&receivers->changed, &receivers->lock);
	goes_on = !receivers->failed && !receivers->ends;
	pthread_mutex_unlock(&receivers->lock);
	return goes_on;
}

/* The end of a channel is told by channel 0, and is none of its own. */
static bool take_section(struct receiver *receiver)
{
	struct stream_section section;
	int error = stream_read(&receiver->reader, &section);

	if (error) {
		snprintf(receiver->why, sizeof(receiver->why), "%s",
			 error == 1                ? "it has ended"
			 : receiver->reader.why[0] ? receiver->reader.why
						   : strerror(-error));
		return false;
	}
	switch (section.type) {
	case STREAM_ALIVE: return true;
	case STREAM_ROUND_END: return end_round(receiver, &section.payload);
	case STREAM_PAGES:
		if (placing_take(&receiver->placing, &section.payload) == 0)
			return true;
		snprintf(receiver->why, sizeof(receiver->why), "%s", receiver->placing.why);
		return false;
	default:
		snprintf(receiver->why, sizeof(receiver->why), "a section of type %u, which it may not carry",
			 section.type);
		return false;
	}
}

static void *receiver_thread(void *owner)
{
	struct receiver *receiver = owner;

	while (take_section(receiver))
		;
	tell_failure(receiver);
	return NULL;
}

int receivers_round(struct receivers *receivers, uint32_t number, char *why, size_t size)
{
	bool failed;

	pthread_mutex_lock(&receivers->lock);
	for (unsigned i = 0; i < receivers->count; i++)
		while (receivers->receiver[i].rounds <= number && !receivers->failed)
			pthread_cond_wait(&receivers->changed, &receivers->lock);
	receivers->released = number + 1;
	pthread_cond_broadcast(&receivers->changed);
	failed = receivers->failed;
	snprintf(why, size, "%s", receivers->why);
	pthread_mutex_unlock(&receivers->lock);
	return failed ? -EPROTO : 0;
}

uint64_t receivers_pages(const struct receivers *receivers)
{
	uint64_t pages = 0;

	for (unsigned i = 0; i < receivers->count; i++)
		pages += receivers->receiver[i].placing.pages;
	return pages;
}

static bool is_there(const struct receivers *receivers, uint16_t channel)
{
	for (unsigned i = 0; i + 1 < receivers->count; i++)
		if (receivers->receiver[i].reader.channel == channel)
			return true;
	return false;
}

static int add_receiver(struct receivers *receivers, struct machine *machine,
			struct transport_listener *listener, const struct stream_session *session,
			unsigned count, const volatile sig_atomic_t *signal, char *why, size_t size)
{
	struct receiver *receiver = &receivers->receiver[receivers->count];
	struct stream_input from = {.read = transport_read};
	int error = transport_accept(listener, &receiver->transport, CONNECT_MS);

	if (error) {
		snprintf(why, size, "a channel: %s", strerror(-error));
		return error;
	}
	receivers->count++;
	receiver->receivers = receivers;
	receiver->placing.machine = machine;
	receiver->transport->signal = signal;
	from.owner = receiver->transport;
	error = stream_reader_accept(&receiver->reader, &from, session, STREAM_FORWARD);
	if (!error && (receiver->reader.channel == 0 || receiver->reader.channel > count ||
		       is_there(receivers, receiver->reader.channel))) {
		snprintf(receiver->reader.why, sizeof(receiver->reader.why), "channel %u is none of the %u",
			 receiver->reader.channel, count);
		error = -EPROTO;
	}
	if (!error)
		error = migration_thread(&receiver->thread, receiver_thread, receiver);
	receiver->has_thread = !error;
	if (error)
		snprintf(why, size, "a channel: %s",
			 receiver->reader.why[0] ? receiver->reader.why : strerror(-error));
	return error;
}

int receivers_new(struct receivers **made, struct machine *machine, struct transport_listener *listener,
		  const struct stream_session *session, unsigned count, const volatile sig_atomic_t *signal,
		  char *why, size_t size)
{
	struct receivers *receivers = count <= CHANNELS_MAX ? calloc(1, sizeof(*receivers)) : NULL;
	int error = 0;

	if (!receivers) {
		snprintf(why, size, count <= CHANNELS_MAX ? "no memory" : "more than %u channels",
			 CHANNELS_MAX);
		return count <= CHANNELS_MAX ? -ENOMEM : -EPROTO;
	}
	pthread_mutex_init(&receivers->lock, NULL);
	pthread_cond_init(&receivers->changed, NULL);
	for (unsigned i = 0; i < count && !error; i++)
		error = add_receiver(receivers, machine, listener, session, count, signal, why, size);
	if (error)
		receivers_free(receivers);
	else
		*made = receivers;
	return error;
}

void receivers_free(struct receivers *receivers)
{
	if (!receivers)
		return;
	pthread_mutex_lock(&receivers->lock);
	receivers->ends = true;
	pthread_cond_broadcast(&receivers->changed);
	pthread_mutex_unlock(&receivers->lock);
	for (unsigned i = 0; i < receivers->count; i++) {
		struct receiver *receiver = &receivers->receiver[i];

		transport_cancel(receiver->transport);
		if (receiver->has_thread)
			pthread_join(receiver->thread, NULL);
		transport_free(receiver->transport);
		stream_reader_free(&receiver->reader);
		placing_free(&receiver->placing);
	}
	pthread_cond_destroy(&receivers->changed);
	pthread_mutex_destroy(&receivers->lock);
	free(receivers);
}
