/*
 * gate.h: how other threads reach the machine's, to which engine, devices and vCPUs belong.
 *
 * The machine's thread comes by between two run() calls (gate_attend()), does there what others have asked
 * for, and stays for as long as something holds the guest. While the guest waits for input, the thread sleeps
 * on gate_fd() as well, so that nobody waits for it longer than a turn of run().
 */
#ifndef TRAPLINE_VM_GATE_H
#define TRAPLINE_VM_GATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Why the guest does not run; bits of gate_held(). */
enum gate_hold {
	HOLD_USER = 1,   /* somebody has said stop */
	HOLD_MOVING = 2, /* the last round of a migration */
	HOLD_MOVED = 4,  /* it is elsewhere now, or in a file */
	HOLD_UNSURE = 8  /* it may be elsewhere: nobody has acknowledged */
};

/* What is asked for. The caller owns it until done() is called, or gate_call() returns. */
struct gate_call {
	void (*run)(void *owner); /* on the machine's thread, between two run() calls */
	/* Behind run(), or in its place where the machine ended first (@missed), and then on any thread. */
	void (*done)(void *owner, bool missed);
	void *owner;
	struct gate_call *next; /* the gate's */
};

struct gate {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	int wake;             /* eventfd, readable while calls wait */
	atomic_bool asked;    /* calls wait, something holds the guest, or it is throttled */
	atomic_uint throttle; /* percent of the time that vCPUs shall rest, 0 to 99 */
	unsigned held;        /* enum gate_hold; with the lock */
	bool closed;          /* the machine's thread comes by no more; with the lock */
	uint64_t attended;    /* the machine's thread: when it last went back to the guest */
	struct gate_call *first, *last;
};

/* 0, or a negative errno. */
int gate_open(struct gate *gate);
/* The machine's thread comes by no more: calls that wait are missed, later ones too. */
void gate_close(struct gate *gate);
void gate_free(struct gate *gate); /* closed, and nobody else has it any more */

/* The machine's thread, between two run() calls: runs what was asked for, and returns once nothing holds the
 * guest or
 * @leave (may be NULL) is true, which it asks behind each call and now and then; @leave does not call the
 * gate. */
void gate_attend(struct gate *gate, bool (*leave)(void *owner), void *owner);
/* What poll() finds readable while the machine's thread is wanted. */
static inline int gate_fd(const struct gate *gate) { return gate->wake; }

/* The machine's thread comes by soon: there is something that its leave() knows of. */
void gate_wake(struct gate *gate);
/* Asks for @call, and returns at once; done() tells. */
void gate_post(struct gate *gate, struct gate_call *call);
/* Runs @run on the machine's thread and waits for it. 0, or -ESHUTDOWN where the machine has ended. From
 * another thread than the machine's. */
int gate_call(struct gate *gate, void (*run)(void *owner), void *owner);

/* Any thread; a hold that begins takes effect at the machine's thread's next gate_attend(), or at once from
 * within a call. */
void gate_hold(struct gate *gate, unsigned reasons);
void gate_release(struct gate *gate, unsigned reasons);
unsigned gate_held(struct gate *gate);
/* Any thread: vCPUs rest @percent of the time, 0 to 99. */
void gate_throttle(struct gate *gate, unsigned percent);

#endif
