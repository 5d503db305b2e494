/*
 * machine.h: a guest's machine: memory, devices and a vCPU on an engine.
 *
 * Whatever the guest does ends in a struct machine_end. One thread; nothing is global.
 */
#ifndef TRAPLINE_VM_MACHINE_H
#define TRAPLINE_VM_MACHINE_H

#include <signal.h>

#include "chip/clock.h"
#include "dev/bus.h"
#include "dev/control.h"
#include "dev/debug.h"
#include "dev/pci.h"
#include "dev/serial.h"
#include "engine/engine.h"
#include "vm/memory_map.h"
#include "vm/peripherals.h"
#include "vm/platform.h"
#include "vm/span.h"

#define MEMORY_MIN     (2ull << 20)
#define MEMORY_MAX     (512ull << 30)
#define MEMORY_DEFAULT (128ull << 20)
#define ROM_MAX        (16u << 20)
#define MACHINE_SLICE  (1u << 20) /* instructions between two looks at the world: some milliseconds */

enum machine_event {
	MACHINE_READY,     /* control device: take the snapshot */
	MACHINE_DONE,      /* control device: the case is over */
	MACHINE_EXIT,      /* debug exit; value */
	MACHINE_RESET,     /* the guest reset the machine */
	MACHINE_POWER_OFF, /* the guest switched it off */
	MACHINE_SHUTDOWN,  /* triple fault */
	MACHINE_HALTED,    /* a halt that nothing can end */
	MACHINE_BUDGET,    /* instruction budget spent */
	MACHINE_TIMEOUT,   /* wall clock */
	MACHINE_OUTPUT,    /* printed more than it may */
	MACHINE_UNCLAIMED, /* an access that no device claims; why */
	MACHINE_MISUSED,   /* the control device, against its contract; why */
	MACHINE_FAILED,    /* the engine cannot go on; why */
	MACHINE_SIGNAL,    /* a signal came to us */
	MACHINE_QUIT       /* somebody with a control socket wants the end */
};

struct machine_end {
	enum machine_event event;
	uint32_t value;
	char why[1024];
};

struct machine_limits {
	uint64_t insns;    /* UINT64_MAX: none */
	uint64_t deadline; /* of machine_now(); UINT64_MAX: none */
	uint64_t output;   /* bytes; UINT64_MAX: none */
};

struct machine_config {
	const struct engine_ops *engine;
	const char *device, *cpu;
	uint64_t memory; /* bytes */
	unsigned vcpus;  /* 0: one */
	uint64_t seed, slice; /* of the vCPUs' turns, as in struct engine_config */
	bool open_bus, control;
	bool no_hpet;
	int64_t rtc_start; /* time of the real-time clock when the machine is made, in seconds since 1970 */
	struct peripherals_config peripherals; /* but for the virtio console's owner and sent, which are below */
	/* Where the guest's output goes. */
	void *owner;
	void (*console)(void *owner, uint8_t byte); /* debug console */
	void (*serial)(void *owner, uint8_t byte);  /* first serial port */
	void (*virtio)(void *owner, uint8_t byte);  /* virtio console */
	/* With open_bus, each access that it is for, as of struct bus. May be NULL. */
	void (*passed)(void *owner, const struct bus_access *access, bool claimed);
	/* Called now and then while the guest runs; may call serial_receive(). May be NULL. */
	void (*idle)(void *owner);
	/* The guest waits for @ns (UINT64_MAX: without a timer that would end it) and takes input: how much of it shall
	 * pass before idle() is called. @ns: all, at once where time is virtual. May be NULL. */
	uint64_t (*wait)(void *owner, uint64_t ns);
	const volatile sig_atomic_t *signal; /* set by a handler: the run ends soon */
	bool attended; /* by somebody who may come at any time: wait(), which must be there, is called for each wait of the
			* guest, and a halt that the guest cannot end is not the end */
};

struct machine {
	struct machine_config config;
	struct engine *engine;
	unsigned vcpu_count;
	struct engine_vcpu *vcpus[ENGINE_VCPUS_MAX];
	struct engine_vcpu *vcpu; /* the bootstrap processor, vcpus[0] */
	struct clock clock;       /* devices arm their timers here; the engine runs it */
	uint8_t *ram; /* all of it in one piece; machine_ram() finds an address in it */
	uint8_t *rom;
	uint64_t rom_size;
	struct bus bus;
	struct serial serial;
	struct debug debug;
	struct pci pci;
	struct platform platform;
	struct control control;
	struct peripherals peripherals;
	uint64_t printed; /* bytes since machine_run() began */
	uint64_t output_limit;
	uint64_t slice; /* MACHINE_SLICE, or less while somebody wants the machine's thread more often */
	bool ended; /* a device has set end */
	bool sleeps, wakes; /* S3 begins, ends: once the engine has stopped */
	struct machine_end end;
};

/* 0, or a negative errno with @why. *@machine is freed by machine_free(). */
int machine_new(struct machine **machine, const struct machine_config *config, char *why, size_t size);
void machine_free(struct machine *machine);

/* RESET: processors, chips and devices are as after machine_new(); memory, disks, time and the levels of lines that
 * devices drive stay. Booting an image again is the caller's. */
void machine_reset(struct machine *machine);

/* What a PC's firmware does to devices and chips before it starts a kernel. */
void machine_firmware(struct machine *machine);

/* Runs until something ends it; machine->end says what, and is returned. */
const struct machine_end *machine_run(struct machine *machine, const struct machine_limits *limits);

/* From within run() or a call between two of them: the run ends with @event, where it has not ended yet. */
void machine_stop(struct machine *machine, enum machine_event event);

/* Host address of @size bytes of RAM, for reading; NULL where not all of it is one range of RAM. */
uint8_t *machine_ram(struct machine *machine, uint64_t address, uint64_t size);
/* Writes to RAM. False: not all of it is RAM. */
bool machine_write(struct machine *machine, uint64_t address, const void *from, size_t size);
/* Maps @size bytes (a multiple of 4096, at most ROM_MAX) read-only below 4 GiB; once, but for the same size again.
 * 0, -ENOMEM, -EINVAL. */
int machine_add_rom(struct machine *machine, const uint8_t *data, size_t size);

/*
 * Each device with its table, for whoever walks them: NULL past the last. Those from MACHINE_APART on have not changed
 * while machine->bus.changed stayed false and no timer fired; who changes one from outside sets that.
 */
#define MACHINE_APART 3u
void *machine_device(struct machine *machine, unsigned index, const struct state_table **table);

/* Nanoseconds of the monotonic clock. */
uint64_t machine_now(void);
/* "the guest halted …": one line for people. */
void machine_end_text(const struct machine_end *end, char *text, size_t size);

#endif
