/* visor run: boots a guest. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/line.h"
#include "cli/run.h"

volatile sig_atomic_t run_signal;

static void on_signal(int number) { run_signal = number; }

static void catch_signals(void)
{
	struct sigaction action = {.sa_handler = on_signal};

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGHUP, &action, NULL);
}

static int load(struct machine *machine, const struct run_options *options, const struct cli_image *opened)
{
	struct boot_options boot = {.append = options->append};
	uint8_t *initrd = NULL;
	char why[256];
	int error;

	if (options->initrd) {
		error = image_read_file(options->initrd, MEMORY_LOW_MAX, &initrd, &boot.initrd_size, why,
					sizeof(why));
		if (error)
			return cli_fail(EXIT_USAGE, "%s: %s", options->initrd, why);
		boot.initrd = initrd;
		boot.initrd_name = options->initrd;
	}
	error = boot_image(machine, &opened->image, &boot, why, sizeof(why));
	free(initrd);
	if (error)
		return cli_fail(error == -EINVAL ? EXIT_USAGE : EXIT_HARNESS, "%s: %s", options->image, why);
	return 0;
}

int run_machine(struct machine **machine, const struct run_options *options, const struct cli_image *opened,
		const struct machine_config *partial)
{
	struct machine_config config = *partial;
	char why[512];
	int error, code;

	config.engine = options->engine;
	config.device = options->device;
	config.cpu = options->cpu;
	config.memory = options->memory;
	config.open_bus = options->open_bus;
	config.signal = &run_signal;
	error = machine_new(machine, &config, why, sizeof(why));
	if (error == -EINVAL)
		return cli_fail(EXIT_USAGE, "--cpu %s: %s", options->cpu, why);
	if (error == -ENODEV)
		return cli_fail(EXIT_USAGE, "--engine %s: %s", options->engine_text, why);
	if (error)
		return cli_fail(EXIT_HARNESS, "no machine: %s", why);
	code = load(*machine, options, opened);
	if (code)
		machine_free(*machine);
	return code;
}

void run_statistics(const struct run_options *options, const struct machine *machine)
{
	const struct engine_ops *ops = options->engine;
	struct line line = {0};
	char name[64];
	uint64_t value;
	unsigned i = 0;

	if (!options->statistics)
		return;
	for (; ops->statistic(machine->vcpu, i, name, sizeof(name), &value); i++)
		if (value) {
			line_format(&line, "statistic ");
			line_plain(&line, span_of(name));
			line_format(&line, " %" PRIu64, value);
			line_write(&line, STDERR_FILENO);
		}
	line_free(&line);
	if (i == 0)
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
	struct tracer tracer = {0};
	int code, error = options->trace ? tracer_open(&tracer, options->trace) : 0;

	if (error)
		return cli_fail(EXIT_USAGE, "%s: %s", options->trace, strerror(-error));
	if (opened->has_cases)
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
		return list_breaks(&options);
	catch_signals();
	code = cli_open(&opened, options.image, options.patterns.count || options.json || options.invert);
	if (code)
		return code;
	code = run_opened(&options, &opened);
	cli_close(&opened);
	return code;
}
