#define _GNU_SOURCE
#include "vm/gate.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

/* The longest rest between two turns of a throttled guest, so that calls and signals are looked at. */
#define REST_MAX_NS 20000000u
/* How often leave() is asked while the guest is held: a signal may have come. */
#define LOOK_NS 50000000u

static uint64_t now(void)
{
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at);
	return (uint64_t)at.tv_sec * 1000000000u + (uint64_t)at.tv_nsec;
}

int gate_open(struct gate *gate)
{
	pthread_condattr_t monotonic;

	*gate = (struct gate){.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
	if (gate->wake < 0)
		return -errno;
	pthread_mutex_init(&gate->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&gate->changed, &monotonic);
	pthread_condattr_destroy(&monotonic);
	return 0;
}

/* With the lock. */
static void ask(struct gate *gate)
{
	const uint64_t one = 1;

	atomic_store(&gate->asked, true);
	if (write(gate->wake, &one, sizeof(one)) < 0 && errno != EAGAIN)
		return; /* it is readable already */
	pthread_cond_broadcast(&gate->changed);
}

/* With the lock. */
static void settle(struct gate *gate)
{
	uint64_t count;

	if (gate->first)
		return;
	if (read(gate->wake, &count, sizeof(count)) < 0 && errno != EAGAIN)
		return;
	atomic_store(&gate->asked, gate->held || atomic_load(&gate->throttle));
}

/* With the lock. */
static struct gate_call *take(struct gate *gate)
{
	struct gate_call *call = gate->first;

	if (call) {
		gate->first = call->next;
		if (!gate->first)
			gate->last = NULL;
	}
	return call;
}

void gate_close(struct gate *gate)
{
	struct gate_call *call;

	pthread_mutex_lock(&gate->lock);
	gate->closed = true;
	while ((call = take(gate))) {
		pthread_mutex_unlock(&gate->lock);
		call->done(call->owner, true);
		pthread_mutex_lock(&gate->lock);
	}
	pthread_cond_broadcast(&gate->changed);
	pthread_mutex_unlock(&gate->lock);
}

void gate_free(struct gate *gate)
{
	close(gate->wake);
	pthread_cond_destroy(&gate->changed);
	pthread_mutex_destroy(&gate->lock);
}

/* vCPUs have run since @gate->attended, and rest in proportion; a call ends the rest. */
static void rest(struct gate *gate)
{
	unsigned percent = atomic_load(&gate->throttle);
	uint64_t ran = now() - gate->attended, ns = percent ? ran * percent / (100 - percent) : 0;
	struct pollfd wake = {.fd = gate->wake, .events = POLLIN};
	struct timespec limit;

	if (ns == 0)
		return;
	limit.tv_sec = 0;
	limit.tv_nsec = (long)(ns < REST_MAX_NS ? ns : REST_MAX_NS);
	ppoll(&wake, 1, &limit, NULL);
}

/* With the lock: until something is asked, or it is time to ask @leave again. */
static void wait(struct gate *gate)
{
	struct timespec until;
	uint64_t at = now() + LOOK_NS;

	until.tv_sec = (time_t)(at / 1000000000u);
	until.tv_nsec = (long)(at % 1000000000u);
	pthread_cond_timedwait(&gate->changed, &gate->lock, &until);
}

static void attend_slowly(struct gate *gate, bool (*leave)(void *owner), void *owner)
{
	rest(gate);
	pthread_mutex_lock(&gate->lock);
	for (;;) {
		struct gate_call *call = take(gate);

		if (call) {
			pthread_mutex_unlock(&gate->lock);
			call->run(call->owner);
			call->done(call->owner, false);
			pthread_mutex_lock(&gate->lock);
		}
		if (leave && leave(owner))
			break;
		if (call || gate->first)
			continue;
		if (!gate->held)
			break;
		settle(gate);
		wait(gate);
	}
	settle(gate);
	pthread_mutex_unlock(&gate->lock);
}

void gate_attend(struct gate *gate, bool (*leave)(void *owner), void *owner)
{
	if (!atomic_load_explicit(&gate->asked, memory_order_acquire))
		return;
	attend_slowly(gate, leave, owner);
	gate->attended = now();
}

void gate_wake(struct gate *gate)
{
	pthread_mutex_lock(&gate->lock);
	ask(gate);
	pthread_mutex_unlock(&gate->lock);
}

void gate_post(struct gate *gate, struct gate_call *call)
{
	bool closed;

	pthread_mutex_lock(&gate->lock);
	closed = gate->closed;
	if (!closed) {
		call->next = NULL;
		if (gate->last)
			gate->last->next = call;
		else
			gate->first = call;
		gate->last = call;
		ask(gate);
	}
	pthread_mutex_unlock(&gate->lock);
	if (closed)
		call->done(call->owner, true);
}

/* ---- and waiting ---- */

struct waiting {
	pthread_mutex_t lock;
	pthread_cond_t over;
	bool is_over, missed;
	void (*run)(void *owner);
	void *owner;
};

static void run_waiting(void *owner)
{
	struct waiting *waiting = owner;

	waiting->run(waiting->owner);
}

static void waiting_done(void *owner, bool missed)
{
	struct waiting *waiting = owner;

	pthread_mutex_lock(&waiting->lock);
	waiting->is_over = true;
	waiting->missed = missed;
	pthread_cond_signal(&waiting->over);
	pthread_mutex_unlock(&waiting->lock);
}

int gate_call(struct gate *gate, void (*run)(void *owner), void *owner)
{
	struct waiting waiting = {.run = run, .owner = owner};
	struct gate_call call = {.run = run_waiting, .done = waiting_done, .owner = &waiting};

	pthread_mutex_init(&waiting.lock, NULL);
	pthread_cond_init(&waiting.over, NULL);
	gate_post(gate, &call);
	pthread_mutex_lock(&waiting.lock);
	while (!waiting.is_over)
		pthread_cond_wait(&waiting.over, &waiting.lock);
	pthread_mutex_unlock(&waiting.lock);
	pthread_cond_destroy(&waiting.over);
	pthread_mutex_destroy(&waiting.lock);
	return waiting.missed ? -ESHUTDOWN : 0;
}

/* ---- holding ---- */

void gate_hold(struct gate *gate, unsigned reasons)
{
	pthread_mutex_lock(&gate->lock);
	gate->held |= reasons;
	ask(gate);
	pthread_mutex_unlock(&gate->lock);
}

void gate_release(struct gate *gate, unsigned reasons)
{
	pthread_mutex_lock(&gate->lock);
	gate->held &= ~reasons;
	pthread_cond_broadcast(&gate->changed);
	pthread_mutex_unlock(&gate->lock);
}

unsigned gate_held(struct gate *gate)
{
	unsigned held;

	pthread_mutex_lock(&gate->lock);
	held = gate->held;
	pthread_mutex_unlock(&gate->lock);
	return held;
}

void gate_throttle(struct gate *gate, unsigned percent)
{
	pthread_mutex_lock(&gate->lock);
	atomic_store(&gate->throttle, percent < 99 ? percent : 99);
	if (percent)
		atomic_store(&gate->asked, true);
	pthread_mutex_unlock(&gate->lock);
}
