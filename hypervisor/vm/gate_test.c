/* Calls of other threads into the machine's, and what holds the guest. */
#include <errno.h>
#include <unistd.h>

#include "vm/gate.h"
#include "vm/test.h"

struct session {
	struct gate gate;
	atomic_uint turns, ran, missed;
	atomic_bool leaves, calls_over;
	pthread_t machine;
};

static bool leaves(void *owner) { return atomic_load(&((struct session *)owner)->leaves); }

static void *machine_thread(void *owner)
{
	struct session *s = owner;

	while (!atomic_load(&s->leaves)) {
		atomic_fetch_add(&s->turns, 1);
		gate_attend(&s->gate, leaves, s);
		usleep(200);
	}
	return NULL;
}

static void begin(struct session *s)
{
	*s = (struct session){0};
	assert_int_equal(gate_open(&s->gate), 0);
	assert_int_equal(pthread_create(&s->machine, NULL, machine_thread, s), 0);
}

static void end(struct session *s)
{
	atomic_store(&s->leaves, true);
	gate_wake(&s->gate);
	pthread_join(s->machine, NULL);
	gate_close(&s->gate);
}

static void on_machine(void *owner)
{
	struct session *s = owner;

	assert_true(pthread_equal(pthread_self(), s->machine));
	atomic_fetch_add(&s->ran, 1);
}

static void calls(void **state)
{
	struct session s;

	(void)state;
	begin(&s);
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(gate_call(&s.gate, on_machine, &s), 0);
	assert_int_equal(s.ran, 100);
	end(&s);
	assert_int_equal(gate_call(&s.gate, on_machine, &s), -ESHUTDOWN);
	assert_int_equal(s.ran, 100);
	gate_free(&s.gate);
}

/* A guest that is held makes no turns, and calls are run nevertheless. */
static void holds(void **state)
{
	struct session s;
	unsigned turns;

	(void)state;
	begin(&s);
	gate_hold(&s.gate, HOLD_USER | HOLD_MOVING);
	assert_int_equal(gate_call(&s.gate, on_machine, &s), 0);
	turns = s.turns;
	usleep(20000);
	assert_int_equal(s.turns, turns);
	gate_release(&s.gate, HOLD_USER);
	assert_int_equal(gate_held(&s.gate), HOLD_MOVING);
	usleep(20000);
	assert_int_equal(s.turns, turns);
	gate_release(&s.gate, HOLD_MOVING);
	while (s.turns < turns + 10)
		usleep(100);
	gate_hold(&s.gate, HOLD_USER);
	end(&s); /* leaves although it is held */
	gate_free(&s.gate);
}

static void hold_from_within(void *owner)
{
	struct session *s = owner;

	gate_hold(&s->gate, HOLD_MOVED);
}

static void holds_from_within(void **state)
{
	struct session s;
	unsigned turns;

	(void)state;
	begin(&s);
	assert_int_equal(gate_call(&s.gate, hold_from_within, &s), 0);
	turns = s.turns;
	usleep(20000);
	assert_int_equal(s.turns, turns);
	end(&s);
	gate_free(&s.gate);
}

static void on_done(void *owner, bool missed)
{
	struct session *s = owner;

	atomic_fetch_add(&s->missed, missed);
	atomic_store(&s->calls_over, true);
}

static void posts(void **state)
{
	struct gate_call call = {.run = on_machine, .done = on_done};
	struct session s;

	(void)state;
	begin(&s);
	call.owner = &s;
	gate_post(&s.gate, &call);
	while (!s.calls_over)
		usleep(100);
	assert_int_equal(s.missed, 0);
	end(&s);
	gate_post(&s.gate, &call);
	assert_int_equal(s.missed, 1);
	gate_free(&s.gate);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(calls), cmocka_unit_test(holds),
					   cmocka_unit_test(holds_from_within), cmocka_unit_test(posts)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
