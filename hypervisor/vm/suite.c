#include "vm/suite.h"

#include <stdio.h>
#include <string.h>

/* Until it is ready a guest may take this much, at most. */
#define BOOT_INSNS   4000000000u
#define BOOT_TIMEOUT 60000000000ull
#define BOOT_OUTPUT  (1u << 20)
/* Some times the longest line that a case may print. */
#define CASE_OUTPUT (16u * CASE_LINE_MAX)

/* ---- what the guest prints ---- */

static void on_line(struct suite *suite, int source, struct span line)
{
	static const char first[] = "trapline ", l1[] = "l1 ";

	if (suite->source < 0 && line.size > sizeof(first) && memcmp(line.at, first, sizeof(first) - 1) == 0)
		suite->source = source;
	if (suite->source == source || (suite->source < 0 && line.size > sizeof(l1) &&
					memcmp(line.at, l1, sizeof(l1) - 1) == 0))
		judge_line(&suite->judge, line);
}

static void console_line(void *owner, struct span line) { on_line(owner, 0, line); }
static void serial_line(void *owner, struct span line) { on_line(owner, 1, line); }

void suite_console(void *owner, uint8_t byte)
{
	struct suite *suite = owner;

	lines_feed(&suite->lines[0], (struct span){(const char *)&byte, 1}, console_line, suite);
}

void suite_serial(void *owner, uint8_t byte)
{
	struct suite *suite = owner;

	lines_feed(&suite->lines[1], (struct span){(const char *)&byte, 1}, serial_line, suite);
}

/* ---- events of the judge ---- */

static void judge_ready(void *owner) { (void)owner; }

static void judge_ended(void *owner, const struct judge_result *result)
{
	struct suite *suite = owner;

	suite->stopped = suite->events.ended(suite->events.owner, result, &suite->cost);
}

/* ---- one machine, which stays ---- */

static const struct machine_end *run_here(void *owner, struct machine **machine, const struct machine_limits *limits,
					  uint64_t *spent)
{
	const struct engine_ops *ops = (*machine)->engine->ops;
	uint64_t began = ops->retired((*machine)->engine);
	const struct machine_end *end = machine_run(*machine, limits);

	(void)owner;
	*spent = ops->retired((*machine)->engine) - began;
	return end;
}

static int take_here(void *owner, struct machine **machine, struct snapshot *snapshot)
{
	(void)owner;
	return snapshot_take(snapshot, *machine);
}

static int restore_here(void *owner, struct machine **machine, struct snapshot *snapshot)
{
	(void)owner;
	return snapshot_restore(snapshot, *machine);
}

static const char *why_here(void *owner)
{
	(void)owner;
	return "the snapshot could not be taken, or restored";
}

static const struct suite_ways here = {.run = run_here, .take = take_here, .restore = restore_here, .why = why_here};

void suite_init(struct suite *suite, const struct case_list *list, const struct suite_options *options,
		const struct suite_events *events)
{
	struct judge_events judge_events = {.owner = suite, .ready = judge_ready, .ended = judge_ended};

	*suite = (struct suite){.list = list, .options = *options, .events = *events, .source = -1};
	if (!suite->options.ways)
		suite->options.ways = &here;
	judge_start(&suite->judge, list, &judge_events);
	suite->judge.inverted = options->inverted;
}

void suite_free(struct suite *suite) { snapshot_free(&suite->snapshot); }

/* ---- until READY ---- */

static enum suite_end fail(struct suite *suite, enum suite_end end, const char *why)
{
	snprintf(suite->why, sizeof(suite->why), "%s", why);
	return end;
}

static enum suite_end boot(struct suite *suite)
{
	struct machine_limits limits = {
		.insns = BOOT_INSNS, .deadline = machine_now() + BOOT_TIMEOUT, .output = BOOT_OUTPUT};
	const struct machine_end *end = machine_run(suite->machine, &limits);
	char text[300];

	if (end->event == MACHINE_SIGNAL)
		return SUITE_SIGNAL;
	if (suite->judge.fatal[0])
		return fail(suite, SUITE_NOT_READY, suite->judge.fatal);
	if (end->event != MACHINE_READY) {
		machine_end_text(end, text, sizeof(text));
		snprintf(suite->why, sizeof(suite->why), "the guest did not become ready: %s", text);
		return SUITE_NOT_READY;
	}
	if (!suite->judge.header)
		return fail(suite, SUITE_NOT_READY, "the guest is ready, but did not say what it holds");
	return SUITE_COMPLETE;
}

/* What holds for the cases alone. */
static enum suite_end arm(struct suite *suite, struct machine *machine)
{
	const struct engine_ops *ops = machine->engine->ops;
	const struct suite_options *options = &suite->options;

	if (options->break_check && !ops->break_check(machine->engine, options->break_check))
		return fail(suite, SUITE_FAILED, "no check is called that");
	if (options->trace && ops->trace(machine->engine, options->trace))
		return fail(suite, SUITE_FAILED, "this engine cannot trace");
	return SUITE_COMPLETE;
}

static enum suite_end prepare(struct suite *suite)
{
	const struct suite_options *options = &suite->options;
	struct machine *machine = suite->machine;
	enum suite_end end = boot(suite);

	if (end != SUITE_COMPLETE)
		return end;
	if (options->ways->take(options->ways->owner, &suite->machine, &suite->snapshot))
		return fail(suite, SUITE_FAILED, options->ways->why(options->ways->owner));
	end = arm(suite, machine);
	if (end == SUITE_COMPLETE && options->ways->other)
		end = arm(suite, options->ways->other);
	if (end != SUITE_COMPLETE)
		return end;
	return suite->events.ready(suite->events.owner) ? SUITE_STOPPED : SUITE_COMPLETE;
}

/* ---- a case ---- */

static void end_case(struct suite *suite, const struct machine_end *end)
{
	struct judge *judge = &suite->judge;
	char text[300];

	machine_end_text(end, text, sizeof(text));
	if (end->event == MACHINE_OUTPUT)
		judge_break(judge, text);
	if (suite->source >= 0 && suite->lines[suite->source].size)
		judge_break(judge, "the case ended in the middle of a report line");
	switch (end->event) {
	case MACHINE_DONE: judge_end(judge, ENDING_DONE, NULL); break;
	case MACHINE_SHUTDOWN: judge_end(judge, ENDING_SHUTDOWN, NULL); break;
	case MACHINE_HALTED:
	case MACHINE_BUDGET: judge_end(judge, ENDING_HANG, NULL); break;
	case MACHINE_TIMEOUT: judge_end(judge, ENDING_TIMEOUT, NULL); break;
	default: judge_end(judge, ENDING_FAILED, text); break;
	}
}

static enum suite_end run_case(struct suite *suite, unsigned index)
{
	struct machine *machine = suite->machine;
	const struct suite_ways *ways = suite->options.ways;
	uint64_t began;
	struct machine_limits limits = {.insns = suite->options.max_insns, .output = CASE_OUTPUT};
	const struct machine_end *end;

	if (suite->events.started(suite->events.owner, index))
		return SUITE_STOPPED;
	machine->control.case_index = index;
	suite->lines[0].size = suite->lines[1].size = 0;
	judge_begin(&suite->judge, index);
	if (suite->options.coverage)
		machine->engine->ops->take_reached(machine->engine, NULL, NULL);
	began = machine_now();
	limits.deadline = began + suite->options.timeout;
	end = ways->run(ways->owner, &suite->machine, &limits, &suite->cost.insns);
	suite->cost.ns = machine_now() - began;
	if (end->event == MACHINE_SIGNAL)
		return SUITE_SIGNAL;
	end_case(suite, end);
	return suite->stopped ? SUITE_STOPPED : SUITE_COMPLETE;
}

enum suite_end suite_run(struct suite *suite, struct machine *machine)
{
	const struct suite_ways *ways = suite->options.ways;
	const bool *chosen = suite->options.chosen;
	const volatile sig_atomic_t *signal = machine->config.signal;
	enum suite_end end;

	suite->machine = machine;
	end = prepare(suite);
	for (unsigned i = 0; i < suite->list->count && end == SUITE_COMPLETE; i++) {
		if (chosen && !chosen[i])
			continue;
		if (signal && *signal)
			return SUITE_SIGNAL;
		end = run_case(suite, i);
		if (ways->restore(ways->owner, &suite->machine, &suite->snapshot))
			return fail(suite, SUITE_FAILED, ways->why(ways->owner));
	}
	return end;
}
