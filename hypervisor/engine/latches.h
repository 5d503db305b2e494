/*
 * latches.h: what a vCPU has beside struct vcpu_state, as every engine tells and takes it (table "latches"),
 * and what is carried for guests of other engines.
 */
#ifndef TRAPLINE_ENGINE_LATCHES_H
#define TRAPLINE_ENGINE_LATCHES_H

#include "x86/state_table.h"

/* An event that was given to the processor, and that it has not delivered. */
enum latched_event {
	LATCHED_NONE,
	LATCHED_INTERRUPT,   /* external; the interrupt chip has been told that it is taken */
	LATCHED_INSTRUCTION, /* INT n: RIP is its own, and executing it again does the same */
	LATCHED_EXCEPTION,   /* a fault; so does executing its instruction again */
};

struct latches {
	uint8_t init_pending, smi_pending;
	uint8_t nmi_behind; /* an NMI behind the one of vcpu_state.nmi_pending */
	uint8_t event;      /* enum latched_event */
	uint8_t vector, has_error_code;
	/* LATCHED_EXCEPTION: it is not yet decided whether a hypervisor of the guest's takes it; CR2 or DR6
	 * has still to become what @payload says. */
	uint8_t exception_pending, has_payload;
	uint32_t error_code;
	uint64_t payload;
	uint64_t debug_pending; /* DR6 bits of a #DB trap that is due */
	/* MONITOR and its kin. */
	uint8_t wait_armed, wait_masked, wait_carry;
	uint64_t wait_line;  /* physical address */
	uint64_t wait_until; /* of the machine's clock, ns; UINT64_MAX: no limit */
};

/* KVM's clock of a vCPU: the MSRs as written. */
struct kvmclock {
	uint64_t system_time, wall_clock;
	uint32_t version;
};

/* The machine's time, and whose turn it is where an engine lets vCPUs take turns: others carry that. */
struct engine_time {
	uint64_t ns;     /* when the state was last fetched, or loaded */
	uint64_t random; /* state of the generator of slices */
	uint64_t left;   /* instructions of the turn that are left */
	uint32_t turn;   /* whose it is */
};

/* clang-format off */
#define LATCH_FIELDS                                                                             \
	STATE(struct latches, init_pending), STATE(struct latches, smi_pending),                 \
	STATE(struct latches, nmi_behind), STATE(struct latches, event),                         \
	STATE(struct latches, vector), STATE(struct latches, has_error_code),                    \
	STATE(struct latches, exception_pending), STATE(struct latches, has_payload),            \
	STATE(struct latches, error_code), STATE(struct latches, payload),                       \
	STATE(struct latches, debug_pending), STATE(struct latches, wait_armed),                 \
	STATE(struct latches, wait_masked), STATE(struct latches, wait_carry),                   \
	STATE(struct latches, wait_line), STATE(struct latches, wait_until)
#define KVMCLOCK_FIELDS                                                                          \
	STATE(struct kvmclock, system_time), STATE(struct kvmclock, wall_clock),                 \
	STATE(struct kvmclock, version)
#define TIME_FIELDS                                                                              \
	STATE(struct engine_time, ns), STATE(struct engine_time, random),                        \
	STATE(struct engine_time, left), STATE(struct engine_time, turn)
/* clang-format on */

/* struct state_table's wrong(), of both engines. */
static inline const char *latches_wrong(const void *device, const void *values)
{
	const struct latches *latches = values;

	(void)device;
	if (latches->event > LATCHED_EXCEPTION)
		return "event";
	if (latches->event == LATCHED_EXCEPTION && latches->vector > 31)
		return "vector";
#define LATCHES_BOOL(name)                                                                                   \
	if (latches->name > 1)                                                                               \
		return #name;
	LATCHES_BOOL(init_pending)
	LATCHES_BOOL(smi_pending)
	LATCHES_BOOL(nmi_behind)
	LATCHES_BOOL(has_error_code)
	LATCHES_BOOL(exception_pending)
	LATCHES_BOOL(has_payload)
	LATCHES_BOOL(wait_armed)
	LATCHES_BOOL(wait_masked)
	LATCHES_BOOL(wait_carry)
#undef LATCHES_BOOL
	return 0;
}

#endif
