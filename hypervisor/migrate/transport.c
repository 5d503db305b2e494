#define _GNU_SOURCE
#include "migrate/transport.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "vm/span.h"

/* What a socket holds of a stream that the other side has not read: some sections. */
#define SOCKET_BUFFER (4 << 20)

/* ---- URIs ---- */

static int parse_tcp(struct transport_uri *uri, const char *text, char *why, size_t size)
{
	const char *colon = strrchr(text, ':'), *host = text;
	size_t length = colon ? (size_t)(colon - text) : 0;
	uint64_t port;

	if (colon && *text == '[' && length > 1 && colon[-1] == ']') {
		host = text + 1;
		length -= 2;
	}
	if (!colon || length >= sizeof(uri->host) || !span_number(span_of(colon + 1), &port) ||
	    port > 65535) {
		snprintf(why, size, "not tcp:HOST:PORT");
		return -EINVAL;
	}
	memcpy(uri->host, host, length);
	uri->host[length] = 0;
	snprintf(uri->port, sizeof(uri->port), "%u", (unsigned)port);
	return 0;
}

static int parse_fd(struct transport_uri *uri, const char *text, char *why, size_t size)
{
	uint64_t fd;

	if (!span_number(span_of(text), &fd) || fd > INT32_MAX || fcntl((int)fd, F_GETFD) < 0) {
		snprintf(why, size, "%s is not the number of a descriptor that is open here", text);
		return -EINVAL;
	}
	uri->fd = (int)fd;
	return 0;
}

static int parse_path(struct transport_uri *uri, const char *text, char *why, size_t size)
{
	if (!*text)
		snprintf(why, size, "a path is missing");
	else if (uri->kind == TRANSPORT_UNIX && strlen(text) >= sizeof(((struct sockaddr_un *)0)->sun_path))
		snprintf(why, size, "the path is too long for a socket");
	else {
		uri->path = text;
		return 0;
	}
	return -EINVAL;
}

int transport_parse(struct transport_uri *uri, const char *text, char *why, size_t size)
{
	static const char *const kinds[] = {"unix:", "tcp:", "file:", "fd:"};

	for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		const char *rest = text + strlen(kinds[i]);

		if (strncmp(text, kinds[i], strlen(kinds[i])))
			continue;
		*uri = (struct transport_uri){.kind = (enum transport_kind)i, .fd = -1};
		switch (uri->kind) {
		case TRANSPORT_TCP: return parse_tcp(uri, rest, why, size);
		case TRANSPORT_FD: return parse_fd(uri, rest, why, size);
		case TRANSPORT_UNIX:
		case TRANSPORT_FILE: return parse_path(uri, rest, why, size);
		}
	}
	snprintf(why, size, "none of unix:PATH, tcp:HOST:PORT, file:PATH, fd:N");
	return -EINVAL;
}

/* ---- a transport of a descriptor ---- */

static void socket_options(int fd)
{
	int yes = 1, size = SOCKET_BUFFER;

	/* Each may be refused, and costs speed alone. */
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)))
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)))
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &yes, sizeof(yes));
}

/* Owns @fd, also where it fails. */
static int transport_new(struct transport **made, int fd)
{
	struct transport *transport = calloc(1, sizeof(*transport));
	struct stat status;
	int flags = fcntl(fd, F_GETFL), error = transport ? 0 : -ENOMEM;

	if (!error)
		transport->cancel = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (!error && (transport->cancel < 0 || fstat(fd, &status) || flags < 0 ||
		       fcntl(fd, F_SETFL, flags | O_NONBLOCK) || fcntl(fd, F_SETFD, FD_CLOEXEC)))
		error = -errno;
	if (error) {
		close(fd);
		if (transport && transport->cancel > 0)
			close(transport->cancel);
		free(transport);
		return error;
	}
	transport->fd = fd;
	transport->limit_ms = -1;
	transport->is_socket = transport->two_way = S_ISSOCK(status.st_mode);
	if (transport->is_socket)
		socket_options(fd);
	*made = transport;
	return 0;
}

void transport_free(struct transport *transport)
{
	if (!transport)
		return;
	if (transport->partial)
		unlink(transport->partial);
	free(transport->partial);
	free(transport->file);
	close(transport->fd);
	close(transport->cancel);
	free(transport);
}

int transport_cancel_new(void)
{
	int cancel = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	return cancel < 0 ? -errno : cancel;
}

void transport_cancel_fd(int cancel)
{
	const uint64_t one = 1;

	if (write(cancel, &one, sizeof(one)) < 0)
		return; /* it is cancelled already */
}

void transport_cancel(struct transport *transport) { transport_cancel_fd(transport->cancel); }

void transport_limit(struct transport *transport, int limit_ms) { transport->limit_ms = limit_ms; }

/* How often signals are looked at. */
#define LOOK_MS 200

/* Until @fd can be read or written, or something is wrong with it. -1 is no descriptor. */
static int wait_for(int fd, short events, int cancel, int limit_ms, const volatile sig_atomic_t *signal)
{
	struct pollfd poll_of[2] = {{.fd = fd, .events = events}, {.fd = cancel, .events = POLLIN}};
	int ready = 0;

	for (;;) {
		int turn = signal && (limit_ms < 0 || limit_ms > LOOK_MS) ? LOOK_MS : limit_ms;

		if (signal && *signal)
			return -EINTR;
		ready = poll(poll_of, 2, turn);
		if (ready < 0 && errno != EINTR)
			return -errno;
		if (ready > 0)
			return poll_of[1].revents ? -ECANCELED : 0;
		if (ready == 0 && turn == limit_ms)
			return -ETIMEDOUT;
		if (ready == 0 && limit_ms > 0)
			limit_ms -= turn;
	}
}

static int write_all(struct transport *transport, const uint8_t *bytes, size_t size)
{
	while (size) {
		ssize_t put = transport->is_socket
				      ? send(transport->fd, bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL)
				      : write(transport->fd, bytes, size);
		int error = 0;

		if (put < 0 && errno == EAGAIN)
			error = wait_for(transport->fd, POLLOUT, transport->cancel, transport->limit_ms,
					 transport->signal);
		else if (put < 0 && errno != EINTR)
			error = -errno;
		if (error)
			return error;
		if (put < 0)
			continue;
		bytes += put;
		size -= (size_t)put;
		atomic_fetch_add_explicit(&transport->sent, (uint64_t)put, memory_order_relaxed);
	}
	return 0;
}

int transport_flush(struct transport *transport)
{
	size_t size = transport->out_size;

	transport->out_size = 0;
	return write_all(transport, transport->out, size);
}

int transport_write(void *owner, const void *bytes, size_t size)
{
	struct transport *transport = owner;
	int error = 0;

	if (size > sizeof(transport->out) - transport->out_size || size > sizeof(transport->out) / 2)
		error = transport_flush(transport);
	if (!error && size > sizeof(transport->out) / 2)
		return write_all(transport, bytes, size);
	if (!error) {
		memcpy(transport->out + transport->out_size, bytes, size);
		transport->out_size += size;
	}
	return error;
}

/* At least one byte, at most @size. 0: the end. */
static ssize_t read_some(struct transport *transport, void *to, size_t size)
{
	for (;;) {
		ssize_t got = transport->is_socket ? recv(transport->fd, to, size, MSG_DONTWAIT)
						   : read(transport->fd, to, size);
		int error = 0;

		if (got >= 0) {
			atomic_fetch_add_explicit(&transport->received, (uint64_t)got, memory_order_relaxed);
			return got;
		}
		if (errno == EAGAIN)
			error = wait_for(transport->fd, POLLIN, transport->cancel, transport->limit_ms,
					 transport->signal);
		else if (errno != EINTR)
			error = -errno;
		if (error)
			return error;
	}
}

static ssize_t read_part(struct transport *transport, void *to, size_t size)
{
	ssize_t got;

	if (transport->in_at == transport->in_size && size >= sizeof(transport->in))
		return read_some(transport, to, size);
	if (transport->in_at == transport->in_size) {
		got = read_some(transport, transport->in, sizeof(transport->in));
		if (got <= 0)
			return got;
		transport->in_at = 0;
		transport->in_size = (size_t)got;
	}
	if (size > transport->in_size - transport->in_at)
		size = transport->in_size - transport->in_at;
	memcpy(to, transport->in + transport->in_at, size);
	transport->in_at += size;
	return (ssize_t)size;
}

int transport_read(void *owner, void *to, size_t size)
{
	size_t whole = size;

	while (size) {
		ssize_t got = read_part(owner, to, size);

		if (got == 0)
			return size == whole ? 1 : -EPIPE;
		if (got < 0)
			return (int)got;
		to = (uint8_t *)to + got;
		size -= (size_t)got;
	}
	return 0;
}

int transport_poll(struct transport *transport, int limit_ms)
{
	int error;

	if (transport->in_at < transport->in_size)
		return 1;
	error = wait_for(transport->fd, POLLIN, transport->cancel, limit_ms, transport->signal);
	return error == -ETIMEDOUT ? 0 : error ? error : 1;
}

int transport_rest(struct transport *transport, uint64_t ns)
{
	struct pollfd cancel = {.fd = transport->cancel, .events = POLLIN};
	struct timespec limit = {.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)};

	return ppoll(&cancel, 1, &limit, NULL) > 0 ? -ECANCELED : 0;
}

/* ---- files ---- */

/* A regular file is written beside its name, so that what was saved before stays until the new one is whole.
 */
static int open_to_write(struct transport **transport, const char *path)
{
	struct stat status;
	char *partial = NULL, *file = NULL;
	int fd, error;

	if (stat(path, &status) == 0 && !S_ISREG(status.st_mode)) {
		fd = open(path, O_WRONLY | O_CLOEXEC | O_NONBLOCK);
		return fd < 0 ? -errno : transport_new(transport, fd);
	}
	file = strdup(path);
	if (!file || asprintf(&partial, "%s.partial", path) < 0) {
		free(file);
		return -ENOMEM;
	}
	fd = open(partial, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	error = fd < 0 ? -errno : transport_new(transport, fd);
	if (error) {
		free(file);
		free(partial);
		return error;
	}
	(*transport)->file = file;
	(*transport)->partial = partial;
	return 0;
}

int transport_commit(struct transport *transport)
{
	int error = transport_flush(transport);

	if (error || !transport->partial)
		return error;
	if (fdatasync(transport->fd) || rename(transport->partial, transport->file))
		return -errno;
	free(transport->partial);
	transport->partial = NULL;
	return 0;
}

static int adopt_fd(struct transport **transport, int number)
{
	int fd = fcntl(number, F_DUPFD_CLOEXEC, 3);

	return fd < 0 ? -errno : transport_new(transport, fd);
}

/* ---- sockets ---- */

static void unix_address(struct sockaddr_un *address, const char *path)
{
	*address = (struct sockaddr_un){.sun_family = AF_UNIX};
	memcpy(address->sun_path, path, strlen(path));
}

/* How often a listener is asked that has too many waiting. */
#define FULL_MS 50

/* @fd does not block. 0, or a negative errno; what waits ends with @cancel. */
static int connect_to(int fd, const struct sockaddr *address, socklen_t length, int cancel)
{
	int error = 0;
	socklen_t size = sizeof(error);

	while (connect(fd, address, length)) {
		if (errno == EAGAIN) { /* of unix: which nobody can wait for */
			error = wait_for(-1, 0, cancel, FULL_MS, NULL);
			if (error != -ETIMEDOUT)
				return error;
			continue;
		}
		if (errno != EINPROGRESS && errno != EINTR)
			return -errno;
		error = wait_for(fd, POLLOUT, cancel, -1, NULL);
		if (!error && getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size))
			return -errno;
		return error > 0 ? -error : error;
	}
	return 0;
}

static int connect_unix(const char *path, int cancel)
{
	struct sockaddr_un address;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), error;

	if (fd < 0)
		return -errno;
	unix_address(&address, path);
	error = connect_to(fd, (const struct sockaddr *)&address, sizeof(address), cancel);
	if (error)
		close(fd);
	return error ? error : fd;
}

/* A name that a visor has left behind that is gone; nobody listens there. */
static void remove_stale(const char *path)
{
	struct sockaddr_un address;
	struct stat status;
	int fd;

	if (lstat(path, &status) || !S_ISSOCK(status.st_mode))
		return;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	unix_address(&address, path);
	if (fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof(address)) &&
	    errno == ECONNREFUSED)
		unlink(path);
	if (fd >= 0)
		close(fd);
}

static int listen_unix(const char *path)
{
	struct sockaddr_un address;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	unix_address(&address, path);
	remove_stale(path);
	if (fd >= 0 &&
	    (bind(fd, (const struct sockaddr *)&address, sizeof(address)) || listen(fd, SOMAXCONN))) {
		int error = -errno;

		close(fd);
		return error;
	}
	return fd < 0 ? -errno : fd;
}

/* The first of the host's addresses that can be connected to, or listened at. */
static int open_tcp(const struct transport_uri *uri, bool listens, int cancel, char *why, size_t size)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = listens ? AI_PASSIVE : 0};
	struct addrinfo *list, *at;
	int yes = 1, fd = -1, code = getaddrinfo(uri->host[0] ? uri->host : NULL, uri->port, &hints, &list);
	int error = -EHOSTUNREACH;

	if (code) {
		snprintf(why, size, "%s", gai_strerror(code));
		return code == EAI_SYSTEM ? -errno : -EHOSTUNREACH;
	}
	for (at = list; at; at = at->ai_next) {
		fd = socket(at->ai_family, at->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, at->ai_protocol);
		if (fd < 0)
			continue;
		if (listens)
			setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
		if (!listens)
			error = connect_to(fd, at->ai_addr, at->ai_addrlen, cancel);
		else
			error = bind(fd, at->ai_addr, at->ai_addrlen) || listen(fd, SOMAXCONN) ? -errno : 0;
		if (!error || error == -ECANCELED)
			break;
		close(fd);
	}
	freeaddrinfo(list);
	if (at && error)
		close(fd);
	return error ? error : fd;
}

static int told(int error, char *why, size_t size)
{
	if (error < 0 && !why[0])
		snprintf(why, size, "%s", strerror(-error));
	return error < 0 ? error : 0;
}

int transport_connect(struct transport **transport, const char *text, int cancel, char *why, size_t size)
{
	struct transport_uri uri;
	int fd = -1, error;

	why[0] = 0;
	error = transport_parse(&uri, text, why, size);
	if (error)
		return error;
	switch (uri.kind) {
	case TRANSPORT_FILE: return told(open_to_write(transport, uri.path), why, size);
	case TRANSPORT_FD: return told(adopt_fd(transport, uri.fd), why, size);
	case TRANSPORT_UNIX: fd = connect_unix(uri.path, cancel); break;
	case TRANSPORT_TCP: fd = open_tcp(&uri, false, cancel, why, size); break;
	}
	return told(fd < 0 ? fd : transport_new(transport, fd), why, size);
}

/* ---- listening ---- */

static int listen_at(struct transport_listener *listener, const struct transport_uri *uri, char *why,
		     size_t size)
{
	int fd;

	switch (uri->kind) {
	case TRANSPORT_FILE:
		fd = open(uri->path, O_RDONLY | O_CLOEXEC);
		return fd < 0 ? -errno : transport_new(&listener->only, fd);
	case TRANSPORT_FD: return adopt_fd(&listener->only, uri->fd);
	case TRANSPORT_UNIX:
		listener->fd = listen_unix(uri->path);
		listener->path = listener->fd < 0 ? NULL : strdup(uri->path);
		break;
	case TRANSPORT_TCP:
		listener->tcp = true;
		listener->fd = open_tcp(uri, true, -1, why, size);
		break;
	}
	return listener->fd < 0 ? listener->fd : 0;
}

int transport_listen(struct transport_listener **made, const char *text, char *why, size_t size)
{
	struct transport_listener *listener;
	struct transport_uri uri;
	int error;

	why[0] = 0;
	error = transport_parse(&uri, text, why, size);
	if (error)
		return error;
	listener = calloc(1, sizeof(*listener));
	if (!listener)
		return told(-ENOMEM, why, size);
	listener->fd = -1;
	listener->cancel = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	error = listener->cancel < 0 ? -errno : listen_at(listener, &uri, why, size);
	if (error) {
		transport_listener_free(listener);
		return told(error, why, size);
	}
	*made = listener;
	return 0;
}

int transport_accept(struct transport_listener *listener, struct transport **transport, int limit_ms)
{
	int fd, error;

	if (listener->fd < 0) {
		*transport = listener->only;
		listener->only = NULL;
		return *transport ? 0 : -ENOTCONN;
	}
	do {
		error = wait_for(listener->fd, POLLIN, listener->cancel, limit_ms, listener->signal);
		if (error)
			return error;
		fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC);
	} while (fd < 0 && (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED));
	return fd < 0 ? -errno : transport_new(transport, fd);
}

void transport_listener_cancel(struct transport_listener *listener) { transport_cancel_fd(listener->cancel); }

void transport_listener_uri(const struct transport_listener *listener, char *text, size_t size)
{
	struct sockaddr_storage address;
	socklen_t length = sizeof(address);
	char host[256], port[32];

	if (listener->path)
		snprintf(text, size, "unix:%s", listener->path);
	else if (listener->tcp && getsockname(listener->fd, (struct sockaddr *)&address, &length) == 0 &&
		 getnameinfo((const struct sockaddr *)&address, length, host, sizeof(host), port,
			     sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV) == 0)
		snprintf(text, size, strchr(host, ':') ? "tcp:[%s]:%s" : "tcp:%s:%s", host, port);
	else
		snprintf(text, size, "file");
}

void transport_listener_free(struct transport_listener *listener)
{
	if (!listener)
		return;
	if (listener->path)
		unlink(listener->path);
	free(listener->path);
	transport_free(listener->only);
	if (listener->fd >= 0)
		close(listener->fd);
	if (listener->cancel >= 0)
		close(listener->cancel);
	free(listener);
}
