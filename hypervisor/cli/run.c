/* visor run: boots a guest. */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/line.h"
#include "cli/run.h"
#include "dev/disk_later.h"

volatile sig_atomic_t run_signal;

static void on_signal(int number) { run_signal = number; }

static void catch_signals(void)
{
	struct sigaction action = {.sa_handler = on_signal};

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGHUP, &action, NULL);
}

/* The hypervisor that was built or installed beside this program. */
static const char *find_l1(const struct run_options *options)
{
	static const char *const places[] = {"/../l1/l1.elf", "/../share/trapline/l1/l1.elf"};
	static char path[PATH_MAX];
	char self[PATH_MAX - 64];
	ssize_t size = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (options->l1 || size < 0)
		return options->l1;
	self[size] = 0;
	*strrchr(self, '/') = 0;
	for (unsigned i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		snprintf(path, sizeof(path), "%s%s", self, places[i]);
		if (access(path, R_OK) == 0)
			break;
	}
	return path;
}

/* The hypervisor, and the guest as its module; the guest's own is the next. */
static int load_nested(struct machine *machine, const struct run_options *options,
		       const struct cli_image *opened, const struct boot_options *guest)
{
	struct boot_options boot = {.module = {{.data = opened->image.data,
						.size = opened->image.size,
						.name = options->image}},
				    .modules = 1 + guest->modules,
				    .seed = options->seed};
	const char *path = find_l1(options);
	struct line append = {0};
	struct image l1;
	char why[256];
	int error;

	if (guest->modules)
		boot.module[1] = guest->module[0];
	if (!path)
		return cli_fail(EXIT_USAGE, "--depth: no hypervisor was built with visor; --l1 names one");
	error = image_open(&l1, path, why, sizeof(why));
	if (error)
		return cli_fail(EXIT_USAGE, "%s: %s", path, why);
	line_format(&append, "l1.depth=%u %s", options->depth, options->append ? options->append : "");
	line_add(&append, (struct span){"", 1});
	boot.append = append.at;
	error = boot_image(machine, &l1, &boot, why, sizeof(why));
	line_free(&append);
	image_close(&l1);
	if (error)
		return cli_fail(error == -EINVAL ? EXIT_USAGE : EXIT_HARNESS, "%s: %s", path, why);
	return 0;
}

/* Reads a module, "FILE ARGUMENTS" or FILE; free_modules() frees it. 0, or an exit code after a message. */
static int add_module(struct boot_options *boot, const char *text, size_t name)
{
	struct boot_module *module = &boot->module[boot->modules];
	char *path = strndup(text, name);
	uint8_t *data;
	char why[256];
	int code;

	if (!path)
		return cli_fail(EXIT_HARNESS, "%s: no memory", text);
	if (image_read_file(path, MEMORY_LOW_MAX, &data, &module->size, why, sizeof(why))) {
		code = cli_fail(EXIT_USAGE, "%s: %s", path, why);
		free(path);
		return code;
	}
	module->data = data;
	module->name = path;
	module->arguments = text[name] ? text + name + 1 : NULL;
	boot->modules++;
	return 0;
}

static int add_modules(struct boot_options *boot, const struct run_options *options)
{
	int code = options->initrd ? add_module(boot, options->initrd, strlen(options->initrd)) : 0;

	for (unsigned i = 0; i < options->modules && !code; i++)
		code = add_module(boot, options->module[i], strcspn(options->module[i], " "));
	return code;
}

static void free_modules(struct boot_options *boot)
{
	for (unsigned i = 0; i < boot->modules; i++) {
		free((void *)boot->module[i].data);
		free((void *)boot->module[i].name);
	}
}

static int load(struct machine *machine, const struct run_options *options, const struct cli_image *opened,
		const struct boot_options *boot)
{
	char why[256];
	int error;

	if (options->depth)
		return load_nested(machine, options, opened, boot);
	error = boot_image(machine, &opened->image, boot, why, sizeof(why));
	if (error)
		return cli_fail(error == -EINVAL ? EXIT_USAGE : EXIT_HARNESS, "%s: %s", options->image, why);
	return 0;
}

int run_load(struct machine *machine, const struct run_options *options, const struct cli_image *opened)
{
	struct boot_options boot = {.append = options->append, .seed = options->seed};
	int code = add_modules(&boot, options);

	if (!code)
		code = load(machine, options, opened, &boot);
	free_modules(&boot);
	return code;
}

static struct disk *disks[DISKS_MAX]; /* of the one machine that there is */

static void close_disks(void)
{
	for (unsigned i = 0; i < DISKS_MAX; i++) {
		disk_close(disks[i]);
		disks[i] = NULL;
	}
}

void run_free(struct machine *machine)
{
	machine_free(machine);
	close_disks();
}

/* A guest that may go leaves its disks to whoever has it then. */
static struct disk *may_go(const struct run_options *options, const char *name, struct disk *image)
{
	struct disk *disk = options->control ? disk_later_of(name, image) : image;

	if (!disk)
		disk_close(image);
	return disk;
}

/* 0, or an exit code after a message. */
static int open_disks(const struct run_options *options)
{
	char why[256];

	for (unsigned i = 0; i < options->disks; i++) {
		struct disk *image;

		if (disk_open(&image, options->disk[i].name, options->disk[i].read_only, why, sizeof(why))) {
			close_disks();
			return cli_fail(EXIT_USAGE, "%s: %s", options->disk[i].name, why);
		}
		disks[i] = may_go(options, options->disk[i].name, image);
		if (!disks[i]) {
			close_disks();
			return cli_fail(EXIT_HARNESS, "%s: no memory", options->disk[i].name);
		}
	}
	return 0;
}

int run_disks(const struct run_options *options) { return open_disks(options); }

int run_disks_await(const struct run_options *options, const struct configure_disk *disk, unsigned count, char *why,
		    size_t size)
{
	if (count != options->disks) {
		snprintf(why, size, "disks: the guest has %u, and --disk names %u", count, options->disks);
		return -EINVAL;
	}
	for (unsigned i = 0; i < count; i++) {
		if (options->disk[i].read_only != disk[i].read_only) {
			snprintf(why, size, "disk %u: the guest's is %s", i,
				 disk[i].read_only ? "read-only (--disk-ro)" : "one that it writes to (--disk)");
			return -EINVAL;
		}
		disks[i] = disk_later_new(options->disk[i].name, disk[i].size, disk[i].read_only);
		if (!disks[i])
			return -ENOMEM;
	}
	return 0;
}

int run_disks_open(char *why, size_t size)
{
	char reason[256];

	for (unsigned i = 0; i < DISKS_MAX && disks[i]; i++) {
		int error = disk_later_open(disks[i], reason, sizeof(reason));

		if (error) {
			snprintf(why, size, "disk %u: %s", i, reason);
			run_disks_close();
			return error;
		}
	}
	return 0;
}

void run_disks_close(void)
{
	for (unsigned i = 0; i < DISKS_MAX && disks[i]; i++)
		disk_later_close(disks[i]);
}

int run_new(struct machine **machine, const struct run_options *options, const struct machine_config *partial, char *why,
	    size_t size)
{
	struct machine_config config = *partial;

	config.engine = options->engine;
	config.device = options->device;
	config.cpu = options->cpu;
	config.memory = options->memory;
	config.rtc_start = options->rtc_start;
	config.no_hpet = options->no_hpet;
	config.vcpus = options->vcpus;
	config.seed = options->seed;
	config.slice = options->slice;
	if (options->bus != BUS_DEFAULT)
		config.open_bus = options->bus == BUS_OPEN;
	config.peripherals.entropy = options->entropy;
	config.peripherals.console = options->virtio_console;
	config.peripherals.seed = options->seed;
	memcpy(config.peripherals.disk, disks, sizeof(disks));
	config.peripherals.disks = options->disks;
	config.signal = &run_signal;
	return machine_new(machine, &config, why, size);
}

int run_make(struct machine **machine, const struct run_options *options, const struct machine_config *config)
{
	char why[512];
	int error = run_new(machine, options, config, why, sizeof(why));

	if (error == -EINVAL)
		return cli_fail(EXIT_USAGE, "--cpu %s: %s", options->cpu, why);
	if (error == -ENODEV)
		return cli_fail(EXIT_USAGE, "--engine %s: %s", options->engine_text, why);
	return error ? cli_fail(EXIT_HARNESS, "no machine: %s", why) : 0;
}

int run_machine(struct machine **machine, const struct run_options *options, const struct cli_image *opened,
		const struct machine_config *config)
{
	int code = open_disks(options);

	if (code)
		return code;
	code = run_make(machine, options, config);
	if (code) {
		close_disks();
		return code;
	}
	code = run_load(*machine, options, opened);
	if (code)
		run_free(*machine);
	return code;
}

/* Answers how many there are. */
static unsigned statistics_of(const struct engine_ops *ops, const struct machine *machine, unsigned vcpu)
{
	struct line line = {0};
	char name[64];
	uint64_t value;
	unsigned i = 0;

	for (; ops->statistic(machine->vcpus[vcpu], i, name, sizeof(name), &value); i++)
		if (value) {
			line_format(&line, "statistic ");
			if (machine->vcpu_count > 1)
				line_format(&line, "%u: ", vcpu);
			line_plain(&line, span_of(name));
			line_format(&line, " %" PRIu64, value);
			line_write(&line, STDERR_FILENO);
		}
	line_free(&line);
	return i;
}

void run_statistics(const struct run_options *options, const struct machine *machine)
{
	unsigned count = 0;

	if (!options->statistics)
		return;
	for (unsigned vcpu = 0; vcpu < machine->vcpu_count; vcpu++)
		count += statistics_of(options->engine, machine, vcpu);
	if (!count)
		cli_fail(0, "--statistics: this device keeps none");
}

static int list_breaks(const struct run_options *options)
{
	struct line line = {0};
	int error = 0;

	for (unsigned i = 0; options->engine->check_name(i) && !error; i++) {
		line_text(&line, options->engine->check_name(i));
		error = line_write(&line, 1);
	}
	line_free(&line);
	return error ? cli_output_failed(error) : EXIT_EXPECTED;
}

static int run_opened(const struct run_options *options, const struct cli_image *opened)
{
	struct tracer tracer = {.several = options->vcpus > 1};
	int code, error = options->trace ? tracer_open(&tracer, options->trace) : 0;

	if (error)
		return cli_fail(EXIT_USAGE, "%s: %s", options->trace, strerror(-error));
	if (opened->has_cases && !options->control && !options->incoming)
		code = run_cases(options, opened, &tracer);
	else
		code = run_plain(options, opened, &tracer);
	error = tracer_close(&tracer);
	return error ? cli_fail(EXIT_HARNESS, "%s: %s", options->trace, strerror(-error)) : code;
}

int cmd_run(int argc, char **argv)
{
	static struct run_options options;
	struct cli_image opened;
	int code = run_parse(argc, argv, &options);

	if (code)
		return code < 0 ? 0 : code;
	if (options.list_breaks)
		return options.move.text ? run_list_states(&options) : list_breaks(&options);
	catch_signals();
	if (!options.image) {
		opened = (struct cli_image){0};
		return run_opened(&options, &opened);
	}
	code = cli_open(&opened, options.image, options.patterns.count || options.json || options.invert);
	if (code)
		return code;
	code = run_opened(&options, &opened);
	cli_close(&opened);
	return code;
}
