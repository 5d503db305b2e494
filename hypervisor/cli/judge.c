/* visor judge: report lines of any machine on standard input, records on standard output. */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/records.h"
#include "vm/lines.h"

static const char help[] = "usage: visor judge [--json] [--invert] [--ended HOW] IMAGE <REPORT\n"
			   "Holds the report lines that a machine printed against the image's expectations.\n"
			   "  --json       JSON lines instead of text\n"
			   "  --invert     judge each case against the opposite of its expectation\n"
			   "  --ended HOW  how the machine ended: exit (default), shutdown, timeout, crash,\n"
			   "               or @FILE, which says so and is read when the report is at its end\n";

struct options {
	bool json, invert;
	enum ending ended;
	const char *ended_file; /* NULL: @ended stands on the command line */
	const char *image;
};

struct session {
	struct judge judge;
	struct records records;
	struct lines lines;
	int error; /* of the first record that could not be written */
};

static int parse_ending(const char *text, enum ending *ending)
{
	static const struct {
		const char *name;
		enum ending ending;
	} names[] = {{"exit", ENDING_EXIT},
		     {"shutdown", ENDING_SHUTDOWN},
		     {"timeout", ENDING_TIMEOUT},
		     {"crash", ENDING_CRASH}};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strcmp(text, names[i].name) == 0) {
			*ending = names[i].ending;
			return 0;
		}
	return cli_fail(EXIT_USAGE, "--ended %s: not one of exit, shutdown, timeout, crash, @FILE", text);
}

/* The word in a file: whoever runs the machine knows it only when the report is at its end. */
static int read_ending(struct options *options)
{
	char word[16] = "";
	FILE *file;

	if (!options->ended_file)
		return 0;
	file = fopen(options->ended_file, "r");
	if (!file)
		return cli_fail(EXIT_USAGE, "%s: %s", options->ended_file, strerror(errno));
	if (fscanf(file, "%15s", word) != 1)
		word[0] = 0;
	fclose(file);
	return parse_ending(word, &options->ended);
}

static int parse(int argc, char **argv, struct options *options)
{
	static const struct option longs[] = {{"json", no_argument, NULL, 'j'},
					      {"invert", no_argument, NULL, 'i'},
					      {"ended", required_argument, NULL, 'e'},
					      {"help", no_argument, NULL, 'h'},
					      {0}};
	int option, error;

	options->ended = ENDING_EXIT;
	while ((option = getopt_long(argc, argv, "", longs, NULL)) >= 0)
		switch (option) {
		case 'j': options->json = true; break;
		case 'i': options->invert = true; break;
		case 'e':
			options->ended_file = optarg[0] == '@' ? optarg + 1 : NULL;
			error = options->ended_file ? 0 : parse_ending(optarg, &options->ended);
			if (error)
				return error;
			break;
		case 'h': fputs(help, stdout); return -1;
		default: return EXIT_USAGE;
		}
	if (optind + 1 != argc)
		return cli_fail(EXIT_USAGE, "judge takes one IMAGE; see `visor judge --help`");
	options->image = argv[optind];
	return 0;
}

/* ---- events of the judge ---- */

static void keep(struct session *session, int error)
{
	if (!session->error)
		session->error = error;
}

static void on_ready(void *owner)
{
	struct session *session = owner;

	keep(session, records_run(&session->records));
}

static void on_started(void *owner, unsigned index)
{
	struct session *session = owner;

	keep(session, records_start(&session->records, index));
}

static void on_ended(void *owner, const struct judge_result *result)
{
	struct session *session = owner;

	keep(session, records_end(&session->records, result, NULL));
}

static void on_dirty(void *owner, struct span id, struct span what)
{
	struct session *session = owner;

	keep(session, records_dirty(&session->records, id, what));
}

static void on_line(void *owner, struct span line) { judge_line(owner, line); }

/* ---- the report ---- */

static int feed(struct session *session)
{
	char bytes[65536];

	for (;;) {
		ssize_t got = read(STDIN_FILENO, bytes, sizeof(bytes));

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return cli_fail(EXIT_USAGE, "standard input: %s", strerror(errno));
		if (got == 0)
			break;
		lines_feed(&session->lines, (struct span){bytes, (size_t)got}, on_line, &session->judge);
		if (session->error)
			return cli_output_failed(session->error);
		if (session->judge.fatal[0])
			return cli_fail(EXIT_USAGE, "standard input: %s", session->judge.fatal);
	}
	return 0;
}

static int finish(struct session *session, enum ending ended)
{
	bool complete;

	/* The last line may lack its newline: then it is no whole line, and what it says is not known. */
	if (!session->judge.header)
		return cli_fail(EXIT_USAGE, "standard input: no report (no line that begins with trapline)");
	complete = judge_finish(&session->judge, ended);
	keep(session, records_done(&session->records, &session->judge, complete));
	if (session->error)
		return cli_output_failed(session->error);
	if (judge_total(&session->judge) == 0)
		return cli_fail(EXIT_NOTHING, "the report holds no case");
	return cli_verdict(&session->judge, complete);
}

int cmd_judge(int argc, char **argv)
{
	static struct session session;
	struct options options = {0};
	struct cli_image opened;
	int code = parse(argc, argv, &options);

	if (code)
		return code < 0 ? 0 : code;
	code = cli_open(&opened, options.image, true);
	if (code)
		return code;
	judge_start(&session.judge, &opened.list,
		    &(struct judge_events){.owner = &session,
					   .ready = on_ready,
					   .started = on_started,
					   .ended = on_ended,
					   .dirty = on_dirty});
	session.judge.streaming = true;
	session.judge.inverted = options.invert;
	session.records = (struct records){.fd = STDOUT_FILENO,
					   .json = options.json,
					   .facts = {.command = "judge",
						     .image = &opened.image,
						     .list = &opened.list,
						     .selected = opened.list.count,
						     .machine = &session.judge.facts}};
	code = feed(&session);
	if (!code)
		code = read_ending(&options);
	if (!code)
		code = finish(&session, options.ended);
	line_free(&session.records.line);
	cli_close(&opened);
	return code;
}
