/*
 * visor run of any other image: its serial port is our standard input and output, its
 * debug console our standard error.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#include "cli/run.h"

struct stream {
	int fd, error;
	size_t size;
	char room[4096];
};

/* Ports and pages of device memory that a warning is given for; a guest that looks at more is a scan. */
#define TOLD_MAX 32u

struct plain {
	struct machine *machine; /* the one that has the guest */
	struct run_move move;
	struct run_live live;
	struct stream serial, console;
	bool input_over;
	uint32_t
		told[TOLD_MAX]; /* ports, and pages of memory with TOLD_PAGE, for which a warning was given */
	unsigned told_count;
};

static void flush(struct stream *stream)
{
	size_t done = 0;

	while (!stream->error && done < stream->size) {
		ssize_t wrote = write(stream->fd, stream->room + done, stream->size - done);

		if (wrote >= 0)
			done += (size_t)wrote;
		else if (errno != EINTR)
			stream->error = -errno;
	}
	stream->size = 0;
}

static void put(struct stream *stream, uint8_t byte)
{
	stream->room[stream->size++] = (char)byte;
	if (byte == '\n' || stream->size == sizeof(stream->room))
		flush(stream);
}

static void on_serial(void *owner, uint8_t byte) { put(&((struct plain *)owner)->serial, byte); }
static void on_console(void *owner, uint8_t byte) { put(&((struct plain *)owner)->console, byte); }

/* A virtio console takes input once the guest has given it room; until then, the serial port does. */
static void receive(struct machine *machine, const uint8_t *bytes, size_t size)
{
	struct virtio_console *console = &machine->peripherals.console;

	if (machine->peripherals.has_console && virtio_console_live(console)) {
		virtio_console_receive(console, bytes, size);
		return;
	}
	for (size_t i = 0; i < size; i++)
		serial_receive(&machine->serial, bytes[i]);
}

/* What has come on standard input goes to the serial port, as far as it has room. */
static void on_idle(void *owner)
{
	struct plain *plain = owner;
	struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
	unsigned room = serial_room(&plain->machine->serial);
	uint8_t bytes[SERIAL_FIFO];
	ssize_t got;

	flush(&plain->serial);
	flush(&plain->console);
	run_live_attend(&plain->live);
	if (plain->input_over || room == 0 || poll(&input, 1, 0) <= 0)
		return;
	got = read(STDIN_FILENO, bytes, room);
	if (got == 0 || (got < 0 && errno != EINTR && errno != EAGAIN))
		plain->input_over = true;
	if (got > 0)
		receive(plain->machine, bytes, (size_t)got);
}

#define TOLD_PAGE 0x80000000u

/* A turn of waiting, so that signals and time limits are looked at. */
#define WAIT_MAX_NS 50000000u

/* Input that may come at any time comes in real time, so the guest waits in that as well, and this processor
 * rests. So does one to which a client of the control socket may come. */
static uint64_t on_wait(void *owner, uint64_t ns)
{
	struct plain *plain = owner;
	bool listens = !plain->input_over && serial_room(&plain->machine->serial) > 0;
	struct pollfd input[2] = {{.fd = listens ? STDIN_FILENO : -1, .events = POLLIN},
				  {.fd = plain->live.open ? gate_fd(&plain->live.gate) : -1, .events = POLLIN}};
	uint64_t most = ns < WAIT_MAX_NS ? ns : WAIT_MAX_NS, began = machine_now(), passed;
	const struct timespec limit = {.tv_nsec = (long)most};

	if (!listens && !plain->live.open)
		return ns;
	flush(&plain->serial);
	flush(&plain->console);
	if (ppoll(input, 2, &limit, NULL) == 0)
		return most;
	passed = machine_now() - began;
	return passed < most ? passed : most - 1;
}

/* Whether no warning has been given of this port or page, and one may be. */
static bool is_news(struct plain *plain, const struct bus_access *access)
{
	uint32_t what =
		access->port ? (uint16_t)access->address : TOLD_PAGE | (uint32_t)(access->address >> 12);

	for (unsigned i = 0; i < plain->told_count; i++)
		if (plain->told[i] == what)
			return false;
	if (plain->told_count == TOLD_MAX)
		return false;
	plain->told[plain->told_count++] = what;
	return true;
}

/* What a PC leaves to its empty bus; people who bring a guest want to know, but not to stop there. */
static void on_passed(void *owner, const struct bus_access *access, bool claimed)
{
	struct plain *plain = owner;
	char text[128];

	if (!is_news(plain, access))
		return;
	bus_access_text(access, text, sizeof(text));
	flush(&plain->serial);
	flush(&plain->console);
	cli_fail(0, "warning: %s: %s%s", claimed ? "not modelled" : "no device answers", text,
		 plain->told_count == TOLD_MAX ? " (what follows is not told)" : "");
}

static int finish(struct plain *plain, const struct machine_end *end)
{
	char text[300];

	flush(&plain->serial);
	flush(&plain->console);
	if (plain->serial.error)
		return cli_output_failed(plain->serial.error);
	if (end->event == MACHINE_EXIT)
		return (int)((end->value << 1 | 1) & 0xff);
	if (end->event == MACHINE_SIGNAL && run_signal == RUN_QUIT)
		return 0;
	if (end->event == MACHINE_SIGNAL)
		return EXIT_SIGNAL + run_signal;
	if (end->event == MACHINE_POWER_OFF)
		return 0;
	machine_end_text(end, text, sizeof(text));
	switch (end->event) {
	case MACHINE_RESET: return cli_fail(EXIT_GUEST_RESET, "%s", text);
	case MACHINE_SHUTDOWN: return cli_fail(EXIT_GUEST_SHUTDOWN, "%s", text);
	case MACHINE_UNCLAIMED:
	case MACHINE_MISUSED:
	case MACHINE_FAILED: return cli_fail(EXIT_HARNESS, "%s", text);
	default: return cli_fail(EXIT_UNEXPECTED, "%s", text);
	}
}

static void on_moved(void *owner, struct machine *machine) { ((struct plain *)owner)->machine = machine; }

/* What one machine has for the harness, and another to which the guest may come as well. 0, or an exit code after a
 * message. */
static int prepare(struct machine *machine, const struct run_options *options, struct tracer *tracer)
{
	const struct engine_ops *ops = machine->engine->ops;

	tracer_watch(tracer, &machine->bus);
	if (tracer->file && ops->trace(machine->engine, &tracer->trace))
		return cli_fail(EXIT_USAGE, "--trace: this engine cannot trace");
	if (run_breaks_state(options))
		return run_break_state(options, machine);
	if (options->break_check && !ops->break_check(machine->engine, options->break_check))
		return cli_fail(EXIT_USAGE, "--break %s: no check is called that", options->break_check);
	return 0;
}

/* For clients of the control socket. */
static void tell_end(struct plain *plain, const struct machine_end *end, bool again)
{
	static const char *const reasons[] = {[MACHINE_RESET] = "guest-reset",
					      [MACHINE_SHUTDOWN] = "guest-panic",
					      [MACHINE_SIGNAL] = "host-signal"};
	const char *reason = end->event < sizeof(reasons) / sizeof(reasons[0]) ? reasons[end->event] : NULL;

	if (end->event == MACHINE_SIGNAL && run_signal == RUN_QUIT)
		return; /* that was told */
	if (plain->live.resets)
		reason = "host-qmp-system-reset";
	run_live_event(&plain->live, again ? "RESET" : "SHUTDOWN", reason ? reason : "guest-shutdown");
}

/* As often as the guest resets the machine, where the user wants that. An exit code. */
static int run_guest(struct plain *plain, const struct run_options *options, const struct cli_image *opened,
		     struct machine_limits limits)
{
	for (;;) {
		uint64_t spent;
		const struct machine_end *end = run_moving(&plain->move, &plain->machine, &limits, &spent);
		int code;

		bool again = plain->live.resets || (options->reboot && (end->event == MACHINE_RESET ||
									end->event == MACHINE_SHUTDOWN));

		tell_end(plain, end, again);
		if (!again)
			return finish(plain, end);
		plain->live.resets = false;
		if (limits.insns != UINT64_MAX)
			limits.insns -= spent < limits.insns ? spent : limits.insns;
		machine_reset(plain->machine);
		code = options->image ? run_load(plain->machine, options, opened) : 0;
		if (code)
			return code;
	}
}

/* A machine with the guest in it: that of the image, or one that comes. 0, or an exit code after a message. */
static int get_guest(struct plain *plain, const struct run_options *options, const struct cli_image *opened,
		     struct machine_config *config)
{
	int code = run_live_open(&plain->live, options);

	if (code)
		return code;
	config->attended = plain->live.monitor != NULL;
	if (options->incoming)
		return run_live_receive(&plain->live, config, &plain->machine);
	code = run_machine(&plain->machine, options, opened, config);
	if (!code)
		run_live_has(&plain->live, plain->machine);
	return code;
}

int run_plain(const struct run_options *options, const struct cli_image *opened, struct tracer *tracer)
{
	static struct plain plain = {.serial.fd = STDOUT_FILENO, .console.fd = STDERR_FILENO};
	struct machine_config config = {.owner = &plain,
					.console = on_console,
					.serial = on_serial,
					.virtio = on_serial,
					.open_bus = true,
					.passed = options->bus == BUS_DEFAULT ? on_passed : NULL,
					.idle = on_idle,
					.wait = on_wait};
	struct machine_limits limits = {.insns = options->max_insns ? options->max_insns : UINT64_MAX,
					.deadline = UINT64_MAX,
					.output = UINT64_MAX};
	struct machine *machine;
	int code = get_guest(&plain, options, opened, &config);

	if (code || !plain.machine) { /* without both, somebody has said quit */
		run_live_close(&plain.live);
		return code;
	}
	machine = plain.machine;
	plain.move.owner = &plain;
	plain.move.moved = on_moved;
	code = run_move_open(&plain.move, options, &config, machine);
	if (options->timeout > 0)
		limits.deadline = machine_now() + (uint64_t)(options->timeout * 1e9);
	if (!code)
		code = prepare(machine, options, tracer);
	if (!code && plain.move.second)
		code = prepare(plain.move.second, options, tracer);
	if (!code)
		code = run_guest(&plain, options, opened, limits);
	run_live_close(&plain.live);
	run_statistics(options, plain.machine);
	run_move_close(&plain.move);
	run_free(machine);
	return code;
}
