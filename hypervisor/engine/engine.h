/*
 * engine.h: what executes vCPUs, as the machine around them sees it.
 *
 * An engine knows guest memory (slots of host memory that the caller owns), vCPUs, their interrupt chips
 * (local APICs, I/O APIC, 8259As) and the time. Ports and physical addresses that neither a slot nor a chip
 * holds are the caller's, through struct engine_bus. The guest's faults are data: an error is the host's.
 *
 * An engine belongs to one thread, but for request_stop(). Bus calls and timers come one at a time; an engine
 * that runs vCPUs on threads of its own holds its lock around each, and calls from outside of run() need
 * none.
 */
#ifndef TRAPLINE_ENGINE_ENGINE_H
#define TRAPLINE_ENGINE_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "x86/guest_cpu.h"
#include "x86/state_table.h"
#include "x86/vcpu_state.h"

#define ENGINE_VCPUS_MAX 64u

struct clock; /* chip/clock.h */

/* Why run() came back. */
enum engine_exit {
	ENGINE_BUDGET,   /* as many instructions as were allowed */
	ENGINE_PAUSED,   /* some milliseconds have passed, of an engine that does not count; or idle() wants it */
	ENGINE_STOPPED,  /* request_stop() */
	ENGINE_HALTED,   /* every vCPU waits, no timer is armed, and nothing that is pending can end it */
	ENGINE_SHUTDOWN, /* triple fault of a vCPU */
	ENGINE_FAILED    /* the engine cannot go on: failure() says why */
};

struct engine_bus {
	void *owner;
	/* Sizes 1, 2 or 4. */
	uint32_t (*port_in)(void *owner, uint16_t port, unsigned size);
	void (*port_out)(void *owner, uint16_t port, unsigned size, uint32_t value);
	/* Sizes 1 to 16. */
	void (*mmio_read)(void *owner, uint64_t address, void *to, unsigned size);
	void (*mmio_write)(void *owner, uint64_t address, const void *from, unsigned size);
	/* Every vCPU waits, for @ns until the next timer: asked before virtual time skips that. How much of it passes
	 * until run() shall come back (ENGINE_PAUSED); @ns or more: all of it. May be NULL. */
	uint64_t (*idle)(void *owner, uint64_t ns);
};

/* What a trace is told, with the vCPU's number; @text is one line, the callee's for the time of the call. */
struct engine_trace {
	void *owner;
	void (*insn)(void *owner, unsigned vcpu, uint64_t rip, const char *text);  /* about to run */
	void (*event)(void *owner, unsigned vcpu, uint64_t rip, const char *text); /* about to be delivered */
};

struct engine_config {
	const char *cpu;    /* profile, as on the command line */
	const char *device; /* kvm: path; NULL for its default */
	struct engine_bus bus;
	/* The machine's, borrowed. The engine sets now() and changed(), adds the timers of its chips, and
	 * calls clock_run(). NULL: the engine makes one of its own, for callers without devices. */
	struct clock *clock;
	unsigned vcpus; /* how many vcpu_new() will make, 0 being 1: CPUID tells it, so it is needed before */
	/* An engine that counts lets vCPUs take turns: of 1 to @slice instructions (0: its default), of which
	 * the seed's generator chooses. */
	uint64_t seed, slice;
	int64_t wall_clock; /* seconds since 1970 at the clock's 0, for guests that ask the hypervisor */
};

struct engine {
	const struct engine_ops *ops;
};
struct engine_vcpu {
	struct engine *engine;
	unsigned number; /* 0, 1, …: the local APIC's id, and the bootstrap processor is 0 */
};

struct engine_ops {
	const char *name;
	const char *cpu_default; /* profile, where the user names none */
	bool takes_device;       /* config.device means something */
	bool counts; /* run() keeps to its budget, retired() counts, and time follows instructions */
	/* One line for `visor info`: what this is, or why it is missing. Returns whether it can be opened.
	 * @device as in struct engine_config. */
	bool (*describe)(const char *device, char *text, size_t size);
	/* 0, or a negative errno with @why; -EINVAL where the profile is wrong, -ENODEV where the device
	 * is missing or unfit. */
	int (*open)(struct engine **engine, const struct engine_config *config, char *why, size_t size);
	void (*close)(struct engine *engine); /* and its vCPUs */

	/* @host is borrowed until close(). Base and size are multiples of 4096. 0, -EINVAL on overlap,
	 * -ENOSPC, -ENOMEM. */
	int (*memory_add)(struct engine *engine, uint64_t base, uint64_t size, void *host, bool read_only);
	/* A write by anyone but a vCPU; logged as dirty. False: not all of it is writable memory. */
	bool (*memory_write)(struct engine *engine, uint64_t address, const void *from, size_t size);
	/* Makes PAGE_SIZE bytes at @address, a multiple of that in writable memory, those at @page, which come from where the guest
	 * was before: not logged, no write that anything in the machine notices. No vCPU has run since, or will before it is
	 * loaded. False: no such page. */
	bool (*memory_replace)(struct engine *engine, uint64_t address, const void *page);
	/* Guest-physical addresses of the pages written since dirty_reset(), valid until the next write. */
	void (*dirty_pages)(struct engine *engine, const uint64_t **pages, size_t *count);
	void (*dirty_reset)(struct engine *engine);
	/* Puts the dirty pages back from @image, which holds all writable slots one behind the other in the
	 * order they were added, and forgets that they were. */
	void (*dirty_restore)(struct engine *engine, const uint8_t *image, uint64_t size);

	/* The processor that the guest is told it has: the profile's, or what cpu_take() was given. */
	void (*cpu_tell)(struct engine *engine, struct guest_cpu *to);
	/*
	 * The guest that comes knows another processor, and goes on with that: its CPUID, no features beyond, and the
	 * profile's behaviour. Once all vCPUs are made, and before anything runs or is loaded. 0, or -EINVAL with
	 * @why in one line that names each feature which the guest was told of and this processor lacks, and whatever
	 * else of it this processor cannot be; the engine is as it was then.
	 */
	int (*cpu_take)(struct engine *engine, const struct guest_cpu *from, char *why, size_t size);

	/* The next vCPU, in its reset state: the first is the bootstrap processor, all others wait for a
	 * SIPI. 0, -ENOMEM, -ENOSPC where the engine has no more, or config.vcpus are made. */
	int (*vcpu_new)(struct engine *engine, struct engine_vcpu **vcpu);
	/* 0, or a negative errno where a device refuses to tell it: failure() says what then. */
	int (*vcpu_save)(struct engine_vcpu *vcpu, struct vcpu_state *to);
	/* 0, or -EINVAL where this engine cannot take the state: failure() names what of it, and why. */
	int (*vcpu_load)(struct engine_vcpu *vcpu, const struct vcpu_state *from);
	/* RESET of all vCPUs and chips; memory and time stay as they are. */
	void (*reset)(struct engine *engine);
	/* Runs all vCPUs, at most @budget instructions in all; UINT64_MAX for no limit. A wait of all of them
	 * for a timer counts as one. An engine that does not count takes any but 0 for no limit, and comes
	 * back with ENGINE_PAUSED now and then. */
	enum engine_exit (*run)(struct engine *engine, uint64_t budget);
	/* Of an engine that does not count: run() comes back with ENGINE_PAUSED behind @steps of its vCPUs in all, each
	 * what lies between two exits of a vCPU, or some microseconds; 0: it comes back as it likes. NULL of one that
	 * counts. */
	void (*pace)(struct engine *engine, uint64_t steps);
	void (*request_stop)(struct engine *engine); /* from a bus call or a timer */
	const char *(*failure)(const struct engine *engine);
	/* Instructions of all vCPUs since the engine was opened, and waits. Exact when run() is over; 0 of an
	 * engine that does not count. */
	uint64_t (*retired)(const struct engine *engine);
	uint64_t (*rip)(const struct engine_vcpu *vcpu);

	/* What a PC's firmware does to the chips before it starts a kernel: the bootstrap processor's local APIC is
	 * in virtual wire mode, and the 8259As take the lines in @level (a bit each) as level-triggered. May be
	 * NULL. */
	void (*firmware)(struct engine *engine, uint16_t level);
	/* The level of an interrupt line with the PC's wiring: 0 to 15 lead to the 8259As and to the I/O APIC
	 * (0 to its input 2), 16 to 23 to the I/O APIC alone. */
	void (*interrupt_input)(struct engine *engine, unsigned gsi, bool raised);
	/* A message-signalled interrupt: a device's write to 0xfeexxxxx. */
	void (*msi)(struct engine *engine, uint64_t address, uint32_t data);
	/* A pulse on the NMI pin of the vCPU, LINT1: where the local APIC masks that, nothing. */
	void (*nmi)(struct engine *engine, unsigned vcpu);
	/* The SMI pin of the vCPU. */
	void (*smi)(struct engine *engine, unsigned vcpu);
	/* Whether a PC's board can use that: its firmware knows AMD's map of the state that an SMI saves, and no other. */
	bool (*smi_for_board)(const struct engine *engine);

	/*
	 * What the engine has beyond memory and struct vcpu_state, with its table: NULL past the last. 0 is
	 * the time, which is loaded before the vCPUs; all others are loaded behind them. chips_fetch() comes
	 * before they are read, chips_store() behind their loading. chips_changed(): whether any of them but
	 * the time may have changed since chips_store() or chips_fetch() was called last.
	 */
	void *(*chip)(struct engine *engine, unsigned index, const struct state_table **table);
	int (*chips_fetch)(struct engine *engine);
	int (*chips_store)(struct engine *engine);
	bool (*chips_changed)(const struct engine *engine);

	/* Told of each instruction and event from now on; NULL: no more. -ENOTSUP where the engine cannot. */
	int (*trace)(struct engine *engine, const struct engine_trace *trace);
	/* A count that the engine keeps of the vCPU, by index (0, 1, …), as @name. False: past the last. */
	bool (*statistic)(struct engine_vcpu *vcpu, unsigned index, char *name, size_t size, uint64_t *value);
	/* Breaks a named check (mutants); NULL mends it. False: none is called that. */
	bool (*break_check)(struct engine *engine, const char *name);
	/* Name of the check with this index (0, 1, …), or NULL past the last. */
	const char *(*check_name)(unsigned index);
	/* Calls @take (or nothing) with the name of each check that mattered since the last call, some perhaps
	 * twice: only breaking one of these could have changed anything. NULL: the engine has no checks. */
	void (*take_reached)(struct engine *engine, void (*take)(void *owner, const char *name), void *owner);
};

extern const struct engine_ops engine_soft, engine_kvm;

/* The engines of this build, ended by NULL. */
extern const struct engine_ops *const engines[];
/* The engine called by the first @size bytes of @name, or NULL. */
const struct engine_ops *engine_find(const char *name, size_t size);

#endif
