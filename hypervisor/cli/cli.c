#include "cli/cli.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

int cli_fail(int code, const char *format, ...)
{
	char text[1024];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	for (char *c = text; *c; c++)
		if (*c < 0x20 || *c > 0x7e)
			*c = '?';
	fprintf(stderr, "visor: %s\n", text);
	return code;
}

int cli_output_failed(int error) { return cli_fail(EXIT_HARNESS, "standard output: %s", strerror(-error)); }

int cli_open(struct cli_image *opened, const char *path, bool needs_cases)
{
	char why[256];
	int error = image_open(&opened->image, path, why, sizeof(why));

	if (error)
		return cli_fail(EXIT_USAGE, "%s: %s", path, why);
	opened->list = (struct case_list){0};
	opened->has_cases = opened->image.cases.at != NULL;
	if (!opened->has_cases && needs_cases) {
		image_close(&opened->image);
		return cli_fail(EXIT_USAGE, "%s: holds no cases (no section %s)", path, CASE_SECTION_NAME);
	}
	if (opened->has_cases && case_list_parse(&opened->list, opened->image.cases, why, sizeof(why))) {
		image_close(&opened->image);
		return cli_fail(EXIT_USAGE, "%s: %s", path, why);
	}
	return 0;
}

void cli_close(struct cli_image *opened)
{
	case_list_free(&opened->list);
	image_close(&opened->image);
}

int patterns_add(struct patterns *patterns, const char *word)
{
	if (patterns->count == CLI_PATTERNS_MAX)
		return cli_fail(EXIT_USAGE, "more than %d --cases; put them into a file", CLI_PATTERNS_MAX);
	patterns->word[patterns->count++] = word;
	return 0;
}

int patterns_apply(const struct patterns *patterns, const struct case_list *list, struct selection *selection)
{
	char why[512];

	*selection = (struct selection){0};
	for (unsigned i = 0; i < patterns->count; i++)
		if (selection_add(selection, list, patterns->word[i], why, sizeof(why))) {
			selection_free(selection);
			return cli_fail(EXIT_USAGE, "--cases: %s", why);
		}
	selection_default(selection, list);
	if (selection->count == 0) {
		selection_free(selection);
		return cli_fail(EXIT_NOTHING, "no case was selected");
	}
	return 0;
}

int cli_verdict(const struct judge *judge, bool complete)
{
	if (judge->count[VERDICT_FAIL] || judge->count[VERDICT_ERROR] || judge->count[VERDICT_TIMEOUT] ||
	    judge->count[VERDICT_CRASH])
		return EXIT_UNEXPECTED;
	return complete ? EXIT_EXPECTED : EXIT_HARNESS;
}
