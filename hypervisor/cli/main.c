#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/records.h"

static const char help[] = "usage: visor COMMAND …\n"
			   "  run IMAGE             boots a guest, and runs the cases that it holds\n"
			   "  list IMAGE            the cases that an image holds\n"
			   "  judge IMAGE <REPORT   verdicts on what any machine reported\n"
			   "  info                  the engines of this build\n"
			   "  oracle                the software CPU against this host's own processor\n"
			   "`visor COMMAND --help` says more.\n";

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
} commands[] = {{"run", cmd_run}, {"list", cmd_list}, {"judge", cmd_judge}, {"info", cmd_info}, {"oracle", cmd_oracle}};

/*
 * A standard stream that was closed must not become the next file that is opened: what is
 * written to it would land there. Opened the wrong way round, each use of it fails.
 */
static void keep_standard_streams(void)
{
	for (int fd = 0; fd <= 2; fd++)
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd == 1 ? O_RDONLY : O_WRONLY) < 0)
			_exit(EXIT_HARNESS);
}

int main(int argc, char **argv)
{
	int code = -1;

	keep_standard_streams();
	signal(SIGPIPE, SIG_IGN);
	if (argc < 2)
		return cli_fail(EXIT_USAGE, "no command; see `visor --help`");
	if (strcmp(argv[1], "--help") == 0) {
		fputs(help, stdout);
		code = 0;
	}
	if (strcmp(argv[1], "--version") == 0) {
		puts("visor " VISOR_VERSION);
		code = 0;
	}
	for (size_t i = 0; code < 0 && i < sizeof(commands) / sizeof(commands[0]); i++)
		if (strcmp(argv[1], commands[i].name) == 0)
			code = commands[i].run(argc - 1, argv + 1);
	if (code < 0)
		return cli_fail(EXIT_USAGE, "%s: no such command; see `visor --help`", argv[1]);
	if (fflush(stdout))
		return cli_fail(EXIT_HARNESS, "standard output: %m");
	return code;
}
