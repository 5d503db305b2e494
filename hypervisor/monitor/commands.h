/*
 * commands.h: what a client may ask, one row a command.
 */
#ifndef TRAPLINE_MONITOR_COMMANDS_H
#define TRAPLINE_MONITOR_COMMANDS_H

#include "monitor/monitor.h"

/* What a command works with. */
struct command_context {
	const struct monitor_config *config;
	struct monitor *monitor;
};

struct command_error {
	const char *class; /* QMP's; NULL: no error */
	char text[600];
};

struct command {
	const char *name;
	/* The arguments that it takes, "name:type name:type": s a string, b true or false, i a number, o an
	 * object, a an array; upper case where it must be there. */
	const char *arguments;
	/* The answer, or NULL with @error. */
	json_t *(*run)(struct command_context *context, const json_t *arguments, struct command_error *error);
	bool on_machine; /* by the machine's thread, between two run() calls */
};

/* NULL: there is none. */
const struct command *command_find(const char *name);
/* The command with this index, NULL past the last. */
const struct command *command_at(unsigned index);
/* Whether @arguments (an object, or NULL for none) are what it takes. */
bool command_takes(const struct command *command, const json_t *arguments, struct command_error *error);

/* Sets @error, and is NULL. */
json_t *command_fail(struct command_error *error, const char *class, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
#define GENERIC_ERROR "GenericError"

/* monitor.c: `quit` was said. */
void monitor_quit(struct monitor *monitor);

/* ---- commands_migrate.c ---- */

typedef json_t *command_run(struct command_context *context, const json_t *arguments,
			    struct command_error *error);
command_run command_migrate, command_migrate_cancel, command_migrate_incoming, command_migrate_start_postcopy,
	command_migrate_recover, command_migrate_pause, command_migrate_continue,
	command_migrate_set_parameters, command_query_migrate_parameters, command_migrate_set_capabilities,
	command_query_migrate_capabilities, command_query_migrate;

#endif
