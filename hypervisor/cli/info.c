/* visor info: the engines of this build, and why one is missing here. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/line.h"
#include "engine/engine.h"

int cmd_info(int argc, char **argv)
{
	struct line line = {0};
	int error = 0;

	if (argc == 2 && strcmp(argv[1], "--help") == 0) {
		fputs("usage: visor info\nThe engines of this build, and why one is missing here.\n", stdout);
		return 0;
	}
	if (argc != 1)
		return cli_fail(EXIT_USAGE, "info takes no arguments");
	for (unsigned i = 0; engines[i] && !error; i++) {
		char text[1024];
		bool here = engines[i]->describe(NULL, text, sizeof(text));

		line_format(&line, "%-5s %s: ", engines[i]->name, here ? "available" : "missing");
		line_plain(&line, span_of(text));
		error = line_write(&line, STDOUT_FILENO);
	}
	line_free(&line);
	return error ? cli_output_failed(error) : EXIT_EXPECTED;
}
