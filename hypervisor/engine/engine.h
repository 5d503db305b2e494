/*
 * engine.h: what executes vCPUs, as the machine around them sees it.
 *
 * An engine knows guest memory (slots of host memory that the caller owns) and vCPUs; ports and
 * physical addresses that no slot holds are the caller's, through struct engine_bus. Bus calls come
 * on the thread that is in run(). The guest's faults are data: an error is the host's.
 *
 * An engine and its vCPUs belong to one thread, but for request_stop().
 */
#ifndef TRAPLINE_ENGINE_ENGINE_H
#define TRAPLINE_ENGINE_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "x86/vcpu_state.h"

/* Why run() came back. */
enum engine_exit {
	ENGINE_BUDGET,   /* as many instructions as were allowed */
	ENGINE_PAUSED,   /* some milliseconds have passed; only of an engine that does not count */
	ENGINE_STOPPED,  /* request_stop() */
	ENGINE_HALTED,   /* HLT, and nothing that is pending can end it */
	ENGINE_SHUTDOWN, /* triple fault */
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
	/* Takes the interrupt controller's highest-priority vector, or -1. NULL: there is none. */
	int (*interrupt_acknowledge)(void *owner);
};

/* What a trace is told; @text is one line, the callee's for the time of the call. */
struct engine_trace {
	void *owner;
	void (*insn)(void *owner, uint64_t rip, const char *text);  /* about to run */
	void (*event)(void *owner, uint64_t rip, const char *text); /* about to be delivered */
};

struct engine_config {
	const char *cpu;    /* profile, as on the command line */
	const char *device; /* kvm: path; NULL for its default */
	struct engine_bus bus;
};

struct engine {
	const struct engine_ops *ops;
};
struct engine_vcpu {
	struct engine *engine;
};

struct engine_ops {
	const char *name;
	const char *cpu_default; /* profile, where the user names none */
	bool takes_device;       /* config.device means something */
	bool counts;             /* run() keeps to its budget, and retired() counts */
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
	/* Guest-physical addresses of the pages written since dirty_reset(), valid until the next write. */
	void (*dirty_pages)(struct engine *engine, const uint64_t **pages, size_t *count);
	void (*dirty_reset)(struct engine *engine);
	/* Puts the dirty pages of the slot at 0 back from @image, laid out as that slot, and forgets that
	 * they were. */
	void (*dirty_restore)(struct engine *engine, const uint8_t *image, uint64_t size);

	/* A vCPU in its reset state. 0, -ENOMEM, -ENOSPC where the engine has no more. */
	int (*vcpu_new)(struct engine *engine, struct engine_vcpu **vcpu);
	void (*vcpu_save)(struct engine_vcpu *vcpu, struct vcpu_state *to);
	/* 0, or -EINVAL where this engine cannot take the state. */
	int (*vcpu_load)(struct engine_vcpu *vcpu, const struct vcpu_state *from);
	/* At most @budget instructions; UINT64_MAX for no limit. An engine that does not count takes any
	 * but 0 for no limit, and comes back with ENGINE_PAUSED now and then. */
	enum engine_exit (*run)(struct engine_vcpu *vcpu, uint64_t budget);
	void (*request_stop)(struct engine_vcpu *vcpu); /* from a bus call */
	const char *(*failure)(const struct engine_vcpu *vcpu);
	/* Instructions since the vCPU was made; the machine's clock. Exact when run() is over; 0 of an
	 * engine that does not count. */
	uint64_t (*retired)(const struct engine_vcpu *vcpu);
	uint64_t (*rip)(const struct engine_vcpu *vcpu);
	void (*interrupt_line)(struct engine_vcpu *vcpu, bool raised);

	/* Told of each instruction and event from now on; NULL: no more. -ENOTSUP where the engine cannot. */
	int (*trace)(struct engine_vcpu *vcpu, const struct engine_trace *trace);
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
