/*
 * soft_run.c: turns and time.
 *
 * One thread runs all vCPUs, in turns of a number of instructions that a seeded generator chooses. So memory
 * is sequentially consistent, and a run is a function of the guest, the seed and the longest slice. There is
 * one clock, in ticks: each instruction of any vCPU is one, and while all of them wait it jumps to what comes
 * next.
 */
#include "engine/soft.h"

#include "cpu/control.h"

/* Most instructions of a turn, where the user says nothing: some microseconds of ours. */
#define SLICE_DEFAULT 4096u

/* Times that no run reaches: a timer so far away is none. */
#define TICKS_MAX (UINT64_MAX / 4)

static void time_loaded(void *device)
{
	struct soft_time *time = device;

	time->ticks = time->state.ns / PROFILE_TICK_NS;
}

static const char *time_wrong(const void *device, const void *values)
{
	const struct soft *soft = (const struct soft *)((const char *)device - offsetof(struct soft, time));
	const struct engine_time *time = values;

	return time->turn >= soft->count ? "turn" : time->ns / PROFILE_TICK_NS >= TICKS_MAX ? "ns" : NULL;
}

static const struct state_field time_fields[] = {TIME_FIELDS};
STATE_TABLE(soft_time_state, "time", 1, time_fields, time_loaded, time_wrong);

void soft_time_fetch(struct soft *soft) { soft->time.state.ns = soft->time.ticks * PROFILE_TICK_NS; }

/* ---- time ---- */

uint64_t soft_ticks(const struct soft *soft)
{
	return soft->running ? cpu_ticks(soft->running->cpu) : soft->time.ticks;
}

void soft_time_set(const struct soft *soft, struct cpu *cpu)
{
	if (!soft->running || soft->running->cpu != cpu)
		cpu->clock_offset = soft_ticks(soft) - cpu->retired;
}

static uint64_t now(void *owner) { return soft_ticks(owner) * PROFILE_TICK_NS; }

/* The tick at which the next timer is due. */
static uint64_t timer_ticks(const struct soft *soft)
{
	uint64_t due = soft->clock->next / PROFILE_TICK_NS + (soft->clock->next % PROFILE_TICK_NS != 0);

	return due < TICKS_MAX ? due : UINT64_MAX;
}

/* @cpu->retired when the shared clock comes to @ticks. */
static uint64_t retired_at(const struct cpu *cpu, uint64_t ticks)
{
	return ticks == UINT64_MAX ? UINT64_MAX : ticks - cpu->clock_offset;
}

/* @vcpu->cpu->retired when it has to come back: for a timer, or for a counter of its own. */
static uint64_t event_at(const struct soft_vcpu *vcpu)
{
	uint64_t timer = retired_at(vcpu->cpu, timer_ticks(vcpu->soft));

	return timer < vcpu->overflow_at ? timer : vcpu->overflow_at;
}

static void timer_changed(void *owner)
{
	struct soft *soft = owner;

	if (soft->running)
		cpu_set_event_at(soft->running->cpu, event_at(soft->running));
}

void soft_counters_moved(void *owner)
{
	struct soft_vcpu *vcpu = owner;

	if (vcpu->soft->running != vcpu)
		return;
	vcpu->overflow_at = msr_counter_overflow(vcpu->cpu);
	cpu_set_event_at(vcpu->cpu, event_at(vcpu));
}

void soft_time_open(struct soft *soft, uint64_t seed, uint64_t slice)
{
	soft->slice = slice ? slice : SLICE_DEFAULT;
	soft->time = (struct soft_time){.state.random = seed};
	soft->clock->owner = soft;
	soft->clock->now = now;
	soft->clock->changed = timer_changed;
}

/* Every vCPU waits: when the first goes on; TICKS_MAX or more: none will. */
static uint64_t wait_end(const struct soft *soft)
{
	uint64_t next = timer_ticks(soft);

	for (unsigned i = 0; i < soft->count; i++) {
		const struct cpu *cpu = soft->vcpu[i].cpu;

		uint64_t until = cpu_wait_end(cpu);

		if (until < next)
			next = until;
	}
	return next;
}

/* On to @next, or as far as the machine lets time pass at once. False: not all the way. */
static bool jump(struct soft *soft, uint64_t next)
{
	uint64_t ticks = next > soft->time.ticks ? next - soft->time.ticks : 0, passed = ticks;

	if (ticks && soft->bus.idle)
		passed = soft->bus.idle(soft->bus.owner, ticks * PROFILE_TICK_NS) / PROFILE_TICK_NS;
	soft->time.ticks += passed < ticks ? passed : ticks;
	soft->retired++; /* so that the budget ends a guest that only waits */
	return passed >= ticks;
}

/* ---- turns ---- */

/* SplitMix64. */
static uint64_t random_next(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

static bool runnable(const struct soft *soft, unsigned number)
{
	struct cpu *cpu = soft->vcpu[number].cpu;

	if (cpu->activity == ACTIVITY_ACTIVE)
		return true;
	soft_time_set(soft, cpu);
	return cpu_runnable(cpu);
}

/* Whose turn it is: who has it, or the next that can run. NULL: all wait. */
static struct soft_vcpu *next_turn(struct soft *soft)
{
	struct engine_time *turns = &soft->time.state;

	/* A turn that has come from elsewhere may be of nobody here. */
	if (turns->left && turns->turn < soft->count && runnable(soft, turns->turn))
		return &soft->vcpu[turns->turn];
	for (unsigned i = 1; i <= soft->count; i++) {
		unsigned number = (turns->turn + i) % soft->count;

		if (!runnable(soft, number))
			continue;
		turns->turn = number;
		turns->left = soft->count == 1 ? UINT64_MAX : 1 + random_next(&turns->random) % soft->slice;
		return &soft->vcpu[number];
	}
	return NULL;
}

static enum cpu_stop run_turn(struct soft *soft, struct soft_vcpu *vcpu, uint64_t budget)
{
	struct cpu *cpu = vcpu->cpu;
	uint64_t began = cpu->retired, left = soft->time.state.left < budget ? soft->time.state.left : budget;
	enum cpu_stop stop;

	soft_time_set(soft, cpu);
	soft_place_apic(vcpu);
	if (__builtin_add_overflow(began, left, &cpu->stop_at))
		cpu->stop_at = UINT64_MAX;
	vcpu->overflow_at = msr_counter_overflow(cpu);
	cpu->event_at = event_at(vcpu);
	soft->running = vcpu;
	stop = cpu_run(cpu);
	if (cpu->retired >= vcpu->overflow_at)
		lapic_local(&soft->chips.lapic[vcpu->vcpu.number], LVT_PERFORMANCE);
	soft->running = NULL;
	soft->time.ticks = cpu_ticks(cpu);
	soft->retired += cpu->retired - began;
	if (soft->count > 1)
		soft->time.state.left -=
			cpu->retired - began < soft->time.state.left ? cpu->retired - began : soft->time.state.left;
	return stop;
}

enum engine_exit soft_run(struct engine *engine, uint64_t budget)
{
	struct soft *soft = soft_of(engine);
	uint64_t end = soft->retired + budget < budget ? UINT64_MAX : soft->retired + budget;

	for (;;) {
		struct soft_vcpu *vcpu;

		if (timer_ticks(soft) <= soft->time.ticks) {
			soft->chips.changed = true;
			clock_run(soft->clock);
		}
		if (soft->stop) {
			soft->stop = false;
			return ENGINE_STOPPED;
		}
		if (soft->retired >= end)
			return ENGINE_BUDGET;
		vcpu = next_turn(soft);
		if (!vcpu) {
			uint64_t next = wait_end(soft);

			if (next >= TICKS_MAX)
				return ENGINE_HALTED;
			if (!jump(soft, next))
				return ENGINE_PAUSED;
			continue;
		}
		switch (run_turn(soft, vcpu, end - soft->retired)) {
		case CPU_STOP_SHUTDOWN: return ENGINE_SHUTDOWN;
		case CPU_STOP_UNMODELLED: soft->failure = vcpu->cpu->unmodelled; return ENGINE_FAILED;
		case CPU_STOP_YIELD: soft->time.state.left = 0; break;
		case CPU_STOP_BUDGET:
		case CPU_STOP_REQUESTED:
		case CPU_STOP_HALT: break;
		}
	}
}

void soft_request_stop(struct engine *engine)
{
	struct soft *soft = soft_of(engine);

	soft->stop = true;
	if (soft->running)
		cpu_request_stop(soft->running->cpu);
}

uint64_t soft_retired(const struct engine *engine)
{
	const struct soft *soft = (const struct soft *)engine;

	return soft->retired + (soft->running ? soft_ticks(soft) - soft->time.ticks : 0);
}
