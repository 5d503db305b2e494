/*
 * soft.h: the parts of the soft engine among themselves.
 *
 * soft.c is the engine's life, memory and vCPUs; soft_run.c lets vCPUs take turns and makes time of
 * instructions; soft_chips.c joins vCPUs with their interrupt chips. No other file of engine/ sees cpu/, but
 * kvm_trace.c its decoder.
 */
#ifndef TRAPLINE_ENGINE_SOFT_H
#define TRAPLINE_ENGINE_SOFT_H

#include "chip/clock.h"
#include "cpu/cpu.h"
#include "engine/chips.h"
#include "engine/latches.h"

struct soft_vcpu {
	struct engine_vcpu vcpu;
	struct soft *soft;
	struct cpu *cpu;
	struct kvmclock kvmclock;
	struct latches latches; /* as of soft_chips_fetch(), or loaded */
	uint64_t overflow_at; /* cpu->retired when a performance counter interrupts; made when a turn begins */
};

struct soft_time {
	struct engine_time state; /* first: what the table is of. Its ns is as of soft_chips_fetch(), or loaded */
	uint64_t ticks;           /* of the shared clock, while no vCPU runs */
};

struct soft {
	struct engine engine;
	struct profile profile; /* as its guest knows it */
	struct profile own;     /* as the user named it */
	struct guest_cpu guest; /* what profile.guest borrows */
	char cpu[GUEST_CPU_NAME];
	struct engine_bus bus;
	struct phys_memory *memory;
	struct clock *clock, own_clock;
	uint64_t slice;
	int64_t wall_clock; /* seconds since 1970 at the clock's 0 */
	unsigned wanted, count; /* vCPUs */
	struct soft_vcpu vcpu[ENGINE_VCPUS_MAX];
	struct chips chips;
	bool latched; /* some vCPU had latches set when chips_fetch() was called */

	struct soft_time time;
	struct soft_vcpu *running; /* in cpu_run() */
	uint64_t retired;          /* of all vCPUs, but for what the running one has done in this turn */
	bool stop;                 /* request_stop() */
	const char *failure;
	char reason[160]; /* for failure */
	struct engine_trace trace;
};

static inline struct soft *soft_of(struct engine *engine) { return (struct soft *)engine; }
static inline struct soft_vcpu *soft_vcpu_of(struct engine_vcpu *vcpu) { return (struct soft_vcpu *)vcpu; }

/* ---- soft_run.c ---- */

extern const struct state_table soft_time_state;
/* For the table. */
void soft_time_fetch(struct soft *soft);

/* struct cpu_bus.counters_moved; @owner is the struct soft_vcpu. */
void soft_counters_moved(void *owner);
/* Sets the clock's callbacks, and the first turn. */
void soft_time_open(struct soft *soft, uint64_t seed, uint64_t slice);
uint64_t soft_ticks(const struct soft *soft);
/* Makes @cpu's time the shared one; before anything asks it while it does not run. */
void soft_time_set(const struct soft *soft, struct cpu *cpu);
enum engine_exit soft_run(struct engine *engine, uint64_t budget);
void soft_request_stop(struct engine *engine);
uint64_t soft_retired(const struct engine *engine);

/* ---- soft_kvmclock.c ---- */

extern const struct state_table soft_kvmclock_state;
bool soft_kvmclock_msr(uint32_t index);
uint64_t soft_kvmclock_read(const struct soft_vcpu *vcpu, uint32_t index);
void soft_kvmclock_write(struct soft_vcpu *vcpu, uint32_t index, uint64_t value);
/* The TSC has been written: what the guest was told of it is told again. */
void soft_kvmclock_update(struct soft_vcpu *vcpu);
/* All of the guest has come. */
void soft_kvmclock_arrived(struct soft_vcpu *vcpu);

/* ---- soft_chips.c ---- */

/* Tells the vCPU where its local APIC is; before it runs, as others may have moved that. */
void soft_place_apic(struct soft_vcpu *vcpu);
struct cpu_bus soft_chips_bus(struct soft_vcpu *vcpu);
/* What its local APIC is, by the profile. */
void soft_lapic_model(const struct soft *soft, struct lapic_model *model);
/* Gives a vCPU its local APIC. False: no room. */
bool soft_chips_add(struct soft_vcpu *vcpu);
void soft_chips_reset(struct soft *soft);
void soft_chips_save(struct soft_vcpu *vcpu, struct vcpu_state *to);
void soft_chips_load(struct soft_vcpu *vcpu, const struct vcpu_state *from);
void soft_firmware(struct engine *engine, uint16_t level);
void soft_interrupt_input(struct engine *engine, unsigned gsi, bool raised);
void soft_msi(struct engine *engine, uint64_t address, uint32_t data);
void soft_nmi(struct engine *engine, unsigned vcpu);
void soft_smi(struct engine *engine, unsigned vcpu);
bool soft_smi_for_board(const struct engine *engine);
void *soft_chip(struct engine *engine, unsigned index, const struct state_table **table);
int soft_chips_fetch(struct engine *engine);
int soft_chips_store(struct engine *engine);
bool soft_chips_changed(const struct engine *engine);

#endif
