#include "migrate/placer.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "migrate/migration.h"
#include "migrate/placing.h"

/* Sections that wait, or are being put in their place: few, as the memory they lie in is to stay in the
 * cache. */
#define SECTIONS 3u

/* Less than this is put in its place sooner than another thread is woken, for whom nobody has to wait then:
 * the last pages, while the guest stands still. */
#define SMALL (16 * PAGE_SIZE)

struct waiting {
	uint8_t *room; /* of the reader that has next to take one */
	struct stream_cursor payload;
};

struct placer {
	struct placing placing; /* the thread's, while count is not 0 */
	pthread_t thread;
	bool has_thread;
	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t changed;
	struct waiting waiting[SECTIONS];
	unsigned first, count; /* the first is being put in its place */
	bool ends;
	int error;
};

static void free_rooms(struct placer *placer)
{
	for (unsigned i = 0; i < SECTIONS; i++) {
		free(placer->waiting[i].room);
		placer->waiting[i].room = NULL;
	}
}

static void *placer_thread(void *owner)
{
	struct placer *placer = owner;
	int error;

	pthread_mutex_lock(&placer->lock);
	for (;;) {
		while (!placer->count && !placer->ends)
			pthread_cond_wait(&placer->changed, &placer->lock);
		if (placer->ends)
			break;
		pthread_mutex_unlock(&placer->lock);
		error = placing_take(&placer->placing, &placer->waiting[placer->first].payload);
		pthread_mutex_lock(&placer->lock);
		placer->first = (placer->first + 1) % SECTIONS;
		/* Nothing goes to its place behind what was wrong. */
		placer->count = error ? 0 : placer->count - 1;
		placer->error = error;
		pthread_cond_broadcast(&placer->changed);
	}
	pthread_mutex_unlock(&placer->lock);
	free_rooms(placer);
	return NULL;
}

int placer_new(struct placer **made, struct machine *machine)
{
	struct placer *placer = calloc(1, sizeof(*placer));
	int error = placer ? 0 : -ENOMEM;

	if (error)
		return error;
	placer->placing.machine = machine;
	pthread_mutex_init(&placer->lock, NULL);
	pthread_cond_init(&placer->changed, NULL);
	for (unsigned i = 0; i < SECTIONS && !error; i++) {
		placer->waiting[i].room = stream_room_new();
		error = placer->waiting[i].room ? 0 : -ENOMEM;
	}
	if (!error)
		error = migration_thread(&placer->thread, placer_thread, placer);
	placer->has_thread = !error;
	if (error)
		placer_free(placer);
	else
		*made = placer;
	return error;
}

/* Until no more than @most sections are under way. */
static int wait_for(struct placer *placer, unsigned most)
{
	while (placer->count > most)
		pthread_cond_wait(&placer->changed, &placer->lock);
	return placer->error;
}

int placer_take(struct placer *placer, struct stream_reader *reader, const struct stream_cursor *payload)
{
	int error;

	pthread_mutex_lock(&placer->lock);
	error = wait_for(placer, SECTIONS - 1);
	if (!error && placer->count == 0 && payload->left < SMALL) {
		struct stream_cursor all = *payload;

		error = placer->error = placing_take(&placer->placing, &all);
	} else if (!error) {
		struct waiting *waiting = &placer->waiting[(placer->first + placer->count++) % SECTIONS];

		waiting->payload = *payload;
		waiting->room = stream_reader_swap(reader, waiting->room);
		pthread_cond_broadcast(&placer->changed);
	}
	pthread_mutex_unlock(&placer->lock);
	return error;
}

int placer_wait(struct placer *placer)
{
	int error;

	pthread_mutex_lock(&placer->lock);
	error = wait_for(placer, 0);
	pthread_mutex_unlock(&placer->lock);
	return error;
}

uint64_t placer_pages(const struct placer *placer) { return placer->placing.pages; }

const char *placer_why(const struct placer *placer) { return placer->placing.why; }

void placer_end(struct placer *placer)
{
	pthread_mutex_lock(&placer->lock);
	placer->ends = true;
	pthread_cond_broadcast(&placer->changed);
	pthread_mutex_unlock(&placer->lock);
}

void placer_free(struct placer *placer)
{
	if (!placer)
		return;
	placer_end(placer);
	if (placer->has_thread)
		pthread_join(placer->thread, NULL);
	free_rooms(placer);
	pthread_cond_destroy(&placer->changed);
	pthread_mutex_destroy(&placer->lock);
	placing_free(&placer->placing);
	free(placer);
}
