#include "migrate/channels.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "migrate/converge.h"

/* Pages that a channel takes from the list at a time, and sends as one section. */
#define CHUNK (8 * PAGES_WORD)

struct sender {
	struct senders *senders;
	struct transport *transport;
	struct stream_writer writer;
	struct compressor *compressor;
	pthread_t thread;
	bool has_thread;
	uint32_t rounds; /* that it has ended; senders->lock */
	uint64_t pages;  /* of this round */
};

struct senders {
	struct senders_config config;
	atomic_size_t next; /* page from which on nobody has taken any yet */
	atomic_bool failed;
	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t changed;
	uint32_t wanted; /* rounds that are asked for */
	bool ends;
	uint64_t limit, rested;
	struct rate rate;
	const atomic_bool *stops;
	char why[300];
	unsigned count;
	struct sender sender[CHANNELS_MAX];
};

static void tell_failure(struct senders *senders, const char *text)
{
	pthread_mutex_lock(&senders->lock);
	if (!atomic_load(&senders->failed))
		snprintf(senders->why, sizeof(senders->why), "%s", text);
	atomic_store(&senders->failed, true);
	pthread_cond_broadcast(&senders->changed);
	pthread_mutex_unlock(&senders->lock);
}

static int keep_to_rate(struct sender *sender, uint64_t bytes)
{
	struct senders *senders = sender->senders;
	uint64_t ns;

	pthread_mutex_lock(&senders->lock);
	ns = rate_wait(&senders->rate, senders->limit, machine_now(), bytes);
	senders->rested += ns / senders->count;
	pthread_mutex_unlock(&senders->lock);
	return ns ? transport_rest(sender->transport, ns) : 0;
}

static bool stops(const struct senders *senders)
{
	return atomic_load(&senders->failed) || atomic_load(senders->config.cancelled) ||
	       (senders->stops && atomic_load(senders->stops));
}

static int send_round(struct sender *sender, uint32_t number)
{
	struct senders *senders = sender->senders;
	size_t bits = senders->config.pages->todo.bits, at;
	struct stream_round round = {.number = number};
	int error = 0;

	while (!error && !stops(senders) && (at = atomic_fetch_add(&senders->next, CHUNK)) < bits) {
		size_t end = at + CHUNK < bits ? at + CHUNK : bits;
		uint64_t before = sender->writer.bytes;

		round.pages += pages_write(senders->config.pages, &sender->writer, &at, end, STREAM_PAGES_MAX,
					   sender->compressor);
		error = sender->writer.error;
		if (!error)
			error = keep_to_rate(sender, sender->writer.bytes - before);
	}
	sender->pages = round.pages;
	if (!error) {
		stream_put_round(&sender->writer, &round);
		error = sender->writer.error ? sender->writer.error : transport_flush(sender->transport);
	}
	return error;
}

static void *sender_thread(void *owner)
{
	struct sender *sender = owner;
	struct senders *senders = sender->senders;

	for (;;) {
		int error;

		pthread_mutex_lock(&senders->lock);
		while (senders->wanted == sender->rounds && !senders->ends)
			pthread_cond_wait(&senders->changed, &senders->lock);
		if (senders->ends) {
			pthread_mutex_unlock(&senders->lock);
			return NULL;
		}
		pthread_mutex_unlock(&senders->lock);
		error = send_round(sender, sender->rounds);
		if (error)
			tell_failure(senders, error == -EPIPE || error == -ECONNRESET
						      ? "the destination has closed a channel"
						      : strerror(-error));
		pthread_mutex_lock(&senders->lock);
		sender->rounds++;
		pthread_cond_broadcast(&senders->changed);
		pthread_mutex_unlock(&senders->lock);
	}
}

static bool all_done(const struct senders *senders)
{
	for (unsigned i = 0; i < senders->count; i++)
		if (senders->sender[i].rounds != senders->wanted)
			return false;
	return true;
}

int senders_round(struct senders *senders, uint32_t number, uint64_t rate, const atomic_bool *stop,
		  uint64_t *sent, uint64_t *rested, char *why, size_t size)
{
	*sent = 0;
	pthread_mutex_lock(&senders->lock);
	atomic_store(&senders->next, 0);
	senders->limit = rate;
	senders->rested = 0;
	senders->stops = stop;
	senders->wanted = number + 1;
	pthread_cond_broadcast(&senders->changed);
	while (!all_done(senders))
		pthread_cond_wait(&senders->changed, &senders->lock);
	*rested = senders->rested;
	snprintf(why, size, "%s", senders->why);
	pthread_mutex_unlock(&senders->lock);
	for (unsigned i = 0; i < senders->count; i++)
		*sent += senders->sender[i].pages;
	if (atomic_load(senders->config.cancelled))
		return -ECANCELED;
	return atomic_load(&senders->failed) ? -EPIPE : 0;
}

uint64_t senders_bytes(const struct senders *senders)
{
	uint64_t bytes = 0;

	for (unsigned i = 0; i < senders->count; i++)
		bytes += atomic_load(&senders->sender[i].transport->sent);
	return bytes;
}

static int add_sender(struct senders *senders, char *why, size_t size)
{
	const struct senders_config *config = &senders->config;
	struct sender *sender = &senders->sender[senders->count];
	struct stream_sink to = {.write = transport_write};
	int error = transport_connect(&sender->transport, config->uri, config->cancel, why, size);

	if (error)
		return error;
	senders->count++;
	sender->senders = senders;
	to.owner = sender->transport;
	transport_limit(sender->transport, config->limit_ms);
	if (config->compress)
		sender->compressor = compressor_new(
			(int)migration_get_parameter(config->migration, PARAMETER_MULTIFD_ZSTD_LEVEL));
	error = config->compress && !sender->compressor ? -ENOMEM : 0;
	if (!error)
		error = stream_writer_init(&sender->writer, &to, &config->session, (uint16_t)senders->count,
					   STREAM_FORWARD);
	if (!error)
		error = transport_flush(sender->transport);
	if (!error)
		error = migration_thread(&sender->thread, sender_thread, sender);
	sender->has_thread = !error;
	if (error)
		snprintf(why, size, "channel %u: %s", senders->count, strerror(-error));
	return error;
}

int senders_new(struct senders **made, const struct senders_config *config, char *why, size_t size)
{
	struct senders *senders = calloc(1, sizeof(*senders));
	int error = senders ? 0 : -ENOMEM;

	why[0] = 0;
	if (!error) {
		senders->config = *config;
		pthread_mutex_init(&senders->lock, NULL);
		pthread_cond_init(&senders->changed, NULL);
	}
	for (unsigned i = 0; i < config->count && !error; i++)
		error = add_sender(senders, why, size);
	if (error) {
		if (!why[0])
			snprintf(why, size, "%s", strerror(-error));
		senders_free(senders);
		return error;
	}
	*made = senders;
	return 0;
}

void senders_cancel(struct senders *senders)
{
	for (unsigned i = 0; i < senders->count; i++)
		transport_cancel(senders->sender[i].transport);
}

void senders_free(struct senders *senders)
{
	if (!senders)
		return;
	pthread_mutex_lock(&senders->lock);
	senders->ends = true;
	pthread_cond_broadcast(&senders->changed);
	pthread_mutex_unlock(&senders->lock);
	for (unsigned i = 0; i < senders->count; i++) {
		struct sender *sender = &senders->sender[i];

		if (sender->has_thread)
			pthread_join(sender->thread, NULL);
		transport_free(sender->transport);
		stream_writer_free(&sender->writer);
		compressor_free(sender->compressor);
	}
	pthread_cond_destroy(&senders->changed);
	pthread_mutex_destroy(&senders->lock);
	free(senders);
}
