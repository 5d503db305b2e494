/* visor run of an image that holds cases. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/records.h"
#include "cli/run.h"
#include "vm/suite.h"

struct session {
	struct suite suite;
	struct records records;
	struct tracer *tracer;
	const struct run_options *options;
	struct machine *machine;
	struct run_move move;
	struct suite_ways ways;
	bool fail_fast, coverage;
	const bool *chosen;
	struct line reached; /* names of checks, a newline behind each */
};

static int on_ready(void *owner)
{
	struct session *session = owner;

	tracer_watch(session->tracer, &session->machine->bus);
	if (session->move.second)
		tracer_watch(session->tracer, &session->move.second->bus);
	if (run_break_state(session->options, session->machine))
		return 1;
	return records_run(&session->records);
}

static int on_started(void *owner, unsigned index)
{
	struct session *session = owner;

	if (session->coverage && session->move.mover)
		mover_take_reached(session->move.mover, NULL, NULL);
	if (session->tracer->file)
		fprintf(session->tracer->file, "case %.*s\n",
			SPAN_ARGS(session->records.facts.list->entry[index].id));
	return records_start(&session->records, index);
}

static void add_reached(void *owner, const char *name)
{
	line_text(owner, name);
	line_text(owner, "\n");
}

/* The names of the checks that mattered to the case, valid until the next. */
static const char *take_reached(struct session *session)
{
	struct engine *engine = session->machine->engine;

	session->reached.size = 0;
	engine->ops->take_reached(engine, add_reached, &session->reached);
	if (session->move.mover)
		mover_take_reached(session->move.mover, add_reached, &session->reached);
	line_add(&session->reached, (struct span){"", 1});
	return session->reached.at;
}

/* Where a state is left out, whatever is not as it should be has noticed it. */
static bool failed(const struct session *session, enum verdict verdict)
{
	if (!run_breaks_state(session->options))
		return verdict == VERDICT_FAIL;
	return verdict != VERDICT_PASS && verdict != VERDICT_NOTSUP;
}

static int on_ended(void *owner, const struct judge_result *result, const struct suite_cost *cost)
{
	struct session *session = owner;
	struct case_cost spent = {cost->insns, cost->ns, session->coverage ? take_reached(session) : NULL};
	int error;

	if (session->tracer->file)
		fprintf(session->tracer->file, "%s %.*s %s\n", verdict_names[result->verdict],
			SPAN_ARGS(result->got), result->why);
	error = records_end(&session->records, result, &spent);
	return session->fail_fast && failed(session, result->verdict) ? 1 : error;
}

/* The hypervisor says that this machine is none for it: so says each case, and the run why. */
static int refuse(struct session *session)
{
	struct records *records = &session->records;
	const char *why = session->suite.judge.fatal;
	struct judge_result result = {.verdict = VERDICT_NOTSUP, .got = {"", 0}, .why = why};
	int error;

	if (!records->json)
		return cli_fail(EXIT_HARNESS, "%s: %s", records->facts.image->path, why);
	records->facts.missing = why;
	error = records_run(records);
	for (unsigned i = 0; i < records->facts.list->count && !error; i++) {
		if (session->chosen && !session->chosen[i])
			continue;
		result.index = i;
		error = records_start(records, i);
		if (!error)
			error = records_end(records, &result, NULL);
		session->suite.judge.count[VERDICT_NOTSUP]++;
	}
	if (!error)
		error = records_done(records, &session->suite.judge, true);
	return error ? cli_output_failed(error) : EXIT_HARNESS;
}

static int finish(struct session *session, enum suite_end end)
{
	const struct judge *judge = &session->suite.judge;
	const char *image = session->records.facts.image->path;
	int error;

	if (session->records.line.error)
		return cli_output_failed(session->records.line.error);
	if (end == SUITE_NOT_READY && judge->refused)
		return refuse(session);
	if (end == SUITE_NOT_READY || end == SUITE_FAILED)
		return cli_fail(EXIT_HARNESS, "%s: %s", image, session->suite.why);
	error = records_done(&session->records, judge, end == SUITE_COMPLETE);
	if (error)
		return cli_output_failed(error);
	if (end == SUITE_SIGNAL)
		return EXIT_SIGNAL + run_signal;
	return cli_verdict(judge, end == SUITE_COMPLETE);
}

/* What a case prints on a virtio console is no report: it comes back, as the input of cases that want some. */
static void ignored(void *owner, uint8_t byte)
{
	(void)owner;
	(void)byte;
}

static int run_session(struct session *session, const struct run_options *options,
		       const struct cli_image *opened)
{
	struct machine_config config = {
		.control = true, .owner = &session->suite, .console = suite_console, .serial = suite_serial,
		.virtio = ignored,
		.peripherals = {.loop = true}};
	int code = run_machine(&session->machine, options, opened, &config);

	if (code)
		return code;
	code = run_move_open(&session->move, options, &config, session->machine);
	if (code) {
		run_free(session->machine);
		return code;
	}
	if (session->move.mover) {
		session->ways = run_move_ways(&session->move);
		session->suite.options.ways = &session->ways;
	}
	code = finish(session, suite_run(&session->suite, session->machine));
	run_statistics(options, session->machine);
	suite_free(&session->suite);
	run_move_close(&session->move);
	run_free(session->machine);
	return code;
}

int run_cases(const struct run_options *options, const struct cli_image *opened, struct tracer *tracer)
{
	static struct session session;
	struct suite_events events = {
		.owner = &session, .ready = on_ready, .started = on_started, .ended = on_ended};
	struct suite_options suite = {
		.inverted = options->invert,
		.max_insns = (options->max_insns ? options->max_insns : SUITE_INSNS_DEFAULT)
			     << (3 * options->depth),
		.timeout = options->timeout > 0 ? (uint64_t)(options->timeout * 1e9) : SUITE_TIMEOUT_DEFAULT,
		.break_check = run_breaks_state(options) ? NULL : options->break_check,
		.coverage = options->coverage,
		.trace = tracer->file ? &tracer->trace : NULL};
	struct selection selection;
	char *again;
	int code = patterns_apply(&options->patterns, &opened->list, &selection);

	if (code)
		return code;
	again = run_again(options);
	suite.chosen = selection.chosen;
	session.options = options;
	session.tracer = tracer;
	session.fail_fast = options->fail_fast;
	session.chosen = selection.chosen;
	session.coverage = options->coverage;
	suite_init(&session.suite, &opened->list, &suite, &events);
	session.records = (struct records){.fd = STDOUT_FILENO,
					   .json = options->json,
					   .facts = {.command = "run",
						     .image = &opened->image,
						     .list = &opened->list,
						     .selected = selection.count,
						     .engine = options->engine_text,
						     .cpu = options->cpu,
						     .again = again,
						     .machine = &session.suite.judge.facts}};
	code = run_session(&session, options, opened);
	line_free(&session.records.line);
	line_free(&session.reached);
	free(again);
	selection_free(&selection);
	return code;
}
