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

/* What a guest is told there. 0, or a negative errno with @why. */
static int ask(struct target *target, char *why, size_t size)
{
	const struct engine_config config = {.cpu = target->cpu, .vcpus = 1};
	struct engine_vcpu *vcpu;
	struct engine *engine;
	int error;

	why[0] = 0;
	error = target->engine->open(&engine, &config, why, size);
	if (error)
		return error;
	error = target->engine->vcpu_new(engine, &vcpu);
	if (!error)
		target->engine->cpu_tell(engine, &target->told);
	target->engine->close(engine);
	return error;
}

/* Whether a guest of @from can go on there: 0, or a negative errno with @why. */
static int accepts(const struct target *to, const struct target *from, char *why, size_t size)
{
	const struct engine_config config = {.cpu = to->cpu, .vcpus = 1};
	struct engine_vcpu *vcpu;
	struct engine *engine;
	int error = to->engine->open(&engine, &config, why, size);

	if (error)
		return error;
	error = to->engine->vcpu_new(engine, &vcpu);
	if (!error)
		error = to->engine->cpu_take(engine, &from->told, why, size);
	to->engine->close(engine);
	return error;
}

/* Adds what cannot be without something that is taken away. False: that is not why the profile is none. */
static bool add_dependent(const char *why, char *cpu, size_t size)
{
	const char *name = strstr(why, "the CPU feature '"), *end = name ? strstr(name, "' needs '") : NULL;
	size_t used = strlen(cpu);

	if (!end)
		return false;
	name += strlen("the CPU feature '");
	return (size_t)snprintf(cpu + used, size - used, ",-%.*s", (int)(end - name), name) < size - used;
}

static int tell_common(const struct target *from, const struct target *to)
{
	char words[4096], cpu[8192], why[1024];
	struct target masked = *from;
	int error;

	if (!guest_cpu_common(&from->told, &to->told, words, sizeof(words)))
		return cli_fail(EXIT_HARNESS, "info --cpu-common: %s and %s differ in what is no feature",
				from->cpu, to->cpu);
	snprintf(cpu, sizeof(cpu), "%s%s", from->cpu, words);
	masked.cpu = cpu;
	do {
		why[0] = 0;
		error = ask(&masked, why, sizeof(why));
		if (!error)
			error = accepts(to, &masked, why, sizeof(why));
	} while (error == -EINVAL && add_dependent(why, cpu, sizeof(cpu)));
	if (error)
		return cli_fail(EXIT_HARNESS, "info --cpu-common: --cpu %s: %s", cpu, why);
	printf("--engine %s --cpu %s\n", from->engine->name, cpu);
	return 0;
}

static int common(const char *one, const char *other)
{
	struct target targets[2] = {parse_target(one), parse_target(other)};
	char why[1024];
	int code = 0;

	for (unsigned i = 0; i < 2; i++) {
		int error = ask(&targets[i], why, sizeof(why));

		if (error)
			return cli_fail(error == -EINVAL ? EXIT_USAGE : EXIT_HARNESS, "info --cpu-common: %s",
					why[0] ? why : strerror(-error));
	}
	for (unsigned i = 0; i < 2 && !code; i++)
		code = tell_common(&targets[i], &targets[!i]);
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
