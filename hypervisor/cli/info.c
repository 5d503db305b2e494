/* visor info: the engines of this build, and why one is missing here. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/line.h"
#include "engine/engine.h"
#include "engine/guest_cpu.h"

static const char help[] =
	"usage: visor info [--engine NAME[:DEVICE]]\n"
	"       visor info --cpu-common TARGET TARGET\n"
	"The engines of this build, and why one is missing here. Of one engine alone, the exit\n"
	"code is 1 where it is missing.\n"
	"--cpu-common: for each of two targets, ENGINE[:PROFILE] or a PROFILE of soft, the --cpu with\n"
	"which a guest that begins there can move to the other and back.\n";

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

/* ---- --cpu-common ---- */

struct target {
	const struct engine_ops *engine;
	const char *cpu;
	struct guest_cpu told;
};

static struct target parse_target(const char *word)
{
	size_t size = strcspn(word, ":,");
	struct target target = {.engine = engine_find(word, size)};

	if (!target.engine)
		return (struct target){.engine = &engine_soft, .cpu = word};
	target.cpu = word[size] ? word + size + 1 : target.engine->cpu_default;
	return target;
}

/* What a guest is told there. */
static int ask(struct target *target)
{
	const struct engine_config config = {.cpu = target->cpu, .vcpus = 1};
	struct engine_vcpu *vcpu;
	struct engine *engine;
	char why[1024] = "";
	int error = target->engine->open(&engine, &config, why, sizeof(why));

	if (error)
		return cli_fail(error == -EINVAL ? EXIT_USAGE : EXIT_HARNESS, "info --cpu-common: %s: %s",
				target->engine->name, why[0] ? why : strerror(-error));
	error = target->engine->vcpu_new(engine, &vcpu);
	if (!error)
		target->engine->cpu_tell(engine, &target->told);
	target->engine->close(engine);
	return error ? cli_fail(EXIT_HARNESS, "info --cpu-common: %s: %s", target->engine->name,
				strerror(-error))
		     : 0;
}

static int tell_common(const struct target *from, const struct target *to)
{
	char words[4096];

	if (!guest_cpu_common(&from->told, &to->told, words, sizeof(words)))
		return cli_fail(EXIT_HARNESS, "info --cpu-common: what differs between the two is no feature "
					      "that could be left out");
	printf("--engine %s --cpu %s%s\n", from->engine->name, from->cpu, words);
	return 0;
}

static int common(const char *one, const char *other)
{
	struct target targets[2] = {parse_target(one), parse_target(other)};
	int code = ask(&targets[0]);

	if (!code)
		code = ask(&targets[1]);
	if (!code)
		code = tell_common(&targets[0], &targets[1]);
	if (!code)
		code = tell_common(&targets[1], &targets[0]);
	return code;
}

int cmd_info(int argc, char **argv)
{
	struct line line = {0};
	int code = EXIT_EXPECTED;

	if (argc == 2 && strcmp(argv[1], "--help") == 0) {
		fputs(help, stdout);
		return 0;
	}
	if (argc == 4 && strcmp(argv[1], "--cpu-common") == 0)
		return common(argv[2], argv[3]);
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
