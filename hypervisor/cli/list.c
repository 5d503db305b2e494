/* visor list: the cases of an image with their expectations and citations. Runs nothing. */
#include <getopt.h>
#include <stdio.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/records.h"

static const char help[] = "usage: visor list [--json] [--cases GLOB|@FILE]… IMAGE\n"
			   "Prints one case a line: id, expectation, citation, separated by tabs.\n"
			   "  --json         JSON lines, with the cells of the inventory that have no case\n"
			   "                 and the clauses of the manuals\n"
			   "  --cases WORDS  ids and globs separated by commas, or @FILE with one a line\n";

struct options {
	bool json;
	struct patterns patterns;
	const char *image;
};

static int parse(int argc, char **argv, struct options *options)
{
	static const struct option longs[] = {{"json", no_argument, NULL, 'j'},
					      {"cases", required_argument, NULL, 'c'},
					      {"help", no_argument, NULL, 'h'},
					      {0}};
	int option, error;

	while ((option = getopt_long(argc, argv, "", longs, NULL)) >= 0)
		switch (option) {
		case 'j': options->json = true; break;
		case 'c':
			error = patterns_add(&options->patterns, optarg);
			if (error)
				return error;
			break;
		case 'h': fputs(help, stdout); return -1;
		default: return EXIT_USAGE;
		}
	if (optind + 1 != argc)
		return cli_fail(EXIT_USAGE, "list takes one IMAGE; see `visor list --help`");
	options->image = argv[optind];
	return 0;
}

static int print(const struct cli_image *opened, const struct selection *selection,
		 const struct options *options)
{
	struct records records = {.fd = STDOUT_FILENO,
				  .json = options->json,
				  .facts = {.image = &opened->image, .list = &opened->list}};
	int error = 0;

	for (unsigned i = 0; i < opened->list.count && !error; i++)
		if (selection_has(selection, i))
			error = records_case(&records, i);
	for (unsigned i = 0; i < opened->list.cell_count && !error && !options->patterns.count; i++)
		error = records_cell(&records, i);
	for (unsigned i = 0; i < opened->list.clause_count && !error && !options->patterns.count; i++)
		error = records_clause(&records, i);
	line_free(&records.line);
	return error ? cli_output_failed(error) : EXIT_EXPECTED;
}

int cmd_list(int argc, char **argv)
{
	struct options options = {0};
	struct cli_image opened;
	struct selection selection;
	int code = parse(argc, argv, &options);

	if (code)
		return code < 0 ? 0 : code;
	code = cli_open(&opened, options.image, true);
	if (code)
		return code;
	code = patterns_apply(&options.patterns, &opened.list, &selection);
	if (!code) {
		code = print(&opened, &selection, &options);
		selection_free(&selection);
	}
	cli_close(&opened);
	return code;
}
