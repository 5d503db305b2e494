/*
 * cli.h: what the subcommands of `visor` share. Messages and exit codes are made only here.
 */
#ifndef TRAPLINE_CLI_CLI_H
#define TRAPLINE_CLI_CLI_H

#include "cli/select.h"
#include "vm/case_section.h"
#include "vm/image.h"
#include "vm/judge.h"

enum exit_code {
	EXIT_EXPECTED = 0,
	EXIT_UNEXPECTED = 1,
	EXIT_USAGE = 2,   /* a wrong command line or file */
	EXIT_HARNESS = 3, /* the harness failed, or the run is incomplete */
	EXIT_NOTHING = 5, /* nothing was selected */
	/* Of a guest without cases; even, as what the debug exit gives is odd. */
	EXIT_GUEST_RESET = 4,
	EXIT_GUEST_SHUTDOWN = 6,
	EXIT_SIGNAL = 128 /* and the signal's number */
};

/* One line on standard error, "visor: …"; returns @code. */
int cli_fail(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The exit code for a record that could not be written. */
int cli_output_failed(int error);

/* An image and, where it has them, its cases. */
struct cli_image {
	struct image image;
	struct case_list list;
	bool has_cases;
};
/* 0, or an exit code after a message. @needs_cases: an image without them is a wrong file. */
int cli_open(struct cli_image *opened, const char *path, bool needs_cases);
void cli_close(struct cli_image *opened);

/* --cases arguments, kept until the image has been read. */
#define CLI_PATTERNS_MAX 256
struct patterns {
	unsigned count;
	const char *word[CLI_PATTERNS_MAX];
};
int patterns_add(struct patterns *patterns, const char *word);
int patterns_apply(const struct patterns *patterns, const struct case_list *list,
		   struct selection *selection);

/* What the verdicts say as an exit code. */
int cli_verdict(const struct judge *judge, bool complete);

int cmd_run(int argc, char **argv);
int cmd_list(int argc, char **argv);
int cmd_judge(int argc, char **argv);
int cmd_info(int argc, char **argv);
int cmd_oracle(int argc, char **argv);

#endif
