/*
 * How the vCPUs of the kvm engine run: each on a thread of its own, the first on the caller's.
 *
 * One lock is held whenever a vCPU is not within KVM_RUN: around the bus, the chips and the clock, so that
 * their calls come one at a time. Who has nothing to run waits on its condition; who is to look up from
 * KVM_RUN gets a signal. That is blocked in every thread and open only within KVM_RUN, hence never lost, and
 * no handler is needed: whether to wait, to enter or to kick is decided under the lock, and a kick that comes
 * between the lock and the entry ends the entry at once. The first vCPU's thread also runs the timers and
 * watches the time: a timer's signal is its kick.
 */
#include "engine/kvm.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* How long run() may keep its caller waiting. */
#define SLICE_NS      20000000u
/* How long a step of a pace may take. */
#define PACE_NS       20000u
#define NS_PER_SECOND 1000000000u

#define KICK_SIGNAL (SIGRTMIN + 3)

static bool is_first(const struct kvm_vcpu *vcpu) { return vcpu->vcpu.number == 0; }

/* ---- kicks ---- */

static void kick_set(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, KICK_SIGNAL);
}

static void drain_kicks(void)
{
	const struct timespec now = {0};
	sigset_t set;

	kick_set(&set);
	while (sigtimedwait(&set, NULL, &now) > 0)
		;
}

void kvm_kick(struct kvm_vcpu *vcpu)
{
	if (vcpu->waiting) {
		vcpu->waiting = false;
		if (vcpu->round != kvm_engine_of(vcpu)->round && !is_first(vcpu))
			kvm_engine_of(vcpu)->running++; /* it has slept through this round up to now */
		pthread_cond_signal(&vcpu->wake);
	} else if (vcpu->inside) {
		pthread_kill(vcpu->thread, KICK_SIGNAL);
	}
}

/* What ends the run first stands, but for a pause, which only asks to be called again. */
static void end_run(struct kvm_engine *kvm, enum engine_exit end)
{
	if (kvm->end != KVM_GO_ON && kvm->end != ENGINE_PAUSED)
		return;
	kvm->end = (int)end;
	for (unsigned i = 0; i < kvm->count; i++)
		if (is_first(&kvm->vcpu[i]) || kvm->vcpu[i].round == kvm->round)
			kvm_kick(&kvm->vcpu[i]);
}

void kvm_request_stop(struct engine *engine) { end_run(kvm_of(engine), ENGINE_STOPPED); }

/* ---- time ---- */

/* When the first vCPU must look up: the next timer, or the end of the slice. Of the host's clock. */
static uint64_t look_up(const struct kvm_engine *kvm)
{
	uint64_t next = kvm->clock->next;

	if (next == CLOCK_NEVER || next > kvm->over - kvm->time.began)
		return kvm->over;
	return kvm->time.began + next;
}

static struct timespec timespec_of(uint64_t ns)
{
	return (struct timespec){.tv_sec = (time_t)(ns / NS_PER_SECOND),
				 .tv_nsec = (long)(ns % NS_PER_SECOND)};
}

/* 0: no signal comes. */
static void arm_slice(struct kvm_engine *kvm, uint64_t at)
{
	const struct itimerspec slice = {.it_value = timespec_of(at)};

	timer_settime(kvm->slice, TIMER_ABSTIME, &slice, NULL);
	kvm->armed = at;
}

/* Called by whoever arms a timer. */
void kvm_timer_moved(struct kvm_engine *kvm) { kvm_kick(&kvm->vcpu[0]); }

static void run_timers(struct kvm_engine *kvm)
{
	if (kvm->clock->next > clock_now(kvm->clock))
		return;
	kvm->chips.changed = true;
	clock_run(kvm->clock);
}

static int take_exit(struct kvm_vcpu *vcpu)
{
	struct kvm_engine *kvm = kvm_engine_of(vcpu);
	int end;

	kvm_time_hold(kvm, true);
	/* A device that is asked answers as of now, also where the signal of a timer that is due has yet to come. */
	run_timers(kvm);
	end = kvm_take_exit(vcpu);
	kvm_time_hold(kvm, false);
	return end;
}

static void keep_time(struct kvm_engine *kvm)
{
	kvm_time_hold(kvm, true);
	run_timers(kvm);
	kvm_time_hold(kvm, false);
	if (kvm_host_ns() >= kvm->over)
		end_run(kvm, ENGINE_PAUSED);
}

/* ---- a vCPU ---- */

/*
 * A port or memory access is part of an instruction that the device finishes only when it is
 * entered again; immediate_exit has it do that and no more. A long access may take several rounds.
 */
static void finish_access(struct kvm_vcpu *vcpu)
{
	vcpu->run->immediate_exit = 1;
	while (vcpu->unfinished && ioctl(vcpu->fd, KVM_RUN, 0) == 0)
		take_exit(vcpu);
	vcpu->unfinished = false;
	vcpu->run->immediate_exit = 0;
}

/* What ends a step. An entry that only finds out that an interrupt can be taken now has done nothing. */
static bool is_step(const struct kvm_vcpu *vcpu)
{
	switch (vcpu->run->exit_reason) {
	case KVM_EXIT_IO:
	case KVM_EXIT_MMIO:
	case KVM_EXIT_X86_RDMSR:
	case KVM_EXIT_X86_WRMSR:
	case KVM_EXIT_HLT: return true;
	default: return false;
	}
}

/* One entry. The signal that ends it may have been the slice's. */
static void enter(struct kvm_vcpu *vcpu)
{
	struct kvm_engine *kvm = kvm_engine_of(vcpu);
	int failed, end = KVM_GO_ON;

	kvm_chips_before(vcpu);
	if (is_first(vcpu) && kvm->armed != look_up(kvm))
		arm_slice(kvm, look_up(kvm));
	vcpu->inside = true;
	pthread_mutex_unlock(&kvm->lock);
	failed = ioctl(vcpu->fd, KVM_RUN, 0) ? errno : 0;
	if (failed)
		drain_kicks();
	pthread_mutex_lock(&kvm->lock);
	vcpu->inside = false;
	if (failed && is_first(vcpu))
		kvm->armed = 0;
	kvm_chips_after(vcpu);
	if (!failed) {
		end = take_exit(vcpu);
	} else if (failed == EINTR || failed == EAGAIN) {
		vcpu->unfinished = false;
	} else {
		end = (int)kvm_fail(vcpu, "KVM_RUN: %s", strerror(failed));
	}
	if (kvm->steps && !failed && end == KVM_GO_ON && is_step(vcpu) && --kvm->steps == 0)
		end = ENGINE_PAUSED;
	if (vcpu->refused && end != ENGINE_FAILED)
		end = (int)kvm_fail(vcpu, "the device refuses %s", vcpu->refused);
	if (end != KVM_GO_ON)
		end_run(kvm, (enum engine_exit)end);
}

static bool all_wait(const struct kvm_engine *kvm)
{
	for (unsigned i = 0; i < kvm->count; i++)
		if (!kvm->vcpu[i].waiting)
			return false;
	return true;
}

/* Until it is kicked; the first vCPU's, until it must look up. */
static void wait_for_kick(struct kvm_vcpu *vcpu)
{
	struct kvm_engine *kvm = kvm_engine_of(vcpu);
	const struct timespec until = timespec_of(look_up(kvm));

	vcpu->waiting = true;
	if (all_wait(kvm) && kvm->clock->next == CLOCK_NEVER)
		end_run(kvm, ENGINE_HALTED);
	while (vcpu->waiting)
		if (!is_first(vcpu))
			pthread_cond_wait(&vcpu->wake, &kvm->lock);
		else if (pthread_cond_timedwait(&vcpu->wake, &kvm->lock, &until))
			vcpu->waiting = false;
}

static void run_vcpu(struct kvm_vcpu *vcpu)
{
	struct kvm_engine *kvm = kvm_engine_of(vcpu);

	for (;;) {
		if (is_first(vcpu))
			keep_time(kvm);
		if (kvm->end != KVM_GO_ON)
			break;
		if (vcpu->activity == ACTIVITY_SHUTDOWN)
			end_run(kvm, ENGINE_SHUTDOWN);
		else if (kvm_chips_runnable(vcpu))
			enter(vcpu);
		else
			wait_for_kick(vcpu);
	}
	finish_access(vcpu);
}

/* ---- threads ---- */

/* All but the first: a round is one run(), in which one that waits takes part once it is kicked. */
static void *vcpu_thread(void *argument)
{
	struct kvm_vcpu *vcpu = argument;
	struct kvm_engine *kvm = kvm_engine_of(vcpu);

	pthread_mutex_lock(&kvm->lock);
	for (;;) {
		while (!kvm->quit && (vcpu->round == kvm->round || vcpu->waiting))
			pthread_cond_wait(&vcpu->wake, &kvm->lock);
		if (kvm->quit)
			break;
		vcpu->round = kvm->round;
		run_vcpu(vcpu);
		if (--kvm->running == 0)
			pthread_cond_signal(&kvm->idle);
	}
	pthread_mutex_unlock(&kvm->lock);
	return NULL;
}

/* No signal of the process is for such a thread. 0, or an errno. */
static int start_thread(struct kvm_vcpu *vcpu)
{
	sigset_t all, old;
	int error;

	if (vcpu->has_thread)
		return 0;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	vcpu->round = kvm_engine_of(vcpu)->round;
	error = pthread_create(&vcpu->thread, NULL, vcpu_thread, vcpu);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	vcpu->has_thread = !error;
	return error;
}

static int start_threads(struct kvm_engine *kvm)
{
	int error = 0;

	for (unsigned i = 1; i < kvm->count && !error; i++)
		error = start_thread(&kvm->vcpu[i]);
	return error;
}

/*
 * A sender may have been the last to leave: what it sent is taken now, as the state of a vCPU that is
 * looked at between two runs has no place for it.
 */
static void settle(struct kvm_engine *kvm)
{
	for (unsigned i = 0; i < kvm->count; i++) {
		struct kvm_vcpu *vcpu = &kvm->vcpu[i];

		kvm_chips_settle(vcpu);
		if (vcpu->refused && kvm->end != ENGINE_FAILED)
			kvm->end = (int)kvm_fail(vcpu, "the device refuses %s", vcpu->refused);
	}
}

void kvm_pace(struct engine *engine, uint64_t steps) { kvm_of(engine)->pace = steps; }

/* Where each vCPU stands: what changes if one of them does anything. */
static uint64_t position(const struct kvm_engine *kvm)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < kvm->count; i++) {
		struct kvm_regs regs = {0};

		if (kvm->vcpu[i].activity == ACTIVITY_ACTIVE)
			ioctl(kvm->vcpu[i].fd, KVM_GET_REGS, &regs);
		sum = 31 * sum + regs.rip + regs.rcx;
	}
	return sum;
}

/*
 * Returns how long the round may take. Steps of the processor itself (KVM_GUESTDBG_SINGLESTEP) would be exact, but
 * the guest sees them: TF is in what PUSHF and exceptions push. A round that is over before the guest came to do
 * anything makes the next ones longer, so that it does get on.
 */
static uint64_t begin_steps(struct kvm_engine *kvm)
{
	kvm->steps = kvm->pace;
	if (!kvm->pace || kvm->pace >= SLICE_NS / PACE_NS)
		return SLICE_NS;
	if (kvm->patience < kvm->pace * PACE_NS)
		kvm->patience = kvm->pace * PACE_NS;
	return kvm->patience;
}

static void end_steps(struct kvm_engine *kvm, uint64_t began_at)
{
	if (kvm->end != ENGINE_PAUSED || !kvm->pace)
		return;
	if (kvm->steps != kvm->pace || position(kvm) != began_at)
		kvm->patience = 0;
	else if (kvm->patience < SLICE_NS)
		kvm->patience *= 2;
}

/* One that waits, and for which nothing has come: its thread sleeps on, until it is kicked. */
static bool rests(struct kvm_vcpu *vcpu)
{
	return vcpu->activity != ACTIVITY_SHUTDOWN && !kvm_chips_runnable(vcpu);
}

static void begin_round(struct kvm_engine *kvm)
{
	kvm->round++;
	kvm->running = 0;
	for (unsigned i = 1; i < kvm->count; i++) {
		struct kvm_vcpu *vcpu = &kvm->vcpu[i];

		vcpu->waiting = rests(vcpu);
		if (vcpu->waiting)
			continue;
		kvm->running++;
		pthread_cond_signal(&vcpu->wake);
	}
}

/* Who has slept through the round is not kicked by what comes between this one and the next. */
static void end_round(struct kvm_engine *kvm)
{
	while (kvm->running)
		pthread_cond_wait(&kvm->idle, &kvm->lock);
	for (unsigned i = 1; i < kvm->count; i++) {
		kvm->vcpu[i].waiting = false;
		kvm->vcpu[i].round = kvm->round;
	}
}

enum engine_exit kvm_run_vcpus(struct engine *engine, uint64_t budget)
{
	struct kvm_engine *kvm = kvm_of(engine);
	uint64_t began_at;
	int error;

	if (budget == 0)
		return ENGINE_BUDGET;
	error = start_threads(kvm);
	if (error)
		return kvm_fail(&kvm->vcpu[0], "no thread for a vCPU: %s", strerror(error));
	began_at = kvm->pace ? position(kvm) : 0;
	pthread_mutex_lock(&kvm->lock);
	kvm->end = KVM_GO_ON;
	kvm->time.passed = true;
	kvm->over = kvm_host_ns() + begin_steps(kvm);
	kvm->vcpu[0].thread = pthread_self();
	begin_round(kvm);
	run_vcpu(&kvm->vcpu[0]);
	end_round(kvm);
	settle(kvm);
	end_steps(kvm, began_at);
	pthread_mutex_unlock(&kvm->lock);
	if (kvm->armed)
		arm_slice(kvm, 0);
	return (enum engine_exit)kvm->end;
}

/* ---- life ---- */

/* The kernel's own form of a signal set is 64 bits. */
static int open_mask(const struct kvm_vcpu *vcpu, const sigset_t *blocked)
{
	/* struct kvm_signal_mask: a length, and that many bytes right behind it. */
	struct __attribute__((packed)) {
		uint32_t size;
		uint64_t bits;
	} mask = {.size = sizeof(uint64_t)};

	for (int number = 1; number <= 64; number++)
		if (number != KICK_SIGNAL && (!is_first(vcpu) || sigismember(blocked, number) == 1))
			mask.bits |= 1ull << (number - 1);
	return ioctl(vcpu->fd, KVM_SET_SIGNAL_MASK, &mask) ? -errno : 0;
}

static int open_slice(struct kvm_engine *kvm)
{
	struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = KICK_SIGNAL};

	event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
	if (timer_create(CLOCK_MONOTONIC, &event, &kvm->slice))
		return -errno;
	kvm->has_slice = true;
	return 0;
}

static void condition_init(pthread_cond_t *condition)
{
	pthread_condattr_t attributes;

	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(condition, &attributes);
	pthread_condattr_destroy(&attributes);
}

void kvm_run_init(struct kvm_engine *kvm)
{
	kvm->end = ENGINE_STOPPED;
	pthread_mutex_init(&kvm->lock, NULL);
	condition_init(&kvm->idle);
	for (unsigned i = 0; i < ENGINE_VCPUS_MAX; i++)
		condition_init(&kvm->vcpu[i].wake);
}

int kvm_run_open(struct kvm_vcpu *vcpu)
{
	struct kvm_engine *kvm = kvm_engine_of(vcpu);
	sigset_t set, old;
	int error;

	kick_set(&set);
	pthread_sigmask(SIG_BLOCK, &set, &old);
	error = open_mask(vcpu, &old);
	return error || kvm->has_slice ? error : open_slice(kvm);
}

static void join_threads(struct kvm_engine *kvm)
{
	pthread_mutex_lock(&kvm->lock);
	kvm->quit = true;
	for (unsigned i = 1; i < kvm->count; i++)
		pthread_cond_signal(&kvm->vcpu[i].wake);
	pthread_mutex_unlock(&kvm->lock);
	for (unsigned i = 1; i < kvm->count; i++)
		if (kvm->vcpu[i].has_thread)
			pthread_join(kvm->vcpu[i].thread, NULL);
}

void kvm_run_close(struct kvm_engine *kvm)
{
	sigset_t set;

	join_threads(kvm);
	if (kvm->has_slice) {
		timer_delete(kvm->slice);
		drain_kicks();
		kick_set(&set);
		pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	}
	for (unsigned i = 0; i < ENGINE_VCPUS_MAX; i++)
		pthread_cond_destroy(&kvm->vcpu[i].wake);
	pthread_cond_destroy(&kvm->idle);
	pthread_mutex_destroy(&kvm->lock);
}
