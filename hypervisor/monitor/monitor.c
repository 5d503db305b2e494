#define _GNU_SOURCE
#include "monitor/monitor.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "migrate/transport.h"
#include "monitor/commands.h"
#include "monitor/json_split.h"

#define CLIENTS_MAX 16u
/* What a client may leave unread before it is dropped. */
#define OUT_MAX (1u << 20)
/* How long the machine's thread may take to end after `quit`. */
#define QUIT_NS 3000000000u

struct client {
	int fd; /* -1: nobody */
	uint64_t number;
	struct json_split split;
	bool negotiated, waits; /* waits: for the machine's thread */
	bool closed;            /* nothing more comes from it */
	bool dropped;
	char in[4096];
	size_t in_at, in_size;
	char *out; /* monitor->lock */
	size_t out_at, out_size, out_room;
};

/* A command that the machine's thread runs. */
struct call {
	struct gate_call gate;
	struct monitor *monitor;
	uint64_t client;
	const struct command *command;
	json_t *arguments, *id, *result;
	struct command_error error;
	struct call *next;
};

struct monitor {
	struct monitor_config config;
	struct transport_listener *listener;
	pthread_t thread;
	int wake;
	atomic_bool ends;
	uint64_t clients; /* that there have been */
	uint64_t quit_at; /* when `quit` was said; 0: not */
	unsigned calls;   /* that the machine's thread has */
	pthread_mutex_t lock;
	struct call *done; /* lock */
	struct client client[CLIENTS_MAX];
};

static void wake(struct monitor *monitor)
{
	const uint64_t one = 1;

	if (write(monitor->wake, &one, sizeof(one)) < 0)
		return; /* it is awake */
}

/* ---- what clients are told ---- */

/* With the lock. */
static void put(struct client *client, const char *text, size_t size)
{
	if (client->fd < 0 || client->dropped)
		return;
	if (client->out_size + size > client->out_room) {
		size_t room = client->out_size + size + 4096;
		char *out = room <= OUT_MAX ? realloc(client->out, room) : NULL;

		if (!out) {
			client->dropped = true;
			return;
		}
		client->out = out;
		client->out_room = room;
	}
	memcpy(client->out + client->out_size, text, size);
	client->out_size += size;
}

/* Steals @object. */
static char *line_of(json_t *object)
{
	char *text = json_dumps(object, JSON_COMPACT | JSON_ENSURE_ASCII), *line = NULL;

	json_decref(object);
	if (text && asprintf(&line, "%s\r\n", text) < 0)
		line = NULL;
	free(text);
	return line;
}

static void tell(struct monitor *monitor, struct client *client, json_t *object)
{
	char *line = line_of(object);

	pthread_mutex_lock(&monitor->lock);
	if (line)
		put(client, line, strlen(line));
	pthread_mutex_unlock(&monitor->lock);
	free(line);
}

void monitor_event(struct monitor *monitor, const char *name, json_t *data)
{
	struct timespec now;
	json_t *object;
	char *line;

	clock_gettime(CLOCK_REALTIME, &now);
	object = json_pack("{s:s s:{s:I s:I}}", "event", name, "timestamp", "seconds", (json_int_t)now.tv_sec,
			   "microseconds", (json_int_t)(now.tv_nsec / 1000));
	if (data)
		json_object_set_new(object, "data", data);
	line = line_of(object);
	pthread_mutex_lock(&monitor->lock);
	for (unsigned i = 0; line && i < CLIENTS_MAX; i++)
		if (monitor->client[i].negotiated)
			put(&monitor->client[i], line, strlen(line));
	pthread_mutex_unlock(&monitor->lock);
	free(line);
	wake(monitor);
}

/* Steals @id and @result. */
static void answer(struct monitor *monitor, struct client *client, json_t *id, json_t *result,
		   const struct command_error *error)
{
	json_t *object =
		result ? json_pack("{s:o}", "return", result)
		       : json_pack("{s:{s:s s:s}}", "error", "class", error->class, "desc", error->text);

	if (id)
		json_object_set_new(object, "id", id);
	tell(monitor, client, object);
}

/* ---- commands ---- */

/* The machine's thread. */
static void call_run(void *owner)
{
	struct call *call = owner;
	struct command_context context = {.config = &call->monitor->config, .monitor = call->monitor};

	call->result = call->command->run(&context, call->arguments, &call->error);
}

static void call_done(void *owner, bool missed)
{
	struct call *call = owner;
	struct monitor *monitor = call->monitor;

	if (missed)
		command_fail(&call->error, GENERIC_ERROR, "the machine has ended");
	pthread_mutex_lock(&monitor->lock);
	call->next = monitor->done;
	monitor->done = call;
	pthread_mutex_unlock(&monitor->lock);
	wake(monitor);
}

/* Steals @id. */
static void ask_machine(struct monitor *monitor, struct client *client, const struct command *command,
			json_t *arguments, json_t *id)
{
	struct call *call = calloc(1, sizeof(*call));
	struct command_error error;

	if (!call) {
		answer(monitor, client, id, command_fail(&error, GENERIC_ERROR, "no memory"), &error);
		return;
	}
	*call = (struct call){.gate = {.run = call_run, .done = call_done, .owner = call},
			      .monitor = monitor,
			      .client = client->number,
			      .command = command,
			      .arguments = json_deep_copy(arguments),
			      .id = id};
	client->waits = true;
	monitor->calls++;
	gate_post(monitor->config.gate, &call->gate);
}

static void finish_calls(struct monitor *monitor)
{
	struct call *call, *next;

	pthread_mutex_lock(&monitor->lock);
	call = monitor->done;
	monitor->done = NULL;
	pthread_mutex_unlock(&monitor->lock);
	for (; call; call = next) {
		struct client *client = NULL;

		next = call->next;
		monitor->calls--;
		for (unsigned i = 0; i < CLIENTS_MAX; i++)
			if (monitor->client[i].fd >= 0 && monitor->client[i].number == call->client)
				client = &monitor->client[i];
		if (client) {
			client->waits = false;
			answer(monitor, client, call->id, call->result, &call->error);
		} else {
			json_decref(call->id);
			json_decref(call->result);
		}
		json_decref(call->arguments);
		free(call);
	}
}

/* While there is no guest yet, its thread listens to nobody, and there is nothing that it would have to be
 * asked for. */
static bool machine_awaits(struct monitor *monitor)
{
	struct migration *migration = monitor->config.migration;
	bool awaits;

	pthread_mutex_lock(&migration->lock);
	awaits = migration->awaits;
	pthread_mutex_unlock(&migration->lock);
	return awaits;
}

/* Negotiation, as QMP has it: nothing else before. There is nothing to negotiate. */
static json_t *negotiate(struct monitor *monitor, struct client *client, const json_t *arguments,
			 struct command_error *error)
{
	const json_t *enable = json_object_get(arguments, "enable");

	if (client->negotiated)
		return command_fail(error, "CommandNotFound", "capabilities have been negotiated");
	if (json_object_size(arguments) > (enable ? 1 : 0) || (enable && !json_is_array(enable)))
		return command_fail(error, GENERIC_ERROR,
				    "qmp_capabilities takes nothing but enable, an array");
	if (json_array_size(enable))
		return command_fail(error, GENERIC_ERROR, "this monitor offers no capabilities");
	pthread_mutex_lock(&monitor->lock);
	client->negotiated = true;
	pthread_mutex_unlock(&monitor->lock);
	return json_object();
}

static json_t *run_command(struct monitor *monitor, struct client *client, const json_t *request, json_t *id,
			   bool *asked, struct command_error *error)
{
	struct command_context context = {.config = &monitor->config, .monitor = monitor};
	json_t *arguments = json_object_get(request, "arguments");
	const char *name = json_string_value(json_object_get(request, "execute"));
	const struct command *command;

	if (arguments && !json_is_object(arguments))
		return command_fail(error, GENERIC_ERROR, "arguments is not an object");
	if (strcmp(name, "qmp_capabilities") == 0)
		return negotiate(monitor, client, arguments, error);
	if (!client->negotiated)
		return command_fail(error, "CommandNotFound", "%.60s comes before qmp_capabilities", name);
	command = command_find(name);
	if (!command)
		return command_fail(error, "CommandNotFound", "there is no command %.60s", name);
	if (!command_takes(command, arguments, error))
		return NULL;
	if (!command->on_machine || machine_awaits(monitor))
		return command->run(&context, arguments, error);
	*asked = true;
	ask_machine(monitor, client, command, arguments, json_incref(id));
	return NULL;
}

static bool is_request(const json_t *request, struct command_error *error)
{
	const char *key;
	json_t *value;

	if (!json_is_string(json_object_get(request, "execute"))) {
		command_fail(error, GENERIC_ERROR, "execute is missing, or not a string");
		return false;
	}
	json_object_foreach((json_t *)request, key, value) if (strcmp(key, "execute") &&
							       strcmp(key, "arguments") && strcmp(key, "id"))
	{
		command_fail(error, GENERIC_ERROR, "an object of a request has no member %.60s", key);
		return false;
	}
	return true;
}

static void serve(struct monitor *monitor, struct client *client)
{
	json_error_t where;
	json_t *request = json_loadb(client->split.text, client->split.size, JSON_REJECT_DUPLICATES, &where);
	json_t *id = json_object_get(request, "id"), *result = NULL;
	struct command_error error = {0};
	bool asked = false;

	if (!request)
		command_fail(&error, GENERIC_ERROR, "this is not JSON: %.200s", where.text);
	else if (is_request(request, &error))
		result = run_command(monitor, client, request, id, &asked, &error);
	if (!asked)
		answer(monitor, client, id ? json_incref(id) : NULL, result, &error);
	json_decref(request);
}

/* ---- clients ---- */

/* All objects that have come, one after the other; one that has to wait ends that for now. */
static void serve_all(struct monitor *monitor, struct client *client)
{
	static const char *const complaints[] = {
		[JSON_SPLIT_GARBAGE] = "this is not a JSON object",
		[JSON_SPLIT_TOO_LARGE] = "an object is larger than a command may be",
		[JSON_SPLIT_TOO_DEEP] = "an object is nested deeper than a command may be",
	};

	while (!client->waits && client->in_at < client->in_size) {
		const char *at = client->in + client->in_at;
		size_t left = client->in_size - client->in_at;
		enum json_split_found found = json_split(&client->split, &at, &left);
		struct command_error error;

		client->in_at = client->in_size - left;
		if (found == JSON_SPLIT_OBJECT)
			serve(monitor, client);
		else if (found != JSON_SPLIT_MORE)
			answer(monitor, client, NULL,
			       command_fail(&error, GENERIC_ERROR, "%s", complaints[found]), &error);
	}
}

static void close_client(struct monitor *monitor, struct client *client)
{
	pthread_mutex_lock(&monitor->lock);
	close(client->fd);
	json_split_free(&client->split);
	free(client->out);
	*client = (struct client){.fd = -1};
	pthread_mutex_unlock(&monitor->lock);
}

static void read_client(struct client *client)
{
	ssize_t got = recv(client->fd, client->in, sizeof(client->in), MSG_DONTWAIT);

	client->in_at = client->in_size = 0;
	if (got > 0)
		client->in_size = (size_t)got;
	else if (got == 0 || (errno != EAGAIN && errno != EINTR))
		client->closed = true;
}

static void write_client(struct monitor *monitor, struct client *client)
{
	pthread_mutex_lock(&monitor->lock);
	while (client->out_at < client->out_size && !client->dropped) {
		ssize_t put = send(client->fd, client->out + client->out_at,
				   client->out_size - client->out_at, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0 && errno == EAGAIN)
			break;
		client->dropped |= put < 0;
		client->out_at += put > 0 ? (size_t)put : 0;
	}
	if (client->out_at == client->out_size)
		client->out_at = client->out_size = 0;
	pthread_mutex_unlock(&monitor->lock);
}

/* {"QMP": …}, as clients of QMP want it. */
static void greet(struct monitor *monitor, struct client *client)
{
	unsigned major = 0, minor = 0, micro = 0;

	sscanf(monitor->config.version, "%u.%u.%u", &major, &minor, &micro);
	tell(monitor, client,
	     json_pack("{s:{s:{s:{s:i s:i s:i} s:s} s:[]}}", "QMP", "version", "visor", "major", major,
		       "minor", minor, "micro", micro, "package", monitor->config.version, "capabilities"));
}

static void accept_client(struct monitor *monitor)
{
	int fd = accept4(monitor->listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct client *client = NULL;

	if (fd < 0)
		return;
	for (unsigned i = 0; i < CLIENTS_MAX && !client; i++)
		if (monitor->client[i].fd < 0)
			client = &monitor->client[i];
	if (!client) {
		close(fd);
		return;
	}
	pthread_mutex_lock(&monitor->lock);
	*client = (struct client){.fd = fd, .number = ++monitor->clients};
	pthread_mutex_unlock(&monitor->lock);
	greet(monitor, client);
}

/* A client that has closed its side still gets its answers. */
static void tend_client(struct monitor *monitor, struct client *client, short ready)
{
	if (ready & (POLLIN | POLLHUP | POLLERR) && !client->closed && client->in_at == client->in_size)
		read_client(client);
	serve_all(monitor, client);
	write_client(monitor, client);
	if (client->dropped || (ready & POLLERR) ||
	    (client->closed && !client->waits && client->in_at == client->in_size && client->out_size == 0))
		close_client(monitor, client);
}

static short wanted(const struct client *client)
{
	bool reads = !client->closed && !client->waits && client->in_at == client->in_size;

	return (short)((reads ? POLLIN : 0) | (client->out_size ? POLLOUT : 0));
}

static void look(struct monitor *monitor)
{
	struct pollfd poll_of[CLIENTS_MAX + 2] = {{.fd = monitor->wake, .events = POLLIN},
						  {.fd = monitor->listener->fd, .events = POLLIN}};
	uint64_t count;

	pthread_mutex_lock(&monitor->lock);
	for (unsigned i = 0; i < CLIENTS_MAX; i++)
		poll_of[i + 2] =
			(struct pollfd){.fd = wanted(&monitor->client[i]) ? monitor->client[i].fd : -1,
					.events = wanted(&monitor->client[i])};
	pthread_mutex_unlock(&monitor->lock);
	if (poll(poll_of, CLIENTS_MAX + 2, monitor->quit_at ? 100 : -1) < 0)
		return;
	if (poll_of[0].revents && read(monitor->wake, &count, sizeof(count)) < 0)
		return;
	finish_calls(monitor);
	for (unsigned i = 0; i < CLIENTS_MAX; i++)
		if (monitor->client[i].fd >= 0)
			tend_client(monitor, &monitor->client[i], poll_of[i + 2].revents);
	if (poll_of[1].revents)
		accept_client(monitor);
}

static void *monitor_thread(void *owner)
{
	struct monitor *monitor = owner;

	while (!atomic_load(&monitor->ends)) {
		look(monitor);
		if (monitor->quit_at && machine_now() - monitor->quit_at > QUIT_NS)
			monitor->config.give_up(monitor->config.owner);
	}
	/* What the gate has missed has its answer by now. */
	finish_calls(monitor);
	for (unsigned i = 0; i < CLIENTS_MAX; i++)
		if (monitor->client[i].fd >= 0) {
			write_client(monitor, &monitor->client[i]);
			close_client(monitor, &monitor->client[i]);
		}
	return NULL;
}

/* ---- life ---- */

void monitor_quit(struct monitor *monitor)
{
	if (!monitor->quit_at)
		monitor->quit_at = machine_now();
	monitor->config.quit(monitor->config.owner);
}

static int open_monitor(struct monitor *monitor, char *why, size_t size)
{
	int error;

	if (strncmp(monitor->config.uri, "unix:", 5)) {
		snprintf(why, size, "a control socket is unix:PATH");
		return -EINVAL;
	}
	error = transport_listen(&monitor->listener, monitor->config.uri, why, size);
	if (error)
		return error;
	monitor->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	error = monitor->wake < 0 ? -errno : migration_thread(&monitor->thread, monitor_thread, monitor);
	if (!error)
		return 0;
	snprintf(why, size, "%s", strerror(-error));
	if (monitor->wake >= 0)
		close(monitor->wake);
	transport_listener_free(monitor->listener);
	return error;
}

int monitor_open(struct monitor **made, const struct monitor_config *config, char *why, size_t size)
{
	struct monitor *monitor = calloc(1, sizeof(*monitor));
	int error;

	if (!monitor) {
		snprintf(why, size, "no memory");
		return -ENOMEM;
	}
	monitor->config = *config;
	pthread_mutex_init(&monitor->lock, NULL);
	for (unsigned i = 0; i < CLIENTS_MAX; i++)
		monitor->client[i].fd = -1;
	error = open_monitor(monitor, why, size);
	if (error) {
		pthread_mutex_destroy(&monitor->lock);
		free(monitor);
		return error;
	}
	*made = monitor;
	return 0;
}

void monitor_close(struct monitor *monitor)
{
	if (!monitor)
		return;
	atomic_store(&monitor->ends, true);
	wake(monitor);
	pthread_join(monitor->thread, NULL);
	transport_listener_free(monitor->listener);
	close(monitor->wake);
	pthread_mutex_destroy(&monitor->lock);
	free(monitor);
}
