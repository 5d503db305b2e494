/* visor run with --control or --incoming: a guest that is spoken to from outside, that goes, and that comes.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/records.h"
#include "cli/run.h"

/* ---- what clients want ---- */

static void on_quit(void *owner)
{
	struct run_live *live = owner;

	run_signal = RUN_QUIT;
	gate_wake(&live->gate);
}

/* The guest's thread is in the middle of an instruction that will never end. */
static void on_give_up(void *owner)
{
	(void)owner;
	_exit(0);
}

static int on_reset(void *owner, char *why, size_t size)
{
	struct run_live *live = owner;

	if (!live->options->image && !live->machine->rom) {
		snprintf(why, size,
			 "there is no image here to boot again: visor run takes one behind --incoming");
		return -EINVAL;
	}
	live->resets = true;
	machine_stop(live->machine, MACHINE_RESET);
	return 0;
}

/* ---- what migrations do ---- */

static void tell_completed(struct migration *migration)
{
	struct migration_counts *counts = &migration->counts;
	double seconds = (double)(counts->ended - counts->began) / 1e9, bytes = (double)counts->bytes;

	cli_fail(0, "the guest was sent: %.1f MB in %.3f s (%.0f MB/s), %llu rounds, stopped for %.3f ms",
		 bytes / 1e6, seconds, seconds > 0 ? bytes / 1e6 / seconds : 0,
		 (unsigned long long)counts->syncs + 1, (double)(counts->resumed - counts->stopped) / 1e6);
}

static void on_changed(void *owner, enum migration_status status)
{
	struct run_live *live = owner;
	char error[STREAM_WHY + 500];
	bool receives;

	if (migration_get_capability(&live->migration, CAPABILITY_EVENTS) && live->monitor)
		monitor_event(live->monitor, "MIGRATION",
			      json_pack("{s:s}", "status", migration_status_name(status)));
	pthread_mutex_lock(&live->migration.lock);
	receives = live->migration.receives;
	memcpy(error, live->migration.error, sizeof(error));
	pthread_mutex_unlock(&live->migration.lock);
	if (status == MIGRATION_POSTCOPY_PAUSED)
		cli_fail(0, "migration paused: %s", error);
	if (receives) /* which says itself why it ends */
		return;
	if (status == MIGRATION_COMPLETED)
		tell_completed(&live->migration);
	else if (status == MIGRATION_FAILED)
		cli_fail(0, "migration failed: %s", error);
	else if (status == MIGRATION_CANCELLED)
		cli_fail(0, "migration cancelled");
}

static void on_stopped(void *owner) { run_live_event(owner, "STOP", NULL); }
static void on_resumed(void *owner) { run_live_event(owner, "RESUME", NULL); }
static void on_disks_close(void *owner)
{
	(void)owner;
	run_disks_close();
}
static int on_disks_open(void *owner, char *why, size_t size)
{
	(void)owner;
	return run_disks_open(why, size);
}

/* What the user has said of the machine must be so, and all else is as the guest has it. */
static int fit(const struct run_options *given, struct machine_config *config, const char *cpu, char *why,
	       size_t size)
{
	const char *what = NULL;

	if (given->given.memory && given->memory != config->memory)
		what = "--mem";
	else if (given->given.vcpus && given->vcpus != config->vcpus)
		what = "--smp";
	else if (given->given.seed && given->seed != config->seed)
		what = "--seed";
	else if (given->given.slice && given->slice != config->slice)
		what = "--slice";
	else if (given->given.rtc && given->rtc_start != config->rtc_start)
		what = "--rtc";
	else if (given->given.hpet && !config->no_hpet)
		what = "--no-hpet";
	else if (given->given.entropy && !config->peripherals.entropy)
		what = "--entropy";
	else if (given->given.console && !config->peripherals.console)
		what = "--virtio-console";
	config->cpu = given->given.cpu || !given->engine->counts ? given->cpu : cpu;
	if (!what)
		return 0;
	snprintf(why, size, "%s: the guest's machine is another (memory %llu, %u vCPUs, seed %llu)", what,
		 (unsigned long long)config->memory, config->vcpus, (unsigned long long)config->seed);
	return -EINVAL;
}

static int on_make(void *owner, const struct description *description, struct machine **machine, char *why,
		   size_t size)
{
	static char cpu[DESCRIPTION_TEXT_MAX]; /* of the machine, for as long as that is there */
	struct run_live *live = owner;
	struct run_options options = *live->options;
	struct machine_config config = live->config;
	struct configure_disk disk[DISKS_MAX];
	int disks = configure_machine(description, &config, cpu, disk, why, size), error;

	error = disks < 0 ? disks : fit(live->options, &config, cpu, why, size);
	if (!error)
		error = run_disks_await(&options, disk, (unsigned)disks, why, size);
	if (error)
		return error;
	options.cpu = config.cpu;
	options.memory = config.memory;
	options.vcpus = config.vcpus;
	options.seed = config.seed;
	options.slice = config.slice;
	options.rtc_start = config.rtc_start;
	options.no_hpet = config.no_hpet;
	options.entropy = config.peripherals.entropy;
	options.virtio_console = config.peripherals.console;
	error = run_new(machine, &options, &config, why, size);
	if (!error)
		live->machine = *machine;
	return error;
}

/* ---- life ---- */

int run_live_open(struct run_live *live, const struct run_options *options)
{
	const struct migration_config migration = {.owner = live,
						   .changed = on_changed,
						   .stopped = on_stopped,
						   .resumed = on_resumed,
						   .disks_close = on_disks_close,
						   .disks_open = on_disks_open,
						   .make = on_make,
						   .signal = &run_signal};
	const struct monitor_config monitor = {.uri = options->control,
					       .version = VISOR_VERSION,
					       .gate = &live->gate,
					       .migration = &live->migration,
					       .owner = live,
					       .quit = on_quit,
					       .give_up = on_give_up,
					       .reset = on_reset};
	char why[400];
	int error;

	if (!options->control && !options->incoming)
		return 0;
	live->options = options;
	error = gate_open(&live->gate);
	if (error)
		return cli_fail(EXIT_HARNESS, "--control: %s", strerror(-error));
	migration_init(&live->migration, &migration, &live->gate);
	live->open = true;
	if (options->incoming && migration_listen(&live->migration, options->incoming, why, sizeof(why)))
		return cli_fail(EXIT_USAGE, "--incoming %s: %s", options->incoming, why);
	if (options->control && monitor_open(&live->monitor, &monitor, why, sizeof(why)))
		return cli_fail(EXIT_USAGE, "--control %s: %s", options->control, why);
	return 0;
}

static bool leaves(void *owner)
{
	(void)owner;
	return run_signal != 0;
}

void run_live_attend(struct run_live *live)
{
	if (live->open)
		gate_attend(&live->gate, leaves, NULL);
}

void run_live_has(struct run_live *live, struct machine *machine)
{
	live->machine = machine;
	if (!live->open)
		return;
	pthread_mutex_lock(&live->migration.lock);
	live->migration.machine = machine;
	pthread_mutex_unlock(&live->migration.lock);
}

int run_live_receive(struct run_live *live, const struct machine_config *config, struct machine **machine)
{
	const char *uri = live->options->incoming;
	char why[512];
	int error;

	live->config = *config;
	*machine = NULL;
	for (;;) {
		error = migration_receive(&live->migration, why, sizeof(why));
		if (!error)
			break;
		run_free(live->machine);
		live->machine = NULL;
		if (error == -EINTR || !migration_stays(&live->migration))
			break;
		cli_fail(0, "migration failed: %s", why);
	}
	if (error == -EINTR && run_signal)
		return run_signal == RUN_QUIT ? 0 : EXIT_SIGNAL + run_signal;
	if (error)
		return cli_fail(EXIT_HARNESS, "--incoming %s: %s", uri, why);
	*machine = live->machine;
	return 0;
}

void run_live_event(struct run_live *live, const char *name, const char *reason)
{
	if (live->monitor)
		monitor_event(live->monitor, name,
			      reason ? json_pack("{s:b s:s}", "guest", strncmp(reason, "guest", 5) == 0,
						 "reason", reason)
				     : NULL);
}

void run_live_close(struct run_live *live)
{
	if (!live->open)
		return;
	gate_close(&live->gate);
	migration_end(&live->migration);
	monitor_close(live->monitor);
	migration_free(&live->migration);
	gate_free(&live->gate);
	live->open = false;
}
