#include "monitor/commands.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

json_t *command_fail(struct command_error *error, const char *class, const char *format, ...)
{
	va_list arguments;

	error->class = class;
	va_start(arguments, format);
	vsnprintf(error->text, sizeof(error->text), format, arguments);
	va_end(arguments);
	return NULL;
}

/* ---- what there is ---- */

static json_t *query_commands(struct command_context *context, const json_t *arguments,
			      struct command_error *error)
{
	json_t *list = json_array();

	(void)context;
	(void)arguments;
	(void)error;
	json_array_append_new(list, json_pack("{s:s}", "name", "qmp_capabilities"));
	for (unsigned i = 0; command_at(i); i++)
		json_array_append_new(list, json_pack("{s:s}", "name", command_at(i)->name));
	return list;
}

static json_t *query_version(struct command_context *context, const json_t *arguments,
			     struct command_error *error)
{
	unsigned major = 0, minor = 0, micro = 0;

	(void)arguments;
	(void)error;
	sscanf(context->config->version, "%u.%u.%u", &major, &minor, &micro);
	return json_pack("{s:{s:i s:i s:i} s:s}", "visor", "major", major, "minor", minor, "micro", micro,
			 "package", context->config->version);
}

/* ---- the guest's state, by QMP's names ---- */

static const char *status_of(struct command_context *context, unsigned held)
{
	struct migration *migration = context->config->migration;
	enum migration_status status;
	bool awaits, receives;

	pthread_mutex_lock(&migration->lock);
	awaits = migration->awaits;
	receives = migration->receives;
	status = migration->status;
	pthread_mutex_unlock(&migration->lock);
	if (awaits)
		return "inmigrate";
	if (held & HOLD_MOVING)
		return "finish-migrate";
	if (held & HOLD_MOVED)
		return "postmigrate";
	if (!receives && status == MIGRATION_POSTCOPY_PAUSED)
		return "postmigrate";
	return held ? "paused" : "running";
}

static json_t *query_status(struct command_context *context, const json_t *arguments,
			    struct command_error *error)
{
	unsigned held = gate_held(context->config->gate);
	const char *status = status_of(context, held);

	(void)arguments;
	(void)error;
	return json_pack("{s:s s:b s:b}", "status", status, "running", strcmp(status, "running") == 0,
			 "singlestep", 0);
}

static json_t *query_cpus_fast(struct command_context *context, const json_t *arguments,
			       struct command_error *error)
{
	struct migration *migration = context->config->migration;
	json_t *list = json_array();
	unsigned count;

	(void)arguments;
	(void)error;
	pthread_mutex_lock(&migration->lock);
	count = migration->machine ? migration->machine->vcpu_count : 0;
	pthread_mutex_unlock(&migration->lock);
	for (unsigned i = 0; i < count; i++)
		json_array_append_new(list, json_pack("{s:i s:s s:i s:{s:i} s:s}", "cpu-index", i, "qom-path",
						      "", "thread-id", (int)getpid(), "props", "core-id", i,
						      "target", "x86_64"));
	return list;
}

/* ---- what is done to it: the machine's thread ---- */

static json_t *stop(struct command_context *context, const json_t *arguments, struct command_error *error)
{
	struct gate *gate = context->config->gate;
	bool ran = !gate_held(gate);

	(void)arguments;
	(void)error;
	gate_hold(gate, HOLD_USER);
	if (ran)
		monitor_event(context->monitor, "STOP", NULL);
	return json_object();
}

/* Takes back as well what was handed over without an answer, or is in a file: the user knows. */
static json_t *cont(struct command_context *context, const json_t *arguments, struct command_error *error)
{
	struct gate *gate = context->config->gate;
	unsigned held = gate_held(gate);
	char why[400] = "";

	(void)arguments;
	if (held & HOLD_MOVING)
		return command_fail(error, GENERIC_ERROR, "a migration is about to hand the guest over");
	if (migration_reclaim(context->config->migration, why, sizeof(why)))
		return command_fail(error, GENERIC_ERROR, "%s", why);
	gate_release(gate, HOLD_USER);
	if (held && !gate_held(gate))
		monitor_event(context->monitor, "RESUME", NULL);
	return json_object();
}

/* What needs a guest that is here. */
static struct machine *machine_of(struct command_context *context, struct command_error *error)
{
	struct migration *migration = context->config->migration;
	struct machine *machine;
	bool awaits;

	pthread_mutex_lock(&migration->lock);
	machine = migration->machine;
	awaits = migration->awaits;
	pthread_mutex_unlock(&migration->lock);
	if (awaits || !machine)
		command_fail(error, GENERIC_ERROR, "there is no guest yet");
	else if (gate_held(context->config->gate) & (HOLD_MOVING | HOLD_MOVED | HOLD_UNSURE))
		command_fail(error, GENERIC_ERROR, "the guest is being moved, or is elsewhere");
	else
		return machine;
	return NULL;
}

static json_t *system_reset(struct command_context *context, const json_t *arguments,
			    struct command_error *error)
{
	struct machine *machine = machine_of(context, error);
	char why[400];

	(void)arguments;
	if (!machine)
		return NULL;
	if (context->config->reset(context->config->owner, why, sizeof(why)))
		return command_fail(error, GENERIC_ERROR, "%s", why);
	return json_object();
}

static json_t *system_powerdown(struct command_context *context, const json_t *arguments,
				struct command_error *error)
{
	struct machine *machine = machine_of(context, error);

	(void)arguments;
	if (!machine)
		return NULL;
	machine->bus.changed = true;
	acpi_pm_button(&machine->platform.pm);
	monitor_event(context->monitor, "POWERDOWN", NULL);
	return json_object();
}

static json_t *inject_nmi(struct command_context *context, const json_t *arguments,
			  struct command_error *error)
{
	struct machine *machine = machine_of(context, error);

	(void)arguments;
	for (unsigned i = 0; machine && i < machine->vcpu_count; i++)
		machine->engine->ops->nmi(machine->engine, i);
	return machine ? json_object() : NULL;
}

static json_t *quit(struct command_context *context, const json_t *arguments, struct command_error *error)
{
	(void)arguments;
	(void)error;
	monitor_event(context->monitor, "SHUTDOWN",
		      json_pack("{s:b s:s}", "guest", 0, "reason", "host-qmp-quit"));
	monitor_quit(context->monitor);
	return json_object();
}

/* ---- the rows ---- */

static const struct command commands[] = {
	{"query-commands", "", query_commands, false},
	{"query-version", "", query_version, false},
	{"query-status", "", query_status, false},
	{"query-cpus-fast", "", query_cpus_fast, false},
	{"stop", "", stop, true},
	{"cont", "", cont, true},
	{"quit", "", quit, false},
	{"system_reset", "", system_reset, true},
	{"system_powerdown", "", system_powerdown, true},
	{"inject-nmi", "", inject_nmi, true},
	{"migrate", "uri:s channels:a resume:b detach:b", command_migrate, false},
	{"migrate_cancel", "", command_migrate_cancel, false},
	{"migrate-incoming", "uri:s channels:a exit-on-error:b", command_migrate_incoming, false},
	{"migrate-start-postcopy", "", command_migrate_start_postcopy, false},
	{"migrate-recover", "uri:S", command_migrate_recover, false},
	{"migrate-pause", "", command_migrate_pause, false},
	{"migrate-continue", "state:S", command_migrate_continue, false},
	{"migrate-set-parameters", NULL, command_migrate_set_parameters, false},
	{"query-migrate-parameters", "", command_query_migrate_parameters, false},
	{"migrate-set-capabilities", "capabilities:A", command_migrate_set_capabilities, false},
	{"query-migrate-capabilities", "", command_query_migrate_capabilities, false},
	{"query-migrate", "", command_query_migrate, false},
};

const struct command *command_at(unsigned index)
{
	return index < sizeof(commands) / sizeof(commands[0]) ? &commands[index] : NULL;
}

const struct command *command_find(const char *name)
{
	for (unsigned i = 0; command_at(i); i++)
		if (strcmp(commands[i].name, name) == 0)
			return &commands[i];
	return NULL;
}

/* ---- arguments ---- */

/* The type letter of @name in a list of arguments; 0: it is not there. */
static char type_of(const char *list, const char *name)
{
	size_t size = strlen(name);

	for (; *list; list += strcspn(list, " "), list += *list == ' ')
		if (strncmp(list, name, size) == 0 && list[size] == ':')
			return list[size + 1];
	return 0;
}

static bool has_type(const json_t *value, char type)
{
	switch (type | 0x20) {
	case 's': return json_is_string(value);
	case 'b': return json_is_boolean(value);
	case 'i': return json_is_integer(value);
	case 'o': return json_is_object(value);
	default: return json_is_array(value);
	}
}

bool command_takes(const struct command *command, const json_t *arguments, struct command_error *error)
{
	const char *list = command->arguments, *name;
	json_t *value;

	if (!list) /* the command looks itself */
		return true;
	json_object_foreach((json_t *)arguments, name, value)
	{
		char type = type_of(list, name);

		if (!type || !has_type(value, type)) {
			command_fail(error, GENERIC_ERROR,
				     type ? "%s: argument %.60s has another type"
					  : "%s takes no argument %.60s",
				     command->name, name);
			return false;
		}
	}
	for (; *list; list += strcspn(list, " "), list += *list == ' ') {
		char wanted[64];

		snprintf(wanted, sizeof(wanted), "%.*s", (int)strcspn(list, ":"), list);
		if (!(type_of(list, wanted) & 0x20) && !json_object_get(arguments, wanted)) {
			command_fail(error, GENERIC_ERROR, "%s needs an argument %s", command->name, wanted);
			return false;
		}
	}
	return true;
}
