#include "monitor/commands.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "x86/paging.h"

/* ---- where to ---- */

/* An address as QMP has it, {"transport": "socket", "type": "unix", "path": …}, as a URI. False: it is none.
 */
static bool address_uri(const json_t *address, char *uri, size_t size)
{
	const char *transport = json_string_value(json_object_get(address, "transport"));
	const char *type = json_string_value(json_object_get(address, "type"));
	const char *path = json_string_value(json_object_get(address, "path"));
	const char *host = json_string_value(json_object_get(address, "host"));
	const char *port = json_string_value(json_object_get(address, "port"));
	const char *fd = json_string_value(json_object_get(address, "str"));
	const char *file = json_string_value(json_object_get(address, "filename"));
	int used = -1;

	if (!transport)
		return false;
	if (strcmp(transport, "file") == 0 && file)
		used = snprintf(uri, size, "file:%s", file);
	else if (strcmp(transport, "socket") == 0 && type) {
		if (strcmp(type, "unix") == 0 && path)
			used = snprintf(uri, size, "unix:%s", path);
		else if (strcmp(type, "inet") == 0 && host && port)
			used = snprintf(uri, size, strchr(host, ':') ? "tcp:[%s]:%s" : "tcp:%s:%s", host,
					port);
		else if (strcmp(type, "fd") == 0 && fd)
			used = snprintf(uri, size, "fd:%s", fd);
	}
	return used >= 0 && (size_t)used < size;
}

/* Of `uri` or `channels`. NULL with @error. */
static const char *uri_of(const json_t *arguments, char *room, size_t size, struct command_error *error)
{
	const char *uri = json_string_value(json_object_get(arguments, "uri"));
	const json_t *channels = json_object_get(arguments, "channels"),
		     *channel = json_array_get(channels, 0);
	const char *type = json_string_value(json_object_get(channel, "channel-type"));

	if (!uri == !channels) {
		command_fail(error, GENERIC_ERROR, "either uri or channels says where to");
		return NULL;
	}
	if (uri)
		return uri;
	if (json_array_size(channels) != 1 || !type || strcmp(type, "main") ||
	    !address_uri(json_object_get(channel, "addr"), room, size)) {
		command_fail(error, GENERIC_ERROR, "channels is one channel of type main with an address");
		return NULL;
	}
	return room;
}

json_t *command_migrate(struct command_context *context, const json_t *arguments, struct command_error *error)
{
	bool resume = json_is_true(json_object_get(arguments, "resume"));
	char room[4200], why[400];
	const char *uri = uri_of(arguments, room, sizeof(room), error);

	if (!uri)
		return NULL;
	if (migration_start(context->config->migration, uri, resume, why, sizeof(why)))
		return command_fail(error, GENERIC_ERROR, "%s", why);
	return json_object();
}

json_t *command_migrate_incoming(struct command_context *context, const json_t *arguments,
				 struct command_error *error)
{
	const json_t *exits = json_object_get(arguments, "exit-on-error");
	char room[4200], why[400];
	const char *uri = uri_of(arguments, room, sizeof(room), error);

	if (!uri)
		return NULL;
	if (migration_receive_at(context->config->migration, uri, !json_is_false(exits), why, sizeof(why)))
		return command_fail(error, GENERIC_ERROR, "%s", why);
	return json_object();
}

/* ---- while it is under way ---- */

static json_t *done(int code, const char *why, struct command_error *error)
{
	return code ? command_fail(error, GENERIC_ERROR, "%s", why) : json_object();
}

json_t *command_migrate_cancel(struct command_context *context, const json_t *arguments,
			       struct command_error *error)
{
	char why[400];

	(void)arguments;
	return done(migration_cancel(context->config->migration, why, sizeof(why)), why, error);
}

json_t *command_migrate_start_postcopy(struct command_context *context, const json_t *arguments,
				       struct command_error *error)
{
	char why[400];

	(void)arguments;
	return done(migration_start_postcopy(context->config->migration, why, sizeof(why)), why, error);
}

json_t *command_migrate_recover(struct command_context *context, const json_t *arguments,
				struct command_error *error)
{
	const char *uri = json_string_value(json_object_get(arguments, "uri"));
	char why[400];

	return done(migration_recover(context->config->migration, uri, why, sizeof(why)), why, error);
}

json_t *command_migrate_pause(struct command_context *context, const json_t *arguments,
			      struct command_error *error)
{
	char why[400];

	(void)arguments;
	return done(migration_pause(context->config->migration, why, sizeof(why)), why, error);
}

json_t *command_migrate_continue(struct command_context *context, const json_t *arguments,
				 struct command_error *error)
{
	const char *state = json_string_value(json_object_get(arguments, "state"));
	char why[400];

	if (strcmp(state, migration_status_name(MIGRATION_PRE_SWITCHOVER)))
		return command_fail(error, GENERIC_ERROR, "only pre-switchover can be continued");
	return done(
		migration_continue(context->config->migration, MIGRATION_PRE_SWITCHOVER, why, sizeof(why)),
		why, error);
}

/* ---- what it is told ---- */

static json_t *parameter_value(enum migration_parameter parameter, uint64_t value)
{
	if (migration_parameters[parameter].choice)
		return json_string(migration_choice_name(parameter, value));
	return json_integer((json_int_t)value);
}

json_t *command_query_migrate_parameters(struct command_context *context, const json_t *arguments,
					 struct command_error *error)
{
	json_t *object = json_object();

	(void)arguments;
	(void)error;
	for (unsigned i = 0; i < PARAMETER_COUNT; i++)
		json_object_set_new(object, migration_parameters[i].name,
				    parameter_value((enum migration_parameter)i,
						    migration_get_parameter(context->config->migration,
									    (enum migration_parameter)i)));
	return object;
}

/* PARAMETER_COUNT: there is none. */
static unsigned parameter_of(const char *name)
{
	unsigned i = 0;

	while (i < PARAMETER_COUNT && strcmp(migration_parameters[i].name, name))
		i++;
	return i;
}

static bool read_parameter(enum migration_parameter parameter, const json_t *from, uint64_t *value,
			   struct command_error *error)
{
	const char *name = migration_parameters[parameter].name, *choice = json_string_value(from);

	if (migration_parameters[parameter].choice) {
		for (*value = 0; choice && migration_choice_name(parameter, *value); ++*value)
			if (strcmp(migration_choice_name(parameter, *value), choice) == 0)
				return true;
	} else if (json_is_integer(from) && json_integer_value(from) >= 0) {
		*value = (uint64_t)json_integer_value(from);
		if (*value >= migration_parameters[parameter].least &&
		    *value <= migration_parameters[parameter].most)
			return true;
	}
	if (migration_parameters[parameter].choice)
		command_fail(error, GENERIC_ERROR, "%s is none or zstd", name);
	else
		command_fail(error, GENERIC_ERROR, "%s is a number from %llu to %llu", name,
			     (unsigned long long)migration_parameters[parameter].least,
			     (unsigned long long)migration_parameters[parameter].most);
	return false;
}

/* All of them, or none. */
json_t *command_migrate_set_parameters(struct command_context *context, const json_t *arguments,
				       struct command_error *error)
{
	uint64_t value[PARAMETER_COUNT];
	bool given[PARAMETER_COUNT] = {false};
	const char *name;
	json_t *from;
	char why[400];

	json_object_foreach((json_t *)arguments, name, from)
	{
		unsigned i = parameter_of(name);

		if (i == PARAMETER_COUNT)
			return command_fail(error, GENERIC_ERROR, "a migration has no parameter %.60s", name);
		if (!read_parameter((enum migration_parameter)i, from, &value[i], error))
			return NULL;
		given[i] = true;
	}
	for (unsigned i = 0; i < PARAMETER_COUNT; i++)
		if (given[i] &&
		    migration_set_parameter(context->config->migration, (enum migration_parameter)i, value[i],
					    why, sizeof(why)))
			return command_fail(error, GENERIC_ERROR, "%s", why);
	return json_object();
}

json_t *command_query_migrate_capabilities(struct command_context *context, const json_t *arguments,
					   struct command_error *error)
{
	json_t *list = json_array();

	(void)arguments;
	(void)error;
	for (unsigned i = 0; i < CAPABILITY_COUNT; i++) {
		bool on = migration_get_capability(context->config->migration, (enum migration_capability)i);

		json_array_append_new(
			list, json_pack("{s:s s:b}", "capability", migration_capabilities[i], "state", on));
	}
	return list;
}

/* CAPABILITY_COUNT with @error: there is none, or that is no row. */
static unsigned capability_of(const json_t *row, struct command_error *error)
{
	const char *name = json_string_value(json_object_get(row, "capability"));
	unsigned i = 0;

	if (!name || !json_is_boolean(json_object_get(row, "state")) || json_object_size(row) != 2) {
		command_fail(error, GENERIC_ERROR,
			     "a capability is {\"capability\": NAME, \"state\": true or false}");
		return CAPABILITY_COUNT;
	}
	while (i < CAPABILITY_COUNT && strcmp(migration_capabilities[i], name))
		i++;
	if (i == CAPABILITY_COUNT)
		command_fail(error, GENERIC_ERROR, "this visor does not offer the capability %.60s", name);
	return i;
}

json_t *command_migrate_set_capabilities(struct command_context *context, const json_t *arguments,
					 struct command_error *error)
{
	json_t *list = json_object_get(arguments, "capabilities"), *row;
	char why[400];
	size_t index;

	json_array_foreach(list, index, row) if (capability_of(row, error) == CAPABILITY_COUNT) return NULL;
	json_array_foreach(list, index, row)
	{
		bool on = json_is_true(json_object_get(row, "state"));

		if (migration_set_capability(context->config->migration,
					     (enum migration_capability)capability_of(row, error), on, why,
					     sizeof(why)))
			return command_fail(error, GENERIC_ERROR, "%s", why);
	}
	return json_object();
}

/* ---- how it stands ---- */

static void set(json_t *object, const char *name, uint64_t value)
{
	json_object_set_new(object, name, json_integer((json_int_t)value));
}

/* Milliseconds, rounded up: 0 is none. */
static uint64_t ms(uint64_t ns) { return (ns + 999999) / 1000000; }

static json_t *ram_of(struct migration_counts *counts)
{
	uint64_t bytes = counts->bytes, began = counts->began,
		 end = counts->ended ? counts->ended : machine_now();
	uint64_t seconds_e9 = end > began ? end - began : 1;
	json_t *ram = json_object();

	set(ram, "transferred", bytes);
	set(ram, "total", counts->total);
	set(ram, "remaining", counts->remaining);
	set(ram, "duplicate", counts->zero_pages);
	set(ram, "normal", counts->sent_pages);
	set(ram, "normal-bytes", counts->sent_pages * PAGE_SIZE);
	set(ram, "page-size", PAGE_SIZE);
	set(ram, "dirty-pages-rate", counts->dirty_rate);
	set(ram, "dirty-sync-count", counts->syncs);
	set(ram, "postcopy-requests", counts->requests);
	set(ram, "precopy-bytes", counts->precopy_bytes ? counts->precopy_bytes : bytes);
	set(ram, "downtime-bytes", counts->downtime_bytes);
	set(ram, "postcopy-bytes", counts->postcopy_bytes);
	set(ram, "multifd-bytes", counts->channel_bytes);
	json_object_set_new(ram, "mbps", json_real((double)bytes * 8e3 / (double)seconds_e9));
	set(ram, "pages-per-second", (uint64_t)((double)counts->sent_pages * 1e9 / (double)seconds_e9));
	return ram;
}

static json_t *rounds_of(struct migration *migration)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < migration->rounds; i++) {
		const struct migration_round *round = &migration->round[i];

		json_array_append_new(list,
				      json_pack("{s:I s:I s:I s:I s:I}", "began-ns", (json_int_t)round->began,
						"took-ns", (json_int_t)round->took, "pages",
						(json_int_t)round->pages, "bytes", (json_int_t)round->bytes,
						"dirty", (json_int_t)round->dirty));
	}
	return list;
}

/* With migration->lock. */
static void add_times(json_t *object, struct migration *migration)
{
	struct migration_counts *counts = &migration->counts;
	uint64_t began = counts->began, end = counts->ended ? counts->ended : machine_now();

	set(object, "total-time", ms(end - began));
	set(object, "total-time-ns", end - began);
	if (counts->set_up)
		set(object, "setup-time", ms(counts->set_up - began));
	if (counts->resumed && migration->status == MIGRATION_COMPLETED) {
		set(object, "downtime", ms(counts->resumed - counts->stopped));
		set(object, "downtime-ns", counts->resumed - counts->stopped);
	} else if (counts->expected && counts->expected != UINT64_MAX) {
		set(object, "expected-downtime", ms(counts->expected));
	}
	if (counts->throttle)
		set(object, "cpu-throttle-percentage", counts->throttle);
	if (counts->throughput)
		set(object, "throughput", counts->throughput);
}

json_t *command_query_migrate(struct command_context *context, const json_t *arguments,
			      struct command_error *error)
{
	struct migration *migration = context->config->migration;
	json_t *object = json_object();

	(void)arguments;
	(void)error;
	pthread_mutex_lock(&migration->lock);
	if (migration->status != MIGRATION_NONE) {
		json_object_set_new(object, "status", json_string(migration_status_name(migration->status)));
		if (!migration->receives) {
			add_times(object, migration);
			json_object_set_new(object, "ram", ram_of(&migration->counts));
			json_object_set_new(object, "rounds", rounds_of(migration));
		}
	}
	if (migration->error[0])
		json_object_set_new(object, "error-desc", json_string(migration->error));
	if (migration->listens[0] && strncmp(migration->listens, "file", 4))
		json_object_set_new(object, "listens", json_string(migration->listens));
	pthread_mutex_unlock(&migration->lock);
	return object;
}
