/* visor run --move: the guest takes turns on two machines of this process. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cli/line.h"
#include "cli/run.h"

static void nowhere(void *owner, uint8_t byte)
{
	(void)owner;
	(void)byte;
}

int run_move_open(struct run_move *move, const struct run_options *options,
		  const struct machine_config *partial, struct machine *first)
{
	struct run_options other = *options;
	struct machine_config quiet;
	struct move_config config = {.every = options->move.every,
				     .random = options->move.random,
				     .seed = options->move.seed,
				     .paced = partial->control,
				     .owner = move->owner,
				     .moved = move->moved};
	char why[STREAM_WHY];
	int error, code;

	if (!options->move.every)
		return 0;
	if (options->move.engine) {
		other.engine = options->move.engine;
		other.engine_text = options->move.engine_text;
		other.device = options->move.device;
		other.cpu = options->move.cpu ? options->move.cpu : other.engine->cpu_default;
	}
	code = run_make(&move->second, &other, partial);
	if (!code && options->move.compare) {
		quiet = *partial;
		quiet.console = quiet.serial = quiet.virtio = nowhere;
		quiet.passed = NULL;
		quiet.idle = NULL;
		quiet.wait = NULL;
		code = run_make(&move->reference, options, &quiet);
		config.reference = move->reference;
	}
	if (code) {
		run_move_close(move);
		return code;
	}
	error = mover_new(&move->mover, first, move->second, &config, why, sizeof(why));
	if (!error)
		return 0;
	run_move_close(move);
	return cli_fail(error == -EINVAL ? EXIT_USAGE : EXIT_HARNESS, "--move: %s", why);
}

void run_move_close(struct run_move *move)
{
	mover_free(move->mover);
	machine_free(move->second);
	machine_free(move->reference);
	move->mover = NULL;
	move->second = move->reference = NULL;
}

const struct machine_end *run_moving(struct run_move *move, struct machine **machine,
				     const struct machine_limits *limits, uint64_t *spent)
{
	const struct engine_ops *ops = (*machine)->engine->ops;
	uint64_t began = move->mover ? move->mover->retired : ops->retired((*machine)->engine);
	const struct machine_end *end;

	if (!move->mover) {
		end = machine_run(*machine, limits);
		*spent = ops->retired((*machine)->engine) - began;
		return end;
	}
	end = mover_run(move->mover, limits);
	*machine = move->mover->machine;
	*spent = move->mover->retired - began;
	return end;
}

/* ---- as the ways of a suite ---- */

static const struct machine_end *suite_way_run(void *owner, struct machine **machine,
					       const struct machine_limits *limits, uint64_t *spent)
{
	return run_moving(owner, machine, limits, spent);
}

static int suite_way_take(void *owner, struct machine **machine, struct snapshot *snapshot)
{
	struct mover *mover = ((struct run_move *)owner)->mover;
	int error = mover_snapshot(mover, snapshot);

	*machine = mover->machine;
	return error;
}

static int suite_way_restore(void *owner, struct machine **machine, struct snapshot *snapshot)
{
	struct mover *mover = ((struct run_move *)owner)->mover;
	int error = mover_restore(mover, snapshot);

	*machine = mover->machine;
	return error;
}

static const char *suite_way_why(void *owner) { return ((struct run_move *)owner)->mover->why; }

struct suite_ways run_move_ways(struct run_move *move)
{
	return (struct suite_ways){.owner = move,
				   .why = suite_way_why,
				   .run = suite_way_run,
				   .take = suite_way_take,
				   .restore = suite_way_restore,
				   .other = move->second};
}

/* ---- breaks ---- */

bool run_breaks_state(const struct run_options *options)
{
	return options->break_check && strncmp(options->break_check, BREAK_STATE, strlen(BREAK_STATE)) == 0;
}

int run_break_state(const struct run_options *options, struct machine *machine)
{
	if (!run_breaks_state(options) || parts_break(machine, options->break_check))
		return 0;
	return cli_fail(EXIT_USAGE, "--break %s: no state is called that; see --move … --list-breaks",
			options->break_check);
}

int run_list_states(const struct run_options *options)
{
	struct machine_config partial = {0};
	struct machine *machine;
	struct line line = {0};
	char name[128];
	int error = 0, code = run_disks(options);

	if (!code)
		code = run_make(&machine, options, &partial);
	if (code)
		return code;
	for (unsigned i = 0; parts_break_name(machine, i, name, sizeof(name)) && !error; i++) {
		line_text(&line, name);
		error = line_write(&line, 1);
	}
	line_free(&line);
	run_free(machine);
	return error ? cli_output_failed(error) : EXIT_EXPECTED;
}

/* ---- the option ---- */

static bool parse_target(struct run_options *options, const char *text)
{
	size_t size = strcspn(text, ":");

	options->move.engine = engine_find(text, size);
	options->move.engine_text = text;
	options->move.cpu = text[size] ? text + size + 1 : NULL;
	return options->move.engine && !(options->move.cpu && !*options->move.cpu);
}

int run_parse_move(struct run_options *options, const char *text)
{
	const char *at = text;

	while (*at) {
		size_t size = strcspn(at, ",");
		struct span word = {at, size};

		if (size > 6 && memcmp(at, "every=", 6) == 0) {
			if (!span_number((struct span){at + 6, size - 6}, &options->move.every))
				break;
		} else if (size > 5 && memcmp(at, "seed=", 5) == 0) {
			if (!span_number((struct span){at + 5, size - 5}, &options->move.seed))
				break;
			options->move.random = true;
		} else if (size == 7 && memcmp(at, "compare", 7) == 0) {
			options->move.compare = true;
		} else if (size > 3 && memcmp(at, "to=", 3) == 0) {
			/* To the end, as a profile has commas of its own. */
			if (!parse_target(options, at + 3))
				return cli_fail(EXIT_USAGE,
						"--move %s: to= takes ENGINE[:PROFILE], and comes last",
						text);
			size = strlen(at);
		} else {
			return cli_fail(EXIT_USAGE, "--move %s: there is no %.*s", text, SPAN_ARGS(word));
		}
		at += size + (at[size] == ',');
	}
	if (*at || options->move.every == 0)
		return cli_fail(
			EXIT_USAGE,
			"--move %s: not every=N[,seed=S][,compare][,to=ENGINE[:PROFILE]] with N above 0",
			text);
	options->move.text = text;
	return 0;
}
