/* visor info: the engines of this build, and why one is missing here. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/line.h"
#include "engine/engine.h"

static const char help[] =
	"usage: visor info [--engine NAME[:DEVICE]]\n"
	"The engines of this build, and why one is missing here. Of one engine alone, the exit\n"
	"code is 1 where it is missing.\n";

static bool describe(struct line *line, const struct engine_ops *engine, const char *device)
{
	char text[1024];
	bool here = engine->describe(device, text, sizeof(text));

	line_format(line, "%-5s %s: ", engine->name, here ? "available" : "missing");
	line_plain(line, span_of(text));
	line_write(line, STDOUT_FILENO);
	return here;
}

static int describe_one(struct line *line, const char *word)
{
	size_t size = strcspn(word, ":");
	const struct engine_ops *engine = engine_find(word, size);

	if (!engine)
		return cli_fail(EXIT_USAGE, "--engine %s: there is no such engine", word);
	if (word[size] && !engine->takes_device)
		return cli_fail(EXIT_USAGE, "--engine %s: %s takes no device", word, engine->name);
	return describe(line, engine, word[size] ? word + size + 1 : NULL) ? EXIT_EXPECTED : EXIT_UNEXPECTED;
}

int cmd_info(int argc, char **argv)
{
	struct line line = {0};
	int code = EXIT_EXPECTED;

	if (argc == 2 && strcmp(argv[1], "--help") == 0) {
		fputs(help, stdout);
		return 0;
	}
	if (argc == 3 && strcmp(argv[1], "--engine") == 0)
		code = describe_one(&line, argv[2]);
	else if (argc != 1)
		return cli_fail(EXIT_USAGE,
				"info takes no arguments but --engine NAME; see `visor info --help`");
	else
		for (unsigned i = 0; engines[i]; i++)
			describe(&line, engines[i], NULL);
	if (line.error)
		code = cli_output_failed(line.error);
	line_free(&line);
	return code;
}
