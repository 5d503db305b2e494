/*
 * run.h: the options of `visor run`, and the two things that it runs.
 */
#ifndef TRAPLINE_CLI_RUN_H
#define TRAPLINE_CLI_RUN_H

#include <signal.h>

#include "cli/cli.h"
#include "cli/tracer.h"
#include "engine/engine.h"
#include "vm/boot.h"
#include "migrate/configure.h"
#include "migrate/migration.h"
#include "migrate/move.h"
#include "monitor/monitor.h"
#include "vm/machine.h"
#include "vm/suite.h"

#define DEPTH_MAX 9u /* a digit of the hypervisor's command line */

struct run_options {
	const struct engine_ops *engine;
	const char *engine_text; /* as given */
	const char *device, *cpu, *append, *initrd, *trace, *break_check, *image;
	int64_t rtc_start;    /* seconds since 1970 */
	const char *rtc_text; /* --rtc, where it is a fixed time */
	bool no_hpet;
	uint64_t memory;
	unsigned vcpus;
	unsigned depth; /* hypervisors of ours between the machine and the guest */
	const char *l1; /* that hypervisor; NULL: the one that belongs to visor */
	uint64_t seed;  /* of the vCPUs' turns, and of random numbers for the guest */
	uint64_t slice; /* longest turn; 0: not given */
	const char *module[BOOT_MODULES_MAX - 1]; /* behind the initrd: "FILE ARGUMENTS" */
	unsigned modules;
	struct {
		const char *name;
		bool read_only;
	} disk[DISKS_MAX];
	unsigned disks;
	bool disk_image; /* the last of these is the image */
	bool entropy, virtio_console;
	uint64_t max_insns; /* 0: not given */
	double timeout;     /* seconds; 0: not given */
	bool json, invert, fail_fast, list_breaks, statistics, coverage;
	enum { BUS_DEFAULT, BUS_OPEN, BUS_STRICT } bus; /* --open-bus, --no-open-bus */
	struct {
		const char *text; /* as given; NULL: the guest stays where it is */
		uint64_t every, seed;
		bool random, compare;
		const struct engine_ops *engine; /* of the second machine; NULL: as the first */
		const char *engine_text, *device, *cpu;
	} move;
	const char *control, *incoming; /* URIs; NULL: not given */
	/* What of a machine was given: a guest that comes must have it. Of the rest it has what it has. */
	struct {
		bool memory, vcpus, cpu, seed, slice, rtc, hpet, entropy, console;
	} given;
	bool reboot; /* a reset boots the image again */
	struct patterns patterns;
};

/* 0; an exit code after a message; -1 after --help. */
int run_parse(int argc, char **argv, struct run_options *options);
/* The options that a reproduction line needs besides --engine, --cpu and --cases. The caller frees it. */
char *run_again(const struct run_options *options);

/* The signal that asked us to stop, RUN_QUIT where a client of the control socket did, or 0. */
extern volatile sig_atomic_t run_signal;
#define RUN_QUIT (-1)

/* Makes a machine of @options with the image in it. 0, or an exit code after a message. */
int run_machine(struct machine **machine, const struct run_options *options, const struct cli_image *opened,
		const struct machine_config *config);
/* The same, without an image, and with disks that are open already. */
int run_make(struct machine **machine, const struct run_options *options, const struct machine_config *config);
/* The disks of a guest that may go, and come: --control and --incoming. Of the latter they are opened when the guest is ours,
 * and are @size bytes long. 0, or a negative errno with @why. */
int run_disks_await(const struct run_options *options, const struct configure_disk *disk, unsigned count, char *why,
		    size_t size);
int run_disks_open(char *why, size_t size);
void run_disks_close(void);
/* And without a message: 0, or a negative errno with @why. */
int run_new(struct machine **machine, const struct run_options *options, const struct machine_config *config, char *why,
	    size_t size);
/* Opens the disks of a machine that run_make() makes next. 0, or an exit code after a message. */
int run_disks(const struct run_options *options);
/* Frees it, and closes the disks that it had. */
void run_free(struct machine *machine);

/* Puts the image into a machine that is in its reset state. 0, or an exit code after a message. */
int run_load(struct machine *machine, const struct run_options *options, const struct cli_image *opened);

/* --statistics: what the engine counted, a line each on standard error. */
void run_statistics(const struct run_options *options, const struct machine *machine);

/* ---- --move (run_move.c) ---- */

struct run_move {
	void *owner; /* both set by the caller, as in struct move_config */
	void (*moved)(void *owner, struct machine *machine);
	struct machine *second; /* NULL: the guest is not moved */
	struct machine *reference; /* NULL: nothing is compared */
	struct mover *mover;
};

#define BREAK_STATE "STATE:"

/* Makes the second machine, where the options want one. 0, or an exit code after a message. */
int run_move_open(struct run_move *move, const struct run_options *options, const struct machine_config *config,
		  struct machine *first);
void run_move_close(struct run_move *move); /* before the first machine is freed */
/* machine_run(), with moves where there are any: *@machine has the guest then, and *@spent instructions have retired. */
const struct machine_end *run_moving(struct run_move *move, struct machine **machine, const struct machine_limits *limits,
				     uint64_t *spent);
struct suite_ways run_move_ways(struct run_move *move);
/* Whether --break names a field of a state, and the breaking. 0, or an exit code after a message. */
bool run_breaks_state(const struct run_options *options);
int run_break_state(const struct run_options *options, struct machine *machine);
/* --list-breaks with --move. An exit code. */
int run_list_states(const struct run_options *options);
/* 0, or an exit code after a message. */
int run_parse_move(struct run_options *options, const char *text);

/* ---- --control and --incoming (run_live.c) ---- */

struct run_live {
	const struct run_options *options;
	bool open;
	struct gate gate;
	struct migration migration;
	struct monitor *monitor; /* NULL: no control socket */
	struct machine_config config; /* of a machine that is made for a guest that comes */
	struct machine *machine;
	bool resets; /* a client wants a reset */
};

/* Nothing where the options want neither. 0, or an exit code after a message. */
int run_live_open(struct run_live *live, const struct run_options *options);
/* The machine's thread, between two run() calls. */
void run_live_attend(struct run_live *live);
/* The guest is in @machine, which the caller has made. */
void run_live_has(struct run_live *live, struct machine *machine);
/* Waits for a guest, which is in @machine then; NULL: a client has said quit. 0, or an exit code after a message. */
int run_live_receive(struct run_live *live, const struct machine_config *config, struct machine **machine);
/* What happened, for clients. */
void run_live_event(struct run_live *live, const char *name, const char *reason);
/* Before the machine is freed. */
void run_live_close(struct run_live *live);

/* Both return an exit code. */
int run_cases(const struct run_options *options, const struct cli_image *opened, struct tracer *tracer);
int run_plain(const struct run_options *options, const struct cli_image *opened, struct tracer *tracer);

#endif
