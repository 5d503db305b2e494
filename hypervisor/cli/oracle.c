/* visor oracle: the software CPU against the host's own processor. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"
#include "oracle/oracle.h"

static const char help[] =
	"usage: visor oracle [--seed N] [--count N] [--from N] [--only MNEMONIC] [--mode both|long|compat]\n"
	"                    [--jobs N] [--reports N]\n"
	"Runs random unprivileged instructions on this host's processor and on the software CPU, and\n"
	"compares all that a program can see. A failing case is made as simple as it can be, and shown.\n"
	"  --seed N     which random cases (default: of the clock; it is printed)\n"
	"  --count N    how many (default 1000000)\n"
	"  --from N     the number of the first (default 0)\n"
	"  --only NAME  cases of this instruction alone, by the manual's mnemonic\n"
	"  --mode M     64-bit mode, compatibility mode, or both (default)\n"
	"  --jobs N     processes (default: one for each processor)\n"
	"  --reports N  failing cases to show for each instruction and process (default 2)\n"
	"Exits 0 when nothing differed, 1 when something did, 3 where this host cannot be compared with.\n";

static void print_report(void *owner, const char *text)
{
	(void)owner;
	fputs(text, stdout);
	fflush(stdout);
}

static bool take_number(const char *text, uint64_t minimum, uint64_t maximum, uint64_t *to)
{
	char *end;

	errno = 0;
	*to = strtoull(text, &end, 0);
	return *text >= '0' && *text <= '9' && !*end && !errno && *to >= minimum && *to <= maximum;
}

static bool take_mode(const char *text, enum oracle_mode_choice *mode)
{
	static const char *const names[] = {"both", "long", "compat"};

	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (!strcmp(text, names[i])) {
			*mode = (enum oracle_mode_choice)i;
			return true;
		}
	return false;
}

enum {
	OPTION_SEED = 1,
	OPTION_COUNT,
	OPTION_FROM,
	OPTION_ONLY,
	OPTION_MODE,
	OPTION_JOBS,
	OPTION_REPORTS,
	OPTION_HELP
};

static bool take_option(struct oracle_options *o, int option, const char *value)
{
	uint64_t number;

	switch (option) {
	case OPTION_SEED: return take_number(value, 0, UINT64_MAX, &o->seed);
	case OPTION_COUNT: return take_number(value, 1, UINT64_MAX, &o->count);
	case OPTION_FROM: return take_number(value, 0, UINT64_MAX, &o->from);
	case OPTION_ONLY: o->only = value; return true;
	case OPTION_MODE: return take_mode(value, &o->mode);
	case OPTION_JOBS:
		if (!take_number(value, 1, ORACLE_JOBS_MAX, &number))
			return false;
		o->jobs = (unsigned)number;
		return true;
	default:
		if (!take_number(value, 0, 255, &number))
			return false;
		o->reports = (unsigned)number;
		return true;
	}
}

/* 0; an exit code after a message; or -1 after the help. */
static int take_options(struct oracle_options *o, int argc, char **argv)
{
	static const struct option known[] = {
		{"seed", required_argument, NULL, OPTION_SEED},
		{"count", required_argument, NULL, OPTION_COUNT},
		{"from", required_argument, NULL, OPTION_FROM},
		{"only", required_argument, NULL, OPTION_ONLY},
		{"mode", required_argument, NULL, OPTION_MODE},
		{"jobs", required_argument, NULL, OPTION_JOBS},
		{"reports", required_argument, NULL, OPTION_REPORTS},
		{"help", no_argument, NULL, OPTION_HELP},
		{0},
	};
	int option, index = 0;

	opterr = 0;
	while ((option = getopt_long(argc, argv, ":", known, &index)) != -1) {
		if (option == OPTION_HELP) {
			fputs(help, stdout);
			return -1;
		}
		if (option == ':')
			return cli_fail(EXIT_USAGE, "%s needs a value", argv[optind - 1]);
		if (option == '?')
			return cli_fail(EXIT_USAGE, "oracle: %s: no such option; see `visor oracle --help`",
					argv[optind - 1]);
		if (!take_option(o, option, optarg))
			return cli_fail(EXIT_USAGE, "--%s: '%s' is not a value for it", known[index].name,
					optarg);
	}
	if (optind < argc)
		return cli_fail(EXIT_USAGE, "oracle takes no arguments: '%s'", argv[optind]);
	if (o->from + o->count < o->from)
		return cli_fail(EXIT_USAGE, "--from and --count: more cases than there are numbers");
	return 0;
}

static void print_counts(const struct oracle_options *o, const struct oracle_counts *n, double seconds)
{
	printf("seed %" PRIu64 ", cases %" PRIu64 " to %" PRIu64 ", %.1f s\n", o->seed, o->from,
	       o->from + o->count - 1, seconds);
	printf("agreed %" PRIu64 " cases, %" PRIu64 " instructions: %" PRIu64 " faults, %" PRIu64
	       " sequences, %" PRIu64 " in compatibility mode\n",
	       n->agreed, n->instructions, n->faulted, n->sequences, n->compatibility);
	printf("of them not independent, as the host computed for the software CPU too: %" PRIu64 "\n",
	       n->dependent);
	printf("not run: %" PRIu64 " left out by name, %" PRIu64 " not modelled, %" PRIu64 " undefined\n",
	       n->left_out, n->unmodelled, n->undefined);
	printf("not compared, as they overwrote their own code: %" PRIu64 "\n", n->overwrote);
	printf("differed %" PRIu64 "\n", n->differed);
}

int cmd_oracle(int argc, char **argv)
{
	long processors = sysconf(_SC_NPROCESSORS_ONLN);
	struct oracle_options o = {.seed = (uint64_t)time(NULL), .count = 1000000, .reports = 2};
	struct timespec start, end;
	struct oracle_counts counts;
	char why[256];
	int code, error;

	o.jobs = processors < 1 ? 1 : processors > ORACLE_JOBS_MAX ? ORACLE_JOBS_MAX : (unsigned)processors;
	code = take_options(&o, argc, argv);
	if (code)
		return code < 0 ? EXIT_EXPECTED : code;
	clock_gettime(CLOCK_MONOTONIC, &start);
	error = oracle_run(&o, print_report, NULL, &counts, why, sizeof(why));
	clock_gettime(CLOCK_MONOTONIC, &end);
	if (error == -ENOTSUP)
		return cli_fail(EXIT_HARNESS, "oracle: not on this host: %s", why);
	if (error)
		return cli_fail(error == -ENOENT ? EXIT_USAGE : EXIT_HARNESS, "oracle: %s", why);
	print_counts(&o, &counts,
		     (double)(end.tv_sec - start.tv_sec) + (double)(end.tv_nsec - start.tv_nsec) / 1e9);
	return counts.differed ? EXIT_UNEXPECTED : EXIT_EXPECTED;
}
